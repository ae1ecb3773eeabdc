"""Before training: data, budgets, classes and tasks; whatever is wrong stops the study here."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from small_cells import planned, small

from afftool.errors import DataError, LoadError, ShapeError, SpecError
from afftool.hosts import build_host
from afftool.spec import FusionSpec
from afftool.study.grids import study
from afftool.study.plan import Conditions, check_budget, pays_to_compile, plan
from afftool.study.run import Shard, todo
from afftool.study.spec import Budget, Variant

HOSTS = ["resnet:b=1", "resnet:b=4", "inception:b=2", "resnext:b=4", "fpn:b=1", "fpn:b=3", "resnet50", "resnext50"]


def counts(name: str, host: str) -> dict[str, int]:
    """Parameters of the whole network by variant, counted on the meta device."""
    spec = dataclasses.replace(study(name), host=host)
    with torch.device("meta"):
        networks = {v.name: build_host(spec.host_of(v), FusionSpec.parse(v.fusion)) for v in spec.variants}
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}


@pytest.mark.parametrize("host", HOSTS)
def test_the_scale_studys_variants_have_exactly_equal_counts(host: str) -> None:
    found = counts("scale", host)
    assert len(found) == 3
    assert len(set(found.values())) == 1
    check_budget(study("scale"), found)


@pytest.mark.parametrize("host", HOSTS)
def test_the_integration_studys_variants_lie_within_two_percent(host: str) -> None:
    found = counts("integration", host)
    check_budget(study("integration"), found)
    bound = [count for name, count in found.items() if name != "add"]
    assert max(bound) <= 1.02 * min(bound)
    assert found["add"] < min(bound)


def test_a_plan_knows_what_each_variant_costs() -> None:
    facts = planned(small()).facts
    assert {fact.params for fact in facts.values()} == set(counts("scale", "resnet:b=1:classes=10").values())
    assert facts["global-global"].macs < facts["aff"].macs < facts["local-local"].macs


def test_a_variant_off_budget_stops_the_study_and_is_named() -> None:
    spec = small()
    wide = dataclasses.replace(spec, variants=(*spec.variants, Variant.of("aff:reduction=2", "wide")))
    with pytest.raises(SpecError, match=r"wide has .* parameters"):
        planned(wide)
    with pytest.raises(SpecError, match="iaff has"):
        check_budget(study("integration"), counts("integration", "resnet:b=1") | {"iaff": 100_000})


def test_an_exempt_variant_and_no_budget_are_let_through() -> None:
    found = counts("scale", "resnet:b=1") | {"add": 1}
    spec = dataclasses.replace(study("scale"), variants=(*study("scale").variants, Variant.of("add")))
    with pytest.raises(SpecError, match="add has"):
        check_budget(spec, found)
    check_budget(dataclasses.replace(spec, budget=Budget(exempt=("add",))), found)
    check_budget(dataclasses.replace(spec, budget=None), found)


def test_a_host_that_never_fuses_is_refused() -> None:
    with pytest.raises(SpecError, match="no variant's fusion is ever run"):
        planned(small(host="resnet:b=1:stages=none"))


def test_a_host_that_starts_otherwise_around_each_fusion_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "redrawing_host", raising=False)
    (tmp_path / "redrawing_host.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, fusion, classes):\n"
        "        super().__init__()\n"
        "        self.stem, self.branch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)\n"
        "        self.fuse, self.head = fusion(8), nn.Linear(8, classes)\n"
        "        for part in self.modules():\n"
        "            if isinstance(part, nn.Conv2d | nn.Linear):\n"
        "                nn.init.kaiming_normal_(part.weight)\n"
        "    def forward(self, x):\n"
        "        x = self.stem(x)\n"
        "        return self.head(self.fuse(x, self.branch(x)).mean((2, 3)))\n"
    )
    spec = small(host="redrawing_host:Net").with_variants(["aff", "iaff"])
    spec = dataclasses.replace(spec, budget=None)
    with pytest.raises(SpecError, match=r"starts with other weights \(head\.") as refused:
        planned(spec)
    assert "init=kaiming" in str(refused.value.hint)
    assert planned(dataclasses.replace(spec, recipe=spec.recipe.with_settings({"init": "kaiming"}))).cells


def test_only_settings_that_can_change_a_result_are_part_of_a_cells_identity() -> None:
    cell = planned(small()).cells[0][2]

    def identity(**settings: object) -> str:
        return dataclasses.replace(cell, recipe=cell.recipe.with_settings(settings)).identity

    assert identity(power=0.5) == identity(milestones="0.5") == identity(decay=0.5) == cell.identity
    assert identity(schedule="poly", power=0.5) != identity(schedule="poly")
    assert identity(schedule="step", decay=0.5) != identity(schedule="step")
    assert len({cell.identity, identity(lr=0.1), identity(momentum=0.8), identity(flip=False)}) == 4


def test_no_shard_gets_all_cells_of_one_variant() -> None:
    made = planned(small(seeds=3))
    names = {cell.identity: name for name, _, cell in made.cells}
    parts = [[names[cell.identity] for cell in todo(made, {}, Shard(part, 3))] for part in (1, 2, 3)]
    assert [len(set(part)) for part in parts] == [3, 3, 3]
    assert sorted(name for part in parts for name in part) == sorted(name for name, _, _ in made.cells)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(SpecError, match="batch of 128 is larger than the data"):
        planned(small(recipe={"batch": 128}))


def test_labels_for_a_segmenting_host_are_refused() -> None:
    with pytest.raises(DataError, match="no masks"):
        planned(small(host="fpn:b=1"))


def test_two_variants_that_are_one_are_refused() -> None:
    with pytest.raises(SpecError, match="same fusion"):
        planned(dataclasses.replace(small(), variants=(Variant.of("aff"), Variant.of("aff", "again")), baseline="aff"))


def test_draws_make_two_variants_of_one(tmp_path: Path) -> None:
    twins = tuple(Variant(name=name, fusion="aff", draw=name) for name in "ab")
    made = planned(dataclasses.replace(small(), variants=twins, baseline="a"))
    assert len({cell.identity for _, _, cell in made.cells}) == 2


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "study_own", raising=False)
    path = tmp_path / "study_own.py"
    path.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, fusion, classes, maps):\n"
        "        super().__init__()\n"
        "        self.stem, self.side = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)\n"
        "        self.fuse, self.head, self.maps = fusion(8), nn.Conv2d(8, classes, 1), maps\n"
        "    def forward(self, image):\n"
        "        x = self.stem(image)\n"
        "        z = self.head(self.fuse(x, self.side(x)))\n"
        "        return z if self.maps else z.mean((2, 3))\n"
        "def build(fusion, classes=10, maps=False):\n"
        "    return Net(fusion, classes, maps)\n"
        "def fixed(fusion):\n"
        "    return Net(fusion, 7, False)\n"
        "class Flat(nn.Module):\n"
        "    def __init__(self, channels):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(channels, channels)\n"
        "    def forward(self, x, y):\n"
        "        return (x + y).mean((2, 3))\n"
    )
    return path


@pytest.mark.usefixtures("own")
def test_a_users_host_gets_the_datas_classes_and_its_output_says_the_task() -> None:
    data = "shapes:size=16:train=40:test=40"
    classify = planned(small(host="study_own:build", data=data, train_images=40))
    segment = planned(small(host="study_own:build:maps=true", data=data, train_images=40))
    assert (classify.data.task, classify.data.classes) == ("classify", 10)
    assert (segment.data.task, segment.data.classes) == ("segment", 11)


@pytest.mark.usefixtures("own")
def test_a_host_with_other_classes_than_the_data_is_refused() -> None:
    with pytest.raises(LoadError, match="7 classes, the data has 10"):
        planned(small(host="study_own:fixed"))


@pytest.mark.usefixtures("own")
def test_a_users_fusion_of_the_wrong_shape_stops_the_study() -> None:
    spec = small().with_variants(["aff", "study_own:Flat"])
    with pytest.raises((ShapeError, LoadError), match="study_own:Flat"):
        planned(spec)


def test_a_changed_module_of_the_users_is_another_cell(own: Path) -> None:
    before = planned(small(host="study_own:build")).cells[0][2]
    own.write_text(own.read_text() + "# changed\n")
    after = planned(small(host="study_own:build")).cells[0][2]
    assert before.identity != after.identity


def test_a_changed_file_beside_the_users_module_is_another_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "study_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text("from torch import nn\nConv = nn.Conv2d\n")
    (package / "gates.py").write_text(
        "from torch import nn\nfrom study_package.parts import Conv\n"
        "class Gate(nn.Module):\n"
        "    def __init__(self, channels):\n"
        "        super().__init__()\n"
        "        self.mix = Conv(channels, channels, 1)\n"
        "    def forward(self, x, y):\n"
        "        return x + self.mix(y)\n"
    )
    spec = small().with_variants(["study_package.gates:Gate", "add"])
    before = planned(spec).cells
    (package / "parts.py").write_text("from torch import nn\nConv = nn.Conv2d  # changed\n")
    after = planned(spec).cells
    assert before[0][2].identity != after[0][2].identity
    assert before[1][2].identity == after[1][2].identity


@pytest.mark.parametrize("change", [{"training": 99}, {"capability": "another"}, {"torch": "1.0"}])
def test_another_loop_machine_or_torch_is_another_cell(change: dict[str, object]) -> None:
    cell = planned(small()).cells[0][2]
    assert cell.training
    assert cell.capability
    assert dataclasses.replace(cell, **change).identity != cell.identity


def test_cells_go_seed_by_seed_and_shards_share_them_out() -> None:
    made = planned(small(seeds=3))
    order = [(seed, name) for name, seed, _ in made.cells]
    assert [seed for seed, _ in order] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    shards = [todo(made, {}, Shard.parse(f"{part}/4")) for part in (1, 2, 3, 4)]
    assert sorted(cell.identity for shard in shards for cell in shard) == sorted(c.identity for _, _, c in made.cells)


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"no shard|is no whole number from 1"):
        Shard.parse(text)


def test_compiling_pays_for_long_trainings_on_a_gpu_and_is_part_of_the_identity() -> None:
    assert not pays_to_compile("cuda", 10**7, 10**5)
    assert pays_to_compile("cuda", 4 * 10**9, 10**7)
    assert not pays_to_compile("cpu", 4 * 10**9, 10**7)
    compiled = plan(small(), Conditions(compiled="always"))
    assert {cell.compiled for _, _, cell in compiled.cells} == {True}
    assert compiled.cells[0][2].identity != planned(small()).cells[0][2].identity
