"""Feature visualisation: pictures made by optimisation, so that they drive a unit of a network.

The method of the synthetic references of Zimmermann et al. (2021), which is Lucid's (Olah et al. 2017): gradient ascent
on the Fourier coefficients of a batch of pictures, in colours that are decorrelated, under random small movements of
the picture. A term for diversity keeps the pictures of a batch apart. At the paper's 224 pixels all numbers are the
published ones; lengths in pixels are in proportion to the width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import fx
from torch.nn import functional as F

from readout import StudyError
from readout.tracing import rectifier

COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Red, green and blue (rows) of the decorrelated colours (columns), before scaling: of natural images, by Lucid."""
DEVIATION = 0.01
"""Standard deviation of the coefficients before the first step."""
CONTRAST = 4.0
"""What the inverse Fourier transform is divided by."""
SCALES = (1, 0.975, 1.025, 0.95, 1.05)
DEGREES = 5
"""Pictures are turned by a whole number of degrees, up to so many to either side."""
PADDING, SHIFTS = 16 / 224, (8 / 224, 4 / 224)
"""Border that is optimised around the picture, and how far it is moved to either side before and behind the turn.

As shares of its width; at 224 pixels these are a border of 16 pixels, and random crops by 16 and by 8.
"""
REDIRECTED = 16
"""Steps in which gradients may pass non-linearities that are shut."""

FIRST_WEIGHT, LAST_WEIGHT, HALVINGS = 1.0, 999_999.0, 7
"""Weights of diversity that are tried, and how often the interval between two of them is halved."""

OK = "ok"
INFINITE = "the activation is not finite"
SILENT = "the unit stays silent: its activation is 0"
NO_RISE = "the activation does not rise above that of the start"
STATUSES = (OK, INFINITE, SILENT, NO_RISE)
"""What may be said of a picture."""

Activation = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From images as the network sees them [B, 3, W, W] to a unit's activations [B], and those of its layer [B, C, ...]."""


def pixels(share: float, width: int) -> int:
    """A length of at least one pixel, given as a share of the picture's width."""
    return max(1, round(share * width))


def spectrum(batch: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """The coefficients before the first step, Gaussian [B, 3, N, N // 2 + 1, 2], of pictures with their border.

    N is the width with the border on either side; the last axis holds real and imaginary parts. Drawn on the CPU.
    """
    size = width + 2 * pixels(PADDING, width)
    return DEVIATION * torch.randn(batch, 3, size, size // 2 + 1, 2, generator=generator)


def decoded(coefficients: torch.Tensor) -> torch.Tensor:
    """The pictures of Fourier coefficients [B, 3, N, N // 2 + 1, 2] with their border, in (0, 1) [B, 3, N, N].

    A coefficient counts by the inverse of its frequency, as in natural images; zeros give uniform grey, 0.5.
    """
    size = coefficients.shape[2]
    rows, columns = (frequencies(size).to(coefficients) for frequencies in (torch.fft.fftfreq, torch.fft.rfftfreq))
    # In cycles a pixel; the mean counts as the lowest frequency that the picture holds.
    frequency = (rows[:, None] ** 2 + columns**2).sqrt().clamp(min=1 / size)
    scaled = torch.view_as_complex(coefficients) * (size / frequency)
    channels = torch.fft.irfft2(scaled, s=(size, size)) / CONTRAST
    colours = torch.tensor(COLOURS).to(coefficients)
    colours = colours / colours.norm(dim=0).max()
    return torch.einsum("rc,bcyx->bryx", colours, channels).sigmoid()


def cropped(pictures: torch.Tensor, width: int) -> torch.Tensor:
    """Pictures without their border, [B, 3, W, W] of [B, 3, N, N]."""
    border = (pictures.shape[-1] - width) // 2
    return pictures[..., border : border + width, border : border + width]


@dataclass(frozen=True)
class Movement:
    """How a picture is moved: shifted, scaled and turned about its centre, and shifted again.

    Shifts are down and right, in whole pixels; the turn is in degrees.
    """

    first: tuple[int, int] = (0, 0)
    scale: float = 1.0
    degrees: int = 0
    second: tuple[int, int] = (0, 0)


def movement(width: int, generator: torch.Generator) -> Movement:
    """A random movement of pictures of a width."""

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high + 1, (count,), generator=generator).tolist()

    reach = [pixels(share, width) for share in SHIFTS]
    first = draw(-reach[0], reach[0], 2)
    (scale,) = draw(0, len(SCALES) - 1, 1)
    (degrees,) = draw(-DEGREES, DEGREES, 1)
    return Movement(tuple(first), SCALES[scale], degrees, tuple(draw(-reach[1], reach[1], 2)))


def moved(pictures: torch.Tensor, width: int, by: Movement) -> torch.Tensor:
    """Pictures with their border [B, 3, N, N], moved, then cropped to [B, 3, W, W].

    In one bilinear interpolation. Where a corner looks beyond the border, it sees the border's reflection.
    """
    # ASSUME: one interpolation, to the width that the network is made for; published are two, and widths that vary.
    size = pictures.shape[-1]
    # Of each pixel that the network sees, where in the picture it is, about the centre and in pixels: columns first.
    # What is seen is turned forward, so the place is turned back.
    turn = math.radians(-by.degrees)
    back = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) / by.scale
    shift = -back @ torch.tensor(by.second[::-1], dtype=torch.float32) - torch.tensor(by.first[::-1])
    # grid_sample's borders are at -1 and 1, of what is seen as of the picture.
    theta = torch.cat([back * width / size, shift[:, None] * 2 / size], 1).to(pictures)
    batch, channels = pictures.shape[:2]
    grid = F.affine_grid(theta.expand(batch, 2, 3), [batch, channels, width, width], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def likeness(layer: torch.Tensor) -> torch.Tensor:
    """How alike the pictures of a batch are to a layer: D, from 0 to B - 1, of its activations [B, C, ...].

    The sum over all pairs of pictures (in either order) of the inner product of their Gram matrices, channel by channel
    over all positions and of norm 1, divided by the number of pictures. A layer without positions is a vector at one.
    """
    flat = layer.flatten(2) if layer.dim() > 2 else layer[:, :, None]
    if flat.shape[2] == 1:
        # Of vectors, the inner product of Gram matrices is that of the vectors, squared.
        unit = F.normalize(flat[:, :, 0], eps=1e-10)
        pairs = (unit @ unit.T) ** 2
    else:
        gram = F.normalize((flat @ flat.mT).flatten(1), eps=1e-10)
        pairs = gram @ gram.T
    return (pairs.sum() - pairs.diagonal().sum()) / len(layer)


def objective(value: torch.Tensor, layer: torch.Tensor, diversity: float) -> torch.Tensor:
    """What is maximised: the mean activation of a batch [B], less the pictures' likeness by the weight `diversity`."""
    return value.mean() - diversity * likeness(layer)


class _Redirected(torch.autograd.Function):
    """A ReLU, up to a ceiling, whose gradient finds a way round where it is shut for the whole of an image.

    Gradients are of what is minimised. Where nothing passes, what would open the non-linearity passes.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, ceiling: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.ceiling = ceiling
        return x.clamp(0, ceiling)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        below, above = x <= 0, x >= ctx.ceiling
        passed = gradient.masked_fill(below | above, 0)
        opening = gradient.masked_fill((below & (gradient > 0)) | (above & (gradient < 0)), 0)
        shut = (passed.flatten(1) == 0).all(1).view(-1, *[1] * (x.dim() - 1))
        return torch.where(shut, opening, passed), None


def _relu(x: torch.Tensor) -> torch.Tensor:
    return _Redirected.apply(x, math.inf)


def _relu6(x: torch.Tensor) -> torch.Tensor:
    return _Redirected.apply(x, 6.0)


def redirected(prefix: fx.GraphModule) -> fx.GraphModule:
    """A part of a network (the prefix of a cut) whose ReLUs let gradients pass where they are shut.

    The same activations; of an image to which a ReLU passes no gradient at all, what would open it passes. The part
    that is given stays as it is; they share the weights. Other non-linearities have a slope nearly everywhere.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(prefix.graph, {}))
    for node in graph.nodes:
        if (function := rectifier(prefix, node)) is not None:
            source, opened = node.all_input_nodes[0], _relu6 if function is F.relu6 else _relu
            node.op, node.target, node.args, node.kwargs = "call_function", opened, (source,), {}
    return fx.GraphModule(prefix, graph)


def status(activation: float, start: float) -> str:
    """Whether a picture drives its unit, or in words why not, by the activations on it and on the start's picture."""
    if not (math.isfinite(activation) and math.isfinite(start)):
        return INFINITE
    if activation > start:
        return OK
    return SILENT if activation == start == 0 else NO_RISE


@dataclass(frozen=True)
class Result:
    """Pictures [B, 3, W, W] in [0, 1], the unit's activations on them and on those before the first step [B].

    `likeness` is D of the pictures, without the border and unmoved, as the activations are; `diversity` is its weight.
    `steps` is how many were taken, fewer than asked for where something was not finite; `status` is in words, of each
    picture.
    """

    images: torch.Tensor
    activation: torch.Tensor
    start: torch.Tensor
    likeness: float
    diversity: float
    steps: int
    status: tuple[str, ...]


def synthesise(
    activation: Activation,
    *,
    width: int,
    batch: int,
    steps: int,
    learning_rate: float,
    diversity: float,
    generator: torch.Generator,
    mean: Sequence[float],
    std: Sequence[float],
    climbed: Activation | None = None,
    opening: Activation | None = None,
    device: torch.device | str = "cpu",
) -> Result:
    """Pictures of a unit: a batch optimised together by Adam, for the mean activation less `diversity` times D.

    mean, std: of the normalisation before the network, by colour. `generator` is the CPU's and draws everything: the
    start and the movements, one a step for all pictures.

    What is optimised is `climbed` instead of `activation`, where it is given: for a unit behind a non-linearity, its
    input, which has the same order and a slope where the unit is silent. `opening` takes its place in the first 16
    steps, the same as through `redirected`. A unit that cannot be driven is told by its status. StudyError where one of
    them does not give one number for each picture.
    """

    climbed = climbed or activation
    opening = opening or climbed

    def see(pictures: torch.Tensor, through: Activation) -> tuple[torch.Tensor, torch.Tensor]:
        value, layer = through((pictures - centre) / scale)
        if value.shape != (batch,) or len(layer) != batch:
            raise StudyError(
                f"a visualisation is of one unit: one number for each picture, [{batch}], and the layer of each, but "
                f"there are {list(value.shape)} numbers and {len(layer)} layers"
            )
        return value, layer

    def look() -> tuple[torch.Tensor, torch.Tensor, float]:
        with torch.no_grad():
            pictures = cropped(decoded(coefficients), width)
            return pictures, see(pictures, activation)[0], likeness(see(pictures, climbed)[1]).item()

    # Whatever the mode of the caller: autograd refuses tensors that are made in inference mode.
    with torch.inference_mode(False), torch.enable_grad():
        centre, scale = (torch.tensor(list(values), device=device).view(3, 1, 1) for values in (mean, std))
        coefficients = spectrum(batch, width, generator).to(device).requires_grad_()
        start = look()[1]
        optimiser = torch.optim.Adam([coefficients], lr=learning_rate)
        taken = 0
        while taken < steps:
            through = opening if taken < REDIRECTED else climbed
            seen = moved(decoded(coefficients), width, movement(width, generator))
            loss = -objective(*see(seen, through), diversity)
            (coefficients.grad,) = torch.autograd.grad(loss, coefficients)
            # One picture that is not finite would take the others along.
            if not (loss.isfinite() and coefficients.grad.isfinite().all()):
                break
            optimiser.step()
            taken += 1
        pictures, final, alike = look()
    finite = taken == steps
    words = [status(*pair) if finite else INFINITE for pair in zip(final.tolist(), start.tolist(), strict=True)]
    return Result(pictures, final, start, alike, diversity, taken, tuple(words))


def most_diverse(make: Callable[[float], Result], strongest: float) -> Result:
    """The pictures that `make` gives for the largest weight of diversity at which all beat the strongest photograph.

    After Zimmermann et al. (2023): from 1 the weight is multiplied by ten, below a million, while the weakest picture's
    activation is above `strongest`; then the interval that is left is halved seven times. `make` takes a weight; where
    none passes, the result is that of weight 0, without diversity.
    """

    def beats(result: Result) -> bool:
        return result.activation.min().item() > strongest

    low, high, weight = 0.0, math.inf, FIRST_WEIGHT
    best = None
    while weight <= LAST_WEIGHT and math.isinf(high):
        result = make(weight)
        if beats(result):
            low, best, weight = weight, result, weight * 10
        else:
            high = weight
    for _ in range(HALVINGS if math.isfinite(high) else 0):
        weight = (low + high) / 2
        result = make(weight)
        if beats(result):
            low, best = weight, result
        else:
            high = weight
    return best or make(0.0)
