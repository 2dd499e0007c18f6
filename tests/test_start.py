"""What a run makes sure of before its first job: that nobody else writes, and the choice among the ready jobs."""

import os
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from jobs import start
from readout import StudyError
from workflow import python

PART = "import sys, time; from jobs import start; start.claim_part(*sys.argv[1:]); print('begun', flush=True); time.sleep(60)"


def test_one_run_at_a_time_may_write_into_a_folder(tmp_path):
    """The lock goes with the process, however that ends."""
    code = "import sys, time; from jobs import start; start.claim(sys.argv[1]); print(flush=True); time.sleep(60)"
    lock = tmp_path / "results" / ".lock"
    with python(code, lock) as process:
        process.stdout.readline()
        with pytest.raises(StudyError, match="results: another run of this study is at work; wait for its end"):
            start.claim(lock)
        process.kill()
    os.close(start.claim(lock))
    assert [path.name for path in lock.parent.iterdir()] == [".lock"]


def test_jobs_that_outlived_their_run_keep_others_away(tmp_path):
    """A run that sends jobs to the cluster may begin beside them, as its jobs wait; one that works itself may not."""
    with python(PART, tmp_path, "layers/alexnet/conv1") as job:
        assert job.stdout.readline() == "begun\n"
        start.claim_run(tmp_path, cluster=True)
        with pytest.raises(StudyError, match="jobs sent to a cluster are at work on this study; wait for"):
            start.claim(tmp_path / ".jobs.lock", held=start.JOBS_LEFT)
        job.kill()


def test_a_job_refuses_beside_a_run_without_a_cluster(tmp_path):
    """As when it was still in the queue when that run began."""
    start.claim_run(tmp_path, cluster=False)
    with pytest.raises(StudyError, match="another run of this study is at work"):
        start.claim_part(tmp_path, "layers/alexnet/conv1")


def test_a_job_waits_for_another_of_its_part_alone(tmp_path):
    """Two jobs would write the same files; jobs of two layers write different ones."""
    with (
        python(PART, tmp_path, "layers/alexnet/conv1") as first,
        python(PART, tmp_path, "layers/alexnet/conv2") as other,
    ):
        assert first.stdout.readline() == other.stdout.readline() == "begun\n"
        with python(PART, tmp_path, "layers/alexnet/conv1") as second:
            assert "conv1.lock: held by another job, whose end this one waits for" in second.stdout.readline()
            first.kill()
            assert second.stdout.readline() == "begun\n"
            second.kill()
        other.kill()


class Ready(set):
    """Ready jobs that count how often somebody goes through all of them."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def scheduler(ready, cores=2):
    """Snakemake's scheduler as far as it knows the ready jobs; to finish the study, the job `left` must run."""
    result = JobScheduler.__new__(JobScheduler)
    result.workflow = SimpleNamespace(dag=SimpleNamespace(ready_jobs=ready, needrun_jobs=lambda: ["left"]))
    result.workflow.dag.finished = lambda job: False
    result.running, result.failed, result.global_resources = set(), set(), {"_cores": cores}
    start.offer_some(result)
    return result


class Job:
    """A ready job; `wildcards` as those of a cell's."""

    def __init__(self, priority, *wildcards):
        self.priority, self.wildcards = priority, wildcards


def test_few_ready_jobs_are_all_offered():
    """As they come and go."""
    ready = Ready()
    some = scheduler(ready)
    assert some.open_jobs == []
    first, second = Job(0), Job(1)
    ready.add(first)
    assert some.open_jobs == [first]
    ready.add(second)
    assert set(some.open_jobs) == {first, second}
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
    """However many there are; once no more than the cores are left, others too."""
    ready = Ready(Job(priority) for priority in range(10 * start.OFFERED))
    some = scheduler(ready)
    offered = some.open_jobs
    assert sorted(job.priority for job in offered) == list(range(9 * start.OFFERED, 10 * start.OFFERED))
    urgent = Job(100 * start.OFFERED)
    ready.add(urgent)
    ready.difference_update(offered[:-3])
    assert set(some.open_jobs) == set(offered[-3:])
    ready.remove(offered[-3])
    assert urgent in some.open_jobs and len(some.open_jobs) == start.OFFERED


def test_the_cells_of_a_grid_are_offered_together():
    """Of four grids of 32 jobs each two at a time."""
    cells = [Job(3, "net", "layer", grid, f"s{i}m{i}") for i in range(32) for grid in "abcd"]
    ready = Ready(cells)
    some = scheduler(ready)
    assert {job.wildcards[2] for job in some.open_jobs} == {"c", "d"}
    ready.difference_update(some.open_jobs)
    assert {job.wildcards[2] for job in some.open_jobs} == {"a", "b"}


def test_more_are_offered_to_more_cores():
    """So that few rounds go through all."""
    assert len(scheduler(Ready(Job(0) for _ in range(5000)), cores=500).open_jobs) == 2000


def test_every_ready_job_is_offered_in_the_end_and_all_are_seldom_gone_through():
    """One job begins a round, as on one core; two are made ready by every other."""
    ready, begun = Ready(Job(0) for _ in range(3000)), 0
    some = scheduler(ready)
    while offered := some.open_jobs:
        ready.remove(offered[0])
        begun += 1
        if begun % 2 == 0 and begun <= 2000:
            ready.update([Job(1), Job(1)])
    assert begun == 5000 and not ready
    # The last jobs are all offered each time.
    assert ready.passes <= 5000 / (start.OFFERED - 2) + start.OFFERED + 2
