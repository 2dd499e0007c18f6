"""Sensitivity: the variants of a study, their corrected verdicts in one table and figure, and a small study with two."""

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyBboxPatch

from commands import sensitivity as command
from inputs.sensitivity import of_study
from inputs.study import Study
from jobs import claims, networks
from jobs import sensitivity as job
from readout import StudyError, figures
from readout import sensitivity as drawing
from runtime import parquet, provenance, subprocesses
from test_study import folder
from workflow import ROOT


@pytest.fixture
def config():
    """The default study without the occlusion task, which needs more images than some tests have."""
    return yaml.safe_load((ROOT / "config.yaml").read_text()) | {"occlusion": None}


def by_name(config):
    return {variant.name: variant for variant in of_study(Study(config))}


def differences(one, other, at=""):
    """The paths of keys in which two configurations differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return {path for key in keys for path in differences(one.get(key), other.get(key), f"{at}.{key}".lstrip("."))}
    return set() if one == other else {at}


# ---- the variants


def test_the_variants_of_the_default_study(config):
    """By hand: 4 bins, 50 images and random_10 are its own, and nine others are all that there are."""
    found = of_study(Study(config))
    assert [(v.name, v.setting, v.value) for v in found] == [
        ("base", "base", "4 x 4 bins, 50 images, random_10"),
        ("bins_3", "bins", "3"),
        ("bins_6", "bins", "6"),
        ("images_20", "images", "20"),
        ("images_35", "images", "35"),
        ("others_all", "others", "all"),
    ]
    assert [v.name for v in found if v.config is None] == ["others_all"]
    assert found[-1].note == "not run: each target has the others that it has with random_10, there are no more"
    assert found[-1].about == {
        "variant": "others_all",
        "setting": "others",
        "value": "all",
        "run": False,
        "note": found[-1].note,
    }


def test_the_base_is_the_study_cut_down(config):
    """Three layers of each network, none that is untrained; pseudo-targets alone; nothing but what the verdicts need."""
    base = by_name(config)["base"].config
    assert [(n["name"], n["layers"]) for n in base["networks"]] == [
        ("alexnet", ["conv1", "conv4", "dense2"]),
        *((n.name, [n.layers[0], n.layers[2], n.layers[4]]) for n in list(Study(config).networks.values())[1:4]),
    ]
    assert base["controls"] == {
        "layers": "all", "random": 0, "matched": 0, "directions": 0, "resample": 0, "pseudo": 8,
    }  # fmt: skip
    assert base["ablations"] == {"protocols": ["crossfit"], "interventions": ["zero", "mean"], "shapley": None}
    assert (base["importance"], base["sensitivity"], base["study"]) == (None, None, "digits.base")
    assert base["figures"] == {"network": "alexnet", "layer": None, "target": None}
    kept = ("seed", "images", "grid", "others", "activations", "claims", "device")
    assert all(base[key] == config[key] for key in kept)
    # Every one is a study that can be run, and its layers can be told from the base's in nothing.
    for variant in by_name(config).values():
        assert variant.config is None or Study(variant.config).name == f"digits.{variant.name}"


def test_each_variant_changes_one_thing(config):
    found = by_name(config)
    changed = {n: differences(found["base"].config, v.config) - {"study"} for n, v in found.items() if v.config}
    assert changed == {
        "base": set(),
        "bins_3": {"grid.selectivity", "grid.magnitude"},
        "bins_6": {"grid.selectivity", "grid.magnitude"},
        "images_20": {"images.study"},
        "images_35": {"images.study"},
    }


def test_values_of_the_study_itself_are_run_once(config):
    """Whatever the lists say; a grid of 4 x 5 bins is none of them."""
    config["sensitivity"] |= {"bins": [4], "images": [50], "others": ["random_10"], "layers": "all"}
    assert list(by_name(config)) == ["base"]
    assert by_name(config)["base"].config["networks"][1]["layers"] == list(Study(config).networks["vgg16"].layers)
    config["grid"]["magnitude"] = 5
    assert list(by_name(config)) == ["base", "bins_4"]
    assert by_name(config)["base"].value.startswith("4 x 5 bins")
    # Lists in another order are tried in that order.
    config["sensitivity"] |= {"bins": [6, 3], "images": [50, 10]}
    assert list(by_name(config)) == ["base", "bins_6", "bins_3", "images_10"]


def test_others_are_run_where_some_network_has_more_than_ten(config, tmp_path):
    """Of twelve classes a target has eleven others; of eleven, ten, which are all."""
    config = folder(tmp_path, config, {f"class{i:02d}": 21 for i in range(12)}, study=20)
    few = [f"class{i:02d}" for i in range(11)]
    config["networks"][1:4] = [entry | {"classes": few} for entry in config["networks"][1:4]]
    config["sensitivity"] |= {"images": [20]}
    found = by_name(config)["others_all"]
    assert found.config["others"] == "all"
    assert found.note == "the base's others in vgg16, mobilenet_v2, resnet, where there are no more"
    config["networks"][0] = config["networks"][0] | {"classes": few}
    config["networks"] = config["networks"][:4]
    assert by_name(config)["others_all"].config is None
    # And the other way round.
    assert by_name(config | {"others": "all"})["others_random_10"].config is None


def test_networks_that_the_study_trains_stay_as_they_are(config, tmp_path):
    """With fewer study images they would be trained on more; its variants take the study's weights."""
    config = folder(tmp_path, config, {f"class{i}": 21 for i in range(3)}, study=20)
    config["sensitivity"] |= {"images": [10, 20]}
    study = Study(config)
    for variant in by_name(config).values():
        if variant.config:
            weights = {entry["name"]: entry["weights"] for entry in variant.config["networks"]}
            assert weights == {name: study.trained(name) for name in weights} and len(weights) == len(study.networks)
    assert by_name(config)["images_10"].config["images"] == config["images"] | {"study": 10}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sensitivity": {"bin": [3]}}, ["sensitivity.bin: unknown key; did you mean bins?"]),
        ({"sensitivity": {"bins": []}}, ["sensitivity.bins", "[]"]),
        ({"sensitivity": {"images": []}}, ["sensitivity.images", "[]"]),
        ({"sensitivity": {"others": []}}, ["sensitivity.others", "[]"]),
        ({"sensitivity": {"bins": [2]}}, ["sensitivity.bins[0]", "minimum"]),
        ({"sensitivity": {"bins": [3, 3]}}, ["sensitivity.bins", "non-unique"]),
        ({"sensitivity": {"images": [9]}}, ["sensitivity.images[0]", "minimum of 10"]),
        ({"sensitivity": {"others": ["some"]}}, ["sensitivity.others[0]: 'some'", "random_10, all"]),
        ({"sensitivity": {"pseudo": 1}}, ["sensitivity.pseudo", "at least 2"]),
        ({"sensitivity": {"layers": 0}}, ["sensitivity.layers", "0"]),
        ({"sensitivity": {"images": [60]}}, ["sensitivity.images: 60", "all images but 50 per class", "leave it out"]),
        ({"ablations": {"protocols": ["published"]}, "controls": None, "importance": None}, ["add crossfit"]),
    ],
)
def test_what_cannot_be_tried_is_refused_with_the_way_out(config, change, words):
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    with pytest.raises(StudyError) as error:
        of_study(Study(config))
    assert all(word in str(error.value) for word in ["sensitivity", *words]), str(error.value)


def test_a_study_without_the_key_is_told_so(config):
    with pytest.raises(StudyError, match="sensitivity: is null, so the study has no variants; give it its settings"):
        of_study(Study(config | {"sensitivity": None}))


def test_more_images_than_there_are_are_refused(config, tmp_path):
    """Of networks that are trained nowhere here: whose images may be studied, the user knows."""
    config = folder(tmp_path, config, {"a": 12, "b": 15})
    config["networks"] = [entry | {"weights": "random"} for entry in config["networks"]]
    config["sensitivity"] |= {"images": [12]}
    assert by_name(config)["images_12"].config["images"]["study"] == 12
    config["sensitivity"] |= {"images": [12, 13]}
    with pytest.raises(StudyError, match=r"sensitivity.images: 13: cannot be studied: class a: 12 images"):
        of_study(Study(config))


def test_what_the_study_cannot_have_itself_does_not_hinder_it(config):
    """The lists of config.yaml are not for every study; only who asks for its variants is refused."""
    config["images"]["study"] = 20
    config["networks"] = [e | {"weights": {"epochs": 1, "batch": 32, "learning_rate": 0.1}} for e in config["networks"]]
    study = Study(config)
    with pytest.raises(StudyError, match=r"sensitivity.images: 35: .*all images but 20 per class"):
        of_study(study)


# ---- its jobs


def layers(path, units):
    """A table of layers with so many units each."""
    rows = [
        {"layer": n, "node": n, "module": n, "depth": i, "axes": "features", "shape": [u], "units": u}
        for i, (n, u) in enumerate(units.items())
    ]
    parquet.write(path, rows, networks.LAYERS)
    return str(path)


@pytest.mark.parametrize(("bins", "refused"), [(3, False), (6, False), (7, True)])
def test_more_cells_than_units_are_refused_before_anything_runs(tmp_path, bins, refused):
    """36 units have room for 6 x 6 cells; a layer that is not studied does not count."""
    config = {
        "grid": {"selectivity": bins, "magnitude": bins},
        "networks": [{"name": "n", "layers": ["one", "two"]}],
    }
    paths = {"n": layers(tmp_path / "layers.parquet", {"zero": 2, "one": 100, "two": 36})}
    written = tmp_path / "config.json"
    if not refused:
        job.write_config(str(written), config=config, paths_to_layers=paths)
        assert json.loads(written.read_text()) == config
        return
    with pytest.raises(StudyError) as error:
        job.write_config(str(written), config=config, paths_to_layers=paths)
    assert str(error.value) == (
        "sensitivity.bins: 7: a grid of 7 x 7 cells needs as many units, n has 36 in two; leave the 7 out"
    )
    assert not written.exists()


def judged(claim, verdict, estimate, study="s.base", **more):
    """A row of a table of claims."""
    row = dict.fromkeys(claims.SCHEMA.names)
    row |= {"claim": claim, "network": "all", "role": "corrected", "targets": "all", "statement": f"Claim {claim}."}
    row |= {"verdict": verdict, "estimate": estimate, "classes": 10, "outcome": "auroc", "part": "s0 - s1"}
    row |= dict.fromkeys(("measure", "test", "rule", "section", "protocol"), "x") | more
    if estimate is not None:
        row |= {"ci_low": estimate - 1, "ci_high": estimate + 1}
    return row


def table_of(path, study, rows):
    made = provenance.record(study=study, step="claims", settings={}, code="0")
    parquet.write(path, rows, claims.SCHEMA, made)
    return str(path)


ABOUT = [
    {"variant": "base", "setting": "base", "value": "4 x 4 bins, 50 images, random_10", "run": True, "note": None},
    {"variant": "bins_3", "setting": "bins", "value": "3", "run": True, "note": None},
    {"variant": "images_20", "setting": "images", "value": "20", "run": True, "note": None},
    {"variant": "others_all", "setting": "others", "value": "all", "run": False, "note": "not run: no more"},
]


@pytest.fixture
def gathered(tmp_path):
    """Two claims and four variants, one of which was not run; rows of networks and of other tests are passed over."""
    beside = [
        judged(1, "no verdict", 9.0, role="beside"),
        judged(1, "no verdict", 9.0, role="published"),
        judged(1, "no verdict", 9.0, network="alexnet"),
        judged(1, "no verdict", 9.0, targets="confirmation"),
    ]
    found = {
        "base": [judged(1, "holds", 1.0), judged(6, "inconclusive", 0.5, note="for these weights only")],
        "bins_3": [judged(1, "does not hold", -0.25), judged(6, "inconclusive", None, reason="nothing there")],
        "images_20": [judged(1, "holds", 2.0), judged(6, "does not hold", 0.0)],
    }
    paths = {name: table_of(tmp_path / f"{name}.parquet", f"s.{name}", beside + rows) for name, rows in found.items()}
    given = {
        "paths_to_claims": paths,
        "studies": {name: f"s.{name}" for name in paths},
        "variants": ABOUT,
    }
    path = tmp_path / "sensitivity" / "verdicts.parquet"
    job.gather(str(path), **given)
    return tmp_path, given, parquet.read(path, job.SCHEMA, optional=job.OPTIONAL).to_pylist()


def test_the_table_has_a_row_for_each_variant_and_claim(gathered):
    """By hand; of the variant that was not run, the base's."""
    _, _, rows = gathered
    found = [[row[name] for name in ("variant", "claim", "verdict", "estimate", "ci_low", "note")] for row in rows]
    assert found == [
        ["base", 1, "holds", 1.0, 0.0, None],
        ["base", 6, "inconclusive", 0.5, -0.5, "for these weights only"],
        ["bins_3", 1, "does not hold", -0.25, -1.25, None],
        ["bins_3", 6, "inconclusive", None, None, None],
        ["images_20", 1, "holds", 2.0, 1.0, None],
        ["images_20", 6, "does not hold", 0.0, -1.0, None],
        ["others_all", 1, "holds", 1.0, 0.0, "not run: no more"],
        ["others_all", 6, "inconclusive", 0.5, -0.5, "not run: no more; for these weights only"],
    ]
    assert [row["run"] for row in rows] == [True] * 6 + [False] * 2
    assert [row["contrast"] for row in rows[:4]] == ["s0 - s1, probe AUROC"] * 3 + [None]
    assert rows[3]["reason"] == "nothing there" and rows[0]["statement"] == "Claim 1." and rows[0]["classes"] == 10


def test_a_table_of_another_study_or_of_other_claims_is_refused(gathered):
    """Copied by hand from elsewhere, or made by another registry."""
    folder, given, _ = gathered
    path = given["paths_to_claims"]["bins_3"]
    with pytest.raises(StudyError, match=r"bins_3\.parquet: is of study s\.bins_3, not of s\.other; make it again"):
        job.gather(str(folder / "v"), **given | {"studies": given["studies"] | {"bins_3": "s.other"}})
    table_of(path, "s.bins_3", [judged(1, "holds", 1.0)])
    with pytest.raises(StudyError, match=r"bins_3\.parquet: is not of the claims of the base; make it again"):
        job.gather(str(folder / "v"), **given)
    table_of(path, "s.bins_3", [judged(1, "holds", 1.0)] * 2)
    with pytest.raises(StudyError, match=r"bins_3\.parquet: has not one corrected verdict for each claim"):
        job.gather(str(folder / "v"), **given)


def test_a_variant_is_made_by_a_run_that_claims_its_study(tmp_path, monkeypatch):
    """With the cores and limits of the run outside, without Snakemake's lock of the folder; its table is copied."""
    monkeypatch.chdir(tmp_path)
    ran = []

    def run(command, *, env, stdout, **_):
        ran.append((command, env["READOUT_PARTS"]))
        stdout.write("what it prints\n")
        table_of("results/s.bins_3/claims.parquet", "s.bins_3", [judged(1, "holds", 1.0)])
        return SimpleNamespace(returncode=status)

    monkeypatch.setattr(subprocesses.subprocess, "run", run)
    given = {"path_to_config": "c.json", "study": "s.bins_3", "cores": 3, "log": str(tmp_path / "study.log")}
    status = 0
    job.study("copy/claims.parquet", **given, limits=["mem_mb=5000"])
    (command, parts), said = ran[0], (tmp_path / "study.log").read_text()
    assert command[-4:] == ["--configfile", "c.json", "--", "results/s.bins_3/claims.parquet"]
    assert "--nolock" in command and command[command.index("--cores") + 1] == "3"
    assert command[command.index("--resources") + 1] == "mem_mb=5000" and parts == "[]"
    assert said == "snakemake results/s.bins_3/claims.parquet\nwhat it prints\n"
    made, copy = (Path(folder, "claims.parquet").read_bytes() for folder in ("results/s.bins_3", "copy"))
    assert made == copy
    status = 1
    with pytest.raises(StudyError, match=r"the run of c\.json failed; what is finished stays \(log: .*study\.log\)"):
        job.study("other/claims.parquet", **given, limits=[])
    assert "--resources" not in ran[1][0] and not Path("other").exists()


def test_a_broken_table_of_a_variant_is_told_of_where_it_lies(tmp_path, monkeypatch):
    """Snakemake takes it for finished; its copy would be as broken whenever it is made again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocesses, "snakemake", lambda *_, **__: None)
    Path("results/s.bins_3").mkdir(parents=True)
    Path("results/s.bins_3/claims.parquet").write_text("nothing")
    with pytest.raises(StudyError, match=r"results/s\.bins_3/claims\.parquet: cannot be read"):
        job.study("copy", "c.json", "s.bins_3", 1, [], "study.log")
    assert not Path("copy").exists()


# ---- what is said and drawn


def test_the_lines_at_the_end_say_which_verdicts_change(gathered, tmp_path):
    folder, _, _ = gathered
    assert command.text(folder).splitlines() == [
        "",
        "The corrected verdicts with 4 x 4 bins, 50 images, random_10, on few layers, and with one other setting:",
        "  1  Probes read best from the most selective cells      holds; does not hold with 3 x 3 bins",
        "  6  Effects are most concentrated in AlexNet and VGG16  inconclusive; does not hold with 20 images",
        "",
        "2 of 2 verdicts change. Tried: 3 x 3 bins, 20 images, others all.",
        "others all: not run: no more.",
        "",
        f"  table    {folder}/sensitivity/verdicts.parquet",
        f"  figure   {folder}/figures/sensitivity.png",
    ]


def test_a_verdict_that_stays_is_said_to(gathered):
    _, _, rows = gathered
    assert command.changes(rows[:2] + rows[6:]) == {1: ("holds", {}), 6: ("inconclusive", {})}
    assert command.changes(rows)[1] == ("holds", {"does not hold": ["3 x 3 bins"]})


def test_the_markdown_table_has_a_row_per_claim_and_a_column_per_variant(gathered):
    _, _, rows = gathered
    assert command.table(rows).splitlines() == [
        "| claim | 4 x 4 bins, 50 images, random_10 | 3 x 3 bins | 20 images | others all |",
        "|---|---|---|---|---|",
        "| 1 Probes read best from the most selective cells | holds 1 (0 to 2) | does not -0.25 (-1.2 to 0.75)"
        " | holds 2 (1 to 3) | holds 1 (0 to 2) |",
        "| 6 Effects are most concentrated in AlexNet and VGG16 | ? 0.5 (-0.5 to 1.5) | ? | does not 0 (-1 to 1)"
        " | ? 0.5 (-0.5 to 1.5) |",
    ]


def test_without_a_table_the_command_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sensitivity", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .*verdicts\.parquet: no such file; make it again: snakemake"):
        command.main()


def test_a_table_of_an_earlier_version_is_refused(tmp_path):
    parquet.write(tmp_path / "sensitivity/verdicts.parquet", [{"claim": 1}], pa.schema([("claim", pa.int32())]))
    with pytest.raises(StudyError, match="was made by an earlier version"):
        command.text(tmp_path)


def test_the_figure_has_a_chip_for_each_verdict(gathered):
    """In the colour of the verdict, faint where nothing was run; framed where it is not the base's."""
    _, _, rows = gathered
    figures.style()
    figure = drawing.figure(pd.DataFrame(rows), "s")
    (axes,) = figure.axes
    chips = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    # Claim by claim.
    order = [rows[i] for i in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert len(chips) == len(order)
    for chip, row in zip(chips, order, strict=True):
        assert chip.get_facecolor() == to_rgba(figures.VERDICTS[row["verdict"]], 1 if row["run"] else drawing.FAINT)
    assert [i for i, chip in enumerate(chips) if chip.get_linewidth() > 0] == [1, 6]
    words = [text.get_text() for text in axes.texts]
    assert {"1 (0 to 2)", "−0.25 (−1.2 to 0.75)", "no estimate", "all\nnot run: as the base"} <= set(words)
    # Nothing reaches over the edge, and no chip lies on another.
    left, right = axes.get_xlim()
    boxes = [chip.get_bbox() for chip in chips]
    assert all(left < box.x0 and box.x1 < right for box in boxes)
    assert not any(a is not b and a.overlaps(b) for a in boxes for b in boxes)


# ---- a small study


@pytest.mark.workflow
def test_a_plain_run_has_no_variants(finished, project):
    """Nothing of it is planned, nor enumerated: lists that the study cannot have do not hinder it."""
    assert "Nothing to be done" in project.run()
    # 35 and 50 of config.yaml are more than its networks left.
    printed = project.fail("sensitivity")
    assert "sensitivity.images: 35: networks of the study were trained on all images but 20 per class" in printed
    assert "Traceback" not in printed


@pytest.fixture
def tried(project):
    """The tiny study with two variants, and all of its layers in each."""
    project.limit = 600
    config = copy.deepcopy(project.config)
    config["sensitivity"] = {"layers": "all", "pseudo": 2, "bins": [4, 3], "images": [20, 10], "others": ["all"]}
    project.write(config)
    project.printed = project.run("sensitivity")
    return project


def corrected(path):
    """Pooled rows of the corrected tests, by claim."""
    rows = parquet.read(path, claims.SCHEMA, optional=claims.OPTIONAL).to_pylist()
    return {r["claim"]: r for r in rows if (r["role"], r["network"], r["targets"]) == ("corrected", "all", "all")}


def table_is_that_of_the_variants(tried):
    """The table says what the claims of each variant say; the base is the study again, where it has all of its layers."""
    verdicts = pd.read_parquet(tried.results / "sensitivity" / "verdicts.parquet")
    documented = re.search(r"sensitivity/verdicts.parquet` \| `([^`]+)`", (ROOT / "docs/tables.md").read_text())[1]
    assert documented.split(", ") == job.SCHEMA.names
    assert list(verdicts.columns) == job.SCHEMA.names
    assert list(verdicts["variant"].unique()) == ["base", "bins_3", "images_10", "others_all"]
    for variant, part in verdicts.groupby("variant"):
        own = "base" if variant == "others_all" else variant
        expected = corrected(tried.folder / "results" / f"tiny.{own}" / "claims.parquet")
        assert list(part["claim"]) == list(range(1, 9))
        for row in part.replace({np.nan: None}).to_dict("records"):
            assert {name: row[name] for name in job.TAKEN} == {name: expected[row["claim"]][name] for name in job.TAKEN}
    # Claims 1 and 8 are compared with pseudo-targets, which the study has on fewer layers.
    study, base = (corrected(path / "claims.parquet") for path in (tried.results, tried.folder / "results/tiny.base"))
    for claim in (2, 3, 4, 5, 7):
        assert study[claim] == base[claim]
    assert base[3]["estimate"] is not None
    # Contrasts are of the grid's own cells.
    bins = corrected(tried.folder / "results/tiny.bins_3/claims.parquet")
    assert bins[3]["part"].startswith("alexnet: s2m2 - ")


def fewer_images_are_studied_with_the_same_network(tried):
    """Ten of the twenty, and none on which the network was trained; what it makes of them is what it made."""
    results = {name: tried.folder / "results" / name for name in ("tiny", "tiny.images_10")}
    listed = {name: pd.read_parquet(path / "images.parquet") for name, path in results.items()}
    whole, part = listed["tiny"], listed["tiny.images_10"]
    ids = {split: set(whole.loc[whole["split"] == split, "image_id"]) for split in ("study", "train")}
    assert set(part["split"]) == {"study"}
    assert set(part["image_id"]) < ids["study"] and not set(part["image_id"]) & ids["train"]
    assert set(part.groupby(["class_id", "fold"]).size()) == {2}
    assert not (results["tiny.images_10"] / "networks/alexnet/weights.pt").exists()
    one, other = (pd.read_parquet(path / "baseline/alexnet/0.parquet") for path in results.values())
    both = one.merge(other, on="image_id", suffixes=("", "_again"))
    assert len(both) == len(other) == 10
    np.testing.assert_allclose(np.stack(both["z"]), np.stack(both["z_again"]), rtol=0, atol=1e-4)


def run_ends_with_what_changes_and_again_finds_nothing_to_do(tried):
    said = "The corrected verdicts with 4 x 4 bins, 20 images, random_10"
    for printed in (tried.printed, again := tried.run("sensitivity")):
        assert said in printed
        assert "others all: not run: each target has the others that it has with random_10" in printed
    assert "Nothing to be done" in again
    # The study's own headline is for who asks for the study.
    assert "The paper's claims" not in again
    for kind in ("png", "svg"):
        assert (tried.results / "figures" / f"sensitivity.{kind}").stat().st_size > 10_000
    # A list that grows runs what is new, and a plain run still has nothing of it.
    tried.write(tried.config | {"sensitivity": tried.config["sensitivity"] | {"bins": [3, 4, 5]}})
    printed = tried.run("sensitivity", "--dry-run", "--quiet", "rules")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE))
    rules = ("sensitivity", "sensitivity_figure", "sensitivity_tables", "variant_configs", "variants")
    assert jobs == dict.fromkeys(rules, "1") | {"total": "5"}
    assert "Nothing to be done" in tried.run()
    assert pq.read_schema(tried.results / "sensitivity/base/claims.parquet").names == claims.SCHEMA.names


@pytest.mark.workflow
@pytest.mark.slow
def test_a_small_study_and_its_variants(tried):
    """One run for all that is to be seen of it."""
    table_is_that_of_the_variants(tried)
    fewer_images_are_studied_with_the_same_network(tried)
    run_ends_with_what_changes_and_again_finds_nothing_to_do(tried)
