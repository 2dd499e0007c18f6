"""Cells: which classes a target is contrasted with, selectivity and magnitude, and the grid."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from conftest import write_means
from jobs import cells as job
from jobs import groups
from readout import StudyError, cells
from runtime import parquet

CLASSES = [f"c{i:02d}" for i in range(30)]


def test_random_10_draws_ten_others():
    """Ten different classes of the pool, sorted, without the target."""
    drawn = cells.others(CLASSES, "c03", "random_10", seed=0)
    assert len(set(drawn)) == 10
    assert list(drawn) == sorted(drawn)
    assert set(drawn) < set(CLASSES) - {"c03"}


@pytest.mark.parametrize("size", [2, 5, 11])
def test_all_others_where_there_are_ten_or_fewer(size):
    """Drawing ten of ten leaves nothing to chance."""
    pool = CLASSES[:size]
    assert cells.others(pool, "c00", "random_10", seed=0) == tuple(pool[1:])


def test_all_takes_every_other_class():
    """Also where there are more than ten."""
    assert cells.others(CLASSES, "c29", "all", seed=0) == tuple(CLASSES[:29])


def test_a_pool_of_one_is_an_error():
    """The message names the class and the way out."""
    with pytest.raises(StudyError, match=r"class a: .*no other class.*add classes"):
        cells.others(["a"], "a", "random_10", seed=0)


@given(st.permutations(CLASSES), st.sampled_from(CLASSES))
def test_the_draw_does_not_depend_on_the_order_of_the_pool(pool, target):
    """The order of the classes in a configuration must change nothing."""
    assert cells.others(pool, target, "random_10", 0) == cells.others(CLASSES, target, "random_10", 0)


@given(st.sets(st.sampled_from(CLASSES), min_size=2, max_size=29), st.sampled_from(CLASSES), st.integers(0, 3))
def test_a_class_added_to_the_pool_is_at_most_swapped_in(pool, target, seed):
    """So that a class more recomputes few cells."""
    before = set(cells.others(sorted(pool | {target}), target, "random_10", seed)) if pool - {target} else set()
    for added in set(CLASSES) - pool - {target}:
        after = set(cells.others(sorted(pool | {target, added}), target, "random_10", seed))
        assert after - before <= {added}
        assert len(before - after) <= (1 if len(before) == 10 else 0)
        assert target not in after


def test_the_draw_depends_on_seed_and_target():
    """Each target has its own draw."""
    rest = [c for c in CLASSES if c not in ("c00", "c01")]
    draws = {
        frozenset(cells.others([*rest, target], target, "random_10", seed))
        for target in ("c00", "c01")
        for seed in (0, 1)
    }
    assert len(draws) == 4


def test_every_class_is_drawn_equally_often():
    """Over 3000 seeds, 10 of 29: each is expected 1034 times with a deviation of 26; five deviations are allowed."""
    count = dict.fromkeys(CLASSES[1:], 0)
    for seed in range(3000):
        for other in cells.others(CLASSES, "c00", "random_10", seed):
            count[other] += 1
    expected, deviation = 3000 * 10 / 29, np.sqrt(3000 * 10 / 29 * 19 / 29)
    assert max(abs(n - expected) for n in count.values()) < 5 * deviation


# The toy network of conftest.py: mean activations of its 8 units over the target's and over the others' images.
TARGET_MEAN = np.array([3.0, 1, 0, 1, 2, 0, 0, 0])
OTHERS_MEAN = np.array([1.0, 1, 1, 0, 0, 2, 0, 1])


def test_selectivity_and_magnitude_by_hand():
    """(t - o) / sqrt(2) and (t + o) / sqrt(2), in float32."""
    selectivity, magnitude = cells.coordinates(TARGET_MEAN, OTHERS_MEAN)
    assert selectivity.dtype == magnitude.dtype == np.float32
    assert np.array_equal(selectivity, np.float32(np.array([2, 0, -1, 1, 2, -2, 0, -1]) / np.sqrt(2)))
    assert np.array_equal(magnitude, np.float32(np.array([4, 2, 1, 1, 2, 2, 0, 1]) / np.sqrt(2)))


@given(arrays.arrays(np.float64, (2, 7), elements=st.floats(0, 1e6)))
def test_coordinates_are_a_rotation(means):
    """Lengths stay: s^2 + m^2 = t^2 + o^2, to the precision of float32."""
    selectivity, magnitude = (c.astype(np.float64) for c in cells.coordinates(*means))
    np.testing.assert_allclose(selectivity**2 + magnitude**2, (means**2).sum(0), rtol=1e-6, atol=1e-60)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_activation_that_is_not_finite_is_an_error(broken):
    """NaN would be sorted to the most selective end."""
    with pytest.raises(StudyError, match="not finite"):
        cells.coordinates(np.array([1.0, broken]), np.array([1.0, 1.0]))


def test_grid_by_hand():
    """The toy's units, two bins by two.

    By (selectivity, unit): 5, 2, 7, 1 | 6, 3, 0, 4; the tie of units 1 and 6 at 0 straddles the cut. The lower strip by
    (magnitude, unit): 2, 7 | 1, 5; the upper: 6, 3 | 4, 0.
    """
    s, m = cells.grid(*cells.coordinates(TARGET_MEAN, OTHERS_MEAN), (2, 2))
    assert s.tolist() == [1, 0, 0, 1, 1, 0, 1, 0]
    assert m.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]


def _strips(values, indices, bins):
    """Indices in strips by (value, index), as the design says it, with nothing of numpy's sorting."""
    ordered = sorted(indices, key=lambda i: (values[i], i))
    sizes = [len(ordered) // bins + (i < len(ordered) % bins) for i in range(bins)]
    starts = [sum(sizes[:i]) for i in range(bins)]
    return [ordered[start : start + size] for start, size in zip(starts, sizes, strict=True)]


bins_and_units = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda bins: st.tuples(st.just(bins), st.integers(bins[0] * bins[1], 90))
)


@given(bins_and_units, st.data(), st.sampled_from([0, 1, 4, 1000]))
def test_cells_partition_the_units(bins_and_units, data, distinct):
    """Each unit is in one cell, sizes follow numpy.array_split, ties go by unit index; from one value to 2001."""
    bins, units = bins_and_units
    values = arrays.arrays(np.float32, units, elements=st.integers(-distinct, distinct).map(float))
    selectivity, magnitude = data.draw(values), data.draw(values)
    s, m = cells.grid(selectivity, magnitude, bins)
    sizes = [
        [len(part) for part in np.array_split(strip, bins[1])] for strip in np.array_split(np.arange(units), bins[0])
    ]
    assert [[int(((s == i) & (m == j)).sum()) for j in range(bins[1])] for i in range(bins[0])] == sizes
    for i, strip in enumerate(_strips(selectivity, range(units), bins[0])):
        for j, cell in enumerate(_strips(magnitude, strip, bins[1])):
            assert np.flatnonzero((s == i) & (m == j)).tolist() == sorted(cell)


def test_zeros_of_either_sign_are_ties():
    """0.0 and -0.0 are equal numbers."""
    zeros = np.array([0.0, -0.0, 0.0, -0.0], np.float32)
    s, m = cells.grid(zeros, zeros, (2, 2))
    assert s.tolist() == [0, 0, 1, 1]
    assert m.tolist() == [0, 1, 0, 1]


def test_all_units_dead_still_make_cells():
    """Many real layers have many dead units; their order is that of the units."""
    s, m = cells.grid(np.zeros(16, np.float32), np.zeros(16, np.float32), (4, 4))
    assert (s * 4 + m).tolist() == list(range(16))


def test_more_cells_than_units_is_an_error():
    """The message has the numbers and the way out; as many cells as units are allowed."""
    values = np.arange(15, dtype=np.float32)
    with pytest.raises(StudyError, match=r"4 x 4 cells.*the layer has 15.*fewer bins"):
        cells.grid(values, values, (4, 4))
    cells.grid(values, values, (5, 3))


def test_names_go_from_the_lowest_cell():
    """Magnitude runs fastest."""
    assert cells.names((2, 3)) == ("s0m0", "s0m1", "s0m2", "s1m0", "s1m1", "s1m2")


def test_cells_follow_from_the_means(tmp_path):
    """The job gives the grid of the means over all images, the others' images weighing equally."""
    generator = np.random.default_rng(0)
    target, one, two = (np.maximum(generator.normal(size=(n, 40)), 0).astype(np.float32) for n in (20, 20, 20))
    for name, activations in (("t", target), ("o1", one), ("o2", two)):
        write_means(tmp_path / f"{name}.parquet", activations)
    others = [tmp_path / "o1.parquet", tmp_path / "o2.parquet"]
    out = tmp_path / "cells.parquet"
    job.assign(out, path_to_target=tmp_path / "t.parquet", paths_to_others=others, layer="l", bins=[4, 4], folds=False)
    table = parquet.read(out, job.SCHEMA)
    target_mean = target.astype(np.float64).mean(0)
    others_mean = np.concatenate([one, two]).astype(np.float64).mean(0)
    # Written in float32, which rounds by 2^-24.
    np.testing.assert_allclose(table["others_mean"].to_numpy(), others_mean, rtol=6e-8)
    s, m = cells.grid(*cells.coordinates(target_mean, others_mean), (4, 4))
    assert table["unit"].to_pylist() == list(range(40))
    assert table["cell"].to_pylist() == [f"s{i}m{j}" for i, j in zip(s, m, strict=True)]
    assert np.array_equal(table["selectivity_bin"], s)
    assert np.array_equal(table["magnitude_bin"], m)
    # The coordinates as written give the grid again.
    again = cells.grid(table["selectivity"].to_numpy(), table["magnitude"].to_numpy(), (4, 4))
    assert np.array_equal(again[0], s)
    assert np.array_equal(again[1], m)
    place = {"network": "n", "layer": "l", "class_id": "t", "seed": None}
    units = [groups.find(out, cell, "cell", **place).units for cell in cells.names((4, 4))]
    assert sorted(np.concatenate(units)) == list(range(40))
    assert all(np.array_equal(u, np.sort(u)) for u in units)


def test_others_are_listed_by_target(tmp_path):
    """One row a pair."""
    job.list_others(tmp_path / "o.parquet", others={"b": ["a", "c"], "a": ["c"]})
    pairs = parquet.read(tmp_path / "o.parquet", job.OTHERS).to_pylist()
    assert [tuple(row.values()) for row in pairs] == [("a", "c"), ("b", "a"), ("b", "c")]
    assert pa.types.is_string(job.OTHERS.field("class_id").type)
