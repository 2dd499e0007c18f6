"""Faithfulness of measures of importance: does ablating the units at the top of a ranking cost more than others do?

The effects of the tops of a ranking make a curve over the logarithm of the share of units that they hold. The mean
height of the curve, less that of random orders, is the *gain* of the measure: zero is a measure that knows nothing.
Classes are the unit of inference (`readout.inference`). Leading axes `...` are worlds of a simulation; a study has
none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from readout.estimands import spearman
from readout.inference import FISHER, Estimate, jackknife


def area(effects: np.ndarray, one_in: Sequence[int]) -> np.ndarray:
    """Mean height [...] of a curve of effects [..., F] over the log-share of the units, by the trapezoidal rule.

    one_in: a top holds one in so many units [F]. A curve of one point is that high.
    """
    x = -np.log(np.asarray(one_in, float))
    order = np.argsort(x)
    x, y = x[order], np.asarray(effects, float)[..., order]
    if len(x) == 1:
        return y[..., 0]
    return np.trapezoid(y, x) / (x[-1] - x[0])


def gain(effects: np.ndarray, random: np.ndarray, one_in: Sequence[int]) -> np.ndarray:
    """Area of each measure's curve less the mean area of random orders [..., M].

    effects: [..., M, F]; random: those of random orders [..., R, F].
    """
    return area(effects, one_in) - area(random, one_in).mean(-1, keepdims=True)


def ranks(gains: np.ndarray) -> np.ndarray:
    """Rank of each measure [..., M] among them, 1 for the largest gain; equal ones share theirs."""
    above = (gains[..., None, :] > gains[..., None]).sum(-1)
    tied = (gains[..., None, :] == gains[..., None]).sum(-1)
    return np.where(np.isnan(gains), np.nan, above + (tied + 1) / 2)


def best_elsewhere(gains: np.ndarray) -> np.ndarray:
    """For each class the measure of the largest mean gain over the *other half* of the classes, its index [..., K].

    gains: [..., K, M]. A measure that is chosen and judged on the same classes gains by the choice itself. Halves,
    since with all other classes the choices share so much that intervals over classes cover as little as .74 of the
    truth where measures are alike; with halves it is .92 and more (tests/test_faithfulness.py).
    """
    classes = gains.shape[-2]
    # ASSUME: every other class in the order of their names; one class alone chooses for itself.
    first = np.arange(classes) % 2 == 0
    chosen = np.empty(gains.shape[:-1], int)
    for half in (first, ~first):
        judges = ~half if (~half).any() else half
        chosen[..., half] = np.nan_to_num(gains)[..., judges, :].sum(-2).argmax(-1)[..., None]
    return chosen


def _best(gains: np.ndarray) -> np.ndarray:
    """The gain of that measure in each class [..., K, 1]."""
    return np.take_along_axis(gains, best_elsewhere(gains)[..., None], -1)


def _ratio(means: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(means[..., :1], means[..., 1:], out=np.full_like(means[..., :1], np.nan), where=means[..., 1:] > 0)


def reach(gains: Sequence[np.ndarray], measure: int) -> Estimate:
    """The gain of one measure as a share of that of the best, chosen for each class by the other half of them.

    gains: of each network [..., K, M]; the estimate is of the mean over networks, with one contrast. NaN where the best
    gains nothing.
    """
    summaries = [np.concatenate([of[..., measure, None], _best(of)], -1) for of in gains]
    return jackknife(summaries, [1 / len(gains)] * len(gains), _ratio)[0]


BEST = "best_elsewhere"
"""Stands for the measure that gains most over the other half of the classes, whichever it is."""


@dataclass(frozen=True)
class Result:
    """One measure in one network, or in all: an estimate with its interval, its rank, and its share of the best.

    Each is (value, low, high), None where it cannot be told. `found` says whether the gain is above zero, allowing for
    the number of measures, and `apart` whether the measure is told apart from the best.
    """

    measure: str
    gain: tuple[float | None, ...]
    rank: tuple[float | None, ...]
    reach: tuple[float | None, ...]
    found: bool
    apart: bool
    classes: int


def _told(estimate: Estimate, confidence: float, at: int = 0) -> tuple[float | None, ...]:
    values = (estimate.value[at], *(end[at] for end in estimate.interval(confidence)))
    return tuple(float(value) if np.isfinite(value) else None for value in values)


def _within(told: tuple[float | None, ...], low: float, high: float) -> tuple[float | None, ...]:
    return tuple(None if value is None else min(max(value, low), high) for value in told)


def compare(names: Sequence[str], gains: Sequence[np.ndarray], confidence: float) -> list[Result]:
    """Each measure's gain, rank and reach over networks with the same classes; last, the best by the other half.

    gains: of each network [K classes, L layers, M measures]; layers weigh the same, and so do networks. A class without
    a gap to lose in a network counts in none.
    """
    weights = [1 / len(gains)] * len(gains)
    by_class = [of.mean(1) for of in gains]
    of_gain, _ = jackknife(by_class, weights)
    of_rank, _ = jackknife([ranks(of).mean(1) for of in gains], weights)
    all_at_once = of_gain.interval(1 - (1 - confidence) / len(names))[0]
    known = np.isfinite(of_gain.value)
    first = int(np.nanargmax(of_gain.value)) if known.all() else 0
    less, _ = jackknife([of[:, first, None] - of for of in by_class], weights)
    found = []
    for i, name in enumerate(names):
        low = less.interval(confidence)[0][i]
        found.append(
            Result(
                name,
                _told(of_gain, confidence, i),
                _within(_told(of_rank, confidence, i), 1, len(names)),
                _told(reach(by_class, i), confidence),
                bool(all_at_once[i] > 0),
                bool(low > 0),
                int(of_gain.classes),
            )
        )
    chosen, _ = jackknife([_best(of) for of in by_class], weights)
    nothing = (None, None, None)
    found.append(Result(BEST, _told(chosen, confidence), nothing, nothing, False, False, int(chosen.classes)))
    return found


def relation(
    values: Sequence[np.ndarray], losses: Sequence[np.ndarray], confidence: float
) -> tuple[tuple[float | None, ...], int]:
    """Rank correlation over cells of a measure's mean and what the cell's ablation costs, and the number of classes.

    values and losses: of each network [K classes, L layers, cells]; mean over layers and networks, as claim 7 has it.
    """
    summaries = [spearman(v, x).mean(-1, keepdims=True) for v, x in zip(values, losses, strict=True)]
    estimate, _ = jackknife(summaries, [1 / len(summaries)] * len(summaries), scale=FISHER)
    return _told(estimate, confidence), int(estimate.classes)


def sentence(network: str, found: Sequence[Result], labels: Mapping[str, str], probe: str | None) -> str:
    """What to use in order to find the units that a network needs, and what probe weights reach of it."""

    def number(told: tuple[float | None, ...]) -> str:
        value, low, high = told
        return f"{value:.2f}" if low is None else f"{value:.2f} ({low:.2f} to {high:.2f})"

    *found, chosen = found
    known = [each for each in found if each.gain[0] is not None]
    if not known:
        return f"{network}: nothing can be said, since no target has a gap to lose in it."
    best = max(known, key=lambda each: each.gain[0])
    # What is said of the best is of the best by the other half: a gain by which it was chosen would be too high.
    low = chosen.gain[1]
    if (not best.found and low is not None) or best.gain[0] <= 0:
        return (
            f"{network}: no measure is shown to find units that matter; the best, {labels[best.measure]}, gains "
            f"{number(chosen.gain)} of the gap over random orders."
        )
    others = [labels[each.measure] for each in known if each is not best and not each.apart]
    text = (
        f"{network}: to find the units that matter, use {labels[best.measure]}, which gains {number(chosen.gain)} of "
        "the gap over random orders"
    )
    if others:
        text += f" ({', '.join(others)} cannot be told apart from it)" if low is not None else ""
    told = next((each for each in known if each.measure == probe), None)
    if told is best or told is None or told.reach[0] is None:
        return f"{text}."
    return f"{text}; probe weights reach {number(told.reach)} of it."
