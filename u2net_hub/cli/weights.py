"""The verbs that list, describe, convert, export and download weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import AllowPickle, Overwrite, Token
from .outputs import refuse_existing

_LISTED = {"max_f": "maxF", "mae": "MAE", "s_measure": "S"}


def list_() -> None:
    """List the models that are installed with the command."""
    from ..hub import list_bundled
    from ..tables import text_table

    head = ["name", "size", "input", "scored on", *_LISTED.values(), "images/s"]
    rows = []
    for model in list_bundled():
        height, width = model.input_size
        scores = [format(model.scores[key], ".3f") if key in model.scores else "" for key in _LISTED]
        speed = "" if model.speed is None else format(model.speed.images_per_second, ".1f")
        rows.append([model.name, model.variant, f"{height} × {width}", model.dataset, *scores, speed])
    if not any(row[-1] for row in rows):  # no speed was measured
        head, rows = head[:-1], [row[:-1] for row in rows]
    typer.echo("\n".join(text_table(head, rows)))
    for model in list_bundled():
        typer.echo(f"\n{model.name}: {model.description}")


def info(
    model: Annotated[str, typer.Option(help="A bundled name, a folder, a file, or org/name on the Hub.")],
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Describe a checkpoint: variant, parameters, precision, hash, config, and what made it."""
    from ..checkpoints import printable_text
    from ..hub import load_network, resolve
    from ..model import U2Net

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
    del facts["config"], fields["pretrained_cfg"]  # timm's config repeats the other fields
    for name, value in (*facts.items(), *fields.items()):
        if value is not None:
            typer.echo(printable_text(f"{name.replace('_', ' '):16}{value}", longest=10_000))


def convert(
    model: Annotated[
        str, typer.Option(help="A .pth, .onnx or .safetensors file, a folder, or any other source.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for config.json and model.safetensors.")],
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    config: Annotated[
        str | None,
        typer.Option(help="A config.json, if the file has none, or a name such as u2net_portrait."),
    ] = None,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn any source of weights into a folder laid out as a Hub repo."""
    from ..config import U2NetConfig
    from ..hub import CONFIG_NAME, WEIGHTS_NAME, find_member
    from ..model import U2Net

    refuse_existing([out / CONFIG_NAME, out / WEIGHTS_NAME], overwrite=overwrite)
    member = find_member(config or "")
    given = member[1].config if member else None if config is None else U2NetConfig.load(config)
    network = U2Net.from_pretrained(model, config=given, allow_pickle=allow_pickle)
    typer.echo(network.save_pretrained(out, dtype=dtype))  # type: ignore[arg-type]  # checked there


def export(
    model: Annotated[str, typer.Option(help="Weights: any source.")],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .xml with a .bin beside it.")],
    format_: Annotated[
        Literal["onnx", "openvino"] | None,
        typer.Option("--format", help="File format. By default that of the suffix of --out."),
    ] = None,
    all_outputs: Annotated[
        bool, typer.Option("--all-outputs", help="Export the six side outputs too.")
    ] = False,
    precision: Annotated[
        Literal["exact", "int8"], typer.Option(help="int8 is for OpenVINO, and is calibrated on --data.")
    ] = "exact",
    data: Annotated[Path | None, typer.Option(help="Folder of typical photos, to calibrate int8.")] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="ONNX that takes a photo of any size and gives its map.",
        ),
    ] = False,
    only: Annotated[
        Literal["preprocessing", "postprocessing"] | None,
        typer.Option(help="One step before or after the network as an ONNX file of its own."),
    ] = None,
    input_type: Annotated[
        Literal["uint8", "float32"] | None, typer.Option(help="Type of the photos. By default uint8.")
    ] = None,
    minmax: Annotated[
        Literal["auto", "always", "never"] | None,
        typer.Option(help="Min–max in the postprocessing. By default as in the config."),
    ] = None,
    weights: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="Type in which an ONNX file stores its weights, for a smaller download."),
    ] = "float32",
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
) -> None:
    """Export a file that runs without torch. It is checked against torch before it is written."""
    from ..engines import export
    from ..hub import resolve

    if with_preprocessing and only is not None:
        raise ValueError(f"--with-preprocessing and --only {only} are different files; give one of them")
    source = resolve(model, allow_pickle=allow_pickle)
    typer.echo(
        export(
            source,
            out,
            format=format_,
            side_outputs=all_outputs,
            precision=precision,
            data=data,
            part=only or ("whole" if with_preprocessing else "network"),
            input_type=input_type,
            minmax=minmax,
            weights=weights,
            overwrite=overwrite,
        )
    )


def download(
    model: Annotated[
        str, typer.Option(help="org/name, org/name@revision or org/name/path/to/file on the Hub.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files. By default the cache of the Hub.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    token: Token = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder of the cache, instead of that of the Hub.")
    ] = None,
    allow_pickle: AllowPickle = False,
    overwrite: Overwrite = False,
) -> None:
    """Fetch the files of a repo from the Hub, to load them offline, and print the folder that holds them."""
    from .. import hub

    typer.echo(
        hub.download(
            model,
            out=out,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            allow_pickle=allow_pickle,
            overwrite=overwrite,
        )
    )
