"""Figures of what stands up: reading against needing, what the controls say, and what replaces a cell's units.

Data frames in, matplotlib figures out, in the look of `readout.figures`. `cells` and `groups` have the columns of
`tables/cells.parquet` and `tables/groups.parquet`. What a study leaves out is missing there; panels that need it are
left out here. Networks among `untrained` are controls: they are drawn apart, and no scale follows them.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import stats

from readout.figures import (
    CONTROL,
    NO_GAP,
    cell_colours,
    looks_of,
    message,
    shown_intervention,
    there,
    without_gaps,
)

BINS = ["selectivity_bin", "magnitude_bin"]
INTERVENTIONS = {
    "zero": {"color": "#333333", "marker": "o"},
    "mean": {"color": "#0072b2", "marker": "s"},
    "erase": {"color": "#d55e00", "marker": "^"},
}
CONFIDENCE = 0.95
"""Of the intervals over targets."""
RANDOM, PSEUDO = "0.82", "#f3dfb5"
"""Colours of the bands of random groups and of pseudo-targets."""
BOUNDS = 0.4, 0.999
"""Between these the axis of AUROC is drawn; what is beyond stands at its end."""


def _ordered(networks: Sequence[str], untrained: Sequence[str]) -> list[str]:
    """The networks, controls last."""
    return [*(name for name in networks if name not in untrained), *untrained]


# ---- reading against needing


def _shared(at: np.ndarray, half: np.ndarray, others: np.ndarray, halves: np.ndarray) -> float:
    """Area that a box shares with others, in pixels: centres and halves of the sides."""
    sides = np.minimum(at + half, others + halves) - np.maximum(at - half, others - halves)
    return float(sides.clip(min=0).prod(axis=1).sum())


def _place_names(
    axes: Axes, points: np.ndarray, places: Sequence[int], names: Sequence[str], colours: np.ndarray, size: float
) -> None:
    """Write names beside some of the points [points, 2], where they lie the least over each other and over points.

    Each in turn takes the best of the places around its point, the nearest first, and they take turns three times; a
    line leads to one that is far off.
    """
    texts = [
        axes.annotate(
            name,
            points[i],
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=colours[i],
            weight="bold",
        )
        for i, name in zip(places, names, strict=True)
    ]
    scale = axes.figure.dpi / 72
    pixels, frame = axes.transData.transform(points), axes.get_window_extent()
    # A little air between names.
    halves = np.array([[text.get_window_extent().width, text.get_window_extent().height] for text in texts]) / 2 + scale
    radii = np.repeat((11, 16, 23, 32, 43, 56), 16)
    angles = np.tile(np.pi / 2 + np.arange(16) * np.pi / 8, 6)
    # Ellipses around the point, since names are wider than high.
    offsets = scale * np.column_stack([(radii + 9) * np.cos(angles), radii * np.sin(angles)])
    dots = np.full(pixels.shape, 4 * scale)
    chosen = np.full(len(texts), -1)
    for _ in range(3):
        for k in np.argsort(-pixels[list(places), 1], kind="stable"):
            others = [j for j in range(len(texts)) if j != k and chosen[j] >= 0]
            held = pixels[[places[j] for j in others]] + offsets[chosen[others]]
            costs = []
            for radius, offset in zip(radii, offsets, strict=True):
                at = pixels[places[k]] + offset
                outside = (at - halves[k] < frame.min).any() or (at + halves[k] > frame.max).any()
                over = 4 * _shared(at, halves[k], held, halves[others]) + _shared(at, halves[k], pixels, dots)
                costs.append(over + 1000 * scale**2 * outside + radius * scale**2)
            chosen[k] = int(np.argmin(costs))
    for text, k in zip(texts, chosen, strict=True):
        text.set_position(offsets[k] / scale)
        if radii[k] > 16:
            lead = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", text.xy, offsets[k] / scale, textcoords="offset points", arrowprops=lead, zorder=2)


def _named(pixels: np.ndarray, s: np.ndarray, m: np.ndarray) -> list[tuple[int, str]]:
    """A point and a name for each place where points lie: neighbours of a strip at one place share a name, `s2m0–2`."""
    found = []
    for i in np.lexsort((m, s)):
        if found:
            last, first = found[-1]
            together = s[i] == s[last] and m[i] == m[last] + 1 and np.hypot(*(pixels[i] - pixels[last])) < 6
            if together:
                found[-1] = (i, first)
                continue
        found.append((i, m[i]))
    return [(i, f"s{s[i]}m{m[i]}" if m[i] == first else f"s{s[i]}m{first}–{m[i]}") for i, first in found]


def _band(groups: pd.DataFrame | None, column: str, by: str, **which: str) -> tuple[float, float] | None:
    """The least and the largest of the means by `by` of the groups of this network, kind and intervention."""
    if groups is None or not there(groups, column):
        return None
    for name, value in which.items():
        groups = groups[groups[name] == value]
    means = groups.groupby(by)[column].mean().dropna()
    return (means.min(), means.max()) if len(means) else None


def _draw_key(axes: Axes, colours: np.ndarray, sizes: np.ndarray, bands: bool) -> None:
    """The cells in the paper's axes with the looks of their points."""
    bins_s, bins_m = colours.shape[:2]
    for s, m in np.ndindex(bins_s, bins_m):
        axes.scatter(m, s, s=sizes[m], color=colours[s, m], edgecolor="0.2", linewidths=0.6)
    axes.set(xlim=(-0.7, bins_m - 0.3), ylim=(-0.7, bins_s - 0.3))
    axes.set_xticks(range(bins_m), [f"m{m}" for m in range(bins_m)])
    axes.set_yticks(range(bins_s), [f"s{s}" for s in range(bins_s)])
    axes.set_xlabel("magnitude", fontsize=11)
    axes.set_ylabel("selectivity", fontsize=11)
    axes.set_title("cells", fontsize=12, loc="left")
    entries = [Line2D([], [], marker=".", markersize=5, color="0.6", linestyle="", label="one layer")]
    if bands:
        entries += [
            Patch(facecolor=RANDOM, label="random groups of as many units:\nleast to largest loss"),
            Patch(facecolor=PSEUDO, label="pseudo-targets (nothing to read):\nleast to largest AUROC"),
        ]
    axes.legend(handles=entries, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9.5)


def _draw_cells(
    axes: Axes, means: pd.DataFrame, of_layers: pd.DataFrame, colours: np.ndarray, sizes: np.ndarray
) -> None:
    """Points of the cells with their names, and small ones of single layers; columns x and y, indexed by bins.

    Where no y is known each strip of cells has a row, and only x counts.
    """
    known = bool(means["y"].notna().any())
    if not known:
        strip = means.index.get_level_values("selectivity_bin")
        heights = np.column_stack([np.zeros(len(strip)), 0.1 + 0.5 * strip / max(1, strip.max())])
        means = means.assign(y=axes.transData.inverted().transform(axes.transAxes.transform(heights))[:, 1])
        axes.text(0.5, 0.85, NO_GAP, transform=axes.transAxes, ha="center", va="center", fontsize=12, color=CONTROL)
    for table, look in (
        (of_layers, {"alpha": 0.45, "linewidths": 0}),
        (means, {"edgecolor": "0.2", "linewidths": 0.6}),
    ):
        table = table.dropna()
        s, m = (table.index.get_level_values(name).to_numpy(int) for name in BINS)
        points = np.column_stack([table["x"].clip(*BOUNDS), table["y"].clip(*axes.get_ylim())])
        axes.scatter(*points.T, s=sizes[m] if table.index.nlevels == 2 else 8, color=colours[s, m], zorder=3, **look)
    places, names = zip(*_named(axes.transData.transform(points), s, m), strict=True)
    _place_names(axes, points, places, names, 0.8 * colours[s, -1], 9)


def _draw_bands(axes: Axes, groups: pd.DataFrame | None, network: str, shown: str) -> bool:
    """The bands of random groups and of pseudo-targets, and whether there are any."""
    random = _band(groups, "separation_loss", "group", network=network, kind="random", intervention=shown)
    pseudo = _band(groups, "auroc", "group", network=network, kind="pseudo")
    if random is not None:
        axes.axhspan(*random, color=RANDOM, linewidth=0, zorder=0.5)
    if pseudo is not None:
        axes.axvspan(*pseudo, color=PSEUDO, linewidth=0, zorder=0)
    return random is not None or pseudo is not None


def reading_needing(
    cells: pd.DataFrame, groups: pd.DataFrame | None, networks: Sequence[str], untrained: Sequence[str] = ()
) -> Figure:
    """Each cell a point: how well a probe reads the target from it (x), and what separation its ablation costs (y).

    Points are means over targets and layers, small ones over targets. The AUROC of random groups is not known, so their
    losses are a band across the panel; that of pseudo-targets is a band upright.
    """
    cells = without_gaps(cells, untrained)
    shown = shown_intervention(cells)
    if shown is None or not there(cells, "auroc"):
        return message(
            "Reading against needing: the table of cells has no separation loss or no AUROC; these are of the "
            "cross-fitted protocol: put crossfit among ablations.protocols, and give probes.crossfit its settings"
        )
    if groups is not None:
        groups = without_gaps(groups, untrained)
    rows = _ordered(networks, untrained)
    bins_s, bins_m = (int(cells[name].max()) + 1 for name in BINS)
    colours, sizes = cell_colours(bins_s, bins_m), np.linspace(28, 110, bins_m)
    columns = math.ceil(math.sqrt(len(rows) + 1))
    lines = math.ceil((len(rows) + 1) / columns)
    # In inches; fixed, so that names can be placed.
    wide, high, gap_x, gap_y = 3.9, 3.3, 0.35, 0.6
    width, height = 0.85 + columns * (wide + gap_x), 0.75 + lines * (high + gap_y)
    figure = plt.figure(figsize=(width, height))

    points = cells.rename(columns={"auroc": "x", f"separation_loss_{shown}": "y"})
    means = points.groupby(["network", *BINS])[["x", "y"]].mean()
    of_layers = points.groupby(["network", "layer", *BINS])[["x", "y"]].mean()
    bottom, top = min(-0.025, 1.3 * of_layers["y"].min()), 1.2 * max(of_layers["y"].max(), 0.05)
    bands = False
    for i, network in enumerate(rows):
        x, y = 0.75 + i % columns * (wide + gap_x), 0.35 + i // columns * (high + gap_y)
        axes = figure.add_axes((x / width, 1 - (y + high) / height, wide / width, high / height))
        axes.set_xscale("logit")
        axes.set_yscale("asinh", linear_width=0.03)
        axes.set(xlim=BOUNDS, ylim=(bottom, top))
        bands |= _draw_bands(axes, groups, network, shown)
        gap = bool(means.loc[network, "y"].notna().any())
        if gap:
            axes.axhline(0, color="0.5", linewidth=0.8, zorder=1)
        _draw_cells(axes, means.loc[network], of_layers.loc[network], colours, sizes)
        ticks = [0.5, 0.7, 0.9, 0.97, 0.99]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ticks = [tick for tick in (0, 0.03, 0.1, 0.3, 1) if tick <= top and gap]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.tick_params(labelsize=10)
        control = network in untrained
        title = f"{network} (control)" if control else network
        axes.set_title(title, fontsize=12, weight="bold", color=CONTROL if control else "black")
        if i % columns == 0:
            axes.set_ylabel(f"needing: separation loss under {shown}", fontsize=11)
        else:
            axes.tick_params(labelleft=False)
        if i + columns >= len(rows):
            axes.set_xlabel("reading: probe AUROC", fontsize=11)
        sns.despine(ax=axes)
    x, y = 1.15 + len(rows) % columns * (wide + gap_x), 0.65 + len(rows) // columns * (high + gap_y)
    side = 1.5
    key = figure.add_axes((x / width, 1 - (y + side) / height, side / width, side / height))
    _draw_key(key, colours, sizes, bands)
    sns.despine(ax=key)
    return figure


# ---- controls


@dataclass(frozen=True)
class Panel:
    """A control: its question in plain words, and what answers it.

    `found` has a row for each network, place on x (`at`) and one of two `series`: mean over targets and half the width
    of its interval (missing for one target). `series` names the two, filled and open. `null` is where nothing is.
    """

    question: str
    value: str
    found: pd.DataFrame
    series: tuple[str, str]
    null: float
    note: str = ""


def interval(values: pd.Series) -> tuple[float, float]:
    """Mean over targets, and half the width of its t interval; NaN for a single one."""
    values = values.dropna()
    if len(values) < 2:
        return (float(values.mean()) if len(values) else math.nan), math.nan
    width = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(width)


def _answers(parts: Sequence[tuple[str, str, pd.DataFrame, str]]) -> pd.DataFrame:
    """Rows as `Panel.found` of parts (place on x, series, rows of a table, column), by network."""
    rows = []
    for at, series, table, column in parts:
        if column not in table:
            continue
        by_target = table.groupby(["network", "class_id"], sort=False)[column].mean().dropna()
        for network, values in by_target.groupby("network", sort=False):
            mean, half = interval(values)
            rows.append({"network": network, "at": at, "series": series, "mean": mean, "half": half})
    return pd.DataFrame(rows, columns=["network", "at", "series", "mean", "half"])


def _kind(groups: pd.DataFrame, kind: str, intervention: str = "", group: str = "") -> pd.DataFrame:
    """The rows of a kind, an intervention (by its beginning: donors and directions are numbered) and a group."""
    chosen = (groups["kind"] == kind) & groups["intervention"].str.startswith(intervention)
    return groups[chosen & ((groups["group"] == group) | (group == ""))]


def pairs(groups: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Parts of the last cell beside their partners of equal energy, and how many parts there are.

    A row a pair: network, layer, class_id, fraction, and separation_loss of either. Partners are named after their
    part, `..._matched`.
    """
    key = ["network", "layer", "class_id", "group"]
    parts, matched = (_kind(groups, kind)[[*key, "separation_loss"]] for kind in ("part", "matched"))
    matched = matched.assign(group=matched["group"].str.removesuffix("_matched"))
    joined = parts.merge(matched, on=key, suffixes=("", "_matched"))
    fraction = joined["group"].str.extract(r"_([a-z]+)\d+$")[0]
    return joined.assign(fraction=fraction), len(parts)


def _loss_panels(cells: pd.DataFrame, groups: pd.DataFrame, last: str, first: str) -> list[Panel]:
    """Separation losses against those of other replacements, other units, other directions and the whole layer."""
    loss = "separation loss"
    ends = [(name, cells[cells["cell"] == name]) for name in (last, first)]
    top = ends[0][1]
    ways = [i for i in INTERVENTIONS if there(cells, f"separation_loss_{i}")]
    panels = []

    parts = [(i, name, table, f"separation_loss_{i}") for name, table in ends for i in ways]
    parts += [("resample", name, _kind(groups, "cell", "resample", name), "separation_loss") for name, _ in ends]
    panels.append(Panel("Does the loss depend on\nwhat replaces the units?", loss, _answers(parts), (last, first), 0))

    drawn = [i for i in ways if len(_kind(groups, "random", i))]
    series = last, "random groups of as many units"
    parts = [(i, last, top, f"separation_loss_{i}") for i in drawn]
    parts += [(i, series[1], _kind(groups, "random", i), "separation_loss") for i in drawn]
    panels.append(Panel("Would any units\ndo as well?", loss, _answers(parts), series, 0))

    paired, count = pairs(groups)
    series = f"part of {last}", "units outside it, equal energy"
    parts = [
        (fraction, name, paired[paired["fraction"] == fraction], column)
        for fraction in dict.fromkeys(paired["fraction"])
        for name, column in zip(series, ("separation_loss", "separation_loss_matched"), strict=True)
    ]
    question, note = "Is it only the energy\nthat is taken away?", f"{len(paired)} of {count} draws have a match"
    panels.append(Panel(question, f"{loss}, zero", _answers(parts), series, 0, note))

    series = "what the probe reads (erase)", "random directions, equal energy"
    directed = [(name, _kind(groups, "cell", "direction", name)) for name, _ in ends]
    directed = [(name, table) for name, table in directed if len(table)]
    parts = [(name, series[0], dict(ends)[name], "separation_loss_erase") for name, _ in directed]
    parts += [(name, series[1], table, "separation_loss") for name, table in directed]
    panels.append(Panel("Is it what is read, or\nany direction in a cell?", loss, _answers(parts), series, 0))

    series = "whole layer", last
    parts = [("zero", series[0], _kind(groups, "all"), "separation_loss"), ("zero", last, top, "separation_loss_zero")]
    found = _answers(parts)
    # Where nothing leads around a layer, its step has seen to it that all is lost.
    whole = found.loc[found["series"] == series[0], "mean"]
    note = "below 1: a path leads around a layer" if (whole < 0.99).any() else ""
    panels.append(Panel("Does taking all units\ntake all there is?", f"{loss}, zero", found, series, 0, note))
    return panels


def _pseudo_panels(cells: pd.DataFrame, pseudo: pd.DataFrame, names: Sequence[str]) -> list[Panel]:
    """AUROC and rank changes of targets against those of pseudo-targets."""
    series = "targets", "pseudo-targets"
    probed = pseudo.drop_duplicates(["network", "layer", "class_id", "group"])
    parts = [(name, series[0], cells[cells["cell"] == name], "auroc") for name in names]
    parts += [(name, series[1], probed[probed["group"] == name], "auroc") for name in names]
    panels = [Panel("Does a probe read\nwhere nothing is?", "probe AUROC", _answers(parts), series, 0.5)]
    ways = list(dict.fromkeys(pseudo["intervention"]))
    top = cells[cells["cell"] == names[-1]]
    parts = [(i, series[0], top, f"rank_change_{i}") for i in ways]
    parts += [(i, series[1], _kind(pseudo, "pseudo", i, names[-1]), "rank_change") for i in ways]
    question = "Do images lose ranks\nwhere there is no target?"
    return [*panels, Panel(question, f"rank change, {names[-1]}", _answers(parts), series, 0)]


def _untrained_panel(cells: pd.DataFrame, untrained: Sequence[str], names: Sequence[str]) -> Panel:
    """AUROC of trained networks against that of untrained ones."""
    series = "trained", "untrained"
    learnt = ~cells["network"].isin(untrained)
    parts = [
        (name, side, cells[(cells["cell"] == name) & chosen], "auroc")
        for side, chosen in zip(series, (learnt, ~learnt), strict=True)
        for name in names
    ]
    return Panel("Does a probe read where\nnothing has been learnt?", "probe AUROC", _answers(parts), series, 0.5)


def panels_of(cells: pd.DataFrame, groups: pd.DataFrame, untrained: Sequence[str] = ()) -> list[Panel]:
    """The controls that the tables have, in the order in which they are drawn.

    Cells are those of the layers with controls. An untrained network, which has no gap to lose, has a panel of its own.
    """
    names = cells.sort_values(BINS)["cell"].drop_duplicates().tolist()
    trained, groups = (table[~table["network"].isin(untrained)] for table in (cells, groups))
    controlled = trained.merge(groups[["network", "layer"]].drop_duplicates(), on=["network", "layer"])
    panels = [
        *_loss_panels(controlled, groups, names[-1], names[0]),
        *_pseudo_panels(controlled, _kind(groups, "pseudo"), names),
        _untrained_panel(cells, untrained, names),
    ]
    # Where one of the two is missing, nothing is compared.
    return [panel for panel in panels if set(panel.series) <= set(panel.found["series"])]


def _draw_panel(axes: Axes, panel: Panel, looks: Mapping[str, Mapping]) -> None:
    """Means with their intervals, networks side by side at each place; lines where there are many places."""
    places = list(dict.fromkeys(panel.found["at"]))
    networks = [name for name in looks if name in set(panel.found["network"])]
    many = len(places) > 4
    slots = np.linspace(-0.3, 0.3, len(networks)) if len(networks) > 1 else np.zeros(1)
    axes.axhline(panel.null, color="0.6", linewidth=0.9, zorder=0)
    for (k, series), (slot, network) in itertools.product(enumerate(panel.series), zip(slots, networks, strict=True)):
        rows = panel.found[(panel.found["network"] == network) & (panel.found["series"] == series)].set_index("at")
        if rows.empty:
            continue
        rows = rows.reindex(places)
        x = np.arange(len(places)) + (0 if many else slot + 0.05 * (2 * k - 1))
        filled = {"markerfacecolor": looks[network]["color"] if k == 0 else "white"}
        look = {**looks[network], **filled, "markersize": 4 if many else 6.5, "linewidth": 1.2}
        if many:
            axes.plot(x, rows["mean"], **look, linestyle="-" if k == 0 else ":")
        else:
            axes.errorbar(x, rows["mean"], rows["half"].fillna(0), **(look | {"linestyle": ""}), zorder=3 - k)
    axes.set_xticks(range(len(places)), places, fontsize=8.5 if many else 10, rotation=90 if many else 0)
    axes.set_xlim(-0.55, len(places) - 0.45)
    axes.tick_params(axis="y", labelsize=10)
    axes.set_ylabel(panel.value, fontsize=11)
    axes.set_title(panel.question, loc="left", fontsize=12, weight="bold", pad=36, x=-0.12)
    entries = [
        Line2D([], [], color="0.25", marker="o", markersize=6, linestyle="", markerfacecolor=face, label=name)
        for name, face in zip(panel.series, ("0.25", "white"), strict=True)
    ]
    legend = {"loc": "lower left", "bbox_to_anchor": (-0.16, 0.985), "fontsize": 10, "frameon": False}
    axes.legend(handles=entries, handletextpad=0.1, labelspacing=0.25, borderpad=0.2, **legend)
    if panel.note:
        # Above what is drawn.
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.12 * (high - low))
        look = {"ha": "right", "va": "top", "fontsize": 9.5, "color": "0.3"}
        axes.annotate(panel.note, (0.98, 0.99), xycoords="axes fraction", **look)
    sns.despine(ax=axes)


def supplement_controls(
    cells: pd.DataFrame, groups: pd.DataFrame, networks: Sequence[str], untrained: Sequence[str] = ()
) -> Figure:
    """What each control says: its question above, and the effect beside what it is compared with, by network."""
    panels = panels_of(cells, groups, untrained)
    if not panels:
        return message(
            "Controls: the tables have no controls; give `controls` its settings, and put crossfit among "
            "ablations.protocols"
        )
    # In inches; above each panel its question and its series, below it the names of its places.
    wide, high, left, above, below = 2.75, 2.5, 0.75, 1.05, 0.6
    columns = math.ceil(len(panels) / (1 + (len(panels) > 3)))
    lines = math.ceil(len(panels) / columns)
    width, height = columns * (wide + left) + 0.2, lines * (high + above + below) + 0.45
    figure = plt.figure(figsize=(width, height))
    looks = looks_of(networks, untrained)
    for i, panel in enumerate(panels):
        x, y = left + i % columns * (wide + left), 0.45 + below + (lines - 1 - i // columns) * (high + above + below)
        _draw_panel(figure.add_axes((x / width, y / height, wide / width, high / height)), panel, looks)
    entries = [
        Line2D([], [], **look, linestyle="", markersize=7, label=f"{name} (control)" if name in untrained else name)
        for name, look in looks.items()
    ]
    figure.legend(handles=entries, loc="lower center", ncols=min(len(entries), 6), frameon=False, fontsize=11)
    return figure


# ---- interventions


def supplement_interventions(cells: pd.DataFrame, networks: Sequence[str], untrained: Sequence[str] = ()) -> Figure:
    """Rank deficit and separation loss of each cell under each intervention of the cross-fitted protocol.

    Means over targets and layers; a line joins what the interventions do to one cell. What another intervention leaves
    of the effect of zero in the last cell is written beside.
    """
    cells = without_gaps(cells, untrained)
    if shown_intervention(cells) is None:
        return message(
            "Interventions: the table of cells has none of the cross-fitted protocol's interventions; put "
            "crossfit among ablations.protocols, and some of zero, mean and erase among ablations.interventions"
        )
    rows = _ordered(networks, untrained)
    outcomes = [("rank_deficit", "rank deficit"), ("separation_loss", "separation loss")]
    ways = {
        value: {i: look for i, look in INTERVENTIONS.items() if there(cells, f"{value}_{i}")} for value, _ in outcomes
    }
    size = 2.75 * len(rows) + 1.0, 9.0
    figure, axes = plt.subplots(
        2, len(rows), figsize=size, squeeze=False, sharey=True, sharex="row", layout="constrained"
    )
    names = [f"s{s}m{m}" for s, m in np.ndindex(*(int(cells[name].max()) + 1 for name in BINS))]
    for (i, (value, label)), (j, network) in itertools.product(enumerate(outcomes), enumerate(rows)):
        frame = cells[cells["network"] == network]
        means = frame.groupby("cell")[[f"{value}_{way}" for way in ways[value]]].mean().reindex(names)
        axis = axes[i, j]
        axis.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        axis.hlines(range(len(names)), means.min(axis=1), means.max(axis=1), color="0.75", linewidth=1.2, zorder=1)
        for way, look in ways[value].items():
            axis.plot(
                means[f"{value}_{way}"], range(len(names)), linestyle="", markersize=6, **look, label=way, zorder=2
            )
        axis.set_yticks(range(len(names)), names, fontsize=9)
        axis.tick_params(axis="x", labelsize=9)
        axis.set_xlabel(label if i else f"{label} (ranks)", fontsize=11)
        sns.despine(ax=axis)
        if not means.notna().any(axis=None):
            axis.text(0.5, 0.5, NO_GAP, transform=axis.transAxes, ha="center", va="center", fontsize=11, color=CONTROL)
        last = means.iloc[-1]
        left = [
            f"{way} leaves {100 * last[f'{value}_{way}'] / last[f'{value}_zero']:.0f} %"
            for way in ways[value]
            if way != "zero" and last.get(f"{value}_zero", 0) > 0
        ]
        if left and network not in untrained:
            text = f"of zero's effect on {names[-1]}\n" + "\n".join(left)
            axis.text(0.97, 0.5, text, transform=axis.transAxes, ha="right", va="center", fontsize=10)
    for axis, network in zip(axes[0], rows, strict=True):
        control = network in untrained
        title = f"{network} (control)" if control else network
        axis.set_title(title, fontsize=12, weight="bold", color=CONTROL if control else "black")
    entries = [
        Line2D([], [], **look, linestyle="", markersize=7, label=way) for way, look in ways["separation_loss"].items()
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=3, frameon=False, fontsize=11)
    return figure
