# The images of the study: which are studied, which train, and in which fold they are. Downloads them where that can be.


rule images:
    output:
        f"{R}/images.parquet",
    log:
        f"{R}/logs/images.log",
    params:
        settings={
            **STUDY.image_settings(),
            "labels": STUDY.labels,
            "study": STUDY.config["images"]["study"],
            "train": STUDY.train,
            "split_seed": STUDY.split_seed,
            "fold_seed": STUDY.seed,
            "set_aside": STUDY.set_aside,
            "set_aside_digest": STUDY.set_aside_digest,
        },
        files=STUDY.listing_digest(),
        code=digest("images"),
    run:
        from jobs import images

        logs.run(
            log[0],
            images.list_images,
            path_to_images=output[0],
            **params.settings,
            made=listed(params),
        )
