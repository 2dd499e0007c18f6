"""Step `trials`: what is shown in each trial of the occlusion task, and the pictures themselves."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from inputs.sources import NetworkSource
from jobs import image_sets, images, networks, pictures, visualisations
from readout import blur, conditions, occluders
from readout.conditions import CONDITIONS, NONE, PLAIN, SYNTHETIC, Condition
from runtime import parquet

ASKED = (
    ("trial", pa.string()),
    ("network", pa.string()),
    ("layer", pa.string()),
    ("class_id", pa.string()),
    ("cell", pa.string()),
    ("unit", pa.int32()),
    ("set", pa.int32()),
    ("condition", pa.string()),
)
"""What says which trial a row is of, in every table of trials and of answers."""
TRIALS = pa.schema(
    [
        *ASKED,
        ("base", pa.string()),
        ("min", pa.string()),
        ("max", pa.string()),
        ("references", pa.list_(pa.string())),
        ("relative_difference", pa.float64()),
    ]
)
"""A row per unit, image set and condition; pictures by their names in `stimuli.parquet`."""
GRID = ("network", "layer", "class_id")
SAME = ("cell", "base", "min", "max", "relative_difference")
"""Columns that a unit and image set has the same in all conditions."""


def read_trials(path: str) -> list[dict]:
    """Rows of a table of trials, of which there may be none.

    StudyError where it is of several grids, or has not every unit and image set once in each of its conditions, with
    the same queries.
    """
    table = parquet.read(path, TRIALS, empty=True)
    image_sets.numbers(path, table)
    rows = table.to_pylist()
    strange = sorted({row["condition"] for row in rows} - set(CONDITIONS))
    if strange:
        image_sets.refuse(path, f"has trials of the conditions {strange}; there are {', '.join(CONDITIONS)}")
    by_set: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        of_set = by_set.setdefault((row["unit"], row["set"]), {})
        if row["condition"] in of_set:
            image_sets.refuse(path, f"a trial is there twice, of unit {row['unit']}, set {row['set']}")
        of_set[row["condition"]] = row
        # Of a unit none of whose visualisations is finite there is nothing to show.
        if (row["condition"] != NONE) != bool(row["references"]) and row["condition"] != SYNTHETIC[0]:
            image_sets.refuse(
                path, f"trial {row['trial']} of condition {row['condition']} has {len(row['references'])} references"
            )
    known = {row["condition"] for row in rows}
    one = {tuple(row[name] for name in GRID) for row in rows}
    whole = all(
        of_set.keys() == known and len({tuple(row[name] for name in SAME) for row in of_set.values()}) == 1
        for of_set in by_set.values()
    )
    named = all(pictures.HASH.fullmatch(row["trial"]) and image_sets.CELL.fullmatch(row["cell"]) for row in rows)
    if len(one) > 1 or not whole or not named or len({row["trial"] for row in rows}) < len(rows):
        image_sets.refuse(path, "has not every trial of one grid once, the same in each condition")
    return rows


class _Gallery:
    """The pictures of a grid's trials by name; photographs as the network's transform leaves them, not yet normalised.

    `by_name` are their bytes, PNGs with 8 bits a channel.
    """

    def __init__(self, source: NetworkSource):
        self.prepared = networks.prepared(source)
        transform = self.prepared.transform
        self.mean, self.std = (torch.tensor(transform[name]).view(3, 1, 1) for name in ("mean", "std"))
        self.by_name: dict[str, bytes] = {}

    def photograph(self, name: str) -> torch.Tensor:
        """An image of the data set [3, H, W] in [0, 1]."""
        return images.load([name], self.prepared)[0] * self.std + self.mean

    def add(self, content: bytes | torch.Tensor) -> str:
        """Keep a picture, given as a PNG or as an image [3, H, W] in [0, 1]; its name."""
        content = pictures.png(content) if isinstance(content, torch.Tensor) else content
        name = pictures.digest(content)
        self.by_name[name] = content
        return name


def _visualisations(
    paths: Mapping[str, str], units: Sequence[Mapping], path_to_units: str, width: int
) -> dict[tuple[int, str], list[bytes]]:
    """Feature visualisations by unit and batch, in their order; those that failed among them."""
    found: dict[tuple[int, str], list[bytes]] = {}
    for cell, path in paths.items():
        of_cell = {row["unit"]: row["status"] for row in units if row["cell"] == cell}
        for row in visualisations.read(path, of_cell, path_to_units, width):
            if row["png"] is not None:
                found.setdefault((row["unit"], row["batch"]), []).append(row["png"])
    return found


def _windows(path: str | None, references: Sequence[Mapping], width: int) -> dict[tuple[int, int, int], dict]:
    """The sharp squares of blurred references, by unit, image set and bin; none without the condition."""
    rows = image_sets.windows(path, references, width) if path else []
    return {(row["unit"], row["set"], row["bin"]): row for row in rows}


def _references(
    gallery: _Gallery,
    beside: Sequence[Mapping],
    chosen: Sequence[Condition],
    sharp: Mapping[tuple[int, int, int], dict],
) -> dict[str, list]:
    """Names of the photographs of an image set, as they are and blurred, the weakest bin first."""
    found = {"natural": [], "blurred": []}
    for row in beside:
        photograph = gallery.photograph(row["source"])
        if set(PLAIN).intersection(chosen):
            found["natural"].append(gallery.add(photograph))
        if "blur" in chosen:
            window = sharp[row["unit"], row["set"], row["bin"]]
            at = np.array([[window["top"], window["left"]]])
            found["blurred"].append(gallery.add(blur.windows(photograph, at, window["size"])[0]))
    return found


def assemble(
    *,
    path_to_units: str,
    path_to_sets: str,
    path_to_extremes: str,
    path_to_windows: str | None,
    paths_to_visualisations: Mapping[str, str],
    path_to_trials: str,
    path_to_stimuli: str,
    network: str,
    layer: str,
    class_id: str,
    source: NetworkSource,
    chosen: Sequence[Condition],
    study: str,
    made: str | None = None,
) -> str:
    """Write the trials of a grid's units in the conditions `chosen`, and their pictures.

    The two queries of a unit and image set are the same in all conditions. Image sets without a right answer have no
    trials; a grid may have none.
    """
    at = {"network": network, "layer": layer, "class_id": class_id}
    units, sets = image_sets.listed(path_to_units, path_to_sets)
    bases, shown_beside = (image_sets.shown(units, sets, role) for role in ("base", "reference"))
    gallery, trials = _Gallery(source), []
    width = gallery.prepared.transform["crop"]
    extremes = image_sets.extremes(path_to_extremes, bases, width)
    drawn = _visualisations(paths_to_visualisations, units, path_to_units, width)
    sharp = _windows(path_to_windows, shown_beside, width)
    cells = {row["unit"]: row["cell"] for row in units}
    beside: dict[tuple[int, int], list[dict]] = {}
    for row in shown_beside:
        beside.setdefault((row["unit"], row["set"]), []).append(row)
    for row, of_base in zip(extremes, bases, strict=True):
        unit, number = row["unit"], row["set"]
        if not row["valid"]:
            continue
        base = gallery.photograph(of_base["source"])
        squares = np.array([[row["min_top"], row["min_left"]], [row["max_top"], row["max_left"]]])
        queries = occluders.occlude(base, squares, row["size"])
        shown = {"base": gallery.add(base), "min": gallery.add(queries[0]), "max": gallery.add(queries[1])}
        natural = _references(gallery, beside[unit, number], chosen, sharp)
        made_up = {batch: [gallery.add(png) for png in drawn.get((unit, batch), [])] for batch in SYNTHETIC}
        for condition in chosen:
            references = conditions.references(condition, **natural, **made_up)
            # Of what is shown, too: answers to other pictures are to another trial. The queries are in an order that
            # is the same whichever is the max one: all that goes into a name can be guessed, and the name be tried.
            pair = sorted((shown["min"], shown["max"]))
            asked = (study, network, layer, class_id, unit, number, condition, shown["base"], *pair, *references)
            told = {
                "trial": pictures.digest("\0".join(map(str, asked)).encode()),
                **at,
                "cell": cells[unit],
                "unit": unit,
                "set": number,
                "condition": condition,
            }
            told |= {"references": references, **shown}
            trials.append(told | {"relative_difference": row["relative_difference"]})
    stimuli = [{"stimulus": name, "png": gallery.by_name[name]} for name in sorted(gallery.by_name)]
    parquet.write(path_to_trials, trials, TRIALS, made)
    parquet.write(path_to_stimuli, stimuli, pictures.STIMULI, made)
    return f"{len(trials)} trials, {len(stimuli)} pictures"
