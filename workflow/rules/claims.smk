# The paper's claims, judged by the rules in workflow/claims.yaml.
REGISTRY = f"{ROOT}/workflow/claims.yaml"


rule claims:
    input:
        layers=rules.tables.input,
        groups=rules.group_tables.output if STUDY.pseudo else [],
    output:
        path_to_claims=f"{R}/claims.parquet",
        path_to_page=report(
            f"{R}/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"figure": "table", "shows": "estimates and verdicts"},
        ),
    log:
        f"{R}/logs/claims.log",
    params:
        settings={
            **STUDY.config["claims"],
            "networks": {
                network.name: {
                    "targets": network.targets,
                    "outputs": network.outputs,
                    "model": network.model,
                    "untrained": network.untrained,
                }
                for network in STUDY.networks.values()
            },
            "bins": STUDY.bins,
            "dataset": STUDY.dataset,
        },
        registry=file_digest(REGISTRY),
        code=digest("claims"),
    run:
        from jobs import claims

        logs.run(
            log[0],
            claims.judge,
            **output,
            **of_networks(input),
            path_to_registry=REGISTRY,
            **params.settings,
            made=made("claims", {**params.settings, "registry": params.registry}),
        )
