"""A made set of trials and pictures, and the page of them, for the tests of the page and of its answers."""

import hashlib
import io
import itertools

import numpy as np
from PIL import Image

from jobs import page
from jobs.pictures import STIMULI
from jobs.trials import TRIALS
from runtime import parquet

SIZE = 24
REFERENCES = {"none": 0, "natural": 9, "synthetic": 9, "mixed": 9, "blur": 9}


def png(pixels: np.ndarray) -> tuple[str, bytes]:
    """A picture's name and bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return hashlib.sha256(buffer.getvalue()).hexdigest()[:16], buffer.getvalue()


def made(units: int, sets: int, conditions=tuple(REFERENCES), seed: int = 0):
    """Rows of trials and pictures by name: noise with a flat square; the min query's is larger, so its file smaller."""
    rng = np.random.default_rng(seed)
    pictures: dict[str, bytes] = {}

    def keep(pixels: np.ndarray) -> str:
        name, content = png(pixels)
        pictures[name] = content
        return name

    rows = []
    for unit, image_set in itertools.product(range(units), range(sets)):
        base = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        queries = []
        for side, (top, left) in ((10, (0, 0)), (5, (12, 12))):
            query = base.copy()
            query[top : top + side, left : left + side] = query[top : top + side, left : left + side].mean((0, 1))
            queries.append(keep(query))
        references = [keep(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(9)]
        difference = float(rng.random(len(conditions))[0])
        for condition in conditions:
            trial = hashlib.sha256(f"{unit} {image_set} {condition}".encode()).hexdigest()[:16]
            row = {"trial": trial, "network": "net", "layer": "conv", "class_id": "3", "cell": "s0m0", "unit": unit}
            row |= {"set": image_set, "condition": condition, "base": keep(base), "min": queries[0]}
            row |= {"max": queries[1], "references": references[: REFERENCES[condition]]}
            rows.append(row | {"relative_difference": difference})
    return rows, pictures


def built(folder, rows, pictures, sets: int, study: str = "planted", seed: int = 0):
    """The page of these trials in a folder, and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    trials, stimuli = str(folder / "trials.parquet"), str(folder / "stimuli.parquet")
    parquet.write(trials, rows, TRIALS)
    parquet.write(stimuli, [{"stimulus": name, "png": content} for name, content in pictures.items()], STIMULI)
    where = {"path_to_page": str(folder / "page" / "site"), "path_to_key": str(folder / "page" / "key.parquet")}
    told = page.build(paths_to_trials=[trials], paths_to_stimuli=[stimuli], study=study, sets=sets, seed=seed, **where)
    return folder / "page" / "site", folder / "page" / "key.parquet", told
