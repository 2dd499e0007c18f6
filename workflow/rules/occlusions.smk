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


rule image_sets:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_cells=rules.cells.output[0],
        path_to_pool=rules.pool.output[0],
        path_to_layers=rules.layers.output[0],
    output:
        path_to_units=f"{R}/occlusions/{{network}}/{{layer}}/{{class_id}}/units.parquet",
        path_to_sets=f"{R}/occlusions/{{network}}/{{layer}}/{{class_id}}/sets.parquet",
    log:
        f"{R}/logs/occlusions/{{network}}/{{layer}}/{{class_id}}/sets.log",
    wildcard_constraints:
        network=one_of(dict.fromkeys(network for network, _, _ in STUDY.occluded())),
    resources:
        mem_mb=4000,
    params:
        settings=lambda w: listing(w.network),
        code=digest("occlusions"),
    run:
        from jobs import occlusions

        logs.run(
            log[0],
            occlusions.draw,
            **output,
            **of_occluded(input, wildcards, params),
            device=DEVICE,
            made=made("occlusions", params.settings),
        )


rule occlusions:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_units=rules.image_sets.output.path_to_units,
        path_to_sets=rules.image_sets.output.path_to_sets,
        path_to_layers=rules.layers.output[0],
    output:
        path_to_extremes=f"{R}/occlusions/{{network}}/{{layer}}/{{class_id}}/extremes.parquet",
    log:
        f"{R}/logs/occlusions/{{network}}/{{layer}}/{{class_id}}/extremes.log",
    resources:
        mem_mb=4000,
    params:
        settings=lambda w: occluding(w.network, "side", "stride", "refine"),
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


# Of the condition `blur`.
rule windows:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_units=rules.image_sets.output.path_to_units,
        path_to_sets=rules.image_sets.output.path_to_sets,
        path_to_layers=rules.layers.output[0],
    output:
        path_to_windows=f"{R}/occlusions/{{network}}/{{layer}}/{{class_id}}/windows.parquet",
    log:
        f"{R}/logs/occlusions/{{network}}/{{layer}}/{{class_id}}/windows.log",
    resources:
        mem_mb=4000,
    params:
        settings=lambda w: occluding(w.network, "side", "stride", "blur"),
        code=digest("occlusions"),
    run:
        from jobs import occlusions

        logs.run(
            log[0],
            occlusions.look,
            **output,
            **of_occluded(input, wildcards, params),
            device=DEVICE,
            made=made("occlusions", params.settings),
        )
