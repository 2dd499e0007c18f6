# The configuration, checked, which everything else is planned from.
import sys
from contextlib import contextmanager
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version, update_config

ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
sys.path.insert(0, f"{ROOT}/workflow")

from inputs.config import check_files, from_command_line
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


def check_config():
    """Refuse keys that are given twice, and give what --config says its types.

    Snakemake documents neither of these two attributes of the workflow.
    """
    check_files(workflow.configfiles)
    update_config(config, from_command_line(workflow.config_settings.config))


with told():
    check_config()
    STUDY = Study(config)
    STUDY.check_results()
R = STUDY.results
DEVICE = config["device"]


wildcard_constraints:
    network=r"[^/]+",
    layer=r"[^/]+",
    class_id=r"[^/]+",
    cell=r"s\d+m\d+",


def claim(cluster=False):
    """Have the study's results to this run alone; the runs within a cluster's jobs claim their parts (Snakefile)."""
    if workflow.execution_settings.lock:
        with told():
            locks.claim_run(R, cluster)


def sweep():
    """Remove empty logs; the runs within a cluster's jobs leave that to the run that sends them."""
    if workflow.execution_settings.lock:
        logs.sweep(Path(R, "logs"))
