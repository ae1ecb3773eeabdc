"""From what `afftool bench` is asked to the cases it measures: words, then cases, then modules that are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from afftool import console
from afftool.device import resolve_device
from afftool.errors import SpecError
from afftool.registry import load
from afftool.spec import CaseSpec, FusionSpec
from afftool.spec.options import Options
from afftool.spec.sweep import Sweep, Words, parse_fusions, sweep, sweep_all, without_baseline

if TYPE_CHECKING:
    from afftool.bench.elsewhere import Elsewhere


def read_words(cases: Path | None, **described: list[str] | None) -> dict[str, Words]:
    """What is asked for, by where that is said; of the command line itself by no name. Raises `SpecError`."""
    if cases is None:
        if described["fusion"] is None:
            raise SpecError("no fusion was named", hint="for example --fusion iaff, or --cases FILE")
        return {"": Words(**described)}  # type: ignore[arg-type]
    for option, given in described.items():
        if given:
            name = f"--{option.replace('_', '-')}"
            raise SpecError(f"{name} describes cases, and so does --cases {cases}", hint="leave one of them out")
    from afftool.spec.case_tables import read_for_bench

    return {table.where: table.words for table in read_for_bench(cases)}


def plan(words: Mapping[str, Words], baseline: str) -> Sweep:
    """The cases asked for, with their baseline. Raises what `sweep` does."""
    if "" in words:
        return sweep(dataclasses.replace(words[""], baseline=baseline))
    return sweep_all(words, baseline)


@contextmanager
def looked_at_elsewhere(asked: Options) -> Iterator[Elsewhere | None]:
    """Where modules of the user's own are looked at with `--isolate process`; None where that is here."""
    if asked.isolate != "process":
        yield None
        return
    from afftool.bench.elsewhere import Elsewhere

    with closing(Elsewhere(asked.timeout_s)) as elsewhere:
        yield elsewhere


def make_ready(
    planned: Sweep, words: Mapping[str, Words], baseline: str, elsewhere: Elsewhere | None, device: str
) -> Sweep:
    """The cases on their device, once the user's own modules are known to be there. Imports torch.

    Raises `LoadError` for what cannot be loaded or built, or is no module, before anything is measured or stored. What
    ends the process `elsewhere` is left for its rows to say.
    """
    if elsewhere is not None:
        placed = _settled(planned, words, baseline, elsewhere.settled).on_device(resolve_device(device))
        elsewhere.check(placed.cases)
        return placed
    from afftool.build import check_buildable
    from afftool.fusion.own import say_assumptions, settled

    planned = _settled(planned, words, baseline, settled)
    say_assumptions()
    for target in dict.fromkeys(target for case in planned.cases for target in case.own_targets):
        load(target)
    placed = planned.on_device(resolve_device(device))
    check_buildable(placed.cases)
    say_assumptions()
    return placed


def _settled(
    planned: Sweep, words: Mapping[str, Words], baseline: str, settle: Callable[[FusionSpec], FusionSpec]
) -> Sweep:
    """The sweep once the user's own modules have said how many maps they take, and what has no baseline is told.

    Raises what `sweep` and `settle` do.
    """
    if any(case.fusion.target for case in planned.cases):
        found = {
            where: dataclasses.replace(one, fusion=[settle(fusion).text for fusion in parse_fusions(one.fusion)])
            for where, one in words.items()
        }
        planned = plan(found, baseline)
        for line in without_baseline((case.fusion for case in planned.cases), planned.baseline):
            console.note(line)
    return planned


def bare_cases(placed: Sweep, elsewhere: Elsewhere | None) -> tuple[CaseSpec, ...]:
    """The bare fusions at the shapes where grafted networks fuse, which are measured beside; told if there are any."""
    if all(case.host.graft is None for case in placed.cases):
        return ()
    from afftool.bench.in_context import alone, places

    asked_for = {case.identity for case in placed.cases}
    found = alone(placed.cases, elsewhere.places if elsewhere else places)
    shapes = len({(case.fusion.inputs, case.channels, case.size) for case in found})
    if found:
        console.note(
            f"measuring the bare fusions at the {shapes} shape{'s' if shapes > 1 else ''} of its sites too, to tell "
            "what they cost in context; --no-alone leaves them out"
        )
    return tuple(case for case in found if case.identity not in asked_for)
