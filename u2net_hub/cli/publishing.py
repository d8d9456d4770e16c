"""The verbs that publish weights: the model card, and the push to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from ..config import U2NetConfig
from .options import AllowPickle, For, License, Overwrite, Picture, ResultsFile, Token
from .outputs import refuse_existing

if TYPE_CHECKING:
    from ..hub import Content, Pushed, Weights


def card(
    model: Annotated[
        str, typer.Option(help="Weights: any source, or u2netp or u2net for a card without weights.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="README.md to write. If it is a card, it is updated, and other text stays."),
    ],
    results: ResultsFile = None,
    name: Annotated[
        str | None, typer.Option(help="Name on the Hub, org/name, if the source has another one.")
    ] = None,
    picture: Picture = None,
    license_: License = None,
    for_: For = None,
    allow_pickle: AllowPickle = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, and fail if the file is not up to date.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a model card from a config and its results, or update one; with --for, lay its folder out."""
    from ..atomic import write_file
    from ..evaluation import Results
    from ..hub import CONFIG_NAME, PICTURE_NAME, laid_out, render_card, validate_card

    existing = _read_card(out) if out.is_file() else None
    # a card is brought up to date, and the text of people in it is kept; nothing else is touched
    if not check and (existing is None or not _is_card(existing)):
        refuse_existing([out], overwrite=overwrite)
        if picture is not None:
            refuse_existing([out.with_name(PICTURE_NAME)], overwrite=overwrite)
    if for_ and not check:
        _lay_out(model, out.parent, for_, allow_pickle=allow_pickle, overwrite=overwrite)
    known = _describe(model, allow_pickle)
    config = U2NetConfig.load(out.with_name(CONFIG_NAME)) if for_ else known.config
    if picture is not None and not check:
        _example(model, picture, out.with_name(PICTURE_NAME))
    results = results or known.results
    text = render_card(
        config,
        None if results is None else Results.load(results),
        name=name or known.name,
        weights=known.weights,
        picture=out.with_name(PICTURE_NAME).is_file(),
        loaders=laid_out(config.other),
        license=license_,
        existing=existing,
    )
    validate_card(text)
    if not check:
        write_file(out, text.encode())
    elif text != existing:
        raise ValueError(f"{out} is not up to date; update it by leaving out --check")
    typer.echo(out)


class _Described(NamedTuple):
    """What a card says of a source of weights."""

    config: U2NetConfig
    name: str
    weights: Weights | None = None
    results: Path | None = None
    """results.json beside the weights."""


def _describe(model: str, allow_pickle: bool) -> _Described:
    """Describe a source of weights, or one of the two sizes without weights."""
    from ..checkpoints import read_checkpoint
    from ..config import STAGES
    from ..hub import Weights, convert_line, list_bundled, resolve

    if model in STAGES and model not in [bundled.name for bundled in list_bundled()]:
        return _Described(U2NetConfig(variant=model), model)
    source = resolve(model, allow_pickle=allow_pickle)
    if source.format != "safetensors":
        raise ValueError(f"{model} is no .safetensors; run: {convert_line(model, allow_pickle)}")
    beside = source.weights_path.with_name("results.json")
    return _Described(
        source.config() or read_checkpoint(source.weights_path).config,
        source.name if source.kind in ("hub", "bundled") else source.weights_path.parent.name,
        Weights.of(source.weights_path, source.sha256),
        beside if beside.is_file() else None,
    )


def _lay_out(
    model: str, folder: Path, loaders: Sequence[str], *, allow_pickle: bool, overwrite: bool
) -> None:
    """Write the files for other loaders into the folder of a model, and their entries into its config.json.

    Raises:
        FileNotFoundError: The folder does not hold the model's weights.
        FileExistsError: A file is there that this library did not make.
    """
    from ..atomic import content_hash, write_files
    from ..engines import keep_loaders
    from ..hub import CONFIG_NAME, LOADER_FILES, WEIGHTS_NAME, convert_line, laid_out, resolve
    from ..model import U2Net

    source = resolve(model, allow_pickle=allow_pickle)
    weights = folder / WEIGHTS_NAME
    if not weights.is_file() or content_hash(weights) != source.sha256:
        raise FileNotFoundError(
            f"{folder} does not hold the weights of {model}, which other loaders need beside the card; "
            f"run: {convert_line(model, allow_pickle)}, and lay that folder out"
        )
    network = U2Net.from_pretrained(folder)
    entries = network.config.other
    make = keep_loaders(network, loaders)
    ours = {name for loader in laid_out(entries) for name in LOADER_FILES[loader]}
    needed = {name for loader in loaders for name in LOADER_FILES.get(loader, ())}  # type: ignore[call-overload]
    refuse_existing([folder / name for name in sorted(needed - ours)], overwrite=overwrite)
    made = make(entries)
    config = network.config.replace(other={**entries, **made.config})
    for name, content in made.files.items():
        path = folder / name
        write_files(path.parent, {path.name: content})
    write_files(folder, {CONFIG_NAME: config.to_json().encode()})


def _read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is not UTF-8 text ({e.reason} at byte {e.start}); save it as UTF-8") from e


def _is_card(text: str) -> bool:
    """Tell whether a README.md is a model card of this library, which `card` updates."""
    return "library_name: u2net-hub" in text or "<!-- u2net-hub: begin" in text


def push(
    repo: Annotated[str, typer.Argument(help="org/name on the Hub, or a name in your own account.")],
    model: Annotated[
        str | None,
        typer.Option(help="Weights: any source. With --space, the models that it shows: org/one,org/two."),
    ] = None,
    results: ResultsFile = None,
    space: Annotated[
        bool,
        typer.Option("--space", help="Push the demo instead, as a Space with the files of this package."),
    ] = False,
    hardware: Annotated[
        str, typer.Option(help="With --space: cpu or gpu, which decides its packages. ZeroGPU is a gpu.")
    ] = "cpu",
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Visibility of a new repo.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="Branch, created if it does not exist. By default main.")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of a commit.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="First line of the commit.")] = None,
    tag: Annotated[str | None, typer.Option(help="A name for the commit.")] = None,
    picture: Picture = None,
    license_: License = None,
    for_: For = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    allow_pickle: AllowPickle = False,
    token: Token = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files and the card, and push nothing.")
    ] = False,
) -> None:
    """Push weights, config, card and results to the Hub in one commit; or, with --space, the demo."""
    from ..hub import name_weights

    where = _Where(private, branch, create_pr, message, tag, token)
    if space:
        if any(given is not None for given in (results, picture, license_)) or for_:
            raise ValueError(
                "--results, --picture, --license and --for are for a model; leave them out with --space"
            )
        _push_space(repo, model, where, hardware, dry_run=dry_run)
    elif model is None:
        raise ValueError("got no weights to push; give --model, or --space to push the demo")
    else:
        named = name_weights(model) if allow_pickle else model
        _push_model(repo, named, where, results, picture, license_, for_ or [], dtype, dry_run=dry_run)


class _Where(NamedTuple):
    """The arguments that `push_to_hub` and `push_space` share, except the repo."""

    private: bool | None
    branch: str | None
    create_pr: bool
    commit_message: str | None
    tag: str | None
    token: str | None


def _push_model(
    repo: str,
    model: str,
    where: _Where,
    results: Path | None,
    picture: Path | None,
    license_: str | None,
    loaders: Sequence[str],
    dtype: str,
    *,
    dry_run: bool,
) -> None:
    """Push a model, or show what would be pushed."""
    from ..engines import keep_loaders
    from ..hub import PICTURE_NAME, folder_contents, resolve
    from ..model import U2Net

    source = resolve(model)
    beside = source.weights_path.parent
    if results is None and source.kind != "file" and (beside / "results.json").is_file():
        results = beside / "results.json"
    network = U2Net.from_pretrained(model)
    extra = keep_loaders(network, loaders)
    with tempfile.TemporaryDirectory() as scratch:
        shown = beside / PICTURE_NAME if source.kind != "file" else None
        if picture is not None:
            shown = _example(model, picture, Path(scratch, PICTURE_NAME))
        content: dict[str, Any] = {
            "metrics": results,
            "picture": shown if shown is not None and shown.is_file() else None,
            "dtype": dtype,
        }
        if dry_run:
            folder = network.fill_repo(Path(scratch, "repo"), **content)
            _show(folder_contents(folder, repo, license=license_, extra=extra))
        else:
            _tell(network.push_to_hub(repo, license=license_, extra=extra, **content, **where._asdict()))


def _push_space(repo: str, models: str | None, where: _Where, hardware: str, *, dry_run: bool) -> None:
    """Push the demo, or show what would be pushed."""
    from ..demo import push_space, space_files

    if hardware not in ("cpu", "gpu"):
        raise ValueError(f"unknown hardware {hardware!r}, expected cpu or gpu")
    on: Literal["cpu", "gpu"] = "gpu" if hardware == "gpu" else "cpu"
    if dry_run:
        _show(dict(sorted(space_files(on).items())))
        return
    named = [name.strip() for name in (models or "").split(",") if name.strip()]
    _tell(push_space(repo, models=named, hardware=on, **where._asdict()))


def _show(files: Mapping[str, Content]) -> None:
    """Print the names and sizes of files, and the card if there is one."""
    width = max(map(len, files))
    for name, content in files.items():
        size = content.stat().st_size if isinstance(content, Path) else len(content or b"")
        typer.echo(f"{name:{width}}  {size:>12,} bytes")
    card = files.get("README.md")
    if isinstance(card, bytes):
        typer.echo(card.decode())


def _tell(pushed: Pushed) -> None:
    """Print the address of the commit or pull request, and a message if nothing had changed."""
    if not pushed.changed:
        typer.echo("nothing has changed, no commit was made", err=True)
    typer.echo(pushed.pull_request or pushed.url)


def _example(model: str, photo: Path, out: Path) -> Path:
    """Make the picture of a card: a photo, its map and its cutout, side by side on white."""
    from PIL import Image

    from ..imaging import Entry, draw_sheet
    from ..inference import SaliencyPipeline

    result = SaliencyPipeline.from_pretrained(model)(photo)
    maps = Image.fromarray((result.saliency * 255).round().astype("uint8"))
    sheet = draw_sheet(
        [Entry([result.photo.rgb, maps, result.over("white")], "")],
        columns=1,
        tile=min(420, max(result.size)),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=80, method=6)
    return out
