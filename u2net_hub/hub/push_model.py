"""Push a folder with a model to the Hub: config, weights, results and card in one commit."""

from __future__ import annotations

import json
from pathlib import Path

from ..atomic import content_hash
from ..config import U2NetConfig
from ..evaluation import Results
from .card import PICTURE_NAME, Weights, render_card, results_of
from .push import BranchState, Content, Pushed, push_files
from .sources import CONFIG_NAME, RESULTS_NAME, WEIGHTS_NAME

CARD_NAME = "README.md"
CURVES_NAME = "curves.npz"
FILES = (CONFIG_NAME, WEIGHTS_NAME, RESULTS_NAME, CURVES_NAME, PICTURE_NAME)


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
    """Push config.json and model.safetensors, and results.json, curves.npz and example.webp if they exist.

    The card is made from them; in a README.md of the repo, only our fields and the marked sections change.
    Without new results, those in the repo are kept if the weights are the same, and deleted otherwise.

    Args:
        folder: A folder that `save_pretrained` and `Results.save` wrote.
        repo_id: The name of the repo, "org/name".
        commit_message: The first line of the commit. None is "Upload model with u2net-hub".
        private: Whether a new repo is private. With True, an existing repo must be private too.
        branch: The branch to commit to. None is main.
        create_pr: Open a pull request.
        tag: A tag for the commit.
        token: A token with write permission.
        license: The licence of the weights, under the Hub's name for it. None keeps the one in the repo's
            README, or else uses "apache-2.0".

    Raises:
        HubError: The Hub refuses or cannot be reached.
        FileNotFoundError: config.json or model.safetensors is missing.
        ValueError: The results belong to other weights, or a file is damaged.
    """
    folder = Path(folder)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
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
    folder: Path, repo_id: str, head: BranchState | None = None, *, license: str | None = None
) -> dict[str, Content]:
    """Collect the files that `push_folder` pushes, by name. Without `head`, they are those for a new repo."""
    weights = folder / WEIGHTS_NAME
    sha256 = content_hash(weights)
    there = head.hashes if head is not None else {}
    files: dict[str, Content] = {name: folder / name for name in FILES if (folder / name).is_file()}
    results: Results | None = None
    if RESULTS_NAME in files:
        results = results_of(Results.load(folder / RESULTS_NAME), sha256)
        files[RESULTS_NAME] = (json.dumps(results.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()
    elif head is not None and there.get(WEIGHTS_NAME) == sha256:
        old = head.read(RESULTS_NAME)
        results = None if old is None else Results.from_dict(json.loads(old))
    if there.get(WEIGHTS_NAME) != sha256:  # the results there were measured on other weights
        files |= {name: None for name in (RESULTS_NAME, CURVES_NAME) if name in there and name not in files}
    existing = None if head is None else head.read(CARD_NAME)
    files[CARD_NAME] = render_card(
        U2NetConfig.load(folder / CONFIG_NAME),
        results,
        name=repo_id,
        weights=Weights.of(weights, sha256),
        picture=PICTURE_NAME in files or PICTURE_NAME in there,
        license=license,
        existing=None if existing is None else existing.decode(),
    ).encode()
    return files
