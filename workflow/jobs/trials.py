"""Step `trials`: what is shown in each trial of the occlusion task, and the pictures themselves."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from inputs.sources import NetworkSource
from jobs import images, networks, pictures, visualisations
from jobs.occlusions import EXTREMES, OK, SETS, UNITS, WINDOWS
from readout import blur, conditions, occluders
from readout.conditions import PLAIN, SYNTHETIC, Condition
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


def _visualisations(paths: Mapping[str, str]) -> dict[tuple[int, str], list[bytes]]:
    """Feature visualisations by unit and batch, in their order; those that failed among them."""
    found: dict[tuple[int, str], list[bytes]] = {}
    for path in paths.values():
        table = parquet.read(path, visualisations.SCHEMA, optional=visualisations.OPTIONAL, empty=True)
        for row in sorted(table.to_pylist(), key=lambda row: row["index"]):
            if row["png"] is not None:
                found.setdefault((row["unit"], row["batch"]), []).append(row["png"])
    return found


def _windows(path: str | None) -> dict[tuple[int, int, int], dict]:
    """The sharp squares of blurred references, by unit, image set and bin; none without the condition."""
    rows = parquet.read(path, WINDOWS, empty=True).to_pylist() if path else []
    return {(row["unit"], row["set"], row["bin"]): row for row in rows}


def _references(
    gallery: _Gallery, of_set: pd.DataFrame, chosen: Sequence[Condition], sharp: Mapping[tuple[int, int, int], dict]
) -> dict[str, list]:
    """Names of the photographs of an image set, as they are and blurred, the weakest bin first."""
    found = {"natural": [], "blurred": []}
    for row in of_set[of_set["role"] == "reference"].sort_values("bin").to_dict("records"):
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
    units = parquet.read(path_to_units, UNITS).to_pandas(ignore_metadata=True)
    sets = parquet.read(path_to_sets, SETS).to_pandas(ignore_metadata=True)
    extremes = parquet.read(path_to_extremes, EXTREMES, optional=["relative_difference"], empty=True).to_pylist()
    drawn, sharp = _visualisations(paths_to_visualisations), _windows(path_to_windows)
    cells = dict(zip(units["unit"], units["cell"], strict=True))
    usable = set(units.loc[units["status"] == OK, "unit"])
    top = dict(iter(sets[sets["side"] == "top"].groupby(["unit", "set"])))
    gallery, trials = _Gallery(source), []
    for row in extremes:
        unit, number = row["unit"], row["set"]
        if not row["valid"] or unit not in usable:
            continue
        of_set = top[unit, number]
        base = gallery.photograph(of_set.loc[of_set["role"] == "base", "source"].item())
        squares = np.array([[row["min_top"], row["min_left"]], [row["max_top"], row["max_left"]]])
        queries = occluders.occlude(base, squares, row["size"])
        shown = {"base": gallery.add(base), "min": gallery.add(queries[0]), "max": gallery.add(queries[1])}
        natural = _references(gallery, of_set, chosen, sharp)
        made_up = {batch: [gallery.add(png) for png in drawn.get((unit, batch), [])] for batch in SYNTHETIC}
        for condition in chosen:
            references = conditions.references(condition, **natural, **made_up)
            # Of what is shown, too: answers to other pictures are to another trial.
            asked = (study, network, layer, class_id, unit, number, condition, *shown.values(), *references)
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
