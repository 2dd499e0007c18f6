"""Step `shapley`: what the network loses without a whole layer, divided among the cells of a grid."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from jobs import ablations, groups
from jobs.ablations import Grid, Sample
from readout import StudyError, outcomes, scores, shapley
from readout.ablations import Constant
from readout.folds import FOLDS
from readout.shapley import Shares
from runtime import parquet

SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("intervention", pa.string()),
        ("cell", pa.string()),
        ("selectivity_bin", pa.int8()),
        ("magnitude_bin", pa.int8()),
        ("value", pa.float64()),
        ("standard_error", pa.float64()),
        ("alone", pa.float64()),
        ("hidden", pa.bool_()),
        ("layer_loss", pa.float64()),
        ("permutations", pa.int32()),
    ]
)
"""A row per intervention and cell; `permutations` are the random orders that were drawn."""
OPTIONAL = ("value", "standard_error", "alone", "hidden", "layer_loss")
"""Columns that are missing, all of them, where the network does not separate the target."""


class _Ablations:
    """The game of a grid: a coalition of cells is worth the separation loss of ablating their units together.

    In the images of a fold these are the cells by the grid of that fold. `tails` counts the image-tails.
    """

    def __init__(self, sample: Sample, path_to_cells: str, intervention: Sequence[Constant]):
        first = sample.alive[0]
        self.sample, self.tails = sample, 0
        by_fold = [groups.units(path_to_cells, fold) for fold in range(FOLDS)]
        self.cells = tuple(by_fold[0])
        # Of each fold: the place of each unit's cell, and what the unit puts out instead [folds, units].
        self.cell = torch.empty((FOLDS, sample.layer_units), dtype=torch.int64)
        self.instead = torch.empty((FOLDS, sample.layer_units), dtype=first.dtype)
        for fold, (by_cell, one) in enumerate(zip(by_fold, intervention, strict=True)):
            for i, units in enumerate(by_cell.values()):
                self.cell[fold, torch.from_numpy(units)] = i
            self.instead[fold] = torch.as_tensor(one.value)
        self.cell, self.instead = self.cell.to(first.device), self.instead.to(first.device)
        self.fold = torch.from_numpy(sample.listed["fold"].astype(np.int64)).to(first.device)
        self.gap = outcomes.gap(sample.listed["z"], sample.is_target)

    def _alive(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The tensors alive at the cut for the images at these places, in the layouts in which the network has them."""
        tensors = self.sample.alive
        return [tensor[images].contiguous(memory_format=ablations.layout(tensor)) for tensor in tensors]

    def _z(self, coalitions: torch.Tensor, which: torch.Tensor, images: torch.Tensor) -> np.ndarray:
        """z of the target [B] for pairs of a coalition (`which` of the rows [B]) and an image (its place [B])."""
        first, *rest = self._alive(images)
        fold = self.fold[images]
        gone = coalitions[:, self.cell][which, fold]  # [B, units]
        ablated = torch.where(gone, self.instead[fold], first.flatten(1)).view(first.shape)
        logits = self.sample.tail(ablated.contiguous(memory_format=ablations.layout(first)), *rest)
        if not torch.isfinite(logits).all():
            raise StudyError("a score is not finite; the network or its weights are broken")
        return scores.log_odds(logits)[:, self.sample.outputs[0]].cpu().numpy().astype(np.float32)

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        """Separation losses [C] of coalitions, bool [C, cells]."""
        count, device = len(self.fold), self.fold.device
        members = torch.from_numpy(coalitions).to(device)
        z = []
        for batch in self.sample.batches(len(coalitions) * count):
            pair = torch.arange(batch.start, batch.stop, device=device)
            # The coalitions of this batch alone: for all of them a large layer's units would fill the memory.
            begin, end = batch.start // count, -(-batch.stop // count)
            z.append(self._z(members[begin:end], pair // count - begin, pair % count))
        self.tails += len(coalitions) * count
        after = np.concatenate(z).reshape(-1, count).astype(np.float64)
        return np.array([outcomes.lost(self.gap, outcomes.gap(row, self.sample.is_target)) for row in after])


def _generator(grid: Grid, seed: int) -> np.random.Generator:
    """The random orders of a grid, which are the same under each intervention."""
    entropy = "\0".join(map(str, ["shapley", seed, grid.network, grid.layer, grid.class_id]))
    return np.random.default_rng(list(hashlib.sha256(entropy.encode()).digest()))


def _rows(shares: Shares) -> list[dict]:
    """What a row has of each cell's share."""
    names = ("value", "standard_error", "alone", "hidden")
    columns = (shares.value, shares.standard_error, shares.alone, shares.hidden())
    same = {"layer_loss": shares.whole, "permutations": shares.permutations}
    return [same | dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]


@torch.inference_mode()
def divide(
    grid: Grid,
    *,
    path_to_shapley: str,
    interventions: Sequence[str],
    permutations: int,
    error: float,
    seed: int,
    made: str | None = None,
) -> str:
    """Write the Shapley values of a grid's cells, by separation loss, under `zero`, `mean` or both.

    At most so many `permutations` (random orders of the cells) are drawn, until the largest standard error of a cell's
    value is at most `error`, a share of the gap. Where the network does not separate the target, values are missing.
    """
    sample = ablations.prepare(grid)
    at = {"network": grid.network, "layer": grid.layer, "class_id": grid.class_id}
    bins = groups.bins(grid.path_to_cells)
    rows, said = [], []
    for name in interventions:
        game = _Ablations(sample, grid.path_to_cells, ablations.replacements(name, grid.path_to_cells))
        found = [dict.fromkeys(OPTIONAL) | {"permutations": 0}] * len(game.cells)
        if game.gap > 0:
            drawn = {"permutations": permutations, "error": error, "generator": _generator(grid, seed)}
            shares = shapley.estimate(game, len(game.cells), **drawn)
            found = _rows(shares)
            said.append(f"{name}: {shares.permutations} permutations, {game.tails} image-tails")
        for cell, row in zip(game.cells, found, strict=True):
            rows.append(at | {"intervention": name, "cell": cell} | bins[cell] | row)
    parquet.write(path_to_shapley, rows, SCHEMA, made)
    return "; ".join(said) or "the network does not separate the target"
