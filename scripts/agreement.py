"""Does the bench agree with `torch.utils.benchmark`, and with itself?

    python scripts/agreement.py [--out reports/agreement.md] [--budget 6] [--repeats 60] [--threads N] [--device cpu]

First as both are used: in fresh processes with nothing set, on the CPU. Processes that do the same differ, since the C
library gives memory back as it likes, so fifteen a side are compared, alternated; where their times form two groups,
each group's median should agree within 15%, and its share on either side is said.

Then with freed memory kept, the median of `afftool.bench` against that of `blocked_autorange` for the same module,
input and threads, alternated in one process, five fusions in two sizes: at least 9 of 10 should agree within 5%. The
same means the same tensors: large maps at other addresses can take half as long again, and that is no matter of
method. Each turn of both gives a ratio, and the median of these is judged, because a shared machine drifts from turn
to turn. Then A/A, in either regime: a fusion against itself under another name, over and over; how often the 95%
interval of the ratio must hold 1 is decided beforehand, so that intervals that hold the truth in 85% alone seldom pass.
Some 25 minutes of an idle machine, and says in its output if it had none; `--repeats` is what takes the most of it.

On a GPU the bench with emptied caches stands beside `triton.testing.do_bench` too, which empties them as well. That
queues its calls behind the flush, and so hides what launching them takes: the two agree where the kernels take longer.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils.benchmark import Timer

from afftool import environment
from afftool.backends.workload import Workload
from afftool.bench import Options, bench, place
from afftool.bench.entry import Entrant, enter
from afftool.device import resolve_device
from afftool.fusion import build_fusion
from afftool.measure.time.contestant import Timed
from afftool.record import Cache
from afftool.spec import CaseSpec, FusionSpec
from afftool.spec.options import Regime

sys.path.insert(0, str(Path(__file__).parent))  # for what follows, and so that the bench finds `agreement:One`
from fresh_agreement import CASES, CASES_SMALL, PROCESSES, in_fresh_processes
from refereed.plan import Plan

FUSIONS = ("add", "se", "sk", "aff", "iaff")
Size = tuple[int, int, int]
"""Channels, height and width, batch."""
SIZES: dict[str, tuple[Size, ...]] = {
    "cpu": ((16, 14, 4), (64, 56, 8)),
    "cuda": ((64, 56, 8), (64, 112, 64)),
    "small": ((8, 6, 2),),
}
TURNS = 60
WITHIN = 0.05
ITSELF: Size = (64, 28, 8)
FRESH = 3
"""Processes a row there: fewer than the bench takes by itself, for intervals hold as often with any number of them."""
POOR = 0.85
"""Intervals that hold the truth so seldom are to fail."""


class One(nn.Module):
    """AFF, under a name of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fusion = build_fusion("aff", channels=channels)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fusion(x, y)
        return out


class Other(One):
    """The same."""


def case(fusion: str, size: Size, device: str) -> CaseSpec:
    channels, edge, batch = size
    return CaseSpec(fusion=FusionSpec.parse(fusion), channels=channels, size=(edge, edge), batch=batch, device=device)


class Turns:
    """Turns of the bench, and of others with the module and inputs that the bench has just timed."""

    def __init__(self, spec: CaseSpec, budget_s: float) -> None:
        self._spec = spec
        self._budget_s = budget_s

    def ours(self, cache: Cache = "warm") -> float:
        """Milliseconds of the bench, which builds the case anew."""
        options = Options(measures=("latency",), budget_s=self._budget_s, baseline=None, cache=cache, allocator="kept")
        with mock.patch.object(place, "enter", self._enter):
            (record,) = bench([self._spec], options)
        return record.latency_ms or float("nan")

    def triton(self) -> float:
        """Milliseconds of `do_bench`, which empties the caches before every call."""
        from triton.testing import do_bench

        work = self._work
        with torch.inference_mode():
            return float(
                do_bench(lambda: work.module(*work.inputs), rep=int(1e3 * self._budget_s), return_mode="median")
            )

    def theirs(self) -> float:
        """Milliseconds of `blocked_autorange`."""
        work = self._work
        names = [f"x{i}" for i in range(len(work.inputs))]
        timer = Timer(
            stmt=f"module({', '.join(names)})",
            globals={"module": work.module, **dict(zip(names, work.inputs, strict=True))},
            num_threads=torch.get_num_threads(),
        )
        with torch.inference_mode():
            return float(timer.blocked_autorange(min_run_time=self._budget_s).median) * 1e3

    @property
    def _work(self) -> Workload:
        work = self._prepared.workload
        assert work
        return work

    def _enter(self, *case: Any, **options: Any) -> Entrant:
        entered = enter(*case, **options)
        assert isinstance(entered.contestant, Timed)
        self._prepared = entered.contestant.prepared
        return entered


def agreement(device: str, sizes: Sequence[Size], turns: int, budget_s: float) -> tuple[list[str], dict[str, int]]:
    """A line a fusion and size, and how often each of the others agreed."""
    methods: dict[str, tuple[Cache, Callable[[Turns], float]]] = {"blocked_autorange": ("warm", Turns.theirs)}
    if device.startswith("cuda"):
        methods["do_bench"] = ("cold", Turns.triton)
    agreed = dict.fromkeys(methods, 0)
    lines = [
        f"| fusion | C, H = W, N | cache | afftool ms | the other | ms | ratio | within {WITHIN:.0%} |",
        "|" + " --- |" * 8,
    ]
    for size in sizes:
        for fusion in FUSIONS:
            for name, (cache, method) in methods.items():
                both = Turns(case(fusion, size, device), budget_s / turns)
                mine, other = zip(*((both.ours(cache), method(both)) for _ in range(turns)), strict=True)
                ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
                agrees = abs(ratio - 1) <= WITHIN
                agreed[name] += agrees
                lines.append(
                    f"| {fusion} | {', '.join(map(str, size))} | {cache} | {statistics.median(mine):.4f} | {name} "
                    f"| {statistics.median(other):.4f} | {ratio:.3f} | {'yes' if agrees else 'no'} |"
                )
                print(lines[-1], file=sys.stderr, flush=True)
    return lines, agreed


def against_itself(device: str, repeats: int, budget_s: float, regime: Regime) -> tuple[list[str], int]:
    """A line a repeat, and how many intervals hold 1."""
    lines = ["| repeat | ratio | 95% interval | holds 1 | rounds | unsteady |", "|" + " --- |" * 6]
    held = 0
    for repeat in range(repeats):
        cases = [case(f"agreement:{name}", ITSELF, device) for name in ("One", "Other")]
        _, record = bench(
            cases,
            Options(
                measures=("latency",),
                budget_s=budget_s,
                baseline=FusionSpec.parse("agreement:One"),
                allocator=regime,
                processes=FRESH,
            ),
        )
        low, high = record.latency_ratio_low, record.latency_ratio_high
        holds = low is not None and high is not None and low <= 1 <= high
        held += holds
        interval = "none" if low is None else f"{low:.4f} to {high:.4f}"
        lines.append(
            f"| {repeat + 1} | {record.latency_ratio or 0:.4f} | {interval} | {'yes' if holds else 'no'} "
            f"| {record.samples} | {', '.join(record.instability or {}) or 'no'} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines, held


def a_a(device: str, plan: Plan, budget_s: float, regime: Regime) -> list[str]:
    """A section on a fusion against itself, under the allocator as it comes or with freed memory kept."""
    lines, held = against_itself(device, plan.tries, budget_s, regime)
    how = f"in {FRESH} fresh processes a row" if regime == "system" else "in one process, freed memory kept"
    return [
        f"## A/A, {how}: {plan.verdict(held)}",
        "",
        "AFF (64 channels, 28 x 28, batch 8) against itself under another name, built anew in every repeat; does the "
        f"95% interval of the ratio hold 1? {plan.words()}",
        "",
        *lines,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/agreement.md"))
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of timing a case and method")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--processes", type=int, default=PROCESSES, help="fresh ones a side and case; 0: without these")
    parser.add_argument("--turns", type=int, default=TURNS, help="of the bench and the other, in turns")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--small", action="store_true", help="one small size, to see whether the script works")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = resolve_device(chosen.device)
    here, load = environment.read(device), environment.load_per_core()
    kind = "small" if chosen.small else device.partition(":")[0]
    sizes = SIZES[kind]
    of_a_kind = {"cpu": CASES, "small": CASES_SMALL}.get(kind, ())
    compared = of_a_kind and chosen.processes > 0
    fresh = in_fresh_processes(of_a_kind, chosen.processes, chosen.budget / 12) if compared else []
    rows, agreed = agreement(device, sizes, chosen.turns, chosen.budget)
    plan = Plan(chosen.repeats, poor=POOR)
    regimes: tuple[Regime, ...] = ("system", "kept") if device == "cpu" else ("kept",)
    itself = [line for regime in regimes for line in a_a(device, plan, chosen.budget / 2, regime)]
    cases = len(FUSIONS) * len(sizes)
    text = [
        "# Agreement of the bench with others, and with itself",
        "",
        f"`{shlex.join(['python', 'scripts/agreement.py', *sys.argv[1:]])}`",
        "",
        f"{here.gpu + ', ' if here.gpu and device != 'cpu' else ''}{here.cpu}, {here.threads} of {here.cores} cores, "
        f"torch {here.torch}, {here.platform}, {date.today()}; load per core at the start "
        f"{load if load is None else round(load, 2)}.",
        "",
        *fresh,
        f"## {'; '.join(f'against {name}: {count} of {cases} within {WITHIN:.0%}' for name, count in agreed.items())}",
        "",
        "Eager, float32, inference, freed memory kept, alternated in one process, on the same tensors. Times are "
        f"medians of {chosen.turns} turns, the ratio is the median of those of the turns.",
        "",
        *rows,
        "",
        *itself,
    ]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
