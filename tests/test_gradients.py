"""Gradients at a cut: by hand, by finite differences, and against autograd on the networks as they are built."""

import copy
import math
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from conftest import randomised
from inputs.sources import ImageSource, NetworkSource
from jobs import ablations as ablations_job
from jobs import activations as activations_job
from jobs import images as images_job
from jobs import networks as networks_job
from readout import (
    StudyError,
    activations,
    cuts,
    engine,
    gradients,
    layer_names,
    layers,
    models,
    openvino,
    tracing,
    training,
)
from readout.relatives import BUILDERS
from runtime import cache


def z(target):
    """The score of section 4 of the design: the target's logit less the logsumexp of all others."""
    return lambda scores: scores[:, target] - torch.cat([scores[:, :target], scores[:, target + 1 :]], 1).logsumexp(1)


def logit(output):
    return lambda scores: scores[:, output]


def unit(index):
    return lambda activation: activation.flatten(1)[:, index]


# On paper.


def _toy_cuts(toy):
    traced = tracing.trace(toy)
    return cuts.cut(traced, "relu"), cuts.cut_before(traced, "relu")


def test_scores_of_the_toy(toy, toy_target):
    """The dense layer's rows; of z, the target's row less the others' by their share of exp(score).

    The scores are [5 3 2] and [5 1 6]: outputs 1 and 2 share 1 : exp(-1) and 1 : exp(5).
    """
    cut, _ = _toy_cuts(toy)
    alive = cut.prefix(toy_target)
    found = gradients.of_scores(cut.tail, alive, logit(2))
    assert found.tolist() == [[[[0, 0], [1, 2]], [[0, 0], [0, 1]]]] * 2
    shares = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(5))
    for row, share in zip(gradients.of_scores(cut.tail, alive, z(0)), shares, strict=True):
        rest = 1 - share
        expected = torch.tensor([1, -share, -rest, -2 * rest, 1, -share, 0, -rest])
        torch.testing.assert_close(row.flatten(), expected, rtol=0, atol=1e-6)


def test_the_input_of_the_toys_layer(toy, toy_target):
    """What the ReLU lets through: of unit 0, 4 and 2; of units 2, 3 and 7, all at exactly 0, but unit 3 in one image."""
    _, cut = _toy_cuts(toy)
    alive = cut.prefix(toy_target)
    assert alive[0].flatten(1).tolist() == [[4, 2, 0, 0, 1, 0, -3, 0], [2, 0, 0, 2, 3, 0, 0, 0]]
    assert gradients.of_scores(cut.tail, alive, logit(0)).flatten(1).tolist() == [[1, 0, 0, 0, 1, 0, 0, 0]] * 2
    assert gradients.of_scores(cut.tail, alive, logit(2)).flatten(1).tolist() == [[0] * 8, [0, 0, 0, 2, 0, 0, 0, 0]]


def test_the_toys_layer_by_its_images(toy, toy_target):
    """Unit 4 is green less blue at the first pixel; unit 6 at the third, where the first image's input is -3."""
    behind, before = _toy_cuts(toy)
    expected = torch.zeros(2, 3, 2, 2)
    expected[:, 1, 0, 0], expected[:, 2, 0, 0] = 1, -1
    assert torch.equal(gradients.of_layer(behind.prefix, toy_target, unit(4)), expected)
    assert not gradients.of_layer(behind.prefix, toy_target, unit(6)).any()
    expected = torch.zeros(2, 3, 2, 2)
    expected[:, 1, 1, 0], expected[:, 2, 1, 0] = 1, -1
    assert torch.equal(gradients.of_layer(before.prefix, toy_target, unit(6)), expected)
    # Along a direction: red with its factors, where it is above 0.
    direction = torch.arange(1.0, 9).view(2, 2, 2)
    found = gradients.of_layer(behind.prefix, toy_target, lambda a: (a * direction).flatten(1).sum(1))
    assert found[:, 0].flatten(1).tolist() == [[1, 2, 0, 0], [1, 0, 0, 4]]


class Product(nn.Module):
    """y = relu(x), z = relu(2 y - 1), score y z: the shortcut y is alive behind the second layer."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(1, 1)
        with torch.no_grad():
            self.dense.weight.fill_(2)
            self.dense.bias.fill_(-1)

    def forward(self, x):
        y = F.relu(x)
        return y * F.relu(self.dense(y))


def test_what_else_is_alive_is_held_fixed():
    """Of x = 2, y = 2 and z = 3: by z it is y; by y, z + 2 y. Of x = 1/4, z = relu(-1/2): by its input nothing."""
    traced, x = tracing.trace(Product()), torch.tensor([[2.0], [0.25]])
    found = {}
    for node in ("relu", "relu_1"):
        for cutting in (cuts.cut, cuts.cut_before):
            cut = cutting(traced, node)
            alive = cut.prefix(x)
            found[node, cutting] = gradients.of_scores(cut.tail, alive, logit(0)).flatten().tolist()
            # The input of the first layer is all that is alive before it.
            assert len(alive) == (2 if node == "relu_1" else 1)
    assert found == {
        ("relu", cuts.cut): [7, 0],
        ("relu", cuts.cut_before): [7, 0],
        ("relu_1", cuts.cut): [2, 0.25],
        ("relu_1", cuts.cut_before): [2, 0],
    }


class Fed(nn.Module):
    """A layer, and another non-linearity fed with it, unchanged, by a dense layer, a convolution or an addition."""

    def __init__(self, feed: str, function: nn.Module):
        super().__init__()
        self.first, self.function, self.feed = nn.ReLU(), function, nn.Conv2d(1, 1, 3, padding=1)
        nn.init.dirac_(self.feed.weight)
        nn.init.zeros_(self.feed.bias)
        if feed == "dense":
            self.feed = nn.Linear(6, 6)
            nn.init.eye_(self.feed.weight)
            nn.init.zeros_(self.feed.bias)
        self.adds = feed == "addition"

    def forward(self, x):
        x = self.first(x) - 1
        x = x + 0.0 if self.adds else self.feed(x)
        return self.function(x).flatten(1)


@pytest.mark.parametrize("feed", ["dense", "convolution", "tiles", "addition"])
@pytest.mark.parametrize(
    ("function", "expected"), [(nn.ReLU(), [0, 0, 1, 1, 1, 1]), (nn.ReLU6(), [0, 0, 1, 0, 0, 1])], ids=["relu", "relu6"]
)
def test_non_linearities_that_overwrite_their_input(monkeypatch, feed, function, expected):
    """Their input is -1, 0, 3, 6, 7 and 5: at 0, at 6 and beyond nothing passes. What was alive stays as it was."""
    monkeypatch.setattr(engine, "SHARE", math.inf)
    traced = tracing.trace(Fed(feed, function).double())
    if feed == "tiles":
        traced.feed = engine.Winograd(traced.feed)
    cut = cuts.cut(traced, "first")
    (overwriting,) = (node for node in cut.tail.graph.nodes if tracing.is_layer(traced, node))
    assert overwriting.kwargs["inplace"]
    x = torch.tensor([[[[0, 1.0, 4, 7, 8, 6]]]], dtype=torch.float64)
    alive = cut.prefix(x)
    # Tiles leave 1e-16 where 0 or 6 should be, on either side of it: there they say nothing.
    told = torch.tensor([0, 2, 4, 5] if feed == "tiles" else range(6))
    for _ in range(2):
        found = gradients.of_scores(cut.tail, alive, lambda scores: scores.sum(1)).flatten()
        torch.testing.assert_close(found[told], torch.tensor(expected).double()[told], rtol=0, atol=1e-12)
        assert torch.equal(alive[0], x)


# The convolution by tiles.


def test_a_kernel_turned_around():
    """At a point p it is p^2 times the kernel at 1 / p."""
    factors, order = engine._turned()
    kernel = engine._evaluation(engine.KERNEL)
    np.testing.assert_allclose(kernel[:, ::-1], factors[:, None] * kernel[order], rtol=0, atol=1e-15)
    assert sorted(order) == [*range(engine.SIDE)]
    assert factors[:6].tolist() == pytest.approx([1, 1, 1 / 4, 4, 9 / 16, 16 / 9])


def _convolution(inputs, outputs, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, 3, padding=1, dtype=dtype)


@pytest.mark.parametrize("tiles", [1, 256])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (4, 4), (6, 5), (7, 13)])
def test_tiles_have_the_convolutions_gradient(monkeypatch, shape, tiles):
    """In float64, in one pass or several, in either memory layout of images and gradient; second derivatives too."""
    monkeypatch.setattr(engine, "TILES", tiles)
    monkeypatch.setattr(engine, "SHARE", math.inf)
    convolution = _convolution(3, 4)
    ours = engine.Winograd(convolution)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(3, 3, *shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
        incoming = torch.randn(3, 4, *shape, dtype=torch.float64).contiguous(memory_format=layout)
        ((expected,), (found,)) = (
            torch.autograd.grad(function(x), x, incoming, create_graph=True) for function in (convolution, ours)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert ours(x).grad_fn.name() == "_TilesBackward"
    assert torch.autograd.gradgradcheck(ours, x[:1, :, :2, :2].detach().requires_grad_())


def test_gradients_of_tiles_cost_as_little_precision_as_they_do():
    """Over the widest sums of the paper's networks, beside float64: within the bound that test_engine sets for scores."""
    convolution = _convolution(512, 512, torch.float32)
    x, incoming = torch.randn(2, 512, 14, 14).requires_grad_(), torch.randn(2, 512, 14, 14)
    (found,) = torch.autograd.grad(engine.Winograd(convolution)(x), x, incoming)
    wide = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(copy.deepcopy(convolution).double()(wide), wide, incoming.double())
    error = ((found - expected).square().mean().sqrt() / expected.std()).item()
    assert 1e-7 < error < 6e-6


def test_tiles_keep_nothing_of_the_images(monkeypatch):
    """A convolution's gradient does not depend on its input: autograd keeps the network's own tensors and no others."""
    monkeypatch.setattr(engine, "SHARE", math.inf)
    ours = engine.Winograd(_convolution(3, 4))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda t: t):
        ours(torch.randn(1, 3, 8, 8, dtype=torch.float64).requires_grad_())
    assert kept
    assert set(kept) <= {buffer.data_ptr() for buffer in ours.buffers()}


# Against autograd on the network as it was built.


class Plain:
    """A network as it was built, untraced, run once under autograd; the reference knows nothing of torch.fx.

    `inputs` and `outputs` are those of its non-linearities, in the order of the calls, and can be differentiated:
    where one overwrites its input, it is given a copy to overwrite.
    """

    def __init__(self, network: nn.Module, x: torch.Tensor):
        self.x, self.inputs, self.outputs = x.clone().requires_grad_(), [], []
        with mock.patch.multiple(
            F, **{name: self._watched(getattr(F, name)) for name in ("relu", "relu6", "hardtanh")}
        ):
            self.scores = network(self.x)

    def _watched(self, function):
        def watched(given, *args, **kwargs):
            self.inputs.append(given)
            self.outputs.append(function(given.clone(), *args, **kwargs))
            return self.outputs[-1]

        return watched

    def gradients(self, values: torch.Tensor, at: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(values.sum(), at, retain_graph=True)


def _along(shape):
    """A direction in a layer, and what there is along it."""
    direction = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return lambda activation: (activation * direction).flatten(1).sum(1)


CASES = [*((model, 32) for model in BUILDERS)]
CASES += [
    ("planted", 16),
    ("planted_null", 16),
    ("alexnet", 64),
    ("caffe_alexnet", 227),
    ("theano_alexnet", 227),
    ("vgg16", 32),
    ("vgg16_bn", 32),
    ("mobilenet_v2", 32),
    ("resnet101", 32),
    ("googlenet", 32),
]
ROUNDING = 1e-10
"""Largest error of a gradient in float64, as a part of the largest entry.

Rounding adds up over as many as a hundred layers forward and a hundred back, and comes to 6e-14. In float32 the input
of a ReLU can round to the other side of zero, and then whole entries differ.
"""


def test_every_registered_network_is_tried():
    assert set(layer_names.KNOWN) | {"googlenet"} == {model for model, _ in CASES}


@pytest.mark.parametrize(("model", "size"), CASES, ids=[model for model, _ in CASES])
def test_gradients_are_those_of_the_plain_network(model, size, random_network, monkeypatch):
    """At the first, the middle and the last layer, at every one of the small networks: of a score with respect to the
    layer and to the input of its non-linearity, and of either along a direction with respect to the images.
    """
    # Small images too go by tiles here.
    monkeypatch.setattr(engine, "SHARE", math.inf)
    network = random_network(model).double().requires_grad_(False)
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, score = Plain(network, x), z(3)
    traced = tracing.trace(network)
    found = layers.find(network, traced, x[:1])
    if model in layer_names.KNOWN:
        assert tuple(layer.name for layer in found) == layer_names.KNOWN[model]
    assert len(found) == len(plain.outputs)
    traced = engine.hasten(engine.fold(traced)).to(memory_format=torch.channels_last)
    last = x.contiguous(memory_format=torch.channels_last)
    for layer in found if model in BUILDERS else (found[0], found[len(found) // 2], found[-1]):
        for cutting, places in ((cuts.cut, plain.outputs), (cuts.cut_before, plain.inputs)):
            at = places[layer.depth]
            cut, value = cutting(traced, layer.node), _along(at.shape[1:])
            with torch.no_grad():
                alive = cut.prefix(last)
            for ours, expected in (
                (gradients.of_scores(cut.tail, alive, score), plain.gradients(score(plain.scores), [at])[0]),
                (gradients.of_layer(cut.prefix, last, value), plain.gradients(value(at), [plain.x])[0]),
            ):
                case = f"{layer.name}, {cutting.__name__}, {ours.shape}"
                most = expected.abs().max().item()
                # Both images have one.
                assert expected.flatten(1).any(1).all(), case
                torch.testing.assert_close(
                    ours, expected, rtol=0, atol=ROUNDING * most, msg=lambda m, c=case: f"{c}: {m}"
                )


@pytest.mark.parametrize("cutting", [cuts.cut, cuts.cut_before])
def test_finite_differences(cutting, images):
    """In float64, at the five largest entries and at five others, by 1e-6 to both sides.

    Behind so many layers scores of about 10 are known to 1e-13, by some processors' kernels, and a quotient to 1e-7.
    """
    traced = engine.fold(tracing.trace(randomised("small_resnet", 10).double()))
    node = layers.find(traced, traced, images[:1].double())[12].node
    cut, x, step = cutting(traced, node), images[:2].double(), 1e-6
    alive = cut.prefix(x)
    value = _along(alive[0].shape[1:])

    def differs(function, at, index):
        moved = torch.zeros_like(at[0]).flatten()
        moved[index] = step
        moved = moved.view(at[0].shape)
        return ((function(at + moved) - function(at - moved)) / (2 * step)).detach()

    for gradient, function, at in (
        (gradients.of_scores(cut.tail, alive, z(3)), lambda first: z(3)(cut.tail(first, *alive[1:])), alive[0]),
        (gradients.of_layer(cut.prefix, x, value), lambda x: value(cut.prefix(x)[0]), x),
    ):
        flat = gradient.flatten(1)
        chosen = [*flat[0].abs().topk(5).indices.tolist(), *range(7, flat.shape[1], flat.shape[1] // 5)]
        assert flat[0, chosen[:5]].abs().min() > 1e-3
        for index in chosen:
            torch.testing.assert_close(differs(function, at, index), flat[:, index], rtol=0, atol=1e-6)


# How they are called.


def test_an_image_has_the_same_gradient_in_any_batch(random_network, images):
    """One backward pass for twelve images gives what twelve passes give, each image with a label of its own."""
    network = random_network("small_mobilenet_v2").double()
    traced, x, labels = tracing.trace(network), images.double(), torch.arange(12) % 10
    cut = cuts.cut(traced, layers.find(network, traced, x[:1])[17].node)

    def right(labels):
        return lambda scores: scores.log_softmax(1).gather(1, labels[:, None]).squeeze(1)

    with torch.no_grad():
        alive = cut.prefix(x)
    value = _along(alive[0].shape[1:])
    together = gradients.of_scores(cut.tail, alive, right(labels)), gradients.of_layer(cut.prefix, x, value)
    for i in range(12):
        here = slice(i, i + 1)
        alone = (
            gradients.of_scores(cut.tail, [tensor[here] for tensor in alive], right(labels[here])),
            gradients.of_layer(cut.prefix, x[here], value),
        )
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[here], expected, rtol=0, atol=1e-12 * expected.abs().max().item())
    assert not torch.allclose(together[0][0], together[0][1])


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_callers_mode_does_not_matter(mode, toy, toy_target):
    """And nothing is left behind on the tensors that were given or on the weights."""
    cut, _ = _toy_cuts(toy)
    alive = cut.prefix(toy_target)
    alive = tuple(tensor.detach() for tensor in alive)
    with mode():
        found = gradients.of_scores(cut.tail, alive, logit(0)), gradients.of_layer(cut.prefix, toy_target, unit(0))
    assert found[0].flatten(1).tolist() == [[1, 0, 0, 0, 1, 0, 0, 0]] * 2
    assert found[1].sum((2, 3)).tolist() == [[1, 0, 0]] * 2
    for tensor in (*found, *alive, toy_target):
        assert not tensor.requires_grad
        assert not tensor.is_inference()
        assert tensor.grad is None
    assert all(parameter.grad is None for parameter in toy.parameters())


@pytest.mark.parametrize(
    ("score", "shape"),
    [(lambda scores: scores, r"\[2, 3\]"), (lambda scores: scores.sum(), r"\[\]")],
    ids=["all", "sum"],
)
def test_a_function_that_is_not_one_number_for_each_image_is_refused(score, shape, toy, toy_target):
    """Autograd would take the gradient of its sum without a word."""
    cut, _ = _toy_cuts(toy)
    with pytest.raises(StudyError, match=rf"one number for each image, \[2\], but the function gives {shape}"):
        gradients.of_scores(cut.tail, cut.prefix(toy_target), score)


def test_openvinos_tails_have_no_gradients(toy_target):
    """The error comes before anything of OpenVINO is touched, so that it need not be installed."""
    tail = object.__new__(openvino.Tail)
    with pytest.raises(StudyError, match="openvino gives no gradients; set device to cpu"):
        gradients.of_scores(tail, [toy_target], logit(0))


# What jobs share.


def test_tensors_of_inference_mode_are_refused(toy, toy_target):
    """By torch itself, which is why nothing that is kept may be one: the negative control of the tests below."""
    cut, _ = _toy_cuts(toy)
    with torch.inference_mode():
        alive, images, weights = cut.prefix(toy_target), toy_target.clone(), copy.deepcopy(toy)
    with pytest.raises(RuntimeError, match="inference tensor"):
        gradients.of_scores(cut.tail, alive, logit(0))
    with pytest.raises(RuntimeError, match="inference tensor"):
        gradients.of_layer(cut.prefix, images, unit(0))
    ordinary = cut.prefix(toy_target)
    assert gradients.of_scores(cut.tail, ordinary, logit(0)).any()
    cut, _ = _toy_cuts(weights)
    with pytest.raises(RuntimeError, match="Inference tensors"):
        gradients.of_scores(cut.tail, ordinary, logit(0))


def _tensors(value):
    """All tensors in something that is kept."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.state_dict(keep_vars=True).values()
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


@pytest.fixture
def empty(monkeypatch):
    """Nothing kept by other tests."""
    monkeypatch.setattr(cache, "_store", {})
    return cache._store


def test_what_is_kept_is_ordinary_in_whatever_mode_it_is_made(empty):
    """A value made from another one, for a job in inference mode; autograd does not record how it was made."""
    weight = torch.ones(2, requires_grad=True)

    def make():
        return torch.ones(2) * cache.shared("inner", lambda: weight * 2)

    with torch.inference_mode():
        found = cache.shared("outer", make)
        assert (found + 0).is_inference()
    for tensor in (found, empty["inner"]):
        assert not tensor.is_inference()
        assert not tensor.requires_grad


def test_recorded_activations_are_ordinary(toy, toy_target):
    """What `record` hands on can be kept and differentiated later."""
    kept = []
    activations.record(tracing.trace(toy), toy_target, ["relu"], lambda node, value: kept.append(value))
    assert not kept[0].is_inference()
    assert not kept[0].requires_grad


def test_weights_have_gradients_in_training_alone(images):
    """The engine's have none; a network built for training has its own weights, whose gradients are on."""
    traced = networks_job.engine(
        NetworkSource("small_resnet", 10, "random-0", ImageSource("digits", None, {"crop": 32})), device="cpu"
    )
    weights = dict(traced.named_parameters())
    assert weights
    assert not any(weight.requires_grad for weight in weights.values())
    before = copy.deepcopy(weights)
    network = models.build("small_resnet", 10, seed=0)
    built = copy.deepcopy(dict(network.named_parameters()))
    assert all(weight.requires_grad for weight in network.parameters())
    training.train(network, images, torch.arange(12) % 10, epochs=1, batch=6, learning_rate=0.01, seed=0)
    assert not any(torch.equal(weight, built[name]) for name, weight in network.named_parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())


def test_what_the_jobs_keep_can_be_differentiated(tmp_path, empty, random_network):
    """The engine, and what the ablations of a grid share with a shortcut alive, made for a job in inference mode.

    In float32, as in a study, the gradients differ from the plain network's by a part of 5e-6 in norm. More would come
    of a ReLU whose input rounds to the other side of zero.
    """
    network, layer = random_network("small_mobilenet_v2"), "block3.expand"
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "data" / "a").mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "data" / "a" / f"{i:02d}.png")
    opening = {"dataset": "folder", "path": str(tmp_path / "data")}
    transform = {"resize": None, "crop": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    source = NetworkSource(
        "small_mobilenet_v2", 10, str(tmp_path / "weights.pt"), ImageSource(**opening, transform=transform)
    )
    paths = {f"path_to_{name}": str(tmp_path / f"{name}.parquet") for name in ("images", "layers", "baseline")}
    images_job.list_images(
        paths["path_to_images"], **opening, labels={"a": 4}, study=20, train=False, split_seed=0, fold_seed=0
    )
    networks_job.list_layers(paths["path_to_layers"], source=source, chosen=[layer], cells=16, device="cpu")
    given = paths | {"class_id": "a", "source": source, "device": "cpu"}
    with torch.inference_mode():
        activations_job.extract(**given, paths_to_activations={}, paths_to_means={}, dtype="float32", folds=False)
        sample = ablations_job.sampled(
            images_job.rows(paths["path_to_images"]),
            (4,),
            path_to_layers=paths["path_to_layers"],
            layer=layer,
            source=source,
            device="cpu",
            key=("a",),
        )
        traced = networks_job.engine(source, device="cpu")

    kept = [tensor for value in empty.values() for tensor in _tensors(value)]
    assert {id(tensor) for tensor in [*sample.alive, *traced.parameters()]} <= {id(tensor) for tensor in kept}
    assert not any(tensor.is_inference() or tensor.requires_grad for tensor in kept)

    alive = sample.alive
    assert len(alive) == 2
    x = images_job.load(images_job.rows(paths["path_to_images"])["source"], source.images)
    plain, depth = Plain(network, x), layer_names.KNOWN["small_mobilenet_v2"].index(layer)
    at = plain.outputs[depth]
    cut = cuts.cut(traced, networks_job.layer_nodes(paths["path_to_layers"])[layer]["node"])
    for ours, values, place in (
        (gradients.of_scores(sample.tail, alive, z(4)), z(4)(plain.scores), at),
        (gradients.of_layer(cut.prefix, networks_job.to_device(x, "cpu"), unit(100)), unit(100)(at), plain.x),
    ):
        (expected,) = plain.gradients(values, [place])
        assert (ours - expected).norm() < 1e-3 * expected.norm()
