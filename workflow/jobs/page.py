"""Step `page`: the page of the occlusion task for people, one folder without a server, and the key to its answers."""

import hashlib
import json
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from jobs import image_sets
from jobs.pictures import HASH, STIMULI, digest
from jobs.trials import ASKED, read_trials
from readout import StudyError
from readout.answers import PRACTICE, Planned
from readout.conditions import CONDITIONS, NONE
from runtime import files, parquet

SOURCE = Path(__file__).resolve().parents[1] / "page"
FILES = tuple(sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*") if path.is_file()))
"""What every page has, below `SOURCE`."""
VERSION = 1
"""Of trials.js; part of a page's hash."""
TASKS_PER_SET = 5
"""Tasks, and so participants, for each condition and image set: 50 for ten sets, as published."""
CATCH = 3
"""Catch trials of a task, as published."""

KEY = pa.schema(
    [
        ("study", pa.string()),
        ("page", pa.string()),
        ("condition", pa.string()),
        ("task", pa.int32()),
        ("place", pa.int32()),
        ("kind", pa.string()),
        *(column for column in ASKED if column[0] != "condition"),
        ("left", pa.string()),
        ("right", pa.string()),
        ("max", pa.string()),
        ("relative_difference", pa.float64()),
    ]
)
"""A row per condition, task and trial, in the order in which they are shown. Practice trials, whose sides and order the
page draws, stand behind. `max` is the picture with the higher activation, the right answer."""


@dataclass(frozen=True)
class Trial:
    """A trial of the tables as a page shows it; in `none` a catch trial has the min query of another in its pair."""

    row: Mapping
    kind: str
    pair: tuple[str, str]
    max: str

    @property
    def id(self) -> str:
        return self.row["trial"]


@dataclass(frozen=True)
class Task:
    """What one participant sees: main and catch trials in order with their left pictures, and practice trials."""

    shown: tuple[tuple[Trial, str], ...]
    practice: tuple[Trial, ...]


def unit(row: Mapping) -> tuple:
    """The unit of a trial: as in the analysis, the same one of two targets is one unit."""
    return row["network"], row["layer"], row["unit"]


def _lot(*of: object) -> int:
    """A uniform number of 64 bits that depends on these values alone: other trials do not change a coin flip."""
    return int.from_bytes(hashlib.sha256(json.dumps(of).encode()).digest()[:8])


def _trial(row: Mapping, kind: str, least: str | None = None) -> Trial:
    least = row["min"] if least is None else least
    return Trial(row, kind, tuple(sorted((least, row["max"]))), row["max"])


def _once(rows: Sequence[Mapping], seed: int) -> list[Mapping]:
    """The trials of each unit under one of its targets, in all conditions: the same is asked under the others."""
    targets: dict[tuple, set[str]] = {}
    for row in rows:
        targets.setdefault(unit(row), set()).add(row["class_id"])
    # ASSUME: a lot says for which of its targets a unit is asked, so that none has all that are shared.
    kept = {of: min(names, key=lambda name: (_lot(seed, of, name), name)) for of, names in targets.items()}
    return [row for row in rows if kept[unit(row)] == row["class_id"]]


def _foreign(rows: Sequence[Mapping]) -> dict[tuple, str]:
    """The units of the catch trials of `none`, each with the min query of another; nothing where there are too few.

    They are the first of one network on three images, and lend their min queries to each other in a ring: all six
    pictures are shown once, so that nothing but what is on them tells which are foreign.
    """
    # ASSUME: the min query that replaces that of a catch trial in `none` is of the same network.
    by_network: dict[str, dict[str, Mapping]] = {}
    for row in rows:
        chosen = by_network.setdefault(row["network"], {})
        chosen.setdefault(row["base"], row)
        if len(chosen) == CATCH:
            ring = list(chosen.values())
            return {unit(row): ring[i - 1]["min"] for i, row in enumerate(ring)}
    return {}


@dataclass(frozen=True)
class _Beside:
    """The units that stand beside the main trials, all of them of the last image set; `foreign` are those of `none`."""

    catch: Sequence[tuple]
    practice: Sequence[tuple]
    foreign: Mapping[tuple, str]


def _beside(rows: Sequence[Mapping], last: int, conditions: Sequence[str]) -> _Beside:
    """Which units practise and catch, the same in all tasks and conditions.

    The right answers to practice trials stand on the page, and those to catch trials of `none` can be seen. So their
    units and image set are asked for nothing else in any condition, and their queries are no query of another trial
    and no base image.
    """
    # A unit and image set has the same queries in all conditions.
    asked = {(unit(row), row["set"]): row for row in rows}
    shown = Counter(row[name] for row in asked.values() for name in ("base", "min", "max"))
    # ASSUME: the last image set has the easy trials, by relative difference; practice shows answers, nothing else does.
    free = [row for (_, number), row in asked.items() if number == last]
    easy = sorted(free, key=lambda row: (-(row["relative_difference"] or 0.0), unit(row)))
    with_references = any(condition != NONE for condition in conditions)
    catch = easy[:CATCH] if with_references else []
    alone = [row for row in easy[len(catch) :] if shown[row["min"]] == shown[row["max"]] == 1]
    # A picture of another image is plainly wrong, however hard the trial was.
    foreign = _foreign(alone[::-1]) if NONE in conditions else {}
    practice = [row for row in alone if unit(row) not in foreign][:PRACTICE] if with_references else []
    if (with_references and not practice) or (NONE in conditions and not foreign):
        raise StudyError(
            f"image set {last} has trials of {len(easy)} units, {len(alone)} of them beside {len(catch)} catch trials "
            f"and with queries that no other trial shows: too few to practise and, in {NONE}, for {CATCH} catch trials "
            "on other images; take more units"
        )
    return _Beside([unit(row) for row in catch], [unit(row) for row in practice], foreign)


def tasks(rows: Sequence[Mapping], sets: int, seed: int) -> dict[str, list[Task]]:
    """All tasks by condition, `TASKS_PER_SET` for each image set but the last.

    rows: trials as in `TRIALS`; sets: the image sets that are used, 0 to sets - 1; task t has set t mod (sets - 1), and
    the last set is for practice and catch trials. StudyError where there is one set alone, or too few units.
    """
    if sets < 2:
        raise StudyError(
            "occlusion.sets: a page for people needs at least two image sets, since the last is for practice and catch "
            "trials"
        )
    last = sets - 1
    # Not the order of the tables, which could tell something.
    rows = sorted(_once(rows, seed), key=lambda row: row["trial"])
    conditions = [condition for condition in CONDITIONS if any(row["condition"] == condition for row in rows)]
    beside = _beside(rows, last, conditions)
    found: dict[str, list[Task]] = {}
    for condition in conditions:
        own = {(unit(row), row["set"]): row for row in rows if row["condition"] == condition}
        if condition == NONE:
            catch = [_trial(own[of, last], "catch", least) for of, least in beside.foreign.items()]
        else:
            catch = [_trial(own[of, last], "catch") for of in beside.catch]
        practice = [] if condition == NONE else [_trial(own[of, last], "practice") for of in beside.practice]
        found[condition] = []
        for number in range(TASKS_PER_SET * last):
            main = [_trial(row, "main") for row in own.values() if row["set"] == number % last]
            if not main:
                raise StudyError(
                    f"condition {condition}: image set {number % last} has no trial; use fewer image sets or more units"
                )
            at = seed, condition, number
            trials = sorted((*main, *catch), key=lambda trial: (_lot(*at, "order", trial.id), trial.id))
            shown = [(trial, trial.pair[_lot(*at, "side", trial.id) % 2]) for trial in trials]
            found[condition].append(Task(tuple(shown), tuple(practice)))
    return found


def content(by_condition: Mapping[str, Sequence[Task]], study: str) -> dict:
    """What trials.js holds. It tells the queries apart in practice alone.

    `trials` are in the order of their ids, and each `pair` in that of its pictures' hashes; a task lists indices of
    trials, each with the side of the pair that is left, or, in practice, with the answer. A trial has one pair, and all
    that it says of it is the same whichever of the two is the answer. Catch trials are not marked, but whoever counts
    finds them, as they are in all tasks of their condition; and in `none`, where a person can see the answer, whoever
    tries names finds it, too, as an id is of the trial's own queries.
    """
    trials = {
        trial.id: trial
        for listed in by_condition.values()
        for task in listed
        for trial in (*(trial for trial, _ in task.shown), *task.practice)
    }
    index = {id: i for i, id in enumerate(sorted(trials))}
    whole = {
        "version": VERSION,
        "study": study,
        "conditions": list(by_condition),
        "trials": [
            {
                "id": id,
                "base": trials[id].row["base"],
                "pair": list(trials[id].pair),
                "references": trials[id].row["references"],
            }
            for id in index
        ],
        "tasks": {
            condition: [
                {
                    "main": [[index[trial.id], trial.pair.index(left)] for trial, left in task.shown],
                    "practice": [[index[trial.id], trial.max] for trial in task.practice],
                }
                for task in listed
            ]
            for condition, listed in by_condition.items()
        },
    }
    return {"page": page_hash(whole), **whole}


def page_hash(whole: Mapping) -> str:
    """The hash of a page, 16 hexadecimal digits: of its trials and tasks, so that mending a text does not change it."""
    written = json.dumps({key: value for key, value in whole.items() if key != "page"}, sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def key(by_condition: Mapping[str, Sequence[Task]], study: str, page: str) -> list[dict]:
    """The rows of `KEY`."""
    rows = []
    kept = [*(name for name, _ in ASKED), "relative_difference"]
    for listed in by_condition.values():
        for number, task in enumerate(listed):
            trials = [*task.shown, *((trial, trial.pair[0]) for trial in task.practice)]
            for place, (trial, left) in enumerate(trials):
                right = trial.pair[1 - trial.pair.index(left)]
                row = {name: trial.row[name] for name in kept}
                row |= {"study": study, "page": page, "task": number, "place": place}
                rows.append(row | {"kind": trial.kind, "left": left, "right": right, "max": trial.max})
    return rows


def _key(path: str) -> list[dict]:
    """Rows of a key. As it is the only one, a message does not say to make it again."""
    table = parquet.read(path, KEY)
    image_sets.numbers(path, table)
    rows = table.to_pylist()
    by_task: dict[tuple[str, int], list[dict]] = {}
    for row in rows:
        by_task.setdefault((row["condition"], row["task"]), []).append(row)
    sets: dict[str, dict[int, int]] = {}
    # What the tasks of a condition and an image set show is the same, in another order.
    shown: dict[tuple[str, int], set[tuple]] = {}
    whole = len({(row["study"], row["page"]) for row in rows}) == 1
    for (condition, task), own in by_task.items():
        main = {row["set"] for row in own if row["kind"] == "main"}
        whole &= len(main) == 1 and sorted(row["place"] for row in own) == list(range(len(own)))
        number = sets.setdefault(condition, {})[task] = min(main, default=-1)
        shown.setdefault((condition, number), set()).add(tuple(sorted(map(_about, own))))
    whole &= all(len(of_tasks) == 1 for of_tasks in shown.values())
    for of_condition in sets.values():
        whole &= sorted(of_condition) == list(range(len(of_condition)))
        whole &= set(Counter(of_condition.values()).values()) == {TASKS_PER_SET}
    for row in rows:
        pair = row["left"], row["right"]
        whole &= row["max"] in pair and all(HASH.fullmatch(name) for name in (row["page"], row["trial"], *pair))
    if not whole:
        raise StudyError(
            f"{path}: was changed after the page was made, or is no key; take the copy in page/keys/ (--key)"
        )
    return rows


def _about(row: Mapping) -> tuple:
    """What a row of a key says of its trial, the same in all tasks of its condition and image set."""
    pair = sorted((row["left"], row["right"]))
    return (row["kind"], *(row[name] for name, _ in ASKED), *pair, row["max"], row["relative_difference"])


def plans(path_to_key: str | Path) -> tuple[str, str, dict[tuple[str, int], tuple[list[Planned], list[dict]]]]:
    """Study and hash of the page of a key; by condition and task, what is planned and the rows of the key, in order.

    StudyError where it is not the key of one page, whole and unchanged.
    """
    rows = _key(str(path_to_key))
    found: dict[tuple[str, int], tuple[list[Planned], list[dict]]] = {}
    for row in sorted(rows, key=lambda row: (row["condition"], row["task"], row["place"])):
        planned, own = found.setdefault((row["condition"], row["task"]), ([], []))
        planned.append(Planned(row["trial"], row["kind"], row["left"], row["right"], row["max"]))
        own.append(row)
    return rows[0]["study"], rows[0]["page"], found


_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def padded(png: bytes, size: int) -> bytes:
    """The same picture in `size` bytes, at least 12 more than it has: a chunk that readers skip, before the last."""
    if size < len(png) + 12:
        raise ValueError(f"{len(png)} bytes cannot be padded to {size}")
    chunk = b"fiLl" + bytes(size - len(png) - 12)
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[: -len(_END)] + whole + _END


def _pictures(paths_to_stimuli: Sequence[str], needed: set[str], queries: set[str], folder: Path) -> None:
    """Write the pictures that are needed, all queries in as many bytes: a file is smaller where a detail is covered."""
    missing, largest = set(needed), 0
    for path in paths_to_stimuli:
        for group in parquet.row_groups(path, STIMULI):
            for stimulus, png in zip(group["stimulus"].to_pylist(), group["png"].to_pylist(), strict=True):
                if stimulus not in missing:
                    continue
                if digest(png) != stimulus or not png.endswith(_END):
                    raise StudyError(f"{path}: stimulus {stimulus} is not the PNG that it was; {parquet.again(path)}")
                missing.remove(stimulus)
                (folder / f"{stimulus}.png").write_bytes(png)
                largest = max(largest, len(png) if stimulus in queries else 0)
    if missing:
        first = min(missing)
        raise StudyError(
            f"{len(missing)} pictures of the trials, {first} first, are in none of {', '.join(paths_to_stimuli)}"
        )
    for stimulus in sorted(queries):
        file = folder / f"{stimulus}.png"
        file.write_bytes(padded(file.read_bytes(), largest + 12))


def _rows(paths_to_trials: Sequence[str]) -> list[dict]:
    rows = []
    for path in paths_to_trials:
        rows += read_trials(path)
    if not rows:
        raise StudyError(
            f"{', '.join(paths_to_trials)}: no image set of any unit has a right answer; draw more (occlusion.units)"
        )
    if len({row["trial"] for row in rows}) < len(rows):
        raise StudyError(f"{', '.join(paths_to_trials)}: a trial is there twice")
    return rows


def build(
    *,
    paths_to_trials: Sequence[str],
    paths_to_stimuli: Sequence[str],
    path_to_page: str,
    path_to_key: str,
    study: str,
    sets: int,
    seed: int,
    made: str | None = None,
) -> str:
    """Write the page of a study's trials, a folder that works from a disk, and outside of it the key to its answers.

    A task is a condition and an image set: each unit once, three catch trials among them, practice before (not in
    `none`). Sides are tossed for each task and trial. The folder is complete or not there.
    """
    if Path(path_to_key).resolve().is_relative_to(Path(path_to_page).resolve()):
        raise StudyError(f"{path_to_key}: the key has the answers; it cannot lie in the page's folder {path_to_page}")
    by_condition = tasks(_rows(paths_to_trials), sets, seed)
    whole = content(by_condition, study)
    queries = {stimulus for trial in whole["trials"] for stimulus in trial["pair"]}
    needed = queries | {s for trial in whole["trials"] for s in (trial["base"], *trial["references"])}
    page, temporary = Path(path_to_page), files.partial(path_to_page)
    with files.writing(page):
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "img").mkdir(parents=True)
    try:
        with files.writing(page):
            for name in FILES:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(SOURCE / name, temporary / name)
            written = json.dumps(whole, separators=(",", ":"))
            (temporary / "trials.js").write_text(f"window.TRIALS={written};\n")
            _pictures(paths_to_stimuli, needed, queries, temporary / "img")
        # Once more under the page's hash: another page takes the key's place, and answers to this one may be to come.
        for path in (Path(path_to_key).parent / "keys" / f"{whole['page']}.parquet", path_to_key):
            parquet.write(path, key(by_condition, study, whole["page"]), KEY, made)
        with files.writing(page):
            if page.exists():
                shutil.rmtree(page)
            temporary.rename(page)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    listed = next(iter(by_condition.values()))
    return f"{len(by_condition)} conditions, {len(listed)} tasks each, {len(needed)} pictures"
