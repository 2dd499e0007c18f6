"""What jobs of one process share: networks, prefixes of a network, activations. Bounded in bytes."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import cachetools
import torch

from readout import StudyError
from runtime import parquet
from runtime.process import give_back

LIMIT = int(os.environ.get("READOUT_CACHE_MIB", "2048")) << 20
"""Bytes held between jobs; the jobs of a grid need its activations and one prefix at a time."""
LARGE = 64 << 20
"""Bytes of a value that is worth the time to look for what is free."""


def _size(value: object) -> int:
    if isinstance(value, torch.nn.Module):
        return sum(tensor.nbytes for tensor in value.state_dict().values())
    if isinstance(value, (tuple, list)):
        return sum(map(_size, value))
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return getattr(value, "nbytes", 256)


_store: cachetools.LRUCache = cachetools.LRUCache(maxsize=LIMIT, getsizeof=_size)
_lock = threading.Lock()
_making: dict[object, threading.Lock] = {}


def stamp(path: str | Path) -> tuple:
    """A key for a file's content: where it is, its size and its time of change."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise StudyError(f"{path}: no such file; {parquet.again(path)}") from error
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def shared(key: object, make: Callable[[], object]) -> object:
    """The value under `key`; made once, also when several jobs ask at the same time, and kept while it fits.

    Its tensors can be used under autograd, whatever mode it is asked for in.
    """
    with _lock:
        if key in _store:
            return _store[key]
        making = _making.setdefault(key, threading.Lock())
    with making:
        with _lock:
            if key in _store:
                return _store[key]
        # Autograd refuses tensors made in inference mode, and one job may differentiate what another has made.
        with torch.inference_mode(False), torch.no_grad():
            value = make()
        size = _size(value)
        with _lock:
            _making.pop(key, None)
            # A value larger than the whole store is used and dropped.
            if size <= LIMIT:
                _store[key] = value
    # What it was made from, and what made room for it.
    if LARGE <= size <= LIMIT:
        give_back()
    return value
