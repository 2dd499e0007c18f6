"""Step `images`: the table of the images of a study, and their loading."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from inputs import datasets
from inputs.sources import ImageSource
from readout import StudyError, images
from readout.folds import FOLDS
from runtime import cache, parquet

SCHEMA = pa.schema(
    [
        ("image_id", pa.int32()),
        ("class_id", pa.string()),
        ("label", pa.int32()),
        ("split", pa.string()),
        ("fold", pa.int8()),
        ("source", pa.string()),
    ]
)


def digest(image_ids: Sequence[int]) -> str:
    """Hash of a set of images, 16 hexadecimal digits; the order does not count."""
    return hashlib.sha256(" ".join(map(str, sorted(map(int, image_ids)))).encode()).hexdigest()[:16]


def list_images(
    path_to_images: str,
    *,
    dataset: str,
    path: str | None,
    labels: Mapping[str, int],
    study: int,
    train: bool,
    split_seed: int,
    fold_seed: int,
    set_aside: int | None = None,
    set_aside_digest: str | None = None,
    made: str | None = None,
) -> str:
    """Write `images.parquet`: all study images of the data set's classes, and the training images where `train`.

    A data set that is to be downloaded is, where it is not there yet.
    `labels` maps each class of the data set to its index among the outputs; the seeds are those of `images.split`, and
    so is `set_aside`, the number of images per class that do not train. `set_aside_digest` is the digest of all of
    these where shipped weights fix them; StudyError where others come out.
    """
    data = datasets.dataset(dataset, path)
    data.fetch()
    rows, aside, found = [], [], data.image_ids
    for class_id in sorted(labels):
        if class_id not in found:
            raise StudyError(f"class {class_id}: its images are no longer in {path}; run again")
        sources = list(found[class_id].items())
        chosen, rest, fold = images.split(
            len(sources), study, class_id=class_id, split_seed=split_seed, fold_seed=fold_seed, set_aside=set_aside
        )
        aside += [sources[i][1] for i in np.setdiff1d(np.arange(len(sources)), rest)]
        parts = [("study", chosen), ("train", rest)] if train else [("study", chosen)]
        for part, members in parts:
            for i in members:
                source, image_id = sources[i]
                rows.append((image_id, class_id, labels[class_id], part, fold[i], source))
    rows.sort()
    if set_aside_digest is not None and set_aside_digest != digest(aside):
        raise StudyError(
            "images: the split is not that of the shipped weights, so a network may have been trained on what is "
            "studied; install the pinned packages (envs/requirements.txt), or train the networks here"
        )
    columns = dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True))
    parquet.write(path_to_images, columns, SCHEMA, made)
    return f"{len(rows)} images of {len(labels)} classes"


def _table(path_to_images: str) -> pd.DataFrame:
    """The whole of `images.parquet`."""
    table = parquet.read(path_to_images, SCHEMA).to_pandas(ignore_metadata=True)
    ids, fold = table["image_id"], table["fold"]
    if not (
        ids.is_monotonic_increasing
        and ids.is_unique
        and fold.between(0, FOLDS - 1).all()
        and (table["label"] >= 0).all()
        and table["split"].isin(["study", "train", "pool"]).all()
        and (table.groupby("class_id")["label"].nunique() == 1).all()
    ):
        raise StudyError(
            f"{path_to_images}: images, folds or labels are not as listed; {parquet.again(path_to_images)}"
        )
    return table


def rows(
    path_to_images: str, *, class_id: str | None = None, split: str = "study", outputs: int | None = None
) -> Mapping[str, np.ndarray]:
    """Columns of `images.parquet` for one split, and for one class if given, sorted by image_id.

    With `outputs`, the labels are checked to be among them.
    """
    table = cache.shared(("images", cache.stamp(path_to_images)), lambda: _table(path_to_images))
    table = table[table["split"] == split]
    if class_id is not None:
        table = table[table["class_id"] == class_id]
    if table.empty:
        raise StudyError(f"{path_to_images}: no {split} images of class {class_id}")
    if outputs is not None and table["label"].max() >= outputs:
        raise StudyError(
            f"{path_to_images}: label {table['label'].max()}, but the network has {outputs} outputs; "
            f"{parquet.again(path_to_images)}"
        )
    return {name: table[name].to_numpy() for name in table.columns}


def load(names: Sequence[str], source: ImageSource) -> torch.Tensor:
    """The images of these names (column `source` of `images.parquet`) as a tensor [N, 3, H, W], float32.

    `source` says how to prepare them; its `transform` must be given.
    """
    data, prepare = datasets.dataset(source.dataset, source.path), images.transform(**source.transform)

    def opened(name: str) -> torch.Tensor:
        image = data.open(name)
        try:
            return prepare(image)
        except Exception as error:  # as when it is too thin to be scaled
            raise datasets.unreadable(name, error) from error

    return torch.stack([opened(name) for name in names])
