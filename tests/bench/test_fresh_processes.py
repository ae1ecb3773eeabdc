"""Rows timed in processes that do nothing else, as a user's own script: the default on the CPU."""

import statistics
from typing import Any

import pytest

from afftool.allocator import name_of_allocator
from afftool.bench import Options, bench
from afftool.bench.run import processes_to_start
from afftool.bench.timing import FEWEST_ROUNDS_EACH
from afftool.errors import SpecError
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec
from afftool.stats import of_processes, ratio_of_pairs

pytestmark = pytest.mark.usefixtures("hurried")

QUICK: dict[str, Any] = {"measures": ("latency",), "precision": 0.9, "budget_s": 60.0}


def case(fusion: str, **fields: Any) -> CaseSpec:
    return CaseSpec(fusion=FusionSpec.parse(fusion), **{"channels": 8, "size": (6, 5), "batch": 2} | fields)


def by_regime(records: list[Record]) -> dict[tuple[str, str | None], Record]:
    return {(record.fusion, record.allocator): record for record in records}


def split(record: Record) -> list[tuple[float, ...]]:
    """The samples of each process."""
    assert record.process_samples
    samples = iter(record.samples_ms)
    return [tuple(next(samples) for _ in range(count)) for count in record.process_samples]


def test_a_row_has_the_samples_of_its_processes_and_the_ratio_of_their_pairs() -> None:
    told: list[str] = []
    records = by_regime(
        list(bench([case("aff")], Options(**QUICK, processes=2), follow=lambda done, total, doing: told.append(doing)))
    )
    aff, add = records["aff", name_of_allocator()], records["add", name_of_allocator()]
    assert (aff.status, aff.isolation, aff.processes) == ("ok", "process", 2)
    assert aff.process_samples is not None
    assert min(aff.process_samples) >= FEWEST_ROUNDS_EACH
    assert aff.process_samples == add.process_samples
    time = of_processes([statistics.median(samples) for samples in split(aff)])
    assert time is not None
    assert (aff.latency_ms, aff.latency_low_ms, aff.latency_high_ms) == pytest.approx(
        (time.estimate, time.low, time.high)
    )
    ratio = ratio_of_pairs(list(zip(split(aff), split(add), strict=True)))
    assert ratio is not None
    assert aff.latency_ratio == pytest.approx(ratio.estimate)
    assert (aff.latency_ratio_low, aff.latency_ratio_high) == pytest.approx((ratio.low, ratio.high))
    assert aff.page_faults is not None
    second = next(doing for doing in told if doing.startswith("process 2 of 2"))
    assert "aff eager " in second, "the first process gives the first number"
    assert "so far" in second


def test_both_regimes_are_rows_of_their_own_made_ready_once() -> None:
    options = Options(**QUICK, allocator="both", processes=1, baseline=None)
    records = by_regime(list(bench([case("planted:Plain")], options)))
    system, kept = records["planted:Plain", name_of_allocator()], records["planted:Plain", "kept"]
    assert (system.isolation, kept.isolation) == ("process", "none")
    assert system.first_call_s == kept.first_call_s
    assert system.latency_ms != kept.latency_ms
    assert system.identity == kept.identity


def test_a_row_that_dies_in_a_process_of_its_own_fails_and_its_neighbours_do_not() -> None:
    options = Options(**QUICK, processes=1, baseline=None)
    fine, dead = bench([case("planted:Plain"), case("planted:DiesElsewhere")], options)
    assert fine.status == "ok", fine.reason
    assert dead.status == "failed"
    assert "SIGSEGV" in str(dead.reason)
    assert dead.latency_ms is None


def test_without_isolation_the_system_s_allocator_is_this_process_s() -> None:
    (record,) = bench([case("add")], Options(**QUICK, isolate="none", baseline=None))
    assert (record.allocator, record.isolation, record.processes) == (name_of_allocator(), "none", 1)


def test_what_takes_no_time_on_the_cpu_has_no_allocator() -> None:
    (record,) = bench([case("add")], Options(measures=("cost",), baseline=None))
    assert record.allocator is None
    assert Options().regimes_on("cuda:0") == (None,)


def test_the_processes_to_start_are_known_before_with_the_baseline_in_each_heat() -> None:
    eager = Options(**QUICK)
    assert processes_to_start([case("aff")], eager) == 2 * 5
    six = [case(f"aff:reduction={2**n}", channels=64) for n in range(6)]
    assert processes_to_start(six, eager) == (1 + 5 + 1 + 1) * 5, "two heats"
    assert processes_to_start([case("aff")], Options(**QUICK, allocator="kept")) == 0
    assert processes_to_start([case("aff")], Options(**QUICK, isolate="none")) == 0
    assert processes_to_start([case("aff")], Options(**QUICK, processes=3, baseline=None)) == 3
    assert processes_to_start([case("aff")], Options(measures=("cost",))) == 0


def test_rows_that_need_no_process_of_their_own_are_ready_together() -> None:
    told: list[str] = []
    seven = [case(f"aff:reduction={n}", channels=56) for n in (1, 2, 4, 7, 8, 14, 28)]
    options = Options(**QUICK, allocator="kept")
    records = list(bench(seven, options, follow=lambda done, total, doing: told.append(doing)))
    assert [record.status for record in records] == ["ok"] * 8
    assert sum(doing.startswith("timing ") for doing in told) == 1, "one heat, in which the baseline runs once"


def test_there_is_at_least_one_process() -> None:
    with pytest.raises(SpecError, match="--processes 0 is no whole number from 1"):
        Options(processes=0)
