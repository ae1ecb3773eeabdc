import platform
import subprocess
import sys
from typing import Any

from afftool.measure import allocator
from afftool.spec import CaseSpec, FusionSpec

FAULTS = """
import ctypes, resource
from afftool.measure.allocator import keep_freed_memory

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
    asked = allocator.keep_freed_memory.__wrapped__
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: 1 / 0)
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert asked() == "system"
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert asked() == "system"
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libjemalloc.so.2")
    assert asked() == "system"


def test_a_record_says_how_freed_memory_was_treated_when_it_was_timed() -> None:
    from afftool.bench import Options, bench

    spec = CaseSpec(fusion=FusionSpec.parse("add"), channels=4, size=(4, 4))
    (timed,) = bench([spec], Options(measures=("latency",), budget_s=0.01, baseline=None))
    (counted,) = bench([spec], Options(measures=("cost",), baseline=None))
    assert timed.allocator == allocator.keep_freed_memory()
    assert counted.allocator is None
