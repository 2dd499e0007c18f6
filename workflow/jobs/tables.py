"""Step `tables`: the rows of all cells and other groups gathered, a layer at a time and then for the study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import ablations, activations, cells, controls, images, networks, probes
from readout import StudyError, folds, outcomes
from readout.tables import against
from runtime import cache, parquet, provenance

EFFECTS = ("rank_deficit", "rank_change", "log_p_change")
"""What the published ablation does to the target's images, as means over them."""
AGAINST_RANDOM = tuple(f"{name}_{how}_random" for name in EFFECTS for how in ("less", "z"))
"""Each effect of a cell less the mean of the random groups', and in units of their deviation; may be missing."""
INTERVENTIONS = ("zero", "mean", "erase")
OUTCOMES = tuple(f"{name}_{i}" for i in INTERVENTIONS for name in (*outcomes.NAMES, *outcomes.ENERGIES))
"""What each intervention of the cross-fitted protocol does, on both sides."""
CROSSFIT = (
    *OUTCOMES,
    "erased_share",
    *(f"separation_loss_{i}_less_random" for i in ("zero", "mean")),
    "stability",
    "auroc_sample",
)
"""Columns of the cross-fitted protocol; missing where it, an intervention or the probes are switched off."""
HALVES = tuple(
    f"{name}_{half}"
    for name in ("rank_deficit", "auroc", *(f"{name}_{i}" for i in ("zero", "mean") for name in outcomes.OF_HALVES))
    for half in folds.HALVES
)
"""What the claims take of either half of the images."""
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
        *((name, pa.float64()) for name in EFFECTS),
        *probes.MEASURES,
        *((name, pa.float64()) for name in (*AGAINST_RANDOM, *CROSSFIT)),
    ]
)
OPTIONAL = (*EFFECTS, *AGAINST_RANDOM, *CROSSFIT, *HALVES, *probes.OPTIONAL)
LAYER = pa.schema([*CELLS, *((name, pa.float64()) for name in HALVES), ("held_out", probes.HELD_OUT)])
"""The cells of a layer, with what the claims need beside; `held_out` is of the cross-fitted probes."""
GROUP_OUTCOMES = (*outcomes.NAMES, *outcomes.ENERGIES, "erased_share", "auroc")
GROUPS = pa.schema(
    [*controls.GROUP.insert(2, pa.field("depth", pa.int32())), *((name, pa.float64()) for name in GROUP_OUTCOMES)]
)


@dataclass(frozen=True)
class Reference:
    """The images of a target and its others before any ablation, by `image_id`, ascending."""

    image_id: np.ndarray
    images: outcomes.Images

    @classmethod
    def of(
        cls, path_to_images: str, paths_to_baselines: Mapping[str, str], target: str, others: Sequence[str]
    ) -> "Reference":
        parts, labels = [], []
        for side, class_id in enumerate((target, *others)):
            rows = images.rows(path_to_images, class_id=class_id)
            path = paths_to_baselines[class_id]
            table = cache.shared(("baseline", cache.stamp(path)), partial(parquet.read, path, activations.BASELINE))
            if not np.array_equal(table["image_id"], rows["image_id"]):
                raise StudyError(f"{path}: is not of the images of {path_to_images}; {parquet.again(path)}")
            z = table["z"].combine_chunks()
            if len(set(z.value_lengths().to_pylist())) != 1 or not 0 <= rows["label"][0] < len(z[0]):
                raise StudyError(f"{path}: z is not of the network's outputs; {parquet.again(path)}")
            labels.append(rows["label"][0])
            parts.append(
                (
                    rows["image_id"],
                    np.full(len(z), side),
                    z.values.to_numpy().reshape(len(z), -1),
                    table["rank"].to_numpy(),
                    table["log_p"].to_numpy(),
                )
            )
        image_id, side, z, rank, log_p = map(np.concatenate, zip(*parts, strict=True))
        order = np.argsort(image_id)
        before = outcomes.Images(side[order], z[order][:, labels].astype(np.float64), rank[order], log_p[order])
        return cls(image_id[order], before)

    def before(self, image_id: np.ndarray) -> outcomes.Images | None:
        """These images before the ablation; None where one is not there."""
        places = np.searchsorted(self.image_id, image_id)
        if places.max(initial=0) >= len(self.image_id) or not np.array_equal(self.image_id[places], image_id):
            return None
        return self.images.part(places)


def _finite(table: pa.Table) -> bool:
    """Whether all numbers in the columns of a table are finite."""
    numbers = (column for column in table.columns if pa.types.is_floating(column.type))
    # Values that are missing, where they may be, are no fault.
    return all(pc.all(pc.is_finite(column)).as_py() is not False for column in numbers)


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
    """Of each cell of a grid: its bins, its units, those that no image drives, and the means of its coordinates."""
    table = _read(path, cells.SCHEMA, origin)
    if not _finite(table):
        raise StudyError(f"{path}: a number is not finite; {parquet.again(path)}")
    dead = pc.and_(pc.equal(table["target_mean"], 0), pc.equal(table["others_mean"], 0))
    keys = ["cell", "selectivity_bin", "magnitude_bin"]
    grouped = table.append_column("dead", dead.cast(pa.int32())).group_by(keys)
    result = grouped.aggregate([("unit", "count"), ("dead", "sum"), ("selectivity", "mean"), ("magnitude", "mean")])
    return {row["cell"]: row for row in result.to_pylist()}


def _effects(effects: pa.Table, path: str) -> dict[str, float]:
    """The `EFFECTS` of one group, from the columns of `ablations.SCHEMA`."""
    columns = {name: effects[name].to_numpy() for name in ablations.SCHEMA.names}
    if not _finite(effects):
        raise StudyError(f"{path}: a log-probability is not finite; {parquet.again(path)}")
    if min(columns["rank_baseline"].min(), columns["rank_ablated"].min()) < 0:
        raise StudyError(f"{path}: a rank is negative; {parquet.again(path)}")
    deficit, change = effect(columns["rank_baseline"], columns["rank_ablated"])
    log_p_change = float((columns["log_p_ablated"] - columns["log_p_baseline"]).mean())
    return dict(zip(EFFECTS, (deficit, change, log_p_change), strict=True))


def _groups(path: str, origin: Mapping[str, str], coordinates: Mapping[str, str]) -> list[dict]:
    """The rows of `GROUPS` of one grid, but for the depth, and `image_ids`, the images of each."""
    table = _read(path, controls.SCHEMA, origin)
    heads = table.group_by(controls.GROUP.names, use_threads=False).aggregate([]).to_pylist()
    if any(coordinates.items() - head.items() for head in heads):
        raise StudyError(f"{path}: is not of {', '.join(coordinates.values())}; {parquet.again(path)}")
    if len({(head["group"], head["intervention"], head["protocol"]) for head in heads}) < len(heads):
        raise StudyError(f"{path}: a group is there twice; {parquet.again(path)}")
    rows = []
    for head in heads:
        chosen = [pc.equal(table[key], head[key]) for key in ("group", "intervention", "protocol")]
        part = table.filter(pc.and_(pc.and_(*chosen[:2]), chosen[2]))
        image_ids = part["image_id"].to_pylist()
        if len(set(image_ids)) < len(image_ids):
            raise StudyError(f"{path}: a group is there twice; {parquet.again(path)}")
        rows.append(head | _effects(part, path) | {"image_ids": image_ids})
    return rows


def _row(
    probe: str,
    ablation: str,
    path_to_cells: str,
    grid: dict[str, dict],
    random: Sequence[Mapping],
    coordinates: Mapping[str, str],
    origins: Mapping[str, Mapping[str, str]],
) -> dict:
    """The row of the cell at `coordinates` (network, layer, class_id, cell), whose grid is in the file `path_to_cells`.

    `random` are the random groups of its grid, which its effects are compared with.
    """
    table = _read(probe, probes.SCHEMA, origins["probes"])
    row, *more = table.to_pylist()
    cell = grid.get(coordinates["cell"], {"unit_count": None})
    if more or row | coordinates != row or row["units"] != cell["unit_count"]:
        raise StudyError(f"{probe}: is not of this cell and its units in {path_to_cells}; {parquet.again(probe)}")
    held_out = {image["image_id"]: image["y"] for image in row["held_out"]}
    if (
        len(held_out) < len(row["held_out"])
        or not set(held_out.values()) <= {0, 1}
        or not all(0 <= image["p"] <= 1 for image in row["held_out"])
        or not _finite(table)
    ):
        raise StudyError(f"{probe}: an image or a number is not as a probe has it; {parquet.again(probe)}")
    effects = _read(ablation, ablations.SCHEMA, origins["ablations"])
    means = _effects(effects, ablation)
    if effects["image_id"].to_pylist() != [image_id for image_id, y in held_out.items() if y]:
        raise StudyError(f"{ablation}: is not of the target's images in {probe}; {parquet.again(ablation)}")
    compared = dict.fromkeys(AGAINST_RANDOM)
    if random:
        pairs = [against(means[name], np.array([group[name] for group in random])) for name in EFFECTS]
        compared = dict(zip(AGAINST_RANDOM, [value for pair in pairs for value in pair], strict=True))
    return (
        row
        | means
        | compared
        | {
            "selectivity_bin": cell["selectivity_bin"],
            "magnitude_bin": cell["magnitude_bin"],
            "units_dead": cell["dead_sum"],
            "selectivity_mean": cell["selectivity_mean"],
            "magnitude_mean": cell["magnitude_mean"],
            "images": effects.to_pylist(),
        }
    )


def gather_layer(
    path_to_table: str,
    *,
    path_to_layers: str,
    paths_to_cells: Mapping[str, str],
    paths_to_probes: Mapping[str, Mapping[str, str]],
    paths_to_ablations: Mapping[str, Mapping[str, str]],
    paths_to_controls: Mapping[str, str],
    network: str,
    layer: str,
    origins: Mapping[str, Mapping[str, str]],
    made: str | None = None,
) -> str:
    """Write `tables/{network}/{layer}.parquet`: a row per target and cell, with what each image did.

    Files are given by target, those of probes and of ablations by target and cell; without controls (no file) the
    columns that need them are missing. `origins` says for each step what its files must carry: the study and the
    digest of the step's settings. Raises StudyError for the first file that does not.
    """
    depth = networks.layer_nodes(path_to_layers, [layer])[layer]["depth"]
    rows = []
    for target, path_to_cells in paths_to_cells.items():
        grid = _mean_by_cell(path_to_cells, origins["cells"])
        at = {"network": network, "layer": layer, "class_id": target}
        random = []
        if target in paths_to_controls:
            random = _groups(paths_to_controls[target], origins["controls"], at)
        for cell, probe in paths_to_probes[target].items():
            ablation = paths_to_ablations[target][cell]
            row = _row(probe, ablation, path_to_cells, grid, random, at | {"cell": cell}, origins)
            for group in random:
                if group["image_ids"] != [image["image_id"] for image in row["images"]]:
                    path = paths_to_controls[target]
                    raise StudyError(f"{path}: is not of the images of {ablation}; {parquet.again(path)}")
            rows.append(row | {"depth": depth})
    parquet.write(path_to_table, rows, LAYER, made)
    return f"{len(rows)} cells"


def gather_study(path_to_table: str, *, paths_to_layers: Sequence[str], made: str | None = None) -> str:
    """Write `tables/cells.parquet`: a row per cell of the whole study, from the tables of its layers."""
    names = CELLS.names
    parts = [parquet.read(path, LAYER, columns=names, optional=AGAINST_RANDOM) for path in paths_to_layers]
    seen = set()
    for path, part in zip(paths_to_layers, parts, strict=True):
        layers = set(zip(part["network"].to_pylist(), part["layer"].to_pylist(), strict=True))
        grids = set(zip(part["class_id"].to_pylist(), part["cell"].to_pylist(), strict=True))
        bins = zip(part["selectivity_bin"].to_pylist(), part["magnitude_bin"].to_pylist(), strict=True)
        named = part["cell"].to_pylist() == [f"s{s}m{m}" for s, m in bins]
        whole = len(set(part["class_id"].to_pylist())) * len(set(part["cell"].to_pylist()))
        if len(layers) != 1 or layers & seen or not named or not len(grids) == len(part) == whole or not _finite(part):
            raise StudyError(f"{path}: is not the table of one layer and all its cells; {parquet.again(path)}")
        seen |= layers
    table = pa.concat_tables(parts)
    keys = [("network", "ascending"), ("depth", "ascending"), ("class_id", "ascending"), ("cell", "ascending")]
    ordered = table.select(names).sort_by(keys)
    parquet.write(path_to_table, {name: ordered[name] for name in names}, CELLS, made)
    return f"{len(ordered)} cells"


def gather_groups(
    path_to_table: str,
    *,
    paths_to_controls: Mapping[tuple[str, str, str], str],
    paths_to_layers: Mapping[str, str],
    origins: Mapping[str, Mapping[str, str]],
    made: str | None = None,
) -> str:
    """Write `tables/groups.parquet`: a row per group that is no cell, protocol and intervention.

    `paths_to_controls` are by network, layer and target; `paths_to_layers` (the tables of all layers) and `origins`,
    what the controls must carry, by network.
    """
    rows = []
    for (network, layer, target), path in paths_to_controls.items():
        depth = networks.layer_nodes(paths_to_layers[network], [layer])[layer]["depth"]
        at = {"network": network, "layer": layer, "class_id": target}
        rows += [{"depth": depth} | group for group in _groups(path, origins[network], at)]
    rows.sort(key=lambda row: [row[key] for key in ("network", "depth", "class_id", "group", "intervention")])
    parquet.write(path_to_table, [{name: row[name] for name in GROUPS.names} for row in rows], GROUPS, made)
    return f"{len(rows)} groups"
