"""A case's cost and memory taken apart: tables to read, and for JSON the same rows whose sums are the record's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from afftool import units
from afftool.record import Record
from afftool.spec import CaseSpec, show_size
from afftool.tables import Column, Item, Table

if TYPE_CHECKING:
    from afftool.measure.cost.reading import CostReading, Explained, Explanation, ModuleCost, Totals


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """What was asked of a case and could be found out; None for the rest. What could not, its records tell.

    `saved_by_module` are the bytes that each module of a training step keeps for backward, its children's apart.
    """

    case: CaseSpec
    explanation: Explanation | None = None
    reading: CostReading | None = None
    saved_by_module: Mapping[str, int] | None = None


def breakdown_tables(found: Breakdown) -> Iterator[Table]:
    """The tables of one case: its operators, its modules, what they save for backward."""
    case = found.case
    size = show_size(case.size)
    place = "" if case.channels is None else f"{case.channels} channels, "
    name = f"{case.fusion} ({case.host}, {place}{size}, batch {case.batch}, {case.mode})"
    if found.explanation:
        yield operator_table(name, found.explanation)
    if found.reading:
        yield module_table(name, found.reading, traced=case.host.graft is not None)
    if found.saved_by_module is not None:
        yield saved_table(name, found.saved_by_module)


def _count(name: str, heading: str, get: Callable[[Item], int | None] | None = None) -> Column[Item]:
    """A column of whole numbers."""
    return Column(name, heading, units.count, numeric=True, get=get)


def operator_table(name: str, explanation: Explanation) -> Table:
    """One row an operator and direction, then the totals of each direction, which are those of the case."""
    counts: tuple[Column[Explained], ...] = (
        _count("calls", "calls"),
        _count("macs", "MACs"),
        _count("flops", "FLOPs"),
        _count("moved_bytes", "bytes moved"),
        _count("fvcore_flops", "fvcore says"),
        _count("torch_flops", "torch says"),
        _count("mac_only", "MAC-only counter"),
    )
    columns: tuple[Column[Explained], ...] = (
        Column("operator", "operator"),
        Column("direction", "direction"),
        *counts,
        Column("formula", "counted by", get=lambda row: row.formula or "not counted"),
    )
    table = Table.of(f"Operators of {name}", explanation.rows, columns, ". ".join(explanation.notes))
    for direction in dict.fromkeys(row.direction for row in explanation.rows):
        rows = [row for row in explanation.rows if row.direction == direction]
        totals = {column.name: _total(column.value(row) for row in rows) for column in counts}
        table = table.with_row(operator="total", direction=direction, **totals)
    return table.without_empty_columns()


def _total(numbers: Iterable[int | None]) -> int | None:
    """The sum of what is known; None where nothing is."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def module_table(name: str, reading: CostReading, *, traced: bool = False) -> Table:
    """The tree of modules; every line includes what is below it.

    Of a network that was `traced` to be grafted, those that are still called: itself, and what was put in.
    """
    columns: tuple[Column[ModuleCost], ...] = (
        Column("module", "module", get=lambda part: "· " * part.depth + (part.path.rpartition(".")[2] or name)),
        Column("kind", "class"),
        _count("params", "params"),
        _count("live_params", "live params"),
        _count("macs", "MACs", lambda part: part.forward.macs),
        _count("flops", "FLOPs", lambda part: part.forward.flops),
        _count("moved_bytes", "bytes moved", lambda part: part.forward.moved_bytes),
        _count("backward_macs", "MACs backward", lambda part: part.backward.macs if part.backward else None),
        _count("backward_flops", "FLOPs backward", lambda part: part.backward.flops if part.backward else None),
        _count(
            "backward_moved_bytes",
            "bytes moved backward",
            lambda part: part.backward.moved_bytes if part.backward else None,
        ),
    )
    parts = [part for part in reading.per_module if part.forward.calls or not traced]
    note = "Its own parts run as one graph and are not called: their cost stands in its first row alone."
    return Table.of(f"Modules of {name}", parts, columns, note if traced else "").without_empty_columns()


def saved_table(name: str, saved_by_module: Mapping[str, int]) -> Table:
    """One row a module that keeps something for backward, without its children's, and the total."""
    total = sum(saved_by_module.values())
    itself = f"{name.partition(' ')[0]} itself"
    columns: tuple[Column[tuple[str, int]], ...] = (
        Column("module", "module", get=lambda item: item[0] or itself),
        Column("saved_bytes", "saved for backward", units.data, numeric=True, get=lambda item: item[1]),
        Column("share", "share", partial(units.percent, decimals=0), numeric=True, get=lambda item: item[1] / total),
    )
    note = "A tensor that several modules keep is put down to the first; inputs count, parameters do not."
    table = Table.of(f"Saved for backward by {name}", saved_by_module.items(), columns, note)
    return table.with_row(module="total", saved_bytes=total, share=1.0 if total else None)


def causes_table(records: Sequence[Record], keys: Sequence[Column[Record]]) -> Table | None:
    """One row a record whose peak was taken apart; its parts add up to the peak. None if there is no such record."""
    known = [r for r in records if r.peak_parts_bytes]
    if not known:
        return None
    causes = list(dict.fromkeys(cause for record in known for cause in record.peak_parts_bytes or {}))
    causes.sort(key=lambda cause: cause == "workspace")  # what has no other cause comes last
    columns: tuple[Column[Record], ...] = (
        *keys,
        Column("peak_bytes", "peak memory", units.data, numeric=True),
        *(
            Column(f"{cause.replace(' ', '_')}_bytes", cause, units.data, numeric=True, get=partial(_part, cause))
            for cause in causes
        ),
    )
    note = (
        "What is alive at the peak of a steady step. Outputs: the result and the gradient that comes in at it. "
        "Workspace: intermediate results and scratch of kernels."
    )
    return Table.of("Memory at the peak, by cause", known, columns, note).without_empty_columns()


def _part(cause: str, record: Record) -> int | None:
    return (record.peak_parts_bytes or {}).get(cause)


def breakdown_document(breakdowns: Sequence[Breakdown], *, explain: bool, per_module: bool) -> dict[str, Any]:
    """The keys that were asked for: `operators` and `modules`, each with an entry a case that could be counted.

    An entry has the case's `identity`, by which its records are found. The `macs`, `flops` and `moved_bytes` of its
    operators add up to those of the record, and those that run backward to its `backward_...`; a row without a
    formula is in `uncounted_ops`. A module's numbers include what is below it, so the first row's are the record's.
    """
    document: dict[str, Any] = {}
    if explain:
        document["operators"] = [
            {**found.case.stored(), "identity": found.case.identity}
            | {"rows": [row.fields for row in found.explanation.rows], "notes": [*found.explanation.notes]}
            for found in breakdowns
            if found.explanation
        ]
    if per_module:
        document["modules"] = [
            {**found.case.stored(), "identity": found.case.identity}
            | {"rows": _module_rows(found.reading, found.saved_by_module)}
            for found in breakdowns
            if found.reading
        ]
    return document


def _module_rows(reading: CostReading, saved: Mapping[str, int] | None) -> list[dict[str, Any]]:
    return [
        {
            "module": part.path,
            "class": part.kind,
            "depth": part.depth,
            "params": part.params,
            "live_params": part.live_params,
            **_totals(part.forward, ""),
            **_totals(part.backward, "backward_"),
            "saved_bytes": None if saved is None else sum(n for path, n in saved.items() if _below(path, part.path)),
            "own_saved_bytes": None if saved is None else saved.get(part.path, 0),
        }
        for part in reading.per_module
    ]


def _below(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(top + ".")


def _totals(totals: Totals | None, prefix: str) -> dict[str, int | None]:
    names = ("macs", "flops", "moved_bytes", "calls")
    return {f"{prefix}{name}": None if totals is None else getattr(totals, name) for name in names}
