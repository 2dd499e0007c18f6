"""Outcomes: what an ablation does to the target's images and to the others', by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from readout.outcomes import Images, against, one_sided


def ranked(before, after) -> tuple[Images, Images]:
    """Images of a target with these ranks before and after an ablation, and log-probabilities of 0."""
    none = np.zeros(len(before))
    return tuple(Images(none.astype(int), np.empty((0, 1)), np.asarray(rank), none) for rank in (before, after))


@pytest.mark.parametrize(
    ("baseline", "ablated", "deficit", "change"),
    [
        # (5 + 0 + 0 + 2) / 4, and (5 - 3 + 0 + 2) / 4: a gain counts as nothing lost.
        ([0, 3, 1, 0], [5, 0, 1, 2], 1.75, 1.0),
        # Pure noise has a deficit, but no change.
        ([1, 1], [0, 2], 0.5, 0.0),
        ([4, 4], [0, 0], 0.0, -4.0),
        ([7], [7], 0.0, 0.0),
    ],
)
def test_deficit_and_change_by_hand(baseline, ablated, deficit, change):
    """Mean of max(0, change), and mean of the change."""
    found = one_sided(*ranked(np.array(baseline, np.int32), np.array(ablated, np.int32)))
    assert found == {"rank_deficit": deficit, "rank_change": change, "log_p_change": 0.0}


def test_unsigned_ranks_do_not_wrap():
    """0 less 3 is -3 whatever the type of the ranks."""
    found = one_sided(*ranked(np.array([3], np.uint8), np.array([0], np.uint8)))
    assert (found["rank_deficit"], found["rank_change"]) == (0.0, -3.0)


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1, max_size=50))
def test_the_deficit_is_the_change_without_its_gains(ranks):
    """The deficit is never below the change nor below zero; nothing changed is zero."""
    baseline, ablated = (np.array(column, np.int32) for column in zip(*ranks, strict=True))
    found, back, none = (
        one_sided(*ranked(*pair)) for pair in ((baseline, ablated), (ablated, baseline), (baseline, baseline))
    )
    assert found["rank_deficit"] >= max(0.0, found["rank_change"])
    assert found["rank_change"] == pytest.approx(found["rank_deficit"] - back["rank_deficit"], abs=1e-9)
    assert set(none.values()) == {0.0}


def test_a_cell_that_is_like_the_random_groups_does_not_stand_out():
    """4,000 worlds in which a cell's effect is drawn like those of ten random groups, and as many with 2 added.

    In the null world the difference is 0 on average, and z over sqrt(1 + 1 / 10) has Student's distribution with nine
    degrees of freedom: 5 % of them are beyond its 97.5 % quantile. Bounds are four standard errors.
    """
    worlds = np.random.default_rng(0).normal(size=(4000, 11))
    null = np.array([against(world[0], world[1:]) for world in worlds])
    less = math.sqrt(1.1) * 4 / math.sqrt(len(worlds))
    assert abs(null[:, 0].mean()) < less
    beyond = (np.abs(null[:, 1]) / math.sqrt(1.1) > student.ppf(0.975, 9)).mean()
    assert abs(beyond - 0.05) < 4 * math.sqrt(0.05 * 0.95 / len(worlds))
    found = np.array([against(world[0] + 2, world[1:]) for world in worlds])
    assert abs(found[:, 0].mean() - 2) < less
    assert (found[:, 1] / math.sqrt(1.1) > student.ppf(0.975, 9)).mean() > 5 * 0.05


@pytest.mark.parametrize(
    ("effect", "random", "less", "z"),
    [
        # Mean 2, deviation 1.
        (3.0, [1, 2, 3], 1.0, 1.0),
        # Mean 1, and sqrt((1 + 1) / 1), not sqrt((1 + 1) / 2).
        (4.0, [0, 2], 3.0, 3 / math.sqrt(2)),
        (-1.0, [0, 2], -2.0, -2 / math.sqrt(2)),
        (1.0, [0, 2], 0.0, 0.0),
        # One, or equal ones: no deviation, whatever the effect.
        (4.0, [1], 3.0, None),
        (4.0, [1, 1, 1], 3.0, None),
        (1.0, [1, 1, 1], 0.0, None),
        # Of three times 0.1 the mean is not 0.1.
        (0.35, [0.1, 0.1, 0.1], 0.25, None),
        (0.35, [0.7] * 10, -0.35, None),
    ],
)
def test_an_effect_against_random_ones_by_hand(effect, random, less, z):
    """Less their mean, and in units of their deviation with n - 1."""
    found = against(effect, np.array(random, float))
    assert found == (pytest.approx(less, abs=1e-12), None if z is None else pytest.approx(z, rel=1e-12))
