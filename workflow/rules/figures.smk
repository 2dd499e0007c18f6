# The paper's figures, what stands up of them, and supplements, drawn from the tables alone.
FIRST = STUDY.figure1()
# Controls, which the figures tell apart from what is studied.
UNTRAINED = [network.name for network in STUDY.networks.values() if (network.weights or "").startswith("random-")]


rule figure1:
    input:
        rules.cells.output[0].format(network=FIRST["network"], layer=FIRST["layer"], class_id=FIRST["target"]),
    output:
        report(
            f"{R}/figures/figure1.png",
            caption="../report/figure1.rst",
            category="Figures",
            labels={"figure": "1", "shows": "units, cells and prediction"},
        ),
        f"{R}/figures/figure1.svg",
    log:
        f"{R}/logs/figures/figure1.log",
    params:
        settings={
            "figure": "figure1",
            "networks": [FIRST["network"]],
            "title": "{network} {layer}, target {target}".format(**FIRST),
        },
        code=digest("figures"),
    run:
        from runtime import subprocesses

        subprocesses.run(
            "jobs.figures", {**params.settings, "path_to_table": input[0], "paths": list(output)}, log[0]
        )


rule figure2:
    input:
        rules.tables.output[0],
    output:
        report(
            f"{R}/figures/figure2.png",
            caption="../report/figure2.rst",
            category="Figures",
            labels={"figure": "2", "shows": STUDY.config["figures"]["network"]},
        ),
        f"{R}/figures/figure2.svg",
    log:
        f"{R}/logs/figures/figure2.log",
    params:
        settings={
            "figure": "figure2",
            "networks": [STUDY.config["figures"]["network"]],
            "title": STUDY.config["figures"]["network"],
        },
        code=digest("figures"),
    run:
        from runtime import subprocesses

        subprocesses.run(
            "jobs.figures", {**params.settings, "path_to_table": input[0], "paths": list(output)}, log[0]
        )


use rule figure2 as figure2_network with:
    output:
        report(
            f"{R}/figures/figure2_{{network}}.png",
            caption="../report/figure2.rst",
            category="Figures",
            labels={"figure": "2", "shows": "{network}"},
        ),
        f"{R}/figures/figure2_{{network}}.svg",
    log:
        f"{R}/logs/figures/figure2_{{network}}.log",
    params:
        settings=lambda w: {"figure": "figure2", "networks": [w.network], "title": w.network},
        code=digest("figures"),


use rule figure2 as figure3 with:
    output:
        report(
            f"{R}/figures/figure3.png",
            caption="../report/figure3.rst",
            category="Figures",
            labels={"figure": "3", "shows": "all networks"},
        ),
        f"{R}/figures/figure3.svg",
    log:
        f"{R}/logs/figures/figure3.log",
    params:
        settings={"figure": "figure3", "networks": list(STUDY.networks), "title": "", "untrained": UNTRAINED},
        code=digest("figures"),


use rule figure2 as supplement_depth with:
    output:
        report(
            f"{R}/figures/supplement_depth.png",
            caption="../report/supplement_depth.rst",
            category="Supplements",
            labels={"figure": "depth", "shows": "all networks"},
        ),
        f"{R}/figures/supplement_depth.svg",
    log:
        f"{R}/logs/figures/supplement_depth.log",
    params:
        settings={"figure": "supplement_depth", "networks": list(STUDY.networks), "title": "", "untrained": UNTRAINED},
        code=digest("figures"),


use rule figure2 as supplement_interventions with:
    output:
        report(
            f"{R}/figures/supplement_interventions.png",
            caption="../report/supplement_interventions.rst",
            category="Supplements",
            labels={"figure": "interventions", "shows": "all networks"},
        ),
        f"{R}/figures/supplement_interventions.svg",
    log:
        f"{R}/logs/figures/supplement_interventions.log",
    params:
        settings={
            "figure": "supplement_interventions",
            "networks": list(STUDY.networks),
            "title": "",
            "untrained": UNTRAINED,
        },
        code=digest("figures"),


rule reading_needing:
    input:
        path_to_table=rules.tables.output[0],
        path_to_groups=rules.group_tables.output[0] if controlled_grids() else [],
    output:
        report(
            f"{R}/figures/reading_needing.png",
            caption="../report/reading_needing.rst",
            category="Figures",
            labels={"figure": "reading against needing", "shows": "all networks"},
        ),
        f"{R}/figures/reading_needing.svg",
    log:
        f"{R}/logs/figures/reading_needing.log",
    params:
        settings={
            "figure": "reading_needing",
            "networks": list(STUDY.networks),
            "title": "",
            "untrained": UNTRAINED,
        },
        code=digest("figures"),
    run:
        from runtime import subprocesses

        tables = {name: str(path) for name, path in input.items() if path}
        subprocesses.run("jobs.figures", {**params.settings, **tables, "paths": list(output)}, log[0])


use rule reading_needing as supplement_controls with:
    output:
        report(
            f"{R}/figures/supplement_controls.png",
            caption="../report/supplement_controls.rst",
            category="Supplements",
            labels={"figure": "controls", "shows": "all networks"},
        ),
        f"{R}/figures/supplement_controls.svg",
    log:
        f"{R}/logs/figures/supplement_controls.log",
    params:
        settings={
            "figure": "supplement_controls",
            "networks": list(STUDY.networks),
            "title": "",
            "untrained": UNTRAINED,
        },
        code=digest("figures"),


use rule figure2 as supplement_claims with:
    input:
        rules.claims.output.path_to_claims,
    output:
        report(
            f"{R}/figures/supplement_claims.png",
            caption="../report/claims.rst",
            category="Claims",
            labels={"figure": "claims", "shows": "estimates and verdicts"},
        ),
        f"{R}/figures/supplement_claims.svg",
    log:
        f"{R}/logs/figures/supplement_claims.log",
    params:
        settings={"figure": "supplement_claims", "networks": list(STUDY.networks), "title": ""},
        code=digest("figures"),


use rule figure2 as importance_figure with:
    input:
        rules.faithfulness.output.path_to_faithfulness,
    output:
        report(
            f"{R}/figures/importance.png",
            caption="../report/importance.rst",
            category="Importance",
            labels={"figure": "measures", "shows": "all networks"},
        ),
        f"{R}/figures/importance.svg",
    log:
        f"{R}/logs/figures/importance.log",
    params:
        settings={"figure": "importance", "networks": list(STUDY.networks), "title": "", "untrained": UNTRAINED},
        code=digest("figures"),


use rule figure2 as supplement_curves with:
    input:
        rules.group_tables.output[0],
    output:
        report(
            f"{R}/figures/supplement_curves.png",
            caption="../report/importance.rst",
            category="Importance",
            labels={"figure": "curves", "shows": "all networks"},
        ),
        f"{R}/figures/supplement_curves.svg",
    log:
        f"{R}/logs/figures/supplement_curves.log",
    params:
        settings={
            "figure": "supplement_curves",
            "networks": list(STUDY.networks),
            "title": "",
            "untrained": UNTRAINED,
            "labels": {name: entry["label"] for name, entry in measures().items()},
        },
        code=digest("figures"),


# What is shown in trials of the occlusion task, of the first grid that it looks at.
rule stimuli:
    input:
        path_to_table=lambda w: of_task(rules.trials.output.path_to_trials)[0],
        path_to_stimuli=lambda w: of_task(rules.trials.output.path_to_stimuli)[0],
    output:
        report(
            f"{R}/figures/stimuli.png",
            caption="../report/stimuli.rst",
            category="Occlusion",
            labels={"figure": "stimuli", "shows": "trials"},
        ),
        f"{R}/figures/stimuli.svg",
    log:
        f"{R}/logs/figures/stimuli.log",
    params:
        settings={
            "figure": "stimuli",
            "networks": [],
            "title": " ".join(STUDY.occluded()[0]) if STUDY.occlusion else "",
        },
        code=digest("figures"),
    run:
        from runtime import subprocesses

        subprocesses.run("jobs.figures", {**params.settings, **input, "paths": list(output)}, log[0])


use rule figure2 as legibility_figure with:
    input:
        rules.legibility.output.path_to_legibility,
    output:
        report(
            f"{R}/figures/legibility.png",
            caption="../report/legibility_figure.rst",
            category="Occlusion",
            labels={"figure": "accuracy", "shows": "observers"},
        ),
        f"{R}/figures/legibility.svg",
    log:
        f"{R}/logs/figures/legibility.log",
    params:
        settings={"figure": "legibility", "networks": OCCLUDED, "title": "", "untrained": UNTRAINED},
        code=digest("figures"),


use rule figure2 as legibility_cells with:
    input:
        rules.legibility.output.path_to_legibility,
    output:
        report(
            f"{R}/figures/legibility_cells.png",
            caption="../report/legibility_cells.rst",
            category="Occlusion",
            labels={"figure": "accuracy", "shows": "cells"},
        ),
        f"{R}/figures/legibility_cells.svg",
    log:
        f"{R}/logs/figures/legibility_cells.log",
    params:
        settings={
            "figure": "legibility_cells",
            "networks": OCCLUDED,
            "title": "",
            "untrained": UNTRAINED,
            "bins": STUDY.bins,
        },
        code=digest("figures"),


use rule stimuli as legibility_gain with:
    input:
        path_to_table=rules.legibility.output.path_to_legibility,
        path_to_cells=rules.tables.output[0],
    output:
        report(
            f"{R}/figures/legibility_gain.png",
            caption="../report/legibility_gain.rst",
            category="Occlusion",
            labels={"figure": "gain", "shows": "cells"},
        ),
        f"{R}/figures/legibility_gain.svg",
    log:
        f"{R}/logs/figures/legibility_gain.log",
    params:
        settings={"figure": "legibility_gain", "networks": OCCLUDED, "title": "", "untrained": UNTRAINED},
        code=digest("figures"),


# All figures of the study.
FIGURES = [
    "figure1",
    "figure2",
    "figure3",
    "supplement_depth",
    "supplement_claims",
    *(["supplement_interventions"] if STUDY.interventions else []),
    *(["reading_needing"] if STUDY.interventions and STUDY.config["probes"]["crossfit"] else []),
    *(["supplement_controls"] if STUDY.interventions and controlled_grids() else []),
    *(["importance", "supplement_curves"] if STUDY.importance else []),
    *(["stimuli", "legibility", "legibility_cells", "legibility_gain"] if STUDY.occlusion else []),
    *(f"figure2_{network}" for network in STUDY.networks if network != STUDY.config["figures"]["network"]),
]
