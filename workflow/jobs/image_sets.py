"""Tables of the units that the occlusion task looks at, of their image sets and of what is shown of them, as read."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from readout import StudyError
from readout.conditions import MIXED, SYNTHETIC
from runtime import parquet

UNITS = pa.schema(
    [
        ("cell", pa.string()),
        ("draw", pa.int32()),
        ("unit", pa.int32()),
        ("channel", pa.int32()),
        ("weight", pa.float64()),
        ("least", pa.float64()),
        ("most", pa.float64()),
        ("driving", pa.int32()),
        ("sparsity", pa.float64()),
        ("contrast", pa.float64()),
        ("status", pa.string()),
    ]
)
"""A row per unit; `weight` is how many of the cell or layer it stands for.

`least` and `most` are its activations over the pool, of which so many images are `driving` it, above zero.
"""
SETS = pa.schema(
    [
        ("unit", pa.int32()),
        ("set", pa.int32()),
        ("side", pa.string()),
        ("role", pa.string()),
        ("bin", pa.int32()),
        ("rank", pa.int32()),
        ("image_id", pa.int32()),
        ("image_class", pa.string()),
        ("source", pa.string()),
        ("activation", pa.float64()),
    ]
)
"""A row per image of an image set; side `top` is of the strongest images, `bottom` of the weakest.

In the order of the units, then of sides, sets and bins, of which the last has the base image.
"""
WINDOWS = pa.schema(
    [
        ("unit", pa.int32()),
        ("set", pa.int32()),
        ("bin", pa.int32()),
        ("size", pa.int32()),
        ("top", pa.int32()),
        ("left", pa.int32()),
        ("activation", pa.float64()),
    ]
)
"""A row per reference of the top side: the square tried that drives the unit most when all else of it is blurred."""
EXTREMES = pa.schema(
    [
        ("unit", pa.int32()),
        ("set", pa.int32()),
        ("image_id", pa.int32()),
        ("size", pa.int32()),
        ("stride", pa.int32()),
        ("positions", pa.int32()),
        ("base", pa.float64()),
        ("min", pa.float64()),
        ("max", pa.float64()),
        ("min_top", pa.int32()),
        ("min_left", pa.int32()),
        ("max_top", pa.int32()),
        ("max_left", pa.int32()),
        ("min_ties", pa.int32()),
        ("max_ties", pa.int32()),
        ("relative_difference", pa.float64()),
        ("overlap", pa.float64()),
        ("beneficial", pa.bool_()),
        ("valid", pa.bool_()),
        ("reason", pa.string()),
    ]
)
"""A row per unit and image set: the two queries of an exhaustive scan."""
OK, CONSTANT, SPARSE = "ok", "constant over the pool", "fewer images drive it than are shown"
SIDES = {"top": 1, "bottom": -1}
CELL = re.compile(r"s\d+m\d+")
POSITIONS = ("min_top", "min_left", "max_top", "max_left", "top", "left")
"""Columns that say where a square lies."""


def refuse(path: str, what: str) -> NoReturn:
    raise StudyError(f"{path}: {what}; {parquet.again(path)}")


def numbers(path: str, table: pa.Table) -> None:
    """StudyError where a whole number of a table is negative, or another is not finite; what is missing is neither."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        whole, real = pa.types.is_integer(column.type), pa.types.is_floating(column.type)
        fine = pc.greater_equal(column, 0) if whole else pc.is_finite(column) if real else None
        if fine is not None and not pc.all(fine, min_count=0).as_py():
            refuse(path, f"{name} is {'negative' if whole else 'not finite'}")


def units(path: str, columns: Sequence[str] = tuple(UNITS.names)) -> list[dict]:
    """Rows of drawn units, with some columns; StudyError where a unit is there twice or has no cell or status."""
    table = parquet.read(path, UNITS, columns=list(columns))
    numbers(path, table)
    rows = table.to_pylist()
    if len({row["unit"] for row in rows}) < len(rows):
        refuse(path, "a unit is there twice")
    for row in rows:
        if row["status"] not in (OK, CONSTANT, SPARSE) or not CELL.fullmatch(row.get("cell", "s0m0")):
            refuse(path, f"unit {row['unit']} has no cell or no status that there is")
    return rows


def listed(path_to_units: str, path_to_sets: str) -> tuple[list[dict], list[dict]]:
    """Rows of drawn units and of their image sets; StudyError where they are not whole and of each other."""
    of_units, table = units(path_to_units), parquet.read(path_to_sets, SETS)
    numbers(path_to_sets, table)
    rows = table.to_pylist()
    last, sets = max(row["bin"] for row in rows), max(row["set"] for row in rows) + 1
    bins = [(b, "base" if b == last else "reference") for b in range(last + 1)]
    names = [row["unit"] for row in of_units]
    expected = [(unit, side, n, *each) for unit in names for side in SIDES for n in range(sets) for each in bins]
    if [tuple(row[name] for name in ("unit", "side", "set", "bin", "role")) for row in rows] != expected:
        refuse(path_to_sets, f"has not every image of the image sets of the units in {path_to_units} once, in order")
    return of_units, rows


def shown(of_units: Iterable[Mapping], of_sets: Iterable[Mapping], role: str) -> list[dict]:
    """Rows of the image sets of one role, on the top side, of units that something can be asked of."""
    usable = {row["unit"] for row in of_units if row["status"] == OK}
    return [dict(row) for row in of_sets if row["side"] == "top" and row["role"] == role and row["unit"] in usable]


def _of(path: str, schema: pa.Schema, keys: Sequence[str], of: Sequence[Mapping], width: int) -> list[dict]:
    table = parquet.read(path, schema, optional=("relative_difference",), empty=True)
    numbers(path, table)
    rows = table.to_pylist()
    if [[row[key] for key in keys] for row in rows] != [[row[key] for key in keys] for row in of]:
        refuse(path, "has not every image set or reference of the units that can be shown once, in order")
    if any(row["size"] + row[name] > width for row in rows for name in POSITIONS if name in row):
        refuse(path, f"a square does not lie in a picture of {width} pixels")
    return rows


def extremes(path: str, bases: Sequence[Mapping], width: int) -> list[dict]:
    """Rows of the queries on these base images, of so many pixels a side; StudyError where they are of others."""
    rows = _of(path, EXTREMES, ("unit", "set", "image_id"), bases, width)
    for row in rows:
        difference = row["relative_difference"]
        if row["valid"] != (row["reason"] == "") or (row["valid"] and not (difference or 0) > 0):
            refuse(path, f"unit {row['unit']}, set {row['set']} has an answer and a reason why not, or neither")
    return rows


def windows(path: str, references: Sequence[Mapping], width: int) -> list[dict]:
    """Rows of the sharp squares of these references, of so many pixels a side; StudyError where they are of others."""
    return _of(path, WINDOWS, ("unit", "set", "bin"), references, width)


def visualised(
    path: str, rows: Sequence[Mapping], of_cell: Mapping[int, str], path_to_units: str, statuses: Collection[str]
) -> None:
    """StudyError where a cell's table of visualisations has not those of each of its units once, in order.

    `of_cell` has the statuses of the cell's units by number, from `path_to_units`; `statuses` are those that a picture
    may have.
    """
    found: dict[int, dict[str, list[int]]] = {}
    for row in rows:
        found.setdefault(row["unit"], {}).setdefault(row["batch"], []).append(row["index"])
    counts = {len(batches.get(SYNTHETIC[0], ())) for unit, batches in found.items() if of_cell.get(unit) == OK}
    expected: dict[int, dict[str, list[int]]] = {}
    for unit, status in sorted(of_cell.items()):
        batches = {SYNTHETIC[0]: max(counts, default=0), SYNTHETIC[1]: MIXED} if status == OK else {SYNTHETIC[0]: 1}
        expected[unit] = {name: list(range(count)) for name, count in batches.items()}
    if found != expected or 0 in counts:
        refuse(path, f"has not every visualisation of the cell's units in {path_to_units} once, in order")
    if any(row["status"] not in (statuses if of_cell[row["unit"]] == OK else [of_cell[row["unit"]]]) for row in rows):
        refuse(path, "a picture has no status that there is")
