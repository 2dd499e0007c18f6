"""Prints the headline of a finished study: the paper's claims with their verdicts, and where the results lie.

`python -m commands.headline results/digits`, with `workflow` on Python's path. A run of the study ends with the same.
"""

import argparse
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from readout import StudyError
from runtime import parquet

REGISTRY = Path(__file__).resolve().parents[1] / "claims.yaml"
COLUMNS = ["claim", "network", "measure", "verdict", "statement"]
WIDTH = 100
"""Most characters of a line, but for long paths."""
STATEMENT = 56
"""Most characters of a claim's statement."""
POOLED = "all"
"""The name that stands for all networks in the table of claims."""
ORDER = ("holds", "does not hold", "inconclusive")
"""The verdicts in the order in which they are told; others follow."""
REPORT = "snakemake --report report.zip"


def verdict(rows: Iterable[Mapping[str, object]]) -> str:
    """What the rows of one claim say in all.

    Each row has `network`, `measure` and `verdict`. The row that pools the networks speaks for a measure; of a measure
    without one, every network's row counts.
    """
    rows = list(rows)
    pooled = [row for row in rows if row["network"] == POOLED]
    measures = {row["measure"] for row in pooled}
    single = [row for row in rows if row["measure"] not in measures]
    tests = Counter(row["verdict"] for row in pooled)
    networks: dict[str, dict[str, None]] = {}
    for row in single:
        networks.setdefault(row["verdict"], {})[row["network"]] = None
    if len(tests.keys() | networks.keys()) == 1:
        return (pooled + single)[0]["verdict"]

    def place(said: str) -> int:
        return ORDER.index(said) if said in ORDER else len(ORDER)

    parts = sorted(tests, key=place)
    if len(parts) > 1:
        parts = [f"{said} in {tests[said]}" for said in parts]
        parts[0] += f" of {len(pooled)} tests"
    for said in sorted(networks, key=place):
        where = networks[said]
        parts.append(f"{said} in {', '.join(where) if len(where) <= 2 else f'{len(where)} networks'}")
    return ", ".join(parts)


def text(results: str | Path, report: str | Path = REPORT) -> str:
    """The headline of the study with these results; empty where its claims have not been judged.

    `report` is the file of the report, or the command that makes it. Raises StudyError where the table of claims cannot
    be read.
    """
    results = Path(results)
    path = results / "claims.parquet"
    if not path.exists():
        return ""
    claims: dict[int, list[dict]] = {}
    for row in parquet.read(path, columns=COLUMNS).to_pylist():
        claims.setdefault(row["claim"], []).append(row)
    short = {claim["claim"]: claim.get("short") for claim in yaml.safe_load(REGISTRY.read_text())}
    statements = {
        claim: textwrap.shorten(short.get(claim) or rows[0]["statement"], STATEMENT, placeholder=" ...")
        for claim, rows in claims.items()
    }
    width = max(map(len, statements.values()))
    lines = ["", "The paper's claims, as this study judges them over all its networks:"]
    for claim, rows in claims.items():
        line = f"{claim:>3}  {statements[claim]:{width}}  "
        first, *further = textwrap.wrap(verdict(rows), WIDTH - len(line))
        lines += [line + first, *(" " * len(line) + more for more in further)]
    lines.append("")
    for name, places in {"figures": ["figures"], "tables": ["tables"], "claims": ["claims.html"]}.items():
        lines += [f"  {name:8} {results / place}" for place in places if (results / place).exists()]
    return "\n".join([*lines, f"  report   {report}", ""])


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
