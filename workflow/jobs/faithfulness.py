"""Step `faithfulness`: which measure of importance finds the units that each network needs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from jobs import tables
from readout import StudyError, faithfulness, faithfulness_page
from readout.verdicts import POOLED
from runtime import files, parquet

SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("what", pa.string()),
        ("intervention", pa.string()),
        ("measure", pa.string()),
        ("label", pa.string()),
        *((name, pa.float64()) for name in ("estimate", "ci_low", "ci_high", "ci_low_at_once", "ci_high_at_once")),
        *((name, pa.float64()) for name in ("rank", "rank_low", "rank_high")),
        *((name, pa.float64()) for name in ("reach", "reach_low", "reach_high")),
        ("found", pa.bool_()),
        ("best", pa.bool_()),
        ("classes", pa.int32()),
        ("layers", pa.int32()),
        ("forward", pa.int32()),
        ("backward", pa.int32()),
    ]
)
"""A row per network (and all trained ones), measure and what is said of it.

`what` is `ablate` or `keep`, whose estimate is the gain, or `cells`, whose estimate is a rank correlation over cells.
"""
NUMBERS = (
    "estimate",
    "ci_low",
    "ci_high",
    "ci_low_at_once",
    "ci_high_at_once",
    "rank",
    "rank_low",
    "rank_high",
    "reach",
    "reach_low",
    "reach_high",
)
OPTIONAL = (*NUMBERS, "found", "best", "forward", "backward")
KEEP = "keep_"
PROBES = {"score_published": "published probe score", "auroc": "probe AUROC"}
"""Of a cell as a whole, from the table of cells."""
SIMILARITY = {
    "similarity_kendall": "similarity of images (Kendall)",
    "similarity_spearman": "similarity of images (Spearman)",
}


def _array(frame: pd.DataFrame, value: str, axes: Mapping[str, Sequence], path: str) -> np.ndarray:
    """The values of a frame as an array with an axis for each of its columns in `axes`; NaN where one is missing."""
    wide = frame.set_index(list(axes))[value]
    index = pd.MultiIndex.from_product(axes.values(), names=list(axes))
    if not wide.index.is_unique or len(index.difference(wide.index)):
        raise StudyError(f"{path}: has not every combination of {', '.join(axes)} once; {parquet.again(path)}")
    return wide.reindex(index).to_numpy(float).reshape([len(values) for values in axes.values()])


class _Rankings:
    """What the tops of rankings cost, by network."""

    def __init__(self, path: str, networks: Mapping[str, Mapping], measures: Sequence[str]):
        untrained = [name for name, network in networks.items() if network["untrained"]]
        names = [
            "network",
            "layer",
            "depth",
            "class_id",
            "intervention",
            "measure",
            "one_in",
            "kind",
            "separation_loss",
        ]
        table = parquet.read(path, tables.GROUPS, columns=names, optional=tables.GROUP_OPTIONAL)
        frame = table.to_pandas(ignore_metadata=True)
        self.path, self.measures = path, list(measures)
        # Without a gap, the losses of untrained networks are shares of nothing.
        frame["separation_loss"] = frame["separation_loss"].mask(frame["network"].isin(untrained))
        self.frame = frame[frame["kind"] == "ranked"]
        self.random = sorted(set(self.frame["measure"]) - set(measures))
        self.interventions = list(dict.fromkeys(self.frame["intervention"]))
        self.layers = {
            name: list(self.frame[self.frame["network"] == name].sort_values("depth")["layer"].unique())
            for name in networks
        }

    def gains(self, network: str, intervention: str, targets: Sequence[str]) -> np.ndarray:
        """Of each measure [K, L, M] under an intervention; of kept tops, in what is kept of the gap."""
        rows = self.frame[(self.frame["network"] == network) & (self.frame["intervention"] == intervention)]
        one_in = sorted(rows["one_in"].astype(int).unique())
        axes = {"class_id": targets, "layer": self.layers[network]}
        values = _array(
            rows, "separation_loss", {**axes, "measure": [*self.measures, *self.random], "one_in": one_in}, self.path
        )
        if intervention.startswith(KEEP):
            values = 1 - values
        measured, random = np.split(values, [len(self.measures)], axis=2)
        return faithfulness.gain(measured, random, one_in)


def _head(network: str, what: str, intervention: str, measure: str, registry: Mapping, layers: int) -> dict:
    known = registry.get(measure, {})
    label = (
        known.get("label") or {**PROBES, **SIMILARITY, faithfulness.BEST: "the best, chosen by other classes"}[measure]
    )
    head = {"network": network, "what": what, "intervention": intervention, "measure": measure, "label": label}
    costs = {name: known.get(name) for name in ("forward", "backward")}
    return dict.fromkeys(SCHEMA.names) | head | costs | {"layers": layers}


def _numbers(prefixes: Sequence[str], told: Sequence[float | None]) -> dict:
    return dict(zip(prefixes, told, strict=True))


def _gains(
    rankings: _Rankings,
    groups: Mapping[str, Sequence[str]],
    targets: Mapping[str, Sequence[str]],
    registry: Mapping,
    confidence: float,
) -> Iterator[tuple[dict, faithfulness.Result]]:
    """The rows of gains; `groups` are the networks of each row by its name, `targets` the classes."""
    for name, members in groups.items():
        layers = sum(len(rankings.layers[member]) for member in members)
        for intervention in rankings.interventions:
            what = "keep" if intervention.startswith(KEEP) else "ablate"
            gains = [rankings.gains(member, intervention, targets[name]) for member in members]
            found = faithfulness.compare(rankings.measures, gains, confidence)
            known = [each.gain[0] for each in found[:-1] if each.gain[0] is not None]
            for each in found:
                head = _head(name, what, intervention.removeprefix(KEEP), each.measure, registry, layers)
                numbers = (
                    _numbers(("estimate", "ci_low", "ci_high"), each.gain)
                    | _numbers(("rank", "rank_low", "rank_high"), each.rank)
                    | _numbers(("reach", "reach_low", "reach_high"), each.reach)
                )
                best = bool(known) and each is not found[-1] and each.gain[0] == max(known)
                numbers |= _numbers(("ci_low_at_once", "ci_high_at_once"), each.at_once)
                yield head | numbers | {"found": each.found, "best": best, "classes": each.classes}, each


def _relations(
    path_to_measures: str,
    path_to_cells: str,
    layers: Mapping[str, Sequence[str]],
    groups: Mapping[str, Sequence[str]],
    targets: Mapping[str, Sequence[str]],
    registry: Mapping,
    confidence: float,
) -> Iterator[dict]:
    """The rows of each measure's mean over cells, beside what the cells' ablations cost; the probes' among them."""
    measures = parquet.read(path_to_measures, tables.MEASURES, optional=("value",)).to_pandas(ignore_metadata=True)
    losses = [f"separation_loss_{name}" for name in ("zero", "mean")]
    names = ["network", "layer", "class_id", "cell", *PROBES, *losses]
    cells = parquet.read(path_to_cells, tables.CELLS, columns=names, optional=tables.OPTIONAL)
    cells = cells.to_pandas(ignore_metadata=True)
    order = sorted(cells["cell"].unique())
    known = [
        name for name in (*PROBES, *registry, *SIMILARITY) if name in PROBES or (measures["measure"] == name).any()
    ]
    for name, members in groups.items():
        for loss in losses:
            for measure in known:
                values, costs = [], []
                for member in members:
                    axes = {"class_id": targets[name], "layer": layers[member], "cell": order}
                    of_cells = cells[cells["network"] == member]
                    source = (
                        of_cells
                        if measure in PROBES
                        else measures[(measures["network"] == member) & (measures["measure"] == measure)]
                    )
                    path = path_to_cells if measure in PROBES else path_to_measures
                    of_cells = of_cells[of_cells["layer"].isin(layers[member])]
                    source = source[source["layer"].isin(layers[member])]
                    of_cells = of_cells[of_cells["class_id"].isin(targets[name])]
                    source = source[source["class_id"].isin(targets[name])]
                    values.append(_array(source, measure if measure in PROBES else "value", axes, path))
                    costs.append(_array(of_cells, loss, axes, path_to_cells))
                told, classes = faithfulness.relation(values, costs, confidence)
                if told[0] is None:
                    continue
                count = sum(len(layers[member]) for member in members)
                head = _head(name, "cells", loss.removeprefix("separation_loss_"), measure, registry, count)
                yield head | _numbers(("estimate", "ci_low", "ci_high"), told) | {"classes": classes}


def compare(
    *,
    path_to_faithfulness: str,
    path_to_page: str,
    path_to_groups: str,
    path_to_measures: str,
    path_to_cells: str,
    path_to_registry: str,
    networks: Mapping[str, Mapping],
    measures: Sequence[str],
    confidence: float,
    made: str | None = None,
) -> str:
    """Write `faithfulness.parquet`, and the same for readers as a page of HTML.

    `networks` says of each network which of its `targets` are ranked, and whether it is `untrained`; those that are not
    make the pooled rows, of the targets that all of them share.
    """
    registry = yaml.safe_load(Path(path_to_registry).read_text())
    rankings = _Rankings(path_to_groups, networks, measures)
    trained = [name for name, network in networks.items() if not network["untrained"]]
    groups = {name: [name] for name in networks}
    targets = {name: list(network["targets"]) for name, network in networks.items()}
    shared = [t for t in targets[trained[0]] if all(t in targets[name] for name in trained)] if trained else []
    if len(trained) > 1 and shared:
        groups, targets = {**groups, POOLED: trained}, {**targets, POOLED: shared}
    rows, results = [], {}
    for row, result in _gains(rankings, groups, targets, registry, confidence):
        rows.append(row)
        results.setdefault((row["network"], row["what"], row["intervention"]), []).append(result)
    rows += _relations(path_to_measures, path_to_cells, rankings.layers, groups, targets, registry, confidence)
    labels = {name: entry["label"] for name, entry in registry.items()}
    # What mean ablation shows, which leaves a unit within what it does; zero where there is nothing else.
    shown = "mean" if any(key[1:] == ("ablate", "mean") for key in results) else "zero"
    said = {
        name: faithfulness.sentence(name, results[name, "ablate", shown], labels, "probe_weight") for name in groups
    }
    parquet.write(path_to_faithfulness, rows, SCHEMA, made)
    with files.whole(path_to_page) as partial:
        partial.write_text(faithfulness_page.render(rows, said, shown, confidence), encoding="utf-8")
    return f"{len(rows)} rows"
