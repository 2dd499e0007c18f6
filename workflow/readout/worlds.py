"""Worlds whose truth is known, for the tests of the claims: how often do their intervals cover it, and do they err?

A world is drawn at the level of the layer tables. Classes differ in how strong all their effects are, in each cell, and
in what a latent variable shares between measures; images add noise, which the two halves of the folds do not share.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from readout import claims
from readout.verdicts import FAILS, HOLDS, OPEN

LAYERS, STRIPS, MAGNITUDES = 4, 4, 4
PSEUDO = 8
"""Pseudo-targets of a network, as in the default study."""
SHARE_A = 0.6
"""Share of the images that are in half a: three folds of five."""
MANY = 4_000
"""Classes from which the truth is computed."""
BATCH = 5_000
"""Classes of all worlds that are drawn at once."""
LEVEL = 0.4
"""Deviation of the logarithm by which all effects of a class are stronger or weaker."""

S, M = np.indices((STRIPS, MAGNITUDES)).astype(float)
LAYER = np.arange(LAYERS, dtype=float)[:, None, None]
CORNER = (S == STRIPS - 1) * (M == MAGNITUDES - 1) * 1.0
NEIGHBOURS = (S >= STRIPS - 2) * (M >= MAGNITUDES - 2) - CORNER


@dataclass(frozen=True)
class Measure:
    """A column: `pattern` [L, S, M] times a class's level, latent variables by weight, and deviations.

    `cell` is the deviation of a class in a cell, `noise` that of the images. A latent variable whose name begins with
    `layer` has one value for a layer, any other one for each cell of it. `varies` False leaves the level out.
    """

    pattern: np.ndarray | float
    cell: float = 0.02
    noise: float = 0.01
    latent: Mapping[str, float] = field(default_factory=dict)
    varies: bool = True

    def of_class(self, latent: Mapping[str, np.ndarray], level: np.ndarray, generator: np.random.Generator):
        """What classes would show without noise of images [..., K, L, S, M]."""
        shape = (*level.shape[:-3], LAYERS, STRIPS, MAGNITUDES)
        own = self.cell * normal(generator, (*level.shape[:-3], 1, STRIPS, MAGNITUDES))
        value = np.broadcast_to(self.pattern * (level if self.varies else 1.0) + own, shape)
        return value + sum(weight * latent[name] for name, weight in self.latent.items())


@dataclass(frozen=True)
class World:
    """Measures of the targets and of the pseudo-targets by column, and those of a class that is different.

    `networks` are models with the factor by which their effects are stronger, `replicates` the networks of each, which
    differ by the deviation `seeds`. `halves` are drawn where a test needs them. `truth` is the
    right verdict where it is not to be computed.
    """

    columns: Mapping[str, Measure]
    pseudo: Mapping[str, Measure] = field(default_factory=dict)
    different: Mapping[str, Measure] = field(default_factory=dict)
    networks: tuple[tuple[str, float], ...] = (("alexnet", 1.0),)
    replicates: int = 1
    seeds: float = 0.0
    halves: bool = False
    truth: str | None = None

    def noisier(self, factor: float) -> "World":
        """The same with more noise of images."""

        def each(measures: Mapping[str, Measure]) -> dict[str, Measure]:
            return {name: replace(measure, noise=factor * measure.noise) for name, measure in measures.items()}

        return replace(self, columns=each(self.columns), pseudo=each(self.pseudo), different=each(self.different))

    def draw(
        self, worlds: int, classes: int, generator: np.random.Generator, different: int = 1
    ) -> dict[str, claims.Outcomes]:
        """The networks' outcomes in so many worlds of so many classes, of which the first are the different ones."""
        level = _levels(generator, (worlds, classes, 1, 1, 1))
        pseudo_level = _levels(generator, (worlds, PSEUDO if classes < MANY else MANY, 1, 1, 1))
        found = {}
        for model, factor in self.networks:
            for seed in range(self.replicates):
                # One number a world: what a training does to all classes alike.
                strength = factor + self.seeds * normal(generator, (worlds, 1, 1, 1, 1))
                columns = _columns(self.columns, generator, level * strength, self.halves)
                if self.different:
                    other = _columns(self.different, generator, level[:, :different] * strength, self.halves)
                    for name, values in other.items():
                        columns[name][:, :different] = values
                pseudo = _columns(self.pseudo, generator, pseudo_level * strength, False)
                targets = tuple(map(str, range(classes)))
                layers = tuple(range(LAYERS))
                # Eleven outputs, so that ten ranks are there to lose.
                found[f"{model}_{seed}"] = claims.Outcomes(targets, columns, 11, model, False, pseudo, layers)
        return found


def _levels(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Levels of classes, lognormal with mean 1."""
    return np.exp(LEVEL * normal(generator, shape).astype(float) - LEVEL**2 / 2)


def _columns(
    measures: Mapping[str, Measure], generator: np.random.Generator, level: np.ndarray, halves: bool
) -> dict[str, np.ndarray]:
    """Columns by name, with `halves` each also of either half of the folds."""
    shape = (*level.shape[:-3], LAYERS, STRIPS, MAGNITUDES)
    latent = {}
    for name in dict.fromkeys(name for measure in measures.values() for name in measure.latent):
        latent[name] = normal(generator, (*shape[:-2], 1, 1) if name.startswith("layer") else shape)
    found = {}
    for name, measure in measures.items():
        true = measure.of_class(latent, level, generator)
        if not halves:
            found[name] = true + measure.noise * normal(generator, shape)
            continue
        first, second = (
            true + measure.noise / np.sqrt(share) * normal(generator, shape) for share in (SHARE_A, 1 - SHARE_A)
        )
        found |= {name: SHARE_A * first + (1 - SHARE_A) * second, f"{name}_a": first, f"{name}_b": second}
    return found


def normal(generator: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Standard normal numbers; with seven digits they are drawn in half the time."""
    return generator.standard_normal(shape, dtype=np.float32)


# ---- the worlds of each claim


def _each(name: str, measure: Measure, interventions: Sequence[str] = ("zero", "mean", "erase")) -> dict[str, Measure]:
    """A measure under several interventions."""
    return {f"{name}_{intervention}": measure for intervention in interventions}


def _reading(strips: Sequence[float], null: Sequence[float] = (0.5,) * STRIPS) -> World:
    """Claim 1: AUROC by strip, of targets and of pseudo-targets."""
    measure = Measure(np.array(strips)[:, None] * np.ones(MAGNITUDES), 0.03, 0.01, varies=False)
    against = Measure(np.array(null)[:, None] * np.ones(MAGNITUDES), 0.03, 0.03, varies=False)
    return World({"auroc": measure, "score_published": measure}, {"auroc": against})


def _growing(reading: float, effect: float) -> World:
    """Claim 2: slopes of AUROC and of effects with depth."""
    auroc = Measure(0.7 + reading * LAYER + 0.05 * S, 0.03, 0.01, {"layer reading": 0.03}, varies=False)
    loss = Measure(0.1 + effect * LAYER + 0.2 * CORNER, 0.03, 0.01, {"layer loss": 0.03})
    return World(
        {"auroc_fixed": auroc, "score_published": auroc, "rank_deficit": loss, **_each("separation_loss", loss)}
    )


def _step(pattern: np.ndarray, mismatched: np.ndarray | float = 0.02) -> World:
    """Claim 3: a pattern of effects; the mismatched ones are near nothing, as are the pseudo-targets'."""
    loss, nothing = Measure(pattern), Measure(mismatched)
    columns = {"rank_deficit": loss, **_each("separation_loss", loss), **_each("mismatched_separation_loss", nothing)}
    return World(columns | _each("rank_change", loss), _each("rank_change", nothing))


def _sparing(loss: float, use: float, ranks: float, reading: float = 0.88) -> World:
    """Claim 4: what cells lose that are read with an AUROC about `reading`; ranks as a share of those to lose."""
    auroc = Measure(reading, 0.05, 0.02, {"reading": 0.03}, varies=False)
    score = Measure(reading - 0.35, 0.05, 0.02, {"reading": 0.03}, varies=False)
    change = Measure(10 * ranks, 0.02, 0.01)
    columns = {"auroc": auroc, "score_published": score, "rank_deficit": change}
    columns |= _each("separation_loss", Measure(loss, 0.01, 0.01)) | _each("use", Measure(use, 0.005, 0.005))
    columns |= _each("rank_change", change) | _each("others_rank_change", change)
    return World(columns, halves=True)


def _peaking(common: np.ndarray | float, own: float, noise: float = 0.05) -> World:
    """Claim 5: layers that are the same for all classes, and a deviation of each class's own.

    Peaks of two classes cannot agree more than those of one class: where no class has its own, the claim is wrong.
    """
    loss = Measure(0.2 + 0.3 * CORNER + common, 0.0, noise, {"layer": own})
    columns = {"rank_deficit": loss, **_each("separation_loss", loss)}
    return World(columns, halves=True, truth=None if own else FAILS)


def _concentrated(first: float, second: float, replicates: int = 1, corner: float = 0.4) -> World:
    """Claim 6: how strong effects are in two kinds of network and in two others, and those of s3m3 among them."""
    loss = Measure(0.02 + corner * CORNER)
    networks = [("alexnet", first), ("vgg16", first), ("mobilenet_v2", second), ("resnet", second)]
    columns = {"rank_deficit": loss, **_each("separation_loss", loss)}
    return World(columns, {}, {}, tuple(networks), replicates, 0.15 if replicates > 1 else 0.0)


def _related(correlation: float, use: float | None = None, noise: float = 0.02, excess: float = 0.0) -> World:
    """Claim 7: AUROC with a correlation, over cells, with separation loss and with use; energy is by itself.

    `excess` is what erasing takes beyond random directions.
    """
    columns = {"auroc": Measure(0.75, 0.0, noise, {"one": 0.1}, varies=False)}
    columns["score_published"] = columns["auroc"]

    def effect(of: float, name: str) -> Measure:
        return Measure(0.1, 0.0, noise, {"one": 0.1 * of, name: 0.1 * float(np.sqrt(1 - of**2))}, varies=False)

    columns |= {"rank_deficit": effect(correlation, "other"), **_each("separation_loss", effect(correlation, "other"))}
    columns |= _each("use", effect(correlation if use is None else use, "third"))
    columns |= _each("energy", Measure(0.1, 0.0, noise, {"energy": 0.1}, varies=False))
    columns |= _each("mismatched_separation_loss", Measure(0.0, 0.0, noise))
    columns["separation_loss_erase_less_directions"] = Measure(excess, 0.01, noise)
    return World(columns, halves=True)


def _acting(pattern: np.ndarray, null: np.ndarray, mismatched: np.ndarray) -> World:
    """Claim 8: patterns of effects of targets, of pseudo-targets, and mismatched."""
    loss, gain = Measure(pattern), Measure(-pattern)
    columns = {"rank_deficit": loss, **_each("log_p_change", gain), **_each("separation_loss", loss)}
    columns |= _each("mismatched_separation_loss", Measure(mismatched))
    return World(columns, _each("log_p_change", Measure(-null)))


def _with(world: World, other: World) -> World:
    """The same with one class of another world."""
    return replace(world, different=other.columns)


ADDITIVE = 0.02 * S + 0.04 * M
FLAT = 0.05 + 0.0 * S
PEAK = 0.03 + 0.4 * CORNER + 0.06 * NEIGHBOURS
TOGETHER = ADDITIVE + 0.012 * (S - 1.5) * (M - 1.5)


def rank(correlation: float) -> float:
    """The correlation of normal variables whose rank correlation this is."""
    return float(2 * np.sin(np.pi * correlation / 6))


WORLDS: dict[int, dict[str, World]] = {
    1: {
        "effect": _reading([0.9, 0.7, 0.7, 0.9]),
        "none": _reading([0.8, 0.8, 0.8, 0.8]),
        "at the bound": _reading([0.9, 0.7, 0.7, 0.7]),
        "as in pseudo-targets": _reading([0.9, 0.7, 0.7, 0.9], [0.7, 0.5, 0.5, 0.7]),
        "additive": _reading([0.6, 0.7, 0.8, 0.9]),
        "noisy": _reading([0.9, 0.7, 0.7, 0.9]).noisier(10),
        "one class different": _with(_reading([0.9, 0.7, 0.7, 0.9]), _reading([0.7, 0.9, 0.9, 0.7])),
    },
    2: {
        "effect": _growing(0.03, 0.03),
        "none": _growing(0.0, 0.0),
        "at the bound": _growing(0.03, 0.0),
        "noisy": _growing(0.03, 0.03).noisier(10),
        "one class different": _with(_growing(0.03, 0.03), _growing(-0.03, -0.03)),
    },
    3: {
        "effect": _step(PEAK),
        "none": _step(FLAT),
        "at the bound": _step(0.03 + 0.4 * CORNER + 0.185 * NEIGHBOURS * (S == 3)),
        "additive": _step(ADDITIVE),
        "noisy": _step(PEAK).noisier(20),
        "one class different": _with(_step(PEAK), _step(FLAT)),
    },
    4: {
        "effect": _sparing(0.0, 0.02, 0.0),
        "none": _sparing(0.3, 0.3, 0.1),
        "at the bound": _sparing(0.05, 0.02, 0.0),
        "noisy": _sparing(0.0, 0.02, 0.0).noisier(10),
        "few cells decode well": _sparing(0.0, 0.02, 0.0, 0.75),
        "one class different": _with(_sparing(0.0, 0.02, 0.0), _sparing(0.3, 0.3, 0.1)),
    },
    5: {
        "effect": _peaking(0.0, 0.3),
        "weaker effect": _peaking(0.2 * (LAYER == 1), 0.15),
        "none": _peaking(0.1 * (LAYER == 1), 0.0),
        "at the bound": _peaking(0.0, 0.0),
        "noisy": _peaking(0.0, 0.3).noisier(10),
        "one class different": _with(_peaking(0.3 * (LAYER == 1), 0.05), _peaking(0.3 * (LAYER == 2), 0.05)),
    },
    6: {
        "effect": _concentrated(1.5, 0.7),
        "none": _concentrated(0.7, 1.5),
        "at the bound": _concentrated(1.0, 1.0),
        "noisy": _concentrated(1.5, 0.7).noisier(20),
        "one class different": _with(_concentrated(1.5, 0.7), _concentrated(1.5, 0.7, corner=0.0)),
        "effect, three seeds": _concentrated(1.5, 0.7, 3),
        "at the bound, three seeds": _concentrated(1.0, 1.0, 3),
    },
    7: {
        "effect": _related(rank(0.1)),
        "none": _related(rank(0.78), excess=0.15),
        "at the bound": _related(rank(0.5), 0.0, 0.05, 0.05),
        "noisy": _related(rank(0.78), None, 0.1, 0.15),
        "one class different": _with(_related(rank(0.1)), _related(rank(0.9), excess=0.15)),
    },
    8: {
        "effect": _acting(TOGETHER, ADDITIVE, ADDITIVE),
        "none": _acting(FLAT, FLAT, FLAT),
        "additive": _acting(2 * ADDITIVE, ADDITIVE, ADDITIVE),
        "at the bound": _acting(TOGETHER, TOGETHER, ADDITIVE),
        "as in other classes": _acting(TOGETHER, ADDITIVE, TOGETHER),
        "noisy": _acting(TOGETHER, ADDITIVE, ADDITIVE).noisier(10),
        "one class different": _with(_acting(TOGETHER, ADDITIVE, ADDITIVE), _acting(-TOGETHER, ADDITIVE, ADDITIVE)),
    },
}


# ---- what the tests say there


@dataclass(frozen=True)
class Entry:
    """A test in a world with K classes: what is true there, and shares of the worlds drawn.

    `truth` is a verdict, at the bound `inconclusive`; `coverage` is that of the contrast that is covered least, `wrong`
    the share of wrong verdicts (at the bound, of the more frequent of both), `right` that of right ones.
    """

    claim: int
    role: str
    measure: str
    world: str
    classes: int
    truth: str
    coverage: float
    wrong: float
    right: float


def _judged(test: Mapping, networks: Mapping[str, claims.Outcomes]) -> claims.Contrasts:
    """A test in a batch of worlds: its contrast between kinds, or what it says of the network that it is of."""
    if "contrast" in test:
        return claims.pooled(test, networks)[0]
    return claims.contrasts(test, [o for o in networks.values() if o.model in test.get("networks", [o.model])])


def _said(test: Mapping, found: claims.Contrasts, confidence: float) -> np.ndarray:
    return claims.by_point(found) if test["role"] == "published" else claims.verdicts(found, confidence)


def truth(tests: Sequence[Mapping], world: World, classes: int, seed: int) -> tuple[list[str], list[np.ndarray]]:
    """What is true of tests in a world, noise of images left out, and what their contrasts [C] estimate, with it.

    Of a world with a different class it is what is true of K `classes` with one such.
    """
    certain, different = replace(world, seeds=0.0, replicates=1), MANY // classes
    silent = certain.noisier(0.0).draw(1, MANY, np.random.default_rng([seed, 0]), different)
    loud = certain.draw(1, MANY, np.random.default_rng([seed, 1]), different)
    # So many classes leave nothing open but what lies at the bound.
    verdicts = [world.truth or str(claims.verdicts(_judged(test, silent), 0.9999)[0]) for test in tests]
    return verdicts, [_judged(test, loud).value[0] for test in tests]


def simulate(
    registry: Sequence[Mapping], *, classes: Sequence[int], worlds: int, confidence: float, seed: int
) -> Iterator[Entry]:
    """Every test of the registry in every world of its claim, with each number of classes."""
    for claim in registry:
        for name, world in WORLDS[claim["claim"]].items():
            known = None
            for count in classes:
                if known is None or world.different:
                    known = truth(claim["tests"], world, count, seed)
                drawn = _drawn(claim["tests"], world, count, worlds, confidence, [seed, claim["claim"], count])
                for test, right, expected, (verdicts, value, low, high) in zip(
                    claim["tests"], *known, drawn, strict=True
                ):
                    yield Entry(
                        claim["claim"],
                        test["role"],
                        test["measure"],
                        name,
                        count,
                        right,
                        # What is fixed to one class of K is no draw from many: its expectation is the worlds' mean.
                        _coverage(low, high, np.nanmean(value, 0) if world.different else expected),
                        _wrong(verdicts, right),
                        float(np.mean(verdicts == right)) if right != OPEN else float("nan"),
                    )


def _drawn(
    tests: Sequence[Mapping], world: World, classes: int, worlds: int, confidence: float, seed: Sequence[int]
) -> list[list[np.ndarray]]:
    """Of each test in so many worlds: verdicts [worlds], estimates and both ends of intervals [worlds, C]."""
    batch, said = max(1, BATCH // classes), [[] for _ in tests]
    for first in range(0, worlds, batch):
        networks = world.draw(min(batch, worlds - first), classes, np.random.default_rng([*seed, first]))
        for found, test in zip(said, tests, strict=True):
            judged = _judged(test, networks)
            found.append((_said(test, judged, confidence), judged.value, *judged.interval(confidence)))
    return [[np.concatenate(each) for each in zip(*found, strict=True)] for found in said]


def _coverage(low: np.ndarray, high: np.ndarray, expected: np.ndarray) -> float:
    """Of the contrast that is covered least, among the worlds in which it has an interval."""
    known = ~np.isnan(low)
    covered = ((low <= expected) & (expected <= high) & known).sum(0)
    counted = known.sum(0)
    shares = np.divide(covered, counted, out=np.ones(counted.shape), where=counted > 0)
    return float(shares.min())


def _wrong(verdicts: np.ndarray, right: str) -> float:
    shares = {verdict: float(np.mean(verdicts == verdict)) for verdict in (HOLDS, FAILS)}
    return max(share for verdict, share in shares.items() if verdict != right)
