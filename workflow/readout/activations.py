"""Activations: one pass through a network or a part of one, each layer handed on as soon as it is computed."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import fx


class _Recorder(fx.Interpreter):
    """Runs a graph node by node; values are freed after their last use."""

    def __init__(self, traced: fx.GraphModule, nodes: Collection[str], keep: Callable[[str, torch.Tensor], None]):
        super().__init__(traced)
        self.nodes, self.keep = frozenset(nodes), keep
        # torch would append the graph's node to the messages of errors, those of `keep` too.
        self.extra_traceback = False

    def run_node(self, n: fx.Node):
        value = super().run_node(n)
        if n.name in self.nodes:
            self.keep(n.name, value)
        return value


@torch.no_grad()
def record(
    traced: fx.GraphModule,
    images: torch.Tensor | Sequence[torch.Tensor],
    nodes: Collection[str],
    keep: Callable[[str, torch.Tensor], None],
) -> torch.Tensor:
    """Run `images` [N, C, H, W] through the network; returns the scores [N, outputs].

    `keep(node, activation)` is called for each node of `nodes`, in the order of execution, with its activation
    [N, ...]; nothing else is held beyond its use, so that memory is bounded by the network and the batch. For the tail
    of a cut, `images` are the tensors alive there. A tail works in place, so what is to be kept is to be copied.
    """
    given = (images,) if isinstance(images, torch.Tensor) else images
    return _Recorder(traced, nodes, keep).run(*given)
