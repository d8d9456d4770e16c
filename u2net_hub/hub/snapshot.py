"""The files of one commit of a repo, downloaded on demand and compared with the Hub's hashes."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import SafetensorsParsingError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented all the same

from ..atomic import content_hash, write_file
from ..config import LIBRARY_NAME
from .client import ATTEMPTS, call, make_client
from .errors import CacheNotWritableError, CorruptFileError, HubError, HubUnavailableError, NotCachedError

logger = logging.getLogger(__name__)


_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REVISION = re.compile(r"(?![/.-])(?!.*(\.\.|//|@\{))[^\x00-\x20\x7f~^:?*\[\\]{1,255}(?<![/.])")
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


class Snapshot:
    """The files of one commit of a model repo; each is downloaded on request, and its hash is always checked.

    Args:
        repo_id: The name of the repo, "org/name".
        revision: A branch, tag or commit; None is main. It is resolved to a commit once, here.
        token: The token for a private or gated repo. None uses the one stored by `hf auth login`.
        cache_dir: A folder that replaces the client's cache folder.
        local_files_only: Use the cache without a request. HF_HUB_OFFLINE=1 does the same.
        force_download: Download each file anew, even if the cache has it.

    Raises:
        HubError: The revision cannot be resolved and is not in the cache.
        ValueError: `revision` is not a valid name of a revision, or the arguments contradict each other.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> None:
        self.repo_id = repo_id
        self.revision = check_revision(revision or constants.DEFAULT_REVISION)
        self._api = make_client(token)
        self._cache = Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute()
        self._folder = self._cache / repo_folder_name(repo_id=repo_id, repo_type="model")
        self._may_ask = not (local_files_only or constants.HF_HUB_OFFLINE)
        if force_download and not self._may_ask:
            raise ValueError(
                "force_download=True asks the Hub, which local_files_only=True or HF_HUB_OFFLINE=1 forbids; "
                "leave one of them out"
            )
        self._force = force_download
        self._looked_up = False
        self._verified: dict[str, Path] = {}
        self.commit, self._hashes = self._remembered()
        self._before = self.commit, self._hashes
        # the content of a commit never changes, but a branch can move
        if self._may_ask and not (self.commit == self.revision and self._record.is_file()):
            self._look_up()
        elif not self.commit:
            raise self._not_cached("config.json")

    @property
    def names(self) -> list[str]:
        """The paths of the files in the repo, except hidden ones and those that lead out of a folder."""
        return sorted(name for name in self._hashes if _is_safe(name))

    @property
    def folder(self) -> Path:
        """The folder of the cache that holds the files of this commit."""
        return self._folder / "snapshots" / self.commit

    def path(self, name: str) -> Path:
        """Download a file, unless the cache has it, and check its hash; `name` is one of `names`.

        A file with a wrong hash is removed and downloaded once more.

        Raises:
            CorruptFileError: The hash is wrong, of the second download too. The file was removed.
            CacheNotWritableError: The file is not in the cache, and nothing can be written there.
            HubError: The file cannot be fetched.
        """
        if name in self._verified:
            return self._verified[name]
        path = self.folder / name
        for again in (False, True):
            if self._force or not path.exists():
                self._download(name)
            try:
                self._verify(path, name)
                break
            except CorruptFileError as e:
                if again or not self._may_ask or path.exists():
                    raise
                logger.warning("%s: %s was damaged; downloading it again (%s)", self.repo_id, name, e)
        self._verified[name] = path
        return path

    def tensor_shapes(self, name: str) -> dict[str, tuple[int, ...]] | None:
        """Ask for the header of a .safetensors file; None if the cache has the file, or it has no header."""
        if not (self._may_ask and name.endswith(".safetensors")) or (self.folder / name).exists():
            return None
        try:
            header = call(
                lambda: self._api.parse_safetensors_file_metadata(self.repo_id, name, revision=self.commit),
                self.repo_id,
                name,
                revision=self.revision,
                attempts=1,
            )
        except (HubError, SafetensorsParsingError) as e:
            logger.info("%s", e)
            return None  # the download finds the same fault, or none
        return {key: tuple(tensor.shape) for key, tensor in header.tensors.items()}

    def go_back(self, reason: Exception) -> bool:
        """Go on with the commit that the cache had before; False if there is none."""
        commit, hashes = self._before
        if not commit or commit == self.commit:
            return False
        logger.warning("%s (going on with commit %s from the cache)", reason, commit)
        self.commit, self._hashes, self._looked_up = commit, hashes, False
        self._verified.clear()
        self._force = False
        return True

    def _download(self, name: str) -> None:
        if not self._may_ask:
            raise self._not_cached(name)
        try:
            call(
                lambda: self._api.hf_hub_download(
                    self.repo_id,
                    name,
                    revision=self.commit,
                    cache_dir=self._cache,
                    etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
                    force_download=self._force,
                    tqdm_class=_bar(name),
                ),
                self.repo_id,
                name,
                revision=self.revision,
                folder=self._cache,
            )
        except HubError as e:
            if e.errno not in _READ_ONLY:
                raise
            raise CacheNotWritableError(str(e), repo_id=self.repo_id, file=name) from e

    def keep(self) -> None:
        """Record the revision and the hashes for loading offline; call it after all downloads."""
        if not self._looked_up:
            return
        contents = {self._record: json.dumps(self._hashes, indent=1).encode()}
        if self.revision != self.commit:
            contents[self._folder / "refs" / self.revision] = self.commit.encode()
        try:
            for path, content in contents.items():
                if not path.is_file() or path.read_bytes() != content:
                    write_file(path, content)
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
            folder = self.folder
            files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
            return (commit, dict.fromkeys(files, "")) if folder.is_dir() else ("", {})

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

    def _verify(self, path: Path, name: str) -> None:
        linked = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
        expected = self._hashes.get(name) or linked
        where = f"{self.repo_id}@{self.commit}: {name}"
        if not _HASH.fullmatch(expected):
            raise CorruptFileError(
                f"{where}: no hash is known of it (got {expected!r}), so it cannot be checked; "
                "load it once while online, and check HF_ENDPOINT if that fails",
                repo_id=self.repo_id,
                file=name,
            )
        found = content_hash(path, git=len(expected) == 40)
        # a link to a blob of another name would fail the next check offline
        if found != expected or (_HASH.fullmatch(linked) and linked != expected):
            told = expected if found != expected else f"{expected} and {linked}"
            removed = self._discard(path)
            raise CorruptFileError(
                f"{where}: its hash is {found}, but the Hub gave {told}; "
                + ("the file was removed: " if removed else f"remove {path} by hand, then ")
                + "load again to fetch it anew, and if that fails as well tell the repo's owner",
                repo_id=self.repo_id,
                file=name,
            )

    def _discard(self, path: Path) -> bool:
        """Remove a file of the cache and the blob in the cache that it links to; False if that fails."""
        try:
            while path.is_relative_to(self._cache):
                link = path.is_symlink()
                target = Path(os.path.normpath(path.parent / os.readlink(path))) if link else None
                path.unlink(missing_ok=True)
                if target is None:
                    break
                path = target
        except OSError:
            return False
        return True

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


def _is_safe(name: str) -> bool:
    """Tell whether a file of a repo may be written below a folder: no hidden, absolute or odd path."""
    return (
        name.isprintable()
        and not set(name) & set('\\:*?"<>|')
        and all(part and part[0] != "." and part[-1] not in ". " for part in name.split("/"))
    )


def check_revision(revision: str) -> str:
    """Check that git allows a revision of this name, and return it.

    Raises:
        ValueError: Git does not allow the name, which could lead out of the cache folder.
    """
    if not _REVISION.fullmatch(revision):
        raise ValueError(f"revision is {revision!r}, expected a branch, tag or commit, e.g. 'main' or 'v1.0'")
    return revision
