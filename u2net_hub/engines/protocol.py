"""The interface of every engine."""

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

    An engine is called with a batch of float32 (B, C, h, w), as `imaging.preprocess` makes it. It returns
    maps in [0, 1], after sigmoid or softmax, each float32 (B, out, h, w): the fused map, and with
    `side_outputs=True` the six side outputs after it.
    """

    config: U2NetConfig
    name: str
    device: str
    precision: Precision

    def __call__(
        self, batch: NDArray[np.float32], *, side_outputs: bool = False
    ) -> tuple[NDArray[np.float32], ...]: ...
