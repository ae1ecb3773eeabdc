"""Everything a profile's report says, as one value that goes to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afftool.errors import LoadError
from afftool.plain import from_plain, to_plain
from afftool.profile import plugin
from afftool.profile.operators import kernels, modules, operators
from afftool.profile.rows import CategoryRow, GapRow, KernelRow, MemoryCurve, ModuleRow, OperatorRow, Tables
from afftool.profile.timeline import categories, gaps, memory_curves, step_windows
from afftool.profile.trace import Forest, Trace, grow, parse

SCHEMA = 1
OWN = "afftool's own reader"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One traced case: what it was, and its tables. Times are totals over the steps, unless named otherwise."""

    case: Mapping[str, Any]
    """`fusion`, `host`, `backend`, `mode`, `device` and so on, as a record has them."""
    environment: Mapping[str, Any]
    tables_from: str
    """Who read operators, kernels and categories off the trace."""
    steps: int
    """Traced steps, which the totals of the tables are over."""
    steps_us: list[float]
    """Each step; torch-tb-profiler leaves out a last one whose device work the trace does not have in full."""
    operators: list[OperatorRow]
    kernels: list[KernelRow]
    categories: list[CategoryRow]
    modules: list[ModuleRow]
    gaps: list[GapRow]
    memory: list[MemoryCurve]
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        """What the case is called in a heading: its fusion, and what is not the default about the rest."""
        host, backend = self.case.get("host", "module"), self.case.get("backend", "eager")
        parts = [str(self.case["fusion"])]
        parts += [f"in {host}"] if host != "module" else []
        parts += [f"({backend})"] if backend != "eager" else []
        return " ".join(parts)

    @property
    def step_us(self) -> float:
        """Microseconds of the average traced step."""
        return sum(self.steps_us) / len(self.steps_us) if self.steps_us else 0.0

    @property
    def on_device(self) -> bool:
        """Whether anything ran on an accelerator."""
        return any(row.device_self_us for row in self.operators) or bool(self.kernels)

    def kinds(self) -> list[tuple[str, int, float]]:
        """Self time by kind of operator: kind, calls, microseconds on the device if there is one, else on the host."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        for row in self.operators:
            sums[row.kind][0] += row.calls
            sums[row.kind][1] += row.device_self_us if self.on_device else row.host_self_us
        return sorted(((kind, int(n), us) for kind, (n, us) in sums.items()), key=lambda k: (-k[2], k[0]))

    def to_dict(self) -> dict[str, Any]:
        """The profile as JSON takes it."""
        return {"schema": SCHEMA, **to_plain(self)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Profile:
        """The profile back from `to_dict`. Raises `LoadError` for another schema, `TypeError` for a damaged one."""
        if fields.get("schema") != SCHEMA:
            raise LoadError(
                f"this profile has schema {fields.get('schema')!r}, not {SCHEMA}",
                hint="profile again with this afftool",
            )
        return from_plain(cls, fields)


def summarise(
    document: dict[str, Any],
    translated: dict[str, Any] | None,
    *,
    case: Mapping[str, Any],
    environment: Mapping[str, Any],
    notes: list[str] | None = None,
) -> Profile:
    """Read every table off a trace.

    `document` is the profiler's own JSON, `translated` the copy for torch-tb-profiler (`plugin.translate`): its loader
    reads the operator, kernel and category tables where it is installed, afftool's own reader otherwise; the rest is
    always our own reading.
    """
    trace = parse(document)
    forest = grow(trace)
    windows = step_windows(trace)
    tables, source, trouble = _tables(trace, forest, windows, translated)
    return Profile(
        case=dict(case),
        environment=dict(environment),
        tables_from=source,
        steps=len(windows),
        steps_us=tables.steps_us,
        operators=tables.operators,
        kernels=tables.kernels,
        categories=tables.categories,
        modules=modules(trace, forest),
        gaps=gaps(trace, forest, windows),
        memory=memory_curves(trace, forest),
        notes=[*(notes or []), *trouble],
    )


def _tables(
    trace: Trace, forest: Forest, windows: list[tuple[float, float]], translated: dict[str, Any] | None
) -> tuple[Tables, str, list[str]]:
    version = plugin.installed()
    if version is None:
        trouble = [f"{plugin.PACKAGE} is not installed, so there is no TensorBoard page; pip install {plugin.PACKAGE}"]
    elif translated is None:
        trouble = []
    else:
        try:
            return plugin.read_tables(translated), f"{plugin.PACKAGE} {version}", []
        except Exception as error:  # It is no longer maintained: whatever it trips over, the report goes on without it.
            trouble = [f"{plugin.PACKAGE} {version} could not read this trace ({type(error).__name__}: {error})"]
    own = Tables(
        operators=operators(forest),
        kernels=kernels(trace.device),
        categories=categories(trace, windows),
        steps_us=[end - start for start, end in windows],
    )
    return own, OWN, trouble


def save(profile: Profile, path: Path) -> None:
    """Write a profile as JSON."""
    path.write_text(json.dumps(profile.to_dict(), indent=1) + "\n")


def load(path: Path) -> Profile:
    """Read a profile that `save` wrote. Raises `LoadError`."""
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise LoadError(
            f"no profile at {path}", hint="`afftool profile --fusion NAME --out FOLDER` writes one"
        ) from error
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} is not a readable profile: {error}", hint="profile again") from error
    try:
        return Profile.from_dict(fields)
    except (TypeError, AttributeError) as error:
        raise LoadError(f"{path} is not a profile of afftool: {error}", hint="profile again") from error
