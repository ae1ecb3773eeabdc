"""Do the claims hold? The project's own statistics on made-up measurements whose truth is known.

    python scripts/referee.py [--out reports/NAME/referee.md] [--scale 1] [--only SECTION] [--workers N]

Every line of the table is a question: how often an interval that is called 95% holds the truth, how often equals are
accused, a slowdown is found, a study claims what is not there. `refereed/worlds.py` says how the measurements are made
up, the files of `SECTIONS` beside it ask; every run has a seed of its own. Ends with exit code 1 where a share misses
what is wanted of it by more than two of its standard errors: one that is just that misses it by chance.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

from afftool import environment

sys.path.insert(0, str(Path(__file__).parent))  # for `refereed`, wherever this is started
from refereed import front, gate, studies, times
from refereed.trial import Outcome, Trial

SECTIONS = {"times": times, "gate": gate, "studies": studies, "front": front}


LUCK = 2.0
"""So many standard errors a share may lie on the wrong side of what is wanted, where that is exactly what it is."""


def outcome(section: str, number: int, scale: float) -> Outcome:
    """What came of one trial; its seed is its place in the section, whatever else is run."""
    trial = SECTIONS[section].TRIALS[number]
    return trial.outcome(max(1, round(trial.runs * scale)), number)


def table(found: Iterable[tuple[Trial, Outcome]]) -> list[str]:
    lines = ["| what | world | runs | share | wanted | so |", "| --- | --- | --: | --: | --- | --- |"]
    for trial, came in found:
        wanted = f"at least {trial.least:.0%}" if trial.least is not None else ""
        wanted = f"at most {trial.most:.1%}" if trial.most is not None else wanted
        of = f"{came.runs}" if came.said == came.runs else f"{came.runs}, {came.said} said"
        share = "none" if not came.said else f"{came.share:.1%} ± {came.error:.1%}"
        right = "yes" if came.meets(trial) else "within its error" if came.meets(trial, LUCK) else "no"
        right = right if wanted else ""
        lines.append(f"| {trial.what} | {trial.world} | {of} | {share} | {wanted} | {right} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file for the table, in Markdown")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the runs of each trial")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone; may be repeated")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    started = time.monotonic()
    found: dict[str, list[tuple[Trial, Outcome]]] = {}
    with ProcessPoolExecutor(chosen.workers) as pool:
        asked = {
            name: [pool.submit(outcome, name, number, chosen.scale) for number in range(len(SECTIONS[name].TRIALS))]
            for name in chosen.only or SECTIONS
        }
        for name, answers in asked.items():
            for trial, answer in zip(SECTIONS[name].TRIALS, answers, strict=True):
                found.setdefault(name, []).append((trial, answer.result()))
                print(table(found[name][-1:])[-1], file=sys.stderr, flush=True)
    here = environment.read("cpu")
    every = [pair for pairs in found.values() for pair in pairs]
    missed = sum(not came.meets(trial, LUCK) for trial, came in every)
    near = sum(not came.meets(trial) for trial, came in every) - missed
    lines = [
        "# The referee: the project's statistics on made-up measurements",
        "",
        f"`{shlex.join(['python', 'scripts/referee.py', *sys.argv[1:]])}`, {date.today()}, "
        f"{time.monotonic() - started:.0f} s on {here.cpu}, {here.cores} cores, Python {here.python}.",
        "",
        f"Of {len(every)} shares {missed} miss what is wanted of them, and {near} more do by no more than {LUCK:g} "
        "of their standard errors, which stand after ±.",
    ]
    for name, pairs in found.items():
        doc = (SECTIONS[name].__doc__ or "").strip()
        lines += ["", f"## {name.capitalize()}", "", doc, "", *table(pairs)]
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(text, encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
