"""Step `claims`: the paper's claims, each with an estimate, an interval and a verdict."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
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
    ]
)


def outcomes(paths: Sequence[str], targets: Sequence[str], bins: tuple[int, int], outputs: int) -> claims.Outcomes:
    """What each image did, from the layer tables of one network in order of depth."""
    columns = ["class_id", "cell", "score_published", "images", "held_out"]
    change, hit, hit_others, score = ({target: [] for target in targets} for _ in range(4))
    ids = {}
    for path in paths:
        # Rows by target and cell, s0m0 first.
        table = parquet.read(path, tables.LAYER, columns=columns).sort_by(
            [("class_id", "ascending"), ("cell", "ascending")]
        )
        expected = [(target, cell) for target in sorted(targets) for cell in cells.names(bins)]
        if list(zip(table["class_id"].to_pylist(), table["cell"].to_pylist(), strict=True)) != expected:
            raise StudyError(f"{path}: has not all targets and cells of the study, once each; {parquet.again(path)}")
        for i, target in enumerate(table["class_id"].to_pylist()):
            images = table["images"][i].values
            held_out = table["held_out"][i].values
            y, p = (held_out.field(name).to_numpy() for name in ("y", "p"))
            # The bootstrap draws images: each has its place in all cells.
            found = [part.field("image_id").to_numpy() for part in (images, held_out)]
            if not all(map(np.array_equal, found, ids.setdefault(target, found))):
                raise StudyError(f"{path}: has other images of {target} than other cells; {parquet.again(path)}")
            if not (np.isfinite(p).all() and np.isfinite(table["score_published"][i].as_py())):
                raise StudyError(f"{path}: a probe of {target} is not finite; {parquet.again(path)}")
            right = (p > 0.5) == (y == 1)
            change[target].append(images.field("rank_ablated").to_numpy() - images.field("rank_baseline").to_numpy())
            hit[target].append(right[y == 1])
            hit_others[target].append(right[y == 0])
            score[target].append(table["score_published"][i].as_py())
    return claims.Outcomes(
        change=np.array([change[target] for target in targets], np.float32),
        hit=np.array([hit[target] for target in targets], np.float32),
        hit_others=[np.array(hit_others[target], np.float32) for target in targets],
        score=np.array([score[target] for target in targets]).reshape(len(targets), len(paths), *bins),
        outputs=outputs,
    )


def judge(
    path_to_claims: str,
    path_to_page: str,
    *,
    paths_to_layers: Mapping[str, Sequence[str]],
    path_to_registry: str,
    targets: Mapping[str, Sequence[str]],
    outputs: Mapping[str, int],
    models: Mapping[str, str],
    bins: Sequence[int],
    replicates: int,
    confidence: float,
    seed: int,
    made: str | None = None,
) -> None:
    """Write `claims.parquet`, and the same for readers as a page of HTML.

    `paths_to_layers` are the layer tables of each network, in order of depth.
    """
    networks = {
        name: outcomes(paths_to_layers[name], targets[name], tuple(bins), count) for name, count in outputs.items()
    }
    claimed = yaml.safe_load(Path(path_to_registry).read_text())
    rows = list(claims.evaluate(networks, claimed, models, replicates=replicates, confidence=confidence, seed=seed))
    parquet.write(path_to_claims, rows, SCHEMA, made)
    text = page.render(rows, networks=list(networks), confidence=confidence)
    with files.whole(path_to_page) as partial:
        partial.write_text(text, encoding="utf-8")
