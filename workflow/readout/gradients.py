"""Gradients at a cut: of scores with respect to a layer, and of a layer with respect to the images.

One backward pass serves all images of a batch, since no image acts on another. The tensors given are left unchanged.
They and the weights must be ordinary tensors, not ones made in inference mode, which autograd refuses; the mode in
which a function is called does not matter.

At the kinks of a network torch's convention holds: the derivative of a ReLU is 0 where its input is exactly 0, that of
a ReLU6 also where its input is exactly 6, and of equal maxima in a pooling window one takes the whole derivative.
"""

from collections.abc import Callable, Sequence

import torch

from readout import StudyError
from readout.cuts import Cut


def _gradient(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """The gradient, shaped as `at` [N, ...], of a function that gives a number for each image [N]."""
    with torch.inference_mode(False), torch.enable_grad():
        at = at.detach().requires_grad_()
        values = function(at)
        if values.shape != at.shape[:1]:
            raise StudyError(
                f"a gradient is taken of one number for each image, [{len(at)}], but the function gives "
                f"{list(values.shape)}; choose an output or a unit, or sum over them"
            )
        return torch.autograd.grad(values.sum(), at)[0]


def of_scores(
    tail: Callable[..., torch.Tensor], alive: Sequence[torch.Tensor], score: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The gradient of a score of each image with respect to the layer at a cut, shaped as the layer [N, ...].

    `tail` and `alive` are a cut's: the tensors alive there, the layer's output first. `score` takes the network's
    scores [N, outputs] to one number for each image [N], such as the logit of a class. An entry of the gradient is the
    change of that number per change of a unit's activation.

    The other tensors that are alive, such as a shortcut around the layer, are held fixed, as an ablation of the layer
    holds them. With a cut before the non-linearity (`cuts.cut_before`) the gradient is with respect to its input.

    A tail that OpenVINO compiled is a StudyError, and so is a score that is not one number for each image.
    """
    first, *rest = alive
    return _gradient(lambda layer: score(tail(layer, *rest)), first)


def of_layer(
    prefix: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    images: torch.Tensor,
    value: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The gradient of a function of a layer with respect to the images, shaped as the images [N, 3, H, W].

    `prefix` is a cut's: behind the non-linearity (`cuts.cut`) for the layer, before it (`cuts.cut_before`) for the
    input of the non-linearity. `value` takes the layer's activations [N, ...] to one number for each image [N], such as
    the activation of one unit or the projection on a direction; anything else is a StudyError. An entry of the gradient
    is the change of that number per change of a pixel as the network sees it, which is after the images' transform.
    """
    return _gradient(lambda x: value(prefix(x)[0]), images)


def conductance(
    parts: Cut, images: torch.Tensor, score: Callable[[torch.Tensor], torch.Tensor], steps: int
) -> torch.Tensor:
    """Each unit's conductance (Dhamdhere et al. 2019; Captum's), shaped as the layer [N, ...].

    `parts` is the network cut behind the layer, `score` as in `of_scores`. The path goes from an image of the
    transform's mean colour, all zeros, straight to each image, by `steps` points.
    """
    from captum.attr import LayerConductance

    class Whole(torch.nn.Module):
        """The network with a module at the cut, for Captum to hook."""

        def __init__(self):
            super().__init__()
            self.at = torch.nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            layer, *rest = parts.prefix(x)
            return score(parts.tail(self.at(layer), *rest))

    whole = Whole()
    with torch.inference_mode(False), torch.enable_grad():
        attribute = LayerConductance(whole, whole.at).attribute
        # Captum takes a point more than it is told. One image at a time, since all of its points are one batch.
        parts = [attribute(images[i : i + 1].clone(), n_steps=steps - 1).detach() for i in range(len(images))]
    return torch.cat(parts)
