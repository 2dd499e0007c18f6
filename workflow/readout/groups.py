"""Groups: named sets of a layer's units for a target. Cells are groups, and so are random ones.

Whatever can be done to a cell (ablate, probe) can be done to a group, by the same code.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from readout import StudyError

Kind = Literal[
    "cell",
    "random",
    "part",
    "matched",
    "all",
    "role",
    "pseudo",
    "ranked",
]


@dataclass(frozen=True)
class Group:
    """A named set of units: places in the layer's order, ascending [members], of a layer with `layer_units`."""

    name: str
    kind: Kind
    units: np.ndarray
    layer_units: int


TOLERANCE = 0.05
"""How far the energies of matched groups may be apart, as a share."""


def part(name: str, group: Group, fraction: int, generator: np.random.Generator) -> Group:
    """A random one in `fraction` of a group's units, at least one."""
    drawn = generator.choice(group.units, max(1, len(group.units) // fraction), replace=False)
    return Group(name, "part", np.sort(drawn), group.layer_units)


def matched(
    name: str, like: Group, energy: np.ndarray, candidates: np.ndarray, generator: np.random.Generator
) -> Group | None:
    """A random group, out of `candidates`, that holds as much energy as another group within `TOLERANCE`.

    energy: that of each unit [units of the layer]. Units are added in a random order, those left out that would exceed
    it; None where the candidates do not hold as much, or none fits.
    """
    aim = energy[like.units].sum()
    order = generator.permutation(candidates)
    # Units that hold nothing match nothing.
    order = order[energy[order] > 0]
    held, chosen = 0.0, []
    for unit in order:
        if held + energy[unit] <= aim * (1 + TOLERANCE):
            held += energy[unit]
            chosen.append(unit)
        if held >= aim:
            break
    if not chosen or held < aim * (1 - TOLERANCE):
        return None
    return Group(name, "matched", np.sort(np.array(chosen)), like.layer_units)


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
