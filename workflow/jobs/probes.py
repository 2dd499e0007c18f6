"""Step `probes`: the probes of one cell, or of another group."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from jobs import activations, groups, networks
from readout import StudyError, probes
from readout.folds import FOLDS
from readout.groups import Kind
from runtime import parquet

HELD_OUT = pa.list_(pa.struct([("image_id", pa.int32()), ("fold", pa.int8()), ("y", pa.int8()), ("p", pa.float64())]))
MEASURES = pa.schema(
    [
        ("draws", pa.int32()),
        ("score_published", pa.float64()),
        ("accuracy_train", pa.float64()),
        ("accuracy", pa.float64()),
        ("auroc", pa.float64()),
        ("log_loss", pa.float64()),
        ("units_fixed", pa.int32()),
        ("auroc_fixed", pa.float64()),
        ("chance", pa.float64()),
        ("chance_majority", pa.float64()),
    ]
)
"""What the probes say of a cell; the tables of cells have these columns too."""
OPTIONAL = (
    "accuracy",
    "auroc",
    "log_loss",
    "units_fixed",
    "auroc_fixed",
    "held_out",
)
"""Columns of the cross-fitted probes, missing where these are switched off."""
SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("cell", pa.string()),
        ("units", pa.int32()),
        *MEASURES,
        ("held_out", HELD_OUT),
    ]
)


def probe(
    *,
    path_to_probe: str,
    path_to_cells: str,
    path_to_layers: str,
    path_to_target: str,
    paths_to_others: Sequence[str],
    network: str,
    layer: str,
    class_id: str,
    cell: str,
    kind: Kind,
    seed: int,
    published: Mapping,
    crossfit: Mapping | None,
    layers: Sequence[str],
    cells: int,
    made: str | None = None,
) -> None:
    """Fit the probes on the units of a cell, or of another group, and write their one row.

    `path_to_target` and `paths_to_others` are files of activations. `published` holds the settings of the published
    probe, arguments of `readout.probes.published`, and `crossfit` those of the cross-fitted ones: their C, and the
    draws of those at a fixed number of units, the size of the smallest cell of the network's `layers`, each of which
    has `cells` of them. Without it their columns are missing.
    """
    at = {"network": network, "layer": layer, "class_id": class_id}

    def find(fold: int | None = None) -> groups.Group:
        return groups.find(path_to_cells, cell, kind, **at, seed=seed, fold=fold)

    def generator(*more: str) -> np.random.Generator:
        """The draws of a cell depend on its coordinates alone, not on the order of the jobs."""
        entropy = "\0".join([str(seed), *at.values(), cell, *more])
        return np.random.default_rng(list(hashlib.sha256(entropy.encode()).digest()))

    group = find()
    of_folds = [find(fold).units for fold in range(FOLDS)] if crossfit else []
    if any(len(units) != len(group.units) for units in of_folds):
        raise StudyError(f"{path_to_cells}: {cell} differs in size between folds; {parquet.again(path_to_cells)}")
    # The cells of all folds share most of their units, and the files are gone through once.
    units = np.unique(np.concatenate([group.units, *of_folds]))
    (image_id, fold, x), counts = activations.gather((path_to_target, *paths_to_others), units, group.layer_units)
    is_target = np.arange(len(x)) < counts[0]
    row = {
        **at,
        "cell": cell,
        "units": len(group.units),
        "chance": 0.5,
        "chance_majority": float(max(is_target.mean(), 1 - is_target.mean())),
        **dict.fromkeys(OPTIONAL),
    }
    try:
        places = np.searchsorted(units, group.units)
        paper = probes.published(x, places, is_target, **published, generator=generator())
        row |= {"draws": paper.draws, "score_published": paper.score, "accuracy_train": paper.accuracy}
        if crossfit:
            places = [np.searchsorted(units, some) for some in of_folds]
            found = probes.crossfit(x, places, is_target, fold, C=crossfit["C"])
            row |= {"accuracy": found.accuracy, "auroc": found.auroc, "log_loss": found.log_loss}
            known = networks.layer_nodes(path_to_layers, layers)
            fixed = min(probes.MOST_FIXED, min(known[name]["units"] for name in layers) // cells)
            drawn = {"units": fixed, "draws": crossfit["draws"], "C": found.C, "generator": generator("fixed")}
            row |= {"units_fixed": fixed, "auroc_fixed": probes.crossfit_fixed(x, places, is_target, fold, **drawn)}
            order = np.argsort(image_id)
            images = zip(
                image_id[order].tolist(),
                fold[order].tolist(),
                is_target[order].tolist(),
                found.p[order].tolist(),
                strict=True,
            )
            row["held_out"] = [{"image_id": i, "fold": f, "y": int(y), "p": p} for i, f, y, p in images]
    except StudyError as error:
        raise StudyError(f"{path_to_target}: {cell}: {error}") from error
    parquet.write(path_to_probe, [row], SCHEMA, made)
