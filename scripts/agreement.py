"""Does the bench agree with `torch.utils.benchmark`, and with itself?

    python scripts/agreement.py [--out reports/agreement.md] [--budget 6] [--repeats 20] [--threads N]

First, the median of `afftool.bench` against that of `blocked_autorange` for the same module, input and threads,
alternated in one process, five fusions in two sizes: at least 9 of 10 should agree within 5%. The same means the same
tensors: large maps at other addresses can take half as long again, and that is no matter of method. Each turn of both
gives a ratio, and the median of these is judged, because a shared machine drifts from turn to turn. Then A/A: a fusion
against itself under another name, over and over; the 95% interval of the ratio should hold 1 in at least 18 of 20.
Wants an idle machine, and says so in its output if it had none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils.benchmark import Timer

from afftool import environment
from afftool.bench import Options, bench, run
from afftool.bench.entry import Entrant, enter
from afftool.fusion import build_fusion
from afftool.measure.time.contestant import Timed
from afftool.spec import CaseSpec, FusionSpec

FUSIONS = ("add", "se", "sk", "aff", "iaff")
SIZES = ((16, 14, 4), (64, 56, 8))
"""Channels, height and width, batch."""
TURNS = 60
WITHIN = 0.05


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


def case(fusion: str, channels: int, size: int, batch: int) -> CaseSpec:
    return CaseSpec(fusion=FusionSpec.parse(fusion), channels=channels, size=(size, size), batch=batch)


class Turns:
    """Turns of the bench, and of `blocked_autorange` with the module and inputs that the bench has just timed."""

    def __init__(self, spec: CaseSpec, budget_s: float) -> None:
        self._spec = spec
        self._budget_s = budget_s

    def ours(self) -> float:
        """Milliseconds of the bench, which builds the case anew."""
        with mock.patch.object(run, "enter", self._enter):
            (record,) = bench([self._spec], Options(measures=("latency",), budget_s=self._budget_s, baseline=None))
        return record.latency_ms or float("nan")

    def theirs(self) -> float:
        """Milliseconds of `blocked_autorange`."""
        work = self._prepared.workload
        assert work
        names = [f"x{i}" for i in range(len(work.inputs))]
        timer = Timer(
            stmt=f"module({', '.join(names)})",
            globals={"module": work.module, **dict(zip(names, work.inputs, strict=True))},
            num_threads=torch.get_num_threads(),
        )
        with torch.inference_mode():
            return float(timer.blocked_autorange(min_run_time=self._budget_s).median) * 1e3

    def _enter(self, *case: Any, **options: Any) -> Entrant:
        entered = enter(*case, **options)
        assert isinstance(entered.contestant, Timed)
        self._prepared = entered.contestant.prepared
        return entered


def agreement(budget_s: float) -> tuple[list[str], int]:
    lines = ["| fusion | C, H = W, N | afftool ms | blocked_autorange ms | ratio | within 5% |", "|" + " --- |" * 6]
    agreed = 0
    for channels, size, batch in SIZES:
        for fusion in FUSIONS:
            turns = Turns(case(fusion, channels, size, batch), budget_s / TURNS)
            mine, other = zip(*((turns.ours(), turns.theirs()) for _ in range(TURNS)), strict=True)
            ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
            agrees = abs(ratio - 1) <= WITHIN
            agreed += agrees
            lines.append(
                f"| {fusion} | {channels}, {size}, {batch} | {statistics.median(mine):.4f} "
                f"| {statistics.median(other):.4f} | {ratio:.3f} | {'yes' if agrees else 'no'} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return lines, agreed


def against_itself(repeats: int, budget_s: float) -> tuple[list[str], int]:
    lines = ["| repeat | ratio | 95% interval | holds 1 | rounds | unsteady |", "|" + " --- |" * 6]
    held = 0
    for repeat in range(repeats):
        cases = [case(f"agreement:{name}", 64, 28, 8) for name in ("One", "Other")]
        _, record = bench(
            cases, Options(measures=("latency",), budget_s=budget_s, baseline=FusionSpec.parse("agreement:One"))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/agreement.md"))
    parser.add_argument("--budget", type=float, default=6.0, help="seconds of timing a case and method")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    sys.path.insert(0, str(Path(__file__).parent))  # so that the bench finds `agreement:One`
    here, load = environment.read(), environment.load_per_core()
    rows, agreed = agreement(chosen.budget)
    repeats, held = against_itself(chosen.repeats, chosen.budget)
    text = [
        "# Agreement of the bench with torch.utils.benchmark, and with itself",
        "",
        f"`python scripts/agreement.py --budget {chosen.budget:g} --repeats {chosen.repeats} "
        f"--threads {chosen.threads}`",
        "",
        f"{here.cpu}, {here.threads} of {here.cores} cores, torch {here.torch}, {here.platform}, {date.today()}; "
        f"load per core at the start {load if load is None else round(load, 2)}.",
        "",
        f"## Against blocked_autorange: {agreed} of {len(FUSIONS) * len(SIZES)} within 5%",
        "",
        f"Eager, float32, inference, alternated in one process, on the same tensors. Times are medians of {TURNS} "
        "turns, the ratio is the median of those of the turns.",
        "",
        *rows,
        "",
        f"## A/A: the interval holds 1 in {held} of {chosen.repeats}",
        "",
        "AFF (64 channels, 28 x 28, batch 8) against itself under another name, built anew in every repeat.",
        "",
        *repeats,
    ]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
