"""From a spec to a case: the modules built, the inputs made, on their device."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from afftool.copying import alike, move_to_meta, real_copy, take_values
from afftool.errors import AfftoolError, LoadError, ran_out_of_memory
from afftool.fusion import build_fusion
from afftool.graft.trace import mode_of
from afftool.hosts import build_host
from afftool.inputs import input_names, written_inputs
from afftool.lazy import settle
from afftool.spec import MODULE, CaseSpec


@dataclass(frozen=True)
class Case:
    """A fusion in a host, built, with inputs, on a device. `module(*inputs)` is one forward pass."""

    spec: CaseSpec
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]

    @cached_property
    def written(self) -> dict[int, str]:
        """The inputs that the module writes into, by their places; a copy of it is called once to find out.

        Empty where that call fails: whatever makes the next one will say so.
        """
        training = self.spec.mode == "train"
        try:
            with torch.random.fork_rng(devices=_cuda(self.spec)), torch.inference_mode(False), torch.enable_grad():
                module, gradients = copy_of(self), training and self.spec.host == MODULE
                return written_inputs(module, self.inputs, training=training, gradients=gradients)
        except (Exception, SystemExit):
            return {}

    def told(self, written: Collection[str]) -> Case:
        """The same case, told the names of the inputs that its module writes into: nobody calls it to find out."""
        case = replace(self)
        names = input_names(self.module, len(self.inputs))
        vars(case)["written"] = {place: name for place, name in enumerate(names) if name in written}
        return case


def build_case(spec: CaseSpec, *, settled: bool = True) -> Case:
    """Build the case: same spec, same weights and inputs, and the caller's random state is left as it was.

    `inputs` have the shapes `spec.input_shapes()`: the bare module's feature maps, or one image batch for a host.
    Lazy layers get their weights from a dry call, unless `settled` is false. On the meta device nothing is allocated.
    Raises `SpecError` or `LoadError`.
    """
    dtype: torch.dtype = getattr(torch, spec.dtype)
    with _seeded(spec, spec.seed):
        module = _construct(spec)
        inputs = tuple(torch.randn(shape, dtype=dtype) for shape in spec.input_shapes())
    if memory_format := _memory_format(spec):
        inputs = tuple(x.contiguous(memory_format=memory_format) for x in inputs)
    return Case(spec, _finished(module, spec, inputs if settled else None), inputs)


def copy_of(case: Case) -> nn.Module:
    """A module with the case's weights and flags that shares nothing with it.

    What is the user's own is built again if that gives the same: not all can be copied (tensors with a history, locks,
    files), and a function among its attributes would still see the module it was made in. Raises whatever
    `copy.deepcopy` raises where neither can be done.
    """
    made = _built_again(case) if case.spec.own_targets else None
    if made is not None and alike(made, case.module, values=True):
        return made
    try:
        return real_copy(case.module)
    except Exception:
        if made is None or not alike(made, case.module, values=False):
            raise
        return take_values(made, case.module)  # another draw, from a generator that no seed of ours reaches


def _built_again(case: Case) -> nn.Module | None:
    """The module that the case's spec gives now; None where it gives none any more."""
    try:
        with _seeded(case.spec, case.spec.seed):
            module = _construct(case.spec)
        return _finished(module, case.spec, case.inputs)
    except Exception:  # a constructor that works once, say: there is still the copy
        return None


@contextmanager
def _seeded(spec: CaseSpec, seed: int) -> Iterator[None]:
    """What is made inside lies on the case's device and is drawn from `seed`; the caller's random state stays."""
    with torch.random.fork_rng(devices=_cuda(spec)), torch.device(spec.device), torch.inference_mode(False):
        torch.manual_seed(seed)
        with torch.enable_grad():  # whoever asks for it: tensors among the attributes have their history or have none
            yield


def _cuda(spec: CaseSpec) -> list[torch.device]:
    return [torch.device(spec.device)] if spec.device.startswith("cuda") else []


def _construct(spec: CaseSpec) -> nn.Module:
    if spec.host == MODULE:
        assert spec.channels is not None
        return build_fusion(spec.fusion, channels=spec.channels)
    mode = mode_of(spec.mode == "train")
    dtype = getattr(torch, spec.dtype)
    return build_host(spec.host, spec.fusion, shapes=spec.input_shapes(), dtype=dtype, modes=(mode,))


def _finished(module: nn.Module, spec: CaseSpec, inputs: tuple[torch.Tensor, ...] | None) -> nn.Module:
    """The module as the case wants it, its lazy layers settled on its `inputs` if there are any."""
    module = module.to(device=spec.device, dtype=getattr(torch, spec.dtype))
    if inputs is not None:
        with _seeded(spec, spec.seed + 1), torch.device("cpu"):  # called as ever; what it draws no input has drawn
            settle(module, inputs)
    module = module.train(spec.mode == "train")
    if memory_format := _memory_format(spec):
        module = module.to(memory_format=memory_format)  # type: ignore[call-overload]
    return module


def _memory_format(spec: CaseSpec) -> torch.memory_format | None:
    if spec.memory_format != "channels_last":
        return None
    return torch.channels_last_3d if spec.fusion.ndim == 3 else torch.channels_last


def build_on_meta(spec: CaseSpec, *, settled: bool = True) -> Case:
    """Build the case on the meta device; from a real one where its constructor needs values. Raises as `build_case`.

    A constructor does so in `torch.linspace(...).tolist()`, for example; its forward may still need none.
    """
    try:
        return build_case(replace(spec, device="meta"), settled=settled)
    except LoadError:
        real = build_case(replace(spec, device="cpu"), settled=settled)
        return Case(real.spec, move_to_meta(real.module), tuple(x.to("meta") for x in real.inputs))


def check_buildable(cases: Iterable[CaseSpec]) -> None:
    """Refuse a module or host of the user's own that is none, or that no case can build. Raises the error it gives.

    Each is built once for every width it is asked for, on the meta device unless it needs values. What can be built for
    some of its widths passes: its other cases become rows with their reason.
    """
    widths: dict[tuple[str, str], dict[int | None, AfftoolError | None]] = {}
    for case in cases:
        tried = widths.setdefault((case.fusion.text, case.host.text), {})
        if case.own_targets and case.channels not in tried:
            tried[case.channels] = _refusal(case)
    for tried in widths.values():
        refusals = [error for error in tried.values() if error]
        if refusals and len(refusals) == len(tried):
            raise refusals[0]


def _refusal(case: CaseSpec) -> AfftoolError | None:
    """Why the case cannot be built; None if it can, or if only running it will tell."""
    size = case.size if case.fusion.maps else (1,) * case.fusion.ndim  # where maps are told in numbers, so is the size
    try:
        # a graft is built for its own size alone
        small = case if case.host.graft is not None else replace(case, batch=2, size=size, mode="infer")
        build_on_meta(small, settled=False)  # maps of one position may be too small for a call
    except AfftoolError as error:
        return None if ran_out_of_memory(error) else error  # a row of its own says what did not fit
    except Exception:  # what cannot be moved or copied may still run where it was built: its row will say
        return None
    return None
