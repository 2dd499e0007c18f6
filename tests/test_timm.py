"""timm's networks: their names, their own weights, and how their images are prepared. Nothing is fetched."""

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from timm.data import create_transform, resolve_data_config

from inputs import checkpoints
from inputs.sources import ImageSource, NetworkSource
from jobs import networks as job
from readout import StudyError, images, models

RESNET = "timm:test_resnet.r160_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """The folder of Hugging Face's cache, empty, on a machine without a network."""
    for name, value in {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": True}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return tmp_path


def publish(hub, model, network):
    """The weights of a network in the cache, in the layout that huggingface_hub has."""
    folder = hub / f"models--timm--{model.removeprefix('timm:')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    safetensors.torch.save_file(network.state_dict(), folder / "snapshots" / COMMIT / "model.safetensors")


def source(model, weights, outputs=1000):
    return NetworkSource(model, outputs, weights, ImageSource("digits", None, None))


# ---- names


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("timm:test_resnett", r"model timm:test_resnett: timm [\d.]+ has no test_resnett; did you mean test_resnet"),
        ("timm:qqqqqq", r"has no qqqqqq; see timm\.list_models\(\)"),
        ("timm:", r"timm [\d.]+ has no ;"),
        ("timm:test_resnet.r161_in1k", r"test_resnet has no weights r161_in1k; it has r160_in1k"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(model, words):
    for build in (lambda: checkpoints.build(model, 10, seed=0), lambda: checkpoints.own(model, 1000)):
        with pytest.raises(StudyError, match=words):
            build()


def test_drawn_weights_depend_on_the_seed_alone():
    """A tag says of which weights the name is, and nothing of drawn ones."""
    first, again, other = (checkpoints.build("timm:test_resnet", 7, seed).state_dict() for seed in (0, 0, 1))
    tagged = checkpoints.build(RESNET, 7, 0).state_dict()
    assert all(torch.equal(first[key], again[key]) and torch.equal(first[key], tagged[key]) for key in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])
    assert checkpoints.build(RESNET, 7, 0)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


# ---- their own weights


@pytest.mark.parametrize("model", [RESNET, "timm:test_vit.r160_in1k", "timm:test_resnet"])
def test_own_weights_are_those_of_the_cache(hub, model):
    """By the name with the tag or without one; in evaluation mode, and the random state is left as it is."""
    made = models.build(model, 1000, seed=5)
    publish(hub, "timm:test_resnet.r160_in1k" if model == "timm:test_resnet" else model, made)
    before = torch.get_rng_state()
    network = job.network(source(model, "own"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    assert network.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in network.state_dict().items())


def test_own_weights_through_the_table_of_layers(hub, tmp_path):
    """With the images as timm prepares them, since no transform is given."""
    publish(hub, RESNET, models.build(RESNET, 1000, seed=5))
    path = tmp_path / "layers.parquet"
    job.list_layers(str(path), source=source(RESNET, "own"), chosen=[], cells=16, device="cpu")
    first = next(iter(job.layer_nodes(str(path)).values()))
    assert first["axes"] == "channels x height x width" and first["shape"][1:] == [80, 80]


def test_without_a_network_the_way_out_is_told():
    with pytest.raises(
        StudyError, match=rf"^weights own: {RESNET}: timm/test_resnet\.r160_in1k cannot be had \(\w+\).*HF_HOME"
    ):
        checkpoints.own(RESNET, 1000)


def test_a_broken_file_in_the_cache_is_told(hub):
    publish(hub, RESNET, models.build(RESNET, 1000, seed=5))
    next(hub.rglob("model.safetensors")).write_bytes(b"<html>")
    with pytest.raises(StudyError, match=rf"^weights own: {RESNET}: .*cannot be had"):
        checkpoints.own(RESNET, 1000)


@pytest.mark.parametrize(
    ("model", "outputs", "words"),
    [
        (RESNET, 10, r"timm's have 1000 outputs, and the network 10; set `outputs` to 1000, and images\.labels"),
        ("timm:resnet18.fb_swsl_ig1b_ft_in1k", 999, r"timm's have 1000 outputs, and the network 999"),
        ("timm:vit_small_patch14_dinov2.lvd142m", 1000, "timm's have no outputs for classes; choose others"),
        ("timm:mnasnet_a1", 1000, "timm has none; give a file of weights, or train it here"),
        ("timm:resnet200", 1000, "timm has none; give a file of weights, or train it here"),
    ],
)
def test_own_weights_that_there_are_not_are_refused(model, outputs, words):
    """Before anything is looked for."""
    with pytest.raises(StudyError, match=words):
        checkpoints.own(model, outputs)


def test_torchvisions_names_of_weights_are_none_of_timms():
    with pytest.raises(StudyError, match=r"IMAGENET1K_V1: torchvision has none for timm:test_resnet"):
        job.network(source(RESNET, "IMAGENET1K_V1"))


# ---- images


# Cut at the centre and scaled to its size or to more, by either interpolation; squashed, and with other means.
PREPARED = (
    "test_resnet.r160_in1k",
    "test_vit.r160_in1k",
    "resnet18.a1_in1k",
    "convnext_base.fb_in22k_ft_in1k_384",
    "vit_base_patch16_clip_224.openai",
)


@pytest.mark.parametrize("size", [(211, 333), (480, 200), (160, 160), (33, 20)], ids=str)
@pytest.mark.parametrize("name", PREPARED)
def test_images_are_prepared_as_timm_does(name, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    settings = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    expected = create_transform(**settings, is_training=False)(Image.fromarray(pixels))
    given = checkpoints.published_transform(f"timm:{name}", "own")
    found = images.transform(**given)(Image.fromarray(pixels))
    assert found.shape == expected.shape == (3, given["crop"], given["crop"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert job.prepared(source(f"timm:{name}", "own")).transform == given


def test_the_kinds_of_transforms_are_among_those_that_are_compared():
    settings = [timm.get_pretrained_cfg(name) for name in PREPARED]
    assert {each.crop_mode for each in settings} == {"center", "squash"}
    assert {each.interpolation for each in settings} == {"bilinear", "bicubic"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deepseek_vit_412m.deepseek_v4_flash_vision_exp", "pads images with a border"),
        ("mnasnet_a1", "timm has none"),
    ],
)
def test_a_transform_that_the_study_has_not_is_refused(name, words):
    with pytest.raises(StudyError, match=words):
        checkpoints.published_transform(f"timm:{name}", "own")


@pytest.mark.parametrize("size", [(1, 224, 224), (3, 224, 256)])
def test_images_that_are_no_squares_of_three_colours_are_refused(monkeypatch, size):
    of_timm = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    of_timm.input_size = size
    monkeypatch.setattr(checkpoints, "_of_timm", lambda model: (model, of_timm))
    words = f"takes images of {' x '.join(map(str, size))}, and not of 3 colours and square"
    with pytest.raises(StudyError, match=words):
        checkpoints.published_transform(RESNET, "own")
