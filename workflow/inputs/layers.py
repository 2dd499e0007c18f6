"""Names of the layers of networks that are not known beforehand: found once by tracing, in a process of its own.

They are kept by what they depend on, so that to plan a study again needs no torch.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from inputs.sources import NetworkSource
from readout.named import Named
from runtime import subprocesses
from runtime.code import digest

FOLDER = Path("results", ".layers")
"""Beside the studies, none of which can have a name that begins with a dot."""
PACKAGES = ("torch", "torchvision", "timm")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def listed(source: NetworkSource) -> Sequence[Named]:
    """All names by which parts of a network can be studied, in the order of execution.

    Of `source` the model, its builder, the outputs and the size of images count. StudyError where the network cannot be
    built, run or traced.
    """
    depends = {
        "model": source.model,
        "builder": source.builder,
        "outputs": source.outputs,
        "size": source.images.transform["crop"] if source.images.transform else source.weights,
        "versions": [_version(package) for package in PACKAGES],
        "code": digest("networks"),
    }
    path = FOLDER / f"{hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:24]}.json"
    if (found := _read(path)) is None:
        print(f"Finding the layers of {source.model}", file=sys.stderr)
        given = {"job": "names", "path_to_names": str(path), "source": asdict(source)}
        subprocesses.run("jobs.networks", given)
        found = _read(path)
    return found


def _read(path: Path) -> Sequence[Named] | None:
    """What a file holds; None where there is none, or where it is broken and is made anew."""
    try:
        return [Named(**each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
