"""Reads a trace that torch.profiler exported (Chrome trace format), without torch and without the plugin.

Times are in microseconds, as in the file. What a category means: `cpu_op` an operator on the host, `user_annotation` a
`record_function` block (of which only steps and modules are kept), `cuda_runtime` and `cuda_driver` a call into CUDA,
`kernel`, `gpu_memcpy` and `gpu_memset` work on the device, `fwdbwd` an arrow from an operator to its backward,
`[memory]` an allocation or a release.

`grow` then tells who called whom: it nests the host spans by time and gives every device span to the operator that
launched it.
"""

from __future__ import annotations

import bisect
import gzip
import io
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from afftool.errors import LoadError
from afftool.received import Malformed, read_bytes

SpanKind = Literal["operator", "annotation", "module", "step", "runtime", "kernel", "memcpy", "memset"]

LARGEST_BYTES = 2**30
"""Of a trace, unzipped or not: a few million events, some ten times that in memory."""
STEP = "ProfilerStep#"
MODULE = "nn.Module: "
"""How a module's annotation begins: `nn.Module: path (Type)`."""

_KINDS: dict[str, SpanKind] = {
    "cpu_op": "operator",
    "user_annotation": "annotation",
    "cuda_runtime": "runtime",
    "cuda_driver": "runtime",
    "kernel": "kernel",
    "gpu_memcpy": "memcpy",
    "gpu_memset": "memset",
}
DEVICE_KINDS = ("kernel", "memcpy", "memset")
_MODULE_NAME = re.compile(re.escape(MODULE) + r"(?P<path>.+) \((?P<type>[^()]*)\)$")


@dataclass(eq=False, slots=True)
class Span:
    """Something with a start and an end; `lane` is the host thread or the device stream it ran on."""

    name: str
    kind: SpanKind
    start: float
    end: float
    lane: tuple[Any, Any]
    external_id: int | None = None
    correlation: int | None = None
    args: dict[str, Any] = field(default_factory=dict, repr=False)
    parent: Span | None = field(default=None, repr=False)
    children: list[Span] = field(default_factory=list, repr=False)

    @property
    def duration(self) -> float:
        """Microseconds from start to end."""
        return self.end - self.start

    @property
    def module(self) -> tuple[str, str]:
        """Path and type of the module that a module span is about."""
        match = _MODULE_NAME.match(self.name)
        return (match["path"], match["type"]) if match else (self.name.removeprefix(MODULE), "")


@dataclass(frozen=True, slots=True)
class Allocation:
    """One allocation (positive `size_bytes`) or release (negative), and what the allocator then held."""

    at: float
    device: str
    size_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    lane: tuple[Any, Any]


@dataclass(frozen=True)
class Trace:
    """A trace in parts, each in the order of time."""

    steps: list[Span]
    host: list[Span]
    """Operators and modules."""
    runtime: list[Span]
    device: list[Span]
    memory: list[Allocation]
    backward: dict[tuple[Any, float], tuple[Any, float]]
    """From thread and start of a backward operator to thread and start of the forward operator it belongs to."""
    device_names: dict[int, str]


def load_document(path: Path) -> dict[str, Any]:
    """The JSON of a trace file, `.gz` or not. Raises `LoadError` if there is none to read."""
    try:
        data = read_bytes(path, at_most=LARGEST_BYTES)
        # Not `json_of`: its checks cost more than the reading, and a trace has a million events.
        document = json.loads(_unzipped(data) if path.suffix == ".gz" else data)
    except FileNotFoundError as error:
        raise LoadError(f"no trace at {path}", hint="`afftool profile` writes one") from error
    except Malformed as error:
        raise LoadError(f"{path} is not a readable trace: it {error}", hint="profile fewer --steps") from error
    except RecursionError as error:
        raise LoadError(f"{path} is not a readable trace: it is nested too deep", hint="profile again") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise LoadError(f"{path} is not a readable trace: {error}", hint="profile again") from error
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise LoadError(f"{path} is not a trace of torch.profiler", hint="it has no traceEvents; profile again")
    return document


def _unzipped(data: bytes) -> bytes:
    """What a gzip holds, never more of it in memory than is taken. Raises `Malformed`, and what gzip raises."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        text = file.read(LARGEST_BYTES + 1)
    if len(text) > LARGEST_BYTES:
        raise Malformed(f"is larger than {LARGEST_BYTES / 2**20:,.0f} MiB unzipped")
    return text


def parse(document: dict[str, Any]) -> Trace:
    """The parts of a trace's JSON; events that are no part of a profile are left out.

    Raises `LoadError` where an event lacks what its kind has.
    """
    try:
        return _parse(document)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        shown = f"{type(error).__name__}: {error}"
        raise LoadError(f"the trace holds what is no event of torch.profiler: {shown}", hint="profile again") from error


def _parse(document: dict[str, Any]) -> Trace:
    steps: list[Span] = []
    host: list[Span] = []
    runtime: list[Span] = []
    device: list[Span] = []
    memory: list[Allocation] = []
    arrows: dict[int, dict[str, tuple[Any, float]]] = {}
    places = {"operator": host, "module": host, "step": steps, "runtime": runtime} | dict.fromkeys(DEVICE_KINDS, device)
    for event in document["traceEvents"]:
        phase, category = event.get("ph"), event.get("cat")
        if phase == "X" and category in _KINDS:
            span = _span(event, _KINDS[category])
            if span.kind in places:
                places[span.kind].append(span)
        elif phase == "i" and event.get("name") == "[memory]":
            memory.append(_allocation(event))
        elif category == "fwdbwd":
            arrows.setdefault(event["id"], {})[phase] = (event["tid"], event["ts"])
    for spans in (steps, host, runtime, device):
        spans.sort(key=lambda s: (s.start, -s.end))
    return Trace(
        steps=steps,
        host=host,
        runtime=runtime,
        device=device,
        memory=sorted(memory, key=lambda m: m.at),
        backward={ends["f"]: ends["s"] for ends in arrows.values() if "s" in ends and "f" in ends},
        device_names={
            int(p["id"]): str(p["name"]) for p in document.get("deviceProperties") or [] if "id" in p and "name" in p
        },
    )


def _span(event: dict[str, Any], kind: SpanKind) -> Span:
    name, args = str(event["name"]), event.get("args") or {}
    if kind == "annotation":
        kind = "step" if name.startswith(STEP) else "module" if name.startswith(MODULE) else kind
    return Span(
        name=name,
        kind=kind,
        start=event["ts"],
        end=event["ts"] + event.get("dur", 0),
        lane=(event.get("pid"), event.get("tid")),
        external_id=args.get("External id", args.get("external id")),
        correlation=args.get("correlation"),
        args=args,
    )


def _allocation(event: dict[str, Any]) -> Allocation:
    args = event["args"]
    return Allocation(
        at=event["ts"],
        device="CPU" if args.get("Device Type") == 0 else f"GPU {args.get('Device Id', 0)}",
        size_bytes=int(args.get("Bytes", 0)),
        allocated_bytes=int(args.get("Total Allocated", 0)),
        reserved_bytes=int(args.get("Total Reserved", 0)),
        lane=(event.get("pid"), event.get("tid")),
    )


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
        # Not every call says which operator made it (a fused kernel's launcher does not); its thread and time do.
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
