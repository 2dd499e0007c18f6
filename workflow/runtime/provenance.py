"""What made a file of the results: a line of JSON that every table carries in its metadata."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import version

KEY = b"readout"
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pyarrow", "snakemake")
VARIABLE = "READOUT_MADE"
"""The environment variable by which a job in a process of its own learns what its files carry."""

# Each thread has its own value, so jobs that run at the same time do not mark each other's files.
_made: ContextVar[str] = ContextVar("made")


@cache
def _versions() -> dict[str, str]:
    """Versions of what computes; the packages are asked for, not imported."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def digest(settings: Mapping) -> str:
    """Hash of settings, 16 hexadecimal digits.

    The order of keys does not count, nor does `path`, the folder in which the images lie.
    """
    counted = {key: value for key, value in settings.items() if key != "path"}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def record(*, study: str, step: str, settings: Mapping, code: str, **more: str | None) -> str:
    """What the files of a job carry: `settings` by their digest, `code` is one already.

    No date, so that two runs write the same bytes.
    """
    named = {"study": study, "step": step, "settings": digest(settings), "code": code}
    return json.dumps(named | more | {"versions": _versions()}, separators=(",", ":"))


@contextmanager
def making(made: str | None) -> Iterator[None]:
    """The tables that this thread writes in the block carry `made`; None leaves things as they are."""
    if made is None:
        yield
        return
    token = _made.set(made)
    try:
        yield
    finally:
        _made.reset(token)


def metadata() -> dict[bytes, str]:
    """The metadata of a table that is written now; empty outside of a study's jobs."""
    made = _made.get(os.environ.get(VARIABLE))
    return {} if made is None else {KEY: made}


def of(metadata: Mapping[bytes, bytes] | None) -> dict:
    """What a table of this metadata carries; empty where it was written outside of a study's jobs."""
    try:
        made = json.loads((metadata or {}).get(KEY, b"{}"))
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}
