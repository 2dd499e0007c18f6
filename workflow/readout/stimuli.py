"""The stimulus sheet: what is shown in trials of the occlusion task, as people and machine observers see it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from readout.conditions import CONDITIONS, NONE
from readout.figures import message

UNITS = 4
"""Rows of a sheet."""
GAP = 0.06
"""White between the references of a mosaic, as a part of a picture's side."""
QUERIES = {"base": "base image", "min": "min query", "max": "max query"}


def chosen(trials: pd.DataFrame, count: int = UNITS) -> list[tuple[int, int]]:
    """Unit and image set of the rows of a sheet: evenly spread from the largest relative difference to the smallest.

    One image set a unit, its first.
    """
    first = trials.sort_values("set").drop_duplicates("unit").sort_values(["relative_difference", "unit"])
    places = np.unique(np.linspace(len(first) - 1, 0, min(count, len(first))).round().astype(int))[::-1]
    return [tuple(map(int, pair)) for pair in first[["unit", "set"]].to_numpy()[places]]


def mosaic(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures [H, W, 3] of one size side by side in a square, row after row, on white."""
    columns = int(np.ceil(np.sqrt(len(pictures))))
    side = pictures[0].shape[0]
    step = side + max(1, round(GAP * side))
    rows = -(-len(pictures) // columns)
    canvas = np.full((columns * step, columns * step, 3), 255, np.uint8)
    down = (columns - rows) * step // 2
    for i, picture in enumerate(pictures):
        top, left = down + i // columns * step, i % columns * step
        canvas[top : top + side, left : left + side] = picture
    return canvas


def _show(axis: Axes, picture: np.ndarray) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def sheet(trials: pd.DataFrame, pictures: Mapping[str, np.ndarray], title: str) -> Figure:
    """One row a unit: base image, both queries, and the references of each condition.

    `trials` are the rows of a grid's table of trials, `pictures` [H, W, 3] are its stimuli by name.
    """
    if not len(trials):
        return message(f"{title}: there are no trials, as no image set of a unit has a right answer".removeprefix(": "))
    conditions = [name for name in CONDITIONS if name != NONE and name in set(trials["condition"])]
    rows = chosen(trials)
    columns = len(QUERIES) + len(conditions)
    figure, grid = plt.subplots(
        len(rows), columns, figsize=(1.25 * columns, 1.32 * len(rows) + 0.5), squeeze=False, layout="constrained"
    )
    for (unit, number), line in zip(rows, grid, strict=True):
        of_unit = trials[(trials["unit"] == unit) & (trials["set"] == number)].set_index("condition")
        any_of = of_unit.iloc[0]
        for axis, name in zip(line, QUERIES, strict=False):
            _show(axis, pictures[any_of[name]])
        for axis, condition in zip(line[len(QUERIES) :], conditions, strict=True):
            names = list(of_unit.loc[condition, "references"]) if condition in of_unit.index else []
            _show(axis, mosaic([pictures[name] for name in names]) if names else np.full((1, 1, 3), 255, np.uint8))
        difference = any_of["relative_difference"]
        line[0].set_ylabel(f"{any_of['cell']}, unit {unit}\ndifference {difference:.2f}", fontsize=7)
    for axis, label in zip(grid[0], [*QUERIES.values(), *conditions], strict=True):
        axis.set_title(label, fontsize=8)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure
