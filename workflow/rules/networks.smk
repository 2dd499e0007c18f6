# The networks: their layers, and their weights and accuracy.
import json

TRAINED = [network.name for network in STUDY.networks.values() if network.trained]
GIVEN = [network.name for network in STUDY.networks.values() if not network.trained]


def architecture(wildcards):
    """What it takes to build a network."""
    network = STUDY.networks[wildcards.network]
    return {"model": network.model, "outputs": network.outputs}


def weights(wildcards):
    """The file of a network's weights: trained here, or the user's."""
    given = STUDY.networks[wildcards.network].weights
    return given or f"{R}/networks/{wildcards.network}/weights.pt"


def recipe(wildcards):
    """The arguments of a training, as JSON."""
    network = STUDY.networks[wildcards.network]
    return json.dumps(
        {
            **architecture(wildcards),
            **STUDY.image_settings(),
            "recipe": {"seed": STUDY.seed, **network.training},
            "transform": network.transform,
        }
    )


rule layers:
    output:
        f"{R}/networks/{{network}}/layers.parquet",
    log:
        f"{R}/logs/layers/{{network}}.log",
    params:
        architecture=architecture,
        size=lambda w: STUDY.networks[w.network].size,
        expected=lambda w: STUDY.networks[w.network].known_layers,
        code=digest("networks"),
    run:
        from jobs import networks

        networks.list_layers(
            output[0],
            **params.architecture,
            size=params.size,
            expected=params.expected,
            log=log,
        )


rule networks:
    input:
        images=rules.images.output[0],
    output:
        weights=f"{R}/networks/{{network}}/weights.pt",
        accuracy=f"{R}/networks/{{network}}/accuracy.parquet",
    log:
        f"{R}/logs/networks/{{network}}.log",
    wildcard_constraints:
        network="|".join(map(re.escape, TRAINED)) or "(?!)",
    priority: 100
    conda:
        "../../envs/study.yaml"
    params:
        settings=recipe,
        code=digest("networks"),
    shell:
        "PYTHONPATH={PACKAGES:q} {sys.executable:q} -m jobs.networks --images {input.images:q}"
        " --weights {output.weights:q} --accuracy {output.accuracy:q} --settings {params.settings:q} > {log:q} 2>&1"


rule accuracy:
    input:
        lambda w: [f"{R}/baseline/{w.network}/{c}.parquet" for c in STUDY.networks[w.network].classes],
    output:
        f"{R}/networks/{{network}}/accuracy.parquet",
    log:
        f"{R}/logs/accuracy/{{network}}.log",
    wildcard_constraints:
        network="|".join(map(re.escape, GIVEN)) or "(?!)",
    params:
        code=digest("activations"),
    run:
        from jobs import activations

        activations.summarise(output[0], baselines=input, log=log)
