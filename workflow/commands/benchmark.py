"""Scores methods on the network whose truth is known, and writes docs/benchmark.md and its figure: `make benchmark`.

With `--method FILE` it scores the functions of that file instead, and prints what they find.
"""

import argparse
import importlib.util
import inspect
import itertools
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from readout import StudyError, benchmark
from readout.benchmark import ALL, BOUNDS, EXPECTED, FOUND_IN_NULL, METHODS, MOST, NULL_ROLES, ROLES, Method
from runtime import process

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = ROOT / "workflow" / "measures.yaml"
PAGE = ROOT / "docs" / "benchmark.md"
FIGURE = ROOT / "docs" / "figures" / "benchmark.png"
MARK = "<!-- The rest of this page is written by `make benchmark`. -->\n"
WORLDS, NULL_WORLDS = 80, 200
SLOW = {"mutual_information": (40, 10)}
"""In how many worlds of either network a method is tried that takes as long as all others together."""
CALLED = {"shapley": "Shapley value", ALL: "used / unused"}
"""What roles and methods are called that are not called by their own names, beside the labels of measures."""
ANY = "any of these"


@dataclass(frozen=True)
class Task:
    """A world of one of the networks, and the names of the methods that are tried in it."""

    null: bool
    seed: int
    methods: tuple[str, ...]


_own: dict[str, Method] = {}
"""The methods of the file of `--method`, in each process."""


def of_file(path: Path) -> dict[str, Method]:
    """The functions that a file of Python defines, by name, as methods; those whose names begin with `_` are not."""
    if not path.is_file():
        raise StudyError(f"--method {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == path.stem and not name.startswith("_")
    }
    if not found:
        raise StudyError(f"--method {path}: defines no function; a method is a function of a Bench")
    return found


def _start(path: Path | None) -> None:
    """What a process needs before its first task."""
    process.prepare()
    _own.update(of_file(path) if path else {})


def rows(task: Task) -> list[dict]:
    """What each method of a task says, by role: an AUROC, or whether the role is found in the null network."""
    bench, truth = benchmark.world(task.seed, null=task.null)
    judge = benchmark.found if task.null else benchmark.scores
    return [
        {"null": task.null, "seed": task.seed, "method": name, "role": role, "value": float(value)}
        for name in task.methods
        for role, value in judge(benchmark.told(name, (METHODS | _own)[name](bench), bench), truth).items()
    ]


def tasks(methods: Sequence[str], worlds: int, null_worlds: int) -> Iterator[Task]:
    """Every world of both networks."""
    for null, count in ((False, worlds), (True, null_worlds)):
        most = {name: SLOW[name][null] if name in SLOW else count for name in methods}
        for seed in range(count):
            yield Task(null, seed, tuple(name for name in methods if seed < most[name]))


def table(todo: Sequence[Task], processes: int, path: Path | None = None) -> pd.DataFrame:
    """The rows of all tasks, in their order whatever the number of processes."""
    if processes == 1:
        _start(path)
        return pd.DataFrame(itertools.chain.from_iterable(map(rows, todo)))
    # Not forked: torch's threads would be missing in the copies.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (path,)) as pool:
        return pd.DataFrame(itertools.chain.from_iterable(pool.map(rows, todo, chunksize=5)))


def areas(found: pd.DataFrame) -> pd.DataFrame:
    """Mean, least and greatest AUROC over worlds by method and role, in their order."""
    of = found[~found["null"]].groupby(["method", "role"], sort=False)["value"]
    return of.agg(["mean", "min", "max"])


def shares(found: pd.DataFrame) -> pd.DataFrame:
    """Share of null worlds in which a method (rows) finds each role, and any of them; and the number of worlds."""
    null = found[found["null"]].pivot(index=["method", "seed"], columns="role", values="value")[list(NULL_ROLES)]
    null[ANY] = null.max(axis=1)
    by = null.groupby("method")
    order = found["method"].unique()
    return by.mean().assign(worlds=by.size()).loc[order]


def disagreements(of_roles: pd.DataFrame, of_null: pd.DataFrame) -> list[str]:
    """Where methods find other than is expected of them."""
    found = []
    for method, role in of_roles.index:
        outcome = EXPECTED.get(method, {}).get(role)
        mean = of_roles.loc[(method, role), "mean"]
        if outcome and not BOUNDS[outcome][0] <= mean <= BOUNDS[outcome][1]:
            found.append(f"{method}, {role}: expected {outcome}, but the AUROC is {mean:.3f}")
    for method in of_null.index.intersection(list(EXPECTED)):
        by_design = FOUND_IN_NULL.get(method, ())
        for role in by_design:
            if of_null.loc[method, role] < 1 - MOST:
                found.append(
                    f"{method}, {role}: found in {of_null.loc[method, role]:.3f} of the null worlds, not in all"
                )
        if not by_design and of_null.loc[method, ANY] > MOST:
            found.append(f"{method}: finds something in {of_null.loc[method, ANY]:.3f} of the null worlds")
    return found


# ---- the page


def names(methods: Sequence[str]) -> dict[str, str]:
    """What roles and methods are called in tables and in the figure."""
    labels = {name: measure["label"] for name, measure in yaml.safe_load(REGISTRY.read_text()).items()}
    return {name: CALLED.get(name) or labels.get(name, name) for name in (*methods, *ROLES)}


def _entry(method: str, role: str, area: pd.Series) -> str:
    """The mean, bold where the method is blind, in italics where it is misled; and the range, if there is one."""
    outcome = EXPECTED.get(method, {}).get(role)
    mark = {"blind": "**", "misled": "*"}.get(outcome, "")
    least, greatest = f"{area['min']:.2f}", f"{area['max']:.2f}"
    unsaid = "" if outcome else "?"
    varies = "" if least == greatest else f" ({least} to {greatest})"
    return f"{mark}{area['mean']:.2f}{mark}{unsaid}{varies}"


def page(of_roles: pd.DataFrame, of_null: pd.DataFrame) -> str:
    """The part of the page that is made: the two tables."""
    methods = list(of_null.index)
    called = names(methods)
    lines = ["## The methods, by role", ""]
    lines += [f"| {' | '.join(['role', *(called[name] for name in methods)])} |", "|---" * (len(methods) + 1) + "|"]
    for role in ROLES:
        entries = (_entry(name, role, of_roles.loc[(name, role)]) for name in methods)
        lines.append(f"| {' | '.join([called[role], *entries])} |")
    lines += ["", "## The null network", ""]
    lines += [f"| {' | '.join(['method', *NULL_ROLES, ANY, 'worlds'])} |", "|---" * (len(NULL_ROLES) + 3) + "|"]
    for name in methods:
        by_design = FOUND_IN_NULL.get(name, ())
        entries = []
        for role in (*NULL_ROLES, ANY):
            share = f"{100 * of_null.loc[name, role]:.1f} %"
            entries.append(f"*{share}*" if role in by_design or (role == ANY and by_design) else share)
        lines.append(f"| {' | '.join([called[name], *entries, str(of_null.loc[name, 'worlds'])])} |")
    return "\n".join(lines) + "\n"


def draw(of_roles: pd.DataFrame, of_null: pd.DataFrame, worlds: tuple[int, int]) -> None:
    """Write the figure."""
    from jobs.figures import save  # here, since the processes that score draw nothing
    from readout import figures

    called = names(list(of_null.index))
    grid = of_roles["mean"].unstack("role").loc[of_null.index, list(ROLES)].T
    null = of_null[[*NULL_ROLES, ANY]].T
    outcomes = {called[m]: {called[role]: o for role, o in of.items()} for m, of in EXPECTED.items() if m in called}
    figures.style()
    save(
        figures.benchmark(grid.rename(index=called, columns=called), null.rename(columns=called), outcomes, worlds),
        [FIGURE],
    )


def report(of_roles: pd.DataFrame, of_null: pd.DataFrame) -> str:
    """What a file's methods find, as lines to read."""
    lines = []
    for method in of_null.index:
        lines += [method, '  AUROC for "the network uses it", mean (least to greatest) over worlds']
        for role in ROLES:
            area = of_roles.loc[(method, role)]
            lines.append(f"    {role:<12} {area['mean']:.3f} ({area['min']:.3f} to {area['max']:.3f})")
        lines.append(f"  null network: share of {of_null.loc[method, 'worlds']} worlds in which a role is found")
        lines += [f"    {role:<12} {of_null.loc[method, role]:.3f}" for role in (*NULL_ROLES, ANY)]
    return "\n".join(lines)


def main() -> None:
    """Score, and write or print."""
    parser = argparse.ArgumentParser(prog="make benchmark", description=__doc__)
    parser.add_argument("--method", type=Path, help="a file of methods of your own")
    parser.add_argument("--worlds", type=int, default=WORLDS, help=f"worlds of the network (default {WORLDS})")
    parser.add_argument("--null", type=int, default=NULL_WORLDS, help=f"of the null network (default {NULL_WORLDS})")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one a core")
    given = parser.parse_args()
    if min(given.worlds, given.null, given.processes) < 1:
        parser.error("--worlds, --null and --processes must be at least 1")
    try:
        methods = list(of_file(given.method) if given.method else METHODS)
        todo = list(tasks(methods, given.worlds, given.null))
        found = table(todo, given.processes, given.method)
    except StudyError as error:
        sys.exit(f"error: {error}")
    of_roles, of_null = areas(found), shares(found)
    if given.method:
        print(report(of_roles, of_null))
        return
    head, mark, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(head + mark + "\n" + page(of_roles, of_null))
    draw(of_roles, of_null, (given.worlds, given.null))
    print(f"wrote {PAGE.relative_to(ROOT)} and {FIGURE.relative_to(ROOT)}")
    if wrong := disagreements(of_roles, of_null):
        sys.exit("error: EXPECTED in workflow/readout/benchmark.py says otherwise:\n  " + "\n  ".join(wrong))


if __name__ == "__main__":
    main()
