# The networks: their layers, their weights and accuracy, and, of planted ones, the role of each unit.


rule layers:
    input:
        weights=lambda w: STUDY.networks[w.network].file or [],
    output:
        f"{R}/networks/{{network}}/layers.parquet",
    log:
        f"{R}/logs/layers/{{network}}.log",
    priority: 100
    params:
        settings=architecture,
        nodes=lambda w: STUDY.networks[w.network].nodes,
        code=digest("networks"),
    run:
        from jobs import networks

        logs.run(
            log[0],
            networks.list_layers,
            path_to_layers=output[0],
            **params.settings,
            **checked(wildcards),
            made=made("networks", params.settings),
        )


rule truth:
    output:
        TRUTH,
    log:
        f"{R}/logs/truth/{{network}}.log",
    wildcard_constraints:
        network=one_of(network.name for network in STUDY.networks.values() if network.planted),
    params:
        settings=lambda w: {"network": w.network, "model": STUDY.networks[w.network].model},
        code=digest("networks"),
    run:
        from jobs import networks

        logs.run(
            log[0],
            networks.list_roles,
            path_to_truth=output[0],
            **params.settings,
            made=made("networks", params.settings),
        )


rule networks:
    input:
        images=rules.images.output[0],
        layers=rules.layers.output[0],
    output:
        weights=STUDY.trained("{network}"),
        accuracy=ACCURACY,
    log:
        f"{R}/logs/networks/{{network}}.log",
    wildcard_constraints:
        network=one_of(network.name for network in STUDY.networks.values() if network.trained),
    priority: 100
    params:
        settings=training,
        code=digest("networks"),
    run:
        from runtime import subprocesses

        files = {"path_to_images": input.images, "path_to_accuracy": output.accuracy}
        given = {"job": "train"} | files | params.settings | {"made": made("networks", params.settings)}
        subprocesses.run("jobs.networks", given, log[0])
