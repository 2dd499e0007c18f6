"""The study on a real Slurm of one node: few jobs, one killed in the middle and resumed, the same tables as a local run."""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import crashes
import slurm
from workflow import TINY, Project, begin, part, ran

pytestmark = pytest.mark.workflow
PROFILE = ("--workflow-profile", "profiles/slurm")


@pytest.fixture(scope="module")
def cluster():
    if absent := slurm.missing():
        pytest.skip(f"Slurm is not here ({', '.join(absent)}): apt-get install slurm-wlm munge")
    # A short path, since those of sockets are bounded.
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, slurm.Cluster(Path(folder)) as started:
        yield started


def tables(project):
    """Every Parquet file of the results by its path."""
    return {str(path.relative_to(project.results)): pq.read_table(path) for path in project.results.rglob("*.parquet")}


def command(*arguments):
    # The plugin's first look at a job's state would come after 40 seconds, and it needs an account where there are some.
    # One core a job: two layers at a time here, and another number of cores than the local run had.
    extra = (
        "--set-threads",
        "layers=1",
        "--slurm-init-seconds-before-status-checks",
        "2",
        "--seconds-between-status-checks",
        "2",
        "--slurm-no-account",
        "--slurm-status-command",
        "squeue",
    )
    return [sys.executable, "-m", "snakemake", *PROFILE, *extra, *arguments, "--configfile", "study.yaml"]


@pytest.mark.parametrize(("targets", "jobs"), [(["0", "1"], 1), (["0", "1", "2", "3"], 2)])
def test_plan_has_few_jobs(targets, jobs, tmp_path):
    """Three layers: all in one job where they have 192 cells, two a job where they have 128 each."""
    config = TINY | {"networks": [TINY["networks"][0] | {"targets": targets}]}
    project = Project.create(tmp_path / "project", config)
    arguments = [sys.executable, "-m", "snakemake", *PROFILE, "--executor", "dryrun", "--dry-run", "--quiet", "rules"]
    done = ran([*arguments, "--configfile", "study.yaml"], cwd=project.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^([a-z]+)\s+(\d+)\s*$", done.stdout + done.stderr, flags=re.MULTILINE))
    assert counts == {"all": "1", "begin": "1", "network": "1", "layers": str(jobs), "total": str(3 + jobs)}


def test_a_layer_added_is_made_for_the_network_and_not_by_its_own_job(project):
    """The classes' baselines are there, and only the activations of the new layer are not."""
    config = project.config | {
        "networks": [project.config["networks"][0] | {"layers": ["conv4", "conv5", "dense1", "dense2"]}]
    }
    project.write(config)
    done = "results/tiny/cluster/networks/alexnet.done"
    project.run(done, *PROFILE, "--executor", "local")
    for step in ("activations", "means"):
        assert (project.results / step / "alexnet" / "conv4" / "3.parquet").exists()
    assert (project.folder / done).exists()
    assert "Nothing to be done" in project.run(done, *PROFILE, "--executor", "local")


@pytest.mark.slow
def test_trials_are_made_in_the_jobs_of_layers_and_observers_after_them(project):
    """The pool by the first job; a network's observers see the trials of all of its layers, and so come last."""
    task = {"sets": 2, "bin": 2, "references": 5, "visualisations": {"batch": 2, "steps": 2}}
    project.write(TINY | {"occlusion": task})
    local = (*PROFILE, "--executor", "local")
    project.run("results/tiny/cluster/layers/alexnet/conv5.done", *local)
    assert (project.results / "occlusions" / "pool.parquet").exists()
    grid = "alexnet/conv5/0"
    assert len(list((project.results / "visualisations" / grid).glob("*.parquet"))) == 16
    assert (project.results / "trials" / grid / "trials.parquet").exists()
    assert not (project.results / "observers").exists()
    project.run(*local)
    assert (project.results / "observers" / "alexnet" / "observers.parquet").exists()
    assert (project.results / "legibility.html").exists()
    # A run without the cluster finds nothing to do.
    assert project.planned() == {}


def test_a_run_refuses_beside_jobs_that_outlived_theirs(project):
    """They write the same files."""
    with part(project.results, "layers/alexnet/dense1") as job:
        assert job.stdout.readline() == "begun\n"
        printed = project.fail("--forcerun", "claims")
    assert "results/tiny: jobs of an earlier run are still at work on this study; wait for their end" in printed
    assert "Traceback" not in printed


def test_a_job_plans_after_the_end_of_the_one_that_it_waits_for(project):
    """Else it would make the other's files again; here the one job of three layers waits for that of another."""
    tables, log = project.results / "tables" / "alexnet", project.results / "logs/cluster/layers/alexnet/conv5.log"
    local = (*PROFILE, "--executor", "local")
    project.run("results/tiny/cluster/networks/alexnet.done", *local)
    made = tables.rename(project.folder / "made")
    with part(project.results, "layers/alexnet/dense1") as job:
        assert job.stdout.readline() == "begun\n"
        run = crashes.start(project, "results/tiny/cluster/layers/alexnet/conv5.done", *local)
        try:
            crashes.until(run, lambda: log.exists() and "dense1.lock: held by another job" in log.read_text())
        except BaseException:
            crashes.kill(run)
            raise
        made.rename(tables)
    assert run.wait() == 0, (project.folder / "printed.txt").read_text()
    assert "Nothing to be done" in log.read_text()


@pytest.mark.slow
def test_a_killed_job_is_resumed_and_the_tables_are_those_of_a_local_run(cluster, finished, tmp_path):
    project = Project.create(tmp_path / "project", TINY)
    # A job a layer, so that there are others than the one that is killed.
    snakefile = project.folder / "workflow" / "cluster.smk"
    snakefile.write_text(snakefile.read_text().replace("CELLS_A_JOB = 256", "CELLS_A_JOB = 64"))
    place = project.results / "probes" / "alexnet" / "dense1"
    log = (project.folder / "out").open("w")
    run = begin(
        command("--retries", "0"), cwd=project.folder, env=cluster.environment, stdout=log, stderr=subprocess.STDOUT
    )
    # Killed when some of the layer's cells are made and others not.
    while run.poll() is None and len(list(place.rglob("s*.parquet"))) < 5:
        time.sleep(0.05)
    assert run.returncode is None, (project.folder / "out").read_text()
    jobs = cluster.run("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines()
    victim = next(line.split()[0] for line in jobs if "rule_layers" in line and "dense1" in line)
    cluster.run("scancel", "--signal=KILL", "--full", victim)
    run.wait()
    said = (project.folder / "out").read_text()
    assert run.returncode == 1, said
    assert "Error in rule layers" in said and "dense1.done" in said
    before = {path: path.stat().st_mtime_ns for path in place.rglob("s*.parquet")}
    assert 5 <= len(before) < 32
    assert not (project.results / "tables" / "alexnet" / "dense1.parquet").exists()

    done = ran(command(), cwd=project.folder, env=cluster.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    # The run that sends the jobs ends with the headline; the one that makes the claims, within the last job, does not.
    headline = "The paper's claims, as this study judges them"
    assert (done.stdout + done.stderr).count(headline) == 1
    assert not any(headline in log.read_text() for log in (project.results / "logs" / "cluster").rglob("*.log"))
    again = [path for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert len(again) <= 2, "only cells that were being made when the job was killed may be made again"
    found, expected = tables(project), tables(finished)
    assert found.keys() == expected.keys()
    for name, table in expected.items():
        assert found[name].equals(table), name
    # And a local run finds nothing to do.
    assert "Nothing to be done" in project.run()
