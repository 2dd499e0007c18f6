"""Kill runs of a tiny study at random moments, and see that each rerun ends as if nothing had happened.

`make crashes` prints a row a kill and ends with an error where something is lost, read half, or done twice. The tests
in test_crashes.py kill at chosen moments with the same means.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import torch

from workflow import TINY, Project, begin

TARGETS = tuple(
    f"results/tiny/{file}"
    for file in (
        "claims.html",
        "tables/cells.parquet",
        "tables/groups.parquet",
        "tables/redundancy.parquet",
        "faithfulness.html",
        "importance/alexnet/conv5/0/units.parquet",
        "others/alexnet.parquet",
        "figures/figure1.png",
    )
)
"""Every step, and one figure: the others are drawn by the same means, and would take as long as all cells."""


def start(project: Project, *arguments: str, printed: str = "printed.txt") -> subprocess.Popen:
    """Begin a run, which prints into a file of the project."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *(arguments or TARGETS), "--configfile", "study.yaml"]
    with (project.folder / printed).open("w") as file:
        process = begin(command, cwd=project.folder, stdout=file, stderr=subprocess.STDOUT)
    process.printed = project.folder / printed
    return process


def kill(process: subprocess.Popen) -> None:
    """`kill -9` of the run and of what it started, where it is still at work."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def used(process: subprocess.Popen) -> float:
    """Processor time of a run and of what it started, in seconds; what else the machine does leaves it as it is."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        run = psutil.Process(process.pid)
        for each in (run, *run.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(each.cpu_times()[:4])
    return total


def until(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Wait for a moment of a run, which must come before its end."""
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the run ended too early ({process.returncode}):\n{process.printed.read_text()}")
        time.sleep(0.002)


def files(project: Project) -> dict[str, int]:
    """Time of change of each file of the results under its final name."""
    return {name: stamp for name, stamp in project.stamps().items() if not name.endswith(".partial")}


def partials(project: Project) -> list[str]:
    return [str(path) for path in project.folder.rglob("*.partial")]


def noted(project: Project, kind: str) -> dict[str, Path]:
    """Snakemake's notes on the study's files: `metadata` of finished ones, `incomplete` of begun ones."""
    notes = {}
    folder = project.folder / ".snakemake" / kind
    for path in folder.rglob("*"):
        if path.is_file():
            # Snakemake cuts long names into folders that begin with @.
            name = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
            file = project.folder / urlsafe_b64decode(name).decode()
            if file.is_relative_to(project.results):
                notes[str(file.relative_to(project.results))] = path
    return notes


def undo(project: Project, *steps: str) -> None:
    """Take back steps of a finished study: their files and Snakemake's notes on them."""
    for step in steps:
        for path in (project.results / step, project.results / "logs" / step):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for name, path in noted(project, "metadata").items():
        if Path(name).parts[0] in steps:
            path.unlink()


def same(one: Path, other: Path) -> bool:
    """Whether two files of the results have the same content; of Parquet the rows, of weights the tensors."""
    if one.suffix == ".parquet":
        return pq.ParquetFile(one).read().equals(pq.ParquetFile(other).read())
    if one.suffix == ".pt":
        a, b = torch.load(one), torch.load(other)
        return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    return one.read_bytes() == other.read_bytes()


class Reference:
    """A run that nothing disturbed, and which of its files each job made."""

    def __init__(self, project: Project):
        self.project = project
        self.jobs: dict[tuple[str, str], set[str]] = {}
        for name, path in noted(project, "metadata").items():
            record = json.loads(path.read_text())
            if record["rule"] == "figure1" or Path(name).parts[0] != "figures":
                self.jobs.setdefault((record["rule"], *record["log"]), set()).add(name)
        self.names = set().union(*self.jobs.values())

    def differences(self, project: Project, names: Iterable[str]) -> list[str]:
        """What is not as in the undisturbed run: a half-written file cannot even be read."""
        wrong = []
        for name in names:
            try:
                equal = same(project.results / name, self.project.results / name)
            except Exception as error:  # whatever a reader says of a broken file
                wrong.append(f"{name}: {error}")
            else:
                if not equal:
                    wrong.append(f"{name}: differs from the undisturbed run's")
        return wrong


@dataclass
class Wreck:
    """What a kill left: files by name, jobs that were finished and that were at work, remains of half-written files."""

    files: dict[str, int]
    finished: set[tuple[str, str]]
    at_work: set[tuple[str, str]]
    partials: list[str]
    wrong: list[str]

    @classmethod
    def of(cls, project: Project, reference: Reference) -> "Wreck":
        found, begun, ended = files(project), noted(project, "incomplete"), noted(project, "metadata")
        finished = {job for job, names in reference.jobs.items() if names <= found.keys() - begun.keys()}
        at_work = {job for job, names in reference.jobs.items() if names & begun.keys()}
        wrong = reference.differences(project, found)
        # Without a note the file would outlive every later change of a setting.
        wrong += [
            f"{name}: is there, and Snakemake knows nothing of it"
            for name in found.keys() - begun.keys() - ended.keys()
        ]
        return cls(found, finished, at_work, partials(project), wrong)


@dataclass
class Rerun:
    """A run after a kill: whether Snakemake asked for `--unlock`, how many jobs it did, how long it took."""

    unlocked: bool
    jobs: int
    seconds: float
    wrong: list[str]


def rerun(project: Project, wreck: Wreck, reference: Reference) -> Rerun:
    """Run again as the README says, and see that the end is the undisturbed run's."""
    begin = time.perf_counter()
    done = project.snakemake(*TARGETS)
    unlocked = done.returncode != 0 and "--unlock" in done.stdout + done.stderr
    if unlocked:
        project.run("--unlock")
        done = project.snakemake(*TARGETS)
    seconds = time.perf_counter() - begin
    printed = done.stdout + done.stderr
    if done.returncode:
        return Rerun(unlocked, 0, seconds, [f"the rerun failed:\n{printed}"])
    count = re.search(r"^total\s+(\d+)$", printed, flags=re.MULTILINE)
    jobs = int(count[1]) if count else 0
    after = files(project)
    wrong = reference.differences(project, after)
    wrong += [f"{name}: is missing" for name in reference.names - after.keys()]
    wrong += [f"{name}: is left" for name in partials(project)]
    kept = {name for job in wreck.finished for name in reference.jobs[job]}
    wrong += [f"{name}: was finished, and made again" for name in kept if after[name] != wreck.files[name]]
    if jobs != len(reference.jobs) - len(wreck.finished):
        wrong.append(f"{jobs} jobs ran, where {len(reference.jobs) - len(wreck.finished)} were not finished")
    return Rerun(unlocked, jobs, seconds, wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Project.create(Path(folder) / "undisturbed", TINY)
        before = os.times()
        undisturbed.run(*TARGETS)
        after = os.times()
        length = after.children_user + after.children_system - before.children_user - before.children_system
        reference = Reference(undisturbed)
        print(
            f"undisturbed: {len(reference.jobs)} jobs, {length:.1f} s of processor time, in which the moments are told; "
            f"{after.elapsed - before.elapsed:.1f} s by the clock; seed {options.seed}\n"
        )
        print(
            "kill  after  finished  at work  half-written  unlock  rerun: jobs    time  result  at work were",
            flush=True,
        )
        for number in range(options.kills):
            # One in each of equal parts of the run's length.
            moment = (number + draw.random()) / options.kills * length
            project = Project.create(Path(folder) / "project", TINY)
            process = start(project)
            while used(process) < moment and process.poll() is None:
                time.sleep(0.01)
            kill(process)
            wreck = Wreck.of(project, reference)
            again = rerun(project, wreck, reference)
            violations = wreck.wrong + again.wrong
            wrong += [f"kill {number + 1}: {violation}" for violation in violations]
            at_work = ", ".join(f"{count} {rule}" for rule, count in Counter(job[0] for job in wreck.at_work).items())
            print(
                f"{number + 1:4}  {moment:4.1f}s  {len(wreck.finished):8}  {len(wreck.at_work):7}"
                f"  {len(wreck.partials):12}  {'asked' if again.unlocked else 'no':6}  {again.jobs:11}  {again.seconds:5.1f}s"
                f"  {'WRONG' if violations else 'equal'}   {at_work or '-'}",
                flush=True,
            )
            shutil.rmtree(project.folder)
    if wrong:
        sys.exit("\n".join(["", *wrong]))
    print("\nEvery rerun ended with the undisturbed run's files; no finished job ran again.")


if __name__ == "__main__":
    main()
