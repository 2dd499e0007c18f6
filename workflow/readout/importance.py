"""Measures of importance: for each unit of a layer a number that is to say how much the network needs it for a target.

A measure is a function from what is known of some units (`Known`) to a number for each of them, and `MEASURES` lists
them by name; `workflow/measures.yaml` says of each where it comes from, what it predicts and what it takes. All that a
measure is told comes from the images outside a fold. It looks at each unit by itself, so that a layer can be gone
through in parts, and gives float64 [units]. Units are ranked by it, the highest first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from readout import StudyError
from readout.groups import Group
from readout.logistic import fit_dual
from readout.probes import balanced_log_loss, side_weights

NEIGHBOURS = 3
"""Of the estimate of mutual information, as scikit-learn and Ross (2014) have it."""


@dataclass(frozen=True)
class Contributions:
    """What autograd says of some images at a layer.

    activations: [images, units]; gradients: of the target's log-odds with respect to these [images, units];
    conductance: [images, units], None where no measure asks for it; is_target: bool [images].
    """

    activations: np.ndarray
    gradients: np.ndarray
    is_target: np.ndarray
    conductance: np.ndarray | None = None

    def contrast(self, values: np.ndarray) -> np.ndarray:
        """The mean over the target's images less that over the others', of values [images, units]; float64 [units]."""
        sides = (values[side].mean(0, dtype=np.float64) for side in (self.is_target, ~self.is_target))
        return next(sides) - next(sides)

    def part(self, images: np.ndarray, units: np.ndarray) -> "Contributions":
        """Of some images, bool [images], and some units, which lie next to each other."""

        # A view first: a layer may have millions of units, of which these are neighbours.
        some = slice(units[0], units[-1] + 1)

        def chosen(values: np.ndarray) -> np.ndarray:
            return values[:, some][images]

        conductance = None if self.conductance is None else chosen(self.conductance)
        return Contributions(chosen(self.activations), chosen(self.gradients), self.is_target[images], conductance)


@dataclass(frozen=True)
class Known:
    """What a measure is told of some units of a layer, from the images outside a fold.

    activations: float32 [images, units], is_target: bool [images], of all study images of the target and its others;
    target_mean, others_mean: the grid's means [units]; image_weights: what each image gives the probe of the whole
    layer, float64 [images] (`image_weights`), None without a probe; layer_units: how many units the layer has;
    contributions: of the images that ablations look at, None without gradients.
    """

    activations: np.ndarray
    is_target: np.ndarray
    target_mean: np.ndarray
    others_mean: np.ndarray
    layer_units: int
    image_weights: np.ndarray | None = None
    contributions: Contributions | None = None


def selectivity(known: Known) -> np.ndarray:
    """(t - o) / sqrt(2), of a unit's means over the target's and over the others' images (paper, section 2)."""
    return (known.target_mean - known.others_mean) / np.sqrt(2)


def absolute_selectivity(known: Known) -> np.ndarray:
    """|t - o| / sqrt(2); for two classes the same order as Probeless (Antverg and Belinkov 2022)."""
    return np.abs(selectivity(known))


def magnitude(known: Known) -> np.ndarray:
    """(t + o) / sqrt(2) (paper, section 2)."""
    return (known.target_mean + known.others_mean) / np.sqrt(2)


def d_prime(known: Known) -> np.ndarray:
    """(t - o) / s, with s^2 the mean of the variances within the two sides (Green and Swets 1966)."""
    sides = [known.activations[side].var(0, dtype=np.float64, ddof=1) for side in (known.is_target, ~known.is_target)]
    deviation = np.sqrt(sum(sides) / 2)
    difference = (known.target_mean - known.others_mean).astype(np.float64)
    # ASSUME: a unit that does not vary within the sides, which in practice is a dead one, has a d' of 0.
    return np.divide(difference, deviation, out=np.zeros_like(difference), where=deviation > 0)


def probe_weight(known: Known) -> np.ndarray:
    """|w| s: a unit's weight in the cross-fitted probe of the whole layer, times its deviation (Dalvi et al. 2019)."""
    x = known.activations.astype(np.float64)
    deviation = x.std(0)
    # w = x^T a of the standardised units, which are divided by the square root of their number, too.
    centred = known.image_weights @ (x - x.mean(0))
    standardised = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    return np.abs(standardised) / known.layer_units


def gradient_x_activation(known: Known) -> np.ndarray:
    """Mean of a dz/da over the target's images less that over the others' (Shrikumar et al. 2016).

    To first order it is what the gap, of which the separation loss is a share, loses when the unit puts out zero.
    """
    of = known.contributions
    return of.contrast(of.gradients * of.activations)


def gradient_x_deviation(known: Known) -> np.ndarray:
    """The same of (a - m) dz/da, m being (t + o) / 2 (Nanda 2023): to first order what the gap loses under mean."""
    of = known.contributions
    middle = (known.target_mean + known.others_mean) / 2
    return of.contrast(of.gradients * (of.activations - middle))


def squared_taylor(known: Known) -> np.ndarray:
    """Mean of (a dz/da)^2 (Molchanov et al. 2019), the two sides weighing the same."""
    of = known.contributions
    squares = np.square(of.gradients * of.activations)
    sides = (squares[side].mean(0, dtype=np.float64) for side in (of.is_target, ~of.is_target))
    return sum(sides) / 2


def mutual_information(known: Known) -> np.ndarray:
    """Mutual information of the activation and the side, in nats, by nearest neighbours (Ross 2014; scikit-learn)."""
    from sklearn.feature_selection import mutual_info_classif

    # A tiny noise breaks ties, of which silent units have many. Of one unit at a time it is the same however a layer
    # is gone through.
    told = {"n_neighbors": NEIGHBOURS, "random_state": 0}
    found = [mutual_info_classif(unit[:, None], known.is_target, **told)[0] for unit in known.activations.T]
    return np.array(found)


def conductance(known: Known) -> np.ndarray:
    """Mean conductance over the target's images less that over the others' (Dhamdhere et al. 2019; Captum)."""
    return known.contributions.contrast(known.contributions.conductance)


Measure = Callable[[Known], np.ndarray]
MEASURES: dict[str, Measure] = {
    measure.__name__: measure
    for measure in (
        selectivity,
        absolute_selectivity,
        magnitude,
        d_prime,
        probe_weight,
        gradient_x_activation,
        gradient_x_deviation,
        mutual_information,
        squared_taylor,
        conductance,
    )
}


def separation(target: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The target's log-odds of scores [N, outputs], float64 [N], as a function that can be differentiated."""

    def log_odds(scores: torch.Tensor) -> torch.Tensor:
        scores = scores.double()
        rest = torch.cat([scores[:, :target], scores[:, target + 1 :]], 1)
        return scores[:, target] - rest.logsumexp(1)

    return log_odds


def image_weights(
    gram: torch.Tensor, is_target: np.ndarray, fold: np.ndarray, C: float | Sequence[float]
) -> np.ndarray:
    """What each image gives the cross-fitted probe, float64 [images]: w = sum of image_weights x standardised units.

    gram: of the standardised units of the images that the probe is fitted on (`probes.gram_matrix`); is_target and
    fold: of these [images]. Of a list of C the best is chosen in a cross-validation over their folds, as
    `probes.crossfit` does.
    """
    y = torch.from_numpy(np.where(is_target, 1.0, -1.0))

    def fit(chosen: np.ndarray, C: float) -> tuple[torch.Tensor, torch.Tensor]:
        some = torch.from_numpy(np.flatnonzero(chosen))
        weights = torch.from_numpy(side_weights(chosen, is_target))
        return fit_dual(gram[some][:, some], y[some], C, weights[some])

    def loss(C: float) -> float:
        losses = []
        for k in np.unique(fold):
            inside, a_and_b = fold == k, fit(fold != k, C)
            decisions = gram[torch.from_numpy(inside)][:, torch.from_numpy(~inside)] @ a_and_b[0] + a_and_b[1]
            losses.append(balanced_log_loss(decisions.numpy(), is_target[inside]))
        return float(np.mean(losses))

    candidates = [float(c) for c in C] if isinstance(C, Sequence) else [float(C)]
    best = min(candidates, key=loss) if len(candidates) > 1 else candidates[0]
    return fit(np.ones(len(is_target), bool), best)[0].numpy()


def order(values: np.ndarray) -> np.ndarray:
    """The units of a layer by a measure's values [units], the highest first; of equals the first."""
    return np.argsort(-values, kind="stable")


def top(name: str, ranked: np.ndarray, one_in: int) -> Group:
    """The first units of a ranking [units of the layer], one in so many; StudyError where a layer has not as many."""
    if len(ranked) < one_in:
        raise StudyError(f"a top of one in {one_in} units needs as many, the layer has {len(ranked)}; lower it")
    return Group(name, "ranked", np.sort(ranked[: len(ranked) // one_in]), len(ranked))


def all_but(group: Group) -> Group:
    """A layer's other units, which are replaced where a group is kept alone."""
    rest = np.setdiff1d(np.arange(group.layer_units), group.units)
    return Group(group.name, group.kind, rest, group.layer_units)
