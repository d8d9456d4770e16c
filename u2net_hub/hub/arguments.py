"""Arguments that other libraries have for the same verbs: what to use in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

DtypeName: TypeAlias = "str | torch.dtype"

_ALWAYS = "leave it out: this is always so"
LOADING: Mapping[str, str] = {
    "branch": "use revision=",
    "device_map": "use device=",
    "local_dir": "use u2net_hub.download(source, out=…)",
    "low_cpu_mem_usage": _ALWAYS,
    "map_location": "use device=",
    "model_kwargs": "use config=U2NetConfig(…)",
    "num_classes": "use config=U2NetConfig(…, out_channels=…)",
    "pretrained_model_name_or_path": "give the source as the first argument",
    "proxies": "set HTTPS_PROXY, or use huggingface_hub.set_client_factory, as its client has it",
    "resume_download": _ALWAYS,
    "trust_remote_code": "leave it out: no code of a repo is executed",
    "use_auth_token": "use token=",
    "use_safetensors": 'use filename="model.safetensors"',
    "variant": "use filename= for a file, or config=U2NetConfig(variant=…) for a network",
    "weights_only": "leave it out: pickles are always read so; allow_pickle=True accepts them",
}
"""Arguments of `from_pretrained` elsewhere."""
SAVING: Mapping[str, str] = {
    "config": "use network.config",
    "is_main_process": "call it in the main process only",
    "max_shard_size": "leave it out: the largest published network is one file of 176 MB",
    "model_card_kwargs": "write into the README.md in the repo: text outside the marks stays",
    "organization": 'use repo_id="org/name"',
    "safe_serialization": _ALWAYS,
    "state_dict": "use network.load_state_dict(…) first",
    "tags": "write into the README.md in the repo: other tags stay",
    "use_auth_token": "use token=",
    "variant": "use another folder or repo",
}
"""Arguments of `save_pretrained` and `push_to_hub` elsewhere."""


def refuse_arguments(verb: str, given: Mapping[str, object], known: Mapping[str, str]) -> None:
    """Raise for arguments that a method does not have, and name what to use.

    Raises:
        TypeError: `given` is not empty.
    """
    if given:
        named = [f"{name!r}" + (f" ({known[name]})" if name in known else "") for name in given]
        raise TypeError(f"{verb}() has no argument {', '.join(named)}")


def find_dtype(dtype: DtypeName) -> torch.dtype:
    """Return torch's data type of a name such as "float16".

    Raises:
        ValueError: It is none of float32, float16 and bfloat16.
    """
    import torch

    found = {str(each): each for each in (torch.float32, torch.float16, torch.bfloat16)}
    name = f"torch.{str(dtype).removeprefix('torch.')}"
    if name not in found:
        raise ValueError(f"dtype is {dtype!r}, expected float32, float16 or bfloat16")
    return found[name]


def find_device(device: str | int | torch.device) -> torch.device:
    """Return torch's device of a name such as "cuda:1".

    Raises:
        ValueError: Torch does not know the device.
        RuntimeError: This machine does not have it.
    """
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as e:
        raise ValueError(
            f"device is {device!r}, expected cpu, cuda, cuda:1 or mps; SaliencyPipeline also takes 'auto'"
        ) from e
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}.get(found.type)
    if backend is not None and not backend.is_available():
        raise RuntimeError(
            f"device {str(found)!r} was asked for, and torch finds none here; use device='cpu'"
        )
    return found
