"""From files to a repo on the Hub: one commit, or none where nothing changed. Also beside a training run."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, TypeAlias

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented all the same

from . import card
from .config import U2NetConfig
from .remote import (
    ATTEMPTS,
    AccessDeniedError,
    ConflictError,
    CorruptFileError,
    call,
    check_revision,
    client,
    content_hash,
    redact,
)
from .results import Results

logger = logging.getLogger(__name__)

RepoType: TypeAlias = Literal["model", "space"]
Content: TypeAlias = "bytes | Path | None"
"""Of a file to push; None deletes it where it is."""

CARD_NAME = "README.md"
RESULTS_NAME = "results.json"
CURVES_NAME = "curves.npz"
_FILES = (card.CONFIG_NAME, card.WEIGHTS_NAME, RESULTS_NAME, CURVES_NAME, card.PICTURE_NAME)
_CONFLICTS = 5
_TEXT = (".json", ".md", ".txt", ".py")


class Pushed(NamedTuple):
    """What a push came to."""

    repo_id: str
    commit: str
    url: str
    """Of the commit."""
    changed: bool
    """False where the repo had the same content already, and no commit was made."""
    pull_request: str | None = None
    """Its address, if one was opened."""


class Head:
    """A branch as it is before a push.

    Attributes:
        commit: the newest commit.
        hashes: file name -> SHA-256 of an LFS file, git's SHA-1 of another.
    """

    def __init__(self, repo_id: str, repo_type: RepoType, branch: str, token: str | bool | None) -> None:
        self.repo_id = repo_id
        self._repo_type = repo_type
        self._api = client(token)
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
        """Content of a file; None where there is none.

        Raises:
            HubError: it cannot be had, or does not have the hash that the Hub tells.
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
                    f"{self.repo_id}: {name}: it does not have the hash {expected} that the Hub tells; "
                    "nothing was pushed: push again",
                    repo_id=self.repo_id,
                    file=name,
                )
            return path.read_bytes()


def push_files(
    repo_id: str,
    contents: Callable[[Head], Mapping[str, Content]],
    *,
    commit_message: str,
    repo_type: RepoType = "model",
    space_sdk: str | None = None,
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    token: str | bool | None = None,
) -> Pushed:
    """Bring a branch to the given content in one commit; repo and branch are created where they are missing.

    A push that fails leaves the branch as it was, and can be repeated.

    Args:
        repo_id: "org/name".
        contents: the branch as it is -> name and content of the files to write. It is asked again when the
            branch moves meanwhile.
        commit_message: first line of the commit.
        repo_type: "model" or "space".
        space_sdk: for a new Space, e.g. "gradio".
        private: for a new repo; None: as the account is set up. A repo that is there has to agree with True.
        branch: None: main.
        create_pr: open a pull request against main, in the place of a commit.
        tag: a name for the commit; one that is there has to be of the same commit.
        token: with write permission; None: the one stored by `hf auth login`.

    Raises:
        HubError: the Hub refuses or cannot be reached; the classes are those of `u2net_hub.remote`.
        ValueError: the arguments do not go together, or the repo is public and `private=True`.
    """
    _check_repo_id(repo_id)
    for name in (branch, tag):
        if name is not None:
            check_revision(name)
    if create_pr and (branch is not None or tag is not None):
        raise ValueError("create_pr=True opens a pull request against main; leave out branch and tag")
    if token is False or (token is None and get_token() is None):
        raise AccessDeniedError(
            f"{repo_id}: pushing needs a token with write permission, and there is none; "
            "log in with: hf auth login, or set HF_TOKEN",
            repo_id=repo_id,
        )
    api = client(token)
    call(
        lambda: api.create_repo(
            repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=space_sdk
        ),
        repo_id,
        "the repo",
        pushing=True,
    )
    head = Head(repo_id, repo_type, constants.DEFAULT_REVISION, token)
    if private and not head.private:
        raise ValueError(
            f"{repo_id} is there and public, got private=True; nothing was pushed. Make it private on its "
            "settings page, or choose another name"
        )
    target = branch or constants.DEFAULT_REVISION
    if target != constants.DEFAULT_REVISION:
        call(
            lambda: api.create_branch(repo_id, branch=target, repo_type=repo_type, exist_ok=True),
            repo_id,
            f"branch {target}",
            pushing=True,
        )
    tagged = None if tag is None else _commit_of_tag(api, repo_id, repo_type, tag)

    changed = False
    for attempt in range(1, _CONFLICTS + 1):
        head = Head(repo_id, repo_type, target, token)
        files = {name: _without_secrets(name, content) for name, content in contents(head).items()}
        files = {name: content for name, content in files.items() if _differs(content, head.hashes.get(name))}
        changed = changed or bool(files)
        if tagged is not None and (files or tagged != head.commit):
            raise ConflictError(
                f"{repo_id}: tag {tag} belongs to commit {tagged}; nothing was pushed: choose another tag",
                repo_id=repo_id,
            )
        try:
            url, commit, pull_request = (
                _commit(api, head, files, repo_type, target, create_pr, redact(commit_message))
                if files
                else (f"{_page(repo_id, repo_type)}/commit/{head.commit}", head.commit, None)
            )
            break
        except ConflictError:
            if attempt == _CONFLICTS:
                raise
            logger.info("%s: %s moved meanwhile, looking at it again", repo_id, target)
    if tag is not None and tagged is None:
        call(
            lambda: api.create_tag(repo_id, tag=tag, revision=commit, repo_type=repo_type, exist_ok=True),
            repo_id,
            f"tag {tag}",
            pushing=True,
        )
    return Pushed(repo_id, commit, url, changed, pull_request)


def _check_repo_id(repo_id: str) -> None:
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
    head: Head,
    files: Mapping[str, Content],
    repo_type: RepoType,
    branch: str,
    create_pr: bool,
    message: str,
) -> tuple[str, str, str | None]:
    """Upload and commit: address of the commit, its hash, address of the pull request."""
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
            repo_type=repo_type,
            revision=branch,
            create_pr=create_pr,
            parent_commit=head.commit,  # so that an answer that got lost cannot lead to a second commit
        ),
        head.repo_id,
        f"pull request with {about} (look first whether it was opened)" if create_pr else about,
        pushing=True,
        attempts=1 if create_pr else ATTEMPTS,
    )
    return info.commit_url, info.oid, info.pr_url


def _without_secrets(name: str, content: Content) -> Content:
    """The content; of a text without tokens, which the command line in results.json could hold."""
    if content is None or not name.endswith(_TEXT):
        return content
    text = (content if isinstance(content, bytes) else content.read_bytes()).decode()
    return redact(text).encode()


def _differs(content: Content, hash_there: str | None) -> bool:
    if content is None or hash_there is None:
        return content is not None or hash_there is not None
    return content_hash(content, git=len(hash_there) == 40) != hash_there


# A model


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    token: str | bool | None = None,
    license: str | None = None,
) -> Pushed:
    """Push config.json and model.safetensors, and results.json, curves.npz and example.webp where they are.

    The card is made from them; of a README.md in the repo, only our fields and the marked sections change.
    Without results, those in the repo stay if the weights are the same, and go if they are not.

    Args:
        folder: as `save_pretrained` and `Results.save` write it.
        repo_id: "org/name".
        commit_message: None: "Upload model with u2net-hub".
        private: as for `push_files`, as are the next four.
        branch: None: main.
        create_pr: open a pull request.
        tag: a name for the commit.
        token: with write permission.
        license: of the weights, as the Hub names it; None: what the repo's README says, else "apache-2.0".

    Raises:
        HubError: the Hub refuses or cannot be reached.
        FileNotFoundError: config.json or model.safetensors is not there.
        ValueError: the results are of other weights, or a file is not of its format.
    """
    folder = Path(folder)
    for name in (card.CONFIG_NAME, card.WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}, expected a folder as save_pretrained writes it")
    return push_files(
        repo_id,
        lambda head: folder_contents(folder, repo_id, head, license=license),
        commit_message=commit_message or "Upload model with u2net-hub",
        private=private,
        branch=branch,
        create_pr=create_pr,
        tag=tag,
        token=token,
    )


def folder_contents(
    folder: Path, repo_id: str, head: Head | None = None, *, license: str | None = None
) -> dict[str, Content]:
    """Name and content of the files that `push_folder` brings a branch to; without `head`, of a new repo."""
    weights = folder / card.WEIGHTS_NAME
    sha256 = content_hash(weights)
    there = head.hashes if head is not None else {}
    files: dict[str, Content] = {name: folder / name for name in _FILES if (folder / name).is_file()}
    results: Results | None = None
    if RESULTS_NAME in files:
        results = card.results_of(Results.load(folder / RESULTS_NAME), sha256)
        files[RESULTS_NAME] = (json.dumps(results.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()
    elif head is not None and there.get(card.WEIGHTS_NAME) == sha256:
        old = head.read(RESULTS_NAME)
        results = None if old is None else Results.from_dict(json.loads(old))
    if there.get(card.WEIGHTS_NAME) != sha256:  # what was measured on other weights
        files |= {name: None for name in (RESULTS_NAME, CURVES_NAME) if name in there and name not in files}
    existing = None if head is None else head.read(CARD_NAME)
    files[CARD_NAME] = card.render(
        U2NetConfig.load(folder / card.CONFIG_NAME),
        results,
        name=repo_id,
        weights=card.Weights.of(weights, sha256),
        picture=card.PICTURE_NAME in files or card.PICTURE_NAME in there,
        license=license,
        existing=None if existing is None else existing.decode(),
    ).encode()
    return files


# In the background of a training run


class _Job(NamedTuple):
    """A copy of a folder on its way to the Hub."""

    folder: Path
    """Where it was copied from."""
    copy: tempfile.TemporaryDirectory[str]
    message: str


class BackgroundPusher:
    """Pushes folders to a branch from a thread of its own. Whatever happens there, the run goes on.

    Failures are logged. While a push is under way, only the newest of the folders handed over waits.

    Args:
        repo_id: "org/name".
        branch: for what is handed over with `push`; `finish` pushes to main.
        private: for a new repo.
        token: with write permission; None: the one stored by `hf auth login`.

    Raises:
        ValueError: `repo_id` or `branch` cannot be one.
    """

    def __init__(
        self, repo_id: str, *, branch: str, private: bool | None = None, token: str | bool | None = None
    ) -> None:
        _check_repo_id(repo_id)
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
        """Hand over a copy of a folder, as `push_folder` takes it."""
        try:
            job = _copy(Path(folder), commit_message)
        except OSError as e:
            logger.warning("%s cannot be copied, and is not pushed to %s: %s", folder, self.repo_id, e)
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
        """Wait for what is under way, try again what failed last, and push the result of the run to main.

        Args:
            folder: what goes to main; None: nothing.
            commit_message: for main.
            tag: for the commit on main.
            timeout: seconds to wait for the thread.

        Returns:
            A line for each folder that is not on the Hub, with the command that pushes it by hand.
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
                logger.warning("%s was not pushed, the run goes on: %s", job.folder, reason)
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
        """Push a folder: None, or why that failed."""
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
    copy = tempfile.TemporaryDirectory(prefix="u2net-push-")
    try:
        for name in _FILES:
            if (folder / name).is_file():
                shutil.copy2(folder / name, copy.name)
    except OSError:
        copy.cleanup()
        raise
    return _Job(folder, copy, message)
