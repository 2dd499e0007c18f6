"""Figures: the paper's axes, scales on which cells and small deficits are seen, and one page of claims."""

import json
import sys
from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from readout import cells as grids
from readout import claims, figures
from workflow import ROOT, ran

REGISTRY = yaml.safe_load((ROOT / "workflow" / "claims.yaml").read_text())
LAYERS = ("conv1", "conv2", "dense1")


@pytest.fixture(autouse=True)
def style():
    """The figures' own look; none stays open."""
    with matplotlib.rc_context():
        figures.style()
        yield
    plt.close("all")


def _cells(value=lambda s, m: 10 * s + m, bins=(4, 4), network="alexnet", classes=("0", "1"), layers=LAYERS):
    """A table of cells in which every measure is a function of the bins."""
    rows = [
        {
            "network": network,
            "layer": layer,
            "depth": depth,
            "class_id": class_id,
            "selectivity_bin": s,
            "magnitude_bin": m,
            **dict.fromkeys(("score_published", "accuracy", "rank_deficit"), value(s, m)),
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


def _bars(figure):
    """Tick labels of the colour bars."""
    return [_labels(axes.yaxis) for axes in figure.axes if axes.get_label() == "<colorbar>"]


def test_figure3_has_selectivity_upwards_and_magnitude_to_the_right():
    """s3m0 is top left and s0m3 bottom right: a value of its own for each, in three rows and five columns too."""
    for bins in ((4, 4), (3, 5)):
        top, right = bins[0] - 1, bins[1] - 1
        figure = figures.figure3(_cells(lambda s, m: 1 + 10 * s + m, bins), ["alexnet"])
        for axes in figure.axes[:3]:
            drawn = _drawn_at(axes, axes.get_images()[0])
            assert drawn[0, top] == pytest.approx(1 + 10 * top)
            assert drawn[right, 0] == pytest.approx(1 + right)
            assert drawn == pytest.approx({(m, s): 1 + 10 * s + m for s in range(bins[0]) for m in range(bins[1])})
            assert _labels(axes.xaxis) == {m: f"m{m}" for m in range(bins[1])}
            assert _labels(axes.yaxis) == {s: f"s{s}" for s in range(bins[0])}
            assert axes.get_ylabel() == "selectivity"
        assert figure.axes[2].get_xlabel() == "magnitude"
        texts = {text.get_position(): text.get_text() for text in figure.axes[1].texts}
        assert texts[0, top] == f"{1 + 10 * top:.2f}"


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
    assert {text.get_text() for text in figure.axes[2].texts} == {"0", "c"}


def test_deficits_are_written_so_that_only_zero_is_zero():
    """Down to half a hundredth as numbers."""
    values = {(3, 3): 1.046, (3, 2): 0.017, (0, 1): 0.0014}
    figure = figures.figure3(_cells(lambda s, m: values.get((s, m), 0.0)), ["alexnet"])
    texts = {text.get_position(): text.get_text() for text in figure.axes[2].texts}
    assert (texts[3, 3], texts[2, 3], texts[1, 0], texts[0, 0]) == ("1.05", "0.02", "<0.01", "0")
    # Black on white, white on the darkest.
    inks = {text.get_position(): text.get_color() for text in figure.axes[2].texts}
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
    found = _bars(figure)[2]
    assert list(found) == pytest.approx(list(expected))
    assert list(found.values()) == list(expected.values())


# ---- claims


def _claims(networks):
    """Rows for each test of the registry, with plausible numbers and the bounds of its rule; networks, then pooled."""
    generator = np.random.default_rng(0)
    rows = []
    for claim in REGISTRY:
        for test in claim["tests"]:
            lower, upper = claims.bounds(test)
            named = ["all"] if "contrast" in test else test.get("networks", [*networks, "all"])
            for network in named:
                low, estimate, high = np.sort(generator.normal(size=3)) / 7
                head = {name: claim[name] for name in ("claim", "statement", "section")}
                numbers = {"estimate": estimate, "ci_low": low, "ci_high": high, "lower": lower, "upper": upper}
                says = {"measure": test["measure"], "rule": claims.rule_text(test), "network": network}
                rows.append(head | numbers | says | {"verdict": claims.verdict(low, high, test)})
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
    tests = [part for _, part in table.groupby(["claim", "measure"], sort=False)]
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
