"""Step `claims`: the paper's claims, each with an estimate, an interval and a verdict."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from jobs import tables
from readout import StudyError, cells, claims, page
from runtime import files, parquet

SCHEMA = pa.schema(
    [
        ("claim", pa.int32()),
        ("network", pa.string()),
        ("measure", pa.string()),
        ("estimate", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("test", pa.string()),
        ("p", pa.float64()),
        ("verdict", pa.string()),
        ("rule", pa.string()),
        ("statement", pa.string()),
        ("section", pa.string()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("role", pa.string()),
        ("protocol", pa.string()),
        ("outcome", pa.string()),
        ("intervention", pa.string()),
        ("part", pa.string()),
        ("null", pa.float64()),
        ("p_holds", pa.float64()),
        ("p_fails", pa.float64()),
        ("p_holds_adjusted", pa.float64()),
        ("p_fails_adjusted", pa.float64()),
        ("targets", pa.string()),
        ("classes", pa.int32()),
        ("reason", pa.string()),
        ("note", pa.string()),
    ]
)
OPTIONAL = (
    *("estimate", "ci_low", "ci_high", "p", "lower", "upper", "intervention", "part", "null"),
    *("p_holds", "p_fails", "p_holds_adjusted", "p_fails_adjusted", "reason", "note"),
)
"""Columns in which a row may have nothing."""
NUMBERS = tuple(field.name for field in tables.LAYER if pa.types.is_float64(field.type))
"""Columns of the layer tables that a test may be of."""
PSEUDO = ("rank_deficit", "rank_change", "log_p_change")
"""Outcomes that pseudo-targets have, for each intervention."""


def _finite(path: str, table: pa.Table) -> None:
    for name in table.schema.names:
        if pa.types.is_floating(table[name].type) and pc.all(pc.is_finite(table[name])).as_py() is False:
            raise StudyError(f"{path}: {name} is not finite; {parquet.again(path)}")


def _grids(paths: Sequence[str], targets: Sequence[str], bins: tuple[int, int]) -> tuple[list[str], dict]:
    """The layers, and the columns [K, L, S, M] by name, of layer tables in order of depth; NaN where a row lacks one.

    A column without any number is left out: the study has it switched off.
    """
    layers, parts = [], []
    for path in paths:
        # Rows by target and cell, s0m0 first.
        names = ["layer", "class_id", "cell", "selectivity_bin", "magnitude_bin", *NUMBERS]
        table = parquet.read(path, tables.LAYER, columns=names, optional=tables.OPTIONAL).sort_by(
            [("class_id", "ascending"), ("selectivity_bin", "ascending"), ("magnitude_bin", "ascending")]
        )
        expected = [(target, cell) for target in sorted(targets) for cell in cells.names(bins)]
        if list(zip(table["class_id"].to_pylist(), table["cell"].to_pylist(), strict=True)) != expected:
            raise StudyError(f"{path}: has not all targets and cells of the study, once each; {parquet.again(path)}")
        _finite(path, table)
        layers.append(table["layer"][0].as_py())
        parts.append(table)
    order = [sorted(targets).index(target) for target in targets]
    columns = {}
    for name in NUMBERS:
        # What is missing becomes NaN.
        values = [part[name].to_numpy().astype(float).reshape(len(targets), *bins)[order] for part in parts]
        if not np.isnan(values).all():
            columns[name] = np.stack(values, 1)
    return layers, columns


def _pseudo(path: str, network: str, layers: Sequence[str], bins: tuple[int, int]) -> tuple[dict, tuple[int, ...]]:
    """The columns [P, L', S, M] of a network's pseudo-targets by name, from the table of groups; and their layers."""
    keys = ["network", "layer", "class_id", "group", "kind", "intervention"]
    columns = [*keys, "auroc", *PSEUDO]
    table = parquet.read(path, tables.GROUPS, columns=columns, optional=tables.GROUP_OUTCOMES)
    table = table.filter(pc.and_(pc.equal(table["kind"], "pseudo"), pc.equal(table["network"], network)))
    _finite(path, table)
    rows = {tuple(row[key] for key in (*keys[1:4], "intervention")): row for row in table.to_pylist()}
    found = [layer for layer in layers if any(key[0] == layer for key in rows)]
    names = sorted({key[1] for key in rows})
    interventions = sorted({key[3] for key in rows})
    expected = {(lay, p, c, i) for lay in found for p in names for c in cells.names(bins) for i in interventions}
    if rows.keys() != expected or len(table) != len(rows):
        raise StudyError(f"{path}: has not every cell of every pseudo-target of {network} once; {parquet.again(path)}")

    def grid(column: str, intervention: str) -> np.ndarray:
        values = [[[rows[lay, p, c, intervention][column] for c in cells.names(bins)] for lay in found] for p in names]
        return np.array(values, float).reshape(len(names), len(found), *bins)

    if not rows:
        return {}, ()
    columns = {f"{name}_{i}": grid(name, i) for name in PSEUDO for i in interventions}
    return columns | {"auroc": grid("auroc", interventions[0])}, tuple(map(layers.index, found))


def outcomes(
    paths_to_layers: Sequence[str],
    path_to_groups: str | None,
    network: str,
    bins: tuple[int, int],
    *,
    targets: Sequence[str],
    outputs: int,
    model: str,
    untrained: bool,
) -> claims.Outcomes:
    """What ablations and probes of one network show, from its layer tables in order of depth.

    Its pseudo-targets are in the table of groups, where there is one.
    """
    layers, columns = _grids(paths_to_layers, targets, bins)
    pseudo, places = _pseudo(path_to_groups, network, layers, bins) if path_to_groups else ({}, ())
    return claims.Outcomes(tuple(targets), columns, outputs, model, untrained, pseudo, places)


def judge(
    path_to_claims: str,
    path_to_page: str,
    *,
    paths_to_layers: Mapping[str, Sequence[str]],
    path_to_groups: str | None,
    path_to_registry: str,
    networks: Mapping[str, Mapping],
    bins: Sequence[int],
    dataset: str,
    confidence: float,
    made: str | None = None,
) -> None:
    """Write `claims.parquet`, and the same for readers as a page of HTML.

    `paths_to_layers` are the layer tables of each network, in order of depth; `networks` the keywords of `outcomes` for
    each. The bounds of the registry were settled with some classes of one `dataset`, which it names.
    """
    found = {
        name: outcomes(paths_to_layers[name], path_to_groups, name, tuple(bins), **described)
        for name, described in networks.items()
    }
    registry = yaml.safe_load(Path(path_to_registry).read_text())
    settled_on = registry["settled_on"].get(dataset, ())
    rows = claims.evaluate(found, registry["claims"], confidence=confidence, settled_on=settled_on)
    parquet.write(path_to_claims, rows, SCHEMA, made)
    text = page.render(rows, registry["claims"], networks=list(networks), confidence=confidence)
    with files.whole(path_to_page) as partial:
        partial.write_text(text, encoding="utf-8")
