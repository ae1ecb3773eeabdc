"""One side of a comparison, in a process of its own: questions in, answers out, one JSON line each.

The process sleeps between questions, so that while one side is timed the other takes no time from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from afftool import errors
from afftool.errors import AfftoolError, BaselineError
from afftool.gating.config import GateCase
from afftool.gating.imports import ImportPlan

PROTOCOL = 1


class CaseError(AfftoolError):
    """The code that was measured raised an exception of its own."""


class CrashError(CaseError):
    """The process ended without an answer: a crash in the code that was measured."""


class Side:
    """A worker process that builds and measures cases, with so many CPU threads. Use it as a context manager."""

    def __init__(self, directory: Path, imports: ImportPlan, *, threads: int = 1) -> None:
        self.directory = directory
        self._imports = imports
        self._threads = threads
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, question: str, **fields: Any) -> dict[str, Any]:
        """Send a question and wait for its answer, starting the process if it does not run.

        Raises what the other side raised if it is one of `afftool.errors`, and `CaseError` for anything else.
        """
        self.send(question, **fields)
        return self.answer()

    def send(self, question: str, **fields: Any) -> None:
        """Send a question; `answer` waits for the answer. Two sides can so work at the same time."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"do": question, **fields}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._died()

    def answer(self) -> dict[str, Any]:
        """The answer to the question sent last. Raises as `ask` does."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            self._died()
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise _error(reply["error"])
        if "failed" in reply:
            raise CaseError(reply["failed"])
        return reply

    def stop(self) -> None:
        """End the process and everything it started; the next question starts a fresh one."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, signal.SIGKILL)  # it holds nothing that needs saving
        except (ProcessLookupError, PermissionError):
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()

    def _start(self) -> subprocess.Popen[str]:
        paths = [*map(str, self._imports.paths), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",  # the user's tree stays as it is
            "OMP_NUM_THREADS": str(self._threads),
            "MKL_NUM_THREADS": str(self._threads),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "afftool.gating.worker"],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        tree = None if self._imports.tree is None else str(self._imports.tree)
        try:
            hello = self.ask("hello", packages=list(self._imports.packages), tree=tree)
        except CrashError as error:
            raise BaselineError(
                f"no afftool worker starts in {self.directory}",
                hint="the afftool of that commit may be too old for `check --against`",
            ) from error
        if hello["protocol"] != PROTOCOL:
            raise BaselineError(
                f"the afftool of {self.directory} speaks another protocol ({hello['protocol']}, not {PROTOCOL})",
                hint="compare with a newer ref, or use --baseline",
            )
        return self._process

    def _died(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        self.stop()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise CrashError(f"the process died ({how})", hint="run the fusion by itself to see why")


def case_fields(case: GateCase) -> dict[str, Any]:
    """A case as JSON takes it; `afftool.gating.worker` reads it back."""
    return {**case.spec.fields(), "backend": case.backend}


def _error(fields: Mapping[str, Any]) -> AfftoolError:
    """The error that the other side raised."""
    kind = getattr(errors, str(fields["kind"]), None)
    if not (isinstance(kind, type) and issubclass(kind, AfftoolError)):
        kind = AfftoolError
    return kind(str(fields["message"]), hint=fields.get("hint"))
