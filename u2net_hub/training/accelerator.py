"""Prepare the training process: its device, its memory, and its group of processes."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from .config import TrainConfig
from .trackers import check_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator


logger = logging.getLogger(__name__)

_PATIENCE = timedelta(days=7)
"""How long a process waits for the others. The main process validates and scores alone, which can take hours;
the defaults of torch are 10 and 30 minutes. A process that dies still ends the others at once."""


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Prepare this process for training, alone or in the group that `accelerate launch` started.

    Raises:
        ImportError: accelerate, timm or a tracker is missing.
        ValueError: The device is not available, or it does not support the precision.
    """
    try:
        import timm  # noqa: F401
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, PartialState
        from accelerate.utils import GradientAccumulationPlugin
    except ImportError as e:
        raise ImportError(f"training needs {e.name}; install it with: pip install 'u2net-hub[train]'") from e

    check_trackers(config.track)
    device = config.device
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"unknown device {device!r}, expected one of ['auto', 'cpu', 'cuda', 'mps']")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' was asked for but torch finds no GPU; use --device cpu, or repair the driver"
        )
    precision = config.settings.precision
    # accelerate keeps its settings as long as the process lives, but a second run may need others
    alone = PartialState(cpu=device == "cpu", timeout=_PATIENCE).num_processes == 1
    AcceleratorState._reset_state(alone)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision="no" if precision == "float32" else precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.accumulate, sync_with_dataloader=False
        ),
    )
    if device == "mps" and accelerator.device.type != "mps":
        raise ValueError(
            f"device 'mps' was asked for but there is only {accelerator.device.type!r}; use --device auto"
        )
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("fp16 training needs a GPU; use --precision bf16 or float32")
    if accelerator.num_processes > 1:
        _share_cores(accelerator)
    if accelerator.is_main_process:
        _tell_processes(accelerator, precision)
    return accelerator


def local_processes(accelerator: Accelerator) -> int:
    """Return the number of processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _share_cores(accelerator: Accelerator) -> None:
    """Give each process of a group on CPUs its part of the cores.

    Launchers give each one a single thread where OMP_NUM_THREADS does not say otherwise.
    """
    if accelerator.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, usable_cores() // local_processes(accelerator)))


def _tell_processes(accelerator: Accelerator, precision: str) -> None:
    """Log where the run trains, and in how many processes."""
    device, number = accelerator.device, accelerator.num_processes
    if number > 1:
        threads = f", threads of each: {torch.get_num_threads()}" if device.type == "cpu" else ""
        logger.info(
            "Training on %s with %s in %d processes, %d on this machine%s.",
            *(device.type, precision, number, local_processes(accelerator), threads),
        )
        return
    logger.info("Training on %s with %s in one process.", device, precision)
    asked = {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys()
    if asked and "WORLD_SIZE" not in os.environ:
        logger.warning(
            "accelerate launch was asked for several processes, but it started one, as always without GPUs. "
            "To train in two processes on CPUs: "
            "torchrun --nproc-per-node 2 -m u2net_hub train ... --device cpu"
        )


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Make glibc keep freed memory in this context, because new memory costs a page fault per page.

    With batches of 16 at 160 px on two cores, speed rises from 7.1 to 10.7 images/s. Without glibc, this does
    nothing.
    """
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if libc is None or not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    try:
        yield
    finally:  # the defaults of glibc
        libc.mallopt(m_mmap_max, 65536)
        libc.mallopt(m_trim_threshold, 128 << 10)
        libc.malloc_trim(0)
