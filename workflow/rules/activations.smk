# The activations of a class in all layers of a network, from one forward pass, their means, and the baseline.
# mem_mb, here and elsewhere, was measured with VGG16 at 224 pixels; the process itself takes 1.5 to 4 GB beside.
# One rule per network, since the networks' layers, and with them the outputs, differ.
for network in STUDY.networks.values():

    rule:
        name:
            f"activations_{network.name}"
        input:
            weights(network),
            path_to_images=rules.images.output[0],
            path_to_layers=rules.layers.output[0].format(network=network.name),
        output:
            activations=of_layers(ACTIVATIONS, network),
            means=of_layers(MEANS, network),
            baseline=BASELINE.format(network=network.name, class_id="{class_id}"),
        log:
            f"{R}/logs/activations/{network.name}/{{class_id}}.log",
        priority: 1
        resources:
            mem_mb=2000,
        params:
            network=network.name,
            settings={"source": STUDY.source(network), **EXTRACTION},
            code=digest("activations"),
        run:
            from jobs import activations

            logs.run(
                log[0],
                activations.extract,
                **input,
                **by_layer(params.network, output),
                **wildcards,
                **params.settings,
                device=DEVICE,
                made=made("activations", params.settings),
            )

    # All of a network, for the runs within a cluster's jobs: workflow/cluster.smk.
    rule:
        name:
            f"extracted_{network.name}"
        input:
            expand(
                [
                    *of_layers(ACTIVATIONS, network),
                    *of_layers(MEANS, network),
                    BASELINE.format(network=network.name, class_id="{class_id}"),
                ],
                class_id=network.classes,
            ),


rule accuracy:
    input:
        of_classes(BASELINE),
    output:
        ACCURACY,
    log:
        f"{R}/logs/accuracy/{{network}}.log",
    wildcard_constraints:
        network=one_of(network.name for network in STUDY.networks.values() if not network.trained),
    params:
        code=digest("activations"),
    run:
        from jobs import activations

        logs.run(
            log[0],
            activations.summarise,
            path_to_accuracy=output[0],
            paths_to_baselines=input,
            made=made("activations", {}),
        )
