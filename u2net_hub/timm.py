"""Add U²-Net and U²-Net† to timm's registry, which happens when this module is imported.

    import timm
    import u2net_hub.timm

    timm.create_model("u2netp")                               # the network, with random weights
    timm.create_model("u2netp", pretrained=True)              # with the bundled weights
    timm.create_model("u2netp", features_only=True)           # the six encoder stages, as a backbone
    timm.create_model("hf-hub:org/name", pretrained=True)     # one of the two sizes, pushed by this library

Without the second import, timm says "Unknown model (u2netp)". A table of stages of one's own loads by
`U2Net.from_pretrained` only. timm downloads from the Hub by itself and does not compare hashes, which
`U2Net.from_pretrained` does.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor

try:
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
    from timm.models._features import feature_take_indices
except ImportError as e:
    raise ImportError(
        f"u2net_hub.timm needs timm ({e}); install it with: pip install 'u2net-hub[timm]'"
    ) from e

from .config import STAGES, U2NetConfig
from .hub import WEIGHTS_DIR, WEIGHTS_NAME
from .model import U2Net

__all__ = ["TimmU2Net", "u2net", "u2netp"]


class TimmU2Net(U2Net):
    """A U2Net with the methods that timm expects; its output and state dict are those of U2Net.

    Args:
        variant: Either "u2net" or "u2netp".
        in_chans: The number of input channels.
        num_classes: The number of maps per output.
    """

    def __init__(self, variant: str, in_chans: int = 3, num_classes: int = 1) -> None:
        config = U2NetConfig(variant=variant)
        if in_chans != config.in_channels:
            config = config.replace(in_channels=in_chans, mean=(0.5,) * in_chans, std=(0.5,) * in_chans)
        if num_classes > 1:
            config = config.replace(out_channels=num_classes, activation="softmax")
        super().__init__(config)
        self.num_classes = num_classes
        self.num_features = self.config.table[len(self.encoder) - 1].out
        self.feature_info = [
            {"num_chs": stage.out, "reduction": 2**i, "module": stage.name}
            for i, stage in enumerate(self.config.table[: len(self.encoder)])
        ]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Run encoder stages and return their outputs: (B, in, H, W) -> [(B, out, H / 2**i, W / 2**i), …].

        Args:
            x: The input.
            indices: The stages to return; a number n means the last n, None means all.
            norm: Has no effect, because there is no final norm.
            stop_early: Has no effect, because pruning removes the stages that are not needed.
            output_fmt: Must be "NCHW".
            intermediates_only: Return only the list. Otherwise the last stage's output comes before it.

        Raises:
            ValueError: `output_fmt` is not "NCHW".
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}, expected 'NCHW'")
        take, _ = feature_take_indices(len(self.encoder), indices)
        outputs = self.encode(x)
        taken = [outputs[i] for i in take]
        return taken if intermediates_only else (outputs[-1], taken)

    def prune_intermediate_layers(
        self, indices: int | list[int] | None = None, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what these encoder stages do not need: deeper stages, the decoder and the side outputs."""
        take, last = feature_take_indices(len(self.encoder), indices)
        kept = self.encoder[: last + 1]
        for name, _ in list(self.named_children()):
            if name not in kept:
                delattr(self, name)
        self.encoder, self.pooled = kept, self.pooled[: last + 1]
        return take


def _entry(variant: str) -> dict[str, object]:
    entry: dict[str, object] = {
        **cast("dict[str, object]", U2NetConfig(variant=variant).to_dict()["pretrained_cfg"]),
        "input_size": (3, 320, 320),
        "license": "apache-2.0",
    }
    weights = WEIGHTS_DIR / variant / WEIGHTS_NAME
    return entry | ({"file": str(weights)} if weights.is_file() else {})


default_cfgs = generate_default_cfgs({variant: _entry(variant) for variant in STAGES})


def _without_other_heads(state: dict[str, Tensor], model: U2Net) -> dict[str, Tensor]:
    """Drop the weights of side outputs and fusion if the model has another number of classes."""
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    heads = ("side", "outconv")
    return {k: v for k, v in state.items() if not k.startswith(heads) or v.shape == shapes.get(k, v.shape)}


def _create(variant: str, pretrained: bool, kwargs: dict[str, object]) -> TimmU2Net:
    return build_model_with_cfg(
        partial(TimmU2Net, variant),
        variant,
        pretrained,
        feature_cfg={"out_indices": tuple(range(6)), "feature_cls": "getter"},
        pretrained_filter_fn=_without_other_heads,
        **kwargs,  # type: ignore[arg-type]  # timm's own, and those of TimmU2Net
    )


@register_model  # type: ignore[untyped-decorator, unused-ignore]
def u2net(pretrained: bool = False, **kwargs: object) -> TimmU2Net:
    """U²-Net, 44.0 million parameters."""
    return _create("u2net", pretrained, kwargs)


@register_model  # type: ignore[untyped-decorator, unused-ignore]
def u2netp(pretrained: bool = False, **kwargs: object) -> TimmU2Net:
    """U²-Net†, 1.13 million parameters."""
    return _create("u2netp", pretrained, kwargs)
