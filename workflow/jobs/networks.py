"""Step `networks`: layers of a network, training where the study asks for it, and loading for the other steps."""

import gc
import io
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from inputs import builders, checkpoints, weights
from inputs.sources import ImageSource, NetworkSource
from jobs import images
from readout import StudyError, cuts, layers, planted, scores, soundness, tracing, training
from readout.engine import channels_last, fold, hasten
from runtime import cache, files, parquet, process, subprocesses

LAYERS = pa.schema(
    [
        ("layer", pa.string()),
        ("node", pa.string()),
        ("module", pa.string()),
        ("depth", pa.int32()),
        ("axes", pa.string()),
        ("shape", pa.list_(pa.int32())),
        ("units", pa.int32()),
    ]
)
AXES = " x "
"""Between the names of a layer's axes, in the order of its units."""
TRUTH = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("unit", pa.int32()),
        ("role", pa.string()),
        ("half", pa.string()),
        ("class_id", pa.string()),
    ]
)
ACCURACY = pa.schema([("split", pa.string()), ("top1", pa.float64()), ("top5", pa.float64()), ("images", pa.int32())])

BATCH_BYTES = 64 << 20
"""Bytes of the largest layer in one pass."""
LEAST_IMAGES = 16
"""Images from which the kernels' choice, and with it a result's last bits, no longer depends on how many there are."""


def torch_device(choice: str) -> torch.device:
    """The device of a config: `cpu`, `cuda` or `auto`; `openvino` is the CPU to all but the tails of ablations."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise StudyError("device: cuda is asked for, but torch finds no GPU; set device to cpu or auto")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda":
        # Ranks are compared exactly: no TF32, and the same kernels every time.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device("cpu" if choice == "openvino" else choice)


def _check_source(source: NetworkSource) -> None:
    """Refuse a builder that is no longer the one that the study's jobs say, which would be told of the results."""
    if source.builder and builders.digest(source.model) != source.builder:
        raise StudyError(
            f"model {source.model}: its source has changed since the study was planned; start the run again"
        )


def network(source: NetworkSource) -> torch.nn.Module:
    """The network with weights from a file, published, its own, drawn (`random-<seed>`), planted or yet untrained."""
    _check_source(source)
    if source.weights is None or source.weights == weights.PLANTED:
        return checkpoints.build(source.model, source.outputs, seed=0)
    if file := weights.file(source.model, source.weights):
        return checkpoints.load(source.model, source.outputs, file)
    if source.weights == weights.OWN:
        return checkpoints.own(source.model, source.outputs)
    if drawn := weights.DRAWN.fullmatch(source.weights):
        return checkpoints.build(source.model, source.outputs, int(drawn[1]))
    return checkpoints.download(source.model, source.weights)


def prepared(source: NetworkSource) -> ImageSource:
    """A network's images with their transform: as the config says, or as the publisher of its weights does."""
    if source.images.transform is not None:
        return source.images
    return replace(source.images, transform=checkpoints.published_transform(source.model, source.weights))


def _blank(source: NetworkSource) -> torch.Tensor:
    """An image [1, 3, H, W] of the size that the network takes."""
    size = prepared(source).transform["crop"]
    return torch.zeros(1, 3, size, size)


def check_layers(model: str, known: Collection[str], chosen: Iterable[str]) -> None:
    """Refuse layers that the traced network does not have."""
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise StudyError(f"layers: {model} has no layer {', '.join(unknown)}; its layers are {', '.join(known)}")


def trace(
    source: NetworkSource,
    network: torch.nn.Module,
    export: Callable[[torch.nn.Module, torch.Tensor], bytes] = tracing.exported,
) -> torch.fx.GraphModule:
    """The graph of a network (`tracing.trace`); StudyError where it cannot be studied (`readout.soundness`)."""
    blank = _blank(source)
    size = blank.shape[-1]
    try:
        # Before: to trace a network takes its in-place operations out of its modules.
        expected = soundness.scores(network, size, source.outputs)
        traced = tracing.trace(network, blank, export)
        soundness.check_graph(traced, size, expected)
    except StudyError as error:
        raise StudyError(f"model {source.model}: {error}") from error
    except Exception as error:
        said = builders.told(source.model, error) if source.builder else f"{type(error).__name__}: {error}"
        raise StudyError(
            f"model {source.model}: fails on images of {size} pixels ({' '.join(said.split())}); transform.crop is "
            "their size"
        ) from error
    return traced


@torch.inference_mode()
def _check_weights(source: NetworkSource, built: torch.nn.Module) -> None:
    """Refuse a builder whose weights are others each time, since every process builds the network anew, or by no seed.

    The latter would pass for an untrained network and may be a trained one.
    """
    again, tried = network(source), soundness.images(_blank(source).shape[-1])
    different = soundness.differing(built, again)
    if not different and not soundness.same(again(tried), built(tried)):
        different = ["what is no weight of it"]
    if different:
        raise StudyError(
            f"model {source.model}: {different[0]} has other values each time that the network is built; draw them by "
            "torch's own generator, whose seed is set before"
        )
    drawn = weights.DRAWN.fullmatch(source.weights or "")
    if drawn and not soundness.differing(built, checkpoints.build(source.model, source.outputs, int(drawn[1]) + 1)):
        raise StudyError(
            f"weights random: {source.model} gives the same weights by any seed, so that they are not drawn; leave "
            "them to torch's own generator, or say `weights: own`"
        )


def list_layers(
    path_to_layers: str,
    *,
    source: NetworkSource,
    chosen: Sequence[str],
    cells: int,
    device: str,
    made: str | None = None,
) -> str:
    """Write `layers.parquet`: all layers on the traced graph; and refuse early what would fail late.

    `chosen` are the layers that the study is planned with, `cells` the number of cells of a grid, `device` the one that
    the config asks for.
    """
    torch_device(device)
    image, built = _blank(source), network(source)
    traced = trace(source, built, _exported_apart(source))
    if source.builder:
        _check_weights(source, built)
    found = layers.find(built, traced, image, chosen)
    known = {layer.name: layer for layer in found}
    check_layers(source.model, known, chosen)
    small = [name for name in chosen if known[name].units < cells]
    if small:
        raise StudyError(
            f"grid: {cells} cells need as many units, {source.model} has {known[small[0]].units} in {small[0]}; "
            "choose fewer bins or leave the layer out"
        )
    for name in chosen:
        cuts.check(traced, known[name].node)
    _check_engine(source, traced, {name: known[name].node for name in chosen})
    rows = [
        asdict(layer) | {"layer": layer.name, "axes": AXES.join(layer.axes), "units": layer.units} for layer in found
    ]
    parquet.write(path_to_layers, rows, LAYERS, made)
    # Graphs refer to themselves: without this their weights stay until some later collection.
    del traced
    gc.collect()
    return f"{len(rows)} layers, {sum(layer.units for layer in found)} units"


def list_roles(path_to_truth: str, *, network: str, model: str, made: str | None = None) -> None:
    """Write `truth.parquet` of a planted network: the role of each unit, and the class whose unit it is, if any."""
    rows = [
        {"network": network, "layer": planted.LAYER, "unit": i, **asdict(unit)}
        for i, unit in enumerate(planted.units(null=planted.MODELS[model]))
    ]
    parquet.write(path_to_truth, rows, TRUTH, made)


def roles(path_to_truth: str, *, layer: str, class_id: str, layer_units: int) -> dict[str, np.ndarray]:
    """The role groups of a target at a layer, by `truth.parquet`: units by name (`readout.planted.roles`).

    None at a layer whose units have no roles; StudyError where not each of its units has one.
    """
    table = parquet.read(path_to_truth, TRUTH, optional=("half", "class_id"))
    rows = [row for row in table.to_pylist() if row["layer"] == layer]
    if rows and [row["unit"] for row in rows] != list(range(layer_units)):
        raise StudyError(
            f"{path_to_truth}: is not of the {layer_units} units of {layer}; {parquet.again(path_to_truth)}"
        )
    return planted.roles(class_id, [planted.Planted(row["role"], row["class_id"], row["half"]) for row in rows])


def _accuracy(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, split: str) -> dict:
    with torch.inference_mode():
        rank = torch.cat(
            [scores.ranks(network(part), labels) for part, labels in zip(x.split(256), y.split(256), strict=True)]
        )
    return {
        "split": split,
        "top1": (rank == 0).double().mean().item(),
        "top5": (rank < 5).double().mean().item(),
        "images": len(rank),
    }


def train(
    path_to_images: str,
    path_to_accuracy: str,
    *,
    source: Mapping,
    recipe: Mapping,
    made: str | None = None,
) -> None:
    """Train a network on the training images; write its weights and its accuracy on both splits.

    `source` has the fields of a `NetworkSource`, whose weights are the file to write; `recipe` holds the arguments of
    `readout.training.train`.
    """
    source = NetworkSource.of(source)
    _check_source(source)
    sets = {}
    for split in ("train", "study"):
        listed = images.rows(path_to_images, split=split)
        x = images.load(listed["source"], source.images)
        sets[split] = x.contiguous(memory_format=torch.channels_last), torch.tensor(listed["label"]).long()
    network = channels_last(checkpoints.build(source.model, source.outputs, recipe["seed"]))
    start = time.perf_counter()
    training.train(network, *sets["train"], **recipe)
    seconds = time.perf_counter() - start
    # Before, a network may be one whose scores are all alike, of which nothing can be told.
    trace(source, network)
    print(f"{source.model}: {recipe['epochs']} epochs of {len(sets['train'][1])} images in {seconds:.1f} s")
    rows = [_accuracy(network, *sets[split], split) for split in sets]
    print("\n".join(f"{row['split']}: top-1 {row['top1']:.4f} over {row['images']} images" for row in rows))
    # In memory first: of a full disk torch says no more than that writing failed.
    content = io.BytesIO()
    torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, content)
    with files.whole(source.weights) as partial:
        partial.write_bytes(content.getbuffer())
    parquet.write(path_to_accuracy, rows, ACCURACY, made)


def engine(source: NetworkSource, *, device: str) -> torch.fx.GraphModule:
    """The traced network as the engine runs it on the device of a config, shared by the jobs of this process.

    Batch norm is folded, the memory is channels-last, and on a CPU some convolutions go by tiles: the same scores up to
    rounding, in less time.
    """

    def make() -> torch.fx.GraphModule:
        where = torch_device(device)
        built = network(source).to(where)
        traced = tracing.trace(built, _blank(source).to(where), _exported_apart(source))
        # OpenVINO chooses its ways by itself, as the libraries of GPUs do.
        return _prepared(traced, hasty=where.type == "cpu" and device != "openvino").to(where)

    file = weights.file(source.model, source.weights)
    size = prepared(source).transform["crop"]
    key = cache.stamp(file) if file else source.weights
    return cache.shared(("network", key, source.model, source.builder, source.outputs, size, device), make)


def _prepared(traced: torch.fx.GraphModule, hasty: bool) -> torch.fx.GraphModule:
    """A traced network made ready to run, in place."""
    fold(traced)
    # Gradients are taken with respect to layers and images alone, never to the weights.
    traced.requires_grad_(False)
    return channels_last(hasten(traced) if hasty else traced)


def _check_engine(source: NetworkSource, traced: torch.fx.GraphModule, nodes: Mapping[str, str]) -> None:
    """Refuse layers, given by their nodes, and networks that are others in the engine; the graph is changed."""
    tried = soundness.images(_blank(source).shape[-1])
    expected, before = soundness.values(traced, tried, nodes.values())
    drawn = weights.DRAWN.fullmatch(source.weights or "")
    if drawn and torch.equal(expected, expected[:1].expand_as(expected)):
        raise StudyError(
            f"model {source.model}: gives the same scores for every image; the layer that gives them is drawn as "
            "zeros, perhaps; take weights that were trained"
        )
    engine = _prepared(traced, hasty=True)
    there = {node.name for node in engine.graph.nodes}
    if gone := [layer for layer, node in nodes.items() if node not in there]:
        raise StudyError(
            f"layers: {gone[0]}: is one with the batch norm behind it when {source.model} is run; choose the norm, or "
            "the layer behind it"
        )
    last = to_device(tried, torch.device("cpu"))
    found, after = soundness.values(engine, last, nodes.values())
    different = [layer for layer, node in nodes.items() if not soundness.close(after[node], before[node])]
    if different or not soundness.close(found, expected):
        raise StudyError(
            f"model {source.model}: {different[0] if different else 'each score'} is another with images in another "
            "layout of memory, in which networks are run; use `reshape`, and nothing that depends on strides"
        )
    # Behind the first layer lies nearly the whole network, in a graph of its own whose ReLUs work in place.
    first = next(iter(nodes), None)
    if first and not soundness.same(cuts.through(engine, nodes[first], last), found):
        raise StudyError(
            f"model {source.model}: cut at {first} it gives other scores than as a whole; choose another first layer, "
            "and please report it"
        )


def _exported_apart(source: NetworkSource) -> Callable[[torch.nn.Module, torch.Tensor], bytes]:
    """What `tracing.exported` does, in a process of its own, which builds the network again."""

    def export(_network: torch.nn.Module, _image: torch.Tensor) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "graph.pt2")
            subprocesses.run("jobs.networks", {"job": "export", "path_to_graph": str(path), "source": source})
            return path.read_bytes()

    return export


def list_names(path_to_names: str, *, source: Mapping) -> None:
    """Write what can be studied of a network, by name, as JSON: a list of the fields of `Named`.

    `source` has the fields of a `NetworkSource`; the weights matter only for the size of images that they say.
    """
    of = NetworkSource.of(source)
    built, image = checkpoints.build(of.model, of.outputs, seed=0), _blank(of)
    named = layers.names(built, trace(of, built), image)
    with files.whole(path_to_names) as partial_file:
        partial_file.write_text(json.dumps([asdict(each) for each in named]), encoding="utf-8")


def export(path_to_graph: str, *, source: Mapping) -> None:
    """Write the graph of a network that torch.fx cannot trace; `source` has the fields of a `NetworkSource`."""
    of = NetworkSource.of(source)
    Path(path_to_graph).write_bytes(tracing.exported(network(of).eval(), _blank(of)))


def to_device(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Images [N, 3, H, W] where and how the engine wants them."""
    return images.to(device, memory_format=torch.channels_last)


def batches(count: int, rows: Iterable[Mapping]) -> list[slice]:
    """Slices of `count` images for passes through these rows of `layers.parquet`, nearly equal, the longest first.

    The memory of one serves the next. Bounded by the bytes of the largest layer, but not below `LEAST_IMAGES`, so that
    results do not depend on them.
    """
    largest = max(row["units"] for row in rows)
    size = max(1, BATCH_BYTES // (4 * largest))
    parts = max(1, min(-(-count // size), count // LEAST_IMAGES))
    ends = [-(-count * i // parts) for i in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def channels(row: Mapping) -> layers.Channels:
    """The channels of a layer, by its row of `layers.parquet`."""
    return layers.Channels.of(row["axes"].split(AXES), row["shape"])


def layer_nodes(
    path_to_layers: str, chosen: Iterable[str] = (), traced: torch.fx.GraphModule | None = None
) -> dict[str, dict]:
    """Rows of `layers.parquet` by layer; StudyError where `chosen` are not all there, or not all nodes in `traced`."""
    table: pa.Table = cache.shared(
        ("layers", cache.stamp(path_to_layers)), lambda: parquet.read(path_to_layers, LAYERS)
    )
    rows = table.to_pylist()
    found = {row["layer"]: row for row in rows}
    nodes = {row["node"] for row in rows}
    if not (
        len(found) == len(nodes) == len(rows)
        and found.keys() >= set(chosen)
        and (traced is None or nodes <= {node.name for node in traced.graph.nodes})
        and [row["depth"] for row in rows] == list(range(len(rows)))
        and all(row["units"] == math.prod(row["shape"]) > 0 for row in rows)
        and all(len(row["axes"].split(AXES)) == len(row["shape"]) for row in rows)
    ):
        raise StudyError(f"{path_to_layers}: the layers are not those of the network; {parquet.again(path_to_layers)}")
    return found


if __name__ == "__main__":
    process.prepare()
    torch.use_deterministic_algorithms(True)
    # In its order: what a builder prints would come behind the error, whose line is to be the last.
    sys.stdout = sys.stderr
    subprocesses.main(lambda job, **settings: {"train": train, "export": export, "names": list_names}[job](**settings))
