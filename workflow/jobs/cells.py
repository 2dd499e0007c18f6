"""Step `cells`: which classes a target is contrasted with, and the grid of a layer's units."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from jobs import activations
from readout import StudyError, cells
from runtime import parquet

OTHERS = pa.schema([("class_id", pa.string()), ("other_class_id", pa.string())])
SCHEMA = pa.schema(
    [
        ("unit", pa.int32()),
        ("target_mean", pa.float32()),
        ("others_mean", pa.float32()),
        ("selectivity", pa.float32()),
        ("magnitude", pa.float32()),
        ("cell", pa.string()),
        ("selectivity_bin", pa.int8()),
        ("magnitude_bin", pa.int8()),
    ]
)


def list_others(path_to_others: str, *, others: Mapping[str, Sequence[str]], made: str | None = None) -> None:
    """Write `others/{network}.parquet` from the others of each target."""
    pairs = [(target, other) for target in sorted(others) for other in others[target]]
    columns = {"class_id": [t for t, _ in pairs], "other_class_id": [o for _, o in pairs]}
    parquet.write(path_to_others, columns, OTHERS, made)


def assign(
    path_to_cells: str,
    *,
    path_to_target: str,
    paths_to_others: Sequence[str],
    layer: str,
    bins: Sequence[int],
    made: str | None = None,
) -> None:
    """Write the cell of each unit from the means of the target and of the others; all have equally many images."""
    target_mean, *means = map(activations.mean, (path_to_target, *paths_to_others))
    for path, mean in zip(paths_to_others, means, strict=True):
        if len(mean) != len(target_mean):
            raise StudyError(
                f"{path}: {len(mean)} units, {path_to_target} has {len(target_mean)}; {parquet.again(path)}"
            )
    others_mean = sum(means) / len(means)
    selectivity, magnitude = cells.coordinates(target_mean, others_mean)
    try:
        s, m = cells.grid(selectivity, magnitude, tuple(bins))
    except StudyError as error:
        raise StudyError(f"grid: layer {layer}: {error}") from error
    names = np.array(cells.names(tuple(bins)))
    columns = {
        "unit": np.arange(len(s), dtype=np.int32),
        "target_mean": target_mean.astype(np.float32),
        "others_mean": others_mean.astype(np.float32),
        "selectivity": selectivity,
        "magnitude": magnitude,
        "cell": names[s.astype(int) * bins[1] + m],
        "selectivity_bin": s,
        "magnitude_bin": m,
    }
    parquet.write(path_to_cells, columns, SCHEMA, made)
