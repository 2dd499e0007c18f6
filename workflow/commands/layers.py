"""Prints the layers of a network as a configuration lists them: `make layers MODEL=googlenet`."""

import argparse
import sys

import torch

from inputs import builders
from inputs.sources import ImageSource, NetworkSource
from jobs import networks
from readout import StudyError, layer_names, layers


def main() -> None:
    """Trace the network with random weights, which need no download."""
    parser = argparse.ArgumentParser(prog="make layers", description=__doc__)
    parser.add_argument("model", help="a model of the study, of torchvision, timm:NAME, or FILE.py:BUILDER")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default 224)")
    parser.add_argument("--outputs", type=int, default=1000, help="outputs of the network (default 1000)")
    parser.add_argument("--select", default="all", help="all, blocks, a number, or a pattern such as 'block*.out'")
    parser.add_argument(
        "--nodes", action="store_true", help="print every other node and module that may be listed, too"
    )
    given = parser.parse_args()
    try:
        choice = int(given.select) if given.select.isdigit() else given.select
        show(given.model, given.size, given.outputs, choice, given.nodes)
    except StudyError as error:
        sys.exit(f"error: {error}")


def show(model: str, size: int, outputs: int, choice: str | int, nodes: bool = False) -> None:
    """Print the chosen layers of a network, with their axes, shapes and units; and the other names that it has."""
    of_user = builders.digest(model) if builders.is_builder(model) else None
    source = NetworkSource(model, outputs, None, ImageSource("", None, {"crop": size}), of_user)
    network, image = networks.network(source), torch.zeros(1, 3, size, size)
    traced = networks.trace(source, network)
    names = layers.names(network, traced, image)
    # What has no layers by itself may have nodes.
    chosen = () if nodes and not any(each.layer for each in names) else layer_names.select(model, choice, lambda: names)
    found = [layer for layer in layers.find(network, traced, image, chosen) if layer.name in chosen]
    print(f"# {model} at {size} pixels: {len(found)} layers, {sum(layer.units for layer in found):,} units")
    print("layers:")
    for layer in found:
        print(f"  - {layer.name}  # {_told(layer)}")
    if nodes:
        others = {each.name: each.node for each in names if each.layer is None}
        print(f"# {len(others)} other names of nodes and modules, for a list:")
        for layer in layers.find(network, traced, image, others):
            if alike := [name for name, node in others.items() if node == layer.node]:
                print(f"#   {' or '.join(alike)}  # {_told(layer)}")


def _told(layer: layers.Layer) -> str:
    """The axes, the shape and the number of units of a layer."""
    return f"{networks.AXES.join(layer.axes)}: {networks.AXES.join(map(str, layer.shape))}, {layer.units:,} units"


if __name__ == "__main__":
    main()
