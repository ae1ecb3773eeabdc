"""Formulas that the user gives for operators of their own: found, called, named, and refused with a hint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from afftool import registry
from afftool.bench import Options, bench
from afftool.cli import app
from afftool.errors import LoadError, SpecError, UserError
from afftool.measure.cost.count import count, count_module
from afftool.measure.cost.explain import explain
from afftool.measure.cost.own_formulas import own_formulas
from afftool.report.breakdown import operator_table
from afftool.spec import CaseSpec, FusionSpec

FORMULAS = '''
import torch


def three(inputs, output):
    """3 per element; every tensor is on the meta device, arguments come in the order of the schema."""
    x, y, factor = inputs
    assert {t.device.type for t in (x, y, output)} == {"meta"}, "no meta tensors"
    assert factor == 2.0, "a default is missing"
    return 0, 3 * output.numel()


def pair(inputs, output):
    first, second = output
    return first.numel() + second.numel(), 0


def fails(inputs, output):
    raise KeyError("nothing here")


def one_number(inputs, output):
    return 3


def negative(inputs, output):
    return -1, 0


a_number = 3
'''
MIXES = """
import torch


class Mixes(torch.nn.Module):
    def forward(self, x, y):
        return torch.ops.formulatest.mixed(x, y)
"""


@torch.library.custom_op("formulatest::mixed", mutates_args=())
def mixed(x: torch.Tensor, y: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    return x + factor * y


@mixed.register_fake
def _(x: torch.Tensor, y: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("formulatest::real_only", mutates_args=())
def real_only(x: torch.Tensor, y: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
    return x + factor * y


@torch.library.custom_op("formulatest::halves", mutates_args=())
def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., :2].clone(), x[..., 2:].clone()


@halves.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x[..., :2]), torch.empty_like(x[..., 2:])


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = lambda *inputs: function(*inputs)  # an operator object cannot be copied

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


MAPS = [torch.randn(2, 8, 6, 6) for _ in range(2)]
ELEMENTS = 2 * 8 * 36
MIXED = '"formulatest::mixed" = "user_formulas:three"'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "user_formulas.py").write_text(FORMULAS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def own_toml(project: Path, *entries: str) -> None:
    (project / "afftool.toml").write_text("\n".join(["[formulas]", *entries]))


@pytest.mark.parametrize(
    ("file", "head"), [("afftool.toml", "[formulas]"), ("pyproject.toml", "[tool.afftool.formulas]")]
)
def test_a_formula_in_the_project_s_file_counts_its_operator(project: Path, file: str, head: str) -> None:
    assert count_module(Calls(mixed), MAPS).uncounted_ops == {"formulatest.mixed": 1}
    (project / file).write_text(f"{head}\n{MIXED}\n")
    reading = count_module(Calls(mixed), MAPS)
    assert (reading.macs, reading.flops, reading.uncounted_ops) == (0, 3 * ELEMENTS, {})
    assert reading.counted_on == "meta"
    assert [row.formula for row in reading.rows] == ["yours: user_formulas:three"]


def test_an_entry_point_gives_one_too_and_the_project_goes_before_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"formulatest::mixed": "user_formulas:three", "formulatest::never_met": "not_installed:at_all"}
    monkeypatch.setattr(registry, "entry_points", lambda group: installed if group == "afftool.formulas" else {})
    assert count_module(Calls(mixed), MAPS).flops == 3 * ELEMENTS
    own_toml(project, '"formulatest::mixed" = "user_formulas:negative"')
    assert own_formulas()["formulatest::mixed"].says == "yours: user_formulas:negative"


def test_without_a_meta_kernel_the_formula_still_gets_meta_tensors(project: Path) -> None:
    own_toml(project, '"formulatest::real_only" = "user_formulas:three"')
    reading = count_module(Calls(real_only), MAPS)
    assert (reading.flops, reading.uncounted_ops, reading.counted_on) == (3 * ELEMENTS, {}, "cpu")


def test_a_formula_sees_every_output_as_the_operator_gives_them(project: Path) -> None:
    own_toml(project, '"formulatest::halves" = "user_formulas:pair"')
    reading = count_module(Calls(halves), MAPS[:1])
    assert (reading.macs, reading.flops) == (ELEMENTS, 2 * ELEMENTS)


def test_the_user_s_formula_is_named_where_the_operators_are_listed(project: Path) -> None:
    (project / "user_fusions.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Mixes(nn.Module):\n"
        "    def forward(self, x, y):\n        return torch.ops.formulatest.mixed(x, y)\n"
    )
    own_toml(project, MIXED)
    case = CaseSpec(fusion=FusionSpec.parse("user_fusions:Mixes"), channels=8, size=(6, 6), batch=2)
    assert count(case).flops == 3 * ELEMENTS
    row = operator_table("mine", explain(case)).rows[0]
    assert (row[0], row[-1]) == ("formulatest.mixed", "yours: user_formulas:three")
    [record] = bench([case], Options(measures=("cost",), baseline=None))
    assert (record.flops, record.uncounted_ops) == (3 * ELEMENTS, {})


ROLLED = """
import torch
from torch import nn


@torch.library.custom_op("rolledtest::rolled_mix", mutates_args=())
def rolled_mix(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + 0.5 * (y.roll(1, -1) + y)


@rolled_mix.register_fake
def _(x, y):
    return torch.empty_like(x)


class Rolled(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x, y):
        return rolled_mix(x, y)
"""


@pytest.mark.parametrize("command", ["bench", "describe"])
def test_what_is_said_of_an_operator_that_is_not_counted_counts_it_when_it_is_done(
    project: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    name = f"user_rolled_{command}"
    (project / f"{name}.py").write_text(ROLLED.replace("rolledtest", name))
    monkeypatch.setenv("AFFTOOL_STORE", str(project / "runs.sqlite"))
    words = ["bench", "-m", "cost", "-b", "2", "-f"] if command == "bench" else ["describe"]
    words += [f"{name}:Rolled", "-c", "8", "-s", "6"]
    said = " ".join(CliRunner().invoke(app, words, catch_exceptions=False).output.split())
    entry = f'"{name}::rolled_mix" = "pkg.mod:function"'
    told = (
        f"To have it counted, write {entry} below [formulas] in afftool.toml (or below [tool.afftool.formulas] in "
        "pyproject.toml) of the directory you run in; function(inputs, output) gets meta tensors and returns two whole "
        "numbers, (macs, other_flops): `return 0, 3 * output.numel()` is 3 per element."
    )
    assert told in said
    (project / "counts.py").write_text("def rolled(inputs, output):\n    return 0, 3 * output.numel()\n")
    own_toml(project, entry.replace("pkg.mod:function", "counts:rolled"))
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "To have it counted" not in result.output
    case = CaseSpec(fusion=FusionSpec.parse(f"{name}:Rolled"), channels=8, size=(6, 6), batch=2)
    assert (count(case).flops, count(case).uncounted_ops) == (3 * ELEMENTS, {})


@pytest.mark.parametrize("entry", ['"cases.mix" = "user_formulas:three"', 'cases.mix = "user_formulas:three"'])
def test_a_dot_in_place_of_the_colons_is_answered_with_the_line_that_works(project: Path, entry: str) -> None:
    own_toml(project, entry)
    with pytest.raises(SpecError) as told:
        own_formulas()
    assert '"cases::mix" = "pkg.mod:function"' in str(told.value.hint)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("fails", "user_formulas:fails, the formula of formulatest::mixed, failed: KeyError: 'nothing here'"),
        ("one_number", "user_formulas:one_number, the formula of formulatest::mixed, gave 3"),
        ("negative", r"gave \(-1, 0\)"),
    ],
)
def test_a_formula_that_fails_is_said_instead_of_a_count_that_lacks_it(project: Path, function: str, said: str) -> None:
    own_toml(project, f'"formulatest::mixed" = "user_formulas:{function}"')
    with pytest.raises(LoadError, match=said) as told:
        count_module(Calls(mixed), MAPS)
    assert "(macs, other_flops)" in str(told.value.hint)


def test_a_module_cannot_swallow_the_failure_of_a_formula(project: Path) -> None:
    def careful(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        try:
            return mixed(x, y)
        except Exception:
            return x

    own_toml(project, '"formulatest::mixed" = "user_formulas:fails"')
    with pytest.raises(LoadError, match="KeyError"):
        count_module(Calls(careful), MAPS)


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ('"formulatest.mixed" = "user_formulas:three"', SpecError, "'formulatest.mixed' .* is no operator"),
        ('"mixed" = "user_formulas:three"', SpecError, "'mixed' in the formulas of afftool.toml is no operator"),
        ('"formulatest::mixed" = "user_formulas"', SpecError, "has no function: 'user_formulas'"),
        ('"formulatest::mixed" = 3', SpecError, "has no function: 3"),
        ('"formulatest::mixed" = "user_formulas:tree"', LoadError, "has no attribute 'tree'"),
        ('"formulatest::mixed" = "no_such_module:three"', LoadError, "no module named 'no_such_module'"),
        ('"formulatest::mixed" = "user_formulas:a_number"', LoadError, "is not a function"),
        ('"aten::add" = "user_formulas:three"', SpecError, "aten::add .* has a formula already"),
        ('"aten::relu_" = "user_formulas:three"', SpecError, "has a formula already"),
        ('"aten::view" = "user_formulas:three"', SpecError, "has a formula already"),
        ('"aten::no_such" = "user_formulas:three"', SpecError, "is no operator of torch"),
        ('"aten::matmul" = "user_formulas:three"', SpecError, "is made of other operators"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_before_any_work(
    project: Path, entry: str, error: type[UserError], said: str
) -> None:
    own_toml(project, entry)
    (project / "user_mixes.py").write_text(MIXES)
    case = CaseSpec(fusion=FusionSpec.parse("user_mixes:Mixes"), channels=8, size=(6, 6), batch=2)
    with pytest.raises(error, match=said) as told:
        bench([case], Options(measures=("cost",), baseline=None))
    assert told.value.exit_code == 2
    with pytest.raises(error, match=said):
        count(case)


def test_no_function_of_a_folder_s_file_is_loaded_for_what_is_afftool_s_own(project: Path) -> None:
    own_toml(project, '"formulatest::mixed" = "no_such_module:three"')
    case = CaseSpec(fusion=FusionSpec.parse("add"), channels=8, size=(6, 6), batch=2)
    (record,) = bench([case], Options(measures=("cost",), baseline=None))
    assert (record.status, count(case).params) == ("ok", 0)


def test_formulas_that_are_no_table_and_a_file_that_is_no_toml_are_refused(project: Path) -> None:
    (project / "afftool.toml").write_text("formulas = 3\n")
    with pytest.raises(SpecError, match=r"afftool\.toml are no table"):
        own_formulas()
    (project / "afftool.toml").write_text("[formulas\n")
    with pytest.raises(UserError, match="is not TOML"):
        own_formulas()


def test_an_operator_of_torch_that_has_none_here_can_be_given_one(project: Path) -> None:
    own_toml(project, '"aten::linalg_inv_ex" = "user_formulas:pair"')
    reading = count_module(Calls(torch.linalg.inv), [torch.randn(3, 3)])
    assert (reading.macs, reading.uncounted_ops) == (9 + 1, {})


def test_a_file_with_nothing_but_the_gate_s_cases_gives_no_formulas(project: Path) -> None:
    (project / "afftool.toml").write_text('[[case]]\nfusion = "aff"\n')
    assert own_formulas() == {}
