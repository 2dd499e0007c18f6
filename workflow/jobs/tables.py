"""Step `tables`: the rows of all cells gathered, a layer at a time and then for the study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc

from jobs import ablations, cells, networks, probes
from readout import StudyError
from readout.tables import effect
from runtime import parquet, provenance
from runtime.logs import logged

CELLS = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("depth", pa.int32()),
        ("class_id", pa.string()),
        ("cell", pa.string()),
        ("selectivity_bin", pa.int8()),
        ("magnitude_bin", pa.int8()),
        ("units", pa.int32()),
        ("units_dead", pa.int32()),
        ("selectivity_mean", pa.float64()),
        ("magnitude_mean", pa.float64()),
        ("rank_deficit", pa.float64()),
        ("rank_change", pa.float64()),
        ("log_p_change", pa.float64()),
        *probes.MEASURES,
    ]
)
LAYER = pa.schema([*CELLS, ("images", pa.list_(pa.struct(list(ablations.SCHEMA)))), ("held_out", probes.HELD_OUT)])
"""The cells of a layer with what each image did; `images` is of the ablations, `held_out` of the probes."""


def _finite(table: pa.Table) -> bool:
    """Whether all numbers in the columns of a table are finite."""
    numbers = (column for column in table.columns if pa.types.is_floating(column.type))
    return all(pc.all(pc.is_finite(column)).as_py() for column in numbers)


def _read(path: str, schema: pa.Schema, origin: Mapping[str, str]) -> pa.Table:
    """Read a table, and refuse that of another study or of other settings: one brought from elsewhere."""
    table = parquet.read(path, schema)
    made = provenance.of(table.schema.metadata)
    found = {key: made.get(key, "unknown") for key in origin}
    if found != origin:
        theirs, ours = (", ".join(f"{key} {value}" for key, value in some.items()) for some in (found, origin))
        raise StudyError(
            f"{path}: is of {theirs}, but the layer is of {ours}, and these do not mix; {parquet.again(path)}"
        )
    return table


def _mean_by_cell(path: str, origin: Mapping[str, str]) -> dict[str, dict]:
    """Of each cell of a grid: its units, those that no image drives, and the means of its coordinates."""
    table = _read(path, cells.SCHEMA, origin)
    if not _finite(table):
        raise StudyError(f"{path}: a number is not finite; {parquet.again(path)}")
    dead = pc.and_(pc.equal(table["target_mean"], 0), pc.equal(table["others_mean"], 0))
    grouped = table.append_column("dead", dead.cast(pa.int32())).group_by("cell")
    result = grouped.aggregate([("unit", "count"), ("dead", "sum"), ("selectivity", "mean"), ("magnitude", "mean")])
    return {row["cell"]: row for row in result.to_pylist()}


def _row(
    probe: str,
    ablation: str,
    path: str,
    grid: dict[str, dict],
    place: dict[str, str],
    origins: Mapping[str, Mapping[str, str]],
) -> dict:
    """The row of the cell at `place` (layer, class_id and cell), whose grid is in the file at `path`."""
    table = _read(probe, probes.SCHEMA, origins["probes"])
    row, *more = table.to_pylist()
    units = grid.get(place["cell"], {"unit_count": None})
    if more or row | place != row or row["units"] != units["unit_count"]:
        raise StudyError(f"{probe}: is not of this cell and its units in {path}; {parquet.again(probe)}")
    held_out = {image["image_id"]: image["y"] for image in row["held_out"]}
    if (
        len(held_out) < len(row["held_out"])
        or not set(held_out.values()) <= {0, 1}
        or not all(0 <= image["p"] <= 1 for image in row["held_out"])
        or not _finite(table)
    ):
        raise StudyError(f"{probe}: an image or a number is not as a probe has it; {parquet.again(probe)}")
    effects = _read(ablation, ablations.SCHEMA, origins["ablations"])
    columns = {name: effects[name].to_numpy() for name in effects.column_names}
    if not _finite(effects):
        raise StudyError(f"{ablation}: a log-probability is not finite; {parquet.again(ablation)}")
    if columns["image_id"].tolist() != [image_id for image_id, y in held_out.items() if y]:
        raise StudyError(f"{ablation}: is not of the target's images in {probe}; {parquet.again(ablation)}")
    if min(columns["rank_baseline"].min(), columns["rank_ablated"].min()) < 0:
        raise StudyError(f"{ablation}: a rank is negative; {parquet.again(ablation)}")
    deficit, change = effect(columns["rank_baseline"], columns["rank_ablated"])
    s, m = row["cell"][1:].split("m")
    return row | {
        "selectivity_bin": int(s),
        "magnitude_bin": int(m),
        "units_dead": units["dead_sum"],
        "selectivity_mean": units["selectivity_mean"],
        "magnitude_mean": units["magnitude_mean"],
        "rank_deficit": deficit,
        "rank_change": change,
        "log_p_change": float((columns["log_p_ablated"] - columns["log_p_baseline"]).mean()),
        "images": effects.to_pylist(),
    }


@logged
def gather_layer(output: str, paths: SimpleNamespace, layer: str, *, origins: Mapping[str, Mapping[str, str]]) -> str:
    """Write `tables/{network}/{layer}.parquet`: a row a (target, cell), with what each image did.

    `paths` has `layers`, `cells` (a file a target), `probes` and `ablations` (a file a target and cell, same order).
    `origins` says for each of these steps what its files must carry: the study and the digest of the step's settings.
    Raises StudyError for the first file that does not.
    """
    depth = networks.layer_nodes(paths.layers, [layer])[layer]["depth"]
    by_target = {Path(path).stem: (path, _mean_by_cell(path, origins["cells"])) for path in paths.cells}
    rows = [
        _row(
            probe,
            ablation,
            *by_target[Path(probe).parent.name],
            {"layer": layer, "class_id": Path(probe).parent.name, "cell": Path(probe).stem},
            origins,
        )
        | {"depth": depth}
        for probe, ablation in zip(paths.probes, paths.ablations, strict=True)
    ]
    for path, row in zip(paths.probes, rows, strict=True):
        if row["network"] != rows[0]["network"]:
            raise StudyError(f"{path}: is of another network than {paths.probes[0]}; {parquet.again(path)}")
    parquet.write(output, rows, LAYER)
    return f"{len(rows)} cells"


@logged
def gather_study(output: str, *, layers: Sequence[str]) -> str:
    """Write `tables/cells.parquet`: a row a cell of the whole study."""
    names, parts = CELLS.names, [parquet.read(path, LAYER, columns=CELLS.names) for path in layers]
    seen = set()
    for path, part in zip(layers, parts, strict=True):
        places = set(zip(part["network"].to_pylist(), part["layer"].to_pylist(), strict=True))
        grids = set(zip(part["class_id"].to_pylist(), part["cell"].to_pylist(), strict=True))
        bins = zip(part["selectivity_bin"].to_pylist(), part["magnitude_bin"].to_pylist(), strict=True)
        named = part["cell"].to_pylist() == [f"s{s}m{m}" for s, m in bins]
        whole = len(set(part["class_id"].to_pylist())) * len(set(part["cell"].to_pylist()))
        if len(places) != 1 or places & seen or not named or not len(grids) == len(part) == whole or not _finite(part):
            raise StudyError(f"{path}: is not the table of one layer and all its cells; {parquet.again(path)}")
        seen |= places
    table = pa.concat_tables(parts)
    keys = [("network", "ascending"), ("depth", "ascending"), ("class_id", "ascending"), ("cell", "ascending")]
    ordered = table.select(names).sort_by(keys)
    parquet.write(output, {name: ordered[name] for name in names}, CELLS)
    return f"{len(ordered)} cells"
