"""A trace over time: what its steps were spent on, the gaps in them, and the memory curve."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

from afftool.profile.operators import is_operator
from afftool.profile.summary import CategoryRow, GapRow, MemoryCurve
from afftool.profile.trace import Allocation, Forest, Span, Trace

CATEGORIES = ("Kernel", "Memcpy", "Memset", "Communication", "Runtime", "DataLoader", "CPU Exec", "Other")
"""TensorBoard's, in the order in which a moment is given away: what runs on the device wins over the host."""

_DEVICE = {"kernel": "Kernel", "memcpy": "Memcpy", "memset": "Memset"}


def step_windows(trace: Trace) -> Intervals:
    """Start and end of every step; a step lasts until the device has done what was launched in it.

    A trace without steps is one step, from its first to its last host span.
    """
    if not trace.steps:
        spans = trace.host or trace.device
        return [(min(s.start for s in spans), max(s.end for s in spans))] if spans else []
    ends = {work.correlation: work.end for work in trace.device}
    windows: Intervals = []
    position = trace.steps[0].start
    for step in trace.steps:
        launched = [
            ends[call.correlation]
            for call in trace.runtime
            if call.correlation in ends and step.start <= call.start and call.end <= step.end
        ]
        # The host runs ahead of the device: it may be in the next step while the last one's kernels still run. A step
        # then begins where the device is done with the one before, so that no moment is in two of them.
        start = max(position, step.start)
        end = max(start, step.end, *launched) if launched else max(start, step.end)
        windows.append((start, end))
        position = end if trace.device else step.end
    return windows


def categories(trace: Trace, windows: Intervals) -> list[CategoryRow]:
    """Where an average step goes. Every moment of the steps counts exactly once, so the rows add up to the step."""
    busy: dict[str, list[tuple[float, float]]] = {name: [] for name in CATEGORIES}
    for span in trace.device:
        busy[_DEVICE[span.kind]].append((span.start, span.end))
    for span in trace.runtime:
        busy["Runtime"].append((span.start, span.end))
    for span in trace.host:
        if span.kind == "operator":
            busy["CPU Exec"].append((span.start, span.end))
    left = merge(windows)
    rows = []
    for name in CATEGORIES[:-1]:
        taken = intersect(left, merge(busy[name]))
        left = subtract(left, taken)
        rows.append(CategoryRow(category=name, step_us=length(taken) / max(1, len(windows))))
    rows.append(CategoryRow(category="Other", step_us=length(left) / max(1, len(windows))))
    return rows


def gaps(trace: Trace, forest: Forest, windows: Intervals) -> list[GapRow]:
    """Idle time between kernels on each device; without one, between the operators of the host's busiest thread."""
    by_device: dict[str, list[Span]] = defaultdict(list)
    for span in trace.device:
        by_device[f"GPU {span.args.get('device', span.lane[0])}"].append(span)
    if not by_device:
        lanes = {lane: [s for root in roots for s in _outermost(root)] for lane, roots in forest.roots.items()}
        if lanes:
            by_device["CPU operators"] = max(lanes.values(), key=lambda spans: sum(s.duration for s in spans))
    rows = [_gap_row(where, spans, windows) for where, spans in sorted(by_device.items())]
    return [row for row in rows if row is not None]


def _outermost(span: Span) -> list[Span]:
    return [span] if is_operator(span) else [found for child in span.children for found in _outermost(child)]


def _gap_row(where: str, spans: list[Span], windows: Intervals) -> GapRow | None:
    spans = sorted(spans, key=lambda s: s.start)
    if windows:
        spans = [s for s in spans if windows[0][0] <= s.start and s.end <= windows[-1][1]]
    if len(spans) < 2:
        return None
    found: list[tuple[float, str]] = []
    last = spans[0]
    for span in spans[1:]:
        if span.start > last.end:
            found.append((span.start - last.end, f"{last.name} -> {span.name}"))
        if span.end > last.end:
            last = span
    window = last.end - spans[0].start
    lengths = [gap for gap, _ in found]
    longest, between = max(found, default=(0.0, ""))
    return GapRow(
        where=where,
        gaps=len(found),
        total_us=sum(lengths),
        share=sum(lengths) / window if window else 0.0,
        median_us=statistics.median(lengths) if lengths else 0.0,
        longest_us=longest,
        longest_between=between,
    )


def memory_curves(trace: Trace, forest: Forest) -> list[MemoryCurve]:
    """One curve a device, from the profiler's allocation events, times from the first step's start."""
    origin = trace.steps[0].start if trace.steps else min((m.at for m in trace.memory), default=0.0)
    by_device: dict[str, list[Allocation]] = defaultdict(list)
    for event in trace.memory:
        by_device[event.device].append(event)
    curves = []
    for device, events in sorted(by_device.items()):
        peak = max(events, key=lambda e: e.allocated_bytes)
        curves.append(
            MemoryCurve(
                device=device,
                points=tuple((e.at - origin, e.allocated_bytes, e.reserved_bytes) for e in events),
                peak_bytes=peak.allocated_bytes,
                peak_at_us=peak.at - origin,
                peak_operator=_allocator(forest.find(peak.lane[1], peak.at)),
                allocations=sum(e.size_bytes > 0 for e in events),
                allocated_bytes=sum(e.size_bytes for e in events if e.size_bytes > 0),
            )
        )
    return curves


def _allocator(span: Span | None) -> str:
    """The operator a reader would know: `aten::empty` allocates for whoever called it."""
    while span is not None and (not is_operator(span) or span.name.startswith("aten::empty")):
        if span.parent is None:
            break
        span = span.parent
    return span.name if span is not None else "outside any operator"


Intervals = list[tuple[float, float]]
"""Disjoint `(start, end)` pairs in rising order, as `merge` returns them."""


def merge(intervals: Iterable[tuple[float, float]]) -> Intervals:
    """The union of any intervals, empty ones left out."""
    merged: Intervals = []
    for start, end in sorted(intervals):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def intersect(a: Intervals, b: Intervals) -> Intervals:
    """What two merged sets have in common."""
    common: Intervals = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            common.append((start, end))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return common


def subtract(a: Intervals, b: Intervals) -> Intervals:
    """What of the merged set `a` is not in the merged set `b`."""
    if not a:
        return []
    low, high = a[0][0], a[-1][1]
    outside: Intervals = []
    position = low
    for start, end in b:
        if start > position:
            outside.append((position, start))
        position = max(position, end)
    if position < high:
        outside.append((position, high))
    return intersect(a, outside)


def length(intervals: Intervals) -> float:
    """The total length of a merged set."""
    return sum(end - start for start, end in intervals)
