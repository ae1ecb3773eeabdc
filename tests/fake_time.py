"""Time that is handed in: a clock that moves only when told, and contestants that move it."""

from collections.abc import Callable, Mapping, Sequence

from afftool.measure.time.contestant import Sample


class FakeClock:
    """Seconds that pass only by `pass_time`; a mark is the time it was set."""

    def __init__(self, overhead_s: float = 0.0) -> None:
        self.time = 0.0
        self.overhead_s = overhead_s

    def pass_time(self, seconds: float) -> None:
        self.time += seconds

    def now(self) -> float:
        return self.time

    def mark(self) -> float:
        return self.time

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def added_by(self, call: Callable[[], None]) -> float:
        start = self.time
        call()
        return self.time - start


class FakeContestant:
    """Takes `step_s(n)` for the steps of its nth sample, and compiles in the samples listed."""

    def __init__(
        self,
        clock: FakeClock,
        step_s: Callable[[int], float],
        *,
        name: str = "",
        log: list[str] | None = None,
        compiles_in: Sequence[int] = (),
        parts: Mapping[str, float] | None = None,
        move_s: float = 0.0,
    ) -> None:
        self._clock = clock
        self._step_s = step_s
        self._name = name
        self._log = log if log is not None else []
        self._compiles_in = compiles_in
        self._parts = parts or {}
        self._move_s = move_s
        self.moved_at: list[float] = []
        self.taken = 0
        self.steps: list[int] = []

    def sample(self, steps: int) -> Sample:
        step_s = self._step_s(self.taken)
        self._clock.pass_time(step_s * steps)
        self._log.append(self._name)
        self.steps.append(steps)
        compilations = int(self.taken in self._compiles_in)
        self.taken += 1
        return Sample(step_s, compilations, self._clock.overhead_s)

    def split(self, steps: int) -> Mapping[str, float]:
        return self._parts

    def singly(self, steps: int) -> Sequence[float]:
        return ()

    def move(self) -> None:
        self.moved_at.append(self._clock.now())
        self._clock.pass_time(self._move_s)


class TickingClock(FakeClock):
    """A millisecond passes with every mark: samples that are all alike, however busy the machine is."""

    def mark(self) -> float:
        self.pass_time(0.001)
        return self.time


class FakeGpu(FakeClock):
    """A host that launches work and a device that works it off in turn; each has its own time, marks the device's."""

    def __init__(self) -> None:
        super().__init__()
        self.free_at = 0.0
        """When the device will have done all it was told so far."""

    def launch(self, host_s: float, device_s: float) -> None:
        self.pass_time(host_s)
        self.free_at = max(self.free_at, self.time) + device_s

    def synchronize(self, device: object = None) -> None:
        self.time = max(self.time, self.free_at)

    def mark(self) -> float:
        return max(self.time, self.free_at)

    def seconds(self, start: float, end: float) -> float:
        self.time = max(self.time, end)
        return end - start

    def added_by(self, call: Callable[[], None]) -> float:
        return 0.0
