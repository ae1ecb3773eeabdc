"""What is found out of a module of the user's own before it is measured, in a process of its own.

With `--isolate process` this process runs none of it: not its file, not its constructor, not a forward pass on the meta
device. One that ends its process, or hangs in it, fails alone; the others are asked of the next process.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any

from afftool.console import note
from afftool.failure import FailedError
from afftool.process import Answer, Child, ChildEnded, ChildFailed, ChildSilent
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec


class Elsewhere:
    """Asks a process that is started with the first question, and anew after one that ended it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._child: Child | None = None

    def settled(self, fusion: FusionSpec) -> FusionSpec:
        """As `afftool.fusion.own.settled`; what ends the process there is left for the fusion's row to say.

        Raises the errors of `afftool.errors` that it does.
        """
        if fusion.target is None:
            return fusion
        try:
            return FusionSpec.parse(self._said(self._ask("settle", fusion=fusion.text))["fusion"])
        except (ChildEnded, ChildSilent):
            return fusion

    def check(self, cases: Sequence[CaseSpec]) -> None:
        """As `afftool.build.check_buildable`, and that all files are there; `settled` says what is left to the rows."""
        by_targets: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for case in cases:
            if case.own_targets:
                by_targets.setdefault(case.own_targets, []).append(case.fields())
        for alike in by_targets.values():
            try:
                self._said(self._ask("check", cases=alike))
            except (ChildEnded, ChildSilent):
                continue

    def count(self, spec: CaseSpec, measures: Collection[str], *, before_backends: bool) -> Record:
        """As `afftool.bench.costs.Costs` counts a case. Raises `ChildFailed`, `ChildEnded` or `ChildSilent`."""
        answer = self._ask("count", spec=spec.fields(), measures=sorted(measures), before_backends=before_backends)
        return Record.from_dict(answer["record"])

    def close(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _ask(self, verb: str, **fields: Any) -> Answer:
        self._child = self._child or Child("afftool.bench.worker")
        try:
            return self._child.ask(verb, timeout_s=self._timeout_s, path=sys.path, **fields)
        except ChildFailed as failed:
            if error := failed.failure.error:
                raise error from None
            raise
        except FailedError:
            self.close()
            raise

    @staticmethod
    def _said(answer: Answer) -> Answer:
        for words in answer["said"]:
            note(words)
        return answer
