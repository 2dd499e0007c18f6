"""Step `legibility`: how well observers see what drives units, and whether units that matter are easier to see."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from jobs import image_sets, tables
from jobs.trials import ASKED
from readout import StudyError, bridge, inference, legibility, legibility_page
from readout.conditions import NONE
from readout.legibility import PERSON
from readout.occluders import NO_EFFECT, NOT_DRIVEN
from readout.verdicts import POOLED
from readout.visualisations import STATUSES
from runtime import files, parquet

ANSWERS = pa.schema(
    [*ASKED, ("observer", pa.string()), ("correct", pa.float64()), ("relative_difference", pa.float64())]
)
"""What is read of observers' answers; the relative difference is missing where the base image drives nothing."""
RESPONSES = pa.schema(
    [
        *ANSWERS,
        ("session", pa.string()),
        ("confidence", pa.int32()),
        ("seconds", pa.float64()),
        ("kind", pa.string()),
        ("passed", pa.bool_()),
    ]
)
"""The same of people, of whose trials the main ones count, in sessions that passed the screening."""
CHECKS = ("coin", "oracle")
"""Observers that check the tables."""
NUMBERS = (
    *("estimate", "low", "high", "pooled", "sem2", "low_cells", "high_cells", "at", "p", "p_adjusted"),
    *("deviation", "error", "detectable"),
)
COUNTS = ("needed", "n_units", "n_trials", "n_sessions", "n_pairs", "n_undefined", "n_a", "n_p")
WORDS = ("observer", "condition", "part", "intervention", "verdict", "reason")
SCHEMA = pa.schema(
    [
        ("what", pa.string()),
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        *((name, pa.string()) for name in WORDS),
        ("adjusted", pa.bool_()),
        ("status", pa.string()),
        *((name, pa.float64()) for name in NUMBERS),
        *((name, pa.int32()) for name in COUNTS),
    ]
)
"""A row a statistic; `what` says which. `all` stands for all layers, targets or trained networks together."""
OPTIONAL = (*WORDS, "adjusted", *NUMBERS, *COUNTS)
PREDICTORS = ("contrast", "sparsity", "driving")
UNITS = ("cell", "unit", *PREDICTORS, "status")
SCORES = pa.schema(
    [
        ("network", pa.string()),
        ("layer", pa.string()),
        ("class_id", pa.string()),
        ("unit", pa.int32()),
        ("similarity", pa.string()),
        ("score", pa.float64()),
    ]
)
"""What is read of units that may tell how easy they are."""
EXTREMES = ("unit", "set", "valid", "reason")
VISUALISATIONS = pa.schema(
    [
        ("unit", pa.int32()),
        ("batch", pa.string()),
        ("index", pa.int32()),
        ("png", pa.binary()),
        ("status", pa.string()),
    ]
)
"""What is read of feature visualisations, whose picture is missing where a unit has none or it cannot be saved."""
BATCH = "synthetic"
"""The batch of visualisations that is told of; the other is of the same units."""
CELLS = (
    *(*bridge.GRID, "cell", "selectivity_bin", "magnitude_bin", "units", bridge.PROBE),
    *map(bridge.loss, bridge.INTERVENTIONS),
)
"""What is read of cells: where they are, and what ablations and probes show of them."""
KINDS = ("main", "catch", "practice")
"""Of people's trials."""
Grid = tuple[str, str, str]
"""Network, layer and target."""


def _refuse(path: str, what: str, people: bool) -> NoReturn:
    # No rule makes people's answers.
    if people:
        raise StudyError(f"{path}: {what}; take the files of answers again: python -m commands.ingest")
    image_sets.refuse(path, what)


def _read(
    path: str, schema: pa.Schema, optional: Sequence[str] = (), origin: Mapping[str, str] | None = None
) -> pd.DataFrame:
    people = "kind" in schema.names
    table = parquet.read(path, schema, optional=("relative_difference", *optional), origin=origin, empty=not people)
    if not pc.all(pc.is_in(table["correct"], pa.array([0.0, 0.5, 1.0])), min_count=0).as_py():
        _refuse(path, "correct is something else than 0, 0.5 and 1", people)
    image_sets.numbers(path, table)
    if people:
        known = pc.and_(pc.is_in(table["kind"], pa.array(KINDS)), pc.equal(table["observer"], PERSON))
        sure = pc.is_in(table["confidence"], pa.array([*legibility.LEVELS, None], pa.int32()))
        if not pc.all(pc.and_(known, sure), min_count=0).as_py() or pc.any(pc.less(table["seconds"], 0)).as_py():
            _refuse(path, "a kind of trial, an observer, a confidence or a time is none that there is", people)
        table = table.filter(pc.and_(pc.equal(table["kind"], "main"), table["passed"])).drop_columns(["kind", "passed"])
    frame = table.to_pandas(ignore_metadata=True)
    keys = ["trial", "observer", *(["session"] if "session" in frame else [])]
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        trial, observer = twice.iloc[0][["trial", "observer"]]
        _refuse(path, f"{observer} answers trial {trial} twice", people)
    return frame


def _same(frames: Sequence[pd.DataFrame], path: str, people: bool = False) -> None:
    """StudyError where a trial is of several units, image sets or conditions."""
    names = [*(name for name, _ in ASKED), "relative_difference"]
    twice = pd.concat([frame[names] for frame in frames]).drop_duplicates()["trial"]
    if twice.duplicated().any():
        trial = twice[twice.duplicated()].iloc[0]
        _refuse(path, f"trial {trial} is of several units, image sets or conditions", people)


def _whole(frame: pd.DataFrame, path: str) -> None:
    """StudyError where an observer has not answered all of the trials of a condition in which it has answered any."""
    _same([frame], path)
    trials = frame.groupby("condition")["trial"].nunique()
    answered = frame.groupby(["condition", "observer"])["trial"].nunique()
    lacking = answered[answered < trials.reindex(answered.index.get_level_values("condition")).to_numpy()]
    if len(lacking):
        condition, observer = lacking.index[0]
        image_sets.refuse(path, f"{observer} has not answered all trials of the condition {condition}")


def _answers(
    paths_to_observers: Mapping[str, str],
    path_to_responses: str | None,
    networks: Mapping[str, Mapping],
    conditions: Sequence[str],
    origins: Mapping[str, Mapping[str, Mapping[str, str]]],
) -> pd.DataFrame:
    """The answers of all observers; of the study's networks and conditions alone."""
    frames = []
    for network, path in paths_to_observers.items():
        frame = _read(path, ANSWERS, origin=origins[network]["observers"])
        _whole(frame, path)
        if (frame["observer"] == PERSON).any():
            raise StudyError(f"{path}: a machine observer is called {PERSON}, which people are; give it another name")
        frames.append(frame)
    if path_to_responses is not None:
        people = _read(path_to_responses, RESPONSES, ("session", "confidence", "seconds"))
        strange = people.loc[~people["trial"].isin({trial for frame in frames for trial in frame["trial"]}), "trial"]
        if len(strange):
            raise StudyError(
                f"{path_to_responses}: people answered trial {strange.iloc[0]}, which none of "
                f"{', '.join(paths_to_observers.values())} has: the page that they saw is older; make the page again, "
                "or move the file away"
            )
        _same([*frames, people], path_to_responses, people=True)
        frames.append(people)
    answers = pd.concat(frames, ignore_index=True)
    if not len(answers):
        raise StudyError(
            "occlusion: no image set of any unit has a right answer; draw more (occlusion.units) or choose other layers"
        )
    for column, known in (("network", networks), ("condition", conditions)):
        strange = sorted(set(answers[column]) - set(known))
        if strange:
            raise StudyError(
                f"observers answer for {column} {strange[0]}, which the study has not; it has {', '.join(known)}: "
                "make the tables of observers again"
            )
    return answers


def _cells(path: str, networks: Mapping[str, Mapping], answers: pd.DataFrame) -> pd.DataFrame:
    """Of each cell what its ablation costs and what a probe reads; of untrained networks the former is missing.

    Of the grids that observers answer for alone: whether there is an A or a P says nothing of the task on other grids.
    """
    losses = [bridge.loss(name) for name in bridge.INTERVENTIONS]
    table = parquet.read(path, tables.CELLS, columns=list(CELLS), optional=tables.OPTIONAL)
    image_sets.numbers(path, table)
    frame = table.to_pandas(ignore_metadata=True)
    grid = tuple(int(frame[name].max()) + 1 for name in ("selectivity_bin", "magnitude_bin"))
    expected = [
        (*of, f"s{s}m{m}", s, m)
        for of in dict.fromkeys(frame[bridge.GRID].itertuples(index=False, name=None))
        for s in range(grid[0])
        for m in range(grid[1])
    ]
    if sorted(frame[list(CELLS[:6])].itertuples(index=False, name=None)) != sorted(expected):
        image_sets.refuse(path, "has not every cell of every grid once")
    untrained = [name for name, network in networks.items() if network["untrained"]]
    # Without a gap, losses are shares of nothing.
    frame.loc[frame["network"].isin(untrained), losses] = float("nan")
    keys = [*bridge.GRID, "cell"]
    strange = answers[keys].drop_duplicates().merge(frame[keys], how="left", indicator=True)
    strange = strange[strange["_merge"] == "left_only"]
    if len(strange):
        raise StudyError(f"{path}: has no cell {' '.join(strange.iloc[0][keys])}; {parquet.again(path)}")
    return frame.merge(answers[bridge.GRID].drop_duplicates())


def _row(what: str, network: str, layer: str = "all", class_id: str = "all", **given) -> dict:
    head = {"what": what, "network": network, "layer": layer, "class_id": class_id, "status": bridge.OK}
    return dict.fromkeys(SCHEMA.names) | head | given


def _accuracy(found: legibility.Accuracy) -> dict:
    values = {"estimate": found.estimate, "low": found.low, "high": found.high, "pooled": found.pooled}
    return values | {
        "sem2": found.sem2,
        "n_units": found.units,
        "n_trials": found.trials,
        "n_sessions": found.sessions,
    }


def _parts(trials: pd.DataFrame, conditions: Sequence[str]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The answers of each observer in each condition; people first, conditions in the study's order."""
    observers = sorted(trials["observer"].unique(), key=lambda name: (name != PERSON, name))
    for observer in observers:
        for condition in conditions:
            part = trials[(trials["observer"] == observer) & (trials["condition"] == condition)]
            if len(part):
                yield observer, condition, part


def _seen(trials: pd.DataFrame, network: str, conditions: Sequence[str], confidence: float) -> Iterator[dict]:
    """Accuracy, by layer and cell too, what it goes with, and the agreement of observers."""
    for observer, condition, part in _parts(trials, conditions):
        about = {"observer": observer, "condition": condition}
        yield _row("accuracy", network, **about, **_accuracy(legibility.accuracy(part, confidence)))
        if network != POOLED:
            for layer, rows in part.groupby("layer", sort=False):
                yield _row("accuracy", network, layer, **about, **_accuracy(legibility.accuracy(rows, confidence)))
        for cell, rows in part.groupby("cell"):
            yield _row("cell", network, part=cell, **about, **_accuracy(legibility.accuracy(rows, confidence)))
        (value, low, high), units = legibility.relation(part, confidence)
        counts = {"n_units": units, "n_trials": len(part)}
        yield _row("relation", network, **about, estimate=value, low=low, high=high, **counts)
        for i, each in enumerate(legibility.by_difference(part, confidence)):
            found = _accuracy(each.accuracy) | {"at": each.relative_difference}
            yield _row("bin", network, part=str(i + 1), **about, **found)
        if observer == PERSON:
            yield from _of_people(part, network, about, confidence)
    if network != POOLED:
        for condition in conditions:
            # With chance, or with what is always right, nobody agrees.
            choosing = trials[~trials["observer"].isin(CHECKS)]
            if (choosing["condition"] == condition).any():
                for each in legibility.agreement(choosing, condition, confidence):
                    numbers = {"estimate": each.estimate, "low": each.low, "high": each.high, "sem2": each.sem2}
                    counts = {"n_units": each.units, "n_pairs": each.pairs, "n_undefined": each.undefined}
                    names = {"observer": each.one, "part": each.other, "condition": condition}
                    known = {} if each.pairs else {"status": bridge.NOT_ESTIMABLE, "reason": "no pair has a kappa"}
                    yield _row("kappa", network, **names, **numbers, **counts, **known)


def _of_people(part: pd.DataFrame, network: str, about: Mapping[str, str], confidence: float) -> Iterator[dict]:
    """How sure and how fast people are."""
    known = part.dropna(subset=["confidence"])
    if len(known):
        for level, share, right in legibility.confidences(known, confidence):
            yield _row("confidence", network, part=str(level), **about, **_accuracy(share))
            if right is not None:
                yield _row("accuracy_by_confidence", network, part=str(level), **about, **_accuracy(right))
    for which, found in legibility.seconds(part.dropna(subset=["seconds"]), confidence):
        yield _row("seconds", network, part=which, **about, **_accuracy(found))


def _power(found: legibility.Power | None, reason: str) -> dict:
    if found is None:
        return {"status": bridge.NOT_ESTIMABLE, "reason": reason}
    return found._asdict()


def _result(found: bridge.Result, confidence: float) -> dict:
    low, high = bridge.interval(found.estimate, confidence)
    low_cells, high_cells = bridge.interval(found.over_cells, confidence)
    value = None if found.estimate is None else legibility.number(found.estimate.value[0])
    numbers = {"estimate": value, "low": low, "high": high, "low_cells": low_cells, "high_cells": high_cells}
    counts = {"n_units": found.units, "n_trials": found.trials, "n_a": found.in_a, "n_p": found.in_p}
    return numbers | counts | {"p": found.p, "status": found.status, "reason": found.reason}


def _mean_gain(rows: pd.DataFrame, confidence: float) -> dict:
    values = rows.groupby(legibility.UNIT)["gain"].mean()
    value, low, high = legibility.told(legibility.over_units(values), confidence)
    return {"estimate": value, "low": low, "high": high, "n_units": len(values), "n_trials": int(rows["trials"].sum())}


def _bridged(
    gains: pd.DataFrame,
    cells: pd.DataFrame,
    network: str,
    conditions: Sequence[str],
    interventions: Sequence[str],
    confidence: float,
    seed: int,
) -> Iterator[dict]:
    """Power first, then gains, by cell and by margin, and the contrasts with their verdicts; of one or all networks."""
    grouped = {name: bridge.with_groups(cells, name) for name in bridge.INTERVENTIONS if name in interventions}
    parts = list(_parts(gains, [name for name in conditions if name != NONE]))
    for observer, condition, own in parts:
        about = {"observer": observer, "condition": condition}
        values = own.groupby(legibility.UNIT)["gain"].mean()
        power = legibility.power(float(values.var()), [len(values)], confidence) if len(values) > 1 else None
        told = _power(power, "units do not differ, or there is one alone")
        yield _row("power", network, part="gain", n_units=len(values), **about, **told)
        for intervention, of in grouped.items():
            counts = dict(zip(("n_a", "n_p"), bridge.in_groups(bridge.compared(own, of)), strict=True))
            told = _power(
                bridge.planned(own, of, confidence),
                "no grid has units in A and in P, or no cell has two units that differ",
            )
            names = about | {"part": "contrast", "intervention": intervention}
            yield _row("power", network, **names, **told, **counts)
    bins = cells[[*bridge.GRID, "cell", "selectivity_bin", "magnitude_bin"]]
    contrasts = []
    for observer, condition, own in parts:
        about = {"observer": observer, "condition": condition}
        yield _row("gain", network, **about, **_mean_gain(own, confidence))
        joined = own.merge(bins)
        for letter, column in (("s", "selectivity_bin"), ("m", "magnitude_bin")):
            for number, rows in joined.groupby(column):
                yield _row("margin", network, part=f"{letter}{number}", **about, **_mean_gain(rows, confidence))
        if network != POOLED:
            for (layer, class_id, cell), rows in own.groupby(["layer", "class_id", "cell"]):
                yield _row("gain_of_cell", network, layer, class_id, part=cell, **about, **_mean_gain(rows, confidence))
        for adjusted in (False, True):
            found = {name: bridge.contrast(own, of, name, adjusted, seed=seed) for name, of in grouped.items()}
            for intervention, result in found.items():
                names = about | {"intervention": intervention, "adjusted": adjusted}
                contrasts.append(_row("contrast", network, **names, **_result(result, confidence)))
                for term, each in bridge.regression(own, cells, intervention, adjusted).items():
                    yield _row("regression", network, part=term, **names, **_result(each, confidence))
            verdict, reason = bridge.verdict(list(found.values()), confidence)
            status = bridge.OK if verdict else bridge.NOT_ESTIMABLE
            told = {"verdict": verdict, "reason": reason, "status": status, "adjusted": adjusted}
            yield _row("bridge", network, **about, **told)
    known = [row for row in contrasts if row["p"] is not None]
    for row, p in zip(known, inference.holm([row["p"] for row in known]), strict=True):
        row["p_adjusted"] = p
    yield from contrasts


def _left_out(
    units: Mapping[Grid, Sequence[Mapping]], paths_to_units: Mapping[Grid, str], paths_to_extremes: Mapping[Grid, str]
) -> Iterator[dict]:
    """How many units have no trials, and how many image sets are not valid, by why."""
    counts = {
        "units": Counter(row["status"] for of_grid in units.values() for row in of_grid),
        "extremes": Counter(
            row["reason"] or bridge.OK
            for grid, path in paths_to_extremes.items()
            for row in _extremes(path, units[grid], paths_to_units[grid])
        ),
    }
    for kind, of_kind in counts.items():
        for name, count in sorted(of_kind.items()):
            if name != bridge.OK:
                yield _row("left_out", "all", part=kind, reason=name, n_units=count)


def _extremes(path: str, units: Sequence[Mapping], path_to_units: str) -> list[dict]:
    """What is read of a grid's queries. A grid may have no image set at all: each of its units is silent."""
    table = parquet.read(path, image_sets.EXTREMES, columns=list(EXTREMES), empty=True)
    image_sets.numbers(path, table)
    rows = table.to_pylist()
    sets = range(max((row["set"] for row in rows), default=0) + 1)
    expected = [(row["unit"], number) for row in units if row["status"] == bridge.OK for number in sets]
    if [(row["unit"], row["set"]) for row in rows] != expected:
        image_sets.refuse(path, f"has not every image set of the units in {path_to_units} that can be shown, in order")
    if any(row["reason"] not in ([""] if row["valid"] else [NOT_DRIVEN, NO_EFFECT]) for row in rows):
        image_sets.refuse(path, "an image set has an answer and a reason why not, or neither")
    return rows


def _failed(
    units: Mapping[Grid, Sequence[Mapping]],
    paths_to_units: Mapping[Grid, str],
    paths: Mapping[Grid, Mapping[str, str]],
) -> Iterator[dict]:
    """How many feature visualisations do not drive their unit, by why."""
    counts: Counter[str] = Counter()
    for grid, by_cell in paths.items():
        for cell, path in by_cell.items():
            table = parquet.read(path, VISUALISATIONS, VISUALISATIONS.names, optional=("png",), empty=True)
            rows = table.drop_columns(["png"]).to_pylist()
            of_cell = {row["unit"]: row["status"] for row in units[grid] if row["cell"] == cell}
            image_sets.visualised(path, rows, of_cell, paths_to_units[grid], STATUSES)
            # The one row of a unit without trials is no picture.
            shown = [row for row in rows if row["batch"] == BATCH and of_cell[row["unit"]] == bridge.OK]
            counts.update(row["status"] for row in shown if row["status"] != bridge.OK)
    for name, count in sorted(counts.items()):
        yield _row("left_out", "all", part="visualisations", reason=name, n_trials=count)


def _scores(
    path: str, network: str, units: Mapping[Grid, Sequence[Mapping]], paths_to_units: Mapping[Grid, str]
) -> pd.DataFrame:
    """The machine interpretability scores of a network's units; StudyError where one lacks any."""
    frame = parquet.read(path, SCORES, empty=True).to_pandas(ignore_metadata=True)
    own = [grid for grid in units if grid[0] == network]
    of = [(*grid, row["unit"]) for grid in own for row in units[grid] if row["status"] == bridge.OK]
    expected = [(*key, name) for key in of for name in frame["similarity"].unique()]
    found = list(zip(*(frame[name] for name in SCORES.names[:-1]), strict=True))
    if sorted(found) != sorted(expected) or bool(of) != bool(found) or not frame["score"].between(0, 1).all():
        of_network = ", ".join(paths_to_units[grid] for grid in own)
        image_sets.refuse(path, f"has not a score from 0 to 1 of each unit in {of_network} under each similarity")
    return frame


def _known(
    units: Mapping[Grid, Sequence[Mapping]], paths_to_units: Mapping[Grid, str], paths_to_scores: Mapping[str, str]
) -> pd.DataFrame:
    """What may tell how easy a unit is without any trial, by unit; the first target's, where it is of several."""
    if not units:
        return pd.DataFrame(index=pd.MultiIndex.from_frame(pd.DataFrame(columns=legibility.UNIT)))
    frames = [pd.DataFrame(rows).assign(network=network, layer=layer) for (network, layer, _), rows in units.items()]
    found = pd.concat(frames, ignore_index=True).drop_duplicates(legibility.UNIT).set_index(legibility.UNIT)
    found = found[list(PREDICTORS)]
    scores = [_scores(path, network, units, paths_to_units) for network, path in paths_to_scores.items()]
    if scores:
        of_units = pd.concat(scores, ignore_index=True).drop_duplicates([*legibility.UNIT, "similarity"])
        wide = of_units.pivot(index=legibility.UNIT, columns="similarity", values="score")
        found = found.join(wide.add_prefix("interpretability_"))
    return found


def _eased(
    trials: pd.DataFrame, known: pd.DataFrame, network: str, conditions: Sequence[str], confidence: float
) -> Iterator[dict]:
    """How far each predictor goes with the accuracy of units, of each observer and condition."""
    for observer, condition, part in _parts(trials, conditions):
        for name in known.columns:
            (value, low, high), units = legibility.ease(part, known[name], confidence)
            if value is not None:
                about = {"observer": observer, "condition": condition, "part": name}
                yield _row("ease", network, **about, estimate=value, low=low, high=high, n_units=units)


def judge(
    *,
    path_to_legibility: str,
    path_to_page: str,
    paths_to_observers: Mapping[str, str],
    path_to_cells: str,
    path_to_responses: str | None = None,
    paths_to_units: Mapping[Grid, str] | None = None,
    paths_to_extremes: Mapping[Grid, str] | None = None,
    paths_to_interpretability: Mapping[str, str] | None = None,
    paths_to_visualisations: Mapping[Grid, Mapping[str, str]] | None = None,
    networks: Mapping[str, Mapping],
    conditions: Sequence[str],
    origins: Mapping[str, Mapping[str, Mapping[str, str]]],
    confidence: float,
    interventions: Sequence[str] = bridge.INTERVENTIONS,
    seed: int = 0,
    made: str | None = None,
) -> str:
    """Write `legibility.parquet`, and the same for readers as a page of HTML.

    Paths to observers and interpretability are by network, those to units, extremes and visualisations by network,
    layer and target, the last of these then by cell; the grids of extremes and visualisations are among those of units.
    `origins` says by network and step what their files must carry. `networks` says
    of each whether it is `untrained`; those that are not make the pooled rows. `conditions` are the study's, in the
    order of the page; without `none` there are no gains. `interventions` are the study's: a verdict takes a contrast
    under each of those that the bridge knows. `path_to_responses` has people's answers. `seed` is that of the permuted
    cells.
    """
    answers = _answers(paths_to_observers, path_to_responses, networks, conditions, origins)
    cells = _cells(path_to_cells, networks, answers)
    trained = [name for name, network in networks.items() if not network["untrained"]]
    present = [name for name in networks if (answers["network"] == name).any()]
    groups = {name: [name] for name in present}
    pooled = [name for name in present if name in trained]
    if len(pooled) > 1:
        groups = {POOLED: pooled} | groups
    gains = legibility.gains(answers)
    units = {grid: image_sets.units(path, UNITS) for grid, path in (paths_to_units or {}).items()}
    paths = paths_to_units or {}
    known = _known(units, paths, paths_to_interpretability or {})
    rows = [*_left_out(units, paths, paths_to_extremes or {}), *_failed(units, paths, paths_to_visualisations or {})]
    for name, members in groups.items():
        own, of = answers[answers["network"].isin(members)], cells[cells["network"].isin(members)]
        gained = gains[gains["network"].isin(members)]
        rows += _bridged(gained, of, name, conditions, interventions, confidence, seed)
        rows += _seen(own, name, conditions, confidence)
        rows += _eased(own, known, name, conditions, confidence)
    parquet.write(path_to_legibility, rows, SCHEMA, made)
    untrained = [name for name in present if name not in trained]
    with files.whole(path_to_page) as partial:
        page = legibility_page.render(rows, list(groups), untrained, conditions, confidence)
        partial.write_text(page, encoding="utf-8")
    return f"{len(rows)} rows"
