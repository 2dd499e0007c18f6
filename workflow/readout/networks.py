"""Networks as traced graphs: their layers by readable names, and the cut of a network at a layer.

A layer is the output of one non-linearity. `torch.fx` records the graph, so that residual networks are handled like
chains: at a cut all tensors that are still needed later are kept.
"""

import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from readout import StudyError
from readout.relatives import BUILDERS

MODULES = (nn.ReLU, nn.ReLU6)
FUNCTIONS = (F.relu, F.relu6, torch.relu, torch.relu_)
METHODS = ("relu", "relu_")
ADDITIONS = (operator.add, torch.add)
BLOCKS = (InvertedResidual, Bottleneck, BasicBlock)

_tracing = threading.Lock()


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


@dataclass(frozen=True)
class Cut:
    """A network in two parts at a layer.

    `prefix(images)` gives the tensors alive behind the layer as a tuple, the layer's output first; `tail(*tensors)`
    gives the scores [N, outputs].
    """

    prefix: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
    tail: Callable[..., torch.Tensor]


def build(model: str, outputs: int, seed: int) -> nn.Module:
    """The model with random weights that depend on `seed` alone, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILDERS[model](outputs).eval()


def load(model: str, outputs: int, path: Path) -> nn.Module:
    """The model with the weights of a state-dict file, in evaluation mode.

    Raises StudyError where the file is no state dict or does not fit; nothing in the file is executed.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror or error}); give a file of weights") from error
    except Exception as error:
        # torch meets a foreign file with many kinds of errors, and with advice that is not safe: only the kind is told.
        raise StudyError(
            f"{path}: not a readable file of weights ({type(error).__name__}); give a state dict saved by torch.save"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise StudyError(f"{path}: holds {type(state).__name__}, not a state dict; save `network.state_dict()`")
    network = build(model, outputs, seed=0)
    expected = network.state_dict()
    faults = [f"{key} is missing" for key in expected if key not in state]
    faults += [f"{key} is unknown" for key in state if key not in expected]
    faults += [
        f"{key} is {list(state[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    if faults:
        listed = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise StudyError(f"{path}: weights do not fit {model} with {outputs} outputs: {listed}")
    network.load_state_dict(state)
    return network


class _Tracer(fx.Tracer):
    """Records one thread's calls alone.

    While torch.fx traces, every module's call in the process goes through the tracer; calls of other threads, which run
    other networks, must pass.
    """

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def call_module(self, m, forward, args, kwargs):
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(network: nn.Module) -> fx.GraphModule:
    """The graph of a network in evaluation mode, with every in-place operation made out of place.

    In-place operations would overwrite the layers that the study keeps and, behind a cut, what is cached.
    """
    network.eval()
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    with _tracing:
        traced = fx.GraphModule(network, _Tracer().trace(network))
    for node in traced.graph.nodes:
        written = node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__")
        if not node.users and (written or _is_layer(traced, node)):
            # The graph cannot tell that the operation changes what later nodes read.
            raise StudyError(f"{node.name}: an in-place operation whose result is not used cannot be traced; assign it")
        if written:
            node.target = node.target.removesuffix("_")
        elif node.target is torch.relu_:
            node.target = torch.relu
        elif node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    traced.recompile()
    return traced


def _is_layer(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(node.target), MODULES)
    if node.op == "call_method":
        return node.target in METHODS
    return node.op == "call_function" and node.target in FUNCTIONS


def _source(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The convolution, dense layer or addition that feeds a non-linearity."""
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        if node.op == "call_module" and isinstance(network.get_submodule(node.target), (nn.Conv2d, nn.Linear)):
            return node
        if node.op == "call_function" and node.target in ADDITIONS:
            return node
    return None


def _names(network: fx.GraphModule, nodes: list[fx.Node], modules: dict[str, nn.Module]) -> list[str]:
    """Readable names: `conv1`, `dense1` in a chain; `stem`, `block1.conv1`, `head` in a network of blocks."""
    blocks = {path: i + 1 for i, path in enumerate(p for p, m in modules.items() if isinstance(m, BLOCKS))}
    names, counts = [], {}
    for node in nodes:
        source = _source(network, node)
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
        else:
            kind = "dense" if isinstance(module, nn.Linear) else "conv"
            counts[kind] = counts.get(kind, 0) + 1
            names.append(f"{kind}{counts[kind]}")
    # A network that repeats a name falls back to the graph's own names, which are unique.
    return names if len(set(names)) == len(names) else [node.name for node in nodes]


def layers(network: nn.Module, traced: fx.GraphModule, image: torch.Tensor) -> list[Layer]:
    """All layers of a traced network in the order of execution, shaped for images like `image` [1, C, H, W]."""
    nodes = [node for node in traced.graph.nodes if _is_layer(traced, node)]
    names = _names(traced, nodes, dict(network.named_modules()))
    with torch.inference_mode():
        ShapeProp(traced).propagate(image)
    found = []
    for depth, (name, node) in enumerate(zip(names, nodes, strict=True)):
        shape = tuple(node.meta["tensor_meta"].shape[1:])
        channels, height, width = (*shape, 1, 1)[:3]
        found.append(Layer(name, node.name, str(node.target), depth, channels, height, width))
    return found


def _module(traced: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(traced, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def cut(traced: fx.GraphModule, node_name: str) -> Cut:
    """The network in two parts behind the node `node_name`; the parts share the network's weights."""
    nodes = [node for node in traced.graph.nodes if node.op != "output"]
    output = next(node for node in traced.graph.nodes if node.op == "output")
    at = next(i for i, node in enumerate(nodes) if node.name == node_name)
    before, behind = nodes[: at + 1], nodes[at + 1 :]
    needed = {source for node in [*behind, output] for source in node.all_input_nodes}
    constants = [node for node in before if node.op == "get_attr" and node in needed]
    alive = [nodes[at], *(node for node in before[:-1] if node in needed and node.op != "get_attr")]

    prefix, copies = fx.Graph(), {}
    for node in before:
        copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(tuple(copies[node] for node in alive))

    tail = fx.Graph()
    copies = {node: tail.placeholder(node.name) for node in alive}
    for node in [*constants, *behind]:
        copies[node] = tail.node_copy(node, copies.__getitem__)
    tail.output(copies[output.args[0]])
    return Cut(_module(traced, prefix), _module(traced, tail))
