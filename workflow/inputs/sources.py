"""Sources: what it takes to open an image, and to run a network on images."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSource:
    """What it takes to open an image as a network wants it.

    `dataset` and `path` name the data set (`datasets.dataset`); `transform` holds the arguments of
    `readout.images.transform`, or is None where torchvision says how to prepare images for its weights.
    """

    dataset: str
    path: str | None
    transform: Mapping | None


@dataclass(frozen=True)
class NetworkSource:
    """What it takes to run a network: its architecture, its outputs, its weights, and the images that it wants.

    `weights` is a file or a name (inputs/weights.py); None where they are yet to be trained. `builder` is a hash of the
    builder's source where the architecture is the user's own.
    """

    model: str
    outputs: int
    weights: str | None
    images: ImageSource
    builder: str | None = None

    @classmethod
    def of(cls, fields: Mapping) -> "NetworkSource":
        """The source from its fields as JSON carries them."""
        return cls(**dict(fields) | {"images": ImageSource(**fields["images"])})
