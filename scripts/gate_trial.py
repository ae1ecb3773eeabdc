"""Does the gate on time cry wolf, and does it see a 10% slowdown? A trial on a repository made for it.

    python scripts/gate_trial.py --runs 20 --out reports/gate

makes a repository with a fusion of a user's own in it. Its forward repeats one block 20 times. In one clone the
second commit only adds a comment; in the other it repeats the block 22 times, which is 10% more time on any machine.
Each run is `afftool check --against HEAD~1 --metric time`, the two kinds in turns. Written to OUT: every run as a row,
the machine, and how many verdicts were right.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

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


@dataclass(frozen=True)
class Run:
    """One check: what was planted, what came out."""

    planted: str
    exit_code: int
    outcome: str
    ratio: tuple[float, float, float]
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
    return Run(planted, done.returncode, verdict["outcome"], (ratio["estimate"], ratio["low"], ratio["high"]), seconds)


def report(runs: list[Run], options: list[str]) -> str:
    """The result as Markdown."""
    here = environment.read("cpu")
    lines = ["# The gate on time, tried out", ""]
    for planted, right in (("nothing", "no regression"), ("10% more", "regression")):
        mine = [run for run in runs if run.planted == planted]
        words = [EXIT[run.exit_code] for run in mine]
        tally = ", ".join(f"{words.count(word)} {word}" for word in EXIT.values())
        seconds = sorted(run.seconds for run in mine)
        lines.append(
            f"- planted {planted}: {len(mine)} runs, {words.count(right)} right ({tally}); "
            f"{seconds[len(seconds) // 2]:.0f} s each (median), {seconds[-1]:.0f} s at most"
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
        "| run | planted | verdict | ratio | interval | seconds |",
        "| --: | --- | --- | --: | --- | --: |",
    ]
    for number, run in enumerate(runs, 1):
        estimate, low, high = run.ratio
        cells = (number, run.planted, run.outcome, f"{estimate:.3f}", f"{low:.3f} to {high:.3f}", f"{run.seconds:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="runs of each kind")
    parser.add_argument("--budget", help="--budget of each check [default: the check's own]")
    parser.add_argument("--out", type=Path, help="a folder for gate_trial.md [default: stdout only]")
    arguments = parser.parse_args()
    options = ["--budget", arguments.budget] if arguments.budget else []
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="gate-trial-") as temporary:
        same = make_repository(Path(temporary) / "same", GATE.format(repeats=20) + "# a comment\n")
        slower = make_repository(Path(temporary) / "slower", GATE.format(repeats=22))
        for number in range(1, arguments.runs + 1):
            for folder, planted in ((same, "nothing"), (slower, "10% more")):
                run = check(folder, planted, options)
                runs.append(run)
                low, high = run.ratio[1:]
                print(
                    f"{number}: planted {planted}: {run.outcome} [{low:.3f}, {high:.3f}] in {run.seconds:.1f} s",
                    flush=True,
                )
    text = report(runs, options)
    print("\n" + text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "gate_trial.md").write_text(text)


if __name__ == "__main__":
    main()
