"""Parquet: tables are written whole or not at all, and read with their columns or not at all."""

import pyarrow as pa
import pytest

from readout import StudyError
from runtime import parquet

SCHEMA = pa.schema([("image_id", pa.int32()), ("rank", pa.int32()), ("cell", pa.string())])
COLUMNS = {"image_id": [1, 2, 3], "rank": [0, 5, 0], "cell": ["s0m0", "s1m0", "s0m0"]}


@pytest.fixture
def file(tmp_path):
    """A table as a step writes it."""
    parquet.write(tmp_path / "a" / "table.parquet", COLUMNS, SCHEMA)
    return tmp_path / "a" / "table.parquet"


def test_a_table_comes_back(file):
    """Columns, types and order; folders are made."""
    table = parquet.read(file, SCHEMA)
    assert table.to_pydict() == COLUMNS
    assert table.schema.equals(SCHEMA)
    assert [path.name for path in file.parent.iterdir()] == ["table.parquet"]


def test_rows_and_columns_write_the_same(file, tmp_path):
    """Either form of content."""
    rows = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*COLUMNS.values(), strict=True)]
    parquet.write(tmp_path / "rows.parquet", rows, SCHEMA)
    assert parquet.read(tmp_path / "rows.parquet").equals(parquet.read(file))


def test_some_columns_are_read(file):
    """Only those asked for have to be there."""
    assert parquet.read(file, SCHEMA, columns=["rank"]).column_names == ["rank"]
    parquet.write(file, {"rank": [1]}, pa.schema([SCHEMA.field("rank")]))
    assert parquet.read(file, SCHEMA, columns=["rank"]).to_pydict() == {"rank": [1]}


def test_a_folder_with_an_equals_sign_is_no_partition(tmp_path):
    """Class names are the user's; pyarrow would read `class=a` as a column."""
    parquet.write(tmp_path / "class=a" / "t.parquet", COLUMNS, SCHEMA)
    assert parquet.read(tmp_path / "class=a" / "t.parquet").column_names == list(COLUMNS)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, StudyError])
@pytest.mark.parametrize("written", [0, 1, 3])
def test_an_error_leaves_no_file(tmp_path, error, written):
    """Neither the table nor what was written of it; the error itself goes on."""
    with pytest.raises(error), parquet.Writer(tmp_path / "t.parquet", SCHEMA) as writer:
        for _ in range(written):
            writer.write(pa.table(COLUMNS, schema=SCHEMA))
        raise error("halfway")
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_an_earlier_file_alone(file):
    """A complete table is better than none."""
    before = file.read_bytes()
    with pytest.raises(RuntimeError), parquet.Writer(file, SCHEMA) as writer:
        writer.write(pa.table({"image_id": [9], "rank": [9], "cell": ["x"]}, schema=SCHEMA))
        raise RuntimeError
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["table.parquet"]


def test_the_file_appears_when_it_is_complete(tmp_path):
    """Readers never see a part: until the block ends there is no file of that name."""
    with parquet.Writer(tmp_path / "t.parquet", SCHEMA) as writer:
        writer.write(pa.table(COLUMNS, schema=SCHEMA))
        assert not (tmp_path / "t.parquet").exists()
        assert not list(tmp_path.glob("*.parquet"))
    assert parquet.read(tmp_path / "t.parquet", SCHEMA).num_rows == 3


@pytest.mark.parametrize(
    "content",
    [
        {"image_id": [1], "rank": ["first"], "cell": ["s0m0"]},
        {"image_id": [1, 2], "rank": [1], "cell": ["a", "b"]},
        {"image_id": [1], "rank": [2**40], "cell": ["s0m0"]},
        {"image_id": [1], "cell": ["s0m0"]},
    ],
    ids=["type", "length", "overflow", "missing"],
)
def test_content_that_does_not_fit_is_not_written(tmp_path, content):
    """A wrong type, an odd length, a number too large, a missing column."""
    with pytest.raises((pa.ArrowException, KeyError)):
        parquet.write(tmp_path / "t.parquet", content, SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path):
    """With what to do."""
    with pytest.raises(StudyError, match=r"nowhere\.parquet: no such file; make it again: snakemake"):
        parquet.read(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize("size", [0, 1, 4, 100, -100, -8, -1])
def test_a_file_cut_short_is_named(file, size):
    """Whatever is left of it; -1 is all but the last byte."""
    content = file.read_bytes()
    file.write_bytes(content[:size])
    with pytest.raises(StudyError, match=r"table\.parquet: cannot be read .*make it again: snakemake .*--force"):
        parquet.read(file, SCHEMA)


@pytest.mark.parametrize("content", [b"hello", b"PAR1" * 5, b"\0" * 500])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    """Other files of that name."""
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(StudyError, match=r"t\.parquet: cannot be read"):
        parquet.read(tmp_path / "t.parquet")


def test_broken_data_are_named(tmp_path):
    """The footer is whole, the data are not."""
    file = tmp_path / "t.parquet"
    columns = {"image_id": list(range(5000)), "rank": list(range(5000)), "cell": [str(i) for i in range(5000)]}
    parquet.write(file, columns, SCHEMA)
    content = bytearray(file.read_bytes())
    content[50:2000] = bytes(1950)
    file.write_bytes(content)
    with pytest.raises(StudyError, match=r"t\.parquet: cannot be read"):
        parquet.read(file)


@pytest.mark.parametrize(
    ("name", "kind"), [("rank", pa.int64()), ("rank", pa.float64()), ("cell", pa.int32()), ("image_id", None)]
)
def test_wrong_columns_are_named(tmp_path, name, kind):
    """A column of another type or none at all: file, column and type."""
    fields = [pa.field(f.name, kind) if f.name == name and kind is not None else f for f in SCHEMA]
    schema = pa.schema([f for f in fields if f.name != name or kind is not None])
    parquet.write(tmp_path / "t.parquet", {f.name: pa.nulls(2, f.type) for f in schema}, schema)
    wanted = SCHEMA.field(name).type
    with pytest.raises(StudyError, match=rf"t\.parquet: column {name} \({wanted}\) is missing or of another type"):
        parquet.read(tmp_path / "t.parquet", SCHEMA)
    with pytest.raises(StudyError, match=name):
        parquet.read(tmp_path / "t.parquet", SCHEMA, columns=[name])
