# The probes of one cell, or of another group that is asked for by name. The priority puts cells before further grids;
# the order of cells is that of workflow/runtime/patches.py.


rule probes:
    input:
        path_to_cells=rules.cells.output[0],
        path_to_layers=rules.layers.output[0],
        path_to_target=ACTIVATIONS,
        paths_to_others=of_others(ACTIVATIONS),
    output:
        f"{R}/probes/{{network}}/{{layer}}/{{class_id}}/{{cell}}.parquet",
    log:
        f"{R}/logs/probes/{{network}}/{{layer}}/{{class_id}}/{{cell}}.log",
    priority: 3
    resources:
        mem_mb=2000,
    params:
        settings=lambda w: probing(w.network),
        group=group,
        code=digest("probes"),
    run:
        from jobs import probes

        logs.run(
            log[0],
            probes.probe,
            path_to_probe=output[0],
            **input,
            **wildcards,
            kind=params.group["kind"],
            **params.settings,
            made=made_of_group("probes", params),
        )
