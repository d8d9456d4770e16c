"""Make the files that other libraries need in a repo, beside config.json and model.safetensors."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import LIBRARY_NAME
from ..hub import (
    GRAPH_NAME,
    HANDLER_NAME,
    LAID_OUT,
    LOADER_FILES,
    MODELING_NAME,
    NETWORK_NAME,
    PROCESSOR_NAME,
    REQUIREMENTS_NAME,
    ExtraFiles,
    Loader,
    MakeExtra,
    laid_out,
)
from .exporting import make_onnx
from .onnx_builder import WeightType

if TYPE_CHECKING:
    from ..model import U2Net

_PACKAGE = Path(__file__).parents[1]
_TEMPLATES = Path(__file__).parent / "templates"
_WEIGHTS: dict[str, WeightType] = {
    GRAPH_NAME: "float32",
    "onnx/model_fp16.onnx": "float16",
    "onnx/model_quantized.onnx": "int8",
}
"""The names that transformers.js looks for, by `dtype`: "fp32", "fp16" and "q8"."""
_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_convert_rgb": True,
    "do_resize": False,
    "do_rescale": False,
    "do_normalize": False,
    "do_center_crop": False,
}
"""A processor that changes nothing: the graph takes the photo as it is."""
_REQUIREMENTS = "numpy>=1.24\npillow>=11.3\nsafetensors>=0.5\ntorch>=2.2\n"


def check_loaders(network: U2Net, loaders: Iterable[str]) -> tuple[Loader, ...]:
    """Return the loaders in order, each once.

    Raises:
        ValueError: A loader is unknown, or cannot use networks with this config.
    """
    config = network.config
    known = list(LOADER_FILES)
    found = set()
    for loader in loaders:
        if loader not in LOADER_FILES:
            raise ValueError(f"unknown loader {loader!r}, expected some of {known}")
        found.add(loader)
    if found and config.in_channels != 3:
        raise ValueError(
            f"other loaders give a network RGB photos, and this one takes {config.in_channels} channels"
        )
    if found - {"onnxruntime"} and config.out_channels != 1:
        raise ValueError(
            f"this network has {config.out_channels} classes, and the files for {sorted(found)} are for one "
            "map; lay it out for 'onnxruntime' only"
        )
    return tuple(loader for loader in known if loader in found)


def loader_files(network: U2Net, loaders: Iterable[str]) -> ExtraFiles:
    """Make the files for some loaders, and their entries in config.json.

    Args:
        network: The network. Its graphs are compared with it before they are returned.
        loaders: Some of "onnxruntime", "transformers.js", "transformers" and "endpoints".

    Raises:
        ValueError: A loader is unknown or cannot use this network, or a graph differs from it.
        ImportError: onnx or onnxruntime is not installed, which graphs need.
    """
    chosen = check_loaders(network, loaders)
    config: dict[str, object] = {LAID_OUT: list(chosen)} if chosen else {}
    if "transformers.js" in chosen or "transformers" in chosen:
        # transformers.js knows background removal by this type; transformers has no network of the name
        config["model_type"] = "isnet"
    if "transformers" in chosen:
        module = MODELING_NAME.removesuffix(".py")
        config |= {
            "architectures": ["U2NetForImageSegmentation"],
            "auto_map": {
                "AutoConfig": f"{module}.U2NetTransformersConfig",
                "AutoModel": f"{module}.U2NetForImageSegmentation",
                "AutoModelForImageSegmentation": f"{module}.U2NetForImageSegmentation",
            },
            "dtype": "float32",
        }
    names = dict.fromkeys(name for loader in chosen for name in LOADER_FILES[loader])
    return ExtraFiles({name: _make(network, name) for name in names}, config)


def keep_loaders(network: U2Net, loaders: Iterable[str]) -> MakeExtra:
    """Return what makes the files for some loaders, and for those that a repo is laid out for already.

    Raises:
        ValueError: A loader is unknown or cannot use this network.
    """
    chosen = check_loaders(network, loaders)
    made: dict[tuple[str, ...], ExtraFiles] = {}

    def make(entries: Mapping[str, object]) -> ExtraFiles:
        wanted = tuple(sorted({*chosen, *laid_out(entries)}))
        if wanted not in made:  # a push that is repeated asks again
            made[wanted] = loader_files(network, wanted)
        return made[wanted]

    return make


def _make(network: U2Net, name: str) -> bytes:
    if name in _WEIGHTS:
        return make_onnx(network, "whole", input_type="float32", weights=_WEIGHTS[name])
    texts: dict[str, Callable[[], str]] = {
        PROCESSOR_NAME: lambda: json.dumps(_PROCESSOR, indent=2) + "\n",
        NETWORK_NAME: network_source,
        MODELING_NAME: lambda: _template(MODELING_NAME),
        HANDLER_NAME: lambda: _template(HANDLER_NAME),
        REQUIREMENTS_NAME: lambda: _REQUIREMENTS,
    }
    return texts[name]().encode()


def _template(name: str) -> str:
    return (_TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")


@cache
def network_source() -> str:
    """Generate a module of the network and its preprocessing that needs torch, NumPy and Pillow only.

    Its classes and functions are the text of model.py, config.py and imaging/transforms.py.
    """
    config = _definitions("config.py", ["Stage", "_U2NET", "STAGES"])
    steps = _definitions(
        "imaging/transforms.py",
        [
            "_RESAMPLE", "_resample", "FOUND_FROM", "confidence", "normalise", "stretch", "to_grey",
            "_STRIP_ROWS", "_resized_strips",
        ],
    )  # fmt: skip
    model = _definitions("model.py", ["u_shape", "descend", "resize_like", "ConvBnRelu", "RSU", "U2Net"])
    model = model.replace("class U2Net(Pretrained, nn.Module)", "class U2Net(nn.Module)")
    head, tail = _template(NETWORK_NAME).replace("{library}", LIBRARY_NAME).split("# {definitions}\n")
    return head + "\n\n\n".join([config, steps, model]) + "\n\n" + tail


def _definitions(path: str, names: Collection[str]) -> str:
    """Copy definitions from a module of the package, in its order, without their `fuse` method."""
    text = (_PACKAGE / path).read_text(encoding="utf-8")
    lines = text.splitlines()
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        else:
            continue
        if name in names:
            end = node.end_lineno
            if isinstance(node, ast.ClassDef):  # `fuse` is for engines, and comes last
                end = next(
                    (each.lineno - 1 for each in node.body if getattr(each, "name", "") == "fuse"), end
                )
            found[name] = "\n".join(lines[node.lineno - 1 : end]).rstrip()
    missing = [name for name in names if name not in found]
    if missing:
        raise RuntimeError(f"{path} no longer defines {missing}, which the files for other loaders carry")
    return "\n\n\n".join(found.values())
