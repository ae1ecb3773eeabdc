"""A child process that answers questions, a line of JSON each: the one there is.

`Child` starts `python -m MODULE` and asks; the module calls `serve` with a function a verb. The child sleeps between
two questions, so that others can be timed meanwhile, and ends when its input does, whatever happened to its parent.
Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from afftool.errors import AfftoolError
from afftool.failure import FailedError, Failure

Answer = dict[str, Any]


class ChildFailed(FailedError):
    """A question ended in an exception over there; the child is still there to be asked."""


class ChildEnded(FailedError):
    """The child is gone and owes an answer: it crashed, was killed, or ended itself."""

    def __init__(self, code: int) -> None:
        self.how = _end_of(code)
        """The name of the signal that killed it, or `exit code 3`."""
        how = f"killed by {self.how}" if code < 0 else self.how
        super().__init__(Failure(kind="", message=f"its process ended: {how}"))


class Child:
    """A process that runs a module which serves, in `directory`, with `environment` besides this one's variables."""

    def __init__(
        self, module: str, *, directory: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],  # no queue.py of the user's in place of Python's
            cwd=directory,
            env=os.environ | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the parent's to handle; `stop` ends the child's own helpers too
        )
        self.pid = self._process.pid
        self._stopped = False

    def ask(self, verb: str, **fields: Any) -> Answer:
        """Ask and wait for the answer. Raises `ChildFailed` and `ChildEnded`."""
        self.send(verb, **fields)
        return self.answer()

    def send(self, verb: str, **fields: Any) -> None:
        """Ask without waiting, so that several children can work at the same time. Raises `ChildEnded`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": verb, **fields}) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # ValueError: it was stopped
            raise self._ended() from None

    def answer(self) -> Answer:
        """The answer to the question sent last. Raises as `ask` does."""
        assert self._process.stdout is not None
        line = ""
        with contextlib.suppress(OSError, ValueError):
            line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise self._ended()
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise ChildFailed(Failure(**answer["error"]))
        return answer

    def stop(self) -> None:
        """End the process and everything it started. It holds nothing that needs saving, so it is not asked to."""
        if self._stopped:  # its number may be another process's by now
            return
        self._stopped = True
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (AttributeError, OSError):  # a system without groups, or all of them are gone
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()

    def _ended(self) -> ChildEnded:
        code = self._process.wait()
        self.stop()
        return ChildEnded(code)


def serve(verbs: Mapping[str, Callable[..., Mapping[str, Any]]], *, tracebacks: bool = False) -> None:
    """Answer questions until the input ends: `verbs` maps what can be asked to what answers it.

    A verb takes the fields of the question by name and gives those of the answer, as JSON has them. What it raises is
    the answer then, and the next question is waited for. stdout is kept for answers: whatever the user's module
    prints, from Python or from C, goes to stderr, and with `tracebacks` so does where its exceptions came from.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = dict(verbs[question.pop("do")](**question))
        except (Exception, SystemExit) as error:  # a module of the user's may call sys.exit
            if tracebacks and not isinstance(error, AfftoolError):
                traceback.print_exc()
            answer = {"error": asdict(Failure.of(error))}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _end_of(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
