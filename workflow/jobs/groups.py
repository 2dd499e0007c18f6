"""Groups of a grid, from its file: the one way from a name to units, between `cells` and everything behind it."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import cells
from readout import StudyError, groups
from readout import cells as grid
from readout.groups import Group, Kind
from runtime import cache, parquet


def _cells(path_to_cells: str, fold: int | None) -> dict[str, np.ndarray]:
    """Units of each cell of a grid, by name."""
    # The published grid is of all images; one of a fold has a column of its own.
    column = "cell" if fold is None else f"cell_fold{fold}"
    bins = ("selectivity_bin", "magnitude_bin")
    schema = pa.schema([*map(cells.SCHEMA.field, ("unit", *bins)), pa.field(column, pa.string())])
    table = parquet.read(path_to_cells, schema)
    if not np.array_equal(table["unit"], np.arange(len(table))):
        raise StudyError(f"{path_to_cells}: the units are not in order; {parquet.again(path_to_cells)}")
    s, m = (table[name].to_numpy().astype(int) for name in bins)
    names = grid.names((s.max() + 1, m.max() + 1))
    label = pc.index_in(table[column].combine_chunks(), pa.array(names)).to_numpy(zero_copy_only=False)
    published = label == s * (m.max() + 1) + m
    if min(s.min(), m.min()) < 0 or set(label) != set(range(len(names))) or not (fold is not None or published.all()):
        raise StudyError(f"{path_to_cells}: the cells are no grid; {parquet.again(path_to_cells)}")
    by_cell = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label.astype(int)))[:-1])
    return dict(zip(names, by_cell, strict=True))


def find(
    path_to_cells: str,
    group: str,
    kind: Kind,
    *,
    network: str,
    layer: str,
    class_id: str,
    seed: int | None,
    fold: int | None = None,
) -> Group:
    """The units of a group of (network, layer, target), by the grid of all images or of those outside a fold.

    Random groups have the size of a cell, rounded down. They depend on the coordinates and the `seed` alone, on no
    image, so that they are the same in every fold. Raises StudyError where the grid has no such group.
    """
    by_cell, count = units(path_to_cells, fold), layer_units(path_to_cells)
    if kind == "random":
        entropy = "\0".join([str(seed), network, layer, class_id])
        return groups.random(group, count, count // len(by_cell), entropy)
    if group not in by_cell:
        raise StudyError(
            f"{path_to_cells}: no unit is in {group}; there are {', '.join(by_cell)}, and as many random groups as "
            f"controls.random says; or {parquet.again(path_to_cells)}"
        )
    return Group(group, "cell", by_cell[group], count)


def units(path_to_cells: str, fold: int | None = None) -> Mapping[str, np.ndarray]:
    """The units of each cell of a grid, s0m0 first, by all images or by those outside a fold."""
    return cache.shared(("cells", cache.stamp(path_to_cells), fold), lambda: _cells(path_to_cells, fold))


def bins(path_to_cells: str) -> dict[str, dict[str, int]]:
    """The bins of each cell of a grid, by the names of their columns."""
    schema = pa.schema([cells.SCHEMA.field(name) for name in ("cell", "selectivity_bin", "magnitude_bin")])
    rows = parquet.read(path_to_cells, schema).group_by(schema.names).aggregate([]).to_pylist()
    return {row.pop("cell"): row for row in rows}


def layer_units(path_to_cells: str) -> int:
    """How many units the layer of a grid has."""
    return sum(map(len, units(path_to_cells).values()))


def means(path_to_cells: str, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of each unit over the target's and over the others' images outside a fold, float32 [units] each."""

    def read() -> tuple[np.ndarray, np.ndarray]:
        schema = pa.schema([pa.field(f"{side}_mean_fold{fold}", pa.float32()) for side in ("target", "others")])
        table = parquet.read(path_to_cells, schema)
        found = tuple(table[name].to_numpy() for name in schema.names)
        if not all(np.isfinite(values).all() for values in found):
            raise StudyError(f"{path_to_cells}: a mean is not finite; {parquet.again(path_to_cells)}")
        return found

    return cache.shared(("fold means", cache.stamp(path_to_cells), fold), read)
