"""Ablations: a cell's units set to a value in every image."""

import numpy as np
import torch


def ablate(activation: torch.Tensor, units: np.ndarray, value: float) -> torch.Tensor:
    """A copy of `activation` [N, ...] in which the units (flat indices in C, H, W order) are `value` in every image.

    Out of place and by a mask in the activation's own shape: writing through `flatten` would change nothing where the
    memory is channels-last, since `flatten` copies there.
    """
    mask = torch.zeros(activation[0].numel(), dtype=torch.bool)
    mask[torch.from_numpy(units.astype(np.int64))] = True
    return activation.masked_fill(mask.view(1, *activation.shape[1:]).to(activation.device), value)
