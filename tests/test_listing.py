"""Data sets: their classes, labels and files, and the message for a folder that does not serve."""

import csv
import io
import re
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import imagenet as torchvision_imagenet

from inputs import datasets
from inputs.study import Study
from readout import StudyError
from workflow import ROOT, ran

TENCH, GOLDFISH, TOILET = "n01440764", "n01443537", "n15075141"
VAL = (TOILET, TENCH, GOLDFISH, TENCH, TOILET, TOILET, TENCH)
"""Classes of the images 1 to 7 of a small validation set."""


def image(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write(file: Path, size: int = 0) -> None:
    """A file, for listings that do not look inside."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(size))


def devkit_number(class_id: str) -> int:
    """The devkit numbers the classes from 1, in another order than the labels."""
    return 1 + (datasets.imagenet()[class_id] * 7 + 3) % 1000


def write_devkit(folder: Path, *, classes=None, lines=None) -> Path:
    """The devkit as it is unpacked: a struct of 1000 classes and a few groups of them, and a line an image."""
    classes = classes or {devkit_number(class_id): class_id for class_id in datasets.imagenet()}
    fields = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    synsets = np.zeros((1003, 1), dtype=[(field, object) for field in fields])
    for row, (number, class_id) in enumerate(sorted(classes.items())):
        synsets[row, 0] = (number, class_id, f"word {number}, other word", "a gloss", 0, np.zeros((0, 0)), 0, 1300)
    for row in range(1000, 1003):
        synsets[row, 0] = (row + 1, f"n0000000{row % 10}", "group", "a gloss", 2, np.array([[1, 2]]), 1, 0)
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": synsets})
    lines = [devkit_number(class_id) for class_id in VAL] if lines is None else lines
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{line}\n" for line in lines))
    return data


@pytest.fixture(scope="module")
def devkit(tmp_path_factory) -> Path:
    """A devkit; not to be changed."""
    folder = tmp_path_factory.mktemp("devkit")
    write_devkit(folder)
    return folder / "ILSVRC2012_devkit_t12"


@pytest.fixture
def flat(tmp_path, devkit) -> Path:
    """The seven images side by side, and the devkit."""
    shutil.copytree(devkit, tmp_path / "flat" / "ILSVRC2012_devkit_t12")
    for number in range(1, len(VAL) + 1):
        write(tmp_path / "flat" / image(number), size=number)
    return tmp_path / "flat"


@pytest.fixture
def sorted_out(tmp_path) -> Path:
    """The seven images in a sub-folder a class."""
    for number, class_id in enumerate(VAL, start=1):
        write(tmp_path / "sorted" / "val" / class_id / image(number), size=number)
    return tmp_path / "sorted"


def ids(data) -> dict[str, list[int]]:
    return {class_id: list(files.values()) for class_id, files in data.image_ids.items()}


BY_CLASS = {TENCH: [2, 4, 7], GOLDFISH: [3], TOILET: [1, 5, 6]}


# ---- the table of ImageNet's classes


def test_the_table_of_imagenet_has_its_1000_classes():
    """Labels are the places of the sorted WordNet ids; names are torchvision's."""
    with (ROOT / "workflow" / "imagenet.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    class_ids = [row["class_id"] for row in rows]
    assert len(class_ids) == len(set(class_ids)) == 1000
    assert class_ids == sorted(class_ids)
    assert all(re.fullmatch(r"n\d{8}", class_id) for class_id in class_ids)
    assert [row["label"] for row in rows] == [str(i) for i in range(1000)]
    names = torchvision.models.ResNet101_Weights.IMAGENET1K_V1.meta["categories"]
    assert [row["name"] for row in rows] == names
    assert datasets.imagenet() == {class_id: i for i, class_id in enumerate(class_ids)}


def test_ids_have_the_names_that_torchvision_gives_them():
    """Ids and names come from different sources; torchvision's Imagenette knows ten of both."""
    names = torchvision.models.ResNet101_Weights.IMAGENET1K_V1.meta["categories"]
    for class_id, words in torchvision.datasets.Imagenette._WNID_TO_CLASS.items():
        assert names[datasets.imagenet()[class_id]] == words[0]
    known = {
        TENCH: 0,
        "n01534433": 13,
        "n02088094": 160,
        "n02481823": 367,
        "n02870880": 453,
        "n07875152": 964,
        TOILET: 999,
    }
    assert {class_id: datasets.imagenet()[class_id] for class_id in known} == known


# ---- imagenet


def test_imagenet_is_found_as_torchvision_unpacks_it(tmp_path, devkit, flat, monkeypatch):
    """torchvision's own code unpacks archives; the listing has the same classes and files, and those of the archive."""
    root = tmp_path / "unpacked"
    root.mkdir()
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        for number in range(1, len(VAL) + 1):
            archive.add(flat / image(number), image(number))
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(devkit, devkit.name)
    meta = {part: (name, None) for part, (name, _) in torchvision_imagenet.ARCHIVE_META.items()}
    monkeypatch.setattr(torchvision_imagenet, "ARCHIVE_META", meta)
    theirs = torchvision.datasets.ImageNet(root, split="val")

    ours = datasets.dataset("imagenet", str(root))
    assert ours.classes == tuple(theirs.wnids) == (TENCH, GOLDFISH, TOILET)
    found = [(str(ours.root / file), class_id) for class_id, files in ours.files.items() for file in files]
    assert found == [(path, theirs.wnids[label]) for path, label in theirs.imgs]
    assert ids(ours) == BY_CLASS
    assert ids(datasets.dataset("imagenet", str(flat))) == BY_CLASS


def test_images_side_by_side_are_found_in_val_too(flat):
    """The same images by the same numbers; their sizes are those of the files."""
    data = datasets.dataset("imagenet", str(flat))
    assert ids(data) == BY_CLASS
    assert data.classes == (TENCH, GOLDFISH, TOILET)
    assert data.files[TENCH] == {image(2): 2, image(4): 4, image(7): 7}
    (flat / "val").mkdir()
    for file in flat.glob("*.JPEG"):
        file.rename(flat / "val" / file.name)
    moved = datasets.dataset("imagenet", str(flat))
    assert ids(moved) == BY_CLASS
    assert moved.files[TENCH] == {f"val/{image(2)}": 2, f"val/{image(4)}": 4, f"val/{image(7)}": 7}
    assert all((moved.root / file).is_file() for files in moved.files.values() for file in files)


def test_any_part_of_imagenet_serves(flat, sorted_out):
    """An image keeps its number where others go, since it is the file's own; an empty folder is a class without images."""
    for root in (flat, sorted_out):
        for number in (1, 3, 4):
            next(root.rglob(image(number))).unlink()
    assert ids(datasets.dataset("imagenet", str(flat))) == {TENCH: [2, 7], TOILET: [5, 6]}
    assert ids(datasets.dataset("imagenet", str(sorted_out))) == {TENCH: [2, 7], GOLDFISH: [], TOILET: [5, 6]}


def test_the_folders_of_the_classes_may_be_the_path_itself(sorted_out):
    assert ids(datasets.dataset("imagenet", str(sorted_out / "val"))) == BY_CLASS


def test_a_path_below_the_home_folder(sorted_out, monkeypatch):
    """As a shell would take it; nothing of a config goes through one."""
    monkeypatch.setenv("HOME", str(sorted_out.parent))
    assert ids(datasets.dataset("imagenet", "~/sorted")) == BY_CLASS


def test_what_is_no_image_is_passed_over(sorted_out):
    """Other folders, hidden files as a Mac leaves them, and notes."""
    for file in (
        "val/notes/1.JPEG",
        "val/.cache/1.JPEG",
        f"val/{TENCH}/._{image(2)}",
        f"val/{TENCH}/list.txt",
        "val/all.txt",
    ):
        write(sorted_out / file)
    (sorted_out / "val" / TENCH / "folder.JPEG").mkdir()
    assert ids(datasets.dataset("imagenet", str(sorted_out))) == BY_CLASS


@pytest.mark.parametrize(
    "other", [f"{TENCH}/other.JPEG", f"{TENCH}/{image(3)}"], ids=["unnumbered", "number of another"]
)
def test_without_numbers_of_their_own_images_are_numbered_in_order(sorted_out, other):
    write(sorted_out / "val" / other)
    assert ids(datasets.dataset("imagenet", str(sorted_out))) == {TENCH: [0, 1, 2, 3], GOLDFISH: [4], TOILET: [5, 6, 7]}


def break_file(file: str, content: bytes | None):
    """A mistake: a file of the flat layout with other content, or without it."""

    def mistake(root):
        path = root / "ILSVRC2012_devkit_t12" / "data" / file
        path.unlink() if content is None else path.write_bytes(content)

    return mistake


def empty_folder(root):
    shutil.rmtree(root)
    root.mkdir()


def no_folder(root):
    shutil.rmtree(root)


def archives(root):
    empty_folder(root)
    for archive in datasets.ImageNet.ARCHIVES:
        write(root / archive)


def archives_and_empty_val(root):
    archives(root)
    (root / "val").mkdir()


def other_folders(root):
    empty_folder(root)
    write(root / "val" / "tench" / image(1))


def interrupted(root):
    (root / "val" / TENCH).mkdir(parents=True)
    for file in root.glob("*.JPEG"):
        file.rename(root / "val" / file.name)


def image_zero(root):
    write(root / image(0))


def other_classes(root):
    shutil.rmtree(root / "ILSVRC2012_devkit_t12")
    classes = {devkit_number(class_id): class_id for class_id in datasets.imagenet()}
    write_devkit(root, classes={**classes, devkit_number(TENCH): "n99999999"})


def fewer_classes(root):
    shutil.rmtree(root / "ILSVRC2012_devkit_t12")
    classes = {devkit_number(class_id): class_id for class_id in datasets.imagenet()}
    classes.pop(devkit_number(TENCH))
    write_devkit(root, classes={**classes, 1004: TENCH})


TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
UNPACK = "unpack ILSVRC2012_devkit_t12.tar.gz in "
TORCHVISION = ["ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz", 'ImageNet("{root}", split="val")']


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (no_folder, ["images.path: {root} is no folder"]),
        (empty_folder, ["images.path: {root}", "no images of ImageNet", TENCH, "ILSVRC2012_val_00000001.JPEG"]),
        (other_folders, ["images.path: {root}/val", "no images of ImageNet", TENCH]),
        (archives, ["archives only", *TORCHVISION]),
        (archives_and_empty_val, ["remove {root}/val", *TORCHVISION]),
        (interrupted, ["7 images lie beside the folders", "interrupted", "remove {root}/val", *TORCHVISION]),
        (break_file(TRUTH, None), [TRUTH, "no such file", UNPACK]),
        (break_file(META, None), [META, "no such file", UNPACK]),
        (break_file(TRUTH, b"1\n2\n3\n"), [TRUTH, "3 lines", image(4), UNPACK]),
        (break_file(TRUTH, b"1\n2\ntench\n" + b"1\n" * 4), [TRUTH, "line 3", "'tench'", "1 to 1000", UNPACK]),
        (break_file(TRUTH, b"1\n1001\n" + b"1\n" * 5), [TRUTH, "line 2", "'1001'", UNPACK]),
        (break_file(TRUTH, b"1\n0\n" + b"1\n" * 5), [TRUTH, "line 2", "'0'"]),
        (break_file(TRUTH, b"1\n-1\n" + b"1\n" * 5), [TRUTH, "line 2", "'-1'"]),
        (break_file(TRUTH, b"1\n\n" + b"1\n" * 5), [TRUTH, "line 2", "''"]),
        (break_file(TRUTH, b"\xff\xfe\n" * 7), [TRUTH, "line 1"]),
        (image_zero, [TRUTH, "7 lines", image(0)]),
        (break_file(META, b""), [META, "cannot be read", UNPACK]),
        (break_file(META, b"no matrix" * 50), [META, "cannot be read", UNPACK]),
        (other_classes, [META, "not those of ImageNet 2012", UNPACK]),
        (fewer_classes, [META, "not those of ImageNet 2012", UNPACK]),
    ],
)
def test_imagenet_that_does_not_serve_is_refused(flat, mistake, words):
    mistake(flat)
    with pytest.raises(StudyError) as error:
        datasets.dataset("imagenet", str(flat)).files  # noqa: B018  read here
    assert all(word.format(root=flat) in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("cut", [200, 1000, -100])
def test_table_of_the_devkit_cut_short_is_refused(flat, cut):
    file = flat / "ILSVRC2012_devkit_t12" / "data" / META
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(StudyError, match=r"meta\.mat: cannot be read"):
        datasets.dataset("imagenet", str(flat)).files  # noqa: B018


@pytest.mark.parametrize("kind", ["folder", "imagenet"])
def test_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, kind):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(datasets.os, "scandir", refuse)
    with pytest.raises(StudyError, match=rf"images\.path: {tmp_path}.*cannot be read \(Permission denied\)"):
        datasets.dataset(kind, str(tmp_path)).files  # noqa: B018


def test_digest_sees_images_of_imagenet_come_go_and_change(flat):
    """The names and sizes of the files, and with images side by side the classes that the devkit gives them."""
    all_tench = break_file(TRUTH, f"{devkit_number(TENCH)}\n".encode() * len(VAL))
    seen = [datasets.dataset("imagenet", str(flat)).digest]
    assert datasets.dataset("imagenet", str(flat)).digest == seen[0]
    for change in (lambda: (flat / image(2)).unlink(), lambda: write(flat / image(2), 22), lambda: all_tench(flat)):
        change()
        seen.append(datasets.dataset("imagenet", str(flat)).digest)
    assert len(set(seen)) == 4


def test_imagenet_is_listed_without_torch(flat):
    """Planning must not wait for it; the devkit is read all the same."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'workflow')!r});"
        f"from inputs import datasets; assert len(datasets.dataset('imagenet', {str(flat)!r}).classes) == 3;"
        "assert len(datasets.dataset('imagenette', None).classes) == 10;"
        "sys.exit(bool({'torch', 'torchvision', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    assert ran([sys.executable, "-c", code]).returncode == 0


# ---- imagenette


@pytest.fixture
def offline(monkeypatch):
    """No network; the list of what was asked for."""
    asked = []

    def refuse(request, *args, **kwargs):
        asked.append(request.full_url)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


@pytest.fixture
def few(monkeypatch):
    """An Imagenette of two classes with three images and two."""
    counts = {TENCH: 3, "n02102040": 2}
    monkeypatch.setattr(datasets.Imagenette, "counts", counts)
    return counts


def write_archive(folder: Path, counts: dict[str, int]) -> bytes:
    """Imagenette's archive as torchvision downloads it, with tiny images."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    Image.new("RGB", (1, 1)).save(content, "JPEG")
    with tarfile.open(folder / "imagenette2-320.tgz", "w:gz") as archive:
        for class_id, count in counts.items():
            for split in ("train", "val"):
                for i in range(count):
                    member = tarfile.TarInfo(f"imagenette2-320/{split}/{class_id}/{class_id}_{i}.JPEG")
                    member.size = len(content.getvalue())
                    archive.addfile(member, io.BytesIO(content.getvalue()))
    return (folder / "imagenette2-320.tgz").read_bytes()


@pytest.fixture
def any_archive(monkeypatch):
    """torchvision takes any archive for Imagenette's."""
    _, md5 = torchvision.datasets.Imagenette._ARCHIVES["320px"]
    archives = {"320px": (datasets.Imagenette.URL, None)}
    monkeypatch.setattr(torchvision.datasets.Imagenette, "_ARCHIVES", archives)
    return md5


def test_imagenette_is_known_before_it_is_there(tmp_path):
    """Ten classes with ImageNet's labels, and the sum of images that others have counted; torchvision's address."""
    data = datasets.dataset("imagenette", str(tmp_path / "nowhere"))
    assert data.labels == {
        "n01440764": 0,
        "n02102040": 217,
        "n02979186": 482,
        "n03000684": 491,
        "n03028079": 497,
        "n03394916": 566,
        "n03417042": 569,
        "n03425413": 571,
        "n03445777": 574,
        "n03888257": 701,
    }
    assert data.classes == tuple(sorted(torchvision.datasets.Imagenette._WNID_TO_CLASS))
    assert sum(data.counts.values()) == 3925
    assert (min(data.counts.values()), max(data.counts.values())) == (357, 419)
    assert torchvision.datasets.Imagenette._ARCHIVES[data.SIZE][0] == data.URL
    assert data.digest == datasets.dataset("imagenette", None).digest
    assert not (tmp_path / "nowhere").exists()


def test_imagenette_goes_where_torch_keeps_its_own(tmp_path, monkeypatch):
    """Nothing of a study is written outside its results but the caches of torch and Snakemake."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    assert datasets.dataset("imagenette", None).root == tmp_path / "home" / "imagenette" / "imagenette2-320" / "val"
    assert str(datasets.dataset("imagenette", None).folder).startswith(torch.hub._get_torch_home())
    assert datasets.dataset("imagenette", "data").root == Path("data/imagenette2-320/val")


def test_imagenette_is_unpacked_from_an_archive_put_there(tmp_path, few, any_archive, offline):
    """By torchvision's own code, without a network, once."""
    write_archive(tmp_path / "data", few)
    for _ in range(2):
        data = datasets.dataset("imagenette", str(tmp_path / "data"))
        data.fetch()
        assert {class_id: len(files) for class_id, files in data.files.items()} == few
        assert ids(data) == {TENCH: [0, 1, 2], "n02102040": [3, 4]}
        assert all((data.root / file).is_file() for files in data.files.values() for file in files)
        (tmp_path / "data" / "imagenette2-320.tgz").unlink(missing_ok=True)
    assert offline == []


def test_imagenette_without_a_network_names_address_and_folder(tmp_path, offline):
    with pytest.raises(StudyError) as error:
        datasets.dataset("imagenette", str(tmp_path / "data")).fetch()
    words = (datasets.Imagenette.URL, str(tmp_path / "data"), "no network", "by hand", "another data set")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert offline[0] == datasets.Imagenette.URL


def test_imagenette_that_arrives_broken_is_refused(tmp_path, monkeypatch):
    """torchvision compares its hash; a run after that downloads anew, since no folder was made."""

    class Response(io.BytesIO):
        url = datasets.Imagenette.URL
        length = 9

    monkeypatch.setattr(urllib.request, "urlopen", lambda request: Response(b"<html>404"))
    with pytest.raises(StudyError, match=r"corrupted.*by hand"):
        datasets.dataset("imagenette", str(tmp_path / "data")).fetch()
    assert not (tmp_path / "data" / "imagenette2-320").exists()


def test_archive_that_breaks_off_is_refused(tmp_path, few, any_archive, offline):
    content = write_archive(tmp_path / "data", few)
    (tmp_path / "data" / "imagenette2-320.tgz").write_bytes(content[: len(content) // 2])
    with pytest.raises(StudyError, match="by hand"):
        datasets.dataset("imagenette", str(tmp_path / "data")).fetch()


@pytest.mark.parametrize(
    "lost", ["imagenette2-320/val/n02102040/n02102040_1.JPEG", "imagenette2-320/val/n02102040", "imagenette2-320/val"]
)
def test_imagenette_unpacked_in_part_is_refused(tmp_path, few, any_archive, offline, lost):
    """torchvision takes a folder that is there for complete."""
    write_archive(tmp_path / "data", few)
    data = datasets.dataset("imagenette", str(tmp_path / "data"))
    data.fetch()
    path = tmp_path / "data" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    data.fetch()
    with pytest.raises(StudyError) as error:
        data.files  # noqa: B018
    words = ("images where Imagenette has", f"remove {tmp_path / 'data' / 'imagenette2-320'} and run again")
    assert all(word in str(error.value) for word in words), str(error.value)
    shutil.rmtree(tmp_path / "data" / "imagenette2-320")
    data = datasets.dataset("imagenette", str(tmp_path / "data"))
    data.fetch()
    assert data.counts == {class_id: len(files) for class_id, files in data.files.items()}


# ---- in a study


RECIPE = {"epochs": 1, "batch": 32, "learning_rate": 0.002}


def config(kind: str, path: Path | None, **images) -> dict:
    """A study of the default one's networks, trained on other images; all classes, all targets."""
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    study["images"] = {"dataset": kind, "path": path and str(path), "labels": None, "study": 10} | images
    study["networks"] = [entry | {"classes": "all", "targets": "all", "weights": RECIPE} for entry in study["networks"]]
    study["figures"]["target"] = None
    # Which needs more images than there are here.
    study["occlusion"] = None
    return study


@pytest.fixture
def enough(tmp_path) -> Path:
    """Twelve images of each of two classes of ImageNet."""
    for number in range(24):
        write(tmp_path / "imagenet" / "val" / (GOLDFISH, TOILET)[number % 2] / image(number + 1))
    return tmp_path / "imagenet"


def test_a_kind_of_data_set_that_is_not_there_is_refused():
    with pytest.raises(
        StudyError, match=r"images\.dataset: 'digit' is not one of digits, folder, imagenet, imagenette"
    ):
        Study(config("digit", None))


def test_labels_of_imagenet_are_imagenet_s(enough):
    """Unless the config gives others, as a mapping or a table; a folder's are numbers in order."""
    assert Study(config("imagenet", enough)).labels == {GOLDFISH: 1, TOILET: 999}
    assert Study(config("imagenet", enough, labels={GOLDFISH: 5, TOILET: 4})).labels == {GOLDFISH: 5, TOILET: 4}
    assert Study(config("folder", enough / "val")).labels == {GOLDFISH: 0, TOILET: 1}
    table = str(ROOT / "workflow" / "imagenet.tsv")
    assert Study(config("folder", enough / "val", labels=table)).labels == {GOLDFISH: 1, TOILET: 999}


def test_images_of_imagenet_are_counted(enough):
    """Twelve, one of which at least is to train on."""
    assert Study(config("imagenet", enough, study=11)).data.counts == {GOLDFISH: 12, TOILET: 12}
    with pytest.raises(StudyError, match=rf"class {GOLDFISH}: 12 images, but images\.study asks for 12"):
        Study(config("imagenet", enough, study=12))


def test_imagenette_is_planned_without_its_files(tmp_path):
    """And a class with too few images is refused then."""
    study = Study(config("imagenette", tmp_path / "nowhere", study=356))
    assert study.labels["n03888257"] == 701
    assert study.listing_digest() == "imagenette"
    assert study.image_settings() == {"dataset": "imagenette", "path": str(tmp_path / "nowhere")}
    with pytest.raises(StudyError, match=r"class n02979186: 357 images, but images\.study asks for 357"):
        Study(config("imagenette", None, study=357))


@pytest.mark.parametrize("kind", ["folder", "imagenet"])
def test_a_path_is_needed(kind):
    with pytest.raises(StudyError, match=r"images\.path: None is no folder; give"):
        Study(config(kind, None))
