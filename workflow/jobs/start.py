"""What a run makes sure of before its first job, so that whatever ends it can be mended by running again."""

import contextlib
import fcntl
import heapq
import os
import tempfile
from pathlib import Path
from typing import Any

from jobs import files
from readout import StudyError

OFFERED = 256
"""Jobs to choose from: more than run at once."""


def claim(folder: str | Path) -> int:
    """Lock a folder of results for as long as this process lives, or the descriptor that is returned is open.

    Snakemake looks for the locks of other runs before it writes its own: two runs in the same moment both go on, and
    the first to end removes the other's lock. This one is the kernel's, and goes with the process, however that ends.
    """
    with files.writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        # A file, and open for writing: network file systems have no such locks of folders.
        descriptor = os.open(Path(folder) / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StudyError(f"{folder}: another run of this study is at work; wait for its end and run again") from error
    except OSError:
        # Some network file systems have no such locks; Snakemake's remains.
        pass
    return descriptor


def stop_when_refused(scheduler: Any) -> None:
    """End a run with the jobs at work once a disk has refused a file: all others would fail for the same reason."""
    fail = scheduler.error_callback

    def failed(job: Any) -> None:
        if files.refused.is_set():
            scheduler.keepgoing = False
        fail(job)

    scheduler.error_callback = failed


def offer_some(scheduler: Any) -> None:
    """Let Snakemake choose among some of the ready jobs, those of highest priority, whenever it starts one.

    It goes through all that it chooses from, and their inputs: with fifty thousand cells ready, over a second a job.
    Others are offered when half of these have begun, so that going through all is rare.
    """
    offered: set[Any] = set()

    def some(scheduler: Any) -> list[Any]:
        nonlocal offered
        ready = scheduler.workflow.dag.ready_jobs
        offered &= ready
        if len(offered) <= OFFERED // 2 or len(ready) <= OFFERED:
            offered = set(heapq.nlargest(OFFERED, ready, key=lambda job: job.priority))
        return list(offered)

    kind = type(scheduler)
    scheduler.__class__ = type(kind.__name__, (kind,), {"open_jobs": property(some)})


def note_first(executor: Any) -> None:
    """Let Snakemake's executor note a job's files as incomplete before the job begins, not a moment after.

    A cell may be done in that moment. Killed then, its file would be there without any note, and Snakemake would keep
    it through every later change of a setting.
    """
    announce = executor.run_job_pre

    def begin(job: Any) -> None:
        # Where the note cannot be written, Snakemake says so at its own attempt.
        with contextlib.suppress(OSError):
            job.register()
        announce(job)

    executor.run_job_pre = begin
