"""Figures of the occlusion task: how often observers are right, in which cells, and what explanations add where."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from readout import bridge
from readout.conditions import NONE
from readout.figures import CONTROL, message
from readout.legibility import DISPLAYED, EXPERTS, PEOPLE, PERSON, PRIOR, PUBLISHED
from readout.verdicts import POOLED

COLOURS = {
    "synthetic": "#d55e00",
    "natural": "#0072b2",
    "mixed": "#cc79a7",
    "blur": "#56b4e9",
    NONE: "#7f7f7f",
}
"""Of the conditions, everywhere."""
GROUPS = {"a": ("#b5332e", "^", "A: matters, not read best"), "p": ("#2f5fa8", "v", "P: read best, matters less")}
CHANCE = 0.5
WIDEST = 6
"""Grids of cells in a row."""


def _ordered(names: Collection[str], order: Sequence[str]) -> list[str]:
    return [name for name in order if name in names] + sorted(set(names) - set(order))


def _people_first(names: Collection[str], last: Collection[str] = ()) -> list[str]:
    """People and machine observers by name; those of `last`, who see no references, behind, the prior first of them."""
    return sorted(names, key=lambda name: (name != PERSON, name in last or name == PRIOR, name != PRIOR, name))


def _label(observer: str) -> str:
    return {PERSON: "people"}.get(observer, observer.replace("_", " "))


def _networks(table: pd.DataFrame, networks: Sequence[str], untrained: Collection[str]) -> list[str]:
    """All trained ones together first, the untrained ones last."""
    known = set(table["network"])
    return [
        name
        for name in (
            POOLED,
            *(n for n in networks if n not in untrained),
            *(n for n in networks if n in untrained),
        )
        if name in known
    ]


def _title(network: str) -> str:
    return "all trained" if network == POOLED else network


def _places(count: int) -> np.ndarray:
    """Where the conditions of one observer lie beside its middle."""
    return (np.arange(count) - (count - 1) / 2) * min(0.22, 0.8 / max(1, count))


def _published(axes: Axes) -> None:
    """People and experts with 2 SEM over participants, as in the paper's figure 5."""
    conditions = [name for name in DISPLAYED if name in PUBLISHED]
    for y, (count, error, trials) in enumerate(
        (("people", "people_sem2", PEOPLE), ("experts", "experts_sem2", EXPERTS))
    ):
        for condition, place in zip(conditions, _places(len(conditions)), strict=True):
            known = PUBLISHED[condition]
            value, half = getattr(known, count) / trials, getattr(known, error)
            look = {"color": COLOURS[condition], "markeredgecolor": COLOURS[condition], "markerfacecolor": "white"}
            axes.errorbar(value, y + place, xerr=half, fmt="s", markersize=4.2, elinewidth=1.4, capsize=2, **look)
    axes.set_yticks(range(2), ["people", "two experts"])
    axes.set_ylim(1.55, -0.55)


def _accuracies(axes: Axes, rows: pd.DataFrame, observers: Sequence[str], conditions: Sequence[str]) -> None:
    """A dot with its interval over units for each condition of an observer."""
    for y, observer in enumerate(observers):
        if y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color="0.965", linewidth=0, zorder=0)
        own = rows[rows["observer"] == observer].set_index("condition")
        there = [name for name in conditions if name in own.index]
        for condition, place in zip(there, _places(len(there)), strict=True):
            row, at = own.loc[condition], y + place
            axes.plot([row["low"], row["high"]], [at, at], color=COLOURS[condition], linewidth=1.6, zorder=2)
            axes.plot([row["estimate"]], [at], "o", markersize=3.8, color=COLOURS[condition], zorder=3, clip_on=False)
            if np.isfinite(row["sem2"]):
                ends = row["pooled"] + row["sem2"] * np.array([-1, 1])
                axes.plot(ends, [at, at], "|", color=COLOURS[condition], markersize=6, markeredgewidth=1.2)
    axes.set_yticks(range(len(observers)), list(map(_label, observers)))
    axes.set_ylim(len(observers) - 0.45, -0.55)


def accuracy(table: pd.DataFrame, networks: Sequence[str], untrained: Collection[str] = ()) -> Figure:
    """Accuracy by condition and observer in each network (down), beside the published ones (top, squares).

    `table` is that of legibility. Lines are intervals over units. Ticks at people's are 2 SEM over sessions, which is
    what the published ones have.
    """
    rows = table[(table["what"] == "accuracy") & (table["layer"] == "all")]
    if not len(rows):
        return message("no observer has answered a trial")
    names = _networks(rows, networks, untrained)
    # Their answers are the same whatever is shown.
    unseeing = set(rows["observer"]) - set(rows.loc[rows["condition"] != NONE, "observer"])
    observers = {name: _people_first(set(rows.loc[rows["network"] == name, "observer"]), unseeing) for name in names}
    heights = [2.6, *(max(1.5, len(observers[name])) for name in names)]
    size = (6.4, 0.3 * sum(heights) + 0.4 * len(heights) + 0.5)
    figure, axes = plt.subplots(len(heights), 1, figsize=size, sharex=True, height_ratios=heights, layout="constrained")
    _published(axes[0])
    axes[0].set_title("published: GoogLeNet, 18 channels, 2 SEM over participants", loc="left", fontsize=9)
    conditions = _ordered(set(rows["condition"]), DISPLAYED)
    for name, axis in zip(names, axes[1:], strict=True):
        own = rows[rows["network"] == name]
        _accuracies(axis, own, observers[name], conditions)
        count = int(own["n_units"].max())
        note = ", untrained: a control" if name in untrained else ""
        colour = CONTROL if name in untrained else "black"
        axis.set_title(f"{_title(name)}: {count} units{note}", loc="left", fontsize=9, color=colour)
    for axis in axes:
        axis.axvline(CHANCE, color=CONTROL, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axis.tick_params(axis="y", length=0, labelsize=8)
        axis.tick_params(axis="x", length=2, labelsize=8)
        axis.grid(axis="x", color="0.92", linewidth=0.6)
        axis.set_axisbelow(True)
        sns.despine(ax=axis, left=True)
    low = min(0.4, float(np.nanmin(rows[["low", "estimate"]].to_numpy())) - 0.02)
    axes[0].set_xlim(max(0.0, low), 1.0)
    axes[-1].set_xlabel("accuracy (dashed: chance)", fontsize=8)
    shown = _ordered({*conditions, *PUBLISHED}, DISPLAYED)
    entries = [Line2D([], [], color=COLOURS[name], marker="o", markersize=4, label=name) for name in shown]
    if PERSON in set(rows["observer"]):
        entries.append(Line2D([], [], color="0.3", marker="|", linestyle="", label="2 SEM over\nsessions"))
    figure.legend(handles=entries, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _grid(rows: pd.DataFrame, bins: Sequence[int]) -> np.ndarray:
    """Estimates as an array [selectivity, magnitude] of so many bins; NaN where a cell has no trial."""
    places = rows["part"].str.extract(r"s(\d+)m(\d+)").astype(int).to_numpy()
    values = np.full(tuple(bins), np.nan)
    values[places[:, 0], places[:, 1]] = rows["estimate"]
    return values


def cells(
    table: pd.DataFrame, networks: Sequence[str], untrained: Collection[str] = (), bins: Sequence[int] = (4, 4)
) -> Figure:
    """Accuracy over the grid of cells: networks down, observers across, in condition natural and of the prior in none.

    Where a study has not natural references, its first condition stands for them. Selectivity grows upwards, magnitude
    to the right; white is chance. `bins` are how many of selectivity and of magnitude the study's grids have.
    """
    rows = table[table["what"] == "cell"]
    shown = _ordered(set(rows["condition"]) - {NONE}, ("natural", *DISPLAYED))
    if not len(rows) or not shown:
        return message("no observer has answered a trial with references")
    seen = rows[rows["condition"] == shown[0]]
    prior = rows[(rows["condition"] == NONE) & rows["observer"].isin([PRIOR])]
    columns = [(name, shown[0]) for name in _people_first(set(seen["observer"]))]
    columns += [(PRIOR, NONE)] if len(prior) else []
    names = _networks(rows, networks, untrained)
    lines = [columns[i : i + WIDEST] for i in range(0, len(columns), WIDEST)]
    across, down = max(map(len, lines)), len(names) * len(lines)
    size = (1.55 * across + 1.7, 1.75 * down + 0.4)
    figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    used = pd.concat([seen, prior])["estimate"].to_numpy(float)
    reach = max(0.1, float(np.nanmax(np.abs(used - CHANCE))))
    image = None
    for i, (name, line) in enumerate((name, line) for name in names for line in lines):
        for j, axis in enumerate(grid[i]):
            axis.set_axis_off()
            if j >= len(line):
                continue
            observer, condition = line[j]
            own = rows[(rows["network"] == name) & (rows["observer"] == observer) & (rows["condition"] == condition)]
            if not len(own):
                continue
            axis.set_axis_on()
            values = _grid(own, bins)
            image = axis.imshow(values, origin="lower", cmap="PuOr_r", vmin=CHANCE - reach, vmax=CHANCE + reach)
            for (s, m), value in np.ndenumerate(values):
                if np.isfinite(value):
                    ink = "white" if abs(value - CHANCE) > 0.72 * reach else "black"
                    axis.text(m, s, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=7, color=ink)
            axis.set_xticks(range(values.shape[1]), [f"m{m}" for m in range(values.shape[1])])
            axis.set_yticks(range(values.shape[0]), [f"s{s}" for s in range(values.shape[0])] if j == 0 else [])
            axis.tick_params(length=0, labelsize=7)
            axis.set_title(f"{_label(observer)}, {condition}", fontsize=8)
            if j == 0:
                axis.set_ylabel(
                    _title(name), fontsize=9, weight="bold", color=CONTROL if name in untrained else "black"
                )
            sns.despine(ax=axis, left=True, bottom=True)
    bar = figure.colorbar(image, ax=grid, fraction=0.03, pad=0.02, aspect=30)
    bar.set_label("accuracy (white: chance)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _cells_with_gain(table: pd.DataFrame, of_cells: pd.DataFrame, observer: str, condition: str) -> pd.DataFrame:
    """The gain of each cell of each grid, beside what the cell's ablation costs and what a probe reads."""
    rows = table[
        (table["what"] == "gain_of_cell") & (table["observer"] == observer) & (table["condition"] == condition)
    ]
    rows = rows[["network", "layer", "class_id", "part", "estimate", "n_units"]]
    return rows.rename(columns={"part": "cell"}).merge(of_cells, on=[*bridge.GRID, "cell"])


def gain(
    table: pd.DataFrame,
    of_cells: pd.DataFrame,
    networks: Sequence[str],
    untrained: Collection[str] = (),
    observer: str | None = None,
    condition: str | None = None,
) -> Figure:
    """Gain of explanations by cell (a dot) against its ablation effect and the probe's AUROC; networks down.

    `table` is that of legibility, `of_cells` the table of cells. By default the observer is people where they have
    answered, else the first whose name begins with `patch_relative`, or with `patch`; the condition is natural where it
    is there. Groups A and P are marked, with their means as lines. Larger dots have more units.
    """
    rows = table[table["what"] == "gain_of_cell"]
    if not len(rows):
        return message("there are no gains: they take answers with references and without")
    known = _people_first(set(rows["observer"]))
    # Plain ones take background for what drives a unit.
    patches = sorted((name for name in known if name.startswith("patch")), key=lambda name: "relative" not in name)
    observer = observer or (PERSON if PERSON in known else (patches or known)[0])
    there = set(rows.loc[rows["observer"] == observer, "condition"])
    condition = condition or _ordered(there, ("natural", *DISPLAYED))[0]
    shown = "mean" if of_cells[bridge.loss("mean")].notna().any() else "zero"
    axes_of = [(bridge.loss(shown), f"separation loss under {shown}"), (bridge.PROBE, "probe AUROC")]
    points = _cells_with_gain(table, bridge.with_groups(of_cells, shown), observer, condition)
    # Without a gap, losses are shares of nothing, and no cell is in A or P.
    control = points["network"].isin(untrained)
    points.loc[control, bridge.loss(shown)] = np.nan
    points.loc[control, ["a", "p"]] = False
    names = [name for name in _networks(points, networks, untrained) if name != POOLED]
    size = (6.6, 2.35 * len(names) + 0.5)
    figure, grid = plt.subplots(
        len(names), 2, figsize=size, squeeze=False, sharey=True, sharex="col", layout="constrained"
    )
    contrasts = table[
        (table["what"] == "contrast") & (table["intervention"] == shown) & (table["adjusted"] == False)  # noqa: E712
    ]
    contrasts = contrasts[(contrasts["observer"] == observer) & (contrasts["condition"] == condition)]
    for row, (name, line) in enumerate(zip(names, grid, strict=True)):
        own = points[points["network"] == name]
        for axis, (column, label) in zip(line, axes_of, strict=True):
            axis.axhline(0, color=CONTROL, linewidth=0.8)
            sizes = 9 + 7 * np.sqrt(own["n_units"].to_numpy(float))
            rest = ~(own["a"] | own["p"]).to_numpy(bool)
            axis.scatter(own[column][rest], own["estimate"][rest], s=sizes[rest], color="0.72", linewidth=0)
            for group, (colour, marker, _) in GROUPS.items():
                of = own[group].to_numpy(bool)
                axis.scatter(own[column][of], own["estimate"][of], s=1.4 * sizes[of], color=colour, marker=marker)
                if of.any():
                    # Dashes alternate, so that equal means are both seen.
                    dashes = (0 if group == "a" else 5, (5, 5))
                    axis.axhline(own["estimate"][of].mean(), color=colour, linewidth=1, linestyle=dashes)
            if own[column].isna().all():
                said = "no gap to lose" if name in untrained else "no separation loss"
                axis.text(0.5, 0.5, said, transform=axis.transAxes, ha="center", color=CONTROL, fontsize=8)
            axis.tick_params(length=2, labelsize=7)
            if row == len(names) - 1:
                axis.set_xlabel(label, fontsize=8)
            sns.despine(ax=axis)
        line[0].set_ylabel("gain in accuracy", fontsize=8)
        colour = CONTROL if name in untrained else "black"
        line[0].set_title(name, loc="left", fontsize=9, weight="bold", color=colour)
        for _, found in contrasts[contrasts["network"] == name].iterrows():
            if np.isfinite(found["estimate"]):
                said = f"A less P: {found['estimate']:.2f}"
                said += f" [{found['low']:.2f}, {found['high']:.2f}]" if np.isfinite(found["low"]) else ""
                line[1].set_title(said.replace("-", "\N{MINUS SIGN}"), loc="right", fontsize=8)
    entries = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label=label)
        for colour, marker, label in GROUPS.values()
    ]
    entries.append(Line2D([], [], color="0.72", marker="o", linestyle="", label="other cells"))
    entries.append(Line2D([], [], color="black", linestyle=(0, (5, 2)), linewidth=1, label="mean of A, of P"))
    figure.legend(handles=entries, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(f"{_label(observer)}, {condition} less without references", fontsize=9, x=0.01, ha="left")
    return figure
