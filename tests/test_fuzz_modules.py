"""Random modules through a count, a review and a step of training: what comes out is what their layers say.

Six seeds by default, two hundred with `pytest -m fuzz`. A failure names its seed: `written(SEED).source` is the
module.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from random_modules import BATCH, CHANNELS, FAULTS, SIZE, Program, written

from afftool.backends.workload import Workload
from afftool.bench import Options, bench
from afftool.build import build_case
from afftool.errors import LoadError
from afftool.inspect import checks
from afftool.inspect.finding import Finding
from afftool.inspect.subject import subject_of
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec

INPUTS = (1, 2, 3)
"""How many maps the modules take."""
INPLACE_ON_INPUTS = True
"""Whether some write into what they are given."""
FEW, MANY = 6, 200
WHOLE_REVIEW = 10
"""Every so many get every check, the others those that cost little."""
COSTLY = ("ten blocks", "graph breaks", "export", "16 bits")
SEEDS = [pytest.param(seed, marks=[] if seed < FEW else [pytest.mark.fuzz]) for seed in range(MANY)]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program into a file of its own, as a user's, and gives its case."""
    monkeypatch.chdir(tmp_path)

    def case(program: Program, mode: str) -> CaseSpec:
        name = f"fuzzed_{program.seed}"
        (tmp_path / f"{name}.py").write_text(program.source)
        monkeypatch.delitem(sys.modules, name, raising=False)
        text = f"{name}:Fusion" + (f":inputs={program.inputs}" if program.inputs != 2 else "")
        return CaseSpec(
            fusion=FusionSpec.parse(text),
            channels=CHANNELS,
            size=SIZE,
            batch=BATCH,
            mode=mode,  # type: ignore[arg-type]
        )

    return case


def measured(case: CaseSpec) -> Record:
    (record,) = bench([case], Options(measures=("cost",), baseline=None))
    return record


def reviewed(case: CaseSpec, monkeypatch: pytest.MonkeyPatch, *, whole: bool) -> dict[str, list[Finding]]:
    if not whole:
        kept = {name: path for name, path in checks.CHECKS.items() if name not in COSTLY}
        monkeypatch.setattr(checks, "CHECKS", kept)
    subject = subject_of(case.fusion, channels=CHANNELS, size=SIZE, batch=BATCH)
    found: dict[str, list[Finding]] = {}
    for finding in checks.review(subject):
        found.setdefault(finding.check, []).append(finding)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_module_costs_what_its_layers_say_is_reviewed_and_trains(
    seed: int, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = written(seed, inputs=INPUTS, inplace_on_inputs=INPLACE_ON_INPUTS)
    infer, train = put(program, "infer"), put(program, "train")
    if program.fault:
        refused(program, infer, monkeypatch)
        return
    for case in (infer, train):
        record = measured(case)
        assert (record.status, record.reason) == ("ok", None)
        assert record.uncounted_ops == {}
        assert (record.params, record.macs) == (program.params, program.macs)
        assert record.flops >= 2 * program.macs
    assert record.live_params == program.params - sum(program.parameters[name] for name in program.dead)
    assert record.backward_macs == program.backward_macs  # the training step's, which came last

    found = reviewed(infer, monkeypatch, whole=seed % WHOLE_REVIEW == 0)
    assert set(found) == set(checks.CHECKS)
    unexplained = [f.what for findings in found.values() for f in findings if f.severity == "unknown"]
    assert unexplained == []
    assert [f.severity for f in found["output"]] == ["ok"]
    dead = {name for f in found["dead parameters"] for name in f.measured.get("not_in_output", ())}
    assert dead == program.dead

    workload = Workload(build_case(train))
    workload.run(1)
    for name, parameter in workload.module.named_parameters():
        assert (parameter.grad is None) == (name in program.dead), name
    out = workload.outputs(seed=0)
    assert all(math.isfinite(float(t.double().sum())) for t in _tensors(out))


def _tensors(outputs: Any) -> list[torch.Tensor]:
    return [t for named in outputs.kinds.values() for t in named.values() if t is not None]


def refused(program: Program, case: CaseSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that was planted is told with torch's reason, where a user would look."""
    assert program.fault
    reason = FAULTS[program.fault]
    record = measured(case)
    assert record.status == "failed"
    assert re.search(reason, record.reason or "")
    if program.fault == "groups":  # it cannot even be built
        with pytest.raises(LoadError, match=reason):
            reviewed(case, monkeypatch, whole=False)
        return
    (finding,) = reviewed(case, monkeypatch, whole=False)["output"]
    assert finding.measured["runs"] is False
    assert re.search(reason, finding.what)


def test_the_grammar_reaches_every_kind_of_layer_and_its_faults() -> None:
    programs = [written(seed, inputs=INPUTS) for seed in range(MANY)]
    sources = "\n".join(program.source for program in programs)
    for word in ("groups=8", "dilation=3", "stride=2", "ConvTranspose2d", "Linear", "bmm", "einsum", " @ ", "matmul"):
        assert word in sources
    for word in ("BatchNorm2d", "GroupNorm", "InstanceNorm2d", "LayerNorm", "inplace=True", "relu_()", "torch.cat"):
        assert word in sources
    assert {program.fault for program in programs} == {None, *FAULTS}
    assert {program.fault for program in programs[:FEW]} > {None}
    assert {program.inputs for program in programs[:FEW]} == set(INPUTS)
    assert any(program.dead for program in programs[:FEW])
    assert {program.inputs for program in programs[:FEW]} == set(INPUTS)
