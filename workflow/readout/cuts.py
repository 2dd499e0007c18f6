"""Cuts: a network in two parts at a layer.

At a cut all tensors that are still needed later are kept, so that residual networks can be cut anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from readout.layers import feeding
from readout.tracing import is_layer


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
    """Let the non-linearities of a tail overwrite what a convolution, a dense layer or an addition made for them alone.

    Trace made them out of place for the layers that a study keeps; behind a cut nothing is kept, and memory is dear.
    """
    for node in tail.nodes:
        if not is_layer(traced, node):
            continue
        source = node.all_input_nodes[0]
        if source is feeding(traced, node) and len(source.users) == 1:
            six = isinstance(traced.get_submodule(node.target), nn.ReLU6) if node.op == "call_module" else False
            function = F.relu6 if six or node.target is F.relu6 else F.relu
            node.op, node.target, node.args, node.kwargs = "call_function", function, (source,), {"inplace": True}


def cut(traced: fx.GraphModule, node_name: str) -> Cut:
    """The network in two parts behind the node `node_name`; the parts share the network's weights."""
    nodes = [node for node in traced.graph.nodes if node.op != "output"]
    output = next(node for node in traced.graph.nodes if node.op == "output")
    at = next(i for i, node in enumerate(nodes) if node.name == node_name)
    before, behind = nodes[: at + 1], nodes[at + 1 :]
    needed = {source for node in [*behind, output] for source in node.all_input_nodes}
    constants = [node for node in before if node.op == "get_attr" and node in needed]
    alive = [nodes[at], *(node for node in before[:-1] if node in needed and node.op != "get_attr")]

    prefix, copies = fx.Graph(), {}
    for node in before:
        copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(tuple(copies[node] for node in alive))

    tail = fx.Graph()
    copies = {node: tail.placeholder(node.name) for node in alive}
    for node in [*constants, *behind]:
        copies[node] = tail.node_copy(node, copies.__getitem__)
    tail.output(copies[output.args[0]])
    _overwrite(traced, tail)
    return Cut(_module(traced, prefix), _module(traced, tail))


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
