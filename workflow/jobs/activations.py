"""Step `activations`: one forward pass per (network, class) for all layers, and the baseline."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from inputs.sources import NetworkSource
from jobs import images, networks
from readout import StudyError, activations, scores
from readout.folds import FOLDS
from runtime import cache, parquet, process

BASELINE = pa.schema(
    [
        ("image_id", pa.int32()),
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("log_p", pa.float64()),
        ("z", pa.list_(pa.float32())),
    ]
)
MEANS = pa.schema([("unit", pa.int32()), ("mean", pa.float64())])
FOLD_MEANS = pa.schema([*MEANS, *((f"mean_fold{f}", pa.float64()) for f in range(FOLDS))])
"""With the means over the images outside each fold, where a study is cross-fitted."""
UNITS_AT_ONCE = 1 << 20
"""Activations in a row group of a file, or those of one image: bounds the memory of reading and writing.

Arrow takes nine bytes for each, in every layer's file at once.
"""
DTYPES = {"float32": pa.float32(), "float16": pa.float16()}


def schema(units: int, dtype: str) -> pa.Schema:
    """Schema of the activations of one layer, for images of one class; units in the order of the layer's axes."""
    # Not nullable: otherwise every unit takes a mark of its own, and reading a fifth more time.
    unit = pa.field("element", DTYPES[dtype], nullable=False)
    return pa.schema(
        [
            ("image_id", pa.int32()),
            ("fold", pa.int8()),
            pa.field("activation", pa.list_(unit, units), nullable=False),
        ]
    )


def _lists(values: np.ndarray, kind: pa.DataType, file: str) -> pa.Array:
    """Rows of activations [images, units] as lists of the file's type."""
    with np.errstate(over="ignore"):
        numbers = values.astype(kind.value_type.to_pandas_dtype(), copy=False)
    if numbers.dtype != values.dtype and np.isinf(numbers).any():
        raise StudyError(f"{file}: an activation is too large for float16; set activations.dtype to float32")
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), type=kind)


def extract(
    *,
    path_to_images: str,
    path_to_layers: str,
    paths_to_activations: Mapping[str, str],
    paths_to_means: Mapping[str, str],
    path_to_baseline: str,
    class_id: str,
    source: NetworkSource,
    dtype: str,
    folds: bool,
    device: str,
    made: str | None = None,
) -> str:
    """Write the activations of each layer, their means, and the baseline for the study images of a class.

    `paths_to_activations` and `paths_to_means` are the files to write, by layer. The means are of the activations as
    computed, whatever precision these are kept in; with `folds`, those over the images outside each fold, too.
    """
    where = networks.torch_device(device)
    traced = networks.engine(source, device=device)
    prepared = networks.prepared(source)
    nodes = networks.layer_nodes(path_to_layers, traced=traced)
    rows = images.rows(path_to_images, class_id=class_id, outputs=source.outputs)
    label = int(rows["label"][0])
    networks.check_layers(source.model, nodes, paths_to_activations)
    by_node = {nodes[layer]["node"]: layer for layer in paths_to_activations}
    totals = {layer: np.zeros(nodes[layer]["units"]) for layer in paths_to_activations}
    # Sums over the images inside each fold [folds, units].
    inside = {layer: np.zeros((FOLDS, len(total))) for layer, total in totals.items() if folds}
    schemas = {layer: schema(nodes[layer]["units"], dtype) for layer in paths_to_activations}
    results = []
    with ExitStack() as stack:
        writers = {
            layer: stack.enter_context(parquet.Writer(path, schemas[layer], made))
            for layer, path in paths_to_activations.items()
        }
        for batch in networks.batches(len(rows["image_id"]), nodes.values()):
            ids, fold, names = (rows[column][batch] for column in ("image_id", "fold", "source"))
            x = networks.to_device(images.load(names, prepared), where)

            def keep(node: str, value: torch.Tensor, ids: np.ndarray = ids, fold: np.ndarray = fold) -> None:
                layer = by_node[node]
                kind = schemas[layer].field("activation").type
                if value[0].numel() != kind.list_size:
                    raise StudyError(f"{path_to_layers}: {layer} has other units; {parquet.again(path_to_layers)}")
                step = max(1, UNITS_AT_ONCE // kind.list_size)
                for start in range(0, len(ids), step):
                    some = slice(start, start + step)
                    flat = value[some].flatten(1).cpu().numpy()
                    # One image after the other: the sums do not depend on the batches.
                    for row, f in zip(flat, fold[some], strict=True):
                        totals[layer] += row
                        if folds:
                            inside[layer][f] += row
                    columns = [ids[some], fold[some], _lists(flat, kind, paths_to_activations[layer])]
                    writers[layer].write(pa.table(columns, schema=schemas[layer]))

            logits = activations.record(traced, x, by_node, keep)
            labels = torch.full((len(ids),), label, device=where)
            results.append(
                {
                    "image_id": ids,
                    "rank": scores.ranks(logits, labels).cpu().numpy(),
                    "score": logits[:, label].double().cpu().numpy(),
                    "log_p": scores.log_probabilities(logits, labels).cpu().numpy(),
                    "z": scores.log_odds(logits).cpu().numpy(),
                }
            )
    outside = [rows["fold"] != f for f in range(FOLDS)]
    if folds and not all(chosen.any() for chosen in outside):
        raise StudyError(f"{path_to_images}: class {class_id}: all its images are in one fold; raise images.study")
    for layer, path in paths_to_means.items():
        total = totals.pop(layer)
        columns = {"unit": np.arange(len(total), dtype=np.int32), "mean": total / len(rows["image_id"])}
        if folds:
            sums = inside.pop(layer)
            # Sums of the other folds, not the total less the fold's: where no image outside drives a unit it is zero.
            columns |= {
                f"mean_fold{f}": np.delete(sums, f, axis=0).sum(0) / chosen.sum() for f, chosen in enumerate(outside)
            }
        parquet.write(path, columns, FOLD_MEANS if folds else MEANS, made)
    columns = {name: np.concatenate([part[name] for part in results]) for name in results[0]}
    columns |= {"rank": columns["rank"].astype(np.int32), "z": list(columns["z"].astype(np.float32))}
    parquet.write(path_to_baseline, columns, BASELINE, made)
    process.give_back()
    layers, top1 = len(paths_to_activations), (columns["rank"] == 0).mean()
    return f"{len(columns['rank'])} images, {layers} layers, top-1 {top1:.4f}"


def summarise(path_to_accuracy: str, *, paths_to_baselines: Sequence[str], made: str | None = None) -> None:
    """Write `accuracy.parquet` of a network that is not trained here: its accuracy on the study images of its pool."""
    rank = np.concatenate([parquet.read(path, BASELINE)["rank"].to_numpy() for path in paths_to_baselines])
    row = {"split": "study", "top1": float((rank == 0).mean()), "top5": float((rank < 5).mean()), "images": len(rank)}
    parquet.write(path_to_accuracy, [row], networks.ACCURACY, made)


class Activations(NamedTuple):
    """Activations of one layer: image_id [images], fold [images], values [images, units]."""

    image_id: np.ndarray
    fold: np.ndarray
    values: np.ndarray


def _parts(path: str) -> Iterator[Activations]:
    """The activations in a file, a row group at a time."""
    count = 0
    for table in parquet.row_groups(path):
        count += len(table)
        kind = (table.schema.types or [pa.null()])[-1]
        units = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
        if units < 1 or all(table.schema != schema(units, dtype) for dtype in DTYPES):
            raise StudyError(f"{path}: is no table of activations; {parquet.again(path)}")
        fold = table["fold"].to_numpy()
        if table["image_id"].null_count or not ((fold >= 0) & (fold < FOLDS)).all():
            raise StudyError(f"{path}: lacks numbers or folds of images; {parquet.again(path)}")
        for batch in table.to_batches():
            values = batch["activation"].flatten().to_numpy().reshape(-1, units)
            yield Activations(batch["image_id"].to_numpy(), batch["fold"].to_numpy(), values)
    if not count:
        raise StudyError(f"{path}: has no rows; {parquet.again(path)}")


def load(path: str) -> Activations:
    """All activations in a file, shared by the jobs of this process."""

    def read() -> Activations:
        return Activations(*map(np.concatenate, zip(*_parts(path), strict=True)))

    return cache.shared(("activations", cache.stamp(path)), read)


def gather(paths: Sequence[str], units: np.ndarray, layer_units: int) -> tuple[Activations, np.ndarray]:
    """The activations of some of a layer's units in several files, float32, and how many images are of each file.

    Whole files are kept in memory for other groups where all fit well; else they are read a row group at a time.
    """
    sizes = [cache.shared(("size", cache.stamp(path)), functools.partial(parquet.size, path)) for path in paths]
    whole = sum(sizes) <= cache.LIMIT // 2
    chosen, counts = [], []
    for path in paths:
        first = len(chosen)
        for part in [load(path)] if whole else _parts(path):
            found = part.values.shape[1]
            if found != layer_units:
                raise StudyError(f"{path}: {found} units, the cells are of {layer_units}; {parquet.again(path)}")
            values = part.values[:, units].astype(np.float32)
            if not np.isfinite(values).all():
                raise StudyError(f"{path}: an activation is not finite; the network or its weights are broken")
            chosen.append(part._replace(values=values))
        counts.append(sum(len(part.image_id) for part in chosen[first:]))
    gathered = Activations(*map(np.concatenate, zip(*chosen, strict=True)))
    if len(np.unique(gathered.image_id)) < len(gathered.image_id):
        raise StudyError(f"{', '.join(paths)}: an image is there twice; {parquet.again(paths[0])}")
    return gathered, np.array(counts)


def mean(path: str, fold: int | None = None) -> np.ndarray:
    """Mean activation of each unit over the images of a class, or over those outside a fold, float64 [units]."""
    column = "mean" if fold is None else f"mean_fold{fold}"

    def read() -> np.ndarray:
        table = parquet.read(path, pa.schema([FOLD_MEANS.field("unit"), FOLD_MEANS.field(column)]))
        if not np.array_equal(table["unit"], np.arange(len(table))):
            raise StudyError(f"{path}: the units are not in order; {parquet.again(path)}")
        values = table[column].to_numpy()
        if not np.isfinite(values).all():
            raise StudyError(f"{path}: an activation is not finite; the network or its weights are broken")
        return values

    return cache.shared(("mean", cache.stamp(path), fold), read)


def baseline(path: str, image_id: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z [images, outputs], rank and log-probability [images] of a class, whose study images are those of `image_id`."""

    def read() -> tuple[np.ndarray, ...]:
        table = parquet.read(path, BASELINE)
        z = table["z"].combine_chunks()
        if len(set(z.value_lengths().to_pylist())) != 1:
            raise StudyError(f"{path}: z is not of the network's outputs; {parquet.again(path)}")
        values = (z.values.to_numpy().reshape(len(z), -1), table["rank"].to_numpy(), table["log_p"].to_numpy())
        if not all(np.isfinite(column).all() for column in values) or values[1].min() < 0:
            raise StudyError(f"{path}: a rank, log-probability or z is none; {parquet.again(path)}")
        return table["image_id"].to_numpy(), *values

    found, *columns = cache.shared(("baseline", cache.stamp(path)), read)
    if not np.array_equal(found, image_id):
        raise StudyError(f"{path}: is not of the listed study images; {parquet.again(path)}")
    return tuple(columns)
