"""Linear probes of a cell: the published protocol, and a held-out one on all its units.

Both are L2-penalised logistic regressions with an unpenalised intercept,

    minimise  1/2 |w|^2 + C sum_i c_i log(1 + exp(-y_i (x_i w + b))),    y_i in {-1, 1},

solved by Newton's method in float64 until the gradient vanishes; scikit-learn's `LogisticRegression` at tol 1e-8 is the
reference. Many small problems are solved as one batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from readout import StudyError

CLIP = 2.2e-16
"""Probabilities are clipped to [CLIP, 1 - CLIP], as in the published score."""
TOLERANCE = 1e-8
"""Largest entry of the gradient at the solution, per unit of C."""
CHUNK = 1 << 24
"""Activations standardised at once for a Gram matrix; bounds the memory at 128 MiB."""


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


def _objective(margins: torch.Tensor, weights: torch.Tensor, C: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    return penalty / 2 + (C * weights * torch.nn.functional.softplus(-margins)).sum(-1)


def fit(
    x: torch.Tensor, y: torch.Tensor, C: torch.Tensor | float, weights: torch.Tensor, steps: int = 100
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve a batch of problems in the primal form.

    x: [batch, images, units]; y: [images] or [batch, images] in {-1, 1}; C: number or [batch]; weights: the images'
    c_i >= 0, like y (0 leaves an image out). Returns w [batch, units] and b [batch]. Raises StudyError where a problem
    does not converge.
    """
    batch, images, units = x.shape
    x = torch.cat([x, x.new_ones(batch, images, 1)], 2)
    y, weights = y.expand(batch, images), weights.expand(batch, images)
    C = torch.as_tensor(C, dtype=x.dtype).expand(batch)
    ridge = torch.ones(units + 1, dtype=x.dtype)
    ridge[-1] = 0.0
    solution = x.new_zeros(batch, units + 1)
    active = torch.arange(batch)
    margins = torch.zeros(batch, images, dtype=x.dtype)
    value = _objective(margins, weights, C[:, None], torch.zeros(batch, dtype=x.dtype))
    for _ in range(steps):
        xa, ya, ca, sa = x[active], y[active], (C[:, None] * weights)[active], solution[active]
        miss = torch.sigmoid(-margins[active])
        gradient = ridge * sa - torch.bmm((ca * ya * miss)[:, None], xa)[:, 0]
        open_ = gradient.abs().amax(1) > TOLERANCE * C[active].clamp(min=1)
        if not open_.any():
            return solution[:, :-1], solution[:, -1]
        active, xa, ya, ca, sa = active[open_], xa[open_], ya[open_], ca[open_], sa[open_]
        miss, gradient = miss[open_], gradient[open_]
        curvature = ca * miss * (1 - miss)
        hessian = torch.bmm((xa * curvature[..., None]).transpose(1, 2), xa)
        hessian.diagonal(dim1=1, dim2=2).add_(ridge + 1e-12)
        step = torch.cholesky_solve(gradient[..., None], torch.linalg.cholesky(hessian))[..., 0]
        # Newton's full step can overshoot where an image is far on the wrong side: halve it until the objective falls.
        scale, before = torch.ones(len(active), dtype=x.dtype), value[active]
        for _ in range(30):
            trial = sa - scale[:, None] * step
            trial_margins = ya * torch.bmm(xa, trial[..., None])[..., 0]
            after = _objective(trial_margins, weights[active], C[active, None], (ridge * trial**2).sum(1))
            worse = after > before + 1e-12 * before.abs()
            if not worse.any():
                break
            scale = torch.where(worse, scale / 2, scale)
        solution[active], margins[active], value[active] = trial, trial_margins, after
    raise StudyError(f"a probe did not converge in {steps} Newton steps; choose a smaller C or scale the activations")


def fit_dual(
    gram: torch.Tensor, y: torch.Tensor, C: float, weights: torch.Tensor, steps: int = 100
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve one problem in the dual form, for more units than images.

    gram: x x^T [images, images]; y [images] in {-1, 1}; weights: the images' c_i > 0. Returns a [images] and b, with
    w = x^T a. Each Newton step solves (gram + S^-1) a + b = z with sum(a) = 0, where S holds the curvatures and z the
    working responses, through the well-conditioned matrix 1 + S^1/2 gram S^1/2.
    """
    images = len(y)
    a, b, f = gram.new_zeros(images), gram.new_zeros(()), gram.new_zeros(images)
    norm = gram.new_zeros(())
    identity = torch.eye(images, dtype=gram.dtype)
    value = _objective(y * f, weights, torch.as_tensor(C), norm)
    for _ in range(steps):
        miss = torch.sigmoid(-y * f)
        pull = C * weights * y * miss
        # The gradient with respect to w is x^T (a - pull), with respect to b it is -sum(pull).
        rest = a - pull
        if ((gram @ rest).abs().amax() <= TOLERANCE * max(C, 1)) and pull.sum().abs() <= TOLERANCE * max(C, 1):
            return a, b
        curvature = (C * weights * miss * (1 - miss)).clamp(min=1e-12)
        root = curvature.sqrt()
        factor = torch.linalg.cholesky(identity + root[:, None] * gram * root)
        right = torch.stack([root * f + pull / root, root], 1)
        solved = root[:, None] * torch.cholesky_solve(right, factor)
        b_full = solved[:, 0].sum() / solved[:, 1].sum()
        a_full = solved[:, 0] - b_full * solved[:, 1]
        f_full = gram @ a_full + b_full
        scale, accepted = 1.0, False
        for _ in range(30):
            a_trial, b_trial, f_trial = (
                old + scale * (new - old) for old, new in ((a, a_full), (b, b_full), (f, f_full))
            )
            after = _objective(y * f_trial, weights, torch.as_tensor(C), a_trial @ (f_trial - b_trial))
            accepted = bool(after <= value + 1e-12 * value.abs())
            if accepted:
                break
            scale /= 2
        a, b, f, value = a_trial, b_trial, f_trial, after
    raise StudyError(f"a probe did not converge in {steps} Newton steps; choose a smaller strength")


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
    x = torch.from_numpy(activations[:, columns.T].astype(np.float64)).permute(2, 0, 1)
    # ASSUME: converged, the intercept unpenalised, the images unweighted.
    w, b = fit(x, y, C, torch.ones_like(y))
    predicted = torch.bmm(x, w[..., None])[..., 0] + b[:, None] > 0
    correct = (predicted == (y > 0)).double().mean(1)
    log_loss = -(correct * np.log(1 - CLIP) + (1 - correct) * np.log(CLIP))
    return Published(draws, float(torch.exp(-log_loss).mean()), float(correct.mean()))


def _standardised(activations: np.ndarray, train: np.ndarray, columns: slice) -> torch.Tensor:
    """Units standardised on the training images and divided by the square root of their number, float64."""
    x = torch.from_numpy(activations[:, columns].astype(np.float64))
    mean, deviation = x[train].mean(0), x[train].std(0, correction=0)
    # A unit that is constant over the training images carries nothing: it becomes zero.
    scale = torch.where(deviation > 0, 1 / deviation, 0.0) / np.sqrt(activations.shape[1])
    return (x - mean) * scale


def _problem(fitted: np.ndarray, is_target: np.ndarray, C: float) -> tuple:
    """Rows, signs, weights and C of a probe fitted on the images `fitted`."""
    rows = torch.from_numpy(np.flatnonzero(fitted))
    positive = is_target[fitted]
    # ASSUME: both sides weigh the same in sum, so that a probability of 1/2 is the balanced accuracy's threshold.
    weights = np.where(positive, len(positive) / (2 * positive.sum()), len(positive) / (2 * (~positive).sum()))
    return rows, torch.from_numpy(np.where(positive, 1.0, -1.0)), torch.from_numpy(weights), C


def _decisions(activations: np.ndarray, train: np.ndarray, problems: Sequence[tuple]) -> list[np.ndarray]:
    """Decision values [images] of probes fitted on training images; problems as `_problem` makes them."""
    images, units = activations.shape
    if units <= train.sum():
        x = _standardised(activations, train, slice(None))
        solutions = []
        for rows, y, weights, C in problems:
            w, b = fit(x[rows][None], y, C, weights)
            solutions.append((x @ w[0] + b[0]).numpy())
        return solutions
    gram = torch.zeros(images, images, dtype=torch.float64)
    width = max(1, CHUNK // images)
    for start in range(0, units, width):
        x = _standardised(activations, train, slice(start, start + width))
        gram += x @ x.T
    solutions = []
    for rows, y, weights, C in problems:
        a, b = fit_dual(gram[rows][:, rows], y, C, weights)
        solutions.append((gram[:, rows] @ a + b).numpy())
    return solutions


def _balanced_log_loss(decision: np.ndarray, is_target: np.ndarray) -> float:
    """Mean over the two sides of the mean negative log-probability, in nats."""
    loss = np.logaddexp(0, np.where(is_target, -decision, decision))
    return float((loss[is_target].mean() + loss[~is_target].mean()) / 2)


def held_out(
    activations: np.ndarray, is_target: np.ndarray, fold: np.ndarray, strength: float | Sequence[float]
) -> HeldOut:
    """The cross-validated probe on all units of a cell.

    activations: [images, units of the cell]; is_target: bool [images]; fold: [images], each image is predicted by the
    probe fitted on the other folds. `strength` is the C of scikit-learn; of a list, the one with the lowest log-loss
    in a cross-validation over the training folds is taken, anew for each fold. Units are standardised on the training
    folds and divided by the square root of their number, so that one strength means the same at any cell size.
    """
    strengths = list(strength) if isinstance(strength, Sequence) else [float(strength)]
    decision = np.empty(len(fold))
    for left_out in np.unique(fold):
        train, test = fold != left_out, fold == left_out
        best = strengths[0]
        if len(strengths) > 1:
            inner = [(train & (fold != k), train & (fold == k)) for k in np.unique(fold[train])]
            problems = [_problem(fitted, is_target, C) for C in strengths for fitted, _ in inner]
            found = iter(_decisions(activations, train, problems))
            losses = [
                np.mean([_balanced_log_loss(next(found)[scored], is_target[scored]) for _, scored in inner])
                for _ in strengths
            ]
            best = strengths[int(np.argmin(losses))]
        decision[test] = _decisions(activations, train, [_problem(train, is_target, best)])[0][test]
    p = 1 / (1 + np.exp(-decision))
    predicted = decision > 0
    accuracy = (predicted[is_target].mean() + (~predicted[~is_target]).mean()) / 2
    return HeldOut(
        p, float(accuracy), float(roc_auc_score(is_target, decision)), _balanced_log_loss(decision, is_target)
    )
