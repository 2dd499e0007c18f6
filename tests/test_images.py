"""Images: their split and folds, and their way into a tensor."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs import images as job
from readout import StudyError, images

PLAIN = {"resize": None, "crop": 2, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


@given(count=st.integers(0, 80), study=st.integers(0, 80), seed=st.integers(0, 9))
def test_every_image_is_studied_or_trains(count, study, seed):
    """The two parts are a partition, and the study part has as many as asked for where there are as many."""
    chosen, rest, _ = images.split(count, study, class_id="a", seed=seed)
    assert sorted([*chosen, *rest]) == list(range(count))
    assert len(chosen) == min(study, count)


@given(count=st.integers(1, 80), study=st.integers(1, 80))
def test_folds_are_even_in_either_part(count, study):
    """A fold without images of the target would leave a probe nothing to predict."""
    for part in images.split(count, study, class_id="a", seed=0)[:2]:
        fold = images.split(count, study, class_id="a", seed=0)[2]
        sizes = np.bincount(fold[part], minlength=images.FOLDS)
        assert len(sizes) == 5
        assert sizes.max() - sizes.min() <= 1


def test_split_depends_on_seed_and_class_alone():
    """The same twice; another class or seed is another draw."""
    first = images.split(60, 20, class_id="a", seed=0)
    for again, same in zip(images.split(60, 20, class_id="a", seed=0), first, strict=True):
        assert np.array_equal(again, same)
    assert not np.array_equal(images.split(60, 20, class_id="b", seed=0)[0], first[0])
    assert not np.array_equal(images.split(60, 20, class_id="a", seed=1)[0], first[0])


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
    listing = {"dataset": "folder", "path": str(folder / "data"), "labels": {"a": 7, "b": 3}, "study": 10, "seed": 0}
    job.list_images(folder / "all.parquet", **listing, train=True, log=folder / "log")
    study, train = (job.rows(folder / "all.parquet", split=split) for split in ("study", "train"))
    ids = np.concatenate([study["image_id"], train["image_id"]])
    assert len(set(ids)) == len(ids) == 23
    assert dict(zip(*np.unique(study["class_id"], return_counts=True), strict=True)) == {"a": 10, "b": 10}
    assert dict(zip(*np.unique(train["class_id"], return_counts=True), strict=True)) == {"a": 2, "b": 1}
    assert set(study["label"][study["class_id"] == "a"]) == {7}
    assert np.bincount(study["fold"]).tolist() == [4] * 5
    job.list_images(folder / "study.parquet", **listing, train=False, log=folder / "log")
    assert np.array_equal(job.rows(folder / "study.parquet")["image_id"], study["image_id"])
    with pytest.raises(StudyError, match=r"study\.parquet.*train"):
        job.rows(folder / "study.parquet", split="train")


def test_images_are_loaded_in_order(folder):
    """Red is the image's number."""
    sources = ["a/03.png", "b/00.png", "a/11.png"]
    x = job.load(sources, dataset="folder", path=str(folder / "data"), transform=PLAIN)
    assert x.shape == (3, 3, 2, 2)
    assert (x[:, 0, 0, 0] * 255).round().tolist() == [3, 0, 11]


def test_a_broken_image_is_named(folder):
    """The message names the file, so that it can be replaced."""
    file = folder / "data" / "a" / "03.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(StudyError, match=r"a/03\.png.*replace or remove"):
        job.load(["a/03.png"], dataset="folder", path=str(folder / "data"), transform=PLAIN)
