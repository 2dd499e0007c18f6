"""The variants of a study, each with one setting changed, by which its verdicts are tried: `config.yaml`, sensitivity.

Like the study, they are enumerated when the DAG is built, and only if it asks for them.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from inputs.study import CONTROLS, REPLACING, Network, Study, some
from readout import StudyError

BASE = "base"
"""The variant with the study's own settings, and its setting."""


@dataclass(frozen=True)
class Variant:
    """A variant: what it changes, and the configuration of the study that it is; None where it would be the base's.

    `note` says which networks it leaves as they are.
    """

    name: str
    setting: str
    value: str
    config: Mapping | None
    note: str | None = None

    @property
    def about(self) -> dict[str, str | bool | None]:
        """What the table of verdicts says of it."""
        head = {"variant": self.name, "setting": self.setting, "value": self.value}
        return head | {"run": self.config is not None, "note": self.note}


def study_name(study: str, variant: str) -> str:
    """The study that a variant of a study is: its results lie in a folder of their own."""
    return f"{study}.{variant}"


def of_study(study: Study) -> tuple[Variant, ...]:
    """The variants of a study, its base first.

    StudyError, which names the key, where the study cannot have one of them.
    """
    if (chosen := study.config["sensitivity"]) is None:
        raise StudyError(
            "sensitivity: is null, so the study has no variants; give it its settings, as config.yaml does"
        )
    if "crossfit" not in study.protocols or study.config["probes"]["crossfit"] is None:
        raise StudyError(
            "sensitivity: is of the corrected verdicts, which are cross-fitted; add crossfit to ablations.protocols, "
            "and give probes.crossfit its settings"
        )
    base = _base(study)
    (s, m), images, others = study.bins, study.config["images"]["study"], study.config["others"]
    cut = _variant(study, base, BASE, BASE, f"{s} x {m} bins, {images} images, {others}")
    return cut, *_changed(study, base, chosen)


def _changed(study: Study, base: Mapping, chosen: Mapping) -> Iterator[Variant]:
    """The variants but the base."""
    for count in chosen["bins"]:
        if study.bins != (count, count):
            change = {"grid": {"selectivity": count, "magnitude": count}}
            yield _variant(study, base | change, f"bins_{count}", "bins", str(count))
    for count in chosen["images"]:
        if study.train and count > study.set_aside:
            raise StudyError(
                f"sensitivity.images: {count}: networks of the study were trained on all images but {study.set_aside} "
                "per class; leave it out, so that no image is studied that they were trained on"
            )
        if count != study.config["images"]["study"]:
            change = {"images": base["images"] | {"study": count}}
            yield _variant(study, base | change, f"images_{count}", "images", str(count))
    for choice in chosen["others"]:
        if choice != study.config["others"]:
            yield _with_others(study, base | {"others": choice}, choice)


def _with_others(study: Study, config: Mapping, choice: str) -> Variant:
    """The variant with another choice of others, which changes nothing where there are no more than a few."""
    name, other = f"others_{choice}", Study(config)
    same = [
        network
        for network in other.networks
        if all(other.others(network, t) == study.others(network, t) for t in study.networks[network].targets)
    ]
    if len(same) == len(other.networks):
        note = f"not run: each target has the others that it has with {study.config['others']}, there are no more"
        return Variant(name, "others", choice, None, note)
    note = f"the base's others in {', '.join(same)}, where there are no more" if same else None
    return _variant(study, config, name, "others", choice, note)


def _base(study: Study) -> dict:
    """The study's configuration, cut down to what the corrected verdicts need, with few layers."""
    config, chosen = copy.deepcopy(study.config), study.config["sensitivity"]
    # Untrained networks are never pooled.
    networks = [n for n in study.networks.values() if not n.untrained] or list(study.networks.values())
    entries = {entry["name"]: entry for entry in config["networks"]}
    config["networks"] = [
        entries[network.name] | {"layers": list(some(network.layers, chosen["layers"]))} for network in networks
    ]
    config["ablations"] = {
        "protocols": ["crossfit"],
        "interventions": list(REPLACING),
        "shapley": None,
    }
    config["probes"]["published"]["draws"] = 1
    config["controls"] = {"layers": "all", **dict.fromkeys(CONTROLS, 0), "pseudo": chosen["pseudo"]}
    config["figures"] = {"network": networks[0].name, "layer": None, "target": None}
    return config | {"importance": None, "occlusion": None, "sensitivity": None}


def _variant(study: Study, config: Mapping, name: str, setting: str, value: str, note: str | None = None) -> Variant:
    """A variant, checked; the networks that the study trains it takes as they are."""
    try:
        Study(config | {"study": study_name(study.name, name)})
    except StudyError as error:
        key = f"sensitivity.{setting}: {value}" if setting != BASE else "sensitivity"
        raise StudyError(f"{key}: cannot be studied: {error}") from error
    networks = [_trained(study, study.networks[entry["name"]], entry) for entry in config["networks"]]
    config = dict(config) | {"study": study_name(study.name, name), "networks": networks}
    return Variant(name, setting, value, config, note)


def _trained(study: Study, network: Network, entry: Mapping) -> Mapping:
    """A network's entry, with its weights where the study trains it: fewer study images would train another."""
    return entry | {"weights": study.trained(network.name)} if network.trained else entry
