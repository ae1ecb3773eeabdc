"""What came out of a study: its plan, the cells that are known, the latencies benched of its networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afftool.record import Environment, Record
from afftool.study.cells import CellRecord
from afftool.study.latency import Benched, benched
from afftool.study.spec import StudySpec


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A study's plan as stored (`Plan.to_dict`), and what is known of its cells by variant and seed."""

    study: StudySpec
    plan: Mapping[str, Any]
    cells: Mapping[tuple[str, int], CellRecord]
    pairs: bool = False
    latency: Mapping[str, Benched] = dataclasses.field(default_factory=dict)

    @property
    def measure(self) -> str:
        """What the score is: accuracy, or mIoU."""
        return "mIoU" if self.plan["task"] == "segment" else "accuracy"

    def scores(self) -> dict[str, dict[int, float]]:
        """Scores by variant and seed, of the cells that have one."""
        found: dict[str, dict[int, float]] = {variant.name: {} for variant in self.study.variants}
        for (name, seed), cell in self.cells.items():
            if cell.score is not None:
                found[name][seed] = cell.score
        return found

    def cells_of(self, variant: str) -> list[CellRecord]:
        """What is known of one variant's cells, whatever became of them."""
        return [cell for (name, _), cell in self.cells.items() if name == variant]


def outcome(
    plan: Mapping[str, Any],
    known: Mapping[str, CellRecord],
    *,
    pairs: bool = False,
    records: Sequence[tuple[Environment, Record]] = (),
) -> Outcome:
    """Match a stored plan with the cells known by identity, and with latencies benched of the same networks."""
    study = StudySpec.from_toml(plan["study"])
    cells = {(name, seed): known[identity] for name, seed, identity in plan["cells"] if identity in known}
    variants = {variant.name: (variant.fusion, plan["facts"][variant.name]["host"]) for variant in study.variants}
    return Outcome(study=study, plan=plan, cells=cells, pairs=pairs, latency=benched(variants, records))
