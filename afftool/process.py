"""A child process that answers questions, a line of JSON each: the one there is.

`Child` starts `python -m MODULE` and asks; the module calls `serve` with a function a verb. The child sleeps between
two questions, so that others can be timed meanwhile, and ends with its parent, in silence, whatever happened to that
and whatever it is doing itself, and so does what it has started. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from afftool.errors import AfftoolError
from afftool.failure import FailedError, Failure
from afftool.forks import end_if_copy_of
from afftool.scratch import clear_after

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

Answer = dict[str, Any]

END_S = 10.0
"""Seconds in which a process that was killed, or has closed its output, is gone; one that a driver holds is left."""
LIFE = "AFFTOOL_LIFE"
"""The variable that tells a child the number of the pipe whose other end its parent holds as long as it lives."""
LONGEST_ANSWER_BYTES = 64 * 2**20
"""A commit's own worker, as `check --against` asks one, may be anybody's; ours answer with less than 1 MiB."""
LOOK_MS = 2000.0
"""So often it is looked whether a process is still there whose pipe says nothing."""
POSSIBLE = hasattr(select, "poll")
"""Whether this system has such children at all; Windows has not."""


class ChildFailed(FailedError):
    """A question ended in an exception over there; the child is still there to be asked."""


class ChildEnded(FailedError):
    """The child is gone and owes an answer: it crashed, was killed, or ended itself."""

    def __init__(self, code: int | None) -> None:
        self.how = end_of(code).removeprefix("killed by ")
        """The name of the signal that killed it, or `exit code 3`."""
        super().__init__(Failure(kind="", message=f"its process ended: {end_of(code)}", hint=hint_on_end(code)))


class ChildSilent(FailedError):
    """The child owed an answer for too long, and was ended for it."""

    def __init__(self, seconds: float, *, hint: str | None = None) -> None:
        self.seconds = seconds
        """How long it was waited for."""
        super().__init__(Failure(kind="", message=f"its process did not answer for {seconds:g} s", hint=hint))


class Child:
    """A process that runs a module which serves, in `directory`, with `environment` besides this one's variables."""

    def __init__(
        self, module: str, *, directory: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        life, self._life = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # no queue.py of the user's in place of Python's
            cwd=directory,
            env=os.environ | (environment or {}) | {LIFE: str(life)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the parent's to handle; `stop` ends the child's own helpers too
            pass_fds=[life],
        )
        os.close(life)
        self.pid = self._process.pid
        self._stopped = False

    def ask(self, verb: str, *, timeout_s: float | None = None, **fields: Any) -> Answer:
        """Ask and wait for the answer, for so many seconds at most.

        Raises `ChildFailed` and `ChildEnded`; after that time `ChildSilent`, and the child is no more.
        """
        self.send(verb, **fields)
        return self.answer(timeout_s=timeout_s)

    def send(self, verb: str, **fields: Any) -> None:
        """Ask without waiting, so that several children can work at the same time. Raises `ChildEnded`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": verb, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # ValueError: it was stopped
            raise self._ended() from None

    def answer(self, *, timeout_s: float | None = None) -> Answer:
        """The answer to the question sent last. Raises as `ask` does."""
        line = self._line(timeout_s)
        if not line.endswith(b"\n"):
            raise self._ended()
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise ChildFailed(Failure(**answer["error"]))
        return answer

    def _line(self, timeout_s: float | None) -> bytes:
        """The next line of its output, without its end if the output ends before it.

        Raises `ChildSilent`, and `ChildFailed` for one that is longer than any answer of ours.
        """
        assert self._process.stdout is not None
        until = None if timeout_s is None else time.monotonic() + timeout_s
        line = bytearray()
        with contextlib.suppress(OSError, ValueError):
            output = self._process.stdout.fileno()
            while not line.endswith(b"\n"):
                if not _readable(output, until, self._has_ended):
                    self.stop()
                    assert timeout_s is not None
                    raise ChildSilent(timeout_s)
                more = os.read(output, 1 << 16)  # one question, one answer: nothing comes after the line
                if not more:
                    break
                line += more
                if len(line) > LONGEST_ANSWER_BYTES:
                    self.stop()
                    longest = f"{LONGEST_ANSWER_BYTES / 2**20:g} MiB"
                    raise ChildFailed(Failure(kind="", message=f"its process answered with more than {longest}"))
        return bytes(line)

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the process and everything it started. It holds nothing that needs saving, so it is not asked to."""
        if self._stopped:  # its number may be another process's by now
            return
        self._stopped = True
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (AttributeError, OSError):  # a system without groups, or all of them are gone
            self._process.kill()
        os.close(self._life)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        clear_after(self.pid)

    def _ended(self) -> ChildEnded:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)  # before it is killed: how it ended is what there is to tell
        code = self._process.returncode
        self.stop()
        return ChildEnded(code)


def _readable(output: int, until: float | None, ended: Callable[[], bool]) -> bool:
    """Wait until there is something to read, or nothing more will come; False if that is not so by `until`.

    A process that the other one left behind, in a session of its own, may hold the pipe: nothing comes from that.
    """
    poll = select.poll()
    poll.register(output, select.POLLIN)
    while True:
        over = ended()  # asked before: what was written before the end is there by now
        left_ms = LOOK_MS if until is None else min(1000 * (until - time.monotonic()), LOOK_MS)
        if poll.poll(0.0 if over else max(0.0, left_ms)):
            return True
        if over:
            raise ValueError("the process has ended, and the pipe has not")
        if until is not None and time.monotonic() >= until:
            return False


def serve(verbs: Mapping[str, Callable[..., Mapping[str, Any]]], *, tracebacks: bool = False) -> None:
    """Answer questions until the input ends: `verbs` maps what can be asked to what answers it.

    A verb takes the fields of the question by name and gives those of the answer, as JSON has them. What it raises is
    the answer then, and the next question is waited for. stdout is kept for answers: whatever the user's module
    prints, from Python or from C, goes to stderr, and with `tracebacks` so does where its exceptions came from. stdin
    is kept for questions: the module, and what it starts, reads an empty one.
    """
    answers, questions = os.dup(1), os.dup(0)
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    if life := os.environ.pop(LIFE, None):
        end_with(int(life))
    threading.Thread(target=_end_with_reader, args=(answers,), daemon=True).start()
    pid = os.getpid()
    for line in open(questions, encoding="utf-8"):  # noqa: SIM115
        question = json.loads(line)
        try:
            answer = dict(verbs[question.pop("do")](**question))
        except (Exception, SystemExit) as error:  # a module of the user's may call sys.exit
            if tracebacks and not isinstance(error, AfftoolError):
                traceback.print_exc()
            answer = {"error": asdict(Failure.of(error))}
        end_if_copy_of(pid)
        try:
            _write(answers, json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:  # who asked is gone
            return


def _write(output: int, data: bytes) -> None:
    while data:
        data = data[os.write(output, data) :]


def end_with(pipe: int) -> None:
    """End this process, and all of its group if it leads one, once nobody holds the other end of `pipe` any more.

    Nothing is ever written to that pipe. On Linux it is the kernel that ends them: a module of the user's that hangs in
    C code lets no thread of Python's run.
    """
    whole = -os.getpid() if _leads() else os.getpid()
    if fcntl and hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(pipe, fcntl.F_SETOWN, whole)
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        poll = select.poll()
        poll.register(pipe, 0)
        if poll.poll(0):  # it was closed before
            _end_all()
    else:
        threading.Thread(target=_end_with_writer, args=(pipe,), daemon=True).start()


def _end_with_writer(pipe: int) -> None:
    os.read(pipe, 1)
    _end_all()


def _end_with_reader(output: int) -> None:
    """End this process once nobody can read what it writes: a parent that was killed stops no child that hangs."""
    poll = select.poll()
    poll.register(output, 0)  # that the other end was closed is always told
    poll.poll()
    _end_all()


def _leads() -> bool:
    return hasattr(os, "getpgrp") and os.getpgrp() == os.getpid()


def _end_all() -> None:
    if _leads():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def end_of(code: int | None) -> str:
    """How a process ended, by its exit code; None for one that was ended after it could no longer answer."""
    if code is None:
        return "it closed its pipe, and was stopped"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def hint_on_end(code: int | None) -> str | None:
    """What to do about a process that ended so; None where nobody knows."""
    return KILLED if code == -signal.SIGKILL else None


KILLED = "the system kills what takes too much memory; a smaller batch or size, and other work stopped, leave more"
