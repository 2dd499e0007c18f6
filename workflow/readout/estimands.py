"""What the claims estimate: summaries of each class, and the statistic that their means over classes make.

Arrays are [..., K classes, L layers, S, M]: cells by selectivity and magnitude, 0 lowest; leading axes are worlds of a
simulation. An estimand reads columns of the layer tables through `read(name, half)`, which knows the intervention; a
half is "" for all folds, "_a" for folds 0, 2 and 4, "_b" for 1 and 3. The part of a test in the registry says which
columns it is `of`, and has what else an estimand needs (`where` and `at_least` for `spared`).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from readout import cells, inference

Read = Callable[..., np.ndarray]
Summary = Callable[[Read, Mapping], np.ndarray]


class Undefined(Exception):
    """A study that has not what an estimand needs; the message says what."""


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, centred; ties share theirs. By counting: rows are short and there are many."""
    return sum(np.sign(x - x[..., i, None]) for i in range(x.shape[-1])) / 2


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: float = 0.0, least: float = 0.0) -> np.ndarray:
    """A part as a share of a whole; something else where the whole is nothing, and NaN where it is NaN."""
    out = np.where(np.isnan(whole), np.nan, otherwise)
    return np.divide(part, whole, out=out, where=whole > least)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of centred rows; 0 where either is constant."""
    return _ratio((a * b).sum(-1), np.sqrt((a**2).sum(-1) * (b**2).sum(-1)))


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis; 0 where either side is constant, NaN where a number is."""
    return _correlation(ranks(a), ranks(b))


def flat(x: np.ndarray) -> np.ndarray:
    """Cells on one axis."""
    return x.reshape(*x.shape[:-2], -1)


def _grid(read: Read, part: Mapping) -> np.ndarray:
    """Each class's mean grid over layers [..., K, S, M]."""
    return read(part["of"]).mean(-3)


def _strips(x: np.ndarray) -> np.ndarray:
    """Strips of selectivity [..., S] of grids; there must be one between the outer two."""
    if x.shape[-2] < 3:
        raise Undefined("the grid has no strip of selectivity between the least and the most selective")
    return x.mean(-1)


def _deep(x: np.ndarray) -> np.ndarray:
    if x.shape[-3] < 3:
        raise Undefined("fewer than three layers make no trend")
    return x


def _correlation_with_depth(layers: np.ndarray) -> np.ndarray:
    """Of rows of layers in order of depth."""
    return spearman(layers, np.broadcast_to(np.arange(layers.shape[-1]), layers.shape))


def _corner(shape: tuple[int, int]) -> tuple[str, list[tuple[int, int]], list[tuple[int, int]]]:
    """The name of the most selective, most active cell; all others; and its neighbours among them."""
    s, m = shape
    others = [(i, j) for i in range(s) for j in range(m) if (i, j) != (s - 1, m - 1)]
    return f"s{s - 1}m{m - 1}", others, [(i, j) for i, j in others if i >= s - 2 and j >= m - 2]


# ---- of the corrected tests: linear in classes


def _outer_strips(read: Read, part: Mapping) -> np.ndarray:
    strips = _strips(_grid(read, part))
    return np.stack([strips[..., i] - strips[..., j] for i in (0, -1) for j in range(1, strips.shape[-1] - 1)], -1)


def _depth_of_strips(read: Read, part: Mapping) -> np.ndarray:
    strips = _deep(read(part["of"])).mean(-1)  # [..., K, L, S]
    return _correlation_with_depth(strips.swapaxes(-1, -2)).mean(-1, keepdims=True)


def _corner_less_cells(read: Read, part: Mapping) -> np.ndarray:
    grid = flat(_grid(read, part))
    return grid[..., -1:] - grid[..., :-1]


def _corner_less_twice_neighbours(read: Read, part: Mapping) -> np.ndarray:
    grid = _grid(read, part)
    neighbours = _corner(grid.shape[-2:])[2]
    return np.stack([grid[..., -1, -1] - 2 * grid[..., i, j] for i, j in neighbours], -1)


def _corner_largest(read: Read, part: Mapping) -> np.ndarray:
    return top(flat(read(part["of"])), 1)[..., -1].mean(-1, keepdims=True)


def _corner_less_rest(read: Read, part: Mapping) -> np.ndarray:
    grid = flat(_grid(read, part))
    return grid[..., -1:] - grid[..., :-1].mean(-1, keepdims=True)


def _spared(read: Read, part: Mapping, region: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean over a region's cells that decode well; with `halves`, chosen on one half of the folds, read on the other.

    A class in which no cell of the region decodes well is NaN.
    """
    chosen, effects = [], []
    for here, there in (("_a", "_b"), ("_b", "_a")) if part.get("halves") else (("", ""),):
        chosen.append(region(read(part["where"], here)) >= float(part["at_least"]))
        effects.append(region(read(part["of"], there)))
    chosen, effects = (np.concatenate([flat(each) for each in both], -1) for both in (chosen, effects))
    chosen, effects = (each.reshape(*each.shape[:-2], -1) for each in (chosen, effects))  # layers too
    count = chosen.sum(-1, keepdims=True)
    total = np.where(chosen, effects, 0.0).sum(-1, keepdims=True)
    return _ratio(total, count.astype(float), np.nan)


def _spared_against(read: Read, part: Mapping) -> np.ndarray:
    return _spared(read, part, lambda x: x[..., :1, :])


def _low(magnitudes: int) -> int:
    """How many magnitudes are the lower ones; of an odd number, without the middle one."""
    return magnitudes // 2


def _spared_for(read: Read, part: Mapping) -> np.ndarray:
    return _spared(read, part, lambda x: x[..., -1:, : _low(x.shape[-1])])


def _outer_corners(read: Read, part: Mapping) -> np.ndarray:
    values = np.stack([read(part["of"])[..., i, i] for i in (-1, 0)], -1)  # [..., K, L, 2]
    known = ~np.isnan(values)
    # Of the layers that have it: controls may be of some alone.
    return _ratio(np.where(known, values, 0.0).sum(-2), known.sum(-2).astype(float), np.nan)


def _high_magnitude(read: Read, part: Mapping) -> np.ndarray:
    below = _grid(read, part)[..., :-1, :]
    return (below[..., -1].mean(-1) - below[..., :-1].mean((-2, -1)))[..., None]


def _relation(read: Read, part: Mapping, strips: slice | list[int] = slice(None)) -> np.ndarray:
    one, other = (flat(read(name)[..., strips, :]) for name in part["of"])
    return spearman(one, other).mean(-1, keepdims=True)


def _relation_of_outer_strips(read: Read, part: Mapping) -> np.ndarray:
    return _relation(read, part, [0, -1])


def _relation_given(read: Read, part: Mapping) -> np.ndarray:
    one, other, given = (ranks(flat(read(name))) for name in (*part["of"], part["given"]))
    ab, ac, bc = _correlation(one, other), _correlation(one, given), _correlation(other, given)
    left = np.sqrt(np.maximum(0, (1 - ac**2) * (1 - bc**2)))
    # Where what is given leaves nothing of either there is nothing to relate.
    return _ratio(ab - ac * bc, left, least=1e-6).mean(-1, keepdims=True)


def top(values: np.ndarray, count: int) -> np.ndarray:
    """Membership of each cell among the `count` largest; cells that tie for the last places share them."""
    last = np.sort(values, axis=-1)[..., -count, None]
    above, tied = values > last, values == last
    places = count - above.sum(-1, keepdims=True)
    return np.where(np.isnan(last), np.nan, above + tied * places / np.maximum(1, tied.sum(-1, keepdims=True)))


def _overlap(read: Read, part: Mapping) -> np.ndarray:
    one, other = (flat(read(name)) for name in part["of"])
    quarter = one.shape[-1] // 4
    return (top(one, quarter) * top(other, quarter)).sum(-1).mean(-1, keepdims=True) / quarter


def _interaction(read: Read, part: Mapping) -> np.ndarray:
    grid = _grid(read, part)
    s, m = (np.arange(n) - (n - 1) / 2 for n in grid.shape[-2:])
    return np.einsum("...sm,s,m->...", grid, s, m)[..., None]


# ---- not linear in classes


def _peaks(read: Read, part: Mapping) -> np.ndarray:
    """Layers of the largest cell on either half of the folds, one-hot, and whether the halves differ [..., K, 2 L + 1].

    Layers that tie share the place.
    """
    first, second = (top(flat(read(part["of"], half)).max(-1), 1) for half in ("_a", "_b"))
    differ = 1 - (first * second).sum(-1, keepdims=True)
    return np.concatenate([first, second, differ], -1)


def _peak_layer(means: np.ndarray, count: np.ndarray) -> np.ndarray:
    first, second, within = np.split(means, [means.shape[-1] // 2, means.shape[-1] - 1], -1)
    # Of all pairs of a first and a second half, those of two classes.
    every = 1 - (first * second).sum(-1, keepdims=True)
    count = count[..., None]
    return (count * every - within) / (count - 1) - within


def _layer_means(read: Read, part: Mapping) -> np.ndarray:
    return _deep(read(part["of"])).mean((-2, -1))


def _depth(read: Read, part: Mapping) -> np.ndarray:
    return _correlation_with_depth(_layer_means(read, part))[..., None]


def _strip_means(read: Read, part: Mapping) -> np.ndarray:
    return _strips(_grid(read, part))


def _extremes(means: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.minimum(means[..., :1], means[..., -1:]) - means[..., 1:-1].max(-1, keepdims=True)


def _flat_grid(read: Read, part: Mapping) -> np.ndarray:
    return flat(_grid(read, part))


def _peak(means: np.ndarray, count: np.ndarray) -> np.ndarray:
    return means[..., -1:] - means[..., :-1].max(-1, keepdims=True)


def _corner_and_neighbours(read: Read, part: Mapping) -> np.ndarray:
    grid = _grid(read, part)
    return np.stack([grid[..., i, j] for i, j in (*_corner(grid.shape[-2:])[2], (-1, -1))], -1)


def _step(means: np.ndarray, count: np.ndarray) -> np.ndarray:
    return means[..., -1:] - 2 * means[..., :-1].max(-1, keepdims=True)


def _concentration(means: np.ndarray, count: np.ndarray) -> np.ndarray:
    return _ratio(means[..., -1:], means.sum(-1, keepdims=True), 1 / means.shape[-1])


def _products(read: Read, part: Mapping) -> np.ndarray:
    """Of the cells about their grid's mean: sums of products with three predictors of length one, and of squares."""
    values = read(part["of"])
    s, m = np.indices(values.shape[-2:]) + 1.0
    values = flat(values - values.mean((-2, -1), keepdims=True))
    predictors = np.stack([(p - p.mean()).ravel() / np.sqrt(((p - p.mean()) ** 2).sum()) for p in (s * m, s, m)], -1)
    squares = (values**2).sum(-1, keepdims=True)
    return np.concatenate([values @ predictors, squares], -1).mean(-2)


def _product(means: np.ndarray, count: np.ndarray) -> np.ndarray:
    product, s, m, squares = np.split(means, 4, -1)
    return _ratio(product**2 - np.maximum(s**2, m**2), squares)


# ---- all of them


def _no_names(shape: tuple[int, int]) -> list[str]:
    return [""]


class Estimand(NamedTuple):
    """`summary` of classes [..., K, Q]; what means over classes make of it; the scale of its intervals.

    `names` are those of the contrasts, given S x M.
    """

    summary: Summary
    of_means: Callable[[np.ndarray, np.ndarray], np.ndarray] = inference.mean
    scale: inference.Scale = inference.PLAIN
    names: Callable[[tuple[int, int]], list[str]] = _no_names


def _strip_names(shape: tuple[int, int]) -> list[str]:
    return [f"s{i} - s{j}" for i in (0, shape[0] - 1) for j in range(1, shape[0] - 1)]


def _cell_names(shape: tuple[int, int]) -> list[str]:
    return [f"s{shape[0] - 1}m{shape[1] - 1} - {name}" for name in cells.names(shape)[:-1]]


def _corner_names(shape: tuple[int, int]) -> list[str]:
    return [_corner(shape)[0], "s0m0"]


def _low_names(shape: tuple[int, int]) -> list[str]:
    *first, last = [f"s{shape[0] - 1}m{m}" for m in range(_low(shape[1]))]
    return [" and ".join(filter(None, [", ".join(first), last]))]


def _neighbour_names(shape: tuple[int, int]) -> list[str]:
    name, _, neighbours = _corner(shape)
    return [f"{name} - 2 x s{i}m{j}" for i, j in neighbours]


ESTIMANDS: dict[str, Estimand] = {
    # Mean AUROC of each outer strip less that of each strip between.
    "outer_strips": Estimand(_outer_strips, names=_strip_names),
    # Rank correlation of a strip's mean with its layer's depth, mean over strips; needs three layers.
    "depth_of_strips": Estimand(_depth_of_strips, scale=inference.FISHER),
    # The most selective, most active cell less each other; less twice each neighbour; less the mean of the others.
    "corner_less_cells": Estimand(_corner_less_cells, names=_cell_names),
    "corner_less_twice_neighbours": Estimand(_corner_less_twice_neighbours, names=_neighbour_names),
    "corner_less_rest": Estimand(_corner_less_rest),
    # That cell, and the least selective and active one, where they have what is asked for.
    "outer_corners": Estimand(_outer_corners, names=_corner_names),
    # Share of grids in which that cell is the largest.
    "corner_largest": Estimand(_corner_largest),
    # Mean over cells that decode well: the least selective, and the most selective of the lower magnitudes.
    "spared_against": Estimand(_spared_against),
    "spared_for": Estimand(_spared_for, names=_low_names),
    # How much more often peak layers differ between classes than between halves of one class's images.
    "peak_layer": Estimand(_peaks, _peak_layer, inference.FISHER),
    # Below the most selective strip: the highest magnitude less the others.
    "high_magnitude": Estimand(_high_magnitude),
    # Rank correlation of two measures over the cells of a grid; over those of the outer strips alone; and with a third
    # measure partialled out.
    "relation": Estimand(_relation, scale=inference.FISHER),
    "relation_of_outer_strips": Estimand(_relation_of_outer_strips, scale=inference.FISHER),
    "relation_given": Estimand(_relation_given, scale=inference.FISHER),
    # Share of common cells among the quarters of the largest values of two measures.
    "overlap": Estimand(_overlap),
    # Sum over cells of the product of the centred bins and the effect.
    "interaction": Estimand(_interaction),
    # As the authors would have read it off the means over classes and layers.
    "extremes": Estimand(_strip_means, _extremes),
    "depth": Estimand(_depth, scale=inference.FISHER),
    "peak": Estimand(_flat_grid, _peak),
    "step": Estimand(_corner_and_neighbours, _step),
    "concentration": Estimand(_flat_grid, _concentration),
    "product": Estimand(_products, _product),
}


def reliability(halves: np.ndarray) -> np.ndarray:
    """Reliability [...] of a measure over the cells of a grid, from its two halves [2, ..., K, L, S, M].

    Rank correlation between halves, mean over classes (those that have both) and layers, stepped up to the whole
    (Spearman and Brown).
    """
    # ASSUME: the halves' images differ and their folds' grids do not quite, since both measures share the grids, too.
    half = np.nanmean(spearman(flat(halves[0]), flat(halves[1])).mean(-1), axis=-1)
    return _ratio(2 * half, 1 + half, -1.0)
