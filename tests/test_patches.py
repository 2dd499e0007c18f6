"""Snakemake's internals: used in one place, documented there, and done without where a name is missing."""

import ast
import inspect
import logging
import re
import signal
import sys
import threading
from importlib import import_module
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import yaml
from packaging.version import Version

from crashes import Reference, undo
from runtime import files, patches
from runtime.progress import Progress
from workflow import ROOT

PATCHES = {
    name: function
    for name, function in vars(patches).items()
    if inspect.isfunction(function) and function.__module__ == "runtime.patches" and name[0] != "_"
}
del PATCHES["guarded"]
ON_SCHEDULER = ("end_when_told", "lift_rate_limit", "note_first", "stop_when_refused", "offer_some")
each_patch = pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)


@pytest.fixture(autouse=True)
def nothing_said_yet():
    """Each loss is told once in a process."""
    patches._warn.cache_clear()


@pytest.fixture(autouse=True)
def same_handler():
    """Leave pytest's handler as it is."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def said(caplog):
    """The warnings so far, each one line."""

    def warnings():
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    return warnings


# ---- where they are, and what is written of them


def code_of(path):
    """A file without its comments and its docstrings."""
    text = path.read_text()
    if path.suffix == ".py":
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value = ast.Constant(None)
        return ast.unparse(tree)
    return re.sub(r'"""(.|\n)*?"""|#.*', "", text)


SOURCES = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk")), *sorted((ROOT / "workflow").rglob("*.py"))]
PRIVATE = {
    "an attribute of the workflow": r"\bworkflow\.(?!smk|rst)\w+",
    "a module of Snakemake's": r"\b(?:from|import) snakemake(?!\.utils import)\w*",
    "Snakemake's logger": r"(?<!\.)\blogger\b",
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_no_other_file_uses_a_private_name(kind):
    """What Snakemake documents for a Snakefile is `snakemake.utils` and the keywords; `patches` has the rest."""
    users = {path.relative_to(ROOT).as_posix(): re.findall(PRIVATE[kind], code_of(path)) for path in SOURCES}
    # The pattern finds what it is to find.
    assert users.pop("workflow/runtime/patches.py") or kind == "a module of Snakemake's"
    assert {path: found for path, found in users.items() if found} == {}


def tried(patch):
    found = re.search(r"^ *Tried with: ([\d., ]+)\.$", inspect.getdoc(patch), re.MULTILINE)
    return [Version(each) for each in found[1].split(", ")]


@each_patch
def test_every_patch_says_what_it_mends_where_it_was_tried_and_what_happens_without(patch):
    """In this order, each with a sentence."""
    assert re.search(r"\nMends: .+\n(.+\n)*Tried with: .+\nWithout it: .+\.$", inspect.getdoc(patch))


@each_patch
def test_min_version_is_the_oldest_that_every_patch_was_tried_with(patch):
    """And the newest is the one that the environment pins."""
    (least,) = re.findall(r'^min_version\("([\d.]+)"\)$', (ROOT / "workflow/rules/study.smk").read_text(), re.MULTILINE)
    versions = tried(patch)
    assert versions == sorted(versions)
    assert versions[0].release[:2] == Version(least).release
    (pinned,) = re.findall(r"^snakemake==([\d.]+)$", (ROOT / "envs/requirements.txt").read_text(), re.MULTILINE)
    assert versions[-1] == Version(pinned)


def test_the_key_that_needs_min_version_is_in_the_default_profile():
    """Without that key, an older version might do."""
    reason = re.search(r"# The default profile's (\S+) came with this version.\nmin_version", SOURCES_STUDY.read_text())
    assert reason[1] in yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())


SOURCES_STUDY = ROOT / "workflow/rules/study.smk"


# ---- without a name


class Scheduler:
    """What the patches know of Snakemake's scheduler."""

    def __init__(self):
        self.job_rate_limiter = "a limit"
        self.keepgoing = True
        self.failed = []
        self.error_callback = self.failed.append
        self.global_resources, self.resources = {"_cores": 2}, {"_cores": 2}
        self.workflow = SimpleNamespace(dag=SimpleNamespace(ready_jobs=set()))
        self._executor = SimpleNamespace(run_job_pre=print)
        self._lock, self.ended = threading.Lock(), threading.Event()
        self.exit_gracefully = self._exit

    def _exit(self, *_):
        with self._lock:
            self.ended.set()

    @property
    def open_jobs(self):
        return list(self.workflow.dag.ready_jobs)

    @property
    def remaining_jobs(self):
        return []


def run():
    """What the patches know of a run."""
    empty = {
        name: set() for name in ("targetrules", "targetfiles", "untilrules", "untilfiles", "omitrules", "omitfiles")
    }
    settings = SimpleNamespace(lock=True)
    return SimpleNamespace(
        local_exec=True,
        scheduler=Scheduler(),
        execution_settings=settings,
        dag=SimpleNamespace(**empty),
        configfiles=["config.yaml"],
        config_settings=SimpleNamespace(config={"seed": 1}),
        resource_settings=SimpleNamespace(resources={"mem_mb": SimpleNamespace(value=5000), "gpu": 1, "_cores": 2}),
    )


def argument(patch):
    """What a patch is called with, whole."""
    return {
        "thin": [Progress(), str],
        "tell_time_left": [],
        "refusal": ["no"],
        **{name: [Scheduler()] for name in ON_SCHEDULER},
    }.get(patch.__name__, [run()])


def take_away(monkeypatch, holder, path):
    """Let a name be missing, as in another version of Snakemake; `path` as in `guarded`."""
    module, _, names = path.rpartition(":")
    *way, last = names.split(".")
    above = None
    if module:
        holder = import_module(module)
    for name in way:
        above, holder = holder, holder[name] if isinstance(holder, dict) else getattr(holder, name)
    if isinstance(holder, dict):
        del holder[last]
    elif isinstance(holder, type):
        # An enumeration's members cannot be deleted, and what a class inherits would still be found.
        kept = dict.fromkeys(name for name in dir(holder) if name != last and name[0] != "_")
        monkeypatch.setattr(above, holder.__name__, SimpleNamespace(__name__=holder.__name__, **kept))
    else:
        monkeypatch.delattr(holder, last)


def state(patch, given):
    """Whatever the patch could have changed."""
    logging_ = import_module("snakemake.logging")
    scheduler = given[0] if patch.__name__ in ON_SCHEDULER else getattr((given or [None])[0], "scheduler", None)
    formatter = vars(logging_.DefaultFormatter).get("format_progress")
    seen = [list(logging.getLogger(patches.LOGGER).filters), formatter, type(scheduler)]
    seen += [signal.getsignal(signal.SIGTERM)]
    if scheduler is not None:
        seen += [dict(vars(scheduler)), dict(vars(getattr(scheduler, "_executor", SimpleNamespace())))]
    return seen


@pytest.fixture
def same_messages(monkeypatch):
    """Leave Snakemake's logger and formatter as they are, whatever a test does."""
    theirs = import_module("snakemake.logging")
    monkeypatch.setattr(theirs.logger, "filters", list(theirs.logger.filters))
    monkeypatch.setattr(theirs.DefaultFormatter, "format_progress", theirs.DefaultFormatter.format_progress)
    monkeypatch.setattr(sys, "argv", ["snakemake", "--cores", "1"])


NAMES = [(name, path) for name, patch in PATCHES.items() for path in getattr(patch, "names", ())]


@pytest.mark.parametrize(("name", "path"), NAMES, ids=[" ".join(each) for each in NAMES])
def test_without_a_name_a_patch_warns_and_changes_nothing(name, path, monkeypatch, said, same_messages):
    """In one line that names the version, the name and the loss; again, it is silent."""
    patch = PATCHES[name]
    given = argument(patch)
    take_away(monkeypatch, given[0] if given else None, path)
    before = state(patch, given)
    patch(*given)
    patch(*given)
    assert state(patch, given) == before
    (warning,) = said()
    assert "\n" not in warning
    last = path.rpartition(".")[2].rpartition(":")[2]
    assert re.match(rf"Snakemake {re.escape(version('snakemake'))} has no \S+\.{last}: \w+", warning), warning


def test_many_names_are_taken_away():
    """As many as there are: a list that shrank by mistake would test nothing."""
    assert len(NAMES) >= 25
    assert {name for name, _ in NAMES} == PATCHES.keys() - {"say"}


THEIRS = {"scheduler", "workflow", "dag", "executor", "job", "self"}
"""The variables of the patches that hold Snakemake's objects."""
OURS = {"coming", "were_ready", "__class__"}
"""What these have that is ours, or Python's."""


def used(*functions):
    """Attributes that functions read or set of Snakemake's objects, at any depth."""
    found = set()
    for function in functions:
        for node in ast.walk(ast.parse(inspect.getsource(function))):
            root = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(node, ast.Attribute) and isinstance(root, ast.Name) and root.id in THEIRS:
                found.add(node.attr)
    return found - OURS


@each_patch
def test_every_attribute_that_a_patch_uses_is_among_its_names(patch):
    """The names that a test takes away are those that the patch says that it needs: none may be left out."""
    functions = [patch, patches._urgency] if patch is patches.offer_some else [patch]
    needed = {part for path in getattr(patch, "names", ()) for part in re.split("[.:]", path)}
    assert used(*functions) <= needed


def test_the_attributes_of_the_patches_are_found():
    assert used(patches.note_first) == {"_executor", "run_job_pre", "register"}
    assert used(patches._urgency) == {"priority", "name"}


@pytest.mark.parametrize("name", ON_SCHEDULER)
def test_with_all_names_a_patch_changes_the_scheduler_and_is_silent(name, said):
    """The negative control of the test above."""
    given = argument(PATCHES[name])
    before = state(PATCHES[name], given)
    PATCHES[name](*given)
    assert state(PATCHES[name], given) != before
    assert said() == []


@pytest.mark.parametrize("name", ["open_jobs", "remaining_jobs"])
def test_without_the_properties_that_it_replaces_the_scheduler_stays_as_it_is(name, monkeypatch, said):
    """A method of the same name is none."""
    monkeypatch.setattr(Scheduler, name, lambda self: [])
    scheduler = Scheduler()
    patches.offer_some(scheduler)
    assert type(scheduler) is Scheduler
    assert [f"property Scheduler.{name}" in warning for warning in said()] == [True]


def test_one_missing_name_takes_one_patch(said):
    """The others are made."""
    whole = run()
    del whole.scheduler.keepgoing
    patches.apply(whole)
    assert len(said()) == 1
    assert whole.scheduler.job_rate_limiter is None
    assert whole.scheduler.error_callback == whole.scheduler.failed.append
    assert type(whole.scheduler) is not Scheduler


def test_a_run_that_sends_its_jobs_elsewhere_is_left_as_it_is(said):
    """But for what it does when it is told to end."""
    elsewhere = run()
    elsewhere.local_exec = False
    handler, before = signal.getsignal(signal.SIGTERM), state(patches.apply, [elsewhere])
    patches.apply(elsewhere)
    assert signal.getsignal(signal.SIGTERM) != handler
    signal.signal(signal.SIGTERM, handler)
    assert state(patches.apply, [elsewhere]) == before
    assert said() == []


def test_what_is_known_of_a_run_without_the_names_comes_from_the_command_line(monkeypatch):
    nothing = SimpleNamespace()
    monkeypatch.setattr(sys, "argv", ["snakemake", "--cores", "1"])
    assert patches.has_lock(nothing)
    monkeypatch.setattr(sys, "argv", ["snakemake", "--nolock"])
    assert not patches.has_lock(nothing)
    assert patches.asked_for(nothing) == frozenset()


def test_the_configuration_is_known_where_snakemake_names_it():
    assert patches.config_files(run()) == ["config.yaml"]
    assert patches.config_from_command_line(run()) == {"seed": 1}
    assert patches.config_files(SimpleNamespace()) == []
    assert patches.config_from_command_line(SimpleNamespace()) == {}


def test_limits_are_those_of_the_command_line():
    """As older versions hold them, and newer ones; without the name there are none."""
    assert patches.limits(run()) == ["mem_mb=5000", "gpu=1"]
    assert patches.limits(SimpleNamespace()) == []


def test_a_refusal_without_its_class_keeps_its_message(monkeypatch):
    take_away(monkeypatch, None, "snakemake.exceptions:WorkflowError")
    assert repr(patches.refusal("no such class")) == "ValueError('no such class')"


def test_a_text_without_a_logger_goes_to_stderr(monkeypatch, capsys):
    monkeypatch.setattr(patches, "LOGGER", "nobody")
    monkeypatch.setattr(logging.getLogger("nobody"), "propagate", False)
    patches.say("holds")
    patches.say("")
    assert capsys.readouterr().err == "holds\n"


# ---- what they do


def test_a_run_is_told_to_end_while_it_holds_its_lock():
    """In the main thread, where Snakemake's own handler would wait for itself; also a second time."""
    scheduler = Scheduler()
    patches.end_when_told(scheduler)
    for _ in range(2):
        with scheduler._lock:
            signal.raise_signal(signal.SIGTERM)
            assert not scheduler.ended.wait(0.1)
        assert scheduler.ended.wait(20)
        scheduler.ended.clear()


def test_a_run_of_another_thread_sets_no_handler():
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=patches.end_when_told, args=[Scheduler()], daemon=True)
    thread.start()
    thread.join(20)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_disk_that_refuses_ends_the_run(monkeypatch):
    scheduler, refused = Scheduler(), threading.Event()
    # Of this test alone: that of the process stays set once another test has filled a disk.
    monkeypatch.setattr(files, "refused", refused)
    patches.stop_when_refused(scheduler)
    scheduler.error_callback("one")
    assert scheduler.keepgoing
    refused.set()
    scheduler.error_callback("other")
    assert not scheduler.keepgoing
    assert scheduler.failed == ["one", "other"]


def test_a_job_is_noted_and_then_announced():
    """Also where the note cannot be written."""
    happened = []
    scheduler = Scheduler()
    scheduler._executor.run_job_pre = lambda job: happened.append("announced")
    patches.note_first(scheduler)

    def full():
        raise OSError

    scheduler._executor.run_job_pre(SimpleNamespace(register=lambda: happened.append("noted")))
    scheduler._executor.run_job_pre(SimpleNamespace(register=full))
    assert happened == ["noted", "announced", "announced"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {"all", "results/a.png"}),
        ({"untilrules": {"cells"}}, set()),
        ({"omitfiles": {"results/a.png"}}, set()),
    ],
)
def test_what_a_run_was_asked_for(changes, found):
    """Nothing, where it was to leave something out."""
    asked = run()
    vars(asked.dag).update({"targetrules": [SimpleNamespace(name="all")], "targetfiles": {"results/a.png"}} | changes)
    assert patches.asked_for(asked) == found


# ---- messages


@pytest.fixture
def printed(same_messages, monkeypatch):
    """What Snakemake's logger prints with the filter, as its terminal would show it; and the clock of the progress."""
    theirs = import_module("snakemake.logging")
    lines = []

    class Shown(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    handler = Shown()
    handler.setFormatter(theirs.DefaultFormatter(set()))
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(theirs.logger, "handlers", [handler])
    monkeypatch.setattr(theirs.logger, "level", logging.INFO)
    theirs.logger.manager._clear_cache()
    patches.thin(Progress(lambda: clock.now), lambda: "the headline")
    yield theirs.logger, lines, clock
    monkeypatch.undo()
    theirs.logger.manager._clear_cache()


def job_info(number, rule):
    return {
        "input": [],
        "output": [],
        "log": [],
        "event": "job_info",
        "jobid": number,
        "rule_name": rule,
        "rule_msg": None,
        "local": True,
        "is_checkpoint": False,
        "benchmark": None,
        "reason": "",
        "wildcards": {},
        "priority": 0,
        "threads": 1,
        "resources": {},
    }


def test_messages_are_thinned_and_tell_the_time_that_is_left(printed):
    """Of two rules one is announced; after two of 200 cells, of 15 s each, 198 are left: 49.5 minutes."""
    logger, lines, clock = printed
    logger.info("Job stats", extra={"event": "run_info", "stats": {"images": 1, "probes": 200, "total": 201}})
    for number, rule, seconds in ((1, "images", 1), (2, "probes", 15), (3, "probes", 15)):
        logger.info("Select jobs to execute...")
        logger.info("Execute 1 jobs...", extra={"event": "job_started", "jobs": [number]})
        logger.info(None, extra=job_info(number, rule))
        clock.now += seconds
        logger.info(f"Finished jobid: {number}", extra={"event": "job_finished", "job_id": number})
        logger.info(None, extra={"event": "progress", "done": number, "total": 201})
    logger.info("Complete log(s): here")
    stamped = "\n".join(lines)
    assert stamped.count("localrule images:") == 1 and "probes" not in stamped
    assert [line.split("\n")[-1] for line in lines if "jobid: 1" in line][-1] == "Finished jobid: 1"
    assert "Finished jobid: 2" not in stamped and "Execute" not in stamped and "Select" not in stamped
    assert lines[-3:-1] == ["1 of 201 steps (0.5%) done", "3 of 201 steps (1%) done, about 50 minutes left"]
    assert lines[-1] == "Complete log(s): here"


def test_where_nothing_is_to_be_done_the_headline_follows(printed):
    logger, lines, _ = printed
    logger.info("Nothing to be done (all requested files are present and up to date).")
    assert lines == ["Nothing to be done (all requested files are present and up to date).\nthe headline"]


@pytest.mark.parametrize(
    ("fields", "lacks"),
    [
        ({"event": "run_info"}, "stats"),
        ({"event": "job_info", "jobid": 1}, "rule_name"),
        ({"event": "job_info", "rule_name": "probes"}, "jobid"),
        ({"event": "job_finished"}, "job_id"),
        ({"event": "progress", "total": 3}, "done"),
        ({"event": "progress", "done": 3}, "total"),
    ],
)
def test_from_a_message_on_that_lacks_a_field_all_are_printed(fields, lacks, said, same_messages):
    logger = logging.getLogger(patches.LOGGER)
    patches.thin(Progress(), str)
    (thin,) = [each for each in logger.filters if isinstance(each, patches.Messages)]
    record = logging.makeLogRecord({"msg": "Select jobs to execute..."})
    assert not thin.filter(record)
    assert thin.filter(logging.makeLogRecord(fields))
    assert thin.filter(record)
    assert [f"LogRecord.{lacks}: {patches.THICK}" in warning for warning in said()] == [True]


@pytest.mark.parametrize("option", ["-n", "-np", "--dry-run", "--dryrun"])
def test_a_dry_run_s_messages_are_left_as_they_are(option, monkeypatch, same_messages):
    monkeypatch.setattr(sys, "argv", ["snakemake", option])
    patches.thin(Progress(), str)
    assert not any(isinstance(each, patches.Messages) for each in logging.getLogger(patches.LOGGER).filters)


def test_a_workflow_that_is_read_twice_thins_once(same_messages):
    theirs = import_module("snakemake.logging")
    for _ in range(2):
        patches.thin(Progress(), str)
    assert sum(isinstance(each, patches.Messages) for each in theirs.logger.filters) == 1
    line = theirs.DefaultFormatter(set()).format_progress({"done": 1, "total": 2, "left": ", soon"})
    assert line == "1 of 2 steps (50%) done, soon"


# ---- a run without any


@pytest.mark.workflow
def test_a_run_without_the_names_warns_of_each_loss_and_makes_the_same_tables(project, finished):
    """Snakemake itself goes on using its names: they are hidden from the workflow only."""
    undo(project, "probes", "ablations", "tables", "claims.parquet", "claims.html", "figures")
    snakefile = project.folder / "Snakefile"
    hidden = [
        "class Without:",
        "    def __init__(self, whole):",
        "        self.whole = whole",
        "    def __getattr__(self, name):",
        "        if name in ('scheduler', 'execution_settings', 'dag'):",
        "            raise AttributeError(name)",
        "        return getattr(self.whole, name)",
        "workflow = Without(workflow)",
    ]
    events = [
        "import snakemake_interface_logger_plugins.common",
        "del snakemake_interface_logger_plugins.common.LogEvent",
    ]
    snakefile.write_text("\n".join([*events, snakefile.read_text(), *hidden, ""]))
    made = ("claims", "tables/cells", "tables/groups", "tables/redundancy", "faithfulness")
    made = (*made, "importance/alexnet/conv5/0/units")
    printed = project.run(*(f"results/tiny/{name}.parquet" for name in made))
    losses = [line for line in printed.splitlines() if line.startswith(f"Snakemake {version('snakemake')} has no ")]
    assert [loss.split(": ")[0].split(".")[-1] for loss in losses] == [
        "LogEvent",
        "execution_settings",
        "scheduler",
        "dag",
    ]
    assert "rule probes:" in printed and "claims, as this study" not in printed
    names = {name for name in Reference(finished).names if name.endswith(".parquet")}
    assert len(names) > 200
    assert Reference(finished).differences(project, names) == []
