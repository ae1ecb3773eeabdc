"""Rows of every kind against the store's decoder: each is read or named in a sentence; what is read can be reported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fuzzing import AT_LENGTH, fuzz
from hypothesis import strategies as st
from made_up_runs import ENVIRONMENT, timed
from made_up_studies import HERE, made

from afftool.errors import UserError
from afftool.formats import renderer
from afftool.record import Environment, Run
from afftool.report import bench_report, comparison
from afftool.store.rows import Unreadable, flat, record_of, run_of
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.grids import study
from afftool.study.report import study_report
from afftool.study.results import results
from afftool.study.rows import read_whole_row

REPORTED = pytest.mark.parametrize("examples", [20, pytest.param(1_000, marks=pytest.mark.fuzz)])
"""Fewer where each costs several reports."""
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 1e-320, 1e308, 0.5, 1.0]),
)
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["ok", "failed", "\x1b[2J", "\ud800", "=1+1", "", "a" * 20_000]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=6
)
RECORD = {
    name: value
    for name, value in timed("aff", 1.0, params=5, macs=7, flops=9, peak_bytes=11).to_dict().items()
    if name != "samples_ms"
}
PLAN, KNOWN = made(dataclasses.replace(study("scale"), seeds=(0, 1)), lambda name, seed: 0.5)
CELL = next(iter(KNOWN.values()))


def changed(fields: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The fields of a good row, some of them anything else, or missing."""
    some = st.dictionaries(st.sampled_from(list(fields)), VALUES, max_size=3)
    less = st.lists(st.sampled_from(list(fields)), max_size=1)
    return st.builds(lambda new, gone: {k: v for k, v in {**fields, **new}.items() if k not in gone}, some, less)


def in_the_file(value: object) -> bytearray:
    return bytearray(json.dumps(value), "utf-8")


@contextmanager
def told() -> Iterator[None]:
    """Whatever is wrong is told in a sentence of bounded length."""
    said = "nothing"
    try:
        yield
    except (Unreadable, UserError) as error:
        said = getattr(error, "message", str(error))
    assert 0 < len(said) < 1000


@AT_LENGTH
def test_bytes_are_a_row_or_a_sentence(examples: int) -> None:
    def check(data: bytes) -> None:
        for read in (record_of, read_whole_row, lambda text: flat(Environment).read(text, "it")):
            with told():
                read(bytearray(data))
        with told():
            record_of(in_the_file(RECORD), bytearray(data))
        with told():
            run_of((1, *(bytearray(data) for _ in range(5))))

    fuzz(
        examples,
        st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode(errors="replace"))),
        check,
    )


@REPORTED
def test_a_record_that_is_read_can_be_reported_and_compared(examples: int) -> None:
    base = record_of(in_the_file(RECORD | {"fusion": "add"}))

    def check(made: tuple[dict[str, Any], list[Any]]) -> None:
        with told():
            record = record_of(in_the_file(made[0]), in_the_file(made[1]))
            run = Run(id=1, command="c", started="s", environment=ENVIRONMENT, baseline="add", records=(base, record))
            for report in (bench_report(run), comparison([run, dataclasses.replace(run, id=2)])):
                for name in ("md", "csv", "json", "html"):
                    assert renderer(name)(report)

    fuzz(examples, st.tuples(changed(RECORD), st.lists(NUMBERS, max_size=3)), check)


@REPORTED
def test_a_study_that_is_read_can_be_reported(examples: int) -> None:
    def check(made: tuple[dict[str, Any], dict[str, Any]]) -> None:
        plan, known = PLAN, dict(KNOWN)
        for fields in made:
            with told():
                row = read_whole_row(in_the_file(fields))
                if isinstance(row, StoredPlan):
                    plan = row
                elif isinstance(row, CellRecord):
                    known[CELL.identity] = dataclasses.replace(row, identity=CELL.identity)
        with told():
            report = study_report(results(plan, known), HERE)
            for name in ("md", "csv", "json", "html"):
                assert renderer(name)(report)

    fuzz(examples, st.tuples(changed(PLAN.to_dict()), changed(CELL.to_dict())), check)
