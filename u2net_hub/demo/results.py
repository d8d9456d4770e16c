"""Bound what Gradio remembers of results and uploads, and know which results there are."""

from __future__ import annotations

from asyncio import Event, Queue as AsyncQueue
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gradio import routes
from gradio.utils import LRUCache

if TYPE_CHECKING:
    import gradio as gr

    from .visitors import Presence

UPLOADS_FOLLOWED = 200
"""Largest number of uploads whose progress Gradio keeps."""


class ResultQueues(LRUCache):  # type: ignore[type-arg]
    """The results of each session that wait to be read, in place of Gradio's, which keeps those of 2,000.

    If there are too many, those of the oldest session that nobody listens for are dropped, and with them the
    ids of its events, which Gradio keeps for good.

    Args:
        presence: Knows which sessions listen.
        most: Number of sessions to keep.
    """

    def __init__(self, presence: Presence, most: int) -> None:
        super().__init__(most)
        self.events = EventIds()
        """The ids of the events of each session."""
        self._presence = presence

    def __setitem__(self, session: str, queue: Any) -> None:
        if session not in self and len(self) >= self.max_size:
            left = next((each for each in self if not self._presence.listens(each)), None)
            del self[next(iter(self)) if left is None else left]
        super().__setitem__(session, queue)

    def __delitem__(self, session: str) -> None:
        """Drop a session. One that is not there was dropped before, or has two readers that both left."""
        self.events.pop(session, None)
        if session in self:
            super().__delitem__(session)

    def __missing__(self, session: str) -> AsyncQueue[Any]:
        """What is still sent to a session whose results were dropped goes nowhere."""
        return AsyncQueue()


class EventIds(dict[str, set[str]]):
    """The ids of the events of each session, in place of Gradio's."""

    def __missing__(self, session: str) -> set[str]:
        return set()


class Newest(LRUCache):  # type: ignore[type-arg]
    """The signals of the newest uploads, in place of Gradio's, which keeps those of all."""

    def __missing__(self, upload: str) -> Event:
        self[upload] = Event()
        return self[upload]  # type: ignore[no-any-return]


class Nothing(set[str]):
    """The names of all files that there ever were, which Gradio keeps for a deletion that is switched off."""

    def add(self, path: str) -> None:
        """Keep nothing."""

    def update(self, *paths: Iterable[str]) -> None:
        """Keep nothing."""


class Results:
    """Bound what Gradio keeps for a page, and know which results can be read.

    Args:
        blocks: The page.
        presence: Knows which sessions listen.
        most: Largest number of sessions whose results wait to be read.
    """

    def __init__(self, blocks: gr.Blocks, presence: Presence, most: int) -> None:
        self._queue = queue = blocks._queue
        blocks.upload_file_set = Nothing()
        for block in blocks.blocks.values():
            block.temp_files = Nothing()
        blocks.temp_file_sets = []
        waiting = ResultQueues(presence, most)
        queue.pending_messages_per_session = waiting
        queue.pending_event_ids_session = waiting.events
        routes.file_upload_statuses._statuses = LRUCache(UPLOADS_FOLLOWED)
        routes.file_upload_statuses._signals = Newest(UPLOADS_FOLLOWED)  # type: ignore[assignment]

    def session_of(self, event: str) -> str:
        """The session of an event, as Gradio finds it: an event of the API is a session of its own."""
        known = self._queue.event_ids_to_events.get(event)
        if known is not None:
            return str(known.session_hash)
        of = self._queue.pending_event_ids_session
        return next((session for session, events in of.items() if event in events), event)

    def __contains__(self, session: str) -> bool:
        return session in self._queue.pending_messages_per_session
