"""The bridge: groups of cells, contrasts and regressions by hand, and in simulated worlds whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from readout import bridge, claims
from readout.inference import Estimate
from readout.verdicts import FAILS, HOLDS, NONE, OPEN

WORLDS = 1000
BY_ABLATION = {"s0m0": 0.9, "s0m1": 0.8, "s2m0": 0.7, "s2m1": 0.6}
"""Loss of the cells in the top quarter by ablation: A is s0m0 and s0m1."""
BY_PROBE = {"s1m0": 0.95, "s1m1": 0.94, "s2m0": 0.93, "s2m1": 0.92}
"""AUROC of those in the top quarter by the probe: P is s1m0 and s1m1."""


def cells(layers=("conv",), network="net"):
    """A row a cell of grids in which A has two cells, P two, and two are in both top quarters."""
    rows = [
        {
            "network": network,
            "layer": layer,
            "class_id": "0",
            "cell": f"s{s}m{m}",
            "selectivity_bin": s,
            "magnitude_bin": m,
            "units": 40 + 7 * s + 3 * m,
            "separation_loss_zero": BY_ABLATION.get(f"s{s}m{m}", 0.01 * (4 * s + m)),
            "separation_loss_mean": BY_ABLATION.get(f"s{s}m{m}", 0.01 * (4 * s + m)) / 2,
            "auroc": BY_PROBE.get(f"s{s}m{m}", 0.5 + 0.01 * (4 * s + m)),
        }
        for layer in layers
        for s in range(4)
        for m in range(4)
    ]
    return bridge.with_groups(pd.DataFrame(rows), "zero")


def gains(of_cells, values, difference=0.5):
    """A row a unit: `values` are [cells, units]."""
    values = np.asarray(values, float)
    frame = of_cells.loc[of_cells.index.repeat(values.shape[1]), [*bridge.GRID, "cell"]].reset_index(drop=True)
    frame = frame.assign(gain=values.ravel(), trials=4, unit=np.arange(values.size))
    return frame.assign(relative_difference=np.broadcast_to(difference, values.shape).ravel())


def layout(of_cells, per):
    """Which cell each unit is of, and which units are in A and in P."""
    cell = np.repeat(np.arange(len(of_cells)), per)
    return cell, of_cells["a"].to_numpy()[cell], of_cells["p"].to_numpy()[cell]


# ---- groups


def test_groups_by_hand():
    """The top quarter of sixteen is four: two of them are in both top quarters and in no group."""
    found = cells()
    assert list(found.loc[found["a"], "cell"]) == ["s0m0", "s0m1"]
    assert list(found.loc[found["p"], "cell"]) == ["s1m0", "s1m1"]


def test_cells_that_tie_over_the_boundary_are_in_no_top_quarter():
    """Of eight cells two are the top quarter: 3, 2, 2 has room for the first alone, 3, 2, 1 for two."""
    assert bridge.top(np.array([3, 2, 2, 1, 0, 0, 0, 0])).tolist() == [True] + [False] * 7
    assert bridge.top(np.array([1, 3, 2, 0, 0, 0, 0, 0])).tolist() == [False, True, True] + [False] * 5
    assert not bridge.top(np.ones(16)).any()
    # A grid with a missing number has no groups.
    a, p = bridge.groups(np.array([1, np.nan, 0, 0]), np.array([0, 1, 0, 0]))
    assert not a.any() and not p.any()
    a, p = bridge.groups(np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0]))
    assert a.tolist() == [True, False, False, False] and p.tolist() == [False, True, False, False]


# ---- the linear model


def test_of_two_groups_it_is_welchs_test():
    """Equal weights and a unit a row: value and error are those of the t test with unequal variances."""
    a, b = np.array([0.1, 0.5, 0.3, 0.6]), np.array([0.0, 0.2, 0.1])
    y, first = np.concatenate([a, b]), np.repeat([1.0, 0.0], [4, 3])
    found = bridge.linear(np.stack([first, np.ones(7)], -1), y, np.ones(7), np.arange(7), np.array([1.0, 0]))
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert found.value[0] == pytest.approx(a.mean() - b.mean())
    assert found.variance[0] == pytest.approx(a.var(ddof=1) / 4 + b.var(ddof=1) / 3)
    assert found.value[0] / math.sqrt(found.variance[0]) == pytest.approx(welch.statistic)
    # Degrees of freedom do not hang on the data: (1/4 + 1/3)^2 / ((1/4)^2 / 3 + (1/3)^2 / 2).
    assert found.df[0] == pytest.approx((1 / 4 + 1 / 3) ** 2 / ((1 / 4) ** 2 / 3 + (1 / 3) ** 2 / 2))


def test_cells_weigh_the_same():
    """A cell of three units at .3 and one of one unit at .1 have the mean .2."""
    cell = np.array([0, 0, 0, 1, 2, 2, 3, 3])
    y = np.array([0.3, 0.3, 0.3, 0.1, 0.0, 0.0, 0.0, 0.0])
    x = np.stack([(cell < 2).astype(float), np.ones(8)], -1)
    found = bridge.linear(x, y, 1 / np.bincount(cell)[cell], np.arange(8), np.array([1.0, 0]))
    assert found.value[0] == pytest.approx(0.2)


def test_a_unit_of_two_targets_is_one_unit():
    """Rows twice over are no more evidence: variance and degrees of freedom stay."""
    generator = np.random.default_rng(0)
    y, first = generator.normal(size=10), np.repeat([1.0, 0.0], 5)
    x, c = np.stack([first, np.ones(10)], -1), np.array([1.0, 0])
    once = bridge.linear(x, y, np.ones(10), np.arange(10), c)
    twice = bridge.linear(np.tile(x, (2, 1)), np.tile(y, 2), np.ones(20), np.tile(np.arange(10), 2), c)
    assert twice.value == pytest.approx(once.value)
    assert twice.variance == pytest.approx(once.variance) and twice.df == pytest.approx(once.df)
    # Negative control: as units of their own they halve the variance, nearly.
    naive = bridge.linear(np.tile(x, (2, 1)), np.tile(y, 2), np.ones(20), np.arange(20), c)
    assert naive.variance[0] < 0.6 * once.variance[0]


def test_what_is_not_determined_is_none():
    """Covariates that coincide, and a group of one row, which is fitted whatever it says."""
    y, ones = np.arange(4.0), np.ones(4)
    same = np.stack([np.arange(4.0), np.arange(4.0), ones], -1)
    assert bridge.linear(same, y, ones, np.arange(4), np.array([1.0, -1, 0])) is None
    # The sum is determined where the difference is not.
    assert bridge.linear(same, y, ones, np.arange(4), np.array([1.0, 1, 0])).value[0] == pytest.approx(1)
    alone = np.stack([np.array([1.0, 0, 0, 0]), ones], -1)
    assert bridge.linear(alone, y, ones, np.arange(4), np.array([1.0, 0])) is None
    # A group that is one cluster of several rows has no variance between clusters either.
    pair = np.stack([np.array([1.0, 1, 0, 0]), ones], -1)
    assert bridge.linear(pair, y, ones, np.array([0, 0, 1, 2]), np.array([1.0, 0])) is None


def test_a_variance_is_unbiased_with_unequal_cells():
    """Errors are alike and cells are of 1, 7, 2 and 2 units: the mean of the variances is that of the estimates."""
    cell = np.repeat(np.arange(4), [1, 7, 2, 2])
    x = np.stack([(cell < 2).astype(float), np.ones(12)], -1)
    y = np.random.default_rng(0).normal(size=(20_000, 12))
    found = bridge.linear(x, y, 1 / np.bincount(cell)[cell], np.arange(12), np.array([1.0, 0]))
    # ((1 + 1/7) + (1/2 + 1/2)) / 4.
    assert found.variance.mean() == pytest.approx(0.5357, rel=0.03)
    assert found.value.var() == pytest.approx(0.5357, rel=0.03)
    low, high = found.interval(0.95)
    assert ((low <= 0) & (high >= 0)).mean() > 0.94


# ---- the contrast


def test_a_contrast_by_hand():
    """A has .4 and .2, P 0 and .1 in cells of two units each: .3 less .05. Gains of other cells have no say."""
    of_cells = cells()
    values = np.full((16, 2), 0.7)
    values[0], values[1], values[4], values[5] = [0.5, 0.3], [0.2, 0.2], [0.1, -0.1], [0.1, 0.1]
    found = bridge.contrast(gains(of_cells, values), of_cells, "zero")
    assert found.status == bridge.OK
    assert found.estimate.value[0] == pytest.approx(0.25)
    assert (found.units, found.in_a, found.in_p, found.trials) == (8, 4, 4, 32)
    # Variance of A: .5, .3, .2, .2 about .3 is .02; of P: .1, -.1, .1, .1 about .05 is .01; each over 4.
    assert found.estimate.variance[0] == pytest.approx((0.02 + 0.01) / 4)
    # Over cells: (.4 - .3)^2 x 2 / 1 / 2 and (0 - .05)^2 x 2 / 1 / 2.
    assert found.over_cells.variance[0] == pytest.approx(0.01 + 0.0025)
    assert found.over_cells.df[0] == pytest.approx(2)
    # Without one unit of the first cell of A, that cell still weighs half: (.3 + .2) / 2 less .05.
    own = gains(of_cells, values).drop(index=0)
    assert bridge.contrast(own, of_cells, "zero").estimate.value[0] == pytest.approx(0.2)


def test_grids_are_compared_within():
    """All gains of one layer are .5 higher: it changes nothing. A layer without units in P compares nothing."""
    of_cells = cells(("conv1", "conv2", "conv3"))
    values = np.random.default_rng(0).normal(size=(48, 2))
    values[0:2] += 1
    values[16:18] += 1
    own = gains(of_cells, values)
    own = own[~((own["layer"] == "conv3") & own["cell"].isin(["s1m0", "s1m1"]))]
    found = bridge.contrast(own, of_cells, "zero")
    shifted = own.assign(gain=own["gain"] + 0.5 * (own["layer"] == "conv1") + 3 * (own["layer"] == "conv3"))
    again = bridge.contrast(shifted, of_cells, "zero")
    assert again.estimate.value == pytest.approx(found.estimate.value)
    assert again.p == found.p
    # Four cells of two layers, whose contrast is the mean of the layers'.
    by_layer = [
        bridge.contrast(own[own["layer"] == name], of_cells, "zero").estimate.value[0] for name in ("conv1", "conv2")
    ]
    assert found.estimate.value[0] == pytest.approx(np.mean(by_layer))
    assert (found.in_a, found.in_p) == (8, 8)
    # With one cell of P gone from a layer its share is other, and what it adds to all gains is still nothing.
    fewer = [each[~((each["layer"] == "conv1") & (each["cell"] == "s1m1"))] for each in (own, shifted)]
    one, other = (bridge.contrast(each, of_cells, "zero").estimate.value[0] for each in fewer)
    assert other == pytest.approx(one) and one != pytest.approx(found.estimate.value[0])


def test_permuted_cells_by_hand():
    """Four cells, one in A, one in P: of the twelve deals two are as far apart as 3 and 0, in either direction."""
    values, deal = np.array([3.0, 0, 1, 2]), np.array([1.0, -1, 0, 0])
    p = bridge.permuted([values], [deal], 20_000, 0)
    assert p == pytest.approx(2 / 12, abs=0.01)
    assert bridge.permuted([values * 0], [deal], 99, 0) == 1
    # Given a covariate of 1.5, -.5, -.5, -.5, which leaves 0, -1, .5, .5: the deal of the first two has an error of
    # sqrt(2 - 2^2 / 3), so that 1 is 1.22 of it; 1.5 between the second and the third is 1.06 of sqrt 2. Two of twelve.
    z = np.array([1.5, -0.5, -0.5, -0.5])
    sums = bridge.Sums([z], [np.ones(4)], [z], 3.0, 3.0)
    values = np.array([0.0, -1, 0.5, 0.5])
    assert bridge.permuted([values], [deal], 20_000, 0, sums) == pytest.approx(2 / 12, abs=0.01)
    assert bridge.permuted([values], [deal], 20_000, 0) == pytest.approx(6 / 12, abs=0.015)
    # The observed deal is one of all: never 0.
    assert bridge.permuted([np.array([9.0, -9, *np.zeros(60)])], [np.array([1.0, -1, *np.zeros(60)])], 99, 0) == 0.01


@pytest.mark.parametrize(
    ("effect", "probe", "reason"),
    [
        ("auroc", "auroc", "A and P are empty"),
        ("separation_loss_zero", "selectivity_bin", "P is empty"),
        (None, "auroc", "no network has a gap to lose"),
    ],
)
def test_an_empty_group_is_not_estimable(effect, probe, reason):
    """A probe that reads best what matters most, one that reads all cells of a strip alike, and no gap."""
    of_cells = cells()
    of_cells["separation_loss_zero"] = np.nan if effect is None else of_cells[effect]
    if reason == "P is empty":
        of_cells["auroc"] = 1.0
    of_cells = bridge.with_groups(of_cells, "zero")
    found = bridge.contrast(gains(of_cells, np.random.default_rng(0).normal(size=(16, 2))), of_cells, "zero")
    assert (found.status, found.reason, found.estimate, found.p) == (bridge.NOT_ESTIMABLE, reason, None, None)
    assert bridge.verdict([found], 0.95) == (None, reason)


def test_too_few_units_are_not_estimable():
    of_cells = cells()
    own = gains(of_cells, np.random.default_rng(0).normal(size=(16, 1)))
    one = own[own["cell"] != "s0m1"]
    found = bridge.contrast(one, of_cells, "zero")
    assert (found.status, found.reason) == (bridge.NOT_ESTIMABLE, "too few units: A or P has one alone")
    none = own[~own["cell"].isin(["s0m0", "s0m1"])]
    assert bridge.contrast(none, of_cells, "zero").reason == "no grid has units in cells of A and in cells of P"
    assert bridge.contrast(own, of_cells, "zero").status == bridge.OK


def test_a_covariate_that_is_missing_takes_its_units_out():
    of_cells = cells()
    difference = np.full((16, 3), 0.5) + 0.1 * np.arange(3)
    difference[0, 0] = np.nan
    own = gains(of_cells, np.random.default_rng(0).normal(size=(16, 3)), difference)
    assert bridge.contrast(own, of_cells, "zero").in_a == 6
    assert bridge.contrast(own, of_cells, "zero", adjusted=True).in_a == 5


# ---- worlds with known truth


def worlds(generator, per, effect=0.0, deviation=0.1, of_cells=0.0):
    """Gains [worlds, units] of one grid, and their layout."""
    frame = cells()
    cell, a, p = layout(frame, per)
    y = generator.normal(0, deviation, (WORLDS, len(cell))) + effect * a
    if of_cells:
        y = y + generator.normal(0, of_cells, (WORLDS, 16))[:, cell]
    return frame, cell, a, p, y


def judge(frame, cell, a, p, y):
    """Estimate over units and over cells, p by permuted cells and verdict of each world."""
    chosen = a | p
    x, rows = np.stack([a, np.ones(len(a))], -1)[chosen].astype(float), y[:, chosen]
    ones, c = np.ones(chosen.sum()), np.array([1.0, 0])
    estimate = bridge.linear(x, rows, ones, np.arange(len(ones)), c)
    over_cells = bridge.linear(x, rows, ones, cell[chosen], c)
    means = np.stack([y[:, cell == i].mean(-1) for i in range(16)], -1)
    deal = frame["a"] / frame["a"].sum() - frame["p"] / frame["p"].sum()
    permuted = bridge.permuted([means], [deal.to_numpy()], 499, 0)
    return estimate, over_cells, permuted, claims.verdicts(bridge.judged([estimate], [permuted]), 0.95)


def covers(estimate: Estimate, truth):
    low, high = estimate.interval(0.95)
    return ((low <= truth) & (high >= truth)).mean()


def test_worlds_are_judged_as_studies_are():
    """The arrays of the worlds and the frames of the step give the same numbers."""
    frame, cell, a, p, y = worlds(np.random.default_rng(0), 3)
    estimate, over_cells, permuted, _ = judge(frame, cell, a, p, y)
    found = bridge.contrast(gains(frame, y[7].reshape(16, 3)), frame, "zero", permutations=499)
    assert found.estimate.value == pytest.approx(estimate.value[7])
    assert found.estimate.variance == pytest.approx(estimate.variance[7])
    assert found.over_cells.variance == pytest.approx(over_cells.variance[7])
    assert found.p == pytest.approx(permuted[7])


@pytest.mark.parametrize("per", [1, 3, 24])
def test_where_a_and_p_gain_alike_nothing_is_found(per):
    """95 % intervals cover 0 in 93 to 97 % of 1,000 worlds, p of permuted cells is uniform, and verdicts seldom err."""
    estimate, _, permuted, verdict = judge(*worlds(np.random.default_rng(per), per))
    assert 0.93 <= covers(estimate, 0) <= 0.97
    assert stats.kstest(permuted, "uniform").pvalue > 0.01
    assert (verdict != OPEN).mean() <= 0.05


@pytest.mark.parametrize("per", [24])
def test_a_difference_of_a_fifth_is_found(per):
    """A less P is .2, units deviate by .1, 48 in each group: found in more than 95 % of worlds, and never reversed."""
    estimate, _, permuted, verdict = judge(*worlds(np.random.default_rng(0), per, effect=0.2))
    assert (estimate.interval(0.95)[0] > 0).mean() > 0.95
    assert covers(estimate, 0.2) > 0.93
    assert (verdict == HOLDS).mean() > 0.95 and not (verdict == FAILS).any()
    assert (permuted <= 0.05).mean() > 0.95
    _, _, _, verdict = judge(*worlds(np.random.default_rng(0), per, effect=-0.2))
    assert (verdict == FAILS).mean() > 0.95


def test_cells_that_differ_for_whatever_reason_fool_units_but_no_verdict():
    """Each cell has a gain of its own (deviation .1): intervals over units are far too short, as a negative control.
    Those over cells cover, permuted cells are uniform, and the verdict, which asks both, errs in 5 % at most."""
    estimate, over_cells, permuted, verdict = judge(*worlds(np.random.default_rng(0), 12, of_cells=0.1))
    assert covers(estimate, 0) < 0.7
    assert covers(over_cells, 0) > 0.93
    assert stats.kstest(permuted, "uniform").pvalue > 0.01
    assert (verdict != OPEN).mean() <= 0.07
    unguarded = claims.verdicts(bridge.judged([estimate], [permuted * 0]), 0.95)
    assert (unguarded != OPEN).mean() > 0.3


@pytest.mark.parametrize(("per", "sets"), [(1, 4), (2, 1), (6, 4), (24, 10)])
def test_counted_answers_are_judged_as_numbers_are(per, sets):
    """Gains that are differences of counts of few image sets, units of deviation .15 about 2/3 and .6."""
    generator = np.random.default_rng(per)
    frame = cells()
    cell, a, p = layout(frame, per)
    skill = [np.clip(generator.normal(mean, 0.15, (WORLDS, len(cell))), 0, 1) for mean in (2 / 3, 0.6)]
    shown, without = (generator.binomial(sets, each) / sets for each in skill)
    estimate, _, permuted, verdict = judge(frame, cell, a, p, shown - without)
    assert covers(estimate, 0) > 0.9
    # Counts tie, and a p with ties is on the safe side.
    assert (permuted <= 0.05).mean() <= 0.07
    assert (verdict != OPEN).mean() <= 0.05


def test_the_covariate_takes_out_what_relative_differences_do():
    """A has trials with larger differences, which are easier: alone it seems to gain, given the difference it does not."""
    generator = np.random.default_rng(0)
    frame = cells()
    cell, a, p = layout(frame, 12)
    difference = generator.gamma(4, 0.12, len(cell)) + 0.4 * a
    y = 0.3 * difference + generator.normal(0, 0.1, (WORLDS, len(cell)))
    estimate, _, _, _ = judge(frame, cell, a, p, y)
    assert covers(estimate, 0) < 0.3
    ones, chosen = np.ones((a | p).sum()), a | p
    x = np.stack([a, np.ones(len(a)), difference], -1)[chosen].astype(float)
    given = bridge.linear(x, y[:, chosen], ones, np.arange(len(ones)), np.array([1.0, 0, 0]))
    assert 0.93 <= covers(given, 0) <= 0.97
    # And through the frames, the p of permuted cells among them.
    p_values = []
    for world in y[:150]:
        own = gains(frame, world.reshape(16, 12), difference.reshape(16, 12))
        found = bridge.contrast(own, frame, "zero", adjusted=True, permutations=99)
        p_values.append(found.p)
    assert found.estimate.value == pytest.approx(given.value[149])
    assert found.estimate.variance == pytest.approx(given.variance[149])
    assert np.mean(np.array(p_values) <= 0.05) <= 0.1
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


# ---- the regression


def test_a_regression_finds_what_the_gain_hangs_on():
    """Gains of .1 for each SD of ablation effect and .04 of the probe: their difference is .06, whatever a layer adds."""
    of_cells = cells(("conv1", "conv2"))
    generator = np.random.default_rng(0)
    z = {}
    for name in ("separation_loss_zero", "auroc"):
        x = np.repeat(of_cells[name].to_numpy(), 6)
        z[name] = (x - x.mean()) / x.std()
    y = 0.1 * z["separation_loss_zero"] + 0.04 * z["auroc"]
    own = gains(of_cells, y.reshape(32, 6))
    own["gain"] += 0.3 * (own["layer"] == "conv2")
    found = bridge.regression(own, of_cells, "zero")
    for name, truth in (("ablation", 0.1), ("probe", 0.04), ("difference", 0.06)):
        assert found[name].estimate.value[0] == pytest.approx(truth), name
    noisy = own.assign(gain=own["gain"] + generator.normal(0, 0.05, len(own)))
    found = bridge.regression(noisy, of_cells, "zero")["difference"]
    low, high = bridge.interval(found.estimate, 0.95)
    assert low < 0.06 < high and found.p < 0.01 and (found.units, found.trials) == (192, 768)


def test_a_regression_is_given_magnitude_size_and_relative_difference():
    """Gains that come from these alone are none of the ablation's or the probe's; without them they seem to be."""
    of_cells = cells()
    of_cells["units"] = 20 + 15 * (of_cells["separation_loss_zero"] > 0.5) + 3 * of_cells["magnitude_bin"]
    generator = np.random.default_rng(0)
    difference = generator.gamma(3, 0.2, (16, 4)) + of_cells[["separation_loss_zero"]].to_numpy()
    size = np.log(of_cells["units"].to_numpy(float))[:, None]
    y = 0.2 * of_cells["magnitude_bin"].to_numpy()[:, None] + size + 0.5 * difference
    own = gains(of_cells, y, difference)
    found = bridge.regression(own, of_cells, "zero", adjusted=True)
    assert found["ablation"].estimate.value[0] == pytest.approx(0, abs=1e-9)
    assert found["probe"].estimate.value[0] == pytest.approx(0, abs=1e-9)
    assert abs(bridge.regression(own, of_cells, "zero")["ablation"].estimate.value[0]) > 0.05


def test_intervals_of_a_regression_cover():
    """Three units a cell of two layers, nothing to find: 95 % intervals of the difference cover 0, over units and cells.

    Where each cell has a gain of its own those over units are too short, as a negative control, and p over cells is not.
    """
    of_cells = cells(("conv1", "conv2"))
    generator = np.random.default_rng(0)
    covered = {}
    for deviation in (0.0, 0.15):
        own = [generator.normal(0, 0.1, (32, 3)) + generator.normal(0, deviation, (32, 1)) for _ in range(100)]
        found = [bridge.regression(gains(of_cells, each), of_cells, "zero")["difference"] for each in own]
        for over in ("estimate", "over_cells"):
            ends = np.array([bridge.interval(getattr(each, over), 0.95) for each in found])
            covered[over, deviation] = ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean()
        assert stats.kstest([each.p for each in found], "uniform").pvalue > 0.01
    for key in (("estimate", 0.0), ("over_cells", 0.0), ("over_cells", 0.15)):
        assert covered[key] > 0.9, key
    assert covered["estimate", 0.15] < 0.85


def test_a_regression_that_nothing_determines_says_why():
    of_cells = cells()
    own = gains(of_cells, np.random.default_rng(0).normal(size=(16, 1)))
    few = bridge.regression(own.head(3), of_cells, "zero")
    assert {each.status for each in few.values()} == {bridge.NOT_ESTIMABLE}
    assert bridge.regression(own, of_cells.assign(auroc=0.9), "zero")["probe"].reason.startswith("the cells do not")
    missing = of_cells.assign(separation_loss_zero=np.nan)
    assert bridge.regression(own, missing, "zero")["difference"].reason == "no network has a gap to lose"
    # The probe reads what ablation costs: which of them it is cannot be told.
    same = of_cells.assign(auroc=of_cells["separation_loss_zero"])
    assert bridge.regression(own, same, "zero")["difference"].reason.startswith("too few units, or cells in which")


# ---- verdicts and power


def result(value, variance=0.0001, p=0.001, df=60):
    estimate = Estimate(np.array([value]), np.array([variance]), np.array([float(df)]), np.array(62))
    return bridge.Result(bridge.OK, None, estimate, None, p, in_a=31, in_p=31)


def test_verdicts_by_the_rules_of_the_claims():
    """The error is .01 and t is 2.00. It holds under zero and under mean, or not; one that fails, fails for both."""
    assert bridge.verdict([result(0.05), result(0.03)], 0.95) == (HOLDS, None)
    assert bridge.verdict([result(0.05), result(0.019)], 0.95) == (OPEN, None)
    # 2.5 errors below: enough for the 1.25 % of one of two.
    assert bridge.verdict([result(0.05), result(-0.025)], 0.95) == (FAILS, None)
    assert bridge.verdict([result(-0.05), result(-0.03)], 0.95)[0] == FAILS
    assert bridge.verdict([result(0.05), result(-0.021)], 0.95) == (OPEN, None)
    # What permuted cells do as well is nothing.
    verdict, reason = bridge.verdict([result(0.05), result(0.05, p=0.06)], 0.95)
    assert verdict == OPEN and reason.startswith("permuted cells give contrasts of this size")
    # Of one intervention it is that one's, 2.1 errors below enough.
    assert bridge.verdict([result(0.03)], 0.95) == (HOLDS, None)
    assert bridge.verdict([result(-0.021)], 0.95) == (FAILS, None)
    assert bridge.verdict([], 0.95) == (None, "the study ablates neither by zero nor by mean")
    verdict, reason = bridge.verdict([result(0.05), result(0.05, variance=0.0)], 0.95)
    assert verdict == NONE and "do not differ" in reason


def test_the_power_of_a_contrast_is_of_units_within_cells():
    """Gains of 0 and .2 in each cell: variance .02, whatever cells differ by. Two cells a group of two units: error
    sqrt(.02 (1/4 + 1/4)) = .1."""
    of_cells = cells()
    values = np.array([0.0, 0.2]) + np.arange(16)[:, None]
    found = bridge.planned(gains(of_cells, values), of_cells, 0.95)
    assert found.deviation == pytest.approx(math.sqrt(0.02)) and found.error == pytest.approx(0.1)
    # t with 6 degrees of freedom: 2.4469 + .9057; and 2 x .02 x (2.8016 / .07)^2 = 64.07.
    assert found.detectable == pytest.approx(0.33526, abs=1e-4) and found.needed == 65
    assert bridge.planned(gains(of_cells, values[:, :1]), of_cells, 0.95) is None
    assert bridge.planned(gains(of_cells, values), of_cells.assign(a=False), 0.95) is None


def test_a_grid_that_compares_nothing_has_no_power():
    """A second layer has four units in A and none in P: they count in neither the contrast nor its power. Its gains of
    0 and .2 in 14 cells leave the variance at .02."""
    of_cells = cells(("conv1", "conv2"))
    own = gains(of_cells, np.array([0.0, 0.2]) + np.arange(32)[:, None])
    own = own[~((own["layer"] == "conv2") & own["cell"].isin(["s1m0", "s1m1"]))]
    found = bridge.planned(own, of_cells, 0.95)
    assert found.deviation == pytest.approx(math.sqrt(0.02)) and found.error == pytest.approx(0.1)
    assert bridge.in_groups(bridge.compared(own, of_cells)) == (4, 4)
    contrast = bridge.contrast(own, of_cells, "zero")
    assert (contrast.in_a, contrast.in_p) == (4, 4)
    # With A alone in every layer there is nothing to plan.
    alone = own[own["layer"] == "conv2"]
    assert bridge.planned(alone, of_cells, 0.95) is None
    assert bridge.in_groups(bridge.compared(alone, of_cells)) == (0, 0)
