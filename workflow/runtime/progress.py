"""How far a run is: which of its jobs are worth a message, and how long it has still to go."""

import time
from collections.abc import Callable, Mapping

CELLWISE = frozenset(
    {"cells", "probes", "ablations", "controls", "shapley", "pseudo", "importance", "redundancy", "layer_tables"}
    | {"image_sets", "occlusions", "windows", "visualisations", "trials"}
)
"""Rules with one job per cell or per grid: their starts and ends are not announced, their errors are."""
ENOUGH_SECONDS = 10
"""Seconds that a run must have taken before it tells how long it has still to go."""
ENOUGH_JOBS = 0.01
"""Share of its jobs that must have ended before."""
UNKNOWN_JOBS = 0.1
"""Share of the jobs left that may be of rules of which no job has ended: nothing is known of how long these take."""


def seconds_left(
    left: Mapping[str, int], ended: Mapping[str, int], spent: Mapping[str, float], elapsed: float
) -> float | None:
    """Seconds until the end of a run, or None while too little of it is done to tell.

    `left` is the number of jobs left of each rule; `ended` the number of those that have ended in this run, `spent` the
    seconds that these took, from the start of each to its end; `elapsed` the seconds since the first began.

    A job left takes the mean of its rule, or, where no job of the rule has ended, that of all jobs. Jobs run side by
    side: as many as so far on average, which is `spent` in all over `elapsed`.
    """
    done, work = sum(ended.values()), sum(spent.values())
    remaining = sum(left.values())
    unknown = sum(count for rule, count in left.items() if not ended.get(rule))
    if not done or not work or elapsed < ENOUGH_SECONDS:
        return None
    if done < ENOUGH_JOBS * (done + remaining) or unknown > UNKNOWN_JOBS * remaining:
        return None
    known = sum(count * spent[rule] / ended[rule] for rule, count in left.items() if ended.get(rule))
    return (known + unknown * work / done) * elapsed / work


def in_words(seconds: float) -> str:
    """A time that is left, as a person would say it."""
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 45:
        return "less than a minute left"
    if minutes < 20:
        count, unit = max(1, round(minutes)), "minute"
    elif minutes < 57.5:
        count, unit = 5 * round(minutes / 5), "minute"
    elif hours < 9.75:
        count, unit = round(2 * hours) / 2, "hour"
    elif hours < 36:
        count, unit = round(hours), "hour"
    else:
        count, unit = round(hours / 24), "day"
    return f"about {count:g} {unit}{'' if count == 1 else 's'} left"


class Progress:
    """Follows the jobs of a run; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.percent = -1
        self.planned: dict[str, int] = {}
        self.began: float | None = None
        self.at_work: dict[int, tuple[str, float]] = {}
        self.ended: dict[str, int] = {}
        self.spent: dict[str, float] = {}

    def plan(self, jobs: Mapping[str, int]) -> None:
        """Take note of the number of jobs of each rule."""
        self.planned = {rule: count for rule, count in jobs.items() if rule != "total"}

    def begin(self, job: int, rule: str) -> bool:
        """Take note of a job's start; whether that is worth a message."""
        now = self.clock()
        self.began = now if self.began is None else self.began
        self.at_work[job] = rule, now
        return rule not in CELLWISE

    def end(self, job: int) -> bool:
        """Take note of a job's end; whether that is worth a message."""
        rule, began = self.at_work.pop(job, ("", self.clock()))
        self.ended[rule] = self.ended.get(rule, 0) + 1
        self.spent[rule] = self.spent.get(rule, 0.0) + self.clock() - began
        return rule not in CELLWISE

    def count(self, done: int, total: int) -> str | None:
        """What a line on progress ends with; None where no line is due, which is one per percent."""
        percent = 100 * done // max(1, total)
        if percent <= self.percent:
            return None
        self.percent = percent
        if self.began is None or not self.planned or done >= total:
            return ""
        left = {rule: count - self.ended.get(rule, 0) for rule, count in self.planned.items()}
        seconds = seconds_left(left, self.ended, self.spent, self.clock() - self.began)
        return "" if seconds is None else f", {in_words(seconds)}"
