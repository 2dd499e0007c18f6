"""Linear probes of a group's units: the published protocol, and a held-out one on all of them.

Both are logistic regressions (readout/logistic.py). A fit gives `Probes`, which can then be applied to any images.
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
DECIMALS = 6
"""Of decision values, as far as they are compared: solutions of different folds can be equal but for the solver's
tolerance, and ties that rounding breaks would make an AUROC depend on the processor."""
BLOCK = 110
"""Images per block of a Gram matrix."""


@dataclass(frozen=True)
class Probes:
    """Fitted linear classifiers, target against others.

    columns: the units, among those of the group, that each probe looks at [probes, units], or None where each looks at
    all of them; coefficients: float64 [probes, units]; intercepts: float64 [probes].
    """

    columns: np.ndarray | None
    coefficients: np.ndarray
    intercepts: np.ndarray

    def decisions(self, activations: np.ndarray) -> np.ndarray:
        """Decision values [probes, images] for activations [images, units of the group]; above zero is the target."""
        images, units = activations.shape
        found = np.repeat(self.intercepts[:, None], images, 1)
        if self.columns is not None:
            at_once = max(1, CHUNK // (images * self.columns.shape[1]))
            for start in range(0, len(found), at_once):
                some = slice(start, start + at_once)
                x = activations.T[self.columns[some]].astype(np.float64)  # [probes, units, images]
                found[some] += (self.coefficients[some, None] @ x)[:, 0]
            return found
        width = max(1, CHUNK // images)
        for start in range(0, units, width):
            some = slice(start, start + width)
            found += self.coefficients[:, some] @ activations[:, some].T.astype(np.float64)
        return found


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


def fit_published(
    activations: np.ndarray, is_target: np.ndarray, *, draws: int, units: int, C: float, generator: np.random.Generator
) -> Probes:
    """The paper's probes of a group (section 2; the authors' code), one for each draw of `units` units at random.

    activations: [images, units of the group], used as they are; is_target: bool [images].
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
    coefficients, intercepts, _ = fit(x, y, C, torch.ones_like(y))
    return Probes(columns, coefficients.numpy(), intercepts.numpy())


def published(
    activations: np.ndarray, is_target: np.ndarray, *, draws: int, units: int, C: float, generator: np.random.Generator
) -> Published:
    """The paper's score of a group: its probes predict the images on which they were fitted.

    activations: [images, units of the group]; is_target: bool [images].
    """
    fitted = fit_published(activations, is_target, draws=draws, units=units, C=C, generator=generator)
    correct = ((fitted.decisions(activations) > 0) == is_target).mean(1)
    log_loss = -(correct * np.log(1 - CLIP) + (1 - correct) * np.log(CLIP))
    return Published(draws, float(np.exp(-log_loss).mean()), float(correct.mean()))


@dataclass(frozen=True)
class _Standardisation:
    """Units centred on their means over some problems' training images, and scaled, float64 [problems, units].

    `scale` is one over the deviation and over the square root of the number of units, so that one C means the same at
    any size; it is zero for a unit that is constant over the training images, which carries nothing.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, mean: np.ndarray, variance: np.ndarray) -> "_Standardisation":
        scaled = np.divide(1 / variance.shape[1], variance, out=np.zeros_like(variance), where=variance > 0)
        return cls(mean, np.sqrt(scaled))

    def primal(self, activations: np.ndarray, duals: np.ndarray) -> np.ndarray:
        """Coefficients w = x^T a [problems, units] of standardised units x, for dual variables a [problems, images]."""
        width = max(1, CHUNK // len(activations))
        parts = [
            duals @ activations[:, start : start + width].astype(np.float64)
            for start in range(0, activations.shape[1], width)
        ]
        return (np.concatenate(parts, axis=1) - duals.sum(1)[:, None] * self.mean) * self.scale

    def probes(self, coefficients: np.ndarray, intercepts: np.ndarray) -> Probes:
        """Probes of standardised units as probes of the units themselves."""
        coefficients = coefficients * self.scale
        return Probes(None, coefficients, intercepts - (self.mean * coefficients).sum(1))


def _plain_standardisation(activations: np.ndarray, train: np.ndarray) -> _Standardisation:
    """For few units: over the images of each row of `train`, bool [problems, images]."""
    parts = [activations[rows].astype(np.float64) for rows in train]
    return _Standardisation.of(np.stack([part.mean(0) for part in parts]), np.stack([part.var(0) for part in parts]))


def _grams(activations: np.ndarray, train: np.ndarray) -> tuple[torch.Tensor, _Standardisation]:
    """Gram matrices [problems, images, images] of standardised units, float64, for each row of `train`.

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
    means, variances = (torch.empty(len(train), units, dtype=torch.float64) for _ in range(2))
    width = max(1, CHUNK // images)
    for start in range(0, units, width):
        some = slice(start, start + width)
        x = torch.from_numpy(activations[order, some].astype(np.float64))
        centre = x.mean(0)
        x -= centre
        parts = x.split(sizes)
        sums, squares = (torch.stack([f(part).sum(0) for part in parts]) for f in (torch.Tensor.clone, torch.square))
        for i, among in enumerate(members):
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
            gram[i] += (scale * mean) @ mean - u - u[:, None]
            # Symmetric: the blocks above the diagonal are left out.
            for rows in torch.arange(images).split(BLOCK):
                gram[i, rows[0] :, rows] += weighted[rows[0] :] @ x[rows].T
            means[i, some], variances[i, some] = centre + mean, variance
    gram = gram.tril() + gram.tril(-1).mT
    back = torch.from_numpy(np.argsort(order))
    return gram[:, back][:, :, back], _Standardisation.of(means.numpy(), variances.numpy())


def _weights(fitted: np.ndarray, is_target: np.ndarray) -> np.ndarray:
    """Weights of the images of a probe fitted on the images `fitted`; 0 leaves an image out."""
    # ASSUME: both sides weigh the same in sum, so that a probability of 1/2 is the balanced accuracy's threshold.
    sides = [fitted & is_target, fitted & ~is_target]
    if not all(side.any() for side in sides):
        raise StudyError("a fold holds all images of one side, which leaves none to fit on; spread both over the folds")
    return sum(side * (fitted.sum() / (2 * side.sum())) for side in sides)


def fit_validated(
    activations: np.ndarray, is_target: np.ndarray, train: np.ndarray, weights: np.ndarray, C: Sequence[float]
) -> Probes:
    """Probes on all of a group's units, standardised over training images; one for each problem.

    activations: [images, units of the group]; is_target: bool [images]; train: bool [problems, images], what is
    standardised over; weights: [problems, images], 0 outside what is fitted; C: [problems].
    """
    images, units = activations.shape
    y = torch.from_numpy(np.where(is_target, 1.0, -1.0))
    # Newton's steps cost images x units^2 in the primal form and images^3 / 3 in the dual.
    if units <= images / 2:
        standardisation = _plain_standardisation(activations, train)
        x = (activations - standardisation.mean[:, None]) * standardisation.scale[:, None]  # [problems, images, units]
        coefficients, intercepts, _ = fit(
            torch.from_numpy(x), y, torch.tensor(C, dtype=torch.float64), torch.from_numpy(weights)
        )
        return standardisation.probes(coefficients.numpy(), intercepts.numpy())
    distinct, which = np.unique(train, axis=0, return_inverse=True)
    grams, standardisation = _grams(activations, distinct)
    standardisation = _Standardisation(standardisation.mean[which], standardisation.scale[which])
    duals, intercepts = np.zeros((len(train), images)), np.zeros(len(train))
    for i, (gram, weight) in enumerate(zip((grams[i] for i in which), weights, strict=True)):
        fitted = torch.from_numpy(np.flatnonzero(weight))
        a, b = fit_dual(gram[fitted][:, fitted], y[fitted], float(C[i]), torch.from_numpy(weight)[fitted])
        duals[i, fitted], intercepts[i] = a.numpy(), float(b)
    return standardisation.probes(standardisation.primal(activations, duals), intercepts)


def auroc(decision: np.ndarray, is_target: np.ndarray) -> float:
    """Probability that an image of the target has the higher decision value [images]; ties count one half."""
    return float(roc_auc_score(is_target, np.round(decision, DECIMALS)))


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
    fitted = fit_validated(activations, is_target, np.broadcast_to(train, weights.shape), weights, C)
    decisions = fitted.decisions(activations)
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
    fitted = fit_validated(activations, is_target, train, weights, chosen)
    decision = np.where(~train, fitted.decisions(activations), 0.0).sum(0)
    p = np.exp(-np.logaddexp(0, -decision))
    predicted = decision > 0
    accuracy = (predicted[is_target].mean() + (~predicted[~is_target]).mean()) / 2
    return HeldOut(p, float(accuracy), auroc(decision, is_target), _balanced_log_loss(decision, is_target))
