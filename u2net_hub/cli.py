"""The `u2net` command: each verb is one public call. Only this module prints."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import __version__

if TYPE_CHECKING:
    from .files import FileReport, Summary

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="u2net",
    help="U²-Net and U²-Net†: masks and cutouts, training, scores and publishing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"u2net-hub {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say more; -vv for debugging.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)  # below that they log signed URLs and access tokens


Inputs = Annotated[
    list[str],
    typer.Argument(help="Photos, folders of photos (subfolders too), or - for standard input."),
]
Out = Annotated[
    str | None,
    typer.Option(help="Folder; for one photo also a file, or - for standard output. Else beside the photos."),
]
Model = Annotated[
    str, typer.Option(help="Weights: a bundled name, a folder, a file, or org/name[@revision] on the Hub.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Token = Annotated[
    str | None, typer.Option(help="Better not here, where others may see it: hf auth login, or HF_TOKEN.")
]
ResultsFile = Annotated[
    Path | None, typer.Option(help="results.json, or its folder; else the one beside the weights.")
]
Picture = Annotated[
    Path | None, typer.Option(help="A photo that may be shown: the card gets it with its map and cutout.")
]
License = Annotated[
    str | None, typer.Option("--license", help="Of the weights, as the Hub names it; else apache-2.0.")
]
FileFormat = Annotated[
    Literal["png", "webp", "jpg", "tiff"] | None,
    typer.Option("--format", help="Else by the suffix of --out, else png. jpg has no transparency."),
]
Threshold = Annotated[float | None, typer.Option(min=0, max=1, help="Hard edges: what counts as the object.")]
Crop = Annotated[bool, typer.Option("--crop", help="Crop to the object.")]
ClassName = Annotated[
    str | None, typer.Option("--class", help="One class, by number or name, of a network with several.")
]
MinMax = Annotated[
    Literal["auto", "always", "never"] | None,
    typer.Option(
        help="Stretch a map to full contrast: where something was found, always (the official code), never. "
        "Else as the weights' config says."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Photos that the network sees at once.")]
Images = Annotated[str | None, typer.Option(help="Folder of the photos, where it has a name of its own.")]
Masks = Annotated[str | None, typer.Option(help="Folder of the masks, likewise.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are there already.")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave out photos that have a result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Report on every file as JSON, on standard output.")]


@app.command()
def cutout(
    inputs: Inputs,
    out: Out = None,
    model: Model = "u2netp",
    background: Annotated[
        str | None, typer.Option(help="Instead of transparency: a colour, the path of a picture, or blur.")
    ] = None,
    clean_edges: Annotated[
        bool, typer.Option("--clean-edges", help="Take the old background's colours out of soft edges.")
    ] = False,
    format_: FileFormat = None,
    threshold: Threshold = None,
    crop: Crop = False,
    label: ClassName = None,
    minmax: MinMax = None,
    device: Device = "auto",
    batch_size: BatchSize = 8,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    json_: AsJson = False,
) -> None:
    """Cut the object out of each photo: RGBA, in the photo's own size and colours."""
    from .files import run_files
    from .pipeline import SaliencyPipeline

    existing = _existing(overwrite, skip_existing)
    _check_streams(inputs, out, json_)
    pipeline = SaliencyPipeline.from_pretrained(model, device=device, batch_size=batch_size, minmax=minmax)
    summary = run_files(
        pipeline,
        inputs,
        out,
        kind="cutout",
        format=format_,
        background=background,
        clean_edges=clean_edges,
        threshold=threshold,
        crop=crop,
        label=label,
        existing=existing,
        on_file=_progress(),
    )
    _finish(summary, json_)


@app.command()
def mask(
    inputs: Inputs,
    out: Out = None,
    model: Model = "u2netp",
    format_: FileFormat = None,
    threshold: Threshold = None,
    crop: Crop = False,
    label: ClassName = None,
    minmax: MinMax = None,
    device: Device = "auto",
    batch_size: BatchSize = 8,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    json_: AsJson = False,
) -> None:
    """Make the saliency map of each photo: 8-bit grey, or 0 and 255 with --threshold."""
    from .files import run_files
    from .pipeline import SaliencyPipeline

    existing = _existing(overwrite, skip_existing)
    _check_streams(inputs, out, json_)
    pipeline = SaliencyPipeline.from_pretrained(model, device=device, batch_size=batch_size, minmax=minmax)
    summary = run_files(
        pipeline,
        inputs,
        out,
        kind="mask",
        format=format_,
        threshold=threshold,
        crop=crop,
        label=label,
        existing=existing,
        on_file=_progress(),
    )
    _finish(summary, json_)


def _existing(overwrite: bool, skip_existing: bool) -> Literal["refuse", "overwrite", "skip"]:
    if overwrite and skip_existing:
        raise ValueError("--overwrite and --skip-existing exclude each other")
    return "overwrite" if overwrite else "skip" if skip_existing else "refuse"


def _check_streams(inputs: Sequence[str], out: str | None, as_json: bool) -> None:
    if as_json and (out == "-" or (out is None and "-" in inputs)):
        raise ValueError(
            "the picture and the report of --json would share standard output; give a file as --out"
        )


def _watched() -> bool:
    """Whether a person sees what is written to standard error."""
    return sys.stderr.isatty() and logger.isEnabledFor(logging.WARNING)


def _progress() -> Callable[[FileReport, int], None]:
    """What `run_files` calls with each report: a bar where a person watches many files, else nothing."""
    from tqdm import tqdm

    bar = tqdm(unit="photo", disable=not _watched(), delay=0.5)

    def step(report: FileReport, total: int) -> None:
        bar.total = total
        bar.update()
        if bar.n == total:
            bar.close()

    return step


def _finish(summary: Summary, as_json: bool) -> None:
    """Say what became of the files; exit code 1 if one failed."""
    counts = {status: summary.count(status) for status in ("written", "skipped", "failed")}
    if as_json:
        files = [asdict(report) for report in summary.files]
        typer.echo(json.dumps({"device": summary.device, **counts, "files": files}, indent=2))
    for report in summary.files:
        if report.error is not None:
            typer.echo(f"u2net: {_one_line(report.error)}", err=True)
    if len(summary.files) > 1 and (counts["failed"] or _watched()):
        done = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
        typer.echo(f"u2net: {done} on {summary.device}", err=True)
    if counts["failed"]:
        raise typer.Exit(1)


def _one_line(message: str) -> str:
    """A message with the control characters of odd file names written out, as Python writes them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)


@app.command()
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
        typer.Option(help="Side of what the network sees in use, in pixels; else as trained, or as --init's."),
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
    validation: Annotated[float, typer.Option(help="Pairs to hold out: a number, or a part below 1.")] = 300,
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
    from . import rehearsal, training
    from .recipes import Phase, TrainConfig

    logging.getLogger("u2net_hub").setLevel(min(logging.INFO, logging.getLogger().level))
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
        final = training.train(TrainConfig.load(out / "train.json"), resume=True, workers=None)
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
        error = rehearsal.overfit_one(
            config,
            goal=goal,
            progress=lambda step, error: typer.echo(f"step {step}: MAE {error:.4f}", err=True),
        )
        if error >= goal:
            raise RuntimeError(
                f"one pair is not learned: MAE {error:.4f}, expected below {goal}; look at the first pair of "
                f"{data}, its mask first, then try a lower learning rate (--lr)"
            )
        typer.echo(f"one pair is learned: MAE {error:.4f}")
    elif dry_run:
        estimate = rehearsal.dry_run(config)
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
        typer.echo(training.train(config, workers=None))


@app.command("eval")
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
    batch_size: BatchSize = 8,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that score beside the network; else one per core.")
    ] = None,
) -> None:
    """Score networks, or maps, on data sets: a table on standard output, everything else into --out."""
    from tqdm import tqdm

    from .data import SaliencyDataset
    from .evaluation import evaluate, evaluate_maps, plot_curves
    from .hub import resolve
    from .results import file_name, table

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
            from .pipeline import SaliencyPipeline

            pipeline = SaliencyPipeline.from_pretrained(source, device=device, batch_size=batch_size)
            number = pipeline.config.out_channels if pipeline.config.out_channels > 1 else None
        roots: Sequence[str | None] = data or [None]
        datasets = [SaliencyDataset(each, images=images, masks=masks, classes=number) for each in roots]
        with tqdm(total=sum(map(len, datasets)), unit="picture", desc=name, disable=not _watched()) as bar:
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
                    weights_sha256=resolve(source).sha256,
                    command=command,
                    progress=bar.update,
                )
    if out is not None and len(sources) > 1:
        plot_curves(results, out)
    typer.echo(table(results))


def _short_name(source: str) -> str:
    """What tables and plots call weights or maps: without the folders they lie in."""
    path = Path(source)
    return source if not path.exists() else path.resolve().name if path.is_dir() else path.stem


@app.command("check-data")
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

    from .checking import check_dataset
    from .pairing import find_pairs

    roots: Sequence[str | None] = data or [None]
    total = sum(len(find_pairs(each, images=images, masks=masks)) for each in roots)
    with tqdm(total=total, unit="pair", disable=not _watched()) as bar:
        report = check_dataset(
            data, images=images, masks=masks, classes=classes, out=out, workers=workers, progress=bar.update
        )
    typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if json_ else report.text())
    if report.errors:
        raise typer.Exit(1)


@app.command("list")
def list_() -> None:
    """List the models that are installed with the command."""
    from .hub import list_models

    for name, variant, description in list_models():
        typer.echo(f"{name:12} {variant:8} {description}".rstrip())


@app.command()
def info(
    model: Annotated[str, typer.Option(help="A bundled name, a folder, a file, or org/name on the Hub.")],
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read a .pth where there is nothing else.")
    ] = False,
) -> None:
    """Describe a checkpoint: variant, parameters, precision, hash, config, and what made it."""
    from .hub import load_network, resolve
    from .model import U2Net

    source = resolve(model, allow_pickle=allow_pickle)
    network = load_network(U2Net, source)
    facts: dict[str, object] = {
        "source": source.name,
        "kind": source.kind,
        "file": str(source.weights_path),
        "revision": source.revision,
        "sha256": source.sha256,
        "variant": network.config.variant,
        "parameters": sum(p.numel() for p in network.parameters()),
        **network.notes,
        "config": network.config.to_dict(),
    }
    if json_:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    facts["parameters"] = f"{facts['parameters']:,}"
    fields = network.config.to_dict()
    del facts["config"], fields["pretrained_cfg"]  # what timm reads says nothing new
    for name, value in (*facts.items(), *fields.items()):
        if value is not None:
            typer.echo(f"{name.replace('_', ' '):16}{value}")


@app.command()
def convert(
    model: Annotated[str, typer.Option(help="A .pth, .onnx or .safetensors, a folder, or any other source.")],
    out: Annotated[Path, typer.Option(help="Folder for config.json and model.safetensors.")],
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    config: Annotated[
        Path | None, typer.Option(help="A config.json, for a file that comes without one.")
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read a .pth where there is nothing else.")
    ] = False,
) -> None:
    """Turn any source of weights into a folder laid out as a Hub repo."""
    from .config import U2NetConfig
    from .model import U2Net

    given = None if config is None else U2NetConfig.load(config)
    network = U2Net.from_pretrained(model, config=given, allow_pickle=allow_pickle)
    typer.echo(network.save_pretrained(out, dtype=dtype))  # type: ignore[arg-type]  # checked there


@app.command()
def download(
    model: Annotated[str, typer.Option(help="org/name or org/name@revision on the Hub.")],
    out: Annotated[Path | None, typer.Option(help="Folder for copies of the files; else the cache.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    token: Token = None,
    cache_dir: Annotated[Path | None, typer.Option(help="In the place of the Hub's cache folder.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Take a .pth where there is nothing else.")
    ] = False,
) -> None:
    """Fetch a model from the Hub, for loading it offline; say in which folder it is."""
    from . import hub

    typer.echo(
        hub.download(
            model, out=out, revision=revision, token=token, cache_dir=cache_dir, allow_pickle=allow_pickle
        )
    )


@app.command()
def card(
    model: Annotated[str, typer.Option(help="Weights: any source; or a size whose weights are elsewhere.")],
    out: Annotated[Path, typer.Option(help="README.md; of one that is there, people's text is kept.")],
    results: ResultsFile = None,
    name: Annotated[str | None, typer.Option(help="org/name, where it is not the source's.")] = None,
    picture: Picture = None,
    license_: License = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if the file is not up to date.")
    ] = False,
) -> None:
    """Make the model card from a config and its results, or bring one up to date."""
    from .card import PICTURE_NAME, Weights, render, validate
    from .config import STAGES, U2NetConfig
    from .convert import read_checkpoint
    from .hub import list_models, resolve
    from .results import Results

    if model in STAGES and model not in [bundled.name for bundled in list_models()]:
        config, weights, beside = U2NetConfig(variant=model), None, None
    else:
        source = resolve(model)
        if source.format != "safetensors":
            raise ValueError(f"{model} holds a .{source.format}; make it a folder first: u2net convert")
        config = source.config() or read_checkpoint(source.weights_path).config
        weights = Weights.of(source.weights_path, source.sha256)
        beside = source.weights_path.with_name("results.json")
        name = name or (source.name if source.kind in ("hub", "bundled") else source.weights_path.parent.name)
    results = results or (beside if beside is not None and beside.is_file() else None)
    if picture is not None and not check:
        _example(model, picture, out.with_name(PICTURE_NAME))
    existing = out.read_text(encoding="utf-8") if out.is_file() else None
    text = render(
        config,
        None if results is None else Results.load(results),
        name=name or model,
        weights=weights,
        picture=out.with_name(PICTURE_NAME).is_file(),
        license=license_,
        existing=existing,
    )
    validate(text)
    if not check:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", newline="")
    elif text != existing:
        raise ValueError(f"{out} is not up to date; make it anew by leaving out --check")
    typer.echo(out)


@app.command()
def push(
    repo: Annotated[str, typer.Argument(help="org/name on the Hub.")],
    model: Annotated[
        str | None, typer.Option(help="Weights: any source. With --space, what it shows: org/one,org/two.")
    ] = None,
    results: ResultsFile = None,
    space: Annotated[
        bool, typer.Option("--space", help="Push the demo instead, as a Space with this package's wheel.")
    ] = False,
    private: Annotated[bool | None, typer.Option("--private/--public", help="For a new repo.")] = None,
    branch: Annotated[str | None, typer.Option(help="Else main; made where it is missing.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    message: Annotated[str | None, typer.Option(help="First line of the commit.")] = None,
    tag: Annotated[str | None, typer.Option(help="A name for the commit.")] = None,
    picture: Picture = None,
    license_: License = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    token: Token = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files and the card; ask and push nothing.")
    ] = False,
) -> None:
    """Push weights, config, card and results to the Hub in one commit; or, with --space, the demo."""
    import tempfile

    if space:
        _push_space(
            repo, model, results, private, branch, create_pr, message, tag, picture, license_, token, dry_run
        )
        return
    if model is None:
        raise ValueError("got no weights to push; give --model, or --space to push the demo")
    from .card import PICTURE_NAME
    from .hub import resolve
    from .model import U2Net
    from .publishing import folder_contents

    source = resolve(model)
    beside = source.weights_path.parent
    if results is None and source.kind != "file" and (beside / "results.json").is_file():
        results = beside / "results.json"
    network = U2Net.from_pretrained(model)
    with tempfile.TemporaryDirectory() as scratch:
        shown = beside / PICTURE_NAME if source.kind != "file" else None
        if picture is not None:
            shown = _example(model, picture, Path(scratch, PICTURE_NAME))
        shown = shown if shown is not None and shown.is_file() else None
        if dry_run:
            folder = network.fill_repo(
                Path(scratch, "repo"),
                metrics=results,
                picture=shown,
                dtype=dtype,  # type: ignore[arg-type]  # checked there
            )
            files = folder_contents(folder, repo, license=license_)
            for name, content in files.items():
                size = content.stat().st_size if isinstance(content, Path) else len(content or b"")
                typer.echo(f"{name:20}{size:>12,} bytes")
            readme = files["README.md"]
            typer.echo(readme.decode() if isinstance(readme, bytes) else "")
            return
        pushed = network.push_to_hub(
            repo,
            private=private,
            branch=branch,
            create_pr=create_pr,
            commit_message=message,
            tag=tag,
            token=token,
            metrics=results,
            picture=shown,
            license=license_,
            dtype=dtype,  # type: ignore[arg-type]  # checked there
        )
    if not pushed.changed:
        typer.echo("nothing has changed, no commit was made", err=True)
    typer.echo(pushed.pull_request or pushed.url)


def _push_space(
    repo: str,
    models: str | None,
    results: Path | None,
    private: bool | None,
    branch: str | None,
    create_pr: bool,
    message: str | None,
    tag: str | None,
    picture: Path | None,
    license_: str | None,
    token: str | None,
    dry_run: bool,
) -> None:
    from .deploying import push_space, space_files

    if any(given is not None for given in (results, picture, license_)):
        raise ValueError("--results, --picture and --license are for a model; leave them out with --space")
    if dry_run:
        for name, content in space_files(repo, branch=branch or "main").items():
            typer.echo(f"{name:40}{len(content):>12,} bytes")
        return
    pushed = push_space(
        repo,
        models=[name.strip() for name in (models or "").split(",") if name.strip()],
        private=private,
        branch=branch,
        create_pr=create_pr,
        commit_message=message,
        tag=tag,
        token=token,
    )
    if not pushed.changed:
        typer.echo("nothing has changed, no commit was made", err=True)
    typer.echo(pushed.pull_request or pushed.url)


@app.command()
def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Weights: any source; may be repeated. Else U2NET_MODELS, else the bundled ones."),
    ] = None,
    device: Device = "auto",
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, 0.0.0.0 for all; else this machine alone.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Else the first free one.")] = None,
) -> None:
    """Serve the demo in the browser: cut out, compare, look inside; stop it with Ctrl-C."""
    from .demo import launch

    launch(model or None, device=device, host=host, port=port, on_ready=typer.echo)


def _example(model: str, photo: Path, out: Path) -> Path:
    """The picture of a card: a photo, its map and its cutout, side by side on white."""
    from PIL import Image

    from .pipeline import SaliencyPipeline

    result = SaliencyPipeline.from_pretrained(model)(photo)
    maps = Image.fromarray((result.saliency * 255).round().astype("uint8"))
    tiles = [tile.convert("RGB") for tile in (result.photo.rgb, maps, result.over("white"))]
    for tile in tiles:
        tile.thumbnail((420, 420))
    width, height = tiles[0].size
    sheet = Image.new("RGB", (3 * width + 16, height), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i * (width + 8), 0))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=80, method=6)
    return out


def main() -> None:
    """Run the command; an expected error is one line on stderr and exit code 1."""
    # pictures twice as large are refused, see image.load
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
    try:
        app()
    except (ValueError, OSError, ImportError, RuntimeError) as e:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        message = " ".join(str(e).split()) or type(e).__name__
        typer.echo(f"u2net: {message}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("u2net: interrupted", err=True)
        sys.exit(130)
