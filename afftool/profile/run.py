"""From cases to files: a trace, a TensorBoard log and a report each, and the first compared with every other."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afftool import written
from afftool.errors import AfftoolError, LoadError, TooLarge
from afftool.failure import FailedError, Failure, message_of
from afftool.formats import REPORT, write
from afftool.global_state import kept, sentence, set_by
from afftool.profile import plugin
from afftool.profile.diff import diff_report
from afftool.profile.operators import kernels, modules, operators
from afftool.profile.report import memory_csv, profile_report
from afftool.profile.summary import Profile, Tables, save
from afftool.profile.timeline import categories, gaps, memory_curves, step_windows
from afftool.profile.trace import Forest, Trace, grow, load_document, parse
from afftool.record import Environment
from afftool.spec import MODULE, CaseSpec, show_size
from afftool.tables import Report
from afftool.written import Kind

if TYPE_CHECKING:
    from afftool.profile.capture import Captured

TRACE, PROFILE, MEMORY, LOG = "trace.json.gz", "profile.json", "memory.csv", "tensorboard"
_NAMED = Kind(name="file of a profile", is_ours=lambda head: True, instead="name another folder by --out")
"""What only a profile calls so, in a folder that is called after its case."""
REPORT_STEM = "report"
OWN = "afftool's own reader"
LEAST_WATCH_S = 0.3
"""The system counts in hundredths of a second: within a few of them, a single one would pass for a busy machine."""
NO_KERNELS = (
    "The profiler saw nothing run on the GPU: CUPTI told it nothing, as in a container that may not use it, or beside "
    "another profiler (Nsight, DCGM). KINETO_LOG_LEVEL=0 shows what CUPTI said."
)


@dataclass(frozen=True)
class Profiled:
    """A profile and the folder that its files are in."""

    profile: Profile
    folder: Path


def refuse_unwritable(
    out: Path, cases: Sequence[tuple[CaseSpec, str]], folders: Sequence[Path], *, formats: list[str], force: bool
) -> None:
    """Raises `LoadError` where a file of these cases, or of comparing them and `folders`, could not be written.

    Files of others in `out` stay as they are: only a report's place may hold one, and then it is refused, unless
    `force` is given. Nothing is made yet.
    """
    written.refuse_folder(out, option="--out")
    slugs = [slug(spec, backend) for spec, backend in cases]
    for name in slugs:
        for folder in (out / name, out / LOG / name):
            written.refuse_folder(folder, option="--out", within=out)
        for file in (*(out / name / file for file in (TRACE, PROFILE, MEMORY)), out / LOG / name / plugin.LOG_FILE):
            written.refuse(file, _NAMED)
    first, *others = [*(folder.name for folder in folders), *slugs]
    stems = [*(f"{name}/{REPORT_STEM}" for name in slugs), *(_compared(first, other) for other in others)]
    for stem in stems:
        for name in formats:
            written.refuse(out / f"{stem}.{name}", REPORT, force=force)


def profile_case(
    spec: CaseSpec,
    backend: str,
    out: Path,
    *,
    formats: list[str],
    steps: int,
    environment: Environment,
    force: bool = False,
) -> Profiled:
    """Profile a case under a backend and write its files.

    Raises `Unavailable` where it cannot run here, `LoadError` where the user's own module fails or a file cannot be
    written, the other errors of `afftool.errors`, and `FailedError` for anything else that stops the case.
    """
    folder = out / slug(spec, backend)
    trace_file = folder / TRACE
    captured, disturbed = _capture(spec, backend, trace_file, steps)
    document = load_document(trace_file)  # once: unzipping and parsing is what costs time here
    translated = plugin.translate(document)
    plugin.write_log(translated, out / LOG / folder.name)
    profile = summarise(
        document, translated, case=describe(spec, backend), environment=environment.to_dict(), notes=captured.notes
    )
    profile = replace(profile, instability=disturbed, nonfinite_share=captured.nonfinite_share)
    save(profile, folder / PROFILE)
    written.write(folder / MEMORY, memory_csv(profile), _NAMED)
    write_report(profile_report(profile), folder, formats, stem=REPORT_STEM, force=force)
    return Profiled(profile, folder)


def _capture(spec: CaseSpec, backend: str, path: Path, steps: int) -> tuple[Captured, dict[str, str]]:
    """The trace of a case, and what the machine did meanwhile that disturbed it.

    What goes wrong in a module of the user's own is told as theirs.
    """
    from afftool.build import build_case
    from afftool.measure.time.conditions import Watch
    from afftool.profile.capture import capture
    from afftool.room import check_room, least_of_both

    watches: list[tuple[Watch, float]] = []
    try:
        check_room(least_of_both(spec), spec.device, what=f"{spec.fusion} under {backend}")
        with kept(spec.own_targets, "while it ran"):
            captured = capture(
                build_case(spec),
                backend,
                path,
                steps=steps,
                when_warm=lambda: watches.append((Watch(spec.device, []), time.monotonic())),
            )
        ((watch, begun),) = watches
        watch.look()
        time.sleep(max(0.0, LEAST_WATCH_S - (time.monotonic() - begun)))
        if changed := set_by(*spec.own_targets):
            captured = replace(captured, notes=[*captured.notes, f"{sentence(spec.own_targets, changed)}."])
        return captured, {kind: found.text for kind, found in watch.findings().items()}
    except TooLarge as error:  # as for memory that ran out: of several cases the others go on
        raise FailedError(Failure.of(error)) from error
    except AfftoolError:
        raise
    except (Exception, SystemExit) as error:
        failure = Failure.of(error)
        if failure.out_of_memory:
            raise FailedError(replace(failure, hint="use a smaller --batch or --size")) from error
        if not spec.own_targets:
            raise FailedError(failure) from error
        raise LoadError(
            f"{spec.fusion} failed while it ran: {failure.reason}",
            hint=spec.fusion.hint_on(failure.message) or "`afftool inspect` tells more about a module of your own",
        ) from error


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
    blind = str(case.get("device", "")).startswith("cuda") and not trace.device
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
        notes=[*(notes or []), *trouble, *([NO_KERNELS] if blind else [])],
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
            trouble = [
                f"{plugin.PACKAGE} {version} could not read this trace ({type(error).__name__}: {message_of(error)})"
            ]
    own = Tables(
        operators=operators(forest),
        kernels=kernels(trace.device),
        categories=categories(trace, windows),
        steps_us=[end - start for start, end in windows],
    )
    return own, OWN, trouble


def compare(profiled: list[Profiled], out: Path, *, formats: list[str], force: bool = False) -> list[Report]:
    """The first profile against every other one, as reports that are also written to `out`."""
    reports = []
    for other in profiled[1:]:
        report = diff_report(profiled[0].profile, other.profile)
        stem = _compared(profiled[0].folder.name, other.folder.name)
        write_report(report, out, formats, stem=stem, force=force)
        reports.append(report)
    return reports


def _compared(first: str, second: str) -> str:
    """What a comparison's files are called, after the folders of the two."""
    return f"{first}--{second}"


def write_report(report: Report, folder: Path, formats: list[str], *, stem: str, force: bool) -> None:
    """Write a report in each format."""
    write(report, [(name, folder / f"{stem}.{name}") for name in formats], force=force)


def describe(spec: CaseSpec, backend: str) -> dict[str, object]:
    """The case in the stored fields of a record."""
    known = {name: value for name, value in spec.stored().items() if value is not None or name == "channels"}
    return {**known, "backend": backend}


def slug(spec: CaseSpec, backend: str) -> str:
    """A folder's name for a case: what it is, in the letters that every file system takes."""
    parts = [spec.fusion.text, *([] if spec.host == MODULE else [spec.host.text])]
    parts += [f"{spec.channels}c"] if spec.channels is not None else []
    parts += [show_size(spec.size), f"b{spec.batch}", spec.mode, spec.device, backend]
    parts += [spec.dtype] if spec.dtype != "float32" else []
    parts += [spec.memory_format] if spec.memory_format != "contiguous" else []
    return re.sub(r"[^A-Za-z0-9=+,.-]+", "_", "-".join(parts))
