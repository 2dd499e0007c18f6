"""Tables: rank deficit and rank change of a cell, and the toy network through the jobs of every step."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from readout.tables import against, effect
from scipy.stats import t as student

from conftest import NO_ORIGINS
from jobs import ablations, activations, controls, networks, probes
from jobs import tables as job
from readout import StudyError
from runtime import parquet


@pytest.mark.parametrize(
    ("baseline", "ablated", "deficit", "change"),
    [
        # (5 + 0 + 0 + 2) / 4, and (5 - 3 + 0 + 2) / 4: a gain counts as nothing lost.
        ([0, 3, 1, 0], [5, 0, 1, 2], 1.75, 1.0),
        # Pure noise has a deficit, but no change.
        ([1, 1], [0, 2], 0.5, 0.0),
        ([4, 4], [0, 0], 0.0, -4.0),
        ([7], [7], 0.0, 0.0),
    ],
)
def test_deficit_and_change_by_hand(baseline, ablated, deficit, change):
    """Mean of max(0, change), and mean of the change."""
    assert effect(np.array(baseline, np.int32), np.array(ablated, np.int32)) == (deficit, change)


def test_unsigned_ranks_do_not_wrap():
    """0 less 3 is -3 whatever the type of the ranks."""
    assert effect(np.array([3], np.uint8), np.array([0], np.uint8)) == (0.0, -3.0)


def test_a_cell_that_is_like_the_random_groups_does_not_stand_out():
    """4,000 worlds in which a cell's effect is drawn like those of ten random groups, and as many with 2 added.

    In the null world the difference is 0 on average, and z over sqrt(1 + 1 / 10) has Student's distribution with nine
    degrees of freedom: 5 % of them are beyond its 97.5 % quantile. Bounds are four standard errors.
    """
    worlds = np.random.default_rng(0).normal(size=(4000, 11))
    null = np.array([against(world[0], world[1:]) for world in worlds])
    less = math.sqrt(1.1) * 4 / math.sqrt(len(worlds))
    assert abs(null[:, 0].mean()) < less
    beyond = (np.abs(null[:, 1]) / math.sqrt(1.1) > student.ppf(0.975, 9)).mean()
    assert abs(beyond - 0.05) < 4 * math.sqrt(0.05 * 0.95 / len(worlds))
    found = np.array([against(world[0] + 2, world[1:]) for world in worlds])
    assert abs(found[:, 0].mean() - 2) < less
    assert (found[:, 1] / math.sqrt(1.1) > student.ppf(0.975, 9)).mean() > 5 * 0.05


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1, max_size=50))
def test_the_deficit_is_the_change_without_its_gains(ranks):
    """The deficit is never below the change nor below zero; nothing changed is zero."""
    baseline, ablated = (np.array(column, np.int32) for column in zip(*ranks, strict=True))
    deficit, change = effect(baseline, ablated)
    assert deficit >= max(0.0, change)
    gains = effect(ablated, baseline)[0]
    assert change == pytest.approx(deficit - gains, abs=1e-9)
    assert effect(baseline, baseline) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("effect", "random", "less", "z"),
    [
        # Mean 2, deviation 1.
        (3.0, [1, 2, 3], 1.0, 1.0),
        # Mean 1, and sqrt((1 + 1) / 1), not sqrt((1 + 1) / 2).
        (4.0, [0, 2], 3.0, 3 / math.sqrt(2)),
        (-1.0, [0, 2], -2.0, -2 / math.sqrt(2)),
        (1.0, [0, 2], 0.0, 0.0),
        # One, or equal ones: no deviation, whatever the effect.
        (4.0, [1], 3.0, None),
        (4.0, [1, 1, 1], 3.0, None),
        (1.0, [1, 1, 1], 0.0, None),
        # Of three times 0.1 the mean is not 0.1.
        (0.35, [0.1, 0.1, 0.1], 0.25, None),
        (0.35, [0.7] * 10, -0.35, None),
    ],
)
def test_an_effect_against_random_ones_by_hand(effect, random, less, z):
    """Less their mean, and in units of their deviation with n - 1."""
    found = against(effect, np.array(random, float))
    assert found == (pytest.approx(less, abs=1e-12), None if z is None else pytest.approx(z, rel=1e-12))


CELLS = ("s0m0", "s0m1", "s1m0", "s1m1")
STEPS = ("probes", "ablations")


@pytest.fixture
def study(toy_study) -> SimpleNamespace:
    """The toy of conftest.py as a study of class a against class b, two images each, through every job; 2 x 2 cells."""
    file = {name: str(toy_study.tmp / f"{name}.parquet") for name in ("layer", "study")}
    at = {name: toy_study.grid[name] for name in ("network", "layer", "class_id")}
    written = {step: {cell: str(toy_study.tmp / step / "a" / f"{cell}.parquet") for cell in CELLS} for step in STEPS}
    for cell in CELLS:
        probes.probe(
            path_to_probe=written["probes"][cell],
            path_to_cells=toy_study.cells,
            path_to_target=toy_study.activations["a"],
            paths_to_others=[toy_study.activations["b"]],
            **at,
            cell=cell,
            kind="cell",
            seed=0,
            published={"draws": 3, "units": 1, "C": 1.0},
            held_out={"C": 1.0},
        )
        files = {"path_to_ablation": written["ablations"][cell]}
        ablations.ablate(**files, **toy_study.grid, cell=cell, kind="cell", seed=None, value=0.0)
    gathered = {
        "path_to_layers": toy_study.layers,
        "paths_to_cells": {"a": toy_study.cells},
        "paths_to_probes": {"a": written["probes"]},
        "paths_to_ablations": {"a": written["ablations"]},
        "paths_to_controls": {},
        "network": "toy",
        "layer": "conv1",
        "origins": NO_ORIGINS,
    }
    job.gather_layer(file["layer"], **gathered)
    job.gather_study(file["study"], paths_to_layers=[file["layer"]])
    return SimpleNamespace(**file, **written, gathered=gathered, baseline=toy_study.baseline, toy=toy_study)


def _change(before: list[float], after: list[float]) -> float:
    """Change of the log-probability of output 0."""
    first, second = (s[0] - math.log(sum(map(math.exp, s))) for s in (before, after))
    return second - first


def test_the_toy_through_every_step(study):
    """Each cell's row, on paper: units {2, 7}, {1, 5}, {3, 6}, {0, 4} (test_cells), ranks as in test_ablations.

    t - o is -1 -1 | 0 -2 | 1 0 | 2 2 and t + o is 1 1 | 2 2 | 1 0 | 4 2, both over sqrt(2); unit 6 is dead.
    """
    rows = parquet.read(study.study, job.CELLS, optional=job.AGAINST_RANDOM).to_pylist()
    assert [row["cell"] for row in rows] == ["s0m0", "s0m1", "s1m0", "s1m1"]
    assert [(row["selectivity_bin"], row["magnitude_bin"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {(row["network"], row["layer"], row["depth"], row["class_id"]) for row in rows} == {("toy", "conv1", 0, "a")}
    assert [row["units"] for row in rows] == [2, 2, 2, 2]
    assert [row["units_dead"] for row in rows] == [0, 0, 1, 0]
    # Pixels go through float32 divisions by 255.
    root = math.sqrt(2)
    assert [row["selectivity_mean"] * root for row in rows] == pytest.approx([-1, -1, 0.5, 2], rel=1e-6)
    assert [row["magnitude_mean"] * root for row in rows] == pytest.approx([1, 2, 0.5, 3], rel=1e-6)
    assert [row["rank_deficit"] for row in rows] == [0, 0, 0, 1.5]
    assert [row["rank_change"] for row in rows] == [0, 0, -0.5, 1.5]
    first, second = [5, 3, 2], [5, 1, 6]
    assert [row["log_p_change"] for row in rows] == pytest.approx(
        [
            0,
            _change(first, [5, 1, 2]) / 2,
            _change(second, [5, 1, 2]) / 2,
            (_change(first, [0, 3, 2]) + _change(second, [0, 1, 6])) / 2,
        ],
        abs=1e-5,
    )
    assert {row["chance"] for row in rows} == {row["chance_majority"] for row in rows} == {0.5}


def test_the_toys_baseline(study):
    """Ranks 0 and 1, the score of the right output 5; top-1 one half."""
    table = parquet.read(study.baseline, activations.BASELINE).to_pydict()
    assert table["rank"] == [0, 1]
    assert table["score"] == pytest.approx([5, 5], rel=1e-6)
    activations.summarise(study.toy.tmp / "accuracy.parquet", paths_to_baselines=[study.baseline])
    (row,) = parquet.read(study.toy.tmp / "accuracy.parquet", networks.ACCURACY).to_pylist()
    assert row == {"split": "study", "top1": 0.5, "top5": 1.0, "images": 2}


def test_the_layer_table_holds_what_each_image_did(study):
    """The claims' bootstrap draws images: those of the ablations and those of the held-out probes."""
    rows = parquet.read(study.layer, job.LAYER, optional=job.AGAINST_RANDOM).to_pylist()
    last = rows[-1]
    assert [(i["rank_baseline"], i["rank_ablated"]) for i in last["images"]] == [(0, 2), (1, 2)]
    ids = [i["image_id"] for i in last["held_out"]]
    assert ids == sorted(ids)
    assert {i["image_id"] for i in last["images"]} == {i["image_id"] for i in last["held_out"] if i["y"] == 1}
    assert all(0 < i["p"] < 1 for i in last["held_out"])


def test_a_log_probability_that_is_not_finite_is_an_error(study):
    """A broken file is named and not averaged."""
    file = study.ablations["s1m0"]
    table = parquet.read(file, ablations.SCHEMA).to_pydict()
    parquet.write(file, table | {"log_p_ablated": [math.nan, 0.0]}, ablations.SCHEMA)
    with pytest.raises(StudyError, match=r"ablations/a/s1m0\.parquet: a log-probability is not finite.*make it again"):
        job.gather_layer(study.layer, **study.gathered)


# The random groups of test_controls, which are drawn by seed 0, ablated by zero: ranks [0 1] and [2 0] after [0 1], so
# deficits of 0 and 1, changes of 0 and 0.5.
RANDOM = ("random0", "random1")


@pytest.fixture
def compared(study):
    """The toy's study with its random groups; `control` writes their file anew."""
    path = str(study.toy.tmp / "controls" / "a.parquet")

    def control(random=RANDOM, values=(0.0,)):
        controls.control(path_to_controls=path, **study.toy.grid, random=random, values=values, seed=0)

    def gather():
        job.gather_layer(study.layer, **study.gathered | {"paths_to_controls": {"a": path}})
        return parquet.read(study.layer, job.LAYER, optional=job.AGAINST_RANDOM).to_pylist()

    def gather_groups(origin=None):
        out = str(study.toy.tmp / "groups.parquet")
        grids = {("toy", "conv1", "a"): path}
        layers, origins = {"toy": study.toy.layers}, {"toy": origin or {}}
        job.gather_groups(out, paths_to_controls=grids, paths_to_layers=layers, origins=origins)
        return parquet.read(out, job.GROUPS).to_pylist()

    control()
    return SimpleNamespace(path=path, control=control, gather=gather, gather_groups=gather_groups, study=study)


def test_cells_against_random_groups_by_hand(compared):
    """Deficits 0 0 0 1.5 against 0 and 1, changes 0 0 -0.5 1.5 against 0 and 0.5."""
    rows = compared.gather()
    root = math.sqrt(0.5)
    assert [row["rank_deficit_less_random"] for row in rows] == [-0.5, -0.5, -0.5, 1.0]
    assert [row["rank_deficit_z_random"] for row in rows] == pytest.approx([-0.5 / root] * 3 + [1 / root])
    assert [row["rank_change_less_random"] for row in rows] == [-0.25, -0.25, -0.75, 1.25]
    assert [row["rank_change_z_random"] for row in rows] == pytest.approx(
        [-0.5 / root, -0.5 / root, -1.5 / root, 2.5 / root]
    )
    first, second = [5, 3, 2], [5, 1, 6]
    random = [
        (_change(first, [4, 3, 2]) + _change(second, [2, 1, 6])) / 2,
        (_change(first, [1, 3, 2]) + _change(second, [3, 1, 2])) / 2,
    ]
    less = [row["log_p_change"] - sum(random) / 2 for row in rows]
    assert [row["log_p_change_less_random"] for row in rows] == pytest.approx(less, abs=1e-5)
    deviation = abs(random[0] - random[1]) * root
    assert [row["log_p_change_z_random"] for row in rows] == pytest.approx([x / deviation for x in less], abs=1e-4)
    # And in the table of the study.
    job.gather_study(compared.study.study, paths_to_layers=[compared.study.layer])
    gathered = parquet.read(compared.study.study, job.CELLS).to_pylist()
    assert gathered == [{key: row[key] for key in job.CELLS.names} for row in rows]


def test_one_random_group_has_no_deviation(compared):
    """What is less it is known; of the three columns in units of it, none has a value."""
    compared.control(random=("random1",))
    rows = compared.gather()
    assert [row["rank_deficit_less_random"] for row in rows] == [-1.0, -1.0, -1.0, 0.5]
    assert {row[name] for row in rows for name in job.AGAINST_RANDOM if "_z_" in name} == {None}


def test_without_random_groups_the_columns_are_there_and_missing(study):
    """All other columns are as with them."""
    rows = parquet.read(study.study, job.CELLS, optional=job.AGAINST_RANDOM).to_pylist()
    assert len(job.AGAINST_RANDOM) == 6
    assert {row[name] for row in rows for name in job.AGAINST_RANDOM} == {None}
    with pytest.raises(StudyError, match="column rank_deficit_less_random lacks values"):
        parquet.read(study.study, job.CELLS)


def test_groups_are_gathered_by_hand(compared):
    """A row per group and intervention."""
    compared.control(values=(0.0, 0.5))
    rows = compared.gather_groups()
    assert [(row["group"], row["intervention"]) for row in rows] == [
        ("random0", "constant 0.5"),
        ("random0", "zero"),
        ("random1", "constant 0.5"),
        ("random1", "zero"),
    ]
    same = {"network": "toy", "layer": "conv1", "depth": 0, "class_id": "a", "kind": "random", "protocol": "published"}
    assert all(row | same | {"units": 2} == row for row in rows)
    assert [row["rank_deficit"] for row in rows] == [0, 0, 1, 1]
    assert [row["rank_change"] for row in rows] == [0, 0, 0.5, 0.5]
    first, second = [5, 3, 2], [5, 1, 6]
    assert rows[3]["log_p_change"] == pytest.approx(
        (_change(first, [1, 3, 2]) + _change(second, [3, 1, 2])) / 2, abs=1e-5
    )


def _of_another(column, value):
    return lambda rows: [row | {column: value} for row in rows]


def _twice(rows):
    return rows + [row for row in rows if row["group"] == "random0"]


def _twice_and_larger(rows):
    return rows + [row | {"units": 3} for row in rows if row["group"] == "random0"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_of_another("network", "net"), "is not of toy, conv1, a"),
        (_of_another("layer", "conv2"), "is not of toy, conv1, a"),
        (_of_another("class_id", "b"), "is not of toy, conv1, a"),
        # One row alone.
        (lambda rows: [*rows[:-1], rows[-1] | {"class_id": "b"}], "is not of toy, conv1, a"),
        (_twice, "a group is there twice"),
        (_twice_and_larger, "a group is there twice"),
        # A group of two sizes: one image each.
        (lambda rows: [*rows[:-1], rows[-1] | {"units": 3}], "a group is there twice"),
        (lambda rows: [row | {"rank_ablated": -1} for row in rows], "a rank is negative"),
        (lambda rows: [row | {"log_p_ablated": math.inf} for row in rows], "a log-probability is not finite"),
    ],
)
def test_a_table_of_controls_that_does_not_serve_is_refused(compared, harm, words):
    """By its name, whoever reads it."""
    parquet.write(compared.path, harm(parquet.read(compared.path).to_pylist()), controls.SCHEMA)
    for gather in (compared.gather, compared.gather_groups):
        with pytest.raises(StudyError, match=rf"controls/a\.parquet: {words}; make it again"):
            gather()


@pytest.mark.parametrize(
    "harm",
    [
        lambda rows: [row | {"image_id": row["image_id"] + 1} for row in rows],
        lambda rows: rows[::-1],
        lambda rows: rows[1:],
        lambda rows: [row for row in rows if row["image_id"] == rows[0]["image_id"]],
    ],
    ids=["others", "order", "a row less", "an image less"],
)
def test_controls_of_other_images_are_refused(compared, harm):
    """A cell is compared with groups that were ablated in the same images."""
    parquet.write(compared.path, harm(parquet.read(compared.path).to_pylist()), controls.SCHEMA)
    with pytest.raises(
        StudyError, match=r"controls/a\.parquet: is not of the images of .*ablations/a/s0m0\.parquet; make it again"
    ):
        compared.gather()


def test_controls_of_another_study_are_refused(compared):
    with pytest.raises(StudyError, match=r"controls/a\.parquet: is of study unknown, but the layer is of study tiny"):
        compared.gather_groups({"study": "tiny"})
