"""The routes for those who run the server."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from .metrics import CONTENT_TYPE
from .problems import Problem
from .state import Shared

router = APIRouter(tags=["Status"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Tell whether the process lives.")
async def healthz(request: Request) -> Response:
    """Answer 200 as long as the process answers at all."""
    return JSONResponse({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Tell whether the server takes requests.")
async def readyz(request: Request) -> Response:
    """Answer 200 when the models are loaded and warm, else 503."""
    shared = Shared.of(request)
    if not shared.is_ready:
        raise Problem(503, "not_ready", "the server is starting or stopping", headers={"Retry-After": "1"})
    return JSONResponse({"status": "ready", "models": list(shared.workshop.pipelines)})


@router.get("/metrics", summary="Numbers for Prometheus.", response_class=Response)
async def metrics(request: Request) -> Response:
    """Answer with the numbers in the text format of Prometheus."""
    return Response(Shared.of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})
