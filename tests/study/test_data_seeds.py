"""Seeds that train on other subsets: drawn alike for all variants of a seed, loaded once, told in the report."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from small_cells import planned, results, small

from afftool.cli import main
from afftool.errors import SpecError
from afftool.study.arrays import Subsets
from afftool.study.cells import CellRecord, CellSpec
from afftool.study.engines.local import LocalEngine, run_here
from afftool.study.engines.ray import _put
from afftool.study.grids import study
from afftool.study.plan import Plan
from afftool.study.request import Request, requested
from afftool.study.run import Engine, run
from afftool.study.spec import StudySpec

MADE_UP = "shapes:size=16:train=60:test=40"


def drawn(*, seeds: int = 3, data_seeds: int = 2, **changes: Any) -> StudySpec:
    """A study of two variants whose seeds take so many subsets in turn."""
    return small(seeds=seeds, data_seeds=data_seeds, **changes).with_variants(["global-global", "aff"])


@cache
def plan_of(**words: Any) -> Plan:
    """The plan of a drawn study, made once for all tests of a process."""
    return planned(drawn(**words))


def fingerprints(made: Plan) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for _, seed, cell in made.cells:
        found.setdefault(seed, set()).add(cell.fingerprint)
    return found


def test_seeds_take_the_subsets_in_turn_and_all_variants_of_a_seed_share_one() -> None:
    made = plan_of()
    (first,), (second,), (third,) = fingerprints(made).values()
    assert first == third != second
    assert [cell.data_seed for _, _, cell in made.cells] == [0, 0, 1, 1, 0, 0]
    assert {first, second} == made.subsets.keys()
    assert {len(subset.train_images) for subset in made.subsets.values()} == {96}


def test_a_cell_is_the_one_of_a_study_on_its_subset_alone_so_that_what_is_trained_is_used() -> None:
    made = {(name, seed): cell for name, seed, cell in plan_of().cells}
    for data_seed, seeds in ((0, (0, 2)), (1, (1,))):
        alone = plan_of(data_seeds=1, data_seed=data_seed)
        assert [made[name, seed].identity for name, seed, _ in alone.cells if seed in seeds] == [
            cell.identity for _, seed, cell in alone.cells if seed in seeds
        ]


def test_a_seed_more_leaves_the_others_their_subsets() -> None:
    few, more = plan_of(), plan_of(seeds=4)
    assert more.cells[: len(few.cells)] == few.cells


def test_without_data_seeds_a_study_is_written_as_before_and_with_them_read_back() -> None:
    assert "data_seeds" not in small().to_toml()
    spec = drawn()
    assert "data_seeds = 2" in spec.to_toml()
    assert StudySpec.from_toml(spec.to_toml()) == spec
    assert requested(Request(study="scale", data_seeds=7)).data_seeds == 7


@pytest.mark.parametrize("data_seeds", [0, -1, 8])
def test_a_number_of_subsets_that_the_seeds_cannot_take_is_refused(data_seeds: int) -> None:
    with pytest.raises(SpecError, match=f"data_seeds={data_seeds}") as refused:
        requested(Request(study="scale", seeds=7, data_seeds=data_seeds))
    assert "--data-seeds 7" in str(refused.value.hint)


@pytest.mark.parametrize("train_images", [None, 1437])
def test_data_that_is_used_whole_leaves_nothing_to_draw_and_is_refused(train_images: int | None) -> None:
    with pytest.raises(SpecError, match="draw the same 1437 training images of digits") as refused:
        planned(drawn(train_images=train_images))
    assert "--train-images below 1437" in str(refused.value.hint)


def test_real_data_keeps_its_test_images_in_one_copy_and_made_up_images_are_made_anew() -> None:
    real, made_up = plan_of(), plan_of(data=MADE_UP, train_images=None)
    tests = [{id(subset.test_images) for subset in made.subsets.values()} for made in (real, made_up)]
    assert [len(ids) for ids in tests] == [1, 2]
    assert [made.stored().test_splits for made in (real, made_up)] == [None, 2]
    assert len({subset.train_images.tobytes() for subset in made_up.subsets.values()}) == 2


@pytest.mark.long
def test_every_engine_trains_a_cell_on_its_own_subset(tmp_path: Path) -> None:
    made = plan_of()
    cells = [made.cells[0][2], made.cells[2][2]]

    def told(engine: Engine, data: Subsets) -> dict[str, Any]:
        events = engine(cells, data, tmp_path / str(id(data)))
        return results({event.identity: event for event in events if isinstance(event, CellRecord)})

    here = told(run_here, made.subsets)
    assert told(LocalEngine(("cpu",)), dict(made.subsets)) == here
    exchanged = dict(zip(made.subsets, reversed(made.subsets.values()), strict=True))
    assert all(record != here[identity] for identity, record in told(run_here, exchanged).items())


def test_an_engine_is_given_the_subsets_of_its_cells_alone(tmp_path: Path) -> None:
    given: list[Subsets] = []

    def engine(cells: list[CellSpec], data: Subsets, folder: Path) -> Any:
        given.append(data)
        return ()

    made = plan_of()
    list(run(made, [cell for _, seed, cell in made.cells if seed == 1], engine, tmp_path))  # type: ignore[arg-type]
    assert [list(data) for data in given] == [[made.cells[2][2].fingerprint]]


def test_a_cluster_holds_every_array_once() -> None:
    class Cluster:
        held: list[object]

        def put(self, value: object) -> int:
            self.held.append(value)
            return len(self.held) - 1

    cluster = Cluster()
    cluster.held = []
    made = plan_of()
    shared = _put(cluster, made.subsets)
    assert len(cluster.held) == len({id(array) for data in made.subsets.values() for array in data.parts()[1].values()})
    for fingerprint, (small_fields, large) in shared.items():
        data = made.subsets[fingerprint]
        assert small_fields["mean"] == data.mean
        assert all(cluster.held[reference] is getattr(data, name) for name, reference in large.items())


@pytest.fixture
def afftool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFFTOOL_STORE", raising=False)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["afftool", *words])
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0), capsys.readouterr().out

    return run


def test_the_command_trains_what_other_subsets_lack_and_says_what_its_intervals_hold(
    afftool: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    words = ["ablate", "gain", "--data", "digits", "--train-images", "96", "--batch", "32", "--epochs", "1"]
    words += ["--workers", "0", "--seeds", "2"]
    code, out = afftool(*words)
    assert code == 0
    assert "do not hold the choice of training images" in out
    code, text = afftool(*words, "--data-seeds", "2", "--print")
    (tmp_path / "mine.toml").write_text(text)
    assert StudySpec.from_toml(text) == dataclasses.replace(
        study("gain"),
        data="digits",
        train_images=96,
        seeds=(0, 1),
        data_seeds=2,
        recipe=StudySpec.from_toml(text).recipe,
    )
    code, out = afftool("ablate", "mine.toml", "--workers", "0", "--json")
    assert code == 0
    assert {(c["seed"], c["cell"]["data_seed"]) for c in json.loads(out)["cells"]} == {(0, 0), (1, 1)}
    code, out = afftool("report")
    assert "2 subsets in turn (data seeds 0 to 1)" in out
    assert "augmentation and the choice of training images. They do not hold the choice of test images" in out
