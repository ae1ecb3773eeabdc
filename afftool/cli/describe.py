"""`afftool describe`: what a fusion computes and costs, how a host is built and where it fuses, a network's sites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from afftool import catalog, console, units
from afftool.cli.graft import show_sites
from afftool.cli.list import kinds
from afftool.errors import UnknownName
from afftool.registry import entry_points, load, unknown
from afftool.spec import FusionSpec, Grammar, HostSpec, parse_size, show_size
from afftool.spec.amounts import MOST_WHOLE
from afftool.spec.graft import KEYS, PREFIX
from afftool.spec.text import show

if TYPE_CHECKING:
    from afftool.hosts.stages import Fused, Stage

MEANINGS = {
    "strategy": "how the maps are joined: add, concat, refinement, modulation or selection (Table 1)",
    "context": "what the attention looks at: x, y, both (or none, for add and concat)",
    "scales": "attention branches, joined by +: local, global, or k for a map pooled to k a side",
    "join": "how the branches are joined: add, half, concat or recursive (Table 6)",
    "integration": "how both maps become one context: sum or concat",
    "iterations": "passes of attention: 1 is AFF, 2 is iAFF, and so on",
    "share_global": "whether later passes call the first one's global branch, as the released iAFF does",
    "reduction": "r, by which each branch's bottleneck is narrower than the maps",
    "norm": "normalisation in the branches: batch, layer or none",
    "activation": "activation in the branches: relu or silu",
    "gate": "sigmoid (weights M and 1 - M) or tanh (1 + T and 1 - T)",
    "gain": "a factor on the output; 2 is the released AFF's",
    "ndim": "spatial dimensions of the maps: 1, 2 or 3",
    "inputs": "how many maps are fused",
}
NOTATION = (
    "X, Y: the maps. G: sigmoid of the global context g; M: sigmoid of the joined contexts, local L and global g. "
    "Pk: the context of a map pooled to k a side. [ , ]: concatenation."
)


def describe(
    name: Annotated[
        str,
        typer.Argument(
            help="A fusion or host: name[:key=value]... or pkg.mod:Name (a network: graft:pkg.mod:build); or any name."
        ),
    ],
    channels: Annotated[
        int, typer.Option("--channels", "-c", min=1, max=MOST_WHOLE, help="Channels for the numbers of a fusion.")
    ] = 64,
    size: Annotated[str | None, typer.Option("--size", "-s", help="Size for the numbers [default: as bench].")] = None,
) -> None:
    """Explain a fusion or a host: formula, knobs, cost, source."""
    first = name.split(":")[0]
    if name.strip().startswith(PREFIX):
        _describe_graft(HostSpec.parse(name), size)
    elif name == catalog.ORIGINAL:
        console.pairs([("fusion", name), ("what", "none: what a network of yours joins by itself, in a graft")])
    elif first in catalog.HOSTS and first != "module":
        _describe_host(HostSpec.parse(name), size)
    elif first in catalog.FUSIONS or first in entry_points("afftool.fusions"):
        _describe_fusion(FusionSpec.parse(name), channels, size)
    elif ":" in name:
        _describe_own(name, channels, size)
    else:
        _describe_other(name)


def _describe_fusion(fusion: FusionSpec, channels: int, size: str | None) -> None:
    if fusion.grammar is None:
        _describe_own(fusion.text, channels, size)
        return
    extents = parse_size(size or "56", fusion.ndim)
    preset = catalog.FUSIONS[fusion.name]
    changed = " (with knobs changed, see below)" if fusion.text != fusion.name else ""
    console.pairs([("fusion", fusion.text), ("formula", preset.formula + changed), ("source", preset.source)])
    console.out(NOTATION)
    console.out("\nKnobs, as name:knob=value")
    plain = FusionSpec.parse(fusion.name).grammar
    rows = []
    for knob, meaning in MEANINGS.items():
        value = show(getattr(fusion.grammar, knob))
        mark = "*" if getattr(fusion.grammar, knob) != getattr(plain, knob) else ""
        rows.append((knob, value + mark, meaning))
    width = max(len(value) for _, value, _ in rows)
    console.pairs([(knob, f"{value.ljust(width)}  {meaning}") for knob, value, meaning in rows], indent=2)
    if fusion.text != fusion.name:
        console.out(f"  * differs from {fusion.name}")
    _closed_form(fusion.grammar, channels, extents)


def _closed_form(grammar: Grammar, channels: int, size: tuple[int, ...]) -> None:
    from afftool.spec.closed_form import closed_form

    form = closed_form(grammar)
    positions = 1
    for extent in size:
        positions *= extent
    values = form.values(channels, positions)
    inner = "".join(f", {symbol} = {width} rounded down" for symbol, width in form.widths.items())
    console.out(f"\nCost with C channels{inner}, P positions a map")
    numbers = ", ".join(f"{symbol} = {value}" for symbol, value in values.items())
    console.pairs(
        [
            ("params", f"{form.params}"),
            ("MACs", f"{form.macs}  for one sample, forward; elementwise work is not in it (see `afftool bench`)"),
            (
                "so, at",
                f"{numbers}: {units.count(form.params.at(values))} params, {units.count(form.macs.at(values))} MACs",
            ),
        ],
        indent=2,
    )


def _describe_own(name: str, channels: int, size: str | None) -> None:
    """A module or host builder of the user's: its signature and words, and, for a fusion, what is counted."""
    import inspect

    fusion = FusionSpec.parse(name)
    assert fusion.target is not None
    target = load(fusion.target)
    words = (inspect.getdoc(target) or "no docstring").splitlines()[0]
    parameters = str(inspect.signature(target)) if callable(target) else ""
    console.pairs([("name", fusion.text), ("made by", f"{fusion.target}{parameters}"), ("says", words)])
    from torch import nn

    if not (isinstance(target, type) and issubclass(target, nn.Module)):
        console.out("\nas a host:")
        _describe_host(HostSpec.parse(name), size)
        return
    from afftool.fusion.own import say_assumptions, settled
    from afftool.measure.cost.count import count
    from afftool.measure.cost.reading import formula_wanted
    from afftool.spec import CaseSpec

    extents = parse_size(size or "56", fusion.ndim)
    reading = count(CaseSpec(fusion=settled(fusion), channels=channels, size=extents, batch=1))
    say_assumptions()
    console.out(f"\nCounted at C = {channels}, size {show_size(extents)}, one sample, forward")
    rows = [("params", units.count(reading.params)), ("MACs", units.count(reading.macs))]
    rows += [("FLOPs", units.count(reading.flops)), ("bytes moved", units.count(reading.moved_bytes))]
    if reading.uncounted_ops:
        rows.append(("uncounted", ", ".join(reading.uncounted_ops)))
    console.pairs(rows, indent=2)
    if reading.uncounted_ops:
        console.out(f"\n{formula_wanted(reading.uncounted_ops)}")


def _describe_host(host: HostSpec, size: str | None) -> None:
    from afftool.hosts import describe_host
    from afftool.tables import Column, Table

    known = catalog.HOSTS.get(host.name)
    if known:
        rows = [
            ("host", host.text),
            ("what", known.summary),
            ("scenario", known.scenario or "-"),
            ("source", known.source),
        ]
        console.pairs(rows)
        if known.knobs:
            console.out("\nKnobs, as name:knob=value")
            options = dict(host.options)
            console.pairs(
                [(key, f"{show(options[key])}  {knob.summary}") for key, knob in known.knobs.items()], indent=2
            )
    pixels = parse_size(size or str(known.size if known else 64), 2)[0]
    stages = describe_host(host, pixels)
    columns: tuple[Column[Stage], ...] = (
        Column("name", "stage"),
        Column("blocks", "blocks", numeric=True),
        Column("channels", "channels out", numeric=True),
        Column("size", "size out", get=lambda stage: None if stage.size is None else show_size(stage.size) or "1"),
        Column("fuses", "fuses", get=lambda stage: _places(stage.fuses)),
    )
    console.out(f"\nStages, for an image of {pixels}x{pixels}")
    console.table(Table.of("", stages, columns))
    count = sum(len(s.fuses) for s in stages)
    console.out(f"{count} fusion{'' if count == 1 else 's'} in all")


def _describe_graft(host: HostSpec, size: str | None) -> None:
    """A network of the user's to graft into: what its text says, and its sites."""
    console.pairs([("host", host.text), ("what", "a network of yours, with fusions put in at its sites")])
    console.out("\nKeys, as name:key=value; others are the network's own")
    options = dict(host.options)
    width = max(len(options.get(key, "-")) for key in KEYS)
    rows = [(key, f"{options.get(key, '-').ljust(width)}  {meaning}") for key, meaning in KEYS.items()]
    console.pairs(rows, indent=2)
    console.out()
    show_sites(host, size)


def _places(fuses: tuple[Fused, ...]) -> str:
    """Where a stage fuses: equal places once, with how many there are."""
    places: dict[str, int] = {}
    for fused in fuses:
        place = f"{fused.channels} channels at {show_size(fused.size)}"
        places[place] = places.get(place, 0) + 1
    return ", ".join(f"{number} x {place}" for place, number in places.items()) or "-"


def _describe_other(name: str) -> None:
    """Any other name of the catalog: its line."""
    names = kinds()
    for kind, entries in names.items():
        if name in entries:
            console.pairs([("kind", kind), ("name", name), ("what", entries[name])])
            if name in catalog.DATASETS:
                _describe_dataset(name)
            return
    error = unknown("name", name, [known for entries in names.values() for known in entries])
    raise UnknownName(error.message, hint=f"{error.hint}; `afftool list` shows every name")


def _describe_dataset(name: str) -> None:
    dataset = catalog.DATASETS[name]
    if dataset.path:
        console.pairs([("path", dataset.path)])
    console.out(f"\n--data {name}{':PATH' if dataset.path else ''}{'[:key=value]...' if dataset.knobs else ''}")
    console.pairs([(key, f"{knob.default or '-'}  {knob.summary}") for key, knob in dataset.knobs.items()], indent=2)
