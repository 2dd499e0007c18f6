"""Tries every test of the claims in worlds whose truth is known, and writes docs/simulations.md: `make simulations`.

A test that errs at a number of classes gives no verdict there: `least_classes` in workflow/claims.yaml, which is
compared with what the simulations show.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from readout import worlds
from readout.verdicts import OPEN

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = ROOT / "workflow" / "claims.yaml"
PAGE = ROOT / "docs" / "simulations.md"
CLASSES = (4, 6, 10, 50)
WORLDS = 2000
CONFIDENCE = 0.95
SEED = 0
COVERAGE, WRONG = 0.9, 0.05
"""A test must cover as often, and may be wrong as often."""
MARK = "<!-- The rest of this page is written by `make simulations`. -->\n"


def fails(entry: worlds.Entry) -> bool:
    """Whether the intervals or the verdicts of a test err too often in a world."""
    return entry.coverage < COVERAGE or entry.wrong > WRONG


def least(entries: Iterable[worlds.Entry]) -> int | None:
    """The least number of classes from which on a test errs in none of its worlds; None where there is none."""
    entries = list(entries)
    worst = max((entry.classes for entry in entries if fails(entry)), default=0)
    return min((entry.classes for entry in entries if entry.classes > worst), default=None)


def _by(entries: Iterable[worlds.Entry], *names: str) -> dict[tuple, list[worlds.Entry]]:
    found: dict[tuple, list[worlds.Entry]] = {}
    for entry in entries:
        found.setdefault(tuple(getattr(entry, name) for name in names), []).append(entry)
    return found


def _said(entry: worlds.Entry) -> str:
    """Coverage, wrong and right verdicts in per cent; bold where the test errs."""
    right = "–" if math.isnan(entry.right) else f"{100 * entry.right:.0f}"
    text = f"{100 * entry.coverage:.1f} / {100 * entry.wrong:.1f} / {right}"
    return f"**{text}**" if entry.role != "published" and fails(entry) else text


def page(entries: Sequence[worlds.Entry], classes: Sequence[int]) -> str:
    """The part of the page that is made: which tests give no verdict, and a table of each claim's tests and worlds."""
    corrected = _by((e for e in entries if e.role == "corrected"), "claim")
    lines = ["## From how many classes a test is used", ""]
    lines += ["| claim | test | role | classes |", "|---|---|---|---|"]
    for (claim, role, measure), own in _by(entries, "claim", "role", "measure").items():
        if role != "published":
            lines.append(f"| {claim} | {measure} | {role} | {least(own) or 'none'} |")
    for count in classes:
        without = [claim for (claim,), own in corrected.items() if (least(own) or math.inf) > count]
        named = ", ".join(map(str, without))
        said = f"no verdict on claim{'s' * (len(without) > 1)} {named}" if without else "a verdict on every claim"
        lines += ["", f"With {count} classes there is {said}."]
    for (claim,), own in _by(entries, "claim").items():
        lines += ["", f"## Claim {claim}"]
        for (role, measure), rows in _by(own, "role", "measure").items():
            lines += ["", f"*{role}*: {measure}", ""]
            lines.append("| world | truth | " + " | ".join(f"K = {count}" for count in classes) + " |")
            lines.append("|---" * (len(classes) + 2) + "|")
            for (world,), each in _by(rows, "world").items():
                truth = "at the bound" if each[0].truth == OPEN else each[0].truth
                lines.append(f"| {world} | {truth} | " + " | ".join(map(_said, each)) + " |")
    return "\n".join(lines) + "\n"


def disagreements(registry: Sequence[dict], entries: Iterable[worlds.Entry]) -> list[str]:
    """Tests whose `least_classes` in the registry are not those of the simulations."""
    found = _by(entries, "claim", "measure")
    return [
        f"claim {claim['claim']}: {test['measure']}: least_classes: {test['least_classes']}, "
        f"but the simulations say {shown or 'null'}"
        for claim in registry
        for test in claim["tests"]
        if test["role"] != "published"
        and test["least_classes"] != (shown := least(found[claim["claim"], test["measure"]]))
    ]


def main() -> None:
    """Simulate, write the page, and fail where the registry says otherwise."""
    argparse.ArgumentParser(prog="make simulations", description=__doc__).parse_args()
    registry = yaml.safe_load(REGISTRY.read_text())["claims"]
    entries = []
    for entry in worlds.simulate(registry, classes=CLASSES, worlds=WORLDS, confidence=CONFIDENCE, seed=SEED):
        if not entries or (entry.claim, entry.world) != (entries[-1].claim, entries[-1].world):
            print(f"claim {entry.claim}: {entry.world}", flush=True)
        entries.append(entry)
    head, mark, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(head + mark + "\n" + page(entries, CLASSES))
    print(f"wrote {PAGE.relative_to(ROOT)}")
    if found := disagreements(registry, entries):
        sys.exit("error: workflow/claims.yaml says otherwise:\n  " + "\n  ".join(found))


if __name__ == "__main__":
    main()
