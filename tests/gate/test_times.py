"""Times in turns, proved with made-up machines and a made-up clock."""

import random

import pytest

from afftool.gate.times import PROCESSES, ROUNDS_FIRST, Question, compete, covering, ratio_apart, times_apart
from afftool.stats import Interval

FIVE_PERCENT = Question(lambda before_ms: 1.05)


class Machine:
    """One clock for both sides, drifting and noisy, and a list of who was asked for what."""

    def __init__(self, seed=0, *, noise=0.01, drift=0.0, process_bias=0.0):
        self.now = 0.0
        self.random = random.Random(seed)
        self.noise, self.drift, self.process_bias = noise, drift, process_bias
        self.asked = []

    def side(self, name, step_ms):
        return FakeSide(self, name, step_ms)


class FakeSide:
    def __init__(self, machine, name, step_ms):
        self.machine, self.name, self.step_ms = machine, name, step_ms
        self.started, self.bias, self.pending = 0, None, None

    def send(self, question, **fields):
        if self.bias is None:
            self.started += 1
            self.bias = 1 + self.machine.random.uniform(-1, 1) * self.machine.process_bias
        self.pending = (question, fields)

    def answer(self):
        question, fields = self.pending
        machine = self.machine
        step_ms = self.step_ms * self.bias * (1 + machine.drift * machine.now)
        step_ms *= 1 + abs(machine.random.gauss(0, machine.noise))
        machine.now += step_ms / 1000 * fields.get("steps", 10)
        machine.asked.append((question, self.name))
        return {"step_ms": step_ms}

    def ask(self, question, **fields):
        self.send(question, **fields)
        return self.answer()

    def stop(self):
        self.bias = None


def contest(machine, before_ms, after_ms, *, budget_s=20.0, question=FIVE_PERCENT, **options):
    sides = machine.side("before", before_ms), machine.side("after", after_ms)
    return compete(*sides, {}, question, budget_s=budget_s, clock=lambda: machine.now, **options), sides


def test_nothing_changed_is_answered_with_the_first_look():
    result, _ = contest(Machine(), 2.0, 2.0)
    assert len(result.after_ms) == len(result.before_ms) == ROUNDS_FIRST
    assert result.pairs == 1
    assert result.ratio.high < 1.05


def test_a_slowdown_is_believed_only_from_a_second_pair_of_processes():
    result, sides = contest(Machine(), 2.0, 2.2)
    assert result.ratio.low > 1.05
    assert result.pairs == 2
    assert [side.started for side in sides] == [2, 2]


def test_the_sides_take_turns_and_the_order_turns_with_every_round():
    machine = Machine()
    contest(machine, 2.0, 2.0)
    turns = [name for question, name in machine.asked if question == "time"]
    assert turns[:8] == ["before", "after", "after", "before"] * 2


def test_drift_hits_both_sides_alike():
    for seed in range(10):
        result, _ = contest(Machine(seed, drift=0.5), 2.0, 2.0)
        assert result.ratio.contains(1.0) or abs(result.ratio.estimate - 1) < 0.01


@pytest.mark.parametrize("seed", range(20))
def test_processes_that_differ_by_luck_accuse_nobody(seed):
    result, _ = contest(Machine(seed, noise=0.02, process_bias=0.02), 2.0, 2.0)
    assert result.ratio.low <= 1.05


@pytest.mark.parametrize("seed", range(20))
def test_ten_percent_are_seen_through_noise_and_luck(seed):
    result, _ = contest(Machine(seed, noise=0.03, process_bias=0.01), 2.0, 2.2)
    assert result.ratio.low > 1.05


class Fated(FakeSide):
    """A side whose processes are as slow as fate has it, one after the other."""

    def __init__(self, machine, name, step_ms, fate):
        super().__init__(machine, name, step_ms)
        self.fate = iter(fate)

    def send(self, question, **fields):
        fresh = self.bias is None
        super().send(question, **fields)
        self.bias = next(self.fate) if fresh else self.bias


def fated(fate, after_ms, **options):
    machine = Machine()
    sides = Fated(machine, "before", 2.0, fate), machine.side("after", after_ms)
    return compete(*sides, {}, FIVE_PERCENT, budget_s=20.0, clock=lambda: machine.now, **options)


def test_pairs_that_disagree_are_settled_by_further_ones():
    slower = fated([1.0, 1.1, 1.0], 2.2)  # in the second pair, bad luck hides the slowdown
    assert (slower.pairs, slower.ratio.low > 1.05) == (3, True)
    same = fated([0.9, 1.0, 1.0], 2.0)  # in the first, good luck makes one up
    assert (same.pairs, same.ratio.high <= 1.05) == (3, True)
    assert len(same.after_ms) == 2 * ROUNDS_FIRST


def test_an_answer_that_stays_disputed_is_open():
    machine = Machine()
    sides = Fated(machine, "before", 2.0, [0.9, 1.0]), machine.side("after", 2.0)
    result = compete(*sides, {}, FIVE_PERCENT, budget_s=0.1, clock=lambda: machine.now)
    assert result.pairs == 2
    assert result.ratio.low < 1.05 < result.ratio.high


def test_both_sides_of_a_pair_share_a_core_and_pairs_take_turns_on_them():
    machine = Machine()
    seen = []
    sides = machine.side("before", 2.0), machine.side("after", 2.2)
    for side in sides:
        original = side.send
        side.send = lambda question, original=original, **fields: (
            seen.append(fields["core"]) if question == "warm" else None,
            original(question, **fields),
        )
    compete(*sides, {}, FIVE_PERCENT, budget_s=20.0, cores=(3, 1), clock=lambda: machine.now)
    assert seen == [3, 3, 1, 1]


def test_rounds_are_added_while_the_answer_is_open_and_the_budget_lasts():
    machine = Machine(noise=0.3)
    result, _ = contest(machine, 2.0, 2.1, budget_s=20.0)
    assert len(result.after_ms) > 2 * ROUNDS_FIRST
    assert 20.0 <= machine.now < 21.0


def test_a_tiny_budget_still_gets_a_first_answer():
    result, _ = contest(Machine(), 2.0, 2.0, budget_s=0.01)
    assert len(result.after_ms) == ROUNDS_FIRST


def test_the_interval_covers_both_pairs():
    assert covering([Interval(1.1, 1.08, 1.12), Interval(1.2, 1.15, 1.3)]) == Interval(1.15, 1.08, 1.3)
    assert covering([Interval(1.1, 1.08, 1.12), None]) is None


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
