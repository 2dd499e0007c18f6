"""Step `importance`: measures of importance of a grid's units, and what ablating the units at their tops does."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from jobs import ablations, activations, controls, groups, images, networks
from jobs.ablations import Grid, How, Sample
from readout import StudyError, gradients, similarity
from readout import importance as measured
from readout.ablations import Constant
from readout.cuts import cut
from readout.folds import FOLDS
from readout.groups import Group, random_names
from readout.importance import MEASURES, Contributions, Known
from readout.probes import gram_matrix
from runtime import parquet

RANKED = pa.schema([("measure", pa.string()), ("one_in", pa.int32())])
"""What tells the groups that rankings make from each other: the measure, and the share of the units at its top."""
SCHEMA = pa.schema([*controls.GROUP, *RANKED, *(f for f in controls.SCHEMA if f.name not in controls.GROUP.names)])
MEANS = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("cell", pa.string()),
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)
"""The mean of a measure over a cell's units; `value` is missing where it cannot be told."""
UNITS = pa.schema([("unit", pa.int32()), ("fold", pa.int8()), ("measure", pa.string()), ("value", pa.float64())])
SIMILARITY = ("similarity_kendall", "similarity_spearman")
"""Of a cell as a whole, beside the means of measures of its units."""
BLOCK_BYTES = 256 << 20
"""Of the activations that are gone through at once."""
IMAGES_AT_ONCE = 16
"""Images in a backward pass, which keeps all that lies between the layer and the scores."""
STEPS = 20
"""ASSUME: points on the line from the mean colour to the image, of conductance."""


@dataclass(frozen=True)
class Asked:
    """The measures that are asked for by name, what they need, and the inverse penalty of the probe."""

    measures: Sequence[str]
    needs: frozenset[str]
    C: float | Sequence[float] | None


class _Layer:
    """A grid's layer and the images that measures are told of."""

    def __init__(self, grid: Grid, paths_to_activations: Sequence[str]):
        self.grid, self.paths = grid, tuple(paths_to_activations)
        self.sample: Sample = ablations.prepare(grid)
        self.units = self.sample.layer_units
        self.fold, self.is_target = self._images()

    def _images(self) -> tuple[np.ndarray, np.ndarray]:
        """Fold and side of all study images [images], in the order of the files of activations."""
        (_, fold, _), counts = activations.gather(self.paths, np.arange(0), self.units)
        return fold, np.arange(len(fold)) < counts[0]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The layer's units in parts, and their activations [images, units of the part]."""
        count = -(-self.units * len(self.fold) * 4 // BLOCK_BYTES)
        for units in np.array_split(np.arange(self.units), count):
            yield units, activations.gather(self.paths, units, self.units)[0].values

    def outside(self, fold: int) -> np.ndarray:
        return self.fold != fold

    def image_weights(self, C: float | Sequence[float]) -> list[np.ndarray]:
        """What each image outside a fold gives the probe of the layer, by fold."""
        grams = [0.0] * FOLDS
        for _, x in self.blocks():
            for f in range(FOLDS):
                grams[f] = grams[f] + gram_matrix(x, np.arange(x.shape[1]), self.outside(f), self.units)[0]
        return [
            measured.image_weights(gram, self.is_target[self.outside(f)], self.fold[self.outside(f)], C)
            for f, gram in enumerate(grams)
        ]

    def contributions(self, conductance: bool) -> Contributions:
        """Activations and gradients of the images that ablations look at, one backward pass an image for all folds."""
        sample, score = self.sample, measured.separation(self.sample.outputs[0])
        count = len(sample.listed["fold"])
        tail, parts = sample.tail, None
        if conductance or self.grid.device == "openvino":
            # Autograd goes through torch's own engine alone.
            device = "cpu" if self.grid.device == "openvino" else self.grid.device
            traced = networks.engine(self.grid.source, device=device)
            layers = networks.layer_nodes(self.grid.path_to_layers, [self.grid.layer], traced)
            parts = cut(traced, layers[self.grid.layer]["node"])
            tail = parts.tail
        found = np.empty((count, self.units), np.float32)
        shares = np.empty((count, self.units), np.float32) if conductance else None
        for start in range(0, count, IMAGES_AT_ONCE):
            some = slice(start, start + IMAGES_AT_ONCE)
            alive = [tensor[some] for tensor in sample.alive]
            found[some] = gradients.of_scores(tail, alive, score).flatten(1).cpu().numpy()
            if conductance:
                x = images.load(sample.listed["source"][some], networks.prepared(self.grid.source))
                given = networks.to_device(x, alive[0].device)
                shares[some] = gradients.conductance(parts, given, score, STEPS).flatten(1).cpu().numpy()
        a = sample.alive[0].flatten(1).cpu().numpy()
        return Contributions(a, found, sample.is_target, shares)

    def measure(self, asked: Asked) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Each measure of each unit by the images outside each fold, float64 [folds, units], by name.

        And, for each cell, both similarities of the images in each fold to the template [folds, 2].
        """
        values = {name: np.empty((FOLDS, self.units)) for name in asked.measures}
        weights = self.image_weights(asked.C) if "probe" in asked.needs else [None] * FOLDS
        autograd = asked.needs & {"gradients", "conductance"}
        of = self.contributions("conductance" in asked.needs) if autograd else None
        cells = [groups.units(self.grid.path_to_cells, f) for f in range(FOLDS)]
        means = [groups.means(self.grid.path_to_cells, f) for f in range(FOLDS)]
        products = {name: [0.0] * FOLDS for name in cells[0]}
        sums = {name: [0.0] * FOLDS for name in cells[0]}
        for units, x in self.blocks():
            for f in range(FOLDS):
                outside = self.outside(f)
                known = Known(
                    activations=x[outside],
                    is_target=self.is_target[outside],
                    target_mean=means[f][0][units],
                    others_mean=means[f][1][units],
                    layer_units=self.units,
                    image_weights=weights[f],
                    contributions=of and of.part(self.sample.listed["fold"] != f, units),
                )
                for name in asked.measures:
                    values[name][f, units] = MEASURES[name](known)
                for name, members in cells[f].items():
                    part = x[~outside][:, members[np.isin(members, units)] - units[0]].astype(np.float64)
                    products[name][f] = products[name][f] + part @ part.T
                    sums[name][f] = sums[name][f] + part.sum(1)
        for name, found in values.items():
            if not np.isfinite(found).all():
                raise StudyError(f"{self.grid.path_to_cells}: {name} of a unit is not finite; choose other measures")
        alike = {}
        for name in cells[0]:
            agreements = []
            for f in range(FOLDS):
                inside = ~self.outside(f)
                found = similarity.dissimilarities(products[name][f], sums[name][f], len(cells[f][name]))
                agreements.append(similarity.agreement(found, similarity.template(self.is_target[inside])))
            alike[name] = np.array(agreements)
        return values, alike


def _orders(grid: Grid, units: int, count: int, seed: int) -> dict[str, np.ndarray]:
    """Random orders of a layer's units as values of a measure [folds, units], the same in each fold."""
    found = {}
    for name in random_names(count):
        entropy = "\0".join(map(str, [seed, grid.network, grid.layer, grid.class_id, "order", name]))
        generator = np.random.default_rng(list(hashlib.sha256(entropy.encode()).digest()))
        found[name] = np.broadcast_to(generator.permutation(units).astype(float), (FOLDS, units))
    return found


def _how(
    name: str, rankings: Sequence[np.ndarray], one_in: int, replacing: Sequence[Constant], keep: bool
) -> tuple[int, list[tuple[Group, Constant]]]:
    """How many units a top has, and for each fold the group that is replaced and by what."""
    tops = [measured.top(name, ranked, one_in) for ranked in rankings]
    size = len(tops[0].units)
    if not keep:
        return size, list(zip(tops, replacing, strict=True))
    kept = [replace(one, name=f"keep_{one.name}") for one in replacing]
    return size, [(measured.all_but(group), one) for group, one in zip(tops, kept, strict=True)]


def _effects(
    sample: Sample,
    how: How,
    size: int,
    measure: str,
    one_in: int,
    at: Mapping[str, str],
    energy: np.ndarray,
) -> pa.Table:
    group, intervention = how[0]
    effects = sample.effects("crossfit", how, energy_layer=energy)
    head = at | {
        "group": group.name,
        "kind": group.kind,
        "protocol": "crossfit",
        "intervention": intervention.name,
        "units": size,
        "measure": measure,
        "one_in": one_in,
    }
    return controls.named(head, effects, SCHEMA)


def _means(
    grid: Grid, values: Mapping[str, np.ndarray], alike: Mapping[str, np.ndarray]
) -> Iterator[dict[str, object]]:
    """The rows of `MEANS`: means over folds, each of the cell by the grid of that fold."""
    at = {"network": grid.network, "layer": grid.layer, "class_id": grid.class_id}
    cells = [groups.units(grid.path_to_cells, f) for f in range(FOLDS)]
    for cell in cells[0]:
        for name, found in values.items():
            value = float(np.mean([found[f, cells[f][cell]].mean() for f in range(FOLDS)]))
            yield at | {"cell": cell, "measure": name, "value": value}
        told = ~np.isnan(alike[cell]).any(1)
        both = alike[cell][told].mean(0) if told.any() else (None, None)
        for name, value in zip(SIMILARITY, both, strict=True):
            yield at | {"cell": cell, "measure": name, "value": value}


def rank(
    grid: Grid,
    *,
    path_to_rankings: str,
    path_to_means: str,
    paths_to_activations: Sequence[str],
    measures: Sequence[str],
    needs: Sequence[str],
    C: float | Sequence[float] | None,
    random: int,
    tops: Sequence[int],
    interventions: Sequence[str],
    keep: int | None,
    seed: int,
    made: str | None = None,
) -> str:
    """Rank a layer's units by each measure, ablate the tops of the rankings, and write both.

    `path_to_rankings` has a row per top, intervention and image; `path_to_means` the mean of each measure over each
    cell. `paths_to_activations` are the target's and the others'. Everything is chosen outside the fold in which it is
    judged. `needs` are those of the measures, `C` the probe's; a top is one in so many of the layer's units, `random`
    the number of random orders, and `keep` the top that is kept alone, if any.
    """
    layer = _Layer(grid, paths_to_activations)
    values, alike = layer.measure(Asked(measures, frozenset(needs), C))
    means = list(_means(grid, values, alike))
    parts = ablate(layer.sample, grid, values | _orders(grid, layer.units, random, seed), tops, interventions, keep)
    table = pa.concat_tables(parts)
    parquet.write(path_to_means, means, MEANS, made)
    parquet.write(path_to_rankings, {name: table[name] for name in SCHEMA.names}, SCHEMA, made)
    return f"{len(parts)} ablations, {len(table)} image-tails"


@torch.inference_mode()
def ablate(
    sample: Sample,
    grid: Grid,
    values: Mapping[str, np.ndarray],
    tops: Sequence[int],
    interventions: Sequence[str],
    keep: int | None,
) -> list[pa.Table]:
    """The rows of `SCHEMA` of each measure's tops, of `values` [folds, units] by its name."""
    at = {"network": grid.network, "layer": grid.layer, "class_id": grid.class_id}
    everything = Group("all", "all", np.arange(sample.layer_units), sample.layer_units)
    replacing = {name: ablations.replacements(name, grid.path_to_cells) for name in interventions}
    energies = {name: sample.layer_energy([(everything, one) for one in replacing[name]]) for name in interventions}
    wanted = [(one_in, False) for one_in in sorted(tops, reverse=True)] + [(keep, True)] * (keep is not None)
    parts = []
    for measure, of_folds in values.items():
        rankings = [measured.order(of_fold) for of_fold in of_folds]
        for intervention in interventions:
            for one_in, kept in wanted:
                try:
                    size, how = _how(f"{measure}_top{one_in}", rankings, one_in, replacing[intervention], kept)
                except StudyError as error:
                    raise StudyError(f"importance: {grid.layer}: {error}") from error
                parts.append(_effects(sample, how, size, measure, one_in, at, energies[intervention]))
    return parts


def list_units(
    grid: Grid,
    *,
    path_to_units: str,
    paths_to_activations: Sequence[str],
    measures: Sequence[str],
    needs: Sequence[str],
    C: float | Sequence[float] | None,
    made: str | None = None,
) -> None:
    """Write each measure of each unit of a grid by the images outside each fold; arguments as of `rank`."""
    values, _ = _Layer(grid, paths_to_activations).measure(Asked(measures, frozenset(needs), C))
    columns: dict[str, list] = {name: [] for name in UNITS.names}
    for name, by_fold in values.items():
        for fold, found in enumerate(by_fold):
            units = np.arange(len(found), dtype=np.int32)
            for column, part in zip(
                columns, (units, np.full(len(found), fold), [name] * len(found), found), strict=True
            ):
                columns[column].append(pa.array(part, UNITS.field(column).type))
    parquet.write(path_to_units, {name: pa.chunked_array(parts) for name, parts in columns.items()}, UNITS, made)
