"""Answers of people: buttons, the file's format and what is refused of it, screening, simulated participants."""

import json
from dataclasses import replace

import numpy as np
import pytest

from readout import StudyError, answers
from readout.answers import Answer, Person, Planned


def name(i: int) -> str:
    return f"{i:016x}"


def plan(main: int = 16, practice: int = 4, seed: int = 0) -> list[Planned]:
    """Main trials with three catch trials behind, and practice; the right side by coin."""
    rng = np.random.default_rng(seed)
    kinds = ["main"] * main + ["catch"] * 3 + ["practice"] * practice
    pairs = [(name(1000 + 2 * i), name(1001 + 2 * i)) for i in range(len(kinds))]
    return [Planned(name(i), kind, *pairs[i], pairs[i][rng.integers(2)]) for i, kind in enumerate(kinds)]


PAGE = "0123456789abcdef"


def simulated(person=None, own=None, seed=0, condition="natural", task=3):
    given = {"study": "planted", "page": PAGE, "condition": condition, "task": task, "seed": seed}
    return answers.simulate(person or Person(), own or plan(), **given)


def altered(session, /, **fields):
    """A file with a right checksum and other content, as someone writes it who knows how."""
    whole = json.loads(answers.export(session))
    whole["session"] |= fields
    whole["checksum"] = answers.checksum(whole["session"])
    return json.dumps(whole)


# ---- buttons


def test_confidence_grows_outwards():
    """The labels read 3 2 1 | 1 2 3. Button mod 3 + 1, as in the paper's code, would give 1 for the first."""
    given = [Answer(name(0), name(1), name(2), button, 1, 0) for button in range(6)]
    assert [a.confidence for a in given] == [3, 2, 1, 1, 2, 3]
    assert [a.side for a in given] == ["left"] * 3 + ["right"] * 3
    assert [a.chosen for a in given] == [name(1)] * 3 + [name(2)] * 3


# ---- screening

GOOD = {
    "seconds": 300.0,
    "instruction_seconds": 30.0,
    "practice_passes": 1,
    "catch": (True, True, True),
    "sides": ("left", "right"),
}


@pytest.mark.parametrize(
    ("condition", "change", "reason"),
    [
        ("natural", {}, None),
        ("natural", {"catch": (True, False, True)}, None),
        ("natural", {"catch": (True, False, False)}, "1 of 3 catch"),
        ("none", {"catch": (True, False, False)}, "1 of 3 catch"),
        ("natural", {"catch": (True, True, True, False, False)}, None),  # just 0.6
        ("natural", {"seconds": 90.0}, None),
        ("natural", {"seconds": 89.9}, "89.9 s in all, less"),
        ("blur", {"seconds": 89.9}, "89.9 s in all, less"),
        ("none", {"seconds": 89.9}, None),
        ("none", {"seconds": 40.0}, None),
        ("none", {"seconds": 39.9}, "39.9 s in all, less"),
        ("natural", {"seconds": 900.0}, None),
        ("none", {"seconds": 900.1}, "900.1 s in all, more"),
        ("natural", {"practice_passes": 5}, None),
        ("natural", {"practice_passes": 6}, "6 passes"),
        ("none", {"practice_passes": 0}, None),
        ("natural", {"instruction_seconds": 20.0}, None),
        ("natural", {"instruction_seconds": 19.9}, "19.9 s before"),
        ("none", {"instruction_seconds": 15.0}, None),
        ("none", {"instruction_seconds": 14.9}, "14.9 s before"),
        ("natural", {"sides": ("left",) * 21}, "the same side"),
        ("natural", {"sides": ("right",) * 21}, "the same side"),
        ("natural", {"sides": ("right",) * 20 + ("left",)}, None),
    ],
)
def test_screening(condition, change, reason):
    """Bounds are inclusive; all of one side fails, which passes in the paper's code."""
    found = answers.screen(condition, **GOOD | change)
    if reason is None:
        assert found == ()
    else:
        (only,) = found
        assert only.startswith(reason)


def test_every_reason_is_given():
    bad = {"seconds": 10.0, "instruction_seconds": 1.0, "practice_passes": 9, "catch": (False,) * 3, "sides": ("left",)}
    assert len(answers.screen("mixed", **bad)) == 5
    assert len(answers.screen("none", **bad)) == 4


# ---- the file


@pytest.mark.parametrize("seed", range(5))
def test_reading_gives_what_was_saved(seed):
    """And saving that again the same bytes; with characters of any kind in the comment."""
    session = replace(simulated(seed=seed), comment='é "quoted" \\ \n\t\x7f\u2028 𝄞 </script>')
    text = answers.export(session)
    assert answers.parse(text) == session
    assert answers.export(answers.parse(text)) == text
    # Reformatted by an editor it is the same content.
    assert answers.parse(json.dumps(json.loads(text), indent=4)) == session


def test_the_checksum_is_that_of_crc_32():
    """The check value of CRC-32 is cbf43926 for the nine digits; here the text is {"a":1}."""
    assert answers.zlib.crc32(b"123456789") == 0xCBF43926
    assert int(answers.checksum({"a": 1}), 16) == answers.zlib.crc32(b'{"a":1}')
    # JSON.stringify escapes no letter.
    assert int(answers.checksum({"a": "é𝄞"}), 16) == answers.zlib.crc32('{"a":"é𝄞"}'.encode())
    assert answers.checksum({"a": 1}) != answers.checksum({"a": 2})


def test_a_truncated_file_is_refused_wherever_it_ends():
    text = answers.export(simulated(own=plan(main=2)))
    for end in range(0, len(text) - 2, 7):
        with pytest.raises(StudyError, match="cut short"):
            answers.parse(text[:end])


def test_every_changed_value_is_refused():
    """Each value of the file in turn, changed as an editor would."""
    whole = json.loads(answers.export(simulated(own=plan(main=2))))

    def places(value, path=()):
        if isinstance(value, dict | list):
            for k, v in value.items() if isinstance(value, dict) else enumerate(value):
                yield from places(v, (*path, k))
        else:
            yield path, value

    changed = 0
    for path, value in list(places(whole["session"])):
        copy = json.loads(json.dumps(whole))
        place = copy["session"]
        for k in path[:-1]:
            place = place[k]
        place[path[-1]] = value + 1 if isinstance(value, int) else value + "0"
        with pytest.raises(StudyError, match="was changed"):
            answers.parse(json.dumps(copy))
        changed += 1
    assert changed > 50


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cut short"),
        ("[" * 100000, "cut short"),
        ("[]", "no answer file"),
        ('{"format": "other"}', "no answer file"),
        ('{"format": "occlusion-answers", "version": 2}', "version 2"),
        ('{"format": "occlusion-answers", "version": 1, "checksum": "0", "session": []}', "was changed"),
    ],
)
def test_other_files_are_refused(text, says):
    with pytest.raises(StudyError, match=says):
        answers.parse(text)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"extra": 1}, "in place of"),
        ({"page": "x"}, "page is 'x'"),
        ({"session": name(1)[:-1]}, "session is"),
        ({"participant": "a b"}, "participant is"),
        ({"participant": ""}, "participant is"),
        ({"started": "today"}, "started is"),
        ({"study": 1}, "study is 1"),
        ({"task": True}, "task is True"),
        ({"task": -1}, "task is -1"),
        ({"task": 1.0}, "task is 1.0"),
        ({"milliseconds": 0}, "milliseconds is 0"),
        ({"milliseconds": 10**10}, "milliseconds is"),
        ({"window": [1]}, "window is"),
        ({"comment": "\ud800"}, "halves of characters"),
        ({"answers": {}}, "are no list"),
        ({"answers": [{}]}, "answer 0 has"),
        ({"answers": [vars(Answer(name(0), name(1), name(2), 6, 1, 0))]}, "answer 0: button is 6"),
        ({"answers": [vars(Answer(name(0), name(1), "base", 1, 1, 0))]}, "answer 0: right is"),
        ({"answers": [vars(Answer(name(0), name(1), name(2), 1, 0, 0))]}, "answer 0: milliseconds is 0"),
    ],
)
def test_values_that_the_page_never_writes_are_refused(fields, says):
    """Even with a right checksum; the name of the field is told."""
    with pytest.raises(StudyError, match=says):
        answers.parse(altered(simulated(), **fields))


# ---- against the plan


def test_a_session_fits_its_own_plan():
    for seed in range(20):
        own = plan(seed=seed)
        answers.check(simulated(Person(guessing=0.7), own, seed), own)
    bare = plan(practice=0)
    answers.check(simulated(own=bare, condition="none"), bare)


def _swap(session, i, **fields):
    listed = list(session.answers)
    listed[i] = replace(listed[i], **fields)
    return replace(session, answers=tuple(listed))


def test_a_session_that_does_not_fit_is_refused():
    own = plan()
    session = simulated(own=own)
    first = len(session.answers) - len(session.tested)
    assert first == 4
    last = session.answers[-1]
    cases = [
        (replace(session, answers=session.answers[:-1]), "18 answers to the 19"),
        (replace(session, answers=(*session.answers, last)), "20 answers to the 19"),
        (_swap(session, first, trial=name(77)), "answer 0 of its task"),
        (_swap(session, -1, left=last.right, right=last.left), "answer 18 of its task"),
        (replace(session, answers=session.answers[first:]), "0 answers in 0 passes"),
        (replace(session, answers=session.answers[1:]), "3 answers in 1 passes"),
        (replace(session, answers=session.answers[first:] + session.answers[:first]), "behind"),
        (_swap(session, 0, trial=name(0)), "that its task does not have"),
        (_swap(session, 0, **{k: getattr(session.answers[1], k) for k in ("trial", "left", "right")}), "twice"),
        (_swap(session, 0, button=5 - session.answers[0].button), "pass 1 of 1 of practice is not all right"),
        (replace(session, milliseconds=session.milliseconds // 2), "the whole session"),
    ]
    for changed, says in cases:
        with pytest.raises(StudyError, match=says):
            answers.check(changed, own)


def test_practice_ends_with_the_first_pass_that_is_right():
    """A second pass behind a right one is none that the page gives."""
    own = plan()
    session = simulated(Person(easy=1.0), own)
    again = tuple(replace(a, round=2) for a in session.answers[:4])
    with pytest.raises(StudyError, match="pass 1 of 2 of practice is all right"):
        answers.check(replace(session, answers=session.answers[:4] + again + session.answers[4:]), own)


# ---- simulated participants


def _right(person, sessions=200, main=50):
    right, left = [], []
    for seed in range(sessions):
        own = plan(main=main, seed=seed)
        by_trial = {p.trial: p for p in own}
        given = [a for a in simulated(person, own, seed).tested if by_trial[a.trial].kind == "main"]
        right += [a.chosen == by_trial[a.trial].max for a in given]
        left += [a.side == "left" for a in given]
    return np.mean(right), np.mean(left)


def test_simulated_participants_are_as_they_should_be():
    """10,000 main trials each; four standard errors of a share of one half are 0.02."""
    assert _right(Person(skill=1.0))[0] == 1.0
    assert _right(Person(skill=0.0))[0] == 0.0
    for person, right, left in (
        (Person(skill=0.67), 0.67, 0.5),
        (Person(skill=1.0, guessing=0.5), 0.75, 0.5),
        (Person(skill=0.9, guessing=1.0, easy=0.9), 0.5, 0.5),
        # Half of the choices are left whatever is shown, and half of those right.
        (Person(skill=0.8, side_bias=-0.5), 0.5 * 0.5 + 0.5 * 0.8, 0.75),
        (Person(skill=0.8, side_bias=0.5), 0.5 * 0.5 + 0.5 * 0.8, 0.25),
    ):
        assert np.abs(np.subtract(_right(person), (right, left))).max() < 0.02


def test_skill_may_be_of_trials():
    own = plan()
    skill = {p.trial: float(i % 2) for i, p in enumerate(own)}
    given = simulated(Person(skill=skill), own).tested[:16]
    assert [a.chosen == p.max for a, p in zip(given, own[:16], strict=True)] == [False, True] * 8


def test_who_clicks_fast_or_on_one_side_is_screened():
    """A careful person passes, a fast one and one who always chooses left do not."""
    own = plan(seed=4)

    def reasons(person):
        session = simulated(person, own)
        by_trial = {p.trial: p for p in own}
        return answers.screen(
            "natural",
            seconds=session.milliseconds / 1000,
            instruction_seconds=session.instruction_milliseconds / 1000,
            practice_passes=session.practice_passes,
            catch=[a.chosen == by_trial[a.trial].max for a in session.tested if by_trial[a.trial].kind == "catch"],
            sides=[a.side for a in session.tested],
        )

    assert reasons(Person(easy=1.0)) == ()
    assert any("in all" in r for r in reasons(Person(seconds=0.3, instruction_seconds=20, easy=1.0)))
    assert any("before the first" in r for r in reasons(Person(instruction_seconds=3)))
    assert any("same side" in r for r in reasons(Person(side_bias=-1.0)))


def test_a_person_who_never_passes_practice():
    with pytest.raises(ValueError, match="practice"):
        simulated(Person(easy=0.0))


def test_the_same_seed_gives_the_same_session():
    assert simulated(seed=3) == simulated(seed=3)
    assert simulated(seed=3).answers != simulated(seed=4).answers
