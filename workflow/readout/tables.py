"""Tables: the effect of an ablation in one row a cell."""

import numpy as np


def effect(rank_baseline: np.ndarray, rank_ablated: np.ndarray) -> tuple[float, float]:
    """Rank deficit and rank change of a cell, means over the target's images.

    The deficit is the mean of max(0, rank change), which the authors' code averages; clipping makes it positive under
    pure noise, so the plain change stands beside it.
    """
    change = rank_ablated.astype(np.int64) - rank_baseline
    return float(np.maximum(0, change).mean()), float(change.mean())
