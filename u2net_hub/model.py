"""U²-Net and U²-Net† (Qin et al. 2020, arXiv 2005.09007) under the official state-dict keys.

A residual U-block is a U-shape of convolutions, and the network is a U-shape of residual U-blocks: `u_shape`
runs both. The table in `config.STAGES` is the architecture; nothing else differs between the two sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .config import Stage, U2NetConfig
from .hub import Pretrained


def u_shape(
    x: Tensor, encoder: Sequence[nn.Module], decoder: Sequence[nn.Module], pooled: Sequence[bool]
) -> list[Tensor]:
    """Run the encoder blocks and then the decoder blocks: (B, C, H, W) -> outputs of bottom and decoder,
    going up.

    The input of a decoder block is the output of the level below, resized and joined to the skip connection.
    """
    *skips, x = descend(x, encoder, pooled)
    outputs = [x]
    for block, skip, pool in zip(decoder, reversed(skips), reversed(pooled[1:]), strict=True):
        x = block(torch.cat((resize_like(x, skip) if pool else x, skip), 1))
        outputs.append(x)
    return outputs


def descend(x: Tensor, encoder: Sequence[nn.Module], pooled: Sequence[bool]) -> list[Tensor]:
    """Run the encoder blocks: (B, C, H, W) -> the output of each block, top first.

    If `pooled[i]` is true, block i works at half the size (rounded up) of the block before it.
    """
    outputs: list[Tensor] = []
    for block, pool in zip(encoder, pooled, strict=True):
        x = block(F.max_pool2d(x, 2, 2, ceil_mode=True) if pool else x)
        outputs.append(x)
    return outputs


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """Resize bilinearly to the height and width of `like`: (B, C, h, w) -> (B, C, H, W)."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class ConvBnRelu(nn.Module):
    """3 × 3 convolution, batch norm, ReLU (official: REBNCONV): (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation)
        self.bn_s1: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn_s1(self.conv_s1(x)))


class RSU(nn.Module):
    """Residual U-block, F(x) + U(F(x)): (B, in, H, W) -> (B, out, H, W). The paper's section 3.1."""

    def __init__(self, in_channels: int, stage: Stage) -> None:
        super().__init__()
        L, mid, out = stage.L, stage.mid, stage.out
        # RSU-4F uses dilation instead of pooling. RSU-L dilates only its bottom convolution, which therefore
        # keeps the size of the level above.
        self.pooled = (False,) * L if stage.dilated else (False, *[True] * (L - 2), False)
        dilation = [2**i for i in range(L)] if stage.dilated else [1] * (L - 1) + [2]
        self.rebnconvin = ConvBnRelu(in_channels, out)
        for i in range(L):
            self.add_module(f"rebnconv{i + 1}", ConvBnRelu(out if i == 0 else mid, mid, dilation[i]))
        for i in reversed(range(L - 1)):
            self.add_module(f"rebnconv{i + 1}d", ConvBnRelu(2 * mid, out if i == 0 else mid, dilation[i]))

    def forward(self, x: Tensor) -> Tensor:
        _, *blocks = self.children()
        L = len(self.pooled)
        x = self.rebnconvin(x)
        return x + u_shape(x, blocks[:L], blocks[L:], self.pooled)[-1]


class U2Net(Pretrained, nn.Module):
    """The network: (B, in, H, W) -> logits of the fused map and of each side output, each (B, out, H, W).

    In eval mode, the network works at any size from 1 × 1 px. The side outputs go from fine (`side1`) to
    coarse (`side6`).

    Args:
        config: The architecture and the preprocessing; the default is U²-Net†.
    """

    def __init__(self, config: U2NetConfig | None = None) -> None:
        super().__init__()
        self.config = config or U2NetConfig()
        table = self.config.table
        depth = (len(table) + 1) // 2
        encoder, decoder = table[:depth], table[depth:]
        self.encoder = tuple(stage.name for stage in encoder)
        self.decoder = tuple(stage.name for stage in decoder)
        self.pooled = (False, *[True] * (depth - 1))
        for stage in table:
            if hasattr(self, stage.name):
                raise ValueError(
                    f"stages has the name {stage.name!r}, which a module uses itself; call it 'stage…'"
                )

        width = self.config.in_channels
        for stage in encoder:
            self.add_module(stage.name, RSU(width, stage))
            width = stage.out
        for stage, skip in zip(decoder, reversed(encoder[:-1]), strict=True):
            self.add_module(stage.name, RSU(width + skip.out, stage))
            width = stage.out
        n = self.config.out_channels
        for i, stage in enumerate((*reversed(decoder), encoder[-1]), start=1):
            self.add_module(f"side{i}", nn.Conv2d(stage.out, n, 3, padding=1))
        self.outconv = nn.Conv2d(depth * n, n, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = u_shape(x, self._stages(self.encoder), self._stages(self.decoder), self.pooled)
        top, *below = [self.get_submodule(f"side{i}")(y) for i, y in enumerate(reversed(outputs), start=1)]
        sides = (top, *[resize_like(side, top) for side in below])
        return (self.outconv(torch.cat(sides, 1)), *sides)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Run the encoder: (B, in, H, W) -> the stages' outputs, fine to coarse, (B, out, ⌈H/2ⁱ⌉, ⌈W/2ⁱ⌉)."""
        return descend(x, self._stages(self.encoder), self.pooled)

    def _stages(self, names: tuple[str, ...]) -> list[nn.Module]:
        return [self.get_submodule(name) for name in names]

    def fuse(self) -> U2Net:
        """Return a faster copy in eval mode, in which each batch norm is folded into its convolution.

        The copy gives the same maps. It is only for inference: without batch norm it cannot be trained or
        saved.
        """
        fused = deepcopy(self).eval()
        for block in fused.modules():
            if isinstance(block, ConvBnRelu) and isinstance(block.bn_s1, nn.BatchNorm2d):
                block.conv_s1 = fuse_conv_bn_eval(block.conv_s1, block.bn_s1)
                block.bn_s1 = nn.Identity()
        return fused.eval()
