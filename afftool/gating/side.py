"""One side of a comparison, in a process of its own.

The process sleeps between questions, so that while one side is timed the other takes no time from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from afftool.errors import AfftoolError, BaselineError, Rejected
from afftool.failure import Failure
from afftool.gating.config import GateCase
from afftool.gating.imports import ImportPlan
from afftool.process import Answer, Child, ChildEnded, ChildFailed

PROTOCOL = 2
"""Its number changes with the verbs of `afftool.gating.worker` and with what they take and answer."""


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
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, question: str, **fields: Any) -> Answer:
        """Send a question and wait for its answer, starting the process if it does not run.

        Raises what the other side raised if it is one of `afftool.errors`, and `CaseError` for anything else.
        """
        self.send(question, **fields)
        return self.answer()

    def send(self, question: str, **fields: Any) -> None:
        """Send a question; `answer` waits for the answer. Two sides can so work at the same time."""
        child = self._child or self._start()
        try:
            child.send(question, **fields)
        except ChildEnded as ended:
            raise self._crashed(ended) from ended

    def answer(self) -> Answer:
        """The answer to the question sent last. Raises as `ask` does."""
        assert self._child is not None
        try:
            return self._child.answer()
        except ChildFailed as failed:
            raise self._error(failed.failure) from failed
        except ChildEnded as ended:
            raise self._crashed(ended) from ended

    def stop(self) -> None:
        """End the process and everything it started; the next question starts a fresh one."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _start(self) -> Child:
        paths = [*map(str, self._imports.paths), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",  # the user's tree stays as it is
            "OMP_NUM_THREADS": str(self._threads),
            "MKL_NUM_THREADS": str(self._threads),
        }
        self._child = Child("afftool.gating.worker", directory=self.directory, environment=environment)
        tree = None if self._imports.tree is None else str(self._imports.tree)
        try:
            hello = self.ask("hello", packages=list(self._imports.packages), tree=tree)
        except CaseError as error:
            raise BaselineError(
                f"no afftool worker starts in {self.directory}",
                hint="the afftool of that commit may be too old for `check --against`",
            ) from error
        if hello["protocol"] != PROTOCOL:
            raise BaselineError(
                f"the afftool of {self.directory} speaks another protocol ({hello['protocol']}, not {PROTOCOL})",
                hint="compare with a newer ref, or use --baseline",
            )
        return self._child

    def _crashed(self, ended: ChildEnded) -> CrashError:
        self.stop()
        return CrashError(f"the process died ({ended.how})", hint="run the fusion by itself to see why")

    def _error(self, failure: Failure) -> AfftoolError:
        """The error that the other side raised; what the measured code did to a case is a `CaseError`."""
        if failure.kind in (CaseError.__name__, Rejected.__name__):
            return CaseError(failure.message)
        if failure.error is not None:
            return failure.error
        place = f" ({failure.place.removeprefix(f'{self.directory}{os.sep}')})" if failure.place else ""
        return CaseError(f"{failure.kind}: {' '.join(failure.message.split()) or 'no message'}{place}")


def case_fields(case: GateCase) -> dict[str, Any]:
    """A case as JSON takes it; `afftool.gating.worker` reads it back."""
    return {**case.spec.fields(), "backend": case.backend}
