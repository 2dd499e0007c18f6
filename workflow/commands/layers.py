"""Prints the layers of a network as a configuration lists them: `make layers MODEL=googlenet`."""

import argparse
import sys

from jobs import networks
from readout import StudyError
from readout.models import build


def main() -> None:
    """Trace the network with random weights, which need no download."""
    parser = argparse.ArgumentParser(prog="make layers", description=__doc__)
    parser.add_argument("model", help="a model of the study, or a classification network of torchvision")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (default 224)")
    given = parser.parse_args()
    try:
        found = networks.find_layers(build(given.model, outputs=1000, seed=0), given.size)
    except StudyError as error:
        sys.exit(f"error: {error}")
    print(f"# {given.model} at {given.size} pixels: {len(found)} layers, {sum(layer.units for layer in found):,} units")
    print("layers:")
    for layer in found:
        print(f"  - {layer.name}  # {layer.channels} x {layer.height} x {layer.width}")


if __name__ == "__main__":
    main()
