"""The inner half of a side: reads questions from stdin, one JSON line each, and answers them on what was stdout.

Started as `python -m afftool.gating.worker` by `afftool.gating.side`, in the directory whose code it measures.
Anything the measured code prints goes to stderr.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from afftool.device import resolve_device
from afftool.errors import AfftoolError, BaselineError, Rejected, SpecError, Unavailable
from afftool.gating.side import PROTOCOL, CaseError
from afftool.spec import CaseSpec

if TYPE_CHECKING:
    from afftool.gating.stopwatch import Stopwatch

Fields = Mapping[str, Any]
Answer = dict[str, Any]


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    questions: dict[str, Callable[[Fields], Answer]] = {
        "hello": worker.hello,
        "environment": worker.environment,
        "exact": worker.exact,
        "warm": worker.warm,
        "time": worker.time,
        "instructions": worker.instructions,
    }
    for line in sys.stdin:
        fields = json.loads(line)
        _write(answers, _answered(questions[fields["do"]], fields))


def _answered(question: Callable[[Fields], Answer], fields: Fields) -> Answer:
    try:
        return question(fields)
    except (CaseError, Rejected) as error:
        return {"failed": error.message}
    except AfftoolError as error:
        return {"error": {"kind": type(error).__name__, "message": error.message, "hint": error.hint}}
    except Exception as error:
        if fields["do"] in ("hello", "environment"):
            raise
        traceback.print_exc()
        place = _last_place(error)
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}{place}"}


def _write(stream: TextIO, answer: Answer) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def _last_place(error: Exception) -> str:
    """The last line of the user's own code that the error went through."""
    here = os.getcwd()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(here + os.sep)]
    return f" ({os.path.relpath(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""


class Worker:
    """The questions that can be asked. The case that is being timed stays ready between two of them."""

    def __init__(self) -> None:
        self._watches: dict[str, Stopwatch] = {}

    def hello(self, fields: Fields) -> Answer:
        """Make sure that the project's packages come from the tree this side stands for. Raises `BaselineError`."""
        for package in fields["packages"]:
            spec = importlib.machinery.PathFinder.find_spec(package)
            tree = fields["tree"]
            if spec is None or tree is None:
                continue
            found = list(spec.submodule_search_locations or []) or [spec.origin or ""]
            if not Path(found[0]).resolve().is_relative_to(Path(tree).resolve()):
                raise BaselineError(
                    f"{package!r} would be imported from {found[0]}, not from the commit's own files",
                    hint="the package does not exist at that commit, or an installed copy goes before it",
                )
        return {"protocol": PROTOCOL}

    def environment(self, fields: Fields) -> Answer:
        """The machine and its software."""
        from afftool import environment

        return {"environment": environment.read().to_dict()}

    def exact(self, fields: Fields) -> Answer:
        """The exact metrics of a case, as a `Reading`."""
        from afftool.gating.exact import read_exact

        return {"reading": read_exact(spec_from(fields["case"]), fields["metrics"]).to_dict()}

    def warm(self, fields: Fields) -> Answer:
        """Build a case and run it until its times are stable, on one core if told; answers what a step takes."""
        from afftool.gating.stopwatch import Stopwatch

        key = json.dumps(fields["case"])
        self._watches = {key: Stopwatch(spec_from(fields["case"]), fields["case"]["backend"])}
        if fields.get("core") is not None:
            os.sched_setaffinity(0, {fields["core"]})
        return {"step_ms": self._watches[key].warm(fields["budget_s"])}

    def time(self, fields: Fields) -> Answer:
        """Time so many steps of the case that was warmed up last; answers each block's milliseconds a step."""
        watch = self._watches[json.dumps(fields["case"])]
        return {"step_ms": watch.time(fields["steps"])}

    def instructions(self, fields: Fields) -> Answer:
        """Count the instructions of a step under valgrind. Raises `Unavailable`."""
        from afftool.gating.instructions import count_instructions

        return {"instructions": count_instructions(fields["case"])}


def spec_from(fields: Fields) -> CaseSpec:
    """The case in a question (`afftool.gating.side.case_fields`). Raises `SpecError`; `Unavailable` for its device."""
    plain = {name: value for name, value in fields.items() if name != "backend"}
    try:
        device = resolve_device(plain["device"])
    except SpecError as error:
        raise Unavailable(error.message, hint=error.hint) from error
    return CaseSpec.from_fields(plain | {"device": device})


if __name__ == "__main__":
    main()
