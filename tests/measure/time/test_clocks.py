"""The GPU's clock held still, on a board that is played: no real card's clock is ever changed by a test."""

from __future__ import annotations

import signal
import sys

import pytest
from fake_nvml import FakeNvml, play

from afftool.errors import SpecError, UserError
from afftool.measure.time.clocks import check_clock, locked_clock

BASE = 0xFFFFFF01


def test_the_clock_is_locked_for_the_block_and_put_back_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = play(monkeypatch, FakeNvml())
    with locked_clock("cuda:1", "1200") as locked:
        assert locked == "1200 MHz"
        assert nvml.lock == (1200, 1200)
    assert nvml.lock is None
    assert nvml.told == [("lock", "GPU-cuda:1", 1200, 1200), ("reset", "GPU-cuda:1")]


def test_base_is_the_clock_that_the_driver_says_a_board_can_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = play(monkeypatch, FakeNvml())
    with locked_clock("cuda:0", "base") as locked:
        assert (locked, nvml.lock) == ("base", (BASE, BASE))
    assert nvml.lock is None


def test_without_a_word_nothing_is_locked_and_no_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with locked_clock("cpu", None) as locked:
        assert locked is None


def stopped_by(stop: type[BaseException] | signal.Signals) -> None:
    if isinstance(stop, signal.Signals):
        signal.raise_signal(stop)
    else:
        raise stop


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, SystemExit, signal.SIGINT, signal.SIGTERM])
def test_the_clock_is_put_back_whatever_ends_the_block(
    stop: type[BaseException] | signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = play(monkeypatch, FakeNvml())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises((KeyboardInterrupt, RuntimeError, SystemExit)), locked_clock("cuda:0", "base"):
        stopped_by(stop)
    assert nvml.lock is None
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_ctrl_c_does_not_stop_the_putting_back(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = play(monkeypatch, FakeNvml())
    reset = nvml.nvmlDeviceResetGpuLockedClocks

    def impatient(handle: object) -> None:
        signal.raise_signal(signal.SIGINT)
        reset(handle)

    nvml.nvmlDeviceResetGpuLockedClocks = impatient  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), locked_clock("cuda:0", "base"):
        raise KeyboardInterrupt
    assert nvml.lock is None


def refused(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml, clock: str) -> UserError:
    """The error for a clock that is not locked: nothing ran, and the board was told nothing."""
    played = play(monkeypatch, nvml)
    with pytest.raises(UserError) as caught, locked_clock("cuda:0", clock):
        pytest.fail("the block ran")
    assert played.told == []
    return caught.value


def test_who_may_not_is_refused_with_a_hint_and_nothing_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(monkeypatch, FakeNvml(may=False), "base")
    assert "may not" in error.message
    assert "sudo nvidia-smi -lgc" in str(error.hint)


def test_a_clock_that_the_gpu_does_not_have_is_refused_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(monkeypatch, FakeNvml(), "1201")
    assert "1201 MHz" in error.message
    assert "1200 or 1215" in str(error.hint)


def test_a_gpu_that_does_not_tell_its_clocks_decides_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = play(monkeypatch, FakeNvml())
    nvml.unsupported = {"supported"}
    with locked_clock("cuda:0", "1201"):
        assert nvml.lock == (1201, 1201)


def test_a_gpu_whose_clock_cannot_be_locked_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = play(monkeypatch, FakeNvml())
    nvml.unsupported = {"lock"}
    with pytest.raises(UserError, match="Not Supported"), locked_clock("cuda:0", "base"):
        pytest.fail("the block ran")
    assert nvml.told == []


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_without_a_gpu_or_nvml_there_is_no_clock_to_lock(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UserError) as refused, locked_clock(device, "base"):
        pytest.fail("the block ran")
    assert refused.value.hint


def test_a_clock_that_cannot_be_put_back_is_told_with_what_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nvml = play(monkeypatch, FakeNvml())
    with locked_clock("cuda:0", "base"):
        nvml.unsupported = {"reset"}
    assert "nvidia-smi -rgc" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["fast", "0", "-5", "1200.5", ""])
def test_a_word_that_is_no_clock_is_refused_before_torch_is_loaded(word: str) -> None:
    with pytest.raises(SpecError, match="--lock-clocks"):
        check_clock(word)


def test_base_and_megahertz_are_clocks() -> None:
    assert [check_clock(word) for word in (None, "base", "1410")] == [None, "base", "1410"]
