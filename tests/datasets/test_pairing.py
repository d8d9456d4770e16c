"""Which photo belongs to which mask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from u2net_hub.datasets.pairing import find_pairs, pair_files, pictures_by_stem


def touch(folder: Path, *files: str) -> Path:
    """Empty files: pairing looks at names alone."""
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(pairs: list) -> list[tuple[str, str, str | None]]:
    return [(name, image.name, mask and mask.name) for name, image, mask in pairs]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("im", "gt"),
        ("imgs", "gt"),
        ("images", "ground_truth_mask"),
        ("DUTS-TR-Image", "DUTS-TR-Mask"),
        ("DUTS-TE-Image", "DUTS-TE-Mask"),
        ("DUT-OMRON-image", "pixelwiseGT-new-PNG"),
        ("im_aug", "gt_aug"),
        ("Image", "GT"),
        ("Imgs", "GroundTruth"),
    ],
)
def test_folders_are_told_by_the_names_that_the_fields_sets_use(tmp_path, images, masks):
    touch(tmp_path, f"{images}/b.jpg", f"{images}/a.jpg", f"{masks}/a.png", f"{masks}/b.png")
    assert names(find_pairs(tmp_path)) == [("a", "a.jpg", "a.png"), ("b", "b.jpg", "b.png")]


def test_other_folders_beside_the_two_do_not_matter(tmp_path):
    touch(tmp_path, "images/a.jpg", "masks/a.png", "maps_u2netp/a.png", "README.md", "preview.png")
    assert names(find_pairs(tmp_path)) == [("a", "a.jpg", "a.png")]


def test_an_archive_with_a_folder_around_it_is_looked_into(tmp_path):
    touch(tmp_path, "DUTS-TR/DUTS-TR-Image/a.jpg", "DUTS-TR/DUTS-TR-Mask/a.png", "__MACOSX/DUTS-TR/._a.jpg")
    assert names(find_pairs(tmp_path)) == [("a", "a.jpg", "a.png")]


def test_two_folders_of_any_names_and_formats_pair_by_stem(tmp_path):
    touch(tmp_path, "left/a.tif", "left/b.WEBP", "right/a.bmp", "right/b.gif")
    expected = [("a", "a.tif", "a.bmp"), ("b", "b.WEBP", "b.gif")]
    assert names(find_pairs(images=tmp_path / "left", masks=tmp_path / "right")) == expected
    assert names(find_pairs(tmp_path, images="left", masks="right")) == expected


def test_one_folder_may_be_named_and_the_other_told(tmp_path):
    touch(tmp_path, "fotos/a.jpg", "masks/a.png", "masks_old/a.png")
    assert find_pairs(tmp_path, images="fotos", masks="masks")[0].mask == tmp_path / "masks/a.png"
    touch(tmp_path / "other", "fotos/a.jpg", "masks/a.png")
    assert find_pairs(tmp_path / "other", images="fotos")[0].mask == tmp_path / "other/masks/a.png"


def test_subfolders_are_part_of_the_name(tmp_path):
    touch(tmp_path, "images/cats/1.jpg", "images/dogs/1.jpg", "masks/cats/1.png", "masks/dogs/1.png")
    assert [(pair.name, pair.mask.parent.name) for pair in find_pairs(tmp_path)] == [
        ("cats/1", "cats"),
        ("dogs/1", "dogs"),
    ]


def test_stems_with_dots_are_kept_whole(tmp_path):
    touch(tmp_path, "images/a.1.jpg", "images/a.2.jpg", "masks/a.1.png", "masks/a.2.png")
    assert names(find_pairs(tmp_path)) == [("a.1", "a.1.jpg", "a.1.png"), ("a.2", "a.2.jpg", "a.2.png")]


def test_photos_and_masks_in_one_folder_are_told_by_their_format(tmp_path):
    touch(tmp_path, "1.jpg", "1.png", "2.jpg", "2.png")
    assert names(find_pairs(tmp_path)) == [("1", "1.jpg", "1.png"), ("2", "2.jpg", "2.png")]


def test_photos_and_masks_in_one_folder_are_told_by_the_end_of_the_name(tmp_path):
    touch(tmp_path, "1.png", "1_mask.png", "2.png", "2_mask.png")
    assert names(find_pairs(tmp_path)) == [("1", "1.png", "1_mask.png"), ("2", "2.png", "2_mask.png")]


def test_a_photo_without_a_mask_and_a_mask_without_a_photo_are_told(tmp_path):
    touch(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png", "masks/c.png")
    found = pair_files(tmp_path)
    assert names(found.pairs) == [("a", "a.jpg", "a.png"), ("b", "b.jpg", None)]
    assert found.orphans == [tmp_path / "masks/c.png"]


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    touch(
        tmp_path, "images/a.jpg", "images/._a.jpg", "images/.cache/b.jpg", "images/Thumbs.db", "masks/a.png"
    )
    assert names(find_pairs(tmp_path)) == [("a", "a.jpg", "a.png")]


@pytest.mark.parametrize(
    "text",
    [
        "DUTS/im/a.jpg DUTS/gt/a.png\nDUTS/im/b.jpg DUTS/gt/b.png\n",
        "# made by hand\nDUTS/im/a.jpg,DUTS/gt/a.png\n\nDUTS/im/b.jpg, DUTS/gt/b.png\n",
        "image\tmask\nDUTS/im/a.jpg\tDUTS/gt/a.png\nDUTS/im/b.jpg\tDUTS/gt/b.png\n",
        '\ufeff"DUTS/im/a.jpg" "DUTS/gt/a.png"\r\nDUTS/im/b.jpg DUTS/gt/b.png\r\n',
    ],
    ids=["blanks", "commas", "tabs", "quotes"],
)
def test_a_list_file_names_pairs_relative_to_itself(tmp_path, text):
    touch(tmp_path, "DUTS/im/a.jpg", "DUTS/im/b.jpg", "DUTS/im/c.jpg", "DUTS/gt/a.png", "DUTS/gt/b.png")
    (tmp_path / "train.lst").write_text(text, encoding="utf-8")
    assert names(find_pairs(tmp_path / "train.lst")) == [("a", "a.jpg", "a.png"), ("b", "b.jpg", "b.png")]


def test_a_list_of_names_chooses_from_the_folder_it_lies_in(tmp_path):
    touch(tmp_path, "im/a.jpg", "im/b.jpg", "im/c d.jpg", "gt/a.png", "gt/b.png", "gt/c d.png")
    (tmp_path / "val.txt").write_text("c d.jpg\na\n".replace("c d.jpg", '"c d.jpg"'))
    assert names(find_pairs(tmp_path / "val.txt")) == [("a", "a.jpg", "a.png"), ("c d", "c d.jpg", "c d.png")]


def test_a_list_of_names_chooses_from_folders_elsewhere(tmp_path):
    touch(tmp_path, "lists/val.txt", "a/1.jpg", "a/2.jpg", "b/1.png", "b/2.png")
    (tmp_path / "lists/val.txt").write_text("2\n")
    found = find_pairs(tmp_path / "lists/val.txt", images=tmp_path / "a", masks=tmp_path / "b")
    assert names(found) == [("2", "2.jpg", "2.png")]


def test_folders_are_looked_for_in_the_set_and_then_where_the_user_is(tmp_path, monkeypatch):
    touch(tmp_path, "set/a/1.jpg", "set/b/1.png", "a/2.jpg", "c/1.png")
    monkeypatch.chdir(tmp_path)
    (pair,) = find_pairs("set", images="a", masks="c")
    assert (pair.image.resolve(), pair.mask.resolve()) == (tmp_path / "set/a/1.jpg", tmp_path / "c/1.png")


def test_a_list_that_names_a_missing_file_says_which(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "list.txt").write_text("a.jpg a.png\n")
    with pytest.raises(FileNotFoundError, match=r"list\.txt lists a\.png"):
        find_pairs(tmp_path / "list.txt")


@pytest.mark.parametrize("text", ["", "a b c\n", "a.jpg a.png\na.jpg\n"])
def test_a_list_of_another_form_says_what_is_expected(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match="expected a photo and its mask per line"):
        find_pairs(tmp_path / "list.txt")


def test_a_picture_given_for_a_list_is_named(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 not text")
    with pytest.raises(ValueError, match=r"photo\.jpg is not a list of files"):
        find_pairs(tmp_path / "photo.jpg")


def test_two_files_of_one_stem_are_refused(tmp_path):
    touch(tmp_path, "images/a.jpg", "images/a.png", "masks/a.png")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png have one stem"):
        find_pairs(tmp_path)


def test_several_sets_in_one_folder_are_listed_to_choose_from(tmp_path):
    touch(tmp_path, "DIS-VD/im/a.jpg", "DIS-VD/gt/a.png", "DIS-TE1/im/a.jpg", "DIS-TE1/gt/a.png")
    with pytest.raises(ValueError, match=r"\['DIS-TE1', 'DIS-VD'\].*choose a folder below it"):
        find_pairs(tmp_path)


def test_several_candidates_for_the_masks_are_not_guessed_between(tmp_path):
    touch(tmp_path, "images/a.jpg", "gt/a.png", "masks/a.png")
    with pytest.raises(ValueError, match="--masks"):
        find_pairs(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        find_pairs(images=tmp_path / "nowhere", masks=tmp_path)


def test_a_folder_without_photos_is_named(tmp_path):
    touch(tmp_path, "images/notes.txt", "masks/a.png")
    with pytest.raises(FileNotFoundError, match=r"no photos in .*images"):
        find_pairs(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds 1 pictures, but no photos with masks"):
        find_pairs(touch(tmp_path / "one", "a.jpg"))


def test_nothing_given_says_what_to_give():
    with pytest.raises(ValueError, match="give its folder or list file"):
        find_pairs()


def test_pictures_are_found_by_their_stem_in_every_subfolder(tmp_path):
    touch(tmp_path, "a.png", "b/c.jpg", "b/notes.txt")
    assert pictures_by_stem(tmp_path) == {"a": tmp_path / "a.png", "b/c": tmp_path / "b/c.jpg"}


@pytest.mark.parametrize("closed", ["", "images", "masks", "masks/deep"])
def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch, closed):
    root = touch(tmp_path / "set", "images/1.jpg", "images/2.jpg", "masks/1.png", "masks/deep/2.png")
    scandir = os.scandir

    def refuse(path):  # what the system does to everybody but root after chmod 000
        if Path(path) == root / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError) as caught:
        find_pairs(root)
    assert str(caught.value).startswith(f"{root / closed} cannot be read: permission denied; give yourself")
