"""Step `ablations`: one cell's units ablated in every image of the target."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from jobs import activations, cells, images, memory, networks, parquet
from jobs.logs import logged
from readout import StudyError, ablations, scores
from readout.networks import Cut, cut

SCHEMA = pa.schema(
    [
        ("image_id", pa.int32()),
        ("rank_baseline", pa.int32()),
        ("rank_ablated", pa.int32()),
        ("log_p_baseline", pa.float64()),
        ("log_p_ablated", pa.float64()),
    ]
)


def _group(
    traced: torch.fx.GraphModule,
    node: str,
    rows: Mapping[str, np.ndarray],
    opening: Mapping,
    on: torch.device,
) -> tuple[Cut, list[tuple[torch.Tensor, ...]]]:
    """The cut network, and the tensors alive at the cut for each batch of images: shared by the cells of a group.

    The batches are those of the baseline, so that an ablation without effect gives the baseline to the last bit.
    """
    parts = cut(traced, node)
    sources = rows["source"]
    batches = [sources[start : start + activations.BATCH] for start in range(0, len(sources), activations.BATCH)]
    return parts, [parts.prefix(images.load(batch, **opening).to(on)) for batch in batches]


@logged
@torch.inference_mode()
def ablate(
    output: str,
    paths: SimpleNamespace,
    path_to_images: str,
    path_to_layers: str,
    place: SimpleNamespace,
    *,
    value: float,
    model: str,
    outputs: int,
    dataset: str,
    path: str | None,
    transform: Mapping,
    device: str,
) -> None:
    """Run the network's tail with the cell ablated; write rank and log-probability of the right class.

    `paths` has `cells`, `weights` and `baseline`; `place` is network, layer, class_id and cell.
    """
    on = networks.device(device)
    opening = {"dataset": dataset, "path": path, "transform": transform}
    rows = images.rows(path_to_images, class_id=place.class_id)

    def group() -> tuple:
        traced = networks.load(paths.weights, model=model, outputs=outputs, on=on)
        return _group(traced, networks.layer_nodes(path_to_layers)[place.layer]["node"], rows, opening, on)

    files = (paths.weights, path_to_images, path_to_layers)
    key = ("cut", *map(memory.stamp, files), model, outputs, place.layer, place.class_id, str(opening), str(on))
    parts, batches = memory.shared(key, group)
    units = cells.units(paths.cells, place.cell)
    logits = torch.cat([parts.tail(ablations.ablate(first, units, value), *rest) for first, *rest in batches])
    labels = torch.tensor(rows["label"]).long().to(on)
    baseline = parquet.read(paths.baseline, activations.BASELINE)
    if not np.array_equal(baseline["image_id"], rows["image_id"]):
        raise StudyError(f"{paths.baseline}: is not of the images of {path_to_images}; {parquet.again(paths.baseline)}")
    columns = {
        "image_id": baseline["image_id"],
        "rank_baseline": baseline["rank"],
        "rank_ablated": scores.ranks(logits, labels).cpu().numpy().astype(np.int32),
        "log_p_baseline": baseline["log_p"],
        "log_p_ablated": scores.log_probabilities(logits, labels).cpu().numpy(),
    }
    parquet.write(output, columns, SCHEMA)
