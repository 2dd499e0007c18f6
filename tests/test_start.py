"""What a run makes sure of before its first job: the choice among the ready ones."""

from types import SimpleNamespace

from snakemake.scheduling.job_scheduler import JobScheduler

from jobs import start


class Ready(set):
    """Ready jobs that count how often somebody goes through all of them."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def scheduler(ready):
    """Snakemake's scheduler as far as it knows the ready jobs."""
    result = JobScheduler.__new__(JobScheduler)
    result.workflow = SimpleNamespace(dag=SimpleNamespace(ready_jobs=ready))
    start.offer_some(result)
    return result


class Job:
    def __init__(self, priority):
        self.priority = priority


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
    assert some.open_jobs == [second]


def test_of_many_ready_jobs_those_of_highest_priority_are_offered():
    """However many there are; once half of these have begun, others too."""
    ready = Ready(Job(priority) for priority in range(10 * start.OFFERED))
    some = scheduler(ready)
    offered = some.open_jobs
    assert sorted(job.priority for job in offered) == list(range(9 * start.OFFERED, 10 * start.OFFERED))
    urgent = Job(100 * start.OFFERED)
    ready.add(urgent)
    assert urgent not in some.open_jobs
    ready.difference_update(offered[: start.OFFERED // 2])
    assert urgent in some.open_jobs and len(some.open_jobs) == start.OFFERED


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
    assert ready.passes <= 5000 / (start.OFFERED / 2) + start.OFFERED + 2
