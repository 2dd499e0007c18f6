"""Ablations: a group's units put out something else in every image."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Intervention:
    """What the units of an ablated group put out: `value`, one number for all, or one for each unit of the layer."""

    name: str
    value: float | np.ndarray


def constant(value: float) -> Intervention:
    """Every unit puts out the same number; `zero` is the paper's (section 2)."""
    return Intervention("zero" if value == 0 else f"constant {value:g}", value)


def ablate(activation: torch.Tensor, units: np.ndarray, value: float | np.ndarray) -> torch.Tensor:
    """A copy of `activation` [N, ...] in which the units (flat indices in C, H, W order) are `value` in every image.

    `value` is a number or, in C, H, W order, one for each unit of the layer [units of the layer].

    Out of place, and by factors 0 and 1 in the activation's own memory layout: writing through `flatten` would change
    nothing where the memory is channels-last, since `flatten` copies there, and `masked_fill` leaves another layout,
    with which the next operations are slow. The activations must be finite.
    """

    def alike(flat: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(activation[:1]).copy_(flat.view(1, *activation.shape[1:]))

    factors = torch.ones(activation[0].numel(), dtype=activation.dtype)
    factors[torch.from_numpy(units.astype(np.int64))] = 0.0
    kept = alike(factors)
    replaced = value if isinstance(value, float | int) else alike(torch.from_numpy(value).to(activation.dtype))
    return torch.addcmul((1.0 - kept) * replaced, activation, kept)
