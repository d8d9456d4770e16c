"""The methods of U2Net for loading and saving: from_pretrained, save_pretrained, push_to_hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .. import __version__
from ..atomic import write_files
from ..config import LIBRARY_NAME, U2NetConfig
from .arguments import LOADING, SAVING, find_device, find_dtype, refuse_arguments
from .bundled import CONFIG_NAME
from .layouts import WEIGHTS_NAME
from .source import Source
from .sources import resolve, resolve_local

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

    from ..evaluation import Results
    from .loaders import MakeExtra
    from .push import Pushed
else:
    Module = object


Dtype = Literal["float32", "float16", "bfloat16"]

_M = TypeVar("_M", bound="Pretrained")


class Pretrained(Module):
    """The methods of U2Net for loading, saving and pushing; it is a base class of U2Net."""

    config: U2NetConfig
    notes: Mapping[str, str] = MappingProxyType({})
    """Facts from the file: "format", "precision", "made_by", and "derived_from", which names the file
    that the weights were converted from. Saved files keep "derived_from"."""
    loaded_from: Source | None = None
    """The files that the weights were loaded from. Training does not change this attribute."""

    @classmethod
    def from_pretrained(
        cls: type[_M],
        source: str | Path,
        *,
        config: U2NetConfig | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        filename: str | Path | None = None,
        subfolder: str | Path | None = None,
        allow_pickle: bool = False,
        dtype: str | torch.dtype | None = None,
        torch_dtype: str | torch.dtype | None = None,
        device: str | int | torch.device | None = None,
        strict: bool = True,
        **others: object,
    ) -> _M:
        """Load a network in eval mode, in float32, on the CPU; every weight must be present and must fit.

        Args:
            source: Either "u2netp"; a folder laid out as a Hub repo; a .safetensors, .onnx, .pth, .pt, .bin
                or .ckpt file; "org/name", "org/name@revision" or "org/name/path/to/file.pth" on the Hub,
                also with "hf-hub:" or "hf://" before it; or the address of the model's page.
            config: A config that replaces config.json. Without either, it is inferred from the weights'
                shapes.
            revision: A branch, tag or commit, for a source on the Hub.
            token: The token for a private or gated repo. None uses the one stored by `hf auth login`.
            cache_dir: A folder that replaces the client's cache folder.
            local_files_only: Use the cache without a request.
            force_download: Download files anew that the cache has.
            filename: The file of weights in a folder or repo.
            subfolder: The folder of the weights in a folder or repo.
            allow_pickle: Accept a pickle where a folder or repo holds no other weights. Nothing in it is
                executed. A pickle that is named itself is always accepted.
            dtype: The data type to return the network in: float32, float16 or bfloat16.
            torch_dtype: The same as `dtype`.
            device: The device to return the network on, e.g. "cuda".
            strict: Always True.
            others: Arguments of other libraries; the error says what to use in their place.

        Raises:
            FileNotFoundError: There are no such weights.
            ValueError: The weights are damaged, not of the U²-Net family, or do not fit their config.
            ImportError: The source is an .onnx file, and onnx is not installed.
            RuntimeError: The device is not available.
            TypeError: An argument is unknown.
        """
        refuse_arguments("from_pretrained", others, LOADING)
        if strict is not True:
            raise ValueError(
                "strict=False would leave weights at random; load with the network's own config (config=), "
                "or call load_state_dict(…, strict=False) yourself"
            )
        if dtype is not None and torch_dtype is not None and find_dtype(dtype) != find_dtype(torch_dtype):
            raise ValueError(f"dtype={dtype!r} and torch_dtype={torch_dtype!r} mean the same; give one")
        chosen = dtype if dtype is not None else torch_dtype
        target = None if device is None else find_device(device)
        kind = None if chosen is None else find_dtype(chosen)
        found = resolve(
            source,
            config=config,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            filename=filename,
            subfolder=subfolder,
            allow_pickle=allow_pickle,
        )
        return load_network(cls, found).to(device=target, dtype=kind)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: Dtype | torch.dtype = "float32",
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **push: Any,
    ) -> Path:
        """Write config.json and model.safetensors into a folder, which then loads with `from_pretrained`.

        Each file is written completely or not at all.

        Args:
            folder: The folder; it is made if it is missing. Existing files of these names are replaced.
            dtype: The data type of the convolutions. Batch norm stays float32: it is a hundredth of the file,
                and its running variances can exceed the range of float16.
            push_to_hub: Push the network afterwards, as the method `push_to_hub` does.
            repo_id: The repo to push to. None is the folder's name, in the token's own account.
            push: Other arguments of the method `push_to_hub`.

        Raises:
            OSError: A file cannot be written, or the push failed; the folder is complete then.
            TypeError: An argument is unknown, or is for a push, and `push_to_hub` is False.
            ValueError: The network is fused, a weight is not finite in `dtype`, or `dtype` is another one.
        """
        refuse_arguments("save_pretrained", {k: v for k, v in push.items() if k in SAVING}, SAVING)
        if not push_to_hub and (push or repo_id is not None):
            given = [*(["repo_id"] if repo_id is not None else []), *push]
            raise TypeError(f"save_pretrained() got {given}, which are for a push; add push_to_hub=True")
        written = self._save(Path(folder), dtype)
        if push_to_hub:
            self.push_to_hub(repo_id or written.absolute().name, dtype=dtype, **push)
        return written

    def _save(self, folder: Path, dtype: Dtype | torch.dtype) -> Path:
        import torch
        from safetensors.torch import save

        from ..checkpoints import official_shapes
        from .card import last_parts

        kind = find_dtype(dtype)
        state = self.state_dict()
        if state.keys() != official_shapes(self.config).keys():
            raise ValueError(
                "this network has no batch norm left to save (fuse() makes such copies for inference); "
                "save the network that it was made from"
            )
        tensors = {}
        for key, value in state.items():
            if value.is_floating_point():
                value = value.to(torch.float32 if ".bn_s1." in key else kind)
                if not value.isfinite().all():
                    name = str(kind).removeprefix("torch.")
                    raise ValueError(f"{key} holds values that are not finite in {name}; nothing was written")
            tensors[key] = value.detach().to("cpu").contiguous()
        metadata = {"format": "pt", "library_name": LIBRARY_NAME, "library_version": __version__}
        if "derived_from" in self.notes:
            metadata["derived_from"] = last_parts(self.notes["derived_from"])
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.to_json().encode()
        write_files(folder, {CONFIG_NAME: config, WEIGHTS_NAME: _in_order(save(tensors, metadata))})
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        branch: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        commit_description: str | None = None,
        tag: str | None = None,
        token: str | bool | None = None,
        metrics: Results | Mapping[str, object] | str | Path | None = None,
        picture: str | Path | None = None,
        license: str | None = None,
        dtype: Dtype | torch.dtype = "float32",
        extra: MakeExtra | None = None,
        **others: object,
    ) -> Pushed:
        """Push weights, config, card and results in one commit; the same content again makes no commit.

        The repo and the branch are created if they are missing. A push that fails leaves the repo unchanged
        and can be repeated. In a README.md of the repo, only our fields and the marked sections change.

        Args:
            repo_id: The name of the repo, "org/name", or a bare name in the token's own account.
            private: Whether a new repo is private. None uses the account's setting.
            branch: The branch to commit to. None is main.
            revision: The same as `branch`.
            create_pr: Open a pull request instead of committing to a branch.
            commit_message: The first line of the commit. None is "Upload model with u2net-hub".
            commit_description: The other lines of the commit.
            tag: A tag for the commit.
            token: A token with write permission. None uses the one stored by `hf auth login`.
            metrics: The results of these weights, as `evaluate` returns them, or the path of results.json or
                its folder; curves.npz beside it is pushed too. {"ECSSD": {"mae": 0.04}} is enough; the card
                says of results without a hash that they were given, not measured.
            picture: A .webp file for the card: a photo that may be published, with its map and its cutout.
            license: The licence of the weights, under the Hub's name for it. None keeps the one in the repo's
                README, or else uses "apache-2.0".
            dtype: The data type, as for `save_pretrained`.
            extra: Makes the files for other loaders, as `engines.keep_loaders` does for `u2net push --for`.
            others: Arguments of other libraries; the error says what to use in their place.

        Raises:
            OSError: The Hub refuses or cannot be reached; its errors are subclasses of `u2net_hub.HubError`.
            TypeError: An argument is unknown.
            ValueError: The metrics belong to other weights, `private=True` and the repo is public, or a text
                holds a token of the Hub.
        """
        from .push_model import push_folder
        from .scratch import ScratchFolder

        refuse_arguments("push_to_hub", others, SAVING)
        if branch is not None and revision is not None and branch != revision:
            raise ValueError(f"branch={branch!r} and revision={revision!r} mean the same; give one")
        with ScratchFolder() as folder:
            self.fill_repo(folder, metrics=metrics, picture=picture, dtype=dtype)
            return push_folder(
                folder,
                repo_id,
                commit_message=commit_message,
                commit_description=commit_description,
                private=private,
                branch=branch if branch is not None else revision,
                create_pr=create_pr,
                tag=tag,
                token=token,
                license=license,
                extra=extra,
            )

    def fill_repo(
        self,
        folder: str | Path,
        *,
        metrics: Results | Mapping[str, object] | str | Path | None = None,
        picture: str | Path | None = None,
        dtype: Dtype | torch.dtype = "float32",
    ) -> Path:
        """Write the files of a push, except the card, into a folder; arguments as for `push_to_hub`."""
        from .card import PICTURE_NAME, results_of
        from .given_scores import read_metrics

        folder = self.save_pretrained(folder, dtype=dtype)
        if metrics is not None:
            results = read_metrics(metrics)
            saved, loaded = resolve_local(folder), self.loaded_from
            if (
                loaded is not None
                and results.weights_sha256 == loaded.sha256
                and _equal_weights(saved, loaded)
            ):
                results = replace(results, weights_sha256=saved.sha256)  # the same weights in another file
            results_of(results, saved.sha256).save(folder)
        if picture is not None:
            shutil.copyfile(picture, folder / PICTURE_NAME)
        return folder


def load_network(cls: type[_M], source: Source) -> _M:
    """Build a network from local files, after checking that the weights fit the config."""
    import torch

    from ..checkpoints import check_onnx, read_checkpoint

    if source.format == "xml":
        raise ValueError(
            f"{source.name} is an OpenVINO graph, which SaliencyPipeline runs; "
            "a U2Net needs the checkpoint that it was exported from"
        )
    try:
        checkpoint = read_checkpoint(
            source.weights_path, config=source.config(), allow_pickle=source.allow_pickle
        )
    except ValueError as e:
        problem = f"{e}{source.foreign_config()}"
        if source.kind != "hub":
            raise ValueError(problem) from e
        from .errors import UnusableRepoError

        raise UnusableRepoError(
            f"{source.name}@{source.revision}: {source.weights_path.name} is intact, but it cannot "
            f"be used: {problem}; see the repo's other revisions, or tell its owner",
            repo_id=source.name,
            file=source.weights_path.name,
        ) from e
    with torch.device("meta"):  # no memory, no random weights
        network = cls(checkpoint.config)
    network.load_state_dict(checkpoint.state, strict=True, assign=True)
    network.eval()
    if source.format == "onnx":
        check_onnx(source.weights_path, network, checkpoint.config)
    notes = dict(checkpoint.notes)
    if not notes.get("made_by", "").startswith(LIBRARY_NAME):
        notes.setdefault("derived_from", f"{source.weights_path.name} (SHA-256 {source.sha256})")
    network.notes = notes
    network.loaded_from = source
    return network


def _in_order(content: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which its writer shuffles: equal weights give equal files."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def _equal_weights(one: Source, other: Source) -> bool:
    """Tell whether two files hold the same weights; their precision and format can differ."""
    import torch

    from ..checkpoints import read_checkpoint

    if not other.weights_path.is_file():
        return False
    a, b = (read_checkpoint(source.weights_path, config=one.config()).state for source in (one, other))
    return all(torch.equal(value, b[key]) for key, value in a.items())
