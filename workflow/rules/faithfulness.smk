# Which measure of importance finds the units that each network needs: a table, and a page for readers.
MEASURES = f"{ROOT}/workflow/measures.yaml"


rule faithfulness:
    input:
        path_to_groups=rules.group_tables.output[0],
        path_to_measures=rules.measure_tables.output[0],
        path_to_cells=rules.tables.output[0],
    output:
        path_to_faithfulness=f"{R}/faithfulness.parquet",
        path_to_page=report(
            f"{R}/faithfulness.html",
            caption="../report/importance.rst",
            category="Importance",
            labels={"figure": "table", "shows": "measures of importance"},
        ),
    log:
        f"{R}/logs/faithfulness.log",
    params:
        settings=comparing(),
        registry=file_digest(MEASURES),
        code=digest("faithfulness"),
    run:
        from jobs import faithfulness

        logs.run(
            log[0],
            faithfulness.compare,
            **output,
            **input,
            path_to_registry=MEASURES,
            **params.settings,
            made=made("faithfulness", {**params.settings, "registry": params.registry}),
        )
