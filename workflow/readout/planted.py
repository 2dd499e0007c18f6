"""A network whose truth is known: the role of each unit, the images that hold the units' signals, what is to be found.

Each of the classes a, b, c and d has 56 units of its own, and 96 belong to no class. A unit with a signal reads one
pixel. A signal is *on* in nearly all images where it should be and in a few where it should not: in 15 of 16 and in 1
of 32 of the images, drawn for each image, class and role. The two halves of a role of pairs are on together. The
fifth class, `none`, shows no class. `planted_network` has the weights.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

CLASSES = ("a", "b", "c", "d")
"""Classes with units of their own."""
NONE = "none"
"""The class of images that show none of these; its score is the same in all images."""
IMAGES = 100
"""Images of each class."""
SIDE = 16
"""Pixels per side of an image."""
TRANSFORM = {"resize": None, "crop": SIDE, "mean": [0.0] * 3, "std": [1.0] * 3}
"""How the network takes its images: a pixel from 0 to 1."""
LAYER = "first"
"""The layer whose units have roles."""

MEMBERS = 8
"""Units of a class in each role, and in each half of a role of pairs."""
COMMON = 32
"""Units in each role that belongs to no class."""
OF_A_CLASS = (
    ("causal", None),
    ("decodable", None),
    ("redundant", "first"),
    ("redundant", "second"),
    ("conjunction", "first"),
    ("conjunction", "second"),
    ("inhibitory", None),
)
"""Roles of a class's units in the order of the units, and halves."""
OF_NO_CLASS = ("constant", "noise", "dead")
USED = ("causal", "redundant", "conjunction", "inhibitory")
"""Roles of units that a class's score needs. In the null network nothing reads them, so they are `decodable` there."""
MODELS = {"planted": False, "planted_null": True}
"""The two networks as models, and whether nothing is causal."""

ON = 204
"""Least brightness of a signal that is on, at most 30 more; one that is off has 0 to 22."""
# In 256ths. ASSUME: a signal is on in 15 of 16 images where it should be, and in 1 of 32 where it should not.
SHOWN, STRAY = 240, 8


@dataclass(frozen=True)
class Planted:
    """A unit of the layer: its role, the class whose unit it is, its half of the pairs; None where it has none."""

    role: str
    class_id: str | None
    half: str | None


def units(null: bool = False) -> tuple[Planted, ...]:
    """All units of the layer in their order; with `null`, of the network in which no class is read from the layer."""
    found = [Planted(r, c, half) for c in CLASSES for r, half in OF_A_CLASS for _ in range(MEMBERS)]
    found += [Planted(role, None, None) for role in OF_NO_CLASS for _ in range(COMMON)]
    return tuple(Planted("decodable", u.class_id, None) if null and u.role in USED else u for u in found)


def roles(class_id: str, of: Sequence[Planted]) -> dict[str, np.ndarray]:
    """The role groups of a target: ascending units by name, those of the target's own units and of no class's.

    `of` are all units of the layer in their order. A role of pairs is there as a whole (`redundant`) and by its halves
    (`redundant_first`, `redundant_second`).
    """
    found: dict[str, list[int]] = {}
    for i, unit in enumerate(of):
        if unit.class_id in (class_id, None):
            for name in (unit.role, *([f"{unit.role}_{unit.half}"] if unit.half else [])):
                found.setdefault(name, []).append(i)
    return {name: np.array(members) for name, members in found.items()}


@cache
def _signals() -> tuple[list[tuple[str, str]], np.ndarray]:
    """Class and role of each signal, and the number of the signal that each unit with a class has."""
    signals = [(c, role) for c in CLASSES for role in dict(OF_A_CLASS)]
    return signals, np.array([signals.index((u.class_id, u.role)) for u in units() if u.class_id])


def pixels(class_id: str, number: int, seed: int = 0) -> np.ndarray:
    """The image of a class with this number, from 0 to `IMAGES` - 1: grey, uint8 [SIDE, SIDE], row by row.

    Pixel i is the signal of unit i; the last 32 are noise, for the units of that role. All chance is bytes of SHAKE-256
    of the class, the number and the seed, the same on every machine and with every version of numpy. Studies have the
    images of seed 0.
    """
    signals, signal_of = _signals()
    # Without its seed, as the images of studies were drawn before there were others.
    entropy = "\0".join(["planted", class_id, str(number), *([str(seed)] if seed else [])])
    drawn = hashlib.shake_256(entropy.encode()).digest(2 * len(signals) + SIDE**2)
    lots, strengths, own = np.split(np.frombuffer(drawn, np.uint8), [len(signals), 2 * len(signals)])
    should = np.array([(c == class_id) != (role == "inhibitory") for c, role in signals])
    on = lots < np.where(should, SHOWN, STRAY)
    # The strength is the image's, for all units of the role alike; the rest is each unit's own.
    level = np.where(on, ON + strengths % 16, strengths % 8).astype(np.uint8)
    image = own.copy()
    image[: len(signal_of)] = level[signal_of] + own[: len(signal_of)] % 16
    return image.reshape(SIDE, SIDE)


@dataclass(frozen=True)
class Expected:
    """Whether a probe decodes the class from a role group, and whether its ablation is to be found.

    `zero`, `mean`, `erase` and `resample` are by the separation loss under these interventions, `ranks` is by the
    published deficit: zero, ranks of the target's images.
    """

    decodes: bool
    zero: bool
    mean: bool
    erase: bool
    resample: bool
    ranks: bool


_ALL = Expected(decodes=True, zero=True, mean=True, erase=True, resample=True, ranks=True)
_NONE = Expected(decodes=False, zero=False, mean=False, erase=False, resample=False, ranks=False)
_READ_BY_NOTHING = Expected(decodes=True, zero=False, mean=False, erase=False, resample=False, ranks=False)
EXPECTED = {
    "causal": _ALL,
    # All that a probe can read, and nothing that the network does.
    "decodable": _READ_BY_NOTHING,
    "redundant": _ALL,
    # Blind, all but resampling: the other half suffices. A signal brought into an image of the others is enough, too.
    "redundant_first": replace(_READ_BY_NOTHING, resample=True),
    "redundant_second": replace(_READ_BY_NOTHING, resample=True),
    "conjunction": _ALL,
    # Either half costs as much as both: effects do not add up.
    "conjunction_first": _ALL,
    "conjunction_second": _ALL,
    # Blind: ranks of the target's images, in which these units are silent.
    "inhibitory": replace(_ALL, ranks=False),
    # A false alarm of zero alone: the units say nothing of the image, but others need what they put out.
    "constant": replace(_NONE, zero=True, ranks=True),
    "noise": _NONE,
    "dead": _NONE,
}
"""What is to be found of each role group of a target in the network `planted`."""
EXPECTED_NULL = {"decodable": _READ_BY_NOTHING, "constant": _NONE, "noise": _NONE, "dead": _NONE}
"""The same of `planted_null`: nothing, though the class can be decoded."""
