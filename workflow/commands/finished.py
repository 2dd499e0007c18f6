"""A finished study, as commands judge it anew: its settings, the registry of claims, and its networks' outcomes."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from snakemake.utils import update_config

from inputs.study import Study
from jobs.claims import outcomes as of_network
from readout import claims

ROOT = Path(__file__).resolve().parents[2]


def study(path: Path | None) -> Study:
    """The study that a file describes; without one, the default study."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    if path is not None:
        update_config(config, yaml.safe_load(path.read_text()))
    return Study(config)


def registry() -> Mapping:
    """The content of workflow/claims.yaml."""
    return yaml.safe_load((ROOT / "workflow" / "claims.yaml").read_text())


def outcomes(study: Study) -> dict[str, claims.Outcomes]:
    """What the claims are judged by, by network, from the study's tables; StudyError names one that is not there."""
    groups = f"{study.results}/tables/groups.parquet" if study.pseudo else None
    return {
        name: of_network(
            [f"{study.results}/tables/{name}/{layer}.parquet" for layer in network.layers],
            groups,
            name,
            study.bins,
            targets=network.targets,
            outputs=network.outputs,
            model=network.model,
            untrained=network.untrained,
        )
        for name, network in study.networks.items()
    }


def judge(study: Study, registry: Mapping, found: Mapping[str, claims.Outcomes]) -> list[dict]:
    """Rows of the table of claims for some networks of the study, as if there were no others."""
    settled_on = registry["settled_on"].get(study.dataset, ())
    return claims.evaluate(found, registry["claims"], **study.config["claims"], settled_on=settled_on)
