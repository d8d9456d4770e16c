"""A filter for the requests of visitors: what the page and its API need goes through, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse

from .storage import FILE_BYTES
from .visitors import address_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .contract import Contract
    from .results import Results
    from .storage import Storage
    from .visitors import Presence

MAX_UPLOAD_BYTES = 200_000_000
"""Largest size of one upload, over all its files."""
OPEN_REQUESTS = 200
"""Most requests of one address at the same time. An open page has two."""
MAX_CALL_BYTES = 1_000_000
"""Largest size of one call. Its files are uploaded before it."""

_ADDRESS = re.compile(r"[\s\0]*[a-z][a-z0-9+.-]+:[/\\]{2}", re.I)
_OWN_FILE = re.compile(r"https?://[^/]+/(?:.*/)?gradio_api/file=(?P<path>[^:]+)", re.I)
# what is read: the page, its parts, a file of a visitor, and the streams in which results come
_READ = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(assets|static|svelte)/.{1,200}"
    r"|/gradio_api/(info|openapi\.json|theme\.css|startup-events|app_id|queue/status|queue/data|upload_progress"
    r"|heartbeat/[^/]+|call/(?:v2/)?[^/]+/(?P<event>[^/]+)|file=(?!\s*[a-z][a-z0-9+.-]+:).*)",
    re.I | re.S,
)
_UPLOAD = "/gradio_api/upload"
_FILE_NAME = b"filename"
"""Each file of an upload has this word in its head."""
_CALL = re.compile(r"/gradio_api/(queue/join|cancel|reset|call/(v2/)?[^/]+)")


class Guard:
    """Let through the requests that the page and its API make; refuse all others, and addresses in any call.

    If a call names a file by its address, Gradio downloads it, whatever the input is. A call goes on as this
    class has read it, so nothing in it can mean one thing here and another to Gradio.

    Args:
        app: The ASGI app that gets the accepted requests.
        contract: It knows the inputs of each function. Without it, only the form of a call is checked.
        presence: It is told which sessions listen for their results.
        results: It knows which results there are. Without it, any can be asked for.
        storage: It bounds what visitors store.
    """

    def __init__(
        self,
        app: ASGIApp,
        contract: Contract | None = None,
        presence: Presence | None = None,
        results: Results | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._app = app
        self._contract = contract
        self._presence = presence
        self._results = results
        self._storage = storage
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the demo has no WebSocket
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        client = scope.get("client")
        address = address_of(client and client[0], Headers(scope=scope))
        if self._open[address] >= OPEN_REQUESTS:
            await _refuse(429, "too many requests at the same time")(scope, receive, send)
            return
        self._open[address] += 1
        try:
            await self._answer(address, scope, receive, send)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    async def _answer(self, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].rstrip("/") or "/"
        if not path.isprintable():  # Gradio builds addresses from it
            await _refuse(404, "not found")(scope, receive, send)
            return
        known = _READ.fullmatch(path) or _CALL.fullmatch(path) or path == _UPLOAD
        if scope["method"] == "OPTIONS" and known:  # how a browser asks whether another site's page may call
            await self._app(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD") and (read := _READ.fullmatch(path)):
            await self._read(_session_of(scope), read["event"] or "", scope, receive, send)
        elif scope["method"] == "POST" and path == _UPLOAD:
            await self._upload(address, scope, receive, send)
        elif scope["method"] == "POST" and _CALL.fullmatch(path):
            await self._call(path, scope, receive, send)
        else:
            await _refuse(404, "not found")(scope, receive, send)

    async def _read(self, session: str, event: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that reads, and that may wait for the results of a session or an event."""
        if self._results is not None and (session or event):
            session = session or self._results.session_of(event)
            if session not in self._results:
                await _refuse(404, "there are no such results, or no longer")(scope, receive, send)
                return
        listener = session or event
        with self._presence.listening(listener) if self._presence and listener else nullcontext():
            try:
                await self._app(scope, receive, send)
            except RuntimeError as e:
                # the results were dropped while they were read, and Gradio has told the reader
                if not listener or not isinstance(e.__cause__, HTTPException):
                    raise
                await send({"type": "http.response.body", "body": b""})

    async def _upload(self, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        query = parse_qs(bytes(scope.get("query_string", b"")).decode("latin-1"))
        if not headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data"):
            await _refuse_upload(415, "an upload is multipart/form-data")(scope, receive, send)
        elif any(len(name) > 100 for name in query.get("upload_id", [])):
            await _refuse_upload(400, "upload_id is not a short text")(scope, receive, send)
        elif b"transfer-encoding" in headers or not length.isdigit() or int(length) > MAX_UPLOAD_BYTES:
            # uvicorn enforces the declared length, unless the upload comes in chunks as well
            limit = MAX_UPLOAD_BYTES // 1_000_000
            await _refuse_upload(413, f"too much at once, send at most {limit} MB")(scope, receive, send)
        else:
            try:
                if self._storage is not None:  # in a thread, because it may have to look through the folder
                    await asyncio.to_thread(self._storage.charge, address, int(length))
            except ValueError as e:
                await _refuse_upload(429, str(e))(scope, receive, send)
            else:
                await self._store(address, int(length), scope, receive, send)

    async def _store(self, address: str, length: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Gradio store an upload, and charge its files if they are small but many."""
        files, end, answered = 0, b"", False

        async def counted() -> Message:
            nonlocal files, end
            message = await receive()
            body = end + message.get("body", b"").lower()
            files += body.count(_FILE_NAME)
            end = body[-len(_FILE_NAME) + 1 :]
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except (TypeError, AttributeError):  # Gradio's answer to a form without files
            if answered:
                raise
            await _refuse_upload(400, "the upload holds something that is not a file")(scope, receive, send)
        finally:
            if self._storage is not None and files * FILE_BYTES > length:
                rest = files * FILE_BYTES - length
                await asyncio.to_thread(self._storage.charge, address, rest, stored=True)

    async def _call(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if len(body) > MAX_CALL_BYTES:
                await _refuse(413, "the call is too large")(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        try:
            call = _checked_call(path, json.loads(body, parse_constant=_no_constant) if body else {})
            self._check_contract(path, call)
        except RecursionError:
            await _refuse(400, "the call is nested too deeply")(scope, receive, send)
        except PermissionError as e:
            await _refuse(403, str(e))(scope, receive, send)
        except ValueError as e:
            await _refuse(400, f"the call is not as the API page says: {e}")(scope, receive, send)
        else:
            body = json.dumps(call).encode()
            pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

            async def replay() -> Message:
                return pending.pop() if pending else await receive()

            kept = [(name, value) for name, value in scope["headers"] if name not in _REPLACED]
            kept += [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
            await self._app({**scope, "headers": kept}, replay, send)

    def _check_contract(self, path: str, call: dict[str, object]) -> None:
        if self._contract is None:
            return
        if path.endswith("/queue/join"):
            data = call["data"]
            self._contract.check_number(call.get("fn_index"), data if isinstance(data, list) else [])
        elif "/call/" in path:
            data = call if "/call/v2/" in path else call["data"]
            name = path.rpartition("/")[2]
            self._contract.check_name(name, data if isinstance(data, list | dict) else [])


_REPLACED = (b"content-length", b"content-type", b"content-encoding", b"transfer-encoding")
# the fields of a call that Gradio may see; others, such as `batched`, change how it is run
_FIELDS = {
    "queue/join": ("data", "fn_index", "trigger_id", "session_hash"),
    "cancel": ("session_hash", "fn_index", "event_id"),
    "reset": ("event_id",),
    "call": ("data",),  # without fn_index, which would name any function of the page
}
_FILE = {"_type": "gradio.FileData"}
_INTEGERS, _TEXTS = ("fn_index", "trigger_id"), ("session_hash", "event_id")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def _refuse(status: int, why: str) -> JSONResponse:
    return JSONResponse({"detail": why, "error": why}, status)


def _refuse_upload(status: int, why: str) -> PlainTextResponse:
    """The page shows the answer to a refused upload as it is."""
    return PlainTextResponse(why, status)


def _session_of(scope: Scope) -> str:
    """The session whose results are read in a stream; "" for other requests."""
    if not scope["path"].rstrip("/").endswith("/queue/data"):
        return ""
    query = parse_qs(bytes(scope.get("query_string", b"")).decode("latin-1"))
    return query.get("session_hash", [""])[0]


def _checked_call(path: str, call: object) -> dict[str, object]:
    """Return the call with the fields that Gradio may see.

    Raises:
        ValueError: The call is not of the form that Gradio takes.
        PermissionError: It names an address.
    """
    if not isinstance(call, dict):
        raise ValueError(f"got {type(call).__name__}, expected an object")
    call = _without_addresses(call)
    route = path.removeprefix("/gradio_api/")
    if route.startswith("call/v2/"):  # the parameters by their names
        return dict(call)
    fields = _FIELDS["call" if route.startswith("call/") else route]
    call = {name: call[name] for name in fields if call.get(name) is not None}
    if "data" in fields and not isinstance(call.get("data"), list):
        raise ValueError("data is not a list")
    for name, value in call.items():
        if name in _INTEGERS and type(value) is not int:
            raise ValueError(f"{name} is not a number")
        if name in _TEXTS and not (isinstance(value, str) and len(value) <= 100):
            raise ValueError(f"{name} is not a short text")
    return call


def _without_addresses(value: dict[str, object]) -> dict[str, object]:
    """Copy a call, with paths in the place of the addresses at which the page itself shows its files.

    A browser sends such an address along with the path of an upload, and the snippets of the API page name
    the example by it. Nothing is fetched from it, whatever its host is.

    Raises:
        PermissionError: There is another address in it.
    """

    def copied(value: object) -> object:
        if isinstance(value, dict):
            return copied_dict(value)
        if isinstance(value, list):
            return [copied(each) for each in value]
        _is_address(value)
        return value

    def copied_dict(value: dict[str, object]) -> dict[str, object]:
        if "path" in value:
            value = {**value, "path": _own_path(value["path"])}
            if value.get("url") and _own_path(value["url"]) == value["path"]:
                value["url"] = None
        kept = {name: copied(each) for name, each in value.items() if not _is_address(name)}
        return _as_file(kept) if kept.get("meta") == _FILE else kept

    return copied_dict(value)


def _as_file(value: dict[str, object]) -> dict[str, object]:
    """A file with what this page reads of it; of other fields, Gradio prints a traceback if one is odd."""
    name = value.get("orig_name")
    return {
        "path": value.get("path"),
        "meta": _FILE,
        **({"orig_name": name[-200:]} if isinstance(name, str) else {}),
    }


def _own_path(address: object) -> object:
    """The path of a file that this page shows at an address; anything else as it is."""
    own = _OWN_FILE.fullmatch(address) if isinstance(address, str) else None
    return unquote(own["path"]) if own else address


def _is_address(value: object) -> bool:
    if isinstance(value, str) and _ADDRESS.match(value):
        raise PermissionError("addresses are not fetched here; upload the file, or name a model as org/name")
    return False
