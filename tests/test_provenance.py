"""Provenance: what the tables of a study carry of how they were made, and that studies are not mixed."""

import copy
import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from threading import Barrier
from types import SimpleNamespace

import pyarrow as pa
import pytest
import yaml

from inputs.sources import ImageSource, NetworkSource
from inputs.study import Study
from jobs import ablations, activations, cells, controls, networks, probes, tables
from jobs import images as images_job
from readout import StudyError
from runtime import logs, parquet, provenance, subprocesses
from workflow import ROOT

SCHEMA = pa.schema([("x", pa.int32())])
SETTINGS = {"seed": 0, "published": {"draws": 10, "units": 100, "C": 1.0}, "crossfit": {"C": [1.0, 10.0], "draws": 10}}


def record(**changes):
    return provenance.record(**{"study": "tiny", "step": "probes", "settings": SETTINGS, "code": "c0de"} | changes)


def write(*paths, log, **given):
    """Run a job that writes tables, and stops before each."""

    def job(before=lambda: None, made=None):
        for path in paths:
            before()
            parquet.write(path, {"x": [1, 2]}, SCHEMA, made)

    logs.run(log, job, **given)


def carried(path):
    return provenance.of(parquet.schema(path).metadata)


def test_a_jobs_table_carries_what_made_it(tmp_path):
    """Exactly these keys; the columns are as they were."""
    write(tmp_path / "t.parquet", made=record(), log=tmp_path / "log")
    made = carried(tmp_path / "t.parquet")
    packages = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pyarrow", "snakemake")
    versions = {"python": "{}.{}.{}".format(*sys.version_info)} | {name: version(name) for name in packages}
    settings = provenance.digest(SETTINGS)
    assert made == {"study": "tiny", "step": "probes", "settings": settings, "code": "c0de", "versions": versions}
    assert parquet.read(tmp_path / "t.parquet", SCHEMA).to_pydict() == {"x": [1, 2]}


def test_a_table_written_outside_of_a_study_carries_nothing(tmp_path):
    """Neither without a record, nor after a job that had one, nor after one that failed."""
    write(tmp_path / "a.parquet", log=tmp_path / "log")
    write(tmp_path / "b.parquet", made=record(), log=tmp_path / "log")
    with pytest.raises(StudyError):
        write(tmp_path / "c.parquet", before=lambda: 1 / 0, made=record(), log=tmp_path / "log")
    parquet.write(tmp_path / "d.parquet", {"x": [1]}, SCHEMA)
    found = {path.stem: carried(path) for path in tmp_path.glob("*.parquet")}
    assert found == {"a": {}, "b": json.loads(record()), "d": {}}


def test_the_same_job_writes_the_same_bytes(tmp_path):
    """No date; another study's file differs."""
    for name, made in {"a": record(), "b": record(), "c": record(study="other")}.items():
        write(tmp_path / name, made=made, log=tmp_path / "log")
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other


def test_jobs_at_the_same_time_mark_their_own_tables(tmp_path):
    """Eight jobs on four threads; those that run together write in step, each two tables."""
    together = Barrier(4, timeout=60)

    def job(i):
        files = tmp_path / f"{i}a.parquet", tmp_path / f"{i}b.parquet"
        write(*files, before=lambda: together.wait(), made=record(step=f"step{i}"), log=tmp_path / f"{i}.log")
        return [carried(file)["step"] for file in files]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(job, range(8))) == [[f"step{i}"] * 2 for i in range(8)]


@pytest.mark.parametrize("made", [None, record(step="networks")])
def test_a_job_in_a_process_of_its_own_marks_its_tables(tmp_path, monkeypatch, made):
    """As training does; nothing stays behind in this process."""
    (tmp_path / "own.py").write_text(
        "import pyarrow as pa\n"
        "from runtime import parquet, subprocesses\n"
        "def job(made):\n"
        "    parquet.write('t.parquet', {'x': [1]}, pa.schema([('x', pa.int32())]), made)\n"
        "if __name__ == '__main__':\n"
        "    subprocesses.main(job)\n"
    )
    monkeypatch.chdir(tmp_path)
    subprocesses.run("own", {"made": made}, "log")
    assert carried("t.parquet") == json.loads(made or "{}")
    parquet.write("here.parquet", {"x": [1]}, SCHEMA)
    assert carried("here.parquet") == {}


def test_digest_of_settings():
    """The order of keys and where the images lie do not count; a value and a key do."""
    digest = provenance.digest(SETTINGS | {"path": "data"})
    assert len(digest) == 16
    assert provenance.digest(dict(reversed(SETTINGS.items()))) == digest
    assert provenance.digest(SETTINGS | {"path": "elsewhere"}) == digest
    nested = {"labels": {"a": 0, "b": 1}}, {"labels": {"b": 1, "a": 0}}, {"labels": {"a": 1, "b": 0}}
    others = [
        SETTINGS | {"published": SETTINGS["published"] | {"draws": 11}},
        SETTINGS | {"crossfit": {"C": [1.0], "draws": 10}},
        SETTINGS | {"value": 0.0},
        {},
        nested[0],
        nested[2],
    ]
    assert len({digest, *map(provenance.digest, others)}) == 1 + len(others)
    assert provenance.digest(nested[0]) == provenance.digest(nested[1])


def test_digest_of_a_source():
    """As of a mapping with its fields: where the images lie does not count, and its weights do."""
    images = ImageSource("folder", "data", {"crop": 32})
    source = NetworkSource("alexnet", 10, "w.pt", images)
    digest = provenance.digest({"source": source})
    assert provenance.digest({"source": dataclasses.asdict(source)}) == digest
    moved = dataclasses.replace(source, images=dataclasses.replace(images, path="elsewhere"))
    assert provenance.digest({"source": moved}) == digest
    others = [dataclasses.replace(source, weights="v.pt"), dataclasses.replace(source, outputs=11)]
    others += [dataclasses.replace(source, images=dataclasses.replace(images, transform={"crop": 31}))]
    assert len({digest, *(provenance.digest({"source": other}) for other in others)}) == 4


@pytest.fixture
def config():
    """The default study without the occlusion task, which needs more images than some tests have."""
    return yaml.safe_load((ROOT / "config.yaml").read_text()) | {"occlusion": None}


def test_settings_of_a_study_that_do_not_count(config):
    """The order of classes and the device, on everything that a study hands to its jobs; an output's number does."""

    def digests(changed):
        study = Study(changed)
        given = [{"source": study.source(network)} for network in study.networks.values()]
        given += [{"labels": study.labels}, {name: network.targets for name, network in study.networks.items()}]
        given += [{target: study.others("alexnet", target) for target in study.networks["alexnet"].targets}]
        return list(map(provenance.digest, given))

    other = copy.deepcopy(config) | {"device": "openvino"}
    for network in other["networks"]:
        network["targets"] = network["classes"] = [str(digit) for digit in reversed(range(10))]
    assert digests(other) == digests(config)
    drawn = config | {"networks": [network | {"weights": "random"} for network in config["networks"]]}
    labels = {str(digit): 9 - digit for digit in range(10)}
    assert digests(drawn | {"images": config["images"] | {"labels": labels}}) != digests(drawn)


@pytest.fixture
def layer(tmp_path):
    """The files of a layer of two cells and one target, made by one study, and what they must carry."""
    settings = {"cells": {"bins": [1, 2]}, "probes": SETTINGS, "ablations": {"interventions": ["zero"]}}
    settings |= {"controls": {"random": 1}}
    held_out = [{"image_id": i, "fold": i // 2, "y": 1 - i % 2, "p": 0.5} for i in range(4)]
    column = {"network": "net", "layer": "conv1", "class_id": "a", "held_out": held_out}
    cell = {field.name: 1 for field in probes.SCHEMA} | column
    row = {"protocol": "crossfit", "intervention": "zero", "rank_baseline": 0, "rank_ablated": 2}
    row |= {"log_p_baseline": -1.0, "log_p_ablated": -2.0, "z_ablated": [1.0, -1.0], "energy": 1.0, "energy_layer": 2.0}
    images = [row | {"image_id": i, "fold": i // 2} for i in range(4)]
    unit = dict.fromkeys(("target_mean", "others_mean", "selectivity", "magnitude"), 1.0) | {"selectivity_bin": 0}
    grid = [{"unit": i, "cell": f"s0m{i}", "magnitude_bin": i} | unit for i in range(2)]
    group = {"group": "random0", "kind": "random", "units": 1}
    content = {"cells/a": (grid, cells.SCHEMA)}
    content |= {f"probes/a/s0m{i}": ([cell | {"cell": f"s0m{i}"}], probes.SCHEMA) for i in range(2)}
    content |= {f"ablations/a/s0m{i}": (images, ablations.SCHEMA) for i in range(2)}
    content |= {"controls/a": ([column | group | image for image in images], controls.SCHEMA)}
    paths = {step: [] for step in settings}
    for name, (rows, schema) in content.items():
        step = name.split("/")[0]
        paths[step].append(str(tmp_path / f"{name}.parquet"))
        parquet.write(paths[step][-1], rows, schema, record(step=step, settings=settings[step]))
    known = {"layer": "conv1", "node": "conv1", "module": "conv1", "depth": 0}
    known |= {"axes": "features", "shape": [1], "units": 1}
    parquet.write(tmp_path / "layers.parquet", [known], networks.LAYERS)
    # Images 0 and 2 are of class a, 1 and 3 of class b.
    shown = {"split": "study", "source": ""}
    listed = [{"image_id": i, "class_id": "abab"[i], "label": i % 2, "fold": i // 2} | shown for i in range(4)]
    parquet.write(tmp_path / "images.parquet", listed, images_job.SCHEMA)
    baselines = {class_id: str(tmp_path / "baseline" / f"{class_id}.parquet") for class_id in "ab"}
    before = {"rank": 0, "score": 1.0, "log_p": -1.0}
    for i, path in enumerate(baselines.values()):
        z = [1.0 - i, -1.0]
        parquet.write(path, [before | {"image_id": j, "z": z} for j in (i, i + 2)], activations.BASELINE)
    origins = {step: {"study": "tiny", "settings": provenance.digest(given)} for step, given in settings.items()}

    def gather():
        out = tmp_path / "table.parquet"
        tables.gather_layer(
            out,
            path_to_images=str(tmp_path / "images.parquet"),
            paths_to_baselines=baselines,
            others={"a": ("b",)},
            path_to_layers=str(tmp_path / "layers.parquet"),
            paths_to_cells={"a": paths["cells"][0]},
            paths_to_probes={"a": dict(zip(("s0m0", "s0m1"), paths["probes"], strict=True))},
            paths_to_ablations={"a": dict(zip(("s0m0", "s0m1"), paths["ablations"], strict=True))},
            paths_to_controls={"a": paths["controls"][0]},
            network="net",
            layer="conv1",
            origins=origins,
        )
        return parquet.read(out, tables.LAYER, optional=tables.OPTIONAL)

    return SimpleNamespace(paths=paths, settings=settings, gather=gather)


def test_files_of_one_study_are_gathered(layer):
    """Whatever their code and versions, which are recorded and not compared."""
    path = layer.paths["probes"][1]
    parquet.write(path, parquet.read(path).to_pylist(), probes.SCHEMA, record(settings=SETTINGS, code="other"))
    assert layer.gather()["cell"].to_pylist() == ["s0m0", "s0m1"]


@pytest.mark.parametrize("step", ["cells", "probes", "ablations", "controls"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"study": "other"},
            r"is of study other, settings \w{16}, but what it goes into is of study tiny, settings \w{16}",
        ),
        (
            {"settings": {"seed": 1}},
            rf"is of study tiny, settings {provenance.digest({'seed': 1})}, but what it goes into is of study tiny",
        ),
        (None, "is of study unknown, settings unknown, but what it goes into is of study tiny"),
    ],
    ids=["study", "settings", "unmarked"],
)
def test_a_file_from_elsewhere_is_named(layer, step, change, words):
    """And how to make it again."""
    victim = layer.paths[step][-1]
    table = parquet.read(victim)
    made = change and record(**{"step": step, "settings": layer.settings[step]} | change)
    parquet.write(victim, table.to_pylist(), table.schema, made)
    with pytest.raises(StudyError, match=rf"^{victim}: {words}.*make it again: snakemake --cores 1 --force {victim} "):
        layer.gather()


IMAGES = "results/digits/images.parquet"


def mark(**changes):
    """Write the table of images of the default study, or of another one."""
    given = {"study": "digits", "step": "images", "dataset": "digits", "path": None}
    write(IMAGES, made=record(**given | changes), log="log")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in, with (empty) images beside the results."""
    monkeypatch.chdir(tmp_path)
    for digit in range(10):
        (tmp_path / "data" / str(digit)).mkdir(parents=True)
        for i in range(11):
            (tmp_path / "data" / str(digit) / f"{i}.png").touch()
    return tmp_path


def of_folder(config, path):
    networks = [network | {"weights": "random"} for network in config["networks"]]
    images = config["images"] | {"dataset": "folder", "path": path, "study": 10}
    return config | {"images": images, "networks": networks}


def test_a_study_goes_on_with_its_own_results(place, config):
    """Also after a change of anything but its name and its images, and with other spellings of one folder."""
    mark()
    changes = {
        "seed": 1,
        "device": "cpu",
        "grid": {"selectivity": 3, "magnitude": 3},
        "networks": config["networks"][:1],
    }
    for changed in (config, config | changes, config | {"study": "new"}):
        Study(changed).check_results()
    mark(dataset="folder", path="data")
    for path in ("data", "./data/", str(place / "data")):
        Study(of_folder(config, path)).check_results()


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (
            {"study": "older"},
            r"study older \(images.dataset digits, images.path null\), and the config is of study digits",
        ),
        (
            {"dataset": "imagenette"},
            r"study digits \(images.dataset imagenette, images.path null\), and the config is of",
        ),
        ({"dataset": "folder", "path": "data"}, r"\(images.dataset folder, images.path data\), and the config is of"),
    ],
    ids=["name", "dataset", "path"],
)
def test_results_of_another_study_are_refused(place, config, there, words):
    """With both studies and the way out."""
    mark(**there)
    with pytest.raises(
        StudyError, match=rf"^results/digits: holds .*{words}.*`study:` of its own, or move that folder"
    ):
        Study(config).check_results()


def test_a_folder_of_other_images_is_another_study(place, config):
    mark(dataset="folder", path="elsewhere")
    with pytest.raises(
        StudyError, match=r"images\.path elsewhere.*images\.path data\).*keep `images.path` and leave a link there"
    ):
        Study(of_folder(config, "data")).check_results()
    # The way out: the images have moved from there.
    (place / "elsewhere").symlink_to("data")
    Study(of_folder(config, "elsewhere")).check_results()


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1" * 5])
def test_a_broken_table_of_images_is_no_evidence(place, config, content):
    """Whoever reads it says so."""
    mark(study="older")
    (place / IMAGES).write_bytes(content)
    Study(config).check_results()


@pytest.mark.parametrize("made", [None, "{", "[]", "3", "{}", '{"study": "older"}'])
def test_a_table_of_images_that_tells_nothing_is_no_evidence(place, config, made):
    """As one that was written before tables carried anything."""
    write(IMAGES, made=made, log="log")
    Study(config).check_results()
