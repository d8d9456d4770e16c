"""Read the body of a request: its fields and its files, in memory, within limits of size and time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from .problems import Problem, shortened

if TYPE_CHECKING:
    from starlette.requests import Request

    from .settings import Settings
    from .visits import Visit

MOST_FIELDS = 40
LONGEST_TEXT = 2_000
"""The largest number of characters of a field that is no photo."""
PHOTO_IN_TEXT = "image_file_b64"
"""The field that may be longer, because it holds a photo in Base64."""
_MOST_MARKS = 10_000
SLOWEST = 16_000
"""The fewest bytes in a second that a client must send or receive."""
GRACE = 5.0
"""The seconds after which `SLOWEST` holds."""


@dataclass
class Fields:
    """What a request holds: texts from its address and its body, and files from its body."""

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        """Add a text; an empty one counts as absent.

        Raises:
            Problem: There is one of this name already, or it is too long.
        """
        if len(name) > LONGEST_TEXT or (len(text) > LONGEST_TEXT and name != PHOTO_IN_TEXT):
            raise Problem(
                400,
                "field_too_long",
                f"the field {shortened(name)} has {len(text):,} characters, "
                f"expected at most {LONGEST_TEXT:,}",
            )
        if not _is_unicode(name) or not _is_unicode(text):
            raise Problem(
                400, "damaged_text", "a field holds half of a surrogate pair, expected text in Unicode"
            )
        if name in self.texts or name in self.files:
            raise Problem(
                400, "field_given_twice", f"the field {shortened(name)} is given twice, expected once"
            )
        self.texts[name] = text


def _is_unicode(text: str) -> bool:
    """Tell whether a text can be written in UTF-8, unlike half of a surrogate pair from JSON."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


async def read_fields(request: Request, settings: Settings, visit: Visit) -> Fields:
    """Read the query and the body of a request.

    Args:
        request: The request.
        settings: The settings of the server.
        visit: It counts the bytes until the request is answered.

    Raises:
        Problem: The body is too large, too slow or damaged, of an unknown type, or a field is given twice.
        ClientDisconnect: The client has left.
    """
    found = Fields()
    for name, text in request.query_params.multi_items():
        found.add(name, text)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "content-encoding" in request.headers:
        raise Problem(
            415, "encoded_body", "the request has a Content-Encoding, expected none; send it as it is"
        )
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded", "application/json"):
        raise Problem(
            415,
            "unknown_content_type",
            f"the request has the Content-Type {shortened(kind)}, expected multipart/form-data; "
            "with curl: -F file=@photo.jpg",
        )
    body = _Body(request, settings, visit)
    if kind == "multipart/form-data":
        await _read_multipart(request, body, found, settings.max_bytes)
    else:
        data = b"".join([chunk async for chunk in body.chunks()])
        pairs = await asyncio.to_thread(_read_json if kind == "application/json" else _read_form, data)
        for name, text in pairs:
            found.add(name, text)
    return found


class _Body:
    """The body of a request, which is counted while it arrives."""

    def __init__(self, request: Request, settings: Settings, visit: Visit) -> None:
        self._request, self._settings, self._visit = request, settings, visit
        self.received = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        declared = self._request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._settings.max_bytes:
            raise self._too_large(f"{declared} bytes")
        start = time.monotonic()
        more = True
        while more:
            allowed = min(self._settings.timeout, GRACE + self.received / SLOWEST)
            try:
                message = await asyncio.wait_for(
                    self._request.receive(), max(start + allowed - time.monotonic(), 0)
                )
            except asyncio.TimeoutError:
                raise Problem(
                    408,
                    "too_slow",
                    f"the request has not arrived after {allowed:.0f} seconds, expected at least "
                    f"{SLOWEST:,} bytes in a second and all within {self._settings.timeout:.0f} seconds",
                    headers={"Connection": "close"},
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            if self.received + len(chunk) > self._settings.max_bytes:
                raise self._too_large("more")
            self._visit.hold_bytes(len(chunk))
            self.received += len(chunk)
            more = message.get("more_body", False)
            yield chunk

    def _too_large(self, size: str) -> Problem:
        return Problem(
            413,
            "request_too_large",
            f"the request has {size}, expected at most {self._settings.max_bytes:,} bytes; "
            "send a smaller photo, or start the server with a larger --max-bytes",
            headers={"Connection": "close"},
        )


class _InMemory(MultiPartParser):
    """Starlette's parser, which writes no file to the disk."""

    spool_max_size = max_file_size = 1 << 62  # of two generations of Starlette


async def _read_multipart(request: Request, body: _Body, found: Fields, longest: int) -> None:
    parser = _InMemory(
        Headers(raw=request.headers.raw),
        body.chunks(),
        max_files=4,
        max_fields=MOST_FIELDS,
        max_part_size=longest,
    )
    try:
        form = await parser.parse()
    except MultiPartException as e:
        raise Problem(400, "damaged_form", f"the form cannot be read: {e.message}") from e
    except UnicodeDecodeError as e:
        raise Problem(400, "damaged_form", "the form cannot be read: a field is not text in UTF-8") from e
    parts = form.multi_items()
    try:
        for name, value in parts:
            if not isinstance(value, UploadFile):
                found.add(name, value)
            elif name in found.files or name in found.texts:
                raise Problem(
                    400, "field_given_twice", f"{shortened(name)} is given twice, expected once in a request"
                )
            else:
                found.files[name] = value.file.read()
    finally:
        for _, value in parts:
            if isinstance(value, UploadFile):
                value.file.close()


def _read_form(data: bytes) -> list[tuple[str, str]]:
    # Each escaped byte takes 60 bytes while it is read. Base64 has an escape in about 34 bytes.
    if data.count(b"%") > _MOST_MARKS + len(data) // 16:
        raise Problem(
            400, "damaged_form", "most of the form is escaped; send the photo as multipart/form-data"
        )
    try:
        return parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as e:
        raise Problem(
            400, "damaged_form", "the form cannot be read as application/x-www-form-urlencoded"
        ) from e


def _read_json(data: bytes) -> list[tuple[str, str]]:
    # Each value of JSON takes 60 bytes and more; a photo in Base64 has none of these marks.
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_MARKS:
        raise Problem(400, "damaged_json", "the JSON has too many values, expected one flat object")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise Problem(400, "damaged_json", "the body cannot be read as JSON") from e
    if not isinstance(content, dict) or len(content) > MOST_FIELDS:
        raise Problem(400, "damaged_json", f"the body is not a JSON object of at most {MOST_FIELDS} fields")
    pairs = []
    for name, value in content.items():
        if value is None:
            continue
        if not isinstance(value, str | bool | int | float):
            raise Problem(400, "damaged_json", f"{shortened(name)} is not a text, a number, true or false")
        pairs.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return pairs
