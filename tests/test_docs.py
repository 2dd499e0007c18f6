"""README.md and docs/: links lead somewhere, files and targets are there, commands are known; metadata keep in step."""

import functools
import os
import re
import shlex
import sys

import pytest
import yaml

from workflow import ROOT, ran

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?:    .*\n)+")
INLINE = re.compile(r"`([^`\n]+)`")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def commands(page):
    """Lines of code blocks without a language, and code within lines."""
    text = page.read_text()
    blocks = [block for language, block in FENCED.findall(text) if not language]
    prose = FENCED.sub("", text)
    lines = "".join(blocks + INDENTED.findall(prose)).splitlines()
    return [line.strip() for line in lines] + INLINE.findall(INDENTED.sub("", prose))


def anchors(page):
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page):
    """Files that are there, and headings that they have."""
    links = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text()))
    for link in links:
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme():
    """By a name under "Where things are", where all names are of things that exist."""
    section = re.search(r"## Where things are\n(?:(?!    ).*\n)*((?:    .*\n)+)", (ROOT / "README.md").read_text())[1]
    named = [name for line in section.splitlines() for name in re.split(r"\s{2,}", line[4:])[0].split(", ") if name]
    assert len(named) >= 14
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert set(re.findall(r"\b(\w+\.md) \(", section)) == {page.name for page in (ROOT / "docs").glob("*.md")}


@functools.cache
def targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@each_page
def test_targets_of_make_are_there(page):
    used = {words[1] for line in commands(page) if len(words := line.split()) > 1 and words[0] == "make"}
    assert used <= targets()


@functools.cache
def options():
    command = [sys.executable, "-m", "snakemake", "--help"]
    done = ran(command, check=True)
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", done.stdout))


@each_page
def test_commands_of_snakemake_are_known(page):
    """Every option, and every study that is named by its path in the repository."""
    for line in commands(page):
        words = shlex.split(line, comments=True) if line.startswith("snakemake ") else []
        # Options of reporters are known where these are installed.
        used = {word for word in words if word.startswith("-") and not word.startswith("--report-")}
        assert used <= options(), line
        for word in words:
            assert not word.startswith("workflow/") or (ROOT / word).is_file(), line


@each_page
def test_files_of_the_repository_that_are_named_are_there(page):
    """Paths that begin with a folder of the repository; not patterns, and not those that the page says are not there."""
    folders = ("docs/", "envs/", "profiles/", "tests/", "workflow/")
    absent = {"extending.md": {"workflow/report/supplement_brier.rst"}}
    for code in commands(page):
        for word in (each.rstrip(",") for each in code.split()):
            if word.startswith(folders) and "{" not in word and word not in absent.get(page.name, ()):
                assert (ROOT / word).exists(), word


# ---- metadata


def test_the_citation_is_of_the_newest_version():
    """Citation File Format 1.2.0: its required keys, and those that we promise; the version is the changelog's."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {
        "title",
        "message",
        "authors",
        "abstract",
        "keywords",
        "license",
        "version",
        "references",
    }
    assert all({"name"} <= author.keys() or {"family-names"} <= author.keys() for author in citation["authors"])
    assert all(reference.keys() >= {"type", "title", "authors"} for reference in citation["references"])
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == newest[1]
    assert citation["license"] in (ROOT / "LICENSE").read_text()


def test_the_changelog_separates_what_changes_results():
    """Every version has both lists, in this order, and nothing outside of them."""
    versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert versions
    for version in versions:
        head, *parts = re.split(r"^### ", version, flags=re.MULTILINE)
        assert "\n- " not in head
        assert [part.splitlines()[0] for part in parts] == ["Changes results", "Does not change results"]


def test_the_catalog_s_metadata_parse():
    """The keys that the catalog of Snakemake workflows reads."""
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert all(isinstance(deployment[key], bool) for key in ("conda", "apptainer", "apptainer+conda", "report"))
    # Rules that say so would have to be there.
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    assert deployment["conda"] == bool(re.search(r"^\s+conda:", rules, re.MULTILINE))
    assert usage["report"] == deployment["report"] == ("report(" in rules)


def test_the_catalog_lists_the_repository():
    """What its generator asks of every workflow, in the order in which it asks: docs/sharing.md."""
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    folder = ROOT / "workflow" if (ROOT / "workflow").exists() else ROOT
    assert (folder / "Snakefile").is_file()
    assert not (folder / "rules").exists() or list((folder / "rules").glob("*.smk"))
    # For standardised usage it asks for this file too, which docs/sharing.md says is not there.
    assert not (ROOT / "config" / "README.md").exists()


ABSENT = """
import os, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["ABSENT"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
"""Executed by Python when it starts, where it is called sitecustomize."""


def test_the_catalog_can_lint_without_the_study_s_packages(tmp_path):
    """Its environment has what Snakemake needs, numpy and pandas; of this project's packages it lacks the others."""
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    shared = {"numpy", "pandas", "snakemake", "jsonschema", "pyyaml"}
    modules = {"scikit-learn": "sklearn", "pillow": "PIL"}
    used, _, _ = (ROOT / "envs" / "requirements.txt").read_text().partition("# What these need.")
    packages = set(re.findall(r"^([\w-]+)==", used, re.MULTILINE))
    assert {"pillow", "torch", "pyarrow"} <= packages
    absent = ",".join(modules.get(name, name) for name in packages - shared)
    environment = os.environ | {"ABSENT": absent, "PYTHONPATH": str(tmp_path)}
    # A study without results, as in a fresh clone: those that are there would be read.
    command = [sys.executable, "-m", "snakemake", "--lint", "--config", "study=none"]
    done = ran(command, cwd=ROOT, env=environment)
    # Whether it finds anything is another test's (test_environment.py).
    assert re.search("Lints for rule|workflow is in a good condition", done.stderr + done.stdout)
    assert "No module named" not in done.stderr
    # Negative control: they are really out of reach.
    command = [sys.executable, "-c", "import torch"]
    done = ran(command, env=environment)
    assert "No module named 'torch'" in done.stderr
