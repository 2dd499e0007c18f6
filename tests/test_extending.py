"""docs/extending.md followed through: its blocks put into a copy of the project, its study run, its results checked."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from workflow import ROOT, Project, ran

pytestmark = pytest.mark.workflow

STEP = re.compile(
    r"^`(?P<file>[^`]+)`, (?P<where>before|after|new)(?: `(?P<line>[^`]+)`)?:\n\n```\w+\n(?P<block>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def apply(folder, step):
    """One block put where the page says; the line that it names must be there once."""
    file, where, named, block = step.group("file", "where", "line", "block")
    if where == "new":
        assert not (folder / file).exists()
        (folder / file).write_text(block)
        return
    lines = (folder / file).read_text().splitlines(keepends=True)
    (at,) = (i for i, line in enumerate(lines) if line.strip() == named)
    if not block.startswith(" "):
        block += "\n\n"
    lines.insert(at + (where == "after"), block)
    (folder / file).write_text("".join(lines))


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with all that the page adds, its study run but for the claims and the other figures."""
    page = (ROOT / "docs" / "extending.md").read_text()
    steps = list(STEP.finditer(page))
    assert len(steps) == page.count("\n```") / 2, "a block without a line that says where it goes"
    project = Project.create(tmp_path_factory.mktemp("extended") / "project", {"study": "extended"})
    for step in steps:
        apply(project.folder, step)
    others = ["figure1", "figure2", "figure3", "supplement_depth", "supplement_interventions", "reading_needing"]
    others += ["supplement_controls", "supplement_curves", "importance_figure"]
    project.run("--omit-from", "claims", *others, study="extended.yaml")
    return project


@pytest.fixture(scope="module")
def cells(extended):
    return pd.read_parquet(extended.results / "tables" / "cells.parquet")


def test_the_network_is_studied_in_all_its_layers(cells):
    """Units by hand: 6 x 28 x 28, 16 x 10 x 10, 120 and 84, in sixteen cells."""
    assert set(cells["network"]) == {"lenet"}
    units = cells.groupby("layer")["units"].sum()
    assert units.to_dict() == {"conv1": 4704, "conv2": 1600, "dense1": 120, "dense2": 84}
    assert len(cells) == 4 * 16


def test_the_data_set_lists_its_images(extended):
    """Each image once, with the label that scikit-learn gives it."""
    listed = pd.read_parquet(extended.results / "images.parquet")
    assert sorted(listed["image_id"]) == list(range(1797))
    assert listed["label"].tolist() == load_digits().target[listed["image_id"]].tolist()
    assert listed.groupby(["class_id", "split"]).size().xs("study", level="split").tolist() == [20] * 10


def test_its_images_are_what_the_network_was_trained_on(extended):
    """A network that learned them is right far more often than one in ten."""
    accuracy = pd.read_parquet(extended.results / "networks" / "lenet" / "accuracy.parquet")
    assert accuracy.set_index("split").loc["study", "top1"] > 0.5


def test_the_measure_is_a_column_of_the_tables(extended, cells):
    """For one cell by hand: the squared distance of each probability of an image that the probe has not seen from 0 or 1, the sides weighing the same."""
    row = cells[(cells["layer"] == "dense1") & (cells["cell"] == "s2m1")].iloc[0]
    probe = pd.read_parquet(extended.results / "probes" / "lenet" / "dense1" / "3" / "s2m1.parquet").iloc[0]
    target = [(1 - image["p"]) ** 2 for image in probe["held_out"] if image["y"] == 1]
    others = [image["p"] ** 2 for image in probe["held_out"] if image["y"] == 0]
    assert (len(target), len(others)) == (20, 60)
    assert row["brier"] == pytest.approx((sum(target) / 20 + sum(others) / 60) / 2, abs=1e-12)
    assert cells["brier"].between(0, 1).all()


def test_the_measure_of_importance_ranks_the_units(extended):
    """Its tops are ablated beside the others', and a unit of fold 0 has its deviation over the images outside."""
    at = extended.results / "importance" / "lenet" / "conv2" / "3"
    ranked = pd.read_parquet(at / "rankings.parquet")
    assert {"selectivity", "deviation"} < set(ranked["measure"])
    extended.run("results/extended/importance/lenet/conv2/3/units.parquet", study="extended.yaml")
    units = pd.read_parquet(at / "units.parquet").set_index(["measure", "fold", "unit"])["value"]
    files = [pd.read_parquet(extended.results / "activations" / "lenet" / "conv2" / f"{c}.parquet") for c in "0123"]
    images = pd.concat(files)
    outside = np.stack(images.loc[images["fold"] != 0, "activation"])
    assert units["deviation", 0, 7] == pytest.approx(outside[:, 7].std(dtype=np.float64), rel=1e-6)
    faithful = pd.read_parquet(extended.results / "faithfulness.parquet")
    assert "deviation" in set(faithful["label"])


def test_the_kind_of_group_is_ablated(extended):
    """A sixteenth of each layer's units, at zero, in the table of groups."""
    groups = pd.read_parquet(extended.results / "tables" / "groups.parquet")
    rows = groups[groups["kind"] == "neighbours"]
    assert rows.set_index("layer")["units"].to_dict() == {"conv1": 294, "conv2": 100, "dense1": 7, "dense2": 5}
    assert set(rows["intervention"]) == {"zero"}
    assert rows["energy"].between(0, 1).all()


def test_the_intervention_removes_a_quarter_of_the_energy(extended, cells):
    """(a - (a + m) / 2)^2 is a quarter of (a - m)^2, in every image; and its outcomes are columns."""
    ablated = pd.read_parquet(extended.results / "ablations" / "lenet" / "dense1" / "3" / "s3m3.parquet")
    energy = ablated.set_index(["intervention", "image_id"])["energy"]
    assert energy["half"].sort_index().tolist() == pytest.approx((energy["mean"] / 4).sort_index().tolist(), rel=1e-5)
    assert cells["separation_loss_half"].notna().all()


def test_the_figure_is_drawn(extended):
    """A panel for one network: about 3.7 x 3 inches at 200 dots, and not blank."""
    with Image.open(extended.results / "figures" / "supplement_brier.png") as figure:
        assert 400 < figure.width < 1000 and 300 < figure.height < 800
        assert len(np.unique(np.asarray(figure.convert("L")))) > 20
    assert (extended.results / "figures" / "supplement_brier.svg").stat().st_size > 1000


def test_the_report_has_its_caption(extended):
    extended.run("--report", "extended.html", "results/extended/figures/supplement_brier.png", study="extended.yaml")
    assert "is what a probability of one half for every image gives" in (extended.folder / "extended.html").read_text()


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--config", ROOT / "pyproject.toml", "workflow"],
        ["ruff", "format", "--check", "--config", ROOT / "pyproject.toml", "workflow"],
        ["snakefmt", "--check", "--config", ROOT / "pyproject.toml", "workflow/rules/figures.smk"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_the_page_s_code_is_in_the_project_s_style(extended, command):
    command = [sys.executable, "-m", *command]
    done = ran(command, cwd=extended.folder)
    assert done.returncode == 0, done.stdout + done.stderr
