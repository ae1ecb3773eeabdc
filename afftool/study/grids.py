"""The built-in studies, as data; only `placement` is made, for its host, of the stages that this has.

A host of the user's own says how many stages it has by the default of its key `stages`, or in the text of the host. It
is called with `stages` as a user would write it in Python: 2, "2-3" or None. The stages of a network that fusions are
grafted into are those of the sites that its text chooses, and every study of it has the `original` beside.

`afftool ablate NAME --print` shows one as TOML, to change and run from a file.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

from afftool import catalog, registry
from afftool.catalog import ORIGINAL, STUDIES
from afftool.errors import SpecError
from afftool.registry import unknown
from afftool.spec import HostSpec
from afftool.spec.graft import PREFIX
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


Size = Callable[[], tuple[int, ...]]
"""Height and width of the images that a study trains on, asked for where nothing else tells them."""


def stage_choices(stages: Sequence[int]) -> tuple[str, ...]:
    """Of these stages: each alone, the tail (the last two, as the paper fuses ResNet-50), and all."""
    alone = [(stage,) for stage in stages]
    return tuple(dict.fromkeys(_told(some) for some in [*alone, stages[-2:], stages]))


def _told(stages: Sequence[int]) -> str:
    """`2-3` where they follow on each other, else `1+3`."""
    first, last = stages[0], stages[-1]
    if len(stages) > 1 and last - first == len(stages) - 1:
        return f"{first}-{last}"
    return "+".join(map(str, stages))


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


def grafted_stages(host: HostSpec, size: Size | None) -> tuple[int, ...]:
    """The stages of the sites that the host's text chooses, in images of the size it tells, or else of `size`.

    Raises what tracing the network and choosing its sites do.
    """
    from afftool.graft.opening import surveyed  # torch: a study of any other host is made, and printed, without it

    said = host.graft
    assert said is not None
    sites = surveyed(host, said.input_shapes(2, said.size or (size() if size else None))).chosen(said.selection)
    stages = sorted({site.stage for site in sites if not site.flat})
    if not stages:
        raise SpecError(
            f"no site of {host} is in a stage, and placement asks which stages should fuse",
            hint="`afftool graft` shows the sites; leave at= out to take all of them",
        )
    return tuple(stages)


def placement(host: str, size: Size | None = None) -> StudySpec:
    """AFF in each of the host's stages alone, in the last two, in all and in none.

    What has none of it is the baseline: additions, or the `original` of a grafted network, where additions grafted
    into all of the stages stand beside it. Raises what `count_stages` and `grafted_stages` do.
    """
    spec = HostSpec.parse(host)
    if spec.graft is None:
        knob, tried = "stages", stage_choices(range(1, count_stages(spec) + 1))
        baseline, beside = Variant.of("add", label(knob, "none"), stages="none"), []
    else:
        knob, tried = "stage", stage_choices(grafted_stages(spec, size))
        baseline, beside = Variant.of(ORIGINAL), [Variant.of("add", stage=tried[-1])]
    return _study(
        "placement",
        baseline.name,
        [baseline, *(Variant.of("aff", label(knob, stages), **{knob: stages}) for stages in tried), *beside],
        host=host,
        across=knob,
    )


def study(name: str, host: str | None = None, size: Size | None = None) -> StudySpec:
    """A built-in study by name, for its `host`, whose stages `placement` tries. Raises `UnknownName`, and as that.

    `size` tells the images' size where a network has to be looked at and its text does not say one.
    """
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    made: StudySpec | Callable[[str, Size | None], StudySpec] = registry.load(STUDIES[name].path)
    if callable(made):
        return made(host or StudySpec.host, size)
    return made if host is None or not host.strip().startswith(PREFIX) else anchored(made)


def anchored(spec: StudySpec) -> StudySpec:
    """The study with the `original` beside its variants: the baseline where addition was, else one more of them.

    It has no budget to keep. A study across a knob of its host has an original at each of its values: none is added.
    """
    if spec.across is not None:
        return spec
    budget = spec.budget
    if budget is not None:
        budget = dataclasses.replace(budget, exempt=(ORIGINAL, *budget.exempt))
    baseline = ORIGINAL if spec.baseline == "add" else spec.baseline
    anchor = Variant.of(ORIGINAL)
    spec = dataclasses.replace(spec, variants=(anchor, *spec.variants), baseline=baseline, budget=budget)
    return dataclasses.replace(spec, seeds=tuple(range(_seeds(len(spec.comparisons())))))
