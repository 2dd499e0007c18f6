"""Draws what the retired held-out probe read on pure noise, beside the cross-fitted one: `make leak`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from jobs.figures import save
from readout import cells, figures, probes
from readout.folds import FOLDS

BINS = (4, 4)
TARGET, OTHERS = 50, 450
"""Images of either side, as in the default study."""
UNITS = (256, 4096)
WORLDS = 20
C = 10.0
PROCEDURES = {"grid": "retired: grid of all images", "fold": "cross-fitted: a grid for each fold"}
"""What gives the units of a fold's probe: the grid of all images, or that of the images outside the fold."""


def noise(units: int, target: int, others: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations that know of no class, rectified normal numbers [images, units]; is_target and fold [images]."""
    images = target + others
    x = np.maximum(np.random.default_rng([units, others, seed]).normal(size=(images, units)), 0)
    place = np.concatenate([np.arange(target), np.arange(others)])
    return x.astype(np.float32), np.arange(images) < target, place % FOLDS


def grid(x: np.ndarray, is_target: np.ndarray) -> list[np.ndarray]:
    """Units of each cell of the grid of these images, `s0m0` first."""
    s, m = cells.grid(
        *cells.coordinates(*(x[side].mean(0, dtype=np.float64) for side in (is_target, ~is_target))), BINS
    )
    return [np.flatnonzero((s == i) & (m == j)) for i in range(BINS[0]) for j in range(BINS[1])]


def read(x: np.ndarray, is_target: np.ndarray, fold: np.ndarray, procedure: str) -> Iterator[dict]:
    """A row for each cell: its bins, and balanced accuracy and AUROC of the probe that one of `PROCEDURES` gives."""
    if procedure == "grid":
        grids = [grid(x, is_target)] * FOLDS
    else:
        grids = [grid(x[fold != k], is_target[fold != k]) for k in range(FOLDS)]
    for i, groups in enumerate(zip(*grids, strict=True)):
        found = probes.crossfit(x, groups, is_target, fold, C=C)
        s, m = divmod(i, BINS[1])
        yield {"selectivity_bin": s, "magnitude_bin": m, "accuracy": found.accuracy, "auroc": found.auroc}


def table(worlds: int) -> pd.DataFrame:
    """The rows of all worlds, sizes and procedures."""
    return pd.DataFrame(
        row | {"world": world, "units": units, "procedure": PROCEDURES[procedure]}
        for units in UNITS
        for world in range(worlds)
        for procedure in PROCEDURES
        for row in read(*noise(units, TARGET, OTHERS, world), procedure)
    )


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(prog="make leak", description=__doc__)
    parser.add_argument("figure", type=Path, help="the file to write, as docs/figures/leak.png")
    parser.add_argument("--worlds", type=int, default=WORLDS, help=f"draws of the noise (default {WORLDS})")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = table(given.worlds)
    print(found.groupby(["procedure", "units", "selectivity_bin"])[["accuracy", "auroc"]].mean().round(3).to_string())
    figures.style()
    save(figures.leak(found), [given.figure])


if __name__ == "__main__":
    main()
