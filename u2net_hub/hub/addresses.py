"""The ways in which people name a model on the Hub."""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".onnx", ".xml", ".index.json")
"""The ends of the names of files that are read as weights."""

_REPO = re.compile(r"(?!.*(--|\.\.))\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)
_REVISION_AND_PATH = re.compile(r"(refs/(?:pr|convert)/[^/]+|[^/]+)/(.+)")
_PAGES = ("tree", "blob", "resolve", "raw", "commit")
_OTHER_SUFFIXES = tuple(
    f".{name}"
    for name in (
        *("csv", "gguf", "gif", "gz", "h5", "hdf5", "jpeg", "jpg", "json", "keras", "md", "npy", "npz", "pb"),
        *("pickle", "pkl", "png", "py", "tar", "tflite", "tif", "tiff", "txt", "webp", "yaml", "yml", "zip"),
    )
)


class Address(NamedTuple):
    """A place on the Hub."""

    repo_id: str
    """ "org/name"."""
    revision: str | None = None
    """A branch, tag or commit."""
    path: str = ""
    """A file or folder in the repo."""
    explicit: bool = False
    """Whether it was written as hf://, hf-hub: or the address of a page, so that it can be no local path."""


def parse_address(source: str) -> Address | None:
    """Read the name of a model on the Hub; None if it is none.

    The forms are "org/name", "org/name@revision", "org/name/path/to/file.pth" and
    "org/name@revision/path/to/file.pth", each also after "hf-hub:" or "hf://", and the address of a page.

    Raises:
        ValueError: It is the address of something else than a model.
    """
    if source.startswith(("http://", "https://")):
        return _parse_page(source)
    text = source.removeprefix("hf-hub:").removeprefix("hf://").removeprefix("models/")
    explicit = source.startswith(("hf-hub:", "hf://"))
    if explicit and text.startswith(("spaces/", "datasets/")):
        raise ValueError(f"{source!r} is a Space or a data set, expected a model: hf://org/name")
    place, _, revision = (text if explicit else source).partition("@")
    repo_id, path = _split(place)
    match = _REVISION_AND_PATH.fullmatch(revision)
    if match and match[2].lower().endswith(WEIGHT_SUFFIXES):
        revision, path = match[1], path or match[2]
    if not _REPO.fullmatch(repo_id) or not _is_inside(path):
        return None
    if not explicit and (not path.lower().endswith(WEIGHT_SUFFIXES) if path else _is_file(repo_id)):
        return None  # "weights/u2net.pth" is a local file, and "a/b/c" a local folder
    return Address(repo_id, revision or None, path, explicit)


def is_hub_id(source: str) -> bool:
    """Tell whether this names a repo on the Hub, e.g. "org/name@revision". Names of files do not."""
    try:
        address = parse_address(source)
    except ValueError:
        return False
    return address is not None and not address.path


def full_address(source: str) -> str | None:
    """Write a name so that it can be nothing but one on the Hub; None if it is none."""
    for address in (f"https://{source}", f"hf://{source}"):
        with suppress(ValueError):
            if parse_address(address) is not None:
                return address
    return None


def path_inside(subfolder: str | Path | None, filename: str | Path | None) -> str:
    """Join a folder and a file of a repo or folder; "" if neither is given.

    Raises:
        ValueError: The path leads out.
    """
    parts = [part.as_posix() if isinstance(part, Path) else part for part in (subfolder, filename) if part]
    path = PurePosixPath(*(part.strip("/") for part in parts)).as_posix()
    if path == ".":
        return ""
    if not _is_inside(path):
        raise ValueError(
            f"filename= and subfolder= name {path!r}, expected a path inside, with / between folders"
        )
    return path


def _split(place: str) -> tuple[str, str]:
    """Split "org/name/path/to/file" after the name."""
    parts = place.rstrip("/").split("/", 2)
    return "/".join(parts[:2]), "/".join(parts[2:])


def _parse_page(source: str) -> Address:
    from huggingface_hub import constants  # takes time to import

    parts = urlsplit(source)
    hosts = {urlsplit(constants.ENDPOINT).netloc, "huggingface.co", "www.huggingface.co", "hf.co"}
    if parts.netloc not in hosts:
        raise ValueError(
            f"{source!r} is not on the Hub; download the file, e.g. with curl, and give its path instead"
        )
    names = [unquote(name) for name in parts.path.strip("/").split("/")]
    repo_id, rest = "/".join(names[:2]), names[2:]
    path = "/".join(rest[2:])
    page = not rest or (rest[0] in _PAGES and len(rest) > 1) or rest == ["tree"]
    if not _REPO.fullmatch(repo_id) or names[0] in ("spaces", "datasets") or not page or not _is_inside(path):
        raise ValueError(f"{source!r} is not the page of a model or of its files, expected {_page(parts)}")
    return Address(repo_id, rest[1] if len(rest) > 1 else None, path, explicit=True)


def _page(parts: SplitResult) -> str:
    """The form of the address of a model's page on the same host."""
    return f"{parts.scheme}://{parts.netloc}/org/name"


def _is_inside(path: str) -> bool:
    """Tell whether a path stays in its repo."""
    return not path or (all(name not in ("", ".", "..") for name in path.split("/")) and "\\" not in path)


def _is_file(path: str) -> bool:
    """Tell whether a path ends like a file of weights, even if it is mistyped, or like another usual file."""
    suffix = PurePosixPath(path).suffix.lower()
    return (
        path.lower().endswith(WEIGHT_SUFFIXES)
        or suffix in _OTHER_SUFFIXES
        or bool(difflib.get_close_matches(suffix, WEIGHT_SUFFIXES, cutoff=0.74))
    )
