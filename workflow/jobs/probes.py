"""Step `probes`: the probes of one cell, or of another group."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from jobs import activations, groups
from readout import StudyError, probes
from readout.groups import Kind
from runtime import parquet

HELD_OUT = pa.list_(pa.struct([("image_id", pa.int32()), ("y", pa.int8()), ("p", pa.float64())]))
MEASURES = pa.schema(
    [
        ("draws", pa.int32()),
        ("score_published", pa.float64()),
        ("accuracy_train", pa.float64()),
        ("accuracy", pa.float64()),
        ("auroc", pa.float64()),
        ("log_loss", pa.float64()),
        ("chance", pa.float64()),
        ("chance_majority", pa.float64()),
    ]
)
"""What the probes say of a cell; the tables of cells have these columns too."""
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
    path_to_target: str,
    paths_to_others: Sequence[str],
    network: str,
    layer: str,
    class_id: str,
    cell: str,
    kind: Kind,
    seed: int,
    published: Mapping,
    crossfit: Mapping,
    made: str | None = None,
) -> None:
    """Fit both probes on the units of a cell, or of another group, and write their one row.

    `path_to_target` and `paths_to_others` are files of activations; `published` and `held_out` hold the settings of the
    two probes, arguments of `readout.probes.published` and `readout.probes.held_out`.
    """
    group = groups.find(path_to_cells, cell, kind, network=network, layer=layer, class_id=class_id, seed=seed)
    paths = (path_to_target, *paths_to_others)
    (image_id, fold, x), counts = activations.gather(paths, group.units, group.layer_units)
    is_target = np.arange(len(x)) < counts[0]
    # The draws of a cell depend on its coordinates alone, not on the order of the jobs.
    entropy = hashlib.sha256("\0".join([str(seed), network, layer, class_id, cell]).encode()).digest()
    try:
        paper = probes.published(x, is_target, **published, generator=np.random.default_rng(list(entropy)))
        validated = probes.held_out(x, is_target, fold, C=crossfit["C"])
    except StudyError as error:
        raise StudyError(f"{path_to_target}: {cell}: {error}") from error
    order = np.argsort(image_id)
    columns = (image_id[order], is_target[order].astype(np.int8), validated.p[order])
    row = {
        "network": network,
        "layer": layer,
        "class_id": class_id,
        "cell": cell,
        "units": len(group.units),
        "draws": paper.draws,
        "score_published": paper.score,
        "accuracy_train": paper.accuracy,
        "accuracy": validated.accuracy,
        "auroc": validated.auroc,
        "log_loss": validated.log_loss,
        "chance": 0.5,
        "chance_majority": float(max(is_target.mean(), 1 - is_target.mean())),
    }
    images_of_cell = pa.StructArray.from_arrays(
        [pa.array(column) for column in columns], fields=list(HELD_OUT.value_type)
    )
    content = {name: [value] for name, value in row.items()}
    content["held_out"] = pa.ListArray.from_arrays([0, len(order)], images_of_cell)
    parquet.write(path_to_probe, content, SCHEMA, made)
