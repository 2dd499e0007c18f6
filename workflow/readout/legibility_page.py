"""The page of the occlusion task: rows of the table of legibility in, one self-contained HTML document out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape

from readout.conditions import NONE
from readout.legibility import EFFECT, EXPERTS, PEOPLE, PERSON, POWER, PRIOR, PUBLISHED, percent
from readout.page import STYLE
from readout.verdicts import FAILS, HOLDS, OPEN, POOLED, Row, missing
from readout.verdicts import NONE as NO_VERDICT

CHIPS = {HOLDS: ("✓", "holds"), FAILS: ("✗", "fails"), OPEN: ("?", "open"), NO_VERDICT: ("–", "none")}
UNKNOWN = "–"
ALONE = (
    "No untrained network stands beside, so what observers reach without anything learned is not known here: to have "
    "one, list it in occlusion.networks, and give its entry in networks the layers that the task looks at."
)
"""Of a study whose task looks at trained networks alone."""
SHOWN = 3
"""Conditions whose agreement is shown open; the rest is folded."""


def _number(value: float | None, digits: int = 2) -> str:
    if missing(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    # Rounded to zero it has no sign.
    return (text if float(text) else f"{0:.{digits}f}").replace("-", "−")


def told(row: Row | None, low: str = "low", high: str = "high") -> str:
    """An estimate with its interval."""
    if row is None or missing(row["estimate"]):
        return UNKNOWN
    text = _number(row["estimate"])
    return text if missing(row[low]) else f"{text} [{_number(row[low])}, {_number(row[high])}]"


def _with_sem(row: Row | None) -> str:
    """The interval over units, and of people the published error over sessions."""
    text = told(row)
    if row is None or missing(row["sem2"]):
        return text
    return f"{text}<br><small>{_number(row['pooled'])} ± {_number(row['sem2'])} over sessions</small>"


def _table(headings: Sequence[str], lines: Iterable[tuple[str, Sequence[str]]], caption: str = "") -> str:
    """`lines` are a heading, as text, and cells, as HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="numbers">{cell}</td>' for cell in cells)
        + "</tr>\n"
        for name, cells in lines
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption or headings[0])}"><table>{said}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )


def _chip(row: Row) -> str:
    """The verdict, or that there is no estimate, with its reason."""
    if row["verdict"] is None:
        return f'<span class="chip none">not estimable</span><br><small>{escape(str(row["reason"]))}</small>'
    symbol, kind = CHIPS[row["verdict"]]
    said = f'<span class="chip {kind}"><span aria-hidden="true">{symbol}</span> {row["verdict"]}</span>'
    return said + (f"<br><small>{escape(row['reason'])}</small>" if row["reason"] else "")


class _Rows:
    """The rows of one network, to be found by what they say."""

    def __init__(self, rows: Sequence[Row], network: str):
        self.rows = [row for row in rows if row["network"] == network]

    def of(self, what: str, **which) -> list[Row]:
        return [r for r in self.rows if r["what"] == what and all(r[name] == value for name, value in which.items())]

    def one(self, what: str, **which) -> Row | None:
        found = self.of(what, **which)
        return found[0] if found else None

    def values(self, what: str, column: str, **which) -> list[str]:
        """What a column has in these rows, each once, in their order."""
        return list(dict.fromkeys(row[column] for row in self.of(what, **which)))


def _name(observer: str) -> str:
    return "people" if observer == PERSON else observer


def _power(rows: _Rows) -> str:
    """What the study could find, before anything that it found."""
    lines = []
    for row in rows.of("power"):
        if row["part"] == "gain":
            what = f"{_name(row['observer'])}, {row['condition']}: mean gain"
            counts = f"{row['n_units']}"
        else:
            what = f"{_name(row['observer'])}, {row['condition']}: A less P by {row['intervention']} ablation"
            counts = f"{row['n_a']} and {row['n_p']}"
        if missing(row["error"]):
            cells = [counts, *[UNKNOWN] * 3, escape(str(row["reason"]))]
        else:
            each = " in each" if row["part"] == "contrast" else ""
            numbers = [_number(row[name], 3) for name in ("deviation", "error")]
            cells = [counts, *numbers, _number(row["detectable"]), f"{row['needed']}{each}"]
        lines.append((what, cells))
    if not lines:
        return ""
    headings = ("contrast", "units", "SD of units", "standard error", "detectable", f"units for {EFFECT:g}")
    return (
        "<h3>What this study could find</h3>\n"
        f"<p>Before any contrast: its standard error from the variance of this study's own units; the true difference "
        f"that would be found in {100 * POWER:.0f} % of such studies; and the units needed to find {EFFECT:g}, which "
        "is what all explanations together added for people in the paper. It is assumed that units are independent and "
        "vary alike in all cells. A difference smaller than the detectable one may be there and not be found.</p>\n"
        f"{_summary(rows)}{_folded(_table(headings, lines), len(lines), 'rows of power')}"
    )


def _summary(rows: _Rows) -> str:
    """The range of what the contrasts could detect."""
    contrasts = rows.of("power", part="contrast")
    known = [row for row in contrasts if not missing(row["detectable"])]
    if not contrasts:
        return ""
    if not known:
        return "<p>No contrast of A and P has the units that a statement of its power takes.</p>\n"
    found, units = ([row[name] for row in known] for name in ("detectable", "needed"))
    return (
        f"<p>The contrasts of A and P detect differences from {_number(min(found))} to {_number(max(found))} on; to "
        f"find {EFFECT:g} they would take {min(units)} to {max(units)} units in each group.</p>\n"
    )


def _folded(text: str, count: int, what: str, most: int = 12) -> str:
    """A long table behind a click."""
    return text if count <= most else f"<details><summary>{count} {what}</summary>{text}</details>\n"


def _accuracy(rows: _Rows, conditions: Sequence[str]) -> str:
    lines = [
        (
            _name(observer),
            [
                _with_sem(rows.one("accuracy", observer=observer, condition=condition, layer="all"))
                for condition in conditions
            ],
        )
        for observer in rows.values("accuracy", "observer")
    ]
    for name, count, trials, error in (
        ("published: people", "people", PEOPLE, "people_sem2"),
        ("published: two experts", "experts", EXPERTS, "experts_sem2"),
    ):
        cells = []
        for condition in conditions:
            known = PUBLISHED.get(condition)
            cells.append(
                f"{percent(getattr(known, count), trials)} ± {getattr(known, error):.2f}" if known else UNKNOWN
            )
        lines.append((name, cells))
    return _table(("observer", *conditions), lines, "Accuracy; chance is 0.50")


def _agreement(rows: _Rows, conditions: Sequence[str]) -> str:
    parts = []
    for condition in conditions:
        found = rows.of("kappa", condition=condition)
        names = list(dict.fromkeys(name for row in found for name in (row["observer"], row["part"])))
        if not names:
            continue
        pairs = {(row["observer"], row["part"]): row for row in found}
        lines = []
        for name in names:
            of_pairs = [pairs.get((other, name)) or pairs.get((name, other)) for other in names]
            cells = [told(row).replace(" [", "<br><small>[").replace("]", "]</small>") for row in of_pairs]
            lines.append((_name(name), cells))
        undefined = sum(row["n_undefined"] for row in found)
        caption = f"Cohen's kappa, condition {condition}" + (f"; undefined in {undefined} pairs" if undefined else "")
        parts.append(_table(("", *map(_name, names)), lines, caption))
    return "".join(parts[:SHOWN]) + _folded(
        "".join(parts[SHOWN:]), len(parts[SHOWN:]), "more conditions", 0 if parts[SHOWN:] else 1
    )


def _difficulty(rows: _Rows, conditions: Sequence[str]) -> str:
    lines = []
    for row in rows.of("relation"):
        bins = rows.of("bin", observer=row["observer"], condition=row["condition"])
        cells = [told(row), *(f"{_number(each['estimate'])} <small>at {_number(each['at'])}</small>" for each in bins)]
        lines.append((f"{_name(row['observer'])}, {row['condition']}", cells))
    headings = ("observer and condition", "rank correlation", *(f"fifth {i + 1}" for i in range(5)))
    return _folded(_table(headings, lines, "Accuracy by relative difference"), len(lines), "observers and conditions")


def _ease(rows: _Rows, conditions: Sequence[str]) -> str:
    """Rank correlations of units' accuracies with what is known of them without trials: predictors across."""
    found = list(rows.of("ease"))
    if not found:
        return ""
    names = list(dict.fromkeys(row["part"] for row in found))
    lines = []
    for observer, condition in dict.fromkeys((row["observer"], row["condition"]) for row in found):
        of = {row["part"]: row for row in found if (row["observer"], row["condition"]) == (observer, condition)}
        lines.append((f"{_name(observer)}, {condition}", [told(of.get(name)) for name in names]))
    headings = ("observer and condition", *(name.replace("_", " ") for name in names))
    table = _table(headings, lines, "Rank correlation, over units, of accuracy and what is known of a unit")
    return _folded(table, len(lines), "observers and conditions")


def _people(rows: _Rows) -> str:
    text = ""
    for what, caption, headings in (
        ("seconds", "Reaction time in seconds", ("condition", "all answers", "right", "wrong")),
        ("confidence", "Share of answers by confidence", ("condition", "1", "2", "3")),
        ("accuracy_by_confidence", "Accuracy by confidence", ("condition", "1", "2", "3")),
    ):
        parts = ("all", "right", "wrong") if what == "seconds" else headings[1:]
        lines = [
            (condition, [_with_sem(rows.one(what, condition=condition, part=part)) for part in parts])
            for condition in rows.values(what, "condition")
        ]
        text += _table(headings, lines, caption) if lines else ""
    return text


def _bridge(rows: _Rows) -> str:
    lines = []
    for row in rows.of("bridge", adjusted=False):
        about = {"observer": row["observer"], "condition": row["condition"]}
        cells = [told(rows.one("gain", **about))]
        for intervention in rows.values("contrast", "intervention"):
            found = rows.one("contrast", intervention=intervention, adjusted=False, **about)
            p, over_cells = _number(found["p"], 3), told(found, "low_cells", "high_cells")
            extra = "" if missing(found["low_cells"]) else f"; over cells {over_cells.partition(' ')[2]}"
            beside = "" if missing(found["p"]) else f"<br><small>permuted cells p = {p}{extra}</small>"
            cells.append(f"{told(found)}{beside}")
        other = rows.one("bridge", adjusted=True, **about)
        cells += [_chip(row), _chip(other)]
        lines.append((f"{_name(row['observer'])}, {row['condition']}", cells))
    if not lines:
        return "<p>Without the condition none, or answers in it, there are no gains.</p>\n"
    names = [f"A less P, {name}" for name in rows.values("contrast", "intervention")]
    headings = ("observer and condition", "mean gain", *names, "verdict", "given relative difference")
    return _table(headings, lines, "Gain of units of cells that matter (A) less that of cells that probes read (P)")


def _under(rows: _Rows) -> str:
    """By which ablations units are told to matter."""
    names = rows.values("contrast", "intervention")
    return f"under {' and '.join(names)} ablation " if names else ""


def _regression(rows: _Rows) -> str:
    lines = []
    for row in rows.of("regression", part="difference"):
        which = {name: row[name] for name in ("observer", "condition", "intervention", "adjusted")}
        terms = [rows.one("regression", part=part, **which) for part in ("ablation", "probe", "difference")]
        given = ", given relative difference" if row["adjusted"] else ""
        name = f"{_name(row['observer'])}, {row['condition']}, {row['intervention']}{given}"
        why = escape(str(row["reason"])) if missing(row["estimate"]) else _number(row["p"], 3)
        lines.append(
            (name, [*map(told, terms), told(row, "low_cells", "high_cells").partition(" ")[2] or UNKNOWN, why])
        )
    if not lines:
        return ""
    headings = ("regression", "ablation effect", "probe AUROC", "difference", "over cells", "p")
    return _folded(_table(headings, lines, "Change of the gain by one SD"), len(lines), "regressions")


def _margins(rows: _Rows) -> str:
    parts = rows.values("margin", "part")
    lines = [
        (
            f"{_name(row['observer'])}, {row['condition']}",
            [
                told(rows.one("margin", part=part, observer=row["observer"], condition=row["condition"]))
                for part in parts
            ],
        )
        for row in rows.of("gain")
    ]
    table = _table(("observer and condition", *parts), lines, "Mean gain by selectivity bin and by magnitude bin")
    return _folded(table, len(lines), "rows of margins")


WARNINGS = (
    "Cells are bins of selectivity and magnitude, so the ablation effect and what a probe reads cannot be told apart "
    "from these two without many layers. The margins show both.",
    "Magnitude drives the relative difference, which makes a trial easy or hard. Each contrast is therefore given with "
    "and without it.",
    "Ablating a larger cell costs more by itself. The regression has the size of the cell as a covariate.",
    "The interval over units takes the cells as they are. Where cells differ for whatever reason, that interval is too "
    "short; the permuted cells, and the interval over cells, are not fooled by this.",
)
EXPLAINED: dict[str, tuple[str, Callable[[_Rows, Sequence[str]], str]]] = {
    "How often observers are right": (
        "Share of trials in which the observer chooses the occlusion that leaves the activation higher: the mean over "
        "units of their means over image sets, with an interval over units. Of people also the share of all answers "
        "with 2 standard errors over sessions, as published; it says nothing of how far other units would differ. The "
        "published numbers are of other units, another network and other images: they show the scale, and are no "
        "target.",
        _accuracy,
    ),
    "Whether observers agree": (
        "Cohen's kappa on who is right where, over the units of one image set, mean over sets (and pairs of people): 0 "
        "is chance, 1 is full agreement. Machine observers that disagree with each other cannot all stand for people.",
        _agreement,
    ),
    "Easy and hard trials": (
        "The relative difference is the activation at the max query less that at the min query, as a share of the base "
        "image's. Rank correlation with accuracy over all units and image sets, and accuracy in five bins of equal "
        "count.",
        _difficulty,
    ),
    "Whether a unit shows how easy it is": (
        "Rank correlation over units of accuracy and what is known of a unit without any trial: local contrast and "
        "sparsity of its channel's activation map, the number of images that drive it, and the machine "
        "interpretability score, which is of another task.",
        _ease,
    ),
}


def _section(name: str, rows: _Rows, untrained: bool, conditions: Sequence[str]) -> str:
    heading = "All trained networks" if name == POOLED else escape(name)
    note = (
        "<p>Untrained: a control. What observers reach here they reach without anything learned.</p>"
        if untrained
        else ""
    )
    parts = [_power(rows)]
    for title, (text, part) in EXPLAINED.items():
        found = part(rows, conditions)
        parts.append(f"<h3>{title}</h3>\n<p>{text}</p>\n{found}" if found else "")
    people = _people(rows)
    parts.append(f"<h3>How fast and how sure people are</h3>\n{people}" if people else "")
    warnings = "".join(f"<li>{escape(each)}</li>" for each in WARNINGS)
    parts.append(
        "<h3>Are units that matter easier to see?</h3>\n<p>The gain is the accuracy with references less that without: "
        f"of a machine observer, less that of the observer “{PRIOR}”; of people, less that of people in condition "
        f"{NONE}. A are the cells in the top quarter by ablation effect but not by probe AUROC, P the reverse. The "
        f"contrast holds if it is above 0 {_under(rows)}with its whole interval over units, and permuted cells seldom "
        f"do as well.</p>\n<ul>{warnings}</ul>\n{_bridge(rows)}{_regression(rows)}{_margins(rows)}"
    )
    return f'<section class="claim"><header><h2>{heading}</h2>{note}</header>\n{"".join(parts)}</section>\n'


def _left_out(rows: Sequence[Row]) -> Iterator[str]:
    """Paragraphs on what has no trials, and on feature visualisations that show nothing of their unit."""
    left = [row for row in rows if row["what"] == "left_out"]
    nouns = {"units": "units", "extremes": "image sets"}
    counts = "; ".join(
        f"{row['n_units']} {nouns[row['part']]}: {row['reason']}" for row in left if row["part"] in nouns
    )
    if counts:
        yield f"<p>Left out, without any trial: {escape(counts)}.</p>"
    failed = [row for row in left if row["part"] == "visualisations"]
    counts = "; ".join(
        f"{row['n_trials']} picture{'' if row['n_trials'] == 1 else 's'}: {row['reason']}" for row in failed
    )
    if counts:
        yield f"<p>Feature visualisations that do not drive their unit: {escape(counts)}.</p>"


def sentence(name: str, rows: _Rows) -> str:
    """What came out of the bridge in one network, in plain words."""
    found = rows.of("bridge", adjusted=False)
    verdicts = [row["verdict"] for row in found if row["verdict"] is not None]
    start = "Over all trained networks" if name == POOLED else name
    if not verdicts:
        reasons = ", ".join(dict.fromkeys(str(row["reason"]) for row in found)) or "there are no gains"
        return f"{start}: whether units that matter are easier to see cannot be estimated ({reasons})."
    counts = [(verdict, verdicts.count(verdict)) for verdict in (HOLDS, FAILS, OPEN, NO_VERDICT)]
    said = ", ".join(f"{verdict} in {count}" for verdict, count in counts if count)
    return (
        f"{start}: of {len(verdicts)} combinations of observer and condition, “explanations help more on units of "
        f"cells that matter” {said}."
    )


def render(
    rows: Sequence[Row],
    networks: Sequence[str],
    untrained: Sequence[str],
    conditions: Sequence[str],
    confidence: float,
) -> str:
    """The page as text.

    `rows` have the columns of the table of legibility; `networks` are the sections, `all` among them where networks are
    pooled; `confidence` is that of the intervals.
    """
    of = {name: _Rows(rows, name) for name in networks}
    people = any(row["observer"] == PERSON for row in rows)
    proxy = (
        "<b>Machine observers are a proxy. They are not people.</b> They compare pictures by fixed rules, and nothing "
        "here shows that people would see what they see."
    )
    if not untrained:
        proxy += f" {ALONE}"
    proxy += " Rows named “people” are answers of people." if people else " No answers of people are on this page."
    left_out = "".join(_left_out(rows))
    sentences = "".join(
        f"<li>{escape(sentence(name, own))}</li>\n" for name, own in of.items() if name not in untrained
    )
    sections = "".join(_section(name, own, name in untrained, conditions) for name, own in of.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>The occlusion task</title><style>{STYLE}
.claim h3 {{ margin-top: 1.4rem; }} small {{ color: var(--soft); }}
.claim td.numbers {{ font-variant-numeric: tabular-nums; }}</style></head>
<body><header><h1>Can one see what drives a unit?</h1>
<p>An image is shown twice, each time with another square hidden. Which of the two leaves the unit's activation higher?
The task is that of Zimmermann et al. (2021). Observers answer with references that show what the unit responds to, and
in condition none without any. Intervals, of {100 * confidence:g} %, are over units.</p>
<p>{proxy}</p>{left_out}</header>
<main><ul>
{sentences}</ul>
{sections}</main></body></html>
"""
