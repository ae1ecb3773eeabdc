"""How many cores are free for a measurement right now, and with how many threads torch should use them.

Threads of one operator wait for each other at its end. One that has no core of its own waits for the scheduler's turn,
milliseconds at a time, and all others wait with it: a step of 2 ms becomes one of 60, or of 600.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Asked = int | Literal["auto"] | None
"""The threads asked for: so many, as many as cores are free, or nothing said."""

LOOK_S = 0.2
LOOKS = 3
"""What is over before the last of so many looks does not count: it was a moment's work."""
IDLE_SHARE = 0.1
"""A core that others use less than this is left alone: on many cores such crumbs would add up to whole ones."""
TAKEN_SHARE = 0.5
"""Half a core's work, and more, takes one core away."""


@dataclass(frozen=True)
class CoreTicks:
    """Seconds that each core has been busy with anything so far, and this process; `taken` is when it was read."""

    busy_s: Mapping[int, float]
    own_s: float
    taken: float


@dataclass(frozen=True)
class Room:
    """The cores that this process may use, how many of them other processes keep busy, and the quota it has of them.

    `cores` are whole ones: two that share their units (hyperthreads) count once. `quota` is None where there is none.
    """

    cores: int
    others: float
    quota: float | None = None

    @property
    def taken(self) -> int:
        """How many cores others have for themselves."""
        return min(self.cores, math.ceil(self.others - TAKEN_SHARE)) if self.others > TAKEN_SHARE else 0

    @property
    def free(self) -> int:
        """For how many threads there is a core each; one, if there is none."""
        return max(1, min(self.cores - self.taken, math.floor(self.quota or self.cores)))


def allowed() -> frozenset[int] | None:
    """The numbers of the cores that this process may use; None where the system does not tell."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return frozenset(affinity(0)) if affinity else None


def room(
    *, read: Callable[[], CoreTicks | None] | None = None, wait: Callable[[float], None] = time.sleep
) -> Room | None:
    """The room there is now, seen over a fifth of a second, or three of them if it is not all there; None if unknown.

    `read` tells the cores' time so far, `wait` lets some pass.
    """
    look, siblings, quota = read or read_cores, _siblings(), _quota()
    best: Room | None = None
    before = look()
    for _ in range(LOOKS):
        wait(LOOK_S)
        after = look()
        if before is None or after is None:
            return None
        seen = room_between(before, after, siblings, quota)
        best = seen if best is None or seen.others < best.others else best
        if not best.taken:
            break
        before = after
    return best


def room_between(
    before: CoreTicks, after: CoreTicks, siblings: Collection[Collection[int]] = (), quota: float | None = None
) -> Room:
    """The room between two looks; `siblings` are cores that share their units. Pure."""
    seconds = after.taken - before.taken
    shared = {core: min(group) for group in siblings for core in group}
    used: dict[int, float] = defaultdict(float)
    for core, busy_s in after.busy_s.items():
        one = shared.get(core, core)
        used[one] = max(used[one], (busy_s - before.busy_s.get(core, busy_s)) / seconds if seconds > 0 else 0.0)
    theirs = sum(share for share in used.values() if share > IDLE_SHARE)
    own = (after.own_s - before.own_s) / seconds if seconds > 0 else 0.0
    return Room(max(1, len(used)), max(0.0, theirs - own), quota)


@dataclass(frozen=True)
class Threads:
    """How many threads are used, and what there is to say about it (empty if nothing)."""

    number: int
    note: str = ""


def choose(asked: Asked, usual: int, there: Room | None, *, told_outside: bool = False) -> Threads:
    """The threads for what was `asked`, where torch would use `usual` ones. Pure.

    Nothing asked is `auto`, unless the user told torch by a variable (`told_outside`). A number that the user chose is
    never changed, only spoken about.
    """
    fixed = asked if isinstance(asked, int) else usual if asked is None and told_outside else None
    why = _in_the_way(there) if there else ""
    if there is None or not why:
        return Threads(fixed or usual)
    # where torch counts what a core shares as cores too, its threads shrink as the cores do
    fitting = there.free if usual <= there.cores else max(1, usual * there.free // there.cores)
    number = fixed or min(usual, fitting)
    if number > fitting:
        return Threads(
            number,
            f"{why}, and {number} threads will wait for each other: times and their intervals will be wide; stop other "
            f"work, or use --threads auto (now {fitting})",
        )
    if number < usual and fixed is None:
        threads = "1 thread" if number == 1 else f"{number} threads"
        why += f": measuring with {threads} where torch would use {usual} (--threads {usual} insists)"
    if there.taken == there.cores:
        return Threads(
            number,
            f"{why}; no core is free, so times hold the wait for one, long steps more than short ones; stop other work",
        )
    return Threads(number, why if number < usual and fixed is None else f"{why}; times may be disturbed by it")


def _in_the_way(there: Room) -> str:
    """What keeps this process from using all cores; empty if nothing does."""
    if there.quota is not None and math.floor(there.quota) < there.cores - there.taken:
        return f"the container may use {there.quota:.3g} of {there.cores} cores"
    return busy_in_words(there) if there.taken else ""


def busy_in_words(there: Room) -> str:
    """`other processes keep 1 of 2 cores busy`."""
    return f"other processes keep {there.taken} of {there.cores} cores busy"


def told_outside() -> bool:
    """Whether a variable of the shell tells torch how many threads to use."""
    return any(os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def read_cores() -> CoreTicks | None:
    """The time of the cores this process may use, so far; None where there is no /proc."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        return parse_cores(
            lines, allowed(), os.sysconf("SC_CLK_TCK"), own_s=time.process_time(), taken=time.monotonic()
        )
    except (OSError, ValueError):
        return None


def parse_cores(
    lines: Collection[str], among: Collection[int] | None, hertz: int, *, own_s: float, taken: float
) -> CoreTicks | None:
    """Read /proc/stat's lines, of the cores `among` those wanted (None: all); None if there are none of them. Pure."""
    busy: dict[int, float] = {}
    for name, *words in (line.split() for line in lines if line.startswith("cpu")):
        number = name.removeprefix("cpu")
        if number.isdigit() and (among is None or int(number) in among):
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in words[:8])
            busy[int(number)] = (user + nice + system + irq + softirq + steal) / hertz
    return CoreTicks(busy, own_s, taken) if busy else None


def _siblings() -> list[list[int]]:
    """The cores that share their units, as far as the system tells."""
    found = set()
    for core in allowed() or ():
        try:
            found.add(Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            return []
    return [_numbers(text) for text in found]


def _numbers(text: str) -> list[int]:
    """`0-2,7` as 0, 1, 2, 7."""
    ends = [part.partition("-") for part in text.split(",") if part]
    return [number for low, _, high in ends for number in range(int(low), int(high or low) + 1)]


def _quota() -> float | None:
    """The cores' worth of time that the container may use (cgroup v2 or v1); None if it is not limited."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join(Path("/sys/fs/cgroup", name).read_text() for name in names).split()
            quota, period = (int(word) for word in words)
        except (OSError, ValueError):  # "max" among them
            continue
        return quota / period if quota > 0 and period > 0 else None
    return None
