"""Both sizes in timm's registry."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hub_server import WRITER, HubServer

from u2net_hub import U2Net, U2NetConfig, list_bundled
from u2net_hub.config import STAGES
from u2net_hub.engines import keep_loaders

# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

Filled = Callable[[str], U2Net]


@pytest.fixture(scope="module", autouse=True)
def timm() -> ModuleType:
    """timm with both sizes; it imports torchvision, so only the process that runs these tests imports it."""
    library = pytest.importorskip("timm")
    importlib.import_module("u2net_hub.timm")
    return library


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(2, 3, 70, 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "parameters"), [("u2net", 44_009_869), ("u2netp", 1_131_181)])
def test_both_sizes_are_registered(timm: ModuleType, name: str, parameters: int) -> None:
    assert name in timm.list_models("u2net*")
    with torch.device("meta"):
        model = timm.create_model(name)
    assert isinstance(model, U2Net)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.state_dict().keys() == U2Net(U2NetConfig(variant=name)).state_dict().keys()


def test_the_model_is_the_network(timm: ModuleType, filled: Filled, x: torch.Tensor) -> None:
    model = timm.create_model("u2netp").eval()
    model.load_state_dict(filled("u2netp").state_dict(), strict=True)
    with torch.inference_mode():
        for got, expected in zip(model(x), filled("u2netp")(x), strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("name", ["u2net", "u2netp"])
def test_features_are_the_encoder_stages_with_their_channels_and_reductions(
    timm: ModuleType, filled: Filled, x: torch.Tensor, name: str
) -> None:
    network = filled(name)
    model = timm.create_model(name, features_only=True).eval()
    state = {f"model.{k}": v for k, v in network.state_dict().items()}
    assert not model.load_state_dict(state, strict=False).missing_keys
    # table 1 of the paper
    channels = [64, 128, 256, 512, 512, 512] if name == "u2net" else [64] * 6
    assert model.feature_info.channels() == channels
    assert model.feature_info.reduction() == [1, 2, 4, 8, 16, 32]
    assert model.feature_info.module_name() == [f"stage{i}" for i in range(1, 7)]
    with torch.inference_mode():
        features = model(x)
        # stage by stage, as the official forward does it
        y, expected = x, []
        for i in range(1, 7):
            y = network.get_submodule(f"stage{i}")(y)
            expected.append(y)
            y = torch.nn.functional.max_pool2d(y, 2, 2, ceil_mode=True)
        encoded = network.encode(x)
    for got, other, by_hand, width, stride in zip(
        features, encoded, expected, channels, [1, 2, 4, 8, 16, 32], strict=True
    ):
        assert got.shape == (2, width, -(-70 // stride), -(-50 // stride))
        assert torch.equal(got, other)
        assert torch.equal(got, by_hand)


def test_some_features_need_only_some_stages(timm: ModuleType, filled: Filled, x: torch.Tensor) -> None:
    model = timm.create_model("u2netp", features_only=True, out_indices=(1, 3)).eval()
    assert {name.split(".")[1] for name, _ in model.named_parameters()} == {
        "stage1",
        "stage2",
        "stage3",
        "stage4",
    }
    state = {f"model.{k}": v for k, v in filled("u2netp").state_dict().items()}
    model.load_state_dict(state, strict=False)
    assert model.feature_info.reduction() == [2, 8]
    with torch.inference_mode():
        expected = filled("u2netp").encode(x)
        for got, i in zip(model(x), (1, 3), strict=True):
            assert torch.equal(got, expected[i])


def test_a_pushed_repo_loads_through_timm(
    timm: ModuleType, hub: HubServer, filled: Filled, x: torch.Tensor
) -> None:
    network = filled("u2netp")
    # the entries of other loaders in config.json do not disturb timm
    network.push_to_hub("org/a", token=WRITER, extra=keep_loaders(network, ["transformers"]))
    model = timm.create_model("hf-hub:org/a", pretrained=True).eval()
    features = timm.create_model("hf-hub:org/a", pretrained=True, features_only=True).eval()
    assert model.pretrained_cfg["mean"] == [0.485, 0.456, 0.406]
    assert tuple(model.pretrained_cfg["input_size"]) == (3, 320, 320)
    with torch.inference_mode():
        assert torch.equal(model(x)[0], filled("u2netp")(x)[0])
        for got, expected in zip(features(x), filled("u2netp").encode(x), strict=True):
            assert torch.equal(got, expected)


def test_a_revision_loads_through_timm(timm: ModuleType, hub: HubServer, filled: Filled) -> None:
    first = filled("u2netp").push_to_hub("org/a", token=WRITER, tag="v1")
    other = U2Net(U2NetConfig()).push_to_hub("org/a", token=WRITER)
    assert first.commit != other.commit
    model = timm.create_model("hf-hub:org/a@v1", pretrained=True)
    assert torch.equal(model.outconv.weight, filled("u2netp").outconv.weight)


def test_a_folder_loads_through_timm(
    timm: ModuleType, filled: Filled, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = filled("u2netp").save_pretrained(tmp_path_factory.mktemp("model"), dtype="float16")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    expected = U2Net.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_several_classes_keep_the_trunk_and_take_new_heads(
    timm: ModuleType, filled: Filled, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = filled("u2netp").save_pretrained(tmp_path_factory.mktemp("model"))
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=4)
    assert model.outconv.weight.shape == (4, 24, 1, 1)
    assert model.config.activation == "softmax"
    key = "stage6.rebnconv1.conv_s1.weight"
    assert torch.equal(model.state_dict()[key], filled("u2netp").state_dict()[key])


def test_a_repo_with_classes_and_other_channels_loads_through_timm(
    timm: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    torch.manual_seed(0)
    config = U2NetConfig(in_channels=4, mean=(0.5,) * 4, std=(0.5,) * 4, out_channels=3, activation="softmax")
    network = U2Net(config).eval()
    folder = network.save_pretrained(tmp_path_factory.mktemp("model"))
    state = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_other_inputs_build(timm: ModuleType) -> None:
    with torch.device("meta"):
        assert timm.create_model("u2netp", in_chans=5).stage1.rebnconvin.conv_s1.in_channels == 5


def test_the_bundled_weights_are_timms_pretrained_ones(timm: ModuleType) -> None:
    if "u2netp" not in [model.name for model in list_bundled()]:
        pytest.skip("there are no bundled weights")
    state = timm.create_model("u2netp", pretrained=True).state_dict()
    expected = U2Net.from_pretrained("u2netp").state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in state.items())


def test_weights_that_are_not_there_are_not_made_up(timm: ModuleType) -> None:
    with torch.device("meta"), pytest.raises(RuntimeError, match="No pretrained weights"):
        timm.create_model("u2net", pretrained=True)


def test_another_layout_is_refused(timm: ModuleType, x: torch.Tensor) -> None:
    model = timm.create_model("u2netp")
    with pytest.raises(ValueError, match="NCHW"):
        model.forward_intermediates(x, output_fmt="NLC")


def test_without_timm_the_import_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "u2net_hub.timm")
    for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'u2net-hub\[timm\]'"):
        importlib.import_module("u2net_hub.timm")


def test_the_registry_knows_no_other_size() -> None:
    registered = importlib.import_module("u2net_hub.timm")
    assert set(registered.__all__) - {"TimmU2Net"} == set(STAGES)
