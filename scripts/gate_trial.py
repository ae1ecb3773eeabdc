"""Does the gate on time cry wolf, and does it see a 10% slowdown? A trial on a repository made for it.

    python scripts/gate_trial.py --out reports/gate

makes a repository with a fusion of a user's own in it. Its forward repeats one block 20 times. In one clone the
second commit only adds a comment; in the other it repeats the block 22 times, which is 10% more time on any machine.
Each run is `afftool check --against HEAD~1 --metric time`, the two kinds in turns. Written to OUT: the plan, which is
made before the first run and says what is wanted of how many, what came of it and what error that bounds, the machine,
and every run as a row. 60 runs of each kind take an hour or two on an idle machine. Ends with exit code 1 where it is
not as wanted.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from scipy.stats import binomtest

from afftool import environment

GATE = '''\
"""A fusion of our own."""

import torch
from torch import nn


class MyGate(nn.Module):
    """Gates x against y, with a gate that is refined again and again."""

    repeats = {repeats}

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gate = x + y
        for _ in range(self.repeats):
            gate = torch.tanh(self.mix(gate))
        return gate * x + (1 - gate) * y
'''

CONFIG = """\
[[case]]
fusion = "mypkg.gates:MyGate"
channels = 32
size = 28
batch = 4

[rules]
latency_ms = "5%"
"""

EXIT = {0: "no regression", 3: "regression", 4: "inconclusive"}
RIGHT = {"nothing": "no regression", "10% more": "regression"}
WRONG = {"nothing": "regression", "10% more": "no regression"}
LEAST_RIGHT = 0.95
MOST_WRONG = {"nothing": 0.01, "10% more": 0.02}
"""Shares that are wanted, as of `scripts/referee.py`'s simulations at 2% between processes."""


@dataclass(frozen=True)
class Run:
    """One check: what was planted, what came out."""

    planted: str
    exit_code: int
    outcome: str
    ratio: tuple[float, float, float]
    pairs: int
    seconds: float


def make_repository(folder: Path, second: str) -> Path:
    """A repository of two commits: the fusion, and `second` in its place."""
    package = folder / "mypkg"
    package.mkdir(parents=True)
    (folder / "afftool.toml").write_text(CONFIG)
    (package / "__init__.py").touch()
    _git(folder, "init", "--quiet", "--initial-branch=main")
    for message, text in (("Add a gate", GATE.format(repeats=20)), ("Change it", second)):
        (package / "gates.py").write_text(text)
        _git(folder, "add", "--all")
        _git(folder, "-c", "user.name=trial", "-c", "user.email=trial@localhost", "commit", "--quiet", "-m", message)
    return folder


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def check(folder: Path, planted: str, options: list[str]) -> Run:
    """One `afftool check --against HEAD~1`."""
    started = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "afftool",
            "check",
            "--against",
            "HEAD~1",
            "--metric",
            "time",
            "--json",
            "--strict",
            *options,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if done.returncode not in EXIT:
        raise SystemExit(f"the check exited with {done.returncode}:\n{done.stderr}")
    [verdict] = json.loads(done.stdout)["verdicts"]
    ratio = verdict["ratio"]
    interval = (ratio["estimate"], ratio["low"], ratio["high"])
    return Run(planted, done.returncode, verdict["outcome"], interval, verdict["pairs"], seconds)


def plan(runs: int) -> list[str]:
    """What is wanted, said before anything is run."""
    return [
        *(
            f"- planted {planted}: {runs} runs; {RIGHT[planted]} in at least {_least(runs)}, {WRONG[planted]} in at "
            f"most {_most(planted, runs)}"
            for planted in RIGHT
        ),
        f"- an error that never shows in {runs} runs is below {_below(0, runs):.1%} with 95% confidence, one that "
        f"shows once below {_below(1, runs):.1%} (Clopper and Pearson)",
    ]


def _least(runs: int) -> int:
    return math.ceil(LEAST_RIGHT * runs)


def _most(planted: str, runs: int) -> int:
    return math.floor(MOST_WRONG[planted] * runs)


def _below(happened: int, runs: int) -> float:
    """The share that is not reached with 95% confidence by what happened so often."""
    bound: float = binomtest(happened, runs, alternative="less").proportion_ci(0.95, method="exact").high
    return bound


def tally(runs: list[Run], planted: str) -> tuple[int, int, int]:
    """How many there were, were right and were wrong."""
    words = [EXIT[run.exit_code] for run in runs if run.planted == planted]
    return len(words), words.count(RIGHT[planted]), words.count(WRONG[planted])


def as_wanted(runs: list[Run]) -> bool:
    """Whether both kinds came out as planned."""
    counts = {planted: tally(runs, planted) for planted in RIGHT}
    return all(
        right >= _least(count) and wrong <= _most(planted, count) for planted, (count, right, wrong) in counts.items()
    )


def report(runs: list[Run], options: list[str]) -> str:
    """The result as Markdown."""
    here = environment.read("cpu")
    lines = ["# The gate on time, tried out", "", "Planned before the first run:", ""]
    lines += [*plan(len(runs) // 2), "", f"It came out {'as wanted' if as_wanted(runs) else 'otherwise'}:", ""]
    for planted in RIGHT:
        count, right, wrong = tally(runs, planted)
        seconds = sorted(run.seconds for run in runs if run.planted == planted)
        lines.append(
            f"- planted {planted}: {right} of {count} right, {wrong} wrong, {count - right - wrong} inconclusive; so "
            f"wrong in less than {_below(wrong, count):.1%}, without the right answer in less than "
            f"{_below(count - right, count):.1%} (95% confidence); {seconds[len(seconds) // 2]:.0f} s each (median), "
            f"{seconds[-1]:.0f} s at most"
        )
    lines += [
        "",
        f"Machine: {here.cpu}, {here.cores} cores, {here.platform}; "
        f"Python {here.python}, torch {here.torch}, {here.threads} threads; {date.today()}.",
        "",
        f"Each run: `afftool check --against HEAD~1 --metric time --strict {' '.join(options)}`".rstrip("` ") + "`, "
        "a rule of 5%, the two kinds in turns. Written by `scripts/gate_trial.py`, which also holds the fusion. The "
        "planted slowdown repeats 22 times what was repeated 20 times; only time is judged, since the exact "
        "metrics would name it at once.",
        "",
        "| run | planted | verdict | ratio | interval | pairs of processes | seconds |",
        "| --: | --- | --- | --: | --- | --: | --: |",
    ]
    for number, run in enumerate(runs, 1):
        estimate, low, high = run.ratio
        interval = f"{low:.3f} to {high:.3f}"
        cells = (number, run.planted, run.outcome, f"{estimate:.3f}", interval, run.pairs, f"{run.seconds:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60, help="runs of each kind")
    parser.add_argument("--budget", help="--budget of each check [default: the check's own]")
    parser.add_argument("--out", type=Path, help="a folder for gate_trial.md [default: stdout only]")
    arguments = parser.parse_args()
    options = ["--budget", arguments.budget] if arguments.budget else []
    runs: list[Run] = []
    print("\n".join(plan(arguments.runs)), flush=True)
    with tempfile.TemporaryDirectory(prefix="gate-trial-") as temporary:
        same = make_repository(Path(temporary) / "same", GATE.format(repeats=20) + "# a comment\n")
        slower = make_repository(Path(temporary) / "slower", GATE.format(repeats=22))
        for number in range(1, arguments.runs + 1):
            for folder, planted in ((same, "nothing"), (slower, "10% more")):
                run = check(folder, planted, options)
                runs.append(run)
                low, high = run.ratio[1:]
                print(
                    f"{number}: planted {planted}: {run.outcome} [{low:.3f}, {high:.3f}], {run.pairs} pairs in "
                    f"{run.seconds:.1f} s",
                    flush=True,
                )
    text = report(runs, options)
    print("\n" + text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "gate_trial.md").write_text(text)
    return 0 if as_wanted(runs) else 1


if __name__ == "__main__":
    sys.exit(main())
