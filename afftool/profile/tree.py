"""Who called whom: nests a trace's host spans by time and gives every device span to the operator that launched it."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from afftool.profile.trace import Span, Trace


@dataclass(frozen=True)
class Forest:
    """The nested host spans of every thread; launches and device work are known by the host span they came from."""

    roots: dict[tuple[Any, Any], list[Span]]
    launches: dict[int, list[Span]]
    """`id` of a host span -> its direct calls into CUDA."""
    work: dict[int, list[Span]]
    """`id` of a host span -> the device work it launched itself."""
    orphans: list[Span]
    """Device work that no host span launched."""

    def walk(self) -> Iterator[Span]:
        """Every host span, parents before children."""
        for spans in self.roots.values():
            for span in spans:
                yield from descend(span)

    def device_self(self, span: Span) -> float:
        """Microseconds of device work launched by this span itself."""
        return sum(work.duration for work in self.work.get(id(span), ()))

    def device_total(self, span: Span) -> float:
        """Microseconds of device work launched by this span and everything under it."""
        return sum(self.device_self(s) for s in descend(span))

    def host_self(self, span: Span) -> float:
        """Microseconds of this span in none of its children and in no call into CUDA."""
        inside = sum(child.duration for child in span.children)
        return span.duration - inside - sum(call.duration for call in self.launches.get(id(span), ()))

    def find(self, thread: Any, at: float) -> Span | None:
        """The innermost host span of a thread that covers a moment."""
        found: Span | None = None
        level = next((spans for lane, spans in self.roots.items() if lane[1] == thread), [])
        while level:
            index = bisect.bisect_right(level, at, key=lambda s: s.start) - 1
            if index < 0 or level[index].end < at:
                break
            found = level[index]
            level = found.children
        return found


def descend(span: Span) -> Iterator[Span]:
    """A span and everything under it, parents first."""
    stack = [span]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(current.children))


def grow(trace: Trace) -> Forest:
    """Nest the host spans of a trace.

    An operator that does nothing but call one of the same name is that operator, as in torch's own tables, so
    the two become one.
    """
    roots: dict[tuple[Any, Any], list[Span]] = defaultdict(list)
    stacks: dict[tuple[Any, Any], list[Span]] = defaultdict(list)
    for span in trace.host:
        span.children, span.parent = [], None
        stack = stacks[span.lane]
        while stack and span.start >= stack[-1].end:
            stack.pop()
        if stack and span.end > stack[-1].end:
            continue  # Overlaps its neighbour: not a call on this thread, so nothing can be said about it.
        span.parent = stack[-1] if stack else None
        (span.parent.children if span.parent else roots[span.lane]).append(span)
        stack.append(span)
    forest = Forest(dict(roots), defaultdict(list), defaultdict(list), [])
    _give_launches(trace, forest)
    for span in forest.walk():  # lazily: what a span swallows is not walked any more
        _swallow_namesake(span, forest)
    return forest


def _give_launches(trace: Trace, forest: Forest) -> None:
    by_id = {s.external_id: s for s in trace.host if s.kind == "operator" and s.external_id}
    owner: dict[int, Span] = {}
    for call in trace.runtime:
        span = by_id.get(call.external_id or 0) or forest.find(call.lane[1], call.start)
        if span is not None:
            forest.launches[id(span)].append(call)
            if call.correlation is not None:
                owner[call.correlation] = span
    for work in trace.device:
        span = owner.get(work.correlation) if work.correlation is not None else None
        span = span or by_id.get(work.external_id or 0)
        (forest.work[id(span)] if span else forest.orphans).append(work)


def _swallow_namesake(span: Span, forest: Forest) -> None:
    while len(span.children) == 1 and span.kind == span.children[0].kind == "operator":
        child = span.children[0]
        if child.name != span.name:
            return
        span.children = child.children
        for grandchild in span.children:
            grandchild.parent = span
        for given in (forest.launches, forest.work):
            given[id(span)] = given.get(id(span), []) + given.pop(id(child), [])
