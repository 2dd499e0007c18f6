"""Activations: one pass through a network or a part of one, each layer handed on as soon as it is computed."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import fx

from readout.tracing import Recorder


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
    chosen = frozenset(nodes)

    def keep_chosen(node: fx.Node, value: torch.Tensor) -> None:
        if node.name in chosen:
            keep(node.name, value)

    return Recorder(traced, keep_chosen).run(*given)
