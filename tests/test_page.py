"""The page of the claims: what it says of each row, its drawings by hand, its text escaped, nothing loaded."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from readout import page, verdicts

REGISTRY = yaml.safe_load((Path(__file__).parents[1] / "workflow" / "claims.yaml").read_text())["claims"]
VOID = {"meta", "input", "br"}


def _row(**given):
    """A row of the claims table: a test `above 0`, estimated 0.5 with the interval 0.25 to 0.75."""
    row = {"claim": 1, "network": "alexnet", "measure": "a measure", "estimate": 0.5, "ci_low": 0.25, "ci_high": 0.75}
    row |= {"test": "jackknife", "p": 0.002, "verdict": "holds", "rule": "above 0", "statement": "a statement"}
    row |= {"role": "corrected", "protocol": "crossfit", "outcome": "auroc", "intervention": None, "part": "s0 - s1"}
    row |= {"null": None, "p_holds": 0.001, "p_fails": 0.99, "p_holds_adjusted": None, "p_fails_adjusted": None}
    return (
        row
        | {"section": "3.1", "lower": 0.0, "upper": None, "targets": "all", "classes": 10, "reason": None, "note": None}
        | given
    )


PLAIN = {"holds": "So it is.", "does not hold": "So it is not.", "inconclusive": "Who knows."}


UNKNOWN = {"estimate": None, "ci_low": None, "ci_high": None, "p_holds": None, "verdict": "inconclusive"}


class Element:
    """A tag with its attributes, its children and all the text in it."""

    def __init__(self, tag, attributes):
        self.tag, self.attributes, self.children, self.text = tag, dict(attributes), [], ""

    def find(self, tag, **attributes):
        """All elements below with this tag and these attributes; `class_` for `class`, `_` for `-`."""
        wanted = {name.removesuffix("_").replace("_", "-"): value for name, value in attributes.items()}
        found = [self] if self.tag == tag and wanted.items() <= self.attributes.items() else []
        return found + [element for child in self.children for element in child.find(tag, **attributes)]


class Parser(HTMLParser):
    """The tree of a document; a tag that is not closed in its place is an error."""

    def __init__(self, text):
        super().__init__()
        self.open = [Element("document", {})]
        self.feed(text)
        self.close()
        (self.document,) = self.open

    def handle_starttag(self, tag, attributes):
        element = Element(tag, attributes)
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.open[-1].children.append(Element(tag, attributes))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        for element in self.open:
            element.text += data


def _rendered(rows, networks=("alexnet",), confidence=0.95):
    """The page of these rows and, where a claim has none of them, of pooled ones as published and corrected."""
    registry, more = [], []
    for claim, statement, section in dict.fromkeys((row["claim"], row["statement"], row["section"]) for row in rows):
        registry.append({"claim": claim, "statement": statement, "short": "s", "plain": PLAIN})
        for role in ("published", "corrected"):
            if not any((r["claim"], r["role"], r["network"]) == (claim, role, "all") for r in rows):
                more.append(
                    _row(claim=claim, statement=statement, section=section, role=role, network="all", measure="pooled")
                )
    return page.render([*rows, *more], registry, networks=networks, confidence=confidence)


def _parsed(rows, networks=("alexnet",)):
    return Parser(_rendered(rows, networks)).document


def _registered(networks):
    """A row for each test of the registry and each network, and a pooled one."""
    for claim in REGISTRY:
        head = {"claim": claim["claim"], "statement": claim["statement"], "section": claim["section"]}
        for test in claim["tests"]:
            for network in (*networks, "all"):
                yield _row(**head, measure=test["measure"], role=test["role"], network=network)


def _drawn(row, *others):
    """The drawing of the first of the rows of one test."""
    return _parsed([row, *others]).find("tr", data_network=row["network"])[0].find("svg")[0]


def test_an_interval_is_drawn_where_it_lies():
    """By hand: the scale from 0 to 1 spans 300 pixels behind a margin of 10, so 0.25 is at 85, 0.5 at 160."""
    svg = _drawn(_row(lower=0.0, upper=1.0, rule="within 0 to 1"))
    (circle,) = svg.find("circle")
    assert (circle.attributes["cx"], circle.attributes["cy"]) == ("160", "14")
    (line,) = svg.find("path", class_="line")
    assert line.attributes["d"] == "M85 14H235"
    assert [bound.attributes["d"] for bound in svg.find("path", class_="bound")] == ["M10 0V28", "M310 0V28"]
    (ground,) = svg.find("rect")
    assert (ground.attributes["x"], ground.attributes["width"]) == ("10", "300")
    assert svg.attributes["viewbox"] == "0 0 320 28"
    assert svg.text == "0.50 [0.25, 0.75]; the claim holds within 0 to 1"


def test_where_a_rule_has_no_bound_the_ground_is_shaded_to_the_end():
    """Scales from 0 to 0.75: the bound 0 is at 10, and 0.5 at 10 + 300 * 2 / 3."""
    above = _drawn(_row())
    assert [rect.attributes["x"] for rect in above.find("rect")] == ["10"]
    assert [rect.attributes["width"] for rect in above.find("rect")] == ["310"]
    below = _drawn(_row(lower=float("nan"), upper=0.5, ci_low=0.0, rule="below 0.5"))
    assert [rect.attributes["x"] for rect in below.find("rect")] == ["0"]
    assert [rect.attributes["width"] for rect in below.find("rect")] == ["210"]
    assert [bound.attributes["d"] for bound in below.find("path", class_="bound")] == ["M210 0V28"]


def test_rows_of_a_test_share_their_scale():
    """The other row reaches to 1.5, and so 0.75 is in the middle."""
    line = _drawn(_row(), _row(network="all", ci_high=1.5)).find("path", class_="line")
    assert [part.attributes["d"] for part in line] == ["M60 14H160"]


def test_a_bound_is_drawn_at_its_value():
    """1e-05 is the least on the scale, not 1 and not -5."""
    svg = _drawn(_row(lower=1e-05, estimate=2e-05, ci_low=1.5e-05, ci_high=3e-05, rule="above 1e-05"))
    assert [bound.attributes["d"] for bound in svg.find("path", class_="bound")] == ["M10 0V28"]
    (circle,) = svg.find("circle")
    assert circle.attributes["cx"] == "160"


def test_a_pooled_estimate_is_a_diamond():
    """Its upper corner is above the estimate."""
    svg = _drawn(_row(network="all", upper=1.0))
    assert svg.find("circle") == []
    assert "M160 7l7 7-7 7-7-7z" in [path.attributes["d"] for path in svg.find("path")]


def test_the_scale_has_round_numbers():
    """From 0 to 1 every 0.2, and the first at the margin."""
    axis, *_ = _parsed([_row(upper=1.0)]).find("svg", class_="axis")
    assert [(tick.attributes["x"], tick.text) for tick in axis.find("text")] == [
        ("10", "0.0"),
        ("70", "0.2"),
        ("130", "0.4"),
        ("190", "0.6"),
        ("250", "0.8"),
        ("310", "1.0"),
    ]


@pytest.mark.parametrize(
    ("value", "ends", "expected"),
    [
        (0.1234, (0, 1), "0.12"),
        (0.001234, (0, 0.02), "0.0012"),
        (123.4, (0, 200), "123"),
        (-0.5, (-1, 1), "−0.50"),
        # What is left of a difference of equal numbers.
        (-1.2e-17, (-1, 1), "0.00"),
        (1e-05, (0, 1e-04), "0.000010"),
    ],
)
def test_numbers_have_the_decimals_of_their_scale(value, ends, expected):
    """A zero has no sign."""
    assert page.number(value, ends) == expected


def test_every_row_is_there_with_its_numbers_and_its_verdict():
    """Two networks, the pooled row and its confirmation of one test, each with a verdict of its own."""
    against = {"p_holds": 0.75, "p_fails": 0.25}
    rows = [
        _row(null=0.125),
        _row(
            network="resnet",
            estimate=-1.0,
            ci_low=-2.0,
            ci_high=-0.5,
            **against,
            verdict="does not hold",
            note="a note",
        ),
        _row(
            network="all",
            ci_low=-0.25,
            verdict="inconclusive",
            part=None,
            intervention="mean",
            outcome="separation_loss",
        ),
        _row(network="all", targets="confirmation", classes=6, verdict="no verdict", reason="few err"),
    ]
    rows[2] |= {"p_holds_adjusted": 0.008, "p_fails_adjusted": 1.0}
    found = [
        [cell.text for cell in row.find("th") + row.find("td")[1:]]
        for row in _parsed(rows, ("alexnet", "resnet")).find("tr")
        if "data-network" in row.attributes
    ][:4]
    p = "0.001 for0.99 against"
    assert found == [
        ["alexnet", "0.50 [0.25, 0.75]", p, "s0 - s1, probe AUROC; less a null of 0.12", "✓ holds"],
        ["resnet", "−1.00 [−2.00, −0.50]", "0.75 for0.25 against", "s0 - s1, probe AUROC; a note", "✗ does not hold"],
        [
            "pooled",
            "0.50 [−0.25, 0.75]",
            "0.001 for (adjusted 0.008)0.99 against (adjusted 1)",
            "separation loss under mean",
            "? inconclusive",
        ],
        ["confirmation, 6 classes", "0.50 [0.25, 0.75]", p, "s0 - s1, probe AUROC; few err", "– no verdict"],
    ]


def test_no_scale_follows_a_control():
    """It may lie far off; where there is nothing else the scale is its own."""
    control = _row(network="raw", estimate=-90.0, ci_low=-99.0, ci_high=-80.0, note=verdicts.CONTROL)
    assert page.scale([control, _row()]) == (0.0, 0.75)
    assert page.scale([control]) == (-99.0, 0.0)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_what_cannot_be_estimated_is_said(missing):
    """Once, and without a drawing; an estimate without an interval is drawn without one."""
    unknown = {name: missing if value is None else value for name, value in UNKNOWN.items()}

    def test(**given):
        return _parsed([_row(**(unknown | given))]).find("div", class_="test")[0]

    found = test()
    assert found.text.count("cannot be estimated from this study") == 1
    assert found.find("svg") == []
    alone = test(estimate=0.5)
    assert "0.500, no interval" in alone.text
    assert len(alone.find("circle")) == 1
    assert alone.find("path", class_="line") == []


def test_every_claim_has_its_statement_section_and_tests():
    """Those of the registry, each test once, with its rule."""
    found = _parsed(list(_registered(["alexnet"])))
    sections = found.find("section", class_="claim")
    assert [section.attributes["id"] for section in sections] == [f"claim-{claim['claim']}" for claim in REGISTRY]
    for section, claim in zip(sections, REGISTRY, strict=True):
        (head,) = section.find("h2")
        assert head.text.split("\u2002") == [str(claim["claim"]), claim["statement"]]
        assert f"In the paper: {claim['section']}" in section.text
        named = [f"{page.ROLES[test['role']]} {test['measure']}" for test in claim["tests"]]
        assert [test.text for test in section.find("h3")] == named
        roles = [test["role"] for test in claim["tests"]]
        assert [test.attributes["data-role"] for test in section.find("div", class_="test")] == roles
        assert section.text.count("The claim holds above 0, by the estimate alone.") == roles.count("published")
        assert section.text.count("The claim holds above 0, where the interval lies so.") == len(roles) - 1


def test_the_page_leads_with_both_verdicts_and_a_sentence():
    """Of the pooled rows; the sentence is made from the corrected one's numbers."""
    rows = [
        _row(network="all", role="published", measure="x"),
        _row(network="all", verdict="does not hold", p_fails_adjusted=0.008),
        _row(network="all", targets="confirmation", verdict="inconclusive"),
        _row(network="alexnet", verdict="inconclusive"),
    ]
    (table,) = _parsed(rows).find("table", class_="conclusions")
    heading, found = [[cell.text for cell in row.find("th") + row.find("td")] for row in table.find("tr")]
    assert heading == ["claim", "as published", "corrected", "confirmation", "in plain words"]
    assert found == [
        "1\u2002a statement",
        "✓ holds",
        "✗ does not hold",
        "? inconclusive",
        "So it is not. What decides: s0 - s1, probe AUROC, 0.5 [0.25, 0.75]; the claim holds above 0. "
        "Of the classes with which no bound was settled: inconclusive.",
    ]
    assert [link.attributes["href"] for link in table.find("a")] == ["#claim-1"]


def test_corrected_verdicts_by_network():
    """Claim 3 has none of the network; what is published or beside it does not count."""
    rows = [
        *(
            _row(claim=1, network=n, role=r, measure=r, verdict="does not hold")
            for r in ("published", "beside")
            for n in ("all", "alexnet")
        ),
        _row(claim=1),
        _row(claim=3, network="all", verdict="inconclusive"),
    ]
    (table,) = _parsed(rows).find("table", class_="overview")
    found = [[cell.text for cell in row.find("th") + row.find("td")] for row in table.find("tr")]
    assert found == [
        ["claim", "pooled", "alexnet"],
        ["1\u2002a statement", "✓ holds", "✓ holds"],
        ["3\u2002a statement", "? inconclusive", "–"],
    ]


NASTY = """<b onclick="x">&amp; 'n' </script><!-- """


@pytest.mark.parametrize(
    "column", ["network", "measure", "rule", "statement", "section", "test", "part", "outcome", "reason", "note"]
)
def test_text_is_escaped(column):
    """It is read as it was given, in text and in attributes, and opens no tag."""
    networks = (NASTY,) if column == "network" else ("alexnet",)
    text = _rendered([_row(**{column: NASTY})], networks)
    found = Parser(text).document
    assert NASTY in found.text
    assert found.find("b", onclick="x") == []
    assert text.count("</script>") == 1
    if column == "network":
        assert len(found.find("tr", data_network=NASTY)) == len(found.find("option", value=NASTY)) == 1


def test_nothing_is_loaded():
    """One file: no address, no other file, and no more than 600 kB for twelve networks."""
    networks = [f"network number {i}" for i in range(12)]
    text = _rendered(list(_registered(networks)), networks)
    for trace in ("http", "src=", "url(", "@import", "<link", "fetch("):
        assert trace not in text
    assert len(text.encode()) < 600_000


def test_without_a_script_everything_is_shown():
    """Only the filters are hidden, which then would do nothing."""
    found = _parsed(list(_registered(["alexnet"])))
    hidden = [e.tag for tag in ("section", "div", "tr", "form") for e in found.find(tag) if "hidden" in e.attributes]
    assert hidden == ["form"]


def test_the_filters_offer_what_is_there():
    """Each claim, each network and the pooled rows, each verdict."""
    found = _parsed(list(_registered(["alexnet", "resnet"])), ("alexnet", "resnet"))
    (form,) = found.find("form")
    claims, roles, networks = (
        [option.attributes["value"] for option in menu.find("option")] for menu in form.find("select")
    )
    assert claims == ["", *(f"claim-{claim['claim']}" for claim in REGISTRY)]
    assert roles == ["", "published", "corrected", "beside"]
    assert networks == ["", "all", "alexnet", "resnet"]
    verdicts = [box.attributes["value"] for box in form.find("input", name="verdict")]
    assert verdicts == ["holds", "does not hold", "inconclusive", "no verdict"]
    rows = [row for row in found.find("tr") if "data-network" in row.attributes]
    assert {row.attributes["data-network"] for row in rows} == set(networks) - {""}
    assert {row.attributes["data-verdict"] for row in rows} <= set(verdicts)


def test_a_column_more_is_an_entry_more(monkeypatch):
    """Its heading and its cells stand in every test, in their place."""
    more = page.Column("seed", "seed", lambda row, ends: str(row.get("seed")))
    monkeypatch.setattr(page, "COLUMNS", (*page.COLUMNS, more))
    table, *_ = [table for table in _parsed([_row(seed=17)]).find("table") if "class" not in table.attributes]
    assert [cell.text for cell in table.find("th", scope="col")][-1] == "seed"
    assert [cell.text for cell in table.find("td", class_="seed")] == ["17"]


def test_the_confidence_is_said():
    """As a percentage."""
    assert "90 % interval" in " ".join(_rendered([_row()], confidence=0.9).split())
