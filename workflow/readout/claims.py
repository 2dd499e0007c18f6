"""The paper's claims: tests by the registry, each of one contrast over classes or of several at once, and verdicts.

A test holds if every one of its contrasts lies on the claimed side of its bound, by one-sided tests each (an
intersection-union test: p is the largest), and fails if any lies on the wrong side (p is the smallest, times their
number: Holm). Classes are the unit of inference; nothing resamples images within classes on top.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from readout import inference
from readout.estimands import ESTIMANDS, Undefined, reliability
from readout.verdicts import CONFIRMATION, CONTROL, EVERY, FAILS, HOLDS, NONE, OPEN, POOLED

BY_INTERVENTION = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "mismatched_", "others_")
    for name in (
        *("separation_loss", "specific_loss", "use", "rank_deficit", "rank_change", "log_p_change", "log_p_loss"),
        *("d_prime_loss", "criterion_shift", "auroc_loss", "energy"),
    )
)
"""Columns of the layer tables that have one for each intervention."""


@dataclass(frozen=True)
class Outcomes:
    """One network's columns of the layer tables, by name [..., K targets, L layers, S, M].

    `model` is its architecture, `outputs` their number; an untrained network's weights are random. `pseudo` has columns
    of the pseudo-targets [..., P, L', S, M], on the layers that `pseudo_layers` are the indices of. Leading axes are
    worlds of a simulation.
    """

    targets: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    outputs: int
    model: str
    untrained: bool = False
    pseudo: Mapping[str, np.ndarray] = field(default_factory=dict)
    pseudo_layers: tuple[int, ...] = ()

    def of(self, targets: Sequence[str]) -> "Outcomes":
        """The same of some targets alone."""
        if tuple(targets) == self.targets:
            return self
        at = [self.targets.index(target) for target in targets]
        columns = {name: values[..., at, :, :, :] for name, values in self.columns.items()}
        return replace(self, targets=tuple(targets), columns=columns)


@dataclass(frozen=True)
class Contrasts:
    """C contrasts of a test, judged: arrays [..., C]; `null` is NaN where nothing was subtracted.

    Each of the `estimates` is of some of them, in this order. `about` says of each contrast its outcome, its
    intervention, its name and its bounds. `p_holds` and `p_fails` are one-sided, 1 where nothing can be said.
    """

    estimates: tuple[inference.Estimate, ...]
    null: np.ndarray
    p_holds: np.ndarray
    p_fails: np.ndarray
    about: tuple[Mapping, ...]
    reasons: tuple[str, ...] = ()

    @property
    def value(self) -> np.ndarray:
        """The estimates [..., C]."""
        return np.concatenate([estimate.value for estimate in self.estimates], -1)

    @property
    def classes(self) -> np.ndarray:
        """The classes [..., C] from which each contrast was estimated."""
        counts = [np.broadcast_to(e.classes[..., None], e.value.shape) for e in self.estimates]
        return np.concatenate(counts, -1)

    @property
    def fewest(self) -> np.ndarray:
        """The fewest classes [...] of a contrast that has an estimate."""
        return np.where(np.isnan(self.value), np.iinfo(int).max, self.classes).min(-1)

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the intervals [..., C], each by itself."""
        low, high = zip(*(estimate.interval(confidence) for estimate in self.estimates), strict=True)
        return np.concatenate(low, -1), np.concatenate(high, -1)

    @property
    def holds(self) -> np.ndarray:
        """p [...] of the test for what is claimed."""
        return self.p_holds.max(-1)

    @property
    def fails(self) -> np.ndarray:
        """p [...] of the test against it."""
        return np.minimum(1.0, self.p_fails.min(-1) * self.p_fails.shape[-1])


def bounds(rule: Mapping) -> tuple[float | None, float | None]:
    """Between which values a part of a test lets the claim hold; None where it sets no bound on that side."""
    lower, upper = rule.get("between", (rule.get("above"), rule.get("below")))
    return None if lower is None else float(lower), None if upper is None else float(upper)


def rule_text(rule: Mapping) -> str:
    """The rule of a part in words."""
    if "between" in rule:
        return f"within {rule['between'][0]} to {rule['between'][1]}"
    text = f"above {rule['above']}" if "above" in rule else f"below {rule['below']}"
    return text + (f" (does not hold above {rule['fails_above']})" if "fails_above" in rule else "")


def test_text(test: Mapping) -> str:
    """The rules of a test's parts in words, each once."""
    return ", ".join(dict.fromkeys(rule_text(part) for part in test["parts"]))


def _of(part: Mapping) -> list[str]:
    """The columns that a part is taken of."""
    return [part["of"]] if isinstance(part["of"], str) else part["of"]


def _column(columns: Mapping, layers: Sequence[int] | None, intervention: str | None, name: str, half: str = ""):
    """A column by the name that the registry has for it.

    `log_p_loss` is what the log-probability loses, `specific_loss` the separation loss less the mismatched one.
    """
    if name == "specific_loss":
        own, other = (
            _column(columns, layers, intervention, f"{prefix}separation_loss", half) for prefix in ("", "mismatched_")
        )
        return own - other
    sign = 1
    if name == "log_p_loss":
        name, sign = "log_p_change", -1
    # The published columns of the same names are of no intervention of the cross-fitted protocol.
    full = f"{name}_{intervention}{half}" if intervention and name in BY_INTERVENTION else name + half
    if full not in columns:
        raise Undefined(f"the study has no {full}")
    values = sign * columns[full]
    return values if layers is None else values[..., list(layers), :, :]


def _scaled(part: Mapping, outcomes: Outcomes) -> float:
    """What the outcome is divided by: all the ranks that there are to lose, or nothing."""
    return float(outcomes.outputs - 1) if part.get("scale") == "ranks" else 1.0


def _summaries(
    part: Mapping, intervention: str | None, networks: Sequence[Outcomes]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Summaries of the networks' classes, less the mismatched ones' where these are the null; and those of the null."""
    summary, null = ESTIMANDS[part["estimand"]].summary, part.get("null")
    own, of_null = [], []
    for outcomes in networks:
        layers = outcomes.pseudo_layers if null == "pseudo" else None
        read = partial(_column, outcomes.columns, layers, intervention)
        if null == "pseudo":
            if not outcomes.pseudo:
                raise Undefined("the study has no pseudo-targets to compare with (controls.pseudo)")
            of_null.append(summary(partial(_column, outcomes.pseudo, None, intervention), part))
        found = summary(read, part)
        if null == "mismatched":
            of_null.append(summary(read, {**part, "of": f"mismatched_{part['of']}"}))
            found = found - of_null[-1]
        own.append(found / _scaled(part, outcomes))
    return own, [each / _scaled(part, outcomes) for each, outcomes in zip(of_null, networks, strict=bool(of_null))]


def _estimate(
    part: Mapping,
    intervention: str | None,
    networks: Sequence[Outcomes],
    weights: Sequence[float],
    replicates: Sequence[Sequence[int]],
) -> tuple[inference.Estimate, np.ndarray]:
    """The contrasts of a part, less their null where they have one; and the null's estimates [..., C]."""
    estimand = ESTIMANDS[part["estimand"]]
    own, of_null = _summaries(part, intervention, networks)
    estimate, each = inference.jackknife(own, weights, estimand.of_means, estimand.scale)
    null = np.full(estimate.centre.shape, np.nan)
    if part.get("null") == "pseudo":
        # Pseudo-targets of several networks may be of the same images: like classes, they are deleted from all at once.
        fewest = min(summary.shape[-2] for summary in of_null)
        against, each_null = inference.jackknife([s[..., :fewest, :] for s in of_null], weights, estimand.of_means)
        estimate, null, each = inference.above_null(estimate, against), against.value, each - each_null
    elif of_null:
        null = inference.jackknife(of_null, weights, estimand.of_means)[0].value
    if replicates:
        shares = [sum(weights[i] for i in members) for members in replicates]
        estimate = inference.with_replicates(estimate, [each[list(members)] for members in replicates], shares)
    return estimate, null


def _reliable(part: Mapping, intervention: str | None, networks: Sequence[Outcomes]) -> tuple[np.ndarray, str]:
    """Whether every measure of a relation is as reliable as the rule asks for [...], and what was found, in words."""
    found = {}
    for name in part["of"]:
        of_each = []
        for outcomes in networks:
            read = partial(_column, outcomes.columns, None, intervention, name)
            of_each.append(reliability(np.stack([read("_a"), read("_b")])))
        # The least reliable network would otherwise hide behind the others.
        found[name if intervention is None or name not in BY_INTERVENTION else f"{name}_{intervention}"] = np.min(
            of_each, 0
        )
    asked = float(part["reliable"])
    said = " and ".join(f"{value.mean():.2f} of {name}" for name, value in found.items())
    return np.all([value >= asked for value in found.values()], 0), f"reliability {said}, where {asked:g} is needed"


def contrasts(
    test: Mapping,
    networks: Sequence[Outcomes],
    weights: Sequence[float] | None = None,
    replicates: Sequence[Sequence[int]] = (),
) -> Contrasts:
    """All contrasts of a test, of the weighted sum of networks with the same targets; by default, of their mean.

    `replicates` are the networks that are replicates of each other, by index, if their variance is to count. Raises
    `Undefined` where the networks have not what the test needs.
    """
    weights = [1 / len(networks)] * len(networks) if weights is None else weights
    judged, about, reasons = [], [], []
    for part in test["parts"]:
        estimand, of = ESTIMANDS[part["estimand"]], _of(part)
        # What no intervention changes is one contrast, however many interventions there are.
        changed = not BY_INTERVENTION.isdisjoint(of)
        for intervention in test.get("interventions", [None]) if changed else [None]:
            estimate, null = _estimate(part, intervention, networks, weights, replicates)
            lower, upper = bounds(part)
            p_holds, p_fails = [], []
            if lower is not None:
                p_holds.append(estimate.above(lower))
                p_fails.append(estimate.below(lower, or_at=True))
            if upper is not None:
                p_holds.append(estimate.below(upper))
                p_fails.append(estimate.above(float(part.get("fails_above", upper)), or_at=True))
            p_holds, p_fails = np.max(p_holds, 0), np.min(p_fails, 0)
            if "reliable" in part:
                enough, said = _reliable(part, intervention, networks)
                p_holds = np.where(enough[..., None], p_holds, 1.0)
                reasons += [] if enough.all() else [said]
            judged.append(((estimate,), null, *(np.nan_to_num(p, nan=1.0) for p in (p_holds, p_fails))))
            columns = next(iter(networks[0].columns.values()))
            for name in estimand.names(columns.shape[-2:]):
                about.append(
                    {
                        "outcome": " and ".join(of),
                        "intervention": intervention or ("zero" if test["protocol"] == "published" else None),
                        # What tells the contrasts of one outcome and intervention apart.
                        "part": ": ".join(filter(None, [part.get("name"), name])),
                        "lower": lower,
                        "upper": upper,
                    }
                )
    return _joined(judged, about, reasons)


def _joined(judged: Sequence[tuple], about: Sequence[Mapping], reasons: Sequence[str]) -> Contrasts:
    estimates, *arrays = zip(*judged, strict=True)
    return Contrasts(
        tuple(each for some in estimates for each in some),
        *(np.concatenate(each, -1) for each in arrays),
        tuple(about),
        tuple(dict.fromkeys(reasons)),
    )


def of_every(found: Mapping[str, Contrasts]) -> Contrasts:
    """The contrasts of several networks as those of one test; each says of which network it is."""
    judged = [(each.estimates, each.null, each.p_holds, each.p_fails) for each in found.values()]
    about = [
        {**said, "part": f"{name}: {said['part']}".removesuffix(": ")} for name, e in found.items() for said in e.about
    ]
    return _joined(judged, about, [f"{name}: {reason}" for name, each in found.items() for reason in each.reasons])


def verdicts(found: Contrasts, confidence: float) -> np.ndarray:
    """`holds`, `does not hold` or `inconclusive` of each world [...]; each at (1 - confidence) / 2, one-sided."""
    level = (1 - confidence) / 2
    return np.where(found.holds < level, HOLDS, np.where(found.fails < level, FAILS, OPEN))


def _inside(found: Contrasts) -> np.ndarray:
    """Which estimates [..., C] lie where the claim holds."""
    lower, upper = ([said[side] for said in found.about] for side in ("lower", "upper"))
    above = found.value > np.array([-np.inf if bound is None else bound for bound in lower])
    return above & (found.value < np.array([np.inf if bound is None else bound for bound in upper]))


def by_point(found: Contrasts) -> np.ndarray:
    """The verdict of each world [...] by the estimates themselves, as the published protocol has it."""
    unknown = np.isnan(found.value).any(-1)
    return np.where(unknown, OPEN, np.where(_inside(found).all(-1), HOLDS, FAILS))


# ---- rows of the table of claims

NOTHING = "no class has what is to be estimated"
"""The reason of a row without an estimate, for example where no cell decodes well."""


def _number(value: np.ndarray) -> float | None:
    """A number of a study; what could not be computed is missing."""
    return float(value) if np.isfinite(value) else None


def _by_point(found: Contrasts) -> tuple[str, int, str | None]:
    """The verdict of the estimates by themselves, the first contrast that speaks against the claim, and a reason."""
    verdict, unknown = str(by_point(found)), np.isnan(found.value)
    if verdict == OPEN:
        return verdict, int(np.argmax(unknown)), NOTHING
    return verdict, int(np.argmin(_inside(found))), None


def _by_interval(found: Contrasts, confidence: float, least: int | None) -> tuple[str, int, str | None]:
    """The verdict, the contrast that decides it, and the reason where there is none.

    The contrast is the one that speaks most against the claim: of those that fail the clearest, else the least certain.
    """
    verdict, unknown = str(verdicts(found, confidence)), np.isnan(found.value)
    # What cannot be estimated does not save a claim that fails elsewhere.
    if unknown.any() and verdict != FAILS:
        return OPEN, int(np.argmax(unknown)), NOTHING
    at = int(np.argmin(found.p_fails) if verdict == FAILS else np.argmax(found.p_holds))
    if least is None or found.fewest < least:
        return NONE, at, f"simulations bear this test out {f'from {least} classes on' if least else 'nowhere'}"
    return verdict, at, "; ".join(found.reasons) or None if verdict == OPEN else None


def _row(test: Mapping, found: Contrasts, confidence: float) -> dict:
    """One row: the verdict, and the estimate of the contrast that decides it."""
    published = test["role"] == "published"
    if published:
        verdict, at, reason = _by_point(found)
    else:
        verdict, at, reason = _by_interval(found, confidence, test["least_classes"])
    said, (low, high) = found.about[at], found.interval(confidence)
    # Without a verdict a test says nothing, in either direction.
    said_nothing = verdict == NONE or reason == NOTHING
    p_holds, p_fails = (1.0, 1.0) if said_nothing else (float(found.holds), float(found.fails))
    return {
        "estimate": _number(found.value[at]),
        "ci_low": _number(low[at]),
        "ci_high": _number(high[at]),
        "p": None if published or said_nothing else min(1.0, 2 * min(p_holds, p_fails)),
        "verdict": verdict,
        "lower": said["lower"],
        "upper": said["upper"],
        "outcome": said["outcome"],
        "intervention": said["intervention"],
        "part": said["part"] or None,
        "null": _number(found.null[at]),
        "p_holds": None if published else p_holds,
        "p_fails": None if published else p_fails,
        "classes": int(found.classes[at] if reason == NOTHING else found.fewest),
        "reason": reason,
    }


def _undefined(test: Mapping, reason: str) -> dict:
    """A row of which nothing in the study lets an estimate be made: said as missing, never as a zero."""
    lower, upper = bounds(test["parts"][0])
    row = dict.fromkeys(("estimate", "ci_low", "ci_high", "p", "part", "null", "p_holds", "p_fails"))
    return row | {
        "verdict": OPEN,
        "lower": lower,
        "upper": upper,
        "outcome": " and ".join(_of(test["parts"][0])),
        "intervention": "zero" if test["protocol"] == "published" else None,
        "classes": 0,
        "reason": reason,
    }


def _of_kind(names: Sequence[str], networks: Mapping[str, Outcomes]) -> list[list[str]]:
    """The networks of each kind that the registry names: `resnet` is ResNet101 as well as its small relative."""
    kinds = {name: re.sub("^(small|caffe|theano)_", "", outcomes.model) for name, outcomes in networks.items()}
    return [[network for network, kind in kinds.items() if kind.startswith(name)] for name in names]


def _shared(networks: Iterable[Outcomes], settled_on: Sequence[str] = ()) -> list[Outcomes]:
    """The networks with the targets that all of them have, but for those `settled_on`."""
    networks = list(networks)
    targets = [t for t in networks[0].targets if all(t in n.targets for n in networks) and t not in settled_on]
    if not targets:
        raise Undefined("the networks share no target")
    return [outcomes.of(targets) for outcomes in networks]


def pooled(
    test: Mapping, networks: Mapping[str, Outcomes], settled_on: Sequence[str] = ()
) -> tuple[Contrasts, str | None]:
    """The contrasts of a test's row `all`, and a note on what they stand for."""
    if "contrast" in test:
        sides = [_of_kind(side, networks) for side in test["contrast"]]
        missing = [
            name
            for names, side in zip(test["contrast"], sides, strict=True)
            for name, members in zip(names, side, strict=True)
            if not members
        ]
        if missing:
            raise Undefined(f"the study has no trained network of kind {', '.join(missing)}")
        names, weights, groups = [], [], []
        for sign, side in zip((1, -1), sides, strict=True):
            for members in side:
                groups.append(range(len(names), len(names) + len(members)))
                names += members
                weights += [sign / len(side) / len(members)] * len(members)
        single = any(len(group) == 1 for group in groups)
        chosen = _shared((networks[name] for name in names), settled_on)
        found = contrasts(test, chosen, weights, () if single else groups)
        return found, "for these weights only: a kind has one network" if single else None
    if not networks:
        raise Undefined("the study has no trained network")
    if test["pool"] == "every":
        each = {n: contrasts(test, _shared([outcomes], settled_on)) for n, outcomes in networks.items()}
        return of_every(each), None
    return contrasts(test, _shared(networks.values(), settled_on)), None


def _head(claim: Mapping, test: Mapping) -> dict:
    """What all rows of a test have."""
    against = any(part.get("null") == "pseudo" for part in test["parts"])
    method = "jackknife over classes" + (" and over pseudo-targets" if against else "")
    return {
        **{key: claim[key] for key in ("claim", "statement", "section")},
        **{key: test[key] for key in ("measure", "role", "protocol")},
        "rule": test_text(test),
        "test": f"point estimate; {method}" if test["role"] == "published" else method,
    }


def evaluate(
    networks: Mapping[str, Outcomes],
    registry: Sequence[Mapping],
    *,
    confidence: float,
    settled_on: Sequence[str] = (),
) -> list[dict]:
    """Rows of the table of claims in the registry's order: each network's, then the pooled one, then its confirmation.

    `registry` is the list of claims of workflow/claims.yaml, `settled_on` the targets with which its bounds were
    settled: a corrected test's pooled row has one beside it without these. Untrained networks have rows of their own
    and are never pooled.
    """
    trained = {name: outcomes for name, outcomes in networks.items() if not outcomes.untrained}
    pool = list((trained or networks).values())
    shared = [t for t in pool[0].targets if all(t in outcomes.targets for outcomes in pool)]
    confirm = 0 < len(set(shared) - set(settled_on)) < len(shared)
    rows = []
    for claim in registry:
        for test in claim["tests"]:
            head = _head(claim, test)

            def add(name: str, found=None, reason: str = "", targets: str = EVERY, note=None, head=head, test=test):
                row = _undefined(test, reason) if found is None else _row(test, found, confidence)
                rows.append(head | {"network": name, "targets": targets, "note": note} | row)

            named = list(networks)
            if "networks" in test:
                named = [name for kind in _of_kind(test["networks"], networks) for name in kind]
                if not named:
                    add(", ".join(test["networks"]), reason="the study has no such network")
            for name in named if "contrast" not in test else ():
                note = CONTROL if networks[name].untrained else None
                try:
                    add(name, contrasts(test, [networks[name]]), note=note)
                except Undefined as error:
                    add(name, reason=str(error), note=note)
            if "networks" in test:
                continue
            for targets in (EVERY, CONFIRMATION) if confirm and test["role"] == "corrected" else (EVERY,):
                try:
                    found, note = pooled(test, trained, settled_on if targets == CONFIRMATION else ())
                    add(POOLED, found, targets=targets, note=note)
                except Undefined as error:
                    add(POOLED, reason=str(error), targets=targets)
    return _adjusted(rows)


def _adjusted(rows: Sequence[dict]) -> list[dict]:
    """The rows with Holm's p over the claims' corrected pooled rows; one that could not be judged enters with 1."""
    rows = [row | {"p_holds_adjusted": None, "p_fails_adjusted": None} for row in rows]
    for targets in (EVERY, CONFIRMATION):
        family = [r for r in rows if (r["role"], r["network"], r["targets"]) == ("corrected", POOLED, targets)]
        for name in ("p_holds", "p_fails"):
            adjusted = inference.holm([1.0 if row[name] is None else row[name] for row in family])
            for row, p in zip(family, adjusted, strict=True):
                row[f"{name}_adjusted"] = p
    return rows
