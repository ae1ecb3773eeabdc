"""What a change may cost: rules as users write them."""

import math

import pytest

from afftool.errors import SpecError, UnknownName
from afftool.gate.reading import EXACT, METRICS, choose
from afftool.gate.rules import Rule, RuleBook, parse_rule, parse_rules

LATENCY, PEAK = METRICS["latency_ms"], METRICS["peak_bytes"]


def test_a_percentage_is_relative_and_a_plain_number_absolute():
    assert parse_rule(LATENCY, "5%", "here").allowed(200.0) == pytest.approx(10.0)
    assert parse_rule(PEAK, "1_024", "here").allowed(200.0) == 1024
    assert parse_rule(PEAK, 0, "here").allowed(200.0) == 0


def test_a_limit_alone_compares_with_nothing():
    rule = parse_rule(METRICS["params"], {"max": 5000}, "here")
    assert not rule.compares
    assert rule.allowed(1.0) == math.inf
    assert rule.text == "max 5,000"


def test_a_table_joins_change_floor_and_limits():
    rule = parse_rule(LATENCY, {"change": "5%", "floor": "0.02", "max": 3, "min": 0.5}, "here")
    assert rule == Rule(share=0.05, floor=0.02, max=3, min=0.5)
    assert rule.text == "5%, max 3, min 0.5"


@pytest.mark.parametrize("word", ["off", False])
def test_a_rule_can_be_off(word):
    assert parse_rule(PEAK, word, "here").off


@pytest.mark.parametrize(
    "value", ["fast", "-5%", -1, True, [], "5 %%", {}, {"floor": 1}, {"max": "x"}, {"min": 3, "max": 2}, math.inf, None]
)
def test_what_is_no_rule_is_refused_with_its_place(value):
    with pytest.raises(SpecError, match=r"rules\.peak_bytes") as refused:
        parse_rule(PEAK, value, "rules.peak_bytes")
    assert refused.value.hint


def test_a_bare_fraction_is_refused_because_it_could_mean_two_things():
    with pytest.raises(SpecError, match="share or an amount") as refused:
        parse_rule(LATENCY, 0.05, "rules.latency_ms")
    assert '"5%"' in refused.value.hint


def test_unknown_metrics_and_keys_are_refused_with_the_nearest_name():
    with pytest.raises(UnknownName) as metric:
        parse_rules({"latency": "5%"}, "[rules]")
    assert "latency_ms" in metric.value.hint
    with pytest.raises(SpecError, match="takes no key 'maximum'") as key:
        parse_rules({"params": {"maximum": 3}}, "[rules]")
    assert "max" in key.value.hint
    with pytest.raises(SpecError, match="not a table"):
        parse_rules("5%", "[rules]")


def test_without_a_rule_exact_metrics_may_not_grow_and_time_may_by_five_percent():
    book = RuleBook()
    assert all(book.find("case", name) == Rule(amount=0) for name in EXACT)
    assert book.find("case", "latency_ms").share == 0.05
    assert book.find("case", "throughput_per_s").off


def test_a_case_s_own_rule_goes_before_the_common_one():
    book = RuleBook(common={"macs": Rule(share=0.1)}, cases={"a": {"macs": Rule(share=0.2)}})
    assert book.find("a", "macs").share == 0.2
    assert book.find("b", "macs").share == 0.1
    assert book.named == ("macs",)


def test_live_parameters_may_grow_as_the_parameters_may():
    book = RuleBook(common={"params": Rule(share=0.1)})
    assert book.find("case", "live_params").share == 0.1
    assert RuleBook().find("case", "live_params") == Rule(amount=0)


def test_a_limit_on_parameters_lets_live_ones_grow_and_still_compares_them():
    rule = RuleBook(common={"params": Rule(max=5000)}).find("case", "live_params")
    assert rule.compares
    assert rule.allowed(10.0) == math.inf
    assert rule.text == "any, but none dead"
    assert RuleBook(common={"params": Rule(off=True)}).find("case", "live_params").off


def test_metrics_are_chosen_by_name_and_by_group():
    assert choose(["exact"]) == EXACT
    assert choose(["time", "macs", "time"]) == ("latency_ms", "throughput_per_s", "macs")
    with pytest.raises(UnknownName) as refused:
        choose(["latncy"])
    assert "latency_ms" in refused.value.hint
