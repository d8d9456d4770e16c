"""The model card: a README.md made from a config, its results and facts about the training data.

Generated text stands between marks, so that the rest of a README stays as people wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from ...config import LIBRARY_NAME, U2NetConfig
from ...evaluation import Results
from ..addresses import WEIGHT_SUFFIXES
from ..client import redact_tokens
from ..loaders import Loader
from .front_matter import PIPELINE, card_fields, load_fields, merge_fields
from .markdown import last_parts
from .sections import BEGIN, Weights, card_sections, merge_sections

PICTURE_NAME = "example.webp"
"""The name of the picture on the card: a photo from examples/, its map and its cutout."""


def render_card(
    config: U2NetConfig,
    results: Results | None = None,
    *,
    name: str,
    weights: Weights | None = None,
    picture: bool = False,
    loaders: Sequence[Loader] = (),
    license: str | None = None,
    existing: str | None = None,
) -> str:
    """Make the text of README.md.

    Args:
        config: The architecture and the preprocessing.
        results: The known scores, training and speed.
        name: The name on the Hub, "org/name", or a bundled name.
        weights: The file that the card describes. None if it is not here; the card then says where to get it.
        picture: Whether example.webp lies beside the card.
        loaders: The other libraries whose files lie beside the card.
        license: The licence of the weights, under the Hub's name for it. None keeps the one in `existing`, or
            else uses Apache 2.0.
        existing: The text of a README.md to update. Only our fields and the marked sections change.

    Raises:
        ValueError: The front matter of `existing` is not YAML, or the results belong to other weights.
    """
    if results is not None:
        results = without_folders(results) if weights is None else results_of(results, weights.sha256)
    sections = card_sections(config, results, name, weights, picture, loaders)
    fields = card_fields(config, results, name, license)
    existing = existing or ""
    crlf = "\r\n" in existing and not re.search(r"(?<!\r)\n", existing)
    text = existing.removeprefix("\ufeff").replace("\r\n", "\n")
    block = REGEX_YAML_BLOCK.search(text)
    head = "" if block is None else block[2].strip("\n") + "\n"
    body = text if block is None else text[block.end() :]
    head = merge_fields(head, fields, keep_license=license is None)
    merged = f"---\n{head}---\n{merge_sections(body, sections)}"
    return merged.replace("\n", "\r\n") if crlf else merged


def results_of(results: Results, sha256: str) -> Results:
    """Prepare results for publication with a file of weights: check the hash, and shorten all paths.

    Args:
        results: The results. Those without a hash stay so; the card says that a person gave them.
        sha256: The SHA-256 of the file of weights.

    Raises:
        ValueError: The results were measured on other weights.
    """
    results = without_folders(results)
    if not any(dataset.measured for dataset in results.datasets.values()):
        return results
    if results.weights_sha256 not in (None, sha256):
        raise ValueError(
            f"the results are of weights with the SHA-256 {results.weights_sha256}, and these have {sha256}; "
            "measure these with: u2net eval"
        )
    return results


def without_folders(results: Results) -> Results:
    """Shorten each path of the machine to its last part, e.g. `--model /home/me/x.pth` to `--model x.pth`."""
    training = results.training
    if training is not None:
        start = training.start
        if start is not None:
            # a file of weights is never a name on the Hub
            start = Path(start).name if start.lower().endswith(WEIGHT_SUFFIXES) else last_parts(start)
        training = replace(
            training, start=start, recipe=_recorded(training.recipe), command=_recorded(training.command)
        )
    command = None if results.command is None else _recorded(results.command)
    return replace(results, command=command, training=training)


def _recorded(text: str) -> str:
    """Remove folders and tokens from what the library recorded by itself."""
    return redact_tokens(last_parts(text))


def validate_card(text: str) -> None:
    """Check a card's front matter by the Hub's rules, as far as that is possible offline.

    Raises:
        ValueError: The card is not valid; the message lists every problem.
    """
    block = REGEX_YAML_BLOCK.search(text)
    if block is None:
        raise ValueError("the card has no front matter, expected YAML between two lines of ---")
    data = load_fields(block[2])
    problems = [
        f"{key} is {data.get(key)!r}, expected {expected!r}"
        for key, expected in (("library_name", LIBRARY_NAME), ("pipeline_tag", PIPELINE))
        if data.get(key) != expected
    ]
    for key in ("tags", "datasets"):
        values = data.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            problems.append(f"{key} is {values!r}, expected a list of words")
    if not isinstance(data.get("license"), str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", data["license"]):
        problems.append(
            f"license is {data.get('license')!r}, expected one of the Hub's names, such as apache-2.0"
        )
    try:
        ModelCardData(**data)
    except (ValueError, TypeError) as e:
        problems.append(str(e))
    names = re.findall(BEGIN.format(name=r"([\w-]+)"), text)
    problems += [
        f"section {name!r} is there twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if problems:
        raise ValueError("the card is not valid: " + "; ".join(problems))
