"""Studies on a network that fusions are grafted into: what is tried, on what footing, and what is refused before."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from small_cells import planned, results, small, train

from afftool.data import load
from afftool.errors import LoadError, SpecError
from afftool.graft.opening import open_network
from afftool.spec import FusionSpec, HostSpec
from afftool.study.arrays import arrays
from afftool.study.cells import FileCheckpoint
from afftool.study.engines.local import LocalEngine, run_here
from afftool.study.evaluate import evaluate
from afftool.study.network import build_network
from afftool.study.plan import Conditions, Plan, plan
from afftool.study.request import Request, requested
from afftool.study.spec import StudySpec
from afftool.study.train import Tick, _Prepare
from afftool.study.train import train as train_cell
from afftool.study.trial import with_classes

NET = "graft:graftable:Net"
EIGHT = {"data": "digits", "train_images": 96}


def on(host: str, fusions: tuple[str, ...] = ("original", "add", "aff"), **changes: Any) -> StudySpec:
    return small(host=host, budget=None, **changes).with_variants(list(fusions))


def placed(host: str, **words: Any) -> StudySpec:
    return requested(Request(study="placement", host=host, batch=32, epochs=1, seeds=1, **(EIGHT | words)))


def test_placement_tries_each_stage_the_last_two_and_all_against_the_original_with_add_beside() -> None:
    spec = placed(NET)
    assert [(v.name, v.fusion, dict(v.knobs).get("stage")) for v in spec.variants] == [
        ("original", "original", None),
        ("stage 1", "aff", "1"),
        ("stage 2", "aff", "2"),
        ("stage 3", "aff", "3"),
        ("stages 2-3", "aff", "2-3"),
        ("stages 1-3", "aff", "1-3"),
        ("add", "add", "1-3"),
    ]
    assert (spec.baseline, spec.across) == ("original", "stage")
    assert StudySpec.from_toml(spec.to_toml()) == spec


@pytest.mark.parametrize(
    ("host", "stages"),
    [
        (f"{NET}:stage=2-3", ["stage 2", "stage 3", "stages 2-3"]),
        (f"{NET}:at=1+3", ["stage 1", "stage 3", "stages 1+3"]),
        (f"{NET}:path=stages.1", ["stage 2"]),
        ("graft:graftable:Segmenter:at=concat", ["stage 1"]),
    ],
)
def test_placement_keeps_to_the_sites_that_the_text_chooses(host: str, stages: list[str]) -> None:
    assert [v.name for v in placed(host).variants][1:-1] == stages


def test_other_fusions_are_placed_in_the_same_stages() -> None:
    names = [v.name for v in placed(f"{NET}:stage=2-3", variants=("aff", "iaff")).variants]
    stages = ("stage 2", "stage 3", "stages 2-3")
    assert names == ["original", *itertools.chain.from_iterable((stage, f"iaff {stage}") for stage in stages)]


def test_a_network_of_one_size_is_looked_at_with_the_datas_images() -> None:
    assert len(placed("graft:graftable:Flat").variants) == 7
    with pytest.raises(LoadError, match=r"Flat .* self.fc"):
        placed("graft:graftable:Flat", data="shapes:size=16", train_images=None)


def test_a_size_that_the_text_tells_is_the_one_that_counts() -> None:
    assert len(placed("graft:graftable:Flat:inputs=3x8x8", data="parquet:no_such_folder").variants) == 7
    with pytest.raises(SpecError, match="8x8, and 16x16 was asked for"):
        planned(dataclasses.replace(placed("graft:graftable:Flat:inputs=3x8x8"), data="shapes:size=16"))


def test_integration_has_the_original_for_a_baseline_and_holds_the_others_to_their_budget() -> None:
    spec = requested(Request(study="integration", host=NET))
    names = [v.name for v in spec.variants]
    assert names == ["original", "add", "concat", "ms-gau", "ms-se", "ms-sa", "aff", "iaff"]
    assert spec.baseline == "original"
    assert spec.budget is not None
    assert spec.budget.exempt == ("original", "add")
    assert spec.budget.tolerance == 0.02


def test_other_studies_have_the_original_beside_their_own_baseline() -> None:
    for name in ("scale", "joining", "reduction", "iterations", "gain"):
        spec, own = (requested(Request(study=name, host=host)) for host in (NET, None))
        assert spec.variants[1:] == own.variants
        assert (spec.variants[0].name, spec.baseline) == ("original", own.baseline)


@pytest.mark.parametrize("net", ["Net", "Keyed", "Keyed:num_classes=10", "Net:head=fc", "Dict:output=logits"])
def test_the_network_gets_the_datas_classes(net: str) -> None:
    host = with_classes(HostSpec.parse(f"graft:graftable:{net}"), 10)
    assert "classes=10" in host.text
    assert open_network(host, [(2, 3, 8, 8)]).fc.out_features == 10


def test_a_segmenter_is_known_by_its_output_and_gets_its_classes() -> None:
    made = planned(on("graft:graftable:Segmenter:at=all", data="shapes:size=16:train=96:test=8", train_images=None))
    assert made.data.task == "segment"
    assert made.facts["aff"].params > made.facts["add"].params > made.facts["original"].params  # adapters, then gates


@pytest.mark.parametrize(
    ("net", "error", "says", "hint"),
    [
        ("Headless", LoadError, "none of its layers has as many", "head=fc"),
        ("Net:head=stages.0", SpecError, "head=stages.0 is a Block", "linear layer"),
        ("Net:head=fcc", SpecError, "head=fcc is no part of Net", "head=fc"),
        ("Net:head=stem", LoadError, "once stem gives 10 classes, Net does not run", "head=fc"),
        ("Net:classes=9", SpecError, "asks for 9 classes, the data has 10", "classes"),
        ("Keyed:num_classes=9", SpecError, "num_classes=9, and 10 classes are asked for", "leave it out"),
        ("Dict", LoadError, "Dict gives 2 tensors", "output=logits"),
        ("Dict:output=logit", LoadError, "no entry 'logit'", "of features, logits"),
        ("KeyedDict", LoadError, "a dict for 4 images", "output=logits in its text"),
        ("Detector", LoadError, "Detector gives 2 tensors", "output=0"),
    ],
)
def test_a_network_that_cannot_get_the_datas_classes_is_refused_with_what_to_do(
    net: str, error: type[Exception], says: str, hint: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        planned(on(f"graft:graftable:{net}"))
    assert hint in str(refused.value.hint)  # type: ignore[attr-defined]


def test_every_variant_starts_from_the_same_network() -> None:
    host, starts = HostSpec.parse(f"{NET}:classes=10"), []
    for fusion, stage in (("original", "1-3"), ("add", "1-3"), ("aff", "1"), ("iaff", "2-3"), ("concat", "1-3")):
        network = build_network(
            host.with_settings(stage=stage), FusionSpec.parse(fusion), seed=3, size=(8, 8), draw=fusion
        )
        starts.append(network.host_start())
    assert all(start == starts[0] for start in starts)
    other = build_network(host, FusionSpec.parse("add"), seed=4, size=(8, 8)).host_start()
    assert other.keys() == starts[0].keys()
    assert other["stem.weight"] != starts[0]["stem.weight"]


@pytest.fixture(scope="module")
def made() -> Plan:
    """Three variants of one network, and two epochs whose last test batch is short."""
    return planned(on(NET, epochs=2))


@pytest.fixture(scope="module")
def trained(made: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return results(train(made, run_here, tmp_path_factory.mktemp("cells")))


def test_add_grafted_everywhere_trains_to_the_same_numbers_as_the_original(
    made: Plan, trained: dict[str, dict[str, Any]]
) -> None:
    facts = made.facts
    assert facts["original"].params == facts["add"].params < facts["aff"].params
    assert facts["original"].macs == facts["add"].macs < facts["aff"].macs
    original, add, aff = (trained[cell.identity] for _, _, cell in made.cells)
    assert original["losses"] == add["losses"]
    assert original["digest"] == add["digest"]
    assert aff["losses"] != add["losses"]
    assert len(aff["signal"]) == 3


@pytest.mark.long
def test_workers_train_the_same_as_this_process(made: Plan, trained: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert results(train(made, LocalEngine(("cpu", "cpu")), tmp_path)) == trained


def test_a_killed_training_goes_on_to_the_same_weights(
    made: Plan, trained: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    _, _, cell = made.cells[2]
    checkpoint = FileCheckpoint(tmp_path, cell.identity)

    def stop(tick: Tick) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cell(cell, made.data, checkpoint=checkpoint, report=stop)
    record = train_cell(cell, made.data, checkpoint=checkpoint, report=lambda _: None)
    expected = trained[cell.identity]
    assert record.result() | {"macs": expected["macs"]} == expected  # the plan's, which a run adds


def test_it_is_scored_on_a_last_batch_of_one() -> None:
    splits = load("shapes:size=16:train=32:test=33")
    data = arrays(splits, "classify")
    network = build_network(HostSpec.parse(f"{NET}:classes=10"), FusionSpec.parse("aff"), seed=0, size=data.size)
    prepare = _Prepare(data, torch.device("cpu"))
    whole = evaluate(network.module, data, prepare)
    alone = [evaluate(network.module, _one(data, i), prepare).score for i in range(len(data.test_images))]
    assert whole.score == pytest.approx(sum(alone) / len(alone))


def _one(data: Any, place: int) -> Any:
    part = slice(place, place + 1)
    return dataclasses.replace(
        data, test_images=data.test_images[part], test_targets=data.test_targets[part], test_bands=None
    )


@pytest.mark.long
def test_a_compiled_cell_trains() -> None:
    made = plan(on(NET, ("original", "aff")), Conditions(compiled="always"))
    records = train(made, run_here, Path("unused"))
    assert {record.status for record in records.values()} == {"ok"}
