"""The card's front matter: the fields that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResult, ModelCardData

from ...config import LIBRARY_NAME, U2NetConfig
from ...evaluation import COLUMNS, Results
from .markdown import plain

DEFAULT_LICENSE = "apache-2.0"
_TAGS = ("u2net", "salient-object-detection", "background-removal", "saliency", "arxiv:2005.09007")


PIPELINE = "image-segmentation"
_GIVEN = "not measured by u2net-hub"
_MOST_VALUES = 100_000


def card_fields(
    config: U2NetConfig, results: Results | None, name: str, license: str | None
) -> dict[str, object]:
    """Our fields of the front matter; the value None removes a field."""
    training = results.training if results is not None else None
    start = training.start if training is not None else None
    data = ModelCardData(
        license=license or DEFAULT_LICENSE,
        library_name=LIBRARY_NAME,
        pipeline_tag=PIPELINE,
        tags=[*_TAGS],
        base_model=start if start is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", start) else None,
        datasets=[slug(name) for name in training.data] if training is not None and training.data else None,
        model_name=name.split("/")[-1],
        eval_results=_eval_results(config, results),
    ).to_dict()  # type: ignore[no-untyped-call]
    if not data["model-index"][0]["results"]:
        del data["model-index"]
    return {key: data.get(key) for key in _FIELDS}


_FIELDS = ("library_name", "pipeline_tag", "license", "tags", "datasets", "base_model", "model-index")


def _eval_results(config: U2NetConfig, results: Results | None) -> list[EvalResult]:
    """List every measured or given score for the model index."""
    found: list[EvalResult] = []
    taken: set[str] = set()
    given = results is not None and results.weights_sha256 is None
    origin = {"given": _GIVEN} if given else {}
    for name, dataset in (results.datasets if results is not None else {}).items():
        if not dataset.measured:
            continue
        kind = slug(name)
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
                task_type=PIPELINE,
                task_name=task(config),
                dataset_type=kind,
                dataset_name=plain(name),
                dataset_args={**({"pictures": dataset.n} if dataset.n else {}), **origin},
                metric_type=key,
                metric_name=plain(label),
                metric_value=round(float(value), 6),
            )
            for key, label, value in scores
        ]
    return found


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _dump(fields: Mapping[str, object]) -> str:
    there = {key: value for key, value in fields.items() if value is not None}
    if not there:
        return ""
    return str(yaml.safe_dump(there, sort_keys=False, allow_unicode=True, width=1000))


def load_fields(block: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(block) if block.strip() else {}
    except (yaml.YAMLError, RecursionError) as e:
        raise ValueError(
            f"README.md has front matter that is not YAML ({' '.join(str(e).split())}); correct it there"
        ) from e
    if not _is_small(data):
        raise ValueError(
            f"README.md has front matter of more than {_MOST_VALUES:,} values, written out with its aliases; "
            "correct it there"
        )
    if not isinstance(data, dict):
        raise ValueError(
            f"README.md has front matter that is a {type(data).__name__}, expected names and values"
        )
    return data


def _is_small(data: object) -> bool:
    """Tell whether a value is small with its aliases written out; one that holds itself is not."""
    left = [data]
    for _ in range(_MOST_VALUES):
        if not left:
            return True
        value = left.pop()
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return False


def merge_fields(block: str, fields: Mapping[str, object], *, keep_license: bool) -> str:
    """Replace our fields in the block; the other lines stay, with their comments."""
    there = load_fields(block)
    ours = dict(fields)
    if keep_license and there.get("license"):
        ours["license"] = there["license"]
    tags = there.get("tags") or []
    if isinstance(tags, str):
        tags = [tags]
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("README.md has tags that are not a list of words; correct them there")
    ours["tags"] = list(dict.fromkeys([*tags, *_TAGS]))
    for key in ("datasets", "base_model"):
        ours[key] = ours[key] or there.get(key)
    ours["model-index"] = _merge_index(there.get("model-index"), ours["model-index"])
    expected = {key: value for key, value in {**there, **ours}.items() if value is not None}
    for key, value in ours.items():
        if there.get(key) == value:
            continue
        lines = _dump({key: value})
        # the key's line and its value: indented lines, items, and blank lines between them
        entry = re.compile(rf"^{re.escape(key)}[ \t]*:.*\n(?:\n*(?:[ \t]+\S|- ).*\n)*", re.MULTILINE)
        block = entry.sub(lines.replace("\\", r"\\"), block) if key in there else block + lines
    try:
        return block if load_fields(block) == expected else _dump(expected)
    except ValueError:
        return _dump(expected)  # fields in this style cannot be replaced line by line


def _merge_index(there: object, ours: object) -> object:
    """Replace our scores in a model index; what people wrote there stays."""
    if there is None:
        return ours
    if not isinstance(there, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("results") or [], list) for entry in there
    ):
        if ours is None:
            return there
        raise ValueError(
            "README.md has a model-index that is not a list of entries with lists of results; "
            "correct it there"
        )
    entries, new = [], list(ours) if isinstance(ours, list) else []
    for entry in there:
        results = entry.get("results")
        kept = [each for each in results if not _is_ours(each)] if isinstance(results, list) else results
        if kept == results:
            entries.append(entry)
            continue
        same = [each for each in new if each["name"] == entry.get("name") or not kept]
        new = [each for each in new if each not in same]
        added = [result for each in same for result in each["results"]]
        if kept or added:
            name = same[0]["name"] if same and not kept else entry.get("name")
            entries.append({**entry, "name": name, "results": [*added, *(kept or [])]})
    for each in new:
        same_name = next((entry for entry in entries if entry.get("name") == each["name"]), None)
        if same_name is None:
            entries.insert(0, each)
        else:  # the Hub wants each name once
            at = entries.index(same_name)
            entries[at] = {**same_name, "results": [*each["results"], *(same_name.get("results") or [])]}
    return entries or None


def _is_ours(result: object) -> bool:
    """Tell whether this library wrote a result: it names the number of pictures, or that it was given."""
    dataset = result.get("dataset") if isinstance(result, dict) else None
    args = dataset.get("args") if isinstance(dataset, dict) else None
    return isinstance(args, dict) and ("pictures" in args or args.get("given") == _GIVEN)


def task(config: U2NetConfig) -> str:
    if config.out_channels > 1:
        return "semantic segmentation"
    return "line drawing" if config.invert else "salient object detection"
