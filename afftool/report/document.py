"""The exact side of a report: the tidy rows of a CSV file and the JSON document."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from afftool.record import SCHEMA, Record, Run
from afftool.report.columns import METRICS
from afftool.report.model import Column, Table
from afftool.report.relative import Baseline, best_cells

FIELDS = tuple(f.name for f in dataclasses.fields(Record) if f.name != "samples_ms")
"""Every stored field of a row; the raw samples stay in the store."""


def document(run: Run) -> dict[str, Any]:
    """`{"schema", "environment", "records"}` with exact numbers, and null where there is none."""
    return {
        "schema": SCHEMA,
        "environment": run.environment.to_dict(),
        "records": [{name: finite(getattr(record, name)) for name in FIELDS} for record in run.records],
    }


def data_table(records: Sequence[Record], baseline: Baseline) -> Table:
    """One row a record with every stored field, then the multiples of the baseline, then what it is best at."""
    relative = [m.column.name for m in METRICS if m.relative]
    best: dict[int, list[str]] = {}
    for metric in METRICS:
        if metric.better:
            for position in best_cells(records, metric.column.name, metric.better):
                best.setdefault(position, []).append(metric.column.name)
    names = [*FIELDS, *(f"{name}_vs_baseline" for name in relative), "best"]
    rows = tuple(
        (
            *(_flat(getattr(record, name)) for name in FIELDS),
            *(baseline.ratio(record, name) for name in relative),
            " ".join(best.get(position, [])) or None,
        )
        for position, record in enumerate(records)
    )
    return Table(title="", columns=tuple(Column(name, name) for name in names), rows=rows)


def finite(value: Any) -> Any:
    """A value as JSON can hold it: infinities and not-a-numbers are None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, (dict, list, tuple)) else value
