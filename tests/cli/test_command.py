"""The command as a user meets it: `u2net cutout` and `u2net mask`, their streams and exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from u2net_hub import Cleanup, SaliencyPipeline, U2Net, U2NetConfig, cli
from u2net_hub.config import Stage
from u2net_hub.inference import watching

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of random weights, as a folder: what it finds does not matter here."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    U2Net(U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32), minmax="always")).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def u2net(weights: Path) -> Callable[..., Result]:
    """Runs a verb with that network; an expected error is raised, as `main` gets to see it."""

    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        line = [*map(str, arguments), "--model", str(weights), "--device", "cpu"]
        return CliRunner().invoke(cli.app, line, input=stdin, catch_exceptions=False)

    return run


def photo(path: Path, size: tuple[int, int] = (24, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_cutout_makes_what_the_pipeline_makes(
    u2net: Callable[..., Result], weights: Path, tmp_path: Path
) -> None:
    source = photo(tmp_path / "in/b/a.png")
    done = u2net("cutout", tmp_path / "in", "--out", tmp_path / "out")
    assert done.exit_code == 0
    expected = SaliencyPipeline.from_pretrained(weights, device="cpu")(source).cutout()
    assert np.array_equal(np.asarray(opened(tmp_path / "out/b/a.png")), np.asarray(expected))


def test_mask_makes_what_the_pipeline_makes(
    u2net: Callable[..., Result], weights: Path, tmp_path: Path
) -> None:
    source = photo(tmp_path / "a.png")
    u2net("mask", source, "--out", tmp_path / "soft.png")
    u2net("mask", source, "--out", tmp_path / "hard.png", "--threshold", 0.5)
    result = SaliencyPipeline.from_pretrained(weights, device="cpu")(source)
    assert np.array_equal(np.asarray(opened(tmp_path / "soft.png")), np.asarray(result.mask(None)))
    assert np.array_equal(np.asarray(opened(tmp_path / "hard.png")), np.asarray(result.mask(0.5)))


@pytest.mark.parametrize("verb", ["mask", "cutout"])
def test_masks_are_cleaned_on_request(
    u2net: Callable[..., Result], weights: Path, tmp_path: Path, verb: str
) -> None:
    source = photo(tmp_path / "a.png", (60, 40))
    u2net(verb, source, "--out", tmp_path / "b.png", "--largest-part", "--fill-holes", "--grow", -2)
    result = SaliencyPipeline.from_pretrained(weights, device="cpu")(source)
    make = {"mask": lambda **how: result.mask(None, **how), "cutout": result.cutout}[verb]
    expected = make(cleanup=Cleanup(largest_part=True, fill_holes=True, grow=-2))
    assert np.array_equal(np.asarray(opened(tmp_path / "b.png")), np.asarray(expected))
    assert not np.array_equal(np.asarray(expected), np.asarray(make()))


@pytest.mark.parametrize(
    "words", [["in"], ["in", "in", "--out", "out"], ["in", "--out", "-"], ["-", "--out", "out"]]
)
def test_watching_takes_two_folders(u2net: Callable[..., Result], words: list[str]) -> None:
    with pytest.raises(ValueError, match="--watch takes one folder, and needs another folder as --out"):
        u2net("cutout", "--watch", *words)


def test_a_watch_reports_until_it_is_terminated(
    u2net: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_text("text")
    looks = []

    def wait(self: threading.Event, timeout: float | None = None) -> bool:
        looks.append(timeout)
        if len(looks) == 3:
            signal.raise_signal(signal.SIGTERM)
        return False

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(watching, "Event", type("Event", (threading.Event,), {"wait": wait}))
    done = u2net("cutout", "--watch", tmp_path / "in", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 143
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    statuses = {Path(each["source"]).name: each["status"] for each in reports}
    assert statuses == {"a.png": "written", "b.png": "failed"}
    bad, summary = done.stderr.splitlines()
    assert "b.png is not a picture" in bad
    assert re.match("u2net: (1 written, 1 failed|1 failed, 1 written) on cpu", summary)
    assert tree(tmp_path / "out") == [".u2net-cutout.jsonl", "a.png"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_ends_a_watch_as_it_ends_a_run(
    u2net: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in/a.png")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "Event", type("Event", (threading.Event,), {"wait": interrupted}))
    done = u2net("mask", "--watch", tmp_path / "in", "--out", tmp_path / "out")
    assert done.exit_code == 130
    assert "Traceback" not in done.stderr


def test_success_is_silent_in_a_pipe(u2net: Callable[..., Result], tmp_path: Path) -> None:
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/b.png")
    done = u2net("cutout", tmp_path / "in", "--out", tmp_path / "out")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_bad_file_makes_exit_code_1_and_a_summary(u2net: Callable[..., Result], tmp_path: Path) -> None:
    photo(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_text("text")
    (tmp_path / "in/c\nd.png").write_text("")
    done = u2net("mask", tmp_path / "in", "--out", tmp_path / "out")
    assert done.exit_code == 1
    bad, odd, summary = done.stderr.splitlines()
    assert "b.png is not a picture" in bad
    assert r"c\nd.png is empty" in odd
    assert re.fullmatch(r"u2net: 1 written, 2 failed on cpu, (torch|onnxruntime|openvino), exact", summary)
    assert tree(tmp_path / "out") == ["a.png"]


def test_json_reports_on_every_file(u2net: Callable[..., Result], tmp_path: Path) -> None:
    photo(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_text("text")
    done = u2net("mask", tmp_path / "in", "--out", tmp_path / "out", "--json")
    report = json.loads(done.stdout)
    assert (report["written"], report["skipped"], report["failed"]) == (1, 0, 1)
    assert (report["device"], report["precision"]) == ("cpu", "exact")
    assert report["engine"] in ("torch", "onnxruntime", "openvino")
    good, bad = report["files"]
    assert (good["source"], good["status"]) == (str(tmp_path / "in/a.png"), "written")
    assert (good["target"], good["size"]) == (str(tmp_path / "out/a.png"), [16, 24])
    assert 0 <= good["confidence"] <= 1
    assert "not a picture" in bad["error"]


def test_standard_input_goes_to_standard_output(u2net: Callable[..., Result], tmp_path: Path) -> None:
    done = u2net("cutout", "-", stdin=photo(tmp_path / "a.png").read_bytes())
    assert done.exit_code == 0
    assert Image.open(io.BytesIO(done.stdout_bytes)).mode == "RGBA"


def test_empty_standard_input_is_a_clear_error(u2net: Callable[..., Result]) -> None:
    done = u2net("cutout", "-", stdin=b"")
    assert done.exit_code == 1
    assert "standard input is empty (0 bytes)" in done.stderr


def test_a_picture_and_a_report_do_not_share_standard_output(u2net: Callable[..., Result]) -> None:
    with pytest.raises(ValueError, match="would share standard output"):
        u2net("cutout", "-", "--json", stdin=b"")


def test_every_option_of_cutout_reaches_the_files(u2net: Callable[..., Result], tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    line = ("cutout", source, "--out", tmp_path / "out", "--format", "webp", "--background", "blur", "--crop")
    more = ("--threshold", 0.5, "--minmax", "always", "--batch-size", 2)
    assert u2net(*line, *more).exit_code == 0
    picture = opened(tmp_path / "out/a.webp")
    assert (picture.format, picture.mode) == ("WEBP", "RGB")


def test_results_are_kept_overwritten_or_skipped(u2net: Callable[..., Result], tmp_path: Path) -> None:
    line = ("mask", photo(tmp_path / "a.jpg"), "--out", tmp_path / "a.png")
    (tmp_path / "a.png").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        u2net(*line)
    assert u2net(*line, "--skip-existing").exit_code == 0
    assert (tmp_path / "a.png").read_text() == "mine"
    assert u2net(*line, "--overwrite").exit_code == 0
    assert opened(tmp_path / "a.png").mode == "L"


def test_overwriting_and_skipping_exclude_each_other(u2net: Callable[..., Result], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        u2net("mask", photo(tmp_path / "a.jpg"), "--overwrite", "--skip-existing")


def test_an_unknown_class_is_refused(u2net: Callable[..., Result], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the network has one output"):
        u2net("mask", photo(tmp_path / "a.jpg"), "--class", "hair")


@pytest.mark.parametrize(
    "option", [("--format", "gif"), ("--threshold", "2"), ("--batch-size", "0"), ("--minmax", "no")]
)
def test_an_option_out_of_range_is_a_usage_error(
    option: tuple[str, str], u2net: Callable[..., Result], tmp_path: Path
) -> None:
    assert u2net("mask", photo(tmp_path / "a.jpg"), *option).exit_code == 2


def test_an_expected_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["u2net", "mask", "a.jpg", "--model", str(tmp_path / "no.pth")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["cutout", "mask"])
def test_help_names_every_option(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = CliRunner().invoke(cli.app, [verb, "--help"]).stdout
    options = "--out --model --format --threshold --crop --class --minmax --device --batch-size --overwrite"
    for option in f"{options} --skip-existing --json".split():
        assert option in text
    assert ("--background" in text) == (verb == "cutout")


def test_the_shell_can_complete_verbs() -> None:
    environment = {
        **os.environ,
        "_U2NET_COMPLETE": "complete_bash",
        "COMP_WORDS": "u2net cu",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv = ['u2net']; from u2net_hub.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["cutout"]


def test_help_imports_neither_torch_nor_gradio() -> None:
    code = (
        "import sys; from u2net_hub.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(int(bool({'torch', 'gradio', 'numpy', 'PIL'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_ctrl_c_stops_the_command_and_leaves_whole_files_only(weights: Path, tmp_path: Path) -> None:
    source = photo(tmp_path / "in/0000.png", (160, 120))
    for i in range(1, 2000):
        os.link(source, tmp_path / f"in/{i:04}.png")
    out = tmp_path / "out"
    code = "from u2net_hub.cli import main; main()"
    line = [
        sys.executable,
        "-c",
        code,
        "cutout",
        str(tmp_path / "in"),
        "--out",
        str(out),
        "--model",
        str(weights),
    ]
    with subprocess.Popen(
        [*line, "--device", "cpu"],
        stderr=subprocess.PIPE,
        # a shell's background job, as CI may be, hands down an ignored SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not (out.is_dir() and any(out.glob("*.png"))):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)  # a loop without rest takes the command's core
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in error
    made = tree(out)
    assert 0 < len(made) < 2000
    assert all(name.endswith(".png") and not name.startswith(".") for name in made)
    for name in made:
        opened(out / name)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_engine_and_precision_are_those_asked_for(
    tiny: Callable[[int], U2Net], tmp_path: Path, engine: str
) -> None:
    network = tiny(0)
    network.config = network.config.replace(input_size=(40, 40))  # the other engines need 33 px
    source, model = photo(tmp_path / "a.png"), network.save_pretrained(tmp_path / "model")
    words = ["mask", source, "--engine", engine, "--precision", "exact", "--device", "cpu", "--json"]
    line = [*map(str, words), "--model", str(model)]
    report = json.loads(CliRunner().invoke(cli.app, line, catch_exceptions=False).stdout)
    assert (report["engine"], report["precision"]) == (engine, "exact")
