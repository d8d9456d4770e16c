"""What Gradio remembers of results stays within bounds."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("gradio", reason="the extra 'space' is not installed")

import gradio as gr
from gradio import routes

from u2net_hub.demo.results import UPLOADS_FOLLOWED, ResultQueues, Results
from u2net_hub.demo.visitors import Presence


def test_results_that_nobody_reads_make_room_for_those_of_others() -> None:
    presence = Presence()
    queues = ResultQueues(presence, 2)
    with presence.listening("first"):
        for session in ("first", "second", "third"):
            queues[session] = session
        assert list(queues) == ["first", "third"]
        queues["second"].put_nowait("a result that comes too late")
    queues["fourth"] = "fourth"
    assert list(queues) == ["third", "fourth"]


def test_with_the_results_of_a_session_the_ids_of_its_events_go() -> None:
    queues = ResultQueues(Presence(), 1)
    for session in ("first", "second"):
        queues[session] = session
        queues.events[session] = {"an id"}
    assert list(queues.events) == ["second"]
    assert not queues.events["first"]


def test_the_second_reader_of_a_session_can_leave_too() -> None:
    queues = ResultQueues(Presence(), 1)
    queues["first"] = "first"
    for _ in range(2):
        del queues["first"]
    assert not queues


@pytest.fixture(scope="module")
def page() -> gr.Blocks:
    with gr.Blocks() as blocks:
        gr.File()
    return blocks.queue()


def test_results_are_known_by_their_session_and_by_their_event(page: gr.Blocks) -> None:
    results = Results(page, Presence(), 10)
    page._queue.pending_messages_per_session["session"] = asyncio.Queue()
    page._queue.pending_event_ids_session["session"] = {"event"}
    assert "session" in results
    assert results.session_of("event") == "session"
    assert results.session_of("other") not in results


def test_names_of_files_are_not_kept_for_a_deletion_that_is_switched_off(page: gr.Blocks) -> None:
    Results(page, Presence(), 10)
    page.upload_file_set.update(["/tmp/a.jpg"])
    for block in page.blocks.values():
        block.temp_files.add("/tmp/a.jpg")
    assert not page.upload_file_set
    assert not any(block.temp_files for block in page.blocks.values())


def test_the_progress_of_few_uploads_is_kept(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = type(routes.file_upload_statuses)()
    monkeypatch.setattr(routes, "file_upload_statuses", progress)
    Results(page, Presence(), 10)
    for number in range(UPLOADS_FOLLOWED + 5):
        progress.track(str(number))
    assert len(progress._statuses) == len(progress._signals) == UPLOADS_FOLLOWED
    assert progress._signals[str(UPLOADS_FOLLOWED)].is_set()
