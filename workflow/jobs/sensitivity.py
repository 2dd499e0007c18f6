"""Step `sensitivity`: the configurations of a study's variants, and their corrected verdicts in one table."""

import json
import shutil
from collections.abc import Mapping, Sequence

import pyarrow as pa

from jobs import claims
from jobs.networks import layer_nodes
from readout import StudyError
from readout.verdicts import EVERY, POOLED, decides, missing
from runtime import files, parquet, provenance, subprocesses

SCHEMA = pa.schema(
    [
        ("variant", pa.string()),
        ("setting", pa.string()),
        ("value", pa.string()),
        ("run", pa.bool_()),
        ("claim", pa.int32()),
        ("statement", pa.string()),
        ("verdict", pa.string()),
        ("estimate", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("contrast", pa.string()),
        ("classes", pa.int32()),
        ("reason", pa.string()),
        ("note", pa.string()),
    ]
)
OPTIONAL = ("estimate", "ci_low", "ci_high", "contrast", "reason", "note")
"""Columns in which a row may have nothing."""
TAKEN = ("claim", "statement", "verdict", "estimate", "ci_low", "ci_high", "classes", "reason")
"""Columns that are those of the tables of claims."""


def write_config(path_to_config: str, *, config: Mapping, paths_to_layers: Mapping[str, str]) -> None:
    """Write a variant's configuration as JSON.

    `paths_to_layers` are the tables of layers by network; StudyError where a layer has fewer units than the grid cells.
    """
    s, m = config["grid"]["selectivity"], config["grid"]["magnitude"]
    for entry in config["networks"]:
        nodes = layer_nodes(paths_to_layers[entry["name"]], entry["layers"])
        for layer in entry["layers"]:
            if (units := nodes[layer]["units"]) < s * m:
                raise StudyError(
                    f"sensitivity.bins: {s}: a grid of {s} x {m} cells needs as many units, {entry['name']} has "
                    f"{units} in {layer}; leave the {s} out"
                )
    with files.whole(path_to_config) as partial:
        partial.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def study(path_to_claims: str, path_to_config: str, study: str, cores: int, limits: Sequence[str], log: str) -> None:
    """Run a variant, a study of its own, as far as its claims, and keep a copy of their table.

    `limits` are those of the run outside, as `--resources` has them. Raises StudyError where the run, which prints to
    the file `log`, fails, or its table is not that of the study.
    """
    made = f"results/{study}/claims.parquet"
    subprocesses.snakemake(made, path_to_config, cores=cores, limits=limits, log=log)
    # A broken table is told of where it lies: its copy would only be copied again.
    _corrected(made, study)
    with files.whole(path_to_claims) as partial:
        shutil.copyfile(made, partial)


def _corrected(path: str, study: str) -> dict[int, dict]:
    """The pooled rows of the corrected tests of a variant's table of claims, by claim."""
    table = parquet.read(path, claims.SCHEMA, optional=claims.OPTIONAL)
    if (found := provenance.of(table.schema.metadata).get("study")) != study:
        raise StudyError(f"{path}: is of study {found or 'unknown'}, not of {study}; {parquet.again(path)}")
    wanted = ("corrected", POOLED, EVERY)
    rows = [row for row in table.to_pylist() if (row["role"], row["network"], row["targets"]) == wanted]
    by_claim = {row["claim"]: row for row in rows}
    if not rows or len(by_claim) < len(rows):
        raise StudyError(f"{path}: has not one corrected verdict for each claim; {parquet.again(path)}")
    return by_claim


def gather(
    path_to_verdicts: str,
    *,
    paths_to_claims: Mapping[str, str],
    studies: Mapping[str, str],
    variants: Sequence[Mapping[str, str | bool | None]],
    made: str | None = None,
) -> str:
    """Write `verdicts.parquet`: a row for each variant and claim.

    `paths_to_claims` are the tables of claims by variant, `studies` the names of the studies that they must be of;
    `variants` says of each its name as `variant`, its `setting`, `value` and `note`, and of the base first. A variant
    without a table has the base's verdicts, as its note says.
    """
    found = {name: _corrected(path, studies[name]) for name, path in paths_to_claims.items()}
    base = found[variants[0]["variant"]]
    rows = []
    for about in variants:
        verdicts = found.get(about["variant"], base)
        if verdicts.keys() != base.keys():
            path = paths_to_claims[about["variant"]]
            raise StudyError(f"{path}: is not of the claims of the base; {parquet.again(path)}")
        for row in verdicts.values():
            # Of a claim that is of these weights alone the row says so; of a variant, its note.
            note = "; ".join(filter(None, [about["note"], row["note"]])) or None
            contrast = None if missing(row["estimate"]) else decides(row)
            rows.append({**about, **{name: row[name] for name in TAKEN}, "contrast": contrast, "note": note})
    parquet.write(path_to_verdicts, rows, SCHEMA, made)
    return f"{len(rows)} verdicts of {len(variants)} variants"
