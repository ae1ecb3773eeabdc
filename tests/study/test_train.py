"""One cell: the same bits whatever happens on the way, and a record of what went wrong."""

import dataclasses
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cells import planned, small, two_cells

from afftool.data import load
from afftool.study.arrays import IGNORE, Arrays, arrays
from afftool.study.cells import CellSpec, FileCheckpoint
from afftool.study.train import Tick, train


class Memory:
    """A checkpoint kept in memory that can stop the training after some epochs."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.packed: bytes | None = None
        self.saves = 0
        self.stop_after = stop_after

    def load(self) -> bytes | None:
        return self.packed

    def save(self, packed: bytes) -> None:
        self.packed = packed
        self.saves += 1
        if self.saves == self.stop_after:
            raise KeyboardInterrupt


def ignore(tick: Tick) -> None:
    assert tick.loss is not None


def first_cell(**recipe: object) -> CellSpec:
    cell = two_cells().cells[1][2]
    return dataclasses.replace(cell, recipe=cell.recipe.with_settings(dict(recipe)))


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw", "lr": 0.01, "clip": 1.0}, {"mixup": 0.4}])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(settings: dict[str, object]) -> None:
    cell, data = first_cell(epochs=3, **settings), two_cells().data
    whole = train(cell, data, checkpoint=Memory(), report=ignore)
    broken = Memory(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        train(cell, data, checkpoint=broken, report=ignore)
    broken.stop_after = None
    ticks: list[Tick] = []
    resumed = train(cell, data, checkpoint=broken, report=ticks.append)
    assert resumed.result() == whole.result()
    assert [tick.epoch for tick in ticks] == [3]
    assert whole.status == "ok"


def test_the_global_random_state_and_threads_change_nothing_and_stay() -> None:
    cell, data = first_cell(epochs=1), two_cells().data
    one = train(cell, data, checkpoint=Memory(), report=ignore)
    torch.manual_seed(1234)
    torch.set_num_threads(2)
    state = torch.random.get_rng_state()
    two = train(cell, data, checkpoint=Memory(), report=ignore)
    assert (torch.get_num_threads(), torch.equal(state, torch.random.get_rng_state())) == (2, True)
    assert one.result() == two.result()


def test_a_checkpoint_loads_without_unpickling_code(tmp_path: Path) -> None:
    cell = first_cell(epochs=1)
    kept = FileCheckpoint(tmp_path, cell.identity)
    train(cell, two_cells().data, checkpoint=kept, report=ignore)
    content = torch.load(kept.path, weights_only=True)
    assert content["identity"] == cell.identity
    assert list(tmp_path.iterdir()) == [kept.path]


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_costs_time_and_nothing_else(damage: bytes | None, tmp_path: Path) -> None:
    cell, data = first_cell(epochs=1), two_cells().data
    kept = FileCheckpoint(tmp_path, cell.identity)
    whole = train(cell, data, checkpoint=kept, report=ignore)
    packed = kept.path.read_bytes()
    kept.path.write_bytes(packed[: len(packed) // 2] if damage is None else damage)
    assert train(cell, data, checkpoint=kept, report=ignore).result() == whole.result()


def test_another_cells_checkpoint_is_not_taken() -> None:
    data, memory = two_cells().data, Memory()
    train(first_cell(epochs=1, lr=0.01), data, checkpoint=memory, report=ignore)
    ticks: list[Tick] = []
    train(first_cell(epochs=1), data, checkpoint=memory, report=ticks.append)
    assert len(ticks) == 1


def test_divergence_is_a_result_with_its_step() -> None:
    record = train(first_cell(epochs=2, lr=1e18), two_cells().data, checkpoint=Memory(), report=ignore)
    assert (record.status, record.score) == ("failed", None)
    assert record.failed_step is not None
    assert 0 < record.failed_step < 6
    assert f"step {record.failed_step}" in str(record.reason)
    assert record.finished


def test_a_module_that_raises_gives_a_record_that_is_tried_again() -> None:
    cell = dataclasses.replace(first_cell(epochs=1), host="resnet:b=1:classes=3")
    record = train(cell, two_cells().data, checkpoint=Memory(), report=ignore)
    assert (record.status, record.finished) == ("failed", False)
    assert record.reason


def test_memory_that_ran_out_is_given_back_once_nothing_holds_what_was_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocated: list[weakref.ref[torch.Tensor]] = []
    held: list[bool] = []

    def full(*_: object) -> None:
        maps = torch.zeros(8)
        allocated.append(weakref.ref(maps))
        raise torch.OutOfMemoryError(f"CUDA out of memory beside {len(maps)} values")

    monkeypatch.setattr("afftool.study.train.evaluate", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.append(allocated[0]() is not None))
    record = train(first_cell(epochs=1), two_cells().data, checkpoint=Memory(), report=ignore)
    assert (record.status, record.finished) == ("failed", False)
    assert str(record.reason).startswith("out of memory: CUDA out of memory beside 8 values")
    assert held == [False]


def test_training_learns() -> None:
    record = train(
        first_cell(epochs=12, lr=0.1), planned(small(train_images=400)).data, checkpoint=Memory(), report=ignore
    )
    assert record.accuracy is not None
    assert record.accuracy > 0.6  # ten classes: guessing gives 0.1
    assert record.losses[-1] < record.losses[0]


def test_segmentation_is_scored_by_miou_and_shapes_by_band() -> None:
    made = planned(small(data="shapes:size=16:test=40", train_images=64, host="fpn:b=1"))
    cell = made.cells[0][2]
    record = train(cell, made.data, checkpoint=Memory(), report=ignore)
    assert (record.status, record.accuracy) == ("ok", None)
    assert record.miou is not None
    assert 0 < record.miou < 0.5
    assert len(record.bands) == 4


def test_void_pixels_count_neither_in_the_loss_nor_in_the_score() -> None:
    splits = load("shapes:size=16:test=40", train_images=64)
    voided = dataclasses.replace(
        splits,
        void=200,
        **{
            part: dataclasses.replace(getattr(splits, part), masks=getattr(splits, part).masks.copy())
            for part in ("train", "test")
        },
    )
    for split in (voided.train, voided.test):
        assert split.masks is not None
        split.masks[:, :8] = 200
    cell = planned(small(data="shapes:size=16:test=40", train_images=64, host="fpn:b=1")).cells[0][2]
    scribbled = arrays(voided, "segment")
    assert (scribbled.train_targets[:, :8] == 255).all()
    record = train(cell, scribbled, checkpoint=Memory(), report=ignore)
    assert record.status == "ok"
    assert record.miou is not None


def test_a_batch_that_is_all_void_teaches_nothing_and_is_no_divergence() -> None:
    cell = dataclasses.replace(two_cells().cells[0][2], host="fpn:b=1:classes=3", fusion="add")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    masks = generator.integers(0, 3, (8, 12, 12), dtype=np.uint8)
    masks[:6] = IGNORE
    data = Arrays(
        task="segment", classes=3, train_images=images, train_targets=masks, test_images=images, test_targets=masks,
        test_bands=None, bands=(), mean=(127.0,) * 3, std=(64.0,) * 3,
    )  # fmt: skip
    cell = dataclasses.replace(cell, recipe=cell.recipe.with_settings({"batch": 2, "epochs": 2}))
    record = train(cell, data, checkpoint=Memory(), report=ignore)
    assert record.status == "ok", record.reason
    assert all(math.isfinite(loss) and loss > 0 for loss in record.losses)
