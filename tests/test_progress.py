"""How long a run has still to go, worked out by hand, and which of its messages are printed."""

import pytest

from runtime.progress import Progress, in_words, seconds_left


def test_jobs_left_take_the_mean_of_their_rule():
    """a: 2 s a job, 5 left, 10 s. b: 15 s a job, 4 left, 60 s. 50 s of work were done in 25 s: two jobs side by side."""
    left, ended, spent = {"a": 5, "b": 4}, {"a": 10, "b": 2}, {"a": 20.0, "b": 30.0}
    assert seconds_left(left, ended, spent, elapsed=25.0) == pytest.approx((10 + 60) / 2)


def test_jobs_of_a_rule_that_has_not_ended_any_take_the_mean_of_all():
    """20 jobs of 2.5 s on average, and one of 20 jobs left is of another rule: 19 x 2 + 1 x 2.5, two side by side."""
    left, ended, spent = {"a": 19, "new": 1}, {"a": 10, "b": 10}, {"a": 20.0, "b": 30.0}
    assert seconds_left(left, ended, spent, elapsed=25.0) == pytest.approx((38 + 2.5) / 2)


def test_long_jobs_that_come_first_do_not_stand_for_short_ones_that_follow():
    """Four trainings of 30 s say nothing of three thousand cells; once each rule has ended a job, they do not count."""
    left = {"probes": 1600, "ablations": 1600}
    ended, spent = {"networks": 40}, {"networks": 1200.0}
    assert seconds_left(left, ended, spent, elapsed=600.0) is None
    ended, spent = ended | {"probes": 1, "ablations": 1}, spent | {"probes": 0.05, "ablations": 0.15}
    # 3200 jobs of 0.1 s on average, two side by side.
    assert seconds_left(left, ended, spent, elapsed=600.1) == pytest.approx(160, rel=1e-3)


@pytest.mark.parametrize(
    ("left", "ended", "elapsed", "told"),
    [
        (99, 1, 10.0, True),
        (99, 1, 9.9, False),
        (100, 1, 10.0, False),
        (9, 0, 20.0, False),
    ],
)
def test_nothing_is_said_before_ten_seconds_and_one_percent(left, ended, elapsed, told):
    assert (seconds_left({"a": left}, {"a": ended} if ended else {}, {"a": 5.0}, elapsed) is not None) == told


def test_nothing_is_said_while_more_than_a_tenth_of_the_jobs_left_are_of_unknown_length():
    known = {"a": 10}, {"a": 10.0}
    assert seconds_left({"a": 90, "new": 10}, *known, elapsed=10.0) == pytest.approx(100)
    assert seconds_left({"a": 89, "new": 11}, *known, elapsed=10.0) is None


def test_jobs_that_took_no_time_say_nothing():
    assert seconds_left({"a": 10}, {"a": 10}, {"a": 0.0}, elapsed=10.0) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute left"),
        (44, "less than a minute left"),
        (46, "about 1 minute left"),
        (89, "about 1 minute left"),
        (170, "about 3 minutes left"),
        (19.4 * 60, "about 19 minutes left"),
        (22 * 60, "about 20 minutes left"),
        (57 * 60, "about 55 minutes left"),
        (58 * 60, "about 1 hour left"),
        (80 * 60, "about 1.5 hours left"),
        (2.1 * 3600, "about 2 hours left"),
        (11.4 * 3600, "about 11 hours left"),
        (35 * 3600, "about 35 hours left"),
        (40 * 3600, "about 2 days left"),
    ],
)
def test_times_are_said_as_a_person_would(seconds, words):
    assert in_words(seconds) == words


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self):
        return self.now


def test_a_run_is_followed_from_its_plan_to_its_end():
    """One training of 20 s, then cells of 2 s each, one at a time; the time before the first job does not count."""
    clock = Clock()
    progress = Progress(clock)
    progress.plan({"networks": 1, "probes": 99, "total": 100})
    clock.now += 1000
    assert progress.begin(7, "networks")
    clock.now += 20
    assert progress.end(7)
    # 1 % is done, but none of the cells.
    assert progress.count(1, 100) == ""
    assert not progress.begin(8, "probes")
    clock.now += 2
    assert not progress.end(8)
    # 98 cells of 2 s: 196 s.
    assert progress.count(2, 100) == ", about 3 minutes left"
    assert progress.count(2, 100) is None
    assert progress.count(100, 100) == ""


def test_a_line_is_due_for_each_percent():
    progress = Progress(Clock())
    told = [done for done in range(1, 3001) if progress.count(done, 3000) is not None]
    assert told == [1, *range(30, 3001, 30)]


def test_a_run_of_no_known_plan_tells_no_time():
    clock = Clock()
    progress = Progress(clock)
    progress.begin(1, "probes")
    clock.now += 20
    progress.end(1)
    assert progress.count(1, 50) == ""
    progress.plan({"probes": 50, "total": 50})
    assert progress.count(2, 50) == ", about 16 minutes left"
