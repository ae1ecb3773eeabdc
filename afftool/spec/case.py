"""A case: a fusion in a host, with its input and the way it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from afftool import catalog
from afftool.errors import SpecError
from afftool.plain import check_choices, digest
from afftool.spec.amounts import check_whole
from afftool.spec.fusion import FusionSpec
from afftool.spec.host import MODULE, HostSpec
from afftool.spec.text import name_extents, show_size

Mode = Literal["infer", "train"]
Dtype = Literal["float32", "bfloat16", "float16"]
MemoryFormat = Literal["contiguous", "channels_last"]


def targets_of(*specs: FusionSpec | HostSpec) -> tuple[str, ...]:
    """The objects of the user's own that these are made of, `pkg.mod:Name` each; none where all is ours."""
    return tuple(spec.target for spec in specs if spec.target)


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
        check_choices(self)
        check_whole("batch", self.batch, hint="for example --batch 8")
        for extent in self.size or (0,):
            check_whole("size", extent, hint="for example --size 56")
        if self.host.graft is not None:
            self._check_graft()
            return
        if self.fusion.original:
            raise SpecError(
                f"original is what a network of yours joins by itself, and {self.host} is none",
                hint="use it with --host graft:pkg.mod:build",
            )
        if len(self.size) != self.fusion.ndim:
            raise SpecError(
                f"{self.fusion} fuses {self.fusion.ndim}-dimensional maps, the size {show_size(self.size)} has "
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
        elif self.fusion.inputs != 2 or self.fusion.ndim != 2 or self.fusion.uneven:
            alike = " of one shape" if self.fusion.uneven else ""
            raise SpecError(
                f"{self.host} fuses two 2-dimensional maps{alike} at a time, not {self.fusion}",
                hint="use --host module for other numbers of inputs and dimensions, and for maps that differ",
            )
        else:
            self._check_host()

    def _check_graft(self) -> None:
        """What can be told without the network: its sites say how many maps of how many dimensions are fused."""
        assert self.host.graft is not None
        if self.channels is not None:
            raise SpecError(f"{self.host} decides its own channels", hint="leave --channels out")
        if len(self.size) > 3:
            raise SpecError(f"size {show_size(self.size)} has {len(self.size)} dimensions", hint="maps have 1 to 3")
        if self.fusion.inputs != 2 or self.fusion.ndim != 2 or self.fusion.uneven:
            raise SpecError(
                f"the sites of {self.host} say how many maps of how many dimensions are fused, not {self.fusion}",
                hint="leave inputs, ndim and maps out",
            )
        if self.memory_format == "channels_last" and len(self.size) == 1:
            raise SpecError("channels_last exists for 2d and 3d maps only", hint="use --memory-format contiguous")
        self.host.graft.input_shapes(self.batch, self.size)
        grammar = self.fusion.grammar
        if self.mode == "train" and grammar is not None and self.host.graft.selection.at != ("none",):
            grammar.check_batch_statistics(self.batch, positions=2)

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
        check_whole("channels", self.channels, hint="for example --channels 64")
        if self.fusion.grammar is None:
            self._check_maps(self.channels)
            return
        grammar = self.fusion.grammar
        if grammar.attends:
            grammar.inner_channels(self.channels)
        if self.mode == "train":
            positions = 1
            for extent in self.size:
                positions *= extent
            grammar.check_batch_statistics(self.batch, positions)

    def _check_maps(self, channels: int) -> None:
        """One of the maps has the case's own channels and size, or a record would say what no map is."""
        shapes = self.fusion.map_shapes(channels, self.size)
        if (channels, *self.size) in shapes:
            return
        width, *extents = shapes[0]
        raise SpecError(
            f"no map of {self.fusion} has {channels} channels and the size {show_size(self.size)}",
            hint=f"say those of one of its maps, as --channels {width} --size {show_size(extents)}; or write c and s "
            "for the case's own channels and size, as maps=c@s+2c@s/2",
        )

    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of its inputs: `(N, C, *S)` of each map of the bare fusion, or of a host's one batch of images."""
        if self.host.graft is not None:
            return self.host.graft.input_shapes(self.batch, self.size)
        if self.host != MODULE:
            return ((self.batch, 3, *self.size),)
        assert self.channels is not None
        return tuple((self.batch, *shape) for shape in self.fusion.map_shapes(self.channels, self.size))

    @property
    def own_targets(self) -> tuple[str, ...]:
        """The objects of the user's own that it is built of, `pkg.mod:Name` each; none where all is ours."""
        return targets_of(self.fusion, self.host)

    def fields(self) -> dict[str, Any]:
        """Every field in plain form, as it is hashed and sent to other processes; `from_fields` reads it back."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return own | {"fusion": self.fusion.text, "host": self.host.text}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The case that gave these `fields`, after a trip through JSON too; what is missing has its default."""
        parsed = {"fusion": FusionSpec.parse(fields["fusion"]), "host": HostSpec.parse(fields["host"])}
        return cls(**dict(fields) | parsed | {"size": tuple(fields["size"])})

    def stored(self) -> dict[str, Any]:
        """The case in the stored fields of its records; None for a dimension that it does not have."""
        names = ("mode", "device", "dtype", "memory_format", "batch", "channels")
        given = {name: getattr(self, name) for name in names}
        return {"fusion": self.fusion.text, "host": self.host.text, **given, **name_extents(self.size)}

    @property
    def name(self) -> str:
        """`aff channels=64 size=56x56 batch=8`, then whatever differs from the defaults."""
        parts = [self.fusion.text, *([f"in {self.host.text}"] if self.host != MODULE else [])]
        parts += [f"channels={self.channels}"] if self.channels is not None else []
        parts += [f"size={show_size(self.size)}", f"batch={self.batch}"]
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        further = {name: getattr(self, name) for name in ("mode", "device", "dtype", "memory_format")}
        parts += [f"{name}={value}" for name, value in further.items() if value != defaults[name]]
        return " ".join(parts)

    @property
    def identity(self) -> str:
        """A short hash over every field, so that equal questions have equal identities on every machine."""
        return digest(self, self.fields())
