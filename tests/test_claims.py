"""Claims: verdicts by the registry's rules, pooled rows, controls, and how the job reads the tables."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from jobs import claims as job
from jobs import tables
from readout import StudyError, claims, inference, page
from readout.estimands import ESTIMANDS, Undefined
from runtime import parquet

WORKFLOW = Path(__file__).parents[1] / "workflow"
REGISTRY = yaml.safe_load((WORKFLOW / "claims.yaml").read_text())
CLAIMS = REGISTRY["claims"]
TESTS = [test for claim in CLAIMS for test in claim["tests"]]
S, M = np.indices((4, 4)) + 1.0
CORNER = (S == 4) * (M == 4)
LAYER = np.arange(4.0)[:, None, None]


def _outcomes(
    values=(1.0, 2.0, 3.0), model="alexnet", *, targets=None, outputs=11, untrained=False, pseudo=(), **columns
):
    """A network whose columns `x`, `x_zero` and `x_mean` are s3m3's value in each class, and zero in the other cells."""
    values = np.asarray(values, float)
    grid = values[:, None, None, None] * CORNER
    columns = dict.fromkeys(("rank_change", "rank_change_zero", "rank_change_mean"), grid) | columns
    null = np.asarray(pseudo, float)[:, None, None, None] * CORNER
    return claims.Outcomes(
        targets=tuple(targets or "abcdefghijkl"[: len(values)]),
        columns=columns,
        outputs=outputs,
        model=model,
        untrained=untrained,
        pseudo=dict.fromkeys(("rank_change_zero", "rank_change_mean"), null) if len(pseudo) else {},
        pseudo_layers=(0,),
    )


def _test(**given):
    """A corrected test of s3m3's value above zero."""
    part = {"estimand": "corner_less_rest", "of": "rank_change", "above": 0}
    part |= {name: given.pop(name) for name in ("null", "below", "fails_above", "scale") if name in given}
    if "below" in part:
        del part["above"]
    test = {"role": "corrected", "measure": "m", "protocol": "crossfit", "interventions": ["zero"], "parts": [part]}
    return test | {"pool": "mean", "least_classes": 2} | given


def _evaluate(networks, *tests, **given):
    registry = [{"claim": 1, "statement": "s", "section": "1", "tests": tests or [_test()]}]
    return claims.evaluate(networks, registry, confidence=0.95, **given)


# ---- verdicts


@pytest.mark.parametrize(
    ("rule", "values", "verdict"),
    [
        ({}, [1, 2, 3], "inconclusive"),  # 2 +- 2.5
        ({}, [1.5, 2, 2.5], "holds"),
        ({}, [-1.5, -2, -2.5], "does not hold"),
        # Classes that all say the same, at the bound.
        ({}, [0, 0, 0], "does not hold"),
        ({"below": 3}, [1.5, 2, 2.5], "inconclusive"),  # up to 3.24
        ({"below": 4}, [1.5, 2, 2.5], "holds"),
        ({"below": 0}, [1.5, 2, 2.5], "does not hold"),
        # Between both bounds neither can be said.
        ({"below": 0, "fails_above": 1}, [1.5, 2, 2.5], "inconclusive"),
        ({"below": 0, "fails_above": 0.7}, [1.5, 2, 2.5], "does not hold"),
    ],
)
def test_verdicts_are_those_of_the_interval(rule, values, verdict):
    """Holds and does not hold need the whole interval on one side; by hand with t(2) = 4.30."""
    row = _evaluate({"a": _outcomes(values)}, _test(**rule))[0]
    assert row["verdict"] == verdict
    assert row["estimate"] == pytest.approx(np.mean(values))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(
        tuple(np.mean(values) + np.array([-1, 1]) * stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3))
    )


def test_p_is_one_sided_each_way():
    """As scipy has them; `p` is the two-sided one."""
    row = _evaluate({"a": _outcomes([1, 2, 3])})[0]
    assert row["p_holds"] == pytest.approx(stats.ttest_1samp([1, 2, 3], 0, alternative="greater").pvalue)
    assert row["p_fails"] == pytest.approx(stats.ttest_1samp([1, 2, 3], 0, alternative="less").pvalue)
    assert row["p"] == pytest.approx(stats.ttest_1samp([1, 2, 3], 0).pvalue)


def test_equivalence_holds_within_and_fails_outside():
    part = {"estimand": "corner_less_rest", "of": "rank_change", "between": [-1, 1]}
    for values, verdict in [
        ([0.1, 0, -0.1], "holds"),
        ([0, 1, 2], "inconclusive"),
        ([-2, -2.1, -2.2], "does not hold"),
    ]:
        row = _evaluate({"a": _outcomes(values)}, _test(parts=[part]))[0]
        assert (row["verdict"], row["lower"], row["upper"], row["rule"]) == (verdict, -1, 1, "within -1 to 1")


def test_several_contrasts_hold_together_and_fail_one_by_one():
    """p for what is claimed is the largest, p against it the smallest times their number; the row shows what decides."""
    classes = np.array([-0.1, 0.0, 0.1, 0.2])[:, None, None, None]
    grid = 5.0 * CORNER + classes * np.where(CORNER, 1, 0.3)
    part = {"estimand": "corner_less_cells", "of": "x", "above": 0}
    test = _test(interventions=[], parts=[part]) | {"interventions": [None]}

    def row(grid):
        return _evaluate({"a": _outcomes([0] * 4, x=grid)}, test)[0]

    assert row(grid)["verdict"] == "holds"
    # One cell comes near: it decides, and nothing can be said.
    near = grid + 4.95 * (S == 1) * (M == 2)
    found = row(near)
    assert (found["verdict"], found["part"]) == ("inconclusive", "s3m3 - s0m1")
    differences = (near[:, 0, 3, 3] - near[:, 0, 0, 1]).tolist()
    assert found["p_holds"] == pytest.approx(stats.ttest_1samp(differences, 0, alternative="greater").pvalue)
    # It lies above by so little that one contrast alone would fail, but not one of fifteen.
    above = grid + 5.25 * (S == 1) * (M == 2)
    differences = (above[:, 0, 3, 3] - above[:, 0, 0, 1]).tolist()
    alone = stats.ttest_1samp(differences, 0, alternative="less").pvalue
    assert alone < 0.025 < 15 * alone
    found = row(above)
    assert (found["verdict"], found["p_fails"]) == ("inconclusive", pytest.approx(15 * alone))
    found = row(grid + 6 * (S == 1) * (M == 2))
    assert (found["verdict"], found["part"]) == ("does not hold", "s3m3 - s0m1")
    assert found["estimate"] == pytest.approx(-1 + 0.7 * 0.05)


def test_a_test_holds_only_under_every_intervention():
    zero, mean = (np.array(v, float)[:, None, None, None] * CORNER for v in ([5, 6, 7], [-5, -6, -7]))
    both = _test(interventions=["zero", "mean"])
    for columns, verdict, decides in [
        ({"rank_change_zero": zero, "rank_change_mean": zero}, "holds", "zero"),
        ({"rank_change_zero": zero, "rank_change_mean": mean}, "does not hold", "mean"),
        ({"rank_change_zero": zero, "rank_change_mean": 0.1 * zero - 0.55 * CORNER}, "inconclusive", "mean"),
    ]:
        row = _evaluate({"a": _outcomes(**columns)}, both)[0]
        assert (row["verdict"], row["intervention"], row["outcome"]) == (verdict, decides, "rank_change")


def test_what_no_intervention_changes_is_one_contrast():
    """However many interventions there are: AUROC counts once, separation loss twice."""
    test = next(t for t in CLAIMS[1]["tests"] if t["role"] == "corrected")
    grid = np.arange(3.0)[:, None, None] + np.zeros((5, 3, 4, 4))
    columns = dict.fromkeys(("auroc_fixed", "separation_loss_zero", "separation_loss_mean"), grid)
    found = claims.contrasts(test, [claims.Outcomes(tuple("abcde"), columns, 10, "alexnet")])
    assert [(said["outcome"], said["intervention"]) for said in found.about] == [
        ("auroc_fixed", None),
        ("separation_loss", "zero"),
        ("separation_loss", "mean"),
    ]


def test_a_published_test_is_judged_by_its_estimate():
    """However wide the interval; at the bound a claim does not hold."""
    test = _test(role="published", protocol="published", interventions=[None])
    for values, verdict in [([9, -8, 0], "holds"), ([-9, 8, 0], "does not hold"), ([0, 0, 0], "does not hold")]:
        row = _evaluate({"a": _outcomes(values)}, test)[0]
        assert (row["verdict"], row["intervention"], row["p"], row["p_holds"]) == (verdict, "zero", None, None)
        assert row["test"] == "point estimate; jackknife over classes"
        assert (row["ci_low"] < 0 < row["ci_high"]) == any(values)
    # A single class has an estimate, and no interval.
    row = _evaluate({"a": _outcomes([1])}, test)[0]
    assert (row["verdict"], row["estimate"], row["ci_low"]) == ("holds", 1, None)


def test_too_few_classes_give_no_verdict():
    """Whatever the interval says; the published verdict stays. Without a number there is none for any."""
    tests = [_test(least_classes=4), _test(least_classes=3), _test(least_classes=None)]
    tests.append(_test(role="published", protocol="published", least_classes=9))
    rows = _evaluate({"a": _outcomes([5, 6, 7])}, *(t | {"measure": str(i)} for i, t in enumerate(tests)))[::2]
    assert [row["verdict"] for row in rows] == ["no verdict", "holds", "no verdict", "holds"]
    assert (rows[0]["p_holds"], rows[0]["p_fails"], rows[0]["p"], rows[0]["classes"]) == (1, 1, None, 3)
    assert rows[0]["reason"] == "simulations bear this test out from 4 classes on"
    assert rows[2]["reason"] == "simulations bear this test out nowhere"
    assert rows[0]["estimate"] == 6 and rows[1]["reason"] is None


def test_what_cannot_be_estimated_hides_nothing_that_fails():
    """A claim that fails by one contrast fails; with nothing against it, what is unknown leaves it open."""
    unknown = {"estimand": "corner_less_rest", "of": "use", "above": 0}
    for values, verdict, reason, classes in (
        ([-5, -6, -7], "does not hold", None, 3),
        ([5, 6, 7], "inconclusive", "no class has what is to be estimated", 0),
    ):
        world = _outcomes(values, use_zero=np.full(_outcomes(values).columns["rank_change"].shape, np.nan))
        test = _test(least_classes=3)
        row = _evaluate({"a": world}, test | {"parts": [*test["parts"], unknown]})[0]
        assert (row["verdict"], row["reason"], row["classes"]) == (verdict, reason, classes)
        assert (row["estimate"] is None) == (verdict == "inconclusive")


def test_an_untrained_network_s_targets_decide_no_confirmation():
    """It is not pooled, and may have those targets alone on which bounds were settled."""
    settled = _outcomes(targets="ab", values=[1, 2])
    trained = _outcomes(targets="abcd", values=[1, 2, 3, 4])
    rows = _evaluate({"net": trained, "raw": replace(settled, untrained=True)}, settled_on=("a", "b"))
    assert [row["targets"] for row in rows if row["network"] == "all"] == ["all", "confirmation"]


# ---- what is subtracted


def test_above_the_pseudo_targets_is_a_welch_contrast():
    """Of targets and pseudo-targets on the layers that the latter have."""
    own, null = [3.0, 4.0, 8.0], [1.0, 0.0, 0.5, 2.0]
    network = _outcomes(own, pseudo=null)
    network = replace(network, columns={name: np.concatenate([x, x + 99], 1) for name, x in network.columns.items()})
    row = _evaluate({"a": network}, _test(null="pseudo"))[0]
    expected = stats.ttest_ind(own, null, equal_var=False, alternative="greater")
    assert (row["p_holds"], row["estimate"], row["null"]) == pytest.approx((expected.pvalue, 5 - 0.875, 0.875))
    assert row["test"] == "jackknife over classes and over pseudo-targets"


def test_pseudo_targets_of_several_networks_are_averaged_as_classes_are():
    """The second of them has three alone."""
    networks = {"a": _outcomes([3, 4, 8], pseudo=[1, 0, 0.5, 9]), "b": _outcomes([1, 2, 4], pseudo=[0, 3, 1])}
    row = _evaluate(networks, _test(null="pseudo"))[-1]
    expected = stats.ttest_ind([2, 3, 6], [0.5, 1.5, 0.75], equal_var=False, alternative="greater")
    assert row["p_holds"] == pytest.approx(expected.pvalue)


def test_above_the_mismatched_is_a_difference_class_by_class():
    own, mismatched = (np.array(v)[:, None, None, None] * CORNER for v in ([5.0, 6, 9], [4.0, 5.5, 7]))
    columns = {"separation_loss_zero": own, "mismatched_separation_loss_zero": mismatched}
    part = {"estimand": "corner_less_rest", "of": "separation_loss", "null": "mismatched", "above": 0}
    row = _evaluate({"a": _outcomes(**columns)}, _test(parts=[part]))[0]
    assert (row["estimate"], row["null"]) == pytest.approx((3.5 / 3, 5.5))
    assert row["p_holds"] == pytest.approx(stats.ttest_1samp([1, 0.5, 2], 0, alternative="greater").pvalue)


def test_ranks_are_shares_of_those_to_lose_and_losses_are_positive():
    row = _evaluate({"a": _outcomes([1, 2, 3], outputs=101)}, _test(scale="ranks"))[0]
    assert row["estimate"] == pytest.approx(0.02)
    part = {"estimand": "corner_less_rest", "of": "log_p_loss", "above": 0}
    columns = {"log_p_change_zero": -_outcomes().columns["rank_change"]}
    row = _evaluate({"a": _outcomes(**columns)}, _test(parts=[part]))[0]
    assert (row["estimate"], row["outcome"]) == (2, "log_p_loss")


def _related(noise, correlation, classes=10):
    """AUROC and separation loss over cells, with noise in their halves."""
    generator = np.random.default_rng(0)
    shape = (classes, 3, 4, 4)
    one = generator.normal(size=shape)
    other = correlation * one + np.sqrt(1 - correlation**2) * generator.normal(size=shape)
    columns = {}
    for name, true in (("auroc", one), ("separation_loss_zero", other)):
        halves = [true + noise * generator.normal(size=shape) for _ in range(2)]
        columns |= {name: sum(halves) / 2, f"{name}_a": halves[0], f"{name}_b": halves[1]}
    return _outcomes([0] * classes, **columns)


def _relation(*worlds):
    """The row of all networks, each with its noise and its correlation."""
    part = {"estimand": "relation", "of": ["auroc", "separation_loss"], "below": 0.4, "fails_above": 0.5}
    networks = {str(i): _related(*world) for i, world in enumerate(worlds)}
    return _evaluate(networks, _test(parts=[part | {"reliable": 0.8}]))[-1]


def test_noise_does_not_pass_for_a_weak_relation():
    """The same strong relation: seen where measures are reliable; hidden by noise, it is not called weak."""
    assert _relation((0.1, 0.8))["verdict"] == "does not hold"
    assert _relation((0.1, 0.1))["verdict"] == "holds"
    hidden = _relation((3.0, 0.8))
    assert (hidden["verdict"], hidden["p_holds"]) == ("inconclusive", 1)
    assert hidden["ci_high"] < 0.4
    assert re.fullmatch(
        r"reliability 0\.\d\d of auroc and 0\.\d\d of separation_loss_zero, where 0\.8 is needed", hidden["reason"]
    )
    # A strong relation that is seen through noise needs no reliability.
    assert _relation((0.9, 0.95))["verdict"] == "does not hold"


def test_an_unreliable_network_does_not_hide_behind_reliable_ones():
    """Of three, on average 0.8 and more."""
    assert _relation(*[(0.1, 0.1)] * 3)["verdict"] == "holds"
    mixed = _relation((0.1, 0.1), (0.1, 0.1), (0.9, 0.1))
    assert (mixed["verdict"], mixed["ci_high"] < 0.4) == ("inconclusive", True)
    least = [float(text) for text in re.findall(r"0\.\d\d", mixed["reason"])][:2]
    assert max(least) < 0.8 < (max(least) + 2) / 3


# ---- pooled rows


def test_networks_are_pooled_over_the_classes_they_share():
    """Deleted from both at once: b, c and d, whose means over networks are 3, 4 and 8."""
    networks = {"a": _outcomes([9, 1, 2, 5], targets="abcd"), "b": _outcomes([5, 6, 11, 7], targets="bcde")}
    rows = _evaluate(networks)
    assert [(row["network"], row["classes"]) for row in rows] == [("a", 4), ("b", 4), ("all", 3)]
    assert rows[-1]["estimate"] == pytest.approx(5)
    assert rows[-1]["p_holds"] == pytest.approx(stats.ttest_1samp([3, 4, 8], 0, alternative="greater").pvalue)


def test_every_network_means_every_network():
    """Each by its own classes; the one that speaks most against the claim decides."""
    networks = {"a": _outcomes([5, 6, 7]), "b": _outcomes([1.5, 2, 2.5])}
    rows = _evaluate(networks, _test(pool="every"))
    assert rows[-1]["verdict"] == "holds"
    assert (rows[-1]["part"], rows[-1]["estimate"], rows[-1]["p_holds"]) == ("b", 2, rows[1]["p_holds"])
    networks["c"] = _outcomes([1, 2, 3])
    assert _evaluate(networks, _test(pool="every"))[-1]["verdict"] == "inconclusive"
    networks["c"] = _outcomes([-5, -6, -7])
    row = _evaluate(networks, _test(pool="every"))[-1]
    assert (row["verdict"], row["part"], row["p_fails"]) == (
        "does not hold",
        "c",
        pytest.approx(3 * stats.ttest_1samp([-5, -6, -7], 0, alternative="less").pvalue),
    )


def test_untrained_networks_have_rows_and_are_not_pooled():
    networks = {"a": _outcomes([5, 6, 7]), "u": _outcomes([-5, -6, -7], untrained=True)}
    rows = _evaluate(networks)
    assert [(row["network"], row["estimate"]) for row in rows] == [("a", 6), ("u", -6), ("all", 6)]
    assert [row["note"] for row in rows] == [None, "untrained: a control, which is not pooled", None]
    (row,) = _evaluate({"u": networks["u"]})[1:]
    assert (row["verdict"], row["reason"]) == ("inconclusive", "the study has no trained network")


KINDS = [["alexnet", "vgg16"], ["mobilenet_v2", "resnet"]]


def test_a_contrast_is_between_the_means_of_kinds():
    """(((1 + 3) / 2 + 5) / 2) - (2 + 6) / 2 of each class; the registry's `resnet` is ResNet101 and a small relative."""
    heights = {"caffe_alexnet": 1, "alexnet": 3, "vgg16_bn": 5, "small_mobilenet_v2": 2, "resnet101": 6, "resnext50": 9}
    networks = {model: _outcomes(np.array([0.9, 1, 1.1]) * height, model) for model, height in heights.items()}
    (row,) = _evaluate(networks, _test(contrast=KINDS))
    assert (row["network"], row["estimate"]) == ("all", pytest.approx(3.5 - 4))
    assert row["note"] == "for these weights only: a kind has one network"
    del networks["resnet101"]
    (row,) = _evaluate(networks, _test(contrast=KINDS))
    assert (row["estimate"], row["verdict"]) == (None, "inconclusive")
    assert row["reason"] == "the study has no trained network of kind resnet"


def test_training_seeds_are_replicates_of_their_kind():
    """With two of every kind their variance is added, which classes know nothing of."""
    kinds = ("alexnet", "vgg16", "mobilenet_v2", "resnet")
    classes = np.array([0.9, 1, 1.1])
    networks = {f"{kind}_{seed}": _outcomes(classes + seed, kind) for kind in kinds for seed in range(2)}
    (row,) = _evaluate(networks, _test(contrast=KINDS))
    assert (row["estimate"], row["note"]) == (0, None)
    # Each kind has the values 1 and 2, of variance 1/2, and a quarter of that in its mean's share; df 1 each.
    half = stats.t.ppf(0.975, 4) * np.sqrt(4 * 0.25 * 0.5 / 2)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((-half, half))


def test_a_test_of_named_networks_has_their_rows_alone():
    networks = {"one": _outcomes([5, 6, 7], "resnet101"), "two": _outcomes([1, 2, 3], "alexnet")}
    (row,) = _evaluate(networks, _test(networks=["resnet"]))
    assert row["network"] == "one"
    (row,) = _evaluate(networks, _test(networks=["vgg16"]))
    assert (row["network"], row["estimate"], row["reason"]) == ("vgg16", None, "the study has no such network")


def test_classes_with_which_no_bound_was_settled_are_the_confirmation():
    """A row beside the pooled one of a corrected test; none where it would be the same or empty."""
    network = {"a": _outcomes([5, 6, 7, 30], targets="abcd")}
    published = _test(role="published", protocol="published", measure="n")
    rows = _evaluate(network, _test(), published, settled_on=["d", "x"])
    found = [(r["measure"], r["network"], r["targets"], r["estimate"], r["classes"]) for r in rows]
    assert found == [
        ("m", "a", "all", 12, 4),
        ("m", "all", "all", 12, 4),
        ("m", "all", "confirmation", 6, 3),
        ("n", "a", "all", 12, 4),
        ("n", "all", "all", 12, 4),
    ]
    for settled in (["x"], list("abcd")):
        assert {row["targets"] for row in _evaluate(network, settled_on=settled)} == {"all"}


def test_p_is_adjusted_over_the_corrected_claims():
    """Holm by hand over three claims' pooled rows: of the third nothing is known, and it enters with 1."""
    tests = [_test(), _test(above=0, measure="n"), _test(parts=[{"estimand": "depth", "of": "nothing", "above": 0}])]
    tests[1]["parts"] = [{"estimand": "corner_less_rest", "of": "rank_change", "above": 1.7}]
    registry = [{"claim": i, "statement": "s", "section": "1", "tests": [test]} for i, test in enumerate(tests)]
    registry[0]["tests"].append(_test(role="beside", measure="b"))
    rows = claims.evaluate({"a": _outcomes([5, 6, 7])}, registry, confidence=0.95)
    pooled = [row for row in rows if row["network"] == "all" and row["role"] == "corrected"]
    p = [row["p_holds"] for row in pooled]
    assert p[2] is None and p[0] < p[1]
    assert [row["p_holds_adjusted"] for row in pooled] == pytest.approx([3 * p[0], 2 * p[1], 1])
    assert [row["p_fails_adjusted"] for row in pooled] == [1, 1, 1]
    assert {row["p_holds_adjusted"] for row in rows if row not in pooled} == {None}


def test_what_a_study_has_not_is_said():
    """By network and pooled: a column, the controls, a class with a value."""
    row = _evaluate({"a": _outcomes()}, _test(interventions=["erase"]))[1]
    assert (row["reason"], row["estimate"], row["verdict"]) == (
        "the study has no rank_change_erase",
        None,
        "inconclusive",
    )
    row = _evaluate({"a": _outcomes()}, _test(null="pseudo"))[0]
    assert row["reason"] == "the study has no pseudo-targets to compare with (controls.pseudo)"
    row = _evaluate({"a": _outcomes([np.nan, np.nan])})[0]
    assert (row["reason"], row["p_holds"], row["p_fails"]) == ("no class has what is to be estimated", 1, 1)
    row = _evaluate({"a": _outcomes([1, np.nan, 3])})[0]
    assert (row["classes"], row["estimate"]) == (2, 2)
    row = _evaluate({"a": _outcomes(targets="abc"), "b": _outcomes(targets="def")})[-1]
    assert row["reason"] == "the networks share no target"


# ---- the paper's world and its opposite


def _world(loss, auroc, *, growing, classes=10, seed=0, concentrated=1.0, null=0.3, excess=0.0):
    """All columns: effects [K, L, S, M] and AUROC, the same under each intervention, nearly without noise."""
    generator = np.random.default_rng(seed)

    def column(values):
        values = np.broadcast_to(values, (classes, 4, 4, 4))
        halves = [values + 1e-4 * generator.normal(size=values.shape) for _ in range(2)]
        return sum(halves) / 2, *halves

    order = np.random.default_rng(1).permutation(16).reshape(4, 4) / 16
    measures = {
        "auroc": auroc,
        "score_published": auroc - 0.3,
        "auroc_fixed": auroc + growing * LAYER,
        "rank_deficit": loss,
        "separation_loss_erase_less_directions": excess + 0 * loss,
    }
    pseudo = {"auroc": 0.5 + 0 * auroc}
    for how in ("zero", "mean", "erase"):
        effects = {
            "separation_loss": loss,
            "use": loss,
            "rank_change": loss,
            "others_rank_change": loss,
            "energy": order,
        }
        effects |= {"log_p_change": -loss, "mismatched_separation_loss": null * loss}
        measures |= {f"{name}_{how}": values for name, values in effects.items()}
        pseudo |= {f"log_p_change_{how}": -null * loss, f"rank_change_{how}": null * loss}
    columns = {}
    for name, values in measures.items():
        whole, first, second = column(values)
        columns |= {name: whole, f"{name}_a": first, f"{name}_b": second}
    pseudo = {name: column(values)[0][:8] for name, values in pseudo.items()}
    return claims.Outcomes(tuple(map(str, range(classes))), columns, 11, "alexnet", False, pseudo, (0, 1, 2, 3))


def _by_strip(*values):
    return np.array(values)[:, None] * np.ones(4)


def _paper(corner):
    """The outer strips are read best; effects are far highest in s3m3, in a layer of each class's own, and grow."""
    auroc = _by_strip(0.9, 0.6, 0.6, 0.9) + 0.02 * (M >= 3) * ((S == 1) | (S == 4)) + 0.001 * (4 * S - M)
    own = 0.2 * (np.arange(10)[:, None, None, None] % 4 == LAYER)
    return _world(0.008 * M + 0.002 * LAYER + (corner + own) * CORNER, auroc, growing=0.01)


def _opposite(corner):
    """s3 is read worst; the least selective cells of low magnitude matter most, in the first layer of every class."""
    auroc = _by_strip(0.97, 0.94, 0.91, 0.86) - 0.003 * M - 0.003 * (S - 2.5) * (M - 2.5)
    return _world(10 * (auroc - 0.8) - 0.1 * LAYER + corner * CORNER, auroc, growing=-0.01, null=0.0, excess=0.2)


MODELS = ("alexnet", "vgg16", "mobilenet_v2", "resnet")


def _judged(world, corners):
    networks = {model: replace(world(c), model=model) for model, c in zip(MODELS, corners, strict=True)}
    return claims.evaluate(networks, CLAIMS, confidence=0.95, settled_on=REGISTRY["settled_on"]["digits"])


@pytest.fixture(scope="module")
def paper_rows():
    return _judged(_paper, (0.5, 0.5, 0.4, 0.4))


def _unlike(rows, verdict):
    """Rows with another verdict, but for tests that never give one."""
    never = {test["measure"] for test in TESTS if test.get("least_classes", 0) is None}
    few = {test["measure"] for test in TESTS if test.get("least_classes") == 10}
    return [
        (r["claim"], r["network"], r["targets"], r["measure"], r["part"], r["estimate"], r["verdict"], r["reason"])
        for r in rows
        if r["verdict"]
        != (
            "no verdict"
            if r["measure"] in never or (r["targets"] == "confirmation" and r["measure"] in few)
            else verdict
        )
    ]


def test_every_claim_holds_in_the_papers_world(paper_rows):
    """Each test, in each network, pooled, and in the confirmation: six classes, of which claim 5 needs more."""
    assert _unlike(paper_rows, "holds") == []


def test_no_claim_holds_in_the_opposite_world():
    """The negative control of the registry: each test can also say no."""
    assert _unlike(_judged(_opposite, (0.0, 0.0, 0.25, 0.25)), "does not hold") == []


def test_rows_come_in_the_registrys_order(paper_rows):
    """Each network, then the pooled row and its confirmation; a contrast has no other, and one of named networks theirs."""
    expected = []
    for claim in CLAIMS:
        for test in claim["tests"]:
            every = [] if "contrast" in test else [(name, "all") for name in test.get("networks", MODELS)]
            pooled = [] if "networks" in test else [("all", "all")]
            pooled += [("all", "confirmation")] if test["role"] == "corrected" else []
            expected += [(claim["claim"], test["measure"], *row) for row in every + pooled]
    found = [(row["claim"], row["measure"], row["network"], row["targets"]) for row in paper_rows]
    assert found == expected


def test_a_row_is_the_same_in_any_company(paper_rows):
    """A network's own rows do not depend on the other networks."""
    alone = claims.evaluate({"vgg16": replace(_paper(0.5), model="vgg16")}, CLAIMS, confidence=0.95)
    expected = [row for row in paper_rows if row["network"] == "vgg16"]
    assert [row for row in alone if row["network"] == "vgg16"] == expected


# ---- the registry


def test_the_registry_covers_the_papers_claims():
    """1 to 8, each with all its texts, one published and one corrected test, which has a pooled row."""
    assert [claim["claim"] for claim in CLAIMS] == list(range(1, 9))
    for claim in CLAIMS:
        assert set(claim) == {"claim", "section", "short", "statement", "plain", "tests"}
        assert set(claim["plain"]) == {"holds", "does not hold", "inconclusive"}
        roles = [test["role"] for test in claim["tests"]]
        assert roles.count("published") == roles.count("corrected") == 1
        assert all("networks" not in test for test in claim["tests"] if test["role"] != "beside")
        measures = [test["measure"] for test in claim["tests"]]
        assert len(set(measures)) == len(measures)


@pytest.mark.parametrize("test", TESTS, ids=lambda test: re.sub(r"\W+", "-", test["measure"]))
def test_a_registered_test_can_be_carried_out(test):
    """Its keys are known, its estimands are there, each part has one rule, and it says how networks make a row."""
    assert test.keys() <= {
        *("role", "measure", "protocol", "interventions", "parts", "pool", "contrast", "networks", "least_classes")
    }
    assert test["role"] in ("published", "corrected", "beside")
    assert len({"pool", "contrast", "networks"} & set(test)) == 1
    assert test.get("pool", "mean") in ("mean", "every")
    assert ("interventions" in test) == any(
        not claims.BY_INTERVENTION.isdisjoint([part["of"]] if isinstance(part["of"], str) else part["of"])
        for part in test["parts"]
    ) or test["protocol"] == "published"
    assert test["role"] == "published" or test["least_classes"] is None or test["least_classes"] >= 2
    if test["role"] == "corrected":
        assert test["protocol"] == "crossfit" and test.get("interventions", ["zero", "mean"]) == ["zero", "mean"]
    for part in test["parts"]:
        assert part["estimand"] in ESTIMANDS
        assert len({"above", "below", "between"} & set(part)) == 1
        assert part.keys() <= {
            *("estimand", "of", "name", "null", "above", "below", "between", "fails_above"),
            *("where", "at_least", "halves", "scale", "given", "reliable"),
        }
        assert part.get("null") in (None, "pseudo", "mismatched")
        # A null is subtracted class by class, or estimated by itself.
        assert "null" not in part or ESTIMANDS[part["estimand"]].of_means is inference.mean
    claims.contrasts(test, [_paper(0.5)])


def test_every_estimand_is_registered():
    """No dead code, and no estimand that was tried and then left out."""
    assert {part["estimand"] for test in TESTS for part in test["parts"]} == set(ESTIMANDS)


def test_grids_of_another_shape_are_judged_or_told_why_not():
    """2 x 2 cells: no strip is between two others, and a quarter of the cells is one."""
    world = _paper(0.5)

    def small(columns):
        return {name: values[..., [0, 3], :][..., [0, 3]] for name, values in columns.items()}

    world = replace(world, columns=small(world.columns), pseudo=small(world.pseudo))
    said = {}
    for test in TESTS:
        try:
            claims.contrasts(test, [world])
        except Undefined as error:
            said[test["parts"][0]["estimand"]] = str(error)
    assert said.keys() == {"extremes", "outer_strips"}
    assert all("no strip" in text for text in said.values())


def test_rules_in_words():
    """As the table of claims says them; a test's parts each once."""
    assert [claims.rule_text(rule) for rule in ({"above": 0}, {"below": 0.5}, {"between": [0.25, 0.75]})] == [
        "above 0",
        "below 0.5",
        "within 0.25 to 0.75",
    ]
    assert claims.rule_text({"below": 0.4, "fails_above": 0.5}) == "below 0.4 (does not hold above 0.5)"
    assert claims.test_text({"parts": [{"above": 0}, {"below": 1}, {"above": 0}]}) == "above 0, below 1"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"above": 0}, (0.0, None)),
        ({"below": 0.01}, (None, 0.01)),
        ({"between": [-0.5, 0.5]}, (-0.5, 0.5)),
        # YAML 1.1 takes a number without a dot for text.
        ({"above": "1e-05"}, (1e-05, None)),
    ],
)
def test_bounds_are_the_rules_values(rule, expected):
    """And None on the side on which the rule sets none."""
    found = claims.bounds(rule)
    assert found == expected
    assert all(bound is None or type(bound) is float for bound in found)


# ---- the job


CELLS = [(s, m) for s in range(4) for m in range(4)]


def _written(folder, world, targets, layers=("z", "y", "x")):
    """Layer tables of a network's outcomes, rows in any order, and the table of groups with its pseudo-targets."""
    paths = []
    for i, layer in enumerate(layers):
        rows = []
        for k, target in enumerate(targets):
            for s, m in CELLS:
                row = dict.fromkeys(tables.LAYER.names)
                row |= {"network": "net", "layer": layer, "depth": i, "class_id": target, "cell": f"s{s}m{m}"}
                row |= {"selectivity_bin": s, "magnitude_bin": m}
                found = {name: float(values[k, i, s, m]) for name, values in world.columns.items()}
                row |= {name: None if np.isnan(value) else value for name, value in found.items()}
                rows.append(
                    {name: 0 if row[name] is None and name not in tables.OPTIONAL else row[name] for name in row}
                )
        paths.append(str(folder / "tables" / "net" / f"{layer}.parquet"))
        schema = pa.schema([field for field in tables.LAYER if field.name != "held_out"])
        order = np.random.default_rng(i).permutation(len(rows))
        table = pa.Table.from_pylist([rows[j] for j in order], schema=schema)
        parquet.write(
            paths[-1],
            {**dict(zip(schema.names, table.columns, strict=True)), "held_out": [None] * len(rows)},
            tables.LAYER,
        )
    rows = []
    for p, i, (s, m), how in product(range(3), world.pseudo_layers, CELLS, ("zero", "mean")):
        row = dict.fromkeys(tables.GROUPS.names, 0) | dict.fromkeys(tables.GROUP_OPTIONAL)
        row |= {"network": "net", "layer": layers[i], "class_id": f"pseudo{p}", "group": f"s{s}m{m}", "kind": "pseudo"}
        row |= {"protocol": "crossfit", "intervention": how, "auroc": world.pseudo["auroc"][p, i, s, m]}
        row |= {name: world.pseudo[f"{name}_{how}"][p, i, s, m] for name in job.PSEUDO}
        rows.append(row)
    # Other groups and other networks' are there too.
    rows += [row | {"network": "other", "rank_change": 99.0} for row in rows]
    rows += [row | {"kind": "random", "group": "random0"} for row in rows[:1]]
    path = str(folder / "tables" / "groups.parquet")
    parquet.write(path, [rows[j] for j in np.random.default_rng(9).permutation(len(rows))], tables.GROUPS)
    return paths, path


@pytest.fixture
def stored():
    """Outcomes of two classes whose names are not in the order of the targets; pseudo-targets on two of three layers."""
    generator = np.random.default_rng(0)
    names = ["auroc", "rank_deficit", "separation_loss_zero", "separation_loss_zero_a", "log_p_change_mean"]
    columns = {name: generator.random((2, 3, 4, 4)) for name in names}
    # One number is missing.
    columns["separation_loss_zero"][1] = np.nan
    pseudo = {f"{name}_{how}": generator.random((3, 3, 4, 4)) for name in job.PSEUDO for how in ("zero", "mean")}
    pseudo |= {"auroc": generator.random((3, 3, 4, 4))}
    return claims.Outcomes(("b", "a"), columns, 11, "alexnet", False, pseudo, (0, 2))


DESCRIBED = {"targets": ["b", "a"], "outputs": 11, "model": "alexnet", "untrained": False}


def test_the_job_reads_layer_tables_and_pseudo_targets(tmp_path, stored):
    """Rows in any order; columns without a number are left out; pseudo-targets lie on the layers that they have."""
    paths, groups = _written(tmp_path, stored, ["b", "a"])
    found = job.outcomes(paths, groups, "net", (4, 4), **DESCRIBED)
    for name, values in stored.columns.items():
        assert np.array_equal(found.columns[name], values, equal_nan=True), name
    assert "rank_change" not in found.columns and "use_zero" not in found.columns
    assert found.pseudo_layers == (0, 2)
    assert found.pseudo.keys() == stored.pseudo.keys()
    for name, values in stored.pseudo.items():
        assert np.array_equal(found.pseudo[name], values[:, [0, 2]]), name
    assert (found.targets, found.outputs, found.model, found.untrained) == (("b", "a"), 11, "alexnet", False)
    assert job.outcomes(paths, None, "net", (4, 4), **DESCRIBED).pseudo == {}
    assert job.outcomes(paths, groups, "third", (4, 4), **DESCRIBED).pseudo == {}


def test_the_job_refuses_tables_that_are_not_whole(tmp_path, stored):
    """It names the file; a number that is none is no number."""
    paths, groups = _written(tmp_path, stored, ["b", "a"])
    with pytest.raises(StudyError, match=r"z\.parquet: has not all targets and cells of the study"):
        job.outcomes(paths, groups, "net", (4, 4), **(DESCRIBED | {"targets": ["b", "a", "c"]}))
    table = pq.read_table(groups)
    pq.write_table(table.slice(1), groups)
    with pytest.raises(StudyError, match=r"groups\.parquet: has not every cell of every pseudo-target of (net|other)"):
        for network in ("net", "other"):
            job.outcomes(paths, groups, network, (4, 4), **DESCRIBED)
    stored.columns["auroc"][0, 0, 0, 0] = np.inf
    paths, groups = _written(tmp_path, stored, ["b", "a"])
    with pytest.raises(StudyError, match=r"z\.parquet: auroc is not finite"):
        job.outcomes(paths, groups, "net", (4, 4), **DESCRIBED)


def test_the_job_writes_the_table_and_the_page(tmp_path, stored):
    """What `evaluate` gives, with the classes of this data set with which bounds were settled."""
    paths, groups = _written(tmp_path, stored, ["b", "a"])
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(REGISTRY | {"settled_on": {"digits": ["a"]}}))
    for dataset, settled_on in (("digits", ["a"]), ("folder", [])):
        job.judge(
            tmp_path / "claims.parquet",
            tmp_path / "claims.html",
            paths_to_layers={"net": paths},
            path_to_groups=groups,
            path_to_registry=str(tmp_path / "registry.yaml"),
            networks={"net": DESCRIBED},
            bins=[4, 4],
            dataset=dataset,
            confidence=0.9,
        )
        world = {"net": job.outcomes(paths, groups, "net", (4, 4), **DESCRIBED)}
        expected = claims.evaluate(world, CLAIMS, confidence=0.9, settled_on=settled_on)
        found = parquet.read(tmp_path / "claims.parquet", job.SCHEMA, optional=job.OPTIONAL).to_pylist()
        assert found == [{name: row[name] for name in job.SCHEMA.names} for row in expected]
        assert ("confirmation" in {row["targets"] for row in found}) == (dataset == "digits")
        text = (tmp_path / "claims.html").read_text(encoding="utf-8")
        assert text == page.render(expected, CLAIMS, networks=["net"], confidence=0.9)


def test_the_table_keeps_its_columns(paper_rows):
    """What readers of the table rely on: names, order and types; new columns come last, and a row has them all."""
    old = ["claim", "network", "measure", "estimate", "ci_low", "ci_high", "test", "p", "verdict", "rule", "statement"]
    assert job.SCHEMA.names[:14] == [*old, "section", "lower", "upper"]
    assert {str(job.SCHEMA.field(name).type) for name in ("estimate", "p", "lower", "upper")} == {"double"}
    assert all(set(row) == set(job.SCHEMA.names) for row in paper_rows)
    empty = {name for row in paper_rows for name, value in row.items() if value is None}
    assert empty <= set(job.OPTIONAL)
