"""A finished study and its tables, each by the name that the study has for it."""

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from readout_study.folder import Folder, StudyError, check_name, frame, some

IMAGES, CELLS, CLAIMS = "images.parquet", "tables/cells.parquet", "claims.parquet"
AXES = ["network", "layer", "depth", "class_id", "cell"]
"""The columns of the table of cells that say where a cell is."""
ALL = "all"
"""The network of a row that pools the networks, and the targets of a row that is of all targets."""


class Sometimes(NamedTuple):
    """A table that not every study has: its file, what gives it, and the folders whose files it is gathered from."""

    file: str
    given_by: str
    gathered_from: tuple[str, ...] = ()


SOMETIMES = {
    "groups": Sometimes("tables/groups.parquet", "setting `controls` or `importance`", ("controls", "importance")),
    "measures": Sometimes("tables/measures.parquet", "setting `importance`", ("importance",)),
    "redundancy": Sometimes("tables/redundancy.parquet", "setting `importance.redundancy`", ("redundancy",)),
    "shapley": Sometimes("tables/shapley.parquet", "setting `ablations.shapley`", ("shapley",)),
    "faithfulness": Sometimes("faithfulness.parquet", "setting `importance`", ("importance",)),
    "legibility": Sometimes("legibility.parquet", "setting `occlusion`", ("occlusions",)),
    "sensitivity": Sometimes("sensitivity/verdicts.parquet", "command `snakemake --cores 4 sensitivity`"),
}


def open_study(path: str | PathLike[str]) -> "Study":
    """Open the results of a finished study: `results/<study>/`, or a copy of that folder wherever it is.

    Reads which networks, layers, targets and cells there are, and no more; tables are read when they are asked for.
    Raises StudyError where there is no such folder, where it is not a study's, and where the study is not finished.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise StudyError(f"{folder}: no such folder{_studies_in(folder.parent)}")
    if not folder.is_dir():
        raise StudyError(f"{folder}: is a file; name the folder of a study's results, as results/digits")
    results = Folder(folder)
    if not results.has(IMAGES):
        # A run that stopped early leaves some of these.
        if any((folder / name).is_dir() for name in ("logs", "networks", "others", "tables")):
            raise results.unfinished(IMAGES)
        above = [each for each in folder.resolve().parents if (each / IMAGES).is_file()]
        way_out = f"; it lies in that of a study: {above[0]}" if above else _studies_in(folder)
        raise StudyError(f"{folder}: is not the folder of a study, for it has no {IMAGES}{way_out}")
    results.identify(IMAGES)
    for file in (CELLS, CLAIMS):
        if not results.has(file):
            raise results.unfinished(file)
    return Study(results)


def _studies_in(folder: Path) -> str:
    """What to name instead of a folder that is not a study's."""
    found = sorted(str(path.parent) for path in folder.glob(f"*/{IMAGES}"))
    return f"; these are: {some(found)}" if found else "; a study's results lie in results/<study>/, as results/digits"


class Study:
    """The tables of a finished study, as `open_study` gives it.

    Networks, layers, classes and cells are named by text, as in the config: `study.units("alexnet", "conv5", "3")`. A
    *grid* is a layer of a network seen from one target, with its units in cells.

    A frame has the columns that docs/tables.md gives for its file, in this order, and their types: text, int8, int32,
    float32, float64 and bool. Where a column of whole numbers or marks lacks some, it is of pandas' Int8, Int32 or
    boolean; a missing float is NaN, and missing text what pandas has for it. Lists are arrays of numpy, one a row.

    Every method raises StudyError, whose message says what to do, for a name that the study does not have, for a table
    that it does not have, and for a file that is missing, broken, of another study, or made with other settings than
    its like.
    """

    def __init__(self, results: Folder):
        self._results = results
        self._axes = self._read(CELLS, AXES)

    # ---- what there is

    @property
    def name(self) -> str:
        """The study's name, whatever its folder is called."""
        return self._results.study

    @property
    def path(self) -> Path:
        """The folder of its results."""
        return self._results.path

    @property
    def networks(self) -> list[str]:
        """The names of its networks, as the table of cells has them."""
        return self._axes["network"].unique().tolist()

    @property
    def tables(self) -> list[str]:
        """The tables of the whole study that it has; there is a method of each name."""
        return ["cells", "claims", *(name for name, table in SOMETIMES.items() if self._results.has(table.file))]

    def grids(self) -> pd.DataFrame:
        """The grids by `network`, `layer`, its `depth` (int32) and `class_id`, which is the target; a row is a grid."""
        return self._axes.drop(columns="cell").drop_duplicates(ignore_index=True)

    def __repr__(self) -> str:
        lines = [f"study {self.name} in {self.path}"]
        for network in self.networks:
            layers, targets = (self._of(network)[name].unique() for name in ("layer", "class_id"))
            lines.append(f"  {network}: layers {some(layers)}; targets {some(targets)}")
        cells = self._axes["cell"].unique()
        lines.append(f"  cells: {cells[0]} to {cells[-1]}, {len(cells)} in a grid")
        lines.append(f"  tables: {', '.join(self.tables)}")
        return "\n".join(lines)

    # ---- tables of the whole study

    def cells(self) -> pd.DataFrame:
        """What probes read of each cell, and what the network loses without it; a row is a cell of a grid.

        `auroc` and `accuracy` are of the cross-fitted probe. `separation_loss_mean` is a share of the gap between the
        target and the others, `rank_deficit` is in ranks, `log_p_change` in nats. Outcomes are float64, and missing
        where the study did not ask for them. `images(network, layer, class_id, cell)` has the images behind a row.
        """
        return self._read(CELLS)

    def groups(self) -> pd.DataFrame:
        """The same outcomes of groups that are no cells; a row is a group of a grid, and one way to ablate it.

        `kind` tells random, matched and ranked groups, whole layers and others apart. `one_in` is of ranked groups
        alone, so it is Int32. The images behind a row are in the files `controls/<network>/<layer>/<class_id>.parquet`
        and in those of `pseudo/` and `importance/`, for `table`.
        """
        return self._sometimes("groups")

    def measures(self) -> pd.DataFrame:
        """The mean of a measure of importance over a cell's units (`value`, float64); a row is a cell and a measure."""
        return self._sometimes("measures")

    def redundancy(self) -> pd.DataFrame:
        """Where a class can still be read when a group is ablated; a row is a place of a grid and a group."""
        return self._sometimes("redundancy")

    def shapley(self) -> pd.DataFrame:
        """The cells' parts of a layer's loss (`value`, a share of the gap); a row is a cell under one intervention."""
        return self._sometimes("shapley")

    def faithfulness(self) -> pd.DataFrame:
        """Which measure finds the units that a network needs; a row is a measure in a network or in `all` trained ones.

        `what` says what of it is estimated. `found` and `best` are of gains alone, so they are boolean.
        """
        return self._sometimes("faithfulness")

    def legibility(self) -> pd.DataFrame:
        """What the occlusion task shows; a row is a statistic."""
        return self._sometimes("legibility")

    def sensitivity(self) -> pd.DataFrame:
        """The corrected verdicts in variants of the study; a row is a variant and a claim."""
        return self._sometimes("sensitivity")

    def claims(self) -> pd.DataFrame:
        """The tests of the paper's claims; a row is a test for one network, or for `all`."""
        return self._read(CLAIMS)

    def verdicts(self) -> pd.DataFrame:
        """The claims in short, over all networks; a row is a claim, and its number the index.

        `published` and `corrected` are the verdicts of the two protocols; `confirmation` is the corrected one of the
        targets with which no bound was settled, missing where there are none. What follows is of the corrected test:
        the contrast that decides (`part`, `outcome`, `intervention`), its estimate with its interval, and the `reason`
        where the verdict is open.
        """
        shown = ["part", "outcome", "intervention", "estimate", "ci_low", "ci_high", "reason"]
        columns = ["claim", "statement", "network", "role", "targets", "verdict", *shown]
        rows = self._read(CLAIMS, columns)
        rows = rows[rows["network"] == ALL].set_index("claim")
        of_all, corrected = rows["targets"] == ALL, rows["role"] == "corrected"
        verdicts = {
            "published": rows.loc[of_all & (rows["role"] == "published"), "verdict"],
            "corrected": rows.loc[of_all & corrected, "verdict"],
            "confirmation": rows.loc[~of_all & corrected, "verdict"],
        }
        test = rows[of_all & corrected]
        return pd.concat([test["statement"], pd.DataFrame(verdicts, index=test.index), test[shown]], axis=1)

    # ---- images and networks

    def images(
        self,
        network: str | None = None,
        layer: str | None = None,
        class_id: str | None = None,
        cell: str | None = None,
    ) -> pd.DataFrame:
        """The images of the study; or, given a cell, what each image did without it.

        Without arguments a row is an image: `image_id` (int32) names it in all tables, `class_id` is its own class,
        `split` is `study` or `train`, `fold` (int8) is 0 to 4. With all four, a row is an image under one `protocol`
        and `intervention`: its rank (int32; 0 is right) and log-probability (float64, in nats) before and under the
        ablation, and in `z_ablated` the log-odds of the target and then of `others(network)`.
        """
        place = (network, layer, class_id, cell)
        if all(each is None for each in place):
            return self._read(IMAGES)
        if any(each is None for each in place):
            raise StudyError("images: give network, layer, class_id and cell, or none of them for the list of images")
        return frame(self._of_cell("ablations", *place))

    def held_out(self, network: str, layer: str, class_id: str, cell: str) -> pd.DataFrame:
        """What the cross-fitted probe of a cell says of images that it has not seen; a row is an image.

        `image_id` (int32), `fold` (int8), `y` (int8; 1 is the target's) and `p` (float64), its probability.
        """
        images = pc.list_flatten(self._of_cell("probes", network, layer, class_id, cell, ["held_out"])["held_out"])
        if not len(images):
            raise StudyError(
                f"held_out: study {self.name} has no cross-fitted probes; a study has them by the setting "
                "`probes.crossfit`"
            )
        return frame(pa.Table.from_batches([pa.RecordBatch.from_struct_array(part) for part in images.chunks]))

    def baseline(self, network: str, class_id: str) -> pd.DataFrame:
        """What a network says of a class's study images when nothing is ablated; a row is an image.

        `rank` (int32), `score` (the right class's logit), `log_p` (in nats) and `z`, the log-odds of all outputs.
        """
        self._check_class(network, class_id)
        return self._read(f"baseline/{network}/{class_id}.parquet", alike=("baseline", network))

    def layers(self, network: str) -> pd.DataFrame:
        """The layers of a network, studied or not; a row is a layer of its graph. `grids()` has those studied."""
        self._of(network)
        return self._read(f"networks/{network}/layers.parquet")

    def accuracy(self) -> pd.DataFrame:
        """How often each network is right, as a share of `images` (int32); a row is a network and a split."""
        found = [self._read(f"networks/{name}/accuracy.parquet").assign(network=name) for name in self.networks]
        return pd.concat(found, ignore_index=True)[["network", *found[0].columns[:-1]]]

    def others(self, network: str) -> pd.DataFrame:
        """The classes that the targets are contrasted with; a row is a target and one of its others."""
        self._of(network)
        return self._read(f"others/{network}.parquet")

    # ---- one grid

    def units(self, network: str, layer: str, class_id: str) -> pd.DataFrame:
        """The units of a grid with their cells; a row is a unit.

        `unit` (int32) is its number in the layer. `selectivity` and `magnitude` (float32) come from `target_mean` and
        `others_mean`, mean activations, and give its `cell`; `cell_fold0` and so on are by the images outside a fold.
        """
        self._check_grid(network, layer, class_id)
        return self._read(f"cells/{network}/{layer}/{class_id}.parquet", alike=("cells", network))

    def importance(self, network: str, layer: str, class_id: str) -> pd.DataFrame:
        """The measures of importance of single units (`value`, float64); a row is a unit, a fold and a measure.

        They are kept of figure 1's grid, and of others where they are asked for; `measures()` is of all grids.
        """
        self._check_grid(network, layer, class_id)
        file = f"importance/{network}/{layer}/{class_id}/units.parquet"
        if not self._results.has(file):
            kept = [
                ", ".join(each.split("/")[1:4]) for each in self._results.files("importance", "*/*/*/units.parquet")
            ]
            raise StudyError(
                f"{self.path / file}: no such file: of single units the measures are kept on demand, of "
                f"{' and of '.join(kept) or 'no grid'} so far; where the study was made, run: "
                f"{self._results.command(file)}"
            )
        return self._read(file)

    def activations(
        self, network: str, layer: str, class_id: str, units: Iterable[int] | Iterable[bool] | None = None
    ) -> pd.DataFrame:
        """The activations of a layer in the study images of a class; a row is an image, a column is a unit.

        The index is `image_id`, and columns are named by the units' numbers; float32, or float16 where the study keeps
        that. Any class of the network will do, target or not. `units` are those that are wanted, in this order, or a
        mark for each unit of the layer, as `grid["cell"] == "s3m3"`. The file is read in parts, so that units that are
        not wanted take no memory.
        """
        self._check_layer(network, layer)
        self._check_class(network, class_id)
        file, columns = f"activations/{network}/{layer}/{class_id}.parquet", ["image_id", "activation"]
        parts = []
        with self._results.opened(file, alike=("activations", network)) as parquet:
            schema = parquet.schema_arrow
            if not ({*columns} <= {*schema.names} and pa.types.is_fixed_size_list(schema.field("activation").type)):
                raise self._results.broken(file, "is no table of activations")
            count = schema.field("activation").type.list_size
            chosen = range(count) if units is None else _chosen(units, count, f"{network} {layer}")
            taken = slice(None) if units is None else chosen
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, columns=columns)
                table.validate(full=True)
                for batch in table.to_batches():
                    values = batch["activation"].flatten().to_numpy().reshape(-1, count)
                    index = pd.Index(batch["image_id"].to_numpy(), name="image_id")
                    parts.append(pd.DataFrame(values[:, taken], index, pd.Index(chosen, name="unit")))
        if not parts:
            raise self._results.broken(file, "has no rows")
        return pd.concat(parts)

    # ---- any file

    def table(self, file: str | PathLike[str], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Any table of docs/tables.md, by its path below the folder of results; or some of its columns.

        `study.table("pseudo/alexnet/conv5/pseudo0.parquet", columns=["image_id", "auroc"])`
        """
        return self._read(self._file(file), columns)

    def made(self, file: str | PathLike[str]) -> dict:
        """What made a table: its study, step, settings, code and versions (docs/tables.md, "What made a table")."""
        return self._results.made(self._file(file))

    def _read(
        self, file: str, columns: Sequence[str] | None = None, alike: tuple[str, ...] | None = None
    ) -> pd.DataFrame:
        return frame(self._results.read(file, columns, alike))

    # ---- names

    def _file(self, file: str | PathLike[str]) -> str:
        """A file as the folder names it; StudyError where it is not there."""
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts:
            raise StudyError(f"{file}: name a table by its path below {self.path}, as {CELLS}")
        if not self._results.has(str(path)):
            if beside := self._results.files(str(path.parent)):
                check_name("table", str(path), beside, f"study {self.name}")
            raise StudyError(
                f"{self.path / path}: no such file; docs/tables.md lists those of a study; where it was made, one of "
                f"them is made by: {self._results.command(str(path))}"
            )
        return str(path)

    def _of(self, network: str) -> pd.DataFrame:
        """Where the cells of a network are."""
        check_name("network", network, self.networks, f"study {self.name}")
        return self._axes[self._axes["network"] == network]

    def _check_layer(self, network: str, layer: str) -> None:
        layers = self._of(network)["layer"].unique().tolist()
        check_name("layer", layer, layers, f"{network}'s studied layers")

    def _check_grid(self, network: str, layer: str, class_id: str) -> None:
        self._check_layer(network, layer)
        # A network has the same targets on all its layers.
        targets = self._of(network)["class_id"].unique().tolist()
        check_name("class_id", class_id, targets, f"the targets of {network}")

    def _check_class(self, network: str, class_id: str) -> None:
        """Whether a network has seen images of a class, be it a target or not."""
        self._of(network)
        classes = [PurePosixPath(file).stem for file in self._results.files(f"baseline/{network}")]
        # Where these files were not copied it is they that are missing.
        if classes:
            check_name("class_id", class_id, classes, f"the classes of {network}")

    def _of_cell(
        self, step: str, network: str, layer: str, class_id: str, cell: str, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """A step's file of a cell, or of another group where there is one."""
        self._check_grid(network, layer, class_id)
        cells = self._axes["cell"].unique().tolist()
        folder = f"{step}/{network}/{layer}/{class_id}"
        # Groups that are no cells have files where they were asked for; their settings are not those of cells.
        groups = [PurePosixPath(file).stem for file in self._results.files(folder)]
        known = list(dict.fromkeys([*cells, *groups]))
        check_name("cell", cell, known, f"the grid of {network} {layer} {class_id}")
        return self._results.read(f"{folder}/{cell}.parquet", columns, (step, network) if cell in cells else None)

    def _sometimes(self, name: str) -> pd.DataFrame:
        """A table that not every study has."""
        table = SOMETIMES[name]
        if self._results.has(table.file):
            return self._read(table.file)
        if any((self.path / folder).is_dir() for folder in table.gathered_from):
            raise self._results.unfinished(table.file)
        raise StudyError(
            f"{self.path / table.file}: study {self.name} has no such table; a study has it by the {table.given_by} "
            f"(docs/tables.md); there are {', '.join(self.tables)}"
        )


def _chosen(units: Iterable[int] | Iterable[bool], count: int, of: str) -> list[int]:
    """The units that are asked for, out of `count`."""
    if isinstance(units, str) or not isinstance(units, Iterable):
        raise StudyError(f"units: {units!r} is no list of units; those of a cell are units=grid['cell'] == 's3m3'")
    asked = pd.Index(list(units))
    if asked.dtype == bool:
        if len(asked) != count:
            raise StudyError(f"units: {of} has {count} units, but there are {len(asked)} marks; give one for each unit")
        asked = pd.RangeIndex(count)[asked]
    if not len(asked):
        raise StudyError(f"units: no unit of {of} is asked for; leave `units` out for all")
    if not pd.api.types.is_integer_dtype(asked.dtype):
        raise StudyError(f"units: units of {of} are whole numbers, 0 to {count - 1}, not {some(asked)}")
    if wrong := [unit for unit in asked.tolist() if not 0 <= unit < count]:
        raise StudyError(f"units: {of} has no unit {some(wrong)}; its units are 0 to {count - 1}")
    if asked.has_duplicates:
        raise StudyError(f"units: unit {some(asked[asked.duplicated()].unique())} of {of} is asked for twice")
    return asked.tolist()
