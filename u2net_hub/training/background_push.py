"""Push the folders of a training run to the Hub in a background thread."""

from __future__ import annotations

import logging
import shlex
import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ..hub import (
    FILES,
    ScratchFolder,
    check_repo_id,
    check_revision,
    push_folder,
    redact,
)

logger = logging.getLogger(__name__)


class _Job(NamedTuple):
    """A copy of a folder that waits to be pushed."""

    folder: Path
    """The folder that was copied."""
    copy: ScratchFolder
    """The copy, which is pushed."""
    message: str
    """The commit message."""


class BackgroundPusher:
    """Pushes folders to a branch of a Hub repository from a separate thread.

    Failures are logged and do not stop the run. During a push, only the newest folder waits for the next one.

    Args:
        repo_id: The repository, "org/name".
        branch: The branch that `push` pushes to. `finish` pushes to main.
        private: Whether a new repository is private. None leaves that to the account.
        token: A token with write permission. None uses the one stored by `hf auth login`.

    Raises:
        ValueError: `repo_id` or `branch` is not a valid name.
    """

    def __init__(
        self, repo_id: str, *, branch: str, private: bool | None = None, token: str | bool | None = None
    ) -> None:
        check_repo_id(repo_id)
        self.repo_id = repo_id
        self.branch = check_revision(branch)
        self._private = private
        self._token = token
        self._changed = threading.Condition()
        self._waiting: _Job | None = None
        self._failed: _Job | None = None
        self._busy = self._closed = False
        threading.Thread(target=self._work, name="u2net-hub push", daemon=True).start()

    def push(self, folder: str | Path, commit_message: str) -> None:
        """Copy a folder and push the copy in the background."""
        try:
            job = _copy(Path(folder), commit_message)
        except OSError as e:
            logger.warning("%s cannot be copied and is not pushed to %s: %s", folder, self.repo_id, e)
            return
        with self._changed:
            self._drop(self._waiting)
            self._waiting = job
            self._changed.notify_all()

    def finish(
        self,
        folder: str | Path | None = None,
        commit_message: str | None = None,
        *,
        tag: str | None = None,
        timeout: float = 900.0,
    ) -> list[str]:
        """Wait for the current push, repeat the last push if it failed, and push the result to main.

        Args:
            folder: The folder to push to main. None pushes nothing.
            commit_message: The message of the commit on main.
            tag: A tag for the commit on main.
            timeout: The time to wait for the thread, in seconds.

        Returns:
            A message for each folder that is not on the Hub, with the command that pushes it by hand.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and self._waiting is None, timeout)
            stuck, self._closed = self._busy, True
            job = self._waiting or self._failed
            self._waiting = self._failed = None
            self._changed.notify_all()
        unpushed = []
        if job is not None:
            reason = (
                "the Hub does not answer" if stuck else self._push(job.copy.name, job.message, self.branch)
            )
            if reason is not None:
                unpushed.append(self._by_hand(job.folder, self.branch, reason))
            self._drop(job)
        if folder is not None:
            reason = self._push(folder, commit_message, None, tag)
            if reason is not None:
                unpushed.append(self._by_hand(Path(folder), None, reason))
        for line in unpushed:
            logger.error("%s", line)
        return unpushed

    def __enter__(self) -> BackgroundPusher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._closed:
            self.finish(timeout=60.0 if error is None else 0.0)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                job, self._waiting = self._waiting, None
                if job is None:
                    return
                self._busy = True
            reason = self._push(job.copy.name, job.message, self.branch)
            if reason is not None:
                logger.warning("%s was not pushed. The run goes on. %s", job.folder, reason)
            with self._changed:
                self._busy = False
                self._drop(self._failed)
                self._failed = job if reason is not None else None
                if reason is None:
                    self._drop(job)
                self._changed.notify_all()

    def _push(
        self, folder: str | Path, message: str | None, branch: str | None, tag: str | None = None
    ) -> str | None:
        """Push a folder. Return the reason if that fails, otherwise None."""
        try:
            push_folder(
                folder,
                self.repo_id,
                commit_message=message,
                private=self._private,
                branch=branch,
                tag=tag,
                token=self._token,
            )
        except (OSError, ValueError, RuntimeError) as e:
            return redact(" ".join(str(e).split()))
        return None

    def _by_hand(self, folder: Path, branch: str | None, reason: str) -> str:
        command = [
            "u2net",
            "push",
            "--model",
            str(folder),
            self.repo_id,
            *(["--branch", branch] if branch else []),
        ]
        return f"{folder} is not on the Hub ({reason}); push it by hand with: {shlex.join(command)}"

    @staticmethod
    def _drop(job: _Job | None) -> None:
        if job is not None:
            job.copy.cleanup()


def _copy(folder: Path, message: str) -> _Job:
    copy = ScratchFolder()
    try:
        for name in FILES:
            if (folder / name).is_file():
                shutil.copy2(folder / name, copy.name)
    except OSError:
        copy.cleanup()
        raise
    return _Job(folder, copy, message)
