"""Figures: data frames in, matplotlib figures out.

A grid of cells is drawn with selectivity to the right and magnitude upwards, so that `s3m3` is top right.
"""

import re
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PROBES, ACCURACY, DEFICITS = "viridis", "cividis", "magma"
VERDICTS = {"holds": "#1b7837", "does not hold": "#b2182b", "inconclusive": "#777777"}
GROUPS = ("#7b3294", "#c2a5cf", "#999999", "#008837")
MOST_LABELS = 15
INCHES = 0.62
"""Side of a small grid of figure 2."""


def style() -> None:
    """The look of all figures; text stays text in SVG, and the same data give the same file."""
    sns.set_theme(context="paper", style="ticks", font="DejaVu Sans")
    # Names of classes and networks are no formulas, whatever dollars they have.
    plt.rcParams["text.parse_math"] = False
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "readout", "savefig.dpi": 200, "figure.dpi": 100})


def _letter(axes: Axes, letter: str) -> None:
    place = {"xycoords": "axes fraction", "xytext": (-30, 8), "textcoords": "offset points"}
    axes.annotate(letter, (0, 1), **place, fontsize=13, weight="bold")


def _panel(axes: Axes, letter: str, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, pad=8)
    _letter(axes, letter)


def _grid(frame: pd.DataFrame, value: str) -> np.ndarray:
    """Means by cell as an array [magnitude, selectivity]."""
    return frame.groupby(["magnitude_bin", "selectivity_bin"])[value].mean().unstack().to_numpy()


def _label_bins(axes: Axes, grid: np.ndarray) -> None:
    magnitudes, selectivities = grid.shape
    axes.set_xticks(range(selectivities), [f"s{s}" for s in range(selectivities)])
    axes.set_yticks(range(magnitudes), [f"m{m}" for m in range(magnitudes)])
    axes.tick_params(length=0, labelsize=8)


def _annotated(axes: Axes, grid: np.ndarray, cmap: str, label: str, form: str = "{:.2f}", **limits: float) -> None:
    """A grid with its numbers and its own colour bar."""
    image = axes.imshow(grid, origin="lower", cmap=cmap, **limits)
    sns.despine(ax=axes, left=True, bottom=True)
    for (m, s), value in np.ndenumerate(grid):
        red, green, blue, _ = image.cmap(image.norm(value))
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        axes.text(s, m, form.format(value), ha="center", va="center", color=ink, fontsize=8)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    _label_bins(axes, grid)


def figure1(units: pd.DataFrame, title: str) -> Figure:
    """Units of one layer for one target: in activation space (a), in the grid (b), and the predicted grid (c).

    `units` has the columns of the table of cells.
    """
    figure, (a, b, c) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    cells = units["cell"].str.extract(r"s(?P<s>\d+)m(?P<m>\d+)").astype(int)
    bins_s, bins_m = cells["s"].max() + 1, cells["m"].max() + 1

    a.scatter(units["others_mean"], units["target_mean"], s=5, color="0.35", alpha=0.5, linewidths=0)
    top = 1.05 * max(units["others_mean"].max(), units["target_mean"].max())
    a.plot([0, top], [0, top], color="0.6", linewidth=0.8, linestyle="--")
    a.set(xlim=(-0.02 * top, top), ylim=(-0.02 * top, top), aspect="equal")
    a.set(xlabel="mean activation, other classes", ylabel="mean activation, target")
    _panel(a, "a", f"Units of {title}")

    # Neighbouring cells differ in colour: hue follows selectivity, lightness follows magnitude.
    palette = np.array(
        [
            sns.light_palette(hue, bins_m + 2)[2:]
            for hue in sns.color_palette("Spectral_r", bins_s) + sns.color_palette("Dark2", max(0, bins_s - 11))
        ]
    )[:bins_s]
    b.scatter(units["selectivity"], units["magnitude"], s=6, color=palette[cells["s"], cells["m"]], linewidths=0)
    low, high = units["magnitude"].min(), units["magnitude"].max()
    for s in range(bins_s):
        strip = units[cells["s"] == s]
        left, right = strip["selectivity"].min(), strip["selectivity"].max()
        if s:
            b.axvline(left, color="0.2", linewidth=0.7)
        for m in range(1, bins_m):
            border = strip.loc[cells["m"] == m, "magnitude"].min()
            b.plot([left, right], [border, border], color="0.2", linewidth=0.7)
    b.set(ylim=(low - 0.03 * (high - low), high + 0.03 * (high - low)))
    b.set_xlabel("selectivity  $(t - o)/\\sqrt{2}$", parse_math=True)
    b.set_ylabel("magnitude  $(t + o)/\\sqrt{2}$", parse_math=True)
    _panel(b, "b", f"The same units in {bins_s} x {bins_m} cells of equal count")

    predicted = units.assign(distance=units["selectivity"].abs(), magnitude_bin=cells["m"], selectivity_bin=cells["s"])
    grid = _grid(predicted, "distance")
    _annotated(c, grid / grid.max(), PROBES, "mean |selectivity|, relative to the largest", vmin=0, vmax=1)
    _panel(c, "c", "Predicted grid of probes and of deficits")
    sns.despine(ax=a)
    sns.despine(ax=b)
    return figure


def _rows(frame: pd.DataFrame, value: str) -> list[tuple[str, pd.DataFrame]]:
    """Each class's part of the frame, and behind them the mean over classes."""
    cell = ["layer", "depth", "magnitude_bin", "selectivity_bin"]
    return [*frame.groupby("class_id", sort=True), ("mean", frame.groupby(cell, as_index=False)[value].mean())]


def _strip(part: pd.DataFrame, layers: Sequence[str], value: str) -> np.ndarray:
    """Grids of one class side by side, a blank column between them, and behind a gap their mean."""
    grids = [_grid(part[part["layer"] == layer], value) for layer in layers]
    blank = np.full((grids[0].shape[0], 1), np.nan)
    pieces = [piece for grid in grids for piece in (grid, blank)]
    return np.concatenate([*pieces, blank, np.mean(grids, axis=0)], axis=1)


def figure2(cells: pd.DataFrame, title: str) -> Figure:
    """Grids of all classes (rows) and layers (columns) of one network: probes (a) and deficits (b).

    The last row is the mean over classes, the last column the mean over layers; each row has its own colour bar.
    `cells` has the columns of the table of cells of the study.
    """
    layers = cells.drop_duplicates("layer").sort_values("depth")["layer"].tolist()
    panels = [
        ("a", "Probes: published score", "score_published", PROBES),
        ("b", "Ablations: rank deficit", "rank_deficit", DEFICITS),
    ]
    rows = cells["class_id"].nunique() + 1
    beside = len(layers) <= 8
    bins_s, bins_m = cells["selectivity_bin"].max() + 1, cells["magnitude_bin"].max() + 1
    width = INCHES * (len(layers) + 1) * (bins_s + 1) / 4 + 2.2
    height = INCHES * rows * (bins_m + 1) / 4 + 1.3
    size = (2 * width, height + 0.4) if beside else (width, 2 * height + 0.4)
    figure = plt.figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=12, weight="bold")
    parts = figure.subfigures(1, 2) if beside else figure.subfigures(2, 1)
    for part, (letter, name, value, cmap) in zip(parts, panels, strict=True):
        axes = part.subplots(rows, 1, squeeze=False)[:, 0]
        for i, (class_id, frame) in enumerate(_rows(cells, value)):
            strip = _strip(frame, layers, value)
            # Deficits start at zero, whatever the smallest; a class without any keeps a scale.
            low = 0 if value == "rank_deficit" else np.nanmin(strip)
            image = axes[i].imshow(strip, origin="lower", cmap=cmap, vmin=low, vmax=max(np.nanmax(strip), low + 1e-9))
            axes[i].set_yticks([(bins_m - 1) / 2], [class_id], fontsize=9)
            centres = [j * (bins_s + 1) + (bins_s - 1) / 2 for j in range(len(layers))]
            centres.append(centres[-1] + bins_s + 2)
            axes[i].set_xticks([])
            axes[i].tick_params(length=0)
            sns.despine(ax=axes[i], left=True, bottom=True)
            if i == 0:
                axes[i].set_xticks(
                    centres, [*layers, "mean"], fontsize=8, rotation=30, ha="left", rotation_mode="anchor"
                )
                axes[i].xaxis.tick_top()
                axes[i].tick_params(length=0)
            # The same inches in a figure of five layers and of a hundred.
            bar = part.colorbar(image, ax=axes[i], fraction=0.35 / width, pad=0.1 / width, aspect=8)
            bar.ax.tick_params(labelsize=7)
            bar.locator = matplotlib.ticker.MaxNLocator(3)
            bar.update_ticks()
        axes[-1].set_yticks([(bins_m - 1) / 2], ["mean"], fontsize=9, weight="bold")
        part.suptitle(f"{letter}   {name}", x=0.02, ha="left", fontsize=11)
        part.supylabel("class", fontsize=9)
    return figure


def figure3(cells: pd.DataFrame, networks: Sequence[str]) -> Figure:
    """Each network's grids, averaged over layers and classes: probes as published, held out, and deficits."""
    panels = [
        ("a", "score_published", PROBES, "published score", "{:.2g}"),
        ("b", "accuracy", ACCURACY, "balanced accuracy, held out", "{:.2f}"),
        ("c", "rank_deficit", DEFICITS, "rank deficit", "{:.2f}"),
    ]
    size = (3.3 * len(networks) + 0.4, 3.0 * len(panels))
    figure, axes = plt.subplots(len(panels), len(networks), figsize=size, squeeze=False, layout="constrained")
    for row, (letter, value, cmap, label, form) in zip(axes, panels, strict=True):
        for axis, network in zip(row, networks, strict=True):
            grid = _grid(cells[cells["network"] == network], value)
            limits = {"vmin": 0} if value == "rank_deficit" else {}
            _annotated(axis, grid, cmap, label if network == networks[-1] else "", form, **limits)
            if letter == "a":
                axis.set_title(network, fontsize=11, weight="bold")
        row[0].set_ylabel("magnitude", fontsize=9)
        _letter(row[0], letter)
    for axis in axes[-1]:
        axis.set_xlabel("selectivity", fontsize=9)
    return figure


def _groups(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The cells of a network in four groups, from the most selective and most active to the least selective."""
    s, m = frame["selectivity_bin"], frame["magnitude_bin"]
    last, top = s == s.max(), m == m.max()
    return {
        f"s{s.max()}m{m.max()}": frame[last & top],
        f"rest of s{s.max()}": frame[last & ~top],
        "between": frame[~last & (s > 0)],
        "s0": frame[s == 0],
    }


def supplement_depth(cells: pd.DataFrame, networks: Sequence[str]) -> Figure:
    """Probes and deficits over the layers of each network, mean over classes, for four groups of cells."""
    measures = [("accuracy", "balanced accuracy"), ("rank_deficit", "rank deficit")]
    size = (3.3 * len(networks) + 0.6, 5.6)
    figure, axes = plt.subplots(2, len(networks), figsize=size, squeeze=False, sharey="row", layout="constrained")
    for column, network in zip(axes.T, networks, strict=True):
        frame = cells[cells["network"] == network]
        layers = frame.drop_duplicates("layer").sort_values("depth")["layer"].tolist()
        for axis, (value, label) in zip(column, measures, strict=True):
            for (name, group), colour in zip(_groups(frame).items(), GROUPS, strict=True):
                means = group.groupby("layer")[value].mean().reindex(layers)
                axis.plot(range(len(layers)), means, marker="o", markersize=3.5, color=colour, label=name)
            shown = range(0, len(layers), -(-len(layers) // MOST_LABELS))
            axis.set_xticks(shown, [layers[i] for i in shown], rotation=60, ha="right", fontsize=7)
            sns.despine(ax=axis)
            if network == networks[0]:
                axis.set_ylabel(label)
        column[0].axhline(0.5, color="0.7", linewidth=0.8, linestyle="--")
        column[0].set_title(network, fontsize=11, weight="bold")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def supplement_claims(claims: pd.DataFrame) -> Figure:
    """Every estimate of the claims with its interval and its verdict; the bounds of the rule are dashed."""
    tests = list(claims.groupby(["claim", "measure"], sort=False))
    heights = [len(part) + 1.2 for _, part in tests]
    size = (9, 0.27 * sum(heights) + 0.45 * len(tests))
    ratios = {"height_ratios": heights}
    figure, axes = plt.subplots(len(tests), 1, figsize=size, squeeze=False, layout="constrained", gridspec_kw=ratios)
    for axis, ((claim, measure), part) in zip(axes[:, 0], tests, strict=True):
        for y, row in enumerate(part.to_dict("records")):
            colour = VERDICTS[row["verdict"]]
            axis.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
            axis.plot([row["estimate"]], [y], "o", color=colour, markersize=5)
            place = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), "textcoords": "offset points"}
            axis.annotate(row["verdict"], (1, y), **place, va="center", fontsize=7, color=colour)
        rule = part["rule"].iloc[0]
        for bound in re.findall(r"-?\d+(?:\.\d+)?", rule):
            axis.axvline(float(bound), color="0.5", linewidth=0.8, linestyle="--")
        axis.set_yticks(range(len(part)), part["network"], fontsize=8)
        axis.set_ylim(len(part) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=7)
        axis.set_title(f"{claim}.  {measure}  [{rule}]", loc="left", fontsize=8.5)
        sns.despine(ax=axis)
    return figure
