"""The sites of a network in words and as a table: where they are, what they join, what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from afftool import units
from afftool.graft.join import adapter_params
from afftool.spec.site import Kind
from afftool.spec.text import show_size
from afftool.tables import Column, Table

if TYPE_CHECKING:
    from afftool.graft.network import Survey
    from afftool.spec.site import Site

MOST_LINES = 3
"""Of what was left out for one reason, so many places are told."""

_COLUMNS: tuple[Column[Any], ...] = (
    Column("number", "site", numeric=True),
    Column("kind", "kind"),
    Column("path", "module", lambda path: path or "the network"),
    Column("line", "source"),
    Column("stage", "stage", numeric=True),
    Column("channels", "channels", lambda channels: "+".join(map(str, channels))),
    Column("size", "size", show_size),
    Column("scenario", "scenario"),
    Column("alike", "repeats", numeric=True),
    Column("adapter_params", "adapters", units.count, numeric=True),
    Column("remark", "remark"),
    Column("chosen", "chosen", lambda chosen: "yes" if chosen else ""),
)
NAMES = tuple(column.name for column in _COLUMNS)
NOTE = "channels: the skip first, then the branch. repeats: sites in the same place of repeated blocks."
_ADAPTERS = "adapters: parameters of the 1x1 projections that a fusion needs there."


def rows_of(survey: Survey, chosen: Collection[Site] | None) -> list[dict[str, object]]:
    """A row a site with exact values; `chosen` are those that are meant, None where nothing was said of that."""
    return [
        {
            "number": site.number,
            "kind": site.kind,
            "path": site.path,
            "line": site.line,
            "stage": site.stage or None,
            "channels": site.channels,
            "size": site.size,
            "scenario": site.scenario,
            "alike": site.alike if site.alike > 1 else None,
            "adapter_params": adapter_params(site) if site.kind == "concat" else None,
            "remark": _remark(survey, site),
            "chosen": None if chosen is None else site in chosen,
        }
        for site in survey.sites
    ]


def in_text(row: Mapping[str, object]) -> dict[str, object]:
    """A row for a file of one value a cell: channels and size as people read them."""
    return {c.name: c.text(row[c.name]) if c.name in ("channels", "size") else row[c.name] for c in _COLUMNS}


def table_of(rows: Sequence[dict[str, object]]) -> Table:
    """The table of the sites, without the columns in which none has anything."""
    columns = [Column(c.name, c.heading, c.show, c.numeric, get=_getter(c.name)) for c in _COLUMNS]
    note = f"{NOTE} {_ADAPTERS}" if any(row["adapter_params"] for row in rows) else NOTE
    return Table.of("Sites", rows, columns, note=note).without_empty_columns()


def count_in_words(sites: Collection[Site]) -> str:
    """`16 additions and 2 concatenations in 4 stages`."""
    kinds = Counter(site.kind for site in sites)
    names: dict[Kind, str] = {"add": "addition", "concat": "concatenation"}
    counted = [f"{kinds[kind]} {name}{'' if kinds[kind] == 1 else 's'}" for kind, name in names.items() if kinds[kind]]
    stages = len({site.stage for site in sites if not site.flat})
    return f"{' and '.join(counted)} in {stages} stage{'' if stages == 1 else 's'}"


def free_in_words(survey: Survey) -> str:
    """Whether batch and size of the inputs may be others than those that were looked at."""
    traces = survey.traces.values()
    batch = all(traced.holds_for(lambda shape: (shape[0] + 1, *shape[1:])) for traced in traces)
    if all(traced.holds_for(lambda shape: (*shape[:2], *(2 * extent for extent in shape[2:]))) for traced in traces):
        return "batch and size are free" if batch else "the size is free, the batch is fixed by the network"
    shapes = next(iter(traces)).shapes
    said = " and ".join(dict.fromkeys(show_size(shape[2:]) for shape in shapes))
    return f"the size is fixed at {said} by the network, {'the batch is free' if batch else 'the batch is fixed too'}"


def left_in_words(survey: Survey) -> list[str]:
    """What joins maps and is no site, a line a reason."""
    whys: dict[str, list[str]] = {}
    for left in survey.left:
        whys.setdefault(left.why, []).append(f"{left.line} in {left.path or 'the network'}")
    lines = []
    for why, places in whys.items():
        more = f" and {len(places) - MOST_LINES} more" if len(places) > MOST_LINES else ""
        lines.append(f"left out: {why} ({', '.join(places[:MOST_LINES])}{more})")
    return lines


def _remark(survey: Survey, site: Site) -> str | None:
    remarks = []
    if site.flat:
        remarks.append("other dimensions than the input: by number alone")
    if mode := survey.only(site):
        remarks.append(f"in {mode} mode alone")
    return "; ".join(remarks) or None


def _getter(name: str) -> Any:
    return lambda row: row[name]
