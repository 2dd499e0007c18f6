# Pictures made to drive a unit: feature visualisations of the units of a cell that the occlusion task looks at.


rule visualisations:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_units=rules.image_sets.output.path_to_units,
        path_to_sets=rules.image_sets.output.path_to_sets,
        path_to_layers=rules.layers.output[0],
    output:
        path_to_visualisations=f"{R}/visualisations/{{network}}/{{layer}}/{{class_id}}/{{cell}}.parquet",
    log:
        f"{R}/logs/visualisations/{{network}}/{{layer}}/{{class_id}}/{{cell}}.log",
    resources:
        mem_mb=4000,
    params:
        settings=lambda w: visualising(w.network),
        code=digest("visualisations"),
    run:
        from jobs import visualisations

        logs.run(
            log[0],
            visualisations.synthesise,
            **output,
            **of_occluded(input, wildcards, params),
            cell=wildcards.cell,
            device=DEVICE,
            made=made("visualisations", params.settings),
        )
