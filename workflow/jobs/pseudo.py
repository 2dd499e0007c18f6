"""Step `pseudo`: a target that is none, images drawn from all classes, as a negative control."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from inputs.sources import NetworkSource
from jobs import ablations, activations, controls, images
from jobs.ablations import Sample
from readout import StudyError, cells, probes
from readout.ablations import ZERO, mean
from readout.folds import FOLDS, pseudo_target
from readout.groups import Group
from runtime import cache, parquet

SCHEMA = pa.schema([*controls.SCHEMA, ("auroc", pa.float64())])
"""Rows as of other controls; `auroc` is that of the cell's cross-fitted probe, in each of its rows."""


def _drawn(
    path_to_images: str, paths_to_baselines: Mapping[str, str], outputs: int, entropy: str
) -> dict[str, np.ndarray]:
    """The study images of all classes by column [images], and `side`, 0 for the pseudo-target's and 1 for the others.

    As many are drawn as a class has. The columns are those of `jobs.ablations.Sample`.
    """
    parts = []
    for class_id, path in paths_to_baselines.items():
        rows = images.rows(path_to_images, class_id=class_id, outputs=outputs)
        _, rank, log_p = activations.baseline(path, rows["image_id"])
        columns = {name: rows[name] for name in ("image_id", "class_id", "fold", "source")}
        parts.append(columns | {"label": rows["label"].astype(np.int64), "rank": rank, "log_p": log_p})
    pool = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    count = len(pool["fold"]) // len(parts)
    return pool | {"side": np.where(pseudo_target(pool["class_id"], pool["fold"], count, entropy), 0, 1)}


def _means(sample: Sample, pool: Mapping[str, np.ndarray], paths_to_means: Mapping[str, str], fold: int) -> tuple:
    """Means of each unit over the pseudo-target's and over the other images outside a fold, float64 [units] each."""
    outside = pool["fold"] != fold
    own = torch.from_numpy(np.flatnonzero(sample.listed["fold"] != fold))
    target = sample.alive[0][own].flatten(1).double().sum(0).cpu().numpy()
    total = np.zeros(sample.layer_units)
    for class_id, path in paths_to_means.items():
        mean = activations.mean(path, fold)
        if len(mean) != sample.layer_units:
            raise StudyError(f"{path}: {len(mean)} units, but the layer has {len(total)}; {parquet.again(path)}")
        total += mean * (outside & (pool["class_id"] == class_id)).sum()
    return target / len(own), (total - target) / (outside.sum() - len(own))


@torch.inference_mode()
def control(
    *,
    path_to_pseudo: str,
    path_to_images: str,
    path_to_layers: str,
    paths_to_activations: Mapping[str, str],
    paths_to_means: Mapping[str, str],
    paths_to_baselines: Mapping[str, str],
    network: str,
    layer: str,
    pseudo: str,
    bins: Sequence[int],
    C: float | Sequence[float],
    interventions: Sequence[str],
    seed: int,
    source: NetworkSource,
    device: str,
    made: str | None = None,
) -> str:
    """Draw a pseudo-target, cross-fit its cells and probes, and ablate its images.

    Files are by class, for all of the network's pool. Images are drawn from all classes as equally as can be, the same
    for all layers; the remainder is what they are contrasted with. Ranks and log-probabilities are of the images' own
    classes; a pseudo-target has no output, and so no z.
    """
    drawn = "\0".join([str(seed), network, pseudo])
    pool = _drawn(path_to_images, paths_to_baselines, source.outputs, drawn)
    is_target = pool["side"] == 0
    order = np.flatnonzero(is_target)[np.argsort(pool["fold"][is_target], kind="stable")]
    sample = ablations.sampled(
        {name: column[order] for name, column in pool.items()},
        (),
        path_to_layers=path_to_layers,
        layer=layer,
        source=source,
        device=device,
        key=(drawn, *map(cache.stamp, paths_to_baselines.values())),
    )
    means = [_means(sample, pool, paths_to_means, fold) for fold in range(FOLDS)]
    names = cells.names(tuple(bins))
    label = []
    for pair in means:
        s, m = cells.grid(*cells.coordinates(*pair), tuple(bins))
        label.append(s.astype(int) * bins[1] + m)
    replacing = {
        "zero": [ZERO] * FOLDS,
        "mean": [mean(*(side.astype(np.float32) for side in pair)) for pair in means],
    }
    units = sample.layer_units
    energies = {
        name: sample.layer_energy([(Group("all", "all", np.arange(units), units), one) for one in replacing[name]])
        for name in interventions
    }
    parts = []
    for i, name in enumerate(names):
        groups = [Group(name, "pseudo", np.flatnonzero(found == i), units) for found in label]
        used = np.unique(np.concatenate([group.units for group in groups]))
        (image_id, fold, x), _ = activations.gather(tuple(paths_to_activations.values()), used, units)
        if not np.array_equal(image_id, pool["image_id"]):
            raise StudyError(f"{path_to_images}: lists other images than the activations; make these again")
        places = [np.searchsorted(used, group.units) for group in groups]
        auroc = probes.crossfit(x, places, is_target, fold, C=C).auroc
        head = {"network": network, "layer": layer, "class_id": pseudo, "group": name, "kind": "pseudo"}
        for intervention in interventions:
            how = list(zip(groups, replacing[intervention], strict=True))
            effects = sample.effects("crossfit", how, energy_layer=energies[intervention])
            told = head | {"protocol": "crossfit", "intervention": intervention, "units": len(groups[0].units)}
            rows = controls.named(told, effects)
            parts.append(rows.append_column(SCHEMA.field("auroc"), pa.array([auroc] * len(rows))))
    table = pa.concat_tables(parts)
    parquet.write(path_to_pseudo, {name: table[name] for name in SCHEMA.names}, SCHEMA, made)
    return f"{len(order)} images drawn, {len(parts)} ablations"
