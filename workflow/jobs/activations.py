"""Step `activations`: one forward pass a (network, class) for all its layers, and the baseline."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from jobs import images, memory, networks, parquet
from jobs.logs import logged
from readout import StudyError, activations, scores

BASELINE = pa.schema([("image_id", pa.int32()), ("rank", pa.int32()), ("score", pa.float64()), ("log_p", pa.float64())])
BATCH = 25
"""Images a forward pass; bounds the memory, the values do not depend on it."""


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
) -> None:
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
            layer: stack.enter_context(parquet.Writer(file, parquet.activation_schema(nodes[layer]["units"])))
            for layer, file in files.items()
        }
        for start in range(0, len(rows["image_id"]), BATCH):
            ids = rows["image_id"][start : start + BATCH]
            x = images.load(rows["source"][start : start + BATCH], dataset=dataset, path=path, transform=transform)

            def keep(node: str, value: torch.Tensor, ids: np.ndarray = ids) -> None:
                flat = value.flatten(1).cpu().numpy()
                writers[by_node[node]].write(parquet.activation_table(ids, flat))

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


@logged
def summarise(output: str, *, baselines: Sequence[str]) -> None:
    """Write `accuracy.parquet` of a network that is not trained here: its accuracy on the study images of its pool."""
    rank = np.concatenate([parquet.read(path, BASELINE)["rank"].to_numpy() for path in baselines])
    row = {"split": "study", "top1": float((rank == 0).mean()), "top5": float((rank < 5).mean()), "images": len(rank)}
    parquet.write(output, [row], networks.ACCURACY)


def load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Image ids [images] and activations [images, units] of a class, shared by the jobs of this process."""
    return memory.shared(("activations", memory.stamp(path)), lambda: parquet.read_activations(path))
