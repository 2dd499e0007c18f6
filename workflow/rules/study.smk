# The configuration, checked, which everything else is planned from.
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
sys.path.insert(0, f"{ROOT}/workflow")

from inputs.study import Study
from runtime import locks, logs
from readout import StudyError

min_version("9.0")


configfile: f"{ROOT}/config.yaml"


@contextmanager
def told():
    """Let Snakemake tell the study's own errors as one message, without a traceback."""
    try:
        yield
    except StudyError as error:
        raise WorkflowError(str(error)) from None


with told():
    STUDY = Study(config)
    STUDY.check_results()
R = STUDY.results
DEVICE = config["device"]


wildcard_constraints:
    network=r"[^/]+",
    layer=r"[^/]+",
    class_id=r"[^/]+",
    cell=r"[^/]+",


def claim(cluster=False):
    """Have the study's results to this run alone; the runs within a cluster's jobs claim their parts (Snakefile)."""
    if workflow.execution_settings.lock:
        with told():
            locks.claim_run(R, cluster)


def sweep():
    """Remove empty logs; the runs within a cluster's jobs leave that to the run that sends them."""
    if workflow.execution_settings.lock:
        logs.sweep(Path(R, "logs"))
