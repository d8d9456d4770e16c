"""config.json: what it holds, that it comes back, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from u2net_hub.config import STAGES, ForeignConfigError, Stage, U2NetConfig

TABLE = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))

SEGMENTATION = U2NetConfig(
    variant="custom",
    stages=TABLE,
    in_channels=4,
    out_channels=3,
    input_size=(192, 256),
    interpolation="lanczos",
    scale="255",
    mean=(0.1, 0.2, 0.3, 0.4),
    std=(1.0, 1.0, 1.0, 2.0),
    activation="softmax",
    minmax="never",
    labels=("background", "shirt", "çoat"),
)


def written(**changes: object) -> dict[str, object]:
    return {**U2NetConfig().to_dict(), **changes}


def test_default_config_json_is_the_documented_one() -> None:
    content = U2NetConfig().to_dict()
    assert content.pop("pretrained_cfg")
    assert content == {
        "format_version": 1,
        "library_name": "u2net-hub",
        "architecture": "u2netp",
        "stages": None,
        "in_channels": 3,
        "out_channels": 1,
        "input_size": [320, 320],
        "interpolation": "bilinear",
        "scale": "image_max",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "activation": "sigmoid",
        "minmax": "auto",
        "invert": False,
        "labels": None,
    }


def test_small_variant_is_the_large_one_with_16_inside_and_64_out() -> None:
    assert [(s.name, s.L, s.dilated) for s in STAGES["u2netp"]] == [
        (s.name, s.L, s.dilated) for s in STAGES["u2net"]
    ]
    assert {(s.mid, s.out) for s in STAGES["u2netp"]} == {(16, 64)}


@pytest.mark.parametrize(
    "config",
    [
        U2NetConfig(),
        U2NetConfig(variant="u2net", input_size=(512, 512), invert=True, minmax="always"),
        SEGMENTATION,
    ],
    ids=["default", "portrait", "custom"],
)
def test_config_comes_back_from_its_file(config: U2NetConfig, tmp_path: Path) -> None:
    config.save(tmp_path / "config.json")
    assert U2NetConfig.load(tmp_path / "config.json") == config


def test_lists_and_tuples_make_equal_configs() -> None:
    listed = U2NetConfig(input_size=[320, 320], mean=[0.485, 0.456, 0.406])  # type: ignore[arg-type]
    assert listed == U2NetConfig()
    assert hash(listed) == hash(U2NetConfig())


def test_replace_checks_again() -> None:
    assert U2NetConfig().replace(variant="u2net").table == STAGES["u2net"]
    with pytest.raises(ValueError, match="mean has 3 values, expected one per channel: 1"):
        U2NetConfig().replace(in_channels=1)


def test_timm_entry_names_channels_size_and_the_two_ends() -> None:
    entry = SEGMENTATION.to_dict()["pretrained_cfg"]
    assert isinstance(entry, dict)
    assert entry["input_size"] == [4, 192, 256]
    assert entry["num_classes"] == 3
    assert entry["first_conv"] == "stage1.rebnconvin.conv_s1"
    assert entry["classifier"] == "outconv"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, r"unknown fields \['colour'\]"),
        ({"format_version": 2}, "format_version 2.*update u2net-hub"),
        ({"format_version": True}, "format_version True"),
        ({"format_version": None}, "format_version None"),
        ({"library_name": "timm"}, "another library.*'timm'.*'u2net-hub'"),
        ({"architecture": "u2ne"}, r"unknown variant 'u2ne', expected one of \['u2net', 'u2netp'\]"),
        ({"architecture": ["u2net"]}, "unknown variant"),
        ({"architecture": {"u2net": 1}}, "unknown variant"),
        ({"stages": [{"name": "stage1", "L": 7, "mid": 32, "out": 64}]}, "expected variant 'custom'"),
        ({"stages": "all"}, "expected null or a list"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"in_channels": 10**9}, "in_channels is 1000000000"),
        ({"out_channels": 1.5}, "out_channels is 1.5"),
        ({"out_channels": True}, "out_channels is True"),
        ({"input_size": 320}, "input_size is 320"),
        ({"input_size": [320]}, "input_size is"),
        ({"input_size": [320, -1]}, "input_size is -1"),
        ({"interpolation": "area"}, "interpolation is 'area', expected one of"),
        ({"interpolation": ["bilinear"]}, "interpolation is"),
        ({"scale": 255}, "scale is 255"),
        ({"mean": 0.5}, "mean is 0.5"),
        ({"mean": "abc"}, "mean is 'abc'"),
        ({"mean": [0.5, 0.5, None]}, "mean has the value None"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean has the value nan"),
        ({"std": [0.2, 0.2, 0.0]}, "expected values above 0"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"activation": "softmax"}, "over one channel"),
        ({"activation": "softmax", "out_channels": 2, "invert": True}, "invert is for one saliency map"),
        ({"minmax": None}, "minmax is None"),
        ({"invert": "no"}, "invert is 'no'"),
        ({"labels": ["a", "b"]}, "expected 1 names"),
        ({"labels": "a"}, "labels is 'a'"),
        ({"labels": [7]}, "labels is"),
    ],
)
def test_field_out_of_range_raises(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        U2NetConfig.from_dict(written(**changes))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"L": 1}, "L is 1"),
        ({"L": 60}, "L is 60"),
        ({"mid": 0}, "mid is 0"),
        ({"out": 10**9}, "out is 1000000000"),
        ({"dilated": 1}, "dilated is 1"),
        ({"name": "stage2"}, "a name twice"),
        ({"name": "a.b"}, "the name 'a.b'"),
        ({"name": "side1"}, "the name 'side1'"),
        ({"name": "outconv"}, "the name 'outconv'"),
        ({"name": None}, "the name None"),
        ({"width": 3}, "expected fields"),
    ],
)
def test_row_out_of_range_raises(row: dict[str, object], message: str) -> None:
    stages = [stage._asdict() for stage in TABLE]
    stages[0].update(row)
    with pytest.raises(ValueError, match=message):
        U2NetConfig.from_dict(written(architecture="custom", stages=stages))


@pytest.mark.parametrize("count", [0, 1, 2, 4, 17])
def test_table_needs_an_odd_number_of_rows(count: int) -> None:
    rows = [{"name": f"stage{i}", "L": 2, "mid": 2, "out": 2} for i in range(count)]
    with pytest.raises(ValueError, match=f"{count} rows, expected an odd number"):
        U2NetConfig.from_dict(written(architecture="custom", stages=rows))


def test_missing_fields_take_their_defaults_but_the_architecture_must_be_there() -> None:
    head = {"format_version": 1, "library_name": "u2net-hub"}
    assert U2NetConfig.from_dict({**head, "architecture": "u2net"}) == U2NetConfig(variant="u2net")
    with pytest.raises(ValueError, match="no 'architecture'"):
        U2NetConfig.from_dict(head)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"u2netp"', "\udcff", "[" * 100_000, '{"format_version": 1' + "0" * 5000 + "}"],
)
def test_file_that_is_no_config_raises_with_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"config\.json"):
        U2NetConfig.load(path)


def test_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        U2NetConfig.load(tmp_path / "config.json")


def test_file_is_readable_json_with_its_letters_kept(tmp_path: Path) -> None:
    SEGMENTATION.save(tmp_path / "config.json")
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert json.loads(text)["labels"][2] == "çoat"
    assert "çoat" in text


# Entries of other libraries


FOREIGN = {
    "model_type": "u2net",
    "architectures": ["U2NetForSegmentation"],
    "auto_map": {"AutoModel": "modeling_u2net.U2Net"},
    "transformers_version": "5.2.0",
    "torch_dtype": "float32",
    "transformers.js_config": {"dtype": "fp32"},
    "_name_or_path": "org/a",
}


def test_entries_of_other_libraries_are_ignored_and_kept(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(written(**FOREIGN)))
    config = U2NetConfig.load(tmp_path / "config.json")
    assert config == U2NetConfig()
    config.replace(input_size=(64, 64)).save(tmp_path / "config.json")
    content = json.loads((tmp_path / "config.json").read_text())
    assert {name: content[name] for name in FOREIGN} == FOREIGN
    assert content["input_size"] == [64, 64]


def test_an_entry_of_neither_is_still_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown fields \['input_sise'\]"):
        U2NetConfig.from_dict(written(input_sise=[64, 64], **FOREIGN))


def test_our_own_fields_are_not_taken_for_those_of_others() -> None:
    with pytest.raises(ValueError, match=r"other has the entries \['mean'\]"):
        U2NetConfig(other={"mean": [0.5]})


def test_a_config_of_another_library_has_an_error_of_its_own() -> None:
    with pytest.raises(ForeignConfigError, match="another library"):
        U2NetConfig.from_dict({"model_type": "resnet"})
