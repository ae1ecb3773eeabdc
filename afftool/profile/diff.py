"""What differs between two profiles, operator by operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from afftool import units
from afftool.profile.report import column, facts, first_rows, microseconds
from afftool.profile.summary import CategoryRow, Profile
from afftool.report.exact import as_they_are
from afftool.tables import Column, Report, Table


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One name in both profiles, a step each: how often it ran and how long; 0 where it did not."""

    name: str
    kind: str
    calls: tuple[float, float]
    us: tuple[float, float]

    @property
    def change_us(self) -> float:
        """Microseconds a step that the second takes more (or, below 0, less)."""
        return self.us[1] - self.us[0]

    @property
    def differs(self) -> str:
        """In words: only in one of them, called more or less often, or as often."""
        first, second = self.calls
        if not first or not second:
            return "only in the first" if first else "only in the second"
        if first != second:
            return f"{units.significant(second / first)}x the calls"
        return "as many calls"


def operator_differences(first: Profile, second: Profile) -> list[Difference]:
    """Every operator of either, the largest change of self time first (on the device if either used one)."""
    device = first.on_device or second.on_device

    def cost(row: Any) -> float:
        return float(row.device_self_us if device else row.host_self_us)

    return _differences(first, second, lambda p: p.operators, lambda r: r.name, lambda r: r.kind, cost)


def kernel_differences(first: Profile, second: Profile) -> list[Difference]:
    """Every kernel of either, the largest change of total time first."""
    return _differences(first, second, lambda p: p.kernels, lambda r: r.name, lambda r: "kernel", lambda r: r.total_us)


def module_differences(first: Profile, second: Profile) -> list[Difference]:
    """Every module path of either: forward and backward together, the largest change first."""
    return _differences(
        first, second, lambda p: p.modules, lambda r: r.path, lambda r: r.type, lambda r: r.forward_us + r.backward_us
    )


def _differences(
    first: Profile,
    second: Profile,
    rows_of: Callable[[Profile], Iterable[Any]],
    name_of: Callable[[Any], str],
    kind_of: Callable[[Any], str],
    cost_of: Callable[[Any], float],
) -> list[Difference]:
    sides = []
    kinds: dict[str, str] = {}
    for profile in (first, second):
        steps = max(1, profile.steps)
        side: dict[str, tuple[float, float]] = {}
        for row in rows_of(profile):
            kinds.setdefault(name_of(row), kind_of(row))
            side[name_of(row)] = (row.calls / steps, cost_of(row) / steps)
        sides.append(side)
    found = []
    for name, kind in kinds.items():
        (calls_a, us_a), (calls_b, us_b) = (side.get(name, (0.0, 0.0)) for side in sides)
        found.append(Difference(name=name, kind=kind, calls=(calls_a, calls_b), us=(us_a, us_b)))
    return sorted(found, key=lambda d: (-abs(d.change_us), d.name))


def diff_report(first: Profile, second: Profile) -> Report:
    """Two profiles side by side: where a step goes, and what each operator, kernel and module changes."""
    names = (first.name, second.name) if first.name != second.name else (f"{first.name} (1)", f"{second.name} (2)")
    found = {
        "operator": operator_differences(first, second),
        "kernel": kernel_differences(first, second),
        "module": module_differences(first, second),
    }
    tables = (
        _category_table(first, second, names),
        *(Table.of(f"{kind.capitalize()}s, a step", ds, _columns(kind, names)) for kind, ds in found.items()),
    )
    columns = _columns("name", names)
    rows = ({"table": table, **{c.name: c.value(d) for c in columns}} for table, ds in found.items() for d in ds)
    change = second.step_us - first.step_us
    return Report(
        title=f"{names[0]} against {names[1]}",
        facts=(
            *((f"First: {label}", text) for label, text in facts(first)[:3]),
            *((f"Second: {label}", text) for label, text in facts(second)[:3]),
            ("A traced step", f"{microseconds(first.step_us)} and {microseconds(second.step_us)}, {_signed(change)}"),
            ("Self time of all operators", _whole(found["operator"])),
        ),
        tables=tuple(first_rows(table) for table in tables if table.rows),
        data=as_they_are(rows, ["table", *(column.name for column in columns)]),
        document={
            "schema": 1,
            "first": dict(first.case),
            "second": dict(second.case),
            "step_us": [first.step_us, second.step_us],
            **{
                f"{table}s": [{**dataclasses.asdict(d), "change_us": d.change_us, "differs": d.differs} for d in ds]
                for table, ds in found.items()
            },
        },
        notes=(
            "Calls are exact. Times are from one trace each, with the profiler's own cost in them: whether one variant "
            "is faster is a question for `afftool bench`, what makes it so is the one answered here.",
        ),
    )


def _columns(heading: str, names: tuple[str, str]) -> tuple[Column[Difference], ...]:
    return (
        column("name", heading),
        column("kind", "kind"),
        Column("first_calls", f"calls, {names[0]}", _calls, numeric=True, get=lambda d: d.calls[0]),
        Column("second_calls", f"calls, {names[1]}", _calls, numeric=True, get=lambda d: d.calls[1]),
        column("first_us", names[0], "time", lambda d: d.us[0]),
        column("second_us", names[1], "time", lambda d: d.us[1]),
        Column("change_us", "change", _signed, numeric=True),
        column("differs", "differs"),
    )


def _category_table(first: Profile, second: Profile, names: tuple[str, str]) -> Table:
    sides = [{row.category: row for row in profile.categories} for profile in (first, second)]
    kinds = dict.fromkeys([*sides[0], *sides[1]])
    pairs = [tuple(side.get(kind, CategoryRow(category=kind, step_us=0.0)) for side in sides) for kind in kinds]
    columns: tuple[Column[tuple[CategoryRow, CategoryRow]], ...] = (
        column("category", "category", get=lambda pair: pair[0].category),
        column("first_us", names[0], "time", lambda pair: pair[0].step_us),
        column("second_us", names[1], "time", lambda pair: pair[1].step_us),
        Column("change_us", "change", _signed, numeric=True, get=lambda pair: pair[1].step_us - pair[0].step_us),
    )
    return Table.of("Where a step goes", ((a, b) for a, b in pairs if a.step_us or b.step_us), columns)


def _whole(differences: list[Difference]) -> str:
    first, second = (sum(d.us[side] for d in differences) for side in (0, 1))
    return f"{microseconds(first)} and {microseconds(second)} a step, {_signed(second - first)}"


def _calls(value: float) -> str:
    return f"{value:g}"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{microseconds(value)}"
