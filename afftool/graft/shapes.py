"""The shapes at which a network fuses, with how many sites have each: cases to measure bare fusions at.

A map is counted at the width it is fused at; what a concatenation projects before and after is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from afftool import plain
from afftool.errors import SpecError
from afftool.spec import CaseSpec, FusionSpec
from afftool.spec.site import Site
from afftool.spec.text import show_size
from afftool.written import Kind

_MARK = "# Shapes of a network, written by afftool graft"
CASES = Kind(
    name="file of shapes that afftool wrote",
    is_ours=lambda head: head.startswith(_MARK.encode()),
    instead="name another file by --shapes",
    force="--force",
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Maps that are fused alike: `inputs` of them, `channels` wide after any projection, at the sites of `numbers`."""

    channels: int
    size: tuple[int, ...]
    inputs: int
    numbers: tuple[int, ...]


def shapes_of(sites: Iterable[Site]) -> tuple[Shape, ...]:
    """The distinct shapes of these sites, in the order in which the network comes to them."""
    numbers: dict[tuple[int, tuple[int, ...], int], list[int]] = {}
    for site in sites:
        numbers.setdefault((site.width, site.size, len(site.channels)), []).append(site.number)
    return tuple(
        Shape(channels=channels, size=size, inputs=inputs, numbers=tuple(having))
        for (channels, size, inputs), having in numbers.items()
    )


def cases_file(name: str, shapes: Sequence[Shape], fusions: Sequence[FusionSpec], batch: int) -> tuple[str, list[str]]:
    """`[[case]]` tables as `afftool check` and `bench --cases` read them, and what cannot be fused at which shape.

    Raises `SpecError` where no fusion can be measured at any shape.
    """
    cases: list[dict[str, Any]] = []
    refused: dict[str, None] = {}
    for shape in shapes:
        texts = []
        for fusion in fusions:
            try:
                told = fusion.of_maps(shape.inputs, len(shape.size))
                CaseSpec(fusion=told, channels=shape.channels, size=shape.size, batch=batch)
            except SpecError as error:
                refused[f"{fusion} at {shape.channels} channels, {show_size(shape.size)}: {error.message}"] = None
            else:
                texts.append(told.text)
        if texts:
            size = show_size(shape.size)
            case: dict[str, Any] = {"fusion": texts, "channels": shape.channels, "size": size, "batch": batch}
            cases.append(case | {"sites": len(shape.numbers)})
    if not cases:
        raise SpecError(
            f"there is no shape to write: {next(iter(refused), 'no site is chosen')}",
            hint="choose other sites by --at, or another --fusion",
        )
    head = [f"{_MARK}: {name}", "# `sites` is how many sites have the shape. Read by `afftool bench --cases FILE` and"]
    head.append("# `afftool check --config FILE`.")
    return "\n".join([*(" ".join(line.split()) for line in head), plain.toml({"case": cases})]), list(refused)
