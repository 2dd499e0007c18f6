"""Redundancy: whether a class can still be read when a group of units is ablated, and what the ablation changed there.

A class that the network still tells, though a group is gone, may never have been read from this group, or other units
make up for it. Probes of the units that remain, and of layers behind the ablation, tell these apart.
"""

from typing import Literal

import numpy as np

Place = Literal["remaining", "next", "last"]
"""Where the class is looked for: the layer's own units without the group, and the next and last layer that read it."""


def spread(activations: np.ndarray) -> float:
    """Sum over images of the squared distance from the mean image; activations: [images, units]."""
    mean = activations.mean(0, dtype=np.float64)
    # One image after the other: a copy of a large layer in float64 would take twice its memory.
    return float(sum(np.square(image - mean).sum() for image in activations))


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """Sum over images of the squared distance between activations before and after an ablation [images, units]."""
    return float(sum(np.square(x - y).sum(dtype=np.float64) for x, y in zip(before, after, strict=True)))
