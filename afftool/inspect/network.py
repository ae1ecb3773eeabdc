"""A network of the user's own looked at for its sites, and what fusions cost there: one report of both."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from afftool import units
from afftool.errors import SpecError
from afftool.graft.listing import NAMES, count_in_words, free_in_words, in_text, left_in_words, rows_of, table_of
from afftool.graft.network import MODES, Survey
from afftool.graft.opening import surveyed
from afftool.measure.cost.count import count
from afftool.measure.cost.grafted import Added, added
from afftool.measure.cost.reading import CostReading
from afftool.report.exact import as_they_are
from afftool.room import check_room, least_of_case
from afftool.spec import CaseSpec, FusionSpec
from afftool.spec.site import Site
from afftool.spec.text import show_size
from afftool.tables import Column, Report, Table

_ADDED: tuple[Column[Added], ...] = (
    Column("numbers", "site", lambda numbers: "+".join(map(str, numbers))),
    Column("params", "params", units.count, numeric=True),
    Column("macs", "MACs", units.count, numeric=True),
    Column("adapter_params", "adapter params", units.count, numeric=True, get=lambda one: one.adapter_params or None),
    Column("adapter_macs", "adapter MACs", units.count, numeric=True, get=lambda one: one.adapter_macs or None),
)


@dataclass(frozen=True, eq=False)
class Look:
    """The sites of a network in both modes; `chosen` are those that its text means, None where it means none yet.

    `case` is the network as it is, with one image; `seconds` is how long it took to build and trace it.
    """

    case: CaseSpec
    survey: Survey
    chosen: tuple[Site, ...] | None
    seconds: float


@dataclass(frozen=True)
class Costs:
    """What the network costs as it is, what it costs with fusions, and what each of those adds; for one image."""

    fusion: FusionSpec
    original: CostReading
    graft: CostReading
    added: tuple[Added, ...]


def look(case: CaseSpec, *, choose: bool) -> Look:
    """Build and trace the network of `case`, and choose sites if that is asked for.

    Raises `LoadError`, and `SpecError` where it joins no maps or has no site that is meant.
    """
    assert case.host.graft is not None
    check_room(least_of_case(case), case.device, what="the network")
    started = time.monotonic()
    survey = surveyed(case.host, case.input_shapes(), *MODES)
    seconds = time.monotonic() - started
    if not survey.sites:
        why = "; ".join(left_in_words(survey))
        raise SpecError(
            f"{case.host.target} adds and concatenates no maps, so there is no site{f' ({why})' if why else ''}",
            hint="a site is a sum of two activations of one shape, or a concatenation along channels",
        )
    chosen = survey.chosen(case.host.graft.selection) if choose else None
    return Look(case, survey, chosen, seconds)


def costs(looked: Look, fusion: FusionSpec) -> Costs:
    """Count the network with `fusion` at the chosen sites, and without. Raises what building it raises."""
    graft = count(dataclasses.replace(looked.case, fusion=fusion))
    original = count(looked.case)
    return Costs(fusion, original, graft, added(original, graft, looked.chosen or ()))


def sites_report(looked: Look, counted: Costs | None = None) -> Report:
    """What was found, and what the fusions cost there, if that was counted."""
    survey, host = looked.survey, looked.case.host
    rows = rows_of(survey, looked.chosen)
    name = host.text.removeprefix("graft:")
    shapes = " and ".join(show_size(shape[1:]) for shape in looked.case.input_shapes())
    facts = [("Network", name), ("Looked at with", shapes), ("Sites", count_in_words(survey.sites))]
    if looked.chosen is not None:
        facts.append(("Chosen", count_in_words(looked.chosen) if looked.chosen else "none"))
    tables = [table_of(rows)]
    if counted is not None:
        facts += _cost_facts(counted)
        tables.append(_added_table(counted, shared=any(len(one.numbers) > 1 for one in counted.added)))
    seconds = units.seconds(looked.seconds)
    return Report(
        title=f"Sites of {name}" if counted is None else f"{counted.fusion} in {name}",
        facts=tuple(facts),
        tables=tuple(tables),
        data=as_they_are(map(in_text, rows), NAMES),
        document={
            "schema": 1,
            "network": name,
            "host": host.text,
            "inputs": [list(shape) for shape in looked.case.input_shapes()],
            "sites": rows,
            "left_out": [dataclasses.asdict(left) for left in survey.left],
            "free": {mode: [list(free) for free in traced.free] for mode, traced in survey.traces.items()},
            "seconds": looked.seconds,
            "costs": None if counted is None else _cost_document(counted),
        },
        notes=(
            f"Built and traced in eval and train mode in {seconds}; {free_in_words(survey)}.",
            *left_in_words(survey),
            _next(looked, counted),
        ),
    )


def _cost_facts(counted: Costs) -> list[tuple[str, str]]:
    before, after = counted.original, counted.graft
    adapters = sum(one.adapter_params for one in counted.added)
    facts = [
        ("Original", f"{units.count(before.params)} params, {units.count(before.macs)} MACs for one input"),
        (f"With {counted.fusion}", f"{units.count(after.params)} params, {units.count(after.macs)} MACs"),
        ("Added", f"{_more(before.params, after.params)} params, {_more(before.macs, after.macs)} MACs"),
    ]
    if adapters:
        macs = sum(one.adapter_macs for one in counted.added)
        facts.append(("Of that, adapters", f"{units.count(adapters)} params, {units.count(macs)} MACs"))
    if after.uncounted_ops:
        facts.append(("Not counted", ", ".join(after.uncounted_ops)))
    return facts


def _more(before: int, after: int) -> str:
    share = f" ({units.percent((after - before) / before)})" if before else ""
    return f"{units.count(after - before)}{share}"


def _added_table(counted: Costs, *, shared: bool) -> Table:
    note = "Sites in one row share a fusion; its MACs are those of all its calls." if shared else ""
    return Table.of(f"{counted.fusion} there", counted.added, _ADDED, note=note).without_empty_columns()


def _cost_document(counted: Costs) -> dict[str, object]:
    def totals(reading: CostReading) -> dict[str, object]:
        return {"params": reading.params, "macs": reading.macs, "flops": reading.flops}

    return {
        "fusion": counted.fusion.text,
        "original": totals(counted.original),
        "graft": totals(counted.graft),
        "added": [dataclasses.asdict(one) for one in counted.added],
    }


def _next(looked: Look, counted: Costs | None) -> str:
    """The command to go on with."""
    case = looked.case
    words: Sequence[str] = ["afftool", "bench", "--host", case.host.text]
    words = [*words, "--fusion", counted.fusion.text if counted is not None else "add,aff,iaff"]
    if case.host.graft is not None and case.host.graft.size is None:
        words = [*words, "--size", show_size(case.size)]
    return f"What it costs in time: {shlex.join(words)}"
