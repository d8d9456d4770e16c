"""Folders in, folders out: nothing lost, overwritten or half-written."""

from __future__ import annotations

import errno
import os
import resource
import threading
import weakref
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from u2net_hub import Cleanup, SaliencyPipeline, U2Net, U2NetConfig, run_files
from u2net_hub.config import Stage
from u2net_hub.inference import folders, plan, stream
from u2net_hub.inference.folders import FileReport

STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32), minmax="always")


@pytest.fixture(scope="module")
def tiny() -> SaliencyPipeline:
    """A pipeline around a network of random weights: what it finds does not matter here."""
    torch.manual_seed(0)
    return SaliencyPipeline(U2Net(CONFIG), device="cpu", batch_size=3)


def photo(path: Path, size: tuple[int, int] = (24, 16), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def turned() -> Image.Exif:
    """Says that the picture has to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


# ---- what goes where -------------------------------------------------------------------------------------


def test_a_folder_keeps_its_tree(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    for name in ("a.jpg", "b/c.PNG", "b/d/e.v2.webp"):
        photo(tmp_path / "in" / name)
    summary = run_files(tiny, tmp_path / "in", tmp_path / "out")
    assert tree(tmp_path / "out") == ["a.png", "b/c.png", "b/d/e.v2.png"]
    assert summary.count("written") == 3


def test_every_output_is_that_of_its_own_input(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    for i in range(10):
        photo(tmp_path / "in" / f"{i}.png", (20 + i, 16))
    run_files(tiny, tmp_path / "in", tmp_path / "out")
    for i in range(10):
        source, cutout = (opened(tmp_path / folder / f"{i}.png") for folder in ("in", "out"))
        certain = np.asarray(cutout)[..., 3] % 255 == 0  # elsewhere the old background is taken out
        assert np.array_equal(np.asarray(cutout)[certain][:, :3], np.asarray(source)[certain])
        alone = np.asarray(tiny(tmp_path / "in" / f"{i}.png").cutout(), np.int16)
        assert np.abs(np.asarray(cutout, np.int16) - alone).max() <= 1  # a batch may round otherwise


def test_a_mask_is_8_bit_grey(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "out", kind="mask")
    mask = opened(tmp_path / "out/a.png")
    assert (mask.mode, mask.size) == ("L", (24, 16))
    assert len(mask.getcolors()) > 2


def test_a_mask_with_a_threshold_is_0_and_255(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "out", kind="mask", threshold=0.5)
    assert {value for _, value in opened(tmp_path / "out/a.png").getcolors()} == {0, 255}


def test_without_out_results_lie_beside_the_photos(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    photo(tmp_path / "in/b/a.jpg")
    run_files(tiny, tmp_path / "in", kind="mask")
    run_files(tiny, tmp_path / "in/b/a.jpg", kind="cutout")
    assert tree(tmp_path) == ["in/b/a.jpg", "in/b/a_cutout.png", "in/b/a_mask.png"]


def test_results_beside_the_photos_are_not_photos_of_the_next_run(
    tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "face_mask.jpg")  # no face.jpg: a photo
    run_files(tiny, tmp_path, kind="mask")
    summary = run_files(tiny, tmp_path, kind="cutout")
    assert [Path(file.source).name for file in summary.files] == ["a.jpg", "face_mask.jpg"]


def test_one_photo_goes_to_the_file_that_out_names(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "new/b.webp")
    assert opened(tmp_path / "new/b.webp").format == "WEBP"


def test_one_photo_goes_into_a_folder_with_a_dot_that_is_there(
    tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    (tmp_path / "v1.0").mkdir()
    run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "v1.0")
    assert tree(tmp_path / "v1.0") == ["a.png"]


def test_several_inputs_go_into_one_folder(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    inputs = [
        photo(tmp_path / "a.jpg"),
        photo(tmp_path / "x/b.jpg"),
        photo(tmp_path / "in/c/d.jpg").parents[1],
    ]
    run_files(tiny, inputs, tmp_path / "out.d")
    assert tree(tmp_path / "out.d") == ["a.png", "b.png", "c/d.png"]


def test_an_input_named_twice_is_done_once(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    path = photo(tmp_path / "in/a.jpg")
    assert len(run_files(tiny, [path.parent, path, path], tmp_path / "out").files) == 1


@pytest.mark.parametrize("format", ["png", "webp", "tiff"])
def test_a_cutout_keeps_colours_and_profile_in_every_format(
    format: str, tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = photo(tmp_path / "a.png", icc_profile=profile)
    run_files(tiny, source, tmp_path / "out", format=format)  # type: ignore[arg-type]
    cutout = opened(tmp_path / f"out/a.{format}")
    assert cutout.info["icc_profile"] == profile
    assert np.array_equal(np.asarray(cutout), np.asarray(tiny(source).cutout()))


def test_jpeg_takes_masks_and_pictures_on_a_background(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = photo(tmp_path / "a.png", icc_profile=profile)
    run_files(tiny, source, tmp_path / "m", kind="mask", format="jpg")
    run_files(tiny, source, tmp_path / "c.jpg", background="white")
    assert opened(tmp_path / "m/a.jpg").mode == "L"
    assert opened(tmp_path / "c.jpg").mode == "RGB"
    assert opened(tmp_path / "c.jpg").info["icc_profile"] == profile


@pytest.mark.parametrize("kind", ["mask", "cutout"])
def test_outputs_are_cleaned_and_cropped_to_what_is_left(
    kind: str, tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    source = photo(tmp_path / "a.png", (60, 40))
    cleanup = Cleanup(largest_part=True, fill_holes=True, grow=-2)
    run_files(tiny, source, tmp_path / "out", kind=kind, cleanup=cleanup, threshold=0.5, crop=True)  # type: ignore[arg-type]
    result = tiny(source)
    make, edges = (result.mask, "soft") if kind == "mask" else (result.cutout, "sharp")
    expected = make(0.5, cleanup=cleanup).crop(result.bbox(edges=edges, cleanup=cleanup))
    assert np.array_equal(np.asarray(opened(tmp_path / "out/a.png")), np.asarray(expected))


def test_jpeg_for_a_transparent_cutout_is_refused(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JPEG has no transparency"):
        run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "out", format="jpg")


def test_a_background_may_be_a_file(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    background = tmp_path / "beach.png"
    Image.new("RGB", (10, 10), (1, 2, 3)).save(background)
    source = photo(tmp_path / "a.png")
    run_files(tiny, source, tmp_path / "out", background=str(background))
    expected = tiny(source).over(opened(background))
    assert np.array_equal(np.asarray(opened(tmp_path / "out/a.png")), np.asarray(expected))


def test_crop_is_to_the_bounding_box(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    run_files(tiny, source, tmp_path / "out", crop=True)
    left, top, right, bottom = tiny(source).bbox() or (0, 0, 0, 0)
    assert opened(tmp_path / "out/a.png").size == (right - left, bottom - top)


def test_classes_give_a_palette_mask_and_one_class_a_grey_one(tmp_path: Path) -> None:
    config = CONFIG.replace(out_channels=3, activation="softmax", labels=("background", "shirt", "skirt"))
    parser = SaliencyPipeline(U2Net(config), device="cpu")
    source = photo(tmp_path / "a.png")
    run_files(parser, source, tmp_path / "all", kind="mask")
    run_files(parser, source, tmp_path / "one", kind="mask", label="skirt")
    assert opened(tmp_path / "all/a.png").mode == "P"
    assert opened(tmp_path / "one/a.png").mode == "L"


# ---- refused before work starts --------------------------------------------------------------------------


def test_two_inputs_for_one_output_are_refused(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    photo(tmp_path / "in/a.jpg")
    photo(tmp_path / "in/a.png")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png to .*a\.png"):
        run_files(tiny, tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_would_replace_an_input_is_refused(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    before = source.read_bytes()
    with pytest.raises(ValueError, match="would replace an input"):
        run_files(tiny, source, tmp_path, existing="overwrite")
    assert source.read_bytes() == before


def test_a_background_is_an_input_too(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    source, background = photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    with pytest.raises(ValueError, match="would replace an input"):
        run_files(tiny, source, background, background=str(background), existing="overwrite")


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_input_is_safe_behind_a_link_too(
    link: Callable[[Path, Path], None], tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    source = photo(tmp_path / "in/a.png")
    (tmp_path / "out").mkdir()
    link(source, tmp_path / "out/a.png")
    with pytest.raises(ValueError, match="would replace an input"):
        run_files(tiny, tmp_path / "in", tmp_path / "out", existing="overwrite")


def test_existing_outputs_are_refused(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    photo(tmp_path / "in/a.jpg")
    photo(tmp_path / "in/b.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"there already: .*b\.png"):
        run_files(tiny, tmp_path / "in", tmp_path / "out")
    assert tree(tmp_path / "out") == ["b.png"]


def test_existing_outputs_are_skipped_on_request(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    photo(tmp_path / "in/a.jpg")
    (tmp_path / "in/b.jpg").write_text("not even read")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.png").write_text("mine")
    summary = run_files(tiny, tmp_path / "in", tmp_path / "out", existing="skip")
    assert [file.status for file in summary.files] == ["written", "skipped"]
    assert (tmp_path / "out/b.png").read_text() == "mine"


def test_existing_outputs_are_overwritten_on_request(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_text("mine")
    run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "b.png", existing="overwrite")
    assert opened(tmp_path / "b.png").mode == "RGBA"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "matte"}, "kind is 'matte'"),
        ({"format": "gif"}, "unknown format 'gif', expected one of"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"existing": "merge"}, "existing is 'merge'"),
        ({"background": "no colour"}, "neither a colour"),
        ({"background": "#ff000080"}, "neither a colour"),
        ({"kind": "mask", "background": "red"}, "background is for kind 'cutout'"),
        ({"label": 1}, "one output"),
        ({"out": "b.gif"}, "unknown suffix"),
        ({"out": "b.png", "format": "webp"}, "not a name for the format 'webp'"),
    ],
)
def test_an_unknown_option_raises(
    options: dict[str, str],
    message: str,
    tiny: SaliencyPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        run_files(tiny, photo(tmp_path / "a.jpg"), **options)  # type: ignore[arg-type]
    assert tree(tmp_path) == ["a.jpg"]


def test_a_folder_without_pictures_raises(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"no picture in .* \(looked for \.jpg"):
        run_files(tiny, tmp_path)


def test_no_input_raises(tiny: SaliencyPipeline) -> None:
    with pytest.raises(ValueError, match="no input"):
        run_files(tiny, [])


def test_an_output_folder_inside_a_file_is_refused(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.jpg")
    with pytest.raises(NotADirectoryError, match="cannot be made"):
        run_files(tiny, source, source / "out")


def test_an_unwritable_folder_is_refused(
    tiny: SaliencyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # root may write anywhere, so the system's answer is put in its mouth
    monkeypatch.setattr(plan.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="cannot be written to"):
        run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "out")


# ---- what can go wrong on the way ------------------------------------------------------------------------


def test_a_bad_file_is_reported_and_the_rest_goes_on(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a.jpg", "c.jpg", "g.jpg"):
        photo(folder / name)
    whole = photo(folder / "b.jpg", (200, 200)).read_bytes()
    (folder / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "d.png").write_text("this is text")
    (folder / "e.png").write_bytes(b"")
    (folder / "f.png").symlink_to(folder / "nowhere.png")
    summary = run_files(tiny, [folder, tmp_path / "missing.jpg"], tmp_path / "out")
    assert tree(tmp_path / "out") == ["a.png", "c.png", "g.png"]
    failed = {Path(file.source).name: file.error or "" for file in summary.files if file.status == "failed"}
    reasons = {
        "b.jpg": "truncated",
        "d.png": "not a picture",
        "e.png": "empty",
        "f.png": "No such file",
        "missing.jpg": "No such file",
    }
    assert failed.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in failed[name]
        assert name in failed[name]


def test_reports_come_in_the_order_of_the_inputs(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    for i in range(9):
        photo(tmp_path / f"in/{i}.jpg", (600 if i == 0 else 20, 20))
    (tmp_path / "in/4.jpg").write_text("bad")
    seen = []

    def note(report: FileReport, total: int) -> None:
        seen.append((Path(report.source).name, total))

    run_files(tiny, tmp_path / "in", tmp_path / "out", on_file=note)
    assert seen == [(f"{i}.jpg", 9) for i in range(9)]


def test_a_report_says_what_was_found(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.jpg")
    (report,) = run_files(tiny, source, tmp_path / "out").files
    assert report.size == (16, 24)
    assert report.confidence == pytest.approx(tiny(source).confidence)
    assert report.found == tiny(source).found
    assert report.target == str(tmp_path / "out/a.png")


def test_a_map_of_nan_is_a_failed_photo_and_no_empty_picture(tmp_path: Path) -> None:
    network = U2Net(CONFIG)
    with torch.no_grad():
        network.outconv.bias.fill_(torch.nan)
    photos = [photo(tmp_path / "in" / name) for name in ("a.png", "b.png")]
    reports = run_files(
        SaliencyPipeline(network, device="cpu", engine="torch"), photos, tmp_path / "out"
    ).files
    assert [report.status for report in reports] == ["failed", "failed"]
    assert "b.png: the network's map holds NaN" in str(reports[1].error)
    assert not list((tmp_path / "out").rglob("*.png"))


def test_a_full_disk_fails_the_file_and_leaves_nothing(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    inputs = [photo(tmp_path / "small.png", (4, 4)), photo(tmp_path / "large.png", (300, 300))]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        summary = run_files(tiny, inputs, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.status for file in summary.files] == ["written", "failed"]
    assert summary.files[1].error == f"{tmp_path / 'out/large.png'}: {os.strerror(errno.EFBIG)}"
    assert tree(tmp_path / "out") == ["small.png"]


def test_a_picture_too_large_for_its_format_fails_alone(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    inputs = [photo(tmp_path / "a.png", (17000, 1)), photo(tmp_path / "b.png")]
    summary = run_files(tiny, inputs, tmp_path / "out", format="webp")
    assert [file.status for file in summary.files] == ["failed", "written"]
    assert "a.webp: " in (summary.files[0].error or "")
    assert tree(tmp_path / "out") == ["b.webp"]


@pytest.mark.parametrize("size", [(1, 1), (20, 20000), (20000, 20)])
def test_extreme_sizes_are_done(size: tuple[int, int], tiny: SaliencyPipeline, tmp_path: Path) -> None:
    run_files(tiny, photo(tmp_path / "a.png", size), tmp_path / "out")
    assert opened(tmp_path / "out/a.png").size == size


def test_ctrl_c_leaves_whole_files_only(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    for i in range(40):
        photo(tmp_path / f"in/{i:02}.png")

    def stop(report: FileReport, total: int) -> None:
        if report.source.endswith("09.png"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_files(tiny, tmp_path / "in", tmp_path / "out", on_file=stop)
    made = tree(tmp_path / "out")
    assert 10 <= len(made) < 40
    for name in made:
        opened(tmp_path / "out" / name)
    assert not [name for name in made if name.endswith(".tmp")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("u2net-files")]


@pytest.mark.parametrize("existing", ["overwrite", "skip", "refuse"])
def test_two_runs_at_once_into_one_folder_do_no_harm(
    existing: str, tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    for i in range(12):
        photo(tmp_path / f"in/{i:02}.png")
    ready = threading.Barrier(2)
    summaries = []

    def run() -> None:
        ready.wait()
        try:
            summaries.append(run_files(tiny, tmp_path / "in", tmp_path / "out", existing=existing))  # type: ignore[arg-type]
        except FileExistsError:  # the other was so quick that this one was refused
            assert existing == "refuse"

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tree(tmp_path / "out") == [f"{i:02}.png" for i in range(12)]
    for i in range(12):
        opened(tmp_path / f"out/{i:02}.png")
    written = sum(summary.count("written") for summary in summaries)
    assert written == 24 if existing == "overwrite" else written == 12


def test_an_output_that_appears_meanwhile_is_not_overwritten(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / "in" / name)
    tiny_batches = SaliencyPipeline(U2Net(CONFIG), device="cpu", batch_size=1)
    original = tiny_batches.engine

    class Intruder:
        config, name = original.config, original.name
        device, precision = original.device, original.precision

        def __call__(self, batch: np.ndarray, *, side_outputs: bool = False) -> tuple[np.ndarray, ...]:
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out/b.png").write_text("mine")
            return original(batch, side_outputs=side_outputs)

    tiny_batches.engine = Intruder()
    summary = run_files(tiny_batches, tmp_path / "in", tmp_path / "out")
    assert [file.status for file in summary.files] == ["written", "failed"]
    assert "was created by another program during the run" in (summary.files[1].error or "")
    assert (tmp_path / "out/b.png").read_text() == "mine"


def test_outputs_are_as_readable_as_other_new_files(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "out")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "out/a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_system_without_hard_links_is_written_to(
    tiny: SaliencyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(plan.os, "link", refuse)
    run_files(tiny, photo(tmp_path / "a.jpg"), tmp_path / "out")
    assert tree(tmp_path / "out") == ["a.png"]


# ---- odd names and odd trees -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["with space", "日本語 ñ 🦊", "new\nline", "-", "--out", "a;b&c'd\"e", "dot.", "x" * 240, "%d{}*?[a]"],
)
def test_unusual_names_are_kept(name: str, tiny: SaliencyPipeline, tmp_path: Path) -> None:
    photo(tmp_path / "in" / f"{name}.png")
    run_files(tiny, tmp_path / "in", tmp_path / "out")
    assert tree(tmp_path / "out") == [f"{name}.png"]


def test_a_name_that_is_no_unicode_is_kept(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    photo(tmp_path / "in/a.png").rename(tmp_path / "in" / f"{name}.png")
    run_files(tiny, tmp_path / "in", tmp_path / "out")
    assert tree(tmp_path / "out") == [f"{name}.png"]


def test_links_are_followed_and_loops_end(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    photo(tmp_path / "elsewhere/far.jpg")
    photo(tmp_path / "in/z/deep.jpg")
    (tmp_path / "in/a_link").symlink_to(tmp_path / "in/z")  # to a folder that is visited anyway
    (tmp_path / "in/outside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/z/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/self").symlink_to(tmp_path / "in/self")
    (tmp_path / "in/photo.jpg").symlink_to(tmp_path / "elsewhere/far.jpg")
    run_files(tiny, tmp_path / "in", tmp_path / "out")
    assert tree(tmp_path / "out") == ["outside/far.png", "photo.png", "z/deep.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_in_a_folder_are_left_out(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    photo(tmp_path / "in/a.jpg")
    os.mkfifo(tmp_path / "in/pipe.jpg")  # to open it would wait forever
    (tmp_path / "in/link.jpg").symlink_to("pipe.jpg")
    (tmp_path / "in/zero.png").symlink_to("/dev/zero")
    run_files(tiny, tmp_path / "in", tmp_path / "out")
    assert tree(tmp_path / "out") == ["a.png"]


def test_an_output_folder_inside_the_input_folder_holds_no_inputs(
    tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    photo(tmp_path / "a.jpg")
    run_files(tiny, tmp_path, tmp_path / "out")
    run_files(tiny, tmp_path, tmp_path / "out", existing="overwrite")
    assert tree(tmp_path) == ["a.jpg", "out/a.png"]


def test_hidden_files_and_folders_are_left_out(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    for name in ("a.jpg", "._a.jpg", ".thumbnails/a.jpg"):
        photo(tmp_path / "in" / name)
    run_files(tiny, tmp_path / "in", tmp_path / "out")
    assert tree(tmp_path / "out") == ["a.png"]


def test_a_pipe_in_a_folder_is_left_alone(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    photo(tmp_path / "in/a.jpg")
    os.mkfifo(tmp_path / "in/b.jpg")
    assert len(run_files(tiny, tmp_path / "in", tmp_path / "out").files) == 1


def test_inputs_are_left_as_they_are(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    for name in ("a.jpg", "b/c.png"):
        photo(tmp_path / "in" / name)
    before = {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.*")}
    run_files(tiny, tmp_path / "in", tmp_path / "out")
    run_files(tiny, tmp_path / "in", tmp_path / "out", existing="overwrite")
    assert {path: path.read_bytes() for path in (tmp_path / "in").rglob("*.*")} == before


def test_few_photos_are_in_memory_at_once(tmp_path: Path) -> None:
    pipeline = SaliencyPipeline(U2Net(CONFIG), device="cpu", batch_size=2)
    for i in range(60):
        photo(tmp_path / f"in/{i:02}.png")
    begun, most = 0, 0
    prepare = pipeline.prepare

    def counting(image: object, **options: object) -> object:
        nonlocal begun
        begun += 1
        return prepare(image, **options)  # type: ignore[arg-type]

    def finished(report: FileReport, total: int) -> None:
        nonlocal begun, most
        most = max(most, begun)
        begun -= 1

    pipeline.prepare = counting  # type: ignore[assignment,method-assign]
    run_files(pipeline, tmp_path / "in", tmp_path / "out", on_file=finished)
    # read ahead: a batch; in the network: a batch; to be written: one more than there are writers, at most 4
    assert most <= 2 + 2 + 5 + 1


def test_large_photos_wait_for_each_other_rather_than_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = SaliencyPipeline(U2Net(CONFIG), device="cpu", engine="torch", batch_size=8)
    for i in range(20):
        photo(tmp_path / f"in/{i:02}.png", (24, 16))
    monkeypatch.setattr(stream, "_PIXELS_PER_THREAD", 24 * 16)
    monkeypatch.setattr(plan.os, "cpu_count", lambda: 1)
    read: list[weakref.ref[Image.Image]] = []
    most = 0
    prepare = pipeline.prepare

    def counting(image: object, **options: object) -> object:
        nonlocal most
        prepared = prepare(image, **options)  # type: ignore[arg-type]
        read.append(weakref.ref(prepared.photo.rgb))
        most = max(most, sum(picture() is not None for picture in read))
        return prepared

    pipeline.prepare = counting  # type: ignore[assignment,method-assign]
    assert run_files(pipeline, tmp_path / "in", tmp_path / "out").count("written") == 20
    # one being read, one read, one in the network, one written, one done
    assert most <= 5


def test_a_mask_of_a_large_jpeg_has_the_photos_size(tiny: SaliencyPipeline, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.jpg", (1003, 701), exif=turned())
    run_files(tiny, source, tmp_path / "a.png", kind="mask")
    mask = opened(tmp_path / "a.png")
    assert mask.size == (701, 1003)
    whole = np.asarray(tiny(source).mask(None), np.float32)
    assert np.abs(np.asarray(mask, np.float32) - whole).mean() <= 4  # random weights amplify a resize


def test_a_mask_reads_a_large_jpeg_smaller_and_a_cutout_does_not(
    tiny: SaliencyPipeline, tmp_path: Path
) -> None:
    source = photo(tmp_path / "a.jpg", (1000, 700))
    assert tiny.prepare(source, map_only=True).photo.rgb.size == (125, 88)
    assert tiny.prepare(source).photo.rgb.size == (1000, 700)


# ---- standard input and output ---------------------------------------------------------------------------


class Standard:
    """Stands in for sys.stdin and sys.stdout, bytes only."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = BytesIO(data)

    def isatty(self) -> bool:
        return False


def test_standard_input_goes_to_standard_output(
    tiny: SaliencyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photo(tmp_path / "a.png")
    out = Standard()
    monkeypatch.setattr(folders.sys, "stdin", Standard(source.read_bytes()))
    monkeypatch.setattr(folders.sys, "stdout", out)
    (report,) = run_files(tiny, "-").files
    assert (report.source, report.target, report.status) == ("-", "-", "written")
    assert np.array_equal(np.asarray(Image.open(out.buffer)), np.asarray(tiny(source).cutout()))


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        (["-", "a.jpg"], None, "'-' stands for one picture"),
        (["a.jpg", "b.jpg"], "-", "'-' stands for one picture"),
        ("-", "folder", "has no name; give a file"),
        (".", "-", "is a folder, expected one picture"),
    ],
)
def test_standard_streams_carry_one_picture(
    inputs: str | list[str], out: str | None, message: str, tiny: SaliencyPipeline
) -> None:
    with pytest.raises(ValueError, match=message):
        run_files(tiny, inputs, out)


def test_pictures_are_not_thrown_at_a_terminal(
    tiny: SaliencyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Standard()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(folders.sys, "stdout", terminal)
    with pytest.raises(ValueError, match="standard output is a terminal"):
        run_files(tiny, "-")


def test_a_shrunken_disk_is_no_reason_to_lose_the_old_output(
    tiny: SaliencyPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photo(tmp_path / "a.jpg")
    run_files(tiny, source, tmp_path / "b.png")
    before = (tmp_path / "b.png").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "b.png"))

    monkeypatch.setattr(plan.os, "replace", full)
    (report,) = run_files(tiny, source, tmp_path / "b.png", existing="overwrite").files
    assert str(report.error).startswith(f"{tmp_path / 'b.png'}: No space left on device: free some space")
    assert (tmp_path / "b.png").read_bytes() == before
    assert tree(tmp_path) == ["a.jpg", "b.png"]
