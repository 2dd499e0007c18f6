"""Figures: data frames in, matplotlib figures out.

A grid of cells is drawn on the paper's axes: selectivity grows upwards and magnitude to the right. The strips are the
rows, `s3` is the top one, and `s3m3` is top right.
"""

import itertools
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import AsinhNorm, LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from readout import page, verdicts

PROBES, DEFICITS, LOSSES = "viridis", "magma_r", "RdBu_r"
CONTROL = "0.45"
"""Colour of what is a control: untrained networks, random groups, pseudo-targets."""
NO_GAP = "no gap\nto lose"
"""Where a network does not tell the target from the others, no share of what tells them apart can be lost."""
ZERO = "white"
"""Colour of a deficit of exactly zero; no other deficit has it."""
STRIPS = ("#2f5fa8", "#2a9d8f", "#c98a12", "#b5332e")
"""Hues of the strips, from the least to the most selective; other numbers of strips take hues between these."""
VERDICTS = {"holds": "#1b7837", "does not hold": "#b2182b", "inconclusive": "#666666", "no verdict": "#999999"}
NETWORKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c510a")
MARKERS = "os^vDP"
GROUPS = ("#7b3294", "#c2a5cf", "#999999", "#008837")
MOST_LABELS = 15
SCALES = {
    "score": "published score",
    "deficit": "ranks",
    "auroc": "AUROC (chance 0.5)",
    "loss": "share of the gap between target and others: 0 nothing is lost, 1 all",
}
"""What the colour bars of figure 3's sheet say, by the kind of their grids."""
MOST_NUMBERS = 6
"""Bins a side up to which the numbers of a grid are written into it."""
INCHES = 0.62
"""Side of a small grid of figure 2."""
BAR = {"fraction": 0.046, "pad": 0.04}
"""Size of the colour bar beside one grid."""


def style() -> None:
    """The look of all figures; text stays text in SVG, and the same data give the same file."""
    sns.set_theme(context="paper", style="ticks", font="DejaVu Sans")
    # Names of classes and networks are no formulas, whatever dollars they have.
    plt.rcParams["text.parse_math"] = False
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "readout", "savefig.dpi": 200, "figure.dpi": 100})


def _letter(axes: Axes, letter: str) -> None:
    annotation = {"xycoords": "axes fraction", "xytext": (-30, 8), "textcoords": "offset points"}
    axes.annotate(letter, (0, 1), **annotation, fontsize=13, weight="bold")


def _panel(axes: Axes, letter: str, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, pad=8)
    _letter(axes, letter)


def _grid(frame: pd.DataFrame, value: str) -> np.ndarray:
    """Means by cell as an array [selectivity, magnitude]."""
    return frame.groupby(["selectivity_bin", "magnitude_bin"])[value].mean().unstack().to_numpy()


def _label_bins(axes: Axes, grid: np.ndarray) -> None:
    selectivities, magnitudes = grid.shape
    axes.set_xticks(range(magnitudes), [f"m{m}" for m in range(magnitudes)])
    axes.set_yticks(range(selectivities), [f"s{s}" for s in range(selectivities)])
    axes.tick_params(length=0, labelsize=8)


def _draw_deficits(axes: Axes, grid: np.ndarray, scale: Sequence[np.ndarray] = ()) -> AxesImage:
    """Draw rank deficits on a scale on which a hundredth of the largest is still seen.

    The scale is linear up to a thirtieth of the largest deficit and nearly logarithmic above. Exactly zero has a colour
    of its own, below the scale. The largest is that of the grid, or of the grids that share a `scale`.
    """
    largest = max(np.nanmax(one, initial=0) for one in (scale or [grid]))
    # A grid without any deficit keeps a scale.
    largest = largest if largest > 0 else 1.0
    shades = matplotlib.colormaps[DEFICITS](np.linspace(0.06, 0.96, 256))
    cmap = ListedColormap(shades, "deficits").with_extremes(under=ZERO, bad=(0, 0, 0, 0))
    norm = AsinhNorm(linear_width=largest / 30, vmin=0, vmax=largest)
    return axes.imshow(np.where(grid == 0, -1, grid), origin="lower", cmap=cmap, norm=norm)


def _deficit_bar(image: AxesImage, **where) -> Colorbar:
    """The colour bar of rank deficits: a box for zero, the powers of ten that can be told apart, and the largest."""
    bar = image.figure.colorbar(image, extend="min", extendrect=True, extendfrac=0.07, **where)
    largest = image.norm.vmax
    first, last = math.ceil(math.log10(largest / 30)), math.floor(math.log10(largest / 2.5))
    powers = [10.0**power for power in range(first, last + 1)]
    # Two digits that count, and no exponent where it is large.
    end = f"{largest:#.2g}" if largest < 10 else f"{largest:.0f}"
    bar.set_ticks([0, *powers, largest], labels=["0", *(f"{power:g}" for power in powers), end])
    bar.minorticks_off()
    return bar


def _write(axes: Axes, image: AxesImage, texts: np.ndarray, size: float = 8) -> None:
    """Write a text into each cell, black on light colours and white on dark ones."""
    colours = image.cmap(image.norm(image.get_array()))
    for (s, m), text in np.ndenumerate(texts):
        red, green, blue, _ = colours[s, m]
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        axes.text(m, s, text, ha="center", va="center", color=ink, fontsize=size)


def _annotated(axes: Axes, grid: np.ndarray, cmap: str, label: str, form: str = "{:.2f}", **limits: float) -> None:
    """A grid with its numbers and its own colour bar; limits are those of `imshow`."""
    image = axes.imshow(grid, origin="lower", cmap=cmap, **limits)
    bar = axes.figure.colorbar(image, ax=axes, **BAR)
    sns.despine(ax=axes, left=True, bottom=True)
    _write(axes, image, np.vectorize(form.format)(grid))
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    _label_bins(axes, grid)


def cell_colours(bins_s: int, bins_m: int) -> np.ndarray:
    """Colours of the cells [selectivity, magnitude, 3]: hue follows selectivity, lightness follows magnitude."""
    hues = LinearSegmentedColormap.from_list("strips", STRIPS)(np.linspace(0, 1, bins_s))[:, :3]
    white = np.linspace(0.55, 0, bins_m)[None, :, None]
    return white + (1 - white) * hues[:, None, :]


def _rank_positions(units: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, float]:
    """Where figure 1b draws the units, x by magnitude and y by selectivity from 0 to 1, and the share of silent units.

    A unit's position is its rank among all units, where equal values follow the order of the units, as in the grid. The
    strips therefore have equal heights, however little they differ. Silent units, which no image drives, are all equal,
    and yet the grid deals them out to cells. Those of a strip fill the range of x that belongs to silent units in the
    order in which the grid cuts them; on y they are shuffled, because one order on both axes would draw a line.
    """
    selectivity, magnitude, strip = (units[name].to_numpy() for name in ("selectivity", "magnitude", "selectivity_bin"))
    count = len(units)
    x, y = np.empty(count), np.empty(count)
    for position, values in ((x, magnitude), (y, selectivity)):
        position[np.argsort(values, kind="stable")] = (np.arange(count) + 0.5) / count
    silent = (selectivity == 0) & (magnitude == 0)
    for s in np.unique(strip):
        members = np.flatnonzero(silent & (strip == s))
        x[members] = silent.mean() * (np.arange(len(members)) + 0.5) / max(1, len(members))
        y[members] = np.random.default_rng(int(s)).permutation(y[members])
    return x, y, float(silent.mean())


def _rank_ticks(values: np.ndarray, apart: float = 0.08) -> dict[float, float]:
    """Round values and their positions on a scale of ranks, the roundest first, none closer than `apart`.

    A value lies where half of its equals are below it.
    """
    ordered = np.sort(values)
    decades = 10.0 ** (math.floor(math.log10(np.abs(values).max() or 1)) - np.arange(5))
    candidates = [0.0, *decades, *(3 * decades), *(2 * decades[:2]), *(5 * decades[:2])]
    found = {}
    for value in (sign * candidate for candidate in candidates for sign in (1, -1)):
        if ordered[0] <= value <= ordered[-1]:
            below, upto = (np.searchsorted(ordered, value, side) for side in ("left", "right"))
            position = (below + upto) / 2 / len(values)
            if all(abs(position - other) >= apart for other in found.values()):
                found[float(value)] = position
    return found


def _draw_units(axes: Axes, x: np.ndarray, y: np.ndarray, colours: np.ndarray) -> None:
    """Dots of units, smaller where there are more; thousands of them are pixels in SVG too."""
    axes.scatter(x, y, s=np.clip(4000 / len(x), 3, 10), color=colours, linewidths=0, rasterized=len(x) > 10_000)


def _draw_cells(axes: Axes, units: pd.DataFrame, colours: np.ndarray) -> None:
    """Units by ranks of magnitude and selectivity; each cell has a tint, a border and, if there is room, its name."""
    x, y, silent = _rank_positions(units)
    strips, columns = (units[name].to_numpy(int) for name in ("selectivity_bin", "magnitude_bin"))
    half = 0.5 / len(units)
    name = {"fontsize": 7, "weight": "bold", "color": "0.1", "ha": "center", "va": "center", "zorder": 4}
    name["bbox"] = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8}
    for s in np.unique(strips):
        strip = strips == s
        bottom, top = y[strip].min() - half, y[strip].max() + half
        edges = [x[strip].min() - half]
        for m in range(1, columns.max() + 1):
            below, above = x[strip & (columns == m - 1)], x[strip & (columns == m)]
            edges.append((below.max() + above.min()) / 2)
        edges.append(x[strip].max() + half)
        for m, (left, right) in enumerate(itertools.pairwise(edges)):
            box = (left, bottom), right - left, top - bottom
            axes.add_patch(Rectangle(*box, facecolor=(*colours[s, m], 0.16), edgecolor="0.25", linewidth=0.7))
            centre = (left + right) / 2, (bottom + top) / 2
            if right - left > 0.1:
                axes.text(*centre, f"s{s}m{m}", **name)
            elif top - bottom > 0.12:
                axes.text(*centre, f"s{s}m{m}", rotation=90, **name)
    _draw_units(axes, x, y, colours[strips, columns])
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    for axis, value in ((axes.xaxis, "magnitude"), (axes.yaxis, "selectivity")):
        ticks = _rank_ticks(units[value].to_numpy(float))
        labels = {tick: f"{tick:g}".replace("-", "−") for tick in ticks}
        if silent > 0.1 and axis is axes.xaxis:
            labels[0.0] = f"0 ({100 * silent:.0f} % are silent)" if silent > 0.35 else "0 (silent)"
        axis.set_ticks(list(ticks.values()), list(labels.values()), fontsize=8)


def figure1(units: pd.DataFrame, title: str) -> Figure:
    """Units of one layer for one target: in activation space (a), in the grid (b), and the predicted grid (c).

    `units` has the columns of the table of cells.
    """
    figure, (a, b, c) = plt.subplots(
        1, 3, figsize=(14, 4.6), layout="constrained", gridspec_kw={"width_ratios": [1, 1.15, 1]}
    )
    bins_s, bins_m = (int(units[name].max()) + 1 for name in ("selectivity_bin", "magnitude_bin"))
    colours = cell_colours(bins_s, bins_m)

    of_units = colours[units["selectivity_bin"], units["magnitude_bin"]]
    _draw_units(a, units["others_mean"].to_numpy(), units["target_mean"].to_numpy(), of_units)
    # A layer may be silent altogether.
    top = 1.05 * (max(units["others_mean"].max(), units["target_mean"].max()) or 1)
    a.plot([0, top], [0, top], color="0.6", linewidth=0.8, linestyle="--")
    a.set(xlim=(-0.02 * top, top), ylim=(-0.02 * top, top), aspect="equal")
    a.set(xlabel="mean activation, other classes", ylabel="mean activation, target")
    _panel(a, "a", f"Units of {title}")

    _draw_cells(b, units, colours)
    b.set_xlabel(r"magnitude  $(t + o)/\sqrt{2}$, units evenly spaced", parse_math=True)
    b.set_ylabel(r"selectivity  $(t - o)/\sqrt{2}$, units evenly spaced", parse_math=True)
    _panel(b, "b", f"The same units in {bins_s} x {bins_m} cells of equal count")

    grid = _grid(units.assign(distance=units["selectivity"].abs()), "distance")
    _annotated(c, grid / (grid.max() or 1), PROBES, "mean |selectivity|, relative to the largest", vmin=0, vmax=1)
    c.set_xlabel("magnitude", fontsize=9)
    c.set_ylabel("selectivity", fontsize=9)
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
        ("a", "Probes: published score", "score_published"),
        ("b", "Ablations: rank deficit, in ranks", "rank_deficit"),
    ]
    panels = [panel for panel in panels if there(cells, panel[2])]
    rows = cells["class_id"].nunique() + 1
    beside = len(layers) <= 8
    bins_s, bins_m = cells["selectivity_bin"].max() + 1, cells["magnitude_bin"].max() + 1
    width = INCHES * (len(layers) + 1) * (bins_m + 1) / 4 + 2.2
    height = INCHES * rows * (bins_s + 1) / 4 + 1.5
    count = len(panels)
    size = (count * width, height + 0.4) if beside else (width, count * height + 0.4)
    figure = plt.figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=12, weight="bold")
    parts = figure.subfigures(*((1, count) if beside else (count, 1)), squeeze=False).ravel()
    # The left edges of the grids and of their mean, which stands behind a gap.
    lefts = [i * (bins_m + 1) - 0.5 for i in range(len(layers))]
    lefts.append(lefts[-1] + bins_m + 2)
    centres = [left + bins_m / 2 for left in lefts]
    for part, (letter, name, value) in zip(parts, panels, strict=True):
        axes = part.subplots(rows, 1, squeeze=False)[:, 0]
        for axis, (class_id, frame) in zip(axes, _rows(cells, value), strict=True):
            strip = _strip(frame, layers, value)
            # The same inches in a figure of five layers and of a hundred.
            size = {"fraction": 0.35 / width, "pad": 0.1 / width, "aspect": 8}
            if value == "rank_deficit":
                bar = _deficit_bar(_draw_deficits(axis, strip), ax=axis, **size)
            else:
                bar = part.colorbar(axis.imshow(strip, origin="lower", cmap=PROBES), ax=axis, **size)
                bar.locator = matplotlib.ticker.MaxNLocator(3)
                bar.update_ticks()
            bar.ax.tick_params(labelsize=7)
            for left in lefts:
                frame_of_grid = (left, -0.5), bins_m, bins_s
                axis.add_patch(Rectangle(*frame_of_grid, fill=False, edgecolor="0.7", linewidth=0.6, clip_on=False))
            axis.set_yticks([(bins_s - 1) / 2], [class_id], fontsize=9)
            axis.set_xticks([])
            axis.tick_params(length=0)
            sns.despine(ax=axis, left=True, bottom=True)
        axes[0].set_xticks(centres, [*layers, "mean"], fontsize=8, rotation=30, ha="left", rotation_mode="anchor")
        axes[0].xaxis.tick_top()
        axes[0].tick_params(length=0)
        axes[-1].set_yticks([(bins_s - 1) / 2], ["mean"], fontsize=9, weight="bold")
        part.supxlabel("in each grid: magnitude to the right, selectivity upwards", fontsize=8)
        part.suptitle(f"{letter}   {name}", x=0.02, ha="left", fontsize=11)
        part.supylabel("class", fontsize=9)
    return figure


def there(frame: pd.DataFrame, column: str) -> bool:
    """Whether a table has numbers in a column: what a study leaves out is missing in it, or is no column at all."""
    return column in frame and bool(frame[column].notna().any())


def shown_intervention(cells: pd.DataFrame) -> str | None:
    """The intervention that figures of a single one show: the least far off the data that the study has."""
    return next((name for name in ("mean", "zero", "erase") if there(cells, f"separation_loss_{name}")), None)


def without_gaps(cells: pd.DataFrame, untrained: Sequence[str]) -> pd.DataFrame:
    """The table without the separation losses of untrained networks: without a gap, they are shares of nothing."""
    drawn = cells["network"].isin(untrained)
    return cells.assign(**{name: cells[name].mask(drawn) for name in cells if "separation_loss" in name})


def message(text: str) -> Figure:
    """In place of a figure for which a study has no numbers: what is missing, and the way out."""
    figure = plt.figure(figsize=(8, 2))
    lines = textwrap.fill(text, 80)
    figure.text(0.5, 0.5, lines, ha="center", va="center", fontsize=11)
    return figure


def _measures3(cells: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Columns of figure 3's sheet that the table has numbers for: kind, title and column of the table."""
    found = [("score", "probe score", "score_published"), ("deficit", "rank deficit\nunder zero", "rank_deficit")]
    found += [("auroc", "probe AUROC", "auroc")]
    found += [("loss", f"separation loss\nunder {i}", f"separation_loss_{i}") for i in ("zero", "mean", "erase")]
    found += [("loss", f"own less mismatched\nunder {shown_intervention(cells)}", "own_less_mismatched")]
    return [measure for measure in found if there(cells, measure[2])]


def _shared(kind: str, grids: Sequence[np.ndarray]) -> dict:
    """Colours and limits of all grids of one kind, as `imshow` takes them."""
    values = np.concatenate([grid.ravel() for grid in grids] or [np.zeros(1)])
    values = values[np.isfinite(values)]
    if kind == "loss":
        # Losses and their differences are shares of one gap: they have one scale, white where nothing is lost.
        largest = np.abs(values).max(initial=0) or 1.0
        return {"cmap": LOSSES, "vmin": -largest, "vmax": largest}
    if kind == "auroc":
        return {"cmap": PROBES, "vmin": min(0.5, values.min(initial=0.5)), "vmax": 1.0}
    return {"cmap": PROBES, "vmin": values.min(initial=1.0), "vmax": values.max(initial=0.0)}


def _numbers(kind: str, grid: np.ndarray) -> np.ndarray:
    """Numbers of a grid as short texts; only a deficit of zero is written as zero, and no loss as minus zero."""

    def text(value: float) -> str:
        if kind == "deficit" and value < 0.005:
            return "0" if value == 0 else "<.01"
        # Ranks among many classes may be large: no number is wider than its cell.
        decimals = next((digits for digits, bound in ((2, 9.995), (1, 99.95)) if abs(value) < bound), 0)
        short = f"{value:.{decimals}f}".replace("0.", ".", abs(value) < 1)
        return {"-.00": ".00"}.get(short, short.replace("-", "−"))

    return np.vectorize(text, otypes=[object])(grid)


def _sheet_grid(axes: Axes, grid: np.ndarray, kind: str, scale: Sequence[np.ndarray]) -> AxesImage:
    """One grid of figure 3's sheet, with its numbers where there is room."""
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    # White cells, too, belong to the grid.
    axes.spines[:].set(visible=True, color="0.7", linewidth=0.8)
    if kind == "deficit":
        image = _draw_deficits(axes, grid, scale)
    else:
        image = axes.imshow(grid, origin="lower", **_shared(kind, scale))
    axes.set_aspect("auto")
    if np.isnan(grid).all():
        axes.text(0.5, 0.5, NO_GAP, transform=axes.transAxes, ha="center", va="center", fontsize=10, color=CONTROL)
    elif max(grid.shape) <= MOST_NUMBERS:
        _write(axes, image, _numbers(kind, grid), 9.5)
    return image


def _sheet_bar(axes: Axes, kind: str, image: AxesImage) -> None:
    """The colour bar of all grids of one kind."""
    if kind == "deficit":
        bar = _deficit_bar(image, cax=axes, orientation="horizontal")
    else:
        bar = axes.figure.colorbar(image, cax=axes, orientation="horizontal")
        bar.locator = matplotlib.ticker.MaxNLocator(3 if kind != "loss" else 8)
        bar.update_ticks()
    bar.set_label(SCALES[kind], fontsize=10)
    bar.ax.tick_params(labelsize=9)


def figure3(cells: pd.DataFrame, networks: Sequence[str], untrained: Sequence[str] = ()) -> Figure:
    """One sheet: each network's grids (rows), averaged over layers and classes, by measure (columns).

    On the left those of the published protocol, beside them the corrected ones that the table has numbers for: AUROC of
    the cross-fitted probe, separation loss by intervention, and own less mismatched loss. Grids of a kind share a
    scale. Networks among `untrained` are controls and stand apart; scales do not follow them.
    """
    cells = without_gaps(cells, untrained)
    own, mismatched = (f"{kind}separation_loss_{shown_intervention(cells)}" for kind in ("", "mismatched_"))
    if there(cells, mismatched):
        cells = cells.assign(own_less_mismatched=cells[own] - cells[mismatched])
    measures = _measures3(cells)
    rows = [*(name for name in networks if name not in untrained), *untrained]
    first_control = len(rows) - len(untrained)
    grids = {name: [_grid(cells[cells["network"] == name], value) for *_, value in measures] for name in rows}
    bins_s, bins_m = grids[rows[0]][0].shape

    # In inches, from the left and from the top.
    wide, high, gap, apart = max(1.4, 0.42 * bins_m), max(1.2, 0.32 * bins_s), 0.12, 0.4
    published = sum(kind in ("score", "deficit") for kind, *_ in measures)
    lefts = [1.2 + j * (wide + gap) + apart * (0 < published <= j) for j in range(len(measures))]
    tops = [1.15 + i * (high + gap) + apart * (0 < first_control <= i) for i in range(len(rows))]
    width, height = lefts[-1] + wide + 0.3, tops[-1] + high + 1.35
    figure = plt.figure(figsize=(width, height))
    axes = np.empty((len(rows), len(measures)), object)
    images = {}
    for (i, network), (j, (kind, _, _)) in itertools.product(enumerate(rows), enumerate(measures)):
        box = lefts[j] / width, 1 - (tops[i] + high) / height, wide / width, high / height
        axes[i, j] = figure.add_axes(box)
        leading = [
            grids[name][other]
            for name in rows[:first_control] or rows
            for other, (same, *_) in enumerate(measures)
            if same == kind
        ]
        images[kind] = _sheet_grid(axes[i, j], grids[network][j], kind, leading)
    for j, (_, title, _) in enumerate(measures):
        axes[0, j].set_title(title, fontsize=11, pad=6)
        axes[-1, j].set_xticks(range(bins_m), [f"m{m}" for m in range(bins_m)], fontsize=9)
        axes[-1, j].set_xlabel("magnitude", fontsize=10)
    at = {"xycoords": "axes fraction", "textcoords": "offset points"}
    for i, network in enumerate(rows):
        axes[i, 0].set_yticks(range(bins_s), [f"s{s}" for s in range(bins_s)], fontsize=9)
        axes[i, 0].set_ylabel("selectivity", fontsize=10)
        name, colour = (network, "black") if i < first_control else (f"{network}\n(control)", CONTROL)
        # The longest name is as long as its grid is high.
        largest = min(12, 72 * high / 0.62 / max(map(len, rows)))
        look = {"rotation": 90, "ha": "right", "va": "center", "weight": "bold", "fontsize": largest, "color": colour}
        axes[i, 0].annotate(name, (0, 0.5), **at, xytext=(-44, 0), **look)
    starts = {0: "As published"} if published else {}
    starts |= {published: "Corrected: cross-fitted, on both sides"} if published < len(measures) else {}
    for letter, (j, title) in zip("ab", starts.items(), strict=False):
        axes[0, j].annotate(f"{letter}   {title}", (0, 1), **at, xytext=(0, 46), fontsize=13, weight="bold")
    kinds = [kind for kind, *_ in measures]
    for kind, image in images.items():
        first, last = kinds.index(kind), len(kinds) - 1 - kinds[::-1].index(kind)
        box = lefts[first] / width, 0.62 / height, (lefts[last] + wide - lefts[first]) / width, 0.14 / height
        _sheet_bar(figure.add_axes(box, label="<colorbar>"), kind, image)
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


def supplement_depth(cells: pd.DataFrame, networks: Sequence[str], untrained: Sequence[str] = ()) -> Figure:
    """Published and corrected probes and effects over the layers of each network, for four groups of cells.

    Means over classes. The corrected probe has equally many units in every cell of a network, so that layers can be
    compared. Networks among `untrained` are controls and stand last; scales do not follow them.
    """
    cells = without_gaps(cells, untrained)
    shown = shown_intervention(cells)
    measures = [
        ("score_published", "published\nprobe score", None),
        ("auroc_fixed", "probe AUROC,\nfixed number of units", 0.5),
        ("rank_deficit", "published\nrank deficit", 0.0),
        (f"separation_loss_{shown}", f"separation loss\nunder {shown}", 0.0),
    ]
    measures = [measure for measure in measures if there(cells, measure[0])]
    rows = [*(name for name in networks if name not in untrained), *untrained]
    size = 3.0 * len(rows) + 0.8, 2.1 * len(measures) + 1.2
    figure, axes = plt.subplots(len(measures), len(rows), figsize=size, squeeze=False, layout="constrained")
    for (j, network), (i, (value, label, null)) in itertools.product(enumerate(rows), enumerate(measures)):
        axis = axes[i, j]
        frame = cells[cells["network"] == network]
        layers = frame.drop_duplicates("layer").sort_values("depth")["layer"].tolist()
        for (name, group), colour in zip(_groups(frame).items(), GROUPS, strict=True):
            means = group.groupby("layer")[value].mean().reindex(layers)
            axis.plot(range(len(layers)), means, marker="o", markersize=4.5, color=colour, label=name)
        if null is not None:
            axis.axhline(null, color="0.7", linewidth=0.8, linestyle="--", zorder=0)
        if not there(frame, value):
            axis.text(0.5, 0.5, NO_GAP, transform=axis.transAxes, ha="center", va="center", fontsize=10, color=CONTROL)
        shown_layers = range(0, len(layers), -(-len(layers) // MOST_LABELS))
        names = [layers[k] for k in shown_layers] if i == len(measures) - 1 else []
        axis.set_xticks(shown_layers, names or [""] * len(shown_layers), rotation=60, ha="right", fontsize=9)
        axis.tick_params(axis="y", labelsize=9)
        sns.despine(ax=axis)
        if j == 0:
            axis.set_ylabel(label, fontsize=11)
        if i == 0:
            control = network in untrained
            name = f"{network} (control)" if control else network
            axis.set_title(name, fontsize=12, weight="bold", color=CONTROL if control else "black")
    leading = max(1, len(rows) - len(untrained))
    for row in axes:
        limits = np.array([axis.get_ylim() for axis in row[:leading]])
        for axis in row:
            axis.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        for axis in row[1:]:
            axis.tick_params(labelleft=False)
    legend = {"loc": "outside lower center", "ncols": 4, "frameon": False, "fontsize": 11}
    figure.legend(*axes[0, 0].get_legend_handles_labels(), **legend)
    return figure


def _draw_test(axes: Axes, rows: Sequence[Mapping], looks: Mapping[str, Mapping]) -> None:
    """The estimates of one test, networks from top to bottom and their pooled row last, on a scale of their own.

    The bounds are the last row's: rows of a test with several contrasts may show different ones.
    """
    if all(page.missing(row["estimate"]) for row in rows):
        axes.text(0.5, 0.5, page.UNKNOWN, transform=axes.transAxes, ha="center", va="center", fontsize=7, color="0.35")
        axes.set_axis_off()
        return
    low, high = page.scale(rows)
    margin = 0.04 * (high - low)
    axes.set(xlim=(low - margin, high + margin), ylim=(len(rows) + 0.2, -0.8))
    lower, upper = rows[-1]["lower"], rows[-1]["upper"]
    ends = [end if page.missing(bound) else bound for bound, end in zip((lower, upper), axes.get_xlim(), strict=True)]
    axes.axvspan(*ends, color=VERDICTS["holds"], alpha=0.1, linewidth=0)
    for bound in (lower, upper):
        if not page.missing(bound):
            axes.axvline(bound, color="0.4", linewidth=0.8, linestyle="--")
    for y, row in enumerate(rows):
        look = looks[row["network"]]
        # A little below the networks, from which it follows.
        y += 0.4 * (row["network"] == page.POOLED)
        if not page.missing(row["ci_low"]):
            axes.plot([row["ci_low"], row["ci_high"]], [y, y], **(look | {"marker": ""}), solid_capstyle="butt")
        if not page.missing(row["estimate"]):
            axes.plot([row["estimate"]], [y], **look)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axes.tick_params(axis="x", labelsize=6.5, length=2, pad=1)
    sns.despine(ax=axes, left=True)


def looks_of(networks: Sequence[str], controls: Collection[str]) -> dict[str, dict]:
    """Colour and marker of each network; those of controls are grey."""
    trained = [name for name in networks if name not in controls]
    looks = {
        n: {"color": NETWORKS[i % len(NETWORKS)], "marker": MARKERS[i % len(MARKERS)]} for i, n in enumerate(trained)
    }
    return looks | {name: {"color": CONTROL, "marker": "X"} for name in networks if name in controls}


def _looks(networks: Sequence[str], controls: Collection[str]) -> dict[str, dict]:
    """Colour, marker and sizes of each network, controls last, and of the pooled row."""
    small = {"linewidth": 1.0, "markersize": 3.2, "markeredgewidth": 0}
    looks = {network: look | small for network, look in looks_of(networks, controls).items()}
    return looks | {page.POOLED: {"color": "black", "marker": "D", "linewidth": 2.2, "markersize": 4.5}}


def _conclusion(rows: Sequence[Mapping]) -> list[tuple[str, dict]]:
    """The lines beside a test, with their looks: verdict and estimate of its pooled or only row, and how many hold."""
    pooled = rows[-1]["network"] == page.POOLED
    networks = [row for row in rows if row["network"] != page.POOLED and row["note"] != verdicts.CONTROL]
    lines = []
    if len(rows) == 1 or pooled:
        verdict = rows[-1]["verdict"]
        look = {"color": VERDICTS[verdict], "weight": "bold", "fontsize": 8}
        lines.append((f"{page.VERDICTS[verdict][0]} {verdict}", look))
        if not page.missing(rows[-1]["estimate"]):
            lines.append((page.interval(rows[-1], page.scale(rows)), {}))
    if len(rows) == 1 and networks:
        lines.append((rows[0]["network"], {"color": "0.35"}))
    elif networks:
        holding = sum(row["verdict"] == "holds" for row in networks)
        lines.append((f"holds in {holding} of {len(networks)} network{'s' * (len(networks) > 1)}", {"color": "0.35"}))
    return lines


def supplement_claims(claims: pd.DataFrame) -> Figure:
    """One page with the claims as published and corrected: estimates and intervals of networks, and the verdict.

    Each test has a scale of its own. The bounds of its last row are dashed, and the range in which the claim holds is
    shaded; untrained networks are grey controls, which are not counted and may lie beyond the scale. `claims` has the
    columns and the order of the table of claims; tests beside these and confirmations are on its page.
    """
    claims = claims[(claims["role"] != "beside") & (claims["targets"] == verdicts.EVERY)]
    # In inches, from the left: the statement, the test, the drawing, the verdict. A letter's width is the average.
    statement, measure, drawing, verdict, width = 0.1, 2.6, 5.4, 9.35, 11.1
    line, letter = 0.125, 0.57 * 7 / 72
    plain = {"fontsize": 7, "va": "top", "linespacing": line * 72 / 7 / 1.2}

    tests = [part.to_dict("records") for _, part in claims.groupby(["claim", "measure"], sort=False)]
    networks = [name for name in claims.dropna(subset="estimate")["network"].unique() if name != page.POOLED]
    controls = set(claims.loc[claims["note"] == verdicts.CONTROL, "network"])
    looks = _looks(networks, controls)
    slot = 0.055 if len(networks) <= 6 else 0.04

    # A test is as high as its drawing and its words need, and a claim as its statement needs.
    measures, statements, plots, heights = [], [], [], []
    for i, rows in enumerate(tests):
        first, last = (not 0 <= j < len(tests) or tests[j][0]["claim"] != rows[0]["claim"] for j in (i - 1, i + 1))
        if first:
            said, used = "{claim}  {statement} ({section})".format(**rows[0]), 0.0
            # Bold letters are a tenth wider.
            said = textwrap.wrap(said, int((measure - statement - 0.15) / (1.1 * letter)))
        room = int((drawing - measure - 0.15) / letter)
        said_of_test = "{role}: {measure}".format(**rows[0])
        measures.append((textwrap.wrap(said_of_test, room), textwrap.wrap(rows[0]["rule"], room)))
        statements.append(said if first else [])
        plots.append(max(0.26, slot * len(rows) + 0.1))
        height = max(plots[-1] + 0.17, line * max(sum(map(len, measures[-1])), 3)) + 0.08
        used += height
        heights.append(height + max(0, line * len(said) + 0.1 - used) * last)

    labels = {page.POOLED: "pooled"} | {name: f"{name} (control)" for name in controls}
    entries = [Line2D([], [], **look, label=labels.get(name, name)) for name, look in looks.items()]
    entries += [
        Line2D([], [], color="0.4", linewidth=0.8, linestyle="--", label="bound of the rule"),
        Patch(facecolor=VERDICTS["holds"], alpha=0.1, label="here the claim holds"),
    ]
    # A label takes its letters and about eight more for its marker; columns of unequal labels waste some.
    lines = math.ceil(1.15 * sum(len(entry.get_label()) + 8 for entry in entries) / (width / letter))
    y = 0.15 + 0.17 * lines
    height = y + sum(heights) + 0.05
    figure = plt.figure(figsize=(width, height))
    legend = {"loc": "upper center", "bbox_to_anchor": (0.5, 1), "fontsize": 7, "frameon": False}
    figure.legend(handles=entries, ncols=-(-len(entries) // lines), **legend)
    for rows, said, (words, rule), plot, own in zip(tests, statements, measures, plots, heights, strict=True):
        top = 1 - (y + 0.06) / height
        if said:
            figure.add_artist(Line2D([0.01, 0.99], [1 - y / height] * 2, color="0.6", linewidth=0.6))
            figure.text(statement / width, top, "\n".join(said), **plain, weight="bold")
        figure.text(measure / width, top, "\n".join(words), **plain)
        figure.text(measure / width, top - line * len(words) / height, "\n".join(rule), **plain, color="0.35")
        box = drawing / width, top - plot / height, (verdict - drawing - 0.2) / width, plot / height
        _draw_test(figure.add_axes(box), rows, looks)
        for i, (text, look) in enumerate(_conclusion(rows)):
            figure.text(verdict / width, top - i * line / height, text, **(plain | look))
        y += own
    return figure


def leak(readings: pd.DataFrame) -> Figure:
    """What probes read on noise, by the procedure that gave them their units: by strip, and by cell.

    `readings` has a row per world, number of units (a row of the figure), procedure (a colour and a grid) and cell:
    world, units, procedure, selectivity_bin, magnitude_bin, accuracy.
    """
    procedures, sizes = readings["procedure"].unique(), readings["units"].unique()
    colours = dict(zip(procedures, (VERDICTS["does not hold"], STRIPS[0]), strict=True))
    shape = {"width_ratios": [1.35, 1, 1], "wspace": 0.4, "hspace": 0.4}
    figure, axes = plt.subplots(len(sizes), 3, figsize=(10.5, 3.3 * len(sizes)), gridspec_kw=shape, squeeze=False)
    for row, units in zip(axes, sizes, strict=True):
        part = readings[readings["units"] == units]
        strips = part.groupby(["procedure", "world", "selectivity_bin"], as_index=False)["accuracy"].mean()
        for i, (procedure, colour) in enumerate(colours.items()):
            of = strips[strips["procedure"] == procedure]
            bins = np.sort(of["selectivity_bin"].unique())
            x = 0.3 * (i - 0.5)
            worlds = [of.loc[of["selectivity_bin"] == s, "accuracy"].to_numpy() for s in bins]
            for s, values in zip(bins, worlds, strict=True):
                # One beside the other, so that each world is seen.
                row[0].plot(s + x + np.linspace(-0.1, 0.1, len(values)), values, ".", color=colour, alpha=0.35, ms=4)
            means = [values.mean() for values in worlds]
            row[0].plot(bins + x, means, "o", color=colour, ms=6, markeredgecolor="white", label=procedure)
        row[0].axhline(0.5, color="0.4", linewidth=0.8, linestyle="--", label="chance", zorder=0)
        row[0].set(ylim=(0.2, 1), xlabel="strip", ylabel="balanced accuracy")
        row[0].set_xticks(bins, [f"s{s}" for s in bins])
        row[0].set_title(f"{units:,} units of noise: strips", loc="left", fontsize=10)
        sns.despine(ax=row[0])
        for place, procedure in zip(row[1:], procedures, strict=True):
            grid = _grid(part[part["procedure"] == procedure], "accuracy")
            _annotated(place, grid, "vlag", "balanced accuracy", vmin=0.1, vmax=0.9)
            place.set_title(procedure, loc="left", fontsize=8)
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper center")
    return figure


def benchmark(
    areas: pd.DataFrame, shares: pd.DataFrame, outcomes: Mapping[str, Mapping[str, str]], worlds: tuple[int, int]
) -> Figure:
    """Which methods find the units that a network needs, by role; and what they find where none is needed.

    `areas` has an AUROC for each role (rows) and method (columns), `shares` the share of null worlds in which a role is
    found. `outcomes` are expected of a method, by role: `blind` ones have a frame, `misled` ones a broken frame.
    `worlds`: how many there are of either network.
    """
    heights = [len(areas), len(shares)]
    size = 0.48 * len(areas.columns) + 1.6, 0.3 * sum(heights) + 2.4
    figure, (upper, lower) = plt.subplots(2, 1, figsize=size, layout="constrained", height_ratios=heights)
    above = f"AUROC for \u201cthe network uses it\u201d, mean of {worlds[0]} worlds"
    below = f"null network: share of {worlds[1]} worlds in which a role is found"
    drawn = [(upper, areas, {"cmap": LOSSES.removesuffix("_r"), "vmin": -0.25, "vmax": 1.25}, above, "a")]
    drawn += [(lower, shares, {"cmap": "Greys", "vmin": 0, "vmax": 2}, below, "b")]
    for axes, frame, look, title, letter in drawn:
        image = axes.imshow(frame.to_numpy(), aspect="auto", **look)
        _write(axes, image, np.vectorize("{:.2f}".format)(frame.to_numpy()), 7)
        axes.set_yticks(range(len(frame)), frame.index)
        axes.tick_params(length=0, labelsize=8)
        sns.despine(ax=axes, left=True, bottom=True)
        _panel(axes, letter, title)
    upper.set_xticks([])
    lower.set_xticks(range(len(areas.columns)), areas.columns, rotation=40, ha="right", rotation_mode="anchor")
    frames = {"blind": {"edgecolor": "black"}, "misled": {"edgecolor": "black", "linestyle": (0, (2, 1.5))}}
    for x, method in enumerate(areas.columns):
        for y, role in enumerate(areas.index):
            if (outcome := outcomes.get(method, {}).get(role)) in frames:
                box = Rectangle((x - 0.44, y - 0.42), 0.88, 0.84, fill=False, linewidth=1.2, **frames[outcome])
                upper.add_patch(box)
    looks = [Patch(facecolor="white", linewidth=1.2, **look) for look in frames.values()]
    upper.legend(
        looks,
        ["cannot tell, as expected", "turned round, as expected"],
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=8,
    )
    return figure
