"""The files of an ONNX graph: the .onnx itself, and the external data that lies beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read a graph with all its weights; external data is read from the folder of the file only.

    Raises:
        ValueError: The file or its external data is damaged, leads out of its folder, or is read several
            times; or the graph has control flow, functions or sparse weights.
        FileNotFoundError: A file of external data is missing.
        ImportError: onnx is not installed.
    """
    model = parse_onnx(path)
    read: Counter[PurePosixPath] = Counter()
    for tensor in _external_tensors(model):
        location = _location(path, tensor)
        tensor.raw_data = _read_data(path, tensor)
        read[location] += len(tensor.raw_data)
        if read[location] > 2 * (path.parent / location).stat().st_size:  # a small file could fill the memory
            raise ValueError(
                f"{path} reads all of {str(location)!r} several times, which no export of the family does; "
                "do not use it"
            )
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    return model


def onnx_bytes(path: Path) -> bytes:
    """Read a graph as one ONNX file that holds its external data; without onnx installed, the file as it is.

    Raises:
        ValueError: The external data is damaged, or leads out of its folder.
        FileNotFoundError: A file of external data is missing.
    """
    return load_onnx(path).SerializeToString() if external_data(path) else path.read_bytes()


def external_data(path: Path) -> list[str]:
    """List the files of external data of an .onnx file, as paths relative to its folder.

    Without onnx installed, the list is empty.

    Raises:
        ValueError: The file is damaged, or a path leads out of its folder.
    """
    try:
        model = parse_onnx(path)
    except ImportError:
        return []
    return sorted({str(_location(path, tensor)) for tensor in _external_tensors(model)})


def parse_onnx(path: Path) -> onnx.ModelProto:
    """Read the graph without its external data."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as e:
        raise ImportError("reading .onnx needs onnx; install it with: pip install 'u2net-hub[onnx]'") from e
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as e:
        raise ValueError(f"{path} is damaged or no ONNX file ({e}); copy or download it again") from e
    for part, there in (
        ("functions of its own", model.functions),  # the cost of what they calculate is not known beforehand
        ("sparse weights", model.graph.sparse_initializer),  # a few bytes become a tensor of any size
    ):
        if there:
            raise ValueError(f"{path} has {part}, which no export of the family has")
    for node in model.graph.node:
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise ValueError(f"{path} has control flow ({node.op_type!r}), which no export of the family has")
    return model


def _external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    from onnx import TensorProto

    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    inside = [tensor for a in attributes for tensor in ([a.t] if a.HasField("t") else a.tensors)]
    for tensor in (*model.graph.initializer, *inside):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor


def _location(path: Path, tensor: onnx.TensorProto) -> PurePosixPath:
    """The file of a tensor's data, relative to the folder of the graph."""
    said = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    location = PurePosixPath(said)
    if not said or location.is_absolute() or ".." in location.parts or "\\" in said or ":" in said:
        raise ValueError(
            f"{path} reads its weights from {said[:200]!r}, expected a file in its own folder; do not use it"
        )
    return location


def _read_data(path: Path, tensor: onnx.TensorProto) -> bytes:
    location = _location(path, tensor)
    data = path.parent / location
    if not data.is_file():
        raise FileNotFoundError(
            f"{path} keeps its weights in {str(location)!r}, which is not beside it; copy that file too"
        )
    # in the Hub's cache, both are links to the folder of blobs
    target, folders = data.resolve(), (path.parent.resolve(), path.resolve().parent)
    if not any(target.is_relative_to(folder) for folder in folders):
        raise ValueError(
            f"{path} keeps its weights in {str(location)!r}, a link that leads out of its folder"
        )
    said = {entry.key: entry.value for entry in tensor.external_data}
    try:
        start = int(said.get("offset") or 0)
        length = int(said["length"]) if said.get("length") else target.stat().st_size - start
    except ValueError:
        start = length = -1
    if start < 0 or length < 0 or start + length > target.stat().st_size:
        raise ValueError(f"{path} is damaged: {str(location)!r} does not hold the tensor {tensor.name!r}")
    with target.open("rb") as file:
        file.seek(start)
        return file.read(length)
