"""What came out of a study: its plan, the cells that are known, the latencies benched of its networks."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from afftool import catalog
from afftool.errors import AfftoolError, StoreError
from afftool.record import Environment, Record
from afftool.spec import HostSpec
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.spec import StudySpec


@dataclass(frozen=True)
class Benched:
    """A median latency and how it was taken."""

    latency_ms: float
    how: str


@dataclass(frozen=True, kw_only=True)
class Results:
    """A study's plan as it is stored, and what is known of its cells by variant and seed.

    `margin` is the difference, as a share, that the reader calls none. `looks` are the seeds of each look at the study
    up to this one, those that were planned first: none where only this run is known.
    """

    study: StudySpec
    plan: StoredPlan
    cells: Mapping[tuple[str, int], CellRecord]
    pairs: bool = False
    margin: float | None = None
    looks: tuple[tuple[int, ...], ...] = ()
    latency: Mapping[str, Benched] = dataclasses.field(default_factory=dict)

    @property
    def measure(self) -> str:
        """What the score is: accuracy, or mIoU."""
        return "mIoU" if self.plan.task == "segment" else "accuracy"

    def scores(self) -> dict[str, dict[int, float]]:
        """Scores by variant and seed, of the cells that have one."""
        found: dict[str, dict[int, float]] = {variant.name: {} for variant in self.study.variants}
        for (name, seed), cell in self.cells.items():
            if cell.score is not None:
                found[name][seed] = cell.score
        return found

    def failed(self) -> dict[str, frozenset[int]]:
        """The seeds at which a variant's training failed for good, by variant."""
        gone = {key for key, cell in self.cells.items() if cell.finished and cell.score is None}
        return {v.name: frozenset(seed for name, seed in gone if name == v.name) for v in self.study.variants}

    def missing(self, seeds: Iterable[int]) -> int:
        """How many cells of these seeds are not finished."""
        keys = [(variant.name, seed) for variant in self.study.variants for seed in seeds]
        return sum(key not in self.cells or not self.cells[key].finished for key in keys)

    def gpus(self) -> dict[str, int]:
        """How many cells were trained on each kind of GPU, as far as it is known."""
        return dict(sorted(Counter(cell.gpu for cell in self.cells.values() if cell.gpu).items()))

    def cells_of(self, variant: str) -> list[CellRecord]:
        """What is known of one variant's cells, whatever became of them."""
        return [cell for (name, _), cell in self.cells.items() if name == variant]


def results(
    plan: StoredPlan,
    known: Mapping[str, CellRecord],
    *,
    pairs: bool = False,
    margin: float | None = None,
    earlier: Sequence[StoredPlan] = (),
    records: Sequence[tuple[Environment, Record]] = (),
) -> Results:
    """Match a stored plan with the cells known by identity, and with latencies benched of the same networks.

    `earlier` are the plans that were made before it, oldest first, of whatever study.
    """
    study = study_of(plan)
    cells = {(name, seed): known[identity] for name, seed, identity in plan.cells if identity in known}
    variants = {v.name: (v.fusion_spec.text, plan.facts[v.name].host) for v in study.variants}
    return Results(
        study=study,
        plan=plan,
        cells=cells,
        pairs=pairs,
        margin=margin,
        looks=looks_of(plan, earlier),
        latency=benched(variants, records),
    )


def study_of(plan: StoredPlan) -> StudySpec:
    """The study of a stored plan. Raises `StoreError` if it is none, or not the one that the plan is of."""
    try:
        study = StudySpec.from_toml(plan.study)
    except AfftoolError as error:
        raise StoreError(f"the plan of a study cannot be read: {error.message}", hint=_NEWER) from error
    names = {variant.name for variant in study.variants}
    if not names <= plan.facts.keys() or not all(name in names for name, _, _ in plan.cells):
        raise StoreError("the plan of a study cannot be read: its cells are of other variants", hint=_NEWER)
    return study


_NEWER = "was it written by a newer afftool?"


def looks_of(plan: StoredPlan, earlier: Sequence[StoredPlan]) -> tuple[tuple[int, ...], ...]:
    """The seeds of each look at a study up to this plan's: those first planned, then each time there were more.

    The same study is one that has the same variants, and the same cells at the seeds that both have.
    """
    mine = _cells(plan)
    looks: list[tuple[int, ...]] = []
    for one in (*earlier, plan):
        cells = _cells(one)
        both = mine.keys() & cells.keys()
        alike = {name for name, _ in mine} == {name for name, _ in cells} and all(mine[k] == cells[k] for k in both)
        seeds = tuple(dict.fromkeys(seed for _, seed in cells))
        if both and alike and (not looks or {*looks[-1]} < {*seeds}):
            looks.append(seeds)
    return tuple(looks)


def _cells(plan: StoredPlan) -> dict[tuple[str, int], str]:
    return {(name, seed): identity for name, seed, identity in plan.cells}


def benched(
    variants: Mapping[str, tuple[str, str]], records: Sequence[tuple[Environment, Record]]
) -> dict[str, Benched]:
    """The latest latency of each variant (name -> texts of fusion and host), where all were taken alike.

    That is on one machine, by one backend, at one batch and size. Of several such ways the one that covers most
    variants is taken, the latest of equals; hosts that differ in nothing but their number of classes count as the same.
    """
    wanted = {(fusion, _network(host)): name for name, (fusion, host) in variants.items()}
    ways: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for environment, record in records:
        if record.status != "ok" or record.latency_ms is None or record.mode != "infer":
            continue
        name = wanted.get((record.fusion, _network(record.host)))
        if name is None:
            continue
        how = (
            f"{record.backend} on {environment.gpu or environment.cpu}, batch {record.batch}, "
            f"{record.height}x{record.width}, {record.dtype}, {record.memory_format}"
        )
        ways[environment.fingerprint, how][name] = record.latency_ms
    if not ways:
        return {}
    (_, how), found = max(reversed(ways.items()), key=lambda item: len(item[1]))
    return {name: Benched(latency, how) for name, latency in found.items()}


@cache
def _network(host: str) -> str:
    """The host's text without what does not change its time to speak of: the number of classes."""
    try:
        spec = HostSpec.parse(host)
    except Exception:  # a host of the user's own that is no longer there
        return host
    if spec.target is None and spec.name not in catalog.HOSTS:
        return host
    return ":".join(part for part in spec.text.split(":") if not part.startswith("classes="))
