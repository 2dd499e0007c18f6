"""A study: the validated configuration, and the enumeration of its networks, layers, targets and cells.

The workflow imports this module when it builds its DAG, so it loads neither torch nor pixels.
"""

import csv
import difflib
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import jsonschema
import yaml

from inputs import builders, datasets, layers, weights
from inputs.sources import ImageSource, NetworkSource
from readout import StudyError, cells, groups, layer_names, planted, squares
from readout.conditions import MIXED, NONE, SYNTHETIC
from readout.named import TIMM
from runtime import provenance

ROOT = Path(__file__).resolve().parents[1]
MAX_NAME_BYTES = 200
MOST_LABEL = 99_999
"""As in the schema: many more outputs would only fill the memory."""
IMAGENET = 1000
"""Classes of ImageNet, and outputs of the networks trained on it."""


@dataclass(frozen=True)
class Network:
    """One network of a study.

    `builder` is a hash of the source of a model of the user's own. `weights` is a file, torchvision's name of its
    weights, `shipped-<hash>`, `random-<seed>`, `planted`, `own`, or None where a rule trains the network by `training`;
    `transform` is None where torchvision or timm says how to prepare the images of its weights. `nodes` are those among
    its `layers` that are no non-linearities, which its table of layers has for that alone.
    """

    name: str
    model: str
    builder: str | None
    outputs: int
    weights: str | None
    training: Mapping
    transform: Mapping | None
    layers: tuple[str, ...]
    nodes: tuple[str, ...]
    classes: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def trained(self) -> bool:
        return self.weights is None

    @property
    def untrained(self) -> bool:
        """Whether its weights are random: a control."""
        return self.weights is not None and weights.DRAWN.fullmatch(self.weights) is not None

    @property
    def planted(self) -> bool:
        """Whether each unit's role is known."""
        return self.weights == weights.PLANTED

    @property
    def file(self) -> str | None:
        """The file of weights, the user's or a shipped one, where there is one before the study runs."""
        return None if self.trained else weights.file(self.model, self.weights)


@cache
def schema() -> dict:
    """What a config may say."""
    return yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())


def _is_number(_, value: object) -> bool:
    # NaN compares with nothing, and what is infinite is no quantity.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_text(_, value: object) -> bool:
    # YAML can write halves of characters, which no file can hold.
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


# JSON takes 4.0 for a whole number, which Python does not count to; one too large for a number has no bounds to it.
TYPES = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
    {"integer": lambda _, value: type(value) is int and _is_number(_, value), "number": _is_number, "string": _is_text}
)
VALIDATOR = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=TYPES)


PROTOCOLS = ("published", "crossfit")
INTERVENTIONS = (
    "zero",
    "mean",
    "erase",
)
CONTROLS = ("random", "matched", "directions", "resample", "pseudo")
"""Kinds of controls, each of which a config gives a number of; 0 for none."""
REPLACING = ("zero", "mean")
"""Interventions by which a group's units put out a constant."""

RENAMED = {
    "probes.draws": "probes.published.draws",
    "probes.units": "probes.published.units",
    "probes.C": "probes.published.C",
    "probes.strength": "probes.crossfit.C",
}
"""Keys that configs of earlier versions have, and what they are called now."""
RETIRED = {
    "probes.held_out": (
        "its grid had seen the images that it was tested on; probes.crossfit {C, draws} took its place, with the same C"
    ),
    "ablations.value": "ablations.interventions took its place: a list, out of zero, mean and erase",
    "claims.replicates": "a jackknife over classes took the bootstrap's place; leave the key out",
}
"""Keys that configs of earlier versions have and that are gone, and what took their place."""


@cache
def measures() -> dict[str, dict]:
    """The registry of measures of importance, by name."""
    return yaml.safe_load((ROOT / "measures.yaml").read_text())


def some(names: tuple[str, ...], choice: str | int | Sequence[str]) -> tuple[str, ...]:
    """All of the names, so many of them, evenly from first to last, or those that are chosen, in their own order."""
    if choice == "all":
        return names
    if isinstance(choice, int):
        return tuple(layer_names.spread(names, min(choice, len(names))))
    return tuple(name for name in names if name in choice)


def _relevance(error: jsonschema.ValidationError) -> tuple:
    """jsonschema's own order; it fails to compare keys that are numbers with others."""
    depth, path, *rest = jsonschema.exceptions.relevance(error)
    return depth, list(map(str, path)), *rest


def _message(error: jsonschema.ValidationError) -> str:
    """One line that names the key and the way out."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        messages = []
        for name in sorted(set(error.instance) - set(known), key=str):
            path = f"{key}.{name}" if key else str(name)
            if path in RENAMED:
                messages.append(f"{path}: is called {RENAMED[path]} now; rename the key")
                continue
            if path in RETIRED:
                messages.append(f"{path}: is no longer there: {RETIRED[path]}")
                continue
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            messages.append(f"{path}: unknown key{hint} (known here: {', '.join(known)})")
        return "; ".join(messages)
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"{key or 'the config'}: {', '.join(missing)} is missing"
    if error.validator == "enum":
        return f"{key}: {error.instance!r} is not one of {', '.join(map(str, error.validator_value))}"
    hint = error.schema.get("description")
    return f"{key}: {error.message}" + (f" ({hint.strip()})" if hint else "")


def _plain(value: object) -> object:
    """The same with mappings as dicts in one order: Snakemake compares params by how they print."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value, key=str)}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _check_name(kind: str, name: str) -> None:
    """Names become folders, wildcards and parts of commands."""
    if name in ("", ".", "..") or len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise StudyError(f"{kind} {name!r}: cannot be the name of a folder (1 to {MAX_NAME_BYTES} bytes, not . or ..)")
    bad = sorted({c for c in name if c in "/\\{}*?[]\0" or not c.isprintable()})
    if bad:
        raise StudyError(
            f"{kind} {name!r}: the characters {' '.join(map(repr, bad))} cannot be part of a name; rename it"
        )


def _check_folder(folder: str) -> None:
    """Refuse what is in the way of a folder of results: a file, a link to nothing, a folder that cannot be read."""
    try:
        os.scandir(folder).close()
        # To open what is in a folder takes another permission than to list it.
        os.stat(os.path.join(folder, "."))
    except FileNotFoundError as error:
        if os.path.islink(folder):
            raise StudyError(
                f"{folder}: is a link to {os.readlink(folder)}, where nothing is; make that folder or remove the link"
            ) from error
    except NotADirectoryError as error:
        raise StudyError(f"{folder}: is no folder, but results go there; move or rename it") from error
    except OSError as error:
        raise StudyError(
            f"{folder}: cannot be read ({error.strerror}); results go there: make it readable or move it away"
        ) from error


def _identity(study: str, dataset: str, path: str | None) -> tuple:
    """What tells studies apart; two spellings of one folder do not."""
    return study, dataset, path and os.path.realpath(os.path.expanduser(path))


def _describe(made: Mapping[str, str | None]) -> str:
    return f"study {made['study']} (images.dataset {made['dataset']}, images.path {made['path'] or 'null'})"


class Study:
    """The configuration, checked, and what follows from it.

    Raises StudyError for a key, name, class or layer that is not there, with the way out.
    """

    def __init__(self, config: Mapping):
        problems = sorted(VALIDATOR(schema()).iter_errors(config), key=lambda e: str(e.path))
        if problems:
            raise StudyError(
                "config: " + "\n  ".join(_message(jsonschema.exceptions.best_match([p], _relevance)) for p in problems)
            )
        self.config = config = _plain(config)
        self.name: str = config["study"]
        self.results = f"results/{self.name}"
        self.seed: int = config["seed"]
        self.bins: tuple[int, int] = (config["grid"]["selectivity"], config["grid"]["magnitude"])
        self.cells = cells.names(self.bins)
        self.protocols: tuple[str, ...] = tuple(p for p in PROTOCOLS if p in config["ablations"]["protocols"])
        crossfit = "crossfit" in self.protocols
        chosen = config["ablations"]["interventions"]
        self.interventions: tuple[str, ...] = tuple(i for i in INTERVENTIONS if crossfit and i in chosen)
        controls = config["controls"] or dict.fromkeys(CONTROLS, 0)
        # Of layers alone it says nothing.
        self.controls: dict[str, int] = {name: controls[name] for name in CONTROLS}
        self.random = groups.random_names(self.controls["random"])
        # Pseudo-targets are no groups of a target's grid.
        self.has_groups: bool = any(count for name, count in self.controls.items() if name != "pseudo")
        self.pseudo = tuple(f"pseudo{i}" for i in range(self.controls["pseudo"]))
        # Whether anything asks for grids that have not seen the images of a fold.
        self.folds: bool = crossfit or config["probes"]["crossfit"] is not None or any(self.controls.values())
        self.kinds: dict[str, groups.Kind] = dict.fromkeys(self.cells, "cell") | dict.fromkeys(self.random, "random")
        self.data = datasets.dataset(self.dataset, self.path)
        self.classes = self.data.classes
        self.shipped = any(entry["weights"] == weights.SHIPPED for entry in config["networks"])
        # The training images of shipped networks are listed too.
        self.train = self.shipped or any(isinstance(entry["weights"], Mapping) for entry in config["networks"])
        # Which images may be studied, shipped networks fix: they were trained on the others.
        split = weights.shipped()["split"] if self.shipped else {}
        self.split_seed: int = split.get("seed", self.seed)
        self.set_aside: int = split.get("study", config["images"]["study"])
        self.set_aside_digest: str | None = split.get("images")
        if self.shipped:
            self._check_shipped()
        self.labels = self._labels()
        self.networks = {network.name: network for network in map(self._network, config["networks"])}
        self._check_folds()
        controlled = config["controls"]["layers"] if any(self.controls.values()) else []
        self._controlled = self._layers_with(controlled, "controls.layers")
        self.importance: Mapping | None = config["importance"]
        self._check_importance()
        ranked = self.importance or {"layers": [], "targets": []}
        self._ranked = self._layers_with(ranked["layers"], "importance.layers")
        self._ranked_targets = self._targets_with(ranked["targets"], "importance.targets")
        self.occlusion: Mapping | None = config["occlusion"]
        self.shapley: Mapping | None = config["ablations"]["shapley"]
        # As a Mac compares the names of folders.
        if len({unicodedata.normalize("NFC", name).casefold() for name in self.networks}) < len(config["networks"]):
            raise StudyError("networks: two networks have one name, or but for capitals; give each its own `name`")
        self._check_counts()
        self.figure1()
        self._occluded = tuple(self._check_occlusion()) if self.occlusion else ()

    @property
    def dataset(self) -> str:
        return self.config["images"]["dataset"]

    @property
    def path(self) -> str | None:
        return self.config["images"]["path"]

    def _network(self, entry: Mapping) -> Network:
        name = entry["name"]
        _check_name("networks: name", name)
        if name.endswith((".parquet", ".log")):
            raise StudyError(f"networks: name {name!r}: its folder would have the name of a file; leave out the suffix")
        pool = self._chosen(entry["classes"], self.classes, f"networks: {name}: classes")
        targets = self._chosen(entry["targets"], pool, f"networks: {name}: targets")
        outputs = entry.get("outputs", self._outputs(entry["model"], entry["weights"]))
        for class_id in pool:
            _check_name("class", class_id)
            if class_id not in self.labels:
                raise StudyError(f"images.labels: no output is given for class {class_id}")
            if self.labels[class_id] >= outputs:
                raise StudyError(f"class {class_id}: output {self.labels[class_id]}, but {name} has {outputs} outputs")
        if len(pool) < 2:
            raise StudyError(f"networks: {name}: classes: a target needs at least one other class to contrast it with")
        if entry["weights"] == weights.PLANTED or entry["model"] in planted.MODELS:
            self._check_planted(entry, outputs)
        trained = isinstance(entry["weights"], Mapping)
        if entry["weights"] == weights.SHIPPED:
            known, made_for = weights.shipped()["models"], weights.shipped()["outputs"]
            if entry["model"] not in known:
                raise StudyError(
                    f"networks: {name}: weights: shipped: there are none for {entry['model']}; those of "
                    f"{', '.join(known)} are shipped; give a file, torchvision's name, or how to train it here"
                )
            if outputs != made_for:
                raise StudyError(
                    f"networks: {name}: outputs: {outputs}, but shipped weights have {made_for}; leave it out"
                )
            if entry.get("transform") != weights.shipped()["transform"]:
                raise StudyError(
                    f"networks: {name}: transform: shipped weights need the one with which they were trained: "
                    f"{weights.shipped()['transform']}"
                )
        drawn = entry["weights"] == "random"
        if not trained and weights.DRAWN.fullmatch(entry["weights"]):
            raise StudyError(f"networks: {name}: weights: {entry['weights']}: say random; the study's seed draws them")
        if not trained and weights.STAMPED.fullmatch(entry["weights"]):
            raise StudyError(f"networks: {name}: weights: {entry['weights']}: write shipped; the hash is the project's")
        if not trained and weights.PUBLISHED.fullmatch(entry["weights"]) and outputs != IMAGENET:
            raise StudyError(
                f"networks: {name}: outputs: {outputs}, but torchvision's weights have {IMAGENET}; leave it out"
            )
        network = Network(
            name=name,
            model=entry["model"],
            builder=builders.digest(entry["model"]) if builders.is_builder(entry["model"]) else None,
            outputs=outputs,
            weights=None if trained else self._weights(entry),
            training={"seed": self.seed, **entry["weights"]} if trained else {},
            transform=entry.get("transform"),
            layers=(),
            nodes=(),
            classes=pool,
            targets=targets,
        )
        if network.file and not os.path.isfile(network.file):
            raise StudyError(f"networks: {name}: weights: {network.file}: no such file, nor a name of torchvision's")
        if network.file and set(network.file) & set("{}"):
            raise StudyError(f"networks: {name}: weights: {network.file}: a path with {{ or }} is a pattern; rename it")
        of_timm = network.model.startswith(TIMM)
        if network.weights == weights.OWN and not (network.builder or of_timm):
            raise StudyError(
                f"networks: {name}: weights: own: only models of timm and builders of your own come with weights; give "
                "a file, torchvision's name, or how to train it here"
            )
        if network.transform is None and (trained or drawn or network.file or network.builder):
            raise StudyError(
                f"networks: {name}: transform is missing; only torchvision's and timm's own weights say how to prepare "
                "images"
            )
        try:
            source = self.source(network)
            chosen = layer_names.select(network.model, entry["layers"], lambda: layers.listed(source))
        except StudyError as error:
            raise StudyError(f"networks: {name}: {error}") from error
        for layer in chosen:
            _check_name("layer", layer)
        known = layer_names.KNOWN.get(network.model, ())
        if not set(chosen) <= set(known):
            known = {each.name for each in layers.listed(source) if each.layer == each.name}
        return replace(network, layers=chosen, nodes=tuple(name for name in chosen if name not in known))

    def _check_planted(self, entry: Mapping, outputs: int) -> None:
        """Refuse a planted network with anything but its own weights and images: its truth would be none."""
        name = f"networks: {entry['name']}"
        if entry["model"] not in planted.MODELS:
            raise StudyError(
                f"{name}: weights: planted: only {' and '.join(planted.MODELS)} have them; choose one of these as "
                f"`model`, or other weights for {entry['model']}"
            )
        if entry["weights"] != weights.PLANTED:
            raise StudyError(f"{name}: weights: {entry['model']} has its own alone; set it to {weights.PLANTED}")
        given = self.config["images"]
        if given["dataset"] != "planted" or given["labels"] is not None:
            raise StudyError(
                f"{name}: model: {entry['model']} sees the images made for it alone; set images.dataset to planted and "
                "images.labels to null, or choose another model"
            )
        if outputs != len(self.classes):
            raise StudyError(f"{name}: outputs: {outputs}, but {entry['model']} has {len(self.classes)}; leave it out")
        if entry.get("transform") != planted.TRANSFORM:
            raise StudyError(f"{name}: transform: {entry['model']} needs its own: {planted.TRANSFORM}")

    def _weights(self, entry: Mapping) -> str:
        """Weights that are not trained here, as jobs name them."""
        if entry["weights"] == weights.SHIPPED:
            return weights.stamped(entry["model"])
        return f"random-{self.seed}" if entry["weights"] == "random" else entry["weights"]

    def _check_shipped(self) -> None:
        """Refuse images on which shipped networks were trained, or which they do not know."""
        split, given = weights.shipped()["split"], self.config["images"]
        way_out = "or train the networks here (`weights: {epochs: ..., batch: ..., learning_rate: ...}`)"
        if given["dataset"] != split["dataset"]:
            raise StudyError(
                f"images.dataset: {given['dataset']}: shipped weights know {split['dataset']} alone; set it to that, "
                f"{way_out}"
            )
        if given["study"] > split["study"]:
            raise StudyError(
                f"images.study: {given['study']}: shipped networks were trained on all images but {split['study']} per "
                f"class; set it to {split['study']} or fewer, so that no image is studied that they were trained on, "
                f"{way_out}"
            )
        if given["labels"] is not None:
            raise StudyError(f"images.labels: shipped networks have their own; set it to null, {way_out}")

    def _outputs(self, model: str, choice: str | Mapping) -> int:
        """Number of outputs of a network: ImageNet's where it or its weights are, else as many as there are labels."""
        of_timm = model.startswith(TIMM) and choice == weights.OWN
        published = of_timm or (isinstance(choice, str) and weights.PUBLISHED.fullmatch(choice))
        return (
            IMAGENET if published or self.dataset.startswith("imagenet") else max(self.labels.values(), default=0) + 1
        )

    @staticmethod
    def _chosen(choice: str | list, known: tuple[str, ...], key: str) -> tuple[str, ...]:
        """The classes chosen, in the order of `known`: the order in the config changes nothing."""
        if choice == "all":
            return known
        wanted = {str(class_id) for class_id in choice}
        unknown = sorted(wanted - set(known))
        if unknown:
            listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
            raise StudyError(f"{key}: no class {', '.join(unknown)}; there are {listed}")
        return tuple(class_id for class_id in known if class_id in wanted)

    def _labels(self) -> dict[str, int]:
        """Index of each class of the data set among the outputs of the networks."""
        labels = self.config["images"]["labels"]
        if labels is None:
            return dict(self.data.labels)
        if isinstance(labels, str):
            try:
                with Path(labels).open(newline="", encoding="utf-8-sig") as file:
                    rows = list(csv.DictReader(file, delimiter="\t"))
                pairs = [(row["class_id"], int(row["label"])) for row in rows]
                if not all(0 <= label <= MOST_LABEL for _, label in pairs):
                    raise ValueError(f"a label is not from 0 to {MOST_LABEL}")
            except OSError as error:
                raise StudyError(f"images.labels: {labels}: cannot be read ({error.strerror})") from error
            except (KeyError, TypeError, ValueError, csv.Error) as error:
                raise StudyError(
                    f"images.labels: {labels}: needs tab-separated columns class_id and label, label a number ({error})"
                ) from error
        else:
            pairs = [(str(class_id), label) for class_id, label in labels.items()]
        labels = dict(pairs)
        if len(labels) < len(pairs):
            twice = next(class_id for i, (class_id, _) in enumerate(pairs) if class_id in dict(pairs[:i]))
            raise StudyError(f"images.labels: class {twice} has two labels; give it one")
        missing = [class_id for class_id in self.classes if class_id not in labels]
        if self.train and missing:
            raise StudyError(
                f"images.labels: no output is given for class {', '.join(missing)}, which is to be trained on"
            )
        return {class_id: labels[class_id] for class_id in self.classes if class_id in labels}

    def _check_folds(self) -> None:
        """Refuse what the cross-fitted protocol cannot have."""
        if any(self.controls.values()) and "crossfit" not in self.protocols:
            raise StudyError(
                "controls: are ablated as the cross-fitted protocol has it, which ablations.protocols leaves out; "
                "add crossfit there, or set controls to null"
            )
        if self.pseudo and self.config["probes"]["crossfit"] is None:
            raise StudyError(
                "controls.pseudo: pseudo-targets are for the cross-fitted probes too; set it to 0, or give "
                "probes.crossfit its settings"
            )
        if self.pseudo and not {"zero", "mean"} & set(self.interventions):
            raise StudyError(
                "controls.pseudo: pseudo-targets are ablated by zero and by mean, and ablations.interventions has "
                "neither; add one there, or set controls.pseudo to 0"
            )
        if len(self.pseudo) == 1:
            raise StudyError(
                "controls.pseudo: 1 pseudo-target says nothing of how much they vary, which claims are compared with; "
                "take at least 2, or 0"
            )

    def _check_importance(self) -> None:
        """Refuse measures that are none, and what needs the cross-fitted protocol where that is left out."""
        shapley = self.config["ablations"]["shapley"]
        for key, given in (("importance", self.importance), ("ablations.shapley", shapley)):
            if given and "crossfit" not in self.protocols:
                raise StudyError(
                    f"{key}: is ablated as the cross-fitted protocol has it, which ablations.protocols leaves out; "
                    f"add crossfit there, or set {key} to null"
                )
        if shapley and not set(REPLACING) & set(self.interventions):
            raise StudyError(
                "ablations.shapley: is for zero and for mean, and ablations.interventions has neither; add one there, "
                "or set ablations.shapley to null"
            )
        if not self.importance:
            return
        known = measures()
        for name in self.importance["measures"]:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise StudyError(
                    f"importance.measures: {name} is none of those of workflow/measures.yaml{hint} (there are "
                    f"{', '.join(known)}; random orders are importance.random)"
                )
        if self.config["probes"]["crossfit"] is None:
            fitted = [name for name in self.importance["measures"] if "probe" in known[name]["needs"]]
            if fitted or self.importance["redundancy"]:
                what = f"measures: {fitted[0]}" if fitted else "redundancy"
                raise StudyError(
                    f"importance.{what}: needs the cross-fitted probe, which probes.crossfit leaves out; give it its "
                    "settings, or leave the key out of importance"
                )

    def _layers_with(self, choice: str | int | Sequence[str], key: str) -> dict[str, tuple[str, ...]]:
        """The layers of each network that `key` of the config chooses: all, so many of each, or some by name."""
        if isinstance(choice, list):
            networks = self.networks.values()
            unknown = [layer for layer in choice if all(layer not in network.layers for network in networks)]
            if unknown:
                raise StudyError(f"{key}: no network of the study has {', '.join(unknown)} among its layers")
        return {name: some(network.layers, choice) for name, network in self.networks.items()}

    def _targets_with(self, choice: str | int | Sequence[str | int], key: str) -> dict[str, tuple[str, ...]]:
        """The targets of each network that `key` of the config chooses, as `_layers_with`."""
        if isinstance(choice, list):
            choice = list(map(str, choice))
            unknown = [t for t in choice if all(t not in network.targets for network in self.networks.values())]
            if unknown:
                raise StudyError(f"{key}: no network of the study has {', '.join(unknown)} among its targets")
        return {name: some(network.targets, choice) for name, network in self.networks.items()}

    def _check_occlusion(self) -> Iterator[tuple[str, str, str]]:
        """Refuse a task that cannot be had; the grids whose units are looked at."""
        task = self.occlusion
        shown = self.figure1()
        chosen = {
            f"{axis}s": [shown[axis]] if task[f"{axis}s"] is None else task[f"{axis}s"]
            for axis in ("network", "layer", "target")
        }
        names = chosen["networks"]
        unknown = [name for name in names if name not in self.networks] if names != "all" else []
        if unknown:
            raise StudyError(f"occlusion.networks: {', '.join(unknown)} is none of {', '.join(self.networks)}")
        if NONE not in task["conditions"]:
            raise StudyError("occlusion.conditions: none is what the others are compared with; add it")
        pictured = [name for name in SYNTHETIC if name in task["conditions"]]
        if pictured and not task["visualisations"]:
            raise StudyError(
                f"occlusion.conditions: {pictured[0]} shows feature visualisations; give occlusion.visualisations its "
                "settings, or leave the condition out"
            )
        if "mixed" in pictured and task["references"] <= MIXED:
            raise StudyError(
                f"occlusion.references: {task['references']}, of which the condition mixed replaces {MIXED} by feature "
                "visualisations; raise it, or leave mixed out of occlusion.conditions"
            )
        if task["sets"] > task["bin"]:
            raise StudyError(
                f"occlusion.bin: {task['bin']} images cannot be of {task['sets']} image sets; raise it, or lower "
                "occlusion.sets"
            )
        layers = self._layers_with(chosen["layers"], "occlusion.layers")
        targets = self._targets_with(chosen["targets"], "occlusion.targets")
        if task["refine"] and not 2 * task["refine"] <= task["stride"]:
            raise StudyError(
                f"occlusion.refine: {task['refine']} is no closer than occlusion.stride, {task['stride']}; take at "
                "most half of it, or null"
            )
        count = task["bin"] * (task["references"] + 1)
        rests = {c: max(0, self.data.counts[c] - self.config["images"]["study"]) for c in self.labels}
        for name in some(tuple(self.networks), names):
            network = self.networks[name]
            if network.transform:
                squares.side(network.transform["crop"], task["side"], task["stride"])
            rest = sum(rests[class_id] for class_id in network.classes)
            # A smaller pool is drawn from the images of all classes.
            drawn = 1.0 if task["pool"] is None else min(1.0, task["pool"] / max(1, sum(rests.values())))
            pool = int(rest * drawn)
            if count > task["top"] * pool:
                about = "" if drawn == 1 else "about "
                raise StudyError(
                    f"occlusion: {count} images of a unit, {task['references'] + 1} bins of {task['bin']}, are more "
                    f"than {task['top']:g} of the {about}{pool} images of {name}'s classes that are not studied; lower "
                    "images.study, occlusion.bin or occlusion.references, or set occlusion to null"
                )
            for axis, of_network in (("layers", layers[name]), ("targets", targets[name])):
                if not of_network:
                    raise StudyError(
                        f"occlusion.{axis}: {name} has none of {', '.join(map(str, chosen[axis]))}; choose others, or "
                        "leave the network out of occlusion.networks"
                    )
            if others := set(layers[name]).intersection(self.networks[name].nodes):
                raise StudyError(
                    f"occlusion.layers: {sorted(others)[0]} of {name} is no non-linearity, whose units are looked at "
                    "before and behind it; choose one"
                )
            for layer in layers[name]:
                for target in targets[name]:
                    yield name, layer, target

    def occluded(self) -> tuple[tuple[str, str, str], ...]:
        """All (network, layer, target) whose units the occlusion task looks at."""
        return self._occluded

    def siblings(self, network: str) -> tuple[str, ...]:
        """Trained networks of the same kind as a network, with other weights."""
        own = self.networks[network]
        # Trained in one way with one seed they are the same, whatever their names.
        same = [other for other in self.networks.values() if other.model == own.model and not other.untrained]
        return tuple(other.name for other in same if (other.weights, other.training) != (own.weights, own.training))

    def controlled(self, network: str) -> tuple[str, ...]:
        """The layers of a network with controls, in order of depth."""
        return self._controlled[network]

    def ranked(self) -> Iterator[tuple[str, str, str]]:
        """All (network, layer, target) whose units are ranked by measures of importance."""
        for network in self.networks:
            for layer in self._ranked[network]:
                for target in self._ranked_targets[network]:
                    yield network, layer, target

    def shapley_settings(self) -> Mapping:
        """How Shapley values are estimated; StudyError where the study has none."""
        if not self.shapley:
            raise StudyError(
                "ablations.shapley: is null, so there are no Shapley values; give it permutations and error, as "
                "workflow/studies/planted.yaml does"
            )
        return self.shapley

    def _check_counts(self) -> None:
        study = self.config["images"]["study"]
        least = self.set_aside + 1 if self.train else study
        needed = self.classes if self.train else {c for network in self.networks.values() for c in network.classes}
        counts = self.data.counts
        for class_id in sorted(needed):
            if (count := counts[class_id]) < least:
                if up := self.data.leads_up(class_id):
                    raise StudyError(
                        f"class {class_id}: its folder is a link to {up}, which contains it and has {count} images "
                        "beside its folders; put a folder of images in its place, remove it or leave the class out"
                    )
                rest = ", and at least one more to train on" if self.train else ""
                raise StudyError(
                    f"class {class_id}: {count} images, but images.study asks for {study}{rest}; "
                    "add images, lower images.study or leave the class out"
                )

    def check_results(self) -> None:
        """Refuse what is no folder of results, and one that another study made, by what its table of images carries.

        Raises StudyError that names what is in the way, or both studies. A table that is not there, cannot be read or
        carries nothing is no evidence: it is made anew, or refused by the job that reads it.
        """
        for folder in (os.path.dirname(self.results), self.results):
            _check_folder(folder)
        listed = Path(self.results, "images.parquet")
        if not listed.exists():
            return
        from runtime import parquet

        try:
            made = provenance.of(parquet.schema(listed).metadata)
        except StudyError:
            return
        ours = {"study": self.name, **self.image_settings()}
        if ours.keys() <= made.keys() and _identity(**ours) != _identity(**{key: made[key] for key in ours}):
            moved = made["path"] and ours["path"] and all(made[key] == ours[key] for key in ours if key != "path")
            raise StudyError(
                f"{self.results}: holds the results of another study: {_describe(made)}, and the config is of "
                f"{_describe(ours)}; give the config a `study:` of its own, or move that folder away"
                + (", or, where the images have only moved, keep `images.path` and leave a link there" if moved else "")
            )

    @cache  # noqa: B019  one study a process
    def others(self, network: str, target: str) -> tuple[str, ...]:
        """The classes that a target is contrasted with."""
        return cells.others(self.networks[network].classes, target, self.config["others"], self.seed)

    def kind(self, group: str) -> groups.Kind:
        """The kind of a cell or another group; StudyError where a grid of the study has none of that name."""
        if group not in self.kinds:
            raise StudyError(
                f"{group}: the study has no cell or group of this name; there are {', '.join(self.cells)} and "
                f"{', '.join(self.random) or 'no random groups'}; controls.random says how many"
            )
        return self.kinds[group]

    def grids(self) -> Iterator[tuple[str, str, str]]:
        """All (network, layer, target) of the study; each has one grid of cells."""
        for network in self.networks.values():
            for layer in network.layers:
                for target in network.targets:
                    yield network.name, layer, target

    def figure1(self) -> dict[str, str]:
        """Network, layer and target of figure 1."""
        chosen = self.config["figures"]
        if chosen["network"] not in self.networks:
            raise StudyError(f"figures.network: {chosen['network']} is none of {', '.join(self.networks)}")
        network = self.networks[chosen["network"]]
        layer = network.layers[-1] if chosen["layer"] is None else chosen["layer"]
        target = network.targets[0] if chosen["target"] is None else str(chosen["target"])
        if layer not in network.layers:
            raise StudyError(f"figures.layer: {layer} is none of {', '.join(network.layers)}; null takes the last")
        if target not in network.targets:
            raise StudyError(f"figures.target: {target} is none of {', '.join(network.targets)}; null takes the first")
        return {"network": network.name, "layer": layer, "target": target}

    def listing_digest(self) -> str:
        """Hash of the names and sizes of the data set's files, so that a changed folder is listed anew."""
        return self.data.digest

    def trained(self, network: str) -> str:
        """The file of weights that a rule makes for a network of this name."""
        return f"{self.results}/networks/{network}/weights.pt"

    def source(self, network: Network) -> NetworkSource:
        """What it takes to run a network of the study."""
        return NetworkSource(
            model=network.model,
            outputs=network.outputs,
            weights=network.weights or self.trained(network.name),
            images=ImageSource(**self.image_settings(), transform=network.transform),
            builder=network.builder,
        )

    def image_settings(self) -> dict[str, str | None]:
        """Where the images are."""
        return {"dataset": self.dataset, "path": self.path}
