"""The occlusion task through Snakemake: its tables, what made them, what is recomputed, the page, and the answers."""

import json
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from jobs import pictures
from jobs.page import plans
from readout import answers, legibility_page
from runtime import code, parquet, provenance
from workflow import ROOT, TINY, ran

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TASK = {"sets": 3, "bin": 3, "references": 5, "visualisations": {"batch": 2, "steps": 3}}
AT = {"network": "alexnet", "layer": "conv5", "class_id": "0", "cell": "s3m3"}
GRID = "alexnet/conv5/0"
STEPS = {"pool": 1, "image_sets": 1, "occlusions": 1, "windows": 1, "visualisations": 16, "trials": 1, "observers": 1}
SHOWN = {"trials": 1, "observers": 1}
JUDGED = dict.fromkeys(("legibility", "legibility_figure", "legibility_cells", "legibility_gain"), 1)
"""What follows from answers."""
BEHIND = JUDGED | {"stimuli": 1}
"""What follows from trials."""


@pytest.fixture(scope="module")
def occluded(finished, tmp_path_factory):
    """The tiny study with the task, which is run in a copy of its results; not to be changed."""
    project = finished.copy(tmp_path_factory.mktemp("occlusion") / "project")
    project.before = project.stamps()
    project.write(TINY | {"occlusion": TASK})
    project.plan = project.planned()
    project.printed = project.run()
    return project


def documented() -> dict[str, list[str]]:
    """Columns of the task's tables by file, as docs/tables.md has them."""
    found = {}
    for line in (ROOT / "docs" / "tables.md").read_text().splitlines():
        if line.startswith("| `") and line.count("|") == 4:
            _, file, columns, _, _ = (part.strip() for part in line.split("|"))
            found[file.strip("`")] = columns.replace("`", "").split(", ")
    folders = ("occlusions", "visualisations", "trials", "observers", "legibility")
    return {file: columns for file, columns in found.items() if file.startswith(folders)}


def read(project, file: str) -> pd.DataFrame:
    return pd.read_parquet(project.results / file)


def test_the_task_adds_its_jobs_and_changes_nothing_else(occluded):
    assert occluded.plan == STEPS | BEHIND
    after = occluded.stamps()
    assert {file: after[file] for file in occluded.before} == occluded.before
    # A second run finds nothing to do.
    assert occluded.planned() == {}


def test_every_table_has_the_columns_of_the_documentation(occluded):
    tables = documented()
    assert len(tables) == 11
    for pattern, columns in tables.items():
        assert pq.read_schema(occluded.results / pattern.format(**AT)).names == columns, pattern


def test_every_table_carries_what_made_it(occluded):
    for file in ("occlusions", "visualisations", "trials", "observers"):
        for path in (occluded.results / file).rglob("*.parquet"):
            made = provenance.of(parquet.schema(path).metadata)
            assert (made["study"], made["step"], made["code"]) == ("tiny", file, code.digest(file)), path


def test_trials_show_what_the_steps_before_made(occluded):
    trials = read(occluded, f"trials/{GRID}/trials.parquet")
    extremes = read(occluded, f"occlusions/{GRID}/extremes.parquet").set_index(["unit", "set"])
    stimuli = parquet.read(occluded.results / f"trials/{GRID}/stimuli.parquet").to_pylist()
    shown = {row["stimulus"]: pictures.pixels(row["png"]) for row in stimuli}
    valid = extremes[extremes["valid"]]
    assert len(trials) == 5 * len(valid) > 0
    assert trials["trial"].is_unique
    made = pd.concat(
        [read(occluded, f"visualisations/{GRID}/s{s}m{m}.parquet") for s in range(4) for m in range(4)]
    ).dropna(subset="png")
    for (unit, number), rows in trials.groupby(["unit", "set"]):
        rows = rows.set_index("condition")
        # The queries are the same in all conditions: the base image but for one square.
        assert (rows[["base", "min", "max"]].nunique() == 1).all()
        row = valid.loc[(unit, number)]
        for name in ("min", "max"):
            base, query = (shown[rows.iloc[0][key]].astype(int) for key in ("base", name))
            top, left, side = row[f"{name}_top"], row[f"{name}_left"], row["size"]
            inside = np.zeros(base.shape[:2], bool)
            inside[top : top + side, left : left + side] = True
            assert (query[~inside] == base[~inside]).all()
            mean = base[inside].mean(0)
            assert np.abs(query[inside] - mean).max() <= 1
        references = rows["references"].map(list)
        assert {name: len(names) for name, names in references.items()} == {
            "none": 0,
            "natural": 5,
            "synthetic": 2,
            "mixed": 5,
            "blur": 5,
        }
        of_unit = made[made["unit"] == unit]
        for condition in ("synthetic", "mixed"):
            pngs = of_unit[of_unit["batch"] == condition].sort_values("index")["png"]
            assert references[condition][-len(pngs) :] == [pictures.digest(png) for png in pngs]
        # The reference of the strongest bin stands before the visualisations.
        assert references["mixed"][0] == references["natural"][-1]
        # Near the window a blurred reference is the photograph.
        for plain, soft in zip(references["natural"], references["blur"], strict=True):
            assert plain != soft
            assert np.abs(shown[plain].astype(int) - shown[soft]).max() < 255
            assert (shown[plain] == shown[soft]).mean() > (13 / 32) ** 2


def test_names_of_pictures_tell_no_role(occluded):
    """Hashes of their bytes, in order; the names of trials likewise say nothing of what is right."""
    table = read(occluded, f"trials/{GRID}/stimuli.parquet")
    assert table["stimulus"].is_monotonic_increasing
    assert all(pictures.digest(png) == name for name, png in zip(table["stimulus"], table["png"], strict=True))
    trials = read(occluded, f"trials/{GRID}/trials.parquet")
    assert trials["trial"].str.fullmatch("[0-9a-f]{16}").all()


def test_observers_answer_every_trial(occluded):
    found = read(occluded, "observers/alexnet/observers.parquet")
    trials = read(occluded, f"trials/{GRID}/trials.parquet")
    assert set(found["trial"]) == set(trials["trial"])
    oracle = found[found["observer"] == "oracle"]
    assert (oracle["correct"] == 1).all()
    assert set(oracle["condition"]) == {"none"}
    scores = read(occluded, "observers/alexnet/interpretability.parquet")
    units = read(occluded, f"occlusions/{GRID}/units.parquet")
    assert set(scores["unit"]) == set(units.loc[units["status"] == "ok", "unit"])
    page = (occluded.results / "legibility.html").read_text()
    assert "proxy" in page


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # Another number of units draws them anew.
        ({"units": 2}, {name: STEPS[name] for name in STEPS if name != "pool"} | BEHIND),
        # Fewer pictures that may be shown.
        ({"pool": 4000}, STEPS | BEHIND),
        # More steps of the optimiser; what is not made by it is left as it is.
        ({"visualisations": {"batch": 2, "steps": 4}}, {"visualisations": 16} | SHOWN | BEHIND),
        # Other squares are looked for in the same images, and leave the visualisations as they are.
        ({"side": 0.5}, {"occlusions": 1, "windows": 1} | SHOWN | BEHIND),
        ({"blur": 8}, {"windows": 1} | SHOWN | BEHIND),
        ({"conditions": ["none", "natural"]}, SHOWN | BEHIND),
    ],
    ids=["units", "pool", "visualisations", "side", "blur", "conditions"],
)
def test_a_change_recomputes_what_depends_on_it(occluded, tmp_path, change, expected):
    project = occluded.copy(tmp_path / "project")
    project.write(TINY | {"occlusion": TASK | change})
    assert project.planned() == expected


@pytest.mark.parametrize("target", ["page", "legibility", "stimuli", "results/tiny/legibility.parquet"])
def test_without_the_task_its_targets_say_so(finished, target):
    printed = finished.fail("--dry-run", target)
    assert "occlusion: is null in this study; give it its settings, as config.yaml does" in printed


def test_channels_of_a_whole_layer(occluded, tmp_path):
    """As published, channels of each layer, whose observers learn from the other layers, too."""
    project = occluded.copy(tmp_path / "project")
    task = TASK | {"unit": "channel", "units": 6, "per": "layer", "layers": ["conv5", "dense1"], "targets": "all"}
    project.write(TINY | {"occlusion": task | {"conditions": ["none", "natural"], "visualisations": None}})
    project.run()
    drawn = {
        (layer, target): set(read(project, f"occlusions/alexnet/{layer}/{target}/units.parquet")["unit"])
        for layer in ("conv5", "dense1")
        for target in ("0", "1")
    }
    # The channels are the same for both targets, in whatever cells.
    assert all(len(units) == 6 for units in drawn.values())
    assert drawn["conv5", "0"] == drawn["conv5", "1"]
    assert drawn["dense1", "0"] == drawn["dense1", "1"]
    found = read(project, "observers/alexnet/observers.parquet")
    prior = found[found["observer"] == "prior"]
    assert (prior["p"] != 0.5).any()
    assert found["observer"].str.contains("relative").any()


def test_an_untrained_network_stands_beside(occluded, tmp_path):
    """By two keys: it is among the networks of the task, and has the layer that the task looks at."""
    project = occluded.copy(tmp_path / "project")
    (network,) = TINY["networks"]
    untrained = network | {"name": "untrained", "weights": "random", "layers": ["conv5"], "targets": ["0"]}
    task = TASK | {"networks": ["alexnet", "untrained"], "conditions": ["none", "natural"], "visualisations": None}
    task |= {"layers": ["conv5"], "targets": ["0"]}
    project.write(TINY | {"networks": [network, untrained], "occlusion": task})
    project.run("results/tiny/legibility.html")
    table = read(project, "legibility.parquet")
    accuracies = table[(table["what"] == "accuracy") & (table["layer"] == "all")]
    assert set(accuracies["network"]) == {"alexnet", "untrained"}
    page = (project.results / "legibility.html").read_text()
    assert "Untrained: a control" in page
    assert legibility_page.ALONE not in page
    assert legibility_page.ALONE in (occluded.results / "legibility.html").read_text()


def test_the_report_has_the_captions_of_the_figures(occluded, tmp_path):
    project = occluded.copy(tmp_path / "project")
    project.run("--report", "report.html")
    report = (project.folder / "report.html").read_text()
    for said in (
        "What is shown in trials",
        "How often observers choose",
        "Accuracy of each observer",
        "What references add",
    ):
        assert said in report


def test_a_file_of_another_study_is_refused(occluded, tmp_path):
    project = occluded.copy(tmp_path / "project")
    path = project.results / "observers/alexnet/observers.parquet"
    table = pq.read_table(path)
    made = provenance.of(table.schema.metadata)
    parquet.write(path, table.to_pylist(), table.schema, json.dumps(made | {"study": "other"}))
    printed = project.fail("results/tiny/legibility.parquet")
    assert "observers.parquet: is of study other" in printed


def test_people_answer_and_count(occluded, tmp_path):
    """The page is made, people who know the answers take it, and their answers stand beside the machines'."""
    project = occluded.copy(tmp_path / "project")
    project.run("page")
    site = project.results / "page" / "site"
    assert (site / "index.html").is_file()
    assert "http" not in (site / "trials.js").read_text()
    assert not (project.results / "page" / "responses.parquet").exists()
    saved = []
    study, page, planned = plans(project.results / "page" / "key.parquet")
    knows = answers.Person(skill=1.0, easy=1.0)
    for task in range(4):
        plan, _ = planned["natural", task]
        session = answers.simulate(knows, plan, study=study, page=page, condition="natural", task=task, seed=task)
        saved.append(tmp_path / f"answers{task}.json")
        saved[-1].write_text(answers.export(session))
    command = [sys.executable, "-m", "commands.ingest", project.results, *saved]
    done = ran(command, cwd=ROOT / "workflow", check=True)
    assert f"{len(saved)} sessions, {len(saved)} of them pass" in done.stdout
    assert project.planned() == JUDGED
    project.run("legibility")
    table = read(project, "legibility.parquet")
    people = table[(table["what"] == "accuracy") & (table["observer"] == "person") & (table["layer"] == "all")]
    assert set(people["condition"]) == {"natural"}
    assert (people["estimate"] == 1).all()
    # An edited file is refused by name, and the others are taken.
    saved[0].write_text(saved[0].read_text().replace("natural", "blur", 1))
    done = ran(command, cwd=ROOT / "workflow")
    assert done.returncode == 1
    assert saved[0].name in done.stderr
    assert f"{len(saved) - 1} sessions" in done.stdout
