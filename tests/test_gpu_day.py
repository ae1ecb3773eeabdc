"""The day on a GPU: what is planned fits its parts, and what was done is not done twice. Steps are small programs."""

from __future__ import annotations

import runpy
import tarfile
from pathlib import Path
from typing import Any

import pytest

DAY = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "gpu_day.py"), run_name="gpu_day")
Step: Any = DAY["Step"]
NOTES = "-c \"from pathlib import Path; p = Path(r'{}'); p.write_text(p.read_text() + '.'); {}\""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A file in which each program that runs leaves a dot."""
    path = tmp_path / "notes"
    path.write_text("")
    return path


def day(out: Path, steps: list[Any], minutes: float = 1.0) -> Any:
    out.mkdir(exist_ok=True)
    return DAY["Day"](out, steps, small=False, minutes=minutes)


def test_every_part_of_the_day_is_foretold_to_fit_and_names_are_its_steps_alone() -> None:
    steps = list(DAY["the_day"](small=False))
    assert len({step.name for step in steps}) == len(steps)
    for part in {step.part for step in steps}:
        assert sum(step.seconds for step in steps if step.part == part) <= 60 * DAY["PART_MINUTES"]


def test_a_dry_run_makes_steps_of_every_part_and_none_on_a_gpu() -> None:
    real, dry = (list(DAY["the_day"](small=small)) for small in (False, True))
    assert {step.part for step in dry} == {step.part for step in real}
    assert not any("cuda:0" in step.words for step in dry)


def test_a_step_that_ended_well_is_not_repeated_and_one_that_failed_is(tmp_path: Path, notes: Path) -> None:
    fine, failing = Step("fine", 1, 1, NOTES.format(notes, "")), Step("failing", 1, 1, NOTES.format(notes, "1 / 0"))
    assert not day(tmp_path / "day", [fine, failing]).run(1)
    assert not day(tmp_path / "day", [fine, failing]).run(1)
    assert notes.read_text() == "..."
    page = (tmp_path / "day" / "README.md").read_text()
    assert "| fine |" in page
    assert "| with 1 |" in page
    assert "ZeroDivisionError" in (tmp_path / "day" / "failing" / "log.txt").read_text()


def test_a_step_whose_command_has_changed_is_made_again(tmp_path: Path, notes: Path) -> None:
    assert day(tmp_path / "day", [Step("one", 1, 1, NOTES.format(notes, ""))]).run(1)
    assert day(tmp_path / "day", [Step("one", 1, 1, NOTES.format(notes, "2 + 2"))]).run(1)
    assert notes.read_text() == ".."


def test_what_does_not_fit_into_a_part_is_left_and_told(tmp_path: Path, notes: Path) -> None:
    short, long = Step("short", 1, 1, NOTES.format(notes, "")), Step("long", 1, 600, NOTES.format(notes, ""))
    begun = day(tmp_path / "day", [short, long])
    assert not begun.run(1)
    assert notes.read_text() == "."
    assert [step.name for step in begun.left(1)] == ["long"]
    assert "| long | not run |" in (tmp_path / "day" / "README.md").read_text()


def test_a_step_that_hangs_is_cut_off_and_is_still_to_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DAY["Day"].run.__globals__, "GRACE_S", 0.0)
    hanging = day(tmp_path / "day", [Step("hanging", 1, 1, '-c "import time; time.sleep(600)"')], minutes=0.01)
    assert not hanging.run(1)
    assert hanging.done["hanging"].code is None
    assert "cut off" in (tmp_path / "day" / "README.md").read_text()


def test_everything_lies_in_one_file_too(tmp_path: Path) -> None:
    done = day(tmp_path / "day", [Step("one", 1, 1, '-c "print(1)"')])
    assert done.run(1)
    with tarfile.open(done.pack()) as archive:
        assert {"day/README.md", "day/steps.json", "day/one/log.txt"} <= set(archive.getnames())
