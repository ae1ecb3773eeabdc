import random
from collections.abc import Sequence

import pytest

from afftool.measure.time.conditions import instability
from afftool.measure.time.race import LatencyReading


def named(samples: Sequence[float], cache: str = "warm", **changes: object) -> dict[str, str]:
    settings: dict[str, object] = {
        "steps_per_sample": 1,
        "warmup_s": 0.1,
        "settled": True,
        "stopped": "precision",
        "overhead_s": 1e-7,
    }
    reading = LatencyReading(samples_s=tuple(samples), **settings | changes)  # type: ignore[arg-type]
    return instability(reading, 0.01, cache)


def noise(n: int = 100, spread: float = 0.005) -> list[float]:
    generator = random.Random(0)
    return [0.01 * (1 + generator.gauss(0, spread)) for _ in range(n)]


def test_steady_samples_are_called_nothing() -> None:
    assert named(noise()) == {}


@pytest.mark.parametrize(
    ("name", "samples", "advice"),
    [
        ("few samples", noise(5), "raise --budget"),
        ("spread", noise(spread=0.1), "stop other work"),
        ("drift", [sample * (1 + i / 500) for i, sample in enumerate(noise())], "slower than the first"),
        ("drift", [sample * (1 - i / 500) for i, sample in enumerate(noise())], "faster than the first"),
        (
            "two levels",
            [sample * (1.5 if i % 2 else 1) for i, sample in enumerate(noise())],
            "the samples jump between",
        ),
        ("outliers", [sample * (3 if i % 10 == 0 else 1) for i, sample in enumerate(noise())], "10 of 100"),
    ],
)
def test_each_disturbance_is_named_with_advice(name: str, samples: list[float], advice: str) -> None:
    found = named(samples)
    assert advice in found[name]


def test_a_budget_that_ended_says_how_precise_it_got() -> None:
    found = named(noise(30, spread=0.04), stopped="budget")
    assert "±1.0% was asked for" in found["imprecise"]


def test_an_unsettled_warm_up_is_named() -> None:
    assert "warm-up" in named(noise(), settled=False)


def test_a_clock_too_coarse_for_the_samples_is_named() -> None:
    assert "clock" in named(noise(), overhead_s=1e-4)
    assert "clock" not in named(noise(), overhead_s=1e-4, steps_per_sample=11)


def test_with_a_cold_cache_the_clocks_error_is_that_of_one_step_however_many_make_a_sample() -> None:
    assert "clock" in named(noise(), overhead_s=1e-4, steps_per_sample=11, cache="cold")
    assert "clock" not in named(noise(), overhead_s=1e-6, steps_per_sample=11, cache="cold")
