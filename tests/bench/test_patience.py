"""How long a row in a process of its own is waited for. The process is played where its answers do not matter."""

import dataclasses
import re
from typing import Any

import pytest
from fake_time import FakeClock, FakeContestant

from afftool.bench import Options, bench
from afftool.bench.child import LEAST_WAIT_S, TIMES_AS_LONG, Isolated, Patience
from afftool.bench.entry import Entrant
from afftool.bench.rows import blank
from afftool.errors import SpecError
from afftool.measure.time.contestant import Sample
from afftool.process import ChildSilent
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec

pytestmark = pytest.mark.usefixtures("hurried")


def case(fusion: str) -> CaseSpec:
    return CaseSpec(fusion=FusionSpec.parse(fusion), channels=8, size=(6, 5), batch=2)


CASE = case("add")


class PlayedChild:
    """Answers after `takes_s` of played time, and keeps how long it was given; silent once that is too short."""

    def __init__(self, clock: FakeClock) -> None:
        self.pid = 0
        self.clock = clock
        self.takes_s = 1.0
        self.asked = ""
        self.given: list[tuple[str, float]] = []

    def send(self, verb: str, **fields: Any) -> None:
        self.asked = verb

    def answer(self, *, timeout_s: float) -> dict[str, Any]:
        self.given.append((self.asked, timeout_s))
        self.clock.pass_time(min(self.takes_s, timeout_s))
        if self.takes_s > timeout_s:
            self.stop()
            raise ChildSilent(timeout_s)
        return {"record": blank(CASE, "eager").to_dict(), "sample": {"step_s": 0.001}, "parts": {}}

    def stop(self) -> None:
        self.given.append(("stop", 0.0))


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> PlayedChild:
    played = PlayedChild(FakeClock())
    monkeypatch.setattr("afftool.bench.child.Child", lambda module: played)
    return played


def isolated(patience: Patience) -> Isolated:
    child = Isolated(patience)
    child.enter(CASE, blank(CASE, "eager"), measures=("latency",), cache="warm", threads=1)
    return child


def test_until_a_step_is_known_a_row_has_as_long_as_was_said_and_then_many_times_what_a_step_took(
    child: PlayedChild,
) -> None:
    row = isolated(Patience(600.0, now=child.clock.now))
    child.takes_s = 10.0
    for steps in (1, 5):
        row.sample(steps)
    row.split(3)
    row.move()
    assert child.given == [
        ("enter", 600.0),
        ("sample", 600.0),
        ("sample", TIMES_AS_LONG * 10.0 * 5),
        ("split", TIMES_AS_LONG * 2.0 * 3),
        ("move", LEAST_WAIT_S),
    ]


def test_short_steps_have_a_minute_all_the_same(child: PlayedChild) -> None:
    row = isolated(Patience(600.0, now=child.clock.now))
    child.takes_s = 0.002
    row.sample(1)
    row.sample(100)
    assert child.given[-1] == ("sample", LEAST_WAIT_S)
    assert LEAST_WAIT_S == 60.0


def test_a_row_that_is_not_ready_in_time_says_what_to_do_and_its_process_is_ended(child: PlayedChild) -> None:
    child.takes_s = 601.0
    with pytest.raises(ChildSilent) as silent:
        isolated(Patience(600.0, now=child.clock.now))
    assert silent.value.failure.reason.startswith("its process did not answer for 600 s (hint: ")
    assert "--timeout" in silent.value.failure.reason
    assert child.given[-1] == ("stop", 0.0)


def test_a_process_that_only_times_has_as_long_to_get_ready_and_is_told_the_same(child: PlayedChild) -> None:
    child.takes_s = 601.0
    row = Isolated(Patience(600.0, now=child.clock.now))
    row.prepare(CASE, "eager", writes=(), cache="warm", threads=1)
    with pytest.raises(ChildSilent) as silent:
        row.wait()
    assert "--timeout" in silent.value.failure.reason
    assert child.given == [("prepare", 600.0), ("stop", 0.0)]


def test_what_was_waited_for_in_vain_is_kept(child: PlayedChild) -> None:
    patience = Patience(600.0, now=child.clock.now)
    row = isolated(patience)
    row.sample(1)
    child.takes_s = 1000.0
    with pytest.raises(ChildSilent) as silent:
        row.sample(1)
    assert "--isolate none" in silent.value.failure.reason
    assert patience.lost_s == LEAST_WAIT_S


class Silent(FakeContestant):
    """Hangs in its third sample, for an hour."""

    patience: Patience

    def sample(self, steps: int) -> Sample:
        if self.taken == 2:
            self._clock.pass_time(3600.0)
            self.patience.lost_s += 3600.0
            raise ChildSilent(3600.0)
        return super().sample(steps)


def test_waiting_for_a_row_that_hangs_costs_the_others_none_of_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr("time.perf_counter", clock.now)

    def enter_child(spec: CaseSpec, record: Record, *, patience: Patience, **_: Any) -> Entrant:
        kind = Silent if spec.fusion.text == "aff" else FakeContestant
        contestant = kind(clock, lambda n: 0.002)
        contestant.patience = patience  # type: ignore[union-attr]
        return Entrant(contestant, record, lambda: None, pid=1)

    monkeypatch.setattr("afftool.bench.place.enter_child", enter_child)
    options = Options(measures=("latency",), isolate="process", allocator="kept", baseline=None, budget_s=60.0)
    hung, other = bench([case("aff"), case("se")], options)
    assert hung.status == "failed"
    assert "did not answer for 3600 s" in str(hung.reason)
    assert (other.status, other.stopped, other.isolation) == ("ok", "precision", "process")


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.long), pytest.param("cuda:0", marks=pytest.mark.gpu)]
)
def test_a_row_that_hangs_while_it_is_timed_fails_and_the_rest_goes_on(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afftool.bench.child.LEAST_WAIT_S", 3.0)
    how = {"isolate": "process", "allocator": "kept", "precision": 0.9, "budget_s": 60.0}
    options = Options(measures=("latency",), baseline=None, **how)
    cases = [dataclasses.replace(case(name), device=device) for name in ("planted:Hangs:after=40", "planted:Plain")]
    hung, other = bench(cases, options)
    assert hung.status == "failed"
    assert re.match(
        r"its process did not answer for [\d.]+ s \(hint: ", str(hung.reason)
    )  # 3, or 20 samples of a slow one
    assert other.status == "ok", other.reason


def test_a_timeout_is_a_time() -> None:
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(SpecError, match="--timeout must be above 0"):
            Options(timeout_s=wrong)
    assert Options(timeout_s=float("inf")).timeout_s == float("inf")
