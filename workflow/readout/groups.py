"""Groups: named sets of a layer's units for a target. Cells are groups, and so are random ones.

Whatever can be done to a cell (ablate, probe) can be done to a group, by the same code.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from readout import StudyError

Kind = Literal["cell", "random", "part", "matched", "all"]


@dataclass(frozen=True)
class Group:
    """A named set of units: flat indices in C, H, W order, ascending [members], of a layer with `layer_units`."""

    name: str
    kind: Kind
    units: np.ndarray
    layer_units: int


def random_names(count: int) -> tuple[str, ...]:
    """Names of the first `count` random groups of a grid."""
    return tuple(f"random{i}" for i in range(count))


def random(name: str, layer_units: int, size: int, entropy: str) -> Group:
    """A uniform draw of `size` of a layer's units, without replacement.

    `entropy` and the name decide the draw, so that a group stays as it is when others are added.
    """
    if not 1 <= size <= layer_units:
        raise StudyError(f"a random group of {size} units needs as many, the layer has {layer_units}")
    seed = hashlib.sha256(f"{entropy}\0{name}".encode()).digest()
    units = np.random.default_rng(list(seed)).choice(layer_units, size, replace=False)
    return Group(name, "random", np.sort(units), layer_units)
