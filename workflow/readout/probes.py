"""Linear probes of a cell: the published protocol, and a held-out one on all its units.

Both are L2-penalised logistic regressions with an unpenalised intercept,

    minimise  1/2 |w|^2 + C sum_i c_i log(1 + exp(-y_i (x_i w + b))),    y_i in {-1, 1},

solved by Newton's method until the gradient, in float64, vanishes; scikit-learn's `LogisticRegression` at tol 1e-8 is
the reference. Many small problems are solved as one batch. The Hessians are taken in float32, as are all products with
activations while a large batch is far from its solution: this decides how fast that is reached, not what it is.
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
SINGLE = 20
"""Steps with Hessians in float32; a problem that takes more is ill-conditioned and gets float64."""
LARGE = 1 << 25
"""Products of activations in the Hessians of a large batch; in a smaller one they save more than they cost."""
FALL = 10
"""A large batch keeps its Hessians for as long as a step makes most gradients smaller by this factor."""
NEAR = 1e-5
"""Share of the gradient at zero down to which float32 leads a large batch."""
LEAD = 12
"""Most steps that float32 leads."""
TRIES = 30
"""Most lengths of a Newton step that are tried."""
CHUNK = 1 << 21
"""Activations gone through at once: 16 MiB a copy in float64, which a processor's outer cache can hold."""
CACHED = 1 << 18
"""Activations of which Hessians are taken at once: 1 MiB a copy in float32, which a core's own cache can hold."""
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


def _objective(margins: torch.Tensor, c: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """1/2 |w|^2 + sum_i c_i log(1 + exp(-margin_i)), over the last axis of the margins."""
    return norm / 2 + (c * torch.nn.functional.softplus(-margins)).sum(-1)


def _check_finite(values: torch.Tensor) -> None:
    # Of activations, float32 in origin, a sum in float64 is finite if and only if all are; and one pass tells.
    if not torch.isfinite(values.sum()):
        raise StudyError("a probe met an activation that is not finite; the network or its weights are broken")


def _factors(x: torch.Tensor, curvature: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor | None:
    """Cholesky factors of the Hessians, in the precision of `x`; None where one is not positive definite in it."""
    few, factors = max(1, CACHED // x[0].numel()), []
    for some, bend in zip(x.split(few), curvature.to(x.dtype).split(few), strict=True):
        hessian = torch.bmm(some * bend[:, None], some.mT)
        hessian.diagonal(dim1=1, dim2=2).add_(penalty.to(x.dtype) + 1e-12)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if failed.any():
            return None
        factors.append(factor)
    return torch.cat(factors)


def _large(x: torch.Tensor) -> bool:
    return x.numel() * x.shape[1] >= LARGE


def _times(vectors: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Each row vector times its matrix, in the matrices' precision; float64."""
    return torch.bmm(vectors[:, None].to(matrices.dtype), matrices)[:, 0].double()


def _length(
    theta: torch.Tensor,
    step: torch.Tensor,
    margins: torch.Tensor,
    along: torch.Tensor,
    c: torch.Tensor,
    penalty: torch.Tensor,
    wanted: torch.Tensor,
) -> torch.Tensor:
    """How many times its `step` each problem goes, so that the objective is nearly least on that line.

    `along` is what one step changes the margins by, so that a try costs images, not images x units. Newton's full step
    is far too short where a class is nearly separable, and too long where an image is far on the wrong side. The slope
    is made at most a tenth of what it is at the start, either way, by Newton's method within bounds. The length is 0
    for problems not `wanted`.
    """
    bend, tilt = (penalty * step**2).sum(1), (penalty * theta * step).sum(1)
    start = tilt - (c * along * torch.sigmoid(-margins)).sum(1)
    value = _objective(margins, c, (penalty * theta**2).sum(1))
    # What is below the rounding of the objective cannot be told apart: there the full step is right.
    flat = -start <= 1e-12 * value.abs()
    scale = torch.ones_like(start)
    low, high = torch.zeros_like(start), torch.full_like(start, torch.inf)
    for _ in range(TRIES):
        tried = margins + scale[:, None] * along
        miss = torch.sigmoid(-tried)
        pull = c * along * miss
        slope = tilt + scale * bend - pull.sum(1)
        after = _objective(tried, c, (penalty * (theta + scale[:, None] * step) ** 2).sum(1))
        found = ((slope.abs() <= -0.1 * start) | flat) & (after <= value + 1e-12 * value.abs())
        if (found | ~wanted).all():
            break
        low, high = torch.where(slope < 0, scale, low), torch.where(slope < 0, high, scale)
        newton = torch.minimum(scale - slope / (bend + (pull * along * (1 - miss)).sum(1)), 8 * scale)
        halved = torch.where(high.isinf(), 2 * scale, (low + high) / 2)
        scale = torch.where(found, scale, torch.where((low < newton) & (newton < high), newton, halved))
    # Where no try was found good, the longest that leads downwards.
    return torch.where(wanted, torch.where(found | (low == 0), scale, low), 0.0)


def _descend(
    x: torch.Tensor,
    y: torch.Tensor,
    C: torch.Tensor,
    c: torch.Tensor,
    theta: torch.Tensor,
    tolerance: torch.Tensor | float,
    steps: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Newton's method from `theta` [batch, units + 1], in the precision of `x` [batch, units + 1, images].

    Ends when half of the problems have gradients within the tolerance, per unit of C, or no step is left, or a Hessian
    fails. Returns where it came to, the decision values there, which problems are still far, and the steps taken. With
    an old Hessian a step costs less than half, so that a large batch keeps it while it serves.
    """
    penalty = torch.ones(x.shape[1], dtype=torch.float64)
    penalty[-1] = 0.0
    single, margins = x.float(), y * _times(theta, x)
    factors = before = None
    for taken in range(steps + 1):
        miss = torch.sigmoid(-margins)
        gradient = penalty * theta - _times(c * y * miss, x.mT)
        size = gradient.abs().amax(1) / C.clamp(min=1)
        far = size > tolerance
        # To go on with all until the last is there would cost more than to begin anew with those that are left.
        if 2 * far.sum() <= len(x) or taken == steps:
            break
        if factors is None or not _large(x) or 2 * (far & (size > before / FALL)).sum() > far.sum():
            curvature = c * miss * (1 - miss)
            factors = _factors(single, curvature, penalty) if taken < SINGLE else None
            if factors is None:
                factors = _factors(x, curvature, penalty)
            if factors is None:
                break
        step = torch.cholesky_solve(gradient.to(factors.dtype)[..., None], factors)[..., 0].double()
        along = -y * _times(step, x)
        scale = _length(theta, -step, margins, along, c, penalty, far)[:, None]
        theta, margins, before = theta - scale * step, margins + scale * along, size
    return theta, y * margins, far, taken


def _solve(
    given: torch.Tensor, y: torch.Tensor, C: torch.Tensor, c: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solutions [batch, units + 1], the intercepts last, and decision values [batch, images]."""
    batch, images, units = given.shape
    # The intercept is one more unit, always active and not penalised.
    x = torch.empty(batch, units + 1, images, dtype=torch.float64)
    x[:, :-1], x[:, -1] = given.mT, 1.0
    _check_finite(x)
    theta, decisions = torch.zeros(batch, units + 1, dtype=torch.float64), torch.zeros_like(c)
    left, remaining = torch.arange(batch), steps
    if _large(x):
        start = _times(c * y / 2, x.mT).abs().amax(1) / C.clamp(min=1)
        # What is solved at zero stays there, where float32 would take its own rounding for a gradient.
        near = torch.where(start > TOLERANCE, NEAR * start, torch.inf)
        theta, *_, taken = _descend(x.float(), y, C, c, theta, near, min(LEAD, steps))
        remaining -= taken
    while len(left):
        part = (x, y, C, c, theta.clone()) if len(left) == batch else (each[left] for each in (x, y, C, c, theta))
        theta[left], decisions[left], far, taken = _descend(*part, TOLERANCE, remaining)
        if far.all():
            raise StudyError(
                f"a probe did not converge in {steps} Newton steps; choose a smaller C or scale the activations"
            )
        left, remaining = left[far], remaining - taken
    return theta, decisions


def fit(
    x: torch.Tensor, y: torch.Tensor, C: torch.Tensor | float, weights: torch.Tensor, steps: int = 100
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Solve a batch of problems in the primal form.

    x: [batch, images, units], float32 or float64; y: [images] or [batch, images] in {-1, 1}; C: number or [batch];
    weights: the images' c_i >= 0, like y (0 leaves an image out). Returns w [batch, units], b [batch] and the decision
    values x w + b [batch, images], all float64. Raises StudyError where a problem does not converge.
    """
    batch, images, units = x.shape
    C = torch.as_tensor(C, dtype=torch.float64).expand(batch)
    given = (x, y.expand(batch, images), C, C[:, None] * weights.expand(batch, images))
    at_once = max(1, CHUNK // (images * (units + 1)))
    parts = zip(*(each.split(at_once) for each in given), strict=True)
    theta, decisions = map(torch.cat, zip(*(_solve(*part, steps) for part in parts), strict=True))
    return theta[:, :-1], theta[:, -1], decisions


def fit_dual(
    gram: torch.Tensor, y: torch.Tensor, C: float, weights: torch.Tensor, steps: int = 100
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve one problem in the dual form, for more units than images.

    gram: x x^T [images, images]; y [images] in {-1, 1}; weights: the images' c_i > 0. Returns a [images] and b, with
    w = x^T a. At the solution a = pull, the vector of C c_i y_i sigma(-margin_i), and sum(a) = 0. With S the diagonal
    of curvatures, a Newton step changes the decisions by q, where (1 + gram S) q = gram (pull - a) + db, and a by
    pull - a - S q; it is solved through the well-conditioned matrix 1 + S^1/2 gram S^1/2.
    """
    images, c = len(y), C * weights
    _check_finite(gram)
    a, b, f = gram.new_zeros(images), gram.new_zeros(()), gram.new_zeros(images)
    single, identity = gram.float(), torch.eye(images)
    value = _objective(y * f, c, b)
    tolerance = TOLERANCE * max(C, 1)
    for _ in range(steps):
        miss = torch.sigmoid(-y * f)
        pull = c * y * miss
        slope = gram @ (pull - a)
        if slope.abs().amax() <= tolerance and pull.sum().abs() <= tolerance:
            return a, b
        root = (c * miss * (1 - miss)).sqrt()
        factor, failed = torch.linalg.cholesky_ex(identity + root.float()[:, None] * single * root.float())
        if failed:
            break
        right = torch.stack([root * slope, root], 1)
        solved = torch.cholesky_solve(right.float(), factor).double()
        db = (pull.sum() - root @ solved[:, 0]) / (root @ solved[:, 1])
        da = pull - a - root * (solved[:, 0] + db * solved[:, 1])
        df = gram @ da + db
        scale = 1.0
        for _ in range(TRIES):
            trial = [old + scale * change for old, change in ((a, da), (b, db), (f, df))]
            after = _objective(y * trial[2], c, trial[0] @ (trial[2] - trial[1]))
            if after <= value + 1e-12 * value.abs():
                break
            scale /= 2
        (a, b, f), value = trial, after
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
    for gram, weight, strength in zip((grams[i] for i in which), weights, C, strict=True):
        fitted = torch.from_numpy(np.flatnonzero(weight))
        a, b = fit_dual(gram[fitted][:, fitted], y[fitted], float(strength), torch.from_numpy(weight)[fitted])
        decisions.append((gram[:, fitted] @ a + b).numpy())
    return np.stack(decisions)


def _balanced_log_loss(decision: np.ndarray, is_target: np.ndarray) -> float:
    """Mean over the two sides of the mean negative log-probability, in nats."""
    loss = np.logaddexp(0, np.where(is_target, -decision, decision))
    return float((loss[is_target].mean() + loss[~is_target].mean()) / 2)


def _best(
    activations: np.ndarray, is_target: np.ndarray, fold: np.ndarray, train: np.ndarray, strengths: Sequence[float]
) -> int:
    """Index of the strength with the lowest log-loss in a cross-validation over the training folds.

    Units are standardised over all training folds, for every one of its inner folds alike.
    """
    inner = np.unique(fold[train])
    weights = np.stack([_weights(train & (fold != k), is_target) for _ in strengths for k in inner])
    C = [strength for strength in strengths for _ in inner]
    decisions = _decisions(activations, is_target, np.broadcast_to(train, weights.shape), weights, C)
    scored = [train & (fold == k) for _ in strengths for k in inner]
    losses = [_balanced_log_loss(d[rows], is_target[rows]) for d, rows in zip(decisions, scored, strict=True)]
    return int(np.reshape(losses, (len(strengths), len(inner))).mean(1).argmin())


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
    left_out = np.unique(fold)
    train = np.stack([fold != k for k in left_out])
    chosen = [strengths[0]] * len(left_out)
    if len(strengths) > 1:
        chosen = [strengths[_best(activations, is_target, fold, rows, strengths)] for rows in train]
    weights = np.stack([_weights(rows, is_target) for rows in train])
    decisions = _decisions(activations, is_target, train, weights, chosen)
    decision = np.where(~train, decisions, 0.0).sum(0)
    p = np.exp(-np.logaddexp(0, -decision))
    predicted = decision > 0
    accuracy = (predicted[is_target].mean() + (~predicted[~is_target]).mean()) / 2
    return HeldOut(
        p, float(accuracy), float(roc_auc_score(is_target, decision)), _balanced_log_loss(decision, is_target)
    )
