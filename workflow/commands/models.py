"""Tries whether torchvision's and timm's networks are cut exactly, and writes docs/models.md: `make models`.

Each network runs in a process of its own. What was found of it is kept as a line of results/models.jsonl, so that a
second call with the same code and the same libraries tries only what is not there or has failed.
"""

import argparse
import copy
import json
import math
import os
import platform
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch
import torchvision
from torch import fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from inputs.sources import ImageSource, NetworkSource
from jobs import networks
from readout import StudyError, ablations, cuts, gradients, layer_names, layers, models, scores, tracing
from readout.engine import channels_last, fold, hasten
from readout.named import TIMM
from runtime import process
from runtime.code import digest, file_digest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "models.md"
FOUND = ROOT / "results" / "models.jsonl"
MARK = "<!-- The rest of this page is written by `make models`. -->\n"
LARGEST = 100_000_000
"""Parameters from which a network is left out."""
OF_FAMILY = 8
"""Models of a family among which the smallest is sought."""
OUTPUTS, IMAGES, SEED = 10, 3, 0
SMALL = 64
"""Side of the images in pixels, where a network takes them."""
LIMIT = 600
"""Seconds after which a network's process is ended."""
ERROR = 1e-3
"""How far a number may lie from its reference: in spreads of the scores, or in largest gradients."""
ROUNDING = 4
"""By how many times the network's own rounding scores may lie from their reference, where that is more than `ERROR`."""
SHARE = 0.1
"""An error of scores may be such a share of the ablation's effect, which is the error of a cut that ignores it."""
GOALS = {"torchvision": 1.0, "timm": 0.9}
"""Shares of torchvision's models, and of timm's families, that are to be exact."""


# ---- which networks


def families() -> list[str]:
    import timm

    return timm.models.list_modules()


def members(family: str) -> list[str]:
    """At most `OF_FAMILY` models of a family of timm, evenly spread among its names; timm's own tests are none."""
    import timm

    names = [name for name in timm.list_models(module=family) if not name.startswith("test_")]
    return list(layer_names.spread(names, min(len(names), OF_FAMILY))) if names else []


def parameters(model: str) -> int:
    """How many parameters a model has with `OUTPUTS` outputs; where it can be, without memory for them."""
    try:
        with torch.device("meta"):
            network = models.build(model, OUTPUTS, SEED)
    except Exception:
        network = models.build(model, OUTPUTS, SEED)
    return sum(each.numel() for each in network.parameters())


def smallest(family: str) -> tuple[str, int]:
    """The smallest of a family's `members` with its parameters."""
    counted = [(parameters(model), model) for model in map(TIMM.__add__, members(family))]
    number, model = min(counted)
    return model, number


def sizes(model: str) -> tuple[int, ...]:
    """Sides of images to try in turn: a small one, and the model's own."""
    if model.startswith(TIMM):
        import timm

        own = timm.get_pretrained_cfg(model.removeprefix(TIMM))
        return (SMALL, own.input_size[-1]) if own else (SMALL, 224)
    return (SMALL, torchvision.models.get_model_weights(model).DEFAULT.transforms().crop_size[0])


# ---- weights and images with which an error would be seen


def pictures(count: int, size: int, seed: int) -> torch.Tensor:
    """Random images [count, 3, size, size] that differ in their large parts too, which pooling leaves."""
    draw = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.randn(count, 3, 4, 4, generator=draw), size=(size, size), mode="bilinear")
    return coarse + 0.5 * torch.randn(count, 3, size, size, generator=draw)


@torch.no_grad()
def enliven(network: nn.Module, images: torch.Tensor) -> None:
    """Give random weights that let the scores depend on the images and on all layers.

    Many networks begin with branches that add nothing, scaled by 0 or by 1e-6, and with batch norms of other means than
    the layers have. Weights that are all equal are drawn, and the statistics of batch norms are those of the images.
    """
    draw = torch.Generator().manual_seed(SEED)
    for name, weight in network.named_parameters():
        if not weight.is_floating_point() or not weight.numel() or weight.min() != weight.max():
            continue
        first = weight.flatten()[0].item()
        if name.endswith("bias"):
            weight.copy_(first + 0.1 * torch.randn(weight.shape, generator=draw))
        elif weight.squeeze().ndim > 1 and first == 0:
            weight.copy_(torch.randn(weight.shape, generator=draw) / math.sqrt(weight[0].numel()))
        else:
            factor = 0.5 + torch.rand(weight.shape, generator=draw)
            weight.copy_(factor * (first if abs(first) > 0.1 else 1.0))
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    # Also empties what some of timm's networks keep of their weights.
    network.eval()


# ---- the reference: the whole network, with something else in a layer's place

Replace = Callable[[torch.Tensor], torch.Tensor]
KINDS = {module: name for module in tracing.MODULES for name in tracing.FUNCTIONS if module.__name__.lower() == name}
KINDS[nn.LeakyReLU] = "leaky_relu"


def _kind(traced: fx.GraphModule, node: fx.Node) -> str:
    """The name of a node's non-linearity."""
    if node.op == "call_module":
        module = traced.get_submodule(node.target)
        return next(kind for known, kind in KINDS.items() if isinstance(module, known))
    if node.op == "call_method":
        return node.target
    return next(kind for kind, alike in tracing.FUNCTIONS.items() if node.target in alike)


def _path(node: fx.Node) -> str:
    """The path of the innermost module whose call a node is part of."""
    if node.op == "call_module":
        return node.target
    around = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return around[-1] if around else ""


class _Functions(TorchFunctionMode):
    """Replaces what the `number`-th call of a non-linearity gives, by a module or not."""

    def __init__(self, kind: str, number: int, replace: Replace):
        super().__init__()
        self.names, self.left, self.replace = {kind, f"{kind}_"}, number, replace

    def __torch_function__(self, func, types, args=(), kwargs=None):
        given = func(*args, **kwargs or {})
        if getattr(func, "__name__", None) in self.names:
            self.left -= 1
            return self.replace(given) if self.left == -1 else given
        return given


class _Graph(fx.Interpreter):
    """Runs the graph with something else in a node's place."""

    def __init__(self, traced: fx.GraphModule, at: fx.Node, replace: Replace):
        super().__init__(traced)
        self.at, self.replace = at, replace

    def run_node(self, n: fx.Node):
        given = super().run_node(n)
        return self.replace(given) if n is self.at else given


@contextmanager
def _hooked(module: nn.Module, number: int, replace: Replace):
    """While open, what the `number`-th call of a module gives is replaced."""
    left = iter(range(number, -1, -1))
    handle = module.register_forward_hook(lambda _module, _given, out: replace(out) if next(left, 1) == 0 else None)
    try:
        yield
    finally:
        handle.remove()


Whole = Callable[[torch.Tensor, Replace], torch.Tensor]


def references(network: nn.Module, traced: fx.GraphModule, node: fx.Node) -> dict[str, Whole]:
    """Ways to run the whole network with something else in a node's place, the one that knows least of it first.

    `module` and `function` run the network as it was built, and nothing that the tracing made: the first hooks the
    module that gives the layer, the second counts the calls of its function. `graph` runs the traced graph.
    """
    alike = [each for each in traced.graph.nodes if tracing.is_layer(traced, each)]
    path = _path(node)
    ways: dict[str, Whole] = {}
    module = dict(network.named_modules()).get(path)
    if isinstance(module, tracing.MODULES):
        same = [each for each in alike if _path(each) == path]

        def by_module(images: torch.Tensor, replace: Replace) -> torch.Tensor:
            with _hooked(module, same.index(node), replace):
                return network(images)

        ways["module"] = by_module
    kind = _kind(traced, node)
    of_kind = [each for each in alike if _kind(traced, each) == kind]

    def by_function(images: torch.Tensor, replace: Replace) -> torch.Tensor:
        with _Functions(kind, of_kind.index(node), replace):
            return network(images)

    ways["function"] = by_function
    ways["graph"] = lambda images, replace: _Graph(traced, node, replace).run(images)
    return ways


def reference(
    network: nn.Module, traced: fx.GraphModule, node: fx.Node, images: torch.Tensor, activation: torch.Tensor
) -> tuple[str, Whole, torch.Tensor]:
    """The first of the `references` that meets the layer: what it gives there for the images is `activation`.

    Its name comes first, and the scores of the network as it is come last.
    """
    for name, whole in references(network, traced, node).items():
        met = []
        with torch.no_grad():
            full = whole(images, lambda given, met=met: (met.append(given.clone()), given)[1])
        if len(met) == 1 and met[0].shape == activation.shape and torch.allclose(met[0], activation, 1e-4, 1e-4):
            return name, whole, full
    raise StudyError(f"{node.name}: is not met by the whole network")


# ---- one network


def _ranks(found: torch.Tensor) -> torch.Tensor:
    """The rank of each output in each image [outputs, N]."""
    return torch.stack([scores.ranks(found, torch.full((len(found),), i)) for i in range(found.shape[1])])


@torch.no_grad()
def behind(tail: Callable[..., torch.Tensor], alive: Sequence[torch.Tensor], replace: Replace) -> torch.Tensor:
    """Scores by a tail with something else in the layer's place, of fewer images at once than are alive."""
    tensors = (replace(alive[0]), *alive[1:])
    parts = (slice(0, len(alive[0]) - 1), slice(len(alive[0]) - 1, None))
    return torch.cat([tail(*(each[part] for each in tensors)) for part in parts])


def gradient(whole: Whole, images: torch.Tensor, score: Replace) -> torch.Tensor:
    """The gradient of a score through the whole network with respect to what stands in the layer's place."""
    met = []

    def replace(given: torch.Tensor) -> torch.Tensor:
        met.append(given.detach().clone().requires_grad_())
        # A copy: what is behind may overwrite it.
        return met[0].clone()

    found = score(whole(images, replace))
    return torch.autograd.grad(found.sum(), met[0])[0]


def _largest(difference: torch.Tensor, unit: float) -> float:
    return difference.abs().max().item() / unit


def at_cut(
    cut: cuts.Cut, network: nn.Module, traced: fx.GraphModule, layer: layers.Layer, images: torch.Tensor
) -> tuple[dict, Replace, torch.Tensor, float]:
    """How a cut compares with its reference, and what the engine's is compared with.

    That is the ablation, the reference's scores under it, and their spread.
    """
    node = next(each for each in traced.graph.nodes if each.name == layer.node)
    with torch.no_grad():
        alive = cut.prefix(images)
    name, whole, full = reference(network, traced, node, images, alive[0])
    draw = torch.Generator().manual_seed(SEED)
    units = torch.randperm(layer.units, generator=draw)[: -(-layer.units // 2)].sort().values
    kept = torch.ones(layer.units, dtype=torch.bool).index_fill_(0, units, False).view(layer.shape)
    with torch.no_grad():
        masked = whole(images, lambda given: torch.where(kept, given, 0.0))
    if not torch.isfinite(masked).all():
        raise StudyError(f"{layer.name}: a score of the masked network is not finite")
    spread = masked.std(0).mean().item()
    if not spread:
        raise StudyError(f"{layer.name}: no score depends on the image")

    def ablate(given: torch.Tensor) -> torch.Tensor:
        return ablations.ablate(given, units.numpy(), 0.0)

    by_cut = behind(cut.tail, alive, ablate)
    labels = torch.arange(len(images)) % OUTPUTS

    def score(found: torch.Tensor) -> torch.Tensor:
        return found.gather(1, labels[:, None]).squeeze(1)

    expected = gradient(whole, images, score)
    by_gradients = gradients.of_scores(cut.tail, alive, score)
    largest = expected.abs().max().item()
    found = {
        "layer": layer.name,
        "reference": name,
        "effect": _largest(masked - full, spread),
        "error": _largest(by_cut - masked, spread),
        "ranks": int((_ranks(by_cut) != _ranks(masked)).sum()),
        "gradient": _largest(by_gradients - expected, largest) if largest else None,
    }
    return found, ablate, masked, spread


def _by_engine(traced: fx.GraphModule, nodes: Sequence[str], images: torch.Tensor, ablate: Sequence[Replace]):
    """Scores by cuts as the engine makes them on a CPU (`networks.engine`); it changes the traced graph."""
    engine = channels_last(hasten(fold(traced)))
    for node, replace in zip(nodes, ablate, strict=True):
        cut = cuts.cut(engine, node)
        with torch.no_grad():
            alive = cut.prefix(networks.to_device(images, torch.device("cpu")))
        yield behind(cut.tail, alive, replace)


def cuttable(traced: fx.GraphModule, found: Iterable[layers.Layer]) -> tuple[list[layers.Layer], str | None]:
    """The layers at which the network can be cut, and why not at the first at which it cannot."""
    can, reason = [], None
    for layer in found:
        try:
            cuts.check(traced, layer.node)
            can.append(layer)
        except StudyError as error:
            reason = reason or str(error)
    return can, reason


def built(model: str) -> tuple[nn.Module, int]:
    """A model that is alive, and the side of the images that it takes, as small as it takes them."""
    failed = None
    for size in dict.fromkeys(sizes(model)):
        network = models.build(model, OUTPUTS, SEED)
        try:
            with torch.no_grad():
                network(pictures(IMAGES, size, SEED))
        except Exception as error:
            failed = f"fails on images of {size} pixels ({type(error).__name__}: {error})"
            continue
        noise = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(SEED))
        # Noise too, with which `readout.soundness` tries a network.
        enliven(network, torch.cat([pictures(8, size, SEED + 1), noise]))
        return network.requires_grad_(False), size
    raise StudyError(f"model {model}: {failed}")


def rounding(network: nn.Module, images: torch.Tensor) -> float | None:
    """How far a network's scores lie from those with twice the digits, in spreads; None where it has one precision."""
    try:
        with torch.no_grad():
            given, exact = network(images), copy.deepcopy(network).double()(images.double())
    except RuntimeError:
        return None
    return _largest(given - exact, given.std(0).mean().item())


def check(model: str, cut: Callable[[fx.GraphModule, str], cuts.Cut] = cuts.cut) -> dict:
    """What is found of a model: how it was traced, its layers, and how its cuts compare with their references."""
    start = time.perf_counter()
    network, size = built(model)
    source = NetworkSource(model, OUTPUTS, None, ImageSource("", None, {"crop": size}))
    image, images = pictures(1, size, SEED + 2), pictures(IMAGES, size, SEED + 3)
    how = []

    def export(*given) -> bytes:
        how.append("torch.export")
        return tracing.exported(*given)

    traced = networks.trace(source, network, export)
    found = layers.find(network, traced, image)
    if not found:
        raise StudyError(f"{model}: has none of the non-linearities of docs/networks.md")
    named = layers.names(network, traced, image)
    try:
        blocks = len(layer_names.select(model, "blocks", lambda: named))
    except StudyError:
        blocks = 0
    can, reason = cuttable(traced, found)
    if not can:
        raise StudyError(reason)
    chosen = [can[0], can[(len(can) - 1) // 2], can[-1]] if len(can) > 2 else can
    rows, replaced, expected, spreads = zip(
        *(at_cut(cut(traced, layer.node), network, traced, layer, images) for layer in chosen), strict=True
    )
    by_engine = _by_engine(traced, [layer.node for layer in chosen], images, replaced)
    for row, made, masked, spread in zip(rows, by_engine, expected, spreads, strict=True):
        row["engine"] = _largest(made - masked, spread)
    # Deep networks of random weights can be chaotic, so that last bits of the first layer are seen in the scores.
    off = any(not at[name] <= ERROR for at in rows for name in ("error", "engine"))
    return {
        "rounding": rounding(network, images) if off else None,
        "size": size,
        "traced": (how or ["torch.fx"])[0],
        "layers": len(found),
        "uncut": len(found) - len(can),
        "why": reason,
        "blocks": blocks,
        "units": sum(layer.units for layer in found),
        "cuts": list(rows),
        "seconds": round(time.perf_counter() - start, 1),
    }


def wrong(found: Mapping) -> list[str]:
    """What of a network's numbers is not as it is to be."""
    said = []
    near = max(ERROR, ROUNDING * (found.get("rounding") or 0))
    for at in found["cuts"]:
        seen = min(near, SHARE * at["effect"])
        limits = {"error": ("scores", seen), "engine": ("the engine's scores", seen), "gradient": ("gradients", ERROR)}
        for name, (called, limit) in limits.items():
            if at[name] is None or not at[name] <= limit:
                far = "an unknown amount" if at[name] is None else f"{at[name]:.1e}, more than {limit:.1e}"
                said.append(f"at {at['layer']}: {called} are off by {far}")
        if at["ranks"]:
            said.append(f"at {at['layer']}: {at['ranks']} ranks differ")
        if not at["effect"] > 0:
            said.append(f"at {at['layer']}: the ablation moves no score, so that no error would show")
    return said


# ---- each in a process of its own


def _plain(error: BaseException) -> str:
    """An error in a line, with a package's files by their paths there."""
    said = " ".join(str(error).split()) or type(error).__name__
    said = said if isinstance(error, StudyError) else f"{type(error).__name__}: {said}"
    return re.sub(r"\S*site-packages/", "", said)[:400]


def one(library: str, family: str) -> dict:
    """The entry of a model of torchvision or of a family of timm."""
    of_timm = library == "timm"
    model, number = smallest(family) if of_timm else (family, parameters(family))
    entry = {"model": model, "parameters": number}
    if number >= LARGEST:
        fewest = f"the smallest of {len(members(family))} that were counted has" if of_timm else "it has"
        return entry | {"left out": f"{fewest} {number / 1e6:.0f} million parameters"}
    try:
        return entry | check(model)
    except Exception as error:
        return entry | {"failed": _plain(error)}


def _child(pipe, library: str, family: str) -> None:
    process.prepare()
    warnings.simplefilter("ignore")
    try:
        entry = one(library, family)
    except Exception as error:
        entry = {"failed": _plain(error)}
    pipe.send(entry)


def apart(library: str, family: str, limit: float = LIMIT, child: Callable = _child) -> dict:
    """What `one` gives, in a process of its own; where that ends without an answer or takes too long, this is said."""
    # Forked from a process that has the libraries and has computed nothing.
    context = get_context("forkserver")
    context.set_forkserver_preload(["jobs.networks", "timm"])
    ours, theirs = context.Pipe(duplex=False)
    running = context.Process(target=child, args=(theirs, library, family), daemon=True)
    running.start()
    theirs.close()
    try:
        if ours.poll(limit):
            entry = ours.recv()
        else:
            running.kill()
            entry = {"failed": f"took longer than {limit:.0f} seconds"}
        running.join(10)
    except EOFError:
        running.join()
        entry = {"failed": f"its process ended with status {running.exitcode}"}
    return {"library": library, "family": family, "versions": versions(), "code": code()} | entry


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "torchvision", "timm")}


def code() -> list[str]:
    """Hashes of the code that takes part: of the steps that trace, cut and differentiate, and of this file."""
    return [*map(digest, ("networks", "ablations", "importance")), file_digest(__file__)]


def wanted() -> list[tuple[str, str]]:
    """Libraries with their models or families."""
    of_torchvision = torchvision.models.list_models(module=torchvision.models)
    return [("torchvision", name) for name in of_torchvision] + [("timm", name) for name in families()]


def kept(path: Path) -> dict[tuple[str, str], dict]:
    """The entries of a file of results that this code and these versions of the libraries made, the newest of each."""
    lines = path.read_text().splitlines() if path.is_file() else []
    entries = [json.loads(line) for line in lines]
    made = {"versions": versions(), "code": code()}
    return {(e["library"], e["family"]): e for e in entries if made.items() <= e.items()}


def collect(path: Path, asked: Sequence[tuple[str, str]], processes: int) -> list[dict]:
    """The entries of what is asked for, in that order; those that are not kept, or have failed, are made and kept."""
    entries = kept(path)
    todo = [key for key in asked if "failed" in (entry := entries.get(key, {"failed": ""})) or problem(entry)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(processes) as pool, path.open("a") as file:
        for i, done in enumerate(as_completed([pool.submit(apart, *key) for key in todo]), 1):
            entry = done.result()
            file.write(json.dumps(entry) + "\n")
            file.flush()
            entries[entry["library"], entry["family"]] = entry
            outcome = entry.get("left out") or problem(entry) or f"exact, {entry['seconds']} s"
            print(f"{i} of {len(todo)}: {entry['family']}: {outcome}", flush=True)
    return [entries[key] for key in asked]


# ---- the page


def problem(entry: Mapping) -> str:
    """Why a network is not exact, in words; nothing where it is, or was left out."""
    if "failed" in entry:
        return entry["failed"]
    return "" if "left out" in entry else "; ".join(wrong(entry))


def is_exact(entry: Mapping) -> bool:
    return "left out" not in entry and not problem(entry)


def _worst(entry: Mapping, name: str, choose: Callable = max) -> float:
    values = [at[name] for at in entry["cuts"] if at[name] is not None]
    return choose(values) if values else math.nan


def _short(error: float) -> str:
    return f"{error:.0e}" if error else "0"


COLUMNS = (
    "parameters",
    "pixels",
    "traced by",
    "layers",
    "blocks",
    "units",
    "reference",
    "effect",
    "scores",
    "ranks",
    "engine",
    "gradients",
    "seconds",
)


def _row(entry: Mapping) -> str:
    ranks = sum(at["ranks"] for at in entry["cuts"])
    cells = [
        *([entry["family"]] if entry["library"] == "timm" else []),
        entry["model"].removeprefix(TIMM),
        f"{entry['parameters'] / 1e6:.1f} M",
        entry["size"],
        entry["traced"].removeprefix("torch."),
        f"{entry['layers']}" + (f" ({entry['uncut']} uncut)" if entry["uncut"] else ""),
        entry["blocks"] or "–",
        f"{entry['units']:,}",
        ", ".join(dict.fromkeys(at["reference"] for at in entry["cuts"])),
        f"{_worst(entry, 'effect', min):.2g}",
        _short(_worst(entry, "error")),
        f"{ranks} differ" if ranks else "equal",
        _short(_worst(entry, "engine")) + (f" (rounding: {own:.0e})" if (own := entry.get("rounding")) else ""),
        _short(_worst(entry, "gradient")),
        f"{entry['seconds']:.0f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _table(header: Sequence[str], rows: Iterable[str]) -> list[str]:
    return ["| " + " | ".join(header) + " |", "|---" * len(header) + "|", *rows]


def _count(entries: Sequence[Mapping], library: str) -> str:
    """How many of a library's are exact, of those that are small enough, beside the goal."""
    of = [entry for entry in entries if entry["library"] == library]
    tried = [entry for entry in of if "left out" not in entry]
    exact = sum(map(is_exact, tried))
    called = "models" if library == "torchvision" else "families"
    goal = math.ceil(GOALS[library] * len(tried))
    out = f"; {len(of) - len(tried)} of {len(of)} are left out" if len(of) > len(tried) else ""
    met = "met" if exact >= goal else "not met"
    return f"- {library}: {exact} of {len(tried)} {called} are exact (goal: {goal}, {met}){out}."


def page(entries: Sequence[Mapping]) -> str:
    """The part of the page that is made: counts, tables, failures and what was left out."""
    used = ", ".join(f"{name} {number}" for name, number in versions().items())
    lines = [f"With {used}, on a CPU ({platform.machine()}):", ""]
    lines += [_count(entries, library) for library in GOALS]
    tried = [entry for entry in entries if "cuts" in entry]
    exact = [entry for entry in tried if is_exact(entry)]
    places = [at for entry in exact for at in entry["cuts"]]

    def largest(name: str) -> str:
        return _short(max(_worst(entry, name) for entry in exact))

    if exact:
        how, by = Counter(entry["traced"] for entry in exact), Counter(at["reference"] for at in places)
        lines += [
            "",
            f"Of the networks that are exact, torch.fx traced {how['torch.fx']}, and torch.export "
            f"{how['torch.export']} that torch.fx cannot follow. Their largest errors are {largest('error')} of the "
            f"scores' spread by cuts, {largest('engine')} by the engine, and {largest('gradient')} of the largest "
            f"gradient; the least effect of an ablation is {min(_worst(e, 'effect', min) for e in exact):.2g} of the "
            f"spread. The reference of the {len(places)} cuts was a module's hook in {by['module']}, a function's in "
            f"{by['function']}, and the graph in {by['graph']}.",
        ]
    for library, title in (("torchvision", "Models of torchvision"), ("timm", "Families of timm")):
        own = [entry for entry in tried if entry["library"] == library]
        names = ("family", "model") if library == "timm" else ("model",)
        lines += ["", f"## {title}", ""]
        lines += _table((*names, *COLUMNS), map(_row, own))
    failed = [(entry, problem(entry)) for entry in entries if problem(entry)]
    lines += ["", "## Failures", ""]
    rows = [f"| {e['library']} | {_named(e)} | {_escaped(reason)} |" for e, reason in failed]
    lines += _table(("library", "model", "reason"), rows) if rows else ["None."]
    lines += ["", "## Layers at which a network cannot be cut", ""]
    rows = [
        f"| {e['library']} | {_named(e)} | {e['uncut']} of {e['layers']} | {_escaped(e['why'])} |"
        for e in tried
        if e["uncut"]
    ]
    lines += _table(("library", "model", "layers", "why not at the first of them"), rows) if rows else ["None."]
    lines += ["", "## Left out", ""]
    rows = [f"| {e['library']} | {_named(e)} | {e['left out']} |" for e in entries if "left out" in e]
    lines += _table(("library", "model", "reason"), rows) if rows else ["None."]
    return "\n".join(lines) + "\n"


def _named(entry: Mapping) -> str:
    """A model, after its family."""
    model = entry.get("model", "")
    return entry["family"] if model in ("", entry["family"]) else f"{entry['family']}: {model.removeprefix('timm:')}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def main() -> None:
    """Try what is not known yet, and write the page."""
    parser = argparse.ArgumentParser(prog="make models", description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at once; default: one a core")
    parser.add_argument("--first", type=int, help="so many alone, without the page")
    given = parser.parse_args()
    if given.processes < 1:
        parser.error("--processes must be at least 1")
    asked = list(islice(wanted(), given.first))
    entries = collect(FOUND, asked, given.processes)
    if given.first is not None:
        return
    head, mark, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(head + mark + "\n" + page(entries))
    print(f"wrote {PAGE.relative_to(ROOT)}")
    if bad := [entry["family"] for entry in entries if "cuts" in entry and problem(entry)]:
        sys.exit("error: not exact: " + ", ".join(bad))


if __name__ == "__main__":
    main()
