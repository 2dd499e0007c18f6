# The configuration, checked, which everything else is planned from.
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from snakemake.utils import min_version, update_config

# The default profile's scheduler-greedy-omit-prioritize-by-temp-and-input came with this version.
min_version("9.10")

# Where this file lies, which Snakemake compiles under its path.
ROOT = Path((lambda: None).__code__.co_filename).parents[2]
sys.path.insert(0, f"{ROOT}/workflow")

from inputs.config import check_files, from_command_line
from inputs.study import Study, measures
from runtime import locks, logs, patches
from readout import StudyError


configfile: f"{ROOT}/config.yaml"


@contextmanager
def told():
    """Let Snakemake tell the study's own errors as one message, without a traceback."""
    try:
        yield
    except StudyError as error:
        raise patches.refusal(str(error)) from None


with told():
    check_files(patches.config_files(workflow))
    update_config(config, from_command_line(patches.config_from_command_line(workflow)))
    STUDY = Study(config)
    STUDY.check_results()
R = STUDY.results
DEVICE = config["device"]


wildcard_constraints:
    network=r"[^/]+",
    layer=r"[^/]+",
    class_id=r"[^/]+",
    cell=r"[^/]+",
    pseudo=r"pseudo[0-9]+",


def claim(cluster=False):
    """Have the study's results to this run alone; runs within jobs claim what they write (Snakefile)."""
    if patches.has_lock(workflow):
        with told():
            locks.claim_run(R, cluster)


def sweep():
    """Remove empty logs; the runs within a cluster's jobs leave that to the run that sends them."""
    if patches.has_lock(workflow):
        logs.sweep(Path(R, "logs"))


def headline():
    """The verdicts and where the results lie, if this run was asked for them and nobody else will print them."""
    if not patches.has_lock(workflow) or os.environ.get("READOUT_HEADLINE") == "later":
        return ""
    asked, parts = patches.asked_for(workflow), []
    try:
        if not asked.isdisjoint({"all", "study", "claims", f"{R}/claims.parquet", f"{R}/claims.html"}):
            from commands import headline

            command = headline.REPORT
            if any(argument.startswith(("--config", "-C")) for argument in sys.argv):
                command += "  (with this run's --configfile and --config)"
            parts.append(headline.text(R, command))
        if not asked.isdisjoint({"sensitivity", f"{R}/sensitivity/verdicts.parquet"}):
            from commands import sensitivity

            parts.append(sensitivity.text(R))
    except StudyError as error:
        parts.append(str(error))
    return "\n".join(parts)
