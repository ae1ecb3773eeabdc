"""Where a grafted network fuses, and the same fusions alone at these shapes, to be measured beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from afftool.errors import AfftoolError
from afftool.global_state import kept
from afftool.graft.join import adapter_params
from afftool.graft.network import Survey
from afftool.graft.opening import surveyed
from afftool.graft.trace import mode_of
from afftool.spec import CaseSpec, FusionSpec
from afftool.spec.places import Place
from afftool.spec.sweep import DEFAULT_BASELINE


@dataclass(frozen=True)
class Fused:
    """Where a grafted network fuses, and how often, and the parameters of what its maps need beside the fusions."""

    places: dict[str, int]
    adapter_params: int

    @property
    def fields(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"fused_at": self.places, "adapter_params": self.adapter_params}


def fused_at(spec: CaseSpec) -> Fused | None:
    """Where the case's network fuses; None where it is no graft, or none is put in. Raises what tracing it does."""
    if spec.host.graft is None or spec.fusion.original:
        return None
    sites = [site for site in _survey(spec).chosen(spec.host.graft.selection) if site.size]
    places = Counter(Place(site.kind, len(site.channels), site.width, tuple(site.size)).text for site in sites)
    return Fused(dict(places), sum(map(adapter_params, sites))) if sites else None


def _survey(spec: CaseSpec) -> Survey:
    """The network's survey, by a network on the meta device, as it was built to be counted, where it can be there."""
    mode = mode_of(spec.mode == "train")
    with kept(spec.own_targets, "while it ran"), torch.random.fork_rng(devices=[]):
        with suppress(Exception), torch.device("meta"):
            return surveyed(spec.host, spec.input_shapes(), mode)
        return surveyed(spec.host, spec.input_shapes(), mode)


def places(spec: CaseSpec) -> Mapping[str, int]:
    """How many of the sites that are fused have which place, as `fused_at` finds them; none where it finds none."""
    fused = fused_at(spec)
    return fused.places if fused else {}


def alone(cases: Iterable[CaseSpec], look: Callable[[CaseSpec], Mapping[str, int]] = places) -> tuple[CaseSpec, ...]:
    """The bare fusions of these cases at the shapes where their networks fuse, each once, and `add` where they added.

    `look` tells the places of a case. What cannot be alone, and a network that cannot be looked at, is left out.
    """
    found: dict[str, CaseSpec] = {}
    looked: dict[str, Mapping[str, int]] = {}  # where a network fuses does not hang on what is put there
    addition = FusionSpec.parse(DEFAULT_BASELINE)
    for case in cases:
        if case.host.graft is None or case.fusion.original:
            continue
        with suppress(AfftoolError):
            network = replace(case, fusion=addition).identity
            if network not in looked:
                looked[network] = look(case)
            for place in map(Place.parse, looked[network]):
                for fusion in (addition, case.fusion) if place.kind == "add" else (case.fusion,):
                    with suppress(AfftoolError):
                        one = place.alone(case, fusion)
                        found.setdefault(one.identity, one)
    return tuple(found.values())
