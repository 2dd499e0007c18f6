"""The engine beside other ways to the same numbers: `make bench`, or with `--quick` a glance.

Random weights and images cost what real ones do; nothing is downloaded. Everything runs on one thread, in turn, and
what others need beforehand (masks, warm kernels) is made outside of their time. Speed depends on the machine, so a goal
that is missed is only told; ranks or predictions that differ end the run with an error.
"""

import argparse
import contextlib
import copy
import ctypes
import functools
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

import numpy as np
import torch
from captum.attr import LayerFeatureAblation
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import fx, nn

from conftest import randomised
from inputs.sources import ImageSource, NetworkSource
from jobs import ablations as ablations_job
from jobs import groups as groups_job
from jobs import images as images_job
from jobs import networks as networks_job
from readout import cells, cuts, layer_names, layers, logistic, openvino, probes, scores, tracing
from readout.ablations import ablate
from readout.engine import fold, hasten
from runtime import parquet, process
from workflow import ROOT, TINY, Project

CELLS = cells.names((4, 4))
OUTPUTS = 1000
SIZE = 224
REPEATS = 3
DRAWN = 100
"""Units a draw of the published probe."""
MODELS = {"alexnet": (50, 7, 4), "vgg16": (3, 5, 2), "mobilenet_v2": (16, 5, 4), "resnet101": (8, 5, 2)}
"""Images and layers of each network, and the goal: how many times as fast as the others the engine should be.

Few images where they are dear: a convolution's time grows with their number, for everyone alike.
"""
ROUNDING = 2e-4
"""Scores count as equal up to this part of their standard deviation: memory layout, folding and tiles move their last digits."""


def progress(message: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {message}", file=sys.stderr, flush=True)


def row(part: str, case: str, beside: str, ours: float, other: float | None, goal: float | None = None) -> dict:
    """A line of the table: seconds of both, and how many times as long the other took."""
    ratio = None if other is None else other / ours
    met = None if goal is None else ratio >= goal
    return {
        "part": part,
        "case": case,
        "beside": beside,
        "ours": ours,
        "other": other,
        "ratio": ratio,
        "goal": goal,
        "met": met,
    }


def repeated(measure: Callable[[int], dict], seconds: float) -> list[dict]:
    """What `measure` gives, `REPEATS` times, or as often as fits into so many seconds, at least once."""
    found, start = [], time.perf_counter()
    while len(found) < REPEATS:
        found.append(measure(len(found)))
        if (time.perf_counter() - start) * (1 + 1 / len(found)) > seconds:
            break
    return found


# Networks: the ranks of 16 ablated cells in some layers of a network, four ways.


@dataclass(frozen=True)
class Task:
    """All cells of one layer: `units` are their units, `of_unit` [1, ...] the cell of each unit, `masks` the cells."""

    layer: layers.Layer
    call: int
    units: list[np.ndarray]
    of_unit: torch.Tensor
    masks: torch.Tensor


def for_captum(network: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """The network as Captum can ablate its layers, and the module of each layer by the name of its node.

    Captum addresses a layer by its module. In-place non-linearities would overwrite what it keeps, so they are switched
    off. A ResNet block calls one module three times, which Captum cannot tell apart: in its traced graph, an equal
    network otherwise, each call gets a module of its own.
    """
    network = copy.deepcopy(network)
    traced = tracing.trace(network)
    nodes = [node for node in traced.graph.nodes if tracing.is_layer(traced, node)]
    if len({node.target for node in nodes}) == len(nodes):
        return network, {node.name: node.target for node in nodes}
    for node in nodes:
        traced.add_submodule(node.name, copy.deepcopy(traced.get_submodule(node.target)))
        node.target = node.name
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced, {node.name: node.name for node in nodes}


def make_tasks(model: str, found: Sequence[layers.Layer], count: int) -> list[Task]:
    """The middle layers of as many equal parts of the network, each with its units dealt to the cells at random.

    So the sum over them stands for the sum over all layers; the first and the last would weigh too much in it.
    """
    generator = np.random.default_rng(3)
    known = layer_names.select(model, "all")
    chosen = {known[(2 * i + 1) * len(known) // (2 * count)] for i in range(count)}
    tasks = []
    for layer in found:
        if layer.name not in chosen:
            continue
        units = [np.sort(part) for part in np.array_split(generator.permutation(layer.units), len(CELLS))]
        of_unit = torch.empty(layer.units, dtype=torch.int64)
        for cell, members in enumerate(units):
            of_unit[torch.from_numpy(members)] = cell
        shape = layer.shape
        of_unit = of_unit.view(1, *shape)
        call = Counter(other.module for other in found[: layer.depth])[layer.module]
        tasks.append(Task(layer, call, units, of_unit, torch.stack([of_unit == cell for cell in range(len(CELLS))])))
    return tasks


def group(traced: fx.GraphModule, name: str, rows: dict, load: Callable, count: int) -> tuple[Callable, list]:
    """What the cells of a grid share, as their jobs make it: the tail, and the tensors alive at the cut by batches.

    `rows` are those of `layers.parquet`, `load` gives the images of a slice of `count`.
    """
    parts = cuts.cut(traced, rows[name]["node"])
    alive = ablations_job._alive(parts.prefix, rows, count, load, torch.device("cpu"))
    # The deeper the tail begins, the less it holds at once, and the longer its batches can be.
    deeper = [row for row in rows.values() if row["depth"] >= rows[name]["depth"]]
    batches = networks_job.batches(count, deeper)
    return parts.tail, [tuple(tensor[batch] for tensor in alive) for batch in batches]


def allocate(way: str) -> None:
    """Freed memory is kept, as in the engine's process (runtime/cache.py), or as much of it as glibc by itself comes to keep."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-1, 2**31 - 1 if way == "engine" else 64 << 20)  # M_TRIM_THRESHOLD


def engine(
    traced: fx.GraphModule, rows: dict, x: torch.Tensor, labels: torch.Tensor, task: Task, compiled: bool = False
) -> dict:
    """As the jobs of a grid do it: the part before the layer once, the part behind it for each cell.

    `compiled` tails run through OpenVINO; a layer is compiled once for all its targets, so that is not timed.
    """
    start = time.perf_counter()
    tail, batches = group(traced, task.layer.name, rows, x.__getitem__, len(x))
    cut = time.perf_counter()
    if compiled:
        tail = openvino.Tail(tail, batches[0])
        tail(*batches[0])
        start += time.perf_counter() - cut
        cut = time.perf_counter()
    logits = [torch.cat([tail(ablate(first, units, 0.0), *rest) for first, *rest in batches]) for units in task.units]
    tails = time.perf_counter()
    ranks = [scores.ranks(part, labels) for part in logits]
    end = time.perf_counter()
    times = {"engine": end - start, "prefix": cut - start, "tails": tails - cut}
    return {"times": times, "ranks": torch.stack(ranks), "logits": torch.stack(logits)}


def masked(network: nn.Module, x: torch.Tensor, labels: torch.Tensor, task: Task) -> dict:
    """A whole forward pass a cell of the network as torchvision builds it, with a hook that masks the layer."""
    calls, mask, logits = 0, None, []

    def hook(module: nn.Module, given: tuple, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal calls
        calls += 1
        return output.masked_fill(mask, 0.0) if calls == task.call + 1 else None

    handle = network.get_submodule(task.layer.module).register_forward_hook(hook)
    try:
        start = time.perf_counter()
        for mask in task.masks:  # noqa: B007  the hook reads it
            calls = 0
            logits.append(network(x))
        ranks = [scores.ranks(part, labels) for part in logits]
        seconds = time.perf_counter() - start
    finally:
        handle.remove()
    return {"times": {"masked": seconds}, "ranks": torch.stack(ranks), "logits": torch.stack(logits)}


def captum(
    network: nn.Module, modules: dict, x: torch.Tensor, labels: torch.Tensor, baseline: torch.Tensor, task: Task
) -> dict:
    """Captum's ablation of the layer by cells. Of the ranks, so that what it attributes to a unit is a rank change.

    Captum runs 18 forward passes for 16 cells: one for the layer's output and one for the baseline besides.
    """
    method = LayerFeatureAblation(
        lambda x: scores.ranks(network(x), labels).float(), network.get_submodule(modules[task.layer.node])
    )
    start = time.perf_counter()
    attributed = method.attribute(x, layer_mask=task.of_unit, perturbations_per_eval=1)
    seconds = time.perf_counter() - start
    change = attributed.flatten(1)[:, [int(members[0]) for members in task.units]].T
    return {"times": {"captum": seconds}, "ranks": baseline - change.long()}


@dataclass
class Check:
    """Ranks: how many, how many the ablations moved, how many are unequal to the engine's by way, and beyond a tie."""

    ranks: int = 0
    moved: int = 0
    unequal: dict[str, int] = field(default_factory=dict)
    beyond: int = 0
    scores: float = 0.0
    """Largest difference of a score between engine and masked network, in standard deviations of the scores."""

    def add(self, found: dict, baseline: torch.Tensor, labels: torch.Tensor) -> None:
        """Count the ranks of one layer, [cells, images]; scores are [cells, images, outputs]."""
        ours, theirs = found["engine"], found["masked"]
        own = theirs["logits"].gather(2, labels.expand(len(CELLS), -1)[..., None])
        spread = theirs["logits"].std(2, keepdim=True)
        ties = ((theirs["logits"] - own).abs() <= ROUNDING * spread).sum(2) - 1
        self.ranks += ours["ranks"].numel()
        self.moved += int((theirs["ranks"] != baseline).sum())
        self.scores = max(self.scores, float(((ours["logits"] - theirs["logits"]).abs() / spread).max()))
        for name in found.keys() - {"engine"}:
            apart = (found[name]["ranks"] - ours["ranks"]).abs()
            self.unequal[name] = self.unequal.get(name, 0) + int((apart > 0).sum())
            self.beyond += int((apart > ties).sum())

    def failures(self, model: str) -> list[str]:
        found = []
        if self.beyond:
            found.append(f"{model}: {self.beyond} ranks differ beyond a tie in rounding")
        if self.scores > ROUNDING:
            found.append(f"{model}: scores differ by {self.scores:.1g} standard deviations")
        if self.moved < self.ranks / 2:
            found.append(f"{model}: the ablations move {self.moved} of {self.ranks} ranks, too few for a check")
        return found


@torch.inference_mode()
def bench_network(model: str, count: int, some: int, goal: float, seconds: float) -> list[dict]:
    """Times of the ways for one network, in turn, summed over some of its layers."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(OUTPUTS, (count,), generator=generator)
    network = randomised(model, OUTPUTS)
    captums, modules = for_captum(network)
    traced = tracing.trace(copy.deepcopy(network))
    found = layers.find(network, traced, x[:1])
    rows = {layer.name: asdict(layer) | {"units": layer.units} for layer in found}
    plain = fold(traced).to(memory_format=torch.channels_last)
    traced = hasten(copy.deepcopy(plain))
    tasks = make_tasks(model, found, some)
    # Everything runs once before it is timed.
    baseline = scores.ranks(network(x), labels)
    captums(x)
    traced(networks_job.to_device(x, "cpu"))
    ways = {
        "engine": lambda task: engine(traced, rows, x, labels, task),
        "masked": lambda task: masked(network, x, labels, task),
        "captum": lambda task: captum(captums, modules, x, labels, baseline, task),
    }
    if importlib.util.find_spec("openvino"):
        ways["openvino"] = lambda task: engine(plain, rows, x, labels, task, compiled=True)
    check = Check()

    def measure(repeat: int) -> dict:
        times = {}
        for i, task in enumerate(tasks):
            # Each way comes first, second and last in turn.
            turn = (repeat + i) % len(ways)
            results = {}
            for name in [*ways][turn:] + [*ways][:turn]:
                allocate(name)
                results[name] = ways[name](task)
            allocate("engine")
            if "openvino" in ways:
                results["openvino"]["times"] = {"openvino": results["openvino"]["times"]["engine"]}
            times[task.layer.name] = {key: t for name in ways for key, t in results[name]["times"].items()}
            if repeat == 0:
                check.add(results, baseline, labels)
            shown = ", ".join(f"{key} {number(t)}" for key, t in times[task.layer.name].items())
            progress(f"{model}, repeat {repeat + 1}, {task.layer.name}: {shown} s")
        return times

    repeats = repeated(measure, seconds)
    total = {
        key: statistics.median(sum(times[key] for times in repeat.values()) for repeat in repeats)
        for key in ("prefix", "tails", *ways)
    }
    uncut = len(CELLS) * total["prefix"] + total["tails"]
    note = (
        f"{model}: {count} images, {len(repeats)} repeats; of {check.ranks} ranks {check.moved} moved; unequal to the "
        f"engine's: {', '.join(f'{way} {count}' for way, count in check.unequal.items())}, beyond a tie in rounding "
        f"{check.beyond}; "
        f"scores agree to {check.scores:.0e} standard deviations"
    )
    more = {"images": count, "cells": len(CELLS), "repeats": len(repeats), "layers": repeats, "check": asdict(check)}
    case = f"{model}, {len(tasks)} layers"
    return [
        row("networks", case, "masked full forward", total["engine"], total["masked"], goal)
        | more
        | {"notes": [note], "failures": check.failures(model)},
        row("networks", case, "Captum", total["engine"], total["captum"], goal),
        row("networks", case, "engine's network, uncut", total["engine"], uncut),
        row("networks", case, "bare tail", total["engine"], total["tails"]),
        *(
            [row("networks", case, "engine with OpenVINO", total["engine"], total["openvino"])]
            if "openvino" in ways
            else []
        ),
    ]


def bench_networks(quick: bool) -> list[dict]:
    lines = []
    for model, (count, some, goal) in MODELS.items():
        if quick:
            lines += bench_network(model, max(1, count // 4), 2, goal, 0)
        else:
            lines += bench_network(model, count, some, goal, 100)
    lines[-1]["notes"] = [
        "uncut: 16 prefixes and 16 tails of the engine, computed; what is left of the gain is memory layout and folding"
    ]
    return lines


# The published probe of one cell.


KINDS = {
    "independent": (-0.5, 0, 1),
    "correlated": (-0.5, 20, 1),
    "correlated, tenfold": (-0.5, 20, 10),
    "correlated, loud": (2, 20, 1),
}
"""Units of a cell by their mean before the ReLU, factors that they share, and scale.

scikit-learn takes more steps for units that are large or far from zero. In MobileNetV2 with published weights and
photographs, cells of low activations have means of 0.1 to 0.4, 45 to 83 % zeros, and 26 to 51 % of a draw's variance in
ten components; those of high ones 1.1 to 3.6, 0 to 57 % and 32 to 69 %. "correlated" is like the former (0.2, 69 and
35 %), "loud" like the latter (2.0, 2 and 49 %).
"""


def cell_activations(mean: float, factors: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Activations [550, 4000] as a ReLU leaves them, and which images are the target's; a tenth of the units tells."""
    generator = np.random.default_rng(5)
    is_target = np.arange(550) < 50
    x = generator.normal(size=(550, 4000))
    if factors:
        shared = generator.normal(size=(550, factors)) @ generator.normal(size=(factors, 4000))
        x = 0.6 * x + 0.8 * shared / math.sqrt(factors)
    x += mean
    x[:, :400] += 0.8 * is_target[:, None]
    # A unit after the other, as the job that gathers them has them.
    return np.asfortranarray((scale * np.maximum(x, 0)).astype(np.float32)), is_target


def published(x: np.ndarray, is_target: np.ndarray, draws: int) -> probes.Published:
    """The workflow's way."""
    group, generator = np.arange(x.shape[1]), np.random.default_rng(6)
    return probes.published(x, group, is_target, draws=draws, units=DRAWN, C=1.0, generator=generator)


def scikit_learn(x: np.ndarray, is_target: np.ndarray, draws: int) -> np.ndarray:
    """The same draws, a fit each; predictions [draws, images]."""
    generator, predicted = np.random.default_rng(6), []
    for _ in range(draws):
        drawn = x[:, generator.choice(x.shape[1], DRAWN, replace=False)].astype(np.float64)
        model = LogisticRegression(C=1, tol=1e-8, max_iter=10000, solver="lbfgs")
        predicted.append(model.fit(drawn, is_target).predict(drawn))
    return np.stack(predicted)


def predictions(x: np.ndarray, is_target: np.ndarray, draws: int) -> np.ndarray:
    """The predictions behind `published`, which tells their means; [draws, images]."""
    generator = np.random.default_rng(6)
    drawn = np.stack([x[:, generator.choice(x.shape[1], DRAWN, replace=False)] for _ in range(draws)])
    drawn, y = torch.from_numpy(drawn.astype(np.float64)), torch.from_numpy(np.where(is_target, 1.0, -1.0))
    *_, decisions = logistic.fit(drawn, y, 1.0, torch.ones_like(y))
    return (decisions > 0).numpy()


def bench_cell(kind: str, draws: int, seconds: float) -> dict:
    """Our batch of problems beside scikit-learn's one after the other."""
    x, is_target = cell_activations(*KINDS[kind])
    ways = {"ours": published, "scikit_learn": scikit_learn}
    # Everything runs once before it is timed.
    for way in ways.values():
        way(x, is_target, 1)
    results = {}

    def measure(repeat: int) -> dict:
        times = {}
        for name in [*ways][:: 1 if repeat % 2 == 0 else -1]:
            start = time.perf_counter()
            results[name] = ways[name](x, is_target, draws)
            times[name] = time.perf_counter() - start
        progress(f"probe, {kind} units, repeat {repeat + 1}: {times['ours']:.2f} and {times['scikit_learn']:.2f} s")
        return times

    repeats = repeated(measure, seconds)
    total = {name: statistics.median(times[name] for times in repeats) for name in ways}
    predicted, expected = predictions(x, is_target, draws), results["scikit_learn"]
    differ, accuracy = int((predicted != expected).sum()), float((expected == is_target).mean())
    failures = []
    if differ:
        failures.append(f"probe, {kind} units: {differ} of {predicted.size} predictions differ from scikit-learn's")
    elif abs(results["ours"].accuracy - accuracy) > 1e-9:
        failures.append(f"probe, {kind} units: accuracy {results['ours'].accuracy}, of the predictions {accuracy}")
    return row("probe", f"{draws} draws, {kind} units", "scikit-learn", total["ours"], total["scikit_learn"]) | {
        "repeats": repeats,
        "check": {"predictions": predicted.size, "differ": differ, "accuracy": accuracy},
        "notes": [
            f"probe: {kind} units, {len(repeats)} repeats, training accuracy {accuracy:.3f}; of {predicted.size} "
            f"predictions unequal to scikit-learn's: {differ}"
        ],
        "failures": failures,
    }


def bench_probe(quick: bool) -> list[dict]:
    draws, seconds = (50, 0) if quick else (200, 60)
    lines = [bench_cell(kind, draws, seconds) for kind in KINDS]
    # As for a network's layers, the goal is of the sum: a grid has cells of all kinds.
    ours, other = (sum(line[key] for line in lines) for key in ("ours", "other"))
    return [*lines, row("probe", f"{draws} draws, each of these cells", "scikit-learn", ours, other, 4)]


# Snakemake around the jobs.


def timed(project: Project, *arguments: str) -> float:
    """Seconds of a run on one core."""
    start = time.perf_counter()
    project.run("--cores", "1", *arguments)
    return time.perf_counter() - start


def timed_runs(project: Project, jobs: dict[str, int]) -> dict[str, float]:
    """Seconds of a run of these jobs alone, of one that finds nothing to do, and of one with a single small job.

    All three build the same DAG. A run with nothing to do imports less: the single job, of another step, brings that in.
    """
    until = ("--until", *jobs)
    planned = project.planned(*until)
    assert planned == jobs, f"{planned} would run instead of {jobs}"
    seconds = {"run": timed(project, *until), "nothing": timed(project, *until)}
    assert project.planned(*until, "others") == {"others": 1}
    return seconds | {"single": timed(project, *until, "others")}


def told(seconds: dict[str, float]) -> str:
    return (
        f"the run {number(seconds['run'])} s, one with nothing to do {number(seconds['nothing'])} s, "
        f"one with a single other job {number(seconds['single'])} s"
    )


def empty_jobs(networks: int, targets: int, runs: Callable[[Project, dict], dict]) -> tuple[dict, list[float]]:
    """What `runs` tells of a study whose probes and ablations only write an empty file, and when each was written."""
    network = TINY["networks"][0] | {"weights": "random", "layers": "all", "classes": "all"}
    network["targets"] = [str(digit) for digit in range(targets)]
    grids = networks * len(layer_names.KNOWN[network["model"]]) * targets
    jobs = dict.fromkeys(("probes", "ablations"), grids * len(CELLS))
    named = [network | {"name": f"network{i}"} for i in range(networks)]
    with tempfile.TemporaryDirectory() as folder:
        figures = TINY["figures"] | {"network": "network0"}
        project = Project.create(Path(folder) / "project", TINY | {"networks": named, "figures": figures})
        project.limit = None
        for step, job in (("probes", "probe"), ("ablations", "ablate")):
            file = project.folder / "workflow" / "jobs" / f"{step}.py"
            path = {"probe": "path_to_probe", "ablate": "path_to_ablation"}[job]
            empty = f'\n\ndef {job}(**given):\n    open(given["{path}"], "w").close()\n'
            file.write_text(file.read_text() + empty)
        progress("overhead: a study up to its cells")
        project.run("--until", "cells")
        progress(f"overhead: {sum(jobs.values())} jobs that do nothing")
        seconds = runs(project, jobs)
        files = [path for step in jobs for path in (project.results / step).rglob("*.parquet")]
        assert len(files) == sum(jobs.values())
        return seconds, sorted(path.stat().st_mtime for path in files)


def bench_overhead(quick: bool) -> list[dict]:
    """What Snakemake takes for a cell's job."""
    seconds, written = empty_jobs(1, 2 if quick else 4, timed_runs)
    count = len(written)
    notes = [f"overhead: {told(seconds)}; divided by the number of jobs"]
    return [
        row(
            "overhead", f"a job of {count}, less nothing to do", "", (seconds["run"] - seconds["nothing"]) / count, None
        )
        | {"jobs": count, "seconds": seconds, "notes": notes},
        row("overhead", f"a job of {count}, less a single job", "", (seconds["run"] - seconds["single"]) / count, None),
    ]


def bench_scale(quick: bool) -> list[dict]:
    """What Snakemake takes for a cell's job when there are tens of thousands: the first tenth and the last."""
    networks, targets = (5, 10) if quick else (23, 10)
    _, written = empty_jobs(networks, targets, lambda project, jobs: {"run": timed(project, "--until", *jobs)})
    tenth = len(written) // 10
    first, last = ((times[-1] - times[0]) / (tenth - 1) for times in (written[:tenth], written[-tenth:]))
    return [
        row("scale", f"a job of {len(written)}, the first tenth", "the last tenth", first, last)
        | {"jobs": len(written), "seconds": written[-1] - written[0]}
    ]


def open_images(names: np.ndarray, source: ImageSource, batch: slice) -> torch.Tensor:
    return images_job.load(names[batch], source)


@torch.inference_mode()
def bare_tails(
    results: Path, source: NetworkSource, chosen: Sequence[str], targets: Sequence[str]
) -> tuple[dict, dict]:
    """Seconds of the tails of a study's ablations and of what a grid's tails share, and the ranks by file."""
    name = source.model
    traced = networks_job.engine(source, device="cpu")
    nodes = networks_job.layer_nodes(str(results / "networks" / name / "layers.parquet"))
    seconds, ranks = {"tails": 0.0, "shared": 0.0}, {}
    for layer in chosen:
        for target in targets:
            rows = images_job.rows(str(results / "images.parquet"), class_id=target)
            labels = torch.tensor(rows["label"]).long()
            load = functools.partial(open_images, rows["source"], source.images)
            start = time.perf_counter()
            tail, batches = group(traced, layer, nodes, load, len(labels))
            seconds["shared"] += time.perf_counter() - start
            for cell in CELLS:
                grid = str(results / "cells" / name / layer / f"{target}.parquet")
                at = {"network": name, "layer": layer, "class_id": target, "seed": None}
                units = groups_job.find(grid, cell, "cell", **at).units
                start = time.perf_counter()
                logits = torch.cat([tail(ablate(first, units, 0.0), *rest) for first, *rest in batches])
                seconds["tails"] += time.perf_counter() - start
                ranks[f"ablations/{name}/{layer}/{target}/{cell}.parquet"] = scores.ranks(logits, labels).tolist()
    return seconds, ranks


def bench_stage(quick: bool) -> list[dict]:
    """The ablations of a study under Snakemake beside their tails alone, in a process of their own."""
    model, classes, count = "mobilenet_v2", ("a", "b", "c", "d"), 16 if quick else 50
    chosen, targets = layer_names.select(model, 2 if quick else 3), classes[: 1 if quick else 2]
    transform = {"resize": SIZE, "crop": SIZE, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images"
        generator = np.random.default_rng(7)
        for class_id in classes:
            (path / class_id).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (64, 64, 3), np.uint8)
                Image.fromarray(pixels).save(path / class_id / f"{i:02d}.png")
        network = {
            "name": model,
            "model": model,
            "outputs": OUTPUTS,
            "weights": "random",
            "transform": transform,
            "layers": list(chosen),
            "classes": "all",
            "targets": list(targets),
        }
        study = {
            "study": "stage",
            "seed": 0,
            "images": {"dataset": "folder", "path": str(path), "study": count},
            "networks": [network],
            "activations": {"dtype": "float16"},
            # One pass through the tail a cell, as the bare tails have it.
            "probes": {"crossfit": None},
            "ablations": {"protocols": ["published"]},
            "controls": None,
            "figures": {"network": model, "layer": None, "target": None},
            "device": "cpu",
        }
        project = Project.create(Path(folder) / "project", study)
        project.limit = None
        progress("stage: a study up to its cells")
        project.run("--until", "cells")
        source = NetworkSource(model, OUTPUTS, "random-0", ImageSource("folder", str(path), transform))

        def bare() -> tuple[dict, dict]:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                return pool.submit(bare_tails, project.results, source, chosen, targets).result()

        # Before and after, so that a machine that gets slower or faster favours neither.
        before, ranks = bare()
        jobs = len(ranks)
        progress(f"stage: {jobs} ablations, whose bare tails took {number(before['tails'])} s")
        seconds = timed_runs(project, {"ablations": jobs})
        bares = [before, bare()[0]]
        columns = ["rank_baseline", "rank_ablated"]
        found = {name: parquet.read(project.results / name, ablations_job.SCHEMA, columns) for name in ranks}
    tails = statistics.mean(seconds["tails"] for seconds in bares)
    differ = sum(table["rank_ablated"].to_pylist() != ranks[name] for name, table in found.items())
    moved = sum(table["rank_ablated"] != table["rank_baseline"] for table in found.values())
    note = (
        f"stage: {told(seconds)}; bare tails before and after it "
        f"{' and '.join(number(seconds['tails']) for seconds in bares)} s, what a grid's cells share "
        f"{number(before['shared'])} s; {count} images, {len(chosen)} layers; of {jobs} files {moved} with ranks moved, unequal to the bare tails': {differ}"
    )
    case = f"{jobs} ablations"
    return [
        row("stage", f"{case}, less nothing to do", "bare tail", seconds["run"] - seconds["nothing"], tails, 0.8)
        | {"jobs": jobs, "images": count, "seconds": seconds | {"bare": bares}, "notes": [note]}
        | {"failures": [f"stage: {differ} of {jobs} files have other ranks than the bare tails"] if differ else []},
        row("stage", f"{case}, less a single job", "bare tail", seconds["run"] - seconds["single"], tails),
        row("stage", f"{case}, whole run", "bare tail", seconds["run"], tails),
    ]


# What comes out.


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(digits, 0), 6)}f}"


def table(lines: Sequence[dict]) -> str:
    """The lines in aligned columns, numbers to the right."""
    head = ("part", "case", "beside", "ours, s", "other, s", "ratio", "goal", "")
    text = [
        (
            line["part"],
            line["case"],
            line["beside"],
            *(number(line[key]) for key in ("ours", "other", "ratio")),
            f">= {line['goal']}" if line["goal"] else "",
            {None: "", True: "met", False: "not met"}[line["met"]],
        )
        for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(head, *text, strict=True)]
    sides = [str.ljust] * 3 + [str.rjust] * 3 + [str.ljust] * 2
    return "\n".join(
        "  ".join(side(cell, width) for side, cell, width in zip(sides, cells, widths, strict=True)).rstrip()
        for cells in (head, *text)
    )


def main() -> None:
    benches = {"networks": bench_networks, "probe": bench_probe, "overhead": bench_overhead, "stage": bench_stage}
    usual = ",".join(benches)
    benches |= {"scale": bench_scale}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer images, layers, draws and repeats: a glance")
    parser.add_argument("--only", metavar="PARTS", default=usual, help="some of %(default)s,scale")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := sorted(set(chosen) - set(benches)):
        parser.error(f"--only: no part {', '.join(unknown)}; there are {', '.join(benches)}")
    process.prepare()
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    start = time.perf_counter()
    report |= {part: bench(options.quick) for part, bench in benches.items() if part in chosen}
    report["seconds"] = time.perf_counter() - start
    lines = [line for part in benches for line in report.get(part, [])]
    if options.quick:
        # Two layers and few images say nothing of a network.
        for line in lines:
            line |= {"goal": None, "met": None}
    output = ROOT / "results" / "bench.json"
    output.parent.mkdir(exist_ok=True)
    partial = output.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.replace(output)
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), end="\n\n")
    print(table(lines), end="\n\n")
    print("\n".join(note for line in lines for note in line.get("notes", [])))
    if failures := [failure for line in lines for failure in line.get("failures", [])]:
        sys.exit("\n".join(["", *failures]))


if __name__ == "__main__":
    main()
