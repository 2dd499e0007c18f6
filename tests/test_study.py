"""The config: what a study enumerates, and the message for each mistake."""

import contextlib
import copy
import hashlib
import os
import re
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from inputs import weights
from inputs.study import Study
from readout import StudyError, layer_names
from workflow import ROOT

ONE_CLASS = {
    "name": "one",
    "model": "small_alexnet",
    "weights": {"epochs": 1, "batch": 32, "learning_rate": 0.1},
    "transform": {"resize": None, "crop": 32, "mean": [0, 0, 0], "std": [1, 1, 1]},
    "layers": "all",
    "classes": ["0"],
    "targets": "all",
}


@pytest.fixture
def config():
    """The default study without the occlusion task, whose needs tests/test_occlusions.py has."""
    return yaml.safe_load((ROOT / "config.yaml").read_text()) | {"occlusion": None}


def folder(tmp_path, config, counts, **images):
    """A config whose images are (empty) files in sub-folders."""
    for name, count in counts.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "data" / name / f"{i}.png").touch()
    data = {"dataset": "folder", "path": str(tmp_path / "data"), "labels": None, "study": 10}
    networks = [entry | {"targets": "all", "weights": ONE_CLASS["weights"]} for entry in config["networks"]]
    return config | {"images": data | images, "networks": networks, "figures": config["figures"] | {"target": None}}


def test_default_study_is_of_the_promised_size(config):
    """8,000 cell jobs: all layers of the AlexNet, five of each other network, first and last among them; ten targets.

    And three layers of a network that is not trained; controls on all of them.
    """
    study = Study(config)
    assert 2 * len(study.cells) * len(list(study.grids())) == 2 * 16 * (7 + 5 + 5 + 5 + 3) * 10 == 8000
    assert study.networks["untrained"].weights == "random-0"
    assert study.networks["alexnet"].layers == ("conv1", "conv2", "conv3", "conv4", "conv5", "dense1", "dense2")
    for network in study.networks.values():
        assert len(network.layers) >= (3 if network.name == "untrained" else 5)
        assert study.controlled(network.name) == network.layers
        known = layer_names.KNOWN[network.model]
        assert (network.layers[0], network.layers[-1]) == (known[0], known[-1])
        assert len(network.targets) == 10
        assert all(len(study.others(network.name, target)) == 9 for target in network.targets)


def test_order_of_classes_and_layers_changes_nothing(config):
    other = copy.deepcopy(config)
    for entry in other["networks"]:
        entry["targets"] = [str(i) for i in reversed(range(10))]
        entry["classes"] = [str(i) for i in reversed(range(10))]
    assert list(Study(other).grids()) == list(Study(config).grids())


def test_classes_may_be_written_as_numbers(config):
    other = copy.deepcopy(config)
    for entry in other["networks"]:
        entry["targets"] = list(range(10))
    assert list(Study(other).grids()) == list(Study(config).grids())


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["probs"], {}, ["probs: unknown key", "did you mean probes?"]),
        (["probes", "published", "drawz"], 3, ["probes.published.drawz: unknown key", "did you mean draws?"]),
        (["networks", 0, "layer"], "all", ["networks[0].layer: unknown key", "did you mean layers?"]),
        (["probes", "published", "draws"], "ten", ["probes.published.draws", "'ten'", "integer"]),
        (["probes", "published", "C"], -1, ["probes.published.C", "-1"]),
        (["probes", "crossfit", "C"], [], ["probes.crossfit.C", "non-empty"]),
        (["probes", "crossfit"], {}, ["probes.crossfit: C, draws is missing"]),
        (["probes", "draws"], 10, ["probes.draws: is called probes.published.draws now; rename the key"]),
        (["probes", "units"], 100, ["probes.units: is called probes.published.units now; rename the key"]),
        (["probes", "C"], 1.0, ["probes.C: is called probes.published.C now; rename the key"]),
        (["probes", "strength"], 1.0, ["probes.strength: is called probes.crossfit.C now; rename the key"]),
        (
            ["probes", "held_out"],
            {"C": 1.0},
            ["probes.held_out: is no longer there", "probes.crossfit {C, draws} took its"],
        ),
        (["ablations", "value"], 0.5, ["ablations.value: is no longer there: ablations.interventions took its place"]),
        (["claims", "replicates"], 99, ["claims.replicates: is no longer there: a jackknife", "leave the key out"]),
        (["ablations", "protocols"], [], ["ablations.protocols", "non-empty"]),
        (["ablations", "protocols"], ["corrected"], ["ablations.protocols[0]: 'corrected'", "published, crossfit"]),
        (["ablations", "interventions"], ["resample"], ["interventions[0]: 'resample'", "zero, mean, erase"]),
        (["ablations", "interventions"], ["zero", "zero"], ["ablations.interventions", "non-unique"]),
        (["ablations", "protocols"], ["published"], ["controls: ", "add crossfit there, or set controls to null"]),
        (["probes", "crossfit"], None, ["controls.pseudo: ", "set it to 0, or give probes.crossfit its settings"]),
        (
            ["ablations", "interventions"],
            ["erase"],
            ["controls.pseudo: ", "add one there, or set controls.pseudo to 0"],
        ),
        (["controls", "pseudo"], 1, ["controls.pseudo: 1 pseudo-target", "take at least 2, or 0"]),
        (["controls", "layers"], ["conv1", "conv9"], ["controls.layers: no network of the study has conv9"]),
        (["controls", "layers"], 0, ["controls.layers", "0"]),
        (["controls", "layers"], [], ["controls.layers", "[]"]),
        (["controls", "pseudo"], 1.0, ["controls.pseudo", "integer"]),
        (["controls", "random"], -1, ["controls.random", "minimum"]),
        (["controls", "randomly"], 3, ["controls.randomly: unknown key", "did you mean random?"]),
        (["controls"], 10, ["controls", "10"]),
        (["importance", "measures"], [], ["importance.measures", "non-empty"]),
        (
            ["importance", "measures"],
            ["selectivty"],
            ["importance.measures: selectivty is none of those", "did you mean selectivity?", "d_prime"],
        ),
        (
            ["importance", "measures"],
            ["random"],
            ["importance.measures: random", "random orders are importance.random"],
        ),
        (["importance", "layers"], ["conv9"], ["importance.layers: no network of the study has conv9"]),
        (["importance", "targets"], ["3", "x"], ["importance.targets: no network of the study has x"]),
        (["importance", "tops"], [1], ["importance.tops[0]", "minimum"]),
        (["importance", "keep"], 0, ["importance.keep", "minimum"]),
        (["importance", "random"], 0, ["importance.random", "minimum"]),
        (["importance", "interventions"], ["erase"], ["importance.interventions[0]: 'erase'", "zero, mean"]),
        (["importance", "fractions"], [4], ["importance.fractions: unknown key", "tops"]),
        (["ablations", "shapley"], {"permutations": 10}, ["ablations.shapley: error is missing"]),
        (["grid", "selectivity"], 1, ["grid.selectivity", "minimum"]),
        (["others"], "random_5", ["others", "random_10, all"]),
        (["device"], "gpu", ["device", "cpu, cuda, auto, openvino"]),
        (["study"], "../up", ["study", "letters, digits"]),
        (["images", "study"], 3, ["images.study", "10"]),
        (["networks", 0, "model"], "alexnot", ["shipped: there are none for alexnot", "small_alexnet"]),
        (["networks", 0, "layers"], ["conv9"], ["alexnet", "no layer conv9", "conv1, conv2"]),
        (["networks", 0, "layers"], 8, ["alexnet", "8", "7 layers"]),
        (["networks", 0, "classes"], ["0", "ten"], ["alexnet", "no class ten", "0, 1, 2"]),
        (["networks", 0], ONE_CLASS, ["classes", "at least one other class"]),
        (["networks", 0, "targets"], ["11"], ["targets", "no class 11"]),
        (["networks", 0, "weights"], "nowhere.pt", ["weights", "nowhere.pt", "no such file"]),
        (["networks", 0, "outputs"], 4, ["class 4", "4 outputs"]),
        (["networks", 1, "name"], "alexnet", ["two networks have one name"]),
        (["networks", 0, "name"], "a/b", ["a/b", "cannot be part of a name"]),
        (["images", "study"], 500, ["images.study: 500", "shipped networks", "all images but 50", "set it to 50"]),
        (["figures", "network"], "resnet50", ["figures.network", "resnet50", "alexnet, vgg16"]),
        (["figures", "layer"], "conv6", ["figures.layer", "conv6", "null takes the last"]),
        (["figures", "target"], "10", ["figures.target", "10"]),
        (["images", "labels"], "labels.tsv", ["images.labels: shipped networks have their own", "set it to null"]),
    ],
)
def test_mistake_is_named_with_the_way_out(config, path, value, words):
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(StudyError) as error:
        Study(config)
    assert all(word in str(error.value) for word in words), str(error.value)


def trained_here(config):
    """The default study with networks that a rule trains: its images are then the user's to choose."""
    return config | {"networks": [entry | {"weights": ONE_CLASS["weights"]} for entry in config["networks"]]}


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({"study": 500}, ["class 0", "500 images", "lower images.study"]),
        ({"labels": "labels.tsv"}, ["images.labels", "labels.tsv", "cannot be read"]),
    ],
)
def test_images_that_do_not_serve_training_are_refused(config, images, words):
    with pytest.raises(StudyError) as error:
        Study(trained_here(config) | {"images": config["images"] | images})
    assert all(word in str(error.value) for word in words), str(error.value)


PAPER = yaml.safe_load((ROOT / "workflow" / "studies" / "paper.yaml").read_text())
"""What the paper's study changes of config.yaml."""


def merged(config, study):
    """As Snakemake merges a config over config.yaml."""
    update_config(config, copy.deepcopy(study))
    return config


@pytest.fixture
def imagenet(tmp_path):
    """A folder with the paper's fifty classes, fifty (empty) validation images each."""
    for class_id in PAPER["networks"][0]["classes"]:
        (tmp_path / "imagenet" / "val" / class_id).mkdir(parents=True)
        for i in range(50):
            (tmp_path / "imagenet" / "val" / class_id / f"{i}.JPEG").touch()
    return str(tmp_path / "imagenet")


def test_papers_study_is_the_papers(config, imagenet):
    """Fifty classes for AlexNet and eight for the others, all layers, sixteen cells: 49,600 jobs of cells."""
    study = Study(merged(config, PAPER | {"images": PAPER["images"] | {"path": imagenet}}))
    assert [len(network.layers) for network in study.networks.values()] == [7, 15, 35, 100]
    assert [len(network.targets) for network in study.networks.values()] == [50, 8, 8, 8]
    assert [network.classes for network in study.networks.values()] == [
        network.targets for network in study.networks.values()
    ]
    assert [network.outputs for network in study.networks.values()] == [1000] * 4
    others = {
        network.name: {len(study.others(network.name, t)) for t in network.targets}
        for network in study.networks.values()
    }
    assert others == {"alexnet": {10}, "vgg16": {7}, "mobilenet_v2": {7}, "resnet101": {7}}
    assert 2 * len(study.cells) * len(list(study.grids())) == 2 * 16 * (7 * 50 + (15 + 35 + 100) * 8) == 49_600
    assert config["probes"]["published"] == {"draws": 200, "units": 100, "C": 1.0}
    assert {len(study.controlled(name)) for name in study.networks} == {6}


def test_imagenettes_study_needs_no_files(config):
    """It is planned before torchvision downloads the images."""
    study = Study(merged(config, yaml.safe_load((ROOT / "workflow" / "studies" / "imagenette.yaml").read_text())))
    assert len(study.classes) == 10
    assert 2 * len(study.cells) * len(list(study.grids())) == 2 * 16 * (7 + 6 + 6 + 6) * 4 == 3200
    assert study.labels["n03888257"] == 701


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": "random"}, ["alexnet", "transform is missing"]),
        ({"weights": "imagenet.pth"}, ["imagenet.pth: no such file, nor a name of torchvision's"]),
        ({"model": "alexnot"}, ["model alexnot: neither the study nor torchvision has it; did you mean alexnet"]),
        ({"model": "vgg16", "layers": "blocks"}, ["blocks: vgg16 has none"]),
        ({"outputs": 100}, ["class n01910747: output 107, but alexnet has 100 outputs"]),
        ({"outputs": 1001}, ["outputs: 1001, but torchvision's weights have 1000"]),
        ({"weights": "random-3"}, ["random-3: say random"]),
        ({"weights": "shipped-0123456789abcdef"}, ["shipped-0123456789abcdef: write shipped"]),
        ({"classes": ["n01440764", "n04147183"]}, ["no class n01440764"]),
        ({"layers": ["../up"]}, ["alexnet has no layer ../up"]),
        ({"model": "googlenet", "layers": ["a/b"]}, ["googlenet has no layer a/b", "inception3a.branch1.bn"]),
    ],
)
def test_mistakes_with_published_networks(config, imagenet, changes, words):
    networks = [PAPER["networks"][0] | {"targets": "all"} | changes]
    with pytest.raises(StudyError) as error:
        Study(merged(config, PAPER | {"images": PAPER["images"] | {"path": imagenet}, "networks": networks}))
    assert all(word in str(error.value) for word in words), str(error.value)


PLANTED = yaml.safe_load((ROOT / "workflow" / "studies" / "planted.yaml").read_text())


def test_the_planted_study_is_planned(config):
    """Two networks, four targets, one layer of known roles; their weights are no file and are not trained."""
    assert not any(network.planted for network in Study(config).networks.values())
    study = Study(merged(config, PLANTED))
    assert 2 * len(study.cells) * len(list(study.grids())) == 2 * 16 * 2 * 4 == 256
    for network in study.networks.values():
        assert (network.planted, network.file, network.trained) == (True, None, False)
        assert (network.outputs, network.layers, network.targets) == (5, ("first",), ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("images", "changes", "words"),
    [
        (
            {"dataset": "digits"},
            {"targets": "all"},
            ["planted sees the images made for it", "images.dataset to planted"],
        ),
        ({"labels": {"a": 1, "b": 0, "c": 2, "d": 3, "none": 4}}, {}, ["images.labels to null"]),
        ({"study": 101}, {}, ["class a: 100 images", "images.study asks for 101"]),
        ({}, {"model": "small_alexnet"}, ["weights: planted", "only planted and planted_null", "for small_alexnet"]),
        ({}, {"weights": "random"}, ["weights: planted has its own alone", "set it to planted"]),
        ({}, {"weights": ONE_CLASS["weights"]}, ["weights: planted has its own alone", "set it to planted"]),
        ({}, {"weights": "planted_null"}, ["weights: planted has its own alone", "set it to planted"]),
        ({}, {"outputs": 6}, ["outputs: 6, but planted has 5"]),
        ({}, {"transform": ONE_CLASS["transform"]}, ["transform: planted needs its own", "'crop': 16"]),
        ({}, {"layers": "blocks"}, ["blocks: planted has none"]),
        ({}, {"targets": ["e"]}, ["no class e"]),
    ],
)
def test_mistakes_with_planted_networks(config, images, changes, words):
    changed = {"images": PLANTED["images"] | images, "networks": [PLANTED["networks"][0] | changes]}
    with pytest.raises(StudyError) as error:
        Study(merged(config, PLANTED | changed))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_untrained_network_follows_the_seed(config, imagenet):
    """`random` draws weights by the study's seed; they are no file."""
    entry = PAPER["networks"][0] | {"weights": "random", "transform": config["networks"][0]["transform"]}
    images = {"images": PAPER["images"] | {"path": imagenet}, "networks": [entry], "seed": 7}
    network = Study(merged(config, PAPER | images)).networks["alexnet"]
    assert (network.weights, network.file, network.trained) == ("random-7", None, False)


@pytest.mark.parametrize(("count", "names"), [(2, ("random0", "random1")), (0, ()), (None, ())])
def test_a_study_has_so_many_random_groups(config, count, names):
    """Their kinds stand beside those of the cells."""
    study = Study(config | {"controls": None if count is None else config["controls"] | {"random": count}})
    assert study.random == names
    assert study.kinds == dict.fromkeys(study.cells, "cell") | dict.fromkeys(names, "random")


def test_missing_key_is_named(config):
    del config["probes"]["published"]["draws"]
    with pytest.raises(StudyError, match=r"probes\.published: draws is missing"):
        Study(config)


def test_folder_gives_its_sub_folders_as_classes(tmp_path, config):
    study = Study(folder(tmp_path, config, {"b": 12, "a": 11}))
    assert study.classes == ("a", "b")
    assert study.labels == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("counts", "images", "words"),
    [
        ({"a": 12, "b": 9}, {}, ["class b", "9 images", "images.study asks for 10"]),
        ({"a": 12, "b": 10}, {}, ["class b", "one more to train on"]),
        ({}, {}, ["images.path", "one sub-folder a class"]),
        ({"a": 12, "b": 12}, {"path": "nowhere"}, ["images.path", "nowhere"]),
        ({"a": 12, "b": 12}, {"labels": {"a": 0}}, ["no output is given for class b"]),
        ({"a": 12, "b{x}": 12}, {}, ["b{x}", "rename it"]),
    ],
)
def test_folder_that_does_not_serve_is_refused(tmp_path, config, counts, images, words):
    with pytest.raises(StudyError) as error:
        Study(folder(tmp_path, config, counts, **images))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("to", ["..", ".", "../data", "../../{tmp_path.name}/data"])
def test_a_class_that_is_a_link_to_a_folder_above_is_named(tmp_path, config, to):
    """The number of its images is not what is the matter."""
    study = folder(tmp_path, config, {"a": 12, "b": 12})
    link = tmp_path / "data" / "loop"
    link.symlink_to(to.format(tmp_path=tmp_path))
    with pytest.raises(StudyError) as error:
        Study(study)
    words = (
        f"class loop: its folder is a link to {link.resolve()}, which contains it and has 0 images beside its folders"
    )
    assert str(error.value).startswith(words)
    assert "put a folder of images in its place, remove it or leave the class out" in str(error.value)


def test_a_class_of_imagenet_that_is_a_link_to_a_folder_above_is_named(config, imagenet):
    loop = Path(imagenet) / "val" / "n01440764"
    loop.symlink_to("..")
    entry = PAPER["networks"][0] | {"classes": ["n01440764", "n04147183"], "targets": "all"}
    with pytest.raises(StudyError, match=rf"class n01440764: its folder is a link to {imagenet}, which contains it"):
        Study(merged(config, PAPER | {"images": PAPER["images"] | {"path": imagenet}, "networks": [entry]}))


def test_other_links_are_classes_as_any(tmp_path, config):
    """To a folder elsewhere or beside, the data set itself behind a link, and one above that is not needed."""
    study = folder(tmp_path, config, {"a": 12, "b": 12})
    (tmp_path / "elsewhere").mkdir()
    for i in range(11):
        (tmp_path / "elsewhere" / f"{i}.png").touch()
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "d").symlink_to("a")
    (tmp_path / "link").symlink_to("data")
    study["images"] |= {"path": str(tmp_path / "link")}
    assert Study(study).data.counts == {"a": 12, "b": 12, "c": 11, "d": 12}
    # Too few: the number is to blame.
    (tmp_path / "elsewhere" / "0.png").unlink()
    with pytest.raises(StudyError, match=r"class c: 10 images, but images\.study asks for 10, and at least one more"):
        Study(study)
    # A class that nobody asks for may lead anywhere.
    (tmp_path / "data" / "c").unlink()
    (tmp_path / "data" / "loop").symlink_to("..")
    given = {"weights": str(ROOT / "README.md"), "classes": ["a", "b"]}
    study["networks"] = [entry | given for entry in study["networks"]]
    assert Study(study).networks["alexnet"].classes == ("a", "b")


def test_labels_come_from_a_table(tmp_path, config):
    table = tmp_path / "labels.tsv"
    table.write_text("class_id\tname\tlabel\na\tfirst\t7\nb\tsecond\t3\n")
    assert Study(folder(tmp_path, config, {"a": 12, "b": 12}, labels=str(table))).labels == {"a": 7, "b": 3}
    table.write_text("class\tlabel\na\t7\n")
    with pytest.raises(StudyError, match="columns class_id and label"):
        Study(trained_here(config) | {"images": config["images"] | {"labels": str(table)}})


def test_listing_digest_sees_files_come_and_go(tmp_path, config):
    study = folder(tmp_path, config, {"a": 12, "b": 12})
    before = Study(study).listing_digest()
    assert Study(study).listing_digest() == before
    (tmp_path / "data" / "a" / "new.png").touch()
    assert Study(study).listing_digest() != before


def test_config_is_complete():
    """config.yaml has every required key of the schema, so that another study needs only what differs."""
    schema = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())
    config = yaml.safe_load((ROOT / "config.yaml").read_text())

    def check(part, given):
        assert part["additionalProperties"] is False
        assert list(part["properties"]) == list(given)
        for name, inner in part["properties"].items():
            if "object" in inner.get("type", ()) and given[name] is not None:
                check(inner, given[name])

    check(schema, config)


# ---- what stands where the results go


def nothing(at):
    """The folder is yet to be made."""


def a_file(at):
    at.touch()


def a_folder(at):
    at.mkdir()


def link_to_folder(at):
    at.with_name("elsewhere").mkdir()
    at.symlink_to("elsewhere")


def link_to_nothing(at):
    at.symlink_to("nowhere")


def link_to_file(at):
    at.with_name("file").touch()
    at.symlink_to("file")


def link_to_itself(at):
    at.symlink_to(at.name)


def a_pipe(at):
    os.mkfifo(at)


@pytest.mark.parametrize("place", ["results", "results/digits"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nothing, None),
        (a_folder, None),
        (link_to_folder, None),
        (a_file, "is no folder, but results go there; move or rename it"),
        (a_pipe, "is no folder, but results go there"),
        (link_to_file, "is no folder, but results go there"),
        (link_to_nothing, "is a link to nowhere, where nothing is; make that folder or remove the link"),
        (link_to_itself, "cannot be read (Too many levels of symbolic links); results go there"),
    ],
)
def test_what_is_no_folder_of_results_is_refused(tmp_path, monkeypatch, config, place, make, words):
    monkeypatch.chdir(tmp_path)
    Path(place).parent.mkdir(exist_ok=True)
    make(Path(place))
    with pytest.raises(StudyError) if words else contextlib.nullcontext() as error:
        Study(config).check_results()
    assert not words or str(error.value).startswith(f"{place}: {words}")


@contextlib.contextmanager
def bound_by_permissions():
    """Root, which the permissions of files do not bind, works as another user."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("place", ["results", "results/digits"])
@pytest.mark.parametrize(("mode", "refused"), [(0o000, True), (0o444, True), (0o111, True), (0o555, False)])
def test_results_that_cannot_be_read_are_refused(tmp_path, monkeypatch, config, place, mode, refused):
    """To list a folder and to open what is in it are two permissions; whether it can be written the run finds out."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("results/digits").mkdir(parents=True)
    study = Study(config)
    Path(place).chmod(mode)
    try:
        with bound_by_permissions(), pytest.raises(StudyError) if refused else contextlib.nullcontext() as error:
            study.check_results()
    finally:
        Path(place).chmod(0o755)
    words = f"{place}: cannot be read (Permission denied); results go there: make it readable or move it away"
    assert not refused or str(error.value) == words


def test_shipped_weights_are_those_of_their_list():
    """Each file has the hash that shipped.yaml says, and jobs name it by the hash: other weights are other settings."""
    for model, about in weights.shipped()["models"].items():
        content = (weights.FOLDER / f"{model}.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == about["sha256"], model
        assert weights.stamped(model) == f"shipped-{about['sha256'][:16]}"
    assert sum(path.stat().st_size for path in weights.FOLDER.iterdir()) < 5e6


def test_shipped_weights_want_the_images_that_they_were_trained_with(config):
    """Other pixels would run quietly, and wrongly; another split would study what the network was trained on."""
    assert Study(config).set_aside_digest == weights.shipped()["split"]["images"]
    assert Study(config | {"seed": 5}).split_seed == weights.shipped()["split"]["seed"] != 5
    # Fewer of the images that are set aside may be studied; those that train stay the same.
    few = Study(config | {"images": config["images"] | {"study": 20}})
    assert (few.set_aside, Study(config).set_aside, few.config["images"]["study"]) == (50, 50, 20)
    config["networks"][0]["transform"] = config["networks"][0]["transform"] | {"std": [1.0, 1.0, 1.0]}
    with pytest.raises(
        StudyError, match=r"alexnet: transform: shipped weights need the one with which they were trained"
    ):
        Study(config)


# ---- measures of importance


def test_grids_whose_units_are_ranked(config):
    """So many layers from first to last, some by name, or all; targets likewise; null is none."""
    network = config["networks"][0] | {"layers": ["conv1", "conv3", "conv5", "dense2"], "targets": ["0", "3", "5", "8"]}
    small = config | {"networks": [network]}

    def grids(**given):
        return [grid[1:] for grid in Study(small | {"importance": config["importance"] | given}).ranked()]

    assert grids(layers=2, targets=1) == [("conv1", "8"), ("dense2", "8")]
    assert grids(layers=["conv3"], targets=["5", "0"]) == [("conv3", "0"), ("conv3", "5")]
    assert len(grids(layers="all", targets="all")) == 16
    # More than there are is all of them.
    assert len(grids(layers=9, targets=9)) == 16
    assert list(Study(small | {"importance": None}).ranked()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"ablations": {"protocols": ["published"], "interventions": ["zero"], "shapley": None}},
            "importance: is ablated as the cross-fitted protocol has it, which ablations.protocols leaves out",
        ),
        (
            {"probes": {"published": {"draws": 1, "units": 2, "C": 1.0}, "crossfit": None}},
            "importance.measures: probe_weight: needs the cross-fitted probe, which probes.crossfit leaves out",
        ),
        (
            {
                "ablations": {
                    "protocols": ["crossfit"],
                    "interventions": ["erase"],
                    "shapley": {"permutations": 9, "error": 0.1},
                }
            },
            "ablations.shapley: is for zero and for mean, and ablations.interventions has neither",
        ),
    ],
    ids=["published", "no probe", "erase"],
)
def test_what_measures_need_is_asked_for(config, changes, words):
    """With the way out: `importance: null`, or the key that is missing."""
    with pytest.raises(StudyError, match=re.escape(words)):
        Study(config | {"controls": None} | changes)
    off = {"importance": None, "ablations": changes.get("ablations", config["ablations"]) | {"shapley": None}}
    Study(config | {"controls": None} | changes | off)
