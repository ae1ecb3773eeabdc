"""Compiled fusions give what eager ones give, forward and backward, over the whole catalog."""

from typing import Any

import pytest
import torch

from afftool import backends
from afftool.backends.outputs import agree
from afftool.backends.rounding import jumps
from afftool.backends.workload import Workload, in_double
from afftool.build import build_case
from afftool.catalog import FUSIONS
from afftool.fusion import build_fusion
from afftool.spec import CaseSpec, FusionSpec


def run(function, module, inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    module.zero_grad()
    fused = function(*inputs)
    fused.square().sum().backward()
    grads = {k: p.grad.clone() for k, p in module.named_parameters() if p.grad is not None}
    return [fused.detach(), *(x.grad for x in inputs)], grads


TELLING = ("sa", "iaff", "eres2net-aff")
"""A gate of a concatenation, one gate after another, and a tanh."""


def now_or_long(ndim: int, name: str) -> Any:
    """Every fusion of maps now, those of one and three dimensions where they tell most."""
    return pytest.param(name, ndim, marks=[] if ndim == 2 or name in TELLING else [pytest.mark.long])


@pytest.mark.parametrize(("name", "ndim"), [now_or_long(ndim, name) for name in FUSIONS for ndim in (1, 2, 3)])
def test_a_fusion_traces_into_one_graph_and_back(name, ndim):
    """Dynamo and AOTAutograd in full, inductor's code generation left out to keep this fast.

    Three maps in 1d, two elsewhere; a tanh gate always weighs two.
    """
    torch._dynamo.reset()
    count = 3 if ndim == 1 and name != "eres2net-aff" else 2
    module = build_fusion(name, channels=8, ndim=ndim, inputs=count)
    inputs = [torch.randn(3, 8, *(4, 5, 2)[:ndim]) for _ in range(count)]
    state = {k: v.clone() for k, v in module.state_dict().items()}
    outputs, grads = run(module, module, inputs)
    buffers = {k: v.clone() for k, v in module.named_buffers()}
    module.load_state_dict(state)
    compiled_outputs, compiled_grads = run(torch.compile(module, backend="aot_eager", fullgraph=True), module, inputs)
    torch.testing.assert_close(compiled_outputs, outputs)
    torch.testing.assert_close(compiled_grads, grads)
    torch.testing.assert_close(dict(module.named_buffers()), buffers)


GROUPS = [list(FUSIONS)[i::4] for i in range(4)]
"""The last is telling: gates of one map and of both, iterated, concatenated, with a tanh."""


@pytest.mark.parametrize(
    "group", [*(pytest.param(group, marks=pytest.mark.long) for group in GROUPS[:-1]), GROUPS[-1]], ids=lambda g: g[0]
)
def test_fusions_compiled_by_inductor_equal_eager_ones(group):
    """Several fusions in one graph: inductor's fixed cost is paid once a group."""
    torch._dynamo.reset()
    modules = torch.nn.ModuleList(build_fusion(name, channels=8) for name in group).eval()
    x, y = torch.randn(2, 2, 8, 4, 5).unbind(0)

    def all_of_them(x, y):
        return [module(x, y) for module in modules]

    with torch.no_grad():
        torch.testing.assert_close(torch.compile(all_of_them, fullgraph=True)(x, y), all_of_them(x, y))


def test_a_fusion_exports_with_a_dynamic_batch_and_size():
    module = build_fusion("iaff", channels=8).eval()
    batch, side = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("side", min=2, max=64)
    shape = {0: batch, 2: side, 3: side}
    exported = torch.export.export(
        module, (torch.randn(4, 8, 5, 5), torch.randn(4, 8, 5, 5)), dynamic_shapes={"inputs": (shape, shape)}
    )
    x, y = torch.randn(2, 3, 8, 7, 7).unbind(0)
    torch.testing.assert_close(exported.module()(x, y), module(x, y))


@pytest.mark.long
@pytest.mark.parametrize(
    ("place", "name", "batch", "channels", "size", "seeds"),
    [
        *((place, name, 8, 64, 64, 1) for place, name in enumerate(FUSIONS)),
        *((0, name, 3, 8, 7, 10) for name in TELLING),
    ],
)
def test_a_compiled_training_step_is_refused_on_no_inputs(
    place: int, name: str, batch: int, channels: int, size: int, seeds: int
) -> None:
    """Ten seeds over the fusions. Where maps are large, some value lies within a rounding of a kink in most."""
    spec = CaseSpec(
        fusion=FusionSpec.parse(name), channels=channels, size=(size, size), batch=batch, mode="train", device="cpu"
    )
    case = build_case(spec)
    prepared = backends.load("compile")(case)
    for seed in range(place, place + seeds):
        seed %= 10
        eager = Workload(case).outputs(seed)
        near = agree(
            prepared.outputs(seed), eager, lambda s=seed: in_double(case, s), lambda s=seed, e=eager: jumps(case, s, e)
        )
        assert near.fault is None
    prepared.close()
