"""SaliencyPipeline and SaliencyResult: right maps, clean cutouts, streams in bounded memory."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from u2net_hub import SaliencyPipeline, SaliencyResult, U2Net, U2NetConfig
from u2net_hub.config import Stage
from u2net_hub.imaging import Edges
from u2net_hub.imaging.decode import load

ROOT = Path(__file__).resolve().parents[2]
STAGES = (Stage("stage1", 3, 4, 8), Stage("stage2", 2, 4, 8, dilated=True), Stage("stage1d", 3, 4, 8))
CONFIG = U2NetConfig(variant="custom", stages=STAGES, input_size=(32, 32), minmax="never")


@pytest.fixture(scope="module")
def tiny() -> SaliencyPipeline:
    """A pipeline around a network of random weights, for what does not depend on them."""
    torch.manual_seed(0)
    return SaliencyPipeline(U2Net(CONFIG), device="cpu", batch_size=4)


def photos(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + i, 30, 3), np.uint8) for i in range(n)]


def result(photo: object, *fused: list[list[float]], **config: object) -> SaliencyResult:
    """The result of a network that says `fused`: one map, or one per class."""
    return SaliencyResult(
        load(photo), CONFIG.replace(out_channels=len(fused), **config), np.array(fused, np.float32)
    )


def uniform(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (4, 2), colour)


def half(alpha: int = 128) -> list[list[float]]:
    return [[alpha / 255] * 4] * 2


# ---- with the authors' weights ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ecssd(shared: Path, remembering: Callable[..., SaliencyPipeline]) -> dict[str, tuple[float, bool]]:
    """The authors' U²-Net† on ten photos of ecssd-100: mean absolute difference to the given map, found."""
    weights = shared / "reference/u2netp_author.safetensors"
    pipeline = remembering(weights, minmax="always")
    paths = sorted((shared / "data/ecssd-100/images").iterdir())[::10]  # of those that test_scoring needs
    rows = {}
    for path, found in zip(paths, pipeline(paths), strict=True):
        given = np.asarray(Image.open(shared / f"data/ecssd-100/maps_u2netp_author/{path.stem}.png"))
        difference = np.abs(np.asarray(found.mask(None), np.float32) - given).mean() / 255
        rows[path.stem] = (float(difference), found.found)
    return rows


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What model_cards/ecssd/measure.py found for the same weights on all hundred photos."""
    return json.loads((ROOT / "model_cards/ecssd/ecssd.json").read_text(encoding="utf-8"))["networks"][
        "u2netp"
    ]


def test_maps_equal_those_of_the_official_preprocessing(ecssd: dict[str, tuple[float, bool]]) -> None:
    assert len(ecssd) == 10
    assert max(difference for difference, _ in ecssd.values()) <= 1 / 255


def test_no_photo_of_ecssd_is_taken_for_an_empty_scene(ecssd: dict[str, tuple[float, bool]]) -> None:
    assert [name for name, (_, found) in ecssd.items() if not found] == []


def test_the_record_says_so_of_all_photos_of_ecssd(shared: Path, measured: dict[str, Any]) -> None:
    weights = (shared / "reference/u2netp_author.safetensors").read_bytes()
    assert measured["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    photos = sorted(path.stem for path in (shared / "data/ecssd-100/images").iterdir())
    assert len(photos) == 100
    assert sorted(measured["photos"]) == photos
    assert max(row["difference"] for row in measured["photos"].values()) <= 1 / 255
    assert all(row["found"] for row in measured["photos"].values())


def test_the_record_is_what_is_found_here(
    ecssd: dict[str, tuple[float, bool]], measured: dict[str, Any]
) -> None:
    for name, (difference, found) in ecssd.items():
        row = measured["photos"][name]
        assert difference == pytest.approx(row["difference"], abs=5e-4)
        assert found == row["found"]


def test_the_bundled_weights_find_what_the_examples_show() -> None:
    paths = sorted((ROOT / "examples").glob("*.jpg"))
    found = {
        path.stem: result.found for path, result in zip(paths, SaliencyPipeline("u2netp")(paths), strict=True)
    }
    assert found == {"astronaut": True, "chelsea": True, "coffee": True, "grass": False, "rocket": True}


# ---- one photo or many -----------------------------------------------------------------------------------


def test_one_photo_gives_one_result(tiny: SaliencyPipeline) -> None:
    found = tiny(photos(1)[0])
    assert isinstance(found, SaliencyResult)
    assert found.saliency.shape == found.size == (20, 30)
    assert found.saliency.dtype == np.float32


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda items: (item for item in items)])
def test_any_iterable_gives_results_in_order(tiny: SaliencyPipeline, kind: type) -> None:
    assert [found.size[0] for found in tiny(kind(photos(6)))] == [20, 21, 22, 23, 24, 25]


def test_a_stack_of_arrays_is_an_iterable(tiny: SaliencyPipeline) -> None:
    assert len(list(tiny(np.zeros((3, 8, 8, 3), np.uint8)))) == 3


def test_no_photos_give_no_results(tiny: SaliencyPipeline) -> None:
    assert list(tiny([])) == []


def test_a_batch_gives_what_single_photos_give(tiny: SaliencyPipeline) -> None:
    images = photos(6)
    for image, found in zip(images, tiny(images), strict=True):
        assert np.allclose(found.saliency, tiny(image).saliency, atol=1e-5)


def test_a_stream_is_read_one_batch_at_a_time(tiny: SaliencyPipeline) -> None:
    read = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal read
        while True:
            read += 1
            yield np.zeros((8, 8, 3), np.uint8)

    results = tiny(stream())
    assert read == 0
    for n in range(1, 10):
        next(results)
        assert read <= 4 * -(-n // 4)  # whole batches of 4


def test_a_stream_keeps_no_results(tiny: SaliencyPipeline) -> None:
    alive: weakref.WeakSet[SaliencyResult] = weakref.WeakSet()
    for found in tiny(np.zeros((8, 8, 3), np.uint8) for _ in range(40)):
        alive.add(found)
        assert len(alive) <= 2


def test_a_bad_photo_is_named_after_the_results_before_it(tiny: SaliencyPipeline) -> None:
    results = tiny([*photos(2), b"no picture", *photos(1)])
    assert [next(results).size[0], next(results).size[0]] == [20, 21]
    with pytest.raises(ValueError, match="image 2 is not a picture"):
        next(results)


def test_a_number_is_no_photo(tiny: SaliencyPipeline) -> None:
    with pytest.raises(ValueError, match="is a int, expected a path"):
        tiny(5)  # type: ignore[call-overload]


def test_side_outputs_come_on_request(tiny: SaliencyPipeline) -> None:
    photo = photos(1)[0]
    assert tiny(photo).side_outputs is None
    sides = tiny(photo, side_outputs=True).side_outputs
    assert sides is not None
    assert [side.shape for side in sides] == [(20, 30)] * 2


def test_a_source_opens_as_well_as_a_model(tmp_path: Path, tiny: SaliencyPipeline) -> None:
    torch.manual_seed(0)
    U2Net(CONFIG).save_pretrained(tmp_path)
    photo = photos(1)[0]
    expected = tiny(photo).saliency
    for opened in (
        SaliencyPipeline(tmp_path, device="cpu"),
        SaliencyPipeline.from_pretrained(str(tmp_path), device="cpu"),
    ):
        assert np.allclose(opened(photo).saliency, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_a_batch_size_below_one_raises(batch_size: float) -> None:
    with pytest.raises(ValueError, match="batch_size is"):
        SaliencyPipeline(U2Net(CONFIG), batch_size=batch_size)  # type: ignore[arg-type]


def test_a_network_for_other_input_than_photos_raises() -> None:
    config = CONFIG.replace(in_channels=5, mean=(0.5,) * 5, std=(0.5,) * 5)
    with pytest.raises(ValueError, match="takes 5 channels"):
        SaliencyPipeline(U2Net(config), device="cpu")


# ---- mask, cutout, background ----------------------------------------------------------------------------


def test_minmax_is_the_configs_unless_it_is_given() -> None:
    model = U2Net(CONFIG)
    assert SaliencyPipeline(model, device="cpu").config.minmax == "never"
    assert SaliencyPipeline(model, device="cpu", minmax="always").config.minmax == "always"


def test_saliency_is_stretched_after_the_network() -> None:
    found = result(Image.new("RGB", (2, 1)), [[0.2, 0.7]], minmax="always")
    assert np.allclose(found.saliency, [[0, 1]])
    assert np.allclose(found.probability, [[0.2, 0.7]])


def test_invert_turns_the_map_round() -> None:
    assert np.allclose(result(Image.new("RGB", (2, 1)), [[0.2, 0.7]], invert=True).saliency, [[0.8, 0.3]])


def test_a_mask_is_binary_from_its_threshold() -> None:
    found = result(Image.new("RGB", (3, 1)), [[0.4, 0.5, 0.6]])
    assert list(found.mask().tobytes()) == [0, 255, 255]
    assert list(found.mask(0.6).tobytes()) == [0, 0, 255]
    assert found.mask().mode == "L"


def test_a_mask_without_threshold_is_the_saliency_in_8_bits() -> None:
    assert list(result(Image.new("RGB", (3, 1)), [[0, 0.5, 1]]).mask(None).tobytes()) == [0, 128, 255]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_out_of_range_raises(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold is"):
        result(uniform((1, 2, 3)), half()).mask(threshold)


def test_a_cutout_keeps_the_photos_colours() -> None:
    cutout = result(uniform((200, 220, 240)), half(128)).cutout()
    assert cutout.mode == "RGBA"
    assert cutout.getpixel((0, 0)) == (200, 220, 240, 128)


def test_a_half_transparent_cutout_over_white_has_no_dark_fringe() -> None:
    found = result(uniform((200, 220, 240)), half(128))
    assert found.over("white").getpixel((0, 0)) == (227, 237, 247)
    white = Image.new("RGBA", (4, 2), "white")
    assert Image.alpha_composite(white, found.cutout()).getpixel((0, 0)) == (227, 237, 247, 255)


STRIPE = [[0.0] * 15 + [0.5] * 5 + [1.0] * 10] * 10


def stripe() -> Image.Image:
    """Blue on the left, red on the right, and their mean in five columns between them."""
    photo = Image.new("RGB", (30, 10), "blue")
    photo.paste("red", (20, 0, 30, 10))
    photo.paste((128, 0, 128), (15, 0, 20, 10))
    return photo


@pytest.mark.parametrize("edges", ["sharp", "hair"])
def test_edges_change_no_colour_that_is_the_same_all_over(edges: Edges) -> None:
    cutout = result(uniform((200, 220, 240)), half(128)).cutout(edges=edges)
    assert cutout.getpixel((0, 0))[:3] == (200, 220, 240)


def test_soft_edges_keep_map_and_colours() -> None:
    assert result(stripe(), STRIPE).cutout(edges="soft").getpixel((17, 5)) == (128, 0, 128, 128)


@pytest.mark.parametrize("edges", ["sharp", "hair"])
def test_other_edges_take_the_background_out_of_the_edge(edges: Edges) -> None:
    red, _, blue, alpha = result(stripe(), STRIPE).cutout(edges=edges).getpixel((17, 5))
    assert red > 200
    assert blue < 55
    assert 100 < alpha < 156


def test_a_mask_can_have_the_edges_of_a_cutout() -> None:
    found = result(stripe(), STRIPE)
    assert np.array_equal(found.mask(None, edges="sharp"), found.alpha(edges="sharp"))
    assert not np.array_equal(found.mask(None, edges="sharp"), found.mask(None))


def test_unknown_edges_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown edges 'fuzzy', expected one of"):
        result(stripe(), STRIPE).cutout(edges="fuzzy")


def test_clean_edges_go_on_working_and_warn() -> None:
    with pytest.warns(DeprecationWarning, match="all edges but 'soft' have clean colours"):
        red, _, blue, alpha = (
            result(stripe(), STRIPE).cutout(edges="soft", clean_edges=True).getpixel((17, 5))
        )
    assert red > 200
    assert blue < 55
    assert alpha == 128


@pytest.mark.parametrize("edges", ["soft", "sharp", "hair"])
def test_a_cutout_leaves_the_photo_as_it_is(edges: Edges) -> None:
    found = result(stripe(), STRIPE)
    found.cutout(edges=edges).paste("red", (0, 0, 5, 5))
    assert found.photo.rgb.mode == "RGB"
    assert found.photo.rgb.tobytes() == stripe().tobytes()


def test_the_alpha_of_the_photo_stays_in_its_cutout() -> None:
    found = result(uniform((10, 20, 30, 100), "RGBA"), half(128))
    assert found.cutout().getpixel((0, 0)) == (10, 20, 30, 50)  # 100 * 128 / 255 = 50.2


def test_a_cutout_with_a_threshold_has_hard_edges() -> None:
    found = result(Image.new("RGB", (3, 1)), [[0.4, 0.5, 0.6]])
    assert list(found.cutout(0.5).getchannel("A").tobytes()) == [0, 255, 255]


def test_profile_is_kept_and_other_metadata_is_not() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    buffer = BytesIO()
    uniform((1, 2, 3)).save(buffer, "PNG", icc_profile=profile, exif=exif)
    found = result(buffer, half())
    for picture in (found.cutout(), found.over("red")):
        assert picture.info == {"icc_profile": profile}
        assert not picture.getexif()


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        ("red", (255, 0, 0)),
        ("#0080ff", (0, 128, 255)),
        ((1, 2, 3), (1, 2, 3)),
        (Image.new("RGB", (9, 9), (7, 8, 9)), (7, 8, 9)),
        (np.full((3, 3, 3), 5, np.uint8), (5, 5, 5)),
    ],
)
def test_a_cutout_goes_over_any_background(background: object, expected: tuple[int, ...]) -> None:
    empty = result(uniform((200, 220, 240)), half(0))
    assert empty.over(background).getpixel((0, 0)) == expected  # type: ignore[arg-type]


def test_a_background_from_a_file_is_cropped_to_the_photo(tmp_path: Path) -> None:
    background = Image.new("RGB", (300, 100), "blue")
    background.paste("red", (0, 0, 40, 100))  # cropped off, as 200 × 100 in the middle stay
    background.save(tmp_path / "b.png")
    picture = result(uniform((0, 0, 0)), half(0)).over(tmp_path / "b.png")
    assert picture.size == (4, 2)
    assert np.allclose(picture.getpixel((0, 0)), (0, 0, 255), atol=5)  # bicubic weights reach a little beyond


def test_a_background_named_by_a_str_is_read_like_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 2), (1, 2, 3)).save("beach.png")
    found = result(uniform((0, 0, 0)), half(0))
    assert found.over("beach.png").getpixel((0, 0)) == (1, 2, 3)
    assert found.over(str(tmp_path / "beach.png")).getpixel((0, 0)) == (1, 2, 3)


def test_a_str_that_is_a_colour_and_a_file_is_the_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 2), (1, 2, 3)).save("red", "png")
    assert result(uniform((0, 0, 0)), half(0)).over("red").getpixel((0, 0)) == (255, 0, 0)


def test_a_background_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "beach.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"beach\.jpg"):
        result(uniform((0, 0, 0)), half(0)).over(str(tmp_path / "beach.jpg"))


def test_blur_keeps_the_object_and_the_size() -> None:
    found = result(photos(1)[0], [[0, 1], [0, 1]])
    picture = np.asarray(found.over("blur"))
    assert picture.shape == (20, 30, 3)
    assert np.array_equal(picture[:, -5:], photos(1)[0][:, -5:])


@pytest.mark.parametrize(
    ("background", "message"),
    [
        ("no colour", "neither a colour .* nor a file that exists"),
        ("beach.jpg", "neither a colour .* nor a file that exists"),
        ("x" * 5000, "nor a file that exists"),
        ("null\0byte", "nor a file that exists"),
        ("#ff000080", "neither a colour"),
        ((1, 2), "unknown colour"),
        ((300, 0, 0), "unknown colour"),
        ((0, 0, 0, 0), "unknown colour"),
    ],
)
def test_an_unknown_background_raises(background: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        result(uniform((0, 0, 0)), half()).over(background)  # type: ignore[arg-type]


def test_bbox_is_around_what_is_seen() -> None:
    found = result(Image.new("RGB", (4, 3)), [[0, 0, 0, 0], [0, 0.3, 0.9, 0], [0, 0, 0, 0]])
    assert found.bbox() == (1, 1, 3, 2)
    assert found.bbox(0.5) == (2, 1, 3, 2)


def test_bbox_of_nothing_is_none() -> None:
    assert result(uniform((0, 0, 0)), half(0)).bbox() is None


def test_bbox_leaves_out_what_the_photos_own_alpha_hides() -> None:
    photo = uniform((0, 0, 0, 0), "RGBA")
    photo.putpixel((3, 1), (0, 0, 0, 255))
    assert result(photo, half(255)).bbox() == (3, 1, 4, 2)


# ---- several classes -------------------------------------------------------------------------------------

CLASSES = {"activation": "softmax", "labels": ("background", "shirt", "skirt")}


def test_labels_are_the_likeliest_classes() -> None:
    found = result(
        Image.new("RGB", (3, 1)), [[0.8, 0.1, 0.2]], [[0.1, 0.7, 0.2]], [[0.1, 0.2, 0.6]], **CLASSES
    )
    assert found.labels is not None
    assert found.labels.dtype == np.uint8
    assert found.labels.tolist() == [[0, 1, 2]]


def test_labels_of_a_saliency_network_are_none() -> None:
    assert result(uniform((0, 0, 0)), half()).labels is None


def test_a_mask_of_classes_is_a_palette_picture() -> None:
    mask = result(Image.new("RGB", (3, 1)), [[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]], **CLASSES).mask()
    assert mask.mode == "P"
    assert list(mask.tobytes()) == [0, 1, 2]
    assert mask.convert("RGB").getpixel((2, 0)) == (0, 128, 0)  # class 2 of the PASCAL VOC colour map


def test_saliency_of_classes_is_what_is_not_background() -> None:
    found = result(Image.new("RGB", (2, 1)), [[0.9, 0.2]], [[0.1, 0.3]], [[0.0, 0.5]], **CLASSES)
    assert np.allclose(found.saliency, [[0.1, 0.8]])


@pytest.mark.parametrize("label", [2, "2", "skirt"])
def test_one_class_is_taken_by_number_or_name(label: int | str) -> None:
    found = result(Image.new("RGB", (2, 1)), [[0.9, 0.2]], [[0.1, 0.3]], [[0.0, 0.5]], **CLASSES)
    assert np.allclose(found.for_class(label).saliency, [[0.0, 0.5]])
    assert list(found.for_class(label).mask().tobytes()) == [0, 255]


@pytest.mark.parametrize("label", [3, -1, "hat", "3"])
def test_an_unknown_class_raises(label: int | str) -> None:
    found = result(Image.new("RGB", (1, 1)), [[0.5]], [[0.2]], [[0.3]], **CLASSES)
    with pytest.raises(ValueError, match=r"unknown class .*expected 0 to 2 or one of"):
        found.for_class(label)


def test_a_class_of_a_saliency_network_raises() -> None:
    with pytest.raises(ValueError, match="one output"):
        result(uniform((0, 0, 0)), half()).for_class(1)


def test_a_network_of_classes_runs_end_to_end() -> None:
    model = U2Net(CONFIG.replace(out_channels=4, activation="softmax"))
    found = SaliencyPipeline(model, device="cpu")(photos(1)[0], side_outputs=True)
    assert found.labels is not None
    assert found.labels.shape == found.saliency.shape == (20, 30)


def test_a_photo_that_was_read_for_its_map_alone_gives_no_cutout(tiny: SaliencyPipeline) -> None:
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)).save(buffer, "JPEG")
    (found,) = tiny.run([tiny.prepare(buffer.getvalue(), map_only=True)])
    assert found.mask().size == (500, 400)
    with pytest.raises(ValueError, match="a cutout needs all its pixels"):
        found.cutout()
