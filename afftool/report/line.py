"""One record on one line, for the moment it is measured."""

from __future__ import annotations

from afftool import units
from afftool.record import Record
from afftool.report.columns import SETTING, cell


def one_line(record: Record) -> str:
    """What was measured and what came out, or why nothing did."""
    name = " ".join(str(part) for part in (record.fusion, record.backend) if part)
    where = [str(cell(record, key)) for key in SETTING if key != "scenario" and cell(record, key) is not None]
    head = f"{name} ({', '.join(where)})"
    if record.status != "ok":
        return f"{head}: {record.status}: {record.reason or 'no reason given'}"
    parts = []
    if record.latency_ms is not None:
        parts.append(units.milliseconds(record.latency_ms))
        if record.latency_low_ms is not None and record.latency_high_ms is not None:
            low, high = units.milliseconds(record.latency_low_ms), units.milliseconds(record.latency_high_ms)
            parts[-1] += f" [{low} to {high}]"
    if record.peak_bytes is not None:
        parts.append(f"peak {units.data(record.peak_bytes)}")
    if record.params is not None:
        parts.append(f"{units.count(record.params)} params")
    if record.macs is not None:
        parts.append(f"{units.scaled(record.macs)} MACs")
    return f"{head}: {', '.join(parts) or 'measured'}"
