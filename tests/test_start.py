"""What a run makes sure of before its first job: that nobody else writes, and the choice among the ready jobs."""

import os
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from readout import StudyError
from runtime import locks, patches
from workflow import part, python


def test_one_run_at_a_time_may_write_into_a_folder(tmp_path):
    """The lock goes with the process, however that ends."""
    lock = tmp_path / "results" / ".lock"
    code = "import pathlib, sys, time; from runtime import locks\nlocks.claim(pathlib.Path(sys.argv[1])); print(flush=True)\n"
    with python(code + "time.sleep(600)", lock) as process:
        process.stdout.readline()
        with pytest.raises(StudyError, match="results: another run of this study is at work; wait for its end"):
            locks.claim(lock)
    os.close(locks.claim(lock))
    assert [path.name for path in lock.parent.iterdir()] == [".lock"]


def test_jobs_that_outlived_their_run_keep_others_away(tmp_path):
    """A run that sends jobs to the cluster may begin beside them, as its jobs wait; one that works itself may not."""
    with part(tmp_path, "layers/alexnet/conv1") as job:
        assert job.stdout.readline() == "begun\n"
        locks.claim_run(tmp_path / "beside", cluster=False)
        with pytest.raises(StudyError, match="jobs of an earlier run are still at work on this study; wait for their"):
            locks.claim_run(tmp_path, cluster=False)
    with part(tmp_path, "layers/alexnet/conv1") as job:
        assert job.stdout.readline() == "begun\n"


def test_a_run_that_sends_jobs_may_begin_beside_those_of_another(tmp_path):
    with part(tmp_path, "layers/alexnet/conv1") as job:
        assert job.stdout.readline() == "begun\n"
        locks.claim_run(tmp_path, cluster=True)


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [
        (["layers/net/conv1"], ["layers/net/conv1"], "conv1.lock"),
        (["layers/net/conv1", "layers/net/conv2"], ["layers/net/conv2", "layers/net/conv3"], "conv2.lock"),
        ([], ["layers/net/conv1"], ".jobs.lock"),
        (["layers/net/conv1"], [], ".jobs.lock"),
        (["layers/net/conv1"], ["layers/net/conv2"], None),
        (["layers/net/conv1"], ["layers/other/conv1"], None),
        (["networks/net"], ["layers/net/conv1"], None),
    ],
    ids=["same", "shared", "all first", "all second", "layers", "networks", "kinds"],
)
def test_a_job_waits_for_another_that_writes_the_same_files(tmp_path, first, second, waits):
    """However the layers share jobs; without parts a job writes whatever the study lacks."""
    with part(tmp_path, *first) as one:
        assert one.stdout.readline() == "begun\n"
        with part(tmp_path, *second) as other:
            if waits:
                assert f"{waits}: held by another job or run, whose end this job waits for" in other.stdout.readline()
                one.kill()
            assert other.stdout.readline() == "begun\n"


class Ready(set):
    """Ready jobs that count how often somebody goes through all of them."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def scheduler(ready, cores=2, free=1):
    """Snakemake's scheduler as far as it knows the ready jobs and the cores, of which some are free.

    To finish the study, the job `left` must run.
    """
    result = JobScheduler.__new__(JobScheduler)
    result.workflow = SimpleNamespace(dag=SimpleNamespace(ready_jobs=ready, needrun_jobs=lambda: ["left"]))
    result.workflow.dag.finished = lambda job: False
    result.running, result.failed, result.global_resources = set(), set(), {"_cores": cores}
    result.resources = {"_cores": free}
    patches.offer_some(result)
    return result


class Job:
    """A ready job."""

    def __init__(self, priority, *wildcards, name="rule"):
        self.priority, self.wildcards, self.name = priority, wildcards, name


def begin(some, ready, count):
    """The jobs that a run begins next; of those that are offered Snakemake may take any."""
    begun = []
    for _ in range(count):
        begun.append(some.open_jobs[-1])
        ready.remove(begun[-1])
    return begun


def test_few_ready_jobs_are_all_offered():
    """As they come and go."""
    ready = Ready()
    some = scheduler(ready, free=2)
    assert some.open_jobs == []
    first, second = Job(0), Job(1)
    ready.add(first)
    assert some.open_jobs == [first]
    ready.add(second)
    assert some.open_jobs == [second, first]
    ready.remove(first)
    assert some.open_jobs == [second] == some.remaining_jobs


def test_jobs_that_are_left_when_none_is_ready_are_not_forgotten():
    """Snakemake ends a run as failed where there are such jobs."""
    ready = Ready([Job(0)])
    some = scheduler(ready)
    assert some.open_jobs == some.remaining_jobs
    ready.clear()
    assert some.open_jobs == [] and some.remaining_jobs == ["left"]


def test_of_many_ready_jobs_those_of_highest_priority_are_offered():
    """As many as cores are free; one where none is, since without any Snakemake would end."""
    ready = Ready(Job(priority) for priority in range(1000))
    for free, offered in ((2, [999, 998]), (1, [999]), (0, [999])):
        assert [job.priority for job in scheduler(ready, free=free).open_jobs] == offered
    assert len(scheduler(ready, cores=400, free=400).open_jobs) == 400
    assert [job.priority for job in begin(scheduler(ready, cores=16), ready, 1000)] == list(range(999, -1, -1))


def test_a_job_of_higher_priority_that_becomes_ready_is_offered_at_once():
    """As the cells of a grid before the next grid; also where it takes the place of one that has begun."""
    ready = Ready(Job(0) for _ in range(1000))
    some = scheduler(ready)
    begin(some, ready, 3)
    assert len(some.open_jobs) == 1
    begin(some, ready, 1)
    urgent = Job(1)
    ready.add(urgent)
    assert some.open_jobs == [urgent]


def test_a_grid_is_probed_then_ablated_then_comes_the_next():
    """Whatever Snakemake takes among equals; one ablation comes first, and makes what the others wait for."""
    cells = [f"s{i}m{j}" for i in range(4) for j in range(4)]
    steps = ("ablations", "probes")
    grids = [("net", layer, target) for layer in ("conv1", "conv2") for target in "ab"]
    ready = Ready(Job(3, *grid, cell, name=step) for cell in cells for grid in grids for step in steps)
    begun = begin(scheduler(ready, cores=16), ready, 128)
    assert [(job.wildcards[:3], job.name) for job in begun] == [
        (grid, step) for grid in reversed(grids) for step in ("ablations", *16 * ["probes"], *15 * ["ablations"])
    ]
    assert {job.wildcards for job in begun} == {(*grid, cell) for grid in grids for cell in cells}


def test_groups_of_jobs_are_offered_too():
    """Users may make some; of them Snakemake tells no wildcards."""
    group = Job(3, name="group_probes")
    del group.wildcards
    assert scheduler(Ready([Job(1, "net"), group])).open_jobs[0] is group


# The last 500 are sorted each time, when any of them can begin.
@pytest.mark.parametrize(("cores", "passes"), [(2, 5000 / (patches.SORTED - 2) + 5), (500, 5000 / (2000 - 500) + 505)])
def test_every_ready_job_is_offered_in_the_end_and_all_are_seldom_gone_through(cores, passes):
    """One job begins a round, as when others are at work; more are chosen for more cores."""
    ready = Ready(Job(0) for _ in range(5000))
    some = scheduler(ready, cores)
    assert len(set(begin(some, ready, 5000))) == 5000
    assert some.open_jobs == []
    assert ready.passes <= passes
