"""What a finished study shows of the images that its networks recognise: a control where accuracy is low.

`python -m commands.recognised study.yaml`, with `workflow` on Python's path, takes the outcomes of the ablations anew
from the images whose right class is among the first ten before any ablation, and judges the claims by them. Probes stay
as they are. Claims that are compared with pseudo-targets in these outcomes cannot be judged so.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from commands import finished
from inputs.study import Network, Study
from jobs import tables
from readout import StudyError, cells
from readout.folds import HALVES
from readout.verdicts import EVERY, POOLED, estimate

BELOW = 10
"""Images with a lower baseline rank count as recognised; the right class is then among the first ten."""
SHOWN = ("rank_deficit", "separation_loss_zero", "separation_loss_mean", "separation_loss_erase")
"""Columns whose grids are printed."""


def recognised(study: Study, network: Network, below: int = BELOW) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The columns [K, L, S, M] that ablations have, of these images alone; and how many images either side has [K, 2].

    Of a target without such images on both sides, in either half of the folds, every column is NaN. Raises StudyError
    where that is every target.
    """
    names, size = cells.names(study.bins), (len(network.targets), len(network.layers), *study.bins)
    columns: dict[str, np.ndarray] = {}
    counts = np.zeros((len(network.targets), 2), int)
    baselines = {c: f"{study.results}/baseline/{network.name}/{c}.parquet" for c in network.classes}
    for k, target in enumerate(network.targets):
        others = study.others(network.name, target)
        reference = tables.Reference.of(f"{study.results}/images.parquet", baselines, target, others)
        known = reference.images.rank < below
        is_target = reference.images.side == 0
        sides = [known & reference.sampled & side for side in (is_target, ~is_target)]
        counts[k] = [side.sum() for side in sides]
        if not all((side & np.isin(reference.fold, half)).any() for side in sides for half in HALVES.values()):
            continue
        for lay, layer in enumerate(network.layers):
            for place, cell in enumerate(names):
                path = f"{study.results}/ablations/{network.name}/{layer}/{target}/{cell}.parquet"
                for protocol, intervention, done in tables.ablated(path, reference, {}):
                    found = done.only(done.before.rank < below).columns(protocol, intervention)
                    for name, value in found.items():
                        column = columns.setdefault(name, np.full(size, np.nan))
                        column[(k, lay, *divmod(place, study.bins[1]))] = np.nan if value is None else value
    if not columns:
        raise StudyError(f"{network.name}: no target has images of both sides with a baseline rank below {below}")
    return columns, counts


def text(study: Study, registry: Mapping, below: int = BELOW) -> str:
    """The number of images, the claims, and grids of all images and of those that are recognised, as Markdown."""
    every = finished.outcomes(study)
    some, counts = {}, {}
    for name, network in study.networks.items():
        columns, counts[name] = recognised(study, network, below)
        # What pseudo-targets read is of all images, as probes are; what they lose is not comparable.
        pseudo = {key: value for key, value in every[name].pseudo.items() if key == "auroc"}
        some[name] = replace(every[name], columns={**every[name].columns, **columns}, pseudo=pseudo)
    lines = [
        f"Images with a baseline rank below {below}:",
        "",
        "| network | target | its images | the others' |",
        "|---|---|---|---|",
    ]
    for name, network in study.networks.items():
        lines += [f"| {name} | {t} | {a} | {b} |" for t, (a, b) in zip(network.targets, counts[name], strict=True)]
    lines += ["", "| claim | test | all images | estimate | recognised | estimate |", "|---|---|---|---|---|---|"]
    pairs = [
        [r for r in rows if r["network"] == POOLED and r["targets"] == EVERY and r["role"] != "beside"]
        for rows in (finished.judge(study, registry, found) for found in (every, some))
    ]
    for one, other in zip(*pairs, strict=True):
        entries = [f"{row['verdict']} | {_estimate(row)}" for row in (one, other)]
        lines.append(f"| {one['claim']} | {one['role']} | {' | '.join(entries)} |")
    for name in study.networks:
        lines += ["", f"{name}: means over layers and targets, of all images and of those that are recognised", ""]
        columns = [found[name].columns for found in (every, some)]
        shown = [column for column in SHOWN if column in columns[0]]
        lines += ["| cell | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
        for place, cell in enumerate(cells.names(study.bins)):
            at = (..., *divmod(place, study.bins[1]))
            values = [[np.nanmean(of[column][at]) for of in columns] for column in shown]
            lines.append(f"| {cell} | " + " | ".join(f"{a:.3g} / {b:.3g}" for a, b in values) + " |")
    return "\n".join(lines)


def _estimate(row: Mapping) -> str:
    return row["reason"] if row["estimate"] is None else estimate(row)


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(prog="python -m commands.recognised", description=__doc__)
    parser.add_argument("study", type=Path, nargs="?", help="the study's file; without one, the default study")
    parser.add_argument("--below", type=int, default=BELOW, help="the bound on the baseline rank (%(default)s)")
    given = parser.parse_args()
    try:
        print(text(finished.study(given.study), finished.registry(), given.below))
    except (StudyError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
