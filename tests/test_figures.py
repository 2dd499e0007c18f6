"""Figures: the paper's axes, scales on which cells and small deficits are seen, and one page of claims."""

import json
import re
import sys
from itertools import combinations

import jinja2
import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from jobs import figures as job
from readout import cells as grids
from readout import claims, evidence, figures, rankings, verdicts
from readout.verdicts import VERDICTS
from workflow import ROOT, ran

REGISTRY = yaml.safe_load((ROOT / "workflow" / "claims.yaml").read_text())["claims"]
LAYERS = ("conv1", "conv2", "dense1")


@pytest.fixture(autouse=True)
def style():
    """The figures' own look; none stays open."""
    with matplotlib.rc_context():
        figures.style()
        yield
    plt.close("all")


PUBLISHED = ("score_published", "rank_deficit")
LOSSES = tuple(f"{kind}separation_loss_{i}" for i in ("zero", "mean", "erase") for kind in ("", "mismatched_"))
CROSSFIT = ("auroc", "auroc_fixed", *LOSSES, *(f"rank_deficit_{i}" for i in ("zero", "mean", "erase")))


def _cells(
    value=lambda s, m: 10 * s + m, bins=(4, 4), network="alexnet", classes=("0", "1"), layers=LAYERS, columns=PUBLISHED
):
    """A table of cells in which every measure is a function of the bins."""
    rows = [
        {
            "network": network,
            "layer": layer,
            "depth": depth,
            "class_id": class_id,
            "cell": f"s{s}m{m}",
            "selectivity_bin": s,
            "magnitude_bin": m,
            **dict.fromkeys(columns, value(s, m)),
        }
        for depth, layer in enumerate(layers)
        for class_id in classes
        for s in range(bins[0])
        for m in range(bins[1])
    ]
    return pd.DataFrame(rows).astype({"selectivity_bin": "int8", "magnitude_bin": "int8"})


def _units(selectivity, magnitude, bins=(4, 4)):
    """A table of units as the step `cells` writes it; no names of cells, which nothing reads."""
    selectivity, magnitude = np.float32(selectivity), np.float32(magnitude)
    s, m = grids.grid(selectivity, magnitude, bins)
    target, others = (magnitude + selectivity) / np.sqrt(2), (magnitude - selectivity) / np.sqrt(2)
    columns = {"unit": np.arange(len(s)), "target_mean": target, "others_mean": others, "selectivity": selectivity}
    return pd.DataFrame(columns | {"magnitude": magnitude, "selectivity_bin": s, "magnitude_bin": m})


def _layer(count=640, silent=0.4, seed=0, bins=(4, 4)):
    """Units of a layer of which a share is silent."""
    generator = np.random.default_rng(seed)
    target, others = generator.exponential(size=(2, count)) * (generator.random(count) >= silent)
    return _units((target - others) / np.sqrt(2), (target + others) / np.sqrt(2), bins)


def _drawn_at(axes, image):
    """Value of a drawn grid at data coordinates, as (x, y) -> value; y grows upwards."""
    assert axes.get_ylim()[0] < axes.get_ylim()[1]
    assert axes.get_xlim()[0] < axes.get_xlim()[1]
    left, right, bottom, top = image.get_extent()
    array = image.get_array()
    rows, columns = array.shape
    assert (left, right, bottom, top) == (-0.5, columns - 0.5, -0.5, rows - 0.5)
    assert image.origin == "lower"
    array = np.ma.filled(array, np.nan)
    return {(x, y): float(array[y, x]) for y in range(rows) for x in range(columns)}


def _labels(axis):
    return {
        float(tick): label.get_text() for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    }


def _sheet(figure):
    """The grids of figure 3's sheet by measure, in the order in which they were drawn; titles on one line."""
    grids = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    titles = [axes.get_title().replace("\n", " ") for axes in grids if axes.get_title()]
    return {title: grids[i :: len(titles)] for i, title in enumerate(titles)}


def test_figure3_has_selectivity_upwards_and_magnitude_to_the_right():
    """s3m0 is top left and s0m3 bottom right: a value of its own for each, in three rows and five columns too."""
    for bins in ((4, 4), (3, 5)):
        top, right = bins[0] - 1, bins[1] - 1
        cells = _cells(lambda s, m: 0.01 + (10 * s + m) / 100, bins, columns=(*PUBLISHED, *CROSSFIT))
        cells["mismatched_separation_loss_mean"] *= 0.5
        sheet = _sheet(figures.figure3(cells, ["alexnet"]))
        assert list(sheet) == [
            "probe score",
            "rank deficit under zero",
            "probe AUROC",
            *(f"separation loss under {i}" for i in ("zero", "mean", "erase")),
            "own less mismatched under mean",
        ]
        for title, (axes,) in sheet.items():
            factor = 0.5 if title.startswith("own") else 1
            drawn = _drawn_at(axes, axes.get_images()[0])
            expected = {(m, s): factor * (0.01 + (10 * s + m) / 100) for s in range(bins[0]) for m in range(bins[1])}
            assert drawn == pytest.approx(expected)
            assert drawn[0, top] > drawn[right, 0]
            assert _labels(axes.xaxis) == {m: f"m{m}" for m in range(bins[1])}
            assert axes.get_xlabel() == "magnitude"
        (first,) = sheet["probe score"]
        assert _labels(first.yaxis) == {s: f"s{s}" for s in range(bins[0])}
        assert first.get_ylabel() == "selectivity"
        texts = {text.get_position(): text.get_text() for text in sheet["separation loss under mean"][0].texts}
        assert texts[0, top] == f"{0.01 + top / 10:.2f}".lstrip("0")


def _of_kind(sheet, kind):
    return [axes.get_images()[0] for title, column in sheet.items() if kind in title for axes in column]


def test_figure3_shares_scales_between_networks_and_not_with_controls():
    """By hand: losses up to 0.33 and 0.66 in two networks, 33 in an untrained one, which no scale follows."""
    columns = (*PUBLISHED, *CROSSFIT)
    parts = [
        _cells(lambda s, m, by=by: by * (10 * s + m) / 100, network=network, columns=columns)
        for network, by in {"one": 1, "two": 2, "random": 100}.items()
    ]
    figure = figures.figure3(pd.concat(parts), ["one", "random", "two"], ["random"])
    sheet = _sheet(figure)
    for kind, limits in {
        "loss": (-0.66, 0.66),
        "own": (-0.66, 0.66),
        "deficit": (0, 0.66),
        "score": (0, 0.66),
        "AUROC": (0, 1),
    }.items():
        assert {image.get_clim() for image in _of_kind(sheet, kind)} == {limits}
    # The control is the last row, apart from the others, and says so.
    names = {text.get_text(): axes for axes in sheet["probe score"] for text in axes.texts}
    heights = [names[name].get_position().y0 for name in ("one", "two", "random\n(control)")]
    assert heights[0] - heights[1] < heights[1] - heights[2]


@pytest.mark.parametrize(
    ("columns", "titles", "headings", "bars"),
    [
        (PUBLISHED, ["probe score", "rank deficit under zero"], {"a   As published"}, 2),
        (
            ("score_published", "auroc", "separation_loss_zero", "mismatched_separation_loss_zero"),
            ["probe score", "probe AUROC", "separation loss under zero", "own less mismatched under zero"],
            {"a   As published", "b   Corrected: cross-fitted, on both sides"},
            3,
        ),
        (
            ("score_published", "separation_loss_erase"),
            ["probe score", "separation loss under erase"],
            {"a   As published", "b   Corrected: cross-fitted, on both sides"},
            2,
        ),
    ],
)
def test_figure3_draws_what_the_study_has(columns, titles, headings, bars):
    """A protocol, an intervention or a probe that is switched off takes its grids with it; missing is as good as gone."""
    cells = _cells(lambda s, m: (10 * s + m) / 100, columns=columns)
    for table in (cells, cells.assign(**dict.fromkeys(set(CROSSFIT) - set(columns), np.nan))):
        figure = figures.figure3(table, ["alexnet"])
        assert list(_sheet(figure)) == titles
        assert headings <= {text.get_text() for axes in figure.axes for text in axes.texts}
        # One for each kind: losses and their differences share theirs.
        assert sum(axes.get_label() == "<colorbar>" for axes in figure.axes) == bars


def test_figure3_says_where_nothing_can_be_told():
    """A network without a gap has no separation loss, and keeps its place."""
    cells = pd.concat([_cells(network=n, columns=(*PUBLISHED, *CROSSFIT)) for n in ("alexnet", "random")])
    cells.loc[cells["network"] == "random", list(LOSSES)] = np.nan
    sheet = _sheet(figures.figure3(cells, ["alexnet", "random"], ["random"]))
    _, empty = sheet["separation loss under mean"]
    assert [text.get_text() for text in empty.texts] == [figures.NO_GAP]


def test_figure3_writes_no_minus_zero():
    """Numbers are short: no digit before the point, a true minus, and none before zero."""
    grid = np.array([[-0.004, -0.123], [0.5, 1.0]])
    assert figures._numbers("loss", grid).tolist() == [[".00", "−.12"], [".50", "1.00"]]


@pytest.mark.parametrize("count", [1, 5, 12])
def test_figure3_is_readable(count):
    """No text over another or outside, however long the networks' names are."""
    names = [f"mobilenet_v2_{i}" for i in range(count)]
    cells = pd.concat(
        [_cells(lambda s, m: (s - m) / 7, network=name, columns=(*PUBLISHED, *CROSSFIT)) for name in names]
    )
    figure = figures.figure3(cells, names, names[4:5])
    _no_overlap(figure)
    assert min(text.get_fontsize() for text in _texts(figure)) >= 7


def test_figure2_has_selectivity_upwards_and_magnitude_to_the_right():
    """Three grids of three rows and five columns, a blank column behind each, another, and their mean."""
    bins = (3, 5)
    figure = figures.figure2(_cells(lambda s, m: 1 + 10 * s + m, bins), "a network")
    panels = [part.axes for part in figure.subfigs]
    for axes in (axes for panel in panels for axes in panel if axes.get_images()):
        drawn = _drawn_at(axes, axes.get_images()[0])
        for left in (0, 6, 12, 19):
            assert drawn[left, 2] == pytest.approx(21)
            assert drawn[left + 4, 0] == pytest.approx(5)
            assert drawn[left + 4, 2] == pytest.approx(25)
        assert np.isnan([drawn[x, y] for x in (5, 11, 17, 18) for y in range(3)]).all()
        # A frame around each grid.
        frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        assert [(f.get_x(), f.get_y(), f.get_width(), f.get_height()) for f in frames] == [
            (left - 0.5, -0.5, 5, 3) for left in (0, 6, 12, 19)
        ]
    for part, axes in zip(figure.subfigs, panels, strict=True):
        assert _labels(axes[0].xaxis) == {2: "conv1", 8: "conv2", 14: "dense1", 21: "mean"}
        assert [list(_labels(axis.yaxis).items()) for axis in axes[:3]] == [[(1, "0")], [(1, "1")], [(1, "mean")]]
        assert part._supxlabel.get_text() == "in each grid: magnitude to the right, selectivity upwards"


def test_figure2_holds_ten_classes_and_seven_layers():
    """A row for each class and their mean, no text over another."""
    layers = [f"block{i}.depthwise" for i in range(7)]
    figure = figures.figure2(_cells(classes=[str(i) for i in range(10)], layers=layers), "a network")
    rows = [axes for axes in figure.subfigs[0].axes if axes.get_images()]
    assert [label for axes in rows for label in _labels(axes.yaxis).values()] == [*map(str, range(10)), "mean"]
    _no_overlap(figure, ignored=layers)


def test_figure1_has_selectivity_upwards_and_magnitude_to_the_right():
    """The names of the cells stand where the cells are, and the prediction is of the same orientation."""
    figure = figures.figure1(_layer(silent=0), "a layer")
    a, b, c = figure.axes[:3]
    places = {text.get_text(): text.get_position() for text in b.texts}
    assert places["s3m3"][1] > places["s2m3"][1] > places["s1m3"][1] > places["s0m3"][1]
    assert places["s1m3"][0] > places["s1m2"][0] > places["s1m1"][0] > places["s1m0"][0]
    assert (b.get_xlabel()[:9], b.get_ylabel()[:11]) == ("magnitude", "selectivity")
    assert (c.get_xlabel(), c.get_ylabel()) == ("magnitude", "selectivity")
    assert _labels(c.yaxis) == {s: f"s{s}" for s in range(4)}
    assert (a.get_xlabel(), a.get_ylabel()) == ("mean activation, other classes", "mean activation, target")


def test_figure1_predicts_by_cell():
    """Sixteen units, one in each cell; |selectivity| is largest in s3m0, drawn top left."""
    selectivity = np.repeat([-3.0, -1, 1, 4], 4)
    selectivity[12] = 8
    figure = figures.figure1(_units(selectivity, np.tile([8.0, 9, 10, 11], 4)), "a layer")
    drawn = _drawn_at(figure.axes[2], figure.axes[2].get_images()[0])
    assert drawn[0, 3] == 1
    assert (drawn[3, 3], drawn[0, 0], drawn[2, 1]) == (0.5, 0.375, 0.125)


@pytest.mark.parametrize("silent", [0, 0.4, 0.9, 1])
@pytest.mark.parametrize("bins", [(4, 4), (3, 5), (10, 10)])
def test_figure1_draws_every_unit_in_its_cell(silent, bins):
    """Also where units are equal and the cells share them out; cells do not overlap and fill their strips."""
    units = _layer(silent=silent, bins=bins)
    axes = figures.figure1(units, "a layer").axes[1]
    (dots,) = axes.collections
    boxes = {}
    for box, (s, m) in zip(axes.patches, np.ndindex(bins), strict=True):
        boxes[s, m] = box.get_bbox()
    for (x, y), s, m in zip(dots.get_offsets(), units["selectivity_bin"], units["magnitude_bin"], strict=True):
        assert boxes[s, m].x0 <= x <= boxes[s, m].x1
        assert boxes[s, m].y0 <= y <= boxes[s, m].y1
    for s in range(bins[0]):
        # Strips of equal count have equal heights, one above the other.
        share = (units["selectivity_bin"] <= s).mean()
        assert {round(boxes[s, m].y1, 9) for m in range(bins[1])} == {round(share, 9)}
        assert all(boxes[s, m].x1 == pytest.approx(boxes[s, m + 1].x0) for m in range(bins[1] - 1))
        assert all(boxes[s, m].width > 0.002 for m in range(bins[1]))


def test_figure1_colours_every_cell_its_own():
    """The 16 cells have 16 colours, and the dots of both panels have those of their cells."""
    units = _layer()
    a, b = figures.figure1(units, "a layer").axes[:2]
    colours = [tuple(colour) for colour in b.collections[0].get_facecolors()]
    assert [tuple(colour) for colour in a.collections[0].get_facecolors()] == colours
    by_cell = units.assign(colour=colours).groupby(["selectivity_bin", "magnitude_bin"])["colour"].unique()
    assert all(len(found) == 1 for found in by_cell)
    found = np.array([colour[0][:3] for colour in by_cell])
    apart = [np.abs(one - other).max() for one, other in combinations(found, 2)]
    assert len(found) == 16 and min(apart) > 0.05


def test_positions_by_hand():
    """Ranks of four units; two are silent, which take half of x and stand in its middle, one in each strip."""
    units = _units([-1, 0, 0, 2], [1, 0, 0, 3], bins=(2, 2))
    x, y, silent = figures._rank_positions(units)
    assert silent == 0.5
    assert x.tolist() == [0.625, 0.25, 0.25, 0.875]
    assert y.tolist() == [0.125, 0.375, 0.625, 0.875]


def test_ticks_are_where_their_values_are():
    """Of four values two are zero: zero is in their middle, 1 behind three, -1 in the middle of the first.

    0.1 would be where 1 is, and -0.1 is behind the first.
    """
    found = figures._rank_ticks(np.array([-1, 0, 0, 2.0]))
    assert found == {0.0: 0.5, 1.0: 0.75, -1.0: 0.125, -0.1: 0.25, 2.0: 0.875}
    assert list(figures._rank_ticks(np.array([-1, 0, 0, 2.0]), apart=0.3)) == [0.0, -1.0, 2.0]


def test_many_units_are_pixels_in_svg(tmp_path):
    """The text stays text."""
    figures.figure1(_layer(12_000), "a layer").savefig(tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").stat().st_size < 1_000_000
    assert "s3m3" in (tmp_path / "figure.svg").read_text()


def _deficit_colours(values):
    """Colours [values, 4] of rank deficits drawn together."""
    axes = plt.figure().subplots()
    image = figures._draw_deficits(axes, np.array([values]))
    return image.cmap(image.norm(image.get_array()))[0]


def test_deficits_below_a_tenth_of_the_largest_are_seen():
    """Zero is white and nothing else is; each of a hundredth, a tenth and all is darker by a twentieth and more."""
    for largest in (0.02, 1.0, 300.0):
        colours = _deficit_colours(largest * np.array([0, 1e-6, 0.01, 0.03, 0.1, 0.3, 1]))
        assert colours[0].tolist() == [1, 1, 1, 1]
        light = colours[:, :3] @ [0.3, 0.59, 0.11]
        assert light[1] < 0.95
        assert light[-1] < 0.05
        assert (np.diff(light[1:]) < -0.02).all() and light[2] - light[4] > 0.2


def test_a_grid_without_deficits_is_white():
    """It has a scale all the same."""
    assert (_deficit_colours([0.0, 0.0]) == 1).all()
    figure = figures.figure3(_cells(lambda s, m: 0.0), ["alexnet"])
    (axes,) = _sheet(figure)["rank deficit under zero"]
    assert {text.get_text() for text in axes.texts} == {"0"}


def test_large_deficits_have_no_more_digits_than_a_cell_has_room_for():
    values = {(3, 3): 122.671, (3, 2): 38.943, (0, 1): 9.998, (0, 2): 99.97}
    figure = figures.figure3(_cells(lambda s, m: values.get((s, m), 0.0)), ["alexnet"])
    (axes,) = _sheet(figure)["rank deficit under zero"]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert (texts[3, 3], texts[2, 3], texts[1, 0], texts[2, 0]) == ("123", "38.9", "10.0", "100")


def test_deficits_are_written_so_that_only_zero_is_zero():
    """Down to half a hundredth as numbers."""
    values = {(3, 3): 1.046, (3, 2): 0.017, (0, 1): 0.0014}
    figure = figures.figure3(_cells(lambda s, m: values.get((s, m), 0.0)), ["alexnet"])
    (axes,) = _sheet(figure)["rank deficit under zero"]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert (texts[3, 3], texts[2, 3], texts[1, 0], texts[0, 0]) == ("1.05", ".02", "<.01", "0")
    # Black on white, white on the darkest.
    inks = {text.get_position(): text.get_color() for text in axes.texts}
    assert (inks[3, 3], inks[0, 0]) == ("white", "black")


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (2.5, {0: "0", 0.1: "0.1", 1: "1", 2.5: "2.5"}),
        (0.61, {0: "0", 0.1: "0.1", 0.61: "0.61"}),
        (246.0, {0: "0", 10: "10", 246: "246"}),
        (1.046, {0: "0", 0.1: "0.1", 1.046: "1.0"}),
    ],
)
def test_bars_of_deficits_have_readable_ticks(largest, expected):
    """Ranks at their places: powers of ten from a thirtieth of the largest to less than half of it, and the largest."""
    figure = figures.figure3(_cells(lambda s, m: largest * (s == m == 3)), ["alexnet"])
    axes = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"][1]
    found = _labels(axes.xaxis)
    assert list(found) == pytest.approx(list(expected))
    assert list(found.values()) == list(expected.values())


# ---- reading against needing, controls, interventions, depth


def _groups(rows, network="alexnet", layer="conv1"):
    """A table of groups of one layer from (class_id, group, kind, intervention, columns)."""
    head = {"network": network, "layer": layer, "depth": 0}
    names = ("class_id", "group", "kind", "intervention")
    found = [head | dict(zip(names, row[:4], strict=True)) | row[4] for row in rows]
    return pd.DataFrame(found, columns=[*head, *names, "separation_loss", "rank_change", "auroc"])


def _random_and_pseudo(network="alexnet"):
    """Two random groups that lose 0.1 and 0.2 on average, and pseudo-targets read at 0.48 to 0.52 by cell."""
    rows = [
        (class_id, f"random{i}", "random", "mean", {"separation_loss": 0.1 * (i + 1) + by})
        for i in range(2)
        for class_id, by in (("0", -0.02), ("1", 0.02))
    ]
    # Another intervention, which is not shown.
    rows.append(("0", "random0", "random", "zero", {"separation_loss": 0.9}))
    rows += [
        (f"pseudo{i}", cell, "pseudo", "mean", {"auroc": auroc + by})
        for cell, auroc in (("s0m0", 0.48), ("s1m1", 0.5), ("s3m3", 0.52))
        for i, by in enumerate((-0.1, 0.1))
    ]
    return _groups(rows, network)


def _reading_needing(cells, groups, networks=("alexnet",), untrained=()):
    return evidence.reading_needing(cells, groups, networks, untrained)


def _points(axes, size):
    """Where points of these sizes are drawn, rounded."""
    return {
        tuple(np.round(point, 6)) for dots in axes.collections if size(dots.get_sizes()) for point in dots.get_offsets()
    }


def test_cells_stand_where_they_are_read_and_needed():
    """Layers of AUROC 0.6 to 0.9 a cell: each cell is at its mean over classes and layers, and each layer at its own."""
    cells = _cells(lambda s, m: (4 * s + m) / 50, columns=("separation_loss_mean",), layers=LAYERS[:2])
    step = cells["class_id"].map({"0": -0.01, "1": 0.01}) + cells["depth"].map({0: -0.04, 1: 0.04})
    cells["auroc"] = 0.7 + 0.02 * cells["selectivity_bin"] + 0.03 * cells["magnitude_bin"] + step
    figure = _reading_needing(cells, _random_and_pseudo())
    axes = figure.axes[0]
    centres = {(s, m): (0.7 + 0.02 * s + 0.03 * m, (4 * s + m) / 50) for s in range(4) for m in range(4)}
    assert _points(axes, lambda sizes: len(sizes) == 16) == {tuple(np.round(at, 6)) for at in centres.values()}
    apart = {tuple(np.round((x + by, y), 6)) for x, y in centres.values() for by in (-0.04, 0.04)}
    assert _points(axes, lambda sizes: len(sizes) == 1) == apart
    # Names point at their cells.
    named = {text.get_text(): text.xy for text in axes.texts if text.get_text()}
    assert {name: tuple(np.round(at, 6)) for name, at in named.items()} == {
        f"s{s}m{m}": tuple(np.round(at, 6)) for (s, m), at in centres.items()
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "reading: probe AUROC",
        "needing: separation loss under mean",
    )


def test_random_groups_and_pseudo_targets_are_bands():
    """By hand: random groups' means over classes are 0.1 and 0.2; cells of pseudo-targets are read at 0.48 to 0.52."""
    cells = _cells(lambda s, m: 0.5 + (4 * s + m) / 50, columns=("separation_loss_mean", "auroc"))
    axes = _reading_needing(cells, _random_and_pseudo()).axes[0]
    upright, across = sorted((patch.get_bbox() for patch in axes.patches), key=lambda box: box.width)
    assert (across.y0, across.y1) == pytest.approx((0.1, 0.2))
    assert (upright.x0, upright.x1) == pytest.approx((0.48, 0.52))
    # Without controls there are none, and the key does not speak of them.
    figure = _reading_needing(cells, None)
    assert not figure.axes[0].patches
    assert [text.get_text() for text in figure.axes[-1].get_legend().texts] == ["one layer"]


def test_neighbours_at_one_place_share_a_name():
    """s2m0 to s2m2 are equal; s2m3 is not."""
    pixels = np.array([[0, 0], [1, 1], [0, 2], [50, 0]])
    assert evidence._named(pixels, np.full(4, 2), np.arange(4)) == [(2, "s2m0–2"), (3, "s2m3")]


@pytest.mark.parametrize("count", [1, 5, 12])
@pytest.mark.parametrize("bins", [(4, 4), (3, 5)])
def test_names_of_cells_lie_apart(count, bins):
    """With any number of networks, and cells anywhere."""
    names = [f"mobilenet_v2_{i}" for i in range(count)]
    columns = ("separation_loss_mean", "auroc")
    generator = np.random.default_rng(0)
    tables = [_cells(lambda s, m: 0.6 + (3 * s + m) / 40, bins, network=name, columns=columns) for name in names]
    cells = pd.concat(tables, ignore_index=True)
    by_cell = cells["network"] + cells["cell"]
    for column, scale in (("auroc", 0.4), ("separation_loss_mean", 0.3)):
        drawn = {name: generator.random() for name in by_cell.unique()}
        cells[column] = (column == "auroc") * 0.55 + scale * by_cell.map(drawn)
    figure = _reading_needing(cells, None, names, names[4:5])
    _no_overlap(figure)
    assert min(text.get_fontsize() for text in _texts(figure)) >= 8.5


def test_a_network_without_a_gap_is_read_alone():
    """An untrained network's losses are shares of nothing: not drawn, and no scale follows them."""
    cells = pd.concat(
        [
            _cells(lambda s, m: 0.5 + (4 * s + m) / 50, network="alexnet", columns=("separation_loss_mean", "auroc")),
            _cells(lambda s, m: 0.9, network="random", columns=("separation_loss_mean", "auroc")).assign(
                separation_loss_mean=-70.0
            ),
        ]
    )
    figure = _reading_needing(cells, None, ["random", "alexnet"], ["random"])
    trained, control = figure.axes[:2]
    assert (trained.get_title(), control.get_title()) == ("alexnet", "random (control)")
    assert trained.get_ylim() == control.get_ylim() and trained.get_ylim()[0] > -1
    assert figures.NO_GAP in {text.get_text() for text in control.texts}
    assert not len(control.get_yticks())
    # A row for each strip, and only x counts.
    points = _points(control, lambda sizes: len(sizes) == 16)
    assert len({y for _, y in points}) == 4 and {x for x, _ in points} == {0.9}


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("reading_needing", ("auroc",)),
        ("reading_needing", ("separation_loss_zero",)),
        ("supplement_controls", PUBLISHED),
    ],
)
def test_what_cannot_be_drawn_is_said(name, columns):
    """With the way out, and without an error that would stop a study at its end."""
    figure = getattr(evidence, name)(_cells(columns=columns), _groups([]), ["alexnet"])
    (text,) = figure.texts
    assert "ablations.protocols" in text.get_text().replace("\n", " ")
    assert not figure.axes


def test_interventions_without_any_are_said():
    (text,) = evidence.supplement_interventions(_cells(), ["alexnet"]).texts
    assert "ablations.interventions" in text.get_text().replace("\n", " ")


def test_intervals_by_hand():
    """0.2 and 0.4: t of one degree of freedom is 12.706, the standard error 0.1."""
    assert evidence.interval(pd.Series([0.2, 0.4, np.nan])) == pytest.approx((0.3, 1.2706), abs=1e-4)
    mean, half = evidence.interval(pd.Series([0.2]))
    assert mean == 0.2 and np.isnan(half)


def _controlled():
    """Cells and all kinds of controls of two targets, whose losses differ by 0.2; one part has no partner."""
    columns = ("auroc", *LOSSES, "rank_change_zero", "rank_change_mean")
    cells = _cells(lambda s, m: 0.01 * (4 * s + m), columns=columns, layers=LAYERS[:1])
    cells["rank_change_zero"] *= 10
    rows = []
    for class_id, by in (("0", -0.1), ("1", 0.1)):
        loss = {
            ("all", "all", "zero"): 1.0,
            ("random0", "random", "mean"): 0.2,
            ("random1", "random", "mean"): 0.4,
            ("s3m3_half0", "part", "zero"): 0.5,
            ("s3m3_half0_matched", "matched", "zero"): 0.3,
            ("s3m3_half1", "part", "zero"): 0.9,
            ("s3m3", "cell", "direction0"): 0.1,
            ("s3m3", "cell", "direction1"): 0.2,
            ("s3m3", "cell", "resample0"): 0.6,
            ("s0m0", "cell", "resample0"): 0.7,
        }
        rows += [(class_id, *group, {"separation_loss": value + by}) for group, value in loss.items()]
    rows += [
        (f"pseudo{i}", "s3m3", "pseudo", way, {"auroc": 0.5 + by, "rank_change": 0.05 + by})
        for way in ("zero", "mean")
        for i, by in enumerate((-0.1, 0.1))
    ]
    return cells, _groups(rows)


def _found(panel):
    """Means of a panel by place and series."""
    return {(row["at"], row["series"]): round(row["mean"], 6) for _, row in panel.found.iterrows()}


def test_controls_by_hand():
    """Means over draws, then over targets; a part without a partner is left out, and counted."""
    cells, groups = _controlled()
    replaced, random, matched, directed, whole, read, ranks = evidence.panels_of(cells, groups)
    assert _found(replaced) == {
        ("zero", "s3m3"): 0.15,
        ("mean", "s3m3"): 0.15,
        ("erase", "s3m3"): 0.15,
        ("zero", "s0m0"): 0.0,
        ("mean", "s0m0"): 0.0,
        ("erase", "s0m0"): 0.0,
        ("resample", "s3m3"): 0.6,
        ("resample", "s0m0"): 0.7,
    }
    # Random groups are there under mean alone.
    assert _found(random) == {("mean", "s3m3"): 0.15, ("mean", "random groups of as many units"): 0.3}
    assert _found(matched) == {("half", "part of s3m3"): 0.5, ("half", "units outside it, equal energy"): 0.3}
    assert matched.note == "2 of 4 draws have a match"
    # Directions are of s3m3 alone.
    assert _found(directed) == {
        ("s3m3", "what the probe reads (erase)"): 0.15,
        ("s3m3", "random directions, equal energy"): 0.15,
    }
    assert _found(whole) == {("zero", "whole layer"): 1.0, ("zero", "s3m3"): 0.15} and not whole.note
    assert _found(read)["s3m3", "pseudo-targets"] == 0.5 and _found(read)["s3m3", "targets"] == 0.15
    assert _found(ranks) == {
        ("zero", "targets"): 1.5,
        ("mean", "targets"): 0.15,
        ("zero", "pseudo-targets"): 0.05,
        ("mean", "pseudo-targets"): 0.05,
    }
    # Over two targets 0.2 apart: t of one degree of freedom times a standard error of 0.1.
    row = matched.found.iloc[0]
    assert row["half"] == pytest.approx(1.2706, abs=1e-4)


def test_controls_are_drawn_at_their_values():
    """The first panel: filled markers of s3m3 and open ones of s0m0, at each intervention."""
    cells, groups = _controlled()
    figure = evidence.supplement_controls(cells, groups, ["alexnet"])
    axes = figure.axes[0]
    drawn = {
        line.get_markerfacecolor(): [round(y, 6) for y in line.get_ydata()]
        for line in axes.lines
        if line.get_marker() == "o"
    }
    assert drawn == {figures.NETWORKS[0]: [0.15, 0.15, 0.15, 0.6], "white": [0, 0, 0, 0.7]}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["zero", "mean", "erase", "resample"]
    assert [axes.get_title(loc="left")[-1] for axes in figure.axes] == ["?"] * 7
    _no_overlap(figure)


@pytest.mark.parametrize(
    ("kept", "questions"),
    [
        ({"all", "random"}, ["Would any", "Does taking"]),
        ({"all", "part", "matched"}, ["Is it only", "Does taking"]),
        ({"all", "cell"}, ["Does the loss", "Is it what", "Does taking"]),
        ({"pseudo"}, ["Does a probe", "Do images"]),
    ],
)
def test_controls_that_are_switched_off_have_no_panel(kept, questions):
    cells, groups = _controlled()
    groups = groups[groups["kind"].isin(kept)]
    # s0m0 and s3m3 under zero, mean and erase are compared all the same.
    expected = questions if "Does the loss" in questions or kept == {"pseudo"} else ["Does the loss", *questions]
    expected = ["Does the loss", *expected] if kept == {"pseudo"} else expected
    found = [panel.question for panel in evidence.panels_of(cells, groups)]
    assert len(found) == len(expected)
    assert all(question.startswith(start) for question, start in zip(found, expected, strict=True))


def test_untrained_networks_have_a_panel_of_their_own():
    """Their losses are in no other; a whole layer that costs less than all is explained."""
    cells, groups = _controlled()
    cells = pd.concat([cells, cells.assign(network="random", auroc=0.4)])
    groups.loc[groups["kind"] == "all", "separation_loss"] -= 0.2
    groups = pd.concat([groups, groups.assign(network="random")])
    panels = evidence.panels_of(cells, groups, ["random"])
    *others, own = panels
    assert all(set(panel.found["network"]) == {"alexnet"} for panel in others)
    assert _found(own)["s3m3", "untrained"] == 0.4 and _found(own)["s3m3", "trained"] == 0.15
    assert {panel.note for panel in panels} == {"", "2 of 4 draws have a match", "below 1: a path leads around a layer"}


def test_interventions_by_hand():
    """s3m3 loses 1.5 ranks under zero and a tenth of these under mean; its loss is halved; an untrained one has none."""
    ways = ("zero", "mean")
    columns = [f"{outcome}_{way}" for outcome in ("rank_deficit", "separation_loss") for way in ways]
    cells = pd.concat(
        [_cells(lambda s, m: (4 * s + m) / 10, network=n, columns=columns) for n in ("alexnet", "random")]
    )
    cells["rank_deficit_mean"] /= 10
    cells["separation_loss_mean"] /= 2
    figure = evidence.supplement_interventions(cells, ["alexnet", "random"], ["random"])
    ranks, _, losses, empty = figure.axes
    for axes, left in ((ranks, 0.1), (losses, 0.5)):
        zero, mean = [line.get_xdata() for line in axes.lines if line.get_linestyle() == "None"]
        assert list(zero) == pytest.approx([i / 10 for i in range(16)])
        assert list(mean) == pytest.approx([left * i / 10 for i in range(16)])
        (text,) = axes.texts
        assert text.get_text() == f"of zero's effect on s3m3\nmean leaves {100 * left:.0f} %"
        labels = _labels(axes.yaxis)
        assert (labels[0], labels[15]) == ("s0m0", "s3m3") and axes.get_ylim()[0] < axes.get_ylim()[1]
    assert [text.get_text() for text in empty.texts] == [figures.NO_GAP]
    assert [text.get_text() for text in figure.legends[0].texts] == ["zero", "mean"]
    _no_overlap(figure)


def test_depth_has_the_published_and_the_corrected_outcomes():
    """s3m3 over three layers at its values; a network without a gap says so, and no scale follows it."""
    columns = ("score_published", "auroc_fixed", "rank_deficit", "separation_loss_zero")
    cells = pd.concat([_cells(lambda s, m: 4 * s + m, network=n, columns=columns) for n in ("alexnet", "random")])
    for i, column in enumerate(columns):
        cells[column] += 100 * cells["depth"] + 1000 * i
    cells.loc[cells["network"] == "random", list(columns)] *= 50
    figure = figures.supplement_depth(cells, ["alexnet", "random"], ["random"])
    rows = [figure.axes[2 * i : 2 * i + 2] for i in range(4)]
    for i, (trained, control) in enumerate(rows):
        line = next(line for line in trained.lines if line.get_label() == "s3m3")
        assert list(line.get_ydata()) == [15 + 1000 * i + 100 * depth for depth in range(3)]
        assert trained.get_ylim() == control.get_ylim() and trained.get_ylim()[1] < 4000
    assert [trained.get_ylabel().replace("\n", " ") for trained, _ in rows] == [
        "published probe score",
        "probe AUROC, fixed number of units",
        "published rank deficit",
        "separation loss under zero",
    ]
    assert [text.get_text() for text in rows[3][1].texts] == [figures.NO_GAP]
    # Of the published protocol alone there are two rows.
    assert len(figures.supplement_depth(_cells(), ["alexnet"]).axes) == 2


def test_figure2_without_the_published_ablation_has_the_probes():
    figure = figures.figure2(_cells().drop(columns="rank_deficit"), "a network")
    assert [part._suptitle.get_text() for part in figure.subfigs] == ["a   Probes: published score"]


@pytest.mark.parametrize(
    ("name", "with_groups"),
    [
        ("figure3", False),
        ("supplement_depth", False),
        ("supplement_interventions", False),
        ("reading_needing", False),
        ("reading_needing", True),
        ("supplement_controls", True),
    ],
)
def test_the_job_draws_from_the_tables_alone(tmp_path, name, with_groups):
    """PNG and SVG, with text as text; a study without controls has no table of groups."""
    cells, groups = _controlled()
    cells = cells.assign(score_published=0.5, rank_deficit=0.1, rank_deficit_zero=0.1, auroc_fixed=0.6)
    cells.to_parquet(tmp_path / "cells.parquet")
    groups.to_parquet(tmp_path / "groups.parquet")
    given = {"path_to_groups": str(tmp_path / "groups.parquet")} if with_groups else {}
    paths = [str(tmp_path / f"figure.{kind}") for kind in ("png", "svg")]
    table = {"path_to_table": str(tmp_path / "cells.parquet")}
    job.make(paths, figure=name, networks=["alexnet"], title="", untrained=[], **table, **given)
    assert ">s3<" in (text := (tmp_path / "figure.svg").read_text()) or ">s3m3<" in text
    assert (tmp_path / "figure.png").stat().st_size > 10_000


OCCLUSION = ["stimuli", "legibility_figure", "legibility_cells", "legibility_gain"]
"""Captions of the figures of the occlusion task."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"controls": None},
        {"ablations": {"protocols": ["published"], "interventions": ["zero"]}, "controls": None},
        {"ablations": {"protocols": ["crossfit"], "interventions": ["mean"]}},
        {"probes": {"published": {"draws": 1, "units": 2, "C": 1.0}, "crossfit": None}, "controls": None},
        {"occlusion": None},
    ],
)
def test_captions_say_what_was_used(changes):
    """With every part of a study switched on and off; a caption of a figure that is not drawn is not asked for."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) | changes
    crossfit, published = (
        "crossfit" in config["ablations"]["protocols"],
        "published" in config["ablations"]["protocols"],
    )
    names = ["figure2", "figure3", "supplement_depth"]
    names += ["supplement_interventions"] if crossfit else []
    names += ["reading_needing"] if crossfit and config["probes"]["crossfit"] else []
    names += ["supplement_controls"] if crossfit and config["controls"] else []
    names += ["importance"] if crossfit and config["importance"] else []
    names += ["legibility", *OCCLUSION] if config["occlusion"] else []
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    snakemake = {"config": config, "params": {"settings": {"title": "a network"}}}
    told = {}
    for name in names:
        text = (ROOT / "workflow" / "report" / f"{name}.rst").read_text()
        told[name] = " ".join(environment.from_string(text).render(snakemake=snakemake).split())
    assert ("rank deficit" in told["figure3"]) == published
    assert ("separation loss, the share" in told["figure3"]) == crossfit
    assert ("AUROC" in told["figure3"]) == bool(config["probes"]["crossfit"])
    if crossfit:
        assert ", ".join(config["ablations"]["interventions"]) in told["supplement_interventions"]
    if config["occlusion"]:
        assert ", ".join(config["occlusion"]["conditions"]) in told["legibility_figure"]
        assert "of a network." in told["stimuli"] and "9 photographs" in told["stimuli"]
        assert "1 from each cell, 4 image sets" in told["legibility_cells"]
        assert "95 % interval" in told["legibility_gain"]


@pytest.mark.parametrize("conditions", [["none", "natural"], ["none", "natural", "blur"], ["none", "mixed"]])
def test_the_caption_of_stimuli_tells_of_conditions_that_there_are(conditions):
    task = yaml.safe_load((ROOT / "config.yaml").read_text())["occlusion"]
    task |= {"conditions": conditions}
    snakemake = {"config": {"occlusion": task}, "params": {"settings": {"title": "a grid"}}}
    text = (ROOT / "workflow" / "report" / "stimuli.rst").read_text()
    found = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text).render(snakemake=snakemake)
    for name in ("blur", "synthetic", "mixed"):
        assert (f"*{name}*" in found) == (name in conditions)


def test_each_figure_of_the_occlusion_task_has_a_caption_of_its_own():
    rules = (ROOT / "workflow" / "rules" / "figures.smk").read_text()
    captions = re.findall(r'figures/(stimuli|legibility\w*)\.png",\s+caption="\.\./report/(\w+)\.rst"', rules)
    assert sorted(caption for _, caption in captions) == sorted(OCCLUSION)
    assert all(caption in (figure, f"{figure}_figure") for figure, caption in captions)


# ---- measures of importance


def _importance(networks, measures=("selectivity", "probe_weight", "gradient_x_activation")):
    """Rows of the table of importance: gains .3, .2 and .4, kept .1 more; the last network has none."""
    rows = []
    for network in networks:
        for what, more in (("ablate", 0), ("keep", 0.1)):
            for measure, gain in zip((*measures, "best_elsewhere"), (0.3, 0.2, 0.4, 0.4), strict=True):
                value = np.nan if network == networks[-1] else gain + more
                row = {
                    "network": network,
                    "what": what,
                    "intervention": "mean",
                    "measure": measure,
                    "label": f"<{measure}>",
                }
                row |= {"estimate": value, "ci_low": value - 0.1, "ci_high": value + 0.2, "best": gain == 0.4}
                rows.append(row | {"backward": float(measure.startswith("gradient"))})
    return pd.DataFrame(rows)


def test_the_figure_of_importance():
    """A panel for each network, ablated and kept; dots where the gains are, all intervals inside, the first measure on top."""
    figure = rankings.importance(_importance(["one", "two", "none"]), ["one", "two", "none"], ["none"])
    assert [axis.get_title() for axis in figure.axes] == ["one", "two", "none"] * 2
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["<selectivity>", "<probe_weight>", "<gradient_x_activation>"]
    for axis, more in ((figure.axes[0], 0), (figure.axes[4], 0.1)):
        dots = {line.get_ydata()[0]: line for line in axis.lines if line.get_marker() in ("o", "D")}
        assert [dots[y].get_xdata()[0] for y in range(3)] == pytest.approx([0.3 + more, 0.2 + more, 0.4 + more])
        assert [dots[y].get_marker() for y in range(3)] == ["o", "o", "D"]
        low, high = axis.get_xlim()
        assert low < 0 and high > 0.6 + more
        assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert figures.NO_GAP in [text.get_text() for text in figure.axes[2].texts]


def test_one_network_s_titles_fit():
    """The titles of the rows are wider than a single panel."""
    figure = rankings.importance(_importance(["one", "none"])[lambda rows: rows["network"] == "one"], ["one"])
    figure.canvas.draw()
    for part in figure.subfigs:
        box = part._suptitle.get_window_extent()
        assert box.x1 <= figure.bbox.x1


def test_the_curves_of_rankings():
    """A line for each measure through the means over targets, at the shares of units; random orders are a band."""
    rows = [
        {
            "network": "one",
            "kind": kind,
            "intervention": i,
            "measure": m,
            "one_in": n,
            "separation_loss": loss / n + more,
        }
        for kind, i in (("ranked", "mean"), ("ranked", "keep_mean"), ("cell", "mean"))
        for m, loss in (("selectivity", 2.0), ("random0", 0.5), ("random1", 1.0))
        for n in (16.0, 4.0)
        for more in (0.1, 0.3)
    ]
    figure = rankings.supplement_curves(pd.DataFrame(rows), ["one"])
    (axis,) = figure.axes
    lines = {tuple(line.get_ydata().round(6)) for line in axis.lines}
    assert (round(2 / 4 + 0.2, 6), round(2 / 16 + 0.2, 6)) in lines
    assert (round(0.75 / 4 + 0.2, 6), round(0.75 / 16 + 0.2, 6)) in lines
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1/4", "1/16"]
    (band,) = axis.collections
    assert band.get_paths()[0].get_extents().y1 == pytest.approx(1 / 4 + 0.2)


# ---- claims


def _claims(networks):
    """Rows for each test of the registry, with plausible numbers and the bounds of its rule; networks, then pooled."""
    generator = np.random.default_rng(0)
    rows = []
    for claim in REGISTRY:
        for test in claim["tests"]:
            lower, upper = claims.bounds(test["parts"][0])
            named = ["all"] if "contrast" in test else test.get("networks", [*networks, "all"])
            for network in named:
                low, estimate, high = np.sort(generator.normal(size=3)) / 7
                head = {name: claim[name] for name in ("claim", "statement", "section")}
                numbers = {"estimate": estimate, "ci_low": low, "ci_high": high, "lower": lower, "upper": upper}
                says = {"measure": test["measure"], "rule": claims.test_text(test), "network": network}
                says |= {"role": test["role"], "verdict": generator.choice(VERDICTS), "targets": "all", "note": None}
                rows.append(head | numbers | says)
            if test["role"] == "corrected":
                rows.append(rows[-1] | {"targets": "confirmation"})
    return pd.DataFrame(rows).astype({"lower": float, "upper": float})


def _texts(figure):
    """All texts that are drawn, which those of ticks beyond an axis are not."""
    drawn, draw = [], Text.draw

    def note(text, renderer):
        drawn.append(text)
        draw(text, renderer)

    with pytest.MonkeyPatch.context() as patch:
        figure.canvas.draw()
        patch.setattr(Text, "draw", note)
        figure.canvas.draw()
    return [text for text in drawn if text.get_text().strip()]


def _no_overlap(figure, ignored=()):
    """No text lies over another or leaves the figure."""
    texts = [(text.get_text(), text.get_window_extent()) for text in _texts(figure) if text.get_text() not in ignored]
    width, height = figure.canvas.get_width_height()
    for text, box in texts:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, text
    for (one, a), (other, b) in combinations(texts, 2):
        # Boxes of lines include their leading.
        shared = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(shared) < 1.5, (one, other)


NETWORKS = {
    1: ["alexnet"],
    4: ["alexnet", "vgg16", "mobilenet_v2", "resnet"],
    12: [f"{name}_{i}" for i in range(3) for name in ("alexnet", "vgg16", "mobilenet_v2", "resnet101")],
}


@pytest.mark.parametrize("count", NETWORKS)
def test_claims_are_one_readable_page(count):
    """At 200 dots: at most 2400 pixels high for the default study; no text over another or outside, with any number."""
    figure = figures.supplement_claims(_claims(NETWORKS[count]))
    width, height = figure.get_size_inches() * 200
    assert width < 2400 and height < {1: 2200, 4: 2400, 12: 3400}[count]
    _no_overlap(figure)
    assert min(text.get_fontsize() for text in _texts(figure)) >= 6.5


def test_claims_have_a_panel_for_each_test_and_a_mark_for_each_row():
    """Every interval and estimate at its values; the pooled row is the last and the widest."""
    table = _claims(NETWORKS[4])
    figure = figures.supplement_claims(table)
    shown = table[(table["role"] != "beside") & (table["targets"] == "all")]
    tests = [part for _, part in shown.groupby(["claim", "measure"], sort=False)]
    assert len(figure.axes) == len(tests)
    for axes, rows in zip(figure.axes, tests, strict=True):
        lines = [line for line in axes.lines if line.get_linestyle() == "-"]
        intervals, estimates = lines[::2], lines[1::2]
        assert [list(line.get_xdata()) for line in intervals] == rows[["ci_low", "ci_high"]].values.tolist()
        assert [line.get_xdata()[0] for line in estimates] == rows["estimate"].tolist()
        heights = [line.get_ydata()[0] for line in estimates]
        # The axis points downwards.
        assert heights == sorted(heights) and axes.get_ylim()[0] > axes.get_ylim()[1]
        pooled = rows["network"].iloc[-1] == "all"
        assert [line.get_linewidth() > 2 for line in intervals] == [False] * (len(rows) - pooled) + [True] * pooled


def _panel(**given):
    """The panel of one test with one row, estimated 0.5 with the interval 0.25 to 0.75."""
    row = {"claim": 1, "network": "all", "measure": "m", "estimate": 0.5, "ci_low": 0.25, "ci_high": 0.75}
    row |= {"verdict": "holds", "rule": "above 0", "statement": "s", "section": "1", "lower": 0.0, "upper": np.nan}
    row |= {"role": "corrected", "targets": "all", "note": None}
    figure = figures.supplement_claims(pd.DataFrame([row | given]))
    return figure.axes[0], {text.get_text() for text in figure.texts}


def _bounds(axes):
    """The dashed lines, and from where to where the ground is shaded."""
    dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    (ground,) = axes.patches
    return dashed, (ground.get_bbox().x0, ground.get_bbox().x1)


def test_a_bound_is_drawn_at_its_value():
    """1e-05 is neither at 1 nor at -5, whatever the rule says in words."""
    axes, texts = _panel(lower=1e-05, rule="above 1e-05 (7 of 9)")
    assert _bounds(axes) == ([1e-05], (1e-05, axes.get_xlim()[1]))
    assert "above 1e-05 (7 of 9)" in texts
    # A scale from 1e-05 to 0.75, and a twenty-fifth of it on either side.
    assert axes.get_xlim() == pytest.approx((-0.03, 0.78), abs=1e-4)


def test_the_ground_is_shaded_where_the_claim_holds():
    """Between two bounds, and below one."""
    axes, _ = _panel(lower=-0.5, upper=0.5)
    assert _bounds(axes) == ([-0.5, 0.5], (-0.5, 0.5))
    axes, _ = _panel(lower=np.nan, upper=0.5)
    assert _bounds(axes) == ([0.5], (axes.get_xlim()[0], 0.5))


def test_what_cannot_be_estimated_is_said():
    """And no scale is drawn of it."""
    axes, texts = _panel(estimate=np.nan, ci_low=np.nan, ci_high=np.nan, verdict="inconclusive")
    assert [text.get_text() for text in axes.texts] == ["cannot be estimated from this study"]
    assert not axes.axison and not axes.lines
    assert "? inconclusive" in texts


def test_the_verdict_stands_beside_its_test():
    """The pooled row's with its numbers, and how many networks agree; a row alone has its network's name."""
    _, texts = _panel()
    assert {"✓ holds", "0.500 [0.250, 0.750]"} <= texts
    _, texts = _panel(network="resnet", verdict="does not hold")
    assert {"✗ does not hold", "resnet"} <= texts
    rows = _claims(NETWORKS[4])
    first = rows[rows["measure"] == rows["measure"].iloc[0]].assign(verdict="holds")
    first.loc[first.index[1], "verdict"] = "inconclusive"
    assert "holds in 3 of 4 networks" in {text.get_text() for text in figures.supplement_claims(first).texts}


def test_an_untrained_network_is_a_control():
    """It is grey, does not count, and no scale follows it."""
    rows = _claims(NETWORKS[4])
    first = rows[rows["measure"] == rows["measure"].iloc[0]].assign(verdict="holds")
    before = figures.supplement_claims(first)
    far = first.iloc[[0]].assign(network="raw", note=verdicts.CONTROL, estimate=-90.0, ci_low=-99.0, ci_high=-80.0)
    after = figures.supplement_claims(pd.concat([first.iloc[:-1], far, first.iloc[[-1]]]))
    assert after.axes[0].get_xlim() == before.axes[0].get_xlim()
    assert "holds in 4 of 4 networks" in {text.get_text() for text in after.texts}
    looks = {entry.get_label(): entry.get_color() for entry in after.legends[0].get_lines()}
    assert looks["raw (control)"] == figures.CONTROL
    assert figures.CONTROL not in {entry.get_color() for entry in before.legends[0].get_lines()}


def test_importing_changes_nothing_in_the_process():
    """Neither the backend nor how matplotlib draws."""
    program = """
import json, sys
import matplotlib
matplotlib.use("svg")
before = dict(matplotlib.rcParams)
from readout import figures
changed = [name for name, value in matplotlib.rcParams.items() if value != before[name]]
print(json.dumps([matplotlib.get_backend(), changed]))
"""
    done = ran([sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT / "workflow")}, check=True)
    assert json.loads(done.stdout) == ["svg", []]
