"""Checkpoints from .safetensors and .pth files: what is read, and how everything else is refused."""

from __future__ import annotations

import argparse
import json
import pickle
import random
import shlex
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.checkpoints.parts import files_beside
from u2net_hub.checkpoints.readers import read_checkpoint
from u2net_hub.checkpoints.topology import fold, official_shapes
from u2net_hub.config import Stage

State = dict[str, Tensor]
TABLE = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))


@pytest.fixture
def state(filled: Callable[[str], U2Net]) -> State:
    return dict(filled("u2netp").state_dict())


@pytest.fixture
def pth(tmp_path: Path) -> Callable[[object], Path]:
    def write(content: object) -> Path:
        torch.save(content, tmp_path / "weights.pth")
        return tmp_path / "weights.pth"

    return write


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def shapes_only(config: U2NetConfig) -> State:
    with torch.device("meta"):
        network = U2Net(config)
    return {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in network.state_dict().items()}


# What is read


@pytest.mark.parametrize("variant", ["u2net", "u2netp"])
def test_pth_loads_with_its_variant_told_from_the_shapes(
    variant: str, filled: Callable[[str], U2Net], pth: Callable[[object], Path]
) -> None:
    state = filled(variant).state_dict()
    checkpoint = read_checkpoint(pth(state))
    assert checkpoint.config == U2NetConfig(variant=variant)
    assert same(checkpoint.state, state)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_prefixes_come_off(prefix: str, state: State, pth: Callable[[object], Path]) -> None:
    assert same(read_checkpoint(pth({prefix + key: value for key, value in state.items()})).state, state)


def test_names_of_stages_compiled_one_by_one_come_off(state: State, pth: Callable[[object], Path]) -> None:
    renamed = {key.replace("stage3.", "stage3._orig_mod."): value for key, value in state.items()}
    assert same(read_checkpoint(pth(renamed)).state, state)


@pytest.mark.parametrize("name", ["state_dict", "model", "net"])
def test_state_dict_beside_an_optimiser_is_found(
    name: str, state: State, pth: Callable[[object], Path]
) -> None:
    training = {"epoch": 7, name: state, "optimizer": {"state": {}, "param_groups": []}, "loss": 0.1}
    assert same(read_checkpoint(pth(training)).state, state)


def test_legacy_pth_loads(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(tmp_path / "old.pth").state, state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_loads_as_float32(dtype: torch.dtype, state: State, tmp_path: Path) -> None:
    save_file({key: value.to(dtype) for key, value in state.items()}, tmp_path / "weights.safetensors")
    checkpoint = read_checkpoint(tmp_path / "weights.safetensors")
    assert {value.dtype for key, value in checkpoint.state.items() if "tracked" not in key} == {torch.float32}
    assert checkpoint.notes["precision"] == str(dtype).removeprefix("torch.")


def test_convolutions_in_float16_beside_batch_norm_in_float32_load(shared: Path) -> None:
    checkpoint = read_checkpoint(shared / "reference" / "u2netp_author.safetensors")
    assert checkpoint.config == U2NetConfig()
    assert {value.dtype for value in checkpoint.state.values()} == {torch.float32, torch.int64}
    assert checkpoint.notes["precision"] == "float16 and float32"
    assert "U-2-Net authors" in checkpoint.notes["derived_from"]


def test_loaded_weights_do_not_follow_the_file(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    loaded = read_checkpoint(path).state
    size = path.stat().st_size
    with path.open("r+b") as file:  # the same file, written over
        file.seek(size // 2)
        file.write(bytes(size - size // 2))
    assert same(loaded, state)


def test_channels_are_told_from_the_shapes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = U2NetConfig(in_channels=4, mean=(0.5,) * 4, std=(0.5,) * 4, out_channels=3, activation="softmax")
    save_file(shapes_only(config), tmp_path / "weights.safetensors")
    assert read_checkpoint(tmp_path / "weights.safetensors").config == config
    assert "a guess" in caplog.text
    assert "as classes" in caplog.text


def test_custom_table_loads_with_its_config_and_not_without(tmp_path: Path) -> None:
    config = U2NetConfig(variant="custom", stages=TABLE)
    save_file(shapes_only(config), tmp_path / "weights.safetensors")
    assert read_checkpoint(tmp_path / "weights.safetensors", config=config).config == config
    with pytest.raises(ValueError, match="does not fit 'u2netp', the closest variant"):
        read_checkpoint(tmp_path / "weights.safetensors")


# Missing, unexpected, of another shape


def test_counters_of_batches_may_be_missing_all_together(state: State, pth: Callable[[object], Path]) -> None:
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(state) - len(old) == 112
    assert same(read_checkpoint(pth(old)).state, state)


def test_one_missing_counter_raises(state: State, pth: Callable[[object], Path]) -> None:
    del state["stage1.rebnconvin.bn_s1.num_batches_tracked"]
    with pytest.raises(ValueError, match=r"1 missing: stage1\.rebnconvin\.bn_s1\.num_batches_tracked"):
        read_checkpoint(pth(state))


@pytest.mark.parametrize("key", ["outconv.bias", "stage5.rebnconv2.bn_s1.running_mean"])
def test_any_other_missing_key_raises(key: str, state: State, pth: Callable[[object], Path]) -> None:
    del state[key]
    with pytest.raises(ValueError, match=f"of 798 tensors 1 missing: {key}"):
        read_checkpoint(pth(state))


def test_unexpected_key_raises(state: State, pth: Callable[[object], Path]) -> None:
    state["stage7.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"1 unexpected: stage7\.weight"):
        read_checkpoint(pth(state))


def test_other_shape_raises_with_both(state: State, pth: Callable[[object], Path]) -> None:
    state["side3.weight"] = torch.zeros(1, 32, 3, 3)
    with pytest.raises(ValueError, match=r"side3\.weight \[1, 32, 3, 3\] instead of \[1, 64, 3, 3\]"):
        read_checkpoint(pth(state))


def test_weights_of_the_other_variant_do_not_fit_a_given_config(
    state: State, pth: Callable[[object], Path]
) -> None:
    with pytest.raises(ValueError, match="does not fit 'u2net', its config"):
        read_checkpoint(pth(state), config=U2NetConfig(variant="u2net"))


def test_other_network_says_what_it_is_and_what_was_expected(pth: Callable[[object], Path]) -> None:
    other = {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(10)}
    with pytest.raises(
        ValueError, match=r"2 tensors \(conv1\.weight \[64, 3, 7, 7\].*expected.*u2net or u2netp"
    ):
        read_checkpoint(pth(other))


def test_key_twice_under_two_prefixes_raises(state: State, pth: Callable[[object], Path]) -> None:
    state["module.outconv.bias"] = state["outconv.bias"]
    with pytest.raises(ValueError, match="twice"):
        read_checkpoint(pth(state))


def test_two_state_dicts_in_a_file_raise_with_their_names(
    state: State, pth: Callable[[object], Path]
) -> None:
    with pytest.raises(ValueError, match=r"\['ema', 'model'\]"):
        read_checkpoint(pth({"model": state, "ema": state}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_not_finite_raises(value: float, state: State, pth: Callable[[object], Path]) -> None:
    weight = state["stage2.rebnconv3.conv_s1.weight"].clone()
    weight[3, 2, 1, 0] = value
    with pytest.raises(ValueError, match=r"stage2\.rebnconv3\.conv_s1\.weight holds NaN or infinity"):
        read_checkpoint(pth({**state, "stage2.rebnconv3.conv_s1.weight": weight}))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.to(torch.int8),
        lambda t: t.to(torch.complex64),
        lambda t: t.to_sparse(),
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    ],
    ids=["integers", "complex", "sparse", "quantised"],
)
@pytest.mark.filterwarnings(  # torch on making and loading such tensors
    "ignore:.*quantiz", "ignore:.*Quantiz", "ignore:TypedStorage", "ignore:Validating sparse"
)
def test_weights_that_are_not_plain_floating_point_raise(
    change: Callable[[Tensor], Tensor], state: State, pth: Callable[[object], Path]
) -> None:
    state["side1.weight"] = change(state["side1.weight"])
    with pytest.raises(ValueError, match=r"weights\.pth"):
        read_checkpoint(pth(state))


def test_tensor_that_pretends_to_be_huge_raises_before_it_is_copied(
    state: State, pth: Callable[[object], Path]
) -> None:
    state["side1.weight"] = torch.zeros(1).expand(10**12)
    with pytest.raises(ValueError, match=r"side1\.weight \[1000000000000\] instead of"):
        read_checkpoint(pth(state))


# Files that are no checkpoints


@pytest.mark.parametrize("content", [[1, 2], 3, torch.zeros(3), {}, {"a": 1}, {1: torch.zeros(2)}, None])
def test_pth_that_holds_something_else_raises(content: object, pth: Callable[[object], Path]) -> None:
    with pytest.raises(ValueError, match="expected a state dict"):
        read_checkpoint(pth(content))


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_refused_and_not_run(
    state: State, pth: Callable[[object], Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"holds Python objects .* which are not loaded"):
        read_checkpoint(pth({**state, "extra": Trap(tmp_path / "sprung")}))
    assert not (tmp_path / "sprung").exists()


def test_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match=r"plain\.pth"):
        read_checkpoint(tmp_path / "plain.pth")
    assert not (tmp_path / "sprung").exists()


def test_pickle_can_be_refused_altogether(state: State, pth: Callable[[object], Path]) -> None:
    with pytest.raises(ValueError, match="allow_pickle=True"):
        read_checkpoint(pth(state), allow_pickle=False)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".onnx"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello world, hello world", "damaged or no|not of the U²-Net family"),
        (b"<!DOCTYPE html><html>Sign in", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (bytes(range(256)) * 40, "damaged or no|not of the U²-Net family"),
    ],
    ids=["empty", "text", "page", "pointer", "bytes"],
)
def test_file_that_is_no_checkpoint_raises(suffix: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


def test_missing_file_and_other_suffix_raise(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.pth"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"suffix '\.h5', expected \.safetensors"):
        read_checkpoint(tmp_path / "weights.h5")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.999])
def test_truncated_file_raises(suffix: str, part: float, state: State, tmp_path: Path) -> None:
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    torch.save(state, whole) if suffix == ".pth" else save_file(state, whole)
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * part)])
    with pytest.raises(ValueError, match="damaged or no"):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file that looks like")
def test_damaged_pth_raises_nothing_but_one_clear_error(zipped: bool, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "damaged.pth"
    small = {f"layer{i}.weight": torch.zeros(2, 2) for i in range(3)}  # all of it structure
    torch.save(small, whole, _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    chance = random.Random(0)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 4, 30))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises((ValueError, OSError)):  # whole or not, it is no checkpoint of the family
            read_checkpoint(path)


def test_a_compressed_pth_is_not_unpacked_into_memory(state: State, tmp_path: Path) -> None:
    small, path = tmp_path / "small.pth", tmp_path / "bomb.pth"
    torch.save(state, small)
    with zipfile.ZipFile(small) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in source.infolist():
            bomb.writestr(entry.filename, source.read(entry))
        bomb.writestr("small/data/added", bytes(30_000_000))
    with pytest.raises(ValueError, match=r"bomb\.pth would grow from [\d,]+ to [\d,]+ bytes"):
        read_checkpoint(path)


def test_expanded_tensors_are_not_copied_into_memory(tmp_path: Path) -> None:
    shapes = official_shapes(U2NetConfig(variant="u2net"))
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}, tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"wide\.pth would grow from [\d,]+ to 176,[\d,]+ bytes"):
        read_checkpoint(tmp_path / "wide.pth")


def test_tensors_without_values_are_refused(state: State, tmp_path: Path) -> None:
    torch.save({key: value.to("meta") for key, value in state.items()}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="has a shape and no values"):
        read_checkpoint(tmp_path / "empty.pth")


def safetensors(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


FIRST = "stage1.rebnconvin.conv_s1.weight"


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"{}", b"", 2**63),
        (b"{}", b"", 10**8 + 1),
        (b"{" * 2000, b"", None),
        (b'{"a": 1}', b"", None),
        (b"[]", b"", None),
        (b"\xff\xfe{}", b"", None),
        ({FIRST: {"dtype": "F32", "shape": [64, 3, 3, 3], "data_offsets": [0, 6912]}}, b"", None),
        ({FIRST: {"dtype": "F32", "shape": [64, 3, 3, 3], "data_offsets": [0, 4]}}, bytes(4), None),
        ({FIRST: {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}}, bytes(4), None),
        ({FIRST: {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4), None),
        ({FIRST: {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}, bytes(4), None),
        ({FIRST: {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4), None),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
          "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4), None),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(400), None),
        ({"__metadata__": {"format": "pt"}}, b"", None),
        ({"__metadata__": {"format": 3}}, b"", None),
        ({}, b"", None),
    ],
)  # fmt: skip
def test_safetensors_header_that_lies_raises(
    header: object, data: bytes, length: int | None, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"lie\.safetensors"):
        read_checkpoint(safetensors(tmp_path / "lie.safetensors", header, data, length))


def test_safetensors_of_other_shapes_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    config = U2NetConfig(variant="u2net")
    path = tmp_path / "large.safetensors"
    header, end = {}, 0
    for key, value in shapes_only(config).items():
        shape = [10**9] if key == "side1.weight" else list(value.shape)
        size = 4 * torch.Size(shape).numel()
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    safetensors(path, header)
    with path.open("r+b") as file:
        file.truncate(8 + len(json.dumps(header)) + end)  # 4 GB of nothing, which takes no space
    with pytest.raises(ValueError, match=r"side1\.weight \[1000000000\] instead of"):
        read_checkpoint(path)


def test_text_from_a_file_is_fit_for_a_terminal(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path, metadata={"derived_from": "\x1b[2J\nyou\u202e win\x07" + "x" * 5000})
    note = read_checkpoint(path).notes["derived_from"]
    assert note.isprintable()
    assert len(note) <= 300


# Files as other programs write them


SMALL = U2NetConfig(variant="custom", stages=TABLE)


@pytest.fixture
def small() -> State:
    """The state dict of a network of three stages."""
    torch.manual_seed(0)
    return dict(U2Net(SMALL).state_dict())


@pytest.mark.parametrize("prefix", ["model.", "net.", "u2net.", "model.module.", "a.b."])
def test_a_prefix_that_all_tensors_share_comes_off(
    prefix: str, small: State, pth: Callable[[object], Path]
) -> None:
    path = pth({prefix + key: value for key, value in small.items()})
    assert same(read_checkpoint(path, config=SMALL).state, small)


def test_a_checkpoint_of_lightning_loads(small: State, tmp_path: Path) -> None:
    torch.save(
        {
            "epoch": 3,
            "state_dict": {f"model.{key}": value for key, value in small.items()},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}],
            "hyper_parameters": {"lr": 1e-3},
            "loops": {"fit_loop": {"state_dict": {}}},
            "pytorch-lightning_version": "2.5.0",
        },
        tmp_path / "last.ckpt",
    )
    assert same(read_checkpoint(tmp_path / "last.ckpt", config=SMALL).state, small)


def test_the_command_that_saves_the_tensors_of_lightning_works(
    small: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"state_dict": small, "hyper_parameters": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"holds Python objects \(argparse\.Namespace\)") as caught:
        read_checkpoint(tmp_path / "last.ckpt", config=SMALL)
    monkeypatch.chdir(tmp_path)
    command = shlex.split(str(caught.value).partition("with: ")[2])
    assert command[:2] == ["python", "-c"]
    exec(command[2])
    assert same(read_checkpoint(tmp_path / "last.pth", config=SMALL).state, small)


def test_tensors_beside_those_of_the_network_are_named(small: State, pth: Callable[[object], Path]) -> None:
    path = pth({"loss.weight": torch.zeros(1), **{f"model.{key}": value for key, value in small.items()}})
    with pytest.raises(ValueError, match=r"1 unexpected: loss\.weight$"):
        read_checkpoint(path, config=SMALL)


def test_the_line_that_saves_one_of_several_state_dicts_works(
    small: State, pth: Callable[[object], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pth({"ema": small, "model": small})
    with pytest.raises(ValueError, match=r"several state dicts, \['ema', 'model'\]") as caught:
        read_checkpoint(path, config=SMALL)
    monkeypatch.chdir(tmp_path)
    exec("import torch; " + str(caught.value).partition("e.g. ")[2])
    assert same(read_checkpoint(tmp_path / "weights-one.pth", config=SMALL).state, small)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_are_joined(suffix: str, small: State, tmp_path: Path) -> None:
    index = shard(small, tmp_path, suffix)
    assert same(read_checkpoint(index, config=SMALL).state, small)
    assert files_beside(index) == [f"model-{i}{suffix}" for i in range(2)]


def shard(state: State, folder: Path, suffix: str) -> Path:
    weight_map = {}
    for i in range(2):
        part = dict(list(state.items())[i::2])
        weight_map |= dict.fromkeys(part, f"model-{i}{suffix}")
        path = folder / f"model-{i}{suffix}"
        save_file(part, path) if suffix == ".safetensors" else torch.save(part, path)
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def test_a_shard_that_is_missing_is_named(small: State, tmp_path: Path) -> None:
    index = shard(small, tmp_path, ".safetensors")
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lists 'model-1\.safetensors'"):
        read_checkpoint(index, config=SMALL)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../x.safetensors"},
        {"a": "/x.safetensors"},
        {"a": 3},
        {},
        [],
        {"a": "x.pth", "b": "y.safetensors"},
    ],
)
def test_an_index_that_names_no_shards_beside_it_is_refused(weight_map: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match="names no shards"):
        read_checkpoint(tmp_path / "model.safetensors.index.json")


# What would make wrong maps, or orders to a terminal


def test_variances_below_zero_are_refused(small: State, pth: Callable[[object], Path]) -> None:
    small["stage1.rebnconv1.bn_s1.running_var"] = torch.full((4,), -1.0)
    with pytest.raises(ValueError, match=r"stage1\.rebnconv1\.bn_s1\.running_var holds variances below 0"):
        read_checkpoint(pth(small), config=SMALL)


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_variances_below_zero_are_not_folded(value: float, small: State) -> None:
    small["stage1.rebnconv1.bn_s1.running_var"] = torch.full((4,), value)
    with pytest.raises(ValueError, match=r"stage1\.rebnconv1\.bn_s1\.running_var holds variances below 0"):
        fold(SMALL, {key: tensor.numpy() for key, tensor in small.items()})


def test_a_weight_that_is_no_number_is_not_folded(small: State) -> None:
    small["side1.bias"] = torch.tensor([float("inf")])
    with pytest.raises(ValueError, match="side1 holds NaN or infinity"):
        fold(SMALL, {key: tensor.numpy() for key, tensor in small.items()})


def test_names_of_tensors_send_no_orders_to_a_terminal(small: State, pth: Callable[[object], Path]) -> None:
    for state in ({"\x1b]0;evil\x07": torch.zeros(1)}, {**small, "\x1b[2J": torch.zeros(1)}):
        with pytest.raises(ValueError, match=r"expected those|unexpected") as caught:
            read_checkpoint(pth(state), config=None if len(state) == 1 else SMALL)
        assert str(caught.value).isprintable()
