"""Networks of the user's own through Snakemake: a transformer from a file, what recomputes when it changes, bad input."""

import copy

import pandas as pd
import pytest

from workflow import TINY, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

TRANSFORMER = """\
import torch
from torch import nn

from parts import Attention, spread

print("a transformer is defined")


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2, self.up, self.act, self.down = nn.LayerNorm(width), nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.act(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, outputs, width=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.place = nn.Parameter(torch.randn(1, 16, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.head(spread(self.norm(self.blocks(x)).mean(1)))


def build(outputs):
    return Transformer(outputs)
"""
PARTS = """\
from torch import nn


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out((q @ k.transpose(1, 2) / 4).softmax(-1) @ v)


def spread(x):
    return 10 * x
"""
LAYERS = ["blocks.0.act", "blocks.1.act", "norm"]
CELLS = 16
STUDY = TINY | {
    "study": "own",
    "networks": [
        TINY["networks"][0]
        | {
            "name": "transformer",
            "model": "models/net.py:build",
            "weights": "random",
            "layers": ["*.act", "norm"],
            "classes": ["0", "1", "2"],
            "targets": ["0"],
        }
    ],
    "controls": TINY["controls"] | {"layers": 1, "pseudo": 0},
    "importance": TINY["importance"] | {"layers": 1},
    "figures": {"network": "transformer", "target": None, "layer": None},
}


def create(folder):
    """A project with the builder, a module beside it that it imports, and one that it does not."""
    project = Project.create(folder, STUDY)
    (project.folder / "models").mkdir()
    for name, text in {"net": TRANSFORMER, "parts": PARTS, "other": ""}.items():
        (project.folder / "models" / f"{name}.py").write_text(text)
    return project


def edit(project, name, old, new):
    path = project.folder / "models" / f"{name}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The study, run to its end; not to be changed."""
    project = create(tmp_path_factory.mktemp("own") / "project")
    project.printed = project.run()
    return project


def test_a_transformer_is_studied_to_the_end(done):
    """Layers of tokens and features, and a node that is no non-linearity, with all tables."""
    assert "Finding the layers of models/net.py:build" in done.printed
    table = pd.read_parquet(done.results / "networks" / "transformer" / "layers.parquet")
    assert table["layer"].tolist() == LAYERS
    assert table["axes"].tolist() == ["tokens x features"] * 3
    assert [shape.tolist() for shape in table["shape"]] == [[16, 32], [16, 32], [16, 16]]
    cells = pd.read_parquet(done.results / "tables" / "cells.parquet")
    assert sorted(cells["layer"].unique()) == LAYERS and len(cells) == len(LAYERS) * CELLS
    assert cells.groupby("layer", sort=False)["units"].sum().to_dict() == dict(
        zip(LAYERS, [512, 512, 256], strict=True)
    )
    assert not cells["rank_change"].isna().any()
    assert (done.results / "figures" / "figure1.svg").exists()


@pytest.fixture
def project(done, tmp_path):
    return done.copy(tmp_path / "project")


@pytest.mark.parametrize("file", ["net", "parts"])
def test_a_line_of_the_builder_makes_everything_anew(project, file):
    """Its own file or one that it imports; another beside it leaves all as it is."""
    assert project.planned() == {}
    edit(project, "other", "", "x = 1\n")
    assert project.planned() == {}
    edit(project, file, "import nn\n", "import nn  # more\n")
    jobs = project.planned()
    assert jobs["layers"] == 1 and jobs["activations_transformer"] == 3 and jobs["ablations"] == len(LAYERS) * CELLS
    assert "images" not in jobs
    edit(project, file, "import nn  # more\n", "import nn\n")
    assert project.planned() == {}


def test_another_node_is_added_by_its_name(project):
    """The names are kept, so that nothing is traced to plan it; the table of layers is made anew, to have it."""
    config = copy.deepcopy(project.config)
    config["networks"][0]["layers"] = ["*.act", "norm", "blocks.1"]
    project.write(config)
    printed = project.run("--dry-run", "--quiet", "rules")
    assert "Finding the layers" not in printed
    jobs = project.planned()
    assert (jobs["layers"], jobs["ablations"]) == (1, (len(LAYERS) + 1) * CELLS)
    project.run("results/own/activations/transformer/blocks.1/0.parquet")
    table = pd.read_parquet(project.results / "networks" / "transformer" / "layers.parquet")
    assert table["layer"].tolist() == ["blocks.0.act", "blocks.1.act", "blocks.1", "norm"]


BAD = {
    "file": ({"model": "models/nowhere.py:build"}, "model models/nowhere.py:build: models/nowhere.py: no such file"),
    "name": ({"model": "models/net.py:built"}, "models/net.py has no callable built; did you mean build?"),
    "module": ({"model": "nowhere.net:build"}, "there is no module nowhere.net"),
    "pattern": (
        {"layers": "*.relu"},
        "layers: *.relu: matches no layer of models/net.py:build; its layers are blocks.0.act",
    ),
    "layer": ({"layers": ["blocks.0.att"]}, "has no layer blocks.0.att; its layers are blocks.0.act, blocks.1.act"),
    "transform": ({"transform": None}, "transform is missing; only torchvision's and timm's own weights say how"),
    "own": ({"model": "alexnet", "weights": "own"}, "weights: own: only models of timm and builders of your own"),
    "timm": ({"model": "timm:resnet17"}, "has no resnet17; did you mean"),
    "size": (
        {"transform": {"crop": 40}},
        "fails on images of 40 pixels (RuntimeError: The size of tensor a (25) must match",
    ),
    "weights": ({"weights": "nowhere.pt"}, "weights: nowhere.pt: no such file"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_message_before_anything_runs(tmp_path, what):
    changes, words = BAD[what]
    project = create(tmp_path / "project")
    config = copy.deepcopy(STUDY)
    network = config["networks"][0]
    for key, value in changes.items():
        network[key] = network[key] | value if isinstance(value, dict) else value
        if value is None:
            del network[key]
    project.write(config)
    printed = project.fail("--dry-run")
    assert words in printed and printed.count(words) == 1
    assert "Traceback" not in printed
    assert not project.results.exists()


CODE = {
    "broken": ("net", "class Block", "class Block(", "net.py cannot be imported: SyntaxError: "),
    "raises": ("net", "return Transformer(outputs)", "return Transformer(outputs, width='a')", "models/net.py, line"),
    "beside": ("parts", "3 * width", "3 * width / 0", "models/parts.py, line 7)"),
    "exits": ("net", "return Transformer", "raise SystemExit(0)\n    return Transformer", "SystemExit: 0 ("),
}


@pytest.mark.parametrize("what", CODE)
def test_an_error_in_the_builder_is_one_message_with_its_line(tmp_path, what):
    file, old, new, words = CODE[what]
    project = create(tmp_path / "project")
    edit(project, file, old, new)
    printed = project.fail("--dry-run")
    assert "networks: transformer: model models/net.py:build: " in printed and words in printed
    assert "Traceback" not in printed
    assert not project.results.exists()


def test_weights_that_are_others_each_time_end_the_run_early(tmp_path):
    """In the job that all others of the network wait for."""
    project = create(tmp_path / "project")
    edit(
        project,
        "net",
        "self.place = nn.Parameter(torch.randn(1, 16, width))",
        "import numpy\n        self.place = nn.Parameter(torch.tensor(numpy.random.randn(1, 16, width)).float())",
    )
    printed = project.fail()
    assert "place has other values each time that the network is built" in printed
    assert "Traceback" not in printed
    assert not list(project.results.glob("activations/*/*/*.parquet"))
