"""Snakemake's own messages, thinned so that a run of thousands of cells can be read."""

import logging
import re
import sys

from snakemake_interface_logger_plugins.common import LogEvent

CELLWISE = frozenset({"cells", "probes", "ablations", "controls", "layer_tables"})
"""Rules with a job a cell or a grid: their starts and ends are not announced, their errors are."""


class Thin(logging.Filter):
    """Passes every error, the other rules' messages, and progress when it grows by a percent."""

    def __init__(self):
        super().__init__()
        self.percent = -1
        self.cellwise: set[int] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO and record.rule_name in CELLWISE:
            self.cellwise.add(record.jobid)
            return False
        if event == LogEvent.JOB_FINISHED:
            return record.job_id not in self.cellwise
        if event == LogEvent.PROGRESS:
            percent = 100 * record.done // max(1, record.total)
            grown, self.percent = percent > self.percent, percent
            return grown
        # Said before and after each batch of jobs.
        return not str(record.msg).startswith(("Select jobs to execute", "Execute "))


def thin(logger: logging.Logger) -> None:
    """Thin the messages of a run; a dry run, whose purpose is the list of jobs, is left as it is."""
    dry = any(re.fullmatch(r"--dry-?r.*|-[a-zA-Z]*n[a-zA-Z]*", argument) for argument in sys.argv[1:])
    if not dry and not any(isinstance(f, Thin) for f in logger.filters):
        logger.addFilter(Thin())
