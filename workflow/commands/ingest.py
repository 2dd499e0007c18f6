"""Reads the answers that people saved on a study's page: `python -m commands.ingest results/<study> answers/*.json`.

With `workflow` on Python's path. Writes `page/responses.parquet` and `page/sessions.parquet` of the study
anew, from the files that are given: give all of them each time. A file that is cut short, edited, of another page or
there twice is refused by name; the others are taken.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from jobs import observers
from jobs.page import plans
from readout import StudyError, answers
from readout.answers import Planned, Session
from runtime import parquet

RESPONSES = pa.schema(
    [
        *observers.SCHEMA,
        ("session", pa.string()),
        ("place", pa.int32()),
        ("side", pa.string()),
        ("confidence", pa.int32()),
        ("seconds", pa.float64()),
        ("kind", pa.string()),
        ("passed", pa.bool_()),
    ]
)
"""A row an answer, in the order in which they were given. `p` is `correct`: one choice has no other probability."""
SESSIONS = pa.schema(
    [
        ("session", pa.string()),
        ("participant", pa.string()),
        ("condition", pa.string()),
        ("task", pa.int32()),
        ("started", pa.string()),
        ("seconds", pa.float64()),
        ("instruction_seconds", pa.float64()),
        ("practice_passes", pa.int32()),
        ("catch_ratio", pa.float64()),
        ("left_share", pa.float64()),
        ("passed", pa.bool_()),
        ("reasons", pa.list_(pa.string())),
        ("comment", pa.string()),
    ]
)
"""A row a session; `reasons` say why one did not pass."""


@dataclass(frozen=True)
class Taken:
    """The rows of one file's session."""

    session: Session
    row: dict
    responses: list[dict]


def judge(session: Session, planned: Sequence[Planned], rows: Sequence[Mapping]) -> Taken:
    """The rows of a session that fits its task; `planned` and `rows` are the task's in the key."""
    shown = [(p, row) for p, row in zip(planned, rows, strict=True) if p.kind != "practice"]
    practice = {p.trial: (p, row) for p, row in zip(planned, rows, strict=True) if p.kind == "practice"}
    given = [(a, *practice[a.trial]) for a in session.answers if a.round > 0]
    given += [(a, *pair) for a, pair in zip(session.tested, shown, strict=True)]
    right = [answer.chosen == p.max for answer, p, _ in given]
    catch = [was for was, (_, p, _) in zip(right, given, strict=True) if p.kind == "catch"]
    sides = [answer.side for answer in session.tested]
    reasons = answers.screen(
        session.condition,
        seconds=session.milliseconds / 1000,
        instruction_seconds=session.instruction_milliseconds / 1000,
        practice_passes=session.practice_passes,
        catch=catch,
        sides=sides,
    )
    row = {
        name: getattr(session, name) for name in ("session", "participant", "condition", "task", "started", "comment")
    }
    row |= {"seconds": session.milliseconds / 1000, "instruction_seconds": session.instruction_milliseconds / 1000}
    row |= {"practice_passes": session.practice_passes, "catch_ratio": sum(catch) / len(catch)}
    row |= {"left_share": sides.count("left") / len(sides), "passed": not reasons, "reasons": list(reasons)}
    responses = []
    for place, ((answer, p, of_key), was) in enumerate(zip(given, right, strict=True)):
        response = {field.name: of_key[field.name] for field in RESPONSES if field.name in of_key}
        response |= {"observer": "person", "p": float(was), "correct": float(was), "session": session.session}
        response |= {"place": place, "side": answer.side, "confidence": answer.confidence, "kind": p.kind}
        responses.append(response | {"seconds": answer.milliseconds / 1000, "passed": not reasons})
    return Taken(session, row, responses)


def take(paths: Sequence[Path], path_to_key: Path) -> tuple[list[Taken], list[str]]:
    """The sessions of files that a key's page could have saved, and for each other file why it is refused."""
    study, page, by_task = plans(path_to_key)
    taken: list[Taken] = []
    refused: list[str] = []
    read: list[tuple[Path, Session]] = []
    for path in paths:
        try:
            read.append((path, answers.parse(_text(path))))
        except StudyError as error:
            refused.append(f"{path}: {error}")
    files_of: dict[str, Path] = {}
    participants: dict[str, Path] = {}
    # Who took part twice counts with the first session.
    for path, session in sorted(read, key=lambda item: (item[1].started, item[1].session, str(item[0]))):
        try:
            if (session.page, session.study) != (page, study):
                raise StudyError(
                    f"answers page {session.page} of study {session.study}; the key is of {page} of {study}: keys of "
                    "earlier pages are in page/keys/ (--key)"
                )
            planned, rows = by_task.get((session.condition, session.task), (None, None))
            if planned is None:
                raise StudyError(f"answers task {session.task} of condition {session.condition}, which the page lacks")
            answers.check(session, planned)
            if session.session in files_of:
                raise StudyError(f"has the session of {files_of[session.session]} again")
            if session.participant in participants:
                raise StudyError(
                    f"participant {session.participant} took part before, see {participants[session.participant]}"
                )
            files_of[session.session] = participants[session.participant] = path
            taken.append(judge(session, planned, rows))
        except StudyError as error:
            refused.append(f"{path}: {error}")
    return taken, sorted(refused)


def _text(path: Path) -> str:
    try:
        # A byte order mark is what some editors and mail programs put in front.
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot be read ({error}); take the file as the page saved it") from error


def ingest(results: Path, paths: Sequence[Path], path_to_key: Path) -> tuple[str, list[str]]:
    """Write the tables of the files that can be taken; what was done, and why others were refused."""
    taken, refused = take(paths, path_to_key)
    if not taken:
        return "no file could be taken, nothing is written", refused
    folder = results / "page"
    parquet.write(folder / "responses.parquet", [row for each in taken for row in each.responses], RESPONSES)
    parquet.write(folder / "sessions.parquet", [each.row for each in taken], SESSIONS)
    lines = [f"{len(taken)} sessions, {sum(each.row['passed'] for each in taken)} of them pass, in {folder}"]
    for each in taken:
        if not each.row["passed"]:
            lines.append(f"  {each.session.session} does not count: {'; '.join(each.row['reasons'])}")
    return "\n".join(lines), refused


def main(arguments: Sequence[str] | None = None) -> None:
    """Ingest; exit status 1 where a file was refused."""
    parser = argparse.ArgumentParser(prog="python -m commands.ingest", description=__doc__)
    parser.add_argument("results", type=Path, help="the folder of the study's results, as results/digits")
    parser.add_argument("answers", type=Path, nargs="+", help="the files that the page saved")
    parser.add_argument("--key", type=Path, help="the page's key; without it, page/key.parquet of the results")
    given = parser.parse_args(arguments)
    try:
        told, refused = ingest(given.results, given.answers, given.key or given.results / "page" / "key.parquet")
    except StudyError as error:
        sys.exit(f"error: {error}")
    print(told)
    if refused:
        sys.exit("\n".join(["refused:", *(f"  {line}" for line in refused)]))


if __name__ == "__main__":
    main()
