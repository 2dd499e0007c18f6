# The ablation of one cell, or of another group that is asked for by name: the network's tail with its units replaced.


rule ablations:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_cells=rules.cells.output[0],
        path_to_baseline=BASELINE,
        paths_to_others=others_baselines,
        path_to_images=rules.images.output[0],
        path_to_layers=rules.layers.output[0],
    output:
        f"{R}/ablations/{{network}}/{{layer}}/{{class_id}}/{{cell}}.parquet",
    log:
        f"{R}/logs/ablations/{{network}}/{{layer}}/{{class_id}}/{{cell}}.log",
    priority: 3
    resources:
        mem_mb=1500,
    params:
        settings=lambda w: ablation(w.network),
        group=group,
        code=digest("ablations"),
    run:
        from jobs import ablations

        logs.run(
            log[0],
            ablations.ablate,
            path_to_ablation=output[0],
            **ablating(input, wildcards, params),
            made=made_of_group("ablations", params),
        )
