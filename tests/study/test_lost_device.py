"""A device that stops answering takes one attempt of one cell with it, and never the rest of the study."""

from pathlib import Path

import dying
import pytest
from small_cells import mortal, planned

from afftool.errors import DeviceLost
from afftool.store import Store
from afftool.study import train as training
from afftool.study.cells import CellRecord
from afftool.study.engines import local
from afftool.study.engines.local import LocalEngine, run_here
from afftool.study.plan import Conditions, Plan
from afftool.study.run import Shard, begin, run, todo
from afftool.study.train import Tick

FIRST, DIES, LAST = "add", "dying", "aff"


@pytest.fixture(autouse=True)
def _deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deaths are counted in a file, and those of this process are put right afterwards."""
    monkeypatch.setenv("DYING_LOG", str(tmp_path / "deaths"))
    monkeypatch.setattr(dying, "_alive", True)
    monkeypatch.setattr(training, "answers", training.answers)


def named(records: list[CellRecord]) -> dict[str, CellRecord]:
    """Records by what their cells fuse with."""
    assert len({record.identity for record in records}) == len(records)
    return {record.cell.fusion.partition(":")[0]: record for record in records}


def trained(made: Plan, engine: LocalEngine, folder: Path) -> tuple[dict[str, CellRecord], list[Tick]]:
    events = list(run(made, todo(made, {}, Shard()), engine, folder))
    records = [event for event in events if isinstance(event, CellRecord)]
    return named(records), [event for event in events if isinstance(event, Tick)]


@pytest.mark.long
def test_a_worker_whose_device_is_lost_is_replaced_and_its_cell_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    made = planned(mortal())
    records, ticks = trained(made, LocalEngine(("cpu",)), tmp_path / "cells")
    assert {name: record.status for name, record in records.items()} == dict.fromkeys([FIRST, DIES, LAST], "ok")
    assert dying.deaths() == 1
    assert [tick.epoch for tick in ticks if tick.identity == records[DIES].identity] == [1, 2]


@pytest.mark.long
def test_a_cell_that_ends_its_device_every_time_fails_with_the_devices_word_and_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYING_TIMES", "99")
    monkeypatch.setattr(local, "ATTEMPTS", 1)
    records, _ = trained(planned(mortal()), LocalEngine(("cpu",)), tmp_path / "cells")
    assert (records[FIRST].status, records[LAST].status) == ("ok", "ok")
    assert dying.deaths() == 1
    assert not records[DIES].finished
    assert dying.ILLEGAL in str(records[DIES].reason)


def test_cells_in_this_process_end_with_its_device_and_what_is_done_is_stored(tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs.sqlite") as store:
        ablation = begin(mortal(), store, Conditions(), device="cpu", shard=Shard(), fresh=False, command="")
        with pytest.raises(DeviceLost, match="illegal memory access") as lost:
            list(ablation.events(run_here))
        kept = named([CellRecord.from_dict(row) for row in store.cells() if "identity" in row])
    assert "--workers 1" in str(lost.value.hint)
    assert {name: record.status for name, record in kept.items()} == {FIRST: "ok", DIES: "failed"}
    assert (ablation.checkpoints / f"{kept[DIES].identity}.pt").exists()


ABSENT = "cuda:90"
"""A device that answers no process of any machine."""


@pytest.mark.long
def test_a_worker_that_cannot_use_its_device_is_let_go_and_costs_no_cell_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "ATTEMPTS", 1)
    with pytest.warns(UserWarning, match=f"{ABSENT} does not answer: 1 of 2 workers"):
        records, _ = trained(planned(mortal()), LocalEngine((ABSENT, "cpu")), tmp_path / "cells")
    assert records[FIRST].status == records[LAST].status == "ok"


@pytest.mark.long
def test_a_study_none_of_whose_workers_can_use_its_device_ends_with_a_word_about_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceLost, match=f"{ABSENT} does not answer"):
        trained(planned(mortal()), LocalEngine((ABSENT,)), tmp_path / "cells")
