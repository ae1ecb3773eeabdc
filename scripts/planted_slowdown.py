"""Is a tenth more work seen? A fusion and one that does 10% more, raced again and again.

    python scripts/planted_slowdown.py [--out reports/planted_slowdown.md] [--budget 4] [--runs 30] [--processes 5]
        [--threads N]

Each run builds both anew and benches them in turns, in fresh processes, as `bench` does by itself. The slowdown is seen
if the ratio's whole 95% interval lies above 1; in how many runs it must be is decided beforehand, so that one that is
seen in 80% alone seldom passes. Wants an idle machine, and says so in its output if it had none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from datetime import date
from pathlib import Path

import torch
from torch import nn

from afftool import environment
from afftool.bench import Options, bench
from afftool.spec import CaseSpec, FusionSpec

sys.path.insert(0, str(Path(__file__).parent))  # for `refereed`, and so that the bench finds `planted_slowdown:Base`
from refereed.plan import Plan

WORK = 20


class Base(nn.Module):
    """A fusion whose time is that of `rounds` equal matrix products."""

    rounds = WORK

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = (x + y).flatten(2).transpose(1, 2)
        for _ in range(self.rounds):
            z = z @ self.weight
        return z.transpose(1, 2).reshape(x.shape)


class Slower(Base):
    """A tenth more of them."""

    rounds = WORK + WORK // 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/planted_slowdown.md"))
    parser.add_argument("--budget", type=float, default=4.0, help="seconds of timing a run")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--processes", type=int, default=Options.processes, help="fresh ones a row and run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    here, load = environment.read("cpu"), environment.load_per_core()
    lines = ["| run | ratio | 95% interval | width | seen | rounds | unsteady |", "|" + " --- |" * 7]
    plan, seen = Plan(chosen.runs, poor=0.8), 0
    widths = []
    for run in range(chosen.runs):
        cases = [
            CaseSpec(fusion=FusionSpec.parse(f"planted_slowdown:{name}"), channels=64, size=(28, 28), batch=4)
            for name in ("Base", "Slower")
        ]
        _, slower = bench(
            cases,
            Options(
                measures=("latency",),
                budget_s=chosen.budget,
                processes=chosen.processes,
                baseline=FusionSpec.parse("planted_slowdown:Base"),
            ),
        )
        low, high = slower.latency_ratio_low or 0.0, slower.latency_ratio_high or float("inf")
        seen += low > 1
        widths.append(high - low)
        lines.append(
            f"| {run + 1} | {slower.latency_ratio or 0:.4f} | {low:.4f} to {high:.4f} | {high - low:.2%} "
            f"| {'yes' if low > 1 else 'no'} | {slower.samples} | {', '.join(slower.instability or {}) or 'no'} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    text = [
        "# A planted slowdown of a tenth",
        "",
        f"`python scripts/planted_slowdown.py --budget {chosen.budget:g} --runs {chosen.runs} "
        f"--processes {chosen.processes} --threads {chosen.threads}`",
        "",
        f"{here.cpu}, {here.threads} of {here.cores} cores, torch {here.torch}, {here.platform}, {date.today()}; "
        f"load per core at the start {load if load is None else round(load, 2)}.",
        "",
        f"{WORK} matrix products against {WORK + WORK // 10}, the rest of the step alike. Is it seen? {plan.words()}",
        "",
        f"It {plan.verdict(seen)} Half of the intervals are no wider than {statistics.median(widths):.1%}.",
        "",
        *lines,
    ]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
