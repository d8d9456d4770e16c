"""A watched folder: whole files only, none twice, none lost, whatever stops the program."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from u2net_hub import Cleanup, SaliencyPipeline, U2Net, U2NetConfig
from u2net_hub.config import Stage
from u2net_hub.inference import FileReport, folders, watch_files, watching

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32), minmax="always")
JOURNAL = ".u2net-mask.jsonl"


@pytest.fixture(scope="module")
def tiny() -> SaliencyPipeline:
    """A pipeline around a network of random weights: what it finds does not matter here."""
    torch.manual_seed(0)
    return SaliencyPipeline(U2Net(CONFIG), device="cpu", engine="torch", batch_size=3)


class Looks(threading.Event):
    """Ends a watch after a number of looks, does something after each, and takes no time."""

    def __init__(self, n: int, after: dict[int, Callable[[], object]] | None = None) -> None:
        super().__init__()
        self.n, self.after, self.done = n, after or {}, 0

    def wait(self, timeout: float | None = None) -> bool:
        self.done += 1
        self.after.get(self.done, bool)()
        if self.done >= self.n:
            self.set()
        return self.is_set()


@pytest.fixture
def watch(tiny: SaliencyPipeline, tmp_path: Path) -> Callable[..., list[FileReport]]:
    """Watches `in` for some looks, with masks going to `out`, and returns the reports."""
    (tmp_path / "in").mkdir()

    def run(
        looks: int = 3, after: dict[int, Callable[[], object]] | None = None, **settings: object
    ) -> list[FileReport]:
        reports: list[FileReport] = []
        stop = Looks(looks, after)
        arguments: dict[str, object] = {"kind": "mask", "on_file": reports.append, **settings}
        out = arguments.pop("out", tmp_path / "out")
        watch_files(tiny, tmp_path / "in", out, stop=stop, **arguments)  # type: ignore[arg-type]
        return reports

    return run


def photo(path: Path, size: tuple[int, int] = (24, 16), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def tree(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(str(path) for path in found if not path.name.startswith("."))


def said(reports: list[FileReport]) -> list[tuple[str, str]]:
    return [(Path(report.source).name, report.status) for report in reports]


# ---- what is taken ---------------------------------------------------------------------------------------


def test_photos_that_are_there_and_those_that_come_are_done_once(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    photo(tmp_path / "in/a.jpg")
    reports = watch(6, {2: lambda: photo(tmp_path / "in/new/folder/b.png")})
    assert said(reports) == [("a.jpg", "written"), ("b.png", "written")]
    assert tree(tmp_path / "out") == ["a.png", "new/folder/b.png"]


def test_the_output_is_that_of_the_pipeline(
    watch: Callable[..., list[FileReport]], tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    source = photo(tmp_path / "in/a.png")
    cleanup = Cleanup(fill_holes=True, grow=-1)
    watch(threshold=0.5, cleanup=cleanup)
    with Image.open(tmp_path / "out/a.png") as mask:
        assert np.array_equal(np.asarray(mask), np.asarray(tiny(source).mask(0.5, cleanup=cleanup)))


def test_a_file_that_grows_is_not_taken_before_it_rests(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    whole = photo(tmp_path / "whole.png").read_bytes()
    target = tmp_path / "in/a.png"

    def write(share: float) -> Callable[[], object]:
        return lambda: target.write_bytes(whole[: int(len(whole) * share)])

    reports = watch(4, {1: write(0.3), 2: write(0.6), 3: write(1)})
    assert reports == []
    assert said(watch(2)) == [("a.png", "written")]


def test_a_file_that_rests_too_long_is_reported_and_done_when_it_is_whole(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    whole = photo(tmp_path / "whole.png").read_bytes()
    target = tmp_path / "in/a.png"
    target.write_bytes(whole[:200])
    reports = watch(8, {5: lambda: target.write_bytes(whole)})
    assert said(reports) == [("a.png", "failed"), ("a.png", "written")]


def test_a_file_that_changes_while_it_is_read_gives_no_output_until_it_rests(
    watch: Callable[..., list[FileReport]],
    tiny: SaliencyPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = photo(tmp_path / "in/a.png")
    prepare = tiny.prepare
    reads = []

    def slow(*args: object, **kwargs: object) -> object:
        prepared = prepare(*args, **kwargs)  # type: ignore[arg-type]
        if not reads:
            photo(source, (30, 20))
            assert not (tmp_path / "out/a.png").exists()
        reads.append(1)
        return prepared

    monkeypatch.setattr(tiny, "prepare", slow)
    assert said(watch(6)) == [("a.png", "written")]
    assert len(reads) == 2
    with Image.open(tmp_path / "out/a.png") as mask:
        assert mask.size == (30, 20)


def test_a_file_that_is_renamed_into_the_folder_is_done(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    source = photo(tmp_path / "elsewhere/a.png")
    os.utime(source, (1, 1))
    reports = watch(5, {2: lambda: source.rename(tmp_path / "in/a.png")})
    assert said(reports) == [("a.png", "written")]


def test_hidden_and_other_files_are_left_alone(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    photo(tmp_path / "in/.a.jpg")
    photo(tmp_path / "in/.hidden/a.jpg")
    (tmp_path / "in/b.jpg.part").write_bytes(b"x")
    (tmp_path / "in/notes.txt").write_text("x")
    assert watch() == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_left_alone(watch: Callable[..., list[FileReport]], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in/pipe.jpg")  # to open it would wait forever
    (tmp_path / "in/link.jpg").symlink_to("pipe.jpg")
    (tmp_path / "in/zero.png").symlink_to("/dev/zero")
    photo(tmp_path / "in/a.png")
    assert [Path(report.source).name for report in watch()] == ["a.png"]


def test_the_output_folder_inside_is_no_input(watch: Callable[..., list[FileReport]], tmp_path: Path) -> None:
    photo(tmp_path / "in/a.png")
    assert said(watch(6, out=tmp_path / "in/out")) == [("a.png", "written")]
    assert tree(tmp_path / "in") == ["a.png", "out/a.png"]


@pytest.mark.parametrize("out", ["in", "."])
def test_an_output_folder_around_the_inputs_is_refused(
    watch: Callable[..., list[FileReport]], tmp_path: Path, out: str
) -> None:
    with pytest.raises(ValueError, match="would be taken for photos"):
        watch(out=tmp_path / out)


def test_a_link_that_leads_outputs_out_of_the_output_folder_is_refused(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    photo(tmp_path / "in/b/a.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b").symlink_to(tmp_path / "in/b")
    (report,) = watch(4)
    assert "leads out of the output folder" in str(report.error)
    assert tree(tmp_path / "in") == ["b/a.jpg"]


def test_folders_that_link_in_a_circle_are_watched_once(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    photo(tmp_path / "in/b/a.jpg")
    (tmp_path / "in/b/c").symlink_to(tmp_path / "in")
    assert said(watch(4)) == [("a.jpg", "written")]


def test_a_missing_folder_is_refused(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="is not a folder, expected one to watch"):
        watch_files(tiny, tmp_path / "no", tmp_path / "out")


def test_a_folder_that_goes_away_and_comes_back_is_watched_on(
    watch: Callable[..., list[FileReport]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo(tmp_path / "in/a.png")
    changes = {
        3: lambda: (tmp_path / "in").rename(tmp_path / "away"),
        6: lambda: (photo(tmp_path / "away/b.png"), (tmp_path / "away").rename(tmp_path / "in")),
    }
    assert said(watch(9, changes)) == [("a.png", "written"), ("b.png", "written")]
    assert caplog.text.count("is gone") == 1


# ---- failures --------------------------------------------------------------------------------------------


def test_a_broken_file_is_reported_once_and_tried_again_when_it_changes(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    broken = tmp_path / "in/a.png"
    broken.write_text("text")
    photo(tmp_path / "in/b.png")
    assert sorted(said(watch(6))) == [("a.png", "failed"), ("b.png", "written")]
    assert watch() == []  # a restart does not report it again
    photo(broken)
    assert said(watch()) == [("a.png", "written")]


def test_two_photos_that_share_an_output_are_not_mixed_up(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    os.utime(photo(tmp_path / "in/a.jpg"), (1, 1))
    photo(tmp_path / "in/a.png", (40, 40))
    first, second = sorted(watch(5), key=lambda report: report.status)
    assert said([second, first]) == [("a.jpg", "written"), ("a.png", "failed")]
    assert "would share the output" in str(first.error)
    photo(tmp_path / "in/a.webp")
    (later,) = watch()  # after a restart
    assert "would share the output" in str(later.error)
    with Image.open(tmp_path / "out/a.png") as mask:
        assert mask.size == (24, 16)


def test_a_full_disk_is_reported_once_and_the_photo_tried_again(
    watch: Callable[..., list[FileReport]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in/a.png")
    write, clock = folders.write_file, [0.0]
    full = [True]

    def limited(*args: object, **kwargs: object) -> None:
        if full:
            raise OSError(28, "No space left on device")
        write(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(folders, "write_file", limited)
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock[0])
    hours = {4: lambda: clock.__setitem__(0, 100), 6: full.clear, 7: lambda: clock.__setitem__(0, 200)}
    assert said(watch(10, hours)) == [("a.png", "failed"), ("a.png", "written")]


def test_a_file_that_may_not_be_opened_is_tried_again(
    watch: Callable[..., list[FileReport]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in/a.png")
    monkeypatch.setattr(watching, "_can_open", lambda path: False)
    monkeypatch.setattr(watching, "_RETRY", -1)
    with monkeypatch.context() as patched:
        patched.setattr(folders, "FAILURES", (PermissionError,))
        patched.setattr(SaliencyPipeline, "prepare", _forbidden)
        assert said(watch(5)) == [("a.png", "failed")]
    assert said(watch()) == [("a.png", "written")]


def _forbidden(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


# ---- restarts --------------------------------------------------------------------------------------------


def test_a_restart_does_nothing_twice(watch: Callable[..., list[FileReport]], tmp_path: Path) -> None:
    photo(tmp_path / "in/a.png")
    watch()
    made = os.stat(tmp_path / "out/a.png")
    assert watch() == []
    assert os.stat(tmp_path / "out/a.png").st_ino == made.st_ino


def test_an_output_that_was_taken_away_is_not_made_again(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    photo(tmp_path / "in/a.png")
    watch()
    (tmp_path / "out/a.png").unlink()
    assert watch() == []


def test_photos_that_were_started_and_not_written_are_done_after_a_restart(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    for i in range(9):
        os.utime(photo(tmp_path / f"in/{i}.png"), (i, i))

    def interrupt(report: FileReport) -> None:
        reports.append(report)
        if len(reports) == 2:
            raise KeyboardInterrupt

    reports: list[FileReport] = []
    with pytest.raises(KeyboardInterrupt):
        watch(on_file=interrupt)
    made = set(tree(tmp_path / "out"))
    assert len(made) < 9
    again = watch()
    assert {f"{Path(report.source).stem}.png" for report in again} == set(tree(tmp_path / "out")) - made
    assert {report.status for report in again} == {"written"}
    assert len(tree(tmp_path / "out")) == 9
    assert watch() == []


def test_a_stop_ends_in_the_middle_of_many_photos(
    watch: Callable[..., list[FileReport]], tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    for i in range(30):
        photo(tmp_path / f"in/{i}.png")
    stop = Looks(99)
    watch_files(tiny, tmp_path / "in", tmp_path / "out", kind="mask", stop=stop, on_file=lambda _: stop.set())
    assert 0 < len(tree(tmp_path / "out")) < 30
    watch()
    assert len(tree(tmp_path / "out")) == 30


def test_an_output_of_somebody_else_is_kept_and_named(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    photo(tmp_path / "in/a.png")
    kept = photo(tmp_path / "out/a.png", (5, 5)).read_bytes()
    (report,) = watch(5)
    assert report.status == "skipped"
    assert "exists already" in str(report.error)
    assert (tmp_path / "out/a.png").read_bytes() == kept
    assert watch() == []


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_photo_that_changes_is_done_again(watch: Callable[..., list[FileReport]], tmp_path: Path) -> None:
    photo(tmp_path / "in/a.png")
    assert said(watch(6, {3: lambda: photo(tmp_path / "in/a.png", (50, 40))})) == [("a.png", "written")] * 2
    photo(tmp_path / "in/a.png", (60, 40))
    assert said(watch()) == [("a.png", "written")]
    assert size_of(tmp_path / "out/a.png") == (60, 40)
    assert watch() == []


@pytest.mark.parametrize("existing", ["refuse", "skip", "overwrite"])
def test_an_output_that_somebody_changed_is_replaced_only_on_request(
    watch: Callable[..., list[FileReport]], tmp_path: Path, existing: str
) -> None:
    photo(tmp_path / "in/a.png")
    watch()
    photo(tmp_path / "out/a.png", (7, 7))
    photo(tmp_path / "in/a.png", (50, 40))
    status, size = ("written", (50, 40)) if existing == "overwrite" else ("skipped", (7, 7))
    (report,) = watch(existing=existing)
    assert (report.status, size_of(tmp_path / "out/a.png")) == (status, size)
    assert (report.error is None) == (existing != "refuse")
    assert watch(existing=existing) == []


def test_a_photo_whose_second_version_was_only_started_is_done_after_a_restart(
    watch: Callable[..., list[FileReport]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in/a.png")
    watch()
    photo(tmp_path / "in/a.png", (50, 40))
    with monkeypatch.context() as patched:
        patched.setattr(watching, "run_jobs", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            watch()
    assert said(watch()) == [("a.png", "written")]
    assert size_of(tmp_path / "out/a.png") == (50, 40)


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_journal_that_ends_in_half_a_line_is_read_and_continued(
    watch: Callable[..., list[FileReport]], tmp_path: Path
) -> None:
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/b.png")
    watch()
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-9])
    photo(tmp_path / "in/c.png")
    assert said(watch()) == [("c.png", "written")]
    assert watch() == []


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        '{"a": 1}',
        "[1, 2, 3]",
        '["a", [1], "written", "b", null]',
        '["a", [1, Infinity], "written", "b", null]',
        '["a", [1, 2], "lost", "b", null]',
        "[" * 100_000,
    ],
    ids=range(8),
)
def test_lines_that_are_no_entries_are_ignored(
    watch: Callable[..., list[FileReport]], tmp_path: Path, line: str
) -> None:
    photo(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).write_text(line + "\n")
    assert said(watch()) == [("a.png", "written")]


def test_a_journal_does_not_grow_without_end(
    watch: Callable[..., list[FileReport]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in/a.png")
    watch()
    journal = tmp_path / "out" / JOURNAL
    last = journal.read_text().splitlines()[-1]
    journal.write_text((last + "\n") * 2000)
    watch()
    assert journal.read_text() == last + "\n"
    assert json.loads(last)[2] == "written"


def test_a_journal_that_cannot_be_written_waits(
    watch: Callable[..., list[FileReport]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    photo(tmp_path / "in/a.png")
    journal = tmp_path / "out" / JOURNAL
    journal.mkdir(parents=True)
    monkeypatch.setattr(watching.Journal, "__init__", _without_file)
    with caplog.at_level(logging.WARNING):
        reports = watch(6, {3: journal.rmdir, 4: lambda: photo(tmp_path / "in/b.png")})
    assert "cannot be written, and is tried again" in caplog.text
    assert said(reports) == [("a.png", "written"), ("b.png", "written")]
    monkeypatch.undo()
    assert watch() == []


def _without_file(self: watching.Journal, path: Path) -> None:
    self._path, self._waiting, self.entries = path, "", {}


def test_names_that_are_no_text_are_watched(watch: Callable[..., list[FileReport]], tmp_path: Path) -> None:
    photo(tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff\n.png"))
    assert [report.status for report in watch()] == ["written"]
    assert watch() == []
