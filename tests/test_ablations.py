"""Ablations: what becomes of the ranks when units are set to a value, by hand and against the masked network."""

import copy
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from conftest import randomised
from inputs.sources import ImageSource, NetworkSource
from jobs import ablations as job
from jobs import activations as activations_job
from jobs import cells as cells_job
from jobs import groups as groups_job
from jobs import images as images_job
from jobs import networks as networks_job
from readout import StudyError, activations, cuts, engine, layers, openvino, scores, tracing
from readout.ablations import ZERO, Constant, ablate, mean
from readout.folds import FOLDS
from readout.outcomes import Images, one_sided
from readout.relatives import BUILDERS
from runtime import cache, parquet

NONE = np.array([], np.int64)


def _toy_ranks(toy, x, units, value=0.0):
    cut = cuts.cut(tracing.trace(toy), "relu")
    with torch.inference_mode():
        first, *rest = cut.prefix(x)
        logits = cut.tail(ablate(first, np.array(units, np.int64), value), *rest)
    return logits, scores.ranks(logits, torch.zeros(len(x), dtype=torch.int64))


# The toy of conftest.py: scores u0 + u4, u1 + u5 + 1, u2 + 2 u3 + u7 + 2, the target is output 0. Its two images have
# [4 2 0 0, 1 0 0 0] and [2 0 0 2, 3 0 0 0]: scores [5 3 2] and [5 1 6], ranks 0 and 1.
@pytest.mark.parametrize(
    ("units", "value", "logits", "ranks", "deficit", "change"),
    [
        ([], 0, [[5, 3, 2], [5, 1, 6]], [0, 1], 0, 0),
        # s1m1, what the target stands on.
        ([0, 4], 0, [[0, 3, 2], [0, 1, 6]], [2, 2], 1.5, 1.5),
        # s1m0: unit 3 speaks for output 2, and without it the second image gains a rank: the deficit does not count it.
        ([3, 6], 0, [[5, 3, 2], [5, 1, 2]], [0, 0], 0, -0.5),
        # s0m1: unit 1 speaks for output 1, which was behind before.
        ([1, 5], 0, [[5, 1, 2], [5, 1, 6]], [0, 1], 0, 0),
        # s0m0: silent in both images.
        ([2, 7], 0, [[5, 3, 2], [5, 1, 6]], [0, 1], 0, 0),
        # All at once: the biases are left.
        (range(8), 0, [[0, 1, 2], [0, 1, 2]], [2, 2], 1.5, 1.5),
        # A value of its own for each unit, here (t + o) / 2 by test_cells' means; those of the other units are not used.
        ([0, 4], np.array([2, 1, 0.5, 0.5, 1, 1, 0, 0.5]), [[3, 3, 2], [3, 1, 6]], [0, 1], 0, 0),
        ([0, 3], np.array([1, 9, 9, 4, 9, 9, 9, 9.0]), [[2, 3, 10], [4, 1, 10]], [2, 1], 1, 1),
        # Another value: 1 and 1 make 2, which ties with output 2 in the first image; ties are no ranks lost.
        ([0, 4], 1, [[2, 3, 2], [2, 1, 6]], [1, 1], 0.5, 0.5),
    ],
)
def test_ranks_by_hand(toy, toy_target, units, value, logits, ranks, deficit, change):
    """Scores, ranks, deficit and change of the toy, on paper."""
    _, baseline = _toy_ranks(toy, toy_target, [])
    found, ablated = _toy_ranks(toy, toy_target, units, value)
    assert found.tolist() == logits
    assert ablated.tolist() == ranks
    own, none = np.zeros(2, int), np.zeros(2)
    found = one_sided(*(Images(own, none, rank.numpy(), none) for rank in (baseline, ablated)))
    assert (found["rank_deficit"], found["rank_change"]) == (deficit, change)


FORMATS = {
    "dense": torch.arange(1.0, 13).view(2, 6),
    "contiguous": torch.arange(1.0, 25).view(2, 3, 2, 2),
    "channels last": torch.arange(1.0, 25).view(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "one image": torch.arange(1.0, 13).view(1, 3, 2, 2).to(memory_format=torch.channels_last),
    "transposed": torch.arange(1.0, 25).view(2, 2, 2, 3).permute(0, 3, 1, 2),
}


@pytest.mark.parametrize("name", FORMATS)
def test_ablation_acts_and_is_out_of_place(name):
    """Units 1 and 4 in C, H, W order, in every image and nowhere else, whatever the memory format."""
    activation = FORMATS[name].clone(memory_format=torch.preserve_format)
    before = activation.clone()
    found = ablate(activation, np.array([1, 4]), 0.0)
    assert torch.equal(activation, before)
    expected = before.flatten(1).clone()
    expected[:, [1, 4]] = 0
    assert torch.equal(found.flatten(1), expected)
    assert not torch.equal(found, before)
    assert found.shape == before.shape


@pytest.mark.parametrize("name", FORMATS)
def test_ablating_nothing_or_everything(name):
    """No units: a copy. All units: the layer is zero, or another stated value."""
    activation = FORMATS[name]
    everything = np.arange(activation[0].numel())
    assert torch.equal(ablate(activation, NONE, 0.0), activation)
    assert torch.equal(ablate(activation, everything, 0.0), torch.zeros_like(activation))
    assert torch.equal(ablate(activation, everything, 2.5), torch.full_like(activation, 2.5))


def test_cells_ablated_one_after_another_zero_the_layer():
    """The cells of a grid hold all units between them; int32 as in the tables."""
    activation = torch.rand(2, 4, 2, 2) + 1
    for cell in np.array_split(np.random.default_rng(0).permutation(16).astype(np.int32), 5):
        activation = ablate(activation, cell, 0.0)
    assert torch.equal(activation, torch.zeros(2, 4, 2, 2))


@pytest.mark.parametrize("value", [0.5, np.full(12, 0.5)], ids=["number", "one per unit"])
@pytest.mark.parametrize("name", FORMATS)
def test_ablation_keeps_the_memory_layout(name, value):
    """In another layout the tail would do its first operations slowly."""
    activation = FORMATS[name].clone(memory_format=torch.preserve_format)
    value = value if isinstance(value, float) else value[: activation[0].numel()]
    assert ablate(activation, np.array([1, 4]), value).stride() == activation.stride()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FORMATS)
def test_each_unit_may_have_its_own_value(name, dtype):
    """In C, H, W order whatever the memory format: here ten times its index, less a half, in units 1, 4 and the last."""
    activation = FORMATS[name].clone(memory_format=torch.preserve_format)
    before, count = activation.clone(), activation[0].numel()
    units, value = np.array([1, 4, count - 1]), 10 * np.arange(count, dtype=dtype) - dtype(0.5)
    found = ablate(activation, units, value)
    expected = before.flatten(1).clone()
    expected[:, units] = torch.tensor([9.5, 39.5, 10 * (count - 1) - 0.5])
    assert torch.equal(found.flatten(1), expected)
    assert found.dtype == before.dtype
    assert torch.equal(activation, before)
    assert value[1] == 9.5


def test_values_of_another_layer_are_an_error():
    """Fewer or more than the layer has units."""
    for count in (3, 5, 1):
        with pytest.raises(RuntimeError):
            ablate(torch.ones(2, 4), np.array([1]), np.zeros(count))


def test_interventions_on_one_cut_by_hand(toy_study):
    """A job may run any number of them, also with a value per unit, on what was made once; none leaves a trace."""
    sample = job.prepare(toy_study.grid)
    at = {"network": "toy", "layer": "conv1", "class_id": "a"}
    group = groups_job.find(toy_study.cells, "s1m1", "cell", **at, seed=None)
    assert group.units.tolist() == [0, 4]
    # (t + o) / 2 of test_cells' means.
    middle = mean(np.array([3.0, 1, 0, 1, 2, 0, 0, 0]), np.array([1.0, 1, 1, 0, 0, 2, 0, 1]))
    assert middle.name == "mean" and middle.value.tolist() == [2, 1, 0.5, 0.5, 1, 1, 0, 0.5]
    # As above; with 1.5 the scores are [3 3 2] too, but for roundings of the pixels, and so 1.75.
    ranks = {"zero": [2, 2], "1.75": [0, 1], "half the mean": [2, 1]}
    # (4 - x)^2 + (1 - y)^2 and (2 - x)^2 + (3 - y)^2.
    removed = {"zero": [17, 13], "1.75": [5.625, 1.625], "half the mean": [9.25, 7.25]}
    other, half = Constant("1.75", 1.75), Constant("half the mean", middle.value / 2)
    for intervention in (ZERO, other, half, other, ZERO):
        how = [(group, intervention)] * FOLDS
        effects = sample.effects("published", how, energy_layer=sample.layer_energy(how))
        assert effects.schema == job.SCHEMA
        assert effects["intervention"].to_pylist() == [intervention.name] * 2
        assert effects["rank_ablated"].to_pylist() == ranks[intervention.name]
        assert effects["rank_baseline"].to_pylist() == [0, 1]
        assert effects["energy"].to_pylist() == pytest.approx(removed[intervention.name], rel=1e-5)
        assert effects["z_ablated"].null_count == 2
    # Of the whole layer: 16 + 4 + 1 and 4 + 4 + 9.
    assert effects["energy_layer"].to_pylist() == pytest.approx([21, 17], rel=1e-5)


def test_cells_of_another_layer_are_an_error(toy_study):
    """Their units would be others."""
    table = parquet.read(toy_study.cells, cells_job.FOLDS_SCHEMA)
    twice = {name: column.to_pylist() * 2 for name, column in zip(table.column_names, table.columns, strict=True)}
    parquet.write(toy_study.cells, twice | {"unit": list(range(16))}, cells_job.FOLDS_SCHEMA)
    with pytest.raises(StudyError, match=r"cells\.parquet: 16 units, but the layer has 8; make it again"):
        job.prepare(toy_study.grid)


def test_a_unit_that_is_not_there_is_an_error():
    """Cells of another layer must not pass."""
    with pytest.raises(IndexError):
        ablate(torch.ones(1, 4), np.array([4]), 0.0)


def _masked(network, x, depth, mask):
    """Scores of the whole network, as built and untraced, with the output of its `depth`-th non-linearity masked.

    Non-linearities are counted as they run: a ResNet block calls one module three times.
    """
    calls, handles = [], []

    def hook(module, given, output):
        calls.append(module)
        return output * mask if len(calls) - 1 == depth else None

    for module in network.modules():
        if isinstance(module, torch.nn.ReLU | torch.nn.ReLU6):
            handles.append(module.register_forward_hook(hook))
    try:
        return network(x)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "last"])
@pytest.mark.parametrize("model", BUILDERS)
def test_the_tail_equals_the_masked_network(model, memory_format, random_network, images):
    """At every layer, half of the units at random ablated: bit by bit the scores of a full forward with a mask.

    The reference knows nothing of torch.fx. None and all of the units likewise, and the ablations act.
    """
    x = images[:2].to(memory_format=memory_format)
    network, reference = (random_network(model).to(memory_format=memory_format) for _ in range(2))
    traced = tracing.trace(network)
    generator = np.random.default_rng(0)
    with torch.inference_mode():
        whole = reference(x)
        for layer in layers.find(network, traced, images[:1]):
            cut = cuts.cut(traced, layer.node)
            first, *rest = cut.prefix(x)
            half = generator.permutation(layer.units)[: layer.units // 2]
            for units in (NONE, half, np.arange(layer.units)):
                mask = torch.ones(layer.units)
                mask[torch.from_numpy(units)] = 0
                found = cut.tail(ablate(first, units, 0.0), *rest)
                expected = _masked(reference, x, layer.depth, mask.view(first.shape[1:]))
                assert torch.equal(found, expected), (layer.name, len(units))
                assert torch.equal(found, whole) == (len(units) == 0), (layer.name, len(units))


def _masked_function(network, x, depth, mask):
    """The same for a network whose non-linearities are calls of `F.relu`."""
    calls, relu = [], F.relu

    def masked(value, inplace=False):
        calls.append(value)
        return relu(value) * mask if len(calls) - 1 == depth else relu(value)

    with mock.patch.object(F, "relu", masked):
        return network(x)


@pytest.mark.parametrize(
    ("model", "size", "reference"),
    [
        ("alexnet", 64, _masked),
        ("vgg16", 32, _masked),
        ("mobilenet_v2", 64, _masked),
        pytest.param("resnet101", 64, _masked, marks=pytest.mark.slow),
        ("caffe_alexnet", 227, _masked),
        ("theano_alexnet", 227, _masked),
        ("googlenet", 64, _masked_function),
    ],
)
def test_the_engine_equals_the_masked_network(model, size, reference, random_network, monkeypatch):
    """The engine, with all that it does for speed, at every layer against a full forward of the network as it was built.

    Scores are equal up to rounding, ranks are equal, and the ablations act.
    """
    # Small images too go by tiles here.
    monkeypatch.setattr(engine, "SHARE", np.inf)
    network = random_network(model)
    traced = tracing.trace(copy.deepcopy(network))
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    last = x.contiguous(memory_format=torch.channels_last)
    generator, labels = np.random.default_rng(0), torch.arange(2)
    with torch.inference_mode():
        whole, moved = network(x), 0
        found = layers.find(network, traced, x[:1])
        traced = engine.hasten(engine.fold(traced)).to(memory_format=torch.channels_last)
        for layer in found:
            cut = cuts.cut(traced, layer.node)
            first, *rest = cut.prefix(last)
            units = generator.permutation(layer.units)[: layer.units // 2]
            mask = torch.ones(layer.units)
            mask[torch.from_numpy(units)] = 0
            ablated = cut.tail(ablate(first, units, 0.0), *rest)
            expected = reference(network, x, layer.depth, mask.view(first.shape[1:]))
            torch.testing.assert_close(ablated, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
            assert torch.equal(scores.ranks(ablated, labels), scores.ranks(expected, labels)), layer.name
            moved += not torch.allclose(expected, whole, rtol=0, atol=1e-3 * whole.abs().max().item())
    # Late layers of small images can be dead throughout.
    assert moved > len(found) / 2


def _on_a_gpu(network):
    """Have the parameters and buffers of a network, and nothing else of it, on a GPU; what `Module.to` moves."""
    for module in network.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None:
                    kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
    return network


@pytest.mark.parametrize("model", ["alexnet", "vgg16_bn", "mobilenet_v2", "resnet101", "caffe_alexnet", "googlenet"])
@torch.inference_mode()
def test_all_is_computed_where_the_network_is(model, random_network):
    """With torch's tensors that have no content, only a device: an operation of two devices is an error, as on a GPU."""
    network, size = random_network(model), 227 if model == "caffe_alexnet" else 64
    found = [layer.node for layer in layers.find(network, tracing.trace(network), torch.zeros(1, 3, size, size))]
    traced, places = engine.fold(tracing.trace(network)), {}
    with FakeTensorMode():
        _on_a_gpu(traced)
        x = torch.randn(2, 3, size, size)
        with pytest.raises(RuntimeError, match="same device"):
            traced(x)
        x = networks_job.to_device(x, torch.device("cuda"))
        logits = [activations.record(traced, x, found, lambda node, value: places.update({node: value.device.type}))]
        for node in found[:: -(-len(found) // 12)]:
            cut = cuts.cut(traced, node)
            first, *rest = cut.prefix(x)
            logits.append(cut.tail(ablate(first, np.arange(5), 0.0), *rest))
        # What is kept in files and of the scores is made of these.
        assert {value.device.type for value in logits} == {"cuda"}
        assert scores.log_probabilities(logits[0], torch.zeros(2).long().to("cuda")).device.type == "cuda"
    assert places == dict.fromkeys(found, "cuda")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors' kernels may differ in the last bits")
@torch.inference_mode()
def test_a_cut_in_batches_gives_the_bits_of_a_whole_pass(monkeypatch):
    """Two batches before the cut and one behind it, as the jobs have them, through convolutions of every kind."""
    network = randomised("alexnet", 1000)
    x = torch.randn(33, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    found = layers.find(network, tracing.trace(copy.deepcopy(network)), x[:1])
    rows = {layer.name: asdict(layer) | {"units": layer.units} for layer in found}
    traced = engine.hasten(engine.fold(tracing.trace(network))).to(memory_format=torch.channels_last)
    whole = traced(networks_job.to_device(x, "cpu"))
    monkeypatch.setattr(networks_job, "BATCH_BYTES", 4 * 17 * rows["conv1"]["units"])
    for name in ("conv3", "conv5", "dense1"):
        parts = cuts.cut(traced, rows[name]["node"])
        (kept,) = job._alive(parts.prefix, rows, len(x), x.__getitem__, torch.device("cpu"))
        deeper = [row for row in rows.values() if row["depth"] >= rows[name]["depth"]]
        batches = networks_job.batches(len(x), rows.values()), networks_job.batches(len(x), deeper)
        assert list(map(len, batches)) == [2, 1]
        assert torch.equal(torch.cat([parts.tail(kept[batch]) for batch in batches[1]]), whole), name


@pytest.mark.parametrize("model", BUILDERS)
def test_openvinos_tail_gives_the_same_ranks(model, random_network, images):
    """At the first, the middle and the last layer, for any number of images and from two threads, as torch's tail."""
    pytest.importorskip("openvino", reason="optional: pip install -r envs/openvino.txt")
    network = random_network(model)
    traced = tracing.trace(network)
    found = layers.find(network, traced, images[:1])
    traced = engine.fold(traced).to(memory_format=torch.channels_last)
    labels = torch.arange(12) % 10
    # Compiling takes seconds a layer.
    for layer in (found[0], found[len(found) // 2], found[-1]):
        cut = cuts.cut(traced, layer.node)
        with torch.inference_mode():
            first, *rest = cut.prefix(images.contiguous(memory_format=torch.channels_last))
            alive = ablate(first, np.arange(layer.units // 2), 0.0), *rest
            expected = cut.tail(*alive)
            tail = openvino.Tail(cut.tail, tuple(part[:5] for part in alive))
        with ThreadPoolExecutor(2) as pool:
            scored = list(pool.map(lambda _, tail=tail, alive=alive: tail(*alive), range(4)))
        assert all(torch.equal(one, scored[0]) for one in scored)
        torch.testing.assert_close(scored[0], expected, rtol=0, atol=1e-4 * expected.abs().max().item())
        assert torch.equal(scores.ranks(scored[0], labels), scores.ranks(expected, labels)), layer.name


def test_openvino_that_is_not_installed_is_an_error(monkeypatch):
    """It is optional, and the message says where it is."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(StudyError, match=r"openvino is not installed; `pip install -r envs/openvino\.txt`"):
        openvino.Tail(torch.nn.Identity(), (torch.zeros(1),))


TRANSFORM = {"resize": None, "crop": 32, "mean": [0.5] * 3, "std": [0.25] * 3}


def test_an_ablation_of_dead_units_changes_nothing(tmp_path, monkeypatch, random_network):
    """Through the jobs, to the last bit, though the batches differ; channel 0 is dead, and it is the cell."""
    network = random_network("small_alexnet")
    with torch.no_grad():
        network.features[6].bias[0] = -1000
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "data" / "a").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(35):
        pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "a" / f"{i:02d}.png")
    given = {f"path_to_{name}": str(tmp_path / f"{name}.parquet") for name in ("images", "layers", "baseline", "cells")}
    opening = {"dataset": "folder", "path": str(tmp_path / "data")}
    images_job.list_images(
        given["path_to_images"], **opening, labels={"a": 4}, study=35, train=False, split_seed=0, fold_seed=0
    )
    source = NetworkSource(
        "small_alexnet", 10, str(tmp_path / "weights.pt"), ImageSource(**opening, transform=TRANSFORM)
    )
    networks_job.list_layers(given["path_to_layers"], source=source, chosen=["conv3"], cells=16, device="cpu")
    file = str(tmp_path / "conv3" / "a.parquet")
    # Two batches here, and one for the tail.
    monkeypatch.setattr(networks_job, "BATCH_BYTES", 20 * 4 * 16 * 16 * 16)
    activations_job.extract(
        path_to_images=given["path_to_images"],
        path_to_layers=given["path_to_layers"],
        paths_to_activations={"conv3": file},
        paths_to_means={},
        path_to_baseline=given["path_to_baseline"],
        class_id="a",
        source=source,
        dtype="float32",
        folds=False,
        device="cpu",
    )
    activation = activations_job.load(file).values
    assert activation.shape == (35, 96 * 4 * 4)
    assert not activation[:, :16].any()

    count = activation.shape[1]
    columns = dict.fromkeys(cells_job.SCHEMA.names, [0] * count)
    columns |= {"unit": list(range(count)), "cell": ["s0m0"] * 16 + ["s0m1"] * (count - 16)}
    columns |= {"magnitude_bin": [0] * 16 + [1] * (count - 16)}
    parquet.write(given["path_to_cells"], columns, cells_job.SCHEMA)

    grid = job.Grid(
        network="n", layer="conv3", class_id="a", others=(), paths_to_others=(), **given, source=source, device="cpu"
    )
    out = str(tmp_path / "ablation.parquet")
    how = {"kind": "cell", "seed": None, "protocols": ["published"], "interventions": []}
    job.ablate(grid, path_to_ablation=out, cell="s0m0", **how)
    table = parquet.read(out, job.SCHEMA, optional=job.OPTIONAL).to_pydict()
    assert table["rank_ablated"] == table["rank_baseline"]
    assert table["image_id"] == images_job.rows(given["path_to_images"])["image_id"].tolist()
    assert table["log_p_ablated"] == table["log_p_baseline"]
    assert set(table["energy"]) == {0.0}
    # The tail's weights are the network's: what is kept for a grid counts its activations alone.
    baseline = cache.stamp(given["path_to_baseline"])
    (kept,) = (value for key, value in cache._store.items() if key[0] == "cut" and key[1] == baseline)
    assert cache._size(kept) < 1.1 * 4 * activation.size

    # Negative control: the rest of the layer is needed, and holds all its energy.
    job.ablate(grid, path_to_ablation=out, cell="s0m1", **how)
    table = parquet.read(out, job.SCHEMA, optional=job.OPTIONAL).to_pydict()
    assert table["rank_ablated"] != table["rank_baseline"]
    assert table["energy"] == table["energy_layer"] and min(table["energy"]) > 0
