# The occlusion task as a page for people: a folder that works from a disk. Asked for by name (`snakemake page`), it is no
# part of the study, and `python -m commands.ingest` reads what people answered.


rule page:
    input:
        paths_to_trials=lambda w: of_task(rules.trials.output.path_to_trials),
        paths_to_stimuli=lambda w: of_task(rules.trials.output.path_to_stimuli),
    output:
        path_to_page=directory(f"{R}/page/site"),
        path_to_key=f"{R}/page/key.parquet",
    log:
        f"{R}/logs/page.log",
    params:
        settings=lambda w: asking(),
        files=[file_digest(path) for path in sorted(Path(f"{ROOT}/workflow/page").rglob("*.*"))],
        code=digest("page"),
    run:
        from jobs import page

        logs.run(
            log[0],
            page.build,
            **output,
            **{name: list(paths) for name, paths in input.items()},
            **params.settings,
            made=made("page", params.settings),
        )
