"""Which rows are compared with which, which value is best, and what multiple of the baseline's a value is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afftool.errors import AfftoolError
from afftool.record import Record
from afftool.report.columns import cell, setting_of
from afftool.spec import FusionSpec
from afftool.spec.sweep import baseline_of


class Baseline:
    """The baseline's rows, found by everything but the fusion: same setting, same backend, as many inputs."""

    def __init__(self, records: Sequence[Record], text: str | None) -> None:
        self.text = text
        self._names = {r.fusion: _serving(r.fusion, text) for r in records}
        self._rows = {(r.fusion, setting_of(r), r.backend): r for r in records if r.status == "ok"}

    def is_baseline(self, record: Record) -> bool:
        """Whether this row is one that others are compared with."""
        return self.text is not None and self._names.get(record.fusion) == record.fusion

    def ratio(self, record: Record, name: str) -> float | None:
        """The row's value as a multiple of the baseline's; None where either is missing or the baseline's is 0.

        A time's ratio is the one measured round by round, if it was.
        """
        if name == "latency_ms" and self._paired(record):
            return record.latency_ratio
        base = self._rows.get((self._names.get(record.fusion) or "", setting_of(record), record.backend))
        own, other = getattr(record, name, None), getattr(base, name, None)
        return own / other if own is not None and other else None

    def ratio_interval(self, record: Record) -> tuple[float, float] | None:
        """The 95% interval of the latency's ratio, where the two were timed in the same rounds."""
        low, high = record.latency_ratio_low, record.latency_ratio_high
        return (low, high) if self._paired(record) and low is not None and high is not None else None

    def _paired(self, record: Record) -> bool:
        return record.latency_ratio is not None and record.baseline == self._names.get(record.fusion)


def best_cells(records: Sequence[Record], name: str, better: str) -> list[int]:
    """Positions of the best values of one field, group by group; none where a group's values are all alike."""
    groups: dict[Any, list[tuple[int, Any]]] = {}
    for position, record in enumerate(records):
        value = cell(record, name)
        if value is not None:
            groups.setdefault((setting_of(record), record.backend), []).append((position, value))
    best: list[int] = []
    for group in groups.values():
        values = [value for _, value in group]
        if min(values) < max(values):
            winner = min(values) if better == "less" else max(values)
            best += [position for position, value in group if value == winner]
    return best


def _serving(fusion: str, baseline: str | None) -> str | None:
    """The text of the baseline that fuses the same maps; names that are not known here are taken as they are."""
    if baseline is None:
        return None
    try:
        return baseline_of(FusionSpec.parse(fusion), FusionSpec.parse(baseline)).text
    except AfftoolError:
        return baseline
