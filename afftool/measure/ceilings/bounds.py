"""What a calibration adds to a bench: what bounds each of its rows, or why none of them says so. No torch here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from afftool.measure.ceilings.roofline import Ceilings, CeilingsFile, annotate
from afftool.measure.cost.reading import CostReading
from afftool.record import Environment, Record

_NOTHING = CostReading(params=0, live_params=0, macs=0, flops=0, moved_bytes=0, uncounted_ops={})
COUNTED = tuple(name for name in _NOTHING.fields if name != "uncounted_ops")
"""A record's counts. `uncounted_ops` is not among them: a bound that lacks an operator must say so."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The ceilings for a bench, None where there are none; `measures` are those asked for and what a bound needs.

    `others` are the numbers of threads this machine was calibrated with, if the bench has another.
    """

    ceilings: Ceilings | None
    measures: tuple[str, ...]
    asked: tuple[str, ...]
    others: tuple[int, ...] = ()

    @classmethod
    def of(cls, store: Path, machine: Environment, device: str, asked: tuple[str, ...]) -> Bounds:
        """What `doctor --calibrate` left beside `store` for a bench of `asked` on `device`. Raises `StoreError`."""
        if "latency" not in asked:
            return cls(ceilings=None, measures=asked, asked=asked)
        file = CeilingsFile.beside(store)
        found = file.find(machine.fingerprint, device)
        if found is None:
            return cls(ceilings=None, measures=asked, asked=asked, others=file.other_threads(machine, device))
        measures = asked if "cost" in asked else ("cost", *asked)
        return cls(ceilings=found, measures=measures, asked=asked)

    def complete(self, record: Record) -> Record:
        """`record` with its bound, and without the counts that were made for the bound alone."""
        whole = annotate(record, self.ceilings)
        if self.measures == self.asked:
            return whole
        return dataclasses.replace(whole, **dict.fromkeys(COUNTED))  # type: ignore[arg-type]
