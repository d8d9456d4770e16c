"""Fixtures that several test files need."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes run tests, and each takes its share of the cores. Torch reads this on import.
    _CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _SHARE = max(1, _CORES // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, str(_SHARE))

import hashlib
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from packaging.version import Version
from PIL import Image

if TYPE_CHECKING:
    from hub_server import HubServer
    from torch import Tensor

    from u2net_hub import SaliencyPipeline, U2Net
    from u2net_hub.engines import Engine

DATA = Path(__file__).parent / "data"
# A process that has imported torch and an engine takes about a gigabyte.
MOST_PROCESSES = 8
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The number of processes that `-n auto` starts: one per usable core, but never more than eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the oracles and data sets, which lies beside the checkout in development and CI."""
    if not SHARED.is_dir():
        pytest.skip(f"the oracles are not here: {SHARED}")
    return SHARED


def fill(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that any machine can make: each key seeds its own (the recipe of the golden outputs)."""
    import torch

    filled = {}
    for key, old in state.items():
        r = torch.rand(old.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
        if key.endswith("num_batches_tracked"):
            filled[key] = torch.zeros((), dtype=torch.int64)
        elif key.endswith(("running_var", "bn_s1.weight")):
            filled[key] = r + 0.5
        elif key.endswith(("running_mean", ".bias")):
            filled[key] = (r - 0.5) * 0.2
        else:
            filled[key] = (r - 0.5) * 2 * (6 / old[0].numel()) ** 0.5
    return filled


@pytest.fixture(scope="session")
def filled() -> Callable[[str], U2Net]:
    """Variant -> its network in eval mode on filled weights; one per session, so leave it as it is."""
    import torch

    from u2net_hub import U2Net, U2NetConfig

    @cache
    def network(variant: str) -> U2Net:
        with torch.device("meta"):
            model = U2Net(U2NetConfig(variant=variant))
        model.load_state_dict(fill(model.state_dict()), assign=True)
        return model.eval().requires_grad_(False)

    return network


@pytest.fixture(scope="session")
def assert_golden() -> Callable[[str, Callable[[Tensor], Sequence[Tensor]], Sequence[str]], None]:
    """Assert that a filled network makes the maps of the official code on the same weights, at each size."""
    import torch
    from safetensors.torch import load_file

    def check(variant: str, network: Callable[[Tensor], Sequence[Tensor]], sizes: Sequence[str]) -> None:
        expected = load_file(DATA / f"golden_{variant}.safetensors")
        for size in sizes:
            h, w = map(int, size.split("x"))
            x = torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(h * 1000 + w)) * 4 - 2
            with torch.inference_mode():
                maps = [logits.sigmoid() for logits in network(x)]
            keys = [key for key in expected if key.startswith(f"{size}.")]
            assert len(keys) == (1 if size == "320x320" else 7)
            for key in keys:
                found = maps[int(key[-1])][0, 0]
                if size == "320x320":  # kept there: every 8th row and column
                    found = found[::8, ::8]
                difference = (found - expected[key]).abs()
                # filled weights amplify rounding: another memory format alone moves single pixels by 1e-3
                assert difference.mean() <= 1e-5, key
                assert difference.max() <= 5e-3, key

    return check


@pytest.fixture(scope="session")
def _hub_server() -> Iterator[HubServer]:
    from hub_server import HubServer

    with HubServer() as server:
        yield server


@pytest.fixture
def hub(_hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    """An empty Hub on loopback for this process's client: no token, an empty cache, no waiting."""
    import huggingface_hub
    from huggingface_hub import constants, file_download, hf_api
    from huggingface_hub.utils import _http

    from u2net_hub.hub import client

    if Version(huggingface_hub.__version__) < Version("2.2"):
        pytest.skip(
            "huggingface_hub below 2.2 sends cards to huggingface.co for validation, wherever the Hub is"
        )
    _hub_server.reset()
    home = tmp_path / "hf"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "ENDPOINT": _hub_server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": _hub_server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", _hub_server.endpoint)
    monkeypatch.setattr(_http, "_HUB_ORIGINS", frozenset({_http._url_origin(_hub_server.endpoint)}))
    no_waiting = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    for module in (_http, file_download, client):
        monkeypatch.setattr(module, "time", no_waiting)
    return _hub_server


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every test."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network of the family: three stages, six channels."""
    import torch

    from u2net_hub import U2Net, U2NetConfig
    from u2net_hub.config import Stage

    stages = (Stage("stage1", 3, 4, 6), Stage("stage2", 2, 4, 6, dilated=True), Stage("stage1d", 3, 4, 6))
    torch.manual_seed(0)
    network = U2Net(U2NetConfig(variant="custom", stages=stages, input_size=(32, 32)))
    return network.save_pretrained(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 20 pairs: a bright disc on a dark ground, the disc its mask."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:48, :48]
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i in range(20):
        (cx, cy), r = rng.integers(12, 36, 2), rng.integers(6, 12)
        disc = (x - cx) ** 2 + (y - cy) ** 2 < r**2
        photo = rng.integers(0, 90, (48, 48, 3)) + disc[..., None] * np.array([120, 140, 160])
        Image.fromarray(photo.astype(np.uint8)).save(folder / "images" / f"{i:02}.png")
        Image.fromarray(disc.astype(np.uint8) * 255).save(folder / "masks" / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def tiny() -> Callable[[int], U2Net]:
    """Seed -> a network of three small stages, 13 kB, in eval mode; a new one each time."""
    import torch

    from u2net_hub import U2Net, U2NetConfig
    from u2net_hub.config import Stage

    stages = tuple(Stage(f"stage{i}", 2, 2, 3) for i in range(3))

    def make(seed: int) -> U2Net:
        torch.manual_seed(seed)
        return U2Net(U2NetConfig(variant="custom", stages=stages, input_size=(32, 32))).eval()

    return make


class Remembering:
    """An engine that keeps the map of each input in a folder, for every process of the test run."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def __call__(self, batch: np.ndarray, *, side_outputs: bool = False) -> tuple[np.ndarray, ...]:
        if side_outputs:
            return self._engine(batch, side_outputs=True)
        return (np.stack([self._map(x) for x in batch]),)

    def _map(self, x: np.ndarray) -> np.ndarray:
        path = self._folder / f"{hashlib.sha256(x.tobytes()).hexdigest()}.npy"
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}.npy")
            np.save(unfinished, self._engine(x[None])[0][0])
            unfinished.replace(path)
        return np.load(path)


@pytest.fixture(scope="session")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SaliencyPipeline]:
    """Weights -> their pipeline, whose maps are computed once for all tests that ask for the same ones."""
    from u2net_hub import SaliencyPipeline
    from u2net_hub.hub import resolve

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def pipeline(source: str | Path, **options: object) -> SaliencyPipeline:
        found = resolve(source)
        made = SaliencyPipeline(found, device="cpu", **options)
        made.engine = Remembering(made.engine, folder / f"maps-{found.sha256[:16]}")
        return made

    return pipeline


class Demo(NamedTuple):
    """The demo, running in a process of its own."""

    address: str
    pid: int
    log: Path
    """What it writes to its standard error."""
    models: tuple[str, str]
    scratch: Path
    """The folder for its temporary files."""
    process: subprocess.Popen[str]

    def stop(self) -> None:
        """Stop it as a host stops a Space. The next file of tests gets a new one."""
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture(scope="session")
def _start_demo(
    tiny_source: Path, _hub_server: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Demo]:
    from hub_server import WRITER

    pytest.importorskip("gradio")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GRADIO_"))}
    command = [sys.executable, "-m", "u2net_hub", "demo", "--model", "u2netp", "--model", str(tiny_source)]

    def start() -> Demo:
        folder = tmp_path_factory.mktemp("demo")
        log, scratch = folder / "log", folder / "scratch"
        scratch.mkdir()
        set_here = {
            "HF_ENDPOINT": _hub_server.endpoint,
            "HF_HOME": str(folder / "hf"),
            "HF_TOKEN": WRITER,  # a token of the owner's, which no visitor may profit from
            "TMPDIR": str(scratch),
        }
        with log.open("w") as errors:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**kept, **set_here},
                cwd=folder,
            )
        assert process.stdout is not None
        address = process.stdout.readline().strip().rstrip("/")
        assert address.startswith("http://127.0.0.1:"), log.read_text()
        return Demo(address, process.pid, log, ("u2netp", tiny_source.name), scratch, process)

    return start


@pytest.fixture(scope="session")
def _demos() -> Iterator[list[Demo]]:
    """The demos of this session; all but the last have been stopped."""
    started: list[Demo] = []
    yield started
    for demo in started:
        if demo.process.poll() is None:
            demo.stop()
        assert demo.process.stdout is not None
        demo.process.stdout.close()


@pytest.fixture(scope="module")
def demo(_start_demo: Callable[[], Demo], _demos: list[Demo]) -> Demo:
    """The demo as its command starts it, with the bundled model and a small one, and the Hub on loopback."""
    if not _demos or _demos[-1].process.poll() is not None:
        _demos.append(_start_demo())
    return _demos[-1]
