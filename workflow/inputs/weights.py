"""Choices of weights in a config, and the file behind each; loads no network, so that planning is quick."""

import os
import re
from functools import cache
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "weights"
"""Weights that the project ships, and `shipped.yaml`, which says how they were made."""
PUBLISHED = re.compile(r"(\w+_Weights\.)?[A-Z][A-Z0-9_]*")
"""Torchvision's names of weights, as `IMAGENET1K_V1` or `AlexNet_Weights.IMAGENET1K_V1`."""
DRAWN = re.compile(r"random-(\d+)")
"""Weights drawn at random by a seed: an untrained network."""
SHIPPED = "shipped"
"""The weights of a small network that come with the project."""
PLANTED = "planted"
"""Weights set by hand, of the planted networks alone."""
OWN = "own"
"""The weights that a network comes with: timm's of its name, or those that its builder gives."""
STAMPED = re.compile(r"shipped-[0-9a-f]{16}")
"""The same with the beginning of the file's hash, by which other weights of that name are other settings."""


@cache
def shipped() -> dict:
    """What `shipped.yaml` says: the data set, its split into study and training images, the models, the making."""
    return yaml.safe_load((FOLDER / "shipped.yaml").read_text(encoding="utf-8"))


def stamped(model: str) -> str:
    """The shipped weights of a model as jobs name them."""
    return f"{SHIPPED}-{shipped()['models'][model]['sha256'][:16]}"


def file(model: str, weights: str) -> str | None:
    """The file that holds these weights of a model; None where they are published, drawn, set by hand or own."""
    if STAMPED.fullmatch(weights):
        path = FOLDER / f"{model}.safetensors"
        # Relative where it can be: Snakemake remembers the names of inputs, and a project may be moved.
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    without = weights in (PLANTED, OWN) or PUBLISHED.fullmatch(weights) or DRAWN.fullmatch(weights)
    return None if without else weights
