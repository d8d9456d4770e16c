"""Join a Ray cluster, or start one on this machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger(__name__)


@contextmanager
def open_ray(address: str | None, cpus: int = 1, gpus: float = 0) -> Iterator[None]:
    """Join a cluster for the time of a `with` block; a Ray that is initialised already is used as it is.

    Args:
        address: "local", "auto", "ray://host:port", "host:port", or None for "local".
        cpus: The number of cores of a worker. A cluster on this machine alone must have as many; others may
            still grow.
        gpus: The number of GPUs of a worker, likewise.

    Raises:
        ImportError: Ray is not installed.
        ValueError: The address is none of these, or this machine has too few cores or GPUs.
        ConnectionError: There is no cluster at the address.
    """
    if address not in (None, "local", "auto") and ":" not in address:
        raise ValueError(f"unknown address {address!r}, expected local, auto or ray://host:port")
    ray = import_ray()
    if ray.is_initialized():
        if address not in (None, "auto"):
            logger.warning("Ray is initialised already, and this cluster is used, not %r", address)
        yield
        return
    address = address or "local"
    options = {"include_dashboard": False} if address == "local" else {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Ray Client connection timed out")  # the error says it too
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (ConnectionError, OSError) as e:
        raise ConnectionError(f"there is no Ray cluster at {address!r}: {e}") from e
    try:
        if address == "local":
            found = ray.cluster_resources()
            for name, wanted, has in (
                ("cpus", cpus, found.get("CPU", 0)),
                ("gpus", gpus, found.get("GPU", 0)),
            ):
                if wanted > has:
                    raise ValueError(
                        f"{name}_per_worker is {wanted}, and this machine has {has:g}; ask for fewer, "
                        "or name a cluster"
                    )
        yield
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """Import Ray.

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        import pyarrow  # noqa: F401
        import ray
    except ImportError as e:
        raise ImportError("--ray needs Ray; install it with: pip install 'u2net-hub[ray]'") from e
    return ray
