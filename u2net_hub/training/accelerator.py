"""The process that trains: its device, its memory, and the signals that stop it."""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import TYPE_CHECKING

import torch

from .config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


logger = logging.getLogger(__name__)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Make this process one that trains, alone or with others, as `accelerate launch` started them.

    Raises:
        ImportError: accelerate or timm is missing.
        ValueError: the device is not there, or cannot do the precision.
    """
    try:
        import timm  # noqa: F401
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, PartialState
        from accelerate.utils import GradientAccumulationPlugin
    except ImportError as e:
        raise ImportError(f"training needs {e.name}; install it with: pip install 'u2net-hub[train]'") from e

    device = config.device
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"unknown device {device!r}, expected one of ['auto', 'cpu', 'cuda', 'mps']")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' was asked for but torch finds no GPU; use --device cpu, or mend the driver"
        )
    precision = config.settings.precision
    # accelerate keeps its settings for the life of the process; a second run may have others
    AcceleratorState._reset_state(PartialState(cpu=device == "cpu").num_processes == 1)
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
    _keep_freed_memory()
    logger.info("training on %s, %s", accelerator.device, precision)
    return accelerator


def free_memory() -> float:
    """Bytes that programs can take without swapping."""
    import psutil

    return float(psutil.virtual_memory().available)


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory: activations that go back to the kernel each step come back page by page.

    Batches of 16 at 160 px on two cores: 7.1 -> 10.7 images/s. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
