"""The bench against `torch.utils.benchmark` as both are used: each in fresh processes, with nothing set.

    python scripts/fresh_agreement.py [--processes 15] [--budget 1] [--threads N]

The first part of `scripts/agreement.py`, and a script of its own. Processes that do the same differ, since the C
library gives memory back as it likes, so many a side are compared, alternated. Where their times form two groups, it is
group against group.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from afftool.bench import Options, bench
from afftool.patterns import two_groups
from afftool.spec import CaseSpec, FusionSpec

Setting = tuple[str, int, int, int, str]
"""Fusion, channels, height and width, batch, backend."""
CASES: tuple[Setting, ...] = (
    ("add", 64, 56, 8, "eager"),
    ("aff", 64, 56, 8, "eager"),
    ("aff", 64, 56, 8, "compile"),
    ("aff", 48, 40, 8, "eager"),
    ("aff", 160, 18, 8, "eager"),
    ("iaff", 160, 18, 8, "eager"),
)
CASES_SMALL: tuple[Setting, ...] = (("aff", 8, 6, 2, "eager"),)
PROCESSES = 15
FRESH_WITHIN = 0.15
SELDOM = 0.2
"""A group that one side has in no more of its processes may be missing on the other by chance (3.5%)."""
THEIRS = """
import resource, sys, torch
from torch.utils.benchmark import Timer
from afftool.fusion import build_fusion

fusion, backend = sys.argv[1:3]
channels, edge, batch, threads = map(int, sys.argv[3:7])
torch.set_num_threads(threads)
module = build_fusion(fusion, channels=channels).eval()
x, y = torch.randn(batch, channels, edge, edge), torch.randn(batch, channels, edge, edge)
call = torch.compile(module) if backend == "compile" else module
with torch.inference_mode():
    call(x, y)
    timer = Timer("call(x, y)", globals={"call": call, "x": x, "y": y}, num_threads=threads)
    measured = timer.blocked_autorange(min_run_time=float(sys.argv[7]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        call(x, y)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(measured.median * 1e3, faults / 10)
"""
"""What a user runs: nothing set, and nothing of afftool's but the module."""


@dataclass(frozen=True)
class Side:
    """What the processes of one side took, in milliseconds, and the page faults of a step in each."""

    times_ms: tuple[float, ...]
    faults: tuple[float, ...]

    def part(self, slow: bool, above_ms: float) -> Side:
        """Those of one group: the times above so many milliseconds, or the others."""
        kept = [pair for pair in zip(self.times_ms, self.faults, strict=True) if (pair[0] > above_ms) == slow]
        return Side(tuple(time for time, _ in kept), tuple(faults for _, faults in kept))

    def cells(self, of: int) -> str:
        """Median, share and page faults, for a table."""
        if not self.times_ms:
            return "none | 0% | none"
        faults = f"{min(self.faults):,.0f} to {max(self.faults):,.0f}"
        return f"{statistics.median(self.times_ms):.4f} | {len(self.times_ms) / of:.0%} | {faults}"


def in_fresh_processes(cases: Sequence[Setting], processes: int, budget_s: float) -> list[str]:
    """A section on cases under their backends: a line a case and group, and how many of the cases agree."""
    lines = [
        "| fusion | C, H = W, N | backend | afftool ms | share | page faults | blocked_autorange ms | share "
        f"| page faults | ratio | within {FRESH_WITHIN:.0%} |",
        "|" + " --- |" * 11,
    ]
    agreed = 0
    for fusion, channels, edge, batch, backend in cases:
        spec = CaseSpec(
            fusion=FusionSpec.parse(fusion), channels=channels, size=(edge, edge), batch=batch, device="cpu"
        )
        taken = [(_ours(spec, backend, budget_s), _theirs(spec, backend, budget_s)) for _ in range(processes)]
        mine, other = (Side(*zip(*side, strict=True)) for side in zip(*taken, strict=True))
        groups = two_groups([*mine.times_ms, *other.times_ms])
        cut = (groups.low + groups.high) / 2 if groups else math.inf
        right = True
        for slow in (False, True) if groups else (False,):
            a, b = mine.part(slow, cut), other.part(slow, cut)
            ratio = statistics.median(a.times_ms) / statistics.median(b.times_ms) if a.times_ms and b.times_ms else None
            seldom = max(len(a.times_ms), len(b.times_ms)) <= SELDOM * processes
            agrees = seldom if ratio is None else abs(ratio - 1) <= FRESH_WITHIN
            right = right and agrees
            setting = f"{spec.fusion} | {spec.channels}, {spec.size[0]}, {spec.batch} | {backend}"
            verdict = f"{'none' if ratio is None else f'{ratio:.3f}'} | {'yes' if agrees else 'no'}"
            lines.append(f"| {setting} | {a.cells(processes)} | {b.cells(processes)} | {verdict} |")
            print(lines[-1], file=sys.stderr, flush=True)
        agreed += right
    return [
        f"## In fresh processes, nothing set: {agreed} of {len(cases)} within {FRESH_WITHIN:.0%}",
        "",
        f"Float32, inference, {processes} processes a side, alternated; each line is a group of processes, with its "
        "share on either side. Page faults are those of a step.",
        "",
        *lines,
        "",
    ]


def _ours(spec: CaseSpec, backend: str, budget_s: float) -> tuple[float, float]:
    """The bench's milliseconds and page faults a step, from one fresh process of its."""
    options = Options(measures=("latency",), backends=(backend,), budget_s=budget_s, baseline=None, processes=1)
    (record,) = bench([spec], options)
    assert record.latency_ms is not None, record.reason
    return record.latency_ms, record.page_faults or 0.0


def _theirs(spec: CaseSpec, backend: str, budget_s: float) -> tuple[float, float]:
    """Those of `blocked_autorange` in a script of its own."""
    words = [spec.fusion.text, backend, spec.channels, spec.size[0], spec.batch, torch.get_num_threads(), budget_s]
    command = [sys.executable, "-c", THEIRS, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    time_ms, faults = map(float, done.stdout.split())
    return time_ms, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=PROCESSES, help="fresh ones a side and case")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of timing a process")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print("\n".join(in_fresh_processes(CASES, chosen.processes, chosen.budget)))


if __name__ == "__main__":
    main()
