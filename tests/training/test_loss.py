"""Losses against hand calculations."""

from __future__ import annotations

import math

import pytest
import torch

from u2net_hub.training.loss import (
    TERMS,
    binary_cross_entropy,
    boundary_cross_entropy,
    cross_entropy,
    deep_supervision,
    saliency_loss,
    soft_iou,
    ssim_loss,
    structure_loss,
)
from u2net_hub.training.loss_weights import LOSSES


def test_cross_entropy_of_an_undecided_pixel_is_the_logarithm_of_two() -> None:
    logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.0, 1.0], [1.0, 0.5]]]])
    assert binary_cross_entropy(logits, target).item() == pytest.approx(math.log(2))


def test_soft_iou_of_two_pixels_by_hand() -> None:
    # saliency 0.8 and 0.4, target 1 and 0: intersection 0.8, union 1.4; with a pixel more each: 1.8 / 2.4
    logits = torch.logit(torch.tensor([0.8, 0.4])).view(1, 1, 1, 2)
    assert soft_iou(logits, torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)).item() == pytest.approx(1 - 1.8 / 2.4)


def test_soft_iou_of_an_empty_target_costs_what_is_found() -> None:
    nothing, target = torch.full((1, 1, 2, 2), -50.0), torch.zeros(1, 1, 2, 2)
    assert soft_iou(nothing, target).item() == pytest.approx(0, abs=1e-6)
    assert soft_iou(-nothing, target).item() == pytest.approx(1 - 1 / 5)


def test_the_two_terms_are_added_with_their_weights() -> None:
    logits = torch.logit(torch.tensor([0.8, 0.4])).view(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    bce = -(math.log(0.8) + math.log(0.6)) / 2
    assert saliency_loss(logits, target, bce=1, iou=0).item() == pytest.approx(bce)
    assert saliency_loss(logits, target, bce=0.5, iou=2).item() == pytest.approx(
        0.5 * bce + 2 * (1 - 1.8 / 2.4)
    )


def test_deep_supervision_sums_all_outputs_with_their_weights() -> None:
    target = torch.ones(1, 1, 1, 1)
    outputs = [torch.logit(torch.tensor(p)).view(1, 1, 1, 1) for p in (0.5, 0.25, 0.125)]
    total = deep_supervision(outputs, target, binary_cross_entropy)
    assert total.item() == pytest.approx(math.log(2) * (1 + 2 + 3))
    weighted = deep_supervision(outputs, target, binary_cross_entropy, (1.0, 0.0, 0.5))
    assert weighted.item() == pytest.approx(math.log(2) * (1 + 1.5))


def test_a_wrong_number_of_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="2 loss weights for 1 outputs"):
        deep_supervision([torch.zeros(1, 1, 1, 1)], torch.zeros(1, 1, 1, 1), binary_cross_entropy, (1.0, 1.0))


def test_the_loss_of_half_precision_logits_is_taken_in_float32() -> None:
    # in bfloat16, 1 - sigmoid(12) is 0 and its logarithm infinite
    logits = torch.full((1, 1, 1, 1), 12.0, dtype=torch.bfloat16)
    loss = deep_supervision([logits], torch.zeros(1, 1, 1, 1), binary_cross_entropy)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(12 + math.log1p(math.exp(-12)))


def test_classes_are_compared_by_cross_entropy_without_unlabelled_pixels() -> None:
    logits = torch.tensor([[2.0, 0.0, 7.0], [0.0, 1.0, -9.0]]).view(1, 2, 1, 3)
    target = torch.tensor([0, 0, 255]).view(1, 1, 3)
    by_hand = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert cross_entropy(logits, target).item() == pytest.approx(by_hand)


def test_a_batch_without_any_label_costs_nothing() -> None:
    assert cross_entropy(torch.randn(1, 2, 1, 3), torch.full((1, 1, 3), 255)).item() == 0


def test_cross_entropy_of_a_target_without_a_label_is_zero() -> None:
    target = torch.full((1, 2, 2), 255)
    assert cross_entropy(torch.randn(1, 3, 2, 2), target).item() == 0


def test_soft_iou_of_a_batch_is_the_mean_over_its_pictures() -> None:
    # by hand: saliency 0.8 of 1 gives 1.8 / 2; saliency 0.4 of 0 gives 1 / 1.4
    logits = torch.logit(torch.tensor([0.8, 0.4])).view(2, 1, 1, 1)
    target = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    expected = ((1 - 1.8 / 2) + (1 - 1 / 1.4)) / 2
    assert soft_iou(logits, target).item() == pytest.approx(expected)


def test_pixels_without_a_label_cost_nothing_whatever_the_weights() -> None:
    # likelihoods of class 0 are 0.8 and 0.4; the third pixel has no label
    logits = torch.tensor([[0.8, 0.4, 0.1], [0.2, 0.6, 0.9]]).log().view(1, 2, 1, 3)
    target = torch.tensor([[[0, 1, 255]]])
    weighted = (1 * -math.log(0.8) + 3 * -math.log(0.6)) / (1 + 3)
    assert cross_entropy(logits, target, weights=torch.tensor([1.0, 3.0])).item() == pytest.approx(weighted)
    plain = (-math.log(0.8) - math.log(0.6)) / 2
    assert cross_entropy(logits, target).item() == pytest.approx(plain)


def test_a_batch_without_labels_costs_nothing() -> None:
    logits, target = torch.zeros(1, 2, 1, 2), torch.full((1, 1, 2), 255)
    assert cross_entropy(logits, target).item() == 0
    assert cross_entropy(logits, target, weights=torch.ones(2)).item() == 0


def test_each_weight_of_the_loss_has_its_term() -> None:
    assert tuple(TERMS) == LOSSES


def test_a_picture_without_edges_has_the_unweighted_structure_loss() -> None:
    # every window is as its pixel, also at the border, so that each pixel counts once
    logits, target = torch.zeros(1, 1, 5, 4), torch.ones(1, 1, 5, 4)
    assert structure_loss(logits, target).item() == pytest.approx(math.log(2) + 1 - (10 + 1) / (20 + 1))


def test_the_structure_loss_of_two_pixels_by_hand() -> None:
    # both windows hold both pixels, so their means are 0.5 and each pixel counts 1 + 5 · 0.5 = 3.5
    logits = torch.logit(torch.tensor([0.8, 0.4])).view(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    bce = -(math.log(0.8) + math.log(0.6)) / 2
    both, either = 3.5 * 0.8, 3.5 * (0.8 + 1 + 0.4) - 3.5 * 0.8
    expected = bce + 1 - (both + 1) / (either + 1)
    assert structure_loss(logits, target).item() == pytest.approx(expected)


def test_the_structure_loss_counts_a_pixel_by_what_is_around_it() -> None:
    # a single pixel of 31 in a row: the windows of pixels 0 and 30 hold 16 pixels, and so on
    target = torch.zeros(1, 1, 1, 31)
    target[..., 15] = 1
    weights = [1 + 5 / (31 - abs(15 - i)) for i in range(31)]
    weights[15] = 1 + 5 * (1 - 1 / 31)
    logits = torch.logit(torch.linspace(0.1, 0.9, 31)).view(1, 1, 1, 31)
    p = torch.linspace(0.1, 0.9, 31).tolist()
    cost = [-math.log(q if i == 15 else 1 - q) for i, q in enumerate(p)]
    bce = sum(w * c for w, c in zip(weights, cost, strict=True)) / sum(weights)
    both = weights[15] * p[15]
    either = sum(w * q for w, q in zip(weights, p, strict=True)) + weights[15] - both
    expected = bce + 1 - (both + 1) / (either + 1)
    assert structure_loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_the_ssim_loss_is_that_of_another_implementation() -> None:
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(19.0), indexing="ij")
    logits = torch.stack([3 * torch.sin(0.7 * rows * k + 0.3 * columns) for k in (1, 2)])[:, None]
    discs = [(rows - 11) ** 2 + (columns - 9) ** 2 < 40 * k for k in (1, 2)]
    target = torch.stack(discs).float()[:, None]
    # structural_similarity of scikit-image 0.25.2 with data_range=1, gaussian_weights=True, sigma=1.5 and
    # use_sample_covariance=False
    similar = (0.1517833029 + 0.0314380223) / 2
    assert ssim_loss(logits, target).item() == pytest.approx(1 - similar, abs=1e-5)


def test_the_ssim_loss_of_flat_maps_by_hand() -> None:
    # no window varies: (2·0.5·1 + C1) / (0.25 + 1 + C1)
    loss = ssim_loss(torch.zeros(1, 1, 12, 12), torch.ones(1, 1, 12, 12))
    assert loss.item() == pytest.approx(1 - (1 + 1e-4) / (1.25 + 1e-4), abs=1e-4)


def test_pixels_at_a_boundary_count_five_times() -> None:
    # an edge between columns 3 and 4: columns 2 to 5 are within two pixels of it
    target = torch.zeros(1, 1, 1, 8)
    target[..., 4:] = 1
    p = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    weights = [1, 1, 5, 5, 5, 5, 1, 1]
    cost = [-math.log(q if i > 3 else 1 - q) for i, q in enumerate(p)]
    expected = sum(w * c for w, c in zip(weights, cost, strict=True)) / sum(weights)
    loss = boundary_cross_entropy(torch.logit(torch.tensor(p)).view(1, 1, 1, 8), target)
    assert loss.item() == pytest.approx(expected)


def test_a_soft_boundary_counts_less() -> None:
    # the matte rises by 0.5 at one place: 1 + 4 · 0.5 within two pixels of it
    target = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.5, 0.5]).view(1, 1, 1, 6)
    logits = torch.tensor([0.0, 4.0, 0.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 6)
    weights, other = [1, 3, 3, 3, 3, 1], 4 + math.log1p(math.exp(-4))
    expected = (3 * other + (sum(weights) - 3) * math.log(2)) / sum(weights)
    assert boundary_cross_entropy(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
def test_each_term_is_least_for_the_right_map_and_has_a_gradient(name: str) -> None:
    target = torch.zeros(1, 1, 16, 16)
    target[..., 4:12, 5:11] = 1
    right = 20 * (2 * target - 1)
    assert TERMS[name](right, target).item() == pytest.approx(0, abs=1e-3)
    unsure = torch.zeros(1, 1, 16, 16, requires_grad=True)
    TERMS[name](unsure, target).backward()
    assert unsure.grad is not None
    # a step against the gradient raises the object and lowers the background, at least on the mean
    step = -unsure.grad
    assert step[target > 0].mean() > step[target == 0].mean()
