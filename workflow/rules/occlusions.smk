# Units of a grid, the images that drive them, and the squares that they mind most and least.


rule pool:
    input:
        path_to_images=rules.images.output[0],
    output:
        path_to_pool=f"{R}/occlusions/pool.parquet",
    log:
        f"{R}/logs/occlusions/pool.log",
    params:
        settings=pooling(),
        files=STUDY.listing_digest(),
        code=digest("occlusions"),
    run:
        from jobs import occlusions

        logs.run(
            log[0],
            occlusions.list_pool,
            **output,
            **input,
            **params.settings,
            made=made("occlusions", params.settings, files=params.files),
        )


rule occlusions:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_cells=rules.cells.output[0],
        path_to_pool=rules.pool.output[0],
        path_to_layers=rules.layers.output[0],
    output:
        path_to_units=f"{R}/occlusions/{{network}}/{{layer}}/{{class_id}}/units.parquet",
        path_to_sets=f"{R}/occlusions/{{network}}/{{layer}}/{{class_id}}/sets.parquet",
        path_to_extremes=f"{R}/occlusions/{{network}}/{{layer}}/{{class_id}}/extremes.parquet",
    log:
        f"{R}/logs/occlusions/{{network}}/{{layer}}/{{class_id}}.log",
    wildcard_constraints:
        network=one_of(dict.fromkeys(network for network, _, _ in STUDY.occluded())),
    resources:
        mem_mb=4000,
    params:
        settings=lambda w: occluding(w.network),
        code=digest("occlusions"),
    run:
        from jobs import occlusions

        logs.run(
            log[0],
            occlusions.occlude,
            **output,
            **of_occluded(input, wildcards, params),
            device=DEVICE,
            made=made("occlusions", params.settings),
        )
