"""Classes and files of a data set, known before anything runs: neither torch nor the pixels are loaded."""

import os
from pathlib import Path

from PIL import Image

from readout import StudyError

DIGITS = tuple("0123456789")
PER_DIGIT = 500


def folder_classes(path: str | None) -> tuple[str, ...]:
    """The sub-folders of a data set of kind `folder`, sorted."""
    if path is None or not Path(path).is_dir():
        raise StudyError(f"images.path: {path} is no folder; give a folder with one sub-folder a class")
    classes = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise StudyError(f"images.path: {path} has no sub-folder; give a folder with one sub-folder a class")
    return tuple(classes)


def folder_files(path: str, class_id: str) -> dict[str, int]:
    """Image files of a class, sorted, and their sizes in bytes; which suffixes are images is PIL's to say."""
    suffixes = Image.registered_extensions()
    folder = Path(path) / class_id
    if not folder.is_dir():
        raise StudyError(f"class {class_id}: {folder} is no folder; add it or take the class out of the config")
    files = [e for e in os.scandir(folder) if os.path.splitext(e.name)[1].lower() in suffixes and e.is_file()]
    return {entry.name: entry.stat().st_size for entry in sorted(files, key=lambda entry: entry.name)}


def classes(dataset: str, path: str | None) -> tuple[str, ...]:
    """All classes of a data set, sorted."""
    return DIGITS if dataset == "digits" else folder_classes(path)


def counts(dataset: str, path: str | None, names: tuple[str, ...]) -> dict[str, int]:
    """Number of images of each class."""
    if dataset == "digits":
        return dict.fromkeys(names, PER_DIGIT)
    return {name: len(folder_files(path, name)) for name in names}
