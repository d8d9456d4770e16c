"""Stop a run gently on Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


@contextmanager
def stop_gently(command: str | None) -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM in a list; the second one stops the process as usual.

    Only the main thread can handle signals. In other threads the list stays empty.

    Args:
        command: The command that continues the run. It is shown when the first signal arrives; None shows
            nothing.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[int, Callable[[int, FrameType | None], object] | int] = {}

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, before[number])
        if command is not None:
            logger.warning(
                "The run stops after this step and writes a checkpoint. To go on later: %s "
                "(to stop at once, and lose the steps since the last checkpoint: Ctrl-C again)",
                command,
            )

    for wanted in (signal.SIGINT, signal.SIGTERM):
        handler = signal.signal(wanted, ask)
        # a handler that was not installed by Python cannot be put back
        before[wanted] = signal.SIG_DFL if handler is None else handler
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
