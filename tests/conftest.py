"""Fixtures: a network worked out on paper, random networks that keep their scores apart, and a finished tiny study."""

import fcntl
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import matplotlib
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis.configuration import set_hypothesis_home_dir
from PIL import Image
from torch import nn

from inputs import builders
from inputs.sources import ImageSource, NetworkSource
from jobs import activations, cells, images, networks
from jobs.ablations import Grid
from readout import models
from runtime import parquet, process
from workflow import TINY, Project, written

# As every job has it: one thread, Arrow in torch's heap.
process.prepare()
# Figures are drawn without a screen.
matplotlib.use("Agg")
# What hypothesis keeps of Unicode goes elsewhere than into the project.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")
# The same examples in every run, no time limits on a shared machine, no database of examples.
hypothesis.settings.register_profile("study", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("study")

NO_ORIGINS = {
    step: {} for step in ("cells", "probes", "ablations", "controls", "pseudo", "shapley", "importance", "redundancy")
}
"""Of files made outside of a study, which carry nothing of what made them."""


@pytest.fixture(autouse=True)
def modules(monkeypatch, tmp_path_factory):
    """What a test imports from the folders that it writes is forgotten at its end, and so are the folders."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(builders, "_beside", [])
    before, below = set(sys.modules), tmp_path_factory.getbasetemp()
    yield
    for name in set(sys.modules) - before:
        # A test may say that a module is not there.
        found = getattr(sys.modules[name], "__spec__", None)
        origin, places = found and found.origin, found and found.submodule_search_locations
        # A folder without an __init__.py has no origin, and its places follow Python's path.
        if Path(origin).is_relative_to(below) if origin else places is not None:
            del sys.modules[name]


class Toy(nn.Module):
    """A 1 x 1 convolution, ReLU, and a dense layer, for images [3, 2, 2]; 8 units, 3 outputs.

    Channel 0 is red, channel 1 is green less blue. In C, H, W order units 0-3 are channel 0, units 4-7 channel 1, at
    the pixels (0, 0), (0, 1), (1, 0), (1, 1). The scores are

        u0 + u4,    u1 + u5 + 1,    u2 + 2 u3 + u7 + 2.
    """

    def __init__(self, outputs: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.dense = nn.Linear(8, outputs)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, -1]]).view(2, 3, 1, 1))
            self.conv.bias.zero_()
            self.dense.weight.copy_(
                torch.tensor(
                    [
                        [1.0, 0, 0, 0, 1, 0, 0, 0],
                        [0.0, 1, 0, 0, 0, 1, 0, 0],
                        [0.0, 0, 1, 2, 0, 0, 0, 1],
                    ]
                )
            )
            self.dense.bias.copy_(torch.tensor([0.0, 1, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.relu(self.conv(x)).flatten(1))


def picture(red: list[int], green: list[int], blue: list[int]) -> torch.Tensor:
    """An image [3, 2, 2] from the four pixels of each colour."""
    return torch.tensor([red, green, blue], dtype=torch.float32).view(3, 2, 2)


@pytest.fixture
def toy() -> nn.Module:
    """The network worked out on paper."""
    return Toy().eval()


@pytest.fixture
def toy_model(monkeypatch) -> str:
    """The toy's name among the models that a study can choose."""
    monkeypatch.setitem(models.BUILDERS, "toy", Toy)
    return "toy"


@pytest.fixture
def toy_target() -> torch.Tensor:
    """Two images of the toy's target, which is output 0.

    Activations [4 2 0 0, 1 0 0 0] and [2 0 0 2, 3 0 0 0]; scores [5 3 2] and [5 1 6]; ranks 0 and 1.
    """
    return torch.stack(
        [picture([4, 2, 0, 0], [1, 0, 0, 0], [0, 0, 3, 0]), picture([2, 0, 0, 2], [3, 0, 0, 0], [0] * 4)]
    )


@pytest.fixture
def toy_others() -> torch.Tensor:
    """Two images of the others; activations [0 1 2 0, 0 4 0 0] and [2 1 0 0, 0 0 0 2]."""
    return torch.stack(
        [picture([0, 1, 2, 0], [0, 4, 0, 0], [0] * 4), picture([2, 1, 0, 0], [0, 0, 0, 2], [0, 5, 0, 0])]
    )


def through_jobs(
    tmp_path: Path,
    model: str,
    network: nn.Module,
    layer: str,
    pictures: dict[str, torch.Tensor],
    study: int | None = None,
) -> SimpleNamespace:
    """A network through the jobs, as far as a layer's 2 x 2 cells of class a against class b.

    `pictures` are [N, 3, H, W] by class, equally many of each, of which `study` are studied, or all; the network, a
    `model`, has three outputs. Files by what they hold (`activations` and `baselines` are by class), and `grid`, which
    the jobs of ablations and of controls share.
    """
    for class_id, of_class in pictures.items():
        (tmp_path / "data" / class_id).mkdir(parents=True)
        for i, picture in enumerate(of_class):
            pixels = picture.permute(1, 2, 0).numpy().astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / class_id / f"{i}.png")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    file = {name: str(tmp_path / f"{name}.parquet") for name in ("images", "layers", "cells")}
    by_class = {
        kind: {class_id: str(tmp_path / kind / layer / f"{class_id}.parquet") for class_id in "ab"}
        for kind in ("activations", "means", "baseline")
    }
    opening = {"dataset": "folder", "path": str(tmp_path / "data")}
    labels = {"a": 0, "b": 1}
    drawn = {"study": study or len(pictures["a"]), "train": False, "split_seed": 0, "fold_seed": 0}
    images.list_images(file["images"], **opening, labels=labels, **drawn)
    # Pixels as they are: from 0 to 255.
    transform = {"resize": None, "crop": pictures["a"].shape[-1], "mean": [0.0] * 3, "std": [1 / 255] * 3}
    source = NetworkSource(model, 3, str(tmp_path / "weights.pt"), ImageSource(**opening, transform=transform))
    networks.list_layers(file["layers"], source=source, chosen=[layer], cells=4, device="cpu")
    for class_id in "ab":
        activations.extract(
            path_to_images=file["images"],
            path_to_layers=file["layers"],
            paths_to_activations={layer: by_class["activations"][class_id]},
            paths_to_means={layer: by_class["means"][class_id]},
            path_to_baseline=by_class["baseline"][class_id],
            class_id=class_id,
            source=source,
            dtype="float32",
            folds=True,
            device="cpu",
        )
    means, baselines = by_class["means"], by_class["baseline"]
    cells.assign(
        file["cells"],
        path_to_target=means["a"],
        paths_to_others=[means["b"]],
        layer=layer,
        bins=[2, 2],
        folds=True,
    )
    grid = Grid(
        network=model,
        layer=layer,
        class_id="a",
        others=("b",),
        path_to_cells=file["cells"],
        path_to_baseline=baselines["a"],
        paths_to_others=(baselines["b"],),
        path_to_images=file["images"],
        path_to_layers=file["layers"],
        source=source,
        device="cpu",
    )
    paths = {**file, "activations": by_class["activations"], "means": means, "baselines": baselines}
    return SimpleNamespace(**paths, baseline=baselines["a"], grid=grid, tmp=tmp_path)


@pytest.fixture
def toy_study(tmp_path, toy_model, toy, toy_target, toy_others) -> SimpleNamespace:
    """The toy through the jobs, two images of each class (`through_jobs`)."""
    return through_jobs(tmp_path, toy_model, toy, "conv1", {"a": toy_target, "b": toy_others})


def randomised(model: str, outputs: int) -> nn.Module:
    """A model with random weights, biases and statistics.

    As torch initialises them, the norms are neutral, and the scores hardly depend on the image.
    """
    network = models.build(model, outputs, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.2, generator=generator)
    return network


@pytest.fixture
def random_network() -> Callable[[str], nn.Module]:
    """Builds a randomised model with ten outputs."""
    return lambda model: randomised(model, 10)


@pytest.fixture(name="images")
def random_images() -> torch.Tensor:
    """Twelve random images [12, 3, 32, 32]."""
    return torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def write_activations(
    path: Path, values: np.ndarray, *, image_id=None, fold=None, rows: int = 25, dtype: str = "float32"
) -> None:
    """A file of activations [images, units] as the step writes it, `rows` images at a time."""
    count, units = values.shape
    image_id = np.arange(count) if image_id is None else image_id
    fold = np.arange(count) % 5 if fold is None else fold
    columns = {"image_id": image_id.tolist(), "fold": fold.tolist(), "activation": values.tolist()}
    table = pa.table(columns, schema=activations.schema(units, dtype))
    with parquet.Writer(path, table.schema) as writer:
        for start in range(0, count, rows):
            writer.write(table.slice(start, rows))


def write_means(path: Path, values: np.ndarray) -> None:
    """The means of activations [images, units] as the step writes them."""
    mean = values.mean(0, dtype=np.float64)
    parquet.write(path, {"unit": np.arange(len(mean), dtype=np.int32), "mean": mean}, activations.MEANS)


def _finished(beside: Path) -> Project:
    """The tiny study, run to its end."""
    project = Project.create(beside / "my project", TINY)
    # The places where programs leave files are beside it, for the test of what is written.
    places = {"HOME": "home", "XDG_CACHE_HOME": "home/.cache", "TMPDIR": "tmp", "TORCH_HOME": "torch"}
    for place in places.values():
        (beside / place).mkdir()
    project.environment = {name: str(beside / place) for name, place in places.items()} | {"MPLCONFIGDIR": ""}
    project.before = written(beside)
    project.printed = project.run()
    project.after = written(beside)
    project.environment = {}
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """The tiny study, run to its end once for all of pytest's processes; not to be changed."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "finished"
    folder.mkdir(exist_ok=True)
    kept = folder / "project.pickle"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_finished(Path(tempfile.mkdtemp(dir=folder)))))
    return pickle.loads(kept.read_bytes())


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished study, to change something in."""
    return finished.copy(tmp_path / "project")
