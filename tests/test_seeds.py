"""Seeds: claims judged for the networks of each training seed by themselves."""

import pytest
import yaml
from snakemake.utils import update_config

from commands import seeds
from inputs.study import Study
from jobs import claims
from runtime import parquet
from workflow import ROOT

pytestmark = pytest.mark.workflow


@pytest.fixture
def rows(finished, monkeypatch):
    """Of the tiny study, whose one network has the study's own seed."""
    monkeypatch.chdir(finished.folder)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, finished.config)
    return seeds.by_seed(Study(config), yaml.safe_load((ROOT / "workflow" / "claims.yaml").read_text()))


def test_the_networks_of_the_only_seed_are_judged_as_in_the_study(finished, rows):
    """The same rows as in its table of claims."""
    optional = ("estimate", "ci_low", "ci_high", "p", "lower", "upper")
    expected = parquet.read(finished.results / "claims.parquet", claims.SCHEMA, optional=optional).to_pylist()
    assert rows == {0: expected}


def test_the_table_has_a_row_per_test(rows):
    """With the pooled estimate, and in how many networks the test holds."""
    lines = seeds.table({0: rows[0], 1: rows[0]}).splitlines()
    assert lines[0] == "| claim | measure | seed 0 | seed 1 | networks in which it holds |"
    assert len(lines) == 2 + len({row["measure"] for row in rows[0]})
    (row,) = (
        r for r in rows[0] if r["network"] == "all" and r["measure"].startswith("rank deficit: s3m3 less the larg")
    )
    (line,) = (line for line in lines if row["measure"] in line)
    assert line.count(f"{seeds.LETTERS[row['verdict']]} {row['estimate']:.2g}") == 2
    assert line.endswith("of 2 |")
