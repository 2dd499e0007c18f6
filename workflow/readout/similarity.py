"""Representational similarity: do images of one side look alike to a group of units (Kriegeskorte et al. 2008)?"""

import numpy as np
from scipy import stats


def dissimilarities(products: np.ndarray, sums: np.ndarray, units: int) -> np.ndarray:
    """One less Pearson's correlation of every two images over a group's units [images, images].

    products: x x^T of the images' activations x [images, units], float64; sums: over the units [images]. Both add up
    over parts of the units.
    """
    covariance = products / units - np.outer(sums, sums) / units**2
    deviation = np.sqrt(np.clip(covariance.diagonal(), 0, None))
    scale = np.outer(deviation, deviation)
    # ASSUME: an image that drives all of a group's units alike correlates with none.
    # What rounding leaves is no variance.
    known = (deviation > 1e-6 * np.sqrt(products.diagonal() / units + 1e-300))[:, None]
    known = known & known.T & (scale > 0)
    return 1 - np.divide(covariance, scale, out=np.zeros_like(covariance), where=known)


def template(is_target: np.ndarray) -> np.ndarray:
    """What a group that knows the sides alone would say: 0 for two images of one side, else 1 [images, images]."""
    # ASSUME: the sides of the probe, not the single classes of the others.
    return (is_target[:, None] != is_target).astype(float)


def agreement(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Kendall's tau-b and Spearman's correlation of two matrices of dissimilarities, over the pairs of images.

    NaN where there is no pair, or the template says the same of all.
    """
    pairs = np.triu_indices(len(found), 1)
    first, second = np.round(found[pairs], 9), expected[pairs]
    if not len(first) or np.ptp(second) == 0:
        return np.nan, np.nan
    # A group of silent units says the same of all pairs, and so nothing.
    if np.ptp(first) == 0:
        return 0.0, 0.0
    return float(stats.kendalltau(first, second).statistic), float(stats.spearmanr(first, second).statistic)
