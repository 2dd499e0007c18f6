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
    table = parquet.read(finished.results / "claims.parquet", claims.SCHEMA, optional=claims.OPTIONAL)
    found = {key: [{name: row[name] for name in claims.SCHEMA.names} for row in some] for key, some in rows.items()}
    assert found == {"seed 0": table.to_pylist(), "all seeds": table.to_pylist()}


def test_the_table_has_a_row_per_test(rows):
    """Published and corrected, with the pooled estimate by seed, and in how many networks the test holds."""
    lines = seeds.table({"seed 0": rows["seed 0"], **rows}).splitlines()
    assert lines[0] == "| claim | test | seed 0 | all seeds | networks in which it holds |"
    assert len(lines) == 2 + 2 * 8
    (row,) = (
        r
        for r in rows["seed 0"]
        if (r["claim"], r["role"], r["network"], r["targets"]) == (3, "published", "all", "all")
    )
    (line,) = (line for line in lines if row["measure"] in line)
    assert line.startswith("| 3 | *published*: ")
    assert line.count(f"{seeds.LETTERS[row['verdict']]} {row['estimate']:.2g}") == 2
    assert line.endswith("of 1 |")
