"""The benchmark of methods: what is scored, by numbers worked out by hand; what each method finds and where it is blind; the page."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from scipy import stats

from commands import benchmark as command
from jobs import importance as job
from readout import StudyError, ablations, benchmark, figures, importance, outcomes, planted, tracing
from readout.benchmark import ALL, BOUNDS, EXPECTED, FOUND_IN_NULL, METHODS, MOST, NULL_ROLES, ROLES
from readout.cuts import cut
from workflow import ROOT, ran

PAGE = (ROOT / "docs" / "benchmark.md").read_text()
ALONE = {"probe", "selectivity", "absolute_selectivity", "magnitude", "d_prime", "probe_weight", "mutual_information"}
"""Methods that look at activations alone."""


@pytest.fixture(scope="module")
def bench():
    return benchmark.world(1)[0]


@pytest.fixture(scope="module")
def truth():
    return benchmark.world(1)[1]


# ---- worlds


def test_a_world_is_a_draw_of_images(bench):
    """Of seed 1, b is the target: 15 of 75 images; three of each class in each fold; pixels from 0 to 1."""
    assert (bench.target, bench.is_target.sum(), len(bench.is_target)) == (1, 15, 75)
    assert np.unique(bench.fold, return_counts=True)[1].tolist() == [15] * 5
    assert np.unique(bench.fold[bench.is_target], return_counts=True)[1].tolist() == [3] * 5
    grey = planted.pixels("b", 4, 1).ravel() / 255
    assert np.array_equal(bench.pixels[19, 2].flatten().numpy(), grey)
    # A unit with a class puts out its pixel.
    assert np.array_equal(bench.activations[19, :224], grey[:224])


def test_the_classes_take_turns_and_worlds_differ():
    worlds = [benchmark.world(seed) for seed in range(5)]
    assert [world.target for world, _ in worlds] == [0, 1, 2, 3, 0]
    assert not np.array_equal(worlds[0][0].activations, worlds[4][0].activations)
    assert np.array_equal(worlds[2][1]["causal"], planted.roles("c", planted.units())["causal"])


def test_the_null_network_sees_the_same_images_and_uses_none_of_its_units():
    (world, _), (null, truth) = benchmark.world(2), benchmark.world(2, null=True)
    assert np.array_equal(world.activations, null.activations)
    assert not set(truth) & set(planted.USED)
    for intervention in ("zero", "mean", "erase"):
        units = np.concatenate([truth[role] for role in ("decodable", "constant", "dead")])
        assert np.abs(null.loss(null.alone, intervention)[units]).max() < 1e-12


def test_a_method_is_not_told_the_truth(bench):
    assert set(vars(bench)) >= set(bench.__dataclass_fields__)
    assert set(bench.__dataclass_fields__) == {
        *("activations", "is_target", "fold", "pixels", "network", "target", "seed"),
    }


# ---- losses


@torch.inference_mode()
def by_the_workflow(bench, units, intervention):
    """The separation loss by the workflow's own cut, interventions and outcomes, in float32."""
    traced = tracing.trace(benchmark.PlantedNetwork())
    parts = cut(traced, planted.LAYER)
    activation, *rest = parts.prefix(bench.pixels.float())
    sides = [activation.double().numpy()[side].mean(0) for side in (bench.is_target, ~bench.is_target)]
    means = [side.astype(np.float32) for side in sides]
    how = {"zero": ablations.ZERO, "mean": ablations.mean(*means), "erase": ablations.erase(*means)}[intervention]
    gaps = []
    for layer in (activation, how.replace(activation, units, slice(None))):
        z = importance.separation(bench.target)(parts.tail(layer, *rest)).numpy()
        gaps.append(outcomes.gap(z, bench.is_target))
    return 1 - gaps[1] / gaps[0]


@pytest.mark.parametrize("intervention", ["zero", "mean", "erase"])
def test_losses_are_those_of_the_workflow(bench, truth, intervention):
    """Of the first unit of each role, and of groups."""
    groups = [truth[role][:1] for role in (*planted.USED, *benchmark.UNUSED)]
    groups += [truth["redundant"], truth["constant"], np.r_[0:320:3]]
    members = np.zeros((len(groups), 320), bool)
    for row, units in zip(members, groups, strict=True):
        row[units] = True
    found = bench.loss(members, intervention)
    assert found == pytest.approx([by_the_workflow(bench, units, intervention) for units in groups], abs=2e-6)
    assert np.ptp(found) > 0.1


def test_nothing_is_lost_without_units_and_all_without_the_layer(bench):
    both = np.stack([np.zeros(320, bool), np.ones(320, bool)])
    assert bench.loss(both, "mean") == pytest.approx([0, 1], abs=1e-12)
    assert len(bench.loss(both[:0], "mean")) == 0


def test_losses_do_not_depend_on_how_many_go_at_once(bench, monkeypatch):
    expected = bench.loss(bench.alone, "erase")
    monkeypatch.setattr(benchmark, "COLUMNS", 1)
    assert bench.loss(bench.alone, "erase") == pytest.approx(expected, abs=1e-12)


def test_only_interventions_that_are_there(bench):
    with pytest.raises(StudyError, match="no intervention resample in the benchmark; there are zero, mean and erase"):
        bench.loss(bench.alone, "resample")


def test_a_single_unit_is_erased_to_its_mean(bench):
    assert benchmark.erase(bench) == pytest.approx(benchmark.mean(bench), abs=1e-12)


def test_the_loss_of_a_linear_unit_is_its_gradient(bench, truth):
    """The log-odds are linear in an inhibitory unit, so the loss is the gradient times the deviation, as a share of the gap.

    But for units that are exactly 0 in an image, where the gate has a kink.
    """
    gap = outcomes.gap(importance.separation(bench.target)(bench.network(bench.pixels)).numpy(), bench.is_target)
    units = truth["inhibitory"][(bench.activations[:, truth["inhibitory"]] > 0).all(0)]
    assert len(units) > 3
    for method, alone in (("gradient_x_activation", "zero"), ("gradient_x_deviation", "mean")):
        assert METHODS[method](bench)[units] / gap == pytest.approx(bench.loss(bench.alone, alone)[units], abs=1e-12)


def test_settings_are_those_of_a_study():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert config["probes"]["crossfit"]["C"] == benchmark.C
    assert job.STEPS == benchmark.STEPS


def test_every_measure_is_a_method_and_is_told_what_it_needs(bench, monkeypatch):
    """One that is put into the registry is scored without further code once the module is loaded."""
    assert set(importance.MEASURES) <= set(METHODS)
    assert np.array_equal(METHODS["magnitude"](bench), importance.magnitude(bench.known))
    monkeypatch.setitem(importance.MEASURES, "magnitude", lambda known: known.image_weights @ known.activations)
    assert np.array_equal(METHODS["magnitude"](bench), bench.known.image_weights @ bench.activations)


# ---- scores


def test_the_truth_gets_one_its_opposite_zero_and_nothing_one_half(truth):
    used = np.zeros(320)
    for role in planted.USED:
        used[truth[role]] = 1e-9
    assert benchmark.scores(used, truth) == dict.fromkeys(ROLES, 1.0)
    assert benchmark.scores(-used, truth) == dict.fromkeys(ROLES, 0.0)
    for nothing in (np.zeros(320), np.full(320, 7.0)):
        assert benchmark.scores(nothing, truth) == dict.fromkeys(ROLES, 0.5)


def test_scores_by_hand():
    """Units 0-1 are causal, 2 and 3 redundant, conjunction 4, inhibitory 5, decodable 6, constant 7, noise 8, dead 9."""
    names = ("causal", "causal", "redundant", "redundant", *ROLES[2:8])
    truth = {role: np.flatnonzero(np.array(names) == role) for role in names}
    values = np.array([3.0, 1, 2, -1, 0, 0.5, 4, 3, 2, 0])
    assert benchmark.scores(values, truth) == {
        # 3 and 1 against 2 and 0: three of four pairs.
        "causal": 3 / 4,
        # 2 ties with 2 and is above 0, -1 is below both.
        "redundant": 1.5 / 4,
        "conjunction": 0.5 / 2,
        "inhibitory": 1 / 2,
        # Causal 3 and 1 against 4, against 3, against 2, against 0.
        "decodable": 0.0,
        "constant": 0.5 / 2,
        "noise": 1 / 2,
        "dead": 1.0,
        # 3, 1, 2, -1, 0 and .5 against 4, 3, 2 and 0: 2.5 + 1 + 1.5 + 0 + .5 + 1.
        ALL: 6.5 / 24,
    }


def test_rounding_breaks_no_ties_and_scale_says_nothing(truth):
    """A ten-millionth of the largest value is rounding; so is the same of values that are all a billion times as small."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=320)
    values[truth["redundant"]] = values[truth["dead"]] = 0.5
    expected = benchmark.scores(values, truth)
    for scale in (1e-9, 1, 1e9):
        assert benchmark.scores((values + 1e-8 * generator.normal(size=320)) * scale, truth) == expected


def test_a_method_gives_a_finite_number_for_each_unit(bench):
    with pytest.raises(StudyError, match=r"short: a method gives a number for each unit, \[320\], not \[2\]"):
        benchmark.told("short", [1, 2], bench)
    with pytest.raises(StudyError, match="odd: gives nan for a unit; its numbers must be finite"):
        benchmark.told("odd", np.full(320, np.nan), bench)
    assert benchmark.told("whole", [1] * 320, bench).dtype == float


# ---- the null


@pytest.mark.parametrize("seed", range(5))
def test_intervals_are_those_of_brunner_and_munzel(seed):
    """The level at which scipy's test rejects is that of the interval which one half just lies outside of."""
    generator = np.random.default_rng(seed)
    high, low = np.round(generator.normal(0.3, 2, size=9), 1), np.round(generator.normal(size=14), 1)
    p = stats.brunnermunzel(high, low, alternative="two-sided").pvalue
    ends = benchmark.interval(high, low, 1 - p)
    assert min(abs(end - 0.5) for end in ends) < 1e-9
    assert sum(ends) / 2 == pytest.approx(np.mean([(high[:, None] > low) + (high[:, None] == low) / 2]))


def test_intervals_without_length():
    assert benchmark.interval(np.ones(3), np.ones(4), 0.95) == (0.5, 0.5)
    assert benchmark.interval(np.arange(1, 4.0), np.zeros(4), 0.95) == (1.0, 1.0)
    assert benchmark.interval(np.zeros(4), np.arange(1, 4.0), 0.95) == (0.0, 0.0)


def test_noise_beside_equal_values_is_not_found_and_mann_and_whitney_would():
    """2,000 draws of 32 numbers about zero against 32 zeros. A share has a deviation of at most .003 (of .02)."""
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(2000, 32))
    found = np.mean([benchmark.interval(high, np.zeros(32), 0.95)[0] > 0.5 for high in draws])
    assert found < 0.025 + 0.009
    ranks = stats.mannwhitneyu(draws, np.zeros((2000, 32)), axis=1, alternative="greater").pvalue
    assert (ranks < 0.025).mean() > 0.04


def test_what_is_there_is_found():
    """Each null role by values that have it alone; less than nothing is found of values that are the other way round."""
    truth = benchmark.world(0, null=True)[1]
    for role in NULL_ROLES:
        values = np.random.default_rng(0).normal(size=320)
        values[truth[role]] += 5
        # Noise is among what the others are compared with.
        others = {name: found for name, found in benchmark.found(values, truth).items() if name != role}
        assert benchmark.found(values, truth)[role]
        assert not any(others.values())
        assert not benchmark.found(-values, truth)[role]


def test_noise_is_found_from_so_many_on():
    """By hand: 23 of 32 above the dead give an AUROC of .719 with a deviation of .081, 2.71 of which are from .719 to .5.

    22 give .6875 and 2.25. Student's t with 31 degrees of freedom allows 2.53 for three roles, and 2.04 for one.
    """
    truth = benchmark.world(0, null=True)[1]
    for above, expected in ((22, False), (23, True)):
        values = np.zeros(320)
        values[truth["noise"]] = np.where(np.arange(32) < above, 1.0, -1.0)
        assert benchmark.found(values, truth)["noise"] is expected


# ---- what each method finds


def tried(methods, worlds, null_worlds):
    """Tables of AUROCs and of null shares."""
    found = command.table(list(command.tasks(methods, worlds, null_worlds)), 1)
    return command.areas(found), command.shares(found) if null_worlds else None


def test_every_method_has_its_expectations():
    assert set(EXPECTED) <= set(METHODS)
    assert set(FOUND_IN_NULL) <= set(EXPECTED)
    for outcomes_of in EXPECTED.values():
        assert set(outcomes_of) <= set(ROLES)
    assert {method for method, of in EXPECTED.items() if of.get("decodable") == "blind"} == ALONE | {"random"}
    for blind in ("zero", "mean", "erase", "gradient_x_activation", "gradient_x_deviation"):
        assert EXPECTED[blind]["redundant"] == "blind"
    assert EXPECTED["zero"]["constant"] == "blind"


def test_methods_find_and_miss_what_they_must_in_some_worlds():
    """One of each target. What luck decides in a single world needs more: the decodable, and random numbers."""
    methods = [name for name in EXPECTED if name not in ("mutual_information", "random")]
    areas, _ = tried(methods, 4, 0)
    for method in methods:
        for role, outcome in EXPECTED[method].items():
            if (method in ALONE) and role == "decodable":
                continue
            least, most = BOUNDS[outcome]
            assert least <= areas.loc[(method, role), "mean"] <= most, (method, role)


def test_probes_cannot_tell_what_is_used_from_what_is_read():
    """In single worlds they can, by luck: it is shared by the units of a role."""
    areas, _ = tried(["probe"], 80, 0)
    mean, least, most = areas.loc[("probe", "decodable")]
    assert (least, most) == (0, 1)
    assert 0.4 < mean < 0.6


def test_pairs_hide_exactly(bench, truth):
    """Either of a redundant pair costs nothing, and either of a conjunction saves nothing; the opposite of both is clear."""
    alone, kept = benchmark.mean(bench), benchmark.keep(bench)
    assert np.abs(alone[truth["redundant"]]).max() < 1e-12
    assert np.abs(kept[truth["conjunction"]]).max() < 1e-12
    assert min(alone[truth["conjunction"]].min(), kept[truth["redundant"]].min()) > 0.01


def test_nothing_is_found_in_some_null_worlds():
    """In at most one of twelve, which is what 2 % of all worlds come to in 98 of 100 such tests; all seeds are fixed."""
    methods = ["zero", "mean", "keep", "random"]
    _, shares = tried([*methods, "probe"], 1, 12)
    assert (shares.loc[methods, command.ANY] <= 1 / 12).all()
    assert (shares.loc["probe", list(FOUND_IN_NULL["probe"])] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "methods",
    [
        ["zero", "random"],
        ["mean", "erase"],
        ["keep"],
        ["shapley"],
        [
            *sorted(ALONE - {"probe", "mutual_information"}),
            "gradient_x_activation",
            "gradient_x_deviation",
            "squared_taylor",
        ],
    ],
    ids=lambda methods: methods[0] if len(methods) < 6 else "measures",
)
def test_at_most_one_in_twenty_is_found_in_the_null_network(methods):
    """200 worlds; those that find something by what they are find it always. The page has the same numbers."""
    areas, shares = tried(methods, command.WORLDS, command.NULL_WORLDS)
    assert command.disagreements(areas, shares) == []
    for method in methods:
        for role, (_, mean, _) in documented()[method].items():
            assert mean == pytest.approx(areas.loc[(method, role), "mean"], abs=0.0051), (method, role)
        for role, share in documented_null()[method].items():
            assert share == pytest.approx(shares.loc[method, role], abs=0.0101), (method, role)


@pytest.mark.slow
def test_the_rows_do_not_depend_on_the_number_of_processes():
    tasks = list(command.tasks(["mean", "random"], 3, 3))
    pd.testing.assert_frame_equal(command.table(tasks, 2), command.table(tasks, 1))


# ---- the page


ENTRY = re.compile(r"(?P<mark>\**)(?P<mean>\d\.\d\d)(?P=mark)(?P<unsaid>\??)(?: \((?P<least>\S+) to (?P<most>\S+)\))?")


def rows(heading):
    """Cells of the table under a heading, the first row being the head's."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]


def documented():
    """What the page says of each method: mark, mean and range, by role."""
    called = {label: name for name, label in command.names(list(METHODS)).items()}
    head, *lines = rows("The methods, by role")
    found = {called[label]: {} for label in head[1:]}
    for label, *cells in lines:
        for method, cell in zip(found, cells, strict=True):
            entry = ENTRY.fullmatch(cell)
            mark = {"**": "blind", "*": "misled", "": "" if entry["unsaid"] else "found"}[entry["mark"]]
            extent = (float(entry["least"]), float(entry["most"])) if entry["least"] else None
            found[method][called[label]] = mark, float(entry["mean"]), extent
    return found


def documented_null():
    called = {label: name for name, label in command.names(list(METHODS)).items()}
    (_, *roles, _), *lines = rows("The null network")
    assert roles == [*NULL_ROLES, command.ANY]
    return {
        called[label]: {role: float(cell.strip("*% ")) / 100 for role, cell in zip(roles, cells, strict=True)}
        for label, *cells, _ in lines
    }


def test_the_page_has_every_method_and_every_role():
    assert list(documented()) == list(METHODS) == list(documented_null())
    assert all(list(of) == list(ROLES) for of in documented().values())
    worlds = {row[0]: int(row[-1]) for row in rows("The null network")[1:]}
    assert worlds.pop("mutual information") == command.SLOW["mutual_information"][1]
    assert set(worlds.values()) == {command.NULL_WORLDS}
    assert f"in {command.WORLDS} worlds, the null network in {command.NULL_WORLDS}" in re.sub(r"\s+", " ", PAGE)


def test_the_numbers_of_the_page_are_as_expected():
    """And its marks are those of the code."""
    for method, of_roles in documented().items():
        for role, (mark, mean, extent) in of_roles.items():
            assert mark == EXPECTED[method].get(role, ""), (method, role)
            assert extent is None or extent[0] <= mean <= extent[1]
            if mark:
                assert BOUNDS[mark][0] <= mean <= BOUNDS[mark][1], (method, role)


def test_the_null_shares_of_the_page_are_as_expected():
    for method, shares in documented_null().items():
        by_design = FOUND_IN_NULL.get(method, ())
        assert all(shares[role] >= 1 - MOST for role in by_design)
        assert by_design or shares[command.ANY] <= MOST


def test_the_page_by_hand():
    """An expected blind spot in bold, what is turned round in italics, a question mark where nothing is expected."""
    cases = {
        ("zero", "redundant"): ((0.504, 0.25, 1.0), "**0.50** (0.25 to 1.00)"),
        ("zero", "causal"): ((1.0, 1.0, 1.0), "1.00"),
        ("d_prime", "inhibitory"): ((0.0, 0.0, 0.001), "*0.00*"),
        ("zero", ALL): ((0.7, 0.7, 0.7), "0.70?"),
        ("mine", "causal"): ((0.7, 0.6, 0.8), "0.70? (0.60 to 0.80)"),
    }
    for (method, role), (numbers, entry) in cases.items():
        area = pd.Series(dict(zip(("mean", "min", "max"), numbers, strict=True)))
        assert command._entry(method, role, area) == entry
        assert ENTRY.fullmatch(entry)


def table_of(values):
    return pd.DataFrame(values, columns=["null", "seed", "method", "role", "value"])


def test_means_and_shares_by_hand():
    """Two worlds of .2 and .6; of four null worlds one finds noise, and one noise and the constant."""
    found = [(False, seed, "m", role, value) for seed, value in ((0, 0.2), (1, 0.6)) for role in ROLES]
    for seed, hits in enumerate([(), ("noise",), ("noise", "constant"), ()]):
        found += [(True, seed, "m", role, float(role in hits)) for role in NULL_ROLES]
    areas, shares = command.areas(table_of(found)), command.shares(table_of(found))
    assert areas.loc[("m", "dead")].tolist() == pytest.approx([0.4, 0.2, 0.6])
    assert shares.loc["m"].to_dict() == {"decodable": 0, "constant": 0.25, "noise": 0.5, command.ANY: 0.5, "worlds": 4}


def test_other_numbers_than_expected_are_named():
    """Of each kind; a method without expectations is left alone."""

    def judged(method, areas, hits):
        found = [
            (
                False,
                0,
                method,
                role,
                areas.get(
                    role, {"found": 1.0, "blind": 0.5, "misled": 0.0, None: 0.7}[EXPECTED.get(method, {}).get(role)]
                ),
            )
            for role in ROLES
        ]
        found += [(True, seed, method, role, float(role in hits)) for seed in range(2) for role in NULL_ROLES]
        return command.disagreements(command.areas(table_of(found)), command.shares(table_of(found)))

    assert judged("mean", {}, ()) == []
    assert judged("mean", {"redundant": 0.61}, ()) == ["mean, redundant: expected blind, but the AUROC is 0.610"]
    assert judged("mean", {"causal": 0.94}, ()) == ["mean, causal: expected found, but the AUROC is 0.940"]
    assert judged("d_prime", {"inhibitory": 0.4}, ("decodable",)) == [
        "d_prime, inhibitory: expected misled, but the AUROC is 0.400"
    ]
    assert judged("mean", {}, ("noise",)) == ["mean: finds something in 1.000 of the null worlds"]
    assert judged("d_prime", {}, ()) == ["d_prime, decodable: found in 0.000 of the null worlds, not in all"]
    assert judged("mine", {"causal": 0.1}, ("noise",)) == []


def test_slow_methods_are_tried_in_fewer_worlds():
    tasks = list(command.tasks(["probe", "mutual_information"], 100, 200))
    assert [sum(task.null for task in tasks), len(tasks)] == [200, 300]
    slow = [(task.null, task.seed) for task in tasks if "mutual_information" in task.methods]
    few, fewer = command.SLOW["mutual_information"]
    assert slow == [*((False, seed) for seed in range(few)), *((True, seed) for seed in range(fewer))]
    assert all("probe" in task.methods for task in tasks)


def test_the_figure_frames_what_is_expected():
    """A frame for each blind spot, a broken one for each role that is turned round; every number is written."""
    roles, methods = ["causal", "dead"], ["one", "two", "three"]
    areas = pd.DataFrame([[1.0, 0.5, 0.0], [0.9, 0.4, 0.25]], roles, methods)
    shares = pd.DataFrame([[0.01, 0.5, 1.0]], ["noise"], methods)
    drawn = figures.benchmark(
        areas, shares, {"two": {"dead": "blind", "causal": "found"}, "three": {"causal": "misled"}}, (3, 7)
    )
    upper, lower = drawn.axes
    framed = {(patch.get_x(), patch.get_y()): patch.get_linestyle() for patch in upper.patches}
    assert {
        (round(x + 0.44), round(y + 0.42)): style == "-" or style == "solid" for (x, y), style in framed.items()
    } == {
        (1, 1): True,
        (2, 0): False,
    }
    assert [text.get_text() for text in upper.texts][:6] == ["1.00", "0.50", "0.00", "0.90", "0.40", "0.25"]
    assert "7 worlds" in lower.get_title(loc="left") and "3 worlds" in upper.get_title(loc="left")


def test_the_figure_is_there_and_small():
    path = ROOT / "docs" / "figures" / "benchmark.png"
    assert path.stat().st_size <= 300_000
    with Image.open(path) as figure:
        assert figure.width > 1500


# ---- a method of one's own


def test_the_page_s_own_method_finds_all_roles(tmp_path):
    """Its block is put into the file that the page names, and scored as the page says."""
    (name,) = re.findall(r"^`([\w.]+)`:\n\n```python$", PAGE, re.MULTILINE)
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert f"\n    make benchmark METHOD={name}\n" in PAGE
    (tmp_path / name).write_text(block)
    before = PAGE
    words = [sys.executable, "-m", "commands.benchmark", "--processes", "1", "--worlds", "4", "--null", "4"]
    done = ran([*words, "--method", tmp_path / name], env={"PYTHONPATH": str(ROOT / "workflow")}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^    (\w+) +(\d\.\d{3}) \(", done.stdout, re.MULTILINE))
    assert list(found) == list(ROLES)
    assert all(float(mean) >= BOUNDS["found"][0] for mean in found.values())
    null = re.findall(r"^    ([\w ]+?) +(\d\.\d{3})$", done.stdout, re.MULTILINE)
    assert [(role, float(share)) for role, share in null] == [(role, 0) for role in (*NULL_ROLES, command.ANY)]
    assert (ROOT / "docs" / "benchmark.md").read_text() == before


def test_make_takes_a_method():
    done = ran(["make", "-n", "benchmark", "METHOD=mine.py"], cwd=ROOT, check=True)
    assert '-m commands.benchmark --method "mine.py"' in done.stdout
    done = ran(["make", "-n", "benchmark"], cwd=ROOT, check=True)
    assert "--method" not in done.stdout


def test_a_file_without_methods_is_refused(tmp_path):
    """Imported functions and helpers are no methods."""
    file = tmp_path / "mine.py"
    with pytest.raises(StudyError, match=r"mine\.py: there is no such file"):
        command.of_file(file)
    file.write_text("from numpy import abs\nfrom shutil import copy\n\ndef _helper(bench):\n    return 0\n")
    with pytest.raises(StudyError, match=r"mine\.py: defines no function; a method is a function of a Bench"):
        command.of_file(file)
    file.write_text("def one(bench):\n    return 0\n\ndef two(bench):\n    return 1\n")
    assert list(command.of_file(file)) == ["one", "two"]


def test_a_method_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def short(bench):\n    return [1.0]\n")
    words = ["--method", str(tmp_path / "mine.py"), "--worlds", "1", "--null", "1", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", ["make benchmark", *words])
    monkeypatch.setattr(command, "_own", {})
    with pytest.raises(SystemExit, match=r"error: short: a method gives a number for each unit, \[320\], not \[1\]"):
        command.main()
