"""Patches of Snakemake: every private name of it that this project uses is here."""

import contextlib
import heapq
from typing import Any

from runtime import files

SORTED = 64
"""Least number of ready jobs that are chosen and sorted at once; at least four times as many as run at once."""


def stop_when_refused(scheduler: Any) -> None:
    """End a run with the jobs at work once a disk has refused a file: all others would fail for the same reason."""
    fail = scheduler.error_callback

    def failed(job: Any) -> None:
        if files.refused.is_set():
            scheduler.keepgoing = False
        fail(job)

    scheduler.error_callback = failed


def _urgency(job: Any) -> tuple:
    # A grid's cells one after the other: they share what is in memory. The probes come before the ablations, but for
    # one of these, of a cell that every grid has: it makes what they share while the probes are at work. Groups of
    # jobs, which users may make, have no wildcards.
    names = [str(name) for name in getattr(job, "wildcards", ())]
    return job.priority, names[:3], (job.name, *names[3:]) == ("ablations", "s0m0"), job.name, names[3:]


def offer_some(scheduler: Any) -> None:
    """Let Snakemake choose among the next few of the ready jobs, those of highest priority, whenever it starts one.

    It goes through all that it chooses from, their inputs, and all that are not finished: with fifty thousand cells
    ready, over a second a job. And it takes any of the same priority, here of two grids in turn, each with gigabytes in
    memory. So it is offered as many as cores are free. Ready jobs are sorted when more have become ready, or few of
    those that were chosen are left.
    """
    cores = scheduler.global_resources["_cores"]
    count = max(SORTED, 4 * cores)

    class Some(type(scheduler)):
        coming, were_ready = (), 0

        @property
        def open_jobs(self) -> list[Any]:
            ready = self.workflow.dag.ready_jobs
            left = [job for job in self.coming if job in ready]
            begun, self.coming = len(self.coming) - len(left), left
            if len(left) <= cores or len(ready) > self.were_ready - begun:
                self.coming = heapq.nlargest(count, ready, key=_urgency)
            self.were_ready = len(ready)
            # Never none while there are some, or Snakemake would end.
            return self.coming[: max(1, self.resources["_cores"])]

        @property
        def remaining_jobs(self) -> list[Any]:
            # While there is a choice, only Snakemake's linear program asks, for the sake of temporary files; there are
            # none.
            return self.coming or super().remaining_jobs

    scheduler.__class__ = Some


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
