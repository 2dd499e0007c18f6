"""Layers of a traced network: the outputs of its non-linearities, by readable names."""

import operator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from readout.engine import Winograd
from readout.tracing import is_layer

WEIGHTED = (nn.Conv2d, nn.Linear, Winograd)
ADDITIONS = (operator.add, torch.add)
BLOCKS = (InvertedResidual, Bottleneck, BasicBlock)


@dataclass(frozen=True)
class Layer:
    """One layer: its name, the fx node that computes it, that node's target, and its shape for one image."""

    name: str
    node: str
    module: str
    depth: int
    channels: int
    height: int
    width: int

    @property
    def units(self) -> int:
        return self.channels * self.height * self.width


def feeding(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The convolution, dense layer or addition that feeds a non-linearity."""
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        if node.op == "call_module" and isinstance(network.get_submodule(node.target), WEIGHTED):
            return node
        if node.op == "call_function" and node.target in ADDITIONS:
            return node
    return None


def _names(network: fx.GraphModule, nodes: list[fx.Node], modules: dict[str, nn.Module]) -> list[str]:
    """Readable names: `conv1`, `dense1` in a chain; `stem`, `block1.conv1`, `head` in a network of blocks.

    Elsewhere the path of the module that computes the layer, or of the one that feeds it.
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
        elif chain:
            kind = "dense" if isinstance(module, nn.Linear) else "conv"
            counts[kind] = counts.get(kind, 0) + 1
            names.append(f"{kind}{counts[kind]}")
        else:
            giving = node if node.op == "call_module" else node.all_input_nodes[0]
            names.append(str(giving.target) if giving.op == "call_module" else node.name)
    # A network that repeats a name falls back to the graph's own names, which are unique.
    return names if len(set(names)) == len(names) else [node.name for node in nodes]


def find(network: nn.Module, traced: fx.GraphModule, image: torch.Tensor) -> list[Layer]:
    """All layers of a traced network in the order of execution, shaped for images like `image` [1, C, H, W]."""
    nodes = [node for node in traced.graph.nodes if is_layer(traced, node)]
    names = _names(traced, nodes, dict(network.named_modules()))
    with torch.inference_mode():
        ShapeProp(traced).propagate(image)
    found = []
    for depth, (name, node) in enumerate(zip(names, nodes, strict=True)):
        shape = tuple(node.meta["tensor_meta"].shape[1:])
        channels, height, width = (*shape, 1, 1)[:3]
        found.append(Layer(name, node.name, str(node.target), depth, channels, height, width))
    return found
