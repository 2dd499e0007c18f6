"""Baselines: choices between the two queries of an occlusion trial that need no references, and how easy a unit looks.

Zimmermann et al. (2021). A baseline measures each query's square on the base image and chooses a query by the two
values alone. Images are [3, H, W] in [0, 1], squares are (top, left) and a side in pixels.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

DIRECTION = {"centre": 1, "variance": -1, "saliency_sr": -1, "class": 1}
"""Whether a baseline chooses the query of the larger (1) or of the smaller (-1) value.

The published ones hide what is farther from the centre, varies less and is less salient; `class` leaves the class that
the network sees in the base image more probable.
"""
ROUNDING = 1e-9
"""Values that differ by less, as a share of the larger one, are equal."""
# ASSUME: luminance by the weights of ITU-R BT.601; the saliency of the paper is another model's.
LUMINANCE = np.array([0.299, 0.587, 0.114])


def centre(at: Sequence[int], side: int, shape: Sequence[int]) -> float:
    """Distance in pixels of a square's centre from that of an image of `shape` (H, W).

    As published: the image's centre lies between pixels that count from 0, (W - 1) / 2, but the square's centre is its
    corner plus half its side, half a pixel too far down and right.
    """
    return float(np.hypot(*(first + side / 2 - (length - 1) / 2 for first, length in zip(at, shape, strict=True))))


def patch(image: np.ndarray, at: Sequence[int], side: int) -> np.ndarray:
    """The part [..., side, side] of an image or map [..., H, W] in a square."""
    return np.asarray(image)[..., at[0] : at[0] + side, at[1] : at[1] + side]


def variance(image: np.ndarray, at: Sequence[int], side: int) -> float:
    """Standard deviation of the hidden pixels of an image [3, H, W], channels pooled: a flat colour is not 0."""
    values = patch(image, at, side).astype(np.float64)
    # From one of them: equal values have no deviation, to the last bit.
    return float((values - values[:1, :1, :1]).std())


def saliency_map(image: np.ndarray) -> np.ndarray:
    """Spectral residual of an image [3, H, W], a map [H, W] (Hou and Zhang 2007).

    The logarithm of the amplitudes of the luminance less its mean over 3 x 3 frequencies, with the phases as they are,
    goes back to the image, is squared, and is smoothed by a Gaussian with a standard deviation of W / 26.
    """
    spectrum = np.fft.fft2(np.tensordot(LUMINANCE, np.asarray(image, np.float64), 1))
    amplitude = np.abs(spectrum)
    floor = ROUNDING * amplitude.max()
    if not floor:
        return np.zeros(amplitude.shape)
    # ASSUME: a frequency without amplitude has no phase and stays out; it counts as the floor in its neighbours' means.
    seen = amplitude > floor
    log = np.log(np.maximum(amplitude, floor))
    residual = log - ndimage.uniform_filter(log, 3, mode="wrap")
    phase = np.divide(spectrum, amplitude, out=np.zeros_like(spectrum), where=seen)
    found = np.abs(np.fft.ifft2(np.exp(residual) * phase)) ** 2
    return ndimage.gaussian_filter(found, amplitude.shape[1] / 26)


def saliency(saliency_map: np.ndarray, at: Sequence[int], side: int) -> float:
    """Mean of a saliency map [H, W] over a square."""
    return float(patch(saliency_map, at, side).mean())


def choose(value_max: np.ndarray, value_min: np.ndarray) -> np.ndarray:
    """Whether the query of the larger value is the max query: 1, 0, or 0.5 where both are equal up to rounding [...].

    value_max, value_min: of the max and the min query [...], times the baseline's `DIRECTION`. The published rule
    counts equal values as wrong.
    """
    a, b = np.asarray(value_max, np.float64), np.asarray(value_min, np.float64)
    equal = np.abs(a - b) <= ROUNDING * np.maximum(np.abs(a), np.abs(b))
    return (np.where(equal, 0, np.sign(a - b)) + 1) / 2


def local_contrast(maps: np.ndarray) -> np.ndarray:
    """Mean over the positions of maps [N, H, W] of the summed absolute differences to the 4 neighbours [N].

    Outside a map is 0 (Zimmermann, Klein and Brendel 2023). As a share of the map's maximum, and 0 where that is not
    above 0.
    """
    maps = np.asarray(maps, np.float64)
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
    # Differences within a row or column count for both neighbours, those to the outside for one.
    down = np.abs(np.diff(padded[:, :, 1:-1], axis=1))
    across = np.abs(np.diff(padded[:, 1:-1], axis=2))
    inside = down[:, 1:-1].sum((1, 2)) + across[:, :, 1:-1].sum((1, 2))
    total = (down.sum((1, 2)) + across.sum((1, 2)) + inside) / maps[0].size
    # ASSUME: of two units that differ by a factor neither is easier.
    most = maps.max((1, 2))
    return np.divide(total, most, out=np.zeros_like(total), where=most > 0)


def sparsity(maps: np.ndarray) -> np.ndarray:
    """Share of the positions of maps [N, H, W] that are 0 or below [N]."""
    return (np.asarray(maps) <= 0).mean((1, 2))
