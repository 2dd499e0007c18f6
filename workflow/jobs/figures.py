"""Step `figures`: one figure from its table, as PNG and SVG."""

import json
import sys
from collections.abc import Sequence

from matplotlib.figure import Figure

from jobs import parquet
from readout import StudyError, figures


def draw(figure: str, path_to_table: str, networks: Sequence[str], title: str) -> Figure:
    """Draw the figure `figure1`, `figure2` (of one network), `figure3` or a supplement from its table."""
    figures.style()
    table = parquet.read(path_to_table).to_pandas(ignore_metadata=True)
    if figure == "figure1":
        return figures.figure1(table, title)
    if figure == "figure2":
        return figures.figure2(table[table["network"] == networks[0]], title)
    if figure == "supplement_claims":
        return figures.supplement_claims(table)
    return getattr(figures, figure)(table, networks)


def save(drawn: Figure, paths: Sequence[str]) -> None:
    """Write the figure in the formats of the paths' suffixes; without a date, so that files can be compared."""
    for path in paths:
        drawn.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None, bbox_inches="tight")


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    paths = given.pop("paths")
    try:
        save(draw(**given), paths)
    except StudyError as error:
        sys.exit(str(error))
