"""The Caffe AlexNet, and its weights from the public conversions.

Two networks share the topology of BVLC's `bvlc_alexnet`: five convolutions of which three are in two groups, local
response normalisation, three max-poolings, two dense layers and the output. `caffe_alexnet` is BVLC's own;
`theano_alexnet` is its replication by Ding et al. (2014), trained anew, which pools before it normalises and
normalises with other constants. Weights of one in the other give wrong scores.

`.npy` and `.npz`, for caffe_alexnet. The `.npy` is `bvlc_alexnet.npy`, BVLC's weights converted by
github.com/ethereon/caffe-tensorflow and published by M. Guerzhoy and D. Frossard (University of Toronto): an array of
no dimensions that holds a dict {layer: [weights, biases]} with the layers conv1 to conv5 and fc6 to fc8. The `.npz`
holds the same arrays by the names `{layer}_W` and `{layer}_b`, which messages use for both.

    conv1_W [11, 11, 3, 96]     conv2_W [5, 5, 48, 256]     conv3_W [3, 3, 256, 384]    kernels are [H, W, in, out];
    conv4_W [3, 3, 192, 384]    conv5_W [3, 3, 192, 256]                                conv1's inputs are B, G, R
    fc6_W   [9216, 4096]        fc7_W   [4096, 4096]        fc8_W   [4096, outputs]     [in, out]; fc6's inputs are in
    {layer}_b [out]                                                                     the order H, W, C (6, 6, 256)

`.h5`, for theano_alexnet. `alexnet_weights.h5` of github.com/heuritech/convnets-keras, as Keras 1 on Theano saves
weights: groups with two data sets each, `{group}/{group}_W` and `{group}/{group}_b`. The halves of a convolution in
two groups are apart. Theano's convolution turns kernels by 180 degrees, torch's does not.

    conv_1_W   [96, 3, 11, 11]     conv_2_1_W, conv_2_2_W [128, 48, 5, 5]    kernels are [out, in, H, W], turned;
    conv_3_W   [384, 256, 3, 3]    conv_4_1_W, conv_4_2_W [192, 192, 3, 3]   conv_1's inputs are R, G, B
                                   conv_5_1_W, conv_5_2_W [128, 192, 3, 3]
    dense_1_W  [9216, 4096]        dense_2_W [4096, 4096]                    [in, out]; dense_1's inputs are in
    dense_3_W  [4096, outputs]     {group}_b [out]                           the order C, H, W (256, 6, 6)
"""

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from readout import StudyError
from readout.caffe import BUILDERS, SIDE, WIDTHS

MOST_OUTPUTS = 100_000
"""The whole of ImageNet has 21,841 classes; a file that claims many more would only fill the memory."""


@dataclass(frozen=True)
class _Array:
    """What a file says of an array, and how its values are had; they are, once the rest is found to be right."""

    shape: tuple[int, ...]
    dtype: str
    values: Callable[[], np.ndarray]


Find = Callable[[str], _Array | None]
"""The array of a name in an open file."""


@dataclass(frozen=True)
class _File:
    """A kind of file: whose weights it holds, how it is opened and laid out, and where to have it from.

    `groups` are the file's names for a layer's parts, `key` makes an array's name of one, but for `_W` or `_b`;
    `shape` gives the shape in the file from torch's, `weight` torch's weights from the file's.
    """

    model: str
    open: Callable[[Path], AbstractContextManager[Find]]
    groups: dict[str, tuple[str, ...]]
    key: str
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    weight: Callable[[str, np.ndarray], np.ndarray]
    remedy: str


def read(path: str | Path, model: str = "caffe_alexnet") -> dict[str, torch.Tensor]:
    """The state dict of `model` from a file in one of the layouts above; as many outputs as the file has.

    Layers that the model does not have are ignored. Raises StudyError where the file is of another model or another
    layout; nothing in the file is executed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FILES:
        raise StudyError(f"{path}: weights of {' or '.join(BUILDERS)} are read from files in {', '.join(FILES)}")
    file = FILES[suffix]
    if model != file.model:
        raise StudyError(f"{path}: {suffix} files hold weights of {file.model}, not of {model}; change model or file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror or error}); {file.remedy}") from error
    try:
        with file.open(path) as find:
            return _state_dict(find, file)
    except StudyError as error:
        raise StudyError(f"{path}: {error}; {file.remedy}") from error
    except Exception as error:
        # A damaged or foreign file is met with many kinds of errors.
        raise StudyError(f"{path}: not a readable {suffix} file ({type(error).__name__}); {file.remedy}") from error


def _state_dict(find: Find, file: _File) -> dict[str, torch.Tensor]:
    keys = {layer: [file.key.format(group) for group in groups] for layer, groups in file.groups.items()}
    named = [key + part for group in keys.values() for key in group for part in ("_W", "_b")]
    missing = [key for key in named if find(key) is None]
    if missing:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise StudyError(f"{listed} missing")
    shapes = _shapes(file.model, _outputs(find, keys["fc8"][0] + "_b"))
    state = {}
    for layer, group in keys.items():
        outputs, *inputs = shapes[layer]
        part = (outputs // len(group), *inputs)
        weights = [file.weight(layer, _take(find, key + "_W", file.shape(part))) for key in group]
        biases = [_take(find, key + "_b", part[:1]) for key in group]
        state[f"{layer}.weight"], state[f"{layer}.bias"] = _join(weights), _join(biases)
    return state


def _shapes(model: str, outputs: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the model's weights by layer."""
    with torch.device("meta"):
        parameters = BUILDERS[model](outputs).named_parameters()
    return {name.removesuffix(".weight"): tuple(p.shape) for name, p in parameters if name.endswith(".weight")}


def _outputs(find: Find, key: str) -> int:
    shape = find(key).shape
    if len(shape) != 1 or not 1 <= shape[0] <= MOST_OUTPUTS:
        raise StudyError(f"{key} is {list(shape)} instead of [outputs], one to {MOST_OUTPUTS}")
    return shape[0]


def _take(find: Find, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of an array in float32, shaped as in the file."""
    array = find(key)
    if array.shape != shape:
        raise StudyError(f"{key} is {list(array.shape)} instead of {list(shape)}")
    if not re.fullmatch("[<>=|]?f[248]", array.dtype):
        raise StudyError(f"{key} has the dtype {array.dtype[:20]!r} instead of floating-point numbers, as <f4")
    with np.errstate(over="ignore"):
        values = array.values().astype(np.float32)
    if not np.isfinite(values).all():
        raise StudyError(f"{key} has values that are not finite")
    return values


def _join(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(parts)))


def _tensorflow_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Where torch has [out, in, H, W] or [out, in]."""
    outputs, inputs, *kernel = shape
    return (*kernel, inputs, outputs)


def _tensorflow_weight(layer: str, values: np.ndarray) -> np.ndarray:
    if layer == "fc6":
        # [H * W * C, out] to [out, C, H, W] to [out, C * H * W]
        outputs = values.shape[1]
        return values.reshape(SIDE, SIDE, -1, outputs).transpose(3, 2, 0, 1).reshape(outputs, -1)
    if values.ndim == 2:
        return values.T
    values = values.transpose(3, 2, 0, 1)
    return values[:, ::-1] if layer == "conv1" else values


def _theano_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if len(shape) == 2 else shape


def _theano_weight(layer: str, values: np.ndarray) -> np.ndarray:
    return values.T if values.ndim == 2 else values[:, :, ::-1, ::-1]


class _Part:
    """Stands for whatever a pickle of arrays calls: it keeps the arguments and the state, and does nothing."""

    arguments, state = (), ()

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
"""What pickles of arrays name, by Python 2 and 3, by numpy 1 and 2; bytes are encoded text in the older protocols."""


class _Unpickler(pickle._Unpickler):
    """Reads a pickle of arrays into `_Part`s: not even numpy's own functions are called on what a stranger wrote.

    It is Python's own implementation because C's takes as much memory as an index in the file says.
    """

    def find_class(self, module, name):
        if (module, name) not in ARRAYS:
            called = f"{module}.{name}"[:80]
            raise StudyError(f"its pickle calls {called!r}, which no array needs; nothing was executed")
        return _Part


def _pickled(part: object) -> _Array | None:
    """An array from the state that numpy pickles: (version, shape, dtype, whether in Fortran's order, bytes)."""
    if not isinstance(part, _Part):
        return None
    *_, shape, dtype, fortran, content = part.state
    # Of a dtype numpy pickles its name without the order of bytes, and a state that begins (version, order).
    name = f"{dtype.state[1]}{dtype.arguments[0]}"

    def values() -> np.ndarray:
        text = content.arguments[0] if isinstance(content, _Part) else content
        data = text.encode("latin1") if isinstance(text, str) else text
        return np.frombuffer(data, name).reshape(shape, order="F" if fortran else "C")

    return _Array(shape, name, values)


def _header(file) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype from the header of an `.npy` file, which is left at its content."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    return shape, dtype


@contextmanager
def _npy(path: Path) -> Iterator[Find]:
    with path.open("rb") as file:
        shape, dtype = _header(file)
        if shape != () or not dtype.hasobject:
            raise StudyError(f"holds an array {list(shape)} of {dtype} instead of a dict of layers")
        layers = _Unpickler(file, encoding="latin1").load().state[-1][0]
    if not isinstance(layers, dict):
        raise StudyError(f"holds {type(layers).__name__} instead of a dict of layers")

    def find(key: str) -> _Array | None:
        layer, _, part = key.partition("_")
        entry = layers.get(layer)
        return _pickled(entry["Wb".index(part)]) if isinstance(entry, list | tuple) and len(entry) == 2 else None

    yield find


@contextmanager
def _npz(path: Path) -> Iterator[Find]:
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())

        def find(key: str) -> _Array | None:
            if f"{key}.npy" not in members:
                return None
            with archive.open(f"{key}.npy") as member:
                shape, dtype = _header(member)
            return _Array(shape, dtype.str, lambda: values(key))

        def values(key: str) -> np.ndarray:
            with archive.open(f"{key}.npy") as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                # At the member's end its checksum is compared.
                if member.read(1):
                    raise StudyError(f"{key} has more bytes than its header says")
            return array

        yield find


@contextmanager
def _h5(path: Path) -> Iterator[Find]:
    import h5py

    with h5py.File(path, "r") as file:

        def find(key: str) -> _Array | None:
            data = file.get(key)
            return _Array(data.shape, data.dtype.str, lambda: data[()]) if isinstance(data, h5py.Dataset) else None

        yield find


_CAFFE = {layer: (layer,) for layer in (*WIDTHS, "fc8")}
_THEANO = {
    "conv1": ("conv_1",),
    "conv2": ("conv_2_1", "conv_2_2"),
    "conv3": ("conv_3",),
    "conv4": ("conv_4_1", "conv_4_2"),
    "conv5": ("conv_5_1", "conv_5_2"),
    "fc6": ("dense_1",),
    "fc7": ("dense_2",),
    "fc8": ("dense_3",),
}

FILES = {
    ".npy": _File(
        "caffe_alexnet", _npy, _CAFFE, "{0}", _tensorflow_shape, _tensorflow_weight,
        "give bvlc_alexnet.npy as caffe-tensorflow converts it",
    ),
    ".npz": _File(
        "caffe_alexnet", _npz, _CAFFE, "{0}", _tensorflow_shape, _tensorflow_weight,
        "give the arrays of bvlc_alexnet.npy, saved by numpy.savez as conv1_W, conv1_b to fc8_W, fc8_b",
    ),
    ".h5": _File(
        "theano_alexnet", _h5, _THEANO, "{0}/{0}", _theano_shape, _theano_weight,
        "give alexnet_weights.h5 of convnets-keras",
    ),
}  # fmt: skip
"""By the suffix of the file."""
