"""What is wrong with a request: a status, a code for programs and a sentence for people."""

from __future__ import annotations

from starlette.responses import JSONResponse

REMOVEBG = "/v1.0/"
"""The start of the paths whose errors have the shape of remove.bg."""


class Problem(Exception):
    """A request that is not answered with a picture.

    Args:
        status: The HTTP status.
        code: A word for programs.
        message: What was given, what is expected, and what to do.
        headers: More headers of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = headers or {}

    def response(self, path: str) -> JSONResponse:
        """Make the answer, in the shape that belongs to a path."""
        if path.startswith(REMOVEBG):
            content: dict[str, object] = {
                "errors": [{"title": self.message, "code": self.code, "detail": self.message}]
            }
        else:
            content = {"error": {"code": self.code, "message": self.message}}
        return JSONResponse(content, self.status, self.headers)


def queue_is_full(places: int) -> Problem:
    """Say that the server has no place for one more request."""
    return Problem(
        503,
        "queue_full",
        f"{places} requests are here already; try again later",
        headers={"Retry-After": "1"},
    )


def shortened(value: object, longest: int = 60) -> str:
    """Write a value that a client sent, for a message."""
    text = repr(value[: longest + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= longest else text[:longest] + "…"
