"""The command on the images that a network recognises, on the tiny study."""

import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config

from commands import finished as finished_study
from commands import recognised
from inputs.study import Study
from readout import StudyError
from workflow import ROOT, ran

pytestmark = pytest.mark.workflow


@pytest.fixture
def study(finished, monkeypatch):
    """The tiny study, finished."""
    monkeypatch.chdir(finished.folder)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, finished.config)
    return Study(config)


def test_of_all_images_nothing_changes(study):
    """A bound that no rank reaches: every column is that of the tables."""
    network = next(iter(study.networks.values()))
    columns, counts = recognised.recognised(study, network, 10**6)
    expected = finished_study.outcomes(study)[network.name].columns
    assert {tuple(row) for row in counts.tolist()} == {(20, 30)}
    assert len(columns) > 40
    for name, values in columns.items():
        np.testing.assert_allclose(values, expected.get(name, np.nan), rtol=1e-12, atol=0, err_msg=name)


def test_the_images_that_are_left_are_those_of_a_low_rank(study, finished):
    """Against pandas: deficits and separation losses of one cell from its images with rank 0 or 1."""
    network = next(iter(study.networks.values()))
    columns, counts = recognised.recognised(study, network, 2)
    lay, cell = 0, "s3m3"
    k = int(np.flatnonzero(np.isfinite(columns["rank_deficit"][:, 0, 0, 0]))[0])
    assert (counts[k] > 0).all() and counts[k].sum() < 50
    target, layer = network.targets[k], network.layers[lay]
    base = {c: pd.read_parquet(finished.results / "baseline" / network.name / f"{c}.parquet") for c in network.classes}
    place = finished.results / "ablations" / network.name / layer / target / f"{cell}.parquet"
    rows = pd.read_parquet(place)
    rows = rows[rows["rank_baseline"] < 2]
    published = rows[rows["protocol"] == "published"]
    deficit = (published["rank_ablated"] - published["rank_baseline"]).clip(lower=0).mean()
    assert columns["rank_deficit"][k, lay, -1, -1] == deficit
    own = rows[(rows["protocol"] == "crossfit") & (rows["intervention"] == "mean")]
    is_target = own["image_id"].isin(published["image_id"])
    assert counts[k].tolist() == [is_target.sum(), (~is_target).sum()]
    z = pd.concat(base.values()).set_index("image_id")["z"].str[int(target)]
    before = z.loc[own["image_id"]].to_numpy(float)
    after = own["z_ablated"].str[0].to_numpy(float)
    side = is_target.to_numpy()
    gaps = [x[side].mean() - x[~side].mean() for x in (before, after)]
    assert columns["separation_loss_mean"][k, lay, -1, -1] == pytest.approx(1 - gaps[1] / gaps[0], rel=1e-5)
    share = own["energy"].sum() / own["energy_layer"].sum()
    assert columns["energy_mean"][k, lay, -1, -1] == pytest.approx(share, rel=1e-9)


def test_where_nothing_is_recognised_it_is_said(study):
    with pytest.raises(StudyError, match="no target has images of both sides with a baseline rank below 0"):
        recognised.recognised(study, next(iter(study.networks.values())), 0)


def test_what_is_printed(study, finished):
    """Every claim, with both verdicts; every cell; a study that is not there is named."""
    path = finished.folder / "study.yaml"
    command = [sys.executable, "-m", "commands.recognised"]
    environment = {"PYTHONPATH": str(finished.folder / "workflow")}
    done = ran([*command, str(path), "--below", "3"], cwd=finished.folder, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Images with a baseline rank below 3:"
    assert sum(line.startswith(tuple(f"| {claim} | corrected" for claim in range(1, 9))) for line in lines) == 8
    assert sum(line.startswith("| s") for line in lines) == 16
    done = ran([*command, "nowhere.yaml"], cwd=finished.folder, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "nowhere.yaml" in done.stderr
