# What baselines and machine observers choose in the trials of a network's units.


rule observers:
    input:
        lambda w: [path for name in STUDY.siblings(w.network) for path in weights(STUDY.networks[name])],
        lambda w: weights(STUDY.networks[w.network]),
        trials=lambda w: of_task(rules.trials.output.path_to_trials, w.network),
        stimuli=lambda w: of_task(rules.trials.output.path_to_stimuli, w.network),
        extremes=lambda w: of_task(rules.occlusions.output.path_to_extremes, w.network),
        sets=lambda w: of_task(rules.image_sets.output.path_to_sets, w.network),
        units=lambda w: of_task(rules.image_sets.output.path_to_units, w.network),
    output:
        path_to_observers=f"{R}/observers/{{network}}/observers.parquet",
        path_to_interpretability=f"{R}/observers/{{network}}/interpretability.parquet",
    log:
        f"{R}/logs/observers/{{network}}.log",
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
            **of_answers(input, wildcards),
            **params.settings,
            device=DEVICE,
            made=made("observers", params.settings),
        )
