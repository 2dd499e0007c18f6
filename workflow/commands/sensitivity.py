"""Which corrected verdicts depend on the bins, the number of images or the others? After `snakemake sensitivity`.

`python -m commands.sensitivity results/digits`, with `workflow` on Python's path, prints the verdicts of all variants
as a Markdown table, and below it what such a run ends with.
"""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from commands import headline
from readout import StudyError
from readout.verdicts import FAILS, HOLDS, NONE, OPEN, missing, number
from runtime import parquet

COLUMNS = ["variant", "setting", "value", "run", "claim", "verdict", "estimate", "ci_low", "ci_high", "note"]
SHORT = {HOLDS: "holds", FAILS: "does not", OPEN: "?", NONE: "none"}
UNITS = {"bins": "{0} x {0} bins", "images": "{0} images", "others": "others {0}"}
"""A value of a setting in words."""


def _read(results: str | Path) -> list[dict]:
    """The rows of the table of verdicts; StudyError where it is not there or of an earlier version."""
    path = Path(results) / "sensitivity" / "verdicts.parquet"
    table = parquet.read(path)
    if not set(COLUMNS) <= set(table.column_names):
        raise StudyError(f"{path}: was made by an earlier version; {parquet.again(path)}")
    return table.select(COLUMNS).to_pylist()


def words(row: Mapping) -> str:
    """What a variant is, in words; the base's value says it by itself."""
    return UNITS.get(row["setting"], "{0}").format(row["value"])


def _by_variant(rows: Sequence[Mapping]) -> dict[str, dict[int, Mapping]]:
    """Rows by variant, the base first, and claim."""
    found: dict[str, dict[int, Mapping]] = {}
    for row in rows:
        found.setdefault(row["variant"], {})[row["claim"]] = row
    return found


def _shorts() -> dict[int, str]:
    """The claims in few words, by number."""
    registry = yaml.safe_load(headline.REGISTRY.read_text())["claims"]
    return {claim["claim"]: claim["short"] for claim in registry}


def changes(rows: Sequence[Mapping]) -> dict[int, tuple[str, dict[str, list[str]]]]:
    """Of each claim the verdict of the base, and the variants with another verdict, in words, by that verdict."""
    base, *others = _by_variant(rows).values()
    found = {}
    for claim, row in base.items():
        moved: dict[str, list[str]] = {}
        for other in others:
            if (verdict := other[claim]["verdict"]) != row["verdict"]:
                moved.setdefault(verdict, []).append(words(other[claim]))
        found[claim] = row["verdict"], moved
    return found


def text(results: str | Path) -> str:
    """Which verdicts change, a line a claim; StudyError where the table cannot be read."""
    rows = _read(results)
    found, shorts = changes(rows), _shorts()
    base, *others = (next(iter(of.values())) for of in _by_variant(rows).values())
    statements = {c: textwrap.shorten(shorts[c], headline.STATEMENT, placeholder=" ...") for c in found}
    width = max(map(len, statements.values()))
    changed = sum(bool(moved) for _, moved in found.values())
    lines = ["", f"The corrected verdicts with {words(base)}, on few layers, and with one other setting:"]
    for claim, (verdict, moved) in found.items():
        said = [verdict, *(f"{other} with {', '.join(names)}" for other, names in moved.items())]
        line = f"{claim:>3}  {statements[claim]:{width}}  {'; '.join(said)}{'' if moved else ' with each'}"
        # What has no room goes on below the verdict.
        lines += textwrap.wrap(line, headline.WIDTH, subsequent_indent=" " * (width + 7))
    lines.append("")
    lines.append(
        f"{changed} of {len(found)} verdicts change. Tried: {', '.join(map(words, others)) or 'nothing else'}."
    )
    lines += [f"{words(other)}: {other['note']}." for other in others if not other["run"]]
    results = Path(results)
    lines += ["", f"  table    {results / 'sensitivity' / 'verdicts.parquet'}"]
    return "\n".join([*lines, f"  figure   {results / 'figures' / 'sensitivity.png'}", ""])


def table(rows: Sequence[Mapping]) -> str:
    """A Markdown table: a row a claim, a column a variant, verdict and estimate with its interval."""
    found, shorts = _by_variant(rows), _shorts()
    heads = [words(next(iter(of.values()))) for of in found.values()]
    lines = ["| claim | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for claim in next(iter(found.values())):
        entries = []
        for of in found.values():
            row = of[claim]
            entry = SHORT[row["verdict"]]
            if not missing(row["estimate"]):
                entry += f" {number(row['estimate'])}"
            if not missing(row["ci_low"]):
                entry += f" ({number(row['ci_low'])} to {number(row['ci_high'])})"
            entries.append(entry)
        lines.append(f"| {claim} {shorts[claim]} | {' | '.join(entries)} |")
    return "\n".join(lines)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(prog="python -m commands.sensitivity", description=__doc__)
    parser.add_argument("results", help="the folder of the study's results, as results/digits")
    given = parser.parse_args()
    try:
        print(table(_read(given.results)), text(given.results), sep="\n", end="")
    except StudyError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
