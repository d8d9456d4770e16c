"""Batches of several sizes."""

from __future__ import annotations

import torch

from u2net_hub.training.scales import rescale


def test_a_batch_gets_one_of_the_sizes_and_its_number_decides_which() -> None:
    x, target = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    sizes = [rescale(x, target, (0.75, 1.0, 1.25), seed=0, number=i)[0].shape[-1] for i in range(60)]
    assert sizes == [rescale(x, target, (0.75, 1.0, 1.25), seed=0, number=i)[0].shape[-1] for i in range(60)]
    # of 60 draws, each of three sizes has 20 on the mean, with a standard deviation of 3.7
    assert {size: 5 < sizes.count(size) < 35 for size in set(sizes)} == {48: True, 64: True, 80: True}
    other = [rescale(x, target, (0.75, 1.0, 1.25), seed=1, number=i)[0].shape[-1] for i in range(60)]
    assert other != sizes


def test_photo_and_mask_are_resized_alike() -> None:
    ramp = torch.linspace(0, 1, 64).repeat(64, 1)[None, None]
    x, target = rescale(ramp.repeat(1, 3, 1, 1), ramp, (0.5,), seed=0, number=0)
    assert (x.shape, target.shape) == ((1, 3, 32, 32), (1, 1, 32, 32))
    torch.testing.assert_close(x[:, :1], target)


def test_class_numbers_are_not_mixed() -> None:
    labels = torch.randint(0, 2, (1, 64, 64)) * 255
    _, target = rescale(torch.rand(1, 3, 64, 64), labels, (0.75,), seed=0, number=0)
    assert target.shape == (1, 48, 48)
    assert target.dtype == torch.int64
    assert set(target.unique().tolist()) <= {0, 255}


def test_a_scale_of_one_changes_nothing() -> None:
    x, target = torch.rand(1, 3, 36, 36), torch.rand(1, 1, 36, 36)
    assert rescale(x, target, (1.0,), seed=0, number=0) == (x, target)


def test_sides_are_multiples_of_eight_and_never_below_32() -> None:
    x, target = torch.rand(1, 3, 100, 40), torch.rand(1, 1, 100, 40)
    assert rescale(x, target, (0.75,), seed=0, number=0)[0].shape[2:] == (72, 32)
