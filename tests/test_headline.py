"""The headline of a study: one line per claim, by hand; where it is printed, and where not."""

import re
import sys

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from commands import headline
from crashes import undo
from readout import StudyError
from runtime import parquet
from workflow import ROOT, ran


def rows(claim, published, corrected):
    """The pooled rows of a claim, and others that say something else."""
    heads = [("all", "published", "all", published), ("all", "corrected", "all", corrected)]
    heads += [
        ("alexnet", "corrected", "all", "x"),
        ("all", "beside", "all", "x"),
        ("all", "corrected", "confirmation", "x"),
    ]
    return [{"claim": claim, **dict(zip(headline.COLUMNS[1:], head, strict=True))} for head in heads]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two claims, one of them with more words than a line has room for."""
    monkeypatch.chdir(tmp_path)
    registry = tmp_path / "claims.yaml"
    long = "A statement that is so long that a line of the terminal has no room for it."
    claims = [{"claim": 1, "short": "Probes read best"}, {"claim": 12, "short": long}]
    registry.write_text(yaml.safe_dump({"claims": [claim | {"statement": "s", "plain": {}} for claim in claims]}))
    monkeypatch.setattr(headline, "REGISTRY", registry)
    columns = [("claim", pa.int32()), *((name, pa.string()) for name in headline.COLUMNS[1:])]
    # Columns may be added.
    parquet.write(
        "results/a/claims.parquet",
        [each | {"more": 1.0} for each in rows(1, "holds", "does not hold") + rows(12, "does not hold", "no verdict")],
        pa.schema([*columns, ("more", pa.float64())]),
    )
    for name in ("figures", "tables"):
        (tmp_path / "results/a" / name).mkdir()
    (tmp_path / "results/a/claims.html").touch()
    (tmp_path / "results/a/faithfulness.html").touch()
    (tmp_path / "results/a/legibility.html").touch()
    return "results/a"


def test_text_of_two_claims(results):
    """What the pooled tests say, as published and corrected, and neither networks nor what is beside them."""
    assert headline.text(results, "results/a/report.zip").splitlines() == [
        "",
        "The paper's claims, as this study judges them over all its networks:",
        f"{'as published':>69}   corrected",
        "  1  Probes read best                                    holds          does not hold",
        " 12  A statement that is so long that a line of the ...  does not hold  no verdict",
        "",
        "  figures    results/a/figures",
        "  tables     results/a/tables",
        "  claims     results/a/claims.html",
        "  measures   results/a/faithfulness.html",
        "  legibility results/a/legibility.html",
        "  report     results/a/report.zip",
    ]


def test_what_is_not_there_is_not_named(results, tmp_path):
    """A run for the claims alone draws no figures."""
    (tmp_path / "results/a/figures").rmdir()
    (tmp_path / "results/a/faithfulness.html").unlink()
    (tmp_path / "results/a/legibility.html").unlink()
    told = headline.text(results)
    assert "figures" not in told
    assert told.endswith("\n  claims     results/a/claims.html\n  report     snakemake --report report.zip\n")


def test_a_study_without_claims_has_no_headline(results, tmp_path):
    assert headline.text("results/other") == ""


def test_a_table_that_cannot_be_read_is_named(results, tmp_path):
    (tmp_path / "results/a/claims.parquet").write_text("nothing")
    with pytest.raises(StudyError, match=r"results/a/claims\.parquet: cannot be read"):
        headline.text(results)


def test_a_table_of_an_earlier_version_is_named(results):
    """It has no roles."""
    parquet.write("results/a/claims.parquet", [{"claim": 1}], pa.schema([("claim", pa.int32())]))
    with pytest.raises(StudyError, match=r"results/a/claims\.parquet: was made by an earlier version; make it again"):
        headline.text(results)


def command(*arguments):
    """The command by hand, in a folder that is not the project's."""
    return ran([sys.executable, "-m", "commands.headline", *arguments], env={"PYTHONPATH": str(ROOT / "workflow")})


def test_the_command_prints_what_a_run_ends_with(tmp_path):
    """Of the project's own registry."""
    columns = pa.schema([("claim", pa.int32()), *((name, pa.string()) for name in headline.COLUMNS[1:])])
    judged = [row for claim in range(1, 9) for row in rows(claim, "holds", "no verdict")]
    parquet.write(tmp_path / "claims.parquet", judged, columns)
    done = command(tmp_path, "--report", "here.zip")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == headline.text(tmp_path, "here.zip")
    assert done.stdout.count("holds          no verdict") == 8


def test_the_command_without_claims_says_what_to_do(results):
    done = command("results/other")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: results/other: no claims have been judged there; run the study to its end\n"


def test_every_claim_of_the_registry_fits_a_line():
    """With the longest verdicts."""
    for claim in yaml.safe_load((ROOT / "workflow/claims.yaml").read_text())["claims"]:
        line = f"  {claim['claim']}  {claim['short']}  does not hold  does not hold"
        assert len(claim["short"]) <= headline.STATEMENT and len(line) <= headline.WIDTH, claim["short"]


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
    heading, *lines = told(finished.printed)
    assert heading.split() == ["as", "published", "corrected"]
    assert [int(line[:3]) for line in lines[:8]] == list(range(1, 9))
    table = pd.read_parquet(finished.results / "claims.parquet")
    pooled = table[(table["network"] == "all") & (table["targets"] == "all")]
    for number, line in enumerate(lines[:8], start=1):
        said = pooled[pooled["claim"] == number].set_index("role")["verdict"]
        assert re.split(r"\s{2,}", line.strip())[-2:] == [said["published"], said["corrected"]]
    assert [line.strip() for line in lines[8:]] == [
        "",
        "figures    results/tiny/figures",
        "tables     results/tiny/tables",
        "claims     results/tiny/claims.html",
        "measures   results/tiny/faithfulness.html",
        "report     snakemake --report report.zip  (with this run's --configfile and --config)",
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
def test_a_run_that_finds_nothing_to_do_tells_it_where_it_was_asked_for(project, arguments, count):
    # In a copy: two runs at once in one folder would be refused.
    printed = project.run(*arguments)
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
    assert len(lines) == 15


@pytest.mark.workflow
def test_a_broken_table_of_claims_is_told_by_a_run_that_finds_nothing_to_do(project):
    (project.results / "claims.parquet").write_text("nothing")
    printed = project.run("results/tiny/claims.html")
    assert "results/tiny/claims.parquet: cannot be read" in printed and "Traceback" not in printed
