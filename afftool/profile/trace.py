"""Reads a trace that torch.profiler exported (Chrome trace format), without torch and without the plugin.

Times are in microseconds, as in the file. What a category means: `cpu_op` an operator on the host, `user_annotation` a
`record_function` block (of which only steps and modules are kept), `cuda_runtime` and `cuda_driver` a call into CUDA,
`kernel`, `gpu_memcpy` and `gpu_memset` work on the device, `fwdbwd` an arrow from an operator to its backward,
`[memory]` an allocation or a release.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from afftool.errors import LoadError

Kind = Literal["operator", "annotation", "module", "step", "runtime", "kernel", "memcpy", "memset"]

STEP = "ProfilerStep#"
MODULE = "nn.Module: "
"""How a module's annotation begins: `nn.Module: path (Type)`."""

_KINDS: dict[str, Kind] = {
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
    kind: Kind
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
        data = path.read_bytes()
        document = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except FileNotFoundError as error:
        raise LoadError(f"no trace at {path}", hint="`afftool profile` writes one") from error
    except (OSError, EOFError, ValueError) as error:
        raise LoadError(f"{path} is not a readable trace: {error}", hint="profile again") from error
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise LoadError(f"{path} is not a trace of torch.profiler", hint="it has no traceEvents; profile again")
    return document


def parse(document: dict[str, Any]) -> Trace:
    """The parts of a trace's JSON; events that are no part of a profile are left out."""
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


def _span(event: dict[str, Any], kind: Kind) -> Span:
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
