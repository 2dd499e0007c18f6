# The paper's claims, judged by the rules in workflow/claims.yaml.
REGISTRY = f"{ROOT}/workflow/claims.yaml"


rule claims:
    input:
        rules.tables.input,
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
            "targets": {network.name: network.targets for network in STUDY.networks.values()},
            "outputs": {network.name: network.outputs for network in STUDY.networks.values()},
            "models": {network.name: network.model for network in STUDY.networks.values()},
            "bins": STUDY.bins,
            "seed": STUDY.seed,
        },
        registry=file_digest(REGISTRY),
        code=digest("claims"),
    run:
        from jobs import claims

        logs.run(
            log[0],
            claims.judge,
            **output,
            paths_to_layers=by_network(input),
            path_to_registry=REGISTRY,
            **params.settings,
            made=made("claims", {**params.settings, "registry": params.registry}),
        )
