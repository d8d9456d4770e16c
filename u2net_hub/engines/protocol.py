"""What every engine offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from .precision import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..config import U2NetConfig


EngineName: TypeAlias = Literal["auto", "torch", "onnxruntime", "openvino"]


class Engine(Protocol):
    """Runs one network on batches.

    Calling it maps float32 (B, C, h, w), as `image.preprocess` makes them, to maps in [0, 1] after sigmoid or
    softmax, each float32 (B, out, h, w): the fused one, and with `side_outputs=True` the six sides after it.
    """

    config: U2NetConfig
    name: str
    device: str
    precision: Precision

    def __call__(
        self, batch: NDArray[np.float32], *, side_outputs: bool = False
    ) -> tuple[NDArray[np.float32], ...]: ...
