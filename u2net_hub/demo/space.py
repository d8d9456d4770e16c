"""The demo as a Hugging Face Space: its files, and the wheel of this package that it runs on."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    from ..hub import Pushed


_PACKAGE = Path(__file__).parents[1]
_SHIPPED = ("examples", "space")
# ZIP knows no earlier day; a fixed one makes the same content the same wheel
_DAY = (1980, 1, 1, 0, 0, 0)


def shipped(name: str) -> Path:
    """A folder that comes with the package: "space" or "examples", in it or beside it in a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"{name}/ is neither in {_PACKAGE} nor beside it; install u2net-hub again, as a wheel or a checkout"
    )


def space_files(repo_id: str, *, branch: str = "main") -> dict[str, bytes]:
    """What a Space of the demo holds: the files of space/, and the wheel that its requirements name.

    Args:
        repo_id: "org/name" of the Space.
        branch: of the Space, for the address of the wheel.

    Raises:
        FileNotFoundError: the installed package is not whole.
    """
    from huggingface_hub import constants

    files = {path.name: path.read_bytes() for path in _files(shipped("space"))}
    name, wheel = installed_wheel()
    # the builder of a Space sees requirements.txt and no other file, so the wheel goes by its address
    address = f"{constants.ENDPOINT}/spaces/{repo_id}/resolve/{branch}/{name}"
    line = f"u2net-hub @ {address}#sha256={hashlib.sha256(wheel).hexdigest()}\n"
    files["requirements.txt"] += line.encode()
    files[name] = wheel
    return files


def push_space(
    repo_id: str,
    *,
    models: Sequence[str] = (),
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    tag: str | None = None,
    token: str | bool | None = None,
) -> Pushed:
    """Push the demo to a Space in one commit; the Space is created where it is missing.

    Args:
        repo_id: "org/name" of the Space.
        models: what it shows, as U2NET_MODELS names it; none: what the Space's settings say.
        private: must not be True: the builder of a private Space could not fetch the wheel.
        branch: None: main.
        create_pr: open a pull request.
        commit_message: None: "Upload the demo with u2net-hub".
        tag: a name for the commit.
        token: with write permission.

    Raises:
        HubError: the Hub refuses or cannot be reached.
        ValueError: `private=True`, or the arguments do not go together.
        FileNotFoundError: the installed package is not whole.
    """
    from ..hub import BranchState, Content, call, make_client, push_files

    refusal = (
        f"{repo_id}: a private Space cannot install the wheel that is pushed with it, since its builder has "
        "no token; push a public one"
    )
    if private:
        raise ValueError(refusal)

    def contents(head: BranchState) -> dict[str, Content]:
        if head.private:
            raise ValueError(f"{refusal}, or make this one public in its settings")
        files: dict[str, Content] = dict(space_files(repo_id, branch=branch or "main"))
        old = [name for name in head.hashes if name.startswith("u2net_hub-") and name.endswith(".whl")]
        return {**dict.fromkeys(old), **files}

    pushed = push_files(
        repo_id,
        contents,
        commit_message=commit_message or "Upload the demo with u2net-hub",
        repo_type="space",
        space_sdk="gradio",
        branch=branch,
        create_pr=create_pr,
        tag=tag,
        token=token,
    )
    if models:
        api = make_client(token)
        call(
            lambda: api.add_space_variable(repo_id, "U2NET_MODELS", ",".join(models)),
            repo_id,
            "variable U2NET_MODELS",
            pushing=True,
        )
    return pushed


def installed_wheel() -> tuple[str, bytes]:
    """This package as a wheel, made of its files as they are installed: name and content.

    The same files give the same wheel, byte for byte.

    Raises:
        FileNotFoundError: the package is not installed, only lying there.
        ValueError: what is installed is of another version than the files.
    """
    try:
        installed = distribution("u2net-hub")
    except PackageNotFoundError as e:
        raise FileNotFoundError(
            f"u2net-hub is not installed, so there is no wheel of it; run: pip install {_PACKAGE.parent}"
        ) from e
    if installed.version != __version__:
        raise ValueError(
            f"u2net-hub {installed.version} is installed, its files are of {__version__}; install it again"
        )
    info = f"u2net_hub-{__version__}.dist-info"
    contents = {
        f"u2net_hub/{path.relative_to(_PACKAGE).as_posix()}": path.read_bytes() for path in _files(_PACKAGE)
    }
    for name in _SHIPPED:
        folder = shipped(name)
        for path in _files(folder):
            contents[f"u2net_hub/{name}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    for name in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        contents[f"{info}/{name}"] = (installed.read_text(name) or "").encode()
    contents[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: u2net-hub\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    lines = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(contents.items())]
    contents[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for name, data in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, _DAY)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return f"u2net_hub-{__version__}-py3-none-any.whl", buffer.getvalue()


def _files(folder: Path) -> list[Path]:
    """The files of a folder, without what Python leaves there and without the README's screenshots."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".webp"
    ]


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
