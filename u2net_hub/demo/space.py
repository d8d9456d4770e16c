"""The demo as a Hugging Face Space: which files it holds, and how they are pushed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from .. import __version__

if TYPE_CHECKING:
    from ..hub import Pushed


_PACKAGE = Path(__file__).parents[1]
_SHIPPED = ("examples", "space")


def shipped(name: str) -> Path:
    """Find a folder that is installed in the package, or lies beside it in a checkout.

    Args:
        name: "space" or "examples".

    Raises:
        FileNotFoundError: The folder is in neither place.
    """
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"{name}/ is neither in {_PACKAGE} nor beside it; install u2net-hub again, from a wheel or a checkout"
    )


Hardware: TypeAlias = Literal["cpu", "gpu"]
"""What a Space runs on; "gpu" includes ZeroGPU."""


def requirements(text: str, hardware: Hardware) -> str:
    """Adapt the Space's requirements to its hardware.

    Args:
        text: The content of space/requirements.txt, which is for a CPU.
        hardware: What the Space runs on. A GPU needs a torch with CUDA, and runs no other engine.
    """
    if hardware == "cpu":
        return text
    lines = [line for line in text.splitlines() if not line.rstrip().endswith("# cpu")]
    return "\n".join(lines).replace("+cpu", "") + "\n"


def space_files(hardware: Hardware = "cpu") -> dict[str, Path | bytes]:
    """List the files of the Space: those of space/, the package as u2net_hub/, and the licence.

    Args:
        hardware: What the Space runs on.

    Returns:
        The name of each file in the Space, and its path on this machine or its content.

    Raises:
        FileNotFoundError: A part of the installed package is missing.
    """
    space = _files(shipped("space"))
    found: dict[str, Path | bytes] = {name: space[name] for name in space if not name.startswith("web/")}
    listed = (shipped("space") / "requirements.txt").read_text(encoding="utf-8")
    found["requirements.txt"] = requirements(listed, hardware).encode()
    package = {name: path for name, path in _files(_PACKAGE).items() if name.split("/")[0] not in _SHIPPED}
    found |= {f"u2net_hub/{name}": path for name, path in package.items()}
    found |= {f"u2net_hub/examples/{name}": path for name, path in _files(shipped("examples")).items()}
    for folder in ("", f"u2net_hub-{__version__}.dist-info/licenses"):
        if (path := _PACKAGE.parent / folder / "LICENSE").is_file():
            found["LICENSE"] = path
    return found


def push_space(
    repo_id: str,
    *,
    models: Sequence[str] = (),
    hardware: Hardware = "cpu",
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    tag: str | None = None,
    token: str | bool | None = None,
) -> Pushed:
    """Push the demo to a Space in one commit. The Space is created if it does not exist.

    The package lies in the Space as the folder u2net_hub/, from which app.py imports it. Files that an
    earlier push left in that folder and that no longer belong to the package are deleted.

    Args:
        repo_id: Name of the Space, "org/name".
        models: Sources of the models that the Space shows. By default its settings stay as they are.
        hardware: What the Space runs on, which decides its packages. The hardware itself is chosen in the
            settings of the Space.
        private: Whether a new Space is private. By default the settings of the account decide.
        branch: Branch to push to. By default it is main.
        create_pr: Open a pull request instead of a commit to the branch.
        commit_message: First line of the commit. By default "Upload the demo with u2net-hub".
        tag: A name for the commit.
        token: Token with write permission. By default the one that `hf auth login` has stored.

    Raises:
        HubError: The Hub refuses the push or cannot be reached.
        ValueError: The arguments contradict each other, or the Space is public and `private` is True.
        FileNotFoundError: A part of the installed package is missing.
    """
    from ..hub import BranchState, Content, call, make_client, push_files

    def contents(head: BranchState) -> dict[str, Content]:
        old = [
            name
            for name in head.hashes
            if name.startswith("u2net_hub/") or (name.startswith("u2net_hub-") and name.endswith(".whl"))
        ]
        return {**dict.fromkeys(old), **space_files(hardware)}

    pushed = push_files(
        repo_id,
        contents,
        commit_message=commit_message or "Upload the demo with u2net-hub",
        repo_type="space",
        space_sdk="gradio",
        private=private,
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


def _files(folder: Path) -> dict[str, Path]:
    """The files of a folder by name, without caches, hidden files and the screenshots of the README."""
    names = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in names.items()
        if path.suffix != ".webp" and not any(part.startswith((".", "__pycache__")) for part in name.parts)
    }
