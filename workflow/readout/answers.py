"""People's answers to the occlusion task: the file that the page saves, and which sessions count.

The page (workflow/page/app.js) saves one JSON file a session. Times are whole milliseconds. An answer names the button,
from left to right; what a button means is said here alone.
"""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np

from readout import StudyError
from readout.conditions import CONDITIONS, NONE

Side = Literal["left", "right"]

FORMAT, VERSION = "occlusion-answers", 1
BUTTONS: tuple[tuple[Side, int], ...] = (
    ("left", 3),
    ("left", 2),
    ("left", 1),
    ("right", 1),
    ("right", 2),
    ("right", 3),
)
"""Side and confidence of the six buttons, 3 2 1 | 1 2 3. The paper's code stored those on the left mirrored."""
PRACTICE = 4
"""Practice trials of a pass, as published; fewer where a page has fewer."""


@dataclass(frozen=True)
class Limits:
    """What a session has to keep to; bounds are inclusive (Zimmermann et al. 2021, launch scripts)."""

    seconds: tuple[float, float]
    instruction_seconds: float
    practice_passes: int = 5
    catch_ratio: float = 0.6


LIMITS = {name: Limits((90, 900), 20) for name in CONDITIONS} | {NONE: Limits((40, 900), 15)}


@dataclass(frozen=True)
class Planned:
    """A trial as the page has it, from the key: its two pictures, and the one with the higher activation.

    In practice the page tosses the sides anew in each pass; there `left` and `right` are the pictures in any order.
    """

    trial: str
    kind: Literal["main", "catch", "practice"]
    left: str
    right: str
    max: str


@dataclass(frozen=True)
class Answer:
    """A choice: the pictures on either side, the button (0 to 5), ms since they were shown.

    `round` is the pass of practice, from 1, and 0 in main and catch trials.
    """

    trial: str
    left: str
    right: str
    button: int
    milliseconds: int
    round: int

    @property
    def side(self) -> Side:
        return BUTTONS[self.button][0]

    @property
    def confidence(self) -> int:
        """From 1, a guess, to 3, sure."""
        return BUTTONS[self.button][1]

    @property
    def chosen(self) -> str:
        """The picture that was chosen."""
        return self.left if self.side == "left" else self.right


@dataclass(frozen=True)
class Session:
    """What one file has: who answered which task of which page, when (UTC), in how long, and all answers in order."""

    study: str
    page: str
    condition: str
    task: int
    participant: str
    session: str
    started: str
    window: tuple[int, int]
    milliseconds: int
    instruction_milliseconds: int
    answers: tuple[Answer, ...]
    comment: str

    @property
    def practice_passes(self) -> int:
        return max((answer.round for answer in self.answers), default=0)

    @property
    def tested(self) -> tuple[Answer, ...]:
        """Answers to main and catch trials."""
        return tuple(answer for answer in self.answers if answer.round == 0)


def _canonical(content: Mapping) -> bytes:
    # As JSON.stringify writes it: the page takes its checksum of that.
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def checksum(content: Mapping) -> str:
    """CRC-32 of a session's content, 8 hexadecimal digits. It tells an edited or damaged file, not a forged one."""
    return f"{zlib.crc32(_canonical(content)):08x}"


def export(session: Session) -> str:
    """The file of a session, byte for byte as the page saves it."""
    content = asdict(session)
    content["window"] = list(session.window)
    content["answers"] = list(content["answers"])
    whole = {"format": FORMAT, "version": VERSION, "checksum": checksum(content), "session": content}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


_WORD = re.compile(r"[\w.@-]{1,64}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{16}")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_LONGEST = 10**9
"""Milliseconds; more than eleven days."""


def _exactly(content: object, kind: type, where: str) -> dict:
    """A mapping with just the fields of a dataclass, or an error."""
    names = [field.name for field in fields(kind)]
    if not isinstance(content, dict) or sorted(content) != sorted(names):
        given = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise StudyError(f"{where} has {given} in place of {sorted(names)}")
    return content


def _whole(content: Mapping, name: str, where: str, least: int, most: int = _LONGEST) -> None:
    value = content[name]
    if type(value) is not int or not least <= value <= most:
        raise StudyError(f"{where}: {name} is {value!r}, not a whole number from {least} to {most}")


def _matching(content: Mapping, name: str, where: str, pattern: re.Pattern) -> None:
    value = content[name]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise StudyError(f"{where}: {name} is {value!r}, which the page never writes")


def parse(text: str) -> Session:
    """The session of a file's text; StudyError says what is wrong with one that is cut short, edited or foreign."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyError(f"is cut short or no answer file ({error}); take the file as the page saved it") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise StudyError("is no answer file of the occlusion task's page")
    if whole.get("version") != VERSION or set(whole) != {"format", "version", "checksum", "session"}:
        raise StudyError(f"is of version {whole.get('version')!r} of the format; version {VERSION} can be read")
    content = whole["session"]
    if not isinstance(content, dict) or checksum(content) != whole["checksum"]:
        raise StudyError("was changed after the page saved it: its checksum is of other content; take the original")
    _exactly(content, Session, "the session")
    for name, pattern in (("page", _HASH), ("session", _HASH), ("participant", _WORD), ("started", _MOMENT)):
        _matching(content, name, "the session", pattern)
    for name in ("study", "condition", "comment"):
        if not isinstance(content[name], str):
            raise StudyError(f"the session: {name} is {content[name]!r}, not a text")
        if re.search("[\ud800-\udfff]", content[name]):
            raise StudyError(f"the session: {name} has halves of characters, which the page never writes")
    _whole(content, "task", "the session", 0)
    _whole(content, "milliseconds", "the session", 1)
    _whole(content, "instruction_milliseconds", "the session", 0)
    size = content["window"]
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and 0 <= side <= 10**6 for side in size)
    ):
        raise StudyError(f"the session: window is {size!r}, not a width and a height")
    if not isinstance(content["answers"], list):
        raise StudyError("the session: answers are no list")
    answers = []
    for i, answer in enumerate(content["answers"]):
        where = f"answer {i}"
        _exactly(answer, Answer, where)
        for name in ("trial", "left", "right"):
            _matching(answer, name, where, _HASH)
        _whole(answer, "button", where, 0, len(BUTTONS) - 1)
        _whole(answer, "milliseconds", where, 1)
        _whole(answer, "round", where, 0)
        answers.append(Answer(**answer))
    return Session(**content | {"window": tuple(size), "answers": tuple(answers)})


def check(session: Session, plan: Sequence[Planned]) -> None:
    """Refuse a session that is not an answer to all of its task's trials, as the page shows them and in its order.

    plan: the task's main and catch trials in order, and its practice trials. StudyError says where they differ.
    """
    tested = [planned for planned in plan if planned.kind != "practice"]
    practice = {planned.trial: planned for planned in plan if planned.kind == "practice"}
    own = session.tested
    if len(own) != len(tested):
        raise StudyError(f"has {len(own)} answers to the {len(tested)} trials of its task")
    for i, (answer, planned) in enumerate(zip(own, tested, strict=True)):
        if (answer.trial, answer.left, answer.right) != (planned.trial, planned.left, planned.right):
            raise StudyError(
                f"answer {i} of its task is to another trial, or with other pictures, than the page shows there"
            )
    if session.answers[len(session.answers) - len(own) :] != own:
        raise StudyError("has practice behind the trials of its task")
    each = min(PRACTICE, len(practice))
    rounds = [answer for answer in session.answers if answer.round > 0]
    passes = session.practice_passes
    if (passes > 0) != bool(practice) or [a.round for a in rounds] != [
        1 + i // max(each, 1) for i in range(passes * each)
    ]:
        raise StudyError(f"has {len(rounds)} answers in {passes} passes of practice with {each} trials each")
    for number in range(1, passes + 1):
        shown = [answer for answer in rounds if answer.round == number]
        for answer in shown:
            planned = practice.get(answer.trial)
            if planned is None or {answer.left, answer.right} != {planned.left, planned.right}:
                raise StudyError(f"practises in pass {number} on a trial that its task does not have")
        if len({answer.trial for answer in shown}) < len(shown):
            raise StudyError(f"practises in pass {number} twice on the same trial")
        right = all(answer.chosen == practice[answer.trial].max for answer in shown)
        if right != (number == passes):
            raise StudyError(f"pass {number} of {passes} of practice is {'all right' if right else 'not all right'}")
    spent = session.instruction_milliseconds + sum(answer.milliseconds for answer in session.answers)
    # Each time is rounded by half a millisecond at most.
    if spent > session.milliseconds + len(session.answers) + 2:
        raise StudyError(f"its answers took {spent} ms, the whole session {session.milliseconds} ms")


def screen(
    condition: str,
    *,
    seconds: float,
    instruction_seconds: float,
    practice_passes: int,
    catch: Sequence[bool],
    sides: Sequence[Side],
) -> tuple[str, ...]:
    """Why a session does not count; nothing where it does (the exclusion criteria of Zimmermann et al. 2021).

    catch: whether each catch trial was answered right; sides: what was chosen in main and catch trials. A session with
    one side alone fails here; in the paper's code this check lets every session pass.
    """
    limits = LIMITS[condition]
    reasons = []
    if condition != NONE and practice_passes > limits.practice_passes:
        reasons.append(f"{practice_passes} passes of practice, more than {limits.practice_passes}")
    if sum(catch) < limits.catch_ratio * len(catch):
        reasons.append(f"{sum(catch)} of {len(catch)} catch trials right, less than {limits.catch_ratio:g} of them")
    if seconds < limits.seconds[0]:
        reasons.append(f"{seconds:.1f} s in all, less than {limits.seconds[0]:g} s")
    if seconds > limits.seconds[1]:
        reasons.append(f"{seconds:.1f} s in all, more than {limits.seconds[1]:g} s")
    if instruction_seconds < limits.instruction_seconds:
        reasons.append(
            f"{instruction_seconds:.1f} s before the first trial, less than {limits.instruction_seconds:g} s"
        )
    if len(set(sides)) < 2:
        reasons.append("the same side in every trial")
    return tuple(reasons)


@dataclass(frozen=True)
class Person:
    """A simulated participant.

    With probability |side_bias| a choice is of one side whatever is shown (negative: left); else with probability
    `guessing` it is a coin; else it is right with probability `skill`, one for all or by trial. Catch and practice
    trials are right with probability `easy` instead. Times are log-normal around `seconds`, in s.
    """

    skill: float | Mapping[str, float] = 0.67
    side_bias: float = 0.0
    guessing: float = 0.0
    easy: float = 0.98
    seconds: float = 6.0
    instruction_seconds: float = 45.0


def simulate(
    person: Person, plan: Sequence[Planned], *, study: str, page: str, condition: str, task: int, seed: int
) -> Session:
    """The session of a simulated participant in a task of a page, as the page would save it.

    Practice repeats until all are right; ValueError where that does not happen in 1000 passes.
    """
    rng = np.random.default_rng(seed)

    def answer(planned: Planned, left: str, right: str, round: int) -> Answer:
        if rng.random() < abs(person.side_bias):
            chosen = left if person.side_bias < 0 else right
        elif rng.random() < person.guessing:
            chosen = (left, right)[rng.integers(2)]
        else:
            skill = (
                person.skill if isinstance(person.skill, int | float) else person.skill.get(planned.trial, person.easy)
            )
            likely = skill if planned.kind == "main" else person.easy
            other = right if planned.max == left else left
            chosen = planned.max if rng.random() < likely else other
        # The surer, the more often right.
        weights = (0.2, 0.3, 0.5) if chosen == planned.max else (0.5, 0.3, 0.2)
        confidence = 1 + int(rng.choice(3, p=weights))
        button = BUTTONS.index(("left" if chosen == left else "right", confidence))
        milliseconds = max(1, round_ms(person.seconds * 1000 * np.exp(0.5 * rng.normal())))
        return Answer(planned.trial, left, right, button, milliseconds, round)

    def round_ms(value: float) -> int:
        return int(np.rint(value))

    practice = [planned for planned in plan if planned.kind == "practice"]
    answers: list[Answer] = []
    passed, number = not practice, 0
    while not passed:
        number += 1
        if number > 1000:
            raise ValueError("this person never has a whole pass of practice right")
        drawn = [practice[i] for i in rng.permutation(len(practice))[:PRACTICE]]
        sides = [(p.left, p.right) if rng.random() < 0.5 else (p.right, p.left) for p in drawn]
        shown = [answer(p, *pair, number) for p, pair in zip(drawn, sides, strict=True)]
        passed = all(a.chosen == p.max for a, p in zip(shown, drawn, strict=True))
        answers += shown
    answers += [answer(p, p.left, p.right, 0) for p in plan if p.kind != "practice"]
    instructions = round_ms(person.instruction_seconds * 1000)
    # A second for Continue after each answer, and a look at the last screen.
    total = instructions + sum(a.milliseconds + 1000 for a in answers) + 5000
    return Session(
        study=study,
        page=page,
        condition=condition,
        task=task,
        participant=f"simulated-{seed}",
        session=rng.bytes(8).hex(),
        started="2021-01-01T00:00:00.000Z",
        window=(1280, 800),
        milliseconds=total,
        instruction_milliseconds=instructions,
        answers=tuple(answers),
        comment="",
    )
