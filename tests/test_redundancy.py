"""Redundancy: where a class can still be read under an ablation, on networks whose answer is known, and through the job."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

from conftest import randomised, through_jobs
from jobs import groups, networks, tables
from jobs import redundancy as job
from readout import StudyError, activations, cells, cuts, layers, models, probes, redundancy, tracing
from readout.folds import FOLDS
from runtime import parquet
from workflow import ROOT, TINY, Project

# ---- networks whose answer is known


IDENTITY = np.eye(4)


class Made(nn.Module):
    """Three dense layers of 8, 4 and 4 units, for images [3, 2, 2]; the first puts out the red and green pixels.

    `second` [4, 8], `biases` [4], `third` [4, 4] and `score` [4] are weights; class a has the score of the latter, the
    others have 5 and 0.
    """

    def __init__(self, second, biases=(0,) * 4, third=IDENTITY, score=(1, 1, 1, 1)):
        super().__init__()
        self.dense = nn.ModuleList([nn.Linear(12, 8), nn.Linear(8, 4), nn.Linear(4, 4), nn.Linear(4, 3)])
        self.relu = nn.ModuleList(nn.ReLU(inplace=True) for _ in range(3))
        given = [np.eye(8, 12), second, third, [score, [0] * 4, [0] * 4]]
        with torch.no_grad():
            for dense, weight in zip(self.dense, given, strict=True):
                dense.weight.copy_(torch.tensor(np.array(weight), dtype=torch.float32))
                dense.bias.zero_()
            self.dense[1].bias.copy_(torch.tensor(biases, dtype=torch.float32))
            self.dense[3].bias[1] = 5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        for dense, relu in zip(self.dense[:3], self.relu, strict=True):
            x = relu(dense(x))
        return self.dense[3](x)


def reads(*rows):
    """Weights [4, 8] of units that read some of the first layer's, each by its weight."""
    weights = np.zeros((4, 8))
    for row, read in zip(weights, rows, strict=False):
        for unit, weight in read.items():
            row[unit] = weight
    return weights


KINDS = {
    # s1m1, the units 0 and 1, is all that is read.
    "group alone": {"second": reads({0: 1}, {1: 1}, {0: 1, 1: 1}), "biases": (0, 0, 0, 1)},
    # Units 2 and 3 do as well; the next layer has both, the last one the first two alone.
    "lost on the way": {"second": reads({0: 1}, {2: 1}), "third": np.diag([1, 0, 0, 0])},
    "sum": {"second": reads({0: 1}, {2: 1})},
    # min(1, u0 + u2 - 5) as the difference of two units: either is enough.
    "either": {"second": reads({0: 1, 2: 1}, {0: 1, 2: 1}), "biases": (-5, -6, 0, 0), "score": (8, -8, 0, 0)},
    "never read": {"second": reads({2: 1}, {3: 1})},
}


def pictures(a, b):
    """Images [N, 3, 2, 2] of both classes from the values [N, 8] of red and green."""
    return {
        name: torch.cat([torch.tensor(np.array(x), dtype=torch.float32), torch.zeros(len(x), 4)], 1).view(-1, 3, 2, 2)
        for name, x in (("a", a), ("b", b))
    }


def noise(number):
    """The values of units 4 to 7 in an image, the same in both classes."""
    return [1 + number % 3, 1 + number % 2, 1 + number % 4, 2]


# Units 0 and 1 are 10 in class a and 0 in class b, units 2 and 3 are 8 and 0: s1m1 and s1m0.
PLAIN = pictures(*([[10 * on, 10 * on, 8 * on, 8 * on, *noise(i)] for i in range(10)] for on in (1, 0)))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The grid of a network of a kind, with files of its own, for its images."""
    count = itertools.count()

    def make(kind, images=PLAIN, **weights):
        weights = weights or KINDS[kind]
        monkeypatch.setitem(models.BUILDERS, "made", lambda outputs: Made(**weights))
        (tmp_path / (folder := str(next(count)))).mkdir()
        return through_jobs(tmp_path / folder, "made", Made(**weights), "dense1", images)

    return make


def run(study, **changes):
    """Rows of the job by group, intervention and place."""
    path = str(study.tmp / "redundancy.parquet")
    given = {"interventions": ["zero", "mean"], "C": 10.0, "seed": 0} | changes
    job.look(study.grid, path_to_redundancy=path, **given)
    rows = parquet.read(path, job.SCHEMA, optional=job.OPTIONAL).to_pylist()
    found = {(row["group"], row["intervention"], row["place"]): row for row in rows}
    assert len(found) == len(rows)
    return found


# AUROC after at the remaining units, the next and the last layer; change at the next and the last; loss and use: under
# zero and under the mean, which is 5 and 4 for all images. z of class a is its score less log(exp(5) + 1), so that the
# gap is a difference of scores.
EXPECTED = {
    # Activations (10 10 20 1) and (0 0 0 1): of the two together 2 x 10 x 10 x (25 + 25 + 100) = 3000 from their mean.
    # Zero moves the first by 600 each, the mean either by 150.
    "group alone": ((1, 0.5, 0.5), {"zero": (2, 2, 1, 0.5), "mean": (1, 1, 1, 0.5)}),
    # (10 8) and (0 0) are 20 x (25 + 16) from their mean; zero moves the first by 100 each, the mean either by 25.
    "lost on the way": ((1, 1, 0.5), {"zero": (50 / 41, 2, 1, 0.5), "mean": (25 / 41, 1, 1, 0.5)}),
    # The score is 18 or 0, and 8 or 0 under zero, 13 or 5 under the mean.
    "sum": ((1, 1, 1), {"zero": (50 / 41, 50 / 41, 10 / 18, 5 / 18), "mean": (25 / 41, 25 / 41, 10 / 18, 5 / 18)}),
    # u0 + u2 is 18 or 0: (13 12) and (0 0), 20 x (6.5^2 + 36) from their mean. Under zero it is 8: (3 2), moved by 200
    # each. Under the mean it is 13: (8 7), moved by 50, or 5, where both are just shut. The score stays 8 or 0.
    "either": ((1, 1, 1), {"zero": (2000 / 1565, 2000 / 1565, 0, 0), "mean": (500 / 1565, 500 / 1565, 0, 0)}),
    "never read": ((1, 1, 1), {"zero": (0, 0, 0, 0), "mean": (0, 0, 0, 0)}),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_where_a_class_is_read_by_hand(made, kind):
    """What is needed, what is made up for and what is never read; before the ablation the class is read everywhere."""
    found = run(made(kind))
    after, by_intervention = EXPECTED[kind]
    for intervention, (*change, loss, use) in by_intervention.items():
        rows = [found["s1m1", intervention, place] for place in job.PLACES]
        assert [row["auroc_before"] for row in rows] == [1, 1, 1]
        assert [row["auroc_after"] for row in rows] == list(after)
        assert [row["change"] for row in rows] == pytest.approx([0, *change], abs=1e-6)
        for row in rows:
            assert (row["separation_loss"], row["use"]) == pytest.approx((loss, use), abs=1e-5)


def test_what_a_row_says(made):
    """Two groups, two interventions, three places; units of the group, and units that the probe looks at."""
    study = made("sum")
    assert job.look(
        study.grid, path_to_redundancy=str(study.tmp / "r.parquet"), interventions=["zero", "mean"], C=10.0, seed=0
    ) == ("4 ablations, 3 places")
    found = run(study)
    assert list(found) == list(itertools.product(("s1m1", "random0"), ("zero", "mean"), job.PLACES))
    same = {"network": "made", "layer": "dense1", "class_id": "a", "units": 2}
    assert all(row | same == row for row in found.values())
    assert [row["kind"] for row in found.values()] == ["cell"] * 6 + ["random"] * 6
    assert [(row["at"], row["units_at"]) for row in found.values()] == [("dense1", 6), ("dense2", 4), ("dense3", 4)] * 4


def test_the_random_group_is_that_of_the_controls(made):
    """The draw of `random0`, here of units 0 and 4 or others; its loss is what the scores say."""
    study = made("sum")
    for seed in range(4):
        at = {"network": "made", "layer": "dense1", "class_id": "a", "seed": seed}
        units = groups.find(study.cells, "random0", "random", **at).units.tolist()
        row = run(study, seed=seed)["random0", "zero", "last"]
        lost = 10 * (0 in units) + 8 * (2 in units)
        assert row["separation_loss"] == pytest.approx(lost / 18, abs=1e-5)
        assert row["auroc_after"] == (0.5 if lost == 18 else 1)


@pytest.mark.parametrize(
    ("layer", "places"),
    [
        ("dense2", {"remaining": "dense2", "next": "dense3", "last": "dense3"}),
        ("dense3", {"remaining": "dense3"}),
    ],
)
def test_the_next_layer_may_be_the_last_or_not_be_there(tmp_path, monkeypatch, layer, places):
    """Where both are one they say the same; behind the network's last layer there is nowhere to look."""
    weights = KINDS["sum"]
    monkeypatch.setitem(models.BUILDERS, "made", lambda outputs: Made(**weights))
    found = run(through_jobs(tmp_path, "made", Made(**weights), layer, PLAIN))
    rows = [row for (group, intervention, _), row in found.items() if (group, intervention) == ("s1m1", "zero")]
    assert {row["place"]: row["at"] for row in rows} == places
    alike = [row | {"place": ""} for row in rows if row["place"] != "remaining"]
    assert all(row == alike[0] for row in alike)


# ---- an independent definition


def noisy(shift, seed):
    """Images of 10 a class, whose units 0 to 3 are shifted in class a."""
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 100, (2, 10, 8))
    values[0, :, :4] += shift
    return pictures(*values)


def drawn(seed):
    """Weights that mix all units."""
    generator = np.random.default_rng(seed)
    return {
        "second": generator.normal(size=(4, 8)).round(2),
        "biases": (20,) * 4,
        "third": generator.normal(size=(4, 4)).round(2) + np.eye(4),
        "score": generator.normal(size=4).round(2),
    }


def plainly(study, weights, value, *, unablated_training=False):
    """AUROC before and after by place, change, and loss and use, in numpy and scikit-learn; `value` replaces s1m1."""
    files = [parquet.read(study.activations[c]).to_pydict() for c in "ab"]
    u = np.concatenate([np.stack(file["activation"]) for file in files]).astype(float)
    fold = np.concatenate([file["fold"] for file in files])
    y = np.arange(20) < 10

    def forward(u):
        second = np.maximum(u @ weights["second"].T + weights["biases"], 0)
        return {"next": second, "last": np.maximum(second @ weights["third"].T, 0)}

    def decisions(train, test, rows):
        mean, deviation = train[rows].mean(0), train[rows].std(0)
        scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0) / math.sqrt(train.shape[1])
        probe = LogisticRegression(C=10.0, class_weight="balanced", tol=1e-10, solver="newton-cholesky")
        return probe.fit((train[rows] - mean) * scale, y[rows]).decision_function((test[~rows] - mean) * scale)

    before = {"remaining": u} | forward(u)
    auroc = {name: (np.empty(20), np.empty(20)) for name in before}
    change = dict.fromkeys(("next", "last"), 0.0)
    # Those of the other classes are the same in all images.
    score, moved = before["last"] @ weights["score"], np.empty(20)
    for f in range(5):
        rows = fold != f
        grid = cells.grid(*cells.coordinates(u[rows & y].mean(0), u[rows & ~y].mean(0)), (2, 2))
        group = (grid[0] == 1) & (grid[1] == 1)
        ablated = u.copy()
        ablated[:, group] = 0 if value == "zero" else (u[rows & y].mean(0) + u[rows & ~y].mean(0))[group] / 2
        after = {"remaining": u[:, ~group]} | forward(ablated)
        for name, x in before.items():
            auroc[name][0][~rows] = decisions(x, x, rows)
            train = x if unablated_training and name != "remaining" else after[name]
            auroc[name][1][~rows] = decisions(train, after[name], rows)
        moved[~rows] = (after["last"] @ weights["score"] - score)[~rows]
        for name in change:
            change[name] += np.square(after[name] - before[name])[~rows].sum()
    auroc = {name: [roc_auc_score(y, d.round(6)) for d in pair] for name, pair in auroc.items()}
    change = {name: part / np.square(before[name] - before[name].mean(0)).sum() for name, part in change.items()}
    gap = score[y].mean() - score[~y].mean()
    loss, use = moved[~y].mean() - moved[y].mean(), (np.abs(moved[y]).mean() + np.abs(moved[~y]).mean()) / 2
    return auroc, change, (loss / gap, use / gap) if gap > 0 else (None, None)


@pytest.mark.parametrize("value", ["zero", "mean"])
@pytest.mark.parametrize("seed", range(3))
def test_the_job_against_plain_loops(made, seed, value):
    """Grids and replacements of each fold, probes of the ablated images outside it: numpy and scikit-learn."""
    weights = drawn(seed)
    study = made(None, noisy(40, seed), **weights)
    found = run(study)
    auroc, change, (loss, use) = plainly(study, weights, value)
    for place, (before, after) in auroc.items():
        row = found["s1m1", value, place]
        assert (row["auroc_before"], row["auroc_after"]) == pytest.approx((before, after), abs=1e-9)
        assert row["change"] == pytest.approx(change.get(place, 0), rel=1e-5)
        assert row["separation_loss"] == pytest.approx(loss, abs=1e-4)
        assert row["use"] == pytest.approx(use, abs=1e-4)


def test_a_probe_fitted_on_images_that_are_not_ablated_says_something_else(made):
    """Negative control of the above: on all that was drawn together it reads less of what the ablated network holds."""
    right, wrong = [], []
    for seed in range(6):
        weights = drawn(seed)
        study = made(None, noisy(40, seed), **weights)
        for found, how in ((right, False), (wrong, True)):
            found.append(plainly(study, weights, "zero", unablated_training=how)[0]["next"][1])
    assert right != wrong
    assert np.mean(right) > np.mean(wrong) + 0.03


# ---- null worlds


def test_units_that_remain_tell_nothing_of_noise():
    """Under permuted labels: 0.5 with the grids of each fold. With the grid of all images the rest reads less."""
    generator = np.random.default_rng(0)
    is_target = np.arange(95) < 50
    fold = np.concatenate([np.arange(50) % 5, np.arange(45) % 5])
    folds, whole = [fold != f for f in range(FOLDS)], [np.ones(95, bool)] * FOLDS
    areas = []
    for _ in range(60):
        x = np.maximum(generator.normal(size=(95, 400)), 0).astype(np.float32)

        def rest(rows, x=x):
            means = (x[rows & side].mean(0, dtype=float) for side in (is_target, ~is_target))
            s, m = cells.grid(*cells.coordinates(*means), (4, 4))
            return np.flatnonzero((s != 3) | (m != 3))

        areas.append(
            [probes.crossfit(x, list(map(rest, seen)), is_target, fold, C=10.0).auroc for seen in (folds, whole)]
        )
    honest, seen = np.transpose(areas)
    error = lambda values: values.std(ddof=1) / math.sqrt(len(values))  # noqa: E731
    assert abs(honest.mean() - 0.5) < 3 * error(honest)
    assert (honest - seen).mean() > 4 * error(honest - seen)


def test_permuted_labels_are_at_chance_everywhere(made):
    """The job itself, on images of two classes that do not differ: 0.5 before and after, at every place."""
    before, after = [], []
    for seed in range(8):
        found = run(made(None, noisy(0, seed), **drawn(seed)), interventions=["mean"])
        before.append([row["auroc_before"] for row in found.values()])
        after.append([row["auroc_after"] for row in found.values()])
    for values in (np.array(before).mean(1), np.array(after).mean(1)):
        assert abs(values.mean() - 0.5) < 3 * values.std(ddof=1) / math.sqrt(len(values))


# ---- the mathematics


@settings(max_examples=12)
@given(st.integers(0, 1000), st.sampled_from([3, 60]), st.sampled_from([10.0, [0.1, 10.0], (1.0,)]))
def test_folds_predicted_one_by_one_are_the_cross_fitted_probe(seed, units, C):
    """In the primal and in the dual form, with a C given and with one chosen."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(40, units)).astype(np.float32)
    is_target, fold = np.arange(40) % 2 == 0, np.arange(40) // 2 % 5
    of_folds = [np.sort(generator.choice(units, units // 2 + 1, replace=False)) for _ in range(5)]
    whole = probes.crossfit(x, of_folds, is_target, fold, C=C)
    for f in range(5):
        decision = probes.predict_fold(x, of_folds[f], is_target, fold, f, C=C)
        assert 1 / (1 + np.exp(-decision)) == pytest.approx(whole.p[fold == f], abs=1e-7)
        # Neither on whose side the fold's images are nor what other units do is looked at.
        other, sides = x.copy(), np.where(fold == f, ~is_target, is_target)
        other[:, np.setdiff1d(np.arange(units), of_folds[f])] = 0
        assert np.array_equal(probes.predict_fold(other, of_folds[f], sides, fold, f, C=C), decision)


def test_spread_and_distance_by_hand():
    """Mean (2 1), distances 1 + 1 and 1 + 1; and 4 + 9 of two changes."""
    x = np.array([[1, 0], [3, 2]], np.float32)
    assert redundancy.spread(x) == 4
    assert redundancy.moved(x, np.array([[3, 0], [3, 5]], np.float32)) == 13
    assert redundancy.moved(x, x) == 0


def clipped():
    """Two non-linearities in a row: the second would overwrite a layer, if it worked in place."""
    parts = [
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1),
        nn.ReLU(),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(4096, 10),
    ]
    torch.manual_seed(0)
    network = nn.Sequential(*parts).eval()
    with torch.no_grad():
        parts[2].weight.mul_(50)
    return network


@pytest.mark.parametrize("model", ["small_alexnet", "small_resnet", "small_mobilenet_v2", "clipped"])
def test_a_tail_s_layers_are_those_of_the_network(model, images):
    """All layers behind a cut, of which the tail's non-linearities work in place, where shortcuts pass, too."""
    network = clipped() if model == "clipped" else randomised(model, 10)
    traced = tracing.trace(network)
    found = layers.find(network, traced, images[:1])
    expected = {}
    activations.record(traced, images, [layer.node for layer in found], expected.__setitem__)
    for layer in found[:: max(1, len(found) // 3)]:
        parts = cuts.cut(traced, layer.node)
        alive = parts.prefix(images)
        kept = [tensor.clone() for tensor in alive]
        behind = {other.node for other in found if other.depth > layer.depth}
        copied, views = {}, {}

        def keep(node, value, copied=copied, views=views):
            copied[node], views[node] = value.clone(), value

        logits = activations.record(parts.tail, alive, behind, keep)
        assert copied.keys() == behind
        assert torch.equal(logits, parts.tail(*parts.prefix(images)))
        # What was alive serves further ablations.
        assert all(map(torch.equal, alive, kept))
        for node, value in copied.items():
            assert torch.allclose(value, expected[node], rtol=1e-5, atol=1e-5), node
            # Nothing behind a layer overwrites it.
            assert torch.equal(views[node], value), node


class Branches(nn.Module):
    """Layer `own` is computed behind layer `left` and does not read it; `both` does."""

    def __init__(self):
        super().__init__()
        self.left, self.own, self.both = (nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))

    def forward(self, x):
        left = self.left(x)
        own = self.own(x)
        return self.both(left + own)


def test_layers_that_do_not_read_a_layer_are_not_reached():
    """A branch beside it, though it comes later; nor itself, nor what lies before."""
    traced = tracing.trace(Branches())
    assert cuts.reached(traced, "left_1") == {"add", "both_0", "both_1", "output"}
    assert cuts.reached(traced, "own_1") == {"add", "both_0", "both_1", "output"}
    assert cuts.reached(traced, "both_1") == {"output"}
    assert {"left_0", "own_0"} <= cuts.reached(traced, "x")


# ---- what is refused


def test_a_layer_of_other_units_is_refused(made):
    """As it may be where the table of layers is of another network."""
    study = made("sum")
    rows = parquet.read(study.layers).to_pylist()
    rows[1] |= {"units": 5, "axes": "features", "shape": [5]}
    parquet.write(study.layers, rows, networks.LAYERS)
    with pytest.raises(StudyError, match=r"layers\.parquet: \w+ has other units; make it again"):
        run(study)


def gathered(study, rows=None, origin=None):
    """The table of the study, from its one file, or from other rows of it."""
    path = str(study.tmp / "redundancy.parquet")
    if rows is not None:
        parquet.write(path, rows, job.SCHEMA)
    out = str(study.tmp / "table.parquet")
    tables.gather_redundancy(
        out,
        paths_to_redundancy={("made", "dense1", "a"): path},
        paths_to_layers={"made": study.layers},
        origins={"made": {"redundancy": origin or {}}},
    )
    return parquet.read(out, tables.REDUNDANCY, optional=job.OPTIONAL).to_pylist()


def test_rows_are_gathered_with_their_depth(made):
    study = made("either")
    rows = list(run(study).values())
    assert gathered(study) == [row | {"depth": 0} for row in rows]


def harmed(number, **values):
    return lambda rows: [row | values if i == number else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (harmed(0, class_id="b"), "is not of made, dense1, a"),
        (harmed(3, auroc_after=1.5), "an AUROC is none"),
        (harmed(3, auroc_before=-0.5), "an AUROC is none"),
        (harmed(2, use=math.inf), "a number is not finite"),
        (harmed(2, auroc_after=math.nan), "a number is not finite"),
        (harmed(1, place="last"), "the places of a group are not all there once"),
        (harmed(1, place="elsewhere"), "the places of a group are not all there once"),
        (lambda rows: rows[:-1], "the places of a group are not all there once"),
        (lambda rows: rows[:-3], "a group is not ablated in every way"),
        (harmed(1, units=3), "what is of a group differs from place to place"),
        (harmed(0, use=None), "what is of a group differs from place to place"),
        (lambda rows: [row | {"use": None} for row in rows], "what is of a group differs from place to place"),
        (lambda rows: [row | {"kind": "part"} for row in rows], "part zero is unknown"),
        (lambda rows: [row | {"intervention": row["intervention"][0]} for row in rows], "cell z is unknown"),
        (harmed(0, at="dense2"), "the units that remain are not those of the layer"),
        (harmed(0, change=0.5), "the units that remain are not those of the layer"),
        (lambda rows: [row | {"units": -2} for row in rows], "the units that remain are not those of the layer"),
        (harmed(0, units_at=8), "the units looked at are not those of the network's layers"),
        (harmed(2, units_at=5), "the units looked at are not those of the network's layers"),
        (harmed(2, at="dense4"), "the units looked at are not those of the network's layers"),
        (lambda rows: [*rows, rows[0]], "the places of a group are not all there once"),
        (lambda rows: [], "has no rows"),
        (harmed(1, auroc_after=None), "column auroc_after lacks values"),
    ],
)
def test_a_file_that_does_not_serve_is_refused(made, harm, words):
    """It is named, with the way out."""
    study = made("sum")
    rows = list(run(study).values())
    assert gathered(study, rows)
    with pytest.raises(StudyError, match=rf"redundancy\.parquet: {words}.*; make it again"):
        gathered(study, harm(rows))


def test_a_file_of_another_study_is_refused(made):
    study = made("sum")
    run(study)
    with pytest.raises(
        StudyError, match=r"redundancy\.parquet: is of study unknown, but what it goes into is of study tiny"
    ):
        gathered(study, origin={"study": "tiny"})


# ---- through the workflow


@pytest.mark.workflow
def test_the_table_agrees_with_the_cells(finished):
    """The same loss and use, over the same images, as of the cell's own ablation; every chosen grid is there."""
    found = pd.read_parquet(finished.results / "tables" / "redundancy.parquet")
    cells_table = pd.read_parquet(finished.results / "tables" / "cells.parquet")
    # One target of two: the last.
    grids = [("alexnet", "conv5", "0"), ("alexnet", "dense2", "0")]
    assert list(found[["network", "layer", "class_id"]].drop_duplicates().itertuples(index=False, name=None)) == grids
    assert sorted(set(found["place"])) == sorted(job.PLACES)
    at = found.set_index(["layer", "place"])["at"].groupby(level=[0, 1]).first().to_dict()
    assert at == {
        ("conv5", "remaining"): "conv5",
        ("conv5", "next"): "dense1",
        ("conv5", "last"): "dense2",
        ("dense2", "remaining"): "dense2",
    }
    own = cells_table.set_index(["layer", "class_id", "cell"])
    table = pd.read_parquet(finished.results / "tables" / "groups.parquet")
    random = table[table["kind"] == "random"].set_index(["layer", "class_id", "group", "intervention"])
    for row in found.to_dict("records"):
        for name in ("separation_loss", "use"):
            if row["kind"] == "cell":
                expected = own.loc[row["layer"], row["class_id"], row["group"]][f"{name}_{row['intervention']}"]
            else:
                expected = random.loc[row["layer"], row["class_id"], row["group"], row["intervention"]][name]
            assert row[name] == pytest.approx(expected, abs=1e-4)


@pytest.mark.workflow
def test_switched_off_nothing_of_it_is_planned(tmp_path):
    for name, importance in (("off", TINY["importance"] | {"redundancy": False}), ("null", None)):
        project = Project.create(tmp_path / name, TINY | {"importance": importance})
        assert not {"redundancy", "redundancy_table"} & project.planned().keys()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The table of the planted study, by network, group, intervention and place, with a row a target."""
    study = yaml.safe_load((ROOT / "workflow" / "studies" / "planted.yaml").read_text())
    project = Project.create(tmp_path_factory.mktemp("planted") / "project", study)
    project.run("results/planted/tables/redundancy.parquet")
    table = pd.read_parquet(project.results / "tables" / "redundancy.parquet")
    return table.set_index(["network", "group", "intervention", "place"]).sort_index()


@pytest.mark.workflow
def test_planted_roles_that_are_not_used_and_that_are_made_up_for(planted):
    """Neither costs anything and the class is read all the same: whether the layer behind changes tells them apart."""
    for intervention in ("zero", "mean"):
        for name in ("decodable", "redundant_first", "redundant_second"):
            rows = planted.loc["planted", name, intervention, "next"]
            assert len(rows) == 4
            assert rows["separation_loss"].abs().max() < 1e-3 and rows["use"].max() < 1e-3
            assert rows["auroc_after"].min() > 0.99
            if name == "decodable":
                assert rows["change"].max() < 1e-9
            else:
                assert rows["change"].min() > 0.1
        # Both halves together are needed.
        assert planted.loc["planted", "redundant", intervention, "next"]["separation_loss"].min() > 0.15
        # All of a class's units: it is still read by elimination, from the other classes' units.
        rows = planted.loc["planted_null", "decodable", intervention]
        assert rows["auroc_after"].between(0.7, 0.95).all()
        assert rows["separation_loss"].abs().max() < 1e-6
        assert rows.loc["last", "change"].min() > 0.5
