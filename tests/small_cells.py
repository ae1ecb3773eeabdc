"""Small cells on real data, for the tests of training: a few digits, a host with one block a stage."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

from afftool.study.cells import CellRecord
from afftool.study.grids import study
from afftool.study.plan import Conditions, Plan, plan
from afftool.study.run import Engine, Shard, run, todo
from afftool.study.spec import StudySpec


def small(name: str = "scale", *, seeds: int = 1, epochs: int = 1, **changes: Any) -> StudySpec:
    """A built-in study on 96 digits."""
    settings = {"data": "digits", "train_images": 96, "seeds": tuple(range(seeds))} | changes
    spec = study(name)
    made = spec.recipe.with_settings({"epochs": epochs, "batch": 32} | settings.pop("recipe", {}))
    return dataclasses.replace(spec, recipe=made, **settings)


def planned(spec: StudySpec) -> Plan:
    """The study's plan under the default conditions."""
    return plan(spec, Conditions())


@cache
def two_cells() -> Plan:
    """Two variants, one seed, two epochs: made once for all tests of a process."""
    return planned(small(seeds=1, epochs=2).with_variants(["global-global", "aff"]))


def watched(*, seeds: int = 1) -> StudySpec:
    """Two variants in the host that writes down its steps, four epochs of three steps."""
    return small(seeds=seeds, epochs=4, host="watched:build", budget=None).with_variants(["add", "aff"])


def mortal() -> StudySpec:
    """One cell that ends its device between two that are well, two epochs each."""
    return small(epochs=2, host="dying:build", budget=None).with_variants(["add", "dying:Dying", "aff"])


def train(made: Plan, engine: Engine, folder: Path, *, backwards: bool = False) -> dict[str, CellRecord]:
    """All records by identity, each yielded exactly once."""
    cells = todo(made, {}, Shard())
    records = [e for e in run(made, cells[::-1] if backwards else cells, engine, folder) if isinstance(e, CellRecord)]
    assert len({record.identity for record in records}) == len(records)
    return {record.identity: record for record in records}


def results(records: dict[str, CellRecord]) -> dict[str, dict[str, Any]]:
    """What must be the same bit for bit, by identity."""
    return {identity: record.result() for identity, record in records.items()}
