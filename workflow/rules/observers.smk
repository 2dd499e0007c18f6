# What baselines and machine observers choose in the trials of the occlusion task.


rule observers:
    input:
        lambda w: [path for name in STUDY.siblings(w.network) for path in weights(STUDY.networks[name])],
        lambda w: weights(STUDY.networks[w.network]),
        path_to_trials=rules.trials.output.path_to_trials,
        path_to_stimuli=rules.trials.output.path_to_stimuli,
        path_to_extremes=rules.occlusions.output.path_to_extremes,
        path_to_sets=rules.occlusions.output.path_to_sets,
        path_to_units=rules.occlusions.output.path_to_units,
    output:
        path_to_observers=f"{R}/observers/{{network}}/{{layer}}/{{class_id}}/observers.parquet",
        path_to_interpretability=f"{R}/observers/{{network}}/{{layer}}/{{class_id}}/interpretability.parquet",
    log:
        f"{R}/logs/observers/{{network}}/{{layer}}/{{class_id}}.log",
    wildcard_constraints:
        network=one_of(dict.fromkeys(network for network, _, _ in STUDY.occluded())),
    resources:
        mem_mb=4000,
    params:
        settings=lambda w: observing(w.network),
        code=digest("observers"),
    run:
        from jobs import observers

        logs.run(
            log[0],
            observers.observe,
            **output,
            **of_occluded(input, wildcards, params),
            device=DEVICE,
            made=made("observers", params.settings),
        )
