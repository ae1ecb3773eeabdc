"""Every name afftool knows, on one page. Plain data: importing this file imports nothing heavy.

A path is `module:attribute` and is imported only when its name is used (see `afftool.registry`). To add a fusion,
a host, a backend, a measure, a format or a command, write its file and add one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Knob:
    """One `key=value` of a host: `kind` is int, stages or a |-separated list of choices."""

    kind: str
    default: str
    summary: str


@dataclass(frozen=True)
class Entry:
    """A name with the dotted path it loads and the line that `afftool list` prints."""

    path: str
    summary: str


@dataclass(frozen=True)
class Preset:
    """A named point of the fusion grammar (`afftool.spec.Grammar`); `settings` hold what differs from its defaults."""

    formula: str
    source: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """A network that carries fusions; `size` and `channels` are the input used where none is asked for."""

    path: str
    summary: str
    source: str
    size: int
    channels: int | None
    knobs: Mapping[str, Knob] = field(default_factory=dict)


_NO_ATTENTION: dict[str, object] = {"context": "none", "scales": ()}
_GLOBAL: dict[str, object] = {"scales": ("global",)}
_PAPER = "Dai et al., WACV 2021 (arXiv 2009.14082)"

FUSIONS: dict[str, Preset] = {
    "add": Preset("X + Y", f"{_PAPER}, Table 1; ResNet, FPN", {"strategy": "add", **_NO_ATTENTION}),
    "concat": Preset("W [X, Y] + b", f"{_PAPER}, Table 1; U-Net", {"strategy": "concat", **_NO_ATTENTION}),
    "se": Preset("X + G(Y) Y", f"{_PAPER}, Table 1; SENet", {"strategy": "refinement", "context": "y", **_GLOBAL}),
    "gau": Preset("G(Y) X + Y", f"{_PAPER}, Table 1; GAU", {"strategy": "modulation", "context": "y", **_GLOBAL}),
    "highway": Preset("G(X) X + (1 - G(X)) Y", f"{_PAPER}, Table 1; Highway Networks", {"context": "x", **_GLOBAL}),
    "sa": Preset(
        "G([X, Y]) X + Y",
        f"{_PAPER}, Table 1; SA",
        {"strategy": "modulation", "integration": "concat", **_GLOBAL},
    ),
    "sk": Preset("G(X + Y) X + (1 - G(X + Y)) Y", f"{_PAPER}, Table 1; SKNet, ResNeSt", _GLOBAL),
    "ms-se": Preset("X + M(Y) Y", f"{_PAPER}, Table 4", {"strategy": "refinement", "context": "y"}),
    "ms-gau": Preset("M(Y) X + Y", f"{_PAPER}, Table 4", {"strategy": "modulation", "context": "y"}),
    "ms-sa": Preset("M(X + Y) X + Y", f"{_PAPER}, Table 4", {"strategy": "modulation"}),
    "aff": Preset("M(X + Y) X + (1 - M(X + Y)) Y", f"{_PAPER}, Section 4.1", {}),
    "iaff": Preset(
        "AFF whose initial integration X u Y is another AFF", f"{_PAPER}, Section 4.2", {"iterations": 2}
    ),
    "global-global": Preset("AFF with g + g for M's logits", f"{_PAPER}, Table 3", {"scales": ("global", "global")}),
    "local-local": Preset("AFF with L + L for M's logits", f"{_PAPER}, Table 3", {"scales": ("local", "local")}),
    "half-aff": Preset("AFF with (L + g) / 2, half the width each", f"{_PAPER}, Table 6", {"join": "half"}),
    "concat-aff": Preset("AFF with W [L, g] + b", f"{_PAPER}, Table 6", {"join": "concat"}),
    "recursive-aff": Preset(
        "AFF with M'(L + g) L + (1 - M'(L + g)) g", f"{_PAPER}, Table 6", {"join": "recursive"}
    ),
    "open-aff": Preset("2 M(X + Y) X + 2 (1 - M(X + Y)) Y", "released open-aff code, AFF", {"gain": 2.0}),
    "open-iaff": Preset(
        "iAFF whose second pass reuses the first pass's global branch; its own is dead",
        "released open-aff PyTorch port, iAFF",
        {"iterations": 2, "share_global": True},
    ),
    "eres2net-aff": Preset(
        "(1 + T) X + (1 - T) Y with T = tanh(L([X, Y]))",
        "3D-Speaker, ERes2Net AFF",
        {"integration": "concat", "scales": ("local",), "activation": "silu", "gate": "tanh"},
    ),
}

_CLASSES = Knob("int", "1000", "classes of the final layer")
_IMAGENET_KNOBS = {
    "stages": Knob("stages", "3-4", "the stages whose blocks fuse, as 3-4 or 2+4; other blocks add"),
    "stem": Knob("deep|plain", "deep", "deep: three 3x3 convolutions (released code); plain: one 7x7"),
    "classes": _CLASSES,
}

HOSTS: dict[str, Host] = {
    "module": Host("afftool.hosts.module:build", "the bare fusion, nothing around it", "", 56, 64),
    "resnet": Host(
        "afftool.hosts.resnet:build",
        "CIFAR ResNet-20-b: pre-activation basic blocks, fusion of shortcut and branch",
        "released open-aff code; paper Table 2",
        32,
        None,
        {
            "b": Knob("int", "3", "residual blocks in each of the three stages"),
            "width": Knob("int", "1", "multiplier of the stage widths 16, 32, 64"),
            "stages": Knob("stages", "1-3", "the stages whose blocks fuse; other blocks add"),
            "classes": Knob("int", "100", "classes of the final layer"),
        },
    ),
    "resnet50": Host(
        "afftool.hosts.resnet50:build",
        "ImageNet ResNet-50: bottlenecks, average-pool shortcuts",
        "released open-aff code; paper Table 5",
        224,
        None,
        _IMAGENET_KNOBS,
    ),
    "resnext50": Host(
        "afftool.hosts.resnet50:build_resnext",
        "ImageNet ResNeXt-50-32x4d: grouped bottlenecks, average-pool shortcuts",
        "released open-aff code; paper Table 5",
        224,
        None,
        _IMAGENET_KNOBS,
    ),
}

BACKENDS: dict[str, Entry] = {
    "eager": Entry("afftool.backends.eager:prepare", "PyTorch as it is, no compiler"),
    "compile": Entry("afftool.backends.compile:prepare_default", "torch.compile, inductor's defaults"),
    "compile-reduce-overhead": Entry(
        "afftool.backends.compile:prepare_reduce_overhead", "torch.compile with CUDA graphs"
    ),
    "compile-max-autotune": Entry("afftool.backends.compile:prepare_max_autotune", "torch.compile, kernels autotuned"),
    "cudagraph": Entry("afftool.backends.cudagraph:prepare", "eager kernels captured by hand in one CUDA graph"),
}

MEASURES: dict[str, Entry] = {
    "cost": Entry("afftool.measure.cost:measure", "parameters, MACs, FLOPs, bytes moved; needs no real memory"),
    "latency": Entry("afftool.measure.latency:measure", "time per step, with its spread"),
    "memory": Entry("afftool.measure.memory:measure", "peak, parameter and saved-for-backward bytes"),
}

FORMATS: dict[str, Entry] = {
    "md": Entry("afftool.formats.markdown:render", "Markdown"),
    "csv": Entry("afftool.formats.csv:render", "comma-separated values, exact numbers"),
    "json": Entry("afftool.formats.json:render", "one JSON document, exact numbers, null where there is none"),
    "html": Entry("afftool.formats.html:render", "one self-contained HTML page"),
}

COMMANDS: dict[str, Entry] = {
    "bench": Entry("afftool.cli.bench:bench", "Measure what fusions cost: parameters, MACs, bytes, latency, memory."),
    "list": Entry("afftool.cli.list:list_names", "List the names afftool knows: fusions, hosts, backends, ..."),
    "describe": Entry("afftool.cli.describe:describe", "Explain a fusion or a host: formula, knobs, cost, source."),
    "doctor": Entry("afftool.cli.doctor:doctor", "Tell what this machine can measure and what is missing."),
    "runs": Entry("afftool.cli.runs:runs", "List the stored runs."),
    "report": Entry("afftool.cli.report:report", "Write a stored run as Markdown, CSV, JSON or HTML."),
    "compare": Entry("afftool.cli.compare:compare", "Put two or more stored runs side by side."),
}
