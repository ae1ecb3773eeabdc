"""Times that are taken apart, and what jobs say of each other."""

import math
import random

import pytest
from made_up_sides import Machine

from afftool.gate.times import PROCESSES, ratio_apart, ratio_of_jobs, times_apart


def test_times_taken_apart_come_from_fresh_processes():
    machine = Machine()
    side = machine.side("here", 2.0)
    told = []
    taken = list(times_apart(side, [{"a": 1}, {"b": 1}], budget_s=10, told=lambda p, c: told.append((p, c))))
    assert side.started == PROCESSES
    assert [position for position, _ in taken] == [0, 1] * PROCESSES
    assert told[:3] == [(0, 0), (0, 1), (1, 0)]


def test_the_interval_of_times_apart_is_the_widest_order_of_five_against_five():
    before, after = (10, 11, 12, 13, 14), (20, 21, 22, 23, 24)
    interval = ratio_apart(before, after)
    assert (interval.low, interval.high) == (20 / 14, 24 / 10)
    assert interval.contains(interval.estimate)
    assert ratio_apart(before[:3], after[:3]) is None
    assert ratio_apart((), after) is None


def test_times_apart_claim_nothing_more_often_than_one_in_a_hundred():
    claims = 0
    for seed in range(2000):
        rng = random.Random(seed)
        before, after = ([rng.lognormvariate(0, 0.1) for _ in range(PROCESSES)] for _ in range(2))
        claims += not ratio_apart(before, after).contains(1.0)
    assert claims / 2000 < 0.015


def test_a_job_is_compared_with_the_mean_of_those_before_by_what_they_differ_by_and_its_own_luck():
    before, after = (1.00, 1.02, 1.04), 1.10
    interval = ratio_of_jobs(before, after)
    logs = [math.log(each) for each in before]
    mean = sum(logs) / 3
    spread = math.sqrt(sum((each - mean) ** 2 for each in logs) / 2)
    reach = 4.302653 * spread * math.sqrt(1 + 1 / 3)
    assert interval.estimate == pytest.approx(after / math.exp(mean))
    assert math.log(interval.high / interval.estimate) == pytest.approx(reach, rel=1e-6)
    assert math.log(interval.estimate / interval.low) == pytest.approx(reach, rel=1e-6)


def test_two_jobs_do_not_tell_by_how_much_jobs_differ():
    assert ratio_of_jobs((1.0, 1.02), 1.1) is None
    assert ratio_of_jobs((), 1.1) is None
