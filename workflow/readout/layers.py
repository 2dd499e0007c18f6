"""Layers of a traced network: the outputs of its non-linearities, or of any other node, by readable names."""

import math
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import Permute

from readout.engine import Winograd
from readout.named import Named
from readout.tracing import ATEN, FUNCTIONS, MODULES, Tensor, by_image, holds_tensors, is_layer, is_measured, measure

WEIGHTED = (nn.Conv2d, nn.Linear, Winograd)
ADDITIONS = (operator.add, torch.add, ATEN.add.Tensor)
JOINS = (*ADDITIONS, torch.cat, ATEN.cat.default)
"""What joins the branches of a block."""
PRODUCTS = (
    operator.matmul,
    torch.matmul,
    torch.bmm,
    torch.einsum,
    "matmul",
    "bmm",
    ATEN.matmul.default,
    ATEN.bmm.default,
    ATEN.einsum.default,
)
"""Products of tensors, as of an attention, whose axes are others than those of either."""
CONVOLUTIONS = (ATEN.conv2d.default, ATEN.conv2d.padding, ATEN.convolution.default)
BLOCKS = (InvertedResidual, Bottleneck, BasicBlock)
"""Blocks whose layers are named by their number."""
AXES = {
    1: ("features",),
    2: ("tokens", "features"),
    3: ("channels", "height", "width"),
}
"""What a layer's axes are, by their number; of a map with the channels at the end, `LAST`."""
LAST = ("height", "width", "channels")
FEATURES = ("features", "channels")
"""Axes along which units differ in what they see, and not only in where."""


@dataclass(frozen=True)
class Layer:
    """One layer: its name, the fx node that computes it and that node's target, its axes, and its shape for one image.

    `block` is the path of the block of branches that it is in, None outside of blocks.
    """

    name: str
    node: str
    module: str
    depth: int
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    block: str | None

    @property
    def units(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Channels:
    """The channels of a layer: units that see the same at other places; `places` has the shape of the latter.

    Each feature of tokens is a channel, whose places are the tokens; a unit of a dense layer is a channel by itself.
    """

    count: int
    places: tuple[int, ...]
    last: bool

    @classmethod
    def of(cls, axes: Sequence[str], shape: Sequence[int]) -> "Channels":
        """Of a layer's axes and shape; where no axis is one of channels, each unit is one."""
        at = next((i for i, axis in enumerate(axes) if axis in FEATURES), None)
        if at not in (0, len(shape) - 1):
            return cls(math.prod(shape), (), last=False)
        return cls(shape[at], tuple(shape[:at] + shape[at + 1 :]), last=at > 0)

    @property
    def area(self) -> int:
        return math.prod(self.places)

    def of_unit(self, unit: int) -> int:
        """The channel of a unit, by its place in the layer's order."""
        return unit % self.count if self.last else unit // self.area

    def unit(self, channel: int, place: int = 0) -> int:
        """The unit of a channel at one of its places."""
        return place * self.count + channel if self.last else channel * self.area + place

    def apart(self, value: torch.Tensor) -> torch.Tensor:
        """A layer's output [N, ...] as [N, channels, places]."""
        if self.last:
            return value.reshape(len(value), self.area, self.count).transpose(1, 2)
        return value.reshape(len(value), self.count, self.area)


def feeding(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The convolution, dense layer or addition that feeds a non-linearity."""
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        if node.op == "call_module" and isinstance(network.get_submodule(node.target), WEIGHTED):
            return node
        if node.op == "call_function" and node.target in ADDITIONS:
            return node
    return None


def _inside(node: fx.Node) -> list[str]:
    """Paths of the modules whose calls a node is part of, the outermost first."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]


def _readable(network: fx.GraphModule, nodes: list[fx.Node], modules: dict[str, nn.Module]) -> list[str]:
    """Readable names: `conv1`, `dense1` in a chain; `stem`, `block1.conv1`, `head` in a network of known blocks.

    Elsewhere the path of the module that computes the layer, or of the one that gives a function its input.
    """
    chain = all(len(node.users) <= 1 for node in network.graph.nodes)
    blocks = {path: i + 1 for i, path in enumerate(p for p, m in modules.items() if isinstance(m, BLOCKS))}
    names, counts = [], {}
    for node in nodes:
        source = feeding(network, node)
        module = modules.get(str(source.target)) if source is not None and source.op == "call_module" else None
        path = str(node.target) if node.op == "call_module" else str(source.target if source is not None else "")
        block = next((b for b in blocks if path.startswith(b + ".")), None)
        if block is not None:
            if module is None:
                role = "out"
            elif isinstance(modules[block], InvertedResidual):
                role = "depthwise" if module.groups > 1 else "expand"
            else:
                role = str(source.target).rsplit(".", 1)[1]
            names.append(f"block{blocks[block]}.{role}")
        elif blocks:
            names.append("head" if any(name.startswith("block") for name in names) else "stem")
        elif chain and module is not None:
            kind = "dense" if isinstance(module, nn.Linear) else "conv"
            counts[kind] = counts.get(kind, 0) + 1
            names.append(f"{kind}{counts[kind]}")
        else:
            names.append(_path(node, modules))
    return names


def _path(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """The path of the module that computes a non-linearity, or that gives a function its input."""
    inside = _inside(node)
    around = modules[inside[-1]] if inside else None
    # Of a library's own, perhaps, which calls a function.
    if isinstance(around, MODULES) or (around is not None and not [*around.children(), *around.parameters()]):
        return inside[-1]
    giving = node.all_input_nodes[0]
    if giving.op == "call_module":
        return str(giving.target)
    called = next((name for name, alike in FUNCTIONS.items() if node.target in alike), str(node.target))
    return ".".join([*inside[-1:], called])


def _unique(names: Sequence[str]) -> list[str]:
    """The names, the second of a kind as `name_1`, and so on: a module may be called more than once."""
    taken, unique = set(names), []
    for name in names:
        given, number = name, 0
        while given in (unique if not number else taken):
            number += 1
            given = f"{name}_{number}"
        taken.add(given)
        unique.append(given)
    return unique


def _blocks(traced: fx.GraphModule, layers: Sequence[fx.Node], modules: dict[str, nn.Module]) -> dict[fx.Node, str]:
    """The block that each layer is in: the innermost module that joins branches and holds layers, or one of its class.

    A residual block that changes the size has no addition and is of its class all the same.
    """
    joining = {
        type(modules[_inside(node)[-1]])
        for node in traced.graph.nodes
        if node.op == "call_function" and node.target in JOINS and _inside(node)
        # A bias that is added is no branch.
        if len([source for source in node.all_input_nodes if source.op != "get_attr"]) > 1
    }
    found = {}
    for node in layers:
        around = [path for path in _inside(node) if type(modules[path]) in joining]
        found |= {node: around[-1]} if around else {}
    return found


def _mapped(traced: fx.GraphModule, node: fx.Node) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The axes of a map [N, ., ., .] by what computes it, with the shape that this gives; none where nothing tells."""
    while node.all_input_nodes:
        module = traced.get_submodule(node.target) if node.op == "call_module" else None
        given = node.meta["measured"][0]
        shape = given.shape[1:] if isinstance(given, Tensor) else ()
        if isinstance(module, nn.Linear) or node.target is ATEN.linear.default:
            return LAST, shape
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | Winograd) or node.target in CONVOLUTIONS:
            return AXES[3], shape
        if node.target in PRODUCTS:
            break
        moved = module.dims if isinstance(module, Permute) else None
        if node.target in ("permute", torch.permute, ATEN.permute.default):
            moved = node.kwargs.get("dims", node.args[1:])
            moved = moved[0] if len(moved) == 1 else moved
        if moved is not None and tuple(moved) in ((0, 2, 3, 1), (0, 3, 1, 2)):
            return (LAST if tuple(moved) == (0, 2, 3, 1) else AXES[3]), shape
        # Of what the image gives, and not of weights that are added to it.
        node = next((source for source in node.all_input_nodes if source.op != "get_attr"), node.all_input_nodes[0])
    return (AXES[3], node.meta["measured"][0].shape[1:]) if node.op == "placeholder" else ((), ())


def axes(traced: fx.GraphModule, node: fx.Node) -> tuple[str, ...]:
    """The names of the axes of a node's output for one image; `axis0` and so on where they are not known.

    Three axes may be a map's, or heads, tokens and features. The graph is measured.
    """
    shape = node.meta["measured"][0].shape[1:]
    unknown = tuple(f"axis{i}" for i in range(len(shape)))
    if len(shape) != 3:
        return AXES.get(len(shape), unknown)
    found, origin = _mapped(traced, node)
    if len(origin) != 3:
        return unknown
    own, given = (dict(zip(found, sizes, strict=True)) for sizes in (shape, origin))
    # ASSUME: a map is square, as the images are; a pooling makes it smaller, and a concatenation gives it channels.
    same = {name for name in found if own[name] == given[name]}
    is_map = own["height"] == own["width"] and ("channels" in same or same >= {"height", "width"})
    return found if is_map else unknown


def studied(node: fx.Node) -> bool:
    """Whether a node's output has units: floating-point numbers, as many for each image."""
    value = node.meta["measured"][0]
    return by_image(node) and value.floating and math.prod(value.shape[1:]) > 0


def _modules(network: nn.Module) -> dict[str, nn.Module]:
    """The modules of a network by path; one that is held in two places has two."""
    return dict(network.named_modules(remove_duplicate=False))


def _layers(network: nn.Module, traced: fx.GraphModule, image: torch.Tensor) -> dict[fx.Node, str]:
    """The non-linearities of a graph by their names, in the order of execution; the graph is measured."""
    if not all(map(is_measured, traced.graph.nodes)):
        measure(traced, image)
    nodes = [node for node in traced.graph.nodes if is_layer(traced, node) and studied(node)]
    return dict(zip(nodes, _unique(_readable(traced, nodes, _modules(network))), strict=True))


def _others(traced: fx.GraphModule, layers: Collection[str]) -> dict[str, fx.Node]:
    """Every node by its own name, and each module by its path, where these are no names of layers.

    A module's node is the one of its nodes that is read outside of it; one that gives several has no name.
    """
    nodes = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    # Sizes may be read anywhere.
    nodes = [node for node in nodes if holds_tensors(node)]
    given: dict[str, list[fx.Node]] = {}
    for node in nodes:
        for path in dict.fromkeys(_inside(node)):
            if any(path not in _inside(user) for user in node.users):
                given.setdefault(path, []).append(node)
    named = {node.name: node for node in nodes} | {path: of[0] for path, of in given.items() if len(of) == 1}
    return {name: node for name, node in named.items() if name not in layers and studied(node)}


def find(network: nn.Module, traced: fx.GraphModule, image: torch.Tensor, also: Collection[str] = ()) -> list[Layer]:
    """All layers of a traced network in the order of execution, shaped for images like `image` [1, C, H, W].

    These are its non-linearities, and the nodes and modules that `also` names.
    """
    named = _layers(network, traced, image)
    more = _others(traced, named.values())
    blocks = _blocks(traced, list(named), _modules(network))
    named |= {more[name]: name for name in also if name in more and more[name] not in named}
    found = []
    for node in traced.graph.nodes:
        if node in named:
            shape = node.meta["measured"][0].shape[1:]
            at = (named[node], node.name, str(node.target), len(found))
            found.append(Layer(*at, axes(traced, node), shape, blocks.get(node)))
    return found


def names(network: nn.Module, traced: fx.GraphModule, image: torch.Tensor) -> list[Named]:
    """All that a configuration may list of a traced network, in the order of execution."""
    named = _layers(network, traced, image)
    blocks = _blocks(traced, list(named), _modules(network))
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    others = _others(traced, named.values()).items()
    found = [(node, Named(name, name, blocks.get(node), node.name)) for node, name in named.items()]
    found += [(node, Named(name, named.get(node), None, node.name)) for name, node in others]
    return [each for _, each in sorted(found, key=lambda pair: order[pair[0]])]
