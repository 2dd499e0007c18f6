# The ablation of one cell: the network's tail with the cell's units set to a value.


rule ablations:
    input:
        cells=rules.cells.output[0],
        images=rules.images.output[0],
        layers=rules.layers.output[0],
        weights=weights,
        baseline=f"{R}/baseline/{{network}}/{{class_id}}.parquet",
    output:
        f"{R}/ablations/{{network}}/{{layer}}/{{class_id}}/{{cell}}.parquet",
    log:
        f"{R}/logs/ablations/{{network}}/{{layer}}/{{class_id}}/{{cell}}.log",
    priority: 3
    params:
        settings=lambda w: {
            **STUDY.engine(STUDY.networks[w.network]),
            **STUDY.config["ablations"],
        },
        code=digest("ablations"),
    run:
        from jobs import ablations

        ablations.ablate(
            output[0], input, wildcards, **params.settings, device=DEVICE, log=log
        )
