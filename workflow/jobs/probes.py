"""Step `probes`: the probes of one cell."""

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from jobs import activations, cells, images, memory, parquet
from jobs.logs import logged
from readout import probes

HELD_OUT = pa.list_(pa.struct([("image_id", pa.int32()), ("y", pa.int8()), ("p", pa.float64())]))
SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("cell", pa.string()),
        ("units", pa.int32()),
        ("draws", pa.int32()),
        ("score_published", pa.float64()),
        ("accuracy_train", pa.float64()),
        ("accuracy", pa.float64()),
        ("auroc", pa.float64()),
        ("log_loss", pa.float64()),
        ("chance", pa.float64()),
        ("chance_majority", pa.float64()),
        ("held_out", HELD_OUT),
    ]
)


def _contrast(path_to_images: str, files: Sequence[str]) -> dict[str, np.ndarray]:
    """Ids and folds of the target's images (the first file) and the others': shared by the cells of a group."""
    parts = [activations.load(path) for path in files]
    ids = np.concatenate([part[0] for part in parts])

    def folds() -> dict[int, int]:
        rows = images.rows(path_to_images)
        return dict(zip(rows["image_id"].tolist(), rows["fold"].tolist(), strict=True))

    fold_of = memory.shared(("folds", memory.stamp(path_to_images)), folds)
    return {
        "image_id": ids,
        "is_target": np.arange(len(ids)) < len(parts[0][0]),
        "fold": np.array([fold_of[i] for i in ids.tolist()]),
    }


@logged
def probe(
    output: str,
    paths: SimpleNamespace,
    place: SimpleNamespace,
    *,
    seed: int,
    draws: int,
    units: int,
    C: float,
    strength: float | Sequence[float],
) -> None:
    """Fit both probes on a cell's units and write their one row.

    `paths` has `cells`, `images`, `target` and `others`; `place` is network, layer, class_id and cell.
    """
    files = (paths.target, *paths.others)
    members = cells.units(paths.cells, place.cell)
    contrast = memory.shared(
        ("contrast", memory.stamp(paths.images), *map(memory.stamp, files)), lambda: _contrast(paths.images, files)
    )
    x = np.concatenate([activations.load(path)[1][:, members] for path in files])
    is_target = contrast["is_target"]
    # The draws of a cell depend on its coordinates alone, not on the order of the jobs.
    entropy = hashlib.sha256(
        "\0".join([str(seed), place.network, place.layer, place.class_id, place.cell]).encode()
    ).digest()
    generator = np.random.default_rng(list(entropy))
    published = probes.published(x, is_target, draws=draws, units=units, C=C, generator=generator)
    held_out = probes.held_out(x, is_target, contrast["fold"], strength)
    order = np.argsort(contrast["image_id"])
    columns = (contrast["image_id"][order], is_target[order].astype(np.int8), held_out.p[order])
    row = {
        "network": place.network,
        "layer": place.layer,
        "class_id": place.class_id,
        "cell": place.cell,
        "units": len(members),
        "draws": draws,
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
