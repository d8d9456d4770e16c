"""Errors of the Hub; each message names the repo, the file and a remedy."""

from __future__ import annotations


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
    """The file is not in the cache, and requests to the Hub are switched off."""


class CacheNotWritableError(HubError):
    """A file cannot be kept, because the cache folder may only be read."""


class AccessDeniedError(HubError):
    """The token is missing or unknown, or it does not permit this request."""


class GatedRepoError(AccessDeniedError):
    """The repo's terms must be accepted first."""


class UnusableRepoError(HubError, ValueError):
    """The files are intact, but they are not a model of this library."""


class CorruptFileError(HubError):
    """A file's hash differs from the one on the Hub, or the Hub gives no hash."""


class ConflictError(HubError):
    """The repo changed during a push, or the tag belongs to another commit."""


class HubUnavailableError(HubError):
    """The Hub gave no answer, an incomplete one, or another server answered; trying again can help."""
