"""Controls: groups and interventions beside those of the cells; the toy of conftest.py through the job, on paper."""

import math

import pytest

from jobs import ablations, groups
from jobs import controls as job
from readout import StudyError
from readout.ablations import Constant, ablate, component_energy
from readout.folds import FOLDS
from runtime import cache, parquet

NONE = {"random": 0, "matched": 0, "directions": 0, "resample": 0}
# Drawn by seed 0. Images 0 and 1 are the target's, with [4 2 0 0, 1 0 0 0] and [2 0 0 2, 3 0 0 0], images 2 and 3 the
# others', with [0 1 2 0, 0 4 0 0] and [2 1 0 0, 0 0 0 2]; 0 and 2 are in fold 1, 1 and 3 in fold 0. The scores are
# u0 + u4, u1 + u5 + 1 and u2 + 2 u3 + u7 + 2: [5 3 2], [5 1 6], [0 6 4] and [2 2 4].
UNITS = {"random0": [2, 4], "random1": [0, 3]}
FOLD = [1, 0, 1, 0]
LABELS = [0, 0, 1, 1]
SCORES = {
    ("random0", "zero"): ([4, 3, 2], [2, 1, 6], [0, 6, 2], [2, 2, 4]),
    # Midway between the sides outside the fold: in fold 0 images 0 and 2, [2 1.5 1 0, .5 2 0 0]; in fold 1 images 1 and
    # 3, [2 .5 0 1, 1.5 0 0 1].
    ("random0", "mean"): ([5.5, 3, 2], [2.5, 1, 7], [1.5, 6, 2], [2.5, 2, 5]),
    ("random1", "zero"): ([1, 3, 2], [3, 1, 2], [0, 6, 4], [0, 2, 4]),
    ("random1", "mean"): ([3, 3, 4], [5, 1, 2], [2, 6, 6], [2, 2, 4]),
}
ENERGY = {
    ("random0", "zero"): [1, 9, 4, 0],
    ("random0", "mean"): [0.25, 1 + 2.5**2, 4 + 1.5**2, 1 + 0.25],
    ("random1", "zero"): [16, 8, 0, 4],
    ("random1", "mean"): [4 + 1, 4, 4 + 1, 0],
}
WHOLE = {"zero": [21, 17, 21, 9], "mean": [8.5, 17.5, 28.5, 9.5]}


def log_sum(scores):
    return math.log(sum(map(math.exp, scores)))


def log_p(scores, label):
    return scores[label] - log_sum(scores)


def z(scores):
    """Of the target and of the other class, which are outputs 0 and 1."""
    return [scores[c] - log_sum([s for i, s in enumerate(scores) if i != c]) for c in (0, 1)]


def run(toy_study, path, **changes):
    given = NONE | {"random": 2, "seed": 0}
    return job.control(toy_study.grid, path_to_controls=str(path), **given | changes)


def read(path, *groups):
    """The rows of some groups, or of all."""
    rows = parquet.read(path, job.SCHEMA, optional=ablations.OPTIONAL).to_pylist()
    return [row for row in rows if not groups or row["group"] in groups]


def test_the_groups_that_are_drawn(toy_study):
    """On which the numbers below rest; no fold has others."""
    at = {"network": "toy", "layer": "conv1", "class_id": "a"}
    for fold in (None, *range(FOLDS)):
        found = {n: groups.find(toy_study.cells, n, "random", **at, seed=0, fold=fold).units.tolist() for n in UNITS}
        assert found == UNITS


def test_random_groups_by_hand(toy_study, tmp_path):
    """A row per group, intervention and image of either side."""
    assert run(toy_study, tmp_path / "c.parquet") == "5 ablations"
    rows = read(tmp_path / "c.parquet", *UNITS)
    assert [(row["group"], row["intervention"]) for row in rows] == [key for key in SCORES for _ in range(4)]
    same = {"network": "toy", "layer": "conv1", "class_id": "a", "kind": "random", "protocol": "crossfit", "units": 2}
    assert all(row | same == row for row in rows)
    assert [row["image_id"] for row in rows] == [0, 1, 2, 3] * 4
    assert [row["fold"] for row in rows] == FOLD * 4
    assert [row["rank_baseline"] for row in rows] == [0, 1, 0, 1] * 4
    found = iter(rows)
    for key, scores in SCORES.items():
        for i, (after, label) in enumerate(zip(scores, LABELS, strict=True)):
            row = next(found)
            # Pixels go through float32 divisions by 255; where scores tie, these decide.
            if sum(score == after[label] for score in after) == 1:
                assert row["rank_ablated"] == sum(score > after[label] for score in after)
            assert row["log_p_ablated"] == pytest.approx(log_p(after, label), abs=1e-5)
            assert row["z_ablated"] == pytest.approx(z(after), abs=1e-5)
            assert row["energy"] == pytest.approx(ENERGY[key][i], abs=1e-5)
            assert row["energy_layer"] == pytest.approx(WHOLE[key[1]][i], rel=1e-5)
            assert row["difference_before"] is None
    before = parquet.read(toy_study.baselines["b"]).to_pydict()
    assert [row["log_p_baseline"] for row in rows[2:4]] == before["log_p"]


@pytest.mark.parametrize("name", UNITS)
def test_a_group_made_alone_has_the_same_numbers(toy_study, tmp_path, name):
    """By the job of a cell, to the bit."""
    run(toy_study, tmp_path / "c.parquet")
    path = str(tmp_path / "alone.parquet")
    how = {"protocols": ["crossfit"], "interventions": ["zero", "mean"]}
    ablations.ablate(toy_study.grid, path_to_ablation=path, cell=name, kind="random", seed=0, **how)
    alone = parquet.read(path, ablations.SCHEMA, optional=ablations.OPTIONAL).to_pylist()
    rows = [{key: row[key] for key in ablations.SCHEMA.names} for row in read(tmp_path / "c.parquet", name)]
    assert alone == rows


def test_another_seed_draws_other_groups(toy_study, tmp_path):
    """Negative control."""
    for seed in (0, 4):
        run(toy_study, tmp_path / f"{seed}.parquet", seed=seed)
    first, other = ([row["rank_ablated"] for row in read(tmp_path / f"{seed}.parquet", *UNITS)] for seed in (0, 4))
    assert first != other


def test_a_direction_is_scaled_by_images_outside_the_fold(toy_study, tmp_path, monkeypatch):
    """Of folds 0 and 1 two images of the four are outside, of the three without images all."""
    seen = []

    def energy(activations, *given):
        seen.append(len(activations))
        return component_energy(activations, *given)

    monkeypatch.setattr(job, "component_energy", energy)
    run(toy_study, tmp_path / "c.parquet", random=0, directions=1)
    # The erased direction and a random one, in each of two cells.
    assert seen == [n for n in (2, 2, 4, 4, 4) for _ in range(2)] * 2


def test_a_control_more_leaves_the_others(toy_study, tmp_path):
    """A group, a draw, a direction or a donor more, and other kinds beside them."""
    less, more = ({"random": n, "matched": n, "directions": n, "resample": n} for n in (1, 2))
    run(toy_study, tmp_path / "less.parquet", **less)
    run(toy_study, tmp_path / "more.parquet", **more)
    few, many = (read(tmp_path / f"{name}.parquet") for name in ("less", "more"))
    assert len(few) < len(many)
    assert [row for row in few if row not in many] == []
    for kind in less:
        run(toy_study, tmp_path / "alone.parquet", **NONE | {kind: 1})
        alone = read(tmp_path / "alone.parquet")
        assert len(alone) > 4 and [row for row in alone if row not in few] == []


def test_all_of_a_grids_groups_share_one_prefix(toy_study, tmp_path, monkeypatch):
    """And with the jobs of its cells: the part before the layer runs once for all."""
    cache._store.clear()
    calls = []
    monkeypatch.setattr(ablations, "_alive", lambda *given, alive=ablations._alive: calls.append(0) or alive(*given))
    run(toy_study, tmp_path / "c.parquet")
    assert len(calls) == 1
    how = {"kind": "cell", "seed": None, "protocols": ["published", "crossfit"], "interventions": ["zero"]}
    ablations.ablate(toy_study.grid, path_to_ablation=str(tmp_path / "cell.parquet"), cell="s1m1", **how)
    assert len(calls) == 1
    # Negative control: another baseline is of other weights or images.
    for i, path in enumerate(toy_study.baselines.values(), 2):
        parquet.write(path, parquet.read(path).to_pylist(), parquet.schema(path))
        run(toy_study, tmp_path / "c.parquet")
        assert len(calls) == i


def test_the_whole_layer_is_always_ablated(toy_study, tmp_path):
    """The positive control: the biases are left, [0 1 2], in every image."""
    assert run(toy_study, tmp_path / "c.parquet", **NONE) == "1 ablations"
    rows = read(tmp_path / "c.parquet")
    assert [(row["group"], row["kind"], row["intervention"], row["units"]) for row in rows] == [
        ("all", "all", "zero", 8)
    ] * 4
    assert [row["z_ablated"] for row in rows] == [pytest.approx(z([0, 1, 2]), abs=1e-6)] * 4
    assert [row["energy"] for row in rows] == [row["energy_layer"] for row in rows]


def test_a_whole_layer_that_is_not_reached_is_an_error(toy_study, tmp_path, monkeypatch):
    """Negative control: units are left out, as where a memory layout fools the ablation."""
    replace = lambda self, activation, units, images: ablate(activation, units[::2], self.value)  # noqa: E731
    monkeypatch.setattr(Constant, "replace", replace)
    with pytest.raises(
        StudyError, match=r"c\.parquet: with all of conv1 at zero the images still differ; the ablation"
    ):
        run(toy_study, tmp_path / "c.parquet", **NONE)
    assert not (tmp_path / "c.parquet").exists()
