"""Jobs in a process of their own, and runs of Snakemake within a job.

In the workflow's process a training would share torch's global state with the threads of the cells, and a drawing
matplotlib's.
"""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from readout import StudyError
from runtime import files

REFUSED = 3
"""Exit status of a process whose file a disk has refused."""


def run(module: str, settings: Mapping, log: str | None = None) -> None:
    """Run `python -m <module> <settings as JSON> <this process>`, which writes to `log`, where one is kept.

    Raises StudyError with the last line that it wrote where it fails.
    """
    packages = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": packages, "MPLBACKEND": "Agg"}
    command = [sys.executable, "-m", module, json.dumps(settings, default=dataclasses.asdict), str(os.getpid())]
    if log is None:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        printed = done.stdout.strip().splitlines()
    else:
        with files.writing(log):
            # Not empty: another run at work in the study would sweep it away.
            Path(log).write_text(f"python -m {module}\n")
        with Path(log).open("a") as file:
            done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
        printed = Path(log).read_text().strip().splitlines()[1:]
    if done.returncode == REFUSED:
        files.refused.set()
    if done.returncode:
        last = (printed or ["nothing was printed"])[-1]
        raise StudyError(f"{last} (log: {log})" if log else last)


def snakemake(target: str, path_to_config: str, *, cores: int, limits: Sequence[str], log: str) -> None:
    """Make a file of the study that a config file describes in a Snakemake run of its own, which prints to `log`.

    It goes without Snakemake's lock of the folder, which the run outside has, and claims its whole study instead, for
    whose end another such run waits. Raises StudyError where it fails.
    """
    root = Path(__file__).resolve().parents[2]
    profile = ["--profile", "none", "--workflow-profile", f"{root}/profiles/default"]
    how = ["--executor", "local", "--nolock", "--cores", str(cores), *(["--resources", *limits] if limits else [])]
    command = [sys.executable, "-m", "snakemake", "--snakefile", f"{root}/Snakefile", *profile, *how]
    with files.writing(log):
        Path(log).write_text(f"snakemake {target}\n")
    with Path(log).open("a") as file:
        command += ["--configfile", path_to_config, "--", target]
        environment = os.environ | {"READOUT_PARTS": "[]"}
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise StudyError(f"the run of {path_to_config} failed; what is finished stays (log: {log})")


def main(job: Callable) -> None:
    """What such a module does: its job with the settings on the command line; a StudyError is its last line.

    Frozen dataclasses among the settings arrive as mappings.
    """
    settings, parent = sys.argv[1:]
    # Given, not asked for: by now, with torch imported, it may have been killed.
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    try:
        job(**json.loads(settings))
    except StudyError as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED if files.refused.is_set() else 1)


def _end_with(parent: int) -> None:
    """End when the workflow was killed: a rerun would train beside a training that nobody waits for."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
