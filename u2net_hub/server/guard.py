"""What stands before all routes: keys, a full queue, slow readers, the log and the numbers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from .limits import ByteBudget, Places
from .logs import log_request
from .problems import REMOVEBG, Problem
from .uploads import GRACE, SLOWEST
from .visits import Visit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .auth import Keys
    from .metrics import Metrics
    from .settings import Settings

OPEN = ("/healthz", "/readyz", "/docs", "/openapi.json")
"""The paths that need no key."""
_SENT_AT_ONCE = 1 << 18


class Guard:
    """Check each request before the routes see it, and log it afterwards.

    Args:
        app: The app with the routes.
        settings: The settings of the server.
        keys: The accepted keys.
        metrics: The numbers for Prometheus.
        routes: The paths that the log and the numbers name; all others are "other".
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, keys: Keys, metrics: Metrics, routes: frozenset[str]
    ) -> None:
        self._app, self._settings, self._keys, self._metrics = app, settings, keys, metrics
        self._routes = routes
        self._places = Places(settings.queue, metrics.queue.set)
        self._budget = ByteBudget(4 * settings.max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSockets here
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        path = scope["path"]
        visit = Visit(self._places, self._budget, self._settings.timeout)
        visit.enter(scope)
        answer = _Answer(send)
        try:
            self._check(scope, path)
            await self._app(scope, receive, answer)
        except Problem as e:
            if not answer.status:
                await e.response(path)(scope, receive, answer)
        except (ClientDisconnect, _SlowReaderError):
            answer.status = answer.status or 499  # as nginx logs it; nobody receives it
        finally:
            visit.end()
            self._record(scope, visit, answer.status or 500)

    def _check(self, scope: Scope, path: str) -> None:
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            # a proxy that reads the other one of the two would see two requests where we see one
            raise Problem(
                400,
                "two_lengths",
                "the request has Content-Length and Transfer-Encoding, expected one of them",
                headers={"Connection": "close"},
            )
        if path not in OPEN:
            try:
                self._keys.check(headers)
            except Problem as e:
                # remove.bg answers with this status
                raise Problem(403, e.code, e.message) if path.startswith(REMOVEBG) else e from None
        if scope["method"] == "POST" and path in self._routes:
            self._places.check()

    def _record(self, scope: Scope, visit: Visit, status: int) -> None:
        route = scope["path"] if scope["path"] in self._routes else "other"
        seconds = time.monotonic() - visit.start
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if status == 499:
            self._metrics.left.inc()
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
        facts = {"method": method, "route": route, "status": status, "seconds": round(seconds, 4)}
        log_request({**facts, **visit.facts})


class _SlowReaderError(Exception):
    """A client that does not read its answer."""


class _Answer:
    """Send an answer in pieces, and give up on a client that reads too slowly."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._send(message)
            return
        body = memoryview(message.get("body", b""))
        more = message.get("more_body", False)
        for start in range(0, max(len(body), 1), _SENT_AT_ONCE):
            piece = body[start : start + _SENT_AT_ONCE]
            is_last = start + _SENT_AT_ONCE >= len(body)
            try:
                await asyncio.wait_for(
                    self._send({**message, "body": bytes(piece), "more_body": more or not is_last}),
                    GRACE + len(piece) / SLOWEST,
                )
            except asyncio.TimeoutError:
                raise _SlowReaderError from None
