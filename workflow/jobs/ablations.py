"""Step `ablations`: the units of one cell, or of another group, replaced while the network runs."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from inputs import weights
from inputs.sources import NetworkSource
from jobs import activations, groups, images, networks
from readout import StudyError, ablations, folds, openvino, scores
from readout.ablations import ZERO, Intervention
from readout.cuts import cut
from readout.folds import FOLDS
from readout.groups import Group, Kind
from runtime import cache, parquet

SCHEMA = pa.schema(
    [
        ("protocol", pa.string()),
        ("intervention", pa.string()),
        ("image_id", pa.int32()),
        ("fold", pa.int8()),
        ("rank_baseline", pa.int32()),
        ("rank_ablated", pa.int32()),
        ("log_p_baseline", pa.float64()),
        ("log_p_ablated", pa.float64()),
        ("z_ablated", pa.list_(pa.float32())),
        ("energy", pa.float64()),
        ("energy_layer", pa.float64()),
        ("difference_before", pa.float64()),
        ("difference_after", pa.float64()),
    ]
)
"""A row per protocol, intervention and image; `z_ablated` is of the target, then of the others in their order."""
OPTIONAL = ("z_ablated", "difference_before", "difference_after")
"""Columns that not every row has: z is of the cross-fitted protocol, the differences of `erase`."""

How = Sequence[tuple[Group, Intervention]]
"""For the images of each fold, the group that is ablated and what replaces its units."""


@dataclass(frozen=True)
class Grid:
    """A grid of cells, and the files that its ablations need.

    `others` are the classes whose images are looked at beside the target's, `paths_to_others` their baselines; none
    where the published protocol runs alone.
    """

    network: str
    layer: str
    class_id: str
    others: tuple[str, ...]
    path_to_cells: str
    path_to_baseline: str
    paths_to_others: tuple[str, ...]
    path_to_images: str
    path_to_layers: str
    source: NetworkSource
    device: str


def _listed(grid: Grid) -> tuple[dict[str, np.ndarray], list[int]]:
    """The images of a grid's ablations before any of them, fold after fold, by column [images]; and their outputs.

    Columns of `images.parquet` and of the baseline, `side`, 0 for the target's images and 1 + i for the i-th other
    class's, and `z`, the log-odds of the target; the outputs are in the order of the sides.
    """
    parts, outputs = [], []
    per_fold = folds.others_per_fold(len(grid.others))
    for side, (class_id, path) in enumerate(
        zip((grid.class_id, *grid.others), (grid.path_to_baseline, *grid.paths_to_others), strict=True)
    ):
        rows = images.rows(grid.path_to_images, class_id=class_id, outputs=grid.source.outputs)
        z, rank, log_p = activations.baseline(path, rows["image_id"])
        if z.shape[1] != grid.source.outputs:
            raise StudyError(f"{path}: z is not of {grid.source.outputs} outputs; {parquet.again(path)}")
        columns = {name: rows[name] for name in ("image_id", "class_id", "fold", "source")}
        columns |= {"label": rows["label"].astype(np.int64), "rank": rank, "log_p": log_p}
        outputs.append(int(rows["label"][0]))
        columns |= {"side": np.full(len(z), side), "z": z[:, outputs[0]].astype(np.float64)}
        chosen = slice(None) if side == 0 else folds.sample(rows["class_id"], rows["fold"], per_fold)
        parts.append({name: column[chosen] for name, column in columns.items()})
    listed = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(listed["fold"], kind="stable")
    return {name: column[order] for name, column in listed.items()}, outputs


def _alive(
    prefix: Callable,
    layers: Mapping[str, Mapping],
    count: int,
    load: Callable[[slice], torch.Tensor],
    device: torch.device,
) -> tuple[torch.Tensor, ...]:
    """The tensors alive at a cut, for the `count` images that `load` gives by slices."""
    whole: list[torch.Tensor] = []
    for batch in networks.batches(count, layers.values()):
        parts = prefix(networks.to_device(load(batch), device))
        if not whole:
            # Room for all at once: to join the batches in the end would take them twice.
            whole = [
                torch.empty((count, *part.shape[1:]), dtype=part.dtype, device=device, memory_format=layout(part))
                for part in parts
            ]
        for tensor, part in zip(whole, parts, strict=True):
            tensor[batch] = part
    return tuple(whole)


def layout(tensor: torch.Tensor) -> torch.memory_format:
    """The memory layout in which a network has a tensor, which decides the kernels behind it."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


@dataclass(frozen=True)
class Sample:
    """Images at a layer, ready for any ablation there.

    `listed` are their columns (`_listed`); `outputs` those of the sides, in their order; `alive` the tensors alive at
    the cut for all images, `tail` gives scores of these, as many images at once as `batches` says. `key` tells the
    sample from others.
    """

    listed: Mapping[str, np.ndarray]
    outputs: Sequence[int]
    tail: Callable[..., torch.Tensor]
    alive: tuple[torch.Tensor, ...]
    batches: Callable[[int], list[slice]]
    key: tuple

    @property
    def is_target(self) -> np.ndarray:
        return self.listed["side"] == 0

    @property
    def layer_units(self) -> int:
        return self.alive[0][0].numel()

    def _replaced(self, first: torch.Tensor, how: How, places: np.ndarray) -> torch.Tensor:
        """The layer's output for the images at `places`, ascending, with each fold's group replaced."""
        # Folds with one group and one intervention are one.
        kinds = [next(i for i, one in enumerate(how) if one is how[f]) for f in self.listed["fold"][places]]
        parts, start = [], 0
        for kind, run in itertools.groupby(kinds):
            some = slice(start, start + len(list(run)))
            group, intervention = how[kind]
            parts.append(intervention.replace(first[some], group.units, places[some]))
            start = some.stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _alive_at(self, places: np.ndarray) -> list[torch.Tensor]:
        # Without a copy, where they lie one after the other.
        dense = places[-1] - places[0] == len(places) - 1
        chosen = slice(places[0], places[-1] + 1) if dense else torch.from_numpy(places)
        return [tensor[chosen] for tensor in self.alive]

    def passes(self, places: np.ndarray, how: How | None = None) -> Iterator[tuple[slice, list[torch.Tensor]]]:
        """The tensors alive at the cut for the images at `places`, ascending, by slices of these; as `how` ablates."""
        for batch in self.batches(len(places)):
            first, *rest = self._alive_at(places[batch])
            yield batch, [first if how is None else self._replaced(first, how, places[batch]), *rest]

    def energy(self, how: How, places: np.ndarray | None = None) -> np.ndarray:
        """What an ablation removes from each image, float64 [images]: sum over units of (a - replacement)^2."""
        places = np.arange(len(self.listed["fold"])) if places is None else places
        parts = []
        for batch in self.batches(len(places)):
            first = self._alive_at(places[batch])[0]
            parts.append(ablations.energy(first, self._replaced(first, how, places[batch])))
        return np.concatenate(parts)

    def layer_energy(self, how: How) -> np.ndarray:
        """The same, float64 [images], with all of the layer's units replaced by the interventions of `how`."""
        whole = Group("all", "all", np.arange(self.layer_units), self.layer_units)
        return self.energy([(whole, intervention) for _, intervention in how])

    def differences(self, how: How) -> tuple[np.ndarray, np.ndarray]:
        """Of each fold, the squared difference of the sides' means in its own images [folds], before and after.

        Restricted to the fold's group, less what noise adds (`readout.ablations.difference`).
        """
        found = []
        for f, (group, intervention) in enumerate(how):
            units = torch.from_numpy(group.units.astype(np.int64))
            flat = self.alive[0].flatten(1)[:, units]
            erased = intervention.among(group.units).replace(flat, np.arange(len(units)), slice(None))
            inside = self.listed["fold"] == f
            pair = (values.cpu().numpy() for values in (flat, erased))
            found.append([ablations.difference(values, self.listed["side"], inside) for values in pair])
        before, after = np.array(found).T
        return before, after

    def effects(self, protocol: str, how: How, *, energy_layer: np.ndarray) -> pa.Table:
        """The rows of `SCHEMA` of one ablation, the target's images first; those alone in the published protocol.

        `energy_layer` [images] is that of `layer_energy`, which ablations by the same interventions share.
        """
        intervention = how[0][1].name
        published = protocol == "published"
        places = np.flatnonzero(self.is_target) if published else np.arange(len(self.listed["fold"]))
        labels = torch.from_numpy(self.listed["label"][places]).to(self.alive[0].device)
        logits, removed = [], []
        for batch in self.batches(len(places)):
            first, *rest = self._alive_at(places[batch])
            ablated = self._replaced(first, how, places[batch])
            removed.append(ablations.energy(first, ablated))
            logits.append(self.tail(ablated, *rest))
        scored = torch.cat(logits)
        count = len(places)
        z = pa.nulls(count, SCHEMA.field("z_ablated").type)
        if not published and self.outputs:
            values = scores.log_odds(scored)[:, self.outputs].cpu().numpy().astype(np.float32)
            ends = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
            z = pa.ListArray.from_arrays(ends, values.reshape(-1))
        differences = dict.fromkeys(("difference_before", "difference_after"), pa.nulls(count, pa.float64()))
        if intervention == "erase":
            pair = self.differences(how)
            differences = {
                name: pa.array(values[self.listed["fold"][places]], from_pandas=True)
                for name, values in zip(differences, pair, strict=True)
            }
        columns = {
            "protocol": [protocol] * count,
            "intervention": [intervention] * count,
            "image_id": self.listed["image_id"][places],
            "fold": self.listed["fold"][places],
            "rank_baseline": self.listed["rank"][places],
            "rank_ablated": scores.ranks(scored, labels).cpu().numpy().astype(np.int32),
            "log_p_baseline": self.listed["log_p"][places],
            "log_p_ablated": scores.log_probabilities(scored, labels).cpu().numpy(),
            "z_ablated": z,
            "energy": np.concatenate(removed),
            "energy_layer": energy_layer[places],
            **differences,
        }
        order = np.lexsort((self.listed["image_id"][places], self.listed["side"][places]))
        return pa.table(columns, schema=SCHEMA).take(order)


def sampled(
    listed: Mapping[str, np.ndarray],
    outputs: Sequence[int],
    *,
    path_to_layers: str,
    layer: str,
    source: NetworkSource,
    device: str,
    key: tuple,
) -> Sample:
    """The `listed` images, fold after fold, at a layer; `key` tells them from the images of other samples."""
    where = networks.torch_device(device)
    prepared = networks.prepared(source)
    layers = networks.layer_nodes(path_to_layers, [layer])
    key = (*key, str(source), layer, device)

    def cut_there() -> tuple:
        traced = networks.engine(source, device=device)
        layers = networks.layer_nodes(path_to_layers, [layer], traced)
        parts = cut(traced, layers[layer]["node"])

        def load(batch: slice) -> torch.Tensor:
            return images.load(listed["source"][batch], prepared)

        alive = _alive(parts.prefix, layers, len(listed["source"]), load, where)
        if device != "openvino":
            # Not as a module: its weights are the network's, and are counted there.
            return partial(parts.tail), alive
        # Compiling takes seconds, and serves the layer's other targets too.
        file = weights.file(source.model, source.weights)
        made_for = ("tail", cache.stamp(file) if file else None, str(source), layer, device)
        return cache.shared(made_for, lambda: openvino.Tail(parts.tail, alive)), alive

    tail, alive = cache.shared(("cut", *key), cut_there)
    deeper = [row for row in layers.values() if row["depth"] >= layers[layer]["depth"]]
    return Sample(listed, outputs, tail, alive, partial(networks.batches, rows=deeper), key)


def prepare(grid: Grid) -> Sample:
    """The images of a grid's ablations at its layer; what the grid's jobs share is made once per process."""
    # Baselines are made anew with the weights, the images and the layers.
    key = tuple(map(cache.stamp, (grid.path_to_baseline, *grid.paths_to_others)))
    listed, outputs = cache.shared(("listed", *key, grid.source.outputs), lambda: _listed(grid))
    sample = sampled(
        listed,
        outputs,
        path_to_layers=grid.path_to_layers,
        layer=grid.layer,
        source=grid.source,
        device=grid.device,
        key=key,
    )
    found = groups.layer_units(grid.path_to_cells)
    if found != sample.layer_units:
        raise StudyError(
            f"{grid.path_to_cells}: {found} units, but the layer has {sample.layer_units}; "
            f"{parquet.again(grid.path_to_cells)}"
        )
    return sample


def replacements(name: str, path_to_cells: str) -> list[Intervention]:
    """The intervention of this name for the images of each fold, from the means of those outside it."""
    if name == "zero":
        return [ZERO] * FOLDS
    make = ablations.FROM_MEANS[name]
    return [make(*groups.means(path_to_cells, fold)) for fold in range(FOLDS)]


@torch.inference_mode()
def ablate(
    grid: Grid,
    *,
    path_to_ablation: str,
    cell: str,
    kind: Kind,
    seed: int | None,
    protocols: Sequence[str],
    interventions: Sequence[str],
    made: str | None = None,
) -> None:
    """Ablate a cell, or another group; write what each image did under either protocol.

    `interventions` are those of the cross-fitted protocol.
    """
    sample = prepare(grid)

    def group(fold: int | None) -> Group:
        where = {"network": grid.network, "layer": grid.layer, "class_id": grid.class_id}
        return groups.find(grid.path_to_cells, cell, kind, **where, seed=seed, fold=fold)

    def energy(name: str, how: How) -> np.ndarray:
        stamp = cache.stamp(grid.path_to_cells)
        return cache.shared(("energy", *sample.key, stamp, name), lambda: sample.layer_energy(how))

    parts = []
    if "published" in protocols:
        how = [(group(None), ZERO)] * FOLDS
        parts.append(sample.effects("published", how, energy_layer=energy("zero", how)))
    for name in interventions:
        replacing = replacements(name, grid.path_to_cells)
        how = [(group(fold), replacing[fold]) for fold in range(FOLDS)]
        parts.append(sample.effects("crossfit", how, energy_layer=energy(name, how)))
    table = pa.concat_tables(parts)
    parquet.write(path_to_ablation, {name: table[name] for name in SCHEMA.names}, SCHEMA, made)
