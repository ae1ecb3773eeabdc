"""Several studies on a common footing: the variants that all have, and the seeds that have scores of all of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afftool.errors import SpecError
from afftool.record import Run
from afftool.study.results import Results


@dataclass(frozen=True)
class Told:
    """A run of `ablate`, and what came out of its study."""

    run: Run
    results: Results


@dataclass(frozen=True)
class Member:
    """A study among others: the seeds that all shared variants have, and their scores; a failed run's is 0."""

    label: str
    told: Told
    seeds: tuple[int, ...]
    scores: Mapping[str, Sequence[float]]
    failed: int

    @property
    def results(self) -> Results:
        """What came out of it."""
        return self.told.results


@dataclass(frozen=True)
class Together:
    """The studies, the variants they share with the first one's baseline among them, and why others are `left` out."""

    studies: tuple[Member, ...]
    variants: tuple[str, ...]
    baseline: str
    left: Mapping[str, str]


def joined(told: Sequence[Told]) -> Together:
    """What the studies share.

    Raises `SpecError` for fewer than two studies, for runs that hold the same cells, and where the studies share no
    baseline, no other variant, or no seed of theirs has all scores.
    """
    if len(told) < 2:
        raise SpecError(
            "a comparison needs two studies", hint="for example `afftool compare -2 -1`; see `afftool runs`"
        )
    _refuse_the_same_cells(told)
    shared, left = _variants(told)
    studies = tuple(_study(f"study {place}", one, shared) for place, one in enumerate(told, 1))
    return Together(studies, tuple(shared), told[0].results.study.baseline, left)


def _refuse_the_same_cells(told: Sequence[Told]) -> None:
    """A cell that counts twice would make intervals of half as many runs."""
    seen: dict[str, int] = {}
    for place, one in enumerate(told):
        for identity in {cell.identity for cell in one.results.cells.values()}:
            if (other := seen.setdefault(identity, place)) != place:
                raise SpecError(
                    f"run {told[other].run.id} and run {one.run.id} hold the same trained cells, which count once",
                    hint="give one of them, or a study on other data, another host, other seeds or another --data-seed",
                )


def _variants(told: Sequence[Told]) -> tuple[list[str], dict[str, str]]:
    """The variants that all studies have, and why each of the others is left out."""
    known = [{v.name: (v.fusion_spec.text, v.recipe) for v in one.results.study.variants} for one in told]
    names = dict.fromkeys(name for variants in known for name in variants)
    left = {}
    for name in names:
        absent = [place for place, variants in enumerate(known, 1) if name not in variants]
        if absent:
            left[name] = "not in " + " and ".join(f"study {place}" for place in absent)
        elif any(variants[name] != known[0][name] for variants in known):
            left[name] = "not the same fusion in all studies"
    shared = [name for name in names if name not in left]
    baseline = told[0].results.study.baseline
    if baseline not in shared or len(shared) < 2:
        what = f"the baseline {baseline}" if baseline not in shared else "any variant but the baseline"
        raise SpecError(
            f"the studies do not share {what} ({'; '.join(f'{name}: {why}' for name, why in left.items())})",
            hint="train the same --variants with the same --baseline in each",
        )
    return shared, left


def _study(label: str, told: Told, names: Sequence[str]) -> Member:
    scores, failed = told.results.scores(), told.results.failed()
    seeds = [s for s in told.results.study.seeds if all(s in scores[name] or s in failed[name] for name in names)]
    if not seeds:
        raise SpecError(
            f"no seed of run {told.run.id} has a score of every shared variant",
            hint="finish it by its command, as `afftool runs` shows it",
        )
    rows = {name: [scores[name].get(seed, 0.0) for seed in seeds] for name in names}
    lost = sum(seed in failed[name] for name in names for seed in seeds)
    return Member(label, told, tuple(seeds), rows, lost)
