"""What one side says of one case: exact values, the details that explain them, and its times. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from afftool.plain import Plain

Detail = Mapping[str, int]
"""A breakdown of a metric, for example parameter name -> number of elements."""


@dataclass(frozen=True, kw_only=True)
class Reading(Plain):
    """The numbers of one case on one side.

    `values` holds exact metrics and instruction counts; `details` breaks a metric down by name; `times_ms` are
    medians, one a fresh process (baseline) or one a round (against); `unread` says why a metric has no value,
    `inapplicable` why the case can have none whatever is done. `batch` inputs are worked on in one step. `source` is
    `file:line` of the fusion's class, relative to where the check was started.
    """

    values: Mapping[str, int | float] = field(default_factory=dict)
    details: Mapping[str, Detail] = field(default_factory=dict)
    times_ms: tuple[float, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    inapplicable: Mapping[str, str] = field(default_factory=dict)
    status: Literal["ok", "skipped", "failed"] = "ok"
    reason: str | None = None
    source: str | None = None
    batch: int = 1


def newcomers(before: Detail, after: Detail) -> dict[str, int]:
    """What grew and by how much, largest first; a breakdown that was summed by module is compared as one."""
    for coarse, fine in ((before, after), (after, before)):
        if coarse and fine and not any("." in name for name in coarse):
            shared = set(coarse) & set(_heads(fine))
            if len(shared) > len(set(coarse) & set(fine)):
                before, after = _heads(before), _heads(after)
                break
    grown = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    return dict(sorted(grown.items(), key=lambda item: (-item[1], item[0])))


def small(detail: Detail, limit: int = 32) -> dict[str, int]:
    """A breakdown short enough to be stored: dotted names are summed under their first part if there are many."""
    if len(detail) <= limit:
        return dict(sorted(detail.items()))
    summed = _heads(detail)
    return summed if len(summed) <= limit else {}


def _heads(detail: Detail) -> dict[str, int]:
    summed: dict[str, int] = {}
    for name, count in detail.items():
        head = name.partition(".")[0]
        summed[head] = summed.get(head, 0) + count
    return dict(sorted(summed.items()))
