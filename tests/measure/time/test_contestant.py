import dataclasses
import gc
from collections.abc import Callable

import pytest
import torch
from fake_time import FakeClock, FakeGpu

from afftool.backends import Preparation, Prepared
from afftool.measure.time.caches import flusher
from afftool.measure.time.contestant import PRIME_BELOW_S, PRIMING_STEPS, Timed


class Steps:
    """Steps that take `step_s` by a fake clock, and a call `call_s` besides."""

    def __init__(self, step_s: float, call_s: float = 0.0) -> None:
        self.clock = FakeClock(overhead_s=0.25)
        self.step_s, self.call_s = step_s, call_s
        self.made = 0

    def run(self, times: int) -> None:
        self.made += times
        self.clock.pass_time(self.call_s + self.step_s * times)

    def prepared(self, **parts: float) -> Prepared:
        return Prepared(
            backend="eager",
            repeat=self.run,
            outputs=lambda seed: None,  # type: ignore[arg-type, return-value]
            preparation=Preparation(first_call_s=0.0),
            parts={name: (lambda s=seconds: self.clock.pass_time(s)) for name, seconds in parts.items()},
        )


@pytest.mark.parametrize(("timed", "untimed"), [(1, 1), (2, 2), (40, PRIMING_STEPS)])
def test_a_few_steps_go_untimed_before_each_warm_sample(timed: int, untimed: int) -> None:
    steps = Steps(0.25 * PRIME_BELOW_S)
    sample = Timed(steps.prepared(), steps.clock).sample(timed)
    assert sample.step_s == steps.step_s
    assert steps.made == timed + untimed


def test_what_a_call_takes_besides_its_steps_is_no_part_of_their_time() -> None:
    steps = Steps(1.0, call_s=0.5)
    for flush in (None, lambda: None):
        timed = Timed(steps.prepared(), steps.clock, flush)
        assert [timed.sample(n).step_s for n in (4, 1)] == [1.0, 1.0]


def test_a_sample_says_how_unsure_its_clock_and_the_empty_calls_leave_it() -> None:
    steps = Steps(1.0)
    timed = Timed(steps.prepared(), steps.clock)
    overheads = []
    for call_s in (0.5, 1.0) * 4:
        steps.call_s = call_s
        overheads.append(timed.sample(2).overhead_s)
    assert (overheads[0], overheads[-1]) == (0.25, 0.25 + 0.5 / 2)


def test_python_collects_no_garbage_while_steps_are_timed() -> None:
    enabled = []
    steps = Steps(1.0)
    prepared = dataclasses.replace(steps.prepared(), repeat=lambda n: (enabled.append(gc.isenabled()), steps.run(n)))  # type: ignore[arg-type, return-value]
    Timed(prepared, steps.clock).sample(2)
    assert not any(enabled)
    assert gc.isenabled()


def test_the_first_step_in_a_new_place_is_not_timed() -> None:
    steps = Steps(2 * PRIME_BELOW_S)
    timed = Timed(dataclasses.replace(steps.prepared(), move=lambda: True), steps.clock)
    timed.move()
    assert steps.made == 1


def test_where_nothing_moves_no_step_is_made_for_it() -> None:
    steps = Steps(0.1 * PRIME_BELOW_S)
    Timed(steps.prepared(), steps.clock).move()
    assert steps.made == 0


def test_long_steps_are_not_primed_once_they_are_known_to_be_long() -> None:
    steps = Steps(2 * PRIME_BELOW_S)
    timed = Timed(steps.prepared(), steps.clock)
    timed.sample(1)
    timed.sample(1)
    assert steps.made == 3


def test_a_cold_cache_is_flushed_before_every_step_and_the_flush_is_not_timed() -> None:
    steps = Steps(0.25)
    flushes = []

    def flush() -> None:
        flushes.append(steps.made)
        steps.clock.pass_time(7.0)

    sample = Timed(steps.prepared(), steps.clock, flush).sample(3)
    assert sample.step_s == 0.25
    assert flushes == [0, 1, 2]


def test_parts_are_timed_apart() -> None:
    steps = Steps(0.0)
    timed = Timed(steps.prepared(forward=0.5, backward=1.0, optimizer=0.25), steps.clock)
    assert timed.split(3) == {"forward": 0.5, "backward": 1.0, "optimizer": 0.25}


def test_a_cold_cache_is_flushed_once_before_the_parts_of_each_step() -> None:
    steps = Steps(1.0)
    log: list[str] = []
    prepared = dataclasses.replace(
        steps.prepared(),
        parts={name: lambda n=name: (log.append(n), steps.clock.pass_time(0.5)) for name in ("forward", "backward")},
    )

    def flush() -> None:
        log.append("flush")
        steps.clock.pass_time(7.0)

    assert Timed(prepared, steps.clock, flush).split(2) == {"forward": 0.5, "backward": 0.5}
    assert log == ["flush", "forward", "backward"] * 2


def on_gpu(monkeypatch: pytest.MonkeyPatch, *, launch_s: float, kernel_s: float) -> tuple[Timed, Timed]:
    """Four kernels a step of training on a fake GPU, whose flush takes ten seconds: timed warm, and timed cold."""
    gpu = FakeGpu()

    class Scratch:
        def add_(self, _number: int) -> None:
            gpu.launch(0.001, 10.0)

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    monkeypatch.setattr(torch, "zeros", lambda *args, **options: Scratch())

    def launches(times: int) -> None:
        for _ in range(times):
            gpu.launch(launch_s, kernel_s)

    prepared = Prepared(
        backend="eager",
        repeat=lambda steps: launches(4 * steps),
        outputs=lambda seed: None,  # type: ignore[arg-type, return-value]
        preparation=Preparation(first_call_s=0.0),
        parts={"forward": lambda: launches(2), "backward": lambda: launches(2)},
    )
    return Timed(prepared, gpu), Timed(prepared, gpu, flusher("cuda:0"))


def test_launches_do_not_hide_behind_the_flush_of_a_cold_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    warm, cold = on_gpu(monkeypatch, launch_s=0.5, kernel_s=0.125)
    assert cold.sample(3).step_s == 4 * 0.5 + 0.125  # the host is the slower one: its last kernel ends the step
    assert cold.sample(3).step_s >= warm.sample(3).step_s
    assert cold.split(3) == {"forward": 2 * 0.5 + 0.125, "backward": 2 * 0.5}


def test_where_the_gpu_is_slower_than_its_launches_a_cold_step_waits_for_one_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warm, cold = on_gpu(monkeypatch, launch_s=0.125, kernel_s=0.5)
    assert warm.sample(3).step_s == 4 * 0.5
    assert cold.sample(3).step_s == 0.125 + 4 * 0.5


def test_inference_has_no_parts() -> None:
    steps = Steps(1.0)
    assert Timed(steps.prepared(), steps.clock).split(3) == {}
    assert steps.clock.now() == 0.0


def test_single_steps_are_told_apart_without_what_the_call_takes() -> None:
    steps = Steps(1.0, call_s=0.5)
    steps.clock.overhead_s = 0.0
    timed = Timed(steps.prepared(), steps.clock)
    taken = iter([1.0, 5.0, 1.0])
    timed.sample(1)

    def repeat(times: int) -> None:
        for _ in range(times):
            steps.clock.pass_time(next(taken))
        steps.clock.pass_time(0.5)

    timed.prepared = dataclasses.replace(timed.prepared, repeat=repeat)
    assert timed.singly(3) == [1.0, 5.0, 1.0]


@pytest.mark.parametrize("flush", [None, lambda: None], ids=["warm", "cold"])
def test_a_clock_that_errs_by_much_of_a_step_tells_no_single_one(flush: Callable[[], None] | None) -> None:
    for step_s, told in ((0.3, 0), (6.0, 4)):
        steps = Steps(step_s)
        assert steps.clock.overhead_s == 0.25
        assert len(Timed(steps.prepared(), steps.clock, flush).singly(4)) == told
