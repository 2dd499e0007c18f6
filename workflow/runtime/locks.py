"""Locks: a study's results are written by one run at a time."""

import contextlib
import fcntl
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from readout import StudyError
from runtime import files

ANOTHER_RUN = "another run of this study is at work; wait for its end and run again"
JOBS_LEFT = "jobs of an earlier run are still at work on this study; wait for their end, or end them, and run again"


def claim(lock: Path, *, shared: bool = False, wait: bool = False, held: str = ANOTHER_RUN) -> int:
    """Hold a lock, which is a file, for as long as this process lives, or the descriptor that is returned is open.

    `shared` locks can be held by many, others by one. Where it is held already, waits or raises StudyError with `held`.

    Snakemake looks for the locks of other runs before it writes its own: two runs in the same moment both go on, and
    the first to end removes the other's lock. This one is the kernel's, and goes with the process, however that ends.
    """
    with files.writing(lock.parent):
        lock.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=lock.parent).close()
        # A file, and open for writing: network file systems have no such locks of folders.
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    # Some network file systems have no such locks at all; Snakemake's remains.
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                os.close(descriptor)
                raise StudyError(f"{lock.parent}: {held}") from None
            print(f"{lock}: held by another job or run, whose end this job waits for", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, kind)
    return descriptor


def claim_run(results: str | Path, cluster: bool) -> None:
    """Have a study's results to this run alone; `cluster`: it works by jobs that claim what they write themselves."""
    claim(Path(results, ".lock"))
    if not cluster:
        claim(Path(results, ".jobs.lock"), held=JOBS_LEFT)


def claim_parts(results: str | Path, parts: Sequence[str]) -> None:
    """Have parts of a study to this job of a cluster's run alone, or, without any, the whole study.

    A job may have outlived the run that sent it, and another run have sent its like: one waits for the other.
    """
    claim(Path(results, ".jobs.lock"), shared=bool(parts), wait=True)
    # In one order, so that no two jobs wait for each other.
    for part in sorted(parts):
        claim(Path(results, "cluster", f"{part}.lock"), wait=True)
