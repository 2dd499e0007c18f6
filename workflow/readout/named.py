"""Names of what a study may choose: the parts of a network, and timm's models; without torch."""

from dataclasses import dataclass

TIMM = "timm:"
"""How the names of timm's models begin."""


@dataclass(frozen=True)
class Named:
    """A name by which a part of a network can be studied.

    `layer` is the non-linearity that it stands for, None for any other node; `block` the block that this is in, if any.
    `node` is the node of the graph, which may have several names; None where it is not known yet.
    """

    name: str
    layer: str | None
    block: str | None
    node: str | None = None
