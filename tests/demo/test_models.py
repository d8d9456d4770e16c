"""The networks that the demo's visitors share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hub_server import WRITER, HubServer
from PIL import Image

from u2net_hub import SaliencyPipeline, U2Net, U2NetConfig
from u2net_hub.demo import guests, models as models_module
from u2net_hub.demo.models import Models, SharedEngine, read_photo, shrink
from u2net_hub.hub.errors import HubError, RepoNotFoundError, UnusableRepoError
from u2net_hub.imaging.decode import load

# how huggingface_hub 2.4 hands LFS files to its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

Tiny = Callable[[int], U2Net]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sources(tiny: Tiny, tmp_path: Path) -> list[str]:
    return [str(tiny(seed).save_pretrained(tmp_path / name)) for seed, name in enumerate(("one", "two"))]


@pytest.fixture
def models(sources: list[str]) -> Models:
    return Models(sources, device="cpu")


@pytest.fixture
def photo(rng: np.random.Generator) -> Any:
    return load(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8))


def counting(models: Models, name: str) -> list[int]:
    """The sizes of the batches that a model's network is given from now on."""
    engine, batches = models.get(name).engine, []
    run = engine._engine

    def spy(batch: Any, *, side_outputs: bool = False) -> Any:
        batches.append(len(batch))
        return run(batch, side_outputs=side_outputs)

    engine._engine = spy  # type: ignore[assignment]
    return batches


# The models that a demo is started with


def test_models_are_called_by_their_folder(models: Models) -> None:
    assert models.names == ["one", "two"]


def test_a_model_is_called_by_its_file(sources: list[str]) -> None:
    assert Models([f"{sources[0]}/model.safetensors"], device="cpu").names == ["model"]


def test_two_models_of_one_name_are_refused(sources: list[str]) -> None:
    with pytest.raises(ValueError, match="two models are called 'one'"):
        Models([sources[0], sources[0]], device="cpu")


def test_no_models_are_refused() -> None:
    with pytest.raises(ValueError, match="got no models"):
        Models([])


def test_an_unknown_model_is_told_from_those_that_are_there(models: Models) -> None:
    with pytest.raises(ValueError, match=r"'three' is not in memory, expected one of \['one', 'two'\]"):
        models.get("three")


def test_parameters_and_megabytes_are_those_of_the_file(models: Models, sources: list[str]) -> None:
    size = Path(sources[0], "model.safetensors").stat().st_size
    assert models.get("one").megabytes == size / 1e6
    assert models.get("one").parameters == sum(
        p.numel() for p in U2Net.from_pretrained(sources[0]).parameters()
    )


# Answers


def test_an_answer_is_that_of_the_pipeline(models: Models, sources: list[str], photo: Any) -> None:
    expected = SaliencyPipeline(sources[1], device="cpu")(photo, side_outputs=True)
    result = models.run("two", photo, side_outputs=True).result()
    np.testing.assert_array_equal(result.saliency, expected.saliency)
    assert result.side_outputs is not None
    assert expected.side_outputs is not None
    for found, wanted in zip(result.side_outputs, expected.side_outputs, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_same_photo_runs_once(models: Models, photo: Any) -> None:
    batches = counting(models, "one")
    first, second = models.run("one", photo), models.run("one", photo)
    assert batches == [1]
    np.testing.assert_array_equal(second.result().saliency, first.result().saliency)


def test_another_model_is_asked_anew(models: Models, photo: Any) -> None:
    batches = counting(models, "two")
    models.run("one", photo)
    models.run("two", photo)
    assert batches == [1]


def test_only_the_newest_photos_are_remembered(models: Models, rng: np.random.Generator) -> None:
    for _ in range(models_module._REMEMBERED + 5):
        models.run("one", load(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)))
    assert len(models._remembered) == models_module._REMEMBERED


def test_large_maps_are_not_remembered(models: Models, photo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "_REMEMBERED_BYTES", 100)
    batches = counting(models, "one")
    models.run("one", photo)
    models.run("one", photo)
    assert batches == [1, 1]


def test_a_shrunk_result_has_the_same_shape_of_things(models: Models, photo: Any) -> None:
    answer = models.run("one", photo)
    assert answer.result(30).size == (20, 30)
    assert answer.result(30).confidence == answer.result().confidence


def test_a_small_photo_is_not_shrunk(photo: Any) -> None:
    assert shrink(photo, 60) is photo


def test_shrinking_keeps_alpha_and_profile(photo: Any) -> None:
    image = Image.new("RGBA", (400, 100), (10, 20, 30, 40))
    image.info["icc_profile"] = b"x" * 16 + b"RGB "
    small = shrink(load(image), 100)
    assert small.rgb.size == small.alpha.size == (100, 25)  # type: ignore[union-attr]
    assert small.alpha is not None
    assert small.alpha.getextrema() == (40, 40)
    assert small.icc_profile == b"x" * 16 + b"RGB "


# Limits


def test_a_photo_of_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "MAX_PIXELS", 99)
    Image.new("L", (10, 10)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])  # its pixels are not there
    with pytest.raises(ValueError, match=r"holiday\.png is too large: 10 × 10 pixels, expected at most 99"):
        read_photo(tmp_path / "a.png", "holiday.png")


def test_the_limit_is_that_of_a_24_megapixel_camera(tmp_path: Path) -> None:
    Image.new("1", (6000, 4000)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png", "a").size == (4000, 6000)
    Image.new("1", (6000, 4001)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="too large"):
        read_photo(tmp_path / "b.png", "b")


@pytest.mark.parametrize("size", [(16_001, 10), (10, 16_001)])
def test_a_side_has_a_limit_too(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("1", size).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"holiday is too long: .* expected at most 16,000 on a side"):
        read_photo(tmp_path / "a.png", "holiday")


# ZeroGPU


class PretendZero:
    """What the `spaces` package does on ZeroGPU, as far as one process can: it wraps what is to run there."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(Config=SimpleNamespace(zero_gpu=True))
        self.calls: list[str] = []
        self.seconds: list[int] = []

    def GPU(self, task: Any, *, duration: Callable[..., int]) -> Any:
        def scheduled(*args: Any) -> Any:
            self.calls.append(task.__name__)
            self.seconds.append(duration(*args))
            return task(*args)

        return scheduled


def test_on_zerogpu_the_network_runs_where_the_gpu_is(
    sources: list[str], photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = PretendZero()
    monkeypatch.setattr(models_module, "spaces", zero)
    models = Models(sources, device="cpu")
    assert zero.calls == []  # there is no GPU before a visitor is there
    assert models.run("one", photo).facts()["device"] == "ZeroGPU"
    assert zero.calls == ["_run"]
    models.run("one", photo)
    assert zero.calls == ["_run"]  # remembered


def test_zerogpu_gets_a_batch_in_one_request_of_a_realistic_length(
    sources: list[str], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = PretendZero()
    monkeypatch.setattr(models_module, "spaces", zero)
    models = Models(sources, device="cpu")
    photos = [load(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)) for _ in range(30)]
    models.run_ahead("one", photos)
    for photo in photos:
        models.run("one", photo)
    assert zero.calls == ["_run"]
    assert zero.seconds == [7]


@pytest.mark.parametrize("module", ["app", "page", "events", "models"])
def test_spaces_is_imported_before_gradio_and_torch(module: str, tmp_path: Path) -> None:
    # it ends the process, because what is imported afterwards does not matter here and takes seconds
    (tmp_path / "spaces.py").write_text(
        "import os, sys\n"
        "print('spaces', 'gradio' in sys.modules, 'torch' in sys.modules, flush=True)\n"
        "os._exit(0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"import u2net_hub.demo.{module}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == "spaces False False\n"


def test_where_spaces_is_installed_without_zerogpu_nothing_changes(
    sources: list[str], photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero = PretendZero()
    zero.config.Config.zero_gpu = False
    monkeypatch.setattr(models_module, "spaces", zero)
    assert Models(sources, device="cpu").run("one", photo).facts()["device"] == "cpu"
    assert zero.calls == []


def engine_that_takes(seconds: list[float], patch: pytest.MonkeyPatch) -> SharedEngine:
    """A shared engine on a clock on which its runs take these seconds."""
    ticks = iter([tick for each in seconds for tick in (0.0, each)])
    patch.setattr(models_module.time, "perf_counter", lambda: next(ticks))

    class Engine:
        config, name, device, precision = U2NetConfig(), "slow", "cpu", "exact"

        def __call__(self, batch: Any, *, side_outputs: bool = False) -> Any:
            return (batch,)

    return SharedEngine(Engine())


def test_a_time_is_the_median_of_runs_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_that_takes([50, 1, 3, 8], monkeypatch)
    engine.warm_up(3)
    assert engine.seconds == 3


def test_there_is_no_time_before_three_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_that_takes([1, 1], monkeypatch)
    for _ in range(2):
        engine(np.zeros((1, 3, 2, 2), np.float32))
    assert engine.seconds is None


def test_the_time_of_a_batch_is_shared_by_its_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_that_takes([8, 8, 8], monkeypatch)
    for _ in range(3):
        engine(np.zeros((4, 3, 2, 2), np.float32))
    assert engine.seconds == 2


# Visitors' models


def test_a_visitor_can_ask_for_any_public_model(
    hub: HubServer, models: Models, tiny: Tiny, photo: Any
) -> None:
    pushed = tiny(7).push_to_hub("org/seven", token=WRITER)
    guest = models.invite(" org/seven ")
    assert guest.name == f"org/seven@{pushed.commit}"
    assert guest.revision == pushed.commit
    expected = SaliencyPipeline(tiny(7), device="cpu")(photo).saliency
    np.testing.assert_array_equal(models.run(guest.name, photo).result().saliency, expected)


def test_a_visitor_gets_the_revision_asked_for(hub: HubServer, models: Models, tiny: Tiny) -> None:
    first = tiny(1).push_to_hub("org/a", token=WRITER, tag="v1")
    second = tiny(2).push_to_hub("org/a", token=WRITER)
    assert models.invite("org/a@v1").revision == first.commit
    assert models.invite("org/a").revision == second.commit


def test_only_the_config_and_the_weights_are_fetched(hub: HubServer, models: Models, tiny: Tiny) -> None:
    tiny(1).push_to_hub("org/a", token=WRITER)
    hub.log.clear()
    models.invite("org/a")
    fetched = {entry.what.partition(":")[2] for entry in hub.log if entry.what.startswith(("get:", "cdn:"))}
    assert fetched == {"config.json", "model.safetensors"}


def test_a_model_in_memory_is_not_fetched_again(hub: HubServer, models: Models, tiny: Tiny) -> None:
    tiny(1).push_to_hub("org/a", token=WRITER)
    guest = models.invite("org/a")
    hub.log.clear()
    assert models.invite("org/a") is guest
    assert {entry.what for entry in hub.log} == {"info"}


def test_few_visitors_models_are_kept_the_newest(
    hub: HubServer, models: Models, tiny: Tiny, photo: Any
) -> None:
    names = []
    for seed in range(3):
        tiny(seed).push_to_hub(f"org/m{seed}", token=WRITER)
        names.append(models.invite(f"org/m{seed}").name)
        models.run(names[-1], photo)
        if seed == 1:
            models.invite("org/m0")  # asked for again, so that m1 is the oldest
    assert [name for name in names if name in models._guests] == [names[0], names[2]]
    assert {key[0] for key in models._remembered} == {names[0], names[2]}
    with pytest.raises(ValueError, match="load it first"):
        models.run(names[1], photo)


def test_files_of_visitors_models_do_not_stay(
    hub: HubServer, models: Models, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(models_module.tempfile, "tempdir", str(scratch))
    tiny(1).push_to_hub("org/a", token=WRITER)
    models.invite("org/a")
    assert list(scratch.iterdir()) == []
    assert not list((tmp_path / "hf").rglob("*.safetensors"))  # the cache of this machine's owner


def test_the_owners_token_opens_nothing(
    hub: HubServer, models: Models, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(1).push_to_hub("org/secret", token=WRITER, private=True)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    hub.log.clear()
    with pytest.raises(RepoNotFoundError):
        models.invite("org/secret")
    assert not any("authorization" in entry.headers for entry in hub.log)


@pytest.mark.parametrize(
    "source",
    [
        "u2netp",
        "/etc/passwd",
        "../etc",
        "a/../b",
        "tests/data/..",
        "http://host/a",
        "org/a b",
        "org/a/b",
        "@v1",
        "",
    ],
)
def test_what_is_no_model_on_the_hub_is_refused_unasked(hub: HubServer, models: Models, source: str) -> None:
    with pytest.raises(ValueError, match="is not a model on the Hub, expected org/name"):
        models.invite(source)
    assert not hub.log


def test_a_path_that_looks_like_a_model_is_not_opened(
    hub: HubServer, models: Models, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(1).save_pretrained(tmp_path / "org" / "local")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RepoNotFoundError):
        models.invite("org/local")


def test_a_repo_without_safetensors_is_refused(hub: HubServer, models: Models) -> None:
    hub.add("org/pickle", {"config.json": b"{}", "u2netp.pth": b"x"})
    with pytest.raises(UnusableRepoError, match=r"holds no model\.safetensors"):
        models.invite("org/pickle")


def test_a_file_that_is_too_large_is_refused_before_it_is_fetched(
    hub: HubServer, models: Models, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(1).push_to_hub("org/a", token=WRITER)
    monkeypatch.setattr(guests, "MAX_GUEST_BYTES", 5000)
    hub.log.clear()
    with pytest.raises(ValueError, match=r"model\.safetensors has .* bytes, expected at most 5,000"):
        models.invite("org/a")
    assert {entry.what for entry in hub.log} == {"info"}


def test_a_network_that_would_need_too_much_memory_is_refused(
    hub: HubServer, models: Models, tiny: Tiny
) -> None:
    network = tiny(1)
    network.config = network.config.replace(input_size=(8192, 8192))
    network.push_to_hub("org/huge", token=WRITER)
    with pytest.raises(ValueError, match=r"8192 × 8192 pixels .* expected at most 60,000,000 here"):
        models.invite("org/huge")


def test_a_network_that_would_take_too_long_is_refused(
    hub: HubServer, models: Models, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(1).push_to_hub("org/a", token=WRITER)
    monkeypatch.setattr(guests, "MAX_GUEST_FLOPS", 1e5)
    with pytest.raises(ValueError, match=r"operations per photo, expected at most 1\.0e\+05 here"):
        models.invite("org/a")


def test_both_sizes_are_within_the_limits_for_visitors_models() -> None:
    import torch

    for variant in ("u2net", "u2netp"):
        with torch.device("meta"):
            network = U2Net(U2NetConfig(variant=variant))
        guests.check_guest_cost(network)
        assert sum(p.numel() for p in network.parameters()) * 4 < guests.MAX_GUEST_BYTES


def test_a_config_of_another_library_is_told(
    hub: HubServer, models: Models, tiny: Tiny, tmp_path: Path
) -> None:
    weights = (tiny(1).save_pretrained(tmp_path / "a") / "model.safetensors").read_bytes()
    hub.add("org/other", {"config.json": b'{"model_type": "bert"}', "model.safetensors": weights})
    with pytest.raises(HubError, match=r"config\.json is of another library"):
        models.invite("org/other")
