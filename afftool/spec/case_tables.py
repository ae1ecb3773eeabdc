"""The `[[case]]` tables of a TOML file: what the gate's file and a bench's `--cases` have alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afftool import project
from afftool.errors import SpecError
from afftool.registry import check_names
from afftool.spec.amounts import check_whole
from afftool.spec.sweep import CASE_WORDS, Words
from afftool.spec.text import split_list

KEYS = ("case", "rules", "baseline", "metrics", "formulas")
"""The keys of a file that has such tables."""
_GATES = ("device", "backend", "rules")
"""The keys of a case that say how the gate looks at it."""
_CASE_KEYS = (*CASE_WORDS, *_GATES, "sites")


@dataclass(frozen=True, kw_only=True)
class CaseTable:
    """One table: its options as words, and what the gate does with the case.

    `sites` tells how many sites of a network have its shape, where the file was written for one; `where` names the
    table in an error.
    """

    words: Words
    where: str
    device: str = "cpu"
    backends: tuple[str, ...] = ("eager",)
    rules: Any = dataclasses.field(default_factory=dict)
    sites: int | None = None
    for_the_gate: tuple[str, ...] = ()
    """The keys given that a bench has options for."""


def read_tables(table: Mapping[str, Any], file: str) -> tuple[CaseTable, ...]:
    """The cases in a TOML table that was read from a file of this name. Raises `SpecError` that names the place."""
    check_names(f"key in {file}:", table, KEYS)
    entries = table.get("case", [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise SpecError(f"case in {file} is not a list of tables", hint="write [[case]], with two brackets")
    return tuple(_read(entry, f"case {number} of {file}") for number, entry in enumerate(entries, 1))


def read_for_bench(file: Path) -> tuple[CaseTable, ...]:
    """The cases of a file that are to be measured. Raises `UserError` or a `SpecError` that names the place."""
    tables = read_tables(project.read(file), file.name)
    if not tables:
        raise SpecError(
            f"{file.name} names no case",
            hint='add [[case]] with fusion = "..." below it; `afftool graft NET --shapes FILE` writes a network\'s',
        )
    for one in tables:
        if one.for_the_gate:
            key = one.for_the_gate[0]
            raise SpecError(f"{key} of {one.where} is for `afftool check` alone", hint=f"leave it out, and say --{key}")
    return tables


def read_words(key: str, value: Any, where: str) -> list[str]:
    """A value as the command line would have it: a word, a number, or a list of them. Raises `SpecError`."""
    values = value if isinstance(value, list) else [value]
    for item in values:
        if isinstance(item, bool) or not isinstance(item, (str, int)):
            raise SpecError(f"{key} of {where} is {item!r}", hint="a word, a whole number, or a list of them")
    words = split_list(map(str, values))
    if not words:  # no case at all, or what nobody asked for in place of nothing
        raise SpecError(f"{key} of {where} is an empty list", hint="name one at least, or leave the key out")
    return words


def _read(entry: Mapping[str, Any], where: str) -> CaseTable:
    check_names(f"key in {where}:", entry, _CASE_KEYS)
    if "fusion" not in entry:
        raise SpecError(f"{where} has no fusion", hint='for example fusion = "aff" or "mypkg.gates:MyGate"')
    words: dict[str, Sequence[str]] = {key: read_words(key, entry[key], where) for key in CASE_WORDS if key in entry}
    device = read_words("device", entry.get("device", "cpu"), where)
    if len(device) != 1:
        raise SpecError(f"device of {where} is a list", hint="write one case a device")
    sites = entry.get("sites")
    if sites is not None:
        if isinstance(sites, bool) or not isinstance(sites, int):
            raise SpecError(f"sites of {where} is {sites!r}", hint="how many sites have this shape, as sites = 4")
        check_whole(f"sites of {where}:", sites, hint="how many sites have this shape, as sites = 4")
    return CaseTable(
        words=Words(**words, baseline=None),
        where=where,
        device=device[0],
        backends=tuple(read_words("backend", entry.get("backend", "eager"), where)),
        rules=entry.get("rules", {}),
        sites=sites,
        for_the_gate=tuple(key for key in ("device", "backend") if key in entry),
    )
