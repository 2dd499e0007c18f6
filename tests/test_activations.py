"""Activations: one pass, each layer in order, the same whatever the batch, the threads and the memory format."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import write_activations
from jobs import activations as job
from jobs import parquet
from readout import StudyError, activations, networks, scores
from readout.relatives import BUILDERS


def _record(traced, x, nodes):
    kept = {}
    logits = activations.record(traced, x, nodes, lambda node, value: kept.setdefault(node, []).append(value))
    return logits, kept


def test_activations_by_hand(toy, toy_target, toy_others):
    """The numbers of the toy's docstring."""
    traced = networks.trace(toy)
    logits, kept = _record(traced, torch.cat([toy_target, toy_others]), ["relu"])
    assert kept["relu"][0].flatten(1).tolist() == [
        [4, 2, 0, 0, 1, 0, 0, 0],
        [2, 0, 0, 2, 3, 0, 0, 0],
        [0, 1, 2, 0, 0, 4, 0, 0],
        [2, 1, 0, 0, 0, 0, 0, 2],
    ]
    assert logits.tolist() == [[5, 3, 2], [5, 1, 6], [0, 6, 4], [2, 2, 4]]


@pytest.mark.parametrize("model", BUILDERS)
def test_each_layer_is_kept_once_and_in_order(model, random_network, images):
    """What is kept equals what the network's own non-linearities put out; the scores are the network's own."""
    own = []
    network = random_network(model)
    for module in network.modules():
        if isinstance(module, networks.MODULES):
            # Cloned, since the network as built may overwrite it.
            module.register_forward_hook(lambda m, x, y: own.append(y.clone()))
    with torch.inference_mode():
        expected = network(images[:2])
    traced = networks.trace(random_network(model))
    nodes = [layer.node for layer in networks.layers(random_network(model), traced, images[:1])]
    logits, kept = _record(traced, images[:2], nodes)
    assert torch.equal(logits, expected)
    assert list(kept) == nodes
    assert len(own) == len(nodes)
    for node, reference in zip(nodes, own, strict=True):
        assert len(kept[node]) == 1
        assert torch.equal(kept[node][0], reference)


def test_only_the_asked_nodes_are_kept(random_network, images):
    """A study may choose some of the layers."""
    traced = networks.trace(random_network("small_alexnet"))
    assert list(_record(traced, images[:1], ["features_4", "classifier_1"])[1]) == ["features_4", "classifier_1"]


@pytest.fixture
def threads():
    """Lets a test set torch's thread count."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _close(found, reference):
    # The last bits depend on the order of float32 sums, and errors add up over the layers. Seen: up to 1.1e-5 of the
    # largest value (MobileNetV2, whose ReLU6 hides how large the sums are).
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-4 * reference.abs().max().item())


@pytest.mark.parametrize("model", BUILDERS)
@pytest.mark.parametrize("way", ["batch 1", "batch 7", "2 threads", "channels last"])
def test_scores_and_activations_do_not_depend_on_the_way(model, way, random_network, images, threads):
    """Batch size, thread count and memory format move the last bits at most."""
    threads(1)
    network = random_network(model)
    traced = networks.trace(network)
    nodes = [layer.node for layer in networks.layers(network, traced, images[:1])]
    reference, kept = _record(traced, images, nodes)
    size = len(images)
    if way == "2 threads":
        threads(2)
    elif way == "channels last":
        traced, images = (part.to(memory_format=torch.channels_last) for part in (traced, images))
    else:
        size = int(way.removeprefix("batch "))
    parts = [_record(traced, batch, nodes) for batch in images.split(size)]
    logits = torch.cat([part[0] for part in parts])
    _close(logits, reference)
    labels = torch.arange(len(images)) % 10
    assert torch.equal(scores.ranks(logits, labels), scores.ranks(reference, labels))
    for node in nodes:
        _close(torch.cat([part[1][node][0] for part in parts]), kept[node][0])


@given(images=st.integers(1, 12), units=st.integers(1, 20), rows=st.integers(1, 12), seed=st.integers(0, 99))
def test_activations_come_back(tmp_path_factory, images, units, rows, seed):
    """To the bit and in order, whatever the pieces; subnormal numbers and all."""
    generator = np.random.default_rng(seed)
    ids, fold = generator.permutation(1000)[:images], generator.integers(0, 5, images)
    values = np.maximum(generator.normal(size=(images, units)), 0).astype(np.float32)
    values[0, 0] = 1e-45
    file = tmp_path_factory.mktemp("activations") / "a.parquet"
    write_activations(file, values, image_id=ids, fold=fold, rows=rows)
    found = job.load(file)
    assert np.array_equal(found.image_id, ids)
    assert np.array_equal(found.fold, fold)
    assert found.values.dtype == np.float32
    assert np.array_equal(found.values, values)


def test_activations_can_be_read_without_the_package(tmp_path):
    """The interface that users join in notebooks: image_id int32, activation a list of fixed size of float32."""
    write_activations(tmp_path / "a.parquet", np.arange(6, dtype=np.float32).reshape(2, 3), image_id=np.array([7, 8]))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.field("image_id").type == pa.int32()
    assert table.schema.field("activation").type == pa.list_(pa.float32(), 3)
    assert table["activation"].to_pylist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("kind", ["another table", "float64", "lists of any size"])
def test_another_table_is_no_activations(tmp_path, kind):
    """The message names the file and says what was expected."""
    values = {
        "another table": pa.array([1, 2]),
        "float64": pa.array([[1.0], [2.0]], pa.list_(pa.float64(), 1)),
        "lists of any size": pa.array([[1.0], [2.0]], pa.list_(pa.float32())),
    }[kind]
    table = pa.table(
        {"image_id": pa.array([1, 2], pa.int32()), "fold": pa.array([0, 1], pa.int8()), "activation": values}
    )
    with parquet.Writer(tmp_path / "a.parquet", table.schema) as writer:
        writer.write(table)
    with pytest.raises(StudyError, match=r"a\.parquet: is no table of activations.*make it again"):
        job.load(tmp_path / "a.parquet")
