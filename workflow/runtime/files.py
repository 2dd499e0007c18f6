"""Files of the results: written whole or not at all, whatever ends the process."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from readout import StudyError

WAYS_OUT = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EROFS: "make that folder writable, or move the study",
    errno.EACCES: "make that folder writable",
    errno.EPERM: "make that folder writable",
}

refused = threading.Event()
"""Set once a disk has refused a file of this process."""


def partial(path: str | Path) -> Path:
    """Where a file is written until it is complete.

    One name a file: what a killed job leaves is overwritten when the job is repeated, so that nothing accumulates.
    """
    return Path(path).with_name(f".{Path(path).name}.partial")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn the errors of writing a file or folder into ones that name it."""
    try:
        yield
    except OSError as error:
        refused.set()
        why = os.strerror(error.errno) if error.errno else error
        mend = WAYS_OUT.get(error.errno, "see to that disk")
        raise StudyError(f"{path}: cannot be written ({why}); {mend} and run again: what is finished stays") from error


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """The temporary file to write in the block, renamed to `path` when the block ends without an error."""
    temporary = partial(path)
    try:
        with writing(path):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        discard(temporary)


def discard(temporary: Path) -> None:
    """Remove a temporary file where there is one; a read-only disk, which refuses even that, has none."""
    with contextlib.suppress(OSError):
        temporary.unlink()
