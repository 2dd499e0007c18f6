"""Tables: rank deficit and rank change of a cell, and the toy network through the jobs of every step."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import NO_ORIGINS
from jobs import ablations, activations, networks, probes
from jobs import tables as job
from readout import StudyError
from readout.tables import effect
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


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1, max_size=50))
def test_the_deficit_is_the_change_without_its_gains(ranks):
    """The deficit is never below the change nor below zero; nothing changed is zero."""
    baseline, ablated = (np.array(column, np.int32) for column in zip(*ranks, strict=True))
    deficit, change = effect(baseline, ablated)
    assert deficit >= max(0.0, change)
    gains = effect(ablated, baseline)[0]
    assert change == pytest.approx(deficit - gains, abs=1e-9)
    assert effect(baseline, baseline) == (0.0, 0.0)


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
