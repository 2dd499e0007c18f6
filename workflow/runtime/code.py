"""Content hashes of the study's own code.

Snakemake sees neither the package behind a `run:` body nor what a script imports. A rule carries the hash of the
modules that it depends on as a param, so that a changed line recomputes what depends on it and nothing else.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("readout", "inputs", "runtime", "jobs")


@cache
def _imported(path: Path) -> frozenset[Path]:
    """The project's modules that a module imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            candidates = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES]
        else:
            continue
        for name in candidates:
            file = ROOT.joinpath(*name.split("."))
            found.update(p for p in (file.with_suffix(".py"), file / "__init__.py") if p.is_file())
    return frozenset(found)


def modules(step: str) -> tuple[Path, ...]:
    """The project's modules that `jobs/<step>.py` depends on, directly or not, itself included."""
    seen, queue = set(), [ROOT / "jobs" / f"{step}.py"]
    while queue:
        path = queue.pop()
        if path not in seen:
            seen.add(path)
            queue.extend(_imported(path) | {path.with_name("__init__.py")})
    return tuple(sorted(seen))


def file_digest(path: str | Path) -> str:
    """Hash of one file's content, 16 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


@cache
def digest(step: str) -> str:
    """Hash of the content of `modules(step)`, 16 hexadecimal digits."""
    content = hashlib.sha256()
    for path in modules(step):
        content.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:16]
