"""Pictures in tables: PNGs with 8 bits a channel, by names that say what they hold and not what they are for."""

import hashlib
import io
import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from readout import StudyError
from runtime import parquet

STIMULI = pa.schema([("stimulus", pa.string()), ("png", pa.binary())])
"""A row per picture, in the order of the names."""
HASH = re.compile("[0-9a-f]{16}")
"""A name, of a picture or of anything else."""


def digest(content: bytes) -> str:
    """The name of a picture, or of anything else: 16 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def png(image: torch.Tensor) -> bytes:
    """An image [3, H, W] in [0, 1] as a PNG."""
    pixels = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def pixels(content: bytes) -> np.ndarray:
    """The pixels of a PNG, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def fits(content: bytes, width: int) -> bool:
    """Whether these bytes are a picture of so many pixels a side."""
    try:
        return pixels(content).shape == (width, width, 3)
    except (OSError, SyntaxError, ValueError):  # what PIL says of bytes that are no picture
        return False


def stimuli(path_to_stimuli: str, names: Iterable[str]) -> dict[str, bytes]:
    """The PNGs of these names; StudyError for one that is not there, or is not what its name says."""
    table = parquet.read(path_to_stimuli, STIMULI, empty=True)
    found = dict(zip(table["stimulus"].to_pylist(), table["png"].to_pylist(), strict=True))
    chosen = {}
    for name in names:
        if name not in found:
            raise StudyError(f"{path_to_stimuli}: picture {name} is missing; {parquet.again(path_to_stimuli)}")
        if digest(found[name]) != name:
            raise StudyError(
                f"{path_to_stimuli}: picture {name} is another than its name says; {parquet.again(path_to_stimuli)}"
            )
        chosen[name] = found[name]
    return chosen
