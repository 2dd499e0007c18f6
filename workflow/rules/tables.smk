# The rows of all cells: gathered a layer at a time, with each image's part, and then for the study; those of other
# groups, of measures of importance and of redundancy, and the cells' Shapley values.


rule layer_tables:
    input:
        images=rules.images.output[0],
        layers=rules.layers.output[0],
        baselines=of_classes(BASELINE),
        cells=of_targets(rules.cells.output[0]),
        probes=of_cells(rules.probes.output[0]),
        ablations=of_cells(rules.ablations.output[0]),
        controls=controlled(rules.controls.output[0]),
    output:
        f"{R}/tables/{{network}}/{{layer}}.parquet",
    log:
        f"{R}/logs/tables/{{network}}/{{layer}}.log",
    priority: 4
    params:
        origins=origins_of_layer,
        code=digest("tables"),
    run:
        from jobs import tables

        logs.run(
            log[0],
            tables.gather_layer,
            path_to_table=output[0],
            **of_steps(wildcards.network, input),
            **wildcards,
            origins=params.origins,
            made=made("tables", params.origins),
        )


rule tables:
    input:
        [path for network in STUDY.networks.values() for path in of_layers(rules.layer_tables.output[0], network)],
    output:
        f"{R}/tables/cells.parquet",
    log:
        f"{R}/logs/tables/cells.log",
    params:
        code=digest("tables"),
    run:
        from jobs import tables

        logs.run(
            log[0], tables.gather_study, path_to_table=output[0], paths_to_layers=input, made=made("tables", {})
        )


rule group_tables:
    input:
        images=rules.images.output[0],
        controls=[rules.controls.output[0].format(network=n, layer=l, class_id=t) for n, l, t in controlled_grids()],
        pseudo=[rules.pseudo.output[0].format(network=n, layer=l, pseudo=p) for n, l, p in pseudo_grids()],
        rankings=of_ranked(rules.importance.output.path_to_rankings),
        layers=expand(rules.layers.output[0], network=STUDY.networks),
        baselines=[BASELINE.format(network=n.name, class_id=c) for n in STUDY.networks.values() for c in n.classes],
    output:
        f"{R}/tables/groups.parquet",
    log:
        f"{R}/logs/tables/groups.log",
    params:
        origins={network: origins(network, *group_steps()) for network in STUDY.networks},
        code=digest("tables"),
    run:
        from jobs import tables

        logs.run(
            log[0],
            tables.gather_groups,
            path_to_table=output[0],
            **of_grids(input),
            origins=params.origins,
            made=made("tables", params.origins),
        )


rule measure_tables:
    input:
        cells=[rules.cells.output[0].format(network=n, layer=l, class_id=t) for n, l, t in STUDY.ranked()],
        means=of_ranked(rules.importance.output.path_to_means),
        layers=expand(rules.layers.output[0], network=STUDY.networks),
    output:
        f"{R}/tables/measures.parquet",
    log:
        f"{R}/logs/tables/measures.log",
    params:
        origins={network: origins(network, "importance") for network in STUDY.networks if STUDY.importance},
        code=digest("tables"),
    run:
        from jobs import tables

        logs.run(
            log[0],
            tables.gather_measures,
            path_to_table=output[0],
            **of_measures(input),
            origins=params.origins,
            made=made("tables", params.origins),
        )


rule redundancy_table:
    input:
        redundancy=[rules.redundancy.output[0].format(network=n, layer=l, class_id=t) for n, l, t in redundancy_grids()],
        layers=expand(rules.layers.output[0], network=STUDY.networks),
    output:
        f"{R}/tables/redundancy.parquet",
    log:
        f"{R}/logs/tables/redundancy.log",
    params:
        origins={network: origins(network, "redundancy") for network in STUDY.networks if redundancy_grids()},
        code=digest("tables"),
    run:
        from jobs import tables

        logs.run(
            log[0],
            tables.gather_redundancy,
            path_to_table=output[0],
            **of_redundancy(input),
            origins=params.origins,
            made=made("tables", params.origins),
        )


rule shapley_tables:
    input:
        shapley=[rules.shapley.output[0].format(network=n, layer=l, class_id=t) for n, l, t in shapley_grids()],
        layers=expand(rules.layers.output[0], network=STUDY.networks),
    output:
        f"{R}/tables/shapley.parquet",
    log:
        f"{R}/logs/tables/shapley.log",
    params:
        origins=lambda w: {network: origins(network, "shapley") for network in STUDY.networks},
        code=digest("tables"),
    run:
        from jobs import tables

        logs.run(
            log[0],
            tables.gather_shapley,
            path_to_table=output[0],
            **of_shapley(input),
            origins=params.origins,
            made=made("tables", params.origins),
        )
