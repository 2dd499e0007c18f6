"""Compares a finished default study with the documented run: `make verify`.

The numbers of the documented run are in docs/reference.csv, a row each: accuracies, every estimate and verdict of the
claims and of the measures of importance, and each network's grids, controls and redundancy averaged over layers and
targets.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from jobs import claims, faithfulness, networks, redundancy, tables
from readout import StudyError
from readout.verdicts import CONFIRMATION, decides
from runtime import parquet, provenance

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference.csv"
KEYS = ("table", "network", "item", "measure")
GRID = (
    "score_published",
    "rank_deficit",
    "rank_deficit_less_random",
    "auroc",
    *(f"{name}_{i}" for i in tables.INTERVENTIONS for name in ("separation_loss", "mismatched_separation_loss")),
    *(f"{name}_{i}" for i in ("zero", "mean") for name in ("rank_change", "others_rank_change")),
)
"""Columns of `tables/cells.parquet` whose means over layers and targets are compared."""
CONTROLS = ("separation_loss", "rank_change", "auroc")
"""Columns of `tables/groups.parquet` whose means over layers, targets and draws are compared."""
DECIDES = "shown"
"""The measure that says which contrast of a test is the one whose estimate is given; it is not compared itself."""
CLOSE = 1e-6
"""Numbers agree up to this, absolutely and as a share."""
SHOWN = 20
"""Most moved numbers that are listed."""

Numbers = dict[tuple[str, str, str, str], str]
"""Values as text, by `KEYS`: what `repr` gives of a number, a verdict, or nothing where there is no number."""


def _text(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or pd.isna(value) else f"{value:.9g}"


def _frame(path: Path, schema: pa.Schema, optional: tuple[str, ...] = ()) -> pd.DataFrame:
    return parquet.read(path, schema, optional=optional).to_pandas(ignore_metadata=True)


def numbers(results: Path) -> Numbers:
    """The numbers of a finished study, from its folder of results."""

    def found() -> Iterator[tuple[tuple[str, str, str, str], float | str | None]]:
        for path in sorted((results / "networks").glob("*/accuracy.parquet")):
            accuracy = _frame(path, networks.ACCURACY).set_index("split")
            yield ("accuracy", path.parent.name, "study", "top1"), accuracy.loc["study", "top1"]
        for row in parquet.read(results / "claims.parquet", claims.SCHEMA, optional=claims.OPTIONAL).to_pylist():
            item = f"claim {row['claim']}, {row['role']}: {row['measure']}"
            item += ", confirmation" if row["targets"] == CONFIRMATION else ""
            for measure in ("estimate", "ci_low", "ci_high", "verdict"):
                yield ("claims", row["network"], item, measure), row[measure]
            yield ("claims", row["network"], item, DECIDES), decides(row)
        cells = _frame(results / "tables" / "cells.parquet", tables.CELLS, tables.OPTIONAL)
        for (network, cell), part in cells.groupby(["network", "cell"]):
            for measure in GRID:
                yield ("cells", network, cell, measure), part[measure].mean()
        if not (path := results / "tables" / "groups.parquet").exists():
            return
        groups = _frame(path, tables.GROUPS, tables.GROUP_OPTIONAL)
        # The draws of a kind differ in a last number alone.
        named = {
            name: groups[name].str.replace(r"\d+(?=_matched$|$)", "", regex=True) for name in ("group", "intervention")
        }
        named["group"] = named["group"].where(~groups["kind"].isin(["cell", "pseudo"]), groups["group"])
        tops = groups["measure"].str.replace(r"\d+$", "", regex=True) + groups["one_in"].map(" 1/{:g}".format)
        named["group"] = named["group"].where(groups["kind"] != "ranked", tops)
        for (network, *names), part in groups.groupby([groups["network"], groups["kind"], *named.values()]):
            # Not every kind has every outcome.
            for measure in (name for name in CONTROLS if part[name].notna().any()):
                yield ("groups", network, " ".join(names), measure), part[measure].mean()

        if (path := results / "faithfulness.parquet").exists():
            for row in parquet.read(path, faithfulness.SCHEMA, optional=faithfulness.OPTIONAL).to_pylist():
                item = f"{row['what']} {row['intervention']}: {row['measure']}"
                for measure in faithfulness.NUMBERS:
                    yield ("faithfulness", row["network"], item, measure), row[measure]
        if (path := results / "tables" / "redundancy.parquet").exists():
            looked = _frame(path, tables.REDUNDANCY, redundancy.OPTIONAL)
            for (network, *names), part in looked.groupby(["network", "group", "intervention", "place"]):
                for measure in ("auroc_before", "auroc_after", "change"):
                    yield ("redundancy", network, " ".join(names), measure), part[measure].mean()

    return {key: _text(value) for key, value in found()}


def read(path: Path = REFERENCE) -> Numbers:
    """The numbers of the documented run."""
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(row[key] for key in KEYS): row["value"] for row in csv.DictReader(file)}


def write(found: Numbers, path: Path = REFERENCE) -> None:
    """Make a study's numbers those of the documented run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*KEYS, "value"])
        writer.writerows([*key, value] for key, value in found.items())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def compare(reference: Numbers, found: Numbers) -> tuple[list[str], bool]:
    """What agrees, what moved and by how much, in lines; and whether all verdicts are those of the reference."""
    both = [key for key in reference if key in found]
    verdicts = [key for key in both if key[-1] == "verdict"]
    changed = [key for key in verdicts if reference[key] != found[key]]
    values = [key for key in both if key[-1] not in ("verdict", DECIDES)]
    moved = []
    for key in values:
        if _is_number(reference[key]) and _is_number(found[key]):
            before, after = float(reference[key]), float(found[key])
            if abs(after - before) > CLOSE * max(1, abs(before)):
                moved.append((abs(after - before), key, f"{before:.4g} -> {after:.4g} ({after - before:+.2g})"))
        elif reference[key] != found[key]:
            moved.append((float("inf"), key, f"{reference[key] or 'missing'} -> {found[key] or 'missing'}"))
    moved.sort(key=lambda entry: (-entry[0], entry[1]))
    lines = [
        f"verdicts: {len(verdicts) - len(changed)} of {len(verdicts)} are those of the documented run",
        *(f"  {_name(key)}: {reference[key]} -> {found[key]}" for key in changed),
        f"numbers: {len(values) - len(moved)} of {len(values)} agree to {CLOSE:g}, {len(moved)} moved",
        *(f"  {_name(key)}: {how}" for _, key, how in moved[:SHOWN]),
    ]
    if len(moved) > SHOWN:
        lines.append(f"  and {len(moved) - SHOWN} that moved by less")
    for what, one, other in (("missing here", reference, found), ("not in the documented run", found, reference)):
        absent = [key for key in one if key not in other]
        lines += [f"{what}: {len(absent)}, such as {_name(absent[0])}"] if absent else []
    return lines, not changed and all(key in found for key in reference)


def _name(key: tuple[str, ...]) -> str:
    return ", ".join(part for part in key[1:] if part)


def _versions(results: Path) -> Mapping[str, str]:
    return provenance.of(parquet.schema(results / "claims.parquet").metadata).get("versions", {})


def main() -> None:
    """Compare, or with `--write` make the numbers the documented ones; exit status 1 where a verdict differs."""
    parser = argparse.ArgumentParser(prog="make verify", description=__doc__)
    parser.add_argument("results", type=Path, help="folder of a finished default study")
    parser.add_argument("--write", action="store_true", help="make its numbers those of the documented run")
    given = parser.parse_args()
    try:
        found = numbers(given.results)
    except StudyError as error:
        sys.exit(f"error: {error}")
    if given.write:
        write(found)
        return
    lines, same = compare(read(), found)
    print(f"{given.results} beside the documented run ({REFERENCE.relative_to(REFERENCE.parents[1])})")
    print("\n".join(lines))
    print("made with", ", ".join(f"{name} {number}" for name, number in _versions(given.results).items()))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
