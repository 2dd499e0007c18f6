"""Step `ablations`: one cell's units ablated in every image of the target."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from jobs import activations, cells, images, memory, networks, parquet
from jobs.logs import logged
from readout import ablations, scores
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
    transform: Mapping,
    on: torch.device,
) -> tuple[Cut, tuple[torch.Tensor, ...], torch.Tensor]:
    """The cut network, the tensors alive at the cut, and the labels: shared by the cells of a group."""
    parts = cut(traced, node)
    x = images.load(rows["source"], **opening, transform=transform).to(on)
    return parts, parts.prefix(x), torch.tensor(rows["label"]).long().to(on)


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
    opening = {"dataset": dataset, "path": path}

    def group() -> tuple:
        traced = networks.load(paths.weights, model=model, outputs=outputs, on=on)
        node = networks.layer_nodes(path_to_layers)[place.layer]["node"]
        return _group(traced, node, images.rows(path_to_images, class_id=place.class_id), opening, transform, on)

    key = (
        "cut",
        memory.stamp(paths.weights),
        memory.stamp(path_to_images),
        model,
        outputs,
        place.layer,
        place.class_id,
        str(transform),
        str(on),
    )
    parts, alive, labels = memory.shared(key, group)
    logits = parts.tail(ablations.ablate(alive[0], cells.units(paths.cells, place.cell), value), *alive[1:])
    baseline = parquet.read(paths.baseline, activations.BASELINE)
    columns = {
        "image_id": baseline["image_id"],
        "rank_baseline": baseline["rank"],
        "rank_ablated": scores.ranks(logits, labels).cpu().numpy().astype(np.int32),
        "log_p_baseline": baseline["log_p"],
        "log_p_ablated": scores.log_probabilities(logits, labels).cpu().numpy(),
    }
    parquet.write(output, columns, SCHEMA)
