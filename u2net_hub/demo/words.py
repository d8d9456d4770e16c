"""The words beside the pictures: verdicts, facts and tables, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .. import imaging as im
from . import theme
from .models import MAX_PIXELS, Answer, Model

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = (
    f"Up to 20 MB and {MAX_PIXELS // 1_000_000} megapixels per photo. What you send stays on this machine "
    "for an hour at most, and is shown to nobody else."
)


def verdict(facts: Mapping[str, object]) -> str:
    """Whether an object was found, and the facts of an answer."""
    found = theme.verdict(bool(facts["found"]), float(str(facts["confidence"])), im.FOUND_FROM)
    shown = {"size": f"{facts['width']} × {facts['height']} px"}
    if facts["milliseconds"] is not None:
        shown["network"] = f"{milliseconds(float(str(facts['milliseconds'])))} on {facts['device']}"
    return found + theme.facts(**shown, model=str(facts["model"]))


def milliseconds(value: float) -> str:
    """Write a time for readers."""
    return f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"


def comparison(answers: Sequence[Answer], apart: float) -> str:
    """A table of two models, and the mean difference of their maps."""
    columns: list[tuple[str, Callable[[Answer], str]]] = [
        ("Parameters", lambda answer: f"{answer.model.parameters:,}"),
        ("File", lambda answer: f"{answer.model.megabytes:.1f} MB"),
        ("Confidence", lambda answer: f"{answer.result(64).confidence:.2f}"),
    ]
    seconds = [answer.model.engine.seconds for answer in answers]
    if all(each is not None for each in seconds):
        columns.append(
            ("Time, median", lambda answer: milliseconds(1000 * (answer.model.engine.seconds or 0)))
        )
    rows = [[name, *(value(answer) for answer in answers)] for name, value in columns]
    table = theme.ledger(["", *(answer.model.name for answer in answers)], rows, figures=(1, 2))
    device = answers[0].model.engine.device
    return (
        table
        + theme.facts(mean_difference=f"{apart:.4f}", device=device)
        + theme.difference_scale(*(answer.model.name for answer in answers))
    )


def report(rows: Sequence[Mapping[str, object]]) -> str:
    """A table of the files of a batch."""

    def outcome(each: Mapping[str, object]) -> str:
        if each["error"] is not None:
            return str(each["error"])
        if each["same_as"] is not None:
            return f"the same photo as {each['same_as']}, see {each['written']}"
        return "done" if each["found"] else "done, but no salient object found"

    cells = [
        [str(each["name"]), outcome(each), "" if each["confidence"] is None else f"{each['confidence']:.2f}"]
        for each in rows
    ]
    failed = [i for i, each in enumerate(rows) if each["error"] is not None]
    head = theme.say(f"{len(rows) - len(failed)} of {len(rows)} photos are in the zip.")
    return head + theme.ledger(["Photo", "Outcome", "Confidence"], cells, figures=[2], bad=failed)


def description(model: Model) -> str:
    """The facts of a model that a visitor has loaded."""
    config = model.pipeline.config
    height, width = config.input_size
    return theme.facts(
        model=model.name.partition("@")[0],
        commit=(model.revision or "")[:12],
        architecture=config.variant,
        parameters=f"{model.parameters:,}",
        file=f"{model.megabytes:.1f} MB",
        input=f"{width} × {height} px",
        device=model.engine.device,
    )
