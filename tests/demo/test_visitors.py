"""Visitors take turns, within limits, and nothing is done for those who left."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

pytest.importorskip("gradio")

from u2net_hub.demo import visitors as visitors_module
from u2net_hub.demo.visitors import (
    ADDRESS_JOBS,
    ADDRESS_PIXELS,
    ALL_JOBS,
    SESSION_JOBS,
    Presence,
    Turns,
    Visitor,
    VisitorLeftError,
    address_of,
)


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(visitors_module, "time", clock)
    return clock


def queued(turns: Turns, visitors: list[Visitor]) -> list[Visitor]:
    """The order in which jobs get their turns that came, in this order, while another one worked."""
    order: list[Visitor] = []

    def work(visitor: Visitor) -> None:
        with turns.job(visitor) as job, job.turn():
            order.append(visitor)

    threads = []
    with turns.job(Visitor("first", "first")) as job, job.turn():
        for i, visitor in enumerate(visitors):
            threads.append(threading.Thread(target=work, args=(visitor,)))
            threads[-1].start()
            while len(turns._waiting) <= i:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join(timeout=30)
    return order


def test_another_visitor_does_not_wait_for_all_jobs_of_one() -> None:
    flood = [Visitor("flood", str(i)) for i in range(5)]
    guest = Visitor("guest", "x")
    order = queued(Turns(), [*flood, guest, guest])
    assert order.index(guest) == 1
    assert order[3] == guest


def test_sessions_of_one_address_take_turns_too() -> None:
    one, other = Visitor("home", "one"), Visitor("home", "other")
    assert queued(Turns(), [one, one, one, other]) == [one, other, one, one]


def test_only_one_job_works_at_a_time() -> None:
    turns = Turns()
    with turns.job(Visitor("a", "a")) as job, job.turn():
        other = threading.Thread(target=queued, args=(Turns(), []))
        other.start()
        other.join()
        assert turns._working
    assert not turns._working
    assert turns._last == {}  # nothing is kept of those who left


@pytest.mark.parametrize(
    ("count", "who"),
    [
        (SESSION_JOBS, lambda i: Visitor("a", "s")),
        (ADDRESS_JOBS, lambda i: Visitor("a", str(i))),
        (ALL_JOBS, lambda i: Visitor(str(i), "s")),
    ],
)
def test_one_job_too_many_is_refused_at_once(count: int, who: object) -> None:
    turns = Turns()
    with ExitStack() as stack:
        for i in range(count):
            stack.enter_context(turns.job(who(i)))  # type: ignore[operator]
        with pytest.raises(ValueError, match=r"waiting already|too many visitors"):
            stack.enter_context(turns.job(who(count)))  # type: ignore[operator]
    with turns.job(who(0)):  # type: ignore[operator]
        pass


def test_the_pixels_that_wait_for_an_address_have_a_limit() -> None:
    turns = Turns()
    with turns.job(Visitor("a", "1"), ADDRESS_PIXELS - 5):
        said = "400 of yours are waiting already, expected at most 400"
        with pytest.raises(ValueError, match=said), turns.job(Visitor("a", "2"), 6):
            pass
        with turns.job(Visitor("b", "2"), 6), turns.job(Visitor("a", "2"), 5):
            pass


def test_a_job_of_a_visitor_who_left_is_dropped(clock: Clock) -> None:
    turns = Turns()
    with turns.job(Visitor("a", "s")) as job:
        with turns.presence.listening("s"):
            clock.now += 100
            with job.turn():
                pass
        clock.now += 4
        with job.turn():  # perhaps the next stream is on its way
            pass
        clock.now += 2
        with pytest.raises(VisitorLeftError), job.turn():
            pass
    assert not turns._waiting


def test_a_job_that_nobody_ever_listened_for_is_dropped(clock: Clock) -> None:
    turns = Turns()
    with turns.job(Visitor("a", "s")) as job:
        clock.now += 6
        with pytest.raises(VisitorLeftError), job.turn():
            pass


def test_who_left_is_not_remembered_for_long(clock: Clock) -> None:
    presence = Presence()
    for i in range(100):
        with presence.listening(str(i)):
            clock.now += 1
    assert len(presence._left) <= 6
    assert not presence._listening


@pytest.mark.parametrize(
    ("forwarded", "space", "expected"),
    [
        ("1.1.1.1", False, "9.9.9.9"),
        ("1.1.1.1", True, "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1, 10.0.3.4", True, "1.1.1.1"),  # the first one is what the visitor wrote
        ("nonsense", True, "9.9.9.9"),
        ("", True, "9.9.9.9"),
        ("2a00:1450:4001:80b::200e", True, "2a00:1450:4001:80b::/64"),
    ],
)
def test_the_address_of_a_visitor_is_one_that_a_proxy_wrote(
    monkeypatch: pytest.MonkeyPatch, forwarded: str, space: bool, expected: str
) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    if space:
        monkeypatch.setenv("SPACE_ID", "org/demo")
    assert address_of("9.9.9.9", {"x-forwarded-for": forwarded}) == expected
