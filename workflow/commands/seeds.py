"""Which verdicts depend on the seed with which the networks were trained? `make seeds`, after the study of that name.

Each claim is judged for the networks of each training seed by themselves, as if there were no others.
"""

import sys
from pathlib import Path

import yaml
from snakemake.utils import update_config

from inputs.study import Study
from jobs.claims import outcomes
from readout import StudyError, claims

ROOT = Path(__file__).resolve().parents[2]
LETTERS = {"holds": "holds", "does not hold": "does not", "inconclusive": "?"}


def by_seed(study: Study, registry: list) -> dict[int, list[dict]]:
    """Rows of the table of claims for the networks of each training seed, from the layer tables of a finished study."""
    rows = {}
    for seed in sorted({network.training["seed"] for network in study.networks.values()}):
        chosen = {n.name: n for n in study.networks.values() if n.training["seed"] == seed}
        found = {
            name: outcomes(
                [f"{study.results}/tables/{name}/{layer}.parquet" for layer in network.layers],
                network.targets,
                study.bins,
                network.outputs,
            )
            for name, network in chosen.items()
        }
        models = {name: network.model for name, network in chosen.items()}
        given = study.config["claims"] | {"seed": study.seed}
        rows[seed] = list(claims.evaluate(found, registry, models, **given))
    return rows


def table(rows: dict[int, list[dict]]) -> str:
    """A Markdown table: a row per test, its pooled verdict by seed, and in how many networks it holds."""
    lines = ["| claim | measure | " + " | ".join(f"seed {seed}" for seed in rows) + " | networks in which it holds |"]
    lines.append("|---" * (len(rows) + 3) + "|")
    tests = dict.fromkeys((row["claim"], row["measure"]) for row in next(iter(rows.values())))
    for test in tests:
        of_test = {seed: [r for r in found if (r["claim"], r["measure"]) == test] for seed, found in rows.items()}
        pooled = [next((r for r in found if r["network"] == "all"), found[0]) for found in of_test.values()]
        single = [r["verdict"] for found in of_test.values() for r in found if r["network"] != "all"]
        # Without an estimate there is nothing to judge: the verdict alone says so.
        entries = [LETTERS[r["verdict"]] + ("" if r["estimate"] is None else f" {r['estimate']:.2g}") for r in pooled]
        count = f"{single.count('holds')} of {len(single)}" if single else ""
        lines.append(f"| {test[0]} | {test[1]} | {' | '.join(entries)} | {count} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table for workflow/studies/seeds.yaml."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, yaml.safe_load((ROOT / "workflow" / "studies" / "seeds.yaml").read_text()))
    try:
        rows = by_seed(Study(config), yaml.safe_load((ROOT / "workflow" / "claims.yaml").read_text()))
    except StudyError as error:
        sys.exit(f"error: {error}")
    print(table(rows))


if __name__ == "__main__":
    main()
