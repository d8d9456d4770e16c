"""The verbs that train, score and look at data."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .options import BatchSize, Device, EngineChoice, Images, Masks, PrecisionChoice, watched


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    data: Annotated[str | None, typer.Option(help="Folder or list file of photos and masks.")] = None,
    images: Annotated[
        str | None, typer.Option(help="Folder of the photos, where it has a name of its own.")
    ] = None,
    masks: Annotated[str | None, typer.Option(help="Folder of the masks, likewise.")] = None,
    model: Annotated[str, typer.Option(help="Size of a new network: u2netp or u2net.")] = "u2netp",
    init: Annotated[str | None, typer.Option(help="Weights to fine-tune: any source.")] = None,
    classes: Annotated[
        int | None, typer.Option(help="Classes in masks of class numbers, background included.")
    ] = None,
    freeze: Annotated[list[str] | None, typer.Option(help="encoder or bn; may be given twice.")] = None,
    recipe: Annotated[str, typer.Option(help="fast or paper.")] = "fast",
    epochs: Annotated[float | None, typer.Option(help="Passes over the training pairs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step, over all devices.")] = None,
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is computed in.")] = 1,
    crop: Annotated[int | None, typer.Option(help="One resolution for the whole run, in pixels.")] = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            help="Side of what the network sees in use, in pixels; else as trained, or as --init's."
        ),
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="Any optimizer of timm.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Part of the run in which the learning rate rises.")
    ] = None,
    iou: Annotated[float | None, typer.Option(help="Weight of the IoU loss.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights.")] = None,
    jitter: Annotated[
        float | None, typer.Option(help="Change of brightness, contrast, saturation, 0 to 1.")
    ] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bf16 or fp16.")] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Pairs to hold out: a number, or a fraction below 1; by default 10 %, at most 300."
        ),
    ] = None,
    validation_data: Annotated[str | None, typer.Option(help="Pairs of their own to validate on.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Steps between validations.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    keep: Annotated[int, typer.Option(help="How many of the best weights to keep.")] = 3,
    evaluate: Annotated[
        list[str] | None, typer.Option(help="Data set to score the result on; may be repeated.")
    ] = None,
    push_to: Annotated[
        str | None,
        typer.Option(help="org/name: the best weights so far go to its branch training, the result to main."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights, the order and the augmentation.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the network; worth it in long GPU runs.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")
    ] = False,
    overfit_one: Annotated[
        bool, typer.Option("--overfit-one", help="Learn one pair by heart, as a test.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell memory, speed and duration; keep nothing.")
    ] = False,
) -> None:
    """Train on pairs of photos and masks: from scratch, or from the weights of --init."""
    from .. import training
    from ..training import Phase, TrainConfig

    logging.getLogger("u2net_hub").setLevel(min(logging.INFO, logging.getLogger().level))
    command = shlex.join(["u2net", *sys.argv[1:]])
    if resume:
        given = [
            name
            for name in context.params
            if name not in ("out", "resume")
            and (source := context.get_parameter_source(name)) is not None
            and source.name == "COMMANDLINE"
        ]
        if given:
            raise ValueError(
                f"--resume goes on with the settings of {out}, got {given} as well; leave them out"
            )
        final = training.train(
            TrainConfig.load(out / "train.json"), resume=True, workers=None, command=command
        )
        typer.echo(final)
        return
    if data is None:
        raise ValueError("got no --data, expected a folder or list file of photos and masks")
    changes = {
        "epochs": epochs,
        "batch_size": batch_size,
        "phases": None if crop is None else (Phase(1.0, round(crop * 320 / 288), crop),),
        "optimizer": optimizer,
        "lr": lr,
        "warmup": warmup,
        "iou": iou,
        "ema": ema,
        "jitter": jitter,
        "clip_norm": clip_norm,
        "precision": precision,
    }
    config = TrainConfig(
        data=data,
        out=str(out),
        images=images,
        masks=masks,
        model=model,
        init=init,
        classes=classes,
        freeze=tuple(freeze or ()),  # type: ignore[arg-type]  # checked by TrainConfig
        recipe=recipe,
        overrides={name: value for name, value in changes.items() if value is not None},
        validation=validation,
        validation_data=validation_data,
        input_size=None if input_size is None else (input_size, input_size),
        accumulate=accumulate,
        seed=seed,
        device=device,
        validate_every=validate_every,
        save_every=save_every,
        keep=keep,
        evaluate=tuple(evaluate or ()),
        push_to=push_to,
        compile=compile_,
    )
    if overfit_one:
        goal = 0.01
        error = training.overfit_one(
            config,
            goal=goal,
            on_step=lambda step, error: typer.echo(f"step {step}: MAE {error:.4f}", err=True),
        )
        if error >= goal:
            raise RuntimeError(
                f"one pair is not learned: MAE {error:.4f}, expected below {goal}; look at the first pair of "
                f"{data}, its mask first, then try a lower learning rate (--lr)"
            )
        typer.echo(f"one pair is learned: MAE {error:.4f}")
    elif dry_run:
        estimate = training.dry_run(config)
        typer.echo(f"device             {estimate.device}")
        typer.echo(f"parameters         {estimate.parameters:,}, of which {estimate.trained:,} learn")
        typer.echo(f"training pairs     {estimate.pairs:,}")
        typer.echo(f"steps              {estimate.steps:,}")
        for side, rate in estimate.images_per_second.items():
            wait = estimate.data_wait[side]
            typer.echo(f"images/s at {side:4}   {rate:.1f}, {wait:.1%} of the time spent on getting batches")
        typer.echo(f"memory             {estimate.memory / 2**30:.1f} GiB")
        typer.echo(f"time               {estimate.seconds / 3600:.1f} h, without validation")
    else:
        typer.echo(training.train(config, workers=None, command=command))


def eval_(
    data: Annotated[
        list[str] | None,
        typer.Option(help="Folder of photos and masks, or a list file; may be repeated."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Weights: any source; may be repeated, to compare.")
    ] = None,
    maps: Annotated[
        list[str] | None, typer.Option(help="A folder of maps, one per photo, instead; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results.json, curves.npz, tables and plots.")
    ] = None,
    images: Images = None,
    masks: Masks = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="For --maps: classes in maps and masks of class numbers.")
    ] = None,
    hce: Annotated[bool, typer.Option("--hce", help="The human correction effort too, for DIS.")] = False,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "exact",
    batch_size: BatchSize = 8,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that score beside the network; else one per core.")
    ] = None,
) -> None:
    """Score networks, or maps, on data sets: a table on standard output, everything else into --out."""
    from tqdm import tqdm

    from ..atomic import file_name
    from ..datasets import SaliencyDataset
    from ..evaluation import evaluate, evaluate_maps, plot_curves, score_table

    sources = [(name, False) for name in model or ()] + [(name, True) for name in maps or ()]
    if not sources:
        raise ValueError("got nothing to score; give weights (--model) or a folder of maps (--maps)")
    names = {source: _short_name(source) for source, _ in sources}
    if len(set(names.values())) < len(sources):
        raise ValueError(
            f"{[source for source, _ in sources]} have one name in tables; score them one by one"
        )
    command = shlex.join(["u2net", *sys.argv[1:]])
    results = {}
    for source, is_maps in sources:
        name = names[source]
        folder = None if out is None else out if len(sources) == 1 else out / file_name(name)
        pipeline, number = None, classes
        if not is_maps:
            from ..inference import SaliencyPipeline

            pipeline = SaliencyPipeline.from_pretrained(
                source, device=device, engine=engine, precision=precision, batch_size=batch_size
            )
            number = pipeline.config.out_channels if pipeline.config.out_channels > 1 else None
        roots: Sequence[str | None] = data or [None]
        datasets = [SaliencyDataset(each, images=images, masks=masks, classes=number) for each in roots]
        with tqdm(total=sum(map(len, datasets)), unit="picture", desc=name, disable=not watched()) as bar:
            if pipeline is None:
                results[name] = evaluate_maps(
                    source,
                    datasets,
                    out=folder,
                    hce=hce,
                    workers=workers,
                    command=command,
                    progress=bar.update,
                )
            else:
                results[name] = evaluate(
                    pipeline,
                    datasets,
                    out=folder,
                    hce=hce,
                    workers=workers,
                    command=command,
                    progress=bar.update,
                )
    if out is not None and len(sources) > 1:
        plot_curves(results, out)
    typer.echo(score_table(results))


def _short_name(source: str) -> str:
    """What tables and plots call weights or maps: without the folders they lie in."""
    path = Path(source)
    return source if not path.exists() else path.resolve().name if path.is_dir() else path.stem


def check_data(
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of photos and masks, or a list file; several are compared with each other."
        ),
    ] = None,
    images: Images = None,
    masks: Masks = None,
    classes: Annotated[int | None, typer.Option(min=2, help="Classes, for masks of class numbers.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and sheets of pictures.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read; else one per core.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Find what is wrong with a data set; exit code 1 if anything has to be mended."""
    from tqdm import tqdm

    from ..datasets import check_dataset, find_pairs

    roots: Sequence[str | None] = data or [None]
    total = sum(len(find_pairs(each, images=images, masks=masks)) for each in roots)
    with tqdm(total=total, unit="pair", disable=not watched()) as bar:
        report = check_dataset(
            data, images=images, masks=masks, classes=classes, out=out, workers=workers, progress=bar.update
        )
    typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if json_ else report.text())
    if report.errors:
        raise typer.Exit(1)
