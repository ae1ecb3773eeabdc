"""From the words of a command line to cases: every combination, without those that cannot be.

A word that means nothing is an error. A combination that cannot be is skipped and recorded with its reason, unless
no requested combination can be; then the first reason is the error. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from afftool import catalog
from afftool.errors import AfftoolError, SpecError, UnknownName, told_where
from afftool.record import Record
from afftool.registry import check_names, entry_points
from afftool.spec import MODULE, CaseSpec, Dtype, FusionSpec, HostSpec, MemoryFormat, Mode, parse_size, split_list
from afftool.spec.amounts import MOST_CASES, read_whole
from afftool.spec.text import name_extents

DEFAULT_BASELINE = "add"
AUTO = "auto"
"""The baseline where none is named: addition, or the original of networks that are grafted."""
USER_HOST_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Words:
    """What was asked for, option by option; each takes lists, comma separated or repeated. None means the default."""

    fusion: Iterable[str]
    host: Iterable[str] | None = None
    channels: Iterable[str] | None = None
    size: Iterable[str] | None = None
    batch: Iterable[str] | None = None
    mode: Iterable[str] | None = None
    dtype: Iterable[str] | None = None
    memory_format: Iterable[str] | None = None
    baseline: str | None = AUTO


CASE_WORDS = tuple(f.name for f in dataclasses.fields(Words) if f.name != "baseline")
"""The options that describe a case, wherever one is asked for: the command line, a TOML file, a test."""


@dataclass(frozen=True)
class Sweep:
    """The cases to measure, the baseline's among them, and a record for each combination that cannot be."""

    cases: tuple[CaseSpec, ...]
    skipped: tuple[Record, ...]
    baseline: FusionSpec | None

    def on_device(self, device: str) -> Sweep:
        """The same cases on a device that has been resolved, as `cpu` or `cuda:0`."""
        cases = tuple(dataclasses.replace(case, device=device) for case in self.cases)
        skipped = tuple(dataclasses.replace(record, device=device) for record in self.skipped)
        return Sweep(cases, skipped, self.baseline)


def sweep(words: Words) -> Sweep:
    """Every combination of the words, each once, with the baseline before the fusions it serves.

    Raises `UnknownName`, `UnknownKey` or `SpecError` for a word that means nothing, and the first combination's
    error if none of the requested ones can be.
    """
    fusions = parse_fusions(words.fusion)
    hosts = [HostSpec.parse(text) for text in split_list(words.host) or [MODULE.text]]
    channels = _numbers("channels", words.channels)
    sizes = split_list(words.size)
    for size in sizes:
        for part in size.lower().split("x"):
            read_whole("size", part, hint="for example --size 56, or --size 56x28")
    batches = _numbers("batch", words.batch) or [_default("batch")]
    modes = _choices("mode", words.mode, get_args(Mode))
    dtypes = _choices("dtype", words.dtype, get_args(Dtype))
    formats = _choices("memory format", words.memory_format, get_args(MemoryFormat))
    check_cases(
        {
            "fusion": len(fusions),
            "host": len(hosts),
            "channels": len(channels),
            "size": len(sizes),
            "batch": len(batches),
            "mode": len(modes),
            "dtype": len(dtypes),
            "memory format": len(formats),
        }
    )
    baseline = parse_baseline(_baseline_word(words.baseline, hosts))
    asked_for, served = set(fusions), _with_baselines(fusions, baseline)
    ways = list(itertools.product(batches, modes, dtypes, formats))
    cases: dict[str, CaseSpec] = {}
    skipped: dict[tuple[Any, ...], Record] = {}
    refusals: list[AfftoolError] = []
    possible = False
    for (batch, mode, dtype, memory_format), host in itertools.product(ways, hosts):
        for channel, size in itertools.product(channels or _default_channels(host), sizes or [_default_size(host)]):
            asked: dict[str, Any] = {
                "channels": channel,
                "batch": batch,
                "mode": mode,
                "dtype": dtype,
                "memory_format": memory_format,
            }
            for fusion in served:
                try:
                    extents = parse_size(size, host.ndim_of(size) or fusion.ndim)
                    case = CaseSpec(fusion=fusion, host=host, size=extents, **asked)
                except AfftoolError as error:
                    key = (fusion.text, host.text, size, *asked.values())
                    skipped.setdefault(key, _skip(fusion, host, size, asked, error))
                    refusals += [error] if fusion in asked_for else []
                else:
                    cases.setdefault(case.identity, case)
                    possible = possible or fusion in asked_for
    if refusals and not possible:
        raise refusals[0]
    return Sweep(tuple(cases.values()), tuple(skipped.values()), baseline)


def sweep_all(asked: Mapping[str, Words], baseline: str | None) -> Sweep:
    """The cases of several requests, each case once, with one baseline; an error names its request.

    Raises what `sweep` does, and `SpecError` for too many cases.
    """
    hosts: list[HostSpec] = []
    for where, words in asked.items():
        with told_where(where):
            hosts += [HostSpec.parse(text) for text in split_list(words.host) or [MODULE.text]]
    word = _baseline_word(baseline, hosts)
    cases: dict[str, CaseSpec] = {}
    skipped: list[Record] = []
    for where, words in asked.items():
        with told_where(where):
            one = sweep(dataclasses.replace(words, baseline=word))
            for case in one.cases:
                cases.setdefault(case.identity, case)
            skipped += [record for record in one.skipped if record not in skipped]
            check_cases({"case": len(cases) + len(skipped)})
    return Sweep(tuple(cases.values()), tuple(skipped), parse_baseline(word))


def check_cases(numbers: Mapping[str, int]) -> None:
    """Refuse more cases than one command can be meant to have, told by how many words each option has.

    Raises `SpecError`.
    """
    if (cases := math.prod(number or 1 for number in numbers.values())) > MOST_CASES:
        factors = " x ".join(f"{number:,} ({option})" for option, number in numbers.items() if number > 1)
        raise SpecError(
            f"{factors} {'make' if ' x ' in factors else 'are'} {cases:,} cases, and one command takes {MOST_CASES:,}",
            hint="ask for fewer, or in several commands",
        )


def parse_fusions(texts: Iterable[str]) -> list[FusionSpec]:
    """Fusions from words; `all` stands for every name of the catalog and of installed packages."""
    names: list[str] = []
    for text in split_list(texts):
        names += [*catalog.FUSIONS, *entry_points("afftool.fusions")] if text == "all" else [text]
    check_cases({"fusion": len(names)})
    if not names:
        raise SpecError("no fusion was named", hint="for example --fusion iaff; `afftool list fusions` shows them")
    try:
        return list(dict.fromkeys(FusionSpec.parse(name) for name in names))
    except UnknownName as error:
        if any(".py:" in name for name in names):
            error.hint = f"{error.hint}; a comma ends a name, so the path of a file cannot hold one"
        raise


def _baseline_word(text: str | None, hosts: Sequence[HostSpec]) -> str | None:
    if text != AUTO:
        return text
    return catalog.ORIGINAL if all(host.graft is not None for host in hosts) else DEFAULT_BASELINE


def parse_baseline(text: str | None) -> FusionSpec | None:
    """The baseline from its word; `none` means that there is none."""
    return None if text is None or text == "none" else FusionSpec.parse(text)


def baseline_of(fusion: FusionSpec, baseline: FusionSpec) -> FusionSpec | None:
    """The baseline that fuses the same maps as `fusion`: as many, of as many dimensions; None where it cannot.

    Maps of unequal shapes are fused by nothing but what is told the same ones. A baseline of the user's own takes as
    many maps as its text says.
    """
    if fusion.uneven or baseline.uneven:
        return baseline if fusion.maps == baseline.maps and fusion.ndim == baseline.ndim else None
    if fusion.ndim == baseline.ndim and fusion.inputs == baseline.inputs:
        return baseline
    if baseline.grammar is None and fusion.inputs != baseline.inputs:
        return None
    try:
        return baseline.with_settings(ndim=fusion.ndim, **({"inputs": fusion.inputs} if baseline.grammar else {}))
    except SpecError:
        return None


def without_baseline(fusions: Iterable[FusionSpec], baseline: FusionSpec | None) -> list[str]:
    """A line for each fusion that has maps which the baseline does not fuse, so that it is compared with nothing."""
    if baseline is None:
        return []
    alone = [fusion for fusion in dict.fromkeys(fusions) if baseline_of(fusion, baseline) is None]
    return [
        f"{fusion} has no baseline: {baseline} cannot fuse its {fusion.inputs} map{'' if fusion.inputs == 1 else 's'}"
        f"{' of unequal shapes' if fusion.uneven else ''}"
        for fusion in alone
    ]


def _with_baselines(fusions: Sequence[FusionSpec], baseline: FusionSpec | None) -> list[FusionSpec]:
    """The baselines that serve these fusions, then the fusions, each once."""
    serving = [] if baseline is None else [baseline_of(fusion, baseline) for fusion in fusions]
    return list(dict.fromkeys([*filter(None, serving), *fusions]))


def _skip(fusion: FusionSpec, host: HostSpec, size: str, asked: dict[str, Any], error: AfftoolError) -> Record:
    """The record of a combination that cannot be."""
    extents = [int(part) for part in size.lower().split("x")]
    extents = extents * fusion.ndim if len(extents) == 1 else extents
    where = name_extents(extents) if len(extents) <= 3 else {}
    reason = f"{error.message} ({error.hint})" if error.hint else error.message
    row: dict[str, Any] = {"fusion": fusion.text, "host": host.text, "scenario": host.scenario, **asked, **where}
    return Record(**row, status="skipped", reason=reason)


def _default(field: str) -> Any:
    return next(f.default for f in dataclasses.fields(CaseSpec) if f.name == field)


def _default_channels(host: HostSpec) -> list[int | None]:
    return [catalog.HOSTS[host.name].channels if host.name in catalog.HOSTS else None]


def _default_size(host: HostSpec) -> str:
    return host.size or str(USER_HOST_SIZE)


def _numbers(option: str, texts: Iterable[str] | None) -> list[int]:
    words = split_list(texts)
    check_cases({option: len(words)})
    return [read_whole(option, word, hint=f"for example --{option} 8,16") for word in words]


def _choices(option: str, texts: Iterable[str] | None, known: Sequence[str]) -> list[str]:
    words = split_list(texts) or [known[0]]
    check_names(option, words, known)
    return words
