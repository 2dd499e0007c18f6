"""Networks with their weights: drawn, from files, or from torchvision, timm or a builder of the user's."""

import zipfile
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torchvision import models as torchvision_models

from inputs import builders, conversions
from readout import StudyError, models
from readout.named import TIMM


def build(model: str, outputs: int, seed: int) -> nn.Module:
    """The model with random weights that depend on `seed` alone, or those that its builder gives after it is set."""
    if not builders.is_builder(model):
        return models.build(model, outputs, seed)
    with models.drawing(seed):
        return builders.build(model, outputs)


def own(model: str, outputs: int) -> nn.Module:
    """The model with its own weights: those that its builder gives, or timm's, which timm may download."""
    if builders.is_builder(model):
        return build(model, outputs, seed=0)
    import timm

    name, config = _of_timm(model)
    if not config.num_classes:
        raise StudyError(f"weights own: {model}: timm's have no outputs for classes; choose others, or train it here")
    if config.num_classes != outputs:
        raise StudyError(
            f"weights own: {model}: timm's have {config.num_classes} outputs, and the network {outputs}; set `outputs` "
            f"to {config.num_classes}, and images.labels to the places of the classes among them"
        )
    try:
        # Building draws random weights before it loads the published ones.
        with models.drawing(0):
            return timm.create_model(name, pretrained=True).eval()
    except Exception as error:
        # The hub's client meets a missing network with many kinds of errors.
        raise StudyError(
            f"weights own: {model}: {config.hf_hub_id or config.url} cannot be had ({type(error).__name__}); let timm "
            "download it on a machine with a network and copy the cache of Hugging Face (HF_HOME), or give a file of "
            "weights"
        ) from error


def _of_timm(model: str):
    """The name of a model of timm, and how its weights of that name were made."""
    import timm

    name = model.removeprefix(TIMM)
    models.check_timm(name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise StudyError(f"weights own: {model}: timm has none; give a file of weights, or train it here")
    return name, config


def _published(model: str, name: str) -> torchvision_models.WeightsEnum:
    """Torchvision's weights of that name, with or without the name of their class before it."""
    if model in models.BUILDERS or builders.is_builder(model) or model.startswith(TIMM):
        raise StudyError(f"weights {name}: torchvision has none for {model}; give a file of weights")
    models.check_torchvision(model)
    known = torchvision_models.get_model_weights(model)
    kind, _, member = name.rpartition(".")
    if kind not in ("", known.__name__) or member not in known.__members__:
        raise StudyError(
            f"weights {name}: torchvision has no such weights for {model}; it has {', '.join(known.__members__)}"
        )
    return known[member]


def published_transform(model: str, name: str) -> dict:
    """How images are prepared for published weights, by torchvision or timm; the arguments of `images.transform`."""
    if model.startswith(TIMM):
        return _transform_of_timm(model)
    preset = _published(model, name).transforms()
    return {
        "resize": preset.resize_size[0],
        "crop": preset.crop_size[0],
        "mean": list(preset.mean),
        "std": list(preset.std),
        "interpolation": preset.interpolation.value,
    }


def _transform_of_timm(model: str) -> dict:
    """How timm prepares images when it evaluates: scaled so that the crop is a share of them."""
    from timm.data import resolve_data_config

    _, config = _of_timm(model)
    settings = resolve_data_config(pretrained_cfg=config.to_dict(), model=None)
    channels, height, width = settings["input_size"]
    if channels != 3 or height != width:
        raise StudyError(
            f"model {model}: takes images of {channels} x {height} x {width}, and not of 3 colours and square"
        )
    if settings["crop_mode"] == "border":
        raise StudyError(f"model {model}: pads images with a border, as no `transform` does; give one that serves")
    resize = int(height / settings["crop_pct"])
    return {
        # Squashed, and not cut, where timm says so.
        "resize": [resize, resize] if settings["crop_mode"] == "squash" else resize,
        "crop": height,
        "mean": list(settings["mean"]),
        "std": list(settings["std"]),
        "interpolation": settings["interpolation"],
    }


def download(model: str, name: str) -> nn.Module:
    """The model with published weights, which torchvision downloads into TORCH_HOME and verifies."""
    weights = _published(model, name)
    try:
        # Building draws random weights before it loads the published ones.
        with models.drawing(0):
            return torchvision_models.get_model(model, weights=weights, progress=False).eval()
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise StudyError(
            f"weights {name}: {weights.url} cannot be had ({error}); put the file into {folder} on a machine with a "
            "network, or give a file of weights"
        ) from error


def _check_sizes(path: Path) -> None:
    """torch stores tensors as they are: an archive of more bytes than its file has was made to fill the memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise zipfile.BadZipFile


def _state_dict(path: Path, model: str) -> dict[str, torch.Tensor]:
    """The tensors of a file; nothing in it is executed."""
    if model in conversions.BUILDERS and path.suffix in conversions.FILES:
        return conversions.read(path, model)
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            _check_sizes(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror or error}); give a file of weights") from error
    except Exception as error:
        # torch meets a foreign file with many kinds of errors, and with advice that is not safe: only the kind is told.
        raise StudyError(
            f"{path}: not a readable file of weights ({type(error).__name__}); give a state dict saved by torch.save "
            "or safetensors"
        ) from error
    tensors = isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())
    if not tensors or not all(isinstance(key, str) for key in state):
        raise StudyError(f"{path}: holds {type(state).__name__}, not a state dict; save `network.state_dict()`")
    for key, value in state.items():
        if value.is_nested or value.is_quantized or value.is_meta or value.layout != torch.strided:
            raise StudyError(f"{path}: {key} is no plain tensor; save the state dict of a network with plain ones")
    return state


def load(model: str, outputs: int, path: str | Path) -> nn.Module:
    """The model with the weights of a state-dict file, in evaluation mode.

    `.pt` and `.pth` as torch saves them, `.safetensors`, and for Caffe's AlexNets what `conversions.read` knows.
    Raises StudyError where the file is no state dict or does not fit; nothing in the file is executed.
    """
    state = dict(_state_dict(Path(path), model))
    if model in models.AUXILIARY:
        state = {key: value for key, value in state.items() if not key.startswith(models.AUXILIARY[model])}
    network = build(model, outputs, seed=0)
    expected = network.state_dict()
    # Old files lack these counters, which act in training only.
    state |= {key: expected[key] for key in expected.keys() - state.keys() if key.endswith(".num_batches_tracked")}
    faults = [f"{key} is missing" for key in expected if key not in state]
    faults += [f"{key} is unknown" for key in state if key not in expected]
    faults += [
        f"{key} is {list(state[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    # torch would convert whole numbers, and drop what is imaginary, in silence.
    faults += [
        f"{key} is {state[key].dtype} instead of floating-point numbers"
        for key in expected
        if key in state and expected[key].is_floating_point() and not state[key].is_floating_point()
    ]
    if faults:
        listed = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise StudyError(f"{path}: weights do not fit {model} with {outputs} outputs: {listed}")
    network.load_state_dict(state)
    # In the network's own precision: a large float64 is infinite there.
    broken = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise StudyError(f"{path}: {broken[0]} has values that are not finite; the file of weights is broken")
    return network
