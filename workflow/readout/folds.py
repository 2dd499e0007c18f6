"""Folds: what is said of an image comes from the others' folds; which images stand for what, by fold.

Loads no torch, since the study is planned with it.
"""

import hashlib
import itertools

import numpy as np

FOLDS = 5
"""Folds of a study's images; each class spreads evenly over them."""
HALVES = {"a": (0, 2, 4), "b": (1, 3)}
"""Folds of either half of the images, for what must not share an image with something else."""
FEW = 7
"""ASSUME: below so many others, each gives two images a fold, else one; about as many as the target has."""


def others_per_fold(others: int) -> int:
    """How many images of each of so many other classes an ablation looks at in each fold."""
    return 1 if others >= FEW else 2


def sample(class_id: np.ndarray, fold: np.ndarray, per_fold: int) -> np.ndarray:
    """Which of the images [images] are the first `per_fold` of their class in their fold, bool [images]."""
    # ASSUME: the first in the order of their numbers, which says nothing of them.
    seen: dict[tuple, int] = {}
    chosen = np.zeros(len(fold), bool)
    for i, key in enumerate(zip(class_id.tolist(), fold.tolist(), strict=True)):
        seen[key] = seen.get(key, 0) + 1
        chosen[i] = seen[key] <= per_fold
    return chosen


def pseudo_target(class_id: np.ndarray, fold: np.ndarray, count: int, entropy: str) -> np.ndarray:
    """The images of a pseudo-target, bool [images]: `count` out of all classes, equally many in each fold.

    In each fold the classes take turns in a random order, so that there they are as equal as can be; `entropy` decides
    the draw. A fold's share of a class without images left there is another class's.
    """
    generator = np.random.default_rng(list(hashlib.sha256(entropy.encode()).digest()))
    chosen = np.zeros(len(fold), bool)
    classes = np.unique(class_id)
    for f, size in enumerate(len(part) for part in np.array_split(np.arange(count), FOLDS)):
        # In the order of their names: that of a set of them differs from one process to the next.
        left = {c: list(generator.permutation(np.flatnonzero((class_id == c) & (fold == f)))) for c in classes}
        # Anew in each fold: turns that went on would keep a fold's classes out of the others, and a probe learns that.
        turns = itertools.cycle(generator.permutation(classes))
        for _ in range(min(size, sum(map(len, left.values())))):
            chosen[left[next(c for c in turns if left[c])].pop()] = True
    return chosen
