"""Step `ablations`: the units of one cell, or of another group, ablated in every image of the target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from inputs import weights
from inputs.sources import NetworkSource
from jobs import activations, groups, images, networks
from readout import StudyError, ablations, openvino, scores
from readout.ablations import Intervention
from readout.cuts import cut
from readout.groups import Group, Kind
from runtime import cache, parquet

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
    device: torch.device,
) -> list[tuple[torch.Tensor, ...]]:
    """The tensors alive at the cut behind `layer`, for each batch of the `count` images that `load` gives by slices."""
    batches = networks.batches(count, layers.values())
    kept = [prefix(networks.to_device(load(batch), device)) for batch in batches]
    # The deeper the tail begins, the less it holds at once, and the longer its batches can be.
    longer = networks.batches(count, [row for row in layers.values() if row["depth"] >= layers[layer]["depth"]])
    if len(longer) < len(batches):
        whole = [torch.cat(tensors) for tensors in zip(*kept, strict=True)]
        kept = [tuple(tensor[batch] for tensor in whole) for batch in longer]
    return kept


@dataclass(frozen=True)
class Target:
    """A target's images at a layer, ready for any ablation there.

    `batches` are the tensors alive at the cut, `tail` gives scores of them; `labels` [images] are the right outputs,
    `baseline` the columns of `activations.BASELINE`.
    """

    path_to_cells: str
    tail: Callable[..., torch.Tensor]
    batches: list[tuple[torch.Tensor, ...]]
    labels: torch.Tensor
    baseline: pa.Table

    def effects(self, group: Group, intervention: Intervention) -> dict[str, np.ndarray]:
        """The columns of `SCHEMA` with the group's units replaced in every image of the target."""
        units = self.batches[0][0][0].numel()
        if group.layer_units != units:
            raise StudyError(
                f"{self.path_to_cells}: {group.layer_units} units, but the layer has {units}; "
                f"{parquet.again(self.path_to_cells)}"
            )
        logits = torch.cat(
            [
                self.tail(ablations.ablate(first, group.units, intervention.value), *rest)
                for first, *rest in self.batches
            ]
        )
        return {
            "image_id": self.baseline["image_id"].to_numpy(),
            "rank_baseline": self.baseline["rank"].to_numpy(),
            "rank_ablated": scores.ranks(logits, self.labels).cpu().numpy().astype(np.int32),
            "log_p_baseline": self.baseline["log_p"].to_numpy(),
            "log_p_ablated": scores.log_probabilities(logits, self.labels).cpu().numpy(),
        }


def prepare(
    *,
    path_to_cells: str,
    path_to_baseline: str,
    path_to_images: str,
    path_to_layers: str,
    network: str,
    layer: str,
    class_id: str,
    source: NetworkSource,
    device: str,
) -> Target:
    """The target's images at the layer; what they share with the grid's other jobs is made once per process."""
    where = networks.torch_device(device)
    prepared = networks.prepared(source)
    rows = images.rows(path_to_images, class_id=class_id, outputs=source.outputs)
    # The baseline's file is made anew with the weights, the images and the layers.
    key = (cache.stamp(path_to_baseline), str(source), layer, device)

    def cut_there() -> tuple:
        traced = networks.engine(source, device=device)
        layers = networks.layer_nodes(path_to_layers, [layer], traced)
        parts = cut(traced, layers[layer]["node"])

        def load(batch: slice) -> torch.Tensor:
            return images.load(rows["source"][batch], prepared)

        kept = alive(parts.prefix, layer, layers, len(rows["source"]), load, where)
        if device != "openvino":
            # Not as a module: its weights are the network's, and are counted there.
            return partial(parts.tail), kept
        # Compiling takes seconds, and serves the layer's other targets too.
        file = weights.file(source.model, source.weights)
        stamp = cache.stamp(file) if file else None
        return cache.shared(("tail", network, stamp, *key[1:]), lambda: openvino.Tail(parts.tail, kept[0])), kept

    tail, batches = cache.shared(("cut", *key), cut_there)
    baseline = parquet.read(path_to_baseline, activations.BASELINE)
    if not np.array_equal(baseline["image_id"], rows["image_id"]):
        raise StudyError(
            f"{path_to_baseline}: is not of the images of {path_to_images}; {parquet.again(path_to_baseline)}"
        )
    if not np.isfinite(baseline["log_p"]).all() or np.min(baseline["rank"]) < 0:
        raise StudyError(f"{path_to_baseline}: a rank or log-probability is none; {parquet.again(path_to_baseline)}")
    labels = torch.tensor(rows["label"]).long().to(where)
    return Target(path_to_cells, tail, batches, labels, baseline)


@torch.inference_mode()
def ablate(
    *,
    path_to_ablation: str,
    path_to_cells: str,
    path_to_baseline: str,
    path_to_images: str,
    path_to_layers: str,
    network: str,
    layer: str,
    class_id: str,
    cell: str,
    kind: Kind,
    seed: int | None,
    value: float,
    source: NetworkSource,
    device: str,
    made: str | None = None,
) -> None:
    """Ablate a cell, or another group; write rank and log-probability of the right class, a row per image."""
    target = prepare(
        path_to_cells=path_to_cells,
        path_to_baseline=path_to_baseline,
        path_to_images=path_to_images,
        path_to_layers=path_to_layers,
        network=network,
        layer=layer,
        class_id=class_id,
        source=source,
        device=device,
    )
    group = groups.find(path_to_cells, cell, kind, network=network, layer=layer, class_id=class_id, seed=seed)
    parquet.write(path_to_ablation, target.effects(group, ablations.constant(value)), SCHEMA, made)
