"""The headline of a study: one line per claim, by hand; where it is printed, and where not."""

import re
import sys

import pyarrow as pa
import pytest
import yaml

from commands import headline
from crashes import undo
from readout import StudyError
from runtime import parquet
from workflow import ROOT, ran

HOLDS, FAILS, OPEN = "holds", "does not hold", "inconclusive"


def row(network, verdict, measure="m", claim=1, statement="A claim."):
    return {"claim": claim, "network": network, "measure": measure, "verdict": verdict, "statement": statement}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        # One pooled row, whatever the networks say.
        ([row("a", FAILS), row("b", OPEN), row("all", HOLDS)], "holds"),
        ([row("all", HOLDS, "m"), row("all", HOLDS, "n")], "holds"),
        ([row("all", FAILS, "m"), row("all", HOLDS, "n")], "holds in 1 of 2 tests, does not hold in 1"),
        (
            [row("all", OPEN, "l"), row("all", HOLDS, "m"), row("all", FAILS, "n"), row("all", FAILS, "o")],
            "holds in 1 of 4 tests, does not hold in 2, inconclusive in 1",
        ),
        # No pooled row: the networks.
        ([row("a", HOLDS), row("b", HOLDS)], "holds"),
        ([row("a", OPEN), row("b", HOLDS), row("c", HOLDS)], "holds in b, c, inconclusive in a"),
        ([*(row(name, HOLDS) for name in "abc"), row("d", FAILS)], "holds in 3 networks, does not hold in d"),
        # A measure with a pooled row and one without.
        ([row("all", OPEN, "m"), row("a", HOLDS, "n")], "inconclusive, holds in a"),
        ([row("all", HOLDS, "m"), row("a", HOLDS, "n")], "holds"),
        # A word that is not known here.
        ([row("all", "no verdict", "m"), row("all", HOLDS, "n")], "holds in 1 of 2 tests, no verdict in 1"),
    ],
)
def test_verdict_of_a_claim(rows, said):
    assert headline.verdict(rows) == said


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two claims: one with a short statement in the registry, one whose statement has to do."""
    monkeypatch.chdir(tmp_path)
    registry = tmp_path / "claims.yaml"
    registry.write_text("- {claim: 1, statement: s, short: Probes read best}\n- {claim: 2, statement: s}\n")
    monkeypatch.setattr(headline, "REGISTRY", registry)
    rows = [
        row("all", HOLDS),
        row("all", FAILS, "m", 12, "A statement that is so long that a line of the terminal has no room for it."),
        row("all", HOLDS, "n", 12),
    ]
    columns = [("claim", pa.int32()), *((name, pa.string()) for name in ("network", "measure", "verdict", "statement"))]
    # Columns may be added.
    parquet.write(
        "results/a/claims.parquet",
        [each | {"more": 1.0} for each in rows],
        pa.schema([*columns, ("more", pa.float64())]),
    )
    for name in ("figures", "tables"):
        (tmp_path / "results/a" / name).mkdir()
    (tmp_path / "results/a/claims.html").touch()
    return "results/a"


def test_text_of_two_claims(results):
    assert headline.text(results, "results/a/report.zip").splitlines() == [
        "",
        "The paper's claims, as this study judges them over all its networks:",
        "  1  Probes read best                                    holds",
        " 12  A statement that is so long that a line of the ...  holds in 1 of 2 tests, does not hold in 1",
        "",
        "  figures  results/a/figures",
        "  tables   results/a/tables",
        "  claims   results/a/claims.html",
        "  report   results/a/report.zip",
    ]


def test_what_is_not_there_is_not_named(results, tmp_path):
    """A run for the claims alone draws no figures."""
    (tmp_path / "results/a/figures").rmdir()
    told = headline.text(results)
    assert "figures" not in told
    assert told.endswith("\n  claims   results/a/claims.html\n  report   snakemake --report report.zip\n")


def test_a_long_verdict_goes_on_in_the_next_line(results, monkeypatch):
    monkeypatch.setattr(headline, "verdict", lambda rows: "holds in one of the many tests, " * 3)
    lines = headline.text(results).splitlines()[2:4]
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith("  holds in one of the many tests, holds in")
    assert lines[1] == " " * lines[0].index("holds") + "one of the many tests, holds in one of the"


def test_a_study_without_claims_has_no_headline(results, tmp_path):
    assert headline.text("results/other") == ""


def test_a_table_that_cannot_be_read_is_named(results, tmp_path):
    (tmp_path / "results/a/claims.parquet").write_text("nothing")
    with pytest.raises(StudyError, match=r"results/a/claims\.parquet: cannot be read"):
        headline.text(results)


def command(*arguments):
    """The command by hand, in a folder that is not the project's."""
    return ran([sys.executable, "-m", "commands.headline", *arguments], env={"PYTHONPATH": str(ROOT / "workflow")})


def test_the_command_prints_the_same(results):
    done = command(results, "--report", "here.zip")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().splitlines()[-1] == "  report   here.zip"
    assert "holds in 1 of 2 tests, does not hold in 1" in done.stdout


def test_the_command_without_claims_says_what_to_do(results):
    done = command("results/other")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: results/other: no claims have been judged there; run the study to its end\n"


def test_every_claim_of_the_registry_fits_a_line():
    """With the longest verdict of three tests."""
    for claim in yaml.safe_load((ROOT / "workflow/claims.yaml").read_text()):
        statement = claim.get("short", claim["statement"])
        line = f"  {claim['claim']}  {statement}  holds in 1 of 3 tests, inconclusive in 2"
        assert len(statement) <= headline.STATEMENT and len(line) <= headline.WIDTH, statement


# ---- of a run


TITLE = "\nThe paper's claims, as this study judges them over all its networks:\n"


def told(printed):
    """The lines from the headline to Snakemake's last words."""
    assert printed.count(TITLE) == 1
    return printed.split(TITLE)[1].split("\nComplete log")[0].splitlines()


@pytest.mark.workflow
def test_a_run_ends_with_its_headline(finished):
    """Eight claims, then where things are; behind it, only Snakemake's own last two lines."""
    assert re.search(r"(\d+) of \1 steps \(100%\) done", finished.printed).start() < finished.printed.index(TITLE)
    lines = told(finished.printed)
    assert [int(line[:3]) for line in lines[:8]] == list(range(1, 9))
    table = parquet.read(finished.results / "claims.parquet").to_pylist()
    for number, line in enumerate(lines[:8], start=1):
        said = headline.verdict([row for row in table if row["claim"] == number])
        assert line.endswith(f"  {said}")
    assert [line.strip() for line in lines[8:]] == [
        "",
        "figures  results/tiny/figures",
        "tables   results/tiny/tables",
        "claims   results/tiny/claims.html",
        "report   snakemake --report report.zip  (with this run's --configfile and --config)",
    ]
    assert len(lines) + 2 <= 20 and max(map(len, lines)) <= 100
    last = finished.printed.split(TITLE)[1].split("\nComplete log")[1]
    assert len(last.strip().splitlines()) == 2


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ((), 1),
        (("claims",), 1),
        (("results/tiny/claims.html",), 1),
        (("results/tiny/figures/figure1.png",), 0),
        (("--until", "tables"), 0),
        (("--nolock",), 0),
        (("--dry-run",), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_run_that_finds_nothing_to_do_tells_it_where_it_was_asked_for(finished, arguments, count):
    printed = finished.run(*arguments)
    assert "Nothing to be done" in printed
    assert printed.count(TITLE) == count


@pytest.mark.slow
@pytest.mark.workflow
def test_a_run_for_one_figure_does_not_tell_it_and_one_for_the_claims_does(project):
    """Although the figure of the claims needs them."""
    figure = project.results / "figures/supplement_claims.png"
    figure.unlink()
    assert TITLE not in project.run("results/tiny/figures/supplement_claims.png")
    undo(project, "claims.parquet", "claims.html")
    lines = told(project.run("claims"))
    assert len(lines) == 13


@pytest.mark.workflow
def test_a_broken_table_of_claims_is_told_by_a_run_that_finds_nothing_to_do(project):
    (project.results / "claims.parquet").write_text("nothing")
    printed = project.run("results/tiny/claims.html")
    assert "results/tiny/claims.parquet: cannot be read" in printed and "Traceback" not in printed
