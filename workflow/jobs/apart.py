"""Jobs in a process of their own.

In the workflow's process a training would share torch's global state with the threads of the cells, and a drawing
matplotlib's.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jobs import provenance
from readout import StudyError


def run(module: str, settings: Mapping, log: str, made: str | None = None) -> None:
    """Run `python -m <module> <settings as JSON>`, which writes to `log`; its tables carry `made`.

    Raises StudyError with the last line of the log where it fails.
    """
    packages = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": packages, "MPLBACKEND": "Agg"}
    if made is not None:
        environment[provenance.VARIABLE] = made
    with Path(log).open("w") as file:
        command = [sys.executable, "-m", module, json.dumps(settings)]
        done = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = (Path(log).read_text().strip().splitlines() or ["nothing was printed"])[-1]
        raise StudyError(f"{last} (log: {log})")
