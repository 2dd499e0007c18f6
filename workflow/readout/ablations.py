"""Ablations: a group's units put out something else. Interventions say what (`design` in the docs)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


class Intervention(Protocol):
    """How a group's units are replaced."""

    name: str

    def replace(self, activation: torch.Tensor, units: np.ndarray, images: slice | np.ndarray) -> torch.Tensor:
        """A copy of `activation` [N, ...] with the units (places in the layer's order) replaced, in the same layout.

        `images` are the places of the N images among all that are ablated.
        """


def _alike(activation: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """One number a unit [units of the layer] as a tensor [1, ...] in the activation's layout and type."""
    return torch.empty_like(activation[:1]).copy_(flat.view(1, *activation.shape[1:]))


def _kept(activation: torch.Tensor, units: np.ndarray) -> torch.Tensor:
    """0 at the group's units and 1 elsewhere [1, ...]."""
    factors = torch.ones(activation[0].numel(), dtype=activation.dtype)
    factors[torch.from_numpy(units.astype(np.int64))] = 0.0
    return _alike(activation, factors)


def ablate(activation: torch.Tensor, units: np.ndarray, value: float | np.ndarray) -> torch.Tensor:
    """A copy of `activation` [N, ...] in which the units (places in the layer's order) are `value` in every image.

    `value` is a number or, in that order, one for each unit of the layer [units of the layer].

    Out of place, and by factors 0 and 1 in the activation's own memory layout: writing through `flatten` would change
    nothing where the memory is channels-last, since `flatten` copies there, and `masked_fill` leaves another layout,
    with which the next operations are slow. The activations must be finite.
    """
    kept = _kept(activation, units)
    constant = isinstance(value, float | int)
    replaced = value if constant else _alike(activation, torch.from_numpy(value).to(activation.dtype))
    return torch.addcmul((1.0 - kept) * replaced, activation, kept)


@dataclass(frozen=True)
class Constant:
    """Every unit puts out the same in all images: `value`, one number for all units or one for each of the layer."""

    name: str
    value: float | np.ndarray

    def replace(self, activation: torch.Tensor, units: np.ndarray, images: slice | np.ndarray) -> torch.Tensor:
        return ablate(activation, units, self.value)


ZERO = Constant("zero", 0.0)
"""The paper's intervention (section 2)."""


def mean(target_mean: np.ndarray, others_mean: np.ndarray) -> Constant:
    """Every unit puts out what lies midway between its means over the target's and over the others' images."""
    return Constant("mean", (target_mean + others_mean) / 2)


@dataclass(frozen=True)
class Erase:
    """The group's activations a lose their component along a direction d: a - scale d (d . (a - middle)) / (d . d).

    d is `direction` at the group's units; `direction` and `middle` have a number for each unit of the layer. With the
    difference of class means as d, and scale 1, the classes' means are equal over the images that the means are of, so
    that every linear probe fitted there is constant (Belrose et al. 2023).
    """

    name: str
    direction: np.ndarray
    middle: np.ndarray
    scale: float = 1.0

    def among(self, units: np.ndarray) -> "Erase":
        """The same for activations of these units alone."""
        return Erase(self.name, self.direction[units], self.middle[units], self.scale)

    def replace(self, activation: torch.Tensor, units: np.ndarray, images: slice | np.ndarray) -> torch.Tensor:
        along = torch.from_numpy(np.zeros_like(self.direction))
        along[units] = torch.from_numpy(self.direction[units])
        squared = along.double().square().sum().item()
        # Units that are equal on both sides hold nothing to erase.
        if squared == 0:
            return activation.clone()
        d, middle = (_alike(activation, flat.to(activation.dtype)) for flat in (along, torch.from_numpy(self.middle)))
        dims = tuple(range(1, activation.ndim))
        component = ((activation - middle) * d).sum(dims, keepdim=True, dtype=torch.float64) * (self.scale / squared)
        return torch.addcmul(activation, component.to(activation.dtype), d, value=-1)


def erase(target_mean: np.ndarray, others_mean: np.ndarray) -> Erase:
    """What a linear probe reads of the target's difference from the others is taken from the group, and no more."""
    return Erase("erase", target_mean - others_mean, (target_mean + others_mean) / 2)


FROM_MEANS: dict[str, Callable[[np.ndarray, np.ndarray], Intervention]] = {
    "mean": mean,
    "erase": erase,
}
"""Interventions by name that follow from a unit's means over the target's and over the others' images."""


@dataclass(frozen=True)
class Resample:
    """Every unit of the group puts out what it does in another image: `donors` [images] are places in `source`."""

    name: str
    source: torch.Tensor
    donors: np.ndarray

    def replace(self, activation: torch.Tensor, units: np.ndarray, images: slice | np.ndarray) -> torch.Tensor:
        kept = _kept(activation, units)
        donated = self.source[torch.from_numpy(self.donors[images])]
        return torch.addcmul((1.0 - kept) * donated, activation, kept)


def energy(activation: torch.Tensor, ablated: torch.Tensor) -> np.ndarray:
    """What an ablation removes from each image: sum over units of (a - replacement)^2, float64 [N]."""
    return (activation - ablated).square().flatten(1).sum(1, dtype=torch.float64).cpu().numpy()


def difference(activations: np.ndarray, side: np.ndarray, inside: np.ndarray) -> float:
    """Squared length of the difference of the sides' means inside a fold, less what noise adds to it.

    activations: [images, units]; side: [images], 0 for the target's and another number for each other class; inside:
    bool [images]. In expectation it is the squared length of the difference of the true means, and can be below zero.
    The noise is that of images within their classes, over all folds; NaN where a class has a single image.
    """
    x = activations.astype(np.float64)
    target = side == 0
    length = np.square(x[inside & target].mean(0) - x[inside & ~target].mean(0)).sum()
    noise = 0.0
    for c in np.unique(side):
        of_class, drawn = side == c, (inside & (side == c)).sum()
        if of_class.sum() < 2:
            return np.nan
        share = drawn / (inside & (target == target[of_class][0])).sum()
        noise += share**2 * x[of_class].var(0, ddof=1).sum() / drawn if drawn else 0.0
    return float(length - noise)


def directions(activations: np.ndarray, class_id: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Random directions that no class has a part in: differences of the means of random halves, float32 [count, units].

    activations: [images, units]; class_id: [images]. The images of each class are halved, so that a direction has the
    noise of a difference of means and none of its signal; of an odd number one image is left out.
    """
    signs = np.zeros((count, len(class_id)))
    for c in np.unique(class_id):
        members = np.flatnonzero(class_id == c)
        half = len(members) // 2
        for row in signs:
            drawn = generator.permutation(members)
            row[drawn[:half]], row[drawn[half : 2 * half]] = 1, -1
    halves = np.maximum(1, np.abs(signs).sum(1, keepdims=True) / 2)
    return (signs / halves @ activations.astype(np.float64)).astype(np.float32)


def component_energy(activations: np.ndarray, direction: np.ndarray, middle: np.ndarray) -> float:
    """Sum over images of the squared component of a - middle along a direction.

    activations: [images, units]; direction and middle: [units].
    """
    squared = np.square(direction.astype(np.float64)).sum()
    along = (activations.astype(np.float64) - middle) @ direction.astype(np.float64)
    return float(np.square(along).sum() / squared) if squared > 0 else 0.0


def donors(is_target: np.ndarray, fold: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """For each image [images] another one, of another fold, of the target or of the others with equal probability."""
    drawn = np.empty(len(fold), np.int64)
    for i, f in enumerate(fold):
        side = is_target if generator.random() < 0.5 else ~is_target
        drawn[i] = generator.choice(np.flatnonzero(side & (fold != f)))
    return drawn
