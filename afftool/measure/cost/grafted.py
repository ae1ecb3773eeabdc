"""What fusions add to a network, one by one, read off what was counted of it and of the network itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from afftool.measure.cost.reading import CostReading, OperatorCost, Part
from afftool.spec.site import Site


@dataclass(frozen=True, kw_only=True)
class Added:
    """What one new fusion costs in a forward pass, at the sites of `numbers`, its adapters (1x1 projections) apart."""

    numbers: tuple[int, ...]
    params: int
    macs: int
    adapter_params: int
    adapter_macs: int


def added(original: CostReading, graft: CostReading, chosen: Sequence[Site]) -> tuple[Added, ...]:
    """A row a fusion that was put in, in the order of the sites; sites that share one stand in one row."""
    known = {part.path for part in original.parts}
    new = [part for part in graft.parts if part.path not in known]
    if not new:
        return ()
    root = new[0].path  # the parts go from the outside in
    paths = {site.number: f"{root}.{site.number}" for site in chosen}
    own = {path: part for part in new for path in (part.path,)}
    firsts = {site.twin: site.number for site in reversed(chosen) if paths[site.number] in own}
    sharing: dict[int, list[int]] = {}
    for site in chosen:
        first = site.number if paths[site.number] in own else firsts[site.twin]
        sharing.setdefault(first, []).append(site.number)
    kinds = {site.number: site.kind for site in chosen}
    return tuple(
        _added(own, graft.rows, paths[first], tuple(numbers), joint=kinds[first] == "concat")
        for first, numbers in sharing.items()
    )


def _added(
    own: dict[str, Part], rows: Iterable[OperatorCost], path: str, numbers: tuple[int, ...], *, joint: bool
) -> Added:
    rows = [row for row in rows if row.direction == "forward" and f"{row.module}.".startswith(f"{path}.")]
    macs = sum(row.macs for row in rows)
    fusion = f"{path}.fusion" if joint else path
    fusion_macs = sum(row.macs for row in rows if f"{row.module}.".startswith(f"{fusion}."))
    params = own[fusion].params
    return Added(
        numbers=numbers,
        params=params,
        macs=fusion_macs,
        adapter_params=own[path].params - params,
        adapter_macs=macs - fusion_macs,
    )
