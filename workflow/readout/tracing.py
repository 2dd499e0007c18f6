"""Tracing: a network's graph, so that networks of branches are handled like chains.

`torch.fx` records the calls of the network's own modules. What it cannot follow, such as a condition on a tensor's
values, `torch.export` runs with images; its graph is of torch's own operations.
"""

import io
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.passes import move_to_device_pass
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from readout import StudyError

ATEN = torch.ops.aten
# ASSUME: the output of every non-linearity is a layer, as that of the ReLUs is in the paper's networks; gates are none.
MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.SiLU,
    nn.GELU,
    nn.Mish,
    nn.Hardswish,
    nn.Softplus,
)
"""Non-linearities as modules. A gate, such as a sigmoid, says how much of another value passes."""
FUNCTIONS = {
    "relu": (F.relu, torch.relu, ATEN.relu.default),
    "relu6": (F.relu6, ATEN.relu6.default),
    "leaky_relu": (F.leaky_relu, ATEN.leaky_relu.default),
    "prelu": (F.prelu, torch.prelu, ATEN.prelu.default, ATEN._prelu_kernel.default),
    "elu": (F.elu, ATEN.elu.default),
    "selu": (F.selu, torch.selu, ATEN.selu.default),
    "silu": (F.silu, ATEN.silu.default),
    "gelu": (F.gelu, ATEN.gelu.default),
    "mish": (F.mish, ATEN.mish.default),
    "hardswish": (F.hardswish, ATEN.hardswish.default),
    "softplus": (F.softplus, ATEN.softplus.default),
}
"""The same as functions, out of place."""
METHODS = ("relu", "prelu")
"""The same as methods of a tensor."""
OUT_OF_PLACE = {
    getattr(module, f"{name}_"): getattr(module, name)
    for module in (torch, F)
    for name in ("relu", "leaky_relu", "elu", "selu", "dropout", "sigmoid", "tanh", "clamp", "hardtanh")
    if hasattr(module, f"{name}_") and hasattr(module, name)
}
"""Functions that overwrite what they are given, and those that do not."""
ASSERTIONS = (torch._assert, ATEN._assert_scalar.default, ATEN._assert_tensor_metadata.default)

OPAQUE = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)
"""torch's modules with non-linearities inside, which torch.fx would take for one operation."""

_tracing = threading.Lock()
LIBRARIES = tuple(sysconfig.get_path(name) + "/torch/" for name in ("purelib", "platlib"))
"""Where torch's own code lies, in which no line of a network's is at fault."""


class _Tracer(fx.Tracer):
    """Records one thread's calls alone.

    While torch.fx traces, every module's call in the process goes through the tracer; calls of other threads, which run
    other networks, must pass.
    """

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def is_leaf_module(self, m, module_qualified_name):
        return super().is_leaf_module(m, module_qualified_name) and not isinstance(m, OPAQUE)

    def call_module(self, m, forward, args, kwargs):
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def exported(network: nn.Module, image: torch.Tensor) -> bytes:
    """The network's graph by `torch.export`, for any number of images like `image` [1, 3, H, W], with its weights.

    It switches some of torch's kernels off in the whole process while it runs, so that in a process of several threads
    others compute other last bits. StudyError with the line at fault where it cannot follow the network.
    """
    # Of one image torch.export makes a graph for one image.
    batch = (image.expand(2, -1, -1, -1).contiguous(),)
    content = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            shapes = ({0: torch.export.Dim("images")},)
            program = torch.export.export(network, batch, dynamic_shapes=shapes, strict=False)
            # No decompositions: what overwrites a tensor becomes an operation that does not.
            torch.export.save(program.run_decompositions({}), content)
    except Exception as error:
        raise StudyError(_untraceable(network, error)) from error
    return content.getvalue()


def _untraceable(network: nn.Module, error: Exception) -> str:
    """What cannot be traced, and in which line of a network's code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(LIBRARIES)]
    of_network = [f for f in frames if Path(f.filename) != Path(__file__)]
    where = f"{of_network[-1].filename}, line {of_network[-1].lineno} ({of_network[-1].line}): " if of_network else ""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{type(network).__name__}: cannot be traced: {where}{said}"


def _loaded(content: bytes, device: torch.device) -> fx.GraphModule:
    """The graph that `exported` gives, on a device, with the scores as its one output."""
    program = torch.export.load(io.BytesIO(content))
    module = move_to_device_pass(program, device).module(check_guards=False)
    graph, copies = fx.Graph(), {}
    for node in module.graph.nodes:
        if node.op == "output":
            break
        copies[node] = graph.node_copy(node, copies.__getitem__)
    returned = tree_leaves(node.args)
    graph.output(copies[returned[0]] if len(returned) == 1 else tuple(copies[each] for each in returned))
    return fx.GraphModule(module, graph)


def trace(
    network: nn.Module,
    image: torch.Tensor | None = None,
    export: Callable[[nn.Module, torch.Tensor], bytes] = exported,
) -> fx.GraphModule:
    """The graph of a network in evaluation mode, with every in-place operation made out of place.

    `image` [1, 3, H, W] is one that the network takes: without it only torch.fx can be tried, and what depends on the
    number of images cannot be told (`measure`). `export` does what `exported` does, in another process perhaps.
    In-place operations would overwrite the layers that the study keeps and, behind a cut, what is cached. StudyError
    where the network cannot be traced, with the line at fault.
    """
    network.eval()
    overwriting = {path: module for path, module in network.named_modules() if getattr(module, "inplace", False)}
    for module in overwriting.values():
        module.inplace = False
    try:
        traced = _recorded(network, overwriting)
    except Exception as error:
        for module in overwriting.values():
            module.inplace = True
        if image is None:
            raise StudyError(_untraceable(network, error)) from error
        traced = _loaded(export(network, image), image.device)
    for node in reversed(traced.graph.nodes):
        # Of shapes, which are the same for all images of a study.
        if node.op == "call_function" and node.target in ASSERTIONS:
            traced.graph.erase_node(node)
        # The engine has other memory layouts, of which not every shape is a view.
        elif node.target is ATEN.view.default:
            node.target = ATEN.reshape.default
        elif node.op == "call_method" and node.target == "view" and _of_shape(node):
            node.target = "reshape"
        # An assignment to a part of a tensor, as torch.export writes it; torch's operation has no derivative.
        elif node.target is ATEN.copy.default:
            node.target = _copied
    traced.recompile()
    return traced if image is None else measure(traced, image)


def _overwrites(name: str) -> bool:
    """Whether torch's name of an operation says that it overwrites what it is given."""
    return name.endswith("_") and not name.endswith("__")


def _copied(into: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """The source's values in the shape and the type that `into` has."""
    return source.to(into.dtype).expand_as(into)


def _of_shape(view: fx.Node) -> bool:
    """Whether a view has another shape, and not another type of numbers."""
    return not view.kwargs and not isinstance(view.args[-1], torch.dtype)


def _recorded(network: nn.Module, overwriting: Collection[str]) -> fx.GraphModule:
    """The graph by torch.fx; an error of any kind where it cannot follow the network.

    `overwriting` are the paths of modules that work in place when the network is left as it is.
    """
    with _tracing:
        traced = fx.GraphModule(network, _Tracer().trace(network))
    order = {node: i for i, node in enumerate(traced.graph.nodes)}
    for node in order:
        method, function = node.op == "call_method", node.op == "call_function"
        renamed = (method and _overwrites(node.target)) or (function and node.target in OUT_OF_PLACE)
        unknown = method and renamed and not hasattr(torch.Tensor, node.target.removesuffix("_"))
        unknown |= function and not renamed and _overwrites(node.target.__name__)
        if unknown or "out" in node.kwargs:
            raise StudyError(f"{node.name}: overwrites a tensor, and torch has nothing that does not in its place")
        in_place = (
            renamed or bool(node.kwargs.get("inplace")) or (node.op == "call_module" and node.target in overwriting)
        )
        if in_place and any(order[user] > order[node] for user in node.all_input_nodes[0].users):
            # The graph does not say that they read what the operation has left there.
            raise StudyError(f"{node.name}: overwrites what is read again; assign its result to a name of its own")
        if not node.users and (in_place or is_layer(traced, node)):
            raise StudyError(f"{node.name}: an in-place operation whose result is not used; assign it")
        if renamed:
            node.target = node.target.removesuffix("_") if method else OUT_OF_PLACE[node.target]
        elif node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    return traced


def is_plain(module: nn.Module) -> bool:
    """Whether a module of torch's does what its class does, and has neither hooks nor a `forward` of its own."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_layer(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node of the graph is a non-linearity."""
    if node.op == "call_module":
        return isinstance(network.get_submodule(node.target), MODULES)
    if node.op == "call_method":
        return node.target in METHODS
    if node.op != "call_function":
        return False
    return any(node.target in alike for alike in FUNCTIONS.values()) or _is_relu6(node)


def _is_relu6(node: fx.Node) -> bool:
    """Whether a node is a ReLU6, which torch's module writes as a tanh of straight lines from 0 to 6."""
    return node.target in FUNCTIONS["relu6"] or (node.target is ATEN.hardtanh.default and node.args[1:] == (0.0, 6.0))


def rectifier(network: fx.GraphModule, node: fx.Node) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """torch's function of a node that is a ReLU or a ReLU6 and no more; None for any other."""
    module = network.get_submodule(node.target) if node.op == "call_module" else None
    if not is_layer(network, node) or (module is not None and not is_plain(module)):
        return None
    if isinstance(module, nn.ReLU6) or _is_relu6(node):
        return F.relu6
    return F.relu if isinstance(module, nn.ReLU) or node.target in (*FUNCTIONS["relu"], "relu") else None


@dataclass(frozen=True)
class Tensor:
    """What is known of a tensor: its shape, and whether it holds floating-point numbers."""

    shape: tuple[int, ...]
    floating: bool


class Recorder(fx.Interpreter):
    """Runs a graph node by node and hands on what each gives; values are freed after their last use."""

    def __init__(self, traced: fx.GraphModule, keep: Callable[[fx.Node, object], None]):
        super().__init__(traced)
        self.keep = keep
        # torch would append the graph's node to the messages of errors, those of `keep` too.
        self.extra_traceback = False

    def run_node(self, n: fx.Node):
        value = super().run_node(n)
        self.keep(n, value)
        return value


def _known(value: object) -> object:
    """What a node gives, with `Tensor` in the place of each tensor."""
    return tree_map(
        lambda leaf: Tensor(tuple(leaf.shape), leaf.is_floating_point()) if torch.is_tensor(leaf) else leaf, value
    )


COUNTS = (4, 7)
"""Numbers of images with which a graph is measured: two, of which no half or third is the same, so that what depends on
their number is known.
"""


@torch.no_grad()
def measure(traced: fx.GraphModule, image: torch.Tensor) -> fx.GraphModule:
    """Note at each node what it gives for `COUNTS` images, as `measured` in its `meta`: shapes of tensors, and sizes.

    `image` [1, 3, H, W] is one that the network takes.
    """
    found = []
    for count in COUNTS:
        given: dict[fx.Node, object] = {}
        run = Recorder(traced, lambda node, value, given=given: given.update({node: _known(value)}))
        images = image.expand(count, -1, -1, -1)
        try:
            # Shapes alone, without the work.
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                run.run(mode.from_tensor(images))
        except Exception:
            run.run(images)
        found.append(given)
    for node in traced.graph.nodes:
        node.meta["measured"] = tuple(given[node] for given in found)
    return traced


def is_measured(node: fx.Node) -> bool:
    return "measured" in node.meta


def holds_tensors(node: fx.Node) -> bool:
    """Whether a node gives a tensor or several, as all do that are not measured, and not numbers or sizes alone."""
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(node.meta["measured"])) if is_measured(node) else True


def by_image(node: fx.Node) -> bool:
    """Whether a node gives one tensor with a row for each image; one that is not measured is taken to."""
    if not is_measured(node):
        return True
    few, more = node.meta["measured"]
    if not (isinstance(few, Tensor) and isinstance(more, Tensor)):
        return False
    return (*few.shape[:1], *more.shape[:1]) == COUNTS and few.shape[1:] == more.shape[1:]
