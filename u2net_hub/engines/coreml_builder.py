"""Build the network as a Core ML program (MIL), without torch.

The program has a fixed size. It takes the pixels of a resized photo, and the scaling and the activation are
inside it. Batch norm is folded into the convolutions, and each convolution has its official name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints import Conv, Folded, walk
from ..config import U2NetConfig
from .onnx_builder import output_names
from .phone_graph import import_for
from .precision import sensitive_convolutions


def build_program(
    config: U2NetConfig, convs: Mapping[str, Folded], *, side_outputs: bool = False
) -> tuple[Any, set[str]]:
    """Build the MIL program of a network.

    The input is called "image": float32 (1, channels, height, width) from 0 to 255. The outputs are called
    "saliency" and, on request, "side1" …: (1, out, height, width) after the activation.

    Args:
        config: The config of the network.
        convs: The folded convolutions by their official names, as `fold` returns them.
        side_outputs: Whether the program also has the side outputs.

    Returns:
        The program in float32, and the names of the operations that have to stay in float32: the scaling of
        the pixels, and what calculates or reads the large values of sensitive convolutions.

    Raises:
        ImportError: coremltools is not installed.
    """
    ct = import_for("coreml", "coremltools")
    from coremltools.converters.mil import Builder as mb

    graph = _GraphBuilder(mb, convs)

    @mb.program(  # type: ignore[untyped-decorator, unused-ignore]
        input_specs=[mb.TensorSpec(shape=(1, config.in_channels, *config.input_size))],
        opset_version=ct.target.iOS15,
    )
    def program(image: Any) -> Any:
        fused, sides = walk(config, graph, graph.scale(config, image))
        names = output_names(config) if side_outputs else output_names(config)[:1]
        outputs = []
        for name, x in zip(names, (fused, *sides), strict=False):
            if config.activation == "softmax":
                outputs.append(graph.node(mb.softmax, name, x, axis=1))
            else:
                outputs.append(graph.node(mb.sigmoid, name, x))
        return tuple(outputs)

    return program, graph.kept


class _GraphBuilder:
    """The operations of the network for `walk`: each adds an operation and returns its MIL variable."""

    def __init__(self, mb: Any, convs: Mapping[str, Folded]) -> None:
        self.mb = mb
        self.convs = convs
        self.stage = "input"
        self.count = 0
        self.sensitive = {*sensitive_convolutions(convs)}
        self.large: set[str] = set()  # the names of variables with channels from sensitive convolutions
        self.kept: set[str] = set()

    def node(self, op: Callable[..., Any], name: str | None, x: Any, **arguments: Any) -> Any:
        """Add an operation on a variable, or on several of them for "values"."""
        self.count += 1
        name = name or f"{self.stage}.{self.count}"
        inputs = [*x] if isinstance(x, Sequence) else [x, arguments.get("y")]
        if isinstance(x, Sequence):
            result = op(values=x, name=name, **arguments)
        else:
            result = op(x=x, name=name, **arguments)
        if any(getattr(value, "name", None) in self.large for value in inputs):
            self.kept.add(name)
            if "weight" not in arguments:
                self.large.add(name)
        return result

    def scale(self, config: U2NetConfig, pixels: Any) -> Any:
        """Divide by the maximum or by 255, subtract the mean and divide by std, as `imaging.preprocess`."""
        mb = self.mb
        top: Any = np.float32(255)
        if config.scale == "image_max":
            top = mb.reduce_max(x=pixels, axes=[1, 2, 3], keep_dims=True, name="maximum")
            # a black image is divided by 1
            top = mb.maximum(x=top, y=np.float32(1), name="divisor")
        mean, std = (_per_channel(values) for values in (config.mean, config.std))
        x = mb.real_div(x=pixels, y=top, name="scaled")
        x = mb.sub(x=x, y=mean, name="centred")
        self.kept |= {"maximum", "divisor", "scaled", "centred", "normalised"}
        return mb.real_div(x=x, y=std, name="normalised")

    def conv(self, conv: Conv, x: Any) -> Any:
        weight, bias = self.convs[conv.name]
        self.stage = conv.name.partition(".")[0]
        y = self.node(
            self.mb.conv,
            f"{conv.name}.conv" if conv.normed else conv.name,
            x,
            weight=weight,
            bias=bias,
            pad_type="custom",
            pad=[conv.dilation * (conv.kernel // 2)] * 4,
            dilations=[conv.dilation] * 2,
        )
        if conv.name in self.sensitive:
            self.large.add(y.name)
            self.kept.add(y.name)
        return self.node(self.mb.relu, conv.name, y) if conv.normed else y

    def pool(self, x: Any) -> Any:
        settings: dict[str, Any] = {"kernel_sizes": [2, 2], "strides": [2, 2], "ceil_mode": True}
        return self.node(self.mb.max_pool, None, x, pad_type="valid", **settings)

    def resize_like(self, x: Any, like: Any) -> Any:
        height, width = like.shape[2:]
        # UNALIGN_CORNERS is align_corners=False in torch
        return self.node(
            self.mb.resize_bilinear,
            None,
            x,
            target_size_height=height,
            target_size_width=width,
            sampling_mode="UNALIGN_CORNERS",
        )

    def concat(self, *values: Any) -> Any:
        return self.node(self.mb.concat, None, values, axis=1)

    def add(self, name: str, residual: Any, x: Any) -> Any:
        return self.node(self.mb.add, name, residual, y=x)


def _per_channel(values: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)
