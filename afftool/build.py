"""From a spec to a case: the modules built, the inputs made, on their device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from afftool.copying import meta_copy
from afftool.errors import AfftoolError, LoadError
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

    `inputs` have the shapes `spec.input_shapes()`: the bare module's feature maps, or one image batch for a host.
    On the meta device nothing is allocated. Raises `SpecError` or `LoadError`.
    """
    device = torch.device(spec.device)
    dtype: torch.dtype = getattr(torch, spec.dtype)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), torch.device(device):
        torch.manual_seed(spec.seed)
        if spec.host == MODULE:
            assert spec.channels is not None
            module = build_fusion(spec.fusion, channels=spec.channels)
        else:
            module = build_host(spec.host, spec.fusion)
        inputs = tuple(torch.randn(shape, dtype=dtype) for shape in spec.input_shapes())
    module = module.to(device=device, dtype=dtype).train(spec.mode == "train")
    if spec.memory_format == "channels_last":
        memory_format = torch.channels_last_3d if spec.fusion.ndim == 3 else torch.channels_last
        module = module.to(memory_format=memory_format)  # type: ignore[call-overload]
        inputs = tuple(x.contiguous(memory_format=memory_format) for x in inputs)
    return Case(spec, module, inputs)


def build_on_meta(spec: CaseSpec) -> Case:
    """Build the case on the meta device; from a real one where its constructor needs values. Raises as `build_case`.

    A constructor does so in `torch.linspace(...).tolist()`, for example; its forward may still need none.
    """
    try:
        return build_case(replace(spec, device="meta"))
    except LoadError:
        real = build_case(replace(spec, device="cpu"))
        return Case(real.spec, meta_copy(real.module), tuple(x.to("meta") for x in real.inputs))


def check_buildable(cases: Iterable[CaseSpec]) -> None:
    """Refuse a module or host of the user's own that is none, or that no case can build. Raises the error it gives.

    Each is built once for every width it is asked for, on the meta device unless it needs values. What can be built for
    some of its widths passes: its other cases become rows with their reason.
    """
    widths: dict[tuple[str, str], dict[int | None, AfftoolError | None]] = {}
    for case in cases:
        tried = widths.setdefault((case.fusion.text, case.host.text), {})
        if (case.fusion.target or case.host.target) and case.channels not in tried:
            tried[case.channels] = _refusal(case)
    for tried in widths.values():
        refusals = [error for error in tried.values() if error]
        if refusals and len(refusals) == len(tried):
            raise refusals[0]


def _refusal(case: CaseSpec) -> AfftoolError | None:
    """Why the case cannot be built; None if it can, or if only running it will tell."""
    size = case.size if case.fusion.maps else (1,) * case.fusion.ndim  # where maps are told in numbers, so is the size
    try:
        build_on_meta(replace(case, batch=2, size=size, mode="infer"))
    except AfftoolError as error:
        return error
    except Exception:  # what cannot be moved or copied may still run where it was built: its row will say
        return None
    return None
