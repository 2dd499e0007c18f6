"""Networks: names of layers, graphs without in-place operations, the cut, files of weights, training."""

import copy
import functools
import json
import math
import pickle
import threading
import urllib.error
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision import models as torchvision_models
from torchvision.models import _api as torchvision_api

from inputs import checkpoints
from inputs import weights as weights_of
from inputs.sources import ImageSource, NetworkSource
from jobs import images as images_job
from jobs import networks as job
from readout import StudyError, activations, cuts, layer_names, layers, models, scores, tracing, training
from readout import images as readout_images
from readout.relatives import BUILDERS
from runtime import parquet
from workflow import LIMIT


def _layers(network, size=32):
    return layers.find(network, tracing.trace(network), torch.zeros(1, 3, size, size))


def _graph(model):
    return tracing.trace(models.build(model, 10, seed=0)).graph


@pytest.mark.parametrize("model", BUILDERS)
def test_names_on_the_graph_are_the_known_ones(model):
    """The workflow is planned with `layer_names.KNOWN` before torch is loaded."""
    found = _layers(models.build(model, 10, seed=0))
    assert tuple(layer.name for layer in found) == layer_names.KNOWN[model]
    assert [layer.depth for layer in found] == list(range(len(found)))
    assert len({layer.node for layer in found}) == len(found)


def test_every_own_model_has_known_layers():
    """They could not be planned otherwise; besides, the paper's networks of torchvision are known."""
    assert set(layer_names.KNOWN) == set(models.BUILDERS) | {
        "alexnet",
        "vgg16",
        "vgg16_bn",
        "mobilenet_v2",
        "resnet101",
    }


# Number of layers of the originals, counted in the papers: five convolutions and two dense layers; 13 and 2; 17 blocks
# of two, less the first's expansion, with stem and head; 8 blocks of three, and the stem.
@pytest.mark.parametrize(
    ("model", "count"), [("small_alexnet", 7), ("small_vgg16", 15), ("small_mobilenet_v2", 35), ("small_resnet", 25)]
)
def test_number_of_layers(model, count):
    """By hand, and without repeats."""
    assert len(set(layer_names.KNOWN[model])) == len(layer_names.KNOWN[model]) == count


@pytest.mark.parametrize("model", BUILDERS)
def test_shapes_are_those_of_the_activations(model, images):
    """Channels, height and width of each layer; a dense layer has features alone."""
    network = models.build(model, 10, seed=0)
    found = _layers(network)
    shapes = {}
    activations.record(
        tracing.trace(network), images[:1], [f.node for f in found], lambda n, v: shapes.update({n: v.shape[1:]})
    )
    for layer in found:
        assert layer.shape == shapes[layer.node]
        assert layer.axes == (("channels", "height", "width") if len(layer.shape) == 3 else ("features",))
        assert layer.units == shapes[layer.node].numel()


def test_layers_of_the_small_alexnet_by_hand():
    """32 pixels: stride 2 to 16, pooled to 8, to 4; dense layers of 256."""
    found = _layers(models.build("small_alexnet", 10, seed=0))
    shapes = [(layer.name, *layer.shape) for layer in found]
    assert shapes == [
        ("conv1", 16, 16, 16),
        ("conv2", 48, 8, 8),
        ("conv3", 96, 4, 4),
        ("conv4", 64, 4, 4),
        ("conv5", 64, 4, 4),
        ("dense1", 256),
        ("dense2", 256),
    ]


PUBLISHED = {"alexnet": 7, "vgg16": 15, "vgg16_bn": 15, "mobilenet_v2": 35, "resnet101": 100}
"""The paper's networks as torchvision builds them, and their numbers of layers."""


@pytest.fixture(scope="module")
def published():
    """Builds a network of torchvision once."""
    return functools.cache(lambda model: models.build(model, 1000, seed=0))


# Units at 224 pixels, by hand for AlexNet: 64 x 55 x 55 + 192 x 27 x 27 + (384 + 256 + 256) x 13 x 13 + 2 x 4096. VGG16:
# 2 x 64 x 224 x 224 + 2 x 128 x 112 x 112 + 3 x 256 x 56 x 56 + 3 x 512 x 28 x 28 + 3 x 512 x 14 x 14 + 2 x 4096.
@pytest.mark.parametrize(("model", "units"), [("alexnet", 493_184), ("vgg16", 13_555_712), ("vgg16_bn", 13_555_712)])
def test_units_by_hand(model, units, published):
    assert sum(layer.units for layer in _layers(published(model), 224)) == units


@pytest.mark.parametrize("model", PUBLISHED)
def test_layers_of_the_papers_networks(model, published):
    """The names by which the workflow plans, without building the network, are those of the traced graph."""
    names = tuple(layer.name for layer in _layers(published(model), 64))
    assert names == layer_names.KNOWN[model]
    assert len(set(names)) == PUBLISHED[model]


@pytest.mark.parametrize(
    ("model", "count", "first", "last"),
    [
        ("googlenet", 57, "conv1.bn", "inception5b.branch4.1.bn"),
        ("squeezenet1_1", 26, "features.1", "classifier.2"),
        ("densenet121", 121, "features.relu0", "features.norm5"),
        ("resnet18", 17, "stem", "block8.out"),
        ("mnasnet0_5", 35, "layers.2", "layers.16"),
    ],
)
def test_layers_of_other_networks_of_torchvision(model, count, first, last, published):
    """Counted in torchvision's definitions; names are blocks or the modules that compute or feed the layers."""
    names = [layer.name for layer in _layers(published(model), 64)]
    assert len(set(names)) == len(names) == count
    assert (names[0], names[-1]) == (first, last)


def test_blocks_select_the_last_layer_of_each():
    """Stem, residual blocks, head: 33 blocks of ResNet101 and its stem; 17 of MobileNetV2, stem and head."""
    chosen = layer_names.select("resnet101", "blocks")
    assert chosen == ("stem", *(f"block{i}.out" for i in range(1, 34)))
    chosen = layer_names.select("mobilenet_v2", "blocks")
    assert chosen == ("stem", *(f"block{i}.depthwise" for i in range(1, 18)), "head")
    with pytest.raises(StudyError, match=r"blocks: vgg16 has none; take all"):
        layer_names.select("vgg16", "blocks")


def test_all_selects_every_layer():
    """In the order of execution."""
    assert layer_names.select("small_resnet", "all") == layer_names.KNOWN["small_resnet"]


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, [6]), (2, [0, 6]), (3, [0, 3, 6]), (4, [0, 2, 4, 6]), (7, [0, 1, 2, 3, 4, 5, 6])]
)
def test_a_number_of_layers_is_spread_evenly(count, chosen):
    """From the first to the last; one alone is the last."""
    known = layer_names.KNOWN["small_alexnet"]
    assert layer_names.select("small_alexnet", count) == tuple(known[i] for i in chosen)


@pytest.mark.parametrize("model", layer_names.KNOWN)
def test_any_number_of_layers_has_no_repeats(model):
    """Rounding must not choose one twice."""
    for count in range(1, len(layer_names.KNOWN[model]) + 1):
        assert len(set(layer_names.select(model, count))) == count


def test_a_list_of_layers_is_put_in_order():
    """The order in a configuration changes nothing."""
    assert layer_names.select("small_alexnet", ["dense1", "conv2"]) == ("conv2", "dense1")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (0, "has 7 layers; choose from 1 to 7"),
        (8, "has 7 layers"),
        (["conv1", "conv9"], "no layer conv9.*conv1, conv2"),
    ],
)
def test_a_layer_that_is_not_there_is_an_error(choice, words):
    """The message has the valid choices."""
    with pytest.raises(StudyError, match=words):
        layer_names.select("small_alexnet", choice)


TRANSFORM = {"resize": None, "crop": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


def source(model, outputs, weights=None, transform=TRANSFORM):
    """A network on digits."""
    return NetworkSource(model, outputs, weights, ImageSource("digits", None, transform))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chosen": ["conv1", "conv7"]}, r"small_alexnet has no layer conv7; its layers are conv1, .*dense2"),
        ({"cells": 300}, r"grid: 300 cells need as many units, small_alexnet has 256 in dense2; choose fewer bins"),
        ({"device": "cuda"}, r"device: cuda.*no GPU"),
        ({"weights": "nowhere.pt"}, r"nowhere\.pt: cannot be read"),
        ({"weights": "IMAGENET1K_V1"}, r"IMAGENET1K_V1: torchvision has none for small_alexnet"),
        ({"model": "alexnot"}, r"model alexnot.*did you mean alexnet"),
        ({"model": "alexnet", "weights": "IMAGENET1K_V9"}, r"no such weights for alexnet; it has IMAGENET1K_V1"),
        ({"model": "alexnet", "weights": "VGG16_Weights.IMAGENET1K_V1"}, r"no such weights for alexnet"),
        ({"model": "vit_b_16"}, r"vit_b_16: fails on images of 32 pixels .*Wrong image height.*transform.crop is"),
    ],
)
def test_what_would_fail_late_is_refused_early(tmp_path, monkeypatch, changes, words):
    """Before any long job, since all of them wait for the table of layers."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    of_network = {"model": "small_alexnet"} | {
        k: v for k, v in changes.items() if k in ("model", "weights", "transform")
    }
    settings = {"chosen": ["conv1", "dense2"], "cells": 16, "device": "cpu"}
    settings |= {k: v for k, v in changes.items() if k in settings}
    with pytest.raises(StudyError, match=words):
        job.list_layers(tmp_path / "l.parquet", source=source(outputs=10, **of_network), **settings)
    assert not (tmp_path / "l.parquet").exists()


def test_the_table_of_layers(tmp_path):
    """Rows by layer, with the node to cut at."""
    known = layer_names.KNOWN["small_resnet"]
    settings = {"chosen": known[3:5], "cells": 16, "device": "cpu"}
    job.list_layers(tmp_path / "l.parquet", source=source("small_resnet", 10), **settings)
    rows = job.layer_nodes(tmp_path / "l.parquet")
    assert tuple(rows) == known
    assert all(row["units"] == math.prod(row["shape"]) for row in rows.values())
    assert {row["axes"] for row in rows.values()} == {"channels x height x width"}
    assert [row["depth"] for row in rows.values()] == list(range(25))
    # Expanded fourfold from 64 planes.
    assert rows["block8.out"]["shape"] == [256, 1, 1]
    assert rows["block8.out"]["node"] in {node.name for node in _graph("small_resnet").nodes}


class Variant(nn.Module):
    """Convolution, a non-linearity, something done to its output, a dense layer."""

    def __init__(self, nonlinearity, then=lambda x, identity: x):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.nonlinearity, self.then = nonlinearity, then
        self.dense = nn.Linear(4 * 8 * 8, 5)

    def forward(self, x):
        identity = self.conv(x)
        out = self.nonlinearity(identity * 1.0)
        return self.dense(self.then(out, identity).flatten(1))


def _iadd(out, identity):
    out += identity
    return out


def _isub(out, identity):
    out -= identity
    return out


def _imul(out, identity):
    out *= 2
    return out


def _idiv(out, identity):
    out /= 2
    return out


NONLINEARITIES = {
    "nn.ReLU(inplace)": nn.ReLU(inplace=True),
    "nn.ReLU6(inplace)": nn.ReLU6(inplace=True),
    "F.relu(inplace=True)": lambda x: F.relu(x, inplace=True),
    "F.relu(x, True)": lambda x: F.relu(x, True),
    "F.relu6(inplace=True)": lambda x: F.relu6(x, inplace=True),
    "torch.relu_": lambda x: torch.relu_(x),
    "x.relu_()": lambda x: x.relu_(),
    "x.relu()": lambda x: x.relu(),
}
OPERATIONS = {
    "+=": _iadd,
    "-=": _isub,
    "*=": _imul,
    "/=": _idiv,
    "add_": lambda out, identity: out.add_(identity),
    "mul_": lambda out, identity: out.mul_(2),
    "sub_": lambda out, identity: out.sub_(identity),
    "div_": lambda out, identity: out.div_(2),
    "clamp_": lambda out, identity: out.clamp_(max=0.5),
    "F.hardtanh(inplace=True)": lambda out, identity: F.hardtanh(out, inplace=True),
}
VARIANTS = {name: (f,) for name, f in NONLINEARITIES.items()} | {
    name: (torch.relu, f) for name, f in OPERATIONS.items()
}


@pytest.mark.parametrize("name", VARIANTS)
def test_in_place_operations_overwrite_nothing(name):
    """The kept layer is the ReLU's output, the cached prefix survives the tail, the scores are the network's own."""
    torch.manual_seed(0)
    network = Variant(*copy.deepcopy(VARIANTS[name])).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected, layer = network(x), network.conv(x).clamp(min=0, max=6)
    assert layer.max() < 6
    traced = tracing.trace(network)
    (found,) = layers.find(network, traced, x[:1])
    kept = []
    assert torch.equal(activations.record(traced, x, [found.node], lambda n, v: kept.append(v)), expected)
    assert torch.equal(kept[0], layer)
    cut = cuts.cut(traced, found.node)
    with torch.inference_mode():
        alive = cut.prefix(x)
        assert torch.equal(cut.tail(*alive), expected)
        assert torch.equal(alive[0], layer)
        assert torch.equal(cut.tail(*alive), expected)


class Late(nn.Module):
    """A tensor that is alive at the first layer, used as it is, and then put through a non-linearity."""

    def __init__(self, nonlinearity):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.nonlinearity, self.dense = nonlinearity, nn.Linear(2 * 4 * 8 * 8, 5)

    def forward(self, x):
        alive = self.conv1(x) * 1.0
        total = torch.relu(self.conv2(x)) + alive
        return self.dense(torch.cat([total, self.nonlinearity(alive)], 1).flatten(1))


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_a_tensor_alive_at_the_cut_is_not_overwritten(name):
    """In place, the second cell's tail would find it changed by the first."""
    torch.manual_seed(0)
    network = Late(copy.deepcopy(NONLINEARITIES[name])).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = network(x)
        traced = tracing.trace(network)
        first, second = layers.find(network, traced, x[:1])
        cut = cuts.cut(traced, first.node)
        alive = cut.prefix(x)
        assert len(alive) == 2
        for _ in range(2):
            assert torch.equal(cut.tail(*alive), expected)
        assert torch.equal(cuts.cut(traced, second.node).prefix(x)[0], alive[1].clamp(min=0, max=6))


def test_a_tail_overwrites_what_nobody_else_reads():
    """Non-linearities behind convolutions and additions: one within AlexNet's and none at its cut."""
    traced = tracing.trace(models.build("alexnet", 10, seed=0))
    nodes = [node.name for node in traced.graph.nodes if tracing.is_layer(traced, node)]
    cut = cuts.cut(traced, nodes[1])
    overwriting = [node for node in cut.tail.graph.nodes if node.kwargs.get("inplace")]
    assert len(overwriting) == len(nodes) - 2
    assert not any(node.kwargs.get("inplace") for node in [*cut.prefix.graph.nodes, *traced.graph.nodes])


class Statement(nn.Module):
    """In-place ReLUs whose results are not used by name."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.dense, self.relu, self.way = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 5), nn.ReLU(True), way

    def forward(self, x):
        x = self.conv(x)
        if self.way == "module":
            self.relu(x)
        elif self.way == "function":
            F.relu(x, inplace=True)
        else:
            x.relu_()
        return self.dense(x.flatten(1))


@pytest.mark.parametrize("way", ["module", "function", "method"])
def test_an_in_place_relu_as_a_statement_is_not_lost(way):
    """Made out of place it does nothing: the graph must give the network's own scores, or be refused."""
    torch.manual_seed(0)
    network = Statement(way).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = network(x)
    try:
        traced = tracing.trace(network)
    except StudyError:
        return
    with torch.inference_mode():
        assert torch.equal(traced(x), expected)


@pytest.mark.parametrize("model", BUILDERS)
def test_the_tail_leaves_the_prefix_as_it_is(model, random_network, images):
    """At every layer: twice the scores of the whole network, and the same tensors alive before and after."""
    network = random_network(model)
    traced = tracing.trace(network)
    with torch.inference_mode():
        expected = random_network(model)(images[:2])
        for layer in layers.find(network, traced, images[:1]):
            cut = cuts.cut(traced, layer.node)
            alive = cut.prefix(images[:2])
            before = [tensor.clone() for tensor in alive]
            assert torch.equal(cut.tail(*alive), expected), layer.name
            assert torch.equal(cut.tail(*alive), expected), layer.name
            assert all(torch.equal(a, b) for a, b in zip(alive, before, strict=True)), layer.name


@pytest.mark.parametrize(
    ("model", "layer", "count"),
    [
        ("small_vgg16", "conv7", 1),
        ("small_resnet", "stem", 1),
        ("small_resnet", "block2.conv2", 2),
        ("small_resnet", "block2.out", 1),
        ("small_mobilenet_v2", "block3.expand", 2),
    ],
)
def test_tensors_alive_at_a_cut(model, layer, count, images):
    """One in a chain and between blocks; inside a block the shortcut lives on."""
    network = models.build(model, 10, seed=0)
    traced = tracing.trace(network)
    node = next(f.node for f in layers.find(network, traced, images[:1]) if f.name == layer)
    with torch.inference_mode():
        assert len(cuts.cut(traced, node).prefix(images[:1])) == count


class Offset(nn.Module):
    """A parameter used before and after the layer, without a module of its own."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor([0.5]))
        self.dense = nn.Linear(4, 4)

    def forward(self, x):
        return self.dense(F.relu(x + self.offset)) - self.offset


def test_parameters_belong_to_both_parts():
    """They are no tensors to keep: one alive at the cut, and the same scores."""
    network = Offset().eval()
    x = torch.randn(3, 4)
    cut = cuts.cut(tracing.trace(network), "relu")
    with torch.inference_mode():
        alive = cut.prefix(x)
        assert len(alive) == 1
        assert torch.equal(cut.tail(*alive), network(x))


def test_tracing_leaves_other_threads_alone(random_network, images):
    """torch.fx traces by patching every module of the process: other threads' networks must pass untouched."""
    running = {model: random_network(model) for model in ("small_alexnet", "small_resnet")}
    x = images[:2]
    with torch.inference_mode():
        expected = {model: network(x) for model, network in running.items()}
    stop, failures, rounds = threading.Event(), [], dict.fromkeys(running, 0)

    def run(model: str) -> None:
        try:
            with torch.inference_mode():
                while not stop.is_set():
                    assert torch.equal(running[model](x), expected[model])
                    rounds[model] += 1
        except BaseException as error:
            failures.append(error)

    def trace(model: str) -> None:
        try:
            # Also a network that runs at the moment.
            network = running.get(model) or random_network(model)
            found = layers.find(network, tracing.trace(network), x[:1])
            assert tuple(layer.name for layer in found) == layer_names.KNOWN[model]
        except BaseException as error:
            failures.append(error)

    runners = [threading.Thread(target=run, args=(model,), daemon=True) for model in running]
    for thread in runners:
        thread.start()
    try:
        # Two at a time, so that tracings meet too.
        for model in ["small_mobilenet_v2", "small_resnet"] * 3:
            tracers = [threading.Thread(target=trace, args=(m,), daemon=True) for m in (model, "small_vgg16")]
            for thread in tracers:
                thread.start()
            for thread in tracers:
                thread.join(LIMIT)
                assert not thread.is_alive()
    finally:
        stop.set()
        for thread in runners:
            thread.join(LIMIT)
    assert not failures, failures
    assert min(rounds.values()) > 0


def test_weights_depend_on_the_seed_alone():
    """Whatever random numbers were drawn before; and the caller's own are left alone."""
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = models.build("small_alexnet", 10, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again, other = models.build("small_alexnet", 10, seed=3), models.build("small_alexnet", 10, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    assert not first.training


@pytest.fixture
def weights(tmp_path) -> Path:
    """Weights of a small AlexNet with 10 outputs."""
    torch.save(models.build("small_alexnet", 10, seed=5).state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_weights_are_loaded(weights, images):
    """The network that was saved, in evaluation mode."""
    network = checkpoints.load("small_alexnet", 10, weights)
    assert not network.training
    with torch.inference_mode():
        assert torch.equal(network(images), models.build("small_alexnet", 10, seed=5)(images))


def _not_weights(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with warnings.catch_warnings():
        # torch warns of the odd pickles that random bytes look like.
        warnings.simplefilter("ignore")
        with pytest.raises(StudyError, match=rf"{file.name}.*state dict"):
            checkpoints.load("small_alexnet", 10, file)


def test_a_missing_file_of_weights_is_named(tmp_path):
    """Not a traceback out of torch."""
    with pytest.raises(StudyError, match=r"nowhere\.pt.*No such file"):
        checkpoints.load("small_alexnet", 10, tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello",
        b"not a pickle\n",
        b"jpeg jpeg jpeg",
        b"(text)",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"PK\3\4",
        b"<html>",
    ],
)
def test_a_file_that_is_no_pickle_is_named(tmp_path, content):
    """A download that went wrong is often an error page or an image."""
    _not_weights(tmp_path / "weights.pt", content)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("part", ["1", "5", "20", "50", "100", "1000", "half", "all but one"])
def test_a_truncated_file_is_named(weights, zipped, part):
    """Cut short anywhere, in either of torch's formats."""
    torch.save(models.build("small_alexnet", 10, 0).state_dict(), weights, _use_new_zipfile_serialization=zipped)
    content = weights.read_bytes()
    size = {"half": len(content) // 2, "all but one": len(content) - 1}.get(part) or int(part)
    _not_weights(weights, content[:size])


def test_messages_do_not_ask_for_unsafe_loading(tmp_path):
    """torch's own message advises `weights_only=False`, which would execute what is in the file."""
    (tmp_path / "weights.pt").write_bytes(pickle.dumps([1, 2, 3]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(StudyError) as caught:
            checkpoints.load("small_alexnet", 10, tmp_path / "weights.pt")
    assert "weights_only` set to `False`" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


class Creates:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle", "in a state dict"])
def test_code_in_a_file_of_weights_is_not_executed(tmp_path, how):
    """A pickle can hold any call; weights come from strangers."""
    file, trace = tmp_path / "weights.pt", tmp_path / "executed"
    if how == "pickle":
        file.write_bytes(pickle.dumps(Creates(trace)))
    else:
        content = {"features.0.weight": torch.zeros(1), "x": Creates(trace)} if "dict" in how else Creates(trace)
        torch.save(content, file, _use_new_zipfile_serialization=how != "legacy")
    assert not trace.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(StudyError, match=r"weights\.pt"):
            checkpoints.load("small_alexnet", 10, file)
    assert not trace.exists()


def test_the_trap_works(tmp_path):
    """Negative control: unpickled without care, the file of the test above is created."""
    pickle.loads(pickle.dumps(Creates(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def _drop(state):
    del state["features.3.bias"]


def _rename(state):
    state["module.features.3.bias"] = state.pop("features.3.bias")


def _reshape(state):
    state["features.3.bias"] = torch.zeros(47)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop, r"features\.3\.bias is missing"),
        (_rename, r"features\.3\.bias is missing; module\.features\.3\.bias is unknown"),
        (_reshape, r"features\.3\.bias is \[47\] instead of \[48\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights, change, words):
    """File, model, key and shape."""
    state = torch.load(weights)
    change(state)
    torch.save(state, weights)
    with pytest.raises(StudyError, match=rf"weights\.pt.*small_alexnet with 10 outputs: {words}"):
        checkpoints.load("small_alexnet", 10, weights)


def test_another_number_of_outputs_is_named(weights):
    """The commonest mistake: weights for other classes."""
    with pytest.raises(StudyError, match=r"classifier\.4\.weight is \[10, 256\] instead of \[7, 256\]"):
        checkpoints.load("small_alexnet", 7, weights)


def test_long_lists_of_faults_are_cut(weights):
    """Weights of another model: three faults and a number."""
    # 35 parameters and no buffers against 14: three are listed.
    with pytest.raises(StudyError, match=r"small_vgg16.*; .*; .*; and \d+ more$"):
        checkpoints.load("small_vgg16", 10, weights)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_formats_of_weights(tmp_path, suffix, images):
    """The same weights from each format."""
    network, file = models.build("small_alexnet", 10, seed=5), tmp_path / f"w{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(network.state_dict(), file)
    with torch.inference_mode():
        assert torch.equal(checkpoints.load("small_alexnet", 10, file)(images), network(images))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 40, b"\x08\0\0\0\0\0\0\0{}      "])
def test_broken_safetensors_are_named(tmp_path, content):
    """Cut short, of another kind, with an absurd header; an empty one lacks every key."""
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(StudyError, match=r"w\.safetensors: (not a readable file of weights|weights do not fit)"):
        checkpoints.load("small_alexnet", 10, tmp_path / "w.safetensors")


def test_old_files_lack_the_counters_of_batch_norm(tmp_path):
    """Torchvision's own first files of ResNet101 do; other keys that are missing are still an error."""
    network = models.build("small_resnet", 10, seed=3)
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pt")
    assert torch.equal(checkpoints.load("small_resnet", 10, tmp_path / "w.pt").conv1.weight, network.conv1.weight)
    del state["bn1.running_var"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(StudyError, match=r"bn1\.running_var is missing$"):
        checkpoints.load("small_resnet", 10, tmp_path / "w.pt")


def test_auxiliary_heads_of_a_file_are_left_out(tmp_path, published):
    """Torchvision's files of GoogLeNet hold them; they act in training only."""
    network = published("googlenet")
    state = network.state_dict() | {"aux1.fc1.weight": torch.zeros(1), "aux2.conv.bn.bias": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pt")
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(checkpoints.load("googlenet", 1000, tmp_path / "w.pt")(x), network(x))


@pytest.mark.parametrize("name", ["IMAGENET1K_V2", "MobileNet_V2_Weights.IMAGENET1K_V2"])
def test_images_are_prepared_as_torchvision_says(name):
    """The same tensor as torchvision's own preset gives, to the bit; V2 resizes to 232."""
    transform = checkpoints.published_transform("mobilenet_v2", name)
    assert (transform["resize"], transform["crop"]) == (232, 224)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    image = Image.fromarray(pixels)
    expected = torchvision_models.MobileNet_V2_Weights.IMAGENET1K_V2.transforms()(image)
    assert torch.equal(readout_images.transform(**transform)(image), expected)


def test_published_weights_come_through_torchvision(monkeypatch, tmp_path):
    """Downloaded into TORCH_HOME and verified by torchvision; without a network the message says what to do."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def refuse(url, *arguments, check_hash=False, **settings):
        asked.append((url, check_hash))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision_api, "load_state_dict_from_url", refuse)
    with pytest.raises(
        StudyError, match=r"IMAGENET1K_V1: https://.*alexnet.*no route to host.*checkpoints.*file of weights"
    ):
        job.network(source("alexnet", 1000, "IMAGENET1K_V1"))
    assert asked == [(torchvision_models.AlexNet_Weights.IMAGENET1K_V1.url, True)]


def test_published_weights_that_are_there_are_loaded(monkeypatch, published):
    """The network is torchvision's own, with the weights that its download gave."""
    state = published("alexnet").state_dict()
    monkeypatch.setattr(torchvision_api, "load_state_dict_from_url", lambda *_, **__: state)
    network = job.network(source("alexnet", 1000, "AlexNet_Weights.IMAGENET1K_V1"))
    assert not network.training
    assert torch.equal(network.features[0].weight, state["features.0.weight"])


def test_drawn_weights_depend_on_their_seed():
    """An untrained network as a control."""
    sources = [source("small_vgg16", 10, f"random-{seed}") for seed in (3, 3, 4)]
    first, again, other = (job.network(each).features[0].weight for each in sources)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("content", [None, 3, [torch.zeros(2)], {"epoch": 3}, {"state_dict": {"w": torch.zeros(2)}}])
def test_a_file_without_a_state_dict_is_named(tmp_path, content):
    """Checkpoints often hold more than the weights."""
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(StudyError, match=r"weights\.pt.*not a state dict.*network\.state_dict\(\)"):
        checkpoints.load("small_alexnet", 10, tmp_path / "weights.pt")


def _trained(seed, count=40, batch=16):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, 3, 32, 32, generator=generator), torch.arange(count) % 10
    network = models.build("small_alexnet", 10, seed)
    return training.train(network, x, y, epochs=1, batch=batch, learning_rate=0.002, seed=seed)


def test_training_twice_gives_equal_weights():
    """The seed decides; nothing is taken from torch's global random numbers."""
    first = _trained(0).state_dict()
    torch.rand(3)
    again, other = _trained(0).state_dict(), _trained(1).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_training_moves_the_weights_and_ends_in_evaluation_mode():
    """Negative control of the test above: something was trained; the caller's random numbers are left alone."""
    before = torch.random.get_rng_state()
    network = _trained(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not network.training
    untrained = models.build("small_alexnet", 10, 0)
    assert not torch.equal(network.features[0].weight, untrained.features[0].weight)


def test_training_learns():
    """Two classes, black and white images, are told apart after a few steps."""
    y = torch.arange(64) % 2
    x = (y * 2.0 - 1).view(-1, 1, 1, 1).expand(64, 3, 32, 32).contiguous()
    network = models.build("small_alexnet", 2, 0)
    training.train(network, x, y, epochs=8, batch=16, learning_rate=0.002, seed=0)
    with torch.inference_mode():
        assert torch.equal(network(x).argmax(1), y)


def test_a_last_batch_of_one_trains():
    """Batch norm cannot normalise one image; 33 images in batches of 16 leave one over."""
    generator = torch.Generator().manual_seed(0)
    network = models.build("small_mobilenet_v2", 10, 0)
    x = torch.randn(33, 3, 32, 32, generator=generator)
    training.train(network, x, torch.arange(33) % 10, epochs=1, batch=16, learning_rate=0.001, seed=0)
    with torch.inference_mode():
        assert torch.isfinite(network(x)).all()


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    """Running on the CPU in silence would take days."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"device: cuda.*no GPU.*cpu or auto"):
        job.torch_device("cuda")
    assert job.torch_device("auto") == torch.device("cpu")


@pytest.mark.parametrize("choice", ["auto", "cuda"])
def test_on_a_gpu_numbers_are_float32_and_come_the_same_way_each_time(monkeypatch, choice):
    """Ranks are compared exactly; torch allows TF32 in convolutions unless it is told not to."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    wanted = {(cudnn, "allow_tf32"): False, (matmul, "allow_tf32"): False, (cudnn, "benchmark"): False}
    wanted[cudnn, "deterministic"] = True
    before = [getattr(*flag) for flag in wanted]
    try:
        for flag, value in wanted.items():
            setattr(*flag, not value)
        assert job.torch_device(choice) == torch.device("cuda")
        assert [getattr(*flag) for flag in wanted] == [*wanted.values()]
    finally:
        for flag, value in zip(wanted, before, strict=True):
            setattr(*flag, value)


@pytest.fixture
def digits(tmp_path):
    """The images of the default study, listed."""
    config = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
    split, labels = weights_of.shipped()["split"], {str(digit): digit for digit in range(10)}
    listing = {"dataset": split["dataset"], "path": None, "labels": labels, "study": split["study"], "train": True}
    images_job.list_images(tmp_path / "images.parquet", **listing, split_seed=split["seed"], fold_seed=config["seed"])
    return SimpleNamespace(
        path=str(tmp_path / "images.parquet"), networks={entry["model"]: entry for entry in config["networks"]}
    )


@pytest.mark.parametrize("model", ["small_alexnet", "small_vgg16", "small_mobilenet_v2", "small_resnet"])
def test_networks_of_the_default_study_are_right_on_its_images(digits, model):
    """The study is of networks that recognise the digits: at least 93 % of the study images."""
    entry = digits.networks[model]
    shipped = source(model, 10, weights_of.stamped(model), entry["transform"])
    rows = images_job.rows(digits.path)
    x, labels = images_job.load(rows["source"], shipped.images), torch.tensor(rows["label"]).long()
    with torch.inference_mode():
        rank = scores.ranks(job.network(shipped)(x), labels)
    assert len(rank) == 500
    assert (rank == 0).double().mean() >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("model", ["small_alexnet", "small_vgg16", "small_mobilenet_v2", "small_resnet"])
def test_the_recipes_of_the_shipped_networks_train_such_networks(tmp_path, digits, model):
    """Here anew, on any machine: at least 93 % of the study images."""
    recipe = weights_of.shipped()["models"][model]["training"]
    accuracy = tmp_path / "accuracy.parquet"
    trained = source(model, 10, str(tmp_path / "weights.pt"), digits.networks[model]["transform"])
    # As the process that trains is told: in JSON.
    given = json.loads(json.dumps(asdict(trained)))
    job.train(digits.path, str(accuracy), source=given, recipe=recipe)
    rows = {row["split"]: row for row in parquet.read(accuracy).to_pylist()}
    assert rows["study"]["images"] == 500
    assert rows["study"]["top1"] >= 0.93
