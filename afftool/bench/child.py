"""A case in a fresh process, timed there while this one sleeps.

`Child` starts `python -m afftool.bench.child`, sends the case's spec as a line of JSON, and is then a contestant like
any other: it asks for a sample and blocks until the answer comes. So contestants in processes of their own still
take turns in rounds. A child ends when its input does, whatever happened to its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from afftool.measure.time.contestant import Sample
from afftool.record import Cache, Record
from afftool.spec import CaseSpec

if TYPE_CHECKING:
    from afftool.bench.entry import Entrant


class Child:
    """A case under one backend in a process of its own. Making it raises what `enter` told there, reported."""

    def __init__(
        self,
        spec: CaseSpec,
        record: Record,
        *,
        measures: Collection[str],
        cache: Cache = "warm",
        threads: int | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "afftool.bench.child"],  # no queue.py of the user's in place of Python's
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is the parent's to handle; it ends the child's own helpers too
        )
        self.pid = self._process.pid
        try:
            answer = self._ask(
                do="enter",
                spec=spec.fields(),
                record=record.to_dict(),
                measures=sorted(measures),
                cache=cache,
                threads=threads,
                path=sys.path,
            )
        except BaseException:
            self.close()
            raise
        self.record = Record.from_dict(answer["record"])

    def sample(self, steps: int) -> Sample:
        """Have one sample taken."""
        return Sample(**self._ask(do="sample", steps=steps)["sample"])

    def split(self, steps: int) -> Mapping[str, float]:
        """Have the parts of a step timed."""
        parts: dict[str, float] = self._ask(do="split", steps=steps)["parts"]
        return parts

    def move(self) -> None:
        """Have its data moved."""
        self._ask(do="move")

    def close(self) -> None:
        """End the process and everything it started."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def _ask(self, **question: Any) -> dict[str, Any]:
        from afftool.bench.entry import ReportedError

        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise ReportedError("failed", f"its process ended: {_end_of(self._process.wait())}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ReportedError(**answer["error"])
        return answer


def enter_child(spec: CaseSpec, record: Record, *, measures: Collection[str], cache: Cache, threads: int) -> Entrant:
    """As `afftool.bench.entry.enter`, in a process of its own with so many threads."""
    from afftool.bench.entry import Entrant

    child = Child(spec, record, measures=measures, cache=cache, threads=threads)
    return Entrant(child, child.record, child.close, child.pid)


def _end_of(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class _Inside:
    """The child's half."""

    def __init__(self) -> None:
        self._entry: Entrant | None = None

    def enter(self, question: Mapping[str, Any]) -> dict[str, Any]:
        sys.path[:] = question["path"]
        import torch

        from afftool.bench.entry import EagerOutputs, enter
        from afftool.build import build_case
        from afftool.measure.time.contestant import clock_for

        if question["threads"]:
            torch.set_num_threads(question["threads"])
        spec = CaseSpec.from_fields(question["spec"])
        case = build_case(spec)
        self._entry = enter(
            case,
            Record.from_dict(question["record"]),
            eager=EagerOutputs(case),
            measures=question["measures"],
            clock=clock_for(spec.device),
            cache=question["cache"],
        )
        return {"record": self._entry.record.to_dict()}

    def sample(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._entry
        sample = self._entry.contestant.sample(question["steps"])
        return {"sample": asdict(sample)}

    def split(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._entry
        return {"parts": dict(self._entry.contestant.split(question["steps"]))}

    def move(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._entry
        self._entry.contestant.move()
        return {}


def main() -> None:
    """Answer questions, one JSON line each, until the input ends. What the module prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    inside = _Inside()
    verbs: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
        "enter": inside.enter,
        "sample": inside.sample,
        "split": inside.split,
        "move": inside.move,
    }
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = verbs[question["do"]](question)
        except (Exception, SystemExit) as error:
            from afftool.bench.entry import outcome

            status, reason = outcome(error)
            answer = {"error": {"status": status, "reason": reason}}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
