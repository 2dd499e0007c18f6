# The grid of a layer's units for a target.


rule others:
    output:
        f"{R}/others/{{network}}.parquet",
    log:
        f"{R}/logs/others/{{network}}.log",
    params:
        settings=lambda w: {"others": {t: STUDY.others(w.network, t) for t in STUDY.networks[w.network].targets}},
        code=digest("cells"),
    run:
        from jobs import cells

        logs.run(
            log[0],
            cells.list_others,
            path_to_others=output[0],
            **params.settings,
            made=made("cells", params.settings),
        )


rule cells:
    input:
        path_to_target=MEANS,
        paths_to_others=of_others(MEANS),
    output:
        f"{R}/cells/{{network}}/{{layer}}/{{class_id}}.parquet",
    log:
        f"{R}/logs/cells/{{network}}/{{layer}}/{{class_id}}.log",
    priority: 2
    resources:
        mem_mb=500,
    params:
        settings=GRID,
        code=digest("cells"),
    run:
        from jobs import cells

        logs.run(
            log[0],
            cells.assign,
            path_to_cells=output[0],
            **input,
            layer=wildcards.layer,
            **params.settings,
            made=made("cells", params.settings),
        )
