"""Step `tables`: the rows of all cells gathered, a layer at a time and then for the study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import ablations, cells, networks, parquet, probes, provenance
from jobs.logs import logged
from readout import StudyError
from readout.tables import effect

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


def _mean_by_cell(table: pa.Table) -> dict[str, dict]:
    """Of each cell: its units, those that no image drives, and the means of its coordinates."""
    dead = pc.and_(pc.equal(table["target_mean"], 0), pc.equal(table["others_mean"], 0))
    grouped = table.append_column("dead", dead.cast(pa.int32())).group_by("cell")
    result = grouped.aggregate([("unit", "count"), ("dead", "sum"), ("selectivity", "mean"), ("magnitude", "mean")])
    return {row["cell"]: row for row in result.to_pylist()}


def _check_origin(path: str, origin: Mapping[str, str]) -> None:
    """Refuse a file of another study or of other settings: one brought from elsewhere, unknown to Snakemake."""
    made = provenance.of(parquet.schema(path).metadata)
    found = {key: made.get(key, "unknown") for key in origin}
    if found != origin:
        theirs, ours = (", ".join(f"{key} {value}" for key, value in some.items()) for some in (found, origin))
        raise StudyError(
            f"{path}: is of {theirs}, but the layer is of {ours}, and these do not mix; {parquet.again(path)}"
        )


def _row(probe: str, ablation: str, grid: dict[str, dict], depth: int) -> dict:
    row = parquet.read(probe, probes.SCHEMA).to_pylist()[0]
    effects = parquet.read(ablation, ablations.SCHEMA)
    columns = {name: effects[name].to_numpy() for name in effects.column_names}
    if not np.isfinite(columns["log_p_ablated"]).all():
        raise StudyError(f"{ablation}: a log-probability is not finite; {parquet.again(ablation)}")
    deficit, change = effect(columns["rank_baseline"], columns["rank_ablated"])
    place = grid[row["cell"]]
    s, m = row["cell"][1:].split("m")
    return row | {
        "depth": depth,
        "selectivity_bin": int(s),
        "magnitude_bin": int(m),
        "units_dead": place["dead_sum"],
        "selectivity_mean": place["selectivity_mean"],
        "magnitude_mean": place["magnitude_mean"],
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
    for step, origin in origins.items():
        for path in getattr(paths, step):
            _check_origin(path, origin)
    depth = networks.layer_nodes(paths.layers)[layer]["depth"]
    by_target = {Path(path).stem: _mean_by_cell(parquet.read(path, cells.SCHEMA)) for path in paths.cells}
    rows = [
        _row(probe, ablation, by_target[Path(probe).parent.name], depth)
        for probe, ablation in zip(paths.probes, paths.ablations, strict=True)
    ]
    parquet.write(output, rows, LAYER)
    return f"{len(rows)} cells"


@logged
def gather_study(output: str, *, layers: Sequence[str]) -> str:
    """Write `tables/cells.parquet`: a row a cell of the whole study."""
    names = CELLS.names
    table = pa.concat_tables([parquet.read(path, LAYER, columns=names) for path in layers])
    keys = [("network", "ascending"), ("depth", "ascending"), ("class_id", "ascending"), ("cell", "ascending")]
    ordered = table.select(names).sort_by(keys)
    parquet.write(output, {name: ordered[name] for name in names}, CELLS)
    return f"{len(ordered)} cells"
