"""What this runner can see in one job: the code against itself, so that every difference that shows is noise."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from afftool import units
from afftool.errors import AfftoolError, NothingMeasured
from afftool.gate.check import Checking
from afftool.gate.config import GateCase
from afftool.gate.contest import Entrant, Result, compete
from afftool.gate.side import case_fields
from afftool.stats import Interval, median
from afftool.tables import Column, Table


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What was seen of one case. Shares of its time; `floor` is how far from no change its interval reaches.

    `visible` is the smallest slowdown that would have stood out from no change at all, `fails_from` the smallest
    that would have failed the case's rule.
    """

    case: str
    step_ms: float
    pairs: int
    rounds: int
    floor: float
    rule: str
    allowed: float
    least: float = 0.0
    """The share below which the rule's floor lets every change pass."""

    @property
    def visible(self) -> float:
        """The slowdown whose interval, as wide as the noise, just leaves out 1."""
        return self.floor / (1 - self.floor)

    @property
    def fails_from(self) -> float:
        """The slowdown whose interval just leaves out what the rule allows."""
        return max(self.least, (1 + self.allowed) / (1 - self.floor) - 1)

    @property
    def warning(self) -> str | None:
        """Why the rule cannot be held here; None where it can."""
        if self.allowed >= self.visible:
            return None
        return (
            f"the rule {self.rule} of {self.case} is below the {units.percent(self.visible)} that this runner can see: "
            "such changes will come out inconclusive; raise the rule or the --budget, or use --metric instructions"
        )


def read(checking: Checking) -> list[Noise]:
    """Time every case against itself, in as many pairs of fresh processes as its budget gives.

    The intervals are those of a check of these cases. Raises `NothingMeasured`.
    """

    def told(done: float, name: str, pair: int) -> None:
        checking.follow(done, len(checking.cases), f"{name} against itself, pair {pair}")

    entrants = [Entrant(case.name, case_fields(case), lambda before_ms: math.nan) for case in checking.cases]
    with checking.here_side() as one, checking.here_side() as other:
        came = compete(one, other, entrants, budget_s=checking.budget_s, cores=checking.cores, told=told)
    found: list[Noise] = []
    failed: list[str] = []
    for case in checking.cases:
        result = came[case.name]
        if isinstance(result, AfftoolError):
            failed.append(f"{case.name}: {result.message}")
        elif result.ratio is not None:
            found.append(_noise(checking, case, result, result.ratio))
    if not found:
        raise NothingMeasured(f"no case could be timed: {'; '.join(failed)}")
    return found


def _noise(checking: Checking, case: GateCase, result: Result, ratio: Interval) -> Noise:
    rule = checking.config.rules.find(case.name, "latency_ms")
    step_ms = median(result.before_ms)
    return Noise(
        case=case.name,
        step_ms=step_ms,
        pairs=result.pairs,
        rounds=result.rounds,
        floor=max(abs(ratio.low - 1), abs(ratio.high - 1)),
        rule=rule.text,
        allowed=rule.allowed(step_ms) / step_ms if rule.compares else math.inf,
        least=rule.floor / step_ms,
    )


def table(noises: list[Noise]) -> Table:
    """One row a case."""
    columns: tuple[Column[Noise], ...] = (
        Column("case", "case"),
        Column("step_ms", "a step", units.milliseconds, numeric=True),
        Column("pairs", "pairs", numeric=True),
        Column("rounds", "rounds", numeric=True),
        Column("floor", "noise floor", lambda share: f"±{units.percent(share)}", numeric=True),
        Column("visible", "smallest visible change", units.percent, numeric=True),
        Column("rule", "rule"),
        Column("fails_from", "fails from", units.percent, numeric=True),
    )
    return Table.of("What this runner can see", noises, columns)


def fields(noise: Noise) -> dict[str, Any]:
    """The row as JSON takes it."""
    derived = {"visible": noise.visible, "fails_from": noise.fails_from, "warning": noise.warning}
    every = {**dataclasses.asdict(noise), **derived}
    return {name: None if value == math.inf else value for name, value in every.items()}
