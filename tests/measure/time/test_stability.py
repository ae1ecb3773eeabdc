import random
from collections.abc import Sequence

import pytest

from afftool.measure.time.conditions import Disturbance, instability, told
from afftool.measure.time.race import LatencyReading


def found(samples: Sequence[float], cache: str = "warm", **changes: object) -> dict[str, Disturbance]:
    settings: dict[str, object] = {
        "steps_per_sample": 1,
        "warmup_s": 0.1,
        "settled": True,
        "stopped": "precision",
        "overhead_s": 1e-7,
    }
    reading = LatencyReading(samples_s=tuple(samples), **settings | changes)  # type: ignore[arg-type]
    return instability(reading, 0.01, cache)


def named(samples: Sequence[float], cache: str = "warm", **changes: object) -> dict[str, str]:
    return {kind: one.text for kind, one in found(samples, cache, **changes).items()}


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


@pytest.mark.parametrize(
    ("kind", "little", "much"),
    [
        ("few samples", noise(5), noise(3)),
        ("spread", noise(spread=0.06), noise(spread=0.2)),
        ("drift", *([s * (1 + i / n) for i, s in enumerate(noise())] for n in (900, 300))),
        ("two levels", *([s * (by if i % 2 else 1) for i, s in enumerate(noise())] for by in (1.2, 1.5))),
        ("outliers", *([s * (3 if i % n == 0 else 1) for i, s in enumerate(noise())] for n in (15, 8))),
    ],
)
def test_of_two_disturbances_of_a_kind_the_worse_has_the_larger_figure(
    kind: str, little: list[float], much: list[float]
) -> None:
    assert 0 < found(little)[kind].figure < found(much)[kind].figure


def test_a_record_keeps_words_and_figures_apart() -> None:
    assert told({"drift": Disturbance("let it cool", 0.04)}) == {
        "instability": {"drift": "let it cool"},
        "instability_figures": {"drift": 0.04},
    }


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
