"""Builders: networks of the user's own, from a file or a package, and what is said of those that do not serve."""

import importlib
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from inputs import builders, checkpoints, weights
from inputs.sources import ImageSource, NetworkSource
from jobs import networks as job
from readout import StudyError, tracing
from runtime import parquet

NET = """\
import random
import sys
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self.relu = nn.ReLU()
        self.dense = nn.Linear(256, outputs)

    def features(self, x):
        return self.relu(self.conv(x)).flatten(1)

    def forward(self, x):
        return self.dense(self.features(x))


def build(outputs):
    return Net(outputs)
"""
TRANSFORM = {"resize": None, "crop": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The folder of the run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, text=NET):
    """A file, with its folders; Python's records of what is in a folder are as coarse as the clock of the disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    importlib.invalidate_caches()
    return path


def source(model, weights="own", outputs=10):
    """A network on digits, as a study plans it."""
    images = ImageSource("digits", None, TRANSFORM)
    return NetworkSource(model, outputs, weights, images, builders.digest(model))


def list_layers(model="net.py:build", chosen=(), cells=16, **given):
    """Its table of layers; where it is refused, there is none."""
    path = Path("layers.parquet")
    try:
        job.list_layers(str(path), source=source(model, **given), chosen=chosen, cells=cells, device="cpu")
    except StudyError:
        assert not path.exists()
        raise
    return parquet.read(path, job.LAYERS).to_pylist()


# ---- where builders are


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("net.py:build", "net.py"),
        ("a folder/deeper/net-1.py:build", "a folder/deeper/net-1.py"),
        ("net:build", "net.py"),
        ("package.inner.net:build", "package/inner/net.py"),
        ("package.inner:build", "package/inner/__init__.py"),
        ("package:build", "package/__init__.py"),
    ],
)
def test_a_builder_is_found(here, model, path):
    """In a file by its path, in a module by its name; an __init__.py may be missing on the way."""
    write(path)
    assert builders.is_builder(model)
    assert builders.file(model).resolve() == (here / path).resolve()
    assert checkpoints.own(model, 7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert [row["layer"] for row in list_layers(model)] == ["conv1"]


def test_a_class_or_an_absolute_path_or_the_home_serves(here, monkeypatch):
    write("net.py")
    monkeypatch.setenv("HOME", str(here))
    digests = {builders.digest(f"{where}net.py:Net") for where in ("", "./", f"{here}/", "~/")}
    assert len(digests) == 1
    for where in ("", f"{here}/", "~/"):
        assert type(checkpoints.own(f"{where}net.py:Net", 7)).__name__ == "Net"


def test_names_of_models_are_no_builders():
    assert not any(map(builders.is_builder, ["alexnet", "timm:resnet18", "timm:resnet18.a1_in1k", "net.py:", "net.py"]))


@pytest.mark.parametrize("form", ["net.py:build", "package.net:build"])
def test_a_builder_may_import_what_lies_beside_it(here, form):
    """A file by the names of modules, a package by relative ones, too."""
    folder, dot = ("package", ".") if form.startswith("package") else (".", "")
    module = f"beside_{form[:3]}"
    write(f"{folder}/{module}.py")
    write(f"{folder}/net.py", f"def build(outputs):\n    from {dot}{module} import Net\n    return Net(outputs)\n")
    assert checkpoints.own(form, 7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


# ---- digests: what a builder's jobs depend on


def changes(model, path, line="# more\n"):
    """Whether another line in a file changes the hash of a builder."""
    before = builders.digest(model)
    write(path, Path(path).read_text() + line)
    return builders.digest(model) != before


BESIDE = ("import beside", "import beside as b", "from beside import Net", "def f():\n    import beside")


@pytest.mark.parametrize("line", BESIDE)
def test_the_digest_is_of_the_file_and_of_what_it_imports(line):
    """Directly or not, inside of functions too; nothing else beside it."""
    write("folder/net.py", f"import math\nimport torch\n{line}\n")
    write("folder/beside.py", "from parts.blocks import block\n")
    for name in ("folder/parts/__init__.py", "folder/parts/blocks.py", "folder/parts/other.py", "folder/other.py"):
        write(name, "")
    model = "folder/net.py:build"
    names = ("net", "beside", "parts/__init__", "parts/blocks", "parts/other", "other")
    assert [changes(model, f"folder/{name}.py") for name in names] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from . import beside", ["beside", "__init__"]),
        ("from .beside import Net", ["beside", "__init__"]),
        ("from .. import top", ["top"]),
        ("from ..other.deep import x", ["other/deep"]),
        ("import package.top", ["top"]),
        ("from package.inner import beside", ["beside", "__init__"]),
        ("from package.inner.beside import *", ["beside", "__init__"]),
    ],
)
def test_the_digest_of_a_package_follows_relative_imports(line, found):
    write("package/inner/net.py", f"{line}\n")
    inside = {"beside": "inner/beside", "__init__": "inner/__init__", "top": "top", "other/deep": "other/deep"}
    for path in inside.values():
        write(f"package/{path}.py", "")
    given = {name for name, path in inside.items() if changes("package.inner.net:build", f"package/{path}.py")}
    # A package runs its own __init__.py, by whatever name its modules are imported.
    assert given == {*found, "__init__"}


def test_a_module_in_the_folder_of_the_run_counts_for_a_file_elsewhere():
    """By its whole name, as in `from nets.blocks import Net`, and behind what lies beside the file."""
    write("nets/net.py", "import both\nfrom nets.blocks import Net, other\n\nbuild = Net\n")
    write("nets/blocks.py", f"import top\n{NET}\nother = top\n")
    for name in ("top", "other", "nets/both", "both"):
        write(f"{name}.py", f"NAME = {name!r}\n")
    model = "nets/net.py:build"
    names = ("nets/net", "nets/blocks", "top", "nets/both", "both", "other")
    assert [changes(model, f"{name}.py") for name in names] == [True] * 4 + [False] * 2
    assert checkpoints.own(model, 7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sys.modules["both"].NAME == "nets/both"


def test_a_module_of_the_folder_of_the_run_under_a_name_that_was_taken_is_refused(here):
    """`helper` beside the file and `nets.helper` are one file; another `helper` is none of these."""
    write("nets/net.py", "from nets.helper import Net\n")
    write("nets/helper.py")
    write("other/net.py", "from helper import Net\n")
    write("other/helper.py")
    assert checkpoints.own("other/net.py:Net", 7) and checkpoints.own("nets/net.py:Net", 7)
    write("third/net.py", "from nets.helper import Net\n")
    write("third/nets/helper.py")
    with pytest.raises(StudyError, match=r"third/net\.py:Net: imports nets\.helper from .* and not from .*third/nets/"):
        checkpoints.own("third/net.py:Net", 7)


def test_a_digest_of_modules_that_import_each_other_ends():
    write("net.py", "import beside\n")
    write("beside.py", "import net\n")
    assert changes("net.py:build", "beside.py")


def test_a_module_of_the_folder_of_the_run_counts_and_no_installed_one():
    """A package of one's own may use another that lies beside it; what is installed has versions."""
    write("package/net.py", "import torch\nfrom helpers.blocks import Block\n")
    write("helpers/blocks.py", "")
    assert changes("package.net:build", "helpers/blocks.py")
    assert {path.name for path in builders.sources("package.net:build")} == {"net.py", "blocks.py"}
    installed = builders.sources("torchvision.models.resnet:resnet18")
    assert len(installed) > 3 and all("torchvision" in path.parts for path in installed)


def test_a_link_has_what_lies_beside_the_file_that_it_leads_to(here):
    """As Python has it for a program."""
    write("true/net.py", NET.replace("import random", "import random, beside_true"))
    write("true/beside_true.py", "")
    write("beside_true.py", "raise ValueError('another')")
    Path("link.py").symlink_to("true/net.py")
    assert changes("link.py:build", "true/beside_true.py")
    assert not changes("link.py:build", "beside_true.py")
    assert changes("link.py:build", "true/net.py")
    assert checkpoints.own("link.py:build", 7)
    # A module that is a link is the one that it leads to.
    Path("net.py").write_text("import linked\n")
    Path("linked.py").symlink_to("true/beside_true.py")
    assert changes("net.py:build", "true/beside_true.py")


@pytest.mark.parametrize(
    "line", ["def broken(:", "from ...... import x", "from ..x import y", "import", "\0", "from . import beside"]
)
def test_a_digest_of_what_cannot_be_imported_is_of_the_file(line):
    """The run says what is wrong with it."""
    write("net.py", f"{line}\n")
    write("other.py", "")
    assert changes("net.py:build", "net.py", "#")
    assert not changes("net.py:build", "other.py")


@pytest.mark.parametrize("model", ["net.py:build", "package.net:build"])
def test_a_digest_runs_nothing(here, model):
    """Planning asks for it each time."""
    trap = f"from pathlib import Path\nPath({str(here)!r}, 'ran').touch()\n"
    for path in ("package/__init__.py", "package/beside.py"):
        write(path, trap)
    write("package/net.py", f"{trap}import package.beside\n{NET}")
    write("net.py", f"{trap}import package.beside\n{NET}")
    assert builders.digest(model)
    assert not Path("ran").exists() and "package" not in sys.modules
    checkpoints.own(model, 10)
    assert Path("ran").exists()


# ---- what cannot be built


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nowhere.py:build", r"model nowhere\.py:build: nowhere\.py: no such file; paths start from the folder"),
        ("nowhere.net:build", r"there is no module nowhere\.net, .*; nowhere is missing"),
        ("package.nowhere:build", r"there is no module package\.nowhere, .*; nowhere is missing"),
        ("net.py.txt:build", r"there is no module net\.py\.txt"),
        ("a-b/c:build", r"a-b/c is neither a file that ends in \.py nor the name of a module"),
        ("empty:build", r"empty has no source in Python; give the module that has the builder"),
        ("math:sqrt", r"math has no source in Python"),
    ],
)
def test_a_source_that_is_not_there_is_named(here, model, words):
    write("package/__init__.py")
    (here / "empty").mkdir()
    with pytest.raises(StudyError, match=words):
        builders.digest(model)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef build(:\n", r"net\.py cannot be imported: SyntaxError: .*\(.*net\.py, line 2\)"),
        ("x = 1\n1 / 0\n", r"cannot be imported: ZeroDivisionError: division by zero \(.*net\.py, line 2\)"),
        ("import no_such_module\n", r"cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("from .beside import x\n", r"cannot be imported: ImportError: attempted relative import .*line 1\)"),
        ("import sys\nsys.exit('bye')\n", r"cannot be imported: SystemExit: bye \(.*net\.py, line 2\)"),
        (NET, "no callable buildt; did you mean build"),
        ("import torch\ndef other(outputs): pass\n", "no callable buildt; it has other$"),
        ("buildt = 3\n", "no callable buildt; it has none$"),
    ],
)
def test_a_module_that_cannot_be_had_is_named(text, words):
    write("net.py", text)
    with pytest.raises(StudyError, match=rf"^model net\.py:buildt: .*{words}"):
        checkpoints.own("net.py:buildt", 10)


def test_an_error_in_a_module_beside_it_is_at_its_line():
    write("net.py", "import beside_broken\n")
    write("beside_broken.py", "\n\nraise ValueError('not here')\n")
    with pytest.raises(StudyError, match=r"ValueError: not here \(.*beside_broken\.py, line 3\)"):
        checkpoints.own("net.py:build", 10)


BUILDERS = {
    "raises": ("    raise ValueError('no')", r"builder\(10\) raised ValueError: no \(.*net\.py, line \d+\)$"),
    "several lines": (
        "    Net(10).load_state_dict({})",
        r"builder\(10\) raised RuntimeError: Error\(s\).*conv\.weight.*net\.py, line \d+\)$",
    ),
    "exits": ("    sys.exit(3)", r"builder\(10\) raised SystemExit: 3 \(.*net\.py, line \d+\)"),
    "nothing": ("    Net(outputs)", r"gives NoneType for 10 outputs, and no torch\.nn\.Module; return the network"),
    "a class": ("    return Net", r"gives type for 10 outputs"),
    "its weights": ("    return Net(outputs).state_dict()", r"gives OrderedDict for 10 outputs"),
    "a lazy one": (
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(outputs))",
        r"1\.weight has no weights until it has seen an image.*run it once",
    ),
}


@pytest.mark.parametrize("how", BUILDERS)
def test_a_builder_that_gives_no_network_is_named(how):
    """With the line at which it fails, in one line, as a study shows it."""
    body, words = BUILDERS[how]
    write("net.py", f"{NET}\n\ndef other(outputs):\n{body}\n")
    with pytest.raises(StudyError, match=rf"^model net\.py:other: {words}") as refused:
        list_layers("net.py:other")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "words"), [("outputs, width", "width"), ("", "too many"), ("*, outputs", "too many")]
)
def test_a_builder_takes_the_number_of_outputs_alone(arguments, words):
    write("net.py", f"{NET}\n\ndef other({arguments}):\n    return Net(10)\n")
    with pytest.raises(StudyError, match=rf"^model net\.py:other: builder\(10\) raised TypeError: .*{words}"):
        list_layers("net.py:other")


def test_a_builder_is_in_evaluation_mode_and_may_have_defaults():
    write("net.py", f"{NET}\n\ndef other(outputs, width=3):\n    return Net(outputs).train()\n")
    assert not checkpoints.own("net.py:other", 10).training


def test_modules_of_one_name_beside_two_builders_are_not_mixed_up():
    """The second would get the first's, and be another network than the study says."""
    for folder in "ab":
        write(f"{folder}/net.py", f"from shared_name import Net, NAME\nbuild{'='}Net\n")
        write(f"{folder}/shared_name.py", f"{NET}\nNAME = {folder!r}\n")
    assert checkpoints.own("a/net.py:build", 10)
    with pytest.raises(StudyError, match=r"b/net\.py.* imports shared_name .*a/shared_name\.py.*rename"):
        checkpoints.own("b/net.py:build", 10)


def test_a_builder_by_a_module_is_none_beside_the_file_of_another(here):
    """Whichever was built first: `net` is the folder's own, not the one that lies beside the other's file."""
    write("a/other.py", "import net\nbuild = net.Net\n")
    write("a/net.py")
    write("net.py", f"{NET}\n\nclass Own(Net):\n    pass\n")
    before = builders.digest("net:Own")
    write("b/other.py", NET)
    assert checkpoints.own("b/other.py:build", 10)
    write("b/net.py")
    assert builders.file("net:Own").resolve() == here / "net.py"
    assert builders.digest("net:Own") == before
    assert type(checkpoints.own("net:Own", 10)).__name__ == "Own"
    with pytest.raises(StudyError, match=r"a/other\.py.* imports net from .*/net\.py and not from .*a/net\.py.*rename"):
        checkpoints.own("a/other.py:build", 10)


def test_a_module_that_another_builder_had_imported_is_refused(here):
    """It is the other's, by the same name."""
    write("a/other.py", "import net\nbuild = net.Net\n")
    write("a/net.py")
    write("net.py")
    assert checkpoints.own("a/other.py:build", 10)
    with pytest.raises(StudyError, match=rf"net:build: imports net from .*a/net\.py and not from {here}/net\.py"):
        checkpoints.own("net:build", 10)


def test_a_source_that_changed_since_the_study_was_planned_is_refused():
    """The results would say that they are of the old one."""
    write("net.py")
    planned = source("net.py:build")
    job.network(planned)
    write("net.py", NET.replace("stride=4", "stride=4, bias=False"))
    with pytest.raises(StudyError, match=r"net\.py:build: its source has changed since the study was planned"):
        job.network(planned)


# ---- weights


def test_drawn_weights_depend_on_the_seed_alone():
    """In whatever state torch's generator is, which is left as it is."""
    write("net.py")
    first = job.network(source("net.py:build", "random-0")).state_dict()
    torch.rand(7)
    before = torch.get_rng_state()
    again = job.network(source("net.py:build", "random-0")).state_dict()
    other = job.network(source("net.py:build", "random-1")).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    assert len(list_layers(weights="random-1")) == 1


FIXED = f"{NET}\n\ndef other(outputs):\n    torch.manual_seed(3)\n    return Net(outputs)\n"


def test_random_weights_that_no_seed_changes_are_refused():
    """A trained network would pass for an untrained one; as the builder's own they serve."""
    write("net.py", FIXED)
    with pytest.raises(StudyError, match=r"weights random: .* gives the same weights by any seed.*weights: own"):
        list_layers("net.py:other", weights="random-0")
    assert len(list_layers("net.py:other", weights="own")) == 1


def test_a_network_that_keeps_what_it_has_seen_is_refused():
    """Its scores may be others for the next images, and so its weights."""
    write(
        "net.py",
        f"{NET}\n\nclass Other(Net):\n    def __init__(self, outputs):\n        super().__init__(outputs)\n"
        "        self.register_buffer('seen', torch.zeros(()))\n\n"
        "    def forward(self, x):\n        self.seen = self.seen + 1\n        return super().forward(x)\n",
    )
    with pytest.raises(StudyError, match=r"^model net\.py:Other: changes seen in evaluation.*in training alone"):
        list_layers("net.py:Other")


DRAWS = {
    "python's": "    nn.init.constant_(net.dense.bias, random.random())",
    "numpy's": "    import numpy\n    nn.init.constant_(net.conv.bias, numpy.random.rand())",
    "own seed": "    generator = torch.Generator()\n    generator.seed()\n    nn.init.normal_(net.dense.weight, generator=generator)",
    "outside of the weights": "    net.conv.register_buffer('noise', torch.zeros(1))\n    net.relu = nn.LeakyReLU(random.random())",
    "keys": "    setattr(net, f'part{random.random()}'.replace('.', '_'), nn.Linear(2, 2))",
    "shapes": "    net.relu.other = nn.Linear(2, random.randrange(1, 10**6))",
}


@pytest.mark.parametrize("how", DRAWS)
def test_weights_that_are_others_each_time_are_refused(how):
    """Every process of a study builds the network anew."""
    write("net.py", f"{NET}\n\ndef other(outputs):\n    net = Net(outputs)\n{DRAWS[how]}\n    return net\n")
    with pytest.raises(
        StudyError, match=r"net\.py:other: .*each time that the network is built.*torch's own generator"
    ):
        list_layers("net.py:other")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_of_weights_for_a_builder(suffix):
    """The values of the file; another network's are refused."""
    write("net.py")
    state = {key: value + 1 for key, value in checkpoints.build("net.py:build", 10, seed=5).state_dict().items()}

    def save(path, tensors):
        (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(tensors, path)
        return path

    loaded = job.network(source("net.py:build", save(f"weights{suffix}", state)))
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert len(list_layers(weights=f"weights{suffix}")) == 1
    Path("layers.parquet").unlink()
    other = save(
        f"other{suffix}", {key: value for key, value in state.items() if key != "conv.bias"} | {"x": state["conv.bias"]}
    )
    with pytest.raises(
        StudyError,
        match=rf"^other{suffix}: weights do not fit net\.py:build with 10 outputs: conv\.bias is missing; x is unknown",
    ):
        list_layers(weights=other)
    with pytest.raises(StudyError, match=r"with 7 outputs: dense\.weight is \[10, 256\] instead of \[7, 256\]"):
        list_layers(weights=f"weights{suffix}", outputs=7)


def test_torchvision_has_no_weights_for_a_builder():
    write("net.py")
    with pytest.raises(StudyError, match=r"weights IMAGENET1K_V1: torchvision has none for net\.py:build"):
        list_layers(weights="IMAGENET1K_V1")
    assert weights.file("net.py:build", "own") is None


# ---- networks that a study cannot be of


NETWORKS = {
    "too few outputs": (
        "        return super().forward(x)[:, :7]",
        r"gives \[3, 7\] for 3 images, and scores are one tensor, \[3, 10\]; `outputs` says how many",
    ),
    "no flat scores": ("        return super().forward(x)[..., None]", r"gives \[3, 10, 1\] for 3 images"),
    "a mean over images": ("        return super().forward(x).mean(0)", r"gives \[10\] for 3 images"),
    "a tuple": ("        return super().forward(x), x", r"gives tuple for 3 images"),
    "a dict": ("        return {'logits': super().forward(x)}", r"gives dict for 3 images"),
    "nothing": ("        super().forward(x)", r"gives NoneType for 3 images"),
    "noise": (
        "        return self.dense(F.dropout(self.features(x), 0.5, training=True))",
        r"draws random numbers in evaluation, so that a score is not one number",
    ),
    "noise beside large scores": (
        "        return 1000 + self.dense(self.features(x)) + 1e-2 * torch.randn(len(x), 10)",
        r"draws random numbers in evaluation",
    ),
    "the batch beside large scores": (
        "        y = self.dense(self.features(x))\n        return 50 + y + 0.1 * (y - y.mean(0))",
        r"the scores of an image depend on the others of its batch",
    ),
    "the batch": (
        "        y = self.features(x)\n        return self.dense(y - y.mean(0))",
        r"the scores of an image depend on the others of its batch",
    ),
    "a batch norm without statistics": (
        "        return self.dense(F.batch_norm(self.features(x), None, None, training=True))",
        r"(depend on the others of its batch|fails on images of 32 pixels)",
    ),
    "not finite": ("        return super().forward(x) / 0.0", r"a score is not finite"),
    "another size": (
        "        y = self.conv(x)\n        return self.dense(self.relu(y[..., 1:]).flatten(1))",
        r"fails on images of 32 pixels \(RuntimeError: .*mat1.*\(.*net\.py, line \d+\)\); transform\.crop is their size",
    ),
    "an error of its own": (
        "        assert x.shape[-1] == 64, 'of\\nsixty-four'\n        return super().forward(x)",
        r"fails on images of 32 pixels \(AssertionError: of sixty-four \(.*net\.py, line \d+\)\)",
    ),
    "a condition on values": (
        "        if x.sum() > 0:\n            x = -x\n        return super().forward(x)",
        r"Other: cannot be traced: .*net\.py, line \d+ \(if x\.sum\(\) > 0:\): ",
    ),
    "numbers of one image": (
        "        return super().forward(x) + float(x.mean())",
        r"(Other: cannot be traced: .*net\.py, line \d+|the scores of an image depend on the others of its batch)",
    ),
}


@pytest.fixture
def quick(monkeypatch):
    """Exporting in this process, which takes a tenth of the time."""
    monkeypatch.setattr(job, "_exported_apart", lambda source: tracing.exported)


@pytest.mark.parametrize("how", NETWORKS)
@pytest.mark.usefixtures("quick")
def test_a_network_that_does_not_serve_is_refused_early(how):
    """Before any long job, in one line, and where it can be with the line at fault."""
    body, words = NETWORKS[how]
    write("net.py", f"{NET}\n\nclass Other(Net):\n    def forward(self, x):\n{body}\n")
    with pytest.raises(StudyError, match=rf"^(model net\.py:Other: )?{words}") as refused:
        list_layers("net.py:Other")
    assert "\n" not in str(refused.value)


BY_SHAPE = f"""{NET}

class Other(Net):
    def forward(self, x):
        n, c, h, w = x.shape
        if h > 16:
            x = x * 2
        return super().forward(x)
"""


@pytest.mark.usefixtures("quick")
def test_what_only_torch_export_can_trace_serves():
    """A condition on shapes, over which torch.fx stumbles."""
    write("net.py", BY_SHAPE)
    assert [row["units"] for row in list_layers("net.py:Other")] == [256]


@pytest.mark.slow
def test_a_network_is_exported_in_a_process_of_its_own():
    """With the weights that it has in this one, by whatever way they come."""
    write("net.py", BY_SHAPE)
    state = checkpoints.build("net.py:Other", 10, seed=5).state_dict()
    torch.save(state, "weights.pt")
    images = torch.randn(5, 3, 32, 32)
    for chosen in ("random-5", "weights.pt"):
        of = source("net.py:Other", chosen)
        built = job.network(of)
        assert torch.equal(built.state_dict()["conv.weight"], state["conv.weight"])
        with torch.no_grad():
            torch.testing.assert_close(job.trace(of, built, job._exported_apart(of))(images), built(images))


def test_a_layer_smaller_than_the_grid_is_refused():
    write("net.py")
    assert list_layers(chosen=["conv1"], cells=256)
    Path("layers.parquet").unlink()
    with pytest.raises(StudyError, match=r"grid: 257 cells need as many units, net\.py:build has 256 in conv1"):
        list_layers(chosen=["conv1"], cells=257)
    with pytest.raises(StudyError, match=r"grid: 16 cells .* has 10 in dense"):
        list_layers(chosen=["dense"], cells=16)
