"""Step `occlusions`: units of a grid, the images that drive them, and the squares that they mind most and least."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
import torch

from inputs import datasets
from inputs.sources import NetworkSource
from jobs import groups, image_sets, images, networks
from jobs.image_sets import CONSTANT, EXTREMES, OK, SETS, SIDES, SPARSE, UNITS, WINDOWS
from readout import StudyError, baselines, occluders, squares
from readout.blur import opening
from readout.cuts import cut, cut_before
from readout.layers import Channels
from runtime import parquet, process

Unit = Literal["unit", "channel"]
Per = Literal["cell", "layer"]
LEAST_RANGE = 1e-8
"""A unit whose activation varies less over the pool is constant, as in the machine interpretability score's paper."""


def list_pool(
    path_to_pool: str,
    *,
    path_to_images: str,
    dataset: str,
    path: str | None,
    labels: Mapping[str, int],
    most: int | None,
    seed: int,
    made: str | None = None,
) -> str:
    """Write `occlusions/pool.parquet`: the images of the data set that are not studied, at most `most` of them.

    `labels` maps the classes to their outputs. The columns are those of `images.parquet`, the split is `pool`, and the
    fold is 0, since nothing is fitted on these images. StudyError where the data set has none beside the study images.
    """
    data = datasets.dataset(dataset, path)
    studied, found, rows = set(images.rows(path_to_images)["image_id"].tolist()), data.image_ids, []
    for class_id in sorted(labels):
        if class_id not in found:
            raise StudyError(f"class {class_id}: its images are no longer in {path}; run again")
        for source, image_id in found[class_id].items():
            if image_id not in studied:
                rows.append((image_id, class_id, labels[class_id], "pool", 0, source))
    if not rows:
        raise StudyError(
            "occlusion: the data set has no image beside the study images; lower images.study, or set occlusion to null"
        )
    rows.sort()
    if most is not None and len(rows) > most:
        drawn = np.random.default_rng(seed).choice(len(rows), most, replace=False)
        rows = [rows[i] for i in np.sort(drawn)]
    columns = dict(zip(images.SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True))
    parquet.write(path_to_pool, columns, images.SCHEMA, made)
    return f"{len(rows)} images"


class Layer:
    """A layer of a network as the units of a study, or its channels before the non-linearity, see it.

    `value` takes images [N, 3, H, W], as the network sees them, to the layer's output [N, ...].
    """

    def __init__(self, path_to_layers: str, layer: str, source: NetworkSource, device: str, channels: bool):
        self.device = networks.torch_device(device)
        traced = networks.engine(source, device=device)
        self.rows = networks.layer_nodes(path_to_layers, [layer], traced)
        self.row = self.rows[layer]
        self.channels = channels
        self.behind = cut(traced, self.row["node"]).prefix
        self.prefix = cut_before(traced, self.row["node"]).prefix if channels else self.behind
        self.of_units = networks.channels(self.row)

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return self.prefix(networks.to_device(x, self.device))[0]

    def chosen(self, value: torch.Tensor, units: Sequence[int]) -> torch.Tensor:
        """Activations [N, units] of scalar units, or the means over positions of the channels that hold these."""
        if self.channels:
            return self.of_units.apart(value).mean(2)[:, [self.of_units.of_unit(unit) for unit in units]]
        return value.flatten(1)[:, list(units)]

    def maps(self, x: torch.Tensor, unit: int) -> torch.Tensor:
        """The activation maps of a unit's channel behind the non-linearity, [N, height, width], or [N, 1, tokens]."""
        maps = self.of_units.apart(self.behind(networks.to_device(x, self.device))[0])
        rows = self.of_units.places[0] if len(self.of_units.places) > 1 else 1
        return maps[:, self.of_units.of_unit(unit)].reshape(len(maps), rows, -1)

    def batches(self, count: int) -> list[slice]:
        return networks.batches(count, self.rows.values())


def _generator(*parts: object) -> np.random.Generator:
    """A generator of its own for a draw; what else is drawn does not change it."""
    return np.random.default_rng(list(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()))


def sample(
    cells: Mapping[str, np.ndarray], units: int, per: Per, of: Channels, channels: bool, target: str, *at: object
) -> list[dict]:
    """Rows of drawn units: so many of each cell, or of the whole layer, or fewer where there are fewer.

    `of` are the channels of the layer. With `channels` these are drawn; each has the number of its first unit, and is
    of one cell alone. The seed and the rest of `at` decide the draw, and the target where it is of cells, which are the
    target's.
    """
    named = {unit: cell for cell, of_cell in cells.items() for unit in of_cell.tolist()}
    if channels:
        # ASSUME: a channel belongs to the cell of one of its units, the same for all targets, drawn by the seed.
        places = _generator(*at, "channels").integers(of.area, size=of.count)
        named = {of.unit(channel): named[of.unit(channel, place)] for channel, place in enumerate(places.tolist())}
    parts: dict[str, list[int]] = {cell: [] for cell in cells} if per == "cell" else {"": []}
    for unit in sorted(named):
        parts[named[unit] if per == "cell" else ""].append(unit)
    rows = []
    for part, members in parts.items():
        # The first of one order: when more are asked for, those drawn before stay.
        alone = (target, part) if per == "cell" else ()
        drawn = _generator(*at, *alone).permutation(members)[:units].tolist() if members else []
        for draw, unit in enumerate(drawn):
            row = {"cell": named[unit], "draw": draw, "unit": unit, "channel": of.of_unit(unit)}
            rows.append(row | {"weight": len(members) / len(drawn)})
    return rows


def _over(layer: Layer, load: Callable[[Sequence[str]], torch.Tensor], names: Sequence[str], units) -> np.ndarray:
    """Activations of units over the images of these names [images, units], float32."""
    parts = [layer.chosen(layer.value(load(names[batch])), units) for batch in layer.batches(len(names))]
    return torch.cat(parts).float().cpu().numpy()


def _listed(
    unit: int, activations: np.ndarray, pool: Mapping[str, np.ndarray], counts: Sequence[int], draw: Sequence
) -> list[dict]:
    """The rows of a unit's image sets, by its activations over the pool [images].

    `counts` are the sets, images a bin and references of `occluders.image_sets`; `draw` decides which images share a
    set.
    """
    rows = []
    for side, sign in SIDES.items():
        for number, found in enumerate(
            occluders.image_sets(sign * activations, *counts, _generator(*draw, unit, side))
        ):
            bins = [*range(len(found.references)), len(found.references)]
            members = zip(bins, [*found.references, found.base], [*found.reference_ranks, found.base_rank], strict=True)
            for b, image, rank in members:
                row = {"unit": unit, "set": number, "side": side, "role": "base" if b == bins[-1] else "reference"}
                row |= {"bin": b, "rank": rank, "image_id": pool["image_id"][image]}
                row |= {"image_class": pool["class_id"][image], "source": pool["source"][image]}
                rows.append(row | {"activation": float(activations[image])})
    return rows


def _looks(layer: Layer, load: Callable[[Sequence[str]], torch.Tensor], names: Sequence[str], unit: int) -> dict:
    """How the map of a unit's channel looks over the images of these names, on average."""
    maps = [layer.maps(load(names[batch]), unit) for batch in layer.batches(len(names))]
    maps = torch.cat(maps).float().cpu().numpy()
    return {
        "sparsity": float(baselines.sparsity(maps).mean()),
        "contrast": float(baselines.local_contrast(maps).mean()),
    }


def _by_image(rows: Iterable[dict]) -> dict[str, list[dict]]:
    """Rows of image sets by their images: one scan of an image serves all units that see it."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["source"], []).append(row)
    return found


def _over_positions(layer: Layer, hide: occluders.Hide, at: np.ndarray, units: Sequence[int]) -> np.ndarray:
    """Activations [positions, units], float32, of the images that `hide` makes."""

    def activations(x: torch.Tensor) -> np.ndarray:
        return layer.chosen(layer.value(x), units).float().cpu().numpy()

    return occluders.scan(activations, hide, at, layer.batches(len(at)))


def _extremes(
    layer: Layer, image: torch.Tensor, units: Sequence[int], size: int, stride: int, refine: int | None
) -> Iterator[dict]:
    """The columns of `EXTREMES` on the occluders of an image, for each of the units.

    With `refine`, positions around both extremes of a unit are tried by this stride, too.
    """
    width = image.shape[-1]
    grid, hide = squares.positions(width, size, stride), occluders.occluding(image, size)
    values = _over_positions(layer, hide, grid, units)
    base = layer.chosen(layer.value(image[None]), units)[0].tolist()
    for i, unit in enumerate(units):
        at, of_unit = grid, values[:, i]
        found = occluders.extremes(of_unit, base[i], at, size)
        if refine and found.valid:
            centres = (found.min_top, found.min_left), (found.max_top, found.max_left)
            closer = [squares.around(centre, width, size, stride // 2, refine) for centre in centres]
            tried = {tuple(position) for position in at.tolist()}
            more = [each for each in np.unique(np.concatenate(closer), axis=0).tolist() if tuple(each) not in tried]
            if more:
                further = _over_positions(layer, hide, np.array(more), [unit])
                at, of_unit = np.concatenate([at, more]), np.concatenate([of_unit, further[:, 0]])
                # The first among equals is the first in the order of rows.
                order = np.lexsort((at[:, 1], at[:, 0]))
                at, of_unit = at[order], of_unit[order]
            found = occluders.extremes(of_unit, base[i], at, size)
        yield {"size": size, "stride": stride, "positions": len(at), **asdict(found)}


@torch.inference_mode()
def draw(
    *,
    path_to_cells: str,
    path_to_pool: str,
    path_to_layers: str,
    path_to_units: str,
    path_to_sets: str,
    network: str,
    layer: str,
    class_id: str,
    classes: Sequence[str],
    source: NetworkSource,
    device: str,
    unit: Unit,
    units: int,
    per: Per,
    sets: int,
    bin: int,
    references: int,
    top: float,
    seed: int,
    made: str | None = None,
) -> str:
    """Draw units of a grid, and list the images of the pool that drive them most and least.

    `unit` is `unit`, for scalars of the layer, or `channel`, for means of whole channels before the non-linearity;
    `units` of them are drawn `per` cell or layer. Of the pool, the images of `classes` count, of which a unit's image
    sets may take the share `top` at most.
    """
    at = Layer(path_to_layers, layer, source, device, channels=unit == "channel")
    prepared = networks.prepared(source)
    pool = images.rows(path_to_pool, split="pool")
    pool = {name: column[np.isin(pool["class_id"], list(classes))] for name, column in pool.items()}
    count = bin * (references + 1)
    if count > top * len(pool["source"]):
        raise StudyError(
            f"occlusion: {count} images of a unit ({references + 1} bins of {bin}) are more than {top:g} of the pool, "
            f"which has {len(pool['source'])} images; choose fewer references or image sets, or lower images.study"
        )

    def load(names: Sequence[str]) -> torch.Tensor:
        return images.load(names, prepared)

    drawn = sample(groups.units(path_to_cells), units, per, at.of_units, at.channels, class_id, seed, network, layer)
    activations = _over(at, load, pool["source"], [row["unit"] for row in drawn])
    if not np.isfinite(activations).all():
        raise StudyError(f"{network} {layer}: an activation is not finite; the network or its weights are broken")
    listed = []
    for row, values in zip(drawn, activations.T, strict=True):
        least, most, driving = float(values.min()), float(values.max()), int((values > 0).sum())
        row |= {"least": least, "most": most, "driving": driving, "status": OK}
        if most - least < LEAST_RANGE:
            row["status"] = CONSTANT
        elif not at.channels and driving < count:
            # An image that leaves a unit silent does not show what drives it.
            row["status"] = SPARSE
        of_unit = _listed(row["unit"], values, pool, (sets, bin, references), (seed, network, layer))
        row |= _looks(at, load, sorted({entry["source"] for entry in of_unit if entry["side"] == "top"}), row["unit"])
        listed += of_unit
    parquet.write(path_to_units, drawn, UNITS, made)
    parquet.write(path_to_sets, listed, SETS, made)
    process.give_back()
    return f"{len(drawn)} units, {sum(row['status'] == OK for row in drawn)} of them vary and are shown"


@torch.inference_mode()
def occlude(
    *,
    path_to_units: str,
    path_to_sets: str,
    path_to_layers: str,
    path_to_extremes: str,
    network: str,
    layer: str,
    class_id: str,
    source: NetworkSource,
    device: str,
    unit: Unit,
    side: float,
    stride: int,
    refine: int | None,
    made: str | None = None,
) -> str:
    """Hide squares of the base images of a grid's units, and write which of them the units mind most and least."""
    at = Layer(path_to_layers, layer, source, device, channels=unit == "channel")
    prepared = networks.prepared(source)
    size = squares.side(prepared.transform["crop"], side, stride)
    shown, queries = image_sets.shown(*image_sets.listed(path_to_units, path_to_sets), "base"), {}
    for name, rows in _by_image(shown).items():
        found = _extremes(at, images.load([name], prepared)[0], [row["unit"] for row in rows], size, stride, refine)
        for row, extremes in zip(rows, found, strict=True):
            head = {key: row[key] for key in ("unit", "set", "image_id")}
            queries[row["unit"], row["set"]] = {**head, **extremes}
    # In the order of the units and sets.
    ordered = [queries[row["unit"], row["set"]] for row in shown]
    parquet.write(path_to_extremes, ordered, EXTREMES, made)
    process.give_back()
    return f"{len(ordered)} image sets, {sum(row['valid'] for row in ordered)} with a right answer"


@torch.inference_mode()
def look(
    *,
    path_to_units: str,
    path_to_sets: str,
    path_to_layers: str,
    path_to_windows: str,
    network: str,
    layer: str,
    class_id: str,
    source: NetworkSource,
    device: str,
    unit: Unit,
    side: float,
    stride: int,
    blur: int,
    made: str | None = None,
) -> str:
    """Blur the references of a grid's units but for a square, moved by `blur` pixels, and write where it serves best.

    The square is the occluder's; the first among equals.
    """
    at = Layer(path_to_layers, layer, source, device, channels=unit == "channel")
    prepared = networks.prepared(source)
    width = prepared.transform["crop"]
    size = squares.side(width, side, stride)
    places = squares.covering(width, size, blur)
    shown, found = image_sets.shown(*image_sets.listed(path_to_units, path_to_sets), "reference"), {}
    for name, rows in _by_image(shown).items():
        hide = opening(images.load([name], prepared)[0], size)
        values = _over_positions(at, hide, places, [row["unit"] for row in rows])
        for row, of_unit in zip(rows, values.T, strict=True):
            best = int(of_unit.argmax())
            top, left = places[best].tolist()
            window = {"size": size, "top": top, "left": left, "activation": float(of_unit[best])}
            found[row["unit"], row["set"], row["bin"]] = {key: row[key] for key in ("unit", "set", "bin")} | window
    ordered = [found[row["unit"], row["set"], row["bin"]] for row in shown]
    parquet.write(path_to_windows, ordered, WINDOWS, made)
    process.give_back()
    return f"{len(ordered)} windows"
