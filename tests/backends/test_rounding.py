"""Where eager itself jumps as it rounds otherwise, and what that excuses in others: kinks, and no fault."""

import dataclasses
import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from afftool.backends.outputs import Agreement, Outputs, agree
from afftool.backends.rounding import OtherRoundings, jumps
from afftool.backends.workload import OWN_INPUTS, Workload, in_double
from afftool.build import Case, build_case
from afftool.catalog import FUSIONS
from afftool.spec import CaseSpec, FusionSpec

CASE = CaseSpec(fusion=FusionSpec.parse("add"), channels=4, size=(4, 4), batch=2, mode="train")


def case_of(module: nn.Module, *inputs: torch.Tensor) -> Case:
    case = build_case(CASE)
    return dataclasses.replace(case, module=module.train(), inputs=inputs or case.inputs)


class Honest(OtherRoundings):
    """A backend that is right, and rounds as others do: off by two steps of its dtype at most."""

    def _factors(self, tensor: torch.Tensor, *, tf32: bool = False) -> torch.Tensor:
        drawn = torch.rand(tensor.shape, generator=self._generator(tensor.device))
        return 1 + (4 * drawn - 2) * torch.finfo(tensor.dtype).eps


def honest(case: Case, draw: int, seed: int = OWN_INPUTS) -> Outputs:
    with Honest(draw, 1.0):
        return Workload(case).outputs(seed)


class Judge:
    """What eager makes of a case's inputs, and those of `seed`, worked out once for all that is held against it."""

    def __init__(self, case: Case, seed: int = OWN_INPUTS) -> None:
        self.case, self.seed = case, seed
        self.eager = Workload(case).outputs(seed)
        self.exact = functools.cache(lambda: in_double(case, seed))
        self.jumps = functools.cache(lambda: jumps(case, seed, self.eager))

    def __call__(self, found: Outputs) -> Agreement:
        return agree(found, self.eager, self.exact, self.jumps)


class Kinked(nn.Module):
    """Takes the sum of its maps through a function with a kink."""

    def __init__(self, kink: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.kink = kink

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.kink(x + y)


def on_the_other_side(case: Case, by: float) -> Outputs:
    """What is right too where the first sum lies on a kink: the other side's."""
    x, y = case.inputs
    moved = x.clone()
    moved.view(-1)[0] += by
    return Workload(dataclasses.replace(case, inputs=(moved, y))).outputs(OWN_INPUTS)


def pooled(x: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(x, 2)


@pytest.mark.parametrize(
    ("kink", "at"),
    [
        (torch.relu, 0.0),
        (functional.hardsigmoid, 3.0),
        (functional.hardtanh, 1.0),
        (lambda x: x.clamp(max=0.5), 0.5),
        (torch.abs, 0.0),
        (pooled, None),
        (lambda x: (x > 0.25) * x, 0.25),
    ],
    ids=["relu", "hardsigmoid", "hardtanh", "clamp", "abs", "max pool", "a threshold"],
)
def test_a_value_within_a_rounding_of_a_kink_fails_nobody(kink, at) -> None:
    x, y = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0)).unbind(0)
    x.view(-1)[0] = 1.7
    y.view(-1)[0] = (9.0 if at is None else at - 2.5e-7 * max(at, 1.0)) - x.view(-1)[0]
    if at is None:  # two that tie
        x.view(-1)[1], y.view(-1)[1] = x.view(-1)[0], y.view(-1)[0]
    case = case_of(Kinked(kink), x, y)
    judge, found = Judge(case), on_the_other_side(case, by=-2e-6 if at is None else 2e-6)
    near = judge(found)
    assert near.fault is None
    assert 1 <= near.differing <= 5  # it did jump, or nothing was shown
    wrong = found.kinds["input gradient"]["0"].clone()
    wrong[1, 2] *= 1.01
    kinds = {**found.kinds, "input gradient": {**found.kinds["input gradient"], "0": wrong}}
    assert "input gradient 0" in str(judge(Outputs(kinds)).fault)


def test_eager_jumps_where_its_value_lies_on_a_kink_and_nowhere_else() -> None:
    x, y = torch.ones(2, 4, 4, 4), torch.ones(2, 4, 4, 4)
    y.view(-1)[5] = -1.0
    case = case_of(Kinked(torch.relu), x, y)
    eager = Workload(case).outputs(OWN_INPUTS)
    jumped = jumps(case, OWN_INPUTS, eager)
    assert jumped is not None
    assert (jumped["input gradient"]["0"] > 1e-4).flatten().nonzero().flatten().tolist() == [5]
    assert float(jumped["output"]["0"].max()) < 1e-4


def test_a_module_that_cannot_be_watched_has_no_known_jumps() -> None:
    class Watched(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
                raise RuntimeError("not while somebody looks")
            return x + y

    case = case_of(Watched())
    assert jumps(case, OWN_INPUTS, Workload(case).outputs(OWN_INPUTS)) is None


def test_looking_for_jumps_leaves_the_case_as_it_is() -> None:
    case = build_case(dataclasses.replace(CASE, fusion=FusionSpec.parse("aff")))
    kept = [tensor.clone() for tensor in (*case.inputs, *case.module.state_dict().values())]
    eager = Workload(case).outputs(OWN_INPUTS)
    assert jumps(case, OWN_INPUTS, eager) is not None
    assert all(map(torch.equal, kept, (*case.inputs, *case.module.state_dict().values())))


def test_another_seed_mixes_the_same_values_and_the_next_step_has_the_cases_own() -> None:
    work = Workload(build_case(CASE))
    own = work.outputs(OWN_INPUTS).kinds["output"]["0"]
    other = work.outputs(1).kinds["output"]["0"]
    assert not torch.equal(own, other)
    assert torch.equal(work.inputs[0].flatten().sort().values, work._case.inputs[0].flatten().sort().values)
    assert torch.equal(other, Workload(work._case).outputs(1).kinds["output"]["0"])
    assert torch.equal(work.outputs(OWN_INPUTS).kinds["output"]["0"], own)


def in_bfloat16(case: Case, seed: int) -> Outputs:
    kinds = Workload(case, dtype=torch.bfloat16).outputs(seed).kinds
    return Outputs({kind: {name: as_single(t) for name, t in tensors.items()} for kind, tensors in kinds.items()})


def as_single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def with_a_wrong_row(kind: str) -> Callable[[Case, int], Outputs]:
    """One row of one map of one image is its neighbour's."""

    def fault(case: Case, seed: int) -> Outputs:
        right = honest(case, 50, seed)
        wrong = right.kinds[kind]["0"].clone()
        wrong[0, 1, 2] = wrong[0, 1, 3]
        return Outputs({**right.kinds, kind: {**right.kinds[kind], "0": wrong}})

    return fault


def with_weights(change: Callable[[torch.Tensor], None]) -> Callable[[Case, int], Outputs | None]:
    """The weights of one convolution after the other changed, until that makes a difference; None where none does."""

    def fault(case: Case, seed: int) -> Outputs | None:
        right = in_double(case, seed)
        assert right is not None
        for name, weight in reversed(list(case.module.named_parameters())):
            if weight.dim() < 3 or len(weight) < 2:
                continue
            wrong = build_case(case.spec)
            with torch.no_grad():
                change(wrong.module.get_parameter(name))
            exact = in_double(wrong, seed)
            assert exact is not None
            gap = (exact.kinds["output"]["0"] - right.kinds["output"]["0"]).abs().max()
            if gap > 1e-3 * right.kinds["output"]["0"].abs().max():
                return honest(wrong, 50, seed)
        return None

    return fault


def swap_channels(weight: torch.Tensor) -> None:
    weight[[0, 1]] = weight[[1, 0]]


FAULTS = {
    "a dropped branch": with_weights(lambda weight: weight.zero_()),
    "a swapped channel": with_weights(swap_channels),
    "a wrong row": with_a_wrong_row("output"),
    "a wrong row of a gradient": with_a_wrong_row("input gradient"),
    "bfloat16": in_bfloat16,
}
TELLING = ("concat", "se", "sk", "iaff", "eres2net-aff")
"""One of each kind: no gate, one that refines, two that add up to one, one gate after another, a tanh."""
SMALL = CaseSpec(fusion=FusionSpec.parse("add"), channels=8, size=(5, 6), batch=3, mode="train")


def refused(judge: Judge) -> list[str]:
    """The planted faults, where they can be, each refused by a judge."""
    planted = {fault: found for fault, plant in FAULTS.items() if (found := plant(judge.case, judge.seed)) is not None}
    for fault, found in planted.items():
        assert judge(found).fault, fault
    return list(planted)


@pytest.mark.parametrize("name", [n if n in TELLING else pytest.param(n, marks=pytest.mark.long) for n in FUSIONS])
def test_a_right_backend_is_refused_for_no_fusion_and_a_wrong_one_for_all(name: str) -> None:
    case = build_case(dataclasses.replace(SMALL, fusion=FusionSpec.parse(name)))
    judges = [Judge(case, seed) for seed in range(3)]
    for judge in judges:
        assert judge(honest(case, draw=judge.seed, seed=judge.seed)).fault is None
    assert len(refused(judges[OWN_INPUTS])) >= 3


@pytest.mark.long
@pytest.mark.parametrize(("place", "name"), list(enumerate(FUSIONS)))
@pytest.mark.parametrize(("size", "seeds"), [(16, 10), (64, 1)])
def test_so_at_sizes_where_some_value_always_lies_on_a_kink(place: int, name: str, size: int, seeds: int) -> None:
    """Ten seeds each, or one after the other over the fusions where a step is dear."""
    spec = dataclasses.replace(SMALL, fusion=FusionSpec.parse(name), channels=size, size=(size, size), batch=8)
    case = build_case(spec)
    judges = [Judge(case, (place + further) % 10) for further in range(seeds)]
    for judge in judges:
        assert judge(honest(case, draw=judge.seed, seed=judge.seed)).fault is None
    assert len(refused(judges[0])) >= 3
