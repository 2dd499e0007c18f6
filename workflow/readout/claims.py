"""The paper's claims: estimands, a bootstrap over classes and images, and verdicts by registered rules.

Images are nested in classes. A replicate draws classes with replacement, and for each drawn class its own images, the
target's and the others', with replacement; networks with the same targets get the same draws, so that comparisons
between networks are paired.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WELL = 0.75
"""ASSUME: balanced accuracy from which a cell decodes well."""


@dataclass(frozen=True)
class Outcomes:
    """What each image did, of one network; L layers in order of depth, K targets, S x M cells.

    change: rank changes [K, L * S * M, images of the target]; hit and hit_others: whether the held-out probe was right,
    [K, L * S * M, images of the target] and [K, L * S * M, images of the others]; score: published scores
    [K, L, S, M]; outputs: number of the network's outputs.
    """

    change: np.ndarray
    hit: np.ndarray
    hit_others: Sequence[np.ndarray]
    score: np.ndarray
    outputs: int


@dataclass(frozen=True)
class Sample:
    """Means over images of one replicate, or of the data themselves; arrays are [K, L, S, M].

    `*_halves` are the same over either half of the images, [2, K, L, S, M]; classes [K] are the draws, with repeats.
    """

    classes: np.ndarray
    change: np.ndarray
    deficit: np.ndarray
    accuracy: np.ndarray
    score: np.ndarray
    deficit_halves: np.ndarray
    accuracy_halves: np.ndarray
    outputs: int


def _weights(count: int, generator: np.random.Generator | None) -> np.ndarray:
    """Weights of images for a mean over all of them and over either half [3, count]; resampled within the halves."""
    halves = np.arange(count) % 2
    weights = np.zeros((3, count), np.float32)
    for half in (0, 1):
        members = np.flatnonzero(halves == half)
        drawn = members if generator is None else generator.choice(members, len(members))
        weights[1 + half] = np.bincount(drawn, minlength=count) / len(drawn)
    weights[0] = (weights[1] * (halves == 0).sum() + weights[2] * (halves == 1).sum()) / count
    return weights


def sample(outcomes: Outcomes, generator: np.random.Generator | None = None) -> Sample:
    """A bootstrap replicate, or without a generator the data themselves."""
    count = len(outcomes.score)
    classes = np.arange(count) if generator is None else generator.integers(count, size=count)
    shape = (count, 3, *outcomes.score.shape[1:])
    change, deficit, accuracy = (np.empty(shape) for _ in range(3))
    for slot, k in enumerate(classes):
        own = _weights(outcomes.change.shape[2], generator)
        rest = _weights(outcomes.hit_others[k].shape[1], generator)
        change[slot] = (outcomes.change[k] @ own.T).T.reshape(shape[1:])
        deficit[slot] = (np.maximum(outcomes.change[k], 0) @ own.T).T.reshape(shape[1:])
        hits = (outcomes.hit[k] @ own.T + outcomes.hit_others[k] @ rest.T) / 2
        accuracy[slot] = hits.T.reshape(shape[1:])
    return Sample(
        classes=classes,
        change=change[:, 0],
        deficit=deficit[:, 0],
        accuracy=accuracy[:, 0],
        score=outcomes.score[classes],
        deficit_halves=deficit[:, 1:].swapaxes(0, 1),
        accuracy_halves=accuracy[:, 1:].swapaxes(0, 1),
        outputs=outcomes.outputs,
    )


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, centred; ties share theirs. By counting: rows are short and there are thousands."""
    above = x[..., :, None] > x[..., None, :]
    return above.sum(-1) / 2 - above.sum(-2) / 2


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis; 0 where either side is constant."""
    a, b = _ranks(a), _ranks(b)
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0)


def _flat(x: np.ndarray) -> np.ndarray:
    """Cells on one axis."""
    return x.reshape(*x.shape[:-2], -1)


def extremes(x: Sample, of: str) -> float:
    """The lesser of the outer selectivity strips, less the greatest strip between."""
    strip = getattr(x, of).mean((0, 1, 3))
    return float(min(strip[0], strip[-1]) - strip[1:-1].max())


def depth(x: Sample, of: str) -> float | None:
    """Rank correlation of a layer's mean with its depth, mean over classes; needs three layers."""
    layers = getattr(x, of).mean((2, 3))
    if layers.shape[1] < 3:
        return None
    return float(_spearman(layers, np.broadcast_to(np.arange(layers.shape[1]), layers.shape)).mean())


def peak(x: Sample, of: str) -> float:
    """The most selective, most active cell less the largest other."""
    cells = _flat(getattr(x, of).mean((0, 1)))
    return float(cells[-1] - cells[:-1].max())


def step(x: Sample, of: str) -> float:
    """The most selective, most active cell less twice its largest neighbour."""
    cells = getattr(x, of).mean((0, 1))
    return float(cells[-1, -1] - 2 * max(cells[-2, -1], cells[-1, -2], cells[-2, -2]))


def _spared(x: Sample, of: str, s: int, m: slice) -> float | None:
    well = x.accuracy[:, :, s, m] >= WELL
    return float(getattr(x, of)[:, :, s, m][well].mean() / (x.outputs - 1)) if well.any() else None


def spared_against(x: Sample, of: str) -> float | None:
    """Mean over the least selective cells that decode well, as a share of all ranks."""
    return _spared(x, of, 0, slice(None))


def spared_for(x: Sample, of: str) -> float | None:
    """Mean over the most selective cells of the lower magnitudes that decode well, as a share of all ranks."""
    return _spared(x, of, -1, slice(x.accuracy.shape[-1] // 2))


def peak_layer(x: Sample, of: str) -> float | None:
    """How much more often peak layers differ between classes than between halves of one class's images."""
    first, second = _flat(getattr(x, f"{of}_halves")).max(-1).argmax(-1)
    differ = first[:, None] != second[None, :]
    same = x.classes[:, None] == x.classes[None, :]
    # A replicate that drew one class alone has nothing to compare.
    return float(differ[~same].mean() - np.diag(differ).mean()) if not same.all() else None


def concentration(x: Sample, of: str) -> float:
    """Share of the most selective, most active cell in the sum over cells."""
    cells = _flat(getattr(x, of).mean((0, 1)))
    return float(cells[-1] / cells.sum()) if cells.sum() > 0 else 1 / len(cells)


def high_magnitude(x: Sample, of: str) -> float:
    """Below the most selective strip: the highest magnitude less the others."""
    below = getattr(x, of).mean((0, 1))[:-1]
    return float(below[:, -1].mean() - below[:, :-1].mean())


def relation(x: Sample, of: str) -> float:
    """Rank correlation of accuracy and deficit over the cells of a grid, mean over classes and layers."""
    return float(_spearman(_flat(x.accuracy), _flat(x.deficit)).mean())


def relation_corrected(x: Sample, of: str) -> float | None:
    """`relation` between halves of the images, divided by the geometric mean of either measure's between halves.

    Accuracy and deficit come from the same images: across halves they share no noise.
    """
    accuracy, deficit = _flat(x.accuracy_halves), _flat(x.deficit_halves)
    crossed = (_spearman(accuracy[0], deficit[1]).mean() + _spearman(accuracy[1], deficit[0]).mean()) / 2
    agreement = [_spearman(halves[0], halves[1]).mean() for halves in (accuracy, deficit)]
    # Measures without any reliability leave nothing to say about their relation.
    return float(crossed / np.sqrt(np.prod(agreement))) if min(agreement) > 0 else None


def _top(values: np.ndarray, count: int) -> np.ndarray:
    """Membership of each cell among the `count` largest; cells that tie for the last places share them."""
    last = np.sort(values, axis=-1)[..., -count, None]
    above, tied = values > last, values == last
    return above + tied * (count - above.sum(-1, keepdims=True)) / tied.sum(-1, keepdims=True)


def overlap(x: Sample, of: str) -> float:
    """Share of common cells among the quarter best decoded and the quarter of largest deficit."""
    a, b = _flat(x.accuracy), _flat(x.deficit)
    quarter = a.shape[-1] // 4
    return float((_top(a, quarter) * _top(b, quarter)).sum(-1).mean() / quarter)


def interaction(x: Sample, of: str) -> float:
    """Explained variance of the cells of a grid by the product of the bins, less by the better of the single bins."""
    values = _flat(getattr(x, of))
    values = values - values.mean(-1, keepdims=True)
    s, m = (_flat(v + 1.0) for v in np.indices(getattr(x, of).shape[-2:]))
    total = (values**2).sum()

    def explained(predictor: np.ndarray) -> float:
        predictor = predictor - predictor.mean()
        return float((values @ predictor).sum() ** 2 / (values[..., 0].size * (predictor**2).sum() * total))

    return explained(s * m) - max(explained(s), explained(m)) if total > 0 else 0.0


ESTIMANDS: dict[str, Callable[[Sample, str], float | None]] = {
    f.__name__: f
    for f in (
        extremes,
        depth,
        peak,
        step,
        spared_against,
        spared_for,
        peak_layer,
        concentration,
        high_magnitude,
        relation,
        relation_corrected,
        overlap,
        interaction,
    )
}


def bounds(rule: Mapping) -> tuple[float | None, float | None]:
    """Between which values the rule of a test lets the claim hold; None where it sets no bound on that side."""
    lower, upper = rule.get("between", (rule.get("above"), rule.get("below")))
    return None if lower is None else float(lower), None if upper is None else float(upper)


def verdict(low: float | None, high: float | None, rule: Mapping) -> str:
    """`holds`, `does not hold` or `inconclusive` for an interval, by the rule of a test in the registry."""
    if low is None or high is None:
        return "inconclusive"
    lower, upper = bounds(rule)
    if (lower is None or lower < low) and (upper is None or high < upper):
        return "holds"
    outside = (lower is not None and high <= lower) or (upper is not None and low >= upper)
    return "does not hold" if outside else "inconclusive"


def rule_text(rule: Mapping) -> str:
    """The rule of a test in words."""
    if "between" in rule:
        return f"within {rule['between'][0]} to {rule['between'][1]}"
    return f"above {rule['above']}" if "above" in rule else f"below {rule['below']}"


def _p(replicates: np.ndarray, rule: Mapping) -> float:
    """Bootstrap p-value against the bound: two-sided for one bound, for two the larger of both one-sided ones."""
    count = len(replicates) + 1
    lower, upper = bounds(rule)
    if lower is not None and upper is not None:
        return float(max((replicates <= lower).sum() + 1, (replicates >= upper).sum() + 1) / count)
    bound = upper if lower is None else lower
    return float(min(1.0, 2 * (min((replicates <= bound).sum(), (replicates >= bound).sum()) + 1) / count))


def _row(network: str, test: Mapping, estimate: float | None, replicates: list, confidence: float) -> dict:
    """One row of the claims table; replicates in which the estimand is undefined are left out."""
    defined = np.array([value for value in replicates if value is not None])
    row = {"network": network, "measure": test["measure"], "rule": rule_text(test), "test": "bootstrap"}
    row["lower"], row["upper"] = bounds(test)
    if estimate is None or len(defined) < len(replicates) / 2:
        # Nothing in the study to estimate it from: said as a missing number, never as a zero.
        return row | {"estimate": estimate, "ci_low": None, "ci_high": None, "p": None, "verdict": "inconclusive"}
    low, high = (float(q) for q in np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return row | {
        "estimate": estimate,
        "ci_low": low,
        "ci_high": high,
        "p": _p(defined, test),
        "verdict": verdict(low, high, test),
    }


def _pooled(values: Sequence[float | None], how: str) -> float | None:
    if any(value is None for value in values):
        return None
    return float(min(values) if how == "min" else np.mean(values))


def _of_kind(names: Sequence[str], models: Mapping[str, str]) -> list[list[str]]:
    """The networks of each kind that the registry names: `resnet` is ResNet101 as well as its small relative."""
    kinds = {name: re.sub("^(small|caffe|theano)_", "", model) for name, model in models.items()}
    return [[network for network, kind in kinds.items() if kind.startswith(name)] for name in names]


def evaluate(
    networks: Mapping[str, Outcomes],
    registry: Sequence[Mapping],
    models: Mapping[str, str],
    *,
    replicates: int,
    confidence: float,
    seed: int,
) -> Iterator[dict]:
    """Rows of the claims table, in the registry's order: each network's, then the pooled one.

    `networks` maps a network's name to its outcomes, `models` to its architecture; `registry` is the content of
    workflow/claims.yaml.
    """
    tests = [(claim, test) for claim in registry for test in claim["tests"]]
    points, draws = {}, {}
    for name, outcomes in networks.items():
        # The same seed for all: networks with the same targets get the same draws.
        generator = np.random.default_rng(seed)
        whole = sample(outcomes)
        points[name] = [ESTIMANDS[test["estimand"]](whole, test["of"]) for _, test in tests]
        draws[name] = []
        for _ in range(replicates):
            drawn = sample(outcomes, generator)
            draws[name].append([ESTIMANDS[test["estimand"]](drawn, test["of"]) for _, test in tests])
    for i, (claim, test) in enumerate(tests):
        head = {"claim": claim["claim"], "statement": claim["statement"], "section": claim["section"]}
        column = {name: [row[i] for row in draws[name]] for name in networks}
        if "contrast" in test:
            sides = [_of_kind(side, models) for side in test["contrast"]]

            def contrast(values: Mapping[str, float | None], sides: list = sides) -> float | None:
                # With a kind of network missing on either side there is no such comparison.
                kinds = [
                    [_pooled([values[name] for name in names] or [None], "mean") for names in side] for side in sides
                ]
                means = [_pooled(side, "mean") for side in kinds]
                return None if None in means else means[0] - means[1]

            estimate = contrast({name: points[name][i] for name in networks})
            pooled = [contrast(dict(zip(column, row, strict=True))) for row in zip(*column.values(), strict=True)]
            yield head | _row("all", test, estimate, pooled, confidence)
            continue
        kinds = _of_kind(test["networks"], models) if "networks" in test else [list(networks)]
        named = [name for name in networks if any(name in kind for kind in kinds)]
        for name in named:
            yield head | _row(name, test, points[name][i], column[name], confidence)
        if "networks" in test and not named:
            yield head | _row(", ".join(test["networks"]), test, None, [None], confidence)
        elif "pool" in test:
            estimate = _pooled([points[name][i] for name in named], test["pool"])
            pooled = [_pooled(row, test["pool"]) for row in zip(*(column[name] for name in named), strict=True)]
            yield head | _row("all", test, estimate, pooled, confidence)
