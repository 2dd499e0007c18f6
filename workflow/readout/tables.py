"""Tables: the effect of an ablation in one row per group."""

import numpy as np


def effect(rank_baseline: np.ndarray, rank_ablated: np.ndarray) -> tuple[float, float]:
    """Rank deficit and rank change of a group, means over the target's images.

    The deficit is the mean of max(0, rank change), which the authors' code averages; clipping makes it positive under
    pure noise, so the plain change stands beside it.
    """
    change = rank_ablated.astype(np.int64) - rank_baseline
    return float(np.maximum(0, change).mean()), float(change.mean())


def against(effect: float, random: np.ndarray) -> tuple[float, float | None]:
    """An effect less the mean of those of random groups [groups], and the same in units of their standard deviation.

    The latter is None where the random groups do not differ, or where there is one alone.
    """
    less = float(effect - random.mean())
    # Of equal numbers the mean, and with it the deviation, may be off by a rounding.
    differ = random.min() < random.max()
    return less, less / float(random.std(ddof=1)) if differ else None
