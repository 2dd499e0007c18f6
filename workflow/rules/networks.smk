# The networks: their layers, and their weights and accuracy.


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
        code=digest("networks"),
    run:
        from jobs import networks

        carried = made("networks", params.settings)
        networks.list_layers(output[0], **params.settings, **checked(wildcards), made=carried, log=log)


rule networks:
    input:
        images=rules.images.output[0],
        layers=rules.layers.output[0],
    output:
        weights=f"{R}/networks/{{network}}/weights.pt",
        accuracy=f"{R}/networks/{{network}}/accuracy.parquet",
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

        files = {"path_to_images": input.images, "accuracy": output.accuracy}
        subprocesses.run("jobs.networks", files | params.settings, log[0], made("networks", params.settings))


rule accuracy:
    input:
        lambda w: [f"{R}/baseline/{w.network}/{c}.parquet" for c in STUDY.networks[w.network].classes],
    output:
        f"{R}/networks/{{network}}/accuracy.parquet",
    log:
        f"{R}/logs/accuracy/{{network}}.log",
    wildcard_constraints:
        network=one_of(network.name for network in STUDY.networks.values() if not network.trained),
    params:
        code=digest("activations"),
    run:
        from jobs import activations

        activations.summarise(output[0], baselines=input, made=made("activations", {}), log=log)
