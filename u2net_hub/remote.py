"""The Hub as this library calls it: retries, errors with a remedy, and files compared with the Hub's hashes.

The client checks the size of what it downloads, never the content, and hides some failures behind others. So
everything that is asked of the Hub goes through `call`, and every file through `Snapshot.path`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, errors, get_session
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's own
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented all the same

from . import __version__
from .config import LIBRARY_NAME

logger = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 4
"""How often a request is tried."""
LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more is not waited for."""
PATIENCE = 100.0
"""Seconds without a byte after which a request that the client gives no time-out is given up."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REVISION = re.compile(r"(?![/.-])(?!.*(\.\.|//|@\{))[^\x00-\x20\x7f~^:?*\[\\]{1,255}(?<![/.])")
_FILENAME = re.compile(r"\w[\w.+ -]*")
_SECRETS = re.compile(
    r"\bhf_\w{6,}|(?<=Bearer )[^\s\"']+|(?<=[?&])X-[\w-]+=[^&\s\"']+|(?<=//)[^/@\s]+:[^/@\s]+(?=@)"
)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class HubError(OSError):
    """A request to the Hub failed; the message names the repo, the file and a remedy."""

    def __init__(self, message: str = "", *, repo_id: str = "", file: str = "") -> None:
        super().__init__(message)
        self.repo_id = repo_id
        self.file = file


class RepoNotFoundError(HubError, FileNotFoundError):
    """There is no such repo, or it is private and the token may not see it."""


class RevisionNotFoundError(HubError, FileNotFoundError):
    """The repo has no such branch, tag or commit."""


class MissingFileError(HubError, FileNotFoundError):
    """The repo has no config.json or no weights."""


class NotCachedError(HubError, FileNotFoundError):
    """The file is not in the cache, and the Hub is not to be asked."""


class AccessDeniedError(HubError):
    """The token is missing, unknown, or may not do this."""


class GatedRepoError(AccessDeniedError):
    """The repo's terms must be accepted first."""


class UnusableRepoError(HubError, ValueError):
    """The files are as the Hub has them, but are not a model of this library."""


class CorruptFileError(HubError):
    """A file does not have the hash that the Hub tells, or no hash is told."""


class ConflictError(HubError):
    """The repo changed while something was pushed to it, or has something else under that name."""


class HubUnavailableError(HubError):
    """No answer, not a whole one, or not the Hub's: worth trying again."""


def redact(text: str) -> str:
    """The text without tokens, passwords in URLs and signatures of signed URLs."""
    return _SECRETS.sub("***", text)


class _Redact(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


_redact = _Redact()


def client(token: str | bool | None = None) -> HfApi:
    """The client for the configured endpoint, under this library's name."""
    for name in ("httpx", "httpx2", "huggingface_hub.file_download", "huggingface_hub.utils._http"):
        logging.getLogger(name).addFilter(_redact)  # they log signed URLs whole
    return HfApi(token=token, library_name=LIBRARY_NAME, library_version=__version__)


# What huggingface_hub raises: transport errors; OSError for short bodies; RuntimeError around failed uploads
# and out of Xet; and over an answer that is not the Hub's, whatever its parsing stumbles on.
_FAILURES = (HTTPError, OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


def call(
    do: Callable[[], T],
    repo_id: str,
    about: str,
    *,
    revision: str | None = None,
    pushing: bool = False,
    attempts: int = ATTEMPTS,
) -> T:
    """Ask the Hub; what may be a passing failure is tried again, after a wait that doubles and jitters.

    Args:
        do: the request, and nothing else.
        repo_id: the repo, for the message.
        about: the file in it, or what else the request is about, for the message.
        revision: branch, tag or commit, for the message.
        pushing: the request writes.
        attempts: how often at most.

    Raises:
        HubError: it failed for good, or too often.
    """
    attempt = 1
    while True:
        try:
            with _patience():
                return do()
        except HubError:
            raise
        except _FAILURES as e:
            error = _explain(e, repo_id, about, revision, pushing)
            wait = _wait(e, attempt)
        # raised out here, without its cause: a traceback would show what servers say, which may hold secrets
        if not isinstance(error, HubUnavailableError) or wait is None or attempt >= attempts:
            raise error
        logger.warning("%s (trying again in %.1f s, attempt %d of %d)", error, wait, attempt + 1, attempts)
        time.sleep(wait)
        attempt += 1


@contextmanager
def _patience() -> Iterator[None]:
    """A time-out for the requests to which the client gives none: they would wait for ever."""
    session = get_session()
    before = session.timeout
    if before.read is None:
        session.timeout = PATIENCE
    try:
        yield
    finally:
        session.timeout = before


def _wait(e: Exception, attempt: int) -> float | None:
    """Seconds before the next attempt; None: there is no use in one."""
    if isinstance(e, errors.LocalEntryNotFoundError) and not isinstance(
        e.__cause__, errors.FileMetadataError
    ):
        return None  # the client has tried for half a minute itself
    asked = e.response.headers.get("Retry-After", "") if isinstance(e, errors.HfHubHTTPError) else ""
    seconds = float(asked) if asked.isdigit() else 2.0 ** (attempt - 1)
    return seconds * random.uniform(1.0, 1.5) if seconds <= LONGEST_WAIT else None


def _explain(e: BaseException, repo_id: str, about: str, revision: str | None, pushing: bool) -> HubError:
    """The error to raise in the place of one of the client's."""
    if isinstance(e, errors.LocalEntryNotFoundError | RuntimeError) and e.__cause__ is not None:
        return _explain(e.__cause__, repo_id, about, revision, pushing)  # the client wraps the reason

    page = f"{constants.ENDPOINT}/{repo_id}"
    at = f"{repo_id}@{revision}" if revision else repo_id

    def error(kind: type[HubError], problem: str, remedy: str) -> HubError:
        said = getattr(e, "server_message", None)
        quoted = f" ({' '.join(redact(str(said)).split())[:200]})" if said else ""
        return kind(f"{at}: {about}: {problem}{quoted}; {remedy}", repo_id=repo_id, file=about)

    if isinstance(e, errors.GatedRepoError):
        return error(
            GatedRepoError,
            "the repo is gated",
            f"accept its terms at {page} and log in with: hf auth login (or give token=…)",
        )
    if isinstance(e, errors.RepositoryNotFoundError):
        return error(
            RepoNotFoundError,
            "there is no such repo, or it is private and this token may not see it",
            "check the name, log in with: hf auth login (or give token=…), accept its terms if it has any",
        )
    if isinstance(e, errors.RevisionNotFoundError):
        return error(
            RevisionNotFoundError, "no such revision", f"see the branches and tags at {page}/tree/main"
        )
    if isinstance(e, errors.EntryNotFoundError):
        return error(MissingFileError, "no such file in the repo", f"see its files at {page}/tree/main")
    if isinstance(e, errors.HfHubHTTPError):
        return _explain_status(e.response.status_code, error, pushing)
    if isinstance(e, errors.OfflineModeIsEnabled):
        return error(NotCachedError, "offline mode is on", "unset HF_HUB_OFFLINE to ask the Hub")
    if "Timeout" in type(e).__name__:  # the client's transport changes with its version, the names do not
        return error(
            HubUnavailableError,
            "the Hub did not answer in time",
            "try again, or allow more seconds with HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT",
        )
    if isinstance(e, HTTPError):
        connect = (
            "no connection to the Hub" if "Connect" in type(e).__name__ else "the connection to the Hub broke"
        )
        return error(
            HubUnavailableError,
            f"{connect} at {constants.ENDPOINT}",
            "check network and proxy, and try again",
        )
    if isinstance(e, ValueError) and "metadata in README.md" in str(e):
        reason = " ".join(redact(str(e)).split())
        return error(HubError, reason, "correct the front matter of the card")
    if isinstance(e, OSError) and e.errno is not None:
        return error(HubError, f"{e.strerror} ({e.filename})", "check the disk, or choose another cache_dir")
    if isinstance(e, OSError | RuntimeError) and not isinstance(e, errors.FileMetadataError):
        return error(HubUnavailableError, "the transfer was cut short or failed", "try again")
    return error(
        HubUnavailableError,
        f"what {constants.ENDPOINT} sent is not an answer of the Hub",
        "check HF_ENDPOINT, and whether a proxy or a sign-in page stands between",
    )


def _explain_status(
    status: int, error: Callable[[type[HubError], str, str], HubError], pushing: bool
) -> HubError:
    if status == 401:
        return error(
            AccessDeniedError, "the Hub does not accept this token", "log in again with: hf auth login"
        )
    if status == 403:
        verb = "write to" if pushing else "read"
        tokens = f"{constants.ENDPOINT}/settings/tokens"
        return error(AccessDeniedError, f"this token may not {verb} it", f"take one that may, from {tokens}")
    if status in (409, 412) and pushing:
        return error(ConflictError, f"the repo has changed meanwhile (status {status})", "push again")
    if status == 429:
        return error(
            HubUnavailableError, "the Hub refuses so many requests", "wait a while, or log in: hf auth login"
        )
    if status in _TRANSIENT:
        return error(HubUnavailableError, f"the Hub answers with status {status}", "try again later")
    return error(
        HubError, f"the Hub refuses the request with status {status}", "check names and token, or report it"
    )


class Snapshot:
    """The files of one commit of a model repo: downloaded when asked for, and checked by hash each time.

    Args:
        repo_id: "org/name".
        revision: branch, tag or commit; None: main. It is looked up once, here.
        token: for a private or gated repo; None: the one stored by `hf auth login`.
        cache_dir: in the place of the client's cache folder.
        local_files_only: take what the cache holds, without a request; as does HF_HUB_OFFLINE=1.

    Raises:
        HubError: the revision cannot be looked up and is not in the cache.
        ValueError: `revision` cannot be one.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.repo_id = repo_id
        self.revision = check_revision(revision or constants.DEFAULT_REVISION)
        self._api = client(token)
        self._cache = Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute()
        self._folder = self._cache / repo_folder_name(repo_id=repo_id, repo_type="model")
        self._may_ask = not (local_files_only or constants.HF_HUB_OFFLINE)
        self._looked_up = False
        self.commit, self._hashes = self._remembered()
        # what a commit holds does not change; a branch may have moved
        if self._may_ask and not (self.commit == self.revision and self._record.is_file()):
            self._look_up()
        elif not self.commit:
            raise self._not_cached("config.json")

    @property
    def names(self) -> list[str]:
        """The files at the root of the repo; none whose name could lead out of a folder."""
        return sorted(name for name in self._hashes if _FILENAME.fullmatch(name))

    def path(self, name: str) -> Path:
        """One of `names` as a local file.

        Raises:
            CorruptFileError: it does not have its hash. It was removed; the next call downloads it anew.
            HubError: it cannot be had.
        """
        path = self._folder / "snapshots" / self.commit / name
        if not path.exists():
            if not self._may_ask:
                raise self._not_cached(name)
            call(
                lambda: self._api.hf_hub_download(
                    self.repo_id,
                    name,
                    revision=self.commit,
                    cache_dir=self._cache,
                    etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
                    tqdm_class=_bar(name),
                ),
                self.repo_id,
                name,
                revision=self.revision,
            )
        self._verify(path)
        return path

    def keep(self) -> None:
        """Remember revision and hashes for loading offline. For when every file that is needed is there."""
        if not self._looked_up:
            return
        try:
            write_whole(self._record, json.dumps(self._hashes, indent=1).encode())
            if self.revision != self.commit:
                write_whole(self._folder / "refs" / self.revision, self.commit.encode())
        except OSError as e:
            logger.warning("%s: cannot note the commit for offline use: %s", self.repo_id, e)

    @property
    def _record(self) -> Path:
        return self._folder / LIBRARY_NAME / f"{self.commit}.json"

    def _remembered(self) -> tuple[str, dict[str, str]]:
        """What the cache knows of the revision: commit ("" if nothing), and file names with hashes."""
        commit = self.revision
        if not _COMMIT.fullmatch(commit):
            ref = self._folder / "refs" / self.revision
            commit = ref.read_text(encoding="ascii", errors="replace").strip() if ref.is_file() else ""
        self.commit = commit
        if not _COMMIT.fullmatch(commit):
            return "", {}
        try:
            hashes = json.loads(self._record.read_text(encoding="utf-8"))
            return commit, {str(name): str(value) for name, value in hashes.items()}
        except (OSError, ValueError, AttributeError):
            # filled by another program of the Hub's: the names of the blobs that the files link to are hashes
            folder = self._folder / "snapshots" / commit
            return (commit, {path.name: "" for path in folder.iterdir()}) if folder.is_dir() else ("", {})

    def _look_up(self) -> None:
        try:
            info = call(
                lambda: self._api.model_info(
                    self.repo_id,
                    revision=self.revision,
                    files_metadata=True,
                    timeout=constants.HF_HUB_ETAG_TIMEOUT,
                ),
                self.repo_id,
                "config.json",
                revision=self.revision,
                attempts=2 if self.commit else ATTEMPTS,
            )
        except HubUnavailableError as e:
            if not self.commit:
                raise
            logger.warning("%s (going on with commit %s from the cache)", e, self.commit)
            return
        if info.sha is None or not _COMMIT.fullmatch(info.sha):
            raise HubUnavailableError(
                f"{self.repo_id}@{self.revision}: config.json: {constants.ENDPOINT} names no commit; "
                "check HF_ENDPOINT, and whether a proxy stands between",
                repo_id=self.repo_id,
                file="config.json",
            )
        self.commit, self._looked_up = info.sha, True
        self._hashes = {
            file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or ""
            for file in info.siblings or []
        }

    def _verify(self, path: Path) -> None:
        linked = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
        expected = self._hashes.get(path.name) or linked
        where = f"{self.repo_id}@{self.commit}: {path.name}"
        if not _HASH.fullmatch(expected):
            raise CorruptFileError(
                f"{where}: no hash is known of it (got {expected!r}), so it cannot be checked; "
                "load it once while online, and check HF_ENDPOINT if that fails",
                repo_id=self.repo_id,
                file=path.name,
            )
        found = content_hash(path, git=len(expected) == 40)
        # a link of another name would make the next check, offline, fail
        if found != expected or (_HASH.fullmatch(linked) and linked != expected):
            told = expected if found != expected else f"{expected} and {linked}"
            self._discard(path)
            raise CorruptFileError(
                f"{where}: its hash is {found}, the Hub told {told}; the file was removed: "
                "load again to fetch it anew, and if that fails as well tell the repo's owner",
                repo_id=self.repo_id,
                file=path.name,
            )

    def _discard(self, path: Path) -> None:
        """Remove a file of the cache, and what it links to inside the cache."""
        while path.is_relative_to(self._cache):
            target = Path(os.path.normpath(path.parent / os.readlink(path))) if path.is_symlink() else None
            path.unlink(missing_ok=True)
            if target is None:
                return
            path = target

    def _not_cached(self, name: str) -> NotCachedError:
        return NotCachedError(
            f"{self.repo_id}@{self.revision}: {name} is not in the cache {self._cache}, and the Hub is not "
            "to be asked (HF_HUB_OFFLINE=1 or local_files_only); fetch it once while online with: "
            f"u2net download --model {self.repo_id}@{self.revision}",
            repo_id=self.repo_id,
            file=name,
        )


def _bar(name: str) -> type[tqdm]:
    """The client's progress bar under a name of ours; the client takes the end of a signed URL."""

    class Bar(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **(kwargs | {"desc": name}))  # type: ignore[no-untyped-call]

    return Bar


def check_revision(revision: str) -> str:
    """The revision, if git could have one of that name.

    Raises:
        ValueError: it could not; such a name might lead out of the cache folder.
    """
    if not _REVISION.fullmatch(revision):
        raise ValueError(f"revision is {revision!r}, expected a branch, tag or commit, e.g. 'main' or 'v1.0'")
    return revision


def content_hash(content: Path | bytes, *, git: bool = False) -> str:
    """SHA-256 of a file or of bytes, or the SHA-1 that git gives them as a blob; in hexadecimal."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size) if git else hashlib.sha256()
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise
    os.replace(file.name, path)
