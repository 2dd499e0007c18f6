"""The figure of sensitivity: a data frame in, a matplotlib figure out."""

import textwrap
from collections.abc import Mapping

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from readout.figures import VERDICTS
from readout.verdicts import missing, number

HEADS = {"base": "the study's own", "bins": "bins a side", "images": "images a class", "others": "others"}
"""What stands above the variants of a setting."""
WIDE, HIGH, GAP, APART = 1.5, 0.56, 0.1, 0.22
"""Inches of a chip, between two, and between two settings."""
STATEMENT = 3.0
"""Inches of a claim's statement."""
CHIP = "round,pad=0,rounding_size=0.07"
FAINT = 0.22
"""Opacity of the chips of a variant that was not run."""


def _words(row: Mapping) -> tuple[str, str]:
    """The verdict of a chip, and its estimate with its interval in the brackets below."""
    if missing(row["estimate"]):
        return row["verdict"], "no estimate"
    text = number(row["estimate"])
    if not missing(row["ci_low"]):
        text += f" ({number(row['ci_low'])} to {number(row['ci_high'])})"
    return row["verdict"], text.replace("-", "−")


def _head(row: Mapping) -> str:
    """What stands above a variant's chips."""
    return row["value"].replace(", ", "\n") if row["setting"] == "base" else row["value"]


def figure(verdicts: pd.DataFrame, title: str) -> Figure:
    """Claims (rows) by variants (columns): chips in the colour of the verdict, with the estimate that decides.

    `verdicts` has the columns and the order of the table of verdicts, the base's first. A frame marks a verdict that
    is not the base's; a variant that was not run, being the base again, has faint chips.
    """
    variants = verdicts.drop_duplicates("variant").to_dict("records")
    claims = verdicts.drop_duplicates("claim").to_dict("records")
    rows = {(row["variant"], row["claim"]): row for row in verdicts.to_dict("records")}
    lefts, x = [], STATEMENT + 0.1
    for i, variant in enumerate(variants):
        x += APART * (i > 0 and variant["setting"] != variants[i - 1]["setting"])
        lefts.append(x)
        x += WIDE + GAP
    above, below = 1.15, 0.5
    width, height = x + 0.05, above + len(claims) * (HIGH + GAP) + below
    figure = plt.figure(figsize=(width, height))
    # In inches from the top left.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(0.1, 0.28, f"{title}: corrected verdicts, one setting changed", fontsize=13, weight="bold", va="center")
    for i, (variant, left) in enumerate(zip(variants, lefts, strict=True)):
        if i == 0 or variant["setting"] != variants[i - 1]["setting"]:
            axes.text(left, 0.56, HEADS[variant["setting"]], fontsize=10, weight="bold", va="center")
        faint = not variant["run"]
        head = _head(variant) + ("\nnot run: as the base" if faint else "")
        axes.text(left + WIDE / 2, above - 0.08, head, fontsize=9, ha="center", va="bottom", linespacing=1.15)
    for j, claim in enumerate(claims):
        top = above + j * (HIGH + GAP)
        said = textwrap.fill(f"{claim['claim']}  {claim['statement']}", 46)
        axes.text(0.1, top + HIGH / 2, said, fontsize=8, va="center", linespacing=1.15)
        base = rows[variants[0]["variant"], claim["claim"]]["verdict"]
        for variant, left in zip(variants, lefts, strict=True):
            row = rows[variant["variant"], claim["claim"]]
            faint = not variant["run"]
            edge = {"edgecolor": "black", "linewidth": 2.2} if row["verdict"] != base else {"linewidth": 0}
            look = {"facecolor": (VERDICTS[row["verdict"]], FAINT if faint else 1.0), **edge}
            axes.add_patch(FancyBboxPatch((left, top), WIDE, HIGH, boxstyle=CHIP, **look))
            ink = "0.15" if faint else "white"
            verdict, estimate = _words(row)
            middle = left + WIDE / 2
            axes.text(middle, top + 0.19, verdict, fontsize=9.5, weight="bold", color=ink, ha="center", va="center")
            axes.text(middle, top + 0.39, estimate, fontsize=7.8, color=ink, ha="center", va="center")
    entries = [Patch(facecolor=colour, label=verdict) for verdict, colour in VERDICTS.items()]
    entries.append(Patch(facecolor="white", edgecolor="black", linewidth=2, label="not the base's verdict"))
    legend = {"loc": "lower left", "bbox_to_anchor": (STATEMENT / width, 0.0), "frameon": False, "fontsize": 9.5}
    figure.legend(handles=entries, ncols=len(entries), **legend)
    return figure
