"""What a step takes: milliseconds, block by block, and instructions, where valgrind is."""

import pytest

from afftool import backends
from afftool.backends import Preparation, Prepared
from afftool.errors import Rejected, Unavailable
from afftool.gate import stopwatch
from afftool.gate.stopwatch import Stopwatch
from afftool.spec import CaseSpec, FusionSpec

SPEC = CaseSpec(fusion=FusionSpec.parse("add"), channels=4, size=(2, 2), batch=2)


class FakeClock:
    overhead_s = 0.0

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def mark(self):
        return self.time

    def seconds(self, start, end):
        return end - start


@pytest.fixture
def machine(monkeypatch):
    """A clock and a backend whose steps take as long as `steps_ms` says, one after the other."""
    clock = FakeClock()
    clock.steps_ms, clock.compiled = [], 0

    def run(steps):
        for _ in range(steps):
            clock.time += (clock.steps_ms.pop(0) if clock.steps_ms else 2.0) / 1000

    prepared = Prepared(
        backend="eager",
        repeat=run,
        outputs=None,
        preparation=Preparation(first_call_s=0.0),
        compilations=lambda: clock.compiled,
    )
    monkeypatch.setattr(backends, "load", lambda name: lambda case: prepared)
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: clock)
    return clock


def test_warming_up_ends_when_blocks_agree(machine):
    machine.steps_ms = [500.0, 50.0, 20.0, 9.0, 5.0, 3.0] + [2.0] * 5
    assert Stopwatch(SPEC, "eager").warm(100.0) == pytest.approx(2.0)
    assert machine.time < 2.0


def test_warming_up_ends_with_its_budget_where_nothing_is_stable(machine):
    machine.steps_ms = [2.0 + i / 10 for i in range(5000)]
    Stopwatch(SPEC, "eager").warm(1.0)
    assert 1.0 <= machine.time < 1.2


def test_a_block_is_not_moved_by_what_disturbs_a_few_of_its_steps(machine):
    watch = Stopwatch(SPEC, "eager")
    watch.warm(1.0)
    machine.steps_ms = [2.0, 2.0, 90.0, 2.0, 2.0, 40.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert watch.time(10) == pytest.approx(2.0)
    machine.steps_ms = [2.2] * 11
    assert watch.time(10) == pytest.approx(2.2)


def test_a_compilation_while_it_is_timed_is_no_time(machine):
    watch = Stopwatch(SPEC, "eager")
    watch.warm(1.0)
    machine.compiled += 1
    with pytest.raises(Rejected, match="compiled again"):
        watch.time(10)


def test_a_real_case_has_a_time():
    watch = Stopwatch(SPEC, "eager")
    assert watch.warm(0.05) > 0
    assert watch.time(20) > 0


def test_what_valgrind_lacks_is_named(monkeypatch):
    monkeypatch.setattr(stopwatch.shutil, "which", lambda tool: None if tool == "valgrind" else tool)
    assert "valgrind is not installed (Debian, Ubuntu: apt-get install valgrind)" in stopwatch.why_not()
    with pytest.raises(Unavailable, match="not installed"):
        stopwatch.count_instructions({"device": "cpu"})


def test_instructions_are_counted_on_linux_and_on_the_cpu(monkeypatch):
    assert "runs on cuda:0" in stopwatch.why_not("cuda:0")
    monkeypatch.setattr(stopwatch.platform, "system", lambda: "Darwin")
    assert "this is Darwin" in stopwatch.why_not()
