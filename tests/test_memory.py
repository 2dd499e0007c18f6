"""Memory: what jobs of one process share is made once, bounded in bytes, and follows the files."""

import importlib.util
import os
import platform
import threading

import numpy as np
import pytest
import torch

from runtime import cache as installed
from workflow import python


@pytest.fixture
def memory(monkeypatch):
    """A store of its own, bounded at 1 MiB."""
    monkeypatch.setenv("READOUT_CACHE_MIB", "1")
    spec = importlib.util.spec_from_file_location("small_memory", installed.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Counted:
    """Makes arrays and counts how often."""

    def __init__(self, kib=1):
        self.calls, self.kib = 0, kib

    def __call__(self):
        self.calls += 1
        return np.zeros(self.kib << 10, np.uint8)


def test_a_value_is_made_once(memory):
    """The same object each time; another key is another value."""
    make = Counted()
    first = memory.shared("key", make)
    assert memory.shared("key", make) is first
    assert make.calls == 1
    assert memory.shared("other", make) is not first


def test_a_value_is_made_once_by_many_threads(memory):
    """Cells of one grid start at the same time, and each asks for the same prefix."""
    made, found, gate, inside = [], [], threading.Barrier(8, timeout=20), threading.Event()

    def make():
        made.append(threading.get_ident())
        # Long enough for the others to ask meanwhile.
        inside.wait(0.2)
        return np.zeros(10)

    def ask():
        gate.wait()
        found.append(memory.shared("key", make))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(made) == 1
    assert len(found) == 8
    assert all(value is found[0] for value in found)


def test_different_values_are_made_at_the_same_time(memory):
    """One job's long reading must not hold up another's: both makers meet inside."""
    meeting = threading.Barrier(2, timeout=20)

    def make():
        meeting.wait()
        return np.zeros(1)

    threads = [threading.Thread(target=memory.shared, args=(key, make), daemon=True) for key in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not meeting.broken


def test_a_value_may_be_made_from_another(memory):
    """A prefix asks for its network while it is made."""
    found = memory.shared("outer", lambda: memory.shared("inner", lambda: np.ones(3)) + 1)
    assert found.tolist() == [2, 2, 2]


def test_the_store_is_bounded_in_bytes(memory):
    """1 MiB holds three values of 300 KiB: the one used longest ago goes."""
    makers = {key: Counted(300) for key in "abcd"}
    for key in "abc":
        memory.shared(key, makers[key])
    memory.shared("a", makers["a"])
    memory.shared("d", makers["d"])
    for key in "acd":
        memory.shared(key, makers[key])
    assert {key: make.calls for key, make in makers.items()} == {"a": 1, "b": 1, "c": 1, "d": 1}
    memory.shared("b", makers["b"])
    assert makers["b"].calls == 2


def test_a_value_larger_than_the_store_is_used_and_dropped(memory):
    """And what was kept stays."""
    small, large = Counted(10), Counted(2000)
    memory.shared("small", small)
    assert memory.shared("large", large).nbytes == 2000 << 10
    memory.shared("large", large)
    memory.shared("small", small)
    assert (small.calls, large.calls) == (1, 2)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(75, 1024),
        {"a": np.zeros((300, 512), np.uint8), "b": torch.zeros(300 * 128)},
        (np.zeros(100 << 10), [torch.zeros(50 << 10), "text"]),
        torch.nn.Linear(256, 300, bias=False),
    ],
    ids=["tensor", "dict", "nested", "network"],
)
def test_the_bytes_of_every_kind_of_value_count(memory, value):
    """Four values of 300 KiB and more do not fit: the first is made again."""
    calls = []
    for key in "abcda":
        memory.shared(key, lambda key=key: calls.append(key) or value)
    assert "".join(calls) == "abcda"


def test_an_error_is_not_kept(memory):
    """The next job tries again, and is not locked out."""

    def fail():
        raise OSError("disk")

    for _ in range(2):
        with pytest.raises(OSError, match="disk"):
            memory.shared("key", fail)
    assert memory.shared("key", lambda: 5) == 5


def test_an_error_reaches_only_the_job_that_made_it(memory):
    """Jobs that waited make the value themselves."""
    started, calls, found = threading.Event(), [], []

    def make():
        calls.append(None)
        if len(calls) == 1:
            started.set()
            # The second job asks meanwhile.
            waiting.start()
            waiting.join(0.2)
            raise OSError("disk")
        return 7

    waiting = threading.Thread(target=lambda: found.append(memory.shared("key", make)), daemon=True)
    with pytest.raises(OSError, match="disk"):
        memory.shared("key", make)
    waiting.join(20)
    assert found == [7]


def test_a_changed_file_has_another_stamp(memory, tmp_path):
    """The key of what was read from a file: its place, its size, its time."""
    file = tmp_path / "a"
    file.write_bytes(b"one")
    first = memory.stamp(file)
    assert memory.stamp(str(file)) == first
    os.utime(file, ns=(0, 12345))
    second = memory.stamp(file)
    file.write_bytes(b"other")
    os.utime(file, ns=(0, 12345))
    third = memory.stamp(file)
    (tmp_path / "b").write_bytes(b"other")
    os.utime(tmp_path / "b", ns=(0, 12345))
    assert len({first, second, third, memory.stamp(tmp_path / "b")}) == 4


def test_jobs_run_with_one_thread_each():
    """Results move in the last bits with torch's thread count; the parallelism is in the jobs."""
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
def test_kept_memory_is_given_back():
    """Freed tensors stay with the process, but large ones, until it is asked; by a process whose heap is its own."""
    code = (
        "import torch; from runtime import process\n"
        "process.prepare()\n"
        "def pages(): return int(open('/proc/self/statm').read().split()[1])\n"
        "none = pages(); large = torch.ones(1 << 25); full = pages(); del large; print(none, full, pages())\n"
        "tensors = [torch.ones(1 << 20) for _ in range(64)]; last = torch.ones(1 << 20); full = pages()\n"
        "del tensors; kept = pages(); process.give_back(); print(full, kept, pages())"
    )
    with python(code) as process:
        numbers = [os.sysconf("SC_PAGE_SIZE") * int(number) for number in process.communicate()[0].split()]
    none, full, left = numbers[:3]
    assert full - none > 100 << 20
    assert left - none < 32 << 20
    full, kept, left = numbers[3:]
    assert full - kept < 32 << 20
    assert kept - left > 200 << 20


def test_memory_is_given_back_once_a_large_value_is_kept(memory, monkeypatch):
    """Behind what it was made from, and behind what it drove out."""
    free = []
    monkeypatch.setattr(memory, "LARGE", 100)
    monkeypatch.setattr(memory, "give_back", lambda: free.append(set(memory._store)))
    for key, size in (("small", 99), ("large", 100), ("large", 100)):
        memory.shared(key, lambda size=size: np.zeros(size, np.int8))
    assert free == [{"small", "large"}]
    monkeypatch.setattr(memory, "LIMIT", 0)
    memory.shared("dropped", lambda: np.zeros(200, np.int8))
    assert len(free) == 1
