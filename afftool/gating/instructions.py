"""Instructions a step, counted by valgrind through `torch.utils.benchmark`: a time that hardly moves with the machine.

Valgrind hides what it does not emulate (AVX-512 among it), so the kernels that are counted are those of a plain
AVX2 machine wherever this runs. One thread, since the order in which threads wait for each other is not emulated.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from afftool.errors import Unavailable

_TOOLS = ("valgrind", "callgrind_control", "callgrind_annotate")
_REPEATS = 5
"""Single steps that are counted; the first of them may still fill caches, so the least is kept."""


def why_not(device: str = "cpu") -> str | None:
    """Why instructions cannot be counted here; None where they can. Imports nothing heavy."""
    if platform.system() != "Linux":
        return f"valgrind counts instructions on Linux, this is {platform.system()}"
    if device != "cpu":
        return f"valgrind counts the CPU's instructions, the case runs on {device}"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{', '.join(missing)} is not installed (Debian, Ubuntu: apt-get install valgrind)" if missing else None


def count_instructions(case: Mapping[str, Any]) -> int:
    """Instructions of one step of a case (the fields of `afftool.gating.side.case_fields`): the least of five counts.

    Everything runs some fifty times slower under valgrind: importing torch takes most of a minute, and a step of
    0.1 s five seconds, so small cases are the ones to count. Raises `Unavailable`.
    """
    if reason := why_not(case["device"]):
        raise Unavailable(reason)
    from torch.utils.benchmark import Timer

    timer = Timer("watched.run(1)", setup=_SETUP.format(path=os.getcwd(), case=dict(case)), num_threads=1)
    try:
        with _environment():
            counted = timer.collect_callgrind(number=1, repeats=_REPEATS, collect_baseline=False, retain_out_file=False)
    except OSError as error:
        raise Unavailable(f"valgrind failed: {str(error).strip().splitlines()[-1]}") from error
    fewest: int = min(stats.counts(denoise=True) for stats in counted)
    return fewest


_SETUP = """
import sys
sys.path.insert(0, {path!r})
from afftool import backends
from afftool.build import build_case
from afftool.gating.worker import spec_from
case = {case!r}
watched = backends.load(case["backend"])(build_case(spec_from(case)))
"""


@contextmanager
def _environment() -> Iterator[None]:
    """Torch starts `python`: that is the one that runs now, with dictionaries laid out alike every time."""
    changed = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONHASHSEED": "0",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
