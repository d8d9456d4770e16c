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
    """Name and content of the files that `push_folder` brings a branch to; without `head`, of a new repo."""
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
    if there.get(WEIGHTS_NAME) != sha256:  # what was measured on other weights
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
