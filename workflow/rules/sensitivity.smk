# The corrected verdicts under other settings: `snakemake sensitivity`. Each variant is a study of its own, made by a
# Snakemake run within a job, as far as its claims. No part of `all`.


# While the DAG is built, a refusal would come with a traceback.
if "sensitivity" in sys.argv:
    variants()


wildcard_constraints:
    variant="base|(bins|images)_[0-9]+|others_(random_10|all)",


rule sensitivity:
    input:
        f"{R}/sensitivity/verdicts.parquet",
        f"{R}/figures/sensitivity.png",
        f"{R}/figures/sensitivity.svg",


rule variant_configs:
    input:
        expand(rules.layers.output[0], network=STUDY.networks),
    output:
        f"{R}/sensitivity/{{variant}}/config.json",
    log:
        f"{R}/logs/sensitivity/{{variant}}/config.log",
    # What cannot be studied is refused before the first variant runs.
    priority: 100
    params:
        config=lambda w: to_run()[w.variant],
        code=digest("sensitivity"),
    run:
        from jobs import sensitivity

        logs.run(
            log[0],
            sensitivity.write_config,
            path_to_config=output[0],
            paths_to_layers=dict(zip(STUDY.networks, input, strict=True)),
            config=params.config,
        )


rule variants:
    input:
        # Those that the study trains: its variants have the same networks.
        [STUDY.trained(network.name) for network in STUDY.networks.values() if network.trained],
        config=rules.variant_configs.output[0],
    output:
        f"{R}/sensitivity/{{variant}}/claims.parquet",
    log:
        f"{R}/logs/sensitivity/{{variant}}/study.log",
    # One after the other: each has all cores that there are, which are fewer.
    threads: 1024
    params:
        study=lambda w: to_run()[w.variant]["study"],
        plan=following,
    run:
        from jobs import sensitivity

        sensitivity.study(output[0], input.config, params.study, threads, patches.limits(workflow), log[0])


rule sensitivity_tables:
    input:
        lambda w: [rules.variants.output[0].format(variant=name) for name in to_run()],
    output:
        f"{R}/sensitivity/verdicts.parquet",
    log:
        f"{R}/logs/sensitivity/verdicts.log",
    params:
        settings=lambda w: {"variants": [variant.about for variant in variants().values()]},
        code=digest("sensitivity"),
    run:
        from jobs import sensitivity

        logs.run(
            log[0],
            sensitivity.gather,
            path_to_verdicts=output[0],
            **of_variants(input),
            **params.settings,
            made=made("sensitivity", params.settings),
        )


use rule figure2 as sensitivity_figure with:
    input:
        rules.sensitivity_tables.output[0],
    output:
        report(
            f"{R}/figures/sensitivity.png",
            caption="../report/sensitivity.rst",
            category="Sensitivity",
            labels={"figure": "sensitivity", "shows": "corrected verdicts under other settings"},
        ),
        f"{R}/figures/sensitivity.svg",
    log:
        f"{R}/logs/figures/sensitivity.log",
    params:
        settings={"figure": "sensitivity", "networks": list(STUDY.networks), "title": STUDY.name},
        code=digest("figures"),
