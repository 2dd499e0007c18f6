"""Code: the hash of the modules that a step depends on, so that a changed line recomputes what depends on it."""

import ast
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from runtime import code
from workflow import ran

STEPS = (
    "images",
    "networks",
    "activations",
    "cells",
    "probes",
    "ablations",
    "controls",
    "shapley",
    "pseudo",
    "importance",
    "redundancy",
    "occlusions",
    "visualisations",
    "trials",
    "observers",
    "page",
    "tables",
    "claims",
    "faithfulness",
    "legibility",
    "sensitivity",
    "figures",
)

GATHERED = ("tables", "claims", "faithfulness", "legibility", "sensitivity")
"""Steps that depend on whatever the tables gather."""
OCCLUSION = ("occlusions", "visualisations", "trials", "observers", "page")
"""Steps of the occlusion task before its analysis."""


def _modules(step):
    return {str(path.relative_to(code.ROOT)) for path in code.modules(step)}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_depends_on_its_own_module(step):
    """And on the package's errors."""
    entry = f"jobs/{step}.py"
    assert {entry, "readout/__init__.py"} <= _modules(step)


# What a changed line must not recompute: a step's modules against the modules that it has no business with.
APART = [
    (
        "images",
        "networks activations cells probes ablations controls shapley pseudo redundancy tables outcomes claims figures",
    ),
    (
        "networks",
        "activations cells probes ablations controls shapley pseudo redundancy tables outcomes claims figures",
    ),
    ("activations", "cells probes ablations controls shapley pseudo redundancy tables outcomes claims figures"),
    ("cells", "groups probes ablations controls shapley pseudo redundancy tables outcomes claims figures"),
    ("probes", "ablations controls shapley pseudo redundancy tables outcomes claims figures"),
    ("ablations", "probes controls shapley pseudo redundancy tables outcomes claims figures"),
    ("controls", "probes shapley pseudo importance redundancy tables outcomes claims figures"),
    ("shapley", "controls pseudo tables claims faithfulness figures"),
    ("pseudo", "shapley importance redundancy tables outcomes claims figures"),
    ("importance", "shapley pseudo redundancy tables outcomes claims faithfulness figures"),
    ("redundancy", "controls shapley pseudo importance tables claims faithfulness figures"),
    ("occlusions", "probes ablations controls visualisations trials observers page tables legibility figures"),
    ("visualisations", "cells probes ablations trials observers page tables legibility figures"),
    ("trials", "probes ablations observers page tables legibility figures"),
    ("observers", "probes ablations page tables legibility figures"),
    ("page", "probes ablations observers tables legibility figures"),
    ("tables", "occlusions visualisations trials observers claims faithfulness legibility figures"),
    ("legibility", "faithfulness figures"),
    ("claims", "faithfulness figures"),
    ("faithfulness", "claims figures"),
    ("sensitivity", "faithfulness figures"),
]


@pytest.mark.parametrize(("step", "apart"), APART, ids=[step for step, _ in APART])
def test_a_step_does_not_depend_on_later_ones(step, apart):
    """A line of the ablations changed must not fit the probes again."""
    found = _modules(step)
    assert not found & {f"{package}/{other}.py" for package in code.PACKAGES for other in apart.split()}


@pytest.mark.parametrize("step", STEPS)
def test_no_step_depends_on_the_enumeration(step):
    """`study.py` and what builds the DAG change nothing in a job but its inputs and params."""
    assert not _modules(step) & {"inputs/study.py", "runtime/code.py", "runtime/progress.py"}


@pytest.mark.parametrize(
    ("step", "needed"),
    [
        ("images", ["readout/images.py", "inputs/datasets.py", "runtime/parquet.py"]),
        (
            "networks",
            [
                "readout/models.py",
                "readout/engine.py",
                "readout/relatives.py",
                "readout/training.py",
                "readout/images.py",
            ],
        ),
        (
            "activations",
            [
                "readout/activations.py",
                "readout/scores.py",
                "readout/models.py",
                "readout/engine.py",
                "runtime/cache.py",
            ],
        ),
        ("cells", ["readout/cells.py"]),
        ("probes", ["readout/probes.py", "readout/groups.py", "jobs/groups.py", "jobs/cells.py"]),
        (
            "ablations",
            [
                "readout/ablations.py",
                "readout/scores.py",
                "readout/models.py",
                "readout/engine.py",
                "readout/relatives.py",
                "jobs/groups.py",
            ],
        ),
        ("controls", ["jobs/ablations.py", "jobs/groups.py", "readout/ablations.py", "readout/groups.py"]),
        (
            "pseudo",
            ["jobs/ablations.py", "jobs/controls.py", "readout/cells.py", "readout/folds.py", "readout/probes.py"],
        ),
        ("shapley", ["jobs/ablations.py", "jobs/groups.py", "readout/shapley.py", "readout/outcomes.py"]),
        (
            "importance",
            ["jobs/controls.py", "readout/importance.py", "readout/gradients.py", "readout/similarity.py"],
        ),
        ("faithfulness", ["jobs/tables.py", "readout/faithfulness.py", "readout/faithfulness_page.py"]),
        (
            "redundancy",
            [
                "jobs/ablations.py",
                "jobs/groups.py",
                "readout/activations.py",
                "readout/cuts.py",
                "readout/outcomes.py",
                "readout/probes.py",
                "readout/redundancy.py",
            ],
        ),
        (
            "tables",
            [
                "readout/outcomes.py",
                "readout/folds.py",
                "jobs/pseudo.py",
                "jobs/importance.py",
                "jobs/redundancy.py",
                "jobs/shapley.py",
            ],
        ),
        ("occlusions", ["readout/occluders.py", "readout/squares.py", "readout/blur.py", "readout/baselines.py"]),
        ("visualisations", ["readout/visualisations.py", "readout/cuts.py", "jobs/pictures.py"]),
        ("trials", ["readout/conditions.py", "readout/occluders.py", "jobs/visualisations.py", "jobs/pictures.py"]),
        ("observers", ["readout/observers.py", "readout/baselines.py", "jobs/trials.py"]),
        ("legibility", ["readout/legibility.py", "readout/bridge.py", "readout/legibility_page.py", "jobs/tables.py"]),
        ("claims", ["readout/claims.py", "jobs/tables.py"]),
        ("sensitivity", ["readout/verdicts.py", "jobs/claims.py", "runtime/subprocesses.py"]),
        ("figures", ["readout/figures.py", "readout/sensitivity.py"]),
    ],
)
def test_a_step_depends_on_its_mathematics(step, needed):
    """Directly or by way of other modules."""
    assert set(needed) <= _modules(step)


PUBLIC = code.ROOT / "readout_study"
"""What users install; it lies beside the study's code and has no part in it."""


def _packages(path):
    """The packages that a module imports, at the top or inside a function, by their first names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, path
            found.add(node.module.split(".")[0])
    return found


def test_what_opens_a_study_imports_pandas_and_pyarrow_alone():
    """Where it is installed there is nothing else of the project, and neither torch nor Snakemake."""
    assert PUBLIC.is_dir()
    found = set().union(*map(_packages, PUBLIC.rglob("*.py")))
    assert found - sys.stdlib_module_names == {"pandas", "pyarrow", "readout_study"}


def test_nothing_of_the_study_depends_on_what_opens_it():
    """A changed line of it makes nothing anew, and what a study writes does not depend on how it is read."""
    assert "readout_study" not in code.PACKAGES
    modules = [path for path in code.ROOT.rglob("*.py") if not path.is_relative_to(PUBLIC)]
    assert len(modules) >= 100
    assert [path for path in modules if "readout_study" in _packages(path)] == []
    rules = [*code.ROOT.rglob("*.smk"), code.ROOT.parent / "Snakefile"]
    assert [path for path in rules if "readout_study" in path.read_text()] == []


def test_every_module_that_is_loaded_is_counted():
    """In a fresh process: what importing a step really loads of the project is what its hash covers."""
    program = f"""
import importlib, json, sys
sys.path.insert(0, {str(code.ROOT)!r})
found = {{}}
for step in {STEPS[:-1]!r}:
    for name in [name for name in sys.modules if name.split(".")[0] in {code.PACKAGES!r}]:
        del sys.modules[name]
    importlib.import_module(f"jobs.{{step}}")
    found[step] = [m.__file__ for name, m in sys.modules.items() if name.split(".")[0] in {code.PACKAGES!r}]
print(json.dumps(found))
"""
    out = ran([sys.executable, "-c", program], check=True).stdout
    for step, files in json.loads(out).items():
        assert {str(Path(file).relative_to(code.ROOT)) for file in files} == _modules(step), step


@pytest.fixture
def copy(tmp_path):
    """The project's code in a copy that a test may change, and a way to take its hashes anew."""
    for package in code.PACKAGES:
        shutil.copytree(code.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def digests() -> dict[str, str]:
        spec = importlib.util.spec_from_file_location("copied_code", tmp_path / "runtime" / "code.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return {step: module.digest(step) for step in STEPS}

    return tmp_path, digests


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        (
            "readout/ablations.py",
            {"ablations", "controls", "shapley", "pseudo", "importance", "redundancy", *GATHERED},
        ),
        ("jobs/ablations.py", {"ablations", "controls", "shapley", "pseudo", "importance", "redundancy", *GATHERED}),
        ("jobs/controls.py", {"controls", "pseudo", "importance", *GATHERED}),
        (
            "readout/groups.py",
            set(STEPS) - {"images", "networks", "activations", "cells", "figures", *OCCLUSION[1:]},
        ),
        ("readout/probes.py", {"probes", "shapley", "pseudo", "importance", "redundancy", *GATHERED}),
        ("readout/claims.py", {"claims", "legibility", "sensitivity", "figures"}),
        ("readout/occluders.py", {"legibility", *OCCLUSION} - {"visualisations"}),
        ("readout/visualisations.py", {"legibility", *OCCLUSION} - {"occlusions"}),
        ("readout/observers.py", {"observers"}),
        ("readout/answers.py", {"page"}),
        ("readout/legibility.py", {"legibility", "figures"}),
        ("readout/outcomes.py", {"shapley", "redundancy", *GATHERED}),
        ("readout/folds.py", set(STEPS) - {"figures"}),
        ("jobs/pseudo.py", {"pseudo", *GATHERED}),
        ("jobs/redundancy.py", {"redundancy", *GATHERED}),
        ("readout/redundancy.py", {"redundancy", *GATHERED}),
        ("jobs/shapley.py", {"shapley", *GATHERED}),
        ("readout/shapley.py", {"shapley", *GATHERED}),
        ("readout/importance.py", {"importance", *GATHERED}),
        ("readout/faithfulness.py", {"faithfulness", "figures"}),
        ("jobs/sensitivity.py", {"sensitivity"}),
        ("readout/sensitivity.py", {"figures"}),
        ("readout/figures.py", {"figures"}),
        ("jobs/figures.py", {"figures"}),
        ("inputs/study.py", set()),
        ("readout/relatives.py", set(STEPS) - {"images", "figures"}),
        ("readout/planted.py", set(STEPS) - {"figures"}),
        ("readout/planted_network.py", set(STEPS) - {"images", "figures"}),
        ("readout/layer_names.py", set()),
        ("readout/named.py", set(STEPS) - {"images", "figures"}),
        ("readout/soundness.py", set(STEPS) - {"images", "figures"}),
        ("readout/layers.py", set(STEPS) - {"images", "figures"}),
        ("inputs/weights.py", set(STEPS) - {"images", "figures"}),
        ("inputs/datasets.py", set(STEPS) - {"figures"}),
        ("readout/__init__.py", set(STEPS)),
    ],
)
def test_a_changed_line_changes_the_hashes_that_it_should(copy, file, changed):
    """And no others; the tables read the schemas of the steps before them."""
    root, digests = copy
    before = digests()
    assert before == {step: code.digest(step) for step in STEPS}
    with (root / file).open("a") as source:
        source.write("# a line more\n")
    after = digests()
    assert {step for step in STEPS if before[step] != after[step]} == changed


def test_hashes_do_not_depend_on_the_place(copy, monkeypatch):
    """A clone elsewhere over kept results must not compute again."""
    monkeypatch.chdir(copy[0])
    assert copy[1]() == {step: code.digest(step) for step in STEPS}
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in copy[1]().values())


def test_imports_inside_functions_count(copy):
    """A module imported late is depended on all the same."""
    root, digests = copy
    before = digests()
    with (root / "readout" / "scores.py").open("a") as source:
        source.write(
            "\n\ndef late():\n    import readout.figures as f\n    from readout import claims\n    return f, claims\n"
        )
    middle = digests()
    assert before["activations"] != middle["activations"]
    for file in ("figures", "claims"):
        with (root / "readout" / f"{file}.py").open("a") as source:
            source.write("# a line more\n")
        after = digests()
        assert after["activations"] != middle["activations"]
        middle = after


def test_the_hash_of_a_file(tmp_path):
    """Content alone: the name and the time do not matter."""
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    os.utime(tmp_path / "b", (0, 0))
    assert code.file_digest(tmp_path / "a") == code.file_digest(str(tmp_path / "b"))
    (tmp_path / "b").write_text("y")
    assert code.file_digest(tmp_path / "a") != code.file_digest(tmp_path / "b")
