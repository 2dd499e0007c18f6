"""Machine observers: similarities by hand, worlds whose answer is known, and the step on tables of its own."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import expit
from skimage.metrics import structural_similarity
from torch import nn
from torch.nn import functional as F

from inputs.sources import ImageSource, NetworkSource
from jobs import image_sets, legibility, pictures, trials
from jobs import observers as job
from readout import StudyError, baselines, models, observers, occluders
from readout.observers import HAND, SSIM, Gallery, Similarity, Trial
from runtime import parquet

# ---- similarities


def flat(red, green, blue, side=8):
    """A picture of one colour."""
    return np.broadcast_to(np.array([red, green, blue], np.uint8)[:, None, None], (3, side, side))


def grey(values):
    """A picture [3, H, W] from grey levels [H, W]."""
    return np.repeat(np.array(values, np.uint8)[None], 3, 0)


def test_cosine_by_hand():
    a, b = [[3, 4], [0, 0]], [[4, 3], [-3, -4], [0, 2]]
    assert observers.cosine(np.array(a), np.array(b)) == pytest.approx(np.array([[0.96, -1, 0.8], [0, 0, 0]]))


def test_hand_features_of_flat_pictures_by_hand():
    """No edges; mean colours in 16 cells alike; one bin a colour holds all pixels."""
    found = observers.hand(np.stack([flat(255, 0, 0), flat(0, 0, 0)]))
    assert found.shape == (2, 128 + 48 + 24)
    edges, means, counts = np.split(found, [128, 176], axis=1)
    assert not edges.any()
    assert means[0] == pytest.approx([0.25] * 16 + [0] * 32)
    assert not means[1].any(), "black has no colours"
    bins = np.zeros((2, 3, 8))
    bins[0, 0, 7] = bins[0, 1:, 0] = bins[1, :, 0] = 3**-0.5
    assert counts == pytest.approx(bins.reshape(2, 24))


def test_hand_features_know_where_colours_are_and_which_way_edges_run():
    """A bright quarter is in the first cells; bars along the rows have another orientation than bars along columns."""
    quarter = np.zeros((8, 8))
    quarter[:4, :4] = 200
    means = observers.hand(grey(quarter)[None])[0, 128:176].reshape(3, 4, 4)
    assert (means[:, :2, :2] > 0).all()
    assert means.sum() == pytest.approx(means[:, :2, :2].sum())
    bars = np.where(np.arange(16) // 2 % 2, 255, 0)
    both = observers.hand(np.stack([grey(np.tile(bars, (16, 1))), grey(np.tile(bars, (16, 1)).T)]))[:, :128]
    assert np.linalg.norm(both, axis=1) == pytest.approx([1, 1])
    assert observers.cosine(both, both) == pytest.approx(np.eye(2), abs=1e-9)


@pytest.mark.parametrize("side", [5, 7, 13, 14, 32, 90])
def test_hand_features_of_any_side(side):
    """Each block has length 1, whatever the side."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, side, side), np.uint8)
    for block in np.split(observers.hand(pictures), [128, 176], axis=1):
        assert np.linalg.norm(block, axis=1) == pytest.approx([1, 1], abs=1e-6)


@pytest.mark.parametrize("side", [5, 6, 13, 32])
def test_structural_similarity_is_that_of_scikit_image(side):
    """All pairs at once, to the last digits; identical pictures have 1."""
    generator = np.random.default_rng(0)
    a, b = (generator.integers(0, 256, (n, 3, side, side), np.uint8) for n in (2, 3))
    b[0], b[1] = a[0], a[1] // 2
    window = min(7, side - 1 + side % 2)

    def reference(x, y):
        x, y = (each.transpose(1, 2, 0) for each in (x, y))
        return structural_similarity(x, y, win_size=window, channel_axis=-1, data_range=255)

    found = observers.ssim(a, b)
    assert found == pytest.approx(np.array([[reference(x, y) for y in b] for x in a]), abs=1e-12)
    assert found[0, 0] == pytest.approx(1)


def test_large_pictures_are_reduced_before_structure_is_compared():
    """Twice the side with each pixel four times is the same picture; small ones stay as they are."""
    small = np.random.default_rng(0).integers(0, 256, (1, 3, 20, 20), np.uint8)
    assert np.array_equal(observers.reduced(small), small)
    large = observers.reduced(small.repeat(8, 2).repeat(8, 3))
    assert large.shape == (1, 3, 32, 32)
    assert large.dtype == np.uint8


@pytest.mark.parametrize("side", [1, 2])
def test_the_smallest_pictures_have_a_similarity(side):
    pictures = np.stack([flat(9, 9, 9, side), flat(200, 200, 200, side)])
    found = observers.ssim(pictures, pictures)
    assert np.diag(found) == pytest.approx([1, 1])
    assert found[0, 1] < 0.2


def test_features_of_a_network_are_means_over_space_of_what_it_sees():
    """Identity network, mean .5 and deviation .25: grey 255 is 2 and grey 0 is -2, at the network's size."""
    seen = []

    class Identity(nn.Module):
        def forward(self, x):
            seen.append(x.shape)
            return x

    similarity = observers.of_network(
        "identity", Identity(), size=16, mean=[0.5] * 3, std=[0.25] * 3, device=torch.device("cpu")
    )
    found = similarity.features(np.stack([flat(255, 0, 0), flat(0, 255, 255)]))
    assert seen == [(2, 3, 16, 16)]
    assert found == pytest.approx(np.array([[2, -2, -2], [-2, 2, 2]]))
    assert similarity.compare(found, found) == pytest.approx(np.array([[1, -1], [-1, 1]]))
    dense = observers.of_network("x", nn.Flatten(), size=2, mean=[0] * 3, std=[1] * 3, device=torch.device("cpu"))
    assert dense.features(flat(255, 0, 0, 2)[None]).shape == (1, 12)


# ---- windows and pictures


def test_windows_by_half_the_side_and_at_the_border():
    """Side 13 of 32: by 6 from 0, and the last one ends at the border."""
    found = observers.windows(32, 13)
    assert len(found) == 25
    assert sorted({int(top) for top, _ in found}) == [0, 6, 12, 18, 19]
    assert found[1].tolist() == [0, 6]
    assert observers.windows(13, 13).tolist() == [[0, 0]]
    assert observers.windows(3, 1).tolist() == [[i, j] for i in range(3) for j in range(3)]
    # 0, 45, 90 and the border: as in images of 224.
    assert len(observers.windows(224, 90)) == 16


def test_features_are_computed_once():
    calls = []

    def features(pictures):
        calls.append(len(pictures))
        return pictures.reshape(len(pictures), -1).astype(float)

    pictures = {"a": grey(np.arange(16).reshape(4, 4)), "b": grey(np.zeros((4, 4)))}
    gallery = Gallery(Similarity("x", features, observers.cosine), pictures)
    for _ in range(2):
        assert gallery.whole(["a", "b", "a"]).shape == (3, 48)
        assert gallery.windows("a", 2).shape == (9, 12)
        assert gallery.patches("b", [(0, 0), (1, 2), (2, 2)], 2).shape == (3, 12)
    # Two pictures, nine windows, and one patch: all of b are alike.
    assert calls == [1, 1, 9, 1]
    assert np.array_equal(gallery.windows("a", 2)[1, :4], [1, 2, 5, 6])
    assert np.array_equal(gallery.patches("a", [(1, 2)], 2)[0, :4], [6, 7, 10, 11])


# ---- evidence, by hand


BRIGHTNESS = Similarity(
    "brightness", lambda x: x.mean((1, 2, 3), keepdims=True)[..., 0, 0], lambda a, b: -np.abs(a - b.T)
)
"""Pictures are alike as far as their mean grey levels are near."""


def quarters(*levels):
    """A picture [3, 4, 4] of four flat quarters, row after row."""
    return grey(np.array(levels).reshape(2, 2).repeat(2, 0).repeat(2, 1))


TOY = {
    "base": quarters(80, 0, 40, 0),
    "max": quarters(80, 0, 20, 0),
    "min": quarters(10, 0, 40, 0),
    "r1": quarters(100, 100, 60, 60),
    "r2": quarters(60, 0, 0, 0),
    "o1": quarters(0, 0, 0, 0),
}
SHOWN = Trial("u", "base", "max", "min", max_at=(2, 0), min_at=(0, 0), side=2, references=("r1", "r2"), others=("o1",))


def exchanged(trial):
    """The trial whose queries have changed names."""
    return replace(trial, max=trial.min, min=trial.max, max_at=trial.min_at, min_at=trial.max_at)


def test_whole_by_hand():
    """Means 25 and 12.5 against 80 and 15: -(55 + 10) / 2 less -(67.5 + 2.5) / 2."""
    found = observers.preference("whole", Gallery(BRIGHTNESS, TOY), SHOWN, SHOWN.references)
    assert found == pytest.approx(-32.5 + 35)


def test_patch_by_hand():
    """The min query hides 80, which is like r1's windows at the middle and like r2's 60; the max query hides 40.

    Windows have a step of 1: those of r1 are 100, 80 and 60, those of r2 from 60 by 30 and 15 to 0. So 80 has
    0 and -20, and 40 has -20 and -10.
    """
    gallery = Gallery(BRIGHTNESS, TOY)
    assert observers.preference("patch", gallery, SHOWN, SHOWN.references) == pytest.approx(-10 + 15)
    # All windows of the other unit's reference are black: -80 against -40.
    assert observers.preference("patch", gallery, SHOWN, SHOWN.others) == pytest.approx(-80 + 40)


@pytest.mark.parametrize("kind", observers.KINDS)
@pytest.mark.parametrize("similarity", [BRIGHTNESS, HAND, SSIM], ids=lambda similarity: similarity.name)
def test_exchanged_queries_exchange_the_evidence(kind, similarity):
    """p becomes 1 - p, and correct 1 - correct."""
    gallery = Gallery(similarity, TOY)
    one, other = (observers.preference(kind, gallery, each, SHOWN.references) for each in (SHOWN, exchanged(SHOWN)))
    assert one != 0
    assert other == -one
    assert observers.probability(other, 0.3) == pytest.approx(1 - observers.probability(one, 0.3), abs=1e-15)
    assert observers.correct(other) == 1 - observers.correct(one)


@pytest.mark.parametrize("kind", observers.KINDS)
def test_equal_queries_are_a_tie(kind):
    """Both hide the same black corner pixels, and are the same picture: half right, p = 1/2."""
    gallery = Gallery(HAND, TOY)
    trial = replace(SHOWN, max="min", max_at=(0, 2), min_at=(2, 2))
    found = observers.preference(kind, gallery, trial, SHOWN.references)
    assert found == 0
    assert observers.correct(found) == 0.5
    assert observers.probability(found, 0.1) == 0.5


def test_rounding_is_no_evidence():
    assert observers.evidence(0.1 + 0.2, 0.3) == 0
    assert observers.evidence([0.3, -0.2, 1], [0.2, 0.1, 1]) == pytest.approx([0.1, -0.3, 0])


# ---- temperature


@pytest.mark.parametrize("scale", [1e-4, 1.0, 50.0])
def test_temperature_gives_random_pairings_their_spread(scale):
    """A tenth from chance, whatever the similarity's scale; ties say nothing of it."""
    evidence = scale * np.random.default_rng(0).standard_normal(500)
    found = observers.temperature(np.append(evidence, [0, 0]))
    assert np.sqrt(np.mean((observers.probability(evidence, found) - 0.5) ** 2)) == pytest.approx(0.1, abs=1e-9)


def test_temperature_by_hand():
    """One size of evidence: sigmoid(e / tau) = 0.6, so tau = e / log(1.5)."""
    assert observers.temperature(np.array([0.3, -0.3, 0])) == pytest.approx(0.3 / np.log(1.5))
    assert observers.temperature(np.zeros(3)) == np.inf
    assert observers.probability(0.0, np.inf) == 0.5


def trials_of(units, references=2):
    """Trials without pictures, some of each unit."""
    return [
        replace(SHOWN, unit=unit, base=f"{unit}{i}", references=tuple(f"{unit}r{i}{j}" for j in range(references)))
        for unit in units
        for i in range(3)
    ]


def test_random_pairings_are_with_another_unit():
    """Also with those whose hashes are alike, such as -1 and -2."""
    trials = trials_of([-1, -2, 3])
    own = {unit: {trial.references for trial in trials if trial.unit == unit} for unit in (-1, -2, 3)}
    drawn = set()
    for seed in range(10):
        for before, after in zip(trials, observers.re_paired(trials, np.random.default_rng(seed)), strict=True):
            assert after.references not in own[before.unit]
            assert replace(after, references=before.references) == before
            drawn.add((before.unit, after.references))
    assert len(drawn) == 18, "each of the six trials of other units"
    # One unit alone has no other.
    alone = observers.re_paired(trials_of(["u"]), np.random.default_rng(0))
    assert {trial.unit for trial in alone} == {"u"}


def test_others_are_of_other_units_and_the_same_in_all_of_a_unit(monkeypatch):
    monkeypatch.setattr(observers, "OTHERS", 5)
    trials = trials_of([-1, -2, 3])
    found = observers.with_others(trials, np.random.default_rng(0))
    for unit in (-1, -2, 3):
        others = {trial.others for trial in found if trial.unit == unit}
        assert len(others) == 1
        assert len(set(*others)) == 5
        own = {name for trial in trials if trial.unit == unit for name in trial.references}
        assert not own & set(*others)
    assert all(not trial.others for trial in observers.with_others(trials_of(["u"]), np.random.default_rng(0)))


def test_what_units_share_is_no_other():
    """A picture that is also a reference of the unit itself is not subtracted from it."""
    trials = [replace(trial, references=("shared", trial.references[0])) for trial in trials_of(["u", "v"])]
    for trial in observers.with_others(trials, np.random.default_rng(0)):
        assert len(trial.others) == 3
        assert "shared" not in trial.others


def test_where_a_unit_has_all_references_of_the_others_nobody_has_others():
    """v's references are u's, too: u has no others. v alone would have some, and be the only one to be answered for."""
    trials = trials_of(["u", "v"])
    own = tuple(name for trial in trials for name in trial.references)
    trials = [replace(trial, references=own) if trial.unit == "u" else trial for trial in trials]
    assert not any(trial.others for trial in observers.with_others(trials, np.random.default_rng(0)))
    # A third unit is another to both.
    found = observers.with_others([*trials, *trials_of(["w"])], np.random.default_rng(0))
    assert all(trial.others for trial in found)


# ---- observers without references


def test_prior_learns_what_decides():
    """In a world where the first difference decides by known log-odds and the second is noise."""
    generator = np.random.default_rng(0)
    sides = generator.standard_normal((4000, 2))
    first_wins = generator.random(4000) < expit(1.5 * sides[:, 0])
    x = np.where(first_wins[:, None], sides, -sides)
    fitted = observers.fit_prior(x)
    assert fitted.coefficients / fitted.scale == pytest.approx([1.5, 0], abs=0.15)
    assert fitted.evidence(-x) == pytest.approx(-fitted.evidence(x)), "no side comes first"


def test_prior_does_not_depend_on_the_scales():
    x = np.random.default_rng(0).normal(0.3, 1, (40, 3))
    fitted = [observers.fit_prior(each).evidence(each) for each in (x, x * [1e3, 1e-6, 1])]
    assert fitted[0] == pytest.approx(fitted[1], rel=1e-5)


def test_prior_never_sees_its_own_unit():
    """Of two units with opposite rules, each is predicted by the other's, and always wrongly.

    Fitted on all, or on other *trials* alone, the two rules would weigh alike.
    """
    x = np.array([[1.0]] * 6 + [[-1.0]] * 6)
    found = observers.prior(x, ["u"] * 6 + ["v"] * 6)
    assert observers.correct(found).tolist() == [0] * 12
    assert observers.fit_prior(x).coefficients == pytest.approx([0], abs=1e-6)


def test_prior_without_another_unit_knows_nothing():
    assert observers.prior(np.ones((4, 2)), ["u"] * 4).tolist() == [0] * 4
    assert observers.fit_prior(np.zeros((3, 2))).evidence(np.ones((1, 2))).tolist() == [0]


def test_exchanged_queries_of_one_unit_exchange_what_the_prior_says():
    generator = np.random.default_rng(0)
    x, units = generator.normal(0.5, 1, (30, 3)), np.repeat(["u", "v", "w"], 10)
    own = (units == "u")[:, None]
    one, other = (observers.prior(each, units) for each in (x, np.where(own, -x, x)))
    assert other[:10] == pytest.approx(-one[:10])


def test_coin_is_fair_and_does_not_know_which_query_is_which():
    trials = [replace(SHOWN, base=f"b{i}", max=f"x{i}", min=f"y{(7 * i) % 10000}") for i in range(10_000)]
    found = np.array([observers.coin(trial, 0) for trial in trials])
    assert abs(found.mean() - 0.5) < 4 * 0.5 / 100
    assert np.array_equal([observers.coin(exchanged(trial), 0) for trial in trials], 1 - found)
    assert not np.array_equal([observers.coin(trial, 1) for trial in trials], found)
    assert observers.coin(replace(SHOWN, min="max"), 0) == 0.5


def test_oracle():
    assert [observers.oracle(*pair) for pair in ((2, 1), (1, 2), (1, 1), (-1, -2))] == [1, 0, 0.5, 1]


# ---- machine interpretability score


def test_the_temperature_divides():
    """.8 - .3 less .4 - .5: evidence .6, which multiplied by .16 would make .524."""
    evidence = observers.task([[0.8, 0.3], [0.4, 0.5]])
    assert evidence == pytest.approx(0.6)
    score, hard = observers.interpretability(evidence[None])
    assert score == pytest.approx(0.97702, abs=1e-5)
    assert hard == 1
    assert expit(0.6 * 0.16) == pytest.approx(0.52398, abs=1e-5), "the control: the other direction"


def test_score_is_a_mean_over_tasks():
    """Evidence .16, -.16, and none: sigmoids of 1, -1 and 0; right, wrong, and a tie."""
    score, hard = observers.interpretability(np.array([0.16, -0.16, 0, 0.16]))
    assert score == pytest.approx((1 + 0.5 + expit(1)) / 4)
    assert hard == (1 + 0 + 0.5 + 1) / 4


def test_exchanged_queries_or_references_exchange_a_task():
    s = np.random.default_rng(0).random((20, 2, 2))
    assert observers.task(s[:, ::-1]) == pytest.approx(-observers.task(s))
    assert observers.task(s[:, :, ::-1]) == pytest.approx(-observers.task(s))
    assert observers.task(s[:, ::-1, ::-1]) == pytest.approx(observers.task(s))


def test_task_from_pictures_by_hand():
    """Brightness of queries 80 and 10, references 100 and 60, 0: s = -20, -80 and -70, -10 by means."""
    pictures = {str(level): flat(*[level] * 3) for level in (80, 10, 100, 60, 0)}
    found = observers.task_evidence(Gallery(BRIGHTNESS, pictures), ("80", "10"), (("100", "60"), ("0",)))
    assert found == pytest.approx((-20 + 80) - (-70 + 10))


# ---- planted units: each looks for one pattern, at a random place on texture

WIDTH, SIDE, STRIDE, BASES = 31, 13, 3, 40
SQUARES = [(top, left) for top in range(0, WIDTH - SIDE + 1, STRIDE) for left in range(0, WIDTH - SIDE + 1, STRIDE)]
_rows, _columns = np.mgrid[-5:6, -5:6]
_radius = np.hypot(_rows, _columns)
PATTERNS = {
    "disc": _radius <= 5,
    "ring": (_radius <= 5) & (_radius >= 3.5),
    "cross": (np.abs(_rows) <= 1) | (np.abs(_columns) <= 1),
    "bars": _rows % 4 < 2,
}


def textured(pattern, count, generator):
    """Pictures [N, 3, H, W] of smooth noise with a pattern in it, bright, at a random place."""
    noise = torch.from_numpy(generator.standard_normal((count, 3, WIDTH, WIDTH)))
    noise = F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), mode="circular"), 3, 1)
    x = (0.4 + 0.1 * noise / noise.std()).numpy()
    for picture in x:
        top, left = generator.integers(0, WIDTH - 10, 2)
        picture[:, top : top + 11, left : left + 11][:, PATTERNS[pattern]] = 1
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


def matched(pictures, pattern):
    """Activations [N] of the pattern's unit: the mean over the positions of a ReLU behind its filter, whose sum is 0."""
    weight = torch.from_numpy(PATTERNS[pattern] - PATTERNS[pattern].mean())[None, None]
    x = F.pad(torch.from_numpy(pictures).double().mean(1, keepdim=True) / 255, (5,) * 4, mode="circular")
    return F.relu(F.conv2d(x, weight)).mean((1, 2, 3)).numpy()


def hidden(picture):
    """Copies [squares, 3, H, W] of a picture, each with the mean of a square in the square."""
    found = np.repeat(picture[None], len(SQUARES), 0)
    for copy, (top, left) in zip(found, SQUARES, strict=True):
        square = copy[:, top : top + SIDE, left : left + SIDE]
        square[:] = square.mean((1, 2), keepdims=True).round()
    return found


@pytest.fixture(scope="module")
def planted():
    """Pictures by name, and `BASES` trials of each unit in the order of the patterns, with nine references."""
    generator = np.random.default_rng(0)
    pictures, trials = {}, []
    for pattern in PATTERNS:
        pictures |= {f"{pattern} r{i}": each for i, each in enumerate(textured(pattern, 60, generator))}
        for i, base in enumerate(textured(pattern, BASES, generator)):
            queries = hidden(base)
            values = matched(queries, pattern)
            low, high = values.argmin(), values.argmax()
            names = [f"{pattern} {name}{i}" for name in ("base", "max", "min")]
            pictures |= dict(zip(names, (base, queries[high], queries[low]), strict=True))
            drawn = generator.choice(60, 9, replace=False)
            references = tuple(f"{pattern} r{j}" for j in drawn)
            trials.append(Trial(pattern, *names, SQUARES[high], SQUARES[low], SIDE, references))
    trials = observers.with_others(trials, generator)
    return pictures, trials, observers.re_paired(trials, generator)


def shares(kind, similarity, pictures, trials, relative):
    """Share of each unit's trials decided right [units]."""
    gallery = Gallery(similarity, pictures)
    evidence = np.array([observers.preference(kind, gallery, trial, trial.references) for trial in trials])
    if relative:
        others = [observers.preference(kind, gallery, trial, trial.others) for trial in trials]
        evidence = observers.evidence(evidence, others)
    return observers.correct(evidence).reshape(len(PATTERNS), -1).mean(1)


def chance(share, trials):
    """Within four standard errors of a half."""
    return abs(share - 0.5) <= 4 * 0.5 / np.sqrt(trials)


def test_patch_observer_finds_a_planted_disc(planted):
    """By structure it is right where the unit looks for a disc; the square's place alone would not tell."""
    pictures, trials, _ = planted
    for relative in (False, True):
        assert shares("patch", SSIM, pictures, trials, relative)[0] > 0.95
    distances = [[baselines.centre(at, SIDE, (WIDTH, WIDTH)) for at in (x.max_at, x.min_at)] for x in trials]
    assert chance(baselines.choose(*np.array(distances).T).mean(), len(trials))


def test_relative_patch_observer_finds_planted_patterns_by_hand_made_features(planted):
    pictures, trials, _ = planted
    assert shares("patch", HAND, pictures, trials, relative=True).mean() > 0.95
    assert shares("whole", HAND, pictures, trials, relative=True).mean() > 0.6


def test_what_all_pictures_share_misleads_an_observer_that_is_not_relative(planted):
    """Texture is in every window of every reference, a disc in few: a patch of texture is the more reference-like.

    Whichever unit the references are of: the observer is far below chance with its own and with others'.
    """
    pictures, trials, shuffled = planted
    for each in (trials, shuffled):
        assert shares("patch", HAND, pictures, each, relative=False)[0] < 0.1


@pytest.mark.parametrize("kind", observers.KINDS)
@pytest.mark.parametrize("similarity", [HAND, SSIM], ids=lambda similarity: similarity.name)
def test_references_of_another_unit_tell_a_relative_observer_nothing(planted, kind, similarity):
    pictures, _, shuffled = planted
    assert chance(shares(kind, similarity, pictures, shuffled, relative=True).mean(), len(shuffled))


@pytest.mark.parametrize("kind", observers.KINDS)
@pytest.mark.parametrize("similarity", [HAND, SSIM], ids=lambda similarity: similarity.name)
def test_references_of_another_unit_take_from_a_plain_observer_what_it_knows(planted, kind, similarity):
    """It is less often right with them than with the unit's own, and not above chance: nothing else tells the answer.

    It is no coin, though. What all pictures share decides, which here is texture, and most choices are wrong.
    """
    pictures, trials, shuffled = planted
    own, other = (shares(kind, similarity, pictures, each, relative=False).mean() for each in (trials, shuffled))
    assert other < own
    assert other < 0.5 + 4 * 0.5 / np.sqrt(len(shuffled))
    if similarity is HAND:
        assert not chance(other, len(shuffled))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("kind", observers.KINDS)
def test_a_unit_that_minds_squares_at_random_is_not_predicted(planted, kind, relative):
    """The null: which of two squares is called max is a coin's choice."""
    pictures, trials, _ = planted
    generator = np.random.default_rng(0)
    shown, made = dict(pictures), []
    for i, trial in enumerate(trials):
        queries = hidden(pictures[trial.base])
        high, low = generator.choice(len(SQUARES), 2, replace=False)
        shown |= {f"max {i}": queries[high], f"min {i}": queries[low]}
        squares = {"max_at": SQUARES[high], "min_at": SQUARES[low]}
        made.append(replace(trial, max=f"max {i}", min=f"min {i}", **squares))
    assert chance(shares(kind, HAND, shown, made, relative).mean(), len(made))


def test_scores_of_planted_units_and_of_none(planted):
    """Maximal references with the pattern, minimal ones without it; then both with it."""
    pictures, _, _ = planted
    gallery = Gallery(HAND, pictures)

    def score(minimal):
        tasks = [(f"disc r{i}", f"{minimal} r{59 - i}") for i in range(20)]
        references = [
            [f"{name} r{j}" for j in range(20 + first, 29 + first)] for name, first in (("disc", 0), (minimal, 9))
        ]
        return observers.interpretability(
            np.array([observers.task_evidence(gallery, queries, references) for queries in tasks])
        )

    soft, hard = score("bars")
    assert soft > 0.55
    assert hard == 1
    soft, hard = score("disc")
    assert soft == pytest.approx(0.5, abs=0.02)
    assert chance(hard, 20)


# ---- the step


class Pale(nn.Module):
    """A network of two layers for pictures [3, 31, 31], its weights drawn."""

    def __init__(self, outputs=3):
        super().__init__()
        self.conv = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)])
        self.relu = nn.ModuleList([nn.ReLU(), nn.ReLU()])
        self.dense = nn.Linear(4, outputs)

    def last(self, x):
        for conv, relu in zip(self.conv, self.relu, strict=True):
            x = relu(conv(x))
        return x.mean((2, 3))

    def forward(self, x):
        return self.dense(self.last(x))


TABLES = {
    "units": image_sets.UNITS,
    "sets": image_sets.SETS,
    "extremes": image_sets.EXTREMES,
    "trials": trials.TRIALS,
    "stimuli": pictures.STIMULI,
}
SETS_OF_A_UNIT = 2
CONDITIONS = ("none", "natural", "blur")


def saved(picture):
    """A picture as the bytes of a PNG."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(content, "PNG")
    return content.getvalue()


MAIN = ("pale", "conv1", "a")


def named(*of):
    """The name of a trial."""
    return pictures.digest(" ".join(map(str, of)).encode())


def unanswered(tables):
    """No image set of a grid has a right answer."""
    for row in tables["extremes"]:
        row |= {"valid": False, "reason": occluders.NO_EFFECT}
    tables |= {"trials": [], "stimuli": []}


class Step:
    """Tables of two image sets of each planted unit, as the steps before write them, and the step's own.

    All units are of one grid, whose tables are `rows`; `grids` are those of all grids.
    """

    def __init__(self, tmp, planted):
        pictures, trials, _ = planted
        self.tmp, self.rows = tmp, {name: [] for name in TABLES}
        self.grids = {MAIN: self.rows}
        (tmp / "data" / "a").mkdir(parents=True)
        stimuli, photographs = {}, {}

        def stimulus(name):
            png = saved(pictures[name])
            stimuli[key := hashlib.sha256(png).hexdigest()[:16]] = png
            return key

        def photograph(name):
            (tmp / "data" / "a" / f"{name}.png").write_bytes(saved(pictures[name]))
            return f"a/{name}.png", photographs.setdefault(name, len(photographs))

        for unit, pattern in enumerate(PATTERNS):
            self.rows["units"].append(
                {
                    "cell": f"s0m{unit}",
                    "draw": 0,
                    "unit": unit,
                    "channel": unit,
                    "weight": 1,
                    "status": "ok",
                    "driving": 9,
                }
                | dict.fromkeys(("least", "most", "sparsity", "contrast"), 0.0)
            )
            of_sides = {"top": [], "bottom": []}
            for number in range(SETS_OF_A_UNIT):
                trial = trials[unit * BASES + number]
                minimal = list(PATTERNS)[unit - 1]
                base = f"{minimal} r{10 + number}"
                of_sides["top"].append([*trial.references, trial.base])
                of_sides["bottom"].append([*(f"{minimal} r{20 + 9 * number + i}" for i in range(9)), base])
            for side, sets in of_sides.items():
                for number, names in enumerate(sets):
                    for i, name in enumerate(names):
                        source, image_id = photograph(name)
                        self.rows["sets"].append(
                            {"unit": unit, "set": number, "side": side, "role": "reference" if i < 9 else "base"}
                            | {"bin": i, "rank": i, "image_id": image_id, "image_class": "a", "source": source}
                            | {"activation": 0.0}
                        )
            for number in range(SETS_OF_A_UNIT):
                trial = trials[unit * BASES + number]
                self.rows["extremes"].append(
                    {"unit": unit, "set": number, "image_id": photographs[trial.base], "size": SIDE, "stride": STRIDE}
                    | {"positions": len(SQUARES), "base": 1.0, "min": 0.2, "max": 0.9, "relative_difference": 0.7}
                    | dict(zip(("min_top", "min_left"), trial.min_at, strict=True))
                    | dict(zip(("max_top", "max_left"), trial.max_at, strict=True))
                    | {"min_ties": 1, "max_ties": 1, "overlap": 0.0, "beneficial": False, "valid": True, "reason": ""}
                )
                for condition in CONDITIONS:
                    names = {
                        "none": [],
                        "natural": trial.references,
                        "blur": [f"{pattern} r{i}" for i in range(40, 49)],
                    }
                    self.rows["trials"].append(
                        {"trial": named(unit, number, condition), "network": "pale", "layer": "conv1", "class_id": "a"}
                        | {"cell": f"s0m{unit}", "unit": unit, "set": number, "condition": condition}
                        | {name: stimulus(getattr(trial, name)) for name in ("base", "min", "max")}
                        | {"references": [stimulus(name) for name in names[condition]], "relative_difference": 0.7}
                    )
        self.rows["stimuli"] = [{"stimulus": key, "png": png} for key, png in stimuli.items()]
        transform = {"resize": None, "crop": WIDTH, "mean": [0.5] * 3, "std": [0.25] * 3}
        opened = ImageSource("folder", str(tmp / "data"), transform)
        self.sources = [NetworkSource("pale", 3, f"random-{seed}", opened) for seed in (0, 1)]

    def path(self, grid, name):
        """Of a table of a grid."""
        return self.tmp / "of" / "-".join(grid) / f"{name}.parquet"

    def split(self, grids):
        """A grid for each unit, in which it is number 0 of channel 0."""
        self.grids = {}
        for unit, grid in enumerate(grids):
            found = {
                name: [dict(row) for row in rows if row.get("unit", unit) == unit] for name, rows in self.rows.items()
            }
            for row in (row for name, rows in found.items() if name != "stimuli" for row in rows):
                row |= {"unit": 0} | ({"channel": 0} if "channel" in row else {})
            for row in found["trials"]:
                row |= dict(zip(("network", "layer", "class_id"), grid, strict=True))
            self.grids[grid] = found

    def run(self, siblings=True, read=True, **given):
        """Tables of the step: observers, and interpretability."""
        for grid, tables in self.grids.items():
            for name, rows in tables.items():
                parquet.write(self.path(grid, name), rows, TABLES[name])
        written = {f"path_to_{name}": str(self.tmp / f"{name}.parquet") for name in ("observers", "interpretability")}
        self.said = job.observe(
            **written,
            **{f"paths_to_{name}": {grid: str(self.path(grid, name)) for grid in self.grids} for name in TABLES},
            **{"siblings": {"again": self.sources[1]} if siblings else {}, "source": self.sources[0]}
            | {"device": "cpu", "seed": 0}
            | given,
        )
        if not read:
            return None
        schemas = (job.SCHEMA, job.INTERPRETABILITY)
        return [parquet.read(*each).to_pandas() for each in zip(written.values(), schemas, strict=True)]


@pytest.fixture
def step(tmp_path, monkeypatch, planted):
    monkeypatch.setitem(models.BUILDERS, "pale", Pale)
    return Step(tmp_path, planted)


WITHOUT = {"centre", "variance", "saliency_sr", "class", "prior", "coin", "oracle"}
SIMILARITIES = ("hand", "ssim", "sibling_again")
WITH = {f"{kind}{way}_{name}" for kind in ("whole", "patch") for way in ("", "_relative") for name in SIMILARITIES}


def test_rows_of_the_step(step):
    """A row per trial and observer: those without references in condition none, the others in the others."""
    found, scores = step.run()
    assert set(found["condition"]) == set(CONDITIONS)
    for condition, rows in found.groupby("condition"):
        assert set(rows["observer"]) == (WITHOUT if condition == "none" else WITH)
    sets = len(PATTERNS) * SETS_OF_A_UNIT
    assert len(found) == sets * (len(WITHOUT) + 2 * len(WITH))
    assert not found.duplicated(["trial", "observer"]).any()
    assert found["correct"].isin([0, 0.5, 1]).all()
    assert found["p"].between(0, 1).all()
    assert (found["relative_difference"] == 0.7).all()
    told = found[~found["observer"].isin(["coin"])]
    assert ((told["p"] > 0.5) == (told["correct"] == 1)).all()
    assert ((told["p"] < 0.5) == (told["correct"] == 0)).all()
    assert (found.loc[found["observer"] == "oracle", "correct"] == 1).all()
    assert (found.loc[found["observer"] == "coin", "p"] == 0.5).all()
    assert set(zip(found["unit"], found["cell"], strict=True)) == {(i, f"s0m{i}") for i in range(4)}
    assert step.said == f"{len(WITHOUT | WITH)} observers, {3 * sets} trials"
    assert len(scores) == len(PATTERNS) * len(SIMILARITIES)
    assert (scores["tasks"] == SETS_OF_A_UNIT).all()
    assert (scores.loc[scores["similarity"] != "ssim", "temperature"] == 0.16).all()
    assert scores["temperature"].nunique() == 2
    # A disc against bars.
    assert scores.loc[(scores["similarity"] == "hand") & (scores["unit"] == 0), "hard_score"].tolist() == [1]


def test_values_of_the_step_are_those_of_the_definitions(step, planted):
    """The table's positions, sides and pictures go where they belong."""
    found, scores = step.run(siblings=False)
    pictures, trials, _ = planted
    chosen = [trials[unit * BASES + number] for unit in range(4) for number in range(SETS_OF_A_UNIT)]
    by_observer = {
        name: rows.sort_values(["unit", "set"])["correct"].tolist() for name, rows in found.groupby("observer")
    }

    def right(name, value):
        pairs = [[value(trial, at) for at in (trial.max_at, trial.min_at)] for trial in chosen]
        return baselines.choose(*(baselines.DIRECTION[name] * np.array(pairs)).T).tolist()

    assert by_observer["centre"] == right("centre", lambda trial, at: baselines.centre(at, SIDE, (WIDTH, WIDTH)))
    assert by_observer["variance"] == right(
        "variance", lambda trial, at: baselines.variance(pictures[trial.base] / 255, at, SIDE)
    )
    assert by_observer["saliency_sr"] == right(
        "saliency_sr",
        lambda trial, at: baselines.saliency(baselines.saliency_map(pictures[trial.base] / 255), at, SIDE),
    )
    gallery = Gallery(SSIM, pictures)
    natural = found[(found["observer"] == "patch_ssim") & (found["condition"] == "natural")].sort_values(
        ["unit", "set"]
    )
    evidence = np.array([observers.preference("patch", gallery, trial, trial.references) for trial in chosen])
    assert natural["correct"].tolist() == observers.correct(evidence).tolist()
    # One temperature for all of an observer's rows: log-odds go with the evidence.
    odds = np.log(natural["p"] / (1 - natural["p"])).to_numpy()
    assert odds / evidence == pytest.approx(odds[0] / evidence[0])
    task = (chosen[0].base, "bars r10"), (chosen[0].references, [f"bars r{i}" for i in range(20, 29)])
    other = (chosen[1].base, "bars r11"), (chosen[1].references, [f"bars r{i}" for i in range(29, 38)])
    gallery = Gallery(HAND, pictures)
    score, hard = observers.interpretability(
        np.array([observers.task_evidence(gallery, *each) for each in (task, other)])
    )
    first = scores[(scores["unit"] == 0) & (scores["similarity"] == "hand")].iloc[0]
    assert (first["score"], first["hard_score"]) == pytest.approx((score, hard))


def test_class_observer_keeps_the_predicted_class(step):
    """By hand on the network's own scores."""
    found, _ = step.run(siblings=False)
    network = models.build("pale", 3, 0).eval()
    pngs = {row["stimulus"]: row["png"] for row in step.rows["stimuli"]}

    def probabilities(name):
        pixels = np.asarray(Image.open(io.BytesIO(pngs[name]))).transpose(2, 0, 1)
        with torch.inference_mode():
            return network(((torch.from_numpy(pixels.copy()).float() / 255 - 0.5) / 0.25)[None]).double().softmax(1)[0]

    for row in step.rows["trials"]:
        if row["condition"] == "none":
            base, high, low = (probabilities(row[name]) for name in ("base", "max", "min"))
            expected = float(high[base.argmax()] > low[base.argmax()])
            told = found[(found["trial"] == row["trial"]) & (found["observer"] == "class")]
            assert told["correct"].tolist() == [expected]


class Lamp(nn.Module):
    """Scores (m, 0) and (0, -m) of a bright and of a dark image, m being the mean of what the network sees."""

    def __init__(self, outputs=2):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x):
        m = x.mean((1, 2, 3))
        return torch.stack([self.relu(m), self.relu(-m)], 1)


def test_equally_far_squares_are_half_right_in_the_table(step):
    """Top right and bottom left: a tie counts one half in every row, where the published rule counts it as wrong."""
    row = step.rows["extremes"][0]
    row |= {"max_top": 0, "max_left": WIDTH - SIDE, "min_top": WIDTH - SIDE, "min_left": 0}
    far = [baselines.centre((row[f"{name}_top"], row[f"{name}_left"]), SIDE, (WIDTH, WIDTH)) for name in ("max", "min")]
    assert not far[0] > far[1]
    found, _ = step.run(siblings=False)
    centre = found[found["observer"] == "centre"].set_index(["unit", "set"])
    assert centre.loc[(row["unit"], row["set"]), ["p", "correct"]].tolist() == [0.5, 0.5]
    assert centre["correct"].isin([0, 1]).sum() >= len(centre) - 2


def test_probabilities_of_the_base_images_class_by_hand(monkeypatch):
    """The base image is bright, class 0; both queries are dark, class 1: grey 100 and 50 less 1/2, over 1/4."""
    monkeypatch.setitem(models.BUILDERS, "lamp", Lamp)
    opened = ImageSource("folder", None, {"resize": None, "crop": 4, "mean": [0.5] * 3, "std": [0.25] * 3})
    pictures = {"base": flat(200, 200, 200, 4), "max": flat(100, 100, 100, 4), "min": flat(50, 50, 50, 4)}
    found = job._class_values(
        job._Trials([{}], [SHOWN], [{}]), pictures, NetworkSource("lamp", 2, "random-0", opened), "cpu"
    )
    assert found == pytest.approx(expit((np.array([[100, 50]]) / 255 - 0.5) / 0.25), abs=1e-6)


LAYERS = [("pale", f"conv{i}", "a") for i in range(1, 5)]


def test_units_of_other_layers_teach_as_those_of_one_do(step):
    """One unit a grid, each of which is number 0 of channel 0: all numbers are as if they were of one grid."""
    before = step.run()
    step.split(LAYERS)
    after = step.run()
    for one, many in zip(before, after, strict=True):
        assert many["layer"].tolist() == [f"conv{unit + 1}" for unit in one["unit"]]
        assert (many["unit"] == 0).all()
        # A coin is another unit's.
        told = [each[each["observer"] != "coin"] if "observer" in each else each for each in (one, many)]
        pd.testing.assert_frame_equal(*(each.drop(columns=["layer", "unit"]) for each in told))
    assert (before[0].loc[before[0]["observer"] == "prior", "p"] != 0.5).all()


def test_a_unit_in_two_targets_is_one_unit(step):
    """Four targets of one layer, in each channel 0: nobody is left to learn from, though scores are by target."""
    step.split([("pale", "conv1", target) for target in "abcd"])
    found, scores = step.run(siblings=False)
    assert (found.loc[found["observer"] == "prior", ["p", "correct"]] == 0.5).all(axis=None)
    assert not found["observer"].str.contains("relative").any()
    assert scores[["class_id", "unit", "tasks"]].drop_duplicates().to_numpy().tolist() == [
        [target, 0, SETS_OF_A_UNIT] for target in "abcd"
    ]
    assert scores["cell"].tolist() == [f"s0m{i}" for i in range(4) for _ in range(2)]


def test_two_units_in_two_targets_are_two(step, planted):
    """conv1 has one unit in both targets, conv2 another: others are those of the other layer alone."""
    step.split([("pale", layer, target) for layer in ("conv1", "conv2") for target in "ab"])
    for grid, tables in step.grids.items():
        for name, rows in tables.items():
            parquet.write(step.path(grid, name), rows, TABLES[name])
    paths = [{grid: str(step.path(grid, name)) for grid in step.grids} for name in ("trials", "extremes")]
    units = {grid: {row["unit"]: row for row in tables["units"]} for grid, tables in step.grids.items()}
    found = job._trials(*paths, units, {grid: tables["sets"] for grid, tables in step.grids.items()}, WIDTH)
    assert list(dict.fromkeys(trial.unit for trial in found.seen)) == [("conv1", 0), ("conv2", 0)]
    natural = found.at([i for i, row in enumerate(found.rows) if row["condition"] == "natural"]).seen
    of_layer = {
        unit: {name for t in natural if t.unit == unit for name in t.references} for unit in {t.unit for t in natural}
    }
    generator = np.random.default_rng(0)
    for trial in [*observers.with_others(natural, generator), *observers.re_paired(natural, generator)]:
        (rest,) = (names for unit, names in of_layer.items() if unit != trial.unit)
        assert set(trial.others or trial.references) <= rest


def test_order_of_grids_changes_nothing(step):
    step.split(LAYERS)
    before = step.run(siblings=False)
    step.grids = dict(reversed(step.grids.items()))
    for one, other in zip(before, step.run(siblings=False), strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_a_grid_without_trials_is_left_out_of_a_network(step):
    """The others have the rows that they have without it, but for what is drawn of other units."""
    step.split(LAYERS)
    unanswered(step.grids[LAYERS[1]])
    found, scores = step.run(siblings=False)
    assert found["layer"].unique().tolist() == ["conv1", "conv3", "conv4"]
    assert scores["layer"].unique().tolist() == ["conv1", "conv2", "conv3", "conv4"]
    del step.grids[LAYERS[1]]
    without, _ = step.run(siblings=False)
    pd.testing.assert_frame_equal(found, without)


def test_a_network_without_trials_has_empty_tables(step):
    step.split(LAYERS)
    for tables in step.grids.values():
        tables |= {"trials": [], "stimuli": [], "extremes": []}
        tables["units"][0]["status"] = "constant over the pool"
    step.run(siblings=False, read=False)
    assert step.said == "0 observers, 0 trials"
    for name, schema in (("observers", job.SCHEMA), ("interpretability", job.INTERPRETABILITY)):
        table = parquet.read(step.tmp / f"{name}.parquet")
        assert not table.num_rows
        assert table.schema.names == schema.names


def test_grids_share_the_features_of_equal_pictures(step, monkeypatch):
    """The same tables in a second layer: no picture, window or patch is looked at once more."""
    seen = []

    def features(pictures):
        seen.append(len(pictures))
        return observers.hand(pictures)

    monkeypatch.setattr(observers, "HAND", replace(HAND, features=features))
    step.run(siblings=False)
    once = sum(seen)
    step.grids = dict.fromkeys(LAYERS[:2], step.rows)
    seen.clear()
    step.run(siblings=False)
    assert once > 0
    assert sum(seen) == once


def test_pictures_are_decoded_when_they_are_seen(monkeypatch):
    """And forgotten, the first one first, where they are many."""
    monkeypatch.setattr(job, "DECODED", 1)
    seen = []
    monkeypatch.setattr(job, "pixels", lambda png: seen.append(png) or pictures.pixels(png))
    given = {"red": flat(255, 0, 0), "blue": flat(0, 0, 255)}
    found = job._Pictures({name: saved(picture) for name, picture in given.items()})
    assert (list(found), len(found), seen) == (["red", "blue"], 2, [])
    for name in ("red", "red", "blue", "red"):
        assert np.array_equal(found[name], given[name])
    assert len(seen) == 3


def test_a_broken_grid_is_refused_by_its_own_files(step):
    step.split(LAYERS)
    step.grids[LAYERS[2]]["extremes"].pop()
    with pytest.raises(StudyError, match="has not every image set or reference of the units") as refused:
        step.run(siblings=False)
    assert f"{step.path(LAYERS[2], 'extremes')}: " in str(refused.value)


def test_a_grid_without_trials_has_tables_without_rows(step):
    """And units that never vary have no score."""
    for row in step.rows["units"][1:]:
        row["status"] = "constant over the pool"
    step.rows["extremes"] = [row for row in step.rows["extremes"] if row["unit"] == 0]
    unanswered(step.rows)
    step.run(siblings=False, read=False)
    assert step.said == "0 observers, 0 trials"
    assert not parquet.read(step.tmp / "observers.parquet").num_rows
    assert parquet.read(step.tmp / "interpretability.parquet")["unit"].unique().to_pylist() == [0]
    step.rows["units"][0]["status"] = "constant over the pool"
    step.rows["extremes"] = []
    step.run(siblings=False, read=False)
    assert not parquet.read(step.tmp / "interpretability.parquet").num_rows


def test_order_and_names_of_trials_change_nothing(step):
    before = step.run(siblings=False)
    for name in ("trials", "stimuli"):
        step.rows[name].reverse()
    for row in step.rows["trials"]:
        row["trial"] = row["trial"][::-1]
    after = step.run(siblings=False)
    after[0]["trial"] = after[0]["trial"].str[::-1]
    pd.testing.assert_frame_equal(before[0], after[0])
    pd.testing.assert_frame_equal(before[1], after[1])


def test_same_seed_same_bytes(step):
    contents = []
    for seed in (0, 0, 1):
        step.run(siblings=False, seed=seed)
        contents.append([(step.tmp / f"{name}.parquet").read_bytes() for name in ("observers", "interpretability")])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_one_condition_does_not_change_what_is_drawn_in_another(step):
    """Without `blur`, which comes first, `natural` has the same others and pairings.

    So relative observers have the same evidence: the same choices, and log-odds that differ by the temperature alone,
    which is that of all conditions.
    """
    before, _ = step.run(siblings=False)
    step.rows["trials"] = [row for row in step.rows["trials"] if row["condition"] != "blur"]
    after, _ = step.run(siblings=False)
    chosen = before["condition"] != "blur"
    pd.testing.assert_frame_equal(before[chosen].drop(columns="p").reset_index(drop=True), after.drop(columns="p"))
    for name in sorted(name for name in WITH if "sibling" not in name):
        told = [
            each.loc[(each["condition"] == "natural") & (each["observer"] == name), "p"] for each in (before, after)
        ]
        one, other = (np.log(p / (1 - p)).to_numpy() for p in told)
        assert one.any()
        assert one * other[0] == pytest.approx(other * one[0])


def test_conditions_and_seeds_draw_differently():
    parts = [(0, "natural"), (0, "blur"), (1, "natural")]
    assert len({job._generator(*each).integers(2**60) for each in parts}) == 3


def test_shuffled_references_change_no_observer_without_references(step):
    """The prior and the baselines say the same; whole and patch do not."""
    before, _ = step.run(siblings=False)
    with_references = [row for row in step.rows["trials"] if row["references"]]
    shifted = [row["references"] for row in with_references]
    # By two image sets in two conditions: each unit has the references of the one before.
    for row, references in zip(with_references, shifted[-4:] + shifted[:-4], strict=True):
        row["references"] = references
    after, _ = step.run(siblings=False)
    same = before["observer"].isin(WITHOUT)
    pd.testing.assert_frame_equal(before[same], after[same])
    assert not np.array_equal(before.loc[~same, "p"], after.loc[~same, "p"])


def test_exchanged_queries_of_the_table(step):
    """Queries that change names, in all trials of one unit: p becomes 1 - p, and correct 1 - correct."""
    before, _ = step.run(siblings=False)
    for row in [*step.rows["trials"], *step.rows["extremes"]]:
        if row["unit"] == 0:
            for low in [name for name in row if name.startswith("min")]:
                high = low.replace("min", "max")
                row[low], row[high] = row[high], row[low]
    after, _ = step.run(siblings=False)
    own = (before["unit"] == 0) & (before["observer"] != "coin")
    # Another unit's prior was fitted on this one, and temperatures on all trials: these have the same evidence.
    assert after.loc[own, "p"].to_numpy() == pytest.approx(1 - before.loc[own, "p"].to_numpy(), abs=1e-9)
    own = before["unit"] == 0
    assert np.array_equal(after.loc[own, "correct"], 1 - before.loc[own, "correct"])


def test_a_trial_without_visualisations_has_no_row(step):
    """All pictures of unit 2 failed: its synthetic trials are left out, and all other rows are as many as before."""
    for row in step.rows["trials"]:
        if row["condition"] == "blur":
            row["condition"] = "synthetic"
            if row["unit"] == 2:
                row["references"] = []
    found, _ = step.run(siblings=False)
    counts = found.groupby(["unit", "condition"]).size().unstack(fill_value=0)
    observers_with = sum("sibling" not in name for name in WITH)
    assert counts["synthetic"].tolist() == [n * SETS_OF_A_UNIT * observers_with for n in (1, 1, 0, 1)]
    assert counts["natural"].tolist() == [SETS_OF_A_UNIT * observers_with] * 4
    assert counts["none"].tolist() == [SETS_OF_A_UNIT * len(WITHOUT)] * 4


def test_a_condition_of_one_unit_alone_has_no_relative_observer(step):
    """The others have theirs."""
    for row in step.rows["trials"]:
        if row["condition"] == "blur":
            row["condition"] = "synthetic"
            if row["unit"]:
                row["references"] = []
    found, _ = step.run(siblings=False)
    relative = found[found["observer"].str.contains("relative")]
    assert set(relative["condition"]) == {"natural"}
    assert set(found.loc[found["condition"] == "synthetic", "observer"]) == {
        f"{kind}_{name}" for kind in ("whole", "patch") for name in ("hand", "ssim")
    }


def test_an_observer_answers_all_trials_of_a_condition_or_none(step):
    """Two units, of which one has the references of the other, too; the step that reads the table takes it."""
    for name in ("units", "sets", "extremes", "trials"):
        step.rows[name] = [row for row in step.rows[name] if row["unit"] < 2]
    for row in step.rows["trials"]:
        if row["condition"] == "natural" and row["unit"] == 0:
            of_other = [r for r in step.rows["trials"] if r["condition"] == "natural" and r["unit"] == 1]
            row["references"] = [*row["references"], *(name for r in of_other for name in r["references"])]
    found, _ = step.run(siblings=False)
    assert not found.loc[found["condition"] == "natural", "observer"].str.contains("relative").any()
    assert found.loc[found["condition"] == "blur", "observer"].str.contains("relative").any()
    frame = legibility._read(str(step.tmp / "observers.parquet"), legibility.ANSWERS)
    legibility._whole(frame, "observers.parquet")


def test_units_of_one_channel_do_not_teach_each_other(step):
    """Where all units are of one channel, the prior knows nothing, and there is no other unit to be relative to."""
    for row in step.rows["units"]:
        row["channel"] = 7
    found, _ = step.run(siblings=False)
    assert (found.loc[found["observer"] == "prior", ["p", "correct"]] == 0.5).all(axis=None)
    assert not found["observer"].str.contains("relative").any()
    assert set(found.loc[found["condition"] == "blur", "observer"]) == {
        f"{kind}_{name}" for kind in ("whole", "patch") for name in ("hand", "ssim")
    }


def test_a_sibling_sees_its_last_layer(step):
    """Means over space of what its ReLU puts out, of images normalised as it wants them."""
    similarity = job.sibling("again", step.sources[1], "cpu")
    assert similarity.name == "sibling_again"
    network = models.build("pale", 3, 1).eval()
    picture = np.random.default_rng(0).integers(0, 256, (2, 3, WIDTH, WIDTH), np.uint8)
    with torch.inference_mode():
        x = (torch.from_numpy(picture).float() / 255 - 0.5) / 0.25
        expected = network.last(x).numpy()
    assert expected.any()
    assert similarity.features(picture) == pytest.approx(expected, abs=1e-5)


def test_a_sibling_without_a_layer_is_refused(step, monkeypatch):
    monkeypatch.setitem(models.BUILDERS, "pale", lambda outputs: nn.Sequential(nn.Flatten(), nn.Linear(3 * 31**2, 3)))
    source = replace(step.sources[1], weights="random-7")
    with pytest.raises(StudyError, match="again has no non-linearity before its scores; leave it out"):
        job.sibling("again", source, "cpu")


def drop(name, **at):
    """Leaves out the rows of a table that have these values."""

    def change(step):
        step.rows[name] = [row for row in step.rows[name] if any(row[key] != value for key, value in at.items())]

    return change


def without_references(step):
    step.rows["trials"][1]["references"] = []


def with_references(step):
    step.rows["trials"][0]["references"] = step.rows["trials"][1]["references"]


def lost_stimulus(step):
    lost = step.rows["trials"][0]["base"]
    step.rows["stimuli"] = [row for row in step.rows["stimuli"] if row["stimulus"] != lost]


def other_picture(step):
    step.rows["stimuli"][0]["png"] = step.rows["stimuli"][1]["png"]


@pytest.mark.parametrize(
    ("change", "file", "message"),
    [
        (without_references, "trials", f"trial {named(0, 0, 'natural')} of condition natural has 0 references"),
        (with_references, "trials", f"trial {named(0, 0, 'none')} of condition none has 9 references"),
        (lost_stimulus, "stimuli", "picture [0-9a-f]{16} is missing"),
        (other_picture, "stimuli", "picture [0-9a-f]{16} is another than its name"),
        (drop("extremes", unit=1, set=1), "extremes", "has not every image set or reference of the units"),
        (drop("trials", unit=1, set=1), "trials", "has not the trials of the queries in .*extremes.parquet, once each"),
        (drop("units", unit=2), "sets", r"the units in .*units\.parquet once, in order"),
        (drop("sets", unit=3, set=0, side="bottom", role="base"), "sets", "has not every image of the image sets"),
        (drop("sets", unit=0, set=1, side="top", role="reference"), "sets", "has not every image of the image sets"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_tables_that_do_not_fit_are_refused_by_name(step, change, file, message):
    """With the file and the way out, and without a table behind."""
    change(step)
    with pytest.raises(StudyError, match=message) as refused:
        step.run(siblings=False)
    assert f"{step.path(MAIN, file)}: " in str(refused.value)
    assert "make it again: snakemake" in str(refused.value)
    assert not (step.tmp / "observers.parquet").exists()
