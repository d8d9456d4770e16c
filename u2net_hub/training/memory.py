"""The memory plan of a run: what it keeps, how much that takes, and where decoded pictures go."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..datasets import SaliencyDataset
from ..imaging import peek_size
from ..model import U2Net
from .accelerator import local_processes
from .config import Phase, Recipe
from .streaming import batches_ahead

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

Cache = Literal["memory", "disk", "stream"]

CACHES: tuple[Cache, ...] = ("memory", "disk", "stream")
"""Where decoded pictures can be kept; each takes less room, and more time, than the one before it."""

_PICTURES = ("training pictures", "their copies at a smaller size", "held-out pictures and maps")
_USABLE = 0.8
"""The part of the available memory that a plan may use. Libraries and the network's layers need the rest."""
_DECODING = 10
"""Bytes per pixel of a file while it is decoded: Pillow's picture, its array and the mask."""
_PEEKED = 64
"""The number of photos whose size is looked at."""
_SMALL = 96
"""The side in pixels of the picture that layers' outputs are counted on, a multiple of 32."""


@dataclass(frozen=True)
class MemoryPlan:
    """What the processes of a run on this machine need, all together, in bytes."""

    cache: Cache
    """Where decoded training pictures are kept."""
    needs: Mapping[str, int]
    """Main memory by what it is for."""
    available: int
    """The main memory that programs can allocate without swapping."""
    disk: int
    """The size of temporary files."""
    free_disk: int
    """The free room of the disk that takes them."""
    processes: int
    """The number of processes on this machine."""

    @property
    def memory(self) -> int:
        """The sum of `needs`."""
        return sum(self.needs.values())

    @property
    def pictures(self) -> int:
        """The part of `memory` that decoded pictures take."""
        return sum(self.needs[name] for name in _PICTURES)

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return self.memory <= _USABLE * self.available and self.disk <= 0.95 * self.free_disk

    def log(self) -> None:
        """Log the plan, with a warning if it does not fit."""
        logger.info("%s", self.text())
        if not self.fits:
            logger.warning(
                "The run may run out of room. It takes less with --cache stream, with --accumulate, or at a "
                "smaller size (--crop)."
            )

    def text(self) -> str:
        """Say where pictures are kept, and what that takes, in one line."""
        where = {
            "memory": "kept in memory",
            "disk": "kept in temporary files",
            "stream": "decoded when they are needed",
        }[self.cache]
        of = f"memory: {_gib(self.memory)} of {_gib(self.available)} available"
        if self.processes > 1:
            of += f", for {self.processes} processes"
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in self.needs.items() if size >= 1 << 20)
        disk = f"; disk: {_gib(self.disk)} of {_gib(self.free_disk)} available" if self.disk else ""
        return f"training pictures are {where}; {of} ({parts}){disk}"


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What decides how much memory a run needs."""

    pairs: int
    """The number of training pairs."""
    held_out: int
    """The number of pairs for validation."""
    validation_size: tuple[int, int]
    """The (height, width) in pixels at which they are kept."""
    phases: Sequence[Phase]
    """The resolutions of the run."""
    share: int
    """The samples that one process makes at a time."""
    file_pixels: int
    """The number of pixels of a large file of the data set."""
    threads: int
    """The number of threads that decode, for each process."""
    processes: int = 1
    """The number of processes on this machine."""
    network: Mapping[str, int] = field(default_factory=dict)
    """What else each process keeps in main memory, in bytes by name."""


def plan_memory(demand: Demand, cache: str, *, available: int, free_disk: int) -> MemoryPlan:
    """Count what a run needs, and choose where decoded pictures are kept.

    Args:
        demand: The run.
        cache: "memory", "disk" or "stream", or "auto" for the first of them that fits; "stream" if none does.
        available: The main memory that programs can allocate, in bytes.
        free_disk: The free room of the disk for temporary files, in bytes.
    """
    plans = [_count(demand, each, available, free_disk) for each in CACHES if cache in ("auto", each)]
    return next((plan for plan in plans if plan.fits), plans[-1])


def plan_run(
    accelerator: Accelerator,
    network: U2Net,
    recipe: Recipe,
    *,
    cache: str,
    out: Path,
    training: SaliencyDataset,
    held_out: int,
    share: int,
    copies: int,
    threads: int,
) -> MemoryPlan:
    """Plan the memory of a run on this machine. All processes of the run choose the same cache.

    Args:
        accelerator: The group of processes; all of them must call this.
        network: The network, with its frozen parts.
        recipe: The recipe of the run.
        cache: As for `plan_memory`.
        out: The folder of the run, which takes temporary files.
        training: The training pairs.
        held_out: The number of pairs for validation, at the network's input size.
        share: As for `Demand`.
        copies: As for `network_needs`.
        threads: As for `Demand`.
    """
    on_cpu = accelerator.device.type == "cpu"
    demand = Demand(
        pairs=len(training),
        held_out=held_out,
        validation_size=network.config.input_size,
        phases=recipe.phases,
        # each sample may need the background of another picture
        share=share if not recipe.background else 2 * share,
        file_pixels=large_file(training),
        threads=threads,
        processes=local_processes(accelerator),
        network=network_needs(
            network,
            round(max(phase.crop for phase in recipe.phases) * max(recipe.scales or (1,))),
            batch=share,
            copies=copies,
            on_cpu=on_cpu,
        ),
    )
    available, disk = free_memory(), free_disk(out)
    plan = plan_memory(demand, cache, available=available, free_disk=disk)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        chosen = max(gather_object([CACHES.index(plan.cache)]))
        plan = plan_memory(demand, CACHES[chosen], available=available, free_disk=disk)
    return plan


def _count(demand: Demand, cache: Cache, available: int, free_disk: int) -> MemoryPlan:
    pair = 4  # bytes per pixel: three of the photo, one of the mask
    n, loads = demand.processes, [phase.load for phase in demand.phases]
    largest = max(loads)
    whole = demand.pairs * largest**2 * pair
    # one copy at a time: that of a phase is dropped before the next one is made
    copy = max(0 if load == largest else demand.pairs * load**2 * pair for load in loads)
    in_flight = (batches_ahead(demand.threads, demand.share) + 1) * demand.share * largest**2 * pair
    height, width = demand.validation_size
    validation = demand.held_out * height * width
    needs = {
        _PICTURES[0]: n * {"memory": whole, "disk": 0, "stream": in_flight}[cache],
        _PICTURES[1]: n * copy if cache == "memory" else 0,
        # the main process validates alone; one more byte for the map
        _PICTURES[2]: validation * (pair + 1 if cache == "memory" else 1),
        "decoding": n * demand.threads * demand.file_pixels * _DECODING,
        **{name: n * size for name, size in demand.network.items()},
    }
    disk = {"memory": 0, "disk": n * (whole + copy) + validation * pair, "stream": validation * pair}[cache]
    return MemoryPlan(cache, needs, available, disk, free_disk, n)


def network_needs(network: U2Net, side: int, *, batch: int, copies: int, on_cpu: bool) -> dict[str, int]:
    """Count what the network of a process keeps in main memory, in bytes by name.

    Args:
        network: The network, with its frozen parts; it stays as it is.
        side: The largest side of an input in training, in pixels.
        batch: The samples that the process sees at a time.
        copies: The number of further copies of the weights: moving average, start, and the one in validation.
        on_cpu: Whether the network computes in main memory. Otherwise nothing of it is there but its copy for
            checkpoints.
    """
    weights = sum(t.nbytes for t in network.state_dict().values())
    if not on_cpu:
        return {"weights": weights}
    learned = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    return {
        # a gradient, and two moments in the optimizers that keep most
        "weights, gradients and optimizer": weights * (1 + copies) + learned * 3,
        "layers' outputs": outputs_of_layers(network, batch, side),
    }


def outputs_of_layers(network: U2Net, batch: int, side: int) -> int:
    """Estimate the bytes that a training step keeps for its backward pass, in float32.

    They are counted on one small picture, and grow with the number of pixels.

    Args:
        network: The network, in main memory; it stays as it is.
        batch: The number of pictures.
        side: Their side in pixels.
    """
    small = min(side, _SMALL)
    weights = {t.untyped_storage().data_ptr() for t in network.state_dict().values()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    modes = [(module, module.training) for module in network.modules()]
    network.eval()  # no statistics change, and one picture is enough
    x = torch.zeros(1, network.config.in_channels, small, small)
    try:
        with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = network.forward(x)  # a compiled network is not compiled for this size
    finally:
        for module, training in modes:
            module.training = training
    for output in outputs:
        note(output)
    total = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in weights)
    return round(total * batch * (side / small) ** 2)


def free_memory(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of bytes that programs can allocate: what the machine has, and the container allows.

    Args:
        cgroups: The folder of Linux's control groups.
        own: The file that names the group of this process.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    groups = [cgroups, cgroups / "memory"]
    with suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, kind, path = line.split(":", 2)
            if kind in ("", "memory"):
                group = cgroups / kind / path.strip("/")
                groups += [group, *(above for above in group.parents if cgroups in above.parents)]
    for group in groups:
        for limit, usage in (("max", "current"), ("limit_in_bytes", "usage_in_bytes")):
            # no file, or the word "max", where there is no limit
            with suppress(OSError, ValueError):
                most = int((group / f"memory.{limit}").read_text())
                used = int((group / f"memory.{usage}").read_text())
                available = min(available, max(0, most - used + _reclaimable(group)))
    return available


def _reclaimable(group: Path) -> int:
    """The bytes of cached files that a control group gives up when its programs need memory."""
    with suppress(OSError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def large_file(dataset: SaliencyDataset) -> int:
    """Return the number of pixels of the largest of some photos, which are spread over a data set."""
    places = {round(i * (len(dataset) - 1) / (_PEEKED - 1)) for i in range(_PEEKED)}
    sizes = [peek_size(dataset.pairs[i].image) for i in places]
    return max((height * width for height, width in filter(None, sizes)), default=0)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
