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
