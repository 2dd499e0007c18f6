# What rules take by wildcards: files and settings of a network, a grid or a layer.
# A path stands once, in the output of its rule; these are of files that several rules make.
ACTIVATIONS = f"{R}/activations/{{network}}/{{layer}}/{{class_id}}.parquet"
MEANS = f"{R}/means/{{network}}/{{layer}}/{{class_id}}.parquet"
BASELINE = f"{R}/baseline/{{network}}/{{class_id}}.parquet"
ACCURACY = f"{R}/networks/{{network}}/accuracy.parquet"
TRUTH = f"{R}/networks/{{network}}/truth.parquet"
GRID = {"bins": STUDY.bins, "folds": STUDY.folds}
# Interventions by which a group's units put out a constant, as far as the study has them.
REPLACING = [name for name in ("zero", "mean") if name in STUDY.interventions]
EXTRACTION = {**STUDY.config["activations"], "folds": STUDY.folds}


def one_of(names):
    """A pattern for wildcards that matches these names, or nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def weights(network):
    """The file of a network's weights, trained here or the user's, where there is one."""
    made = [STUDY.trained(network.name)] if network.trained else []
    return [network.file] if network.file else made


def truth(wildcards):
    """The roles of a network's units, where they are known."""
    return [TRUTH.format(network=wildcards.network)] if STUDY.networks[wildcards.network].planted else []


def architecture(wildcards):
    """What it takes to build a network, with its weights where these are not trained here."""
    network = STUDY.networks[wildcards.network]
    return {"source": replace(STUDY.source(network), weights=network.weights)}


def checked(wildcards):
    """What a network's layers are checked against; not tracked, since another choice among them leaves their table."""
    return {"chosen": STUDY.networks[wildcards.network].layers, "cells": len(STUDY.cells), "device": DEVICE}


def training(wildcards):
    """How a network is trained, and on what."""
    network = STUDY.networks[wildcards.network]
    return {"source": STUDY.source(network), "recipe": network.training}


def group(wildcards):
    """What decides a group's units beside its grid: its kind, and the seed where they are drawn."""
    with told():
        kind = STUDY.kind(wildcards.cell)
    return {"kind": kind, "seed": STUDY.seed if kind == "random" else None}


def made_of_group(step, params):
    """What the tables of a job on a group carry; for a cell the step's settings alone, as the layer's table expects."""
    drawn = {} if params.group["kind"] == "cell" else params.group
    return made(step, {**params.settings, **drawn})


def probing(network):
    """The settings of the probes, and what gives the units of the smallest cell of a network."""
    settings = STUDY.config["probes"]
    layers = STUDY.networks[network].layers if settings["crossfit"] else ()
    return {"seed": STUDY.seed, **settings, "layers": layers, "cells": len(STUDY.cells)}


def ablation(network):
    """How a network is run with units ablated."""
    return {
        "source": STUDY.source(STUDY.networks[network]),
        "protocols": STUDY.protocols,
        "interventions": STUDY.interventions,
    }


def ablating(files, wildcards, params):
    """What the job of a cell, or of another group, does with it."""
    does = {name: params.settings[name] for name in ("protocols", "interventions")}
    return {"grid": grid(files, wildcards), "cell": wildcards.cell, **params.group, **does}


def controlling(files, wildcards, params):
    """What the job of a grid's controls does, or another that ablates groups of its own choice."""
    does = {name: value for name, value in params.settings.items() if name != "source"}
    return {"grid": grid(files, wildcards), "path_to_truth": next(iter(files.truth), None), **does}


def control(network):
    """The groups beside the cells, and how they are ablated."""
    kinds = {name: count for name, count in STUDY.controls.items() if name != "pseudo"}
    return {"source": STUDY.source(STUDY.networks[network]), "seed": STUDY.seed, **kinds}


def measuring():
    """The measures of importance, what they need, and the C of the probe among them."""
    with told():
        if not STUDY.importance:
            raise StudyError("importance: is null in this study; give it its settings to rank the units of a grid")
    names = STUDY.importance["measures"]
    needs = sorted({need for name in names for need in measures()[name]["needs"]})
    probes = STUDY.config["probes"]["crossfit"]
    return {"measures": names, "needs": needs, "C": probes["C"] if probes and "probe" in needs else None}


def ranking(network):
    """How the units of a network are ranked, and how the tops are ablated."""
    known = measuring()
    does = {name: STUDY.importance[name] for name in ("random", "tops", "interventions", "keep")}
    return {"source": STUDY.source(STUDY.networks[network]), "seed": STUDY.seed, **known, **does}


def ranked(files, wildcards, params):
    """What the job of a grid's measures does."""
    does = {name: value for name, value in params.settings.items() if name != "source"}
    return {"grid": grid(files, wildcards), "paths_to_activations": [files.target, *files.others], **does}


def looking(network):
    """How a class is looked for where a grid's units are ablated."""
    return {
        "source": STUDY.source(STUDY.networks[network]),
        "seed": STUDY.seed,
        "interventions": STUDY.importance["interventions"],
        "C": STUDY.config["probes"]["crossfit"]["C"],
    }


def pooling():
    """The images that the occlusion task may show."""
    most = STUDY.occlusion["pool"] if STUDY.occlusion else None
    return {**STUDY.image_settings(), "labels": STUDY.labels, "most": most, "seed": STUDY.seed}


def task():
    """The settings of the occlusion task; a message where the study has none."""
    with told():
        if not STUDY.occlusion:
            raise StudyError("occlusion: is null in this study; give it its settings, as config.yaml does")
    return STUDY.occlusion


def listing(network):
    """Which units of a network are looked at, and which images drive them."""
    names = ("unit", "units", "per", "sets", "bin", "references", "top")
    does = {name: task()[name] for name in names}
    network = STUDY.networks[network]
    return {"source": STUDY.source(network), "seed": STUDY.seed, "classes": network.classes, **does}


def occluding(network, *names):
    """How images are occluded or blurred."""
    return {"source": STUDY.source(STUDY.networks[network]), **{name: task()[name] for name in ("unit", *names)}}


def visualising(network):
    """How the units of a network are visualised."""
    does = {"source": STUDY.source(STUDY.networks[network]), "seed": STUDY.seed, "unit": task()["unit"]}
    return {**does, **task()["visualisations"]}


def showing(network):
    """What is shown in trials."""
    return {"source": STUDY.source(STUDY.networks[network]), "chosen": task()["conditions"], "study": STUDY.name}


def pictured(wildcards):
    """Files of the visualisations that a grid's trials show, one for each cell."""
    shown = set(SYNTHETIC).intersection(task()["conditions"])
    return expand(rules.visualisations.output[0], **wildcards, cell=STUDY.cells) if shown else []


def blurred(wildcards):
    """The file of the windows of a grid's references, where they are shown blurred."""
    return expand(rules.windows.output[0], **wildcards) if "blur" in task()["conditions"] else []


def all_pictured():
    """Files of the visualisations of all grids."""
    found = [pictured({"network": n, "layer": layer, "class_id": target}) for n, layer, target in STUDY.occluded()]
    return [path for paths in found for path in paths]


def of_occluded(files, wildcards, params):
    """What a job on the units of a grid that the occlusion task looks at is given."""
    named = {name: path for name, path in files.items() if name.startswith("path_to_")}
    at = {"network": wildcards.network, "layer": wildcards.layer, "class_id": wildcards.class_id}
    return {**named, **at, **params.settings}


def of_task(pattern, *networks):
    """Files of the grids that the occlusion task looks at, or of those of some networks."""
    task()
    grids = [grid for grid in STUDY.occluded() if grid[0] in (networks or STUDY.networks)]
    return [pattern.format(network=n, layer=layer, class_id=target) for n, layer, target in grids]


def observing(network):
    """What observers are given beside a grid's trials."""
    known = {name: STUDY.source(STUDY.networks[name]) for name in STUDY.siblings(network)}
    return {"source": STUDY.source(STUDY.networks[network]), "siblings": known, "seed": STUDY.seed}


def judging():
    """What the accuracies of observers are compared by."""
    names = dict.fromkeys(network for network, _, _ in STUDY.occluded())
    return {
        "networks": {name: {"untrained": STUDY.networks[name].untrained} for name in names},
        "conditions": task()["conditions"],
        "interventions": REPLACING,
        "seed": STUDY.seed,
        **STUDY.config["claims"],
    }


def of_trials(files, wildcards, params):
    """What the job of a grid's trials is given."""
    cells = STUDY.cells if files.visualisations else ()
    return {
        **of_occluded(files, wildcards, params),
        "path_to_windows": next(iter(files.windows), None),
        "paths_to_visualisations": dict(zip(cells, files.visualisations, strict=True)),
    }


def asking():
    """What a page for people asks."""
    return {"study": STUDY.name, "sets": task()["sets"], "seed": STUDY.seed}


def of_answers(files, wildcards):
    """The inputs of a network's observers: files by grid."""
    grids = [grid for grid in STUDY.occluded() if grid[0] == wildcards.network]
    names = ("trials", "stimuli", "extremes", "sets", "units")
    return {f"paths_to_{name}": dict(zip(grids, files[name], strict=True)) for name in names}


def of_observers(files):
    """The inputs of the table of legibility: files by grid, those of observers by network."""
    grids = STUDY.occluded()
    cells = STUDY.cells if files.visualisations else ()
    paths = iter(files.visualisations)
    parts = [dict(zip(cells, paths)) for _ in grids]
    return {
        "paths_to_observers": dict(zip(OCCLUDED, files.observers, strict=True)),
        "paths_to_interpretability": dict(zip(OCCLUDED, files.interpretability, strict=True)),
        "paths_to_units": dict(zip(grids, files.units, strict=True)),
        "paths_to_extremes": dict(zip(grids, files.extremes, strict=True)),
        "paths_to_visualisations": dict(zip(grids, parts, strict=True)),
        "path_to_cells": files.path_to_cells,
        "path_to_responses": next(iter(files.responses), None),
    }


def valuing(network):
    """How the Shapley values of a network's cells are estimated."""
    with told():
        return {
            "source": STUDY.source(STUDY.networks[network]),
            "seed": STUDY.seed,
            "interventions": REPLACING,
            **STUDY.shapley_settings(),
        }


def dividing(files, wildcards, params):
    """What the job of a grid's Shapley values does."""
    does = {name: value for name, value in params.settings.items() if name != "source"}
    return {"grid": grid(files, wildcards), **does}


def drawing(network):
    """How pseudo-targets of a network are treated; those of its classes that give the images count, too."""
    probes = STUDY.config["probes"]["crossfit"]
    return {
        "source": STUDY.source(STUDY.networks[network]),
        "bins": STUDY.bins,
        "C": probes and probes["C"],
        "interventions": REPLACING,
        "seed": STUDY.seed,
    }


def of_pool(pattern):
    """A network's files, at a layer if there is one, one for each class of its pool."""
    return lambda w: [pattern.format(**w, class_id=class_id) for class_id in STUDY.networks[w.network].classes]


def of_all(network, paths):
    """The inputs of a pseudo-target by class."""
    classes = STUDY.networks[network].classes
    return {
        "path_to_images": paths.path_to_images,
        "path_to_layers": paths.path_to_layers,
        **{
            f"paths_to_{name}": dict(zip(classes, paths[name], strict=True))
            for name in ("activations", "means", "baselines")
        },
    }


def others(wildcards):
    """The classes whose images an ablation looks at beside the target's."""
    return STUDY.others(wildcards.network, wildcards.class_id) if "crossfit" in STUDY.protocols else ()


def others_baselines(wildcards):
    """The files of these classes."""
    return [BASELINE.format(network=wildcards.network, class_id=other) for other in others(wildcards)]


def grid(files, wildcards):
    """A grid, and the files of its ablations."""
    from jobs.ablations import Grid

    at = {"network": wildcards.network, "layer": wildcards.layer, "class_id": wildcards.class_id}
    named = {name: files[name] for name in ("path_to_cells", "path_to_baseline", "path_to_images", "path_to_layers")}
    source = STUDY.source(STUDY.networks[wildcards.network])
    return Grid(
        **at,
        **named,
        others=others(wildcards),
        paths_to_others=tuple(files.paths_to_others),
        source=source,
        device=DEVICE,
    )


def made(step, settings, **more):
    """What the tables of a job carry; `step` names the module that makes them."""
    return provenance.record(study=STUDY.name, step=step, settings=settings, code=digest(step), **more)


def listed(params):
    """What the list of images carries: where the images are, too, by which the study's folder is known."""
    return made("images", {**params.settings, "files": params.files}, **STUDY.image_settings())


def origins(network, *steps):
    """What the files of these steps must carry to be gathered in one table."""
    settings = {
        "probes": probing,
        "ablations": ablation,
        "controls": control,
        "pseudo": drawing,
        "shapley": valuing,
        "importance": ranking,
        "redundancy": looking,
        "observers": observing,
    }
    given = {step: GRID if step == "cells" else settings[step](network) for step in steps}
    return {step: {"study": STUDY.name, "settings": provenance.digest(s)} for step, s in given.items()}


def origins_of_layer(wildcards):
    """Those of a layer's table; another layer's controls are none of its."""
    steps = ["cells", "probes", "ablations"]
    if STUDY.has_groups and wildcards.layer in STUDY.controlled(wildcards.network):
        steps.append("controls")
    return origins(wildcards.network, *steps)


def of_others(pattern):
    """The files for the classes that a target is contrasted with: when those change, the jobs' inputs change."""
    return lambda w: [
        pattern.format(network=w.network, layer=w.layer, class_id=other)
        for other in STUDY.others(w.network, w.class_id)
    ]


def of_layers(pattern, network):
    """A network's files, one for each layer; a wildcard of classes stays one."""
    return [pattern.format(network=network.name, layer=layer, class_id="{class_id}") for layer in network.layers]


def of_classes(pattern):
    """A network's files, one for each class of its pool."""
    return lambda w: expand(pattern, network=w.network, class_id=STUDY.networks[w.network].classes)


def of_targets(pattern):
    """A layer's files of a step, one for each target."""
    return lambda w: [pattern.format(**w, class_id=target) for target in STUDY.networks[w.network].targets]


def of_cells(pattern):
    """A layer's files of a step, one for each target and cell."""
    return lambda w: [
        pattern.format(**w, class_id=target, cell=cell)
        for target in STUDY.networks[w.network].targets
        for cell in STUDY.cells
    ]


def by_layer(network, paths):
    """The outputs of a network's activations, those of its layers by layer."""
    layers = STUDY.networks[network].layers
    return {
        "paths_to_activations": dict(zip(layers, paths.activations, strict=True)),
        "paths_to_means": dict(zip(layers, paths.means, strict=True)),
        "path_to_baseline": paths.baseline,
    }


def of_networks(paths):
    """The inputs of the claims: layer tables by network, those of a network in order of depth, and that of groups."""
    left = iter(paths.layers)
    layers = {network.name: [next(left) for _ in network.layers] for network in STUDY.networks.values()}
    return {"paths_to_layers": layers, "path_to_groups": next(iter(paths.groups), None)}


def by_target(network, paths):
    """Files of `of_targets` by target."""
    return dict(zip(STUDY.networks[network].targets, paths, strict=bool(paths)))


def by_cell(network, paths):
    """Files of `of_cells` by target and cell."""
    parts = [paths[i : i + len(STUDY.cells)] for i in range(0, len(paths), len(STUDY.cells))]
    return {t: dict(zip(STUDY.cells, part, strict=True)) for t, part in by_target(network, parts).items()}


def controlled(pattern):
    """A layer's files of controls, one for each target, where there are any."""
    return lambda w: of_targets(pattern)(w) if STUDY.has_groups and w.layer in STUDY.controlled(w.network) else []


def contrasts(network):
    """The classes that each target of a network is contrasted with."""
    return {target: STUDY.others(network, target) for target in STUDY.networks[network].targets}


def of_steps(network, paths):
    """The inputs of a layer's table by step, target and cell."""
    return {
        "path_to_images": paths.images,
        "path_to_layers": paths.layers,
        "paths_to_baselines": dict(zip(STUDY.networks[network].classes, paths.baselines, strict=True)),
        "paths_to_cells": by_target(network, paths.cells),
        "paths_to_probes": by_cell(network, paths.probes),
        "paths_to_ablations": by_cell(network, paths.ablations),
        "paths_to_controls": by_target(network, paths.controls),
        "others": contrasts(network),
    }


def of_grids(paths):
    """The inputs of the table of groups: controls by grid, layers and baselines by network."""
    left = iter(paths.baselines)
    return {
        "path_to_images": paths.images,
        "paths_to_controls": dict(zip(controlled_grids(), paths.controls, strict=True)),
        "paths_to_pseudo": dict(zip(pseudo_grids(), paths.pseudo, strict=True)),
        "paths_to_rankings": dict(zip(STUDY.ranked(), paths.rankings, strict=True)),
        "paths_to_layers": dict(zip(STUDY.networks, paths.layers, strict=True)),
        "paths_to_baselines": {n.name: {c: next(left) for c in n.classes} for n in STUDY.networks.values()},
        "others": {network: contrasts(network) for network in STUDY.networks},
    }


def comparing():
    """What measures of importance are compared by."""
    targets = {network: [] for network, _, _ in STUDY.ranked()}
    for network, _, target in STUDY.ranked():
        targets[network] += [target] if target not in targets[network] else []
    networks = {name: {"targets": some, "untrained": STUDY.networks[name].untrained} for name, some in targets.items()}
    return {
        "networks": networks,
        "measures": STUDY.importance["measures"] if STUDY.importance else [],
        **STUDY.config["claims"],
    }


def of_ranked(pattern):
    """Files of the grids whose units are ranked."""
    return [pattern.format(network=n, layer=layer, class_id=target) for n, layer, target in STUDY.ranked()]


def of_measures(paths):
    """The inputs of the table of measures: cells and means by grid, layers by network."""
    return {
        "paths_to_cells": dict(zip(STUDY.ranked(), paths.cells, strict=True)),
        "paths_to_means": dict(zip(STUDY.ranked(), paths.means, strict=True)),
        "paths_to_layers": dict(zip(STUDY.networks, paths.layers, strict=True)),
    }


def group_steps():
    """The steps whose groups one table has."""
    return ["controls", "pseudo", *(["importance"] if STUDY.importance else [])]


def has_groups():
    """Whether there are groups beside the cells."""
    return bool(controlled_grids() or pseudo_grids() or STUDY.importance)


def of_shapley(paths):
    """The inputs of the table of Shapley values: by grid, layers by network."""
    return {
        "paths_to_shapley": dict(zip(shapley_grids(), paths.shapley, strict=True)),
        "paths_to_layers": dict(zip(STUDY.networks, paths.layers, strict=True)),
    }


def shapley_grids():
    """All (network, layer, target) with Shapley values."""
    return list(STUDY.grids()) if STUDY.shapley else []


@cache
def variants():
    """The study's variants by name; nothing is enumerated unless they are asked for."""
    with told():
        return {variant.name: variant for variant in of_study(STUDY)}


def to_run():
    """The configurations of the variants by name, but for those that would be the base again."""
    return {name: variant.config for name, variant in variants().items() if variant.config}


def following(wildcards):
    """What a variant follows from beside its configuration: when any of it changes, it is looked through again."""
    steps = ("images", "networks", "activations", "cells", "probes", "ablations", "pseudo", "tables", "claims")
    return {"files": STUDY.listing_digest(), "registry": file_digest(REGISTRY), "code": [*map(digest, steps)]}


def of_variants(paths):
    """The inputs of the table of verdicts: tables of claims by variant, and the studies that they are of."""
    return {
        "paths_to_claims": dict(zip(to_run(), paths, strict=True)),
        "studies": {name: config["study"] for name, config in to_run().items()},
    }


def pseudo_grids():
    """All (network, layer, pseudo-target)."""
    return [(n, layer, pseudo) for n in STUDY.networks for layer in STUDY.controlled(n) for pseudo in STUDY.pseudo]


def controlled_grids():
    """All (network, layer, target) with controls."""
    return [grid for grid in STUDY.grids() if STUDY.has_groups and grid[1] in STUDY.controlled(grid[0])]


def of_redundancy(paths):
    """The inputs of the table of redundancy: files by grid, layers by network."""
    return {
        "paths_to_redundancy": dict(zip(redundancy_grids(), paths.redundancy, strict=True)),
        "paths_to_layers": dict(zip(STUDY.networks, paths.layers, strict=True)),
    }


def redundancy_grids():
    """All (network, layer, target) where a class is looked for while units are ablated."""
    return list(STUDY.ranked()) if STUDY.importance and STUDY.importance["redundancy"] else []
