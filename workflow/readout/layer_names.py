"""Names of the layers of the networks that the study knows, without importing torch.

The workflow has to know a network's layers before anything runs. `layers.find` derives the same names from the
traced graph, and the run compares the two. Of any other network of torchvision a configuration lists the layers.
"""

from collections.abc import Sequence

from readout import StudyError


def _chain(convolutions: int, dense: int) -> tuple[str, ...]:
    """Layers of a network without blocks, as AlexNet and VGG."""
    return tuple(f"conv{i + 1}" for i in range(convolutions)) + tuple(f"dense{i + 1}" for i in range(dense))


def _inverted_residuals(blocks: int) -> tuple[str, ...]:
    """Layers of MobileNetV2; its first block has no expansion."""
    roles = [f"block{b}.{role}" for b in range(1, blocks + 1) for role in ("expand", "depthwise")]
    return ("stem", *roles[1:], "head")


def _bottlenecks(blocks: int) -> tuple[str, ...]:
    """Layers of a ResNet of bottleneck blocks; `out` follows the addition of the shortcut."""
    return ("stem", *(f"block{b}.{role}" for b in range(1, blocks + 1) for role in ("conv1", "conv2", "out")))


KNOWN: dict[str, tuple[str, ...]] = {
    "alexnet": _chain(5, 2),
    "caffe_alexnet": _chain(5, 2),
    "theano_alexnet": _chain(5, 2),
    "vgg16": _chain(13, 2),
    "vgg16_bn": _chain(13, 2),
    "mobilenet_v2": _inverted_residuals(17),
    "resnet101": _bottlenecks(33),
    "small_alexnet": _chain(5, 2),
    "small_vgg16": _chain(13, 2),
    "small_mobilenet_v2": _inverted_residuals(17),
    "small_resnet": _bottlenecks(8),
    **dict.fromkeys(("planted", "planted_null"), ("first", "second")),
}
"""Layers in the order of execution, by model."""


def _blocks(known: Sequence[str]) -> tuple[str, ...]:
    """The last layer of each block, and those outside of blocks."""
    last = {name.split(".")[0]: name for name in known}
    return tuple(last.values())


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """So many of the names, evenly from first to last; of one, the last."""
    if count == 1:
        return tuple(names[-1:])
    return tuple(names[round(i * (len(names) - 1) / (count - 1))] for i in range(count))


def select(model: str, choice: str | int | Sequence[str]) -> tuple[str, ...]:
    """The layers of `model` that a configuration chooses, in the order of execution.

    `choice` is `all`, `blocks` (the stem, the last layer of each residual block, the head), a number (that many
    layers, evenly spread from the first to the last) or a list of names. The layers of a model that is not in `KNOWN`
    can only be listed; whether it has them, the traced graph tells.
    """
    if model not in KNOWN:
        if isinstance(choice, str | int):
            raise StudyError(
                f"layers: {choice}: the layers of {model} are not known beforehand; list them "
                f"(`make layers MODEL={model}` prints them), or take one of {', '.join(KNOWN)}"
            )
        return tuple(choice)
    known = KNOWN[model]
    if choice == "all":
        return known
    if choice == "blocks":
        if len(_blocks(known)) == len(known):
            raise StudyError(f"layers: blocks: {model} has none; take all, a number or a list of {', '.join(known)}")
        return _blocks(known)
    if isinstance(choice, int):
        if not 1 <= choice <= len(known):
            raise StudyError(f"layers: {choice}: {model} has {len(known)} layers; choose from 1 to {len(known)}")
        return spread(known, choice)
    unknown = [name for name in choice if name not in known]
    if unknown:
        raise StudyError(f"layers: {model} has no layer {', '.join(unknown)}; its layers are {', '.join(known)}")
    return tuple(name for name in known if name in choice)
