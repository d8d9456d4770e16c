"""A filter for the requests of visitors."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


MAX_UPLOAD_BYTES = 200_000_000
"""Largest size of one upload, over all its files."""
MAX_CALL_BYTES = 1_000_000
"""Largest size of one call. Its files are uploaded before it."""

# routes of Gradio that fetch an address, start ffmpeg or call into components; the demo uses none of them
_CLOSED = re.compile(
    r"/(proxy=|file[=/]\s*https?:|component_server|process_recording|stream/|vibe-|custom_component/)", re.I
)
_ADDRESS = re.compile(r"\s*(https?|ftp|file)://", re.I)


class Guard:
    """Refuse requests that are too large or that would make the server fetch an address.

    If a call names a file by its address, Gradio downloads it, whatever the input is.

    Args:
        app: The ASGI app that gets the accepted requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if _CLOSED.search(path):
            await PlainTextResponse("not found", 404)(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
        elif path.rstrip("/").endswith("/upload"):
            await self._upload(scope, receive, send)
        else:
            await self._call(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit() or int(length) > MAX_UPLOAD_BYTES:  # uvicorn enforces the declared length
            limit = MAX_UPLOAD_BYTES // 1_000_000
            await PlainTextResponse(f"too much at once, send at most {limit} MB", 413)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if len(body) > MAX_CALL_BYTES:
                await PlainTextResponse("the call is too large", 413)(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        try:
            call = json.loads(body) if body else None
        except (ValueError, RecursionError):
            await PlainTextResponse("the call is not JSON", 400)(scope, receive, send)
            return
        if _names_address(call):
            await PlainTextResponse("files are not fetched from an address here; upload them", 403)(
                scope, receive, send
            )
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)


def _names_address(value: object) -> bool:
    """Whether a file in the call, at any depth, has an address as its path."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and _ADDRESS.match(path):
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False
