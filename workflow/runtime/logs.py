"""Log files of jobs that run inside the workflow's process."""

import contextlib
import traceback
from collections.abc import Callable
from pathlib import Path

from readout import StudyError
from runtime import files, process


def sweep(folder: str | Path) -> None:
    """Remove empty log files: Snakemake makes one for each job that writes none, which every good cell is."""
    for path in Path(folder).rglob("*.log"):
        # A job at work may have removed its own meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == 0:
                path.unlink()


def run(log: str | Path, job: Callable[..., str | None], /, **given: object) -> None:
    """Run `job(**given)` and write what it says of itself to the file `log`.

    That is what the job returns, a line on what it did, or no file where it returns nothing; of a failing job the
    message, and the traceback where the error is none of ours. The error that leaves here is always a StudyError.
    """
    path = Path(log)
    try:
        process.prepare()
        result = job(**given)
    # Snakemake would wait for ever for a job that ends its thread by `sys.exit`.
    except (Exception, SystemExit) as error:
        ours = isinstance(error, StudyError)
        # A full disk refuses the log too, and is told of by the error.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{error}\n" if ours else traceback.format_exc())
        if ours:
            raise
        raise StudyError(f"{type(error).__name__}: {error} (unexpected; the traceback is in {path})") from error
    with files.writing(path):
        # A log of an earlier failure would mislead.
        path.unlink(missing_ok=True)
        if result is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{result}\n")
