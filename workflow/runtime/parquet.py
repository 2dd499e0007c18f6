"""Tables on disk: Parquet, typed, written atomically, one writer per file."""

import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from readout import StudyError
from runtime import files, provenance


class Writer(AbstractContextManager):
    """Writes one file in pieces: into a temporary file, renamed when the block ends without an error.

    The table carries `made`, what made it (runtime/provenance.py); without it, nothing.
    """

    def __init__(self, path: str | Path, schema: pa.Schema, made: str | None = None):
        self.path = Path(path)
        self.partial = files.partial(self.path)
        # Of numbers, above all of millions of activations, a dictionary costs time and gains nothing.
        words = [field.name for field in schema if pa.types.is_string(field.type)]
        # What made this file, and not the one that a schema was read from.
        marked = schema.with_metadata(provenance.metadata(made))
        try:
            with files.writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.writer = pq.ParquetWriter(
                    self.partial,
                    marked,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=words or False,
                    write_page_checksum=True,
                )
        except BaseException:
            files.discard(self.partial)
            raise

    def write(self, table: pa.Table) -> None:
        with files.writing(self.path):
            self.writer.write_table(table)

    def __exit__(self, kind, error, trace) -> None:
        try:
            with files.writing(self.path):
                self.writer.close()
                if kind is None:
                    os.replace(self.partial, self.path)
        except StudyError:
            # Of a block that failed, its own error says why: on a full disk the end of the file fails too.
            if kind is None:
                raise
        finally:
            # Closed too, it keeps what a row group took.
            self.writer = None
            files.discard(self.partial)


def write(
    path: str | Path, content: Mapping[str, object] | Iterable[Mapping], schema: pa.Schema, made: str | None = None
) -> None:
    """Write a table from columns or from rows; it carries `made`."""
    if isinstance(content, Mapping):
        table = pa.table(dict(content), schema=schema)
    else:
        table = pa.Table.from_pylist(list(content), schema=schema)
    with Writer(path, schema, made) as writer:
        writer.write(table)


def again(path: str | Path) -> str:
    """How a user mends a file of the results; the rest of a message."""
    return f"make it again: snakemake --cores 1 --force {shlex.quote(str(path))} (and the study's --configfile)"


def _open(path: str | Path) -> pq.ParquetFile:
    # One file, not a data set: folder names as `a=b` are no partitions here. Without its checksums a damaged page may
    # be read as other numbers.
    return pq.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn the errors of reading a file into ones that name it."""
    try:
        yield
    except FileNotFoundError as error:
        raise StudyError(f"{path}: no such file; {again(path)}") from error
    except Exception as error:  # broken bytes lead Arrow to errors of many kinds
        raise StudyError(f"{path}: cannot be read ({error}); {again(path)}") from error


def _gaps(column: pa.ChunkedArray) -> bool:
    """Whether a value is missing, in a column or in what is nested there."""
    if pa.types.is_list(column.type):
        parts = [pc.list_flatten(column)]
    elif pa.types.is_struct(column.type):
        parts = [pc.struct_field(column, i) for i in range(column.type.num_fields)]
    else:
        parts = []
    return column.null_count > 0 or any(map(_gaps, parts))


def read(
    path: str | Path,
    schema: pa.Schema | None = None,
    columns: list[str] | None = None,
    optional: Collection[str] = (),
    origin: Mapping[str, str] | None = None,
    empty: bool = False,
) -> pa.Table:
    """Read a table; StudyError names the file where it is missing or cut short.

    With a schema: its columns (or those of `columns`) alone, in its order; StudyError where one is missing, is of
    another type or lacks a value, but for those of `optional`, and where there is no row unless it may be `empty`.
    With an `origin` it refuses a table that does not carry the same: one of another study or of other settings.
    """
    with _named(path):
        table = _open(path).read(columns=columns)
        table.validate(full=True)
    if origin is not None:
        made = provenance.of(table.schema.metadata)
        found = {key: made.get(key, "unknown") for key in origin}
        if found != origin:
            theirs, ours = (", ".join(f"{key} {value}" for key, value in some.items()) for some in (found, origin))
            raise StudyError(
                f"{path}: is of {theirs}, but what it goes into is of {ours}, and these do not mix; {again(path)}"
            )
    if schema is None:
        return table
    if not len(table) and not empty:
        raise StudyError(f"{path}: has no rows; {again(path)}")
    return _checked(path, table, [field for field in schema if columns is None or field.name in columns], optional)


def _checked(path: str | Path, table: pa.Table, fields: Iterable[pa.Field], optional: Collection[str]) -> pa.Table:
    """These columns of a table, in this order; StudyError as `read` has it."""
    fields = list(fields)
    # A name that is there twice has no index either.
    places = [table.schema.get_field_index(field.name) for field in fields]
    for field, place in zip(fields, places, strict=True):
        if place < 0 or table.schema.field(place).type != field.type:
            raise StudyError(f"{path}: column {field.name} ({field.type}) is missing or of another type; {again(path)}")
    for field in fields:
        if field.name not in optional and _gaps(table[field.name]):
            raise StudyError(f"{path}: column {field.name} lacks values; {again(path)}")
    return table.select(places)


def schema(path: str | Path) -> pa.Schema:
    """The columns of a table, and what it carries of how it was made; errors as `read`."""
    with _named(path):
        return _open(path).schema_arrow


def row_groups(path: str | Path, schema: pa.Schema | None = None) -> Iterator[pa.Table]:
    """The row groups of a table, as `read` reads the whole; it may have no rows."""
    with _named(path):
        file = _open(path)
    for group in range(file.num_row_groups):
        with _named(path):
            table = file.read_row_group(group)
            table.validate(full=True)
        yield table if schema is None else _checked(path, table, schema, ())


def size(path: str | Path) -> int:
    """Bytes of a table in memory."""
    with _named(path):
        metadata = _open(path).metadata
        return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
