"""The page of the claims: rows of the claims table in, one self-contained HTML document out.

The page loads nothing, from the network or from beside it: its style, its script and its drawings are inside. Without
JavaScript it shows everything; with it, a reader can filter. All text is escaped.

What a row tells is listed in `COLUMNS`; a column more is an entry more.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from readout import verdicts
from readout.verdicts import CONFIRMATION, POOLED, Row, missing

VERDICTS = {
    verdicts.HOLDS: ("✓", "holds"),
    verdicts.FAILS: ("✗", "fails"),
    verdicts.OPEN: ("?", "open"),
    verdicts.NONE: ("–", "none"),
}
"""Symbol and CSS class of each verdict."""
ROLES = {
    "published": "As published",
    "corrected": "Corrected",
    "beside": "Beside it",
}
"""The roles of tests, as the page calls them."""
UNKNOWN = "cannot be estimated from this study"
WIDTH, HEIGHT, MARGIN = 320, 28, 10
"""Size of a drawn interval, and what is free on either side of its scale, in pixels."""

Scale = tuple[float, float]
"""Least and greatest value on the scale of a test."""


def scale(rows: Sequence[Row]) -> Scale:
    """From the least to the greatest of all estimates, ends of intervals and bounds of a test's rows; never empty.

    A control may lie far off, and beyond the scale; it has its say where there is nothing else.
    """
    rows = [row for row in rows if row["note"] != verdicts.CONTROL] or rows
    names = ("estimate", "ci_low", "ci_high", "lower", "upper")
    values = [float(row[name]) for row in rows for name in names if not missing(row[name])] or [0.0]
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def number(value: float, ends: Scale) -> str:
    """A number to a hundredth of its scale or finer; a zero has no sign."""
    decimals = max(0, 2 - math.floor(math.log10(ends[1] - ends[0])))
    text = f"{value:.{decimals}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def interval(row: Row, ends: Scale) -> str:
    """An estimate and its interval, or that there is none."""
    if missing(row["estimate"]):
        return UNKNOWN
    estimate = number(row["estimate"], ends)
    if missing(row["ci_low"]):
        return f"{estimate}, no interval"
    return f"{estimate} [{number(row['ci_low'], ends)}, {number(row['ci_high'], ends)}]"


def _x(value: float, ends: Scale) -> str:
    """Where a value is drawn, in pixels from the left."""
    return f"{MARGIN + (value - ends[0]) / (ends[1] - ends[0]) * (WIDTH - 2 * MARGIN):.1f}".removesuffix(".0")


def _name(network: str) -> str:
    """A network's name on the page."""
    return "pooled" if network == POOLED else escape(network)


def _network(row: Row) -> str:
    """The name of a row, with the number of classes that it is of where that is not all."""
    if row["targets"] == CONFIRMATION:
        return f"confirmation, {row['classes']} classes"
    return _name(str(row["network"]))


def _decided(row: Row) -> str:
    """Which contrast a row shows, what was subtracted from it, and why there is no verdict."""
    said = [escape(verdicts.decides(row))]
    if not missing(row["null"]):
        said.append(f"less a null of {verdicts.number(row['null'])}")
    said += [escape(str(row[name])) for name in ("reason", "note") if row[name]]
    return "; ".join(said)


def _p(row: Row) -> str:
    """Both one-sided p-values, and the adjusted ones where there are such."""
    if missing(row["p_holds"]):
        return "–"
    parts = []
    for name, sign in (("p_holds", "for"), ("p_fails", "against")):
        adjusted = "" if missing(row[f"{name}_adjusted"]) else f" (adjusted {row[f'{name}_adjusted']:.2g})"
        parts.append(f"{row[name]:.2g} {sign}{adjusted}")
    return "<br>".join(parts)


def _chip(verdict: str, note: str = "") -> str:
    symbol, kind = VERDICTS[verdict]
    return f'<span class="chip {kind}"><span aria-hidden="true">{symbol}</span> {verdict}{note}</span>'


def _drawing(row: Row, ends: Scale) -> str:
    """The interval of a row as SVG, or that there is none.

    The ground is shaded where the claim holds, and the bounds of the rule are dashed; a pooled estimate is a diamond.
    """
    if missing(row["estimate"]):
        return UNKNOWN
    left = "0" if missing(row["lower"]) else _x(row["lower"], ends)
    right = str(WIDTH) if missing(row["upper"]) else _x(row["upper"], ends)
    parts = [f'<rect x="{left}" width="{float(right) - float(left):g}" height="{HEIGHT}"/>']
    parts += [
        f'<path class="bound" d="M{_x(row[name], ends)} 0V{HEIGHT}"/>'
        for name in ("lower", "upper")
        if not missing(row[name])
    ]
    middle = HEIGHT // 2
    if not missing(row["ci_low"]):
        parts.append(f'<path class="line" d="M{_x(row["ci_low"], ends)} {middle}H{_x(row["ci_high"], ends)}"/>')
    estimate = _x(row["estimate"], ends)
    if row["network"] == POOLED:
        parts.append(f'<path d="M{estimate} {middle - 7}l7 7-7 7-7-7z"/>')
    else:
        parts.append(f'<circle cx="{estimate}" cy="{middle}" r="4"/>')
    title = escape(f"{interval(row, ends)}; the claim holds {verdicts.wanted(row)}")
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg class="{VERDICTS[row["verdict"]][1]}" role="img" {size}><title>{title}</title>{"".join(parts)}</svg>'


def _axis(ends: Scale) -> str:
    """The scale below the drawings of a test, with round numbers."""
    rough = (ends[1] - ends[0]) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    # A little more than either end: a tick there must not be lost to rounding.
    first, last = math.ceil(ends[0] / step - 1e-6), math.floor(ends[1] / step + 1e-6)
    parts = [f'<path d="M{MARGIN} .5H{WIDTH - MARGIN}"/>']
    for i in range(first, last + 1):
        x = _x(i * step, ends)
        parts.append(f'<path d="M{x} 0V4"/><text x="{x}" y="15">{number(i * step, (0, 100 * step))}</text>')
    size = f'width="{WIDTH}" height="18" viewBox="0 0 {WIDTH} 18"'
    return f'<svg class="axis" aria-hidden="true" {size}>{"".join(parts)}</svg>'


class Column(NamedTuple):
    """What a test's table says of a row: the CSS class and the heading of the column, and the content as HTML."""

    name: str
    heading: str
    cell: Callable[[Row, Scale], str]


COLUMNS = (
    Column("drawn", "interval, drawn", _drawing),
    Column("numbers", "estimate [interval]", lambda row, ends: "" if missing(row["estimate"]) else interval(row, ends)),
    Column("p", "p", lambda row, ends: _p(row)),
    Column("decided", "what is shown", lambda row, ends: _decided(row)),
    Column("verdict", "verdict", lambda row, ends: _chip(row["verdict"])),
)
"""The columns behind the network's name."""


def _test(rows: Sequence[Row]) -> str:
    """One test of a claim: what is measured, by which rule it is judged, and each network's row."""
    ends, head = scale(rows), rows[0]
    lines = []
    for row in rows:
        cells = "".join(f'<td class="{column.name}">{column.cell(row, ends)}</td>' for column in COLUMNS)
        marks = f'data-network="{escape(str(row["network"]))}" data-verdict="{row["verdict"]}"'
        lines.append(
            f"<tr {marks}{' class=pooled' if row['network'] == POOLED else ''}>"
            f'<th scope="row">{_network(row)}</th>{cells}</tr>\n'
        )
    headings = "".join(f'<th scope="col">{column.heading}</th>' for column in COLUMNS)
    body = "".join(lines)
    known = any(not missing(row["estimate"]) for row in rows)
    axis = "".join(f"<td>{_axis(ends) if known and name == 'drawn' else ''}</td>" for name, *_ in COLUMNS)
    judged = "by the estimate alone" if head["role"] == "published" else "where the interval lies so"
    return (
        f'<div class="test" data-role="{escape(str(head["role"]))}">'
        f'<h3><span class="role">{ROLES[head["role"]]}</span> {escape(str(head["measure"]))}</h3>'
        f'<p class="rule">The claim holds <b>{escape(str(head["rule"]))}</b>, {judged}. '
        f"Interval and p: {escape(str(head['test']))}.</p>\n"
        f'<table><thead><tr><th scope="col">network</th>{headings}</tr></thead>\n<tbody>\n{body}</tbody>'
        f'<tfoot aria-hidden="true"><tr><td></td>{axis}</tr></tfoot></table></div>\n'
    )


def _groups(rows: Iterable[Row], *names: str) -> list[list[Row]]:
    """Rows with the same values in the columns together, in the order in which they come first."""
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(found.values())


def _conclusions(concluded: Sequence[verdicts.Conclusion], confidence: float) -> str:
    """The table that the page leads with: each claim as published and corrected, and what that means."""
    lines = []
    for each in concluded:
        name = f'<a href="#claim-{each.claim}">{each.claim}&ensp;{escape(each.statement)}</a>'
        confirmed = "" if each.confirmation is None else _chip(each.confirmation)
        cells = f"<td>{_chip(each.published)}</td><td>{_chip(each.corrected)}</td><td>{confirmed}</td>"
        lines.append(f'<tr><th scope="row">{name}</th>{cells}<td>{escape(each.sentence(confidence))}</td></tr>\n')
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="the claims, as published and corrected">'
        '<table class="conclusions"><thead><tr><th scope="col">claim</th><th scope="col">as published</th>'
        '<th scope="col">corrected</th><th scope="col">confirmation</th><th scope="col">in plain words</th>'
        "</tr></thead>"
        f"\n<tbody>\n{''.join(lines)}</tbody></table></div>\n"
    )


def _corrected(rows: Iterable[Row], network: str) -> str:
    """The verdict of a claim's corrected test in one network, or of all of them."""
    for row in rows:
        if (row["role"], row["network"]) == ("corrected", network) and row["targets"] != CONFIRMATION:
            return _chip(row["verdict"])
    return '<span title="no corrected test of this claim is of this network">–</span>'


def _overview(claims: Sequence[Sequence[Row]], columns: Sequence[str]) -> str:
    """The corrected verdicts by network."""
    headings = "".join(f'<th scope="col">{_name(name)}</th>' for name in columns)
    lines = []
    for rows in claims:
        head = rows[0]
        name = f'<a href="#claim-{head["claim"]}">{head["claim"]}&ensp;{escape(str(head["statement"]))}</a>'
        cells = "".join(f"<td>{_corrected(rows, name)}</td>" for name in columns)
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>\n')
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="corrected verdicts by claim and network">'
        '<table class="overview"><caption>Corrected verdicts, pooled and by network.'
        f'</caption><thead><tr><th scope="col">claim</th>{headings}</tr></thead>\n<tbody>\n{"".join(lines)}'
        "</tbody></table></div>\n"
    )


def _form(claims: Sequence[Sequence[Row]], columns: Sequence[str]) -> str:
    """The filters; hidden until the script runs, without which they would do nothing."""
    numbers = "".join(f'<option value="claim-{rows[0]["claim"]}">claim {rows[0]["claim"]}</option>' for rows in claims)
    names = "".join(f'<option value="{escape(name)}">{_name(name)}</option>' for name in columns)
    roles = "".join(f'<option value="{role}">{name.lower()}</option>' for role, name in ROLES.items())
    boxes = "".join(
        f'<label><input type="checkbox" name="verdict" value="{verdict}" checked> {_chip(verdict)}</label>'
        for verdict in VERDICTS
    )
    return (
        '<form hidden aria-label="filters">'
        f'<label>Claim <select name="claim"><option value="">every claim</option>{numbers}</select></label>'
        f'<label>Test <select name="role"><option value="">every test</option>{roles}</select></label>'
        f'<label>Network <select name="network"><option value="">every row</option>{names}</select></label>'
        f"<fieldset><legend>Verdict</legend>{boxes}</fieldset>"
        '<label>Search <input type="search" name="words" placeholder="accuracy, depth, s3m3 ..."></label>'
        '<button type="reset">Show everything</button><output aria-live="polite"></output></form>\n'
    )


STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c1c1c; --soft: #5c5c5c; --rule: #d8d8d8; --band: #f4f5f7;
  --holds: #0b6b4f; --holds-band: #dcefe6; --fails: #a3341b; --fails-band: #fbe3da; --open: #4d5566;
  --open-band: #e4e7ee; --shade: #dcefe6; }
@media (prefers-color-scheme: dark) { :root { --page: #16181c; --ink: #e8e8e8; --soft: #a9adb5; --rule: #3a3e46;
  --band: #1f2228; --holds: #7fd6b4; --holds-band: #16382d; --fails: #ffab91; --fails-band: #46231a; --open: #c0c8da;
  --open-band: #2d323d; --shade: #1c3a30; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: .94rem/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; }
h2 { font-size: 1.15rem; margin: 0; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .3rem 0; max-width: 48rem; }
a { color: inherit; text-decoration-color: var(--soft); }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: var(--soft); padding: .4rem 0; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; font-weight: normal; vertical-align: middle; }
thead th { color: var(--soft); font-size: .85rem; border-bottom: 1px solid var(--rule); }
.wide { overflow-x: auto; margin: 1rem 0; }
.overview td, .overview th { border-bottom: 1px solid var(--rule); padding: .35rem .6rem .35rem 0; }
.overview th[scope=row] { min-width: 16rem; position: sticky; left: 0; background: var(--page); }
.overview th:nth-child(2), .overview td:nth-child(2) { background: var(--band); padding-left: .6rem; }
.overview .chip, .conclusions .chip { font-size: .8rem; }
.conclusions td, .conclusions th { border-bottom: 1px solid var(--rule); padding: .45rem .8rem .45rem 0;
  vertical-align: top; }
.conclusions th[scope=row] { min-width: 15rem; } .conclusions td:last-child { min-width: 18rem; }
.role { color: var(--soft); font-weight: normal; } .role::after { content: ":"; }
.chip { display: inline-block; white-space: nowrap; border-radius: .7em; padding: 0 .55em; font-size: .87rem;
  border: 1px solid currentColor; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.chip.holds { color: var(--holds); background: var(--holds-band); }
.chip.fails { color: var(--fails); background: var(--fails-band); border-style: dashed; }
.chip.none { color: var(--soft); background: var(--page); border-style: dotted; }
.chip.open { color: var(--open); background: var(--open-band); border-style: dotted; }
form { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
  background: var(--band); border: 1px solid var(--rule); border-radius: .4rem; padding: .6rem .8rem; margin: 1rem 0; }
form[hidden] { display: none; }
fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem .7rem; align-items: center; }
legend { float: left; padding: 0 .5rem 0 0; }
select, input, button { font: inherit; max-width: 100%; }
form label { max-width: 100%; }
output { color: var(--soft); }
.claim { border-top: 2px solid var(--ink); padding-top: .7rem; margin-top: 2.2rem; scroll-margin-top: 6rem; }
.claim > header p { color: var(--soft); }
.claim > header .chip { font-size: .8rem; }
.test { margin: 1.1rem 0 1.6rem; }
.test th[scope=row] { width: 11rem; overflow-wrap: anywhere; }
.test td.drawn { width: 21rem; padding-top: 0; padding-bottom: 0; }
.test td.numbers, .test td.p { font-variant-numeric: tabular-nums; }
.test td.numbers { width: 11rem; }
.test td.p { width: 9rem; font-size: .87rem; }
.test td.decided { font-size: .87rem; color: var(--soft); }
.test td.verdict { width: 9rem; }
.rule { color: var(--soft); }
.rule b { color: var(--ink); }
.pooled { background: var(--band); }
.pooled th, .pooled .numbers, .pooled .p { font-weight: bold; }
tfoot td { padding: 0; }
svg { display: block; max-width: 100%; height: auto; overflow: visible; }
svg.holds { color: var(--holds); } svg.fails { color: var(--fails); } svg.open { color: var(--open); }
svg.none { color: var(--soft); }
svg rect { fill: var(--shade); print-color-adjust: exact; -webkit-print-color-adjust: exact; }
svg path, svg circle { fill: currentColor; }
svg .line { stroke: currentColor; stroke-width: 2; fill: none; }
.pooled svg .line { stroke-width: 4; }
svg .bound { stroke: var(--soft); stroke-dasharray: 3 2; fill: none; }
svg.axis { color: var(--soft); }
svg.axis path { stroke: currentColor; fill: none; }
svg.axis text { font-size: 11px; text-anchor: middle; fill: currentColor; }
@media (max-width: 46rem) {
  form { position: static; }
  .overview th[scope=row] { min-width: 11rem; }
  .test thead { position: absolute; clip-path: inset(50%); height: 1px; overflow: hidden; }
  .test tbody tr:not([hidden]) { display: grid; grid-template-columns: 1fr auto; border-bottom: 1px solid var(--rule);
    padding: .25rem 0; }
  .test tr > * { display: block; padding-right: 0; }
  .test table, .test tbody, .test tfoot, .test tfoot tr { display: block; }
  .test th[scope=row], .test td[class] { width: auto; }
  .test td.drawn { grid-area: 2 / 1 / 3 / 3; }
  .test td.verdict { grid-area: 1 / 2 / 2 / 3; }
  .test td.p::before { content: "p = "; }
  .test tfoot td:not(:has(svg)) { display: none; }
  svg { width: 100%; max-width: 24rem; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --ink: #000; --soft: #444; }
  form { display: none !important; }
  html { font-size: 11px; }
  body { max-width: none; padding: 0; }
  .test, .overview tr, .claim > header { break-inside: avoid; }
  .claim > header { break-after: avoid; }
  .wide { overflow: visible; }
}
"""

SCRIPT = """
(() => {
  const form = document.querySelector("form");
  const tests = document.querySelectorAll(".test");
  const apply = () => {
    const { claim, role, network, words } = form.elements;
    const verdicts = [...form.querySelectorAll("[name=verdict]:checked")].map((box) => box.value);
    const wanted = words.value.toLowerCase().split(" ").filter(Boolean);
    let shown = 0;
    for (const section of document.querySelectorAll(".claim")) {
      section.hidden = true;
      for (const test of section.querySelectorAll(".test")) {
        const said = [section.querySelector("h2"), test.querySelector("h3"), test.querySelector(".rule")];
        const text = said.map((part) => part.textContent).join(" ").toLowerCase();
        const fits = (!claim.value || claim.value === section.id) && (!role.value || role.value === test.dataset.role)
          && wanted.every((word) => text.includes(word));
        let rows = 0;
        for (const row of test.querySelectorAll("tbody tr")) {
          const { network: name, verdict } = row.dataset;
          row.hidden = !(fits && (!network.value || network.value === name) && verdicts.includes(verdict));
          rows += !row.hidden;
        }
        test.hidden = !rows;
        shown += !test.hidden;
        section.hidden &&= test.hidden;
      }
    }
    form.querySelector("output").textContent = `${shown} of ${tests.length} tests`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  form.hidden = false;
  apply();
})();
"""


def render(rows: Sequence[Row], registry: Sequence[Mapping], *, networks: Sequence[str], confidence: float) -> str:
    """The page as text.

    `rows` have the columns of the table of claims and its order, a number that the study has nothing to estimate from
    being None or NaN; `registry` is the list of claims of workflow/claims.yaml. `networks` are those of the study, in
    the order of the page; `confidence` is that of the intervals.
    """
    claims = _groups(rows, "claim")
    columns = [POOLED, *networks]
    concluded = verdicts.conclusions(rows, registry)
    sections = []
    for own, said in zip(claims, concluded, strict=True):
        tests = "".join(_test(test) for test in _groups(own, "measure"))
        sections.append(
            f'<section class="claim" id="claim-{said.claim}"><header><h2>{said.claim}&ensp;'
            f"{escape(said.statement)}</h2><p>In the paper: {escape(str(own[0]['section']))}</p>"
            f"<p>As published {_chip(said.published)} corrected {_chip(said.corrected)}</p>"
            f"<p>{escape(said.sentence(confidence))}</p></header>\n{tests}</section>\n"
        )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Claims</title><style>{STYLE}</style></head>
<body><header><h1>The paper's claims</h1>
<p>Each claim of Hayne et al. (2022) is judged twice. <i>As published</i>: by the published protocol and its estimates
alone. <i>Corrected</i>: by grids and probes that have not seen the images they are judged
on, zero as well as mean ablation, both sides' images, controls, and intervals over classes. A corrected test
<b>holds</b> where all its contrasts lie where its rule wants them, each with the whole {100 * confidence:g} % interval;
it <b>does not hold</b> where one lies outside, allowing for their number; it is <b>inconclusive</b> otherwise, and has
<b>no verdict</b> with so few classes that simulations show it to err.</p></header>
<main>{_conclusions(concluded, confidence)}
<p>Below are all tests. Where a test has several contrasts, a row shows the one that decides. In the drawings a dot is a
network's estimate, a diamond the pooled one, and the line its interval; dashed lines are the bounds of the rule, and
the claim holds where the ground is shaded. Each test has its own scale. The confirmation leaves out the classes with
which bounds were settled.</p>
{_overview(claims, columns)}{_form(claims, columns)}{"".join(sections)}</main>
<script>{SCRIPT}</script></body></html>
"""
