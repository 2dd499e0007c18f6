"""Networks as traced graphs: their layers by readable names, and the cut of a network at a layer.

A layer is the output of one non-linearity. `torch.fx` records the graph, so that residual networks are handled like
chains: at a cut all tensors that are still needed later are kept.
"""

import difflib
import operator
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F
from torchvision import models
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from readout import StudyError, caffe, relatives
from readout.engine import Winograd

MODULES = (nn.ReLU, nn.ReLU6)
FUNCTIONS = (F.relu, F.relu6, torch.relu, torch.relu_)
METHODS = ("relu", "relu_")
WEIGHTED = (nn.Conv2d, nn.Linear, Winograd)
ADDITIONS = (operator.add, torch.add)
BLOCKS = (InvertedResidual, Bottleneck, BasicBlock)

BUILDERS = relatives.BUILDERS | caffe.BUILDERS
"""The study's own models; all others are torchvision's."""
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Models with heads for training alone, and how their weights begin."""

_building, _tracing = threading.Lock(), threading.Lock()


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
    """The model with random weights that depend on `seed` alone, in evaluation mode.

    `model` is one of the study's own or a classification network of torchvision by its name there.
    """
    builder = BUILDERS.get(model)
    if builder is None:
        _check_torchvision(model)
        # Auxiliary heads act in training only.
        extra = {"aux_logits": False, "init_weights": True} if model in AUXILIARY else {}

        def builder(outputs: int) -> nn.Module:
            return models.get_model(model, weights=None, num_classes=outputs, **extra)

    # The seed is set in the random state of the whole process.
    with _building, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(outputs).eval()


def _check_torchvision(model: str) -> None:
    known = models.list_models(module=models)
    if model not in known:
        close = difflib.get_close_matches(model, [*BUILDERS, *known], n=1)
        raise StudyError(
            f"model {model}: neither the study nor torchvision has it"
            + (f"; did you mean {close[0]}?" if close else "; see torchvision.models.list_models()")
        )


def _published(model: str, name: str) -> models.WeightsEnum:
    """Torchvision's weights of that name, with or without the name of their class before it."""
    if model in BUILDERS:
        raise StudyError(f"weights {name}: torchvision has none for {model}; give a file of weights")
    _check_torchvision(model)
    known = models.get_model_weights(model)
    kind, _, member = name.rpartition(".")
    if kind not in ("", known.__name__) or member not in known.__members__:
        raise StudyError(
            f"weights {name}: torchvision has no such weights for {model}; it has {', '.join(known.__members__)}"
        )
    return known[member]


def published_transform(model: str, name: str) -> dict:
    """How images are prepared for published weights, as torchvision says; the arguments of `images.transform`."""
    preset = _published(model, name).transforms()
    return {
        "resize": preset.resize_size[0],
        "crop": preset.crop_size[0],
        "mean": list(preset.mean),
        "std": list(preset.std),
        "interpolation": preset.interpolation.value,
    }


def download(model: str, name: str) -> nn.Module:
    """The model with published weights, which torchvision downloads into TORCH_HOME and verifies."""
    weights = _published(model, name)
    try:
        # Building draws random weights before it loads the published ones.
        with _building, torch.random.fork_rng(devices=[]):
            return models.get_model(model, weights=weights, progress=False).eval()
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
    if model in caffe.BUILDERS and path.suffix in caffe.FILES:
        return caffe.read(path, model)
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

    `.pt` and `.pth` as torch saves them, `.safetensors`, and for Caffe's AlexNets the files that `caffe.read` knows.
    Raises StudyError where the file is no state dict or does not fit; nothing in the file is executed.
    """
    state = dict(_state_dict(Path(path), model))
    if model in AUXILIARY:
        state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY[model])}
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
        if not node.users and (written or is_layer(traced, node)):
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


def is_layer(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node of the graph is a non-linearity."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(node.target), MODULES)
    if node.op == "call_method":
        return node.target in METHODS
    return node.op == "call_function" and node.target in FUNCTIONS


def _source(network: fx.GraphModule, node: fx.Node) -> fx.Node | None:
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
        elif chain:
            kind = "dense" if isinstance(module, nn.Linear) else "conv"
            counts[kind] = counts.get(kind, 0) + 1
            names.append(f"{kind}{counts[kind]}")
        else:
            feeding = node if node.op == "call_module" else node.all_input_nodes[0]
            names.append(str(feeding.target) if feeding.op == "call_module" else node.name)
    # A network that repeats a name falls back to the graph's own names, which are unique.
    return names if len(set(names)) == len(names) else [node.name for node in nodes]


def layers(network: nn.Module, traced: fx.GraphModule, image: torch.Tensor) -> list[Layer]:
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


def _module(traced: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(traced, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _overwrite(traced: fx.GraphModule, tail: fx.Graph) -> None:
    """Let the non-linearities of a tail overwrite what a convolution, a dense layer or an addition made for them alone.

    Trace made them out of place for the layers that a study keeps; behind a cut nothing is kept, and memory is dear.
    """
    for node in tail.nodes:
        if not is_layer(traced, node):
            continue
        source = node.all_input_nodes[0]
        if source is _source(traced, node) and len(source.users) == 1:
            six = isinstance(traced.get_submodule(node.target), nn.ReLU6) if node.op == "call_module" else False
            function = F.relu6 if six or node.target is F.relu6 else F.relu
            node.op, node.target, node.args, node.kwargs = "call_function", function, (source,), {"inplace": True}


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
    _overwrite(traced, tail)
    return Cut(_module(traced, prefix), _module(traced, tail))
