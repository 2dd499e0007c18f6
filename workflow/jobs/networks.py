"""Step `networks`: layers of a network, training where the study asks for it, and loading for the other steps."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import torch

from jobs import images, memory, parquet
from jobs.logs import logged
from readout import StudyError, networks, scores, training

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
ACCURACY = pa.schema([("split", pa.string()), ("top1", pa.float64()), ("top5", pa.float64()), ("images", pa.int32())])


def device(choice: str) -> torch.device:
    """The device of a config: `cpu`, `cuda` or `auto`."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise StudyError("device: cuda is asked for, but torch finds no GPU; set device to cpu or auto")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda":
        # Ranks are compared exactly: no TF32, and the same kernels every time.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device(choice)


@logged
def list_layers(output: str, *, model: str, outputs: int, size: int, expected: Sequence[str]) -> str:
    """Write `layers.parquet`: all layers on the traced graph, for images of `size` pixels.

    `expected` are the layers that the workflow was planned with.
    """
    network = networks.build(model, outputs, seed=0)
    found = networks.layers(network, networks.trace(network), torch.zeros(1, 3, size, size))
    if [layer.name for layer in found] != list(expected):
        names = ", ".join(layer.name for layer in found)
        raise StudyError(f"{model}: the traced layers are {names}; expected {', '.join(expected)}")
    rows = [
        {
            "layer": layer.name,
            "node": layer.node,
            "module": layer.module,
            "depth": layer.depth,
            "channels": layer.channels,
            "height": layer.height,
            "width": layer.width,
            "units": layer.units,
        }
        for layer in found
    ]
    parquet.write(output, rows, LAYERS)
    return f"{len(rows)} layers, {sum(layer.units for layer in found)} units"


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
    weights: str,
    accuracy: str,
    *,
    model: str,
    outputs: int,
    recipe: Mapping,
    dataset: str,
    path: str | None,
    transform: Mapping,
) -> None:
    """Train a network on the training images; write its weights and its accuracy on both splits."""
    sets = {}
    for split in ("train", "study"):
        listed = images.rows(path_to_images, split=split)
        x = images.load(listed["source"], dataset=dataset, path=path, transform=transform)
        sets[split] = x.contiguous(memory_format=torch.channels_last), torch.tensor(listed["label"]).long()
    network = networks.build(model, outputs, recipe["seed"]).to(memory_format=torch.channels_last)
    start = time.perf_counter()
    training.train(network, *sets["train"], **recipe)
    print(
        f"{model}: {recipe['epochs']} epochs of {len(sets['train'][1])} images in {time.perf_counter() - start:.1f} s"
    )
    rows = [_accuracy(network, *sets[split], split) for split in sets]
    print("\n".join(f"{row['split']}: top-1 {row['top1']:.4f} over {row['images']} images" for row in rows))
    partial = f"{weights}.partial"
    try:
        torch.save({key: value.contiguous() for key, value in network.state_dict().items()}, partial)
        os.replace(partial, weights)
    finally:
        Path(partial).unlink(missing_ok=True)
    parquet.write(accuracy, rows, ACCURACY)


def load(weights: str, *, model: str, outputs: int, on: torch.device) -> torch.fx.GraphModule:
    """The traced network with its weights, shared by the jobs of this process."""

    def make() -> torch.fx.GraphModule:
        return networks.trace(networks.load(model, outputs, weights)).to(on)

    return memory.shared(("network", memory.stamp(weights), model, outputs, str(on)), make)


def layer_nodes(path_to_layers: str) -> dict[str, dict]:
    """Rows of `layers.parquet` by layer."""
    table: pa.Table = memory.shared(
        ("layers", memory.stamp(path_to_layers)), lambda: parquet.read(path_to_layers, LAYERS)
    )
    return {row["layer"]: row for row in table.to_pylist()}


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    try:
        train(**json.loads(sys.argv[1]))
    except StudyError as error:
        sys.exit(str(error))
