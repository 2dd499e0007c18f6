"""The page of the occlusion task for people: its design, that it does not tell the answers, its key, and ingest."""

import collections
import hashlib
import io
import json
import re
import struct
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from commands import ingest
from jobs import page
from jobs.pictures import STIMULI
from jobs.trials import TRIALS
from occlusion_page import built, made
from readout import StudyError, answers, legibility
from readout.answers import Person
from runtime import parquet
from workflow import ROOT, ran

UNITS, SETS = 10, 3


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A page of ten units and three image sets."""
    folder = tmp_path_factory.mktemp("page")
    rows, pictures = made(UNITS, SETS)
    return (*built(folder, rows, pictures, SETS), rows, pictures)


def trials_of(folder):
    text = (folder / "trials.js").read_text()
    assert text.startswith("window.TRIALS=") and text.endswith(";\n")
    return json.loads(text[len("window.TRIALS=") : -2])


# ---- design


def test_fifty_sessions_of_eighteen_units_and_ten_sets():
    """As published: every unit and set five times, 900 main trials a condition; a session has each unit once, of one set."""
    rows, _ = made(18, 11, conditions=("none", "natural"))
    by_condition = page.tasks(rows, 11, seed=0)
    for listed in by_condition.values():
        assert len(listed) == 50
        counted = collections.Counter()
        for number, task in enumerate(listed):
            main = [trial for trial, _ in task.shown if trial.kind == "main"]
            assert sorted(trial.row["unit"] for trial in main) == list(range(18))
            assert {trial.row["set"] for trial in main} == {number % 10}
            assert sum(trial.kind == "catch" for trial, _ in task.shown) == 3
            counted.update((trial.row["unit"], trial.row["set"]) for trial in main)
        assert len(counted) == 180 and set(counted.values()) == {5}
        assert counted.total() == 900


def task_units(task):
    return [trial.row["unit"] for trial in task.practice]


def test_easy_trials_are_those_of_the_largest_relative_difference():
    """Of the last image set, each of another unit; no main trial is among them."""
    rows, _ = made(8, 2, conditions=("natural",))
    for row in rows:
        row["relative_difference"] = None if row["unit"] == 7 else 1.0 / (1 + row["unit"])
    (listed,) = page.tasks(rows, 2, seed=0).values()
    for task in listed:
        catch = [trial for trial, _ in task.shown if trial.kind == "catch"]
        assert sorted(trial.row["unit"] for trial in catch) == [0, 1, 2]
        assert task_units(task) == [3, 4, 5, 6]
        assert {trial.row["set"] for trial in (*catch, *task.practice)} == {1}
        assert {trial.row["set"] for trial, _ in task.shown if trial.kind == "main"} == {0}
        assert sum(trial.kind == "main" for trial, _ in task.shown) == 8


def test_no_practice_trial_is_asked_elsewhere(study):
    """Its answer is on the page."""
    folder, _, _, _, _ = study
    whole = trials_of(folder)
    for listed in whole["tasks"].values():
        practised = {index for task in listed for index, _ in task["practice"]}
        asked = {index for task in listed for index, _ in task["main"]}
        assert not practised & asked


def test_catch_trials_of_none_have_a_foreign_query():
    """Three units on three images lend each other their min queries, the same in all tasks; nothing else is asked of them."""
    rows, _ = made(UNITS, SETS, conditions=("none", "natural"))
    own = {row["trial"]: row for row in rows}
    mins = {row["min"]: row for row in rows}
    by_condition = page.tasks(rows, SETS, seed=0)
    catch = [[trial for trial, _ in task.shown if trial.kind == "catch"] for task in by_condition["none"]]
    assert len({frozenset((trial.id, trial.pair) for trial in of_task) for of_task in catch}) == 1
    lent = set()
    for trial in catch[0]:
        (other,) = set(trial.pair) - {trial.max}
        lent.add(other)
        assert trial.max == own[trial.id]["max"] and trial.row["set"] == SETS - 1
        assert mins[other]["base"] != trial.row["base"]
    assert lent == {own[trial.id]["min"] for trial in catch[0]}
    for task in by_condition["none"]:
        shown = [s for trial, _ in task.shown for s in trial.pair]
        assert len(set(shown)) == len(shown)
        assert task.practice == ()
    foreign = {trial.row["unit"] for trial in catch[0]}
    for task in by_condition["natural"]:
        beside = [trial for trial, _ in task.shown if trial.kind == "catch"] + list(task.practice)
        assert foreign.isdisjoint(trial.row["unit"] for trial in beside)
        assert len({trial.row["unit"] for trial in beside}) == len(beside) == 7
    for condition, listed in by_condition.items():
        for trial in (trial for task in listed for trial, _ in task.shown):
            if (condition, trial.kind) != ("none", "catch"):
                assert set(trial.pair) == {own[trial.id]["min"], own[trial.id]["max"]}


def test_a_foreign_query_is_of_another_image_and_of_the_same_network():
    """Of two units on one image one alone is among the three; where there are not three in any network that is an error."""
    rows, _ = made(5, 4, conditions=("none",))
    base = {(row["unit"], row["set"]): row["base"] for row in rows}
    shared = [row | {"base": base[min(row["unit"], 2), row["set"]]} for row in rows]
    for task in page.tasks(shared, 4, seed=0)["none"]:
        catch = [trial.row["base"] for trial, _ in task.shown if trial.kind == "catch"]
        assert sorted(catch) == sorted({row["base"] for row in shared if row["set"] == 3})
    same = [row | {"base": base[min(row["unit"], 1), row["set"]]} for row in rows]
    with pytest.raises(StudyError, match=r"image set 3 has trials of 5 units.* take more units"):
        page.tasks(same, 4, seed=0)
    nets = [row | {"network": f"net{row['unit'] % 3}"} for row in rows]
    with pytest.raises(StudyError, match=r"image set 3 has trials of 5 units.* take more units"):
        page.tasks(nets, 4, seed=0)


def test_equal_differences_are_ordered_the_same_in_all_conditions():
    """Else what one condition practises, with its answer, another would ask."""
    rows, _ = made(UNITS, SETS)
    by_condition = page.tasks([row | {"relative_difference": 1.0} for row in rows], SETS, seed=0)
    practised, caught = (
        {c: {t.row["unit"] for task in listed for t in of(task)} for c, listed in by_condition.items() if c != "none"}
        for of in (lambda task: task.practice, lambda task: [t for t, _ in task.shown if t.kind == "catch"])
    )
    assert len(set(map(frozenset, practised.values()))) == len(set(map(frozenset, caught.values()))) == 1


@pytest.mark.parametrize("kept", [("base", "min", "max"), ("base",)])
def test_queries_that_are_shown_elsewhere_are_not_told(kept):
    """Two units may share an image and its queries, and a square may leave its image as it is."""
    rows, _ = made(12, SETS, conditions=("none", "natural"))
    at = {(row["unit"], row["set"]): row for row in rows}
    easy = sorted(range(12), key=lambda unit: -at[unit, SETS - 1]["relative_difference"])
    # One that would practise and one that would be a catch trial of `none`.
    for unit in (easy[3], easy[-1]):
        own, other = at[unit, SETS - 1], at[easy[0], 0]
        other = other if kept == ("base", "min", "max") else {"base": own["min"]}
        for row in rows:
            if (row["unit"], row["set"]) == (unit, SETS - 1):
                row |= {name: other[name] for name in kept}
    by_condition = page.tasks(rows, SETS, seed=0)
    whole = page.content(by_condition, "planted")
    assert [trial.row["unit"] for trial in by_condition["natural"][0].practice] == easy[4:8]
    foreign = {trial.row["unit"] for trial, _ in by_condition["none"][0].shown if trial.kind == "catch"}
    assert foreign == set(easy[8:11])
    for attack in (_in_common, _not_lent, _told, _otherwise):
        assert not list(attack(whole)), attack.__name__


def of_another_target(rows):
    """The same trials drawn for another target, whose names and cells alone are others."""
    return [
        row | {"class_id": "7", "cell": "s1m1", "trial": hashlib.sha256(row["trial"].encode()).hexdigest()[:16]}
        for row in rows
    ]


def test_a_unit_of_two_targets_is_one_unit():
    """As in the analysis. A session asks each once, and what it practises it does not ask; a lot says of which target."""
    rows, _ = made(20, SETS, conditions=("none", "natural"))
    both = [*rows, *of_another_target(rows)]
    by_condition = page.tasks(both, SETS, seed=0)
    targets = collections.defaultdict(set)
    for listed in by_condition.values():
        for task in listed:
            main = [trial.row for trial, _ in task.shown if trial.kind == "main"]
            assert sorted(row["unit"] for row in main) == list(range(20))
            asked = [(trial.row["unit"], trial.row["set"]) for trial, _ in task.shown]
            asked += [(trial.row["unit"], trial.row["set"]) for trial in task.practice]
            assert len(set(asked)) == len(asked)
            for trial in (*(trial for trial, _ in task.shown), *task.practice):
                targets[trial.row["unit"]].add(trial.row["class_id"])
    assert {len(names) for names in targets.values()} == {1}
    assert 4 <= sum(names == {"7"} for names in targets.values()) <= 16
    row = rows[0]
    assert page.unit(row) == tuple(row[name] for name in legibility.UNIT)


def test_sides_are_coin_flips_of_tasks_and_trials():
    """4 standard errors, over 10,000 flips; the same trial has both sides in different tasks, and both orders."""
    rows, _ = made(20, 20, conditions=("natural",))
    (listed,) = page.tasks(rows, 20, seed=1).values()
    left = [left == trial.max for task in listed for trial, left in task.shown]
    assert abs(np.mean(left) - 0.5) < 4 * 0.5 / np.sqrt(len(left))
    first = collections.defaultdict(set)
    place = collections.defaultdict(set)
    for task in listed:
        for i, (trial, side) in enumerate(task.shown):
            if trial.kind == "main":
                first[trial.id].add(side)
                place[trial.id].add(i)
    # Five flips are the same with probability 1/16.
    assert np.mean([len(sides) == 2 for sides in first.values()]) > 0.85
    assert min(len(places) for places in place.values()) > 1
    # Catch trials are anywhere.
    catch = [i / 22 for task in listed for i, (trial, _) in enumerate(task.shown) if trial.kind == "catch"]
    assert abs(np.mean(catch) - 0.5) < 4 * np.sqrt(1 / 12 / len(catch))


def test_another_seed_gives_other_sides_and_orders(tmp_path, study):
    folder, path_to_key, _, rows, pictures = study
    again, same_key, _ = built(tmp_path / "again", rows[::-1], pictures, SETS)
    assert same_key.read_bytes() == path_to_key.read_bytes()
    other, _, _ = built(tmp_path / "other", rows, pictures, SETS, seed=1)
    # Not even the order of the rows matters.
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            assert (again / file.relative_to(folder)).read_bytes() == file.read_bytes(), file
    assert trials_of(other)["tasks"] != trials_of(folder)["tasks"]
    assert trials_of(other)["page"] != trials_of(folder)["page"]


def test_more_tasks_than_trials_for_them(tmp_path):
    rows, pictures = made(UNITS, 1)
    with pytest.raises(StudyError, match=r"occlusion\.sets: a page for people needs at least two image sets"):
        built(tmp_path, rows, pictures, 1)
    rows, pictures = made(3, 2, conditions=("natural",))
    with pytest.raises(StudyError, match=r"set 1 has trials of 3 units, 0 of them beside 3 catch .* take more units"):
        built(tmp_path, rows, pictures, 2)
    rows, pictures = made(6, 2, conditions=("none", "natural"))
    with pytest.raises(StudyError, match=r"set 1 has trials of 6 units, 3 of them beside 3 catch .* take more units"):
        built(tmp_path, rows, pictures, 2)
    rows, pictures = made(8, 2, conditions=("natural",))
    with pytest.raises(StudyError, match="image set 2 has trials of 0 units"):
        built(tmp_path, rows, pictures, 3)
    assert not (tmp_path / "page" / "site").exists()
    assert not (tmp_path / "page" / "key.parquet").exists()


# ---- what the page tells


def test_no_name_tells_the_role(study):
    """No address, and none of min, max and correct, in what this project writes; pictures have the names of their hashes."""
    folder, _, _, _, _ = study
    trials = (folder / "trials.js").read_text()
    assert not re.search("min|max|correct", trials)
    for file in ("trials.js", "app.js", "index.html", "style.css"):
        assert not re.search("https?://", (folder / file).read_text()), file
    names = sorted(file.name for file in (folder / "img").iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{16}\.png", name) for name in names)
    assert names == sorted(
        {f"{s}.png" for t in trials_of(folder)["trials"] for s in (t["base"], *t["pair"], *t["references"])}
    )


def test_the_policy_forbids_what_is_not_in_the_folder(study):
    folder, _, _, _, _ = study
    html = (folder / "index.html").read_text()
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]+)"', html)[1]
    assert {"default-src 'self' file:", "connect-src 'none'"} <= {part.strip() for part in policy.split(";")}
    assert 'lang="en"' in html
    # Neither code nor styles stand in the page, which the policy would refuse.
    assert not re.search(r"<style|style=|<script(?![^>]*src=)| on\w+=", html)
    assert all((folder / found).is_file() for found in re.findall(r'(?:src|href)="([^"]+)"', html))
    for file in folder.rglob("*.js"):
        assert "sourceMappingURL" not in file.read_text()


def test_neither_order_nor_size_tells_the_role():
    """Whoever takes the first of a pair, the one that comes first in the folder, or the smaller file is right half the time.

    The pictures' own sizes do tell: with the min query's larger flat square its file is the smaller one.
    """
    rows, pictures = made(20, 20, conditions=("natural",))
    whole = page.content(page.tasks(rows, 20, seed=0), "planted")
    best = {row["trial"]: row["max"] for row in rows}
    bound = 4 * 0.5 / np.sqrt(len(whole["trials"]))
    assert abs(np.mean([t["pair"][0] == best[t["id"]] for t in whole["trials"]]) - 0.5) < bound
    assert whole["trials"] == sorted(whole["trials"], key=lambda t: t["id"])
    assert all(t["pair"] == sorted(t["pair"]) for t in whole["trials"])
    flips = [
        flip == t["pair"].index(best[t["id"]])
        for task in whole["tasks"]["natural"]
        for i, flip in task["main"]
        for t in [whole["trials"][i]]
    ]
    assert abs(np.mean(flips) - 0.5) < 4 * 0.5 / np.sqrt(len(flips))
    smaller = [len(pictures[row["min"]]) < len(pictures[row["max"]]) for row in rows]
    assert np.mean(smaller) > 0.95


def test_all_queries_have_one_size_and_their_pixels(study):
    folder, _, _, _, pictures = study
    queries = {s for t in trials_of(folder)["trials"] for s in t["pair"]}
    assert len({(folder / "img" / f"{s}.png").stat().st_size for s in queries}) == 1
    for name in sorted(queries)[:20]:
        with Image.open(folder / "img" / f"{name}.png") as image, Image.open(io.BytesIO(pictures[name])) as original:
            assert np.array_equal(np.asarray(image), np.asarray(original))
    others = {t["base"] for t in trials_of(folder)["trials"]} - queries
    assert all((folder / "img" / f"{s}.png").read_bytes() == pictures[s] for s in others)


def test_padding_is_a_chunk_that_readers_skip(study):
    """Each chunk: length, name, content, checksum of name and content; the last is IEND."""
    original = next(iter(study[4].values()))
    whole = page.padded(original, len(original) + 40)
    assert len(whole) == len(original) + 40
    at, names = 8, []
    while at < len(whole):
        length, chunk = struct.unpack(">I4s", whole[at : at + 8])
        (crc,) = struct.unpack(">I", whole[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(whole[at + 4 : at + 8 + length])
        names.append(chunk)
        at += 12 + length
    assert names[-2:] == [b"fiLl", b"IEND"]
    with pytest.raises(ValueError, match="cannot be padded"):
        page.padded(original, len(original) + 11)


def _played(whole, condition, task, choose):
    """A session of someone who has read trials.js alone and chooses the picture that `choose(id, left, right)` names."""
    given = []
    plan = whole["tasks"][condition][task]
    for index, answer in plan["practice"][: answers.PRACTICE]:
        trial = whole["trials"][index]
        given.append((trial["id"], *trial["pair"], answer, 1))
    for index, flip in plan["main"]:
        trial = whole["trials"][index]
        left, right = trial["pair"][flip], trial["pair"][1 - flip]
        given.append((trial["id"], left, right, choose(trial["id"], left, right), 0))
    return answers.Session(
        study=whole["study"],
        page=whole["page"],
        condition=condition,
        task=task,
        participant=f"{condition}-{task}",
        session=hashlib.sha256(f"{condition}{task}".encode()).hexdigest()[:16],
        started="2022-01-01T00:00:00.000Z",
        window=(940, 600),
        milliseconds=200000,
        instruction_milliseconds=30000,
        answers=tuple(
            answers.Answer(id, left, right, 0 if chosen == left else 5, 5000, round)
            for id, left, right, chosen, round in given
        ),
        comment="",
    )


def _pairs(whole):
    """All pairs of trials.js by their base image and in its order, each once."""
    found = collections.defaultdict(set)
    for trial in whole["trials"]:
        found[trial["base"]].add(tuple(trial["pair"]))
    return found


def _in_common(whole):
    """The one picture that several pairs of one trial, or of one base image, have in common."""
    pairs = _pairs(whole)
    for trial in whole["trials"]:
        common = set.intersection(*map(set, pairs[trial["base"]]))
        if len(common) == 1:
            yield trial["id"], next(iter(common))


def _not_lent(whole):
    """Not the picture that stands by another base image, too: it is a min query, and foreign to one of the two."""
    bases = collections.defaultdict(set)
    for base, pairs in _pairs(whole).items():
        for stimulus in {stimulus for pair in pairs for stimulus in pair}:
            bases[stimulus].add(base)
    for trial in whole["trials"]:
        left = [stimulus for stimulus in trial["pair"] if len(bases[stimulus]) == 1]
        if len(left) == 1:
            yield trial["id"], left[0]


def _told(whole):
    """The picture of which practice says that it is the answer, or not the one of which it says the opposite."""
    right = {answer for listed in whole["tasks"].values() for task in listed for _, answer in task["practice"]}
    practised = {i for listed in whole["tasks"].values() for task in listed for i, _ in task["practice"]}
    wrong = {stimulus for i in practised for stimulus in whole["trials"][i]["pair"]} - right
    for i, trial in enumerate(whole["trials"]):
        chosen = set(trial["pair"]) & right or set(trial["pair"]) - wrong
        if i not in practised and len(chosen) == 1:
            yield trial["id"], next(iter(chosen))


def _otherwise(whole):
    """The picture that is, or is not, something else as well: a base image or a reference."""
    others = {stimulus for trial in whole["trials"] for stimulus in (trial["base"], *trial["references"])}
    for trial in whole["trials"]:
        chosen = others.intersection(trial["pair"])
        if len(chosen) == 1:
            yield trial["id"], next(iter(chosen))


def _oftener(whole):
    """The picture that stands in more pairs, or is shown in more tasks."""
    counted = collections.Counter(stimulus for trial in whole["trials"] for stimulus in trial["pair"])
    for listed in whole["tasks"].values():
        for i in (i for task in listed for i, _ in (*task["main"], *task["practice"])):
            counted.update(whole["trials"][i]["pair"])
    for trial in whole["trials"]:
        one, other = trial["pair"]
        if counted[one] != counted[other]:
            yield trial["id"], max(one, other, key=counted.get)


def _first_by_place(whole):
    """The picture that is more often on the left; the first where it is as often on either side."""
    left = collections.Counter()
    for listed in whole["tasks"].values():
        for i, flip in (item for task in listed for item in task["main"]):
            left[whole["trials"][i]["pair"][flip]] += 1
    for trial in whole["trials"]:
        yield trial["id"], max(trial["pair"], key=left.__getitem__)


BLIND = (_in_common, _not_lent, _told, _otherwise, _oftener)
"""What a reader of trials.js might infer the answers from; of a page that tells none of it they say nothing at all."""


def test_trials_js_tells_no_answer_but_those_of_practice():
    """Attacks on trials.js alone, over 1,400 main trials; a page that drew foreign queries for each task gave way to them."""
    rows, _ = made(40, 8)
    by_condition = page.tasks(rows, 8, seed=0)
    whole = page.content(by_condition, "planted")
    best = {row["trial"]: row["max"] for row in rows}
    shown = {t.id: t.kind for listed in by_condition.values() for task in listed for t, _ in task.shown}
    assert collections.Counter(shown.values()) == {"main": 5 * 40 * 7, "catch": 5 * 3}
    assert len(whole["trials"]) == len({trial["id"] for trial in whole["trials"]}) == len(shown) + 4 * 4
    for attack in BLIND:
        guessed = [(shown[id], chosen == best[id]) for id, chosen in attack(whole) if id in shown]
        assert guessed == [], attack.__name__
    guessed = [chosen == best[id] for id, chosen in _first_by_place(whole) if shown.get(id) == "main"]
    assert abs(np.mean(guessed) - 0.5) < 4 * 0.5 / np.sqrt(len(guessed))


def test_attacks_would_see_what_is_there():
    """A page on which catch trials have other pairs in other tasks, with min queries that main trials show, as once was."""
    rows, _ = made(40, 8)
    by_condition = page.tasks(rows, 8, seed=0)
    best = {row["trial"]: row["max"] for row in rows}
    main = [t for t, _ in by_condition["none"][0].shown if t.kind == "main"]
    whole = page.content(by_condition, "planted")
    index = {trial["id"]: i for i, trial in enumerate(whole["trials"])}
    for trial in (t for t, _ in by_condition["none"][0].shown if t.kind == "catch"):
        entry = whole["trials"][index[trial.id]]
        for lent in (t.row["min"] for t in main[:5]):
            whole["trials"].append(entry | {"pair": sorted((trial.max, lent))})
    # Of main trials the picture that is lent is the one that is shown oftener.
    of_main = {t.id for listed in by_condition.values() for task in listed for t, _ in task.shown if t.kind == "main"}
    for attack, right, least in ((_in_common, True, 3), (_not_lent, True, 3 + 5 * 5), (_oftener, False, 5 * 5)):
        found = [chosen == best[id] for id, chosen in attack(whole) if right or id in of_main]
        assert len(found) >= least and set(found) == {right}, attack.__name__


def test_a_parser_with_the_key_is_right_and_one_without_is_not(study, tmp_path):
    """Through the file and ingest: with the key all is right; without it chance, within 4 standard errors.

    Always left, the first or the last of a pair, the larger or the smaller file, and whatever an attack says.
    """
    folder, path_to_key, _, _, _ = study
    whole = trials_of(folder)
    best = {(r["condition"], r["task"], r["trial"]): r["max"] for r in parquet.read(path_to_key).to_pylist()}

    def accuracy(choose):
        listed = [
            _played(whole, condition, task, lambda id, left, right, at=(condition, task): choose(at, id, left, right))
            for condition, listed in whole["tasks"].items()
            for task in range(len(listed))
        ]
        ingest.ingest(tmp_path, saved(tmp_path / "a", listed), path_to_key)
        rows, own = tables(tmp_path)
        assert len(own) == len(listed)
        correct = [row["correct"] for row in rows if row["kind"] != "practice"]
        assert len(correct) == 5 * 10 * (UNITS + 3)
        return np.mean(correct)

    def size(stimulus):
        return (folder / "img" / f"{stimulus}.png").stat().st_size

    assert accuracy(lambda at, id, left, right: best[(*at, id)]) == 1.0
    # Sides are tossed for each answer. The order of a pair is one toss for all tasks and conditions.
    answered = sum(len(task["main"]) for listed in whole["tasks"].values() for task in listed)
    pairs = len({tuple(trial["pair"]) for trial in whole["trials"]})
    said = [dict(attack(whole)) for attack in BLIND]
    for choose, tosses in (
        (lambda at, id, left, right: left, answered),
        (lambda at, id, left, right: min(left, right), pairs),
        (lambda at, id, left, right: max(left, right), pairs),
        (lambda at, id, left, right: min(left, right, key=size), answered),
        (lambda at, id, left, right: max(left, right, key=size), answered),
        *((lambda at, id, left, right, said=each: said.get(id, left), answered) for each in said),
    ):
        assert abs(accuracy(choose) - 0.5) < 4 * 0.5 / np.sqrt(tosses)


def test_the_key_lies_outside_and_has_the_sides(study, tmp_path):
    folder, path_to_key, _, rows, pictures = study
    assert not list(folder.rglob("*.parquet"))
    whole = trials_of(folder)
    for row in parquet.read(path_to_key, page.KEY).to_pylist():
        task = whole["tasks"][row["condition"]][row["task"]]
        assert row["page"] == whole["page"] and row["study"] == "planted"
        if row["kind"] == "practice":
            assert row["place"] >= len(task["main"])
        else:
            index, flip = task["main"][row["place"]]
            trial = whole["trials"][index]
            assert (trial["id"], trial["pair"][flip], trial["pair"][1 - flip]) == (
                row["trial"],
                row["left"],
                row["right"],
            )
    trials, stimuli = str(tmp_path / "t.parquet"), str(tmp_path / "s.parquet")
    parquet.write(trials, rows, TRIALS)
    parquet.write(stimuli, [{"stimulus": n, "png": c} for n, c in pictures.items()], STIMULI)
    with pytest.raises(StudyError, match="cannot lie in the page's folder"):
        page.build(
            paths_to_trials=[trials],
            paths_to_stimuli=[stimuli],
            path_to_page=str(tmp_path / "page"),
            path_to_key=str(tmp_path / "page" / "key.parquet"),
            study="planted",
            sets=SETS,
            seed=0,
        )


def test_the_hash_is_of_trials_and_tasks(study):
    folder, _, _, _, _ = study
    whole = trials_of(folder)
    assert page.page_hash(whole) == whole["page"]
    for change in ({"version": 2}, {"study": "other"}, {"trials": whole["trials"][1:]}):
        assert page.page_hash(whole | change) != whole["page"]


def test_keys_of_earlier_pages_stay(tmp_path, study):
    """Answers to them may still be to come."""
    _, _, _, rows, pictures = study
    keys = set()
    for seed in (0, 1):
        _, key, _ = built(tmp_path, rows, pictures, SETS, seed=seed)
        _, hashed, _ = page.plans(key)
        assert (key.parent / "keys" / f"{hashed}.parquet").read_bytes() == key.read_bytes()
        keys.add(f"{hashed}.parquet")
    assert {path.name for path in (key.parent / "keys").iterdir()} == keys
    assert len(keys) == 2


def test_several_grids_go_into_one_page(tmp_path, study):
    """A grid without trials is left out; a unit of another grid is another unit."""
    _, _, _, rows, pictures = study
    paths = {kind: [str(tmp_path / f"{kind}{i}.parquet") for i in range(3)] for kind in ("trials", "stimuli")}
    second, more = made(UNITS, SETS, seed=1)
    second = [
        row | {"layer": "dense", "trial": hashlib.sha256(row["trial"].encode()).hexdigest()[:16]} for row in second
    ]
    for path, own in zip(paths["trials"], (rows, second, []), strict=True):
        parquet.write(path, own, TRIALS)
    for path, own in zip(paths["stimuli"], (pictures, more, {}), strict=True):
        parquet.write(path, [{"stimulus": n, "png": c} for n, c in own.items()], STIMULI)
    where = {"path_to_page": str(tmp_path / "page"), "path_to_key": str(tmp_path / "key.parquet")}
    settings = {"study": "planted", "sets": SETS, "seed": 0}
    page.build(paths_to_trials=paths["trials"], paths_to_stimuli=paths["stimuli"], **where, **settings)
    main = [row for row in parquet.read(where["path_to_key"]).to_pylist() if row["kind"] == "main" and row["task"] == 0]
    assert collections.Counter((row["condition"], row["layer"]) for row in main) == {
        (c, layer): UNITS for c in answers.CONDITIONS for layer in ("conv", "dense")
    }
    parquet.write(paths["trials"][0], [], TRIALS)
    with pytest.raises(StudyError, match="no image set of any unit has a right answer"):
        page.build(paths_to_trials=paths["trials"][:1], paths_to_stimuli=paths["stimuli"], **where, **settings)
    # What was there stays.
    assert (tmp_path / "page" / "index.html").is_file()


def test_broken_tables_are_named(tmp_path, study):
    _, _, _, rows, pictures = study
    some = dict(list(pictures.items())[1:])
    gone = next(iter(pictures))
    with pytest.raises(StudyError, match=f"{gone} first, are in none of"):
        built(tmp_path / "a", rows, some, SETS)
    damaged = pictures | {gone: pictures[gone][:-20] + bytes(8) + pictures[gone][-12:]}
    with pytest.raises(StudyError, match=f"stimulus {gone} is not the PNG"):
        built(tmp_path / "b", rows, damaged, SETS)
    with pytest.raises(StudyError, match="a trial is there twice"):
        built(tmp_path / "c", [*rows, rows[0]], pictures, SETS)
    with pytest.raises(StudyError, match=r"trials.parquet: has trials of the conditions \['blurred'\]"):
        built(tmp_path / "d", [row | {"condition": "blurred"} for row in rows], pictures, SETS)
    for name in "abcd":
        assert not any(path.name.endswith(".partial") or path.name == "site" for path in (tmp_path / name).rglob("*"))


def test_a_page_that_is_there_is_replaced(tmp_path, study):
    _, _, _, rows, pictures = study
    folder, _, _ = built(tmp_path, rows, pictures, SETS)
    (folder / "img" / "old.png").write_bytes(b"")
    folder, _, _ = built(tmp_path, rows, pictures, SETS, seed=5)
    assert not (folder / "img" / "old.png").exists()


# ---- ingest


def sessions(path_to_key, conditions=answers.CONDITIONS, person=None, tasks=3, seed=0):
    """Simulated participants of these tasks of each condition."""
    study, hashed, by_task = page.plans(path_to_key)
    for i, condition in enumerate(conditions):
        for task in range(tasks):
            own, _ = by_task[condition, task]
            given = {
                "study": study,
                "page": hashed,
                "condition": condition,
                "task": task,
                "seed": seed + 100 * i + task,
            }
            yield answers.simulate(person or Person(seconds=8.0, easy=1.0), own, **given)


def saved(folder, listed):
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for session in listed:
        paths.append(folder / f"occlusion-planted-{session.session}.json")
        paths[-1].write_text(answers.export(session), encoding="utf-8")
    return paths


def tables(results):
    found = {}
    for name, schema in (("responses", ingest.RESPONSES), ("sessions", ingest.SESSIONS)):
        path = results / "page" / f"{name}.parquet"
        found[name] = parquet.read(path, schema, optional=("relative_difference",)).to_pylist()
    return found["responses"], found["sessions"]


def test_what_is_ingested_is_what_was_answered(study, tmp_path):
    """Every answer of every session can be made again from the tables."""
    _, path_to_key, _, rows, _ = study
    listed = list(sessions(path_to_key))
    ingest.main([str(tmp_path), *map(str, saved(tmp_path / "answers", listed)), "--key", str(path_to_key)])
    responses, taken = tables(tmp_path)
    assert {row["session"]: (row["participant"], row["condition"], row["task"]) for row in taken} == {
        s.session: (s.participant, s.condition, s.task) for s in listed
    }
    by_trial = {row["trial"]: row for row in rows}
    for session in listed:
        own = sorted((r for r in responses if r["session"] == session.session), key=lambda r: r["place"])
        assert [r["trial"] for r in own] == [a.trial for a in session.answers]
        assert [(r["side"], r["confidence"]) for r in own] == [answers.BUTTONS[a.button] for a in session.answers]
        assert [r["seconds"] for r in own] == [a.milliseconds / 1000 for a in session.answers]
        assert [r["correct"] for r in own] == [float(a.chosen == by_trial[a.trial]["max"]) for a in session.answers]
        assert [r["kind"] == "practice" for r in own] == [a.round > 0 for a in session.answers]
        for r in own:
            same = ("network", "layer", "class_id", "cell", "unit", "set", "condition", "relative_difference")
            assert [r[name] for name in same] == [by_trial[r["trial"]][name] for name in same]
            assert r["observer"] == "person" and r["p"] == r["correct"]
        assert collections.Counter(r["kind"] for r in own)["catch"] == 3
        assert collections.Counter(r["kind"] for r in own)["main"] == UNITS
        (row,) = [row for row in taken if row["session"] == session.session]
        assert row["seconds"] == session.milliseconds / 1000
        assert row["instruction_seconds"] == session.instruction_milliseconds / 1000
        assert row["practice_passes"] == session.practice_passes == (0 if session.condition == "none" else 1)
        assert row["catch_ratio"] == 1.0
        assert row["left_share"] == np.mean([a.side == "left" for a in session.tested])


def test_who_does_not_pass_is_in_the_tables_with_the_reasons(study, tmp_path, capsys):
    _, path_to_key, _, _, _ = study
    good = list(sessions(path_to_key, ("natural",)))
    fast = list(sessions(path_to_key, ("none",), Person(seconds=0.2, instruction_seconds=2.0), seed=7))
    ingest.main([str(tmp_path), *map(str, saved(tmp_path / "a", good + fast)), "--key", str(path_to_key)])
    responses, taken = tables(tmp_path)
    passed = {row["session"]: row["passed"] for row in taken}
    assert passed == {s.session: s.condition == "natural" for s in good + fast}
    assert all(row["passed"] == passed[row["session"]] for row in responses)
    assert all(row["passed"] == (row["reasons"] == []) for row in taken)
    assert "6 sessions, 3 of them pass" in capsys.readouterr().out


def test_bad_files_are_named_and_good_ones_taken(study, tmp_path, capsys):
    _, path_to_key, _, _, _ = study
    one, two, three = sessions(path_to_key, ("mixed",))
    good, again, foreign, late = saved(tmp_path / "a", [one]), saved(tmp_path / "b", [one]), [], []
    foreign = saved(tmp_path / "c", [replace(two, page="0" * 16)])
    late = saved(tmp_path / "d", [replace(three, participant=one.participant, started="2022-01-01T00:00:00.000Z")])
    lacking = saved(tmp_path / "e", [replace(two, session="1" * 16, task=99)])
    elsewhere = saved(tmp_path / "f", [replace(two, session="2" * 16, task=1 - two.task % 2)])
    cut = tmp_path / "cut.json"
    cut.write_text(good[0].read_text()[:-100])
    edited = tmp_path / "edited.json"
    edited.write_text(
        good[0]
        .read_text()
        .replace('"button": ', '"button": 1 + ', 1)
        .replace("1 + ", "", 1)
        .replace("natural", "x")
        .replace('"round": 0', '"round": 1')
    )
    bytes_ = tmp_path / "bytes.json"
    bytes_.write_bytes(b"\xff\xfe\x00")
    absent = tmp_path / "absent.json"
    bad = [*again, *foreign, *late, *lacking, *elsewhere, cut, edited, bytes_, absent]
    with pytest.raises(SystemExit) as error:
        ingest.main([str(tmp_path), *map(str, [*bad[:3], *good, *bad[3:]]), "--key", str(path_to_key)])
    told = str(error.value)
    for path, says in zip(
        bad,
        (
            "again",
            "answers page 0000000000000000",
            f"participant {one.participant} took part before",
            "task 99 of condition mixed, which the page lacks",
            "of its task",
            "cut short",
            "was changed after",
            "cannot be read",
            "cannot be read",
        ),
        strict=True,
    ):
        (line,) = [line for line in told.splitlines() if str(path) in line.split(": ")[0]]
        assert says in line
    assert len(told.splitlines()) == 1 + len(bad)
    assert "1 sessions" in capsys.readouterr().out
    assert [row["session"] for row in tables(tmp_path)[1]] == [one.session]


def test_without_a_good_file_nothing_is_written(study, tmp_path):
    _, path_to_key, _, _, _ = study
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(SystemExit, match="no answer file"):
        ingest.main([str(tmp_path), str(tmp_path / "x.json"), "--key", str(path_to_key)])
    assert not (tmp_path / "occlusion").exists()
    with pytest.raises(SystemExit, match=r"key\.parquet: no such file"):
        ingest.main([str(tmp_path), str(tmp_path / "x.json")])


def test_the_command_as_it_is_called(study, tmp_path):
    """In a process of its own, with the key in its place; 0 where all files are good, 1 where not."""
    _, path_to_key, _, _, _ = study
    results = path_to_key.parents[1]
    paths = saved(tmp_path, sessions(path_to_key, ("blur",)))
    command = [sys.executable, "-m", "commands.ingest", results, *paths]
    done = ran(command, env={"PYTHONPATH": str(ROOT / "workflow")})
    assert (done.returncode, done.stderr) == (0, "")
    paths[0].write_text("")
    done = ran(command, env={"PYTHONPATH": str(ROOT / "workflow")})
    assert done.returncode == 1 and str(paths[0]) in done.stderr
    for name in ("responses", "sessions"):
        (results / "page" / f"{name}.parquet").unlink()


def test_skill_comes_out_of_the_tables(study, tmp_path):
    """Units of which a person is always or never right are found so, whatever side they were on."""
    _, path_to_key, _, rows, _ = study
    skill = {row["trial"]: float(row["unit"] < 2) for row in rows}
    listed = list(sessions(path_to_key, ("natural", "none"), Person(skill=skill, easy=1.0), tasks=9))
    ingest.main([str(tmp_path), *map(str, saved(tmp_path / "a", listed)), "--key", str(path_to_key)])
    responses, _ = tables(tmp_path)
    for row in responses:
        if row["kind"] == "main":
            assert row["correct"] == float(row["unit"] < 2)


def test_the_vendored_library_is_whole():
    """jsPsych 8 with its licence; only what points to a source map was left out."""
    vendor = page.SOURCE / "vendor"
    licence = (vendor / "LICENSE.txt").read_text()
    assert "MIT License" in licence
    version = re.search(r"jspsych@([\d.]+)", licence)[1]
    assert version.startswith("8.")
    assert f'version = "{version}"' in (vendor / "jspsych.js").read_text()
    assert set(page.FILES) == {"index.html", "app.js", "style.css", "vendor/jspsych.js", "vendor/LICENSE.txt"}
