"""The memory plan of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image

from u2net_hub import SaliencyDataset, U2Net
from u2net_hub.training.config import Phase
from u2net_hub.training.memory import (
    Demand,
    free_disk,
    free_memory,
    large_file,
    network_needs,
    outputs_of_layers,
    plan_memory,
)

GIB = 1 << 30


def demand(**changes: Any) -> Demand:
    """100,000 pairs at 1024 px."""
    settings: dict[str, Any] = {
        "pairs": 100_000, "held_out": 300, "validation_size": (1024, 1024),
        "phases": (Phase(0.5, 512, 512), Phase(1.0, 1024, 1024)), "share": 8, "file_pixels": 1024**2,
        "threads": 4,
    }  # fmt: skip
    return Demand(**{**settings, **changes})


def test_pictures_take_four_bytes_per_pixel_and_a_phase_of_smaller_ones_a_copy() -> None:
    plan = plan_memory(demand(), "memory", available=GIB, free_disk=GIB)
    # 100,000 pairs of 4 MiB, and copies of a quarter of that; 300 pairs of 4 MiB and maps of 1 MiB
    assert plan.needs["training pictures"] == 400_000 << 20
    assert plan.needs["their copies at a smaller size"] == 100_000 << 20
    assert plan.needs["held-out pictures and maps"] == 1500 << 20
    assert plan.disk == 0


def test_each_process_holds_its_own_pictures_and_the_main_one_those_held_out() -> None:
    one, two = (
        plan_memory(demand(processes=n, network={"weights": 5}), "memory", available=GIB, free_disk=GIB)
        for n in (1, 2)
    )
    for name, size in one.needs.items():
        assert two.needs[name] == size * (1 if name.startswith("held-out") else 2)


def test_on_disk_only_maps_and_what_is_decoded_are_in_memory() -> None:
    plan = plan_memory(demand(processes=2), "disk", available=GIB, free_disk=GIB)
    assert plan.disk == (2 * 500_000 + 300 * 4) << 20
    assert plan.pictures == 300 << 20


def test_a_stream_holds_three_batches_of_eight() -> None:
    plan = plan_memory(demand(), "stream", available=GIB, free_disk=GIB)
    assert plan.needs["training pictures"] == 3 * 8 * 4 << 20
    assert plan.disk == 1200 << 20


@pytest.mark.parametrize(
    ("memory", "disk", "cache"), [(700, 0, "memory"), (8, 600, "disk"), (8, 400, "stream"), (0, 0, "stream")]
)
def test_auto_takes_memory_then_disk_then_streams(memory: int, disk: int, cache: str) -> None:
    plan = plan_memory(demand(), "auto", available=memory * GIB, free_disk=disk * GIB)
    assert plan.cache == cache


def test_a_cache_that_is_asked_for_is_taken_and_a_lack_is_told() -> None:
    plan = plan_memory(demand(), "memory", available=8 * GIB, free_disk=GIB)
    assert plan.cache == "memory"
    assert not plan.fits


def test_the_plan_is_told_in_gibibytes() -> None:
    small = demand(pairs=256, phases=(Phase(1.0, 1024, 1024),), held_out=0, file_pixels=0, processes=2)
    text = plan_memory(small, "memory", available=16 * GIB, free_disk=0).text()
    assert "kept in memory; memory: 2.00 GiB of 16.00 GiB available, for 2 processes" in text


def test_what_layers_keep_is_what_torch_keeps(tiny_source: Path) -> None:
    network = U2Net.from_pretrained(tiny_source).train()
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(torch.zeros(2, 3, 192, 192))
    measured = sum(t.untyped_storage().nbytes() for t in kept.values())
    assert outputs_of_layers(network, 2, 192) == pytest.approx(measured, rel=0.05)
    assert network.training


def test_frozen_weights_have_neither_gradient_nor_moments(tiny_source: Path) -> None:
    network = U2Net.from_pretrained(tiny_source)
    size = sum(t.nbytes for t in network.state_dict().values())
    learned = sum(p.nbytes for p in network.parameters())

    def needs() -> int:
        named = network_needs(network, 32, batch=1, copies=2, on_cpu=True)
        return named["weights, gradients and optimizer"]

    assert needs() == 3 * size + 3 * learned
    network.requires_grad_(False)
    assert needs() == 3 * size


def test_a_large_photo_is_seen(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name, size in (("a", (5, 4)), ("b", (30, 20)), ("c", (5, 4))):
            Image.new("RGB", size).save(tmp_path / folder / f"{name}.png")
    assert large_file(SaliencyDataset(tmp_path)) == 600


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


def test_the_limit_of_a_container_counts_without_its_cached_files(tmp_path: Path) -> None:
    group(tmp_path / "fs", max=1000, current=700, stat="anon 400\ninactive_file 250")
    assert free_memory(tmp_path / "fs", tmp_path / "none") == 550


def test_the_limit_of_a_group_above_counts_too(tmp_path: Path) -> None:
    group(tmp_path / "fs/job", max=1000, current=400)
    group(tmp_path / "fs/job/step", max="max", current=300)
    (tmp_path / "own").write_text("0::/job/step\n")
    assert free_memory(tmp_path / "fs", tmp_path / "own") == 600


def test_the_limit_of_the_first_version_of_control_groups_counts(tmp_path: Path) -> None:
    group(tmp_path / "fs/memory/job", limit_in_bytes=1000, usage_in_bytes=900)
    (tmp_path / "own").write_text("5:cpu:/\n3:memory:/job\n")
    assert free_memory(tmp_path / "fs", tmp_path / "own") == 100


def test_without_limits_the_machine_decides(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path / "none") == pytest.approx(
        psutil.virtual_memory().available, rel=0.5
    )


def test_the_disk_of_a_folder_that_is_not_there_yet_is_known(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "a" / "b") > 0
