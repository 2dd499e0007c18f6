"""The module that opens a finished study: its frames against the files, what it reads, its messages, its page, its wheel."""

import json
import os
import re
import shutil
import sys
import tomllib
import zipfile
from importlib.metadata import distribution

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

import notebook
from commands import verify
from readout.verdicts import conclusions
from readout_study import Study, StudyError, open_study
from workflow import ROOT, ran

of_a_study = pytest.mark.workflow
GRID = ("alexnet", "conv5", "0")
CELL = (*GRID, "s3m3")
PLACE = "alexnet/conv5/0"


@pytest.fixture(scope="module")
def study(finished):
    return open_study(finished.results)


@pytest.fixture
def copied(finished, tmp_path):
    """The results alone, elsewhere and under another name, to change something in."""
    return shutil.copytree(finished.results, tmp_path / "on a stick" / "of last year")


def values(column):
    """The values of a column, of a frame or of Arrow, as Python has them; lists too, None for what is missing."""
    found = []
    for value in column.tolist() if isinstance(column, pd.Series) else column.to_pylist():
        if isinstance(value, list | np.ndarray):
            found.append([None if each != each else each for each in value])
        else:
            found.append(None if value is None or value is pd.NA or value != value else value)
    return found


def rewrite(path, change=lambda table: table, **metadata):
    """Write a file anew, changed, with other things said of what made it."""
    table = pq.ParquetFile(path).read()
    made = json.loads(table.schema.metadata[b"readout"]) | metadata
    pq.write_table(change(table).replace_schema_metadata({b"readout": json.dumps(made)}), path)


# ---- frames


@of_a_study
@pytest.mark.parametrize(
    ("file", "asked"),
    [
        ("images.parquet", lambda s: s.images()),
        ("networks/alexnet/layers.parquet", lambda s: s.layers("alexnet")),
        ("others/alexnet.parquet", lambda s: s.others("alexnet")),
        ("baseline/alexnet/3.parquet", lambda s: s.baseline("alexnet", "3")),
        (f"cells/{PLACE}.parquet", lambda s: s.units(*GRID)),
        (f"ablations/{PLACE}/s3m3.parquet", lambda s: s.images(*CELL)),
        (f"importance/{PLACE}/units.parquet", lambda s: s.importance(*GRID)),
        ("tables/cells.parquet", lambda s: s.cells()),
        ("tables/groups.parquet", lambda s: s.groups()),
        ("tables/measures.parquet", lambda s: s.measures()),
        ("tables/redundancy.parquet", lambda s: s.redundancy()),
        ("faithfulness.parquet", lambda s: s.faithfulness()),
        ("claims.parquet", lambda s: s.claims()),
        ("pseudo/alexnet/conv5/pseudo0.parquet", lambda s: s.table("pseudo/alexnet/conv5/pseudo0.parquet")),
    ],
)
def test_a_frame_is_its_file(finished, study, file, asked):
    """Each value of each column, in the file's order; numbers are of its types where none is missing."""
    table, frame = pq.ParquetFile(finished.results / file).read(), asked(study)
    assert frame.columns.tolist() == table.column_names
    assert len(frame) == len(table) > 0
    for name in table.column_names:
        assert values(frame[name]) == values(table[name]), name
        kind = table.schema.field(name).type
        if pa.types.is_primitive(kind) and not table[name].null_count:
            assert frame[name].dtype == kind.to_pandas_dtype(), name


@of_a_study
def test_whole_numbers_and_marks_stay_so_where_some_are_missing(study):
    """Only ranked groups have a share of the layer's units; only gains can be found."""
    groups = study.groups()
    assert groups["one_in"].dtype == "Int32"
    assert groups["one_in"].notna().equals(groups["kind"] == "ranked")
    found = study.faithfulness()["found"]
    assert found.dtype == "boolean" and found.isna().any() and found.notna().any()


@of_a_study
def test_accuracy_is_of_all_networks(finished, study):
    path = finished.results / "networks" / "alexnet" / "accuracy.parquet"
    assert study.accuracy().to_dict("records") == [
        {"network": "alexnet"} | row for row in pq.ParquetFile(path).read().to_pylist()
    ]


@of_a_study
def test_a_study_of_two_networks(copied):
    """The same network under another name, right half as often; each has settings of its own, which do not mix up."""

    def twice(table):
        other = table.set_column(0, table.schema.field(0), pa.array(["other"] * len(table)))
        return pa.concat_tables([table, other.filter(pa.array([name != "dense1" for name in values(table["layer"])]))])

    def halved(table):
        return table.set_column(1, "top1", pa.array([each / 2 for each in values(table["top1"])]))

    rewrite(copied / "tables" / "cells.parquet", twice)
    for folder in ("networks", "cells"):
        shutil.copytree(copied / folder / "alexnet", copied / folder / "other")
    rewrite(copied / "networks" / "other" / "accuracy.parquet", halved)
    rewrite(copied / "cells" / "other" / "conv5" / "0.parquet", settings="0123456789abcdef")
    study = open_study(copied)
    assert study.networks == ["alexnet", "other"]
    accuracy = study.accuracy()
    assert accuracy["network"].tolist() == ["alexnet"] * 2 + ["other"] * 2
    assert (accuracy["top1"][2:].to_numpy() * 2 == accuracy["top1"][:2].to_numpy()).all()
    assert len(study.grids()) == 6 + 4
    assert study.units(*GRID).equals(study.units("other", "conv5", "0"))
    refused(
        lambda: study.units("other", "dense1", "0"), "layer: 'dense1' is not in other's studied layers; did you mean"
    )


@of_a_study
def test_held_out_is_what_the_file_of_the_probe_says(finished, study):
    (row,) = pq.ParquetFile(finished.results / "probes" / PLACE / "s3m3.parquet").read().to_pylist()
    found = study.held_out(*CELL)
    assert found.to_dict("records") == row["held_out"]
    # Images of the target, and as many of each of three others.
    assert len(found) == 80 and found["y"].sum() == 20


@of_a_study
def test_verdicts_are_those_of_the_page_of_claims(finished, study):
    """The other way to them, on which README's table depends."""
    registry = yaml.safe_load((ROOT / "workflow" / "claims.yaml").read_text())["claims"]
    rows = pq.ParquetFile(finished.results / "claims.parquet").read().to_pylist()
    expected = {each.claim: each for each in conclusions(rows, registry)}
    found = study.verdicts()
    assert found.index.tolist() == sorted(expected)
    for claim, row in found.iterrows():
        theirs = expected[claim]
        assert (row["statement"], row["published"], row["corrected"]) == (
            theirs.statement,
            theirs.published,
            theirs.corrected,
        )
        assert values(row[["confirmation"]]) == [theirs.confirmation]
        shown = ["part", "outcome", "intervention", "estimate", "ci_low", "ci_high", "reason"]
        assert values(row[shown]) == values(pd.Series([theirs.row[name] for name in shown], dtype=object))


@of_a_study
def test_a_study_says_what_it_is(finished, study):
    assert (study.name, study.path, study.networks) == ("tiny", finished.results, ["alexnet"])
    assert study.tables == ["cells", "claims", "groups", "measures", "redundancy", "faithfulness"]
    # Its layers by their depth: those that are studied are the last three of seven.
    depth = {"conv5": 4, "dense1": 5, "dense2": 6}
    rows = [{"network": "alexnet", "layer": name, "depth": depth[name], "class_id": t} for name in depth for t in "01"]
    assert study.grids().to_dict("records") == rows
    assert repr(study) == (
        f"study tiny in {finished.results}\n"
        "  alexnet: layers conv5, dense1, dense2; targets 0, 1\n"
        "  cells: s0m0 to s3m3, 16 in a grid\n"
        "  tables: cells, claims, groups, measures, redundancy, faithfulness"
    )


@of_a_study
def test_every_table_of_a_study_has_a_method(study):
    assert {name for name in study.tables if len(getattr(study, name)()) == 0} == set()


@of_a_study
def test_a_copy_elsewhere_is_the_same_study(copied, study, monkeypatch):
    """Whatever its folder is called, by a relative path, and with nothing of the project beside it."""
    monkeypatch.chdir(copied.parent)
    found = open_study("of last year")
    assert found.name == "tiny"
    pd.testing.assert_frame_equal(found.cells(), study.cells())
    assert found.made("claims.parquet")["study"] == "tiny"


# ---- activations


def activation(results, layer="dense2", class_id="3"):
    """The activations in a file [images, units], and the images' numbers."""
    table = pq.ParquetFile(results / "activations" / "alexnet" / layer / f"{class_id}.parquet").read()
    return np.array(table["activation"].to_pylist(), dtype=np.float32), table["image_id"].to_pylist()


@of_a_study
def test_activations_are_those_of_the_file(finished, study):
    """Of any class of the network, target or not."""
    expected, images = activation(finished.results)
    found = study.activations("alexnet", "dense2", "3")
    assert (found.index.name, found.columns.name) == ("image_id", "unit")
    assert found.index.tolist() == images and found.columns.tolist() == list(range(expected.shape[1]))
    assert set(found.dtypes) == {np.dtype("float32")}
    assert np.array_equal(found.to_numpy(), expected)


@of_a_study
@given(data=st.data())
def test_some_units_are_columns_of_all(study, data):
    """In the order in which they are asked for, as numbers or as marks."""
    everything = study.activations("alexnet", "dense2", "1")
    units = data.draw(st.lists(st.integers(0, everything.shape[1] - 1), min_size=1, unique=True))
    some = study.activations("alexnet", "dense2", "1", units=units)
    pd.testing.assert_frame_equal(some, everything[units])
    marks = everything.columns.isin(units)
    pd.testing.assert_frame_equal(study.activations("alexnet", "dense2", "1", units=marks), everything[sorted(units)])


@of_a_study
def test_the_units_of_a_cell_have_the_means_of_the_grid(study):
    """Means are of what the network computed, which float32 keeps."""
    grid = study.units(*GRID)
    found = study.activations(*GRID, units=grid["cell"] == "s3m3")
    members = grid[grid["cell"] == "s3m3"].set_index("unit")
    assert found.columns.tolist() == members.index.tolist()
    assert found.mean().to_numpy() == pytest.approx(members["target_mean"].to_numpy(), rel=1e-5)


@of_a_study
def test_activations_in_several_parts_are_one_frame(copied):
    """Row groups of seven images, in which pages hold fewer; and of a whole group what is wanted alone is kept."""
    path = copied / "activations" / "alexnet" / "conv5" / "0.parquet"
    expected, images = activation(copied, "conv5", "0")
    table = pq.ParquetFile(path).read()
    pq.write_table(table, path, row_group_size=7)
    assert pq.ParquetFile(path).num_row_groups == 3
    study = open_study(copied)
    found = study.activations(*GRID, units=[5, 2])
    assert np.array_equal(found.to_numpy(), expected[:, [5, 2]])
    assert found.index.tolist() == images


READS = """
import pyarrow as pa, sys
from readout_study import open_study

study = open_study(sys.argv[1])
frame = study.activations("alexnet", "conv5", "0", units=[1])
print(len(frame), pa.default_memory_pool().max_memory())
"""


@of_a_study
def test_units_that_are_not_wanted_take_no_memory(copied):
    """Forty row groups of 2 MB, of which a process that asks for one unit holds a few at once, not all 80 MB."""
    path = copied / "activations" / "alexnet" / "conv5" / "0.parquet"
    units, images = 1 << 18, 80
    table = pq.ParquetFile(path).read()
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), units)
    drawn = np.random.default_rng(0).random(images * units, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(drawn), type=kind)
    schema = table.schema.set(2, pa.field("activation", kind, nullable=False))
    columns = [pa.array(range(images), pa.int32()), pa.array([0] * images, pa.int8()), column]
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=2, use_dictionary=False)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    done = ran([sys.executable, "-c", READS, copied], check=True, env=environment)
    rows, most = map(int, done.stdout.split())
    assert rows == images
    assert most < 20 << 20


@of_a_study
def test_half_precision_stays(copied):
    path = copied / "activations" / "alexnet" / "dense2" / "3.parquet"
    expected, _ = activation(copied)

    def halved(table):
        kind = pa.list_(pa.field("element", pa.float16(), nullable=False), expected.shape[1])
        flat = pa.array(expected.astype(np.float16).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, type=kind)
        return table.set_column(2, pa.field("activation", kind, nullable=False), column)

    rewrite(path, halved)
    found = open_study(copied).activations("alexnet", "dense2", "3", units=[1])
    assert set(found.dtypes) == {np.dtype("float16")}
    assert np.array_equal(found[1].to_numpy(), expected[:, 1].astype(np.float16))


# ---- messages


def refused(call, *pieces):
    """The message of a StudyError that shows nothing of what is below it."""
    with pytest.raises(StudyError) as raised:
        call()
    # A notebook shows neither what a message is raised from nor what it is raised in.
    error = raised.value
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    message = str(error)
    for piece in pieces:
        assert piece in message, message
    return message


@of_a_study
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s: s.units("alexnt", "conv5", "0"),
            "network: 'alexnt' is not in study tiny; did you mean 'alexnet'? There is alexnet",
        ),
        (
            lambda s: s.layers("vgg16"),
            "network: 'vgg16' is not in study tiny; there is alexnet",
        ),
        (
            lambda s: s.activations("alexnet", "conv4", "0"),
            "layer: 'conv4' is not in alexnet's studied layers; did you mean 'conv5'? There are conv5, dense1, dense2",
        ),
        (
            lambda s: s.units("alexnet", "conv5", "3"),
            "class_id: '3' is not in the targets of alexnet; there are 0, 1",
        ),
        (
            lambda s: s.units("alexnet", "conv5", 1),
            "class_id: 1 is not in the targets of alexnet; names are text; did you mean '1'? There are 0, 1",
        ),
        (
            lambda s: s.activations("alexnet", "conv5", "9"),
            "class_id: '9' is not in the classes of alexnet; there are 0, 1, 2, 3",
        ),
        (lambda s: s.baseline("alexnet", "33"), "did you mean '3'?"),
        (lambda s: s.images(*GRID, "s4m3"), "cell: 's4m3' is not in the grid of alexnet conv5 0; did you mean 's3m3'"),
        (lambda s: s.held_out(*GRID, "s4m3"), "There are s0m0, s0m1, "),
        (lambda s: s.images(*GRID), "images: give network, layer, class_id and cell, or none"),
        (lambda s: s.table("tables/cell.parquet"), "did you mean 'tables/cells.parquet'"),
        (lambda s: s.table("cells"), "table: 'cells' is not in study tiny; "),
        (lambda s: s.table("../tiny/claims.parquet"), "name a table by its path below"),
        (lambda s: s.table("/claims.parquet"), "name a table by its path below"),
        (lambda s: s.table("claims.parquet", ["verdit"]), "did you mean 'verdict'"),
        (lambda s: s.activations(*GRID, units="s3m3"), "units: 's3m3' is no list of units"),
        (lambda s: s.activations(*GRID, units=5), "units: 5 is no list of units"),
        (lambda s: s.activations(*GRID, units=[]), "no unit of alexnet conv5 is asked for; leave `units` out for all"),
        (lambda s: s.activations("alexnet", "dense2", "0", units=[True]), "has 256 units, but there are 1 marks"),
        (lambda s: s.activations("alexnet", "dense2", "0", units=[0, 256]), "has no unit 256; its units are 0 to 255"),
        (lambda s: s.activations("alexnet", "dense2", "0", units=[-1]), "has no unit -1; its units are 0 to 255"),
        (lambda s: s.activations("alexnet", "dense2", "0", units=[4, 2, 4]), "unit 4 of alexnet dense2 is asked for twice"),
        (lambda s: s.activations("alexnet", "dense2", "0", units=[1.0]), "are whole numbers, 0 to 255, not 1.0"),
        (lambda s: s.shapley(), "by the setting `ablations.shapley` (docs/tables.md); there are cells, claims, groups"),
        (lambda s: s.legibility(), "legibility.parquet: study tiny has no such table; a study has it by the setting `occ"),
        (lambda s: s.sensitivity(), "by the command `snakemake --cores 4 sensitivity`"),
        (
            lambda s: s.importance("alexnet", "dense2", "0"),
            "kept on demand, of alexnet, conv5, 0 so far; where the study was made, run: snakemake --cores 4 "
            "results/tiny/importance/alexnet/dense2/0/units.parquet",
        ),
    ],
)  # fmt: skip
def test_a_name_that_is_not_there_is_told_with_the_nearest(study, call, message):
    refused(lambda: call(study), message)


def test_what_is_no_study_is_told(tmp_path):
    """With the studies that are near."""
    refused(lambda: open_study(tmp_path / "digits"), f"{tmp_path / 'digits'}: no such folder; a study's results lie in")
    refused(
        lambda: open_study(tmp_path), f"{tmp_path}: is not the folder of a study, for it has no images.parquet; a s"
    )
    (tmp_path / "digits" / "figures").mkdir(parents=True)
    (tmp_path / "digits" / "images.parquet").touch()
    file = tmp_path / "digits" / "images.parquet"
    refused(lambda: open_study(file), f"{file}: is a file; name the folder")
    refused(lambda: open_study(tmp_path / "digit"), f"no such folder; these are: {tmp_path / 'digits'}")
    refused(lambda: open_study(str(tmp_path)), "is not the folder of a study", f"these are: {tmp_path / 'digits'}")
    refused(lambda: open_study(tmp_path / "digits" / "figures"), f"it lies in that of a study: {file.resolve().parent}")


OPENED = ("images.parquet", "tables/cells.parquet", "claims.parquet")
"""Files without which a study is not finished."""
ASKED = {
    "tables/groups.parquet": lambda s: s.groups(),
    "tables/measures.parquet": lambda s: s.measures(),
    "tables/redundancy.parquet": lambda s: s.redundancy(),
    "faithfulness.parquet": lambda s: s.faithfulness(),
    "networks/alexnet/accuracy.parquet": lambda s: s.accuracy(),
    "networks/alexnet/layers.parquet": lambda s: s.layers("alexnet"),
    "others/alexnet.parquet": lambda s: s.others("alexnet"),
    f"cells/{PLACE}.parquet": lambda s: s.units(*GRID),
    f"ablations/{PLACE}/s3m3.parquet": lambda s: s.images(*CELL),
    f"probes/{PLACE}/s3m3.parquet": lambda s: s.held_out(*CELL),
    f"activations/{PLACE}.parquet": lambda s: s.activations(*GRID),
}


@of_a_study
@pytest.mark.parametrize("file", OPENED)
def test_a_study_that_is_not_finished_is_told(finished, tmp_path, file):
    """The file that is missing, and what makes it where the study was made."""
    copied = shutil.copytree(finished.results, tmp_path / "tiny", ignore=shutil.ignore_patterns("activations"))
    (copied / file).unlink()
    refused(
        lambda: open_study(copied),
        f"{copied / file}: no such file: the study is not finished",
        f"snakemake --cores 4 results/tiny/{file} (and the study's --configfile)",
    )


@of_a_study
@pytest.mark.parametrize("file", ASKED)
def test_a_file_that_is_missing_is_told(copied, file):
    """A table that the study should have, since what it is gathered from is there, is not one that it does not have."""
    study = open_study(copied)
    ASKED[file](study)
    (copied / file).unlink()
    refused(
        lambda: ASKED[file](study),
        f"{copied / file}: no such file: the study is not finished, or this was not copied",
        f"snakemake --cores 4 results/tiny/{file} (and the study's --configfile)",
    )


@of_a_study
def test_the_commands_in_messages_are_known_to_snakemake(finished):
    """Files that the study's rules make, by their paths from where Snakemake is run."""
    finished.run("--dry-run", "--force", *(f"results/tiny/{file}" for file in (*OPENED, *ASKED)))
    finished.fail("--dry-run", "results/tiny/tables/cell.parquet")


@of_a_study
def test_classes_that_were_not_copied_are_files_that_are_missing(copied):
    """No list of no names."""
    shutil.rmtree(copied / "baseline")
    study = open_study(copied)
    refused(lambda: study.baseline("alexnet", "3"), "baseline/alexnet/3.parquet: no such file")
    assert len(study.activations("alexnet", "conv5", "3", units=[0])) == 20


@of_a_study
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("a,b\n1,2\n"),
    ],
    ids=["without its end", "a beginning", "empty", "text"],
)
@pytest.mark.parametrize(
    ("file", "call"),
    [
        ("images.parquet", lambda s: s.images()),
        ("tables/cells.parquet", lambda s: s.cells()),
        (f"activations/{PLACE}.parquet", lambda s: s.activations(*GRID, units=[0])),
    ],
    ids=["images", "cells", "activations"],
)
def test_a_broken_file_is_told(copied, damage, file, call):
    """With the command that makes it anew; nothing of Arrow but its reason."""
    study = open_study(copied)
    damage(copied / file)
    refused(
        lambda: call(study),
        f"{copied / file}: cannot be read (",
        f"make it again where the study was made: snakemake --cores 4 --force results/tiny/{file} (and the study's",
    )
    if "activations" not in file:
        refused(lambda: open_study(copied), f"{copied / file}: cannot be read (")


@of_a_study
def test_a_changed_number_in_a_file_is_told(copied):
    """By its page's checksum: without it the activation would be another one."""
    path = copied / f"activations/{PLACE}.parquet"
    study = open_study(copied)
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    at = column.data_page_offset + column.total_compressed_size // 2
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    refused(lambda: study.activations(*GRID), f"{path}: cannot be read (", "--force")


@of_a_study
def test_text_that_is_none_is_told(copied):
    """Bytes that are no UTF-8, which Arrow's reader lets through."""
    path = copied / "claims.parquet"
    study = open_study(copied)

    def spoilt(table):
        buffers = pa.array(["holds"] * len(table)).buffers()
        content = pa.py_buffer(b"\xff" * buffers[2].size)
        column = pa.StringArray.from_buffers(len(table), buffers[1], content)
        return table.set_column(table.column_names.index("verdict"), "verdict", column)

    rewrite(path, spoilt)
    refused(study.claims, f"{path}: cannot be read (", "UTF8", "--force results/tiny/claims.parquet")


@pytest.fixture(scope="module")
def breakable(finished, tmp_path_factory):
    """A study of which no more is there than it takes to open it."""
    folder = tmp_path_factory.mktemp("breakable")
    (folder / "tables").mkdir()
    for file in ("images.parquet", "claims.parquet", "tables/cells.parquet"):
        shutil.copy(finished.results / file, folder / file)
    return folder


@of_a_study
@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_whatever_byte_is_broken_nothing_but_a_message_comes(finished, breakable, at, value):
    """A file that can still be read, or a StudyError; never Arrow's own error."""
    path = breakable / "claims.parquet"
    content = bytearray((finished.results / "claims.parquet").read_bytes())
    content[at % len(content)] = value
    path.write_bytes(content)
    study = open_study(breakable)
    for call in (study.claims, study.verdicts):
        try:
            call()
        except StudyError as error:
            assert str(path) in str(error)


@of_a_study
def test_tables_of_two_studies_do_not_mix(copied):
    """A file of another study; one that no study wrote; a folder whose list of images is of another study."""
    claims = copied / "claims.parquet"
    rewrite(claims, study="digits")
    study = open_study(copied)
    refused(
        study.claims,
        f"{claims}: is of study digits, but the folder is of tiny, and these do not mix",
        "--force results/tiny/claims.parquet",
    )
    table = pq.ParquetFile(copied / "tables" / "groups.parquet").read()
    for metadata in ({}, {b"readout": b"{}"}, {b"readout": b"[]"}, {b"readout": b"{"}):
        pq.write_table(table.replace_schema_metadata(metadata), copied / "tables" / "groups.parquet")
        refused(study.groups, "groups.parquet: does not say what made it, so that it was not written by a study")
    rewrite(copied / "images.parquet", study="digits")
    refused(lambda: open_study(copied), "cells.parquet: is of study tiny, but the folder is of digits")


@of_a_study
@pytest.mark.parametrize(
    ("file", "call"),
    [
        ("cells/alexnet/dense2/1.parquet", lambda s, layer, target: s.units("alexnet", layer, target)),
        ("activations/alexnet/dense2/1.parquet", lambda s, layer, target: s.activations("alexnet", layer, target)),
        ("ablations/alexnet/dense2/1/s0m0.parquet", lambda s, layer, target: s.images("alexnet", layer, target, "s0m0")),
        ("probes/alexnet/dense2/1/s0m0.parquet", lambda s, layer, target: s.held_out("alexnet", layer, target, "s0m0")),
        ("baseline/alexnet/1.parquet", lambda s, _, target: s.baseline("alexnet", target)),
    ],
)  # fmt: skip
def test_files_of_two_runs_do_not_mix(copied, file, call):
    """Grids, activations and so on of one network were made with the same settings, or one is of another run."""
    study = open_study(copied)
    for layer in ("conv5", "dense1"):
        call(study, layer, "0")
    call(study, "dense2", "1")
    rewrite(copied / file, settings="0123456789abcdef")
    refused(
        lambda: call(study, "dense2", "1"),
        f"{copied / file}: was made with other settings than {copied}",
        f"--force results/tiny/{file} (and",
    )
    # What it was compared with is still good.
    call(study, "conv5", "0")


@of_a_study
def test_a_group_that_is_no_cell_is_read_where_it_is_there(copied):
    """It carries other settings than cells do: those by which it was drawn."""
    folder = copied / "ablations" / PLACE
    shutil.copy(folder / "s3m3.parquet", folder / "random0.parquet")
    rewrite(folder / "random0.parquet", settings="0123456789abcdef")
    study = open_study(copied)
    assert len(study.images(*GRID, "random0")) == len(study.images(*CELL)) > 0


@of_a_study
def test_a_study_without_cross_fitted_probes_has_nothing_held_out(copied):
    def without(table):
        return table.set_column(table.column_names.index("held_out"), "held_out", pa.nulls(1, table["held_out"].type))

    rewrite(copied / "probes" / PLACE / "s3m3.parquet", without)
    study = open_study(copied)
    refused(
        lambda: study.held_out(*CELL), "has no cross-fitted probes; a study has them by the setting `probes.crossfit`"
    )


@of_a_study
def test_activations_that_are_none_are_told(copied):
    """Another table under that name, and one without rows."""
    path = copied / f"activations/{PLACE}.parquet"
    study = open_study(copied)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(0, 0), path)
    refused(lambda: study.activations(*GRID), f"{path}: has no rows")
    pq.write_table(table.drop_columns("activation"), path)
    refused(lambda: study.activations(*GRID), f"{path}: is no table of activations")
    pq.write_table(table.set_column(2, "activation", pa.array([1.0] * len(table))), path)
    refused(lambda: study.activations(*GRID), f"{path}: is no table of activations")


# ---- the page

PAGE = notebook.PAGE.read_text()


@pytest.fixture(scope="module")
def walked(finished):
    """The names that the page's blocks have left when they were run on the small study, and what they showed."""
    names = {}
    other = {"results/digits": str(finished.results), '"3"': '"0"'}
    shown = [shown for _, shown in notebook.run(PAGE, other, names)]
    return names, shown


@of_a_study
def test_the_page_runs(walked):
    """Every block, and what is shown below one is there where the page has it."""
    names, shown = walked
    blocks = list(notebook.BLOCK.finditer(PAGE))
    assert len(blocks) == PAGE.count("```python\n") >= 15
    assert [bool(each) for each in shown] == [bool(block["shown"]) for block in blocks]
    assert isinstance(names["study"], Study)


def printed(of, column):
    """The number that the page shows of a column, in the block whose code ends so."""
    (found,) = [block["shown"] for block in notebook.BLOCK.finditer(PAGE) if block["code"].rstrip().endswith(of)]
    return float(re.search(rf"^{re.escape(column)}\s*(-?[\d.e-]+)$", found, re.MULTILINE)[1])


ROW = '"auroc", "auroc_sample"]]'
BY_HAND = {"rank_deficit": "deficit", "separation_loss_mean": "loss", "auroc": "auroc"}
"""Columns, and the names of what the page computes of them."""


@of_a_study
@pytest.mark.parametrize("column", BY_HAND)
def test_what_the_page_computes_by_hand_is_what_the_table_says(walked, column):
    """On the small study to the last digits, log-odds being kept in float32; on the page to the digits that it shows."""
    names, _ = walked
    assert names[BY_HAND[column]] == pytest.approx(names["row"][column], rel=1e-4)
    assert printed(f"print(round({BY_HAND[column]}, 3))", "") == pytest.approx(printed(ROW, column), abs=6e-4)


REFERENCE = verify.read()


def shown_below(code):
    (found,) = [block["shown"] for block in notebook.BLOCK.finditer(PAGE) if code in block["code"]]
    return found


def test_the_page_s_verdicts_are_those_of_the_documented_run():
    rows = shown_below("study.verdicts()").splitlines()[2:]
    assert len(rows) == 8
    for claim, row in enumerate(rows, 1):
        verdict = {}
        for (table, network, item, measure), value in REFERENCE.items():
            if (table, network, measure) == ("claims", "all", "verdict") and item.startswith(f"claim {claim}, "):
                role = re.match(r"claim \d, (\w+)", item)[1]
                verdict |= {role: value} if not item.endswith("confirmation") else {}
        assert re.split(r"\s{2,}", row.strip())[-2:] == [verdict["published"], verdict["corrected"]], row


def test_the_page_s_means_are_those_of_the_documented_run():
    """Of each cell of one network, of s3m3 in all, and each network's accuracy."""
    rows = [line.split() for line in shown_below("pivot_table").splitlines()[2:]]
    for s, row in enumerate(rows):
        for m, value in enumerate(row[1:]):
            known = float(REFERENCE["cells", "alexnet", f"s{s}m{m}", "separation_loss_mean"])
            assert float(value) == pytest.approx(known, abs=6e-4)
    assert len(rows) == 4 and {len(row) for row in rows} == {5}
    rows = [line.split() for line in shown_below('"random": groups').splitlines()[2:]]
    assert len(rows) == 5
    for network, s3m3, random in rows:
        known = float(REFERENCE["cells", network, "s3m3", "separation_loss_mean"])
        assert float(s3m3) == pytest.approx(known, abs=6e-4)
        known = float(REFERENCE["groups", network, "random random mean", "separation_loss"])
        assert float(random) == pytest.approx(known, abs=6e-4)
    rows = [line.split() for line in shown_below("study.accuracy()").splitlines()[1:]]
    assert len(rows) == 5
    for _, network, split, top1, *_ in rows:
        assert float(top1) == pytest.approx(float(REFERENCE["accuracy", network, split, "top1"]), abs=6e-4)


def test_what_blocks_show_is_written_below_them():
    """The value of the last line or what is printed; nothing where there is none; what stood there goes."""
    page = "Text.\n\n```python\na = 1\n```\n\nMore.\n\n```python\nprint('b')\na + 1\n```\n\n```text\nold\n```\n\n```python\nb = a\n```\n"
    after = page.replace("old\n", "b\n2\n")
    assert notebook.rewritten(page) == after == notebook.rewritten(after)


# ---- installed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that pip makes of the project, beside whose module all others lie."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "weights")
    shutil.copytree(ROOT / "workflow", folder / "source" / "workflow", ignore=ignored)
    for name in ("pyproject.toml", "LICENSE", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, folder / "source")
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    ran([sys.executable, *command, "--wheel-dir", folder, folder / "source"], check=True, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_module_alone(wheel):
    """And the licence; its version is the citation's."""
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert wheel.name == f"readout_study-{version}-py3-none-any.whl"
    info = f"readout_study-{version}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = {f"readout_study/{path.name}" for path in (ROOT / "workflow" / "readout_study").glob("*.py")}
    assert {name for name in names if not name.startswith(f"{info}/")} == modules
    assert f"{info}/licenses/LICENSE" in names


ISOLATED = """
import sys

sys.path[:0] = sys.argv[1:3]
import readout_study
from readout_study import open_study

assert readout_study.__file__.startswith(sys.argv[1]), readout_study.__file__
for name in ("torch", "snakemake", "yaml", "readout", "jobs", "inputs", "runtime"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is there")
study = open_study(sys.argv[3])
print(len(study.cells()), study.activations("alexnet", "conv5", "0", units=[3]).shape)
"""


def needed(name, found):
    """The packages that one needs, on this machine, itself included."""
    if name not in found:
        found.add(name)
        for requirement in map(Requirement, distribution(name).requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found


@of_a_study
def test_the_installed_module_needs_no_more_than_it_declares(wheel, copied, tmp_path):
    """In a process that sees the wheel, and of all packages those that it asks for and that these ask for."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        (metadata,) = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    asked = [Requirement(line).name for line in re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE)]
    assert sorted(asked) == ["pandas", "pyarrow"]
    (tmp_path / "packages").mkdir()
    for name in set().union(*(needed(each, set()) for each in asked)):
        files = distribution(name).files
        for top in {file.parts[0] for file in files if ".." not in file.parts}:
            (tmp_path / "packages" / top).symlink_to(distribution(name).locate_file(top))
    arguments = [tmp_path / "installed", tmp_path / "packages", copied]
    done = ran([sys.executable, "-I", "-S", "-c", ISOLATED, *arguments], check=True, cwd=tmp_path)
    assert done.stdout == "96 (20, 1)\n"


def test_the_module_s_version_is_the_citation_s():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"]
    assert project["license"] == citation["license"]
