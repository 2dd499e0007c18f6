# The probes of one cell. The priority finishes a grid's cells before the next grid is begun: they share what is in memory.


rule probes:
    input:
        cells=rules.cells.output[0],
        images=rules.images.output[0],
        target=ACTIVATIONS,
        others=activations_of_others,
    output:
        f"{R}/probes/{{network}}/{{layer}}/{{class_id}}/{{cell}}.parquet",
    log:
        f"{R}/logs/probes/{{network}}/{{layer}}/{{class_id}}/{{cell}}.log",
    priority: 3
    params:
        settings={"seed": STUDY.seed, **STUDY.config["probes"]},
        code=digest("probes"),
    run:
        from jobs import probes

        probes.probe(output[0], input, wildcards, **params.settings, log=log)
