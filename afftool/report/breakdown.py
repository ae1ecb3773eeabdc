"""A case's cost and memory taken apart: tables to read, and for JSON the same rows whose sums are the record's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from afftool.report.cost import module_table, operator_table
from afftool.report.memory import saved_table
from afftool.report.model import Table
from afftool.spec import CaseSpec, show_size

if TYPE_CHECKING:
    from afftool.measure.cost.reading import CostReading, Explanation, Totals


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
        yield module_table(name, found.reading)
    if found.saved_by_module is not None:
        yield saved_table(name, found.saved_by_module)


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
