"""Modules that end their process, fork it, take all memory or change it: a row says so, and the others go on."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from small_cells import planned, small

from afftool import unfinished
from afftool.bench import Options, bench
from afftool.bench.elsewhere import Elsewhere
from afftool.errors import LoadError
from afftool.global_state import kept, set_by
from afftool.process import Child, ChildEnded
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec
from afftool.store import Store
from afftool.study.cells import CellRecord
from afftool.study.engines import local
from afftool.study.run import Shard, run, todo

pytestmark = pytest.mark.usefixtures("hurried")

RUDE = """
import ctypes, multiprocessing, os, signal, subprocess, sys, threading, time
import torch
from torch import nn

def takes_all_memory():
    group = os.environ.get("HOSTILE_CGROUP")
    if group:
        with open(group + "/cgroup.procs", "w") as procs:
            procs.write(str(os.getpid()))
        torch.ones(10**9)
    os.kill(os.getpid(), signal.SIGKILL)

def in_a_thread(end):
    thread = threading.Thread(target=end)
    thread.start()
    thread.join()

class Plain(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
    def forward(self, x, y):
        return self.conv(x) + y

class InInit(Plain):
    def __init__(self, channels):
        super().__init__(channels)
        in_a_thread(lambda: os._exit(3))

class InBackward(Plain):
    def forward(self, x, y):
        z = super().forward(x, y)
        if z.requires_grad:
            z.register_hook(lambda g: os.abort())
        return z

class Killed(Plain):
    def forward(self, x, y):
        if not x.is_meta:
            takes_all_memory()
        return super().forward(x, y)

class KilledAtOnce(Plain):
    def forward(self, x, y):
        takes_all_memory()

class ForksInInit(Plain):
    def __init__(self, channels):
        super().__init__(channels)
        os.fork()

class ForksInForward(Plain):
    def forward(self, x, y):
        os.fork()
        return super().forward(x, y)

class ForksAndRaises(Plain):
    def forward(self, x, y):
        if os.fork() == 0:
            raise ValueError("in the copy")
        return super().forward(x, y)

class ForksInBackward(Plain):
    def forward(self, x, y):
        z = super().forward(x, y)
        if z.requires_grad:
            z.register_hook(lambda g: os.fork() and None)
        return z

class ForksInC(Plain):
    def forward(self, x, y):
        if not x.is_meta and not hasattr(self, "done"):
            self.done = True
            ctypes.CDLL(None).fork()
        return super().forward(x, y)

class HasWorkers(Plain):
    def forward(self, x, y):
        worker = multiprocessing.get_context("fork").Process(target=os.getpid)
        worker.start()
        worker.join()
        if worker.exitcode != 0:
            raise ValueError(f"its worker ended with {worker.exitcode}")
        return super().forward(x, y)

class ReadsStdin(Plain):
    def forward(self, x, y):
        said = sys.stdin.read() + subprocess.run(["cat"], stdout=subprocess.PIPE, text=True, check=True).stdout
        if said:
            raise ValueError(f"it read {said!r}")
        return super().forward(x, y)

class FindsItsPath(Plain):
    def forward(self, x, y):
        import late_helper_of_hostile
        return super().forward(x, y)

class NoException(BaseException):
    pass

class RaisesNoException(Plain):
    def forward(self, x, y):
        raise NoException("of its own kind")

class LeavesAThread(Plain):
    def __init__(self, channels):
        super().__init__(channels)
        threading.Thread(target=time.sleep, args=(600,), name="sleeper").start()
"""
KILLED = (
    "its process ended: killed by SIGKILL (hint: the system kills what takes too much memory; a smaller batch or size, "
    "and other work stopped, leave more)"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rude.py").write_text(RUDE)
    (tmp_path / "ends.py").write_text("import os\nos._exit(0)\nclass Plain: pass\n")
    return tmp_path


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A control group of 200 MB, in which a process that takes more is killed by the system itself, where one can be
    made; elsewhere the module sends itself the same signal."""
    group = Path("/sys/fs/cgroup/memory") / f"afftool-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(200 * 10**6))
    except OSError:
        yield
        return
    monkeypatch.setenv("HOSTILE_CGROUP", str(group))
    yield
    for _ in range(50):  # a killed process leaves its group a moment later
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.1)


def rows(*fusions: str, mode: str = "train", **options: Any) -> dict[str, Record]:
    given: dict[str, Any] = {"measures": ("cost", "memory"), "backends": ("eager",), "baseline": None} | options
    specs = [CaseSpec(fusion=FusionSpec.parse(f), channels=8, size=(6, 5), batch=2, mode=mode) for f in fusions]
    return {record.fusion.rpartition(":")[2]: record for record in bench(specs, Options(**given))}


# Modules that end their process, in one of its own.


@pytest.mark.usefixtures("here")
def test_a_module_that_ends_its_process_is_a_row_that_says_how_and_the_others_go_on() -> None:
    names = ("InInit", "InBackward", "Plain")
    found = rows(*(f"rude:{name}" for name in names), isolate="process", measures=("cost",))
    assert {name: found[name].reason for name in names} == {
        "InInit": "its process ended: exit code 3",
        "InBackward": "its process ended: killed by SIGABRT",
        "Plain": None,
    }
    assert {name: found[name].status for name in names} == dict.fromkeys(names, "failed") | {"Plain": "ok"}


@pytest.mark.long
@pytest.mark.usefixtures("here", "little_memory")
def test_a_module_that_takes_all_memory_once_it_runs_is_such_a_row_too() -> None:
    found = rows("rude:Killed", isolate="process", measures=("memory",), mode="infer")["Killed"]
    assert (found.status, found.reason) == ("failed", KILLED)


@pytest.mark.long
@pytest.mark.usefixtures("here")
def test_a_file_that_ends_its_process_on_import_does_so_elsewhere(place: Any) -> None:
    done = place.run(
        *("bench", "--fusion", "ends.py:Plain,rude.py:Plain", "--measure", "cost", "--isolate", "process", "--json"),
        *("--channels", "8", "--size", "8"),
    )
    assert done.returncode == 0, done.stderr
    found = {record["fusion"]: record for record in json.loads(done.stdout)["records"]}
    assert found["ends:Plain"]["status"] == "failed"
    assert found["ends:Plain"]["reason"] == "its process ended: exit code 0"
    assert found["rude:Plain"]["params"] == 72
    assert found["add"]["status"] == "ok"


@pytest.mark.usefixtures("here")
def test_what_cannot_be_built_is_refused_there_as_here_and_what_ended_it_is_not_run_again() -> None:
    def case(fusion: str) -> CaseSpec:
        return CaseSpec(fusion=FusionSpec.parse(fusion), channels=8, size=(6, 5))

    with closing(Elsewhere(600.0)) as elsewhere:
        with pytest.raises(LoadError, match="Missing"):
            elsewhere.check([case("rude:Missing")])
        assert elsewhere.settled(case("rude:Plain").fusion) == case("rude:Plain").fusion
        elsewhere.check([case("ends:Plain")])
        started = elsewhere._child
        with pytest.raises(ChildEnded, match="exit code 0"):
            elsewhere.count(case("ends:Plain"), ("cost",), before_backends=False)
        assert started is None
        assert elsewhere._child is None


@pytest.mark.long
@pytest.mark.usefixtures("here")
def test_a_module_that_reads_stdin_finds_it_empty_there_and_takes_no_question() -> None:
    found = rows("rude:ReadsStdin", "rude:Plain", isolate="process", timeout_s=60.0)
    assert {name: row.reason for name, row in found.items()} == {"ReadsStdin": None, "Plain": None}


@pytest.mark.long
def test_what_a_file_adds_to_the_path_is_there_when_it_is_called_in_another_process(here: Path) -> None:
    (here / "helpers").mkdir()
    (here / "helpers" / "late_helper_of_hostile.py").touch()
    added = "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'helpers'))\n"
    (here / "adds_to_path.py").write_text(added + RUDE)
    row = rows("adds_to_path:FindsItsPath", isolate="process")["FindsItsPath"]
    assert row.status == "ok", row.reason


@pytest.mark.usefixtures("here")
def test_what_a_module_raises_that_is_no_exception_is_a_row_as_others_are() -> None:
    found = rows("rude:RaisesNoException", "rude:Plain")
    assert found["RaisesNoException"].reason == "RuntimeError: NoException, which is no Exception: of its own kind"
    assert found["Plain"].status == "ok"


def test_a_file_that_skips_itself_on_import_is_refused_by_name(place: Any, refuses: Callable[..., str]) -> None:
    (place.folder / "skips.py").write_text("import pytest\npytest.skip('no GPU', allow_module_level=True)\n")
    assert "importing 'skips' failed: " in refuses(2, "bench", "-f", "skips:Plain", "-c", "8", "-m", "cost")


# ... and in this one: the next command says so.


@pytest.mark.long
@pytest.mark.usefixtures("here", "little_memory")
@pytest.mark.parametrize(
    ("fusion", "code", "doing"),
    [
        pytest.param(
            *("rude.py:KilledAtOnce", -signal.SIGKILL, "run 1 ended in the middle, while counting rude:KilledAtOnce: "),
            marks=pytest.mark.long,
        ),
        ("ends.py:Plain", 0, "an earlier command ended in the middle, while loading ends.py:Plain: "),
    ],
)
def test_a_bench_that_a_module_ended_is_said_by_the_next_one_and_then_forgotten(
    place: Any, fusion: str, code: int, doing: str
) -> None:
    words = ("bench", "--measure", "cost", "--channels", "8", "--size", "8", "--fusion")
    assert place.run(*words, fusion).returncode == code
    if doing.startswith("run"):
        listed = place.run("runs")
        assert "not finished" in listed.stdout
        assert doing in listed.stderr, "who only reads says it, and leaves it to be said"
    again = place.run(*words, "add")
    assert again.returncode == 0
    assert again.stderr.count(doing) == 1
    assert "--isolate process keeps a bench from that" in again.stderr
    assert not list((place.folder / ".afftool").glob("*at-work*"))
    with Store.open(place.folder / ".afftool" / "runs.sqlite", create=False) as store:
        assert [run.finished for run in store.runs()] == [*([False] if doing.startswith("run") else []), True]


@pytest.mark.long
@pytest.mark.usefixtures("here")
def test_a_study_that_a_module_ended_is_said_too(place: Any) -> None:
    assert place.run("ablate", "scale", "--data", "digits", "--variants", "aff,ends.py:Plain").returncode == 0
    (left,) = unfinished.left_beside(place.folder / ".afftool" / "runs.sqlite")
    assert left.text.startswith(
        "an earlier command ended in the middle, while loading and trying the variants of scale: "
    )


def test_a_command_that_is_still_at_work_is_not_said_to_have_ended(tmp_path: Path) -> None:
    store = tmp_path / "runs.sqlite"
    holds = (
        "import sys\nfrom pathlib import Path\nfrom afftool.unfinished import marked\n"
        f"with marked(Path({str(store)!r})) as mark:\n"
        "    mark.begin(7)\n    mark.tell('measuring')\n    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdin
        assert other.stdout.readline() == "ready\n"
        assert unfinished.left_beside(store) == []
        other.kill()
        other.wait()
        (left,) = unfinished.left_beside(store)
    assert (left.run, left.doing) == (7, "measuring")


def test_a_mark_is_gone_after_a_normal_end_and_after_an_error(tmp_path: Path) -> None:
    store = tmp_path / "new" / "runs.sqlite"
    for error in (None, KeyboardInterrupt):
        try:
            with unfinished.marked(store) as mark:
                mark.tell("measuring")
                assert len(list(store.parent.iterdir())) == 1
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert not store.parent.exists(), "the folder was made for it alone"


@pytest.mark.parametrize("content", ["", "[1]", '{"run": "x", "doing": "y"}', '{"doing": 3}', "[" * 999, "x" * 9999])
def test_a_file_that_is_no_mark_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "runs.sqlite.at-work-1").write_text(content)
    os.mkfifo(tmp_path / "runs.sqlite.at-work-2")
    (tmp_path / "target").write_text('{"run": 1, "doing": "x"}')
    (tmp_path / "runs.sqlite.at-work-3").symlink_to(tmp_path / "target")
    assert unfinished.left_beside(tmp_path / "runs.sqlite") == []
    assert len(list(tmp_path.iterdir())) == 4


def test_a_link_in_the_place_of_a_mark_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / f"runs.sqlite.at-work-{os.getpid()}").symlink_to(tmp_path / "target")
    with unfinished.marked(tmp_path / "runs.sqlite") as mark:
        mark.tell("measuring")
    assert (tmp_path / "target").read_text() == "precious"


def test_where_no_mark_can_be_made_the_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with unfinished.marked(tmp_path / "runs.sqlite") as mark:
        mark.tell("measuring")
        assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.usefixtures("here")
def test_a_thread_that_never_ends_does_not_keep_the_command(place: Any) -> None:
    words = ("--measure", "cost", "--channels", "8", "--size", "8", "--baseline", "none")
    done = place.run("bench", "--fusion", "rude.py:LeavesAThread", *words, timeout_s=60)
    assert done.returncode == 0, done.stderr
    assert "sleeper" in done.stderr
    assert "this process ends all the same" in done.stderr
    assert "72" in done.stdout, "what is printed is not lost"


# Modules that fork.


@pytest.mark.long
@pytest.mark.parametrize("name", ["ForksInInit", "ForksInForward", "ForksAndRaises", "ForksInBackward"])
def test_a_copy_of_the_process_ends_where_it_comes_back(here: Path, name: str) -> None:
    log = here / "log"
    found = rows(f"rude:{name}", "rude:Plain")
    with log.open("a") as file:  # whoever comes back from there writes this
        file.write(f"{os.getpid()}\n")
    time.sleep(0.2)
    assert log.read_text() == f"{os.getpid()}\n"
    assert found["Plain"].status == "ok"
    assert found["Plain"].global_state is None
    assert found[name].status == "ok", found[name].reason
    assert "made by fork, each ended where it came back" in (found[name].global_state or {})["copies of the process"]


@pytest.mark.usefixtures("here")
def test_workers_that_a_module_forks_by_multiprocessing_are_left_alone() -> None:
    found = rows("rude:HasWorkers")["HasWorkers"]
    assert found.status == "ok", found.reason
    assert found.global_state is None


@pytest.mark.long
@pytest.mark.usefixtures("here")
def test_a_copy_that_python_knows_nothing_of_stores_and_prints_no_row_twice(place: Any) -> None:
    words = ("--measure", "memory", "--channels", "8", "--size", "8", "--batch", "1")
    done = place.run("bench", "--fusion", "rude.py:ForksInC", *words, "--backend", "eager")
    assert done.returncode == 0, done.stderr
    time.sleep(0.5)
    with sqlite3.connect(place.folder / ".afftool" / "runs.sqlite") as store:
        assert store.execute("SELECT count(*) FROM records").fetchone() == (2,)
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert done.stdout.count("rude:ForksInC eager: ") == 1


SERVING = """
import ctypes, os, subprocess, time
from afftool.process import serve

def forks():
    ctypes.CDLL(None).fork()
    return {"pid": os.getpid()}

def leaves():
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    os._exit(5)

serve({f.__name__: f for f in (forks, leaves)})
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    (tmp_path / "serving_rudely.py").write_text(SERVING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    made = Child("serving_rudely")
    yield made
    made.stop()


def test_a_copy_answers_no_question(child: Child) -> None:
    assert child.ask("forks", timeout_s=60) == {"pid": child.pid}
    assert child.ask("forks", timeout_s=60) == {"pid": child.pid}


def test_a_process_that_another_holds_the_pipe_of_has_ended_all_the_same(child: Child) -> None:
    started = time.monotonic()
    with pytest.raises(ChildEnded) as ended:
        child.ask("leaves", timeout_s=600)
    assert ended.value.failure.reason == "its process ended: exit code 5"
    assert time.monotonic() - started < 60


# A worker of a study.


@pytest.mark.long
@pytest.mark.usefixtures("here", "little_memory")
def test_a_worker_of_a_study_that_the_system_kills_is_a_cell_that_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "ATTEMPTS", 1)
    (here / "worker_rude.py").write_text(
        f"{RUDE}\n"
        "class InWorker(Plain):\n"
        "    def forward(self, x, y):\n"
        "        if multiprocessing.parent_process() is not None:\n"
        "            takes_all_memory()\n"
        "        return super().forward(x, y)\n"
    )
    plan = planned(small(epochs=1, budget=None).with_variants(["add", "worker_rude:InWorker"]))
    events = run(plan, todo(plan, {}, Shard()), local.LocalEngine(("cpu",)), here / "cells")
    found = {event.cell.fusion: event for event in events if isinstance(event, CellRecord)}
    assert found["add"].finished
    reason = str(found["worker_rude:InWorker"].reason)
    assert reason.startswith("its worker died 1 times: its process ended: killed by SIGKILL (hint: the system kills")


# What a module that runs sets for the process.


def replaces_stdout() -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


SETS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "current directory": (lambda: os.chdir("/"), os.getcwd),
    "alarm": (lambda: signal.alarm(1), lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0),
    "handler of SIGCHLD": (
        lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGCHLD),
    ),
    "handler of SIGINT": (
        lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGINT),
    ),
    "where stdout leads": (lambda: os.close(1), lambda: os.fstat(1).st_ino),
    "where stderr leads": (lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2), lambda: os.fstat(2).st_ino),
    "Python's stdout": (replaces_stdout, lambda: sys.stdout),
    "limits": (lambda: _limit(64), lambda: _limits()[0]),
}


def _limits() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)


def _limit(files: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (files, _limits()[1]))


@pytest.mark.parametrize("what", list(SETS))
def test_what_a_forward_pass_sets_for_the_process_is_put_back_and_named(what: str, tmp_path: Path) -> None:
    sets, reads = SETS[what]
    before, target = reads(), f"{tmp_path}/m.py:{what.replace(' ', '')}"
    with kept(target, "while it ran"):
        sets()
    assert reads() == before
    assert what in (set_by(target) or {})
    assert "(it stays so)" not in (set_by(target) or {})[what]


def test_a_stdout_that_a_module_closes_is_opened_again(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom afftool.global_state import kept\n"
        f"with kept({str(tmp_path / 'm.py')!r} + ':Closes', 'while it ran'):\n    sys.stdout.close()\n"
        "print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("still here\n", 0), done.stderr


def test_threads_alone_find_no_signal_handlers_to_put_back(tmp_path: Path) -> None:
    said: list[object] = []

    def runs() -> None:
        with kept(f"{tmp_path}/m.py:InThread", "while it ran"):
            os.chdir("/")
        said.append(os.getcwd())

    before = os.getcwd()
    thread = threading.Thread(target=runs)
    thread.start()
    thread.join()
    assert said == [before]


def test_a_stderr_that_a_module_closes_is_opened_again_in_blocks_within_each_other(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom afftool.global_state import kept\n"
        f"with kept({str(tmp_path / 'm.py')!r} + ':Outer', 'when it was built'):\n"
        f"    with kept({str(tmp_path / 'm.py')!r} + ':Inner', 'when it was built'):\n        sys.stderr.close()\n"
        "print('still here', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("still here\n", 0)


def test_a_module_that_closes_the_files_of_its_process_is_blamed_for_a_result_that_cannot_be_printed() -> None:
    code = (
        "import os\nfrom afftool.console import stdout_kept\nfrom afftool.errors import UserError\n"
        "try:\n    with stdout_kept():\n        os.closerange(3, 100)\n"
        "except UserError as error:\n    print(error, error.hint, file=__import__('sys').stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "a module has closed files of this process that are not its own, stdout among them" in done.stderr
    assert "--isolate process keeps a bench from that" in done.stderr
