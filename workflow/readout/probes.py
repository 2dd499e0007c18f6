"""Linear probes of a group's units: the published protocol, and a cross-fitted one.

Both are logistic regressions (readout/logistic.py). A fit gives `Probes`, which can then be applied to any images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from readout import StudyError
from readout.logistic import CHUNK, fit, fit_dual

CLIP = 2.2e-16
"""Probabilities are clipped to [CLIP, 1 - CLIP], as in the published score."""
DECIMALS = 6
"""Of decision values, as far as they are compared: solutions of different folds can be equal but for the solver's
tolerance, and ties that rounding breaks would make an AUROC depend on the processor."""
MOST_FIXED = 100
"""ASSUME: units at most of the probe at a fixed number of units, as of a published draw."""
BLOCK = 110
"""Images per block of a Gram matrix."""


@dataclass(frozen=True)
class Probes:
    """Fitted linear classifiers, target against others.

    columns: the units that each probe looks at [probes, units]; coefficients: float64 [probes, units]; intercepts:
    float64 [probes].
    """

    columns: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray

    def decisions(self, activations: np.ndarray) -> np.ndarray:
        """Decision values [probes, images] for activations [images, units]; above zero is the target."""
        images, units = len(activations), self.columns.shape[1]
        found = np.repeat(self.intercepts[:, None], images, 1)
        width = max(1, min(units, CHUNK // images))
        at_once = max(1, CHUNK // (images * width))
        for start in range(0, len(found), at_once):
            some = slice(start, start + at_once)
            for first in range(0, units, width):
                part = slice(first, first + width)
                x = activations.T[self.columns[some, part]].astype(np.float64)  # [probes, units, images]
                found[some] += (self.coefficients[some, None, part] @ x)[:, 0]
        return found


@dataclass(frozen=True)
class Published:
    """The published probe of a cell: `score` is the mean over draws of exp(-log-loss of the hard predictions)."""

    draws: int
    score: float
    accuracy: float


@dataclass(frozen=True)
class CrossFitted:
    """The cross-fitted probe of a group.

    p: each image's probability of being the target's, by a probe that has seen neither it nor another image of its fold
    [images]; accuracy: balanced over the two sides; auroc: over all images, whatever their fold; log_loss: balanced, in
    nats; C: that of each fold's probe.
    """

    p: np.ndarray
    accuracy: float
    auroc: float
    log_loss: float
    C: tuple[float, ...]


def fit_published(
    activations: np.ndarray,
    group: np.ndarray,
    is_target: np.ndarray,
    *,
    draws: int,
    units: int,
    C: float,
    generator: np.random.Generator,
) -> Probes:
    """The paper's probes of a group (section 2; the authors' code), one for each draw of `units` units at random.

    activations: [images, units], used as they are; group: the units that are of it; is_target: bool [images].
    """
    if len(group) <= units:
        # ASSUME: draws are without replacement; so here each draw is the whole cell, and one fit serves all.
        columns = group[None]
    else:
        columns = np.stack([generator.choice(group, units, replace=False) for _ in range(draws)])
    y = torch.from_numpy(np.where(is_target, 1.0, -1.0))
    x = torch.from_numpy(activations.T[columns]).mT
    # ASSUME: converged, the intercept unpenalised, the images unweighted.
    coefficients, intercepts, _ = fit(x, y, C, torch.ones_like(y))
    return Probes(columns, coefficients.numpy(), intercepts.numpy())


def published(
    activations: np.ndarray,
    group: np.ndarray,
    is_target: np.ndarray,
    *,
    draws: int,
    units: int,
    C: float,
    generator: np.random.Generator,
) -> Published:
    """The paper's score of a group: its probes predict the images on which they were fitted.

    Arguments are those of `fit_published`.
    """
    fitted = fit_published(activations, group, is_target, draws=draws, units=units, C=C, generator=generator)
    correct = ((fitted.decisions(activations) > 0) == is_target).mean(1)
    log_loss = -(correct * np.log(1 - CLIP) + (1 - correct) * np.log(CLIP))
    return Published(draws, float(np.exp(-log_loss).mean()), float(correct.mean()))


def side_weights(fitted: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """Weights of the images of a probe fitted on the images `fitted`; 0 leaves an image out."""
    # ASSUME: both sides weigh the same in sum, so that a probability of 1/2 is the balanced accuracy's threshold.
    sides = [fitted & is_target, fitted & ~is_target]
    if not all(side.any() for side in sides):
        raise StudyError("a fold holds all images of one side, which leaves none to fit on; spread both over the folds")
    return sum(side * (fitted.sum() / (2 * side.sum())) for side in sides)


def auroc(decision: np.ndarray, is_target: np.ndarray) -> float:
    """Probability that an image of the target has the higher decision value [images]; ties count one half."""
    decision = np.round(decision, DECIMALS)
    others = np.sort(decision[~is_target])
    # Twice the others below each image of the target: those strictly below, and those not above.
    below = sum(np.searchsorted(others, decision[is_target], side).sum() for side in ("left", "right"))
    return float(below / (2 * is_target.sum() * len(others)))


def balanced_log_loss(decision: np.ndarray, is_target: np.ndarray) -> float:
    """Mean over the two sides of the mean negative log-probability, in nats."""
    loss = np.logaddexp(0, np.where(is_target, -decision, decision))
    return float((loss[is_target].mean() + loss[~is_target].mean()) / 2)


def _standardisation(x: torch.Tensor, units: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and scale [units of x] of units over training images, x: float64 [images, units of x].

    The scale is one over the deviation and over the square root of `units`, the number of units that a probe looks at,
    so that one C means the same at any size; it is zero for a unit that is constant over the training images, which
    carries nothing.
    """
    mean = x.mean(0)
    variance = (x - mean).square().mean(0)
    return mean, torch.where(variance > 0, 1 / (variance * units), 0.0).sqrt()


def gram_matrix(
    activations: np.ndarray, columns: np.ndarray, train: np.ndarray, units: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gram matrix [train, train] of the training images' standardised units, float64; their means and scales [units].

    activations: [images, units]; columns: the units that count; train: bool [images]. Where the columns are some of a
    probe's `units` alone, the matrices of all of these add up to that of the probe.
    """
    images, units = int(train.sum()), units or len(columns)
    gram = torch.zeros(images, images, dtype=torch.float64)
    # Room for all at once: kept one by one between the copies below, they would hold the memory of these.
    mean, scale = torch.empty(2, len(columns), dtype=torch.float64)
    width = max(1, CHUNK // len(activations))
    for start in range(0, len(columns), width):
        part = slice(start, start + width)
        x = torch.from_numpy(activations[:, columns[part]][train].astype(np.float64))
        mean[part], scale[part] = _standardisation(x, units)
        x = (x - mean[part]) * scale[part]
        # Symmetric: the blocks above the diagonal are left out.
        for rows in torch.arange(images).split(BLOCK):
            gram[rows[0] :, rows] += x[rows[0] :] @ x[rows].T
    return gram.tril() + gram.tril(-1).mT, mean, scale


def _fit_primal(
    activations: np.ndarray, columns: np.ndarray, y: torch.Tensor, train: np.ndarray, weights: np.ndarray, C: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [groups, problems, units] and intercepts [groups, problems], all fitted as one batch."""
    units = columns.shape[1]
    mean, scale = torch.empty(2, len(columns), units, dtype=torch.float64)
    x = torch.empty(len(columns), len(y), units, dtype=torch.float64)
    for i, rows in enumerate(train):
        part = torch.from_numpy(activations[:, columns[i]].astype(np.float64))
        mean[i], scale[i] = _standardisation(part[torch.from_numpy(rows)], units)
        x[i] = (part - mean[i]) * scale[i]
    shape = (*C.shape, len(y), units)
    w, b, _ = fit(
        x[:, None].expand(shape).reshape(-1, *shape[2:]),
        y,
        torch.from_numpy(C.reshape(-1)),
        torch.from_numpy(weights.reshape(-1, len(y))),
    )
    w = w.view(*C.shape, units) * scale[:, None]
    return w.numpy(), (b.view(C.shape) - (w * mean[:, None]).sum(2)).numpy()


def _fit_dual(
    activations: np.ndarray, columns: np.ndarray, y: torch.Tensor, train: np.ndarray, weights: np.ndarray, C: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What `_fit_primal` returns, by one Gram matrix for each group."""
    units = columns.shape[1]
    coefficients, intercepts = np.empty((*C.shape, units)), np.empty(C.shape)
    width = max(1, CHUNK // len(y))
    for i, rows in enumerate(train):
        gram, mean, scale = gram_matrix(activations, columns[i], rows)
        a = torch.zeros(C.shape[1], len(gram), dtype=torch.float64)
        for j, weight in enumerate(weights[i]):
            inside = torch.from_numpy(weight[rows])
            fitted = inside.nonzero()[:, 0]
            sides = y[torch.from_numpy(rows)][fitted]
            a[j, fitted], b = fit_dual(gram[fitted][:, fitted], sides, float(C[i, j]), inside[fitted])
            intercepts[i, j] = b.item()
        parts = [columns[i, start : start + width] for start in range(0, units, width)]
        products = [a @ torch.from_numpy(activations[:, part][rows].astype(np.float64)) for part in parts]
        # w = x^T a of the standardised units x, and once more their scale for the units themselves.
        w = (torch.cat(products, 1) - a.sum(1)[:, None] * mean) * scale**2
        coefficients[i] = w.numpy()
        intercepts[i] -= (w @ mean).numpy()
    return coefficients, intercepts


def fit_standardised(
    activations: np.ndarray,
    columns: np.ndarray,
    is_target: np.ndarray,
    train: np.ndarray,
    weights: np.ndarray,
    C: np.ndarray,
) -> Probes:
    """Probes on all of a group's units, standardised over training images; of one group after the other.

    activations: [images, units]; columns: [groups, units of a group]; is_target: bool [images]; train: bool [groups,
    images], what a group's units are standardised over; weights: [groups, problems, images], 0 outside what is fitted;
    C: [groups, problems].
    """
    units = columns.shape[1]
    y = torch.from_numpy(np.where(is_target, 1.0, -1.0))
    # Newton's steps cost images x units^2 in the primal form and images^3 / 3 in the dual.
    solve = _fit_primal if units <= len(y) / 2 else _fit_dual
    coefficients, intercepts = solve(activations, columns, y, train, weights, np.asarray(C, np.float64))
    return Probes(columns.repeat(C.shape[1], 0), coefficients.reshape(-1, units), intercepts.reshape(-1))


def _best(
    activations: np.ndarray,
    columns: np.ndarray,
    is_target: np.ndarray,
    fold: np.ndarray,
    train: np.ndarray,
    candidates: Sequence[float],
) -> float:
    """The C with the lowest log-loss in a cross-validation over the training folds.

    The inner folds have the units (`columns`) and the standardisation that all training folds give: what is chosen has
    seen their images, but none of the fold that is predicted in the end.
    """
    inner = np.unique(fold[train])
    weights = np.stack([side_weights(train & (fold != k), is_target) for _ in candidates for k in inner])
    C = np.repeat(candidates, len(inner))
    fitted = fit_standardised(activations, columns[None], is_target, train[None], weights[None], C[None])
    scored = [train & (fold == k) for _ in candidates for k in inner]
    decisions = fitted.decisions(activations)
    losses = [balanced_log_loss(d[rows], is_target[rows]) for d, rows in zip(decisions, scored, strict=True)]
    return candidates[int(np.reshape(losses, (len(candidates), len(inner))).mean(1).argmin())]


def _predict(
    activations: np.ndarray,
    columns: np.ndarray,
    is_target: np.ndarray,
    fold: np.ndarray,
    left_out: Sequence[int],
    C: Sequence[float],
) -> list[np.ndarray]:
    """For each fold of `left_out`, decision values [draws, images of the fold] by probes of the other folds' images.

    activations: [images, units]; columns: [folds left out, draws, units of a probe]; C: [folds left out].
    """
    _, draws, units = columns.shape
    train = np.stack([fold != k for k in left_out])
    weights = np.stack([side_weights(rows, is_target) for rows in train])
    fitted = fit_standardised(
        activations,
        columns.reshape(-1, units),
        is_target,
        train.repeat(draws, 0),
        weights.repeat(draws, 0)[:, None],
        np.repeat(C, draws)[:, None],
    )
    decisions = []
    for i, rows in enumerate(train):
        some = slice(i * draws, (i + 1) * draws)
        probes = Probes(fitted.columns[some], fitted.coefficients[some], fitted.intercepts[some])
        decisions.append(probes.decisions(activations[~rows]))
    return decisions


def _chosen(
    activations: np.ndarray,
    columns: np.ndarray,
    is_target: np.ndarray,
    fold: np.ndarray,
    left_out: int,
    C: float | Sequence[float],
) -> float:
    """The C of the probe that predicts a fold: the one given, or the best of a list by the other folds."""
    if not isinstance(C, Sequence):
        return float(C)
    candidates = [float(c) for c in C]
    if len(candidates) == 1:
        return candidates[0]
    return _best(activations, columns, is_target, fold, fold != left_out, candidates)


def predict_fold(
    activations: np.ndarray,
    group: np.ndarray,
    is_target: np.ndarray,
    fold: np.ndarray,
    left_out: int,
    *,
    C: float | Sequence[float],
) -> np.ndarray:
    """Decision values [images of the fold] of the cross-fitted probe for the images of one fold, `left_out`.

    What `crossfit` does for this fold, for activations [images, units] that are this fold's own, as where each fold has
    its own ablation; `group` are the units that the probe looks at. Other arguments are those of `crossfit`.
    """
    chosen = _chosen(activations, group, is_target, fold, left_out, C)
    ((decision,),) = _predict(activations, group[None, None], is_target, fold, [left_out], [chosen])
    return decision


def crossfit(
    activations: np.ndarray,
    groups: Sequence[np.ndarray],
    is_target: np.ndarray,
    fold: np.ndarray,
    *,
    C: float | Sequence[float],
) -> CrossFitted:
    """The cross-fitted probe on all units of a group.

    activations: [images, units]; is_target: bool [images]; fold: int [images]; groups: for each fold f the units of the
    group as the images outside f give it, equally many in each, so that neither the probe that predicts f nor the
    choice of its units has seen an image of f. `C` is scikit-learn's, the inverse strength of the penalty; of a list,
    the one with the lowest log-loss in a cross-validation over the training folds is taken, anew for each fold. Units
    are standardised on the training folds and divided by the square root of their number, so that one C means the same
    for any number of units. Raises StudyError where a fold holds all images of one side.
    """
    left_out = np.unique(fold)
    columns = np.stack([groups[k] for k in left_out])
    chosen = [_chosen(activations, columns[i], is_target, fold, k, C) for i, k in enumerate(left_out)]
    decision = np.empty(len(fold))
    parts = _predict(activations, columns[:, None], is_target, fold, left_out, chosen)
    for k, (part,) in zip(left_out, parts, strict=True):
        decision[fold == k] = part
    p = np.exp(-np.logaddexp(0, -decision))
    predicted = decision > 0
    accuracy = (predicted[is_target].mean() + (~predicted[~is_target]).mean()) / 2
    loss = balanced_log_loss(decision, is_target)
    return CrossFitted(p, float(accuracy), auroc(decision, is_target), loss, tuple(chosen))


def crossfit_fixed(
    activations: np.ndarray,
    groups: Sequence[np.ndarray],
    is_target: np.ndarray,
    fold: np.ndarray,
    *,
    units: int,
    draws: int,
    C: Sequence[float],
    generator: np.random.Generator,
) -> float:
    """AUROC of the cross-fitted probe at a number of units: the mean over draws of so many of each fold's group.

    Arguments are those of `crossfit`, but for `C`, which is what `crossfit` chose, one for each fold. A layer with more
    units has larger cells, and larger cells are read more easily; at one number of units layers can be compared.
    """
    left_out = np.unique(fold)
    if units == len(groups[left_out[0]]):
        # Draws are without replacement, so that each is the whole group.
        draws = 1
    columns = np.stack([[generator.choice(groups[k], units, replace=False) for _ in range(draws)] for k in left_out])
    decisions = np.empty((draws, len(fold)))
    for k, part in zip(left_out, _predict(activations, columns, is_target, fold, left_out, C), strict=True):
        decisions[:, fold == k] = part
    return float(np.mean([auroc(decision, is_target) for decision in decisions]))
