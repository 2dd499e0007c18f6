"""The configuration as it was given: keys that a file holds twice, and text from the command line.

Snakemake reads both before the workflow begins. Of a key that a file holds twice it keeps the last, and whatever stands
inside a value of `--config` it hands over as text.
"""

import contextlib
import itertools
import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from inputs.study import VALIDATOR, schema
from readout import StudyError

MERGE = "tag:yaml.org,2002:merge"
JSON_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}]')
"""A string, with the colon that makes it a key, or the beginning or end of an object."""
# Not with zeros in front, which make an octal number in a config file.
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
WORDS = {"null": None, "true": True, "True": True, "false": False, "False": False}
"""The words for values: YAML's, and Python's, which Snakemake takes where they are all that a key is given."""


def check_files(files: Iterable[str | Path]) -> None:
    """Refuse config files in which one mapping holds a key twice; `files` are those that Snakemake has read.

    A key that overrides one of an anchor merged into its mapping (`<<: *anchor`) is there once. Raises StudyError with
    each file, line and key.
    """
    problems = []
    for file in dict.fromkeys(map(Path, files)):
        # A pipe can be read only once, and Snakemake has done so.
        if file.is_file():
            problems += [f"{file}: {problem}" for problem in _repeated(file.read_text(encoding="utf-8"))]
    if problems:
        raise StudyError("config: " + "\n  ".join(problems))


def _repeated(text: str) -> Iterator[str]:
    try:
        json.loads(text)  # as Snakemake does: JSON first
        keys = _json_keys(text)
    except ValueError:
        keys = _yaml_keys(yaml.compose(text, yaml.FullLoader))
    lines = {}
    for mapping, key, line in keys:
        if (mapping, key) in lines:
            way_out = "write <<: [*one, *other]" if key == "<<" else "keep one of the two"
            yield f"line {line}: the key {key} is in line {lines[mapping, key]} already; {way_out}"
        lines.setdefault((mapping, key), line)


def _json_keys(text: str) -> Iterator[tuple[int, str, int]]:
    """Each key of valid JSON, with a number of its object and its line."""
    objects, number = [], itertools.count()
    for token in JSON_TOKEN.finditer(text):
        if token[0] == "{":
            objects.append(next(number))
        elif token[0] == "}":
            objects.pop()
        elif token[2]:
            yield objects[-1], json.loads(token[1]), text.count("\n", 0, token.start()) + 1


def _yaml_keys(root: yaml.Node | None) -> Iterator[tuple[int, Hashable, int]]:
    """Each key of a YAML document, with a number of its mapping and its line."""
    constructor = yaml.FullLoader("")
    seen, left = set(), [root]
    while left:
        node = left.pop()
        # What an anchor names is written once, however often it is used.
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, yaml.MappingNode):
            for key, _ in node.value:
                name = key.value if key.tag == MERGE else constructor.construct_object(key, deep=True)
                yield id(node), name, key.start_mark.line + 1
            left += [value for _, value in reversed(node.value)]
        elif isinstance(node, yaml.SequenceNode):
            left += reversed(node.value)


def from_command_line(given: Mapping) -> Mapping:
    """What `--config` says, with the types that the schema asks for.

    A text that writes a number, a truth value or null becomes one where the schema admits that type and not the text.
    Where it admits both, `null` becomes null, as it would in a file, and any other text stays: the class 3 is "3"
    either way. What fits nothing in the schema stays as it is, to be refused.
    """
    return _typed(given, schema())


def _typed(given: object, schema: Mapping) -> Any:
    ways = [schema, *schema.get("oneOf", ())]
    if isinstance(given, Mapping):
        known = {key: part for way in ways for key, part in way.get("properties", {}).items()}
        other = next((way["additionalProperties"] for way in ways if way.get("additionalProperties")), {})
        return {key: _typed(value, known.get(key, other)) for key, value in given.items()}
    if isinstance(given, list):
        item = next((way["items"] for way in ways if "items" in way), None)
        return given if item is None else [_typed(value, item) for value in given]
    if not isinstance(given, str) or (given != "null" and VALIDATOR(schema).is_valid(given)):
        return given
    types = [VALIDATOR({"type": way["type"]}) for way in ways if "type" in way]
    return next((value for value in _readings(given) if any(type_.is_valid(value) for type_ in types)), given)


def _readings(text: str) -> Iterator[int | float | bool | None]:
    """The values that a text may stand for."""
    if text in WORDS:
        yield WORDS[text]
    # Python refuses to read thousands of digits.
    with contextlib.suppress(ValueError):
        if INTEGER.fullmatch(text):
            yield int(text)
        if NUMBER.fullmatch(text):
            yield float(text)
