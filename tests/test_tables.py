"""Tables: rank deficit and rank change of a cell, and the toy network through the jobs of every step."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import NO_ORIGINS
from jobs import ablations, activations, cells, images, networks, probes
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


@pytest.fixture
def study(tmp_path, toy_model, toy, toy_target, toy_others) -> SimpleNamespace:
    """The toy of conftest.py as a study of class a against class b, two images each, through every job; 2 x 2 cells."""
    log, settings = tmp_path / "log", {"dataset": "folder", "path": str(tmp_path / "data")}
    for class_id, pictures in (("a", toy_target), ("b", toy_others)):
        (tmp_path / "data" / class_id).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            pixels = picture.permute(1, 2, 0).numpy().astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / class_id / f"{i}.png")
    torch.save(toy.state_dict(), tmp_path / "weights.pt")
    file = {name: str(tmp_path / f"{name}.parquet") for name in ("images", "layers", "cells", "layer", "study")}
    images.list_images(file["images"], **settings, labels={"a": 0, "b": 1}, study=2, train=False, seed=0, log=log)
    # Pixels as they are: from 0 to 255.
    transform = {"resize": None, "crop": 2, "mean": [0.0] * 3, "std": [1 / 255] * 3}
    weights = str(tmp_path / "weights.pt")
    network = {"model": toy_model, "outputs": 3, "weights": weights, "transform": transform}
    networks.list_layers(file["layers"], **network, chosen=["conv1"], cells=4, on="cpu", log=log)
    engine = network | settings | {"device": "cpu"}
    paths = SimpleNamespace(images=file["images"], layers=file["layers"], cells=file["cells"])
    means = {class_id: str(tmp_path / "means" / "conv1" / f"{class_id}.parquet") for class_id in "ab"}
    recorded = {class_id: str(tmp_path / "conv1" / f"{class_id}.parquet") for class_id in "ab"}
    for class_id in "ab":
        baseline = str(tmp_path / "baseline" / f"{class_id}.parquet")
        layer = [recorded[class_id]], [means[class_id]]
        activations.extract(paths, *layer, baseline, class_id, **engine, dtype="float32", log=log)
    cells.assign(file["cells"], target=means["a"], others=[means["b"]], bins=[2, 2], log=log)
    paths.baseline = str(tmp_path / "baseline" / "a.parquet")
    paths.target = recorded["a"]
    written = {"probes": [], "ablations": []}
    for cell in ("s0m0", "s0m1", "s1m0", "s1m1"):
        place = SimpleNamespace(network="toy", layer="conv1", class_id="a", cell=cell)
        for step, files in written.items():
            files.append(str(tmp_path / step / "a" / f"{cell}.parquet"))
        protocol = {"seed": 0, "draws": 3, "units": 1, "C": 1.0, "strength": 1.0}
        probes.probe(written["probes"][-1], paths, [recorded["b"]], place, **protocol, log=log)
        files = (paths.images, paths.layers)
        ablations.ablate(written["ablations"][-1], paths, *files, place, value=0.0, **engine, log=log)
    grid = str(tmp_path / "cells" / "a.parquet")
    parquet.write(grid, parquet.read(file["cells"]).to_pylist(), cells.SCHEMA)
    gathered = SimpleNamespace(layers=file["layers"], cells=[grid], **written)
    job.gather_layer(file["layer"], gathered, "conv1", origins=NO_ORIGINS, log=log)
    job.gather_study(file["study"], layers=[file["layer"]], log=log)
    return SimpleNamespace(**file, gathered=gathered, baseline=paths.baseline, log=log, tmp=tmp_path)


def _change(before: list[float], after: list[float]) -> float:
    """Change of the log-probability of output 0."""
    first, second = (s[0] - math.log(sum(map(math.exp, s))) for s in (before, after))
    return second - first


def test_the_toy_through_every_step(study):
    """Each cell's row, on paper: units {2, 7}, {1, 5}, {3, 6}, {0, 4} (test_cells), ranks as in test_ablations.

    t - o is -1 -1 | 0 -2 | 1 0 | 2 2 and t + o is 1 1 | 2 2 | 1 0 | 4 2, both over sqrt(2); unit 6 is dead.
    """
    rows = parquet.read(study.study, job.CELLS).to_pylist()
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
    activations.summarise(study.tmp / "accuracy.parquet", baselines=[study.baseline], log=study.log)
    (row,) = parquet.read(study.tmp / "accuracy.parquet", networks.ACCURACY).to_pylist()
    assert row == {"split": "study", "top1": 0.5, "top5": 1.0, "images": 2}


def test_the_layer_table_holds_what_each_image_did(study):
    """The claims' bootstrap draws images: those of the ablations and those of the held-out probes."""
    rows = parquet.read(study.layer, job.LAYER).to_pylist()
    last = rows[-1]
    assert [(i["rank_baseline"], i["rank_ablated"]) for i in last["images"]] == [(0, 2), (1, 2)]
    ids = [i["image_id"] for i in last["held_out"]]
    assert ids == sorted(ids)
    assert {i["image_id"] for i in last["images"]} == {i["image_id"] for i in last["held_out"] if i["y"] == 1}
    assert all(0 < i["p"] < 1 for i in last["held_out"])


def test_a_log_probability_that_is_not_finite_is_an_error(study):
    """A broken file is named and not averaged."""
    file = study.gathered.ablations[2]
    table = parquet.read(file, ablations.SCHEMA).to_pydict()
    parquet.write(file, table | {"log_p_ablated": [math.nan, 0.0]}, ablations.SCHEMA)
    with pytest.raises(StudyError, match=r"ablations/a/s1m0\.parquet: a log-probability is not finite.*make it again"):
        job.gather_layer(study.layer, study.gathered, "conv1", origins=NO_ORIGINS, log=study.log)
