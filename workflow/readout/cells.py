"""Selectivity, magnitude and the grid of cells (paper, section 2; `design` in the docs for the exact rules)."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from readout import StudyError

RANDOM_OTHERS = 10


def others(pool: Sequence[str], target: str, choice: Literal["random_10", "all"], seed: int) -> tuple[str, ...]:
    """The classes of `pool` that `target` is contrasted with, sorted.

    `random_10` draws ten (all where there are ten or fewer). Each class gets a number from (seed, target, class), and
    the ten lowest win: a uniform draw that depends neither on the order of the pool nor on the other targets, and
    that a class added to the pool changes for few targets.
    """
    rest = sorted(set(pool) - {target})
    if not rest:
        raise StudyError(f"class {target}: the pool holds no other class to contrast it with; add classes")
    if choice == "all" or len(rest) <= RANDOM_OTHERS:
        return tuple(rest)
    lot = {name: hashlib.sha256(f"{seed}\0{target}\0{name}".encode()).digest() for name in rest}
    return tuple(sorted(sorted(rest, key=lot.__getitem__)[:RANDOM_OTHERS]))


def coordinates(target_mean: np.ndarray, others_mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Selectivity (t - o) / sqrt(2) and magnitude (t + o) / sqrt(2) of each unit, float32 [units].

    `target_mean` and `others_mean` are a unit's mean activation over the target's and over the others' images,
    float64 [units].
    """
    selectivity = ((target_mean - others_mean) / np.sqrt(2)).astype(np.float32)
    magnitude = ((target_mean + others_mean) / np.sqrt(2)).astype(np.float32)
    if not (np.isfinite(selectivity).all() and np.isfinite(magnitude).all()):
        raise StudyError("an activation is not finite; the network or its weights are broken")
    return selectivity, magnitude


def grid(selectivity: np.ndarray, magnitude: np.ndarray, bins: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Bin of selectivity and bin of magnitude of each unit, int8 [units] each.

    Units sorted by (selectivity, index) are cut into `bins[0]` strips by `numpy.array_split`'s sizes; each strip,
    sorted by (magnitude, index), is cut into `bins[1]` likewise. So every unit is in one cell and the cells hold
    equally many units, but for a remainder.
    """
    units = len(selectivity)
    if units < bins[0] * bins[1]:
        raise StudyError(
            f"a grid of {bins[0]} x {bins[1]} cells needs as many units, the layer has {units}; choose fewer bins"
        )
    selectivity_bin, magnitude_bin = np.empty(units, np.int8), np.empty(units, np.int8)
    # Stable sorts keep equal values in the order of the units.
    for s, strip in enumerate(np.array_split(np.argsort(selectivity, kind="stable"), bins[0])):
        selectivity_bin[strip] = s
        strip = np.sort(strip)
        for m, cell in enumerate(np.array_split(strip[np.argsort(magnitude[strip], kind="stable")], bins[1])):
            magnitude_bin[cell] = m
    return selectivity_bin, magnitude_bin


def names(bins: tuple[int, int]) -> tuple[str, ...]:
    """Names of the cells, `s0m0` (lowest) first."""
    return tuple(f"s{s}m{m}" for s in range(bins[0]) for m in range(bins[1]))
