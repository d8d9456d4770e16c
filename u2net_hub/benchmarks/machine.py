"""Describe the machine of a benchmark and the packages installed on it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__

# The CPU features that make 16-bit and 8-bit arithmetic fast
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
)
_PACKAGES = ("torch", "onnxruntime", "openvino", "numpy", "pillow", "isal")


def describe_machine(device: str) -> dict[str, object]:
    """Describe the processor, cores, memory and system, and the GPU if the device is one."""
    found: dict[str, object] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    if hasattr(os, "sched_getaffinity"):
        found["usable cores"] = len(os.sched_getaffinity(0))
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
        facts = {key.strip(): value.strip() for key, value in lines.items()}
        found["cpu"] = facts.get("model name", found["cpu"])
        flags = (facts.get("flags") or facts.get("Features") or "").split()
        found["flags"] = " ".join(flag for flag in _FLAGS if flag in flags)
    except OSError:
        pass  # not Linux
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory GB"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9)
    found["system"] = f"{platform.system()} {platform.release()}"
    if device.startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name(device) if torch.cuda.is_available() else "none"
        found["TF32 in convolutions"] = torch.backends.cudnn.allow_tf32
    return found


def find_versions(peer: Path | None) -> dict[str, str]:
    """Find the versions of the measured packages, including those of rembg's Python."""
    found = {"python": platform.python_version(), "u2net-hub": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if peer is not None:
        code = "from importlib.metadata import version as v; print(v('rembg'), v('onnxruntime'))"
        run = subprocess.run([str(peer), "-I", "-c", code], capture_output=True, text=True, check=False)
        if run.returncode == 0:
            found["rembg"], found["rembg's onnxruntime"] = run.stdout.split()
    return found
