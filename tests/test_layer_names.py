"""Choices of layers by names, patterns, blocks and numbers, of networks that are not known beforehand."""

import random

import pytest

from readout import StudyError, layer_names
from readout.named import Named

LISTED = [
    Named("stem.conv", None, None),
    Named("stem.act", "stem.act", None),
    Named("blocks.0.attn", None, None),
    Named("blocks.0.mlp.act", "blocks.0.mlp.act", "blocks.0"),
    Named("gelu", "blocks.0.mlp.act", None),
    Named("blocks.0", None, None),
    Named("blocks.1.attn", None, None),
    Named("blocks.1.pre.act", "blocks.1.pre.act", "blocks.1"),
    Named("blocks.1.mlp.act", "blocks.1.mlp.act", "blocks.1"),
    Named("blocks.1", None, None),
    Named("head.act", "head.act", None),
    Named("head", None, None),
]
"""As tracing gives them: in the order of execution."""
LAYERS = ("stem.act", "blocks.0.mlp.act", "blocks.1.pre.act", "blocks.1.mlp.act", "head.act")


def select(choice, listed=LISTED, model="net.py:build"):
    return layer_names.select(model, choice, lambda: listed)


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ("all", LAYERS),
        ("blocks", (LAYERS[0], LAYERS[1], LAYERS[3], LAYERS[4])),
        (1, LAYERS[-1:]),
        (2, (LAYERS[0], LAYERS[-1])),
        (3, LAYERS[::2]),
        (5, LAYERS),
        ("*.mlp.*", ("blocks.0.mlp.act", "blocks.1.mlp.act")),
        ("blocks.1.*", ("blocks.1.pre.act", "blocks.1.mlp.act")),
        ("blocks.?.pre.act", ("blocks.1.pre.act",)),
        ("blocks.[!1].*", ("blocks.0.mlp.act",)),
        ("*", LAYERS),
        ("head.act", ("head.act",)),
        ("head", ("head",)),
        (["*.mlp.*"], ("blocks.0.mlp.act", "blocks.1.mlp.act")),
        (["blocks.1", "*.mlp.*", "stem.conv"], ("stem.conv", "blocks.0.mlp.act", "blocks.1.mlp.act", "blocks.1")),
        (["head.act", "*act", "stem.act"], LAYERS),
    ],
    ids=str,
)
def test_a_choice_among_the_names(choice, chosen):
    """In the order of execution, none twice; a pattern chooses among the layers alone."""
    assert select(choice) == chosen
    if isinstance(choice, list):
        assert all(select(random.Random(i).sample(choice, len(choice))) == chosen for i in range(4))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (0, r"layers: 0: net\.py:build has 5 layers; choose from 1 to 5"),
        (6, "has 5 layers; choose from 1 to 5"),
        ("*.conv", r"layers: \*\.conv: matches no layer of net\.py:build; its layers are stem\.act, .*, head\.act$"),
        (["stem.act", "Stem*"], r"layers: Stem\*: matches no layer"),
        ("gelu", r"layers: gelu: is the layer blocks\.0\.mlp\.act of net\.py:build; write that name"),
        (
            ["blocks.0.atn"],
            r"has no layer blocks\.0\.atn; its layers are stem\.act, .*; did you mean blocks\.0\.attn\?$",
        ),
        # A layer that is near is among those that are told.
        (["blocks.0.mlp.acts"], r"has no layer blocks\.0\.mlp\.acts; its layers are stem\.act, .*, head\.act$"),
        ("", r"has no layer ; its layers are"),
    ],
    ids=str,
)
def test_a_choice_that_there_is_not(choice, words):
    with pytest.raises(StudyError, match=words):
        select(choice)


@pytest.mark.parametrize("choice", ["all", "blocks", 1])
def test_of_a_network_without_layers_nodes_are_listed(choice):
    """By their names; no pattern finds them."""
    nodes = [Named("conv", None, None), Named("head", None, None)]
    with pytest.raises(
        StudyError, match=rf"layers: {choice}: net\.py:build has no layers by itself; list nodes or mod"
    ):
        select(choice, nodes)
    assert select(["head", "conv"], nodes) == ("conv", "head")
    with pytest.raises(StudyError, match="matches no layer"):
        select("h*", nodes)


def test_without_blocks_there_are_none():
    chain = [Named(f"conv{i}", f"conv{i}", None) for i in range(50)]
    with pytest.raises(
        StudyError, match=r"layers: blocks: net\.py:build has none; .* of conv0, .*, conv39 and 10 more$"
    ):
        select("blocks", chain)


def test_a_known_network_is_listed_only_for_other_names():
    """Its layers are known without torch; what else it has is found by tracing."""
    model, calls = "small_alexnet", []
    known = [Named(name, name, None) for name in layer_names.KNOWN[model]]
    traced = [*known[:1], Named("pool1", None, None), Named("relu", "conv2", None), *known[1:]]

    def listed():
        calls.append(1)
        return traced

    for choice in ("all", 2, "conv?", ["conv2", "dense*"], "conv2"):
        assert layer_names.select(model, choice, listed) == layer_names.select(model, choice)
    assert not calls
    assert layer_names.select(model, ["dense?", "pool1", "conv1"], listed) == ("conv1", "pool1", "dense1", "dense2")
    assert calls == [1]
    with pytest.raises(StudyError, match="layers: relu: is the layer conv2 of small_alexnet"):
        layer_names.select(model, ["relu"], listed)
    with pytest.raises(StudyError, match=r"no layer pool2; .*; did you mean pool1"):
        layer_names.select(model, ["pool2"], listed)


def test_two_names_of_one_node_are_refused():
    """A module and the node that ends it would be one layer under two names."""
    listed = [Named("add", None, None, "add"), Named("blocks.0", None, None, "add"), Named("head", None, None, "head")]
    assert layer_names.select("mine", ["head", "add"], lambda: listed) == ("add", "head")
    with pytest.raises(StudyError, match=r"layers: add and blocks\.0 are one in mine; leave one out"):
        layer_names.select("mine", ["blocks.0", "add"], lambda: listed)
