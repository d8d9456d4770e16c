"""The `u2net` command: each verb is one public call. Only this module prints."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from . import __version__

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
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; -vv for debugging.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
) -> None:
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)


def main() -> None:
    """Run the command; an expected error is one line on stderr and exit code 1."""
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
