"""Machine observers of the occlusion task, and the machine interpretability score. None of them is a person.

An observer sees a trial: a base image, two queries with one square of it hidden, and references that drive the unit. It
says how far each query is to be chosen. *Whole* compares the queries with the references, *patch* what the two squares
hide; *prior* knows no references.

Pictures are uint8 [3, H, W], squares (top, left) and a side in pixels.
"""

import hashlib
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from readout.baselines import choose, patch

ORIENTATIONS, GRID, BINS = 8, 4, 8
"""Of hand-made features: orientations of a cell, cells a side, and bins of a colour's histogram."""
LARGEST = 32
"""Pixels a side of the pictures whose structural similarity is taken."""
TEMPERATURE = 0.16
"""Of the machine interpretability score with a cosine similarity; fitted on people with features of DreamSim."""
# ASSUME: so many make the mean over references of other units, which an observer subtracts, certain enough.
OTHERS = 32
SPREAD = 0.1
"""How far from chance an observer's probabilities are where units and base images are paired at random."""
# ASSUME: the penalty of the prior observer, scikit-learn's own; its inputs are scaled to a mean square of 1.
C = 1.0


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines [n, m] between features [n, D] and [m, D]; 0 with a feature that is 0 throughout."""

    def unit(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        norm = np.linalg.norm(x, axis=-1, keepdims=True)
        return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)

    return unit(a) @ unit(b).T


def _resized(pictures: np.ndarray, side: int) -> torch.Tensor:
    """Pictures [N, 3, H, W] at another side, in [0, 1]; unchanged where they have it."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).double() / 255
    if x.shape[-2:] == (side, side):
        return x
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def hand(pictures: np.ndarray) -> np.ndarray:
    """Hand-made features [N, 200] of pictures [N, 3, H, W].

    Histograms of 8 orientations of the gradient in 4 x 4 cells (scikit-image's HOG, one block), mean colours of these
    cells, and a histogram of 8 bins a colour; each of the three has length 1, or 0 where it is empty.
    """
    # ASSUME: at the nearest side that 4 divides and that leaves each cell 2 pixels, so that no pixel falls out.
    side = GRID * max(2, round(pictures.shape[-1] / GRID))
    x = _resized(pictures, side)
    means = F.avg_pool2d(x, side // GRID).flatten(1).numpy()
    bins = (x * BINS).long().clamp(max=BINS - 1)
    counts = F.one_hot(bins, BINS).sum((2, 3)).flatten(1).double().numpy()
    edges = np.stack(
        [
            hog(each, ORIENTATIONS, (side // GRID,) * 2, (GRID,) * 2, "L2", channel_axis=-1)
            for each in x.permute(0, 2, 3, 1).numpy()
        ]
    )
    blocks = []
    for block in (edges, means, counts):
        norm = np.linalg.norm(block, axis=1, keepdims=True)
        # What is left of a flat picture's edges, and of a black one's colours, is rounding.
        blocks.append(np.divide(block, norm, out=np.zeros_like(block), where=norm > 1e-6))
    return np.concatenate(blocks, 1)


def reduced(pictures: np.ndarray) -> np.ndarray:
    """Pictures [N, 3, H, W] with at most 32 pixels a side, uint8."""
    # ASSUME: structure that is lost at 32 pixels a side does not count as such.
    if pictures.shape[-1] <= LARGEST:
        return pictures
    return (_resized(pictures, LARGEST) * 255).round().to(torch.uint8).numpy()


def _means(x: torch.Tensor, window: int) -> torch.Tensor:
    """Means over all square windows inside pictures [N, 3, S, S], with rows and columns exchanged."""
    size = x.shape[-1]
    # As a product with a band of 1 / window, which is several times as fast as torch's pooling here.
    band = torch.ones(size - window + 1, size, dtype=x.dtype).triu().tril(window - 1) / window
    return (x @ band.T).transpose(-1, -2) @ band.T


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity [n, m] between pictures [n, 3, S, S] and [m, 3, S, S], mean over the colours.

    As `skimage.metrics.structural_similarity` has it by default (Wang et al. 2004, uniform windows of 7 pixels a side,
    fewer in smaller pictures), for all pairs at once.
    """
    size = a.shape[-1]
    window = size if size < 3 else min(7, size - 1 + size % 2)
    # The covariance of a sample.
    share = window**2 / max(1, window**2 - 1)
    floor = 0.01**2, 0.03**2
    x, y = (torch.from_numpy(np.ascontiguousarray(each)).double() / 255 for each in (a, b))
    (ux, vx), (uy, vy) = ((_means(z, window), _means(z * z, window)) for z in (x, y))
    vx, vy = share * (vx - ux**2), share * (vy - uy**2)
    found = np.empty((len(x), len(y)))
    # Row by row: all pairs at once would take much memory.
    for i in range(len(x)):
        cross = share * (_means(x[i] * y, window) - ux[i] * uy)
        same = (2 * ux[i] * uy + floor[0]) * (2 * cross + floor[1])
        found[i] = (same / ((ux[i] ** 2 + uy**2 + floor[0]) * (vx[i] + vy + floor[1]))).mean((1, 2, 3)).numpy()
    return found


@dataclass(frozen=True)
class Similarity:
    """How alike two pictures are: `compare` takes `features` of n and of m pictures to [n, m].

    `features` takes pictures [N, 3, H, W] to an array [N, ...]. `temperature` is that of the machine interpretability
    score, None where none is known.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray]
    temperature: float | None = None


HAND = Similarity("hand", hand, cosine, TEMPERATURE)
SSIM = Similarity("ssim", reduced, ssim)


def of_network(
    name: str, features: nn.Module, *, size: int, mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Similarity:
    """Cosine between a network's features, means over space [N, C], of pictures resized to its input.

    `features` takes images [N, 3, size, size] with the network's `mean` and `std` to [N, C, H, W] or [N, C]. Use a
    network that does not hold the unit, such as the same one trained with another seed.
    """

    @torch.inference_mode()
    def compute(pictures: np.ndarray) -> np.ndarray:
        x = (_resized(pictures, size) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        x = x.float().to(device, memory_format=torch.channels_last)
        found = features(x)
        return (found.mean((2, 3)) if found.dim() == 4 else found).cpu().numpy()

    return Similarity(name, compute, cosine, TEMPERATURE)


def windows(width: int, side: int) -> np.ndarray:
    """Top and left of the windows of a picture [n, 2]: by half the side, row after row, and those at the border."""
    # ASSUME: the last window ends at the border, however near it is to the one before.
    last = width - side
    first = np.unique([*range(0, last + 1, max(1, side // 2)), last])
    return np.stack(np.meshgrid(first, first, indexing="ij"), -1).reshape(-1, 2)


class Gallery:
    """Pictures by name, uint8 [3, H, W], with their features under one similarity, each computed once."""

    def __init__(self, similarity: Similarity, pictures: Mapping[str, np.ndarray]):
        self.similarity, self.pictures = similarity, pictures
        self._known: dict[Hashable, np.ndarray] = {}

    def _features(self, key: Hashable, pictures: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._known:
            self._known[key] = self.similarity.features(pictures())
        return self._known[key]

    def whole(self, names: Sequence[str]) -> np.ndarray:
        """Features of whole pictures [names, ...]."""
        return np.concatenate([self._features(name, lambda name=name: self.pictures[name][None]) for name in names])

    def patches(self, name: str, squares: Sequence[Sequence[int]], side: int) -> np.ndarray:
        """Features of some squares of a picture [squares, ...]; those of equal pixels are equal to the last bit."""
        found = []
        for at in squares:
            hidden = np.ascontiguousarray(patch(self.pictures[name], at, side))
            key = side, hashlib.sha256(hidden.tobytes()).digest()
            found.append(self._features(key, lambda hidden=hidden: hidden[None]))
        return np.concatenate(found)

    def windows(self, name: str, side: int) -> np.ndarray:
        """Features of all windows of a picture [windows, ...]."""
        picture = self.pictures[name]
        at = windows(min(picture.shape[1:]), side)
        return self._features((name, side), lambda: np.stack([patch(picture, each, side) for each in at]))


@dataclass(frozen=True)
class Trial:
    """What is seen in a trial, by the names of pictures, and which of the two queries is which.

    `max_at` and `min_at` are top and left of the squares of `side` pixels that the queries hide. `others` are
    references of other units, for observers that leave out what is common to all pictures.
    """

    unit: Hashable
    base: str
    max: str
    min: str
    max_at: tuple[int, int]
    min_at: tuple[int, int]
    side: int
    references: tuple[str, ...]
    others: tuple[str, ...] = ()


def evidence(for_max: np.ndarray, for_min: np.ndarray) -> np.ndarray:
    """How far the max query is preferred [...]: the difference, 0 where both are equal up to rounding."""
    return np.where(choose(for_max, for_min) == 0.5, 0.0, np.asarray(for_max) - for_min)


def _whole(gallery: Gallery, trial: Trial, references: Sequence[str]) -> np.ndarray:
    """How far either query, first the max query, is like some references, mean over them [2]."""
    queries = gallery.whole([trial.max, trial.min])
    return gallery.similarity.compare(queries, gallery.whole(references)).mean(1)


def _patch(gallery: Gallery, trial: Trial, references: Sequence[str]) -> np.ndarray:
    """How far what the *other* query hides is like some references, first for the max query [2].

    A patch is like a reference as far as it is like the reference's best window; mean over the references.
    """
    patches = gallery.patches(trial.base, [trial.min_at, trial.max_at], trial.side)
    of_references = [gallery.windows(name, trial.side) for name in references]
    found = gallery.similarity.compare(patches, np.concatenate(of_references))
    ends = np.cumsum([len(each) for each in of_references])[:-1]
    return np.mean([part.max(1) for part in np.split(found, ends, axis=1)], axis=0)


KINDS: dict[str, Callable[[Gallery, Trial, Sequence[str]], np.ndarray]] = {"whole": _whole, "patch": _patch}
"""Observers that compare with references: the queries themselves, or what they hide."""


def preference(kind: str, gallery: Gallery, trial: Trial, references: Sequence[str]) -> float:
    """Evidence of an observer of `KINDS` for the max query of a trial, from some references.

    What is common to all pictures, such as their background, is like any reference and can decide, whichever unit the
    references are of. *Relative* observers leave it out: their evidence is `evidence(own, others)`, that of the trial's
    references less that of `others`.
    """
    return float(evidence(*KINDS[kind](gallery, trial, references)))


def numbered(units: Sequence[Hashable]) -> np.ndarray:
    """Units by number, in the order in which they come [N]."""
    numbers = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    return np.array([numbers[unit] for unit in units], int)


def re_paired(trials: Sequence[Trial], generator: np.random.Generator) -> list[Trial]:
    """The trials, each with the references of a random trial of another unit.

    Where all are of one unit, with those of any trial.
    """
    units = numbered([trial.unit for trial in trials])
    found = []
    for i, trial in enumerate(trials):
        others = np.flatnonzero(units != units[i])
        drawn = generator.choice(others if len(others) else len(trials))
        found.append(replace(trial, references=trials[drawn].references))
    return found


def with_others(trials: Sequence[Trial], generator: np.random.Generator) -> list[Trial]:
    """The trials of one condition, each with `OTHERS` references of other units.

    All trials of a unit have the same ones. Where there is no other unit, or one unit has the references of all the
    others, no trial has any: an observer that needs them answers all trials of a condition or none.
    """
    by_unit: dict[Hashable, dict[str, None]] = {}
    for trial in trials:
        by_unit.setdefault(trial.unit, {}).update(dict.fromkeys(trial.references))
    drawn: dict[Hashable, tuple[str, ...]] = {}
    for unit, own in by_unit.items():
        rest = [name for name in dict.fromkeys(itertools.chain(*by_unit.values())) if name not in own]
        chosen = generator.choice(len(rest), min(OTHERS, len(rest)), replace=False) if rest else []
        drawn[unit] = tuple(rest[i] for i in chosen)
    if not all(drawn.values()):
        drawn = dict.fromkeys(drawn, ())
    return [replace(trial, others=drawn[trial.unit]) for trial in trials]


def temperature(evidence: np.ndarray) -> float:
    """What divides evidence, so that probabilities are `SPREAD` from chance where it comes from random pairings.

    The root of the mean square of sigmoid(evidence / temperature) - 1/2 is SPREAD, over the evidence that is not 0.
    About 1/2, not about the mean: in such pairings nothing says which query is the max query. Infinity where all is 0.
    """
    told = np.asarray(evidence, np.float64)
    told = np.abs(told[told != 0])
    if not len(told):
        return np.inf

    def excess(log: float) -> float:
        return np.sqrt(np.mean((expit(told * np.exp(-log)) - 0.5) ** 2)) - SPREAD

    # At the lower end the smallest evidence is worth a sigmoid of 0.73 and more; at the upper, the largest one of 0.55.
    return float(np.exp(brentq(excess, np.log(told.min()), np.log(told.max() / 0.2), xtol=1e-12)))


def probability(evidence: np.ndarray, temperature: float) -> np.ndarray:
    """Probability [...] that an observer chooses the max query."""
    return expit(np.asarray(evidence, np.float64) / temperature)


def correct(evidence: np.ndarray) -> np.ndarray:
    """Whether an observer chooses the max query: 1, 0, or 0.5 without evidence [...]."""
    return (np.sign(evidence) + 1) / 2


@dataclass(frozen=True)
class Prior:
    """A fitted observer without references: a logistic combination of differences between the two queries.

    `coefficients` [D] are of differences divided by `scale` [D]. No intercept: which query comes first says nothing.
    """

    scale: np.ndarray
    coefficients: np.ndarray

    def evidence(self, differences: np.ndarray) -> np.ndarray:
        """Log-odds [N] of the max query from differences [N, D], those of the max query less those of the min query."""
        return np.asarray(differences) / self.scale @ self.coefficients


def fit_prior(differences: np.ndarray) -> Prior:
    """Fit a prior observer on trials whose answer is known.

    differences: of centre, variance and saliency, say, those of the max query less those of the min query [N, D].
    """
    x = np.asarray(differences, np.float64)
    scale = np.sqrt((x**2).mean(0)) if len(x) else np.ones(x.shape[1])
    scale = np.where(scale > 0, scale, 1.0)
    if not x.any():
        return Prior(scale, np.zeros(x.shape[1]))
    # Each trial as it is and with its sides exchanged: without an intercept the two say the same.
    model = LogisticRegression(C=C, fit_intercept=False, tol=1e-8, max_iter=1000)
    model.fit(np.concatenate([x, -x]) / scale, np.repeat([1, 0], len(x)))
    return Prior(scale, model.coef_[0])


def prior(differences: np.ndarray, units: Sequence[Hashable]) -> np.ndarray:
    """Log-odds [N] of the max query, for each trial by a prior observer fitted on the trials of *other* units.

    0 where there is no other unit.
    """
    of = numbered(units)
    found = np.empty(len(of))
    for unit in np.unique(of):
        own = of == unit
        found[own] = fit_prior(differences[~own]).evidence(differences[own])
    return found


def coin(trial: Trial, seed: int) -> float:
    """Whether a fair coin chooses the max query, 1 or 0; the same one for the same queries, whichever is called max."""
    if trial.max == trial.min:
        return 0.5
    first = min(trial.max, trial.min)
    drawn = f"{seed}\0{trial.unit}\0{trial.base}\0{first}\0{max(trial.max, trial.min)}"
    heads = hashlib.sha256(drawn.encode()).digest()[0] % 2 == 0
    return float(heads == (first == trial.max))


def oracle(activation_max: float, activation_min: float) -> float:
    """Whether the query of the larger activation is the max query: 1, 0, or 0.5 where they are equal."""
    return float((np.sign(activation_max - activation_min) + 1) / 2)


def task(similarities: np.ndarray) -> np.ndarray:
    """Evidence [...] of two-alternative tasks with maximal and minimal references (Zimmermann et al. 2024).

    similarities: mean over the references [..., 2, 2], of the maximal and the minimal query (rows) to the maximal and
    the minimal references (columns). A query's evidence is how much more like the maximal references it is.
    """
    s = np.asarray(similarities, np.float64)
    towards = s[..., 0] - s[..., 1]
    return evidence(towards[..., 0], towards[..., 1])


def interpretability(evidence: np.ndarray, temperature: float = TEMPERATURE) -> tuple[float, float]:
    """The machine interpretability score of a unit from its tasks' evidence [tasks], and the share decided right.

    The score is the mean probability of the right answer; the temperature *divides*: with 0.16 an evidence of 0.6 makes
    0.977. Chance is 0.5 for both.

    In the published task references are a unit's most extreme images, and queries less extreme ones. In the tasks of
    this study queries are base images, the most extreme of their image sets: scores are not those of the paper.
    """
    return float(probability(evidence, temperature).mean()), float(correct(evidence).mean())


def task_evidence(gallery: Gallery, queries: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Evidence of one such task, from the names of its maximal and minimal query, and of both kinds of references."""
    of_queries = gallery.whole(queries)
    found = [gallery.similarity.compare(of_queries, gallery.whole(each)).mean(1) for each in references]
    return float(task(np.stack(found, -1)))
