"""Which cases are raced against each other: those that differ in nothing but the fusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from afftool.errors import AfftoolError
from afftool.spec import CaseSpec, FusionSpec
from afftool.sweep import baseline_of


def by_setting(cases: Iterable[CaseSpec]) -> list[list[CaseSpec]]:
    """The cases in groups that differ in nothing but the fusion, in the order they were given, each once."""
    groups: dict[Any, dict[str, CaseSpec]] = {}
    for case in cases:
        setting = tuple(value for name, value in case.fields().items() if name != "fusion")
        groups.setdefault((*setting, case.fusion.inputs), {})[case.fusion.text] = case
    return [list(group.values()) for group in groups.values()]


@dataclass(frozen=True)
class Group:
    """Cases that differ in nothing but the fusion; `baseline` is the one the others are compared with."""

    specs: tuple[CaseSpec, ...]
    baseline: CaseSpec | None

    @classmethod
    def of(cls, specs: list[CaseSpec], baseline: FusionSpec | None) -> Group:
        """The group with its baseline in front, added if it is missing and possible."""
        if baseline is None:
            return cls(tuple(specs), None)
        fusion = baseline_of(specs[0].fusion, baseline)
        found = next((spec for spec in specs if spec.fusion.text == fusion.text), None)
        if found is None:
            try:
                found = dataclasses.replace(specs[0], fusion=fusion)
            except AfftoolError:
                return cls(tuple(specs), None)
        return cls((found, *(spec for spec in specs if spec is not found)), found)

    @property
    def challengers(self) -> list[CaseSpec]:
        """All but the baseline."""
        return [spec for spec in self.specs if spec is not self.baseline]
