"""`afftool doctor`: what this machine can measure, what is missing, and with --calibrate what it can reach."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afftool import console, units
from afftool.cli import options
from afftool.cli.threads import use_threads
from afftool.device import check_device, resolve_device
from afftool.formats.json import json_text

if TYPE_CHECKING:
    from afftool.measure.ceilings.roofline import Ceilings
    from afftool.record import Environment


def doctor(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine's ceilings and keep them beside the store.")
    ] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.Json = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Tell what this machine can measure and what is missing."""
    check_device(device)
    from afftool import environment
    from afftool.doctor import checks as all_checks
    from afftool.measure.ceilings.roofline import CeilingsFile

    kept = CeilingsFile.beside(store)
    place = resolve_device(device)
    if threads:
        use_threads(threads, place)
    machine = environment.read(place)
    checks = list(all_checks())
    if calibrate:
        from afftool.measure.ceilings.calibrate import calibrate as measure_ceilings

        console.note("measuring bandwidth, matrix rates and launch cost; leave the machine alone for some seconds")
        kept = kept.keep(machine.fingerprint, measure_ceilings(place))
    ceilings = kept.find(machine.fingerprint, place)
    if as_json:
        found = {
            "environment": machine.to_dict(),
            "fingerprint": machine.fingerprint,
            "checks": [dataclasses.asdict(check) for check in checks],
            "ceilings": dataclasses.asdict(ceilings) if ceilings else None,
        }
        console.write(json_text(found))
        return
    _print_machine(machine)
    console.out("\nChecks")
    width = max(len(check.name) for check in checks)
    for check in checks:
        console.out(f"  {check.state.ljust(7)}  {check.name.ljust(width)}  {check.found}")
        if check.advice:
            console.out(f"  {' ' * (9 + width)}  -> {check.advice}")
    _print_ceilings(ceilings, kept.path, kept.other_threads(machine, place))


def _print_machine(machine: Environment) -> None:
    from afftool.report.lines import machine as hardware
    from afftool.report.lines import software

    rows = [("machine", hardware(machine)), ("software", software(machine)), ("fingerprint", machine.fingerprint)]
    console.pairs(rows)


def _print_ceilings(ceilings: Ceilings | None, path: Path, others: tuple[int, ...]) -> None:
    """What the machine can reach, if it was ever measured; `others` are numbers of threads it was measured with."""
    if ceilings is None:
        with_others = f" with so many threads (but with {', '.join(map(str, others))})" if others else ""
        console.out(f"\nCeilings: not measured{with_others}")
        console.out("  -> `afftool doctor --calibrate` measures them; then every timed row says what bounds it")
        return
    console.out(f"\nCeilings of {ceilings.device}, measured {ceilings.taken}, kept in {path}")
    rows: list[tuple[str, str]] = [
        (f"bandwidth at {units.data(size)}", f"{units.data(rate)}/s") for size, rate in ceilings.bandwidths
    ]
    rows += [
        (f"{dtype} matrix rate", units.scaled(rate, "FLOP/s") + _reached_by(dtype, ceilings))
        for dtype, rate in ceilings.flops_per_s.items()
    ]
    rows += [("launching one operator", units.milliseconds(ceilings.launch_s * 1e3))]
    if ceilings.graph_launch_s is not None:
        rows += [("the same in a CUDA graph", units.milliseconds(ceilings.graph_launch_s * 1e3))]
    console.pairs(rows, indent=2)


def _reached_by(dtype: str, ceilings: Ceilings) -> str:
    """` (at 4096x4096, in TF32)`, as far as it is known."""
    side, rounding = ceilings.matrix_sides.get(dtype), ceilings.float32_rounding
    how = [f"at {side}x{side}"] if side else []
    how += [f"in {rounding.upper()}"] if dtype == "float32" and rounding not in (None, "ieee") else []
    return f" ({', '.join(how)})" if how else ""
