"""The study through Snakemake: its tables, what it recomputes after a change, what it says of bad input."""

import copy
import json
import re
import shlex
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from inputs import datasets
from readout import images as readout_images
from readout import models
from runtime import code, parquet, provenance
from workflow import ROOT, TINY, Project, ran

pytestmark = pytest.mark.workflow

LAYERS, TARGETS, CELLS = 3, 2, 16
CONTROLLED, PSEUDO = ("conv5", "dense2"), 2
"""Layers with controls, the first and the last, and pseudo-targets there."""
CONTROLS = len(CONTROLLED) * TARGETS
DRAWN = len(CONTROLLED) * PSEUDO
LOOKED = 2
"""Grids on which redundancy is looked at: of one target, on the first layer and the last."""
FIGURES = ("figure2", "figure3", "supplement_depth", "supplement_claims", "supplement_interventions")
FIGURES = (*FIGURES, "reading_needing", "supplement_controls", "importance_figure")
"""All but the first, which is of a grid, and the curves, which are of other groups than cells."""
BEHIND = dict.fromkeys(("tables", "claims", "faithfulness", *FIGURES), 1)
"""What follows from the rows of the cells, wherever one of them changed."""
OF_GROUPS = {"group_tables": 1, "supplement_curves": 1}
"""What follows from other groups, beside what follows from the cells, too."""
RANKED = {"importance": 2, "units": 1, "measure_tables": 1}
"""Measures of importance on the first and the last layer, of the first target; and of figure 1's grid once more."""


RANDOM = ("random0", "random1", "random2")
AGAINST = [f"{name}_{how}_random" for name in ("rank_deficit", "rank_change", "log_p_change") for how in ("less", "z")]
"""Columns that compare a cell with the random groups of its grid, of the published protocol."""


def changed(project, **changes):
    """The project with keys of its network or of its study replaced; mappings are merged."""
    config = copy.deepcopy(project.config)
    for key, value in changes.items():
        place = config["networks"][0] if key in config["networks"][0] else config
        place[key] = {**place.get(key, {}), **value} if isinstance(value, dict) else value
    project.write(config)
    return project


def append(path, line):
    path.write_text(path.read_text() + line + "\n")


def test_every_table_has_the_columns_of_the_documentation(finished):
    """docs/tables.md is the study's public interface: the tables it lists are there with the columns it lists."""
    documented = {}
    for line in (ROOT / "docs" / "tables.md").read_text().splitlines():
        if line.startswith("| `") and line.count("|") == 4:
            _, file, columns, _, _ = (part.strip() for part in line.split("|"))
            documented[file.strip("`")] = columns.replace("`", "").split(", ")
    assert len(documented) >= 14
    # No network of this study is planted, and it has no Shapley values: tests/test_planted.py and tests/test_shapley.py
    # have these tables.
    for file in (
        "networks/{network}/truth.parquet",
        "shapley/{network}/{layer}/{class_id}.parquet",
        "tables/shapley.parquet",
    ):
        del documented[file]
    # Nor has it the occlusion task, whose tables tests/test_occlusion_study.py has.
    folders = ("occlusions", "visualisations", "trials", "observers", "legibility")
    documented = {file: columns for file, columns in documented.items() if not file.startswith(folders)}
    # Without variants, which have a test of their own (tests/test_sensitivity.py).
    del documented["sensitivity/{variant}/claims.parquet"], documented["sensitivity/verdicts.parquet"]
    for pattern, columns in documented.items():
        at = {"network": "alexnet", "layer": "dense2", "class_id": "0", "cell": "s3m3", "pseudo": "pseudo0"}
        # Of single units that grid is kept of which figure 1 is.
        at |= {"layer": "conv5"} if pattern.endswith("units.parquet") else {}
        path = finished.results / pattern.format(**at)
        assert pq.read_schema(path).names == columns, pattern


def test_every_table_carries_what_made_it(finished):
    """The study, the step by whose module it was made, and the digests of that step's code and settings."""
    steps = {"layers": "networks", "accuracy": "networks", "means": "activations", "baseline": "activations"}
    steps |= {"others": "cells", "cells": "cells", "claims": "claims", "images": "images"}
    settings = {}
    for path in finished.results.rglob("*.parquet"):
        made = provenance.of(parquet.schema(path).metadata)
        folder = path.relative_to(finished.results).parts[0].removesuffix(".parquet")
        step = steps[path.stem] if folder == "networks" else steps.get(folder, folder)
        assert (made["study"], made["step"], made["code"]) == ("tiny", step, code.digest(step)), path
        settings.setdefault(folder, set()).add(made["settings"])
    assert len(settings) == 16
    # Nothing of a cell's place: it is in the file's name.
    of_grids = ("activations", "cells", "probes", "ablations", "controls", "pseudo", "redundancy")
    assert {len(settings[step]) for step in of_grids} == {1}
    # Rankings, and the units of one grid alone, which take fewer settings.
    assert len(settings["importance"]) == 2
    protocol = {"seed": 0, "published": {"C": 1.0, **TINY["probes"]["published"]}}
    protocol |= {"crossfit": {"C": 10.0, "draws": 10}, "layers": TINY["networks"][0]["layers"], "cells": CELLS}
    assert settings["probes"] == {provenance.digest(protocol)}


def test_command_of_the_documentation_shows_what_made_a_table(finished):
    (command,) = re.findall(r"^ +python (-c .*metadata.*)$", (ROOT / "docs" / "tables.md").read_text(), re.MULTILINE)
    arguments = shlex.split(command.replace("results/digits/", "results/tiny/"))
    done = ran([sys.executable, *arguments], cwd=finished.folder, check=True)
    assert json.loads(done.stdout)["study"] == "tiny"


def of_sample(ablation, images, others=3):
    """Whether the images of a cross-fitted ablation are those that it should have: two a fold of few other classes."""
    listed = images.merge(ablation, on="image_id", validate="one_to_one", suffixes=("", "_"))
    assert len(listed) == len(ablation)
    return sorted(listed.groupby("class_id").size()) == [10] * others + [20] and listed["fold"].equals(listed["fold_"])


def test_cells_table_is_complete_and_agrees_with_the_files_of_the_cells(finished):
    table = pd.read_parquet(finished.results / "tables" / "cells.parquet")
    assert len(table) == LAYERS * TARGETS * CELLS
    # What may be missing: a deviation where random groups do not differ, and shares of what is not there.
    missing = table.columns[table.isna().any()]
    compared = table.columns[table.columns.str.endswith("_random")]
    shares = {"erased_share", *(f"{name}_{i}" for name in ("d_prime_loss",) for i in ("zero", "mean", "erase"))}
    assert set(missing) - set(compared) <= shares | {"separation_loss_erase_less_directions"}
    assert set(table.loc[table[compared].notna().any(axis=1), "layer"]) == set(CONTROLLED)
    images = pd.read_parquet(finished.results / "images.parquet")
    for row in table.sample(12, random_state=0).to_dict("records"):
        place = f"{row['network']}/{row['layer']}/{row['class_id']}"
        ablation = pd.read_parquet(finished.results / "ablations" / place / f"{row['cell']}.parquet")
        published = ablation[ablation["protocol"] == "published"]
        change = published["rank_ablated"] - published["rank_baseline"]
        assert len(published) == 20
        assert row["rank_change"] == pytest.approx(change.mean())
        assert row["rank_deficit"] == pytest.approx(change.clip(lower=0).mean())
        for intervention, own in ablation[ablation["protocol"] == "crossfit"].groupby("intervention"):
            assert of_sample(own, images)
            target = own["image_id"].isin(published["image_id"])
            assert target.sum() == 20
            change = own["rank_ablated"] - own["rank_baseline"]
            assert row[f"rank_change_{intervention}"] == pytest.approx(change[target].mean())
            assert row[f"others_rank_change_{intervention}"] == pytest.approx(change[~target].mean())
            assert row[f"energy_{intervention}"] == pytest.approx(own["energy"].sum() / own["energy_layer"].sum())
            z = [own["z_ablated"].str[0][side].mean() for side in (target, ~target)]
            shift = sum(z) / 2 - before(finished, own, target)
            # Log-odds are kept in float32.
            assert row[f"criterion_shift_{intervention}"] == pytest.approx(shift, abs=1e-5)
        grid = pd.read_parquet(finished.results / "cells" / f"{place}.parquet")
        members = grid[grid["cell"] == row["cell"]]
        assert row["units"] == len(members)
        assert row["selectivity_mean"] == pytest.approx(members["selectivity"].mean(), abs=1e-6)
        probe = pd.read_parquet(finished.results / "probes" / place / f"{row['cell']}.parquet").iloc[0]
        assert row["accuracy"] == probe["accuracy"]
        held_out = pd.DataFrame(list(probe["held_out"]))
        right = (held_out["p"] > 0.5) == (held_out["y"] == 1)
        assert row["accuracy"] == pytest.approx(right.groupby(held_out["y"]).mean().mean())
        sample = held_out[held_out["image_id"].isin(own["image_id"])]
        pairs = np.subtract.outer(*(sample.loc[sample["y"] == y, "p"].to_numpy() for y in (1, 0)))
        assert row["auroc_sample"] == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())


def before(finished, rows, target):
    """Mean log-odds of class 0 or 1, whose images `target` marks, before any ablation; both sides weigh the same."""
    baseline = [pd.read_parquet(finished.results / "baseline" / "alexnet" / f"{c}.parquet").assign(c=c) for c in "0123"]
    own = rows.merge(pd.concat(baseline), on="image_id", validate="one_to_one")
    (label,) = set(own["c"][target.to_numpy()])
    z = own["z"].str[int(label)]
    return (z[target.to_numpy()].mean() + z[~target.to_numpy()].mean()) / 2


def test_cells_are_compared_with_the_random_groups_of_their_grid(finished):
    """Against pandas, on every row; missing is what has no deviation, and nothing else."""
    table = pd.read_parquet(finished.results / "tables" / "cells.parquet")
    groups = pd.read_parquet(finished.results / "tables" / "groups.parquet")
    groups = groups[groups["kind"] == "random"]
    assert len(groups) == CONTROLS * len(RANDOM) * 2
    at = ["network", "layer", "depth", "class_id"]
    assert (groups.groupby(at)["group"].unique().map(tuple) == RANDOM).all()
    table = table[table["layer"].isin(CONTROLLED)]
    moved = 0
    for name in ("rank_deficit", "rank_change", "log_p_change"):
        random = groups[groups["intervention"] == "zero"].groupby(at)[name].agg(["mean", "std"]).reset_index()
        both = table.merge(random, on=at, validate="many_to_one")
        assert len(both) == CONTROLS * CELLS
        less = both[name] - both["mean"]
        np.testing.assert_allclose(both[f"{name}_less_random"], less, rtol=0, atol=1e-12)
        differ = both["std"] > 1e-12
        assert (both[f"{name}_z_random"].notna() == differ).all()
        np.testing.assert_allclose(both[f"{name}_z_random"][differ], (less / both["std"])[differ], rtol=1e-9)
        moved += differ.sum()
    assert moved > 0
    for i, own in groups.groupby("intervention"):
        both = table.merge(own.groupby(at)["separation_loss"].mean().reset_index(), on=at)
        less = both[f"separation_loss_{i}"] - both["separation_loss"]
        np.testing.assert_allclose(both[f"separation_loss_{i}_less_random"], less, rtol=0, atol=1e-12)


def test_erasing_is_compared_with_random_directions(finished):
    """Of the first and of the last cell of the layers with controls, and of no other."""
    table = pd.read_parquet(finished.results / "tables" / "cells.parquet")
    groups = pd.read_parquet(finished.results / "tables" / "groups.parquet")
    drawn = groups[groups["intervention"].str.startswith("direction")].rename(columns={"group": "cell"})
    at = ["network", "layer", "class_id", "cell"]
    both = table.merge(drawn.groupby(at)["separation_loss"].mean().reset_index(), on=at)
    assert set(both["cell"]) == {"s0m0", "s3m3"}
    name = "separation_loss_erase_less_directions"
    less = both["separation_loss_erase"] - both["separation_loss"]
    np.testing.assert_allclose(both[name], less, rtol=0, atol=1e-12)
    assert len(both) == CONTROLS * 2 == table[name].notna().sum()


def test_groups_agree_with_the_files_of_the_controls(finished):
    """Means over the target's images; each group is there once."""
    table = pd.read_parquet(finished.results / "tables" / "groups.parquet")
    table = table[~table["kind"].isin(["pseudo", "ranked"])]
    expected = {"all": 1, "random": 3 * 2, "part": 3, "cell": 2 * 2 + CELLS}
    for (layer, class_id), grid in table.groupby(["layer", "class_id"]):
        assert (layer in CONTROLLED, class_id in "01") == (True, True)
        found = grid["kind"].value_counts().to_dict()
        # Of the three parts some may have no partner of equal energy.
        assert found.pop("matched", 0) <= 3
        assert found == expected
    assert not table.duplicated(["layer", "class_id", "group", "intervention"]).any()
    whole = table[table["kind"] == "all"]
    assert (whole["separation_loss"] - 1).abs().max() < 1e-5
    assert set(whole["energy"]) == {1.0}
    for row in table.to_dict("records"):
        assert row["protocol"] == "crossfit"
        place = f"{row['network']}/{row['layer']}/{row['class_id']}"
        control = pd.read_parquet(finished.results / "controls" / f"{place}.parquet")
        own = control[(control["group"] == row["group"]) & (control["intervention"] == row["intervention"])]
        assert len(own) == 20 + 3 * 10
        change = (own["rank_ablated"] - own["rank_baseline"])[:20]
        assert row["rank_change"] == pytest.approx(change.mean())
        assert row["rank_deficit"] == pytest.approx(change.clip(lower=0).mean())
        assert row["log_p_change"] == pytest.approx((own["log_p_ablated"] - own["log_p_baseline"])[:20].mean())
        grid = pd.read_parquet(finished.results / "cells" / f"{place}.parquet")
        if row["kind"] in ("random", "cell"):
            assert abs(row["units"] - len(grid) / CELLS) < 1


def test_pseudo_targets_agree_with_their_files(finished):
    """Of all four classes five images, of each fold four; the same in every layer."""
    table = pd.read_parquet(finished.results / "tables" / "groups.parquet")
    table = table[table["kind"] == "pseudo"]
    assert len(table) == DRAWN * CELLS * 2
    images = pd.read_parquet(finished.results / "images.parquet").set_index("image_id")
    drawn = {}
    for row in table.to_dict("records"):
        file = finished.results / "pseudo" / row["network"] / row["layer"] / f"{row['class_id']}.parquet"
        rows = pd.read_parquet(file)
        own = rows[(rows["group"] == row["group"]) & (rows["intervention"] == row["intervention"])]
        assert len(own) == 20
        drawn.setdefault(row["class_id"], set()).add(frozenset(own["image_id"]))
        change = own["rank_ablated"] - own["rank_baseline"]
        assert row["rank_change"] == pytest.approx(change.mean())
        assert row["energy"] == pytest.approx(own["energy"].sum() / own["energy_layer"].sum())
        assert set(own["auroc"]) == {row["auroc"]}
        assert np.isnan([row["separation_loss"], row["use"], row["others_rank_change"]]).all()
    assert {len(sets) for sets in drawn.values()} == {1}
    first, second = (images.loc[sorted(*sets)] for sets in drawn.values())
    for chosen in (first, second):
        assert chosen["class_id"].value_counts().to_dict() == dict.fromkeys("0123", 5)
        assert chosen["fold"].value_counts().to_dict() == dict.fromkeys(range(5), 4)
    assert set(first.index) != set(second.index)


def test_a_random_group_is_made_by_the_rules_of_the_cells(project):
    """Asked for by name: the same numbers as in the job that makes all of a grid's, and a probe of the same units."""
    place = "alexnet/dense2/0"
    project.run(f"results/tiny/ablations/{place}/random0.parquet", f"results/tiny/probes/{place}/random0.parquet")
    alone = pd.read_parquet(project.results / "ablations" / place / "random0.parquet")
    control = pd.read_parquet(project.results / "controls" / f"{place}.parquet")
    own = control[control["group"] == "random0"].reset_index(drop=True)
    # By itself it is ablated as the cells are, by zero and mean among others.
    alone = alone[(alone["protocol"] == "crossfit") & (alone["intervention"] != "erase")].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, own[list(alone.columns)])
    # Another group's are others.
    other = control[control["group"] == "random1"].reset_index(drop=True)
    assert not alone["log_p_ablated"].equals(other["log_p_ablated"])
    (probe,) = pd.read_parquet(project.results / "probes" / place / "random0.parquet").to_dict("records")
    assert (probe["cell"], probe["units"]) == ("random0", own["units"][0])
    # And a run of the study has nothing to do for it.
    assert "Nothing to be done" in project.run()


def test_a_group_that_the_study_has_not_is_refused(project):
    """Before anything runs."""
    for group in ("random3", "s4m0"):
        printed = project.fail("--dry-run", f"results/tiny/ablations/alexnet/dense1/0/{group}.parquet")
        assert group in printed


def test_random_groups_added_leave_cells_and_probes(project):
    """Those that were there stay what they are."""
    before = pd.read_parquet(project.results / "tables" / "groups.parquet")
    assert changed(project, controls={"random": 4}).planned() == BEHIND | {
        "controls": CONTROLS,
        "layer_tables": len(CONTROLLED),
        **OF_GROUPS,
    }
    project.run("results/tiny/tables/groups.parquet")
    after = pd.read_parquet(project.results / "tables" / "groups.parquet")
    assert len(after) == len(before) + CONTROLS * 2
    kept = after[after["group"] != "random3"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)


def test_without_controls_nothing_is_compared(project, tmp_path):
    """No job and no table of them; the columns of the cells are there, and missing."""
    before = pd.read_parquet(project.results / "tables" / "cells.parquet")
    planned = changed(project, controls=None).planned()
    alone = {name: 1 for name in BEHIND if name != "supplement_controls"}
    assert planned == alone | {"layer_tables": len(CONTROLLED), **OF_GROUPS}
    project.run("results/tiny/tables/cells.parquet")
    after = pd.read_parquet(project.results / "tables" / "cells.parquet")
    assert list(after.columns) == list(before.columns)
    compared = [name for name in after if name.endswith(("_random", "_less_directions"))]
    assert set(AGAINST) < set(compared)
    assert after[compared].isna().all().all()
    pd.testing.assert_frame_equal(after.drop(columns=compared), before.drop(columns=compared))
    # Also from scratch.
    fresh = Project.create(tmp_path / "fresh", project.config).planned()
    assert fresh["ablations"] == LAYERS * TARGETS * CELLS
    assert not {"controls", "pseudo", "supplement_controls"} & fresh.keys()


def test_cells_follow_from_the_activations(finished):
    """Selectivity and magnitude are the rotation of the class means."""
    base = finished.results / "activations" / "alexnet" / "conv5"
    means = {c: np.stack(pd.read_parquet(base / f"{c}.parquet")["activation"]).mean(0, dtype=float) for c in "0123"}
    grid = pd.read_parquet(finished.results / "cells" / "alexnet" / "conv5" / "0.parquet")
    t, o = means["0"], np.mean([means[c] for c in "123"], axis=0)
    np.testing.assert_allclose(grid["selectivity"], (t - o) / np.sqrt(2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grid["magnitude"], (t + o) / np.sqrt(2), rtol=1e-5, atol=1e-6)


def test_claims_table_judges_all_eight(finished):
    claims = pd.read_parquet(finished.results / "claims.parquet")
    assert set(claims["claim"]) == set(range(1, 9))
    # Two targets are too few for a corrected verdict; as published there is always one.
    assert set(claims.loc[claims["role"] == "published", "verdict"]) <= {"holds", "does not hold", "inconclusive"}
    assert set(claims.loc[claims["role"] != "published", "verdict"]) == {"no verdict", "inconclusive"}
    # A study without a MobileNetV2 cannot speak of it, and says so.
    lacking = claims[claims["network"] == "mobilenet_v2"]
    assert lacking["verdict"].tolist() == ["inconclusive"] * 2
    assert lacking["estimate"].isna().all()


def test_nothing_is_written_outside_the_results(finished):
    """But the caches: Snakemake's, matplotlib's list of fonts, and Python's own beside the modules."""
    changed = {path for path, stamp in finished.after.items() if finished.before.get(path) != stamp}
    assert finished.before.keys() <= finished.after.keys()
    caches = r"my project/\.snakemake/|my project/.*__pycache__/|home/\.cache/(snakemake|matplotlib)/"
    outside = [path for path in changed if not path.startswith("my project/results/tiny/")]
    assert sorted(path for path in outside if not re.match(caches, path)) == []
    assert len(changed) - len(outside) > 200


def test_progress_is_readable(finished):
    """A message a percent, none a cell."""
    assert "(100%) done" in finished.printed
    assert "rule probes" not in finished.printed
    assert len(finished.printed.splitlines()) < 600


def test_logs_of_cells_are_written_only_when_they_fail(finished):
    assert not list((finished.results / "logs" / "probes").rglob("*.log"))
    assert "top-1" in (finished.results / "logs" / "networks" / "alexnet.log").read_text()


def test_second_run_finds_nothing_to_do(project):
    before = project.stamps()
    assert "Nothing to be done" in project.run()
    assert project.stamps() == before


def test_the_catalog_s_snakefile_is_the_same_workflow(project, tmp_path):
    """All of a new study, nothing of a finished one, and the report, by either of the two."""
    new = Project.create(tmp_path / "new", TINY)
    assert new.planned("--snakefile", "workflow/Snakefile") == new.planned() | {"study": 1}
    assert "Nothing to be done" in project.run("--snakefile", "workflow/Snakefile")
    project.run("--snakefile", "workflow/Snakefile", "--report", "report.zip")
    assert (project.folder / "report.zip").stat().st_size > 100_000


def test_report(project):
    """The captions render, the figures are in."""
    project.run("--report", "report.zip")
    assert (project.folder / "report.zip").stat().st_size > 100_000


def test_ro_crate(project):
    """Every job of the study with what it read and wrote, as docs/sharing.md says."""
    pytest.importorskip("snakemake_report_plugin_fairscape", reason="an optional extra: envs/rocrate.txt")
    project.run("--reporter", "fairscape", "--report-fairscape-author", "Somebody")
    crate = json.loads((project.folder / "ro-crate-metadata.json").read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in crate}
    jobs = [entity for entity in crate if entity.get("name", "").startswith("ablations (")]
    assert len(jobs) == LAYERS * TARGETS * CELLS
    cell = next(job for job in jobs if "cell=s3m3, class_id=0, layer=dense1," in job["name"])
    files = {key: [entities[part["@id"]]["contentUrl"] for part in cell[key]] for key in ("usedDataset", "generated")}
    assert files["generated"] == ["results/tiny/ablations/alexnet/dense1/0/s3m3.parquet"]
    assert sorted(files["usedDataset"]) == [
        *(f"results/tiny/baseline/alexnet/{class_id}.parquet" for class_id in "0123"),
        "results/tiny/cells/alexnet/dense1/0.parquet",
        "results/tiny/images.parquet",
        "results/tiny/networks/alexnet/layers.parquet",
        "results/tiny/networks/alexnet/weights.pt",
    ]
    assert cell["runBy"] == "Somebody"


def test_target_added_makes_only_its_jobs(project):
    cells = LAYERS * CELLS
    assert changed(project, targets=["0", "1", "2"]).planned() == BEHIND | {
        "others": 1,
        "cells": LAYERS,
        "probes": cells,
        "ablations": cells,
        "controls": len(CONTROLLED),
        "layer_tables": LAYERS,
        **OF_GROUPS,
    }


def test_class_added_to_the_pool_makes_its_activations_and_the_cells_whose_others_change(project):
    """With so few classes every target is contrasted with all others, so every cell's others change."""
    cells = LAYERS * TARGETS * CELLS
    assert changed(project, classes=["0", "1", "2", "3", "4"]).planned() == BEHIND | {
        "others": 1,
        "activations_alexnet": 1,
        "cells": LAYERS * TARGETS,
        "probes": cells,
        "ablations": cells,
        "controls": CONTROLS,
        "layer_tables": LAYERS,
        **OF_GROUPS,
        **RANKED,
        "pseudo": DRAWN,
        "redundancy": LOOKED,
        "redundancy_table": 1,
        "figure1": 1,
    }


def test_order_of_classes_changes_nothing(project):
    assert changed(project, classes=["3", "1", "0", "2"], targets=["1", "0"]).planned() == {}


def test_order_of_keys_changes_nothing(project):
    """Nor whether the config is YAML or JSON, which Snakemake reads into other kinds of mappings."""
    network = project.config["networks"][0]
    network["transform"] = dict(reversed(network["transform"].items()))
    project.config["networks"] = [dict(reversed(network.items()))]
    (project.folder / "study.json").write_text(json.dumps(dict(reversed(project.config.items()))))
    assert "Nothing to be done" in project.run("--dry-run", study="study.json")


def test_layer_dropped_gathers_anew(project):
    """But for the layers with controls, which are the first and the last, and for the smallest cell of them all."""
    assert changed(project, layers=["conv5", "dense2"]).planned() == BEHIND | {
        "probes": 2 * TARGETS * CELLS,
        "layer_tables": 2,
    }


def test_layer_added_makes_the_network_anew_from_its_activations(project):
    layers, cells = LAYERS + 1, (LAYERS + 1) * TARGETS * CELLS
    assert changed(project, layers=["conv4", "conv5", "dense1", "dense2"]).planned() == BEHIND | {
        "activations_alexnet": 4,
        "cells": layers * TARGETS,
        "probes": cells,
        "ablations": cells,
        "controls": CONTROLS,
        "pseudo": DRAWN,
        "redundancy": LOOKED,
        "redundancy_table": 1,
        "layer_tables": layers,
        **OF_GROUPS,
        **RANKED,
        "figure1": 1,
    }


@pytest.mark.parametrize(
    "setting",
    [
        {"published": {"draws": 3, "units": 10}},
        {"crossfit": {"C": 10.0, "draws": 3}},
        {"crossfit": {"C": 2.0, "draws": 10}},
        {"crossfit": {"C": [1.0, 10.0], "draws": 10}},
    ],
    ids=str,
)
def test_probe_setting_makes_the_probes_anew(project, setting):
    """And those of pseudo-targets and of redundancy, which have the cross-fitted probe alone, where its C changes."""
    cells = LAYERS * TARGETS * CELLS
    too = {"pseudo": DRAWN, **OF_GROUPS, **RANKED, "redundancy": LOOKED, "redundancy_table": 1}
    too = too if setting.get("crossfit", {"C": 10.0})["C"] != 10.0 else {}
    assert changed(project, probes=setting).planned() == BEHIND | {"probes": cells, "layer_tables": LAYERS} | too


@pytest.mark.parametrize("kind", ["matched", "directions", "resample"])
def test_control_setting_makes_the_controls_anew(project, kind):
    """Alone, and what compares or shows them."""
    assert changed(project, controls={kind: 3}).planned() == BEHIND | {
        "controls": CONTROLS,
        "layer_tables": len(CONTROLLED),
        **OF_GROUPS,
    }


def test_pseudo_target_added_is_drawn_alone(project):
    """Those that were there stay; no cell is compared with them but by the claims."""
    behind = {name: 1 for name in BEHIND if name in ("claims", "supplement_claims", "reading_needing")}
    behind |= dict.fromkeys(("supplement_controls", "faithfulness", "importance_figure"), 1)
    assert changed(project, controls={"pseudo": 3}).planned() == behind | {"pseudo": len(CONTROLLED), **OF_GROUPS}


def test_another_layer_with_controls_makes_its_own(project):
    assert changed(project, controls={"layers": "all"}).planned() == BEHIND | {
        "controls": TARGETS,
        "pseudo": PSEUDO,
        "layer_tables": 1,
        **OF_GROUPS,
    }


def test_intervention_dropped_ablates_anew(project):
    """Cells and pseudo-targets; controls have interventions of their own."""
    assert changed(project, ablations={"interventions": ["zero", "mean"]}).planned() == BEHIND | {
        "ablations": LAYERS * TARGETS * CELLS,
        "layer_tables": LAYERS,
    }
    assert changed(project, ablations={"interventions": ["zero", "erase"]}).planned() == BEHIND | {
        "ablations": LAYERS * TARGETS * CELLS,
        "pseudo": DRAWN,
        "layer_tables": LAYERS,
        **OF_GROUPS,
    }


@pytest.mark.slow
def test_what_is_switched_off_is_neither_planned_nor_kept(tmp_path):
    """As published alone: no folds, no controls, no pseudo-targets, no importance, and none of their figures."""
    off = {"ablations": {"protocols": ["published"]}, "controls": None, "importance": None}
    off["probes"] = TINY["probes"] | {"crossfit": None}
    project = Project.create(tmp_path / "project", TINY | off)
    planned, grids = project.planned(), LAYERS * TARGETS
    gone = {"controls", "pseudo", "group_tables", "reading_needing", "supplement_controls", "supplement_interventions"}
    gone |= {"importance", "units", "measure_tables", "faithfulness", "importance_figure", "supplement_curves"}
    gone |= {"redundancy", "redundancy_table"}
    assert not gone & planned.keys()
    assert {name: planned[name] for name in ("cells", "probes", "ablations", "layer_tables", "claims")} == {
        "cells": grids,
        "probes": grids * CELLS,
        "ablations": grids * CELLS,
        "layer_tables": LAYERS,
        "claims": 1,
    }
    place = "alexnet/conv5/0"
    wanted = [f"{step}/{place}.parquet" for step in ("means", "cells")]
    wanted += [f"{step}/{place}/s3m3.parquet" for step in ("probes", "ablations")]
    project.run(*(f"results/tiny/{path}" for path in wanted))
    assert pq.read_schema(project.results / wanted[0]).names == ["unit", "mean"]
    assert not [name for name in pq.read_schema(project.results / wanted[1]).names if "fold" in name]
    probe, ablation = (pd.read_parquet(project.results / path) for path in wanted[2:])
    assert probe[["accuracy", "auroc", "log_loss", "units_fixed", "auroc_fixed"]].isna().all().all()
    assert ablation["protocol"].tolist() == ["published"] * 20


@pytest.mark.parametrize("module", ["readout/ablations.py", "jobs/ablations.py"])
def test_line_of_the_ablation_module_makes_the_ablations_anew(project, module):
    append(project.folder / "workflow" / module, "# a comment")
    assert project.planned() == BEHIND | {
        "ablations": LAYERS * TARGETS * CELLS,
        "controls": CONTROLS,
        "pseudo": DRAWN,
        "redundancy": LOOKED,
        "redundancy_table": 1,
        "layer_tables": LAYERS,
        **OF_GROUPS,
        **RANKED,
    }


def test_line_of_the_controls_makes_the_controls_anew(project):
    """Pseudo-targets and rankings among them, and neither the probes nor the ablations of cells."""
    append(project.folder / "workflow" / "jobs" / "controls.py", "# a comment")
    assert project.planned() == BEHIND | {
        "controls": CONTROLS,
        "pseudo": DRAWN,
        "layer_tables": LAYERS,
        **OF_GROUPS,
        **RANKED,
        "redundancy_table": 1,
    }


@pytest.mark.parametrize("module", ["readout/importance.py", "jobs/importance.py"])
def test_line_of_the_measures_ranks_anew(project, module):
    """And gathers again whatever the tables' module gathers, but ablates no cell."""
    append(project.folder / "workflow" / module, "# a comment")
    assert project.planned() == BEHIND | {"layer_tables": LAYERS, **OF_GROUPS, **RANKED, "redundancy_table": 1}


def test_measures_switched_off_leave_the_rest(project):
    """One key, and nothing of it is planned; what else there is stays."""
    planned = changed(project, importance=None).planned()
    assert set(planned) == {"group_tables", "claims", "supplement_claims", "reading_needing", "supplement_controls"}


def test_another_measure_ranks_anew(project):
    """Its own rankings beside the others', and no cell's job."""
    given = {"measures": ["selectivity", "squared_taylor"], "tops": [4], "keep": None}
    behind = dict.fromkeys(("claims", "supplement_claims", "reading_needing", "supplement_controls"), 1)
    behind |= {"faithfulness": 1, "importance_figure": 1}
    assert changed(project, importance=given).planned() == behind | OF_GROUPS | RANKED
    project.run("results/tiny/faithfulness.parquet")
    table = pd.read_parquet(project.results / "faithfulness.parquet")
    assert set(table[table["what"] != "cells"]["measure"]) == {"selectivity", "squared_taylor", "best_elsewhere"}
    assert set(table["what"]) == {"ablate", "cells"}


@pytest.mark.parametrize("module", ["jobs/figures.py", "readout/figures.py"])
def test_line_of_the_figures_draws_anew(project, module):
    append(project.folder / "workflow" / module, "# a comment")
    assert project.planned() == dict.fromkeys(("figure1", *FIGURES, "supplement_curves"), 1)


def test_registry_of_claims_judges_anew(project):
    append(project.folder / "workflow" / "claims.yaml", "# a comment")
    assert project.planned() == {"claims": 1, "supplement_claims": 1}


def test_readme_changes_nothing(project):
    (project.folder / "README.md").write_text("changed")
    assert project.planned() == {}


def test_device_and_a_figure_s_target_leave_the_cells(project):
    assert changed(project, device="auto").planned() == {}
    assert changed(project, figures={"target": "1"}).planned() == {"figure1": 1, "units": 1}


def test_one_figure_as_a_target(project):
    figure = project.results / "figures" / "figure3.png"
    figure.unlink()
    project.run("results/tiny/figures/figure3.png")
    assert figure.stat().st_size > 10_000


@pytest.mark.slow
def test_table_cut_short_is_named_and_nothing_else_is_lost(project):
    """The message says how to make it again, and that mends it."""
    victim = project.results / "ablations" / "alexnet" / "dense1" / "0" / "s1m1.parquet"
    victim.write_bytes(victim.read_bytes()[:100])
    steps = ("activations", "baseline", "cells", "probes", "ablations", "networks")
    before = {path: stamp for path, stamp in project.stamps().items() if path.startswith(steps)}
    printed = project.fail()
    assert "results/tiny/ablations/alexnet/dense1/0/s1m1.parquet: cannot be read" in printed
    assert "snakemake --cores 1 --force results/tiny/ablations/alexnet/dense1/0/s1m1.parquet" in printed
    after = project.stamps()
    assert {path: after.get(path) for path in before} == before
    project.run("--force", "results/tiny/ablations/alexnet/dense1/0/s1m1.parquet")
    project.run()
    assert pq.read_table(victim).num_rows == 20 + 3 * (20 + 3 * 10)


@pytest.mark.slow
def test_file_of_another_study_is_named_and_made_again(project):
    """Byte for byte as it was, also on a device of another name."""
    name = "results/tiny/ablations/alexnet/dense1/0/s1m1.parquet"
    victim = project.folder / name
    before = victim.read_bytes()
    table = pq.read_table(victim)
    made = json.loads(table.schema.metadata[b"readout"]) | {"study": "other"}
    pq.write_table(table.replace_schema_metadata({b"readout": json.dumps(made)}), victim)
    printed = changed(project, device="auto").fail()
    assert (
        f"{name}: is of study other, settings {made['settings']}, but what it goes into is of study tiny, " in printed
    )
    assert f"make it again: snakemake --cores 1 --force {name}" in printed
    assert "Traceback" not in printed
    project.run("--force", name)
    assert victim.read_bytes() == before


def test_renamed_results_are_refused_before_anything_runs(project):
    """Also by a dry run, in one message; the study itself goes on once its folder is back."""
    renamed = project.results.rename(project.folder / "results" / "copy")
    printed = changed(project, study="copy").fail("--dry-run")
    assert "results/copy: holds the results of another study: study tiny (images.dataset digits" in printed
    assert "and the config is of study copy (images.dataset digits" in printed
    assert "Traceback" not in printed
    renamed.rename(project.folder / "results" / "tiny")
    assert changed(project, study="tiny").planned() == {}


def test_config_error_is_one_message_without_a_traceback(project):
    printed = changed(project, probes={"published": {"drawz": 3}}).fail("--dry-run")
    assert "probes.published.drawz: unknown key; did you mean draws?" in printed
    assert "Traceback" not in printed


def test_a_nested_value_of_the_command_line_is_taken_for_what_it_is(project):
    """As in the file, so that the same jobs follow; text in the file stays text, whatever the command line adds."""
    expected = changed(project, probes={"published": {"draws": 3}}).planned()
    assert expected["probes"] == LAYERS * TARGETS * CELLS
    assert changed(project, probes=TINY["probes"]).planned("--config", 'probes={"published": {"draws": 3}}') == expected
    printed = project.fail("--dry-run", "--config", 'probes={"published": {"draws": "three"}}')
    assert "config: probes.published.draws: 'three' is not of type 'integer'" in printed
    assert "Traceback" not in printed
    quoted = {"published": TINY["probes"]["published"] | {"draws": "3"}}
    printed = changed(project, probes=quoted).fail("--dry-run", "--config", 'probes={"published": {"units": 10}}')
    assert "config: probes.published.draws: '3' is not of type 'integer'" in printed


def test_a_key_twice_in_a_config_is_refused(tmp_path):
    """In the study's file and in config.yaml, by a dry run too, in one message."""
    project = Project.create(tmp_path / "project", TINY)
    expected = []
    for file, key in ((project.folder / "study.yaml", "study"), (project.folder / "config.yaml", "seed")):
        append(file, f"{key}: 1")
        lines = file.read_text().splitlines()
        first = next(i for i, line in enumerate(lines, 1) if line.startswith(f"{key}:"))
        expected.append(f"{file}: line {len(lines)}: the key {key} is in line {first} already; keep one of the two")
    for arguments in ([], ["--dry-run"]):
        printed = project.fail(*arguments)
        assert all(words in printed for words in expected), printed
        assert "Traceback" not in printed
    assert not project.results.exists()


def test_a_file_where_results_go_is_refused_before_anything_runs(tmp_path):
    """By a run, by a dry run, and by one that would send jobs to a cluster; without the file all is well."""
    project = Project.create(tmp_path / "project", TINY)
    project.results.parent.mkdir()
    project.results.touch()
    for arguments in ([], ["--dry-run"], ["--snakefile", "workflow/cluster.smk"]):
        printed = project.fail(*arguments)
        assert "results/tiny: is no folder, but results go there; move or rename it" in printed
        assert "Traceback" not in printed and "NotADirectoryError" not in printed
    project.results.unlink()
    assert project.planned()["ablations"] == LAYERS * TARGETS * CELLS


@pytest.fixture
def folder_study(tmp_path):
    """A folder of images of several kinds, classes with awkward names, and weights from a file."""
    project = Project.create(tmp_path / "project", TINY)
    modes = ["RGB", "L", "P", "CMYK", "RGBA", "1"]
    digits = datasets.digits()
    for name, digit in {"null": 0, "one half": 1, "-zwei ü": 2}.items():
        folder = project.folder / "data" / name
        folder.mkdir(parents=True)
        for i, pixels in enumerate(digits[0][digits[1] == digit][:12]):
            mode = modes[i % len(modes)]
            readout_images.pad_digit(pixels).convert(mode).save(folder / f"{i}.{'jpg' if mode == 'CMYK' else 'png'}")
    torch.save(models.build("small_alexnet", 3, seed=1).state_dict(), project.folder / "weights.pt")
    network = TINY["networks"][0] | {
        "weights": "weights.pt",
        "classes": "all",
        "targets": ["one half"],
        "layers": ["dense1", "dense2"],
        "transform": TINY["networks"][0]["transform"] | {"resize": 36},
    }
    data = {"dataset": "folder", "path": "data", "study": 10}
    figures = {"target": None, "layer": None}
    ranked = {"importance": TINY["importance"] | {"targets": "all"}}
    project.write(TINY | {"study": "folder", "images": data, "networks": [network], "figures": figures} | ranked)
    return project


@pytest.mark.slow
def test_folder_of_images_with_given_weights(folder_study):
    """The whole study; then a broken image is named, and what the other classes gave stays."""
    folder_study.run()
    table = pd.read_parquet(folder_study.results / "tables" / "cells.parquet")
    assert len(table) == 2 * CELLS
    assert set(table["class_id"]) == {"one half"}
    accuracy = pd.read_parquet(folder_study.results / "networks" / "alexnet" / "accuracy.parquet")
    assert accuracy["images"].tolist() == [30]
    listed = pd.read_parquet(folder_study.results / "images.parquet")
    assert set(listed["split"]) == {"study"}

    source = listed[listed["class_id"] == "null"]["source"].iloc[0]
    broken = folder_study.folder / "data" / source
    # As long as before: a file of another size would list the images anew.
    broken.write_bytes(broken.read_bytes()[:60].ljust(broken.stat().st_size, b"\0"))
    before = folder_study.stamps()
    printed = folder_study.fail("--forcerun", "results/folder/baseline/alexnet/null.parquet")
    assert f"data/{source}: cannot be read as an image" in printed
    kept = [path for path in before if path.startswith(("activations", "cells")) and "null" not in path]
    after = folder_study.stamps()
    assert kept
    assert all(after[path] == before[path] for path in kept)


@pytest.fixture
def imagenet_study(tmp_path):
    """Three of ImageNet's classes as torchvision unpacks them, and an untrained network of torchvision."""
    project = Project.create(tmp_path / "project", TINY)
    digits = datasets.digits()
    for digit, class_id in enumerate(("n01440764", "n02102040", "n03888257")):
        folder = project.folder / "imagenet" / "val" / class_id
        folder.mkdir(parents=True)
        for i, pixels in enumerate(digits[0][digits[1] == digit][:10]):
            picture = readout_images.pad_digit(pixels).resize((96, 72))
            picture.save(folder / f"ILSVRC2012_val_{100 * digit + i + 1:08d}.JPEG")
    network = {
        "name": "squeezenet",
        "model": "squeezenet1_1",
        "weights": "random",
        "transform": {"resize": [64, 64], "crop": 64, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        "layers": ["features.1", "features.12.expand3x3_activation"],
        "classes": "all",
        "targets": ["n02102040"],
    }
    data = {"dataset": "imagenet", "path": "imagenet", "study": 10}
    settings = {
        "activations": {"dtype": "float16"},
        "figures": {"network": "squeezenet", "target": None, "layer": None},
        "importance": TINY["importance"] | {"targets": "all"},
    }
    project.write(TINY | {"study": "imagenet", "images": data, "networks": [network]} | settings)
    return project


@pytest.mark.slow
def test_imagenet_and_a_network_of_torchvision(imagenet_study):
    """The whole study of a network that is not in the registry, with ImageNet's thousand outputs."""
    imagenet_study.run()
    results = imagenet_study.results
    table = pd.read_parquet(results / "tables" / "cells.parquet")
    assert len(table) == 2 * CELLS
    assert table["layer"].unique().tolist() == ["features.1", "features.12.expand3x3_activation"]
    assert table["units"].unique().tolist() == [64 * 31 * 31 // 16, 256 * 3 * 3 // 16]
    listed = pd.read_parquet(results / "images.parquet")
    assert listed.groupby("class_id")["label"].unique().explode().tolist() == [0, 217, 701]
    assert sorted(listed["image_id"])[-1] == 210
    baseline = pd.read_parquet(results / "baseline" / "squeezenet" / "n03888257.parquet")
    assert 9 < baseline["rank"].max() < 1000
    file = results / "activations" / "squeezenet" / "features.1" / "n02102040.parquet"
    assert pq.read_schema(file).field("activation").type.value_type == "halffloat"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "layers",
            ["features.1", "features.99"],
            "squeezenet1_1 has no layer features.99; its layers are features.1, ",
        ),
        ("weights", "broken.pt", "broken.pt: not a readable file of weights"),
        ("device", "cuda", "device: cuda is asked for, but torch finds no GPU"),
    ],
)
def test_bad_input_is_refused_before_anything_runs_long(imagenet_study, key, value, words):
    """One message, and no activations."""
    (imagenet_study.folder / "broken.pt").write_bytes(b"<html>not found</html>")
    printed = changed(imagenet_study, **{key: value}).fail()
    assert words in printed
    assert not list(imagenet_study.results.glob("activations/*/*/*.parquet"))


def test_imagenettes_study_is_planned_without_its_images(project):
    """A dry run counts its jobs and downloads nothing: 25 layers, four targets, sixteen cells."""
    printed = project.run("--dry-run", "--quiet", "rules", study=ROOT / "workflow" / "studies" / "imagenette.yaml")
    counts = dict(re.findall(r"^([a-z_0-9]+)\s+(\d+)\s*$", printed, flags=re.MULTILINE))
    assert (counts["probes"], counts["ablations"], counts["cells"]) == ("1600", "1600", "100")
