"""The Caffe AlexNet: its layers, its normalisation, and files of weights in each layout, sound and not."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import convolve2d
from torch import nn

from inputs import conversions
from readout import StudyError, caffe, cuts, layers, tracing

MODELS = ("caffe_alexnet", "theano_alexnet")
FORMATS = {".npy": "caffe_alexnet", ".npz": "caffe_alexnet", ".h5": "theano_alexnet"}
OUTPUTS = 5


@pytest.fixture
def narrow(monkeypatch):
    """Both networks with few channels, no two widths equal, and the sizes of kernels and images as they are."""
    widths = {"conv1": 8, "conv2": 12, "conv3": 10, "conv4": 6, "conv5": 4, "fc6": 14, "fc7": 16}
    monkeypatch.setattr(caffe, "WIDTHS", widths)


@pytest.fixture
def network(narrow):
    """Builds a narrow network with random weights and biases that keep its scores apart."""

    def make(model: str = "caffe_alexnet") -> nn.Module:
        network = caffe.BUILDERS[model](OUTPUTS).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("weight"):
                    nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
                else:
                    parameter.normal_(0, 0.2, generator=generator)
        return network

    return make


@pytest.fixture
def photos() -> torch.Tensor:
    """Two random images [2, 3, 227, 227], the scale 0 to 255 less the mean."""
    return torch.rand(2, 3, 227, 227, generator=torch.Generator().manual_seed(1)) * 255 - 115


# The files' layouts, written from their description and apart from the reader.


def caffe_arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """`{layer}_W` and `{layer}_b` as Caffe's weights are in TensorFlow's order; dense weights in Fortran's order."""
    arrays = {}
    for name, tensor in state.items():
        layer, values = name.split(".")[0], tensor.numpy()
        if name.endswith("bias"):
            arrays[f"{layer}_b"] = values
        elif layer == "fc6":
            apart = values.reshape(values.shape[0], -1, 6, 6)
            arrays["fc6_W"] = np.einsum("ochw->hwco", apart).reshape(-1, values.shape[0])
        elif layer.startswith("fc"):
            arrays[f"{layer}_W"] = values.T
        else:
            arrays[f"{layer}_W"] = np.einsum("oihw->hwio", values)
    arrays["conv1_W"] = np.stack([arrays["conv1_W"][:, :, colour] for colour in (2, 1, 0)], axis=2)
    return arrays


def theano_arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """`{group}_W` and `{group}_b` as Keras has them on Theano."""
    arrays = {}
    for name, tensor in state.items():
        layer, part, values = name.split(".")[0], "W" if name.endswith("weight") else "b", tensor.numpy()
        number = int(layer[-1])
        if layer.startswith("fc"):
            arrays[f"dense_{number - 5}_{part}"] = values.T
            continue
        values = np.rot90(values, 2, axes=(2, 3)) if part == "W" else values
        if number in (1, 3):
            arrays[f"conv_{number}_{part}"] = values
        else:
            arrays[f"conv_{number}_1_{part}"], arrays[f"conv_{number}_2_{part}"] = np.split(values, 2)
    return arrays


def write_npy(path: Path, content: object) -> None:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def layer_dict(arrays: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """By layer [weights, biases], as the `.npy` has them."""
    names = dict.fromkeys(key.split("_")[0] for key in arrays)
    return {name: [arrays[f"{name}_{part}"] for part in "Wb" if f"{name}_{part}" in arrays] for name in names}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A file of the kind that its suffix says."""
    if path.suffix == ".npy":
        write_npy(path, layer_dict(arrays))
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, values in arrays.items():
                file[f"{key.rsplit('_', 1)[0]}/{key}"] = values
    return path


def arrays_of(suffix: str, state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return theano_arrays(state) if suffix == ".h5" else caffe_arrays(state)


@pytest.fixture
def sound(network, tmp_path):
    """Writes the weights of the narrow network, after a change to the arrays, into a file of a format."""

    def make(suffix: str, change=lambda arrays: None) -> Path:
        arrays = arrays_of(suffix, network(FORMATS[suffix]).state_dict())
        change(arrays)
        return write(tmp_path / f"weights{suffix}", arrays)

    return make


# The networks


@pytest.mark.parametrize("model", MODELS)
def test_units_by_hand(model):
    """227 pixels: (227 - 11) / 4 + 1 = 55, pooled to 27, to 13: 96 x 55 x 55, 256 x 27 x 27, 384 x 13 x 13 and so on."""
    with torch.device("meta"):
        network = caffe.BUILDERS[model]()
        found = layers.find(network, tracing.trace(network), torch.zeros(1, 3, 227, 227))
    assert [layer.name for layer in found] == ["conv1", "conv2", "conv3", "conv4", "conv5", "dense1", "dense2"]
    assert [layer.units for layer in found] == [290400, 186624, 64896, 64896, 43264, 4096, 4096]
    assert sum(layer.units for layer in found) == 658272
    assert [layer.module for layer in found] == [f"relu{i}" for i in range(1, 8)]


@pytest.mark.parametrize("model", MODELS)
def test_parameters_by_hand(model):
    """Weights and biases, the halves of a convolution in two groups seeing half of its inputs."""
    with torch.device("meta"):
        counts = {name: p.numel() for name, p in caffe.BUILDERS[model]().named_parameters() if name.endswith("weight")}
    assert counts == {
        "conv1.weight": 96 * 3 * 11 * 11,
        "conv2.weight": 256 * 48 * 5 * 5,
        "conv3.weight": 384 * 256 * 3 * 3,
        "conv4.weight": 384 * 192 * 3 * 3,
        "conv5.weight": 256 * 192 * 3 * 3,
        "fc6.weight": 256 * 6 * 6 * 4096,
        "fc7.weight": 4096 * 4096,
        "fc8.weight": 4096 * 1000,
    }


@pytest.mark.parametrize("model", MODELS)
def test_the_traced_network_and_its_cuts_give_its_scores(model, network, photos):
    """At every layer."""
    original = network(model)
    traced = tracing.trace(network(model))
    with torch.inference_mode():
        expected = original(photos)
        for layer in layers.find(original, traced, photos[:1]):
            cut = cuts.cut(traced, layer.node)
            assert torch.equal(cut.tail(*cut.prefix(photos)), expected), layer.name


# Six channels of 100. Caffe: 1 + 1e-4 / 5 x the sum of squares, of 5 channels 5e4, so 2; of 4 and 3 at the edges 1.8 and
# 1.6. Theano: 2 + 1e-4 x the sum, so 7, 6 and 5.
@pytest.mark.parametrize(
    ("model", "scales"), [("caffe_alexnet", [1.6, 1.8, 2, 2, 1.8, 1.6]), ("theano_alexnet", [5, 6, 7, 7, 6, 5])]
)
@pytest.mark.parametrize("norm", ["norm1", "norm2"])
def test_normalisation_by_hand(model, scales, norm, narrow):
    """x / scale^0.75; the sum runs over two channels on either side."""
    found = getattr(caffe.BUILDERS[model](OUTPUTS), norm)(torch.full((1, 6, 1, 1), 100.0))
    torch.testing.assert_close(found.flatten(), 100 / torch.tensor(scales, dtype=torch.float32) ** 0.75)


@pytest.mark.parametrize(
    ("model", "order"), [("caffe_alexnet", ["norm", "pool"]), ("theano_alexnet", ["pool", "norm"])]
)
def test_order_of_normalisation_and_pooling(model, order, narrow):
    """Behind the first two convolutions; pooling alone behind the fifth."""
    names = [name for name, _ in caffe.BUILDERS[model](OUTPUTS).named_children()]
    for stage in ("1", "2"):
        at = names.index(f"relu{stage}")
        assert names[at + 1 : at + 3] == [name + stage for name in order]
    assert names[names.index("relu5") + 1 : names.index("fc6")] == ["pool5", "flatten"]


@pytest.mark.parametrize(("conv", "inputs", "grouped"), [("conv2", 8, True), ("conv3", 12, False), ("conv4", 10, True), ("conv5", 6, True)])  # fmt: skip
def test_halves_of_a_grouped_convolution_see_half_of_its_inputs(conv, inputs, grouped, network):
    """The first half of the outputs does not depend on the second half of the inputs; the second half does."""
    module = getattr(network(), conv)
    x = torch.randn(1, inputs, 5, 5, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, inputs // 2 :] += 1
    with torch.inference_mode():
        same = (module(x) == module(other)).flatten(2).all(2)[0]
    half = len(same) // 2
    assert bool(same[:half].all()) is grouped
    assert not same[half:].any()


# Files


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_layout_is_read_bit_for_bit(suffix, sound, network):
    """The weights that were written, in tensors that own their memory."""
    expected = network(FORMATS[suffix]).state_dict()
    state = conversions.read(sound(suffix), FORMATS[suffix])
    assert list(state) == list(expected)
    for key, tensor in expected.items():
        assert state[key].dtype == torch.float32
        assert state[key].is_contiguous()
        assert torch.equal(state[key], tensor), key


def _patches(x, side, stride):
    """[N, H, W, C] to [N, H', W', C, side, side]."""
    return sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]


def _tensorflow_convolution(x, arrays, layer, stride=1, padding=0, groups=1):
    weights, biases = arrays[f"{layer}_W"].astype(float), arrays[f"{layer}_b"]
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    parts = zip(np.split(x, groups, axis=3), np.split(weights, groups, axis=3), strict=True)
    found = [np.einsum("nhwcij,ijco->nhwo", _patches(a, len(w), stride), w) for a, w in parts]
    return np.maximum(np.concatenate(found, axis=3) + biases, 0)


def _tensorflow_normalisation(x):
    """TensorFlow's formula at depth_radius 2, alpha 2e-5, beta 0.75, bias 1, as caffe-tensorflow writes the network."""
    scale = np.ones_like(x)
    for i in range(x.shape[3]):
        scale[..., i] += 2e-5 * (x[..., max(0, i - 2) : i + 3] ** 2).sum(axis=3)
    return x / scale**0.75


def caffe_scores(arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """The network in the file's own layout: images [N, H, W, 3] in B, G, R."""

    def pool(x):
        return _patches(x, 3, 2).max(axis=(4, 5))

    x = _tensorflow_convolution(images, arrays, "conv1", stride=4)
    x = _tensorflow_convolution(pool(_tensorflow_normalisation(x)), arrays, "conv2", padding=2, groups=2)
    x = _tensorflow_convolution(pool(_tensorflow_normalisation(x)), arrays, "conv3", padding=1)
    x = _tensorflow_convolution(x, arrays, "conv4", padding=1, groups=2)
    x = pool(_tensorflow_convolution(x, arrays, "conv5", padding=1, groups=2)).reshape(len(images), -1)
    for layer in ("fc6", "fc7"):
        x = np.maximum(x @ arrays[f"{layer}_W"] + arrays[f"{layer}_b"], 0)
    return x @ arrays["fc8_W"] + arrays["fc8_b"]


def _theano_convolution(x, weights, biases, stride=1, padding=0):
    """A true convolution, its kernels turned, of [C, H, W]."""
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding)])
    found = [sum(convolve2d(a, k, mode="valid") for a, k in zip(x, kernels, strict=True)) for kernels in weights]
    return np.maximum(np.stack(found)[:, ::stride, ::stride] + biases[:, None, None], 0)


def theano_scores(arrays: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """The network of theano_alexnet in the file's own layout: images [N, 3, H, W] in R, G, B."""

    def convolution(x, name, **options):
        return _theano_convolution(x, arrays[f"{name}_W"].astype(float), arrays[f"{name}_b"], **options)

    def halves(x, name, **options):
        parts = enumerate(np.split(x, 2), start=1)
        return np.concatenate([convolution(part, f"{name}_{i}", **options) for i, part in parts])

    def pool(x):
        return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))

    def normalise(x):
        squares = np.pad(x**2, [(2, 2), (0, 0), (0, 0)])
        return x / (2 + 1e-4 * sum(squares[i : i + len(x)] for i in range(5))) ** 0.75

    scores = []
    for x in images:
        x = convolution(x, "conv_1", stride=4)
        x = halves(normalise(pool(x)), "conv_2", padding=2)
        x = convolution(normalise(pool(x)), "conv_3", padding=1)
        x = pool(halves(halves(x, "conv_4", padding=1), "conv_5", padding=1)).ravel()
        for name in ("dense_1", "dense_2"):
            x = np.maximum(x @ arrays[f"{name}_W"] + arrays[f"{name}_b"], 0)
        scores.append(x @ arrays["dense_3_W"] + arrays["dense_3_b"])
    return np.stack(scores)


@pytest.mark.parametrize("suffix", FORMATS)
def test_scores_are_those_of_the_files_own_network(suffix, sound, network, photos):
    """Computed apart, by numpy in double precision, in the layout, colours and sense of convolution of the file."""
    state = conversions.read(sound(suffix), FORMATS[suffix])
    read = caffe.BUILDERS[FORMATS[suffix]](OUTPUTS).eval()
    read.load_state_dict(state)
    with torch.inference_mode():
        scores = read(photos).numpy()
    arrays, images = arrays_of(suffix, network(FORMATS[suffix]).state_dict()), photos.double().numpy()
    if suffix == ".h5":
        expected = theano_scores(arrays, images)
    else:
        expected = caffe_scores(arrays, images.transpose(0, 2, 3, 1)[..., ::-1])
    assert np.ptp(expected, axis=1).min() > 1
    # Sums of some hundred float32 in several layers.
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def _first_layer(file: Path, model: str, photos: torch.Tensor) -> torch.Tensor:
    network = caffe.BUILDERS[model](OUTPUTS).eval()
    network.load_state_dict(conversions.read(file, model))
    with torch.inference_mode():
        return network.conv1(photos)[0]


def test_a_kernel_of_caffe_by_hand(sound, photos):
    """Channels 0, 1, 2 take the pixel in row 2, column 7 of each patch from the file's inputs 0, 1, 2: B, G, R."""

    def single(arrays):
        arrays["conv1_W"], arrays["conv1_b"] = np.zeros((11, 11, 3, 8), np.float32), np.zeros(8, np.float32)
        for colour in range(3):
            arrays["conv1_W"][2, 7, colour, colour] = 1

    red, green, blue = photos[0, :, 2 : 2 + 217 : 4, 7 : 7 + 217 : 4]
    found = _first_layer(sound(".npy", single), "caffe_alexnet", photos)
    assert torch.equal(found[:3], torch.stack([blue, green, red]))


def test_a_kernel_of_theano_by_hand(sound, photos):
    """A convolution adds x[i + 10 - u, j + 10 - v] w[u, v]: w[2, 7] meets the pixel in row 8, column 3 of each patch."""

    def single(arrays):
        arrays["conv_1_W"], arrays["conv_1_b"] = np.zeros((8, 3, 11, 11), np.float32), np.zeros(8, np.float32)
        for colour in range(3):
            arrays["conv_1_W"][colour, colour, 2, 7] = 1

    found = _first_layer(sound(".h5", single), "theano_alexnet", photos)
    assert torch.equal(found[:3], photos[0, :, 8 : 8 + 217 : 4, 3 : 3 + 217 : 4])


class Python2(pickle._Pickler):
    """Pickles text and bytes alike as Python 2's `str`."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_str(self, value):
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_str


HEADER = {"descr": "|O", "fortran_order": False, "shape": ()}


def raw_npy(path: Path, payload: bytes, header=HEADER) -> Path:
    """An `.npy` with any payload behind its header."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(payload)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("pickler", "package", "protocol"),
    [
        (Python2, b"numpy.core", 2),
        (pickle._Pickler, b"numpy.core", 2),
        (pickle._Pickler, b"numpy.core", 3),
        (pickle._Pickler, b"numpy._core", 2),
        (pickle._Pickler, b"numpy._core", 3),
        (pickle._Pickler, b"numpy._core", 4),
    ],
)
def test_pickles_of_all_ages_are_read(pickler, package, protocol, network, tmp_path):
    """The published file is of Python 2 and numpy 1; numpy itself reads the test's imitation."""
    expected = network().state_dict()
    arrays, buffer = caffe_arrays(expected), io.BytesIO()
    pickler(buffer, protocol).dump(np.array(layer_dict(arrays), dtype=object))
    file = raw_npy(tmp_path / "weights.npy", buffer.getvalue().replace(b"numpy._core", package))
    assert np.array_equal(np.load(file, allow_pickle=True, encoding="latin1").item()["fc7"][0], arrays["fc7_W"])
    state = conversions.read(file)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2"])
def test_other_floating_point_numbers_are_converted(suffix, dtype, sound, network):
    """To float32; halves lose digits when they are written."""

    def convert(arrays):
        arrays.update({key: values.astype(dtype) for key, values in arrays.items()})

    state = conversions.read(sound(suffix, convert), FORMATS[suffix])
    for key, tensor in network(FORMATS[suffix]).state_dict().items():
        assert torch.equal(state[key], tensor.half().float() if dtype == "<f2" else tensor)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("outputs", [1, 7])
def test_the_file_says_how_many_outputs_there_are(suffix, outputs, sound):
    """Fine-tuned weights have others than 1000."""
    last = "dense_3" if suffix == ".h5" else "fc8"

    def change(arrays):
        arrays[f"{last}_W"], arrays[f"{last}_b"] = np.ones((16, outputs), np.float32), np.ones(outputs, np.float32)

    state = conversions.read(sound(suffix, change), FORMATS[suffix])
    assert (state["fc8.weight"].shape, state["fc8.bias"].shape) == ((outputs, 16), (outputs,))


@pytest.mark.parametrize("suffix", FORMATS)
def test_other_layers_are_ignored(suffix, sound, network):
    """Whatever they hold."""

    def change(arrays):
        arrays["extra_W"], arrays["extra_b"] = np.arange(3), np.full(2, np.nan)

    state = conversions.read(sound(suffix, change), FORMATS[suffix])
    assert list(state) == list(network().state_dict())


def test_a_suffix_in_capitals(sound):
    """Some systems do not tell them apart."""
    file = sound(".npz")
    assert conversions.read(file.rename(file.with_suffix(".NPZ")))


# Files that do not fit


def _refused(file: Path, model: str, words: str) -> None:
    with pytest.raises(StudyError, match=rf"(?s){file.name}: .*{words}") as caught:
        conversions.read(file, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_weights_of_the_other_network_are_refused(suffix, sound):
    """They would load, and give wrong scores: the normalisation differs."""
    model = FORMATS[suffix]
    (other,) = set(MODELS) - {model}
    _refused(sound(suffix), other, rf"\{suffix} files hold weights of {model}, not of {other}; change model or file")


@pytest.mark.parametrize("name", ["weights.caffemodel", "weights", "weights.pt", "weights.hdf5"])
def test_another_suffix_is_named(tmp_path, name):
    """With those that are known."""
    (tmp_path / name).write_bytes(b"x")
    _refused(tmp_path / name, "caffe_alexnet", r"\.npy, \.npz, \.h5")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_missing_file_is_named(suffix, tmp_path):
    """And a folder."""
    _refused(tmp_path / f"nowhere{suffix}", FORMATS[suffix], r"No such file.*; give ")
    (tmp_path / f"folder{suffix}").mkdir()
    _refused(tmp_path / f"folder{suffix}", FORMATS[suffix], r"cannot be read \(Is a directory\); give ")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"\n", b"<html>not found</html>", b"\x93NUMPY", b"\x93NUMPY\1\0\x76\0{'descr'", b"PK\3\4", b"PK\5\6" + bytes(18), b"\x89HDF\r\n\x1a\n", bytes(1000)])  # fmt: skip
def test_a_foreign_file_is_named(suffix, content, tmp_path, narrow):
    """A download that went wrong, or a file that was renamed."""
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    # Of the zip archives, the last is sound and empty.
    _refused(file, FORMATS[suffix], r"(not a readable \.\w+ file \(\w+\)|conv1_W, conv1_b, .* missing); give ")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("part", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_named(suffix, part, sound):
    """Cut short anywhere."""
    file = sound(suffix)
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    _refused(file, FORMATS[suffix], rf"not a readable \{suffix} file \(\w+\); give ")


@pytest.mark.parametrize("suffix", FORMATS)
def test_missing_arrays_are_named(suffix, sound):
    """Three, and the number of the others."""
    layer = "dense_2" if suffix == ".h5" else "fc7"
    keys = [f"{layer}_W", f"{layer}_b"]
    shown = ", ".join(f"{layer}/{key}" if suffix == ".h5" else key for key in keys)
    _refused(
        sound(suffix, lambda arrays: [arrays.pop(key) for key in keys]), FORMATS[suffix], rf"{shown} missing; give "
    )
    _refused(sound(suffix, dict.clear), FORMATS[suffix], r"and (13|19) more missing; give ")


def _set(key, make):
    def change(arrays):
        arrays[key] = make(arrays[key])

    return change


def _with(value, dtype=np.float32):
    def make(values):
        values = values.astype(dtype)
        values.flat[3] = value
        return values

    return make


FAULTS = {
    ".npy": [
        (_set("conv2_W", lambda v: v.transpose(3, 2, 0, 1)), r"conv2_W is \[12, 4, 5, 5\] instead of \[5, 5, 4, 12\]"),
        (_set("fc6_W", lambda v: v[:-1]), r"fc6_W is \[143, 14\] instead of \[144, 14\]"),
        (_set("conv4_b", lambda v: v[:, None]), r"conv4_b is \[6, 1\] instead of \[6\]"),
        (_set("fc8_W", lambda v: v[:, 1:]), r"fc8_W is \[16, 4\] instead of \[16, 5\]"),
        (_set("fc8_b", lambda v: v[None]), r"fc8_b is \[1, 5\] instead of \[outputs\], one to 100000"),
        (_set("fc8_b", lambda v: v[:0]), r"fc8_b is \[0\] instead of \[outputs\]"),
        (_set("fc8_b", lambda v: np.zeros(100_001, np.float32)), r"fc8_b is \[100001\] instead of \[outputs\]"),
        (_set("conv3_W", lambda v: v.astype(np.int32)), r"conv3_W has the dtype '<i4' instead of floating-point"),
        (_set("conv3_b", lambda v: v.astype(bool)), r"conv3_b has the dtype '\|b1' instead of"),
        (_set("fc7_b", lambda v: v.astype(complex)), r"fc7_b has the dtype '<c16' instead of"),
        (_set("conv1_W", _with(np.nan)), r"conv1_W has values that are not finite"),
        (_set("fc6_b", _with(-np.inf)), r"fc6_b has values that are not finite"),
        (_set("fc7_W", _with(1e300, float)), r"fc7_W has values that are not finite"),
    ],
    ".h5": [
        (_set("conv_2_2_W", lambda v: v[:-1]), r"conv_2_2/conv_2_2_W is \[5, 4, 5, 5\] instead of \[6, 4, 5, 5\]"),
        (_set("conv_4_1_b", lambda v: v[:-1]), r"conv_4_1/conv_4_1_b is \[2\] instead of \[3\]"),
        (_set("dense_1_W", np.transpose), r"dense_1/dense_1_W is \[14, 144\] instead of \[144, 14\]"),
        (_set("dense_3_b", lambda v: v[:-1]), r"dense_3/dense_3_W is \[16, 5\] instead of \[16, 4\]"),
        (_set("dense_3_b", lambda v: v[0]), r"dense_3/dense_3_b is \[\] instead of \[outputs\]"),
        (_set("conv_1_W", lambda v: v.astype(np.int64)), r"conv_1/conv_1_W has the dtype '<i8' instead of"),
        (_set("dense_2_W", _with(np.nan)), r"dense_2/dense_2_W has values that are not finite"),
    ],
}  # fmt: skip
FAULTS[".npz"] = FAULTS[".npy"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("suffix", "fault"), [(suffix, i) for suffix in FORMATS for i in range(len(FAULTS[suffix]))])
def test_an_array_that_does_not_fit_is_named(suffix, fault, sound):
    """File, array, what it is, what it should be, and where to have it from."""
    change, words = FAULTS[suffix][fault]
    _refused(sound(suffix, change), FORMATS[suffix], rf"{words}.*; give ")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_of_objects_are_refused(suffix, sound):
    """Their elements are whatever a pickle makes."""
    file = sound(suffix, _set("conv1_W", lambda v: np.full(v.shape, None)))
    _refused(file, "caffe_alexnet", r"conv1_W has the dtype '\|O8?' instead of floating-point numbers")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (3, "holds int instead of a dict of layers"),
        ({"conv1": 3}, r"conv1_W, conv1_b, conv2_W and 13 more missing"),
        ({"conv1": [1, 2]}, r"conv1_W, conv1_b, conv2_W and 13 more missing"),
        ({"conv1": [np.zeros(2)]}, r"conv1_W, conv1_b, conv2_W and 13 more missing"),
        ({"conv1": {"weights": 1, "biases": 2}}, r"conv1_W, conv1_b, conv2_W and 13 more missing"),
    ],
)
def test_other_contents_of_an_npy_are_named(content, words, tmp_path):
    """Dictionaries of other things, and no dictionaries."""
    write_npy(tmp_path / "weights.npy", content)
    _refused(tmp_path / "weights.npy", "caffe_alexnet", words)


@pytest.mark.parametrize(("array", "words"), [(np.zeros((2, 3), np.float32), r"\[2, 3\] of float32"), (np.zeros((), np.float32), r"\[\] of float32"), (np.array([None]), r"\[1\] of object")])  # fmt: skip
def test_an_npy_of_an_array_is_named(array, words, tmp_path):
    """Nothing is unpickled where the header says that it is not the dictionary."""
    np.save(tmp_path / "weights.npy", array, allow_pickle=True)
    _refused(tmp_path / "weights.npy", "caffe_alexnet", rf"holds an array {words} instead of a dict of layers")


# Hostile files


class Creates:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _hostile(how: str, trap: object, arrays: dict[str, np.ndarray]) -> object:
    """The trap somewhere in what would otherwise be weights."""
    content = layer_dict(arrays)
    if how == "alone":
        return trap
    if how == "in another layer":
        return content | {"extra": trap}
    if how == "as a name":
        return content | {trap: 1}
    content["conv1"][0] = np.full((11, 11, 3, 8), trap, dtype=object) if how == "in an array" else trap
    return content


PLACES = ["alone", "in another layer", "as a name", "as weights", "in an array"]


@pytest.mark.parametrize("how", PLACES)
def test_code_in_a_pickle_is_not_executed(how, network, tmp_path):
    """A pickle can hold any call; weights come from strangers."""
    file, trace = tmp_path / "weights.npy", tmp_path / "executed"
    write_npy(file, _hostile(how, Creates(trace), caffe_arrays(network().state_dict())))
    _refused(file, "caffe_alexnet", r"its pickle calls '\w+\.\S+', which no array needs; nothing was executed; give ")
    assert not trace.exists()


@pytest.mark.parametrize("how", PLACES)
def test_the_trap_works(how, network, tmp_path):
    """Negative control: read without care, the file of the test above is created."""
    file, trace = tmp_path / "weights.npy", tmp_path / "executed"
    write_npy(file, _hostile(how, Creates(trace), caffe_arrays(network().state_dict())))
    assert not trace.exists()
    np.load(file, allow_pickle=True)
    assert trace.exists()


def test_code_in_an_npz_is_not_executed(network, tmp_path):
    """Its entries can be pickles too."""
    trace, arrays = tmp_path / "executed", caffe_arrays(network().state_dict())
    arrays["conv1_W"] = np.full((11, 11, 3, 8), Creates(trace), dtype=object)
    np.savez(tmp_path / "weights.npz", **arrays)
    _refused(tmp_path / "weights.npz", "caffe_alexnet", "conv1_W has the dtype")
    assert not trace.exists()


CALLS = {
    "os.system": b"cos\nsystem\n(Vtrue\ntR.",
    "builtins.eval": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93(V1\ntR.",
    "numpy.load": b"cnumpy\nload\n(Vx.npy\ntR.",
    "numpy.core.multiarray.scalar": b"cnumpy.core.multiarray\nscalar\n.",
    "numpy.ndarray.tofile": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "elsewhere.ndarray": b"celsewhere\nndarray\n.",
    "inputs.conversions.read": b"cinputs.conversions\nread\n.",
}


@pytest.mark.parametrize("name", CALLS)
def test_only_what_arrays_need_is_admitted(name, tmp_path):
    """By its full name, in either form that pickles have for it."""
    file = raw_npy(tmp_path / "weights.npy", CALLS[name])
    _refused(file, "caffe_alexnet", rf"its pickle calls '{name}', which no array needs")


@pytest.mark.parametrize(
    "payload",
    [
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
        b"cnumpy\ndtype\n(Vf4\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntb.",
        b"cnumpy\nndarray\n}Varguments\nI1\nsb.",
        b"cnumpy\nndarray\nN}V__setstate__\nI1\ns\x86b.",
        b"cnumpy\nndarray\n)\x81.",
        b"c_codecs\nencode\n(V" + b"x" * 100 + b"\nVbz2\ntR.",
        b"Pname\n.",
        b"\x82\x01.",
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x09.",
        b"0.",
    ],
)
def test_admitted_names_can_do_nothing_else(payload, tmp_path):
    """They stand for nothing: whatever is called, told or built of them is no dictionary of arrays."""
    before = dict(vars(conversions._Part))
    _refused(raw_npy(tmp_path / "weights.npy", payload), "caffe_alexnet", r"(not a readable \.npy|a dict of layers)")
    assert dict(vars(conversions._Part)) == before


def _peak(file: Path, model: str, words: str) -> int:
    tracemalloc.start()
    try:
        _refused(file, model, words)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_number_in_a_pickle_does_not_set_the_memory(tmp_path):
    """C's unpickler makes a table as long as the largest index: 268 MB of ten bytes."""
    payload = b"\x80\x02Nr\xff\xff\xff\x00."
    pickle.loads(payload)
    assert _peak(raw_npy(tmp_path / "weights.npy", payload), "caffe_alexnet", "not a readable") < 10e6


@pytest.mark.parametrize("key", ["conv1_W", "fc8_W", "fc8_b"])
def test_a_size_in_an_npz_does_not_set_the_memory(key, sound):
    """The header is compared before any value is read."""
    file = sound(".npz", lambda arrays: arrays.pop(key))
    with zipfile.ZipFile(file, "a") as archive, archive.open(f"{key}.npy", "w") as member:
        shape = (10**9,) if key.endswith("b") else (16, 10**9)
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
        member.write(bytes(100))
    assert _peak(file, "caffe_alexnet", rf"{key} is \[.*1000000000\] instead of") < 10e6


@pytest.mark.parametrize("key", ["conv_1/conv_1_W", "dense_3/dense_3_b"])
def test_a_size_in_an_h5_does_not_set_the_memory(key, sound):
    """HDF5 makes room for values when they are written."""
    file = sound(".h5")
    with h5py.File(file, "a") as content:
        del content[key]
        content.create_dataset(key, shape=(10**12,), dtype="f4", chunks=(1000,))
    assert _peak(file, "theano_alexnet", rf"{key} is \[1000000000000\] instead of") < 10e6


def test_damaged_values_in_an_npz_are_named(sound):
    """Zip archives have checksums."""
    file = sound(".npz")
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("fc7_W.npy").header_offset
    content = bytearray(file.read_bytes())
    content[start + 400] ^= 1
    file.write_bytes(content)
    _refused(file, "caffe_alexnet", r"not a readable \.npz file \(BadZipFile\)")


def test_values_beyond_the_header_are_named(sound, network):
    """The entry is not what its header says."""
    values = caffe_arrays(network().state_dict())["fc7_b"]
    file = sound(".npz", lambda arrays: arrays.pop("fc7_b"))
    with zipfile.ZipFile(file, "a") as archive, archive.open("fc7_b.npy", "w") as member:
        np.lib.format.write_array(member, values)
        member.write(b"more")
    _refused(file, "caffe_alexnet", "fc7_b has more bytes than its header says")


def test_groups_in_place_of_data_sets_are_named(sound):
    """And links to nowhere."""
    file = sound(".h5")
    with h5py.File(file, "a") as content:
        del content["conv_3/conv_3_W"], content["dense_1/dense_1_b"]
        content.create_group("conv_3/conv_3_W")
        content["dense_1/dense_1_b"] = h5py.SoftLink("/nowhere")
    _refused(file, "theano_alexnet", r"conv_3/conv_3_W, dense_1/dense_1_b missing")
