"""What a network must be to be studied: one score for each output, always the same, of an image alone."""

from collections.abc import Collection

import torch
from torch import fx, nn

from readout import StudyError
from readout.models import drawing
from readout.tracing import Recorder

SEVERAL = 3
"""Images with which a network is tried."""
CLOSE = 1e-3
"""Part of the largest value by which values may differ that are equal but for rounding."""
PART = 1e-2
"""Part of their standard deviation over images, averaged over the outputs, by which scores may differ."""
FINEST = 1e-5
"""Part of the largest score by which scores may differ in any case: of float32's seven digits two are spare."""


def images(size: int) -> torch.Tensor:
    """The images of noise [SEVERAL, 3, size, size] with which a network is tried."""
    return torch.randn(SEVERAL, 3, size, size, generator=torch.Generator().manual_seed(0))


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether values are equal but for rounding, beside the largest of them."""
    return torch.allclose(found, expected, rtol=0, atol=CLOSE * expected.abs().max().item())


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether scores of the first images are equal but for rounding; `expected` [SEVERAL, outputs] are those of all.

    Judged beside what tells images apart, too: a constant that is added to all scores must not hide a difference.
    """
    largest = expected.abs().max().item()
    most = min(CLOSE * largest, max(PART * expected.std(0).mean().item(), FINEST * largest))
    return torch.allclose(found, expected[: len(found)], rtol=0, atol=most)


@torch.inference_mode()
def scores(network: nn.Module, size: int, outputs: int) -> torch.Tensor:
    """The scores of `images` [SEVERAL, outputs]; a StudyError for a network that cannot be studied.

    The network's own errors pass.
    """

    def run(given: torch.Tensor, seed: int) -> object:
        with drawing(seed):
            return network(given)

    tried = images(size)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    found = run(tried, seed=0)
    after = dict(network.named_buffers())
    changed = [name for name, buffer in before.items() if not torch.equal(buffer, after.get(name, torch.empty(0)))]
    if changed:
        raise StudyError(
            f"changes {changed[0]} in evaluation, so that its scores may depend on what it has seen before; let it do "
            "so in training alone"
        )
    if not isinstance(found, torch.Tensor) or found.shape != (SEVERAL, outputs):
        given = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise StudyError(
            f"gives {given} for {SEVERAL} images, and scores are one tensor, [{SEVERAL}, {outputs}]; `outputs` says "
            "how many there are"
        )
    if not torch.isfinite(found).all():
        raise StudyError("a score is not finite; the network or its weights are broken")
    if not same(run(tried, seed=1), found):
        raise StudyError(
            "draws random numbers in evaluation, so that a score is not one number; switch that off where `training` "
            "is False"
        )
    if not same(run(tried[:1], seed=0), found):
        raise StudyError(
            "the scores of an image depend on the others of its batch; use what is fixed in evaluation, as a batch "
            "norm with running statistics"
        )
    return found


@torch.inference_mode()
def check_graph(traced: fx.GraphModule, size: int, expected: torch.Tensor) -> None:
    """Refuse a graph that does not give the network's own scores."""
    if not same(traced(images(size)), expected):
        raise StudyError("its traced graph gives other scores; it does more than a graph can say")


@torch.inference_mode()
def values(
    traced: fx.GraphModule, given: torch.Tensor, nodes: Collection[str]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The scores of images, and what nodes of the graph give."""
    found: dict[str, torch.Tensor] = {}
    run = Recorder(traced, lambda node, value: found.update({node.name: value} if node.name in nodes else {}))
    return run.run(given), found


def differing(first: nn.Module, second: nn.Module) -> list[str]:
    """Names of the weights that two networks do not share."""
    one, other = first.state_dict(), second.state_dict()
    both = one.keys() & other.keys()
    return [key for key in one | other if key not in both or not torch.equal(one[key], other[key])]
