"""Models: a network of random weights by the name of its architecture."""

import difflib
import threading

import torch
from torch import nn
from torchvision import models

from readout import StudyError, caffe, planted_network, relatives

BUILDERS = relatives.BUILDERS | caffe.BUILDERS | planted_network.BUILDERS
"""The study's own models; all others are torchvision's."""
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Models with heads for training alone, and how their weights begin."""

building = threading.Lock()
"""Held while a network is built: the seed is set in the random state of the whole process."""


def build(model: str, outputs: int, seed: int) -> nn.Module:
    """The model with random weights that depend on `seed` alone, in evaluation mode; planted ones have their own.

    `model` is one of the study's own or a classification network of torchvision by its name there.
    """
    builder = BUILDERS.get(model)
    if builder is None:
        check_torchvision(model)
        # Auxiliary heads act in training only.
        extra = {"aux_logits": False, "init_weights": True} if model in AUXILIARY else {}

        def builder(outputs: int) -> nn.Module:
            return models.get_model(model, weights=None, num_classes=outputs, **extra)

    with building, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(outputs).eval()


def check_torchvision(model: str) -> None:
    known = models.list_models(module=models)
    if model not in known:
        close = difflib.get_close_matches(model, [*BUILDERS, *known], n=1)
        raise StudyError(
            f"model {model}: neither the study nor torchvision has it"
            + (f"; did you mean {close[0]}?" if close else "; see torchvision.models.list_models()")
        )
