"""One request: what it holds while it is worked on, and what the log says of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from starlette.requests import ClientDisconnect

from .problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope

    from .limits import ByteBudget, Places

T = TypeVar("T")
_KEY = "u2net_hub.visit"


class Visit:
    """One request while it is worked on.

    Args:
        places: The places for requests.
        budget: The bytes of all requests.
        timeout: The seconds after which the request is ended.
    """

    def __init__(self, places: Places, budget: ByteBudget, timeout: float) -> None:
        self.facts: dict[str, object] = {}
        """What the log says of the request."""
        self.start = time.monotonic()
        self._places, self._budget, self._timeout = places, budget, timeout
        self._bytes = 0
        self._leave: Callable[[], None] = lambda: None
        self._work: asyncio.Task[Any] | None = None

    @staticmethod
    def of(request: Request) -> Visit:
        """Return the visit of a request."""
        return cast(Visit, request.scope[_KEY])

    def enter(self, scope: Scope) -> None:
        """Make `of` find this visit."""
        scope[_KEY] = self

    def hold_bytes(self, number: int) -> None:
        """Count bytes that the client has sent, until the end of the visit.

        Raises:
            Problem: All requests together have too many. This one gives its bytes back at once, so that of
                many that arrive at the same pace some are received whole, instead of all being refused.
        """
        try:
            self._budget.take(number)
        except Problem:
            self._budget.give_back(self._bytes)
            self._bytes = 0
            raise
        self._bytes += number
        self.facts["bytes"] = self._bytes

    async def work(self, receive: Receive, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Take a place and do the work, unless the client leaves or the time is over.

        Args:
            receive: The function that tells that the client has left; the body has been received.
            work: A function that returns the work as a coroutine, which is cancelled if nobody needs it.

        Raises:
            Problem: There is no place, or the time is over.
            ClientDisconnect: The client has left.
        """
        self._leave = self._places.take()
        task: asyncio.Task[T] = asyncio.ensure_future(work())
        self._work = task
        leaving = asyncio.ensure_future(_wait_for_leaving(receive))
        left = self.start + self._timeout - time.monotonic()
        try:
            await asyncio.wait({task, leaving}, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not task.done():
                task.cancel()
        if task.done():
            return task.result()
        if leaving.done() and not leaving.cancelled():
            raise ClientDisconnect
        raise Problem(
            504,
            "timed_out",
            f"the answer was not ready after {self._timeout:.0f} seconds; try again later",
        )

    def end(self) -> None:
        """Give everything back, as soon as no thread works for this visit any more."""
        if self._work is None or self._work.done():
            self._give_back()
        else:
            self._work.add_done_callback(lambda task: self._give_back())

    def _give_back(self) -> None:
        if self._work is not None and not self._work.cancelled():
            self._work.exception()  # nobody else looks at it if the client has left
        self._leave()
        self._budget.give_back(self._bytes)
        self._bytes = 0


async def _wait_for_leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
