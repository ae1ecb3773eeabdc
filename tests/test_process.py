"""A child process that answers questions."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from afftool.errors import Unavailable
from afftool.failure import Failure
from afftool.process import Child, ChildEnded, ChildFailed, ChildSilent

SERVING = """
import contextlib
import os
import signal
import subprocess
import sys
import time
from afftool.errors import Unavailable
from afftool.process import serve


def add(a, b):
    print("this is no answer")
    os.system("echo nor is this")
    return {"sum": a + b}


def unavailable():
    raise Unavailable("no such device", hint="buy one")


def divide():
    return {"ratio": 1 / 0}


def leave():
    sys.exit("enough")


def die(number):
    os.kill(os.getpid(), number)


def end(code):
    os._exit(code)


def help():
    return {"pid": subprocess.Popen(["sleep", "60"]).pid, "torch": "torch" in sys.modules}


def nap(seconds):
    time.sleep(seconds)
    return {"text": "x" * 200_000}


serve({f.__name__: f for f in (add, unavailable, divide, leave, die, end, help, nap)}, tracebacks=True)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Child]]:
    """Starts a child when the test asks, so that it writes to where the test reads."""
    (tmp_path / "serving.py").write_text(SERVING)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    started: list[Child] = []

    def _start() -> Child:
        started.append(Child("serving", directory=tmp_path, environment={"PYTHONPATH": path}))
        return started[-1]

    yield _start
    for child in started:
        child.stop()


def failure(child: Child, verb: str) -> Failure:
    with pytest.raises(ChildFailed) as failed:
        child.ask(verb)
    return failed.value.failure


def test_what_is_printed_is_no_answer(start: Callable[[], Child], capfd: pytest.CaptureFixture[str]) -> None:
    child = start()
    assert child.ask("add", a=2, b=3) == {"sum": 5}
    told = capfd.readouterr()
    assert "this is no answer" not in told.out
    assert "nor is this" in told.err


def test_an_error_is_an_answer_and_the_next_question_is_waited_for(
    start: Callable[[], Child], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child = start()
    told = failure(child, "unavailable").error
    assert isinstance(told, Unavailable)
    assert (told.message, told.hint) == ("no such device", "buy one")
    divided = failure(child, "divide")
    assert (divided.kind, divided.message, divided.error) == ("ZeroDivisionError", "division by zero", None)
    assert divided.place == f"{tmp_path / 'serving.py'}:{SERVING[: SERVING.index('1 / 0')].count(chr(10)) + 1}"
    assert "Traceback" in capfd.readouterr().err
    assert (failure(child, "leave").kind, failure(child, "leave").message) == ("SystemExit", "enough")
    assert child.ask("add", a=1, b=1) == {"sum": 2}


@pytest.mark.parametrize(
    ("verb", "fields", "how", "killed"),
    [
        ("die", {"number": 11}, "SIGSEGV", True),
        ("die", {"number": 40}, "signal 40", True),
        ("end", {"code": 3}, "exit code 3", False),
    ],
)
def test_a_child_that_ends_is_told_with_how(
    start: Callable[[], Child], verb: str, fields: dict[str, int], how: str, killed: bool
) -> None:
    child = start()
    with pytest.raises(ChildEnded) as ended:
        child.ask(verb, **fields)
    assert ended.value.how == how
    assert ended.value.failure.reason == f"its process ended: {'killed by ' if killed else ''}{how}"
    with pytest.raises(ChildEnded):
        child.ask("add", a=1, b=1)


def test_a_module_that_does_not_start_is_a_child_that_ended(capfd: pytest.CaptureFixture[str]) -> None:
    missing = Child("afftool.no_such_module")
    with pytest.raises(ChildEnded) as ended:
        missing.ask("add", a=1, b=1)
    assert ended.value.how == "exit code 1"


def test_stopping_ends_what_the_child_started_too(start: Callable[[], Child]) -> None:
    child = start()
    answer = child.ask("help")
    assert not answer["torch"]
    child.stop()
    child.stop()
    assert _gone(answer["pid"])


def test_a_child_that_does_not_answer_in_time_is_ended_and_the_reason_says_how_long_it_was_waited_for(
    start: Callable[[], Child],
) -> None:
    child = start()
    helper = child.ask("help")["pid"]
    with pytest.raises(ChildSilent) as silent:
        child.ask("nap", seconds=600, timeout_s=0.25)
    assert silent.value.seconds == 0.25
    assert silent.value.failure.reason == "its process did not answer for 0.25 s"
    assert silent.value.failure.status == "failed"
    assert _gone(child.pid)
    assert _gone(helper)
    with pytest.raises(ChildEnded):
        child.ask("add", a=1, b=1)


def test_an_answer_that_is_there_is_taken_however_late_it_is_looked_for(start: Callable[[], Child]) -> None:
    child = start()
    child.ask("add", a=1, b=1)
    child.send("add", a=2, b=2)
    assert child._process.stdout
    with selectors.DefaultSelector() as output:
        output.register(child._process.stdout, selectors.EVENT_READ)
        assert output.select(timeout=60)
    assert child.answer(timeout_s=0.0) == {"sum": 4}


@pytest.mark.parametrize("timeout_s", [600.0, float("inf"), None])
def test_an_answer_longer_than_a_pipe_holds_comes_whole(start: Callable[[], Child], timeout_s: float | None) -> None:
    assert start().ask("nap", seconds=0.01, timeout_s=timeout_s) == {"text": "x" * 200_000}


def test_an_answer_longer_than_any_of_ours_is_refused_and_its_process_ended(
    start: Callable[[], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afftool.process.LONGEST_ANSWER_BYTES", 2**17)
    child = start()
    with pytest.raises(ChildFailed, match=r"answered with more than 0\.125 MiB"):
        child.ask("nap", seconds=0)
    with pytest.raises(ChildEnded):
        child.ask("add", a=1, b=2)


@pytest.mark.parametrize("timeout_s", [600.0, None])
def test_ctrl_c_ends_the_wait_for_an_answer(start: Callable[[], Child], timeout_s: float | None) -> None:
    child = start()
    child.ask("add", a=1, b=1)
    pressed = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        child.ask("nap", seconds=600, timeout_s=timeout_s)
    pressed.join()
    child.stop()
    assert _gone(child.pid)


def test_a_process_that_not_even_a_signal_ends_is_left_and_nobody_waits_for_it(
    start: Callable[[], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start()
    with monkeypatch.context() as unkillable:
        unkillable.setattr("afftool.process.END_S", 0.05)
        unkillable.setattr(os, "killpg", lambda *_: None)  # a driver that holds on to it
        with pytest.raises(ChildSilent):
            child.ask("nap", seconds=600, timeout_s=0.05)
    with contextlib.suppress(ProcessLookupError):  # it may have seen by now that nobody reads what it writes
        os.killpg(child.pid, signal.SIGKILL)
    child._process.wait()


@pytest.mark.parametrize("seconds", [0.2, 600])
def test_a_child_whose_parent_was_killed_ends_in_silence_even_in_the_middle_of_its_work(
    seconds: float, tmp_path: Path
) -> None:
    (tmp_path / "serving.py").write_text(SERVING)
    parent = (
        "import os, signal\n"
        "from afftool.process import Child\n"
        "child = Child('serving')\n"
        "child.ask('add', a=1, b=1)\n"
        f"child.send('nap', seconds={seconds})\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    told = tmp_path / "told"
    with told.open("w") as errors:
        killed = subprocess.run(
            [sys.executable, "-c", parent],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            check=False,
        )
    assert _gone(int(killed.stdout))
    assert told.read_text() == "this is no answer\nnor is this\n"


def test_a_child_ends_with_its_input(start: Callable[[], Child]) -> None:
    child = start()
    child.ask("add", a=1, b=1)
    assert child._process.stdin
    child._process.stdin.close()
    assert child._process.wait(timeout=30) == 0


@pytest.mark.parametrize("module", ["afftool.bench.worker", "afftool.gate.worker"])
def test_a_worker_writes_nothing_of_its_own(module: str, capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(module)
    assert child._process.stdin
    child._process.stdin.close()
    assert child._process.wait(timeout=120) == 0
    child.stop()
    assert capfd.readouterr() == ("", "")


def test_it_loads_no_torch() -> None:
    code = "import afftool.process, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _gone(pid: int) -> bool:
    """Whether a process ends within some seconds; one that nobody waits for may stay as a zombie."""
    for _ in range(500):
        try:
            if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


KEEPING = """
import time
from pathlib import Path
from afftool.process import serve
from afftool.scratch import scratch


def hang():
    with scratch() as folder:
        Path(folder, "half.cpp").touch()
        time.sleep(60)


serve({"hang": hang})
"""


def test_what_a_killed_child_had_in_the_temporary_folder_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keeps.py").write_text(KEEPING)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    child = Child("keeps", environment={"PYTHONPATH": str(tmp_path), "TMPDIR": str(temporary)})
    child.send("hang")
    for _ in range(500):
        if list(temporary.rglob("half.cpp")):
            break
        time.sleep(0.02)
    assert list(temporary.rglob("half.cpp"))
    child.stop()
    assert list(temporary.iterdir()) == []
