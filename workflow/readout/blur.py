"""Blurred references: photographs that are sharp only where a unit looks.

The condition `blur` of Zimmermann et al. (2021): a reference is blurred but for one square window, the one that leaves
the unit's activation highest.
"""

import numpy as np
import torch
from torchvision.transforms import functional

from readout.occluders import Hide, inside

KERNEL, SIGMA = 21 / 224, 3.5 / 224
"""Side of the Gaussian kernel and its standard deviation, as shares of the image's width."""


def kernel(width: int) -> tuple[int, float]:
    """Side of the Gaussian kernel for images of a width, an odd number of pixels, and its standard deviation."""
    # ASSUME: the published 21 and 3.5 pixels at 224, in proportion to the width; 3 and 0.5 at 32.
    return max(3, 2 * round((KERNEL * width - 1) / 2) + 1), SIGMA * width


def blurred(image: torch.Tensor) -> torch.Tensor:
    """An image [C, H, W] blurred as a whole; beyond its borders it is reflected."""
    side, sigma = kernel(image.shape[-1])
    # In float64: the mean of equal pixels is that pixel.
    return functional.gaussian_blur(image.double(), [side, side], [sigma, sigma]).to(image.dtype)


def windows(image: torch.Tensor, at: np.ndarray, side: int) -> torch.Tensor:
    """Copies of an image [C, H, W], blurred but for one square of `side` pixels each [n, C, H, W].

    at: top and left of the squares [n, 2]. The blur is of the whole image, so that near a window it holds what the
    window shows. It commutes with the normalisation of a channel: the image may be in [0, 1] or as the network sees it.
    """
    return opening(image, side)(at)


def opening(image: torch.Tensor, side: int) -> Hide:
    """`windows` of one image, which is blurred once for all positions."""
    soft = blurred(image)
    return lambda at: torch.where(inside(image, at, side), image, soft)
