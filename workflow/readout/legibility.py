"""Legibility: how often people, or machine observers in their place, see which occlusion drives a unit.

Frames have the columns of a study's answers: `network, layer, class_id, cell, unit, set, condition, observer, correct,
relative_difference`, and of people also `session, confidence, seconds`. `correct` is 1, 0, or .5 for an exact tie.
Units are the random factor, with image sets within them: a unit's value is the mean over its image sets, and
intervals are over units (`readout.inference`, whose "classes" are units here). The same unit of two targets is one
unit.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from readout import inference
from readout.conditions import CONDITIONS, NONE
from readout.inference import FISHER, PLAIN, Estimate, Scale

UNIT = ["network", "layer", "unit"]
"""What tells units apart, whichever target they were drawn for."""
PERSON, PRIOR = "person", "prior"
"""The observer that is people, and the one that sees no references."""
DISPLAYED = ("synthetic", *(name for name in CONDITIONS if name not in ("synthetic", NONE)), NONE)
"""The conditions in the order in which the paper shows them."""
EFFECT = 0.07
"""What showing any explanation adds to the accuracy of people as published: .67 less .60."""
POWER = 0.8
BINS = 5
"""Bins of equal count by relative difference, as published."""
LEVELS = (1, 2, 3)
"""Of confidence, 3 the highest."""


class Published(NamedTuple):
    """Right answers of one condition: of people on Mechanical Turk and of the two experts, each with 2 SEM."""

    people: int
    people_sem2: float
    experts: int
    experts_sem2: float


PEOPLE, EXPERTS = 900, 360
"""Main trials in each condition."""
PUBLISHED = {
    "synthetic": Published(602, 0.0385, 249, 0.0487),
    "natural": Published(600, 0.0283, 262, 0.0332),
    "mixed": Published(606, 0.0293, 243, 0.0362),
    "blur": Published(592, 0.0313, 251, 0.0441),
    NONE: Published(540, 0.0303, 225, 0.0332),
}
"""Zimmermann et al. 2021 (arXiv 2106.12447), figure 5, decoded from the vector file on the project's page.

2 SEM are over participants. They say nothing of how far other units would differ from the 18 that were shown.
"""


def percent(right: int, trials: int) -> str:
    """A share as printed in the paper's figure, in two digits; a half goes to the even digit, in exact arithmetic."""
    return f"{round(Fraction(100 * right, trials)) / 100:.2f}"


def error_over_sessions(accuracies: Sequence[float]) -> float | None:
    """Twice the standard error of the mean over sessions, by the population's deviation, as published.

    None of one session, which has no deviation.
    """
    if len(accuracies) < 2:
        return None
    return float(2 * np.std(accuracies) / math.sqrt(len(accuracies)))


def number(value: float) -> float | None:
    """A number of a table; what could not be computed is missing."""
    return float(value) if np.isfinite(value) else None


def told(estimate: Estimate, confidence: float) -> tuple[float | None, ...]:
    """An estimate of one number with its interval; no interval of units that do not differ, which show no doubt."""
    value = number(estimate.value[0])
    # ASSUME: units that all say the same are too few to differ, and have no interval rather than one of no length.
    if value is None or not estimate.variance[0] > 0:
        return value, None, None
    return value, *(number(end[0]) for end in estimate.interval(confidence))


def by_unit(trials: pd.DataFrame, value: str = "correct") -> pd.Series:
    """The value of each unit: mean over its image sets of the mean over the answers to each."""
    return trials.groupby([*UNIT, "set"])[value].mean().groupby(level=UNIT).mean()


def over_units(values: Sequence[float]) -> Estimate:
    """The mean over units [1], with Student's t of one degree of freedom less than there are units."""
    return inference.jackknife([np.asarray(values, float)[:, None]], [1.0])[0]


class Accuracy(NamedTuple):
    """A mean over units with its interval, and the share of all trials with the published error over sessions."""

    estimate: float | None
    low: float | None
    high: float | None
    pooled: float
    sem2: float | None
    units: int
    trials: int
    sessions: int | None


def accuracy(trials: pd.DataFrame, confidence: float, value: str = "correct") -> Accuracy:
    """Of one observer in one condition, over units and, of people, over sessions.

    Units weigh the same, whatever share of a cell's units was drawn. `value` may be another column, as seconds are. An
    interval of a share ends at 0 and 1.
    """
    means = by_unit(trials, value)
    estimate, low, high = told(over_units(means), confidence)
    if value == "correct" and low is not None:
        low, high = max(0.0, low), min(1.0, high)
    sessions = (
        trials.groupby("session")[value].mean() if "session" in trials and trials["session"].notna().any() else []
    )
    return Accuracy(
        estimate,
        low,
        high,
        float(trials[value].mean()),
        error_over_sessions(sessions),
        len(means),
        len(trials),
        len(sessions) or None,
    )


# ---- agreement


def _kappas(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa [...] of tables of counts [..., C, C]; NaN where chance alone agrees on everything."""
    total = counts.sum((-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        agreed = np.trace(counts, axis1=-2, axis2=-1) / total
        expected = (counts.sum(-1) * counts.sum(-2)).sum(-1) / total**2
        # Counts are whole numbers, so that an agreement that is certain is exactly 1, and leaves 0 / 0.
        return (agreed - expected) / (1 - expected)


def _marks(correct: np.ndarray) -> np.ndarray:
    """Which of wrong, tie and right each answer is [..., 3]; none where it is missing."""
    return (np.asarray(correct, float)[..., None] == np.array([0.0, 0.5, 1.0])).astype(float)


def kappa(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Cohen's kappa of two observers' correct-vectors over the same units of an image set.

    A tie is a kind of its own beside right and wrong. None where it is undefined: both always give one and the same
    answer.
    """
    return number(float(_kappas(_marks(np.asarray(one)).T @ _marks(np.asarray(other)))))


class Agreement(NamedTuple):
    """Mean kappa of two observers over pairs and image sets, with an interval over units and the published 2 SEM.

    `undefined` pairs have no kappa and are not in the mean.
    """

    one: str
    other: str
    estimate: float | None
    low: float | None
    high: float | None
    sem2: float | None
    pairs: int
    undefined: int
    units: int


def _answers(trials: pd.DataFrame, condition: str) -> pd.DataFrame:
    """A column an observer (of people, a session) and a row a unit and set; observers that see no references too."""
    seen = set(trials.loc[trials["condition"] == condition, "observer"])
    # An observer that answers without references answers the same whatever is shown. People do not.
    unseeing = set(trials.loc[trials["condition"] == NONE, "observer"]) - seen - {PERSON}
    rows = trials[
        ((trials["condition"] == condition) & trials["observer"].isin(seen))
        | ((trials["condition"] == NONE) & trials["observer"].isin(unseeing))
    ]
    session = rows["session"].fillna("") if "session" in rows else pd.Series("", index=rows.index)
    return rows.assign(session=session).pivot_table(
        index=["set", *UNIT], columns=["observer", "session"], values="correct", aggfunc="mean"
    )


def agreement(trials: pd.DataFrame, condition: str, confidence: float) -> Iterator[Agreement]:
    """Of each pair of observers in one condition of one network; of people with themselves, between sessions."""
    answers = _answers(trials, condition)
    units = pd.MultiIndex.from_frame(answers.index.to_frame(index=False)[UNIT].drop_duplicates())
    marks = {}
    for chosen, part in answers.groupby(level="set"):
        on_units = part.droplevel("set").reindex(units)
        marks[chosen] = {rater: _marks(on_units[rater]) for rater in on_units if on_units[rater].notna().any()}
    observers = sorted({observer for observer, _ in answers.columns}, key=lambda name: (name != PERSON, name))
    for one, other in combinations_with_replacement(observers, 2):
        if one == other and one != PERSON:
            continue
        found, left_out = [], []
        for raters in marks.values():
            pairs = [
                (a, b)
                for a in raters
                for b in raters
                # Each pair of sessions once.
                if a[0] == one and b[0] == other and (one != other or a[1] < b[1])
            ]
            for a, b in pairs:
                first, second = raters[a], raters[b]
                counts = first.T @ second
                if counts.sum():
                    found.append(_kappas(counts))
                    left_out.append(_kappas(counts - first[:, :, None] * second[:, None, :]))
        if found:
            yield _agreement(one, other, np.array(found), np.array(left_out), confidence)


def _agreement(one: str, other: str, found: np.ndarray, left_out: np.ndarray, confidence: float) -> Agreement:
    """From the kappa of each pair and set [P], and those without each unit [P, U]."""
    known = ~np.isnan(found)
    undefined = int((~known).sum())
    if not known.any():
        return Agreement(one, other, None, None, None, None, 0, undefined, left_out.shape[1])
    defined = ~np.isnan(left_out[known])
    count = defined.sum(0)
    total = np.where(defined, left_out[known], 0.0).sum(0)
    rest = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    estimate = _of_left_out(found[known].mean(), rest, PLAIN)
    value, low, high = told(estimate, confidence)
    if low is not None:
        low, high = max(-1.0, low), min(1.0, high)
    sem2 = error_over_sessions(found[known])
    return Agreement(one, other, value, low, high, sem2, int(known.sum()), undefined, left_out.shape[1])


def _of_left_out(value: float, left_out: np.ndarray, scale: Scale) -> Estimate:
    """The jackknife of a statistic from its values without each unit [U]."""
    count = len(left_out)
    values = scale.to(left_out)
    variance = (count - 1) / count * ((values - values.mean()) ** 2).sum() if count > 1 else np.nan
    centre, df = scale.to(np.array([value])), np.array([count - 1.0 if count > 1 else np.nan])
    return Estimate(centre, np.array([variance]), df, np.array(count), scale)


# ---- how hard a trial is, how sure and how fast people are


class Bin(NamedTuple):
    """One of the bins by relative difference: its mean and the accuracy in it."""

    relative_difference: float
    accuracy: Accuracy


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; NaN where either is constant."""
    a, b = (stats.rankdata(x) - (len(x) + 1) / 2 for x in (a, b))
    size = math.sqrt((a @ a) * (b @ b))
    return float(a @ b) / size if size > 0 else math.nan


def relation(trials: pd.DataFrame, confidence: float) -> tuple[tuple[float | None, ...], int]:
    """Rank correlation over (unit, set) of accuracy and relative difference, its interval over units; their number.

    Of people the accuracy is the mean over those who answered. A (unit, set) without a relative difference has no say.
    """
    items = trials.groupby([*UNIT, "set"])[["correct", "relative_difference"]].mean().dropna()
    return _ranked(items, confidence)


def ease(trials: pd.DataFrame, known: pd.Series, confidence: float) -> tuple[tuple[float | None, ...], int]:
    """Rank correlation over units of accuracy and what is known of each, its interval, and the number of units.

    known: a number for each unit (network, layer, unit), such as the local contrast of its map, which may tell without
    any trial how easy it is.
    """
    return _ranked(pd.concat([by_unit(trials), known], axis=1, join="inner").dropna(), confidence)


def _ranked(items: pd.DataFrame, confidence: float) -> tuple[tuple[float | None, ...], int]:
    """Rank correlation of two columns, with its interval by a jackknife over units, and the number of units."""
    unit = items.groupby(level=UNIT).ngroup().to_numpy()
    one, other = items.to_numpy(float).T
    value = _correlation(one, other) if len(items) > 1 else math.nan
    count = int(unit.max()) + 1 if len(items) else 0
    if math.isnan(value) or count < 3:
        return (number(value), None, None), count
    left_out = np.array([_correlation(one[unit != u], other[unit != u]) for u in range(count)])
    return told(_of_left_out(value, left_out, FISHER), confidence), count


def by_difference(trials: pd.DataFrame, confidence: float, bins: int = BINS) -> list[Bin]:
    """Accuracy in bins of equal count by relative difference, smallest first; fewer where there are fewer items."""
    known = trials.dropna(subset=["relative_difference"])
    keys = [*UNIT, "set"]
    items = known.groupby(keys)["relative_difference"].mean().sort_values(kind="stable")
    found = []
    for part in np.array_split(np.arange(len(items)), min(bins, len(items))) if len(items) else []:
        chosen = items.iloc[part]
        rows = known[pd.MultiIndex.from_frame(known[keys]).isin(chosen.index)]
        found.append(Bin(float(chosen.mean()), accuracy(rows, confidence)))
    return found


def confidences(trials: pd.DataFrame, confidence: float) -> Iterator[tuple[int, Accuracy, Accuracy | None]]:
    """For each level of confidence the share of the trials that have it, and the accuracy in these."""
    for level in LEVELS:
        share = accuracy(trials.assign(correct=(trials["confidence"] == level).astype(float)), confidence)
        rows = trials[trials["confidence"] == level]
        yield level, share, accuracy(rows, confidence) if len(rows) else None


def seconds(trials: pd.DataFrame, confidence: float) -> Iterator[tuple[str, Accuracy]]:
    """Mean reaction times of all answers, of right ones and of wrong ones."""
    for part, rows in (
        ("all", trials),
        ("right", trials[trials["correct"] == 1]),
        ("wrong", trials[trials["correct"] == 0]),
    ):
        if len(rows):
            yield part, accuracy(rows, confidence, "seconds")


# ---- gains and power


def gains(trials: pd.DataFrame) -> pd.DataFrame:
    """What explanations add to the accuracy of each unit, by observer and condition.

    Rows are `network, layer, class_id, cell, unit, observer, condition` with `gain, accuracy, without, sets, trials,
    relative_difference`: over the image sets that both conditions have, accuracy less that in condition `none`. Of a
    machine observer that is the accuracy of the prior observer, of people that of the people who saw no references.
    """
    keys = ["network", "layer", "class_id", "cell", "unit", "set"]
    of_sets = trials.groupby([*keys, "observer", "condition"], sort=True).agg(
        correct=("correct", "mean"), relative_difference=("relative_difference", "mean"), trials=("correct", "size")
    )
    of_sets = of_sets.reset_index()
    without = of_sets[of_sets["condition"] == NONE]
    shown = of_sets[of_sets["condition"] != NONE]
    shown = shown.assign(base=np.where(shown["observer"] == PERSON, PERSON, PRIOR))
    without = without[without["observer"].isin([PERSON, PRIOR])][[*keys, "observer", "correct"]]
    without = without.rename(columns={"observer": "base", "correct": "without"})
    both = shown.merge(without, on=[*keys, "base"])
    found = both.groupby([*keys[:-1], "observer", "condition"]).agg(
        accuracy=("correct", "mean"),
        without=("without", "mean"),
        sets=("set", "size"),
        trials=("trials", "sum"),
        relative_difference=("relative_difference", "mean"),
    )
    found.insert(0, "gain", found["accuracy"] - found["without"])
    return found.reset_index()


class Power(NamedTuple):
    """Before a contrast is looked at: its standard error, what it would detect, and the units that it takes.

    `detectable` is the difference found in `POWER` of studies; `needed` the units (in each group) with which `EFFECT`
    would be. `deviation` is that of units.
    """

    deviation: float
    error: float
    detectable: float
    needed: int


def detectable(error: float, confidence: float, df: float = math.inf) -> float:
    """The true difference that an interval with this standard error tells from zero in `POWER` of studies."""
    t = stats.t if math.isfinite(df) else stats.norm
    given = (df,) if math.isfinite(df) else ()
    return float((t.ppf((1 + confidence) / 2, *given) + t.ppf(POWER, *given)) * error)


def needed(variance: float, effect: float, confidence: float, groups: int = 1) -> int:
    """Units (in each group) with which the effect is detected in `POWER` of studies, by the normal distribution."""
    quantiles = stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(POWER)
    return math.ceil(groups * variance * (quantiles / effect) ** 2)


def power(variance: float, counts: Sequence[int], confidence: float) -> Power | None:
    """Of a mean over so many units, or of the difference of two groups of so many; None where units do not differ.

    `variance` is that of units, the same in each group, and units are independent of each other.
    """
    df = sum(counts) - len(counts)
    if df < 1 or min(counts) < 1 or not variance > 0:
        return None
    error = math.sqrt(variance * sum(1 / count for count in counts))
    return Power(
        math.sqrt(variance),
        error,
        detectable(error, confidence, df),
        needed(variance, EFFECT, confidence, len(counts)),
    )
