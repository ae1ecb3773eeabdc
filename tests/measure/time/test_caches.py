import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from afftool.measure.time import caches
from afftool.measure.time.caches import LAST_LEVEL_BYTES, MOST_BYTES, last_level_bytes
from afftool.spec import CaseSpec, FusionSpec

FAULTS = """
import ctypes, resource
from afftool.measure.time.caches import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def faults(size=8 << 20, times=20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        block = ctypes.c_void_p(libc.malloc(size))
        ctypes.memset(block, 1, size)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

libc.mallopt(-3, 128 << 10)  # the threshold as it is at first, and no longer moving by itself
system = faults()
print(keep_freed_memory(), keep_freed_memory())
faults(times=1)
print(system, faults())
"""


def test_memory_that_was_freed_is_not_faulted_in_again() -> None:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return  # nothing to keep on this system
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout.split()
    assert told[:2] == ["kept", "kept"]
    assert 4 * int(told[3]) < int(told[2])


def test_elsewhere_nothing_is_set_and_nothing_is_claimed(monkeypatch: Any) -> None:
    asked = caches.keep_freed_memory.__wrapped__
    monkeypatch.setattr(caches.ctypes, "CDLL", lambda name: 1 / 0)
    monkeypatch.setattr(caches.sys, "platform", "darwin")
    assert asked() == "system"
    monkeypatch.setattr(caches.sys, "platform", "linux")
    monkeypatch.setattr(caches.platform, "libc_ver", lambda: ("", ""))
    assert asked() == "system"
    monkeypatch.setattr(caches.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    assert asked() == "system"


def test_a_record_says_how_freed_memory_was_treated_when_it_was_timed() -> None:
    from afftool.bench import Options, bench

    spec = CaseSpec(fusion=FusionSpec.parse("add"), channels=4, size=(4, 4))
    (timed,) = bench([spec], Options(measures=("latency",), budget_s=0.01, baseline=None))
    (counted,) = bench([spec], Options(measures=("cost",), baseline=None))
    assert timed.allocator == caches.keep_freed_memory()
    assert counted.allocator is None


def machine(root: Path, *caches: tuple[int, int, str, str]) -> Path:
    """A system's description of its caches: processor, level, size, and which processors share it."""
    for number, (cpu, level, size, shared) in enumerate(caches):
        index = root / f"cpu{cpu}" / "cache" / f"index{number % 10}"
        index.mkdir(parents=True)
        for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
            (index / name).write_text(text + "\n", encoding="ascii")
    return root


def test_the_last_level_caches_of_all_sockets_count_and_each_but_once(tmp_path: Path) -> None:
    caches = [(0, 2, "1024K", "0"), (0, 3, "32M", "0-1"), (1, 3, "32M", "0-1"), (2, 3, "32768K", "2-3")]
    assert last_level_bytes("cpu", machine(tmp_path, *caches)) == 64 << 20


def test_a_system_that_tells_nothing_or_nonsense_gets_the_default(tmp_path: Path) -> None:
    assert last_level_bytes("cpu", tmp_path) == LAST_LEVEL_BYTES
    assert last_level_bytes("cpu", machine(tmp_path, (0, 3, "many", "0"))) == LAST_LEVEL_BYTES


def test_no_more_than_the_limit_is_believed(tmp_path: Path) -> None:
    assert last_level_bytes("cpu", machine(tmp_path, (0, 3, "2G", "0"))) == MOST_BYTES
