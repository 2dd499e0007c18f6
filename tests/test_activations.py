"""Activations: one pass, each layer in order, the same whatever the batch, the threads and the memory format."""

import platform

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import randomised, write_activations
from inputs.sources import ImageSource, NetworkSource
from jobs import activations as job
from jobs import images as images_job
from jobs import networks as networks_job
from readout import StudyError, activations, engine, layers, scores, tracing
from readout.relatives import BUILDERS
from runtime import cache, parquet


def _record(traced, x, nodes):
    kept = {}
    logits = activations.record(traced, x, nodes, lambda node, value: kept.setdefault(node, []).append(value))
    return logits, kept


def test_activations_by_hand(toy, toy_target, toy_others):
    """The numbers of the toy's docstring."""
    traced = tracing.trace(toy)
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
        if isinstance(module, tracing.MODULES):
            # Cloned, since the network as built may overwrite it.
            module.register_forward_hook(lambda m, x, y: own.append(y.clone()))
    with torch.inference_mode():
        expected = network(images[:2])
    traced = tracing.trace(random_network(model))
    nodes = [layer.node for layer in layers.find(random_network(model), traced, images[:1])]
    logits, kept = _record(traced, images[:2], nodes)
    assert torch.equal(logits, expected)
    assert list(kept) == nodes
    assert len(own) == len(nodes)
    for node, reference in zip(nodes, own, strict=True):
        assert len(kept[node]) == 1
        assert torch.equal(kept[node][0], reference)


def test_only_the_asked_nodes_are_kept(random_network, images):
    """A study may choose some of the layers."""
    traced = tracing.trace(random_network("small_alexnet"))
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


def test_an_error_in_keeping_is_told_as_it_is(random_network, images):
    """A disk that refuses a layer's file: torch would add the node that was executed, and where to debug it."""

    def keep(node, value):
        raise StudyError("no room")

    network = random_network("alexnet")
    with pytest.raises(StudyError, match=r"^no room$"):
        activations.record(tracing.trace(network), images[:1], ["features_1"], keep)


@pytest.mark.parametrize("model", BUILDERS)
@pytest.mark.parametrize("way", ["batch 1", "batch 7", "2 threads", "channels last"])
def test_scores_and_activations_do_not_depend_on_the_way(model, way, random_network, images, threads):
    """Batch size, thread count and memory format move the last bits at most."""
    threads(1)
    network = random_network(model)
    traced = tracing.trace(network)
    nodes = [layer.node for layer in layers.find(network, traced, images[:1])]
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


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors' kernels may differ in the last bits")
@pytest.mark.parametrize(
    ("model", "outputs", "size"), [*((model, 10, 32) for model in BUILDERS), ("alexnet", 1000, 160)]
)
def test_the_engine_gives_the_same_bits_whatever_the_batch(model, outputs, size, threads):
    """From sixteen images a batch; a negative control shows that the numbers could differ."""
    threads(1)
    traced = engine.hasten(engine.fold(tracing.trace(randomised(model, outputs)))).to(memory_format=torch.channels_last)
    x = torch.randn(100, 3, size, size, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    nodes = [node.name for node in traced.graph.nodes if tracing.is_layer(traced, node)]
    reference, kept = _record(traced, x, nodes)
    for size in (16, 17, 25, 50):
        # As networks.batches does it: no batch below sixteen.
        parts = [_record(traced, x[rows], nodes) for rows in torch.arange(100).tensor_split(100 // size)]
        assert torch.equal(torch.cat([part[0] for part in parts]), reference), size
        for node in nodes:
            assert torch.equal(torch.cat([part[1][node][0] for part in parts]), kept[node][0]), (size, node)
    assert not torch.equal(torch.cat([_record(traced, one, [])[0] for one in x.split(1)]), reference)


@pytest.mark.parametrize(
    ("count", "units", "lengths"),
    [
        # 64 MiB hold 16,777,216 units.
        (50, 1000, [50]),
        (50, 400_000, [25, 25]),
        (50, 3_211_264, [17, 17, 16]),
        (10, 3_211_264, [10]),
        (31, 3_211_264, [31]),
        (32, 3_211_264, [16, 16]),
    ],
)
def test_batches_are_bounded_by_their_largest_layer(count, units, lengths):
    """VGG16's first layer has 3,211,264 units; sixteen images at least, or all where there are fewer."""
    found = networks_job.batches(count, [{"units": 10}, {"units": units}])
    assert [batch.stop - batch.start for batch in found] == lengths
    assert [i for batch in found for i in range(count)[batch]] == list(range(count))


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
    assert table.schema.field("activation").type == pa.list_(pa.field("element", pa.float32(), nullable=False), 3)
    assert table["activation"].to_pylist() == [[0, 1, 2], [3, 4, 5]]


@pytest.fixture
def files(tmp_path):
    """Three files of 20 images with 30 units, written seven images at a time, and their activations."""
    generator = np.random.default_rng(0)
    values = [np.maximum(generator.normal(size=(20, 30)), 0).astype(np.float32) for _ in range(3)]
    paths = [str(tmp_path / f"{i}.parquet") for i in range(3)]
    for i, (path, own) in enumerate(zip(paths, values, strict=True)):
        write_activations(path, own, image_id=np.arange(20) + 100 * i, rows=7)
    return paths, np.concatenate(values)


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["streamed", "kept"])
def test_the_units_of_a_cell_are_gathered_from_several_files(files, monkeypatch, limit):
    """The same whether whole files fit into memory or not, and only then are they kept there."""
    paths, values = files
    monkeypatch.setattr(cache, "LIMIT", limit)
    loaded = []
    monkeypatch.setattr(job, "load", lambda path, load=job.load: loaded.append(path) or load(path))
    units = np.array([0, 3, 29])
    found, counts = job.gather(paths, units, 30)
    assert np.array_equal(found.values, values[:, units])
    assert found.values.dtype == np.float32
    assert found.image_id.tolist() == [i + 100 * f for f in range(3) for i in range(20)]
    assert found.fold.tolist() == [i % 5 for i in range(20)] * 3
    assert counts.tolist() == [20, 20, 20]
    assert loaded == (paths if limit else [])


def test_half_precision_rounds_and_keeps_the_rest(tmp_path):
    """float16 has 11 bits: 1 + 2^-11 becomes 1, and 2049 becomes 2048; the units come back as float32."""
    values = np.array([[1 + 2**-11, 2049, 0, 6]], np.float32)
    write_activations(tmp_path / "a.parquet", values, dtype="float16")
    assert pq.read_schema(tmp_path / "a.parquet").field("activation").type.value_type == pa.float16()
    found, _ = job.gather([str(tmp_path / "a.parquet")], np.arange(4), 4)
    assert found.values.tolist() == [[1, 2048, 0, 6]]
    assert found.values.dtype == np.float32


@pytest.fixture
def extract(tmp_path, toy, toy_model):
    """Runs the job on two images of the toy of conftest.py; returns the tables of the layer, its means, the baseline."""
    pictures = {"0": [[4, 2, 0, 0], [1, 0, 0, 0]], "1": [[2, 0, 0, 2], [3, 0, 0, 0]]}
    (tmp_path / "data" / "a").mkdir(parents=True)
    for name, (red, green) in pictures.items():
        pixels = np.array([red, green, [0] * 4], np.uint8).T.reshape(2, 2, 3)
        Image.fromarray(pixels).save(tmp_path / "data" / "a" / f"{name}.png")
    file = {name: str(tmp_path / f"{name}.parquet") for name in ("images", "layers", "baseline")}
    opening = {"dataset": "folder", "path": str(tmp_path / "data")}
    images_job.list_images(file["images"], **opening, labels={"a": 0}, study=2, train=False, split_seed=0, fold_seed=0)

    def run(dtype: str, scale: float = 1.0):
        with torch.no_grad():
            toy.conv.weight *= scale
        torch.save(toy.state_dict(), tmp_path / "weights.pt")
        transform = {"resize": None, "crop": 2, "mean": [0.0] * 3, "std": [1 / 255] * 3}
        weights = str(tmp_path / "weights.pt")
        source = NetworkSource(toy_model, 3, weights, ImageSource(**opening, transform=transform))
        networks_job.list_layers(file["layers"], source=source, chosen=["conv1"], cells=4, device="cpu")
        written = [str(tmp_path / kind / "conv1" / "a.parquet") for kind in ("activations", "means")]
        job.extract(
            path_to_images=file["images"],
            path_to_layers=file["layers"],
            paths_to_activations={"conv1": written[0]},
            paths_to_means={"conv1": written[1]},
            path_to_baseline=file["baseline"],
            class_id="a",
            source=source,
            dtype=dtype,
            folds=True,
            device="cpu",
        )
        return [pq.read_table(path).to_pydict() for path in (*written, file["baseline"])]

    return run


@pytest.mark.parametrize("dtype", job.DTYPES)
def test_activations_and_means_through_the_job(extract, dtype):
    """On paper: [4 2 0 0, 1 0 0 0] and [2 0 0 2, 3 0 0 0]; ranks 0 and 1."""
    layer, means, baseline = extract(dtype)
    # Pixels go through float32 divisions by 255.
    assert np.array(layer["activation"]) == pytest.approx(
        np.array([[4, 2, 0, 0, 1, 0, 0, 0], [2, 0, 0, 2, 3, 0, 0, 0]]), rel=1e-6 if dtype == "float32" else 1e-3
    )
    assert means["unit"] == list(range(8))
    assert means["mean"] == pytest.approx([3, 1, 0, 1, 2, 0, 0, 0], rel=1e-6)
    assert baseline["rank"] == [0, 1]


def test_means_are_of_the_activations_as_computed(extract):
    """Kept in half precision, activations round; the means, and with them the cells, do not."""
    scale = 1 + 2**-12
    half, means, _ = extract("float16", scale)
    assert half["activation"][0][1] == 2
    assert means["mean"][1] == pytest.approx(scale, rel=1e-6)
    assert abs(means["mean"][1] - 1) > 1e-4


def test_an_activation_too_large_for_half_precision_is_an_error(extract):
    """It would become infinite, and the probes would fail far from the cause."""
    with pytest.raises(StudyError, match=r"conv1/a\.parquet.*too large for float16; set activations\.dtype to float32"):
        extract("float16", 1e5)


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
