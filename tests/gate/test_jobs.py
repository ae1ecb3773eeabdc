"""Jobs that are added to a baseline, one by one, until times against it decide."""

import sys
from dataclasses import replace

import pytest

from afftool.cli import main
from afftool.gate import reference
from afftool.gate.check import Checking
from afftool.gate.noise import Noise
from afftool.gate.reading import Reading
from afftool.gate.reference import Reference
from afftool.record import Environment

HERE = Environment(afftool="1", python="3.11", torch="2.13.0", cpu="this one")
CASE = "add channels=64 size=56x56 batch=8"
VALUES = {"params": 0, "macs": 0, "operators": 1}
STORED = Reading(values=VALUES, times_ms=(1.0, 1.01, 1.02, 1.03, 1.04))


class SteadySide:
    """A side that is this machine, has these exact metrics, and takes 1.05 ms a step."""

    values = VALUES
    environment = HERE

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def send(self, question, **_):
        self.question = question

    def answer(self):
        return {
            "environment": {"environment": self.environment.to_dict()},
            "exact": {"reading": Reading(values=self.values).to_dict()},
        }.get(self.question, {"step_ms": 1.05})

    def ask(self, question, **_):
        self.send(question)
        return self.answer()

    def stop(self):
        pass


@pytest.fixture
def job(tmp_path, monkeypatch, capsys):
    """`check --calibrate --write-baseline` once more: its exit code and what it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afftool.toml").write_text('[[case]]\nfusion = "add"\n')
    monkeypatch.setattr(Checking, "here_side", lambda checking: SteadySide())
    seen = Noise(case="add", step_ms=1.0, pairs=4, rounds=64, floor=0.01, rule="5%", allowed=0.05)
    monkeypatch.setattr("afftool.gate.noise.read", lambda checking: [seen])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["afftool", "check", *(arguments or ("--calibrate", "--write-baseline"))])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out + told.err

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "afftool-baseline.json"
    reference.write(path, Reference(readings={CASE: STORED, "gone": STORED}, environment=HERE))
    return path


def test_each_job_adds_its_median_and_from_three_on_it_is_said_what_can_be_seen(job, file):
    code, told = job()
    assert code == 0
    assert "which knows 2 jobs now" in told
    assert "Times only advise until there are 3: add 1 more" in told
    code, told = job()
    assert "which knows 3 jobs now" in told
    assert "stand out in every case" in told
    found = reference.read(file)
    assert found.readings[CASE] == replace(STORED, jobs_ms=(1.05, 1.05))
    assert found.readings["gone"] == STORED


def test_a_calibration_alone_shows_what_it_saw_and_says_how_times_against_a_file_decide(job, file):
    code, told = job("--calibrate")
    assert code == 0
    assert "smallest visible change" in told
    assert "times against afftool-baseline.json only advise until it holds 3 jobs" in told
    assert reference.read(file).readings[CASE] == STORED


def test_a_baseline_written_anew_forgets_the_jobs_of_other_code(job, file):
    job()
    code, told = job("--write-baseline")
    assert code == 0
    assert reference.read(file).readings[CASE].jobs_ms == ()
    assert "only advise until it holds 3 jobs" in told


def test_a_job_of_another_machine_or_torch_is_refused(job, file, monkeypatch):
    for environment in (replace(HERE, cpu="another"), replace(HERE, torch="1.0.0")):
        monkeypatch.setattr(SteadySide, "environment", environment)
        code, told = job()
        assert code == 5
        assert "hint: " in told
    assert reference.read(file).readings[CASE] == STORED


def test_a_job_of_other_code_is_refused_before_anything_is_timed(job, file, monkeypatch):
    monkeypatch.setattr(SteadySide, "values", VALUES | {"macs": 7})
    monkeypatch.setattr("afftool.gate.jobs.add_times_apart", None)
    code, told = job()
    assert code == 5
    assert f"{CASE} is no longer the code of the baseline afftool-baseline.json: macs 7, there 0" in told


def test_a_file_that_is_missing_or_without_times_is_refused_with_what_to_do(job, file):
    reference.write(file, Reference(readings={CASE: Reading(values=VALUES)}, environment=HERE))
    code, told = job()
    assert (code, "holds no times of these cases" in told) == (5, True)
    file.unlink()
    code, told = job()
    assert (code, "there is no baseline" in told) == (5, True)
