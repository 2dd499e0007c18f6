"""Step `observers`: what baselines and machine observers choose in the trials of a network."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch

from inputs.sources import NetworkSource
from jobs import image_sets, images, networks
from jobs.image_sets import OK
from jobs.pictures import pixels, stimuli
from jobs.trials import ASKED, read_trials
from readout import StudyError, baselines, cuts, observers
from readout.conditions import NONE
from readout.layers import Channels, axes, studied
from readout.observers import Gallery, Similarity, Trial
from readout.tracing import is_layer
from runtime import parquet, process

SCHEMA = pa.schema(
    [
        *ASKED,
        ("observer", pa.string()),
        ("p", pa.float64()),
        ("correct", pa.float64()),
        ("relative_difference", pa.float64()),
    ]
)
"""A row per trial and observer; `p` is the probability of choosing the max query."""
INTERPRETABILITY = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("cell", pa.string()),
        ("unit", pa.int32()),
        ("similarity", pa.string()),
        ("score", pa.float64()),
        ("hard_score", pa.float64()),
        ("temperature", pa.float64()),
        ("tasks", pa.int32()),
    ]
)
"""A row per unit and similarity; a task per image set."""
Grid = tuple[str, str, str]
"""Network, layer and target. A unit's number says which it is within its grid alone."""
PRIOR = ("centre", "variance", "saliency_sr")
"""Baselines whose differences the prior observer combines."""
BATCH = 64
"""Images in one pass of the network that says how probable a class is, and photographs that are read at once."""
RETURNS = 8
"""Trials after which free memory goes back to the system."""
DECODED = 4096
"""Pictures that are kept decoded: of 16 units in 5 conditions all are, and of large studies they take 0.6 GB."""


class _Pictures(Mapping[str, np.ndarray]):
    """Pictures by name, uint8 [3, H, W], which are kept as PNGs."""

    def __init__(self, pngs: Mapping[str, bytes]):
        self._pngs = pngs
        self._decoded = lru_cache(DECODED)(lambda name: pixels(pngs[name]).transpose(2, 0, 1))

    def __getitem__(self, name: str) -> np.ndarray:
        return self._decoded(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pngs)

    def __len__(self) -> int:
        return len(self._pngs)


@dataclass(frozen=True)
class _Trials:
    """Trials: the rows of `trials.parquet`, the trials as observers see them, and rows of `extremes.parquet`."""

    rows: list[dict]
    seen: list[Trial]
    extremes: list[dict]

    def at(self, chosen: Sequence[int]) -> "_Trials":
        """Some of them."""
        return _Trials(*([column[i] for i in chosen] for column in (self.rows, self.seen, self.extremes)))

    def of(self, with_references: bool) -> "_Trials":
        """Those with references, or those whose condition has none.

        A trial whose visualisations all failed is in neither.
        """
        if with_references:
            return self.at([i for i, row in enumerate(self.rows) if row["references"]])
        return self.at([i for i, row in enumerate(self.rows) if row["condition"] == NONE])


def _at(grid: Grid) -> dict[str, str]:
    """The columns that say which grid a row is of."""
    return dict(zip(("network", "layer", "class_id"), grid, strict=True))


def _same(grid: Grid, unit: Mapping) -> tuple[str, int]:
    """What makes units one and the same to observers: the layer and the channel, whatever the target."""
    # ASSUME: units of one channel are one unit to the observers: they look for the same at other places.
    return grid[1], unit["channel"]


def _trials(
    paths_to_trials: Mapping[Grid, str],
    paths_to_extremes: Mapping[Grid, str],
    units: Mapping[Grid, Mapping[int, dict]],
    sets: Mapping[Grid, Sequence[dict]],
    width: int,
) -> _Trials:
    """The trials of all grids, ordered by grid, unit, image set and condition."""
    found = _Trials([], [], [])
    for grid in sorted(paths_to_trials):
        bases = image_sets.shown(units[grid].values(), sets[grid], "base")
        valid = [row for row in image_sets.extremes(paths_to_extremes[grid], bases, width) if row["valid"]]
        by_set = {(row["unit"], row["set"]): row for row in valid}
        rows = sorted(
            read_trials(paths_to_trials[grid]),
            key=lambda row: (row["unit"], row["set"], row["condition"], row["trial"]),
        )
        told = {(row["unit"], row["set"], row["cell"], row["relative_difference"]) for row in rows}
        if told != {(*key, units[grid][key[0]]["cell"], row["relative_difference"]) for key, row in by_set.items()}:
            image_sets.refuse(
                paths_to_trials[grid], f"has not the trials of the queries in {paths_to_extremes[grid]}, once each"
            )
        for row in rows:
            at = by_set[row["unit"], row["set"]]
            found.rows.append(row | _at(grid))
            found.extremes.append(at)
            found.seen.append(
                Trial(
                    unit=_same(grid, units[grid][row["unit"]]),
                    base=row["base"],
                    max=row["max"],
                    min=row["min"],
                    max_at=(at["max_top"], at["max_left"]),
                    min_at=(at["min_top"], at["min_left"]),
                    side=at["size"],
                    references=tuple(row["references"]),
                )
            )
    return found


def _shown(trials: _Trials, paths_to_stimuli: Mapping[Grid, str]) -> _Pictures:
    """The pictures of all trials. Names say what they hold, so that grids share them."""
    names: dict[Grid, set[str]] = {}
    for row in trials.rows:
        of_grid = names.setdefault((row["network"], row["layer"], row["class_id"]), set())
        of_grid.update((row["base"], row["max"], row["min"], *row["references"]))
    pngs: dict[str, bytes] = {}
    for grid, of_grid in names.items():
        pngs |= stimuli(paths_to_stimuli[grid], sorted(of_grid))
    return _Pictures(pngs)


def _answers(trials: _Trials, observer: str, p: np.ndarray, correct: np.ndarray) -> Iterator[dict]:
    """Rows of one observer."""
    for row, each, right in zip(trials.rows, p, correct, strict=True):
        yield {name: row[name] for name in SCHEMA.names if name in row} | {
            "observer": observer,
            "p": float(each),
            "correct": float(right),
        }


def _values(trials: _Trials, pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values of the baselines that see the base image alone: of the max and the min query [trials, 2], by name.

    Times the baseline's direction, so that the larger value is chosen.
    """
    by_base: dict[str, list[int]] = {}
    for i, trial in enumerate(trials.seen):
        by_base.setdefault(trial.base, []).append(i)
    found = {name: np.empty((len(trials.seen), 2)) for name in PRIOR}
    # One image after the other: all at once would take much memory.
    for base, of_base in by_base.items():
        image = pictures[base] / 255
        salient = baselines.saliency_map(image)
        for i in of_base:
            trial = trials.seen[i]
            squares = trial.max_at, trial.min_at
            found["centre"][i] = [baselines.centre(at, trial.side, image.shape[1:]) for at in squares]
            found["variance"][i] = [baselines.variance(image, at, trial.side) for at in squares]
            found["saliency_sr"][i] = [baselines.saliency(salient, at, trial.side) for at in squares]
    return {name: baselines.DIRECTION[name] * values for name, values in found.items()}


@torch.inference_mode()
def _class_values(
    trials: _Trials, pictures: Mapping[str, np.ndarray], source: NetworkSource, device: str
) -> np.ndarray:
    """Probability of the base image's predicted class in the max and the min query [trials, 2]."""
    traced, prepared = networks.engine(source, device=device), networks.prepared(source)
    mean, std = (torch.tensor(prepared.transform[name]).view(3, 1, 1) for name in ("mean", "std"))
    names = list(dict.fromkeys(name for trial in trials.seen for name in (trial.base, trial.max, trial.min)))
    found = []
    for start in range(0, len(names), BATCH):
        x = torch.from_numpy(np.stack([pictures[name] for name in names[start : start + BATCH]])).float() / 255
        scores = traced(networks.to_device((x - mean) / std, networks.torch_device(device)))
        found.append(scores.double().softmax(1).cpu().numpy())
    by_name = dict(zip(names, np.concatenate(found), strict=True))
    predicted = {trial.base: by_name[trial.base].argmax() for trial in trials.seen}
    return np.array(
        [[by_name[name][predicted[trial.base]] for name in (trial.max, trial.min)] for trial in trials.seen]
    )


def sibling(name: str, source: NetworkSource, device: str) -> Similarity:
    """Similarity by another network: its last layer's output, mean over space.

    StudyError where the network has no layer.
    """
    traced, prepared = networks.engine(source, device=device), networks.prepared(source)
    nodes = [node for node in traced.graph.nodes if is_layer(traced, node) and studied(node)]
    if not nodes:
        raise StudyError(f"observers: {name} has no non-linearity before its scores; leave it out")
    prefix = cuts.cut(traced, nodes[-1].name).prefix
    channels = Channels.of(axes(traced, nodes[-1]), nodes[-1].meta["measured"][0].shape[1:])
    transform = prepared.transform
    return observers.of_network(
        f"sibling_{name}",
        lambda x: channels.apart(prefix(x)[0]).mean(2),
        size=transform["crop"],
        mean=transform["mean"],
        std=transform["std"],
        device=networks.torch_device(device),
    )


def _without_references(
    trials: _Trials,
    pictures: Mapping[str, np.ndarray],
    source: NetworkSource,
    device: str,
    seed: int,
) -> Iterator[dict]:
    """Rows of the baselines, of the prior observer, the coin and the oracle."""
    values = _values(trials, pictures)
    for name, of_queries in (values | {"class": _class_values(trials, pictures, source, device)}).items():
        right = baselines.choose(*of_queries.T)
        yield from _answers(trials, name, right, right)
    differences = np.stack([observers.evidence(*values[name].T) for name in PRIOR], 1)
    evidence = observers.prior(differences, [trial.unit for trial in trials.seen])
    yield from _answers(trials, "prior", observers.probability(evidence, 1.0), observers.correct(evidence))
    tossed = np.array([observers.coin(trial, seed) for trial in trials.seen])
    yield from _answers(trials, "coin", np.full(len(tossed), 0.5), tossed)
    known = np.array([observers.oracle(row["max"], row["min"]) for row in trials.extremes])
    yield from _answers(trials, "oracle", known, known)


def _weighed(trials: _Trials, observer: str, evidence: np.ndarray, random: np.ndarray) -> Iterator[dict]:
    """Rows of an observer from its evidence [trials], and that of random pairings, which give the temperature."""
    p = observers.probability(evidence, observers.temperature(random))
    yield from _answers(trials, observer, p, observers.correct(evidence))


def _generator(*parts: object) -> np.random.Generator:
    """A generator of its own for a draw; what else is drawn does not change it."""
    return np.random.default_rng(list(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()))


def _preferences(
    kind: str, gallery: Gallery, trials: Sequence[Trial], references: Iterable[Sequence[str]]
) -> np.ndarray:
    """Evidence of an observer of `observers.KINDS` in trials, from the references that are given for each [trials]."""
    found = []
    for trial, names in zip(trials, references, strict=True):
        found.append(observers.preference(kind, gallery, trial, names))
        # Features that are kept lie between what large pictures took and left, which would add up.
        if len(found) % RETURNS == 0:
            process.give_back()
    return np.array(found)


def _with_references(
    trials: _Trials, pictures: Mapping[str, np.ndarray], similarities: Sequence[Similarity], seed: int
) -> Iterator[dict]:
    """Rows of the observers that compare with references, under each similarity."""
    conditions = np.array([row["condition"] for row in trials.rows])
    seen, paired = list(trials.seen), list(trials.seen)
    for condition in np.unique(conditions):
        at, generator = np.flatnonzero(conditions == condition), _generator(seed, condition)
        of_condition = observers.with_others([trials.seen[i] for i in at], generator)
        for i, trial, pair in zip(at, of_condition, observers.re_paired(of_condition, generator), strict=True):
            seen[i], paired[i] = trial, pair
    # Of all trials of a condition or of none: where it has one unit alone, there is nothing to leave out.
    relative = [i for i, trial in enumerate(seen) if trial.others]
    with_others = [seen[i] for i in relative]
    for similarity in similarities:
        gallery = Gallery(similarity, pictures)
        for kind in observers.KINDS:
            own, random = (
                _preferences(kind, gallery, seen, [trial.references for trial in each]) for each in (seen, paired)
            )
            yield from _weighed(trials, f"{kind}_{similarity.name}", own, random)
            if relative:
                others = _preferences(kind, gallery, with_others, [trial.others for trial in with_others])
                left = (observers.evidence(each[relative], others) for each in (own, random))
                yield from _weighed(trials.at(relative), f"{kind}_relative_{similarity.name}", *left)


@dataclass(frozen=True)
class _Task:
    """A two-alternative task of a unit: names of images, the maximal and the minimal ones."""

    grid: Grid
    unit: int
    same: tuple[str, int]
    queries: tuple[str, str]
    references: tuple[tuple[str, ...], tuple[str, ...]]


def _tasks(sets: Mapping[Grid, Sequence[dict]], units: Mapping[Grid, Mapping[int, dict]]) -> list[_Task]:
    """A task per unit that varies and image set, ordered by grid, unit and set: base images are the queries."""
    tasks = []
    for grid in sorted(sets):
        by_set: dict[tuple[int, int], dict[tuple[str, str], list[str]]] = {}
        for row in sets[grid]:
            found = by_set.setdefault((row["unit"], row["set"]), {})
            found.setdefault((row["side"], row["role"]), []).append(row["source"])
        for (unit, _), found in sorted(by_set.items()):
            # Nothing can be read of a unit that never varies.
            if units[grid][unit]["status"] == OK:
                queries = tuple(found[side, "base"][0] for side in ("top", "bottom"))
                references = tuple(tuple(found[side, "reference"]) for side in ("top", "bottom"))
                tasks.append(_Task(grid, unit, _same(grid, units[grid][unit]), queries, references))
    return tasks


def _photographs(tasks: Sequence[_Task], source: NetworkSource) -> dict[str, np.ndarray]:
    """The images of tasks as they are shown, uint8 [3, H, W], by name."""
    prepared = networks.prepared(source)
    names = sorted({name for task in tasks for group in (task.queries, *task.references) for name in group})
    mean, std = (torch.tensor(prepared.transform[name]).view(3, 1, 1) for name in ("mean", "std"))
    found = {}
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        shown = ((images.load(some, prepared) * std + mean) * 255).round().clamp(0, 255)
        found |= dict(zip(some, shown.to(torch.uint8).numpy(), strict=True))
    return found


def _interpretability(
    tasks: Sequence[_Task],
    units: Mapping[Grid, Mapping[int, dict]],
    source: NetworkSource,
    similarities: Sequence[Similarity],
    seed: int,
) -> Iterator[dict]:
    """Rows of `INTERPRETABILITY`."""
    if not tasks:
        return
    pictures = _photographs(tasks, source)
    by_unit: dict[tuple[Grid, int], list[int]] = {}
    for i, task in enumerate(tasks):
        by_unit.setdefault((task.grid, task.unit), []).append(i)
    same = observers.numbered([task.same for task in tasks])
    generator = np.random.default_rng(seed)
    # References of another unit, or of any where there is one alone.
    drawn = [generator.choice(np.flatnonzero(same != one) if (same != one).any() else len(same)) for one in same]
    for similarity in similarities:
        gallery = Gallery(similarity, pictures)
        found = np.array([observers.task_evidence(gallery, task.queries, task.references) for task in tasks])
        temperature = similarity.temperature
        # ASSUME: where no temperature is known, the one that observers have: by random pairings.
        if temperature is None:
            temperature = observers.temperature(
                [
                    observers.task_evidence(gallery, task.queries, tasks[i].references)
                    for task, i in zip(tasks, drawn, strict=True)
                ]
            )
        for (grid, unit), own in by_unit.items():
            score, hard = observers.interpretability(found[own], temperature)
            yield _at(grid) | {
                "cell": units[grid][unit]["cell"],
                "unit": unit,
                "similarity": similarity.name,
                "score": score,
                "hard_score": hard,
                "temperature": temperature,
                "tasks": len(own),
            }


def observe(
    *,
    path_to_observers: str,
    path_to_interpretability: str,
    paths_to_trials: Mapping[Grid, str],
    paths_to_stimuli: Mapping[Grid, str],
    paths_to_extremes: Mapping[Grid, str],
    paths_to_sets: Mapping[Grid, str],
    paths_to_units: Mapping[Grid, str],
    siblings: Mapping[str, NetworkSource],
    source: NetworkSource,
    device: str,
    seed: int,
    made: str | None = None,
) -> str:
    """Write what each observer chooses in a network's trials, and the machine interpretability score of each unit.

    Files are by (network, layer, target), all of one network. What an observer knows of other units, and its
    temperature, are of all of them. `siblings` are networks by name with the model of `source` and other weights; the
    observers compare by their features, too. Rows of observers without references are in condition none alone: the
    queries are the same in all.
    """
    units, sets = {}, {}
    for grid, path in paths_to_units.items():
        of_grid, sets[grid] = image_sets.listed(path, paths_to_sets[grid])
        units[grid] = {row["unit"]: row for row in of_grid}
    width = networks.prepared(source).transform["crop"]
    shown = _trials(paths_to_trials, paths_to_extremes, units, sets, width)
    pictures = _shown(shown, paths_to_stimuli)
    similarities = [observers.HAND, observers.SSIM, *(sibling(name, each, device) for name, each in siblings.items())]
    rows = []
    plain, explained = shown.of(with_references=False), shown.of(with_references=True)
    if plain.rows:
        rows += _without_references(plain, pictures, source, device, seed)
    if explained.rows:
        rows += _with_references(explained, pictures, similarities, seed)
    rows.sort(key=lambda row: [row[name] for name in ("layer", "class_id", "unit", "set", "condition", "observer")])
    tasks = _tasks(sets, units)
    scores = list(_interpretability(tasks, units, source, similarities, seed))
    scores.sort(key=lambda row: [row[name] for name in ("layer", "class_id", "unit", "similarity")])
    parquet.write(path_to_observers, rows, SCHEMA, made)
    parquet.write(path_to_interpretability, scores, INTERPRETABILITY, made)
    return f"{len({row['observer'] for row in rows})} observers, {len(shown.rows)} trials"
