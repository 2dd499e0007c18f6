"""Names by which a config chooses weights that are no file of the user's; loads nothing, so that planning is quick."""

import re

PUBLISHED = re.compile(r"(\w+_Weights\.)?[A-Z][A-Z0-9_]*")
"""Torchvision's names of weights, as `IMAGENET1K_V1` or `AlexNet_Weights.IMAGENET1K_V1`."""
DRAWN = re.compile(r"random-(\d+)")
"""Weights drawn at random by a seed: an untrained network."""
