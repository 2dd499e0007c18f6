"""Step `tables`: the rows of all cells and other groups gathered, a layer at a time and then for the study."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby, product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import (
    ablations,
    activations,
    cells,
    controls,
    groups,
    images,
    importance,
    networks,
    probes,
    pseudo,
    redundancy,
    shapley,
)
from readout import StudyError, folds, outcomes
from readout.folds import FOLDS
from readout.probes import auroc
from runtime import parquet

EFFECTS = ("rank_deficit", "rank_change", "log_p_change")
"""What the published ablation does to the target's images, as means over them."""
AGAINST_RANDOM = tuple(f"{name}_{how}_random" for name in EFFECTS for how in ("less", "z"))
"""Each effect of a cell less the mean of the random groups', and in units of their deviation; may be missing."""
INTERVENTIONS = (
    "zero",
    "mean",
    "erase",
)
OUTCOMES = tuple(f"{name}_{i}" for i in INTERVENTIONS for name in (*outcomes.NAMES, *outcomes.ENERGIES))
"""What each intervention of the cross-fitted protocol does, on both sides."""
CROSSFIT = (
    *OUTCOMES,
    "erased_share",
    *(f"separation_loss_{i}_less_random" for i in ("zero", "mean")),
    "separation_loss_erase_less_directions",
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
OPTIONAL = (*EFFECTS, *AGAINST_RANDOM, *CROSSFIT, *HALVES, *probes.OPTIONAL, "images")
IMAGE = [
    ablations.SCHEMA.field(name)
    for name in ("image_id", "rank_baseline", "rank_ablated", "log_p_baseline", "log_p_ablated")
]
LAYER = pa.schema(
    [
        *CELLS,
        *((name, pa.float64()) for name in HALVES),
        ("images", pa.list_(pa.struct(IMAGE))),
        ("held_out", probes.HELD_OUT),
    ]
)
"""The cells of a layer with what the claims need beside.

`images` is of the published ablation, `held_out` of the cross-fitted probe.
"""
GROUP_OUTCOMES = (*outcomes.NAMES, *outcomes.ENERGIES, "erased_share", "auroc")
GROUPS = pa.schema(
    [
        *controls.GROUP.insert(2, pa.field("depth", pa.int32())),
        *importance.RANKED,
        *((name, pa.float64()) for name in GROUP_OUTCOMES),
    ]
)
GROUP_OPTIONAL = (*GROUP_OUTCOMES, *importance.RANKED.names)
"""Columns of the table of groups in which a row may have nothing."""
MEASURES = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("depth", pa.int32()),
        ("class_id", pa.string()),
        ("cell", pa.string()),
        ("selectivity_bin", pa.int8()),
        ("magnitude_bin", pa.int8()),
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)
REDUNDANCY = redundancy.SCHEMA.insert(2, pa.field("depth", pa.int32()))

SHAPLEY = shapley.SCHEMA.insert(2, pa.field("depth", pa.int32()))
ROUNDING = 1e-9
"""By how much the sum of a grid's Shapley values may miss the layer's loss."""


def _finite(table: pa.Table) -> bool:
    """Whether all numbers in the columns of a table are finite."""
    numbers = (column for column in table.columns if pa.types.is_floating(column.type))
    # Values that are missing, where they may be, are no fault.
    return all(pc.all(pc.is_finite(column)).as_py() is not False for column in numbers)


@dataclass(frozen=True)
class Reference:
    """The study images of a target and its others before any ablation, by `image_id`, ascending.

    fold: [images]; sampled: bool [images], those that a cross-fitted ablation looks at.
    """

    image_id: np.ndarray
    fold: np.ndarray
    sampled: np.ndarray
    images: outcomes.Images

    @classmethod
    def of(
        cls, path_to_images: str, paths_to_baselines: Mapping[str, str], target: str, others: Sequence[str]
    ) -> "Reference":
        parts, labels = [], []
        per_fold = folds.others_per_fold(len(others))
        for side, class_id in enumerate((target, *others)):
            rows = images.rows(path_to_images, class_id=class_id)
            z, rank, log_p = activations.baseline(paths_to_baselines[class_id], rows["image_id"])
            if z.shape[1] <= rows["label"][0]:
                path = paths_to_baselines[class_id]
                raise StudyError(f"{path}: z is not of the network's outputs; {parquet.again(path)}")
            labels.append(rows["label"][0])
            sampled = folds.sample(rows["class_id"], rows["fold"], per_fold) if side else np.ones(len(z), bool)
            parts.append((rows["image_id"], rows["fold"], sampled, np.full(len(z), side), z, rank, log_p))
        image_id, fold, sampled, side, z, rank, log_p = map(np.concatenate, zip(*parts, strict=True))
        order = np.argsort(image_id)
        before = outcomes.Images(side, z[:, labels].astype(np.float64), rank, log_p)
        return cls(image_id[order], fold[order], sampled[order], before.part(order))

    def places(self, image_id: np.ndarray, path: str) -> np.ndarray:
        """Where these images are; StudyError that names the file at `path` if one is not there, or is there twice."""
        found = np.searchsorted(self.image_id, image_id).clip(max=len(self.image_id) - 1)
        if not np.array_equal(self.image_id[found], image_id) or len(np.unique(found)) < len(found):
            raise StudyError(f"{path}: is not of the study's images of this target; {parquet.again(path)}")
        return found


@dataclass(frozen=True)
class Ablated:
    """One group's ablation: its images before and after it, and their rows of `ablations.SCHEMA`."""

    before: outcomes.Images
    after: outcomes.Images
    fold: np.ndarray
    rows: pa.Table

    @classmethod
    def of(cls, rows: pa.Table, reference: Reference, path: str, protocol: str, drawn: bool = False) -> "Ablated":
        """`drawn` says that the images are a pseudo-target's own, whatever their side in the reference."""
        places = reference.places(rows["image_id"].to_numpy(), path)
        # Sums do not depend on the order of rows.
        rows, places = rows.take(np.argsort(places)), np.sort(places)
        before = reference.images.part(places)
        side = reference.images.side
        if drawn:
            before = replace(before, side=np.zeros(len(places), int))
            # As many as a class has.
            whole = len(places) == len(side) // len(np.unique(side))
        else:
            expected = side == 0 if protocol == "published" else reference.sampled
            whole = np.array_equal(places, np.flatnonzero(expected))
        if not whole:
            raise StudyError(f"{path}: is not of the images of such an ablation; {parquet.again(path)}")
        for name, column in (("rank_baseline", before.rank), ("log_p_baseline", before.log_p)):
            if not np.array_equal(rows[name].to_numpy(), column):
                raise StudyError(f"{path}: {name} is not that of the baseline; {parquet.again(path)}")
        rank, log_p = (rows[f"{name}_ablated"].to_numpy() for name in ("rank", "log_p"))
        z = rows["z_ablated"].combine_chunks()
        values = z.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        # Where the target's images alone are looked at there is none.
        one_sided = drawn or protocol == "published"
        if set(z.value_lengths().to_pylist()) != {None if one_sided else before.z.shape[1]}:
            raise StudyError(f"{path}: z is not of the target and its others; {parquet.again(path)}")
        if not _finite(rows) or not np.isfinite(values).all():
            raise StudyError(f"{path}: a number is not finite; {parquet.again(path)}")
        if rank.min() < 0:
            raise StudyError(f"{path}: a rank is negative; {parquet.again(path)}")
        values = values if one_sided else values.reshape(before.z.shape)
        return cls(before, outcomes.Images(before.side, values, rank, log_p), reference.fold[places], rows)

    def part(self, chosen: np.ndarray) -> tuple[outcomes.Images, outcomes.Images]:
        return self.before.part(chosen), self.after.part(chosen)

    def only(self, chosen: np.ndarray) -> "Ablated":
        """Some of the images, bool [images]."""
        return Ablated(*self.part(chosen), self.fold[chosen], self.rows.filter(pa.array(chosen)))

    def columns(self, protocol: str, intervention: str) -> dict[str, float | None]:
        """What the tables of cells have of the ablation by the names of its columns, but for what is compared."""
        if protocol == "published":
            deficits = {
                f"rank_deficit_{half}": outcomes.one_sided(*self.part(np.isin(self.fold, members)))["rank_deficit"]
                for half, members in folds.HALVES.items()
            }
            return self.published() | deficits
        found = self.both_sides()
        share = {"erased_share": found["erased_share"]} if intervention == "erase" else {}
        halves = self.halves() if intervention in ("zero", "mean") else {}
        return (
            share
            | {f"{key}_{intervention}": found[key] for key in (*outcomes.NAMES, *outcomes.ENERGIES)}
            | {f"{key[:-2]}_{intervention}{key[-2:]}": value for key, value in halves.items()}
        )

    def published(self) -> dict[str, float]:
        """The `EFFECTS`."""
        return outcomes.one_sided(self.before, self.after)

    def both_sides(self) -> dict[str, float | None]:
        """What `outcomes.two_sided` has, energies, and what `erase` left in the images that it had not seen."""
        energy = (self.rows[name].to_numpy() for name in ("energy", "energy_layer"))
        found = outcomes.two_sided(self.before, self.after) | outcomes.energies(*energy, self.before.side == 0)
        return found | {"erased_share": self._erased()}

    def _erased(self) -> float | None:
        # Of each fold once: its rows repeat it.
        _, first = np.unique(self.fold, return_index=True)
        pairs = [self.rows[f"difference_{when}"].combine_chunks().take(pa.array(first)) for when in ("before", "after")]
        before, after = (pc.sum(values).as_py() for values in pairs)
        if any(values.null_count for values in pairs) or before <= 0:
            return None
        return 1 - after / before

    def halves(self) -> dict[str, float | None]:
        """`outcomes.OF_HALVES` of either half of the images, by name."""
        whole = outcomes.gap(self.before.z[:, 0], self.before.side == 0)
        found = {}
        for half, members in folds.HALVES.items():
            part = outcomes.two_sided(*self.part(np.isin(self.fold, members)), whole)
            found |= {f"{name}_{half}": part[name] for name in outcomes.OF_HALVES}
        return found


def _depth(path_to_layers: str, layer: str) -> int:
    """Where a layer lies in its network, from the table of all its layers."""
    return networks.layer_nodes(path_to_layers, [layer])[layer]["depth"]


def _by_depth(row: Mapping) -> tuple[str, int, str]:
    """The order of grids in the study's tables; a stable sort leaves what is in a grid as its file has it."""
    return row["network"], row["depth"], row["class_id"]


def _mean_by_cell(path: str, origin: Mapping[str, str]) -> dict[str, dict]:
    """Of each cell of a grid: its bins, its units, those that no image drives, and the means of its coordinates.

    And its `stability`, the share of its units that two folds' grids have in common, where there are such grids.
    """
    cross_fitted = any(name.startswith("cell_fold") for name in parquet.schema(path).names)
    table = parquet.read(path, cells.FOLDS_SCHEMA if cross_fitted else cells.SCHEMA, origin=origin)
    if not _finite(table):
        raise StudyError(f"{path}: a number is not finite; {parquet.again(path)}")
    # A grid, and each fold's own; else what is said of other files would be wrong.
    by_fold = [groups.units(path, fold) for fold in (None, *range(FOLDS if cross_fitted else 0))][1:]
    dead = pc.and_(pc.equal(table["target_mean"], 0), pc.equal(table["others_mean"], 0))
    keys = ["cell", "selectivity_bin", "magnitude_bin"]
    grouped = table.append_column("dead", dead.cast(pa.int32())).group_by(keys)
    result = grouped.aggregate([("unit", "count"), ("dead", "sum"), ("selectivity", "mean"), ("magnitude", "mean")])
    found = {row["cell"]: row | {"stability": None} for row in result.to_pylist()}
    for name in found if cross_fitted else ():
        pairs = combinations([by_cell[name] for by_cell in by_fold], 2)
        found[name]["stability"] = float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in pairs]))
    return found


def _runs(table: pa.Table, keys: Sequence[str], path: str) -> Iterator[tuple[dict[str, str], pa.Table]]:
    """The rows of one combination of `keys` after the other, as they were written; StudyError where one comes twice."""
    start, seen = 0, set()
    for key, run in groupby(zip(*(table[name].to_pylist() for name in keys), strict=True)):
        count = sum(1 for _ in run)
        # Of one size, whatever it is.
        group = tuple(value for name, value in zip(keys, key, strict=True) if name != "units")
        if group in seen:
            raise StudyError(f"{path}: a group is there twice; {parquet.again(path)}")
        seen.add(group)
        yield dict(zip(keys, key, strict=True)), table.slice(start, count)
        start += count


def _check_place(path: str, head: Mapping[str, str], coordinates: Mapping[str, str]) -> None:
    """Refuse groups of another grid; all of them are ablated as the cross-fitted protocol has it."""
    at = {**coordinates, "protocol": "crossfit"}
    if at.items() - head.items():
        raise StudyError(f"{path}: is not of {', '.join(at.values())}; {parquet.again(path)}")


def _groups(
    path: str, origin: Mapping[str, str], coordinates: Mapping[str, str], reference: Reference
) -> Iterator[dict]:
    """The rows of `GROUPS` of one grid's controls, but for the depth."""
    yield from _ablated_groups(path, controls.SCHEMA, controls.GROUP.names, origin, coordinates, reference)


def _rankings(
    path: str, origin: Mapping[str, str], coordinates: Mapping[str, str], reference: Reference
) -> Iterator[dict]:
    """The rows of `GROUPS` of one grid's rankings, but for the depth."""
    names = [*controls.GROUP.names, *importance.RANKED.names]
    yield from _ablated_groups(path, importance.SCHEMA, names, origin, coordinates, reference)


def _ablated_groups(
    path: str,
    schema: pa.Schema,
    names: Sequence[str],
    origin: Mapping[str, str],
    coordinates: Mapping[str, str],
    reference: Reference,
) -> Iterator[dict]:
    table = parquet.read(path, schema, optional=ablations.OPTIONAL, origin=origin)
    unranked = dict.fromkeys(importance.RANKED.names)
    for head, rows in _runs(table, names, path):
        _check_place(path, head, coordinates)
        yield unranked | head | Ablated.of(rows, reference, path, "crossfit").both_sides() | {"auroc": None}


def _pseudo(
    path: str, origin: Mapping[str, str], coordinates: Mapping[str, str], reference: Reference
) -> Iterator[dict]:
    """The rows of `GROUPS` of a pseudo-target at a layer, but for the depth; `reference` is of all classes."""
    table = parquet.read(path, pseudo.SCHEMA, optional=ablations.OPTIONAL, origin=origin)
    for head, rows in _runs(table, controls.GROUP.names, path):
        _check_place(path, head, coordinates)
        done = Ablated.of(rows, reference, path, "crossfit", drawn=True)
        energy = outcomes.energies(
            *(rows[name].to_numpy() for name in ("energy", "energy_layer")), done.before.side == 0
        )
        yield (
            dict.fromkeys((*GROUP_OUTCOMES, *importance.RANKED.names))
            | head
            | done.published()
            | {
                "energy": energy["energy"],
                "energy_target": energy["energy"],
                "auroc": rows["auroc"][0].as_py(),
            }
        )


def _decisions(p: np.ndarray) -> np.ndarray:
    """Decision values of probabilities."""
    with np.errstate(divide="ignore"):
        return np.log(p) - np.log1p(-p)


def _probe(
    path: str, coordinates: Mapping[str, str], units: int | None, reference: Reference, origin: Mapping[str, str]
) -> tuple[dict, dict[str, np.ndarray] | None]:
    """The row of a cell's probes, and its cross-fitted decisions by place in the reference, if there are such."""
    table = parquet.read(path, probes.SCHEMA, optional=probes.OPTIONAL, origin=origin)
    row, *more = table.to_pylist()
    fixed = row["units_fixed"]
    if more or row | coordinates != row or row["units"] != units or not (fixed is None or 0 < fixed <= units):
        raise StudyError(f"{path}: is not of this cell and its units; {parquet.again(path)}")
    if not _finite(table):
        raise StudyError(f"{path}: a number is not finite; {parquet.again(path)}")
    missing = [name for name in probes.OPTIONAL if row[name] is None]
    if len(missing) == len(probes.OPTIONAL):
        return row, None
    if missing or any(value is None for image in row["held_out"] for value in (image or {"": None}).values()):
        raise StudyError(f"{path}: the cross-fitted probe lacks values; {parquet.again(path)}")
    held_out = {name: np.array([image[name] for image in row["held_out"]]) for name in ("image_id", "y", "p")}
    places = reference.places(held_out["image_id"], path)
    is_target = reference.images.side[places] == 0
    if len(places) < len(reference.image_id) or not np.array_equal(held_out["y"] == 1, is_target):
        raise StudyError(f"{path}: an image is not as a probe has it; {parquet.again(path)}")
    if not ((held_out["p"] >= 0) & (held_out["p"] <= 1)).all():
        raise StudyError(f"{path}: a probability is none; {parquet.again(path)}")
    return row, {"place": places, "decision": _decisions(held_out["p"]), "is_target": is_target}


def _auroc(decided: Mapping[str, np.ndarray], chosen: np.ndarray) -> float:
    """AUROC of a probe on some of the images, bool [images of the reference]."""
    among = chosen[decided["place"]]
    return auroc(decided["decision"][among], decided["is_target"][among])


def ablated(path: str, reference: Reference, origin: Mapping[str, str]) -> Iterator[tuple[str, str, Ablated]]:
    """Protocol, intervention and ablation of a cell's file, one after the other."""
    table = parquet.read(path, ablations.SCHEMA, optional=ablations.OPTIONAL, origin=origin)
    for head, rows in _runs(table, ("protocol", "intervention"), path):
        protocol, intervention = head.values()
        done = Ablated.of(rows, reference, path, protocol)
        if protocol != "published" and (protocol != "crossfit" or intervention not in INTERVENTIONS):
            raise StudyError(f"{path}: {protocol} {intervention} is unknown; {parquet.again(path)}")
        yield protocol, intervention, done


def _is_direction(group: Mapping, cell: str) -> bool:
    """Whether a control is a random direction in this cell."""
    return group["group"] == cell and group["intervention"].startswith("direction")


def _row(
    probe: str,
    ablation: str,
    cell: Mapping,
    controls: Sequence[Mapping],
    reference: Reference,
    coordinates: Mapping[str, str],
    origins: Mapping[str, Mapping[str, str]],
) -> dict:
    """The row of the cell at `coordinates` (network, layer, class_id, cell), of which `cell` says what the grid does.

    `controls` are the groups of its grid; it is compared with the random ones and with random directions in it.
    """
    random = [group for group in controls if group["kind"] == "random"]
    row, decided = _probe(probe, coordinates, cell.get("unit_count"), reference, origins["probes"])
    row |= dict.fromkeys((*EFFECTS, *AGAINST_RANDOM, *CROSSFIT, *HALVES, "images"))
    if decided is not None:
        row |= {
            f"auroc_{half}": _auroc(decided, np.isin(reference.fold, members)) for half, members in folds.HALVES.items()
        }
    for protocol, name, done in ablated(ablation, reference, origins["ablations"]):
        row |= done.columns(protocol, name)
        if protocol == "published":
            row["images"] = done.rows.select([field.name for field in IMAGE]).to_pylist()
            for effect in EFFECTS if random else ():
                drawn = np.array([group[effect] for group in random if group["intervention"] == name])
                row[f"{effect}_less_random"], row[f"{effect}_z_random"] = outcomes.against(row[effect], drawn)
            continue
        if name == "erase":
            kind, beside = "directions", [group for group in controls if _is_direction(group, coordinates["cell"])]
        else:
            kind, beside = "random", [group for group in random if group["intervention"] == name]
        loss, losses = row[f"separation_loss_{name}"], [group["separation_loss"] for group in beside]
        if losses and None not in (*losses, loss):
            row[f"separation_loss_{name}_less_{kind}"] = loss - float(np.mean(losses))
        if decided is not None:
            row["auroc_sample"] = _auroc(decided, reference.sampled)
    return row | {
        "selectivity_bin": cell["selectivity_bin"],
        "magnitude_bin": cell["magnitude_bin"],
        "units_dead": cell["dead_sum"],
        "selectivity_mean": cell["selectivity_mean"],
        "magnitude_mean": cell["magnitude_mean"],
        "stability": cell["stability"],
    }


def gather_layer(
    path_to_table: str,
    *,
    path_to_images: str,
    path_to_layers: str,
    paths_to_baselines: Mapping[str, str],
    paths_to_cells: Mapping[str, str],
    paths_to_probes: Mapping[str, Mapping[str, str]],
    paths_to_ablations: Mapping[str, Mapping[str, str]],
    paths_to_controls: Mapping[str, str],
    others: Mapping[str, Sequence[str]],
    network: str,
    layer: str,
    origins: Mapping[str, Mapping[str, str]],
    made: str | None = None,
) -> str:
    """Write `tables/{network}/{layer}.parquet`: a row per target and cell.

    Files are given by target, those of baselines by class, those of probes and of ablations by target and cell; without
    controls (no file) the columns that need them are missing. `others` are the classes that each target is contrasted
    with. `origins` says for each step what its files must carry: the study and the digest of the step's settings.
    Raises StudyError for the first file that does not.
    """
    depth = _depth(path_to_layers, layer)
    rows = []
    for target, path_to_cells in paths_to_cells.items():
        grid = _mean_by_cell(path_to_cells, origins["cells"])
        at = {"network": network, "layer": layer, "class_id": target}
        reference = Reference.of(path_to_images, paths_to_baselines, target, others[target])
        beside = []
        if target in paths_to_controls:
            beside = list(_groups(paths_to_controls[target], origins["controls"], at, reference))
        for cell, probe in paths_to_probes[target].items():
            ablation = paths_to_ablations[target][cell]
            row = _row(probe, ablation, grid.get(cell, {}), beside, reference, at | {"cell": cell}, origins)
            rows.append(row | {"depth": depth})
    parquet.write(path_to_table, rows, LAYER, made)
    return f"{len(rows)} cells"


def gather_study(path_to_table: str, *, paths_to_layers: Sequence[str], made: str | None = None) -> str:
    """Write `tables/cells.parquet`: a row per cell of the whole study, from the tables of its layers."""
    names = CELLS.names
    parts = [parquet.read(path, LAYER, columns=names, optional=OPTIONAL) for path in paths_to_layers]
    seen = set()
    for path, part in zip(paths_to_layers, parts, strict=True):
        layers = set(zip(part["network"].to_pylist(), part["layer"].to_pylist(), strict=True))
        grids = set(zip(part["class_id"].to_pylist(), part["cell"].to_pylist(), strict=True))
        bins = zip(part["selectivity_bin"].to_pylist(), part["magnitude_bin"].to_pylist(), strict=True)
        named = part["cell"].to_pylist() == [f"s{s}m{m}" for s, m in bins]
        s, m = (part[f"{name}_bin"].to_numpy().max() + 1 for name in ("selectivity", "magnitude"))
        whole = len(set(part["class_id"].to_pylist())) * int(s) * int(m)
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
    path_to_images: str,
    paths_to_controls: Mapping[tuple[str, str, str], str],
    paths_to_pseudo: Mapping[tuple[str, str, str], str],
    paths_to_rankings: Mapping[tuple[str, str, str], str],
    paths_to_layers: Mapping[str, str],
    paths_to_baselines: Mapping[str, Mapping[str, str]],
    others: Mapping[str, Mapping[str, Sequence[str]]],
    origins: Mapping[str, Mapping[str, Mapping[str, str]]],
    made: str | None = None,
) -> str:
    """Write `tables/groups.parquet`: a row per group that is no cell, or is ablated as no cell is, and intervention.

    `paths_to_controls` and `paths_to_rankings` are by network, layer and target, `paths_to_pseudo` by network, layer
    and pseudo-target; `paths_to_layers` (the tables of all layers) by network, `paths_to_baselines` by network and
    class, `others` by network and target; `origins` by network and step, what its files must carry.
    """
    rows = []
    for step, read, paths in (
        ("controls", _groups, paths_to_controls),
        ("importance", _rankings, paths_to_rankings),
    ):
        for (network, layer, target), path in paths.items():
            depth = _depth(paths_to_layers[network], layer)
            at = {"network": network, "layer": layer, "class_id": target}
            reference = Reference.of(path_to_images, paths_to_baselines[network], target, others[network][target])
            rows += [{"depth": depth} | group for group in read(path, origins[network][step], at, reference)]
    for (network, layer, drawn), path in paths_to_pseudo.items():
        depth = _depth(paths_to_layers[network], layer)
        at = {"network": network, "layer": layer, "class_id": drawn}
        first, *rest = paths_to_baselines[network]
        reference = Reference.of(path_to_images, paths_to_baselines[network], first, rest)
        rows += [{"depth": depth} | group for group in _pseudo(path, origins[network]["pseudo"], at, reference)]
    rows.sort(key=_by_depth)
    parquet.write(path_to_table, rows, GROUPS, made)
    return f"{len(rows)} groups"


def _shapley(path: str, origin: Mapping[str, str], coordinates: Mapping[str, str]) -> list[dict]:
    """The rows of `SHAPLEY` of one grid, but for the depth: of each intervention all cells in their order."""
    table = parquet.read(path, shapley.SCHEMA, optional=shapley.OPTIONAL, origin=origin)
    s, m = (pc.max(table[f"{name}_bin"]).as_py() + 1 for name in ("selectivity", "magnitude"))
    bins = list(product(range(s), range(m)))
    for head, rows in _runs(table, (*coordinates, "intervention"), path):
        found = zip(*(rows[name].to_pylist() for name in ("cell", "selectivity_bin", "magnitude_bin")), strict=True)
        whole = list(found) == [(f"s{s}m{m}", s, m) for s, m in bins]
        if head != {**coordinates, "intervention": head["intervention"]} or not whole:
            at = ", ".join(coordinates.values())
            raise StudyError(f"{path}: is not of {at} and all its cells in their order; {parquet.again(path)}")
        if head["intervention"] not in INTERVENTIONS:
            raise StudyError(f"{path}: {head['intervention']} is unknown; {parquet.again(path)}")
        _check_shares(path, rows)
    return table.to_pylist()


def _check_shares(path: str, rows: pa.Table) -> None:
    """Refuse the values of a grid's cells where some are missing or they do not add up to the layer's loss."""
    drawn, losses = (set(rows[name].to_pylist()) for name in ("permutations", "layer_loss"))
    gaps = {rows[name].null_count for name in shapley.OPTIONAL}
    if gaps == {len(rows)} and drawn == {0}:
        # The network does not separate the target.
        return
    if (
        gaps != {0}
        or len(drawn) > 1
        or min(drawn) <= 0
        or not _finite(rows)
        or pc.min(rows["standard_error"]).as_py() < 0
    ):
        raise StudyError(f"{path}: a value is missing or none; {parquet.again(path)}")
    if len(losses) > 1 or abs(pc.sum(rows["value"]).as_py() - losses.pop()) > ROUNDING:
        raise StudyError(f"{path}: the values do not add up to the layer's loss; {parquet.again(path)}")


def gather_shapley(
    path_to_table: str,
    *,
    paths_to_shapley: Mapping[tuple[str, str, str], str],
    paths_to_layers: Mapping[str, str],
    origins: Mapping[str, Mapping[str, Mapping[str, str]]],
    made: str | None = None,
) -> str:
    """Write `tables/shapley.parquet`: a row per cell and intervention of all grids.

    `paths_to_shapley` are by network, layer and target; `paths_to_layers` (the tables of all layers) by network;
    `origins` by network and step, what its files must carry.
    """
    rows = []
    for (network, layer, target), path in paths_to_shapley.items():
        depth = _depth(paths_to_layers[network], layer)
        at = {"network": network, "layer": layer, "class_id": target}
        rows += [{"depth": depth} | row for row in _shapley(path, origins[network]["shapley"], at)]
    rows.sort(key=_by_depth)
    parquet.write(path_to_table, rows, SHAPLEY, made)
    return f"{len(rows)} rows"


def gather_measures(
    path_to_table: str,
    *,
    paths_to_cells: Mapping[tuple[str, str, str], str],
    paths_to_means: Mapping[tuple[str, str, str], str],
    paths_to_layers: Mapping[str, str],
    origins: Mapping[str, Mapping[str, Mapping[str, str]]],
    made: str | None = None,
) -> str:
    """Write `tables/measures.parquet`: a row per cell and measure of importance, of the grids whose units are ranked.

    Files are by network, layer and target, those of layers (`layers.parquet`) by network; `origins` as elsewhere.
    """
    rows = []
    for (network, layer, target), path in paths_to_means.items():
        depth = _depth(paths_to_layers[network], layer)
        table = parquet.read(path, importance.MEANS, optional=("value",), origin=origins[network]["importance"])
        bins = groups.bins(paths_to_cells[network, layer, target])
        at = {"network": network, "layer": layer, "class_id": target}
        found = table.to_pylist()
        measures = {row["measure"] for row in found}
        keys = [(row["cell"], row["measure"]) for row in found]
        if any(row | at != row for row in found) or sorted(keys) != sorted((c, m) for c in bins for m in measures):
            raise StudyError(f"{path}: has not every cell of its grid once for each measure; {parquet.again(path)}")
        if not _finite(table):
            raise StudyError(f"{path}: a number is not finite; {parquet.again(path)}")
        rows += [row | bins[row["cell"]] | {"depth": depth} for row in found]
    rows.sort(key=_by_depth)
    parquet.write(path_to_table, rows, MEASURES, made)
    return f"{len(rows)} means of cells"


def _fault(rows: Sequence[Mapping], layer: str, layers: Mapping[str, Mapping]) -> str | None:
    """What is wrong with the rows of one group under one intervention; None where nothing is.

    `layers` are the rows of `layers.parquet` by layer.
    """
    # Behind the network's last layer there is no place.
    if tuple(row["place"] for row in rows) not in (redundancy.PLACES, redundancy.PLACES[:1]):
        return "the places of a group are not all there once"
    remaining, *behind = rows
    of_group = [(row["kind"], row["units"], row["separation_loss"], row["use"]) for row in rows]
    if len(set(of_group)) > 1 or (remaining["separation_loss"] is None) != (remaining["use"] is None):
        return "what is of a group differs from place to place"
    if remaining["kind"] not in redundancy.KINDS or remaining["intervention"] not in INTERVENTIONS:
        return f"{remaining['kind']} {remaining['intervention']} is unknown"
    if remaining["at"] != layer or remaining["units"] < 1 or remaining["change"] != 0:
        return "the units that remain are not those of the layer"
    if any(row["at"] not in layers for row in rows) or (
        [row["units_at"] for row in rows]
        != [layers[layer]["units"] - remaining["units"], *(layers[row["at"]]["units"] for row in behind)]
    ):
        return "the units looked at are not those of the network's layers"
    return None


def _redundancy(
    path: str, origin: Mapping[str, str], coordinates: Mapping[str, str], layers: Mapping[str, Mapping]
) -> list[dict]:
    """The rows of `REDUNDANCY` of one grid; `layers` are the rows of `layers.parquet` by layer."""
    table = parquet.read(path, redundancy.SCHEMA, optional=redundancy.OPTIONAL, origin=origin)
    rows = table.to_pylist()
    if any(row | coordinates != row for row in rows):
        raise StudyError(f"{path}: is not of {', '.join(coordinates.values())}; {parquet.again(path)}")
    if not _finite(table):
        raise StudyError(f"{path}: a number is not finite; {parquet.again(path)}")
    if any(not 0 <= row[f"auroc_{when}"] <= 1 for row in rows for when in ("before", "after")):
        raise StudyError(f"{path}: an AUROC is none; {parquet.again(path)}")
    by_ablation: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        by_ablation.setdefault((row["group"], row["intervention"]), []).append(row)
    names, interventions = map(set, zip(*by_ablation, strict=True))
    if len(by_ablation) < len(names) * len(interventions):
        raise StudyError(f"{path}: a group is not ablated in every way; {parquet.again(path)}")
    for found in by_ablation.values():
        if fault := _fault(found, coordinates["layer"], layers):
            raise StudyError(f"{path}: {fault}; {parquet.again(path)}")
    return [{"depth": layers[coordinates["layer"]]["depth"]} | row for row in rows]


def gather_redundancy(
    path_to_table: str,
    *,
    paths_to_redundancy: Mapping[tuple[str, str, str], str],
    paths_to_layers: Mapping[str, str],
    origins: Mapping[str, Mapping[str, Mapping[str, str]]],
    made: str | None = None,
) -> str:
    """Write `tables/redundancy.parquet`: a row per group, intervention and place of each grid.

    `paths_to_redundancy` are by network, layer and target, `paths_to_layers` (the tables of all layers) by network;
    `origins` says by network and step what its files must carry. Raises StudyError for the first file that does not.
    """
    rows = []
    for (network, layer, target), path in paths_to_redundancy.items():
        layers = networks.layer_nodes(paths_to_layers[network], [layer])
        at = {"network": network, "layer": layer, "class_id": target}
        rows += _redundancy(path, origins[network]["redundancy"], at, layers)
    rows.sort(key=_by_depth)
    parquet.write(path_to_table, rows, REDUNDANCY, made)
    return f"{len(rows)} rows"
