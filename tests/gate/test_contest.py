"""Times in turns, proved with made-up machines and a made-up clock."""

import math

import pytest
from made_up_sides import Machine

from afftool.errors import Unavailable
from afftool.gate.config import GateCase
from afftool.gate.contest import FEWEST_ROUNDS, FIRST_PAIRS, ROUNDS, TAIL, Entrant, compete, entrant, pairs_needed
from afftool.gate.rules import Rule, RuleBook, change_of
from afftool.gate.side import CaseError, CrashError
from afftool.spec import CaseSpec, FusionSpec
from afftool.stats import of_processes

ONE = ("a",)


def entrants(names=ONE, limit=1.05):
    return [Entrant(name, {"name": name}, lambda before_ms: limit) for name in names]


def contest(machine, before_ms, after_ms, *, names=ONE, limit=1.05, budget_s=20.0, **options):
    sides = machine.side("before", before_ms), machine.side("after", after_ms)
    options = {"clock": lambda: machine.now} | options
    return compete(*sides, entrants(names, limit), budget_s=budget_s, **options), sides


def alone(machine, before_ms, after_ms, **options):
    found, _ = contest(machine, before_ms, after_ms, **options)
    return found["a"]


def test_what_is_plain_is_answered_with_the_first_look_at_a_few_pairs_of_fresh_processes():
    for after_ms, change in ((2.0, "same"), (2.3, "slower"), (1.7, "faster")):
        found, sides = contest(Machine(), 2.0, after_ms)
        result = found["a"]
        assert change_of(result.ratio, 1.05) == change
        assert result.pairs == len(result.before_ms) == len(result.after_ms) == FIRST_PAIRS
        assert [side.started for side in sides] == [FIRST_PAIRS, FIRST_PAIRS]
        assert result.rounds == FIRST_PAIRS * ROUNDS
        assert result.pairs_needed is None


def test_the_sample_is_pairs_of_processes_and_not_their_rounds():
    result = alone(Machine(noise=0.0, luck=0.02), 2.0, 2.0, limit=math.nan, budget_s=2.0)
    assert result.pairs == FIRST_PAIRS
    assert result.ratio == of_processes(result.ratios, tail=TAIL)
    assert len(set(result.ratios)) == FIRST_PAIRS
    assert result.after == of_processes(result.after_ms, tail=TAIL)


def test_the_sides_take_turns_and_the_order_turns_with_every_round():
    machine = Machine()
    contest(machine, 2.0, 2.0)
    turns = [name for question, name, *_ in machine.asked if question == "time"]
    assert turns[:8] == ["before", "after", "after", "before"] * 2
    assert turns[2 * ROUNDS :][:4] == ["after", "before", "before", "after"]


def test_drift_hits_both_sides_alike():
    for seed in range(10):
        result = alone(Machine(seed, drift=0.5), 2.0, 2.0)
        assert abs(result.ratio.estimate - 1) < 0.01


def test_who_starts_first_turns_with_every_pair_and_the_core_with_every_other():
    machine = Machine(noise=0.0)
    contest(machine, 2.0, 2.0, limit=math.nan, budget_s=2.0, cores=(3, 1))
    starts = [name for question, name, *_ in machine.asked if question == "start"]
    warmed = [(name, core) for question, name, _, core in filter(lambda each: each[0] == "warm", machine.asked)]
    assert starts == ["before", "after", "after", "before"] * 2
    assert warmed == list(zip(starts, [3, 3, 3, 3, 1, 1, 1, 1], strict=True))


def test_pairs_are_added_while_the_answer_is_open_and_the_budget_lasts():
    machine = Machine(noise=0.0, luck=0.1)
    result = alone(machine, 2.0, 2.1)
    assert result.pairs > 2 * FIRST_PAIRS
    assert 19.0 < result.seconds <= 20.0


def test_luck_of_processes_accuses_nobody_and_hides_no_slowdown_for_long():
    for seed in range(20):
        assert alone(Machine(seed, noise=0.02, luck=0.02), 2.0, 2.0).ratio.low <= 1.05
        found = alone(Machine(seed, noise=0.02, luck=0.01), 2.0, 2.2)
        assert change_of(found.ratio, 1.05) == "slower"


def test_a_tiny_budget_still_gets_a_first_answer_from_shorter_pairs():
    result = alone(Machine(), 2.0, 2.0, budget_s=0.01)
    assert (result.pairs, result.rounds) == (FIRST_PAIRS, FIRST_PAIRS * FEWEST_ROUNDS)
    slow = alone(Machine(), 500.0, 500.0, budget_s=20.0)
    assert slow.pairs == FIRST_PAIRS
    assert FEWEST_ROUNDS <= slow.rounds / FIRST_PAIRS < ROUNDS


def test_every_look_and_every_case_costs_width():
    def reach(names, budget_s):
        found, _ = contest(Machine(noise=0.0, luck=0.02), 2.0, 2.0, names=names, limit=math.nan, budget_s=budget_s)
        result = found["a"]
        return result.pairs, result.ratio, result.ratios

    pairs, ratio, ratios = reach(("a", "b"), 2.0)
    assert (pairs, ratio) == (FIRST_PAIRS, of_processes(ratios, tail=TAIL / 2))
    pairs, ratio, ratios = reach(ONE, 5.0)  # a look at four pairs, which spends half, and one at the end
    assert FIRST_PAIRS < pairs < 2 * FIRST_PAIRS
    assert ratio == of_processes(ratios, tail=TAIL / 2)


def test_a_look_that_is_not_the_last_leaves_something_for_those_that_follow():
    result = alone(Machine(), 2.0, 2.0)
    assert result.ratio == of_processes(result.ratios, tail=TAIL / 2)


def test_the_cases_share_the_processes_of_each_pair_in_an_order_that_is_drawn_anew():
    machine = Machine(noise=0.0)
    names = ("a", "b", "c", "d")
    _, sides = contest(machine, 2.0, 2.0, names=names, limit=math.nan, budget_s=2.0)
    assert [side.started for side in sides] == [FIRST_PAIRS, FIRST_PAIRS]
    played = [case for question, name, case, *_ in filter(lambda e: e[0] == "warm", machine.asked) if name == "after"]
    orders = [tuple(played[i : i + 4]) for i in range(0, len(played), 4)]
    assert len(orders) == FIRST_PAIRS
    assert all(sorted(order) == list(names) for order in orders)
    assert len(set(orders)) > 1
    again = Machine(noise=0.0)
    contest(again, 2.0, 2.0, names=names, limit=math.nan, budget_s=2.0)
    assert again.asked == machine.asked


def test_a_case_that_is_decided_drops_out_and_the_open_ones_go_on():
    machine = Machine(noise=0.0, luck=0.02)
    found, sides = contest(machine, {"a": 2.0, "b": 2.0}, {"a": 3.0, "b": 2.1}, names=("a", "b"))
    assert found["a"].pairs == FIRST_PAIRS
    assert found["b"].pairs > FIRST_PAIRS
    assert sides[0].started == found["b"].pairs


@pytest.mark.parametrize("error", [CaseError("not today"), CrashError("it died"), Unavailable("not here")])
def test_a_case_that_fails_fails_alone_and_the_next_one_gets_fresh_processes(error):
    machine = Machine()
    names = ("a", "bad", "c")
    found, sides = contest(machine, dict.fromkeys(names, 2.0), {"a": 2.0, "bad": error, "c": 2.3}, names=names)
    assert found["bad"] is error
    assert change_of(found["a"].ratio, 1.05) == "same"
    assert change_of(found["c"].ratio, 1.05) == "slower"
    assert sides[1].started in (FIRST_PAIRS, FIRST_PAIRS + 1)  # one more unless it came last in its pair
    assert sum(each[:3] == ("warm", "after", "bad") for each in machine.asked) == 1


def test_an_error_that_is_no_case_s_is_raised():
    with pytest.raises(KeyError):
        contest(Machine(), 2.0, {})


def test_a_contest_over_nothing_starts_nothing():
    found, sides = contest(Machine(), 2.0, 2.0, names=())
    assert (found, sides[0].started) == ({}, 0)


def test_an_open_answer_says_how_many_pairs_and_what_budget_would_tell():
    result = alone(Machine(2, luck=0.05), 2.0, 2.0, budget_s=5.0)
    assert change_of(result.ratio, 1.05) == "open"
    assert result.pairs_needed > result.pairs
    assert result.budget_s == pytest.approx(5.0 * result.pairs_needed / result.pairs, rel=0.1)


def test_the_nearer_to_the_limit_and_the_more_cases_the_more_pairs_are_needed():
    ratios = [math.exp(0.06 * sign) for sign in (-1, 1) * 6]
    far, near = pairs_needed(ratios, 1.05, 1), pairs_needed(ratios, 1.02, 1)
    assert len(ratios) < far < near
    assert pairs_needed(ratios, 1.05, 12) > far
    assert pairs_needed(ratios, 1.0001, 1) is None
    assert pairs_needed(ratios, math.inf, 1) is None


def test_what_is_asked_is_the_tightest_rule_on_time_and_nothing_below_its_floor():
    case = GateCase(name="a", spec=CaseSpec(fusion=FusionSpec.parse("add"), batch=8))
    rules = RuleBook(common={"throughput_per_s": Rule(share=0.03), "latency_ms": Rule(share=0.05, floor=0.005)})
    latency, both = entrant(rules, case, ["latency_ms"]), entrant(rules, case, ["latency_ms", "throughput_per_s"])
    assert latency.limit(1.0) == pytest.approx(1.05)
    assert latency.limit(0.01) == pytest.approx(1.5)
    assert both.limit(1.0) == pytest.approx(1 / 0.97)
    assert entrant(RuleBook(common={"latency_ms": Rule(max=3.0)}), case, ["latency_ms"]).limit(1.0) == math.inf


def test_progress_is_told_and_never_goes_back():
    heard = []
    machine = Machine(noise=0.0, luck=0.05)
    contest(machine, 2.0, 2.1, names=("a", "b"), told=lambda *each: heard.append(each))
    done = [each[0] for each in heard]
    assert done == sorted(done)
    assert 0 <= done[0] < done[-1] < 2
    assert {each[1] for each in heard} == {"a", "b"}
    assert heard[0][2] == 1
