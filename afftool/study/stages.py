"""The stages of a host, counted from its knob `stages`, and the choices among them that `placement` tries.

A host of the user's own says how many it has by the default of its key `stages`, or in the text of the host. It is
called with `stages` as a user would write it in Python: 2, "2-3" or None.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from afftool import catalog, registry
from afftool.errors import SpecError
from afftool.spec import HostSpec
from afftool.spec.host import parse_stages


def choices(count: int) -> tuple[str, ...]:
    """Of so many stages: each alone, the tail (the last two, as the paper fuses ResNet-50), and all."""
    tails = (f"{first}-{count}" for first in (count - 1, 1) if 1 <= first < count)
    return tuple(dict.fromkeys([*(str(stage) for stage in range(1, count + 1)), *tails]))


def count_stages(host: HostSpec) -> int:
    """How many stages the host can fuse in. Raises `SpecError` if it does not say, `LoadError` if it is not found."""
    if host.target is None:
        knob = catalog.HOSTS[host.name].knobs.get("stages")
        if knob and knob.highest:
            return knob.highest
        raise SpecError(f"{host.name} has no stages to fuse in", hint="use --host resnet:b=1, for example")
    return _count_own(host, host.target)


def _count_own(host: HostSpec, target: str) -> int:
    make = registry.load(target)
    try:
        parameter = inspect.signature(make).parameters.get("stages")
    except (TypeError, ValueError):
        parameter = None
    if parameter is None:
        raise SpecError(
            f"{target} has no knob `stages`, and placement asks which stages should fuse",
            hint=f"let it take `stages`, called with 2, '2-3' or None, and name them all: --host {target}:stages=1-3",
        )
    named = dict(host.options).get("stages", parameter.default)
    highest = max(_stages(named), default=0)
    if not highest:
        raise SpecError(
            f"{target} does not say how many stages it has", hint=f"name all of them: --host {target}:stages=1-3"
        )
    return highest


def _stages(named: Any) -> Collection[int]:
    if isinstance(named, str):
        return parse_stages("stages", named)
    numbers = isinstance(named, Collection) and all(isinstance(stage, int) for stage in named)
    return named if numbers else ()
