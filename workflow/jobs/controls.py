"""Step `controls`: groups and interventions beside those of the cells, all of a grid in one job, to compare with."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import torch

from jobs import ablations, groups, networks
from jobs.ablations import Grid, How, Sample
from readout import StudyError
from readout import groups as made_of
from readout.ablations import ZERO, Erase, Resample, component_energy, directions, donors
from readout.folds import FOLDS
from readout.groups import Group, Kind
from runtime import parquet

GROUP = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("group", pa.string()),
        ("kind", pa.string()),
        ("protocol", pa.string()),
        ("intervention", pa.string()),
        ("units", pa.int32()),
    ]
)
"""What tells a group, and one way to ablate it, from the others; the table of groups has these columns too."""
SCHEMA = pa.schema([*GROUP, *(field for field in ablations.SCHEMA if field.name not in GROUP.names)])
FRACTIONS = {"half": 2, "quarter": 4, "eighth": 8}
"""Parts of the last cell that are compared with groups of equal energy outside it."""


class _Grid:
    """A grid's images at its layer, its cells and interventions by fold, and the random numbers of its controls."""

    def __init__(self, grid: Grid, seed: int):
        self.path, self.seed = grid.path_to_cells, seed
        self.where = {"network": grid.network, "layer": grid.layer, "class_id": grid.class_id}
        self.sample: Sample = ablations.prepare(grid)
        self.cells = tuple(groups.units(self.path))
        self.replacing = {name: ablations.replacements(name, self.path) for name in ("zero", "mean", "erase")}

    def generator(self, *what: object) -> np.random.Generator:
        """Random numbers for one control alone: they stay as they are when others are added."""
        entropy = "\0".join(map(str, [self.seed, *self.where.values(), *what]))
        return np.random.default_rng(list(hashlib.sha256(entropy.encode()).digest()))

    def groups(self, name: str, kind: Kind = "cell") -> list[Group]:
        """A cell or a random group by the grid of each fold."""
        return [groups.find(self.path, name, kind, **self.where, seed=self.seed, fold=fold) for fold in range(FOLDS)]

    def resampled(self, number: int) -> Resample:
        """Activations of another image, the same for all groups; `number` tells the draws."""
        drawn = donors(self.sample.is_target, self.sample.listed["fold"], self.generator("resample", number))
        return Resample(f"resample{number}", self.sample.alive[0], drawn)

    def activations(self, places: np.ndarray) -> np.ndarray:
        """Of some of the images, float32 [images, units]."""
        return self.sample.alive[0][torch.from_numpy(places)].flatten(1).cpu().numpy()

    def outside(self, fold: int) -> np.ndarray:
        """The places of the images outside a fold."""
        return np.flatnonzero(self.sample.listed["fold"] != fold)


def _random(grid: _Grid, count: int) -> Iterator[How]:
    """Random groups of a cell's size."""
    for name in made_of.random_names(count):
        for intervention in ("zero", "mean"):
            yield list(zip(grid.groups(name, "random"), grid.replacing[intervention], strict=True))


def _matched(grid: _Grid, count: int) -> Iterator[How]:
    """Parts of the last cell, and random groups outside it that hold as much energy, where there are such."""
    if not count:
        return
    is_target = grid.sample.is_target
    tops = grid.groups(grid.cells[-1])
    energies = []
    for fold in range(FOLDS):
        places = grid.outside(fold)
        # ASSUME: what zero removes on average, both sides weighing the same.
        sides = (places[is_target[places]], places[~is_target[places]])
        energies.append(sum(np.square(grid.activations(side)).mean(0, dtype=np.float64) for side in sides))
    for label, fraction in FRACTIONS.items():
        for draw in range(count):
            name = f"{grid.cells[-1]}_{label}{draw}"
            parts, partners = [], []
            for fold, (top, energy) in enumerate(zip(tops, energies, strict=True)):
                generator = grid.generator(name, fold)
                parts.append(made_of.part(name, top, fraction, generator))
                candidates = np.setdiff1d(np.arange(top.layer_units), top.units)
                partners.append(made_of.matched(f"{name}_matched", parts[-1], energy, candidates, generator))
            yield [(group, ZERO) for group in parts]
            if None not in partners:
                yield [(group, ZERO) for group in partners]


def _directions(grid: _Grid, count: int) -> Iterator[How]:
    """Random directions in the last cell and in the first, along which as much energy is taken as `erase` takes.

    A direction along which the images outside the fold vary less than along the erased one is taken by more than there
    is: its component changes sign, by so much that the energies agree.
    """
    if not count:
        return
    for name in (grid.cells[-1], grid.cells[0]):
        cells = grid.groups(name)
        found = []
        for fold, cell in enumerate(cells):
            outside = grid.outside(fold)
            class_id = grid.sample.listed["class_id"][outside]
            erased = grid.replacing["erase"][fold]
            given = grid.activations(outside)[:, cell.units]
            middle = erased.middle[cell.units]
            aim = component_energy(given, erased.direction[cell.units], middle)
            drawn = directions(given, class_id, count, grid.generator(name, "direction", fold))
            interventions = []
            for i, direction in enumerate(drawn):
                whole = np.zeros_like(erased.direction)
                whole[cell.units] = direction
                taken = component_energy(given, direction, middle)
                scale = float(np.sqrt(aim / taken)) if taken > 0 else 1.0
                interventions.append(Erase(f"direction{i}", whole, erased.middle, scale))
            found.append(interventions)
        for i in range(count):
            yield [(cell, interventions[i]) for cell, interventions in zip(cells, found, strict=True)]


def _resampled(grid: _Grid, count: int) -> Iterator[How]:
    """Every cell with the activations of another image, the same for all cells."""
    for i in range(count):
        intervention = grid.resampled(i)
        for name in grid.cells:
            yield [(group, intervention) for group in grid.groups(name)]


def _roles(grid: _Grid, path_to_truth: str, resample: int) -> Iterator[How]:
    """What is known to do one thing, in every way."""
    where = {"layer": grid.where["layer"], "class_id": grid.where["class_id"]}
    layer_units = grid.sample.layer_units
    donated = [[grid.resampled(i)] * FOLDS for i in range(resample)]
    for name, units in networks.roles(path_to_truth, **where, layer_units=layer_units).items():
        group = Group(name, "role", units, layer_units)
        for interventions in (*grid.replacing.values(), *donated):
            yield [(group, intervention) for intervention in interventions]


def _all(grid: _Grid) -> Iterator[How]:
    """The whole layer, the positive control."""
    everything = Group("all", "all", np.arange(grid.sample.layer_units), grid.sample.layer_units)
    yield [(everything, ZERO)] * FOLDS


def _check_all(effects: pa.Table, path: str, layer: str) -> None:
    """Where nothing passes a layer by and it puts out zero, a network must say the same of all images."""
    z = np.stack(effects["z_ablated"].to_numpy())
    if np.ptp(z, axis=0).max() > 1e-3:
        raise StudyError(f"{path}: with all of {layer} at zero the images still differ; the ablation did not reach it")


def named(head: Mapping[str, object], effects: pa.Table, schema: pa.Schema = SCHEMA) -> pa.Table:
    """Rows of `ablations.SCHEMA` as rows of `schema`, with the columns of `head`, those of `GROUP` among them."""
    columns = {name: [value] * len(effects) for name, value in head.items()}
    columns |= {name: effects[name] for name in schema.names if name not in columns}
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


@torch.inference_mode()
def control(
    grid: Grid,
    *,
    path_to_controls: str,
    path_to_truth: str | None = None,
    random: int,
    matched: int,
    directions: int,
    resample: int,
    seed: int,
    made: str | None = None,
) -> str:
    """Ablate a grid's controls, cross-fitted, and write a row per group, intervention and image.

    Of each kind so many as the config says, the whole layer, and, where the network's truth is known, the groups of one
    role each; all go through one prefix.
    """
    at = _Grid(grid, seed)
    known = _roles(at, path_to_truth, resample) if path_to_truth else ()
    energies: dict[str, np.ndarray] = {}
    parts = []
    for how in itertools.chain(
        _all(at),
        _random(at, random),
        _matched(at, matched),
        _directions(at, directions),
        _resampled(at, resample),
        known,
    ):
        group, intervention = how[0]
        # A direction takes a component, as erase does, which of the whole layer is erase's.
        reference = "erase" if intervention.name.startswith("direction") else intervention.name
        if reference not in energies:
            replacing = at.replacing.get(reference) or [one for _, one in how]
            energies[reference] = at.sample.layer_energy([(group, one) for one in replacing])
        effects = at.sample.effects("crossfit", how, energy_layer=energies[reference])
        if group.kind == "all" and len(at.sample.alive) == 1:
            _check_all(effects, path_to_controls, grid.layer)
        head = at.where | {
            "group": group.name,
            "kind": group.kind,
            "protocol": "crossfit",
            "intervention": intervention.name,
            # Of matched groups, which differ from fold to fold, the mean.
            "units": round(np.mean([len(group.units) for group, _ in how])),
        }
        parts.append(named(head, effects))
    table = pa.concat_tables(parts)
    parquet.write(path_to_controls, {name: table[name] for name in SCHEMA.names}, SCHEMA, made)
    return f"{len(parts)} ablations"
