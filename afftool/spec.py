"""What is asked for, as frozen values: a fusion, a host, a case. A spec that exists is valid.

The text form is `name[:key=value]...`, for example `iaff`, `aff:reduction=16`, `aff:scales=global+global`,
`resnet50:stages=3-4:stem=plain` or `mypkg.gates:MyGate:width=8`. Nothing here imports torch, so bad input is
answered at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

from afftool import catalog
from afftool.errors import BatchStatisticsError, SpecError, UnknownKey
from afftool.registry import entry_points, unknown

Strategy = Literal["add", "concat", "refinement", "modulation", "selection"]
Context = Literal["none", "x", "y", "both"]
Join = Literal["add", "half", "concat", "recursive"]
Integration = Literal["sum", "concat"]
Norm = Literal["batch", "layer", "none"]
Activation = Literal["relu", "silu"]
Gate = Literal["sigmoid", "tanh"]
Mode = Literal["infer", "train"]
Dtype = Literal["float32", "bfloat16", "float16"]
MemoryFormat = Literal["contiguous", "channels_last"]
Scale = str | int
"""`global`, `local`, or k for a map pooled to k positions a side."""


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """One fusion of two or more feature maps, as a point in the space of everything the paper compares.

    The fields are explained one by one in `describe`; the formulas are those of Table 1. `iterations` counts
    attention passes: 1 gates the initial integration itself (AFF), 2 gates the result of a first AFF (iAFF).
    """

    strategy: Strategy = "selection"
    context: Context = "both"
    scales: tuple[Scale, ...] = ("local", "global")
    join: Join = "add"
    integration: Integration = "sum"
    iterations: int = 1
    share_global: bool = False
    reduction: int = 4
    norm: Norm = "batch"
    activation: Activation = "relu"
    gate: Gate = "sigmoid"
    gain: float = 1.0
    ndim: int = 2
    inputs: int = 2

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            choices = get_args(hint)
            if choices and all(isinstance(c, str) for c in choices) and getattr(self, name) not in choices:
                raise SpecError(
                    f"{name}={getattr(self, name)!r} is not allowed", hint=f"choose from {', '.join(choices)}"
                )
        for name, low in (("reduction", 1), ("iterations", 1), ("inputs", 2)):
            if getattr(self, name) < low:
                raise SpecError(f"{name}={getattr(self, name)} is too small", hint=f"use {low} or more")
        if self.ndim not in (1, 2, 3):
            raise SpecError(f"ndim={self.ndim} is not allowed", hint="maps have 1, 2 or 3 spatial dimensions")
        if not 0 < abs(self.gain) < float("inf"):
            raise SpecError(f"gain={self.gain} is not a usable factor", hint="1 is the paper's, 2 the released code's")
        if self.strategy in ("add", "concat"):
            self._refuse_attention()
        else:
            self._check_attention()

    def _refuse_attention(self) -> None:
        default = _ATTENTION_DEFAULTS
        for name, value in default.items():
            if getattr(self, name) != value:
                raise SpecError(
                    f"{self.strategy} has no attention, so {name}={_show(getattr(self, name))} means nothing",
                    hint="only gain, ndim and inputs apply to add and concat; "
                    "for attention start from aff, or set strategy and context as well",
                )

    def _check_attention(self) -> None:
        if self.context == "none":
            raise SpecError(f"{self.strategy} needs a context to attend to", hint="context=x, y or both")
        if not self.scales:
            raise SpecError(f"{self.strategy} needs at least one scale", hint="for example scales=local+global")
        for scale in self.scales:
            if scale not in ("local", "global") and not (isinstance(scale, int) and scale >= 2):
                raise SpecError(
                    f"scale {scale!r} is not allowed",
                    hint="local, global, or a whole number from 2: the map is pooled to that many positions a side",
                )
        if self.join != "add" and len(self.scales) < 2:
            raise SpecError(f"join={self.join} needs two scales to join", hint="for example scales=local+global")
        if self.join == "recursive" and len(self.scales) != 2:
            raise SpecError("join=recursive selects between exactly two contexts", hint="give two scales")
        if self.iterations > 1 and self.strategy != "selection":
            raise SpecError(
                f"iterations={self.iterations} needs strategy=selection, not {self.strategy}",
                hint="an iterated integration is itself a soft selection (paper, Section 4.2)",
            )
        if self.integration == "concat" and self.context != "both":
            raise SpecError("integration=concat integrates both inputs", hint="use context=both")
        if self.share_global and (self.iterations < 2 or self.scales.count("global") != 1 or self.join == "half"):
            raise SpecError(
                "share_global needs a second pass and one global scale to share", hint="for example open-iaff"
            )
        if self.share_global and self.integration == "concat":
            raise SpecError("share_global needs passes of equal width", hint="use integration=sum")
        if self.gate == "tanh" and (self.strategy != "selection" or self.inputs != 2):
            raise SpecError(
                "gate=tanh weighs two inputs by 1 + t and 1 - t",
                hint="use it with strategy=selection and inputs=2",
            )

    @property
    def attends(self) -> bool:
        """Whether there is an attention module at all."""
        return self.strategy not in ("add", "concat")

    def inner_channels(self, channels: int) -> int:
        """Width of each attention branch's bottleneck; `half` shares one budget between the branches.

        Raises `SpecError` if `channels` are fewer than the reduction.
        """
        reduction = self.reduction * (len(self.scales) if self.join == "half" else 1)
        if channels < reduction:
            raise SpecError(
                f"{channels} channels cannot be reduced by {reduction}",
                hint=f"use reduction={max(1, channels * self.reduction // reduction)} or less, or more channels",
            )
        inner = channels // reduction
        if self.norm == "layer" and inner == 1 and "global" in self.scales:
            raise SpecError(
                f"norm=layer over the {inner} value that {channels} channels reduced by {reduction} leave is always 0",
                hint=f"use reduction={max(1, channels // 2)} or less, or norm=none",
            )
        return inner

    def check_batch_statistics(self, batch: int, positions: int) -> None:
        """Refuse a training step whose batch norm would see a single value a channel.

        `positions` is the number of spatial positions of the feature maps. Raises `BatchStatisticsError`.
        """
        if not self.attends or self.norm != "batch":
            return
        # A recursive join looks at the joined contexts with an MS-CAM, which has a global branch.
        for scale in (*self.scales, *(("global",) if self.join == "recursive" else ())):
            positions_seen = scale**self.ndim if isinstance(scale, int) else positions if scale == "local" else 1
            if batch * positions_seen < 2:
                raise BatchStatisticsError(
                    f"batch norm in the {scale} branch would see one value a channel (batch {batch})",
                    hint="train with a batch of 2 or more, use norm=layer, or call .eval()",
                )


_ATTENTION_DEFAULTS: dict[str, Any] = {
    **{f.name: f.default for f in dataclasses.fields(Grammar) if f.name not in ("strategy", "gain", "ndim", "inputs")},
    "context": "none",
    "scales": (),
}


@dataclass(frozen=True, kw_only=True)
class FusionSpec:
    """A fusion by name: a point of the grammar, or a module of the user's own (`target`) with its options."""

    name: str
    grammar: Grammar | None = None
    target: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        ndim = dict(self.options).get("ndim", "2")
        if ndim not in ("1", "2", "3"):
            raise SpecError(f"ndim={ndim} is not allowed", hint="maps have 1, 2 or 3 spatial dimensions")

    @classmethod
    def parse(cls, text: str) -> FusionSpec:
        """Read `name[:key=value]...`. Raises `UnknownName`, `UnknownKey` or `SpecError`."""
        name, options = _split(text, "fusion", catalog.FUSIONS)
        if ":" in name:
            return cls(name=name, target=name, options=tuple(sorted(options.items())))
        if name not in catalog.FUSIONS:
            added = entry_points("afftool.fusions")
            if name not in added:
                raise unknown("fusion", name, [*catalog.FUSIONS, *added])
            return cls(name=name, target=added[name], options=tuple(sorted(options.items())))
        settings: dict[str, Any] = dict(catalog.FUSIONS[name].settings)
        hints = get_type_hints(Grammar)
        for key, value in options.items():
            if key not in hints:
                raise _unknown_key(name, key, hints)
            settings[key] = _read(key, value, hints[key])
        return cls(name=name, grammar=Grammar(**settings))

    def with_settings(self, **settings: object) -> FusionSpec:
        """This fusion with some settings changed: fields of the grammar, or a user's module's own keys.

        Raises `UnknownKey` or `SpecError`.
        """
        if self.grammar is None:
            options = {**dict(self.options), **{key: _show(value) for key, value in settings.items()}}
            return dataclasses.replace(self, options=tuple(sorted(options.items())))
        known = [f.name for f in dataclasses.fields(Grammar)]
        for key in settings:
            if key not in known:
                raise _unknown_key(self.name, key, known)
        return dataclasses.replace(self, grammar=dataclasses.replace(self.grammar, **settings))  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        """The shortest text that parses to this spec; equal specs have equal texts."""
        if self.grammar is None:
            return ":".join([self.name, *(f"{k}={v}" for k, v in self.options)])
        preset = Grammar(**catalog.FUSIONS[self.name].settings)  # type: ignore[arg-type]
        changed = [
            f"{f.name}={_show(getattr(self.grammar, f.name))}"
            for f in dataclasses.fields(Grammar)
            if getattr(self.grammar, f.name) != getattr(preset, f.name)
        ]
        return ":".join([self.name, *changed])

    def __str__(self) -> str:
        return self.text

    @property
    def ndim(self) -> int:
        """Spatial dimensions of the maps it fuses."""
        return self.grammar.ndim if self.grammar else int(dict(self.options).get("ndim", 2))

    @property
    def inputs(self) -> int:
        """How many feature maps it fuses; a module of the user's own takes two."""
        return self.grammar.inputs if self.grammar else 2


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A host by name, with all its knobs filled in; `target` is set for a callable of the user's own."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    target: str | None = None

    @classmethod
    def parse(cls, text: str) -> HostSpec:
        """Read `name[:key=value]...`. Raises `UnknownName`, `UnknownKey` or `SpecError`."""
        name, given = _split(text, "host", catalog.HOSTS)
        if ":" in name:
            return cls(name=name, target=name, options=tuple(sorted(given.items())))
        if name not in catalog.HOSTS:
            raise unknown("host", name, catalog.HOSTS)
        knobs = catalog.HOSTS[name].knobs
        for key in given:
            if key not in knobs:
                raise _unknown_key(name, key, knobs)
        options = {key: _read_knob(key, given.get(key, k.default), k.kind) for key, k in knobs.items()}
        for key, knob in knobs.items():
            if knob.highest and max(options[key], default=0) > knob.highest:
                raise SpecError(
                    f"{name} has no stage {max(options[key])}: its stages are 1 to {knob.highest}",
                    hint=f"for example {key}={knob.default}, or {key}=none to fuse nowhere",
                )
        return cls(name=name, options=tuple(options.items()))

    @property
    def text(self) -> str:
        """The shortest text that parses to this spec."""
        if self.target:
            return ":".join([self.name, *(f"{k}={v}" for k, v in self.options)])
        knobs = catalog.HOSTS[self.name].knobs
        changed = [
            f"{key}={_show(value)}"
            for key, value in self.options
            if value != _read_knob(key, knobs[key].default, knobs[key].kind)
        ]
        return ":".join([self.name, *changed])

    def __str__(self) -> str:
        return self.text


MODULE = HostSpec(name="module")


@dataclass(frozen=True, kw_only=True)
class CaseSpec:
    """A fusion in a host with its input and the way it runs: what one row of a bench is about.

    `size` holds the spatial extents of the input, outermost first; `channels` is None where the host fixes it.
    """

    fusion: FusionSpec
    host: HostSpec = MODULE
    channels: int | None = 64
    size: tuple[int, ...] = (56, 56)
    batch: int = 8
    mode: Mode = "infer"
    device: str = "cpu"
    dtype: Dtype = "float32"
    memory_format: MemoryFormat = "contiguous"
    seed: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        for name, choices in (
            ("mode", get_args(Mode)),
            ("dtype", get_args(Dtype)),
            ("memory_format", get_args(MemoryFormat)),
        ):
            if getattr(self, name) not in choices:
                raise SpecError(
                    f"{name}={getattr(self, name)!r} is not allowed", hint=f"choose from {', '.join(choices)}"
                )
        if self.batch < 1 or min(self.size, default=0) < 1:
            raise SpecError("batch and size must be at least 1", hint="for example --batch 8 --size 56")
        if len(self.size) != self.fusion.ndim:
            raise SpecError(
                f"{self.fusion} fuses {self.fusion.ndim}-dimensional maps, the size {_times(self.size)} has "
                f"{len(self.size)} dimensions",
                hint="give --size once per dimension, as 56 or 56x28, and ndim on the fusion, as aff:ndim=1",
            )
        if self.memory_format == "channels_last" and self.fusion.ndim == 1:
            raise SpecError("channels_last exists for 2d and 3d maps only", hint="use --memory-format contiguous")
        if self.host == MODULE:
            self._check_module()
        elif self.channels is not None:
            raise SpecError(
                f"{self.host} decides its own channels", hint="leave --channels out, or set the host's width"
            )
        elif self.fusion.inputs != 2 or self.fusion.ndim != 2:
            raise SpecError(
                f"{self.host} fuses two 2-dimensional maps at a time, not {self.fusion}",
                hint="use --host module for other numbers of inputs and dimensions",
            )
        else:
            self._check_host()

    def _check_host(self) -> None:
        """What can be told without building the host: too few channels, and training on one image."""
        grammar, options = self.fusion.grammar, dict(self.host.options)
        if grammar is None or not grammar.attends or options.get("stages") == ():
            return
        known = catalog.HOSTS.get(self.host.name)
        widths = known.widths if known else ()
        for stage in options["stages"] if widths else ():
            grammar.inner_channels(widths[stage - 1] * options.get("width", 1))
        if self.mode == "train":
            grammar.check_batch_statistics(self.batch, positions=2)

    def _check_module(self) -> None:
        if self.channels is None or self.channels < 1:
            raise SpecError("the bare fusion needs channels", hint="for example --channels 64")
        if self.fusion.grammar is None:
            return
        grammar = self.fusion.grammar
        if grammar.attends:
            grammar.inner_channels(self.channels)
        if self.mode == "train":
            positions = 1
            for extent in self.size:
                positions *= extent
            grammar.check_batch_statistics(self.batch, positions)

    @property
    def identity(self) -> str:
        """A short hash over every field, so that equal questions have equal identities on every machine."""
        # Imported here: a mistyped name has to be answered at once, and is never hashed.
        import hashlib
        import json

        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields |= {"fusion": self.fusion.text, "host": self.host.text}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def split_list(texts: list[str]) -> list[str]:
    """Split options that may be given many times, or comma separated, or both: `["a,b", "c"]` -> a, b, c."""
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def parse_size(text: str, ndim: int) -> tuple[int, ...]:
    """Read `56` (every dimension) or `56x28` (one number a dimension). Raises `SpecError`."""
    parts = text.lower().split("x")
    if not all(p.isdecimal() for p in parts) or len(parts) not in (1, ndim):
        raise SpecError(f"size {text!r} does not fit {ndim}-dimensional maps", hint="for example 56, or 56x28 in 2d")
    numbers = tuple(int(p) for p in parts)
    return numbers * ndim if len(numbers) == 1 else numbers


def _split(text: str, kind: str, known: Container[str]) -> tuple[str, dict[str, str]]:
    """Name and options of `name[:key=value]...`; `pkg.mod:Class` is a name of its own."""
    name, *rest = text.strip().split(":")
    if rest and rest[0] and "=" not in rest[0] and name not in known:
        name = f"{name}:{rest.pop(0)}"
    options: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise SpecError(f"{part!r} in {text!r} is not key=value", hint=f"a {kind} is written name[:key=value]...")
        if key in options:
            raise SpecError(f"{key!r} is given twice in {text!r}", hint="keep one of them")
        options[key] = value
    if not name.strip(":"):
        raise SpecError(f"empty {kind} name in {text!r}", hint=f"`afftool list` shows every {kind}")
    return name, options


def _unknown_key(name: str, key: str, known: Any) -> UnknownKey:
    if not known:
        return UnknownKey(f"{name} takes no keys, and {key!r} was given")
    error = unknown("key", key, known)
    return UnknownKey(f"{name} takes no key {key!r}", hint=error.hint)


def _read(key: str, value: str, hint: Any) -> Any:
    """A grammar value from its text."""
    if key == "scales":
        return tuple(int(part) if part.isdecimal() else part for part in value.split("+"))
    if hint is bool:
        if value not in ("true", "false"):
            raise SpecError(f"{key}={value} is neither true nor false")
        return value == "true"
    if hint in (int, float):
        try:
            return hint(value)
        except ValueError:
            raise SpecError(
                f"{key}={value} is not a {'whole ' if hint is int else ''}number", hint=f"for example {key}=4"
            ) from None
    return value


def _read_knob(key: str, value: str, kind: str) -> Any:
    """A host knob from its text."""
    if kind == "int":
        number = _read(key, value, int)
        if number < 1:
            raise SpecError(f"{key}={value} is too small", hint="use 1 or more")
        return number
    if kind == "stages":
        return _read_stages(key, value)
    if value not in kind.split("|"):
        raise SpecError(f"{key}={value} is not allowed", hint=f"choose from {', '.join(kind.split('|'))}")
    return value


def _read_stages(key: str, value: str) -> tuple[int, ...]:
    if value == "none":
        return ()
    stages: set[int] = set()
    for part in value.split("+"):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise SpecError(f"{key}={value} names no stages", hint="for example 3-4, 2+4, or none")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high:
            raise SpecError(f"{key}={value}: {part} is no range of stages", hint="stages count from 1, as 3-4")
        if high - low > 99:
            raise SpecError(f"{key}={value}: {part} is more stages than any host has", hint="for example 3-4")
        stages.update(range(low, high + 1))
    return tuple(sorted(stages))


def _times(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _show(value: object) -> str:
    """A value as it is written in the text form."""
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
