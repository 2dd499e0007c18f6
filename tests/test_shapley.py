"""Shapley values: identities of games, their standard error, the toy on paper, and the network whose truth is known."""

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import NO_ORIGINS
from inputs.sources import ImageSource, NetworkSource
from inputs.study import Study
from jobs import ablations, cells, groups, tables
from jobs import shapley as job
from readout import StudyError, outcomes, planted, planted_network, shapley
from readout.folds import FOLDS
from readout.groups import Group
from readout.shapley import Shares
from runtime import parquet
from test_controls import z
from workflow import ROOT, TINY, Project

# ---- games; each gives the worth of coalitions, bool [C, players]

WEIGHTS = np.array([0.5, -0.25, 0.0, 0.125])
GAMES = {
    # Each player brings what it has.
    "additive": (lambda c: c @ WEIGHTS, WEIGHTS),
    # Without either of two all is lost, as of a conjunction's halves; the third is a dummy.
    "either": (lambda c: (c[:, 0] | c[:, 1]) * 1.0, [0.5, 0.5, 0]),
    # Without both of two, as of a redundant pair, of which either suffices.
    "both": (lambda c: (c[:, 0] & c[:, 1]) * 1.0, [0.5, 0.5, 0]),
    # Without any of three; without all of them; without most.
    "any": (lambda c: c.any(1) * 1.0, [1 / 3] * 3),
    "all": (lambda c: c.all(1) * 1.0, [1 / 3] * 3),
    "majority": (lambda c: (c.sum(1) >= 2) * 1.0, [1 / 3] * 3),
    # A left glove with either of two right ones: the left comes last or second in 4 of 6 orders.
    "gloves": (lambda c: (c[:, 0] & (c[:, 1] | c[:, 2])) * 1.0, [2 / 3, 1 / 6, 1 / 6]),
    # Nothing is worth anything.
    "null": (lambda c: np.zeros(len(c)), [0, 0, 0]),
}


def random_game(players, seed):
    """Any worth for each coalition but the empty one."""
    worth = np.random.default_rng(seed).normal(size=2**players)
    worth[0] = 0
    return lambda c: worth[c @ (1 << np.arange(players))]


def by_definition(game, players):
    """The mean of what each player adds over all orders."""
    values = np.zeros(players)
    for order in itertools.permutations(range(players)):
        there, before = np.zeros(players, bool), 0.0
        for player in order:
            there[player] = True
            after = float(game(there[None])[0])
            values[player] += after - before
            before = after
    return values / math.factorial(players)


def estimated(game, players, permutations=400, error=0.0, seed=0):
    generator = np.random.default_rng(seed)
    return shapley.estimate(game, players, permutations=permutations, error=error, generator=generator)


@pytest.mark.parametrize("name", GAMES)
def test_games_with_known_values(name):
    """Exactly; by random orders within four standard errors, adding up to the whole to the bit of rounding."""
    game, values = GAMES[name]
    assert shapley.exact(game, len(values)) == pytest.approx(values, abs=1e-12)
    shares = estimated(game, len(values))
    assert (np.abs(shares.value - values) <= 4 * shares.standard_error + 1e-12).all()
    assert shares.value.sum() == pytest.approx(shares.whole, abs=1e-12)
    assert shares.whole == game(np.ones((1, len(values)), bool))[0]
    assert shares.alone == pytest.approx(game(np.eye(len(values), dtype=bool)), abs=1e-12)


@pytest.mark.parametrize("name", ["additive", "either", "both", "null"])
def test_what_two_players_do_is_shared_exactly(name):
    """In the mean of an order and its reverse: no error is left, and the fewest orders are enough."""
    game, values = GAMES[name]
    shares = estimated(game, len(values), error=1e-9)
    assert shares.permutations == 40
    assert shares.value == pytest.approx(values, abs=1e-12)
    assert shares.standard_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_any_game_has_the_values_of_the_definition(seed):
    """Six players, all 720 orders; the values add up to the worth of all."""
    game = random_game(6, seed)
    values = shapley.exact(game, 6)
    assert values == pytest.approx(by_definition(game, 6), abs=1e-12)
    assert values.sum() == pytest.approx(game(np.ones((1, 6), bool))[0], abs=1e-12)
    shares = estimated(game, 6, permutations=2000)
    assert (np.abs(shares.value - values) <= 4.5 * shares.standard_error).all()


def test_a_dummy_has_nothing_and_players_who_do_the_same_have_the_same():
    """Player 2 adds nothing to any coalition of a random game; players 0 and 1 may change places."""
    base = random_game(4, 5)
    both = lambda c: np.stack([c[:, 0] | c[:, 1], c[:, 0] & c[:, 1], c[:, 3], c[:, 4]], 1)  # noqa: E731
    game = lambda c: base(both(c))  # noqa: E731
    values = shapley.exact(game, 5)
    assert values[2] == 0
    assert values[0] == pytest.approx(values[1], abs=1e-12)
    shares = estimated(game, 5)
    assert shares.value[2] == shares.standard_error[2] == 0
    apart = shares.value[0] - shares.value[1]
    assert abs(apart) < 4 * np.hypot(*shares.standard_error[:2])
    # Negative control.
    assert abs(values[0] - values[3]) > 0.1


def test_a_sum_of_games_has_the_sum_of_values():
    """The axiom that makes them linear in the images of a gap; with one generator also of the estimates."""
    one, other = random_game(5, 1), random_game(5, 2)
    both = lambda c: one(c) + 2 * other(c)  # noqa: E731
    assert shapley.exact(both, 5) == pytest.approx(shapley.exact(one, 5) + 2 * shapley.exact(other, 5), abs=1e-12)
    expected = estimated(one, 5).value + 2 * estimated(other, 5).value
    assert estimated(both, 5).value == pytest.approx(expected, abs=1e-12)


def test_no_coalition_is_asked_for_twice_and_the_empty_one_never():
    """Of four players there are 15, however many orders."""
    asked = []

    def game(c):
        asked.extend(map(tuple, c.tolist()))
        return c @ WEIGHTS

    estimated(game, 4, permutations=200)
    assert len(asked) == len(set(asked)) == 15
    assert (False,) * 4 not in asked


# ---- the standard error


def test_the_standard_error_of_a_known_variance():
    """All is lost without any one of three: a player adds 1 where it comes first, so 1/2 to a pair in which it is first or last and
    0 to one in which it is in the middle. The variance of a pair is 1/2 x 1/2 x 2/3 x 1/3 = 1/18.
    """
    runs = [estimated(GAMES["any"][0], 3, permutations=100, seed=seed) for seed in range(600)]
    expected = 1 / 18 / 50
    told = np.mean([run.standard_error**2 for run in runs])
    found = np.var([run.value for run in runs], axis=0, ddof=1)
    assert told == pytest.approx(expected, rel=0.03)
    # Of 600 runs a variance has a deviation of 6 %.
    assert found == pytest.approx(expected, rel=0.25)


def test_it_stops_at_the_error_or_at_the_most():
    """Looked at after every twenty pairs."""
    game, _ = GAMES["any"]
    assert estimated(game, 3, error=0.5).permutations == 40
    for permutations, drawn in ((400, 400), (101, 100), (41, 40), (30, 30), (4, 4)):
        assert estimated(game, 3, permutations=permutations).permutations == drawn
    shares = estimated(game, 3, permutations=10_000, error=0.01)
    # 1/18 over the number of pairs is 0.01 squared: 556 pairs.
    assert shares.standard_error.max() <= 0.01
    assert shares.permutations % 40 == 0 and 900 < shares.permutations < 1400
    before = estimated(game, 3, permutations=shares.permutations - 40)
    assert before.standard_error.max() > 0.01


@pytest.mark.parametrize("permutations", [0, 3])
def test_too_few_orders_have_no_standard_error(permutations):
    with pytest.raises(ValueError, match="must be at least four"):
        estimated(GAMES["any"][0], 3, permutations=permutations)


def covered(game, values, error, seed):
    """Which intervals hold the true value, and how many orders were drawn."""
    shares = estimated(game, len(values), permutations=4000, error=error, seed=seed)
    low, high = shares.interval()
    return (low <= values + 1e-12) & (values - 1e-12 <= high), shares.permutations


def test_intervals_cover_what_they_should():
    """Random games of six players, stopped at an error that some reach after 20 pairs and others after 140.

    3,000 values: 95 % with a deviation of .4 %, or more, as values of one game are not independent.
    """
    games = [random_game(6, seed) for seed in range(500)]
    found = [covered(game, shapley.exact(game, 6), 0.15, 1000 + seed) for seed, game in enumerate(games)]
    inside, drawn = zip(*found, strict=True)
    assert min(drawn) == 40 and max(drawn) >= 200
    assert 0.93 < np.mean(inside) < 0.97


def test_fewer_pairs_than_twenty_would_stop_by_luck(monkeypatch):
    """All is lost without any one of three: two pairs with the same player in the middle, one in three, seem to have no error."""
    inside = {}
    for block in (2, 20):
        monkeypatch.setattr(shapley, "BLOCK", block)
        inside[block] = np.mean([covered(GAMES["any"][0], np.full(3, 1 / 3), 0.03, seed)[0] for seed in range(300)])
    assert inside[2] < 0.75
    # An outcome with two values: its intervals are as short as those of a share usually are.
    assert inside[20] > 0.92


# ---- a share without a loss of its own


def shares(value, standard_error, alone, permutations=40):
    return Shares(*(np.array([x]) for x in (value, standard_error, alone)), whole=1.0, permutations=permutations)


@pytest.mark.parametrize(
    ("value", "standard_error", "alone", "hidden"),
    [
        # Student's t with 19 degrees of freedom is 2.093 for 95 %: .0310 - 2.093 x .0100 = .01007.
        (0.0310, 0.01, 0.0, True),
        (0.0309, 0.01, 0.0, False),
        # What it loses alone counts against it, in either direction.
        (0.0311, 0.01, 0.001, False),
        (0.0321, 0.01, 0.001, True),
        (0.0311, 0.01, -0.001, False),
        (0.5, 0.0, 0.0099, True),
        (0.5, 0.0, 0.0101, False),
        (0.5, 0.0, -0.0101, False),
        # Nothing, less than nothing.
        (0.0, 0.0, 0.0, False),
        (-0.5, 0.0, 0.0, False),
    ],
)
def test_what_a_hidden_share_is(value, standard_error, alone, hidden):
    assert shares(value, standard_error, alone).hidden().tolist() == [hidden]


def test_hidden_shares_of_games():
    """Players who lose nothing alone, since others make up for it; not those who lose all."""
    expected = {"both": [True, True, False], "all": [True] * 3, "majority": [True] * 3, "gloves": [True] * 3}
    expected |= {"either": [False] * 3, "any": [False] * 3, "additive": [False] * 4, "null": [False] * 3}
    assert expected.keys() == GAMES.keys()
    for name, hidden in expected.items():
        assert estimated(GAMES[name][0], len(hidden)).hidden().tolist() == hidden, name


def test_nothing_is_hidden_in_noise_that_adds_up():
    """Each cell moves the gap by up to .009, in either direction, and pairs by a twentieth of that more."""
    generator = np.random.default_rng(0)
    for seed in range(50):
        own, pairs = generator.uniform(-0.009, 0.009, 16), generator.uniform(-0.0005, 0.0005, (16, 16))
        game = lambda c, own=own, pairs=pairs: c @ own + np.einsum("ci,ij,cj->c", c * 1.0, pairs, c * 1.0)  # noqa: E731
        assert not estimated(game, 16, permutations=80, seed=seed).hidden().any()


# ---- the toy through the job, on paper

U = np.array([[4, 2, 0, 0, 1, 0, 0, 0], [2, 0, 0, 2, 3, 0, 0, 0], [0, 1, 2, 0, 0, 4, 0, 0], [2, 1, 0, 0, 0, 0, 0, 2.0]])
"""Activations of the target's images 0 and 1, and of the others' 2 and 3; 0 and 2 are in fold 1, 1 and 3 in fold 0."""
FOLD = [1, 0, 1, 0]
BY_FOLD = {0: [[3, 6], [2, 5], [4, 7], [0, 1]], 1: [[1, 2], [0, 7], [5, 6], [3, 4]]}
"""Cells s0m0, s0m1, s1m0 and s1m1 by the grids of folds 0 and 1, of images 0 and 2 and of images 1 and 3.

t - o is 4 1 -2 0 | 1 -4 0 0 outside fold 0 and 0 -1 0 2 | 3 0 0 -2 outside fold 1; t + o is 4 3 2 0 | 1 4 0 0 and
4 1 0 2 | 3 0 0 2.
"""
MEAN = {0: np.array([2, 1.5, 1, 0, 0.5, 2, 0, 0]), 1: np.array([2, 0.5, 0, 1, 1.5, 0, 0, 1])}
CELLS = ("s0m0", "s0m1", "s1m0", "s1m1")
SCORE = np.array([[1, 0, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 1, 0, 0], [0, 0, 1, 2, 0, 0, 0, 1]])
AT = {"network": "toy", "layer": "conv1", "class_id": "a"}


def toy_gap(activations):
    """Mean log-odds of output 0 over the first two images less that over the last two."""
    of_target = [z((SCORE @ a + [0, 1, 2]).tolist())[0] for a in activations]
    return (of_target[0] + of_target[1] - of_target[2] - of_target[3]) / 2


def toy_game(intervention):
    """Separation loss of cells ablated together."""

    def game(coalitions):
        losses = []
        for coalition in coalitions:
            after = U.copy()
            for image, fold in enumerate(FOLD):
                for cell in np.flatnonzero(coalition):
                    units = BY_FOLD[fold][cell]
                    after[image, units] = 0 if intervention == "zero" else MEAN[fold][units]
            losses.append(1 - toy_gap(after) / toy_gap(U))
        return np.array(losses)

    return game


def divide(toy_study, **changes):
    path = str(toy_study.tmp / "shapley" / "a.parquet")
    given = {"interventions": ["zero", "mean"], "permutations": 200, "error": 0.0, "seed": 0}
    said = job.divide(toy_study.grid, path_to_shapley=path, **given | changes)
    return said, path, parquet.read(path, job.SCHEMA, optional=job.OPTIONAL).to_pylist()


def test_the_toy_by_hand(toy_study):
    """All of its columns; values are those of all 24 orders within the standard error, their sum is the layer's loss."""
    said, _, rows = divide(toy_study)
    # 15 coalitions of four images each.
    assert said == "zero: 200 permutations, 60 image-tails; mean: 200 permutations, 60 image-tails"
    assert [(row["intervention"], row["cell"]) for row in rows] == list(itertools.product(("zero", "mean"), CELLS))
    assert [(row["selectivity_bin"], row["magnitude_bin"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)] * 2
    assert all(row | AT == row and row["permutations"] == 200 for row in rows)
    for intervention in ("zero", "mean"):
        of_it = [row for row in rows if row["intervention"] == intervention]
        game = toy_game(intervention)
        exact = by_definition(game, 4)
        # Pixels go through float32 divisions by 255.
        whole = float(game(np.ones((1, 4), bool))[0])
        assert [row["alone"] for row in of_it] == pytest.approx(game(np.eye(4, dtype=bool)), abs=1e-5)
        (loss,) = {row["layer_loss"] for row in of_it}
        assert loss == pytest.approx(whole, abs=1e-5)
        assert sum(row["value"] for row in of_it) == pytest.approx(loss, abs=1e-12)
        for row, value in zip(of_it, exact, strict=True):
            assert abs(row["value"] - value) < 4 * row["standard_error"] + 1e-5
            assert row["standard_error"] < 0.05
        assert np.abs(exact - game(np.eye(4, dtype=bool))).max() > 0.05


def test_every_coalition_of_the_toy(toy_study):
    """All fifteen, asked for at once, on paper: so the exact values are those on paper, too."""
    sample = ablations.prepare(toy_study.grid)
    coalitions = np.array(list(itertools.product([False, True], repeat=4)))[1:]
    for name in ("zero", "mean"):
        replacing = ablations.replacements(name, toy_study.cells)
        game = job._Ablations(sample, toy_study.cells, replacing)
        assert game.cells == CELLS
        assert game(coalitions) == pytest.approx(toy_game(name)(coalitions), abs=1e-5)
        assert shapley.exact(game, 4) == pytest.approx(by_definition(toy_game(name), 4), abs=1e-5)


def test_the_number_of_images_per_pass_does_not_matter(toy_study):
    """Passes of 7 end within a coalition and within a fold."""
    sample = ablations.prepare(toy_study.grid)
    passes = lambda count: [slice(i, min(i + 7, count)) for i in range(0, count, 7)]  # noqa: E731
    coalitions = np.array(list(itertools.product([False, True], repeat=4)))[1:]
    replacing = ablations.replacements("mean", toy_study.cells)
    game, small = (job._Ablations(s, toy_study.cells, replacing) for s in (sample, replace(sample, batches=passes)))
    assert small(coalitions) == pytest.approx(game(coalitions), abs=1e-6)


def test_the_layer_as_a_whole_is_worth_all(toy_study):
    """Under zero only the biases are left, which are the same in all images."""
    (loss,) = {row["layer_loss"] for row in divide(toy_study, interventions=["zero"])[2]}
    assert loss == pytest.approx(1, abs=1e-6)


def test_an_intervention_more_leaves_the_other(toy_study):
    """The orders are a grid's, and those of another seed others."""
    *_, both = divide(toy_study, permutations=40)
    *_, alone = divide(toy_study, permutations=40, interventions=["mean"])
    assert both[4:] == alone
    *_, other = divide(toy_study, permutations=40, interventions=["mean"], seed=1)
    assert [row["value"] for row in other] != [row["value"] for row in alone]


def test_every_grid_has_orders_of_its_own(toy_study):
    """By network, layer, target and seed."""
    grids = [replace(toy_study.grid, **at) for at in ({}, {"layer": "conv2"}, {"class_id": "b"}, {"network": "other"})]
    drawn = [job._generator(grid, seed).permutation(1000).tolist() for grid in grids for seed in (0, 1)]
    assert all(one != other for one, other in itertools.combinations(drawn, 2))
    assert drawn[0] == job._generator(toy_study.grid, 0).permutation(1000).tolist()


def test_without_a_gap_values_are_missing(toy_study):
    """Nothing can be lost where the target is not told from the others."""
    rows = parquet.read(toy_study.baseline).to_pylist()
    rows = [row | {"z": [-50.0, *row["z"][1:]]} for row in rows]
    parquet.write(toy_study.baseline, rows, parquet.schema(toy_study.baseline))
    said, path, rows = divide(toy_study)
    assert said == "the network does not separate the target"
    assert {tuple(row[name] for name in (*job.OPTIONAL, "permutations")) for row in rows} == {(None,) * 5 + (0,)}
    assert gathered(toy_study, path) == [row | {"depth": 0} for row in rows]


def test_a_score_that_is_not_finite_is_an_error(toy_study, monkeypatch):
    sample = ablations.prepare(toy_study.grid)
    broken = replace(sample, tail=lambda *given: sample.tail(*given) * math.nan)
    monkeypatch.setattr(ablations, "prepare", lambda grid: broken)
    with pytest.raises(StudyError, match="a score is not finite; the network or its weights are broken"):
        divide(toy_study)


# ---- the table of the study


def gathered(toy_study, path, origin=None):
    table = str(toy_study.tmp / "tables" / "shapley.parquet")
    tables.gather_shapley(
        table,
        paths_to_shapley={("toy", "conv1", "a"): path},
        paths_to_layers={"toy": toy_study.layers},
        origins={"toy": NO_ORIGINS | {"shapley": origin or {}}},
    )
    return parquet.read(table, tables.SHAPLEY, optional=job.OPTIONAL).to_pylist()


def test_the_table_has_the_rows_of_the_grids(toy_study):
    _, path, rows = divide(toy_study)
    assert gathered(toy_study, path) == [row | {"depth": 0} for row in rows]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda rows: rows[1:], r"is not of toy, conv1, a and all its cells in their order"),
        (lambda rows: rows[:4] + rows[5:], r"is not of toy, conv1, a and all its cells in their order"),
        (lambda rows: rows[::-1], r"is not of toy, conv1, a and all its cells in their order"),
        (lambda rows: rows + rows, "a group is there twice"),
        (lambda rows: [row | {"class_id": "b"} for row in rows], "is not of toy, conv1, a and all its cells"),
        (lambda rows: [row | {"cell": "s0m0"} for row in rows], "is not of toy, conv1, a and all its cells"),
        (lambda rows: [row | {"magnitude_bin": -1} for row in rows], "is not of toy, conv1, a and all its cells"),
        (lambda rows: [row | {"intervention": "erased"} for row in rows[:4]], "erased is unknown"),
        (
            lambda rows: [row | {"value": row["value"] + 1e-6} for row in rows],
            "the values do not add up to the layer's",
        ),
        (
            lambda rows: [rows[0] | {"layer_loss": rows[0]["layer_loss"] + 1e-10}, *rows[1:]],
            "the values do not add up to the layer's loss",
        ),
        (lambda rows: [rows[0] | {"value": None}, *rows[1:]], "a value is missing or none"),
        (lambda rows: [row | {"value": None} for row in rows], "a value is missing or none"),
        (lambda rows: [row | {"alone": math.nan} for row in rows], "a value is missing or none"),
        (lambda rows: [row | {"standard_error": -1.0} for row in rows], "a value is missing or none"),
        (lambda rows: [row | {"permutations": 0} for row in rows], "a value is missing or none"),
        (lambda rows: [rows[0] | {"permutations": 40}, *rows[1:]], "a value is missing or none"),
    ],
)
def test_a_table_of_values_that_does_not_serve_is_refused(toy_study, harm, words):
    """By its name, with the command that makes it again."""
    _, path, rows = divide(toy_study)
    parquet.write(path, harm(rows), job.SCHEMA)
    with pytest.raises(StudyError, match=rf"shapley/a\.parquet: {words}.*; make it again: snakemake"):
        gathered(toy_study, path)


def test_values_of_another_study_are_refused(toy_study):
    _, path, _ = divide(toy_study)
    with pytest.raises(
        StudyError, match=r"shapley/a\.parquet: is of study unknown, but what it goes into is of study tiny"
    ):
        gathered(toy_study, path, {"study": "tiny"})


# ---- through the workflow

STUDY = yaml.safe_load((ROOT / "workflow" / "studies" / "planted.yaml").read_text())
FILES = ("tables/shapley.parquet", *(f"ablations/planted/first/a/{cell}.parquet" for cell in ("s0m0", "s2m3", "s3m2")))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The planted study as far as the table of Shapley values and the ablations of three cells."""
    changes = {"controls": None, "importance": None}
    project = Project.create(tmp_path_factory.mktemp("planted") / "project", STUDY | changes)
    project.run(*(f"results/planted/{file}" for file in FILES))
    return project


@pytest.fixture(scope="module")
def table(study):
    return pd.read_parquet(study.results / "tables" / "shapley.parquet")


def planted_grid(study, network="planted", target="a"):
    """A grid of the planted study for the jobs."""
    results, others = study.results, tuple(c for c in (*planted.CLASSES, planted.NONE) if c != target)
    opening = ImageSource("planted", None, planted.TRANSFORM)
    baseline = [str(results / "baseline" / network / f"{c}.parquet") for c in (target, *others)]
    return ablations.Grid(
        network=network,
        layer="first",
        class_id=target,
        others=others,
        path_to_cells=str(results / "cells" / network / "first" / f"{target}.parquet"),
        path_to_baseline=baseline[0],
        paths_to_others=tuple(baseline[1:]),
        path_to_images=str(results / "images.parquet"),
        path_to_layers=str(results / "networks" / network / "layers.parquet"),
        source=NetworkSource(network, planted_network.OUTPUTS, "planted", opening),
        device="cpu",
    )


def with_bins(grid, study, path, bins):
    """The same grid cut into more or fewer cells."""
    of = lambda c: str(study.results / "means" / grid.network / "first" / f"{c}.parquet")  # noqa: E731
    cells.assign(
        str(path),
        path_to_target=of(grid.class_id),
        paths_to_others=[of(other) for other in grid.others],
        layer="first",
        bins=bins,
        folds=True,
    )
    return replace(grid, path_to_cells=str(path))


def reference(grid):
    """A grid's images before any ablation, as the tables have them."""
    baselines = dict(zip((grid.class_id, *grid.others), (grid.path_to_baseline, *grid.paths_to_others), strict=True))
    return tables.Reference.of(grid.path_to_images, baselines, grid.class_id, grid.others)


def losses(grid, coalitions, name):
    """The separation losses of cells ablated together, by the code of all other ablations and that of the tables."""
    sample, before = ablations.prepare(grid), reference(grid)
    replacing, energy = ablations.replacements(name, grid.path_to_cells), np.ones(len(sample.is_target))
    by_fold = [list(groups.units(grid.path_to_cells, fold).values()) for fold in range(FOLDS)]
    found = []
    for coalition in coalitions:
        together = [np.sort(np.concatenate([by_cell[i] for i in np.flatnonzero(coalition)])) for by_cell in by_fold]
        how = [(Group("c", "all", u, sample.layer_units), one) for u, one in zip(together, replacing, strict=True)]
        rows = sample.effects("crossfit", how, energy_layer=energy)
        done = tables.Ablated.of(rows, before, "c", "crossfit")
        found.append(outcomes.two_sided(done.before, done.after)["separation_loss"])
    return np.array(found)


@pytest.mark.workflow
@pytest.mark.parametrize("name", ["zero", "mean"])
def test_a_coalition_is_worth_what_the_tables_say_of_it(study, name):
    """Thirty of each size, all cells and each alone; other passes, so sums of another order."""
    grid, generator = planted_grid(study), np.random.default_rng(0)
    coalitions = np.concatenate(
        [np.eye(16, dtype=bool), np.ones((1, 16), bool), generator.random((30, 16)) < generator.random((30, 1))]
    )
    coalitions = coalitions[coalitions.any(1)]
    game = job._Ablations(ablations.prepare(grid), grid.path_to_cells, ablations.replacements(name, grid.path_to_cells))
    assert game(coalitions) == pytest.approx(losses(grid, coalitions, name), abs=1e-6)
    assert game.tails == 90 * len(coalitions)


@pytest.mark.workflow
def test_what_a_cell_loses_alone_is_what_its_own_job_says(study, table):
    before = reference(planted_grid(study))
    for path in (study.results / file for file in FILES[1:]):
        own = table[(table["network"] == "planted") & (table["class_id"] == "a") & (table["cell"] == path.stem)]
        alone = own.set_index("intervention")["alone"]
        said = {name: done for protocol, name, done in tables.ablated(str(path), before, {}) if protocol == "crossfit"}
        for name in ("zero", "mean"):
            assert alone[name] == pytest.approx(said[name].both_sides()["separation_loss"], abs=1e-6)


@pytest.mark.workflow
def test_values_add_up_to_the_layers_loss(table):
    """In every grid; all of the planted network's gap goes through the layer, nothing of the null network's."""
    assert len(table) == 2 * 4 * 2 * 16
    for (network, *_), rows in table.groupby(["network", "class_id", "intervention"]):
        (whole,) = set(rows["layer_loss"])
        assert rows["value"].sum() == pytest.approx(whole, abs=1e-12)
        assert abs(whole) < 0.05 if network == "planted_null" else whole == pytest.approx(1, abs=1e-6)
        (drawn,) = set(rows["permutations"])
        error = STUDY["ablations"]["shapley"]["error"]
        assert rows["standard_error"].max() <= error and 40 <= drawn < STUDY["ablations"]["shapley"]["permutations"]


@pytest.mark.workflow
def test_the_null_network_has_no_shares_but_noise(table):
    """Which adds up: what a cell adds to others is what it loses alone, and no share is hidden."""
    null = table[table["network"] == "planted_null"]
    assert (null["value"] - null["alone"]).abs().max() < 0.002
    assert null["value"].abs().max() < 0.02
    assert not null["hidden"].any()
    # Negative control: in the planted network they differ by much.
    planted_rows = table[table["network"] == "planted"]
    assert (planted_rows["value"] - planted_rows["alone"]).abs().max() > 0.1


@pytest.mark.workflow
def test_few_cells_against_all_subsets(study, tmp_path):
    """Nine cells, 511 coalitions by the code of all other ablations: values of the job within their errors."""
    grid = with_bins(planted_grid(study), study, tmp_path / "cells.parquet", [3, 3])
    path = str(tmp_path / "shapley.parquet")
    job.divide(grid, path_to_shapley=path, interventions=["zero"], permutations=400, error=0.0, seed=0)
    found = pd.read_parquet(path)
    exact = shapley.exact(lambda coalitions: losses(grid, coalitions, "zero"), 9)
    assert (np.abs(found["value"] - exact) < 4 * found["standard_error"] + 1e-6).all()
    assert found["standard_error"].max() < 0.002
    assert np.abs(exact - found["alone"]).max() > 0.05


@pytest.mark.workflow
def test_finer_cells_separate_redundant_pairs(study, tmp_path):
    """Of 64 cells of b one holds halves of redundant pairs, and no other unit that b's score needs: it can be lost
    alone, and has a share. No cell of the null network has one.
    """
    for network, expected in (("planted", {"s7m7"}), ("planted_null", set())):
        path = str(tmp_path / "shapley.parquet")
        grid = with_bins(planted_grid(study, network, "b"), study, tmp_path / f"{network}.parquet", [8, 8])
        job.divide(grid, path_to_shapley=path, interventions=["mean"], permutations=40, error=1.0, seed=0)
        found = pd.read_parquet(path)
        hidden = found[found["hidden"]]
        assert set(hidden["cell"]) == expected
        units = planted.units(null=network == "planted_null")
        for row in hidden.itertuples():
            roles = {units[u].role for f in range(FOLDS) for u in groups.units(grid.path_to_cells, f)[row.cell]}
            assert roles == {"redundant", "decodable"}
            assert abs(row.alone) < 0.01 and row.value > 0.05


@pytest.mark.workflow
def test_a_second_run_has_nothing_to_do(study):
    assert "Nothing to be done" in study.run("results/planted/tables/shapley.parquet")


@pytest.mark.workflow
def test_a_setting_of_shapley_values_makes_them_anew(study):
    """Alone, with their table."""
    before = study.config
    study.write(before | {"ablations": {"shapley": {"permutations": 300, "error": 0.002}}})
    try:
        assert study.planned("--cores", "2", "results/planted/tables/shapley.parquet") == {
            "shapley": 8,
            "shapley_tables": 1,
        }
    finally:
        study.write(before)


@pytest.mark.workflow
def test_shapley_values_that_are_switched_off_are_refused_by_their_key(tmp_path):
    """The table that is asked for; with their settings the whole study has a job a grid."""
    project = Project.create(tmp_path / "project", TINY)
    message = project.fail("--dry-run", "results/tiny/tables/shapley.parquet")
    assert "ablations.shapley: is null, so there are no Shapley values; give it permutations and error" in message
    project.write(TINY | {"ablations": {"shapley": {"permutations": 40, "error": 0.01}}})
    planned = project.planned()
    assert (planned["shapley"], planned["shapley_tables"]) == (6, 1)


def test_a_study_without_shapley_values_says_so():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    with pytest.raises(StudyError, match=r"ablations\.shapley: is null, so there are no Shapley values"):
        Study(config).shapley_settings()
    config["ablations"]["shapley"] = {"permutations": 3, "error": 0.01}
    with pytest.raises(StudyError, match=r"ablations\.shapley\.permutations: .*minimum"):
        Study(config)


# ---- documentation


def test_the_columns_of_the_documentation():
    """No study of the tests' own has these tables but this one."""
    text = (ROOT / "docs" / "tables.md").read_text()
    for file, schema in (
        ("shapley/{network}/{layer}/{class_id}.parquet", job.SCHEMA),
        ("tables/shapley.parquet", tables.SHAPLEY),
    ):
        (columns,) = re.findall(rf"^\| `{re.escape(file)}` \| `([^`]+)`", text, re.MULTILINE)
        assert columns.split(", ") == schema.names
