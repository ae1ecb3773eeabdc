"""Whatever a file of the user's sets for the whole process is put back and named, by whichever way it was set."""

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from afftool.build import build_case
from afftool.fusion import build_fusion
from afftool.global_settings import generators, settings
from afftool.global_state import kept, set_by
from afftool.registry import load
from afftool.spec import CaseSpec, FusionSpec

PLAIN = """
import gc, os, random, sys, warnings
import numpy, torch
from torch import nn
{imported}
class Plain(nn.Module):
    def __init__(self, channels):
        super().__init__()
        {built}
        self.fc = nn.Conv2d(channels, channels, 1)
    def forward(self, x, y):
        {run}
        return self.fc(x + y)
"""

SETS = {
    "torch.set_grad_enabled(False)": "grad mode: off instead of on",
    "torch.keep = torch.inference_mode(); torch.keep.__enter__()": "inference mode: on instead of off",
    "torch.autograd.set_detect_anomaly(True)": "anomaly detection: on instead of off",
    "torch.autograd.graph.saved_tensors_hooks(id, id).__enter__()": "hooks on saved tensors: some instead of none",
    "torch.autocast('cpu', dtype=torch.bfloat16).__enter__()": "autocast on cpu: to bfloat16 instead of off",
    "torch.set_default_dtype(torch.float64)": "default dtype: float64 instead of float32",
    "torch.set_default_device('meta')": "default device and modes: tensors made on meta",
    "torch.set_num_threads(3)": "threads: 3 instead of 1",
    "torch.set_flush_denormal(True)": "tensors flushed to 0 where tiny: on instead of off",
    "torch.use_deterministic_algorithms(True)": "deterministic algorithms: on instead of off",
    "torch.use_deterministic_algorithms(True, warn_only=True)": "deterministic algorithms: warned of instead of off",
    "torch.utils.deterministic.fill_uninitialized_memory = False": "deterministic fill uninitialized memory: off",
    "torch.set_float32_matmul_precision('medium')": "float32 matmul precision: medium instead of highest",
    "torch.backends.fp32_precision = 'tf32'": "fp32 precision of mkldnn conv: tf32 instead of none",
    "torch.backends.mkldnn.enabled = False": "mkldnn enabled: off instead of on",
    "torch.backends.nnpack.set_flags(False)": "nnpack enabled: off instead of on",
    "torch.backends.cudnn.enabled = False": "cudnn enabled: off instead of on",
    "torch.backends.cudnn.benchmark = True": "cudnn benchmark: on instead of off",
    "torch.backends.cudnn.deterministic = True": "cudnn deterministic: on instead of off",
    "torch.backends.cuda.matmul.allow_tf32 = True": "cublas allow tf32: on instead of off",
    "torch.backends.cuda.enable_flash_sdp(False)": "flash attention: off instead of on",
    "torch.backends.mha.set_fastpath_enabled(False)": "fast path of attention: off instead of on",
    "nn.modules.module.register_module_forward_hook(id)": "forward hooks of every module: some instead of none",
    "nn.modules.module.register_module_full_backward_hook(id)": "backward hooks of every module",
    "torch.compiler.set_stance('force_eager')": "torch.compile's stance: force_eager instead of default",
    "gc.disable()": "garbage collection: off instead of on",
    "os.environ['OMP_NUM_THREADS'] = '7'": "environment variables: OMP_NUM_THREADS 7 instead of 1",
    "os.chdir('/')": "current directory: / instead of",
    "warnings.simplefilter('error')": "warnings that raise",
    "numpy.seterr(all='raise')": "NumPy's errors: divide raise instead of warn",
}
"""What a file may do, and how it is named."""

numbers = itertools.count()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes a module that sets something on import, when it is built or when it runs; its target."""
    monkeypatch.chdir(tmp_path)

    def make(*, imported: str = "", built: str = "pass", run: str = "pass") -> str:
        name = f"sets_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(PLAIN.format(imported=imported, built=built, run=run))
        return f"{name}:Plain"

    return make


def state() -> dict[str, Any]:
    return {setting.name: setting.read() for setting in settings()}


def random_states() -> list[Any]:
    return [generator.read() for generator in generators()]


def said(target: str) -> str:
    return "; ".join(f"{name}: {what}" for name, what in (set_by(target) or {}).items())


@pytest.mark.parametrize("line", SETS)
def test_what_an_import_sets_is_put_back_and_named(line: str, made: Callable[..., str]) -> None:
    before = state()
    target = made(imported=line)
    load(target)
    after = state()
    assert {name: after[name] for name in before} == before
    assert SETS[line] in said(target)
    assert said(target).endswith("on import")


@pytest.mark.parametrize("line", SETS)
def test_what_a_constructor_sets_is_put_back_and_named(line: str, made: Callable[..., str]) -> None:
    target = made(built=line)
    load(target)
    before = state()
    try:
        build_fusion(target, channels=2)
    finally:
        assert {name: state()[name] for name in before} == before
    assert SETS[line] in said(target)
    assert said(target).endswith("when it was built")


def test_a_constructor_that_raises_leaves_nothing_behind_either(made: Callable[..., str]) -> None:
    target = made(built="torch.set_grad_enabled(False); raise ValueError")
    with pytest.raises(Exception, match="could not be built"):
        build_fusion(target, channels=2)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("torch.manual_seed(5)", "torch's random numbers: seeded with 5, on import"),
        ("random.seed(5)", "Python's random numbers: drawn from or seeded, on import"),
        ("numpy.random.seed(5)", "NumPy's random numbers: drawn from or seeded, on import"),
        ("torch.rand(3)", ""),  # a layer made at the top of a file draws, and means nothing by it
    ],
)
def test_an_import_leaves_every_random_generator_as_it_was(line: str, named: str, made: Callable[..., str]) -> None:
    random.random()
    numpy.random.rand()
    before = random_states()
    target = made(imported=line)
    load(target)
    assert random_states() == before
    assert said(target) == named


def test_a_constructor_that_seeds_takes_nobody_elses_numbers(made: Callable[..., str]) -> None:
    target = made(built="torch.manual_seed(5); random.seed(5); numpy.random.seed(5)")
    load(target)
    before = random_states()
    build_fusion(target, channels=2)
    assert random_states() == before
    assert said(target) == "torch's random numbers: seeded with 5, when it was built"


def test_two_modules_of_a_constructor_that_draws_start_from_other_numbers(made: Callable[..., str]) -> None:
    target = made()
    one, other = (build_fusion(target, channels=2) for _ in range(2))
    assert not torch.equal(one.fc.weight, other.fc.weight)
    assert set_by(target) is None


def test_a_case_is_the_same_whatever_its_file_sets(made: Callable[..., str]) -> None:
    """Its weights and inputs are drawn under the caller's settings: the default dtype of the file reaches neither."""
    plain, odd = (
        build_case(CaseSpec(fusion=FusionSpec.parse(target), channels=2, size=(2, 2), batch=1))
        for target in (made(), made(imported="torch.set_default_dtype(torch.float64); torch.manual_seed(5)"))
    )
    assert odd.module.fc.weight.dtype == torch.float32
    assert torch.equal(plain.module.fc.weight, odd.module.fc.weight)
    assert torch.equal(plain.inputs[0], odd.inputs[0])


def test_a_package_is_named_for_each_of_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported once, and what it set then holds for all that is made of it."""
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "setting_package"
    package.mkdir()
    (package / "__init__.py").write_text("import torch\ntorch.set_grad_enabled(False)\n")
    for name in ("a", "b"):
        (package / f"{name}.py").write_text("Plain = None\n")
    for name in ("a", "b"):
        load(f"setting_package.{name}:Plain")
        assert said(f"setting_package.{name}:Plain") == "grad mode: off instead of on, on import"


def test_code_that_runs_may_be_kept_too_and_ours_needs_it_not() -> None:
    with kept(["mine:Running"], "while it ran"):
        torch.set_grad_enabled(False)
    assert torch.is_grad_enabled()
    assert said("mine:Running") == "grad mode: off instead of on, while it ran"
    assert set_by("afftool.fusion:Addition", None) is None


def test_a_file_that_takes_the_threads_before_it_loads_torch_takes_them_from_nobody(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text("import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport torch\nPlain = None\n")
    program = (
        "from afftool.registry import load; load('early:Plain'); import os, torch; "
        "print(torch.get_num_threads(), os.environ.get('OMP_NUM_THREADS'))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "2"]
