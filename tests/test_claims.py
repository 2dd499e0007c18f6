"""Claims: estimands in worlds whose answer is known, verdicts by the rules, the bootstrap."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from jobs import claims as job
from jobs import tables
from readout import claims, page
from runtime import parquet

REGISTRY = yaml.safe_load((Path(__file__).parents[1] / "workflow" / "claims.yaml").read_text())
TESTS = [test for claim in REGISTRY for test in claim["tests"]]


def _outcomes(change=0.0, accuracy=0.5, score=0.5, *, classes=3, layers=3, images=8, others=12, outputs=1001):
    """A world without noise: every image of a cell does the same. Arguments broadcast to [classes, layers, 4, 4]."""
    shape = (classes, layers, 4, 4)
    change, accuracy, score = (np.broadcast_to(value, shape).astype(float) for value in (change, accuracy, score))

    def every(values, count):
        return np.repeat(values.reshape(classes, -1, 1), count, 2)

    return claims.Outcomes(
        change=every(change, images),
        hit=every(accuracy, images),
        hit_others=list(every(accuracy, others)),
        score=score,
        outputs=outputs,
    )


def _value(name, of="deficit", **world):
    return claims.ESTIMANDS[name](claims.sample(_outcomes(**world)), of)


def _by_strip(*values):
    """A value for each selectivity strip."""
    return np.array(values)[:, None] * np.ones(4)


def _one_cell(s, m, value, rest=0.0):
    grid = np.full((4, 4), rest)
    grid[s, m] = value
    return grid


S, M = np.indices((4, 4)) + 1.0


def test_the_data_themselves_are_means_over_images():
    """By hand: two images of the target, four of the others; the deficit clips image by image."""
    change = np.zeros((1, 16, 2))
    change[0, 5] = [-2, 4]
    hit, hit_others = np.ones((1, 16, 2)), [np.zeros((16, 4))]
    hit[0, 5] = [0, 1]
    hit_others[0][5] = [1, 1, 1, 0]
    found = claims.sample(claims.Outcomes(change, hit, hit_others, np.zeros((1, 1, 4, 4)), 10))
    # Cell 5 is s1m1.
    assert found.change[0, 0, 1, 1] == pytest.approx(1)
    assert found.deficit[0, 0, 1, 1] == pytest.approx(2)
    # Balanced: (1/2 + 3/4) / 2; elsewhere the target's images are hit, the others' are not.
    assert found.accuracy[0, 0, 1, 1] == pytest.approx(0.625)
    assert found.accuracy[0, 0, 0, 0] == pytest.approx(0.5)
    # Halves are the images with even and with odd index.
    assert found.deficit_halves[:, 0, 0, 1, 1] == pytest.approx([0, 4])
    assert found.accuracy_halves[:, 0, 0, 1, 1] == pytest.approx([(0 + 1) / 2, (1 + 0.5) / 2])


def test_halves_of_an_odd_number_of_images_weigh_by_their_size():
    """Three images: the mean over all is not the mean of the halves."""
    change = np.tile([3.0, 0.0, 6.0], (1, 16, 1))
    world = claims.Outcomes(change, np.ones((1, 16, 3)), [np.ones((16, 5))], np.zeros((1, 1, 4, 4)), 10)
    found = claims.sample(world)
    assert found.deficit[0, 0, 0, 0] == pytest.approx(3)
    assert found.deficit_halves[:, 0, 0, 0, 0] == pytest.approx([4.5, 0])


KNOWN = {
    # The lesser outer strip less the greater inner one.
    "extremes hold": ("extremes", "accuracy", {"accuracy": _by_strip(0.9, 0.6, 0.7, 0.8)}, 0.1),
    "one extreme is not enough": ("extremes", "accuracy", {"accuracy": _by_strip(0.9, 0.6, 0.7, 0.5)}, -0.2),
    "extremes of the score": ("extremes", "score", {"score": _by_strip(0.4, 0.1, 0.2, 0.3)}, 0.1),
    # Layers 1 2 3, 3 2 1, and 1 3 2: the rank correlation of the last is 1 - 6 * 2 / (3 * 8).
    "deeper is more": ("depth", "deficit", {"change": np.array([1.0, 2, 3])[:, None, None]}, 1),
    "deeper is less": ("depth", "deficit", {"change": np.array([3.0, 2, 1])[:, None, None]}, -1),
    "deeper is mixed": ("depth", "deficit", {"change": np.array([1.0, 3, 2])[:, None, None]}, 0.5),
    "depth does not matter": ("depth", "deficit", {"change": 2.0}, 0),
    "two layers are no trend": ("depth", "deficit", {"layers": 2}, None),
    # Two classes up, one down.
    "depth by class": (
        "depth",
        "deficit",
        {"change": np.array([[1.0, 2, 3], [2, 5, 9], [3, 2, 1]])[..., None, None]},
        1 / 3,
    ),
    "a peak": ("peak", "deficit", {"change": _one_cell(3, 3, 10) + _one_cell(0, 1, 4)}, 6),
    "a peak elsewhere": ("peak", "deficit", {"change": _one_cell(3, 3, 10) + _one_cell(0, 1, 12)}, -2),
    # Neighbours are s2m3, s3m2 and s2m2; the cell s0m3 is none.
    "a step": ("step", "deficit", {"change": _one_cell(3, 3, 10) + _one_cell(2, 3, 4) + _one_cell(0, 3, 9)}, 2),
    "a slope": ("step", "deficit", {"change": _one_cell(3, 3, 10) + _one_cell(3, 2, 7)}, -4),
    "a diagonal slope": ("step", "deficit", {"change": _one_cell(3, 3, 10) + _one_cell(2, 2, 6)}, -2),
    # 5 of 1000 ranks in s0, where all cells decode well.
    "spared": (
        "spared_against",
        "change",
        {"change": _by_strip(5, 0, 0, 90), "accuracy": _by_strip(0.8, 0.6, 0.6, 0.9)},
        0.005,
    ),
    "nothing decodes well": (
        "spared_against",
        "change",
        {"change": 5.0, "accuracy": _by_strip(0.7, 0.9, 0.9, 0.9)},
        None,
    ),
    # Only s0m1 decodes well, at the bound; it loses 30.
    "spared by cell": (
        "spared_against",
        "change",
        {"change": 30 * (M == 2) * (S == 1), "accuracy": _one_cell(0, 1, 0.75, 0.74)},
        0.03,
    ),
    # s3m0 and s3m1 decode well and lose 10 and 30; the higher magnitudes do not count.
    "spared for": (
        "spared_for",
        "change",
        {"change": np.array([10.0, 30, 900, 900]) * (S == 4), "accuracy": _by_strip(0.5, 0.5, 0.5, 0.9)},
        0.02,
    ),
    "gains are seen": ("spared_for", "change", {"change": -10.0, "accuracy": 0.9}, -0.01),
    # Each class peaks in its own layer, in either half.
    "peak layers differ": ("peak_layer", "deficit", {"change": np.eye(3)[..., None, None] * 5}, 1),
    "peak layers agree": ("peak_layer", "deficit", {"change": np.array([0.0, 5, 0])[:, None, None]}, 0),
    # Layers 0, 0, 1: of the six pairs of different classes four differ.
    "two of three agree": (
        "peak_layer",
        "deficit",
        {"change": np.array([[5.0, 0, 0], [5, 0, 0], [0, 5, 0]])[..., None, None]},
        2 / 3,
    ),
    "one class has nothing to compare": ("peak_layer", "deficit", {"classes": 1}, None),
    "concentrated": ("concentration", "deficit", {"change": _one_cell(3, 3, 15.0, 1.0)}, 0.5),
    "no deficit is evenly spread": ("concentration", "deficit", {"change": -1.0}, 1 / 16),
    # Below s3 the highest magnitude has 6, the others 1, 2 and 3; s3 does not count.
    "high magnitude": ("high_magnitude", "deficit", {"change": np.array([1.0, 2, 3, 6]) * (S < 4) + 50 * (S == 4)}, 4),
    "low magnitude": ("high_magnitude", "deficit", {"change": np.array([6.0, 3, 3, 0]) * np.ones((4, 1))}, -4),
    "related": ("relation", "both", {"change": S * M + M / 9, "accuracy": (S * M + M / 9) / 99}, 1),
    "opposed": ("relation", "both", {"change": S * M + M / 9, "accuracy": 1 - (S * M + M / 9) / 99}, -1),
    "unrelated": ("relation", "both", {"change": S, "accuracy": M / 9}, 0),
    "constant is unrelated": ("relation", "both", {"change": 1.0, "accuracy": M / 9}, 0),
    # Without noise there is nothing to correct.
    "nothing to correct": (
        "relation_corrected",
        "both",
        {"change": S * M + M / 9, "accuracy": (S * M + M / 9) / 99},
        1,
    ),
    "no reliability": ("relation_corrected", "both", {"change": 1.0, "accuracy": M / 9}, None),
    # The best four by accuracy are s3; by deficit m3: one in common.
    "a corner in common": ("overlap", "both", {"change": M, "accuracy": S / 9}, 0.25),
    "all in common": ("overlap", "both", {"change": S, "accuracy": S / 9}, 1),
    # Every deficit ties: each cell is a quarter among the best four, as by chance.
    "ties share": ("overlap", "both", {"change": 1.0, "accuracy": (S + M / 9) / 9}, 0.25),
    # Four of deficit 5 tie for three places behind s3m3: three quarters each; s3 decodes best.
    "some ties": (
        "overlap",
        "both",
        {"change": _one_cell(3, 3, 9.0) + 5 * (M == 1), "accuracy": S / 9},
        (1 + 0.75) / 4,
    ),
    "none in common": ("overlap", "both", {"change": 9 - S, "accuracy": S / 9}, 0),
    # Values s m: all explained by the product; by s alone (mean m)^2 var s / var sm = 6.25 * 1.25 / 17.1875 = 5 / 11.
    "a product": ("interaction", "deficit", {"change": S * M}, 6 / 11),
    "one bin alone": ("interaction", "deficit", {"change": S}, -6 / 11),
    "the other bin alone": ("interaction", "deficit", {"change": M}, -6 / 11),
    "nothing to explain": ("interaction", "deficit", {"change": 3.0}, 0),
    # Layers differ in level alone, which is not the grid's to explain.
    "levels do not matter": (
        "interaction",
        "deficit",
        {"change": S * M + np.array([0.0, 50, 100])[:, None, None]},
        6 / 11,
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_estimands_by_hand(name):
    """Worlds of which the answer is known on paper."""
    estimand, of, world, expected = KNOWN[name]
    found = _value(estimand, of, **world)
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-6)


def test_every_estimand_is_tried_by_hand():
    """An estimand added needs a world above."""
    assert {case[0] for case in KNOWN.values()} == set(claims.ESTIMANDS)


def test_a_relation_is_corrected_for_noise():
    """Accuracies are those of the deficits in one half of the images; the correction divides by the agreements.

    Cells in the order 0 to 15 in either measure's even half. In the odd half of the deficits cells 0 and 15 change
    places: d = 15 twice, so the halves correlate by r = 1 - 6 * 450 / (16 * 255) = 0.338235. Across halves accuracy and
    deficit correlate by (1 + r) / 2; accuracy agrees with itself by 1, the deficit by r. The mean of both halves ranks cells 0 and 15 in the middle.
    """
    order = np.arange(16.0)
    swapped = order.copy()
    swapped[[0, 15]] = swapped[[15, 0]]
    change = np.stack([order, swapped], 1)[None]
    accuracy = np.repeat(order[:, None], 2, 1) / 15
    world = claims.Outcomes(change, accuracy[None], [accuracy], np.zeros((1, 1, 4, 4)), 10)
    sample = claims.sample(world)
    # Cells 0 and 15 have 7.5 each and share rank 8.5; cells 1 to 7 have ranks 1 to 7, cells 8 to 14 ranks 10 to 16.
    mean_ranks = np.array([8.5, *range(1, 8), *range(10, 17), 8.5])
    plain = np.corrcoef(mean_ranks, order)[0, 1]
    assert claims.relation(sample, "both") == pytest.approx(plain, abs=1e-6)
    assert claims.relation_corrected(sample, "both") == pytest.approx(0.6691176471 / np.sqrt(0.3382352941), abs=1e-6)


def test_noise_hides_a_relation_and_the_correction_finds_it():
    """One true value a cell drives both measures; noise lowers the plain correlation, the corrected one is near 1."""
    generator = np.random.default_rng(0)
    true = generator.normal(size=(40, 16, 1))
    change = 5 + true + generator.normal(size=(40, 16, 10)) * 3
    hit = true + generator.normal(size=(40, 16, 10)) * 3
    hit_others = list(true + generator.normal(size=(40, 16, 10)) * 3)
    sample = claims.sample(claims.Outcomes(change, hit, hit_others, np.zeros((40, 1, 4, 4)), 10))
    plain, corrected = claims.relation(sample, "both"), claims.relation_corrected(sample, "both")
    assert plain < 0.7
    assert 0.85 < corrected < 1.15


@pytest.mark.parametrize(
    ("rule", "low", "high", "expected"),
    [
        ({"above": 0}, 0.1, 0.5, "holds"),
        ({"above": 0}, -0.1, 0.5, "inconclusive"),
        ({"above": 0}, -0.5, -0.1, "does not hold"),
        # At the bound: not above it.
        ({"above": 0}, 0.0, 0.5, "inconclusive"),
        ({"above": 0}, -0.5, 0.0, "does not hold"),
        ({"above": 0}, 0.0, 0.0, "does not hold"),
        ({"below": 0.5}, 0.1, 0.4, "holds"),
        ({"below": 0.5}, 0.1, 0.5, "inconclusive"),
        ({"below": 0.5}, 0.4, 0.6, "inconclusive"),
        ({"below": 0.5}, 0.5, 0.6, "does not hold"),
        ({"between": [0.25, 0.75]}, 0.3, 0.7, "holds"),
        ({"between": [0.25, 0.75]}, 0.25, 0.7, "inconclusive"),
        ({"between": [0.25, 0.75]}, 0.3, 0.75, "inconclusive"),
        ({"between": [0.25, 0.75]}, 0.2, 0.8, "inconclusive"),
        ({"between": [0.25, 0.75]}, 0.1, 0.25, "does not hold"),
        ({"between": [0.25, 0.75]}, 0.75, 0.9, "does not hold"),
        ({"above": 0}, None, None, "inconclusive"),
        ({"below": 0}, None, None, "inconclusive"),
    ],
)
def test_verdicts(rule, low, high, expected):
    """Holds and does not hold need the whole interval on one side."""
    assert claims.verdict(low, high, rule) == expected


def test_rules_in_words():
    """As the table of claims says them."""
    assert [claims.rule_text(rule) for rule in ({"above": 0}, {"below": 0.5}, {"between": [0.25, 0.75]})] == [
        "above 0",
        "below 0.5",
        "within 0.25 to 0.75",
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"above": 0}, (0.0, None)),
        ({"below": 0.01}, (None, 0.01)),
        ({"between": [-0.5, 0.5]}, (-0.5, 0.5)),
        ({"above": 1e-05}, (1e-05, None)),
        # YAML 1.1 takes a number without a dot for text.
        ({"above": "1e-05"}, (1e-05, None)),
    ],
)
def test_bounds_are_the_rules_values(rule, expected):
    """And None on the side on which the rule sets none."""
    found = claims.bounds(rule)
    assert found == expected
    assert all(bound is None or type(bound) is float for bound in found)


def test_every_row_has_the_bounds_of_its_rule():
    """Also a row that cannot be estimated; two layers are no trend."""
    rows = _evaluate({"a": _outcomes(layers=2)}, _registry(estimand="depth", above=1e-05, pool="mean"), replicates=9)
    assert [(row["estimate"], row["lower"], row["upper"], row["rule"]) for row in rows] == [
        (None, 1e-05, None, "above 1e-05")
    ] * 2


def test_the_table_keeps_its_columns():
    """What readers of the table rely on: names, order and types; new columns come last."""
    old = ["claim", "network", "measure", "estimate", "ci_low", "ci_high", "test", "p", "verdict", "rule", "statement"]
    assert job.SCHEMA.names == [*old, "section", "lower", "upper"]
    assert {str(job.SCHEMA.field(name).type) for name in ("estimate", "p", "lower", "upper")} == {"double"}


def _evaluate(networks, registry=REGISTRY, replicates=100, seed=0, models=None):
    models = models or {name: name for name in networks}
    return list(claims.evaluate(networks, registry, models, replicates=replicates, confidence=0.95, seed=seed))


def _registry(**test):
    return [{"claim": 1, "statement": "s", "section": "1", "tests": [{"measure": "m", "of": "deficit", **test}]}]


def test_a_world_without_noise_has_a_point_for_an_interval():
    """All replicates are the data, so p is its least: 2 / (replicates + 1)."""
    (row,) = _evaluate({"a": _outcomes(_one_cell(3, 3, 10.0))}, _registry(estimand="peak", above=0), replicates=99)
    assert (row["estimate"], row["ci_low"], row["ci_high"]) == pytest.approx((10, 10, 10))
    assert (row["network"], row["verdict"], row["p"]) == ("a", "holds", pytest.approx(0.02))


@pytest.mark.parametrize(
    ("value", "p"),
    # 99 replicates: all within make 1 / 100, all at or beyond a bound 100 / 100.
    [(0.25, 1.0), (0.5, 0.01), (1.0, 1.0)],
)
def test_p_of_two_bounds(value, p):
    """The larger of both one-sided ones; overlaps of 1/4, 2/4 and 4/4, the first at the bound itself."""
    accuracy = {0.25: S, 0.5: S * (M < 3) + 9 * (M == 4) * (S < 3), 1.0: M}[value] / 20
    (row,) = _evaluate(
        {"a": _outcomes(M, accuracy)}, _registry(estimand="overlap", between=[0.25, 0.75]), replicates=99
    )
    assert row["estimate"] == pytest.approx(value)
    assert row["p"] == pytest.approx(p)
    assert row["verdict"] == ("holds" if value == 0.5 else "does not hold")


# The paper's world and its opposite: four networks in which each claim holds, and four in which none does.

DEPTH = np.arange(4.0)[:, None, None]
PEAK = np.arange(3)[:, None, None, None]
LAYER = np.arange(4)[None, :, None, None]


def _paper(high_magnitude: bool):
    """Deficits far highest in s3m3, in a layer of each class's own; the outer strips decode best; all grows with depth.

    In the networks of claim 6 the highest magnitude matters below s3 too. s0 and the lower magnitudes of s3 decode well
    and lose less than 1 % of 1000 ranks.
    """
    grid = 3 * (M == 4) * S if high_magnitude else np.maximum(S + M - 5, 0)
    peak = (S == 4) * (M == 4) * (30.0 + 10 * (LAYER == PEAK))
    accuracy = _by_strip(0.85, 0.6, 0.6, 0.85) + 0.02 * (M >= 3) * ((S == 1) | (S == 4)) + 0.01 * DEPTH
    return _outcomes(grid + peak + DEPTH, accuracy, accuracy - 0.3, layers=4)


def _opposite(concentrated: bool):
    """The middle strips decode best and matter most, at low magnitude; all falls with depth, the first layer peaks."""
    accuracy = _by_strip(0.80, 0.90, 0.92, 0.81) - 0.005 * M - 0.01 * DEPTH
    change = 400 * (accuracy - 0.7) + 30 * concentrated * (S == 4) * (M == 4)
    return _outcomes(change, accuracy, accuracy - 0.3, layers=4)


@pytest.fixture(scope="module")
def paper_rows():
    """The claims of the paper's world."""
    return _evaluate(
        {name: _paper(name in ("mobilenet_v2", "resnet")) for name in ("alexnet", "vgg16", "mobilenet_v2", "resnet")}
    )


def test_every_claim_holds_in_the_papers_world(paper_rows):
    """Each claim, in each network and pooled."""
    assert [
        (r["claim"], r["network"], r["measure"], r["estimate"]) for r in paper_rows if r["verdict"] != "holds"
    ] == []


def test_no_claim_holds_in_the_opposite_world():
    """The negative control of the registry: each estimand and rule can also say no."""
    networks = {"alexnet": False, "vgg16": False, "mobilenet_v2": True, "resnet": True}
    rows = _evaluate({name: _opposite(concentrated) for name, concentrated in networks.items()})
    assert [
        (r["claim"], r["network"], r["measure"], r["estimate"]) for r in rows if r["verdict"] != "does not hold"
    ] == []


def test_rows_come_in_the_registrys_order(paper_rows):
    """Each network, then the pooled row; a contrast has that one alone, and a test of named networks their own."""
    every = ["alexnet", "vgg16", "mobilenet_v2", "resnet", "all"]
    expected = []
    for claim in REGISTRY:
        for test in claim["tests"]:
            named = ["all"] if "contrast" in test else test.get("networks", every)
            expected += [(claim["claim"], test["measure"], name) for name in named]
    assert [(row["claim"], row["measure"], row["network"]) for row in paper_rows] == expected


def test_rows_have_the_columns_of_the_table(paper_rows):
    """What the job writes."""
    assert all(set(row) == set(job.SCHEMA.names) for row in paper_rows)


@pytest.mark.parametrize(("pool", "expected"), [("mean", 4.0), ("min", 2.0)])
def test_pooling(pool, expected):
    """The mean of the networks, or the least of them where the paper says `every network`."""
    networks = {"a": _outcomes(_one_cell(3, 3, 6.0)), "b": _outcomes(_one_cell(3, 3, 2.0))}
    rows = _evaluate(networks, _registry(estimand="peak", above=0, pool=pool))
    assert [(row["network"], row["estimate"]) for row in rows] == [
        ("a", pytest.approx(6)),
        ("b", pytest.approx(2)),
        ("all", pytest.approx(expected)),
    ]


def test_a_contrast_is_of_means():
    """(6 + 2) / 2 - 1."""
    networks = {name: _outcomes(_one_cell(3, 3, v)) for name, v in {"a": 6.0, "b": 2.0, "c": 1.0}.items()}
    (row,) = _evaluate(networks, _registry(estimand="peak", above=0, contrast=[["a", "b"], ["c"]]))
    assert (row["network"], row["estimate"], row["ci_low"]) == ("all", pytest.approx(3), pytest.approx(3))


def _noisy(seed, classes=4, layers=3):
    """Images that differ: whole ranks, hits that are 0 or 1."""
    generator = np.random.default_rng(seed)
    shape = (classes, layers * 16)
    level = np.broadcast_to(3 * (S == 4) * (M == 4) + 0.5, (classes, layers, 4, 4)).reshape(*shape, 1)
    return claims.Outcomes(
        change=generator.poisson(level, (*shape, 10)).astype(float),
        hit=(generator.random((*shape, 10)) < 0.7).astype(float),
        hit_others=[(generator.random((shape[1], 15)) < 0.6).astype(float) for _ in range(classes)],
        score=generator.random((classes, layers, 4, 4)),
        outputs=11,
    )


def test_the_same_seed_gives_the_same_rows():
    """And another seed other intervals, of the same estimates."""
    networks = {"alexnet": _noisy(0), "resnet": _noisy(1)}
    first, other = _evaluate(networks), _evaluate(networks, seed=1)
    assert first == _evaluate(networks)
    assert [row["estimate"] for row in first] == [row["estimate"] for row in other]
    assert [row["ci_low"] for row in first] != [row["ci_low"] for row in other]


def test_the_order_and_company_of_networks_do_not_matter():
    """A network's own rows are the same alone, first or last."""
    a, b = _noisy(0), _noisy(1)

    def own(rows):
        return [row for row in rows if row["network"] == "a"]

    assert own(_evaluate({"a": a})) == own(_evaluate({"a": a, "b": b})) == own(_evaluate({"b": b, "a": a}))


def test_networks_are_compared_on_the_same_draws():
    """A network less itself is zero in every replicate, though each side varies."""
    registry = _registry(estimand="concentration", above=0, contrast=[["a"], ["b"]])
    (row,) = _evaluate({"a": _noisy(0), "b": _noisy(0)}, registry)
    assert (row["estimate"], row["ci_low"], row["ci_high"]) == (0, 0, 0)
    (row,) = _evaluate({"a": _noisy(0), "b": _noisy(1)}, registry)
    assert row["ci_low"] < row["ci_high"]


@pytest.mark.parametrize("estimand", ["peak", "concentration", "high_magnitude", "interaction"])
def test_the_interval_covers_the_estimate(estimand):
    """A clear effect with ordinary noise; the interval has a width."""
    (row,) = _evaluate({"a": _noisy(0)}, _registry(estimand=estimand, above=-9), replicates=300)
    assert row["ci_low"] < row["estimate"] < row["ci_high"]


def test_intervals_have_their_coverage():
    """40 worlds drawn around the same truth, intervals of 90 %.

    Expected are 36; the bootstrap of eight classes is somewhat narrow, so that 30 are asked for, and fewer than 40, for
    the intervals must not be too wide either.
    """
    covered = 0
    below, registry = ((M == 4) & (S < 4)).reshape(1, 16, 1), _registry(estimand="high_magnitude", above=0)
    for seed in range(40):
        generator = np.random.default_rng(seed)
        # Classes vary around 2, images around their class; the other cells have no deficit.
        level = 2 + generator.normal(size=(8, 1, 1)) * 0.5
        change = np.where(below, level + generator.normal(size=(8, 16, 10)) * 0.3, 0)
        world = claims.Outcomes(change, np.ones((8, 16, 10)), [np.ones((16, 2))] * 8, np.zeros((8, 1, 4, 4)), 11)
        (row,) = claims.evaluate({"a": world}, registry, {"a": "a"}, replicates=60, confidence=0.9, seed=seed)
        covered += row["ci_low"] < 2 < row["ci_high"]
    assert 30 <= covered < 40


def test_replicates_draw_classes_and_their_images():
    """Classes with their own images: a class drawn twice has one score, but different images."""
    world = _noisy(0)
    generator = np.random.default_rng(3)
    draws = [claims.sample(world, generator) for _ in range(50)]
    assert {tuple(sorted(d.classes)) for d in draws} != {tuple(range(4))}
    drawn = np.stack([d.classes for d in draws])
    # Each class is drawn once a replicate on average, with a deviation of sqrt(3/4 / 50) = 0.12.
    assert np.abs(np.bincount(drawn.ravel(), minlength=4) / 50 - 1).max() < 0.5
    repeated = next(d for d in draws if len(set(d.classes)) < 4)
    first, second = next(
        (i, j) for i in range(4) for j in range(i + 1, 4) if repeated.classes[i] == repeated.classes[j]
    )
    assert np.array_equal(repeated.score[first], repeated.score[second])
    assert not np.array_equal(repeated.deficit[first], repeated.deficit[second])
    whole = claims.sample(world)
    # Resampled images stay images: no value outside the range of the class's own.
    assert (repeated.change[first] <= world.change[repeated.classes[first]].max(-1).reshape(3, 4, 4) + 1e-6).all()
    assert np.array_equal(whole.classes, np.arange(4))


def test_replicates_centre_on_the_data():
    """The mean over many replicates is the data's mean, of change, accuracy and both halves."""
    world = _noisy(0)
    generator = np.random.default_rng(0)
    draws = [claims.sample(world, generator) for _ in range(400)]
    whole = claims.sample(world)
    for name in ("change", "deficit", "accuracy"):
        values = np.array([getattr(d, name).mean() for d in draws])
        # Four standard errors of the mean over 400 replicates.
        assert abs(values.mean() - getattr(whole, name).mean()) < 4 * values.std() / 20
    halves = np.array([d.deficit_halves.mean((1, 2, 3, 4)) for d in draws])
    assert (np.abs(halves.mean(0) - whole.deficit_halves.mean((1, 2, 3, 4))) < 4 * halves.std(0) / 20).all()


def test_missing_networks_are_inconclusive():
    """A study without the paper's networks: said as missing, never as a zero."""
    rows = _evaluate({"mine": _outcomes(_one_cell(3, 3, 5.0))})
    sixth = [row for row in rows if row["claim"] == 6]
    assert [row["network"] for row in sixth] == ["all", "mobilenet_v2"]
    for row in sixth:
        assert (row["estimate"], row["ci_low"], row["ci_high"], row["p"]) == (None,) * 4
        assert row["verdict"] == "inconclusive"
    assert {row["network"] for row in rows if row["claim"] != 6} == {"mine", "all"}


def test_the_registry_names_kinds_of_networks():
    """ResNet101 and a small relative are both a `resnet`; two networks of a kind share its place in a contrast."""
    registry = _registry(estimand="peak", above=0, contrast=[["alexnet", "vgg16"], ["mobilenet_v2", "resnet"]])
    heights = {"one": 1.0, "two": 3.0, "three": 5.0, "four": 2.0, "five": 6.0, "six": 99.0}
    networks = {name: _outcomes(_one_cell(3, 3, height)) for name, height in heights.items()}
    models = {
        "one": "caffe_alexnet",
        "two": "alexnet",
        "three": "vgg16_bn",
        "four": "small_mobilenet_v2",
        "five": "resnet101",
        "six": "resnext50_32x4d",
    }
    (row,) = _evaluate(networks, registry, models=models)
    assert row["estimate"] == pytest.approx(((1 + 3) / 2 + 5) / 2 - (2 + 6) / 2)
    rows = _evaluate(networks, _registry(estimand="peak", above=0, networks=["resnet"]), models=models)
    assert [row["network"] for row in rows] == ["five"]


def test_a_contrast_needs_all_its_networks():
    """Two against two; with one missing there is no such comparison, and none of fewer is passed off for it."""
    registry = _registry(estimand="peak", above=0, contrast=[["alexnet", "vgg16"], ["mobilenet_v2", "resnet"]])
    sizes = {"alexnet": 6.0, "vgg16": 4.0, "mobilenet_v2": 1.0, "resnet": 2.0}
    networks = {name: _outcomes(_one_cell(3, 3, size)) for name, size in sizes.items()}
    assert _evaluate(networks, registry)[0]["estimate"] == pytest.approx(3.5)
    del networks["vgg16"]
    (row,) = _evaluate(networks, registry)
    assert (row["estimate"], row["verdict"]) == (None, "inconclusive")


def test_what_cannot_be_estimated_is_inconclusive():
    """Two layers are no trend; pooled with a network that has three, there is no pooled trend either."""
    networks = {"short": _outcomes(layers=2), "long": _outcomes(np.array([1.0, 2, 3])[:, None, None])}
    rows = _evaluate(networks, _registry(estimand="depth", above=0, pool="mean"))
    assert [(row["network"], row["estimate"], row["verdict"]) for row in rows] == [
        ("short", None, "inconclusive"),
        ("long", pytest.approx(1), "holds"),
        ("all", None, "inconclusive"),
    ]


def test_the_registry_covers_the_papers_claims():
    """1 to 8, each with a statement, a section and at least one test."""
    assert [claim["claim"] for claim in REGISTRY] == list(range(1, 9))
    assert all(
        set(claim) == {"claim", "section", "short", "statement", "tests"} and claim["tests"] for claim in REGISTRY
    )


@pytest.mark.parametrize("test", TESTS, ids=lambda test: re.sub(r"\W+", "-", test["measure"]))
def test_a_registered_test_can_be_carried_out(test):
    """Its estimand exists and takes its quantity, it has one rule, and it has the row `all` or says why not."""
    assert test["estimand"] in claims.ESTIMANDS
    assert len({"above", "below", "between"} & set(test)) == 1
    assert len({"pool", "contrast", "networks"} & set(test)) == 1
    assert set(test) <= {"measure", "estimand", "of", "above", "below", "between", "pool", "contrast", "networks"}
    assert test.get("pool", "mean") in ("mean", "min")
    claims.ESTIMANDS[test["estimand"]](claims.sample(_outcomes()), test["of"])


def test_every_estimand_is_registered():
    """No dead code, and no estimand that was tried and then left out."""
    assert {test["estimand"] for test in TESTS} == set(claims.ESTIMANDS)


def test_the_job_reads_the_layer_tables(tmp_path):
    """From rows in any order to the same claims as from the outcomes; each network has its own targets."""
    world = _noisy(0, classes=2)
    world = claims.Outcomes(
        world.change.astype(np.float32),
        world.hit.astype(np.float32),
        [hits.astype(np.float32) for hits in world.hit_others],
        world.score,
        world.outputs,
    )
    # Classes whose names are not in the order of the targets.
    targets, cells = ["b", "a"], [f"s{s}m{m}" for s in range(4) for m in range(4)]
    files = []
    for layer, name in enumerate(("z", "y", "x")):
        rows = []
        for k, target in enumerate(targets):
            for c, cell in enumerate(cells):
                at = layer * 16 + c
                row = {column.name: None for column in tables.LAYER}
                row |= {"class_id": target, "cell": cell, "score_published": world.score[k, layer, c // 4, c % 4]}
                # Ranks 5 before the ablation, whatever is after.
                row["images"] = [
                    {
                        "image_id": i,
                        "rank_baseline": 5,
                        "rank_ablated": 5 + int(v),
                        "log_p_baseline": 0,
                        "log_p_ablated": 0,
                    }
                    for i, v in enumerate(world.change[k, at])
                ]
                sides = [(1, world.hit[k, at]), (0, world.hit_others[k][at])]
                # A hit is a probability on the right side of one half.
                hits = [(y, hit) for y, hits in sides for hit in hits]
                row["held_out"] = [
                    {"image_id": i, "y": y, "p": 0.8 if hit == y else 0.3} for i, (y, hit) in enumerate(hits)
                ]
                rows.append(row)
        files.append(tmp_path / "tables" / "net" / f"{name}.parquet")
        parquet.write(files[-1], [rows[i] for i in np.random.default_rng(layer).permutation(len(rows))], tables.LAYER)
    settings = {"replicates": 100, "confidence": 0.95, "seed": 4}
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(REGISTRY))
    job.judge(
        tmp_path / "claims.parquet",
        tmp_path / "claims.html",
        paths_to_layers={"net": [str(file) for file in files]},
        path_to_registry=str(tmp_path / "registry.yaml"),
        targets={"net": targets},
        outputs={"net": 11},
        models={"net": "alexnet"},
        bins=[4, 4],
        **settings,
    )
    # What cannot be estimated is missing.
    found = parquet.read(tmp_path / "claims.parquet").to_pylist()
    expected = list(claims.evaluate({"net": world}, REGISTRY, {"net": "alexnet"}, **settings))
    assert found == expected
    text = (tmp_path / "claims.html").read_text(encoding="utf-8")
    assert text == page.render(expected, networks=["net"], confidence=0.95)
