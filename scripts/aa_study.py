"""Does `ablate` cry wolf? The same variant twice under two names, and once with a planted handicap.

    python scripts/aa_study.py --repeats 20 --seeds 10 --out reports/NAME/aa-study.md

Each repeat is a study of its own on `digits`: `one` and `other` are the same fusion in the same host, with the
initialisation of the fusions drawn apart so that the runs do differ, and `handicapped` trains at a tenth of the
learning rate. Repeats use seeds of their own, so no cell counts twice. Claims at the 5% level are counted: of `other`
against `one` there should be about one in twenty, of `handicapped` against `one` all. The two questions are separate
studies of one comparison each, with the cells of `one` shared; everything goes through the engine and the store that
users use, so an interrupted script goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from datetime import date
from pathlib import Path

from afftool.environment import read
from afftool.store import Store
from afftool.study.cells import CellRecord
from afftool.study.engines.local import LocalEngine
from afftool.study.plan import Conditions
from afftool.study.recipe import recipe
from afftool.study.run import Shard, begin
from afftool.study.significance import Comparison, compare
from afftool.study.spec import StudySpec, Variant
from afftool.study.stored import finished


def study(repeat: int, options: argparse.Namespace) -> StudySpec:
    """The three variants of one repeat, on seeds that no other repeat uses."""
    slow = (("lr", options.lr / 10),)
    first = repeat * options.seeds
    return StudySpec(
        name="aa",
        summary="the same variant under two names, and one with a tenth of the learning rate",
        variants=(
            Variant(name="one", fusion=options.fusion, draw="one"),
            Variant(name="other", fusion=options.fusion, draw="other"),
            Variant(name="handicapped", fusion=options.fusion, draw="other", recipe=slow),
        ),
        baseline="one",
        host=options.host,
        data="digits",
        train_images=options.train_images,
        seeds=tuple(range(first, first + options.seeds)),
        recipe=recipe("short", epochs=options.epochs, batch=options.batch, lr=options.lr),
    )


def judge(spec: StudySpec, known: dict[str, CellRecord], plan_cells: list[tuple[str, int, str]]) -> list[Comparison]:
    """The two questions, each a study of one comparison."""
    scores: dict[str, dict[int, float]] = {variant.name: {} for variant in spec.variants}
    for name, seed, identity in plan_cells:
        score = known[identity].score
        if score is not None:
            scores[name][seed] = score
    return [compare(scores, [(name, "one")])[0] for name in ("other", "handicapped")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--fusion", default="aff")
    parser.add_argument("--host", default="resnet:b=1")
    parser.add_argument("--train-images", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--store", type=Path, default=Path(".afftool/aa-study.sqlite"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    rows, claimed, found = [], 0, 0
    with Store.open(options.store) as store:
        for repeat in range(options.repeats):
            spec = study(repeat, options)
            ablation = begin(
                spec, store, Conditions(), device="cpu", shard=Shard(), fresh=False, command=" ".join(sys.argv)
            )
            for event in ablation.events(LocalEngine(("cpu",) * options.workers)):
                if isinstance(event, CellRecord) and event.score is None:
                    print(f"repeat {repeat}: {event.reason}", file=sys.stderr)
            cells = [(name, seed, cell.identity) for name, seed, cell in ablation.plan.cells]
            same, handicap = judge(spec, finished(store.cells()), cells)
            claimed += same.claim != "cannot tell"
            found += handicap.claim == "worse"
            rows.append((repeat, same, handicap))
            print(f"repeat {repeat}: {_line(same)} | {_line(handicap)}", flush=True)

    text = report(options, rows, claimed, found)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    return 0 if claimed <= max(2, 0.1 * options.repeats) and found == options.repeats else 1


def report(
    options: argparse.Namespace, rows: list[tuple[int, Comparison, Comparison]], claimed: int, found: int
) -> str:
    """Markdown: the machine, the setting, every repeat, the two counts."""
    environment = dataclasses.asdict(read("cpu"))
    machine = environment["gpu"] or environment["cpu"]
    setting = {key: value for key, value in vars(options).items() if key not in ("out", "store", "workers")}
    lines = [
        "# A/A study: the same fusion under two names, and a planted handicap",
        "",
        f"- command: `python scripts/{' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}`, {date.today()}",
        f"- machine: {machine}, {environment['cores']} cores, torch {environment['torch']}",
        "- setting: " + ", ".join(f"{key}={value}" for key, value in setting.items()),
        f"- **differences claimed between equals: {claimed} of {len(rows)}** (the level of 5% allows about 1 in 20)",
        f"- **handicaps found: {found} of {len(rows)}**",
        "",
        "| repeat | equals: difference (points) | 95% interval | p | handicap: difference | 95% interval | p |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for repeat, same, handicap in rows:
        lines.append(f"| {repeat} | {_cells(same)} | {_cells(handicap)} |")
    return "\n".join(lines) + "\n"


def _cells(c: Comparison) -> str:
    if c.difference is None or c.low is None or c.high is None or c.p is None:
        return "too few seeds in common | | "
    return f"{100 * c.difference:+.2f} | {100 * c.low:+.2f} to {100 * c.high:+.2f} | {c.p:.3f}"


def _line(c: Comparison) -> str:
    return f"{c.variant} {_cells(c).replace(' | ', ', ')} -> {c.claim}"


if __name__ == "__main__":
    sys.exit(main())
