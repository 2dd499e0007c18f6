# The grid of a layer's units for a target.
MEANS = f"{R}/means/{{network}}/{{layer}}/{{class_id}}.parquet"


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

        cells.list_others(output[0], **params.settings, made=made("cells", params.settings), log=log)


rule cells:
    input:
        target=MEANS,
        others=of_others("means"),
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

        cells.assign(
            output[0],
            target=input.target,
            others=input.others,
            **params.settings,
            made=made("cells", params.settings),
            log=log,
        )
