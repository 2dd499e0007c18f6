"""The process: importing a module of the project changes nothing in it, and `prepare` does what it says."""

import json
import os
import sys

import pytest

from workflow import ROOT, ran

ROOMS = ("readout", "jobs", "inputs", "runtime", "commands")
MODULES = sorted(
    ".".join(path.relative_to(ROOT / "workflow").with_suffix("").parts).removesuffix(".__init__")
    for room in ROOMS
    for path in (ROOT / "workflow" / room).glob("*.py")
)
STATE = f"""
import importlib, json, os, signal, sys, warnings
sys.path.insert(0, {str(ROOT / "workflow")!r})
MODULES = {MODULES!r}

def imported(names):
    for name in names:
        importlib.import_module(name)

def state():
    import matplotlib, numpy, pyarrow, torch
    return {{
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "type": str(torch.get_default_dtype()),
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32],
        "random numbers of torch": torch.get_rng_state().tolist(),
        "random numbers of numpy": str(numpy.random.get_state(legacy=False)),
        "errors of numpy": numpy.geterr(),
        "heap of Arrow": pyarrow.default_memory_pool().backend_name,
        "backend of matplotlib": matplotlib.get_backend(auto_select=False),
        "settings of matplotlib": {{k: str(matplotlib.rcParams[k]) for k in matplotlib.rcParams if k != "backend"}},
        "environment": dict(os.environ),
        "warnings": [str(each) for each in warnings.filters],
        "signals": [str(signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM)],
        "folder": os.getcwd(),
        "path": sys.path,
    }}
"""
"""What libraries keep for a whole process. To ask matplotlib for its backend as for other settings would choose one."""


def python(code):
    """What code in a fresh process prints, from JSON."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    command = [sys.executable, "-c", STATE + code]
    done = ran(command, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def libraries():
    """All modules that are not the project's, and that its own import; some libraries set something when imported."""
    found = python("imported(MODULES); print(json.dumps(list(sys.modules)))")
    assert set(MODULES) <= set(found)
    return [name for name in found if name.split(".")[0] not in (*ROOMS, "__main__")]


def test_importing_a_module_changes_nothing(libraries):
    """Beyond what its libraries do: each module alone, in one process, after these."""
    code = f"""
import contextlib
for name in {libraries!r}:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
import torch
torch.set_num_threads(3)
changed, before = {{}}, state()
for name in MODULES:
    importlib.import_module(name)
    after = state()
    changed[name] = [key for key in before if before[key] != after[key]]
    before = after
print(json.dumps({{name: keys for name, keys in changed.items() if keys}}))
"""
    assert len(MODULES) > 50
    assert python(code) == {}


def test_what_a_module_changes_would_be_seen():
    """Negative control of the test above: `prepare` sets torch to one thread, and Arrow to the heap of the system."""
    code = """
import torch
from runtime import process
imported(MODULES)
torch.set_num_threads(3)
before = state()
process.prepare()
once = state()
torch.set_num_threads(2)
process.prepare()
print(json.dumps([before, once, state()]))
"""
    before, once, again = python(code)
    assert (before["threads"], once["threads"]) == (3, 1)
    assert before["heap of Arrow"] != once["heap of Arrow"] == "system"
    assert {key for key in before if before[key] != once[key]} == {"threads", "heap of Arrow"}
    # It acts once per process: what somebody sets afterwards stays.
    assert again["threads"] == 2
