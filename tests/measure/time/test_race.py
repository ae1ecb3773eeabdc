import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from fake_time import FakeClock, FakeContestant

from afftool.errors import Rejected
from afftool.measure.time.contestant import Sample
from afftool.measure.time.race import FEWEST_ROUNDS, MOVE_SHARE, LatencyReading, race
from afftool.stats import paired_ratio, series_interval


def run(clock: FakeClock, *contestants: FakeContestant, budget_s: float = 10.0, **options: Any) -> list[LatencyReading]:
    results = race(contestants, now=clock.now, budget_s=budget_s, **options)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results  # type: ignore[return-value]


def noisy(seed: int, level: float = 0.01, spread: float = 0.01) -> Callable[[int], float]:
    generator = random.Random(seed)
    return lambda n: level * (1 + generator.gauss(0, spread))


def rounds_of(*names: str) -> list[list[str]]:
    """The rounds that count, each as the names in their order."""
    clock, log = FakeClock(), list[str]()
    run(clock, *(FakeContestant(clock, lambda n: 0.01, name=name, log=log) for name in names), budget_s=5.0)
    return [log[i : i + len(names)] for i in range(0, len(log), len(names))][-FEWEST_ROUNDS:]


def test_every_other_round_goes_backwards() -> None:
    rounds = rounds_of("a", "b", "c")
    assert len(rounds) == FEWEST_ROUNDS
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert [there[::-1] for there in rounds[::2]] == rounds[1::2]


def test_everyone_is_as_often_at_the_turn_where_one_runs_twice_in_a_row() -> None:
    rounds = rounds_of("a", "b", "c", "d", "e")
    last = Counter(one[-1] for one in rounds[::2])
    assert set(last.values()) == {FEWEST_ROUNDS // 2 // 5}


def test_contestants_move_between_pairs_of_rounds_and_spend_little_time_on_it() -> None:
    clock = FakeClock()
    cheap, dear = (FakeContestant(clock, noisy(5, spread=0.2), move_s=s) for s in (0.0, 0.004))
    run(clock, cheap, dear, budget_s=20.0, precision=1e-4)
    assert 50 <= len(dear.moved_at) == len(cheap.moved_at) <= MOVE_SHARE * 20.0 / 0.004 + 1
    alone = FakeContestant(clock, noisy(6, spread=0.01))
    (reading,) = run(clock, alone)
    assert len(alone.moved_at) == len(reading.samples_s) // 2


def test_a_place_in_memory_that_costs_a_few_percent_does_not_pass_for_a_difference() -> None:
    held = 0
    for seed in range(20):
        clock = FakeClock()
        equals = [_Placed(clock, 2 * seed + i) for i in (0, 1)]
        one, other = run(clock, *equals, budget_s=8.0, precision=1e-4)
        ratio = paired_ratio(other.samples_s, one.samples_s)
        assert ratio is not None
        assert ratio.high - ratio.low < 0.03
        held += ratio.contains(1.0)
    assert held >= 18


class _Placed(FakeContestant):
    """A contestant whose steps take up to 6% longer, depending on where its data lies."""

    def __init__(self, clock: FakeClock, seed: int) -> None:
        self._random = random.Random(seed)
        self._place = 1.0
        super().__init__(clock, lambda n: 0.005 * self._place * (1 + abs(self._random.gauss(0, 0.02))), move_s=0.0005)

    def move(self) -> None:
        super().move()
        self._place = self._random.uniform(1.0, 1.06)


def test_work_that_comes_later_leaves_as_many_samples_as_one_step_each_allows() -> None:
    """Warm, 50 steps make a sample; then other work begins, and a step takes 20 ms where it took 20 us."""
    clock = FakeClock()
    disturbed = FakeContestant(clock, lambda n: 2e-5 if n < 30 else 0.02)
    (reading,) = run(clock, disturbed, budget_s=4.0, precision=1e-9)
    assert max(disturbed.steps) == 50
    assert disturbed.steps[-1] == 1
    assert len(reading.samples_s) > 60


def test_a_sample_has_all_its_steps_again_when_the_other_work_is_over() -> None:
    clock = FakeClock()
    disturbed = FakeContestant(clock, lambda n: 0.02 if 30 <= n < 40 else 2e-5)
    (reading,) = run(clock, disturbed, precision=1e-9, budget_s=2.0)
    assert disturbed.steps[-1] == reading.steps_per_sample == 50


def test_a_single_slow_sample_changes_no_other() -> None:
    clock = FakeClock()
    hit = FakeContestant(clock, lambda n: 0.02 if n == 40 else 2e-5)
    run(clock, hit)
    assert set(hit.steps[10:]) == {50}


def test_warm_up_lasts_until_the_times_are_level_and_none_of_it_is_kept() -> None:
    clock = FakeClock()
    slow_start = FakeContestant(clock, lambda n: 0.05 - 0.001 * n if n < 30 else 0.02)
    (reading,) = run(clock, slow_start, budget_s=100.0)
    assert reading.settled
    assert slow_start.taken - len(reading.samples_s) >= 30
    assert set(reading.samples_s) == {0.02}
    assert reading.warmup_s > 30 * 0.02


def test_a_steady_contestant_is_warm_after_two_windows() -> None:
    clock = FakeClock()
    steady = FakeContestant(clock, lambda n: 0.01)
    (reading,) = run(clock, steady)
    assert steady.taken - len(reading.samples_s) == 6


def test_warm_up_goes_on_while_anything_compiles() -> None:
    clock = FakeClock()
    contestant = FakeContestant(clock, lambda n: 0.01, compiles_in=range(20))
    (reading,) = run(clock, contestant, budget_s=100.0)
    assert contestant.taken - len(reading.samples_s) == 21


def test_warm_up_that_its_budget_ends_is_reported_as_not_settled() -> None:
    clock = FakeClock()
    (reading,) = run(clock, FakeContestant(clock, lambda n: 0.01 * 0.9**n + 0.001), budget_s=0.1)
    assert not reading.settled


def test_what_still_compiles_when_warm_up_ends_is_rejected() -> None:
    clock = FakeClock()
    with pytest.raises(Rejected, match="still compiling"):
        run(clock, FakeContestant(clock, lambda n: 0.01, compiles_in=range(10_000)))


def test_a_recompilation_while_timed_rejects_that_contestant_alone() -> None:
    clock = FakeClock()
    good, bad = (FakeContestant(clock, lambda n: 0.01, compiles_in=which) for which in ((), (12,)))
    kept, rejected = race([good, bad], now=clock.now, budget_s=10.0)
    assert isinstance(kept, LatencyReading)
    assert len(kept.samples_s) > FEWEST_ROUNDS
    assert isinstance(rejected, Rejected)
    assert "compiled again while it was timed" in rejected.message


def test_a_contestant_that_raises_leaves_the_others_in_the_race() -> None:
    def breaks(n: int) -> float:
        if n == 9:
            raise RuntimeError("no more")
        return 0.01

    clock = FakeClock()
    broken, good = race(
        [FakeContestant(clock, breaks), FakeContestant(clock, lambda n: 0.01)], now=clock.now, budget_s=10.0
    )
    assert isinstance(broken, RuntimeError)
    assert isinstance(good, LatencyReading)


def test_sampling_stops_where_the_median_is_precise_enough_once_half_of_the_budget_is_spent() -> None:
    clock = FakeClock()
    (reading,) = run(clock, FakeContestant(clock, noisy(1, spread=0.02)), budget_s=20.0)
    interval = series_interval(reading.samples_s)
    assert interval is not None
    assert interval.half_width <= 0.01
    assert reading.stopped == "precision"
    assert 10.0 <= clock.now() < 12.0
    assert len(reading.samples_s) > FEWEST_ROUNDS


def test_sampling_goes_on_until_the_noisiest_is_precise() -> None:
    clock = FakeClock()
    calm, wild = run(
        clock, FakeContestant(clock, noisy(1, spread=0.001)), FakeContestant(clock, noisy(2, spread=0.05)), budget_s=1e3
    )
    assert len(calm.samples_s) == len(wild.samples_s)
    assert (calm.stopped, wild.stopped) == ("precision", "precision")


def test_the_budget_ends_what_precision_cannot() -> None:
    clock = FakeClock()
    (reading,) = run(clock, FakeContestant(clock, noisy(3, spread=0.5)), budget_s=2.0)
    assert reading.stopped == "budget"
    assert 2.0 <= clock.now() < 2.2


def test_even_a_step_longer_than_the_budget_is_timed_twice() -> None:
    clock = FakeClock()
    (reading,) = run(clock, FakeContestant(clock, lambda n: 60.0), budget_s=1.0)
    assert reading.samples_s == (60.0, 60.0)
    assert reading.stopped == "budget"


@pytest.mark.parametrize(("overhead_s", "step_s"), [(1e-7, 3e-6), (1e-5, 2e-4), (5e-5, 0.2), (1e-6, 0.00099)])
def test_samples_are_so_long_that_the_clock_weighs_a_thousandth(overhead_s: float, step_s: float) -> None:
    clock = FakeClock(overhead_s)
    (reading,) = run(clock, FakeContestant(clock, lambda n: step_s), budget_s=100.0)
    sample_s = reading.steps_per_sample * step_s
    assert overhead_s <= 0.001 * sample_s * (1 + 1e-9)
    assert sample_s < 10 * max(1e-3, 2000 * overhead_s, step_s)


def test_one_short_sample_does_not_make_an_endless_one() -> None:
    clock = FakeClock()
    contestant = FakeContestant(clock, lambda n: 1e-9 if n == 0 else 1e-3)
    run(clock, contestant)
    assert max(contestant.steps) <= 100


def test_parts_of_a_step_are_medians_of_looks_of_their_own() -> None:
    clock = FakeClock()
    (reading,) = run(clock, FakeContestant(clock, lambda n: 0.01, parts={"forward": 0.004, "backward": 0.007}))
    assert reading.parts_s == {"forward": 0.004, "backward": 0.007}
    fields = reading.fields(batch=8)
    assert (fields["forward_ms"], fields["latency_ms"]) == (4.0, 10.0)
    assert "optimizer_ms" not in fields
    assert fields["throughput_per_s"] == pytest.approx(800.0)


def test_a_tenth_of_slowdown_shows_in_twenty_of_twenty_races_on_a_drifting_machine() -> None:
    for seed in range(20):
        clock = FakeClock()

        def on_this_machine(factor: float, seed: int, clock: FakeClock = clock) -> Callable[[int], float]:
            generator = random.Random(seed)
            return lambda n: 0.005 * factor * (1 + 0.02 * clock.now()) * (1 + abs(generator.gauss(0, 0.03)))

        base, slow = run(
            clock,
            FakeContestant(clock, on_this_machine(1.0, 2 * seed)),
            FakeContestant(clock, on_this_machine(1.1, 2 * seed + 1)),
            budget_s=8.0,
        )
        ratio = paired_ratio(slow.samples_s, base.samples_s)
        assert ratio is not None
        assert ratio.low > 1.05
        assert ratio.high - ratio.low <= 0.04


class _Bursting(FakeContestant):
    """Every fiftieth step takes five times as long, whoever counts them."""

    def __init__(self, clock: FakeClock, step_s: float) -> None:
        self._made = 0
        self._one_s = step_s
        super().__init__(clock, lambda n: 0.0)

    def _step(self) -> float:
        self._made += 1
        took_s = self._one_s * (5 if self._made % 50 == 0 else 1)
        self._clock.pass_time(took_s)
        return took_s

    def sample(self, steps: int) -> Sample:
        return Sample(sum(self._step() for _ in range(steps)) / steps, 0, self._clock.overhead_s)

    def singly(self, steps: int) -> list[float]:
        return [self._step() for _ in range(steps)]


@pytest.mark.parametrize("step_s", [2e-5, 0.02], ids=["fifty steps a sample", "one step a sample"])
def test_the_99th_percentile_is_of_single_steps_not_of_means_over_many(step_s: float) -> None:
    clock = FakeClock()
    (reading,) = run(clock, _Bursting(clock, step_s), budget_s=10.0)
    assert (reading.steps_per_sample == 1) == (step_s > 1e-3)
    fields = reading.fields(batch=1)
    assert fields["latency_p99_ms"] == pytest.approx(5e3 * step_s)
    assert fields["single_steps"] == len(reading.single_s) >= 100
    assert fields["latency_ms"] < 1.2e3 * step_s


def test_steps_that_no_clock_tells_one_by_one_have_no_99th_percentile() -> None:
    clock = FakeClock()
    (reading,) = run(clock, FakeContestant(clock, lambda n: 1e-6), budget_s=2.0)
    fields = reading.fields(batch=1)
    assert len(reading.samples_s) > 100
    assert (fields["latency_p99_ms"], fields["single_steps"]) == (None, 0)


def test_fields_of_few_samples_claim_nothing() -> None:
    reading = LatencyReading(
        samples_s=(0.1, 0.2), steps_per_sample=1, warmup_s=0.0, settled=True, stopped="budget", overhead_s=0.0
    )
    fields = reading.fields(batch=1)
    assert fields["latency_low_ms"] is fields["latency_iqr_ms"] is fields["latency_p99_ms"] is None
    assert fields["samples_ms"] == (100.0, 200.0)


def test_a_contestant_that_ends_the_program_loses_its_lane_and_ctrl_c_still_ends_the_race() -> None:
    clock = FakeClock()

    def ends(error: type[BaseException]) -> Callable[[int], float]:
        def step_s(n: int) -> float:
            if n == 20:
                raise error(3)
            return 0.01

        return step_s

    both = [FakeContestant(clock, ends(SystemExit)), FakeContestant(clock, lambda n: 0.01)]
    left, other = race(both, now=clock.now, budget_s=10.0)
    assert isinstance(left, Rejected)
    assert "SystemExit(3)" in str(left)
    assert isinstance(other, LatencyReading)
    with pytest.raises(KeyboardInterrupt):
        run(clock, FakeContestant(clock, ends(KeyboardInterrupt)))
