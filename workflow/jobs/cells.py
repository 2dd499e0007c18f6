"""Step `cells`: which classes a target is contrasted with, and the grid of a layer's units."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from jobs import activations
from readout import StudyError, cells
from readout.folds import FOLDS
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
FOLD = {"cell": pa.string(), "target_mean": pa.float32(), "others_mean": pa.float32()}
"""What a cross-fitted grid has for each fold, of the images outside it."""
FOLDS_SCHEMA = pa.schema([*SCHEMA, *((f"{name}_fold{f}", kind) for f in range(FOLDS) for name, kind in FOLD.items())])


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
    folds: bool,
    made: str | None = None,
) -> None:
    """Write the cell of each unit from the means of the target and of the others; all have equally many images.

    With `folds`, also by the grid of the images outside each fold, and the means that made it.
    """
    names = np.array(cells.names(tuple(bins)))

    def grid(fold: int | None) -> dict[str, np.ndarray]:
        """The columns of `SCHEMA` for all images, or for those outside a fold."""
        target_mean, *means = (activations.mean(path, fold) for path in (path_to_target, *paths_to_others))
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
        return {
            "unit": np.arange(len(s), dtype=np.int32),
            "target_mean": target_mean.astype(np.float32),
            "others_mean": others_mean.astype(np.float32),
            "selectivity": selectivity,
            "magnitude": magnitude,
            "cell": names[s.astype(int) * bins[1] + m],
            "selectivity_bin": s,
            "magnitude_bin": m,
        }

    columns = grid(None)
    for fold in range(FOLDS) if folds else ():
        columns |= {f"{name}_fold{fold}": column for name, column in grid(fold).items() if name in FOLD}
    parquet.write(path_to_cells, columns, FOLDS_SCHEMA if folds else SCHEMA, made)
