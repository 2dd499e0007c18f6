"""Cuts: a network in two parts at a layer.

At a cut all tensors that are still needed later are kept, so that networks of branches can be cut anywhere.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx

from readout import StudyError
from readout.layers import feeding
from readout.tracing import COUNTS, Tensor, by_image, holds_tensors, is_measured, rectifier


@dataclass(frozen=True)
class Cut:
    """A network in two parts at a layer.

    `prefix(images)` gives the tensors alive at the cut as a tuple, first the one that was cut at, such as the layer's
    output; `tail(*tensors)` gives the scores [N, outputs].
    """

    prefix: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    tail: Callable[..., torch.Tensor]


def _module(traced: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(traced, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _overwrite(traced: fx.GraphModule, tail: fx.Graph) -> None:
    """Let the ReLUs of a tail overwrite what a convolution, a dense layer or an addition made for them alone.

    Trace made them out of place for the layers that a study keeps; behind a cut nothing is kept, and memory is dear.
    """
    for node in tail.nodes:
        function = rectifier(traced, node)
        if function is None:
            continue
        source = node.all_input_nodes[0]
        if source is feeding(traced, node) and len(source.users) == 1:
            node.op, node.target, node.args, node.kwargs = "call_function", function, (source,), {"inplace": True}


def _several(node: fx.Node) -> bool:
    """Whether a node gives several tensors, as a split does."""
    return is_measured(node) and holds_tensors(node) and not isinstance(node.meta["measured"][0], Tensor)


def _times(first: torch.Tensor, factor: int) -> int:
    """So many rows for each image of `first` [N, ...]."""
    return first.shape[0] * factor


def _size(tail: fx.Graph, first: fx.Node, few: object, more: object, name: str) -> object:
    """What a node without tensors gives, measured for `COUNTS` images, for as many as `first` holds."""
    if isinstance(few, tuple | list):
        return tuple(_size(tail, first, *pair, name) for pair in zip(few, more, strict=True))
    if isinstance(few, torch.device):
        return tail.call_function(getattr, (first, "device"))
    if few == more:
        return few
    factor = few // COUNTS[0] if isinstance(few, int) else 0
    if (factor * COUNTS[0], factor * COUNTS[1]) != (few, more):
        raise StudyError(f"{name}: depends on the number of images, so that no part of the network can run alone")
    return tail.call_function(_times, (first, factor))


@dataclass(frozen=True)
class _Parts:
    """The nodes of a graph at a cut: what is computed before it and behind it, what is alive there, and what the tail
    makes for itself.
    """

    before: list[fx.Node]
    behind: list[fx.Node]
    alive: list[fx.Node]
    own: list[fx.Node]
    output: fx.Node


def _parts(traced: fx.GraphModule, node_name: str) -> _Parts:
    nodes = [node for node in traced.graph.nodes if node.op != "output"]
    output = next(node for node in traced.graph.nodes if node.op == "output")
    at = next(i for i, node in enumerate(nodes) if node.name == node_name)
    before, behind = nodes[: at + 1], nodes[at + 1 :]
    # Of a node that gives several tensors, each is kept by itself.
    several = {node for node in before if _several(node)}
    for node in [*behind]:
        if node.target is operator.getitem and node.args[0] in several:
            before.append(node)
            behind.remove(node)
            several.update([node] if _several(node) else [])
    own: set[fx.Node] = set()
    for node in before:
        of_weights = node.op != "placeholder" and own.issuperset(node.all_input_nodes)
        if node.op == "get_attr" or (is_measured(node) and (of_weights or not holds_tensors(node))):
            own.add(node)
    needed = {source for node in [*behind, output] for source in node.all_input_nodes}
    made = []
    for node in reversed(before):
        if node in needed and node in own and node is not nodes[at]:
            made.append(node)
            needed.update(node.all_input_nodes if holds_tensors(node) else ())
    alive = [nodes[at], *(node for node in before if node in needed and node not in own and node is not nodes[at])]
    for node in alive:
        if not by_image(node):
            raise StudyError(
                f"{node_name}: the network reads {node.name} behind it, which has no row for each image; choose "
                "another layer"
            )

    return _Parts(before, behind, alive, made[::-1], output)


def check(traced: fx.GraphModule, node_name: str) -> None:
    """Refuse a node at which the network cannot be cut, with what `cut` would say."""
    parts = _parts(traced, node_name)
    graph = fx.Graph()
    first = graph.placeholder("layer")
    for node in parts.own:
        if not holds_tensors(node):
            _size(graph, first, *node.meta["measured"], node.name)


def cut(traced: fx.GraphModule, node_name: str) -> Cut:
    """The network in two parts behind the node `node_name`; the parts share the network's weights.

    What the tail needs of sizes and of the weights alone it makes for itself, for as many images as it is given. A
    StudyError where it needs a tensor that has no row for each image.
    """
    parts = _parts(traced, node_name)
    prefix, copies = fx.Graph(), {}
    for node in parts.before:
        copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(tuple(copies[node] for node in parts.alive))

    tail = fx.Graph()
    copies = {node: tail.placeholder(node.name) for node in parts.alive}
    first = copies[parts.alive[0]]
    for node in parts.own:
        if holds_tensors(node):
            copies[node] = tail.node_copy(node, copies.__getitem__)
        else:
            copies[node] = _size(tail, first, *node.meta["measured"], node.name)
    for node in parts.behind:
        copies[node] = tail.node_copy(node, copies.__getitem__)
    tail.output(copies[parts.output.args[0]])
    _overwrite(traced, tail)
    return Cut(_module(traced, prefix), _module(traced, tail))


@torch.inference_mode()
def through(traced: fx.GraphModule, node_name: str, images: torch.Tensor) -> torch.Tensor:
    """The scores of images [N, outputs] by the two parts, one after the other."""
    parts = cut(traced, node_name)
    return parts.tail(*parts.prefix(images))


def cut_before(traced: fx.GraphModule, node_name: str) -> Cut:
    """The network in two parts before the non-linearity `node_name`, whose input is then the first tensor alive."""
    node = next(node for node in traced.graph.nodes if node.name == node_name)
    return cut(traced, node.all_input_nodes[0].name)


def reached(traced: fx.GraphModule, node_name: str) -> set[str]:
    """Names of the nodes that read the node `node_name`, directly or by way of others.

    Not all nodes behind a cut are: a network of branches computes some that do not depend on the layer.
    """
    found: set[fx.Node] = {next(node for node in traced.graph.nodes if node.name == node_name)}
    # Nodes stand in the order of execution: each behind those that it reads.
    for node in traced.graph.nodes:
        if found.intersection(node.all_input_nodes):
            found.add(node)
    return {node.name for node in found} - {node_name}
