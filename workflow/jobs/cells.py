"""Step `cells`: which classes a target is contrasted with, and the grid of a layer's units."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs import activations, memory, parquet
from jobs.logs import logged
from readout import StudyError, cells

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
    target_mean = activations.mean(target)
    others_mean = sum(map(activations.mean, others)) / len(others)
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


def units(path_to_cells: str, cell: str) -> np.ndarray:
    """Flat indices of the units of a cell, ascending."""

    def make() -> dict[str, np.ndarray]:
        table = parquet.read(path_to_cells, SCHEMA, columns=["cell"])
        labels = table["cell"].to_numpy(zero_copy_only=False)
        return {name: np.flatnonzero(labels == name) for name in np.unique(labels)}

    return memory.shared(("cells", memory.stamp(path_to_cells)), make)[cell]
