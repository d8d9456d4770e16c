"""One process of a benchmark, which opens one engine and then runs, scores and measures it on request.

It also runs commands, in a small helper process, because a child inherits its parent's peak RSS.

Each line of standard input is a request, each line of standard output its answer, both in JSON. The file also
runs alone under the Python that has rembg, where this package is not installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engines import Engine, EngineName, Precision


_TURN = 0.4
"""The limits of one turn: its time in seconds, and its number of runs."""
_MOST_RUNS = 200
_SIDE = 8192
"""The side of the square matrices whose product measures the arithmetic of a GPU."""


class Runner:
    """An engine that is opened, warmed up and measured.

    Args:
        setup: The fields of `results.Setup`, "onnx" (the path of the weights for rembg) and "data" (the data
            set to score on).
    """

    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._engine: Engine | None = None
        self._device = "cpu"
        self._run = self._open()
        times = [self._time(), self._time()]
        while sum(times) < _TURN and len(times) < _MOST_RUNS:
            times.append(self._time())
        self._expected = min(times)

    def _open(self) -> Callable[[], object]:
        import numpy as np

        setup = self._setup
        side, batch = setup["size"], setup["batch"]
        x = np.random.default_rng(0).standard_normal((batch, 3, side, side), np.float32)
        if setup["engine"] == "rembg session":
            from rembg import new_session

            session = new_session("u2net_custom", model_path=setup["onnx"]).inner_session
            name = session.get_inputs()[0].name
            return lambda: session.run(None, {name: x})
        engine = self._engine = _open_engine(setup)
        self._device = engine.device
        if engine.config.in_channels != 3:
            x = np.repeat(x[:, :1], engine.config.in_channels, 1)
        if not self._device.startswith("cuda") or not hasattr(engine, "maps"):
            return lambda: engine(x)
        import torch

        on_device = torch.from_numpy(x).to(self._device)
        return lambda: engine.maps(on_device)

    def _time(self) -> float:
        """Measure one run in seconds."""
        if self._device.startswith("cuda"):
            import torch

            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            start.record()
            self._run()
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) / 1000
        begin = time.perf_counter()
        self._run()
        return time.perf_counter() - begin

    def turn(self) -> dict[str, object]:
        """Measure some runs one after the other, in seconds."""
        if self._expected < _TURN:
            self._time()  # other processes used the caches, and their threads may still be spinning
        times: list[float] = []
        while sum(times) < _TURN and len(times) < _MOST_RUNS:
            times.append(self._time())
        return {"times": times}

    def memory(self) -> dict[str, object]:
        """Return the peaks so far in MB: the process's resident set, and torch's allocations on a GPU."""
        found: dict[str, object] = {"peak_mb": peak_mb()}
        if self._device.startswith("cuda"):
            import torch

            found["gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
        return found

    def ceilings(self) -> dict[str, object]:
        """Measure the limits of the GPU: bytes per second of a copy, MACs per second of a matrix product.

        The product has the network's precision; in float32 it uses TF32 if convolutions may use it.
        """
        if not self._device.startswith("cuda"):
            return {}
        import torch

        fast = self._setup["precision"] == "fast"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
        dtype = torch.float16 if fast else torch.float32
        square = torch.randn(_SIDE, _SIDE, device=self._device, dtype=dtype)
        large = torch.empty(_SIDE, _SIDE, device=self._device)
        copy = torch.empty_like(large)
        self._run = lambda: copy.copy_(large)
        bandwidth = 2 * large.nbytes / min(self._time() for _ in range(10))
        self._run = lambda: square @ square
        macs = _SIDE**3 / min(self._time() for _ in range(10))
        return {"bytes_per_second": bandwidth, "macs_per_second": macs}

    def score(self) -> dict[str, object]:
        """Score the engine on the data set, with the input size that is timed; return the mean scores."""
        from ..evaluation import evaluate
        from ..inference import SaliencyPipeline

        engine, setup = self._engine, self._setup
        assert engine is not None  # rembg is not scored
        name: EngineName = "torch" if setup["engine"].startswith("torch") else setup["engine"]
        pipeline = SaliencyPipeline(
            setup["model"], engine=name, device=engine.device, precision=engine.precision
        )
        pipeline.engine = engine
        pipeline.config = pipeline.config.replace(input_size=(setup["size"], setup["size"]))
        (scores,) = evaluate(pipeline, setup["data"], workers=0).datasets.values()
        return dict(scores.scores)


def _open_engine(setup: dict[str, Any]) -> Engine:
    from ..engines import open_engine

    if setup["engine"] == "torch plain":
        return PlainTorch(setup["model"], setup["device"])
    compile = setup["engine"] == "torch compile"
    name: EngineName = "torch" if compile else setup["engine"]
    engine = open_engine(
        setup["model"], engine=name, device=setup["device"], precision=setup["precision"], compile=compile
    )
    if engine.precision != setup["precision"]:
        raise ValueError(f"{name} has no precision {setup['precision']!r} here, it runs {engine.precision!r}")
    return engine


class PlainTorch:
    """An `Engine` of the official architecture in eager mode, float32, without folding batch norm."""

    name = "torch plain"

    def __init__(self, source: str, device: str) -> None:
        from ..engines import find_device
        from ..model import U2Net

        model = U2Net.from_pretrained(source).eval()
        self.config = model.config
        self.device = str(find_device(device))
        self.precision: Precision = "exact"
        self._model = model.to(self.device).requires_grad_(False)

    def __call__(self, batch: Any, *, side_outputs: bool = False) -> tuple[Any, ...]:
        import torch

        maps = self.maps(torch.from_numpy(batch).to(self.device))
        return tuple(y.cpu().numpy() for y in (maps if side_outputs else maps[:1]))

    def maps(self, x: Any) -> tuple[Any, ...]:
        """Compute all seven maps of a batch that is on the device, as the official forward does."""
        import torch

        with torch.no_grad():
            return tuple(y.sigmoid() for y in self._model(x))


def peak_mb() -> float | None:
    """Read the peak resident set size of this process in MB; None if unknown."""
    try:
        # not getrusage: its peak includes the peak of the parent process
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith("VmHWM"))
    except OSError:  # not Linux
        return _rusage_mb(children=False)


def run_command(words: list[str]) -> dict[str, object]:
    """Run a command and return its seconds, exit status, peak RSS in MB and last line of output.

    The peak is the largest of all commands that this process has run, so each command needs a new process.
    """
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        status = subprocess.call(words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
        seconds = time.perf_counter() - begin
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    lines = [line.strip() for line in lines if any(map(str.isalnum, line))]
    last = lines[-1][:300] if lines else "it said nothing"
    return {"seconds": seconds, "status": status, "peak_mb": _rusage_mb(children=True), "last": last}


def _rusage_mb(*, children: bool) -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def serve() -> None:
    """Answer requests until standard input ends. If a request fails, the answer holds the error message."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # send the output of libraries to standard error
    runner: Runner | None = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, object]
        try:
            if command["do"] == "open":
                runner = Runner(command["setup"])
                answer = {}
            elif command["do"] == "run":
                answer = run_command(command["words"])
            else:
                answer = getattr(runner, command["do"])()
        except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as e:
            answer = {"error": " ".join(str(e).split())[:300] or type(e).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
