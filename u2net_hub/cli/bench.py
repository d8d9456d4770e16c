"""The verb that compares the speed of engines."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from .options import AllowPickle, Overwrite, command_line

BenchModels = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Weights: any source, or an .xml file of u2net export. The option can be repeated. "
        "By default u2netp.",
    ),
]
PeerPython = Annotated[
    Path | None,
    typer.Option(envvar="U2NET_PEER_PYTHON", help="The Python that has rembg, if it is not this one."),
]


def _named(sources: list[str], allow_pickle: bool) -> list[str]:
    """Name the files of weights where they may be pickles."""
    from ..hub import name_weights

    return [name_weights(each) for each in sources] if allow_pickle else sources


def bench(
    model: BenchModels = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="torch, torch compile, onnxruntime, openvino; repeatable. By default all but torch compile."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="exact, fast or int8; can be repeated. By default exact and fast."),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Side of the network's input in pixels; can be repeated. By default 320."),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Photos that the network processes at once; can be repeated. By default 1."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = "cpu",
    data: Annotated[
        Path | None, typer.Option(help="Folder or list file of photos and masks, to measure accuracy too.")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos, to time whole commands, also those of rembg.")
    ] = None,
    peer_python: PeerPython = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of half a second for each configuration.")] = 10,
    folder_rounds: Annotated[int, typer.Option(min=1, help="Runs of each command on --photos.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Folder for benchmark.json, benchmark.md and benchmark.png.")
    ] = None,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
    json_: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
) -> None:
    """Measure speed, memory and accuracy of the engines on this machine, and of rembg if it is installed."""
    from ..benchmarks import benchmark_engines, check_free

    if out is not None and not overwrite:
        check_free(out)
    found = benchmark_engines(
        _named(model or ["u2netp"], allow_pickle),
        engines=engine or ("torch", "onnxruntime", "openvino"),  # type: ignore[arg-type]  # checked there
        precisions=precision or ("exact", "fast"),  # type: ignore[arg-type]  # checked there
        sizes=size or (320,),
        batches=batch or (1,),
        device=device,
        data=data,
        photos=photos,
        peer_python=peer_python,
        rounds=rounds,
        folder_rounds=folder_rounds,
        command=command_line(),
        on_message=_say,
    )
    if out is not None:
        found.save(out)
    typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if json_ else found.table())


def _say(line: str) -> None:
    """Print the current step, unless only errors are shown."""
    if logging.getLogger("u2net_hub").isEnabledFor(logging.WARNING):
        typer.echo(f"u2net: {line}", err=True)
