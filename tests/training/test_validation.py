"""The maps and scores that checkpoints are compared by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from u2net_hub import U2Net, U2NetConfig
from u2net_hub.config import Stage
from u2net_hub.imaging import load, preprocess
from u2net_hub.training.batches import Pictures
from u2net_hub.training.validation import predict, score


@pytest.fixture
def pictures(rng: np.random.Generator) -> Pictures:
    images = rng.integers(0, 255, (3, 32, 32, 3), np.uint8)
    return Pictures(torch.from_numpy(images), torch.from_numpy((images[..., 0] > 127).astype(np.uint8) * 255))


def test_each_map_is_stretched_by_the_official_min_max(tiny: object, pictures: Pictures) -> None:
    network: U2Net = tiny(0)
    maps = predict(network, pictures)
    assert maps.dtype == np.uint8
    for image, found in zip(pictures.images.numpy(), maps, strict=True):
        x = torch.from_numpy(preprocess(load(image), network.config))[None]
        with torch.inference_mode():
            d = network(x)[0].sigmoid()[0, 0].numpy().astype(np.float64)
        assert np.ptp(d) < 0.9  # so that the stretch is no small change
        # normPRED of the official u2net_test.py
        np.testing.assert_allclose(found, 255 * (d - d.min()) / (d.max() - d.min()), atol=1)
        assert (found.min(), found.max()) == (0, 255)


def test_predicting_leaves_the_network_in_its_mode(tiny: object, pictures: Pictures) -> None:
    network: U2Net = tiny(0).train()
    predict(network, pictures)
    assert network.training


def test_the_error_of_a_map_by_hand(pictures: Pictures) -> None:
    wrong = pictures.masks.numpy().copy()
    wrong[:, :8] = 255 - wrong[:, :8]
    assert score(wrong, pictures, classes=None)["mae"] == pytest.approx(8 / 32, abs=1e-6)


def test_the_map_of_a_network_for_classes_holds_the_likeliest(pictures: Pictures) -> None:
    stages = tuple(Stage(f"stage{i}", 2, 2, 3) for i in range(3))
    torch.manual_seed(0)
    network = U2Net(
        U2NetConfig(
            variant="custom", stages=stages, input_size=(32, 32), out_channels=3, activation="softmax"
        )
    ).eval()
    maps = predict(network, pictures)
    for image, found in zip(pictures.images.numpy(), maps, strict=True):
        x = torch.from_numpy(preprocess(load(image), network.config))[None]
        with torch.inference_mode():
            logits = network(x)[0][0]
        sure = logits.sort(0).values.diff(dim=0)[-1] > 1e-3  # no two classes are nearly alike
        assert sure.any()
        assert (torch.from_numpy(found)[sure] == logits.argmax(0)[sure]).all()


def test_pixels_without_a_label_are_left_out_of_the_score() -> None:
    gt = torch.tensor([[[0, 0, 1, 1, 255, 255]]], dtype=torch.uint8)
    found = np.array([[[0, 1, 1, 1, 0, 1]]], np.uint8)
    pictures = Pictures(torch.zeros(1, 1, 6, 3, dtype=torch.uint8), gt)
    # of class 0 one pixel of one or two is found, of class 1 two of two or three
    assert score(found, pictures, classes=2) == {"miou": pytest.approx((1 / 2 + 2 / 3) / 2)}
