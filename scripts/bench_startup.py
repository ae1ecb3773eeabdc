"""How fast afftool answers: --help, list and typos as multiples of `import typer`, and one default bench.

    python scripts/bench_startup.py [--rounds 20] [--no-bench]

The commands are alternated round by round in fresh processes, so that a busy machine slows all of them alike; the
ratio of a round's times is what counts. The promise: at most 3 times `python -c "import typer"`, and
`bench --fusion iaff` with defaults within a minute on two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AFFTOOL = [sys.executable, "-m", "afftool"]
REFERENCE = "import typer"
COMMANDS = {
    REFERENCE: [sys.executable, "-c", "import typer"],
    "--help": [*AFFTOOL, "--help"],
    "list": [*AFFTOOL, "list"],
    "mistyped command": [*AFFTOOL, "bnech"],
    "mistyped fusion": [*AFFTOOL, "bench", "--fusion", "iaf"],
}


def wall_s(command: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, check=False)
    return time.perf_counter() - start


def _environment(folder: str) -> dict[str, str]:
    """A compiler cache of its own, so that the bench compiles as on a fresh machine."""
    return {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "inductor")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-bench", action="store_true", help="leave out the whole `bench --fusion iaff`")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS.values():  # compile the bytecode, warm the file cache
            wall_s(command, folder)
        rounds = []
        for number in range(chosen.rounds):
            names = list(COMMANDS) if number % 2 == 0 else list(reversed(COMMANDS))
            rounds.append({name: wall_s(COMMANDS[name], folder) for name in names})
        print(f"{chosen.rounds} rounds, Python {sys.version.split()[0]}, {os.cpu_count()} cores\n")
        print("| command | median s | times `import typer` | limit |\n| --- | ---: | ---: | ---: |")
        for name in COMMANDS:
            seconds = statistics.median(r[name] for r in rounds)
            ratio = statistics.median(r[name] / r[REFERENCE] for r in rounds)
            print(f"| {name} | {seconds:.3f} | {ratio:.2f} | {'' if name == REFERENCE else '3'} |")
        if not chosen.no_bench:
            seconds = wall_s([*AFFTOOL, "bench", "--fusion", "iaff"], folder)
            print(f"\n`bench --fusion iaff`, nothing cached: {seconds:.1f} s (limit 60 on two cores)")


if __name__ == "__main__":
    main()
