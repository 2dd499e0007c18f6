"""Torchvision's and timm's networks: what the command that tries them finds, its negative controls, and its page."""

import copy
import re
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from commands import models as command
from readout import StudyError, cuts, engine, tracing
from workflow import ROOT


class Tokens(nn.Module):
    """Reads a map as tokens by a view, which of channels-last memory there is not."""

    def __init__(self, by_size):
        super().__init__()
        self.by_size = by_size
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x):
        # torch.fx cannot follow a condition on a size.
        if self.by_size and x.shape[2] < 2:
            return x
        x = F.relu(self.first(x))
        return F.relu(self.second(x.view(-1, 8, 6))).view(torch.float32).mean(1)


@pytest.mark.parametrize("by_size", [False, True], ids=["torch.fx", "torch.export"])
def test_views_serve_the_memory_of_the_engine(by_size):
    torch.manual_seed(0)
    network, images = Tokens(by_size).eval().requires_grad_(False), torch.randn(3, 3, 4, 3)
    expected = network(images)
    with pytest.raises(RuntimeError, match="view"):
        copy.deepcopy(network).to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    traced = engine.fold(tracing.trace(network, images[:1])).to(memory_format=torch.channels_last)
    layer = next(node.name for node in traced.graph.nodes if tracing.is_layer(traced, node))
    cut = cuts.cut(traced, layer)
    alive = cut.prefix(images.to(memory_format=torch.channels_last))
    assert torch.allclose(cut.tail(*(each[:2] for each in alive)), expected[:2], atol=1e-6)
