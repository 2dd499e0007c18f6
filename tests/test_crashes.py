"""Runs that were cut off, refused by the disk or begun twice: what a rerun makes of them, and what the messages say.

`make crashes` kills at random moments; here it is done at chosen ones.
"""

import contextlib
import os
import re
import shutil

import psutil
import pytest

from crashes import TARGETS, Reference, Wreck, files, kill, noted, partials, rerun, same, start, undo, until
from workflow import ROOT, TINY, Project, ran

pytestmark = pytest.mark.workflow

CELLS = ("probes", "ablations", "controls", "shapley", "pseudo", "importance", "redundancy")
AFTER_CELLS = ("tables", "claims.parquet", "claims.html", "faithfulness.parquet", "faithfulness.html", "figures")
AFTER_NETWORKS = ("activations", "means", "baseline", "others", "cells", *CELLS, *AFTER_CELLS)


@pytest.fixture(scope="module")
def reference(finished):
    """The undisturbed run."""
    return Reference(finished)


def made(project, *steps):
    """How many files these steps have made."""
    return sum(len(list((project.results / step).rglob("[!.]*.parquet"))) for step in steps)


def commands_of_the_readme():
    """The commands of the section on runs that were cut off."""
    section = re.search(r"## When a run was cut off\n(.*?)\n## ", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return re.findall(r"^    snakemake (.*?) *(?:#.*)?$", section[1], flags=re.MULTILINE)


@pytest.mark.slow
def test_killed_in_the_training(finished, tmp_path):
    """Only Snakemake's own process is killed, as a system out of memory does: the training ends with it."""
    project = Project.create(tmp_path / "project", TINY)
    target = "results/tiny/networks/alexnet/accuracy.parquet"
    process = start(project, target)

    def trainings():
        with contextlib.suppress(psutil.Error):
            return [child for child in psutil.Process(process.pid).children() if "jobs.networks" in child.cmdline()]

    until(process, trainings)
    training = trainings()[0]
    process.kill()
    process.wait()
    # It may still be at its imports, which take a while on a busy machine.
    training.wait(60)
    assert not (project.results / "networks" / "alexnet" / "weights.pt").exists()
    before = files(project)
    assert {"images.parquet", "networks/alexnet/layers.parquet"} == before.keys()
    assert "It can be removed with the --unlock argument" in " ".join(project.fail(target).split())
    project.run("--unlock")
    project.run(target)
    after = files(project)
    assert {name: after[name] for name in before} == before
    for name in ("weights.pt", "accuracy.parquet"):
        assert same(project.results / "networks/alexnet" / name, finished.results / "networks/alexnet" / name)
    assert partials(project) == []


@pytest.mark.slow
def test_killed_in_the_activations_and_again_among_the_cells(project, reference):
    """The README's commands are all that is needed; jobs that were finished before either kill are not done again."""
    undo(project, *AFTER_NETWORKS)
    process = start(project)
    until(process, lambda: made(project, "activations") >= 4)
    kill(process)
    first = Wreck.of(project, reference)
    assert first.wrong == []
    # A job whose files are there may not have been noted yet.
    assert 3 <= len(first.finished) < 20

    refused, unlock, again = commands_of_the_readme()
    assert (refused, unlock) == (again, "--unlock")
    printed = project.fail()
    assert "Directory cannot be locked" in printed
    assert "It can be removed with the --unlock argument" in " ".join(printed.split())
    project.run(unlock)

    process = start(project)
    until(process, lambda: made(project, *CELLS) >= 100)
    kill(process)
    second = Wreck.of(project, reference)
    assert second.wrong == []
    assert second.finished > first.finished
    # At most one job a core, and those that Snakemake had just begun.
    assert len(second.at_work) <= 4
    last = rerun(project, second, reference)
    assert last.wrong == []
    assert last.unlocked
    kept = {name for job in first.finished for name in reference.jobs[job]}
    after = files(project)
    assert {name for name in kept if after[name] != first.files[name]} == set()


def append(project, *lines):
    """Lines at the end of the project's Snakefile, which no job depends on."""
    snakefile = project.folder / "Snakefile"
    snakefile.write_text("\n".join([snakefile.read_text(), *lines, ""]))


def test_a_cell_is_noted_before_it_begins(project, reference):
    """Killed between a cell's end and Snakemake's note of its beginning, its file would be taken as finished for ever."""
    undo(project, *CELLS, *AFTER_CELLS)
    append(
        project,
        "import time, snakemake.jobs as theirs",
        "register = theirs.Job.register",
        "theirs.Job.register = lambda job, external_jobid=None: (time.sleep(1), register(job, external_jobid))",
    )
    process = start(project)
    until(process, lambda: made(project, *CELLS) >= 1)
    kill(process)
    assert Wreck.of(project, reference).wrong == []
    assert noted(project, "incomplete")


@pytest.mark.slow
def test_a_run_that_is_told_to_end_does_so(project, reference):
    """SIGTERM, as `kill` and Slurm send it, comes while the main thread holds the scheduler's lock.

    Snakemake's own handler would wait for that lock for ever, and a rerun on a cluster for this run.
    """
    undo(project, *CELLS, *AFTER_CELLS)
    append(
        project,
        "import os, signal, snakemake.scheduling.job_scheduler as theirs",
        "finish = theirs.JobScheduler._finish_jobs",
        "def finish_jobs(self):",
        "    if self.finished_jobs >= 20 and not self._user_kill:",
        "        assert self._lock.locked()",
        "        os.kill(os.getpid(), signal.SIGTERM)",
        "    finish(self)",
        "theirs.JobScheduler._finish_jobs = finish_jobs",
    )
    run = start(project)
    run.wait()
    printed = (project.folder / "printed.txt").read_text()
    assert run.returncode == 1, printed
    assert "Will exit after finishing currently running jobs" in printed
    wreck = Wreck.of(project, reference)
    assert wreck.wrong == wreck.partials == []
    assert 20 <= made(project, *CELLS) < 100
    (project.folder / "Snakefile").write_text((ROOT / "Snakefile").read_text())
    last = rerun(project, wreck, reference)
    assert last.wrong == []
    assert not last.unlocked


@pytest.mark.slow
def test_a_second_run_refuses(project, reference):
    """By Snakemake's lock; the first ends as an undisturbed run does."""
    undo(project, *CELLS, *AFTER_CELLS)
    first = start(project)
    until(first, lambda: made(project, *CELLS) >= 1)
    assert "Directory cannot be locked" in project.fail(*TARGETS)
    assert first.wait() == 0, (project.folder / "printed.txt").read_text()
    assert reference.differences(project, reference.names) == []


@pytest.mark.slow
def test_of_two_runs_in_the_same_moment_one_refuses(project, reference):
    """Both have passed Snakemake's lock; the other ends as an undisturbed run does."""
    undo(project, *AFTER_CELLS)
    append(
        project,
        "import os, pathlib, time, snakemake.persistence.file as theirs",
        "lock = theirs.FilePersistence._write_locks",
        "def meet(self, *what):",
        "    pathlib.Path(f'here-{os.getpid()}').touch()",
        "    end = time.monotonic() + 120",
        "    while len([*pathlib.Path().glob('here-*')]) < 2 and time.monotonic() < end:",
        "        time.sleep(0.05)",
        "    lock(self, *what)",
        "theirs.FilePersistence._write_locks = meet",
    )
    runs = {name: start(project, printed=name) for name in ("one.txt", "other.txt")}
    codes = {name: run.wait() for name, run in runs.items()}
    printed = {code: (project.folder / name).read_text() for name, code in codes.items()}
    assert printed.keys() == {0, 1}
    assert "results/tiny: another run of this study is at work; wait for its end and run again" in printed[1]
    assert "Traceback" not in printed[1]
    assert reference.differences(project, reference.names) == []


@pytest.mark.slow
def test_one_cell_fails(project, reference):
    """The others are finished, the message names the cell and its log, and after mending only it and the tables run."""
    undo(project, "ablations", *AFTER_CELLS)
    place = "alexnet/dense1/0/s1m1"
    sound = (project.folder / "Snakefile").read_text()
    append(
        project,
        "from runtime import parquet",
        "write = parquet.write",
        "def writes(path, *content):",
        f"    if str(path) == 'results/tiny/ablations/{place}.parquet':",
        "        raise ZeroDivisionError('a worker breaks')",
        "    write(path, *content)",
        "parquet.write = writes",
    )
    printed = project.fail(*TARGETS)
    log = f"results/tiny/logs/ablations/{place}.log"
    assert f"ZeroDivisionError: a worker breaks (unexpected; the traceback is in {log})" in printed
    assert "ZeroDivisionError" in (project.folder / log).read_text()
    wreck = Wreck.of(project, reference)
    assert wreck.wrong == []
    unfinished = sorted(rule for rule, _ in reference.jobs.keys() - wreck.finished)
    assert unfinished == ["ablations", "claims", "faithfulness", "layer_tables", "tables"]
    (project.folder / "Snakefile").write_text(sound)
    last = rerun(project, wreck, reference)
    assert last.wrong == []
    assert (last.unlocked, last.jobs) == (False, 5)
    assert not (project.folder / log).exists()


def mount(*arguments):
    """Mount, or skip the test where that is not allowed."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting takes root, and a system that knows mount")
    done = ran(["mount", *map(str, arguments)])
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def on_small_disk(project):
    """The project with its results on a disk of their own, which has room for a few more files."""
    undo(project, *CELLS, *AFTER_CELLS)
    results = project.folder / "results"
    kept = results.rename(project.folder / "kept")
    results.mkdir()
    size = sum(-(-path.stat().st_size // 4096) * 4096 for path in kept.rglob("*") if path.is_file())
    mount("-t", "tmpfs", "-o", f"size={size + 40 * 4096}", "tmpfs", results)
    try:
        shutil.copytree(kept, results, dirs_exist_ok=True)
        yield project
    finally:
        ran(["umount", "--lazy", results], check=True)


def test_disk_full(on_small_disk, reference):
    """The message names a file and the way out; what was finished stays; with more room a rerun does the rest."""
    project = on_small_disk
    printed = project.fail(*TARGETS)
    named = re.search(
        r"results/tiny/\S+: cannot be written \(No space left on device\); make room on that disk and run again",
        printed,
    )
    assert named
    # A run of thousands of cells must not say it a thousand times.
    assert 1 <= printed.count("cannot be written (") <= 12
    wreck = Wreck.of(project, reference)
    assert wreck.wrong == []
    assert wreck.partials == []
    assert 10 < made(project, *CELLS) <= 40
    mount("-o", "remount,size=100m", project.folder / "results")
    last = rerun(project, wreck, reference)
    assert last.wrong == []
    assert not last.unlocked


@pytest.fixture
def read_only(project):
    """The project with results that cannot be written, and how to lift that."""
    undo(project, *CELLS, *AFTER_CELLS)
    results = project.folder / "results"
    if os.geteuid() == 0:
        # Root writes whatever the permissions are.
        mount("--bind", results, results)
        try:
            mount("-o", "remount,ro,bind", results)
            yield project, lambda: mount("-o", "remount,rw,bind", results)
        finally:
            ran(["umount", "--lazy", results], check=True)
        return
    folders = [results, *(path for path in results.rglob("*") if path.is_dir())]

    def permit(mode):
        for folder in folders:
            folder.chmod(mode)

    permit(0o555)
    try:
        yield project, lambda: permit(0o755)
    finally:
        permit(0o755)


def test_results_that_cannot_be_written(read_only, reference):
    """One message before any job, and nothing is harmed."""
    project, lift = read_only
    wreck = Wreck.of(project, reference)
    printed = project.fail(*TARGETS)
    assert re.search(
        r"results/tiny: cannot be written \((Read-only file system|Permission denied)\); make that folder writable",
        printed,
    )
    assert "Traceback" not in printed
    assert files(project) == wreck.files
    lift()
    assert rerun(project, wreck, reference).wrong == []
