# The study in few, large jobs, for a cluster: docs/cluster.md. Each job is a Snakemake run of its own over a part of the
# study, whose cells share one process there as they do on a laptop. What is finished is not made again.
import json
import sys


include: "rules/study.smk"


from runtime import files, patches
from runtime.code import digest

# The configuration as --configfile and --config made it, for the runs within.
CONFIG = f"{R}/cluster/config.json"
PYTHON = sys.executable
# To start a job takes Slurm, Snakemake and torch some twenty seconds, which so many cells' jobs can bear.
CELLS_A_JOB = 256
RUN = (
    # The log of a job that this one waits for is not to be cut off: each job appends its own.
    'echo "== $(date)" >> {log:q}; '
    "READOUT_PARTS={params.parts:q} {PYTHON:q} -m snakemake --snakefile {ROOT:q}/Snakefile --executor local --nolock"
    " --profile none --workflow-profile {ROOT:q}/profiles/default"
    " --cores {threads} --resources mem_mb={resources.mem_mb} --configfile {CONFIG:q} {params.options}"
    " -- {params.files:q} >> {log:q} 2>&1"
)


def plan(*steps):
    """What a part follows from: when any of it changes, the part is looked through again, and made where it lacks."""
    shared = {
        key: STUDY.config[key]
        for key in (
            "seed",
            "images",
            "others",
            "grid",
            "activations",
            "probes",
            "ablations",
            "controls",
            "importance",
            "occlusion",
        )
    }
    shared |= {"labels": STUDY.labels, "files": STUDY.listing_digest(), "code": [digest(step) for step in steps]}
    return lambda w: [shared, *(repr(n) for n in STUDY.networks.values() if n.name == w.get("network", n.name))]


def parts(network):
    """A network's layers as they share jobs, by the first layer of each: one a job, or more where targets are few."""
    count = -(-CELLS_A_JOB // (2 * len(network.targets) * len(STUDY.cells)))
    return {network.layers[i]: network.layers[i : i + count] for i in range(0, len(network.layers), count)}


def sharing(w):
    """The layers of a job by the first of them."""
    return parts(STUDY.networks[w.network])[w.layer]


def wanted(network, layer):
    """What a layer's job makes: its table, and what belongs to no cell of a target's grid."""
    drawn = STUDY.pseudo if layer in STUDY.controlled(network) else ()
    ranked = [target for n, at, target in STUDY.ranked() if (n, at) == (network, layer)]
    looked = ranked if STUDY.importance and STUDY.importance["redundancy"] else []
    divided = STUDY.networks[network].targets if STUDY.shapley else ()
    seen = [target for n, at, target in STUDY.occluded() if (n, at) == (network, layer)]
    return [
        f"{R}/tables/{network}/{layer}.parquet",
        *(f"{R}/pseudo/{network}/{layer}/{pseudo}.parquet" for pseudo in drawn),
        *(f"{R}/importance/{network}/{layer}/{target}/rankings.parquet" for target in ranked),
        *(f"{R}/redundancy/{network}/{layer}/{target}.parquet" for target in looked),
        *(f"{R}/shapley/{network}/{layer}/{target}.parquet" for target in divided),
        *(f"{R}/trials/{network}/{layer}/{target}/trials.parquet" for target in seen),
    ]


rule all:
    default_target: True
    input:
        [f"{R}/cluster/layers/{n.name}/{layer}.done" for n in STUDY.networks.values() for layer in parts(n)],
    log:
        f"{R}/logs/cluster/all.log",
    conda:
        "../envs/study.yaml"
    params:
        parts="[]",
        options="",
        files="all",
    shell:
        RUN


# On the machine that submits: it downloads what is to be downloaded, and refuses early what would fail late.
localrules:
    begin,


use rule all as begin with:
    input:
        # The user's files of weights: whatever follows is looked through again when one changes.
        [network.file for network in STUDY.networks.values() if network.file],
    output:
        touch(f"{R}/cluster/begin.done"),
    log:
        f"{R}/logs/cluster/begin.log",
    retries: 0
    params:
        parts="[]",
        plan=plan("images", "networks", "cells"),
        # Whether there is a GPU shows where the networks run.
        options="--config device=auto",
        files=[f"{R}/images.parquet", *([f"{R}/occlusions/pool.parquet"] if STUDY.occlusion else [])]
        + expand([f"{R}/networks/{{n}}/layers.parquet", f"{R}/others/{{n}}.parquet"], n=STUDY.networks)
        + [f"{R}/networks/{network.name}/truth.parquet" for network in STUDY.networks.values() if network.planted],


use rule all as network with:
    input:
        rules.begin.output,
    output:
        touch(f"{R}/cluster/networks/{{network}}.done"),
    log:
        f"{R}/logs/cluster/networks/{{network}}.log",
    params:
        parts=lambda w: json.dumps([f"networks/{w.network}"]),
        plan=plan("networks", "activations"),
        options="",
        files=lambda w: [f"extracted_{w.network}", f"{R}/networks/{w.network}/accuracy.parquet"],


# Its run may make cells and nothing before them: the other layers' runs read the activations at the same time.
use rule all as layers with:
    input:
        rules.network.output,
    output:
        touch(f"{R}/cluster/layers/{{network}}/{{layer}}.done"),
    log:
        f"{R}/logs/cluster/layers/{{network}}/{{layer}}.log",
    params:
        parts=lambda w: json.dumps([f"layers/{w.network}/{layer}" for layer in sharing(w)]),
        plan=plan("tables", "trials"),
        options="--allowed-rules cells probes ablations controls shapley pseudo importance redundancy layer_tables"
        " image_sets occlusions windows visualisations trials",
        files=lambda w: [path for layer in sharing(w) for path in wanted(w.network, layer)],


onstart:
    claim(cluster=True)
    patches.apply(workflow)
    with files.whole(CONFIG) as partial:
        partial.write_text(json.dumps(config))


onsuccess:
    sweep()
    patches.say(headline())


onerror:
    sweep()
