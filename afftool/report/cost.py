"""Where a case's cost comes from: operator by operator, with what other counters say, and module by module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from afftool import units
from afftool.report.model import Column, Table

if TYPE_CHECKING:
    from afftool.measure.cost.reading import CostReading, Explanation


def operator_table(name: str, explanation: Explanation) -> Table:
    """One row an operator and direction, then the totals of each direction, which are those of the case."""
    columns = (
        Column("operator", "operator"),
        Column("direction", "direction"),
        Column("calls", "calls", units.count, numeric=True),
        Column("macs", "MACs", units.count, numeric=True),
        Column("flops", "FLOPs", units.count, numeric=True),
        Column("moved_bytes", "bytes moved", units.count, numeric=True),
        Column("fvcore_flops", "fvcore says", units.count, numeric=True),
        Column("torch_flops", "torch says", units.count, numeric=True),
        Column("mac_only", "MAC-only counter", units.count, numeric=True),
        Column("formula", "counted by"),
    )
    counted = explanation.rows
    rows: list[tuple[Any, ...]] = [
        (
            r.operator,
            r.direction,
            r.calls,
            r.macs,
            r.flops,
            r.moved_bytes,
            r.fvcore_flops,
            r.torch_flops,
            r.mac_only,
            r.formula or "not counted",
        )
        for r in counted
    ]
    for direction in dict.fromkeys(r.direction for r in counted):
        said = [[row[i] for row in rows if row[1] == direction and row[i] is not None] for i in range(2, 9)]
        rows.append(("total", direction, *(sum(numbers) if numbers else None for numbers in said), None))
    note = ". ".join(explanation.notes)
    return Table(title=f"Operators of {name}", columns=columns, rows=tuple(rows), note=note).without_empty_columns()


def module_table(name: str, reading: CostReading) -> Table:
    """The tree of modules; every line includes what is below it."""
    columns = (
        Column("module", "module"),
        Column("kind", "class"),
        Column("params", "params", units.count, numeric=True),
        Column("live_params", "live params", units.count, numeric=True),
        Column("macs", "MACs", units.count, numeric=True),
        Column("flops", "FLOPs", units.count, numeric=True),
        Column("moved_bytes", "bytes moved", units.count, numeric=True),
        Column("backward_macs", "MACs backward", units.count, numeric=True),
        Column("backward_flops", "FLOPs backward", units.count, numeric=True),
        Column("backward_moved_bytes", "bytes moved backward", units.count, numeric=True),
    )
    rows: list[tuple[Any, ...]] = []
    for part in reading.per_module:
        path = "· " * part.depth + (part.path.rpartition(".")[2] or name)
        totals = [part.forward, *([part.backward] if part.backward else [])]
        numbers: list[int | None] = [
            number for total in totals for number in (total.macs, total.flops, total.moved_bytes)
        ]
        numbers += [None] * (6 - len(numbers))
        rows.append((path, part.kind, part.params, part.live_params, *numbers))
    return Table(title=f"Modules of {name}", columns=columns, rows=tuple(rows)).without_empty_columns()
