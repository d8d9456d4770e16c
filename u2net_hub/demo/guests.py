"""Limits for the models that visitors load from the Hub."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..hub import CONFIG_NAME, WEIGHTS_NAME

if TYPE_CHECKING:
    from ..model import U2Net

GUESTS = 2
"""Largest number of visitors' models in memory, over all visitors."""
MAX_GUEST_BYTES = 400_000_000
"""Largest size of a visitor's model.safetensors. U²-Net in float32 has 176 MB."""
MAX_GUEST_FLOPS = 300e9
"""Most operations that a visitor's model may take for one photo. U²-Net takes 75e9."""
MAX_GUEST_MAP = 60_000_000
"""Largest feature map (channels × height × width) of a visitor's model. U²-Net stays below 52.5 million."""

_REPO_ID = re.compile(r"(?!.*\.\.)[a-zA-Z0-9][\w.-]{0,95}/[a-zA-Z0-9][\w.-]{0,95}", re.ASCII)


def look_up_guest(source: str) -> tuple[str, float]:
    """Look up a model on the Hub for a visitor, and check that its files are small enough.

    Args:
        source: What the visitor typed: org/name or org/name@revision.

    Returns:
        "org/name@commit", with the commit that the revision stands for, and the size of the weights in
        10⁶ bytes.

    Raises:
        ValueError: `source` is not such a name, or a file is too large.
        HubError: The model cannot be found or used.
    """
    from ..hub import UnusableRepoError, call, check_revision, make_client

    repo_id, _, revision = source.strip().partition("@")
    if not _REPO_ID.fullmatch(repo_id):
        raise ValueError(
            f"{source[:100]!r} is not a model on the Hub, expected org/name or org/name@revision"
        )
    revision = check_revision(revision or "main")
    api = make_client(token=False)
    info = call(
        lambda: api.model_info(repo_id, revision=revision, files_metadata=True, timeout=10.0),
        repo_id,
        CONFIG_NAME,
        revision=revision,
        attempts=2,
    )
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not sizes.get(name):
            raise UnusableRepoError(
                f"{repo_id}@{revision}: holds no {name}, expected a model pushed with u2net-hub",
                repo_id=repo_id,
                file=name,
            )
    for name, most in ((CONFIG_NAME, 1_000_000), (WEIGHTS_NAME, MAX_GUEST_BYTES)):
        if (sizes[name] or 0) > most:
            raise ValueError(
                f"{repo_id}@{revision}: {name} has {sizes[name]:,} bytes, expected at most {most:,} here"
            )
    return f"{repo_id}@{info.sha}", (sizes[WEIGHTS_NAME] or 0) / 1e6


def check_guest_cost(network: U2Net) -> None:
    """Refuse a network that would take too long or too much memory, without running it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    config = network.config
    height, width = config.input_size
    largest = height * width * max(max(stage.mid, stage.out) for stage in config.table)
    if largest > MAX_GUEST_MAP:
        raise ValueError(
            f"the model works on {width} × {height} pixels with maps of up to {largest:,} values, "
            f"expected at most {MAX_GUEST_MAP:,} here; run it on your own machine"
        )
    with torch.device("meta"):
        shape_only = type(network)(config).eval()
        x = torch.empty(1, config.in_channels, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shape_only(x)
    if counter.get_total_flops() > MAX_GUEST_FLOPS:
        raise ValueError(
            f"the model takes {counter.get_total_flops():.1e} operations per photo, "
            f"expected at most {MAX_GUEST_FLOPS:.1e} here; run it on your own machine"
        )
