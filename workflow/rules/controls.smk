# Groups beside the cells of a grid, all in one job, which shares the prefix of the grid's ablations.


rule controls:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_cells=rules.cells.output[0],
        path_to_baseline=BASELINE,
        paths_to_others=others_baselines,
        path_to_images=rules.images.output[0],
        path_to_layers=rules.layers.output[0],
        truth=truth,
    output:
        f"{R}/controls/{{network}}/{{layer}}/{{class_id}}.parquet",
    log:
        f"{R}/logs/controls/{{network}}/{{layer}}/{{class_id}}.log",
    priority: 3
    resources:
        mem_mb=1500,
    params:
        settings=lambda w: control(w.network),
        code=digest("controls"),
    run:
        from jobs import controls

        logs.run(
            log[0],
            controls.control,
            path_to_controls=output[0],
            **controlling(input, wildcards, params),
            made=made("controls", params.settings),
        )
