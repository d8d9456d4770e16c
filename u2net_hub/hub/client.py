"""Send requests to the Hub, with retries, time-outs, errors with a remedy, and logs without secrets."""

from __future__ import annotations

import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, errors, get_session
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's own

from .. import __version__
from ..config import LIBRARY_NAME
from .errors import (
    AccessDeniedError,
    ConflictError,
    GatedRepoError,
    HubError,
    HubUnavailableError,
    MissingFileError,
    NotCachedError,
    RepoNotFoundError,
    RevisionNotFoundError,
)

logger = logging.getLogger(__name__)


T = TypeVar("T")

ATTEMPTS = 4
"""The number of attempts for each request."""
LONGEST_WAIT = 60.0
"""The longest wait between attempts, in seconds. If a server asks for more, the request fails."""
PATIENCE = 100.0
"""The time-out in seconds without data, for requests that the client sends without one."""
_TOKEN = re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,}")
_SECRETS = re.compile(
    rf"{_TOKEN.pattern}|(?<=Bearer )[^\s\"']+|(?<=[?&])X-[\w-]+=[^&\s\"']+|(?<=//)[^/@\s]+:[^/@\s]+(?=@)"
)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def redact(text: str) -> str:
    """Replace tokens, passwords in URLs and signatures of signed URLs by ***, for a log or a message."""
    return _SECRETS.sub("***", text)


def redact_tokens(text: str) -> str:
    """Replace tokens of the Hub by ***, for a record such as a command line; all other text stays."""
    return _TOKEN.sub("***", text)


def refuse_tokens(text: str, what: str) -> None:
    """Raise if a text that is to be published holds a token of the Hub.

    Raises:
        ValueError: The text holds a token; the message does not.
    """
    if _TOKEN.search(text):
        raise ValueError(
            f"{what} holds a token of the Hub (hf_…); nothing was pushed: remove it there, and revoke the "
            f"token at {constants.ENDPOINT}/settings/tokens if others could read it"
        )


class _Redact(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


_redact = _Redact()


def make_client(token: str | bool | None = None) -> HfApi:
    """Make a client for the configured endpoint that sends this library's name."""
    for name in ("httpx", "httpx2", "huggingface_hub.file_download", "huggingface_hub.utils._http"):
        logging.getLogger(name).addFilter(_redact)  # they log complete signed URLs
    return HfApi(token=token, library_name=LIBRARY_NAME, library_version=__version__)


# huggingface_hub raises transport errors, OSError for short bodies, RuntimeError for failed uploads and
# in Xet, and any of the others while it parses an answer that does not come from the Hub
_FAILURES = (HTTPError, OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


def call(
    do: Callable[[], T],
    repo_id: str,
    about: str,
    *,
    revision: str | None = None,
    pushing: bool = False,
    folder: Path | None = None,
    attempts: int = ATTEMPTS,
) -> T:
    """Send a request to the Hub; repeat it after failures that can be temporary.

    The wait between attempts doubles each time and has a random part.

    Args:
        do: A function that sends the request and does nothing else.
        repo_id: The repo, for error messages.
        about: The file or the other subject of the request, for error messages.
        revision: The branch, tag or commit, for error messages.
        pushing: Whether the request writes to the repo.
        folder: The folder that the request writes to, for error messages.
        attempts: The greatest number of attempts.

    Raises:
        HubError: The failure is permanent, or every attempt failed.
    """
    attempt = 1
    while True:
        try:
            with _patience():
                return do()
        except HubError:
            raise
        except _FAILURES as e:
            error = _explain(e, repo_id, about, revision, pushing, folder)
            wait = _wait(e, attempt)
        # raised here, without its cause: a traceback would show server messages, which can hold secrets
        if not isinstance(error, HubUnavailableError) or wait is None or attempt >= attempts:
            raise error
        logger.warning("%s (trying again in %.1f s, attempt %d of %d)", error, wait, attempt + 1, attempts)
        time.sleep(wait)
        attempt += 1


@contextmanager
def _patience() -> Iterator[None]:
    """Set a time-out for requests that the client sends without one; they could wait for ever."""
    session = get_session()
    before = session.timeout
    if before.read is None:
        session.timeout = PATIENCE
    try:
        yield
    finally:
        session.timeout = before


def _wait(e: Exception, attempt: int) -> float | None:
    """Return the seconds to wait before the next attempt; None if another attempt is useless."""
    if isinstance(e, errors.LocalEntryNotFoundError) and not isinstance(
        e.__cause__, errors.FileMetadataError
    ):
        return None  # the client has itself tried for half a minute
    asked = e.response.headers.get("Retry-After", "") if isinstance(e, errors.HfHubHTTPError) else ""
    seconds = float(asked) if asked.isdigit() else 2.0 ** (attempt - 1)
    return seconds * random.uniform(1.0, 1.5) if seconds <= LONGEST_WAIT else None


def _explain(
    e: BaseException, repo_id: str, about: str, revision: str | None, pushing: bool, folder: Path | None
) -> HubError:
    """Make the error that replaces one of the client's."""
    if isinstance(e, errors.LocalEntryNotFoundError | RuntimeError) and e.__cause__ is not None:
        # the client wraps the reason
        return _explain(e.__cause__, repo_id, about, revision, pushing, folder)

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
            f"there is no such repo, or it is private and {_told(e, 'this token may not see it')}",
            "check the name, log in with: hf auth login (or give token=…), accept its terms if it has any",
        )
    if isinstance(e, errors.RevisionNotFoundError):
        return error(
            RevisionNotFoundError, "no such revision", f"see the branches and tags at {page}/tree/main"
        )
    if isinstance(e, errors.EntryNotFoundError):
        return error(MissingFileError, "no such file in the repo", f"see its files at {page}/tree/main")
    if isinstance(e, errors.HfHubHTTPError):
        return _explain_status(e, error, pushing)
    return _explain_transfer(e, error, folder)


def _told(e: errors.HfHubHTTPError, of_token: str) -> str:
    """Say something of the token that was sent, or that none was."""
    return of_token if "authorization" in e.response.request.headers else "no token was sent"


def _explain_transfer(
    e: BaseException, error: Callable[[type[HubError], str, str], HubError], folder: Path | None
) -> HubError:
    """Explain a failure other than the Hub's own refusal: on the way, on the disk, or in the answer."""
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
        place = e.filename or folder or constants.HF_HUB_CACHE
        remedy = "check its permissions, or choose another cache_dir"
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space there, or choose another cache_dir (or HF_HOME) on a larger disk"
        found = error(HubError, f"{e.strerror} ({place})", remedy)
        found.errno = e.errno
        return found
    if isinstance(e, OSError | RuntimeError) and not isinstance(e, errors.FileMetadataError):
        return error(HubUnavailableError, "the transfer was cut short or failed", "try again")
    return error(
        HubUnavailableError,
        f"what {constants.ENDPOINT} sent is not an answer of the Hub",
        "check HF_ENDPOINT, and whether a proxy or a sign-in page stands between",
    )


def _explain_status(
    e: errors.HfHubHTTPError, error: Callable[[type[HubError], str, str], HubError], pushing: bool
) -> HubError:
    """Explain the HTTP status of a refused request."""
    status = e.response.status_code
    if status == 401:
        return error(
            AccessDeniedError,
            _told(e, "the Hub does not accept this token"),
            "log in with: hf auth login (or give token=…)",
        )
    if status == 403:
        verb = "write to" if pushing else "read"
        tokens = f"{constants.ENDPOINT}/settings/tokens"
        return error(
            AccessDeniedError, _told(e, f"this token may not {verb} it"), f"take one that may, from {tokens}"
        )
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
