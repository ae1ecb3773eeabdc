"""Studies made up for tests of the reading side: a plan, and cells whose scores are given."""

from __future__ import annotations

from typing import Any

from afftool.record import Environment
from afftool.study.cells import CellRecord, CellSpec, StoredPlan
from afftool.study.spec import StudySpec

HERE = Environment(afftool="1", python="3", cpu="some cpu", cores=2)


def made(spec: StudySpec, score: Any, *, macs: int | None = 10) -> tuple[StoredPlan, dict[str, CellRecord]]:
    """A plan and its cells; `score(variant, seed)` is a number, or None for one that diverged."""
    known, rows = {}, []
    for seed in spec.seeds:
        for variant in spec.variants:
            cell = CellSpec(
                fusion=variant.fusion,
                host=spec.host,
                data=spec.data,
                fingerprint="f",
                train_images=None,
                data_seed=0,
                recipe=spec.recipe,
                seed=seed,
                draw=variant.name,
            )
            value = score(variant.name, seed)
            bad = {"status": "failed", "reason": "diverged: the loss became nan at step 7", "failed_step": 7}
            fields = bad if value is None else {"accuracy": value, "bands": {"small": value / 2, "large": value}}
            known[cell.identity] = CellRecord(cell=cell, identity=cell.identity, signal=(1.0, 2.0), **fields)
            rows.append([variant.name, seed, cell.identity])
    facts = {v.name: {"host": spec.host_of(v).text, "params": 100, "macs": macs} for v in spec.variants}
    plan = {"study": spec.to_toml(), "cells": rows, "facts": facts, "train_images": 9, "test_images": 9}
    plan |= {"size": [8, 8], "classes": 10, "task": "classify", "citation": "Somebody 2020"}
    return StoredPlan.from_dict(plan), known
