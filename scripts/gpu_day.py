"""A day on a GPU: everything `reports/` should hold of it, in parts that can be interrupted and go on.

    scripts/gpu_day.sh [--dry-run] [--out reports/MACHINE] [--part N] [--minutes 8]

Without `--part` all parts run, in their order: the most telling come first. A part takes at most `--minutes`; what does
not fit is left, and the same command goes on with it. A step is one command, done once it ended with 0, and not
repeated then. The folder holds a report a step, the records of all (`runs.sqlite`) and a page that lists the commands,
and all of it lies beside the folder as one tar file. `--dry-run` makes the same steps on the CPU, with small ones in
place of large, so that a mistake in here is not found on the day.

The rows of a bench share one process (`--isolate none`): with one process a row, starting them would take most of the
day. What else differs from the defaults is in each step's command.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
PART_MINUTES = 8.0
GRACE_S = 30.0
"""Seconds a step may go on after the end of its part, so that one which is nearly done is not lost."""
LOG_LINES = 15
"""Of the log of a step that did not end well, shown at once."""

FUSIONS = "add,sk,aff,iaff"
BACKENDS = "eager,compile,cudagraph"


@dataclass(frozen=True)
class Shape:
    """The maps of a bench: batch, channels, height and width."""

    batch: int
    channels: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.batch}x{self.channels}x{self.size}"

    @property
    def words(self) -> str:
        return f"-b {self.batch} -c {self.channels} -s {self.size}"


MAIN = Shape(8, 64, 56)
OTHERS = (Shape(1, 64, 56), Shape(8, 256, 14), Shape(32, 16, 32))


@dataclass(frozen=True)
class Step:
    """One command of the day: what `python` is given, and about how many seconds it takes on a recent GPU.

    `{out}` stands for the folder of its report, `{store}` for the store of all records.
    """

    name: str
    part: int
    seconds: float
    words: str

    def command(self, out: Path) -> list[str]:
        """The words with the folders put in."""
        return [word.format(out=out / self.name, store=out / "runs.sqlite") for word in shlex.split(self.words)]

    def shown(self, out: Path = Path("DIR")) -> str:
        """The command as one types it; wherever the folder is, unless it is given."""
        return shlex.join(["python", *self.command(out)])


@dataclass(frozen=True)
class Done:
    """What became of a step: its command, when it began, how long it took, and its exit code (None: cut off)."""

    command: str
    began: str
    seconds: float
    code: int | None


def the_day(*, small: bool) -> Iterator[Step]:
    """Every step, in order. `small` is the dry run: the CPU, small maps, little time, few compilations."""
    device = "cpu" if small else "cuda:0"
    main, others = (Shape(2, 8, 6), (Shape(1, 8, 5),)) if small else (MAIN, OTHERS)
    fusions = "add,aff" if small else FUSIONS
    backends = "eager,cudagraph" if small else BACKENDS

    def timed(name: str, part: int, seconds: float, words: str, *, rows: int) -> Step:
        budget = (0.01 if small else 0.4) * rows
        common = f"--device {device} --isolate none --budget {budget:g} --store {{store}} --out {{out}}"
        return Step(name, part, seconds, f"-m afftool bench {words} {common}")

    def compared(shape: Shape, part: int, mode: str, dtype: str) -> Step:
        words = f"-f {fusions} {shape.words} --mode {mode} --dtype {dtype} --backend {backends}"
        seconds = {"infer": 45.0, "train": 70.0}[mode]
        return timed(f"bench-{shape.name}-{mode}-{dtype}", part, seconds, words, rows=12)

    yield Step("ceilings", 1, 15, f"-m afftool doctor --calibrate --device {device} --store {{store}}")
    yield compared(main, 1, "infer", "float32")
    quick = "--budget 0.2 --turns 2 --repeats 1 --small" if small else "--budget 1 --turns 5 --repeats 5"
    yield Step("agreement", 1, 70, f"scripts/agreement.py --device {device} --out {{out}}/agreement.md {quick}")
    words = f"add iaff {main.words} --mode train --device {device} --steps {2 if small else 5}"
    yield Step("profile", 1, 30, f"-m afftool profile {words} --out {{out}}")
    yield compared(main, 1, "train", "float32")
    for mode in ("infer", "train"):
        yield compared(main, 1, mode, "bfloat16")
    host, images, size = ("resnet:b=1", 2, 32) if small else ("resnet50", 32, 224)
    for mode, seconds in (("infer", 70), ("train", 120)):
        words = f"-f add,aff,iaff --host {host} -s {size} -b {images} --mode {mode} --backend {backends}"
        yield timed(f"{host.partition(':')[0]}-{size}-{mode}", 2, seconds, words, rows=18)
    words = f"-f {'sk,iaff' if small else 'all'} {main.words} --backend eager,cudagraph"
    yield timed("every-fusion", 2, 60, words, rows=60)
    for number, shape in enumerate(others):
        for mode in ("infer", "train"):
            for dtype in ("float32",) if small else ("float32", "bfloat16"):
                yield compared(shape, 3 + number // 2, mode, dtype)
    for dtype in ("float32",) if small else ("float32", "bfloat16", "float16"):
        for mode, seconds in (("infer", 70), ("train", 120)):
            # one step of the dry run that really compiles is enough
            chosen = "eager,compile-reduce-overhead" if small and mode == "train" else "all"
            words = f"-f {'aff' if small else fusions} {main.words} --mode {mode} --dtype {dtype} --backend {chosen}"
            part = 4 if mode == "infer" else 5
            yield timed(f"backends-{dtype}-{mode}", part, seconds, words, rows=20)


class Day:
    """The steps in a folder, with what became of each."""

    def __init__(self, out: Path, steps: Iterable[Step], *, small: bool, minutes: float) -> None:
        self.out = out
        self.steps = list(steps)
        self.small = small
        self._limit_s = 60 * minutes
        self._notes = out / "steps.json"
        told = json.loads(self._notes.read_text(encoding="utf-8")) if self._notes.is_file() else {}
        self.done = {name: Done(**fields) for name, fields in told.items()}

    def parts(self) -> list[int]:
        return sorted({step.part for step in self.steps})

    def left(self, part: int) -> list[Step]:
        """The steps of a part that have not ended well; a step whose command has changed since is one of them."""
        return [step for step in self.steps if step.part == part and not self._is_done(step)]

    def plan(self) -> str:
        """What there is to do and how long it takes."""
        lines = []
        for part in self.parts():
            left = self.left(part)
            names = ", ".join(step.name for step in left) or "done"
            lines.append(f"part {part}: about {self._foretold_s(left) / 60:.1f} min: {names}")
        whole = self._foretold_s([step for part in self.parts() for step in self.left(part)])
        return "\n".join([*lines, f"together about {whole / 60:.0f} min; results go to {self.out}"])

    def run(self, part: int) -> bool:
        """Make the steps of a part that are left, as far as its time goes. Whether all of it is done."""
        end = time.monotonic() + self._limit_s
        for number, step in enumerate(left := self.left(part)):
            room_s = end - time.monotonic()
            if number and self._foretold_s([step]) > room_s:
                break
            say(f"{step.name}: {step.shown(self.out)}")
            self.done[step.name] = self._make(step, room_s + GRACE_S)
            self._keep()
        remaining = self.left(part)
        if remaining:
            say(f"part {part} is not finished: {', '.join(step.name for step in remaining)}; run it again")
        elif left:
            say(f"part {part} is finished")
        return not remaining

    def pack(self) -> Path:
        """Everything in one tar file beside the folder."""
        path = self.out.with_name(self.out.name + ".tar")
        with tarfile.open(path, "w") as archive:
            archive.add(self.out, arcname=self.out.name)
        return path

    def _make(self, step: Step, limit_s: float) -> Done:
        (self.out / step.name).mkdir(parents=True, exist_ok=True)
        log_file = self.out / step.name / "log.txt"
        began, start = f"{date.today()}", time.monotonic()
        with log_file.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, *step.command(self.out)],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code: int | None = None
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                pass
            finally:
                if code is None:  # its time is over, or Ctrl-C: nothing it started goes on
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        taken = time.monotonic() - start
        say(f"{step.name}: {'cut off' if code is None else f'exit code {code}'} after {taken:.0f} s")
        if code != 0:
            last = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
            say("\n".join(f"  | {line}" for line in last[-LOG_LINES:]))
        return Done(step.shown(), began, round(taken, 1), code)

    def _is_done(self, step: Step) -> bool:
        done = self.done.get(step.name)
        return done is not None and done.code == 0 and done.command == step.shown()

    def _foretold_s(self, steps: list[Step]) -> float:
        return sum(5.0 if self.small else step.seconds for step in steps)

    def _keep(self) -> None:
        """The notes and the page, both whole at any time."""
        notes = {name: asdict(done) for name, done in self.done.items()}
        for path, text in ((self._notes, json.dumps(notes, indent=1) + "\n"), (self.out / "README.md", self._page())):
            fresh = path.with_suffix(".new")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)

    def _page(self) -> str:
        dry = " (a dry run on the CPU: no number in here means anything)" if self.small else ""
        lines = [
            f"# {self.out.name}{dry}",
            "",
            "What `scripts/gpu_day.sh` measured; each folder holds a step's report and its log. `DIR` is this folder.",
            "",
            "| step | command | date | seconds | ended |",
            "| --- | --- | --- | --: | --- |",
        ]
        for step in self.steps:
            if done := self.done.get(step.name):
                ended = "cut off" if done.code is None else "well" if done.code == 0 else f"with {done.code}"
                lines.append(f"| {step.name} | `{done.command}` | {done.began} | {done.seconds:.0f} | {ended} |")
            else:
                lines.append(f"| {step.name} | not run | | | |")
        return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def machine() -> str:
    """The GPU's name as a folder's; ends the script where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("gpu_day: torch sees no CUDA device here; --dry-run tries everything on the CPU")
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(0).lower()).strip("-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with everything small")
    parser.add_argument("--out", type=Path, help="the folder of the results [reports/MACHINE; a new one for a dry run]")
    parser.add_argument("--part", type=int, help="this part alone")
    parser.add_argument("--minutes", type=float, default=PART_MINUTES, help="at most so many for a part [8]")
    chosen = parser.parse_args()
    out = chosen.out or (Path(tempfile.mkdtemp()) / "dry-run" if chosen.dry_run else ROOT / "reports" / machine())
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    day = Day(out, the_day(small=chosen.dry_run), small=chosen.dry_run, minutes=chosen.minutes)
    if chosen.part is not None and chosen.part not in day.parts():
        raise SystemExit(f"gpu_day: there is no part {chosen.part}; the parts are {day.parts()}")
    say(day.plan())
    finished = [day.run(part) for part in ([chosen.part] if chosen.part else day.parts())]
    say(f"all of it as one file: {day.pack()}")
    sys.exit(0 if all(finished) else 1)


if __name__ == "__main__":
    main()
