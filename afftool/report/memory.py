"""Where a case's memory goes: what was alive at the peak, by cause, and what each module saves for backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afftool import units
from afftool.record import Record
from afftool.report.columns import cell
from afftool.report.model import Column, Table


def causes_table(records: Sequence[Record], keys: Sequence[Column]) -> Table | None:
    """One row a record whose peak was taken apart; its parts add up to the peak. None if there is no such record."""
    known = [r for r in records if r.peak_parts_bytes]
    if not known:
        return None
    causes = list(dict.fromkeys(cause for record in known for cause in record.peak_parts_bytes or {}))
    causes.sort(key=lambda cause: cause == "workspace")  # what has no other cause comes last
    columns = (
        *keys,
        Column("peak_bytes", "peak memory", units.data, numeric=True),
        *(Column(f"{cause.replace(' ', '_')}_bytes", cause, units.data, numeric=True) for cause in causes),
    )
    rows = tuple(
        (
            *(cell(record, key.name) for key in keys),
            record.peak_bytes,
            *((record.peak_parts_bytes or {}).get(cause) for cause in causes),
        )
        for record in known
    )
    note = (
        "What is alive at the peak of a steady step. Outputs: the result and the gradient that comes in at it. "
        "Workspace: intermediate results and scratch of kernels."
    )
    return Table(title="Memory at the peak, by cause", columns=columns, rows=rows, note=note).without_empty_columns()


def saved_table(name: str, saved_by_module: Mapping[str, int]) -> Table:
    """One row a module that keeps something for backward, without its children's, and the total."""
    columns = (
        Column("module", "module"),
        Column("saved_bytes", "saved for backward", units.data, numeric=True),
        Column("share", "share", lambda share: f"{100 * share:.0f}%", numeric=True),
    )
    total = sum(saved_by_module.values())
    rows: list[tuple[Any, ...]] = [
        (module or f"{name.partition(' ')[0]} itself", nbytes, nbytes / total)
        for module, nbytes in saved_by_module.items()
    ]
    rows.append(("total", total, 1.0 if total else None))
    note = "A tensor that several modules keep is put down to the first; inputs count, parameters do not."
    return Table(title=f"Saved for backward by {name}", columns=columns, rows=tuple(rows), note=note)
