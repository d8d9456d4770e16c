"""Stop a run gently on Ctrl-C or a kill."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


logger = logging.getLogger(__name__)


@contextmanager
def stop_gently() -> Iterator[list[int]]:
    """Turn the first Ctrl-C or SIGTERM into an entry of the list; the second one acts as ever."""
    asked: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, before[number])
        logger.warning("stopping after this step; a checkpoint will be written")

    for wanted in (signal.SIGINT, signal.SIGTERM):
        before[wanted] = signal.signal(wanted, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
