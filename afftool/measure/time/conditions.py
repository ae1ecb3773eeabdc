"""What was unsteady about a timing, by name, with advice: in its samples, and in what the machine did besides.

Other processes, a throttled processor, a shared GPU are looked for while cases are timed. Nothing is dropped for any of
it; it is stored with the record.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afftool import patterns, stats
from afftool.device import gpu_index
from afftool.measure.time.race import OVERHEAD_SHARE, LatencyReading
from afftool.nvml import Gpu

SPREAD = 0.05
DRIFT = 0.02
LEVELS = 0.03
OUTLIERS = 0.05


@dataclass(frozen=True)
class Disturbance:
    """What disturbed a timing and what to do, in words, and how much: the more the worse, among those of its kind."""

    text: str
    figure: float = 0.0


def worst_of(several: Iterable[Mapping[str, Disturbance]]) -> dict[str, Disturbance]:
    """What disturbed any of several, by name: where several were, as the one it disturbed most."""
    worst: dict[str, Disturbance] = {}
    for found in several:
        for kind, one in found.items():
            worst[kind] = max(worst.get(kind, one), one, key=lambda disturbance: disturbance.figure)
    return worst


def told(found: Mapping[str, Disturbance]) -> dict[str, Any]:
    """What was found, as the fields of a record."""
    return {
        "instability": {kind: one.text for kind, one in found.items()},
        "instability_figures": {kind: one.figure for kind, one in found.items()},
    }


def instability(reading: LatencyReading, precision: float, cache: str = "warm") -> dict[str, Disturbance]:
    """Name of each disturbance found in the samples -> what it is and what to do; empty if they are steady.

    With a cold `cache` the clock is read around every step, otherwise around all steps of a sample.
    """
    samples = reading.samples_s
    found: dict[str, Disturbance] = {}
    interval = stats.series_interval(samples)
    middle = stats.median(samples)
    if interval is None:
        found["few samples"] = Disturbance(
            f"{len(samples)} samples give no 95% interval, which takes {stats.FEWEST}; raise --budget",
            1 / max(1, len(samples)),
        )
    elif reading.stopped == "budget":
        found["imprecise"] = Disturbance(
            f"the budget ended at ±{interval.half_width:.1%} where ±{precision:.1%} was asked for; "
            "raise --budget or --precision",
            interval.half_width,
        )
    if not reading.settled:
        found["warm-up"] = Disturbance(
            "the times had not settled when warm-up ran out of its share of the budget; raise --budget"
        )
    spread = stats.iqr(samples)
    if spread is not None and middle and spread / middle > SPREAD:
        found["spread"] = Disturbance(
            f"the middle half of the samples spans {spread / middle:.0%} of the median; "
            "stop other work, pin the process (taskset), or time more steps at once with a larger --batch",
            spread / middle,
        )
    change = patterns.drift(samples)
    if change is not None and abs(change) > DRIFT:
        found["drift"] = Disturbance(
            f"the last third is {abs(change):.1%} {'slower' if change > 0 else 'faster'} than the first: a clock or a "
            "temperature that moves; compare by latency_ratio, whose rounds drifted alike, or let the machine settle",
            abs(change),
        )
    levels = patterns.modes(samples)
    if levels and levels[1] / levels[0] - 1 > LEVELS:
        found["two levels"] = Disturbance(
            f"the samples jump between {levels[0] * 1e3:.4g} and {levels[1] * 1e3:.4g} ms; the median says little: "
            "look for clock switching, a second socket (numactl) or threads that share a core",
            levels[1] / levels[0],
        )
    far = sum(patterns.outliers(samples))
    if far > OUTLIERS * len(samples):
        found["outliers"] = Disturbance(
            f"{far} of {len(samples)} samples lie far outside the rest; something else runs at times on this machine",
            far / len(samples),
        )
    steps = 1 if cache == "cold" else reading.steps_per_sample
    share = reading.overhead_s / (middle * steps) if middle else 0.0
    if share > OVERHEAD_SHARE:
        found["clock"] = Disturbance(
            f"the clock and the call leave an error of {share:.1%} of a sample; with --cache cold steps are timed "
            "one by one, so make them longer with a larger --size or --batch",
            share,
        )
    return found


OTHERS_SHARE = 0.05
OTHERS_CORES = 0.25
"""Others' work disturbs by the cores it takes: a quarter of one, or a smaller share of a small machine."""
STEAL_SHARE = 0.01
THROTTLED_SHARE = 0.01


@dataclass(frozen=True)
class Ticks:
    """Processor time so far, in clock ticks: of all processes, stolen by the hypervisor, and of ours."""

    busy: int
    stolen: int
    own: int
    throttled_us: int
    taken: float


class Watch:
    """Watches from its making to `findings()`, for cases timed in the processes `pids` on `device`.

    Where the system tells nothing (no Linux, no NVML), nothing is found.
    """

    def __init__(self, device: str, pids: Sequence[int], *, now: Callable[[], float] = time.monotonic) -> None:
        self._pids = sorted({os.getpid(), *pids})
        self._on_gpu = len(pids) if pids and not uses_gpu(device) else len(self._pids)
        self._start = read_ticks(self._pids)
        self._gpu = Gpu.of(device)
        self._now = now
        self._begun = now()
        self._throttled_ns = self._gpu.throttled_ns() if self._gpu else {}
        self._throttling: set[str] = set()
        self._strangers = 0

    def look(self) -> None:
        """Ask the GPU how it is doing right now; to be called while cases are being timed."""
        if self._gpu:
            self._throttling |= self._gpu.throttling()
            self._strangers = max(self._strangers, self._gpu.processes() - self._on_gpu)

    def findings(self) -> dict[str, Disturbance]:
        """Name of each disturbance -> what it is and what to do."""
        found = disturbances(self._start, read_ticks(self._pids), os.cpu_count() or 1)
        shares = self._throttled_shares()
        if causes := throttled(shares, self._throttling):
            found["throttled GPU"] = Disturbance(
                f"the GPU lowered its clocks ({', '.join(causes)}); cool it, raise its power limit, or hold its clock "
                "where it can stay (--lock-clocks base)",
                max(shares.values(), default=0.0),
            )
        if self._strangers > 0:
            found["shared GPU"] = Disturbance(
                f"{self._strangers} more processes used the GPU; stop them or take another GPU", self._strangers
            )
        return found

    def _throttled_shares(self) -> dict[str, float]:
        """Each cause of throttling that the GPU counts -> its share of the time since this began."""
        taken_ns = (self._now() - self._begun) * 1e9
        if not self._gpu or taken_ns <= 0:
            return {}
        ended = self._gpu.throttled_ns()
        return {
            cause: (ended[cause] - start) / taken_ns for cause, start in self._throttled_ns.items() if cause in ended
        }


def throttled(shares: Mapping[str, float], seen: Collection[str]) -> list[str]:
    """What held the clocks back, in words: by the share of the time it was counted for, or `seen` at some moment.

    The moments are those between two rounds, when the GPU is idle, so a counter is believed before them, unless it
    stood still: not every board counts every cause. Pure.
    """
    counted = [f"{cause} for {share:.0%} of the time" for cause, share in shares.items() if share > THROTTLED_SHARE]
    return counted + sorted(cause for cause in seen if not shares.get(cause))


def uses_gpu(device: str) -> bool:
    """Whether this process computes on the CUDA `device`: one that only waits for its children may hold no context."""
    if not device.startswith("cuda"):
        return False
    holds = getattr(torch._C, "_cuda_hasPrimaryContext", None)
    try:
        return bool(holds(gpu_index(device))) if holds else bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    except RuntimeError:  # a device that no longer answers this process: there is a context, and a kernel failed in it
        return True


def disturbances(start: Ticks | None, end: Ticks | None, cores: int) -> dict[str, Disturbance]:
    """What the difference of two looks at the processor's time says. Pure."""
    if start is None or end is None or end.taken <= start.taken:
        return {}
    found: dict[str, Disturbance] = {}
    core = (end.taken - start.taken) * os.sysconf("SC_CLK_TCK")
    capacity = core * cores
    others = (end.busy - start.busy - (end.own - start.own)) / core
    if others > min(OTHERS_CORES, OTHERS_SHARE * cores):
        found["busy machine"] = Disturbance(
            f"other processes kept {others:.2g} of {cores} cores busy meanwhile; stop them, leave them their cores "
            "(--threads auto), or compare by latency_ratio",
            others,
        )
    stolen = (end.stolen - start.stolen) / capacity
    if stolen > STEAL_SHARE:
        found["stolen time"] = Disturbance(
            f"the hypervisor gave {stolen:.0%} of the processor to others; use a dedicated machine", stolen
        )
    stopped_s = (end.throttled_us - start.throttled_us) / 1e6
    if stopped_s > 0:
        found["throttled processor"] = Disturbance(
            f"the container's quota stopped it for {stopped_s:.2g} s; raise the quota or use fewer threads (--threads)",
            stopped_s,
        )
    return found


def read_ticks(pids: Sequence[int]) -> Ticks | None:
    """A look at /proc; None where there is none."""
    try:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    own = sum(_process_ticks(pid) for pid in pids)
    return Ticks(user + nice + system + irq + softirq, steal, own, _throttled_us(), time.monotonic())


def _process_ticks(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(words[11]) + int(words[12])


def _throttled_us() -> int:
    try:
        lines = Path("/sys/fs/cgroup/cpu.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("throttled_usec"))
