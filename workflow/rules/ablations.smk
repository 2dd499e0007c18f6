# The ablation of one cell: the network's tail with the cell's units set to a value.
# Few inputs, as for the probes: the images and the layers stand behind the baseline.


rule ablations:
    input:
        cells=rules.cells.output[0],
        weights=lambda w: weights(STUDY.networks[w.network]),
        baseline=f"{R}/baseline/{{network}}/{{class_id}}.parquet",
    output:
        f"{R}/ablations/{{network}}/{{layer}}/{{class_id}}/{{cell}}.parquet",
    log:
        f"{R}/logs/ablations/{{network}}/{{layer}}/{{class_id}}/{{cell}}.log",
    priority: 3
    resources:
        mem_mb=1500,
    params:
        images=rules.images.output[0],
        layers=lambda w: f"{R}/networks/{w.network}/layers.parquet",
        settings=ablation,
        code=digest("ablations"),
    run:
        from jobs import ablations

        ablations.ablate(
            output[0],
            input,
            params.images,
            params.layers,
            wildcards,
            **params.settings,
            device=DEVICE,
            made=made("ablations", params.settings),
            log=log,
        )
