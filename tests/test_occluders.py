"""Occluders: positions, what they hide, and the extremes of units whose answers are worked out by hand."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from jobs import image_sets
from readout import StudyError, blur, occluders, squares
from runtime import parquet

# A 4 x 4 image, dark but for a bright block at the top left; the unit sums what is brighter than 0.5.
BLOCK = torch.zeros(1, 4, 4)
BLOCK[0, :2, :2] = 1


def brightness(x: torch.Tensor) -> np.ndarray:
    return (x - 0.5).clamp(min=0).mean((1, 2, 3)).numpy()[:, None]


def scanned(activation, image, side, stride=1, order=None):
    at = squares.positions(image.shape[-1], side, stride)
    at = at if order is None else at[order]
    values = occluders.scan(activation, occluders.occluding(image, side), at, [slice(0, 4), slice(4, len(at))])
    base = activation(image[None])[0]
    return at, values, [occluders.extremes(values[:, i], base[i], at, side) for i in range(values.shape[1])]


# ---- squares


@pytest.mark.parametrize(
    ("width", "side", "stride", "count", "last"),
    [
        (224, 66, 2, 6400, 158),
        (224, 90, 2, 4624, 134),
        (224, 112, 2, 3249, 112),
        (32, 13, 1, 400, 19),
        (64, 26, 1, 1521, 38),
        # A wide grid that misses the border, which is at 134.
        (224, 90, 16, 81, 128),
    ],
)
def test_positions_are_those_of_the_paper(width, side, stride, count, last):
    at = squares.positions(width, side, stride)
    assert len(at) == count
    assert at[0].tolist() == [0, 0]
    # Row after row.
    assert at[1].tolist() == [0, stride]
    assert at[-1].tolist() == [last, last]


@pytest.mark.parametrize(
    ("width", "share", "stride", "side"),
    [(224, 0.4, 2, 90), (32, 0.4, 1, 13), (64, 0.4, 1, 26), (224, 0.4, 16, 80), (33, 0.4, 2, 13), (34, 0.4, 2, 14)],
)
def test_the_side_is_reduced_until_the_grid_ends_at_the_border(width, share, stride, side):
    found = squares.side(width, share, stride)
    assert found == side
    assert squares.positions(width, found, stride)[-1].tolist() == [width - side] * 2


def test_a_stride_that_no_square_fits_is_refused():
    with pytest.raises(StudyError, match=r"no square of 0.1 of 32 pixels moves .* by steps of 31; choose another side"):
        squares.side(32, 0.1, 31)


def test_covering_adds_the_borders_that_the_stride_misses():
    at = squares.covering(224, 90, 16)
    assert len(at) == 100
    assert at[-1].tolist() == [134, 134]
    # Where the stride misses nothing, the positions are those of the grid.
    np.testing.assert_array_equal(squares.covering(32, 13, 1), squares.positions(32, 13, 1))


def test_positions_around_one_stay_inside_the_image():
    at = squares.around((0, 134), 224, 90, 8, 4)
    assert sorted({*at[:, 0].tolist()}) == [0, 4, 8]
    assert sorted({*at[:, 1].tolist()}) == [126, 130, 134]
    assert len(at) == 9


@pytest.mark.parametrize(
    ("other", "share"), [((0, 0), 1.0), ((0, 1), 2 / 6), ((1, 1), 1 / 7), ((2, 0), 0.0), ((5, 5), 0.0)]
)
def test_overlap_is_the_share_of_the_union(other, share):
    assert squares.overlap((0, 0), other, 2) == pytest.approx(share)
    assert squares.overlap(other, (0, 0), 2) == pytest.approx(share)


# ---- what is hidden


def test_a_square_is_filled_with_the_mean_of_what_it_hides():
    """0, 1, 4 and 5 have the mean 2.5."""
    image = torch.arange(16.0).reshape(1, 4, 4)
    before = image.clone()
    hidden = occluders.occlude(image, np.array([[0, 0]]), 2)[0]
    expected = before.clone()
    expected[0, :2, :2] = 2.5
    torch.testing.assert_close(hidden, expected, rtol=0, atol=0)
    # The image itself is as it was: what follows must not see it occluded twice.
    torch.testing.assert_close(image, before, rtol=0, atol=0)


def test_each_channel_has_a_mean_of_its_own():
    image = torch.stack([torch.arange(16.0).reshape(4, 4), torch.full((4, 4), 7.0), -torch.arange(16.0).reshape(4, 4)])
    hidden = occluders.occlude(image, np.array([[2, 2], [0, 1]]), 2)
    assert hidden.shape == (2, 3, 4, 4)
    assert hidden[0, :, 3, 3].tolist() == [12.5, 7.0, -12.5]
    assert hidden[1, :, 0, 1].tolist() == [3.5, 7.0, -3.5]
    assert hidden[1, :, 0, 0].tolist() == [0.0, 7.0, 0.0]


def test_occluding_commutes_with_the_normalisation():
    image = torch.rand(3, 8, 8)
    at = squares.positions(8, 3, 1)
    normalised = occluders.occlude((image - 0.4) / 0.3, at, 3)
    torch.testing.assert_close(normalised, (occluders.occlude(image, at, 3) - 0.4) / 0.3)


# ---- the two queries


def test_the_extremes_of_a_unit_by_hand():
    """The mean over a square leaves the block as it is where it hides nothing else: a grey square would not."""
    _, values, (found,) = scanned(brightness, BLOCK, 2)
    assert values[:, 0].tolist() == [0.125, 0.0625, 0.125, 0.0625, 0.09375, 0.125, 0.125, 0.125, 0.125]
    assert (found.min_top, found.min_left, found.max_top, found.max_left) == (0, 1, 0, 0)
    assert (found.base, found.min, found.max) == (0.125, 0.0625, 0.125)
    assert (found.min_ties, found.max_ties) == (2, 6)
    assert found.relative_difference == 0.5
    assert found.overlap == pytest.approx(2 / 6)
    assert found.valid
    assert not found.reason
    # The best occluder does not raise the activation.
    assert not found.beneficial


def test_the_order_of_positions_changes_which_equal_is_first_alone():
    order = np.random.default_rng(0).permutation(9)
    _, values, (found,) = scanned(brightness, BLOCK, 2, order=order)
    _, sorted_values, (expected,) = scanned(brightness, BLOCK, 2)
    np.testing.assert_array_equal(values, sorted_values[order])
    assert (found.min, found.max, found.min_ties, found.max_ties) == (expected.min, expected.max, 2, 6)


def test_the_mean_of_an_image_is_moved_by_no_occluder():
    """A unit that reads means alone is blind to a square filled with its mean: there is no right answer, no guess."""
    image = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1))
    _, _, (found,) = scanned(lambda x: x.mean((1, 2, 3)).numpy()[:, None], image, 5)
    assert not found.valid
    assert found.reason == "no occluder changes the unit's activation"


@pytest.mark.parametrize("base", [0.0, -1.0])
def test_a_base_image_must_drive_the_unit(base):
    found = occluders.extremes(np.array([0.0, 2.0]), base, np.array([[0, 0], [0, 1]]), 2)
    assert not found.valid
    assert found.reason == "the base image does not drive the unit"
    assert found.relative_difference == (None if base == 0 else -2.0)


def test_a_unit_of_opposite_sign_swaps_the_queries():
    image = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(2))
    weights = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(3))

    def both(x: torch.Tensor) -> np.ndarray:
        value = (x * weights).sum((1, 2, 3))
        return torch.stack([value, -value], 1).numpy()

    _, _, (one, other) = scanned(both, image, 5)
    assert (one.min_top, one.min_left) == (other.max_top, other.max_left)
    assert (one.max_top, one.max_left) == (other.min_top, other.min_left)


def test_a_shifted_image_shifts_the_queries():
    """In a network of circular convolutions, which has no borders."""
    generator = torch.Generator().manual_seed(4)
    kernel = torch.randn(1, 3, 3, 3, generator=generator)
    image = torch.zeros(3, 20, 20)
    image[:, 7:11, 8:12] = torch.rand(3, 4, 4, generator=generator)

    def activation(x: torch.Tensor) -> np.ndarray:
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
        return torch.nn.functional.conv2d(padded, kernel).clamp(min=0).mean((1, 2, 3)).double().numpy()[:, None]

    _, _, (found,) = scanned(activation, image, 5)
    _, _, (moved,) = scanned(activation, image.roll((2, 2), (1, 2)), 5)
    assert (moved.min_top, moved.min_left) == (found.min_top + 2, found.min_left + 2)
    # The highest is inside, too: else its ties would be the empty corner.
    assert found.max_ties == 1
    assert (moved.max_top, moved.max_left) == (found.max_top + 2, found.max_left + 2)


def test_equal_up_to_rounding_is_equal():
    """Kernels give the last bits; a first among equals that depended on them would depend on the machine."""
    values = np.array([1.0, 0.5 + 1e-9, 0.5, 1.0 + 1e-9])
    found = occluders.extremes(values, 1.0, np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), 2)
    assert (found.min_top, found.min_left, found.max_top, found.max_left) == (0, 1, 0, 0)
    assert (found.min_ties, found.max_ties) == (2, 2)


# Activations as multiples of the tolerance above the base's, and whether they have a right answer.
NEAR = [
    # The first position shares both extremes.
    ([0.7, 0, 1.5], False),
    # Another one does; which come first tells nothing.
    ([0, 1.5, 0.7], False),
    # None does, but the first to share the lowest is next to the first to share the highest.
    ([0.95, 1.05, 0, 2], False),
    ([0, 1.5], True),
    ([1, 0, 2.2, 3.2], True),
]


@pytest.mark.parametrize(("values", "valid"), NEAR)
def test_extremes_that_are_next_to_each_other_have_no_right_answer(values, valid):
    found = occluders.extremes(1 + 1e-6 * np.array(values), 1.0, squares.positions(len(values) + 1, 2, 1), 2)
    assert found.valid == valid
    assert found.reason == ("" if valid else occluders.NO_EFFECT)


def test_what_has_a_right_answer_has_two_queries_that_differ(tmp_path):
    """Whatever the activations: also where they differ by a few tolerances, and the reader takes all of it."""
    generator = np.random.default_rng(0)
    at, rows = squares.positions(5, 3, 1), []
    for i in range(2000):
        base = generator.choice([0.3, 1.0, 7.0])
        tolerance = occluders.LEAST_RANGE * max(1.0, base)
        values = base + tolerance * generator.choice([0.5, 1.5, 2.5, 4.0]) * generator.random(len(at))
        found = occluders.extremes(values, base, at, 3)
        if found.valid:
            assert found.max - found.min > tolerance
            assert (found.min_top, found.min_left) != (found.max_top, found.max_left)
            assert found.min_ties + found.max_ties <= len(at)
        # Whatever comes first: the same activations in another order.
        again = occluders.extremes(generator.permutation(values), base, at, 3)
        assert (again.valid, again.reason) == (found.valid, found.reason)
        rows.append({"unit": i, "set": 0, "image_id": 0, "size": 3, "stride": 1, "positions": 9, **asdict(found)})
    # Else nothing was tried.
    assert 200 < sum(row["valid"] for row in rows) < 1800
    path = tmp_path / "extremes.parquet"
    parquet.write(path, rows, image_sets.EXTREMES)
    assert image_sets.extremes(str(path), rows, 5) == parquet.read(path, image_sets.EXTREMES).to_pylist()


# ---- image sets


def sets(count=20, bin_size=20, references=9, images=200):
    # Shuffled, so that places in the pool tell nothing.
    activations = np.random.default_rng(5).permutation(np.arange(1.0, images + 1))
    return activations, occluders.image_sets(activations, count, bin_size, references, np.random.default_rng(6))


def test_image_sets_are_those_of_the_paper():
    """200 images in ten bins of 20: each set has one of each, the base image from the strongest."""
    activations, found = sets()
    for b, one in enumerate(found):
        assert activations[one.base] == 181 + b
        assert one.base_rank == 20 - b
        for i, image in enumerate(one.references):
            assert 20 * i < activations[image] <= 20 * (i + 1)
            assert one.reference_ranks[i] == 201 - activations[image]
    together = np.sort(np.concatenate([activations[one.references] for one in found]))
    np.testing.assert_array_equal(together, np.arange(1, 181))
    assert len({one.base for one in found}) == 20


def test_with_fewer_sets_the_strongest_images_are_left_out():
    activations, found = sets(count=10)
    assert [activations[one.base] for one in found] == list(range(181, 191))


def test_references_are_drawn_within_their_bins():
    """Else set 0 would have the weakest image of every bin."""
    activations, found = sets()
    within = np.array([activations[one.references] - 20 * np.arange(9) for one in found])
    assert not (within == within[:, :1]).all()
    # Another seed, other references, the same base images.
    other = occluders.image_sets(activations, 20, 20, 9, np.random.default_rng(7))
    assert [one.base for one in other] == [one.base for one in found]
    assert any((one.references != again.references).any() for one, again in zip(found, other, strict=True))


def test_equal_activations_are_in_a_random_order():
    """Else all that leaves a unit silent would be the first images of the pool, which are of one class."""
    activations = np.zeros(1000)
    activations[500:510] = np.arange(1, 11)
    found = occluders.image_sets(activations, 5, 5, 3, np.random.default_rng(0))
    chosen = np.concatenate([one.references for one in found])
    silent = chosen[activations[chosen] == 0]
    assert len(silent) == 10
    assert silent.std() > 150
    assert {one.base for one in found} == {505, 506, 507, 508, 509}


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(StudyError, match=r"need bins of 20 images and a pool of 200, which has 199; choose fewer"):
        sets(images=199)
    with pytest.raises(StudyError, match=r"5 image sets with 9 references each, from bins of 4"):
        sets(count=5, bin_size=4)


# ---- windows of blurred images go through the same scan


def test_a_scan_takes_windows_as_it_takes_occluders():
    image = torch.zeros(3, 12, 12)
    image[:, 3, 8] = 1
    at = squares.positions(12, 3, 1)
    values = occluders.scan(lambda x: x.amax((1, 2, 3)).numpy()[:, None], blur.opening(image, 3), at, [slice(None)])
    best = at[values[:, 0].argmax()]
    # The first window that holds the bright pixel leaves it as bright as it is.
    assert best.tolist() == [1, 6]
    assert values.max() == 1
