"""Tables: the toy network through the jobs of every step, on paper."""

import math
from types import MappingProxyType, SimpleNamespace

import pytest

from conftest import NO_ORIGINS
from jobs import ablations, activations, controls, networks, probes
from jobs import tables as job
from readout import StudyError
from runtime import parquet
from test_controls import SCORES

# Two images of a class leave three folds without any, about which `erase` says nothing.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}") for words in ("Mean of empty slice", "invalid value")]

CELLS = ("s0m0", "s0m1", "s1m0", "s1m1")
STEPS = ("probes", "ablations")
HOW = {"protocols": ["published", "crossfit"], "interventions": ["zero", "mean", "erase"]}
CONTROLS = {"random": 2, "matched": 0, "directions": 0, "resample": 0, "seed": 0}


@pytest.fixture
def study(toy_study) -> SimpleNamespace:
    """The toy of conftest.py as a study of class a against class b, two images each, through every job; 2 x 2 cells.

    `probe`, `ablate` and `gather` run a step anew: of a cell, of a cell, and of the layer; the last gives its rows.
    """
    file = {name: str(toy_study.tmp / f"{name}.parquet") for name in ("layer", "study")}
    at = {"network": "toy", "layer": "conv1", "class_id": "a"}
    written = {step: {cell: str(toy_study.tmp / step / "a" / f"{cell}.parquet") for cell in CELLS} for step in STEPS}

    def probe(cell, crossfit=MappingProxyType({"C": 1.0, "draws": 2})):
        probes.probe(
            path_to_probe=written["probes"][cell],
            path_to_cells=toy_study.cells,
            path_to_layers=toy_study.layers,
            path_to_target=toy_study.activations["a"],
            paths_to_others=[toy_study.activations["b"]],
            **at,
            cell=cell,
            kind="cell",
            seed=0,
            published={"draws": 3, "units": 1, "C": 1.0},
            crossfit=crossfit,
            layers=["conv1"],
            cells=4,
        )

    def ablate(cell, **changes):
        path = written["ablations"][cell]
        ablations.ablate(toy_study.grid, path_to_ablation=path, cell=cell, kind="cell", seed=None, **HOW | changes)

    gathered = {
        "path_to_images": toy_study.images,
        "path_to_layers": toy_study.layers,
        "paths_to_baselines": toy_study.baselines,
        "paths_to_cells": {"a": toy_study.cells},
        "paths_to_probes": {"a": written["probes"]},
        "paths_to_ablations": {"a": written["ablations"]},
        "paths_to_controls": {},
        "others": {"a": ("b",)},
        "network": "toy",
        "layer": "conv1",
        "origins": NO_ORIGINS,
    }

    def gather(**changes):
        job.gather_layer(file["layer"], **gathered | changes)
        return parquet.read(file["layer"], job.LAYER, optional=job.OPTIONAL).to_pylist()

    for cell in CELLS:
        probe(cell)
        ablate(cell)
    gather()
    job.gather_study(file["study"], paths_to_layers=[file["layer"]])
    return SimpleNamespace(
        **file, **written, probe=probe, ablate=ablate, gather=gather, baseline=toy_study.baseline, toy=toy_study
    )


def _change(before: list[float], after: list[float]) -> float:
    """Change of the log-probability of output 0."""
    first, second = (s[0] - math.log(sum(map(math.exp, s))) for s in (before, after))
    return second - first


def test_the_toy_through_every_step(study):
    """Each cell's row, on paper: units {2, 7}, {1, 5}, {3, 6}, {0, 4} (test_cells), ranks as in test_ablations.

    t - o is -1 -1 | 0 -2 | 1 0 | 2 2 and t + o is 1 1 | 2 2 | 1 0 | 4 2, both over sqrt(2); unit 6 is dead.
    """
    rows = parquet.read(study.study, job.CELLS, optional=job.OPTIONAL).to_pylist()
    assert [row["cell"] for row in rows] == ["s0m0", "s0m1", "s1m0", "s1m1"]
    assert [(row["selectivity_bin"], row["magnitude_bin"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {(row["network"], row["layer"], row["depth"], row["class_id"]) for row in rows} == {("toy", "conv1", 0, "a")}
    assert [row["units"] for row in rows] == [2, 2, 2, 2]
    assert [row["units_dead"] for row in rows] == [0, 0, 1, 0]
    # Pixels go through float32 divisions by 255.
    root = math.sqrt(2)
    assert [row["selectivity_mean"] * root for row in rows] == pytest.approx([-1, -1, 0.5, 2], rel=1e-6)
    assert [row["magnitude_mean"] * root for row in rows] == pytest.approx([1, 2, 0.5, 3], rel=1e-6)
    assert [row["rank_deficit"] for row in rows] == [0, 0, 0, 1.5]
    assert [row["rank_change"] for row in rows] == [0, 0, -0.5, 1.5]
    first, second = [5, 3, 2], [5, 1, 6]
    assert [row["log_p_change"] for row in rows] == pytest.approx(
        [
            0,
            _change(first, [5, 1, 2]) / 2,
            _change(second, [5, 1, 2]) / 2,
            (_change(first, [0, 3, 2]) + _change(second, [0, 1, 6])) / 2,
        ],
        abs=1e-5,
    )
    assert {row["chance"] for row in rows} == {row["chance_majority"] for row in rows} == {0.5}
    # Folds 0 and 1 have grids of their own (below), the others, without images, that of all.
    assert [row["stability"] for row in rows] == pytest.approx([0.45, 0.45, 0.45, 0.6])


# The cross-fitted protocol on the toy. Images 0 and 1 are the target's, 2 and 3 the others'; 0 and 2 are in fold 1, 1 and
# 3 in fold 0, so that each fold's grid is of the two images of the other. In fold 0 t - o is 4 1 -2 0 1 -4 0 0 and t + o
# is 4 3 2 0 1 4 0 0, so the cells are {3, 6}, {2, 5}, {4, 7}, {0, 1}. In fold 1 they are 0 -1 0 2 3 0 0 -2 and
# 4 1 0 2 3 0 0 2, so the cells are {1, 2}, {0, 7}, {5, 6}, {3, 4}.
BEFORE = ([5, 3, 2], [5, 1, 6], [0, 6, 4], [2, 2, 4])
AFTER = {
    "s0m0": ([5, 1, 2], [5, 1, 2], [0, 5, 2], [2, 2, 4]),
    "s0m1": ([1, 3, 2], [5, 1, 6], [0, 6, 4], [2, 2, 4]),
    "s1m0": ([5, 3, 2], [2, 1, 6], [0, 2, 4], [2, 2, 2]),
    "s1m1": ([4, 3, 2], [3, 1, 6], [0, 6, 4], [0, 1, 4]),
}
LABELS = (0, 0, 1, 1)
"""With units at zero."""


def _z(scores: list[float]) -> float:
    """Log-odds of output 0."""
    return scores[0] - math.log(sum(math.exp(score) for score in scores[1:]))


def _rank(scores: list[float], label: int) -> int:
    return sum(score > scores[label] for score in scores)


def _log_p(scores: list[float], label: int) -> float:
    return scores[label] - math.log(sum(map(math.exp, scores)))


def _expected(after: tuple, images: tuple = (0, 1, 2, 3)) -> dict[str, float]:
    """The outcomes as the design says them, of some of the images; the gap is always that of all four."""
    before = {i: _z(BEFORE[i]) for i in range(4)}
    z = {i: _z(after[i]) for i in range(4)}
    target, others = ([i for i in side if i in images] for side in ((0, 1), (2, 3)))

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def gap(z: dict[int, float]) -> float:
        return mean([z[i] for i in target]) - mean([z[i] for i in others])

    whole = (before[0] + before[1] - before[2] - before[3]) / 2
    moved = {i: z[i] - before[i] for i in range(4)}
    rank, log_p = ({i: f(after[i], LABELS[i]) - f(BEFORE[i], LABELS[i]) for i in range(4)} for f in (_rank, _log_p))
    return {
        "separation_loss": (gap(before) - gap(z)) / whole,
        "use": (mean([abs(moved[i]) for i in target]) + mean([abs(moved[i]) for i in others])) / 2 / whole,
        "criterion_shift": (mean([moved[i] for i in target]) + mean([moved[i] for i in others])) / 2,
        "rank_deficit": mean([max(0, rank[i]) for i in target]),
        "rank_change": mean([rank[i] for i in target]),
        "log_p_change": mean([log_p[i] for i in target]),
        "others_rank_change": mean([rank[i] for i in others]),
        "others_log_p_change": mean([log_p[i] for i in others]),
    }


def test_the_toys_outcomes_on_both_sides(study):
    """Of zero, by the definitions, from scores on paper."""
    rows = parquet.read(study.layer, job.LAYER, optional=job.OPTIONAL).to_pylist()
    for row in rows:
        for name, value in _expected(AFTER[row["cell"]]).items():
            assert row[f"{name}_zero"] == pytest.approx(value, abs=1e-5), (row["cell"], name)
        # One other class alone.
        assert row["mismatched_separation_loss_zero"] is None
    last = rows[-1]
    # s1m1 takes 1 (unit 4 of image 0), 4 (unit 0 of image 1), 0 and 4 + 1 of 21, 17, 21 and 9.
    energies = [last[f"{name}_zero"] for name in ("energy", "energy_target", "energy_others")]
    assert energies == pytest.approx([10 / 68, 5 / 38, 5 / 30], rel=1e-5)
    # Baseline z is [1.69 -1.01], [-6.13 -2.13] and ablated [.69 -3.01], [-6.13 -4.05].
    d_prime = [4.4674 / math.sqrt((2.6934**2 + 4**2) / 4), 3.9278 / math.sqrt((3.6935**2 + 2.0783**2) / 4)]
    assert last["d_prime_loss_zero"] == pytest.approx(1 - d_prime[1] / d_prime[0], abs=1e-3)
    assert last["auroc_loss_zero"] == 0
    # In s1m0 image 1 comes to have -4.02, below the -0.69 of image 3; of four pairs three are right.
    assert rows[2]["auroc_loss_zero"] == 0.25


def test_the_halves_are_of_their_images(study):
    """Folds 0, 2 and 4 have images 1 and 3, the others 0 and 2; parts of separation loss and use add up to the whole."""
    for row in parquet.read(study.layer, job.LAYER, optional=job.OPTIONAL).to_pylist():
        for half, images in (("a", (1, 3)), ("b", (0, 2))):
            expected = _expected(AFTER[row["cell"]], images)
            for name in ("separation_loss", "use", "rank_change", "others_rank_change"):
                assert row[f"{name}_zero_{half}"] == pytest.approx(expected[name], abs=1e-5), (row["cell"], name)
        for name in ("separation_loss_zero", "use_zero", "separation_loss_mean", "use_mean", "rank_deficit"):
            halves = (row[f"{name}_a"] + row[f"{name}_b"]) / 2
            assert row[name] == pytest.approx(halves, abs=1e-9), (row["cell"], name)


def test_what_is_switched_off_is_missing(study):
    """One protocol alone, one intervention, no cross-fitted probe: the others' columns stay as they are."""
    whole = study.gather()
    off = {
        "crossfit": [
            *job.OUTCOMES,
            "erased_share",
            "auroc_sample",
            *(n for n in job.HALVES if "_zero" in n or "_mean" in n),
        ],
        "mean": [name for name in (*job.OUTCOMES, *job.HALVES) if name.endswith(("_mean", "_mean_a", "_mean_b"))],
        "published": [*job.EFFECTS, "rank_deficit_a", "rank_deficit_b", "images"],
        "probe": [*probes.OPTIONAL, "auroc_a", "auroc_b", "auroc_sample"],
    }
    for part, names in off.items():
        for cell in CELLS:
            if part == "probe":
                study.probe(cell, None)
            else:
                protocols = [name for name in HOW["protocols"] if name != part]
                interventions = [i for i in HOW["interventions"] if part not in ("crossfit", i)]
                study.ablate(cell, protocols=protocols, interventions=interventions)
        for before, row in zip(whole, study.gather(), strict=True):
            assert {name for name in before if row[name] is None} - {n for n in before if before[n] is None} <= set(
                names
            )
            assert [name for name in names if row[name] is not None] == []
            assert all(row[name] == before[name] for name in row if name not in names), part
        for cell in CELLS:
            study.probe(cell)
            study.ablate(cell)


def test_the_toys_baseline(study):
    """Ranks 0 and 1, the score of the right output 5; top-1 one half."""
    table = parquet.read(study.baseline, activations.BASELINE).to_pydict()
    assert table["rank"] == [0, 1]
    assert table["score"] == pytest.approx([5, 5], rel=1e-6)
    activations.summarise(study.toy.tmp / "accuracy.parquet", paths_to_baselines=[study.baseline])
    (row,) = parquet.read(study.toy.tmp / "accuracy.parquet", networks.ACCURACY).to_pylist()
    assert row == {"split": "study", "top1": 0.5, "top5": 1.0, "images": 2}


def test_the_layer_table_holds_what_each_image_did(study):
    """The published ablation's images, and those of the cross-fitted probe."""
    last = parquet.read(study.layer, job.LAYER, optional=job.OPTIONAL).to_pylist()[-1]
    assert [(i["rank_baseline"], i["rank_ablated"]) for i in last["images"]] == [(0, 2), (1, 2)]
    ids = [i["image_id"] for i in last["held_out"]]
    assert ids == sorted(ids)
    assert {i["image_id"] for i in last["images"]} == {i["image_id"] for i in last["held_out"] if i["y"] == 1}
    assert [i["fold"] for i in last["held_out"]] == [1, 0, 1, 0]
    assert all(0 < i["p"] < 1 for i in last["held_out"])


def _rows(path, schema):
    return parquet.read(path, schema, optional=ablations.OPTIONAL).to_pylist()


CROSSFIT = slice(2, None)
"""Rows of an ablation's file behind those of the published protocol."""


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda rows: [rows[0] | {"log_p_ablated": math.nan}, *rows[1:]], "a number is not finite"),
        (lambda rows: [*rows[:-1], rows[-1] | {"energy": math.inf}], "a number is not finite"),
        (lambda rows: [*rows[:-1], rows[-1] | {"energy_layer": math.nan}], "a number is not finite"),
        (lambda rows: [*rows[:-1], rows[-1] | {"z_ablated": [0.0, math.nan]}], "a number is not finite"),
        (lambda rows: [*rows[:-1], rows[-1] | {"z_ablated": [0.0, None]}], "a number is not finite"),
        (lambda rows: [*rows[:-1], rows[-1] | {"rank_ablated": -1}], "a rank is negative"),
        (lambda rows: [*rows[:-1], rows[-1] | {"rank_baseline": 2}], "rank_baseline is not that of the baseline"),
        (lambda rows: [rows[0] | {"log_p_baseline": 0.0}, *rows[1:]], "log_p_baseline is not that of the baseline"),
        # Of fewer classes, of more, of none; of as many numbers in all.
        (
            lambda rows: rows[:2] + [row | {"z_ablated": [0.0]} for row in rows[2:]],
            "z is not of the target and its oth",
        ),
        (
            lambda rows: rows[:2] + [row | {"z_ablated": [0.0] * 3} for row in rows[2:]],
            "z is not of the target and its",
        ),
        (lambda rows: [*rows[:-1], rows[-1] | {"z_ablated": None}], "z is not of the target and its others"),
        (
            lambda rows: rows[:-2] + [row | {"z_ablated": [0.0] * n} for row, n in zip(rows[-2:], (1, 3), strict=True)],
            "z is not of the target and its others",
        ),
        # An image less of either side, one twice, one that is not the study's; those of another protocol.
        (lambda rows: rows[1:], "is not of the images of such an ablation"),
        (lambda rows: rows[:-1], "is not of the images of such an ablation"),
        (lambda rows: [*rows, rows[-1]], "is not of the study's images of this target"),
        (lambda rows: [*rows[:-1], rows[-1] | {"image_id": 9}], "is not of the study's images of this target"),
        (lambda rows: [row | {"protocol": "published"} for row in rows[2:6]], "is not of the images of such an ablati"),
        (lambda rows: rows + rows[2:6], "a group is there twice"),
        (lambda rows: [row | {"protocol": "corrected"} for row in rows[2:6]], "corrected zero is unknown"),
        (lambda rows: [row | {"intervention": "noise"} for row in rows[2:6]], "crossfit noise is unknown"),
    ],
)
def test_an_ablation_that_does_not_serve_is_refused(study, harm, words):
    """By its name."""
    file = study.ablations["s1m0"]
    parquet.write(file, harm(_rows(file, ablations.SCHEMA)), ablations.SCHEMA)
    with pytest.raises(StudyError, match=rf"ablations/a/s1m0\.parquet: {words}.*; make it again"):
        study.gather()


# The random groups of test_controls, which are drawn by seed 0, ablated by zero: ranks [0 1] and [2 0] after [0 1], so
# deficits of 0 and 1, changes of 0 and 0.5. In the others' images ranks stay but for image 3 and the latter: 1 and 1.
RANDOM = ("random0", "random1")


@pytest.fixture
def compared(study):
    """The toy's study with its random groups; `control` writes their file anew."""
    path = str(study.toy.tmp / "controls" / "a.parquet")

    def control(**changes):
        controls.control(study.toy.grid, path_to_controls=path, **CONTROLS | changes)

    def gather():
        return study.gather(paths_to_controls={"a": path})

    def gather_groups(origin=None):
        out = str(study.toy.tmp / "groups.parquet")
        job.gather_groups(
            out,
            path_to_images=study.toy.images,
            paths_to_controls={("toy", "conv1", "a"): path},
            paths_to_pseudo={},
            paths_to_rankings={},
            paths_to_layers={"toy": study.toy.layers},
            paths_to_baselines={"toy": study.toy.baselines},
            others={"toy": {"a": ("b",)}},
            origins={"toy": {"controls": origin or {}, "pseudo": {}}},
        )
        return parquet.read(out, job.GROUPS, optional=job.GROUP_OPTIONAL).to_pylist()

    control()
    return SimpleNamespace(path=path, control=control, gather=gather, gather_groups=gather_groups, study=study)


def test_cells_against_random_groups_by_hand(compared):
    """Deficits 0 0 0 1.5 against 0 and 1, changes 0 0 -0.5 1.5 against 0 and 0.5."""
    rows = compared.gather()
    root = math.sqrt(0.5)
    assert [row["rank_deficit_less_random"] for row in rows] == [-0.5, -0.5, -0.5, 1.0]
    assert [row["rank_deficit_z_random"] for row in rows] == pytest.approx([-0.5 / root] * 3 + [1 / root])
    assert [row["rank_change_less_random"] for row in rows] == [-0.25, -0.25, -0.75, 1.25]
    assert [row["rank_change_z_random"] for row in rows] == pytest.approx(
        [-0.5 / root, -0.5 / root, -1.5 / root, 2.5 / root]
    )
    first, second = [5, 3, 2], [5, 1, 6]
    random = [
        (_change(first, [4, 3, 2]) + _change(second, [2, 1, 6])) / 2,
        (_change(first, [1, 3, 2]) + _change(second, [3, 1, 2])) / 2,
    ]
    less = [row["log_p_change"] - sum(random) / 2 for row in rows]
    assert [row["log_p_change_less_random"] for row in rows] == pytest.approx(less, abs=1e-5)
    deviation = abs(random[0] - random[1]) * root
    assert [row["log_p_change_z_random"] for row in rows] == pytest.approx([x / deviation for x in less], abs=1e-4)
    for i in ("zero", "mean"):
        losses = [_expected(after)["separation_loss"] for (_, how), after in SCORES.items() if how == i]
        for row in rows:
            assert row[f"separation_loss_{i}_less_random"] == pytest.approx(
                row[f"separation_loss_{i}"] - sum(losses) / 2, abs=1e-5
            )
    # And in the table of the study.
    job.gather_study(compared.study.study, paths_to_layers=[compared.study.layer])
    gathered = parquet.read(compared.study.study, job.CELLS, optional=job.OPTIONAL).to_pylist()
    assert gathered == [{key: row[key] for key in job.CELLS.names} for row in rows]


def test_erasing_against_random_directions(compared):
    """Of the first cell and of the last, which have such; less their mean in the table of groups."""
    compared.control(random=0, directions=3)
    # So few images have no directions; as if the third had cost the target's images eight times as much as the first.
    file = _rows(compared.path, controls.SCHEMA)
    for row in file:
        if row["intervention"].startswith("direction") and row["image_id"] in (0, 1):
            row["z_ablated"] = [
                row["z_ablated"][0] - 0.25 * 8 ** (int(row["intervention"][-1]) / 2),
                row["z_ablated"][1],
            ]
    parquet.write(compared.path, file, controls.SCHEMA)
    rows = {row["cell"]: row for row in compared.gather()}
    drawn = {"s0m0": [], "s1m1": []}
    for group in compared.gather_groups():
        if group["intervention"].startswith("direction"):
            drawn[group["group"]].append(group["separation_loss"])
    assert [len(set(losses)) for losses in drawn.values()] == [3, 3]
    for cell, row in rows.items():
        found = row["separation_loss_erase_less_directions"]
        expected = row["separation_loss_erase"] - sum(drawn[cell]) / 3 if cell in drawn else None
        assert found == (expected if expected is None else pytest.approx(expected, abs=1e-12))
    assert rows["s1m1"]["separation_loss_erase_less_directions"] != 0


def test_one_random_group_has_no_deviation(compared):
    """What is less it is known; of the three columns in units of it, none has a value."""
    compared.control(random=1)
    rows = compared.gather()
    assert [row["rank_deficit_less_random"] for row in rows] == [0, 0, 0, 1.5]
    assert {row[name] for row in rows for name in job.AGAINST_RANDOM if "_z_" in name} == {None}


def test_without_random_groups_the_columns_are_there_and_missing(study, compared):
    """All other columns are as with them; a file of other controls is none of random groups."""
    compared.control(random=0, resample=1)
    without = [name for name in job.CELLS.names if name.endswith("_random")]
    assert len(without) == 8
    with_random = study.gather(paths_to_controls={"a": compared.path})
    for row, other in zip(study.gather(), with_random, strict=True):
        assert row == other
        assert {row[name] for name in without} == {None}
    job.gather_study(study.study, paths_to_layers=[study.layer])
    with pytest.raises(StudyError, match="column rank_deficit_less_random lacks values"):
        parquet.read(study.study, job.CELLS)


def test_groups_are_gathered_by_hand(compared):
    """A row per group and intervention."""
    rows = compared.gather_groups()
    assert [(row["group"], row["kind"], row["intervention"]) for row in rows] == [
        ("all", "all", "zero"),
        ("random0", "random", "zero"),
        ("random0", "random", "mean"),
        ("random1", "random", "zero"),
        ("random1", "random", "mean"),
    ]
    same = {"network": "toy", "layer": "conv1", "depth": 0, "class_id": "a", "protocol": "crossfit"}
    assert all(row | same == row for row in rows)
    assert [row["units"] for row in rows] == [8, 2, 2, 2, 2]
    for row, after in zip(rows, ([[0, 1, 2]] * 4, *SCORES.values()), strict=True):
        # Where scores tie, roundings of the pixels decide of the rank.
        ties = any(sum(score == s[label] for score in s) > 1 for s, label in zip(after, LABELS, strict=True))
        for name, value in _expected(after).items():
            if not (ties and "rank" in name):
                assert row[name] == pytest.approx(value, abs=1e-5), (row["group"], row["intervention"], name)
        assert (row["mismatched_separation_loss"], row["erased_share"], row["auroc"]) == (None, None, None)
    whole = rows[0]
    assert whole["separation_loss"] == pytest.approx(1, abs=1e-6)
    # All z become equal: no deviation, and no order.
    assert whole["d_prime_loss"] is None
    assert whole["auroc_loss"] == pytest.approx(0.5)
    assert [whole[name] for name in ("energy", "energy_target", "energy_others")] == [1, 1, 1]


def _of_another(column, value):
    return lambda rows: [row | {column: value} for row in rows]


def _twice(rows):
    return rows + [row for row in rows if (row["group"], row["intervention"]) == ("random0", "zero")]


def _twice_and_larger(rows):
    return rows + [row | {"units": 3} for row in rows if (row["group"], row["intervention"]) == ("random0", "zero")]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_of_another("network", "net"), "is not of toy, conv1, a"),
        (_of_another("layer", "conv2"), "is not of toy, conv1, a"),
        (_of_another("class_id", "b"), "is not of toy, conv1, a"),
        (_of_another("protocol", "published"), "is not of toy, conv1, a, crossfit"),
        # One row alone.
        (lambda rows: [rows[0] | {"class_id": "b"}, *rows[1:]], "is not of toy, conv1, a"),
        (_twice, "a group is there twice"),
        (_twice_and_larger, "a group is there twice"),
        # A group of two sizes: one image alone.
        (lambda rows: [*rows[:-1], rows[-1] | {"units": 3}], "is not of the images of such an ablation"),
        (lambda rows: [row | {"rank_ablated": -1} for row in rows], "a rank is negative"),
        (lambda rows: [row | {"log_p_ablated": math.inf} for row in rows], "a number is not finite"),
        (
            lambda rows: [row | {"z_ablated": row["z_ablated"][:1]} for row in rows],
            "z is not of the target and its oth",
        ),
        (lambda rows: [row | {"z_ablated": None} for row in rows[:4]], "z is not of the target and its others"),
        # Other images, images less, of all groups or of one.
        (
            lambda rows: [row | {"image_id": row["image_id"] + 1} for row in rows],
            "is not of the study's images of this t",
        ),
        (
            lambda rows: [row | {"image_id": 3 - row["image_id"]} for row in rows],
            "rank_baseline is not that of the base",
        ),
        (lambda rows: rows[1:], "is not of the images of such an ablation"),
        (lambda rows: [row for row in rows if row["image_id"]], "is not of the images of such an ablation"),
    ],
)
def test_a_table_of_controls_that_does_not_serve_is_refused(compared, harm, words):
    """By its name, whoever reads it."""
    parquet.write(compared.path, harm(_rows(compared.path, controls.SCHEMA)), controls.SCHEMA)
    for gather in (compared.gather, compared.gather_groups):
        with pytest.raises(StudyError, match=rf"controls/a\.parquet: {words}.*; make it again"):
            gather()


def test_the_order_of_a_groups_images_does_not_matter(compared):
    """They are known by their numbers."""
    before = compared.gather_groups()
    rows = _rows(compared.path, controls.SCHEMA)
    parquet.write(
        compared.path, [row for i in range(0, len(rows), 4) for row in rows[i : i + 4][::-1]], controls.SCHEMA
    )
    assert compared.gather_groups() == before


def test_controls_of_another_study_are_refused(compared):
    with pytest.raises(
        StudyError, match=r"controls/a\.parquet: is of study unknown, but what it goes into is of study tiny"
    ):
        compared.gather_groups({"study": "tiny"})
