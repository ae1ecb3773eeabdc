"""A variant before anything is trained: built once and run on a few images, to know what it is and that it works."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from afftool import catalog, registry
from afftool.data.splits import Splits
from afftool.errors import AfftoolError, LoadError, SpecError
from afftool.global_state import kept
from afftool.measure.cost.count import count
from afftool.spec import CaseSpec, HostSpec, targets_of
from afftool.study.arrays import Arrays
from afftool.study.cells import Facts, Task
from afftool.study.gradients import unreached
from afftool.study.network import Start, build_network, probe
from afftool.study.spec import StudySpec, Variant

PROBE_IMAGES = 4


@dataclass(frozen=True)
class Trial:
    """What a variant is, how its host's own weights start, and what of it no gradient reaches, in words."""

    facts: Facts
    start: Start
    warning: str | None


def sample_of(splits: Splits) -> Tensor:
    """A few images to try variants on, from 0 to 1."""
    return torch.from_numpy(splits.train.images[:PROBE_IMAGES]).float() / 255


def task_of(study: StudySpec, splits: Splits) -> Task:
    """Whether the host classifies images or pixels: by its output, which is right for a user's host too."""
    classes = len(splits.classes or splits.mask_classes)
    host = with_classes(study.host_of(study.variants[0]), classes)
    sample = sample_of(splits)
    network = build_network(host, study.variants[0].fusion_spec, seed=0, size=tuple(sample.shape[2:]))
    output, _ = probe(network, sample)
    return "segment" if output.ndim == 4 else "classify"


def tried(study: StudySpec, variant: Variant, data: Arrays, sample: Tensor) -> Trial:
    """Build a variant and run it on a few images. Raises `LoadError` for a module that fails, or no gradient passes."""
    host = with_classes(study.host_of(variant), data.classes)
    with kept(targets_of(variant.fusion_spec, host), "while it ran"):
        return _tried(host, study, variant, data, sample)


def _tried(host: HostSpec, study: StudySpec, variant: Variant, data: Arrays, sample: Tensor) -> Trial:
    network = build_network(host, variant.fusion_spec, seed=0, init=study.recipe_of(variant).init, size=data.size)
    start = network.host_start()
    output, fused = probe(network, sample)
    if output.shape[1] != data.classes:
        raise LoadError(
            f"{host} gives {output.shape[1]} classes, the data has {data.classes}",
            hint="let the host take `classes`, or leave its `classes` key out"
            if host.graft is None
            else "head= in its text names the layer that gives its classes",
        )
    warning = unreached(network, sample)
    macs = _macs(variant, host, data)
    facts = Facts(host=host.text, params=network.params, macs=macs, fuses=fused > 0)
    return Trial(facts, start, warning)


def check_same_start(trials: Mapping[str, Trial]) -> None:
    """Refuse a host whose own weights depend on the fusion it carries: its variants would differ by luck as well."""
    first: dict[str, str] = {}
    for name, trial in trials.items():
        host = trial.facts.host
        other = first.setdefault(host, name)
        for weight, digest in trial.start.items():
            if trials[other].start.get(weight, digest) != digest:
                raise SpecError(
                    f"{host} starts with other weights ({weight}) around {name} than around {other}: "
                    "its constructor draws again after its fusions were built",
                    hint="--recipe short:init=kaiming draws every weight by its name",
                )


def with_classes(host: HostSpec, classes: int) -> HostSpec:
    """The host with as many outputs as the data has classes, where it takes `classes` or its head can be changed.

    Raises `SpecError` if another number was asked for.
    """
    asked = host.changed.get("classes")
    if asked is not None and str(asked) != str(classes):
        raise SpecError(f"{host} asks for {asked} classes, the data has {classes}", hint="leave the key classes out")
    takes = host.graft is not None or "classes" in _knobs(host)
    return host.with_settings(classes=classes) if takes else host


def _knobs(host: HostSpec) -> Collection[str]:
    """The keys that a host takes; none where a callable of the user's own does not tell."""
    if host.target is None:
        return catalog.HOSTS[host.name].knobs
    try:
        return inspect.signature(registry.load(host.target)).parameters
    except (TypeError, ValueError):
        return ()


def _macs(variant: Variant, host: HostSpec, data: Arrays) -> int | None:
    """Multiply-adds of one image; None for a module that cannot be counted on the meta device."""
    case = CaseSpec(fusion=variant.fusion_spec, host=host, channels=None, size=data.size, batch=1, device="meta")
    try:
        return int(count(case).macs)
    except (AfftoolError, RuntimeError, NotImplementedError):
        return None
