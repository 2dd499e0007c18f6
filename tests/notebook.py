"""Runs the blocks of docs/notebook.md on the default study, and writes what they print below them: `make notebook`."""

import ast
import contextlib
import io
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

PAGE = Path(__file__).resolve().parents[1] / "docs" / "notebook.md"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
"""A block of code, and the block of what it shows where there is one."""


def shows(code: str, names: dict) -> str:
    """What a notebook shows below a cell: what the code prints, and the value of its last line."""
    *lines, last = ast.parse(code).body
    if isinstance(last, ast.Expr):
        value = ast.Expression(last.value)
    else:
        lines, value = [*lines, last], None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(lines, []), str(PAGE), "exec"), names)
        found = None if value is None else eval(compile(value, str(PAGE), "eval"), names)
        if found is not None:
            print(repr(found))
    # As editors leave it: no spaces at the end of a line.
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


def run(text: str, other: Mapping[str, str] | None = None, names: dict | None = None) -> Iterator[tuple[re.Match, str]]:
    """Each block of a page and what it shows, in turn; in the code each key of `other` is replaced by its value.

    `names` has what the blocks leave.
    """
    names = {} if names is None else names
    # What the page sets is as it was afterwards.
    with pd.option_context(
        "display.width", 80, "display.max_columns", 20, "display.precision", 6, "display.max_colwidth", 50
    ):
        for block in BLOCK.finditer(text):
            code = block["code"]
            for old, new in (other or {}).items():
                code = code.replace(old, new)
            yield block, shows(code, names)


def rewritten(text: str) -> str:
    """The page with what its blocks show now."""
    for block, shown in list(run(text)):
        below = f"\n```text\n{shown}```\n" if shown else ""
        text = text.replace(block[0], f"```python\n{block['code']}```\n{below}")
    return text


def main() -> None:
    """Write the page anew, from a folder with the results of the default study in results/digits."""
    sys.path.insert(0, str(PAGE.parents[1] / "workflow"))
    from readout_study import StudyError

    try:
        page = rewritten(PAGE.read_text())
    except StudyError as error:
        sys.exit(f"error: {error}")
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
