"""What a graft adds to its network, beside what the same fusions cost alone at the shapes of its sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afftool import catalog, units
from afftool.errors import AfftoolError
from afftool.record import Record
from afftool.report.columns import Keys, keys_of, setting_of
from afftool.report.usable import as_told
from afftool.spec import MODULE, FusionSpec
from afftool.spec.places import Place
from afftool.spec.sweep import DEFAULT_BASELINE
from afftool.tables import Column, Table

TITLE = "Cost in context"
_OF_TIMES = (
    "In context is what the network takes longer than the original, its interval that of their ratio; alone is the sum "
    "of the bare fusions at the shapes of its sites, replaced that of the additions that stood there. Saved is alone "
    "less replaced less in context: under compile by the compiler, which sees the neighbours too."
)
_OF_ADAPTERS = "Adapters, 1x1 projections where maps are concatenated, are in context only."

_Times = dict[tuple[Any, ...], float | None]
"""The times of bare fusions by their texts and shapes, ms."""


def apart(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The records, and those of bare fusions at shapes where networks of other records fuse, in their order."""
    sought = {(_run(r), *_shape(place)) for r in records for place in _places(r)}
    if not sought:
        return list(records), []
    bare = [r.host == MODULE.text and (_run(r), *_shape_of(r)) in sought for r in records]
    return (
        [r for r, alone in zip(records, bare, strict=True) if not alone],
        [r for r, alone in zip(records, bare, strict=True) if alone],
    )


def cost_in_context(records: Sequence[Record]) -> Table | None:
    """A row a graft and backend; None where no network was measured with and without its fusions."""
    asked, bare = apart([as_told(r) for r in records if r.status == "ok"])
    originals = {_alike(r): r for r in asked if r.fusion == catalog.ORIGINAL}
    alone: dict[tuple[Any, ...], _Times] = {}
    for r in bare:
        alone.setdefault((_run(r), r.backend, r.allocator), {})[r.fusion, *_shape_of(r)] = r.latency_ms
    rows = [
        _row(r, originals[_alike(r)], alone.get((_run(r), r.backend, r.allocator), {}))
        for r in asked
        if _alike(r) in originals and _places(r)
    ]
    if not rows:
        return None
    notes = [_OF_TIMES] if any(row.added_ms is not None for row in rows) else []
    notes += [_OF_ADAPTERS] if any(row.graft.adapter_params for row in rows) else []
    columns = (*map(_of_graft, keys_of(asked)), *_COLUMNS)
    return Table.of(TITLE, rows, columns, " ".join(notes)).without_empty_columns()


def alone_table(records: Sequence[Record]) -> Table | None:
    """The bare fusions that were measured beside a graft, with how many of its sites have each shape."""
    _, bare = apart([r for r in records if r.status == "ok"])
    sites: dict[tuple[Any, ...], set[int]] = {}
    for record in records:
        places = _places(record)
        for shape in {_shape(place) for place in places}:
            count = sum(count for place, count in places.items() if _shape(place) == shape)
            sites.setdefault((_run(record), *shape), set()).add(count)
    columns: Keys = (
        *(column for column in keys_of(bare) if column.name != "host"),
        Column("sites", "sites", get=lambda r: " or ".join(map(str, sorted(sites[(_run(r), *_shape_of(r))])))),
        Column("latency_ms", "latency", units.milliseconds, numeric=True),
        Column("params", "params", units.count, numeric=True),
        Column("macs", "MACs", units.scaled, numeric=True),
        Column("peak_bytes", "peak memory", units.data, numeric=True),
    )
    told = [as_told(r) for r in bare]
    return (
        Table.of("The bare fusions at the shapes of its sites", told, columns).without_empty_columns() if bare else None
    )


@dataclass(frozen=True)
class _Row:
    """A grafted network's record, the original's, and the sums of what is measured alone; times in ms."""

    graft: Record
    original: Record
    alone_ms: float | None
    replaced_ms: float | None

    @property
    def added_ms(self) -> float | None:
        """From the ratio of shared rounds, where it was measured."""
        base, graft, ratio = self.original.latency_ms, self.graft.latency_ms, self._paired
        if base is None:
            return None
        return base * (ratio - 1) if ratio is not None else None if graft is None else graft - base

    @property
    def interval(self) -> str | None:
        base, low, high = self.original.latency_ms, self.graft.latency_ratio_low, self.graft.latency_ratio_high
        if base is None or self._paired is None or low is None or high is None:
            return None
        return f"{units.milliseconds(base * (low - 1))} to {units.milliseconds(base * (high - 1))}"

    @property
    def saved_ms(self) -> float | None:
        if self.added_ms is None or self.alone_ms is None:
            return None
        return self.alone_ms - (self.replaced_ms or 0.0) - self.added_ms

    def more(self, name: str) -> int | None:
        """By how much a count of the graft is above the original's."""
        graft, original = getattr(self.graft, name), getattr(self.original, name)
        return None if graft is None or original is None else graft - original

    @property
    def _paired(self) -> float | None:
        return self.graft.latency_ratio if self.graft.baseline == self.original.fusion else None


def _time(name: str, heading: str) -> Column[_Row]:
    return Column(name, heading, units.milliseconds, numeric=True)


_COLUMNS: tuple[Column[_Row], ...] = (
    Column("sites", "sites", numeric=True, get=lambda row: sum((row.graft.fused_at or {}).values())),
    _time("added_ms", "in context"),
    Column("interval", "95% interval", numeric=True),
    _time("alone_ms", "alone"),
    _time("replaced_ms", "replaced"),
    _time("saved_ms", "saved"),
    Column("added_params", "params added", units.count, numeric=True, get=lambda row: row.more("params")),
    Column("adapter_params", "of adapters", units.count, True, get=lambda row: row.graft.adapter_params or None),
    Column("added_macs", "MACs added", units.scaled, numeric=True, get=lambda row: row.more("macs")),
)


def _of_graft(column: Column[Record]) -> Column[_Row]:
    return Column(column.name, column.heading, column.show, column.numeric, get=lambda row: column.value(row.graft))


def _row(record: Record, original: Record, times: _Times) -> _Row:
    places = _places(record)
    added = {place: count for place, count in places.items() if place.kind == "add"}
    return _Row(record, original, _sum(record.fusion, places, times), _sum(DEFAULT_BASELINE, added, times))


def _alike(record: Record) -> tuple[Any, ...]:
    """What a graft and the original of the same network have alike."""
    return (setting_of(record), record.backend, record.allocator)


def _sum(fusion: str, places: Mapping[Place, int], times: _Times) -> float | None:
    """The time of this fusion at all these places; None where it was not measured at one, or there is none."""
    total = 0.0
    for place, count in places.items():
        try:
            here = place.fusion(FusionSpec.parse(fusion)).text
        except AfftoolError:
            return None
        time = times.get((here, *_shape(place)))
        if time is None:
            return None
        total += count * time
    return total if places else None


def _places(record: Record) -> dict[Place, int]:
    """Where its network fuses, and how often; what is no place of ours is left out."""
    found: dict[Place, int] = {}
    for text, count in (record.fused_at or {}).items():
        try:
            found[Place.parse(text)] = count
        except AfftoolError:
            continue
    return found


def _run(record: Record) -> tuple[Any, ...]:
    """What a grafted network and a bare fusion in it are run with alike."""
    return (record.batch, record.mode, record.device, record.dtype, record.memory_format)


def _shape(place: Place) -> tuple[int, int, tuple[int, ...]]:
    return (place.maps, place.channels, place.size)


def _shape_of(record: Record) -> tuple[int, int | None, tuple[int, ...]]:
    size = tuple(n for n in (record.depth, record.height, record.width) if n is not None)
    try:
        maps = FusionSpec.parse(record.fusion).inputs
    except AfftoolError:
        maps = 2
    return (maps, record.channels, size)
