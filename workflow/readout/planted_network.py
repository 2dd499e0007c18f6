"""The network whose truth is known: its weights, set by hand to give each unit its role (`planted`)."""

import torch
from torch import nn

from readout import StudyError, planted

CLASSES, MEMBERS = planted.CLASSES, planted.MEMBERS
OUTPUTS = len(CLASSES) + 1
# ASSUME: the four roles weigh about the same, a fifth to a quarter of a class's separation each.
WEIGHT = 2.0
"""What a role adds to its class's score where its signal is on (inhibitory: takes away), about."""
EITHER, BOTH, WIDTH = 0.7, 1.5, 0.1
"""Sums of a pair from which it counts: where either suffices (all from `WIDTH` more), and where both are needed.

A signal that is on is .80 to .92, one that is off 0 to .09, and the mean of the two sides .4 to .53. So `EITHER` is
below one unit that is on and above one that is off beside one at its mean; `BOTH` is below two that are on, and above
one that is on beside one at its mean.
"""
SURPLUS = 0.22
"""What two units that are on put out above `BOTH`, about."""
NOISE = 3 / 16
"""Weight of a noise unit in each class's score, in either direction; together .3 of standard deviation."""
# ASSUME: the median constant unit alone costs at zero about what one causal unit costs.
CONSTANTS = 3.0
"""What a causal unit's gate takes in all from the constant units, in shares of 1, 3, 5, ... to 63 of 1024.

Sums of such shares are exact in any order.
"""
THRESHOLD, THRESHOLD_NULL = 4.7, 4.3
"""Score of `none`: below that of a class with all signals of its own on, above it with one of them off."""


class PlantedNetwork(nn.Module):
    """Two dense layers and a way around both, for images [3, 16, 16]; 320 units in `first`, 192 in `second`.

    The score of class c is the sum, each term being a mean over the class's eight units or pairs of the role,

        2 causal + 2 min(1, redundant pair) + 2 ReLU(conjunction pair - BOTH) / SURPLUS - 2 inhibitory + noise.

    In the null network (`null`) nothing but noise is read from the layers; the image itself gives the class's score.
    """

    def __init__(self, outputs: int = OUTPUTS, *, null: bool = False):
        super().__init__()
        if outputs < OUTPUTS:
            raise StudyError(f"outputs: {outputs}, but the planted networks have {OUTPUTS}; leave it out")
        units = planted.units()
        pixels = 3 * planted.SIDE**2
        self.read = nn.Linear(pixels, len(units))
        self.first = nn.ReLU()
        self.gate = nn.Linear(len(units), 6 * MEMBERS * len(CLASSES))
        self.second = nn.ReLU()
        self.score = nn.Linear(self.gate.out_features, outputs)
        self.around = nn.Linear(pixels, outputs, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self._read(units)
            self._gate(units, null)
            if null:
                self._around(units)
            self.score.bias[len(CLASSES)] = THRESHOLD_NULL if null else THRESHOLD

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = x.flatten(1)
        inner = self.second(self.gate(self.first(self.read(pixels))))
        return self.score(inner) + self.around(pixels)

    def _read(self, units: tuple[planted.Planted, ...]) -> None:
        """The first layer: a unit puts out the brightness of its pixel, in red."""
        first_common = len(units) - planted.COMMON * len(planted.OF_NO_CLASS)
        noise = 0
        for i, unit in enumerate(units):
            if unit.class_id is not None:
                self.read.weight[i, i] = 1
            elif unit.role == "constant":
                self.read.bias[i] = 1
            else:
                # The dead read the same pixels as the noise, turned so that no brightness drives them.
                pixel = first_common + noise % planted.COMMON
                noise += 1
                self.read.weight[i, pixel] = 1 if unit.role == "noise" else -1
                self.read.bias[i] = 0 if unit.role == "noise" else -1

    def _gate(self, units: tuple[planted.Planted, ...], null: bool) -> None:
        """The second layer, and what the scores read of it."""
        rows = iter(range(self.gate.out_features))

        def gate(reads: dict[int, float], bias: float, scores: dict[int, float]) -> None:
            row = next(rows)
            for unit, weight in reads.items():
                self.gate.weight[row, unit] = weight
            self.gate.bias[row] = bias
            for output, weight in scores.items():
                self.score.weight[output, row] = weight

        share = 0.0 if null else WEIGHT / MEMBERS
        parts = [(2 * i + 1) * CONSTANTS / planted.COMMON**2 for i in range(planted.COMMON)]
        for output, class_id in enumerate(CLASSES):
            role = planted.roles(class_id, units)
            constant, dead = role["constant"], role["dead"]
            for unit, unused in zip(role["causal"], dead, strict=False):
                # Without the constant units, which put out 1, the gate is shut.
                graded = dict(zip(constant, parts, strict=True))
                gate({unit: 1, unused: 1, **graded}, -sum(parts), {output: share})
            for pair in zip(role["redundant_first"], role["redundant_second"], strict=True):
                # min(1, ...) as the difference of two ReLUs.
                for start, sign in ((EITHER, 1), (EITHER + WIDTH, -1)):
                    gate(dict.fromkeys(pair, 1 / WIDTH), -start / WIDTH, {output: sign * share})
            for pair in zip(role["conjunction_first"], role["conjunction_second"], strict=True):
                gate(dict.fromkeys(pair, 1 / SURPLUS), -BOTH / SURPLUS, {output: share})
            for unit in role["inhibitory"]:
                gate({unit: 1}, 0, {output: -share})
        for i, unit in enumerate(planted.roles(CLASSES[0], units)["noise"]):
            # Walsh functions: as many weights up as down for each class, and no two classes alike.
            signs = [(-1) ** (i >> output & 1) for output in range(len(CLASSES))]
            gate({unit: 1}, 0, {output: sign * NOISE for output, sign in enumerate(signs)})

    def _around(self, units: tuple[planted.Planted, ...]) -> None:
        """The null network's scores, from the pixels: one half of each role of pairs is enough."""
        for output, class_id in enumerate(CLASSES):
            for name in ("causal", "redundant_first", "conjunction_first", "inhibitory"):
                members = torch.from_numpy(planted.roles(class_id, units)[name])
                self.around.weight[output, members] = (-1 if name == "inhibitory" else 1) * WEIGHT / MEMBERS


def planted_null(outputs: int = OUTPUTS) -> nn.Module:
    """The network in which nothing is causal for a class."""
    return PlantedNetwork(outputs, null=True)


BUILDERS = {"planted": PlantedNetwork, "planted_null": planted_null}
