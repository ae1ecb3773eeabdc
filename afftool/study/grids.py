"""The built-in studies, as data; only `placement` is made, for its host, of the stages that this has.

A host of the user's own says how many stages it has by the default of its key `stages`, or in the text of the host. It
is called with `stages` as a user would write it in Python: 2, "2-3" or None.

`afftool ablate NAME --print` shows one as TOML, to change and run from a file.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection
from typing import Any

from afftool import catalog, registry
from afftool.catalog import STUDIES
from afftool.errors import SpecError
from afftool.registry import unknown
from afftool.spec import HostSpec
from afftool.spec.text import parse_stages
from afftool.study.spec import Budget, StudySpec, Variant
from afftool.study.variant import label


def _study(name: str, baseline: str, variants: list[Variant], **settings: object) -> StudySpec:
    """A study with seven seeds, and more where it has many comparisons, so that it shows about as small differences."""
    spec = StudySpec(
        name=name,
        summary=STUDIES[name].summary,
        baseline=baseline,
        variants=tuple(variants),
        **settings,  # type: ignore[arg-type]
    )
    return dataclasses.replace(spec, seeds=tuple(range(_seeds(len(spec.comparisons())))))


def _seeds(comparisons: int) -> int:
    """So many that `power.detectable_deviations` is below one and a half, or six for a single comparison."""
    return 6 + (comparisons > 1) + (comparisons > 3) + (comparisons > 6)


SCALE = _study(
    "scale",
    "global-global",
    [Variant.of("global-global"), Variant.of("local-local"), Variant.of("aff")],
    budget=Budget(tolerance=0.0),
    published="scale",
)

INTEGRATION = _study(
    "integration",
    "add",
    [
        Variant.of("add"),
        Variant.of("concat"),
        Variant.of("ms-gau:reduction=2", "ms-gau"),
        Variant.of("ms-se:reduction=2", "ms-se"),
        Variant.of("ms-sa:reduction=2", "ms-sa"),
        Variant.of("aff:reduction=2", "aff"),
        Variant.of("iaff:reduction=4", "iaff"),
    ],
    budget=Budget(tolerance=0.02, exempt=("add",)),
    published="integration",
)

JOINING = _study(
    "joining",
    "aff",
    [Variant.of(name) for name in ("half-aff", "concat-aff", "aff", "recursive-aff", "iaff")],
    published="joining",
)

DEPTH = _study(
    "depth",
    "add b=1",
    [
        Variant.of(fusion, f"{name} b={b}", against=None if name == "add" else f"add b={b}", b=b)
        for b in (1, 2, 3, 4)
        for name, fusion in (("add", "add"), ("aff", "aff:reduction=2"), ("iaff", "iaff:reduction=4"))
    ],
    published="depth",
    across="b",
)

REDUCTION = _study(
    "reduction",
    "r=4",
    [Variant.of(f"aff:reduction={r}", f"r={r}") for r in (2, 4, 8, 16)],
)

ITERATIONS = _study(
    "iterations",
    "1 pass",
    [Variant.of("aff", "1 pass"), Variant.of("iaff", "2 passes"), Variant.of("iaff:iterations=3", "3 passes")],
)

GAIN = _study("gain", "gain=1", [Variant.of("aff", "gain=1"), Variant.of("aff:gain=2", "gain=2")], signal=True)


def stage_choices(count: int) -> tuple[str, ...]:
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


def placement(host: str) -> StudySpec:
    """AFF in each of the host's stages alone, in the last two, in all and in none. Raises what `count_stages` does."""
    tried = stage_choices(count_stages(HostSpec.parse(host)))
    return _study(
        "placement",
        "none",
        [Variant.of("add", label("stages", "none"), stages="none")]
        + [Variant.of("aff", label("stages", stages), stages=stages) for stages in tried],
        host=host,
        across="stages",
    )


def study(name: str, host: str | None = None) -> StudySpec:
    """A built-in study by name; `host` is whose stages `placement` tries. Raises `UnknownName`, and as `placement`."""
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    made: StudySpec | Callable[[str], StudySpec] = registry.load(STUDIES[name].path)
    return made(host or StudySpec.host) if callable(made) else made
