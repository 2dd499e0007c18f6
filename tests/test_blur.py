"""Blurred references: what is sharp, what is blurred and how, and which window a unit chooses."""

import math

import numpy as np
import pytest
import torch

from readout import blur, occluders


def photograph(width, channels=3, seed=0):
    return torch.rand(channels, width, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("width", "side", "sigma"), [(224, 21, 3.5), (32, 3, 0.5), (64, 5, 1.0), (8, 3, 0.125)])
def test_the_kernel_is_in_proportion_to_the_width(width, side, sigma):
    """The published numbers at 224 pixels; never without a neighbour."""
    assert blur.kernel(width) == (side, pytest.approx(sigma))


def test_a_window_is_sharp_and_the_rest_is_the_blur_of_the_whole_image():
    """Pixel for pixel, at a border and inside; the image stays as it is."""
    image = photograph(32)
    before = image.clone()
    at = np.array([[0, 0], [5, 9], [19, 19]])
    found = blur.windows(image, at, 13)
    soft = blur.blurred(image)
    assert not torch.isclose(soft, image, atol=1e-3).any(0).all()
    for one, (top, left) in zip(found, at, strict=True):
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[top : top + 13, left : left + 13] = True
        assert torch.equal(one[:, inside], image[:, inside])
        assert torch.equal(one[:, ~inside], soft[:, ~inside])
    assert torch.equal(image, before)


def test_the_blur_by_hand():
    """At 224 pixels a point becomes a Gaussian of 3.5 pixels, cut off after 10; at a border it is reflected."""
    image = torch.zeros(1, 224, 224)
    image[0, 100, 100] = 1
    weights = np.exp(-0.5 * (np.arange(-10, 11) / 3.5) ** 2)
    weights /= weights.sum()
    found = blur.blurred(image)[0].numpy()
    expected = np.zeros((224, 224))
    expected[90:111, 90:111] = np.outer(weights, weights)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    # The border's own pixel is not doubled: of the column beside it both weights count.
    image = torch.zeros(1, 32, 32)
    image[0, :, 1] = 1
    side = math.exp(-2)
    assert blur.blurred(image)[0, 5, 0].item() == pytest.approx(2 * side / (1 + 2 * side))


def test_a_constant_image_is_not_changed():
    """Not in a single bit, whatever the window."""
    for width in (32, 64, 224):
        image = torch.linspace(0.05, 0.95, 19)[:, None, None].expand(19, width, width)
        assert torch.equal(blur.windows(image, np.array([[3, 4]]), 13)[0], image)


def test_blur_and_normalisation_commute():
    """So that an image may be blurred as the network sees it."""
    image = photograph(32)
    at = np.array([[2, 3]])
    seen = blur.windows((image - 0.4) / 0.2, at, 13)
    assert torch.allclose(seen, (blur.windows(image, at, 13) - 0.4) / 0.2, atol=1e-6)


def test_the_window_of_highest_activation():
    """A unit that reads contrast looks where the contrast is; one that reads none takes the first; batches do not count."""
    image = torch.full((3, 32, 32), 0.5)
    # Stripes, which the blur levels.
    image[:, 16:28, 8:20:2] = 1.0
    at = np.array([[top, left] for top in (0, 8, 16) for left in (0, 8, 16)])

    def activation(images):
        edges = (images[..., 1:] - images[..., :-1]).abs().sum((1, 2, 3))
        return torch.stack([edges, -edges, torch.ones(len(images))], 1)

    def scanned(batch):
        batches = [slice(i, i + batch) for i in range(0, len(at), batch)]
        return occluders.scan(lambda x: activation(x).numpy(), blur.opening(image, 12), at, batches)

    found = scanned(4)
    # At (0, 16) as at (0, 0) no stripe is sharp; (0, 0) comes first.
    assert at[found.argmax(0)].tolist() == [[16, 8], [0, 0], [0, 0]]
    sharp = blur.windows(image, np.array([[16, 8]]), 12)
    assert found.max(0)[0] == pytest.approx(activation(sharp)[0, 0].item())
    np.testing.assert_allclose(scanned(100), found)
