"""The engine: batch norm folded, and convolutions by tiles, beside torch's own."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inputs.sources import ImageSource, NetworkSource
from jobs import networks as job
from readout import cuts, engine, layers, tracing
from readout.relatives import BUILDERS


def _engine(network):
    return engine.fold(tracing.trace(network)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("model", ["vgg16_bn", "mobilenet_v2", "small_mobilenet_v2", "small_resnet", "googlenet"])
def test_folding_leaves_scores_and_layers(model, random_network):
    """No batch norm is left behind a convolution, the network that was traced keeps its own, the scores are the same."""
    network = random_network(model)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(x)
        before = layers.find(network, tracing.trace(network), x[:1])
        folded = _engine(network)
        found = folded(x.contiguous(memory_format=torch.channels_last))
    # float32, over up to a hundred layers.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert {layer.node for layer in before} <= {node.name for node in folded.graph.nodes}
    with torch.inference_mode():
        assert torch.equal(network(x), expected)


def _tripled(network):
    network[0].register_forward_hook(lambda module, given, made: 3 * made)


def _old_weight_norm(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(network[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda network: nn.utils.parametrizations.weight_norm(network[0]),
        lambda network: nn.utils.parametrizations.spectral_norm(network[0]),
        _old_weight_norm,
        _tripled,
        lambda network: network[1].register_forward_pre_hook(lambda module, given: 3 * given[0]),
    ],
    ids=["weight norm", "spectral norm", "old weight norm", "hook", "hook before"],
)
def test_a_convolution_of_more_than_its_class_is_as_it_is(change):
    """Its weights are made at each call, or a hook makes something of what it gives."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(256, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU(), nn.Conv2d(256, 3, 8), nn.Flatten()
    )
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 1.5)
    assert engine.Winograd.suits(network[0])
    change(network)
    x = torch.randn(2, 256, 8, 8)
    with torch.no_grad():
        expected = network.eval()(x)
        found = engine.hasten(engine.fold(tracing.trace(network)))(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class Awkward(nn.Module):
    """Batch norms that must not be folded: behind a shared convolution, behind one used twice, behind none."""

    def __init__(self):
        super().__init__()
        self.shared, self.fork = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(4))
        self.dense = nn.Linear(3 * 8 * 8, 4)

    def forward(self, x):
        x = self.norms[0](self.shared(x)) + self.norms[1](self.shared(x + 1))
        fork = self.fork(x)
        return self.dense(self.norms[3](F.relu(self.norms[2](fork) + fork)).flatten(1))


def test_batch_norm_is_folded_only_where_it_may_be():
    """All four norms differ, so that folding any of them wrongly changes the scores."""
    torch.manual_seed(0)
    network = Awkward().eval()
    for norm in network.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(engine.fold(tracing.trace(network))(x), network(x))


def _convolution(inputs, outputs, bias=True, dtype=torch.float32, **settings):
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, **{"kernel_size": 3, "padding": 1} | settings, bias=bias, dtype=dtype).eval()


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("tiles", [1, 5, 256])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 3), (4, 4), (5, 5), (5, 6), (7, 7), (13, 13), (14, 9), (16, 31)])
@torch.inference_mode()
def test_tiles_give_the_convolution(monkeypatch, shape, tiles, bias):
    """In float64, where rounding hides nothing: any size of images, in one pass or several, in either memory layout."""
    monkeypatch.setattr(engine, "TILES", tiles)
    monkeypatch.setattr(engine, "SHARE", math.inf)
    convolution = _convolution(3, 4, bias, torch.float64)
    x = torch.randn(3, 3, *shape, dtype=torch.float64)
    for given in (x.clone(), x.contiguous(memory_format=torch.channels_last)):
        found = engine.Winograd(convolution)(given)
        torch.testing.assert_close(found, convolution(x), rtol=0, atol=1e-12)
        assert found.stride(1) == 1
        assert torch.equal(given, x)


@pytest.mark.parametrize(
    ("side", "tiled"), [(2, False), (3, False), (5, True), (6, False), (7, False), (8, True), (13, True)]
)
@torch.inference_mode()
def test_images_that_fill_their_tiles_badly_are_left_to_torch(side, tiled):
    """49 products a tile begun, of 9 a pixel: at 7 pixels 196 of 441, at 8 only 196 of 576. Which way, the last bits tell."""
    convolution, x = _convolution(64, 64), torch.randn(2, 64, side, side)
    found = engine.Winograd(convolution)(x)
    torch.testing.assert_close(found, convolution(x), rtol=0, atol=1e-4)
    assert torch.equal(found, convolution(x)) != tiled


@torch.inference_mode()
def test_a_tile_by_hand():
    """One pixel in an empty image spreads the kernel, turned around; an empty image gives the bias, exactly."""
    convolution = _convolution(1, 1, dtype=torch.float64)
    convolution.weight.copy_(torch.arange(1.0, 10).view(1, 1, 3, 3))
    convolution.bias.fill_(0.5)
    tiles, x = engine.Winograd(convolution), torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    assert (tiles(x) == 0.5).all()
    x[0, 0, 2, 3] = 2.0
    expected = torch.full((5, 5), 0.5, dtype=torch.float64)
    expected[1:4, 2:5] += 2 * torch.tensor([[9.0, 8, 7], [6, 5, 4], [3, 2, 1]])
    torch.testing.assert_close(tiles(x)[0, 0], expected, rtol=0, atol=1e-12)


@torch.inference_mode()
def test_tiles_cost_little_precision(monkeypatch):
    """Over the widest sums of the paper's networks, beside float64; of torch's own 8e-7 was seen, of the tiles 3e-6.

    Of other points they are not: a negative control.
    """
    convolution = _convolution(512, 512)
    x = torch.randn(2, 512, 14, 14).relu()
    expected = copy.deepcopy(convolution).double()(x.double())

    def error():
        found = engine.Winograd(convolution)(x)
        return ((found - expected).square().mean().sqrt() / expected.std()).item()

    assert 1e-7 < error() < 6e-6
    monkeypatch.setattr(engine, "POINTS", (0, 1, 2, 3, -1, -2))
    assert error() > 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 1, "padding": 0},
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"stride": 2},
        {"stride": (1, 2)},
        {"padding": 0},
        {"padding": 2},
        {"padding": "same"},
        {"dilation": 2},
        {"groups": 2},
        {"padding_mode": "reflect"},
        {"in_channels": 64},
    ],
    ids=str,
)
def test_other_convolutions_are_left_to_torch(settings):
    wide = {"in_channels": 256, "out_channels": 256, "kernel_size": 3, "padding": 1}
    assert engine.Winograd.suits(nn.Conv2d(**wide, device="meta"))
    assert not engine.Winograd.suits(nn.Conv2d(**wide | settings, device="meta"))


mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="tiles are used with MKL alone")


@mkl
@pytest.mark.parametrize(
    ("model", "count"),
    [("alexnet", 3), ("vgg16", 8), ("mobilenet_v2", 0), ("resnet101", 24), *((model, 0) for model in BUILDERS)],
)
def test_where_tiles_are_used(model, count, random_network):
    """By hand: of ResNet101, 22 blocks of the third stage and 2 of the fourth. None in the networks of the default study."""
    traced = engine.hasten(engine.fold(tracing.trace(random_network(model))))
    assert sum(isinstance(module, engine.Winograd) for module in traced.modules()) == count


@mkl
@pytest.mark.parametrize(("device", "used"), [("cpu", True), ("openvino", False)])
def test_tiles_are_for_torch_on_the_cpu(device, used):
    source = NetworkSource("alexnet", 10, "random-0", ImageSource("digits", None, {"crop": 224}))
    traced = job.engine(source, device=device)
    assert any(isinstance(module, engine.Winograd) for module in traced.modules()) == used


def test_without_mkl_all_is_left_to_torch(random_network, monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    traced = engine.hasten(tracing.trace(random_network("alexnet")))
    assert not any(isinstance(module, engine.Winograd) for module in traced.modules())


@mkl
@torch.inference_mode()
def test_the_network_that_was_traced_keeps_its_layers(random_network):
    network = random_network("alexnet")
    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    found = engine.hasten(tracing.trace(network))(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert not torch.equal(found, expected)
    assert torch.equal(network(x), expected)


@mkl
def test_a_tail_overwrites_what_tiles_made(random_network):
    """All six non-linearities behind AlexNet's first: three of them behind tiles."""
    tail = cuts.cut(engine.hasten(tracing.trace(random_network("alexnet"))), "features_1").tail
    found = [node.kwargs.get("inplace") for node in tail.graph.nodes if tracing.is_layer(tail, node)]
    assert found == [True] * 6
