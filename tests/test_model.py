"""The network, held against the official code's keys, parameter counts and outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from conftest import DATA, fill
from torch import Tensor, nn

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.config import STAGES, Stage

SIZES = ("64x64", "97x61", "320x320")
TINY = (
    Stage("stage1", 3, 4, 8),
    Stage("stage2", 2, 4, 8, dilated=True),
    Stage("stage1d", 3, 4, 8),
)  # fmt: skip

variants = pytest.mark.parametrize("variant", ["u2net", "u2netp"])


def tiny(**fields: object) -> U2Net:
    return U2Net(U2NetConfig(variant="custom", stages=TINY).replace(**fields)).eval()


def image(height: int, width: int, batch: int = 1, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def largest_difference(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    return max(float((x.sigmoid() - y.sigmoid()).abs().max()) for x, y in zip(a, b, strict=True))


@variants
def test_keys_and_shapes_are_those_of_the_official_checkpoint(variant: str) -> None:
    official = json.loads((DATA / f"{variant}_keys.json").read_text())
    with torch.device("meta"):
        state = U2Net(U2NetConfig(variant=variant)).state_dict()
    assert len(official) == 798
    assert {key: list(value.shape) for key, value in state.items()} == official


@pytest.mark.parametrize(("variant", "count"), [("u2net", 44_009_869), ("u2netp", 1_131_181)])
def test_parameters_are_as_many_as_published(variant: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in U2Net(U2NetConfig(variant=variant)).parameters()) == count


def test_default_is_the_small_variant() -> None:
    with torch.device("meta"):
        assert U2Net().config == U2NetConfig(variant="u2netp")


@variants
def test_outputs_are_those_of_the_official_code(
    variant: str, filled: Callable[[str], U2Net], assert_golden: Callable[..., None]
) -> None:
    assert_golden(variant, filled(variant), SIZES)


@variants
def test_fused_outputs_are_those_of_the_official_code(
    variant: str, filled: Callable[[str], U2Net], assert_golden: Callable[..., None]
) -> None:
    fused = filled(variant).fuse()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert_golden(variant, fused, SIZES)


@variants
@pytest.mark.parametrize("what", ["golden_{}.safetensors", "{}_keys.json"])
def test_oracles_kept_with_the_tests_are_the_shared_ones(variant: str, what: str, shared: Path) -> None:
    name = what.format(variant)
    assert (DATA / name).read_bytes() == (shared / "reference" / name).read_bytes()


def test_fuse_leaves_the_network_as_it_was(filled: Callable[[str], U2Net]) -> None:
    network = filled("u2netp")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.fuse()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_fuse_of_a_network_in_training_is_in_eval_mode() -> None:
    network = tiny().train()
    assert not any(module.training for module in network.fuse().modules())
    assert network.training


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 3), (33, 32), (2, 90)])
def test_any_size_from_one_pixel_keeps_its_shape(
    height: int, width: int, filled: Callable[[str], U2Net]
) -> None:
    with torch.inference_mode():
        outputs = filled("u2netp")(image(height, width, batch=2))
    assert [tuple(y.shape) for y in outputs] == [(2, 1, height, width)] * 7
    assert all(y.isfinite().all() for y in outputs)


def test_channels_last_gives_the_same_maps(
    filled: Callable[[str], U2Net], assert_golden: Callable[..., None]
) -> None:
    network = deepcopy(filled("u2netp")).to(memory_format=torch.channels_last)
    assert_golden("u2netp", lambda x: network(x.to(memory_format=torch.channels_last)), SIZES[:2])


def test_bfloat16_stays_near_float32() -> None:
    network = tiny()
    network.load_state_dict(fill(network.state_dict()))
    x = image(40, 40)
    with torch.inference_mode():
        exact = network(x)
        rough = network.bfloat16()(x.bfloat16())
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == torch.bfloat16
        assert (a - b).abs().max() < 0.1 * a.std()  # 8 bits of mantissa, 16 layers


def test_batch_is_the_same_as_one_by_one(filled: Callable[[str], U2Net]) -> None:
    x = image(40, 56, batch=3)
    with torch.inference_mode():
        together = filled("u2netp")(x)
        alone = [
            torch.cat(maps) for maps in zip(*(filled("u2netp")(x[i : i + 1]) for i in range(3)), strict=True)
        ]
    assert largest_difference(together, tuple(alone)) < 1e-4


def test_encode_gives_what_the_encoder_stages_give(filled: Callable[[str], U2Net]) -> None:
    network = filled("u2net")
    seen: list[Tensor] = []
    hooks = [
        network.get_submodule(f"stage{i}").register_forward_hook(lambda module, args, y: seen.append(y))
        for i in range(1, 7)
    ]
    x = image(97, 61)
    with torch.inference_mode():
        network(x)
        for hook in hooks:
            hook.remove()
        features = network.encode(x)
    assert all(torch.equal(a, b) for a, b in zip(features, seen, strict=True))
    assert [tuple(y.shape[1:]) for y in features] == [
        (64, 97, 61), (128, 49, 31), (256, 25, 16), (512, 13, 8), (512, 7, 4), (512, 4, 2),
    ]  # fmt: skip


def test_custom_table_has_the_parameters_counted_by_hand() -> None:
    # convolution, its bias and batch norm from i to o channels: 9io + 3o
    stage1 = 240 + 300 + 156 + 156 + 300 + 600
    stage2 = 600 + 300 + 156 + 600
    stage1d = 1176 + 300 + 156 + 156 + 300 + 600
    sides, fusion = 2 * 73, 3
    assert sum(p.numel() for p in tiny().parameters()) == stage1 + stage2 + stage1d + sides + fusion


def test_custom_channels_shape_the_maps() -> None:
    network = tiny(in_channels=4, mean=(0.5,) * 4, std=(0.5,) * 4, out_channels=5, activation="softmax")
    outputs = network(image(17, 9, channels=4))
    assert [tuple(y.shape) for y in outputs] == [(1, 5, 17, 9)] * 3


def test_published_table_given_as_custom_is_the_same_network(filled: Callable[[str], U2Net]) -> None:
    network = U2Net(U2NetConfig(variant="custom", stages=STAGES["u2netp"])).eval()
    network.load_state_dict(filled("u2netp").state_dict())
    x = image(33, 40)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(network(x), filled("u2netp")(x), strict=True))


@pytest.mark.parametrize("name", ["forward", "encoder", "config", "bfloat16", "fuse"])
def test_stage_named_like_a_part_of_the_module_raises(name: str) -> None:
    stages = (TINY[0]._replace(name=name), *TINY[1:])
    with pytest.raises(ValueError, match=name):
        U2Net(U2NetConfig(variant="custom", stages=stages))


def test_every_parameter_learns() -> None:
    network = tiny().train()
    sum(y.square().mean() for y in network(image(24, 24, batch=2))).backward()
    # what a batch norm subtracts again cannot matter: the biases before it
    still = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert all(key.endswith("conv_s1.bias") for key in still)


def every_operation() -> U2Net:
    """An RSU-7, whose five pools need 33 pixels as the whole network does, an RSU-4F, and the U around them.

    Every operation of the published networks is in it, at a third of the layers to trace.
    """
    network = tiny(
        stages=(Stage("stage1", 7, 4, 8), Stage("stage2", 4, 4, 8, dilated=True), Stage("stage1d", 7, 4, 8))
    )
    network.load_state_dict(fill(network.state_dict()))
    return network.requires_grad_(False)


def test_compiles_into_one_graph() -> None:
    torch.compiler.reset()
    # "eager" runs what was captured: the default back end adds half a minute of g++, and no graph break
    network = every_operation()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    x = image(40, 56)
    with torch.inference_mode():
        assert largest_difference(compiled(x), network(x)) <= 1e-6


def test_exports_with_batch_height_and_width_free_from_33_pixels() -> None:
    auto = torch.export.Dim.AUTO
    network = every_operation()
    program = torch.export.export(
        network, (image(64, 96, batch=2),), dynamic_shapes=({0: auto, 2: auto, 3: auto},)
    )
    exported = program.module()
    for batch, height, width in ((1, 33, 33), (3, 34, 65), (1, 97, 61), (2, 128, 40)):
        x = image(height, width, batch)
        with torch.inference_mode():
            assert largest_difference(exported(x), network(x)) <= 1e-6
