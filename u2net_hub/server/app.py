"""The app: its routes, its errors, its start and its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from .. import __version__
from ..inference import tune_malloc
from .auth import Keys
from .guard import Guard
from .logs import open_log
from .metrics import Metrics
from .page import router as page_router
from .problems import Problem, shortened
from .removal import router as removal_router
from .removebg import router as removebg_router
from .settings import Settings
from .state import Shared
from .status import router as status_router
from .urls import Fetcher
from .work import Workshop

if TYPE_CHECKING:
    from ..inference import SaliencyPipeline

_DESCRIPTION = (
    "Photos in, masks and cutouts out. `/api/remove` takes the parameters of rembg, `/v1.0/removebg` those "
    'of remove.bg. Errors are `{"error": {"code", "message"}}`, and below `/v1.0` as remove.bg has them.'
)


def create_app(
    settings: Settings | None = None, *, pipelines: dict[str, SaliencyPipeline] | None = None
) -> FastAPI:
    """Load the models and make the app, for uvicorn or any other ASGI server.

    `uvicorn --factory u2net_hub.server:create_app` runs it with the settings of the environment.

    Args:
        settings: The settings; None reads them from the environment variables U2NET_SERVE_….
        pipelines: Pipelines by their names, instead of the models of the settings.

    Raises:
        ValueError: A setting or a source is invalid.
        OSError: A source or the file of keys cannot be read.
    """
    if settings is None:  # this process is for the server alone
        tune_malloc()
        settings = Settings.from_environment()
    keys = Keys(settings.read_keys())
    metrics = Metrics()
    workshop = Workshop(settings, metrics, pipelines)
    workshop.warm_up()
    shared = Shared(settings, workshop, metrics, Fetcher(settings.allow_urls, settings.max_bytes))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        open_log()
        shared.is_ready = True
        try:
            yield
        finally:
            shared.is_ready = False
            shared.fetcher.close()
            workshop.close()

    routers = (removal_router, removebg_router, status_router, page_router)
    routes = frozenset(str(getattr(route, "path", "")) for each in routers for route in each.routes)
    app = FastAPI(
        title="u2net-hub",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the host that the client claims
        lifespan=lifespan,
        middleware=[Middleware(Guard, settings=settings, keys=keys, metrics=metrics, routes=routes)],
        exception_handlers={
            Problem: _on_problem,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_leaving,
            Exception: _on_fault,
        },
    )
    app.state.shared = shared
    for each in routers:
        app.include_router(each)
    return app


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response(request.scope["path"])


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = shortened(request.scope["path"])
    if error.status_code == 404:
        problem = Problem(404, "not_found", f"there is nothing at {path}; see /docs")
    elif error.status_code == 405:
        problem = Problem(405, "method_not_allowed", f"{path} has no method {request.method}; see /docs")
    else:
        problem = Problem(error.status_code, "bad_request", str(error.detail))
    problem.headers.update(error.headers or {})
    return problem.response(request.scope["path"])


async def _on_leaving(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody receives it


async def _on_fault(request: Request, error: Exception) -> Response:
    problem = Problem(500, "internal_error", "the server has a fault; its log says more")
    return problem.response(request.scope["path"])
