"""Step `controls`: groups beside the cells of a grid, ablated like these, to compare with."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from inputs.sources import NetworkSource
from jobs import ablations, groups
from readout import StudyError
from readout.ablations import constant
from runtime import parquet

GROUP = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("group", pa.string()),
        ("kind", pa.string()),
        ("protocol", pa.string()),
        ("intervention", pa.string()),
        ("units", pa.int32()),
    ]
)
"""What tells a group, and one way to ablate it, from the others; the table of groups has these columns too."""
SCHEMA = pa.schema([*GROUP, *ablations.SCHEMA])


@torch.inference_mode()
def control(
    *,
    path_to_controls: str,
    path_to_cells: str,
    path_to_baseline: str,
    path_to_images: str,
    path_to_layers: str,
    network: str,
    layer: str,
    class_id: str,
    random: Sequence[str],
    values: Sequence[float],
    seed: int,
    source: NetworkSource,
    device: str,
    made: str | None = None,
) -> str:
    """Ablate random groups of a cell's size in every image of the target, a row per group, intervention and image.

    `random` are the names of the groups, `values` those of the interventions; all of a grid's go through one prefix.
    """
    target = ablations.prepare(
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
    if not random:
        raise StudyError("controls: none are asked for; set controls.random to the number of random groups per grid")
    parts = []
    for name in random:
        group = groups.find(path_to_cells, name, "random", network=network, layer=layer, class_id=class_id, seed=seed)
        for intervention in map(constant, values):
            effects = target.effects(group, intervention)
            same = {
                "network": network,
                "layer": layer,
                "class_id": class_id,
                "group": name,
                "kind": group.kind,
                "protocol": "published",
                "intervention": intervention.name,
                "units": len(group.units),
            }
            count = len(effects["image_id"])
            parts.append(pa.table({key: [value] * count for key, value in same.items()} | effects, schema=SCHEMA))
    table = pa.concat_tables(parts)
    parquet.write(path_to_controls, {name: table[name] for name in SCHEMA.names}, SCHEMA, made)
    return f"{len(random)} groups"
