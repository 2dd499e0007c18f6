"""Measures of importance: by hand on the toy of conftest.py, against scikit-learn and Captum, and through the job."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from captum.attr import LayerGradientXActivation
from sklearn.linear_model import LogisticRegression
from torch import fx, nn

from conftest import randomised
from jobs import groups
from jobs import importance as job
from readout import StudyError, cuts, gradients, importance, layers, probes, similarity, tracing
from readout.folds import FOLDS
from readout.importance import MEASURES, Contributions, Known
from runtime import parquet
from test_gradients import CASES, z
from workflow import ROOT

REGISTRY = yaml.safe_load((ROOT / "workflow" / "measures.yaml").read_text())
CONTENT = [name for name in MEASURES if REGISTRY[name]["needs"] in ([], ["activations"])]


# ---- the registry


def test_the_registry_is_that_of_the_functions():
    """Each has all that it is described by; what needs gradients takes a pass back."""
    assert list(REGISTRY) != sorted(REGISTRY)
    assert set(REGISTRY) == set(MEASURES)
    for name, entry in REGISTRY.items():
        assert list(entry) == ["label", "source", "predicts", "needs", "forward", "backward"], name
        assert set(entry["needs"]) <= {"activations", "probe", "gradients", "conductance"}
        assert (entry["backward"] > 0) == bool({"gradients", "conductance"} & set(entry["needs"]))
        assert entry["predicts"].endswith(".") and MEASURES[name].__doc__


# ---- by hand


def known(activations, is_target, **more):
    x, is_target = np.array(activations, np.float32), np.array(is_target)
    means = {"target_mean": x[is_target].mean(0), "others_mean": x[~is_target].mean(0), "layer_units": x.shape[1]}
    return Known(activations=x, is_target=is_target, **means | more)


BY_HAND = known(
    [[3, 0, 1, 5], [1, 0, 3, 5], [0, 0, 5, 5], [0, 0, 7, 5], [6, 0, 6, 5]], [True, True, False, False, False]
)
"""Means 2 0 2 5 and 2 0 6 5; variances within the sides 2 0 2 0 and 12 0 1 0."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("selectivity", [0, 0, -4 / math.sqrt(2), 0]),
        ("absolute_selectivity", [0, 0, 4 / math.sqrt(2), 0]),
        ("magnitude", [4 / math.sqrt(2), 0, 8 / math.sqrt(2), 10 / math.sqrt(2)]),
        ("d_prime", [0, 0, -4 / math.sqrt(1.5), 0]),
    ],
)
def test_means_and_deviations_by_hand(name, expected):
    assert MEASURES[name](BY_HAND) == pytest.approx(expected, rel=1e-6)


def test_gradients_by_hand():
    """Products a g are [3 2] and [1 -4] of the target's images and [0 6] of the other: 2 - 0 and -1 - 6.

    With the middle [1 2] of the means [2 3] and [0 1] taken off: [2 -1] x [1 1/2] and so on.
    """
    of = Contributions(
        np.array([[3.0, 4], [1, 2], [0, 1]]), np.array([[1.0, 0.5], [1, -2], [9, 6]]), np.array([True, True, False])
    )
    given = known([[3, 4], [1, 2], [0, 1]], [True, True, False], contributions=of)
    assert MEASURES["gradient_x_activation"](given).tolist() == [2, -7]
    # Target: (2 x 1 + 0 x 1) / 2 = 1 and (2 x .5 + 0) / 2 = .5; other: -1 x 9 and -1 x 6.
    assert MEASURES["gradient_x_deviation"](given).tolist() == [10, 6.5]
    # Squares 9 1 | 0 and 4 16 | 36: half of 5 + 0 and of 10 + 36.
    assert MEASURES["squared_taylor"](given).tolist() == [2.5, 23]


def test_mutual_information_is_that_of_what_was_drawn():
    """A unit that is one of two well-apart values by its side says all, log 2 of it; noise says nothing."""
    generator = np.random.default_rng(0)
    side = np.repeat([True, False], 200)
    x = np.column_stack([side + generator.normal(0, 0.01, 400), generator.normal(size=400)])
    told, nothing = MEASURES["mutual_information"](known(x, side))
    assert told == pytest.approx(math.log(2), abs=0.02)
    assert nothing < 0.06


# ---- the probe of a layer


def layer_probe(images=40, units=60, seed=0):
    generator = np.random.default_rng(seed)
    is_target, fold = np.arange(images) < images // 4, np.arange(images) % 4
    x = generator.normal(size=(images, units)) * generator.uniform(0.1, 3, units) + 5
    x[is_target, :5] += 2
    x[:, -1] = 7
    return x.astype(np.float32), is_target, fold


@pytest.mark.parametrize("parts", [1, 7])
def test_probe_weights_are_those_of_scikit_learn(parts):
    """|w| s of a logistic regression on all units, standardised and divided by the root of their number, C as given."""
    x, is_target, fold = layer_probe()
    everything = np.ones(len(x), bool)
    blocks = np.array_split(np.arange(x.shape[1]), parts)
    gram = sum(probes.gram_matrix(x[:, b], np.arange(len(b)), everything, x.shape[1])[0] for b in blocks)
    weights = importance.image_weights(gram, is_target, fold, 10.0)
    found = [known(x[:, b], is_target, layer_units=60, image_weights=weights) for b in blocks]
    found = np.concatenate([MEASURES["probe_weight"](part) for part in found])
    deviation = x.std(0, dtype=np.float64)
    scale = np.divide(1, deviation * np.sqrt(60), out=np.zeros(60), where=deviation > 0)
    reference = LogisticRegression(C=10.0, class_weight="balanced", tol=1e-10, max_iter=10000)
    reference.fit((x - x.mean(0, dtype=np.float64)) * scale, is_target)
    expected = np.abs(reference.coef_[0]) * scale * deviation
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert found[-1] == 0
    assert found[:5].mean() > 1.5 * found[5:].mean()


def test_c_is_chosen_as_for_the_cross_fitted_probe():
    """The lowest loss in a cross-validation over the folds; the weights are then those of that C."""
    x, is_target, fold = layer_probe()
    gram = probes.gram_matrix(x, np.arange(60), np.ones(len(x), bool))[0]
    candidates = [1e-4, 1.0, 1e4]
    best = probes._best(x, np.arange(60), is_target, fold, np.ones(len(x), bool), candidates)
    found = importance.image_weights(gram, is_target, fold, candidates)
    each = {C: importance.image_weights(gram, is_target, fold, C) for C in candidates}
    assert [C for C, weights in each.items() if np.allclose(found, weights, rtol=1e-6)] == [best]


# ---- gradients beside Captum


@pytest.mark.parametrize(("model", "size"), CASES, ids=[model for model, _ in CASES])
def test_gradient_measures_are_captums(model, size):
    """On every registered network's first, middle and last layer, in float64: Captum's attributions of two images of the
    target and of two others, as means of either side."""
    network = randomised(model, 10).double().requires_grad_(False)
    x = torch.randn(4, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    is_target = np.array([True, False, True, False])
    traced = tracing.trace(network)
    found = layers.find(network, traced, x[:1])
    score = importance.separation(3)
    for layer in {layer.name: layer for layer in (found[0], found[len(found) // 2], found[-1])}.values():
        # Captum wants a module to hook: one that does nothing, behind the layer.
        graph = fx.Graph()
        copies = {}
        graph.output(graph.graph_copy(traced.graph, copies))
        node = next(copy for node, copy in copies.items() if node.name == layer.node)
        traced.add_submodule("at_the_layer", nn.Identity())
        with graph.inserting_after(node):
            put = graph.call_module("at_the_layer", (node,))
        node.replace_all_uses_with(put, delete_user_cb=lambda user, put=put: user is not put)
        watched = fx.GraphModule(traced, graph)
        attribute = [
            LayerGradientXActivation(
                lambda given, net=watched: score(net(given)), watched.at_the_layer, multiply_by_inputs=multiply
            )
            for multiply in (True, False)
        ]
        products, slopes = (each.attribute(x).detach().flatten(1).numpy() for each in attribute)
        cut = cuts.cut(traced, layer.node)
        with torch.no_grad():
            alive = cut.prefix(x)
        a = alive[0].flatten(1).numpy()
        of = Contributions(a, gradients.of_scores(cut.tail, alive, score).flatten(1).numpy(), is_target)
        means = {"target_mean": a[is_target].mean(0), "others_mean": a[~is_target].mean(0)}
        given = Known(activations=a, is_target=is_target, layer_units=a.shape[1], contributions=of, **means)
        middle = (means["target_mean"] + means["others_mean"]) / 2
        for name, captum in (
            ("gradient_x_activation", products),
            ("gradient_x_deviation", products - slopes * middle),
        ):
            expected = captum[is_target].mean(0) - captum[~is_target].mean(0)
            assert np.abs(expected).max() > 0
            np.testing.assert_allclose(
                MEASURES[name](given),
                expected,
                rtol=0,
                atol=1e-9 * np.abs(captum).max(),
                err_msg=f"{name}, {layer.name}",
            )


def test_the_score_is_the_log_odds():
    scores = torch.tensor([[5.0, 3, 2], [1, 1, 200]])
    for target in range(3):
        torch.testing.assert_close(importance.separation(target)(scores), z(target)(scores.double()))


def test_conductance_shares_out_what_the_image_adds():
    """Completeness: over a layer that all goes through, units' conductances sum to the score's change from the mean colour."""
    network = randomised("small_alexnet", 10).double().requires_grad_(False)
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    traced = tracing.trace(network)
    cut = cuts.cut(traced, layers.find(network, traced, x[:1])[3].node)
    score = importance.separation(3)
    found = gradients.conductance(cut, x, score, 400).flatten(1).sum(1)
    with torch.no_grad():
        change = score(network(x)) - score(network(torch.zeros_like(x)))
    assert change.abs().min() > 0.1
    torch.testing.assert_close(found, change, rtol=0.02, atol=0.02)


# ---- tops of rankings


def test_the_top_of_a_ranking():
    """One in so many; the highest first, of equals the first; kept alone, the others are replaced."""
    ranked = importance.order(np.array([1.0, 5, 5, -9, 5, 0, 0, 2]))
    assert ranked.tolist() == [1, 2, 4, 7, 0, 5, 6, 3]
    assert importance.top("x", ranked, 4).units.tolist() == [1, 2]
    assert importance.top("x", ranked, 2).units.tolist() == [1, 2, 4, 7]
    top = importance.top("x", ranked, 8)
    assert (top.units.tolist(), top.kind, top.layer_units) == ([1], "ranked", 8)
    assert importance.all_but(top).units.tolist() == [0, 2, 3, 4, 5, 6, 7]
    with pytest.raises(StudyError, match="a top of one in 9 units needs as many, the layer has 8; lower it"):
        importance.top("x", ranked, 9)


# ---- similarity


def test_dissimilarities_are_numpys():
    """One less the correlation of images over units, also when the units come in parts; an image without variance has 1."""
    x = np.random.default_rng(0).normal(size=(6, 40)) ** 2
    x[4] = 3.7
    products = sum(part @ part.T for part in np.array_split(x, 3, 1))
    found = similarity.dissimilarities(products, x.sum(1), 40)
    with np.errstate(invalid="ignore"):
        expected = 1 - np.corrcoef(x)
    expected[4], expected[:, 4] = 1, 1
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_agreement_with_the_template_by_hand():
    """Three images, the first two alike: pairs 0, 1, 1. Found .1, .5, .9: both orders agree but for the template's tie.

    Kendall's tau-b: 2 of 3 pairs of pairs agree, one is tied: 2 / sqrt(3 x 2). Turned around, the opposite.
    """
    template = similarity.template(np.array([True, True, False]))
    assert template.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    found = np.array([[0, 0.1, 0.5], [0.1, 0, 0.9], [0.5, 0.9, 0]])
    tau, rho = similarity.agreement(found, template)
    assert tau == pytest.approx(2 / math.sqrt(6))
    assert rho == pytest.approx(math.sqrt(3) / 2)
    assert similarity.agreement(1 - found, template) == pytest.approx((-tau, -rho))
    # Silent units say nothing; of one side alone nothing can be asked.
    assert similarity.agreement(np.ones((3, 3)), template) == (0, 0)
    assert all(map(math.isnan, similarity.agreement(found, np.zeros((3, 3)))))


# ---- the toy through the job

MEANS_ONLY = ["selectivity", "magnitude", "gradient_x_activation", "gradient_x_deviation", "squared_taylor"]
S, S2 = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
"""Share of output 1 among the others, in image 0 (scores [5 3 2]) and in image 2 ([0 6 4])."""
R, R2 = 1 - S, 1 - S2
OUTSIDE_0 = {
    # Images 0, [4 2 0 0, 1 0 0 0] with the gradient [1 -S -R -2R 1 -S 0 -R], and 2, [0 1 2 0, 0 4 0 0], with S2 and R2.
    "selectivity": np.array([4, 1, -2, 0, 1, -4, 0, 0]) / math.sqrt(2),
    "magnitude": np.array([4, 3, 2, 0, 1, 4, 0, 0]) / math.sqrt(2),
    "gradient_x_activation": [4, -2 * S + S2, 2 * R2, 0, 1, 4 * S2, 0, 0],
    # Less the middle, [2 1.5 1 0, .5 2 0 0].
    "gradient_x_deviation": [4, -(S + S2) / 2, R + R2, 0, 1, 2 * (S + S2), 0, 0],
    "squared_taylor": [8, (4 * S**2 + S2**2) / 2, 2 * R2**2, 0, 0.5, 8 * S2**2, 0, 0],
}


def rank(study, folder, **changes):
    settings = {
        "measures": MEANS_ONLY,
        "needs": ["gradients"],
        "C": None,
        "random": 2,
        "tops": [4, 2],
        "interventions": ["zero", "mean"],
        "keep": 4,
        "seed": 0,
    }
    paths = {"path_to_rankings": str(folder / "rankings.parquet"), "path_to_means": str(folder / "means.parquet")}
    given = list(study.activations.values())
    return job.rank(study.grid, paths_to_activations=given, **paths, **settings | changes)


def units(study, folder):
    path = str(folder / "units.parquet")
    given = {"measures": MEANS_ONLY, "needs": ["gradients"], "C": None}
    job.list_units(study.grid, path_to_units=path, paths_to_activations=list(study.activations.values()), **given)
    table = parquet.read(path, job.UNITS).to_pandas()
    return {
        m: table[table["measure"] == m].pivot(index="fold", columns="unit", values="value").to_numpy()
        for m in MEANS_ONLY
    }


def test_each_units_measures_by_hand(toy_study, tmp_path):
    """Of the images outside fold 0, image 0 of the target and image 2 of the others."""
    found = units(toy_study, tmp_path)
    for name, expected in OUTSIDE_0.items():
        assert found[name].shape == (FOLDS, 8)
        assert found[name][0] == pytest.approx(expected, abs=1e-5), name
        # Folds without images see all of them.
        assert found[name][2] == pytest.approx(found[name][4], abs=0)
        assert found[name][0] != pytest.approx(found[name][1], abs=1e-3)


def test_a_grids_rankings(toy_study, tmp_path):
    """Of five measures and two random orders: two tops and one kept, under two interventions, each with four images."""
    assert rank(toy_study, tmp_path) == "42 ablations, 168 image-tails"
    table = parquet.read(
        str(tmp_path / "rankings.parquet"), job.SCHEMA, optional=("difference_before", "difference_after")
    )
    rows = table.to_pandas()
    of = rows.groupby(["measure", "intervention", "one_in"])
    names = [*MEANS_ONLY, "random0", "random1"]
    expected = [*product(names, ("zero", "mean"), (4, 2)), *product(names, ("keep_zero", "keep_mean"), (4,))]
    assert sorted(of.groups) == sorted(expected)
    assert set(of.size()) == {4}
    assert set(rows["kind"]) == {"ranked"}
    assert (rows["units"] == 8 // rows["one_in"]).all()
    # By selectivity, outside fold 0 units 0 and 1 (of equal ones the first) are the top quarter: image 1, [2 0 0 2, 3 0 0 0],
    # loses 4 to zero, and with these alone all but 4 of 17.
    one = rows[(rows["measure"] == "selectivity") & (rows["one_in"] == 4) & (rows["image_id"] == 1)]
    energy = one.set_index("intervention")["energy"]
    assert energy["zero"] == pytest.approx(4, rel=1e-5)
    assert energy["keep_zero"] == pytest.approx(13, rel=1e-5)
    # Means outside the fold, [2 1.5 1 0, .5 2 0 0]: (2 - 2)^2 + 1.5^2, and of the whole 17.5.
    assert energy["mean"] == pytest.approx(2.25, rel=1e-5)
    assert energy["keep_mean"] == pytest.approx(17.5 - 2.25, rel=1e-5)
    assert set(one.loc[one["intervention"].isin(["mean", "keep_mean"]), "energy_layer"].round(4)) == {17.5}


def test_means_over_cells(toy_study, tmp_path):
    """Of the grid of each fold and the values outside it; random orders have none."""
    rank(toy_study, tmp_path)
    table = parquet.read(str(tmp_path / "means.parquet"), job.MEANS, optional=("value",)).to_pandas()
    assert set(table["measure"]) == {*MEANS_ONLY, *job.SIMILARITY}
    of_units = units(toy_study, tmp_path)
    values = table.set_index(["measure", "cell"])["value"]
    for name, cell in product(MEANS_ONLY, ("s0m0", "s1m1")):
        expected = [of_units[name][f, groups.units(toy_study.cells, f)[cell]].mean() for f in range(FOLDS)]
        assert values[name, cell] == pytest.approx(np.mean(expected), rel=1e-9)


def test_layers_in_parts_have_the_same_measures(toy_study, tmp_path, monkeypatch):
    """Three units at a time, and three images in a backward pass; similarities, which add up over parts, too."""
    (tmp_path / "parts").mkdir()
    rank(toy_study, tmp_path)
    monkeypatch.setattr(job, "BLOCK_BYTES", 3 * 4 * 4)
    monkeypatch.setattr(job, "IMAGES_AT_ONCE", 3)
    rank(toy_study, tmp_path / "parts")
    for name, schema in (("means", job.MEANS), ("rankings", job.SCHEMA)):
        optional = ("value", "difference_before", "difference_after")
        whole, parts = (
            parquet.read(str(folder / f"{name}.parquet"), schema, optional=optional).to_pandas()
            for folder in (tmp_path, tmp_path / "parts")
        )
        numbers = list(whole.select_dtypes("number"))
        words = [column for column in ("measure", "cell", "group", "intervention") if column in whole]
        np.testing.assert_allclose(whole[numbers], parts[numbers], rtol=1e-9)
        assert whole[words].equals(parts[words])


def test_nothing_of_a_fold_enters_what_it_is_judged_by(toy_study, tmp_path, monkeypatch):
    """The gradient of image 1, of fold 0, is made another: fold 0's measures stay to the bit.

    Of what looks at activations, a run of the workflow has the same (below).
    """
    before = units(toy_study, tmp_path)
    contributions = job._Layer.contributions

    def turned(self, conductance):
        of = contributions(self, conductance)
        of.gradients[self.sample.listed["image_id"] == 1] *= -2
        return of

    monkeypatch.setattr(job._Layer, "contributions", turned)
    after = units(toy_study, tmp_path)
    for name in MEANS_ONLY:
        assert np.array_equal(before[name][0], after[name][0]), name
    # Negative control: fold 1 has image 1 outside.
    assert not np.allclose(before["gradient_x_activation"][1], after["gradient_x_activation"][1])


def test_another_seed_gives_other_orders(toy_study, tmp_path):
    """And a random order more leaves the others."""
    found = {}
    for name, given in (("0", {"seed": 0}), ("1", {"seed": 1}), ("more", {"random": 5})):
        (tmp_path / name).mkdir()
        rank(toy_study, tmp_path / name, **given)
        table = parquet.read(str(tmp_path / name / "rankings.parquet")).to_pandas()
        found[name] = table[table["measure"].isin(["random0", "random1"])]["energy"].tolist()
    assert found["0"] != found["1"]
    assert found["0"] == found["more"]


def test_a_measure_that_is_not_finite_is_an_error(toy_study, tmp_path, monkeypatch):
    monkeypatch.setitem(MEASURES, "magnitude", lambda known: np.full(len(known.target_mean), np.nan))
    with pytest.raises(StudyError, match=r"cells\.parquet: magnitude of a unit is not finite"):
        rank(toy_study, tmp_path)
    assert not (tmp_path / "rankings.parquet").exists()


# ---- through the workflow


@pytest.mark.workflow
def test_a_run_s_measures_are_those_of_the_images_outside_each_fold(finished):
    """Of figure 1's grid, by the definitions: d' of every unit, and the probe's weights by scikit-learn."""
    at = finished.results / "importance" / "alexnet" / "conv5" / "0" / "units.parquet"
    found = pd.read_parquet(at).pivot(index=["measure", "fold"], columns="unit", values="value")
    files = {c: finished.results / "activations" / "alexnet" / "conv5" / f"{c}.parquet" for c in "0123"}
    images = pd.concat([pd.read_parquet(path).assign(target=c == "0") for c, path in files.items()])
    for fold in (0, 3):
        outside = images[images["fold"] != fold]
        x, y = np.stack(outside["activation"]).astype(float), outside["target"].to_numpy()
        t, o = x[y].mean(0), x[~y].mean(0)
        within = np.sqrt((x[y].var(0, ddof=1) + x[~y].var(0, ddof=1)) / 2)
        expected = np.divide(t - o, within, out=np.zeros_like(t), where=within > 0)
        np.testing.assert_allclose(found.loc["d_prime", fold], expected, rtol=1e-4, atol=1e-5)
        deviation = x.std(0)
        scale = np.divide(1, deviation * np.sqrt(x.shape[1]), out=np.zeros_like(t), where=deviation > 0)
        reference = LogisticRegression(C=10.0, class_weight="balanced", tol=1e-10, max_iter=10000)
        reference.fit((x - x.mean(0)) * scale, y)
        expected = np.abs(reference.coef_[0]) * scale * deviation
        np.testing.assert_allclose(found.loc["probe_weight", fold], expected, rtol=1e-3, atol=1e-3 * expected.max())
    # Negative control: folds leave out other images.
    assert not np.allclose(found.loc["d_prime", 0], found.loc["d_prime", 3], rtol=1e-3)


@pytest.mark.workflow
def test_what_is_switched_off_is_refused_by_its_key(project):
    """Asked for by name; before anything runs."""
    project.write(project.config | {"importance": None})
    for name in ("units", "rankings"):
        printed = project.fail("--dry-run", f"results/tiny/importance/alexnet/conv5/1/{name}.parquet")
        assert "importance: is null in this study; give it its settings" in printed
