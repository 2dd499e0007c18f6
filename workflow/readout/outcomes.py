"""Outcomes of an ablation on both sides: what it does to telling the target's images from the others'.

z_c of an image is the log-odds of class c (`scores.log_odds`); the gap of a class is the mean of its z over its own
images less the mean over others. All are linear in images or say otherwise; None stands for what cannot be told.
"""

from dataclasses import dataclass

import numpy as np

from readout.probes import auroc


@dataclass(frozen=True)
class Images:
    """The images of an ablation, before or after it.

    side: int [images], 0 for the target's and 1 + i for those of the i-th other class; z: log-odds of the target, then
    of each other class [images, 1 + others], empty where nobody asks; rank and log_p: of each image's own class
    [images].
    """

    side: np.ndarray
    z: np.ndarray
    rank: np.ndarray
    log_p: np.ndarray

    def part(self, chosen: np.ndarray) -> "Images":
        """Some of the images, bool [images] or their places."""
        return Images(
            self.side[chosen], self.z[chosen] if len(self.z) else self.z, self.rank[chosen], self.log_p[chosen]
        )


def one_sided(before: Images, after: Images) -> dict[str, float]:
    """Rank deficit, rank change and change of the log-probability of the target's own images, as means over these.

    The deficit is the mean of max(0, rank change), which the authors' code averages; clipping makes it positive under
    pure noise, so the plain change stands beside it.
    """
    target = before.side == 0
    change = after.rank[target].astype(np.int64) - before.rank[target]
    return {
        "rank_deficit": float(np.maximum(0, change).mean()),
        "rank_change": float(change.mean()),
        "log_p_change": float((after.log_p - before.log_p)[target].mean()),
    }


def against(effect: float, random: np.ndarray) -> tuple[float, float | None]:
    """An effect less the mean of those of random groups [groups], and the same in units of their standard deviation.

    The latter is None where the random groups do not differ, or where there is one alone.
    """
    less = float(effect - random.mean())
    # Of equal numbers the mean, and with it the deviation, may be off by a rounding.
    differ = random.min() < random.max()
    return less, less / float(random.std(ddof=1)) if differ else None


def lost(before: float | None, after: float | None, whole: float | None = None) -> float | None:
    """What is gone as a share of what was there, or of `whole`; nothing can be said where nothing was there."""
    if before is None or after is None:
        return None
    whole = before if whole is None else whole
    return float((before - after) / whole) if whole > 0 else None


def _balanced(values: np.ndarray, target: np.ndarray) -> float:
    """Mean over the images, both sides weighing the same."""
    return float((values[target].mean() + values[~target].mean()) / 2)


def _d_prime(z: np.ndarray, target: np.ndarray) -> float | None:
    """The gap in units of the deviation within the sides; None where there is no deviation."""
    if min(target.sum(), (~target).sum()) < 2:
        return None
    deviation = np.sqrt((z[target].var(ddof=1) + z[~target].var(ddof=1)) / 2)
    return float((z[target].mean() - z[~target].mean()) / deviation) if deviation > 0 else None


def gap(z: np.ndarray, target: np.ndarray) -> float:
    """Mean log-odds of the class over its own images less that over the others'; z and target (bool) [images]."""
    return float(z[target].mean() - z[~target].mean())


def mismatched_gap(z: np.ndarray, side: np.ndarray) -> float | None:
    """Mean over the other classes of their own gaps, among the others' images; None where there is one class alone.

    z: [images, 1 + others]; side: as in `Images`.
    """
    # ASSUME: the target's images are left out, so that what an ablation does to the target cannot enter.
    present = [c for c in np.unique(side) if c > 0]
    if len(present) < 2:
        return None
    return float(np.mean([gap(z[side > 0, c], side[side > 0] == c) for c in present]))


def two_sided(before: Images, after: Images, whole_gap: float | None = None) -> dict[str, float | None]:
    """The outcomes of a group's ablation by name (`docs/protocol.md`), from the images before and after it.

    Separation loss and use are shares of the target's gap before the ablation, or of `whole_gap`, so that parts of the
    images add up. Either side must have images.
    """
    target = before.side == 0
    sides = [images.z[:, 0] for images in (before, after)]
    gaps = [gap(z, target) for z in sides]
    share = gaps[0] if whole_gap is None else whole_gap
    moved = sides[1] - sides[0]
    areas = [auroc(z, target) for z in sides]
    rank_change = after.rank.astype(np.int64) - before.rank
    log_p_change = after.log_p - before.log_p
    return {
        "separation_loss": lost(*gaps, share),
        "use": _balanced(np.abs(moved), target) / share if share > 0 else None,
        "d_prime_loss": lost(*(_d_prime(z, target) for z in sides)),
        "criterion_shift": _balanced(moved, target),
        "auroc_loss": areas[0] - areas[1],
        "mismatched_separation_loss": lost(*(mismatched_gap(images.z, images.side) for images in (before, after))),
        **one_sided(before, after),
        "others_rank_change": float(rank_change[~target].mean()),
        "others_log_p_change": float(log_p_change[~target].mean()),
    }


def energies(removed: np.ndarray, layer: np.ndarray, target: np.ndarray) -> dict[str, float | None]:
    """Removed energy as a share of that of replacing the whole layer, over all images and over either side's.

    removed and layer: sums over units of (a - replacement)^2 [images]; target: bool [images].
    """
    sides = {"energy": np.ones_like(target), "energy_target": target, "energy_others": ~target}
    totals = {name: (float(removed[side].sum()), float(layer[side].sum())) for name, side in sides.items()}
    return {name: part / whole if whole > 0 else None for name, (part, whole) in totals.items()}


NAMES = (
    "separation_loss",
    "use",
    "d_prime_loss",
    "criterion_shift",
    "auroc_loss",
    "mismatched_separation_loss",
    "rank_deficit",
    "rank_change",
    "log_p_change",
    "others_rank_change",
    "others_log_p_change",
)
"""Of `two_sided`, in this order."""
ENERGIES = ("energy", "energy_target", "energy_others")
OF_HALVES = ("separation_loss", "use", "rank_change", "others_rank_change")
"""Outcomes that the claims take of either half of the images, too."""
