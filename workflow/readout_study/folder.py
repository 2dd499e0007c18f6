"""A folder of results: its Parquet files, read whole or in part; what is wrong with one is told as a StudyError."""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

KEY = b"readout"
"""Where the metadata of a table say what made it."""
MOST = 16
"""Names that a message lists."""
NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}
"""What a column that lacks values has in place of kinds that know no missing one."""


class StudyError(Exception):
    """Something a user can put right: the message names the file or the name at fault and the way out."""


def some(names: Sequence[object]) -> str:
    """Names in a row; of many, the first and how many there are."""
    listed = ", ".join(str(name) for name in names[:MOST])
    return f"{listed}, ... ({len(names)} in all)" if len(names) > MOST else listed


def check_name(what: str, name: object, known: Sequence[str], of: str) -> None:
    """Refuse a name that is not known, with the nearest that are."""
    if isinstance(name, str) and name in known:
        return
    near = get_close_matches(str(name), known)
    text = "" if isinstance(name, str) else "; names are text"
    hint = f"; did you mean {' or '.join(map(repr, near))}? There" if near else "; there"
    raise StudyError(f"{what}: {name!r} is not in {of}{text}{hint} {'is' if len(known) == 1 else 'are'} {some(known)}")


def frame(table: pa.Table) -> pd.DataFrame:
    """A table as a data frame; whole numbers and marks stay what they are where a column lacks some."""
    found = table.to_pandas(ignore_metadata=True)
    gaps = [name for name in table.column_names if table[name].null_count and table[name].type in NULLABLE]
    whole = table.select(gaps).to_pandas(types_mapper=NULLABLE.get, ignore_metadata=True)
    for name in gaps:
        found[name] = whole[name]
    return found


class Folder:
    """The results of one study, `results/<study>/` or a copy of it; files are named by their path below it."""

    def __init__(self, path: Path):
        self.path = path
        # Until a file says it (`identify`): a copy may have another name.
        self.study = path.resolve().name
        # Settings of the files that must have the same, and the first file that had them.
        self._settings: dict[tuple[str, ...], tuple[object, str]] = {}

    def identify(self, file: str) -> None:
        """Take the study that a file is of for that of all."""
        self.study = self.made(file)["study"]

    def has(self, file: str) -> bool:
        return (self.path / file).is_file()

    def files(self, folder: str, pattern: str = "*.parquet") -> list[str]:
        """The files of a folder that fit a pattern."""
        return sorted(path.relative_to(self.path).as_posix() for path in (self.path / folder).glob(pattern))

    def command(self, file: str, force: bool = False) -> str:
        """How a user makes a file, in the project where the study was made."""
        # There the folder is called as the study is.
        target = shlex.quote(f"results/{self.study}/{file}")
        return f"snakemake --cores 4 {'--force ' if force else ''}{target} (and the study's --configfile)"

    def unfinished(self, file: str) -> StudyError:
        """What to say of a file that is not there and should be."""
        return StudyError(
            f"{self.path / file}: no such file: the study is not finished, or this was not copied with the rest; where "
            f"the study was made, run: {self.command(file)}"
        )

    def broken(self, file: str, why: str) -> StudyError:
        """What to say of a file that cannot be used."""
        return StudyError(
            f"{self.path / file}: {why}; copy it again, or make it again where the study was made: "
            f"{self.command(file, force=True)}"
        )

    @contextmanager
    def _open(self, file: str) -> Iterator[pq.ParquetFile]:
        if not self.has(file):
            raise self.unfinished(file)
        try:
            # Without its checksums a damaged page may be read as other numbers.
            with pq.ParquetFile(self.path / file, page_checksum_verification=True) as parquet:
                yield parquet
        except StudyError:
            raise
        except Exception as error:  # broken bytes lead Arrow to errors of many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise self.broken(file, f"cannot be read ({reason})") from None

    def made(self, file: str) -> dict:
        """What a table says of how it was made."""
        with self._open(file) as parquet:
            metadata = parquet.schema_arrow.metadata or {}
        try:
            found = json.loads(metadata.get(KEY, b"null"))
        except ValueError:
            found = None
        if not isinstance(found, dict) or "study" not in found:
            raise self.broken(file, "does not say what made it, so that it was not written by a study")
        return found

    @contextmanager
    def opened(self, file: str, alike: tuple[str, ...] | None = None) -> Iterator[pq.ParquetFile]:
        """Open a file to read it in the block, in which all errors but a StudyError are taken for the file's.

        A file of another study is refused, and so is one that was made with other settings than an earlier file of the
        same `alike`.
        """
        found = self.made(file)
        if found["study"] != self.study:
            why = f"is of study {found['study']}, but the folder is of {self.study}, and these do not mix"
            raise self.broken(file, why)
        if alike is not None:
            settings, first = self._settings.setdefault(alike, (found.get("settings"), file))
            if settings != found.get("settings"):
                why = f"was made with other settings than {self.path / first}, so that one of them is of another run"
                raise self.broken(file, why)
        with self._open(file) as parquet:
            yield parquet

    def read(self, file: str, columns: Sequence[str] | None = None, alike: tuple[str, ...] | None = None) -> pa.Table:
        """A table, or some of its columns."""
        with self.opened(file, alike) as parquet:
            for column in columns or ():
                check_name("columns", column, parquet.schema_arrow.names, str(self.path / file))
            table = parquet.read(columns=None if columns is None else list(columns))
            table.validate(full=True)
            return table
