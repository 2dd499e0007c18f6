"""Squares that are moved over an image: their size, positions and overlap. Knows no image, and needs no torch."""

from collections.abc import Sequence

import numpy as np

from readout import StudyError


def side(width: int, share: float, stride: int) -> int:
    """Pixels a side of the square that hides a `share` of an image's side.

    Rounded, then reduced until the last position ends at the image's border, so that the grid of positions is
    symmetric. StudyError where no square is left.
    """
    pixels = round(share * width)
    while pixels > 0 and (width - pixels) % stride:
        pixels -= 1
    # ASSUME: a square that is smaller than three quarters of what was asked for is another one.
    if not max(1, 0.75 * share * width) <= pixels < width:
        raise StudyError(
            f"occlusion: no square of {share:g} of {width} pixels moves from border to border by steps of {stride}; "
            "choose another side or stride"
        )
    return pixels


def positions(width: int, side: int, stride: int) -> np.ndarray:
    """Top and left of every position of a square inside a square image [positions, 2], row after row."""
    first = np.arange(0, width - side + 1, stride)
    return np.stack(np.meshgrid(first, first, indexing="ij"), -1).reshape(-1, 2)


def covering(width: int, side: int, stride: int) -> np.ndarray:
    """Positions as `positions`, and those at the right and lower borders where the stride misses them."""
    first = np.unique([*range(0, width - side + 1, stride), width - side])
    return np.stack(np.meshgrid(first, first, indexing="ij"), -1).reshape(-1, 2)


def around(centre: Sequence[int], width: int, side: int, reach: int, stride: int) -> np.ndarray:
    """Positions up to `reach` pixels from one, in either direction by `stride`, inside the image [positions, 2]."""
    steps = np.arange(-reach, reach + 1, stride)
    ways = [np.unique(np.clip(at + steps, 0, width - side)) for at in centre]
    return np.stack(np.meshgrid(*ways, indexing="ij"), -1).reshape(-1, 2)


def overlap(first: Sequence[int], second: Sequence[int], side: int) -> float:
    """Intersection over union of two squares, given top and left of each."""
    common = np.prod([max(0, side - abs(int(a) - int(b))) for a, b in zip(first, second, strict=True)])
    return float(common / (2 * side**2 - common))
