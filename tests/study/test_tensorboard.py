"""The log of a study beside its records: whole, each epoch once, whatever was trained when."""

from pathlib import Path

import pytest
from small_cells import two_cells

from afftool.errors import LoadError
from afftool.study.cells import CellRecord
from afftool.study.tensorboard import Log
from afftool.study.train import Tick

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def record() -> CellRecord:
    cell = two_cells().cells[0][2]
    return CellRecord(cell=cell, identity=cell.identity, accuracy=0.5, losses=(3.0, 2.0), scores={"1": 0.25, "2": 0.5})


def steps(folder: Path, tag: str = "loss/train") -> list[tuple[int, float]]:
    log = accumulator.EventAccumulator(str(folder))
    log.Reload()
    return [(event.step, event.value) for event in log.Scalars(tag)]


def test_a_cell_that_went_on_from_a_checkpoint_is_logged_from_its_first_epoch(tmp_path: Path) -> None:
    trained = record()
    with Log(tmp_path, {trained.identity: ("a", 0)}) as log:
        log.add(Tick(identity=trained.identity, epoch=2, epochs=2, loss=2.0))
        log.add(trained)
    assert steps(tmp_path / "a" / "seed-0") == [(1, 3.0), (2, 2.0)]
    assert steps(tmp_path / "a" / "seed-0", "score/test") == [(1, 0.25), (2, 0.5)]


def test_a_cell_that_failed_keeps_the_epochs_that_were_logged(tmp_path: Path) -> None:
    cell = record().cell
    failed = CellRecord(cell=cell, identity=cell.identity, status="failed", reason="its worker died 3 times")
    with Log(tmp_path, {cell.identity: ("a", 0)}) as log:
        log.add(Tick(identity=cell.identity, epoch=2, epochs=3, loss=2.0))
        log.add(failed)
    assert steps(tmp_path / "a" / "seed-0") == [(2, 2.0)]
    with Log(tmp_path, {cell.identity: ("a", 0)}) as log:
        log.add(failed)  # trained by another machine later
        log.replay(record())
    assert steps(tmp_path / "a" / "seed-0") == [(1, 3.0), (2, 2.0)]


def test_a_cell_whose_place_is_taken_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(LoadError, match="cannot be written") as caught:
        Log(tmp_path, {"identity": ("a", 0)})
    assert caught.value.hint
