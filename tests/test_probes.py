"""Probes: the solvers, the published protocol and the cross-fitted probes, against plain scikit-learn."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from commands import leak
from conftest import write_activations
from jobs import cells as cells_job
from jobs import groups as groups_job
from jobs import networks as networks_job
from jobs import probes as job
from readout import StudyError, folds, logistic, probes
from runtime import parquet


def _reference(C: float, **settings) -> LogisticRegression:
    """scikit-learn's probe, converged: its gradient is that of the mean loss, ours that of the sum."""
    return LogisticRegression(C=C, tol=1e-8, max_iter=100_000, solver="newton-cholesky", **settings)


def _data(images: int, units: int, seed: int = 0, shift: float = 0.5, share: float = 0.3) -> tuple:
    """Activations as a ReLU gives them, float32, a target that drives the units by `shift`, and folds."""
    generator = np.random.default_rng(seed)
    is_target = np.arange(images) < round(share * images)
    drive = generator.normal(size=(images, units)) + shift * is_target[:, None] * generator.normal(size=units)
    fold = np.empty(images, np.int8)
    for side in (is_target, ~is_target):
        fold[side] = np.arange(side.sum()) % 5
    return np.maximum(drive, 0).astype(np.float32), is_target, fold


def _fit(x: np.ndarray, is_target: np.ndarray, C: float, weights: np.ndarray) -> tuple[np.ndarray, float]:
    y = torch.from_numpy(np.where(is_target, 1.0, -1.0))
    w, b, _ = logistic.fit(torch.from_numpy(x)[None], y, C, torch.from_numpy(weights))
    return w[0].numpy(), b.item()


def _fit_dual(x: np.ndarray, is_target: np.ndarray, C: float, weights: np.ndarray) -> tuple[np.ndarray, float]:
    y, x = torch.from_numpy(np.where(is_target, 1.0, -1.0)), torch.from_numpy(x)
    a, b = logistic.fit_dual(x @ x.T, y, C, torch.from_numpy(weights))
    return (x.T @ a).numpy(), b.item()


@pytest.fixture(params=["small", "large"])
def batch(request, monkeypatch):
    """What a test solves is taken for a small batch or for a large one."""
    monkeypatch.setattr(logistic, "LARGE", {"small": 2**62, "large": 0}[request.param])


@pytest.mark.parametrize("solve", [_fit, _fit_dual])
def test_a_probe_by_hand(solve):
    """One unit at -1 and 1, C = 1: w = 2 sigma(-w), b = 0, to be solved by bisection."""
    low, high = 0.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < 2 / (1 + math.exp(middle)) else (low, middle)
    w, b = solve(np.array([[1.0], [-1.0]]), np.array([True, False]), 1.0, np.ones(2))
    assert w.item() == pytest.approx(low, abs=1e-7)
    assert b == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("solve", [_fit, _fit_dual])
def test_an_unpenalised_intercept_by_hand(solve):
    """Units that are silent: w = 0 and b = log odds of the sides, here 3 to 1, or weighted 3 to 2."""
    silent, is_target = np.zeros((4, 2)), np.array([True, True, True, False])
    w, b = solve(silent, is_target, 1.0, np.ones(4))
    assert np.abs(w).max() == 0
    assert b == pytest.approx(math.log(3), abs=1e-7)
    assert solve(silent, is_target, 1.0, np.array([1.0, 1, 1, 2]))[1] == pytest.approx(math.log(1.5), abs=1e-7)


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("solve", [_fit, _fit_dual])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(("images", "units"), [(80, 6), (60, 60), (40, 150)])
def test_solvers_equal_scikit_learn(solve, C, images, units):
    """Coefficients, intercept and decisions; images weighted unevenly."""
    x, is_target, _ = _data(images, units)
    x = x.astype(np.float64)
    weights = np.random.default_rng(1).uniform(0.5, 2, images)
    w, b = solve(x, is_target, C, weights)
    reference = _reference(C).fit(x, is_target, sample_weight=weights)
    # The reference stops where the gradient of its mean loss is 1e-8, that is 1e-8 C n of ours; the Hessian, which
    # divides it, is 1 at least for w, and for b as small as the curvature of separable data. Seen: 2e-6.
    np.testing.assert_allclose(w, reference.coef_[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(b, reference.intercept_[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(x @ w + b, reference.decision_function(x), rtol=0, atol=1e-4)


def test_solvers_equal_scikit_learns_default():
    """Its default solver at tol 1e-8, which is the stated reference; it stops at 1e-4 by default, and differs more."""
    x, is_target, _ = _data(100, 20)
    x = x.astype(np.float64)
    w, _ = _fit(x, is_target, 1.0, np.ones(100))
    strict, loose = (LogisticRegression(tol=tol, max_iter=10_000).fit(x, is_target).coef_[0] for tol in (1e-8, 1e-4))
    # Seen: 1e-7.
    np.testing.assert_allclose(w, strict, rtol=0, atol=1e-6)
    assert np.abs(w - strict).max() < np.abs(w - loose).max()


@pytest.mark.parametrize("C", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize(("images", "units"), [(80, 6), (40, 150)])
def test_primal_and_dual_are_one_problem(C, images, units):
    """Two algorithms for one minimum; both stop at a gradient of 1e-8 per unit of C."""
    x, is_target, _ = _data(images, units)
    x = x.astype(np.float64)
    weights = np.random.default_rng(1).uniform(0.5, 2, images)
    primal, dual = _fit(x, is_target, C, weights), _fit_dual(x, is_target, C, weights)
    # The gradient may be 1e-8 C, and the curvature along w is 1 or more.
    np.testing.assert_allclose(primal[0], dual[0], rtol=0, atol=1e-7 * max(C, 1))
    np.testing.assert_allclose(x @ primal[0] + primal[1], x @ dual[0] + dual[1], rtol=0, atol=1e-5 * max(C, 1))


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(("chunk", "cached"), [(1 << 21, 1 << 18), (3 * 50 * 8, 1 << 18), (1 << 21, 3 * 50 * 8)])
def test_problems_of_a_batch_do_not_meet(monkeypatch, chunk, cached):
    """Problems that differ in activations, signs, C and weights: each as if solved alone."""
    parts = [_data(50, 7, seed) for seed in range(4)]
    x = torch.from_numpy(np.stack([part[0] for part in parts])).double()
    generator = np.random.default_rng(0)
    y = torch.from_numpy(np.stack([generator.permutation(np.where(part[1], 1.0, -1.0)) for part in parts]))
    C = torch.tensor([0.01, 1.0, 100.0, 5.0], dtype=torch.float64)
    weights = torch.from_numpy(generator.uniform(0, 2, (4, 50)))
    # More at once than there are, or three and one.
    monkeypatch.setattr(logistic, "CHUNK", chunk)
    monkeypatch.setattr(logistic, "CACHED", cached)
    w, b, decisions = logistic.fit(x, y, C, weights)
    for i in range(4):
        alone = logistic.fit(x[i : i + 1], y[i], C[i].item(), weights[i])
        # Steps can differ in a large batch; sums of a batch differ in the last bits.
        torch.testing.assert_close(w[i], alone[0][0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(b[i], alone[1][0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(decisions[i], x[i] @ w[i] + b[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_a_step_goes_where_the_objective_is_nearly_least(factor):
    """However long it was: by the plain definition, its derivative taken by torch, on lines that lead downwards."""
    x, is_target, _ = _data(60, 5)
    x, y = torch.from_numpy(x).double(), torch.from_numpy(np.where(is_target, 1.0, -1.0))
    c, penalty = torch.full((60,), 2.0, dtype=torch.float64), torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)

    def objective(theta):
        return (penalty * theta**2).sum() / 2 + (c * torch.log1p(torch.exp(-y * (x @ theta)))).sum()

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        theta = torch.randn(5, dtype=torch.float64, generator=generator).requires_grad_()
        step = -factor * torch.autograd.grad(objective(theta), theta)[0] * torch.rand(5, generator=generator)
        theta = theta.detach()
        margins, along = y * (x @ theta), y * (x @ step)
        wanted = torch.tensor([True])
        scale = logistic._length(theta[None], step[None], margins[None], along[None], c[None], penalty, wanted)[0]
        slopes = []
        for at in (torch.zeros_like(scale), scale):
            at = at.clone().requires_grad_()
            slopes.append(torch.autograd.grad(objective(theta + at * step), at)[0])
        assert slopes[0] < 0 < scale
        assert abs(slopes[1]) <= 0.1 * abs(slopes[0])
        assert objective(theta + scale * step) < objective(theta)
        assert logistic._length(theta[None], step[None], margins[None], along[None], c[None], penalty, ~wanted)[0] == 0


def test_a_step_below_rounding_is_taken_whole():
    """At the solution slopes are noise; to shorten a step for them would keep a problem from its end."""
    x, is_target, _ = _data(60, 4)
    x, y, c = torch.from_numpy(x)[None], torch.from_numpy(np.where(is_target, 1.0, -1.0)), torch.ones(1, 60).double()
    w, b, decisions = logistic.fit(x, y, 1.0, c[0])
    theta, penalty = torch.cat([w, b[:, None]], 1), torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        step = 1e-9 * torch.randn(1, 5, dtype=torch.float64, generator=generator)
        along = y * (x.double()[0] @ step[0, :4] + step[0, 4])
        assert logistic._length(theta, step, y * decisions, along[None], c, penalty, torch.tensor([True]))[0] == 1


def _line(margins: list[float], along: list[float], c: float, step: float) -> tuple:
    """A problem of one unit that begins at theta = 0, and its objective by the step's length."""
    at, change = torch.tensor([margins], dtype=torch.float64), torch.tensor([along], dtype=torch.float64)
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def objective(scale: float) -> float:
        return (scale * step) ** 2 / 2 + c * torch.nn.functional.softplus(-(at + scale * change)).sum().item()

    return (zero, zero + step, at, change, torch.full_like(at, c), one, torch.tensor([True])), objective


def test_a_length_far_beyond_the_step_is_found():
    """The curvature is nothing where an image is far on the wrong side: by it alone the length would be 1e16."""
    given, objective = _line([-1e6], [1.0], c=1e10, step=1e-3)
    scale = logistic._length(*given).item()
    assert 1e6 < scale < 8e6
    assert objective(scale) < 1e-3 * objective(0)


def test_a_length_that_was_not_found_leads_downwards_still(monkeypatch):
    """Behind the last try lies one that was not made, and here leads up: another image comes on the wrong side."""
    monkeypatch.setattr(logistic, "TRIES", 2)
    given, objective = _line([-100.0, 2000.0], [1.0, -1000.0], c=1.0, step=0.1)
    assert objective(4.5) > objective(0)
    assert objective(logistic._length(*given).item()) < objective(0)


@pytest.mark.usefixtures("batch")
def test_silent_units_decide_nothing():
    """Sides of equal weight: every decision is 0 to the bit, not what rounding made of it."""
    is_target = np.arange(500) < 50
    weights = np.where(is_target, 5.0, 5 / 9)
    y = torch.from_numpy(np.where(is_target, 1.0, -1.0))
    *_, decisions = logistic.fit(torch.zeros(5, 500, 8), y, 1.0, torch.from_numpy(weights))
    assert (decisions == 0).all()


@pytest.mark.usefixtures("batch")
def test_a_solved_problem_stops_no_other():
    """One is solved from the start, by symmetry, and its Hessian fails in any precision: its units are one."""
    x, is_target, _ = _data(60, 3)
    # Sums of these are exact in any precision.
    column = np.repeat(2.0**20 * np.random.default_rng(0).integers(1000, 2000, 30), 2)
    x = torch.from_numpy(np.stack([column[:, None] * [1, 1, 1], x, x]))
    y = torch.from_numpy(np.stack([np.tile([-1.0, 1.0], 30)] + 2 * [np.where(is_target, 1.0, -1.0)]))
    ones = torch.ones_like(y)
    with pytest.raises(StudyError, match="did not converge"):
        logistic.fit(x[:1], y[1:2], 1.0, ones[:1])
    w, b, _ = logistic.fit(x, y, 1.0, ones)
    assert (w[0] == 0).all() and b[0] == 0
    torch.testing.assert_close(w[1:], logistic.fit(x[1:], y[1:], 1.0, ones[1:])[0])


def _watched(monkeypatch, name: str) -> list[tuple]:
    """Arguments and result of each call of a function of the module, in order."""
    function, calls = getattr(logistic, name), []

    def call(*arguments):
        result = function(*arguments)
        calls.append((arguments, result))
        return result

    monkeypatch.setattr(logistic, name, call)
    return calls


@pytest.mark.parametrize("large", [True, False])
def test_a_large_batch_keeps_its_hessians(monkeypatch, large):
    """Which pays where they cost most; a small one takes fewer steps instead."""
    monkeypatch.setattr(logistic, "LARGE", 0 if large else 2**62)
    hessians, steps = (_watched(monkeypatch, name) for name in ("_factors", "_length"))
    x, is_target, _ = _data(200, 20)
    w, _ = _fit(x, is_target, 1.0, np.ones(200))
    assert (len(hessians) < len(steps)) == large
    reference = _reference(1.0).fit(x.astype(np.float64), is_target)
    np.testing.assert_allclose(w, reference.coef_[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_float32_leads_a_large_batch_near_the_solution(monkeypatch, size):
    """However large activations are, it gets there before its steps are spent, and float64 has few left to take."""
    monkeypatch.setattr(logistic, "LARGE", 0)
    calls = _watched(monkeypatch, "_descend")
    x, is_target, _ = _data(300, 20, share=0.1)
    _fit(size * x, is_target, 1.0, np.ones(300))
    assert [arguments[0].dtype for arguments, _ in calls] == [torch.float32, torch.float64]
    for (*_, steps), (_, _, far, taken) in calls:
        assert not far.any()
        assert 0 < taken < steps
    assert calls[1][1][3] <= 8


def test_problems_that_take_longer_than_others_go_on_alone(monkeypatch):
    """Most are soon solved; of what is left too little for a large batch, each as if solved alone."""
    x, is_target, _ = _data(60, 5)
    x, y = torch.from_numpy(np.stack([x] * 7)), torch.from_numpy(np.where(is_target, 1.0, -1.0))
    C, ones = torch.tensor([1e-3] * 4 + [1e2, 1e4, 1e6], dtype=torch.float64), torch.ones(60, dtype=torch.float64)
    monkeypatch.setattr(logistic, "LARGE", 5 * 60 * 36)
    calls = _watched(monkeypatch, "_descend")
    w, b, decisions = logistic.fit(x, y, C, ones)
    assert [len(arguments[0]) for arguments, _ in calls][:3] == [7, 7, 3]
    for i in range(7):
        alone = logistic.fit(x[i : i + 1], y, C[i].item(), ones)
        torch.testing.assert_close(decisions[i : i + 1], alone[2], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(decisions[i], x[i].double() @ w[i] + b[i], rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e6])
def test_extreme_problems_converge_beside_each_other(size, C):
    """Separable or not, tiny or huge: predictions are those of scikit-learn's Newton solver.

    So are the decisions, but where a huge C and separable images let the solution grow without end but for its penalty.
    """
    parts = [_data(80, 6, seed, shift) for seed, shift in ((0, 0.0), (1, 0.5), (2, 30.0))]
    x = torch.from_numpy(size * np.stack([part[0] for part in parts]))
    y = torch.from_numpy(np.stack([np.where(part[1], 1.0, -1.0) for part in parts]))
    *_, decisions = logistic.fit(x, y, C, torch.ones_like(y))
    for i, (_, is_target, _) in enumerate(parts):
        reference = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000)
        expected = reference.fit(x[i].double().numpy(), is_target).decision_function(x[i].double().numpy())
        clear = np.abs(expected) > 0.01
        assert np.array_equal(decisions[i].numpy()[clear] > 0, expected[clear] > 0)
        if C <= 1:
            np.testing.assert_allclose(decisions[i], expected, rtol=1e-3, atol=1e-3)


def test_a_weight_of_zero_leaves_an_image_out():
    """The same solution as without the image, however far out it lies."""
    x, is_target, _ = _data(50, 7)
    x = x.astype(np.float64)
    x[10] = 1000
    weights = np.ones(50)
    weights[10] = 0
    rest = np.arange(50) != 10
    with_it, without = _fit(x, is_target, 1.0, weights), _fit(x[rest], is_target[rest], 1.0, weights[rest])
    np.testing.assert_allclose(with_it[0], without[0], atol=1e-7)
    np.testing.assert_allclose(with_it[1], without[1], atol=1e-7)


@pytest.mark.parametrize("solve", [_fit, _fit_dual])
def test_units_that_say_the_same_share_the_weight(solve):
    """A unit twice: the penalty makes both weights equal, where the unpenalised problem has no single solution."""
    x, is_target, _ = _data(60, 4)
    twice = np.concatenate([x, x], 1).astype(np.float64)
    w, _ = solve(twice, is_target, 1.0, np.ones(60))
    np.testing.assert_allclose(w[:4], w[4:], atol=1e-8)
    assert np.abs(w).max() > 0.1


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(("scale", "C"), [(1e-3, 1e6), (1.0, 1.0), (1.0, 1e4), (1e3, 1.0), (1e3, 1e4)])
def test_separable_data_converge(scale, C):
    """A plane between the sides: the penalty alone keeps the weights finite, and every image is on its side."""
    generator = np.random.default_rng(0)
    is_target = np.arange(40) < 15
    x = (generator.normal(size=(40, 5)) + 6 * is_target[:, None]) * scale
    w, b = _fit(x, is_target, C, np.ones(40))
    assert np.isfinite(w).all()
    assert np.array_equal(x @ w + b > 0, is_target)


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("kind", ["large", "offset", "heavy", "dead", "one image apart"])
def test_units_as_they_come_converge(kind):
    """The published probe does not standardise."""
    x, is_target, _ = _data(80, 20)
    x = x.astype(np.float64)
    match kind:
        case "large":
            x *= 1000
        case "offset":
            x += 300
        case "heavy":
            x = np.exp(3 * x)
        case "dead":
            x[:, ::2] = 0
        case "one image apart":
            x[0] *= 1e4
    w, b = _fit(x, is_target, 1.0, np.ones(80))
    y = np.where(is_target, 1.0, -1.0)
    gradient = w - x.T @ (y * expit(-y * (x @ w + b)))
    # At the minimum the gradient vanishes; 1e-8 asked for, and rounding of sums of up to 1e6.
    assert np.abs(gradient).max() < 1e-7


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("solve", [_fit, _fit_dual])
def test_activations_that_are_not_finite_are_an_error(solve):
    """An activation that is no number must not pass for a solution."""
    x, is_target, _ = _data(40, 5)
    x = x.astype(np.float64)
    x[3, 2] = np.nan
    with pytest.raises(StudyError, match="probe"):
        solve(x, is_target, 1.0, np.ones(40))


@pytest.mark.usefixtures("batch")
def test_too_few_steps_are_an_error():
    """The message says what to change."""
    x, is_target, _ = _data(40, 5)
    y, x = torch.from_numpy(np.where(is_target, 1.0, -1.0)), torch.from_numpy(x).double()
    ones = torch.ones(40, dtype=torch.float64)
    with pytest.raises(StudyError, match="did not converge in 2 Newton steps; choose a smaller C"):
        logistic.fit(x[None], y, 1.0, ones, steps=2)
    with pytest.raises(StudyError, match="did not converge in 2 Newton steps; choose a smaller C"):
        logistic.fit_dual(x @ x.T, y, 1.0, ones, steps=2)


def _published(x, is_target, draws, units, C, seed=0):
    group, generator = np.arange(x.shape[1]), np.random.default_rng(seed)
    return probes.published(x, group, is_target, draws=draws, units=units, C=C, generator=generator)


def _published_plainly(x, is_target, draws, units, C, seed=0) -> tuple[list[float], list[float]]:
    """Scores and accuracies of the draws, in a loop with scikit-learn."""
    generator = np.random.default_rng(seed)
    scores, accuracies = [], []
    for _ in range(draws):
        columns = generator.choice(x.shape[1], min(units, x.shape[1]), replace=False)
        part = x[:, columns].astype(np.float64)
        predicted = _reference(C).fit(part, is_target).predict(part)
        # What the prediction gave to the right side: 1 or 0, clipped.
        p = np.where(predicted == is_target, 1 - 2.2e-16, 2.2e-16)
        scores.append(math.exp(np.log(p).mean()))
        accuracies.append((predicted == is_target).mean())
    return scores, accuracies


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize(
    ("images", "size", "units", "C"), [(90, 60, 10, 1.0), (90, 60, 40, 0.1), (50, 200, 100, 1.0), (90, 11, 10, 100.0)]
)
def test_the_published_probe_equals_a_plain_loop(images, size, units, C):
    """With the same draws: equal predictions, and so the same score."""
    x, is_target, _ = _data(images, size, shift=0.3)
    found = _published(x, is_target, 6, units, C)
    scores, accuracies = _published_plainly(x, is_target, 6, units, C)
    # Counts of right predictions are equal; the rest is rounding.
    assert found.accuracy == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert found.score == pytest.approx(np.mean(scores), rel=1e-9)
    assert found.draws == 6


def test_the_published_probe_looks_at_its_group_alone():
    """The same draws as of an array that holds nothing else, wherever its units lie."""
    x, is_target, _ = _data(90, 60, shift=0.3)
    group = np.random.default_rng(1).permutation(60)[:30]
    settings = {"draws": 6, "units": 10, "C": 1.0}
    found = probes.published(x, group, is_target, **settings, generator=np.random.default_rng(0))
    assert found == _published(x[:, group], is_target, **settings)
    assert found != _published(x[:, np.sort(group)], is_target, **settings)


def test_the_published_probe_differs_between_draws():
    """Negative control: other draws, another score; the same generator, the same score."""
    x, is_target, _ = _data(90, 60, shift=0.3)
    assert _published(x, is_target, 6, 10, 1.0, seed=0) == _published(x, is_target, 6, 10, 1.0, seed=0)
    assert _published(x, is_target, 6, 10, 1.0, seed=0) != _published(x, is_target, 6, 10, 1.0, seed=1)


@pytest.mark.parametrize("units", [12, 100])
def test_a_cell_no_larger_than_a_draw_is_drawn_whole(units):
    """Then all draws are the same, and the score is that of one fit on the cell."""
    x, is_target, _ = _data(90, 12, shift=0.3)
    scores, accuracies = _published_plainly(x, is_target, 1, units, 1.0)
    found = _published(x, is_target, 5, units, 1.0)
    assert found.accuracy == pytest.approx(accuracies[0], abs=1e-12)
    assert found.score == pytest.approx(scores[0], rel=1e-9)


def test_the_published_score_by_hand():
    """Silent units predict the larger side. 1 of 4 wrong: the score is 2.2e-16 to the power 1/4; none wrong: 1."""
    silent = np.zeros((4, 2), np.float32)
    found = _published(silent, np.array([True, False, False, False]), 3, 5, 1.0)
    assert found.accuracy == 0.75
    assert found.score == pytest.approx(2.2e-16**0.25, rel=1e-9)
    is_target = np.array([True, True, False, False])
    found = _published(is_target[:, None].astype(np.float32) * 9, is_target, 3, 5, 1.0)
    assert (found.accuracy, found.score) == (1.0, pytest.approx(1.0, abs=1e-12))


def test_the_published_probe_is_scored_on_what_it_was_fitted_on():
    """Its flaw: noise is decoded perfectly where there are more units than images; the cross-fitted probe is at chance."""
    x, is_target, fold = _data(60, 300, shift=0.0, share=0.5)
    assert _published(x, is_target, 3, 100, 100.0).accuracy == 1.0
    # 60 images: a deviation of 0.065, three of them.
    assert abs(_crossfit(x, is_target, fold, 1.0).accuracy - 0.5) < 0.2


def _crossfit(x, is_target, fold, C) -> probes.CrossFitted:
    """The cross-fitted probe on all units, the same in every fold, as of a random group."""
    return probes.crossfit(x, [np.arange(x.shape[1])] * 5, is_target, fold, C=C)


def _pipeline(units: int, C: float):
    """The cross-fitted probe's fit: standardised over what it is fitted on, divided by the square root of the units."""
    root = FunctionTransformer(lambda x: x / np.sqrt(units))
    return make_pipeline(StandardScaler(), root, _reference(C, class_weight="balanced"))


def _crossfit_plainly(x, groups, is_target, fold, C) -> np.ndarray:
    """Each fold's decisions by its own units, in a loop with scikit-learn."""
    decision = np.empty(len(x))
    for k in np.unique(fold):
        train, part = fold != k, x[:, groups[k]].astype(np.float64)
        fitted = _pipeline(part.shape[1], C).fit(part[train], is_target[train])
        decision[~train] = fitted.decision_function(part[~train])
    return decision


def _groups(units: int, size: int) -> list[np.ndarray]:
    """Other units in every fold, of which each has most in common with the next."""
    order = np.random.default_rng(7).permutation(units)
    return [np.sort(np.roll(order, 2 * k)[:size]) for k in range(5)]


# There are 80 images: up to 40 units take the primal form, more take the dual.
@pytest.mark.parametrize("units", [20, 40, 41, 300])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("chunk", [None, 80 * 7])
@pytest.mark.parametrize("same", [True, False])
def test_the_crossfitted_probe_equals_a_plain_pipeline(monkeypatch, units, C, chunk, same):
    """Every measure, each fold with units of its own or all with the same; also at 7 units at a time."""
    if chunk is not None:
        monkeypatch.setattr(probes, "CHUNK", chunk)
        monkeypatch.setattr(logistic, "CHUNK", chunk)
    x, is_target, fold = _data(80, units + 10, shift=0.4)
    groups = [np.arange(units)] * 5 if same else _groups(units + 10, units)
    found = probes.crossfit(x, groups, is_target, fold, C=C)
    decision = _crossfit_plainly(x, groups, is_target, fold, C)
    p = 1 / (1 + np.exp(-decision))
    # Both are converged to 1e-8; seen: 1e-7.
    np.testing.assert_allclose(found.p, p, rtol=0, atol=2e-6)
    assert found.accuracy == pytest.approx(balanced_accuracy_score(is_target, decision > 0), abs=1e-12)
    assert found.auroc == pytest.approx(roc_auc_score(is_target, decision), abs=1e-12)
    sides = np.where(is_target, 0.5 / is_target.sum(), 0.5 / (~is_target).sum())
    assert found.log_loss == pytest.approx(log_loss(is_target, p, sample_weight=sides), abs=1e-5)
    assert found.C == (C,) * 5


@pytest.mark.parametrize("units", [20, 100])
def test_a_fold_is_predicted_by_its_own_units(units):
    """What the units outside a fold's group say is no part of its predictions; negative control: what those in it say."""
    x, is_target, fold = _data(80, units + 10)
    groups = _groups(units + 10, units)
    before = probes.crossfit(x, groups, is_target, fold, C=1.0).p
    left = np.setdiff1d(np.arange(units + 10), groups[2])
    changed = x.copy()
    changed[:, left] = np.random.default_rng(1).random((80, len(left)), np.float32)
    after = probes.crossfit(changed, groups, is_target, fold, C=1.0).p
    np.testing.assert_allclose(before[fold == 2], after[fold == 2], rtol=1e-6)
    assert not np.isclose(before[fold != 2], after[fold != 2], atol=1e-6).any()


def _chosen_plainly(x, is_target, fold, strengths) -> tuple[np.ndarray, list[float]]:
    """Nested cross-validation in plain loops: within the training folds each strength is scored by its log-loss.

    Units are standardised once over all training folds, which the images held out in the end are no part of.
    """
    decision, chosen = np.empty(len(x)), []
    for k in np.unique(fold):
        train = fold != k
        scaled = StandardScaler().fit(x[train].astype(np.float64)).transform(x.astype(np.float64)) / np.sqrt(x.shape[1])
        losses = []
        for C in strengths:
            inner = []
            for j in np.unique(fold[train]):
                fitted, scored = train & (fold != j), fold == j
                probe = _reference(C, class_weight="balanced").fit(scaled[fitted], is_target[fitted])
                side = is_target[scored]
                weights = np.where(side, 0.5 / side.sum(), 0.5 / (~side).sum())
                inner.append(log_loss(side, probe.predict_proba(scaled[scored])[:, 1], sample_weight=weights))
            losses.append(np.mean(inner))
        chosen.append(strengths[int(np.argmin(losses))])
        probe = _reference(chosen[-1], class_weight="balanced").fit(scaled[train], is_target[train])
        decision[~train] = probe.decision_function(scaled[~train])
    return decision, chosen


@pytest.mark.parametrize("units", [15, 120])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_choosing_the_strength_equals_plain_nested_loops(units, shift):
    """In both forms; noise wants a strong penalty, a clear class a weak one."""
    strengths = [0.01, 1.0, 100.0]
    x, is_target, fold = _data(60, units, shift=shift)
    decision, chosen = _chosen_plainly(x, is_target, fold, strengths)
    assert (0.01 in chosen) == (shift == 0)
    found = _crossfit(x, is_target, fold, strengths)
    np.testing.assert_allclose(found.p, 1 / (1 + np.exp(-decision)), rtol=0, atol=2e-6)


def test_a_list_of_one_strength_is_that_strength():
    """Nothing to choose."""
    x, is_target, fold = _data(60, 10)
    assert np.array_equal(_crossfit(x, is_target, fold, [3.0]).p, _crossfit(x, is_target, fold, 3.0).p)


@pytest.mark.parametrize("units", [10, 200])
def test_dead_units_change_nothing_but_their_number(units):
    """Units that never fire, or always the same: the probe of the rest, with the root of all units.

    sqrt(2 p) instead of sqrt(p) divides the activations by sqrt(2) more, which is half the C.
    """
    x, is_target, fold = _data(60, units)
    constant = np.tile(np.random.default_rng(5).random(units, np.float32) * 6, (60, 1))
    for silent in (np.zeros_like(x), constant):
        found = _crossfit(np.concatenate([x, silent], 1), is_target, fold, 2.0)
        np.testing.assert_allclose(found.p, _crossfit(x, is_target, fold, 1.0).p, rtol=0, atol=1e-6)


@pytest.mark.parametrize("units", [6, 200])
def test_a_unit_constant_over_the_training_images_is_ignored(units):
    """It differs in one image alone: that image's prediction must not explode."""
    x, is_target, fold = _data(60, units)
    changed = x.copy()
    changed[:, 0] = np.float32(0.1)
    same = _crossfit(changed, is_target, fold, 1.0).p
    changed[7, 0] = 50
    found = _crossfit(changed, is_target, fold, 1.0).p
    assert found[7] == pytest.approx(same[7], abs=1e-9)
    # Negative control: where image 7 is fitted on, the unit counts.
    assert not np.allclose(found[fold != fold[7]], same[fold != fold[7]], atol=1e-6)


@pytest.mark.parametrize("units", [10, 200])
def test_all_units_dead_is_chance(units):
    """Many cells of real networks: every probability is 1/2, and no measure tells more."""
    _, is_target, fold = _data(60, units)
    found = _crossfit(np.zeros((60, units), np.float32), is_target, fold, 1.0)
    np.testing.assert_allclose(found.p, 0.5, atol=1e-9)
    assert found.accuracy == pytest.approx(0.5)
    assert found.log_loss == pytest.approx(math.log(2))
    # Folds' intercepts differ in the last bits, and order images by fold.
    assert abs(found.auroc - 0.5) < 0.1


@pytest.mark.parametrize("units", [20, 500])
@pytest.mark.parametrize("strength", [1.0, [0.1, 10.0]])
def test_true_labels_are_read_and_permuted_ones_are_not(units, strength):
    """The negative control of every probe: labels permuted within the folds are at chance."""
    x, is_target, fold = _data(400 if units == 20 else 200, units, shift=1.0, share=0.5)
    assert _crossfit(x, is_target, fold, strength).accuracy > 0.9
    permuted, generator = is_target.copy(), np.random.default_rng(3)
    for k in range(5):
        permuted[fold == k] = generator.permutation(permuted[fold == k])
    # n binomial predictions: a deviation of 0.5 / sqrt(n); four of them.
    assert abs(_crossfit(x, permuted, fold, strength).accuracy - 0.5) < 4 * 0.5 / math.sqrt(len(x))


@pytest.mark.parametrize("units", [20, 200])
@pytest.mark.parametrize("strength", [1.0, [0.1, 10.0]])
def test_no_label_leaks_into_its_own_prediction(units, strength):
    """The labels of a fold turned over: its own predictions stay; those of the other folds do not.

    Folds are solved as one batch: when it shrinks at another step, Hessians and with them steps differ by rounding.
    """
    x, is_target, fold = _data(80, units)
    turned = np.where(fold == 2, ~is_target, is_target)
    before, after = (_crossfit(x, labels, fold, strength).p for labels in (is_target, turned))
    np.testing.assert_allclose(before[fold == 2], after[fold == 2], rtol=1e-9)
    assert not np.isclose(before[fold != 2], after[fold != 2], atol=1e-6).any()


def _standardised(x, train) -> tuple[np.ndarray, np.ndarray]:
    """Units standardised over training images and over the square root of their number, plainly; and by how much."""
    x = x.astype(np.float64)
    deviation = x[train].std(0)
    scale = np.zeros(x.shape[1])
    scale[deviation > 0] = 1 / (deviation[deviation > 0] * math.sqrt(x.shape[1]))
    return (x - x[train].mean(0)) * scale, scale


@pytest.mark.parametrize("chunk", [None, 60 * 7])
def test_a_gram_matrix_is_that_of_the_standardised_units(monkeypatch, chunk):
    """Against the plain definition, in chunks; with units that are dead, or nearly or wholly constant, in training."""
    if chunk is not None:
        monkeypatch.setattr(probes, "CHUNK", chunk)
    x, _, fold = _data(60, 300)
    x[:, :20] = 0
    # Active in one held-out image alone; so too, but for a trace in training; constant at a large value but for one image.
    x[3, :5], x[3, 5:10], x[7, 5:10] = 50, 50, 6e-8
    x[:, 10:15], x[3, 10:15] = 1000, 1001
    columns = np.random.default_rng(0).permutation(300)[:250]
    for k in range(5):
        rows = fold != k
        found, mean, scale = probes.gram_matrix(x, columns, rows)
        z, expected = _standardised(x[:, columns], rows)
        np.testing.assert_allclose(found, z[rows] @ z[rows].T, rtol=1e-6, atol=1e-9 * np.abs(z @ z.T).max())
        np.testing.assert_allclose(mean, x[rows][:, columns].mean(0, dtype=np.float64), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(scale, expected, rtol=1e-6)
        assert (scale == 0).any()


@pytest.mark.parametrize("units", [20, 200])
def test_no_held_out_image_touches_another(units):
    """An image's activations change its own prediction and those of the other folds, which are fitted on it."""
    x, is_target, fold = _data(80, units)
    changed = x.copy()
    changed[4] += 3
    before, after = (_crossfit(a, is_target, fold, 1.0).p for a in (x, changed))
    own = fold == fold[4]
    moved = np.abs(before - after) > 1e-9
    assert np.array_equal(np.flatnonzero(moved & own), [4])
    assert moved[~own].all()


@pytest.mark.parametrize("units", [20, 200])
def test_the_scale_of_a_unit_does_not_matter(units):
    """Units are standardised: each in its own measure, shifted and stretched, gives the same predictions."""
    x, is_target, fold = _data(80, units)
    generator = np.random.default_rng(0)
    stretched = x * 2.0 ** generator.integers(-8, 8, units) + generator.normal(size=units)
    found, same = (_crossfit(a, is_target, fold, 1.0).p for a in (stretched, x))
    np.testing.assert_allclose(found, same, atol=1e-7)


def test_a_fold_that_takes_a_whole_side_is_an_error():
    """Without images of the target among the training folds there is nothing to fit."""
    x, is_target, _ = _data(40, 5)
    fold = np.where(is_target, 0, 1 + np.arange(40) % 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StudyError, match="fold"):
            _crossfit(x, is_target, fold, 1.0)


@pytest.fixture
def group(tmp_path):
    """Activations of a target and two others, 10 images each and 12 units, in two cells that differ from fold to fold;
    runs the job of a cell. The network's layers have 12 and 8 units.
    """
    x, _, _ = _data(30, 12, share=1 / 3, shift=2.0)
    # Ids of the target lie between those of the others.
    ids = {"target": np.arange(10, 20), "one": np.arange(10), "two": np.arange(20, 30)}
    file = {name: str(tmp_path / f"{name}.parquet") for name in (*ids, "cells", "layers", "out")}
    for (name, own), values in zip(ids.items(), x.reshape(3, 10, 12), strict=True):
        write_activations(file[name], values, image_id=own, fold=own % 5)
    columns = dict.fromkeys(cells_job.FOLDS_SCHEMA.names, [0] * 12)
    columns |= {"unit": list(range(12)), "cell": ["s0m0", "s1m0"] * 6, "selectivity_bin": [0, 1] * 6}
    # s1m0 by fold: the last six units, from which the first f are exchanged for others.
    members = [np.array([*range(f), *range(6 + f, 12)]) for f in range(5)]
    for f, units in enumerate(members):
        columns[f"cell_fold{f}"] = np.where(np.isin(np.arange(12), units), "s1m0", "s0m0")
    parquet.write(file["cells"], columns, cells_job.FOLDS_SCHEMA)
    layers = [
        {"layer": name, "node": name, "module": name, "depth": i, "axes": "features", "shape": [units]}
        | {"units": units}
        for i, (name, units) in enumerate({"l": 12, "small": 8, "smaller": 4}.items())
    ]
    parquet.write(file["layers"], layers, networks_job.LAYERS)

    def run(cell: str, seed: int = 0, kind: str = "cell", crossfit: dict | None = None, layers=("l",), **changes):
        job.probe(
            path_to_probe=file["out"],
            path_to_cells=file["cells"],
            path_to_layers=file["layers"],
            path_to_target=file["target"],
            paths_to_others=[file["one"], file["two"]],
            network="n",
            layer="l",
            class_id="t",
            cell=cell,
            kind=kind,
            seed=seed,
            published={"draws": 4, "units": 3, "C": 1.0} | changes,
            crossfit=crossfit,
            layers=layers,
            cells=2,
        )
        (row,) = parquet.read(file["out"], job.SCHEMA, optional=job.OPTIONAL).to_pylist()
        return row

    return SimpleNamespace(run=run, x=x, members=members, file=file)


CROSSFIT = {"C": 1.0, "draws": 3}


def test_the_job_fits_the_cells_units(group):
    """One row: the target's images against all others'; each fold by the units of its own grid; images in order."""
    row = group.run("s1m0", crossfit=CROSSFIT)
    assert (row["network"], row["layer"], row["class_id"], row["cell"]) == ("n", "l", "t", "s1m0")
    assert (row["units"], row["draws"], row["chance"]) == (6, 4, 0.5)
    assert row["chance_majority"] == pytest.approx(2 / 3)
    assert [i["image_id"] for i in row["held_out"]] == list(range(30))
    assert [i["fold"] for i in row["held_out"]] == [i % 5 for i in range(30)]
    assert [i["y"] for i in row["held_out"]] == [0] * 10 + [1] * 10 + [0] * 10
    is_target, fold = np.arange(30) < 10, np.arange(30) % 5
    found = probes.crossfit(group.x, group.members, is_target, fold, C=1.0)
    by_id = np.concatenate([found.p[10:20], found.p[:10], found.p[20:]])
    assert [i["p"] for i in row["held_out"]] == pytest.approx(by_id.tolist(), abs=1e-12)
    assert (row["accuracy"], row["auroc"], row["log_loss"]) == (found.accuracy, found.auroc, found.log_loss)
    assert row["accuracy"] > 0.8
    # Six units are the smallest cell, too, so that every draw is the cell.
    assert (row["units_fixed"], row["auroc_fixed"]) == (6, pytest.approx(found.auroc, abs=1e-12))
    # The published probe has the units of the grid of all images.
    whole = _published(group.x[:, 1::2], is_target, 1, 6, 1.0)
    assert group.run("s1m0", units=6)["score_published"] == pytest.approx(whole.score)


def test_the_job_probes_random_groups_alike(group):
    """Their units are the same in every fold."""
    row = group.run("random0", kind="random", crossfit=CROSSFIT)
    units = groups_job.find(
        group.file["cells"], "random0", "random", network="n", layer="l", class_id="t", seed=0
    ).units
    found = probes.crossfit(group.x, [units] * 5, np.arange(30) < 10, np.arange(30) % 5, C=1.0)
    assert (row["accuracy"], row["log_loss"]) == (found.accuracy, pytest.approx(found.log_loss, abs=1e-12))


def test_without_a_crossfitted_probe_its_columns_are_missing(group):
    """And nothing else is; grids of folds and the other layers are not looked at."""
    with_it, without = group.run("s1m0", crossfit=CROSSFIT), group.run("s1m0", layers=())
    assert {name for name, value in without.items() if value is None} == set(job.OPTIONAL)
    assert all(with_it[name] is not None for name in job.OPTIONAL)
    assert {k: v for k, v in with_it.items() if k not in job.OPTIONAL} == {
        k: v for k, v in without.items() if k not in job.OPTIONAL
    }
    table = parquet.read(group.file["cells"], cells_job.SCHEMA)
    parquet.write(group.file["cells"], dict(zip(table.column_names, table.columns, strict=True)), cells_job.SCHEMA)
    assert group.run("s1m0", layers=()) == without


def test_the_fixed_number_is_of_the_smallest_cell_of_the_studied_layers(group):
    """Layers of 12, 8 and 4 units in two cells; at most 100."""
    for layers, units in {("l",): 6, ("l", "small"): 4, ("l", "small", "smaller"): 2}.items():
        assert group.run("s1m0", crossfit=CROSSFIT, layers=layers)["units_fixed"] == units


def test_cells_of_unequal_size_are_refused(group):
    """A file from elsewhere: the cells of a grid are of one size in every fold."""
    table = parquet.read(group.file["cells"], cells_job.FOLDS_SCHEMA)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    columns["cell_fold3"] = ["s0m0"] * 7 + ["s1m0"] * 5
    parquet.write(group.file["cells"], columns, cells_job.FOLDS_SCHEMA)
    with pytest.raises(StudyError, match=r"s1m0 differs in size between folds.*make it again"):
        group.run("s1m0", crossfit=CROSSFIT)


def test_the_jobs_draws_depend_on_seed_and_place(group):
    """The same again in whatever order; another seed, other draws."""
    settings = {"draws": 1, "crossfit": CROSSFIT, "layers": ("l", "smaller")}
    first = group.run("s0m0", **settings)
    group.run("s1m0", **settings)
    assert group.run("s0m0", **settings) == first
    again = [group.run("s0m0", **settings | {"units": 2}, seed=seed) for seed in range(8)]
    assert len({row["score_published"] for row in again}) > 1
    assert len({row["auroc_fixed"] for row in again}) > 1
    # What is not drawn does not depend on it.
    assert len({row["auroc"] for row in again}) == 1


def _fixed(x, groups, is_target, fold, units, draws=4, C=1.0, seed=0) -> float:
    return probes.crossfit_fixed(
        x, groups, is_target, fold, units=units, draws=draws, C=[C] * 5, generator=np.random.default_rng(seed)
    )


@pytest.mark.parametrize(("size", "units"), [(60, 10), (60, 45)])
def test_the_probe_at_a_fixed_number_of_units_equals_a_plain_loop(size, units):
    """In both forms: the mean over draws of the AUROC of so many of each fold's units."""
    x, is_target, fold = _data(80, size + 10, shift=0.3)
    groups = _groups(size + 10, size)
    generator = np.random.default_rng(0)
    drawn = [[generator.choice(groups[k], units, replace=False) for _ in range(4)] for k in range(5)]
    expected = [
        roc_auc_score(is_target, _crossfit_plainly(x, [drawn[k][i] for k in range(5)], is_target, fold, 1.0))
        for i in range(4)
    ]
    assert np.std(expected) > 0
    assert _fixed(x, groups, is_target, fold, units) == pytest.approx(np.mean(expected), abs=1e-9)


def test_each_folds_own_strength_serves_its_draws():
    """What was chosen inside the training folds of one fold is no other's."""
    x, is_target, fold = _data(80, 30, shift=0.5)
    groups, C = [np.arange(30)] * 5, [0.01, 1.0, 100.0, 1.0, 0.01]
    found = probes.crossfit_fixed(
        x, groups, is_target, fold, units=30, draws=1, C=C, generator=np.random.default_rng(0)
    )
    decision = np.select([fold == k for k in range(5)], [_crossfit_plainly(x, groups, is_target, fold, c) for c in C])
    assert found == pytest.approx(roc_auc_score(is_target, decision), abs=1e-12)


def test_a_group_drawn_whole_is_the_group():
    """All its draws are one; more units are read more easily, which is why layers are compared at one number."""
    x, is_target, fold = _data(80, 30, shift=0.5)
    groups = [np.arange(30)] * 5
    whole = _crossfit(x, is_target, fold, 1.0).auroc
    assert _fixed(x, groups, is_target, fold, units=30) == pytest.approx(whole, abs=1e-12)
    assert _fixed(x, groups, is_target, fold, units=4, draws=20) < whole - 0.05


def _strips(found) -> np.ndarray:
    """Means over the cells of a strip [strips, (accuracy, AUROC)]."""
    return np.reshape([(row["accuracy"], row["auroc"]) for row in found], (4, 4, 2)).mean(1)


def _interval(worlds: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over worlds, and half of its interval, which a true mean leaves once in ten thousand times."""
    worlds = np.array(worlds)
    half = stats.t.ppf(1 - 0.5e-4, len(worlds) - 1) * worlds.std(0, ddof=1) / math.sqrt(len(worlds))
    return worlds.mean(0), half


def _permuted(seed: int) -> tuple:
    """Images of five classes that drive the units, all of which share some noise; labels permuted within the folds."""
    generator = np.random.default_rng([9, seed])
    label, fold = np.arange(150) % 3, np.arange(150) // 3 % 5
    drive = generator.normal(size=(3, 400))[label] + generator.normal(size=(150, 5)) @ generator.normal(size=(5, 400))
    x = np.maximum(drive + generator.normal(size=(150, 400)), 0).astype(np.float32)
    is_target = label == 0
    for k in range(5):
        is_target[fold == k] = generator.permutation(is_target[fold == k])
    return x, label == 0, is_target, fold


@pytest.mark.parametrize(("units", "others", "worlds"), [(256, 100, 20), (256, 450, 12), (4096, 100, 8)])
def test_the_crossfitted_probe_reads_nothing_from_noise(units, others, worlds):
    """Strips and cells are at chance, by both measures."""
    found = [list(leak.read(*leak.noise(units, 50, others, world), "fold")) for world in range(worlds)]
    for mean, half in (
        _interval([_strips(world) for world in found]),
        _interval([[(row["accuracy"], row["auroc"]) for row in world] for world in found]),
        _interval([_strips(world).mean(0) for world in found]),
    ):
        assert (np.abs(mean - 0.5) < half).all()
    # Narrow enough to tell: the last one is of all cells.
    assert (half < 0.05).all()


@pytest.mark.parametrize(("units", "worlds", "s0m0"), [(256, 12, 0.58), (4096, 6, 0.85)])
def test_the_retired_probe_reads_noise(units, worlds, s0m0):
    """The warning: with a grid of all images, which has seen those that are predicted, the outer strips read what is
    not there, s0m0 most of all, and the middle ones far less than chance. Here by the plain definition.
    """
    found = []
    for world in range(worlds):
        x, is_target, fold = leak.noise(units, 50, 100, world)
        t, o = (x[side].mean(0, dtype=np.float64) for side in (is_target, ~is_target))
        accuracy = []
        for strip in np.array_split(np.argsort(t - o), 4):
            cells = np.array_split(strip[np.argsort((t + o)[strip])], 4)
            accuracy.append([_crossfit(x[:, cell], is_target, fold, 10.0).accuracy for cell in cells])
        found.append(accuracy)
        if world < 2:
            by_command = [row["accuracy"] for row in leak.read(x, is_target, fold, "grid")]
            # Coordinates are rounded to float32: a unit at a border may be in the next cell.
            np.testing.assert_allclose(by_command, np.ravel(accuracy), atol=0.02)
    mean, half = _interval(np.mean(found, 2))
    assert ((mean - half)[[0, 3]] > 0.5).all()
    assert ((mean + half)[[1, 2]] < 0.45).all()
    assert np.mean(found, 0)[0, 0] > s0m0


def test_a_real_class_is_read_and_permuted_labels_are_not():
    """Units that many images share, and that know three classes; with a grid of all images permuted labels are read."""
    true, permuted, retired = [], [], []
    for seed in range(12):
        x, is_class, is_target, fold = _permuted(seed)
        permuted.append(_strips(leak.read(x, is_target, fold, "fold")))
        if seed < 4:
            true.append(_strips(leak.read(x, is_class, fold, "fold")))
            retired.append(_strips(leak.read(x, is_target, fold, "grid")))
    mean, half = _interval(permuted)
    assert (np.abs(mean - 0.5) < half).all()
    assert (half < 0.1).all()
    assert (np.mean(true, 0)[[0, 3]] > 0.9).all()
    assert (np.abs(np.mean(retired, 0) - 0.5) > 0.05).any()


def test_pseudo_targets_of_many_classes_are_at_chance():
    """Fifty classes that drive the units, and images drawn from all of them.

    Were a class that gives an image in one fold to give none in the others, a probe would learn it as one of the
    others, and read the outer strips below chance, at 0.43 and 0.42.
    """
    class_id, fold = np.repeat(np.arange(50), 20), np.tile(np.arange(5), 200)
    found = []
    for world in range(20):
        generator = np.random.default_rng(world)
        means, noise = generator.normal(size=(50, 128)), generator.normal(size=(1000, 128))
        x = np.maximum(0, means[class_id] + noise).astype(np.float32)
        drawn = folds.pseudo_target(class_id, fold, 50, str(world))
        found.append(_strips(leak.read(x, drawn, fold, "fold"))[:, 1])
    mean, half = _interval(found)
    assert (np.abs(mean - 0.5) < half).all()
    # Narrow enough to see what turns that go on would do.
    assert (half < 0.04).all()


def test_the_figure_of_the_leak_is_drawn(tmp_path, monkeypatch, capsys):
    """`make leak`, of small worlds: a picture, and its numbers printed."""
    monkeypatch.setattr(leak, "UNITS", (64, 80))
    monkeypatch.setattr(leak, "OTHERS", 50)
    monkeypatch.setattr("sys.argv", ["leak", str(tmp_path / "leak.png"), "--worlds", "2"])
    leak.main()
    assert (tmp_path / "leak.png").read_bytes()[:4] == b"\x89PNG"
    printed = capsys.readouterr().out
    assert all(text in printed for text in (*leak.PROCEDURES.values(), " 64 ", " 80 "))


def test_rounding_does_not_break_ties():
    """Decisions that are equal but for the solver's tolerance count one half; by hand, of two images against two.

    Target 1 and 0, others 0 and -1: pairs won 1, 1, tied, 1, so 3.5 of 4. A true difference counts in full.
    """
    is_target = np.array([True, True, False, False])
    for error in (0.0, 1e-9, -1e-9):
        assert probes.auroc(np.array([1, error, 0, -1]), is_target) == 3.5 / 4
    assert probes.auroc(np.array([1, 1e-3, 0, -1]), is_target) == 1
    assert probes.auroc(np.array([1, -1e-3, 0, -1]), is_target) == 3 / 4
