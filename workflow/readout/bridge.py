"""The bridge between reading, needing and seeing: are units of cells that matter easier to explain to an observer?

The *gain* of a unit is what explanations add to the accuracy on it (`readout.legibility.gains`). A are the cells in the
top quarter of their grid by ablation effect but not by the probe's AUROC, P the reverse; the contrast is the mean gain
of A less that of P, within grids, cells weighing the same. Units are the unit of inference; permuted cells are the
null.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from readout import claims
from readout.inference import ROUNDING, Estimate
from readout.legibility import UNIT, Power, number, power

GRID = ["network", "layer", "class_id"]
PROBE = "auroc"
INTERVENTIONS = ("zero", "mean")
"""Those whose ablation effect makes the groups, where a study has them."""
OK, NOT_ESTIMABLE = "ok", "not estimable"
LEAST = 2
"""Units in each of A and P; simulations bear the intervals out from there on (docs/legibility.md)."""
PERMUTATIONS = 1999
NOTHING = 1e-9
"""What rounding leaves of zero among leverages, whose scale is 1."""


def loss(intervention: str) -> str:
    """The column of a cell's ablation effect."""
    return f"separation_loss_{intervention}"


def top(values: np.ndarray) -> np.ndarray:
    """Which cells of a grid are in its top quarter; those that tie over its boundary are not."""
    # ASSUME: the top quarter never holds more than a quarter of the cells.
    count = max(1, len(values) // 4)
    return (values >= values[:, None]).sum(-1) <= count


def groups(effect: np.ndarray, probe: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cells of a grid are A and which are P; none where a number is missing."""
    if np.isnan(effect).any() or np.isnan(probe).any():
        return np.zeros(len(effect), bool), np.zeros(len(effect), bool)
    high, read = top(effect), top(probe)
    return high & ~read, read & ~high


def with_groups(cells: pd.DataFrame, intervention: str) -> pd.DataFrame:
    """The table of cells with columns `a` and `p`, by grid."""
    found = cells.assign(a=False, p=False)
    for _, grid in cells.groupby(GRID):
        a, p = groups(grid[loss(intervention)].to_numpy(float), grid[PROBE].to_numpy(float))
        found.loc[grid.index, "a"], found.loc[grid.index, "p"] = a, p
    return found


# ---- linear models over units


def linear(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, clusters: np.ndarray, contrast: np.ndarray
) -> Estimate | None:
    """A contrast of the coefficients of weighted least squares, with a variance over clusters that is bias-reduced.

    x: [n, k]; y: [..., n], leading axes being worlds of a simulation; weights and clusters: [n]; contrast: [k]. The
    variance is unbiased where errors are independent and of one variance, and its degrees of freedom are
    Satterthwaite's (CR2: Bell and McCaffrey 2002). Two groups of equal weights and one row a cluster have the usual
    unequal-variance error. None where the contrast is not determined, or hangs on clusters that are fitted whatever
    they say.
    """
    bread = np.linalg.pinv(x.T @ (weights[:, None] * x), hermitian=True)  # M, [k, k]
    scale = max(1.0, np.abs(contrast).max())
    if not np.allclose(contrast @ bread @ (x.T @ (weights[:, None] * x)), contrast, atol=1e-8 * scale):
        return None
    beta = (y * weights) @ x @ bread  # [..., k]
    rest = y - beta @ x.T
    middle = bread @ (x.T @ (weights[:, None] ** 2 * x)) @ bread
    pull = x @ (bread @ contrast) * weights  # of each row on the contrast
    names, cluster = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(cluster)
    # Of a cluster of one row: variance of its residual, in units of the errors' variance.
    left = 1 - 2 * weights * np.einsum("ij,jk,ik->i", x, bread, x) + np.einsum("ij,jk,ik->i", x, middle, x)
    adjusted = np.zeros(len(x))  # a_g, of all clusters
    single, fitted = sizes[cluster] == 1, left <= NOTHING
    if (single & fitted & (np.abs(pull) > NOTHING)).any():
        return None
    np.divide(pull, np.sqrt(np.where(fitted, 1.0, left)), out=adjusted, where=single & ~fitted)
    for g in np.flatnonzero(sizes > 1):
        rows = np.flatnonzero(cluster == g)
        own = x[rows] @ bread @ x[rows].T
        block = np.eye(len(rows)) - own * weights[rows] - weights[rows, None] * own + x[rows] @ middle @ x[rows].T
        values, vectors = np.linalg.eigh(block)
        known = values > NOTHING
        along = vectors.T @ pull[rows]
        if (np.abs(along[~known]) > NOTHING).any():
            return None
        roots = np.where(known, 1 / np.sqrt(np.where(known, values, 1.0)), 0.0)
        adjusted[rows] = vectors @ (roots * along)
    members = (cluster == np.arange(len(names))[:, None]).astype(float)  # [G, n]
    variance = (((adjusted * rest) @ members.T) ** 2).sum(-1, keepdims=True)
    u, v = members @ (x * adjusted[:, None]), members @ (x * (weights * adjusted)[:, None])
    gram = np.diag(np.bincount(cluster, adjusted**2)) - v @ bread @ u.T - u @ bread @ v.T + u @ middle @ u.T
    spread = (gram**2).sum()
    if not spread > 0:
        return None
    # What rounding leaves of equal numbers is no variance.
    variance[variance <= (ROUNDING * np.abs(y).max(-1, keepdims=True)) ** 2] = 0
    df = np.full(variance.shape, np.trace(gram) ** 2 / spread)
    return Estimate((beta @ contrast)[..., None], variance, df, np.full(variance.shape[:-1], len(names)))


def _standard(values: np.ndarray) -> np.ndarray | None:
    """Values less their mean, in units of their deviation; None of values that do not differ."""
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-12 * max(1.0, np.abs(values).max()) else None


@dataclass(frozen=True)
class Result:
    """A contrast with its interval over units, and beside it the interval over cells; or why there is none.

    `p` is two-sided: of the contrast of A and P by permuted cells, of a regression by Student's t over cells.
    """

    status: str
    reason: str | None = None
    estimate: Estimate | None = None
    over_cells: Estimate | None = None
    p: float | None = None
    units: int = 0
    trials: int = 0
    in_a: int = 0
    in_p: int = 0


def _codes(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    return frame.groupby(list(names), sort=True).ngroup().to_numpy()


def _dummies(codes: np.ndarray) -> np.ndarray:
    return (codes[:, None] == np.unique(codes)).astype(float)


def _joined(gains: pd.DataFrame, cells: pd.DataFrame, adjusted: bool) -> pd.DataFrame:
    """The gains with their cells' columns; of units that have a relative difference, where it is a covariate."""
    joined = gains.merge(cells, on=[*GRID, "cell"], how="inner", validate="many_to_one")
    return joined.dropna(subset=["relative_difference"]) if adjusted else joined


def compared(gains: pd.DataFrame, cells: pd.DataFrame, adjusted: bool = False) -> pd.DataFrame:
    """The gains with their cells' columns, of grids in which both groups have units; the others compare nothing."""
    joined = _joined(gains, cells, adjusted)
    if not len(joined):
        return joined
    return joined[joined.groupby(GRID)[["a", "p"]].transform("any").all(axis=1)].reset_index(drop=True)


def in_groups(joined: pd.DataFrame) -> tuple[int, int]:
    """How many units are in A and in P."""
    in_a, in_p = (len(joined.loc[joined[name], UNIT].drop_duplicates()) for name in "ap")
    return in_a, in_p


def contrast(
    gains: pd.DataFrame,
    cells: pd.DataFrame,
    intervention: str,
    adjusted: bool = False,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Result:
    """Mean gain of A less that of P, of one observer in one condition; cells weigh the same, within grids.

    gains: rows a unit; cells: rows a cell, with `a` and `p` of `with_groups`. `adjusted` has the relative difference as
    a covariate. Grids in which either group has no unit have no say.
    """
    if cells[loss(intervention)].isna().all():
        return Result(NOT_ESTIMABLE, "no network has a gap to lose")
    joined = compared(gains, cells, adjusted)
    chosen = joined[joined["a"] | joined["p"]].reset_index(drop=True)
    if not len(chosen):
        empty = [name for name, column in (("A", "a"), ("P", "p")) if not cells[column].any()]
        which = f"{' and '.join(empty)} {'are' if len(empty) > 1 else 'is'} empty" if empty else None
        return Result(NOT_ESTIMABLE, which or "no grid has units in cells of A and in cells of P")
    in_a, in_p = in_groups(chosen)
    about = {
        "units": len(chosen[UNIT].drop_duplicates()),
        "trials": int(chosen["trials"].sum()),
        "in_a": in_a,
        "in_p": in_p,
    }
    if min(in_a, in_p) < LEAST:
        return Result(NOT_ESTIMABLE, "too few units: A or P has one alone", **about)
    y, cell = chosen["gain"].to_numpy(float), _codes(chosen, [*GRID, "cell"])
    weights = 1 / np.bincount(cell)[cell]
    columns = [chosen["a"].to_numpy(float), *_dummies(_codes(chosen, GRID)).T]
    difference = _standard(chosen["relative_difference"].to_numpy(float)) if adjusted else None
    if difference is not None:
        columns.append(difference)
    x = np.stack(columns, -1)
    wanted = np.eye(x.shape[1])[0]
    found = linear(x, y, weights, _codes(chosen, UNIT), wanted)
    if found is None or not found.df[0] >= 1:
        return Result(NOT_ESTIMABLE, "too few units for the grids and the covariate", **about)
    values, deals, sums = _deals(joined, difference is not None)
    p = float(permuted(values, deals, permutations, seed, sums))
    return Result(OK, None, found, linear(x, y, weights, cell, wanted), p, **about)


class Sums(NamedTuple):
    """Sums of a covariate z over the units of each cell [C], by grid; z is less its mean, w is 1 / units of the cell.

    `wz`: sum of w z; `ww`: of w^2; `wwz`: of w^2 z; `wzz` and `wwzz`: over all units of all grids.
    """

    wz: list[np.ndarray]
    ww: list[np.ndarray]
    wwz: list[np.ndarray]
    wzz: float
    wwzz: float


def permuted(
    values: Sequence[np.ndarray],
    deals: Sequence[np.ndarray],
    permutations: int,
    seed: int,
    sums: Sums | None = None,
) -> np.ndarray:
    """Two-sided p [...] of a sum over grids of what their cells were dealt, against deals at random within each grid.

    values: of the cells of each grid [..., C]; deals: of each grid what its cells count in the sum [C]. The observed
    deal counts as one of those at random, so that p is never 0. With the `sums` of a covariate, values are what it
    leaves (Freedman and Lane 1983), and each sum is in units of the error that it has given the covariate: where A has
    the harder trials, fewer deals are as far from them as its own.
    """
    generator = np.random.default_rng(seed)
    total, along, square, across = 0.0, 0.0, 0.0, 0.0
    for i, (value, deal) in enumerate(zip(values, deals, strict=True)):
        many = generator.permuted(np.broadcast_to(deal, (permutations, len(deal))), axis=1)
        many = np.concatenate([deal[None], many])  # the observed one first
        total = total + value @ many.T
        if sums is not None:
            along = along + many @ sums.wz[i]
            square = square + many**2 @ sums.ww[i]
            across = across + many @ sums.wwz[i]
    if sums is not None:
        slope = along / sums.wzz
        total = total / np.sqrt(square - 2 * slope * across + slope**2 * sums.wwzz)
    size = np.abs(total)
    # Equal deals are equal, whatever rounding makes of their sums.
    near = ROUNDING * size.max(-1, keepdims=True)
    return (size >= size[..., :1] - near).sum(-1) / (1 + permutations)


def _deals(joined: pd.DataFrame, adjusted: bool) -> tuple[list[np.ndarray], list[np.ndarray], Sums | None]:
    """Of the cells of each grid that have units the mean gain, and what each counts in the contrast.

    `adjusted` means are of what the relative difference leaves, beside which are its sums.
    """
    cell = _codes(joined, [*GRID, "cell"])
    w = 1 / np.bincount(cell)[cell]
    frame = joined[[*GRID, "cell", "a", "p"]].assign(value=joined["gain"].astype(float), w=w)
    z = np.zeros(len(frame))
    if adjusted:
        z = joined["relative_difference"].to_numpy(float)
        of_grid = [frame[name] for name in GRID]
        z = z - (
            pd.Series(w * z, frame.index).groupby(of_grid).transform("sum")
            / frame["w"].groupby(of_grid).transform("sum")
        )
        z = z.to_numpy()
        frame["value"] -= (w * z * frame["value"]).sum() / (w * z**2).sum() * z
    frame = frame.assign(wz=w * z, ww=w**2, wwz=w**2 * z)
    sums = Sums([], [], [], float((w * z**2).sum()), float((w**2 * z**2).sum())) if adjusted else None
    how = {"value": "mean", "a": "first", "p": "first", "wz": "sum", "ww": "sum", "wwz": "sum"}
    of_cells = frame.groupby([*GRID, "cell"]).agg(how)
    values, deals = [], []
    for _, grid in of_cells.groupby(level=GRID):
        a, p = (grid[name].to_numpy(float) for name in "ap")
        values.append(grid["value"].to_numpy())
        # As least squares weigh grids with these numbers of cells.
        deals.append(a.sum() * p.sum() / (a.sum() + p.sum()) * (a / a.sum() - p / p.sum()))
        if sums is not None:
            for name in ("wz", "ww", "wwz"):
                getattr(sums, name).append(grid[name].to_numpy())
    return values, deals, sums


TERMS = ("ablation", "probe", "difference")


def regression(
    gains: pd.DataFrame, cells: pd.DataFrame, intervention: str, adjusted: bool = False
) -> dict[str, Result]:
    """Gain of all units on z(ablation effect) and z(probe), and the difference of the two coefficients.

    Beside them z(log cell size), z(magnitude bin), a constant for each layer of each network and, if `adjusted`,
    z(relative difference); covariates that do not vary are left out. z is over the units.
    """
    none = lambda reason, **about: dict.fromkeys(TERMS, Result(NOT_ESTIMABLE, reason, **about))  # noqa: E731
    columns = [loss(intervention), PROBE]
    known = cells.dropna(subset=columns)
    if not len(known):
        return none("no network has a gap to lose")
    joined = _joined(gains, known, adjusted).reset_index(drop=True)
    about = {"units": len(joined[UNIT].drop_duplicates()), "trials": int(joined["trials"].sum())}
    if about["units"] < 2:
        return none("too few units", **about)
    main = [_standard(joined[name].to_numpy(float)) for name in columns]
    if any(each is None for each in main):
        return none("the cells do not differ in ablation effect or in what a probe reads", **about)
    rest = [np.log(joined["units"].to_numpy(float)), joined["magnitude_bin"].to_numpy(float)]
    if adjusted:
        rest.append(joined["relative_difference"].to_numpy(float))
    rest = [each for each in map(_standard, rest) if each is not None]
    x = np.stack([*main, *rest, *_dummies(_codes(joined, ["network", "layer"])).T], -1)
    y, ones = joined["gain"].to_numpy(float), np.ones(len(joined))
    found = {}
    for name, first in zip(TERMS, ([1, 0], [0, 1], [1, -1]), strict=True):
        wanted = np.array([*first, *[0] * (x.shape[1] - 2)], float)
        estimate = linear(x, y, ones, _codes(joined, UNIT), wanted)
        if estimate is None or not estimate.df[0] >= 1:
            found[name] = Result(NOT_ESTIMABLE, "too few units, or cells in which the covariates coincide", **about)
            continue
        over_cells = linear(x, y, ones, _codes(joined, [*GRID, "cell"]), wanted)
        # The regressors are the cells', and where cells differ for whatever reason units know nothing of it.
        p = None if over_cells is None else float(2 * min(over_cells.above(0)[0], over_cells.below(0)[0]))
        found[name] = Result(OK, None, estimate, over_cells, p, **about)
    return found


# ---- verdicts


def verdict(results: Sequence[Result], confidence: float) -> tuple[str | None, str | None]:
    """What is concluded of the contrast under every intervention of the study, by the claims' rules, and a reason.

    It holds if all lower bounds are above 0, and does not hold if an upper bound is below, allowing for their number;
    and neither where permuted cells give as large a contrast more often than the intervals miss. An interval over units
    takes the cells as they are: where cells differ for whatever reason, A and P differ too, and only other cells of
    the same grids show that this is nothing. Without an estimate there is no verdict but a reason; of units that do not
    differ the verdict is that there is none.
    """
    if not results:
        return None, "the study ablates neither by zero nor by mean"
    for each in results:
        if each.status != OK:
            return None, each.reason
    if not all(each.estimate.variance[0] > 0 for each in results):
        return claims.NONE, "the units of each group do not differ, so that nothing says how far others would"
    joined = judged([each.estimate for each in results], [np.array(each.p) for each in results])
    said = str(claims.verdicts(joined, confidence))
    if said == claims.OPEN:
        alone = judged([each.estimate for each in results], [np.array(0.0)] * len(results))
        if claims.verdicts(alone, confidence) != claims.OPEN:
            return said, "permuted cells give contrasts of this size: other cells of these grids would have done so"
    return said, None


def judged(estimates: Sequence[Estimate], p: Sequence[np.ndarray]) -> claims.Contrasts:
    """Contrasts [..., 1] that are to be above 0, with the two-sided p [...] of each by permuted cells."""
    # Half of it on the side on which the contrast lies.
    half = [each[..., None] / 2 for each in p]
    holds = [np.maximum(each.above(0), h) for each, h in zip(estimates, half, strict=True)]
    fails = [np.maximum(each.below(0, or_at=True), h) for each, h in zip(estimates, half, strict=True)]
    return claims.Contrasts(
        tuple(estimates),
        np.full((*holds[0].shape[:-1], len(holds)), np.nan),
        np.concatenate(holds, -1),
        np.concatenate(fails, -1),
        ({"lower": 0.0, "upper": None},) * len(estimates),
    )


def planned(gains: pd.DataFrame, cells: pd.DataFrame, confidence: float) -> Power | None:
    """What the contrast of A and P could detect, from the variance of units within cells and the units compared.

    Looks at no mean of a group: the variance is pooled over all cells of all grids, as if the same in each.
    """
    joined = _joined(gains, cells, False)
    if not len(joined):
        return None
    within = joined.groupby([*GRID, "cell"])["gain"]
    df = len(joined) - within.ngroups
    if df < 1:
        return None
    variance = float(((joined["gain"] - within.transform("mean")) ** 2).sum() / df)
    return power(variance, in_groups(compared(gains, cells)), confidence)


def interval(estimate: Estimate | None, confidence: float) -> tuple[float | None, float | None]:
    """The ends of an estimate's interval; None where it cannot be told."""
    if estimate is None or not estimate.df[0] >= 1 or not estimate.variance[0] > 0:
        return None, None
    low, high = estimate.interval(confidence)
    return number(low[0]), number(high[0])
