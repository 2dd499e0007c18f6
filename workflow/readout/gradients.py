"""Gradients at a cut: of scores with respect to a layer, and of a layer with respect to the images.

All images of a batch are served by one pass backward, since no image acts on another. What comes in is left as it is
and must be ordinary tensors, which those made in inference mode are not; it does not matter in which mode a function
is called.

The networks are smooth but for some kinks, and there torch's convention holds: where the input of a ReLU is exactly 0,
or that of a ReLU6 exactly 0 or 6, its derivative is 0; of equal maxima in a pooling, one alone has a derivative.
"""

from collections.abc import Callable, Sequence

import torch

from readout import StudyError


def _gradient(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """The gradient, shaped as `at` [N, ...], of a function that gives a number for each image [N]."""
    with torch.inference_mode(False), torch.enable_grad():
        at = at.detach().requires_grad_()
        values = function(at)
        if values.shape != at.shape[:1]:
            raise StudyError(
                f"a gradient is taken of one number for each image, [{len(at)}], and the function gives "
                f"{list(values.shape)}; choose an output, or add up"
            )
        return torch.autograd.grad(values.sum(), at)[0]


def of_scores(
    tail: Callable[..., torch.Tensor], alive: Sequence[torch.Tensor], score: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The gradient of a score of each image with respect to the layer at a cut, shaped as the layer [N, ...].

    `tail` and `alive` are a cut's: the tensors alive there, the layer's output first. `score` takes the network's
    scores [N, outputs] to one number for each image [N], such as the logit of a class. The gradient is in its unit by
    that of the activations.

    The other tensors that are alive, such as a shortcut around the layer, are held fixed: this is what an ablation of
    the layer would feel. With a cut before the non-linearity (`cuts.cut_before`) the gradient is with respect to the
    non-linearity's input, by all ways that lead on from there.
    """
    first, *rest = alive
    return _gradient(lambda layer: score(tail(layer, *rest)), first)


def of_layer(
    prefix: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    images: torch.Tensor,
    value: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The gradient of a function of a layer's units with respect to the images [N, 3, H, W], shaped as they are.

    `prefix` is a cut's: behind the non-linearity (`cuts.cut`) for the layer, before it (`cuts.cut_before`) for the
    input of the non-linearity. `value` takes the layer's activations [N, ...] to one number for each image [N], such as
    one unit's activation, or the sum of all along a direction. The gradient is in its unit by that of the images as the
    network takes them, prepared and scaled.
    """
    return _gradient(lambda x: value(prefix(x)[0]), images)
