"""What the tabs of the demo do, without a browser."""

from __future__ import annotations

import re
import zipfile
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")

from gradio.exceptions import Error

from u2net_hub import SaliencyPipeline, U2Net
from u2net_hub.demo import batch as batch_module, events as events_module, models as models_module
from u2net_hub.demo.batch import safe_stem
from u2net_hub.demo.events import MAX_FILES, Tabs
from u2net_hub.demo.look import hex_colour
from u2net_hub.demo.models import Models
from u2net_hub.demo.pictures import difference, grey, heat

Tiny = Callable[[int], U2Net]
Send = Callable[..., dict[str, object]]
ROOT = Path(__file__).resolve().parents[2]
CAT = ROOT / "examples" / "chelsea.jpg"


@pytest.fixture(scope="module")
def models(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    small = [tiny(seed).save_pretrained(folder / name) for seed, name in ((0, "small"), (1, "other"))]
    return Models(["u2netp", *map(str, small)], device="cpu")


@pytest.fixture(scope="module")
def u2netp(remembering: Callable[..., SaliencyPipeline]) -> SaliencyPipeline:
    return remembering("u2netp")


@pytest.fixture
def tabs(models: Models, tmp_path: Path) -> Tabs:
    (tmp_path / "gradio").mkdir()
    return Tabs(models, tmp_path / "gradio")


@pytest.fixture
def send(tmp_path: Path) -> Send:
    """Put a file where Gradio keeps uploads: what Gradio then hands over."""

    def sent(content: bytes | Path, name: str = "photo.png") -> dict[str, object]:
        folder = tmp_path / "gradio" / str(len(list((tmp_path / "gradio").iterdir())))
        folder.mkdir(parents=True)
        path = folder / "upload.png"
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        return {"path": str(path), "url": None, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    return sent


def encoded(image: Image.Image, format: str = "PNG", **how: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **how)
    return buffer.getvalue()


def noise(rng: np.random.Generator, *shape: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))


def opened(path: str | Path | BytesIO) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def same(found: str | Path | Image.Image, expected: Image.Image) -> bool:
    image = found if isinstance(found, Image.Image) else opened(found)
    return (
        image.mode == expected.mode and image.size == expected.size and image.tobytes() == expected.tobytes()
    )


def names_in(archive: str) -> list[str]:
    with zipfile.ZipFile(archive) as bundle:
        return bundle.namelist()


# Cutout


def test_the_file_is_the_pipelines_cutout(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    file, _ = tabs.cutout(send(CAT, "My cat.jpg"), "u2netp")
    assert same(file, u2netp(CAT).cutout())
    assert Path(file).name == "My cat_cutout.png"


def test_the_facts_are_those_of_the_result(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    _, facts = tabs.cutout(send(CAT), "u2netp")
    expected = u2netp(CAT)
    assert facts["model"] == "u2netp"
    assert (facts["width"], facts["height"]) == (451, 300)
    assert facts["confidence"] == pytest.approx(expected.confidence, abs=1e-4)
    assert facts["found"] is True
    assert facts["device"] == "cpu"
    assert facts["milliseconds"] > 0  # type: ignore[operator]


def layers(html: str) -> dict[str, Image.Image]:
    """The pictures of a preview by their class."""
    found = re.findall(r'<img class="(\w+)"[^>]* src="data:image/\w+;base64,([^"]+)"', html)
    return {name: opened(BytesIO(b64decode(content))) for name, content in found}


def test_a_preview_has_the_photo_the_cutout_and_the_mask(
    tabs: Tabs, send: Send, u2netp: SaliencyPipeline
) -> None:
    html, _ = tabs.preview(send(CAT), "u2netp", edges="hair")
    seen, expected = layers(html), u2netp(CAT)
    assert set(seen) == {"cut", "mask", "before"}
    assert same(seen["mask"], expected.mask(None, edges="hair"))
    assert same(seen["cut"].getchannel("A"), expected.cutout(edges="hair").getchannel("A"))
    assert np.abs(np.subtract(seen["before"], opened(CAT), dtype=int)).mean() < 3  # JPEG


@pytest.mark.parametrize("background", ["picture", "blur"])
def test_a_background_that_the_browser_does_not_know_is_a_layer(
    tabs: Tabs, send: Send, u2netp: SaliencyPipeline, background: str
) -> None:
    coffee = ROOT / "examples" / "coffee.jpg"
    seen = layers(tabs.preview(send(CAT), "u2netp", background, send(coffee))[0])
    expected = u2netp(CAT).over(coffee if background == "picture" else "blur")
    assert np.abs(np.subtract(seen["behind"], expected, dtype=int)).mean() < 3  # JPEG


def test_another_choice_decodes_nothing_again(
    tabs: Tabs, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = send(CAT)
    tabs.preview(photo, "small")
    monkeypatch.setattr(events_module, "read_photo", None)
    assert layers(tabs.preview(photo, "small", crop=True, edges="soft")[0])


def test_previews_of_few_photos_are_kept(tabs: Tabs, send: Send, rng: np.random.Generator) -> None:
    for _ in range(15):
        tabs.preview(send(encoded(noise(rng, 32, 32, 3))), "small")
    assert len(tabs.previews._known) == 12


def test_previews_of_the_examples_stay(
    tabs: Tabs, send: Send, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = send(CAT)
    tabs.previews.pinned.add(str(example["path"]))
    tabs.preview(example, "small")
    for _ in range(15):
        tabs.preview(send(encoded(noise(rng, 32, 32, 3))), "small")
    monkeypatch.setattr(events_module, "read_photo", None)
    assert layers(tabs.preview(example, "small")[0])


def test_a_preview_waits_for_the_picture_of_its_background(tabs: Tabs, send: Send) -> None:
    assert set(layers(tabs.preview(send(CAT), "small", "picture")[0])) == {"cut", "mask", "before"}


def test_no_photo_has_no_preview(tabs: Tabs) -> None:
    html, words = tabs.preview(None, "small")
    assert "Choose a photo" in html
    assert words == ""


def test_a_large_photo_is_shown_small_and_saved_large(
    tabs: Tabs, send: Send, rng: np.random.Generator
) -> None:
    photo = send(encoded(noise(rng, 100, 2560, 3)))
    assert {picture.size for picture in layers(tabs.preview(photo, "small")[0]).values()} == {(1280, 50)}
    assert opened(tabs.cutout(photo, "small")[0]).size == (2560, 100)


def test_the_mask_is_the_pipelines(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    file, facts = tabs.mask(send(CAT, "cat.jpg"), "u2netp")
    assert Path(file).name == "cat_mask.png"
    assert same(file, u2netp(CAT).mask(None))
    assert facts["found"] is True
    assert same(tabs.mask(send(CAT), "u2netp", True, 0.3)[0], u2netp(CAT).mask(0.3))
    assert same(tabs.mask(send(CAT), "u2netp", edges="hair")[0], u2netp(CAT).mask(None, edges="hair"))


@pytest.mark.parametrize("background", ["colour", "picture", "blur"])
def test_the_background_is_that_of_the_pipeline(
    tabs: Tabs, send: Send, u2netp: SaliencyPipeline, background: str
) -> None:
    coffee = ROOT / "examples" / "coffee.jpg"
    behind = {"colour": "#12ab00", "picture": coffee, "blur": "blur"}[background]
    file, _ = tabs.cutout(send(CAT), "u2netp", background, "#12ab00", send(coffee))
    assert same(file, u2netp(CAT).over(behind))


def test_hard_edges_take_the_threshold(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    file, _ = tabs.cutout(send(CAT), "u2netp", hard_edges=True, threshold=0.3)
    assert same(file, u2netp(CAT).cutout(0.3))


def test_soft_edges_take_no_threshold(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    assert same(tabs.cutout(send(CAT), "u2netp", threshold=0.3)[0], u2netp(CAT).cutout())


def test_a_crop_is_the_box_around_the_object(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    file, _ = tabs.cutout(send(ROOT / "examples" / "coffee.jpg"), "u2netp", crop=True)
    expected = u2netp(ROOT / "examples" / "coffee.jpg")
    box = expected.bbox(edges="sharp")
    assert box is not None
    assert same(file, expected.cutout().crop(box))


def test_no_salient_object_is_said_plainly(tabs: Tabs, send: Send) -> None:
    photo = send(ROOT / "examples" / "grass.jpg")
    file, facts = tabs.cutout(photo, "u2netp", crop=True)
    assert facts["found"] is False
    assert "No salient object found" in tabs.preview(photo, "u2netp", crop=True)[1]
    assert opened(file).getchannel("A").getextrema() == (0, 0)
    assert opened(file).size == (512, 512)


def test_results_lie_where_nobody_can_guess(tabs: Tabs, send: Send, tmp_path: Path) -> None:
    photo = send(CAT)
    folders = {Path(tabs.cutout(photo, "u2netp")[0]).parent for _ in range(2)}
    assert len(folders) == 2
    assert all(len(folder.name) == 32 and folder.parent == tmp_path / "gradio" for folder in folders)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ("#FF8800", "#ff8800"), ("rgba(255, 136.4, 0.2, 1)", "#ff8800"), ("rgb(0,0,300)", "#0000ff"),
        ("#f00", "#ff0000"), ("red", "#ff0000"), (" Red ", "#ff0000"),
    ],
)  # fmt: skip
def test_a_colour_is_read_as_people_and_the_picker_write_it(colour: str, expected: str) -> None:
    assert hex_colour(colour) == expected


# Odd photos


def test_a_photo_is_turned_upright(tabs: Tabs, send: Send, rng: np.random.Generator) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file, _ = tabs.cutout(send(encoded(noise(rng, 40, 60, 3), "JPEG", exif=exif)), "small")
    assert opened(file).size == (40, 60)


def test_alpha_of_the_photo_is_kept(tabs: Tabs, send: Send, rng: np.random.Generator) -> None:
    photo = noise(rng, 40, 60, 4)
    photo.putalpha(Image.new("L", photo.size, 0))
    assert opened(tabs.cutout(send(encoded(photo)), "small")[0]).getchannel("A").getextrema() == (0, 0)


def test_16_bits_become_8(tabs: Tabs, send: Send) -> None:
    values = np.full((40, 60), 0x8080, np.uint16)
    file, _ = tabs.cutout(send(encoded(Image.fromarray(values))), "small")
    assert opened(file).convert("RGB").getpixel((0, 0)) == (128, 128, 128)


def test_of_an_animation_the_first_frame_is_taken(tabs: Tabs, send: Send) -> None:
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue")]
    file, _ = tabs.cutout(send(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])), "small")
    assert opened(file).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"not a picture", "is not a picture in a format that is read here"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "is not a picture in a format that is read here",
        ),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture in a format that is read here"),
        (encoded(Image.new("RGB", (99, 99)))[:-60], "cannot be read as a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "read here"),
    ],
    ids=["empty", "text", "eps", "svg", "cut short", "broken heic"],
)
def test_a_bad_file_is_told_in_a_line(
    tabs: Tabs, send: Send, tmp_path: Path, content: bytes, said: str
) -> None:
    with pytest.raises(Error) as told:
        tabs.cutout(send(content, "holiday.jpg"), "small")
    message = str(told.value.message)
    assert said in message
    assert str(tmp_path) not in message
    assert told.value.print_exception is False


def test_a_photo_of_too_many_pixels_is_told_with_the_limit(
    tabs: Tabs, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_module, "MAX_PIXELS", 1000)
    with pytest.raises(Error, match="too large: 451 × 300 pixels, expected at most 1,000"):
        tabs.cutout(send(CAT), "small")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"photo": None}, "a photo is missing"),
        ({"model": "u2net"}, "'u2net' is not in memory"),
        ({"background": "magic"}, "unknown background 'magic'"),
        ({"background": "picture"}, "a picture for the background is missing"),
        ({"background": "colour", "colour": "blur"}, "unknown colour 'blur'"),
        ({"hard_edges": True, "threshold": 1.5}, "threshold is '1.5', expected a number from 0 to 1"),
        ({"hard_edges": True, "threshold": "x"}, "threshold is 'x'"),
        ({"edges": "fluffy"}, "unknown edges 'fluffy', expected one of"),
        ({"crop": "yes"}, "unknown crop 'yes'"),
        ({"photo": 7}, "a photo is a int, expected an uploaded file"),
        ({"photo": {"path": "x" * 5000}}, "the file is no longer on the server"),
        ({"photo": {"path": "a\0b"}}, "the file is no longer on the server"),
    ],
)
def test_a_wrong_choice_is_told(tabs: Tabs, send: Send, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(Error, match=said):
        tabs.cutout(**{"photo": send(CAT), "model": "small", **arguments})


# Other files on the machine


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret.png", "", ".", "upload.png", "/proc/self/environ"]
)
def test_no_other_file_is_read(tabs: Tabs, tmp_path: Path, path: str) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    sent = {"path": path if path.startswith("/") else f"{tmp_path}/gradio/{path}"}
    with pytest.raises(Error, match="the file is no longer on the server"):
        tabs.cutout(sent, "small")
    with pytest.raises(Error, match="the file is no longer on the server"):
        tabs.batch([sent], "small")


def test_no_link_out_of_the_folder_is_followed(tabs: Tabs, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (tmp_path / "gradio" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(Error, match="the file is no longer on the server"):
        tabs.cutout({"path": str(tmp_path / "gradio" / "link.png")}, "small")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/cron.d/job.jpg", "job"), ("C:\\photos\\cat.JPG", "cat"), ("a<b>&c.png", "a_b__c"),
        ("Ünï 2 (1).webp", "Ünï 2 (1)"), (".png", "png"), ("", "photo"), ("..", "photo"),
        ("x" * 300, "x" * 100),
    ],
)  # fmt: skip
def test_a_visitors_name_is_made_fit_for_files(name: str, expected: str) -> None:
    assert safe_stem(name) == expected


# Compare


def test_compare_shows_both_maps_and_where_they_differ(
    tabs: Tabs, send: Send, u2netp: SaliencyPipeline
) -> None:
    one, other, apart, facts, words = tabs.compare(send(CAT), "u2netp", "small")
    assert same(one, u2netp(CAT).mask(None))
    assert one.size == other.size == apart.size
    first, second = facts["models"]  # type: ignore[misc]
    assert first["parameters"] == 1_131_181
    weights = ROOT / "u2net_hub" / "weights" / "u2netp" / "model.safetensors"
    assert first["megabytes"] == round(weights.stat().st_size / 1e6, 1)
    assert second["model"] == "small"
    assert min(first["milliseconds"], second["milliseconds"]) > 0
    by_hand = np.abs(np.asarray(one, float) - np.asarray(other, float)).mean() / 255
    assert facts["mean_difference"] == pytest.approx(by_hand, abs=2e-3)
    assert "1,131,181" in words


def test_a_model_does_not_differ_from_itself(tabs: Tabs, send: Send) -> None:
    one, other, apart, facts, _ = tabs.compare(send(CAT), "small", "small")
    assert same(one, other)
    assert facts["mean_difference"] == 0
    assert not np.asarray(apart).any()


def test_the_colour_of_a_difference_tells_whose_it_is() -> None:
    first, second = np.array([[1, 0, 0.5]], np.float32), np.array([[0, 1, 0.5]], np.float32)
    only_first, only_second, neither = np.asarray(difference(first, second))[0].tolist()
    assert only_first[0] > only_first[2]  # orange
    assert only_second[2] > only_second[0]  # blue
    assert neither == [0, 0, 0]


# Inside


@pytest.mark.parametrize("view", ["heat", "", None, ["map alone"], 1])
def test_an_unknown_view_is_told(tabs: Tabs, send: Send, view: Any) -> None:
    with pytest.raises(Error, match="unknown view"):
        tabs.inside(send(CAT), "small", view)


def test_inside_shows_the_side_outputs_coarse_to_fine_and_the_fused_map(
    tabs: Tabs, send: Send, u2netp: SaliencyPipeline
) -> None:
    pictures, facts = tabs.inside(send(CAT), "u2netp", "map alone")
    result = u2netp(CAT, side_outputs=True)
    assert result.side_outputs is not None
    for (picture, _), expected in zip(pictures[:-1], reversed(result.side_outputs), strict=True):
        assert same(picture, Image.fromarray(np.rint(expected * 255).astype(np.uint8)))
    assert [caption for _, caption in pictures] == [
        "Side 6, coarsest", "Side 5", "Side 4", "Side 3", "Side 2", "Side 1, finest", "Fused",
    ]  # fmt: skip
    fused = np.asarray(pictures[-1][0], np.float32) / 255
    assert np.abs(fused - np.asarray(Image.fromarray(result.probability).resize((451, 300)))).mean() < 0.01
    assert facts["model"] == "u2netp"


def test_heat_is_drawn_over_the_photo(tabs: Tabs, send: Send) -> None:
    pictures, _ = tabs.inside(send(CAT), "u2netp", "heat over the photo")
    assert {(picture.mode, picture.size) for picture, _ in pictures} == {("RGB", (451, 300))}
    assert len({picture.tobytes() for picture, _ in pictures}) == 7


def test_heat_gets_lighter_with_the_map(models: Models, tmp_path: Path) -> None:
    Image.new("RGB", (256, 1), "grey").save(tmp_path / "a.png")
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    light = np.asarray(heat(models_module.read_photo(tmp_path / "a.png", "a"), ramp).convert("L"), int)[0]
    assert np.diff(light).min() >= -1  # rounding
    assert light[-1] - light[0] > 100


def test_a_grey_map_is_exact() -> None:
    levels = np.arange(256, dtype=np.float32)[None] / 255
    assert np.asarray(grey(levels)).tolist() == [list(range(256))]


# Batch


def test_a_batch_is_a_zip_with_the_names_kept(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    sent = [send(CAT, "cat.jpg"), send(ROOT / "examples" / "rocket.jpg", "rocket.jpeg")]
    archive, report, gallery, _ = tabs.batch(sent, "u2netp")
    with zipfile.ZipFile(archive) as bundle:
        assert bundle.testzip() is None
        assert bundle.namelist() == ["cat.png", "rocket.png"]
        assert same(opened(BytesIO(bundle.read("cat.png"))), u2netp(CAT).cutout())
    assert [each["written"] for each in report] == ["cat.png", "rocket.png"]
    assert [caption for _, caption in gallery] == ["cat.png", "rocket.png"]


def test_a_batch_can_be_of_maps(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    archive, *_ = tabs.batch([send(CAT, "cat.jpg")], "u2netp", "mask")
    with zipfile.ZipFile(archive) as bundle:
        assert same(opened(BytesIO(bundle.read("cat.png"))), u2netp(CAT).mask(None))


def test_a_bad_file_in_a_batch_is_listed_and_the_others_are_done(
    tabs: Tabs, send: Send, tmp_path: Path
) -> None:
    sent = [send(CAT, "a.jpg"), send(b"rubbish", "b.jpg"), send(ROOT / "examples" / "grass.jpg", "c.jpg")]
    archive, report, gallery, words = tabs.batch(sent, "small")
    assert names_in(archive) == ["a.png", "c.png"]
    assert [each["error"] is None for each in report] == [True, False, True]
    assert str(report[1]["error"]).startswith("b.jpg is not a picture")
    assert len(gallery) == 2
    assert "2 of 3 photos are in the zip" in words
    assert str(tmp_path) not in words


def test_photos_of_one_name_do_not_overwrite_each_other(tabs: Tabs, send: Send) -> None:
    names = ("cat.jpg", "cat.png", "CAT.webp", "cat (2).gif")
    sent = [send(encoded(Image.new("L", (8, 8 + i))), name) for i, name in enumerate(names)]
    archive, *_ = tabs.batch(sent, "small")
    assert names_in(archive) == ["cat.png", "cat (2).png", "CAT (3).png", "cat (2) (2).png"]


def test_the_same_photo_is_processed_once(tabs: Tabs, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        batch_module,
        "read_photo",
        lambda path, name: read.append(name) or models_module.read_photo(path, name),
    )
    sent = [send(CAT, "cat.jpg"), *(send(CAT, f"{i}.jpg") for i in range(29))]
    archive, report, gallery, words = tabs.batch(sent, "small")
    assert read == ["cat.jpg"]
    assert names_in(archive) == ["cat.png"]
    assert {each["written"] for each in report} == {"cat.png"}
    assert [each["same_as"] for each in report] == [None, *["cat.jpg"] * 29]
    assert len(gallery) == 1
    assert "the same photo as cat.jpg, see cat.png" in words


def test_a_batch_takes_the_choices_of_a_cutout(tabs: Tabs, send: Send, u2netp: SaliencyPipeline) -> None:
    archive, *_ = tabs.batch([send(CAT, "cat.jpg")], "u2netp", "cutout", "colour", "red", edges="hair")
    with zipfile.ZipFile(archive) as bundle:
        assert same(opened(BytesIO(bundle.read("cat.png"))), u2netp(CAT).over("red", edges="hair"))


def test_names_in_the_report_are_text_not_html(tabs: Tabs, send: Send) -> None:
    *_, words = tabs.batch([send(CAT, "<img src=x onerror=alert(1)>.jpg")], "small")
    assert "<img" not in words


def test_a_batch_has_a_limit(tabs: Tabs, send: Send) -> None:
    with pytest.raises(Error, match=f"{MAX_FILES + 1} files, expected at most {MAX_FILES}"):
        tabs.batch([send(b"")] * (MAX_FILES + 1), "small")


def test_an_empty_batch_is_told(tabs: Tabs) -> None:
    with pytest.raises(Error, match="choose some photos first"):
        tabs.batch([], "small")
