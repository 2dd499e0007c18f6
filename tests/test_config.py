"""The config as it is given: a key that a file holds twice is refused, and the command line's text gets its types."""

import json
import os
import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from snakemake.cli import parse_config
from snakemake.utils import update_config

from inputs import config
from inputs.study import Study
from readout import StudyError
from workflow import ROOT

FILES = [ROOT / "config.yaml", *sorted((ROOT / "workflow" / "studies").glob("*.yaml"))]


# ---- keys that are there twice


def problems(tmp_path, text, name="study.yaml"):
    """What is said of a file, without its name; nothing where it passes."""
    file = tmp_path / name
    file.write_text(text)
    try:
        config.check_files([file])
    except StudyError as error:
        return str(error).removeprefix("config: ").replace(f"{file}: ", "").split("\n  ")
    return []


TWICE = [
    ("study: a\nseed: 1\nstudy: b\n", ["line 3: the key study is in line 1 already; keep one of the two"]),
    ("probes:\n  draws: 1\n  units: 2\n  draws: 3\n", ["line 4: the key draws is in line 2 already"]),
    ("networks:\n- name: a\n  layers: all\n  name: b\n", ["line 4: the key name is in line 2 already"]),
    ("probes: {draws: 1,\n  draws: 3}\n", ["line 2: the key draws is in line 1 already"]),
    ('study: a\n"study": b\n', ["line 2: the key study is in line 1 already"]),
    ("images: {labels: {1: 0, 0x1: 1}}\n", ["line 1: the key 1 is in line 1 already"]),
    ("a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n", ["line 2: the key a is in line 1", "line 4: the key a is in line 1", "line 3: the key c"]),
    # An anchor's own fault is told once, however often the anchor is used.
    ("a: &a {x: 1, x: 2}\nb: *a\nc: [*a, {<<: *a}]\n", ["line 1: the key x is in line 1 already"]),
    ("a: &a {x: 1}\nb: &b {y: 1}\nc:\n  <<: *a\n  <<: *b\n", ["line 5: the key << is in line 4 already; write <<: [*one, *other]"]),
    ('{"study": "a",\n"probes": {"draws": 3,\n\t"dr\\u0061ws": 4}, "study": "b"}', ["line 3: the key draws is in line 2", "line 3: the key study is in line 1"]),
    ('[{"a": 1},\n{"a":1,"a" :2}]', ["line 2: the key a is in line 2 already"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TWICE)
def test_a_key_that_is_there_twice_is_refused(tmp_path, text, expected):
    found = problems(tmp_path, text)
    assert len(found) == len(expected)
    assert all(map(str.startswith, found, expected)), found


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\nc:\n  x: 4\n  <<: *a\n",
        "a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b], x: 3}\nd: [*a, *a]\n",
        "a: &a {x: 1}\nb: {x: {x: *a}}\nc: [{x: 1}, {x: 2}]\n",
        "study: 'study: a'\n# study: b\n",
        'labels: {1: 0, "1": 1}\n',
        "a: &a [*a]\n",
        "",
        '{"a": "\\"a\\": {", "b": {"a": 1, "b": "}"}, "c": [{"a": 1}, {"a": 2}]}',
        '{\n\t"a":1,\n\t"b":\t{"a":1}\n}',
    ],
)
def test_a_key_that_is_there_once_passes(tmp_path, text):
    """Overriding what an anchor brings is no repetition, nor are equal keys of different mappings, or text."""
    assert problems(tmp_path, text) == []


def test_the_project_s_own_files_pass():
    """With config.yaml's anchor, which each network overrides; a file that is given twice is read as one."""
    assert "<<: *network" in FILES[0].read_text()
    config.check_files([*FILES, *map(str, FILES)])


def test_all_files_are_checked_and_named(tmp_path):
    for name in ("a.yaml", "b.json"):
        (tmp_path / name).write_text('{"x": 1,\n"x": 2}')
    with pytest.raises(StudyError) as error:
        config.check_files([FILES[0], tmp_path / "a.yaml", tmp_path / "b.json"])
    assert re.findall(r"(\w\.\w+): line 2: the key x", str(error.value)) == ["a.yaml", "b.json"]


def test_a_pipe_is_left_alone(tmp_path):
    """Snakemake has read it: to open it again would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe")
    config.check_files([tmp_path / "pipe"])


KEYS = st.sampled_from(["a", "b", "a b", '"', "{", "}", "\\", ":", "a\n", "<<", "é", "ab" * 40])
DOCUMENTS = st.recursive(
    st.none() | st.integers(-3, 3) | KEYS,
    # A list of pairs is an object, which may have a key twice.
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(KEYS, inner), min_size=1, max_size=4),
    max_leaves=12,
)


def written(value):
    """JSON, one line a key."""
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return "{" + ",".join(f"\n{json.dumps(key)}: {written(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def repeated(text):
    """The keys that Python's own reader finds more than once in an object, sorted."""
    found = []

    def note(pairs):
        keys = [key for key, _ in pairs]
        found.extend(key for i, key in enumerate(keys) if key in keys[:i])

    json.loads(text, object_pairs_hook=note)
    return sorted(found)


@given(st.lists(st.tuples(KEYS, DOCUMENTS), min_size=1, max_size=4))
@example([("a", [("b", None), ("b", 1)]), ("a", "{")])
def test_repeated_keys_of_any_file_are_found_in_their_lines(tmp_path_factory, pairs):
    """In JSON and, behind a comment, the same text as YAML; in each line that is named stands the key."""
    for above in ("", "# YAML\n"):
        text = above + written(pairs)
        lines, keys = text.split("\n"), []
        for problem in problems(tmp_path_factory.getbasetemp(), text):
            numbers = re.match(r"line (\d+): the key .* is in line (\d+) already; ", problem, re.DOTALL)
            line, first = map(int, numbers.groups())
            key = json.loads(re.match(r'("(?:[^"\\]|\\.)*"): ', lines[line - 1])[1])
            assert first < line
            assert lines[first - 1].startswith(f"{json.dumps(key)}: ")
            keys.append(key)
        assert sorted(keys) == repeated(written(pairs))


# ---- the command line


def from_command_line(*entries):
    """What the workflow makes of `--config`, read by Snakemake's own function."""
    return config.from_command_line(parse_config(entries))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_whatever_a_file_says_the_command_line_can_say(file):
    """Snakemake makes text of whatever is inside a value; the study gets what the file would have given it."""
    values = yaml.safe_load(file.read_text())
    given = parse_config([f"{key}={json.dumps(value)}" for key, value in values.items()])
    assert config.from_command_line(given) == values
    # Negative control: Snakemake alone would not do.
    assert given != values


def at(path, value):
    """A config with a value at a path of keys; 0 stands for a list of one."""
    for key in reversed(path.split(".")):
        value = [value] if key == "0" else {key: value}
    return value


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("probes.published.draws", "20", 20),
        ("probes.published.C", "20", 20),
        ("probes.published.C", "0.5", 0.5),
        ("probes.published.C", "1e-3", 0.001),
        ("probes.published.C", ".5", 0.5),
        ("probes.crossfit.C", "2.0", 2.0),
        ("probes.crossfit.C", "[1, 10.0]", [1, 10.0]),
        ("ablations.protocols", "[published]", ["published"]),
        ("controls.pseudo", "0", 0),
        ("controls.layers", "3", 3),
        ("controls.layers", "all", "all"),
        ("controls.layers", "[conv1]", ["conv1"]),
        # Of the right type and out of range: that is what is to be said.
        ("probes.published.draws", "0", 0),
        ("networks.0.layers", "0", 0),
        # Numbers beside words, lists and mappings.
        ("networks.0.layers", "6", 6),
        ("networks.0.layers", "blocks", "blocks"),
        ("networks.0.layers", '["6", 7]', ["6", "7"]),
        ("networks.0.weights", "random", "random"),
        ("networks.0.weights.epochs", "3", 3),
        ("networks.0.outputs", "1000", 1000),
        ("networks.0.transform.resize", "null", None),
        ("networks.0.transform.resize", "256", 256),
        ("networks.0.transform.resize", "[48, 64]", [48, 64]),
        ("networks.0.transform.mean", "[0, 0.5, 1e-1]", [0, 0.5, 0.1]),
        ("images.labels", "{3: 7, x: 8}", {"3": 7, "x": 8}),
        # What may be text stays text.
        ("networks.0.name", "7", "7"),
        ("networks.0.targets", "[3, null, x]", ["3", "null", "x"]),
        ("networks.0.classes", "all", "all"),
        ("figures.target", "3", "3"),
        ("images.path", "5", "5"),
        ("images.path", "~", "~"),
        ("images.labels", "labels.tsv", "labels.tsv"),
        # But for null.
        ("figures.target", "null", None),
        ("figures.layer", "null", None),
        ("images.path", "null", None),
        ("images.labels", "null", None),
        ("controls", "null", None),
        ("importance", "null", None),
        ("ablations.shapley", "null", None),
        ("importance.keep", "null", None),
        ("probes.crossfit", "null", None),
    ],
)  # fmt: skip
def test_text_becomes_what_the_schema_asks_for(path, text, value):
    top, *below = path.split(".")
    inside = text
    for key in reversed(below):
        inside = f"[{inside}]" if key == "0" else f"{{{key}: {inside}}}"
    found = from_command_line(f"{top}={inside}")
    assert found == at(path, value)
    assert json.dumps(found) == json.dumps(at(path, value))  # which tells 20 from 20.0 and from true


@pytest.mark.parametrize("text", ["ten", "20.0", "2e1", "0x14", "024", "1_000", "+-2", "true", "null", '" 20"', '"20\\n"', "²", "٢", "9" * 5000, "[20]"])  # fmt: skip
def test_text_that_is_no_whole_number_is_refused(text, default):
    given = parse_config([f'probes={{"published": {{"draws": {text}}}}}'])
    assert config.from_command_line(given) == given
    update_config(default, given)
    with pytest.raises(StudyError, match=r"config: probes\.published\.draws: .*random draws of units"):
        Study(default)


@pytest.mark.parametrize("text", ["nan", ".inf", "1e999", "9" * 400, "0,5", "1.0.0", "e5", ".", "0x1p3"])
def test_text_that_is_no_number_stays(text):
    assert from_command_line(f"probes={{published: {{C: '{text}'}}}}") == at("probes.published.C", text)


@pytest.fixture
def default():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def test_text_in_a_file_is_no_number(default):
    """Nothing but the command line is converted."""
    default["probes"]["published"]["draws"] = "20"
    with pytest.raises(StudyError, match=r"probes\.published\.draws: '20' is not of type 'integer'"):
        Study(default)


def test_unknown_keys_and_odd_shapes_stay(default):
    """To be refused by the schema, with its own words."""
    for entry in ("probs={draws: 20}", "probes={drawz: 20}", "probes={draws: 20}", "probes=20", "probes=[20]", "networks={draws: 20}", "seed={a: &a [*a]}"):  # fmt: skip
        given = parse_config([entry])
        assert config.from_command_line(given).keys() == given.keys()
        with pytest.raises(StudyError, match="config: "):
            Study(default | config.from_command_line(given))
    assert from_command_line("probes={drawz: 20}") == {"probes": {"drawz": "20"}}


def test_truth_values_are_taken(monkeypatch):
    """The schema has none so far."""
    part = {"properties": {"on": {"type": "boolean"}, "name": {"type": "string"}}}
    monkeypatch.setattr(config, "schema", lambda: {"properties": {"part": part}})
    assert from_command_line("part={on: true, name: true}") == {"part": {"on": True, "name": "true"}}
    assert from_command_line("part={on: False}") == {"part": {"on": False}}
    assert from_command_line("part={on: 1}") == {"part": {"on": "1"}}


def test_the_commands_of_the_documentation_are_taken():
    assert from_command_line('images={"path": "/data/imagenet"}') == {"images": {"path": "/data/imagenet"}}
    assert from_command_line("seed=1", "study=seed1") == {"seed": 1, "study": "seed1"}
