"""Figures of measures of importance: what the units at the top of each ranking cost, and what they keep."""

from collections.abc import Collection, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from readout.faithfulness import BEST
from readout.figures import CONTROL, NO_GAP, without_gaps
from readout.verdicts import POOLED

MEANS, PROBE, GRADIENTS = "#0072b2", "#d55e00", "#009e73"
"""Colours of measures: of what drives a unit, of a probe's weights, of gradients."""
MARKERS = "osD^vP*Xhd"
TITLES = {
    "ablate": "what is lost when the top is replaced, less random orders",
    "keep": "what is left when the top is kept alone, less random orders",
}


def colour(row: pd.Series) -> str:
    """The colour of a measure, from its row in the table of importance."""
    return PROBE if row["measure"] == "probe_weight" else GRADIENTS if row["backward"] > 0 else MEANS


def _gains(axes: Axes, rows: pd.DataFrame) -> None:
    """A dot with its interval for each measure, the first on top; zero is what random orders do."""
    axes.axvline(0, color=CONTROL, linewidth=0.8)
    if rows["estimate"].isna().all():
        axes.text(0.5, 0.6, NO_GAP, transform=axes.transAxes, ha="center", va="center", fontsize=9, color=CONTROL)
        axes.set_xticks([])
    for y, (_, row) in enumerate(rows.iterrows()):
        look = {"color": colour(row), "solid_capstyle": "butt"}
        axes.plot([row["ci_low"], row["ci_high"]], [y, y], linewidth=1.6, **look)
        axes.plot([row["estimate"]], [y], marker="D" if row["best"] else "o", markersize=5, color=colour(row))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), rows["label"])
    axes.tick_params(length=0, labelsize=8)
    axes.tick_params(axis="x", length=2)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    sns.despine(ax=axes, left=True)


def importance(table: pd.DataFrame, networks: Sequence[str], untrained: Collection[str] = ()) -> Figure:
    """Gains of the measures (down) in each network (across), ablated (a) and kept alone (b), under one intervention.

    `table` is that of importance. The best is a diamond. All panels of a row share a scale, but for untrained networks,
    which are controls and come last.
    """
    rows = table[(table["what"] != "cells") & (table["measure"] != BEST)]
    shown = "mean" if (rows["intervention"] == "mean").any() else "zero"
    rows = rows[rows["intervention"] == shown]
    columns = [n for n in networks if n not in untrained] + [n for n in networks if n in untrained]
    columns = [n for n in columns if (rows["network"] == n).any()]
    if (rows["network"] == POOLED).any():
        columns = [POOLED, *columns]
    whats = [what for what in TITLES if (rows["what"] == what).any()]
    count = rows["measure"].nunique()
    # Wide enough for its titles, however few networks there are.
    size = (max(6.8, 1.75 * len(columns) + 2.2), len(whats) * (0.26 * count + 1.0))
    figure = plt.figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(whats), 1, squeeze=False)[:, 0]
    for letter, what, part in zip("ab", whats, parts, strict=False):
        part.suptitle(f"{letter}   {TITLES[what]} ({shown}; shares of the gap)", x=0.01, ha="left", fontsize=9)
        axes = part.subplots(1, len(columns), squeeze=False)[0]
        known = rows[(rows["what"] == what) & ~rows["network"].isin(untrained)][["ci_low", "estimate", "ci_high"]]
        low, high = min(0.0, known.min(axis=None)), max(0.0, known.max(axis=None))
        for network, axis in zip(columns, axes, strict=True):
            _gains(axis, rows[(rows["what"] == what) & (rows["network"] == network)])
            name = "all trained" if network == POOLED else network
            axis.set_title(name, fontsize=9, weight="bold", color=CONTROL if network in untrained else "black")
            if axis is not axes[0]:
                axis.set_yticklabels([])
            if network not in untrained and low < high:
                axis.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    return figure


def supplement_curves(
    groups: pd.DataFrame,
    networks: Sequence[str],
    untrained: Collection[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """What the top of each ranking costs, against its share of a layer's units: means over layers and targets.

    `groups` is the table of groups; `labels` are what measures are called. Random orders are a band from the least to
    the largest mean. The losses of untrained networks are shares of nothing and are left out.
    """
    groups = without_gaps(groups, list(untrained))
    rows = groups[(groups["kind"] == "ranked") & ~groups["intervention"].str.startswith("keep_")]
    interventions = [name for name in ("zero", "mean") if (rows["intervention"] == name).any()]
    columns = [n for n in networks if (rows["network"] == n).any()]
    measures = [name for name in rows["measure"].unique() if not name.startswith("random")]
    looks = {
        name: {"color": c, "marker": m}
        for name, c, m in zip(
            measures, matplotlib.colormaps["tab10"](np.arange(len(measures))), MARKERS * len(measures), strict=False
        )
    }
    size = (2.3 * len(columns) + 2.4, 2.3 * len(interventions) + 0.4)
    figure, grid = plt.subplots(len(interventions), len(columns), figsize=size, squeeze=False, layout="constrained")
    for intervention, axes in zip(interventions, grid, strict=True):
        for network, axis in zip(columns, axes, strict=True):
            own = rows[(rows["network"] == network) & (rows["intervention"] == intervention)]
            means = own.groupby(["measure", "one_in"])["separation_loss"].mean().unstack("one_in")
            shares = 1 / means.columns.to_numpy(float)
            random = means[means.index.str.startswith("random")]
            axis.fill_between(shares, random.min(), random.max(), color="0.85", linewidth=0)
            axis.plot(shares, random.mean(), color=CONTROL, linewidth=1)
            for name in measures:
                axis.plot(shares, means.loc[name], linewidth=1.2, markersize=4, **looks[name])
            axis.set_xscale("log")
            axis.set_xticks(shares, [f"1/{one_in:g}" for one_in in means.columns])
            axis.minorticks_off()
            axis.set_title(network, fontsize=9, weight="bold", color=CONTROL if network in untrained else "black")
            axis.tick_params(labelsize=7)
            if means.isna().all(axis=None):
                axis.text(0.5, 0.5, NO_GAP, transform=axis.transAxes, ha="center", va="center", color=CONTROL)
            sns.despine(ax=axis)
        axes[0].set_ylabel(f"separation loss\nunder {intervention}", fontsize=8)
    for axis in grid[-1]:
        axis.set_xlabel("share of the layer's units", fontsize=8)
    entries = [
        Line2D([], [], label=(labels or {}).get(name, name), linewidth=1.2, markersize=4, **looks[name])
        for name in measures
    ]
    entries.append(Line2D([], [], color=CONTROL, linewidth=1, label="random orders"))
    figure.legend(handles=entries, loc="outside right center", frameon=False, fontsize=8)
    return figure
