"""What a run leaves to be read."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from u2net_hub.training.log import RunLog, history, read_metrics
from u2net_hub.training.plots import plot_run


def write(folder: Path, steps: range) -> None:
    with RunLog(folder, steps.start - 1) as log:
        for step in steps:
            log.add(step, {"epoch": step / 3, "loss": 1 / (step + 2), "lr": 0.1})
            log.add(step, {"val_mae": 0.1 + 1e-17 * step, "val_max_f": 0.5})


def test_floats_come_back_bit_by_bit(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    losses = [float(row["loss"]) for row in read_metrics(tmp_path / "metrics.csv") if row["loss"]]
    assert losses == [1 / 3, 1 / 4, 1 / 5]


def test_a_resumed_run_cuts_off_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    write(tmp_path, range(4, 6))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv") if row["loss"]] == list("12345")


def test_a_run_that_begins_anew_keeps_no_row_of_the_one_before(tmp_path: Path) -> None:
    for _ in range(2):  # killed before its first checkpoint, a run is begun again and validates its start
        with RunLog(tmp_path, 0) as log:
            log.add(0, {"val_mae": 0.5})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == ["0"]


def test_a_row_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3))
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "3,1.0,2")
    assert [row["step"] for row in read_metrics(path)] == ["1", "1", "2", "2"]
    write(tmp_path, range(3, 4))
    assert [row["step"] for row in read_metrics(path) if row["loss"]] == ["1", "2", "3"]


def test_curves_are_drawn_as_pictures(tmp_path: Path) -> None:
    write(tmp_path, range(1, 9))
    plot_run(tmp_path)
    for name in ("loss.png", "learning.png"):
        with Image.open(tmp_path / name) as picture:
            colours = picture.convert("RGB").getcolors(1 << 20)
            assert picture.width > 500
            assert len(colours) > 10  # a line, a grid, words


def test_the_history_holds_the_validations_with_their_hours(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        log.add(1, {"loss": 0.5, "seconds": 100.0})
        log.add(1, {"val_mae": 0.12345678, "val_max_f": 0.5, "seconds": 12345.0})
    # 12345 s are 3 h, 25 min and 45 s
    assert history(tmp_path) == [{"hours": 3.4292, "mae": 0.123457, "max_f": 0.5}]
