"""How far a study is, for a person who wants to know when it ends."""

import io

from small_cells import planned, small

from afftool import console
from afftool.study.cells import CellRecord, CellSpec
from afftool.study.progress import Progress
from afftool.study.train import Tick


def two() -> tuple[Progress, list[CellSpec]]:
    made = planned(small(seeds=1, epochs=100).with_variants(["global-global", "aff"]))
    cells = [cell for _, _, cell in made.cells]
    return Progress(cells, {cell.identity: (name, seed) for name, seed, cell in made.cells}), cells


def tick(cell: CellSpec, epoch: int) -> Tick:
    return Tick(identity=cell.identity, epoch=epoch, epochs=100, loss=1.0)


def ended(cell: CellSpec) -> CellRecord:
    return CellRecord(cell=cell, identity=cell.identity, accuracy=0.5, losses=(1.0,) * 100)


def test_epochs_kept_from_an_earlier_run_do_not_shorten_the_time_left() -> None:
    progress, (one, other) = two()
    now = [0.0]
    stream = io.StringIO()
    lines = console.Lines(stream, lambda: now[0])
    for epoch in (91, 92):
        now[0] += 10
        doing = progress.tick(tick(one, epoch))
        lines.progress(progress.done, progress.total, doing)
    assert (progress.done, progress.total) == (2, 110)
    assert (
        "after 20 s, about 18 min 00 s left: global-global seed 0, epoch 92/100" in stream.getvalue().splitlines()[-1]
    )
    progress.end(ended(one))
    progress.tick(tick(other, 1))
    assert (progress.done, progress.total) == (11, 110)
    assert progress.interrupted() == "interrupted: 101 of 200 epochs are kept"


def test_a_cell_of_which_only_the_record_was_lost_is_no_work() -> None:
    progress, (one, other) = two()
    assert progress.end(ended(one)).startswith("[1/2] global-global seed 0: accuracy 50.00%")
    assert (progress.done, progress.total) == (0, 100)
    progress.tick(tick(other, 1))
    assert (progress.done, progress.total) == (1, 100)


def test_a_cell_that_failed_early_leaves_no_epochs_to_come_and_made_none() -> None:
    progress, (one, other) = two()
    progress.tick(tick(one, 1))
    progress.end(CellRecord(cell=one, identity=one.identity, status="failed", reason="diverged", failed_step=5))
    assert "1 cells done, 1 left" in progress.tick(tick(other, 1))
    assert (progress.done, progress.total) == (2, 101)
