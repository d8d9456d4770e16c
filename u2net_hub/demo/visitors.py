"""Share the machine fairly among visitors: limits for each, turns for all, and no work for those who left."""

from __future__ import annotations

import ipaddress
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Condition, Lock
from typing import NamedTuple

SESSION_JOBS = 4
"""Most jobs of one session (one open page, or one call of a program) at the same time."""
ADDRESS_JOBS = 12
"""Most jobs of one address at the same time. Several people can share an address."""
ALL_JOBS = 32
"""Most jobs of all visitors. It is below Gradio's 40 threads, so that a refusal is answered at once."""
ADDRESS_PIXELS = 400_000_000
"""Most pixels that wait for one address: 30 photos of 12 megapixels fit."""
GRACE_SECONDS = 5.0
"""Seconds for which a job is done although nobody listens for its result."""


class VisitorLeftError(Exception):
    """The visitor who asked for a job has left."""


class Visitor(NamedTuple):
    """Who asks for a job. Work outside of a request belongs to `Visitor()`, who never leaves."""

    address: str = ""
    session: str = ""


class Presence:
    """Know which sessions listen for their results. The server and the threads of the jobs share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._listening: Counter[str] = Counter()
        self._left: dict[str, float] = {}

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        """Mark a session as listening while the context lasts."""
        with self._lock:
            self._listening[session] += 1
        try:
            yield
        finally:
            with self._lock:
                self._listening[session] -= 1
                if not self._listening[session]:
                    del self._listening[session]
                now = time.monotonic()
                self._left[session] = now
                for old in [each for each, then in self._left.items() if now - then > GRACE_SECONDS]:
                    del self._left[old]

    def listens(self, session: str) -> bool:
        """Whether somebody listens for the results of a session now."""
        with self._lock:
            return session in self._listening

    def away(self, session: str, since: float) -> bool:
        """Whether nobody has listened for a session for longer than `GRACE_SECONDS`.

        Args:
            session: The session.
            since: When the session asked for its job, in seconds of `time.monotonic`.
        """
        with self._lock:
            if not session or session in self._listening:
                return False
            return time.monotonic() - max(since, self._left.get(session, since)) > GRACE_SECONDS


class Turns:
    """Let one job work at a time, and each address in its turn, so that nobody waits for all jobs of another.

    Args:
        presence: Knows who listens for the results.
    """

    def __init__(self, presence: Presence | None = None) -> None:
        self.presence = presence or Presence()
        self._changed = Condition()
        self._jobs: list[Job] = []
        self._waiting: list[Job] = []
        self._working = False
        self._count = 0
        self._last: dict[str, int] = {}
        """The number of the last turn of each address and of each session that has a job."""

    @contextmanager
    def job(self, visitor: Visitor, pixels: int = 0) -> Iterator[Job]:
        """Admit a job of a visitor while the context lasts.

        Args:
            visitor: Who asks for the job.
            pixels: Pixels of the photos of the job.

        Raises:
            ValueError: Too many jobs or pixels wait already.
        """
        job = Job(self, visitor, pixels)
        with self._changed:
            self._check(job)
            self._jobs.append(job)
        try:
            yield job
        finally:
            with self._changed:
                self._jobs.remove(job)
                present = {name for each in self._jobs for name in each.keys}
                self._last = {name: turn for name, turn in self._last.items() if name in present}

    def _check(self, job: Job) -> None:
        """Raise ValueError if a job is one too many."""
        same_address = [each for each in self._jobs if each.visitor.address == job.visitor.address]
        same_session = [each for each in same_address if each.visitor.session == job.visitor.session]
        if len(self._jobs) >= ALL_JOBS:
            raise ValueError("too many visitors are here at the moment; try again in a minute")
        if len(same_session) >= SESSION_JOBS or len(same_address) >= ADDRESS_JOBS:
            most = SESSION_JOBS if len(same_session) >= SESSION_JOBS else ADDRESS_JOBS
            raise ValueError(f"{most} of your requests are waiting already; send the next one after these")
        waiting = sum(each.pixels for each in same_address)
        if waiting + job.pixels > ADDRESS_PIXELS:
            raise ValueError(
                f"these photos have {job.pixels / 1e6:,.0f} megapixels, and {waiting / 1e6:,.0f} of yours "
                f"are waiting already, expected at most {ADDRESS_PIXELS // 1_000_000} together; send fewer"
            )

    def _next(self) -> Job:
        """The waiting job whose address, and within it whose session, had its last turn longest ago."""
        return min(self._waiting, key=lambda job: tuple(self._last.get(key, -1) for key in job.keys))


class Job:
    """A job that was admitted. Its steps are done in turns."""

    def __init__(self, turns: Turns, visitor: Visitor, pixels: int) -> None:
        self.visitor = visitor
        self.pixels = pixels
        self.keys = (f"address {visitor.address}", f"session {visitor.address} {visitor.session}")
        self._turns = turns
        self._start = time.monotonic()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for this job's turn, and keep it while the context lasts.

        Raises:
            VisitorLeftError: Nobody listens for the result any more.
        """
        turns = self._turns
        with turns._changed:
            turns._waiting.append(self)
            try:
                while True:
                    if turns.presence.away(self.visitor.session, self._start):
                        raise VisitorLeftError(self.visitor.session)
                    if not turns._working and turns._next() is self:
                        break
                    turns._changed.wait(1.0)
                turns._working = True
                turns._count += 1
                turns._last.update(dict.fromkeys(self.keys, turns._count))
            finally:
                turns._waiting.remove(self)
                turns._changed.notify_all()
        try:
            yield
        finally:
            with turns._changed:
                turns._working = False
                turns._changed.notify_all()


def address_of(peer: str | None, headers: Mapping[str, str]) -> str:
    """Find the address of a visitor.

    On a Space every request comes from a proxy of the Hub, which appends the visitor's address to the header
    X-Forwarded-For; what stands before it may have been invented by the visitor. Elsewhere uvicorn reads the
    header, from proxies that it trusts.

    Args:
        peer: The address that uvicorn gives.
        headers: The headers of the request.
    """
    if os.environ.get("SPACE_ID"):
        lines = getattr(headers, "getlist", lambda name: [headers.get(name, "")])("x-forwarded-for")
        for hop in reversed(",".join(lines).split(",")):
            try:
                address = ipaddress.ip_address(hop.strip())
            except ValueError:
                continue
            if address.is_global:
                return _network(address)
    try:
        return _network(ipaddress.ip_address(peer or ""))
    except ValueError:
        return peer or ""


def _network(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The part of an address that one visitor cannot change: of IPv6 the first 64 bits."""
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def current_visitor() -> Visitor:
    """The visitor whose event Gradio runs in this thread."""
    from gradio.context import LocalContext

    request = LocalContext.request.get(None)
    if request is None:
        return Visitor()
    client = getattr(request, "client", None)
    return Visitor(address_of(client and client.host, request.headers), request.session_hash or "")
