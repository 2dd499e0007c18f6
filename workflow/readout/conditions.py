"""Conditions of the occlusion task: which pictures explain a unit beside the image whose queries are judged."""

from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

Condition = Literal["none", "natural", "synthetic", "mixed", "blur"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
NONE: Condition = "none"
"""The condition without references."""
PLAIN, SYNTHETIC = ("natural", "mixed"), ("synthetic", "mixed")
"""Conditions with photographs as they are among their references, and with feature visualisations."""
MIXED = 4
"""Feature visualisations among the references of `mixed`; as published, of a batch of their own."""

Picture = TypeVar("Picture")


def references(
    condition: Condition,
    *,
    natural: Sequence[Picture],
    blurred: Sequence[Picture] = (),
    synthetic: Sequence[Picture] = (),
    mixed: Sequence[Picture] = (),
) -> list[Picture]:
    """The references that are shown in a condition.

    `natural` are the photographs of an image set, the weakest bin first, and `blurred` the same, sharp in one square;
    `synthetic` and `mixed` are feature visualisations of the two batches. In `mixed` the photographs of the strongest
    bins are shown, so many that there are as many references as in `natural`, and before the visualisations.
    """
    if condition == NONE:
        return []
    if condition == "mixed":
        return [*natural[len(mixed) :], *mixed]
    return list({"natural": natural, "blur": blurred, "synthetic": synthetic}[condition])
