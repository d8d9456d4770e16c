"""Checkpoints of the family that others publish: where they come from, and how they are preprocessed."""

from __future__ import annotations

from typing import NamedTuple

from ..config import U2NetConfig


class Member(NamedTuple):
    """One published checkpoint."""

    file: str
    origin: str
    """The page that links to the file, and whose it is."""
    config: U2NetConfig


_AUTHORS = "the authors', linked at https://github.com/xuebinqin/U-2-Net"

FAMILY: dict[str, Member] = {
    "u2net": Member("u2net.pth", _AUTHORS, U2NetConfig(variant="u2net")),
    "u2netp": Member("u2netp.pth", _AUTHORS, U2NetConfig(variant="u2netp")),
    "u2net_human_seg": Member("u2net_human_seg.pth", _AUTHORS, U2NetConfig(variant="u2net")),
    # u2net_portrait_demo.py: photos of 512 × 512 px, drawings are 1 - d0
    "u2net_portrait": Member(
        "u2net_portrait.pth",
        _AUTHORS,
        U2NetConfig(variant="u2net", input_size=(512, 512), invert=True, minmax="always"),
    ),
    # infer.py and data/base_dataset.py there: divided by 255, then (x - .5) / .5; trained at 768 × 768 px
    "u2net_cloth_seg": Member(
        "cloth_segm_u2net_latest.pth",
        "Levin Dabhi's, linked at https://github.com/levindabhi/cloth-segmentation",
        U2NetConfig(
            variant="u2net",
            out_channels=4,
            input_size=(768, 768),
            scale="255",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            activation="softmax",
            labels=("background", "upper body", "lower body", "full body"),
        ),
    ),
}
"""The published checkpoints, by the names that rembg and others use for them."""


def find_member(name: str) -> tuple[str, Member] | None:
    """Find a member of the family by its name, with - or _, in any case."""
    key = name.lower().replace("-", "_")
    return (key, FAMILY[key]) if key in FAMILY else None
