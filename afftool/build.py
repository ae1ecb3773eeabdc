"""From a spec to a case: the modules built, the inputs made, on their device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from afftool.fusion import build_fusion
from afftool.hosts import build_host
from afftool.spec import MODULE, CaseSpec


@dataclass(frozen=True)
class Case:
    """A fusion in a host, built, with inputs, on a device. `module(*inputs)` is one forward pass."""

    spec: CaseSpec
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]


def build_case(spec: CaseSpec) -> Case:
    """Build the case: same spec, same weights and inputs, and the caller's random state is left as it was.

    `inputs` are `spec.fusion.inputs` feature maps `(N, C, *size)` for the bare module, or one image batch
    `(N, 3, *size)` for a host. On the meta device nothing is allocated. Raises `SpecError` or `LoadError`.
    """
    device = torch.device(spec.device)
    dtype: torch.dtype = getattr(torch, spec.dtype)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.device(device):
        torch.manual_seed(spec.seed)
        if spec.host == MODULE:
            assert spec.channels is not None
            module = build_fusion(spec.fusion, channels=spec.channels)
            shape = (spec.batch, spec.channels, *spec.size)
        else:
            module = build_host(spec.host, spec.fusion)
            shape = (spec.batch, 3, *spec.size)
        count = spec.fusion.inputs if spec.host == MODULE else 1
        inputs = tuple(torch.randn(shape, dtype=dtype) for _ in range(count))
    module = module.to(device=device, dtype=dtype).train(spec.mode == "train")
    if spec.memory_format == "channels_last":
        memory_format = torch.channels_last_3d if spec.fusion.ndim == 3 else torch.channels_last
        module = module.to(memory_format=memory_format)  # type: ignore[call-overload]
        inputs = tuple(x.contiguous(memory_format=memory_format) for x in inputs)
    return Case(spec, module, inputs)
