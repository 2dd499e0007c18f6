"""Hostile input, generated: a step ends in what is right or in a StudyError, and executes and writes nothing else."""

import contextlib
import copy
import dataclasses
import io
import json
import os
import pickle
import re
import shutil
import struct
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageSequence
from snakemake.cli import parse_config
from snakemake.utils import update_config
from torch import nn

from commands import ingest
from conftest import NO_ORIGINS, Toy, through_jobs
from inputs import checkpoints, conversions, datasets
from inputs.config import from_command_line
from inputs.sources import ImageSource, NetworkSource
from inputs.study import Study
from jobs import (
    ablations,
    activations,
    cells,
    claims,
    controls,
    image_sets,
    importance,
    legibility,
    observers,
    occlusions,
    page,
    pictures,
    probes,
    pseudo,
    redundancy,
    shapley,
    tables,
    trials,
    visualisations,
)
from jobs import figures as figures_job
from jobs import images as images_job
from jobs import networks as networks_job
from readout import StudyError, answers, caffe, models
from readout import figures as readout_figures
from readout.conditions import CONDITIONS
from runtime import cache, logs, parquet
from workflow import ROOT

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
TRAINED = {"weights": {"epochs": 5, "batch": 32, "learning_rate": 0.002}, "targets": ["0", "3", "5", "8"]}
CONFIG["networks"] = [network | copy.deepcopy(TRAINED) for network in CONFIG["networks"]]
"""The default study with networks that are trained here, which has more keys to get wrong."""
SCHEMA = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())


def many(count: int) -> settings:
    """So many examples, each on files of its own where it needs any."""
    return settings(max_examples=count, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _quiet():
    """PIL and torch warn of odd files, which is not what is asked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def damaged(content: bytes, how: str, at: int, bit: int, zeros: int) -> bytes:
    """A file's bytes cut at a place, or there with a bit flipped, some zeros, or bytes put in; or with bytes behind it."""
    harmed = bytearray(content)
    i = at % len(harmed)
    if how == "cut":
        del harmed[i:]
    elif how == "flip":
        harmed[i] ^= 1 << bit
    elif how == "zeros":
        harmed[i : i + zeros] = bytes(len(harmed[i : i + zeros]))
    elif how == "insert":
        harmed[i:i] = bytes(bit + 1)
    else:
        assert how == "behind"
        harmed += bytes(bit + 1)
    return bytes(harmed)


# ---- configs

TRAVERSAL = [
    "../up",
    "..",
    ".",
    "/etc",
    "a/b",
    "a\\b",
    "~",
    "~nobody_here/x",
    "results",
    "-n",
    "--force",
    ".hidden",
    "",
]
AWKWARD = [
    "a b",
    "ü",
    "u\u0308",
    "שלום",
    "\u202eabc",
    "🦆",
    "👩\u200d🚀",
    "a\nb",
    "digits\n",
    "a\0b",
    "a\tb",
    "'",
    '"',
    "$HOME",
    "`ls`",
]
AWKWARD += [
    "$(ls)",
    "a;b",
    "a|b",
    "a&b",
    "*",
    "?",
    "[a]",
    "{a}",
    "{",
    "}",
    "%s",
    "a=b",
    "#",
    "x" * 300,
    "ü" * 120,
    "\ud800",
    "\udcff",
]
AWKWARD += [
    "cells.parquet",
    "cells.log",
    "nul",
    "null",
    "true",
    "1e5",
    "a$^$b",
    "ALEXNET",
    "vgg16",
    "<b>",
    "a:b",
    "a,b",
    "a.",
]
WORDS = st.sampled_from([*TRAVERSAL, *AWKWARD]) | st.text(max_size=12)
NUMBERS = (
    st.sampled_from([0, -1, 1, 2, 10, 16, 2**31, 2**63, 10**30, 10**400, 1.0, 4.0, -0.0, 0.5, 1e300, 1e-300])
    | st.sampled_from([float("nan"), float("inf"), -float("inf"), 50.0, True, False])
    | st.integers(-5, 30)
    | st.floats()
)
ODD = st.recursive(
    st.none() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(-2, 12), inner, max_size=3),
    max_leaves=5,
)
LIKELY = {
    "dataset": st.sampled_from(["digits", "folder", "imagenet", "imagenette", "planted"]),
    "labels": st.dictionaries(st.sampled_from([*"0123456789", *range(10), "x"]), NUMBERS, max_size=12),
    "layers": st.sampled_from(["all", "blocks", 1, 7, 8, ["conv1", "conv5"], ["conv5", "conv1"]]),
    "classes": st.lists(st.sampled_from([*"0123456789", *range(10), 1.0, True]), max_size=6),
    "targets": st.lists(st.sampled_from([*"0123456789", *range(10), 1.0, True]), max_size=6),
    "weights": st.sampled_from(
        ["random", "shipped", "planted", "IMAGENET1K_V1", "random-3", str(ROOT / "README.md"), "x" * 5000, "a\0b"]
    ),
    "model": st.sampled_from(["alexnet", "googlenet", "planted", "small_resnet", "vit_b_16"]),
    "others": st.sampled_from(["all", "random_10"]),
    "device": st.sampled_from(["cpu", "cuda", "openvino"]),
    "outputs": st.integers(0, 2000),
}
COUNTS = (
    "seed study epochs batch crop resize selectivity magnitude draws units random matched directions resample pseudo"
)
LIKELY |= dict.fromkeys([*COUNTS.split(), "learning_rate", "confidence"], NUMBERS)
LIKELY |= {"C": NUMBERS | st.lists(NUMBERS, max_size=4), "controls": st.none(), "crossfit": st.none()}
LIKELY |= {
    "importance": st.none(),
    "shapley": st.none(),
    "measures": st.lists(st.sampled_from(["selectivity", "probe_weight", "random", 0]), max_size=3),
    "tops": st.lists(NUMBERS, max_size=3),
    "keep": NUMBERS | st.none(),
}
LIKELY |= {
    "protocols": st.lists(st.sampled_from(["published", "crossfit", "corrected"]), max_size=3),
    "interventions": st.lists(st.sampled_from(["zero", "mean", "erase", "resample", 0]), max_size=4),
}
LIKELY |= {"name": WORDS, "network": WORDS, "layer": WORDS, "target": WORDS, "path": WORDS}
LIKELY |= {"mean": st.lists(NUMBERS, min_size=3, max_size=3), "std": st.lists(NUMBERS, min_size=3, max_size=3)}
"""By key: values that are likelier than others to be taken."""
HOWS = ["likely"] * 8 + ["replace", "replace", "delete", "add", "nest", "repeat"]


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values in a config."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def mutations(draw) -> tuple[list, dict]:
    """The default config with one to three changes, and the paths of these."""
    config, changed = copy.deepcopy(CONFIG), []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        # Networks have most keys, and would otherwise get nearly all changes.
        how = draw(st.sampled_from(HOWS))
        top = draw(st.sampled_from(sorted(config, key=str)))
        below = [path for path in sorted(places(config), key=str) if path[0] == top]
        path = draw(
            st.sampled_from(below if how != "likely" else [path for path in below if path[-1] in LIKELY] or below)
        )
        place = config
        for key in path[:-1]:
            place = place[key]
        key = path[-1]
        if how == "delete":
            del place[key]
        elif how == "nest":
            place[key] = draw(st.sampled_from([[place[key]], {"a": place[key]}, {key: place[key]}]))
        elif how == "repeat" and isinstance(place, list):
            place.append(copy.deepcopy(place[key]))
        elif how == "add" and isinstance(place, dict):
            place[draw(WORDS | st.integers() | st.none() | st.sampled_from(["outputs"]))] = draw(ODD)
        else:
            place[key] = draw(LIKELY[key] if how == "likely" and key in LIKELY else ODD)
        changed.append(path)
    return changed, config


def keys(schema: object) -> set[str]:
    """All keys that a config can have."""
    found = set()
    if isinstance(schema, dict):
        found |= set(schema.get("properties", ()))
        for part in schema.values():
            found |= keys(part)
    if isinstance(schema, list):
        for part in schema:
            found |= keys(part)
    return found


PATTERNS = sorted(
    {
        found
        for file in sorted((ROOT / "workflow" / "rules").glob("*.smk"))
        for found in re.findall(r'f"(\{R\}/[^"]+)"', file.read_text())
    }
)
"""The paths of the results as the rules write them."""


def paths(study: Study) -> list[str]:
    """The paths of the results of a study: its names in the rules' patterns."""
    first = study.figure1()
    found = []
    for network in study.networks.values():
        names = {
            "network": network.name,
            "layer": network.layers[0],
            "cell": study.cells[-1],
            "step": "cells",
            "pseudo": "pseudo0",
            "variant": "base",
        }
        for class_id in {*network.targets, *network.classes}:
            values = names | {
                "class": class_id,
                "target": class_id,
                "name": "figure1",
                "suffix": "png",
                "other": class_id,
            }
            for pattern in PATTERNS:

                def fill(match: re.Match, values=values) -> str:
                    word = match[1]
                    if word == "R":
                        return study.results
                    if word.startswith("FIRST"):
                        return first[word.split("'")[1]]
                    return next(value for key, value in values.items() if key in word or word == key[0])

                found.append(re.sub(r"\{+([^{}]+)\}+", fill, pattern))
    return sorted(set(found))


def check_study(config: object) -> None:
    """A study that is taken stays in its folder; one that is refused says why."""
    try:
        study = Study(config)
    except StudyError as error:
        named = [key for key in keys(SCHEMA) | {"class", "config"} if key in str(error)]
        assert named, error
        return
    base = (ROOT / "results" / study.name).resolve()
    assert base.parent == (ROOT / "results").resolve()
    found = paths(study)
    assert len(found) > 20
    # Not resolved, which would follow links: no part of a path leads up, and no file of one job is another's folder.
    for path in found:
        assert Path(os.path.normpath(ROOT / path)).is_relative_to(base), path
        assert os.path.normpath(path) == path
        assert all(len(os.fsencode(part)) < 240 for part in Path(path).parts)
    folders = {str(parent) for path in found for parent in Path(path).parents}
    assert not folders & set(found), folders & set(found)
    assert all(0 <= study.labels[c] < network.outputs for network in study.networks.values() for c in network.classes)
    sources = [dataclasses.asdict(study.source(network)) for network in study.networks.values()]
    # No number of it is endless or none, and whole ones are whole: they are counted to and are seeds.
    assert json.loads(json.dumps([config, *sources], allow_nan=False))
    assert not re.search(
        r'"(seed|crop|draws|units|random|study|selectivity|magnitude|epochs)": [0-9]+\.', json.dumps(config)
    )
    for network in study.networks.values():
        assert len(set(network.layers)) == len(network.layers) > 0
        assert set(network.targets) <= set(network.classes) <= set(study.classes)
        assert all(isinstance(name, str) for name in (*network.layers, *network.classes, network.name))
        assert not network.file or Path(network.file).is_file()


def changed(path: str, value: object) -> dict:
    """The default config with one value changed; the path's keys are separated by dots."""
    config = copy.deepcopy(CONFIG)
    *above, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place = config
    for key in above:
        place = place[key]
    place[last] = value
    return config


@many(300)
@given(mutations())
def test_a_config_is_taken_or_refused_with_its_key(mutation):
    check_study(mutation[1])


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        # Each was taken, or ended in another error.
        ("study", "digits\n", "study"),
        ("seed", 1.0, "seed"),
        ("seed", 2**64, "seed"),
        ("networks.1.layers", 6.0, "layers"),
        ("grid.selectivity", 4.0, "grid.selectivity"),
        ("probes.published.C", float("nan"), "probes.published.C"),
        ("probes.published.C", 10**400, "probes.published.C"),
        ("controls.pseudo", float("inf"), "controls.pseudo"),
        ("grid.magnitude", 10**330, "grid.magnitude"),
        ("claims.confidence", float("nan"), "claims.confidence"),
        ("networks.0.transform.std", [1e-300, 1, 1], "std"),
        ("networks.0.transform.crop", 10**9, "crop"),
        ("networks.0.weights", "x" * 5000, "weights"),
        ("networks.0.name", "\ud800", "name"),
        ("networks.0.name", "cells.parquet", "networks: name"),
        ("networks.0.name", "VGG16", "two networks have one name"),
        ("images", {"dataset": "folder", "path": "~nobody_here", "labels": None, "study": 50}, "images.path"),
        ("images.labels", {5: "x", "a": "y"}, "images.labels"),
        ("images.labels", {0: 1, "0": 2}, "images.labels: class 0"),
        ("images.labels", dict.fromkeys("0123456789", 2**40), "images.labels"),
    ],
)  # fmt: skip
def test_a_config_that_was_taken_is_refused(path, value, word):
    with pytest.raises(StudyError, match=re.escape(word)):
        Study(changed(path, value))


def test_labels_of_no_class_are_refused():
    config = changed("images.labels", {})
    config["networks"] = [entry | {"weights": "random"} for entry in config["networks"]]
    with pytest.raises(StudyError, match="no output is given for class 0"):
        Study(config)


def test_a_path_of_weights_is_no_pattern(tmp_path):
    (tmp_path / "{network}.pt").touch()
    with pytest.raises(StudyError, match="is a pattern; rename it"):
        Study(changed("networks.0.weights", str(tmp_path / "{network}.pt")))


@pytest.mark.parametrize("line", ["0\t2\n", "x\t" + "9" * 200_000 + "\n", "x\t100000\n", "x\t-1\n"])
def test_a_table_of_labels_that_does_not_serve_is_refused(tmp_path, line):
    """A class twice, a field beyond csv's limit, an output beyond all networks."""
    table = tmp_path / "labels.tsv"
    table.write_text("class_id\tlabel\n" + "".join(f"{digit}\t{digit}\n" for digit in range(10)))
    assert Study(changed("images.labels", str(table))).labels["3"] == 3
    table.write_text(table.read_text() + line)
    with pytest.raises(StudyError, match=r"images\.labels"):
        Study(changed("images.labels", str(table)))


SCALARS = [
    "1e5",
    ".nan",
    ".inf",
    "-.inf",
    "0x10",
    "0o17",
    "017",
    "1:30",
    "no",
    "on",
    "~",
    "2020-01-01",
    "!!binary aGk=",
    "&a [*a]",
]
SCALARS += [
    "!!set {a}",
    "!!timestamp 2020-01-01",
    "[1, [2, [3]]]",
    "{a: {b: c}}",
    "!!float 4",
    "!!str 4",
    '"\\ud800"',
    '"\\0"',
    "<<: {a: b}",
    "? [a]\n: b",
]
SCALARS += [
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/name:os.system",
    "- 1\n- 1",
    "1_000",
    "4.",
    "1e400",
    "é",
]


@many(120)
@given(st.sampled_from(sorted(places(CONFIG), key=str)), st.sampled_from(SCALARS) | st.text(max_size=10))
def test_a_value_from_the_command_line_is_taken_or_refused(path, text):
    """Read as YAML, and merged as Snakemake merges it, which keeps what is beside it."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    for key in reversed(path):
        value = {key: value} if isinstance(key, str) else [value]
    config = copy.deepcopy(CONFIG)
    update_config(config, value)
    check_study(config)
    assert not Path("executed").exists()


@many(300)
@given(st.sampled_from(sorted(places(CONFIG), key=str)), st.sampled_from(SCALARS) | st.text(max_size=10))
@example(("networks", 0), "&a [*a]")
@example(("images", "labels"), "&a {b: *a}")
@example(("probes", "published", "draws"), "9" * 5000)
def test_text_from_the_command_line_is_taken_or_refused(path, text):
    """As Snakemake really reads it: what is inside a value is text, which gets its type from the schema."""
    for key in reversed(path[1:]):
        text = f"{{{json.dumps(key)}: {text}}}" if isinstance(key, str) else f"[{text}]"
    try:
        value = parse_config([f"{path[0]}={text}"])
    except (ValueError, AssertionError):
        return
    config = copy.deepcopy(CONFIG)
    for part in (value, from_command_line(value)):
        update_config(config, part)
    check_study(config)
    assert not Path("executed").exists()


# ---- folders of images


def _png(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


PNGS = [_png(red) for red in range(256)]
PLAIN = {"resize": None, "crop": 2, "mean": [0.0] * 3, "std": [1.0] * 3}
BYTES = [word.encode("utf-8", "surrogateescape") for word in (*TRAVERSAL, *AWKWARD) if "\ud800" not in word]
NAMES = (
    (
        st.sampled_from(
            [*BYTES, b"a", b"A", b"\xff", b"caf\xe9", b"\xc3", b"\xed\xa0\x80", "é".encode(), "e\u0301".encode()]
        )
        | st.sampled_from(["x" * 255, "x" * 200, "ü" * 100, "ü" * 127, "🦆" * 63, "mnist_data[0]"]).map(str.encode)
        | st.binary(max_size=20)
        | st.text(max_size=20).map(lambda text: text.encode("utf-8", "ignore"))
    )
    .map(lambda name: name.replace(b"/", b"").replace(b"\0", b"")[:255])
    .filter(lambda name: name not in (b"", b".", b".."))
)


def _serves(name: bytes) -> bool:
    """Whether a folder's name can be a class: by the rules of the documentation, in other words."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False
    return text.isprintable() and not set(text) & set("/\\{}*?[]") and len(name) <= 200


@many(80)
@given(
    st.lists(NAMES, min_size=2, max_size=4, unique=True),
    st.lists(NAMES, max_size=4, unique=True),
    st.sampled_from([b".png", b".PNG", b".jpg", b".txt", b"", b".pdf", b".png.txt"]),
)
@example([b"a", b"b\xff"], [], b".png")
@example([b"a", b"b"], [b"\xff"], b".png")
@example([b"a", b"A"], [b"\n", b"-rf"], b".png")
@example(["é".encode(), "e\u0301".encode()], [], b".png")
@example([b"a", b"b"], [b"notes"], b".pdf")
def test_a_folder_of_any_names_is_listed_or_refused(classes, files, suffix):
    """Each image is in the table once, of the class of its folder, and opens with the pixels of its file."""
    with tempfile.TemporaryDirectory() as tmp:
        root, written, number = os.path.join(tmp, "data").encode(), {}, 0
        for class_id in classes:
            os.makedirs(os.path.join(root, class_id))
            own = [b"%d.png" % i for i in range(10)]
            own += [name[: 255 - len(suffix)] + suffix for name in files]
            for name in dict.fromkeys(own):
                Path(os.fsdecode(os.path.join(root, class_id, name))).write_bytes(PNGS[number])
                written[class_id, name] = number
                number += 1
        seen = [class_id for class_id in classes if not class_id.startswith(b".")]
        shown = {
            (class_id, name): red
            for (class_id, name), red in written.items()
            if class_id in seen and not name.startswith(b".") and name.lower().endswith((b".png", b".jpg"))
        }
        # A name that is a suffix alone is hidden, and what follows the last dot is the suffix.
        config = copy.deepcopy(CONFIG)
        config["images"] |= {"dataset": "folder", "path": os.path.join(tmp, "data"), "study": 10}
        network = config["networks"][0] | {"weights": "random", "targets": "all"}
        config |= {"networks": [network], "figures": {"network": "alexnet", "layer": None, "target": None}}
        config["occlusion"] = None
        named = len(seen) > 1 and all(map(_serves, seen))
        texts = all(_is_text(name) for class_id, name in shown)
        try:
            study = Study(config)
            output, log = Path(tmp, "images.parquet"), Path(tmp, "log")
            settings_ = {"dataset": "folder", "path": os.path.join(tmp, "data")}
            how = {"study": 10, "train": True, "split_seed": 0, "fold_seed": 0}
            logs.run(log, images_job.list_images, path_to_images=output, **settings_, labels=study.labels, **how)
        except StudyError as error:
            assert "(unexpected;" not in str(error), error
            assert not (named and texts), error
            return
        assert named
        assert texts
        check_study(config)
        found = pq.read_table(output).to_pylist()
        assert {row["class_id"].encode() for row in found} == set(seen)
        assert {tuple(row["source"].encode().split(b"/")) for row in found} == set(shown)
        assert len(found) == len(shown) == len({row["image_id"] for row in found})
        assert all(row["class_id"] == row["source"].split("/")[0] for row in found)
        assert all(row["label"] == study.labels[row["class_id"]] for row in found)
        x = images_job.load([row["source"] for row in found], ImageSource(**settings_, transform=PLAIN))
        expected = [shown[tuple(row["source"].encode().split(b"/"))] for row in found]
        assert (x[:, 0, 0, 0] * 255).round().tolist() == expected


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_dollars_in_names_are_no_formula(tmp_path):
    """matplotlib takes what is between two for a formula, and stops at one that it cannot read."""
    figure = readout_figures.plt.figure()
    readout_figures.style()
    figure.suptitle("a$^$b")
    axes = figure.subplots()
    axes.set_yticks([0], ["US$ or CA$"])
    figures_job.save(figure, [str(tmp_path / "figure.svg")])
    text = (tmp_path / "figure.svg").read_text()
    assert "a$^$b" in text
    assert "US$ or CA$" in text
    readout_figures.plt.close(figure)


# ---- bytes of images

NOISE = np.random.default_rng(0).integers(0, 256, (2, 21, 17, 3), dtype=np.uint8)


def _saved(kind: str, mode: str = "RGB", **options) -> bytes:
    first, second = (Image.fromarray(pixels).convert(mode) for pixels in NOISE)
    file = io.BytesIO()
    if options.pop("animated", False):
        options |= {"save_all": True, "append_images": [second]}
    first.save(file, kind, **options)
    return file.getvalue()


FILES = {
    "png": _saved("PNG"),
    "png palette": _saved("PNG", "P"),
    "png alpha": _saved("PNG", "RGBA"),
    "png animated": _saved("PNG", animated=True, duration=10),
    "jpeg": _saved("JPEG", quality=90),
    "jpeg progressive": _saved("JPEG", progressive=True, quality=90),
    "jpeg grey": _saved("JPEG", "L"),
    "gif": _saved("GIF", "P"),
    "gif animated": _saved("GIF", "P", animated=True, duration=10),
    "webp": _saved("WEBP", lossless=True),
    "webp lossy": _saved("WEBP"),
    "webp animated": _saved("WEBP", animated=True, duration=10),
    "tiff": _saved("TIFF"),
    "tiff lzw": _saved("TIFF", compression="tiff_lzw"),
    "tiff pages": _saved("TIFF", animated=True),
    "bmp": _saved("BMP"),
    "ppm": _saved("PPM"),
    "tga": _saved("TGA"),
    "ico": _saved("ICO"),
    "jpeg 2000": _saved("JPEG2000"),
}
SUFFIXES = st.sampled_from([".png", ".jpg", ".gif", ".webp", ".tif", ".bmp", ".ico", ".jp2", ".ppm"])
BIG = struct.pack(">II", 60_000, 60_000)


def _png_of(width: int, height: int) -> bytes:
    """A PNG whose header, with its checksum, says another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + FILES["png"][24:29]
    return FILES["png"][:12] + header + struct.pack(">I", zlib.crc32(header)) + FILES["png"][33:]


@st.composite
def damages(draw) -> tuple[str, bytes, str]:
    """A file, its bytes after some harm, and what the harm was."""
    kind = draw(st.sampled_from(sorted(FILES)))
    content = FILES[kind]
    how = draw(
        st.sampled_from(["none", "cut", "cut", "flip", "flip", "zeros", "insert", "size", "behind", "before", "other"])
    )
    at = draw(st.integers(0, len(content) - 1))
    if how == "cut":
        content = content[:at]
    elif how == "flip":
        content = content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
    elif how == "zeros":
        content = content[:at] + bytes(len(content) - at)
    elif how == "insert":
        content = content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at:]
    elif how == "size":
        sizes = st.sampled_from(
            [(0, 0), (0, 5), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (17, 2000), (1, 1)]
        )
        content = _png_of(*draw(sizes))
    elif how == "behind":
        content += draw(st.binary(min_size=1, max_size=50))
    elif how == "before":
        content = draw(st.binary(min_size=1, max_size=8)) + content
    elif how == "other":
        texts = [
            b"",
            b"\0" * 100,
            b"hello",
            b"<svg></svg>",
            b"%PDF-1.4",
            b"P6 100000 100000 255\n" + bytes(9),
            b"\xff\xd8\xff",
        ]
        content = draw(st.sampled_from(texts) | st.binary(max_size=60))
    return kind, content, how


def _reference(content: bytes, resize: int | None) -> torch.Tensor:
    """The first frame as PIL has it, cut and scaled with numpy and PIL alone."""
    image = next(iter(ImageSequence.Iterator(Image.open(io.BytesIO(content))))).convert("RGB")
    if resize is not None:
        image = image.resize((resize, int(resize * 21 / 17)), Image.Resampling.BILINEAR)
    top, left = round((image.height - 8) / 2), round((image.width - 8) / 2)
    pixels = np.asarray(image)[top : top + 8, left : left + 8]
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).permute(2, 0, 1)


@many(300)
@given(damages(), SUFFIXES, st.sampled_from([None, 10]))
def test_an_image_of_any_bytes_gives_its_pixels_or_is_named(damage, suffix, resize):
    """A file that was cut short gives no pixels but its own, whatever the suffix; an animation its first frame."""
    kind, content, how = damage
    with tempfile.TemporaryDirectory() as tmp:
        Path(tmp, f"x{suffix}").write_bytes(content)
        transform = {"resize": resize, "crop": 8, "mean": [0.0] * 3, "std": [1.0] * 3}
        try:
            x = images_job.load([f"x{suffix}"], ImageSource("folder", tmp, transform))
        except StudyError as error:
            assert re.search(rf"x\{suffix}: cannot be read as an image \(.+\); replace or remove", str(error)), error
            assert how not in ("none", "behind"), error
            return
    assert x.shape == (1, 3, 8, 8)
    assert x.dtype == torch.float32
    assert torch.isfinite(x).all()
    assert 0 <= x.min() <= x.max() <= 1
    if how in ("none", "cut", "behind"):
        torch.testing.assert_close(x[0], _reference(FILES[kind], resize), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", FILES)
def test_frames_differ(kind):
    """So that the test above could tell the second from the first."""
    frames = [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(Image.open(io.BytesIO(FILES[kind])))]
    assert len(set(frames)) == (2 if "animated" in kind or "pages" in kind else 1)


def test_a_thin_image_does_not_fill_the_memory(tmp_path):
    """Scaled to 256 pixels its longer side would have 15 million."""
    Image.new("1", (60_000, 1)).save(tmp_path / "x.png")
    with pytest.raises(StudyError, match=r"x\.png: .*60000 x 1 pixels is too thin"):
        images_job.load(["x.png"], ImageSource("folder", str(tmp_path), PLAIN | {"resize": 256}))


def test_a_program_is_no_image(tmp_path, monkeypatch):
    """PIL would have Ghostscript execute PostScript, whatever the suffix; here Ghostscript leaves a file."""
    script = tmp_path / "gs"
    script.write_text(f"#!/bin/sh\ntouch '{tmp_path}/executed'\n")
    script.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(script))
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    (folder / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(StudyError, match=r"x\.png: cannot be read as an image"):
        images_job.load(["a/x.png"], ImageSource("folder", str(tmp_path / "data"), PLAIN))
    assert not (tmp_path / "executed").exists()
    # Nor is it listed, and neither is what PIL only writes.
    for name in ("x.eps", "x.ps", "x.pdf"):
        (folder / name).touch()
    assert list(datasets.Folder(str(tmp_path / "data")).files["a"]) == ["a/x.png"]
    # Negative control: PIL by itself executes it.
    with pytest.raises(OSError, match=""):
        Image.open(folder / "x.png").load()
    assert (tmp_path / "executed").exists()


@given(st.integers(-3, 6000).map("mnist_data[{}]".format) | st.sampled_from(["", "mnist_data[]", "x", "mnist_data[1e3]", "mnist_data[²]"]))  # fmt: skip
@many(40)
def test_a_digit_that_is_not_there_is_named(source):
    """Python counts from the end where a number is negative."""
    pixels, _ = datasets.digits()
    try:
        x = images_job.load([source], ImageSource("digits", None, PLAIN | {"crop": 32}))
    except StudyError as error:
        assert source in str(error)
        assert source not in {f"mnist_data[{i}]" for i in range(len(pixels))}
        return
    number = int(source[11:-1])
    assert np.array_equal((x[0, 0] * 255).round().numpy()[2:30, 2:30], pixels[number].reshape(28, 28))


# ---- tables of the results


class World:
    """Files of a study, steps to run on them, and the tables that these should make."""

    def __init__(self, root: Path, file: dict, steps: dict, right: dict):
        self.root, self.file, self.steps, self.right = root, file, steps, right


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The toy of conftest.py, studied to the end: its files, and each step to run anew on them."""
    root = tmp_path_factory.mktemp("world")
    opening = {"dataset": "folder", "path": str(root / "data")}
    pixels = np.random.default_rng(1).integers(0, 6, (4, 2, 2, 3), dtype=np.uint8)
    for i, class_id in enumerate("aabb"):
        (root / "data" / class_id).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(root / "data" / class_id / f"{i}.png")
    transform = {"resize": None, "crop": 2, "mean": [0.0] * 3, "std": [1 / 255] * 3}
    source = NetworkSource("toy", 3, str(root / "weights.pt"), ImageSource(**opening, transform=transform))
    file = {name: str(root / f"{name}.parquet") for name in ("images", "layers", "layer")}
    file |= {f"activations {c}": str(root / "activations" / "conv1" / f"{c}.parquet") for c in "ab"}
    file |= {f"means {c}": str(root / "means" / "conv1" / f"{c}.parquet") for c in "ab"}
    file |= {f"baseline {c}": str(root / "baseline" / f"{c}.parquet") for c in "ab"}
    made_by_grid = ("cells", "controls", "pseudo", "rankings", "measures", "redundancy", "shapley")
    file |= {step: str(root / step / "a.parquet") for step in made_by_grid}
    names = ("s0m0", "s0m1", "s1m0", "s1m1")
    for step in ("probes", "ablations"):
        file |= {f"{step} {cell}": str(root / step / "a" / f"{cell}.parquet") for cell in names}
    place = {"network": "toy", "layer": "conv1"}
    shown = {"path_to_images": file["images"], "path_to_layers": file["layers"], "source": source, "device": "cpu"}
    baselines, means, kept = ({c: file[f"{kind} {c}"] for c in "ab"} for kind in ("baseline", "means", "activations"))
    grid = ablations.Grid(
        **shown,
        **place,
        class_id="a",
        others=("b",),
        path_to_cells=file["cells"],
        path_to_baseline=baselines["a"],
        paths_to_others=(baselines["b"],),
    )

    # Each step writes into a folder of its own, beside the files that the others read.
    def out(path: str) -> str:
        return path.replace(str(root), str(root / "out"))

    def run(job, **given) -> None:
        logs.run(root / "log", job, **given)

    def extract(class_id: str = "a") -> list[str]:
        made = [out(file[name]) for name in (f"activations {class_id}", f"means {class_id}", f"baseline {class_id}")]
        run(
            activations.extract,
            **shown,
            paths_to_activations={"conv1": made[0]},
            paths_to_means={"conv1": made[1]},
            path_to_baseline=made[2],
            class_id=class_id,
            dtype="float32",
            folds=True,
        )
        return made

    def assign() -> list[str]:
        made = out(file["cells"])
        of = {"path_to_target": means["a"], "paths_to_others": [means["b"]]}
        run(cells.assign, path_to_cells=made, **of, layer="conv1", bins=[2, 2], folds=True)
        return [made]

    def probe(cell: str = "s1m1") -> list[str]:
        made = out(file[f"probes {cell}"])
        run(
            probes.probe,
            path_to_probe=made,
            path_to_cells=file["cells"],
            path_to_layers=file["layers"],
            path_to_target=file["activations a"],
            paths_to_others=[file["activations b"]],
            **place,
            class_id="a",
            cell=cell,
            kind="cell",
            seed=0,
            published={"draws": 3, "units": 1, "C": 1.0},
            crossfit={"C": 1.0, "draws": 2},
            layers=["conv1"],
            cells=4,
        )
        return [made]

    def ablate(cell: str = "s1m1") -> list[str]:
        made = out(file[f"ablations {cell}"])
        how = {"protocols": ["published", "crossfit"], "interventions": ["zero", "mean", "erase"]}
        run(ablations.ablate, grid=grid, path_to_ablation=made, cell=cell, kind="cell", seed=None, **how)
        return [made]

    def control() -> list[str]:
        made = out(file["controls"])
        counts = {"random": 2, "matched": 1, "directions": 1, "resample": 1}
        run(controls.control, grid=grid, path_to_controls=made, **counts, seed=0)
        return [made]

    def divide() -> list[str]:
        made = out(file["shapley"])
        how = {"interventions": ["zero", "mean"], "permutations": 40, "error": 0.1, "seed": 0}
        run(shapley.divide, grid=grid, path_to_shapley=made, **how)
        return [made]

    def draw() -> list[str]:
        made = out(file["pseudo"])
        run(
            pseudo.control,
            path_to_pseudo=made,
            **shown,
            **place,
            paths_to_activations=kept,
            paths_to_means=means,
            paths_to_baselines=baselines,
            pseudo="pseudo0",
            bins=[2, 2],
            C=1.0,
            interventions=["zero", "mean"],
            seed=0,
        )
        return [made]

    def rank() -> list[str]:
        made = [out(file[name]) for name in ("rankings", "measures")]
        run(
            importance.rank,
            grid=grid,
            path_to_rankings=made[0],
            path_to_means=made[1],
            paths_to_activations=list(kept.values()),
            measures=["selectivity", "gradient_x_deviation"],
            needs=["gradients"],
            C=None,
            random=1,
            tops=[4],
            interventions=["mean"],
            keep=4,
            seed=0,
        )
        return made

    def gather_measures() -> list[str]:
        made = str(root / "out" / "measures_table.parquet")
        key = ("toy", "conv1", "a")
        run(
            tables.gather_measures,
            path_to_table=made,
            paths_to_cells={key: file["cells"]},
            paths_to_means={key: file["measures"]},
            paths_to_layers={"toy": file["layers"]},
            origins={"toy": NO_ORIGINS},
        )
        return [made]

    def look() -> list[str]:
        made = out(file["redundancy"])
        how = {"interventions": ["zero", "mean"], "C": 1.0, "seed": 0}
        run(redundancy.look, grid=grid, path_to_redundancy=made, **how)
        return [made]

    def gather_layer() -> list[str]:
        of = {step: {"a": {cell: file[f"{step} {cell}"] for cell in names}} for step in ("probes", "ablations")}
        run(
            tables.gather_layer,
            path_to_table=out(file["layer"]),
            path_to_images=file["images"],
            path_to_layers=file["layers"],
            paths_to_baselines=baselines,
            others={"a": ("b",)},
            paths_to_cells={"a": file["cells"]},
            paths_to_probes=of["probes"],
            paths_to_ablations=of["ablations"],
            paths_to_controls={"a": file["controls"]},
            **place,
            origins=NO_ORIGINS,
        )
        return [out(file["layer"])]

    def gather_study() -> list[str]:
        made = str(root / "out" / "study.parquet")
        run(tables.gather_study, path_to_table=made, paths_to_layers=[file["layer"]])
        return [made]

    def gather_groups() -> list[str]:
        made = str(root / "out" / "groups.parquet")
        paths = {"path_to_images": file["images"], "paths_to_controls": {("toy", "conv1", "a"): file["controls"]}}
        paths |= {"paths_to_pseudo": {("toy", "conv1", "pseudo0"): file["pseudo"]}}
        paths |= {"paths_to_rankings": {("toy", "conv1", "a"): file["rankings"]}}
        paths |= {"paths_to_layers": {"toy": file["layers"]}, "paths_to_baselines": {"toy": baselines}}
        run(
            tables.gather_groups,
            path_to_table=made,
            **paths,
            others={"toy": {"a": ("b",)}},
            origins={"toy": NO_ORIGINS},
        )
        return [made]

    def gather_redundancy() -> list[str]:
        made = str(root / "out" / "redundancy.parquet")
        run(
            tables.gather_redundancy,
            path_to_table=made,
            paths_to_redundancy={("toy", "conv1", "a"): file["redundancy"]},
            paths_to_layers={"toy": file["layers"]},
            origins={"toy": NO_ORIGINS},
        )
        return [made]

    def gather_shapley() -> list[str]:
        made = str(root / "out" / "shapley.parquet")
        run(
            tables.gather_shapley,
            path_to_table=made,
            paths_to_shapley={("toy", "conv1", "a"): file["shapley"]},
            paths_to_layers={"toy": file["layers"]},
            origins={"toy": NO_ORIGINS},
        )
        return [made]

    def outcomes() -> list[str]:
        described = {"targets": ["a"], "outputs": 3, "model": "toy", "untrained": False}
        found = claims.outcomes([file["layer"]], None, "toy", (2, 2), **described)
        made = root / "out" / "outcomes.parquet"
        pq.write_table(pa.table({name: pa.array([str(values)]) for name, values in found.columns.items()}), made)
        return [str(made)]

    def settle(made: list[str]) -> None:
        """Have what a step made in the place of the files that the others read."""
        for path in made:
            os.renames(path, path.replace(str(root / "out"), str(root)))

    with mock.patch.dict(models.BUILDERS, toy=Toy):
        torch.save(Toy().state_dict(), root / "weights.pt")
        listing = {"labels": {"a": 0, "b": 1}, "study": 2, "train": False, "split_seed": 0, "fold_seed": 0}
        images_job.list_images(file["images"], **opening, **listing)
        networks_job.list_layers(file["layers"], source=source, chosen=["conv1"], cells=4, device="cpu")
        for class_id in "ab":
            settle(extract(class_id))
        settle(assign())
        for cell in names:
            settle(probe(cell) + ablate(cell))
        settle(control())
        settle(divide())
        settle(draw())
        settle(rank())
        settle(look())
        settle(gather_layer())
        each = (extract, assign, probe, ablate, control, divide, draw, rank, look, gather_layer, gather_study)
        each = (*each, gather_groups, gather_measures, gather_redundancy, gather_shapley, outcomes)
        steps = {step.__name__: (step, STEPS[step.__name__]) for step in each}
        (root / "out").mkdir(exist_ok=True)
        right = {name: [pq.read_table(path) for path in step()] for name, (step, _) in steps.items()}
        yield World(root, file, steps, right)


STEPS = {
    "extract": ["images", "layers"],
    "assign": ["means a", "means b"],
    "probe": ["cells", "layers", "activations a", "activations b"],
    "ablate": ["images", "layers", "cells", "baseline a", "baseline b"],
    "control": ["images", "layers", "cells", "baseline a", "baseline b"],
    "divide": ["images", "layers", "cells", "baseline a", "baseline b"],
    "draw": ["images", "layers", "activations b", "means b", "baseline b"],
    "rank": ["images", "layers", "cells", "baseline a", "baseline b", "activations a", "activations b"],
    "look": ["images", "layers", "cells", "baseline a", "baseline b"],
    "gather_layer": ["images", "layers", "baseline b", "cells", "probes s0m1", "ablations s0m1", "controls"],
    "gather_study": ["layer"],
    "gather_groups": ["images", "layers", "baseline b", "controls", "pseudo", "rankings"],
    "gather_measures": ["cells", "measures", "layers"],
    "gather_redundancy": ["layers", "redundancy"],
    "gather_shapley": ["layers", "shapley"],
    "outcomes": ["layer"],
}
TABLES = {
    "images": images_job.SCHEMA,
    "layers": networks_job.LAYERS,
    "means": activations.FOLD_MEANS,
    "activations": activations.schema(8, "float32"),
    "baseline": activations.BASELINE,
    "cells": cells.FOLDS_SCHEMA,
    "probes": probes.SCHEMA,
    "ablations": ablations.SCHEMA,
    "controls": controls.SCHEMA,
    "pseudo": pseudo.SCHEMA,
    "rankings": importance.SCHEMA,
    "measures": importance.MEANS,
    "redundancy": redundancy.SCHEMA,
    "shapley": shapley.SCHEMA,
    "layer": tables.LAYER,
    "pool": images_job.SCHEMA,
    "units": image_sets.UNITS,
    "sets": image_sets.SETS,
    "extremes": image_sets.EXTREMES,
    "windows": image_sets.WINDOWS,
    "visualisations": visualisations.SCHEMA,
    "trials": trials.TRIALS,
    "stimuli": pictures.STIMULI,
    "observers": observers.SCHEMA,
    "interpretability": observers.INTERPRETABILITY,
    "cells_table": pa.schema([tables.CELLS.field(name) for name in legibility.CELLS]),
    "responses": ingest.RESPONSES,
    "key": page.KEY,
}


def _remade(table: pa.Table, i: int, column: list, kind: pa.DataType) -> pa.Table:
    return table.set_column(i, pa.field(table.schema.names[i], kind), pa.array(column, kind))


def harm_table(table: pa.Table, how: str, i: int, row: int) -> pa.Table | None:
    """A table of a step with a mistake in column i or in a row; None where the mistake cannot be made there."""
    field, column = table.schema.field(i), table.column(i).to_pylist()
    kind, row = field.type, row % len(table)

    def put(value: object, kind: pa.DataType = kind) -> pa.Table:
        return _remade(table, i, [value if j == row else v for j, v in enumerate(column)], kind)

    if how == "without the column":
        return table.drop_columns([field.name])
    if how == "renamed":
        return table.rename_columns([name + "_" if j == i else name for j, name in enumerate(table.column_names)])
    if how == "twice":
        return table.append_column(field, table.column(i))
    if how == "one more":
        return table.add_column(i, "more", pa.array(list(range(len(table)))))
    if how == "other order":
        return table.select([*table.column_names[i:], *table.column_names[:i]])
    if how == "metadata":
        described = {"index_columns": [field.name], "columns": [], "column_indexes": [], "pandas_version": "9"}
        return table.replace_schema_metadata({"pandas": json.dumps(described), "ARROW:schema": "x"})
    if how == "other type":
        if pa.types.is_integer(kind):
            return _remade(table, i, column, pa.int64())
        if pa.types.is_floating(kind):
            return _remade(table, i, column, pa.float32() if kind == pa.float64() else pa.float64())
        if pa.types.is_fixed_size_list(kind):
            return _remade(table, i, column, pa.list_(pa.float32()))
        return _remade(table, i, list(map(str, column)), pa.large_string())
    if how == "null":
        return put(None)
    if how == "nested null":
        if pa.types.is_fixed_size_list(kind):
            kind = pa.list_(kind.value_type, kind.list_size)
        return put([*column[row][1:], None], kind) if isinstance(column[row], list) else None
    if how == "another length":
        if not pa.types.is_fixed_size_list(kind):
            return None
        longer = pa.list_(kind.value_field, kind.list_size + 1)
        return table.set_column(
            i, pa.field(field.name, longer, nullable=False), pa.array([[*v, 1.0] for v in column], longer)
        )
    if how == "nan":
        if pa.types.is_fixed_size_list(kind):
            content = [[float("nan"), *v[1:]] if j == row else v for j, v in enumerate(column)]
            return table.set_column(i, field, pa.array(content, kind))
        return put(float("nan")) if pa.types.is_floating(kind) else None
    if how == "negative":
        return put(-1) if pa.types.is_integer(kind) else None
    if how == "another word":
        return put("zzz") if pa.types.is_string(kind) else None
    if how == "no rows":
        return table.slice(0, 0)
    if how == "a row twice":
        return pa.concat_tables([table, table.slice(row, 1)])
    if how == "a row less":
        return pa.concat_tables([table.slice(0, row), table.slice(row + 1)])
    assert how == "rows reversed"
    return table.take(list(reversed(range(len(table)))))


BY_COLUMN = [
    "without the column",
    "renamed",
    "twice",
    "one more",
    "other order",
    "metadata",
    "other type",
    "null",
    "nested null",
]
BY_COLUMN += ["another length", "nan", "negative", "another word"]
BY_ROW = ["no rows", "a row twice", "a row less", "rows reversed"]
UNSEEN = {
    # Nothing in the table or beside it says which images there should be, or how many draws there were.
    ("images", "a row less", None),
    ("images", "negative", "image_id"),
    ("images", "another word", "class_id"),
    ("activations", "a row less", None),
    ("activations", "rows reversed", None),
    ("activations", "negative", "image_id"),
    ("baseline", "negative", "image_id"),
    ("probes", "negative", "draws"),
    # The tables of groups and of redundancy have their order.
    ("controls", "rows reversed", None),
    ("pseudo", "rows reversed", None),
    ("rankings", "rows reversed", None),
    ("measures", "rows reversed", None),
    ("redundancy", "rows reversed", None),
    # What was gathered is checked before.
    ("layer", "negative", None),
    *(("layer", "null", name) for name in tables.OPTIONAL),
    ("cells_table", "negative", None),
    *(("cells_table", "null", name) for name in tables.OPTIONAL),
    # As of images.
    ("pool", "a row less", None),
    ("pool", "negative", "image_id"),
    ("pool", "another word", "class_id"),
    # Answers to an older page may lack trials, and where a session is said no other table is of it.
    ("responses", "a row less", None),
    ("responses", "another word", "session"),
    *(("responses", "null", name) for name in ("session", "confidence", "seconds")),
}


def harms(steps: dict[str, list[str]]) -> list[tuple]:
    """Each table that one of the steps reads, with each mistake that can be seen."""
    return [
        (step, name, how, i)
        for step, names in steps.items()
        for name in names
        for how in (*BY_COLUMN, *BY_ROW)
        for i, column in enumerate(TABLES[name.split()[0]].names if how in BY_COLUMN else [None])
        if not {(name.split()[0], how, column), (name.split()[0], how, None)} & UNSEEN
    ]


def outcome(world, step: str, name: str, write) -> None:
    """Run a step on its files, one of them harmed: the right tables, or an error that names the file."""
    path = Path(world.file[name])
    before = path.read_bytes()
    run, _ = world.steps[step]
    # Written within one tick of the clock, files of one size would be taken for the same.
    cache._store.clear()
    shutil.rmtree(world.root / "out", ignore_errors=True)
    (world.root / "out").mkdir()
    try:
        write(path)
        found = [pq.read_table(made) for made in run()]
    except StudyError as error:
        assert "(unexpected; " not in str(error), error.__cause__
        named = path.name, "data/zzz: no such file", "layers: toy has no layer conv1"
        assert any(words in str(error) for words in named), error
    else:
        assert all(a.equals(b) for a, b in zip(found, world.right[step], strict=True)), f"{step} with {name}"
    finally:
        path.write_bytes(before)


def wrong(world, harm: tuple, row: int) -> None:
    """Run a step on a table with a mistake."""
    step, name, how, i = harm

    def write(path: Path) -> None:
        table = harm_table(pq.read_table(path), how, i, row)
        assume(table is not None)
        path.unlink()
        pq.write_table(table, path)

    outcome(world, step, name, write)


@many(450)
@given(st.sampled_from(harms(STEPS)), st.integers(0, 3))
def test_a_wrong_table_is_seen(world, harm, row):
    assert world.steps[harm[0]][1] == STEPS[harm[0]]
    wrong(world, harm, row)


@many(300)
@given(
    st.sampled_from([(step, name) for step, names in STEPS.items() for name in names]),
    st.sampled_from(["cut", "flip", "flip", "flip", "zeros", "behind"]),
    st.integers(0, 10**6),
    st.integers(0, 7),
)
def test_a_damaged_table_is_seen(world, where, how, at, bit):
    """Each page has a checksum, without which other numbers would be read."""

    def write(path: Path) -> None:
        path.write_bytes(damaged(path.read_bytes(), how, at, bit, zeros=20))

    outcome(world, *where, write)


@pytest.mark.parametrize(
    "swapped", [("probes s0m0", "probes s0m1"), ("ablations s0m0", "baseline a"), ("means a", "layers")]
)
def test_a_table_in_the_place_of_another_is_seen(world, swapped):
    """Of another cell, of another step."""
    step = next(step for step, names in STEPS.items() for name in names if name.split()[0] == swapped[0].split()[0])
    other = Path(world.file[swapped[1]]).read_bytes()
    name = {"probes s0m0": "probes s0m0"}.get(swapped[0], swapped[0])
    with pytest.raises(StudyError, match="make it again"):
        path, before = Path(world.file[name]), Path(world.file[name]).read_bytes()
        cache._store.clear()
        try:
            path.write_bytes(other)
            world.steps[step][0]()
        finally:
            path.write_bytes(before)


# ---- tables of the occlusion task


class Spots(nn.Module):
    """A convolution of two channels, ReLU, and a dense layer, for images [3, 8, 8]; 72 units, 3 outputs."""

    def __init__(self, outputs: int = 3):
        super().__init__()
        self.conv, self.relu, self.dense = nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Linear(72, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.relu(self.conv(x)).flatten(1))


@pytest.fixture(scope="module")
def occluded(tmp_path_factory):
    """Four units of each of a grid's four cells, looked at to the end, and each step to run anew on their files."""
    root = tmp_path_factory.mktemp("occluded")
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    pictures = {c: torch.randint(0, 256, (60, 3, 8, 8), generator=generator).float() for c in "ab"}
    with mock.patch.dict(models.BUILDERS, spots=Spots):
        study = through_jobs(root, "spots", Spots().eval(), "conv1", pictures, study=5)
        grid, names = ("spots", "conv1", "a"), ("s0m0", "s0m1", "s1m0", "s1m1")
        tables_of_grid = ("units", "sets", "extremes", "windows", "trials", "stimuli")
        file = {name: str(root / f"{name}.parquet") for name in ("pool", *tables_of_grid, "cells_table")}
        file |= {f"visualisations {cell}": str(root / f"{cell}.parquet") for cell in names}
        file |= {name: str(root / f"{name}.parquet") for name in ("observers", "interpretability")}
        file |= {"key": str(root / "page" / "key.parquet"), "responses": str(root / "page" / "responses.parquet")}
        at = dict(zip(("network", "layer", "class_id"), grid, strict=True)) | {"source": study.grid.source}
        at |= {"path_to_layers": study.layers, "device": "cpu", "unit": "unit"}
        sets = {f"path_to_{name}": file[name] for name in ("units", "sets")}
        square = {"side": 0.4, "stride": 1}
        answered: list[Path] = []

        def run(job, *made: str, **given) -> list[str]:
            """What a job makes, beside the files that the others read."""
            paths = {name: file[name].replace(str(root), str(root / "out")) for name in made}
            logs.run(root / "log", job, **{f"path_to_{name.split()[0]}": path for name, path in paths.items()}, **given)
            return list(paths.values())

        def draw() -> list[str]:
            how = {"classes": ["a", "b"], "units": 4, "per": "cell", "sets": 3, "bin": 3, "references": 5, "top": 1.0}
            of = {"path_to_cells": study.cells, "path_to_pool": file["pool"], "seed": 0}
            return run(occlusions.draw, "units", "sets", **of, **at, **how)

        def occlude() -> list[str]:
            return run(occlusions.occlude, "extremes", **sets, **at, **square, refine=None)

        def look() -> list[str]:
            return run(occlusions.look, "windows", **sets, **at, **square, blur=2)

        def synthesise(cell: str = "s1m1") -> list[str]:
            how = {"batch": 2, "steps": 1, "learning_rate": 0.05, "diversity": 0.0, "seed": 0, "cell": cell}
            return run(visualisations.synthesise, f"visualisations {cell}", **sets, **at, **how)

        def assemble() -> list[str]:
            of = {f"path_to_{name}": file[name] for name in ("extremes", "windows")} | sets
            of |= {"paths_to_visualisations": {cell: file[f"visualisations {cell}"] for cell in names}}
            place = {name: at[name] for name in ("network", "layer", "class_id", "source")}
            return run(trials.assemble, "trials", "stimuli", **of, **place, chosen=CONDITIONS, study="spots")

        def observe() -> list[str]:
            of = {f"paths_to_{name}": {grid: file[name]} for name in tables_of_grid if name != "windows"}
            how = {"siblings": {}, "source": at["source"], "device": "cpu", "seed": 0}
            return run(observers.observe, "observers", "interpretability", **of, **how)

        def judge() -> list[str]:
            of = {f"paths_to_{name}": {"spots": file[name]} for name in ("observers", "interpretability")}
            of |= {f"paths_to_{name}": {grid: file[name]} for name in ("units", "extremes")}
            of |= {"paths_to_visualisations": {grid: {cell: file[f"visualisations {cell}"] for cell in names}}}
            of |= {"path_to_cells": file["cells_table"], "path_to_responses": file["responses"]}
            how = {"networks": {"spots": {"untrained": False}}, "conditions": CONDITIONS, "confidence": 0.95}
            made = {f"path_to_{name}": str(root / "out" / f"l.{name}") for name in ("legibility", "page")}
            kept: list[str] = []

            def keep(*frames: object) -> list:
                """In the place of the analysis, which takes long: what it is given."""
                for frame in frames:
                    if isinstance(frame, pd.DataFrame):
                        kept.append(str(root / "out" / f"given{len(kept)}.parquet"))
                        plain = frame.reset_index(drop=not frame.index.names[0])
                        plain.sort_values(list(plain.columns), ignore_index=True).to_parquet(kept[-1])
                return []

            analysis = {"_bridged": keep, "_seen": keep, "_eased": keep}
            with (
                mock.patch.multiple(legibility, **analysis),
                mock.patch("readout.legibility_page.render", lambda *_: ""),
            ):
                logs.run(root / "log", legibility.judge, **made, **of, **how, origins={"spots": {"observers": {}}})
            return [made["path_to_legibility"], *kept]

        def build() -> list[str]:
            of = {f"paths_to_{name}": [file[name]] for name in ("trials", "stimuli")}
            site = root / "out" / "site"
            made = run(page.build, "key", **of, path_to_page=str(site), study="spots", sets=3, seed=0)
            content = {path.name: path.read_bytes() for path in sorted(site.rglob("*.*"))}
            pq.write_table(pa.table({"name": list(content), "bytes": list(content.values())}), site / "content")
            return [*made, str(site / "content")]

        def read_answers() -> list[str]:
            def job() -> None:
                _, refused = ingest.ingest(root / "out", answered, Path(file["key"]))
                assert not refused

            logs.run(root / "log", job)
            return [str(root / "out" / "page" / f"{name}.parquet") for name in ("responses", "sessions")]

        def settle(made: list[str]) -> None:
            for path in made:
                os.renames(path, path.replace(str(root / "out"), str(root)))

        opening = {"dataset": "folder", "path": at["source"].images.path, "labels": {"a": 0, "b": 1}}
        occlusions.list_pool(file["pool"], path_to_images=study.images, **opening, most=None, seed=0)
        for step in (draw, occlude, look):
            settle(step())
        for cell in names:
            settle(synthesise(cell))
        for step in (assemble, observe, build):
            settle(step()[:2])
        name, digest, planned = page.plans(file["key"])
        for condition, task in (("natural", 0), ("none", 0)):
            about = {"study": name, "page": digest, "condition": condition, "task": task, "seed": len(answered)}
            session = answers.simulate(answers.Person(easy=1.0, seconds=8.0), planned[condition, task][0], **about)
            answered.append(root / f"{condition}.json")
            answered[-1].write_text(answers.export(session))
        settle(read_answers())
        blank = {field.name: 0 if pa.types.is_integer(field.type) else "" for field in tables.CELLS}
        blank |= {field.name: 0.5 for field in tables.CELLS if pa.types.is_floating(field.type)}
        of_cells = dict(zip(("network", "layer", "class_id"), grid, strict=True))
        rows = [{"cell": c, "selectivity_bin": int(c[1]), "magnitude_bin": int(c[3])} | of_cells for c in names]
        parquet.write(file["cells_table"], [blank | row for row in rows], tables.CELLS)
        each = (draw, occlude, look, synthesise, assemble, observe, judge, build, read_answers)
        steps = {step.__name__: (step, TASK[step.__name__]) for step in each}
        (root / "out").mkdir(exist_ok=True)
        right = {name: [pq.read_table(path) for path in step()] for name, (step, _) in steps.items()}
        yield World(root, file, steps, right)


TASK = {
    "draw": ["pool"],
    "occlude": ["units", "sets"],
    "look": ["units", "sets"],
    "synthesise": ["units", "sets"],
    "assemble": ["units", "sets", "extremes", "windows", "visualisations s1m1"],
    "observe": ["units", "sets", "extremes", "trials", "stimuli"],
    "judge": ["observers", "interpretability", "units", "extremes", "visualisations s0m0", "cells_table", "responses"],
    "build": ["trials", "stimuli"],
    "read_answers": ["key"],
}
"""What each step of the occlusion task reads."""


VALUES = ("null", "nan", "negative", "another word")
"""Mistakes that a table's columns and types do not show."""


@many(150)
@given(st.data(), st.booleans(), st.integers(0, 3))
def test_a_wrong_table_of_the_occlusion_task_is_seen(occluded, data, value, row):
    of_columns = [harm for harm in harms(TASK) if harm[2] in BY_COLUMN and (harm[2] in VALUES) == value]
    wrong(occluded, data.draw(st.sampled_from(of_columns)), row)


@pytest.mark.parametrize(
    "harm", [harm for harm in harms(TASK) if harm[2] in BY_ROW], ids=lambda harm: " ".join(harm[:3])
)
def test_a_table_of_the_occlusion_task_has_all_rows_once(occluded, harm):
    wrong(occluded, harm, 1)


@many(60)
@given(
    st.sampled_from([(step, name) for step, names in TASK.items() for name in names]),
    st.sampled_from(["cut", "flip", "flip", "zeros", "behind"]),
    st.integers(0, 10**6),
    st.integers(0, 7),
)
def test_a_damaged_table_of_the_occlusion_task_is_seen(occluded, where, how, at, bit):
    def write(path: Path) -> None:
        path.write_bytes(damaged(path.read_bytes(), how, at, bit, zeros=20))

    outcome(occluded, *where, write)


# ---- files of weights


class Calls:
    """An object whose pickle calls something when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


CALLS = {
    "os.system": lambda file: Calls(os.system, f"touch '{file}'"),
    "exec": lambda file: Calls(exec, f"open({file!r}, 'w').close()"),
    "eval": lambda file: Calls(eval, f"open({file!r}, 'w').close()"),
    "open": lambda file: Calls(open, file, "w"),
    "touch": lambda file: Calls(Path.touch, Path(file)),
    "torch.save": lambda file: Calls(torch.save, 0, file),
    "numpy.save": lambda file: Calls(np.save, file, 0),
    "getattr": lambda file: Calls(os.mkdir, file),
}
STATE = {key: value.clone() for key, value in Toy().state_dict().items()}


def _parameter(call: object) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.hidden = call
    return parameter


def _metadata(call: object) -> OrderedDict:
    state = OrderedDict(STATE)
    state._metadata = call
    return state


PLACES = {
    "alone": lambda call: call,
    "in a list": lambda call: [call],
    "a value": lambda call: STATE | {"conv.bias": call},
    "a value more": lambda call: STATE | {"x": call},
    "a key": lambda call: {call: 1, **STATE},
    "deep": lambda call: {"state_dict": STATE | {"x": [({"y": (call,)},)]}},
    "metadata": _metadata,
    "parameter": lambda call: STATE | {"x": _parameter(call)},
}


def _torch(content: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _tar(content: object) -> bytes:
    """torch's oldest format."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            data = pickle.dumps(content)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _numpy(content: object) -> bytes:
    file = io.BytesIO()
    array = np.empty((), object)
    array[()] = content
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _npz(content: object, name: str = "conv1_W.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, _numpy(content))
        archive.writestr("../escaped.npy", _numpy(content))
    return file.getvalue()


FORMATS = {
    "zip": _torch,
    "legacy": lambda content: _torch(content, _use_new_zipfile_serialization=False),
    "tar": _tar,
    "npy": _numpy,
    "npz": _npz,
    **{f"pickle {n}": lambda content, n=n: pickle.dumps(content, protocol=n) for n in range(6)},
}
SUFFIX = {"npy": [".npy", ".pt"], "npz": [".npz", ".pt"]}


@pytest.fixture(scope="module")
def narrow():
    """The toy among the models, and the Caffe AlexNet with few channels."""
    widths = {"conv1": 8, "conv2": 12, "conv3": 10, "conv4": 6, "conv5": 4, "fc6": 14, "fc7": 16}
    with mock.patch.dict(models.BUILDERS, toy=Toy), mock.patch.object(caffe, "WIDTHS", widths):
        yield


@many(160)
@given(st.sampled_from(sorted(CALLS)), st.sampled_from(sorted(PLACES)), st.sampled_from(sorted(FORMATS)), st.data())
def test_code_in_weights_is_not_executed(narrow, call, place, form, data):
    suffix = data.draw(st.sampled_from([*SUFFIX.get(form, [".pt", ".pth", ".bin"]), ".safetensors", ".h5"]))
    model = (
        "toy"
        if suffix in (".pt", ".pth", ".bin", ".safetensors")
        else data.draw(st.sampled_from(["toy", "caffe_alexnet"]))
    )
    with tempfile.TemporaryDirectory() as tmp:
        trap, file = Path(tmp, "trap"), Path(tmp, f"weights{suffix}")
        trap.mkdir()
        file.write_bytes(FORMATS[form](PLACES[place](CALLS[call](str(trap / "executed")))))
        assert not list(trap.iterdir())
        with pytest.raises(StudyError, match=rf"weights\{suffix}"):
            checkpoints.load(model, 3, file)
        assert not list(trap.iterdir())
        assert sorted(os.listdir(tmp)) == ["trap", file.name]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", CALLS)
def test_the_traps_work(tmp_path, call, place):
    """Negative control: loaded without care, each of the calls leaves its file."""
    (tmp_path / "trap").mkdir()
    content = _torch(PLACES[place](CALLS[call](str(tmp_path / "trap" / "executed"))))
    with contextlib.suppress(Exception):
        torch.load(io.BytesIO(content), weights_only=False)
    assert list((tmp_path / "trap").iterdir())


def _safetensors(header: object, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I64", "BF16", "BOOL", "X", "F4", ""]) | st.none(),
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, 8, -1, 2**62, 1.5]), max_size=4) | st.none(),
        "data_offsets": st.lists(st.sampled_from([0, 8, 24, 32, 96, -1, 2**63, 2**64]), max_size=3),
    }
)


@many(90)
@given(
    st.dictionaries(
        st.sampled_from([*STATE, "__metadata__", "x", "../x"]), ENTRY | st.just({}) | st.integers(), max_size=5
    )
    | st.binary(max_size=40),
    st.binary(max_size=140),
    st.none() | st.sampled_from([0, 1, 7, 2**31, 2**63, 2**64 - 1]),
)
def test_a_safetensors_header_of_any_kind_is_refused(narrow, header, data, length):
    with tempfile.TemporaryDirectory() as tmp:
        file = Path(tmp, "w.safetensors")
        file.write_bytes(_safetensors(header, data, length))
        with pytest.raises(StudyError, match=r"w\.safetensors"):
            checkpoints.load("toy", 3, file)


WEIGHTS = {
    ".pt": _torch(STATE),
    ".pth": _torch(STATE, _use_new_zipfile_serialization=False),
    ".safetensors": safetensors.torch.save(STATE),
}


@many(120)
@given(
    st.sampled_from(sorted(WEIGHTS)),
    st.sampled_from(["cut", "flip", "flip", "zeros", "insert"]),
    st.integers(0, 10**6),
    st.integers(0, 7),
)
def test_damaged_weights_are_whole_or_refused(narrow, suffix, how, at, bit):
    """What is loaded has the right shapes and is finite; a file cut short is refused, or all of it is there."""
    content = damaged(WEIGHTS[suffix], how, at, bit, zeros=30)
    with tempfile.TemporaryDirectory() as tmp:
        file = Path(tmp, f"w{suffix}")
        file.write_bytes(content)
        try:
            found = checkpoints.load("toy", 3, file).state_dict()
        except StudyError as error:
            assert f"w{suffix}" in str(error)
            return
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in STATE.items()}
    assert all(torch.isfinite(value).all() for value in found.values())
    if how == "cut":
        assert all(torch.equal(found[key], value) for key, value in STATE.items())


KINDS = [
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.int64,
    torch.int8,
    torch.bool,
    torch.complex64,
]
FORMS = {
    "plain": lambda value: value,
    "one nan": lambda value: value.clone().view(-1).index_fill_(0, torch.tensor(0), float("nan")).view(value.shape),
    "infinite": lambda value: torch.full_like(value, float("inf")),
    "beyond float32": lambda value: torch.full_like(value, 1e300, dtype=torch.float64),
    "sparse": lambda value: value.to_sparse(),
    "expanded": lambda value: torch.zeros(1).expand(value.shape),
    "a parameter": torch.nn.Parameter,
    "another shape": lambda value: value[None],
    "no number": lambda value: value[:0],
    "meta": lambda value: value.to("meta"),
    "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "strided": lambda value: torch.stack([value, value], -1)[..., 0],
}


@many(90)
@given(st.sampled_from(sorted(STATE)), st.sampled_from(sorted(FORMS)), st.sampled_from(KINDS))
def test_weights_of_any_kind_are_loaded_or_named(narrow, key, form, kind):
    """Other floating-point numbers are converted; whole or complex ones, or what is not finite, are no weights."""
    value = FORMS[form](STATE[key])
    if form in ("plain", "strided", "expanded", "another shape"):
        value = value.to(kind)
    with tempfile.TemporaryDirectory() as tmp:
        file = Path(tmp, "w.pt")
        torch.save(STATE | {key: value}, file)
        good = form in ("plain", "strided", "expanded", "a parameter") and value.dtype.is_floating_point
        try:
            found = checkpoints.load("toy", 3, file).state_dict()
        except StudyError as error:
            assert not good, error
            assert "w.pt" in str(error)
            assert key in str(error) or form in ("meta", "quantised"), error
            return
    assert good
    assert all(torch.equal(found[name], (STATE | {key: value})[name].float()) for name in STATE)


def test_an_archive_larger_than_its_file_is_refused(tmp_path, narrow):
    """torch would unpack it; a gigabyte of zeros is a megabyte."""
    file = tmp_path / "w.pt"
    with (
        zipfile.ZipFile(io.BytesIO(_torch(STATE))) as before,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for name in before.namelist():
            after.writestr(name, before.read(name) + bytes(10**6))
    with pytest.raises(StudyError, match=r"w\.pt: not a readable file of weights \(BadZipFile\)"):
        checkpoints.load("toy", 3, file)


LAYOUTS = ["nothing", "a group", "whole numbers", "text", "a link", "another shape", "objects"]


@many(30)
@given(st.sampled_from(LAYOUTS), st.sampled_from(["conv_1", "conv_2_1", "dense_1", "dense_3"]), st.sampled_from("Wb"))
def test_an_h5_of_another_layout_is_refused(narrow, layout, group, part):
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp, "w.h5")
        with h5py.File(path, "w") as file:
            for names in conversions.FILES[".h5"].groups.values():
                for name in names:
                    file[f"{name}/{name}_W"], file[f"{name}/{name}_b"] = np.zeros((2, 2), "f4"), np.zeros(5, "f4")
            key = f"{group}/{group}_{part}"
            del file[key]
            if layout == "a group":
                file.create_group(key)
            elif layout == "whole numbers":
                file[key] = np.zeros((2, 2), "i4")
            elif layout == "text":
                file[key] = "touch executed"
            elif layout == "a link":
                file[key] = h5py.ExternalLink("/etc/passwd", "/")
            elif layout == "another shape":
                file[key] = np.zeros((1, 2, 3, 4, 5), "f4")
            elif layout == "objects":
                file.create_dataset(key, (2,), h5py.vlen_dtype(np.int32))
        with pytest.raises(StudyError, match=r"w\.h5"):
            checkpoints.load("theano_alexnet", 5, path)
