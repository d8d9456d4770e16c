"""Write Core ML packages, and calculate their maps on any machine by reading the program in them.

Core ML itself runs only on Apple's systems. `open_coreml` therefore reads a package back and carries out its
operations in torch, as Apple's reference of the operations defines them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints import Folded
from ..config import U2NetConfig
from .coreml_builder import build_program
from .litert import Run
from .phone_graph import PIXELS_NAME, WeightType, fits_float16, import_for

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = Path("Data", "com.apple.CoreML", "weights")


def write_coreml(
    config: U2NetConfig,
    convs: Mapping[str, Folded],
    path: Path,
    *,
    weights: WeightType = "float16",
    side_outputs: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, WeightType]:
    """Write the Core ML package of a network, for iOS 15, macOS 12 and later.

    The input is called "image": a picture of the config's input size. The outputs are called "saliency" and,
    on request, "side1" …: float32 (1, out, height, width) after the activation.

    Args:
        config: The config of the network, which takes 3 channels (RGB) or 1 (grey).
        convs: The folded convolutions by their official names, as `fold` returns them.
        path: The package to write, a folder that does not exist.
        weights: "float16" also calculates in float16, except where that would damage the maps: the scaling
            of the pixels, and what calculates or reads the large values of sensitive convolutions.
        side_outputs: Whether the package also has the side outputs.
        metadata: Entries for the metadata of the package.

    Returns:
        The type of the weights of each convolution.

    Raises:
        ImportError: coremltools is not installed.
    """
    ct = import_coremltools()
    program, kept = build_program(config, convs, side_outputs=side_outputs)
    kept |= {name for name, conv in convs.items() if not all(map(fits_float16, conv))}
    if weights == "float16":
        precision = ct.transform.FP16ComputePrecision(op_selector=lambda op: op.name not in kept)
    else:
        precision = ct.precision.FLOAT32
    layout = ct.colorlayout.RGB if config.in_channels == 3 else ct.colorlayout.GRAYSCALE
    shape = (1, config.in_channels, *config.input_size)
    with redirect_stdout(sys.stderr):
        model = ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            inputs=[ct.ImageType(name=PIXELS_NAME, shape=shape, color_layout=layout)],
            minimum_deployment_target=ct.target.iOS15,
            compute_precision=precision,
            skip_model_load=True,
        )
    said = dict(metadata or {})
    model.short_description = f"{config.variant}, exported by u2net-hub"
    model.input_description[PIXELS_NAME] = said.get("preprocessing", "")
    model.user_defined_metadata.update({f"u2net_hub.{name}": text for name, text in said.items()})
    model.save(str(path))
    return {
        name: "float32" if weights == "float32" or {name, f"{name}.conv"} & kept else "float16"
        for name in convs
    }


def import_coremltools() -> Any:
    """Import coremltools without its warnings about versions of packages that take no part here.

    Raises:
        ImportError: It is not installed.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    return import_for("coreml", "coremltools")


def open_coreml(path: Path, *, rounded: bool = False) -> Run:
    """Read a package, and return a function that carries out its operations in torch.

    Args:
        path: The package.
        rounded: Whether each value that the program holds in float16 is rounded to it; the sums inside an
            operation stay in float32. Without, only the weights are those of the file.

    Raises:
        ImportError: coremltools is not installed.
        ValueError: The program has an operation that this library does not write.
    """
    ct = import_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.converters.mil.mil import types

    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    program = load(spec, spec.specificationVersion, str(path / WEIGHTS))
    (function,) = program.functions.values()
    for op in function.operations:
        settings = {name: getattr(op.inputs.get(name), "val", None) for name in _SETTINGS}
        if op.op_type not in {"const", "cast", *_OPERATIONS} or any(
            value not in (None, _SETTINGS[name].get(op.op_type)) for name, value in settings.items()
        ):
            raise ValueError(f"{path} holds an operation that is unknown here: {op.op_type} {settings}")

    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        import torch

        values: dict[str, Tensor] = {
            PIXELS_NAME: torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1)[None].copy())
        }
        with torch.inference_mode():
            for op in function.operations:
                if op.op_type != "const":
                    result = _carry_out(op, values)
                    half = rounded and types.builtin_to_string(op.outputs[0].dtype) == "fp16"
                    values[op.outputs[0].name] = result.half().float() if half else result
        return {output.name: values[output.name][0].numpy() for output in function.outputs}

    return run


def _carry_out(op: Any, values: Mapping[str, Tensor]) -> Tensor:
    """Calculate the output of one operation, in float32."""
    import torch

    def value(of: Any) -> Tensor:
        if of.name in values:
            return values[of.name]
        return torch.from_numpy(np.array(of.val, np.float32))

    if op.op_type == "cast":
        return value(op.x)
    if op.op_type == "concat":
        return torch.cat([value(each) for each in op.values], int(op.axis.val))
    operands = [value(op.inputs[name]) for name in ("x", "y", "weight", "bias") if name in op.inputs]
    return _OPERATIONS[op.op_type](op, *operands)


def _conv(op: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    import torch.nn.functional as F

    top, bottom, left, right = map(int, op.pad.val)
    return F.conv2d(
        F.pad(x, (left, right, top, bottom)),
        weight,
        bias,
        groups=int(op.groups.val),
        stride=[*map(int, op.strides.val)],
        dilation=[*map(int, op.dilations.val)],
    )


def _max_pool(op: Any, x: Tensor) -> Tensor:
    import torch.nn.functional as F

    kernel, stride = [*map(int, op.kernel_sizes.val)], [*map(int, op.strides.val)]
    return F.max_pool2d(x, kernel, stride, ceil_mode=bool(op.ceil_mode.val))


def _resize(op: Any, x: Tensor) -> Tensor:
    import torch.nn.functional as F

    size = int(op.target_size_height.val), int(op.target_size_width.val)
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


_SETTINGS = {
    "pad_type": {"conv": "custom", "max_pool": "valid"},
    "sampling_mode": {"resize_bilinear": "UNALIGN_CORNERS"},
}
"""The only values of some settings that are carried out here, by operation."""

_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": lambda op, x, y: x + y,
    "concat": lambda op, x: x,  # see _carry_out
    "conv": _conv,
    "max_pool": _max_pool,
    "maximum": lambda op, x, y: x.maximum(y),
    "mul": lambda op, x, y: x * y,
    "real_div": lambda op, x, y: x / y,
    "reduce_max": lambda op, x: x.amax([*map(int, op.axes.val)], keepdim=bool(op.keep_dims.val)),
    "relu": lambda op, x: x.relu(),
    "resize_bilinear": _resize,
    "sigmoid": lambda op, x: x.sigmoid(),
    "softmax": lambda op, x: x.softmax(int(op.axis.val)),
    "sub": lambda op, x, y: x - y,
}
