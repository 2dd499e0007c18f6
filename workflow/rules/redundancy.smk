# Where a class can still be read when a grid's last cell, or a random group, is ablated.


rule redundancy:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_cells=rules.cells.output[0],
        path_to_baseline=BASELINE,
        paths_to_others=others_baselines,
        path_to_images=rules.images.output[0],
        path_to_layers=rules.layers.output[0],
        truth=truth,
    output:
        f"{R}/redundancy/{{network}}/{{layer}}/{{class_id}}.parquet",
    log:
        f"{R}/logs/redundancy/{{network}}/{{layer}}/{{class_id}}.log",
    wildcard_constraints:
        network=one_of(dict.fromkeys(network for network, _, _ in redundancy_grids())),
    priority: 3
    resources:
        mem_mb=2500,
    params:
        settings=lambda w: looking(w.network),
        code=digest("redundancy"),
    run:
        from jobs import redundancy

        logs.run(
            log[0],
            redundancy.look,
            path_to_redundancy=output[0],
            **controlling(input, wildcards, params),
            made=made("redundancy", params.settings),
        )
