# Measures of importance of a grid's units, and ablations of the units at the top of each; one job a grid.


rule importance:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_cells=rules.cells.output[0],
        path_to_baseline=BASELINE,
        paths_to_others=others_baselines,
        path_to_images=rules.images.output[0],
        path_to_layers=rules.layers.output[0],
        target=ACTIVATIONS,
        others=of_others(ACTIVATIONS),
    output:
        path_to_rankings=f"{R}/importance/{{network}}/{{layer}}/{{class_id}}/rankings.parquet",
        path_to_means=f"{R}/importance/{{network}}/{{layer}}/{{class_id}}/means.parquet",
    log:
        f"{R}/logs/importance/{{network}}/{{layer}}/{{class_id}}/rankings.log",
    priority: 3
    resources:
        mem_mb=4000,
    params:
        settings=lambda w: ranking(w.network),
        code=digest("importance"),
    run:
        from jobs import importance

        logs.run(
            log[0],
            importance.rank,
            **output,
            **ranked(input, wildcards, params),
            made=made("importance", params.settings),
        )


# Of figure 1's grid, and of any other that is asked for by name.
rule units:
    input:
        **rules.importance.input,
    output:
        path_to_units=f"{R}/importance/{{network}}/{{layer}}/{{class_id}}/units.parquet",
    log:
        f"{R}/logs/importance/{{network}}/{{layer}}/{{class_id}}/units.log",
    resources:
        mem_mb=4000,
    params:
        settings=lambda w: measuring(),
        code=digest("importance"),
    run:
        from jobs import importance

        logs.run(
            log[0],
            importance.list_units,
            **output,
            **ranked(input, wildcards, params),
            made=made("importance", params.settings),
        )
