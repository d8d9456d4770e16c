"""The card's sections, each between its own marks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ...checkpoints import count_parameters
from ...config import INSTALL, U2NetConfig
from ...evaluation import COLUMNS, Results, Training, published_scores
from .front_matter import slug, task
from .markdown import code, escape, format_score, line, shell


@dataclass(frozen=True)
class Weights:
    """The facts about the file of weights on the card."""

    sha256: str
    size: int
    """The size of the file in bytes."""
    precision: str
    """The types of the weights, e.g. "float16 and float32"."""

    @classmethod
    def of(cls, path: Path, sha256: str) -> Weights:
        """Read the header of a .safetensors file."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            kinds = {str(file.get_slice(key).get_dtype()) for key in file.keys()}  # noqa: SIM118
        names = [_PRECISIONS[kind] for kind in sorted(kinds) if kind in _PRECISIONS]
        return cls(sha256, path.stat().st_size, " and ".join(names))


_PRECISIONS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True)
class _Data:
    """A common training data set and its terms of use."""

    name: str
    url: str
    content: str
    terms: str


_DATA = {
    "duts-tr": _Data(
        "DUTS-TR",
        "http://saliencydetection.net/duts/",
        "10,553 photos of ImageNet's detection sets with masks drawn by hand (Wang et al., CVPR 2017)",
        "published for research, to be cited; its authors state no licence, and the photos are ImageNet's, "
        "whose terms allow non-commercial research and teaching. Whether weights made from them may be used "
        "for more is for you to judge.",
    ),
}


BEGIN = r"<!-- u2net-hub: begin {name}\b[^<>]*-->"
_END = r"<!-- u2net-hub: end {name} -->"


def _marked(name: str, text: str) -> str:
    begin = f"<!-- u2net-hub: begin {name} (generated: what is written between the marks is replaced) -->"
    return f"{begin}\n\n{text.strip()}\n\n<!-- u2net-hub: end {name} -->"


def merge_sections(body: str, sections: Mapping[str, str]) -> str:
    """Replace the marked sections by ours; a new section goes beside its neighbours, or to the end."""
    if not body.strip():
        return "\n" + "\n\n".join(_marked(*section) for section in sections.items()) + "\n"
    last = 0
    for name in _NAMES:
        span, text = _span(body, name), sections.get(name)
        if text is None:
            if span is not None:
                body = body[: span[0]].rstrip("\n") + body[span[1] :]
            continue
        section = _marked(name, text)
        if span is not None:
            body = body[: span[0]] + section + body[span[1] :]
            last = span[0] + len(section)
        elif name == "intro":
            continue  # people replaced or deleted it
        elif last:
            body = f"{body[:last]}\n\n{section}{body[last:]}"
            last += 2 + len(section)
        elif following := [found for other in _NAMES if (found := _span(body, other)) is not None]:
            at = min(following)[0]
            body = f"{body[:at]}{section}\n\n{body[at:]}"
            last = at + len(section)
        else:
            body = f"{body.rstrip()}\n\n{section}"
            last = len(body)
    return body if body.endswith("\n") else body + "\n"


def _span(body: str, name: str) -> tuple[int, int] | None:
    """The span of a section with its marks; None if a mark is missing or other marks lie between."""
    begin = re.search(BEGIN.format(name=name), body)
    end = begin and re.compile(_END.format(name=name)).search(body, begin.end())
    if not begin or not end or "<!-- u2net-hub:" in body[begin.end() : end.start()]:
        return None
    return begin.start(), end.end()


def card_sections(
    config: U2NetConfig,
    results: Results | None,
    name: str,
    weights: Weights | None,
    picture: bool,
    loaders: Sequence[str] = (),
) -> dict[str, str]:
    """Write the text of each section, by name and in order."""
    training = results.training if results is not None else None
    template = _ENVIRONMENT.get_template("card.md.jinja")
    context = template.new_context(
        {
            "name": name,
            "on_hub": "/" in name,
            "title": _TITLES.get(config.variant, "U²-Net with a table of its own"),
            "task": task(config),
            "config": config,
            "results": results,
            "measured": results is not None and any(d.measured for d in results.datasets.values()),
            "given": results is not None and is_given(results),
            "install": INSTALL,
            "scores": _scores(results),
            "history": _history(training),
            "training": training,
            "data": [
                (item, _DATA.get(slug(item))) for item in (training.data if training is not None else ())
            ],
            "weights": weights,
            "loaders": loaders,
            "parameters": count_parameters(config),
        }
    )
    absent = {"picture"} if not picture else set()
    if not loaders or weights is None:
        absent.add("loaders")
    names = [key for key in _NAMES if key not in absent]
    return {key: "".join(template.blocks[key](context)) for key in names}


_NAMES = (
    "intro",
    "picture",
    "use",
    "loaders",
    "architecture",
    "training",
    "scores",
    "speed",
    "limits",
    "citation",
)
_TITLES = {"u2net": "U²-Net", "u2netp": "U²-Net†"}


def _history(training: Training | None) -> list[list[str]]:
    """List the rows of the table of scores during training, the head first: at most twelve validations."""
    if training is None or not training.history:
        return []
    points = training.history
    keys = [key for key in points[-1] if key != "hours"]
    rows = [["hours", *(COLUMNS.get(key, key) for key in keys)]]
    shown = sorted({round(i * (len(points) - 1) / 11) for i in range(12)})
    for point in (points[i] for i in shown):
        cells = (f"{point[key]:.4f}" if key in point else "–" for key in keys)
        rows.append([f"{point['hours']:.2f}", *cells])
    return rows


def _scores(results: Results | None) -> list[list[str]]:
    """List the rows of the table of scores, the head first; rows from papers follow the measured ones."""
    if results is None or not results.datasets:
        return []
    used = {key for dataset in results.datasets.values() for key in dataset.scores}
    keys = [key for key in COLUMNS if key in used]
    rows = [["data set", "pictures", "scores of", *(COLUMNS[key] for key in keys)]]

    def add(name: str, n: int, label: str, scores: Mapping[str, float | None], digits: int) -> None:
        cells = ("–" if scores.get(key) is None else format_score(key, scores[key], digits) for key in keys)
        rows.append([name, f"{n:,}" if n else "–", label, *cells])

    for name, dataset in results.datasets.items():
        if dataset.measured:
            label = "these weights (given, not measured here)" if is_given(results) else "these weights"
            add(name, dataset.n, label, dataset.scores, 4)
            for label, other in published_scores(name).items():
                add("", other.n, label, other.scores, 3)
        else:
            add(name, dataset.n, "the paper (not measured here)", dataset.scores, 3)
    return rows


def is_given(results: Results) -> bool:
    """Tell whether a person gave the scores: scores that `evaluate` measured carry the weights' hash."""
    return results.weights_sha256 is None and any(d.measured for d in results.datasets.values())


_ENVIRONMENT = Environment(
    loader=PackageLoader("u2net_hub.hub.card", "."),
    finalize=escape,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)
_ENVIRONMENT.filters |= {"code": code, "line": line, "shell": shell}
