"""The clock of a GPU's multiprocessors held still while something is timed, and put back whatever happens.

A GPU left alone runs as fast as power and temperature allow at the moment, so that times drift and depend on what ran
before. `base` is what the driver calls the TDP clock: the one that the board keeps at any load, so that the power cap
does not move it; a higher one is held only as far as the cap allows. It is what `nvidia-smi -lgc` and `-rgc` do.
Nothing here imports torch before a clock is locked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from afftool import console
from afftool.errors import SpecError, Unavailable, UserError
from afftool.interruption import terminations_raise, uninterrupted
from afftool.nvml import Gpu

BASE = "base"


def check_clock(word: str | None) -> str | None:
    """`base`, or megahertz, as it was given; None for none. Raises `SpecError`; imports nothing."""
    if word is None or word == BASE or (word.isdecimal() and len(word) < 10 and int(word) > 0):
        return word
    raise SpecError(f"--lock-clocks {word[:40]!r} is no clock", hint=f"use {BASE}, or MHz as in --lock-clocks 1410")


@contextmanager
def locked_clock(device: str, word: str | None) -> Iterator[str | None]:
    """Hold the clock of `device` for the block at what `check_clock` let through; gives how it is told, None for none.

    Afterwards the driver chooses again, also where the clock was locked before: NVML tells nobody of that. Raises
    `UserError` before the block where there is no clock to lock, no such clock, or no right to lock it.
    """
    if word is None:
        yield None
        return
    try:
        gpu = Gpu.open(device)
    except Unavailable as missing:
        raise UserError(f"no clock can be locked: {missing.message}", hint=missing.hint) from missing
    mhz = None if word == BASE else int(word)
    if mhz is not None:
        _check_has(gpu, mhz)
    locked = True  # until it is known better: a Ctrl-C may come when the clock is locked and nobody has heard of it
    with terminations_raise():
        try:
            try:
                gpu.lock_clock(mhz)
            except UserError:
                locked = False
                raise
            yield BASE if mhz is None else f"{mhz} MHz"
        finally:
            if locked:
                with uninterrupted():
                    _put_back(gpu)


def _check_has(gpu: Gpu, mhz: int) -> None:
    clocks = gpu.clocks_mhz()
    if clocks and mhz not in clocks:
        below = [clock for clock in clocks if clock < mhz][-1:]
        above = [clock for clock in clocks if clock > mhz][:1]
        raise UserError(
            f"this GPU has no clock of {mhz} MHz", hint=f"the nearest: {' or '.join(map(str, below + above))}"
        )


def _put_back(gpu: Gpu) -> None:
    try:
        gpu.free_clock()
    except UserError as error:
        console.note(f"warning: the GPU's clock is still locked ({error.message}); `sudo nvidia-smi -rgc` frees it")
