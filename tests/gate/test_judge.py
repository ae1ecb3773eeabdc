"""Baseline + candidate + rules -> verdicts."""

import pytest

from afftool.gate.judge import Judgement, Pair, Verdict, judge
from afftool.gate.reading import Reading, newcomers, small
from afftool.gate.rules import Rule, RuleBook
from afftool.stats import Interval

NO_RULES = RuleBook()


def one(metric, before, after, rules=NO_RULES, **pair):
    made = [
        reading if reading is None or isinstance(reading, Reading) else Reading(values={metric: reading})
        for reading in (before, after)
    ]
    [verdict] = judge([Pair(case="gate", before=made[0], after=made[1], **pair)], rules, [metric])
    return verdict


def timed(low, high, *, metric="latency_ms", before=10.0, after=None, rules=NO_RULES, **pair):
    middle = (low + high) / 2
    return one(
        metric,
        Reading(times_ms=(before,), batch=8),
        Reading(times_ms=(after or before * middle,), batch=8),
        rules,
        ratio=Interval(middle, low, high),
        **pair,
    )


def rule(metric, **fields):
    return RuleBook(common={metric: Rule(**fields)})


@pytest.mark.parametrize(("after", "outcome"), [(99, "improved"), (100, "fine"), (101, "regression")])
def test_an_exact_metric_may_not_grow_by_one(after, outcome):
    assert one("operators", 100, after).outcome == outcome


@pytest.mark.parametrize(("after", "outcome"), [(105, "fine"), (106, "regression")])
def test_a_relative_rule_holds_up_to_its_limit(after, outcome):
    assert one("macs", 100, after, rule("macs", share=0.05)).outcome == outcome


@pytest.mark.parametrize(("after", "outcome"), [(110, "fine"), (111, "regression")])
def test_an_absolute_rule_holds_up_to_its_limit(after, outcome):
    assert one("macs", 100, after, rule("macs", amount=10)).outcome == outcome


def test_growth_from_nothing_is_a_regression_and_no_ratio():
    verdict = one("graph_breaks", 0, 1)
    assert (verdict.outcome, verdict.ratio) == ("regression", None)
    assert verdict.reason == "1 more graph break under torch.compile (0 -> 1)"


def test_a_limit_holds_whatever_the_baseline_says():
    verdict = one("params", 6000, 5500, rule("params", max=5000))
    assert verdict.outcome == "regression"
    assert verdict.reason == "5,500 parameters, above the limit of 5,000"
    assert one("params", 4000, 4900, rule("params", max=5000)).outcome == "fine"
    assert one("params", None, 4900, rule("params", max=5000)).outcome == "fine"
    assert one("params", 4000, 100, rule("params", min=500)).outcome == "regression"


def test_a_rule_that_is_off_gives_no_verdict():
    assert judge([Pair(case="a", before=None, after=Reading())], rule("macs", off=True), ["macs"])[0].outcome == "new"
    pair = Pair(case="a", before=Reading(), after=Reading())
    assert judge([pair], rule("macs", off=True), ["macs"]) == ()


def test_what_has_no_baseline_is_named_once():
    pair = Pair(case="a", before=None, after=Reading(values={"macs": 1, "params": 1}), absent="not at main")
    [verdict] = judge([pair], NO_RULES, ["macs", "params"])
    assert (verdict.outcome, verdict.reason) == ("new", "not at main")


def test_a_metric_that_the_baseline_lacks_is_named():
    verdict = one("macs", Reading(values={"params": 1}), 3)
    assert verdict.outcome == "new"
    assert "no macs" in verdict.reason


def test_a_metric_that_could_not_be_read_is_inconclusive_and_says_why():
    verdict = one("graph_breaks", 0, Reading(unread={"graph_breaks": "cannot trace it"}))
    assert (verdict.outcome, verdict.reason) == ("inconclusive", "cannot trace it")
    assert one("macs", 3, Reading()).outcome == "inconclusive"


def test_a_case_that_stopped_working_is_broken_and_one_that_cannot_run_here_is_skipped():
    broken = one("macs", 3, Reading(status="failed", reason="ValueError: no"))
    assert broken.fails
    assert broken.reason == "it ran in the baseline and cannot run now: ValueError: no"
    skipped = one("macs", 3, Reading(status="skipped", reason="no CUDA"))
    assert (skipped.outcome, skipped.fails) == ("skipped", False)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.98, 1.04, "fine"),
        (1.00, 1.05, "fine"),
        (1.03, 1.06, "inconclusive"),
        (0.97, 1.20, "inconclusive"),
        (1.051, 1.12, "regression"),
        (0.90, 0.94, "improved"),
        (0.93, 0.97, "fine"),
    ],
)
def test_a_time_regresses_only_if_its_whole_interval_is_beyond_the_rule(low, high, outcome):
    verdict = timed(low, high)
    assert verdict.outcome == outcome
    assert bool(verdict.reason) == (outcome in ("inconclusive", "regression"))


def test_a_regression_in_time_says_by_how_much():
    assert timed(1.08, 1.12).reason == "8.0% to 12.0% slower, 10.0 ms -> 11.0 ms a step"
    assert "holds the limit of +5.0%" in timed(1.0, 1.2).reason


def test_a_change_below_the_floor_is_never_held_against_anyone():
    verdict = timed(1.08, 1.12, before=0.02)
    assert verdict.outcome == "fine"
    assert "below the floor" in verdict.reason


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pairs": 12, "pairs_needed": 40, "budget_s": 63.2}, "12 pairs of processes were timed, about 40 would tell"),
        ({"pairs": 12, "pairs_needed": 40, "budget_s": 63.2}, "--budget 64"),
        ({"pairs": 12, "pairs_needed": 400, "budget_s": 631.0}, "--budget 640"),
        ({"pairs": 4, "pairs_needed": 9, "budget_s": 2.1}, "--budget 3"),
        ({"pairs": 12}, "too near the limit to say how many would tell"),
        ({}, "more jobs in the baseline would tell"),
    ],
)
def test_an_open_answer_says_what_would_give_one(fields, words):
    verdict = timed(0.99, 1.07, **fields)
    assert verdict.outcome == "inconclusive"
    assert "-1.0% to +7.0% holds the limit of +5.0%" in verdict.reason
    assert words in verdict.reason
    assert (verdict.pairs, verdict.pairs_needed) == (fields.get("pairs"), fields.get("pairs_needed"))


def test_a_ratio_that_may_only_advise_leaves_a_limit_its_say():
    rules = rule("latency_ms", share=0.05, max=11.0)
    why = {"ratio_advises": "one job"}
    advised = timed(1.2, 1.3, before=1.0, rules=rules, **why)
    assert (advised.outcome, advised.advisory, advised.fails) == ("regression", True, False)
    assert advised.reason.startswith("one job; ")
    assert timed(1.2, 1.3, after_ms=(12.0, 13.0), rules=rules, **why).fails


def test_an_open_answer_is_fine_only_if_even_its_end_is_below_the_floor():
    assert timed(0.9, 1.15, before=0.02).outcome == "fine"
    assert timed(0.7, 1.3, before=1.0, after=1.0).outcome == "inconclusive"


def test_an_absolute_rule_on_time_is_in_milliseconds():
    rules = rule("latency_ms", amount=2.0)
    assert timed(1.05, 1.15, rules=rules).outcome == "fine"
    assert timed(1.25, 1.35, rules=rules).outcome == "regression"


def test_throughput_is_judged_by_how_far_it_falls():
    rules = rule("throughput_per_s", share=0.05)
    fell = timed(1.08, 1.12, metric="throughput_per_s", rules=rules)
    assert fell.outcome == "regression"
    assert (fell.before, fell.ratio.high) == (800.0, pytest.approx(1 / 1.08))
    assert timed(1.0, 1.05, metric="throughput_per_s", rules=rules).outcome == "fine"
    assert timed(0.8, 0.9, metric="throughput_per_s", rules=rules).outcome == "improved"


def test_a_limit_on_time_needs_the_whole_interval_beyond_it():
    rules = rule("latency_ms", max=10.0)
    assert timed(1.0, 1.1, rules=rules, after_ms=(10.2, 10.8)).outcome == "regression"
    assert timed(1.0, 1.1, rules=rules, after_ms=(9.5, 10.8)).outcome == "inconclusive"
    assert timed(1.0, 1.1, rules=rules, after_ms=(9.0, 9.9)).outcome == "fine"


def test_a_time_without_a_baseline_time_is_new():
    assert one("latency_ms", Reading(), Reading(times_ms=(1.0,))).outcome == "new"


def test_instructions_may_move_by_what_valgrind_moves_them():
    assert one("instructions", 1_000_000, 1_019_000).outcome == "fine"
    assert one("instructions", 1_000_000, 981_000).outcome == "fine"
    assert one("instructions", 1_000_000, 1_021_000).outcome == "regression"
    assert one("instructions", 1_000_000, 900_000).outcome == "improved"


def test_a_parameter_that_dies_is_a_regression_although_nothing_grew():
    before = Reading(values={"params": 100, "live_params": 100})
    after = Reading(values={"params": 100, "live_params": 60}, details={"dead_params": {"b.weight": 40}})
    verdict = one("live_params", before, after)
    assert verdict.outcome == "regression"
    assert "40 more parameters that no gradient reaches (0 before): b.weight +40" in verdict.reason


def test_advisory_verdicts_are_told_and_never_decide():
    verdict = timed(1.2, 1.3, advisory={"latency_ms": "another machine"})
    assert (verdict.outcome, verdict.advisory, verdict.fails) == ("regression", True, False)
    assert verdict.reason.startswith("another machine; 20.0% to 30.0% slower")
    assert Judgement((verdict,)).exit_code(strict=True) == 0


def verdicts(*outcomes):
    return Judgement(tuple(Verdict(case="a", metric="macs", outcome=outcome) for outcome in outcomes))


@pytest.mark.parametrize(
    ("outcomes", "options", "code"),
    [
        (["fine", "improved", "skipped"], {}, 0),
        (["fine", "regression"], {}, 3),
        (["fine", "broken"], {}, 3),
        (["fine", "inconclusive"], {}, 0),
        (["fine", "inconclusive"], {"strict": True}, 4),
        (["regression", "inconclusive", "new"], {"strict": True}, 3),
        (["fine", "new"], {}, 5),
        (["inconclusive", "new"], {"strict": True}, 5),
        (["fine", "new"], {"on_missing": "skip"}, 0),
        (["fine", "new"], {"on_missing": "create"}, 0),
    ],
)
def test_every_exit_code_means_one_thing(outcomes, options, code):
    assert verdicts(*outcomes).exit_code(**options) == code


def test_what_grew_is_listed_largest_first():
    assert newcomers({"a": 1, "gone": 5}, {"a": 3, "b": 7}) == {"b": 7, "a": 2}


def test_a_breakdown_kept_by_module_is_compared_with_one_by_parameter():
    assert newcomers({"conv": 10, "bn": 4}, {"conv.weight": 8, "conv.bias": 2, "bn.weight": 4, "new.weight": 6}) == {
        "new": 6
    }


def test_a_long_breakdown_is_summed_by_module_for_the_file():
    long = {f"block{i % 3}.layer{i}.weight": 1 for i in range(60)}
    assert small(long) == {"block0": 20, "block1": 20, "block2": 20}
    assert small({f"m{i}": 1 for i in range(60)}) == {}


def test_a_metric_that_the_case_cannot_have_is_skipped_unless_it_had_one():
    after = Reading(inapplicable={"saved_bytes": "it cannot be trained"})
    never = one("saved_bytes", Reading(values={"params": 1}), after)
    assert (never.outcome, never.reason) == ("skipped", "it cannot be trained")
    assert Judgement((never,)).exit_code(strict=True) == 0
    assert one("saved_bytes", 8, after).outcome == "inconclusive"


def test_a_limit_on_parameters_does_not_hide_that_some_died():
    rules = rule("params", max=5000)
    before = Reading(values={"params": 100, "live_params": 100})
    died = Reading(values={"params": 100, "live_params": 60}, details={"dead_params": {"b.weight": 40}})
    assert one("live_params", before, died, rules).outcome == "regression"
    assert one("live_params", before, Reading(values={"params": 300, "live_params": 300}), rules).outcome == "fine"


@pytest.mark.parametrize(
    ("before", "outcome", "words"),
    [
        (0.0, "regression", "before all were finite"),
        (0.1, "regression", "before 10%"),
        (0.25, "fine", "before 25%"),
        (None, "inconclusive", "whether they were before is not known: the baseline does not say"),
    ],
)
def test_a_case_that_is_not_finite_says_so_and_fails_where_it_was(before, outcome, words):
    sides = [Reading(values={"params": 5}, nonfinite_share=share) for share in (before, 0.25)]
    said, params = judge([Pair(case="gate", before=sides[0], after=sides[1])], NO_RULES, ["params"])
    assert (said.metric, said.outcome, params.outcome) == ("nonfinite_share", outcome, "fine")
    assert said.reason.startswith("25% of its outputs and gradients are infinite or NaN")
    assert words in said.reason


def test_a_new_case_that_is_not_finite_says_so_beside_being_new():
    verdicts = judge([Pair(case="gate", before=None, after=Reading(nonfinite_share=0.5))], NO_RULES, ["params"])
    assert [verdict.outcome for verdict in verdicts] == ["inconclusive", "new"]


def test_nothing_is_said_of_values_that_are_finite():
    finite = Reading(values={"params": 5}, nonfinite_share=0.0)
    [verdict] = judge([Pair(case="gate", before=finite, after=finite)], NO_RULES, ["params"])
    assert verdict.metric == "params"
