"""Studies and recipes as text: complete, readable back, refused where they make no sense."""

import sys
from pathlib import Path

import pytest

from afftool import catalog
from afftool.errors import LoadError, SpecError, UnknownKey, UnknownName
from afftool.study.cells import CellSpec
from afftool.study.grids import stage_choices, study
from afftool.study.power import detectable_deviations
from afftool.study.recipe import RECIPES, recipe
from afftool.study.request import Request, requested
from afftool.study.spec import StudySpec


@pytest.mark.parametrize("name", catalog.STUDIES)
def test_a_study_read_back_from_its_toml_is_the_same(name: str) -> None:
    assert StudySpec.from_toml(study(name).to_toml()) == study(name)


@pytest.mark.parametrize("name", catalog.STUDIES)
def test_a_study_has_seeds_that_show_a_difference_of_two_deviations(name: str) -> None:
    spec = study(name)
    smallest = detectable_deviations(len(spec.seeds), len(spec.comparisons()))
    assert smallest is not None
    assert smallest < 2


def test_every_study_of_the_issue_is_there() -> None:
    names = {"scale", "integration", "joining", "depth", "reduction", "iterations", "gain", "placement"}
    assert names == set(catalog.STUDIES)
    assert [v.name for v in study("integration").variants] == [
        "add",
        "concat",
        "ms-gau",
        "ms-se",
        "ms-sa",
        "aff",
        "iaff",
    ]
    assert {dict(v.knobs)["b"] for v in study("depth").variants} == {"1", "2", "3", "4"}


def test_depth_compares_at_equal_depth() -> None:
    pairs = study("depth").comparisons()
    assert len(pairs) == 8
    assert all(one.split()[1] == other.split()[1] and other.startswith("add ") for one, other in pairs)


def test_all_pairs_are_every_pair_once() -> None:
    pairs = study("integration").comparisons(pairs=True)
    assert len(pairs) == len({frozenset(pair) for pair in pairs}) == 21


def test_a_toml_study_needs_little() -> None:
    text = """
    seeds = 3
    [[variant]]
    fusion = "add"
    [[variant]]
    name = "mine"
    fusion = "aff:reduction=8"
    knobs = { b = 2 }
    recipe = { lr = 0.01 }
    """
    spec = StudySpec.from_toml(text)
    assert (spec.baseline, spec.seeds) == ("add", (0, 1, 2))
    assert spec.host_of(spec.variants[1]).text == "resnet:b=2"
    assert spec.recipe_of(spec.variants[1]).lr == 0.01


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("seeds = [", LoadError, "not TOML"),
        ("sedes = 3", UnknownKey, "sedes"),
        ("[recipe]\nepoch = 3", UnknownKey, "epoch"),
        ('[recipe]\nname = "shrot"', UnknownName, "shrot"),
        ("[recipe]\nname = 5", SpecError, "name is text, not 5"),
        ("[recipe]\nepochs = 0", SpecError, "epochs"),
        ("[recipe]\nlr = true", SpecError, "lr"),
        ('[[variant]]\nfusion = "add"', SpecError, "compares nothing"),
        ('[[variant]]\nname = "a"', SpecError, "no fusion"),
        ('[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "add"', SpecError, "two variants"),
        ('[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "afff"', UnknownName, "afff"),
        ('baseline = "x"\n[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "aff"', SpecError, "baseline"),
        ('seeds = [1, 1]\n[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "aff"', SpecError, "distinct"),
        ('seeds = "x"\n[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "aff"', SpecError, "print"),
        ('[budget]\ntolerance = 2\n[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "aff"', SpecError, "share"),
        ('[[variant]]\nfusion = "add"\nknobs = { b = 0 }\n[[variant]]\nfusion = "aff"', SpecError, "b=0"),
        ('across = "b"\n[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "aff"', SpecError, "no variant sets"),
        ('across = 3\n[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "aff"', SpecError, "across is text"),
        ('[[variant]]\nfusion = "add"\nagainst = "add"\n[[variant]]\nfusion = "aff"', SpecError, "no other variant"),
    ],
)
def test_a_bad_toml_study_is_refused_with_what_is_wrong(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        StudySpec.from_toml(text)


def test_words_change_a_study() -> None:
    spec = requested(
        Request(
            study="scale",
            host="resnet:b=2",
            seeds=3,
            epochs=1,
            batch=8,
            recipe="short:lr=0.5:flip=false",
            data="digits",
        )
    )
    assert (spec.host, spec.seeds, spec.data) == ("resnet:b=2", (0, 1, 2), "digits")
    assert (spec.recipe.epochs, spec.recipe.batch, spec.recipe.lr, spec.recipe.flip) == (1, 8, 0.5, False)


def test_variants_keep_the_studys_definition_and_add_others() -> None:
    spec = requested(Request(study="integration", variants=("add", "aff", "mypkg.gates:MyGate", "se")))
    assert [v.fusion for v in spec.variants] == ["add", "aff:reduction=2", "mypkg.gates:MyGate", "se"]
    assert spec.baseline == "add"
    assert spec.budget is not None
    assert spec.budget.exempt == ("add", "mypkg.gates:MyGate")


def test_without_its_baseline_a_study_takes_the_first_variant() -> None:
    assert requested(Request(study="scale", variants=("add", "aff"))).baseline == "add"


def test_other_fusions_are_tried_at_every_depth_each_against_the_baselines_fusion_there() -> None:
    spec = requested(Request(study="depth", variants=("add", "aff", "own:Plain")))
    named = {variant.name: variant for variant in spec.variants}
    assert list(named) == [f"{name} b={b}" for b in (1, 2, 3, 4) for name in ("add", "aff", "own:Plain")]
    assert [variant for name, variant in named.items() if "own" not in name] == [
        variant for variant in study("depth").variants if "iaff" not in variant.name
    ]
    assert spec.host_of(named["own:Plain b=3"]).text == "resnet"  # whose b is 3 by default
    assert spec.comparisons() == [
        (f"{name} b={b}", f"add b={b}") for b in (1, 2, 3, 4) for name in ("aff", "own:Plain")
    ]


def test_without_the_baselines_fusion_the_first_given_is_it_at_every_depth() -> None:
    spec = requested(Request(study="depth", variants=("own:Plain", "iaff", "aff")))
    assert spec.baseline == "own:Plain b=1"
    assert set(spec.comparisons()) == {
        (f"{name} b={b}", f"own:Plain b={b}") for b in (1, 2, 3, 4) for name in ("aff", "iaff")
    }


def test_the_baselines_fusion_is_what_others_are_compared_with_wherever_it_is_given() -> None:
    spec = requested(Request(study="depth", variants=("own:Plain", "add")))
    assert spec.baseline == "add b=1"
    assert spec.comparisons() == [(f"own:Plain b={b}", f"add b={b}") for b in (1, 2, 3, 4)]


def test_other_fusions_are_placed_in_every_choice_of_stages_against_none() -> None:
    spec = requested(Request(study="placement", variants=("aff", "own:Plain")))
    stages = ("stage 1", "stage 2", "stage 3", "stages 2-3", "stages 1-3")
    names = ["none", *(name for stage in stages for name in (stage, f"own:Plain {stage}"))]
    assert [variant.name for variant in spec.variants] == names
    assert [v for v in spec.variants if "own" not in v.name] == list(study("placement").variants)
    assert spec.comparisons() == [(name, "none") for name in names[1:]]
    assert spec.host_of(spec.variants[-1]).text == "resnet:b=1"
    assert spec.host_of(spec.variants[-3]).text == "resnet:b=1:stages=2+3"


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("fpn:b=1", ["none", "stage 1", "stage 2", "stages 1-2"]),
        ("resnet:b=2", ["none", "stage 1", "stage 2", "stage 3", "stages 2-3", "stages 1-3"]),
        ("resnet50", ["none", "stage 1", "stage 2", "stage 3", "stage 4", "stages 3-4", "stages 1-4"]),
    ],
)
def test_placement_tries_each_stage_the_host_has_its_tail_and_all(host: str, names: list[str]) -> None:
    spec = requested(Request(study="placement", host=host))
    assert [variant.name for variant in spec.variants] == names
    assert [dict(variant.knobs)["stages"] for variant in spec.variants] == [name.split()[-1] for name in names]
    assert [variant.fusion for variant in spec.variants] == ["add"] + ["aff"] * (len(names) - 1)
    assert (spec.host, spec.baseline) == (host, "none")
    assert len(spec.seeds) == (7 if len(names) == 4 else 8)


def test_a_host_of_one_stage_is_placed_in_it_or_not() -> None:
    assert stage_choices((1,)) == ("1",)


@pytest.fixture
def _own_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "staged_own", raising=False)
    (tmp_path / "staged_own.py").write_text(
        "def plain(fusion, width=8): ...\n"
        "def silent(fusion, stages=4): ...\n"
        "def text(fusion, stages='1-4'): ...\n"
        "def numbers(fusion, stages=(1, 2)): ...\n"
    )


@pytest.mark.usefixtures("_own_hosts")
@pytest.mark.parametrize(
    ("host", "count"), [("text", 4), ("numbers", 2), ("silent:stages=1-3", 3), ("text:stages=2", 2)]
)
def test_a_host_of_ones_own_says_how_many_stages_it_has(host: str, count: int) -> None:
    spec = requested(Request(study="placement", host=f"staged_own:{host}"))
    assert [v.name for v in spec.variants if v.name.startswith("stage ")] == [f"stage {n + 1}" for n in range(count)]


@pytest.mark.usefixtures("_own_hosts")
@pytest.mark.parametrize(
    ("host", "says"),
    [("plain", "no knob `stages`"), ("silent", "how many stages"), ("text:stages=none", "how many stages")],
)
def test_a_host_that_does_not_say_its_stages_is_refused_with_what_to_do(host: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as refused:
        requested(Request(study="placement", host=f"staged_own:{host}"))
    assert f"--host staged_own:{host.partition(':')[0]}:stages=1-3" in str(refused.value.hint)


def test_addition_in_some_stages_is_addition_everywhere_and_placed_once() -> None:
    placed = requested(Request(study="placement", variants=("add", "aff")))
    assert placed.variants == study("placement").variants


def test_a_fusion_written_otherwise_is_still_the_studys_own() -> None:
    spec = requested(Request(study="depth", variants=("add", "aff:reduction=2")))
    assert [variant.name for variant in spec.variants][:2] == ["add b=1", "aff b=1"]


def test_a_crossed_studys_variants_can_be_chosen_by_their_names() -> None:
    spec = requested(Request(study="depth", variants=("add b=2", "iaff b=2")))
    assert spec.comparisons() == [("iaff b=2", "add b=2")]
    assert [v.name for v in requested(Request(study="placement", variants=("none", "stage 2"))).variants] == [
        "none",
        "stage 2",
    ]


@pytest.mark.parametrize("name", ["depth", "placement"])
def test_a_crossed_study_of_other_fusions_is_read_back_from_its_toml_and_crossed_again(
    name: str, tmp_path: Path
) -> None:
    spec = requested(Request(study=name, variants=("add", "own:Plain")))
    (tmp_path / "mine.toml").write_text(spec.to_toml())
    mine = str(tmp_path / "mine.toml")
    assert requested(Request(study=mine)) == spec
    again = requested(Request(study=mine, variants=("add", "aff:reduction=8")))
    assert again == requested(Request(study=name, variants=("add", "aff:reduction=8")))


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (Request(study="sacle"), UnknownName, "scale"),
        (Request(study="missing.toml"), LoadError, "missing.toml"),
        (Request(study="scale", host="resnt"), UnknownName, "resnet"),
        (Request(study="scale", data="cifar10"), SpecError, "needs a path"),
        (Request(study="scale", data="mnist"), UnknownName, "mnist"),
        (Request(study="scale", seeds=0), SpecError, "seeds"),
        (Request(study="scale", epochs=0), SpecError, "epochs"),
        (Request(study="scale", batch=1), SpecError, "batch"),
        (Request(study="scale", train_images=0), SpecError, "images"),
        (Request(study="scale", variants=("aff",)), SpecError, "compares nothing"),
        (Request(study="scale", variants=("aff", "afff")), UnknownName, "aff"),
        (Request(study="scale", baseline="add"), SpecError, "baseline"),
        (Request(study="placement", variants=("add",)), SpecError, "compares nothing"),
        (Request(study="depth", variants=("add", "afff")), UnknownName, "aff"),
        (Request(study="scale", recipe="papr"), UnknownName, "papr"),
        (Request(study="scale", recipe="short:lr=fast"), SpecError, "lr=fast"),
        (Request(study="scale", recipe="short:lr"), SpecError, "key=value"),
        (Request(study="scale", recipe="short:optimizer=adm"), SpecError, "choose from"),
        (Request(study="depth", host="resnet50"), UnknownKey, "'b'"),
        (Request(study="placement", host="module"), SpecError, "no stages"),
        (Request(study="placement", host="resnt"), UnknownName, "resnet"),
        (Request(study="placement", host="missing_nets:Net"), LoadError, "missing_nets"),
    ],
)
def test_a_bad_request_is_refused_before_any_data_is_read(asked: Request, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        requested(asked)
    assert message in str(caught.value)


def test_the_papers_recipes_are_those_of_its_table_2() -> None:
    cifar, fpn = RECIPES["paper-cifar"], RECIPES["paper-fpn"]
    assert (cifar.epochs, cifar.batch, cifar.lr, cifar.weight_decay, cifar.nesterov) == (400, 128, 0.2, 1e-4, True)
    assert [cifar.rate(epoch, 1) for epoch in (0, 299, 300, 349, 350, 399)] == pytest.approx(
        [0.2, 0.2, 0.02, 0.02, 0.002, 0.002]
    )
    assert (fpn.epochs, fpn.batch, fpn.optimizer, fpn.lr, fpn.schedule) == (300, 32, "adagrad", 0.01, "poly")


def test_the_short_recipe_warms_up_and_anneals() -> None:
    chosen = recipe("short", epochs=10)
    rates = [chosen.rate(step, 5) for step in range(50)]
    assert rates[:5] == sorted(rates[:5])
    assert max(rates) == pytest.approx(chosen.lr, rel=0.01)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 <= rates[-1] < 0.01 * chosen.lr


def test_a_cells_identity_is_over_what_changes_its_result() -> None:
    cell = CellSpec(
        fusion="aff",
        host="resnet",
        data="digits",
        fingerprint="f",
        train_images=None,
        data_seed=0,
        recipe=recipe("short"),
        seed=0,
    )
    assert CellSpec.from_dict(cell.to_dict()) == cell
    fields = cell.to_dict()
    for key, value in {
        "fusion": "add",
        "seed": 1,
        "fingerprint": "g",
        "threads": 2,
        "draw": "b",
        "compiled": True,
    }.items():
        assert CellSpec.from_dict(fields | {key: value}).identity != cell.identity
    assert CellSpec.from_dict(fields | {"recipe": fields["recipe"] | {"lr": 0.3}}).identity != cell.identity
    assert CellSpec.from_dict(fields | {"data": "digits:size=8"}).identity == cell.identity
