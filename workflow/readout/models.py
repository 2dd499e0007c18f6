"""Models: a network of random weights by the name of its architecture."""

import difflib
import threading
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import nn
from torchvision import models

from readout import StudyError, caffe, planted_network, relatives
from readout.named import TIMM

BUILDERS = relatives.BUILDERS | caffe.BUILDERS | planted_network.BUILDERS
"""The study's own models; all others are torchvision's, or timm's by the prefix `TIMM`."""
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Models with heads for training alone, and how their weights begin."""

_building = threading.Lock()


@contextmanager
def drawing(seed: int):
    """While a network is built: the seed is set in the random state of the whole process, which is put back."""
    with _building, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build(model: str, outputs: int, seed: int) -> nn.Module:
    """The model with random weights that depend on `seed` alone, in evaluation mode; planted ones have their own.

    `model` is one of the study's own, a classification network of torchvision by its name there, or `timm:` and the
    name of one of timm's.
    """
    builder = BUILDERS.get(model) or (_of_timm(model) if model.startswith(TIMM) else _of_torchvision(model))
    with drawing(seed):
        return builder(outputs).eval()


def _of_torchvision(model: str) -> Callable[[int], nn.Module]:
    check_torchvision(model)
    # Auxiliary heads act in training only.
    extra = {"aux_logits": False, "init_weights": True} if model in AUXILIARY else {}
    return lambda outputs: models.get_model(model, weights=None, num_classes=outputs, **extra)


def check_torchvision(model: str) -> None:
    """Refuse what is not the name of a model, with the nearest one."""
    known = models.list_models(module=models)
    if model not in known:
        close = difflib.get_close_matches(model, [*BUILDERS, *known], n=1)
        raise StudyError(
            f"model {model}: neither the study nor torchvision has it"
            + (f"; did you mean {close[0]}?" if close else "; see torchvision.models.list_models().")
            + " One of timm's is written timm:NAME, one of your own FILE.py:BUILDER"
        )


def _of_timm(model: str) -> Callable[[int], nn.Module]:
    import timm

    name = model.removeprefix(TIMM)
    check_timm(name)
    return lambda outputs: timm.create_model(name, pretrained=False, num_classes=outputs)


def check_timm(name: str) -> None:
    """Refuse what is not the name of a model of timm, or of weights of it (`resnet18.a1_in1k`), with the nearest."""
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise StudyError(
            f"model timm:{name}: timm {timm.__version__} has no {architecture}"
            + (f"; did you mean {' or '.join(close)}?" if close else "; see timm.list_models()")
        )
    known = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known:
        raise StudyError(f"model timm:{name}: {architecture} has no weights {tag}; it has {', '.join(known) or 'none'}")
