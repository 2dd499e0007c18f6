"""Inference over classes: the jackknife against textbook formulas, Welch, Fisher's scale, replicates, Holm by hand."""

import numpy as np
import pytest
from scipy import stats

from readout import inference


def _ratio(means, count):
    return means[..., :1] / means[..., 1:]


def test_the_jackknife_of_a_mean_is_the_t_interval():
    """By hand: 1, 2 and 6 have mean 3, deviation sqrt(7), and so the standard error sqrt(7 / 3)."""
    found, each = inference.jackknife([np.array([[1.0], [2.0], [6.0]])], [1.0])
    assert (found.value, found.variance, found.df, found.classes) == pytest.approx((3, 7 / 3, 2, 3))
    assert each == pytest.approx(np.array([[3.0]]))
    low, high = found.interval(0.95)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, 3, np.sqrt(7 / 3)))
    assert found.above(1) == pytest.approx(stats.ttest_1samp([1, 2, 6], 1, alternative="greater").pvalue)
    assert found.below(1) == pytest.approx(stats.ttest_1samp([1, 2, 6], 1, alternative="less").pvalue)


def test_the_jackknife_of_a_ratio_deletes_each_class():
    """By the definition: statistics without one class, and (K - 1) / K times their squares about their mean."""
    summaries = np.random.default_rng(0).uniform(1, 2, (7, 2))
    found, _ = inference.jackknife([summaries], [1.0], _ratio)
    left_out = np.array(
        [np.delete(summaries, k, 0)[:, 0].mean() / np.delete(summaries, k, 0)[:, 1].mean() for k in range(7)]
    )
    assert found.value == pytest.approx(summaries[:, 0].mean() / summaries[:, 1].mean())
    assert found.variance == pytest.approx(6 / 7 * ((left_out - left_out.mean()) ** 2).sum())


def test_a_class_is_deleted_from_all_networks_at_once():
    """What two networks have in common of a class cancels in their difference, and not in their mean."""
    generator = np.random.default_rng(1)
    common, own = generator.normal(size=(8, 1)) * 5, generator.normal(size=(2, 8, 1))
    difference, _ = inference.jackknife([common + own[0], common + own[1]], [1.0, -1.0])
    mean, each = inference.jackknife([common + own[0], common + own[1]], [0.5, 0.5])
    assert difference.variance == pytest.approx((own[0] - own[1]).var(ddof=1) / 8)
    assert mean.variance == pytest.approx((common + own.mean(0)).var(ddof=1) / 8)
    assert each[:, 0] == pytest.approx((common + own).mean((1, 2)))


def test_a_class_without_a_value_in_one_network_counts_in_none():
    """Of four classes the last is missing in the second network."""
    first, second = np.array([[1.0], [2.0], [3.0], [90.0]]), np.array([[3.0], [2.0], [4.0], [np.nan]])
    found, _ = inference.jackknife([first, second], [0.5, 0.5])
    assert (found.value, found.classes, found.df) == pytest.approx((2.5, 3, 2))
    assert found.variance == pytest.approx(np.var([2, 2, 3.5], ddof=1) / 3)


@pytest.mark.parametrize(("summaries", "value"), [([[4.0]], 4), ([[4.0], [np.nan]], 4), ([[np.nan], [np.nan]], np.nan)])
def test_too_few_classes_have_no_interval(summaries, value):
    """One has a value without an interval, none not even that; neither speaks for anything."""
    found, _ = inference.jackknife([np.array(summaries)], [1.0])
    assert found.value == pytest.approx(value, nan_ok=True)
    assert np.isnan(found.interval(0.95)).all() and np.isnan(found.above(0)) and np.isnan(found.below(0))


def test_batches_of_worlds_are_judged_as_by_themselves():
    worlds = np.random.default_rng(2).uniform(1, 2, (5, 6, 2))
    worlds[3, 4] = np.nan
    batch, _ = inference.jackknife([worlds], [1.0], _ratio)
    for i in range(5):
        alone, _ = inference.jackknife([worlds[i]], [1.0], _ratio)
        assert batch.value[i] == pytest.approx(alone.value)
        assert batch.variance[i] == pytest.approx(alone.variance)
        assert batch.above(1)[i] == pytest.approx(alone.above(1))
        assert batch.classes[i] == alone.classes


@pytest.mark.parametrize(("value", "above", "below"), [(0.3, 0, 1), (-0.3, 1, 0), (0.0, 1, 1)])
def test_classes_that_all_say_the_same_leave_no_doubt(value, above, below):
    """At the bound itself a value is not above it, but at it. 0.1 + 0.2 - 0.3 is not zero to a computer."""
    summaries = np.full((5, 1), 0.1) + np.full((5, 1), 0.2) - 0.3 + value
    found, _ = inference.jackknife([np.concatenate([summaries, np.ones((5, 1))], 1)], [1.0])
    assert (found.above(0)[0], found.below(0)[0]) == (above, below)
    assert found.below(0, or_at=True)[0] == (value > 0)
    assert found.interval(0.95)[0][0] == pytest.approx(value)


def test_above_null_is_welch_s_test():
    """As scipy has it."""
    generator = np.random.default_rng(3)
    own, null = generator.normal(1, 1, 6), generator.normal(0, 3, 8)
    estimates = [inference.jackknife([x[:, None]], [1.0])[0] for x in (own, null)]
    found = inference.above_null(*estimates)
    expected = stats.ttest_ind(own, null, equal_var=False, alternative="greater")
    assert found.above(0)[0] == pytest.approx(expected.pvalue)
    assert found.df[0] == pytest.approx(expected.df)
    assert found.classes == 6


def test_fisher_s_scale_keeps_intervals_of_correlations_below_one():
    """Classes near 1: the plain interval reaches beyond it, and Fisher's reaches further down than up."""
    r = np.array([[0.99], [0.98], [0.7], [0.97]])
    plain, _ = inference.jackknife([r], [1.0])
    found, _ = inference.jackknife([r], [1.0], scale=inference.FISHER)
    assert plain.interval(0.95)[1] > 1
    (low,), (high,) = found.interval(0.95)
    assert found.value == pytest.approx(r.mean())
    assert high < 1 and r.mean() - low > high - r.mean()
    left_out = np.arctanh([np.delete(r, k).mean() for k in range(4)])
    assert found.variance == pytest.approx(3 / 4 * ((left_out - left_out.mean()) ** 2).sum())
    # Correlations that are 1 in every class have a place on the scale.
    certain, _ = inference.jackknife([np.ones((4, 1))], [1.0], scale=inference.FISHER)
    assert certain.value == pytest.approx(1, abs=1e-5) and certain.above(0) == 0


def test_replicates_add_their_variance():
    """By hand: two kinds with weights 1 and -1, replicates 1 and 3 (variance 2, of the mean 1), 0 and 0."""
    estimate, _ = inference.jackknife([np.array([[1.0], [2.0], [3.0]])], [1.0])
    values = [np.array([[1.0], [3.0]]), np.zeros((3, 1))]
    found = inference.with_replicates(estimate, values, [1.0, -1.0])
    assert found.value == estimate.value
    assert found.variance == pytest.approx(1 / 3 + 1)
    # Welch and Satterthwaite: (4 / 3)^2 / ((1 / 3)^2 / 2 + 1^2 / 1).
    assert found.df == pytest.approx((16 / 9) / (1 / 18 + 1))


def test_holm_by_hand():
    """Times 4, 3, 2 and 1, never less than the one before and never more than 1."""
    assert inference.holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert inference.holm([1.0, 0.4, 0.9]) == pytest.approx([1, 1, 1])
    assert inference.holm([]) == []
