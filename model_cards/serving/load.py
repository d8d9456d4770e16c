"""Sends photos to a server from many clients at once, in a process of its own: one job in, one report out.

The job is JSON on standard input, the report JSON on standard output; `measure.py` writes the one and reads
the other. The process must take little of the processor that the server needs: only the standard library is
imported, all requests are made before the clock starts, and answers are only hashed and kept.

A job holds "host", "port", "path", "field" (of the file), "fields" (other fields of the form), "photos"
(paths), "order" (indices into photos, one for each request), "clients", "leave" and "broken" (shares of the
requests), "seed", "answers" (a folder for each distinct answer) and "timeout" (seconds).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

LEAVES = ("with half of the photo sent", "with the whole photo sent", "in the middle of the answer")
BREAKS = ("cut off", "text", "empty", "bytes of the middle overwritten at the front")


def make_form(job: dict[str, Any], name: str, photo: bytes) -> tuple[bytes, dict[str, str]]:
    """Make the body of a form with one file as curl and requests send it, and its headers."""
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in job["fields"].items()
    ]
    head = f'--{mark}\r\nContent-Disposition: form-data; name="{job["field"]}"; filename="{name}"\r\n'
    parts += [head.encode(), b"Content-Type: image/jpeg\r\n\r\n", photo, f"\r\n--{mark}--\r\n".encode()]
    return b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={mark}"}


def break_photo(photo: bytes, how: str) -> bytes:
    """Make a file of a photo that cannot be decoded."""
    if how == "cut off":
        return photo[: len(photo) // 3]
    if how == "text":
        return b"This is a text, whatever its name says.\n" * 40
    return b"" if how == "empty" else photo[len(photo) // 2 :]


class Load:
    """The clients of one job, and what became of their requests."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.photos = [Path(path).read_bytes() for path in job["photos"]]
        self.forms = [
            make_form(job, Path(path).name, data)
            for path, data in zip(job["photos"], self.photos, strict=True)
        ]
        rng = random.Random(job["seed"])
        self.plan = [(i, rng.random(), rng.random()) for i in job["order"]]
        self.next = iter(self.plan)
        self.lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.answers: dict[tuple[int, str], int] = {}
        self.folder = Path(job["answers"])

    def run(self) -> dict[str, Any]:
        threads = [threading.Thread(target=self.be_client) for _ in range(self.job["clients"])]
        begin, processor = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begin
        return {
            "seconds": seconds,
            "processor_share": (time.process_time() - processor) / seconds,
            "latencies": self.seconds,
            "outcomes": dict(self.outcomes),
            "failures": self.failures[:20],
            "answers": [[i, name, n] for (i, name), n in self.answers.items()],
        }

    def be_client(self) -> None:
        """Ask until nothing is left to ask, on one connection as long as the server keeps it."""
        link = http.client.HTTPConnection(self.job["host"], self.job["port"], timeout=self.job["timeout"])
        while True:
            with self.lock:
                turn = next(self.next, None)
            if turn is None:
                return link.close()
            index, fate, kind = turn
            try:
                if fate < self.job["leave"]:
                    outcome = self.leave(link, index, LEAVES[int(kind * len(LEAVES))])
                elif fate < self.job["leave"] + self.job["broken"]:
                    outcome = self.send_broken(link, index, BREAKS[int(kind * len(BREAKS))])
                else:
                    outcome = self.ask(link, index)
            except (OSError, http.client.HTTPException) as e:
                link.close()
                outcome = "lost"
                with self.lock:
                    self.failures.append(f"photo {index}: {type(e).__name__}: {e}")
            with self.lock:
                self.outcomes[outcome] += 1

    def post(self, link: http.client.HTTPConnection, body: bytes, head: dict[str, str]) -> tuple[int, bytes]:
        """Send a request and read the answer, once more if the server closed the kept connection."""
        reused = link.sock is not None
        try:
            link.request("POST", self.job["path"], body, head)
            answer = link.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            link.close()
            if not reused:
                raise
            with self.lock:
                self.outcomes["connections opened again"] += 1
            link.request("POST", self.job["path"], body, head)
            answer = link.getresponse()
        return answer.status, answer.read()

    def ask(self, link: http.client.HTTPConnection, index: int) -> str:
        begin = time.perf_counter()
        status, body = self.post(link, *self.forms[index])
        seconds = time.perf_counter() - begin
        if status == 503:
            time.sleep(0.2)
            return "refused, queue full"
        if status != 200:
            with self.lock:
                self.failures.append(f"photo {index}: {status} {body[:200]!r}")
            return "lost"
        name = hashlib.sha256(body).hexdigest()
        with self.lock:
            self.seconds.append(seconds)
            new = (index, name) not in self.answers
            self.answers[index, name] = self.answers.get((index, name), 0) + 1
        if new:
            (self.folder / name).write_bytes(body)
        return "answered"

    def send_broken(self, link: http.client.HTTPConnection, index: int, how: str) -> str:
        form = make_form(self.job, f"{index}.jpg", break_photo(self.photos[index], how))
        status, body = self.post(link, *form)
        if 400 <= status < 500:
            try:
                json.loads(body)
            except ValueError:
                status = 0
        if not 400 <= status < 500:
            with self.lock:
                self.failures.append(f"broken file ({how}): {status} {body[:200]!r}")
            return "broken file, not refused"
        return "broken file, refused"

    def leave(self, link: http.client.HTTPConnection, index: int, when: str) -> str:
        """Close the connection in the middle of a request, with a reset where the system sends one."""
        body, head = self.forms[index]
        link.close()
        link.connect()
        link.putrequest("POST", self.job["path"])
        for key, value in {**head, "Content-Length": str(len(body))}.items():
            link.putheader(key, value)
        link.endheaders()
        link.send(body[: len(body) // 2] if when == LEAVES[0] else body)
        if when == LEAVES[1]:
            time.sleep(0.05)
        if when == LEAVES[2]:
            link.sock.recv(64)
        link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        link.close()
        return "left"


if __name__ == "__main__":
    json.dump(Load(json.load(sys.stdin)).run(), sys.stdout)
