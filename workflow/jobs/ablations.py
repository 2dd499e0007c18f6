"""Step `ablations`: one cell's units ablated in every image of the target."""

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import torch

from jobs import activations, cells, images, networks
from readout import StudyError, ablations, openvino, scores
from readout.cuts import cut
from runtime import cache, parquet
from runtime.logs import logged

SCHEMA = pa.schema(
    [
        ("image_id", pa.int32()),
        ("rank_baseline", pa.int32()),
        ("rank_ablated", pa.int32()),
        ("log_p_baseline", pa.float64()),
        ("log_p_ablated", pa.float64()),
    ]
)


def alive(
    prefix: Callable,
    layer: str,
    layers: Mapping[str, Mapping],
    count: int,
    load: Callable[[slice], torch.Tensor],
    on: torch.device,
) -> list[tuple[torch.Tensor, ...]]:
    """The tensors alive at the cut behind `layer`, for each batch of the `count` images that `load` gives by slices."""
    batches = networks.batches(count, layers.values())
    kept = [prefix(networks.to_device(load(batch), on)) for batch in batches]
    # The deeper the tail begins, the less it holds at once, and the longer its batches can be.
    longer = networks.batches(count, [row for row in layers.values() if row["depth"] >= layers[layer]["depth"]])
    if len(longer) < len(batches):
        whole = [torch.cat(tensors) for tensors in zip(*kept, strict=True)]
        kept = [tuple(tensor[batch] for tensor in whole) for batch in longer]
    return kept


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
    weights: str,
    dataset: str,
    path: str | None,
    transform: Mapping | None,
    device: str,
) -> None:
    """Run the network's tail with the cell ablated; write rank and log-probability of the right class.

    `paths` has `cells` and `baseline`; `place` is network, layer, class_id and cell.
    """
    on = networks.device(device)
    opening = {"dataset": dataset, "path": path, "transform": networks.preparation(model, weights, transform)}
    rows = images.rows(path_to_images, class_id=place.class_id, outputs=outputs)

    # The baseline's file is made anew with the weights, the images and the layers.
    made = (cache.stamp(paths.baseline), weights, model, outputs, place.layer, str(opening), device)

    def group() -> tuple:
        """What the cells of a grid share."""
        traced = networks.engine(weights, model=model, outputs=outputs, choice=device)
        layers = networks.layer_nodes(path_to_layers, [place.layer], traced)
        parts = cut(traced, layers[place.layer]["node"])
        kept = alive(
            parts.prefix,
            place.layer,
            layers,
            len(rows["source"]),
            lambda batch: images.load(rows["source"][batch], **opening),
            on,
        )
        if device != "openvino":
            # Not as a module: its weights are the network's, and are counted there.
            return partial(parts.tail), kept
        # Compiling takes seconds, and serves the layer's other targets too.
        key = ("tail", place.network, *made[1:])
        return cache.shared(key, lambda: openvino.Tail(parts.tail, kept[0])), kept

    tail, batches = cache.shared(("group", *made), group)
    units, of = cells.units(paths.cells, place.cell)
    if of != batches[0][0][0].numel():
        raise StudyError(f"{paths.cells}: {of} units are not those of {place.layer}; {parquet.again(paths.cells)}")
    logits = torch.cat([tail(ablations.ablate(first, units, value), *rest) for first, *rest in batches])
    labels = torch.tensor(rows["label"]).long().to(on)
    baseline = parquet.read(paths.baseline, activations.BASELINE)
    if not np.array_equal(baseline["image_id"], rows["image_id"]):
        raise StudyError(f"{paths.baseline}: is not of the images of {path_to_images}; {parquet.again(paths.baseline)}")
    if not np.isfinite(baseline["log_p"]).all() or np.min(baseline["rank"]) < 0:
        raise StudyError(f"{paths.baseline}: a rank or log-probability is none; {parquet.again(paths.baseline)}")
    columns = {
        "image_id": baseline["image_id"],
        "rank_baseline": baseline["rank"],
        "rank_ablated": scores.ranks(logits, labels).cpu().numpy().astype(np.int32),
        "log_p_baseline": baseline["log_p"],
        "log_p_ablated": scores.log_probabilities(logits, labels).cpu().numpy(),
    }
    parquet.write(output, columns, SCHEMA)
