# What is shown in each trial of the occlusion task, and the pictures themselves.


rule trials:
    input:
        path_to_units=rules.image_sets.output.path_to_units,
        path_to_sets=rules.image_sets.output.path_to_sets,
        path_to_extremes=rules.occlusions.output.path_to_extremes,
        windows=blurred,
        visualisations=pictured,
    output:
        path_to_trials=f"{R}/trials/{{network}}/{{layer}}/{{class_id}}/trials.parquet",
        path_to_stimuli=f"{R}/trials/{{network}}/{{layer}}/{{class_id}}/stimuli.parquet",
    log:
        f"{R}/logs/trials/{{network}}/{{layer}}/{{class_id}}.log",
    params:
        settings=lambda w: showing(w.network),
        code=digest("trials"),
    run:
        from jobs import trials

        logs.run(
            log[0],
            trials.assemble,
            **output,
            **of_trials(input, wildcards, params),
            made=made("trials", params.settings),
        )
