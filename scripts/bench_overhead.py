"""What the bench itself costs: wall time outside of first calls, warm-up, compilation and samples.

    python scripts/bench_overhead.py [--out reports/bench_overhead.md] [--budget 10] [--fusions add,se,aff,iaff]

Every call into the measured code is timed from the outside (a sample with the one step that warms the caches before it,
a first call, a compilation); the rest of the wall time is the bench's own, counting the cost and reading the memory
included, as by default. The promise: under 15% of the wall time of a bench of ten seconds.

Counting on the meta device makes torch import its compiler package, once a process. That import is timed apart, before
the bench, as importing torch itself is before it; the share with it is given too.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

from afftool import environment
from afftool.backends import compile as compiled
from afftool.backends import getting_ready
from afftool.bench import Options, bench
from afftool.measure.cost import count as cost
from afftool.measure.memory import peak as memory
from afftool.measure.time.contestant import Timed
from afftool.spec import CaseSpec, FusionSpec

PROMISED = 0.15
"""Of the wall time of a bench of ten seconds."""


def timed(spent: dict[str, float], kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, its wall time added to its kind."""

    @wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[kind] += time.perf_counter() - start

    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/bench_overhead.md"))
    parser.add_argument("--budget", type=float, default=10.0)
    parser.add_argument("--fusions", default="add,se,aff,iaff")
    parser.add_argument("--backends", default="eager,compile")
    chosen = parser.parse_args()
    spent: dict[str, float] = defaultdict(float)
    ours: dict[str, float] = defaultdict(float)
    cost.count = timed(ours, "counting the cost", cost.count)
    memory.measure = timed(ours, "reading eager's memory", memory.measure)
    Timed.sample = timed(spent, "warm-up and samples", Timed.sample)  # type: ignore[method-assign]
    Timed.split = timed(spent, "warm-up and samples", Timed.split)  # type: ignore[method-assign]
    getting_ready.seconds = timed(spent, "first calls and compilation", getting_ready.seconds)
    compiled._start_compiler = timed(spent, "first calls and compilation", compiled._start_compiler)  # type: ignore[assignment]
    cases = [CaseSpec(fusion=FusionSpec.parse(name)) for name in chosen.fusions.split(",")]
    start = time.perf_counter()
    importlib.import_module("torch._dynamo")
    imported = time.perf_counter() - start
    start = time.perf_counter()
    records = list(
        bench(
            cases,
            Options(
                backends=tuple(chosen.backends.split(",")),
                budget_s=chosen.budget,
                precision=1e-4,  # never reached, so that the whole budget is used
            ),
        )
    )
    wall = time.perf_counter() - start
    own = wall - sum(spent.values())
    here = environment.read("cpu")
    text = [
        "# What the bench itself costs",
        "",
        f"`python scripts/bench_overhead.py --budget {chosen.budget:g} --fusions {chosen.fusions} "
        f"--backends {chosen.backends}`",
        "",
        f"{here.cpu}, {here.threads} of {here.cores} cores, torch {here.torch}, {date.today()}. {len(records)} rows, "
        f"{sum(r.samples or 0 for r in records)} samples.",
        "",
        "| part | seconds |",
        "| --- | ---: |",
        *(f"| {kind} | {seconds:.2f} |" for kind, seconds in spent.items()),
        *(f"| own: {kind} | {seconds:.2f} |" for kind, seconds in ours.items()),
        f"| own: building, copying, comparing with eager, statistics | {own - sum(ours.values()):.2f} |",
        f"| whole | {wall:.2f} |",
        f"| before: importing torch's compiler package | {imported:.2f} |",
        "",
        f"The bench's own work is {own:.2f} s of {wall:.2f} s: own / wall = {own / wall:.1%} "
        f"(promised: under {PROMISED:.0%}); with the import before it {(own + imported) / (wall + imported):.1%}.",
    ]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
