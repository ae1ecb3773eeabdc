"""Instructions a step, counted by valgrind through `torch.utils.benchmark`: a time that hardly moves with the machine.

Valgrind hides what it does not emulate (AVX-512 among it), so the kernels that are counted are those of a plain
AVX2 machine wherever this runs. One thread, since the order in which threads wait for each other is not emulated.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afftool.errors import Unavailable

_TOOLS = ("valgrind", "callgrind_control", "callgrind_annotate")
_STEPS = 10
_REPEATS = 3


def why_not(device: str = "cpu") -> str | None:
    """Why instructions cannot be counted here; None where they can. Imports nothing heavy."""
    if platform.system() != "Linux":
        return f"valgrind counts instructions on Linux, this is {platform.system()}"
    if device != "cpu":
        return f"valgrind counts the CPU's instructions, the case runs on {device}"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{', '.join(missing)} is not installed (Debian, Ubuntu: apt-get install valgrind)" if missing else None


def count_instructions(case: Mapping[str, Any]) -> int:
    """Instructions of one step of a case (the fields of `afftool.gating.side.case_fields`): the least of three counts.

    Takes most of a minute, nearly all of it for importing torch under valgrind. Raises `Unavailable`.
    """
    if reason := why_not(case["device"]):
        raise Unavailable(reason)
    from torch.utils.benchmark import Timer

    timer = Timer("watched.run(1)", setup=_SETUP.format(path=os.getcwd(), case=dict(case)), num_threads=1)
    try:
        with _this_python_first():
            counted = timer.collect_callgrind(
                number=_STEPS, repeats=_REPEATS, collect_baseline=False, retain_out_file=False
            )
    except OSError as error:
        raise Unavailable(f"valgrind failed: {str(error).strip().splitlines()[-1]}") from error
    fewest: int = min(stats.counts(denoise=True) for stats in counted)
    return fewest // _STEPS


_SETUP = """
import sys
sys.path.insert(0, {path!r})
from afftool import backends
from afftool.build import build_case
from afftool.gating.worker import spec_from
case = {case!r}
watched = backends.load(case["backend"])(build_case(spec_from(case)))
"""


class _this_python_first:  # noqa: N801 - reads as a statement
    """Torch starts `python`; make that the one that runs now."""

    def __enter__(self) -> None:
        self._path = os.environ.get("PATH", "")
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), self._path])

    def __exit__(self, *_: object) -> None:
        os.environ["PATH"] = self._path
