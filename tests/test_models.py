"""Torchvision's and timm's networks: what the command that tries them finds, its negative controls, and its page."""

import copy
import json
import math
import os
import re
import time
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from commands import models as command
from readout import StudyError, cuts, engine, gradients, layers, models, tracing
from workflow import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text()


class Tokens(nn.Module):
    """Reads a map as tokens by a view, which of channels-last memory there is not."""

    def __init__(self, by_size):
        super().__init__()
        self.by_size = by_size
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x):
        # torch.fx cannot follow a condition on a size.
        if self.by_size and x.shape[2] < 2:
            return x
        x = F.relu(self.first(x))
        return F.relu(self.second(x.view(-1, 8, 6))).view(torch.float32).mean(1)


@pytest.mark.parametrize("by_size", [False, True], ids=["torch.fx", "torch.export"])
def test_views_serve_the_memory_of_the_engine(by_size):
    torch.manual_seed(0)
    network, images = Tokens(by_size).eval().requires_grad_(False), torch.randn(3, 3, 4, 3)
    expected = network(images)
    with pytest.raises(RuntimeError, match="view"):
        copy.deepcopy(network).to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    traced = engine.fold(tracing.trace(network, images[:1])).to(memory_format=torch.channels_last)
    layer = next(node.name for node in traced.graph.nodes if tracing.is_layer(traced, node))
    cut = cuts.cut(traced, layer)
    alive = cut.prefix(images.to(memory_format=torch.channels_last))
    assert torch.allclose(cut.tail(*(each[:2] for each in alive)), expected[:2], atol=1e-6)


class Assigning(nn.Module):
    """Writes into a part of a tensor, which torch.fx cannot follow."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x):
        x = F.relu(self.first(x))
        tokens = x.flatten(2).transpose(1, 2) * 2
        tokens[:, 1:] = tokens[:, 1:] + tokens[:, :1]
        return self.second(F.gelu(tokens).mean(1))


def test_gradients_pass_an_assignment():
    torch.manual_seed(0)
    network, images = Assigning().eval().requires_grad_(False), torch.randn(3, 3, 5, 5)
    traced = tracing.trace(network, images[:1])
    layer = next(node.name for node in traced.graph.nodes if tracing.is_layer(traced, node))
    cut = cuts.cut(traced, layer)
    alive = cut.prefix(images)
    assert torch.allclose(cut.tail(*alive), network(images), atol=1e-6)
    found = gradients.of_scores(cut.tail, alive, lambda scores: scores[:, 1])
    node = next(each for each in traced.graph.nodes if each.name == layer)
    _, whole, _ = command.reference(network, traced, node, images, alive[0])
    expected = command.gradient(whole, images, lambda scores: scores[:, 1])
    assert expected.abs().max() > 0.01 and torch.allclose(found, expected, atol=1e-6)


def test_the_memory_of_the_engine_is_for_tensors_of_four_axes():
    """Laid out as torch does it, and not where it would refuse."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4))
    expected = copy.deepcopy(network).to(memory_format=torch.channels_last)
    network.register_buffer("masks", torch.arange(32.0).view(2, 2, 2, 2, 2))
    with pytest.raises(RuntimeError, match="rank 4"):
        copy.deepcopy(network).to(memory_format=torch.channels_last)
    before = network.masks.clone()
    assert engine.channels_last(network) is network
    assert torch.equal(network.masks, before) and network.masks.is_contiguous()
    for name, value in expected.state_dict().items():
        laid = network.state_dict()[name]
        assert torch.equal(laid, value) and laid.stride() == value.stride(), name


# ---- a network


TRIED = {
    "squeezenet1_1": ("torch.fx", {"module"}),
    "timm:test_resnet": ("torch.fx", {"module"}),
    "timm:test_convnext": ("torch.fx", {"function"}),
    "timm:test_vit": ("torch.export", {"module"}),
}
"""How a network is traced, and which references its layers have."""


@pytest.mark.parametrize("model", TRIED)
def test_networks_are_exact(model):
    found = command.check(model)
    assert command.wrong(found) == []
    assert (found["traced"], {at["reference"] for at in found["cuts"]}) == TRIED[model]
    # Of torchvision's and timm's images of 64 pixels these take all.
    assert found["size"] == command.SMALL and found["uncut"] == 0
    named = [at["layer"] for at in found["cuts"]]
    assert len(set(named)) == 3 and found["layers"] >= 3
    json.dumps(found)


def _deaf(traced, node):
    """A cut whose part behind it does not see what is put in the layer's place."""
    made = cuts.cut(traced, node)
    kept = []

    def prefix(images):
        kept[:] = made.prefix(images)
        return tuple(kept)

    def tail(layer, *rest):
        start = 0 if len(layer) > 1 else len(kept[0]) - 1
        return made.tail(kept[0][start : start + len(layer)] + 0 * layer, *rest)

    return cuts.Cut(prefix, tail)


def _mixed(traced, node):
    """A cut whose other tensors are those of other images."""
    made = cuts.cut(traced, node)

    def prefix(images):
        layer, *rest = made.prefix(images)
        return (layer, *(each.flip(0) for each in rest))

    return cuts.Cut(prefix, made.tail)


def _rounded(traced, node):
    """A cut whose scores are rounded to three digits."""
    made = cuts.cut(traced, node)
    return replace(made, tail=lambda *alive: made.tail(*alive).mul(100).round().div(100))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(_deaf, "scores are off"), (_mixed, "scores are off"), (_rounded, "gradients are off")],
)
def test_a_wrong_cut_is_found(wrong, said):
    found = command.check("timm:test_resnet", wrong)
    problems = command.wrong(found)
    assert any(said in each for each in problems)
    # The engine's cuts are made by the right function.
    assert not any("engine" in each for each in problems)
    if wrong is _deaf:
        assert found["cuts"][0]["error"] == pytest.approx(found["cuts"][0]["effect"], rel=1e-3)


def test_numbers_that_are_not_there_are_wrong():
    at = {"layer": "a", "error": 1e-5, "engine": 1e-5, "gradient": 0.0, "ranks": 0, "effect": 1.0}
    assert command.wrong({"cuts": [at], "rounding": None}) == []
    broken = {"error": math.nan, "engine": 0.002, "gradient": None, "ranks": 1, "effect": math.nan}
    for name, value in broken.items():
        said = command.wrong({"cuts": [at | {name: value}], "rounding": None})
        assert said and all(each.startswith("at a: ") for each in said), name
    # An error is seen only if it is small beside what the ablation does.
    assert command.wrong({"cuts": [at | {"effect": 0.001}], "rounding": None}) == []
    assert command.wrong({"cuts": [at | {"effect": 0.00005}], "rounding": None}) != []
    assert command.wrong({"cuts": [at | {"effect": 0.0, "error": 0.0, "engine": 0.0}], "rounding": None}) != []
    # A network that rounds as much itself may be as far off, if the ablation moves the scores by more.
    off = {"cuts": [at | {"engine": 0.002}], "rounding": 0.001}
    assert command.wrong(off) == []
    assert command.wrong({"cuts": [off["cuts"][0] | {"effect": 0.01}], "rounding": 0.001}) != []


def test_weights_that_do_nothing_are_drawn():
    """ConvNeXt's branches are scaled by 1e-6: as it is built, their layers move no score."""
    network = models.build("timm:test_convnext", 10, 0)
    before = {name: value.clone() for name, value in network.named_parameters()}
    command.enliven(network, command.pictures(2, 64, 0))
    after = dict(network.named_parameters())
    gammas = [name for name in before if name.endswith("gamma")]
    assert gammas and all(before[name].abs().max() < 1e-3 < after[name].abs().min() for name in gammas)
    # What was drawn stays.
    assert torch.equal(before["head.fc.weight"], after["head.fc.weight"])


class Twice(nn.Module):
    """Calls one module twice, and a function beside it."""

    def __init__(self):
        super().__init__()
        self.act, self.dense = nn.ReLU(), nn.Linear(3, 3)

    def forward(self, x):
        x = self.act(self.dense(x.mean((2, 3))))
        return torch.relu(self.dense(self.act(self.dense(x))))


def test_the_reference_is_at_the_right_call():
    torch.manual_seed(0)
    network, images = Twice().eval(), torch.rand(3, 3, 4, 4)
    for weight in network.parameters():
        weight.data.abs_()
    traced = tracing.trace(network, images[:1])
    found = layers.find(network, traced, images[:1])
    nodes = {node.name: node for node in traced.graph.nodes}
    named = []
    for layer in found:
        cut = cuts.cut(traced, layer.node)
        alive = cut.prefix(images)
        name, whole, full = command.reference(network, traced, nodes[layer.node], images, alive[0])
        named.append(name)
        assert torch.equal(full, network(images))
        doubled = whole(images, lambda given: 2 * given)
        assert torch.allclose(doubled, cut.tail(2 * alive[0], *alive[1:])) and not torch.allclose(doubled, full)
    assert named == ["module", "module", "function"]
    # Negative control: other values are met nowhere.
    with pytest.raises(StudyError, match="is not met"):
        command.reference(network, traced, nodes[found[0].node], images, alive[0] + 1)


# ---- each in a process of its own


def _dying(pipe, library, family):
    os._exit(7)


def _slow(pipe, library, family):
    time.sleep(60)


def test_what_a_process_does_is_a_reason():
    """An error, a crash and a process without an end."""
    assert command.apart("torchvision", "nothing_of_this_name")["failed"].startswith("model nothing_of_this_name: ")
    assert command.apart("torchvision", "a", child=_dying)["failed"] == "its process ended with status 7"
    assert command.apart("torchvision", "a", limit=1, child=_slow)["failed"] == "took longer than 1 seconds"


def test_networks_that_are_too_large_are_left_out(monkeypatch):
    monkeypatch.setattr(command, "LARGEST", 1_000_000)
    entry = command.one("torchvision", "resnet18")
    assert entry == {"model": "resnet18", "parameters": 11_181_642, "left out": "it has 11 million parameters"}


def test_only_what_is_not_known_is_tried(tmp_path, monkeypatch):
    """A failure is tried again, and so is what other versions or other code made; what is known is not."""
    tried = []

    def apart(library, family):
        tried.append(family)
        return {"library": library, "family": family, **made, "left out": "it is large"}

    made = {"versions": command.versions(), "code": command.code()}
    monkeypatch.setattr(command, "apart", apart)
    path = tmp_path / "results" / "models.jsonl"
    asked = [("torchvision", name) for name in "abcde"]
    first = command.collect(path, asked[:1], 1)
    with path.open("a") as file:
        others = {"b": {"failed": "so"}, "c": {"versions": {"torch": "0"}}, "d": {"code": ["other"]}}
        for family, more in others.items():
            entry = {"library": "torchvision", "family": family, "left out": "large"} | made | more
            file.write(json.dumps(entry) + "\n")
    entries = command.collect(path, asked, 1)
    assert tried == ["a", "b", "c", "d", "e"] and entries[0] == first[0]
    assert [entry["family"] for entry in entries] == [*"abcde"] and all("left out" in entry for entry in entries)


def test_one_of_each_family_is_its_smallest():
    names = command.members("convnext")
    assert len(names) == command.OF_FAMILY == len(set(names)) and not any(name.startswith("test_") for name in names)
    model, number = command.smallest("sequencer")
    assert model == "timm:sequencer2d_s" and number == sum(
        each.numel() for each in timm.create_model("sequencer2d_s", num_classes=10).parameters()
    )


# ---- the page


def rows(text, title):
    """The cells of the table under a heading, without its header."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]


def counted(text, library):
    """Exact ones, those that were tried, and all, as the page says."""
    said = re.search(rf"^- {library}: (\d+) of (\d+) .*?(?:; \d+ of (\d+) are left out)?\.$", text, re.MULTILINE)
    return int(said[1]), int(said[2]), int(said[3] or said[2])


TABLES = {"torchvision": "Models of torchvision", "timm": "Families of timm"}


def agrees(text, library):
    """Whether a library's counts are those of its table, its failures and what was left out."""
    table = rows(text, TABLES[library])
    failed = [row for row in rows(text, "Failures") if row[0] == library]
    out = [row for row in rows(text, "Left out") if row[0] == library]
    names = {row[0].replace("\\", "") for row in table}
    also = [row[1].replace("\\", "").partition(":")[0] for row in failed]
    exact = names - set(also)
    return counted(text, library) == (len(exact), len(names | set(also)), len(names | set(also)) + len(out))


def entry(family, library="torchvision", error=1e-6, **more):
    at = {"layer": "a", "reference": "module", "error": error, "engine": 1e-5, "gradient": 0.0, "ranks": 0}
    found = {
        "rounding": None,
        "size": 64,
        "traced": "torch.fx",
        "layers": 3,
        "uncut": 1,
        "why": "c reads d",
        "blocks": 0,
        "units": 1234,
        "seconds": 2.0,
    }
    cut = more or {"parameters": 5, **found, "cuts": [at | {"effect": 0.5}] * 3}
    return {"library": library, "family": family, "model": family, **cut}


ENTRIES = [
    entry("good"),
    entry("bad", error=0.1),
    entry("broken", failed="a | b"),
    entry("large", **{"left out": "it has 500 million parameters"}),
    entry("one", "timm"),
]


def test_the_page_counts_its_rows():
    text = command.page(ENTRIES)
    assert counted(text, "torchvision") == (1, 3, 4) and counted(text, "timm") == (1, 1, 1)
    assert "- torchvision: 1 of 3 models are exact (goal: 3, not met); 1 of 4 are left out." in text
    assert "- timm: 1 of 1 families are exact (goal: 1, met)." in text
    assert [row[0] for row in rows(text, "Models of torchvision")] == ["good", "bad"]
    uncut = rows(text, "Layers at which a network cannot be cut")
    assert [row[1:] for row in uncut] == [[name, "1 of 3", "c reads d"] for name in ("good", "bad", "one")]
    (bad, broken) = rows(text, "Failures")
    assert bad[:2] == ["torchvision", "bad"] and "scores are off by 1.0e-01" in bad[2]
    assert "\\|" in " | ".join(broken)
    assert all(agrees(text, library) for library in TABLES)
    # Negative control: a row more.
    line = next(each for each in text.splitlines() if each.startswith("| good"))
    assert not agrees(text.replace(line, line + "\n" + line.replace("good", "better")), "torchvision")


@pytest.mark.parametrize("library", TABLES)
def test_the_page_of_the_repository_agrees_with_itself(library):
    assert agrees(PAGE, library)
    exact, tried, _ = counted(PAGE, library)
    assert exact >= command.GOALS[library] * tried
    assert any(row[-4] == "equal" for row in rows(PAGE, TABLES[library]))


def test_the_page_has_all_models_and_families():
    """Those of the installed versions, each once."""
    for name, number in command.versions().items():
        assert f"{name} {number}" in PAGE
    for library, names in (
        ("torchvision", torchvision.models.list_models(module=torchvision.models)),
        ("timm", timm.models.list_modules()),
    ):
        there = {row[0].replace("\\", "") for row in rows(PAGE, TABLES[library])}
        others = [row for title in ("Failures", "Left out") for row in rows(PAGE, title) if row[0] == library]
        there |= {row[1].replace("\\", "").partition(":")[0] for row in others}
        assert there == set(names)
