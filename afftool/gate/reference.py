"""The reference: what the gate measured once. Its file, the baseline to its users, is small and sorted, so that a diff
of it can be reviewed.

Schema history: 1, the first.
"""

from __future__ import annotations

import dataclasses
import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from afftool import __version__, received, written
from afftool.errors import BaselineError, UserError
from afftool.gate.reading import METRICS, Reading
from afftool.received import Malformed
from afftool.record import TORCH_DEFAULTS, Environment
from afftool.written import Kind

SCHEMA = 1

Whole = TypeVar("Whole", dict[str, Any], list[Any])

_REWRITE = "write it again with `afftool check --write-baseline` and commit it"
_DIGITS = 5
"""Times are kept to this many significant digits; the noise is larger."""
_ADVISORY = ("torch", "cuda", "platform", "cpu", "cores", "threads", "gpu", "python", *TORCH_DEFAULTS)

_BEGINS = re.compile(rb'\s*(?:$|<<<<<<< |\{\s*(?:$|<<<<<<< |"(?:afftool|schema|cases|environment)"\s*:))')
"""A baseline, also one that a tool has formatted, a merge has left open or an editor has cut off."""
_KIND = Kind(
    name="baseline of afftool",
    is_ours=lambda head: bool(_BEGINS.match(head)),
    instead="name another file by --baseline, or remove this one first",
    error=BaselineError,
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Readings by the name of their case, with the machine and the software they were taken on."""

    readings: Mapping[str, Reading]
    environment: Environment

    @property
    def has_times(self) -> bool:
        """Whether any case was timed."""
        return any(reading.times_ms for reading in self.readings.values())

    def check_software(self, here: Environment) -> None:
        """Refuse to compare across versions of torch. Raises `BaselineError`.

        Operators, saved tensors and graph breaks change with torch itself, so a difference would blame the wrong
        change. CPU and CUDA builds of one version count alike.
        """
        theirs, ours = _public(self.environment.torch), _public(here.torch)
        if theirs != ours:
            raise BaselineError(
                f"the baseline was written with torch {theirs}, here is torch {ours}",
                hint=f"pin torch=={theirs} in this job, or {_REWRITE} with the new version, by itself",
            )

    def other_machine(self, here: Environment) -> str | None:
        """What makes times of the baseline's machine and of this one incomparable; None where nothing does."""
        if self.environment.fingerprint == here.fingerprint:
            return None
        theirs, ours = _compared(self.environment), _compared(here)
        differing = [
            f"{name} {_said(name, theirs.get(name))} there, {_said(name, ours.get(name))} here"
            for name in _ADVISORY
            if theirs.get(name) != ours.get(name)
        ]
        return "; ".join(differing) or "its fingerprint differs"


def write(path: Path, reference: Reference) -> None:
    """Write the file whole or not at all. Raises `BaselineError`."""
    document = {
        "schema": SCHEMA,
        "afftool": __version__,
        "environment": _environment(reference.environment),
        "cases": {name: _to_json(reading) for name, reading in sorted(reference.readings.items())},
    }
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    written.write(path, text, _KIND)


def refuse_unwritable(path: Path) -> None:
    """Raises `UserError` for a path that `write` would refuse, before anything is measured."""
    written.refuse(path, dataclasses.replace(_KIND, error=UserError))


def read(path: Path) -> Reference:
    """Read the file. Raises `BaselineError`, with what is wrong with it and what to do."""
    try:
        text = received.read_text(path)
    except FileNotFoundError as error:
        raise BaselineError(
            f"there is no baseline {path}",
            hint="write it with `afftool check --write-baseline` and commit it, or use --on-missing-baseline create",
        ) from error
    except (OSError, Malformed) as error:
        raise BaselineError(f"the baseline {path} cannot be read: {received.why(error)}", hint=_REWRITE) from error
    return _parse(text, path)


def _parse(text: str, path: Path) -> Reference:
    if not text.strip():
        raise BaselineError(f"the baseline {path} is empty", hint=f"restore it with git, or {_REWRITE}")
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ", "||||||| ")) or line == "=======":
            raise BaselineError(
                f"the baseline {path} holds an unresolved merge conflict at line {number}",
                hint=f"take either side, finish the merge, then {_REWRITE}",
            )
    try:
        document = received.json_of(text)
    except Malformed as error:
        raise BaselineError(f"the baseline {path} {error}", hint=f"restore it with git, or {_REWRITE}") from error
    if not isinstance(document, dict) or type(document.get("schema")) is not int:
        raise BaselineError(f"{path} is JSON, but no baseline: it has no schema number", hint=_REWRITE)
    if (schema := document["schema"]) != SCHEMA:
        newer = schema > SCHEMA
        said = reprlib.repr(schema)
        raise BaselineError(
            f"the baseline {path} has schema {said}, this afftool ({__version__}) reads schema {SCHEMA}",
            hint=f"upgrade afftool to {_writer(document) or 'a newer version'} or later" if newer else _REWRITE,
        )
    for part in ("cases", "environment"):
        if not isinstance(document.get(part), dict):
            raise BaselineError(f"the baseline {path} lacks what it should hold: its {part}", hint=_REWRITE)
    try:
        environment = Environment.from_dict(document["environment"])
    except TypeError as error:
        raise BaselineError(f"the baseline {path} holds what cannot be: {error}", hint=_REWRITE) from error
    return Reference(
        readings={name: _case(name, fields, path) for name, fields in document["cases"].items()},
        environment=environment,
    )


def _writer(document: Mapping[str, Any]) -> str | None:
    """The version of afftool that wrote it, where it says one."""
    version = document.get("afftool")
    return version if isinstance(version, str) and re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,40}", version) else None


def _case(name: str, fields: Any, path: Path) -> Reading:
    try:
        return _from_json(fields)
    except ValueError as error:
        raise BaselineError(
            f"the baseline {path} holds what cannot be: case {name!r}: {error}",
            hint=f"restore it with git, or {_REWRITE}",
        ) from error


def _to_json(reading: Reading) -> dict[str, Any]:
    fields: dict[str, Any] = dict(reading.values)
    if any(reading.details.values()):
        fields["details"] = {name: dict(detail) for name, detail in reading.details.items() if detail}
    for name, times in (("times_ms", reading.times_ms), ("jobs_ms", reading.jobs_ms)):
        fields |= {name: [float(f"{time:.{_DIGITS}g}") for time in times]} if times else {}
    fields |= {} if reading.nonfinite_share is None else {"nonfinite_share": reading.nonfinite_share}
    return fields | ({"batch": reading.batch} if reading.batch != 1 else {})


def _from_json(fields: Any) -> Reading:
    """The reading of a case; fields that a newer version added are left out. Raises `ValueError` in words."""
    if not isinstance(fields, dict):
        raise ValueError("it is no object")
    details = _part(fields, "details", dict, {})
    return Reading(
        values={name: fields[name] for name in METRICS if name in fields},
        details={name: _part(details, name, dict, {}) for name in details},
        times_ms=tuple(_part(fields, "times_ms", list, [])),
        jobs_ms=tuple(_part(fields, "jobs_ms", list, [])),
        batch=fields.get("batch", 1),
        nonfinite_share=fields.get("nonfinite_share"),
    )


def _part(fields: Mapping[str, Any], name: str, kind: type[Whole], default: Whole) -> Whole:
    value = fields.get(name, default)
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {reprlib.repr(value)}, no {'list' if kind is list else 'object'}")
    return value


def _environment(environment: Environment) -> dict[str, Any]:
    """What comparisons need, and no more: a free gigabyte must not show up in a diff."""
    return _compared(environment) | {"afftool": environment.afftool}


def _compared(environment: Environment) -> dict[str, Any]:
    """The fields that a comparison looks at, where they say anything."""
    fields = environment.to_dict().items()
    return {name: value for name, value in fields if value is not None and name not in environment.beside}


def _said(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value or ("as usual" if name in TORCH_DEFAULTS else "none"))


def _public(version: str | None) -> str:
    return (version or "none").partition("+")[0]
