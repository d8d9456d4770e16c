"""Starts and ends the servers that `measure.py` measures, and watches their memory."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from u2net_hub.benchmarks.commands import children_environment


@dataclass(frozen=True)
class Server:
    """A server to measure: the words that start it, and where photos go."""

    name: str
    words: tuple[str, ...]
    path: str = "/api/remove"
    fields: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    pipeline: dict[str, Any] | None = None
    """The options of the pipeline that makes the expected answers; None for a peer."""


class Running:
    """A server that has started, with the memory of its processes."""

    def __init__(self, server: Server, process: subprocess.Popen[bytes], port: int) -> None:
        self.server, self.port = server, port
        self._process = psutil.Process(process.pid)
        self.peak = 0.0

    def resident(self) -> float:
        """Resident memory of the process and all processes under it, in MB."""
        total = 0
        for each in (self._process, *self._process.children(recursive=True)):
            try:
                total += each.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self.peak = max(self.peak, total / 1e6)
        return total / 1e6

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep the peak up to date meanwhile."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.05):
                self.resident()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def running(server: Server, log: Path, seconds: float = 120) -> Iterator[Running]:
    """Start a server, wait until it listens, and end it afterwards.

    Raises:
        RuntimeError: The server ended, or does not listen in time.
    """
    port = free_port()
    words = [word.replace("PORT", str(port)) for word in server.words]
    with log.open("ab") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env=children_environment(server.env))
    try:
        until = time.monotonic() + seconds
        while not answers(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{server.name} did not start, see {log}")
            time.sleep(0.1)
        yield Running(server, process, port)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        link.request("GET", "/readyz")
        return link.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()
