"""Linear probes of a cell: the published protocol, and a held-out one on all its units.

Both are logistic regressions (readout/logistic.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from readout import StudyError
from readout.logistic import CHUNK, fit, fit_dual

CLIP = 2.2e-16
"""Probabilities are clipped to [CLIP, 1 - CLIP], as in the published score."""
BLOCK = 110
"""Images a block of a Gram matrix."""


@dataclass(frozen=True)
class Published:
    """The published probe of a cell: `score` is the mean over draws of exp(-log-loss of the hard predictions)."""

    draws: int
    score: float
    accuracy: float


@dataclass(frozen=True)
class HeldOut:
    """The cross-validated probe of a cell; `p` [images] is each image's held-out probability of being the target's."""

    p: np.ndarray
    accuracy: float
    auroc: float
    log_loss: float


def published(
    activations: np.ndarray, is_target: np.ndarray, *, draws: int, units: int, C: float, generator: np.random.Generator
) -> Published:
    """The paper's probe of a cell (section 2; the authors' code).

    activations: [images, units of the cell]; is_target: bool [images]. Each draw takes `units` units at random, fits
    on all images and predicts the same images. Units are used as they are.
    """
    size = activations.shape[1]
    if size <= units:
        # ASSUME: draws are without replacement; so here each draw is the whole cell, and one fit serves all.
        columns = np.arange(size)[None]
    else:
        columns = np.stack([generator.choice(size, units, replace=False) for _ in range(draws)])
    y = torch.from_numpy(np.where(is_target, 1.0, -1.0))
    x = torch.from_numpy(activations.T[columns]).mT
    # ASSUME: converged, the intercept unpenalised, the images unweighted.
    *_, decisions = fit(x, y, C, torch.ones_like(y))
    correct = ((decisions > 0) == (y > 0)).double().mean(1)
    log_loss = -(correct * np.log(1 - CLIP) + (1 - correct) * np.log(CLIP))
    return Published(draws, float(torch.exp(-log_loss).mean()), float(correct.mean()))


def _standardised(activations: np.ndarray, train: np.ndarray) -> torch.Tensor:
    """Units standardised on the training images and divided by the square root of their number, float64."""
    x = torch.from_numpy(activations.astype(np.float64))
    train = torch.from_numpy(np.flatnonzero(train))
    mean, deviation = x[train].mean(0), x[train].std(0, correction=0)
    # A unit that is constant over the training images carries nothing: it becomes zero.
    scale = torch.where(deviation > 0, 1 / deviation, 0.0) / np.sqrt(activations.shape[1])
    return (x - mean) * scale


def _grams(activations: np.ndarray, train: np.ndarray) -> torch.Tensor:
    """Gram matrices [problems, images, images] of `_standardised` units, float64, for each row of `train`.

    With units centred over all images, x, and m and d a unit's mean and scale over training images, the matrix is
    (x - m) d^2 (x - m)^T = x d^2 x^T - u - u^T + c with u = x d^2 m: the units are gone through once for all problems.
    """
    images, units = activations.shape
    # Images that the same problems train on: their sums serve all these.
    atoms, atom = np.unique(train, axis=1, return_inverse=True)
    order = np.argsort(atom, kind="stable")
    counts = np.bincount(atom)
    members, counts, sizes = torch.from_numpy(atoms), torch.from_numpy(counts), counts.tolist()
    gram = torch.zeros(len(train), images, images, dtype=torch.float64)
    width = max(1, CHUNK // images)
    for start in range(0, units, width):
        x = torch.from_numpy(activations[order, start : start + width].astype(np.float64))
        x -= x.mean(0)
        parts = x.split(sizes)
        sums, squares = (torch.stack([f(part).sum(0) for part in parts]) for f in (torch.Tensor.clone, torch.square))
        for problem, among in zip(gram, members, strict=True):
            count = counts[among].sum()
            mean = sums[among].sum(0) / count
            variance = squares[among].sum(0) / count - mean**2
            # What rounding may have made is taken again, plainly: here a unit can be nearly or wholly constant.
            doubtful = variance <= 1e-9 * mean**2
            if doubtful.any():
                rows = torch.cat([part for part, used in zip(parts, among, strict=True) if used])[:, doubtful]
                mean[doubtful] = rows.mean(0)
                variance[doubtful] = torch.where(rows.amax(0) > rows.amin(0), rows.var(0, correction=0), 0.0)
            scale = torch.where(variance > 0, 1 / (variance * units), 0.0)
            weighted = x * scale
            u = weighted @ mean
            problem += (scale * mean) @ mean - u - u[:, None]
            # Symmetric: the blocks above the diagonal are left out.
            for rows in torch.arange(images).split(BLOCK):
                problem[rows[0] :, rows] += weighted[rows[0] :] @ x[rows].T
    gram = gram.tril() + gram.tril(-1).mT
    back = torch.from_numpy(np.argsort(order))
    return gram[:, back][:, :, back]


def _weights(fitted: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """Weights of the images of a probe fitted on the images `fitted`; 0 leaves an image out."""
    # ASSUME: both sides weigh the same in sum, so that a probability of 1/2 is the balanced accuracy's threshold.
    sides = [fitted & is_target, fitted & ~is_target]
    if not all(side.any() for side in sides):
        raise StudyError("a fold holds all images of one side, which leaves none to fit on; spread both over the folds")
    return sum(side * (fitted.sum() / (2 * side.sum())) for side in sides)


def _decisions(
    activations: np.ndarray, is_target: np.ndarray, train: np.ndarray, weights: np.ndarray, C: Sequence[float]
) -> np.ndarray:
    """Decision values [problems, images] of probes on units standardised over training images.

    train: bool [problems, images], what is standardised over; weights [problems, images], 0 outside what is fitted.
    """
    images, units = activations.shape
    y = torch.from_numpy(np.where(is_target, 1.0, -1.0))
    c = torch.tensor(C, dtype=torch.float64)
    # Newton's steps cost images x units^2 in the primal form and images^3 / 3 in the dual.
    if units <= images / 2:
        x = torch.stack([_standardised(activations, rows) for rows in train])
        *_, decisions = fit(x, y, c, torch.from_numpy(weights))
        return decisions.numpy()
    distinct, which = np.unique(train, axis=0, return_inverse=True)
    grams, decisions = _grams(activations, distinct), []
    for gram, weight, c_of_problem in zip((grams[i] for i in which), weights, C, strict=True):
        fitted = torch.from_numpy(np.flatnonzero(weight))
        a, b = fit_dual(gram[fitted][:, fitted], y[fitted], float(c_of_problem), torch.from_numpy(weight)[fitted])
        decisions.append((gram[:, fitted] @ a + b).numpy())
    return np.stack(decisions)


def _balanced_log_loss(decision: np.ndarray, is_target: np.ndarray) -> float:
    """Mean over the two sides of the mean negative log-probability, in nats."""
    loss = np.logaddexp(0, np.where(is_target, -decision, decision))
    return float((loss[is_target].mean() + loss[~is_target].mean()) / 2)


def _best(
    activations: np.ndarray, is_target: np.ndarray, fold: np.ndarray, train: np.ndarray, candidates: Sequence[float]
) -> int:
    """Index of the C with the lowest log-loss in a cross-validation over the training folds.

    Units are standardised over all training folds, for every one of its inner folds alike.
    """
    inner = np.unique(fold[train])
    weights = np.stack([_weights(train & (fold != k), is_target) for _ in candidates for k in inner])
    C = [candidate for candidate in candidates for _ in inner]
    decisions = _decisions(activations, is_target, np.broadcast_to(train, weights.shape), weights, C)
    scored = [train & (fold == k) for _ in candidates for k in inner]
    losses = [_balanced_log_loss(d[rows], is_target[rows]) for d, rows in zip(decisions, scored, strict=True)]
    return int(np.reshape(losses, (len(candidates), len(inner))).mean(1).argmin())


def held_out(activations: np.ndarray, is_target: np.ndarray, fold: np.ndarray, C: float | Sequence[float]) -> HeldOut:
    """The cross-validated probe on all units of a cell.

    activations: [images, units of the cell]; is_target: bool [images]; fold: [images], each image is predicted by the
    probe fitted on the other folds. `C` is scikit-learn's, the inverse strength of the penalty; of a list, the one with
    the lowest log-loss in a cross-validation over the training folds is taken, anew for each fold. Units are
    standardised on the training folds and divided by the square root of their number, so that one C means the same at
    any cell size.
    """
    candidates = list(C) if isinstance(C, Sequence) else [float(C)]
    left_out = np.unique(fold)
    train = np.stack([fold != k for k in left_out])
    chosen = [candidates[0]] * len(left_out)
    if len(candidates) > 1:
        chosen = [candidates[_best(activations, is_target, fold, rows, candidates)] for rows in train]
    weights = np.stack([_weights(rows, is_target) for rows in train])
    decisions = _decisions(activations, is_target, train, weights, chosen)
    decision = np.where(~train, decisions, 0.0).sum(0)
    p = np.exp(-np.logaddexp(0, -decision))
    predicted = decision > 0
    accuracy = (predicted[is_target].mean() + (~predicted[~is_target]).mean()) / 2
    return HeldOut(
        p, float(accuracy), float(roc_auc_score(is_target, decision)), _balanced_log_loss(decision, is_target)
    )
