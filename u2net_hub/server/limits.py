"""How much the server works on at the same time: requests, bytes that were sent, and pixels."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from .problems import Problem, queue_is_full

Report = Callable[[float], object]


class Places:
    """A fixed number of places for requests.

    Args:
        places: The number of places.
        report: A function that is called with the number of taken places when it changes.
    """

    def __init__(self, places: int, report: Report = lambda taken: None) -> None:
        self._places, self._report, self._taken = places, report, 0

    def check(self) -> None:
        """Raise `Problem` with status 503 if all places are taken."""
        if self._taken >= self._places:
            raise queue_is_full(self._places)

    def take(self) -> Callable[[], None]:
        """Take a place, and return the function that gives it back.

        Raises:
            Problem: All places are taken.
        """
        self.check()
        self._taken += 1
        self._report(self._taken)
        is_taken = True

        def give_back() -> None:
            nonlocal is_taken
            if is_taken:
                is_taken = False
                self._taken -= 1
                self._report(self._taken)

        return give_back


class ByteBudget:
    """The bytes of all requests that are being received.

    Args:
        total: The largest number of bytes.
    """

    def __init__(self, total: int) -> None:
        self._left = total

    def take(self, number: int) -> None:
        """Count bytes that were received.

        Raises:
            Problem: The requests would take too much memory.
        """
        if number > self._left:
            raise Problem(
                503,
                "too_many_uploads",
                "too many large requests are being received; try again later",
                headers={"Retry-After": "2", "Connection": "close"},
            )
        self._left -= number

    def give_back(self, number: int) -> None:
        """Count bytes that are no longer in memory."""
        self._left += number


class PixelBudget:
    """The pixels of all photos in memory. Requests wait in their order; one photo alone may exceed the total.

    Args:
        total: The number of pixels.
        report: A function that is called with the number of taken pixels when it changes.
    """

    def __init__(self, total: int, report: Report = lambda taken: None) -> None:
        self._total, self._report, self._taken = total, report, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        """Wait until a photo fits, and hold its pixels while the context lasts."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, turn))
        self._admit()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._taken -= pixels
                self._report(self._taken)
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            pixels, turn = self._waiting[0]
            if not turn.done():
                if self._taken and self._taken + pixels > self._total:
                    return
                self._taken += pixels
                self._report(self._taken)
                turn.set_result(None)
            self._waiting.popleft()
