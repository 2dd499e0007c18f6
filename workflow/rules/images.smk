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
            "seed": STUDY.seed,
        },
        files=STUDY.listing_digest(),
        code=digest("images"),
    run:
        from jobs import images

        carried = made("images", {**params.settings, "files": params.files}, **STUDY.image_settings())
        images.list_images(output[0], **params.settings, made=carried, log=log)
