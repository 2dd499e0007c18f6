"""Ablations: a cell's units set to a value in every image."""

import numpy as np
import torch


def ablate(activation: torch.Tensor, units: np.ndarray, value: float) -> torch.Tensor:
    """A copy of `activation` [N, ...] in which the units (flat indices in C, H, W order) are `value` in every image.

    Out of place, and by factors 0 and 1 in the activation's own memory layout: writing through `flatten` would change
    nothing where the memory is channels-last, since `flatten` copies there, and `masked_fill` leaves another layout,
    with which the next operations are slow. The activations must be finite.
    """
    factors = torch.ones(activation[0].numel(), dtype=activation.dtype)
    factors[torch.from_numpy(units.astype(np.int64))] = 0.0
    kept = torch.empty_like(activation[:1]).copy_(factors.view(1, *activation.shape[1:]))
    return torch.addcmul((1.0 - kept) * value, activation, kept)
