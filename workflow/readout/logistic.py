"""L2-penalised logistic regressions with an unpenalised intercept, solved by Newton's method.

    minimise  1/2 |w|^2 + C sum_i c_i log(1 + exp(-y_i (x_i w + b))),    y_i in {-1, 1},

until the gradient, in float64, vanishes; scikit-learn's `LogisticRegression` at tol 1e-8 is the reference. Many small
problems are solved as one batch. The Hessians are taken in float32, as are all products with activations while a large
batch is far from its solution: this decides how fast that is reached, not what it is.
"""

import torch

from readout import StudyError

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


def _objective(margins: torch.Tensor, c: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """1/2 |w|^2 + sum_i c_i log(1 + exp(-margin_i)), over the last axis of the margins."""
    return norm / 2 + (c * torch.nn.functional.softplus(-margins)).sum(-1)


def check_finite(values: torch.Tensor) -> None:
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
    check_finite(x)
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
    check_finite(gram)
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
    raise StudyError(f"a probe did not converge in {steps} Newton steps; choose a smaller C")
