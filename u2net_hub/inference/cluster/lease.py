"""A lease on a destination, so that two runs do not write to it at the same time."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

from filelock import FileLock, Timeout

from .remote_files import is_url, join, read_bytes, remove, write_bytes

LEASE, _LOCK = "_lease.json", "_lock"
_RENEWED_EVERY = 20.0  # seconds
_VALID_FOR = 120.0  # seconds; long enough for a bucket that answers slowly


class Lease:
    """Holds a destination for one run. In a local folder a lock holds it, in a bucket an object with a date.

    The lock of a process that dies is free at once. The object of a process that died on another machine is
    valid for two minutes.

    Args:
        folder: The folder of the manifest, which is made if it is missing.
        run: The name of the run.

    Raises:
        FileExistsError: Another run holds the destination.
        OSError: The destination cannot be written to.
    """

    def __init__(self, folder: str, run: str) -> None:
        self._folder, self._run = folder, run
        self._address = join(folder, LEASE)
        self._lock: FileLock | None = None
        self._stop = threading.Event()
        self.is_lost = False
        """Whether another run has taken the destination, because this one did not renew its lease."""
        if is_url(folder):
            self._take_object()
            threading.Thread(target=self._renew, name="u2net-lease", daemon=True).start()
        else:
            self._take_lock()
            write_bytes(self._address, self._content())

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if not self.is_lost:
            remove(self._address)
        if self._lock is not None:
            self._remove_if_unused()
            self._lock.release()

    def _take_lock(self) -> None:
        os.makedirs(self._folder, exist_ok=True)
        self._lock = FileLock(join(self._folder, _LOCK))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as e:
            raise self._held(_read(self._address)) from e

    def _remove_if_unused(self) -> None:
        """Remove the folders that were made for the lock, if the run wrote nothing else."""
        if os.listdir(self._folder) == [_LOCK]:
            os.unlink(join(self._folder, _LOCK))
            with suppress(OSError):
                os.rmdir(self._folder)
                os.rmdir(os.path.dirname(self._folder))

    def _take_object(self) -> None:
        try:
            write_bytes(self._address, self._content(), exclusive=True)
            return
        except FileExistsError:
            holder = _read(self._address)
        age = time.time() - float(str(holder.get("time") or 0))
        ended = holder.get("host") == socket.gethostname() and not _is_running(holder.get("pid"))
        if age < _VALID_FOR and not ended:
            raise self._held(holder, _VALID_FOR - age)
        remove(self._address)
        try:
            write_bytes(self._address, self._content(), exclusive=True)
        except FileExistsError as e:
            raise self._held(_read(self._address)) from e

    def _held(self, holder: dict[str, object], seconds: float | None = None) -> FileExistsError:
        wait = "" if seconds is None else f"; if that run has ended, try again in {seconds:.0f} seconds"
        who = f"process {holder.get('pid')} on {holder.get('host')}"
        return FileExistsError(f"another run writes to {self._folder} ({who}){wait}")

    def _content(self) -> bytes:
        about = {"run": self._run, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        return json.dumps(about).encode()

    def _renew(self) -> None:
        while not self._stop.wait(_RENEWED_EVERY):
            try:
                if not holds_lease(self._folder, self._run):
                    self.is_lost = True
                    return
                if not self._stop.is_set():
                    write_bytes(self._address, self._content())
            except OSError:
                continue  # the bucket may answer the next time


def holds_lease(folder: str, run: str) -> bool:
    """Tell whether a run holds the lease on a destination, as this machine sees it."""
    return _read(join(folder, LEASE)).get("run") == run


def _read(address: str) -> dict[str, object]:
    try:
        content = json.loads(read_bytes(address))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_running(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        return True
    return True
