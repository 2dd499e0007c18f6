# Shapley values of a grid's cells, all in one job, which shares the prefix of the grid's ablations.


rule shapley:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_cells=rules.cells.output[0],
        path_to_baseline=BASELINE,
        paths_to_others=others_baselines,
        path_to_images=rules.images.output[0],
        path_to_layers=rules.layers.output[0],
    output:
        f"{R}/shapley/{{network}}/{{layer}}/{{class_id}}.parquet",
    log:
        f"{R}/logs/shapley/{{network}}/{{layer}}/{{class_id}}.log",
    priority: 3
    resources:
        mem_mb=1500,
    params:
        settings=lambda w: valuing(w.network),
        code=digest("shapley"),
    run:
        from jobs import shapley

        logs.run(
            log[0],
            shapley.divide,
            path_to_shapley=output[0],
            **dividing(input, wildcards, params),
            made=made("shapley", params.settings),
        )
