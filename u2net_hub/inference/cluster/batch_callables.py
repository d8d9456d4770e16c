"""Callable classes for one's own Ray Data pipeline: photos in, cutouts or masks out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...engines import EngineName, Precision
from ...imaging import Cleanup, Edges, Format
from ..folders import reason_of
from ..pipeline import MinMax, SaliencyPipeline
from ..plan import Kind, choose_format, read_options
from ..stream import FAILURES
from .manifest import Row
from .photo_rows import LoadedPhoto, PhotoRows, limit_threads
from .photo_sources import Item
from .remote_files import read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ..backgrounds import Background


class CutoutBatch:
    """Cuts out the photos of a batch: a callable class for `ray.data.Dataset.map_batches`.

    ```python
    photos = ray.data.read_binary_files("photos", include_paths=True)
    photos.map_batches(
        CutoutBatch, fn_constructor_kwargs={"edges": "hair"}, batch_size=64, concurrency=2, num_cpus=1
    ).write_parquet("cutouts")
    ```

    A batch is a dict of columns. Of these, `column` holds the photos: bytes of files, arrays of pixels, or
    paths and URLs. The result has all columns of the batch and these: `cutout`, the bytes of the file;
    `status`, "written" or "failed"; `error`; `height`, `width`; `confidence`, `found`, `box` (left, top,
    right, bottom); `seconds`; `weights_sha256`. A photo that cannot be read is a row with an error, never an
    exception.

    Args:
        model: A source of weights that every machine of the cluster can read, e.g. "u2netp".
        column: The column of the photos. By default "bytes", "image" or "path", whichever there is first.
        format: The format of the outputs.
        background: The background of a cutout, see `SaliencyResult.over`; None for transparency.
        threshold: See `run_files`, as the following five.
        crop: Whether to crop to the object.
        edges: How edges are made.
        label: The number or the name of a class.
        cleanup: The steps that clean each mask.
        minmax: Replaces the config's setting.
        device: See `SaliencyPipeline`, as the following three.
        engine: The engine that runs the network.
        precision: The precision of the engine.
        batch_size: The number of photos that the network sees at once.
        allow_pickle: Accept a pickle where a folder or repo holds no other weights.
        cores: The number of cores to use. By default those that Ray has assigned, else all.

    Raises:
        ValueError: An argument is invalid.
    """

    kind: ClassVar[Kind] = "cutout"

    def __init__(
        self,
        model: str | Path = "u2netp",
        *,
        column: str | None = None,
        format: Format = "png",
        background: str | Background | None = None,
        threshold: float | None = None,
        crop: bool = False,
        edges: Edges | None = None,
        label: int | str | None = None,
        cleanup: Cleanup | None = None,
        minmax: MinMax | None = None,
        device: str = "auto",
        engine: EngineName = "auto",
        precision: Precision = "exact",
        batch_size: int = 8,
        allow_pickle: bool = False,
        cores: int | None = None,
    ) -> None:
        cores = cores or _assigned_cores()
        if cores is not None:
            limit_threads(cores)
        pipeline = SaliencyPipeline.from_pretrained(
            model,
            device=device,
            engine=engine,
            precision=precision,
            batch_size=batch_size,
            minmax=minmax,
            allow_pickle=allow_pickle,
        )
        options = read_options(
            pipeline.config,
            kind=self.kind,
            format=choose_format(format, None, ()),
            background=background,
            threshold=threshold,
            crop=crop,
            edges=edges,
            label=label,
            cleanup=cleanup,
        )
        self._column = column
        self._rows = PhotoRows(pipeline, options, cores)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the batch with the columns of the results."""
        names = [self._column] if self._column else ["bytes", "image", "path"]
        column = next((name for name in names if name in batch), None)
        if column is None:
            raise ValueError(f"the batch has the columns {sorted(batch)}, expected {' or '.join(names)}")
        paths = batch["path"] if "path" in batch else range(len(batch[column]))
        photos = (_load_cell(cell, str(path)) for cell, path in zip(batch[column], paths, strict=True))
        rows = list(self._rows(photos, lambda item, data: bytes(data)))
        made = {
            self.kind if name == "picture" else name: [row[name] for row in rows]  # type: ignore[literal-required]
            for name in Row.__annotations__
            if name not in ("path", "output", "shard")
        }
        return {**batch, **{name: _column_of(values) for name, values in made.items()}}


class MaskBatch(CutoutBatch):
    """Makes the saliency map of each photo of a batch, in the column `mask`; see `CutoutBatch`."""

    kind = "mask"


def _load_cell(cell: Any, name: str) -> LoadedPhoto:
    """Load one cell of a column: bytes, pixels, a path, or a dict with bytes as in the datasets library."""
    item = Item(name, name, "")
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    if isinstance(cell, str):
        try:
            return LoadedPhoto(item, read_bytes(cell))
        except FAILURES as e:
            return LoadedPhoto(item, error=reason_of(e, name))
    return LoadedPhoto(item, cell)


def _column_of(values: list[Any]) -> NDArray[Any]:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _assigned_cores() -> int | None:
    """Return the number of cores that Ray has assigned to this actor or task; None outside of Ray."""
    if "ray" not in sys.modules:
        return None
    import ray

    if not ray.is_initialized():
        return None
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU")  # type: ignore[no-untyped-call]
    return max(1, int(assigned)) if assigned else None
