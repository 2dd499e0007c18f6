"""Same in, same out: from scratch, on one core or two, in any order of the classes, in batches of any size."""

import copy

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from inputs.sources import ImageSource, NetworkSource
from jobs import ablations, activations, cells, images, networks, probes
from readout.relatives import BUILDERS
from workflow import Project

CLASSES = ("a", "b")


@pytest.mark.slow
@pytest.mark.workflow
def test_from_scratch_on_one_core_with_the_classes_in_another_order(finished, tmp_path):
    """Every table equals that of the first run, which had two cores."""
    config = copy.deepcopy(finished.config)
    for key in ("classes", "targets"):
        config["networks"][0][key].reverse()
    project = Project.create(tmp_path / "project", config)
    project.run("--cores", "1")
    found = {path.relative_to(project.results): path for path in project.results.rglob("*.parquet")}
    expected = {path.relative_to(finished.results): path for path in finished.results.rglob("*.parquet")}
    assert found.keys() == expected.keys()
    for name, path in expected.items():
        assert pq.read_table(found[name]).equals(pq.read_table(path)), name


@pytest.fixture
def study(tmp_path, random_network):
    """Runs a network's jobs on two classes of 35 images, in batches of so many; the tables of cells, probe and ablation."""
    generator = np.random.default_rng(0)
    for class_id in CLASSES:
        (tmp_path / "data" / class_id).mkdir(parents=True)
        for i in range(35):
            pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / class_id / f"{i:02d}.png")
    opening = {"dataset": "folder", "path": str(tmp_path / "data")}
    transform = {"resize": None, "crop": 32, "mean": [0.5] * 3, "std": [0.25] * 3}

    def run(model, layer, size, monkeypatch):
        monkeypatch.setattr(
            networks, "batches", lambda count, rows: [slice(i, min(i + size, count)) for i in range(0, count, size)]
        )
        folder = tmp_path / model / str(size)
        files = {name: str(folder / f"{name}.parquet") for name in ("images", "layers", "cells", "probe", "ablation")}
        weights = str(tmp_path / f"{model}.pt")
        torch.save(random_network(model).state_dict(), weights)
        source = NetworkSource(model, 10, weights, ImageSource(**opening, transform=transform))
        images.list_images(
            files["images"], **opening, labels={"a": 4, "b": 7}, study=35, train=False, split_seed=0, fold_seed=0
        )
        networks.list_layers(files["layers"], source=source, chosen=[layer], cells=16, device="cpu")
        file = {
            (kind, c): str(folder / kind / layer / f"{c}.parquet")
            for kind in ("activations", "means", "baseline")
            for c in CLASSES
        }
        for c in CLASSES:
            activations.extract(
                path_to_images=files["images"],
                path_to_layers=files["layers"],
                paths_to_activations={layer: file["activations", c]},
                paths_to_means={layer: file["means", c]},
                path_to_baseline=file["baseline", c],
                class_id=c,
                source=source,
                dtype="float32",
                folds=True,
                device="cpu",
            )
        means = {"path_to_target": file["means", "a"], "paths_to_others": [file["means", "b"]]}
        cells.assign(files["cells"], **means, layer=layer, bins=(4, 4), folds=True)
        place = {"path_to_cells": files["cells"], "path_to_layers": files["layers"]}
        place |= {"network": "n", "layer": layer, "class_id": "a"}
        cell = {"cell": "s3m3", "kind": "cell", "seed": 0}
        grid = ablations.Grid(
            **place,
            others=("b",),
            path_to_baseline=file["baseline", "a"],
            paths_to_others=(file["baseline", "b"],),
            path_to_images=files["images"],
            source=source,
            device="cpu",
        )
        how = {"protocols": ["published", "crossfit"], "interventions": ["zero", "mean", "erase"]}
        ablations.ablate(grid, path_to_ablation=files["ablation"], **cell, **how)
        probes.probe(
            path_to_probe=files["probe"],
            path_to_target=file["activations", "a"],
            paths_to_others=[file["activations", "b"]],
            **place,
            **cell,
            published={"draws": 5, "units": 20, "C": 1.0},
            crossfit={"C": 10.0, "draws": 2},
            layers=[layer],
            cells=16,
        )
        return tuple(pq.read_table(files[name]).to_pandas() for name in ("cells", "probe", "ablation"))

    return run


LAYERS = {
    "small_alexnet": "conv3",
    "small_vgg16": "conv4",
    "small_mobilenet_v2": "block3.expand",
    "small_resnet": "block2.out",
}


@pytest.mark.parametrize("model", BUILDERS)
def test_batches_of_seven_and_of_all(model, study, monkeypatch):
    """The study's own batches have sixteen images and more, and give equal bits; smaller ones move the last bits at most.

    Then a unit at the border of two cells may change sides: one in a thousand, at most.
    """
    small, large = (study(model, LAYERS[model], size, monkeypatch) for size in (7, 64))
    assert (small[0]["cell"] != large[0]["cell"]).mean() <= 0.001
    np.testing.assert_allclose(small[0]["selectivity"], large[0]["selectivity"], rtol=0, atol=1e-5)
    for name in ("accuracy", "accuracy_train", "auroc"):
        assert small[1][name].item() == pytest.approx(large[1][name].item(), abs=0.03), name
    # What is replaced by means, or along a direction, rounds them too, and two scores may be closer than that.
    differ = small[2]["rank_ablated"] != large[2]["rank_ablated"]
    assert not differ[small[2]["intervention"] == "zero"].any() and differ.mean() <= 0.001
    assert small[2]["rank_baseline"].tolist() == large[2]["rank_baseline"].tolist()
    np.testing.assert_allclose(small[2]["log_p_ablated"], large[2]["log_p_ablated"], atol=1e-4)
    z = [np.stack(table["z_ablated"].dropna()) for table in (small[2], large[2])]
    assert z[0].shape == (3 * (35 + 10), 2)
    np.testing.assert_allclose(*z, atol=1e-4)
    np.testing.assert_allclose(small[2]["energy"], large[2]["energy"], rtol=1e-4, atol=1e-5)
    # The ablation acts, and the ranks are not all alike.
    assert (large[2]["rank_ablated"] != large[2]["rank_baseline"]).any()
