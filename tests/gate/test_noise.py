"""What a runner can see: the code against itself."""

import json
import random
import sys

import pytest

from afftool.cli import main
from afftool.gate import noise as noises
from afftool.gate.check import Checking
from afftool.gate.noise import Noise


class NoisySide:
    """A side whose steps take 2 ms, give or take; it answers at once."""

    noise = 0.0

    def __init__(self):
        self.random = random.Random(id(self))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def send(self, question, **_):
        pass

    def answer(self):
        return {"step_ms": 2.0 * (1 + abs(self.random.gauss(0, self.noise)))}

    def ask(self, question, **_):
        return self.answer()

    def start(self):
        pass

    stop = wait = start


@pytest.fixture
def calibrated(tmp_path, monkeypatch, capsys):
    def run(noise, rule):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "afftool.toml").write_text(f'[[case]]\nfusion = "add"\n[rules]\nlatency_ms = "{rule}"\n')
        monkeypatch.setattr(NoisySide, "noise", noise)
        monkeypatch.setattr(Checking, "here_side", lambda checking: NoisySide())
        monkeypatch.setattr(sys, "argv", ["afftool", "check", "--calibrate", "--budget", "0.05", "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        told = capsys.readouterr()
        [row] = json.loads(told.out)
        return row, told.err

    return run


def test_a_quiet_runner_sees_a_small_change_and_warns_of_nothing(calibrated):
    row, told = calibrated(0.001, "5%")
    assert 0 < row["visible"] < 0.01
    assert 0.05 < row["fails_from"] < 0.06
    assert row["warning"] is None
    assert "warning" not in told


def test_a_rule_below_what_a_noisy_runner_sees_warns(calibrated):
    row, told = calibrated(0.5, "1%")
    assert row["visible"] > 0.01
    assert "is below the" in row["warning"]
    assert "warning: the rule 1% of add" in told


def test_the_smallest_failing_change_takes_rule_noise_and_floor_into_account():
    noise = Noise(case="a", step_ms=1.0, pairs=4, rounds=64, floor=0.02, rule="5%", allowed=0.05)
    assert noise.visible == pytest.approx(0.02 / 0.98)
    assert noise.fails_from == pytest.approx(1.05 / 0.98 - 1)
    tiny = Noise(case="a", step_ms=0.02, pairs=4, rounds=64, floor=0.02, rule="5%", allowed=0.05, least=0.25)
    assert tiny.fails_from == 0.25
    assert noises.table([noise]).values("floor") == [0.02]


def test_a_rule_without_a_change_is_no_reason_to_warn():
    noise = Noise(case="a", step_ms=1.0, pairs=4, rounds=64, floor=0.02, rule="max 3", allowed=float("inf"))
    assert noise.warning is None
    assert noises.fields(noise)["fails_from"] is None
