"""What is concluded of a claim, in words: by hand, for each verdict."""

import math

import pytest

from readout import verdicts

PLAIN = {"holds": "It is so.", "does not hold": "It is not so.", "inconclusive": "It cannot be told."}
REGISTRY = [{"claim": 1, "statement": "A statement.", "short": "Short", "plain": PLAIN}]


def row(**given):
    """A pooled row of a corrected test: 0.5 [0.25, 0.75] above 0."""
    row = {"claim": 1, "network": "all", "role": "corrected", "targets": "all", "verdict": "holds", "estimate": 0.5}
    row |= {
        "ci_low": 0.25,
        "ci_high": 0.75,
        "lower": 0.0,
        "upper": None,
        "outcome": "separation_loss",
        "part": "s3m3 - s0m0",
    }
    row |= {"intervention": "mean", "reason": None, "note": None, "p_holds_adjusted": 0.001, "p_fails_adjusted": 1.0}
    return row | given


def concluded(*rows):
    published = row(role="published", verdict="does not hold")
    (found,) = verdicts.conclusions([published, row(network="a", verdict="x"), *rows], REGISTRY)
    return found


DECIDES = " What decides: s3m3 - s0m0, separation loss under mean, 0.5 [0.25, 0.75]; the claim holds above 0."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "It is so." + DECIDES),
        ({"verdict": "does not hold", "p_fails_adjusted": 0.01}, "It is not so." + DECIDES),
        ({"verdict": "inconclusive"}, "It cannot be told." + DECIDES),
        ({"verdict": "inconclusive", "reason": "too noisy"}, "It cannot be told." + DECIDES + " Too noisy."),
        ({"verdict": "no verdict", "reason": "few classes err"}, "There is no verdict: few classes err." + DECIDES),
        # Its p for what is claimed, and not the one against it.
        (
            {"p_holds_adjusted": 0.03},
            "It is so." + DECIDES + " As one of eight tests this is not certain (adjusted p = 0.03).",
        ),
        ({"note": "for these weights only"}, "It is so." + DECIDES + " For these weights only."),
        (
            {"estimate": None, "verdict": "inconclusive", "reason": "the study has no x"},
            "This study cannot tell: the study has no x.",
        ),
    ],
)
def test_sentences(given, said):
    assert concluded(row(**given)).sentence(0.95) == said


def test_a_conclusion_has_the_verdicts_of_the_pooled_rows():
    found = concluded(row(), row(targets="confirmation", verdict="inconclusive"))
    assert (found.claim, found.short, found.statement) == (1, "Short", "A statement.")
    assert (found.published, found.corrected, found.confirmation) == ("does not hold", "holds", "inconclusive")
    assert found.sentence(0.95).endswith(" Of the classes with which no bound was settled: inconclusive.")
    assert concluded(row()).confirmation is None
    assert concluded(row(), row(targets="confirmation")).sentence(0.95) == "It is so." + DECIDES


def test_what_a_row_shows_in_words():
    assert verdicts.decides(row(part=None)) == "separation loss under mean"
    assert verdicts.decides(row(part=None, intervention=None, outcome="auroc")) == "probe AUROC"
    both = row(part=None, outcome="auroc and rank_change")
    assert verdicts.decides(both) == "probe AUROC and rank change under mean"
    assert verdicts.wanted(row(lower=math.nan, upper=0.4)) == "below 0.4"
    assert verdicts.wanted(row(lower=-0.05, upper=0.05)) == "within -0.05 to 0.05"
    assert verdicts.estimate(row(ci_low=None)) == "0.5"


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.12"), (-1234.5, "-1200"), (0.0, "0"), (-0.0, "0"), (1e-5, "0.00001"), (3.0, "3")]
)
def test_numbers_have_two_digits_and_no_power_of_ten(value, text):
    assert verdicts.number(value) == text
