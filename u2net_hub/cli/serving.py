"""The verb that serves programs over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AllowPickle, BatchSize, Device, EdgesChoice, EngineChoice, Models, PrecisionChoice


def serve(
    model: Models = None,
    host: Annotated[str, typer.Option(help="Address to listen on, 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on, 0 for a free one.")] = 7000,
    device: Device = "auto",
    engine: EngineChoice = "auto",
    precision: PrecisionChoice = "exact",
    edges: EdgesChoice = "sharp",
    queue: Annotated[
        int, typer.Option(min=1, help="Requests that may be here at once; one more gets status 503.")
    ] = 64,
    batch_size: BatchSize = 8,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads that decode and encode photos; 0 for one per core, at most 4.")
    ] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes. Each has its own models and queue.")] = 1,
    allow_urls: Annotated[
        list[str] | None,
        typer.Option(help="Host from which photos may be fetched by address. The option can be repeated."),
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(help="File with one API key on each line; or set U2NET_API_KEYS.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest request in bytes.")] = 50_000_000,
    max_pixels: Annotated[int, typer.Option(min=1, help="Most pixels of a photo.")] = 50_000_000,
    max_side: Annotated[int, typer.Option(min=1, help="Longest side of a photo in pixels.")] = 16_000,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a request is ended.")] = 60.0,
    allow_pickle: AllowPickle = False,
) -> None:
    """Serve masks and cutouts over HTTP, with the APIs of rembg and remove.bg, until Ctrl-C or SIGTERM."""
    from ..server import Settings, serve as run

    settings = Settings(
        models=tuple(model or ("u2netp",)),
        device=device,
        engine=engine,
        precision=precision,
        edges=edges,
        queue=queue,
        threads=threads,
        batch_size=batch_size,
        allow_urls=tuple(allow_urls or ()),
        api_keys=str(api_keys or ""),
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_side=max_side,
        timeout=timeout,
        allow_pickle=allow_pickle,
    )
    run(settings, host=host, port=port, workers=workers, on_ready=lambda at: typer.echo(f"ready at {at}"))
