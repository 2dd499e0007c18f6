"""Feature visualisation: its parts by hand, on networks whose answer is known, and through the job."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from inputs import weights
from inputs.sources import ImageSource, NetworkSource
from jobs import image_sets, networks
from jobs import visualisations as job
from readout import StudyError, cuts, images, models, tracing, visualisations
from readout.visualisations import INFINITE, NO_RISE, OK, SILENT, Movement
from runtime import parquet


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- parametrisation


@pytest.mark.parametrize(("width", "size"), [(224, 256), (32, 36), (64, 74), (5, 7)])
def test_zeros_are_uniform_grey(width, size):
    """A spectrum of zeros is 0.5 everywhere; the border is 16 pixels of 224, and at least one."""
    drawn = visualisations.spectrum(2, width, seeded())
    assert drawn.shape == (2, 3, size, size // 2 + 1, 2)
    grey = visualisations.decoded(torch.zeros_like(drawn))
    assert grey.shape == (2, 3, size, size)
    assert (grey == 0.5).all()
    assert visualisations.cropped(grey, width).shape == (2, 3, width, width)


def test_the_start_is_gaussian():
    """Real and imaginary parts of standard deviation 0.01; the picture is nearly grey."""
    drawn = visualisations.spectrum(4, 224, seeded())
    assert drawn.mean().item() == pytest.approx(0, abs=1e-4)
    assert drawn.std().item() == pytest.approx(0.01, rel=0.01)
    assert 0.001 < (visualisations.decoded(drawn) - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("width", [32, 5])
def test_a_coefficient_by_hand(width):
    """Coefficient a at k waves a row adds 2 a / 4 k cos(2 pi k x / N); the mean adds a / 4. Of odd sizes, too."""
    drawn = torch.zeros_like(visualisations.spectrum(1, width, seeded()))
    size = drawn.shape[2]
    drawn[0, 0, 0, 0, 0], drawn[0, 1, 0, 2, 0] = 4, 8
    found = visualisations.decoded(drawn)[0]
    wave = 2 * torch.cos(2 * math.pi * 2 * torch.arange(size) / size)
    largest = math.sqrt(0.26**2 + 2 * 0.27**2)
    for colour, (first, second) in zip(found, [(0.26, 0.09), (0.27, 0.0), (0.27, -0.09)], strict=True):
        expected = ((first + second * wave) / largest).sigmoid()
        assert torch.allclose(colour, expected.expand(size, size), atol=1e-6)


def test_the_border_is_cut_off_on_all_sides():
    """The centre of 8 pixels is what is left of 12."""
    whole = torch.arange(144.0).view(1, 1, 12, 12)
    assert torch.equal(visualisations.cropped(whole, 8), whole[..., 2:10, 2:10])


# ---- movements

WIDTH, SIZE = 8, 12


def canvas():
    return torch.rand(2, 3, SIZE, SIZE, generator=seeded(3))


def moved(**by):
    return visualisations.moved(canvas(), WIDTH, Movement(**by))


def test_no_movement_is_the_crop():
    assert torch.allclose(moved(), canvas()[..., 2:10, 2:10], atol=1e-5)


def test_shifts_are_down_and_right_and_add_up():
    """A picture that is moved down by one shows at the top what lay above."""
    assert torch.allclose(moved(first=(1, 0)), canvas()[..., 1:9, 2:10], atol=1e-5)
    assert torch.allclose(moved(second=(0, -2)), canvas()[..., 2:10, 4:12], atol=1e-5)
    assert torch.allclose(moved(first=(1, 1), second=(1, -2)), canvas()[..., 0:8, 3:11], atol=1e-5)


def test_turns_and_scales_are_about_the_centre():
    """A quarter turn is torch's; at twice the scale a ramp has half the slope and the same centre."""
    turned = moved(degrees=90)
    assert torch.allclose(turned, torch.rot90(canvas(), -1, (2, 3))[..., 2:10, 2:10], atol=1e-5)
    # The second shift is of the turned picture.
    assert torch.allclose(moved(degrees=90, second=(1, 0))[..., 1:, :], turned[..., :-1, :], atol=1e-5)
    # The first is turned with it: down becomes left.
    assert torch.allclose(moved(degrees=90, first=(1, 0))[..., :-1], turned[..., 1:], atol=1e-5)
    ramp = torch.arange(SIZE, dtype=torch.float32).expand(1, 3, SIZE, SIZE)
    seen = visualisations.moved(ramp, WIDTH, Movement(scale=2.0))[0, 0, 0]
    assert torch.allclose(seen, 5.5 + (torch.arange(8) - 3.5) / 2, atol=1e-5)


def test_beyond_the_border_is_its_reflection():
    """A shift by more than the border shows the border twice."""
    assert torch.allclose(moved(first=(3, 0))[:, :, 0], canvas()[:, :, 0, 2:10], atol=1e-5)


@pytest.mark.parametrize(("width", "first", "second"), [(224, 8, 4), (32, 1, 1), (64, 2, 1)])
def test_movements_are_drawn_from_what_is_published(width, first, second):
    """Crops by 16 and by 8 are shifts by up to 8 and 4 pixels; five scales; whole degrees; each equally often."""
    generator = seeded()
    drawn = [visualisations.movement(width, generator) for _ in range(3000)]
    assert {by.first[axis] for by in drawn for axis in (0, 1)} == set(range(-first, first + 1))
    assert {by.second[axis] for by in drawn for axis in (0, 1)} == set(range(-second, second + 1))
    assert {by.scale for by in drawn} == {1, 0.975, 1.025, 0.95, 1.05}
    counts = np.unique([by.degrees for by in drawn], return_counts=True)
    assert counts[0].tolist() == list(range(-5, 6))
    assert counts[1].min() > 3000 / 11 - 5 * math.sqrt(3000 / 11)
    # Rows and columns are drawn apart.
    assert any(by.first[0] != by.first[1] for by in drawn)


# ---- diversity


@pytest.mark.parametrize("pictures", [2, 9])
@pytest.mark.parametrize("shape", [(5, 4, 4), (5,), (5, 1, 1)])
def test_equal_pictures_are_as_many_as_there_are_less_one(pictures, shape):
    """D of B identical Gram matrices is B - 1, whatever their size."""
    layer = torch.rand(1, *shape, generator=seeded()).expand(pictures, *shape) * 7
    assert visualisations.likeness(layer).item() == pytest.approx(pictures - 1, rel=1e-5)


def test_likeness_by_hand():
    """Channels of their own: 0. diag(1, 0) and the identity: 1 / sqrt(2). Vectors: their cosine squared."""
    apart = torch.zeros(2, 2, 1, 2)
    apart[0, 0], apart[1, 1] = 1, 1
    assert visualisations.likeness(apart).item() == 0
    half = torch.zeros(2, 2, 1, 2)
    half[0, 0, 0, 0] = 3
    half[1] = torch.eye(2).view(2, 1, 2)
    # The sum over (i, j) and (j, i), by two pictures.
    assert visualisations.likeness(half).item() == pytest.approx(0.7071, abs=1e-4)
    vectors = torch.tensor([[1.0, 0], [1, 1], [0, 5]])
    assert visualisations.likeness(vectors).item() == pytest.approx(2 * (0.5 + 0 + 0.5) / 3)
    assert visualisations.likeness(vectors[:1]).item() == 0
    # As matrices of one position, and of the same at two.
    assert visualisations.likeness(vectors[:, :, None]).item() == pytest.approx(2 / 3)
    assert visualisations.likeness(vectors[:, :, None].expand(3, 2, 2)).item() == pytest.approx(2 / 3)


def test_a_silent_layer_has_no_likeness_and_a_gradient():
    """Zeros are like nothing; the gradient is finite."""
    for shape in ((2, 3, 4, 4), (2, 3)):
        layer = torch.zeros(shape, requires_grad=True)
        visualisations.likeness(layer).backward()
        assert visualisations.likeness(layer).item() == 0
        assert layer.grad.isfinite().all()


def test_the_objective_is_less_by_a_hundred_times_the_likeness():
    value, layer = torch.tensor([3.0, 5.0]), torch.tensor([[1.0, 0], [1, 1]])
    assert visualisations.objective(value, layer, 0).item() == 4
    assert visualisations.objective(value, layer, 100).item() == pytest.approx(4 - 100 * 0.5)


# ---- ReLUs that are shut


class Chain(nn.Module):
    """A non-linearity between two dense layers of two units each, the identity."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.module = kind, {"relu": nn.ReLU(inplace=True), "relu6": nn.ReLU6()}.get(kind)

    def forward(self, x):
        if self.module is not None:
            return self.module(x) * 2
        return {"function": F.relu, "function6": F.relu6, "method": torch.Tensor.relu}[self.kind](x) * 2


def chain(kind):
    traced = tracing.trace(Chain(kind))
    return cuts.cut(traced, [*traced.graph.nodes][-2].name).prefix


@pytest.mark.parametrize("kind", ["relu", "relu6", "function", "function6"])
def test_what_would_open_a_shut_image_passes(kind):
    """Nothing changes for an image that lets anything pass; one that does not gets what would open it."""
    x = torch.tensor([[-1.0, 2.0], [-1.0, -2.0], [0.0, -3.0]], requires_grad=True)
    before = chain(kind)
    redirected = visualisations.redirected(before)
    assert torch.equal(redirected(x)[0], before(x)[0])
    # Of a loss: a negative gradient says that more would be better.
    push = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    (plain,) = torch.autograd.grad((before(x)[0] * push).sum(), x)
    (found,) = torch.autograd.grad((redirected(x)[0] * push).sum(), x)
    assert plain.tolist() == [[0, -2], [0, 0], [0, 0]]
    assert found.tolist() == [[0, -2], [-2, 0], [0, 0]]


def test_a_ceiling_opens_downwards():
    """ReLU6 is shut above 6, too; a ReLU is not."""
    x = torch.tensor([[7.0, 8.0]], requires_grad=True)
    push = torch.tensor([[1.0, -1.0]])
    for kind, expected in (("relu6", [[2, 0]]), ("relu", [[2, -2]])):
        (found,) = torch.autograd.grad((visualisations.redirected(chain(kind))(x)[0] * push).sum(), x)
        assert found.tolist() == expected


# ---- optimisation, on units whose answer is known

SETTINGS = {"width": 16, "batch": 2, "steps": 24, "learning_rate": 0.05, "diversity": 0.0}
PLAIN = {"mean": [0.5] * 3, "std": [0.5] * 3}


def pattern():
    """A zero-mean filter [3, 16, 16] of norm 1, in grey: a bright L."""
    made = torch.zeros(16, 16)
    made[:, :6], made[11:] = 1, 1
    made = made - made.mean()
    return (made / made.norm() / math.sqrt(3)).expand(3, 16, 16)


def matched(x):
    """The matched filter's response, and a layer of two units."""
    value = (x * pattern()).sum((1, 2, 3))
    return value, torch.stack([value, x.mean((1, 2, 3))], 1)


def synthesised(activation=matched, seed=0, **changes):
    return visualisations.synthesise(activation, generator=seeded(seed), **(SETTINGS | PLAIN | changes))


def test_the_picture_of_a_matched_filter_is_its_pattern():
    """Pictures in [0, 1], cropped to the width, that show the pattern, and not the start's noise."""
    result = synthesised()
    assert result.images.shape == (2, 3, 16, 16)
    assert result.images.min() >= 0 and result.images.max() <= 1
    assert result.status == (OK, OK) and result.steps == 24
    assert (result.activation > result.start).all()

    def shown(one):
        return torch.corrcoef(torch.stack([one.flatten(), pattern().flatten()]))[0, 1]

    assert all(shown(one) > 0.9 for one in result.images)
    assert all(shown(one.flip(2)) < 0.5 for one in result.images)
    start = synthesised(steps=0)
    assert abs(shown(start.images[0])) < 0.5
    assert torch.equal(start.activation, start.start)


def test_activations_are_of_the_pictures_that_are_given():
    """Without their border, unmoved, and normalised by mean and deviation of each colour."""
    mean, std = torch.tensor([0.1, 0.5, 0.7]), torch.tensor([0.2, 0.5, 1.0])
    result = synthesised(steps=5, mean=mean.tolist(), std=std.tolist(), diversity=1.0)
    seen = (result.images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    value, layer = matched(seen)
    assert torch.allclose(result.activation, value, atol=1e-5)
    assert result.likeness == pytest.approx(visualisations.likeness(layer).item(), rel=1e-5)
    assert (result.diversity, result.steps) == (1, 5)


def test_more_steps_drive_a_unit_more():
    means = [synthesised(steps=steps).activation.mean().item() for steps in (0, 2, 8, 32)]
    assert means == sorted(means) and means[-1] > 2 * max(means[1], 0.1)


def test_one_seed_one_result():
    """The same seed gives the same bits, another others; nothing else is drawn from."""
    torch.manual_seed(1)
    first = synthesised()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = synthesised()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.images, again.images) and torch.equal(first.start, again.start)
    other = synthesised(seed=1)
    assert not torch.equal(first.images, other.images) and not torch.equal(first.start, other.start)
    # Two pictures of a batch start apart.
    assert not torch.equal(first.images[0], first.images[1])


def test_it_works_whatever_mode_the_caller_is_in():
    plain = synthesised(steps=3).images
    with torch.inference_mode():
        assert torch.equal(synthesised(steps=3).images, plain)
    with torch.no_grad():
        assert torch.equal(synthesised(steps=3).images, plain)


def test_diversity_keeps_pictures_apart():
    """Of a unit that has two ways to be driven, both are taken; without the term pictures are more alike."""

    def either(x):
        sides = F.avg_pool2d(x.mean(1, keepdim=True), (16, 8)).flatten(1).relu() + 0.01
        return sides.sum(1), sides

    alike, apart = (synthesised(either, diversity=weight, steps=60) for weight in (0.0, 1.0))
    assert apart.likeness < alike.likeness - 0.2


def test_every_step_and_each_seed_moves_the_picture(monkeypatch):
    """Every step asks for a movement, from the one generator."""
    drawn = []
    real = visualisations.movement

    def counted(width, generator):
        drawn.append(real(width, generator))
        return drawn[-1]

    monkeypatch.setattr(visualisations, "movement", counted)
    synthesised(steps=7)
    assert len(drawn) == 7 and len(set(drawn)) > 1


def test_a_way_round_shut_non_linearities_in_the_first_steps_alone():
    """A unit that no gradient reaches is driven with the way round, and is not without it."""
    traced = tracing.trace(nn.Sequential(nn.Flatten(), Matched(bias=-1.0), nn.ReLU()))
    parts = cuts.cut(traced, [*traced.graph.nodes][-2].name)
    calls = {"opening": 0, "plain": 0}

    def of(prefix, name):
        def activation(x):
            calls[name] += x.requires_grad
            layer = prefix(x)[0]
            return layer[:, 0], layer

        return activation

    plain = of(parts.prefix, "plain")
    dead = synthesised(plain)
    assert dead.status == (SILENT, SILENT) and dead.steps == 24
    assert torch.equal(dead.images, synthesised(plain, steps=0).images)
    calls["plain"] = 0
    way = of(visualisations.redirected(parts.prefix), "opening")
    driven = synthesised(plain, opening=way)
    assert driven.status == (OK, OK)
    assert calls == {"opening": 16, "plain": 8}


class Matched(nn.Linear):
    """The matched filter as a dense layer of one unit."""

    def __init__(self, bias):
        super().__init__(3 * 16 * 16, 1)
        with torch.no_grad():
            self.weight.copy_(pattern().reshape(1, -1))
            self.bias.fill_(bias)


def test_what_is_climbed_may_differ_from_what_is_measured():
    """A unit behind a non-linearity is driven by its input; numbers are those behind it."""

    def behind(x):
        value, layer = matched(x)
        return (value - 1).relu(), layer * 0

    assert synthesised(behind).status == (SILENT, SILENT)
    result = synthesised(behind, climbed=matched)
    assert torch.equal(result.images, synthesised().images)
    assert torch.allclose(result.activation, synthesised().activation - 1)
    assert (result.start == 0).all()
    assert result.likeness == pytest.approx(synthesised().likeness)


def test_a_unit_that_cannot_be_driven_is_told():
    """Silent, falling, or not finite: words, never an error."""
    constant = lambda x: (0 * matched(x)[0], matched(x)[1])  # noqa: E731
    assert synthesised(constant).status == (SILENT, SILENT)
    assert synthesised(lambda x: (0 * matched(x)[0] + 2, matched(x)[1])).status == (NO_RISE, NO_RISE)

    def breaks(x):
        value, layer = matched(x)
        return value.masked_fill(value > 5, math.nan), layer

    result = synthesised(breaks)
    assert result.status == (INFINITE, INFINITE)
    assert 0 < result.steps < 24
    assert result.images.isfinite().all()
    nothing = synthesised(lambda x: (matched(x)[0] * math.nan, matched(x)[1]))
    assert (nothing.status, nothing.steps) == ((INFINITE, INFINITE), 0)


def test_a_gradient_that_is_not_finite_ends_the_steps():
    """The objective may be finite where its gradient is not: the root of 0."""
    result = synthesised(lambda x: ((matched(x)[0] * 0).sqrt(), matched(x)[1]))
    assert (result.steps, result.status) == (0, (INFINITE, INFINITE))
    assert result.images.isfinite().all()


@pytest.mark.parametrize(
    ("activation", "start", "expected"),
    [
        *[(2, 1, OK), (1, 1, NO_RISE), (-2, -1, NO_RISE), (-1, -2, OK), (0, 0, SILENT), (0, 1, NO_RISE), (0, -1, OK)],
        *[(math.nan, 0, INFINITE), (1, math.nan, INFINITE), (math.inf, 0, INFINITE)],
    ],
)
def test_status_by_hand(activation, start, expected):
    assert visualisations.status(activation, start) == expected


def test_an_activation_of_more_than_one_unit_is_refused():
    with pytest.raises(StudyError, match=r"one number for each picture, \[2\].* are \[2, 2\] numbers"):
        synthesised(lambda x: (matched(x)[1], matched(x)[1]))
    with pytest.raises(StudyError, match="1 layers"):
        synthesised(lambda x: (matched(x)[0], matched(x)[1][:1]))


# ---- the weight of diversity


def falling(weight, tried=None):
    """A result whose weakest picture falls below 10 by the weight."""
    if tried is not None:
        tried.append(weight)
    return SimpleNamespace(activation=torch.tensor([99.0, 10 - weight], dtype=torch.float64), weight=weight)


@pytest.mark.parametrize(("strongest", "limit", "high"), [(3, 7, 10), (9.7, 0.3, 1), (-400, 410, 1000)])
def test_the_largest_weight_that_beats_the_photographs(strongest, limit, high):
    """Within a 128th of the interval that tens leave, and from below."""
    found = visualisations.most_diverse(falling, strongest).weight
    low = high / 10 if high > 1 else 0
    assert limit - (high - low) / 128 <= found < limit


def test_weights_that_are_tried():
    """By tens below a million where all pass; where none does, the pictures are those without the term."""
    tried = []
    assert visualisations.most_diverse(lambda weight: falling(weight, tried), -math.inf).weight == 100_000
    assert tried == [1, 10, 100, 1000, 10_000, 100_000]
    tried.clear()
    assert visualisations.most_diverse(lambda weight: falling(weight, tried), 50).weight == 0
    assert tried == [1, *(2.0**-i for i in range(1, 8)), 0]


# ---- the job

MODEL = "small_alexnet"


def units_table(path, rows):
    """A table of units from what the job reads of them."""
    others = {"weight": 1.0, "least": 0.0, "most": 1.0, "driving": 9, "sparsity": 0.5, "contrast": 1.0}
    parquet.write(path, [others | row for row in rows], image_sets.UNITS)


def sets_table(path, rows):
    """A table of image sets from units and the activations on the images of one set of either side, the base last."""
    found = []
    for (unit, side), values in rows.items():
        for number, value in enumerate(values):
            role = "base" if number == len(values) - 1 else "reference"
            row = {"unit": unit, "set": 0, "side": side, "role": role, "bin": number, "rank": 0, "image_id": 0}
            found.append(row | {"image_class": "0", "source": "x", "activation": value})
    parquet.write(path, found, image_sets.SETS)


@pytest.fixture
def study(tmp_path):
    """Files of conv3 (96 channels of 4 x 4) of the shipped AlexNet: three units of a cell and one of another."""
    transform = {"resize": None, "crop": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    source = NetworkSource(MODEL, 10, weights.stamped(MODEL), ImageSource("digits", None, transform))
    file = {name: str(tmp_path / f"{name}.parquet") for name in ("layers", "units", "sets", "visualisations")}
    networks.list_layers(file["layers"], source=source, chosen=["conv3"], cells=16, device="cpu")
    rows = [
        {"cell": "s0m1", "draw": 0, "unit": 5 * 16 + 6, "channel": 5, "status": "ok"},
        {"cell": "s1m0", "draw": 0, "unit": 7 * 16, "channel": 7, "status": "ok"},
        {"cell": "s0m1", "draw": 1, "unit": 2 * 16 + 1, "channel": 2, "status": "constant over the pool"},
        {"cell": "s0m1", "draw": 2, "unit": 30, "channel": 1, "status": "ok"},
    ]
    units_table(file["units"], rows)
    values = {"top": (1.0, 3.0, 9.0), "bottom": (8.0, 8.0, 8.0)}
    sets = {
        (row["unit"], side): [value + row["draw"] for value in of_side]
        for row in rows
        for side, of_side in values.items()
    }
    sets_table(file["sets"], sets)
    return SimpleNamespace(source=source, file=file, rows=rows, sets=sets)


def run(study, **changes):
    """What the job says, and the rows that it writes."""
    given = {f"path_to_{name}": path for name, path in study.file.items()}
    given |= {"network": "alexnet", "layer": "conv3", "class_id": "0", "cell": "s0m1", "source": study.source}
    given |= {"device": "cpu", "unit": "unit", "batch": 3, "steps": 20, "learning_rate": 0.05, "diversity": 0.01}
    said = job.synthesise(**(given | {"seed": 0} | changes))
    return said, parquet.read(study.file["visualisations"], job.SCHEMA, optional=job.OPTIONAL, empty=True).to_pylist()


def opened(png):
    return Image.open(io.BytesIO(png))


def test_what_the_job_writes(study):
    """Units in order, both batches of each, and a row for the one that has no trials."""
    said, rows = run(study)
    pictures = [("synthetic", i) for i in range(3)] + [("mixed", i) for i in range(4)]
    expected = (
        [(30, *picture) for picture in pictures] + [(33, "synthetic", 0)] + [(86, *picture) for picture in pictures]
    )
    assert [(row["unit"], row["batch"], row["index"]) for row in rows] == expected
    without = rows[7]
    assert without["status"] == "constant over the pool" and without["steps"] == 0
    assert all(without[name] is None for name in job.OPTIONAL)
    for row in rows[:7] + rows[8:]:
        assert (row["strongest"], row["steps"], row["diversity"]) == (3 if row["unit"] == 86 else 5, 20, 0.01)
        assert opened(row["png"]).mode == "RGB" and opened(row["png"]).size == (32, 32)
        assert row["status"] == visualisations.status(row["activation"], row["start"])
        assert 0 <= row["likeness"] <= 3
    failed = sum(row["status"] != OK for row in rows)
    assert said == f"14 pictures of 2 units; of 15 rows {failed} tell of a failure"
    # Of a unit that is alive all pictures drive it.
    assert failed < 5


@pytest.mark.parametrize("unit", ["unit", "channel"])
def test_activations_are_of_the_pictures_as_saved(study, unit):
    """Opened as any image of the study, and through the plain network, whole."""
    _, rows = run(study, unit=unit)
    network = tracing.trace(networks.network(study.source))
    (row,) = [row for row in parquet.read(study.file["layers"]).to_pylist() if row["layer"] == "conv3"]
    prepare = images.transform(**study.source.images.transform)
    for each in [row for row in rows if row["unit"] == 86]:
        image = prepare(opened(each["png"]))[None]
        with torch.no_grad():
            before = cuts.cut_before(network, row["node"]).prefix(image)[0][0]
        value = before[5].mean() if unit == "channel" else before[5, 1, 2].relu()
        assert each["activation"] == pytest.approx(value.item(), rel=1e-4, abs=1e-5)
        assert each["status"] == OK
        assert each["activation"] > each["start"]


@pytest.mark.parametrize("unit", ["unit", "channel"])
def test_every_unit_that_is_sampled_is_driven_above_its_start(study, unit):
    """What is maximised rises, of each batch of each unit: of six of the layer's channels, spread over it.

    Of scalars a unit may stay silent at the start and at the end, as one of these does, and is told so; none falls.
    """
    place = 0 if unit == "channel" else 6
    rows = [{"draw": i, "unit": 16 * c + place, "channel": c} for i, c in enumerate(range(1, 96, 16))]
    units_table(study.file["units"], [row | {"cell": "s0m1", "status": "ok"} for row in rows])
    sets_table(study.file["sets"], {(row["unit"], side): (1.0, 3.0) for row in rows for side in ("top", "bottom")})
    _, found = run(study, unit=unit, batch=2, diversity=0.0)
    batches = {}
    for row in found:
        batches.setdefault((row["unit"], row["batch"]), []).append(row)
    assert len(batches) == 2 * len(rows)
    silent = {of for of, own in batches.items() if {row["status"] for row in own} == {SILENT}}
    assert len(silent) <= (2 if unit == "unit" else 0)
    for of, own in batches.items():
        if of not in silent:
            # Without a weight of diversity the objective is the mean of the activations.
            assert np.mean([row["activation"] for row in own]) > np.mean([row["start"] for row in own])


class Shut(nn.Module):
    """Two dense layers of one unit for images [3, 2, 2]: reds less 1, and what passes less 0.5; both shut at the start."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 1), nn.Linear(1, 1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        with torch.no_grad():
            self.first.weight.copy_((torch.arange(12) < 4).float()[None])
            self.first.bias.fill_(-1)
            self.second.weight.fill_(1)
            self.second.bias.fill_(-0.5)

    def forward(self, x):
        return self.relu2(self.second(self.relu1(self.first(x.flatten(1))))) * 1


def test_the_job_climbs_before_the_non_linearity_and_finds_a_way_round():
    """A unit behind two shut ReLUs is driven: by its input all along, and through the first ReLU's way round."""
    traced = tracing.trace(Shut())
    before, behind = cuts.cut_before(traced, "relu2").prefix, cuts.cut(traced, "relu2").prefix
    row = {"axes": "features", "shape": [1]}
    of = [before, behind, visualisations.redirected(before), "unit", torch.device("cpu"), 2, [0.5] * 3, [0.5] * 3, row]
    settings = {"batch": 2, "learning_rate": 0.05, "diversity": 0.0}
    network = job._Network(*of)
    driven = network.synthesised(0, steps=40, generator=seeded(), **settings)
    assert driven.status == (OK, OK) and (driven.start == 0).all()
    without = job._Network(before, behind, before, *of[3:])
    assert without.synthesised(0, steps=40, generator=seeded(), **settings).status == (SILENT, SILENT)
    # What is climbed after the first 16 steps is the input.
    seen = []

    def counted(x):
        seen.append(before(x)[0].detach())
        return before(x)

    watched = job._Network(counted, behind, before, *of[3:])
    watched.synthesised(0, steps=20, generator=seeded(), **settings)
    # At the start and at the end for D, and in the last four steps.
    assert len(seen) == 6


def test_what_eight_bits_lose_counts():
    """Pixels are rounded to the nearest; a picture that no longer drives its unit once saved is not "ok"."""
    pictures = torch.full((2, 3, 2, 2), 0.999)
    result = visualisations.Result(pictures, torch.tensor([3.0, 3]), torch.tensor([1.0, 1]), 0.5, 1.0, 7, (OK, OK))
    saved = []

    def of_saved(place, pngs):
        saved.extend(pngs)
        return [0.9, 2.0]

    rows = job._rows(SimpleNamespace(of_saved=of_saved), 0, result)
    assert [(row["activation"], row["status"]) for row in rows] == [(0.9, NO_RISE), (2.0, OK)]
    assert [row["png"] for row in rows] == saved
    assert (np.asarray(opened(saved[0])) == 255).all()


def test_bytes_depend_on_the_seed_and_the_coordinates(study):
    """The same twice; others with another seed, network, layer's class, or batch; and not on what else is in the cell."""
    pngs = lambda rows: {(row["unit"], row["batch"], row["index"]): row["png"] for row in rows}  # noqa: E731
    first = pngs(run(study, steps=3)[1])
    assert pngs(run(study, steps=3)[1]) == first
    for changes in ({"seed": 1}, {"network": "other"}, {"class_id": "1"}):
        other = pngs(run(study, steps=3, **changes)[1])
        assert all(other[key] != png for key, png in first.items() if png)
    assert first[30, "synthetic", 0] != first[30, "mixed", 0]
    units_table(study.file["units"], [row for row in study.rows if row["unit"] == 86])
    sets_table(study.file["sets"], {key: values for key, values in study.sets.items() if key[0] == 86})
    alone = pngs(run(study, steps=3)[1])
    assert alone == {key: png for key, png in first.items() if key[0] == 86}


def test_a_batch_of_four_serves_both(study):
    _, rows = run(study, batch=4, steps=2)
    of = {
        name: [(row["png"], row["activation"]) for row in rows if (row["unit"], row["batch"]) == (86, name)]
        for name in ("synthetic", "mixed")
    }
    assert of["synthetic"] == of["mixed"] and len(of["mixed"]) == 4


def test_a_weight_of_diversity_for_each_unit(study):
    """Without one it is searched: the pictures beat the photographs, or the weight is 0."""
    first = study.rows[0]["unit"]
    weak = {key: [value / 20 for value in values] for key, values in study.sets.items() if key[0] == first}
    sets_table(study.file["sets"], weak)
    units_table(study.file["units"], study.rows[:1])
    _, rows = run(study, diversity=None, steps=8)
    weights_found = {(row["unit"], row["batch"]): row["diversity"] for row in rows if row["png"]}
    assert max(weights_found.values()) > 0
    for row in rows:
        if row["diversity"]:
            assert row["activation"] > row["strongest"] - 1e-2


class Dead(nn.Module):
    """A dense layer of 4 units for images [3, 2, 2]: the sum of reds, a dead unit, one that overflows, and a constant."""

    def __init__(self, outputs=3):
        super().__init__()
        self.dense, self.relu, self.scores = nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, outputs)
        with torch.no_grad():
            self.dense.weight.zero_()
            self.dense.weight[0, :4] = 1
            self.dense.weight[2, :4] = 3e38
            self.dense.bias.copy_(torch.tensor([0.0, -5, 1e38, 3]))

    def forward(self, x):
        return self.scores(self.relu(self.dense(x.flatten(1))))


def test_units_that_cannot_be_driven_are_in_the_table(tmp_path, monkeypatch):
    """A driven one, a dead one, one that overflows, and a constant one; in a dense layer, of either kind."""
    monkeypatch.setitem(models.BUILDERS, "dead", Dead)
    torch.save(Dead().state_dict(), tmp_path / "weights.pt")
    transform = {"resize": None, "crop": 2, "mean": [0.5] * 3, "std": [0.5] * 3}
    source = NetworkSource("dead", 3, str(tmp_path / "weights.pt"), ImageSource("digits", None, transform))
    file = {name: str(tmp_path / f"{name}.parquet") for name in ("layers", "units", "sets", "visualisations")}
    # By hand: a network with such a unit is refused.
    known = {
        "layer": "dense1",
        "node": "relu",
        "module": "relu",
        "depth": 0,
        "axes": "features",
        "shape": [4],
        "units": 4,
    }
    parquet.write(file["layers"], [known], networks.LAYERS)
    rows = [{"cell": "s0m0", "draw": i, "unit": i, "channel": i, "status": "ok"} for i in range(4)]
    units_table(file["units"], rows)
    sets_table(file["sets"], {(i, side): [1.0, 1.0] for i in range(4) for side in ("top", "bottom")})
    study = SimpleNamespace(source=source, file=file)
    for unit, silent in (("unit", SILENT), ("channel", NO_RISE)):
        said, found = run(study, layer="dense1", cell="s0m0", batch=2, diversity=0.0, unit=unit)
        status = {i: {row["status"] for row in found if row["unit"] == i} for i in range(4)}
        assert status == {0: {OK}, 1: {silent}, 2: {INFINITE}, 3: {NO_RISE}}
        assert all(row["png"] for row in found)
        assert said == "24 pictures of 4 units; of 24 rows 18 tell of a failure"


def test_a_cell_of_which_no_unit_was_drawn_has_an_empty_table(study):
    """As where units are drawn from the whole layer."""
    said, found = run(study, cell="s9m9")
    assert not found
    assert said == "0 pictures of 0 units; of 0 rows 0 tell of a failure"


def test_what_is_refused(study):
    """Messages name the file and what is wrong with it."""
    for change in ({"unit": 96 * 16}, {"channel": 6}):
        units_table(study.file["units"], [study.rows[0] | change])
        number = (study.rows[0] | change)["unit"]
        sets_table(study.file["sets"], {(number, side): [1.0, 1.0] for side in ("top", "bottom")})
        with pytest.raises(StudyError, match=r"units.parquet: unit \d+ of channel \d is none of the 1536 of conv3"):
            run(study)
    units_table(study.file["units"], study.rows)
    sets_table(study.file["sets"], {key: values for key, values in study.sets.items() if key[0] != 86})
    with pytest.raises(StudyError, match=r"sets.parquet: has not every image of the image sets of the units in"):
        run(study)
    sets_table(study.file["sets"], study.sets)
    with pytest.raises(StudyError, match=r"layers.parquet: the layers are not those of the network"):
        run(study, layer="conv9")
