"""Images: which of a class are studied and which train, their folds, and their way into a tensor."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from readout.folds import FOLDS


def _order(count: int, class_id: str, seed: int) -> np.ndarray:
    """A random order of a class's images [count]; it depends on the seed and the class alone."""
    entropy = hashlib.sha256(f"{seed}\0{class_id}".encode()).digest()
    return np.random.default_rng(list(entropy)).permutation(count)


def split(
    count: int, study: int, *, class_id: str, split_seed: int, fold_seed: int, set_aside: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Study images, training images and folds of one class with `count` images.

    Returns the indices of the `study` study images (sorted), those of the training images, and a fold (0-4) for each of
    the `count` images, spread evenly over either part. Images are drawn in one order: the first `set_aside` (without
    it, `study`) do not train, and the first of these are studied, so that a smaller study has a part of a larger one's
    images. `split_seed` draws the order, `fold_seed` the folds; shipped weights fix the former, since their networks
    were trained on the others.
    """
    order, place = _order(count, class_id, split_seed), np.empty(count, int)
    place[order] = np.arange(count)
    studied, trains = place < study, place >= max(study, set_aside or 0)
    drawn, fold = _order(count, class_id, fold_seed), np.empty(count, np.int8)
    for part in (studied, trains, ~studied & ~trains):
        fold[drawn[part[drawn]]] = np.arange(part.sum()) % FOLDS
    return np.flatnonzero(studied), np.flatnonzero(trains), fold


class _Resize(transforms.Resize):
    """torchvision's, but for images so thin that scaling the shorter side would fill the memory."""

    def forward(self, img: Image.Image) -> Image.Image:
        shorter, longer = sorted(img.size)
        if isinstance(self.size, int) and self.size**2 * longer > Image.MAX_IMAGE_PIXELS * shorter:
            raise ValueError(
                f"an image of {img.width} x {img.height} pixels is too thin for a shorter side of {self.size}"
            )
        return super().forward(img)


def transform(
    resize: int | Sequence[int] | None,
    crop: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bilinear",
) -> transforms.Compose:
    """From a PIL image in RGB to a float32 tensor [3, H, W], in the steps of torchvision's own presets.

    Resized (`resize` is the shorter side, or height and width), cropped at the centre, scaled to [0, 1], normalised.
    """
    steps = [
        transforms.CenterCrop(crop),
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize(list(mean), list(std)),
    ]
    if resize is not None:
        steps.insert(0, _Resize(resize, interpolation=transforms.InterpolationMode(interpolation)))
    return transforms.Compose(steps)


def pad_digit(pixels: np.ndarray) -> Image.Image:
    """A 28 x 28 digit, 0 to 255 in 784 numbers, as a 32 x 32 image with three equal channels."""
    digit = np.pad(pixels.reshape(28, 28).astype(np.uint8), 2)
    return Image.fromarray(digit).convert("RGB")


def rgb(image: Image.Image) -> Image.Image:
    """An image of any kind in 8-bit RGB, as torchvision's loader has it but for 16-bit grey; transparency is dropped.

    Raises ValueError for pixels whose white is unknown.
    """
    if image.mode.startswith("I;16"):
        # PIL's own conversion shows everything from 255 of 65535 in white.
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, and nothing says which value is white; save it with 8 or 16")
    return image.convert("RGB")
