"""A benchmark of methods: which of them find the units that a network needs, where that is known (`planted`)?

A method is one function from a `Bench`, which is all that can be seen of one target in one world, to a number per unit:
the higher, the more the network needs the unit. `METHODS` lists them. A world is a draw of images (a seed) with one of
the four classes as its target. What a method says is scored by the role of each unit (`scores`), and in the null
network, in which no unit is needed, it is to find none (`found`).

Nothing is cross-fitted here: what a method says is compared with the truth, not with other images.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import sparse, stats

from readout import StudyError, gradients, importance, planted, probes, shapley
from readout.cuts import Cut
from readout.folds import FOLDS
from readout.importance import MEASURES, Contributions, Known
from readout.planted_network import PlantedNetwork

PER_CLASS = 15
"""Images of each class in a world, three in each fold: few, but a causal unit alone costs ten deviations of noise."""
C = 10.0
"""Inverse penalty of the probe, as in the default study."""
STEPS = 20
"""Of conductance, as in a study."""
ORDERS = 4
"""Random orders of Shapley values: two and their reverses, in which either unit of a pair comes first as often."""
COLUMNS = 512
"""Images behind the layer at once, those of all groups together; as many as a processor's cache takes."""

Intervention = Literal["zero", "mean", "erase"]


class _Behind:
    """The network behind its layer. Each gate reads few units, so that sparse matrices are ten times as fast."""

    def __init__(self, network: PlantedNetwork, pixels: torch.Tensor):
        self.gate = sparse.csr_array(network.gate.weight.numpy())
        self.bias = network.gate.bias.numpy()[:, None]
        self.score = sparse.csr_array(network.score.weight.numpy())
        around = network.score.bias + network.around(pixels.flatten(1))
        self.around = np.ascontiguousarray(around.numpy().T)

    def __call__(self, activations: np.ndarray) -> np.ndarray:
        """Scores [outputs, groups, images] of activations [units, groups, images]."""
        units, groups, images = activations.shape
        inner = self.gate @ activations.reshape(units, -1)
        inner += self.bias
        np.maximum(inner, 0, out=inner)
        return (self.score @ inner).reshape(-1, groups, images) + self.around[:, None]


@dataclass(frozen=True)
class Bench:
    """What a method sees of a target in a world: all but the truth, in float64.

    activations: of all units of the layer [images, units]; is_target: bool [images]; fold: 0 to 4 [images]; pixels: the
    images as the network takes them [images, 3, 16, 16]; network: the whole network, whose output `target` is the
    target's score; seed: the world's, for methods that draw.
    """

    activations: np.ndarray
    is_target: np.ndarray
    fold: np.ndarray
    pixels: torch.Tensor
    network: PlantedNetwork
    target: int
    seed: int

    @functools.cached_property
    def known(self) -> Known:
        """What the measures of importance are told, of all images: everything that one of them may need."""
        x, units = self.activations, self.activations.shape[1]
        target_mean, others_mean = self._means
        gram = probes.gram_matrix(x, np.arange(units), np.ones(len(x), bool), units)[0]
        network, score = self.network, importance.separation(self.target)

        def prefix(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            pixels = images.flatten(1)
            return network.first(network.read(pixels)), pixels

        def tail(layer: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
            return network.score(network.second(network.gate(layer))) + network.around(pixels)

        parts = Cut(prefix, tail)
        gradient = gradients.of_scores(tail, prefix(self.pixels), score).numpy()
        conductance = gradients.conductance(parts, self.pixels, score, STEPS).numpy()
        return Known(
            activations=x,
            is_target=self.is_target,
            target_mean=target_mean,
            others_mean=others_mean,
            layer_units=units,
            image_weights=importance.image_weights(gram, self.is_target, self.fold, C),
            contributions=Contributions(x, gradient, self.is_target, conductance),
        )

    @property
    def alone(self) -> np.ndarray:
        """Each unit as a group of its own: bool [units, units], for `loss`."""
        return np.eye(self.activations.shape[1], dtype=bool)

    def loss(self, groups: np.ndarray, intervention: Intervention) -> np.ndarray:
        """The separation loss of each group [groups], where its units are replaced; groups: bool [groups, units].

        The interventions are those of `readout.ablations`, from all images. Nothing is lost without units.
        """
        if intervention not in ("zero", "mean", "erase"):
            raise StudyError(f"no intervention {intervention} in the benchmark; there are zero, mean and erase")
        a = np.ascontiguousarray(self.activations.T)
        target_mean, others_mean = self._means
        middle = (target_mean + others_mean) / 2
        found = np.empty(len(groups))
        count = max(1, COLUMNS // a.shape[1])
        for start in range(0, len(groups), count):
            some = slice(start, start + count)
            members = np.ascontiguousarray(groups[some].T)  # [units, groups]
            if intervention == "erase":
                d = members * (target_mean - others_mean)[:, None]
                squared = np.square(d).sum(0)
                # Units that are equal on both sides hold nothing to erase.
                component = d.T @ (a - middle[:, None]) / np.where(squared > 0, squared, 1)[:, None]
                replaced = a[:, None] - d[..., None] * component
            else:
                value = middle if intervention == "mean" else np.zeros_like(middle)
                replaced = np.repeat(a[:, None], members.shape[1], axis=1)
                replaced[members] = value[np.nonzero(members)[0], None]
            found[some] = 1 - self._gaps(replaced) / self._gap
        return found

    @functools.cached_property
    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        """Each unit's means over the target's and over the others' images."""
        return self.activations[self.is_target].mean(0), self.activations[~self.is_target].mean(0)

    @functools.cached_property
    def _behind(self) -> _Behind:
        return _Behind(self.network, self.pixels)

    @functools.cached_property
    def _gap(self) -> float:
        return float(self._gaps(self.activations.T[:, None])[0])

    def _gaps(self, activations: np.ndarray) -> np.ndarray:
        """The gap between target and others [groups] of activations [units, groups, images]."""
        scores = self._behind(activations)
        exponentials = np.exp(scores - (largest := scores.max(0)))
        z = scores[self.target] - largest - np.log(np.delete(exponentials, self.target, 0).sum(0))
        return z[:, self.is_target].mean(1) - z[:, ~self.is_target].mean(1)


@functools.cache
def _network(null: bool) -> PlantedNetwork:
    return PlantedNetwork(null=null).double().requires_grad_(False)


def world(seed: int, *, null: bool = False) -> tuple[Bench, dict[str, np.ndarray]]:
    """What methods see of the world of a seed, and the truth: the target's role groups (`planted.roles`).

    With `null`, of the network in which nothing is needed. The classes take turns as the target.
    """
    classes, network = (*planted.CLASSES, planted.NONE), _network(null)
    grey = np.stack([planted.pixels(c, i, seed) for c in classes for i in range(PER_CLASS)])
    pixels = torch.from_numpy(grey / 255)[:, None].repeat(1, 3, 1, 1)
    target = seed % len(planted.CLASSES)
    bench = Bench(
        activations=network.first(network.read(pixels.flatten(1))).numpy(),
        is_target=np.repeat(np.arange(len(classes)) == target, PER_CLASS),
        fold=np.tile(np.arange(PER_CLASS) % FOLDS, len(classes)),
        pixels=pixels,
        network=network,
        target=target,
        seed=seed,
    )
    return bench, planted.roles(planted.CLASSES[target], planted.units(null))


# ---- methods


def probe(bench: Bench) -> np.ndarray:
    """How far the AUROC of the unit is from chance, in either direction: a probe of one unit has nothing to fit."""
    return np.abs([probes.auroc(unit, bench.is_target) - 0.5 for unit in bench.activations.T])


def zero(bench: Bench) -> np.ndarray:
    """The separation loss where the unit alone is zero."""
    return bench.loss(bench.alone, "zero")


def mean(bench: Bench) -> np.ndarray:
    """The same where it is at its mean."""
    return bench.loss(bench.alone, "mean")


def erase(bench: Bench) -> np.ndarray:
    """The same by erasing. What a probe reads of a single unit is all that varies, so it is what `mean` is."""
    return bench.loss(bench.alone, "erase")


def keep(bench: Bench) -> np.ndarray:
    """What keeping the unit alone saves of the gap, all others being at their means, against keeping none."""
    everything = np.ones_like(bench.alone[:1])
    return bench.loss(everything, "mean") - bench.loss(~bench.alone, "mean")


def shapley_value(bench: Bench) -> np.ndarray:
    """The unit's Shapley value of the separation loss under mean, by `ORDERS` random orders of all units."""
    shares = shapley.estimate(
        lambda groups: bench.loss(groups, "mean"),
        bench.activations.shape[1],
        permutations=ORDERS,
        error=0.0,
        generator=np.random.default_rng([bench.seed, 1]),
    )
    return shares.value


def random(bench: Bench) -> np.ndarray:
    """Anything: what a method finds that knows nothing."""
    return np.random.default_rng([bench.seed, 0]).random(bench.activations.shape[1])


Method = Callable[[Bench], np.ndarray]


def _of_measure(name: str) -> Method:
    return lambda bench: MEASURES[name](bench.known)


METHODS: dict[str, Method] = {
    "probe": probe,
    "zero": zero,
    "mean": mean,
    "erase": erase,
    "keep": keep,
    **{name: _of_measure(name) for name in MEASURES},
    "shapley": shapley_value,
    "random": random,
}
"""Methods by name; every measure of importance is one."""


# ---- scores

UNUSED = ("decodable", "constant", "noise", "dead")
"""Roles of units that the class does not need."""
IDLE = ("noise", "dead")
"""Roles of units that nothing speaks for: they know no class, and whatever reads them loses nothing without them."""
ALL = "all"
"""All used roles against all unused."""
ROLES = (*planted.USED, *UNUSED, ALL)
"""What a method is scored by: the rows of the benchmark."""
NULL_ROLES = ("decodable", "constant", "noise")
"""What might be found in the null network."""
# ASSUME: 95 % for the three roles together (Bonferroni), so that a world counts once, whichever role is found.
LEVEL = 0.95
DECIMALS = 6
"""Of values as parts of the largest that is compared: what is equal but for rounding is a tie."""


def told(name: str, values: np.ndarray, bench: Bench) -> np.ndarray:
    """What a method says, checked: a finite number for each unit; anything else is a StudyError."""
    values, units = np.asarray(values, float), bench.activations.shape[1]
    if values.shape != (units,):
        raise StudyError(f"{name}: a method gives a number for each unit, [{units}], not {list(values.shape)}")
    if not np.isfinite(values).all():
        raise StudyError(f"{name}: gives {values[~np.isfinite(values)][0]} for a unit; its numbers must be finite")
    return values


def _both(values: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of two groups of units, as parts of the largest, rounded."""
    largest = max(np.abs(values[high]).max(), np.abs(values[low]).max()) or 1.0
    return np.round(values[high] / largest, DECIMALS), np.round(values[low] / largest, DECIMALS)


def _of(truth: Mapping[str, np.ndarray], roles: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([truth[role] for role in roles])


def scores(values: np.ndarray, truth: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The AUROC of values [units] for "the network uses it", by role; ties count one half.

    Of a used role: its units against those of `IDLE`. Of an unused one: the causal units against its own. Of `all`: all
    used against all unused. 1 is right in each, 1/2 says nothing, 0 is wrong.
    """

    def auroc(used: np.ndarray, unused: np.ndarray) -> float:
        high, low = _both(values, used, unused)
        return probes.auroc(np.concatenate([high, low]), np.arange(len(high) + len(low)) < len(high))

    found = {role: auroc(truth[role], _of(truth, IDLE)) for role in planted.USED}
    found |= {role: auroc(truth["causal"], truth[role]) for role in UNUSED}
    return found | {ALL: auroc(_of(truth, planted.USED), _of(truth, UNUSED))}


def interval(high: np.ndarray, low: np.ndarray, confidence: float) -> tuple[float, float]:
    """Lower and upper end of the interval of the probability that one of `high` exceeds one of `low`, ties half.

    Brunner and Munzel (2000), as scipy's `brunnermunzel`: the groups may differ in all but that. The test of Mann and
    Whitney takes them to be alike under the hypothesis; the dead are all equal, which noise is not, and it then finds
    too much. Groups that do not overlap, or are all equal, have an interval of no length.
    """
    n, m = len(high), len(low)
    ranks = stats.rankdata(np.concatenate([high, low]))
    # Which part of the other group each unit exceeds.
    over, under = (ranks[:n] - stats.rankdata(high)) / m, (ranks[n:] - stats.rankdata(low)) / n
    a, b = over.var(ddof=1) / n, under.var(ddof=1) / m
    if a + b == 0:
        return float(over.mean()), float(over.mean())
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(a + b)
    return float(over.mean() - half), float(over.mean() + half)


def found(values: np.ndarray, truth: Mapping[str, np.ndarray]) -> dict[str, bool]:
    """Which roles of the null network the values [units] find: the interval of their AUROC lies above one half.

    Decodable and constant units are compared with those of `IDLE`, noise with the dead.
    """
    confidence = 1 - (1 - LEVEL) / len(NULL_ROLES)
    against = dict.fromkeys(NULL_ROLES, IDLE) | {"noise": ("dead",)}
    return {
        role: interval(*_both(values, truth[role], _of(truth, low)), confidence)[0] > 0.5
        for role, low in against.items()
    }


# ---- what is to be found

Outcome = Literal["found", "blind", "misled"]
BOUNDS: dict[Outcome, tuple[float, float]] = {"found": (0.95, 1.0), "blind": (0.4, 0.6), "misled": (0.0, 0.3)}
"""AUROC of what a method finds, of what it cannot tell, and of what it turns round: useless units before used ones."""
MOST = 0.05
"""Share of null worlds in which a method may find anything."""


def _but(
    *, blind: tuple[str, ...] = (), misled: tuple[str, ...] = (), unsaid: tuple[str, ...] = ()
) -> dict[str, Outcome]:
    """All roles are found but these; nothing is expected of `unsaid` ones, and of `all` where any is not found."""
    outcomes: dict[str, Outcome] = dict.fromkeys(ROLES, "found")
    outcomes |= dict.fromkeys(blind, "blind") | dict.fromkeys(misled, "misled")
    errs = ALL if blind or misled or unsaid else None
    return {role: outcome for role, outcome in outcomes.items() if role not in (*unsaid, errs)}


EXPECTED: dict[str, dict[str, Outcome]] = {
    # What can be read is not what is used.
    "probe": _but(blind=("decodable",)),
    # The other unit of a pair suffices. And zero breaks what needs a constant, which is no class's.
    "zero": _but(blind=("redundant", "constant")),
    "mean": _but(blind=("redundant",)),
    "erase": _but(blind=("redundant",)),
    # One unit of a conjunction alone does nothing.
    "keep": _but(blind=("conjunction",)),
    # Inhibitory units are the most selective for the others.
    "selectivity": _but(blind=("decodable",), misled=("inhibitory",)),
    "absolute_selectivity": _but(blind=("decodable",)),
    # What is always on has the largest magnitude; used units lie between noise and the dead.
    "magnitude": _but(blind=("decodable",), misled=("constant", "noise"), unsaid=planted.USED),
    "d_prime": _but(blind=("decodable",), misled=("inhibitory",)),
    "probe_weight": _but(blind=("decodable",)),
    # A pair that is on is saturated. A gradient takes the gate for linear, and so does not see all that zero breaks.
    "gradient_x_activation": _but(blind=("redundant",), unsaid=("constant",)),
    "gradient_x_deviation": _but(blind=("redundant",)),
    "mutual_information": _but(blind=("decodable",)),
    # A square is never below that of the dead, which the saturated share; noise is above both.
    "squared_taylor": _but(blind=("constant",), misled=("redundant",)),
    "conductance": _but(),
    "shapley": _but(),
    "random": dict.fromkeys(ROLES, "blind"),
}
"""What each method finds of each role. A method or a role that is not here is promised nothing."""
FOUND_IN_NULL = {
    "probe": ("decodable", "noise"),
    "selectivity": ("decodable",),
    "absolute_selectivity": ("decodable", "noise"),
    "magnitude": ("constant", "noise"),
    "d_prime": ("decodable",),
    "probe_weight": ("decodable", "noise"),
    "mutual_information": ("decodable",),
    "squared_taylor": ("noise",),
}
"""What methods find in the null network by what they are: they look at activations alone, or at changes that separate
nothing. The other methods of `EXPECTED` find nothing there, in all but `MOST` of the worlds."""
