"""The memory curve of a trace: what was allocated when, and who held the most."""

from __future__ import annotations

from collections import defaultdict

from afftool.profile.operators import is_operator
from afftool.profile.rows import MemoryCurve
from afftool.profile.trace import Allocation, Span, Trace
from afftool.profile.tree import Forest


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
