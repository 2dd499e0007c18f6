# The rows of all cells: gathered a layer at a time, with each image's part, and then for the study.


rule layer_tables:
    input:
        layers=rules.layers.output[0],
        cells=lambda w: [
            f"{R}/cells/{w.network}/{w.layer}/{target}.parquet" for target in STUDY.networks[w.network].targets
        ],
        probes=of_layer("probes"),
        ablations=of_layer("ablations"),
    output:
        f"{R}/tables/{{network}}/{{layer}}.parquet",
    log:
        f"{R}/logs/tables/{{network}}/{{layer}}.log",
    priority: 4
    params:
        origins=origins,
        code=digest("tables"),
    run:
        from jobs import tables

        carried = made("tables", params.origins)
        tables.gather_layer(output[0], input, wildcards.layer, origins=params.origins, made=carried, log=log)


rule tables:
    input:
        [f"{R}/tables/{n.name}/{layer}.parquet" for n in STUDY.networks.values() for layer in n.layers],
    output:
        f"{R}/tables/cells.parquet",
    log:
        f"{R}/logs/tables/cells.log",
    params:
        code=digest("tables"),
    run:
        from jobs import tables

        tables.gather_study(output[0], layers=input, made=made("tables", {}), log=log)
