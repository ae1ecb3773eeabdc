"""How many tries of a script must come out is decided so that what is too poor seldom passes."""

import pytest
from refereed.plan import Plan


@pytest.mark.parametrize(("tries", "poor"), [(60, 0.85), (30, 0.8), (20, 0.85)])
def test_what_is_too_poor_seldom_passes_and_one_try_less_would_be_too_few(tries: int, poor: float) -> None:
    plan = Plan(tries, poor=poor)
    assert plan.passes(poor) <= 0.05 < plan.passes(poor, plan.mark - 1)


def test_the_plan_and_the_verdict_say_their_own_error() -> None:
    plan = Plan(60, poor=0.85)
    assert plan.words() == ("Planned: 56 of 60 or more pass, which a true share of 85% has in 4.2%, one of 95% in 82%.")
    assert plan.verdict(58) == "passed: 58 of 60, so the true share lies between 88.5% and 99.6% (95%)."
    assert plan.verdict(55).startswith("failed: 55 of 60")


def test_eighteen_of_twenty_pass_in_two_of_five_and_six_tries_tell_nothing() -> None:
    assert Plan(20, poor=0.85).passes(0.85, 18) == pytest.approx(0.405, abs=0.001)
    assert Plan(6, poor=0.85).mark > 6
    assert "too few" in Plan(6, poor=0.85).words()
