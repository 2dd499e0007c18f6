"""Controls: random groups ablated beside the cells of a grid; the toy of conftest.py through the job, on paper."""

import math

import pytest

from jobs import ablations, groups
from jobs import controls as job
from readout import StudyError
from runtime import cache, parquet

NAMES = ("random0", "random1")
# Drawn by seed 0. The toy's images have [4 2 0 0, 1 0 0 0] and [2 0 0 2, 3 0 0 0], and its scores are u0 + u4, u1 + u5 + 1
# and u2 + 2 u3 + u7 + 2: [5 3 2] and [5 1 6], of which the first is the target's.
UNITS = {"random0": [2, 4], "random1": [0, 3]}
SCORES = {
    # Unit 4 speaks for the target, unit 2 against it; no rank moves.
    ("random0", "zero"): ([4, 3, 2], [2, 1, 6]),
    ("random0", "constant 0.5"): ([4.5, 3, 2.5], [2.5, 1, 6.5]),
    # Unit 0 speaks for the target, unit 3, of the second image, against it.
    ("random1", "zero"): ([1, 3, 2], [3, 1, 2]),
    ("random1", "constant 0.5"): ([1.5, 3, 3], [3.5, 1, 3]),
}
RANKS = {
    ("random0", "zero"): [0, 1],
    ("random0", "constant 0.5"): [0, 1],
    ("random1", "zero"): [2, 0],
    ("random1", "constant 0.5"): [2, 0],
}


def log_p(scores):
    """Log-probability of output 0."""
    return scores[0] - math.log(sum(map(math.exp, scores)))


def run(toy_study, path, **changes):
    given = {"random": NAMES, "values": [0.0, 0.5], "seed": 0}
    return job.control(path_to_controls=str(path), **toy_study.grid, **given | changes)


def test_the_groups_that_are_drawn(toy_study):
    """On which the numbers below rest."""
    at = {key: toy_study.grid[key] for key in ("network", "layer", "class_id")}
    found = {name: groups.find(toy_study.cells, name, "random", **at, seed=0).units.tolist() for name in NAMES}
    assert found == UNITS


def test_controls_by_hand(toy_study, tmp_path):
    """A row per group, intervention and image."""
    assert run(toy_study, tmp_path / "c.parquet") == "2 groups"
    rows = parquet.read(tmp_path / "c.parquet", job.SCHEMA).to_pylist()
    assert [(row["group"], row["intervention"]) for row in rows] == [key for key in SCORES for _ in range(2)]
    same = {(row["network"], row["layer"], row["class_id"], row["kind"], row["protocol"], row["units"]) for row in rows}
    assert same == {("toy", "conv1", "a", "random", "published", 2)}
    assert [row["rank_baseline"] for row in rows] == [0, 1] * 4
    assert [row["rank_ablated"] for row in rows] == [rank for ranks in RANKS.values() for rank in ranks]
    # Pixels go through float32 divisions by 255.
    assert [row["log_p_baseline"] for row in rows] == pytest.approx([log_p([5, 3, 2]), log_p([5, 1, 6])] * 4, abs=1e-5)
    expected = [log_p(scores) for both in SCORES.values() for scores in both]
    assert [row["log_p_ablated"] for row in rows] == pytest.approx(expected, abs=1e-5)
    baseline = parquet.read(toy_study.baseline).to_pydict()
    assert [row["image_id"] for row in rows] == baseline["image_id"] * 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("value", "intervention"), [(0.0, "zero"), (0.5, "constant 0.5")])
def test_a_group_made_alone_has_the_same_numbers(toy_study, tmp_path, name, value, intervention):
    """By the job of a cell, to the bit."""
    run(toy_study, tmp_path / "c.parquet")
    path = str(tmp_path / "alone.parquet")
    ablations.ablate(path_to_ablation=path, **toy_study.grid, cell=name, kind="random", seed=0, value=value)
    alone = parquet.read(path, ablations.SCHEMA).to_pylist()
    rows = [
        {key: row[key] for key in ablations.SCHEMA.names}
        for row in parquet.read(tmp_path / "c.parquet").to_pylist()
        if (row["group"], row["intervention"]) == (name, intervention)
    ]
    assert alone == rows


def test_another_seed_draws_other_groups(toy_study, tmp_path):
    """Negative control."""
    for seed in (0, 4):
        run(toy_study, tmp_path / f"{seed}.parquet", seed=seed)
    first, other = (parquet.read(tmp_path / f"{seed}.parquet").to_pydict() for seed in (0, 4))
    assert first["rank_ablated"] != other["rank_ablated"]


def test_a_group_more_leaves_the_others(toy_study, tmp_path):
    """And its place among them does not matter."""
    run(toy_study, tmp_path / "two.parquet")
    run(toy_study, tmp_path / "three.parquet", random=("random2", *NAMES))
    two, three = (parquet.read(tmp_path / f"{name}.parquet").to_pylist() for name in ("two", "three"))
    assert len(three) == 12
    assert two == three[4:]


def test_all_of_a_grids_groups_share_one_prefix(toy_study, tmp_path, monkeypatch):
    """And with the jobs of its cells: the part before the layer runs once for all."""
    cache._store.clear()
    calls = []
    monkeypatch.setattr(ablations, "alive", lambda *given, alive=ablations.alive: calls.append(0) or alive(*given))
    run(toy_study, tmp_path / "c.parquet")
    assert len(calls) == 1
    path = str(tmp_path / "cell.parquet")
    ablations.ablate(path_to_ablation=path, **toy_study.grid, cell="s1m1", kind="cell", seed=None, value=0.0)
    assert len(calls) == 1
    # Negative control: another baseline is of other weights or images.
    parquet.write(toy_study.baseline, parquet.read(toy_study.baseline).to_pylist(), parquet.schema(toy_study.baseline))
    run(toy_study, tmp_path / "c.parquet")
    assert len(calls) == 2


def test_no_groups_are_an_error(toy_study, tmp_path):
    """A table without rows would be refused by whoever reads it, and there is no rule that asks for one."""
    with pytest.raises(StudyError, match=r"controls: none are asked for; set controls\.random to the number"):
        run(toy_study, tmp_path / "c.parquet", random=())
    assert not (tmp_path / "c.parquet").exists()
