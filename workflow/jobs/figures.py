"""Step `figures`: one figure from its tables, as PNG and SVG."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from jobs import pictures
from readout import evidence, figures, legibility_figures, rankings, sensitivity, stimuli
from runtime import files, parquet, subprocesses

OF_NETWORKS = ("figure3", "supplement_depth")
OF_GROUPS = ("reading_needing", "supplement_controls")


def draw(
    figure: str,
    path_to_table: str,
    networks: Sequence[str],
    title: str,
    untrained: Sequence[str] = (),
    path_to_groups: str | None = None,
    labels: Mapping[str, str] | None = None,
    path_to_cells: str | None = None,
    path_to_stimuli: str | None = None,
    bins: Sequence[int] | None = None,
) -> Figure:
    """Draw the figure `figure1`, `figure2` (of one network), another or a supplement from its table.

    `untrained` are those among the networks that are controls; `path_to_groups` is the table of groups, None where a
    study has no controls; `labels` are what measures of importance are called;
    `path_to_cells` is the table of cells and `path_to_stimuli` that of pictures, for figures of the occlusion task;
    `bins` are how many of selectivity and of magnitude a grid has, for that of cells.
    """
    figures.style()
    table = parquet.read(path_to_table).to_pandas(ignore_metadata=True)
    if figure == "figure1":
        return figures.figure1(table, title)
    if figure == "figure2":
        return figures.figure2(table[table["network"] == networks[0]], title)
    if figure == "sensitivity":
        return sensitivity.figure(table, title)
    if figure == "supplement_claims":
        return figures.supplement_claims(table)
    if figure in OF_NETWORKS:
        return getattr(figures, figure)(table, networks, untrained)
    if figure in OF_GROUPS:
        groups = None if path_to_groups is None else parquet.read(path_to_groups).to_pandas(ignore_metadata=True)
        return getattr(evidence, figure)(table, groups, networks, untrained)
    if figure == "importance":
        return rankings.importance(table, networks, untrained)
    if figure == "supplement_curves":
        return rankings.supplement_curves(table, networks, untrained, labels)
    if figure == "stimuli":
        shown = {*table["base"], *table["min"], *table["max"], *(name for row in table["references"] for name in row)}
        found = pictures.stimuli(path_to_stimuli, sorted(shown))
        return stimuli.sheet(table, {name: pictures.pixels(png) for name, png in found.items()}, title)
    if figure == "legibility":
        return legibility_figures.accuracy(table, networks, untrained)
    if figure == "legibility_cells":
        return legibility_figures.cells(table, networks, untrained, **({} if bins is None else {"bins": bins}))
    if figure == "legibility_gain":
        cells = parquet.read(path_to_cells).to_pandas(ignore_metadata=True)
        return legibility_figures.gain(table, cells, networks, untrained)
    if figure == "supplement_interventions":
        return evidence.supplement_interventions(table, networks, untrained)
    return getattr(figures, figure)(table, networks)


def save(drawn: Figure, paths: Sequence[str]) -> None:
    """Write the figure in the formats of the paths' suffixes; without a date, so that files can be compared."""
    for path in paths:
        kind = Path(path).suffix.removeprefix(".")
        # Drawn in memory: an error of drawing is none of the disk.
        image = io.BytesIO()
        drawn.savefig(image, format=kind, metadata={"Date": None} if kind == "svg" else None, bbox_inches="tight")
        with files.whole(path) as partial:
            partial.write_bytes(image.getbuffer())


def make(paths: Sequence[str], **given) -> None:
    """Draw and save."""
    save(draw(**given), paths)


if __name__ == "__main__":
    subprocesses.main(make)
