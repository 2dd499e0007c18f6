# What rules take by wildcards: files and settings of a network, a grid or a layer.
GRID = {"bins": STUDY.bins}
PROBES = {"seed": STUDY.seed, **STUDY.config["probes"]}


def one_of(names):
    """A pattern for wildcards that matches these names, or nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def weights(network):
    """The file of a network's weights, trained here or the user's, where there is one."""
    made = [f"{R}/networks/{network.name}/weights.pt"] if network.trained else []
    return [network.file] if network.file else made


def architecture(wildcards):
    """What it takes to build a network, with its weights where these are not trained here."""
    network = STUDY.networks[wildcards.network]
    return {key: getattr(network, key) for key in ("model", "outputs", "weights", "transform")}


def checked(wildcards):
    """What a network's layers are checked against; not tracked, since another choice leaves their table as it is."""
    return {"chosen": STUDY.networks[wildcards.network].layers, "cells": len(STUDY.cells), "on": DEVICE}


def training(wildcards):
    """How a network is trained, and on what."""
    network = STUDY.networks[wildcards.network]
    return {**STUDY.engine(network), "recipe": {"seed": STUDY.seed, **network.training}}


def ablation(wildcards):
    """How a network is run with units ablated."""
    return {**STUDY.engine(STUDY.networks[wildcards.network]), **STUDY.config["ablations"]}


def made(step, settings, **more):
    """What the tables of a job carry; `step` names the module that makes them."""
    return provenance.record(study=STUDY.name, step=step, settings=settings, code=digest(step), **more)


def origins(wildcards):
    """What the files of a layer must carry to be gathered in one table."""
    steps = {"cells": GRID, "probes": PROBES, "ablations": ablation(wildcards)}
    return {step: {"study": STUDY.name, "settings": provenance.digest(s)} for step, s in steps.items()}


def of_others(step):
    """The files of a step for the classes that a target is contrasted with: when those change, the jobs' inputs change."""

    def paths(wildcards):
        others = STUDY.others(wildcards.network, wildcards.class_id)
        return [f"{R}/{step}/{wildcards.network}/{wildcards.layer}/{other}.parquet" for other in others]

    return paths


def of_layer(step):
    """The files of a step for all targets and cells of a layer."""

    def paths(wildcards):
        targets = STUDY.networks[wildcards.network].targets
        pattern = f"{R}/{step}/{wildcards.network}/{wildcards.layer}/{{target}}/{{cell}}.parquet"
        return [pattern.format(target=target, cell=cell) for target in targets for cell in STUDY.cells]

    return paths
