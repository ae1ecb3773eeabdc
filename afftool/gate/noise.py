"""What this runner can see: the code against itself, so that every difference that shows is noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from afftool import units
from afftool.errors import NothingMeasured, Unavailable
from afftool.gate.check import Checking
from afftool.gate.config import GateCase
from afftool.gate.side import CaseError, Side, case_fields
from afftool.gate.times import Question, compete
from afftool.stats import Interval, median
from afftool.tables import Column, Table

PAIRS = 3
"""Pairs of fresh processes a case; the noise between processes is as real as that between rounds."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What was seen of one case. Shares of its time; `floor` is the largest that noise alone has shown.

    `visible` is the smallest slowdown that would have stood out from no change at all, `fails_from` the smallest
    that would have failed the case's rule.
    """

    case: str
    step_ms: float
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
    """Time every case against itself, in `PAIRS` pairs of fresh processes. Raises `NothingMeasured`.

    All pairs of a case share its budget.
    """
    found: list[Noise] = []
    failed: list[str] = []
    total = PAIRS * len(checking.cases)
    with checking.here_side() as one, checking.here_side() as other:
        for number, case in enumerate(checking.cases):

            def told(pair: int, number: int = number, case: GateCase = case) -> None:
                checking.follow(PAIRS * number + pair, total, f"{case.name} against itself")

            try:
                found.append(_read_case(checking, case, one, other, told))
            except (CaseError, Unavailable) as error:
                failed.append(f"{case.name}: {error.message}")
    if not found:
        raise NothingMeasured(f"no case could be timed: {'; '.join(failed)}")
    return found


def _read_case(checking: Checking, case: GateCase, one: Side, other: Side, told: Callable[[int], None]) -> Noise:
    never_answered = Question(lambda before_ms: math.nan)
    ratios: list[Interval] = []
    times: list[float] = []
    for pair in range(PAIRS):
        told(pair)
        one.stop()
        other.stop()
        sides = (one, other) if pair % 2 == 0 else (other, one)
        result = compete(
            *sides,
            case_fields(case),
            never_answered,
            budget_s=checking.budget_s / PAIRS,
            cores=checking.cores[pair % max(1, len(checking.cores)) :][:1],
            confirm=False,
        )
        times += result.before_ms
        if result.ratio is not None:
            ratios.append(result.ratio)
    rule = checking.config.rules.find(case.name, "latency_ms")
    step_ms = median(times)
    return Noise(
        case=case.name,
        step_ms=step_ms,
        rounds=len(times),
        floor=max(max(abs(ratio.low - 1), abs(ratio.high - 1)) for ratio in ratios),
        rule=rule.text,
        allowed=rule.allowed(step_ms) / step_ms if rule.compares else math.inf,
        least=rule.floor / step_ms,
    )


def table(noises: list[Noise]) -> Table:
    """One row a case."""
    columns: tuple[Column[Noise], ...] = (
        Column("case", "case"),
        Column("step_ms", "a step", units.milliseconds, numeric=True),
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
