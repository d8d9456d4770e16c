"""The `u2net` command: each verb is one public call. Only it and its verbs print."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from .bench import bench
from .options import AllowPickle, Device, EngineChoice, PrecisionChoice
from .photos import cutout, mask
from .publishing import card, push
from .training import check_data, eval_, train
from .weights import convert, download, export, info, list_

app = typer.Typer(
    name="u2net",
    help="U²-Net and U²-Net†: masks and cutouts, training, scores and publishing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its columns are too narrow for the help of 40 options
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
        int,
        typer.Option(
            "-v", "--verbose", count=True, help="Show more messages; -vv shows those for debugging."
        ),
    ] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show only errors.")] = False,
) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(
            logging.WARNING
        )  # at lower levels they log signed URLs and access tokens


def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights: any source; can be repeated. By default U2NET_MODELS, or the bundled U²-Net†."
        ),
    ] = None,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "exact",
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, 0.0.0.0 for all. By default only this machine.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on. By default the first free one.")
    ] = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Serve the demo in the browser, until Ctrl-C."""
    from ..demo import launch
    from ..hub import name_weights

    launch(
        ([name_weights(each) for each in model] if allow_pickle else model) if model else None,
        device=device,
        engine=engine,
        precision=precision,
        host=host,
        port=port,
        on_ready=typer.echo,
    )


VERBS: dict[str, Callable[..., None]] = {
    "cutout": cutout,
    "mask": mask,
    "train": train,
    "eval": eval_,
    "check-data": check_data,
    "bench": bench,
    "list": list_,
    "info": info,
    "convert": convert,
    "export": export,
    "download": download,
    "card": card,
    "push": push,
    "demo": demo,
}
for name, verb in VERBS.items():
    app.command(name)(verb)


def main() -> None:
    """Run the command. An expected error is one line on stderr, and exit code 1."""
    # `imaging.load` refuses pictures of twice that size
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
    try:
        app()
    except (ValueError, OSError, ImportError, RuntimeError) as e:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        from ..checkpoints import printable_text

        message = printable_text(" ".join(str(e).split()) or type(e).__name__, longest=4000)
        typer.echo(f"u2net: {message}", err=True)
        sys.exit(1)
    except KeyboardInterrupt as e:
        typer.echo(f"u2net: {str(e) or 'interrupted'}", err=True)
        sys.exit(130)
