"""Step `activations`: one forward pass a (network, class) for all its layers, and the baseline."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from jobs import images, memory, networks, parquet
from jobs.logs import logged
from readout import StudyError, activations, scores

BASELINE = pa.schema([("image_id", pa.int32()), ("rank", pa.int32()), ("score", pa.float64()), ("log_p", pa.float64())])
BATCH = 25
"""Images a forward pass; bounds the memory, the values do not depend on it."""


def schema(units: int) -> pa.Schema:
    """Schema of the activations of one layer, for images of one class; units in C, H, W order."""
    return pa.schema([("image_id", pa.int32()), ("fold", pa.int8()), ("activation", pa.list_(pa.float32(), units))])


@logged
def extract(
    paths: SimpleNamespace,
    layers: Sequence[str],
    baseline: str,
    class_id: str,
    *,
    model: str,
    outputs: int,
    dataset: str,
    path: str | None,
    transform: Mapping,
    device: str,
) -> str:
    """Write the activations of each layer and the baseline for the study images of a class.

    `paths` has `images`, `layers` and `weights`; `layers` are the files to write, `.../{layer}/{class_id}.parquet`.
    """
    on = networks.device(device)
    traced = networks.load(paths.weights, model=model, outputs=outputs, on=on)
    nodes = networks.layer_nodes(paths.layers)
    rows = images.rows(paths.images, class_id=class_id)
    label = int(rows["label"][0])
    if label >= outputs:
        raise StudyError(f"class {class_id}: its output {label} is not among the {outputs} outputs of {model}")
    files = {Path(file).parent.name: file for file in layers}
    by_node = {nodes[layer]["node"]: layer for layer in files}
    results = []
    with ExitStack() as stack:
        writers = {
            layer: stack.enter_context(parquet.Writer(file, schema(nodes[layer]["units"])))
            for layer, file in files.items()
        }
        for start in range(0, len(rows["image_id"]), BATCH):
            ids, fold, sources = (rows[name][start : start + BATCH] for name in ("image_id", "fold", "source"))
            x = images.load(sources, dataset=dataset, path=path, transform=transform)

            def keep(node: str, value: torch.Tensor, ids: np.ndarray = ids, fold: np.ndarray = fold) -> None:
                flat = value.flatten(1).cpu().numpy()
                lists = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
                writers[by_node[node]].write(pa.table([ids, fold, lists], schema=schema(flat.shape[1])))

            logits = activations.record(traced, x.to(on), by_node, keep)
            labels = torch.full((len(ids),), label, device=on)
            results.append(
                {
                    "image_id": ids,
                    "rank": scores.ranks(logits, labels).cpu().numpy(),
                    "score": logits[:, label].double().cpu().numpy(),
                    "log_p": scores.log_probabilities(logits, labels).cpu().numpy(),
                }
            )
    columns = {name: np.concatenate([part[name] for part in results]) for name in results[0]}
    parquet.write(baseline, columns | {"rank": columns["rank"].astype(np.int32)}, BASELINE)
    return f"{len(columns['rank'])} images, {len(files)} layers, top-1 {(columns['rank'] == 0).mean():.4f}"


@logged
def summarise(output: str, *, baselines: Sequence[str]) -> None:
    """Write `accuracy.parquet` of a network that is not trained here: its accuracy on the study images of its pool."""
    rank = np.concatenate([parquet.read(path, BASELINE)["rank"].to_numpy() for path in baselines])
    row = {"split": "study", "top1": float((rank == 0).mean()), "top5": float((rank < 5).mean()), "images": len(rank)}
    parquet.write(output, [row], networks.ACCURACY)


class Activations(NamedTuple):
    """Activations of one layer for images of one class: image_id [images], fold [images], values [images, units]."""

    image_id: np.ndarray
    fold: np.ndarray
    values: np.ndarray


def _read(path: str) -> Activations:
    table = parquet.read(path)
    units = table.schema[-1].type.list_size if pa.types.is_fixed_size_list(table.schema[-1].type) else 0
    if table.schema != schema(units):
        raise StudyError(f"{path}: is no table of activations; {parquet.again(path)}")
    values = np.concatenate([chunk.flatten().to_numpy().reshape(-1, units) for chunk in table["activation"].chunks])
    return Activations(table["image_id"].to_numpy(), table["fold"].to_numpy(), values)


def load(path: str) -> Activations:
    """The activations in a file, shared by the jobs of this process."""
    return memory.shared(("activations", memory.stamp(path)), lambda: _read(path))
