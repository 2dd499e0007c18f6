"""Legibility: accuracies, agreement and power by hand and in worlds whose truth is known; the step, its page and figures."""

import math
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib import pyplot as plt

from commands import ingest
from jobs import figures as figures_job
from jobs import image_sets, tables
from jobs import legibility as job
from jobs.image_sets import CONSTANT
from jobs.page import KEY, plans
from jobs.trials import ASKED
from occlusion_page import built, made
from readout import StudyError, bridge, figures, legibility, legibility_figures, legibility_page
from readout import answers as persons
from readout.answers import Person
from readout.conditions import NONE
from readout.legibility import DISPLAYED, PERSON, PRIOR, PUBLISHED
from readout.occluders import NO_EFFECT
from readout.verdicts import POOLED
from readout.visualisations import INFINITE, OK, SILENT
from runtime import parquet

CELLS = [f"s{s}m{m}" for s in range(4) for m in range(4)]
CONDITIONS = ["natural", "synthetic", NONE]


def answers(correct, observer="patch", condition="natural", units=None, **columns):
    """Answers [units, sets] of one observer as a frame; other columns are of the same shape or one value."""
    correct = np.asarray(correct, float)
    unit, chosen = (each.ravel() for each in np.indices(correct.shape))
    frame = pd.DataFrame(
        {"network": "net", "layer": "conv", "class_id": "0", "cell": "s0m0", "unit": unit, "set": chosen}
    )
    frame = frame.assign(condition=condition, observer=observer, correct=correct.ravel(), relative_difference=0.5)
    for name, value in columns.items():
        frame[name] = np.broadcast_to(value, correct.shape).ravel() if np.ndim(value) else value
    return frame


# ---- published numbers


def test_published_counts_print_as_in_the_paper():
    """243 of 360 is .675 and prints .68; 225 of 360 is .625 and prints .62: halves go to the even digit."""
    assert [legibility.percent(each.people, 900) for each in PUBLISHED.values()] == [
        "0.67",
        "0.67",
        "0.67",
        "0.66",
        "0.60",
    ]
    assert [legibility.percent(each.experts, 360) for each in PUBLISHED.values()] == [
        "0.69",
        "0.73",
        "0.68",
        "0.70",
        "0.62",
    ]
    assert [each.people for each in PUBLISHED.values()] == [602, 600, 606, 592, 540]
    assert [each.experts for each in PUBLISHED.values()] == [249, 262, 243, 251, 225]
    assert list(PUBLISHED) == list(legibility.DISPLAYED) == ["synthetic", "natural", "mixed", "blur", "none"]
    # 50 sessions whose deviation is the .136 that section 4.2 works out for synthetic: 2 x .136 / sqrt(50).
    assert PUBLISHED["synthetic"].people_sem2 == pytest.approx(2 * 0.136 / math.sqrt(50), abs=2e-4)
    # What showing any explanation adds.
    effect = np.mean([each.people / 900 for name, each in PUBLISHED.items() if name != NONE]) - 540 / 900
    assert effect == pytest.approx(legibility.EFFECT, abs=0.005)


def test_the_published_error_by_hand():
    """Sessions .5 and 1: population deviation .25, over sqrt 2, twice: .35355. One session has none."""
    assert legibility.error_over_sessions([0.5, 1.0]) == pytest.approx(0.35355, abs=1e-5)
    assert legibility.error_over_sessions([0.5]) is None


# ---- accuracy


def test_an_accuracy_by_hand():
    """Units .5, 1 and 0 of two sets: mean .5; deviation .5; t(2) at .975 is 4.303; .5 +- 4.303 x .5 / sqrt 3, cut at 0 and 1."""
    found = legibility.accuracy(answers([[1, 0], [1, 1], [0, 0]]), 0.95)
    assert (found.estimate, found.low, found.high) == (0.5, 0, 1)
    assert (found.units, found.trials, found.sessions, found.sem2) == (3, 6, None, None)
    # Units .5, .5, .5, 1: mean .625, deviation .25; t(3) is 3.182: .625 +- .398.
    found = legibility.accuracy(answers([[1, 0], [0, 1], [1, 0], [1, 1]]), 0.95)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.625, 0.625 - 0.3978, 1.0), abs=1e-4)
    # Units that do not differ show no doubt, which is no certainty.
    found = legibility.accuracy(answers(np.ones((5, 2))), 0.95)
    assert (found.estimate, found.low, found.high) == (1, None, None)
    assert legibility.accuracy(answers([[1, 0]]), 0.95)[:3] == (0.5, None, None)


def test_units_weigh_the_same_and_so_do_their_sets():
    """A unit with one set, right, and one with three, wrong: .5 and not the .25 of all trials. A tie is half."""
    frame = pd.concat([answers([[1]]), answers([[0, 0, 0]]).assign(unit=1)])
    found = legibility.accuracy(frame, 0.95)
    assert (found.estimate, found.pooled) == (0.5, 0.25)
    # One set judged by three sessions, right; another by one, wrong.
    people = pd.concat([answers([[1]], session=name) for name in "abc"] + [answers([[0]], session="d").assign(set=1)])
    assert legibility.accuracy(people, 0.95).estimate == 0.5
    assert legibility.accuracy(answers([[0.5, 0.5]]), 0.95).estimate == 0.5
    # The same unit of two targets is one unit.
    twice = pd.concat([answers([[1, 0], [1, 1]]), answers([[1, 0], [1, 1]]).assign(class_id="1")])
    assert legibility.accuracy(twice, 0.95)[:3] == legibility.accuracy(answers([[1, 0], [1, 1]]), 0.95)[:3]


def test_the_error_over_sessions_is_of_sessions():
    frame = pd.concat([answers([[1], [0]], session="a"), answers([[1], [1]], session="b")])
    found = legibility.accuracy(frame, 0.95)
    assert (found.sessions, found.pooled, found.estimate) == (2, 0.75, 0.75)
    assert found.sem2 == pytest.approx(0.35355, abs=1e-5)


WORLDS = 1000


@pytest.mark.parametrize(("units", "sets"), [(16, 4), (48, 10), (200, 4)])
def test_intervals_over_units_cover_where_units_vary(units, sets):
    """Units of deviation .2 about .65, sessions alike. Intervals over trials, as if each were by itself, are too short."""
    generator = np.random.default_rng(units)
    skill = np.clip(generator.normal(0.65, 0.2, (WORLDS, units)), 0, 1)
    truth = skill.mean()  # of the clipped distribution
    right = generator.binomial(sets, skill) / sets
    found = [legibility.over_units(world) for world in right]
    low, high = np.array([each.interval(0.95) for each in found])[..., 0].T
    assert ((low <= truth) & (high >= truth)).mean() == pytest.approx(0.95, abs=0.022)
    # Negative controls: per trial, and by the published 2 SEM over sessions, of which each judges every unit once.
    p = right.mean(1)
    naive = 1.96 * np.sqrt(p * (1 - p) / (units * sets))
    assert (np.abs(p - truth) <= naive).mean() < 0.9
    sessions = generator.binomial(1, skill[:, None, :].repeat(10, 1)).mean(-1)
    published = 2 * sessions.std(1) / np.sqrt(10)
    assert (np.abs(sessions.mean(1) - truth) <= published).mean() < 0.85


# ---- agreement


def test_kappa_by_hand():
    """18 items, 12 agreements, 10 and 12 right: p_e = (10 x 12 + 8 x 6) / 18^2 = .51852; (.66667 - p_e) / (1 - p_e) = .30769."""
    # 8 both right, 2 and 4 one alone, 4 both wrong.
    one = [1] * 8 + [1] * 2 + [0] * 4 + [0] * 4
    other = [1] * 8 + [0] * 2 + [1] * 4 + [0] * 4
    assert (sum(one), sum(other)) == (10, 12)
    assert legibility.kappa(one, other) == pytest.approx(0.30769, abs=1e-5)
    assert legibility.kappa(one, one) == pytest.approx(1)
    assert legibility.kappa([1, 0, 1, 0], [0, 1, 0, 1]) == pytest.approx(-1)


def test_kappa_of_answers_that_never_differ_is_undefined():
    """It is None, and no part of the mean over sets; a tie is an answer of its own."""
    assert legibility.kappa([1, 1, 1], [1, 1, 1]) is None
    assert legibility.kappa([1, 1, 1], [0, 0, 0]) == 0
    assert legibility.kappa([0.5, 1], [0.5, 1]) == 1
    # Set 0: all right, undefined. Set 1: as one, 1. Set 2: 0 of kappa.
    one = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 1], [1, 0, 0]])
    other = np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 1]])
    frame = pd.concat([answers(one, "a"), answers(other, "b")])
    (found,) = legibility.agreement(frame, "natural", 0.95)
    assert (found.one, found.other, found.pairs, found.undefined, found.units) == ("a", "b", 2, 1, 4)
    assert found.estimate == pytest.approx(0.5)
    assert found.sem2 == pytest.approx(2 * 0.5 / math.sqrt(2))
    # Never anything but right: no pair has a kappa.
    (found,) = legibility.agreement(
        pd.concat([answers(np.ones((3, 1)), "a"), answers(np.ones((3, 1)), "b")]), "natural", 0.95
    )
    assert (found.estimate, found.pairs, found.undefined) == (None, 0, 1)


def test_who_is_compared_with_whom():
    """People with each other by pairs of sessions, and with machines; those without references in every condition."""
    right = np.array([[1], [0], [1], [0]])
    frame = pd.concat(
        [
            *(answers(right, PERSON, session=name) for name in "abc"),
            answers(right, PERSON, NONE, session="d"),
            answers(right, "patch"),
            answers(1 - right, PRIOR, NONE),
        ]
    )
    found = {
        (each.one, each.other): (each.pairs, each.estimate) for each in legibility.agreement(frame, "natural", 0.95)
    }
    assert found == {
        (PERSON, PERSON): (3, 1),
        (PERSON, "patch"): (3, 1),
        (PERSON, PRIOR): (3, -1),
        ("patch", PRIOR): (1, -1),
    }
    # In the condition without references only who answered there.
    found = {(each.one, each.other) for each in legibility.agreement(frame, NONE, 0.95)}
    assert found == {(PERSON, PRIOR)}
    # People who saw no references stand for nobody who did.
    alone = frame[(frame["observer"] != PERSON) | (frame["condition"] == NONE)]
    assert {(each.one, each.other) for each in legibility.agreement(alone, "natural", 0.95)} == {("patch", PRIOR)}
    # Answers on different sets are not compared.
    apart = pd.concat([answers(right, "a"), answers(right, "b").assign(set=1)])
    assert list(legibility.agreement(apart, "natural", 0.95)) == []


def test_intervals_of_kappa_cover():
    """Two observers that answer each unit alike in six of ten cases and else for themselves: kappa .6 of an even task."""
    generator = np.random.default_rng(0)
    covered, middle = [], []
    for _ in range(150):
        one, own = (generator.integers(0, 2, (48, 4)) for _ in range(2))
        other = np.where(generator.random((48, 4)) < 0.6, one, own)
        frame = pd.concat([answers(one, "a"), answers(other, "b")])
        (found,) = legibility.agreement(frame, "natural", 0.95)
        covered.append(found.low <= 0.6 <= found.high)
        middle.append(found.estimate)
    assert np.mean(covered) > 0.91
    assert np.mean(middle) == pytest.approx(0.6, abs=0.02)


# ---- hard trials, confidence, time


def test_accuracy_against_relative_difference_by_hand():
    """Right where the difference is large: rank correlation 1 for 4 items of two kinds is sqrt(.8), from ranks 1.5 and 3.5."""
    frame = answers([[0, 1], [0, 1]], relative_difference=np.array([[0.1, 0.9], [0.2, 0.8]]))
    (value, low, high), units = legibility.relation(frame, 0.95)
    assert value == pytest.approx(math.sqrt(0.8)) and (low, high, units) == (None, None, 2)
    assert legibility.relation(answers([[1, 1]]), 0.95)[0] == (None, None, None)
    # A base image that the unit does not answer to has no relative difference and no say.
    assert legibility.relation(frame.assign(relative_difference=np.nan), 0.95) == ((None, None, None), 0)


def test_bins_have_equal_counts():
    """Ten items of differences 0 to .9, right above .5: bins of two, the fifth item and less are wrong."""
    difference = np.arange(10).reshape(5, 2) / 10
    frame = answers(difference > 0.45, relative_difference=difference)
    found = legibility.by_difference(frame.sample(frac=1, random_state=0), 0.95)
    assert [each.accuracy.trials for each in found] == [2] * 5
    assert [each.relative_difference for each in found] == pytest.approx([0.05, 0.25, 0.45, 0.65, 0.85])
    assert [each.accuracy.estimate for each in found] == [0, 0, 0.5, 1, 1]
    assert len(legibility.by_difference(frame.head(3), 0.95)) == 3
    assert legibility.by_difference(frame.assign(relative_difference=np.nan), 0.95) == []


@pytest.mark.parametrize("strength", [0.0, 0.6])
def test_intervals_of_the_relation_cover(strength):
    """48 units of 4 sets, with differences that units share and answers that follow them; the truth is that of 100,000 units."""
    generator = np.random.default_rng(1)

    def draw(units):
        difference = generator.normal(size=(units, 1)) + generator.normal(size=(units, 4))
        easy = strength * difference + 0.5 * generator.normal(size=(units, 1)) + generator.normal(size=(units, 4))
        return (easy > 0).astype(float), difference

    right, difference = draw(100_000)
    truth = legibility._correlation(right.ravel(), difference.ravel())
    covered, short = [], []
    for _ in range(300):
        right, difference = draw(48)
        (value, low, high), _ = legibility.relation(answers(right, relative_difference=difference), 0.95)
        covered.append(low <= truth <= high)
        # Negative control: as if all 192 trials were independent and told as much as numbers do.
        short.append(abs(np.arctanh(value) - np.arctanh(truth)) <= 0.5 * 1.96 / math.sqrt(192 - 3))
    assert np.mean(covered) > 0.91
    assert np.mean(short) < 0.8


def test_confidence_and_reaction_times_by_hand():
    """Two units and two sessions: levels 3, 3, 1, 2; the sure ones right. Times 2 and 4 where right, 6 and 8 where wrong."""
    frame = pd.concat(
        [
            answers([[1], [1]], PERSON, session="a", confidence=np.array([[3], [3]]), seconds=np.array([[2], [4]])),
            answers([[0], [0]], PERSON, session="b", confidence=np.array([[1], [2]]), seconds=np.array([[6], [8]])),
        ]
    )
    levels = {level: (share.pooled, right.estimate) for level, share, right in legibility.confidences(frame, 0.95)}
    assert levels == {1: (0.25, 0), 2: (0.25, 0), 3: (0.5, 1)}
    times = {part: (found.pooled, found.sem2) for part, found in legibility.seconds(frame, 0.95)}
    # Sessions take 3 and 7 on average: deviation 2, 2 x 2 / sqrt 2.
    assert times == {"all": (5, pytest.approx(2.8284, abs=1e-4)), "right": (3, None), "wrong": (7, None)}
    without = list(legibility.confidences(frame.assign(confidence=3), 0.95))
    assert [(share.pooled, right is None) for _, share, right in without] == [(0, True), (0, True), (1, False)]
    # Seconds have no end at 1.
    assert dict(legibility.seconds(frame, 0.95))["all"].high > 5


# ---- gains and power


def test_a_gain_is_over_the_sets_that_both_conditions_have():
    """The unit is right in sets 0 and 1 with references, and has no synthetic trial of set 2; the prior is right in 0 and 2."""
    frame = pd.concat(
        [
            answers([[1, 1, 0], [0, 1, 0]]),
            answers([[1, 1]], condition="synthetic"),
            answers([[1, 0, 1], [0, 0, 0]], PRIOR, NONE),
            answers([[0, 0, 0], [0, 0, 0]], "center", NONE),
        ]
    )
    found = legibility.gains(frame).set_index(["condition", "unit"])
    assert found["gain"].to_dict() == pytest.approx({("natural", 0): 0, ("natural", 1): 1 / 3, ("synthetic", 0): 0.5})
    assert found["sets"].to_dict() == {("natural", 0): 3, ("natural", 1): 3, ("synthetic", 0): 2}
    assert set(found["observer"]) == {"patch"}


def test_people_gain_over_people():
    """Not over the prior observer, and with all who answered a set."""
    frame = pd.concat(
        [
            answers([[1, 1]], PERSON, session="a"),
            answers([[0, 1]], PERSON, session="b"),
            answers([[0, 1]], PERSON, NONE, session="c"),
            answers([[0, 0]], PRIOR, NONE),
        ]
    )
    (gain,) = legibility.gains(frame)["gain"]
    assert gain == pytest.approx(0.75 - 0.5)


def variance_of(deviation, right, sets, conditions=1):
    """Of a unit's value: that between units, and that of answers to image sets in each condition."""
    return deviation**2 + conditions * right * (1 - right) / sets


def test_power_as_in_the_specification():
    """s_u = .15, p = 2/3, ten sets: 12 units a group have a standard error of .086 and detect .24, 48 .12; .07 takes about
    143 units a group, and a gain, whose answers count twice, about 214."""
    variance = variance_of(0.15, 2 / 3, 10)
    assert variance == pytest.approx(0.0225 + 0.02222, abs=1e-5)
    for count, error, detected in ((12, 0.086, 0.24), (48, 0.043, 0.12)):
        se = math.sqrt(2 * variance / count)
        assert se == pytest.approx(error, abs=5e-4)
        assert legibility.detectable(se, 0.95) == pytest.approx(detected, abs=5e-3)
    # 143.3 and 214.5, and units are whole.
    assert legibility.needed(variance, 0.07, 0.95, groups=2) == 144
    assert legibility.needed(variance_of(0.15, 2 / 3, 10, conditions=2), 0.07, 0.95, groups=2) == 215
    # By t with 22 degrees of freedom, 2.0739 and .8583.
    found = legibility.power(variance, [12, 12], 0.95)
    assert found.detectable == pytest.approx(0.08633 * (2.0739 + 0.8583), abs=1e-4)
    assert found.needed == 144 and found.deviation == pytest.approx(math.sqrt(variance))
    # One group is a mean: half the variance.
    assert legibility.power(variance, [12], 0.95).error == pytest.approx(math.sqrt(variance / 12))
    for variance, counts in ((0.0, [12, 12]), (0.1, [1, 1]), (0.1, [4, 0]), (float("nan"), [4, 4])):
        assert legibility.power(variance, counts, 0.95) is None


def test_the_power_statement_keeps_its_promise():
    """With a difference as large as said to be detectable, four in five simulated studies find it."""
    generator = np.random.default_rng(0)
    found = legibility.power(0.01, [16, 16], 0.95)
    a = np.repeat([1.0, 0.0], 16)
    y = found.detectable * a + generator.normal(0, 0.1, (WORLDS, 32))
    design = np.stack([a, np.ones(32)], -1)
    estimate = bridge.linear(design, y, np.ones(32), np.arange(32), np.array([1.0, 0]))
    assert (estimate.interval(0.95)[0] > 0).mean() == pytest.approx(0.8, abs=0.04)


# ---- the step


def simulate(units=1, sets=4, networks=("one", "two", "untrained"), layers=("conv1", "conv2"), people=8, seed=0):
    """Answers of machines and people, and cells, of a study in which cells that matter gain and an untrained network does not."""
    generator = np.random.default_rng(seed)
    frames, cells = [], []
    for network in networks:
        for layer in layers:
            rows = [
                {
                    "network": network,
                    "layer": layer,
                    "class_id": "0",
                    "cell": cell,
                    "selectivity_bin": int(cell[1]),
                    "magnitude_bin": int(cell[3]),
                    "units": 50 + i,
                    "separation_loss_zero": 0.02 * i + generator.normal(0, 0.02) + (0.4 if i >= 14 else 0),
                    "separation_loss_mean": 0.01 * i + generator.normal(0, 0.02) + (0.4 if i >= 14 else 0),
                    "auroc": 0.6 + 0.01 * i + (0.25 if i in (0, 3) else 0),
                }
                for i, cell in enumerate(CELLS)
            ]
            cells += rows
            grid = pd.DataFrame(rows)
            count = 16 * units
            names = np.repeat(CELLS, units)
            hard = generator.normal(0, 0.12, count)
            matters = np.repeat((grid["separation_loss_zero"] > 0.5).to_numpy(float), units)
            difference = generator.gamma(3, 0.15, (count, sets))
            known = network != "untrained"

            def right(gain, count=count, sets=sets, hard=hard, matters=matters, difference=difference, known=known):
                p = 0.58 + known * (hard + gain * (0.5 + matters)) + 0.15 * (difference.T - 0.45).T.mean(1)
                return (generator.random((count, sets)) < np.clip(p, 0.05, 0.98)[:, None]).astype(float)

            base = answers(np.zeros((count, sets)), relative_difference=difference)
            base = base.assign(network=network, layer=layer, cell=np.repeat(names, sets))
            base["unit"] = base["unit"] * 7 + 1
            makers = [
                (name, c, g)
                for name, g in (("patch_hand", 0.15), ("patch_sibling", 0.2), ("whole_ssim", 0.05))
                for c in CONDITIONS[:-1]
            ]
            makers += [(name, NONE, 0.0) for name in (PRIOR, "center", "variance", "saliency_sr")]
            for observer, condition, gain in makers:
                frames.append(base.assign(observer=observer, condition=condition, correct=right(gain).ravel()))
            for i in range(people):
                condition = CONDITIONS[i % 3]
                values = right(0.0 if condition == NONE else 0.12).ravel()
                own = base.assign(observer=PERSON, condition=condition, correct=values, session=f"p{i}")
                own["confidence"] = generator.integers(1, 4, len(own))
                own["seconds"] = generator.gamma(4, 2, len(own))
                frames.append(own[own["set"] == i % sets])
    trials = pd.concat(frames, ignore_index=True)
    keys = ["network", "layer", "unit", "set", "condition"]
    trials["trial"] = trials[keys].astype(str).agg("-".join, axis=1)
    trials["unit"], trials["set"] = trials["unit"].astype("int32"), trials["set"].astype("int32")
    return trials, pd.DataFrame(cells)


NETWORKS = {"one": {"untrained": False}, "two": {"untrained": False}, "untrained": {"untrained": True}}


def write(folder, trials, cells):
    """The study's tables; the arguments of the step that are paths."""
    answered = trials["session"].notna() if "session" in trials else np.zeros(len(trials), bool)
    machines, people = trials[~answered], trials[answered]
    observers = {}
    for network, part in machines.groupby("network"):
        path = folder / "observers" / f"{network}.parquet"
        table = pa.Table.from_pandas(part.assign(p=0.5), preserve_index=False)
        parquet.write(path, {name: table[name] for name in job.ANSWERS.names}, job.ANSWERS)
        observers[network] = str(path)
    rows = cells.assign(depth=0).to_dict("records")
    blank = {field.name: 0 if pa.types.is_integer(field.type) else None for field in tables.CELLS}
    blank |= {field.name: 0.0 for field in tables.CELLS if pa.types.is_floating(field.type)}
    parquet.write(folder / "cells.parquet", [blank | row for row in rows], tables.CELLS)
    given = {
        "paths_to_observers": observers,
        "path_to_cells": str(folder / "cells.parquet"),
        "path_to_legibility": str(folder / "legibility.parquet"),
        "path_to_page": str(folder / "legibility.html"),
        "networks": NETWORKS,
        "conditions": CONDITIONS,
        "confidence": 0.95,
        "origins": {network: {"observers": {}} for network in (*NETWORKS, "three")},
    }
    if len(people):
        people = people.assign(kind="main", passed=True)
        table = pa.Table.from_pandas(people.astype({"confidence": "Int32"}), preserve_index=False)
        parquet.write(folder / "responses.parquet", {name: table[name] for name in job.RESPONSES.names}, job.RESPONSES)
        given["path_to_responses"] = str(folder / "responses.parquet")
    return given


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A simulated study of three units a cell, judged: answers, cells, the table and the page."""
    trials, cells = simulate(units=3)
    given = write(tmp_path_factory.mktemp("legibility"), trials, cells)
    job.judge(**given)
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    return trials, cells, table, Path(given["path_to_page"]).read_text(encoding="utf-8")


def pick(table, what, **which):
    rows = table[table["what"] == what]
    for name, value in which.items():
        rows = rows[rows[name] == value]
    return rows


def test_the_step_says_of_each_network_what_the_functions_say(judged):
    trials, _, table, _ = judged
    own = trials[
        (trials["network"] == "one") & (trials["observer"] == "patch_hand") & (trials["condition"] == "natural")
    ]
    (row,) = pick(table, "accuracy", network="one", layer="all", observer="patch_hand", condition="natural").to_dict(
        "records"
    )
    found = legibility.accuracy(own, 0.95)
    assert (row["estimate"], row["low"], row["high"]) == (found.estimate, found.low, found.high)
    assert (row["n_units"], row["n_trials"]) == (96, 384)
    (row,) = pick(table, "accuracy", network="one", layer="conv1", observer="patch_hand", condition="natural").to_dict(
        "records"
    )
    assert row["estimate"] == pytest.approx(own.loc[own["layer"] == "conv1", "correct"].mean())
    cells = pick(table, "cell", network="one", observer="patch_hand", condition="natural").set_index("part")["estimate"]
    assert cells.to_dict() == pytest.approx(own.groupby("cell")["correct"].mean().to_dict())
    margins = pick(table, "margin", network="one", observer="patch_hand", condition="natural")
    assert list(margins["part"]) == [f"{letter}{i}" for letter in "sm" for i in range(4)]


def test_pooled_rows_are_of_trained_networks(judged):
    """The untrained network has rows of its own and is in no other; without a gap it has no bridge."""
    trials, _, table, page = judged
    of = trials[
        trials["network"].isin(["one", "two"])
        & (trials["observer"] == "patch_sibling")
        & (trials["condition"] == "natural")
    ]
    (row,) = pick(table, "accuracy", network=POOLED, observer="patch_sibling", condition="natural").to_dict("records")
    assert row["n_units"] == 192 and row["pooled"] == pytest.approx(of["correct"].mean())
    untrained = pick(table, "bridge", network="untrained")
    assert set(untrained["status"]) == {bridge.NOT_ESTIMABLE} and set(untrained["reason"]) == {
        "no network has a gap to lose"
    }
    assert pick(table, "accuracy", network="untrained", layer="all")["estimate"].between(0.3, 0.75).all()
    assert "Untrained: a control" in page
    assert legibility_page.ALONE not in page


def test_a_page_without_an_untrained_network_says_how_to_have_one(tmp_path):
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    given = write(tmp_path, trials, cells)
    job.judge(**given)
    page = Path(given["path_to_page"]).read_text(encoding="utf-8")
    assert "Untrained: a control" not in page
    assert legibility_page.ALONE in page
    assert "occlusion.networks" in page


def test_the_page_says_that_machines_are_no_people(judged, tmp_path):
    page = judged[3]
    assert "Machine observers are a proxy. They are not people." in page
    assert "Rows named “people” are answers of people." in page
    assert page.index("What this study could find") < page.index("How often observers are right")
    assert page.index("How often observers are right") < page.index("Are units that matter easier to see?")
    for text in (
        "0.67 ± 0.04",
        "0.62 ± 0.03",
        "published: two experts",
        "Whether observers agree",
        "2 standard errors",
    ):
        assert text in page, text
    assert "http://" not in page and "https://" not in page and "nan" not in page
    given = write(tmp_path, *simulate(people=0, networks=("one",), layers=("conv1",)))
    job.judge(**given)
    page = Path(given["path_to_page"]).read_text(encoding="utf-8")
    assert "No answers of people are on this page." in page and "How fast and how sure" not in page


def test_the_power_statement_comes_before_any_contrast(judged):
    """In the table as on the page; and is there for each contrast."""
    _, _, table, _ = judged
    for network in ("one", "two", POOLED):
        whats = list(table.loc[table["network"] == network, "what"])
        assert whats.index("contrast") > max(i for i, what in enumerate(whats) if what == "power")
        power = pick(table, "power", network=network, part="contrast")
        contrasts = pick(table, "contrast", network=network, adjusted=False)
        assert len(power) == len(contrasts) and power["detectable"].notna().all()
        keys = ["observer", "condition", "intervention"]
        both = power.set_index(keys)[["n_a", "n_p"]]
        assert both.equals(contrasts.set_index(keys).loc[both.index, ["n_a", "n_p"]])


def test_p_values_are_adjusted_over_the_contrasts_of_a_network(judged):
    _, _, table, _ = judged
    rows = pick(table, "contrast", network="one")
    assert len(rows) == 4 * 2 * 2 * 2
    assert rows["p_adjusted"].min() == pytest.approx(min(1, len(rows) * rows["p"].min()))


def units_table(path, statuses, cells=None, **given):
    """A table of units with these statuses."""
    count = len(statuses)
    numbers = {name: [0] * count for name in image_sets.UNITS.names}
    known = {"unit": list(range(count)), "cell": cells or ["s0m0"] * count, "status": statuses}
    parquet.write(path, numbers | known | given, image_sets.UNITS)


def extremes_table(path, rows):
    """A table of image sets, by unit, set and why there is no right answer."""
    blank = dict.fromkeys(image_sets.EXTREMES.names, 0) | {"beneficial": False}
    found = [{"unit": unit, "set": number, "valid": not reason, "reason": reason} for unit, number, reason in rows]
    parquet.write(path, [blank | row for row in found], image_sets.EXTREMES)


def test_units_without_trials_are_counted(tmp_path):
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    given = write(tmp_path, trials, cells)
    units_table(tmp_path / "u.parquet", ["ok", CONSTANT, CONSTANT])
    extremes_table(tmp_path / "e.parquet", [(0, 0, ""), (0, 1, NO_EFFECT)])
    job.judge(
        **given,
        paths_to_units={("one", "conv1", "0"): str(tmp_path / "u.parquet")},
        paths_to_extremes={("one", "conv1", "0"): str(tmp_path / "e.parquet")},
    )
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    rows = pick(table, "left_out")
    assert list(zip(rows["part"], rows["reason"], rows["n_units"], strict=True)) == [
        ("units", CONSTANT, 2),
        ("extremes", NO_EFFECT, 1),
    ]
    page = Path(given["path_to_page"]).read_text(encoding="utf-8")
    assert f"2 units: {CONSTANT}; 1 image sets: {escape(NO_EFFECT)}" in page


def test_a_grid_may_have_neither_image_sets_nor_scores(tmp_path):
    """Two units, both silent: they are counted, and empty tables of queries and of scores stop nothing."""
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    given = write(tmp_path, trials, cells)
    units_table(tmp_path / "u.parquet", [CONSTANT] * 2)
    extremes_table(tmp_path / "e.parquet", [])
    parquet.write(tmp_path / "s.parquet", [], job.SCORES)
    paths = {
        f"paths_to_{name}": {("one", "conv2", "0"): f"{tmp_path}/{name[0]}.parquet"} for name in ("units", "extremes")
    }
    job.judge(**given, **paths, paths_to_interpretability={"one": f"{tmp_path}/s.parquet"})
    rows = pick(parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas(), "left_out")
    assert rows[["part", "reason", "n_units"]].to_numpy().tolist() == [["units", CONSTANT, 2]]


def test_visualisations_that_fail_are_counted(tmp_path):
    """Of two files and an empty one: two pictures are silent, and one could not be saved as it is not finite. Unit 2
    is constant: its row is no picture. Those that drive their unit, and other batches, are not told of."""
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    given = write(tmp_path, trials, cells)
    units_table(tmp_path / "u.parquet", ["ok", "ok", CONSTANT], ["s0m0", "s0m1", "s0m1"])
    pictures = {0: ([OK, SILENT], [SILENT] * 4), 1: ([SILENT, SILENT], [SILENT] * 4)}
    rows = {
        unit: [
            {"unit": unit, "batch": batch, "index": i, "png": b"x", "status": status}
            for batch, statuses in zip(("synthetic", "mixed"), of_unit, strict=True)
            for i, status in enumerate(statuses)
        ]
        for unit, of_unit in pictures.items()
    }
    rows[1][1] |= {"png": None, "status": INFINITE}
    none = {"unit": 2, "batch": "synthetic", "index": 0, "png": None, "status": CONSTANT}
    files = {"s0m0": rows[0], "s0m1": [*rows[1], none], "s1m0": []}
    paths = {cell: str(tmp_path / f"{cell}.parquet") for cell in files}
    for cell, found in files.items():
        parquet.write(paths[cell], found, job.VISUALISATIONS)
    grid = ("one", "conv1", "0")
    given |= {"paths_to_units": {grid: str(tmp_path / "u.parquet")}}
    job.judge(**given, paths_to_visualisations={grid: paths, ("one", "conv2", "0"): {}})
    rows = pick(parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas(), "left_out")
    rows = rows[rows["part"] == "visualisations"]
    assert rows["n_units"].isna().all()
    assert dict(zip(rows["reason"], rows["n_trials"], strict=True)) == {SILENT: 2, INFINITE: 1}
    page = Path(given["path_to_page"]).read_text(encoding="utf-8")
    assert "1 picture: the activation is not finite; 2 pictures: the unit stays silent: its" in page
    assert f"Left out, without any trial: 1 units: {CONSTANT}.</p>" in page


def test_what_is_known_of_units_goes_with_accuracy_by_hand():
    """Four units of accuracies 0, 1/2, 1/2, 1: the ranks 1, 2.5, 2.5, 4."""
    rows = [(0, 0), (0, 0), (1, 0), (1, 1), (2, 1), (2, 0), (3, 1), (3, 1)]
    trials = pd.DataFrame(
        [{"network": "n", "layer": "l", "unit": u, "set": i % 2, "correct": c} for i, (u, c) in enumerate(rows)]
    )
    index = pd.MultiIndex.from_tuples([("n", "l", u) for u in range(5)], names=legibility.UNIT)
    # Ranks 1, 2, 3, 4: products of the deviations 1.5 x 1.5 + 0 + 0 + 1.5 x 1.5 over the root of 5 x 4.5.
    (value, low, high), units = legibility.ease(trials, pd.Series([1.0, 2, 3, 4, 9], index, name="x"), 0.95)
    assert value == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    assert low < value < high
    assert units == 4
    # What is constant says nothing; of a unit about which nothing is known nothing is said.
    (value, *_), _ = legibility.ease(trials, pd.Series([1.0] * 5, index, name="x"), 0.95)
    assert value is None
    _, units = legibility.ease(trials, pd.Series([1.0, np.nan, 3, 4, 9], index, name="x"), 0.95)
    assert units == 3


def test_intervals_of_ease_cover():
    """Of 300 studies of 24 units with nothing to tell, at least nine in ten intervals hold 0."""
    generator, covered = np.random.default_rng(8), 0
    index = pd.MultiIndex.from_tuples([("n", "l", u) for u in range(24)], names=legibility.UNIT)
    for _ in range(300):
        right = generator.binomial(1, generator.beta(4, 2, 24)[:, None], (24, 4)).ravel()
        trials = pd.DataFrame({"unit": np.repeat(np.arange(24), 4), "set": np.tile(np.arange(4), 24), "correct": right})
        trials = trials.assign(network="n", layer="l")
        (_, low, high), _ = legibility.ease(trials, pd.Series(generator.random(24), index, name="x"), 0.95)
        covered += low <= 0 <= high
    assert 270 <= covered < 300


def test_the_step_joins_units_and_their_scores(tmp_path):
    """By unit, of several files; a similarity a column; a correlation that is there is found."""
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    given = write(tmp_path, trials, cells)
    own = trials[(trials["observer"] == "patch_hand") & (trials["condition"] == "natural")]
    accuracy = own.groupby("unit")["correct"].mean()
    known = {"unit": accuracy.index, "contrast": accuracy, "sparsity": -accuracy}
    units_table(tmp_path / "u.parquet", ["ok"] * len(accuracy), **known)
    scores = dict.fromkeys(("network", "layer", "class_id", "similarity"))
    scores = {name: [value] * len(accuracy) for name, value in zip(scores, ("one", "conv1", "0", "hand"), strict=True)}
    scores |= {"unit": accuracy.index, "score": accuracy**2}
    parquet.write(tmp_path / "s.parquet", scores, job.SCORES)
    grid = ("one", "conv1", "0")
    paths = {"paths_to_units": {grid: str(tmp_path / "u.parquet")}}
    job.judge(**given, **paths, paths_to_interpretability={"one": str(tmp_path / "s.parquet")})
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    rows = pick(table, "ease", observer="patch_hand", condition="natural").set_index("part")["estimate"]
    assert rows.to_dict() == pytest.approx({"contrast": 1, "sparsity": -1, "interpretability_hand": 1}, abs=1e-5)
    assert "Whether a unit shows how easy it is" in Path(given["path_to_page"]).read_text(encoding="utf-8")


def test_without_the_condition_none_there_are_no_gains(tmp_path):
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    given = write(tmp_path, trials[trials["condition"] != NONE], cells) | {"conditions": CONDITIONS[:2]}
    job.judge(**given)
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    assert "gain" not in set(table["what"]) and len(pick(table, "accuracy"))
    page = Path(given["path_to_page"]).read_text(encoding="utf-8")
    assert "whether units that matter are easier to see cannot be estimated (there are no gains)" in page


def test_observers_that_check_the_tables_agree_with_nobody(tmp_path):
    """They have accuracies, and no kappa."""
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    coin = trials[trials["observer"] == "prior"].assign(observer="coin")
    given = write(tmp_path, pd.concat([trials, coin], ignore_index=True), cells)
    job.judge(**given)
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    assert "coin" in set(pick(table, "accuracy")["observer"])
    agreed = pick(table, "kappa")
    assert "prior" in {*agreed["observer"], *agreed["part"]}
    assert "coin" not in {*agreed["observer"], *agreed["part"]}


def test_a_study_without_any_trial_says_so(tmp_path):
    """A network's table of observers may be empty; where all are there is nothing to judge."""
    trials, cells = simulate(people=0, networks=("one", "two"), layers=("conv1",))
    given = write(tmp_path, trials, cells)
    parquet.write(given["paths_to_observers"]["two"], [], job.ANSWERS)
    job.judge(**given)
    parquet.write(given["paths_to_observers"]["one"], [], job.ANSWERS)
    with pytest.raises(
        StudyError, match=r"no image set of any unit has a right answer; draw more \(occlusion\.units\)"
    ):
        job.judge(**given)


def test_the_same_tables_give_the_same_bytes(tmp_path):
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    given = write(tmp_path, trials, cells)
    job.judge(**given)
    first = [(tmp_path / name).read_bytes() for name in ("legibility.parquet", "legibility.html")]
    job.judge(**given)
    assert first == [(tmp_path / name).read_bytes() for name in ("legibility.parquet", "legibility.html")]


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        ("index < 2", {"correct": 0.7}, "something else than 0, 0.5 and 1"),
        ("observer == 'patch_hand'", {"observer": PERSON}, "a machine observer is called person"),
        (
            "condition == 'natural'",
            {"condition": "sharp"},
            "condition sharp, which the study has not; it has natural, synthetic, none",
        ),
        ("unit > 0", {"network": "three"}, "network three, which the study has not; it has one, two, untrained"),
        ("unit == 1", {"cell": "s9m9"}, "has no cell one conv1 0 s9m9"),
        ("index < 2", {"trial": "same", "observer": "patch_hand"}, "patch_hand answers trial same twice"),
    ],
)
def test_tables_of_another_study_are_refused(tmp_path, rows, change, message):
    trials, cells = simulate(people=0, networks=("one",), layers=("conv1",))
    trials.loc[trials.query(rows).index, list(change)] = list(change.values())
    with pytest.raises(StudyError, match=message):
        job.judge(**write(tmp_path, trials, cells))


@pytest.mark.parametrize(
    ("interventions", "judged_by"), [(["zero"], ["zero"]), (["erase", "mean"], ["mean"]), (["erase"], [])]
)
def test_verdicts_are_by_the_interventions_of_the_study(tmp_path, interventions, judged_by):
    """A study that does not ablate by one of the two has no losses under it, and a verdict all the same by the other."""
    trials, cells = simulate(units=3, people=0, networks=("one",))
    missing = [f"separation_loss_{name}" for name in ("zero", "mean") if name not in interventions]
    given = write(tmp_path, trials, cells.assign(**dict.fromkeys(missing)))
    job.judge(**given, interventions=interventions)
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    for what in ("contrast", "regression"):
        assert set(pick(table, what)["intervention"]) == set(judged_by)
    verdicts = pick(table, "bridge")
    assert len(verdicts) == 3 * 2 * 2
    page = Path(given["path_to_page"]).read_text(encoding="utf-8")
    if judged_by:
        assert set(verdicts["status"]) == {bridge.OK}
        assert f"above 0 under {judged_by[0]} ablation with" in page
    else:
        why = "the study ablates neither by zero nor by mean"
        assert set(verdicts["status"]) == {bridge.NOT_ESTIMABLE} and set(verdicts["reason"]) == {why}
        assert why in page and "above 0 with its whole interval" in page
        assert "No contrast of A and P has the units" not in page
    assert "no network has a gap to lose" not in page
    # By default both are judged, and without one of them there is no verdict.
    job.judge(**given)
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    assert set(pick(table, "bridge")["reason"]) == {"no network has a gap to lose"}


def test_why_there_is_no_contrast_is_of_the_grids_of_the_task(tmp_path):
    """On the task's one grid a probe reads best what matters most, so A and P are empty; on another they are not."""
    trials, cells = simulate(people=0, networks=("one",))
    of_task = cells["layer"] == "conv1"
    cells.loc[of_task, "auroc"] = 0.5 + 0.5 * cells.loc[of_task, "separation_loss_zero"]
    cells.loc[of_task, "separation_loss_mean"] = cells.loc[of_task, "separation_loss_zero"]
    assert bridge.with_groups(cells, "zero").groupby("layer")[["a", "p"]].any().to_numpy().tolist() == [
        [False] * 2,
        [True] * 2,
    ]
    given = write(tmp_path, trials[trials["layer"] == "conv1"], cells)
    job.judge(**given)
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    for what in ("contrast", "bridge"):
        assert set(pick(table, what)["reason"]) == {"A and P are empty"}
    assert "A and P are empty" in Path(given["path_to_page"]).read_text(encoding="utf-8")
    # Cells of the other grid are in no regression either way.
    assert set(pick(table, "regression")["n_units"]) == {16}


@pytest.mark.parametrize("counts", [True, False])
def test_answers_to_an_older_page_are_refused(tmp_path, counts):
    """One trial of people's that no observer has answered is enough, of those that count; the file is named."""
    trials, cells = simulate(networks=("one",), layers=("conv1",))
    one = trials.index[trials["observer"] == PERSON][0]
    trials.loc[one, "trial"] = "of-old"
    given = write(tmp_path, trials, cells)
    if not counts:
        path = given["path_to_responses"]
        rows = parquet.read(path).to_pylist()
        rows = [row | {"passed": row["passed"] and row["trial"] != "of-old"} for row in rows]
        parquet.write(path, rows, job.RESPONSES)
        job.judge(**given)
        return
    with pytest.raises(StudyError, match=r"responses\.parquet: .* trial of-old.*make the page again, or move the file"):
        job.judge(**given)


# ---- people, from the page's key to the analysis


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A page of ten units, so that four are to practise, and two image sets to judge; and what machines answer there."""
    rows, pictures = made(10, 3, conditions=tuple(c for c in DISPLAYED if c != "blur"))
    _, path_to_key, _ = built(tmp_path_factory.mktemp("asked"), rows, pictures, 3)
    names = [name for name, _ in ASKED]
    machines = pd.DataFrame(rows)[[*names, "relative_difference"]].astype({"unit": "int32", "set": "int32"})
    right = np.random.default_rng(0).integers(0, 2, len(machines)).astype(float)
    machines = machines.assign(observer=np.where(machines["condition"] == NONE, PRIOR, "patch_hand"), correct=right)
    _, of_grid = simulate(people=0, networks=("net",), layers=("conv",))
    return path_to_key, machines, of_grid.assign(class_id="3")


def taken(asked, folder, crowds, path_to_key=None):
    """The table of legibility, responses and sessions of crowds: how many, each a person's likes, by name.

    A crowd is a condition, a person and a number; its participants take the condition's tasks in turn.
    """
    own_key, machines, of_grid = asked
    study, page, planned = plans(path_to_key or own_key)
    files = []
    for crowd, (condition, person, count) in enumerate(crowds):
        tasks = sorted(task for name, task in planned if name == condition)
        for i in range(count):
            at = {"condition": condition, "task": tasks[i % len(tasks)], "seed": 1000 * crowd + i}
            session = persons.simulate(person, planned[condition, at["task"]][0], study=study, page=page, **at)
            files.append(folder / f"{crowd}-{i}.json")
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_text(persons.export(session), encoding="utf-8")
    _, refused = ingest.ingest(folder, files, path_to_key or own_key)
    assert not refused
    given = write(folder, machines, of_grid) | {"networks": {"net": {"untrained": False}}}
    given |= {"origins": {"net": {"observers": {}}}, "conditions": [c for c in DISPLAYED if c != "blur"]}
    job.judge(**given, path_to_responses=str(folder / "page" / "responses.parquet"))
    table = parquet.read(given["path_to_legibility"], job.SCHEMA, optional=job.OPTIONAL).to_pandas()
    return table, *(pd.read_parquet(folder / "page" / f"{name}.parquet") for name in ("responses", "sessions"))


def crowd_of(table, condition):
    (row,) = pick(table, "accuracy", observer=PERSON, condition=condition, layer="all").to_dict("records")
    return row


def near(row, share):
    """Within four standard errors of a share over its answers."""
    return abs(row["pooled"] - share) < 4 * math.sqrt(share * (1 - share) / row["n_trials"])


CAREFUL = ("natural", Person(skill=0.8, easy=1.0), 40)


def test_who_clicks_fast_guesses_or_leans_to_a_side_through_the_whole_chain(asked, tmp_path):
    """Fast clickers and those of one side count nowhere, however often they are right; others count as they answer."""
    leaning = Person(skill=0.9, side_bias=-0.4, easy=1.0)
    counted = [CAREFUL, (NONE, Person(skill=0.6, easy=1.0), 40), ("synthetic", leaning, 60)]
    counted.append(("mixed", Person(skill=0.9, guessing=1.0, easy=1.0), 120))
    table, responses, sessions = taken(asked, tmp_path / "counted", counted)
    passed = sessions.groupby("condition")["passed"].agg(["sum", "count"])
    for condition in ("natural", NONE, "synthetic", "mixed"):
        row = crowd_of(table, condition)
        own = responses[(responses["condition"] == condition) & responses["passed"] & (responses["kind"] == "main")]
        assert row["n_sessions"] == passed.loc[condition, "sum"] == own["session"].nunique()
        assert row["pooled"] == pytest.approx(own["correct"].mean())
        assert row["sem2"] == pytest.approx(legibility.error_over_sessions(own.groupby("session")["correct"].mean()))
    assert passed.loc["natural"].tolist() == [40, 40] and near(crowd_of(table, "natural"), 0.8)
    assert passed.loc[NONE].tolist() == [40, 40] and near(crowd_of(table, NONE), 0.6)
    # A lean of .4 to the left leaves .4 x .5 + .6 x .9; most pass, and the sides show it.
    assert passed.loc["synthetic", "sum"] > 30 and near(crowd_of(table, "synthetic"), 0.74)
    left = sessions[sessions["passed"]].groupby("condition")["left_share"].mean()
    assert left["synthetic"] > 0.62 and abs(left["natural"] - 0.5) < 0.1
    # Few who guess get through practice and catch trials, and these are at chance.
    assert 0 < passed.loc["mixed", "sum"] < 0.3 * 120 and near(crowd_of(table, "mixed"), 0.5)
    (gain,) = pick(table, "gain", observer=PERSON, condition="natural")["estimate"]
    assert gain == pytest.approx(crowd_of(table, "natural")["estimate"] - crowd_of(table, NONE)["estimate"])
    # With those who never count beside, all that is said of people is the same.
    fast = Person(skill=1.0, easy=1.0, seconds=0.2, instruction_seconds=2.0)
    beside = [("natural", fast, 20), ("natural", Person(side_bias=-1.0), 10), (NONE, fast, 20)]
    again, _, of_all = taken(asked, tmp_path / "beside", counted + beside)
    assert len(of_all) == len(sessions) + 50 and of_all["passed"].sum() == sessions["passed"].sum()
    pd.testing.assert_frame_equal(again, table)


def test_flipped_sides_change_no_accuracy(asked, tmp_path):
    """Left and right exchanged in every trial of the key: who chooses the same pictures is the same observer.

    As sure, too: the paper's code mirrors the confidence of what is chosen on the left. Machines see no sides.
    """
    crowds = [CAREFUL, (NONE, Person(skill=0.6, easy=1.0), 20)]
    table, responses, _ = taken(asked, tmp_path / "plain", crowds)
    rows = parquet.read(asked[0]).to_pylist()
    flipped = [row | {"left": row["right"], "right": row["left"]} for row in rows]
    parquet.write(tmp_path / "key.parquet", flipped, KEY)
    other, of_flipped, _ = taken(asked, tmp_path / "flipped", crowds, tmp_path / "key.parquet")
    pd.testing.assert_frame_equal(other, table)
    assert (responses["side"] != of_flipped["side"]).all()
    pd.testing.assert_frame_equal(responses.drop(columns="side"), of_flipped.drop(columns="side"))
    assert {PERSON, PRIOR, "patch_hand"} == set(pick(table, "accuracy")["observer"])


# ---- figures


@pytest.fixture
def drawn():
    with matplotlib.rc_context():
        figures.style()
        yield
    plt.close("all")


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


@pytest.mark.usefixtures("drawn")
def test_the_figure_of_accuracy_has_the_published_bars_beside(judged):
    table = judged[2]
    figure = legibility_figures.accuracy(table, list(NETWORKS), ["untrained"])
    published = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "s"]
    everyone = [each.people / 900 for each in PUBLISHED.values()] + [each.experts / 360 for each in PUBLISHED.values()]
    assert published == pytest.approx(everyone)
    said = texts(figure)
    assert "all trained: 192 units" in said and "untrained: 96 units, untrained: a control" in said
    assert len(figure.axes) == 1 + 4
    # People, machine observers by name, and those that see no references.
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    seeing = ["people", "patch hand", "patch sibling", "whole ssim"]
    assert labels == [*seeing, "prior", "center", "saliency sr", "variance"]


@pytest.mark.usefixtures("drawn")
def test_the_figure_of_cells_shows_the_grid_with_selectivity_upwards(judged):
    _, _, table, _ = judged
    figure = legibility_figures.cells(table, list(NETWORKS), ["untrained"])
    first = figure.axes[0]
    own = pick(table, "cell", network=POOLED, observer=PERSON, condition="natural").set_index("part")["estimate"]
    shown = first.images[0].get_array()
    assert {f"s{s}m{m}": shown[s, m] for s in range(4) for m in range(4)} == pytest.approx(own.to_dict())
    assert first.images[0].origin == "lower"
    assert first.images[0].norm.vmin + first.images[0].norm.vmax == pytest.approx(1)
    titles = {axis.get_title() for axis in figure.axes}
    assert {"people, natural", "patch hand, natural", "prior, none"} <= titles


@pytest.mark.usefixtures("drawn")
def test_the_figure_of_cells_has_room_for_cells_without_trials(judged, tmp_path):
    """Of a grid of 3 by 5 the strongest bins have no trial; trials of s1m0 and s0m2 alone are in the right places."""
    table = judged[2]
    rows = pick(table, "cell", network="one", observer="patch_hand", condition="natural")
    rows = rows[rows["part"].isin(["s1m0", "s0m2"])]
    drawn = legibility_figures.cells(rows, ["one"], bins=(3, 5)).axes[0]
    shown = np.ma.filled(drawn.images[0].get_array(), np.nan)
    assert shown.shape == (3, 5)
    assert np.argwhere(np.isfinite(shown)).tolist() == [[0, 2], [1, 0]]
    assert shown[1, 0] == rows.loc[rows["part"] == "s1m0", "estimate"].item()
    assert [text.get_text() for text in drawn.get_xticklabels()] == ["m0", "m1", "m2", "m3", "m4"]
    # Through the job, which has 4 by 4 where it is given none.
    path = str(tmp_path / "table.parquet")
    parquet.write(path, rows.replace({np.nan: None}).to_dict("list"), job.SCHEMA)
    for bins, shape in (([3, 5], (3, 5)), (None, (4, 4))):
        drawn = figures_job.draw("legibility_cells", path, ["one"], "", bins=bins)
        assert drawn.axes[0].images[0].get_array().shape == shape


@pytest.mark.usefixtures("drawn")
def test_the_figure_of_gains_marks_the_groups(judged):
    _, cells, table, _ = judged
    figure = legibility_figures.gain(table, cells, list(NETWORKS), ["untrained"], observer="patch_hand")
    of = bridge.with_groups(cells[cells["network"] == "one"], "mean")
    dots = [len(each.get_offsets()) for each in figure.axes[0].collections]
    assert dots == [int((~of["a"] & ~of["p"]).sum()), int(of["a"].sum()), int(of["p"].sum())]
    assert "no gap to lose" in texts(figure)
    assert any(text.startswith("patch hand, natural less") for text in texts(figure))


@pytest.mark.usefixtures("drawn")
def test_figures_of_nothing_say_so(judged):
    table = judged[2]
    nothing = table[table["what"] == "kappa"]
    for figure in (
        legibility_figures.accuracy(nothing, list(NETWORKS)),
        legibility_figures.cells(nothing, list(NETWORKS)),
        legibility_figures.gain(nothing, judged[1], list(NETWORKS)),
    ):
        assert len(texts(figure)) >= 1 and not figure.axes
    assert legibility_page.told(None) == "–"
