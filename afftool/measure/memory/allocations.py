"""What an allocator did while something ran: every block with its address, its size and the time it lived.

The events are the profiler's, for the CPU allocator as for CUDA's caching one, so a peak found here is exact and the
same every time; the size of the process is neither. What never passes through PyTorch's allocators (BLAS packing
buffers, a compiled kernel's stack) is not seen. Operators are not recorded, only allocations and named phases, which
keeps a recording small enough to span a compilation.

The profiler's Python front end cannot leave operators out, so `_start` and `_stop` call what it calls; they and
`_flatten` are all that depends on PyTorch's private names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Event:
    """An allocation (`nbytes` > 0) or the end of one (< 0)."""

    time_ns: int
    address: int
    nbytes: int


@dataclass(frozen=True)
class Block:
    """Memory handed out at event `born` and given back at event `died`, or never within the recording."""

    address: int
    nbytes: int
    born: int
    died: int | None


@dataclass(frozen=True)
class Phase:
    """The events from `first` on and before `end`."""

    first: int
    end: int


@dataclass(frozen=True)
class Peak:
    """The most bytes alive at once, relative to the start of the recording, and the event that reached it."""

    nbytes: int
    at: int


class Timeline:
    """A recording, ready to be asked. Pure: made of events in the order they happened, and of phases in time."""

    def __init__(self, events: Iterable[Event], spans: Iterable[tuple[str, int, int]] = ()) -> None:
        self.events = tuple(events)
        self.blocks = tuple(_blocks(self.events))
        self._running = [0]
        for event in self.events:
            self._running.append(self._running[-1] + event.nbytes)
        self.phases = {name: Phase(self._position(start), self._position(end)) for name, start, end in spans}

    def _position(self, time_ns: int) -> int:
        return sum(event.time_ns < time_ns for event in self.events)

    def allocated(self, position: int) -> int:
        """Bytes alive before the event at `position`, less those alive when the recording started."""
        return self._running[position]

    def peak(self, phase: Phase) -> Peak:
        """The peak within `phase`; what is alive as it begins counts."""
        at = max(range(phase.first, phase.end + 1), key=lambda position: self._running[position])
        return Peak(self._running[at], at)

    def alive(self, position: int) -> list[Block]:
        """The recorded blocks alive before the event at `position`."""
        return [b for b in self.blocks if b.born < position and (b.died is None or b.died >= position)]


def _blocks(events: tuple[Event, ...]) -> Iterator[Block]:
    living: dict[int, tuple[int, int]] = {}
    for position, event in enumerate(events):
        if event.nbytes > 0:
            living[event.address] = (event.nbytes, position)
        elif event.address in living:  # else it was handed out before the recording
            nbytes, born = living.pop(event.address)
            yield Block(event.address, nbytes, born, position)
    for address, (nbytes, born) in living.items():
        yield Block(address, nbytes, born, None)


class Recording:
    """Runs until its `with` block ends; then `timeline` is there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._timeline: Timeline | None = None

    @property
    def timeline(self) -> Timeline:
        """The finished recording."""
        assert self._timeline is not None, "the recording has not ended"
        return self._timeline

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Give what happens in the `with` block a name, to be used once."""
        with torch.profiler.record_function(_MARK + name):
            yield

    def _finish(self, result: Any) -> None:
        found = sorted(_flatten(result.experimental_event_tree()), key=lambda event: event.start_time_ns)
        events = [
            Event(event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size)
            for event in found
            if event.name == "[memory]" and event.extra_fields.device == self._device
        ]
        spans = [
            (event.name.removeprefix(_MARK), event.start_time_ns, event.end_time_ns)
            for event in found
            if event.name.startswith(_MARK)
        ]
        self._timeline = Timeline(events, spans)


_MARK = "afftool phase: "


@contextmanager
def record(device: torch.device) -> Iterator[Recording]:
    """Record the allocations on `device` that happen in the `with` block. Not within another profiler's run."""
    recording = Recording(device)
    _start()
    try:
        yield recording
    finally:
        recording._finish(_stop())


def _start() -> None:
    from torch._C._profiler import (
        ProfilerActivity,
        ProfilerConfig,
        ProfilerState,
        RecordScope,
        _ExperimentalConfig,
    )

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it announces every start on stderr otherwise
    profile_memory = True
    config = ProfilerConfig(ProfilerState.KINETO, False, profile_memory, False, False, False, _ExperimentalConfig())
    torch._C._autograd._prepare_profiler(config, {ProfilerActivity.CPU})
    scopes = {RecordScope.USER_SCOPE}
    torch._C._autograd._enable_profiler(config, {ProfilerActivity.CPU}, scopes)  # type: ignore[call-arg]


def _stop() -> Any:
    return torch._C._autograd._disable_profiler()


def _flatten(events: Iterable[Any]) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _flatten(event.children)
