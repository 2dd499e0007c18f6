"""Which verdicts depend on the seed with which the networks were trained? `make seeds`, after the study of that name.

Each claim is judged for the networks of each training seed by themselves, as if there were no others, and for all of
them, where networks of one kind are replicates of each other.
"""

import sys
from collections.abc import Mapping, Sequence

from commands import finished
from inputs.study import Study
from readout import StudyError
from readout.verdicts import EVERY, FAILS, HOLDS, NONE, OPEN, POOLED

LETTERS = {HOLDS: "holds", FAILS: "does not", OPEN: "?", NONE: "none"}
EVERY_SEED = "all seeds"


def by_seed(study: Study, registry: Mapping) -> dict[str, list[dict]]:
    """Rows of the table of claims for the networks of each training seed, and for all, from a finished study's tables.

    `registry` is the content of workflow/claims.yaml. Untrained networks have no seed and are left out.
    """
    networks = {network.name: network for network in study.networks.values() if not network.untrained}
    found = finished.outcomes(study)

    def judged(names: Sequence[str]) -> list[dict]:
        return finished.judge(study, registry, {name: found[name] for name in names})

    seeds = sorted({network.training["seed"] for network in networks.values()})
    rows = {f"seed {s}": judged([n for n, network in networks.items() if network.training["seed"] == s]) for s in seeds}
    return rows | {EVERY_SEED: judged(list(networks))}


def table(rows: Mapping[str, list[dict]]) -> str:
    """A Markdown table: a row per published and corrected test, its pooled verdict by seed, and where it holds."""
    lines = ["| claim | test | " + " | ".join(rows) + " | networks in which it holds |"]
    lines.append("|---" * (len(rows) + 3) + "|")
    shown = {
        seed: [row for row in found if row["role"] != "beside" and row["targets"] == EVERY]
        for seed, found in rows.items()
    }
    tests = dict.fromkeys((row["claim"], row["role"], row["measure"]) for row in shown[EVERY_SEED])
    for test in tests:
        of_test = {
            seed: [row for row in found if (row["claim"], row["role"], row["measure"]) == test]
            for seed, found in shown.items()
        }
        pooled = [next(row for row in found if row["network"] == POOLED) for found in of_test.values()]
        single = [row["verdict"] for row in of_test[EVERY_SEED] if row["network"] != POOLED]
        # Without an estimate there is nothing to judge: the verdict alone says so.
        entries = [LETTERS[r["verdict"]] + ("" if r["estimate"] is None else f" {r['estimate']:.2g}") for r in pooled]
        count = f"{single.count(HOLDS)} of {len(single)}" if single else ""
        lines.append(f"| {test[0]} | *{test[1]}*: {test[2]} | {' | '.join(entries)} | {count} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table for workflow/studies/seeds.yaml."""
    try:
        study = finished.study(finished.ROOT / "workflow" / "studies" / "seeds.yaml")
        rows = by_seed(study, finished.registry())
    except StudyError as error:
        sys.exit(f"error: {error}")
    print(table(rows))


if __name__ == "__main__":
    main()
