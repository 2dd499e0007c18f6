"""Tracing: networks of any kind as graphs, their non-linearities, what is cut where, and the axes of their layers."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from inputs import builders
from inputs.sources import ImageSource, NetworkSource
from jobs import networks as job
from readout import StudyError, ablations, activations, cuts, gradients, layers, tracing
from readout.layers import Channels


def seeded(build):
    torch.manual_seed(0)
    return build().eval()


def pictures(count=3, size=8):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


class Simple(nn.Module):
    """A convolution, a non-linearity, a dense layer."""

    def __init__(self, act, branch=False):
        super().__init__()
        self.conv, self.act, self.dense = nn.Conv2d(3, 4, 3, padding=1), act, nn.Linear(4 * 8 * 8, 5)
        self.branch = branch

    def forward(self, x):
        x = self.conv(x)
        # torch.fx cannot decide it; torch.export can.
        if self.branch and x.mean(0).shape != x.shape[1:]:
            raise ValueError("no images")
        x = self.act(x)
        return self.dense(x.flatten(1))


class Both(Simple):
    """The same, with what torch.fx cannot follow: a part of a tensor is overwritten."""

    def forward(self, x):
        x = self.conv(x)
        x[:, 0] = 0
        return self.dense(self.act(x).flatten(1))


# As its users write it, and plainly.
ACTIVATIONS = {
    "nn.ReLU": (nn.ReLU(), torch.relu),
    "nn.ReLU6": (nn.ReLU6(inplace=True), lambda x: x.clamp(0, 6)),
    "nn.LeakyReLU": (nn.LeakyReLU(0.2, inplace=True), lambda x: torch.where(x > 0, x, 0.2 * x)),
    "nn.PReLU": (nn.PReLU(), lambda x: torch.where(x > 0, x, 0.25 * x)),
    "nn.ELU": (nn.ELU(inplace=True), lambda x: torch.where(x > 0, x, x.exp() - 1)),
    "nn.SELU": (nn.SELU(inplace=True), torch.selu),
    "nn.SiLU": (nn.SiLU(inplace=True), lambda x: x * x.sigmoid()),
    "nn.GELU": (nn.GELU(), lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
    "nn.Mish": (nn.Mish(inplace=True), lambda x: x * torch.tanh(F.softplus(x))),
    "nn.Hardswish": (nn.Hardswish(inplace=True), lambda x: x * (x + 3).clamp(0, 6) / 6),
    "nn.Softplus": (nn.Softplus(), lambda x: (1 + x.exp()).log()),
    "F.leaky_relu": (lambda x: F.leaky_relu(x, 0.2), lambda x: torch.where(x > 0, x, 0.2 * x)),
    "F.leaky_relu_": (lambda x: F.leaky_relu_(x, 0.2), lambda x: torch.where(x > 0, x, 0.2 * x)),
    "F.elu inplace": (lambda x: F.elu(x, inplace=True), lambda x: torch.where(x > 0, x, x.exp() - 1)),
    "torch.selu_": (torch.selu_, torch.selu),
    "F.silu inplace": (lambda x: F.silu(x, inplace=True), lambda x: x * x.sigmoid()),
    "F.gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "F.mish": (F.mish, lambda x: x * torch.tanh(F.softplus(x))),
    "F.hardswish inplace": (lambda x: F.hardswish(x, inplace=True), lambda x: x * (x + 3).clamp(0, 6) / 6),
    "F.softplus": (F.softplus, lambda x: (1 + x.exp()).log()),
    "x.relu()": (lambda x: x.relu(), torch.relu),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("kind", [Simple, Both])
def test_every_kind_of_non_linearity_is_a_layer(name, kind):
    """By either way of tracing: found once, kept as it is computed, and the scores are the network's own."""
    act, plain = ACTIVATIONS[name]
    network = seeded(lambda: kind(copy.deepcopy(act)))
    x = pictures()
    with torch.inference_mode():
        expected, before = network(x), network.conv(x)
        if kind is Both:
            before[:, 0] = 0
    traced = tracing.trace(network, x[:1])
    (found,) = layers.find(network, traced, x[:1])
    kept = []
    torch.testing.assert_close(activations.record(traced, x, [found.node], lambda n, v: kept.append(v)), expected)
    torch.testing.assert_close(kept[0], plain(before))
    assert found.shape == (4, 8, 8)
    parts = cuts.cut(traced, found.node)
    with torch.inference_mode():
        alive = parts.prefix(x)
        torch.testing.assert_close(parts.tail(*alive), expected)
        torch.testing.assert_close(alive[0], kept[0])


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid(), nn.Tanh(), nn.Softmax(1), nn.Identity()])
def test_gates_are_no_layers(gate):
    network = seeded(lambda: Simple(gate))
    assert layers.find(network, tracing.trace(network, pictures(1)), pictures(1)) == []


def test_what_torch_fx_cannot_follow_goes_by_torch_export():
    """The two give the same scores; only the second has torch's own operations for nodes."""
    network = seeded(lambda: Both(nn.ReLU()))
    with pytest.raises(StudyError, match=r"Both: cannot be traced: .*test_tracing\.py, line \d+ \(x\[:, 0\] = 0\): "):
        tracing.trace(network)
    traced = tracing.trace(network, pictures(1))
    assert not any(node.op == "call_module" for node in traced.graph.nodes)
    # For any number of images, and the scores alone.
    for count in (1, 2, 5):
        with torch.inference_mode():
            torch.testing.assert_close(traced(pictures(count)), network(pictures(count)))
            # However they lie in memory.
            last = pictures(count).contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(traced(last), network(pictures(count)))


@pytest.mark.parametrize("way", ["module", "function", "method"])
def test_an_in_place_statement_is_done_by_torch_export(way):
    """Its result has no name, so that torch.fx would lose it."""

    class Statement(Simple):
        def forward(self, x):
            x = self.conv(x)
            if way == "module":
                self.act(x)
            elif way == "function":
                F.relu(x, inplace=True)
            else:
                x.relu_()
            return self.dense(x.flatten(1))

    network = seeded(lambda: Statement(nn.ReLU(inplace=True)))
    with torch.inference_mode():
        expected = network(pictures())
        assert not torch.equal(expected, network.dense(network.conv(pictures()).flatten(1)))
    traced = tracing.trace(network, pictures(1))
    assert len(layers.find(network, traced, pictures(1))) == 1
    with torch.inference_mode():
        torch.testing.assert_close(traced(pictures()), expected)
        torch.testing.assert_close(network(pictures()), expected)


@pytest.mark.parametrize("way", ["module", "function", "method", "function_"])
def test_what_is_overwritten_and_read_again_is_done_by_torch_export(way):
    """The network adds the ReLU's output to itself, since that lies where its input was."""

    class Again(Simple):
        def forward(self, x):
            x = self.conv(x)
            if way == "module":
                y = self.act(x)
            elif way == "function":
                y = F.relu(x, inplace=True)
            else:
                y = x.relu_() if way == "method" else torch.relu_(x)
            return self.dense((x + y).flatten(1))

    network = seeded(lambda: Again(nn.ReLU(inplace=True)))
    with torch.inference_mode():
        expected = network(pictures())
        torch.testing.assert_close(expected, network.dense(2 * network.conv(pictures()).relu().flatten(1)))
    traced = tracing.trace(network, pictures(1))
    (layer,) = layers.find(network, traced, pictures(1))
    parts = cuts.cut(traced, layer.node)
    with torch.inference_mode():
        alive = parts.prefix(pictures())
        torch.testing.assert_close(parts.tail(*alive), expected)
        # Both terms are the layer.
        torch.testing.assert_close(parts.tail(alive[0] * 0, *alive[1:]), network.dense.bias.expand(3, -1))
    with pytest.raises(StudyError, match="overwrites what is read again"):
        tracing.trace(network)


def test_what_neither_can_follow_is_refused_with_its_line():
    class Data(Simple):
        def forward(self, x):
            x = self.conv(x)
            if x.sum() > 0:
                x = x * 2
            return self.dense(x.flatten(1))

    with pytest.raises(
        StudyError, match=r"Data: cannot be traced: .*test_tracing\.py, line \d+ \(if x\.sum\(\) > 0:\): "
    ):
        tracing.trace(seeded(lambda: Data(nn.ReLU())), pictures(1))


# ---- a transformer


class Attention(nn.Module):
    """Attention of two heads over tokens [N, tokens, features], written out."""

    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        count, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(count, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / (width // 2) ** 0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(count, tokens, width))


class Block(nn.Module):
    """Attention, then two dense layers; a way around either."""

    def __init__(self, width, act):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width), nn.LayerNorm(width)
        self.fc1, self.act, self.fc2 = nn.Linear(width, 2 * width), act, nn.Linear(2 * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """Three blocks over sixteen patches and a token for the class; one GELU, which all blocks call."""

    def __init__(self, written=False):
        super().__init__()
        act = nn.GELU()
        self.patches, self.token = nn.Conv2d(3, 8, 2, stride=2), nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 17, 8))
        self.blocks = nn.ModuleList([Block(8, act) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)
        self.written = written

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        # A size that is known before the layers and used behind them.
        count = x.shape[0]
        # The weights alone, before and behind.
        positions = self.positions * 2
        x = x + positions
        for block in self.blocks:
            x = block(x) + 0.1 * positions
        if self.written:
            x[:, 1] = 0
        return self.head(self.norm(x)[:, 0].reshape(count, 8))


@pytest.fixture(params=[False, True], ids=["fx", "export"])
def transformer(request):
    network = seeded(lambda: Transformer(request.param))
    return network, tracing.trace(network, pictures(1))


def test_a_module_that_is_called_thrice_is_three_layers(transformer):
    network, traced = transformer
    found = layers.find(network, traced, pictures(1))
    # By fx one module has one path; torch.export knows by which it was called.
    assert len({layer.name for layer in found}) == len(found) == 3
    assert [layer.axes for layer in found] == [("tokens", "features")] * 3
    assert [layer.shape for layer in found] == [(17, 16)] * 3
    assert [layer.units for layer in found] == [17 * 16] * 3
    assert [layer.block for layer in found] == ["blocks.0", "blocks.1", "blocks.2"]


def _masked(network, x, units, at):
    """The scores of the whole network where units of the `at`-th call of its GELU are zero, by a hook."""
    calls = []

    def hook(_module, _inputs, output):
        calls.append(output)
        if len(calls) == at + 1:
            flat = output.flatten(1).clone()
            flat[:, units] = 0
            return flat.view_as(output)
        return None

    handle = network.blocks[0].act.register_forward_hook(hook)
    with torch.inference_mode():
        scores = network(x)
    handle.remove()
    return scores


def test_ablations_in_a_transformer_are_those_of_the_whole_network(transformer):
    """A tail that runs on fewer images than its prefix, with the tokens that other layers share."""
    network, traced = transformer
    x, units = pictures(4), np.arange(0, 17 * 16, 3)
    for at, layer in enumerate(layers.find(network, traced, x[:1])):
        expected = _masked(network, x, units, at)
        with torch.inference_mode():
            assert not torch.allclose(expected, network(x), atol=1e-3)
            parts = cuts.cut(traced, layer.node)
            alive = parts.prefix(x)
            assert all(len(tensor) == len(x) for tensor in alive)
            for some in (slice(0, 4), slice(1, 2), slice(2, 4)):
                first, *rest = (tensor[some] for tensor in alive)
                found = parts.tail(ablations.ablate(first, units, 0.0), *rest)
                torch.testing.assert_close(found, expected[some])


def test_gradients_in_a_transformer_are_those_of_the_whole_network(transformer):
    network, traced = transformer
    x = pictures(3)
    for at, layer in enumerate(layers.find(network, traced, x[:1])):
        kept = []
        hook = network.blocks[0].act.register_forward_hook(lambda m, i, output, kept=kept: kept.append(output))
        score = network(x)[:, 2].sum()
        hook.remove()
        (expected,) = torch.autograd.grad(score, kept[at])
        parts = cuts.cut(traced, layer.node)
        with torch.no_grad():
            alive = parts.prefix(x)
        found = gradients.of_scores(parts.tail, alive, lambda scores: scores[:, 2])
        torch.testing.assert_close(found, expected)


def test_modules_and_nodes_are_layers_by_name(transformer):
    """The output of a block and of one of its parts, in the order of execution; not what has no row for an image."""
    network, traced = transformer
    image = pictures(1)
    named = {each.name: each for each in layers.names(network, traced, image)}
    assert named["blocks.1"].layer is None
    found = layers.find(network, traced, image, ["blocks.1", "blocks.1.attention", "patches"])
    chosen = [layer for layer in found if layer.name in ("blocks.1", "blocks.1.attention", "patches")]
    assert [(layer.name, layer.shape) for layer in chosen] == [
        ("patches", (8, 4, 4)),
        ("blocks.1.attention", (17, 8)),
        ("blocks.1", (17, 8)),
    ]
    assert [layer.depth for layer in found] == list(range(6))
    assert chosen[0].axes == ("channels", "height", "width")
    with torch.inference_mode():
        parts = cuts.cut(traced, chosen[1].node)
        x = pictures(2)
        plain = network.blocks[1].attention(network.blocks[1].norm1(_upto(network, x, 1)))
        torch.testing.assert_close(parts.prefix(x)[0], plain)
    # The token, expanded, has a row for each image; the positions have one for all.
    shapes = {node.name: node.meta["measured"][0] for node in traced.graph.nodes}
    assert not any(getattr(shapes.get(name), "shape", (0,))[0] == 1 for name in named)
    # A name of a layer under another: the module that calls the GELU in its block.
    aliases = [each for each in named.values() if each.layer not in (None, each.name)]
    assert all(each.layer in named for each in aliases) and aliases


def _upto(network, x, block):
    x = network.patches(x).flatten(2).transpose(1, 2)
    x = torch.cat([network.token.expand(len(x), -1, -1), x], 1) + network.positions * 2
    for each in network.blocks[:block]:
        x = each(x) + 0.1 * network.positions * 2
    return x


# ---- cuts


class Split(nn.Module):
    """Two halves of the channels, one of which goes around the non-linearity; odd things by `way`."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.dense, self.way = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 8 * 8, 5), way

    def forward(self, x):
        x = self.conv(x)
        one, two = x.chunk(2, 1)
        count, turned = x.shape[0], x.transpose(0, 1)
        more = count + 1
        one = F.relu(one)
        if self.way == "turned":
            two = turned[2:].transpose(0, 1)
        if self.way == "count":
            two = two * more
        return self.dense(torch.cat([one, two], 1).reshape(count, -1))


def test_halves_of_a_tensor_are_kept_apart():
    """A split gives several tensors at once; behind the cut one of them is needed, and the number of images."""
    network = seeded(lambda: Split("plain"))
    traced = tracing.trace(network, pictures(1))
    (layer,) = layers.find(network, traced, pictures(1))
    parts = cuts.cut(traced, layer.node)
    x = pictures(3)
    with torch.inference_mode():
        alive = parts.prefix(x)
        assert [tuple(tensor.shape) for tensor in alive] == [(3, 2, 8, 8), (3, 2, 8, 8)]
        torch.testing.assert_close(parts.tail(*alive), network(x))
        torch.testing.assert_close(parts.tail(*(tensor[1:] for tensor in alive)), network(x[1:]))


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (
            "turned",
            r"relu: the network reads transpose behind it, which has no row for each image; choose another layer",
        ),
        ("count", r"add: depends on the number of images, so that no part of the network can run alone"),
    ],
)
def test_what_cannot_be_cut_is_refused(way, words):
    """Before anything runs, and by the cut itself."""
    network = seeded(lambda: Split(way))
    traced = tracing.trace(network, pictures(1))
    (layer,) = layers.find(network, traced, pictures(1))
    for function in (cuts.check, cuts.cut):
        with pytest.raises(StudyError, match=words):
            function(traced, layer.node)


def test_a_graph_is_measured_without_the_work_or_with_it(monkeypatch):
    """Where shapes cannot be had without values, the graph is run."""
    network = seeded(lambda: Transformer())
    shapes = [node.meta["measured"] for node in tracing.trace(network, pictures(1)).graph.nodes]

    def fail(*_, **__):
        raise RuntimeError("no shapes without values")

    monkeypatch.setattr(tracing.FakeTensorMode, "from_tensor", fail)
    assert [node.meta["measured"] for node in tracing.trace(network, pictures(1)).graph.nodes] == shapes


# ---- names, axes and blocks


class Last(nn.Module):
    """Maps whose channels are the last axis, as in ConvNeXt, then the first again."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.back = nn.Conv2d(3, 6, 1), nn.Linear(6, 7), nn.Conv2d(7, 2, 1)
        self.dense = nn.Linear(2 * 64, 5)

    def forward(self, x):
        x = F.gelu(self.fc(self.conv(x).permute(0, 2, 3, 1)))
        x = F.relu(self.back(x.permute(0, 3, 1, 2)))
        return self.dense(F.silu(x).flatten(1))


def test_axes_say_where_the_channels_are():
    network = seeded(Last)
    found = layers.find(network, tracing.trace(network, pictures(1)), pictures(1))
    assert [(layer.name, layer.axes, layer.shape) for layer in found] == [
        ("dense1", ("height", "width", "channels"), (8, 8, 7)),
        ("conv1", ("channels", "height", "width"), (2, 8, 8)),
        ("conv2", ("channels", "height", "width"), (2, 8, 8)),
    ]


@pytest.mark.parametrize(
    ("axes", "shape", "at"),
    [
        (("channels", "height", "width"), (3, 2, 4), 0),
        (("height", "width", "channels"), (2, 4, 3), 2),
        (("tokens", "features"), (5, 3), 1),
        (("features",), (6,), 0),
    ],
)
def test_channels_are_the_units_that_differ_in_place_alone(axes, shape, at):
    """By plain indices: where an axis is moved to the front, its index is the channel and the rest are the places."""
    channels = Channels.of(axes, list(shape))
    number = np.arange(np.prod(shape)).reshape(shape)
    plain = np.moveaxis(number, at, 0).reshape(shape[at], -1)
    assert (channels.count, channels.area) == plain.shape
    for channel, units in enumerate(plain):
        for place, unit in enumerate(units):
            assert channels.of_unit(unit) == channel
            assert channels.unit(channel, place) == unit
    value = torch.randn(2, *shape)
    apart = channels.apart(value)
    assert torch.equal(apart, value.flatten(1)[:, torch.from_numpy(plain)])


def test_where_no_axis_is_of_channels_each_unit_is_one():
    channels = Channels.of(("axis0", "axis1", "axis2", "axis3"), (2, 3, 4, 5))
    assert (channels.count, channels.area, channels.of_unit(17), channels.unit(17)) == (120, 1, 17, 17)


class Heads(nn.Module):
    """Attention of ReLUs among rows and among tokens, a map in windows, and maps that are pooled and concatenated."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.mix = nn.Conv2d(3, 4, 1), nn.Linear(4, 16), nn.Linear(16, 16)
        self.back, self.dense = nn.Conv2d(16, 4, 1), nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv(F.relu(x)), 2))
        x = F.relu(x @ x.transpose(-1, -2)) @ x
        # Four windows of four tokens of four features.
        windows = x.unflatten(2, (2, 2)).unflatten(4, (2, 2)).permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)
        windows = F.gelu(self.fc(windows))
        heads = self.mix(windows.flatten(1, 2)).unflatten(2, (16, 1)).transpose(1, 2)
        weights = F.relu(heads @ heads.transpose(-1, -2))
        x = (weights @ heads).transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (4, 4))
        x = torch.cat([self.back(x), self.back(2 * x)], 1)
        return self.dense(F.silu(x).flatten(1))


def test_what_is_no_map_has_no_channels_height_and_width():
    """Windows, tokens and heads have three axes, too; maps have them behind a pooling and a concatenation as well."""
    network = seeded(Heads)
    found = layers.find(network, tracing.trace(network, pictures(1)), pictures(1))
    of_map, unknown = ("channels", "height", "width"), ("axis0", "axis1", "axis2")
    assert [(layer.shape, layer.axes) for layer in found] == [
        ((3, 8, 8), of_map),
        ((4, 4, 4), of_map),
        ((4, 4, 4), unknown),
        ((4, 4, 16), ("height", "width", "channels")),
        ((16, 16, 16), unknown),
        ((8, 4, 4), of_map),
    ]


@pytest.mark.parametrize(("windows", "known"), [(2, True), (1, False)])
def test_a_map_is_square(windows, known):
    """So many windows as tokens in one look like a map with the channels last; any other number does not."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc, self.dense = nn.Conv2d(3, 4, 2, stride=2), nn.Linear(4, 5), nn.Linear(5 * 16, 5)

        def forward(self, x):
            tokens = self.conv(x).flatten(2).transpose(1, 2).unflatten(1, (windows**2, 16 // windows**2))
            return self.dense(F.gelu(self.fc(tokens)).flatten(1))

    network = seeded(Windows)
    (layer,) = layers.find(network, tracing.trace(network, pictures(1)), pictures(1))
    assert (layer.axes == ("height", "width", "channels")) == known


def test_a_bias_is_no_branch():
    """What adds a parameter joins nothing."""

    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.bias = nn.Conv2d(4, 4, 1), nn.GELU(), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.act(self.conv(x)) + self.bias

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = Biased(), Biased()

        def forward(self, x):
            x = x + self.one(x)
            return x + self.two(x)

    class Whole(Simple):
        def __init__(self):
            super().__init__(nn.ReLU())
            self.blocks = nn.Sequential(Residual(), Residual())

        def forward(self, x):
            return self.dense(self.blocks(self.conv(x)).flatten(1))

    for way in ("fx", "export"):
        network = seeded(Whole)
        traced = tracing.trace(network, pictures(1))
        if way == "export":
            traced = tracing.measure(
                tracing._loaded(tracing.exported(network, pictures(1)), torch.device("cpu")), pictures(1)
            )
        found = layers.find(network, traced, pictures(1))
        assert [layer.block for layer in found] == ["blocks.0", "blocks.0", "blocks.1", "blocks.1"], way


def test_blocks_are_what_joins_branches():
    """A residual block without a change of size adds, one with it does not, and is a block of the same class."""

    class Residual(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 1), nn.Conv2d(outputs, outputs, 1)
            self.same = inputs == outputs

        def forward(self, x):
            y = F.gelu(self.conv2(F.gelu(self.conv1(x))))
            return x + y if self.same else y

    class Stage(nn.Sequential):
        pass

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU())
            self.stages = nn.Sequential(Stage(Residual(4, 4), Residual(4, 6)), Stage(Residual(6, 6)))
            self.head = nn.Linear(6 * 64, 5)

        def forward(self, x):
            return self.head(self.stages(self.stem(x)).flatten(1))

    network = seeded(Whole)
    found = layers.find(network, tracing.trace(network, pictures(1)), pictures(1))
    assert [layer.block for layer in found] == [
        None,
        *["stages.0.0"] * 2,
        *["stages.0.1"] * 2,
        *["stages.1.0"] * 2,
    ]
    assert [layer.name for layer in found][:3] == ["stem.1", "stages.0.0.conv1", "stages.0.0.conv2"]


# ---- through the job

WRITTEN = """
import torch
from torch import nn


class Written(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.conv, self.act, self.dense = nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Linear(4 * 64, outputs)

    def forward(self, x):
        x = self.conv(x)
        x[:, 0] = 0
        return self.dense(self.act(x).flatten(1))
"""


@pytest.fixture
def written(tmp_path):
    """A network that torch.export alone can trace, as a study names it."""
    (tmp_path / "written.py").write_text(WRITTEN)
    model = f"{tmp_path}/written.py:Written"
    transform = {"resize": None, "crop": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    return NetworkSource(model, 5, "random-3", ImageSource("digits", None, transform), builders.digest(model))


def test_torch_export_runs_in_a_process_of_its_own(written, monkeypatch):
    """It would switch kernels off under the other jobs of this one; the scores are those of the network itself."""

    def fail(*_):
        raise AssertionError("in this process")

    monkeypatch.setattr(tracing, "exported", fail)
    traced = job.engine(written, device="cpu")
    with torch.inference_mode():
        torch.testing.assert_close(traced(pictures()), job.network(written)(pictures()))
    assert not any(parameter.requires_grad for parameter in traced.parameters())


def test_its_layers_are_listed_with_their_axes(written, tmp_path):
    """A node by its name among them, in the order of execution."""
    chosen = ["act", "conv"]
    job.list_layers(str(tmp_path / "layers.parquet"), source=written, chosen=chosen, cells=16, device="cpu")
    rows = job.layer_nodes(str(tmp_path / "layers.parquet"), chosen)
    assert [(row["layer"], row["axes"], row["shape"], row["units"]) for row in rows.values()] == [
        ("conv", "channels x height x width", [4, 8, 8], 256),
        ("act", "channels x height x width", [4, 8, 8], 256),
    ]


def test_what_the_other_process_says_is_told(written, tmp_path):
    """With the line, and nothing of the process."""
    (tmp_path / "written.py").write_text(WRITTEN.replace("x[:, 0] = 0", "x[:, 0] = 0 if x.sum() > 0 else 1"))
    changed = dataclasses.replace(written, builder=builders.digest(written.model))
    with pytest.raises(
        StudyError, match=r"^Written: cannot be traced: .*written\.py, line 13 \(x\[:, 0\] = 0 if .*\): [^\n]*$"
    ):
        job.engine(changed, device="cpu")


# ---- what a review found


@pytest.mark.parametrize(
    "overwrite",
    [torch.square_, lambda x: torch.abs_(x), lambda x: torch.exp(x, out=x.clone())],
    ids=["square_", "abs_", "out"],
)
def test_no_tail_overwrites_what_is_kept(overwrite):
    """Of functions that work in place there are many; what torch.fx leaves in place is done by torch.export."""

    class Kept(Simple):
        def forward(self, x):
            x = self.act(self.conv(x))
            return self.dense(overwrite(x).flatten(1))

    network = seeded(lambda: Kept(nn.ReLU()))
    with torch.inference_mode():
        expected = network(pictures())
    with pytest.raises(StudyError, match="overwrites a tensor"):
        tracing.trace(network)
    traced = tracing.trace(network, pictures(1))
    (layer,) = layers.find(network, traced, pictures(1))
    parts = cuts.cut(traced, layer.node)
    with torch.inference_mode():
        alive = parts.prefix(pictures())
        for _ in range(2):
            torch.testing.assert_close(parts.tail(*alive), expected)


def test_axes_follow_the_image_and_not_what_is_added_to_it():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc, self.head = nn.Conv2d(3, 6, 1), nn.Linear(6, 6), nn.Linear(6 * 64, 5)
            self.places = nn.Parameter(torch.zeros(8, 8, 6))

        def forward(self, x):
            x = torch.permute(self.conv(x), dims=(0, 2, 3, 1))
            x = F.gelu(self.places + x)
            return self.head(F.gelu(self.places + self.fc(x)).flatten(1))

    network = seeded(Added)
    found = layers.find(network, tracing.trace(network, pictures(1)), pictures(1))
    assert [layer.axes for layer in found] == [("height", "width", "channels")] * 2


def test_a_module_is_named_for_what_is_read_outside_of_it():
    """Not for what it computes last; one that gives two tensors has no name."""

    class Part(nn.Module):
        def __init__(self, both):
            super().__init__()
            self.one, self.two, self.both = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1), both

        def forward(self, x):
            given, other = self.one(x), self.two(x)
            return (given, other) if self.both else given * other.mean().clamp(0, 0).add(1)

    class Whole(Simple):
        def __init__(self):
            super().__init__(nn.ReLU())
            self.first, self.second = Part(both=False), Part(both=True)

        def forward(self, x):
            one, two = self.second(self.first(self.conv(x)))
            return self.dense(self.act(one + two).flatten(1))

    network = seeded(Whole)
    traced = tracing.trace(network, pictures(1))
    named = {each.name: each for each in layers.names(network, traced, pictures(1))}
    assert "second" not in named and {"second.one", "second.two"} <= named.keys()
    with torch.inference_mode():
        x = pictures()
        found = cuts.cut(traced, named["first"].node).prefix(x)[0]
        torch.testing.assert_close(found, network.first(network.conv(x)))


class Torchs(nn.Module):
    """Layers of a Transformer as torch has them, which compute as one operation where nobody looks."""

    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 5)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        self.act, self.encoder = nn.GELU(), nn.TransformerEncoder(layer, 2)

    def forward(self, x):
        return self.dense(self.encoder(self.act(self.conv(x)).flatten(2).transpose(1, 2)).mean(1))


def test_non_linearities_of_torchs_transformers_are_layers():
    """They are no one operation; each of its layers is a module by name, and gives what the module gives."""
    network, x = seeded(Torchs), pictures(size=16)
    traced = tracing.trace(network, x[:1])
    found = layers.find(network, traced, x[:1], ["encoder.layers.0"])
    assert [(layer.name, layer.shape) for layer in found] == [
        ("act", (8, 4, 4)),
        ("encoder.layers.0.gelu", (16, 12)),
        ("encoder.layers.0", (16, 8)),
        ("encoder.layers.1.gelu", (16, 12)),
    ]
    with torch.inference_mode():
        tokens = network.act(network.conv(x)).flatten(2).transpose(1, 2)
        first = network.encoder.layers[0]
        expected = {
            "encoder.layers.0": first(tokens),
            "encoder.layers.0.gelu": F.gelu(first.linear1(first.norm1(tokens + first._sa_block(tokens, None, None)))),
        }
        for layer in found:
            parts = cuts.cut(traced, layer.node)
            alive = parts.prefix(x)
            torch.testing.assert_close(parts.tail(*alive), network(x))
            torch.testing.assert_close(alive[0], expected.get(layer.name, alive[0]))


def _hooked(network):
    network.act.register_forward_hook(lambda module, given, made: 3 * made + 1)
    return network


def _own_forward(network):
    forward = network.act.forward
    network.act.forward = lambda x: 3 * forward(x) + 1
    return network


@pytest.mark.parametrize("way", [_hooked, _own_forward])
def test_what_a_hook_makes_of_a_relu_is_made_behind_a_cut_too(way):
    """A tail has torch's function in the place of a ReLU, where that is all that the module does."""

    class Two(Simple):
        def __init__(self):
            super().__init__(nn.ReLU())
            self.before = nn.ReLU()

        def forward(self, x):
            return self.dense(self.act(self.conv(self.before(x))).flatten(1))

    network, x = way(seeded(Two)), pictures()
    traced = tracing.trace(network, x[:1])
    with torch.inference_mode():
        expected = network(x)
        plain = network.dense(F.relu(network.conv(network.before(x))).flatten(1))
        assert not torch.allclose(expected, plain)
        parts = cuts.cut(traced, "before")
        torch.testing.assert_close(parts.tail(*parts.prefix(x)), expected)


NORMED = """
import random
import torch
from torch import nn

FACTOR = random.random()


class Last(nn.Module):
    def forward(self, x):
        return {last}


def build(outputs):
    head = nn.Linear(4 * 64, outputs)
    {drawn}
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Last(), head)
"""


def normed(tmp_path, chosen, last="x.flatten(1)", drawn="nn.init.normal_(head.weight)"):
    """List the layers of a network with a batch norm; `last` is done before its last layer."""
    (tmp_path / "normed.py").write_text(NORMED.format(last=last, drawn=drawn))
    model = f"{tmp_path}/normed.py:build"
    transform = {"resize": None, "crop": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    source = NetworkSource(model, 5, "random-3", ImageSource("digits", None, transform), builders.digest(model))
    job.list_layers(str(tmp_path / "layers.parquet"), source=source, chosen=chosen, cells=16, device="cpu")
    return source


def test_a_batch_norm_is_a_layer_in_the_engine(tmp_path):
    """It computes the convolution, too, and gives what the norm gives."""
    source = normed(tmp_path, ["1", "conv1"])
    row = job.layer_nodes(str(tmp_path / "layers.parquet"))["1"]
    network, kept = job.network(source), []
    activations.record(job.engine(source, device="cpu"), pictures(), [row["node"]], lambda n, v: kept.append(v))
    with torch.inference_mode():
        torch.testing.assert_close(kept[0], network[:2](pictures()))


def test_parts_that_give_other_scores_are_refused(tmp_path, monkeypatch):
    """Were a tail to lose what its network does, no ablation would be made by it."""

    def broken(traced, tail):
        for node in tail.nodes:
            if node.target == "2":
                node.op, node.target = "call_function", F.gelu

    monkeypatch.setattr(cuts, "_overwrite", broken)
    with pytest.raises(StudyError, match=r"normed\.py:build: cut at 1 it gives other scores than as a whole"):
        normed(tmp_path, ["1", "conv1"])
    assert not (tmp_path / "layers.parquet").exists()


@pytest.mark.parametrize(
    ("chosen", "changes", "words"),
    [
        ("0", {}, r"layers: 0: is one with the batch norm behind it when .* is run; choose the norm"),
        (
            "2",
            {"last": "torch.as_strided(x, (x.shape[0], 256), (256, 1))"},
            r"each score is another|2 is another .* layout of memory",
        ),
        ("conv1", {"drawn": "nn.init.zeros_(head.weight)"}, r"gives the same scores for every image"),
    ],
)
def test_what_the_engine_would_make_another_is_refused(tmp_path, chosen, changes, words):
    with pytest.raises(StudyError, match=words):
        normed(tmp_path, [chosen], **changes)
    assert not (tmp_path / "layers.parquet").exists()
