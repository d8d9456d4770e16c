"""Options, records and progress that several verbs share."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from tqdm import tqdm

Inputs = Annotated[
    list[str],
    typer.Argument(help="Photos, folders of photos (subfolders too), or - for standard input."),
]
Out = Annotated[
    str | None,
    typer.Option(
        help="Folder, or for one photo a file, or - for standard output. By default beside the photos."
    ),
]
Model = Annotated[
    str, typer.Option(help="Weights: a bundled name, a folder, a file, or org/name[@revision] on the Hub.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
EdgesChoice = Annotated[
    Literal["soft", "sharp", "hair"],
    typer.Option(
        "--edges",
        help="sharp: for things with a clear outline. hair: for hair and fur. soft: the network's own map.",
    ),
]
EngineChoice = Annotated[
    Literal["auto", "torch", "onnxruntime", "openvino"],
    typer.Option("--engine", help="Engine that runs the network; auto takes the fastest that is installed."),
]
PrecisionChoice = Annotated[
    Literal["exact", "fast", "int8"],
    typer.Option(
        "--precision",
        help="exact: float32. fast: 16 bit if the hardware has it. int8: bundled models and int8 exports.",
    ),
]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="Accept a pickle, e.g. a .pth file.")]
Token = Annotated[
    str | None,
    typer.Option(help="Token for the Hub. Others can see it here; hf auth login or HF_TOKEN are safer."),
]
ResultsFile = Annotated[
    Path | None, typer.Option(help="results.json, or its folder. By default the one beside the weights.")
]
Picture = Annotated[Path | None, typer.Option(help="A photo to show in the card, with its map and cutout.")]
License = Annotated[
    str | None,
    typer.Option("--license", help="License of the weights, as the Hub names it. By default apache-2.0."),
]
FileFormat = Annotated[
    Literal["png", "webp", "jpg", "tiff"] | None,
    typer.Option(
        "--format",
        help="File format. By default that of the suffix of --out, or png. jpg has no transparency.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Saliency from which a pixel is the object, for hard edges."),
]
Crop = Annotated[bool, typer.Option("--crop", help="Crop to the object.")]
LargestPart = Annotated[bool, typer.Option("--largest-part", help="Keep only the largest part of the mask.")]
FillHoles = Annotated[bool, typer.Option("--fill-holes", help="Fill the holes of the mask.")]
Grow = Annotated[
    int, typer.Option("--grow", help="Pixels by which the mask grows; a negative number shrinks it.")
]
Watch = Annotated[
    bool,
    typer.Option("--watch", help="Do the photos of one folder and those that arrive there, until Ctrl-C."),
]
ClassName = Annotated[
    str | None, typer.Option("--class", help="Number or name of one class, if the network has several.")
]
MinMax = Annotated[
    Literal["auto", "always", "never"] | None,
    typer.Option(
        help="Stretch maps to full contrast: auto if an object was found, always as in the official code, "
        "or never. By default as the config of the weights says."
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Photos that the network processes at once.")]
Images = Annotated[
    str | None, typer.Option(help="Folder of the photos, if it cannot be guessed from its name.")
]
Masks = Annotated[
    str | None, typer.Option(help="Folder of the masks, if it cannot be guessed from its name.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Skip photos that have a result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a report on each file as JSON.")]


Data = Annotated[
    list[str] | None,
    typer.Option(help="Folder of photos and masks, or a list file. The option can be repeated."),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="Weights: any source. The option can be repeated."),
]
Maps = Annotated[
    list[str] | None,
    typer.Option(help="A folder with one map per photo, instead of weights. The option can be repeated."),
]
ScoresOut = Annotated[
    Path | None, typer.Option("--out", help="Folder for results.json, curves.npz, tables and plots.")
]
MapClasses = Annotated[
    int | None,
    typer.Option("--classes", min=2, help="Number of classes, if --maps and masks hold class numbers."),
]
Hce = Annotated[bool, typer.Option("--hce", help="Measure the human correction effort too, as for DIS5K.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that score beside the network. By default one for each core."),
]


def command_line() -> str:
    """Return the command that was given, for records, with paths shortened to the names of their files."""
    words = []
    for word in sys.argv[1:]:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        path = Path(value)
        outside = path.is_absolute() or value.startswith(("~", ".."))
        words.append(f"{option}{equals}{path.name if outside else value}")
    return shlex.join(["u2net", *words])


def tqdm_bar(total: int, unit: str, name: str | None = None) -> tqdm[Any]:
    """Make a progress bar, which is shown only if a person watches."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, desc=name, disable=not watched())


def watched() -> bool:
    """Tell whether a person watches: standard error is a terminal, and warnings are shown."""
    return sys.stderr.isatty() and logging.getLogger("u2net_hub").isEnabledFor(logging.WARNING)
