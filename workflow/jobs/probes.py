"""Step `probes`: the probes of one cell."""

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from jobs import activations, cells
from readout import StudyError, probes
from runtime import parquet
from runtime.logs import logged

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


@logged
def probe(
    output: str,
    paths: SimpleNamespace,
    others: Sequence[str],
    place: SimpleNamespace,
    *,
    seed: int,
    draws: int,
    units: int,
    C: float,
    strength: float | Sequence[float],
) -> None:
    """Fit both probes on a cell's units and write their one row.

    `paths` has `cells` and `target`, the target's activations, `others` are those of the others; `place` is network,
    layer, class_id and cell.
    """
    members, of = cells.units(paths.cells, place.cell)
    (image_id, fold, x), counts = activations.gather((paths.target, *others), members, of)
    is_target = np.arange(len(x)) < counts[0]
    # The draws of a cell depend on its coordinates alone, not on the order of the jobs.
    entropy = hashlib.sha256(
        "\0".join([str(seed), place.network, place.layer, place.class_id, place.cell]).encode()
    ).digest()
    generator = np.random.default_rng(list(entropy))
    try:
        published = probes.published(x, is_target, draws=draws, units=units, C=C, generator=generator)
        held_out = probes.held_out(x, is_target, fold, strength)
    except StudyError as error:
        raise StudyError(f"{paths.target}: {place.cell}: {error}") from error
    order = np.argsort(image_id)
    columns = (image_id[order], is_target[order].astype(np.int8), held_out.p[order])
    row = {
        "network": place.network,
        "layer": place.layer,
        "class_id": place.class_id,
        "cell": place.cell,
        "units": len(members),
        "draws": published.draws,
        "score_published": published.score,
        "accuracy_train": published.accuracy,
        "accuracy": held_out.accuracy,
        "auroc": held_out.auroc,
        "log_loss": held_out.log_loss,
        "chance": 0.5,
        "chance_majority": float(max(is_target.mean(), 1 - is_target.mean())),
    }
    images_of_cell = pa.StructArray.from_arrays(
        [pa.array(column) for column in columns], fields=list(HELD_OUT.value_type)
    )
    content = {name: [value] for name, value in row.items()}
    content["held_out"] = pa.ListArray.from_arrays([0, len(order)], images_of_cell)
    parquet.write(output, content, SCHEMA)
