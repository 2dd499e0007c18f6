"""Step `cells`: which classes a target is contrasted with, and the grid of a layer's units."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs import activations
from readout import StudyError, cells
from runtime import cache, parquet
from runtime.logs import logged

OTHERS = pa.schema([("class_id", pa.string()), ("other_class_id", pa.string())])
SCHEMA = pa.schema(
    [
        ("unit", pa.int32()),
        ("target_mean", pa.float32()),
        ("others_mean", pa.float32()),
        ("selectivity", pa.float32()),
        ("magnitude", pa.float32()),
        ("cell", pa.string()),
    ]
)


@logged
def list_others(output: str, *, others: Mapping[str, Sequence[str]]) -> None:
    """Write `others/{network}.parquet` from the others of each target."""
    pairs = [(target, other) for target in sorted(others) for other in others[target]]
    parquet.write(output, {"class_id": [t for t, _ in pairs], "other_class_id": [o for _, o in pairs]}, OTHERS)


@logged
def assign(output: str, *, target: str, others: Sequence[str], bins: Sequence[int]) -> None:
    """Write the cell of each unit from the means of the target and of the others; all have equally many images."""
    target_mean, *means = map(activations.mean, (target, *others))
    for path, mean in zip(others, means, strict=True):
        if len(mean) != len(target_mean):
            raise StudyError(f"{path}: {len(mean)} units, {target} has {len(target_mean)}; {parquet.again(path)}")
    others_mean = sum(means) / len(means)
    selectivity, magnitude = cells.coordinates(target_mean, others_mean)
    try:
        s, m = cells.grid(selectivity, magnitude, tuple(bins))
    except StudyError as error:
        raise StudyError(f"grid: layer {Path(output).parent.name}: {error}") from error
    names = np.array(cells.names(tuple(bins)))
    columns = {
        "unit": np.arange(len(s), dtype=np.int32),
        "target_mean": target_mean.astype(np.float32),
        "others_mean": others_mean.astype(np.float32),
        "selectivity": selectivity,
        "magnitude": magnitude,
        "cell": names[s.astype(int) * bins[1] + m],
    }
    parquet.write(output, columns, SCHEMA)


def units(path_to_cells: str, cell: str) -> tuple[np.ndarray, int]:
    """Flat indices of the units of a cell, ascending, and how many units the layer has."""

    def make() -> tuple[dict[str, np.ndarray], int]:
        table = parquet.read(path_to_cells, SCHEMA, columns=["unit", "cell"])
        if not np.array_equal(table["unit"], np.arange(len(table))):
            raise StudyError(f"{path_to_cells}: the units are not in order; {parquet.again(path_to_cells)}")
        labels = table["cell"].to_numpy(zero_copy_only=False)
        by_cell = {name: np.flatnonzero(labels == name) for name in np.unique(labels)}
        last = re.fullmatch(r"s(\d)m(\d)", max(by_cell))
        if last is None or set(by_cell) != set(cells.names((int(last[1]) + 1, int(last[2]) + 1))):
            raise StudyError(f"{path_to_cells}: the cells are no grid; {parquet.again(path_to_cells)}")
        return by_cell, len(table)

    by_cell, count = cache.shared(("cells", cache.stamp(path_to_cells)), make)
    if cell not in by_cell:
        raise StudyError(f"{path_to_cells}: no unit is in {cell}; {parquet.again(path_to_cells)}")
    return by_cell[cell], count
