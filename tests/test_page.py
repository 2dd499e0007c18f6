"""The page of the claims: what it says of each row, its drawings by hand, its text escaped, nothing loaded."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from readout import page

REGISTRY = yaml.safe_load((Path(__file__).parents[1] / "workflow" / "claims.yaml").read_text())
VOID = {"meta", "input"}


def _row(**given):
    """A row of the claims table: a test `above 0`, estimated 0.5 with the interval 0.25 to 0.75."""
    row = {"claim": 1, "network": "alexnet", "measure": "a measure", "estimate": 0.5, "ci_low": 0.25, "ci_high": 0.75}
    row |= {"test": "bootstrap", "p": 0.002, "verdict": "holds", "rule": "above 0", "statement": "a statement"}
    return row | {"section": "3.1", "lower": 0.0, "upper": None} | given


UNKNOWN = {"estimate": None, "ci_low": None, "ci_high": None, "p": None, "verdict": "inconclusive"}


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


def _parsed(rows, networks=("alexnet",)):
    return Parser(page.render(rows, networks=networks, confidence=0.95)).document


def _registered(networks):
    """A row for each test of the registry and each network, and a pooled one."""
    for claim in REGISTRY:
        head = {"claim": claim["claim"], "statement": claim["statement"], "section": claim["section"]}
        for test in claim["tests"]:
            for network in (*networks, "all"):
                yield _row(**head, measure=test["measure"], network=network)


def _drawn(row, *others):
    """The drawing of the first of the rows of one test."""
    (svg,) = _parsed([row, *others]).find("tr", data_network=row["network"])[0].find("svg")
    return svg


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
    (axis,) = _parsed([_row(upper=1.0)]).find("svg", class_="axis")
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
    """Two networks and the pooled row of one test, each with a verdict of its own."""
    rows = [
        _row(network="alexnet", verdict="holds"),
        _row(network="resnet", estimate=-1.0, ci_low=-2.0, ci_high=-0.5, p=0.25, verdict="does not hold"),
        _row(network="all", ci_low=-0.25, p=0.5, verdict="inconclusive"),
    ]
    found = [
        [cell.text for cell in row.find("th") + row.find("td")[1:]]
        for row in _parsed(rows, ("alexnet", "resnet")).find("tr")
        if "data-network" in row.attributes
    ]
    assert found == [
        ["alexnet", "0.50 [0.25, 0.75]", "0.002", "✓ holds"],
        ["resnet", "−1.00 [−2.00, −0.50]", "0.25", "✗ does not hold"],
        ["pooled", "0.50 [−0.25, 0.75]", "0.5", "? inconclusive"],
    ]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_what_cannot_be_estimated_is_said(missing):
    """Once, and without a drawing; an estimate without an interval is drawn without one."""
    unknown = {name: missing if value is None else value for name, value in UNKNOWN.items()}
    found = _parsed([_row(**unknown)])
    assert found.text.count("cannot be estimated from this study") == 1
    assert found.find("svg") == []
    alone = _parsed([_row(**(unknown | {"estimate": 0.5}))])
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
        assert [test.text for test in section.find("h3")] == [test["measure"] for test in claim["tests"]]
        assert section.text.count("The claim holds where the interval lies above 0.") == len(claim["tests"])


def test_the_table_at_the_top_has_all_claims_and_networks():
    """Claim 2's tests differ; claim 3 has none of the network."""
    rows = [
        _row(claim=1),
        _row(claim=2, measure="x"),
        _row(claim=2, measure="y"),
        _row(claim=2, measure="z", verdict="does not hold"),
        _row(claim=3, network="all", verdict="inconclusive"),
    ]
    (table,) = _parsed(rows).find("table", class_="overview")
    found = [[cell.text for cell in row.find("th") + row.find("td")] for row in table.find("tr")]
    assert found == [
        ["claim", "pooled", "alexnet"],
        ["1\u2002a statement", "–", "✓ holds"],
        ["2\u2002a statement", "–", "✓ holds 2/3 ✗ does not hold 1/3"],
        ["3\u2002a statement", "? inconclusive", "–"],
    ]
    assert [link.attributes["href"] for link in table.find("a")] == ["#claim-1", "#claim-2", "#claim-3"]


NASTY = """<b onclick="x">&amp; 'n' </script><!-- """


@pytest.mark.parametrize("column", ["network", "measure", "rule", "statement", "section", "test"])
def test_text_is_escaped(column):
    """It is read as it was given, in text and in attributes, and opens no tag."""
    networks = (NASTY,) if column == "network" else ("alexnet",)
    text = page.render([_row(**{column: NASTY})], networks=networks, confidence=0.95)
    found = Parser(text).document
    assert NASTY in found.text
    assert found.find("b", onclick="x") == []
    assert text.count("</script>") == 1
    if column == "network":
        assert len(found.find("tr", data_network=NASTY)) == len(found.find("option", value=NASTY)) == 1


def test_nothing_is_loaded():
    """One file: no address, no other file, and no more than 300 kB for twelve networks."""
    networks = [f"network number {i}" for i in range(12)]
    text = page.render(list(_registered(networks)), networks=networks, confidence=0.95)
    for trace in ("http", "src=", "url(", "@import", "<link", "fetch("):
        assert trace not in text
    assert len(text.encode()) < 300_000


def test_without_a_script_everything_is_shown():
    """Only the filters are hidden, which then would do nothing."""
    found = _parsed(list(_registered(["alexnet"])))
    hidden = [e.tag for tag in ("section", "div", "tr", "form") for e in found.find(tag) if "hidden" in e.attributes]
    assert hidden == ["form"]


def test_the_filters_offer_what_is_there():
    """Each claim, each network and the pooled rows, each verdict."""
    found = _parsed(list(_registered(["alexnet", "resnet"])), ("alexnet", "resnet"))
    (form,) = found.find("form")
    claims, networks = ([option.attributes["value"] for option in menu.find("option")] for menu in form.find("select"))
    assert claims == ["", *(f"claim-{claim['claim']}" for claim in REGISTRY)]
    assert networks == ["", "all", "alexnet", "resnet"]
    verdicts = [box.attributes["value"] for box in form.find("input", name="verdict")]
    assert verdicts == ["holds", "does not hold", "inconclusive"]
    rows = [row for row in found.find("tr") if "data-network" in row.attributes]
    assert {row.attributes["data-network"] for row in rows} == set(networks) - {""}
    assert {row.attributes["data-verdict"] for row in rows} <= set(verdicts)


def test_a_column_more_is_an_entry_more(monkeypatch):
    """Its heading and its cells stand in every test, in their place."""
    more = page.Column("seed", "seed", lambda row, ends: str(row["seed"]))
    monkeypatch.setattr(page, "COLUMNS", (*page.COLUMNS, more))
    (table,) = [table for table in _parsed([_row(seed=17)]).find("table") if "class" not in table.attributes]
    assert [cell.text for cell in table.find("th", scope="col")][-1] == "seed"
    assert [cell.text for cell in table.find("td", class_="seed")] == ["17"]


def test_the_confidence_is_said():
    """As a percentage."""
    assert "90 % interval" in " ".join(page.render([_row()], networks=["alexnet"], confidence=0.9).split())
