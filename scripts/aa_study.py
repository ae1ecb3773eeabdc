"""Does `ablate` cry wolf on networks that are really trained? Equals under two names, runs lost, a planted handicap.

    python scripts/aa_study.py --out reports/NAME/ablations/aa-study.md

Each repeat is a study of its own on `digits`, on seeds of its own, so that no cell counts twice:

- **equals**: `one` and `other` are the same fusion in the same host, the initialisation of the fusions drawn apart.
- **runs lost**: `lossy` is `other` whose worst runs, `--lost` of them, are put down as failed once they are trained: no
  longer an equal run by run, and never to be called better for what it lost.
- **handicap**: `handicapped` trains at a tenth of the learning rate, in the first `--handicaps` repeats.

What passes is fixed before anything is trained, from the level of the claims and binomial probabilities, and printed
with what so many repeats can tell; every share comes with its exact interval (Clopper and Pearson). Each question goes
through the store, the engine and the report that users get, so an interrupted script goes on where it stopped. As it
comes it trains 1,300 cells, for some ten minutes on two cores.

Equals are exchangeable by construction, so an exact test of signs errs at its level whatever the plumbing below makes
of the scores. What can go wrong, and is looked at here, is that plumbing: seeds that are paired wrongly, draws that are
shared, failures that drop out. How the tests behave where equals are not exchangeable is for `scripts/referee.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from scipy.stats import binom, binomtest

from afftool.environment import read
from afftool.record import Environment
from afftool.store import Store
from afftool.study.cells import CellRecord
from afftool.study.engines.local import LocalEngine
from afftool.study.flips import LEVEL
from afftool.study.plan import Conditions
from afftool.study.recipe import recipe
from afftool.study.report import study_report
from afftool.study.results import Results, results
from afftool.study.run import Shard, begin
from afftool.study.spec import StudySpec, Variant
from afftool.study.stored import latest, study_rows

SURE = 0.95
"""A tool that keeps its level passes with this probability; one whose handicap shows as often finds enough of them."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked in every repeat, which claim is counted, and how many of them pass: `least` or `most`.

    `bad` is a share that a tool which fails would show; the plan says how often it would pass nevertheless.
    """

    name: str
    variant: str
    claims: tuple[str, ...]
    repeats: int
    bad: float
    least: int | None = None
    most: int | None = None

    def passes(self, count: int) -> bool:
        """Whether so many counted claims are what was planned."""
        return (self.least is None or count >= self.least) and (self.most is None or count <= self.most)

    @property
    def planned(self) -> str:
        """The mark and what it can tell."""
        if self.least is not None:
            mark, chance = f"at least {self.least}", binom.sf(self.least - 1, self.repeats, self.bad)
        else:
            mark, chance = f"at most {self.most}", binom.cdf(self.most, self.repeats, self.bad)
        return f"{mark} of {self.repeats}; a tool that claims it in {self.bad:.0%} would pass in {chance:.1%}"


def plan(repeats: int, handicaps: int) -> list[Question]:
    """The three questions with their marks. Of false claims at the level half are "better"."""
    return [
        Question(
            name="equals",
            variant="other",
            claims=("better", "worse"),
            repeats=repeats,
            bad=0.2,
            most=int(binom.ppf(SURE, repeats, LEVEL)),
        ),
        Question(
            name="runs lost",
            variant="lossy",
            claims=("better",),
            repeats=repeats,
            bad=0.15,
            most=int(binom.ppf(SURE, repeats, LEVEL / 2)),
        ),
        Question(
            name="handicap",
            variant="handicapped",
            claims=("worse",),
            repeats=handicaps,
            bad=0.5,
            least=max(1, int(binom.ppf(1 - SURE, handicaps, SURE))),
        ),
    ]


def study(repeat: int, options: argparse.Namespace) -> StudySpec:
    """What one repeat trains, on seeds that no other repeat uses."""
    first = repeat * options.seeds
    variants = [
        Variant(name="one", fusion=options.fusion, draw="one"),
        Variant(name="other", fusion=options.fusion, draw="other"),
    ]
    if repeat < options.handicaps:
        slow = (("lr", options.lr / 10),)
        variants.append(Variant(name="handicapped", fusion=options.fusion, draw="other", recipe=slow))
    return StudySpec(
        name="aa",
        summary="the same variant under two names, and one with a tenth of the learning rate",
        variants=tuple(variants),
        baseline="one",
        host=options.host,
        data="digits",
        train_images=options.train_images,
        seeds=tuple(range(first, first + options.seeds)),
        recipe=recipe("short", epochs=options.epochs, batch=options.batch, lr=options.lr),
    )


def answer(question: Question, found: Results, environment: Environment, lost: int) -> dict[str, Any]:
    """The comparison that the study's own report makes of `one` and the question's variant, alone."""
    cells = dict(found.cells)
    variant = "other" if question.variant == "lossy" else question.variant
    if question.variant == "lossy":
        mine = [(cell.score or 0.0, seed) for (name, seed), cell in cells.items() if name == "other"]
        for _, seed in sorted(mine)[:lost]:
            cells["other", seed] = dataclasses.replace(
                cells["other", seed], status="failed", reason="lost on purpose", failed_step=0, accuracy=None, scores={}
            )
    two = dataclasses.replace(
        found,
        study=dataclasses.replace(
            found.study, variants=tuple(v for v in found.study.variants if v.name in ("one", variant))
        ),
        cells={(name, seed): cell for (name, seed), cell in cells.items() if name in ("one", variant)},
    )
    (comparison,) = study_report(two, environment).document["comparisons"]
    return dict(comparison)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--handicaps", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--lost", type=int, default=3)
    parser.add_argument("--fusion", default="aff")
    parser.add_argument("--host", default="resnet:b=1")
    parser.add_argument("--train-images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--store", type=Path, default=Path(".afftool/aa-study.sqlite"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    options.handicaps = min(options.handicaps, options.repeats)

    environment = read("cpu")
    questions = plan(options.repeats, options.handicaps)
    for question in questions:
        print(f"{question.name}: planned {question.planned}", flush=True)
    answers: dict[str, list[dict[str, Any]]] = {question.name: [] for question in questions}
    with Store.open(options.store) as store:
        for repeat in range(options.repeats):
            ablation = begin(
                study(repeat, options),
                store,
                Conditions(),
                device="cpu",
                shard=Shard(),
                fresh=False,
                command=" ".join(sys.argv),
            )
            for event in ablation.events(LocalEngine(("cpu",) * options.workers)):
                if isinstance(event, CellRecord) and event.score is None:
                    print(f"repeat {repeat}: {event.reason}", file=sys.stderr)
            found = results(ablation.plan.stored(), latest(study_rows(store)))
            for question in questions:
                if repeat < question.repeats:
                    answers[question.name].append(answer(question, found, environment, options.lost))
            claims = {name: given[repeat]["claim"] for name, given in answers.items() if repeat < len(given)}
            print(f"repeat {repeat}: {', '.join(f'{name} {claim}' for name, claim in claims.items())}", flush=True)

    text = report(options, environment, questions, answers)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    return 0 if all(q.passes(_count(q, answers[q.name])) for q in questions) else 1


def report(
    options: argparse.Namespace,
    environment: Environment,
    questions: Sequence[Question],
    answers: dict[str, list[dict[str, Any]]],
) -> str:
    """Markdown: the machine, the setting, the plan and what came of it, every repeat."""
    setting = {key: value for key, value in vars(options).items() if key not in ("out", "store", "workers")}
    lines = [
        "# A/A study: equals under two names, runs lost, and a planted handicap",
        "",
        f"- command: `python scripts/{' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}`, {date.today()}",
        f"- machine: {environment.gpu or environment.cpu}, {environment.cores} cores, torch {environment.torch}",
        "- setting: " + ", ".join(f"{key}={value}" for key, value in setting.items()),
        f"- equals are the same fusion, initialised apart; of `lossy` the worst {options.lost} of {options.seeds} runs "
        "are put down as failed; `handicapped` trains at a tenth of the learning rate",
        "- what it can show: whether what is trained, stored, paired and reported keeps the test's level, and whether "
        "runs that failed make a variant better. What it cannot: how the test behaves where equals are not "
        "exchangeable, for these are by construction, but for the runs lost; `scripts/referee.py` asks that",
        "",
        "| question | counted | planned before | found | share | 95% interval | |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for question in questions:
        given = answers[question.name]
        count = _count(question, given)
        share = binomtest(count, len(given)).proportion_ci(method="exact")
        lines.append(
            f"| {question.name} | {' or '.join(question.claims)} | {question.planned} | {count} of {len(given)} | "
            f"{count / len(given):.1%} | {share.low:.1%} to {share.high:.1%} | "
            f"{'as planned' if question.passes(count) else '**not as planned**'} |"
        )
    lines += ["", f"| repeat | {' | '.join(f'{q.name} (points) | p | claim' for q in questions)} |"]
    lines += [f"| ---: |{' ---: | ---: | --- |' * len(questions)}"]
    for repeat in range(options.repeats):
        row = [_cells(answers[q.name][repeat]) if repeat < q.repeats else "| | " for q in questions]
        lines.append(f"| {repeat} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _count(question: Question, given: Sequence[dict[str, Any]]) -> int:
    return sum(comparison["claim"] in question.claims for comparison in given)


def _cells(comparison: dict[str, Any]) -> str:
    difference, p = comparison.get("difference"), comparison.get("p")
    told = "" if difference is None else f"{100 * difference:+.2f}"
    return f"{told} | {'' if p is None else f'{p:.3f}'} | {comparison['claim']}"


if __name__ == "__main__":
    sys.exit(main())
