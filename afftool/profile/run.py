"""From cases to a folder: a trace, a TensorBoard log and a report a case, and the first compared with each other."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from afftool.formats import write
from afftool.profile import plugin
from afftool.profile.diff import diff_report
from afftool.profile.report import memory_csv, profile_report
from afftool.profile.summary import Profile, save, summarise
from afftool.profile.trace import load_document
from afftool.record import Environment
from afftool.report.model import Report
from afftool.spec import MODULE, CaseSpec

TRACE, PROFILE, LOG = "trace.json.gz", "profile.json", "tensorboard"


@dataclass(frozen=True)
class Profiled:
    """A profile and the folder that its files are in."""

    profile: Profile
    folder: Path


def profile_cases(
    cases: Iterable[tuple[CaseSpec, str]], out: Path, *, formats: list[str], steps: int, environment: Environment
) -> Iterator[Profiled]:
    """Profile each case under its backend, one after the other; every one is on disk when it is yielded.

    Raises `LoadError` where a file cannot be written and `Unavailable` where a backend cannot run here.
    """
    from afftool.build import build_case
    from afftool.profile.capture import capture

    for spec, backend in cases:
        folder = out / slug(spec, backend)
        trace_file = folder / TRACE
        notes = capture(build_case(spec), backend, trace_file, steps=steps)
        log_file = plugin.write_log(load_document(trace_file), out / LOG / folder.name)
        profile = summarise(
            trace_file, log_file, case=describe(spec, backend), environment=environment.to_dict(), notes=notes
        )
        save(profile, folder / PROFILE)
        (folder / "memory.csv").write_text(memory_csv(profile))
        write_report(profile_report(profile), folder, formats, stem="report")
        yield Profiled(profile, folder)


def compare(profiled: list[Profiled], out: Path, *, formats: list[str]) -> list[Report]:
    """The first profile against every other one, as reports that are also written to `out`."""
    reports = []
    for other in profiled[1:]:
        report = diff_report(profiled[0].profile, other.profile)
        write_report(report, out, formats, stem=f"{profiled[0].folder.name}--{other.folder.name}")
        reports.append(report)
    return reports


def write_report(report: Report, folder: Path, formats: list[str], *, stem: str) -> None:
    """Write a report in each format."""
    folder.mkdir(parents=True, exist_ok=True)
    write(report, [(name, folder / f"{stem}.{name}") for name in formats])


def describe(spec: CaseSpec, backend: str) -> dict[str, object]:
    """The case in the stored fields of a record."""
    extents = dict(zip(("depth", "height", "width")[3 - len(spec.size) :], spec.size, strict=True))
    kept = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name not in ("size", "seed")}
    return {**kept, **extents, "fusion": spec.fusion.text, "host": spec.host.text, "backend": backend}


def slug(spec: CaseSpec, backend: str) -> str:
    """A folder's name for a case: what it is, in the letters that every file system takes."""
    parts = [spec.fusion.text, *([] if spec.host == MODULE else [spec.host.text])]
    parts += [f"{spec.channels}c"] if spec.channels is not None else []
    parts += ["x".join(map(str, spec.size)), f"b{spec.batch}", spec.mode, spec.device, backend]
    parts += [spec.dtype] if spec.dtype != "float32" else []
    parts += [spec.memory_format] if spec.memory_format != "contiguous" else []
    return re.sub(r"[^A-Za-z0-9=+,.-]+", "_", "-".join(parts))
