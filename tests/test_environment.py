"""What the repository promises around the code: lock, linters, list of assumptions, no foreign paths."""

import re
import shlex
import sys
from importlib.metadata import version

import pytest
import yaml
from packaging.requirements import Requirement

from workflow import ROOT, ran

SOURCES = sorted(
    path
    for folder in ("workflow", "tests", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".smk", ".yaml", ".md", ".rst")
) + [ROOT / name for name in ("Snakefile", "config.yaml", "README.md", "Makefile", "pyproject.toml")]


def locked():
    lines = (ROOT / "envs" / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_conda_environment_has_the_versions_of_the_lock():
    study = yaml.safe_load((ROOT / "envs" / "study.yaml").read_text())
    pip = next(entry["pip"] for entry in study["dependencies"] if isinstance(entry, dict))
    assert sorted(map(str, map(Requirement, pip))) == sorted(map(str, locked()))


def test_every_package_of_the_lock_is_pinned_and_installed():
    for requirement in locked():
        assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), requirement
        if requirement.marker is None or requirement.marker.evaluate():
            assert version(requirement.name) in requirement.specifier, requirement.name


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "workflow", "tests"],
        ["ruff", "format", "--check", "workflow", "tests"],
        ["snakefmt", "--check", "Snakefile", "workflow"],
        ["snakemake", "--lint"],
        ["snakemake", "--lint", "--snakefile", "workflow/Snakefile"],
    ],
    ids=" ".join,
)
def test_linters_find_nothing(command):
    done = ran([sys.executable, "-m", *command], cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_assumption_is_in_the_documentation():
    """A choice that the paper leaves open is marked where it acts, and listed."""
    documented = re.sub(r"\s+", " ", (ROOT / "docs" / "protocol.md").read_text())
    found = []
    for path in SOURCES:
        if path.suffix in (".py", ".smk", ".yaml") and "tests" not in path.relative_to(ROOT).parts:
            for match in re.findall(r"ASSUME: (.+)", path.read_text()):
                found.append((str(path.relative_to(ROOT)), re.split(r"\"\"\"|\. |\.$", match)[0].rstrip(".")))
    assert len(found) >= 8
    missing = [(path, text) for path, text in found if f"| {path} | {text}" not in documented]
    assert missing == []


def test_planning_does_not_load_torch():
    """A dry run of tens of thousands of jobs must not wait for libraries that only the jobs need."""
    code = (
        "import sys, yaml; sys.path.insert(0, 'workflow');"
        "from inputs.study import Study; from runtime.code import digest;"
        "Study(yaml.safe_load(open('config.yaml'))); digest('ablations');"
        "sys.exit(bool({'torch', 'torchvision', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    assert ran([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_sources_name_no_place_of_one_machine():
    for path in SOURCES:
        assert not re.search(r"(?<![\w.])/(home|root|work|mnt|Users)/", path.read_text()), path


def collected(*arguments: str) -> set[str]:
    """The tests that pytest collects."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", *arguments]
    done = ran(command, cwd=ROOT, check=True)
    return {line for line in done.stdout.splitlines() if "::" in line}


def recipe(target: str) -> list[str]:
    """The arguments that a target of make gives to pytest."""
    lines = re.search(rf"^{target}: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    (command,) = [line for line in lines.splitlines() if "-m pytest" in line]
    return shlex.split(command.partition("-m pytest")[2])


@pytest.mark.slow
def test_the_fast_and_the_slow_tests_are_the_whole_collection():
    """`make test` leaves out what is marked slow, `make test-all` nothing, which is what must pass before a change lands."""
    fast, everything = collected(*recipe("test")), collected(*recipe("test-all"))
    slow = collected("-m", "slow")
    assert slow and fast
    assert fast.isdisjoint(slow)
    assert fast | slow == everything
    assert re.search(r"^make test-all$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
