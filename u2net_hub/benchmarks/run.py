"""Measure speed, memory and accuracy of engines on this machine, and commands on folders of photos."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, get_args

from ..config import U2NetConfig
from ..engines import Precision
from . import worker
from .commands import Command, children_environment, count_photos, measure_commands
from .cost import layer_costs, total
from .machine import describe_machine, find_versions
from .plan import (
    BYTES,
    ENGINES,
    REMBG_SIZE,
    Weights,
    at_sizes,
    check_request,
    export_networks,
    find_peer,
    inspect_weights,
    plan_setups,
    supported_precisions,
)
from .results import REMBG, SCORES, BenchEngine, Benchmark, FolderTiming, Setup, Timing, label


def benchmark_engines(
    models: str | Sequence[str],
    *,
    engines: Sequence[BenchEngine] = ("torch", "onnxruntime", "openvino"),
    precisions: Sequence[Precision] = ("exact", "fast"),
    sizes: Sequence[int] = (320,),
    batches: Sequence[int] = (1,),
    device: str = "cpu",
    data: str | Path | None = None,
    photos: str | Path | None = None,
    peer_python: str | Path | None = None,
    rounds: int = 10,
    folder_rounds: int = 3,
    command: str = "",
    on_message: Callable[[str], object] | None = None,
) -> Benchmark:
    """Measure engines × precisions × sizes × batches, and rembg if it is installed, on this machine.

    Each configuration has its own process. Those of one network and size are opened and warmed up together;
    then each one in turn runs for about half a second, `rounds` times, so that a noisy minute affects all of
    them alike. A configuration that cannot run gets a row with the reason. The plain float32 forward is
    added, and, on a CPU at 320 px, rembg's session. OMP_NUM_THREADS is unset, so that each library chooses
    its number of threads.

    Args:
        models: Sources of weights. An .xml file that `export` made runs only in OpenVINO, and an int8 file
            only in int8.
        engines: Engines of `open_engine`; "torch compile" is torch with `compile=True`.
        precisions: Precisions of `open_engine`.
        sizes: The heights and widths of the network's input, in pixels.
        batches: The numbers of images that the network sees at once.
        device: The device, as in `open_engine`.
        data: A data set for measuring accuracy too.
        photos: A folder of photos, for measuring `u2net cutout` and `rembg p` from start to end, and their
            `--help`. Ours runs at 320 px, as rembg does, and at the weights' own size if that differs.
        peer_python: The Python that has rembg; None: U2NET_PEER_PYTHON in the environment, else this one.
        rounds: The number of turns of each configuration.
        folder_rounds: The number of runs of each command.
        command: The command line, for the record.
        on_message: A function to call with a line of text at each step.

    Raises:
        ValueError: An engine or a precision is unknown, a number is below 1, a source cannot be read, or
            there is no photo in the folder.
        FileNotFoundError: A source, a folder or the other Python does not exist.
        RuntimeError: The device is not available.
    """
    check_request(engines, ENGINES, "engine")
    check_request(precisions, get_args(Precision), "precision")
    for name, numbers in (("sizes", sizes), ("batches", batches), ("rounds", (rounds, folder_rounds))):
        if not numbers or min(numbers) < 1:
            raise ValueError(f"{name} is {list(numbers)}, expected whole numbers from 1")
    if data is not None and not Path(data).exists():
        raise FileNotFoundError(f"{data} does not exist, expected a data set")
    n_photos = 0 if photos is None else count_photos(Path(photos))
    if device == "auto":
        from ..engines import find_device

        device = str(find_device(device))
    say = on_message or (lambda line: None)
    peer = find_peer(peer_python)
    if peer is None:
        say("no rembg to compare with: pip install rembg, or name the Python that has it (--peer-python)")
    weights = [inspect_weights(name) for name in ([models] if isinstance(models, str) else models)]
    with tempfile.TemporaryDirectory(prefix="u2net-bench-") as folder:
        scratch = Path(folder)
        exported = {} if peer is None else export_networks(weights, scratch, say)
        setups = plan_setups(weights, engines, precisions, sizes, batches, device, peer=peer is not None)
        network = _measure(setups, exported, peer, data, rounds, say)
        configs = {each.name: each.config for each in weights}
        network = [_counted(timing, configs[timing.setup.model]) for timing in network]
        folders: tuple[FolderTiming, ...] = ()
        if photos is not None:
            commands = _commands(weights, precisions, device, exported, peer, Path(photos), n_photos, scratch)
            folders = measure_commands(commands, scratch, folder_rounds, say)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Benchmark(describe_machine(device), find_versions(peer), tuple(network), folders, command, date)


def _rembg_environment(onnx: Path) -> dict[str, str]:
    """Return the environment variables that make rembg load our file without a check of its hash."""
    return {"U2NET_HOME": str(onnx.parent), "MODEL_CHECKSUM_DISABLED": "1"}


# The network alone


class _Process:
    """A process that runs `worker`, and the measurements of its configuration so far."""

    def __init__(self, setup: Setup, onnx: Path | None, peer: Path | None, data: str | Path | None) -> None:
        self.timing = Timing(setup)
        self._process: subprocess.Popen[str] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        given = {**asdict(setup), "data": None if data is None else str(data)}
        command, more = [sys.executable, "-m", worker.__name__], {}
        if setup.engine == REMBG:
            if onnx is None or peer is None:
                self.timing = replace(self.timing, error="the weights could not be exported for rembg")
                return
            # -I keeps the folder of worker.py off the path; its modules would hide others of the same name.
            command = [str(peer), "-I", worker.__file__]
            more = _rembg_environment(onnx)
            given["onnx"] = str(onnx)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=children_environment(more),
            text=True,
            encoding="utf-8",
        )
        self.ask("open", setup=given)

    def ask(self, do: str, **more: object) -> dict[str, Any]:
        """Send a request and return the answer; {} after a failure, which the timing records."""
        process = self._process
        if process is None:
            return {}
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words(process)}
        if "error" in answer:
            self.timing = replace(self.timing, error=answer["error"])
            self.close()
            return {}
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._said.close()

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        status = process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"its process ended, exit status {status}: {lines[-1][:300] if lines else 'it said nothing'}"


def _measure(
    setups: Sequence[Setup],
    exported: Mapping[str, Path],
    peer: Path | None,
    data: str | Path | None,
    rounds: int,
    say: Callable[[str], object],
) -> list[Timing]:
    """Measure all configurations, and return the timings in the same order.

    The configurations of one network and size are open together and take turns.
    """
    groups: dict[tuple[str, int], list[Setup]] = {}
    for setup in setups:
        groups.setdefault((setup.network, setup.size), []).append(setup)
    done: dict[Setup, Timing] = {}
    for group in groups.values():
        with ExitStack() as stack:
            processes = []
            for setup in group:
                say(f"opening {label(setup)}")
                process = _Process(setup, exported.get(setup.model), peer, data)
                stack.callback(process.close)
                processes.append(process)
            _take_turns(processes, rounds, say)
            _finish(processes, data is not None, say)
            done |= {process.timing.setup: process.timing for process in processes}
    return [done[setup] for setup in setups]


def _take_turns(processes: Sequence[_Process], rounds: int, say: Callable[[str], object]) -> None:
    """Run each configuration once per round; every second round has the reverse order.

    Therefore no configuration always runs after the same other one.
    """
    for i in range(rounds):
        say(f"round {i + 1} of {rounds}")
        for process in processes if i % 2 == 0 else reversed(processes):
            times = process.ask("turn").get("times", ())
            process.timing = replace(process.timing, seconds=(*process.timing.seconds, *times))


def _finish(processes: Sequence[_Process], scores: bool, say: Callable[[str], object]) -> None:
    """Measure memory, limits and scores; the scores only once for all batch sizes of a configuration."""
    scored: dict[Setup, Mapping[str, float]] = {}
    for process in processes:
        memory, ceilings = process.ask("memory"), process.ask("ceilings")
        process.timing = replace(process.timing, **memory, ceilings=ceilings)
        setup = process.timing.setup
        alike = replace(setup, batch=1)
        if scores and process.timing.error is None and setup.engine != REMBG:
            if alike not in scored:
                say(f"scoring {label(setup)}")
                found = process.ask("score")
                scored[alike] = {key: found[key] for key in SCORES if key in found}
            process.timing = replace(process.timing, scores=scored[alike])
        process.close()


def _counted(timing: Timing, config: U2NetConfig) -> Timing:
    """Add the multiply-accumulates and bytes of the network to a timing."""
    setup = timing.setup
    costs = layer_costs(config, (setup.size, setup.size))
    macs, moved = total(costs, setup.batch, bytes_per_number=BYTES[setup.precision])
    return replace(timing, macs=macs, bytes_moved=moved)


# Folders


def _commands(
    models: Sequence[Weights],
    precisions: Sequence[Precision],
    device: str,
    exported: Mapping[str, Path],
    peer: Path | None,
    photos: Path,
    n: int,
    scratch: Path,
) -> list[Command]:
    ours: tuple[str, ...] = (sys.executable, "-m", "u2net_hub")
    theirs: tuple[str, ...] = ()
    commands = [_command(FolderTiming("u2net --help"), (*ours, "--help"))]
    if peer is not None:
        theirs = (shutil.which("rembg", path=str(peer.parent)) or "rembg",)
        commands.append(_command(FolderTiming("rembg --help"), (*theirs, "--help")))
    for i, weights in enumerate(models):
        row = FolderTiming("", weights.name, weights.network, photos=n)
        if (onnx := exported.get(weights.name)) is not None:
            words = (*theirs, "p", "-m", onnx.stem, str(photos), "OUT")
            if onnx.stem == "u2net_custom":
                words += ("-x", json.dumps({"model_path": str(onnx)}))
            named = replace(row, name=f"rembg p -m {onnx.stem}", size=REMBG_SIZE)
            commands.append(_command(named, words, _rembg_environment(onnx)))
        for side, source in at_sizes(weights, scratch / f"model{i}"):
            for precision in supported_precisions(weights, precisions):
                words = (*ours, "cutout", str(photos), "--out", "OUT", "--model", source)
                words += ("--device", device, "--precision", precision)
                named = replace(row, name=f"u2net cutout --precision {precision}", size=side)
                commands.append(_command(named, words))
    return commands


def _command(row: FolderTiming, words: tuple[str, ...], env: Mapping[str, str] | None = None) -> Command:
    told = shlex.join([Path(words[0]).name, *words[1:]])  # no folder of this machine in a record
    return Command(replace(row, command=told), words, env or {})
