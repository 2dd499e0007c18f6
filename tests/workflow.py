"""A small study in a copy of the project, for tests that run Snakemake."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "envs")

TINY = {
    "study": "tiny",
    "images": {"study": 20},
    "networks": [
        {
            "name": "alexnet",
            "model": "small_alexnet",
            "weights": {"epochs": 1, "batch": 128, "learning_rate": 0.002},
            "transform": {"resize": None, "crop": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            "layers": ["conv5", "dense1", "dense2"],
            "classes": ["0", "1", "2", "3"],
            "targets": ["0", "1"],
        }
    ],
    "probes": {"published": {"draws": 2, "units": 10}},
    "controls": {"layers": 2, "random": 3, "matched": 1, "directions": 2, "resample": 1, "pseudo": 2},
    "importance": {"layers": 2, "targets": ["0"], "random": 2},
    # Has a study of its own: tests/test_occlusion_study.py.
    "occlusion": None,
    "figures": {"target": "0"},
    "device": "cpu",
}


def written(folder: Path) -> dict[str, int]:
    """Every file below a folder, and when it was changed."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}


# ---- processes, of which none is waited for without a limit

LIMIT = 300
"""Seconds that a test waits for anything; the longest that there is, a run on Slurm, takes 90 on 2 cores."""


def stop(process: subprocess.Popen) -> None:
    """End a process that was begun here, and all that it started; first, each Python among them prints its stacks.

    It prints before those that it started, since two that print at once mix their lines.
    """
    with suppress(subprocess.TimeoutExpired):
        process.send_signal(signal.SIGABRT)
        process.wait(5)
    for number, seconds in ((signal.SIGABRT, 2), (signal.SIGKILL, 0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                os.killpg(process.pid, 0)  # an error as soon as none is left
                time.sleep(0.05)
    process.wait()


def begin(command: Sequence[object], seconds: float | None = LIMIT, **given) -> subprocess.Popen:
    """Start a process in a group of its own, as `subprocess.Popen` does; it is stopped after so many seconds."""
    environment = {**(given.pop("env", None) or os.environ), "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen([*map(str, command)], env=environment, start_new_session=True, **given)

    def late() -> None:
        # Once it was waited for, another process may have its number.
        if process.returncode is None:
            stop(process)

    if seconds is not None:
        timer = threading.Timer(seconds, late)
        timer.daemon = True
        timer.start()
    return process


def ran(
    command: Sequence[object], seconds: float | None = LIMIT, check: bool = False, **given
) -> subprocess.CompletedProcess:
    """Wait for the end of a process and keep its output as text; with that, one that takes too long fails the test.

    So does, where this is to be checked, one that ends with an error.
    """
    with begin(command, None, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **given) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            stop(process)
            # What left the group, and may hold the pipes open, is not waited for either.
            out, err = process.communicate(timeout=10)
            words = shlex.join(map(str, command))
            raise AssertionError(f"not ended after {seconds:g} s: {words}\nIt printed:\n{out}{err}") from None
        except BaseException:
            stop(process)
            raise
    assert not (check and process.returncode), out + err
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@contextmanager
def python(code: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """A process that runs code with the packages of the project, killed at the end of the block."""
    with begin(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def part(results: Path, *parts: str) -> AbstractContextManager[subprocess.Popen]:
    """A job of a cluster that has parts of a study to itself; it prints `begun` when it has."""
    code = (
        "import json, sys, time; from runtime import locks\n"
        "locks.claim_parts(sys.argv[1], json.loads(sys.argv[2]))\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)\n"
    )
    return python(code, results, json.dumps(parts))


class Project:
    """A copy of the project with a study; `config` is what the study changes of config.yaml.

    `limit` is the number of seconds that a run may take, None without one.
    """

    limit: float | None = LIMIT

    def __init__(self, folder: Path, config: dict):
        self.folder = folder
        self.environment: dict[str, str] = {}
        self.write(config)

    @classmethod
    def create(cls, folder: Path, config: dict) -> "Project":
        folder.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / part)
        return cls(folder, config)

    def copy(self, folder: Path) -> "Project":
        """The same, results and Snakemake's records included, to change something in."""
        shutil.copytree(self.folder, folder)
        return Project(folder, self.config)

    def write(self, config: dict) -> None:
        self.config = config
        (self.folder / "study.yaml").write_text(yaml.safe_dump(config))

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.config["study"]

    def snakemake(self, *arguments: str, study: str | Path = "study.yaml") -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments, "--configfile", str(study)]
        return ran(command, self.limit, cwd=self.folder, env=os.environ | self.environment)

    def run(self, *arguments: str, study: str | Path = "study.yaml") -> str:
        """Run the workflow; what it printed."""
        done = self.snakemake(*arguments, study=study)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def fail(self, *arguments: str) -> str:
        """Run the workflow, which must fail; what it printed."""
        done = self.snakemake(*arguments)
        assert done.returncode != 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> dict[str, int]:
        """Number of jobs of each rule that a dry run announces; `all` and `total` apart."""
        printed = self.run("--dry-run", "--quiet", "rules", *arguments)
        rows = re.findall(r"^([A-Za-z_]\w*)\s+(\d+)\s*$", printed, flags=re.MULTILINE)
        return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}

    def stamps(self) -> dict[str, int]:
        """Time of change of every file of the results but the logs and the locks."""
        return {
            str(path.relative_to(self.results)): path.stat().st_mtime_ns
            for path in self.results.rglob("*")
            if path.is_file() and "logs" not in path.parts and not path.name.endswith(".lock")
        }
