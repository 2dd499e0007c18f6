"""Step `redundancy`: where a class can still be read when units are ablated, all of a grid in one job."""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import numpy as np
import pyarrow as pa
import torch

from jobs import ablations, groups, networks
from jobs.ablations import Grid, How, Sample
from readout import StudyError, outcomes, probes, redundancy, scores
from readout.activations import record
from readout.cuts import cut, reached
from readout.folds import FOLDS
from readout.groups import Group
from runtime import parquet

SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("group", pa.string()),
        ("kind", pa.string()),
        ("intervention", pa.string()),
        ("units", pa.int32()),
        ("place", pa.string()),
        ("at", pa.string()),
        ("units_at", pa.int32()),
        ("auroc_before", pa.float64()),
        ("auroc_after", pa.float64()),
        ("change", pa.float64()),
        ("separation_loss", pa.float64()),
        ("use", pa.float64()),
    ]
)
"""A row per group, intervention and place; `at` is the layer looked at, of whose units a probe sees `units_at`."""
OPTIONAL = ("change", "separation_loss", "use")
"""Columns without a value where nothing varies, or where the network does not separate the target."""
KINDS = ("cell", "random", "role")
"""Kinds of the groups that are ablated."""
PLACES: tuple[redundancy.Place, ...] = get_args(redundancy.Place)
# ASSUME: one random group, to compare with; means are over classes, not over draws.
RANDOM = "random0"


class _Behind:
    """The network behind a grid's layer, and the layers there at which the class is looked for.

    `places` are rows of `layers.parquet` by place: of the first and of the last layer that read the grid's, which may
    be one; none where no layer does. The tail is torch's also where ablations run through another.
    """

    def __init__(self, grid: Grid, sample: Sample):
        traced = networks.engine(grid.source, device=grid.device)
        layers = networks.layer_nodes(grid.path_to_layers, [grid.layer], traced)
        node = layers[grid.layer]["node"]
        reading = reached(traced, node)
        # Their rows are in the order of depth.
        found = [row for row in layers.values() if row["node"] in reading]
        self.path_to_layers, self.sample = grid.path_to_layers, sample
        self.places: dict[str, Mapping] = {"next": found[0], "last": found[-1]} if found else {}
        self.units = {row["node"]: row["units"] for row in self.places.values()}
        self.tail = cut(traced, node).tail

    def room(self, images: int) -> dict[str, np.ndarray]:
        """Room for the activations of so many images, float32 [images, units] by node."""
        return {node: np.empty((images, units), np.float32) for node, units in self.units.items()}

    def run(self, places: np.ndarray, into: Mapping[str, np.ndarray], how: How | None = None) -> np.ndarray:
        """Run the images at `places`, ablated by `how` if it is given, and keep their activations in `into`.

        Returns the log-odds of the target and of its others [images, 1 + others].
        """
        z = []
        for batch, alive in self.sample.passes(places, how):

            def keep(node: str, value: torch.Tensor, batch: slice = batch) -> None:
                if value[0].numel() != self.units[node]:
                    raise StudyError(
                        f"{self.path_to_layers}: {node} has other units; {parquet.again(self.path_to_layers)}"
                    )
                # A copy: the tail may overwrite what it made.
                into[node][batch] = value.flatten(1).cpu().numpy()

            logits = record(self.tail, alive, self.units, keep)
            z.append(scores.log_odds(logits)[:, self.sample.outputs].cpu().numpy())
        return np.concatenate(z)


def _ablations(
    grid: Grid, sample: Sample, interventions: Sequence[str], path_to_truth: str | None, seed: int
) -> Iterator[How]:
    """The last cell, a random group of its size and, where the truth is known, the groups of one role each."""
    at = {"network": grid.network, "layer": grid.layer, "class_id": grid.class_id}
    last = tuple(groups.units(grid.path_to_cells))[-1]
    chosen = [
        [groups.find(grid.path_to_cells, name, kind, **at, seed=seed, fold=fold) for fold in range(FOLDS)]
        for name, kind in ((last, "cell"), (RANDOM, "random"))
    ]
    if path_to_truth:
        where = {"layer": grid.layer, "class_id": grid.class_id, "layer_units": sample.layer_units}
        roles = networks.roles(path_to_truth, **where)
        chosen += [[Group(name, "role", units, sample.layer_units)] * FOLDS for name, units in roles.items()]
    replacing = {name: ablations.replacements(name, grid.path_to_cells) for name in interventions}
    for of_folds in chosen:
        for name in interventions:
            yield list(zip(of_folds, replacing[name], strict=True))


def _auroc(x: np.ndarray, of_folds: Sequence[np.ndarray], sample: Sample, C: float | Sequence[float]) -> float:
    """AUROC of the cross-fitted probe over all images; x: [images, units]; of_folds: the units that it sees."""
    fold, is_target = sample.listed["fold"], sample.is_target
    decision = np.empty(len(fold))
    # One fold after the other: the coefficients of all would take much, where a layer is large.
    for f in np.unique(fold):
        decision[fold == f] = probes.predict_fold(x, of_folds[f], is_target, fold, f, C=C)
    return probes.auroc(decision, is_target)


def _remaining(sample: Sample, hows: Sequence[How], C: float | Sequence[float]) -> tuple[float, list[float]]:
    """AUROC of a probe of the whole layer, and, for each ablation, of one of the units that it leaves as they are."""
    layer = sample.alive[0].flatten(1).cpu().numpy()
    everything = np.arange(sample.layer_units)
    # What replaces the group does not matter to the others.
    by_group: dict[str, float] = {}
    for how in hows:
        name = how[0][0].name
        if name not in by_group:
            by_group[name] = _auroc(layer, [np.delete(everything, group.units) for group, _ in how], sample, C)
    return _auroc(layer, [everything] * FOLDS, sample, C), [by_group[how[0][0].name] for how in hows]


def _behind(
    behind: _Behind, sample: Sample, hows: Sequence[How], C: float | Sequence[float]
) -> tuple[dict[str, float], list[dict[str, tuple[float, float | None]]], list[dict[str, float | None]]]:
    """What is read behind the layer, by node: AUROC before; AUROC after and change, by ablation; and their outcomes.

    For each fold f, the group and the replacement that the images outside f give are ablated in *all* images: the probe
    that predicts the images of f is fitted on the others as the ablated network sees them.
    """
    fold, is_target = sample.listed["fold"], sample.is_target
    everywhere = np.arange(len(fold))
    room = behind.room(len(fold))
    z_before = behind.run(everywhere, room)
    units = {node: np.arange(count) for node, count in behind.units.items()}
    before = {node: _auroc(x, [units[node]] * FOLDS, sample, C) for node, x in room.items()}
    spread = {node: redundancy.spread(x) for node, x in room.items()}
    moved = [dict.fromkeys(room, 0.0) for _ in hows]
    decision = [{node: np.empty(len(fold)) for node in room} for _ in hows]
    z_after = [np.empty_like(z_before) for _ in hows]
    for f in np.unique(fold):
        inside = np.flatnonzero(fold == f)
        # Kept for one fold's images alone: of a large layer all would take as much as the layer.
        own = behind.room(len(inside))
        behind.run(inside, own)
        for i, how in enumerate(hows):
            z_after[i][inside] = behind.run(everywhere, room, [how[f]] * FOLDS)[inside]
            for node, x in room.items():
                moved[i][node] += redundancy.moved(own[node], x[inside])
                decision[i][node][inside] = probes.predict_fold(x, units[node], is_target, fold, f, C=C)
    after = [
        {
            node: (probes.auroc(values, is_target), moved[i][node] / spread[node] if spread[node] > 0 else None)
            for node, values in decision[i].items()
        }
        for i in range(len(hows))
    ]
    # Ranks are not asked for.
    same = sample.listed["side"], sample.listed["rank"], sample.listed["log_p"]
    images = [outcomes.Images(same[0], z.astype(np.float64), *same[1:]) for z in (z_before, *z_after)]
    effects = [outcomes.two_sided(images[0], ablated) for ablated in images[1:]]
    return before, after, [{name: effect[name] for name in ("separation_loss", "use")} for effect in effects]


@torch.inference_mode()
def look(
    grid: Grid,
    *,
    path_to_redundancy: str,
    path_to_truth: str | None = None,
    interventions: Sequence[str],
    C: float | Sequence[float],
    seed: int,
    made: str | None = None,
) -> str:
    """Ablate the last cell of a grid, a random group, and known roles; write where the class can still be read.

    A row per group, intervention and place: the AUROC of the cross-fitted probe (`C` is its own) over the images of the
    grid's ablations, before and after; how far the activations move; and the network's own loss over the same images.
    """
    sample = ablations.prepare(grid)
    behind = _Behind(grid, sample)
    hows = list(_ablations(grid, sample, interventions, path_to_truth, seed))
    try:
        whole, remaining = _remaining(sample, hows, C)
        before, after, effects = _behind(behind, sample, hows, C)
    except StudyError as error:
        raise StudyError(f"{grid.network} {grid.layer} {grid.class_id}: {error}") from error
    rows = []
    for how, left, found, effect in zip(hows, remaining, after, effects, strict=True):
        group, intervention = how[0]
        row = {"network": grid.network, "layer": grid.layer, "class_id": grid.class_id}
        row |= {"group": group.name, "kind": group.kind, "intervention": intervention.name}
        row |= {"units": len(group.units), **effect}
        rest = {"at": grid.layer, "units_at": sample.layer_units - len(group.units)}
        # The ablation leaves these units as they are.
        rows.append(row | rest | {"place": "remaining", "auroc_before": whole, "auroc_after": left, "change": 0.0})
        for place, layer in behind.places.items():
            auroc, change = found[layer["node"]]
            told = {"auroc_before": before[layer["node"]], "auroc_after": auroc, "change": change}
            rows.append(row | {"place": place, "at": layer["layer"], "units_at": layer["units"], **told})
    parquet.write(path_to_redundancy, rows, SCHEMA, made)
    return f"{len(hows)} ablations, {len(behind.places) + 1} places"
