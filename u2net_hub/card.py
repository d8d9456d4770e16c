"""The model card: README.md made of a config, its results, and what is known of the training data.

What is made here stands between marks, so that the rest of a README stays as people wrote it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from jinja2 import Environment, PackageLoader, StrictUndefined

from .config import LIBRARY_NAME, U2NetConfig
from .results import COLUMNS, Results, Training, published

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
PICTURE_NAME = "example.webp"
"""A photo from examples/, its map and its cutout, where the repo has one."""

DEFAULT_LICENSE = "apache-2.0"
_TAGS = ("u2net", "salient-object-detection", "background-removal", "saliency", "arxiv:2005.09007")


@dataclass(frozen=True)
class Weights:
    """What the card says of the file of weights."""

    sha256: str
    size: int
    """Bytes."""
    precision: str
    """Such as "float16 and float32"."""

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
    """A data set that people train on, and what may be done with it."""

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


def render(
    config: U2NetConfig,
    results: Results | None = None,
    *,
    name: str,
    weights: Weights | None = None,
    picture: bool = False,
    license: str | None = None,
    existing: str | None = None,
) -> str:
    """The text of README.md.

    Args:
        config: architecture and preprocessing.
        results: scores, training and speed, as far as they are known.
        name: "org/name" on the Hub, or a bundled name.
        weights: the file that the card is of; None: it is not here, and the card tells where it is.
        picture: whether example.webp lies beside the card.
        license: of the weights, as the Hub names it; None: what `existing` says, else Apache 2.0.
        existing: a README.md to bring up to date. Only our fields and the marked sections change.

    Raises:
        ValueError: `existing` has front matter that is not YAML, or the results are of other weights.
    """
    if results is not None and weights is not None:
        results = results_of(results, weights.sha256)
    sections = _sections(config, results, name, weights, picture)
    fields = _fields(config, results, name, license)
    existing = existing or ""
    crlf = "\r\n" in existing and not re.search(r"(?<!\r)\n", existing)
    text = existing.removeprefix("\ufeff").replace("\r\n", "\n")
    block = REGEX_YAML_BLOCK.search(text)
    head = "" if block is None else block[2].strip("\n") + "\n"
    body = text if block is None else text[block.end() :]
    head = _merge_fields(head, fields, keep_license=license is None)
    merged = f"---\n{head}---\n{_merge_sections(body, sections)}"
    return merged.replace("\n", "\r\n") if crlf else merged


def results_of(results: Results, sha256: str) -> Results:
    """The results, with the weights that they are of.

    Raises:
        ValueError: they were measured on other weights.
    """
    if not any(dataset.measured for dataset in results.datasets.values()):
        return results
    if results.weights_sha256 not in (None, sha256):
        raise ValueError(
            f"the results are of weights with the SHA-256 {results.weights_sha256}, and these have {sha256}; "
            "measure these with: u2net eval"
        )
    return replace(results, weights_sha256=sha256)


def validate(text: str) -> None:
    """Check a card's front matter as the Hub does, as far as that goes offline.

    Raises:
        ValueError: with every problem found.
    """
    block = REGEX_YAML_BLOCK.search(text)
    if block is None:
        raise ValueError("the card has no front matter, expected YAML between two lines of ---")
    data = _load(block[2])
    problems = [
        f"{key} is {data.get(key)!r}, expected {expected!r}"
        for key, expected in (("library_name", LIBRARY_NAME), ("pipeline_tag", _PIPELINE))
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
    names = re.findall(_BEGIN.format(name=r"([\w-]+)"), text)
    problems += [
        f"section {name!r} is there twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if problems:
        raise ValueError("the card is not valid: " + "; ".join(problems))


def count_parameters(config: U2NetConfig) -> int:
    """Number of weights that training changes, counted from the table."""

    def conv(inside: int, outside: int, side: int = 3) -> int:
        return (side * side * inside + 1) * outside

    def block(inside: int, outside: int) -> int:
        return conv(inside, outside) + 2 * outside  # batch norm

    depth = (len(config.table) + 1) // 2
    encoder, decoder = config.table[:depth], config.table[depth:]
    inputs = [config.in_channels, *(stage.out for stage in encoder[:-1])]
    below = encoder[-1].out
    for stage, skip in zip(decoder, reversed(encoder[:-1]), strict=True):
        inputs.append(below + skip.out)
        below = stage.out
    n, total = config.out_channels, 0
    for (_, height, mid, out, _), inside in zip(config.table, inputs, strict=True):
        total += block(inside, out) + block(out, mid) + (height - 1) * block(mid, mid)
        total += (height - 2) * block(2 * mid, mid) + block(2 * mid, out)
    sides = (*decoder, encoder[-1])
    return total + sum(conv(stage.out, n) for stage in sides) + conv(depth * n, n, 1)


# Front matter

_PIPELINE = "image-segmentation"


def _fields(
    config: U2NetConfig, results: Results | None, name: str, license: str | None
) -> dict[str, object]:
    """Our fields of the front matter; None takes a field out."""
    training = results.training if results is not None else None
    start = training.start if training is not None else None
    data = ModelCardData(
        license=license or DEFAULT_LICENSE,
        library_name=LIBRARY_NAME,
        pipeline_tag=_PIPELINE,
        tags=[*_TAGS],
        base_model=start if start is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", start) else None,
        datasets=[_slug(name) for name in training.data] if training is not None and training.data else None,
        model_name=name.split("/")[-1],
        eval_results=_eval_results(config, results),
    ).to_dict()  # type: ignore[no-untyped-call]
    if not data["model-index"][0]["results"]:
        del data["model-index"]
    return {key: data.get(key) for key in _FIELDS}


_FIELDS = ("library_name", "pipeline_tag", "license", "tags", "datasets", "base_model", "model-index")


def _eval_results(config: U2NetConfig, results: Results | None) -> list[EvalResult]:
    """Every measured score."""
    found: list[EvalResult] = []
    taken: set[str] = set()
    for name, dataset in (results.datasets if results is not None else {}).items():
        if not dataset.measured:
            continue
        kind = _slug(name)
        while kind in taken:  # results of one type are merged into one entry
            kind += "-"
        taken.add(kind)
        scores = [(key, COLUMNS[key], value) for key, value in dataset.scores.items()]
        scores += [
            ("iou", f"IoU of {label}", value)
            for label, value in (dataset.iou or {}).items()
            if value is not None
        ]
        found += [
            EvalResult(
                task_type=_PIPELINE,
                task_name=_task(config),
                dataset_type=kind,
                dataset_name=_plain(name),
                dataset_args={"pictures": dataset.n},
                metric_type=key,
                metric_name=_plain(label),
                metric_value=round(float(value), 6),
            )
            for key, label, value in scores
        ]
    return found


def _task(config: U2NetConfig) -> str:
    if config.out_channels > 1:
        return "semantic segmentation"
    return "line drawing" if config.invert else "salient object detection"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _dump(fields: Mapping[str, object]) -> str:
    there = {key: value for key, value in fields.items() if value is not None}
    if not there:
        return ""
    return str(yaml.safe_dump(there, sort_keys=False, allow_unicode=True, width=1000))


def _load(block: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(block) if block.strip() else {}
    except yaml.YAMLError as e:
        raise ValueError(
            f"README.md has front matter that is not YAML ({' '.join(str(e).split())}); correct it there"
        ) from e
    if not isinstance(data, dict):
        raise ValueError(
            f"README.md has front matter that is a {type(data).__name__}, expected names and values"
        )
    return data


def _merge_fields(block: str, fields: Mapping[str, object], *, keep_license: bool) -> str:
    """Put our fields in the place of those in the block; the other lines stay, comments included."""
    there = _load(block)
    ours = dict(fields)
    if keep_license and there.get("license"):
        ours["license"] = there["license"]
    tags: str | list[str] = there.get("tags") or []
    ours["tags"] = list(dict.fromkeys([*([tags] if isinstance(tags, str) else tags), *_TAGS]))
    for key in ("datasets", "base_model"):
        ours[key] = ours[key] or there.get(key)
    expected = {key: value for key, value in {**there, **ours}.items() if value is not None}
    for key, value in ours.items():
        if there.get(key) == value:
            continue
        lines = _dump({key: value})
        # the key's line and what belongs to it: indented lines, items, and blank lines between them
        entry = re.compile(rf"^{re.escape(key)}[ \t]*:.*\n(?:\n*(?:[ \t]+\S|- ).*\n)*", re.MULTILINE)
        block = entry.sub(lines.replace("\\", r"\\"), block) if key in there else block + lines
    try:
        return block if _load(block) == expected else _dump(expected)
    except ValueError:
        return _dump(expected)  # YAML in a style that lines do not tell apart


# Sections

_BEGIN = r"<!-- u2net-hub: begin {name}\b[^>]*-->"
_END = r"<!-- u2net-hub: end {name} -->"


def _marked(name: str, text: str) -> str:
    begin = f"<!-- u2net-hub: begin {name} (generated: what is written between the marks is replaced) -->"
    return f"{begin}\n\n{text.strip()}\n\n<!-- u2net-hub: end {name} -->"


def _merge_sections(body: str, sections: Mapping[str, str]) -> str:
    """Put our sections in the place of the marked ones; new ones go beside their neighbours, or last."""
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
            continue  # people wrote their own, or took it out
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
    """Where a section lies, marks included; None without both marks, or with others between them."""
    pair = re.search(f"{_BEGIN.format(name=name)}(.*?){_END.format(name=name)}", body, re.DOTALL)
    return None if pair is None or "<!-- u2net-hub:" in pair[1] else pair.span()


def _sections(
    config: U2NetConfig, results: Results | None, name: str, weights: Weights | None, picture: bool
) -> dict[str, str]:
    """Name and text of each section, in order."""
    training = results.training if results is not None else None
    template = _ENVIRONMENT.get_template("card.md.jinja")
    context = template.new_context(
        {
            "name": name,
            "on_hub": "/" in name,
            "title": _TITLES.get(config.variant, "U²-Net with a table of its own"),
            "task": _task(config),
            "config": config,
            "results": results,
            "measured": results is not None and any(d.measured for d in results.datasets.values()),
            "scores": _scores(results),
            "history": _history(training),
            "training": training,
            "data": [
                (item, _DATA.get(_slug(item))) for item in (training.data if training is not None else ())
            ],
            "weights": weights,
            "parameters": count_parameters(config),
        }
    )
    names = [key for key in _NAMES if picture or key != "picture"]
    return {key: "".join(template.blocks[key](context)) for key in names}


_NAMES = ("intro", "picture", "use", "architecture", "training", "scores", "speed", "limits", "citation")
_TITLES = {"u2net": "U²-Net", "u2netp": "U²-Net†"}


def _history(training: Training | None) -> list[list[str]]:
    """The table of scores over time, its head first: at most a dozen rows, the last one among them."""
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
    """The table of scores, its head first; beside measured rows stand those of the papers."""
    if results is None or not results.datasets:
        return []
    used = {key for dataset in results.datasets.values() for key in dataset.scores}
    keys = [key for key in COLUMNS if key in used]
    rows = [["data set", "pictures", "scores of", *(COLUMNS[key] for key in keys)]]

    def add(name: str, n: int, label: str, scores: Mapping[str, float | None], digits: int) -> None:
        cells = ("–" if scores.get(key) is None else _number(key, scores[key], digits) for key in keys)
        rows.append([name, f"{n:,}", label, *cells])

    for name, dataset in results.datasets.items():
        if dataset.measured:
            add(name, dataset.n, "these weights", dataset.scores, 4)
            for label, other in published(name).items():
                add("", other.n, label, other.scores, 3)
        else:
            add(name, dataset.n, "the paper (not measured here)", dataset.scores, 3)
    return rows


def _number(key: str, value: float | None, digits: int) -> str:
    return f"{value:.{0 if key == 'hce' else digits}f}"


# Text in Markdown: whatever comes from a config or a results.json is escaped unless it is _Raw


class _Raw(str):
    """Text that is Markdown already."""


def _plain(text: str) -> str:
    """One line, without control characters, those that turn the direction of text, and our marks."""
    shown = "".join(c if unicodedata.category(c) not in ("Cc", "Cf") else " " for c in text)
    return " ".join(shown.split()).replace("<!--", "< !--")


def _escape(value: object) -> str:
    if isinstance(value, _Raw):
        return value
    text = html.escape(_plain(str(value)), quote=False).replace("`", "&#96;")
    return re.sub(r"([\\*_\[\]|~$]|(?<!&)#)", r"\\\1", text)


def _code(value: object) -> _Raw:
    """A span of code."""
    return _Raw("`" + _plain(str(value)).replace("`", "'") + "`")


def _line(value: object) -> _Raw:
    """A line inside a fenced block."""
    return _Raw(_plain(str(value)).replace("```", "'''"))


_ENVIRONMENT = Environment(
    loader=PackageLoader("u2net_hub", "."),
    finalize=_escape,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)
_ENVIRONMENT.filters |= {"code": _code, "line": _line}
