"""Faithfulness of measures of importance: does ablating the units at the top of a ranking cost more than others do?

The effects of the tops of a ranking make a curve over the logarithm of the share of units that they hold. The mean
height of the curve, less that of random orders, is the *gain* of the measure: zero is a measure that knows nothing.
Classes are the unit of inference (`readout.inference`). Leading axes `...` are worlds of a simulation; a study has
none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

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


def best_elsewhere(gains: Sequence[np.ndarray]) -> np.ndarray:
    """For each class the measure of the largest mean gain over the *other half* of the classes, its index [..., K].

    gains: of each network [..., K, M]; one measure for all of them. A measure that is chosen and judged on the same
    classes gains by the choice itself. Halves, since with all other classes the choices share so much that intervals
    over classes cover as little as .74 of the truth where measures are alike; with halves it is nine tenths and more
    (tests/test_faithfulness.py). A class without a gain in one of the networks has no say.
    """
    mean = np.mean(gains, axis=0)
    known = ~np.isnan(mean).any(-1)
    # ASSUME: every other class in the order of their names; one class alone chooses for itself.
    first = known & (np.cumsum(known, -1) % 2 == 1)
    chosen = np.zeros(known.shape, int)
    for half, judges in ((first, known & ~first), (known & ~first, first)):
        judges = np.where(judges.any(-1, keepdims=True), judges, half)
        best = np.where(judges[..., None], np.nan_to_num(mean), 0.0).sum(-2).argmax(-1)
        chosen = np.where(half, best[..., None], chosen)
    return chosen


def _best(gains: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The gain of that measure in each network and class [..., K, 1]."""
    chosen = best_elsewhere(gains)[..., None]
    return [np.take_along_axis(of, chosen, -1) for of in gains]


def reach(gains: Sequence[np.ndarray], measure: int, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gain of one measure as a share of that of the best, chosen for each half of the classes by the other half.

    gains: of each network [..., K, M]. The ratio of the means over networks and classes, and the ends of its interval
    by Fieller's theorem (1954), each [...]. All are NaN where the interval of the best's gain reaches down to zero: a
    share of nothing is none.
    """
    pair = np.stack([np.mean(gains, axis=0)[..., measure], np.mean(_best(gains), axis=0)[..., 0]])  # [2, ..., K]
    known = ~np.isnan(pair).any(0)
    count = known.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        own, best = (np.where(known, pair, 0.0).sum(-1) / count)[..., None]
        off = np.where(known, pair - np.stack([own, best]), 0.0)
        scale = stats.t.ppf((1 + confidence) / 2, count - 1) ** 2 / (count - 1) / count
        own, best = own[..., 0], best[..., 0]
        # Those shares r that own - r best, whose variance is a square in r, does not tell from zero.
        a, b, c = (
            x * y - scale * (u * v).sum(-1)
            for x, y, u, v in ((best, best, off[1], off[1]), (own, best, off[0], off[1]), (own, own, off[0], off[0]))
        )
        told = (a > 0) & (best > 0)
        half = np.sqrt(np.clip(b**2 - a * c, 0, None))
        found = own / best, (b - half) / a, (b + half) / a
    value, low, high = (np.where(told, each, np.nan) for each in found)
    return value, low, high


BEST = "best_elsewhere"
"""Stands for the measure that gains most over the other half of the classes, whichever it is."""


@dataclass(frozen=True)
class Result:
    """One measure in one network, or in all: an estimate with its interval, its rank, and its share of the best.

    Each is (value, low, high), None where it cannot be told; `at_once` is the gain's interval, allowing for the number
    of measures. `found` says whether that is above zero, and `apart` whether the measure is told apart from the best.
    """

    measure: str
    gain: tuple[float | None, ...]
    at_once: tuple[float | None, ...]
    rank: tuple[float | None, ...]
    reach: tuple[float | None, ...]
    found: bool
    apart: bool
    classes: int


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _told(estimate: Estimate, confidence: float, at: int = 0) -> tuple[float | None, ...]:
    values = (estimate.value[at], *(end[at] for end in estimate.interval(confidence)))
    value, low, high = map(_number, values)
    return (value, low, high) if None not in (low, high) else (value, None, None)


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
    at_once = of_gain.interval(1 - (1 - confidence) / len(names))
    known = np.isfinite(of_gain.value)
    first = int(np.nanargmax(of_gain.value)) if known.all() else 0
    less, _ = jackknife([of[:, first, None] - of for of in by_class], weights)
    found = []
    for i, name in enumerate(names):
        found.append(
            Result(
                name,
                _told(of_gain, confidence, i),
                tuple(_number(end[i]) for end in at_once),
                _within(_told(of_rank, confidence, i), 1, len(names)),
                tuple(_number(end) for end in reach(by_class, i, confidence)),
                bool(at_once[0][i] > 0),
                bool(less.interval(confidence)[0][i] > 0),
                int(of_gain.classes),
            )
        )
    chosen, _ = jackknife(_best(by_class), weights)
    nothing = (None, None, None)
    told = _told(chosen, confidence)
    found.append(Result(BEST, told, nothing[:2], nothing, nothing, False, False, int(chosen.classes)))
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
    """What to use in order to find the units that a network needs, and what probe weights reach of it.

    `found` are the results of `compare`. The gain of the best has an interval that allows for the choice among all.
    """

    def number(value: float | None, low: float | None, high: float | None) -> str:
        told = f"{value:.2f}" if low is None else f"{value:.2f} ({low:.2f} to {high:.2f})"
        return told.replace("-", "\N{MINUS SIGN}")

    known = [each for each in found if each.gain[0] is not None and each.measure != BEST]
    if not known:
        return f"{network}: nothing can be said, since no target has a gap to lose in it."
    best = max(known, key=lambda each: each.gain[0])
    gains = number(best.gain[0], *best.at_once)
    if best.classes < 2:
        return (
            f"{network}: one target cannot tell measures apart; {labels[best.measure]} has the largest gain, {gains} "
            "of the gap over random orders."
        )
    if not best.found:
        return (
            f"{network}: no measure is shown to find units that matter; the best, {labels[best.measure]}, gains "
            f"{gains} of the gap over random orders."
        )
    text = (
        f"{network}: to find the units that matter, use {labels[best.measure]}, which gains {gains} of the gap over "
        "random orders"
    )
    others = [labels[each.measure] for each in known if each is not best and not each.apart]
    text += f" ({', '.join(others)} cannot be told apart from it)" if others else ""
    told = next((each for each in known if each.measure == probe), None)
    if told is best or told is None or told.reach[0] is None:
        return f"{text}."
    return f"{text}; probe weights reach {number(*told.reach)} of the best."
