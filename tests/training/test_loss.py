"""Losses against hand calculations."""

from __future__ import annotations

import math

import pytest
import torch

from u2net_hub.training.loss import (
    binary_cross_entropy,
    cross_entropy,
    deep_supervision,
    saliency_loss,
    soft_iou,
)


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
