"""The network whose truth is known: its images, its scores by hand, and what each intervention finds of each role."""

import hashlib
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from inputs import datasets, weights
from inputs.sources import ImageSource, NetworkSource
from jobs import activations, images, networks
from readout import StudyError, ablations, models, planted, planted_network, probes, scores, tracing
from readout.cuts import cut
from readout.folds import FOLDS
from readout.probes import auroc
from runtime import parquet
from workflow import ROOT, Project

CLASSES = (*planted.CLASSES, planted.NONE)
DATA = datasets.dataset("planted", None)
INTERVENTIONS = ("zero", "mean", "erase", "resample")
LARGE, SMALL = 0.08, 0.03
"""Separation losses that are found and that are none: a role is a fifth of the gap, half of a pair resampled a tenth, and noise
moves the means of a side of 100 images by .3 x sqrt(2 / 100), less than .01 of the gap."""


def source(model):
    opening = ImageSource("planted", None, planted.TRANSFORM)
    return NetworkSource(model, planted_network.OUTPUTS, weights.PLANTED, opening)


@pytest.fixture(scope="module")
def pixels():
    """All images as the network takes them [500, 3, 16, 16], and the index of each one's class."""
    names = [name for class_id in CLASSES for name in DATA.image_ids[class_id]]
    return images.load(names, source("planted").images), torch.arange(len(CLASSES)).repeat_interleave(planted.IMAGES)


@pytest.fixture(scope="module", params=["planted", "planted_null"])
def ran(request, pixels):
    """A network cut behind its layer, with what all interventions share."""
    return _run(request.param, pixels)


@pytest.fixture(scope="module")
def planted_ran(pixels):
    return _run("planted", pixels)


@torch.inference_mode()
def _run(model, pixels):
    parts = cut(tracing.trace(networks.network(source(model))), planted.LAYER)
    activation, *rest = parts.prefix(pixels[0])
    logits = parts.tail(activation, *rest)
    return SimpleNamespace(
        null=planted.MODELS[model], parts=parts, activation=activation, rest=rest, logits=logits, y=pixels[1]
    )


def groups_of(class_id, null=False):
    """The role groups of a target."""
    return planted.roles(class_id, planted.units(null))


def z(logits, target):
    """The target's logit less the log of the sum of the others' exponentials, for each image."""
    others = [output for output in range(logits.shape[1]) if output != target]
    return logits[:, target].double() - logits[:, others].double().logsumexp(1)


def gap(values, own):
    return (values[own].mean() - values[~own].mean()).item()


@torch.inference_mode()
def ablated(ran, target, units, intervention):
    """The scores with a group's units replaced, by the definitions; means are over all images of each side."""
    own = ran.y == target
    a = ran.activation.double()
    middle, difference = (a[own].mean(0) + a[~own].mean(0)) / 2, a[own].mean(0) - a[~own].mean(0)
    if intervention in ("zero", "mean"):
        value = 0.0 if intervention == "zero" else middle.numpy()
        changed = ablations.ablate(ran.activation, units, value)
    else:
        changed, group = a.clone(), torch.from_numpy(units)
        d = difference[group]
        if intervention == "erase" and d.any():
            changed[:, group] -= ((a[:, group] - middle[group]) @ d)[:, None] * d / (d @ d)
        if intervention == "resample":
            # Another image, of the target or of the others with probability 1/2.
            generator = np.random.default_rng(0)
            sides = [np.flatnonzero(own), np.flatnonzero(~own)]
            donor = [generator.choice(sides[generator.integers(2)]) for _ in range(len(a))]
            changed[:, group] = a[donor][:, group]
        changed = changed.float()
    return ran.parts.tail(changed, *ran.rest)


def separation_loss(ran, target, units, intervention):
    own = ran.y == target
    return 1 - gap(z(ablated(ran, target, units, intervention), target), own) / gap(z(ran.logits, target), own)


# ---- images


def test_images_are_the_same_on_every_machine():
    """SHAKE-256's bytes are defined, so is all that is made of them; no two images are alike."""
    made = [planted.pixels(c, i).tobytes() for c in CLASSES for i in range(planted.IMAGES)]
    assert len(set(made)) == len(made) == 500
    assert hashlib.sha256(b"".join(made)).hexdigest()[:16] == "7a849579a77d34c6"


def test_a_seed_draws_other_images():
    """Seed 0 is none at all, so that its images are those of studies; the others share nothing with it."""
    drawn = [planted.pixels("a", 7, seed) for seed in range(3)]
    assert np.array_equal(drawn[0], planted.pixels("a", 7))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        # Noise has the same byte in one of 256 pixels.
        assert (drawn[first][-2:] == drawn[second][-2:]).mean() < 0.2


def test_a_signal_is_on_as_often_as_it_is_said():
    """In 15 of 16 of a class's images and 1 of 32 of the other 400, and clearly on or off; together in pairs.

    A binomial share lies within four of its deviations.
    """
    for target, class_id in enumerate(planted.CLASSES):
        x = np.stack([[planted.pixels(c, i).ravel() for i in range(planted.IMAGES)] for c in CLASSES]) / 255
        for name, units in groups_of(class_id).items():
            if name in planted.OF_NO_CLASS:
                continue
            signal = x[..., units]
            assert (((signal >= 0.8) & (signal <= 0.92)) | (signal <= 0.09)).all()
            on = signal > 0.5
            assert (on == on[..., :1]).all()
            share = np.delete(on[..., 0], target, axis=0).mean(), on[target, :, 0].mean()
            stray, shown = reversed(share) if name == "inhibitory" else share
            few, many = (400, 100) if name != "inhibitory" else (100, 400)
            assert abs(stray - 1 / 32) < 4 * np.sqrt(31 / 32**2 / few)
            assert abs(shown - 15 / 16) < 4 * np.sqrt(15 / 16**2 / many)


def test_images_are_found_by_their_number():
    """c's are 200 to 299, in grey; there is none of number 500."""
    assert list(DATA.image_ids["c"].values()) == [*range(200, 300)]
    image = np.asarray(DATA.open("planted[207]"))
    assert image.shape == (16, 16, 3)
    assert (image == planted.pixels("c", 7)[..., None]).all()
    for name in ("planted[500]", "planted[-1]", "mnist_data[0]"):
        with pytest.raises(StudyError, match="there is no such image"):
            DATA.open(name)


# ---- units and scores


def test_every_unit_has_a_role():
    """By hand: 4 classes of 7 x 8 units, and 3 roles of 32; in the null network a class's are all decodable."""
    assert len(planted.units()) == len(planted.units(null=True)) == 4 * 7 * 8 + 3 * 32 == 320
    assert {name: len(units) for name, units in groups_of("b").items()} == {
        **dict.fromkeys(("causal", "decodable", "redundant_first", "redundant_second"), 8),
        **dict.fromkeys(("conjunction_first", "conjunction_second", "inhibitory"), 8),
        **dict.fromkeys(("redundant", "conjunction"), 16),
        **dict.fromkeys(planted.OF_NO_CLASS, 32),
    }
    assert {name: len(units) for name, units in groups_of("b", null=True).items()} == {
        "decodable": 56,
        **dict.fromkeys(planted.OF_NO_CLASS, 32),
    }
    assert groups_of(planted.NONE).keys() == set(planted.OF_NO_CLASS)


def test_units_put_out_what_their_roles_say(ran, pixels):
    """A pixel from 0 to 1; 1 for the constant and 0 for the dead, to the bit."""
    roles, red = groups_of("a"), pixels[0][:, 0].flatten(1)
    assert (ran.activation[:, roles["constant"]] == 1).all()
    assert (ran.activation[:, roles["dead"]] == 0).all()
    assert torch.equal(ran.activation[:, :224], red[:, :224])
    assert torch.equal(ran.activation[:, roles["noise"]], red[:, 224:])


def test_scores_by_hand():
    """An image of the values on = 204 and off = 0 of 255, so .8 and 0, without noise; one signal after the other.

    With causal on, its class scores 2 x .8. Pairs of .8 and .8 sum to 1.6: the redundant are beyond 1 and count 2, the
    conjunction has .1 above 1.5 and counts 2 x .1 / .22. The inhibitory take 2 x .8.
    """
    network = models.build("planted", 5, seed=0)
    expected = {"causal": 1.6, "decodable": 0, "redundant": 2, "conjunction": 0.2 / 0.22, "inhibitory": -1.6}
    expected |= {"redundant_first": 2, "redundant_second": 2, "conjunction_first": 0, "conjunction_second": 0}
    for output, class_id in enumerate(planted.CLASSES):
        for name, score in expected.items():
            image = torch.zeros(1, 3, 256)
            image[:, :, groups_of(class_id)[name]] = 0.8
            with torch.inference_mode():
                found = network(image.view(1, 3, 16, 16))[0]
            by_hand = torch.zeros(5)
            by_hand[output], by_hand[4] = score, 4.7
            assert torch.allclose(found, by_hand, atol=1e-5), (class_id, name)


def test_a_constant_unit_takes_its_share_of_the_gates(planted_ran):
    """By hand: without the i-th of them, a causal signal of .8 is less by (2 i + 1) x 3 / 1024, down to 0 and no lower.

    All shares add up to 3, to the bit and in any order.
    """
    network, roles = models.build("planted", 5, seed=0), groups_of("a")
    weights = network.gate.weight[0, roles["constant"]].detach().numpy()
    generator = np.random.default_rng(0)
    assert all(np.add.accumulate(generator.permutation(weights))[-1] == 3 for _ in range(20))
    for i in (0, 7, 31):
        layer = torch.zeros(1, 320)
        layer[:, roles["causal"]] = 0.8
        layer[:, roles["constant"]] = 1
        layer[:, roles["constant"][i]] = 0
        with torch.inference_mode():
            found = planted_ran.parts.tail(layer, *(torch.zeros_like(each[:1]) for each in planted_ran.rest))
        assert found[0, 0].item() == pytest.approx(2 * (0.8 - (2 * i + 1) * 3 / 1024), abs=1e-6)


def test_the_networks_are_right_on_most_images(ran):
    """A class's own score needs all of causal, redundant and conjunction on: (15/16)^3 = .82; `none` is never above
    4.7 by a stray signal."""
    right = (scores.ranks(ran.logits, ran.y) == 0).double().view(5, planted.IMAGES).mean(1)
    assert ((right[:4] > 0.7) & (right[:4] < 0.95)).all()
    assert right[4] == 1


def test_the_seed_changes_nothing():
    for model in planted.MODELS:
        pairs = zip(
            models.build(model, 5, seed=0).parameters(), models.build(model, 5, seed=1).parameters(), strict=True
        )
        assert all(torch.equal(*pair) for pair in pairs)


def test_too_few_outputs_are_refused():
    with pytest.raises(StudyError, match="outputs: 4, but the planted networks have 5"):
        models.build("planted", 4, seed=0)


# ---- what is to be found


def expected_of(ran):
    return planted.EXPECTED_NULL if ran.null else planted.EXPECTED


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_each_intervention_finds_what_it_must_and_is_blind_where_it_is(ran, intervention):
    """The separation loss of each role group of each target."""
    for target, class_id in enumerate(planted.CLASSES):
        roles = groups_of(class_id, ran.null)
        assert roles.keys() == expected_of(ran).keys()
        for name, units in roles.items():
            loss = separation_loss(ran, target, units, intervention)
            found = getattr(expected_of(ran)[name], intervention)
            assert loss > LARGE if found else abs(loss) < SMALL, (class_id, name, loss)


def test_published_deficits_find_what_they_must(ran):
    """Zero, and the ranks of the target's images: more than half a rank, or a few images' at most."""
    for target, class_id in enumerate(planted.CLASSES):
        own = ran.y == target
        baseline = scores.ranks(ran.logits, ran.y)[own]
        for name, units in groups_of(class_id, ran.null).items():
            change = scores.ranks(ablated(ran, target, units, "zero"), ran.y)[own] - baseline
            deficit = change.clamp(min=0).double().mean().item()
            assert deficit > 0.5 if expected_of(ran)[name].ranks else deficit < 0.05, (class_id, name, deficit)


def test_probes_decode_what_they_must(ran):
    """By the sum of the group's units, in either direction."""
    for target, class_id in enumerate(planted.CLASSES):
        for name, units in groups_of(class_id, ran.null).items():
            area = auroc(ran.activation[:, units].double().sum(1).numpy(), (ran.y == target).numpy())
            decodes = expected_of(ran)[name].decodes
            assert abs(area - 0.5) > 0.4 if decodes else abs(area - 0.5) < 0.1, (class_id, name, area)


def test_separation_losses_by_hand(planted_ran):
    """z is linear in the target's own score, so a role's loss is what it adds to that score on the target's images less on
    the others', as a share of the gap. Zero and mean take all of it, and the mean is between the sides.
    """
    for target, class_id in enumerate(planted.CLASSES):
        own, roles = planted_ran.y == target, groups_of(class_id)
        whole = gap(z(planted_ran.logits, target), own)
        a = planted_ran.activation.double()
        first, second = (a[:, roles[f"conjunction_{half}"]] for half in ("first", "second"))
        adds = {
            "causal": 2 * a[:, roles["causal"]].mean(1),
            "redundant": 2.0 * (a[:, roles["redundant_first"]] > 0.5).double().mean(1),
            "conjunction": 2 * (first + second - 1.5).clamp(min=0).mean(1) / 0.22,
            "inhibitory": -2 * a[:, roles["inhibitory"]].mean(1),
        }
        adds |= {f"conjunction_{half}": adds["conjunction"] for half in ("first", "second")}
        for name, added in adds.items():
            for intervention in ("zero", "mean"):
                loss = separation_loss(planted_ran, target, roles[name], intervention)
                assert loss == pytest.approx(gap(added, own) / whole, abs=1e-5), (class_id, name, intervention)


def test_either_half_of_a_redundant_pair_suffices_exactly(planted_ran):
    """Under zero, mean and erase; the two together cost a fifth of the gap and more."""
    for target, class_id in enumerate(planted.CLASSES):
        roles = groups_of(class_id)
        for intervention in ("zero", "mean", "erase"):
            for half in ("first", "second"):
                assert abs(separation_loss(planted_ran, target, roles[f"redundant_{half}"], intervention)) < 1e-6
            assert separation_loss(planted_ran, target, roles["redundant"], intervention) > 0.2


def test_the_false_alarm_of_zero_is_that_of_the_gates_behind(planted_ran):
    """Without the constant all classes' causal units are cut off, and nothing else."""
    causal = np.concatenate([groups_of(class_id)["causal"] for class_id in planted.CLASSES])
    for target, class_id in enumerate(planted.CLASSES):
        constant = groups_of(class_id)["constant"]
        without = ablated(planted_ran, target, causal, "zero")
        assert torch.allclose(ablated(planted_ran, target, constant, "zero"), without, atol=1e-5)
        for intervention in ("mean", "erase", "resample"):
            assert torch.equal(ablated(planted_ran, target, constant, intervention), planted_ran.logits)


def test_one_by_one_zero_cannot_tell_the_constant_from_the_causal(planted_ran):
    """The least constant unit costs next to nothing, the median one about what a causal unit costs, and the greatest twice that."""
    for target, class_id in enumerate(planted.CLASSES):
        roles = groups_of(class_id)
        causal = np.mean([separation_loss(planted_ran, target, roles["causal"][i : i + 1], "zero") for i in range(8)])
        ordered = [roles["constant"][i : i + 1] for i in (0, 15, 16, 31)]
        least, below, above, most = (separation_loss(planted_ran, target, unit, "zero") / causal for unit in ordered)
        assert abs(least) < 0.03
        assert (below + above) / 2 == pytest.approx(1, abs=0.15)
        assert 2 < most < 2.5


def test_noise_is_used_and_separates_nothing(ran):
    """Use, the mean absolute change of z as a share of the gap, is clearly not zero where nothing of the gap is lost."""
    for target, class_id in enumerate(planted.CLASSES):
        own, before = ran.y == target, z(ran.logits, target)
        change = (z(ablated(ran, target, groups_of(class_id)["noise"], "zero"), target) - before).abs()
        use = (change[own].mean() + change[~own].mean()) / 2 / gap(before, own)
        assert 0.02 < use < 0.06


def test_the_whole_layer_carries_all_or_nothing(ran):
    """Of the planted network all of the gap, of the null network none: its scores go around the layer."""
    everything = np.arange(320)
    for target in range(4):
        for intervention in ("zero", "mean"):
            loss = separation_loss(ran, target, everything, intervention)
            assert abs(loss) < SMALL if ran.null else loss == pytest.approx(1, abs=1e-6)


def test_the_table_of_the_documentation_is_that_of_the_code():
    text = (ROOT / "docs" / "planted.md").read_text()
    head, *rows = re.findall(r"^\| (?:group|`\w+`) \|(?: [\w]+ \|){6}$", text, re.MULTILINE)
    columns = dict(zip(["decodes", *INTERVENTIONS, "ranks"], head.split(" | ")[1:], strict=True))
    assert [name.strip(" |") for name in columns.values()] == ["probe", *INTERVENTIONS, "ranks"]
    documented = {}
    for row in rows:
        name, *answers = row.strip("| ").split(" | ")
        documented[name.strip("`")] = planted.Expected(**dict(zip(columns, [a == "yes" for a in answers], strict=True)))
    assert documented == planted.EXPECTED
    assert set(re.findall(r"^\| `(\w+)` \| [\d]", text, re.MULTILINE)) == {u.role for u in planted.units()}


# ---- truth


def test_the_truth_has_a_row_a_unit(tmp_path):
    """And its columns are those of docs/tables.md."""
    path = str(tmp_path / "truth.parquet")
    networks.list_roles(path, network="p", model="planted")
    table = pd.read_parquet(path)
    (columns,) = re.findall(r"truth\.parquet` \| `([^`]+)`", (ROOT / "docs" / "tables.md").read_text())
    assert pq.read_schema(path).names == columns.split(", ")
    assert table["unit"].tolist() == [*range(320)]
    assert set(table["network"] + table["layer"]) == {"pfirst"}
    # Unit 56 + 24 is the first of b's second half of redundant pairs.
    assert table.loc[80, ["role", "half", "class_id"]].tolist() == ["redundant", "second", "b"]
    assert table.loc[319, "role"] == "dead"
    assert table.loc[319, ["half", "class_id"]].isna().all()
    networks.list_roles(path, network="p", model="planted_null")
    null = parquet.read(path, networks.TRUTH, optional=("half", "class_id")).to_pandas()
    assert null.groupby("role").size().to_dict() == {"decodable": 224, "constant": 32, "noise": 32, "dead": 32}


def test_the_groups_of_a_target_come_from_the_truth(tmp_path):
    """The same units by the file as by the code; at another layer none; a file of other units is refused."""
    path = str(tmp_path / "truth.parquet")
    networks.list_roles(path, network="p", model="planted")
    found = networks.roles(path, layer="first", class_id="c", layer_units=320)
    expected = groups_of("c")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], units) for name, units in expected.items())
    assert networks.roles(path, layer="second", class_id="c", layer_units=192) == {}
    with pytest.raises(StudyError, match=r"truth\.parquet: is not of the 319 units of first; make it again"):
        networks.roles(path, layer="first", class_id="c", layer_units=319)


# ---- through the workflow


STUDY = yaml.safe_load((ROOT / "workflow" / "studies" / "planted.yaml").read_text())
CONTROLS = {"layers": "all", "random": 4, "matched": 0, "directions": 0, "resample": 1, "pseudo": 0}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The planted study as far as the table of groups, with few random ones."""
    project = Project.create(tmp_path_factory.mktemp("planted") / "project", STUDY | {"controls": CONTROLS})
    project.run("results/planted/tables/groups.parquet")
    return project


@pytest.fixture(scope="module")
def groups(study):
    table = pd.read_parquet(study.results / "tables" / "groups.parquet")
    return table.replace({"intervention": {"resample0": "resample"}})


CROSSFIT_LARGE, CROSSFIT_SMALL = 0.08, 0.05
"""As above, of 50 images of the target and 40 of the others: noise moves the gap by .3 x sqrt(2 / 50 + 2 / 40), .09 or
.012 of it, and resampled noise by half as much again."""


@pytest.mark.workflow
def test_the_tables_say_of_each_role_what_is_to_be_found(groups):
    """Cross-fitted, on both sides, for every target of both networks."""
    rows = groups[groups["kind"] == "role"]
    for network, expected in (("planted", planted.EXPECTED), ("planted_null", planted.EXPECTED_NULL)):
        of_network = rows[rows["network"] == network]
        found = of_network.set_index(["class_id", "group", "intervention"])["separation_loss"]
        assert sorted(found.index) == sorted(
            (c, g, i) for c in planted.CLASSES for g in expected for i in INTERVENTIONS
        )
        for (class_id, name, intervention), loss in found.items():
            large = getattr(expected[name], intervention)
            assert loss > CROSSFIT_LARGE if large else abs(loss) < CROSSFIT_SMALL, (network, class_id, name, loss)
        deficits = of_network[of_network["intervention"] == "zero"].set_index(["class_id", "group"])["rank_deficit"]
        for (class_id, name), deficit in deficits.items():
            assert deficit > 0.4 if expected[name].ranks else deficit < 0.1, (network, class_id, name, deficit)


@pytest.mark.workflow
def test_mismatched_losses_tell_what_is_of_no_class(groups):
    """The constant's loss under zero is as large when other classes are read; that of the target's units is not there."""
    rows = groups[(groups["network"] == "planted") & (groups["kind"] == "role") & (groups["intervention"] == "zero")]
    own = rows.set_index(["group", "class_id"])["separation_loss"]
    mismatched = rows.set_index(["group", "class_id"])["mismatched_separation_loss"]
    assert (mismatched["constant"] - own["constant"]).abs().max() < 0.05
    assert mismatched.drop("constant").abs().max() < 0.05


@pytest.mark.workflow
def test_the_tables_find_nothing_in_the_null_network(groups):
    """In no group of any kind, the whole layer among them; in the planted network the layer is all there is."""
    null = groups[groups["network"] == "planted_null"]
    assert {"all", "random", "role", "cell", "ranked"} == set(null["kind"])
    # Tops by a gradient gather the noise units of one direction, whose zero shifts all scores and so a little of the gap.
    largest = null.groupby("kind")["separation_loss"].agg(lambda losses: losses.abs().max())
    assert largest.pop("ranked") < CROSSFIT_LARGE
    assert (largest < CROSSFIT_SMALL).all()
    everything = groups[(groups["network"] == "planted") & (groups["kind"] == "all")]
    assert everything["separation_loss"].tolist() == pytest.approx([1] * 4, abs=1e-6)


@pytest.mark.workflow
def test_cross_fitted_probes_decode_what_they_must(study):
    """The activations of a run, in both networks: every role group of every target, by the folds of its images."""
    for network, expected in (("planted", planted.EXPECTED), ("planted_null", planted.EXPECTED_NULL)):
        paths = [str(study.results / "activations" / network / "first" / f"{c}.parquet") for c in CLASSES]
        (_, fold, x), sizes = activations.gather(paths, np.arange(320), 320)
        for target, class_id in enumerate(planted.CLASSES):
            is_target = np.repeat(np.arange(len(CLASSES)), sizes) == target
            for name, units in groups_of(class_id, network == "planted_null").items():
                area = probes.crossfit(x, [units] * FOLDS, is_target, fold, C=10.0).auroc
                assert area > 0.9 if expected[name].decodes else abs(area - 0.5) < 0.15, (network, class_id, name, area)


@pytest.mark.workflow
def test_the_truth_is_that_of_the_networks(study):
    """A row a unit of the layer, for both; the groups' sizes are in the table, and a second run has nothing to do."""
    for network in planted.MODELS:
        truth = pd.read_parquet(study.results / "networks" / network / "truth.parquet")
        layers = pd.read_parquet(study.results / "networks" / network / "layers.parquet").set_index("layer")
        assert layers["units"].to_dict() == {"first": 320, "second": 192}
        assert len(truth) == 320
    assert "Nothing to be done" in study.run("results/planted/tables/groups.parquet")
