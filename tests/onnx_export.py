"""Networks exported to ONNX by torch, as the files of the family were made."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from u2net_hub import U2Net

if TYPE_CHECKING:
    import onnx


class WithActivation(nn.Module):
    def __init__(self, network: U2Net, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.activation = activation

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.activation(y) for y in self.network(x))


def export(
    path: Path, network: U2Net, *, folded: bool = True, activation: Callable[[Tensor], Tensor] = torch.sigmoid
) -> onnx.ModelProto:
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    x = torch.zeros(1, network.config.in_channels, 64, 64)
    with warnings.catch_warnings():
        # the exporter that the family's files were written with; torch has a newer one
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            WithActivation(network, activation).eval(),
            (x,),
            path,
            dynamo=False,
            training=mode,
            do_constant_folding=folded,
            opset_version=17,
        )
    import onnx

    return onnx.load(path)
