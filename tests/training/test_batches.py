"""Pictures in memory, and the stream of batches from them."""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from u2net_hub import U2NetConfig
from u2net_hub.datasets.dataset import SaliencyDataset
from u2net_hub.imaging.decode import load
from u2net_hub.imaging.transforms import preprocess
from u2net_hub.training.augmentation import Augmentation
from u2net_hub.training.batches import Batches, Pictures, _jitter, normalise
from u2net_hub.training.config import Phase

CONFIG = U2NetConfig()
JITTER, STILL = Augmentation(jitter=0.2), Augmentation(flip=False)


def numbered(n: int, side: int = 8) -> Pictures:
    """Photo i is grey i, but for one pixel in the corner; its mask is i everywhere."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).repeat(1, side, side, 3)
    images[:, 0, 0] = 255
    return Pictures(images, torch.arange(n, dtype=torch.uint8).view(n, 1, 1).repeat(1, side, side))


def test_training_sees_what_inference_sees(rng: np.random.Generator) -> None:
    photo = rng.integers(0, 200, (320, 320, 3), np.uint8)
    for config in (CONFIG, CONFIG.replace(scale="255")):
        seen = normalise(torch.from_numpy(photo)[None], config)[0].numpy()
        np.testing.assert_allclose(seen, preprocess(load(photo), config), atol=1e-6)


def test_a_black_picture_stays_finite() -> None:
    black = normalise(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), CONFIG)
    assert black[0, :, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


def test_pictures_are_resized_as_inference_resizes_them(tmp_path: Path, rng: np.random.Generator) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    photo = rng.integers(0, 255, (50, 70, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "images/a.png")
    Image.fromarray(photo[..., 0]).save(tmp_path / "masks/a.png")
    pictures = Pictures.read(SaliencyDataset(tmp_path), (32, 24))
    expected = np.asarray(Image.fromarray(photo).resize((24, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pictures.images[0], expected)


@pytest.fixture
def three_pairs(tmp_path: Path, rng: np.random.Generator) -> SaliencyDataset:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for name in "abc":
            photo = Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8))
            photo.convert("RGB" if folder == "images" else "L").save(tmp_path / folder / f"{name}.png")
    return SaliencyDataset(tmp_path)


def test_pictures_kept_on_disk_are_the_same(three_pairs: SaliencyDataset, tmp_path: Path) -> None:
    memory = Pictures.read(three_pairs, (16, 16))
    disk = Pictures.read(three_pairs, (16, 16), folder=tmp_path)
    assert torch.equal(memory.images, disk.images)
    assert torch.equal(memory.masks, disk.masks)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file keeps its name there")
def test_pictures_kept_on_disk_leave_no_file(three_pairs: SaliencyDataset, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    pictures = Pictures.read(three_pairs, (16, 16), folder=tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert len(pictures) == 3


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve files")
def test_a_disk_without_room_is_an_error_before_decoding(
    three_pairs: SaliencyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(OSError, match=r"has no room for 0\.00 GiB of decoded pictures.*No space left"):
        Pictures.read(three_pairs, (16, 16), folder=tmp_path)


def test_a_system_that_cannot_reserve_files_writes_them_in_full(
    three_pairs: SaliencyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    disk = Pictures.read(three_pairs, (16, 16), folder=tmp_path)
    assert torch.equal(disk.images, Pictures.read(three_pairs, (16, 16)).images)


@pytest.mark.parametrize("seed", [20240101, 2**63, 2**64 - 1])
def test_any_seed_works(seed: int) -> None:
    batches = Batches(numbered(10), CONFIG, Phase(1, 8, 6), batch_size=4, seed=seed, augmentation=JITTER)
    assert batches[0][0].isfinite().all()


def test_a_large_seed_is_not_cut_off() -> None:
    def order(seed: int) -> list[int]:
        return Batches(numbered(100), CONFIG, Phase(1, 8, 8), batch_size=100, seed=seed).indices(0)

    assert order(1) != order(1 + 2**24) != order(1 + 2**44)


def test_class_numbers_are_never_mixed_by_resizing() -> None:
    masks = (
        torch.tensor([[[0, 5], [5, 0]]], dtype=torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    )
    pictures = Pictures(torch.zeros(1, 16, 16, 3, dtype=torch.uint8), masks)
    assert pictures.resized((5, 5), classes=True).masks.unique().tolist() == [0, 5]


def test_class_numbers_are_never_mixed_when_they_are_read(tmp_path: Path) -> None:
    numbers = np.zeros((9, 9), np.uint8)
    numbers[:, 5:] = 2  # between 0 and 2 lies class 1, which is not in the mask
    for folder, picture in (("images", np.zeros((9, 9, 3), np.uint8)), ("masks", numbers)):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "a.png")
    read = Pictures.read(SaliencyDataset(tmp_path, classes=3), (4, 4))
    assert set(read.masks.unique().tolist()) == {0, 2}


def test_no_sample_is_dropped_and_none_comes_twice_in_an_epoch() -> None:
    batches = Batches(numbered(10), CONFIG, Phase(1, 8, 8), batch_size=4, seed=3)
    stream = [i for number in range(5) for i in batches.indices(number)]
    assert Counter(stream) == Counter({i: 2 for i in range(10)})
    assert sorted(stream[:10]) == list(range(10))
    assert stream[:10] != stream[10:]


def test_a_batch_depends_on_its_number_and_the_seed_alone() -> None:
    def batches(seed: int) -> Batches:
        return Batches(
            numbered(10),
            CONFIG,
            Phase(1, 8, 6),
            batch_size=4,
            seed=seed,
            augmentation=JITTER,
        )

    first, again = batches(1), batches(1)
    later = [again[number] for number in (7, 2)][1]
    assert torch.equal(first[2][0], later[0])
    assert not torch.equal(first[2][1], batches(2)[2][1])


def test_processes_share_one_global_batch() -> None:
    whole = Batches(numbered(10), CONFIG, Phase(1, 8, 6), batch_size=4, seed=1, augmentation=JITTER)[3]
    parts = [
        Batches(
            numbered(10),
            CONFIG,
            Phase(1, 8, 6),
            batch_size=4,
            seed=1,
            augmentation=JITTER,
            rank=rank,
            world=2,
        )[3]
        for rank in (0, 1)
    ]
    for both, *halves in zip(whole, *parts, strict=True):
        assert torch.equal(both, torch.cat(halves))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 3 does not divide among 2"):
        Batches(numbered(10), CONFIG, Phase(1, 8, 8), batch_size=3, seed=0, world=2)


def test_photo_and_mask_are_cropped_and_mirrored_alike() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    pictures = Pictures(ramp[..., None].repeat(1, 1, 1, 3), ramp)
    batches = Batches(pictures, CONFIG.replace(scale="255"), Phase(1, 8, 5), batch_size=16, seed=0)
    x, target = batches[0]
    photo = (x[:, :1] * 0.229 + 0.485) * 255
    torch.testing.assert_close(photo, target * 255, atol=1e-3, rtol=0)
    steps = {round(float(255 * (t[0, 0, 1] - t[0, 0, 0]))) for t in target}
    assert steps == {1, -1}  # some as they were, some mirrored left to right, none upside down
    assert all(round(float(255 * (t[0, 1, 0] - t[0, 0, 0]))) == 8 for t in target)
    assert len({float(t.min()) for t in target}) > 3  # crops from several places


def test_without_flip_and_crop_nothing_is_moved() -> None:
    pictures = numbered(4)
    x, target = Batches(pictures, CONFIG, Phase(1, 8, 8), batch_size=4, seed=0, augmentation=STILL)[0]
    order = Batches(pictures, CONFIG, Phase(1, 8, 8), batch_size=4, seed=0).indices(0)
    assert torch.equal(x, normalise(pictures.images[order], CONFIG))
    assert torch.equal(target[:, 0], pictures.masks[order].float() / 255)


def test_jitter_changes_photos_by_its_factor_at_most_and_masks_never() -> None:
    grey = Pictures(
        torch.full((1, 4, 4, 3), 100, dtype=torch.uint8), torch.full((1, 4, 4), 255, dtype=torch.uint8)
    )
    config = CONFIG.replace(scale="255", mean=(0, 0, 0), std=(1, 1, 1))
    x, target = Batches(grey, config, Phase(1, 4, 4), batch_size=64, seed=0, augmentation=JITTER)[0]
    values = (x * 255).round().unique()
    assert 80 <= values.min() < 90
    assert 110 < values.max() <= 120
    assert target.min() == 1


def test_class_masks_come_as_numbers() -> None:
    _, target = Batches(numbered(4), CONFIG, Phase(1, 8, 8), batch_size=4, seed=0, classes=True)[0]
    assert target.dtype == torch.int64
    assert target.shape == (4, 8, 8)
    assert sorted(target[:, 0, 0].tolist()) == [0, 1, 2, 3]


def test_jitter_stops_at_white() -> None:
    images = torch.full((1, 2, 2, 3), 200, dtype=torch.uint8)
    assert (_jitter(images, torch.tensor([[2.0, 1.0, 1.0]])) == 255).all()


EVERYTHING = Augmentation(
    area=0.3, rotation=40, background=0.5, jitter=0.2, hue=0.1, blur=1.0, jpeg=50
)  # fmt: skip


def textured(n: int = 10, side: int = 24) -> Pictures:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, side, side, 3), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(n, side, side, dtype=torch.uint8)
    masks[:, 6:18, 6:18] = 255
    return Pictures(images, masks)


def test_photo_and_mask_are_enlarged_and_turned_alike() -> None:
    ramp = torch.arange(0, 64 * 3, 3, dtype=torch.uint8).view(1, 8, 8)
    pictures = Pictures(ramp[..., None].repeat(1, 1, 1, 3), ramp)
    turned = Augmentation(area=0.3, rotation=40)
    x, target = Batches(
        pictures, CONFIG.replace(scale="255"), Phase(1, 8, 6), batch_size=16, seed=0, augmentation=turned
    )[0]
    torch.testing.assert_close((x[:, :1] * 0.229 + 0.485) * 255, target * 255, atol=1e-3, rtol=0)
    assert len({tuple(t.flatten().tolist()) for t in target}) == 16


def test_an_augmented_batch_depends_on_its_number_and_the_seed_alone() -> None:
    def batches() -> Batches:
        return Batches(textured(), CONFIG, Phase(1, 24, 16), batch_size=4, seed=1, augmentation=EVERYTHING)

    again = batches()
    again[0]
    for first, second in zip(batches()[5], again[5], strict=True):
        assert torch.equal(first, second)


def test_processes_share_one_augmented_batch() -> None:
    def part(rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
        return Batches(
            textured(), CONFIG, Phase(1, 24, 16), batch_size=8, seed=1, augmentation=EVERYTHING,
            rank=rank, world=world,
        )[3]  # fmt: skip

    for both, *halves in zip(part(0, 1), part(0, 2), part(1, 2), strict=True):
        assert torch.equal(both, torch.cat(halves))


def test_one_change_leaves_the_random_numbers_of_the_others() -> None:
    def target(augmentation: Augmentation) -> torch.Tensor:
        return Batches(textured(), CONFIG, Phase(1, 24, 16), batch_size=8, seed=1, augmentation=augmentation)[
            2
        ][1]

    assert torch.equal(target(Augmentation()), target(Augmentation(hue=0.1, blur=1, jpeg=50, background=1)))
    assert torch.equal(target(Augmentation(area=0.5)), target(Augmentation(area=0.5, jitter=0.2, hue=0.1)))


def test_an_object_comes_before_the_background_of_another_photo() -> None:
    # photo i is grey 10 · i with a white object
    images = (torch.arange(1, 6, dtype=torch.uint8) * 10).view(5, 1, 1, 1).repeat(1, 24, 24, 3)
    images[:, 6:18, 6:18] = 255
    pictures = Pictures(images, textured(5).masks)
    batches = Batches(
        pictures, CONFIG.replace(scale="255", mean=(0, 0, 0), std=(1, 1, 1)), Phase(1, 24, 24), batch_size=5,
        seed=0, augmentation=Augmentation(background=1.0),
    )  # fmt: skip
    x, target = batches[0]
    for own, photo, mask in zip(batches.indices(0), (x * 255).round(), target, strict=True):
        assert (photo[:, mask[0] == 1] == 255).all()
        (grey,) = photo[:, mask[0] == 0].unique().tolist()
        assert grey in {10 * i for i in range(1, 6)} - {10 * (own + 1)}


def test_repeated_samples_come_as_often_in_an_epoch() -> None:
    batches = Batches(numbered(3), CONFIG, Phase(1, 8, 8), batch_size=3, seed=0, samples=[0, 1, 1, 2, 2, 2])
    assert Counter(batches.indices(0) + batches.indices(1)) == {0: 1, 1: 2, 2: 3}


def test_mattes_train_with_their_values() -> None:
    _, target = Batches(numbered(4), CONFIG, Phase(1, 8, 8), batch_size=4, seed=0)[0]
    assert sorted((target[:, 0, 0, 0] * 255).tolist()) == [0, 1, 2, 3]
