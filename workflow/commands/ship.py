"""Makes the weights that the project ships from those of a study: `make weights`."""

import hashlib
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
import torch
import yaml

from inputs.weights import FOLDER
from jobs import images
from readout import models

OUTPUTS = 10
HEAD = """# What the shipped weights are and how they were made; written by `make weights`.
# The networks were trained on all images outside the split's study images.
"""


def ship(study: Path, config: Path, names: list[str]) -> None:
    """Write `<model>.safetensors` for these networks of a finished training, and `shipped.yaml`, which tells of them.

    `study` is the folder of the study's results, `config` its configuration (what it changes of config.yaml).
    """
    root = FOLDER.parents[1]
    given = yaml.safe_load((root / "config.yaml").read_text()) | yaml.safe_load(config.read_text())
    listed = images.rows(str(study / "images.parquet"))["image_id"]
    by_name = {network["name"]: network for network in given["networks"]}
    about = {}
    for name in names:
        network = by_name[name]
        state = torch.load(study / "networks" / name / "weights.pt", map_location="cpu", weights_only=True)
        file = FOLDER / f"{network['model']}.safetensors"
        safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, file)
        about[network["model"]] = {
            "training": network["weights"],
            "parameters": sum(p.numel() for p in models.build(network["model"], OUTPUTS, seed=0).parameters()),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True
    )
    manifest = {
        "split": {
            "dataset": given["images"]["dataset"],
            "study": given["images"]["study"],
            "seed": given["seed"],
            "images": images.digest(listed),
        },
        "outputs": OUTPUTS,
        "transform": by_name[names[0]]["transform"],
        "models": about,
        "made": {
            "command": "make weights",
            "commit": commit.stdout.strip(),
            "python": platform.python_version(),
            "torch": version("torch").split("+")[0],
            "machine": platform.machine(),
        },
    }
    (FOLDER / "shipped.yaml").write_text(HEAD + yaml.safe_dump(manifest, sort_keys=False))


if __name__ == "__main__":
    study, config, *names = sys.argv[1:]
    ship(Path(study), Path(config), names)
