"""Jobs in a process of their own.

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
from collections.abc import Callable, Mapping
from pathlib import Path

from readout import StudyError
from runtime import files

REFUSED = 3
"""Exit status of a process whose file a disk has refused."""


def run(module: str, settings: Mapping, log: str) -> None:
    """Run `python -m <module> <settings as JSON> <this process>`, which writes to `log`.

    Raises StudyError with the last line of the log where it fails.
    """
    packages = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": packages, "MPLBACKEND": "Agg"}
    with files.writing(log):
        # Not empty: another run at work in the study would sweep it away.
        Path(log).write_text(f"python -m {module}\n")
    with Path(log).open("a") as file:
        command = [sys.executable, "-m", module, json.dumps(settings, default=dataclasses.asdict), str(os.getpid())]
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode == REFUSED:
        files.refused.set()
    if done.returncode:
        last = (Path(log).read_text().strip().splitlines()[1:] or ["nothing was printed"])[-1]
        raise StudyError(f"{last} (log: {log})")


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
