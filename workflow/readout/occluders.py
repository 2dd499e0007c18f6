"""Occluders: squares that hide a part of an image, and which of them a unit minds most and least.

The task of Zimmermann et al. (2021), section 3: a square of 40 % of the image's side is filled with the mean of the
pixels that it hides, at every position of a grid. The two positions where the unit's activation is lowest and highest
make the two queries.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from readout import StudyError
from readout.squares import overlap

Hide = Callable[[np.ndarray], torch.Tensor]
"""Takes positions [n, 2] to the copies of one image that these make [n, C, H, W]."""
LEAST_RANGE = 1e-6
"""Differences of activation that are none: as a share of the base image's, or of 1 where that is less."""
NOT_DRIVEN, NO_EFFECT = "the base image does not drive the unit", "no occluder changes the unit's activation"
"""Why an image set has no right answer."""


def occlude(image: torch.Tensor, at: np.ndarray, side: int) -> torch.Tensor:
    """Copies of an image [C, H, W], each with one square filled with the mean of what it hides, by channel.

    at: top and left of the squares [n, 2]. Returns [n, C, H, W]. A mean commutes with the normalisation of a channel,
    so the image may be in [0, 1] or as the network sees it.
    """
    return occluding(image, side)(at)


def occluding(image: torch.Tensor, side: int) -> Hide:
    """`occlude` of one image, whose means are taken once for all positions."""
    # In float64: the mean of equal pixels is that pixel.
    means = F.avg_pool2d(image.double(), side, 1).to(image.dtype)

    def hide(at: np.ndarray) -> torch.Tensor:
        top, left = torch.from_numpy(np.asarray(at)).to(image.device).long().T
        return torch.where(inside(image, at, side), means[:, top, left].T[:, :, None, None], image)

    return hide


def inside(image: torch.Tensor, at: np.ndarray, side: int) -> torch.Tensor:
    """Whether a pixel of an image [C, H, W] lies in each of the squares at [n, 2]: [n, 1, H, W]."""
    top, left = torch.from_numpy(np.asarray(at)).to(image.device).long().T
    row, column = (torch.arange(length, device=image.device) for length in image.shape[1:])
    down = (row >= top[:, None]) & (row < top[:, None] + side)
    across = (column >= left[:, None]) & (column < left[:, None] + side)
    return down[:, None, :, None] & across[:, None, None, :]


def scan(
    activation: Callable[[torch.Tensor], np.ndarray], hide: Hide, at: np.ndarray, batches: Iterable[slice]
) -> np.ndarray:
    """Activations of units for every position of a square [positions, units].

    `hide` makes the images of some positions, as `occluding` gives it for an image; `activation` takes images
    [N, C, H, W] to activations [N, units]; the positions go through both by `batches`.
    """
    return np.concatenate([activation(hide(at[batch])) for batch in batches])


@dataclass(frozen=True)
class Extremes:
    """The two occluders of one unit and one base image.

    `min_top`, `min_left`, `max_top` and `max_left` are the positions with the lowest and the highest activation, the
    first among equals; `min_ties` and `max_ties` the numbers of positions that share it. `relative_difference` is the
    difference of the two as a share of the base image's activation, None where that is zero. `overlap` is the share of
    the two squares' union that both hide. `beneficial` is whether hiding something raises the activation. `valid` is
    whether one query has a higher activation than the other, at an image that drives the unit; `reason` says why not,
    else nothing.
    """

    base: float
    min: float
    max: float
    min_top: int
    min_left: int
    max_top: int
    max_left: int
    min_ties: int
    max_ties: int
    relative_difference: float | None
    overlap: float
    beneficial: bool
    valid: bool
    reason: str


def extremes(values: np.ndarray, base: float, at: np.ndarray, side: int) -> Extremes:
    """The extremes of a unit's activations [positions] under occluders at [positions, 2]; `base` is without any.

    Activations within `LEAST_RANGE` of an extreme share it: equal occluders may differ in the last bits that kernels
    give. Where any that share the lowest are within it of any that share the highest, there is no right answer.
    """
    values, base = np.asarray(values, np.float64), float(base)
    tolerance = LEAST_RANGE * max(1.0, abs(base))
    lowest, highest = values <= values.min() + tolerance, values >= values.max() - tolerance
    low, high = int(lowest.argmax()), int(highest.argmax())
    least, most = float(values[low]), float(values[high])
    reason = ""
    if not base > 0:
        reason = NOT_DRIVEN
    # Of all that share an extreme, since which of them makes the query is the order of positions alone.
    elif values[highest].min() - values[lowest].max() <= tolerance:
        reason = NO_EFFECT
    return Extremes(
        base=base,
        min=least,
        max=most,
        min_top=int(at[low, 0]),
        min_left=int(at[low, 1]),
        max_top=int(at[high, 0]),
        max_left=int(at[high, 1]),
        min_ties=int(lowest.sum()),
        max_ties=int(highest.sum()),
        relative_difference=(most - least) / base if base else None,
        overlap=overlap(at[low], at[high], side),
        beneficial=most > base + tolerance,
        valid=not reason,
        reason=reason,
    )


@dataclass(frozen=True)
class ImageSet:
    """One base image and its references: indices into the pool, and ranks (1 drives the unit most).

    `references` are in the order of the bins, the weakest first [references].
    """

    base: int
    base_rank: int
    references: np.ndarray
    reference_ranks: np.ndarray


def image_sets(
    activations: np.ndarray, sets: int, bin_size: int, references: int, generator: np.random.Generator
) -> list[ImageSet]:
    """The first `sets` image sets of a unit, by its activations over the pool [images].

    The strongest bin_size x (references + 1) images are cut by rank into bins of `bin_size`. An image set has one image
    from each bin; that of the strongest bin is the base image, and base images come in ascending order, so that with
    fewer sets than images a bin the strongest images are left out. Equal activations count in a random order.
    StudyError where the pool is too small.
    """
    count = bin_size * (references + 1)
    if sets > bin_size or count > len(activations):
        raise StudyError(
            f"occlusion: {sets} image sets with {references} references each, from bins of {bin_size} images, need "
            f"bins of {sets} images and a pool of {count}, which has {len(activations)}; choose fewer"
        )
    # Many images may drive a unit alike, above all not at all; the pool's order is that of its classes.
    shuffled = generator.permutation(len(activations))
    strongest = shuffled[np.argsort(-activations[shuffled], kind="stable")[:count]]
    # By bins, the weakest first, and within a bin the weakest first.
    bins = strongest[::-1].reshape(references + 1, bin_size)
    ranks = np.arange(count, 0, -1).reshape(references + 1, bin_size)
    drawn = [generator.permutation(bin_size) for _ in range(references)]
    found = []
    for i in range(sets):
        order = [order[i] for order in drawn]
        places = np.arange(references), order
        found.append(ImageSet(int(bins[-1, i]), int(ranks[-1, i]), bins[places], ranks[places]))
    return found
