"""Simulations of the tests of the claims: worlds with the truth that they are said to have, a slice of them, the page."""

import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from commands import simulations
from readout import claims, worlds
from readout.verdicts import FAILS, HOLDS, OPEN
from workflow import ROOT

REGISTRY = yaml.safe_load((ROOT / "workflow" / "claims.yaml").read_text())["claims"]
PAGE = (ROOT / "docs" / "simulations.md").read_text()
CORRECTED = {claim["claim"]: next(test for test in claim["tests"] if test["role"] == "corrected") for claim in REGISTRY}


def entry(classes=4, coverage=0.95, wrong=0.01, **given):
    defaults = {"claim": 1, "role": "corrected", "measure": "m", "world": "w", "truth": HOLDS, "right": 0.5}
    return worlds.Entry(**(defaults | given), classes=classes, coverage=coverage, wrong=wrong)


@pytest.mark.parametrize("claim", sorted(worlds.WORLDS))
def test_worlds_have_the_truth_that_they_are_named_for(claim):
    """Of the corrected test: what is claimed is true in `effect` and in spite of noise, and at no bound."""
    expected = {"effect": HOLDS, "noisy": FAILS if claim == 7 else HOLDS, "at the bound": FAILS if claim == 5 else OPEN}
    for name, truth in expected.items():
        found, _ = worlds.truth([CORRECTED[claim]], worlds.WORLDS[claim][name], 10, 0)
        assert found == [truth], name
    (none,), _ = worlds.truth([CORRECTED[claim]], worlds.WORLDS[claim]["none"], 10, 0)
    assert none != HOLDS


def test_additive_worlds_are_no_interaction_and_hold_as_published():
    """Why claim 8 was not to be judged by the product of the bins."""
    published = next(test for test in REGISTRY[7]["tests"] if test["role"] == "published")
    found, _ = worlds.truth([published, CORRECTED[8]], worlds.WORLDS[8]["additive"], 10, 0)
    assert found == [HOLDS, OPEN]


def test_a_different_class_is_one_of_so_many():
    world = replace(worlds.WORLDS[1]["one class different"])
    drawn = world.noisier(0.0).draw(50, 10, np.random.default_rng(0))["alexnet_0"]
    inner = drawn.columns["auroc"][..., 1, :].mean((0, 2, 3))
    assert (inner > 0.8).tolist() == [True] + [False] * 9


def test_noise_of_images_is_not_shared_by_the_halves():
    """And weighs as many images as there are: 0.6 of them in half a."""
    world = worlds.WORLDS[7]["noisy"]
    columns = world.draw(200, 10, np.random.default_rng(0))["alexnet_0"].columns
    silent = world.noisier(0.0).draw(200, 10, np.random.default_rng(0))["alexnet_0"].columns
    noise = [columns[f"auroc{half}"] - silent["auroc"] for half in ("_a", "_b", "")]
    assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] == pytest.approx(0, abs=0.01)
    expected = 0.1 * np.array([1 / np.sqrt(0.6), 1 / np.sqrt(0.4), 1])
    assert [each.std() for each in noise] == pytest.approx(expected, rel=0.01)


def test_the_same_seed_gives_the_same_worlds():
    settings = {"classes": [4], "worlds": 5, "confidence": 0.95}
    first = list(worlds.simulate(REGISTRY[:1], **settings, seed=0))
    assert repr(first) == repr(list(worlds.simulate(REGISTRY[:1], **settings, seed=0)))
    assert repr(first) != repr(list(worlds.simulate(REGISTRY[:1], **settings, seed=1)))


@pytest.mark.parametrize("claim", sorted(CORRECTED))
def test_corrected_tests_do_not_err_where_they_give_a_verdict(claim):
    """200 worlds an entry, with the fewest classes: shares have deviations of up to 0.021 (of 0.9) and 0.015 (of 0.05)."""
    registry = [{**REGISTRY[claim - 1], "tests": [CORRECTED[claim]]}]
    least = CORRECTED[claim]["least_classes"]
    found = list(worlds.simulate(registry, classes=[least], worlds=200, confidence=0.95, seed=1))
    assert {each.world for each in found} == set(worlds.WORLDS[claim])
    for each in found:
        assert each.coverage > simulations.COVERAGE - 3 * 0.021, each
        assert each.wrong < simulations.WRONG + 3 * 0.015, each


def test_a_test_that_errs_is_found_out():
    """The negative control: intervals of half the confidence, and a relation without a word on its reliability."""
    registry = [{**REGISTRY[0], "tests": [CORRECTED[1]]}]
    found = list(worlds.simulate(registry, classes=[6], worlds=200, confidence=0.6, seed=0))
    assert any(each.coverage < 0.8 for each in found)
    relation = {
        **CORRECTED[7],
        "parts": [{k: v for k, v in p.items() if k != "reliable"} for p in CORRECTED[7]["parts"]],
    }
    registry = [{**REGISTRY[6], "tests": [relation]}]
    found = {e.world: e for e in worlds.simulate(registry, classes=[50], worlds=100, confidence=0.95, seed=0)}
    assert found["noisy"].wrong > 0.2


def test_plain_intervals_of_correlations_are_too_short(monkeypatch):
    """Why they are made on Fisher's scale."""
    from readout.estimands import ESTIMANDS

    registry = [{**REGISTRY[1], "tests": [CORRECTED[2]]}]

    def coverage():
        found = worlds.simulate(registry, classes=[6], worlds=400, confidence=0.95, seed=0)
        return next(each.coverage for each in found if each.world == "effect")

    fisher = coverage()
    plain = ESTIMANDS["depth_of_strips"]._replace(scale=claims.inference.PLAIN)
    monkeypatch.setitem(ESTIMANDS, "depth_of_strips", plain)
    assert coverage() < 0.9 < fisher


# ---- the page


def test_the_least_number_of_classes_is_behind_every_failure():
    good, bad = {"coverage": 0.95}, {"coverage": 0.89}
    assert simulations.least([entry(4), entry(6), entry(4, world="v")]) == 4
    assert simulations.least([entry(4), entry(6, **good), entry(4, world="v", **bad), entry(6, world="v")]) == 6
    assert simulations.least([entry(4), entry(6, wrong=0.06), entry(10)]) == 10
    assert simulations.least([entry(4), entry(6, **bad)]) is None


def test_the_page_by_hand():
    entries = [
        entry(4, 0.89, 0.02, right=0.25),
        entry(6, 0.951, 0.0, right=float("nan"), truth=OPEN),
        entry(4, 0.5, 0.5, role="published", measure="n"),
        entry(6, role="published", measure="n"),
    ]
    lines = simulations.page(entries, [4, 6]).splitlines()
    assert "| 1 | m | corrected | 6 |" in lines
    assert "With 4 classes there is no verdict on claim 1." in lines
    assert "With 6 classes there is a verdict on every claim." in lines
    assert "| w | holds | **89.0 / 2.0 / 25** | 95.1 / 0.0 / – |" in lines
    assert "| w | holds | 50.0 / 50.0 / 50 | 95.0 / 1.0 / 50 |" in lines
    assert not any("| n | published" in line for line in lines)


def test_the_registry_is_compared_with_the_simulations():
    registry = [{"claim": 1, "tests": [{"measure": "m", "role": "corrected", "least_classes": 4}]}]
    assert simulations.disagreements(registry, [entry(4)]) == []
    (said,) = simulations.disagreements(registry, [entry(4, wrong=0.2), entry(6)])
    assert said == "claim 1: m: least_classes: 4, but the simulations say 6"
    (said,) = simulations.disagreements(registry, [entry(4, wrong=0.2)])
    assert said.endswith("say null")


def test_the_registry_says_what_the_page_does():
    """Each test but the published ones, with its role and the least number of its classes; all worlds of all claims."""
    made = PAGE.partition(simulations.MARK)[2]
    found = re.findall(r"^\| (\d) \| (.+) \| (corrected|beside) \| (\d+|none) \|$", made, re.MULTILINE)
    assert found == [
        (str(claim["claim"]), test["measure"], test["role"], str(test["least_classes"] or "none"))
        for claim in REGISTRY
        for test in claim["tests"]
        if test["role"] != "published"
    ]
    for claim, known in worlds.WORLDS.items():
        section = re.search(rf"^## Claim {claim}\n(.*?)(?=^## |\Z)", made, re.MULTILINE | re.DOTALL)[1]
        assert set(re.findall(r"^\| ([a-z][^|]*) \| (?!truth)", section, re.MULTILINE)) == set(known)
