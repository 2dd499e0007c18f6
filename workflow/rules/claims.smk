# The paper's claims, judged by the rules in workflow/claims.yaml.
REGISTRY = f"{ROOT}/workflow/claims.yaml"


rule claims:
    input:
        layers=rules.tables.input,
    output:
        table=f"{R}/claims.parquet",
        page=report(
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

        paths = iter(input.layers)
        logs.run(
            log[0],
            claims.judge,
            path_to_claims=output.table,
            path_to_page=output.page,
            paths_to_layers={n.name: [next(paths) for _ in n.layers] for n in STUDY.networks.values()},
            path_to_registry=REGISTRY,
            **params.settings,
            made=made("claims", {**params.settings, "registry": params.registry}),
        )
