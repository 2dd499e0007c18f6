"""Names of the layers of the networks that the study knows, and a study's choice among names; without torch.

The workflow has to know a network's layers before anything runs. `layers.find` derives the same names from the
traced graph, and the run compares the two. Of any other network they are found once, by tracing (inputs/layers.py).
"""

import difflib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from readout import StudyError
from readout.named import Named

MOST = 40
"""Names that a message lists."""


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


def _listed(known: Sequence[str]) -> list[Named]:
    """The names of a network that the study knows: `block3.out` is in `block3`."""
    return [Named(name, name, name.split(".")[0] if "." in name else None) for name in known]


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """So many of the names, evenly from first to last; of one, the last."""
    if count == 1:
        return tuple(names[-1:])
    return tuple(names[round(i * (len(names) - 1) / (count - 1))] for i in range(count))


def select(
    model: str, choice: str | int | Sequence[str], listed: Callable[[], Sequence[Named]] | None = None
) -> tuple[str, ...]:
    """The layers of `model` that a configuration chooses, in the order of execution.

    `choice` is `all`, `blocks` (the last layer of each block, and those outside of blocks), a number (that many layers,
    evenly spread from the first to the last), a pattern (`block*.out`), or a list of names and patterns. A pattern
    chooses among the layers; any other node or module is chosen by its whole name. `listed` gives all names of a
    network that is not in `KNOWN`, or other names than those there.
    """
    names = _listed(KNOWN[model]) if model in KNOWN else listed()
    layers = [each.name for each in names if each.layer == each.name]
    if choice in ("all", "blocks") or isinstance(choice, int):
        if not layers:
            raise StudyError(f"layers: {choice}: {model} has no layers by itself; list nodes or modules")
        return tuple(layers) if choice == "all" else _some(model, choice, layers, names)
    wanted = [choice] if isinstance(choice, str) else list(choice)
    known = {each.name: each for each in names}
    if listed and model in KNOWN and any(name not in known and not _is_pattern(name) for name in wanted):
        names = listed()
        known = {each.name: each for each in names}
    chosen = {name for each in wanted for name in _matching(model, each, known, layers)}
    at: dict[str, str] = {}
    for each in names:
        if each.name in chosen and each.node and at.setdefault(each.node, each.name) != each.name:
            raise StudyError(f"layers: {at[each.node]} and {each.name} are one in {model}; leave one out")
    return tuple(each.name for each in names if each.name in chosen)


def _some(model: str, choice: str | int, layers: Sequence[str], names: Sequence[Named]) -> tuple[str, ...]:
    """The last layers of blocks, or so many layers."""
    if isinstance(choice, int):
        if not 1 <= choice <= len(layers):
            raise StudyError(f"layers: {choice}: {model} has {len(layers)} layers; choose from 1 to {len(layers)}")
        return spread(layers, choice)
    last = {each.block or each.name: each.name for each in names if each.name == each.layer}
    if not any(each.block for each in names):
        raise StudyError(f"layers: blocks: {model} has none; take all, a number or a list of {_told(layers)}")
    return tuple(name for name in layers if name in last.values())


def _told(layers: Sequence[str]) -> str:
    """The names in a message, or enough of them."""
    more = f" and {len(layers) - MOST} more" if len(layers) > MOST else ""
    return ", ".join(layers[:MOST]) + more


def _is_pattern(name: str) -> bool:
    return any(c in name for c in "*?[")


def _matching(model: str, wanted: str, known: dict[str, Named], layers: Sequence[str]) -> list[str]:
    """The names that one of a list stands for."""
    if _is_pattern(wanted):
        if not (found := [name for name in layers if fnmatchcase(name, wanted)]):
            raise StudyError(f"layers: {wanted}: matches no layer of {model}; its layers are {_told(layers)}")
        return found
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {close[0]}?" if close and close[0] not in layers else ""
        raise StudyError(f"layers: {model} has no layer {wanted}; its layers are {_told(layers)}{hint}")
    if known[wanted].layer not in (None, wanted):
        raise StudyError(f"layers: {wanted}: is the layer {known[wanted].layer} of {model}; write that name")
    return [wanted]
