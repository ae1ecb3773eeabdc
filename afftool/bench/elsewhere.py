"""What is found out of a module of the user's own before it is measured, in a process of its own.

With `--isolate process` this process runs none of it: not its file, not its constructor, not a forward pass on the meta
device. One that ends its process, or hangs in it, fails alone; the others are asked of the next process.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from afftool.console import note
from afftool.failure import FailedError
from afftool.process import Answer, Child, ChildEnded, ChildFailed, ChildSilent
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec


class Elsewhere:
    """Asks a process that is started with the first question, and anew after one that ended it.

    What ended it once is not run again: whoever asks about it hears the same.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._child: Child | None = None
        self._lost: dict[str, FailedError] = {}

    def settled(self, fusion: FusionSpec) -> FusionSpec:
        """As `afftool.fusion.own.settled`; what ends the process there is left for the fusion's row to say.

        Raises the errors of `afftool.errors` that it does.
        """
        if fusion.target is None:
            return fusion
        try:
            return FusionSpec.parse(self._said(self._ask("settle", (fusion.target,), fusion=fusion.text))["fusion"])
        except (ChildEnded, ChildSilent):
            return fusion

    def check(self, cases: Sequence[CaseSpec]) -> None:
        """As `afftool.build.check_buildable`, after a look at whether all files are there.

        Raises what it does; what ends the process is left for its rows to say.
        """
        by_targets: dict[tuple[str, ...], list[CaseSpec]] = {}
        for case in cases:
            by_targets.setdefault(case.own_targets, []).append(case)
        for targets, alike in by_targets.items():
            if targets:
                with suppress(ChildEnded, ChildSilent):
                    self._said(self._ask("check", targets, cases=[case.fields() for case in alike]))

    def places(self, spec: CaseSpec) -> Mapping[str, int]:
        """As `afftool.bench.in_context.places`; none where the process there is lost, which its rows will say.

        Raises the errors of `afftool.errors` that it does.
        """
        try:
            fields = self._ask("fused_at", spec.own_targets, spec=spec.fields())["fields"]
        except FailedError:
            return {}
        return dict(fields.get("fused_at", {}))

    def count(self, spec: CaseSpec, measures: Collection[str], *, before_backends: bool) -> Record:
        """As `afftool.bench.costs.Costs` counts a case. Raises `ChildFailed`, `ChildEnded` or `ChildSilent`."""
        how = {"measures": sorted(measures), "before_backends": before_backends}
        return Record.from_dict(self._ask("count", spec.own_targets, spec=spec.fields(), **how)["record"])

    def close(self) -> None:
        """End the process, if there is one; a further question starts another."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _ask(self, verb: str, targets: Sequence[str], **fields: Any) -> Answer:
        for target in targets:
            if target in self._lost:
                raise self._lost[target]
        self._child = self._child or Child("afftool.bench.worker")
        try:
            return self._child.ask(verb, timeout_s=self._timeout_s, path=sys.path, **fields)
        except ChildFailed as failed:
            if error := failed.failure.error:
                raise error from None
            raise
        except (ChildEnded, ChildSilent) as lost:
            self._lost |= dict.fromkeys(targets, lost)
            self.close()
            raise

    @staticmethod
    def _said(answer: Answer) -> Answer:
        for words in answer["said"]:
            note(words)
        return answer
