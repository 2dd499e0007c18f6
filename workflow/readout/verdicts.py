"""What is concluded of the paper's claims: as published and corrected, in one sentence each.

Rows of the table of claims in, words out; loads nothing, since a run ends with it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

POOLED = "all"
"""The network of a row that pools the networks."""
EVERY, CONFIRMATION = "all", "confirmation"
"""The `targets` of a row: all that the networks have, or those with which no bound was settled."""
CONTROL = "untrained: a control, which is not pooled"
"""The note on a row of an untrained network."""
HOLDS, FAILS, OPEN, NONE = "holds", "does not hold", "inconclusive", "no verdict"
VERDICTS = (HOLDS, FAILS, OPEN, NONE)
"""NONE is said at a number of classes at which simulations show that a test errs."""

WORDS = {
    "auroc": "probe AUROC",
    "auroc_fixed": "probe AUROC of equally many units",
    "log_p_loss": "loss of log-probability",
    "others_rank_change": "rank change of the others",
    "score_published": "published score",
    "specific_loss": "separation loss less the mismatched one",
    "separation_loss_erase_less_directions": "separation loss by erasing above that by random directions",
}
"""Outcomes that are not called by their column's name."""

Row = Mapping[str, object]


def missing(value: float | None) -> bool:
    """Whether a number is None or NaN."""
    return value is None or math.isnan(value)


def number(value: float) -> str:
    """Two significant digits, without a power of ten."""
    text = f"{float(f'{value:.2g}'):.10f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def decides(row: Row) -> str:
    """Which of a test's contrasts a row shows, in words: outcome, intervention, and which cells or networks."""
    outcomes = str(row["outcome"]).split(" and ")
    words = " and ".join(WORDS.get(name, name.replace("_", " ")) for name in outcomes)
    if row["intervention"]:
        words += f" under {row['intervention']}"
    return f"{row['part']}, {words}" if row["part"] else words


def wanted(row: Row) -> str:
    """Where the claim holds, by the bounds of a row."""
    lower, upper = row["lower"], row["upper"]
    if missing(lower):
        return f"below {number(upper)}"
    return f"above {number(lower)}" if missing(upper) else f"within {number(lower)} to {number(upper)}"


def estimate(row: Row) -> str:
    """A row's estimate, with its interval where it has one."""
    text = number(row["estimate"])
    return text if missing(row["ci_low"]) else f"{text} [{number(row['ci_low'])}, {number(row['ci_high'])}]"


@dataclass(frozen=True)
class Conclusion:
    """One claim: its number, its statement and that in few words, and the verdicts of its pooled rows.

    `confirmation` is that of the targets with which no bound was settled, where the study has others too. `row` is the
    corrected test's, `plain` what its verdicts mean in plain words.
    """

    claim: int
    statement: str
    short: str
    published: str
    corrected: str
    confirmation: str | None
    row: Row
    plain: Mapping[str, str]

    def sentence(self, confidence: float) -> str:
        """What the corrected test found, in plain words and with the numbers that decide; intervals of `confidence`."""
        row, verdict, reason = self.row, self.corrected, self.row["reason"]
        if missing(row["estimate"]):
            return f"This study cannot tell: {reason}."
        said = self.plain[verdict] if verdict != NONE else f"There is no verdict: {reason}."
        said += f" What decides: {decides(row)}, {estimate(row)}; the claim holds {wanted(row)}."
        if verdict == OPEN and reason:
            said += _capital(reason)
        adjusted = {HOLDS: row["p_holds_adjusted"], FAILS: row["p_fails_adjusted"]}.get(verdict)
        if adjusted is not None and adjusted >= (1 - confidence) / 2:
            said += f" As one of eight tests this is not certain (adjusted p = {number(adjusted)})."
        if row["note"]:
            said += _capital(row["note"])
        if self.confirmation not in (None, verdict):
            said += f" Of the classes with which no bound was settled: {self.confirmation}."
        return said


def _capital(said: str) -> str:
    """A remark as a sentence that follows another."""
    return f" {said[0].upper()}{said[1:]}."


def conclusions(rows: Iterable[Row], registry: Sequence[Mapping]) -> list[Conclusion]:
    """The claims of the registry in its order, from the rows of the table of claims."""
    pooled = {(row["claim"], row["role"], row["targets"]): row for row in rows if row["network"] == POOLED}
    found = []
    for claim in registry:
        published, corrected = (pooled[claim["claim"], role, EVERY] for role in ("published", "corrected"))
        confirmation = pooled.get((claim["claim"], "corrected", CONFIRMATION), {}).get("verdict")
        found.append(
            Conclusion(
                *(claim[name] for name in ("claim", "statement", "short")),
                *(published["verdict"], corrected["verdict"], confirmation),
                *(corrected, claim["plain"]),
            )
        )
    return found
