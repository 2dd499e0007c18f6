"""Prints the headline of a finished study: the paper's claims with their verdicts, and where the results lie.

`python -m commands.headline results/digits`, with `workflow` on Python's path. A run of the study ends with the same.
"""

import argparse
import sys
import textwrap
from pathlib import Path

import yaml

from readout import StudyError
from readout.verdicts import conclusions
from runtime import parquet

REGISTRY = Path(__file__).resolve().parents[1] / "claims.yaml"
COLUMNS = ["claim", "network", "role", "targets", "verdict"]
WIDTH = 100
"""Most characters of a line, but for long paths."""
STATEMENT = 56
"""Most characters of a claim's statement."""
REPORT = "snakemake --report report.zip"


def text(results: str | Path, report: str | Path = REPORT) -> str:
    """The headline of the study with these results; empty where its claims have not been judged.

    `report` is the file of the report, or the command that makes it. Raises StudyError where the table of claims cannot
    be read.
    """
    results = Path(results)
    path = results / "claims.parquet"
    if not path.exists():
        return ""
    table = parquet.read(path)
    if not set(COLUMNS) <= set(table.column_names):
        raise StudyError(f"{path}: was made by an earlier version; {parquet.again(path)}")
    registry = yaml.safe_load(REGISTRY.read_text())["claims"]
    concluded = conclusions(table.select(COLUMNS).to_pylist(), registry)
    statements = [textwrap.shorten(each.short, STATEMENT, placeholder=" ...") for each in concluded]
    width = max(map(len, statements))
    lines = ["", "The paper's claims, as this study judges them over all its networks:"]
    lines.append(f"     {'':{width}}  {'as published':13}  corrected")
    for each, statement in zip(concluded, statements, strict=True):
        lines.append(f"{each.claim:>3}  {statement:{width}}  {each.published:13}  {each.corrected}")
    lines.append("")
    places = {"figures": "figures", "tables": "tables", "claims": "claims.html", "measures": "faithfulness.html"}
    places |= {"legibility": "legibility.html"}
    for name, place in places.items():
        lines += [f"  {name:10} {results / place}"] if (results / place).exists() else []
    return "\n".join([*lines, f"  {'report':10} {report}", ""])


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(prog="python -m commands.headline", description=__doc__)
    parser.add_argument("results", help="the folder of the study's results, as results/digits")
    parser.add_argument("--report", default=REPORT, help="the file of its report, where there is one")
    given = parser.parse_args()
    try:
        said = text(given.results, given.report)
    except StudyError as error:
        sys.exit(f"error: {error}")
    if not said:
        sys.exit(f"error: {given.results}: no claims have been judged there; run the study to its end")
    print(said, end="")


if __name__ == "__main__":
    main()
