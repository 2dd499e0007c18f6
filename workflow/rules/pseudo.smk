# Pseudo-targets: images drawn from all classes, as a negative control; one job for each and layer.


rule pseudo:
    input:
        lambda w: weights(STUDY.networks[w.network]),
        path_to_images=rules.images.output[0],
        path_to_layers=rules.layers.output[0],
        activations=of_pool(ACTIVATIONS),
        means=of_pool(MEANS),
        baselines=of_pool(BASELINE),
    output:
        f"{R}/pseudo/{{network}}/{{layer}}/{{pseudo}}.parquet",
    log:
        f"{R}/logs/pseudo/{{network}}/{{layer}}/{{pseudo}}.log",
    priority: 3
    resources:
        mem_mb=1500,
    params:
        settings=lambda w: drawing(w.network),
        code=digest("pseudo"),
    run:
        from jobs import pseudo

        logs.run(
            log[0],
            pseudo.control,
            path_to_pseudo=output[0],
            **of_all(wildcards.network, input),
            **wildcards,
            **params.settings,
            device=DEVICE,
            made=made("pseudo", params.settings),
        )
