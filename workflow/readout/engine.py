"""The engine: a traced network made to take less time, with scores that are equal up to rounding.

`fold` serves every device, `hasten` CPUs: for a GPU the libraries choose such ways by themselves.
"""

from collections import Counter

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from readout.tracing import is_plain

KERNEL, STEP = 3, 5
"""Weights and outputs per side of a tile."""
SIDE = STEP + KERNEL - 1
"""Inputs per side of a tile."""
POINTS = (0, 1, 1 / 2, 2, -3 / 4, -4 / 3)
"""Where polynomials are evaluated, and at infinity; of those tried among the best in rounding.

They must be pairs of reciprocals, 0 and infinity among them, so that `_turned` holds.
"""
TILES = 256
"""At least so many tiles at once, in whole images: enough for a fast product, few enough to bound the memory."""
CHANNELS = 100
"""Products in x out / (in + out) of channels from which `Winograd` pays: with fewer, it costs more to transform."""
SHARE = 0.4
"""Part of the convolution's products up to which it pays: small images fill their tiles badly."""


def fold(traced: fx.GraphModule) -> fx.GraphModule:
    """Fold each batch norm into the convolution before it, in place; the scores change in their last bits.

    The norm's node stays and computes both; the convolution's is gone. The modules of the network that was traced stay
    as they are.
    """
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    modules = {node: traced.get_submodule(node.target) for node in calls}
    called = Counter(node.target for node in calls)
    for norm in calls:
        source = norm.args[0] if norm.args else None
        if (
            type(modules[norm]) is nn.BatchNorm2d
            # One whose weights are made at each call (`torch.nn.utils.parametrize`) is of another type.
            and type(modules.get(source)) is nn.Conv2d
            and is_plain(modules[norm])
            and is_plain(modules[source])
            and len(source.users) == called[source.target] == 1
        ):
            traced.set_submodule(source.target, fuse_conv_bn_eval(modules[source], modules[norm]))
            norm.target, norm.args, norm.kwargs = source.target, source.args, source.kwargs
            traced.graph.erase_node(source)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _evaluation(coefficients: int) -> np.ndarray:
    """The matrix [SIDE, coefficients] that evaluates a polynomial at the points and at infinity."""
    infinity = np.eye(1, coefficients, coefficients - 1)
    return np.concatenate([np.vander(POINTS, coefficients, increasing=True), infinity])


def _turned() -> tuple[np.ndarray, np.ndarray]:
    """The values of a reversed kernel at the points, in terms of the kernel's own: factors [SIDE] and order [SIDE].

    At point i the reversed kernel is factors[i] times the kernel at point order[i]. With p the i-th point, the other
    point is 1 / p and the factor p^2; 0 and infinity change places with the factor 1.
    """
    kernel = _evaluation(KERNEL)
    size = np.linalg.norm(kernel, axis=1)
    order = np.abs(kernel[:, ::-1] @ kernel.T / np.outer(size, size)).argmax(1)
    return size / size[order], order


def _by_tiles(
    x: torch.Tensor, to_products: torch.Tensor, kernels: torch.Tensor, to_outputs: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The convolution of `Winograd`, given its transforms; x: [N, in, H, W], kernels: [SIDE^2, in, out]."""
    _, channels, height, width = x.shape
    down, across = -(-height // STEP), -(-width // STEP)
    made = x.new_empty(len(x), down * STEP, across * STEP, len(bias))
    images = -(-TILES // (down * across))
    for given, out in zip(x.permute(0, 2, 3, 1).split(images), made.split(images), strict=True):
        count = len(given)
        padded = F.pad(given, (0, 0, 1, across * STEP - width + 1, 1, down * STEP - height + 1))
        image, row, column, unit = padded.stride()
        # Neighbouring tiles share KERNEL - 1 rows or columns.
        shape = (SIDE, SIDE, count, down, across, channels)
        tiles = padded.as_strided(shape, (row, column, image, STEP * row, STEP * column, unit))
        factors = torch.mm(to_products, tiles.reshape(SIDE**2, -1)).view(SIDE**2, -1, channels)
        products = torch.bmm(factors, kernels)
        sums = torch.mm(to_outputs, products.flatten(1)).view(STEP, STEP, count, down, across, -1)
        torch.add(sums.permute(2, 3, 0, 4, 1, 5), bias, out=out.view(count, down, STEP, across, STEP, -1))
    return made[:, :height, :width].permute(0, 3, 1, 2)


class _Tiles(torch.autograd.Function):
    """`_by_tiles`, differentiable with respect to x alone, as often as one likes.

    Its gradient is the same kind of convolution, with the kernels reversed and their inputs and outputs swapped.
    `turned` holds the two transforms for that; with them the kernels serve both directions as they lie in memory.
    """

    @staticmethod
    def forward(ctx, x, bias, kernels, to_products, to_outputs, *turned):
        ctx.save_for_backward(kernels, to_products, to_outputs, *turned)
        # Tails overwrite the result, which autograd forbids for a view that leaves a custom function.
        return _by_tiles(x, to_products, kernels, to_outputs, bias).detach()

    @staticmethod
    def backward(ctx, gradient):
        kernels, to_products, to_outputs, *turned = ctx.saved_tensors
        none = gradient.new_zeros(kernels.shape[1])
        found = _Tiles.apply(gradient, none, kernels.mT, *turned, to_products, to_outputs)
        return found, *[None] * 6


class Winograd(nn.Module):
    """A convolution with a 3 x 3 kernel, stride 1 and padding 1, by tiles: 49 products for 25 outputs instead of 225.

    Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). With V the
    evaluation of polynomials, V^-1 (V a * V g) are the coefficients of a product (Toom and Cook); transposed, this
    gives a row of outputs, V^T (V^-T x * V g), and rows and columns, one after the other, a tile. The transforms'
    sums cost a little more than one of float32's seven digits.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        weight = convolution.weight.detach()
        bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach()
        to_outputs, to_products = _evaluation(STEP).T, np.linalg.inv(_evaluation(SIDE)).T
        factors, order = _turned()
        transforms = {
            "to_products": to_products,
            "to_outputs": to_outputs,
            "to_products_turned": (factors[:, None] * to_products)[order],
            "to_outputs_turned": to_outputs[:, order],
        }
        # Each for rows and columns at once; in float64, rounded at the end.
        for name, transform in transforms.items():
            self.register_buffer(name, torch.from_numpy(np.kron(transform, transform)).to(weight))
        to_kernels = torch.from_numpy(np.kron(_evaluation(KERNEL), _evaluation(KERNEL)))
        given = weight.double().flatten(2)
        self.register_buffer("kernels", torch.stack([(given @ row).mT.to(weight) for row in to_kernels]))
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @staticmethod
    def suits(convolution: nn.Conv2d) -> bool:
        """Whether it gives what the convolution gives, in less time where images are large enough."""
        inputs, outputs = convolution.in_channels, convolution.out_channels
        return (
            convolution.kernel_size == (KERNEL, KERNEL)
            and convolution.stride == convolution.padding == convolution.dilation == (1, 1)
            and convolution.padding_mode == "zeros"
            and convolution.groups == 1
            and inputs * outputs >= CHANNELS * (inputs + outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [N, in, H, W]. Returns [N, out, H, W], channels last in memory.

        It can be differentiated with respect to x; the weights have no gradient.
        """
        height, width = x.shape[2:]
        down, across = -(-height // STEP), -(-width // STEP)
        if SIDE**2 * down * across > SHARE * KERNEL**2 * height * width:
            return F.conv2d(x, self.weight, self.bias, padding=1)
        transforms = self.to_products, self.to_outputs, self.to_products_turned, self.to_outputs_turned
        return _Tiles.apply(x, self.bias, self.kernels, *transforms)


def hasten(traced: fx.GraphModule) -> fx.GraphModule:
    """Put `Winograd` where it pays on a CPU with MKL, in place; elsewhere it was not measured."""
    if torch.backends.mkl.is_available():
        for path, module in [*traced.named_modules()]:
            if type(module) is nn.Conv2d and is_plain(module) and Winograd.suits(module):
                traced.set_submodule(path, Winograd(module))
    return traced


def channels_last(network: nn.Module) -> nn.Module:
    """Lay out a network's tensors of four axes channels-last, in place.

    torch's own way (`Module.to`) refuses a network with a tensor of five, as the masks of timm's Swin Transformers are.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return network
