"""Faithfulness of measures of importance: curves by hand, and gains and reaches in worlds whose truth is known."""

import math

import numpy as np
import pytest

from jobs import faithfulness as job
from jobs import tables
from readout import StudyError, estimands, faithfulness, faithfulness_page
from readout.inference import FISHER, jackknife
from readout.verdicts import POOLED
from runtime import parquet
from workflow import ROOT

REGISTRY = str(ROOT / "workflow" / "measures.yaml")


# ---- curves


def test_the_area_of_a_curve_by_hand():
    """Over log shares 1/64, 1/16, 1/4, whose steps are equal: (0 + .2) / 2 and (.2 + .6) / 2, on average .25; in any order."""
    assert faithfulness.area(np.array([0, 0.2, 0.6]), [64, 16, 4]) == pytest.approx(0.25)
    assert faithfulness.area(np.array([0.6, 0, 0.2]), [4, 64, 16]) == pytest.approx(0.25)
    # 1/16 to 1/4 is two steps of a factor of two, 1/4 to 1/2 is one: (2 x .4 + .8) / 3.
    assert faithfulness.area(np.array([0.2, 0.6, 1.0]), [16, 4, 2]) == pytest.approx(1.6 / 3)
    assert faithfulness.area(np.array([[0.3], [0.4]]), [16]).tolist() == [0.3, 0.4]


def test_a_gain_is_above_random_orders():
    effects = np.array([[0.1, 0.5], [0.3, 0.3]])
    random = np.array([[0.0, 0.2], [0.2, 0.4]])
    assert faithfulness.gain(effects, random, [16, 4]) == pytest.approx([0.1, 0.1])
    # Random orders gain nothing on average.
    assert faithfulness.gain(random, random, [16, 4]).mean() == pytest.approx(0)


def test_ranks_by_hand():
    """1 is the largest; equal gains share."""
    assert faithfulness.ranks(np.array([0.1, 0.5, 0.3])).tolist() == [3, 1, 2]
    assert faithfulness.ranks(np.array([0.5, 0.5, 0.3, 0.9])).tolist() == [2.5, 2.5, 4, 1]


def test_the_best_is_chosen_by_the_other_half():
    """Classes 0 and 2 by class 1, where measure 1 gains more, and class 1 by the sum of 0 and 2, 1.1 and .5."""
    gains = np.array([[0.8, 0.3], [0.2, 0.4], [0.3, 0.2]])
    assert faithfulness.best_elsewhere([gains]).tolist() == [1, 0, 1]
    assert faithfulness.best_elsewhere([gains[:1]]).tolist() == [0]
    # A class without a gap has no say and no half: of the others the first and the third judge the second.
    without = np.insert(gains, 1, np.nan, axis=0)
    assert faithfulness.best_elsewhere([without])[[0, 2, 3]].tolist() == [1, 0, 1]
    # Of two networks one measure is chosen, by the mean: 1.0 and 1.9 over classes 0 and 2, .3 and .5 over class 1.
    other = np.array([[0.0, 0.9], [0.1, 0.1], [0.2, 0.4]])
    assert faithfulness.best_elsewhere([gains, other]).tolist() == [1, 1, 1]


def test_a_reach_by_hand():
    """Measure 1 beside the best elsewhere, 0: 5 of 10. Where the best gains nothing for sure, it is a share of nothing."""
    gains = np.array([[0.8, 0.3], [0.9, 0.5], [0.7, 0.4]])
    assert faithfulness.reach([gains], 1, 0.95)[0] == pytest.approx(1.2 / 2.4)
    assert faithfulness.reach([gains], 0, 0.95)[0] == pytest.approx(1)
    uncertain = gains * np.array([[1], [1], [-1]])
    for nothing in (-gains, uncertain, gains[:1]):
        assert math.isnan(faithfulness.reach([nothing], 1, 0.95)[0])


# ---- worlds with known truth

WORLDS = 4000


def worlds(classes, means, spread, noise, seed):
    """Gains [worlds, K, M]: means of the measures, times one factor a class, and noise of each class and measure."""
    generator = np.random.default_rng(seed)
    factor = 1 + spread * generator.normal(size=(WORLDS, classes, 1))
    return factor * np.array(means) + noise * generator.normal(size=(WORLDS, classes, len(means)))


@pytest.mark.parametrize("classes", [3, 4, 10, 50])
@pytest.mark.parametrize(
    ("means", "measure", "truth"),
    [
        ([0.4, 0.2, 0.1], 1, 0.5),
        ([0.4, 0.4, 0.2], 2, 0.5),
        ([0.4, 0.39, 0.38, 0.2], 3, 0.5),
        ([0.2] * 7, 3, 1.0),
        ([0.05, 0.025, 0], 1, 0.5),
    ],
    ids=["one best", "two", "nearly alike", "alike", "hardly any"],
)
def test_intervals_of_reach_cover_the_truth(classes, means, measure, truth):
    """It is missed in one world of ten at most, however alike the measures are.

    Where hardly anything is gained, the other half may choose another measure than the best, and the share is too high.
    """
    value, low, high = faithfulness.reach([worlds(classes, means, 0.2, 0.08, classes)], measure, 0.95)
    given = np.isfinite(value)
    assert (high < truth).mean() < 0.07
    assert ((low > truth) | (high < truth)).mean() < (0.1 if means[0] > 0.05 else 0.15)
    if means[0] > 0.3 and classes > 3:
        assert given.mean() > 0.95
        assert ((low <= truth) & (high >= truth))[given].mean() > 0.9
        assert np.median(value[given]) == pytest.approx(truth, abs=0.03)
    # Negative control: intervals of half the length miss it often.
    middle = (low + high) / 2
    assert ((middle + low > 2 * truth) | (middle + high < 2 * truth))[given].mean() > 0.1


@pytest.mark.parametrize("classes", [4, 10, 50])
def test_the_best_is_not_flattered_by_its_choice(classes):
    """Seven measures that are alike: the largest gain on the same classes is too high, that chosen by the others is not."""
    gains = worlds(classes, [0.2] * 7, 0, 0.1, classes)
    best = faithfulness._best([gains])[0][..., 0].mean(1)
    assert best.mean() == pytest.approx(0.2, abs=4 * 0.1 / np.sqrt(classes * WORLDS))
    # Negative control: the largest of seven means of `classes` is 1.35 of their deviations above.
    naive = gains.mean(1).max(-1)
    assert naive.mean() - 0.2 == pytest.approx(1.35 * 0.1 / np.sqrt(classes), rel=0.05)


@pytest.mark.parametrize("classes", [3, 10])
def test_measures_that_know_nothing_gain_nothing(classes):
    """The null: a gain is found in no more than one world in forty; and the sentence says that none was found."""
    gains = worlds(classes, [0.0] * 3, 0, 0.1, 7)
    estimate, _ = jackknife([gains], [1])
    assert (estimate.interval(0.95)[0] > 0).mean() == pytest.approx(0.025, abs=0.005)
    # Any of the three, by intervals that allow for their number: as rarely as one alone.
    any_of_them = sum(
        any(r.found for r in faithfulness.compare("abc", [world[:, None]], 0.95)) for world in gains[:1000]
    )
    assert any_of_them / 1000 < 0.04
    # Negative control: without it the largest of three is found twice as often and more.
    assert (estimate.interval(0.95)[0] > 0).any(-1).mean() > 0.05
    found = faithfulness.compare(["a", "b", "c"], [np.tile([[0.1], [-0.1], [0.05]], (1, 3))[:, None]], 0.95)
    said = faithfulness.sentence("net", found, dict(zip("abc", "ABC", strict=True)), "b")
    assert said.startswith("net: no measure is shown to find units that matter")


# ---- what is said

GAINS = np.array([[[0.40, 0.20, 0.39]], [[0.50, 0.30, 0.50]], [[0.45, 0.22, 0.47]], [[0.41, 0.21, 0.40]]])
LABELS = {"gradient": "gradient x activation", "probe_weight": "probe weight", "other": "selectivity"}


def test_the_sentence_names_the_best_what_is_like_it_and_the_probe():
    """Means .44, .2325 and .44; the third differs from the first by .01, 0, -.02 and .01. .2325 / .44 = .53."""
    found = faithfulness.compare(["gradient", "probe_weight", "other"], [GAINS], 0.95)
    assert [each.gain[0] for each in found[:3]] == pytest.approx([0.44, 0.2325, 0.44])
    assert [each.apart for each in found[:3]] == [False, True, False]
    assert found[1].rank == (3, 3, 3)
    said = faithfulness.sentence("net", found, LABELS, "probe_weight")
    assert "net: to find the units that matter, use" in said
    assert "cannot be told apart from it" in said
    assert "; probe weights reach 0.5" in said
    # A network that tells nothing apart, and one class alone.
    nothing = faithfulness.compare(["gradient", "probe_weight", "other"], [GAINS * np.nan], 0.95)
    assert faithfulness.sentence("net", nothing, LABELS, "probe_weight").startswith("net: nothing can be said")
    single = faithfulness.compare(["gradient", "probe_weight", "other"], [GAINS[:1]], 0.95)
    assert single[0].gain == (pytest.approx(0.4), None, None)
    said = faithfulness.sentence("net", single, LABELS, "probe_weight")
    assert said.startswith(
        "net: one target cannot tell measures apart; gradient x activation has the largest gain, 0.40"
    )


def test_over_networks_each_weighs_the_same():
    found = faithfulness.compare(["a", "b", "c"], [GAINS, 0.5 * GAINS], 0.95)
    assert found[0].gain[0] == pytest.approx(0.33)
    # .2325 beside .44 in both.
    assert found[1].reach[0] == pytest.approx(faithfulness.compare(["a", "b", "c"], [GAINS], 0.95)[1].reach[0])


def test_the_best_of_several_networks_is_one_measure():
    """The first gains .8 in one network alone, the second .7 in the other alone: .4 and .35 on average, not .75."""
    one = np.array([0.8, 0.0]) + 0.01 * np.arange(4)[:, None]
    other = np.array([0.0, 0.7]) + 0.01 * np.arange(4)[:, None]
    assert faithfulness.best_elsewhere([one, other]).tolist() == [0] * 4
    found = faithfulness.compare(["first", "second"], [one[:, None], other[:, None]], 0.95)
    assert found[-1].gain[0] == pytest.approx(0.415)
    assert found[1].reach[0] == pytest.approx(0.365 / 0.415)
    said = faithfulness.sentence("all", found, {"first": "the first", "second": "the second"}, "second")
    assert "use the first, which gains 0.42 (" in said and "probe weights reach 0.88" in said


def test_a_relation_is_claim_7s():
    """Of two classes, cells in the same order and in the opposite one: 0 on average; of one alone no interval."""
    values = np.arange(16.0).reshape(1, 1, 16).repeat(2, 0)
    losses = np.stack([values[0], -values[1]])
    told, classes = faithfulness.relation([values], [losses], 0.95)
    assert told[0] == pytest.approx(0, abs=1e-9) and classes == 2
    assert faithfulness.relation([values[:1]], [losses[:1]], 0.95)[0] == (pytest.approx(1, abs=1e-5), None, None)
    # By the claims' own code, on the same grids of four classes and three layers.
    generator = np.random.default_rng(0)
    grids = {"auroc": generator.normal(size=(4, 3, 4, 4)), "separation_loss": generator.normal(size=(4, 3, 4, 4))}
    by_claim = estimands.ESTIMANDS["relation"].summary(lambda name, half="": grids[name], {"of": list(grids)})
    estimate, _ = jackknife([by_claim], [1], scale=FISHER)
    told, _ = faithfulness.relation(*([grids[name].reshape(4, 3, 16)] for name in grids), 0.95)
    assert told == pytest.approx((estimate.value[0], *(end[0] for end in estimate.interval(0.95))))


# ---- the table and the page


def written(tmp_path, *, drop=None, networks=("one", "two", "none")):
    """Tables of two trained networks and an untrained one, three targets, a layer, tops 16 and 4 under mean, one kept."""
    rows, means, cells = [], [], []
    names = [f"s{s}m{m}" for s in range(2) for m in range(2)]
    generator = np.random.default_rng(0)
    for network in networks:
        for target in ("a", "b", "c"):
            at = {"network": network, "layer": "l", "depth": 0, "class_id": target}
            for measure, size in (("selectivity", 0.2), ("probe_weight", 0.4), ("random0", 0.1), ("random1", 0.1)):
                for intervention, one_in in (("mean", 16), ("mean", 4), ("keep_mean", 16)):
                    loss = size * (2 if one_in == 4 else 1) + 0.01 * generator.normal()
                    # Of an untrained network they are shares of nothing.
                    loss = 3 * loss if network == "none" else 1 - loss if intervention == "keep_mean" else loss
                    head = {"group": f"{measure}_top{one_in}", "kind": "ranked", "protocol": "crossfit", "units": 2}
                    row = dict.fromkeys(tables.GROUPS.names) | at | head
                    rows.append(
                        row
                        | {"intervention": intervention, "measure": measure, "one_in": one_in, "separation_loss": loss}
                    )
            for i, cell in enumerate(names):
                bins = {"cell": cell, "selectivity_bin": i // 2, "magnitude_bin": i % 2}
                means.append(at | bins | {"measure": "selectivity", "value": float(i)})
                row = dict.fromkeys(tables.CELLS.names, 0) | at | bins
                cells.append(row | {"separation_loss_mean": -float(i), "auroc": float(i), "score_published": 1.0})
    rows = [row for row in rows if drop is None or not drop(row)]
    paths = {}
    for name, content, schema in (
        ("groups", rows, tables.GROUPS),
        ("measures", means, tables.MEASURES),
        ("cells", cells, tables.CELLS),
    ):
        paths[f"path_to_{name}"] = str(tmp_path / f"{name}.parquet")
        parquet.write(paths[f"path_to_{name}"], content, schema)
    return paths


def compare(tmp_path, paths, networks=("one", "two", "none")):
    described = {name: {"targets": ["a", "b", "c"], "untrained": name == "none"} for name in networks}
    out = {
        "path_to_faithfulness": str(tmp_path / "faithfulness.parquet"),
        "path_to_page": str(tmp_path / "faithfulness.html"),
    }
    given = {"path_to_registry": REGISTRY, "measures": ["selectivity", "probe_weight"], "confidence": 0.95}
    job.compare(**out, **paths, **given, networks=described)
    return parquet.read(out["path_to_faithfulness"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()


def test_the_table_of_importance(tmp_path):
    """Probe weights gain .3 and .6, on average .45, selectivity .1 and .2; kept alone .3 and .1."""
    table = compare(tmp_path, written(tmp_path))
    of = table.set_index(["network", "what", "measure"])
    for network in ("one", "two", POOLED):
        assert of.loc[(network, "ablate", "probe_weight"), "estimate"] == pytest.approx(0.45, abs=0.02)
        assert of.loc[(network, "ablate", "selectivity"), "estimate"] == pytest.approx(0.15, abs=0.02)
        assert of.loc[(network, "keep", "probe_weight"), "estimate"] == pytest.approx(0.3, abs=0.02)
        assert of.loc[(network, "ablate", "probe_weight"), "best"]
        assert of.loc[(network, "ablate", "selectivity"), "reach"] == pytest.approx(1 / 3, abs=0.05)
        assert of.loc[(network, "ablate", "probe_weight"), "rank"] == 1
    assert table[(table["network"] == "none") & (table["what"] == "ablate")]["estimate"].isna().all()
    assert of.loc[("one", "ablate", "probe_weight"), "found"] and not of.loc[("none", "ablate", "selectivity"), "found"]
    # Untrained networks are not pooled.
    assert of.loc[(POOLED, "ablate", "selectivity"), "layers"] == 2
    cells = table[(table["what"] == "cells") & (table["network"] == "one") & (table["intervention"] == "mean")]
    assert dict(zip(cells["measure"], cells["estimate"].round(3), strict=True)) == {
        "score_published": 0,
        "auroc": -1,
        "selectivity": -1,
    }
    page = (tmp_path / "faithfulness.html").read_text()
    assert "<li>Over all trained networks: to find the units that matter, use probe weight x deviation" in page
    assert "<li>none: nothing can be said" in page


@pytest.mark.parametrize(
    "drop",
    [
        lambda row: (row["network"], row["class_id"], row["measure"], row["one_in"]) == ("two", "b", "random1", 4),
        lambda row: row["network"] == "two" and row["measure"] == "selectivity",
        lambda row: row["class_id"] == "c",
    ],
    ids=["one", "a measure", "a target"],
)
def test_rankings_that_lack_something_are_named(tmp_path, drop):
    with pytest.raises(StudyError, match=r"groups\.parquet: has not every combination of .* make it again"):
        compare(tmp_path, written(tmp_path, drop=drop))
    assert not (tmp_path / "faithfulness.parquet").exists()


def test_names_on_the_page_are_text(tmp_path):
    paths = written(tmp_path, networks=("<b>", "two"))
    compare(tmp_path, paths, networks=("<b>", "two"))
    page = (tmp_path / "faithfulness.html").read_text()
    assert "<h2>&lt;b&gt;</h2>" in page and "<h2><b></h2>" not in page


def test_numbers_of_the_page():
    row = {"estimate": -0.123, "ci_low": -0.2, "ci_high": 0.1}
    names = tuple(row)
    assert faithfulness_page._told(row, names) == "−0.12 [−0.20, 0.10]"
    assert faithfulness_page._told(row | {"ci_low": None}, names) == "−0.12"
    assert faithfulness_page._told(dict.fromkeys(names), names) == "–"
