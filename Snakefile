# The study, in the order of its steps. Configuration: config.yaml; documentation: docs/.
import json
import os
from functools import cache

# One thread per job, whatever --cores is: set before any library reads it. The parallelism is in the jobs.
os.environ |= dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], "1")


include: "workflow/rules/study.smk"


from inputs.sensitivity import of_study
from readout.conditions import SYNTHETIC
from runtime import locks, patches, process, provenance
from runtime.code import digest, file_digest
from runtime.progress import Progress

patches.thin(Progress(), headline)

# Before the plan is made: what another job of the same part still makes need not be made here. Taken out of the
# environment, so that no process of this run claims it again.
if (parts := os.environ.pop("READOUT_PARTS", None)) is not None:
    with told():
        locks.claim_parts(R, json.loads(parts))


report: "workflow/report/workflow.rst"


include: "workflow/rules/settings.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/networks.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/cells.smk"
include: "workflow/rules/probes.smk"
include: "workflow/rules/ablations.smk"
include: "workflow/rules/controls.smk"
include: "workflow/rules/shapley.smk"
include: "workflow/rules/pseudo.smk"
include: "workflow/rules/importance.smk"
include: "workflow/rules/redundancy.smk"
include: "workflow/rules/occlusions.smk"
include: "workflow/rules/visualisations.smk"
include: "workflow/rules/trials.smk"
include: "workflow/rules/observers.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/faithfulness.smk"
include: "workflow/rules/legibility.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/sensitivity.smk"


rule all:
    default_target: True
    input:
        expand(ACCURACY, network=STUDY.networks),
        [TRUTH.format(network=network.name) for network in STUDY.networks.values() if network.planted],
        expand(rules.others.output, network=STUDY.networks),
        rules.tables.output,
        rules.group_tables.output if has_groups() else [],
        rules.faithfulness.output if STUDY.importance else [],
        rules.units.output.path_to_units.format(**FIRST, class_id=FIRST["target"]) if STUDY.importance else [],
        rules.redundancy_table.output if redundancy_grids() else [],
        rules.shapley_tables.output if STUDY.shapley else [],
        rules.legibility.output if STUDY.occlusion else [],
        rules.claims.output,
        expand(f"{R}/figures/{{name}}.{{suffix}}", name=FIGURES, suffix=["png", "svg"]),


onsuccess:
    sweep()
    patches.say(headline())


onerror:
    sweep()


onstart:
    claim()
    # Once, here: the jobs' threads must not import torch at the same time, and a heap is one for all threads only
    # where it is set before they begin.
    import jobs.claims

    process.prepare()
    patches.apply(workflow)
