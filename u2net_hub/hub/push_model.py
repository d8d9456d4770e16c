"""Push a folder with a model to the Hub: config, weights, results and card in one commit."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..atomic import content_hash
from ..config import U2NetConfig
from ..evaluation import Results
from .bundled import CONFIG_NAME, RESULTS_NAME
from .card import PICTURE_NAME, Weights, render_card, results_of
from .errors import UnusableRepoError
from .layouts import WEIGHTS_NAME
from .loaders import GRAPH_NAME, GRAPHS, LOADER_FILES, MakeExtra, laid_out, without_graphs
from .push import BranchState, Content, Pushed, full_repo_id, push_files

logger = logging.getLogger(__name__)

CARD_NAME = "README.md"
CURVES_NAME = "curves.npz"
FILES = (CONFIG_NAME, WEIGHTS_NAME, RESULTS_NAME, CURVES_NAME, PICTURE_NAME)


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    branch: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    token: str | bool | None = None,
    license: str | None = None,
    extra: MakeExtra | None = None,
) -> Pushed:
    """Push config.json and model.safetensors, and results.json, curves.npz and example.webp if they exist.

    The card is made from them; in a README.md of the repo, only our fields and the marked sections change.
    Without new results, those in the repo are kept if the weights are the same, and deleted otherwise.
    Without `extra`, the same holds for the graphs that this library made for other loaders.

    Args:
        folder: A folder that `save_pretrained` and `Results.save` wrote.
        repo_id: The name of the repo, "org/name", or a bare name in the token's own account.
        commit_message: The first line of the commit. None is "Upload model with u2net-hub".
        commit_description: The other lines of the commit.
        private: Whether a new repo is private. With True, an existing repo must be private too.
        branch: The branch to commit to. None is main.
        create_pr: Open a pull request.
        tag: A tag for the commit.
        token: A token with write permission.
        license: The licence of the weights, under the Hub's name for it. None keeps the one in the repo's
            README, or else uses "apache-2.0".
        extra: Makes the files for other loaders, as `engines.keep_loaders` does.

    Raises:
        HubError: The Hub refuses or cannot be reached.
        FileNotFoundError: config.json or model.safetensors is missing.
        ValueError: The results belong to other weights, or a file is damaged.
    """
    folder = Path(folder)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}, expected a folder as save_pretrained writes it")
    repo_id = full_repo_id(repo_id, token)
    return push_files(
        repo_id,
        lambda head: folder_contents(folder, repo_id, head, license=license, extra=extra),
        commit_message=commit_message or "Upload model with u2net-hub",
        commit_description=commit_description,
        private=private,
        branch=branch,
        create_pr=create_pr,
        tag=tag,
        token=token,
    )


def folder_contents(
    folder: Path,
    repo_id: str,
    head: BranchState | None = None,
    *,
    license: str | None = None,
    extra: MakeExtra | None = None,
) -> dict[str, Content]:
    """Collect the files that `push_folder` pushes, by name. Without `head`, they are those for a new repo."""
    weights = folder / WEIGHTS_NAME
    sha256 = content_hash(weights)
    there = head.hashes if head is not None else {}
    files: dict[str, Content] = {name: folder / name for name in FILES if (folder / name).is_file()}
    results: Results | None = None
    if RESULTS_NAME in files:
        results = results_of(Results.load(folder / RESULTS_NAME), sha256)
        files[RESULTS_NAME] = _results_text(results, head)
    elif there.get(WEIGHTS_NAME) == sha256 and (old := _read_text(head, RESULTS_NAME)) is not None:
        results = _read_results(old, repo_id)
    if there.get(WEIGHTS_NAME) != sha256:  # the results there were measured on other weights
        files |= {name: None for name in (RESULTS_NAME, CURVES_NAME) if name in there and name not in files}
    config = U2NetConfig.load(folder / CONFIG_NAME)
    entries = {**_foreign_entries(head), **config.other}
    loaders = laid_out(entries)
    if extra is not None:
        made = extra(entries)
        files |= made.files
        entries |= made.config
    elif there.get(WEIGHTS_NAME) not in (None, sha256) and any(
        GRAPH_NAME in LOADER_FILES[each] for each in loaders
    ):
        logger.warning(
            "%s: its graphs for other loaders are of the former weights, and are deleted; push with --for %s "
            "to make new ones", repo_id, " --for ".join(loaders),
        )  # fmt: skip
        files |= {name: None for name in GRAPHS if name in there}
        entries = without_graphs(entries)
    if entries:
        config = config.replace(other=entries)
        files[CONFIG_NAME] = config.to_json().encode()
    files[CARD_NAME] = render_card(
        config,
        results,
        name=repo_id,
        weights=Weights.of(weights, sha256),
        picture=PICTURE_NAME in files or PICTURE_NAME in there,
        loaders=laid_out(entries),
        license=license,
        existing=_read_text(head, CARD_NAME),
    ).encode()
    return files


def _results_text(results: Results, head: BranchState | None) -> bytes:
    """Write results.json. Given scores that are there already keep the date on which they were given."""
    content = results.to_dict()
    if results.weights_sha256 is None and (old := _read_text(head, RESULTS_NAME)) is not None:
        with suppress(ValueError, RecursionError):
            before = json.loads(old)
            if isinstance(before, dict) and {**content, **_origin(before)} == before:
                content = before
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _origin(content: Mapping[str, object]) -> dict[str, object]:
    return {name: content.get(name) for name in ("date", "versions")}


def _foreign_entries(head: BranchState | None) -> dict[str, object]:
    """Read the entries of other libraries in the config.json of a branch."""
    text = _read_text(head, CONFIG_NAME)
    try:
        content = json.loads(text or "{}")
        return dict(U2NetConfig.from_dict(content).other) if isinstance(content, dict) else {}
    except (ValueError, RecursionError):  # it is damaged, or another library's: it is replaced
        return {}


def _read_results(text: str, repo_id: str) -> Results:
    """Read the results.json of a branch."""
    try:
        return Results.from_dict(json.loads(text))
    except (ValueError, RecursionError) as e:
        reason = "it is not valid JSON" if isinstance(e, json.JSONDecodeError | RecursionError) else str(e)
        raise UnusableRepoError(
            f"{repo_id}: {RESULTS_NAME} in the repo cannot be read ({reason}); nothing was pushed: "
            "correct or rename it there, or give metrics= (--results), which replace it",
            repo_id=repo_id,
            file=RESULTS_NAME,
        ) from e


def _read_text(head: BranchState | None, name: str) -> str | None:
    """Read a text of a branch; None if there is none."""
    content = None if head is None else head.read(name)
    if head is None or content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError as e:
        raise UnusableRepoError(
            f"{head.repo_id}: {name} in the repo is not UTF-8 text (byte {e.start} is "
            f"{content[e.start]:#04x}); nothing was pushed: save it there as UTF-8, and push again",
            repo_id=head.repo_id,
            file=name,
        ) from e
