"""Groups: from a name to units, by the grid of all images or of those outside a fold, or by a draw."""

import numpy as np
import pyarrow as pa
import pytest

from jobs import cells as cells_job
from jobs import groups as job
from readout import StudyError, groups
from readout import cells as grid
from runtime import parquet

AT = {"network": "net", "layer": "conv1", "class_id": "a", "seed": 0}


def test_a_random_group_is_a_draw_without_repeats():
    """As many units of the layer as asked for, once each, ascending."""
    for size in (1, 7, 39, 40):
        group = groups.random("random0", 40, size, "x")
        assert (group.name, group.kind, group.layer_units) == ("random0", "random", 40)
        assert len(set(group.units.tolist())) == len(group.units) == size
        assert np.array_equal(group.units, np.sort(group.units))
        assert set(group.units.tolist()) <= set(range(40))


@pytest.mark.parametrize("size", [0, -1, 41])
def test_a_random_group_of_no_or_too_many_units_is_an_error(size):
    with pytest.raises(StudyError, match=f"a random group of {size} units needs as many, the layer has 40"):
        groups.random("random0", 40, size, "x")


def test_every_unit_is_drawn_equally_often():
    """Over 3000 names, 10 of 40: each is expected 750 times with a deviation of 23.7; five deviations are allowed."""
    count = np.zeros(40)
    for name in groups.random_names(3000):
        count[groups.random(name, 40, 10, "x").units] += 1
    assert count.sum() == 30_000
    assert np.abs(count - 750).max() < 5 * np.sqrt(3000 * 0.25 * 0.75)


def test_pairs_of_units_are_drawn_equally_often():
    """A draw of neighbours would pass the test above: over 3000 names, each pair is expected in 10 * 9 / (40 * 39) of them."""
    together = np.zeros((40, 40))
    for name in groups.random_names(3000):
        units = groups.random(name, 40, 10, "x").units
        together[np.ix_(units, units)] += 1
    expected = 3000 * 10 * 9 / (40 * 39)
    pairs = together[np.triu_indices(40, 1)]
    assert np.abs(pairs - expected).max() < 5 * np.sqrt(expected)


def test_names_of_random_groups_do_not_depend_on_their_number():
    """A group more leaves the others as they are."""
    assert groups.random_names(0) == ()
    assert groups.random_names(3) == ("random0", "random1", "random2") == groups.random_names(11)[:3]
    assert len(set(groups.random_names(11))) == 11


# The toy's grid, as test_cells has it on paper.
S, M = [1, 0, 0, 1, 1, 0, 1, 0], [1, 1, 0, 0, 1, 1, 0, 0]
UNITS = {"s0m0": [2, 7], "s0m1": [1, 5], "s1m0": [3, 6], "s1m1": [0, 4]}


def write_grid(path, fold=None, **changes):
    """A table of cells, by hand; `fold` are the names in a column `cell_fold2`, `changes` are columns."""
    columns = dict.fromkeys(cells_job.SCHEMA.names, [0] * len(S)) | {"unit": list(range(len(S)))}
    columns |= {"cell": [f"s{s}m{m}" for s, m in zip(S, M, strict=True)], "selectivity_bin": S, "magnitude_bin": M}
    schema = cells_job.SCHEMA
    if fold is not None:
        columns["cell_fold2"], schema = fold, schema.append(pa.field("cell_fold2", pa.string()))
    # Written within one tick of the clock, files of one size would be taken for the same.
    job.cache._store.clear()
    parquet.write(path, columns | changes, schema)


@pytest.fixture
def path(tmp_path):
    write_grid(tmp_path / "a.parquet")
    return str(tmp_path / "a.parquet")


@pytest.mark.parametrize("cell", UNITS)
def test_a_cells_units_by_hand(path, cell):
    group = job.find(path, cell, "cell", **AT)
    assert (group.name, group.kind, group.layer_units) == (cell, "cell", 8)
    assert group.units.tolist() == UNITS[cell]


def test_the_units_of_a_grid_of_any_size(tmp_path):
    """More than nine bins, so that names are not told apart by their length; each cell's units are in order."""
    generator = np.random.default_rng(0)
    selectivity, magnitude = (generator.normal(size=500).astype(np.float32) for _ in range(2))
    s, m = grid.grid(selectivity, magnitude, (11, 12))
    columns = dict.fromkeys(cells_job.SCHEMA.names, [0] * 500) | {"unit": range(500)}
    columns |= {"cell": [f"s{i}m{j}" for i, j in zip(s, m, strict=True)], "selectivity_bin": s, "magnitude_bin": m}
    parquet.write(tmp_path / "a.parquet", columns, cells_job.SCHEMA)
    for i in range(11):
        for j in range(12):
            found = job.find(tmp_path / "a.parquet", f"s{i}m{j}", "cell", **AT).units
            assert found.tolist() == np.flatnonzero((s == i) & (m == j)).tolist()


def test_a_fold_has_a_grid_of_its_own(tmp_path):
    """Here its cells are those of all images, turned round; the other columns are of all images."""
    path = str(tmp_path / "a.parquet")
    turned = {"s0m0": "s1m1", "s0m1": "s1m0", "s1m0": "s0m1", "s1m1": "s0m0"}
    write_grid(path, fold=[turned[f"s{s}m{m}"] for s, m in zip(S, M, strict=True)])
    for cell, units in UNITS.items():
        assert job.find(path, cell, "cell", **AT).units.tolist() == units
        assert job.find(path, turned[cell], "cell", **AT, fold=2).units.tolist() == units
    with pytest.raises(StudyError, match=r"a\.parquet: column cell_fold1 \(string\) is missing"):
        job.find(path, "s0m0", "cell", **AT, fold=1)


@pytest.mark.parametrize(
    "fold", [["s0m0"] * 8, ["s0m0", "s0m1", "s1m0", "s1m2"] * 2, [*["s0m0", "s0m1", "s1m0"] * 2, "s0m0", "s0m1"]]
)
def test_a_folds_grid_has_every_cell_of_the_grid(tmp_path, fold):
    path = str(tmp_path / "a.parquet")
    write_grid(path, fold=fold)
    with pytest.raises(StudyError, match=r"a\.parquet: the cells are no grid; make it again"):
        job.find(path, "s0m0", "cell", **AT, fold=2)
    # The grid of all images is sound.
    assert job.find(path, "s0m0", "cell", **AT).units.tolist() == UNITS["s0m0"]


def test_bins_below_zero_are_no_grid_for_a_fold_either(tmp_path):
    """The fold's own cells are sound here; how many there should be is told by the bins."""
    path = str(tmp_path / "a.parquet")
    write_grid(path, fold=[f"s{s}m{m}" for s, m in zip(S, M, strict=True)], selectivity_bin=[-1, *S[1:]])
    with pytest.raises(StudyError, match=r"a\.parquet: the cells are no grid; make it again"):
        job.find(path, "s0m0", "cell", **AT, fold=2)


NAMES = [f"s{s}m{m}" for s, m in zip(S, M, strict=True)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # All units of s1m1 are in s0m0, in name and bins.
        (
            {
                "cell": [name.replace("s1m1", "s0m0") for name in NAMES],
                "selectivity_bin": [s * (1 - m) for s, m in zip(S, M, strict=True)],
                "magnitude_bin": [m * (1 - s) for s, m in zip(S, M, strict=True)],
            },
            "the cells are no grid",
        ),
        ({"cell": [*NAMES[1:], NAMES[0]]}, "the cells are no grid"),
        ({"cell": [*NAMES[:7], "s0m2"]}, "the cells are no grid"),
        ({"cell": [*NAMES[:7], "random0"]}, "the cells are no grid"),
        ({"cell": [*NAMES[:7], None]}, "column cell lacks values"),
        ({"selectivity_bin": [1 - s for s in S]}, "the cells are no grid"),
        ({"magnitude_bin": [0, *M[1:]]}, "the cells are no grid"),
        ({"selectivity_bin": [-1, *S[1:]]}, "the cells are no grid"),
        ({"selectivity_bin": [s + 1 for s in S], "cell": [f"s{s + 1}m{m}" for s, m in zip(S, M, strict=True)]}, "no grid"),
        ({"magnitude_bin": [*M[:7], None]}, "column magnitude_bin lacks values"),
        ({"unit": [1, 0, *range(2, 8)]}, "the units are not in order"),
        ({"unit": [0, *range(7)]}, "the units are not in order"),
        ({"unit": list(range(1, 9))}, "the units are not in order"),
    ],
)  # fmt: skip
def test_a_table_that_is_no_grid_is_refused(tmp_path, changes, words):
    """By its name, for a random group as for a cell: the size of one follows from the grid."""
    path = str(tmp_path / "a.parquet")
    write_grid(path, **changes)
    for group, kind in (("s0m0", "cell"), ("random0", "random")):
        with pytest.raises(StudyError, match=rf"a\.parquet: .*{words}.*make it again"):
            job.find(path, group, kind, **AT)


@pytest.mark.parametrize("group", ["s2m0", "s0m2", "random0", "s0m0 ", ""])
def test_a_cell_that_is_not_there_is_an_error(path, group):
    with pytest.raises(
        StudyError,
        match=rf"a\.parquet: no unit is in {group}; there are s0m0, .*controls\.random says; or make it again",
    ):
        job.find(path, group, "cell", **AT)


def test_a_changed_table_is_read_anew(path):
    """What is shared within a process is known by the file's size and time."""
    assert job.find(path, "s0m0", "cell", **AT).units.tolist() == [2, 7]
    s = [1 - s for s in S]
    write_grid(path, cell=[f"s{i}m{j}" for i, j in zip(s, M, strict=True)], selectivity_bin=s)
    assert job.find(path, "s0m0", "cell", **AT).units.tolist() == UNITS["s1m0"]


def test_a_grids_random_groups_have_a_cells_size(tmp_path):
    """Rounded down: 13 units in 2 x 3 cells are 2 for each group, where one cell has 3."""
    s, m = grid.grid(np.arange(13, dtype=np.float32), np.arange(13, dtype=np.float32), (2, 3))
    columns = dict.fromkeys(cells_job.SCHEMA.names, [0] * 13) | {"unit": range(13)}
    columns |= {"cell": [f"s{i}m{j}" for i, j in zip(s, m, strict=True)], "selectivity_bin": s, "magnitude_bin": m}
    parquet.write(tmp_path / "a.parquet", columns, cells_job.SCHEMA)
    group = job.find(tmp_path / "a.parquet", "random0", "random", **AT)
    assert (group.kind, group.layer_units, len(group.units)) == ("random", 13, 2)


def test_random_groups_depend_on_coordinates_seed_and_name_alone(tmp_path):
    """On neither the file nor the images: the same with other cells, and in every fold."""
    path, other = str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")
    large = {name: np.repeat(column, 100) for name, column in (("selectivity_bin", S), ("magnitude_bin", M))}
    large |= {"unit": range(800), "cell": np.repeat(NAMES, 100)}
    for file, names in ((path, large["cell"]), (other, large["cell"])):
        columns = dict.fromkeys(cells_job.SCHEMA.names, [0] * 800) | large
        if file == other:
            columns |= {name: large[name][::-1] for name in ("cell", "selectivity_bin", "magnitude_bin")}
        schema = cells_job.SCHEMA.append(pa.field("cell_fold2", pa.string()))
        parquet.write(file, columns | {"cell_fold2": np.roll(names, 100)}, schema)

    def find(file=path, name="random0", **changes):
        return job.find(file, name, "random", **AT | changes).units.tolist()

    first = find()
    assert find() == find(other) == find(fold=2) == first
    changed = [{"seed": 1}, {"network": "n"}, {"layer": "conv2"}, {"class_id": "b"}, {"name": "random1"}]
    # Names are told apart where one ends and the next begins.
    changed += [{"network": "netc", "layer": "onv1"}, {"layer": "conv1a", "class_id": ""}]
    assert len({tuple(first), *(tuple(find(**change)) for change in changed)}) == 1 + len(changed)
