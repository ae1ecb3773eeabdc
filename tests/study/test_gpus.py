"""Cells go to the GPU that was named, or in turns to all of them. No GPU is needed: torch.cuda is played."""

import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_cells import small

from afftool.cli import main
from afftool.device import resolve_device, resolve_devices
from afftool.errors import NothingMeasured, SpecError
from afftool.record import Environment
from afftool.study import engines
from afftool.study.cells import CellRecord, CellSpec
from afftool.study.engines import gpu_room, gpus, local
from afftool.study.engines.gpus import share
from afftool.study.engines.local import LocalEngine
from afftool.study.plan import Conditions, Plan, plan

GIB = 2**30


@pytest.fixture
def _four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs of 80 GiB, and a cell takes four; six cores."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "_lazy_init", _no_context)
    monkeypatch.setattr(gpus, "Child", Measuring)
    monkeypatch.setattr(engines, "cores", lambda: 6)


def _no_context(*_: Any) -> None:
    raise AssertionError("the process that starts the workers uses no GPU itself")


class Measuring:
    """The process that measures, played: every GPU has 80 GiB free, and a cell takes four; it is to be ended."""

    running = 0

    def __init__(self, module: str) -> None:
        assert importlib.util.find_spec(module)
        Measuring.running += 1

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        inspect.signature(getattr(gpu_room, verb)).bind(**json.loads(json.dumps(fields)))
        return {"free_bytes": [80 * GIB for _ in fields["indices"]], "step_bytes": 4 * GIB}

    def stop(self) -> None:
        Measuring.running -= 1


def test_gpus_are_shared_by_memory() -> None:
    assert share([80 * GIB, 80 * GIB], 4 * GIB, cores=6) == (0, 1, 0, 1, 0, 1)
    assert share([12 * GIB, 80 * GIB], 4 * GIB, cores=5) == (0, 1, 0, 1, 1)
    assert share([2 * GIB], 4 * GIB, cores=16) == (0,)


def test_a_gpu_takes_four_cells_at_most_unless_more_are_asked_for() -> None:
    assert share([80 * GIB], GIB, cores=16) == (0,) * 4
    assert share([80 * GIB, 80 * GIB], GIB, cores=16) == (0, 1) * 4


@pytest.mark.usefixtures("_four_gpus")
def test_a_study_means_all_gpus_where_it_names_none() -> None:
    words = ("auto", "cuda", "cuda:3", "cpu")
    assert [resolve_devices(word) for word in words] == ["cuda", "cuda", "cuda:3", "cpu"]
    assert [resolve_device(word) for word in words] == ["cuda:0", "cuda:0", "cuda:3", "cpu"]
    with pytest.raises(SpecError, match="only 4 CUDA devices"):
        resolve_devices("cuda:4")


def test_a_study_without_a_gpu_means_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_devices("auto") == "cpu"
    with pytest.raises(SpecError, match="no CUDA device"):
        resolve_devices("cuda")


@pytest.mark.usefixtures("_four_gpus")
@pytest.mark.parametrize(
    ("words", "indices"),
    [
        ([], (0, 1, 2, 3, 0, 1)),
        (["--device", "cuda"], (0, 1, 2, 3, 0, 1)),
        (["--device", "cuda", "--workers", "9"], (0, 1, 2, 3, 0, 1, 2, 3, 0)),
        (["--device", "cuda:2"], (2,) * 4),
        (["--device", "cuda:2", "--workers", "6"], (2,) * 6),
        (["--device", "cuda:2", "--workers", "2"], (2, 2)),
    ],
)
def test_ablate_sends_its_cells_to_all_gpus_in_turns_or_to_the_one_named(
    words: list[str], indices: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself, up to the engine it would train on."""
    asked: dict[str, Any] = {}

    def caught(name: str, made: Plan, **settings: Any) -> Any:
        asked["engine"] = engines.build_engine(name, made, **settings)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    here = _environment()
    monkeypatch.setattr("afftool.study.run.read", lambda device: asked.setdefault("environment of", device) and here)
    monkeypatch.setattr("afftool.cli.ablate.build_engine", caught)
    study = ["ablate", "gain", "--data", "digits", "--train-images", "96", "--batch", "32", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["afftool", *study, "--seeds", "1", *words])
    with pytest.raises(SystemExit):
        main()
    engine = asked["engine"]
    assert isinstance(engine, LocalEngine)
    assert engine.devices == tuple(f"cuda:{index}" for index in indices)
    assert Measuring.running == 0
    assert asked["environment of"] == (words[1] if words else "cuda")


def test_memory_that_cannot_be_measured_ends_the_study_with_a_way_around_it() -> None:
    """Asked of a real process, which finds no such GPU."""
    made = plan(small("gain"), Conditions(device="cuda"))
    with pytest.raises(NothingMeasured, match="could not be measured on cuda:90") as refused:
        gpus.measured(made, [90])
    assert "--workers N" in str(refused.value.hint)


def _environment() -> Environment:
    """This machine as it is without the GPUs, which have no properties to read."""
    from afftool.environment import read

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: False)
        return read("cpu")


def test_cells_in_this_process_train_on_the_gpu_that_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    used: list[Any] = []

    def noted(*_: Any, device: str | None, **__: Any) -> None:
        used.append(device)

    monkeypatch.setattr(local, "train", noted)
    made = plan(small("gain"), Conditions(device="cuda"))
    for device in ("cuda:1", "cuda"):
        engine = engines.build_engine("local", made, device=device, workers=0, address=None, gpus=None)
        list(engine([cell for _, _, cell in made.cells][:1], made.subsets, tmp_path))
    assert used == ["cuda:1", "cuda"]


def test_a_cell_is_trained_with_its_gpu_as_the_one_meant_where_none_is_named_and_its_record_says_which_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meant = ["cuda"]

    @contextmanager
    def chosen(device: torch.device) -> Iterator[None]:
        meant.append(str(device))
        yield
        meant.pop()

    def noted(cell: CellSpec, *_: Any) -> CellRecord:
        return CellRecord(cell=cell, identity=cell.identity, reason=meant[-1])

    monkeypatch.setattr(torch.cuda, "device", chosen)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the kind of {device}")
    monkeypatch.setattr("afftool.study.train._train", noted)
    made = plan(small("gain"), Conditions(device="cuda"))
    engine = engines.build_engine("local", made, device="cuda:1", workers=0, address=None, gpus=None)
    (record,) = engine([made.cells[0][2]], made.subsets, Path())
    assert isinstance(record, CellRecord)
    assert (record.reason, record.gpu, meant) == ("cuda:1", "the kind of cuda:1", ["cuda"])
