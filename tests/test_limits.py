"""Nothing hangs unseen: what a test waits for ends, and a test that hangs all the same fails by its name."""

import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from workflow import ROOT, begin, ran

HANGS = """
import subprocess, sys, time
print("working", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
def forgotten():
    time.sleep(600)
forgotten()
"""


def ended(number: int) -> bool:
    """Whether a process ends within seconds."""
    for _ in range(100):
        try:
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def test_a_process_that_hangs_is_ended_with_all_that_it_started_and_what_it_printed():
    """And with where it hung."""
    start = time.monotonic()
    with pytest.raises(AssertionError, match=r"not ended after 5 s: \S*python\S* -c") as raised:
        ran([sys.executable, "-c", HANGS], 5)
    assert time.monotonic() - start < 60
    printed = str(raised.value).partition("It printed:\n")[2]
    assert re.search(r"^working\n(\d+)\n", printed)
    assert re.search(r'File "<string>", line \d in forgotten', printed)
    assert ended(int(printed.split()[1]))


def test_a_process_beside_the_test_is_ended_too():
    """Reading what it prints, and waiting for it, come to an end."""
    with begin(
        [sys.executable, "-c", HANGS], 5, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        printed = process.stdout.read()
        assert process.wait() == -signal.SIGABRT
    assert "in forgotten" in printed
    assert ended(int(printed.split()[1]))


def test_a_process_that_ends_in_time_is_told_as_it_is():
    code = "import sys; print(sys.argv[1]); print('bad', file=sys.stderr); sys.exit(5)"
    done = ran([sys.executable, "-c", code, "good"])
    assert (done.returncode, done.stdout, done.stderr) == (5, "good\n", "bad\n")
    with pytest.raises(AssertionError, match="good\nbad"):
        ran([sys.executable, "-c", code, "good"], check=True)
    assert ran([sys.executable, "-c", code, "good"], env={"NONE": ""}).returncode == 5


def test_a_test_that_hangs_fails_by_its_name(tmp_path):
    """With its stacks; the others run. By the project's own settings, but for the number of seconds."""
    (tmp_path / "test_some.py").write_text(
        "import threading\ndef test_good(): pass\ndef test_hangs(): threading.Event().wait()\ndef test_fine(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, tmp_path]
    done = ran([*command, "-n", "1", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=2"], 120)
    assert done.returncode == 1
    assert "test_some.py::test_hangs" in done.stdout.split("short test summary")[1]
    assert "1 failed, 2 passed" in done.stdout
    assert re.search(r'test_some\.py", line 3 in test_hangs', done.stdout + done.stderr)


def test_every_test_waits_with_a_limit():
    """By `ran` and `begin`; threads are waited for with a number of seconds."""
    free = re.compile(r"\bsubprocess\.(run|Popen|call|check_\w+)\(|\bos\.(system|popen)\(|\.join\(\)$|\bBarrier\(\d+\)")
    found = {
        path.name: len(lines)
        for path in (ROOT / "tests").glob("*.py")
        if (lines := [line for line in path.read_text().splitlines() if free.search(line)])
    }
    # `begin` itself, the daemons of Slurm, which the fixture ends, and what hangs above.
    assert found == {"workflow.py": 1, "slurm.py": 1, "test_limits.py": 1}
