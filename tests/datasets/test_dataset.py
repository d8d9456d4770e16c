"""Photos and masks as they are decoded, and splits of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from u2net_hub import SaliencyDataset
from u2net_hub.datasets.duplicates import duplicate_groups, near_duplicates, signature
from u2net_hub.datasets.masks import read_image, read_mask

ORIENTATION = 0x0112


@pytest.fixture
def texture(rng):
    """A function to a photo (H, W, 3) with large blobs of its own."""

    def make(size=(60, 80)) -> Image.Image:
        small = rng.integers(0, 256, (8, 8, 3), np.uint8)
        return Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC)

    return make


def test_samples_are_rgb_and_grey_of_one_size(pairs):
    sample = SaliencyDataset(pairs)[3]
    assert sample.name == "03"
    assert (sample.image.shape, sample.image.dtype) == ((48, 48, 3), np.uint8)
    assert (sample.gt.shape, sample.gt.dtype) == ((48, 48), np.uint8)
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(pairs / "images/03.png")))
    np.testing.assert_array_equal(sample.gt, np.asarray(Image.open(pairs / "masks/03.png")))


def test_a_data_set_has_a_length_an_order_and_the_name_of_its_folder(pairs):
    dataset = SaliencyDataset(pairs)
    assert (
        [sample.name for sample in dataset]
        == [f"{i:02}" for i in range(20)]
        == [p.name for p in dataset.pairs]
    )
    assert len(dataset) == 20
    assert dataset[-1].name == "19"
    assert dataset.name == pairs.name
    assert SaliencyDataset(images=pairs / "images", masks=pairs / "masks").name == pairs.name
    assert SaliencyDataset(pairs, name="discs").name == "discs"
    with pytest.raises(IndexError):
        dataset[20]


def test_a_subset_keeps_the_order_it_is_given(pairs):
    subset = SaliencyDataset(pairs, classes=2, name="discs").subset([5, 2])
    assert [pair.name for pair in subset.pairs] == ["05", "02"]
    assert (subset.name, subset.classes) == ("discs", 2)


def test_a_photo_without_a_mask_is_named_with_what_was_looked_for(tmp_path):
    for file in ("images/a.png", "images/b.png", "masks/b.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / file)
    with pytest.raises(FileNotFoundError, match=r"no mask for .*a\.png in .*masks \(looked for a\.png"):
        SaliencyDataset(tmp_path)


def test_masks_without_a_photo_are_warned_of(tmp_path, caplog):
    for file in ("images/a.png", "masks/a.png", "masks/b.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / file)
    assert len(SaliencyDataset(tmp_path)) == 1
    assert "1 masks have no photo, the first is " in caplog.text


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    for kind, size in (("images", (8, 6)), ("masks", (6, 8))):
        (tmp_path / kind).mkdir()
        Image.new("L", size).save(tmp_path / kind / "a.png")
    with pytest.raises(ValueError, match=r"masks/a\.png is 6 × 8 but .*images/a\.png is 8 × 6"):
        SaliencyDataset(tmp_path)[0]


def test_a_damaged_mask_is_named(tmp_path):
    Image.new("L", (64, 64), 255).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for content in (b"", b"no picture", whole[: len(whole) // 2]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png cannot be read as a mask"):
            read_mask(tmp_path / "a.png")


def test_photos_and_masks_are_turned_as_their_exif_says(tmp_path):
    picture = Image.new("L", (4, 2))
    picture.putpixel((3, 0), 255)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the top of the scene is at the right of the file
    picture.save(tmp_path / "a.png", exif=exif)
    expected = np.zeros((4, 2), np.uint8)
    expected[3, 1] = 255
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], expected)


def test_a_transparent_photo_lies_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16"])
def test_a_black_and_white_mask_reads_alike_in_every_mode(tmp_path, mode):
    values = np.array([[0, 255], [255, 0]], np.uint8)
    picture = (
        Image.fromarray(values.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(values).convert(mode)
    )
    assert picture.mode == mode
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), values)


def test_class_numbers_are_the_indices_of_a_palette(tmp_path):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    picture = Image.fromarray(labels).convert("P")
    picture.putpalette(bytes(range(255, -1, -1)) * 3)
    picture.save(tmp_path / "palette.png")
    Image.fromarray(labels).save(tmp_path / "grey.png")
    for file in ("palette.png", "grey.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / file, classes=3), labels)


def test_a_class_that_is_not_there_is_refused(tmp_path):
    Image.fromarray(np.array([[0, 7]], np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"holds the classes \[7\], expected 0 to 3"):
        read_mask(tmp_path / "a.png", classes=4)


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [(5, 5), (0.25, 5), (0.01, None), (20, None), (0, None), (1.5, None), (float("nan"), None)],
)
def test_a_split_holds_out_a_number_or_a_part(pairs, held_out, expected):
    dataset = SaliencyDataset(pairs)
    if expected is None:
        with pytest.raises(ValueError, match="expected a part below 1"):
            dataset.split(held_out)
        return
    rest, held = dataset.split(held_out)
    assert (len(rest), len(held)) == (20 - expected, expected)
    assert {*rest.pairs, *held.pairs} == set(dataset.pairs)


def test_a_split_depends_on_its_seed_alone(pairs):
    dataset = SaliencyDataset(pairs)
    chosen = [[pair.name for pair in dataset.split(5, seed=seed)[1].pairs] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_copies_of_a_photo_stay_on_one_side_of_every_split(tmp_path, texture):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(10):
        photo = texture()
        photo.save(tmp_path / f"images/a{i}.png")
        photo.resize((40, 30)).save(tmp_path / f"images/b{i}.jpg", quality=60)
        for file in (f"a{i}.png", f"b{i}.png"):
            Image.new("L", (8, 8)).save(tmp_path / "masks" / file)
    dataset = SaliencyDataset(tmp_path)
    for seed in range(5):
        rest, held = dataset.split(6, seed=seed)
        assert len(held) == 6
        assert not {pair.name[1:] for pair in rest.pairs} & {pair.name[1:] for pair in held.pairs}


def test_a_photo_is_known_again_smaller_brighter_and_compressed(tmp_path, texture):
    photo, other = texture(), texture()
    photo.save(tmp_path / "0.png")
    other.save(tmp_path / "1.png")
    photo.resize((40, 30), Image.Resampling.BILINEAR).save(tmp_path / "2.webp", quality=50)
    photo.point(lambda value: value // 2 + 60).save(tmp_path / "3.jpg", quality=40)
    assert duplicate_groups(sorted(tmp_path.iterdir())) == [[0, 2, 3]]


def test_different_photos_and_flat_pictures_are_not_duplicates(texture):
    pictures = [*(texture() for _ in range(30)), *[Image.new("RGB", (20, 20), "white")] * 2]
    assert near_duplicates([signature(picture) for picture in pictures]) == []
    assert near_duplicates([]) == []


def test_a_copy_is_found_among_real_photos(shared, tmp_path):
    files = sorted((shared / "data/ecssd-100/images").iterdir())
    with Image.open(files[7]) as photo:
        photo.resize((120, 90)).save(tmp_path / "copy.webp", quality=30)
    assert duplicate_groups([*files, tmp_path / "copy.webp"]) == [[7, 100]]
