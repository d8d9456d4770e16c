"""The verbs that train, score and check data."""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from ..atomic import file_name
from ..training import Phase, Recipe, TrainConfig, field_help
from .fields import option, options_of
from .options import (
    AllowPickle,
    BatchSize,
    Data,
    Device,
    EngineChoice,
    Hce,
    Images,
    MapClasses,
    Maps,
    Masks,
    Models,
    Overwrite,
    PrecisionChoice,
    ScoresOut,
    Workers,
    command_line,
    tqdm_bar,
)
from .outputs import refuse_existing


def _train(
    context: typer.Context,
    *,
    out: Path,
    data: list[str] | None,
    classes: str | None,
    class_weights: str | None,
    crop: int | None,
    input_size: int | None,
    resume: bool,
    overfit_one: bool,
    dry_run: bool,
    allow_pickle: bool,
    **chosen: Any,
) -> None:
    """Train on pairs of photos and masks, from scratch or from the weights of --init."""
    from .. import training
    from ..hub import name_weights

    logging.getLogger("u2net_hub").setLevel(min(logging.INFO, logging.getLogger().level))
    if resume:
        _check_alone(context, out)
        typer.echo(
            training.train(
                TrainConfig.load(out / "train.json"), resume=True, workers=None, command=command_line()
            )
        )
        return
    if not data:
        raise ValueError("got no --data, expected a folder or list file of photos and masks")
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in chosen.items()}
    if allow_pickle and given.get("init"):
        given["init"] = name_weights(given["init"])
    overrides = {name: given.pop(name) for name in _RECIPE if name in given}
    if crop is not None:
        # the proportion of the paper, which crops 288 of 320 pixels
        overrides["phases"] = (Phase(1.0, round(crop * 320 / 288), crop),)
    if class_weights is not None:
        overrides["class_weights"] = _weights(class_weights)
    config = TrainConfig(
        data=tuple(data),
        out=str(out),
        **_classes(classes),
        input_size=None if input_size is None else (input_size, input_size),
        overrides={name: value for name, value in overrides.items() if value is not None},
        **{name: value for name, value in given.items() if value is not None},
    )
    if overfit_one:
        _overfit_one(config)
    elif dry_run:
        _dry_run(config)
    else:
        typer.echo(training.train(config, workers=None, command=command_line()))


def _classes(text: str | None) -> dict[str, Any]:
    """Read the number of the classes, or their names."""
    if text is None:
        return {}
    if text.strip().isdecimal():
        return {"classes": int(text)}
    return {"labels": tuple(name.strip() for name in text.split(","))}


def _weights(text: str) -> tuple[float, ...] | str:
    """Read weights of classes.

    Raises:
        ValueError: They are neither numbers nor "balanced".
    """
    if text == "balanced":
        return text
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise ValueError(
            f"--class-weights is {text!r}, expected balanced, or numbers such as 1,5,2"
        ) from None


def _check_alone(context: typer.Context, out: Path) -> None:
    """Refuse options that --resume would ignore.

    Raises:
        ValueError: Such an option was given.
    """
    given = [
        name
        for name in context.params
        if name not in ("out", "resume")
        and (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        raise ValueError(f"--resume goes on with the settings of {out}, got {given} as well; leave them out")


def _overfit_one(config: TrainConfig) -> None:
    from .. import training

    goal = 0.01
    error = training.overfit_one(
        config,
        goal=goal,
        on_step=lambda step, error: typer.echo(f"step {step}: MAE {error:.4f}", err=True),
    )
    if error >= goal:
        raise RuntimeError(
            f"the network has not memorised one pair: MAE {error:.4f}, expected below {goal}; look at the "
            f"first pair of {config.data_sets[0]}, its mask first, then try a lower learning rate (--lr)"
        )
    typer.echo(f"the network has memorised one pair: MAE {error:.4f}")


def _dry_run(config: TrainConfig) -> None:
    from .. import training

    estimate = training.dry_run(config)
    typer.echo(f"device             {estimate.device}")
    typer.echo(f"parameters         {estimate.parameters:,}, of which {estimate.trained:,} learn")
    typer.echo(f"training pairs     {estimate.pairs:,}")
    typer.echo(f"steps              {estimate.steps:,}")
    for side, rate in estimate.images_per_second.items():
        wait = estimate.data_wait[side]
        typer.echo(f"images/s at {side:4}   {rate:.1f}, {wait:.1%} of the time spent on getting batches")
    typer.echo(f"memory             {estimate.memory / 2**30:.1f} GiB measured")
    typer.echo(f"memory plan        {estimate.plan.text()}")
    typer.echo(f"time               {estimate.seconds / 3600:.1f} h, without validation")


_RECIPE = [field.name for field in fields(Recipe)]


def _train_verb() -> Callable[..., None]:
    """Make the verb `train`, with an option for each field of `TrainConfig` and `Recipe` and a few more."""
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    texts = field_help(TrainConfig)
    parameters = [
        context,
        option("out", Path, inspect.Parameter.empty, "--out", help=texts.get("out", "Folder of the run.")),
        option(
            "data",
            list[str] | None,
            None,
            "--data",
            help=f"{texts.get('data', 'Data sets to train on.')} The option can be repeated.",
        ),
        option(
            "classes",
            str | None,
            None,
            "--classes",
            help="Number of classes, background included, or their names, background first: "
            "background,shirt,trousers. By default masks are saliency.",
        ),
        *options_of(TrainConfig, leave_out=("data", "classes", "labels", "out", "overrides", "input_size")),
        option(
            "input_size",
            int | None,
            None,
            "--input-size",
            help="Side in pixels at which the trained network is used. By default that of the weights it "
            "starts from, or the size that a new network is trained at.",
        ),
        option("crop", int | None, None, "--crop", help="One resolution for the whole run, in pixels."),
        option(
            "class_weights",
            str | None,
            None,
            "--class-weights",
            help="Weights of the classes in the loss: numbers such as 1,5,2, or balanced for the inverse of "
            "their share of the training masks. By default all are 1.",
        ),
        *options_of(Recipe, leave_out=("phases", "class_weights"), optional=True),
        option(
            "allow_pickle", bool, False, "--allow-pickle", help="Let --init be a pickle, e.g. a .pth file."
        ),
        option("resume", bool, False, "--resume", help="Continue from the newest checkpoint in --out."),
        option("overfit_one", bool, False, "--overfit-one", help="Memorise one pair, as a test of the data."),
        option(
            "dry_run", bool, False, "--dry-run", help="Measure memory, speed and duration, and keep nothing."
        ),
    ]

    @functools.wraps(_train)
    def train(**chosen: Any) -> None:
        _train(**chosen)

    train.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    train.__annotations__ = {each.name: each.annotation for each in parameters}
    del train.__wrapped__
    return train


train = _train_verb()


def eval_(
    data: Data = None,
    model: Models = None,
    maps: Maps = None,
    out: ScoresOut = None,
    images: Images = None,
    masks: Masks = None,
    classes: MapClasses = None,
    hce: Hce = False,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "exact",
    batch_size: BatchSize = 8,
    workers: Workers = None,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
) -> None:
    """Score networks, or maps, on data sets: a table on standard output, everything else into --out."""
    from ..datasets import SaliencyDataset
    from ..evaluation import evaluate, evaluate_maps, plot_curves, score_table

    names = _names([*(model or ()), *(maps or ())])
    folders = _score_folders(names, out, overwrite=overwrite)
    roots: Sequence[str | None] = data or [None]
    results = {}
    for source, name in names.items():
        pipeline, number = None, classes
        if source in (model or ()):
            from ..inference import SaliencyPipeline

            pipeline = SaliencyPipeline.from_pretrained(
                source,
                device=device,
                engine=engine,
                precision=precision,
                batch_size=batch_size,
                allow_pickle=allow_pickle,
            )
            number = pipeline.config.out_channels if pipeline.config.out_channels > 1 else None
        datasets = [SaliencyDataset(each, images=images, masks=masks, classes=number) for each in roots]
        score = (
            functools.partial(evaluate_maps, source, datasets)
            if pipeline is None
            else functools.partial(evaluate, pipeline, datasets)
        )
        with tqdm_bar(sum(map(len, datasets)), "picture", name) as bar:
            results[name] = score(
                out=folders[name], hce=hce, workers=workers, command=command_line(), progress=bar.update
            )
    if out is not None and len(names) > 1:
        plot_curves(results, out)
    typer.echo(score_table(results))


def _names(sources: Sequence[str]) -> dict[str, str]:
    """Name each source of weights or folder of maps for tables and plots.

    A file has its name without suffix, a folder its last name, and any other source its own text.

    Raises:
        ValueError: There are no sources, or two would have the same name.
    """
    if not sources:
        raise ValueError("got nothing to score; give weights (--model) or a folder of maps (--maps)")
    names = {}
    for source in sources:
        path = Path(source)
        names[source] = source if not path.exists() else path.resolve().name if path.is_dir() else path.stem
    if len(set(names.values())) < len(sources):
        raise ValueError(f"{list(sources)} have the same name in tables; score them one by one")
    return names


def _score_folders(names: Mapping[str, str], out: Path | None, *, overwrite: bool) -> dict[str, Path | None]:
    """Choose the folder for the scores of each name: --out itself, or, with several names, folders in it.

    Raises:
        FileExistsError: There are scores already, and they may not be replaced.
    """
    if out is None:
        return dict.fromkeys(names.values())
    folders = {name: out if len(names) == 1 else out / file_name(name) for name in names.values()}
    refuse_existing(
        (folder / name for folder in folders.values() for name in ("results.json", "curves.npz")),
        overwrite=overwrite,
    )
    return dict(folders)


def check_data(
    data: Data = None,
    images: Images = None,
    masks: Masks = None,
    classes: Annotated[
        str | None, typer.Option(help="Number of classes, or their names, if masks hold class numbers.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and sheets of pictures.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read files. By default one for each core.")
    ] = None,
    overwrite: Overwrite = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Find defects of a data set. The exit code is 1 if there are errors."""
    from ..datasets import check_dataset, find_pairs, parse_share

    if out is not None:
        refuse_existing([out / "report.json"], overwrite=overwrite)
    given = _classes(classes)
    number = given.get("classes", len(given.get("labels", ()))) if given else None
    if number is not None and not 2 <= number <= 255:
        raise ValueError(f"--classes is {classes!r}, expected 2 to 255 of them, background included")
    roots: Sequence[str | None] = [parse_share(each).path for each in data or ()] or [None]
    total = sum(len(find_pairs(each, images=images, masks=masks)) for each in roots)
    with tqdm_bar(total, "pair") as bar:
        report = check_dataset(
            data, images=images, masks=masks, classes=number, out=out, workers=workers, progress=bar.update
        )
    typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if json_ else report.text())
    if report.errors:
        raise typer.Exit(1)
