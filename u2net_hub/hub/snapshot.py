"""The files of one commit of a repo, downloaded on demand and compared with the Hub's hashes."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented all the same

from ..atomic import content_hash, write_file
from ..config import LIBRARY_NAME
from .client import ATTEMPTS, call, make_client
from .errors import CorruptFileError, HubUnavailableError, NotCachedError

logger = logging.getLogger(__name__)


_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REVISION = re.compile(r"(?![/.-])(?!.*(\.\.|//|@\{))[^\x00-\x20\x7f~^:?*\[\\]{1,255}(?<![/.])")
_FILENAME = re.compile(r"\w[\w.+ -]*")


class Snapshot:
    """The files of one commit of a model repo; each is downloaded on request, and its hash is always checked.

    Args:
        repo_id: The name of the repo, "org/name".
        revision: A branch, tag or commit; None is main. It is resolved to a commit once, here.
        token: The token for a private or gated repo. None uses the one stored by `hf auth login`.
        cache_dir: A folder that replaces the client's cache folder.
        local_files_only: Use the cache without a request. HF_HUB_OFFLINE=1 does the same.

    Raises:
        HubError: The revision cannot be resolved and is not in the cache.
        ValueError: `revision` is not a valid name of a revision.
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
        self._api = make_client(token)
        self._cache = Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute()
        self._folder = self._cache / repo_folder_name(repo_id=repo_id, repo_type="model")
        self._may_ask = not (local_files_only or constants.HF_HUB_OFFLINE)
        self._looked_up = False
        self.commit, self._hashes = self._remembered()
        # the content of a commit never changes, but a branch can move
        if self._may_ask and not (self.commit == self.revision and self._record.is_file()):
            self._look_up()
        elif not self.commit:
            raise self._not_cached("config.json")

    @property
    def names(self) -> list[str]:
        """The names of the files at the root of the repo, except those that could lead out of a folder."""
        return sorted(name for name in self._hashes if _FILENAME.fullmatch(name))

    def path(self, name: str) -> Path:
        """Download a file, unless the cache has it, and check its hash; `name` is one of `names`.

        Raises:
            CorruptFileError: The hash is wrong. The file was removed; the next call downloads it again.
            HubError: The file cannot be fetched.
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
        """Record the revision and the hashes for loading offline; call it after all downloads."""
        if not self._looked_up:
            return
        try:
            write_file(self._record, json.dumps(self._hashes, indent=1).encode())
            if self.revision != self.commit:
                write_file(self._folder / "refs" / self.revision, self.commit.encode())
        except OSError as e:
            logger.warning("%s: cannot note the commit for offline use: %s", self.repo_id, e)

    @property
    def _record(self) -> Path:
        return self._folder / LIBRARY_NAME / f"{self.commit}.json"

    def _remembered(self) -> tuple[str, dict[str, str]]:
        """Read the commit of the revision ("" if unknown) and the hashes by file name from the cache."""
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
            # Another client filled the cache. Its files are links to blobs, and a blob's name is its hash.
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
        # a link to a blob of another name would fail the next check offline
        if found != expected or (_HASH.fullmatch(linked) and linked != expected):
            told = expected if found != expected else f"{expected} and {linked}"
            self._discard(path)
            raise CorruptFileError(
                f"{where}: its hash is {found}, but the Hub gave {told}; the file was removed: "
                "load again to fetch it anew, and if that fails as well tell the repo's owner",
                repo_id=self.repo_id,
                file=path.name,
            )

    def _discard(self, path: Path) -> None:
        """Remove a file of the cache and the blob in the cache that it links to."""
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
    """The client's progress bar, labelled with the file's name; its own label is a part of a signed URL."""

    class Bar(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **(kwargs | {"desc": name}))  # type: ignore[no-untyped-call]

    return Bar


def check_revision(revision: str) -> str:
    """Check that git allows a revision of this name, and return it.

    Raises:
        ValueError: Git does not allow the name, which could lead out of the cache folder.
    """
    if not _REVISION.fullmatch(revision):
        raise ValueError(f"revision is {revision!r}, expected a branch, tag or commit, e.g. 'main' or 'v1.0'")
    return revision
