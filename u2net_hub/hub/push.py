"""Push files to a branch of a repo in one commit; only files that differ are uploaded."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ..atomic import content_hash
from .client import ATTEMPTS, call, make_client, refuse_tokens
from .errors import AccessDeniedError, ConflictError, CorruptFileError
from .snapshot import check_revision

logger = logging.getLogger(__name__)


RepoType: TypeAlias = Literal["model", "space"]
Content: TypeAlias = "bytes | Path | None"
"""The content of a file to push; None deletes the file."""
_CONFLICTS = 5
_TEXT = (".json", ".md", ".txt", ".py")


class Pushed(NamedTuple):
    """The outcome of a push."""

    repo_id: str
    commit: str
    url: str
    """The address of the commit."""
    changed: bool
    """False if the repo already had the same content, so that no commit was made."""
    pull_request: str | None = None
    """The address of the pull request, if one was opened."""


class BranchState:
    """The state of a branch before a push.

    Attributes:
        commit: The newest commit.
        hashes: The hash of each file by name: SHA-256 for LFS files, git's SHA-1 for the others.
    """

    def __init__(self, repo_id: str, repo_type: RepoType, branch: str, token: str | bool | None) -> None:
        self.repo_id = repo_id
        self._repo_type = repo_type
        self._api = make_client(token)
        ask = self._api.space_info if repo_type == "space" else self._api.model_info
        info = call(
            lambda: ask(repo_id, revision=branch, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT),
            repo_id,
            "its branch",
            revision=branch,
            pushing=True,
        )
        self.private = bool(info.private)
        self.commit = info.sha or ""
        files = info.siblings or []
        self.hashes = {
            file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or "" for file in files
        }

    def read(self, name: str) -> bytes | None:
        """Read the content of a file; None if the file does not exist.

        Raises:
            HubError: The file cannot be fetched, or its hash differs from the one on the Hub.
        """
        if name not in self.hashes:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(
                call(
                    lambda: self._api.hf_hub_download(
                        self.repo_id,
                        name,
                        repo_type=self._repo_type,
                        revision=self.commit,
                        cache_dir=folder,
                        etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
                    ),
                    self.repo_id,
                    name,
                    pushing=True,
                )
            )
            expected = self.hashes[name]
            if content_hash(path, git=len(expected) == 40) != expected:
                raise CorruptFileError(
                    f"{self.repo_id}: {name}: it does not have the hash {expected} that the Hub gives; "
                    "nothing was pushed: push again",
                    repo_id=self.repo_id,
                    file=name,
                )
            return path.read_bytes()


def push_files(
    repo_id: str,
    contents: Callable[[BranchState], Mapping[str, Content]],
    *,
    commit_message: str,
    commit_description: str | None = None,
    repo_type: RepoType = "model",
    space_sdk: str | None = None,
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    token: str | bool | None = None,
) -> Pushed:
    """Bring a branch to the given content in one commit; a missing repo or branch is created.

    A push that fails leaves the branch unchanged and can be repeated.

    Args:
        repo_id: The name of the repo, "org/name".
        contents: A function from the state of the branch to the files to write, by name. It is called again
            if the branch moves during the push.
        commit_message: The first line of the commit.
        commit_description: The other lines of the commit.
        repo_type: Either "model" or "space".
        space_sdk: The SDK of a new Space, e.g. "gradio".
        private: Whether a new repo is private. None uses the account's setting. With True, an existing repo
            must be private too.
        branch: The branch to commit to. None is main.
        create_pr: Open a pull request against main instead of committing.
        tag: A tag for the commit. An existing tag must belong to the same commit.
        token: A token with write permission. None uses the one stored by `hf auth login`.

    Raises:
        HubError: The Hub refuses or cannot be reached.
        TypeError: A message is not text.
        ValueError: The arguments contradict each other, the repo is public and `private=True`, or a text
            holds a token of the Hub.
    """
    for name, text in (("commit_message", commit_message), ("commit_description", commit_description)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} is {text!r}, expected text")
    _check_arguments(repo_id, branch, tag, create_pr, token)
    refuse_tokens(f"{commit_message}\n{commit_description or ''}", "the commit message")
    api = make_client(token)
    target = branch or constants.DEFAULT_REVISION
    _make_branch(api, repo_id, repo_type, space_sdk, private, target, token)
    tagged = None if tag is None else _commit_of_tag(api, repo_id, repo_type, tag)

    changed = False
    for attempt in range(1, _CONFLICTS + 1):
        head = BranchState(repo_id, repo_type, target, token)
        files = dict(contents(head))
        files = {name: content for name, content in files.items() if _differs(content, head.hashes.get(name))}
        for name, content in files.items():
            _refuse_tokens(name, content)
        changed = changed or bool(files)
        if tagged is not None and (files or tagged != head.commit):
            raise ConflictError(
                f"{repo_id}: tag {tag} belongs to commit {tagged}; nothing was pushed: choose another tag",
                repo_id=repo_id,
            )
        try:
            url, commit, pull_request = (
                _commit(api, head, files, repo_type, target, create_pr, commit_message, commit_description)
                if files
                else (f"{_page(repo_id, repo_type)}/commit/{head.commit}", head.commit, None)
            )
            break
        except ConflictError:
            if attempt == _CONFLICTS:
                raise
            logger.info("%s: %s changed during the push; the push starts again", repo_id, target)
    if tag is not None and tagged is None:
        call(
            lambda: api.create_tag(repo_id, tag=tag, revision=commit, repo_type=repo_type, exist_ok=True),
            repo_id,
            f"tag {tag}",
            pushing=True,
        )
    return Pushed(repo_id, commit, url, changed, pull_request)


def _check_arguments(
    repo_id: str, branch: str | None, tag: str | None, create_pr: bool, token: str | bool | None
) -> None:
    """Check what can be checked without a request."""
    check_repo_id(repo_id)
    for name in (branch, tag):
        if name is not None:
            check_revision(name)
    if create_pr and (branch is not None or tag is not None):
        raise ValueError("create_pr=True opens a pull request against main; leave out branch and tag")
    _check_token(repo_id, token)


def _check_token(repo_id: str, token: str | bool | None) -> None:
    if token is False or (token is None and get_token() is None):
        raise AccessDeniedError(
            f"{repo_id}: pushing needs a token with write permission, and there is none; "
            "log in with: hf auth login, or set HF_TOKEN",
            repo_id=repo_id,
        )


def _make_branch(
    api: HfApi,
    repo_id: str,
    repo_type: RepoType,
    space_sdk: str | None,
    private: bool | None,
    target: str,
    token: str | bool | None,
) -> None:
    """Create the repo and the branch if they are missing; refuse a public repo if `private` is True."""
    call(
        lambda: api.create_repo(
            repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=space_sdk
        ),
        repo_id,
        "the repo",
        pushing=True,
    )
    head = BranchState(repo_id, repo_type, constants.DEFAULT_REVISION, token)
    if private and not head.private:
        raise ValueError(
            f"{repo_id} is there and public, got private=True; nothing was pushed. Make it private on its "
            "settings page, or choose another name"
        )
    if target != constants.DEFAULT_REVISION:
        call(
            lambda: api.create_branch(repo_id, branch=target, repo_type=repo_type, exist_ok=True),
            repo_id,
            f"branch {target}",
            pushing=True,
        )


def full_repo_id(repo_id: str, token: str | bool | None) -> str:
    """Put the account of the token before a bare name: "u2netp" becomes "me/u2netp".

    Raises:
        HubError: There is no token, or the Hub does not know it.
        ValueError: No repo can have this name.
    """
    if "/" in repo_id or not repo_id:
        check_repo_id(repo_id)
        return repo_id
    check_repo_id(f"me/{repo_id}")
    _check_token(repo_id, token)
    account = call(make_client(token).whoami, repo_id, "the account of the token", pushing=True)
    return f"{account['name']}/{repo_id}"


def check_repo_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except ValueError as e:
        raise ValueError(f"repo_id is {repo_id!r}, expected org/name: {e}") from e
    if "/" not in repo_id:
        raise ValueError(f"repo_id is {repo_id!r}, expected org/name")


def _page(repo_id: str, repo_type: RepoType) -> str:
    return f"{constants.ENDPOINT}/{'spaces/' if repo_type == 'space' else ''}{repo_id}"


def _commit_of_tag(api: HfApi, repo_id: str, repo_type: RepoType, tag: str) -> str | None:
    refs = call(lambda: api.list_repo_refs(repo_id, repo_type=repo_type), repo_id, f"tag {tag}", pushing=True)
    return next((ref.target_commit for ref in refs.tags if ref.name == tag), None)


def _commit(
    api: HfApi,
    head: BranchState,
    files: Mapping[str, Content],
    repo_type: RepoType,
    branch: str,
    create_pr: bool,
    message: str,
    description: str | None,
) -> tuple[str, str, str | None]:
    """Upload and commit the files; return the commit's address, its hash, and the pull request's address."""
    additions = [CommitOperationAdd(name, data) for name, data in files.items() if data is not None]
    deletions = [CommitOperationDelete(name) for name, data in files.items() if data is None]
    about = ", ".join(files)
    call(
        lambda: api.preupload_lfs_files(
            head.repo_id,
            additions,
            repo_type=repo_type,
            revision=branch,
            create_pr=create_pr,
            free_memory=False,
        ),
        head.repo_id,
        about,
        pushing=True,
    )
    info = call(
        lambda: api.create_commit(
            head.repo_id,
            [*additions, *deletions],
            commit_message=message,
            commit_description=description,
            repo_type=repo_type,
            revision=branch,
            create_pr=create_pr,
            parent_commit=head.commit,  # a repeated request cannot make a second commit
        ),
        head.repo_id,
        f"pull request with {about} (look first whether it was opened)" if create_pr else about,
        pushing=True,
        attempts=1 if create_pr else ATTEMPTS,
    )
    return info.commit_url, info.oid, info.pr_url


def _refuse_tokens(name: str, content: Content) -> None:
    """Raise if a text to push holds a token: what people wrote is refused, and never changed."""
    if content is not None and name.endswith(_TEXT):
        text = content if isinstance(content, bytes) else content.read_bytes()
        refuse_tokens(text.decode(errors="replace"), name)


def _differs(content: Content, hash_there: str | None) -> bool:
    if content is None or hash_there is None:
        return content is not None or hash_there is not None
    return content_hash(content, git=len(hash_there) == 40) != hash_there
