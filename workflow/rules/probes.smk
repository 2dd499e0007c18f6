# The probes of one cell. The priority puts cells before further grids; their order is that of workflow/runtime/locks.py.
# A cell's job names few inputs, since Snakemake asks for those of all that it chooses from whenever it starts one: the file
# of the grid is made anew with any activations, and the target's activations are missing when a layer's were deleted.


rule probes:
    input:
        cells=rules.cells.output[0],
        target=f"{R}/activations/{{network}}/{{layer}}/{{class_id}}.parquet",
    output:
        f"{R}/probes/{{network}}/{{layer}}/{{class_id}}/{{cell}}.parquet",
    log:
        f"{R}/logs/probes/{{network}}/{{layer}}/{{class_id}}/{{cell}}.log",
    priority: 3
    resources:
        mem_mb=1000,
    params:
        others=of_others("activations"),
        settings=PROBES,
        code=digest("probes"),
    run:
        from jobs import probes

        carried = made("probes", params.settings)
        probes.probe(output[0], input, params.others, wildcards, **params.settings, made=carried, log=log)
