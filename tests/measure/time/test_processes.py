from typing import Any

import pytest

from afftool.errors import Rejected
from afftool.measure.time.conditions import Disturbance, worst_of
from afftool.measure.time.processes import Pooled, pooled
from afftool.measure.time.race import LatencyReading
from afftool.stats import of_processes


def reading(median_s: float, **fields: Any) -> LatencyReading:
    """Eleven samples, a thousandth of the median apart."""
    samples = tuple(median_s * (1 + (n % 11 - 5) / 1000) for n in range(11))
    given: dict[str, Any] = {
        "samples_s": samples, "steps_per_sample": 4, "warmup_s": 0.1, "settled": True, "stopped": "precision",
        "overhead_s": 1e-9, "page_faults": 10.0,
    }  # fmt: skip
    return LatencyReading(**given | fields)


def fields_of(*medians_ms: float) -> dict[str, Any]:
    found = pooled([reading(ms / 1e3) for ms in medians_ms])
    assert isinstance(found, Pooled)
    return found.fields(batch=2)


def test_a_process_is_one_draw_however_many_samples_it_has() -> None:
    fields = fields_of(10.0, 10.5, 11.0)
    interval = of_processes([10.0, 10.5, 11.0])
    assert interval is not None
    assert (fields["latency_ms"], fields["latency_low_ms"], fields["latency_high_ms"]) == pytest.approx(
        (interval.estimate, interval.low, interval.high)
    )
    assert (fields["processes"], fields["process_samples"], fields["samples"]) == (3, (11, 11, 11), 33)
    assert fields["fast_group_ms"] is None
    assert fields["throughput_per_s"] == pytest.approx(2e3 / interval.estimate)


def test_two_groups_of_processes_are_both_told_with_their_share() -> None:
    fields = fields_of(30.0, 12.3, 12.1)
    assert fields["fast_group_ms"] == pytest.approx(12.2)
    assert fields["slow_group_ms"] == pytest.approx(30.0)
    assert fields["slow_group_share"] == pytest.approx(1 / 3)
    assert fields["latency_low_ms"] < 12.1
    assert fields["latency_high_ms"] > 30.0


def test_how_many_processes_the_precision_would_take_is_said() -> None:
    found = pooled([reading(ms / 1e3, stopped="budget") for ms in (10.0, 10.2, 10.4)])
    assert isinstance(found, Pooled)
    (kind,) = unsteady = found.instability(0.02, "warm")
    assert kind == "imprecise"
    assert "3 processes put the time within ±5.0% where ±2.0% was asked for" in unsteady[kind].text
    assert "some --processes 7 would reach that" in unsteady[kind].text
    assert found.instability(0.06, "warm") == {}, "what each alone could not tell is no matter"


def test_single_steps_of_all_processes_make_one_percentile() -> None:
    found = pooled([reading(0.01, single_s=(0.01,) * 60), reading(0.01, single_s=(0.05,) * 60)])
    assert isinstance(found, Pooled)
    fields = found.fields(1)
    assert (fields["single_steps"], fields["latency_p99_ms"]) == (120, 50.0)


def test_one_process_is_its_own_reading() -> None:
    alone = reading(0.01)
    found = pooled([alone])
    assert isinstance(found, Pooled)
    assert found.fields(1) == alone.fields(1) | {"processes": 1}


def test_a_row_is_as_unfinished_as_the_worst_of_its_processes() -> None:
    found = pooled([reading(0.01), reading(0.01, stopped="budget", page_faults=30.0), reading(0.01, page_faults=20.0)])
    assert isinstance(found, Pooled)
    fields = found.fields(1)
    assert fields["stopped"] == "budget"
    assert fields["page_faults"] == 20.0
    assert fields["warmup_s"] == pytest.approx(0.3)


def test_a_row_of_which_one_process_fails_has_failed() -> None:
    error = Rejected("it crashed")
    assert pooled([reading(0.01), error]) is error


def test_of_what_disturbed_several_processes_the_worst_is_told() -> None:
    mild, bad = Disturbance("a little", 0.1), Disturbance("a lot", 0.9)
    assert worst_of(({"spread": mild}, {"spread": bad, "drift": mild}, {})) == {"spread": bad, "drift": mild}
