"""Tracing: a network's graph, recorded by torch.fx, so that residual networks are handled like chains."""

import threading

import torch
from torch import fx, nn
from torch.nn import functional as F

from readout import StudyError

MODULES = (nn.ReLU, nn.ReLU6)
FUNCTIONS = (F.relu, F.relu6, torch.relu, torch.relu_)
METHODS = ("relu", "relu_")

_tracing = threading.Lock()


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
