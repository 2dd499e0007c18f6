# How well observers see what drives units, and whether units that matter are easier to see: a table, and a page.
RESPONSES = f"{R}/page/responses.parquet"
OCCLUDED = list(dict.fromkeys(network for network, _, _ in STUDY.occluded()))


rule legibility:
    input:
        observers=[rules.observers.output.path_to_observers.format(network=network) for network in OCCLUDED],
        interpretability=[rules.observers.output.path_to_interpretability.format(network=n) for n in OCCLUDED],
        units=lambda w: of_task(rules.image_sets.output.path_to_units),
        extremes=lambda w: of_task(rules.occlusions.output.path_to_extremes),
        visualisations=lambda w: all_pictured(),
        path_to_cells=rules.tables.output[0],
        # What people answered, where `python -m commands.ingest` has put it.
        responses=lambda w: [path for path in [RESPONSES] if os.path.exists(path)],
    output:
        path_to_legibility=f"{R}/legibility.parquet",
        path_to_page=report(
            f"{R}/legibility.html",
            caption="../report/legibility.rst",
            category="Occlusion",
            labels={"figure": "table", "shows": "observers"},
        ),
    log:
        f"{R}/logs/legibility.log",
    params:
        settings=lambda w: judging(),
        origins={network: origins(network, "observers") for network in OCCLUDED},
        code=digest("legibility"),
    run:
        from jobs import legibility

        logs.run(
            log[0],
            legibility.judge,
            **output,
            **of_observers(input),
            **params.settings,
            origins=params.origins,
            made=made("legibility", params.settings),
        )
