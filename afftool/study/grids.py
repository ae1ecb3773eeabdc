"""The built-in studies, as data; only `placement` is made, for its host.

`afftool ablate NAME --print` shows one as TOML, to change and run from a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from afftool import registry
from afftool.catalog import STUDIES
from afftool.registry import unknown
from afftool.spec import HostSpec
from afftool.study.crossing import label
from afftool.study.significance import fewest_seeds
from afftool.study.spec import Budget, StudySpec, Variant
from afftool.study.stages import choices, count_stages


def _study(name: str, baseline: str, variants: list[Variant], **settings: object) -> StudySpec:
    """A study with as many seeds as its comparisons with the baselines need before any of them can be claimed."""
    spec = StudySpec(
        name=name,
        summary=STUDIES[name].summary,
        baseline=baseline,
        variants=tuple(variants),
        **settings,  # type: ignore[arg-type]
    )
    return dataclasses.replace(spec, seeds=tuple(range(fewest_seeds(len(spec.comparisons())))))


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


def placement(host: str) -> StudySpec:
    """AFF in each of the host's stages alone, in the last two, in all and in none. Raises what `count_stages` does."""
    tried = choices(count_stages(HostSpec.parse(host)))
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
