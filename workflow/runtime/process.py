"""The process that computes: what its libraries are set to before the first job, and no sooner.

Importing a module of this project changes nothing in the process; `prepare` does, once.
"""

import contextlib
import ctypes
from functools import cache

KEPT = 32 << 20
"""Bytes from which a freed block of memory goes back to the system at once."""


@cache
def prepare() -> None:
    """Set torch to one thread, keep freed memory for the next tensor, and have Arrow use the same heap.

    Every job asks for this first; it acts once per process.
    """
    import pyarrow as pa
    import torch

    # ASSUME: one thread per job; the workflow's parallelism is in its jobs, and results do not depend on `--cores`.
    torch.set_num_threads(1)
    # Arrow's own allocators keep what is freed, which with activations of gigabytes doubles the process.
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(OSError, AttributeError):
        # glibc returns blocks of megabytes to the system at once and fetches them anew, page by page, for the next
        # tensor: up to a third of the time of an ablation. One heap for all threads, kept, serves them again. The
        # largest blocks are not kept: torch aligns its tensors, and the hole that one leaves in a heap is a little
        # too small for the next of its size.
        for option, value in ((-8, 1), (-3, KEPT), (-1, 2**31 - 1)):  # M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            ctypes.CDLL(None).mallopt(option, value)


def give_back() -> None:
    """Give what is free of the kept memory back to the system, after a job or a shared value that took much."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
