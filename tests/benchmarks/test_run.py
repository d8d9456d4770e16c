"""The benchmark: its figures by hand, its order, its record, and a run on a tiny network."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from u2net_hub import U2Net, U2NetConfig, benchmark_engines, cli
from u2net_hub.benchmarks import (
    commands as commands_module,
    machine as machine_module,
    plan as plan_module,
    run as run_module,
)
from u2net_hub.benchmarks.commands import Command, count_photos, measure_commands
from u2net_hub.benchmarks.plan import Weights, find_peer, plan_setups
from u2net_hub.benchmarks.results import (
    PLAIN,
    REMBG,
    BenchEngine,
    Benchmark,
    FolderTiming,
    Setup,
    Timing,
    folder_speed_up,
    quartiles,
    shares,
    speed_up,
)
from u2net_hub.benchmarks.worker import Runner, run_command
from u2net_hub.config import Stage
from u2net_hub.engines.exporting import export
from u2net_hub.engines.openvino_engine import openvino_core

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
TINY = U2NetConfig(variant="custom", stages=STAGES, input_size=(48, 48))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    torch.manual_seed(0)
    U2Net(TINY).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two photos."""
    folder = tmp_path_factory.mktemp("pairs")
    for kind in ("im", "gt"):
        (folder / kind).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    mask = np.zeros((20, 24), np.uint8)
    mask[5:15, 5:15] = 255
    for name in ("a", "b"):
        Image.fromarray(pixels).save(folder / f"im/{name}.jpg")
        Image.fromarray(mask).save(folder / f"gt/{name}.png")
    return folder


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """A Python that has a rembg, which does what is done with the real one."""
    home = tmp_path / "peer"
    package = home / "modules/rembg"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os, onnxruntime\n"
        "class new_session:\n"
        "    def __init__(self, name, model_path):\n"
        "        assert os.path.dirname(model_path) == os.environ['U2NET_HOME'], model_path\n"
        "        assert 'OMP_NUM_THREADS' not in os.environ\n"
        "        self.inner_session = onnxruntime.InferenceSession(model_path)\n"
    )
    python = home / "python"
    python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={home}/modules exec {sys.executable} "$@"\n')
    command = home / "rembg"
    # "p -m u2net_custom PHOTOS OUT …"
    command.write_text('#!/bin/sh\n[ "$1" = p ] || exit 0\nfor f in "$4"/*; do cp "$f" "$5/"; done\n')
    for path in (python, command):
        path.chmod(0o755)
    return python


def setup(engine: BenchEngine = "openvino", **changes: object) -> Setup:
    return replace(Setup("u2netp", "u2netp", engine, "exact", 320, 1), **changes)  # type: ignore[arg-type]


def named(name: str, variant: str = "u2netp", kind: str = "safetensors", **more: bool) -> Weights:
    return Weights(name, U2NetConfig(variant=variant), kind, **more)


# Figures


def test_quartiles_are_those_of_a_count_by_hand() -> None:
    assert quartiles([5, 1, 4, 2, 3]) == (2, 3, 4)
    assert quartiles([1, 2]) == (1.25, 1.5, 1.75)
    assert quartiles([7]) == (7, 7, 7)


def test_images_per_second_are_those_of_the_median_batch() -> None:
    assert Timing(setup(batch=4), (0.1, 9.0, 0.2)).images_per_second == 20
    assert Timing(setup(), error="broken").images_per_second is None


def test_rembg_is_taken_at_its_batch_of_one() -> None:
    rembg = Timing(setup(REMBG), (0.1,))  # 10 images a second
    mine = Timing(setup(batch=8), (0.2,))  # 40
    assert speed_up(mine, [rembg, mine], REMBG) == pytest.approx(4)
    assert speed_up(rembg, [rembg, mine], REMBG) == 1


def test_the_plain_forward_is_taken_at_the_same_batch() -> None:
    plain = [Timing(setup(PLAIN, batch=1), (0.1,)), Timing(setup(PLAIN, batch=8), (0.4,))]
    assert speed_up(Timing(setup(batch=8), (0.2,)), plain, PLAIN) == pytest.approx(2)
    assert speed_up(Timing(setup(batch=2), (0.2,)), plain, PLAIN) is None


def test_a_file_in_int8_is_compared_with_weights_of_the_same_network() -> None:
    int8 = Timing(setup(model="q.xml", precision="int8"), (0.1,))
    other = Timing(setup(REMBG, network="u2net"), (9.0,))
    assert speed_up(int8, [other, Timing(setup(REMBG), (0.3,))], REMBG) == pytest.approx(3)


def test_the_same_weights_are_compared_before_others() -> None:
    others = [Timing(setup(REMBG, model="mine"), (9.0,)), Timing(setup(REMBG), (0.3,))]
    assert speed_up(Timing(setup(), (0.1,)), others, REMBG) == pytest.approx(3)


def test_what_failed_is_compared_with_nothing() -> None:
    failed = Timing(setup(REMBG), error="broken")
    assert speed_up(Timing(setup(), (0.1,)), [failed], REMBG) is None


def test_shares_of_the_ceilings_are_those_of_a_count_by_hand() -> None:
    ceilings = {"bytes_per_second": 1000.0, "macs_per_second": 4000.0}
    timing = Timing(setup(), (0.5,), macs=1000, bytes_moved=100, ceilings=ceilings)
    assert shares(timing) == {"bandwidth": 0.2, "arithmetic": 0.5}
    assert shares(replace(timing, ceilings={})) == {}


def test_commands_are_compared_with_rembgs_of_their_kind() -> None:
    rows = [
        FolderTiming("rembg --help", seconds=(1.0,)),
        FolderTiming("rembg p -m u2netp", "u2netp", "u2netp", seconds=(9.0, 10.0, 14.0)),
    ]
    ours = FolderTiming("u2net cutout --precision fast", "q.xml", "u2netp", seconds=(4.0,))
    assert folder_speed_up(ours, rows) == 2.5
    assert folder_speed_up(FolderTiming("u2net --help", seconds=(0.25,)), rows) == 4
    assert folder_speed_up(replace(ours, network="u2net"), rows) is None


# The plan


def test_every_configuration_comes_after_what_it_is_compared_with() -> None:
    setups = plan_setups(
        [named("u2netp")], ["torch", "openvino"], ["exact", "fast"], [320], [1, 8], peer=True
    )
    first = (setup(REMBG), setup(PLAIN), setup("torch"), setup("torch", precision="fast"))
    assert tuple(setups[:4]) == first
    assert setups[6] == setup(PLAIN, batch=8)
    assert len(setups) == 1 + 2 * (1 + 2 * 2)


@pytest.mark.parametrize(
    ("size", "device", "peer"), [(160, "cpu", True), (320, "cuda", True), (320, "cpu", False)]
)
def test_rembg_runs_at_320_px_on_a_cpu_where_it_is_installed(size: int, device: str, peer: bool) -> None:
    setups = plan_setups([named("u2netp")], ["torch"], ["exact"], [size], [1], device, peer=peer)
    assert REMBG not in [each.engine for each in setups]


def test_a_file_in_int8_runs_in_openvino_and_int8_alone() -> None:
    files = [named("q.xml", kind="xml", is_int8=True), named("f.xml", kind="xml")]
    setups = plan_setups(files, ["torch", "openvino"], ["exact", "int8"], [320], [1], peer=True)
    assert [(each.model, each.engine, each.precision) for each in setups] == [
        ("q.xml", "openvino", "int8"),
        ("f.xml", "openvino", "exact"),
    ]


def test_networks_are_told_apart_by_variant_or_by_source() -> None:
    assert named("some/folder", "u2net").network == "u2net"
    assert Weights("mine", TINY, "safetensors").network == "mine"


# Taking turns

RealProcess = run_module._Process


class Fake:
    """In the place of a process."""

    asked: list[str]
    alive = 0
    most = 0

    def __init__(self, setup: Setup, *others: object) -> None:
        self.timing = Timing(setup)
        Fake.alive += 1
        Fake.most = max(Fake.most, Fake.alive)

    def ask(self, do: str) -> dict[str, object]:
        Fake.asked.append(f"{do} {self.timing.setup.engine}")
        if do == "turn":
            return {"times": [0.5]}
        return {"s_measure": 0.9} if do == "score" else {}

    def close(self) -> None:
        Fake.alive = 0


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    Fake.asked, Fake.alive, Fake.most = [], 0, 0
    monkeypatch.setattr(run_module, "_Process", Fake)
    return Fake


def measure(*setups: Setup, data: str | None = None, rounds: int = 3) -> list[Timing]:
    return run_module._measure(setups, {}, None, data, rounds, lambda line: None)


def test_configurations_take_turns_there_and_back(fakes: type[Fake]) -> None:
    found = measure(setup(PLAIN), setup("torch"), setup("openvino"))
    turns = [line.removeprefix("turn ") for line in fakes.asked if line.startswith("turn")]
    there = [PLAIN, "torch", "openvino"]
    assert turns == there + there[::-1] + there
    assert [timing.seconds for timing in found] == [(0.5, 0.5, 0.5)] * 3


def test_only_one_network_at_one_size_is_open_at_a_time(fakes: type[Fake]) -> None:
    setups = [setup("torch"), setup("torch", size=160), setup("openvino"), setup("openvino", network="u2net")]
    assert [timing.setup for timing in measure(*setups)] == setups
    assert fakes.most == 2


def test_scores_are_counted_once_for_all_batches(fakes: type[Fake]) -> None:
    found = measure(setup("torch"), setup("torch", batch=8), setup(REMBG), data="pairs")
    assert [line for line in fakes.asked if line.startswith("score")] == ["score torch"]
    assert [dict(timing.scores) for timing in found] == [{"s_measure": 0.9}, {"s_measure": 0.9}, {}]


# Processes


def test_a_process_that_ends_is_a_row_with_its_reason() -> None:
    process = run_module._Process(setup(REMBG), Path("x.onnx"), Path(shutil.which("false") or ""), None)
    assert process.timing.error == "its process ended, exit status 1: it said nothing"
    assert process.ask("turn") == {}
    process.close()


def test_weights_that_rembg_cannot_have_are_a_row_with_the_reason() -> None:
    process = run_module._Process(setup(REMBG), None, Path(sys.executable), None)
    assert process.timing.error == "the weights could not be exported for rembg"
    process.close()


def fields(weights: Path, **changes: object) -> dict[str, object]:
    given = {"model": str(weights), "engine": "torch", "precision": "exact", "size": 48, "batch": 2}
    return {**given, "device": "cpu", "data": None, **changes}


def test_a_turn_times_runs_of_the_engine(weights: Path) -> None:
    runner = Runner(fields(weights))
    times = runner.turn()["times"]
    assert isinstance(times, list)
    assert times
    assert min(times) > 0
    assert runner.memory()["peak_mb"] > 1  # type: ignore[operator]
    assert runner.ceilings() == {}  # a CPU's are not asked for


def test_scores_are_those_of_the_size_that_is_measured(weights: Path, pairs: Path) -> None:
    from u2net_hub import SaliencyPipeline, evaluate

    pipeline = SaliencyPipeline(weights, device="cpu", engine="torch")
    pipeline.config = pipeline.config.replace(input_size=(64, 64))
    expected = evaluate(pipeline, pairs, workers=0).datasets[pairs.name].scores["mae"]
    runner = Runner(fields(weights, engine=PLAIN, size=64, data=str(pairs)))
    assert runner.score()["mae"] == pytest.approx(expected, abs=1e-4)


def test_a_precision_that_an_engine_lacks_is_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="onnxruntime has no precision 'fast' here"):
        Runner(fields(weights, engine="onnxruntime", precision="fast"))


def test_a_command_is_run_to_its_end() -> None:
    done = run_command(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            "print('one'); print('two'); print('***', flush=True); raise SystemExit(3)",
        ]
    )
    assert (done["status"], done["last"]) == (3, "two")


# Commands on folders


def script(code: str) -> tuple[str, ...]:
    return (
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys, pathlib; out = pathlib.Path(sys.argv[1]); {code}",
        "OUT",
    )


def commands_measured(tmp_path: Path, *codes: str, photos: int = 2) -> tuple[FolderTiming, ...]:
    commands = [Command(FolderTiming(code, photos=photos), script(code)) for code in codes]
    return measure_commands(commands, tmp_path, 1, lambda line: None)


def test_commands_are_timed_after_a_first_run(tmp_path: Path) -> None:
    (row,) = commands_measured(tmp_path, "[(out / name).touch() for name in 'ab']")
    assert row.error is None
    assert len(row.seconds) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="it does not tell the peak")
def test_the_peak_of_a_command_is_its_own(tmp_path: Path) -> None:
    small, large = commands_measured(tmp_path, "1", "b'1' * 200_000_000", photos=0)
    assert small.peak_mb is not None
    assert large.peak_mb is not None
    assert small.peak_mb < 100
    assert 200 < large.peak_mb < 300


def test_a_command_that_leaves_photos_out_is_a_row_with_the_reason(tmp_path: Path) -> None:
    bad, worse, good = commands_measured(
        tmp_path,
        "(out / 'a').touch()",
        "sys.exit('no such thing\\n***')",
        "[(out / n).touch() for n in 'ab']",
    )
    assert bad.error == "exit status 0, 1 of 2 files written: it said nothing"
    assert worse.error == "exit status 1, 0 of 2 files written: no such thing"
    assert not bad.seconds
    assert good.seconds


def test_a_command_that_is_not_there_is_a_row_with_the_reason(tmp_path: Path) -> None:
    command = Command(FolderTiming("rembg --help"), (str(tmp_path / "rembg"), "--help"))
    (row,) = measure_commands([command], tmp_path, 1, lambda line: None)
    assert "No such file" in str(row.error)


def test_photos_are_counted_below_a_folder(pairs: Path, tmp_path: Path) -> None:
    assert count_photos(pairs / "im") == 2
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match="no picture in"):
        count_photos(tmp_path)


def planned(weights: Path, tmp_path: Path, peer: Path | None, onnx: Path | None) -> list[Command]:
    given = [Weights(str(weights), TINY, "safetensors")]
    exported = {} if onnx is None else {str(weights): onnx}
    return run_module._commands(given, ["fast"], "cpu", exported, peer, Path("photos"), 2, tmp_path)


def test_a_folder_goes_through_the_network_at_rembgs_size_and_at_its_own(
    weights: Path, tmp_path: Path
) -> None:
    rows = [command.row for command in planned(weights, tmp_path, None, None)]
    assert [(row.name, row.size) for row in rows] == [
        ("u2net --help", None),
        ("u2net cutout --precision fast", 320),
        ("u2net cutout --precision fast", 48),
    ]
    assert U2NetConfig.load(tmp_path / "model0/config.json").input_size == (320, 320)


def test_the_command_is_one_that_there_is(weights: Path, pairs: Path, tmp_path: Path) -> None:
    given = [Weights(str(weights), TINY, "safetensors")]
    *_, command = run_module._commands(given, ["fast"], "cpu", {}, None, pairs / "im", 2, tmp_path)
    line = [str(tmp_path / "out") if word == "OUT" else word for word in command.words]
    assert line[1:3] == ["-m", "u2net_hub"]
    assert CliRunner().invoke(cli.app, line[3:], catch_exceptions=False).exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == command.row.photos


@pytest.mark.parametrize("name", ["u2netp", "u2net_custom"])
def test_rembg_gets_the_same_weights(name: str, weights: Path, tmp_path: Path, peer: Path) -> None:
    onnx = tmp_path / f"{name}.onnx"
    (command,) = [c for c in planned(weights, tmp_path, peer, onnx) if c.row.name.startswith("rembg p")]
    extras = ("-x", json.dumps({"model_path": str(onnx)})) if name == "u2net_custom" else ()
    assert command.words == (str(peer.with_name("rembg")), "p", "-m", name, "photos", "OUT", *extras)
    assert command.env["U2NET_HOME"] == str(tmp_path)
    assert (command.row.size, command.row.photos) == (320, 2)


# The record


@pytest.fixture
def record() -> Benchmark:
    network = (
        Timing(setup(REMBG), (0.1, 0.1), peak_mb=100.0),
        Timing(
            setup(precision="fast"), (0.05, 0.04, 0.06), 200.0, None, {"s_measure": 0.9, "mae": 0.05}, 7, 8
        ),
        Timing(setup("torch"), error="no torch"),
    )
    folders = (
        FolderTiming("rembg p -m u2netp", "u2netp", "u2netp", 320, "rembg p …", 5, (10.0,), 300.0),
        FolderTiming("u2net cutout --precision fast", "u2netp", "u2netp", 320, "u2net …", 5, (4.0,)),
    )
    return Benchmark(
        {"cpu": "Some 3000", "cores": 2}, {"torch": "2.8"}, network, folders, "u2net bench", "2026"
    )


def cells(table: str, first: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_is_saved_is_loaded(record: Benchmark, tmp_path: Path) -> None:
    written = record.save(tmp_path / "out")
    assert [path.name for path in written] == ["benchmark.json", "benchmark.md", "benchmark.png"]
    content = json.loads(written[0].read_text(encoding="utf-8"))
    assert Benchmark.from_dict(content) == record
    assert written[1].read_text(encoding="utf-8") == record.table() + "\n"
    with Image.open(written[2]) as picture:
        assert picture.format == "PNG"


def test_other_json_is_no_record() -> None:
    with pytest.raises(ValueError, match=r"no result of a benchmark"):
        Benchmark.from_dict({"datasets": {}})
    with pytest.raises(ValueError, match=r"no result of a benchmark"):
        Benchmark.from_dict({"network": [{"setup": {}, "seconds": []}], "folders": []})


def test_the_table_says_machine_speed_and_reasons(record: Benchmark) -> None:
    table = record.table()
    assert table.startswith("cpu Some 3000, cores 2, torch 2.8\n")
    heads = cells(table, "model")
    fast, failed = (
        dict(zip(heads, cells(table, f"u2netp | {engine}"), strict=True)) for engine in ("openvino", "torch")
    )
    assert fast == {
        "model": "u2netp",
        "engine": "openvino",
        "precision": "fast",
        "px": "320",
        "batch": "1",
        "ms": "50.0",
        "quartiles": "45.0–55.0",
        "images/s": "20.00",
        "× rembg": "2.00",
        "peak MB": "200",
        "S": "0.9000",
        "MAE": "0.0500",
        "reason": "",
    }
    assert (failed["reason"], failed["ms"]) == ("no torch", "")


def test_the_table_says_how_long_commands_took(record: Benchmark) -> None:
    table = record.table()
    ours = dict(zip(cells(table, "command"), cells(table, "u2net cutout"), strict=True))
    assert (ours["s"], ours["photos/s"], ours["× rembg"], ours["photos"]) == ("4.00", "1.25", "2.50", "5")


def test_a_benchmark_without_anything_has_a_table_and_a_plot(tmp_path: Path) -> None:
    empty = Benchmark({}, {}, (Timing(setup(), error="broken"),))
    assert "broken" in empty.table()
    assert len(empty.save(tmp_path)) == 3


def test_the_machine_says_what_it_is() -> None:
    machine = machine_module.describe_machine("cpu")
    assert machine["cpu"]
    assert machine["cores"]
    assert "torch" in machine_module.find_versions(None)


# The whole


def test_what_cannot_be_measured_is_refused_before_work_starts(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown engine 'tensorflow'"):
        benchmark_engines("u2netp", engines=["tensorflow"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="unknown precision 'half'"):
        benchmark_engines("u2netp", precisions=["half"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"batches is \[0\]"):
        benchmark_engines("u2netp", batches=[0])
    with pytest.raises(ValueError, match="no picture"):
        benchmark_engines("u2netp", photos=tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a data set"):
        benchmark_engines("u2netp", data=tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        benchmark_engines(str(tmp_path / "nothing"))


def test_a_peer_is_found_where_it_is_named(monkeypatch: pytest.MonkeyPatch, peer: Path) -> None:
    monkeypatch.delenv("U2NET_PEER_PYTHON", raising=False)
    monkeypatch.setattr(plan_module, "find_spec", lambda name: None)
    assert find_peer() is None
    monkeypatch.setenv("U2NET_PEER_PYTHON", str(peer))
    assert find_peer() == peer
    with pytest.raises(FileNotFoundError, match="no Python that can be run"):
        find_peer("/nothing/python")


def test_children_choose_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS" not in commands_module.children_environment({"A": "b"})


def test_an_exported_graph_is_inspected(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = export(weights, tmp_path / "tiny.xml")
    assert plan_module.inspect_weights(str(path)) == Weights(str(path), TINY, "xml", is_int8=False)


def test_an_exported_graph_in_int8_is_known(weights: Path, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    from openvino import opset13

    model = openvino_core().read_model(export(weights, tmp_path / "tiny.xml"))
    read = model.inputs[0]
    bounds = [np.float32(bound) for bound in (-3, 3, -3, 3)]
    readers = read.get_target_inputs()
    quantised = opset13.fake_quantize(read, *bounds, levels=256)
    for reader in readers:
        reader.replace_source_output(quantised.output(0))
    path = tmp_path / "int8.xml"
    ov.save_model(model, path, compress_to_fp16=False)
    assert plan_module.inspect_weights(str(path)).is_int8


@pytest.fixture
def bench(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.delenv("U2NET_PEER_PYTHON", raising=False)
    monkeypatch.setattr(plan_module, "find_spec", lambda name: None)

    def run(*arguments: object) -> Result:
        line = ["bench", "--model", str(weights), "--rounds", "1", "--folder-rounds", "1"]
        line += ["--engine", "onnxruntime", *map(str, arguments)]
        return CliRunner().invoke(cli.app, line, catch_exceptions=False)

    return run


def test_bench_measures_what_runs_and_says_why_the_rest_does_not(
    bench: Callable[..., Result], pairs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    done = bench("--size", 48, "--batch", 2, "--data", pairs, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0
    found = Benchmark.from_dict(json.loads(done.stdout))
    plain, exact, fast = found.network
    assert [t.setup.engine for t in found.network] == [PLAIN, "onnxruntime", "onnxruntime"]
    assert plain.seconds
    assert exact.seconds
    assert exact.scores["s_measure"] == pytest.approx(plain.scores["s_measure"], abs=1e-3)
    assert exact.macs
    assert "has no precision 'fast' here" in str(fast.error)
    assert "no rembg to compare with" in done.stderr
    assert "round 1 of 1" in done.stderr
    assert Benchmark.from_dict(json.loads((tmp_path / "out/benchmark.json").read_text())) == found


def test_bench_measures_rembg_too(
    bench: Callable[..., Result],
    peer: Path,
    weights: Path,
    fakes: type[Fake],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")

    def rembg_alone(setup: Setup, *others: Any) -> object:
        return RealProcess(setup, *others) if setup.engine == REMBG else fakes(setup)

    monkeypatch.setattr(run_module, "_Process", rembg_alone)
    done = bench("--precision", "exact", "--peer-python", peer)
    heads = cells(done.stdout, "model")
    row = dict(zip(heads, cells(done.stdout, f"{weights.name:6}| rembg"), strict=True))
    assert row["× rembg"] == "1.00"
    assert float(row["ms"]) > 0
    assert {line for line in fakes.asked if "turn" in line} == {f"turn {PLAIN}", "turn onnxruntime"}


def test_bench_keeps_what_is_there(bench: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "benchmark.md").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        bench("--out", tmp_path)
    assert (tmp_path / "benchmark.md").read_text() == "mine"
