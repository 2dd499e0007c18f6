"""Snakemake's internals: every patch of Snakemake, and every use of a name that Snakemake does not document.

Such a name may be gone in another version. A run that misses one says so in a line, which names the version and what
is lost, and goes on without it. Each docstring says what the code mends, in which versions of Snakemake it was tried,
and what happens without it. None of them is needed for right results: they are about time, about what is printed, and
about runs that end early.
"""

import contextlib
import functools
import heapq
import importlib
import logging
import queue
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runtime import files
from runtime.progress import Progress

LOGGER = "snakemake.logging"
"""The name of Snakemake's logger. Where no logger of this name has a handler, Python prints warnings to stderr."""
SORTED = 64
"""Least number of ready jobs that are chosen and sorted at once; at least four times as many as run at once."""


# ---- what happens where a name is missing


class Missing(Exception):
    """A name that the installed Snakemake lacks."""


def _found(holder: Any, path: str) -> Any:
    """What lies at a dotted path of attributes and keys of an object, or of a module: `module:path`.

    Raises Missing with the first name that is not there.
    """
    module, _, names = path.rpartition(":")
    if module:
        try:
            holder = importlib.import_module(module)
        except ImportError:
            raise Missing(module) from None
    for name in names.split("."):
        try:
            holder = holder[name] if isinstance(holder, Mapping) else getattr(holder, name)
        except (AttributeError, KeyError):
            owner = getattr(holder, "__name__", type(holder).__name__)
            raise Missing(f"{owner}.{name}") from None
    return holder


@functools.cache
def _warn(missing: str, lost: str) -> None:
    """Say once what is lost."""
    logging.getLogger(LOGGER).warning(f"Snakemake {version('snakemake')} has no {missing}: {lost}")


def guarded(*names: str, lost: str, otherwise: Callable[..., Any] = lambda *_: None) -> Callable:
    """Let a function be called although a name that it needs is missing.

    `names` are paths as `_found` reads them, within the function's first argument or within modules. Where one is
    missing, or the function raises Missing, a warning says what is `lost`, and `otherwise` is called in its place.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*given: Any) -> Any:
            try:
                for name in names:
                    _found(given[0] if given else None, name)
                return function(*given)
            except Missing as missing:
                _warn(str(missing), lost)
                return otherwise(*given)

        run.names = names
        return run

    return decorate


# ---- patches of a run


@guarded("exit_gracefully", lost="a run that is told to end (SIGTERM) may hang instead, and must be killed")
def end_when_told(scheduler: Any) -> None:
    """Let a run that is told to end (SIGTERM) do so, in whatever moment it is told.

    Mends: Snakemake's handler takes the scheduler's lock in the main thread, which, if it holds that lock in this
    moment, waits for itself. Here another thread takes it; what the handler does instead is allowed at all times.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: of runs of short jobs one in five hangs when it is told to end, and with it whoever waits for its locks.
    """
    told: queue.SimpleQueue = queue.SimpleQueue()

    def end() -> None:
        while True:
            scheduler.exit_gracefully(*told.get())

    # As Snakemake does: only the main thread may set a handler.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, lambda *given: told.put(given))
        threading.Thread(target=end, daemon=True).start()


@guarded("job_rate_limiter", lost="after some thousand jobs, scheduling takes a core of its own")
def lift_rate_limit(scheduler: Any) -> None:
    """Start local jobs without Snakemake's limit of jobs per second.

    Mends: the limit starts a timer for each job, and each timer another round of scheduling, again and again.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: after a thousand cells these rounds take a whole core.
    """
    scheduler.job_rate_limiter = None


@guarded(
    "_executor.run_job_pre",
    "snakemake.jobs:Job.register",
    lost="a cell that ends in the moment in which the run is killed may be kept although it is not noted",
)
def note_first(scheduler: Any) -> None:
    """Let Snakemake's executor note a job's files as incomplete before the job begins, not a moment after.

    Mends: a cell may be done in that moment. Killed then, its file would be there without any note.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: Snakemake keeps such a file through every later change of a setting.
    """
    executor = scheduler._executor
    announce = executor.run_job_pre

    def begin(job: Any) -> None:
        # Where the note cannot be written, Snakemake says so at its own attempt.
        with contextlib.suppress(OSError):
            job.register()
        announce(job)

    executor.run_job_pre = begin


@guarded("error_callback", "keepgoing", lost="a run on a full disk tries every job that is left, and each one fails")
def stop_when_refused(scheduler: Any) -> None:
    """End a run with the jobs at work once a disk has refused a file.

    Mends: all jobs that are left would fail for the same reason, since the default profile keeps going.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: a run of thousands of cells says thousands of times that the disk is full.
    """
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


@guarded(
    "global_resources._cores",
    "resources._cores",
    "workflow.dag.ready_jobs",
    "snakemake.jobs:Job.priority",
    "snakemake.jobs:Job.name",
    "snakemake.jobs:Job.wildcards",
    lost="studies of many thousand cells are scheduled slowly, and grids are worked on in turn, which takes memory",
)
def offer_some(scheduler: Any) -> None:
    """Let Snakemake choose among the next few of the ready jobs, those of highest priority, whenever it starts one.

    Mends: Snakemake goes through all jobs that it chooses from, their inputs, and all that are not finished. And it
    takes any of the same priority, here of two grids in turn, each with gigabytes in memory. So it is offered as many
    as cores are free. Ready jobs are sorted when more have become ready, or few of those that were chosen are left.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: with fifty thousand cells ready, the start of each job takes over a second.
    """
    for name in ("open_jobs", "remaining_jobs"):
        if not isinstance(getattr(type(scheduler), name, None), property):
            raise Missing(f"property {type(scheduler).__name__}.{name}")
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


@guarded("local_exec", "scheduler", lost="none of the patches of its scheduler is made (workflow/runtime/patches.py)")
def apply(workflow: Any) -> None:
    """Patch a run that works on this machine; one that sends its jobs elsewhere is only let end.

    Mends: see each of the five patches.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: a run is slower, and untidy where it is killed or its disk is full. Its results are the same.
    """
    end_when_told(workflow.scheduler)
    if workflow.local_exec:
        for patch in (lift_rate_limit, note_first, stop_when_refused, offer_some):
            patch(workflow.scheduler)


# ---- messages

THICK = "its messages are not thinned, and do not tell how long the run has still to go"


class Messages(logging.Filter):
    """Passes what `progress` lets through of a run's messages, and everything but its batches of jobs of the others."""

    def __init__(self, events: Any, progress: Progress, up_to_date: Callable[[], str]):
        super().__init__()
        self.events, self.progress, self.up_to_date = events, progress, up_to_date
        self.blind = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is printed; from the first on that lacks what it should have, all are."""
        if self.blind:
            return True
        try:
            return self._passes(record)
        except Missing as missing:
            # The warning passes here too.
            self.blind = True
            _warn(str(missing), THICK)
            return True

    def _passes(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "event", None)
        if event == self.events.RUN_INFO:
            self.progress.plan(_found(record, "stats"))
        elif event == self.events.JOB_INFO:
            return self.progress.begin(_found(record, "jobid"), _found(record, "rule_name"))
        elif event == self.events.JOB_FINISHED:
            return self.progress.end(_found(record, "job_id"))
        elif event == self.events.PROGRESS:
            record.left = self.progress.count(_found(record, "done"), _found(record, "total"))
            return record.left is not None
        elif str(record.msg).startswith("Nothing to be done"):
            record.msg = f"{record.msg}\n{self.up_to_date()}".rstrip()
        # Said before and after each batch of jobs.
        return not str(record.msg).startswith(("Select jobs to execute", "Execute "))


FORMATTER = "snakemake.logging:DefaultFormatter"


@guarded(f"{FORMATTER}.format_progress", lost="its messages do not tell how long the run has still to go")
def tell_time_left() -> None:
    """Let Snakemake's lines on progress end with what `Messages` adds to them.

    Mends: they tell the jobs done, but no time.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: nobody knows how long a run has still to go.
    """
    formatter = _found(None, FORMATTER)
    # The workflow may be read more than once in a process.
    plain = getattr(formatter.format_progress, "__wrapped__", formatter.format_progress)

    @functools.wraps(plain)
    def format_progress(self: Any, message: Mapping) -> str:
        return plain(self, message) + (message.get("left") or "")

    formatter.format_progress = format_progress


EVENTS = "snakemake_interface_logger_plugins.common:LogEvent"


@guarded(
    "snakemake.logging:logger",
    *(f"{EVENTS}.{event}" for event in ("RUN_INFO", "JOB_INFO", "JOB_FINISHED", "PROGRESS")),
    lost=THICK,
)
def thin(progress: Progress, up_to_date: Callable[[], str]) -> None:
    """Let `progress` decide which of a run's messages are printed, and say how long the run has still to go.

    Where a run finds nothing to do, what `up_to_date` returns is printed with Snakemake's message. A dry run, whose
    purpose is the list of jobs, is left as it is.

    Mends: Snakemake announces each job's start and end, and tells the progress after each.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: a run prints a dozen lines for each of thousands of cells, and its headline only if it had jobs to do.
    """
    if any(re.fullmatch(r"--dry-?r.*|-[a-zA-Z]*n[a-zA-Z]*", argument) for argument in sys.argv[1:]):
        return
    logger = _found(None, "snakemake.logging:logger")
    for earlier in [each for each in logger.filters if isinstance(each, Messages)]:
        logger.removeFilter(earlier)
    logger.addFilter(Messages(_found(None, EVENTS), progress, up_to_date))
    tell_time_left()


def say(text: str) -> None:
    """Print among Snakemake's own messages, and into its log file.

    Mends: what is printed otherwise is missing in Snakemake's log file, and ignores `--quiet`.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: where Snakemake's logger has another name, the text is printed to stderr.
    """
    logger = logging.getLogger(LOGGER)
    if logger.hasHandlers():
        logger.info(text)
    elif text:
        print(text, file=sys.stderr, flush=True)


@guarded(
    "snakemake.exceptions:WorkflowError", lost="the study's own errors are shown with a traceback", otherwise=ValueError
)
def refusal(message: str) -> Exception:
    """An error that Snakemake shows as one message.

    Mends: of any other error in a Snakefile, Snakemake shows a traceback.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: the message is the same, with the traceback before it.
    """
    return _found(None, "snakemake.exceptions:WorkflowError")(message)


# ---- what a run is


@guarded(
    "execution_settings.lock",
    lost="whether the run locks its folder is read from the command line alone",
    otherwise=lambda _: "--nolock" not in sys.argv,
)
def has_lock(workflow: Any) -> bool:
    """Whether a run has the folder to itself; the runs within a cluster's jobs share it (`--nolock`).

    Mends: Snakemake documents no way to learn this.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: `--nolock` is found on the command line, where workflow/cluster.smk puts it, but not in a profile.
    """
    return workflow.execution_settings.lock


@guarded(
    *(f"dag.{name}" for name in ("targetrules", "targetfiles", "untilrules", "untilfiles", "omitrules", "omitfiles")),
    lost="the claims' verdicts are not shown at its end",
    otherwise=lambda _: frozenset(),
)
def asked_for(workflow: Any) -> frozenset[str]:
    """The rules' names and the files that a run was asked for; none where it was to leave something out of them.

    Mends: Snakemake documents no way to learn this.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: a run does not end with its headline; `python -m commands.headline` still prints it.
    """
    dag = workflow.dag
    if dag.untilrules or dag.untilfiles or dag.omitrules or dag.omitfiles:
        return frozenset()
    return frozenset([*(rule.name for rule in dag.targetrules), *map(str, dag.targetfiles)])


@guarded(
    "resource_settings.resources",
    lost="a limit of memory (--resources) does not bind the runs within its jobs",
    otherwise=lambda _: [],
)
def limits(workflow: Any) -> list[str]:
    """What `--resources` limits in a run, as `mem_mb=12000`.

    Mends: a run within a job of this run has no other way to learn its limits.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: a run within a job takes the memory that it takes.
    """
    # Newer versions hold a value that knows its name, and those of cores and nodes among them.
    found = dict(workflow.resource_settings.resources)
    return [f"{name}={getattr(limit, 'value', limit)}" for name, limit in found.items() if not name.startswith("_")]


@guarded(
    "configfiles",
    lost="of a key that a config file holds twice, the last one counts, and nothing is said",
    otherwise=lambda _: [],
)
def config_files(workflow: Any) -> list[str | Path]:
    """The config files that Snakemake has read: those of `--configfile`, and config.yaml.

    Mends: of a key that a file holds twice Snakemake hands over the last, so that the files must be read again.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: a key that is given twice by mistake passes in silence.
    """
    return workflow.configfiles


@guarded(
    "config_settings.config",
    lost="inside a value of --config numbers are refused as text",
    otherwise=lambda _: {},
)
def config_from_command_line(workflow: Any) -> Mapping:
    """What `--config` says, as Snakemake has read it.

    Mends: whatever stands inside a value of `--config` is text to Snakemake, numbers too; in a file they are numbers.
    What was said where cannot be told from the merged configuration.
    Tried with: 9.10.1, 9.14.8, 9.20.0, 9.27.1.
    Without it: a command such as `--config 'probes={"draws": 20}'` is refused; a file can say the same.
    """
    return workflow.config_settings.config
