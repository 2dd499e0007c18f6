"""The page of measures of importance: rows of their table in, one self-contained HTML document out."""

from collections.abc import Mapping, Sequence
from html import escape

from readout.page import STYLE
from readout.verdicts import POOLED, Row, missing

WHAT = {
    "ablate": "Ablating the top",
    "keep": "Keeping the top alone",
    "cells": "Cells: the measure beside what the cell's ablation costs",
}
"""Headings of the tables, by what their rows say."""
EXPLAINED = {
    "ablate": "Gain: the share of the gap that is lost when the units at the top of a ranking are replaced, averaged "
    "over the logarithm of the share of units, less the same of random orders. Rank: among the measures, 1 for the "
    "largest gain, averaged over layers and targets. Reach: the gain as a share of the best measure's, which for each "
    "half of the classes is chosen by the other half. Passes: forward and backward ones per image, beside those that "
    "the study makes anyway.",
    "keep": "Gain: the share of the gap that is left when all units but those at the top of a ranking are replaced, "
    "less the same of random orders. Rank and reach as above.",
    "cells": "Rank correlation over a grid's cells between the mean of the measure over the cell's units and the "
    "separation loss of the cell's ablation, averaged over the layers and targets that are ranked. The row of the "
    "probe's AUROC is what claim 7 is about, on these layers.",
}


def _told(row: Row, names: Sequence[str]) -> str:
    """An estimate with its interval."""
    value, low, high = (row[name] for name in names)
    if missing(value):
        return "–"
    text = f"{value:.2f}" if missing(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
    return text.replace("-", "−")


def _passes(row: Row) -> str:
    if row["forward"] is None or missing(row["forward"]):
        return "–"
    return f"{int(row['forward'])} + {int(row['backward'])}"


COLUMNS = {
    "ablate": ("gain", "rank", "reach", "passes"),
    "keep": ("gain", "rank", "reach", "passes"),
    "cells": ("correlation",),
}
CELLS = {
    "gain": lambda row: _told(row, ("estimate", "ci_low", "ci_high")),
    "correlation": lambda row: _told(row, ("estimate", "ci_low", "ci_high")),
    "rank": lambda row: _told(row, ("rank", "rank_low", "rank_high")),
    "reach": lambda row: _told(row, ("reach", "reach_low", "reach_high")),
    "passes": _passes,
}


def _table(what: str, intervention: str, rows: Sequence[Row]) -> str:
    columns = COLUMNS[what]
    headings = "".join(f'<th scope="col">{name}</th>' for name in columns)
    lines = []
    for row in rows:
        name = f"<b>{escape(row['label'])}</b>" if row["best"] else escape(row["label"])
        cells = "".join(f'<td class="numbers">{CELLS[column](row)}</td>' for column in columns)
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return (
        f'<div class="test"><h3>{WHAT[what]} <span class="role">{escape(intervention)}</span> '
        f"classes: {rows[0]['classes']}, layers: {rows[0]['layers']}</h3>"
        f'<table><thead><tr><th scope="col">measure</th>{headings}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>\n"
    )


def render(rows: Sequence[Row], said: Mapping[str, str], shown: str, confidence: float) -> str:
    """The page as text.

    `rows` have the columns of the table of importance; `said` is a sentence for each network, of ablations by the
    intervention `shown`; `confidence` is that of the intervals.
    """
    sections = []
    for network in sorted(said, key=lambda name: name != POOLED):
        parts: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            if row["network"] == network:
                parts.setdefault((row["what"], row["intervention"]), []).append(row)
        name = "All trained networks" if network == POOLED else escape(network)
        tables = "".join(_table(*key, part) for key, part in parts.items())
        sections.append(f'<section class="claim"><header><h2>{name}</h2></header>\n{tables}</section>\n')
    lines = [
        f"Over all trained networks: {said[name].removeprefix(f'{POOLED}: ')}" if name == POOLED else said[name]
        for name in sorted(said, key=lambda name: name != POOLED)
    ]
    sentences = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
    explained = "".join(f"<p><b>{WHAT[what]}.</b> {text}</p>\n" for what, text in EXPLAINED.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Measures of importance</title><style>{STYLE}</style></head>
<body><header><h1>Which measure finds the units that a network needs?</h1>
<p>Each measure ranks the units of a layer by images outside a fold; what the ablation of the top costs is judged on the
images in it. The sentences are of {escape(shown)} ablation; intervals, of {100 * confidence:g} %, are over
classes.</p></header>
<main><ul>
{sentences}</ul>
{explained}{"".join(sections)}</main></body></html>
"""
