"""Step `networks`: layers of a network, training where the study asks for it, and loading for the other steps."""

import gc
import io
import itertools
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import torch

from inputs import checkpoints, weights
from inputs.sources import ImageSource, NetworkSource
from jobs import images
from readout import StudyError, layers, models, planted, scores, tracing, training
from readout.engine import fold, hasten
from runtime import cache, files, parquet, process, subprocesses

LAYERS = pa.schema(
    [
        ("layer", pa.string()),
        ("node", pa.string()),
        ("module", pa.string()),
        ("depth", pa.int32()),
        ("channels", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("units", pa.int32()),
    ]
)
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


def network(source: NetworkSource) -> torch.nn.Module:
    """The network with weights from a file, from torchvision (`IMAGENET1K_V1`), drawn (`random-<seed>`) or planted."""
    if file := weights.file(source.model, source.weights):
        return checkpoints.load(source.model, source.outputs, file)
    if source.weights == weights.PLANTED:
        return models.build(source.model, source.outputs, seed=0)
    if drawn := weights.DRAWN.fullmatch(source.weights):
        return models.build(source.model, source.outputs, int(drawn[1]))
    return checkpoints.download(source.model, source.weights)


def prepared(source: NetworkSource) -> ImageSource:
    """A network's images with their transform: as the config says, or as torchvision says of the network's weights."""
    if source.images.transform is not None:
        return source.images
    return replace(source.images, transform=checkpoints.published_transform(source.model, source.weights))


def find_layers(network: torch.nn.Module, size: int) -> list[layers.Layer]:
    """All layers of a network for images of `size` pixels; StudyError where there is none."""
    found = layers.find(network, tracing.trace(network), torch.zeros(1, 3, size, size))
    # Graphs refer to themselves: without this their weights stay until some later collection.
    gc.collect()
    if not found:
        raise StudyError(f"{type(network).__name__}: has no ReLU or ReLU6, so there is no layer to study")
    return found


def check_layers(model: str, known: Collection[str], chosen: Iterable[str]) -> None:
    """Refuse layers that the traced network does not have."""
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise StudyError(f"layers: {model} has no layer {', '.join(unknown)}; its layers are {', '.join(known)}")


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
    size = prepared(source).transform["crop"]
    built = models.build(source.model, source.outputs, seed=0) if source.weights is None else network(source)
    found = find_layers(built, size)
    known = {layer.name: layer for layer in found}
    check_layers(source.model, known, chosen)
    small = [name for name in chosen if known[name].units < cells]
    if small:
        raise StudyError(
            f"grid: {cells} cells need as many units, {source.model} has {known[small[0]].units} in {small[0]}; "
            "choose fewer bins or leave the layer out"
        )
    rows = [asdict(layer) | {"layer": layer.name, "units": layer.units} for layer in found]
    parquet.write(path_to_layers, rows, LAYERS, made)
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
    sets = {}
    for split in ("train", "study"):
        listed = images.rows(path_to_images, split=split)
        x = images.load(listed["source"], source.images)
        sets[split] = x.contiguous(memory_format=torch.channels_last), torch.tensor(listed["label"]).long()
    network = models.build(source.model, source.outputs, recipe["seed"]).to(memory_format=torch.channels_last)
    start = time.perf_counter()
    training.train(network, *sets["train"], **recipe)
    seconds = time.perf_counter() - start
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
        traced = fold(tracing.trace(network(source)))
        # Gradients are taken with respect to layers and images alone, never to the weights.
        traced.requires_grad_(False)
        # OpenVINO chooses its ways by itself, as the libraries of GPUs do.
        if where.type == "cpu" and device != "openvino":
            hasten(traced)
        return traced.to(where, memory_format=torch.channels_last)

    file = weights.file(source.model, source.weights)
    key = cache.stamp(file) if file else source.weights
    return cache.shared(("network", key, source.model, source.outputs, device), make)


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
        and all(row["units"] == row["channels"] * row["height"] * row["width"] > 0 for row in rows)
    ):
        raise StudyError(f"{path_to_layers}: the layers are not those of the network; {parquet.again(path_to_layers)}")
    return found


if __name__ == "__main__":
    process.prepare()
    torch.use_deterministic_algorithms(True)
    subprocesses.main(train)
