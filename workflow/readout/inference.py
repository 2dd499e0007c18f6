"""Inference over classes: the delete-one-class jackknife, Student's t, several contrasts at once, Holm.

A statistic of K classes is a smooth function of means over classes of what each class says (its summaries); a linear
contrast is its own mean. Leading axes `...` are worlds of a simulation; a study has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import stats

ROUNDING = 1e-12
"""As a share of the largest summary: what is smaller is what rounding leaves of a difference of equal numbers."""


class Scale(NamedTuple):
    """A monotone scale on which a statistic is nearly symmetric about what it estimates, and the way back from it."""

    to: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def _fisher(r: np.ndarray) -> np.ndarray:
    # Ranks of few layers can agree in every class, which has no finite place on the scale.
    return np.arctanh(np.clip(r, -LARGEST, LARGEST))


PLAIN = Scale(lambda x: x, lambda x: x)
LARGEST = 1 - 1e-6
FISHER = Scale(_fisher, np.tanh)
"""Of what ends at -1 and 1, as correlations do: near the ends plain intervals of few classes are too short."""


@dataclass(frozen=True)
class Estimate:
    """C contrasts [..., C] with the variance and the degrees of freedom of each; NaN where nothing can be said.

    `centre` and `variance` are on the `scale`. `classes` [...] are those that have a value, from which they were
    estimated.
    """

    centre: np.ndarray
    variance: np.ndarray
    df: np.ndarray
    classes: np.ndarray
    scale: Scale = PLAIN

    @property
    def value(self) -> np.ndarray:
        """What was estimated, in its own units."""
        return self.scale.back(self.centre)

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end [..., C] of the two-sided interval by Student's t."""
        half = stats.t.ppf((1 + confidence) / 2, self.df) * np.sqrt(self.variance)
        return self.scale.back(self.centre - half), self.scale.back(self.centre + half)

    def above(self, bound: float, or_at: bool = False) -> np.ndarray:
        """One-sided p [..., C] of what speaks for a value above the bound, or at it; small where it does."""
        return self._tail(self.centre - self.scale.to(bound), or_at)

    def below(self, bound: float, or_at: bool = False) -> np.ndarray:
        """One-sided p [..., C] of what speaks for a value below the bound, or at it."""
        return self._tail(self.scale.to(bound) - self.centre, or_at)

    def _tail(self, distance: np.ndarray, or_at: bool) -> np.ndarray:
        error = np.sqrt(self.variance)
        # Classes that all say the same leave no doubt.
        certain = np.where((distance > 0) | (or_at & (distance == 0)), np.inf, -np.inf)
        t = np.divide(distance, error, out=certain, where=error > 0)
        return np.where(np.isnan(distance) | np.isnan(error), np.nan, stats.t.sf(t, self.df))


def mean(means: np.ndarray, count: np.ndarray) -> np.ndarray:
    """A linear contrast's value: the means of its summaries as they are."""
    return means


def jackknife(
    summaries: Sequence[np.ndarray],
    weights: Sequence[float],
    of_means: Callable[[np.ndarray, np.ndarray], np.ndarray] = mean,
    scale: Scale = PLAIN,
) -> tuple[Estimate, np.ndarray]:
    """A weighted sum of one statistic of several networks, and the statistic of each network [networks, ..., C].

    `summaries` are those of each network [..., K, Q], of the same classes in the same order; a class that is NaN in one
    network counts in none. `of_means` makes a network's statistic [..., C] of means over classes [..., Q] and their
    number [...]; intervals are made on the `scale`. A class is deleted from all networks at once; t has K - 1 degrees
    of freedom (Efron and Stein 1981).
    """
    defined = ~np.any([np.isnan(each).any(-1) for each in summaries], axis=0)  # [..., K]
    count = defined.sum(-1)
    # Numbers of this size are what rounding leaves of zero.
    least = ROUNDING * np.max([np.abs(np.nan_to_num(each)).max((-2, -1)) for each in summaries], axis=0)[..., None]
    each, left_out = [], 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for weight, summary in zip(weights, summaries, strict=True):
            counted = np.where(defined[..., None], summary, 0.0)
            total = counted.sum(-2)
            each.append(of_means(total / count[..., None], count))
            rest = (total[..., None, :] - counted) / (count[..., None, None] - 1)
            left_out = left_out + weight * of_means(rest, count[..., None] - 1)
        each = np.stack([_clean(value, least) for value in each])
        # Classes that are not defined are left out of their axis, the last but one.
        left_out = np.where(defined[..., None], scale.to(left_out), 0.0)
        middle = left_out.sum(-2) / count[..., None]
        squares = np.where(defined[..., None], left_out - middle[..., None, :], 0.0) ** 2
        variance = (count[..., None] - 1) / count[..., None] * squares.sum(-2)
    variance = np.where(count[..., None] >= 2, _clean(variance, least**2), np.nan)
    centre = scale.to(_clean(np.tensordot(np.asarray(weights, float), each, 1), least))
    df = np.broadcast_to(np.where(count >= 2, count - 1.0, np.nan)[..., None], centre.shape)
    return Estimate(centre, variance, df, count, scale), each


def _clean(values: np.ndarray, least: np.ndarray) -> np.ndarray:
    """The values with those that rounding has left made zero; NaN stays."""
    return np.where(np.abs(values) <= least, 0.0, values)


def _df(variances: Sequence[np.ndarray], dfs: Sequence[np.ndarray]) -> np.ndarray:
    """Degrees of freedom of a sum of independent variances (Welch and Satterthwaite); without variance, the fewest."""
    total = sum(variances)
    spread = sum(variance**2 / df for variance, df in zip(variances, dfs, strict=True))
    return np.divide(
        total**2, spread, out=np.broadcast_to(np.minimum.reduce(dfs), total.shape).copy(), where=spread > 0
    )


def above_null(own: Estimate, null: Estimate) -> Estimate:
    """The difference of two independent estimates on plain scales, a Welch contrast; `classes` are the first's."""
    return Estimate(
        own.centre - null.centre,
        own.variance + null.variance,
        _df([own.variance, null.variance], [own.df, null.df]),
        own.classes,
    )


def with_replicates(estimate: Estimate, values: Sequence[np.ndarray], weights: Sequence[float]) -> Estimate:
    """The same estimate with the variance between replicates added, which classes know nothing of.

    `values` has an array [replicates, ..., C] for each group of replicates, at least two in each, whose mean enters the
    estimate with its weight. What classes and replicates do together is in both variances: the sum is on the safe side.
    """
    variances = [w**2 * v.var(0, ddof=1) / len(v) for w, v in zip(weights, values, strict=True)]
    dfs = [np.full(estimate.centre.shape, len(v) - 1.0) for v in values]
    return replace(
        estimate,
        variance=estimate.variance + sum(variances),
        df=_df([estimate.variance, *variances], [estimate.df, *dfs]),
    )


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order in which they were given."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, float)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()
