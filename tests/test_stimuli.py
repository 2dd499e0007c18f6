"""The stimulus sheet, and which references a condition shows."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from jobs import figures as job
from jobs.pictures import STIMULI
from jobs.trials import TRIALS
from readout import conditions, stimuli
from runtime import parquet

NATURAL = [f"natural{i}" for i in range(9)]
BLURRED = [f"blurred{i}" for i in range(9)]
SYNTHETIC = [f"synthetic{i}" for i in range(9)]
MIXED = [f"mixed{i}" for i in range(4)]
GIVEN = {"natural": NATURAL, "blurred": BLURRED, "synthetic": SYNTHETIC, "mixed": MIXED}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("none", []),
        ("natural", NATURAL),
        ("synthetic", SYNTHETIC),
        # The five strongest bins, before the visualisations of a batch of their own.
        ("mixed", ["natural4", "natural5", "natural6", "natural7", "natural8", *MIXED]),
        ("blur", BLURRED),
    ],
)
def test_a_condition_shows_its_references(condition, expected):
    assert conditions.references(condition, **GIVEN) == expected


def trials(differences, names=("none", "natural")):
    rows = []
    for unit, difference in enumerate(differences):
        for number in (1, 0):
            for condition in names:
                shown = {"base": f"b{unit}", "min": "low", "max": "high", "relative_difference": difference + number}
                shown |= {"references": [] if condition == "none" else [f"b{unit}", "low", "high"]}
                rows.append({"unit": unit, "set": number, "cell": "s0m0", "condition": condition, **shown})
    return pd.DataFrame(rows)


def test_units_of_a_sheet_are_spread_over_the_differences():
    """Of eleven units the strongest, two between and the weakest; each by its first image set."""
    differences = [5, 1, 9, 0, 3, 7, 2, 8, 10, 4, 6]
    rows = stimuli.chosen(trials(differences))
    assert [differences[unit] for unit, _ in rows] == [10, 7, 3, 0]
    assert {number for _, number in rows} == {0}
    assert len(stimuli.chosen(trials([1, 2]))) == 2
    assert stimuli.chosen(trials([1])) == [(0, 0)]


def test_a_mosaic_by_hand():
    """Three pictures of four by four pixels: two above, one below, white between and at the end."""
    made = stimuli.mosaic([np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)])
    assert made.shape == (10, 10, 3)
    assert (made[:4, :4] == 10).all()
    assert (made[:4, 5:9] == 20).all()
    assert (made[5:9, :4] == 30).all()
    assert (made[:, 4] == 255).all()
    assert (made[5:, 5:] == 255).all()
    # Two pictures stand in the middle of their square.
    assert (stimuli.mosaic([np.zeros((4, 4, 3), np.uint8)] * 2)[2:6, :4] == 0).all()


def test_the_sheet_shows_every_condition_with_references():
    pictures = {name: np.zeros((8, 8, 3), np.uint8) for name in ("b0", "b1", "low", "high")}
    pictures["low"] += 100
    table = trials([1, 2], conditions.CONDITIONS)
    figure = stimuli.sheet(table, pictures, "a grid")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["base image", "min query", "max query", "natural", "synthetic", "mixed", "blur"]
    assert len(figure.axes) == 14
    assert (figure.axes[1].images[0].get_array() == 100).all()
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == [
        "s0m0, unit 1\ndifference 2.00",
        "s0m0, unit 0\ndifference 1.00",
    ]


def test_a_grid_without_trials_has_a_sheet_that_says_so(tmp_path):
    """Its tables are there, and empty; of one that has trials the figure has pictures and no message."""
    paths = {"path_to_table": str(tmp_path / "trials.parquet"), "path_to_stimuli": str(tmp_path / "stimuli.parquet")}
    parquet.write(paths["path_to_table"], [], TRIALS)
    parquet.write(paths["path_to_stimuli"], [], STIMULI)
    with matplotlib.rc_context():
        figure = job.draw("stimuli", networks=[], title="net conv 0", **paths)
    assert not figure.axes
    (text,) = figure.texts
    assert text.get_text().startswith("net conv 0: there are no trials")
    assert stimuli.sheet(trials([1]).head(0), {}, "").texts[0].get_text().startswith("there are no trials")
    assert stimuli.sheet(trials([1]), {n: np.zeros((8, 8, 3), np.uint8) for n in ("b0", "low", "high")}, "").axes
