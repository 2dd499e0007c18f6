"""Step `visualisations`: pictures that drive the sampled units of a cell, made by optimisation."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from inputs.sources import NetworkSource
from jobs import image_sets, networks, pictures
from readout import StudyError, visualisations
from readout.conditions import MIXED
from readout.cuts import cut, cut_before
from readout.visualisations import NO_RISE, OK, SILENT, STATUSES, Activation, Result
from runtime import parquet

SCHEMA = pa.schema(
    [
        ("unit", pa.int32()),
        ("batch", pa.string()),
        ("index", pa.int32()),
        ("png", pa.binary()),
        ("activation", pa.float64()),
        ("start", pa.float64()),
        ("diversity", pa.float64()),
        ("likeness", pa.float64()),
        ("steps", pa.int32()),
        ("strongest", pa.float64()),
        ("status", pa.string()),
    ]
)
"""A row a picture; a unit that there are no trials of has one row without a picture.

`activation` is of the picture as saved, `start` of that before the first step, `strongest` of the photograph among the
unit's references that drives it most; `likeness` is D of the pictures of the batch, and `diversity` its weight.
"""
OPTIONAL = ("png", "activation", "start", "diversity", "likeness", "strongest")
"""Columns without a value where there is no picture, or where a number is not finite."""

Unit = Literal["unit", "channel"]
Prefix = Callable[[torch.Tensor], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class _Network:
    """A network up to a layer, and how it sees pictures.

    `before` and `behind` end on either side of the layer's non-linearity; `opening` is the former with a way round
    non-linearities that are shut.
    """

    before: Prefix
    behind: Prefix
    opening: Prefix
    unit: Unit
    device: torch.device
    width: int
    mean: Sequence[float]
    std: Sequence[float]
    row: Mapping

    @classmethod
    def of(cls, path_to_layers: str, source: NetworkSource, layer: str, unit: Unit, device: str) -> "_Network":
        # OpenVINO's tails have no gradient; a prefix is torch's anyway.
        traced = networks.engine(source, device="cpu" if device == "openvino" else device)
        row = networks.layer_nodes(path_to_layers, [layer], traced)[layer]
        before, behind = cut_before(traced, row["node"]).prefix, cut(traced, row["node"]).prefix
        transform = networks.prepared(source).transform
        return cls(
            before,
            behind,
            visualisations.redirected(before),
            unit,
            networks.torch_device(device),
            transform["crop"],
            transform["mean"],
            transform["std"],
            row,
        )

    def _at(self, place: int, prefix: Prefix) -> Activation:
        def activation(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            layer = prefix(networks.to_device(images, self.device))[0]
            apart = networks.channels(self.row).apart(layer)
            if self.unit == "channel":
                return apart.mean(2)[:, place], apart
            # ASSUME: a unit stays where it is while pictures move; they show what drives it within that reach.
            return layer.flatten(1)[:, place], apart

        return activation

    def activation(self, place: int) -> Activation:
        """Of a unit (its place in the layer's order) behind the non-linearity, or of a channel (its number) before."""
        return self._at(place, self.before if self.unit == "channel" else self.behind)

    def synthesised(self, place: int, **settings) -> Result:
        """Pictures of a unit, with the other arguments of `readout.visualisations.synthesise`."""
        # ASSUME: of a unit behind the non-linearity, too, its input is optimised; a silent unit has no slope.
        return visualisations.synthesise(
            self.activation(place),
            climbed=self._at(place, self.before),
            opening=self._at(place, self.opening),
            width=self.width,
            mean=self.mean,
            std=self.std,
            device=self.device,
            **settings,
        )

    @torch.no_grad()
    def of_saved(self, place: int, pngs: Sequence[bytes]) -> list[float]:
        """The activations on pictures as they are saved."""
        pixels = np.stack([pictures.pixels(png) for png in pngs])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device).float() / 255
        mean, std = (torch.tensor(list(values), device=self.device).view(3, 1, 1) for values in (self.mean, self.std))
        return self.activation(place)((images - mean) / std)[0].tolist()


def generator(seed: int, network: str, layer: str, class_id: str, unit: int, batch: str) -> torch.Generator:
    """The generator of all that is random in a batch of pictures; it depends on these alone."""
    entropy = "\0".join([str(seed), network, layer, class_id, str(unit), batch])
    digest = hashlib.sha256(entropy.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rows(network: _Network, place: int, result: Result) -> list[dict]:
    """The rows of a batch of pictures, without what they are of."""
    # A picture that is not finite cannot be saved, nor be recomputed from what is.
    drawable = result.images.isfinite().flatten(1).all(1).tolist()
    pngs = [pictures.png(image) if fine else None for image, fine in zip(result.images, drawable, strict=True)]
    saved = iter(network.of_saved(place, [png for png in pngs if png]) if any(drawable) else [])
    found = []
    for index, (png, start, status) in enumerate(zip(pngs, result.start.tolist(), result.status, strict=True)):
        activation = next(saved) if png else math.nan
        # What 8 bits lose may be all that a picture had gained.
        own = visualisations.status(activation, start)
        found.append(
            {
                "index": index,
                "png": png,
                "activation": _finite(activation),
                "start": _finite(start),
                "diversity": result.diversity,
                "likeness": _finite(result.likeness),
                "steps": result.steps,
                "status": own if status == OK else status,
            }
        )
    return found


def _units(rows: Sequence[Mapping], path_to_units: str, cell: str, row: Mapping) -> list[Mapping]:
    """The sampled units of a cell, in order; none where a draw of the whole layer, or of channels, has taken none."""
    found = [each for each in rows if each["cell"] == cell]
    channels = networks.channels(row)
    for each in found:
        if not 0 <= each["unit"] < row["units"] or each["channel"] != channels.of_unit(each["unit"]):
            raise StudyError(
                f"{path_to_units}: unit {each['unit']} of channel {each['channel']} is none of the {row['units']} of "
                f"{row['layer']}; {parquet.again(path_to_units)}"
            )
    return sorted(found, key=lambda each: each["unit"])


def _strongest(references: Sequence[Mapping]) -> dict[int, float]:
    """The activation on the reference that drives each unit most."""
    found: dict[int, float] = {}
    for row in references:
        found[row["unit"]] = max(row["activation"], found.get(row["unit"], -math.inf))
    return found


def read(path: str, of_cell: Mapping[int, str], path_to_units: str, width: int) -> list[dict]:
    """Rows of a cell's table; StudyError where it has not the pictures of so many pixels of each of the cell's units.

    `of_cell` has the statuses of the cell's sampled units by number, from `path_to_units`.
    """
    rows = parquet.read(path, SCHEMA, optional=OPTIONAL, empty=True).to_pylist()
    image_sets.visualised(path, rows, of_cell, path_to_units, STATUSES)
    for row in rows:
        # What is not finite has no picture, nor has a unit without trials.
        without = row["png"] is None and row["status"] not in (OK, SILENT, NO_RISE)
        if not without and not (row["png"] and pictures.fits(row["png"], width)):
            image_sets.refuse(path, f"picture {row['index']} of unit {row['unit']} is no PNG of {width} pixels a side")
    return rows


def synthesise(
    *,
    path_to_units: str,
    path_to_sets: str,
    path_to_layers: str,
    path_to_visualisations: str,
    network: str,
    layer: str,
    class_id: str,
    cell: str,
    source: NetworkSource,
    device: str,
    unit: Unit,
    batch: int,
    steps: int,
    learning_rate: float,
    diversity: float | None,
    seed: int,
    made: str | None = None,
) -> str:
    """Write pictures that drive each sampled unit of a cell: `batch` by themselves, and four for beside photographs.

    `unit` says what is driven: a unit of the layer, behind the non-linearity, or the mean of its channel before it.
    Units without trials have a row that says why, and so have pictures that do not drive their unit. `diversity` is the
    weight of D; None searches it for each unit (`readout.visualisations.most_diverse`). The other arguments are those
    of `readout.visualisations.synthesise`. Returns what came out, in words.
    """
    units, sets = image_sets.listed(path_to_units, path_to_sets)
    sampled = _units(units, path_to_units, cell, networks.layer_nodes(path_to_layers, [layer])[layer])
    alive = [each["unit"] for each in sampled if each["status"] == OK]
    strongest = _strongest(image_sets.shown(sampled, sets, "reference"))
    # Many cells have no unit where units are drawn from the whole layer: their jobs load no network.
    net = _Network.of(path_to_layers, source, layer, unit, device) if alive else None
    # ASSUME: where a batch has four pictures, the same stand alone and beside photographs.
    batches = {"synthetic": batch} if batch == MIXED else {"synthetic": batch, "mixed": MIXED}
    rows = []
    for each in sampled:
        if each["status"] != OK:
            rows.append({"unit": each["unit"], "batch": "synthetic", "index": 0, "steps": 0, "status": each["status"]})
            continue
        place = each["channel"] if unit == "channel" else each["unit"]
        beaten = strongest[each["unit"]]
        for name, count in batches.items():
            entropy = (seed, network, layer, class_id, each["unit"], name)

            def make(
                weight: float, place: int = place, count: int = count, entropy: tuple[int | str, ...] = entropy
            ) -> Result:
                return net.synthesised(
                    place,
                    batch=count,
                    steps=steps,
                    learning_rate=learning_rate,
                    diversity=weight,
                    generator=generator(*entropy),
                )

            result = visualisations.most_diverse(make, beaten) if diversity is None else make(diversity)
            common = {"unit": each["unit"], "strongest": beaten}
            of_batch = _rows(net, place, result)
            for kind in (name,) if len(batches) > 1 else ("synthetic", "mixed"):
                rows += [common | {"batch": kind} | row for row in of_batch]
    parquet.write(path_to_visualisations, rows, SCHEMA, made)
    count = sum(row.get("png") is not None for row in rows)
    failed = sum(row["status"] != OK for row in rows)
    return f"{count} pictures of {len(alive)} units; of {len(rows)} rows {failed} tell of a failure"
