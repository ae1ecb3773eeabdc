"""What a project asks of the gate: cases, rules and the baseline's place, from its own TOML.

`afftool.toml`, or `[tool.afftool]` in `pyproject.toml`, in the directory the check is started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afftool import catalog, project, written
from afftool.errors import SpecError, UserError, told_where
from afftool.gate.reading import choose
from afftool.gate.rules import Rule, RuleBook, parse_rules
from afftool.registry import check_names
from afftool.spec import CaseSpec
from afftool.spec.amounts import MOST_CASES
from afftool.spec.case_tables import CaseTable, read_tables, read_words
from afftool.spec.sweep import Words, sweep
from afftool.written import Kind

REFERENCE = "afftool-baseline.json"

STARTING_FILE = """\
# What `afftool check` measures and what a change may cost.
# Write the baseline with `afftool check --write-baseline` and commit it, or compare with a git ref:
# `afftool check --against origin/main`.

# A case takes the options of `afftool bench`: fusion, host, channels, size, batch, mode, dtype, memory_format,
# device, backend. Each may be a list: every combination becomes a case. What `afftool graft --shapes` writes also has
# sites, how many sites of the network have the shape.
[[case]]
fusion = "aff"                    # a name of `afftool list fusions`, or your own: "mypkg.gates:MyGate"
channels = 64
size = 56
# batch = 8
# mode = "train"                  # "infer" where nothing is said
# rules = { latency_ms = "10%" }  # for this case only

# Without a rule, exact metrics (params, live_params, macs, flops, moved_bytes, uncounted_ops, saved_bytes,
# peak_bytes, operators, graph_breaks, recompiles) may not grow, and time may grow by 5%.
[rules]
latency_ms = "5%"                 # relative to the value before
# peak_bytes = "0"                # absolute: not one byte more
# params = { max = 5000 }         # a limit, whatever the value before
# latency_ms = { change = "5%", floor = "0.02", max = 3 }  # changes up to 0.02 ms pass
# throughput_per_s = "5%"         # may fall by 5%
# operators = "off"               # not judged
"""


@dataclass(frozen=True, kw_only=True)
class GateCase:
    """One thing to compare: a case under one backend, by the name that the baseline file and the tables use."""

    name: str
    spec: CaseSpec
    backend: str = "eager"


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Cases and rules of a project. `skipped` are combinations that cannot be, with the reason."""

    cases: tuple[GateCase, ...]
    rules: RuleBook
    reference: Path
    metrics: tuple[str, ...] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    file: Path | None = None


def read(file: Path, *, needs_cases: bool = True) -> GateConfig:
    """Read `afftool.toml` or `pyproject.toml`. Raises `UserError` or a `SpecError` that names the place."""
    table = project.read(file)
    own = project.find(Path.cwd())
    if "formulas" in table and (own is None or not own.samefile(file)):
        raise SpecError(
            f"the formulas of {file} count nothing: they are read from the directory that afftool runs in",
            hint=f"move them to {project.FILE} or pyproject.toml there",
        )
    return parse(table, file, needs_cases=needs_cases)


def parse(table: Mapping[str, Any], file: Path, *, needs_cases: bool = True) -> GateConfig:
    """The configuration in a TOML table that was read from `file`; without cases only where none is needed."""
    tables = read_tables(table, file.name)
    if needs_cases and not tables:
        raise SpecError(
            f"{file.name} names no case",
            hint='add [[case]] with fusion = "..." below it, or see `afftool check --init`',
        )
    cases: dict[str, GateCase] = {}
    rules: dict[str, dict[str, Rule]] = {}
    skipped: list[tuple[str, str]] = []
    for number, entry in enumerate(tables, 1):
        expanded, impossible = _expand(entry)
        own = parse_rules(entry.rules, f"the rules of {entry.where}")
        skipped += impossible
        if len(cases) + len(skipped) + len(expanded) > MOST_CASES:
            raise SpecError(
                f"{file.name} asks for more than {MOST_CASES:,} cases, up to its case {number}",
                hint="check them in several files, each with a --config of its own",
            )
        for case in expanded:
            cases[case.name] = case
            rules[case.name] = own
    baseline = table.get("baseline", REFERENCE)
    if not isinstance(baseline, str) or not baseline.strip() or "\0" in baseline:
        raise SpecError(f"baseline in {file.name} is not a path", hint=f'for example baseline = "{REFERENCE}"')
    return GateConfig(
        cases=tuple(cases.values()),
        rules=RuleBook(common=parse_rules(table.get("rules", {}), f"[rules] of {file.name}"), cases=rules),
        reference=file.parent / baseline,
        metrics=choose(read_words("metrics", table["metrics"], file.name)) if "metrics" in table else None,
        skipped=tuple(skipped),
        file=file,
    )


def from_words(words: Words, *, device: str, backends: Sequence[str], directory: Path) -> GateConfig:
    """Cases of the command line instead of a file; default rules."""
    cases, skipped = _cases(words, device, backends)
    return GateConfig(cases=cases, rules=RuleBook(), reference=directory / REFERENCE, skipped=skipped)


def write_starting_file(directory: Path) -> Path:
    """Write a commented `afftool.toml`. Raises `UserError` if the project has a configuration already."""
    if existing := project.find(directory):
        raise UserError(f"{existing.name} configures the gate already", hint="edit it, or remove it first")
    path = directory / project.FILE
    written.write(path, STARTING_FILE, _STARTING)
    return path


_STARTING = Kind(name="file to start from", is_ours=lambda head: False, instead="remove it first", error=UserError)


def _expand(entry: CaseTable) -> tuple[tuple[GateCase, ...], tuple[tuple[str, str], ...]]:
    with told_where(entry.where):
        return _cases(entry.words, entry.device, entry.backends)


def _cases(
    words: Words, device: str, backends: Sequence[str]
) -> tuple[tuple[GateCase, ...], tuple[tuple[str, str], ...]]:
    check_names("backend", backends, catalog.BACKENDS)
    backends = list(dict.fromkeys(backends))
    planned = sweep(words).on_device(device)
    cases = tuple(
        GateCase(name=spec.name + ("" if backend == "eager" else f" backend={backend}"), spec=spec, backend=backend)
        for spec in planned.cases
        for backend in backends
    )
    skipped = tuple((f"{record.fusion} in {record.host}", str(record.reason)) for record in planned.skipped)
    return cases, skipped
