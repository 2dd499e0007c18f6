"""Layers of networks that are not known beforehand: found once, in a process of its own, and kept."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from commands import layers as command
from inputs import builders, layers
from inputs.sources import ImageSource, NetworkSource
from jobs import networks as job
from readout import StudyError
from runtime import subprocesses
from workflow import ROOT, ran

NET = """\
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.GELU()

    def forward(self, x):
        return x + self.act(self.conv(x))


def build(outputs):
    stem = nn.Conv2d(3, 4, 4, stride=4)
    return nn.Sequential(stem, nn.ReLU(), Block(), Block(), nn.Flatten(), nn.Linear(256, outputs))
"""
MODEL = "net.py:build"
LAYERS = ["1", "2.act", "3.act"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The folder of the run, with a builder."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    return tmp_path


@pytest.fixture
def counted(monkeypatch):
    """The jobs that would be given to processes of their own, done in this one."""
    given = []

    def run(module, settings, log=None):
        given.append((module, settings["job"]))
        job.list_names(settings["path_to_names"], source=settings["source"])

    monkeypatch.setattr(subprocesses, "run", run)
    return given


def source(outputs=10, size=32, weights="random-0", model=MODEL):
    transform = {"resize": None, "crop": size, "mean": [0.5] * 3, "std": [0.5] * 3}
    return NetworkSource(model, outputs, weights, ImageSource("digits", None, transform), builders.digest(model))


def kept():
    """The files of names."""
    return sorted(layers.FOLDER.glob("*"))


def test_the_process_finds_what_the_graph_has(capsys):
    """All names, with the layer and the block of each; the one line that is printed goes beside the plan."""
    found = layers.listed(source())
    assert [each.name for each in found if each.name == each.layer] == LAYERS
    assert {(each.name, each.layer, each.block) for each in found} >= {("2.act", "2.act", "2"), ("2", None, None)}
    assert [each.name for each in found if each.layer is None and each.name.startswith("2")] == ["2.conv", "2"]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"Finding the layers of {MODEL}\n")


def test_make_layers_prints_what_a_list_may_have(monkeypatch, tmp_path, capsys):
    """Layers as a configuration lists them; with its nodes every other name, those of one node together."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from torch import nn\n\n\ndef build(outputs):\n    head = nn.Sequential(nn.Flatten(), nn.Linear(256, outputs))\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(), head)\n"
    )
    for nodes in (False, True):
        command.show("net.py:build", size=8, outputs=10, choice="all", nodes=nodes)
        printed = capsys.readouterr().out.splitlines()
        assert printed[:3] == [
            "# net.py:build at 8 pixels: 1 layers, 256 units",
            "layers:",
            "  - conv1  # channels x height x width: 4 x 8 x 8, 256 units",
        ]
        assert set(printed[3:]) == (
            {
                "# 7 other names of nodes and modules, for a list:",
                "#   _0 or 0  # channels x height x width: 4 x 8 x 8, 256 units",
                "#   _2_0 or 2.0  # features: 256, 256 units",
                "#   _2_1 or 2 or 2.1  # features: 10, 10 units",
            }
            if nodes
            else set()
        )


def test_a_second_time_no_process_is_started(counted, monkeypatch, capsys):
    """And nothing is printed; weights and data sets that are others change nothing."""
    found = layers.listed(source())
    assert counted == [("jobs.networks", "names")]
    capsys.readouterr()

    def fail(*given):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocesses, "run", fail)
    other = source(weights="random-1")
    for each in (source(), other, replace(other, images=replace(other.images, dataset="folder", path="nowhere"))):
        assert layers.listed(each) == found
    assert capsys.readouterr().err == ""
    assert len(kept()) == 1


@pytest.mark.parametrize("content", [b"", b"[", b"\xff\xfe", b"null", b"3", b'{"name": 1}', b'[{"name": "a"}]', b"[3]"])
def test_a_broken_file_is_made_anew(counted, content):
    found = layers.listed(source())
    whole = kept()[0].read_bytes()
    kept()[0].write_bytes(content)
    assert layers.listed(source()) == found
    assert len(counted) == 2 and kept()[0].read_bytes() == whole


def test_what_the_names_depend_on_has_a_file_of_its_own(counted, monkeypatch):
    """Another source, number of outputs, size of images, version of torch or line of the project's code."""
    Path("net.py").write_text(NET.replace("nn.Flatten()", "nn.AdaptiveAvgPool2d(8), nn.Flatten()"))
    for other in (source(), source(outputs=7), source(size=64)):
        layers.listed(other)
    Path("net.py").write_text(Path("net.py").read_text() + "# more\n")
    layers.listed(source(size=64))
    monkeypatch.setattr(layers, "_version", lambda package: "0.1")
    layers.listed(source(size=64))
    monkeypatch.setattr(layers, "digest", lambda step: "other code")
    layers.listed(source(size=64))
    assert len(counted) == len(kept()) == 6
    layers.listed(source(size=64))
    assert len(counted) == 6


def test_published_weights_say_the_size_where_no_transform_does(counted):
    """Of timm's, which has several sizes of images under one architecture."""
    of_timm = NetworkSource("timm:test_resnet.r160_in1k", 1000, "own", ImageSource("digits", None, None))
    assert layers.listed(of_timm)
    assert len(kept()) == 1


REFUSED = {
    "builder": (
        "    stem =",
        "    1 / 0\n    stem =",
        r"builder\(10\) raised ZeroDivisionError: .*net\.py, line 15\)$",
    ),
    "size": ("256", "255", r"fails on images of 32 pixels \(RuntimeError: mat1 .*\); transform\.crop is their size$"),
    "outputs": ("256, outputs", "256, 3", r"gives \[3, 3\] for 3 images, .*`outputs` says how many there are$"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_network_that_does_not_serve_has_no_names(counted, what):
    """In one line; and no file is left."""
    old, new, words = REFUSED[what]
    Path("net.py").write_text(NET.replace(old, new))
    with pytest.raises(StudyError, match=rf"^model net\.py:build: {words}") as refused:
        layers.listed(source())
    assert "\n" not in str(refused.value)
    assert kept() == []


def test_a_process_that_fails_says_why(monkeypatch):
    """Whatever the builder prints, which Python would keep for the end."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    old, new, words = REFUSED["builder"]
    Path("net.py").write_text(NET.replace(old, f"    print('a network')\n{new}"))
    with pytest.raises(StudyError, match=rf"^model net\.py:build: {words.replace('15', '16')}"):
        layers.listed(source())
    assert kept() == []


PLAN = """\
import sys, yaml
from inputs.study import Study
study = Study(yaml.safe_load(open("config.yaml")))
print(*study.networks["own"].layers, study.networks["own"].builder, "torch" in sys.modules, "timm" in sys.modules)
"""


def test_a_study_is_planned_without_torch(here):
    """The second time at all, and the first time but for the process that finds the names."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) | {"occlusion": None}
    network = {"name": "own", "model": MODEL, "weights": "random", "layers": ["2", "*.act"]}
    network |= {"transform": source().images.transform, "classes": "all", "targets": "all"}
    config |= {"networks": [network], "figures": {"network": "own", "layer": None, "target": None}}
    Path("config.yaml").write_text(yaml.safe_dump(config | {"controls": None, "importance": None}))
    printed = []
    for _ in range(2):
        done = ran([sys.executable, "-c", PLAN], env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")}, check=True)
        printed.append((done.stdout.split(), done.stderr))
    expected = ["2.act", "2", "3.act", builders.digest(MODEL), "False", "False"]
    assert printed == [(expected, f"Finding the layers of {MODEL}\n"), (expected, "")]


def test_names_agree_with_the_table(counted):
    """What is planned is there when the jobs run."""
    found = layers.listed(source())
    # A node and its module are one.
    names = [each.name for each in found if each.layer in (None, each.name) and each.name[0].isdigit()]
    job.list_layers("layers.parquet", source=source(), chosen=names, cells=2, device="cpu")
    assert list(job.layer_nodes("layers.parquet")) == names
    assert json.loads(kept()[0].read_text())[0].keys() == {"name", "layer", "block", "node"}
