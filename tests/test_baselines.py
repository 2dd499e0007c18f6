"""Baselines of the occlusion task: numbers worked out by hand, ties, and what must not change a choice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from readout import baselines

# ---- values of a square


@pytest.mark.parametrize(
    ("at", "distance"),
    # From (111.5, 111.5) to (45, 45), (179, 179) and (111, 111): 66.5, 67.5 and 0.5 times the root of 2.
    [((0, 0), 94.045), ((134, 134), 95.459), ((66, 66), 0.7071), ((66, 0), np.hypot(0.5, 66.5))],
)
def test_centre_has_the_published_half_pixel(at, distance):
    """A square in one corner is half a pixel farther away than in the opposite one."""
    assert baselines.centre(at, 90, (224, 224)) == pytest.approx(distance, abs=1e-3)


def test_centre_of_an_oblong_image():
    """Rows go with the height: (4 + 1 - 4.5, 0 + 1 - 1.5)."""
    assert baselines.centre((4, 0), 2, (10, 4)) == pytest.approx(np.hypot(0.5, 0.5))


def test_variance_pools_the_channels():
    """A pure red patch: a third of the values is 1, so the deviation is the root of 1/3 x 2/3, not 0."""
    image = np.zeros((3, 6, 6))
    image[0] = 1
    assert baselines.variance(image, (1, 2), 3) == pytest.approx(0.4714, abs=1e-4)


def test_variance_of_equal_values_is_zero_to_the_last_bit():
    """The mean of equal numbers is not always that number in floating point: one flat patch would vary more."""
    images = [np.full((3, 13, 13), value / 255) for value in range(256)]
    assert all(baselines.variance(image, (0, 0), 13) == 0 for image in images)
    assert any(image.std() > 0 for image in images), "the control: the plain formula leaves a rest"


def test_variance_is_of_the_square_alone():
    """Rows first: at (0, 2) there is one bright pixel of four, in each channel."""
    image = np.zeros((3, 4, 4))
    image[:, 1, 3] = 1
    assert baselines.variance(image, (0, 2), 2) == pytest.approx(np.sqrt(3 / 16))
    assert baselines.variance(image, (2, 0), 2) == 0


# ---- saliency


def test_what_stands_out_is_salient():
    """One bright square on texture is where the map is highest, wherever it is."""
    texture = np.random.default_rng(0).uniform(0.4, 0.6, (3, 64, 64))
    for top, left in ((10, 40), (44, 12)):
        image = texture.copy()
        image[:, top : top + 6, left : left + 6] = 1
        found = baselines.saliency_map(image)
        assert found.shape == (64, 64)
        row, column = np.unravel_index(found.argmax(), found.shape)
        assert abs(row - top - 2.5) <= 5
        assert abs(column - left - 2.5) <= 5
        on, off = (baselines.saliency(found, at, 12) for at in ((top - 3, left - 3), (left - 3, top - 3)))
        assert on > 2 * off


def _by_definition(image):
    """The map by loops over frequencies, for images all of whose frequencies have an amplitude."""
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    spectrum = np.fft.fft2(grey)
    log = np.log(np.abs(spectrum))
    height, width = log.shape
    mean = np.zeros_like(log)
    for i in range(height):
        for j in range(width):
            mean[i, j] = np.mean([log[(i + a) % height, (j + b) % width] for a in (-1, 0, 1) for b in (-1, 0, 1)])
    energy = np.abs(np.fft.ifft2(np.exp(log - mean + 1j * np.angle(spectrum)))) ** 2
    # A Gaussian cut at 4 deviations, reflected at the border.
    sigma = width / 26
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(energy, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="symmetric")
        energy = np.apply_along_axis(lambda line: np.convolve(line, weights, "valid"), axis, padded)
    return energy


def test_saliency_is_the_spectral_residual():
    """Against the definition in plain loops: luminance, 3 x 3 mean, phases, square, and the Gaussian's width."""
    image = np.random.default_rng(0).random((3, 20, 26))
    assert baselines.saliency_map(image) == pytest.approx(_by_definition(image), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_flat_image_is_equally_salient_everywhere(value):
    """Where frequencies have no amplitude, rounding must not decide."""
    found = baselines.saliency_map(np.full((3, 32, 32), value))
    squares = [baselines.saliency(found, at, 13) for at in ((0, 0), (19, 7))]
    assert baselines.choose(*squares) == 0.5


# ---- decisions


def test_choices():
    """The larger value, whatever its sign; a tie is half right."""
    larger, smaller = np.array([2.0, 1, 1, -3]), np.array([1.0, 2, 1, -2])
    assert baselines.choose(larger, smaller).tolist() == [1, 0, 0.5, 0]
    assert float(baselines.choose(0.0, 0.0)) == 0.5


def test_rounding_is_no_difference():
    """Sums of the same numbers in another order differ in their last bits; a millionth is a difference."""
    assert baselines.choose(0.1 + 0.2, 0.3) == 0.5
    assert baselines.choose(0.3 * (1 + 1e-6), 0.3) == 1
    assert baselines.choose(1e-300, 0.0) == 1


@given(arrays(float, (5, 2), elements=st.floats(-10, 10)))
def test_exchanged_queries_exchange_the_answer(values):
    assert np.array_equal(baselines.choose(*values.T), 1 - baselines.choose(*values.T[::-1]))


def test_equally_far_squares_are_a_tie():
    """Corners that the half pixel leaves alike: top right and bottom left."""
    far = [baselines.centre(at, 90, (224, 224)) for at in ((0, 134), (134, 0))]
    assert baselines.choose(*far) == 0.5


def test_directions_are_the_published_ones():
    """A max query that hides a flat dark corner, and a min query that hides the object in the middle: all are right."""
    image = np.full((3, 32, 32), 0.2)
    image[:, 12:20, 12:20] = np.random.default_rng(0).random((3, 8, 8))
    corner, middle, side = (0, 0), (10, 10), 12
    found = baselines.saliency_map(image)
    values = {
        "centre": [baselines.centre(at, side, (32, 32)) for at in (corner, middle)],
        "variance": [baselines.variance(image, at, side) for at in (corner, middle)],
        "saliency_sr": [baselines.saliency(found, at, side) for at in (corner, middle)],
        # Given as numbers: the class is more probable where the object is seen.
        "class": [0.8, 0.1],
    }
    assert values.keys() == baselines.DIRECTION.keys()
    for name, pair in values.items():
        assert baselines.choose(*(baselines.DIRECTION[name] * np.array(pair))) == 1, name


# ---- how easy a unit looks


def test_local_contrast_by_hand():
    """[[1, 2], [3, -1]]: 1 + 2 to the neighbours and 1 + 1 to the outside, then 1 + 3 + 4, 2 + 4 + 6, 3 + 4 + 2.

    The mean over the four positions is 34 / 4, and the maximum is 3.
    """
    maps = np.array([[[1.0, 2], [3, -1]], [[0, 0], [0, 0]]])
    assert baselines.local_contrast(maps) == pytest.approx([(5 + 8 + 12 + 9) / 4 / 3, 0])


def test_local_contrast_of_one_position():
    """Its four neighbours are outside, where the map is 0: 10, of a maximum of 2.5."""
    assert baselines.local_contrast(np.array([[[2.5]]])).tolist() == [4]


def test_local_contrast_of_a_map_without_a_positive_value():
    """Has no scale, though it differs from the 0 outside."""
    assert baselines.local_contrast(-np.ones((1, 3, 3))).tolist() == [0]


@given(arrays(np.float64, (2, 3, 4), elements=st.floats(-4, 4, width=16)), st.sampled_from([0.5, 2.0, 8.0]))
def test_contrast_does_not_depend_on_the_scale(maps, factor):
    assert baselines.local_contrast(factor * maps) == pytest.approx(baselines.local_contrast(maps))


def test_sparsity_counts_what_is_zero_or_below():
    maps = np.array([[[1.0, 0], [-2, 3]], [[1, 1], [1, 1]], [[0, 0], [-1, 0]]])
    assert baselines.sparsity(maps).tolist() == [0.5, 0, 1]
