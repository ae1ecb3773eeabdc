"""What a file can set for the whole process, one `Setting` each: what it is called, how it is read and written.

Nothing here imports torch: its settings are read where it is loaded already.
"""

from __future__ import annotations

import sys

from afftool.global_settings.of_python import pythons
from afftool.global_settings.of_the_process import processes
from afftool.global_settings.of_torch import torchs
from afftool.global_settings.randomness import generators, mark_torch_seed, torch_seed
from afftool.global_settings.setting import Setting


def settings() -> list[Setting]:
    """All settings of this process, torch's among them once it is loaded, in the order in which they are put back."""
    return [*settings_of_running(), *pythons()]


def settings_of_running() -> list[Setting]:
    """What code that runs, and is not only loaded, may leave behind as well."""
    return [*(torchs() if "torch" in sys.modules else ()), *processes()]


__all__ = ["Setting", "generators", "mark_torch_seed", "settings", "settings_of_running", "torch_seed"]
