"""Files of the results are written whole or not at all, whatever refuses or ends the writing."""

import os
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from readout import StudyError
from runtime import files, logs, parquet
from workflow import python

SCHEMA = pa.schema([("rank", pa.int32())])
FULL = Path("/dev/full")


def write_table(path):
    parquet.write(path, {"rank": list(range(100_000))}, SCHEMA)


def write_page(path):
    with files.whole(path) as partial:
        partial.write_text("a page")


WRITERS = pytest.mark.parametrize("write", [write_table, write_page])


@pytest.fixture
def full_disk(tmp_path):
    """A file whose disk has no space left."""
    if not FULL.exists():
        pytest.skip("this system has no /dev/full")
    file = tmp_path / "file"
    files.partial(file).symlink_to(FULL)
    return file


@WRITERS
def test_a_file_is_written(tmp_path, write):
    """With its folder, and nothing beside it."""
    write(tmp_path / "folder" / "file")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


@WRITERS
def test_a_full_disk_is_named_with_the_way_out(full_disk, write):
    """And leaves nothing."""
    words = r"file: cannot be written \(No space left on device\); make room on that disk and run again"
    with pytest.raises(StudyError, match=words):
        write(full_disk)
    assert list(full_disk.parent.iterdir()) == []


def test_the_error_of_a_block_is_told_before_that_of_a_full_disk(full_disk):
    """The end of the file cannot be written either, but is not what went wrong first."""
    with pytest.raises(RuntimeError, match="halfway"), parquet.Writer(full_disk.with_name("other"), SCHEMA) as writer:
        writer.writer.close()
        writer.writer = parquet.pq.ParquetWriter(os.devnull, SCHEMA)
        raise RuntimeError("halfway")


@WRITERS
def test_what_a_killed_job_left_is_overwritten(tmp_path, write):
    """Never mistaken for the file, never kept beside it."""
    files.partial(tmp_path / "file").write_bytes(b"half of a longer file" * 100_000)
    assert not (tmp_path / "file").exists()
    write(tmp_path / "file")
    write(tmp_path / "expected")
    assert (tmp_path / "file").read_bytes() == (tmp_path / "expected").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "file"]


def test_a_writer_that_is_killed_leaves_no_file(tmp_path):
    """Only what it had written so far, under the temporary name."""
    code = (
        "import os, signal, sys; import pyarrow as pa; from runtime import parquet\n"
        "table = pa.table({'rank': pa.array(range(100_000), pa.int32())})\n"
        "with parquet.Writer(sys.argv[1], table.schema) as writer:\n"
        "    writer.write(table)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with python(code, tmp_path / "file") as process:
        assert process.wait() == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".file.partial"]
    write_table(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_log_that_cannot_be_written_hides_no_error(tmp_path):
    """A full disk refuses the log of the job that failed for it."""
    (tmp_path / "log").mkdir()

    def job():
        raise StudyError("no space left")

    with pytest.raises(StudyError, match=r"^no space left$"):
        logs.run(tmp_path / "log", job)


def test_a_job_that_would_end_its_thread_fails_instead(tmp_path):
    """Snakemake learns of errors only, and would wait for such a job for ever."""
    with pytest.raises(StudyError, match=r"SystemExit: 3 \(unexpected; the traceback is in "):
        logs.run(tmp_path / "log", lambda: sys.exit(3))
    assert "sys.exit(3)" in (tmp_path / "log").read_text()


def test_a_job_apart_ends_when_the_workflow_is_killed(tmp_path):
    """A rerun would otherwise train beside it, into the same file."""
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, time; from runtime import subprocesses\n"
        "def job(beat):\n"
        "    while True:\n"
        "        pathlib.Path(beat).write_text(str(os.getpid())); time.sleep(0.05)\n"
        "if __name__ == '__main__':\n"
        "    subprocesses.main(job)\n"
    )
    beat = tmp_path / "beat"
    code = (
        "import os, sys; from runtime import subprocesses; os.chdir(sys.argv[1])\n"
        "subprocesses.run('slow', {'beat': 'beat'}, 'log')\n"
    )
    with python(code, tmp_path) as process:
        while not (beat.exists() and beat.read_text()):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        process.kill()
    child = int(beat.read_text())
    deadline = time.monotonic() + 60
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(child, 0)
            time.sleep(0.05)
