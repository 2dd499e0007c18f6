"""The default study with other kernels, as other processors have them: `make kernels`.

torch, oneDNN and MKL choose their kernels by the processor; environment variables hold them to older ones. Each run is
made in a copy of the project and compared with one that chooses freely: verdicts, units that are in another cell, ranks
and log-probabilities. It takes as long as several default studies.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from workflow import Project

KERNELS = {
    "as the processor has them": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "SSE": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
MOST_MOVED = 0.001
"""Share of units that may be in another cell."""


def _numbers(results: Path, pattern: str, column: str) -> dict[str, np.ndarray]:
    """A column of all tables of a kind, by the table's path."""
    return {
        str(path.relative_to(results)): pq.ParquetFile(path).read([column])[column].to_numpy()
        for path in sorted(results.glob(pattern))
    }


def _compare(results: Path, other: Path) -> tuple[dict[str, object], bool]:
    """How the results `other` differ from `results`, and whether all verdicts are equal and few units moved."""
    (cells, moved), (ranks, changed), (log_ps, drift) = (
        (_numbers(results, pattern, column), _numbers(other, pattern, column))
        for pattern, column in (
            ("cells/*/*/*.parquet", "cell"),
            ("ablations/*/*/*/*.parquet", "rank_ablated"),
            ("ablations/*/*/*/*.parquet", "log_p_ablated"),
        )
    )
    assert cells.keys() == moved.keys() and ranks.keys() == changed.keys()
    by_grid = [(cells[name] != moved[name]).mean() for name in cells]
    units = np.average(by_grid, weights=[len(values) for values in cells.values()])
    verdicts = [
        pd.read_parquet(folder / "claims.parquet").set_index(["network", "measure", "targets"])
        for folder in (results, other)
    ]
    same = (verdicts[0]["verdict"] == verdicts[1]["verdict"]).sum()
    estimates = (verdicts[0]["estimate"] - verdicts[1]["estimate"]).abs().max()
    found = {
        "verdicts": f"{same} of {len(verdicts[0])}",
        "estimates, largest change": f"{estimates:.2g}",
        "units in another cell": f"{units:.2%} (of one grid at most {max(by_grid):.2%})",
        "ranks of ablated images": f"{np.mean([(ranks[n] != changed[n]).mean() for n in ranks]):.2%}",
        "log-probabilities, largest change": f"{max(np.abs(log_ps[n] - drift[n]).max() for n in log_ps):.2g}",
    }
    return found, same == len(verdicts[0]) and units <= MOST_MOVED


def main() -> None:
    """Run and compare; exit status 1 where a verdict differs or more than 0.1 % of the units are in another cell."""
    parser = argparse.ArgumentParser(prog="make kernels", description=__doc__)
    parser.add_argument("--config", help="another study than the default one")
    parser.add_argument("--beside", type=Path, help="results of a finished run of the same study on this machine")
    given = parser.parse_args()
    failed, first = False, given.beside
    with tempfile.TemporaryDirectory() as folder:
        for name, environment in KERNELS.items():
            if not environment and first is not None:
                continue
            project = Project.create(Path(folder, name.replace(" ", "-")), {"study": "digits"})
            project.limit = None
            project.environment = environment
            start = time.perf_counter()
            project.run(*["--cores", str(os.cpu_count())], study=given.config or "study.yaml")
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
            results = next(project.folder.glob("results/*/claims.parquet")).parent
            if first is None:
                first = results
                continue
            found, fine = _compare(first, results)
            failed |= not fine
            for what, value in found.items():
                print(f"  {what}: {value}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
