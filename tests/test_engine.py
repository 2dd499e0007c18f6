"""The engine: folded batch norm, convolutions by tiles, dense layers in the other order; each beside torch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jobs import networks as job
from readout import engine, networks
from readout.relatives import BUILDERS


def _engine(network):
    return engine.fold(networks.trace(network)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("model", ["vgg16_bn", "mobilenet_v2", "small_mobilenet_v2", "small_resnet", "googlenet"])
def test_folding_leaves_scores_and_layers(model, random_network):
    """No batch norm is left behind a convolution, the network that was traced keeps its own, the scores are the same."""
    network = random_network(model)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(x)
        before = networks.layers(network, networks.trace(network), x[:1])
        folded = _engine(network)
        found = folded(x.contiguous(memory_format=torch.channels_last))
    # float32, over up to a hundred layers.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert {layer.node for layer in before} <= {node.name for node in folded.graph.nodes}
    with torch.inference_mode():
        assert torch.equal(network(x), expected)


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
        torch.testing.assert_close(engine.fold(networks.trace(network))(x), network(x))


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
    convolution = _convolution(3, 4, bias, torch.float64)
    x = torch.randn(3, 3, *shape, dtype=torch.float64)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        found = engine.Winograd(convolution)(given)
        torch.testing.assert_close(found, convolution(x), rtol=0, atol=1e-12)
        assert found.stride(1) == 1
    assert torch.equal(given, x)


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
def test_tiles_cost_little_precision():
    """Of float32's seven digits about one, over the widest sums of the paper's networks; float64 is the reference."""
    convolution = _convolution(512, 512)
    x = torch.rand(2, 512, 14, 14)
    expected = copy.deepcopy(convolution).double()(x.double())

    def error(found):
        return ((found - expected).square().mean().sqrt() / expected.std()).item()

    own, tiles = error(convolution(x)), error(engine.Winograd(convolution)(x))
    assert own < tiles < min(20 * own, 2e-5)


@pytest.mark.parametrize("images", [1, 7, 8, 50])
@torch.inference_mode()
def test_a_dense_layer_in_the_other_order(images):
    torch.manual_seed(0)
    dense = nn.Linear(30, 20, dtype=torch.float64)
    x = torch.randn(images, 30, dtype=torch.float64)
    for given in (x, x.T.contiguous().T):
        torch.testing.assert_close(engine.Dense(dense)(given), dense(x), rtol=0, atol=1e-13)
    one = torch.randn(30, dtype=torch.float64)
    torch.testing.assert_close(engine.Dense(dense)(one), dense(one), rtol=0, atol=1e-13)


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


def test_other_dense_layers_are_left_to_torch():
    assert engine.Dense.suits(nn.Linear(1024, 1024, device="meta"))
    assert not engine.Dense.suits(nn.Linear(1024, 1023, device="meta"))
    assert not engine.Dense.suits(nn.Linear(1024, 1024, bias=False, device="meta"))


@pytest.mark.parametrize(
    ("model", "convolutions", "dense"),
    [
        ("alexnet", 3, 2),
        ("vgg16", 8, 2),
        ("mobilenet_v2", 0, 0),
        ("resnet101", 24, 0),
        *((model, 0, 0) for model in BUILDERS),
    ],
)
def test_where_the_engine_puts_its_own_layers(model, convolutions, dense, random_network):
    """By hand: of ResNet101, 22 blocks of the third stage and 2 of the fourth. None in the networks of the default study."""
    traced = engine.hasten(engine.fold(networks.trace(random_network(model))))
    kinds = [type(module) for module in traced.modules()]
    assert (kinds.count(engine.Winograd), kinds.count(engine.Dense)) == (convolutions, dense)


@pytest.mark.parametrize(("device", "own"), [("cpu", True), ("openvino", False)])
def test_own_layers_are_for_torch_on_the_cpu(device, own):
    traced = job.load("random-0", model="alexnet", outputs=10, choice=device)
    assert any(isinstance(module, engine.Winograd | engine.Dense) for module in traced.modules()) == own


@torch.inference_mode()
def test_the_network_that_was_traced_keeps_its_layers(random_network):
    network = random_network("alexnet")
    x = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    found = engine.hasten(networks.trace(network))(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert not torch.equal(found, expected)
    assert torch.equal(network(x), expected)
