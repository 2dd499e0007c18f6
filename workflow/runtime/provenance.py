"""What made a file of the results: a line of JSON that every table carries in its metadata."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

KEY = b"readout"
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pyarrow", "snakemake")


@cache
def _versions() -> dict[str, str]:
    """Versions of what computes; the packages are asked for, not imported."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _counted(settings: object) -> object:
    """The same without the folder in which the images lie, and with mappings in the place of dataclasses."""
    if dataclasses.is_dataclass(settings):
        settings = dataclasses.asdict(settings)
    if isinstance(settings, Mapping):
        return {key: _counted(value) for key, value in settings.items() if key != "path"}
    return settings


def digest(settings: Mapping) -> str:
    """Hash of settings, 16 hexadecimal digits.

    The order of keys does not count, nor does `path`, the folder in which the images lie.
    """
    return hashlib.sha256(json.dumps(_counted(settings), sort_keys=True).encode()).hexdigest()[:16]


def record(*, study: str, step: str, settings: Mapping, code: str, **more: str | None) -> str:
    """What the files of a job carry: `settings` by their digest, `code` is one already.

    No date, so that two runs write the same bytes.
    """
    named = {"study": study, "step": step, "settings": digest(settings), "code": code}
    return json.dumps(named | more | {"versions": _versions()}, separators=(",", ":"))


def metadata(made: str | None) -> dict[bytes, str]:
    """The metadata of a table that carries `made`; empty for one that is written outside of a study."""
    return {} if made is None else {KEY: made}


def of(metadata: Mapping[bytes, bytes] | None) -> dict:
    """What a table of this metadata carries; empty where it was written outside of a study's jobs."""
    try:
        made = json.loads((metadata or {}).get(KEY, b"{}"))
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}
