"""Images: their split and folds, and their way into a tensor."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inputs import weights
from inputs.sources import ImageSource
from jobs import images as job
from readout import StudyError, images
from readout.folds import FOLDS

PLAIN = {"resize": None, "crop": 2, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@given(count=st.integers(0, 80), study=st.integers(0, 80), seed=st.integers(0, 9))
def test_every_image_is_studied_or_trains(count, study, seed):
    """The two parts are a partition, and the study part has as many as asked for where there are as many."""
    chosen, rest, _ = images.split(count, study, class_id="a", split_seed=seed, fold_seed=seed)
    assert sorted([*chosen, *rest]) == list(range(count))
    assert len(chosen) == min(study, count)


@given(count=st.integers(1, 80), study=st.integers(1, 80))
def test_folds_are_even_in_either_part(count, study):
    """A fold without images of the target would leave a probe nothing to predict."""
    for part in images.split(count, study, class_id="a", split_seed=0, fold_seed=0)[:2]:
        fold = images.split(count, study, class_id="a", split_seed=0, fold_seed=0)[2]
        sizes = np.bincount(fold[part], minlength=FOLDS)
        assert len(sizes) == 5
        assert sizes.max() - sizes.min() <= 1


@given(count=st.integers(1, 80), study=st.integers(1, 80), set_aside=st.integers(1, 80), seed=st.integers(0, 9))
def test_a_smaller_study_has_a_part_of_a_larger_one_s_images(count, study, set_aside, seed):
    """And trains on the same: none of what is set aside, whatever of it is studied; folds are even in either part."""
    study, set_aside = sorted((study, set_aside))
    seeds = {"class_id": "a", "split_seed": seed, "fold_seed": seed}
    chosen, rest, fold = images.split(count, study, **seeds, set_aside=set_aside)
    larger, same, _ = images.split(count, set_aside, **seeds)
    assert len(chosen) == min(study, count) and set(chosen) <= set(larger)
    assert np.array_equal(rest, same) and not set(rest) & set(larger)
    for part in (chosen, rest):
        sizes = np.bincount(fold[part], minlength=FOLDS)
        assert sizes.max() - sizes.min() <= 1


def test_split_depends_on_seed_and_class_alone():
    """The same twice; another class or seed is another draw."""
    first = images.split(60, 20, class_id="a", split_seed=0, fold_seed=0)
    for again, same in zip(images.split(60, 20, class_id="a", split_seed=0, fold_seed=0), first, strict=True):
        assert np.array_equal(again, same)
    assert not np.array_equal(images.split(60, 20, class_id="b", split_seed=0, fold_seed=0)[0], first[0])
    assert not np.array_equal(images.split(60, 20, class_id="a", split_seed=1, fold_seed=1)[0], first[0])


def test_either_seed_has_its_own_effect():
    """Which images are studied is decided by one, in which fold they are by the other."""
    first = images.split(60, 20, class_id="a", split_seed=0, fold_seed=0)
    folds = images.split(60, 20, class_id="a", split_seed=0, fold_seed=1)
    chosen = images.split(60, 20, class_id="a", split_seed=1, fold_seed=0)
    assert np.array_equal(folds[0], first[0]) and np.array_equal(folds[1], first[1])
    assert not np.array_equal(folds[2], first[2])
    assert not np.array_equal(chosen[0], first[0])


def test_transform_crops_the_centre_and_normalises():
    """4 x 4 pixels 0 to 15: the centre is 5 6 9 10; (x / 255 - 0.5) / 0.25 by hand."""
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).convert("RGB")
    tensor = images.transform(None, 2, [0.5, 0.5, 0.0], [0.25, 0.25, 1.0])(image)
    centre = torch.tensor([[5.0, 6], [9, 10]]) / 255
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor[0], (centre - 0.5) / 0.25)
    torch.testing.assert_close(tensor[2], centre)


def test_transform_resizes_the_shorter_side():
    """A left half in black and a right half in white, 8 x 4, to a shorter side of 2: 4 x 2, cropped to the middle."""
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 4:] = 255
    tensor = images.transform(2, 2, [0, 0, 0], [1, 1, 1], "nearest")(Image.fromarray(pixels).convert("RGB"))
    assert tensor[0].tolist() == [[0, 1], [0, 1]]


def test_a_digit_is_padded_by_two_pixels():
    """28 x 28 in the middle of 32 x 32, black around, the same in three channels."""
    digit = np.asarray(images.pad_digit(np.arange(784) % 255 + 1))
    assert digit.shape == (32, 32, 3)
    assert np.array_equal(digit[2:30, 2:30, 0].ravel(), np.arange(784) % 255 + 1)
    assert digit.sum() == digit[2:30, 2:30].sum()
    assert np.array_equal(digit[..., 0], digit[..., 2])


@pytest.fixture
def folder(tmp_path):
    """Two classes of twelve and eleven images, 2 x 2, and a file that is no image."""
    for class_id, count in (("a", 12), ("b", 11)):
        (tmp_path / "data" / class_id).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (2, 2), (i, 0, 0)).save(tmp_path / "data" / class_id / f"{i:02d}.png")
    (tmp_path / "data" / "a" / "notes.txt").write_text("not an image")
    return tmp_path


def test_the_table_lists_each_image_once(folder):
    """Ids are unique, labels as given, other files passed over; without training there are study images alone."""
    listing = {"dataset": "folder", "path": str(folder / "data"), "labels": {"a": 7, "b": 3}, "study": 10}
    listing |= {"split_seed": 0, "fold_seed": 0}
    job.list_images(folder / "all.parquet", **listing, train=True)
    study, train = (job.rows(folder / "all.parquet", split=split) for split in ("study", "train"))
    ids = np.concatenate([study["image_id"], train["image_id"]])
    assert len(set(ids)) == len(ids) == 23
    assert dict(zip(*np.unique(study["class_id"], return_counts=True), strict=True)) == {"a": 10, "b": 10}
    assert dict(zip(*np.unique(train["class_id"], return_counts=True), strict=True)) == {"a": 2, "b": 1}
    assert set(study["label"][study["class_id"] == "a"]) == {7}
    assert np.bincount(study["fold"]).tolist() == [4] * 5
    job.list_images(folder / "study.parquet", **listing, train=False)
    assert np.array_equal(job.rows(folder / "study.parquet")["image_id"], study["image_id"])
    with pytest.raises(StudyError, match=r"study\.parquet.*train"):
        job.rows(folder / "study.parquet", split="train")


def test_images_are_loaded_in_order(folder):
    """Red is the image's number."""
    sources = ["a/03.png", "b/00.png", "a/11.png"]
    x = job.load(sources, ImageSource("folder", str(folder / "data"), PLAIN))
    assert x.shape == (3, 3, 2, 2)
    assert (x[:, 0, 0, 0] * 255).round().tolist() == [3, 0, 11]


def rgb(file):
    """The pixels [H, W, 3] of a file as a study sees them, 0 to 255."""
    x = job.load([file.name], ImageSource("folder", str(file.parent), PLAIN))
    return (x[0] * 255).round().permute(1, 2, 0).int().tolist()


PALETTE = Image.new("P", (2, 2), 1)
PALETTE.putpalette([0, 0, 0, 10, 20, 30])

# Images 2 x 2 of one colour (a JPEG may be off by a little), how they are saved, and what they are in RGB.
KINDS = {
    "RGB": (Image.new("RGB", (2, 2), (200, 100, 50)), "x.jpg", {}, (200, 100, 50)),
    "grey": (Image.new("L", (2, 2), 90), "x.jpg", {}, (90, 90, 90)),
    # Cyan at 51 of 255 leaves 204 of red; black at 51 a share of 204/255 of all: 204 * 0.8 = 163, 255 * 0.8 = 204.
    "CMYK": (Image.new("CMYK", (2, 2), (51, 0, 255, 51)), "x.jpg", {}, (163, 204, 0)),
    "PNG named JPEG": (Image.new("RGB", (2, 2), (1, 2, 3)), "x.JPEG", {"format": "PNG"}, (1, 2, 3)),
    "palette": (PALETTE, "x.png", {}, (10, 20, 30)),
    "palette, transparent": (PALETTE, "x.png", {"transparency": 1}, (10, 20, 30)),
    "alpha": (Image.new("RGBA", (2, 2), (40, 50, 60, 7)), "x.png", {}, (40, 50, 60)),
    "grey and alpha": (Image.new("LA", (2, 2), (70, 0)), "x.png", {}, (70, 70, 70)),
    "two colours": (Image.new("1", (2, 2), 1), "x.png", {}, (255, 255, 255)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_any_kind_becomes_rgb(tmp_path, kind):
    """A transparent pixel has the colour that it hides, as torchvision's loader has it."""
    image, name, options, expected = KINDS[kind]
    image.save(tmp_path / name, **options)
    assert np.abs(np.array(rgb(tmp_path / name)) - expected).max() <= (2 if name == "x.jpg" else 0)


@pytest.mark.parametrize(("name", "dtype"), [("x.png", "<u2"), ("x.tif", "<u2"), ("x.tif", ">u2")])
def test_grey_of_16_bits_is_scaled(tmp_path, name, dtype):
    """To the nearest of 255 steps of 257; PIL's own conversion makes all but 0 white here."""
    values = np.array([[0, 257 * 100 + 128], [257 * 100 + 129, 65535]], np.uint16).astype(dtype)
    Image.frombytes("I;16B" if dtype == ">u2" else "I;16", (2, 2), values.tobytes()).save(tmp_path / name)
    assert Image.open(tmp_path / name).mode == ("I;16B" if dtype == ">u2" else "I;16")
    assert rgb(tmp_path / name) == [[[0] * 3, [100] * 3], [[101] * 3, [255] * 3]]


def write_text(file):
    file.write_text("not an image")


def write_truncated(file):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:-1000])


def write_bomb(file):
    """A few bytes that say they are 100,000 x 100,000 pixels."""
    file.write_bytes(b"P6 100000 100000 255\n" + bytes(100))


def write_32_bits(file):
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(file, "TIFF")


def write_floats(file):
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(file, "TIFF")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_text, "cannot identify"),
        (write_truncated, "truncated"),
        (write_bomb, "decompression bomb"),
        (write_32_bits, "32 bits.*8 or 16"),
        (write_floats, "32 bits.*8 or 16"),
    ],
)
def test_a_file_that_gives_no_pixels_is_named(tmp_path, write, words):
    write(tmp_path / "x.jpg")
    with pytest.raises(StudyError, match=rf"x\.jpg: cannot be read as an image \(.*{words}.*; replace or remove"):
        rgb(tmp_path / "x.jpg")


def test_an_error_of_any_kind_names_the_image(tmp_path, monkeypatch):
    """PIL's decoders raise more than they promise: a RuntimeError where an AVIF is broken."""

    def fail(*args):
        raise RuntimeError("no such box")

    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(StudyError, match=r"x\.png: cannot be read as an image \(no such box\)"):
        rgb(tmp_path / "x.png")


def test_an_image_that_has_gone_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"x\.png: no such file.*--forcerun images"):
        rgb(tmp_path / "x.png")


@pytest.fixture
def imagenet(tmp_path):
    """Six of ImageNet's validation images in the folders of two classes; the red of each is its number."""
    for number, class_id in enumerate(["n15075141", "n01440764", "n01440764"] * 2, start=1):
        folder = tmp_path / "imagenet" / "val" / class_id
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (2, 2), (number, 0, 0))
        image.save(folder / f"ILSVRC2012_val_{number:08d}.JPEG", "PNG")
    return {"dataset": "imagenet", "path": str(tmp_path / "imagenet")}


def test_images_of_imagenet_keep_their_numbers(imagenet, tmp_path):
    """Rows are sorted by number, not by class, and each row's source is the image of that number."""
    labels = {"n01440764": 0, "n15075141": 999}
    job.list_images(tmp_path / "a.parquet", **imagenet, labels=labels, study=10, train=False, split_seed=0, fold_seed=0)
    listed = job.rows(tmp_path / "a.parquet")
    assert listed["image_id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert listed["label"].tolist() == [999, 0, 0] * 2
    x = job.load(listed["source"], ImageSource(**imagenet, transform=PLAIN))
    assert (x[:, 0, 0, 0] * 255).round().tolist() == [1, 2, 3, 4, 5, 6]


def test_a_class_that_has_gone_is_named(imagenet, tmp_path):
    with pytest.raises(StudyError, match=r"class n01443537: its images are no longer in"):
        labels = {"n01443537": 1}
        job.list_images(
            tmp_path / "a.parquet", **imagenet, labels=labels, study=1, train=False, split_seed=0, fold_seed=0
        )


def test_imagenette_is_fetched_by_the_job_that_lists_it(tmp_path, monkeypatch):
    """And found again by later jobs from the same two settings."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(job.datasets.Imagenette, "counts", {"n01440764": 3, "n02102040": 2})

    def download(url, place, md5):
        for i, class_id in enumerate(["n01440764"] * 3 + ["n02102040"] * 2):
            folder = tmp_path / "imagenette" / "imagenette2-320" / "val" / class_id
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2), (i, 0, 0)).save(folder / f"{i}.JPEG", "PNG")

    monkeypatch.setattr(torchvision.datasets.imagenette, "download_and_extract_archive", download)
    settings = {"dataset": "imagenette", "path": None}
    labels = {"n01440764": 0, "n02102040": 217}
    job.list_images(tmp_path / "a.parquet", **settings, labels=labels, study=2, train=True, split_seed=0, fold_seed=0)
    listed = {split: job.rows(tmp_path / "a.parquet", split=split) for split in ("study", "train")}
    assert {split: len(rows["image_id"]) for split, rows in listed.items()} == {"study": 4, "train": 1}
    for rows in listed.values():
        x = job.load(rows["source"], ImageSource(**settings, transform=PLAIN))
        assert (x[:, 0, 0, 0] * 255).round().tolist() == rows["image_id"].tolist()


def test_a_broken_image_is_named(folder):
    """The message names the file, so that it can be replaced."""
    file = folder / "data" / "a" / "03.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(StudyError, match=r"a/03\.png.*replace or remove"):
        job.load(["a/03.png"], ImageSource("folder", str(folder / "data"), PLAIN))


def test_a_split_that_is_not_that_of_shipped_weights_is_refused(tmp_path):
    """As another version of numpy or of the data set may draw it; the right one passes."""
    data = {"dataset": "digits", "path": None, "labels": {str(i): i for i in range(10)}, "study": 50, "train": True}
    known = weights.shipped()["split"]["images"]
    job.list_images(tmp_path / "a.parquet", **data, split_seed=0, fold_seed=3, set_aside_digest=known)
    with pytest.raises(StudyError, match=r"the split is not that of the shipped weights.*envs/requirements\.txt"):
        job.list_images(tmp_path / "b.parquet", **data, split_seed=1, fold_seed=3, set_aside_digest=known)
    assert not (tmp_path / "b.parquet").exists()


def test_fewer_digits_are_some_of_those_that_shipped_networks_have_not_seen(tmp_path):
    """Twenty of the fifty; on the thirty others nobody trains, and the digest is that of the fifty."""
    data = {"dataset": "digits", "path": None, "labels": {str(i): i for i in range(10)}, "train": True}
    split = {"split_seed": weights.shipped()["split"]["seed"], "fold_seed": 3, "set_aside": 50}
    split |= {"set_aside_digest": weights.shipped()["split"]["images"]}
    ids = {}
    for study in (50, 20):
        job.list_images(tmp_path / f"{study}.parquet", **data, **split, study=study)
        for part in ("study", "train"):
            listed = job.rows(tmp_path / f"{study}.parquet", split=part)
            ids[study, part] = set(listed["image_id"])
            if part == "study":
                assert np.unique(listed["fold"], return_counts=True)[1].tolist() == [2 * study] * 5
                assert set(np.unique(listed["class_id"], return_counts=True)[1]) == {study}
    assert ids[20, "study"] < ids[50, "study"] and len(ids[20, "study"]) == 200
    assert ids[20, "train"] == ids[50, "train"] and not ids[20, "train"] & ids[50, "study"]
    with pytest.raises(StudyError, match="the split is not that of the shipped weights"):
        job.list_images(tmp_path / "a.parquet", **data, **split | {"split_seed": 1}, study=20)
