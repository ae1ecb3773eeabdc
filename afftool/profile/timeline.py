"""What the steps of a trace were spent on, and the gaps in them."""

from __future__ import annotations

import statistics
from collections import defaultdict

from afftool.profile.intervals import Intervals, intersect, length, merge, subtract
from afftool.profile.operators import is_operator
from afftool.profile.rows import CategoryRow, GapRow
from afftool.profile.trace import Span, Trace
from afftool.profile.tree import Forest

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
