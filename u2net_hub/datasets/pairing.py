"""Find out which mask belongs to which photo, in the folder layouts that published data sets use."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from ..imaging import IMAGE_SUFFIXES

# A folder's name is split into words, which tell what it holds: photos in DUTS-TR-Image, imgs and im_aug;
# masks in DUTS-TR-Mask, pixelwiseGT-new-PNG and gt_aug.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_IMAGE_WORDS = {
    "image",
    "images",
    "img",
    "imgs",
    "im",
    "ims",
    "photo",
    "photos",
    "picture",
    "pictures",
    "input",
}
_MASK_WORDS = {
    *("mask", "masks", "gt", "gts", "groundtruth", "truth", "annotation", "annotations", "labels"),
    *("alpha", "alphas", "matte", "mattes"),
}
_MASK_ENDINGS = ("_mask", "-mask", "_gt", "-gt", "_alpha", "-alpha")


class Pair(NamedTuple):
    """The files of a photo and its mask."""

    name: str
    """The photo's path inside its folder, with forward slashes and without the suffix. It is unique in a data
    set."""
    image: Path
    mask: Path | None
    """The file of the mask; None if no mask has the photo's stem."""


class Pairing(NamedTuple):
    """The pairs of a data set, and the masks that belong to no photo."""

    pairs: list[Pair]
    """One pair for each photo, sorted by name."""
    orphans: list[Path]
    """The masks without a photo."""
    mask_folder: Path | None
    """The folder of the masks; None if a list file names every pair."""


def find_pairs(
    root: str | Path | None = None, *, images: str | Path | None = None, masks: str | Path | None = None
) -> list[Pair]:
    """Find the mask of each photo of a data set by its stem, the file name without the suffix.

    Args:
        root: One of

            - a folder with one subfolder of photos and one of masks, with names as in published data sets:
              images/ + masks/, im/ + gt/, imgs/ + gt/, images/ + ground_truth_mask/, DUTS-TR-Image/ +
              DUTS-TR-Mask/, DUT-OMRON-image/ + pixelwiseGT-new-PNG/ …;
            - a folder that holds photos and masks together: 1.jpg beside 1.png, or 1.png beside 1_mask.png;
            - a list file. Each line names a photo and its mask, relative to the list; or each line is only a
              name, which selects a pair from the list's folder (or from `images` and `masks`).
        images: The folder of the photos, if its name is another one; relative to `root` or to the working
            directory.
        masks: The folder of the masks, if its name is another one; relative as for `images`.

    Returns:
        One pair for each photo, sorted by name; `mask` is None if there is no mask. Masks without a photo are
        left out; `check_dataset` reports them.

    Raises:
        FileNotFoundError: A folder or a listed file does not exist, or a folder holds no photos.
        PermissionError: A folder may not be listed.
        ValueError: It is unclear which folder holds the masks, or two files differ only in their suffix.
    """
    return pair_files(root, images=images, masks=masks).pairs


def pair_files(
    root: str | Path | None = None, *, images: str | Path | None = None, masks: str | Path | None = None
) -> Pairing:
    """Pair like `find_pairs`, and also return the masks that belong to no photo."""
    if root is None:
        if images is None or masks is None:
            raise ValueError("got no data set; give its folder or list file, or both images=… and masks=…")
        return _pair_folders(_folder(Path(images)), _folder(Path(masks)))
    path = Path(root)
    if path.is_file():
        return _pair_list(path, images, masks)
    if images is not None and masks is not None:
        return _pair_folders(_inside(_folder(path), images), _inside(path, masks))
    return _pair_layout(_folder(path), images, masks)


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """Find the pictures in a folder and its subfolders, by their path inside it without the suffix.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: Two files differ only in their suffix.
    """
    inside = sorted(
        Path(where, name).relative_to(folder)
        for where, _, names in os.walk(_folder(folder), onerror=_refuse)
        for name in names
    )
    visible = [path for path in inside if not any(part.startswith((".", "__MACOSX")) for part in path.parts)]
    return _named(
        (path.with_suffix("").as_posix(), folder / path) for path in visible if _is_picture(folder / path)
    )


def _pair_layout(root: Path, images: str | Path | None, masks: str | Path | None) -> Pairing:
    """Find the folders of photos and masks by their names, unless the caller names them."""
    inside = sorted(path for path in root.iterdir() if not _is_hidden(path.name))
    folders = [path for path in inside if path.is_dir()]
    mask_folders = [path for path in folders if _words(path) & _MASK_WORDS]
    image_folders = [path for path in folders if _words(path) & _IMAGE_WORDS and path not in mask_folders]
    if images is not None:
        image_folders = [_inside(root, images)]
    if masks is not None:
        mask_folders = [_inside(root, masks)]
    if len(image_folders) == len(mask_folders) == 1:
        return _pair_folders(image_folders[0], mask_folders[0])
    if images is None and masks is None:
        if any(_is_picture(path) for path in inside):
            return _pair_mixed(root)
        if len(folders) == 1:  # an unpacked archive often has a folder in a folder: DUTS-TR/DUTS-TR/…
            return _pair_layout(folders[0], None, None)
    raise ValueError(
        f"cannot tell photos and masks in {root}: it holds the folders {[p.name for p in folders[:12]]}, "
        "expected one of photos and one of masks, such as images/ and masks/ or im/ and gt/; "
        "choose a folder below it, or say which is which with images=… and masks=… (--images, --masks)"
    )


def _pair_folders(image_folder: Path, mask_folder: Path) -> Pairing:
    photos = pictures_by_stem(image_folder)
    if not photos:
        raise FileNotFoundError(f"no photos in {image_folder}, expected files such as 0001.jpg")
    return _match(photos, pictures_by_stem(mask_folder), mask_folder)


def _pair_mixed(folder: Path) -> Pairing:
    """Pair the files of a folder with both kinds: 1.jpg with 1.png (MSRA10K), or 1.png with 1_mask.png."""
    files = sorted(path for path in folder.iterdir() if _is_picture(path))
    masks = [path for path in files if path.stem.lower().endswith(_MASK_ENDINGS)]
    if not masks and any(path.suffix.lower() in (".jpg", ".jpeg") for path in files):
        masks = [path for path in files if path.suffix.lower() == ".png"]
    photos = [path for path in files if path not in set(masks)]
    if not photos or not masks:
        raise FileNotFoundError(
            f"{folder} holds {len(files)} pictures, but no photos with masks; expected 1.jpg beside 1.png, "
            "1.png beside 1_mask.png, or a folder of photos and one of masks"
        )
    return _match(_named((p.stem, p) for p in photos), _named((p.stem, p) for p in masks), folder)


def _match(photos: Mapping[str, Path], masks: Mapping[str, Path], mask_folder: Path) -> Pairing:
    left = dict(masks)
    pairs = []
    for name, photo in sorted(photos.items()):
        stem = next((name + ending for ending in ("", *_MASK_ENDINGS) if name + ending in left), name)
        pairs.append(Pair(name, photo, left.pop(stem, None)))
    return Pairing(pairs, sorted(left.values()), mask_folder)


def _pair_list(path: Path, images: str | Path | None, masks: str | Path | None) -> Pairing:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise ValueError(
            f"{path} is not a list of files (no UTF-8 text), expected a folder or a list file"
        ) from e
    rows = [_columns(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if rows and rows[0][0].lower() in ("image", "images", "photo", "name"):  # the header of a table
        rows = rows[1:]
    widths = sorted({len(row) for row in rows})
    if widths == [2]:
        files = [(_listed(path, image), _listed(path, mask)) for image, mask in rows]
        base = os.path.commonpath([os.path.abspath(image.parent) for image, _ in files])
        stems = [Path(os.path.relpath(image, base)).with_suffix("").as_posix() for image, _ in files]
        _named(zip(stems, (image for image, _ in files), strict=True))
        return Pairing(sorted(Pair(stem, *both) for stem, both in zip(stems, files, strict=True)), [], None)
    if widths != [1]:
        raise ValueError(
            f"{path} has lines of {widths or 'no'} columns, expected a photo and its mask per line, or a name"
        )
    found = pair_files(path.parent, images=images, masks=masks)
    by_name = {pair.name: pair for pair in found.pairs}
    chosen = {}
    for (entry,) in rows:
        name = entry if entry in by_name else Path(entry).stem
        if name not in by_name:
            raise FileNotFoundError(
                f"{path} lists {entry}, which is none of the {len(by_name)} photos beside it"
            )
        chosen[name] = by_name[name]
    return found._replace(pairs=sorted(chosen.values()), orphans=[])


def _columns(line: str) -> list[str]:
    """Split a line at tabs, else at commas, else at spaces; quotes protect a name that contains spaces."""
    mark = next((mark for mark in "\t," if mark in line), " ")
    row = next(csv.reader([line.strip()], delimiter=mark, skipinitialspace=True))
    return [column.strip() for column in row if column.strip()]


def _listed(path: Path, file: str) -> Path:
    if not (path.parent / file).is_file():
        raise FileNotFoundError(f"{path} lists {file}, which is not in {path.parent}")
    return path.parent / file


def _named(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for name, path in files:
        if name in named:
            raise ValueError(
                f"{named[name]} and {path} have one stem, expected one file each; rename or remove one"
            )
        named[name] = path
    return named


def _folder(path: Path) -> Path:
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise FileNotFoundError(f"{path} {what}, expected a folder of pictures")
    try:
        with os.scandir(path):
            return path
    except PermissionError as e:
        _refuse(e)


def _refuse(error: OSError) -> NoReturn:
    """Raise an error for a folder that cannot be listed, so that its files do not seem to be missing."""
    if isinstance(error, PermissionError):
        raise PermissionError(
            f"{error.filename} cannot be read: permission denied; "
            "give yourself read and execute permission for this folder (chmod u+rx)"
        ) from error
    raise error


def _inside(root: Path, folder: str | Path) -> Path:
    """Find a folder whose path is relative to the data set or, failing that, to the working directory."""
    return _folder(root / folder if (root / folder).is_dir() or not Path(folder).is_dir() else Path(folder))


def _words(folder: Path) -> set[str]:
    return {word.lower() for word in _WORD.findall(folder.name)}


def _is_hidden(name: str) -> bool:
    """Tell whether file managers or archives made this file: .DS_Store, __MACOSX."""
    return name.startswith((".", "__MACOSX"))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
