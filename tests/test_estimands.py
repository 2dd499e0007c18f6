"""Estimands of the claims: worlds of which the answer is known on paper."""

import numpy as np
import pytest

from readout import inference
from readout.estimands import ESTIMANDS, Undefined, reliability, spearman, top

S, M = np.indices((4, 4)) + 1.0


def _value(name, columns, classes=3, layers=3, **part):
    """The estimand's contrasts, of columns that broadcast to [classes, layers, S, M]; of the column `x` by default."""
    grid = np.shape(next(iter(columns.values())))[-2:] or (4, 4)
    columns = {key: np.broadcast_to(np.asarray(v, float), (classes, layers, *grid)) for key, v in columns.items()}
    estimand = ESTIMANDS[name]
    summaries = estimand.summary(lambda column, half="": columns[column + half], {"of": "x", **part})
    found, _ = inference.jackknife([summaries], [1.0], estimand.of_means)
    assert len(found.value) == len(estimand.names(grid))
    return found.value


def _by_strip(*values):
    """A value for each selectivity strip."""
    return np.array(values)[:, None] * np.ones(4)


def _one_cell(s, m, value, rest=0.0):
    grid = np.full((4, 4), rest)
    grid[s, m] = value
    return grid


def _by_layer(*values):
    return np.array(values, float)[:, None, None] * np.ones((4, 4))


NINE, SIX = np.arange(9.0).reshape(3, 3), np.arange(6) - 2.5
BOTH = {"of": ["a", "b"]}
LOW = {"where": "r", "at_least": 0.8}
HALVES = {"where": "r", "at_least": 0.8, "halves": True}
PEAKS = np.eye(3)[..., None, None] * 5 * np.ones((4, 4))
CORNERS = np.where(((S == 1) & (M == 1)) | ((S == 4) & (M == 4)), 1.0, np.nan)
KNOWN = {
    "outer less inner strips": ("outer_strips", {"x": _by_strip(0.9, 0.6, 0.7, 0.8)}, {}, [0.3, 0.2, 0.2, 0.1]),
    # Two strips up and two down: 1, 1, -1, -1.
    "strips disagree on depth": (
        "depth_of_strips",
        {"x": np.array([1.0, 2, 3])[:, None, None] * _by_strip(1, 1, -1, -1)},
        {},
        [0],
    ),
    # 1 3 2 in every strip: 1 - 6 * 2 / (3 * 8).
    "strips mixed": ("depth_of_strips", {"x": _by_layer(1, 3, 2)}, {}, [0.5]),
    "corner less cells": (
        "corner_less_cells",
        {"x": _one_cell(3, 3, 10, 1.0) + _one_cell(0, 1, 4)},
        {},
        [9, 5, *[9] * 13],
    ),
    # s2m2, s2m3 and s3m2 are neighbours; s0m3 is none.
    "corner less twice its neighbours": (
        "corner_less_twice_neighbours",
        {"x": _one_cell(3, 3, 10) + _one_cell(2, 3, 4) + _one_cell(3, 2, 7) + _one_cell(0, 3, 9)},
        {},
        [10, 2, -4],
    ),
    "corner less rest": ("corner_less_rest", {"x": _one_cell(3, 3, 10) + _one_cell(0, 1, 15)}, {}, [9]),
    # Cells between the corners have nothing, and one layer of the three has no controls: (1 + 3) / 2 and (5 + 9) / 2.
    "outer corners": (
        "outer_corners",
        {"x": np.array([1.0, np.nan, 3])[:, None, None] * CORNERS + np.array([4.0, 0, 6])[:, None, None] * (S == 1)},
        {},
        [2, 7],
    ),
    "outer corners without any": ("outer_corners", {"x": np.nan * CORNERS}, {}, [np.nan, np.nan]),
    # In one of three layers another cell is larger, in one it ties with the corner.
    "corner largest": (
        "corner_largest",
        {"x": _one_cell(3, 3, 5) + np.array([0.0, 5, 9])[:, None, None] * _one_cell(1, 1, 1)},
        {},
        [0.5],
    ),
    # s0m1 alone decodes well, at the bound, on half a in the first layer and on half b in all: (30 + 3 * 2) / 4.
    "spared, by halves": (
        "spared_against",
        {
            "r_a": np.array([1.0, 0, 0])[:, None, None] * _one_cell(0, 1, 0.8, 0.1),
            "r_b": _one_cell(0, 1, 0.9, 0.79),
            "x_a": 2.0 * _one_cell(0, 1, 1),
            "x_b": 30.0 * _one_cell(0, 1, 1),
        },
        HALVES,
        [9],
    ),
    "spared, all images": (
        "spared_against",
        {"r": _by_strip(0.8, 0, 0, 0), "x": _by_strip(5, 0, 0, 90)},
        {"where": "r", "at_least": 0.8},
        [5],
    ),
    # s3m0 and s3m1 decode well and lose 10 and 30; the higher magnitudes do not count.
    "spared for": (
        "spared_for",
        {"r": 0.9 + 0 * S, "x": np.array([10.0, 30, 900, 900]) * (S == 4)},
        {"where": "r", "at_least": 0.8},
        [20],
    ),
    "nothing decodes well": ("spared_for", {"r": 0.7, "x": 5.0}, {"where": "r", "at_least": 0.8}, [np.nan]),
    "peak layers differ": ("peak_layer", {"x_a": PEAKS, "x_b": PEAKS}, {}, [1]),
    "peak layers agree": ("peak_layer", {"x_a": _by_layer(0, 5, 0), "x_b": _by_layer(0, 5, 0)}, {}, [0]),
    # The second half peaks elsewhere than the first in every class, and between classes as much.
    "halves differ as much": ("peak_layer", {"x_a": _by_layer(0, 5, 0), "x_b": _by_layer(5, 0, 0)}, {}, [0]),
    # Layers 0, 0, 1: of the six pairs of different classes four differ.
    "two of three agree": (
        "peak_layer",
        {half: PEAKS[[0, 0, 1]] for half in ("x_a", "x_b")},
        {},
        [2 / 3],
    ),
    "layers tie": ("peak_layer", {"x_a": 1.0, "x_b": 1.0}, {}, [0]),
    "high magnitude": ("high_magnitude", {"x": np.array([1.0, 2, 3, 6]) * (S < 4) + 50 * (S == 4)}, {}, [4]),
    "low magnitude": ("high_magnitude", {"x": np.array([6.0, 3, 3, 0]) * np.ones((4, 1))}, {}, [-4]),
    "related": ("relation", {"a": S * M + M / 9, "b": (S * M + M / 9) ** 3}, BOTH, [1]),
    "opposed": ("relation", {"a": S * M + M / 9, "b": -(S * M + M / 9)}, BOTH, [-1]),
    "unrelated": ("relation", {"a": S, "b": M / 9}, BOTH, [0]),
    "constant is unrelated": ("relation", {"a": 1.0 + 0 * S, "b": M / 9}, BOTH, [0]),
    # The inner strips would spoil it.
    "related in the outer strips": (
        "relation_of_outer_strips",
        {"a": S * M + M / 9, "b": (S * M + M / 9) * np.where((S == 1) | (S == 4), 1, -99)},
        BOTH,
        [1],
    ),
    # Both follow the magnitude and nothing else, so nothing is left.
    "a third explains all": ("relation_given", {"a": M, "b": M, "e": M}, BOTH | {"given": "e"}, [0]),
    "a third explains nothing": ("relation_given", {"a": M, "b": M, "e": S}, BOTH | {"given": "e"}, [1]),
    # The best four by the one are s3, by the other m3: one in common.
    "a corner in common": ("overlap", {"a": S, "b": M}, BOTH, [0.25]),
    "all in common": ("overlap", {"a": S, "b": S / 9}, BOTH, [1]),
    "ties share": ("overlap", {"a": S + M / 9, "b": 1.0 + 0 * S}, BOTH, [0.25]),
    "some ties": ("overlap", {"a": S, "b": _one_cell(3, 3, 9.0) + 5 * (M == 1)}, BOTH, [(1 + 0.75) / 4]),
    # Centred bins are -1.5 to 1.5, whose squares sum to 5.
    "an interaction": ("interaction", {"x": 2 * (S - 2.5) * (M - 2.5) + 7 * S + 9 * M**2}, {}, [50]),
    "no interaction": ("interaction", {"x": 7 * S**2 + 9 * M}, {}, [0]),
    "extremes": ("extremes", {"x": _by_strip(0.9, 0.6, 0.7, 0.8)}, {}, [0.1]),
    "one extreme is not enough": ("extremes", {"x": _by_strip(0.9, 0.6, 0.7, 0.5)}, {}, [-0.2]),
    "deeper is more": ("depth", {"x": _by_layer(1, 2, 3)}, {}, [1]),
    # Two classes up, one down.
    "depth by class": (
        "depth",
        {"x": np.stack([_by_layer(1, 2, 3), _by_layer(2, 5, 9), _by_layer(3, 2, 1)])},
        {},
        [1 / 3],
    ),
    "a peak": ("peak", {"x": _one_cell(3, 3, 10) + _one_cell(0, 1, 4)}, {}, [6]),
    "a peak elsewhere": ("peak", {"x": _one_cell(3, 3, 10) + _one_cell(0, 1, 12)}, {}, [-2]),
    "a step": ("step", {"x": _one_cell(3, 3, 10) + _one_cell(2, 3, 4) + _one_cell(0, 3, 9)}, {}, [2]),
    "a diagonal slope": ("step", {"x": _one_cell(3, 3, 10) + _one_cell(2, 2, 6)}, {}, [-2]),
    "concentrated": ("concentration", {"x": _one_cell(3, 3, 15.0, 1.0)}, {}, [0.5]),
    "no deficit is evenly spread": ("concentration", {"x": -1.0 + 0 * S}, {}, [1 / 16]),
    # Values s m: all explained by the product; by s alone (mean m)^2 var s / var sm = 6.25 * 1.25 / 17.1875 = 5 / 11.
    "a product": ("product", {"x": S * M}, {}, [6 / 11]),
    "one bin alone": ("product", {"x": S}, {}, [-6 / 11]),
    "nothing to explain": ("product", {"x": 3.0 + 0 * S}, {}, [0]),
    "levels do not matter": ("product", {"x": S * M + _by_layer(0, 50, 100)}, {}, [6 / 11]),
    # Grids of 2 x 2: one cell is the corner, all others are its neighbours.
    # Other numbers of bins: one strip between the outer two, or four.
    "three strips": ("outer_strips", {"x": np.array([[5.0] * 3, [1] * 3, [2] * 3])}, {}, [4, 1]),
    "six strips": ("outer_strips", {"x": np.repeat([[9.0, 1, 2, 3, 4, 8]], 6, 0).T}, {}, [8, 7, 6, 5, 7, 6, 5, 4]),
    # Of three magnitudes the lowest, of six the lower three.
    "spared for, three bins": ("spared_for", {"x": np.array([[0.0] * 3, [0] * 3, [10, 50, 90]]), "r": 0.9}, LOW, [10]),
    "spared for, six bins": (
        "spared_for",
        {"x": np.vstack([np.zeros((5, 6)), [1.0, 2, 6, 50, 50, 50]]), "r": 0.9},
        LOW,
        [3],
    ),
    # A quarter of nine cells are two: s2m1 and s2m2 by the one, s1m2 and s2m2 by the other.
    "overlap, three bins": ("overlap", {"a": NINE, "b": NINE.T}, BOTH, [0.5]),
    # Squares of -1, 0, 1 sum to 2, those of -2.5 to 2.5 to 17.5: sizes of different grids cannot be compared.
    "an interaction of nine cells": ("interaction", {"x": np.outer([-1.0, 0, 1], [-1, 0, 1])}, {}, [4]),
    "an interaction of 36 cells": ("interaction", {"x": np.outer(SIX, SIX)}, {}, [17.5**2]),
    "four cells": ("corner_less_cells", {"x": np.array([[1.0, 2], [3, 9]])}, {}, [8, 7, 6]),
    "three neighbours": ("corner_less_twice_neighbours", {"x": np.array([[1.0, 2], [3, 9]])}, {}, [7, 5, 3]),
    "four cells interact": ("interaction", {"x": np.array([[1.0, 2], [3, 9]])}, {}, [(9 + 1 - 2 - 3) / 4]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_estimands_by_hand(name):
    """Each contrast in the order of its names; a class that has nothing to say is NaN."""
    estimand, columns, part, expected = KNOWN[name]
    assert _value(estimand, columns, **part) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_every_estimand_is_tried_by_hand():
    """An estimand added needs a world above."""
    assert {case[0] for case in KNOWN.values()} == set(ESTIMANDS)


def test_an_additive_world_has_no_interaction_and_its_product_bins_explain_more_than_a_single_one():
    """Why claim 8 as published holds where nothing interacts."""
    assert _value("product", {"x": S + M})[0] > 0.2
    assert _value("interaction", {"x": S + M})[0] == 0


@pytest.mark.parametrize(
    ("name", "grid", "layers", "said"),
    [
        ("outer_strips", (2, 4), 3, "no strip"),
        ("extremes", (2, 4), 3, "no strip"),
        ("depth_of_strips", (4, 4), 2, "three layers"),
        ("depth", (4, 4), 2, "three layers"),
    ],
)
def test_what_a_study_is_too_small_for_is_said(name, grid, layers, said):
    """Two strips have none between them, and two layers are no trend."""
    with pytest.raises(Undefined, match=said):
        _value(name, {"x": np.ones(grid)}, layers=layers)


@pytest.mark.parametrize(
    ("shape", "strips", "neighbours", "low"),
    [
        ((3, 3), ["s0 - s1", "s2 - s1"], ["s2m2 - 2 x s1m1", "s2m2 - 2 x s1m2", "s2m2 - 2 x s2m1"], "s2m0"),
        (
            (6, 6),
            [f"s{i} - s{j}" for i in (0, 5) for j in (1, 2, 3, 4)],
            ["s5m5 - 2 x s4m4", "s5m5 - 2 x s4m5", "s5m5 - 2 x s5m4"],
            "s5m0, s5m1 and s5m2",
        ),
        (
            (4, 4),
            ["s0 - s1", "s0 - s2", "s3 - s1", "s3 - s2"],
            ["s3m3 - 2 x s2m2", "s3m3 - 2 x s2m3", "s3m3 - 2 x s3m2"],
            "s3m0 and s3m1",
        ),
    ],
    ids=str,
)
def test_contrasts_of_other_grids_are_named_after_their_own_cells(shape, strips, neighbours, low):
    """Eight, fifteen or 35 contrasts of the corner with the other cells, and as many values as names."""
    assert ESTIMANDS["outer_strips"].names(shape) == strips
    assert ESTIMANDS["corner_less_twice_neighbours"].names(shape) == neighbours
    assert ESTIMANDS["spared_for"].names(shape) == [low]
    assert len(ESTIMANDS["corner_less_cells"].names(shape)) == shape[0] * shape[1] - 1
    assert ESTIMANDS["outer_corners"].names(shape) == [f"s{shape[0] - 1}m{shape[1] - 1}", "s0m0"]
    for name in ("outer_strips", "corner_less_cells", "corner_less_twice_neighbours", "outer_corners"):
        assert len(_value(name, {"x": np.ones(shape)})) == len(ESTIMANDS[name].names(shape))


def test_contrasts_are_named_as_they_are_computed():
    """Each cell by itself is the largest: its contrast alone is negative, under its name."""
    names = ESTIMANDS["corner_less_cells"].names((4, 4))
    neighbours = ESTIMANDS["corner_less_twice_neighbours"].names((4, 4))
    assert neighbours == ["s3m3 - 2 x s2m2", "s3m3 - 2 x s2m3", "s3m3 - 2 x s3m2"]
    for s, m in np.ndindex(4, 4):
        if (s, m) == (3, 3):
            continue
        found = _value("corner_less_cells", {"x": _one_cell(s, m, 1.0)})
        assert [names[i] for i in np.flatnonzero(found < 0)] == [f"s3m3 - s{s}m{m}"]
        found = _value("corner_less_twice_neighbours", {"x": _one_cell(s, m, 1.0)})
        assert [neighbours[i] for i in np.flatnonzero(found < 0)] == [n for n in neighbours if n.endswith(f"s{s}m{m}")]
    found = _value("outer_strips", {"x": _by_strip(1, 2, 4, 8)})
    assert dict(zip(ESTIMANDS["outer_strips"].names((4, 4)), found, strict=True)) == {
        "s0 - s1": -1,
        "s0 - s2": -3,
        "s3 - s1": 6,
        "s3 - s2": 4,
    }


def test_rank_correlations_are_scipy_s():
    """With ties."""
    from scipy.stats import spearmanr

    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 6, (2, 5, 16)).astype(float)
    assert spearman(a, b) == pytest.approx([spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)])


def test_a_partial_rank_correlation_is_that_of_the_residuals():
    """Of ranks regressed on ranks."""
    from scipy.stats import rankdata

    a, b, e = np.random.default_rng(1).normal(size=(3, 16)) + np.arange(16) / 5
    x, y, z = (rankdata(v) for v in (a, b, e))
    residuals = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y)]
    columns = {key: v.reshape(4, 4) for key, v in {"a": a, "b": b, "e": e}.items()}
    found = _value("relation_given", columns, of=["a", "b"], given="e")
    assert found == pytest.approx(np.corrcoef(*residuals)[0, 1])


def test_reliability_is_stepped_up_to_the_whole():
    """In the order 0 to 15; in the other half cells 0 and 15 change places: r = 1 - 6 * 450 / (16 * 255)."""
    order = np.arange(16.0)
    swapped = order.copy()
    swapped[[0, 15]] = swapped[[15, 0]]
    halves = np.broadcast_to(np.stack([order, swapped]).reshape(2, 1, 1, 4, 4), (2, 3, 2, 4, 4))
    r = 1 - 6 * 450 / (16 * 255)
    assert reliability(halves) == pytest.approx(2 * r / (1 + r))
    assert reliability(np.stack([halves[0], -halves[0]])) == -1


@pytest.mark.parametrize("name", KNOWN)
def test_a_class_with_a_number_missing_says_nothing(name):
    """Its summaries have a NaN, and those of the others none: it is left out as a whole, never taken for zero."""
    estimand, columns, part, _ = KNOWN[name]
    grid = np.shape(next(iter(columns.values())))[-2:] or (4, 4)
    columns = {key: np.broadcast_to(np.asarray(v, float), (3, 3, *grid)).copy() for key, v in columns.items()}
    for key, values in columns.items():
        # Cells that decode well are chosen by numbers that are there.
        if not key.startswith("r"):
            values[1] = np.nan
    if name in ("nothing decodes well", "outer corners without any"):
        return
    summaries = ESTIMANDS[estimand].summary(lambda column, half="": columns[column + half], {"of": "x", **part})
    assert np.isnan(summaries).any(-1).tolist() == [False, True, False]


def test_the_largest_share_the_last_place():
    assert top(np.array([3.0, 1, 1, 0]), 2).tolist() == [1, 0.5, 0.5, 0]
