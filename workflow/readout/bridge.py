"""The bridge between reading, needing and seeing: are units of cells that matter easier to explain to an observer?

The *gain* of a unit is what explanations add to the accuracy on it (`readout.legibility.gains`). A are the cells in the
top quarter of their grid by ablation effect but not by the probe's AUROC, P the reverse; the contrast is the mean gain
of A less that of P, within grids, cells weighing the same. Units are the unit of inference; permuted cells are the null.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from readout import claims
from readout.inference import Estimate
from readout.legibility import UNIT, Power, number, power

GRID = ["network", "layer", "class_id"]
PROBE = "auroc"
INTERVENTIONS = ("zero", "mean")
OK, NOT_ESTIMABLE = "ok", "not estimable"
LEAST = 4
"""Units in each of A and P from which simulations bear the intervals out (docs/occlusion.analysis.md)."""
PERMUTATIONS = 1999


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

    x: [n, k]; y, weights and clusters: [n]; contrast: [k]. The variance is unbiased where errors are independent and of
    one variance, and its degrees of freedom are Satterthwaite's (CR2: Bell and McCaffrey 2002). Of equal weights and one
    row a cluster it is Student's. None where the contrast is not determined, or hangs on clusters that are fitted
    whatever they say.
    """
    bread = np.linalg.pinv(x.T @ (weights[:, None] * x), hermitian=True)  # M, [k, k]
    scale = max(1.0, np.abs(contrast).max())
    if not np.allclose(contrast @ bread @ (x.T @ (weights[:, None] * x)), contrast, atol=1e-8 * scale):
        return None
    beta = bread @ (x.T @ (weights * y))
    rest = y - x @ beta
    middle = bread @ (x.T @ (weights[:, None] ** 2 * x)) @ bread
    pull = x @ (bread @ contrast) * weights  # of each row on the contrast
    names, cluster = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(cluster)
    # Of a cluster of one row: variance of its residual, in units of the errors' variance.
    left = 1 - 2 * weights * np.einsum("ij,jk,ik->i", x, bread, x) + np.einsum("ij,jk,ik->i", x, middle, x)
    adjusted = np.zeros(len(y))  # a_g, of all clusters
    for row in np.flatnonzero(sizes[cluster] == 1):
        if left[row] > 1e-9:
            adjusted[row] = pull[row] / np.sqrt(left[row])
        elif abs(pull[row]) > 1e-9:
            return None
    for g in np.flatnonzero(sizes > 1):
        rows = np.flatnonzero(cluster == g)
        own = x[rows] @ bread @ x[rows].T
        block = np.eye(len(rows)) - own * weights[rows] - weights[rows, None] * own + x[rows] @ middle @ x[rows].T
        values, vectors = np.linalg.eigh(block)
        known = values > 1e-9
        along = vectors.T @ pull[rows]
        if not known.any() and np.abs(along).max() > 1e-9:
            return None
        roots = np.where(known, 1 / np.sqrt(np.where(known, values, 1.0)), 0.0)
        adjusted[rows] = vectors @ (roots * along)
    said = np.bincount(cluster, adjusted * rest)
    variance = (said**2).sum()

    def gathered(values: np.ndarray) -> np.ndarray:
        out = np.zeros((len(names), x.shape[1]))
        np.add.at(out, cluster, values)
        return out

    u, v = gathered(x * adjusted[:, None]), gathered(x * (weights * adjusted)[:, None])
    gram = np.diag(np.bincount(cluster, adjusted**2)) - v @ bread @ u.T - u @ bread @ v.T + u @ middle @ u.T
    spread = (gram**2).sum()
    if not spread > 0:
        return None
    # What rounding leaves of equal numbers is no variance.
    variance = 0.0 if variance <= (1e-12 * np.abs(y).max()) ** 2 else variance
    df = np.trace(gram) ** 2 / spread
    return Estimate(np.array([contrast @ beta]), np.array([variance]), np.array([df]), np.array(len(names)))


def _standard(values: np.ndarray) -> np.ndarray | None:
    """Values less their mean, in units of their deviation; None of values that do not differ."""
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-12 * max(1.0, np.abs(values).max()) else None


@dataclass(frozen=True)
class Result:
    """A contrast with its interval over units, and beside it the interval over cells; or why there is none.

    `p` is two-sided: of the contrast of A and P by permuted cells, of a regression by Student's t over units.
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
    cells_a: int = 0
    cells_p: int = 0


def _codes(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    return frame.groupby(list(names), sort=True).ngroup().to_numpy()


def _dummies(codes: np.ndarray) -> np.ndarray:
    return (codes[:, None] == np.unique(codes)).astype(float)


def _joined(gains: pd.DataFrame, cells: pd.DataFrame, adjusted: bool) -> pd.DataFrame:
    """The gains with their cells' columns; of units that have a relative difference, where it is a covariate."""
    joined = gains.merge(cells, on=[*GRID, "cell"], how="inner", validate="many_to_one")
    return joined.dropna(subset=["relative_difference"]) if adjusted else joined


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
    joined = _joined(gains, cells, adjusted)
    # A grid without a unit in either group compares nothing.
    both = joined.groupby(GRID)[["a", "p"]].transform("any").all(axis=1) if len(joined) else []
    joined = joined[both].reset_index(drop=True) if len(joined) else joined
    chosen = joined[joined["a"] | joined["p"]].reset_index(drop=True)
    if not len(chosen):
        empty = [name for name, column in (("A", "a"), ("P", "p")) if not cells[column].any()]
        which = f"{' and '.join(empty)} {'are' if len(empty) > 1 else 'is'} empty" if empty else None
        return Result(NOT_ESTIMABLE, which or "no grid has units in cells of A and in cells of P")
    count = {name: len(chosen.loc[chosen[name], UNIT].drop_duplicates()) for name in ("a", "p")}
    about = {
        "units": len(chosen[UNIT].drop_duplicates()),
        "trials": int(chosen["trials"].sum()),
        "in_a": count["a"],
        "in_p": count["p"],
        **{f"cells_{name}": int(chosen.loc[chosen[name], [*GRID, "cell"]].drop_duplicates().shape[0]) for name in "ap"},
    }
    if min(count.values()) < 2:
        return Result(NOT_ESTIMABLE, "too few units: a group has one alone", **about)
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
    slope = 0.0
    if difference is not None:
        everyone = joined["relative_difference"].to_numpy(float)
        scale = chosen["relative_difference"].to_numpy(float).std()
        # The covariate's part is taken out before cells are permuted, as in Freedman and Lane (1983).
        slope = float(np.linalg.lstsq(x * np.sqrt(weights)[:, None], y * np.sqrt(weights), rcond=None)[0][-1]) / scale
        value = joined["gain"].to_numpy(float) - slope * everyone
    else:
        value = joined["gain"].to_numpy(float)
    p = permuted(joined.assign(value=value), permutations, seed)
    return Result(OK, None, found, linear(x, y, weights, cell, wanted), p, **about)


def permuted(joined: pd.DataFrame, permutations: int, seed: int) -> float:
    """Two-sided p of the contrast where A and P are dealt out at random to the cells of each grid that have units.

    `joined` has a `value` for each unit. The observed deal counts as one of them, so that p is never 0.
    """
    generator = np.random.default_rng(seed)
    of_cells = joined.groupby([*GRID, "cell"]).agg(value=("value", "mean"), a=("a", "first"), p=("p", "first"))
    own, drawn, total = 0.0, np.zeros(permutations), 0.0
    for _, grid in of_cells.groupby(level=GRID):
        value, a, p = (grid[name].to_numpy(float) for name in ("value", "a", "p"))
        # As least squares weigh grids with these numbers of cells.
        share = a.sum() * p.sum() / (a.sum() + p.sum())
        deal = share * (a / a.sum() - p / p.sum())
        own += deal @ value
        drawn += generator.permuted(np.broadcast_to(value, (permutations, len(value))), axis=1) @ deal
        total += share
    own, drawn = own / total, drawn / total
    # Equal deals are equal, whatever rounding makes of their sums.
    return float((1 + (np.abs(drawn) >= abs(own) - 1e-12).sum()) / (1 + permutations))


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
        p = float(min(1.0, 2 * min(estimate.above(0)[0], estimate.below(0)[0])))
        over_cells = linear(x, y, ones, _codes(joined, [*GRID, "cell"]), wanted)
        found[name] = Result(OK, None, estimate, over_cells, p, **about)
    return found


# ---- verdicts


def verdict(results: Sequence[Result], confidence: float) -> tuple[str | None, str | None]:
    """What is concluded of the contrast under every intervention, by the claims' rules, and a reason.

    It holds if all lower bounds are above 0, and does not hold if an upper bound is below, allowing for their number.
    Without an estimate there is no verdict but a reason; with fewer units than `LEAST` in a group the verdict is none.
    """
    for each in results:
        if each.status != OK:
            return None, each.reason
    estimates = tuple(each.estimate for each in results)
    fewest = min(min(each.in_a, each.in_p) for each in results)
    if fewest < LEAST:
        return claims.NONE, f"simulations bear this contrast out from {LEAST} units in each group on"
    joined = claims.Contrasts(
        estimates,
        np.full(len(estimates), np.nan),
        np.array([each.above(0)[0] for each in estimates]),
        np.array([each.below(0, or_at=True)[0] for each in estimates]),
        ({"lower": 0.0, "upper": None},) * len(estimates),
    )
    said = str(claims.verdicts(joined, confidence))
    weak = [each for each in results if each.p is not None and each.p > 1 - confidence]
    if said in (claims.HOLDS, claims.FAILS) and weak:
        return said, "permuted cells give contrasts of this size: other cells of these grids might have done so"
    return said, None


def planned(gains: pd.DataFrame, cells: pd.DataFrame, confidence: float) -> Power | None:
    """What the contrast of A and P could detect, from the variance of units within cells and the units in A and P.

    Looks at no mean of a group: the variance is pooled over all cells, as if the same in each.
    """
    joined = _joined(gains, cells, False)
    if not len(joined):
        return None
    within = joined.groupby([*GRID, "cell"])["gain"]
    df = len(joined) - within.ngroups
    counts = [len(joined.loc[joined[name], UNIT].drop_duplicates()) for name in ("a", "p")]
    if df < 1:
        return None
    variance = float(((joined["gain"] - within.transform("mean")) ** 2).sum() / df)
    return power(variance, counts, confidence)


def interval(estimate: Estimate | None, confidence: float) -> tuple[float | None, float | None]:
    """The ends of an estimate's interval; None where it cannot be told."""
    if estimate is None or not estimate.df[0] >= 1 or not estimate.variance[0] > 0:
        return None, None
    low, high = estimate.interval(confidence)
    return number(low[0]), number(high[0])
