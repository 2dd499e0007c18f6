"""Step `figures`: one figure from its tables, as PNG and SVG.

A script and not a job of the workflow's process: matplotlib is not made for threads.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
from matplotlib.figure import Figure

from readout import figures


def draw(figure: str, path_to_table: str, networks: Sequence[str], title: str) -> Figure:
    """Draw the figure `figure1`, `figure2` (of one network), `figure3` or a supplement from its table."""
    figures.style()
    table = pd.read_parquet(path_to_table)
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
    drawn = draw(
        figure=snakemake.params.figure,
        path_to_table=snakemake.input[0],
        networks=snakemake.params.networks,
        title=snakemake.params.title,
    )
    save(drawn, list(snakemake.output))
