"""The documented run: what README quotes of the default study is what docs/reference.csv holds; and `make verify`."""

import re
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from commands import verify
from workflow import ROOT, ran

README = (ROOT / "README.md").read_text()
SECTION = re.search(r"## What the default study finds\n\n(.*?)\n## ", README, re.DOTALL)[1]
REFERENCE = verify.read()


def number(value: str) -> str:
    """Two significant digits, as README has them; without a power of ten."""
    digits = f"{float(value):.2g}"
    return f"{float(digits):f}".rstrip("0").rstrip(".") if "e" in digits else digits


def claim_rows():
    """The lines of README's table of claims, made from the documented run."""
    registry = yaml.safe_load((ROOT / "workflow" / "claims.yaml").read_text())["claims"]
    for claim in registry:
        of = {}
        for role in ("published", "corrected"):
            (measure,) = (test["measure"] for test in claim["tests"] if test["role"] == role)
            of[role] = ("claims", "all", f"claim {claim['claim']}, {role}: {measure}")
        estimate, low, high = (
            number(REFERENCE[*of["corrected"], measure]) for measure in ("estimate", "ci_low", "ci_high")
        )
        verdicts = [REFERENCE[*of[role], "verdict"] for role in of]
        what = f"{REFERENCE[*of['corrected'], 'shown']}: {estimate} ({low} to {high})"
        entries = [f"{claim['claim']} {claim['short']}", *verdicts, claim["plain"][verdicts[1]], what]
        yield f"| {' | '.join(entries)} |"


def sentences():
    """The sentences of README's section that quote numbers, made from the documented run."""
    top1 = sorted(
        100 * float(value)
        for (table, network, *_), value in REFERENCE.items()
        if table == "accuracy" and network != "untrained"
    )
    yield f"right on {top1[0]:.1f} to {top1[-1]:.1f} % of the 500 study images"

    def mean(cell, measure):
        values = [
            float(value)
            for (table, network, item, name), value in REFERENCE.items()
            if (table, item, name) == ("cells", cell, measure) and network != "untrained"
        ]
        assert len(values) == 4
        return values

    peaks, others = (
        mean("s3m3", "rank_deficit"),
        [mean(f"s{s}m{m}", "rank_deficit") for s in range(4) for m in range(4) if (s, m) != (3, 3)],
    )
    yield f"costs {min(peaks):.2f} to {max(peaks):.2f} ranks"
    yield f"no other cell more than {max(max(values) for values in others):.2f}"
    zero, average, other_zero, other_average = (
        f"{min(losses):.2f} to {max(losses):.2f}"
        for losses in (mean(cell, f"separation_loss_{how}") for cell in ("s3m3", "s0m3") for how in ("zero", "mean"))
    )
    yield f"s3m3 takes {zero} of the gap between target and others under zero and {average} under the mean"
    yield f"s0m3 takes {other_zero} and {other_average}"
    reach = float(REFERENCE["faithfulness", "all", "ablate mean: probe_weight", "reach"])
    yield f"probe weights reach {reach:.2f} of what it finds"


def ends(values, digits=2):
    """The least and the greatest of several numbers, as the text has them."""
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


NETWORKS = ("alexnet", "vgg16", "mobilenet_v2", "resnet")


def of(table, item, measure, networks=NETWORKS):
    """A measure of a cell, of a kind of control, or of a claim's test, for each network."""
    return [float(REFERENCE[table, network, item, measure]) for network in networks]


def each(table, item, measure):
    *most, last = (f"{value:.2f}" for value in of(table, item, measure))
    return f"{', '.join(most)} and {last}"


def corrected(claim):
    """The item of a claim's corrected test."""
    return next(
        item for table, _, item, _ in REFERENCE if table == "claims" and item.startswith(f"claim {claim}, corrected")
    )


def pooled(words):
    """The estimate for all networks of the one test beside the claims whose measure begins so."""
    (item,) = {item for _, _, item, _ in REFERENCE if item.split(", beside: ")[-1].startswith(words)}
    return of("claims", item, "estimate", ["all"])[0]


def short():
    """What the summary of docs/findings.md says in numbers."""
    (item,) = {item for _, _, item, _ in REFERENCE if item.startswith("claim 7, published")}
    after = pooled("published score with separation loss under zero")
    yield f"correlation from {of('claims', item, 'estimate', ['all'])[0]:.2f} to {after:.2f}"


def findings():
    """What its sections on the default study say in numbers."""
    outer = [of("cells", f"s{s}m{m}", "auroc", ["untrained"])[0] for s in (0, 3) for m in range(4)]
    yield f"read with AUROCs of {ends(outer)}"
    change = of("cells", "s3m3", "rank_change_zero")
    rest = [max(of("cells", f"s{s}m{m}", "rank_change_zero")) for s in range(4) for m in range(4) if (s, m) != (3, 3)]
    yield f"in ranks under zero s3m3 costs {ends(change)}, any other cell at most {max(rest):.2f}"
    yield f"Cells of s0 that are read well lose {of('claims', corrected(4), 'estimate', ['all'])[0]:.2f} of the gap"
    drawn = {how: of("groups", f"random random {how}", "separation_loss") for how in ("zero", "mean")}
    yield f"random groups lose {ends(drawn['zero'])} under zero"
    yield f"Erasing what the probe reads costs {pooled('by erasing: separation loss and use of cells'):.2f}"
    related = of("claims", corrected(7), "estimate")
    yield f"rank correlation over cells is {of('claims', corrected(7), 'estimate', ['all'])[0]:.2f} under the mean"
    yield f"{min(related):.2f} in the network where it is least"
    yield f"Within s0 and s3 alone it is {pooled('in s0 and s3 alone'):.2f}"
    given = pooled("probe AUROC with separation loss, and with use, given removed energy")
    yield f"given the energy removed it is {given:.2f} for the use of a cell"
    specific = "probe AUROC with separation loss less the mismatched one"
    yield f"it is {pooled(specific):.2f} under zero, but {pooled(f'by erasing: {specific}'):.2f} under erase"
    yield f"s3m3 costs the target's images {ends(change)} ranks under zero and {ends(of('cells', 's3m3', 'rank_change_mean'))}"
    yield f"Yet it takes {ends(of('cells', 's3m3', 'separation_loss_mean'))} of the gap"
    yield f"own images {max(of('cells', 's0m3', 'rank_deficit')):.2f} ranks at most"
    yield f"{ends(of('cells', 's0m3', 'others_rank_change_zero'))} ranks of their own classes"
    losses = ends(of("cells", "s3m3", "separation_loss_mean"))
    yield f"of as many units lose {ends(drawn['mean'])} under the mean, where s3m3 loses {losses}"
    yield f"of it lose {each('groups', 'matched s3m3_half_matched zero', 'separation_loss')} of the gap"
    yield f"these halves {each('groups', 'part s3m3_half zero', 'separation_loss')}"
    directions = ends(of("groups", "cell s3m3 direction", "separation_loss"))
    yield f"The network loses {ends(of('cells', 's3m3', 'separation_loss_erase'))} of the gap, and {directions} with random"
    other = {how: of("cells", "s3m3", f"mismatched_separation_loss_{how}") for how in ("erase", "mean")}
    yield f"the other classes lose {ends(other['erase'])} of theirs"
    yield f"Under the mean they lose {ends(other['mean'])}"
    own, mismatched = (of("cells", "s0m3", f"{name}separation_loss_mean") for name in ("", "mismatched_"))
    yield f"{ends(mismatched)} against {ends(own)}"
    pseudo = [
        sum(values) / len(values)
        for values in (
            [
                float(value)
                for (_, name, item, measure), value in REFERENCE.items()
                if (name, measure) == (network, "auroc") and item.startswith("pseudo")
            ]
            for network in (*NETWORKS, "untrained")
        )
    ]
    yield f"mean AUROC of {ends(pseudo)}"
    yield f"costs {ends(of('groups', 'pseudo s3m3 zero', 'rank_change'))} ranks under zero"


def gained(measure, name="estimate", what="ablate", networks=("all",)):
    """What the documented run says of a measure of importance under the mean."""
    return [float(REFERENCE["faithfulness", network, f"{what} mean: {measure}", name]) for network in networks]


def importance():
    """What its section on measures of importance says in numbers."""
    best, probe, absolute = "gradient_x_deviation", "probe_weight", "absolute_selectivity"
    (gain,), low, high = gained(best), gained(best, "ci_low_at_once"), gained(best, "ci_high_at_once")
    yield f"it gains {gain:.2f} ({low[0]:.2f} to {high[0]:.2f}, allowing for the choice among seven)"
    yield f"top alone is kept, {gained(best, what='keep')[0]:.2f}"
    for measure, said in ((probe, "Probe weights reach"), (absolute, "Absolute selectivity reaches")):
        reach = [gained(measure, name)[0] for name in ("reach", "reach_low", "reach_high")]
        yield f"{said} {reach[0]:.2f} ({reach[1]:.2f} to {reach[2]:.2f})"
    yield f"and {ends(gained(probe, 'reach', networks=NETWORKS))} in single networks"
    yield f"reaches as much ({gained('magnitude', 'reach')[0]:.2f})"
    yield f"selectivity reaches {gained('selectivity', 'reach')[0]:.2f}"
    cells = {name: gained(name, what="cells")[0] for name in (absolute, best, probe, "auroc", "similarity_kendall")}
    yield f"is {cells[absolute]:.2f} for absolute selectivity, {cells[best]:.2f} for gradient x (activation - mean)"
    yield f"{cells[probe]:.2f} for probe weights and {cells['auroc']:.2f} for the probe's AUROC"
    yield f"the similarity of images it is {cells['similarity_kendall']:.2f}"
    remaining, last = (of("redundancy", f"s3m3 mean {place}", "auroc_after") for place in ("remaining", "last"))
    yield f"an AUROC of {ends(remaining)}, and, where it is the first layer's, from the last layer with {ends(last)}"
    yield f"where it was {ends(of('redundancy', 's3m3 mean last', 'auroc_before'))} before"


def test_the_best_measure_is_that_of_the_documented_run():
    """The findings recommend it by name; the one network in which another is ahead is named, too."""
    measures = ("selectivity", "absolute_selectivity", "magnitude", "d_prime", "probe_weight")
    measures = (*measures, "gradient_x_activation", "gradient_x_deviation")
    best = {n: max(measures, key=lambda name, n=n: gained(name, networks=[n])[0]) for n in ("all", *NETWORKS)}
    assert best == dict.fromkeys(("all", *NETWORKS), "gradient_x_deviation") | {"resnet": "absolute_selectivity"}


def test_the_findings_are_those_of_the_documented_run():
    """Each number of the two sections on the default study, but for bounds and counts; verdicts by the claims' table."""
    text = (ROOT / "docs" / "findings.md").read_text()
    for sentence in short():
        assert sentence in " ".join(text.split()), sentence
    section = " ".join(re.search(r"## Claim by claim\n(.*?)\n## Do the seeds", text, re.DOTALL)[1].split())
    for claim in range(1, 9):
        (said,) = re.findall(rf" {claim}\. \*\*(.*?)\*\*", section)
        verdict = REFERENCE["claims", "all", corrected(claim), "verdict"]
        assert f": {verdict}" in said, said
        section = section.replace(f" {claim}. ", " ", 1)
    for sentence in (*findings(), *importance()):
        assert sentence in section, sentence
        section = section.replace(sentence, "")
    # The bound of claim 4 is the one number that is no finding.
    assert re.findall(r"\d\.\d+", section) == ["0.05"]


def test_the_table_of_claims_is_that_of_the_documented_run():
    """Every verdict and every number in it, and no other row."""
    found = re.findall(r"^\| \d .*$", SECTION, re.MULTILINE)
    assert found == list(claim_rows())


def test_the_numbers_in_the_text_are_those_of_the_documented_run():
    """Each sentence that quotes the run, and no number beside: what is left of the section has none but these."""
    text = " ".join(re.sub(r"^\|.*$", "", SECTION, flags=re.MULTILINE).split())
    for sentence in sentences():
        assert sentence in text, sentence
        text = text.replace(sentence, "")
    text = re.sub(r"\[[^]]*\]\([^)]*\)|`[^`]*`|[A-Za-z]+[0-9]\w*|[Cc]laim [0-9]", "", text)
    assert re.findall(r"\d+(?:\.\d+)?", text) == []


def test_the_protocol_s_count_of_verdicts_is_that_of_the_documented_run():
    """Of the comparison with other kernels, which is of the same study."""
    count = sum(measure == "verdict" for *_, measure in REFERENCE)
    assert set(re.findall(r"(\d+) of (\d+) \|", (ROOT / "docs" / "protocol.md").read_text())) == {(str(count),) * 2}


def test_no_page_has_a_place_for_a_number_that_is_not_there():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    assert [page.name for page in pages if re.search(r"@[A-Z_]+@|TODO", page.read_text())] == []


def numbers(**changes):
    found = {
        ("claims", "all", "claim 1: a", "estimate"): "0.5",
        ("claims", "all", "claim 1: a", "verdict"): "holds",
        ("claims", "net", "claim 2: b", "estimate"): "",
        ("cells", "net", "s0m0", "accuracy"): "0.25",
    }
    return found | {key: changes[name] for name, key in zip("abcd", found, strict=True) if name in changes}


def test_what_agrees_moved_and_changed_by_hand():
    """The same; one number that moved by a tenth; one verdict that is another; one that is missing now."""
    assert verify.compare(numbers(), numbers()) == (
        ["verdicts: 1 of 1 are those of the documented run", "numbers: 3 of 3 agree to 1e-06, 0 moved"],
        True,
    )
    lines, same = verify.compare(numbers(), numbers(d="0.35"))
    assert same
    assert lines[1:] == ["numbers: 2 of 3 agree to 1e-06, 1 moved", "  net, s0m0, accuracy: 0.25 -> 0.35 (+0.1)"]
    lines, same = verify.compare(numbers(), numbers(b="inconclusive", c="1"))
    assert not same
    assert lines[0] == "verdicts: 0 of 1 are those of the documented run"
    assert "  all, claim 1: a, verdict: holds -> inconclusive" in lines
    assert "  net, claim 2: b, estimate: missing -> 1" in lines


def test_rounding_is_no_movement():
    """Last bits differ from machine to machine; a difference above the bound is told."""
    assert verify.compare(numbers(), numbers(d="0.2500001"))[0][-1] == "numbers: 3 of 3 agree to 1e-06, 0 moved"
    assert verify.compare(numbers(), numbers(d="0.25001"))[0][1] == "numbers: 2 of 3 agree to 1e-06, 1 moved"


def test_what_is_not_in_both_is_told():
    """A row that is missing in the study is no agreement."""
    short = numbers()
    del short["cells", "net", "s0m0", "accuracy"]
    lines, same = verify.compare(numbers(), short)
    assert not same and lines[-1] == "missing here: 1, such as net, s0m0, accuracy"
    lines, same = verify.compare(short, numbers())
    assert same and lines[-1] == "not in the documented run: 1, such as net, s0m0, accuracy"


def test_the_file_holds_what_was_written(tmp_path):
    verify.write(numbers(), tmp_path / "r.csv")
    assert verify.read(tmp_path / "r.csv") == numbers()


@pytest.mark.workflow
def test_a_finished_study_is_compared(finished):
    """Its numbers are those of its tables; beside the documented run of another study the verdicts differ or are missing."""
    found = verify.numbers(finished.results)
    cells = pq.read_table(finished.results / "tables" / "cells.parquet").to_pandas()
    mean = cells[cells["cell"] == "s3m3"]["rank_deficit"].mean()
    assert float(found["cells", "alexnet", "s3m3", "rank_deficit"]) == pytest.approx(mean, rel=1e-8)
    groups = pq.read_table(finished.results / "tables" / "groups.parquet").to_pandas()
    drawn = groups[groups["intervention"].str.startswith("direction") & (groups["group"] == "s3m3")]
    expected = drawn["separation_loss"].mean()
    assert float(found["groups", "alexnet", "cell s3m3 direction", "separation_loss"]) == pytest.approx(
        expected, rel=1e-8
    )
    drawn = groups[(groups["kind"] == "random") & (groups["intervention"] == "zero")]
    expected = drawn["separation_loss"].mean()
    assert float(found["groups", "alexnet", "random random zero", "separation_loss"]) == pytest.approx(
        expected, rel=1e-8
    )
    accuracy = pd.read_parquet(finished.results / "networks" / "alexnet" / "accuracy.parquet").set_index("split")
    assert float(found["accuracy", "alexnet", "study", "top1"]) == accuracy.loc["study", "top1"]
    command = [sys.executable, "-m", "commands.verify", str(finished.results)]
    done = ran(command, cwd=ROOT / "workflow")
    assert done.returncode == 1
    assert "verdicts: " in done.stdout and "made with python" in done.stdout


def test_a_study_that_is_not_finished_is_named(tmp_path):
    command = [sys.executable, "-m", "commands.verify", str(tmp_path)]
    done = ran(command, cwd=ROOT / "workflow")
    assert done.returncode == 1
    assert "claims.parquet: no such file" in done.stderr
